//! The file of who may sign, as ssh-keygen(1) has it under ALLOWED SIGNERS: a line is
//! `principals [options] keytype base64-key [comment]`.
//!
//! Like git, which asks ssh-keygen for the principals of a key and then believes them: a key may sign when some line
//! has it and that line's options hold. Principals are shown and not held against the author's address. Where lines of
//! one key disagree, git looks at those of the first one's principals, and here any of them will do.
//!
//! Stricter than OpenSSH: a line that cannot be read makes the whole file an error, and so does `cert-authority`,
//! which is not supported. A time without `Z` is UTC here; in OpenSSH it is the local time of whoever verifies.

use std::path::Path;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use russh::keys::PublicKey;
use russh::keys::ssh_key::public::KeyData;

use crate::outcome::{Class, Failure};
use crate::remote::wildcard;
use crate::report::printable;

const KEY_TYPES: [&str; 8] = [
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    // Read, since git may verify it elsewhere; a signature by it is refused.
    "ssh-rsa",
    "ssh-dss",
];

#[derive(Debug)]
pub struct AllowedSigners {
    lines: Vec<Line>,
}

#[derive(Debug, PartialEq, Eq)]
struct Line {
    number: usize,
    principals: String,
    options: Options,
    key: KeyData,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    namespaces: Option<String>,
    after: Option<Timestamp>,
    before: Option<Timestamp>,
}

/// Why no line lets a key sign: what is wrong with the last one that has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unfit {
    Unknown,
    /// All principals are taken back by a `!`.
    Nobody {
        line: usize,
    },
    Namespace {
        line: usize,
    },
    Early {
        line: usize,
        after: Timestamp,
    },
    Late {
        line: usize,
        before: Timestamp,
    },
}

impl AllowedSigners {
    /// # Errors
    /// `Config`, with the line, for the first that cannot be read: a limit that is misspelt is no limit.
    pub fn parse(file: &Path, text: &str) -> Result<AllowedSigners, Failure> {
        let mut lines = Vec::new();
        for (index, text) in text.lines().enumerate() {
            let number = index + 1;
            match parse_line(text) {
                Ok(None) => {}
                Ok(Some((principals, options, key))) => lines.push(Line { number, principals, options, key }),
                Err(why) => return Err(problem(file, number, &why)),
            }
        }
        Ok(AllowedSigners { lines })
    }

    /// The principals of the first line that lets this key sign at this time.
    pub fn find(&self, key: &KeyData, namespace: &str, seconds: i64) -> Result<&str, Unfit> {
        let mut why = Unfit::Unknown;
        for line in self.lines.iter().filter(|line| line.key == *key) {
            match line.unfit(namespace, seconds) {
                None => return Ok(&line.principals),
                Some(unfit) => why = unfit,
            }
        }
        Err(why)
    }
}

impl Line {
    fn unfit(&self, namespace: &str, seconds: i64) -> Option<Unfit> {
        let line = self.number;
        // ssh-keygen takes each principal for a name and looks whether the list has it.
        let stands_for = |name: &str| is_in_list(&self.principals, name);
        if !self.principals.split(',').filter(|name| !name.is_empty()).any(stands_for) {
            return Some(Unfit::Nobody { line });
        }
        let Options { namespaces, after, before } = &self.options;
        if namespaces.as_ref().is_some_and(|list| !is_in_list(list, namespace)) {
            return Some(Unfit::Namespace { line });
        }
        if let Some(after) = after.filter(|after| seconds < after.as_second()) {
            return Some(Unfit::Early { line, after });
        }
        before.filter(|before| seconds > before.as_second()).map(|before| Unfit::Late { line, before })
    }
}

/// A pattern list of OpenSSH: one that fits, and none with `!` that does.
fn is_in_list(list: &str, name: &str) -> bool {
    let mut found = false;
    for pattern in list.split(',').filter(|pattern| !pattern.is_empty()) {
        match pattern.strip_prefix('!') {
            Some(pattern) if wildcard::fits(pattern, name) => return false,
            Some(_) => {}
            None => found |= wildcard::fits(pattern, name),
        }
    }
    found
}

fn problem(file: &Path, line: usize, why: &str) -> Failure {
    let message = format!("{}:{line}: {}", file.display(), printable(why));
    Failure::new(Class::Config, message)
        .help("a line is: alice@example.org namespaces=\"git\" ssh-ed25519 AAAA…; see ALLOWED SIGNERS in ssh-keygen(1)")
}

type Parsed = (String, Options, KeyData);

