//! `poller sudoers`: the drop-in for /etc/sudoers.d that the apps need, and nothing more than they need.
//!
//! sudo compares a command word for word, and a rule that is a little too wide is a root shell. So each
//! command is a rule of its own, without aliases or patterns, in which every character stands for itself.
//! How sudo must be told so was found out by asking it, for every character there is: the scenarios still do.

use std::fmt::Write as _;
use std::path::Path;

use nix::unistd::Uid;
use serde_json::json;

use super::setting::{self, Selection};
use crate::cli::Common;
use crate::config::{App, Config};
use crate::outcome::exit_code;
use crate::report::printable;
use crate::report::terminal::{Console, print, print_json};
use crate::sys::account::Account;

/// As whom poller runs decides who needs sudo for the units.
#[derive(Debug)]
pub enum Caller {
    /// Restarts units by itself, and runs scripts as each app's user.
    Root,
    /// Does everything itself, and restarts units through `sudo -n`.
    Ordinary { name: String, systemctl: &'static str },
}

/// What one app needs.
#[derive(Debug)]
pub struct Need {
    app: String,
    /// Who runs the commands; None where root would run the script and its file does not say as whom.
    user: Option<String>,
    pub commands: Vec<Vec<String>>,
    units: usize,
}

pub fn run(common: &Common, named: &[String]) -> u8 {
    setting::run(|console| {
        let config = crate::processes::supervisor::load(common.config.as_deref())?;
        let selection = setting::select(&config, named)?;
        let caller = match Uid::effective().is_root() {
            true => Caller::Root,
            false => Caller::Ordinary { name: Account::current()?.name, systemctl: systemctl() },
        };
        let needs: Vec<Need> = selection.apps.iter().map(|app| need(app, &caller)).collect();
        if common.json {
            print_json(&as_json(&needs));
        } else {
            let mut left_out: Vec<(&str, &str)> =
                selection.broken.iter().map(|(name, _)| (name.as_str(), "its file is broken")).collect();
            let elsewhere = selection.elsewhere.iter().filter(|_| !named.is_empty());
            left_out.extend(elsewhere.map(|app| (app.name.as_str(), "it is not for this host")));
            let head = head(&config, common, named, &caller);
            print(&format!("{head}{}", body(&needs, &caller, &left_out)));
        }
        Ok(tell_broken(console, &selection))
    })
}

/// On standard error, so that what is piped into a file stays a drop-in.
fn tell_broken(console: &Console, selection: &Selection) -> u8 {
    for (name, failure) in &selection.broken {
        console.say(&format!("poller: {name}: {}", failure.message));
        failure.help.iter().for_each(|line| console.say(&format!("  {line}")));
    }
    exit_code(selection.broken.iter().map(|(_, failure)| failure.class.exit_code()))
}

/// Where /bin is a link to /usr/bin, sudo knows the two for the same file, and one rule is enough.
fn systemctl() -> &'static str {
    let places = ["/usr/bin/systemctl", "/bin/systemctl"];
    places.into_iter().find(|path| Path::new(path).exists()).unwrap_or(places[0])
}

pub fn need(app: &App, caller: &Caller) -> Need {
    let deploy = &app.deploy;
    // The configuration has seen to it that they can be split.
    let mut commands: Vec<Vec<String>> = deploy.sudo.iter().filter_map(|command| shlex::split(command)).collect();
    let user = match caller {
        Caller::Root => deploy.user.clone(),
        Caller::Ordinary { name, systemctl } => {
            let restarts = deploy.restart.iter().map(|unit| ("restart", unit));
            let all = restarts.chain(deploy.reload.iter().map(|unit| ("reload", unit)));
            commands.extend(all.map(|(verb, unit)| vec![(*systemctl).to_owned(), verb.to_owned(), unit.clone()]));
            Some(name.clone())
        }
    };
    Need { app: app.name.as_str().to_owned(), user, commands, units: deploy.restart.len() + deploy.reload.len() }
}

