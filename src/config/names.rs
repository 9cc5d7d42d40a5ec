//! Names of the host that a configuration may use: accounts, units, environment variables, commands for sudo.
//!
//! They end up in system calls, in arguments of systemctl and in a sudoers file, so each is held to what is surely harmless
//! there.

use std::collections::BTreeMap;

use super::problem::Fault;
use super::values::Text;

/// A user or group of the host, by name, and never the superuser.
#[derive(Debug)]
pub struct Account(pub String);

impl Text for Account {
    const EXPECTING: &'static str = "a string";

    fn parse(name: &str) -> Result<Account, Fault> {
        if name.is_empty() {
            return Err(Fault::new("a name is not empty").help("leave the key out for the default"));
        }
        if name == "root" {
            return Err(Fault::new("`root` is refused").help("the script runs as a restricted user: name one"));
        }
        if name.bytes().all(|b| b.is_ascii_digit()) {
            return Err(
                Fault::new(format!("`{name}` is a number")).help(format!("name it, uid {name} could be anyone"))
            );
        }
        let odd = |c: char| c.is_control() || c.is_whitespace() || matches!(c, ':' | '/' | ',');
        // A backslash at the end would keep a quoted name open in a sudoers file.
        if name.contains(odd) || name.starts_with(['-', '+', '#', '%']) || name.ends_with('\\') {
            return Err(Fault::new(format!("`{name}` is not the name of a user or group")));
        }
        Ok(Account(name.to_owned()))
    }

    fn for_integer(number: i64) -> Option<Fault> {
        Some(Fault::new(format!("`{number}` is a number")).help(format!("name it, uid {number} could be anyone")))
    }
}

/// The name that this host goes by in `hosts`, logs and metrics.
#[derive(Debug)]
pub struct HostName(pub String);

impl Text for HostName {
    const EXPECTING: &'static str = "a string";

    fn parse(name: &str) -> Result<HostName, Fault> {
        let odd = |c: char| c.is_control() || c.is_whitespace() || c == '/';
        if name.is_empty() || name.contains(odd) {
            return Err(Fault::new("a host's name is not empty and has no blanks, slashes or control characters"));
        }
        Ok(HostName(name.to_owned()))
    }
}

/// A systemd unit.
#[derive(Debug)]
pub struct UnitName(pub String);

const UNIT_SUFFIXES: [&str; 5] = [".service", ".socket", ".timer", ".target", ".path"];

impl Text for UnitName {
    const EXPECTING: &'static str = "a string";

    fn parse(name: &str) -> Result<UnitName, Fault> {
        let usual = |c: char| c.is_ascii_alphanumeric() || matches!(c, ':' | '_' | '.' | '@' | '-');
        // systemctl would take a first `-` for an option.
        if name.is_empty() || name.len() > 255 || name.starts_with('-') || !name.chars().all(usual) {
            return Err(
                Fault::new(format!("`{name}` is not the name of a unit")).help("write for example \"todo.service\"")
            );
        }
        let stem = UNIT_SUFFIXES.iter().find_map(|suffix| name.strip_suffix(suffix));
        match stem {
            Some("") => {
                Err(Fault::new(format!("`{name}` is a suffix only")).help(format!("write for example \"todo{name}\"")))
            }
            Some(_) => Ok(UnitName(name.to_owned())),
            None => Err(Fault::new(format!("`{name}` has no unit suffix"))
                .help(format!("write \"{name}.service\"; the others are .socket, .timer, .target and .path"))),
        }
    }
}

/// The name of a variable that the script is given.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EnvName(String);

impl Text for EnvName {
    const EXPECTING: &'static str = "a name";

    fn parse(name: &str) -> Result<EnvName, Fault> {
        let usual = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) || !name.chars().all(usual) {
            return Err(Fault::new(format!("`{name}` is not the name of a variable"))
                .help("letters, digits and `_` make one, and no digit begins it"));
        }
        if name.starts_with("POLLER_") {
            return Err(Fault::new(format!("`{name}` is set by poller itself"))
                .help("choose a name that does not start with POLLER_"));
        }
        Ok(EnvName(name.to_owned()))
    }
}

/// What a variable is set to.
#[derive(Debug)]
pub struct EnvValue(String);

impl Text for EnvValue {
    const EXPECTING: &'static str = "a string";

    fn parse(value: &str) -> Result<EnvValue, Fault> {
        match value.contains('\0') {
            true => Err(Fault::new("the value of a variable has no NUL character")),
            false => Ok(EnvValue(value.to_owned())),
        }
    }
}

pub fn plain_env(env: BTreeMap<EnvName, EnvValue>) -> BTreeMap<String, String> {
    env.into_iter().map(|(name, value)| (name.0, value.0)).collect()
}

/// One exact command that the script may run through sudo.
#[derive(Debug)]
pub struct SudoCommand(pub String);

impl Text for SudoCommand {
    const EXPECTING: &'static str = "a string";

    fn parse(command: &str) -> Result<SudoCommand, Fault> {
        let (program, arguments) = command.split_once(' ').unwrap_or((command, ""));
        if !program.starts_with('/') {
            return Err(Fault::new(format!("`{command}` is not absolute"))
                .help("write the whole path of the program, from `/`"));
        }
        if command.chars().any(char::is_control) {
            return Err(Fault::new("a command for sudo is one line without control characters"));
        }
        // In a sudoers file these mean more than themselves: a pattern, every program of a folder, a regular expression.
        if let Some(c) = command.chars().find(|c| matches!(c, '*' | '?' | '[')) {
            return Err(Fault::new(format!("a command for sudo has no wildcard, and `{c}` is one"))
                .help("list each command exactly"));
        }
        if program.ends_with('/') {
            return Err(Fault::new(format!("`{program}` is a folder, which would allow all programs in it"))
                .help("list each command exactly"));
        }
        if arguments.trim_start().starts_with('^') {
            return Err(
                Fault::new("arguments that begin with `^` are a pattern to sudo").help("list each command exactly")
            );
        }
        check_words(command)?;
        Ok(SudoCommand(command.to_owned()))
    }
}

/// It is split as every command is; sudo compares the words, and some cannot be told to it.
fn check_words(command: &str) -> Result<(), Fault> {
    let Some(words) = shlex::split(command) else {
        return Err(Fault::new("a quote in the command is not closed, or it ends with a backslash"));
    };
    let exactly = |why: String| Err(Fault::new(why).help("put it into a script of root's, and list that"));
    // As for a shell, a `#` before a word begins a comment, and what stands behind it would be lost.
    if shlex::split(&format!("{command} end")).is_none_or(|longer| longer.len() == words.len()) {
        return Err(Fault::new("`#` begins a comment").help("put it in quotes, or leave it out"));
    }
    let program = words.first().map_or("", String::as_str);
    if let Some(c) = program.chars().find(|c| matches!(c, '!' | '^' | '\\' | ']')) {
        return exactly(format!("sudo takes no `{c}` in the name of a program"));
    }
    if program.ends_with('/') {
        return exactly(format!("`{program}` is a folder, which would allow all programs in it"));
    }
    if program.ends_with("/sudoedit") {
        return exactly("sudo takes no path to `sudoedit`".to_owned());
    }
    let odd = words[1..].iter().any(|word| word.is_empty() || word == "\"\"");
    if odd || words.last().is_some_and(|word| word.ends_with(' ')) {
        return exactly("sudo cannot be told of an empty argument, of `\"\"`, or of a blank at the end".to_owned());
    }
    Ok(())
}