fn parse_line(text: &str) -> Result<Option<Parsed>, String> {
    let text = text.trim_matches(BLANK);
    if text.is_empty() || text.starts_with('#') {
        return Ok(None);
    }
    let (principals, rest) = principals(text)?;
    let (options, rest) = match KEY_TYPES.contains(&word(rest).0) {
        true => (Options::default(), rest),
        false => {
            // A key type that is not known would be read as an option, and so would its key be.
            let end = options_end(rest)?;
            let options = options(&rest[..end])?;
            (options, rest[end..].trim_start_matches(BLANK))
        }
    };
    let (kind, rest) = word(rest);
    let (base64, _comment) = word(rest);
    if kind.is_empty() || base64.is_empty() {
        return Err("the key is missing".to_owned());
    }
    if !KEY_TYPES.contains(&kind) {
        return Err(format!("unknown key type `{kind}`"));
    }
    let key = PublicKey::from_openssh(&format!("{kind} {base64}"))
        .map_err(|error| format!("the {kind} key cannot be read: {error}"))?;
    Ok(Some((principals.to_owned(), options, key.key_data().clone())))
}

const BLANK: [char; 3] = [' ', '\t', '\r'];

fn word(text: &str) -> (&str, &str) {
    let (word, rest) = text.split_once(BLANK).unwrap_or((text, ""));
    (word, rest.trim_start_matches(BLANK))
}

/// The list may stand in quotes, if a name has a blank.
fn principals(text: &str) -> Result<(&str, &str), String> {
    let (principals, rest) = match text.strip_prefix('"') {
        Some(quoted) => quoted.split_once('"').ok_or("a quote is not closed")?,
        None => text.split_once(BLANK).ok_or("the key is missing")?,
    };
    match principals.split(',').all(str::is_empty) || KEY_TYPES.contains(&principals) {
        // As in the .pub file that was copied.
        true => Err("a line begins with whose key it is, such as alice@example.org".to_owned()),
        false => Ok((principals, rest.trim_start_matches(BLANK))),
    }
}

/// Options end at the first blank outside of quotes.
fn options_end(text: &str) -> Result<usize, String> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            // The only escape there is.
            '\\' if text[at + 1..].starts_with('"') => escaped = true,
            '"' => quoted = !quoted,
            c if !quoted && BLANK.contains(&c) => return Ok(at),
            _ => {}
        }
    }
    Err(if quoted { "a quote is not closed" } else { "the key is missing" }.to_owned())
}

fn options(text: &str) -> Result<Options, String> {
    let mut options = Options::default();
    let mut rest = text;
    loop {
        let end = rest.find(['=', ',']).unwrap_or(rest.len());
        let name = rest[..end].to_ascii_lowercase();
        let after_name = &rest[end..];
        if name == "cert-authority" {
            return Err("`cert-authority` is not supported: list the keys themselves".to_owned());
        }
        if !["namespaces", "valid-after", "valid-before"].contains(&name.as_str()) {
            return Err(format!("unknown option or key type `{}`", &rest[..end]));
        }
        let (value, after) = after_name
            .strip_prefix("=\"")
            .and_then(dequote)
            .ok_or_else(|| format!("the value of `{name}` is not in double quotes"))?;
        let twice = match name.as_str() {
            "namespaces" => options.namespaces.replace(value).is_some(),
            "valid-after" => options.after.replace(time(&name, &value)?).is_some(),
            _ => options.before.replace(time(&name, &value)?).is_some(),
        };
        if twice {
            return Err(format!("`{name}` is given twice"));
        }
        match after.strip_prefix(',') {
            Some(more) if !more.is_empty() => rest = more,
            Some(_) => return Err("a comma is followed by no option".to_owned()),
            None if after.is_empty() => break,
            None => return Err(format!("`{after}` after the value of `{name}`")),
        }
    }
    match (options.after, options.before) {
        (Some(after), Some(before)) if before <= after => Err("`valid-before` is not after `valid-after`".to_owned()),
        _ => Ok(options),
    }
}

/// What stands before the closing quote, and what after it.
fn dequote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' if chars.next_if(|&(_, next)| next == '"').is_some() => value.push('"'),
            '"' => return Some((value, &text[at + 1..])),
            c => value.push(c),
        }
    }
    None
}

/// `YYYYMMDD[HHMM[SS]][Z]`
fn time(option: &str, text: &str) -> Result<Timestamp, String> {
    let wrong = || format!("`{option}` is no time: write YYYYMMDD, YYYYMMDDHHMM or YYYYMMDDHHMMSS, which are UTC");
    let digits = text.strip_suffix(['Z', 'z']).unwrap_or(text);
    if ![8, 12, 14].contains(&digits.len()) || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    let part = |from: usize, to: usize| digits.get(from..to).map_or(Ok(0), str::parse::<i8>).map_err(|_| wrong());
    let year: i16 = digits[..4].parse().map_err(|_| wrong())?;
    DateTime::new(year, part(4, 6)?, part(6, 8)?, part(8, 10)?, part(10, 12)?, part(12, 14)?, 0)
        .and_then(|time| time.to_zoned(TimeZone::UTC))
        .map(|time| time.timestamp())
        .map_err(|_| wrong())
}

#[cfg(test)]
mod tests;