/// What the file is and how it gets to its place.
fn head(config: &Config, common: &Common, named: &[String], caller: &Caller) -> String {
    let mut words = vec!["poller".to_owned(), "sudoers".to_owned()];
    words.extend(named.iter().cloned());
    if let Some(file) = &common.config {
        words.extend(["--config".to_owned(), file.display().to_string()]);
    }
    let this = printable(&shlex::try_join(words.iter().map(String::as_str)).unwrap_or_default());
    let (place, sudo) = (place(named, caller), if matches!(caller, Caller::Root) { "" } else { "sudo " });
    let host = printable(&config.host.name);
    format!(
        "# What the apps of {host} need of sudo, and nothing more. Made by: {this}\n\
         # Check:    {this} | /usr/sbin/visudo -cf -\n\
         # Install:  {this} | {sudo}install -m 0440 /dev/stdin {place}\n\
         # sudo passes over a file whose name has a dot, and refuses one that others may write.\n"
    )
}

/// A file for all apps, or for those named; an ordinary user's is another than root's.
fn place(named: &[String], caller: &Caller) -> String {
    let user = match caller {
        Caller::Root => None,
        Caller::Ordinary { name, .. } => Some(name.as_str()),
    };
    let parts = ["poller"].into_iter().chain(user).chain(named.iter().map(String::as_str));
    let name = parts.collect::<Vec<_>>().join("-");
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    format!("/etc/sudoers.d/{}", name.chars().map(plain).collect::<String>())
}

/// A paragraph an app, rules and comments.
fn body(needs: &[Need], caller: &Caller, left_out: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for need in needs {
        let rules = rules(need);
        let units = match (caller, need.units) {
            (_, 0) => None,
            (Caller::Root, _) => Some("poller, as root, restarts its units without sudo"),
            (Caller::Ordinary { .. }, _) => Some("its script's commands, and its units"),
        };
        let about = match (&need.user, rules.is_empty(), units) {
            (None, _, _) if !need.commands.is_empty() => "left out: `[deploy] user` is missing in its file".to_owned(),
            (_, true, None) => "needs nothing".to_owned(),
            (_, true, Some(units)) => format!("needs nothing: {units}"),
            (_, false, None) => "its script's commands".to_owned(),
            (_, false, Some(units)) if matches!(caller, Caller::Root) => format!("its script's commands ({units})"),
            (_, false, Some(units)) if need.commands.len() > need.units => units.to_owned(),
            (_, false, Some(_)) => "its units".to_owned(),
        };
        let _ = write!(text, "\n# {}: {about}\n{}", need.app, lines(&rules));
    }
    for (name, why) in left_out {
        let _ = write!(text, "\n# \"{name}\": left out, {why}\n");
    }
    if needs.is_empty() && left_out.is_empty() {
        text.push_str("\n# There are no apps, so nothing is needed.\n");
    }
    text
}

fn lines(rules: &[String]) -> String {
    rules.iter().map(|rule| format!("{rule}\n")).collect()
}

pub fn rules(need: &Need) -> Vec<String> {
    let Some(user) = &need.user else { return Vec::new() };
    let mut rules: Vec<String> = Vec::new();
    for command in &need.commands {
        let rule = format!("{} ALL = (root) NOPASSWD: {}", quoted_user(user), spelt(command));
        if !rules.contains(&rule) {
            rules.push(rule);
        }
    }
    rules
}

/// A user's name as sudo takes it for nothing else: capitals would be an alias, some words are its own.
fn quoted_user(name: &str) -> String {
    let usual = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
    let own = ["sha224", "sha256", "sha384", "sha512", "list", "sudoedit"];
    if name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_') && name.chars().all(usual) && !own.contains(&name)
    {
        return name.to_owned();
    }
    format!("\"{}\"", name.replace('"', "\\\""))
}

/// A command in which every character stands for itself. Without any arguments sudo would allow all, so
/// `""` says that there are none.
fn spelt(words: &[String]) -> String {
    let spelt: Vec<String> = words.iter().map(|word| spelt_word(word)).collect();
    if spelt.len() == 1 { format!("{} \"\"", spelt[0]) } else { spelt.join(" ") }
}

