//! Passwords in the lines of a configuration that are shown, since a problem goes into the log, into mail and to
//! `[notify]`. They are struck out, character by character, so that carets still stand where they should: values of an
//! app's `env`, and URLs of the web behind their host.
//!
//! The line is wrong, or it would not be shown. So what cannot be told from a value is one.

use super::problem::{boundary_at_or_before, width};

/// A line of the file `text` as it may be shown.
pub fn struck_out(text: &str, line_start: usize, line: &str) -> String {
    match environment(text, line_start) {
        Some(open) => without_values(line, &open),
        None => without_web(line),
    }
}

/// Whether this place is in an app's `env`.
pub fn is_environment(text: &str, at: usize) -> bool {
    let before = &text[..boundary_at_or_before(text, at)];
    environment(text, before.rfind('\n').map_or(0, |newline| newline + 1)).is_some()
}

/// What was begun and has not ended.
#[derive(Default)]
struct Open {
    /// A string, by the quotes that end it.
    string: Option<&'static str>,
    /// Arrays and tables.
    brackets: usize,
}

impl Open {
    fn is_nothing(&self) -> bool {
        self.string.is_none() && self.brackets == 0
    }

    fn read(&mut self, text: &str) {
        let mut rest = text;
        while !rest.is_empty() {
            let length = self.step(rest);
            rest = &rest[length..];
        }
    }

    /// How long the next piece of `rest` is: a character, the quotes of a string, or a comment.
    fn step(&mut self, rest: &str) -> usize {
        let c = rest.chars().next().unwrap_or_default();
        match (self.string, c) {
            (Some(end), _) if rest.starts_with(end) => {
                self.string = None;
                return end.len();
            }
            (Some("\"" | "\"\"\""), '\\') => {
                return 1 + rest[1..].chars().next().map_or(0, char::len_utf8);
            }
            // Only a string with three quotes goes on in the next line.
            (Some(end), '\n') if end.len() == 1 => self.string = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => {
                self.string = ["\"\"\"", "'''", "\"", "'"].into_iter().find(|quotes| rest.starts_with(quotes));
                return self.string.map_or(1, str::len);
            }
            (None, '{' | '[') => self.brackets += 1,
            (None, '}' | ']') => self.brackets = self.brackets.saturating_sub(1),
            (None, '#') => return rest.find('\n').unwrap_or(rest.len()),
            (None, _) => {}
        }
        c.len_utf8()
    }
}

/// What is open at the beginning of a line that belongs to an app's `env`; None for any other line.
fn environment(text: &str, line_start: usize) -> Option<Open> {
    let (mut open, mut is_section, mut is_begun) = (Open::default(), false, false);
    for line in text[..line_start].split_inclusive('\n') {
        if open.is_nothing() {
            is_begun = false;
            is_section = header(line).map_or(is_section, |name| name.split('.').any(is_env));
        }
        is_begun |= names_env(line);
        open.read(line);
    }
    let line = text[line_start..].lines().next().unwrap_or_default();
    if open.is_nothing() {
        let is_own = header(line).is_none() && (is_section || names_env(line));
        return is_own.then_some(open);
    }
    (is_section || is_begun || names_env(line)).then_some(open)
}

/// The name of the table that begins with this line.
fn header(line: &str) -> Option<&str> {
    line.trim_start().strip_prefix('[')?.trim_start_matches('[').split(']').next()
}

fn is_env(key: &str) -> bool {
    key.trim_matches([' ', '\t', '"', '\'']) == "env"
}

/// Whether `env` stands in a line as a word, outside of strings and comments, or as a key in quotes.
fn names_env(line: &str) -> bool {
    let (mut open, mut outside, mut rest) = (Open::default(), String::new(), line);
    while !rest.is_empty() && (open.string.is_some() || !rest.starts_with('#')) {
        let length = open.step(rest);
        if open.string.is_none() {
            outside.push_str(&rest[..length]);
        }
        rest = &rest[length..];
    }
    let mut words = outside.split(|c: char| !c.is_alphanumeric() && c != '_' && c != '-');
    let quoted = line.trim_start();
    words.any(|word| word == "env") || quoted.starts_with("\"env\"") || quoted.starts_with("'env'")
}

