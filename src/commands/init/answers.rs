//! What the new app is to be: by flags, by asking whoever sits at the terminal, or by default.

use std::io::{IsTerminal, Write};
use std::path::Path;

use anyhow::Result;
use nix::unistd::{Uid, User};

use crate::cli::Init;
use crate::config::{AppName, Command, Follow, given};
use crate::outcome::{Class, Failure};
use crate::report::printable;
use crate::report::terminal::tell;

/// All that is asked of a new app.
pub struct Answers {
    pub follow: Follow,
    pub directory: std::path::PathBuf,
    /// None for an ordinary user's own.
    pub user: Option<String>,
    /// As it was written.
    pub script: String,
    pub restart: Vec<String>,
}

/// What was given by flags, each checked.
pub struct Flags {
    pub follow: Option<Follow>,
    pub directory: Option<std::path::PathBuf>,
    pub user: Option<String>,
    pub script: Option<Command>,
    pub restart: Vec<String>,
}

impl Flags {
    pub fn of(init: &Init) -> Result<Flags, Failure> {
        let directory = init.directory.as_deref().map(utf8).transpose()?;
        let units = init.restart.iter().map(|unit| given::unit(unit));
        Ok(Flags {
            follow: match (&init.branch, &init.tag, &init.reference) {
                (Some(branch), ..) => Some(flag("--branch", given::branch(branch))?),
                (_, Some(tag), _) => Some(flag("--tag", given::tag(tag))?),
                (.., Some(reference)) => Some(flag("--ref", given::reference(reference))?),
                _ => None,
            },
            directory: directory.map(|d| flag("--directory", given::directory(d))).transpose()?,
            user: init.user.as_deref().map(|user| flag("--user", given::account(user))).transpose()?,
            script: init.script.as_deref().map(|script| flag("--script", given::command(script))).transpose()?,
            restart: flag("--restart", units.collect())?,
        })
    }
}

fn utf8(path: &Path) -> Result<&str, Failure> {
    path.to_str().ok_or_else(|| Failure::new(Class::Usage, "--directory: the path is not UTF-8"))
}

fn flag<T>(name: &str, value: Result<T, String>) -> Result<T, Failure> {
    value.map_err(|why| mistyped(&format!("{name}: "), &why))
}

/// A mistake on the command line, out of the words of the configuration's own checks.
pub fn mistyped(before: &str, why: &str) -> Failure {
    let mut lines = why.lines();
    let failure = Failure::new(Class::Usage, format!("{before}{}", lines.next().unwrap_or_default()));
    lines.fold(failure, Failure::help)
}

/// Somebody to ask, or nobody.
pub enum Asker {
    Terminal,
    Nobody,
}

impl Asker {
    pub fn new() -> Asker {
        match std::io::stdin().is_terminal() && std::io::stderr().is_terminal() {
            true => Asker::Terminal,
            false => Asker::Nobody,
        }
    }

    /// One line from the terminal, without blanks around it; None when there is nobody to ask.
    ///
    /// # Errors
    /// `Usage` when the terminal's input ends.
    pub fn line(&self, question: &str) -> Result<Option<String>> {
        if let Asker::Nobody = self {
            return Ok(None);
        }
        let mut terminal = std::io::stderr().lock();
        terminal.write_all(printable(question).as_bytes())?;
        terminal.flush()?;
        let mut line = String::new();
        if std::io::stdin().read_line(&mut line)? == 0 {
            terminal.write_all(b"\n")?;
            return Err(Failure::new(Class::Usage, "stopped before all was answered; nothing was changed").into());
        }
        Ok(Some(line.trim().to_owned()))
    }

    /// Asks until the answer is a good one; with nobody there, the default it is.
    fn ask<T>(
        &self,
        question: &str,
        default: Option<&str>,
        missing: impl Fn() -> Failure,
        check: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T> {
        let shown = default.map(|default| format!(" [{default}]")).unwrap_or_default();
        loop {
            let line = self.line(&format!("{question}{shown}: "))?;
            let answer = line.as_deref().filter(|line| !line.is_empty()).or(default);
            match (answer.map(&check), &line) {
                (Some(Ok(value)), _) => return Ok(value),
                (Some(Err(why)), None) => return Err(mistyped("", &why).into()),
                (None, None) => return Err(missing().into()),
                (Some(Err(why)), Some(_)) => why.lines().for_each(|line| tell(&format!("  {}", printable(line)))),
                (None, Some(_)) => {}
            }
        }
    }
}

/// Asks for all that flags do not tell.
pub fn collect(name: &AppName, init: &Init, flags: Flags, asker: &Asker) -> Result<Answers> {
    let usage = |message: &str, help: &str| Failure::new(Class::Usage, message).help(help);
    let follow = match flags.follow {
        Some(follow) => follow,
        None => {
            asker.ask("Branch to follow", Some("main"), || usage("no branch", "add --branch NAME"), given::branch)?
        }
    };
    let directory = match flags.directory {
        Some(directory) => directory,
        None => {
            let missing = || usage("nothing says where to publish", "add --directory DIR");
            asker.ask("Publish to the directory", default_directory(name).as_deref(), missing, given::directory)?
        }
    };
    let user = match (Uid::effective().is_root(), flags.user) {
        (false, _) => None,
        (true, Some(user)) => Some(user),
        (true, None) => {
            let default = exists(name.as_str()).then_some(name.as_str());
            let missing = || {
                usage(
                    &format!("who is to own what is published, and to run the script? There is no user `{name}`"),
                    "add --user USER",
                )
                .help(format!("for a user of its own: useradd --system --shell /usr/sbin/nologin {name}"))
            };
            Some(asker.ask("User who owns it and runs the script", default, missing, given::account)?)
        }
    };
    let script = match (&init.script, asker) {
        (Some(script), _) => script.clone(),
        (None, asker) => {
            let checked = |text: &str| given::command(text).map(|_| text.to_owned());
            asker.ask(
                "Script to run there",
                Some("./deploy.sh"),
                || usage("no script", "add --script COMMAND"),
                checked,
            )?
        }
    };
    let restart = match (flags.restart, asker) {
        (units, Asker::Terminal) if units.is_empty() => asker.ask(
            "Units to restart after it",
            Some("none"),
            || usage("no units", "add --restart UNIT"),
            units_of,
        )?,
        (units, _) => units,
    };
    Ok(Answers { follow, directory, user, script, restart })
}

fn units_of(text: &str) -> Result<Vec<String>, String> {
    let words = text.split([' ', ',']).filter(|word| !word.is_empty() && *word != "none");
    words.map(given::unit).collect()
}

/// Services have their place, and an ordinary user has no other than home.
fn default_directory(name: &AppName) -> Option<String> {
    if Uid::effective().is_root() {
        return Some(format!("/srv/{name}"));
    }
    let home = std::env::var("HOME").ok().filter(|home| home.starts_with('/'))?;
    Some(format!("{}/{name}", home.trim_end_matches('/')))
}

fn exists(user: &str) -> bool {
    User::from_name(user).is_ok_and(|user| user.is_some_and(|user| !user.uid.is_root()))
}
