//! What an app needs of root: its units, and what sudo would let its user do.

use std::path::Path;

use nix::unistd::Uid;

use super::ask::ask;
use super::finding::Finding;
use crate::config::App;
use crate::outcome::Class;
use crate::sys::account::Account;

use super::app::WOULD_FAIL;

pub fn look(app: &App, account: &Account) -> Vec<Finding> {
    let mut found = units(app);
    let by_root = Uid::effective().is_root();
    let mut commands: Vec<Vec<String>> = Vec::new();
    // Root restarts by itself.
    if !by_root {
        for (verb, units) in [("restart", &app.deploy.restart), ("reload", &app.deploy.reload)] {
            let command = |unit: &String| ["systemctl", verb, unit].map(str::to_owned).to_vec();
            commands.extend(units.iter().map(command));
        }
    }
    let words = |command: &String| shlex::split(command).unwrap_or_else(|| vec![command.clone()]);
    commands.extend(app.deploy.sudo.iter().map(words));
    if commands.is_empty() {
        return found;
    }
    let of_another = by_root.then_some(account.name.as_str());
    let listing = list(of_another, &["-l", "-l"]).map(|answer| answer.stdout).unwrap_or_default();
    for command in &commands {
        let mut question = vec!["-l", "--"];
        question.extend(command.iter().map(String::as_str));
        let answer = list(of_another, &question);
        let answer = match &answer {
            None => Answer::NoSudo,
            Some(answer) if !answer.is_yes() => Answer::No,
            Some(answer) if wants_password(&listing, answer.stdout.trim()) => Answer::Password,
            Some(_) => Answer::Yes,
        };
        found.push(judge(app.name.as_str(), &account.name, &command.join(" "), answer));
    }
    found
}

/// Asks sudo; it never waits for a password.
fn list(user: Option<&str>, question: &[&str]) -> Option<super::ask::Answer> {
    let mut arguments = vec!["-n"];
    arguments.extend(user.iter().flat_map(|user| ["-U", user]));
    arguments.extend(question);
    ask("sudo", &arguments)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Yes,
    No,
    /// Allowed, for who types a password.
    Password,
    NoSudo,
}

fn judge(app: &str, user: &str, command: &str, answer: Answer) -> Finding {
    let check = "sudo";
    let refused = |text: String| {
        Finding::failed(check, Class::Refused, text)
            .fix(format!("poller sudoers {app} prints the lines, and where they go"))
    };
    match answer {
        Answer::Yes => Finding::ok(check, format!("{user} may run: {command}")),
        Answer::No => refused(format!("{user} may not run: {command}")),
        Answer::Password => refused(format!("{user} would be asked for a password, which nobody types: {command}")),
        Answer::NoSudo => Finding::failed(check, Class::Refused, format!("sudo gives no answer about: {command}"))
            .fix("install it: apt-get install sudo"),
    }
}

/// Whether the last rule with this very command, which is the one that holds, lacks NOPASSWD. What the
/// listing does not show by its name, such as ALL, is not judged.
fn wants_password(listing: &str, command: &str) -> bool {
    let mut free = false;
    let mut wants = false;
    for line in listing.lines().map(str::trim) {
        if line == "Sudoers entry:" || line.starts_with("Sudoers entry: ") {
            free = false;
        } else if let Some(options) = line.strip_prefix("Options: ") {
            free = options.split(", ").any(|option| option == "!authenticate");
        } else if line == command {
            wants = !free;
        }
    }
    wants
}

/// Whether systemd knows the units that are to be restarted.
fn units(app: &App) -> Vec<Finding> {
    let check = "units";
    let units: Vec<&String> = app.deploy.restart.iter().chain(&app.deploy.reload).collect();
    if units.is_empty() {
        return Vec::new();
    }
    if !Path::new("/run/systemd/system").is_dir() {
        return vec![
            Finding::warning(check, "systemd does not run here, so no unit can be restarted")
                .fix("leave `restart` and `reload` out where there is no systemd"),
        ];
    }
    let known = |unit: &&String| {
        let answer = ask("systemctl", &["cat", "--", unit]);
        match answer {
            Some(answer) if answer.is_yes() => Finding::ok(check, unit.as_str()),
            Some(_) => Finding::failed(check, WOULD_FAIL, format!("there is no unit {unit}"))
                .fix("correct the name, or install it; those there are: systemctl list-unit-files"),
            None => Finding::warning(check, format!("systemctl gives no answer about {unit}")).fix("systemctl status"),
        }
    };
    units.iter().map(known).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: &str = "\
User ci may run the following commands on web-1:

Sudoers entry:
    RunAsUsers: root
    Options: !authenticate
    Commands:
\t/usr/bin/systemctl restart a.service

Sudoers entry: /etc/sudoers.d/more
    RunAsUsers: root
    Commands:
\t/usr/bin/systemctl restart b.service
";

    #[test]
    fn a_rule_that_wants_a_password_is_seen() {
        assert!(!wants_password(LISTING, "/usr/bin/systemctl restart a.service"));
        assert!(wants_password(LISTING, "/usr/bin/systemctl restart b.service"));
        assert!(!wants_password(LISTING, "/usr/bin/systemctl restart c.service"));
        // The last rule holds.
        let both = LISTING.replace("b.service", "a.service");
        assert!(wants_password(&both, "/usr/bin/systemctl restart a.service"));
    }
}