/// A line of an app's `env` with nothing but its keys: what stands before a `=` where a key is due.
fn without_values(line: &str, open: &Open) -> String {
    if open.string.is_some() {
        return line.chars().map(|c| if c.is_whitespace() { c } else { stroke(c) }).collect();
    }
    let (mut is_value, mut arrays) = (false, 0);
    let (mut shown, mut rest) = (String::with_capacity(line.len()), line);
    while let Some(c) = rest.chars().next() {
        let token = &rest[..token(rest, c)];
        rest = &rest[token.len()..];
        match c {
            '=' => is_value = true,
            '[' => arrays += 1,
            ']' => arrays -= 1,
            // In an array the next one is a value, too.
            '{' | '}' | ',' => is_value = is_value && arrays > 0,
            c if c.is_whitespace() => {}
            _ if !is_value && rest.trim_start().starts_with('=') => {}
            '"' | '\'' => {
                let (inside, end) =
                    token[1..].strip_suffix(c).map_or((&token[1..], ""), |inside| (inside, &token[..1]));
                shown.push(c);
                shown.extend(inside.chars().map(stroke));
                shown.push_str(end);
                continue;
            }
            _ => {
                shown.extend(token.chars().map(stroke));
                continue;
            }
        }
        shown.push_str(token);
    }
    shown
}

/// How long the token is that begins with `c`: a string, a word, or a single character.
fn token(rest: &str, c: char) -> usize {
    let is_own = |c: char| c.is_whitespace() || "={},[]\"'".contains(c);
    if c != '"' && c != '\'' {
        return if is_own(c) { c.len_utf8() } else { rest.find(is_own).unwrap_or(rest.len()) };
    }
    let mut escaped = false;
    let end = rest[1..].char_indices().find(|(_, next)| {
        let is_end = *next == c && !escaped;
        escaped = *next == '\\' && c == '"' && !escaped;
        is_end
    });
    end.map_or(rest.len(), |(at, _)| at + 2)
}

/// As wide as what it stands for, for the carets' sake.
fn stroke(c: char) -> char {
    if width(&c.to_string()) == 1 { '*' } else { c }
}