fn spelt_word(word: &str) -> String {
    let mut text = String::new();
    for c in word.chars() {
        match c {
            // Read twice: by the parser of sudoers, and as a pattern.
            '\\' => text.push_str(r"\\\\"),
            ',' | ':' | '=' | '#' | ' ' | '!' | '^' | '*' | '?' | '[' | ']' => text.extend(['\\', c]),
            c => text.push(c),
        }
    }
    text
}

fn as_json(needs: &[Need]) -> serde_json::Value {
    let app = |need: &Need| json!({ "app": need.app, "user": need.user, "commands": need.commands });
    let apps: Vec<serde_json::Value> = needs.iter().map(app).collect();
    json!({ "schema": 1, "lines": needs.iter().flat_map(rules).collect::<Vec<_>>(), "apps": apps })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        shlex::split(text).unwrap()
    }

    fn needing(user: Option<&str>, commands: &[&str], units: usize) -> Need {
        let commands = commands.iter().map(|command| words(command)).collect();
        Need { app: "todo".into(), user: user.map(str::to_owned), commands, units }
    }

    #[test]
    fn every_character_of_a_command_stands_for_itself() {
        for (command, rule) in [
            ("/bin/true", r#"/bin/true """#),
            ("/usr/bin/systemctl restart a@b:c.service", r"/usr/bin/systemctl restart a@b\:c.service"),
            ("/bin/x a,b c=d '#e' !f", r"/bin/x a\,b c\=d \#e \!f"),
            (r"/bin/x 'a\b' '^c'", r"/bin/x a\\\\b \^c"),
            (r#"/opt/my\ app/x 'two  words' '"'"#, r#"/opt/my\ app/x two\ \ words ""#),
        ] {
            assert_eq!(spelt(&words(command)), rule);
        }
    }

    #[test]
    fn a_user_is_never_taken_for_an_alias_or_a_word_of_sudos_own() {
        for (name, rule) in [
            ("www-data", "www-data"),
            ("_x1", "_x1"),
            ("ALL", "\"ALL\""),
            ("WWW", "\"WWW\""),
            ("sha256", "\"sha256\""),
            ("a.b", "\"a.b\""),
            ("!x", "\"!x\""),
            ("a\"b", "\"a\\\"b\""),
        ] {
            assert_eq!(quoted_user(name), rule);
        }
    }

    #[test]
    fn who_needs_nothing_is_told_so_in_comments_only() {
        for (needs, says) in [
            (vec![], "no apps"),
            (vec![needing(Some("gunicorn"), &[], 0)], "todo: needs nothing\n"),
            (vec![needing(Some("gunicorn"), &[], 2)], "as root, restarts its units without sudo\n"),
            (vec![needing(None, &["/bin/true"], 0)], "`[deploy] user` is missing"),
        ] {
            let text = body(&needs, &Caller::Root, &[]);
            assert!(text.contains(says), "{text}");
            assert!(text.lines().all(|line| line.is_empty() || line.starts_with("# ")), "{text}");
        }
    }

    #[test]
    fn the_sample_is_what_this_prints() {
        let sample = include_str!("../../packaging/sudoers/poller-todo");
        let printed = rules(&needing(Some("gunicorn"), &["/usr/bin/systemctl restart todo_gunicorn.service"], 0));
        let shipped: Vec<&str> = sample.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
        assert_eq!(shipped, printed);
    }

    #[test]
    fn the_files_name_is_one_that_sudo_reads() {
        let user = Caller::Ordinary { name: "jo.doe".into(), systemctl: "/usr/bin/systemctl" };
        assert_eq!(place(&[], &Caller::Root), "/etc/sudoers.d/poller");
        assert_eq!(place(&["a.b".into(), "c".into()], &Caller::Root), "/etc/sudoers.d/poller-a_b-c");
        assert_eq!(place(&[], &user), "/etc/sudoers.d/poller-jo_doe");
    }
}