/// A line with every URL of the web struck out behind its host, and what stands before that: what is
/// there is often a password, and a problem goes into the log, into mail and to `[notify]`. Each
/// character has its place still, for the carets.
fn without_web(line: &str) -> String {
    let strike = |text: &str| text.chars().map(stroke).collect::<String>();
    let mut shown = String::with_capacity(line.len());
    let mut rest = line;
    // One whose `https://` was forgotten is still a secret; a path of this machine and `git@host:path` are none.
    let key = line.split('=').next().unwrap_or_default().trim();
    if let Some(quote) = line.find(['"', '\'']).filter(|_| ["url", "ping"].contains(&key) && !line.contains("://")) {
        let (before, value) = line.split_at(quote + 1);
        let at = value.find('/').filter(|_| !value.contains('@') && !value.starts_with(['/', '.', '~']));
        let (host, path) = value.split_at(at.unwrap_or(value.len()));
        let (path, end) = path.split_at(path.find(['"', '\'']).unwrap_or(path.len()));
        return format!("{before}{host}{}{end}", strike(path));
    }
    while let Some((before, after)) = rest.split_once("://") {
        shown.push_str(before);
        shown.push_str("://");
        let end = after.find(['"', '\'']).unwrap_or(after.len());
        let (url, behind) = after.split_at(end);
        rest = behind;
        let scheme = before.rsplit(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
        if ["ssh", "file", "git"].contains(&scheme) {
            shown.push_str(url);
            continue;
        }
        let (host, path) = url.split_at(url.find(['/', '?', '#']).unwrap_or(url.len()));
        match host.rsplit_once('@') {
            Some((user, host)) => shown.push_str(&format!("{}@{host}", strike(user))),
            None => shown.push_str(host),
        }
        shown.push_str(&strike(path));
    }
    shown + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, at: &str) -> String {
        let at = text.find(at).unwrap();
        let line_start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
        struck_out(text, line_start, text[line_start..].lines().next().unwrap())
    }

    #[test]
    fn what_may_be_a_secret_in_a_url_is_struck_out() {
        for (line, shown) in [
            ("url = \"https://u:pw@h/s\" # x", "url = \"https://****@h**\" # x"),
            ("ping = 'http://h:80?t= '", "ping = 'http://h:80****'"),
            ("ping = \"hc.example.org/se/cret\"", "ping = \"hc.example.org********\""),
            ("url = \"https:/h/s", "url = \"https:****"),
            ("command = \"curl http://h/s\"", "command = \"curl http://h**\""),
            ("url = \"ssh://git@h:x/a\"", "url = \"ssh://git@h:x/a\""),
            ("url = \"git@h:a/b\"", "url = \"git@h:a/b\""),
            ("url = \"/srv/a b\"", "url = \"/srv/a b\""),
        ] {
            assert_eq!(without_web(line), shown);
        }
    }

    #[test]
    fn the_values_of_an_environment_are_struck_out() {
        for (text, at, expected) in [
            ("[deploy]\nenv = { A = \"s3\\\"cr\", B = 80 }", "80", "env = { A = \"******\", B = ** }"),
            ("[deploy.env]\nA = ['s', 3]", "3", "A = ['*', *]"),
            ("[ deploy.env ]\n\"A B\" = s3 # x", "s3", "\"A B\" = ** * *"),
            ("[deploy]\nenv.A = 1.5", "1.5", "env.A = ***"),
            (
                "deploy = { user = 'u', env = { A = \"s3cr\" } }",
                "s3",
                "deploy = { user = '*', env = { A = \"****\" } }",
            ),
            ("[deploy]\n\"env\" = { A = \"s3cr\" }", "s3", "\"env\" = { A = \"****\" }"),
            // Tables over several lines, the comma forgotten.
            ("[deploy]\nenv = {\n  A = \"1\"\n  B = \"s3cr\"\n}", "s3", "  B = \"****\""),
            ("[deploy]\nenv = { # it's\n  A = 80\n}", "80", "  A = **"),
            ("[deploy]\nenv = { A = \"1\",\n  B: \"s3=cr\" }", "s3", "  ** \"*****\" }"),
            // Something else in the place of the `=`, or nothing.
            ("[deploy.env]\nA: \"s3cr\"", "s3", "** \"****\""),
            ("[deploy.env]\nA \"s3 cr", "s3", "* \"*****"),
            ("[deploy.env]\ns3cr", "s3", "****"),
            ("[deploy]\nenv = { A: \"s3cr\" }", "s3", "env = { ** \"****\" }"),
            ("[deploy]\nenv = [\n  [\"A\"],\n  \"s3\" x\n]", "s3", "  \"**\" *"),
            ("deploy = {\n  env = {\n    A = 80\n  }\n}", "80", "    A = **"),
            // A string of several lines.
            ("[deploy.env]\nA = \"\"\"one\ns3 = \\q\"\"\"", "s3", "** * *****"),
            ("[deploy]\nenv.A = '''one\n# s3'''", "s3", "* *****"),
        ] {
            assert_eq!(shown(text, at), expected, "{text}");
            assert!(is_environment(text, text.find(at).unwrap()), "{text}");
        }
    }

    #[test]
    fn other_values_are_shown() {
        for (text, at, expected) in [
            ("[deploy.env]\nA = \"x\"\n[health]\nretries = 9", "9", "retries = 9"),
            ("[deploy]\nenv = { A = \"{\" } # it's\ntimeuot = \"9m\"", "9m", "timeuot = \"9m\""),
            ("[deploy]\nscript = \"env A=1 ./d.sh\"", "./d", "script = \"env A=1 ./d.sh\""),
            ("[deploy]\n# env = {\numask = 22", "22", "umask = 22"),
            ("[deploy]\nenvy = 1", "1", "envy = 1"),
            ("[deploy.env]\nA = \"x\"\n[healht]\nretries = 9", "healht", "[healht]"),
            ("[deploy]\n[deploy.env]\n[deploy.env]", "[deploy.env]\n[", "[deploy.env]"),
        ] {
            assert_eq!(shown(text, at), expected, "{text}");
            assert!(!is_environment(text, text.find(at).unwrap()), "{text}");
        }
    }
}
