//! Whether anything starts poller: the systemd timer, or cron, and not both.
//!
//! cron says nothing about a file that it passes over, so its rules are held against the file here.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::ask::ask;
use super::finding::Finding;
use crate::sys::proc;

const CHECK: &str = "schedule";
const CRON_D: &str = "/etc/cron.d";
/// Longer files are no crontab.
const LONGEST: u64 = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Timer {
    /// No systemd, or no such unit.
    Absent,
    Disabled,
    /// Enabled, and somebody stopped it.
    Paused,
    /// Until the next boot.
    StartedByHand,
    Active,
}

/// A crontab that names poller.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Crontab {
    /// A path, or what a person calls it.
    name: String,
    /// The shipped line stands back where the timer is enabled.
    guard: Guard,
    /// Why cron passes over the file, and the remedy.
    traps: Vec<(String, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Guard {
    StandsBack,
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Daemon {
    Runs,
    Absent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Caller {
    Root,
    User,
}

/// What the system says, for `user`; only root has the timer.
pub fn look(user: &str) -> Vec<Finding> {
    let has_systemd = Path::new("/run/systemd/system").is_dir();
    let is_root = nix::unistd::Uid::effective().is_root();
    let timer = if has_systemd && is_root { timer() } else { Timer::Absent };
    judge(timer, &crontabs(user), daemon(has_systemd), if is_root { Caller::Root } else { Caller::User })
}

fn timer() -> Timer {
    let is = |word| ask("systemctl", &["--quiet", word, "poller.timer"]).is_some_and(|answer| answer.is_yes());
    match (is("is-active"), is("is-enabled")) {
        (true, true) => Timer::Active,
        (true, false) => Timer::StartedByHand,
        (false, true) => Timer::Paused,
        (false, false) if is("cat") => Timer::Disabled,
        (false, false) => Timer::Absent,
    }
}

fn daemon(has_systemd: bool) -> Daemon {
    let names = ["cron", "crond", "fcron", "bcron-sched"];
    let runs = proc::all().iter().any(|process| names.contains(&process.name.as_str()) && process.state != 'Z')
        // systemd-cron makes timers of crontabs.
        || (has_systemd && ask("systemctl", &["--quiet", "is-active", "cron.target"]).is_some_and(|a| a.is_yes()));
    if runs { Daemon::Runs } else { Daemon::Absent }
}

fn crontabs(user: &str) -> Vec<Crontab> {
    let mut files: Vec<PathBuf> = fs::read_dir(CRON_D).into_iter().flatten().flatten().map(|e| e.path()).collect();
    files.sort();
    files.push("/etc/crontab".into());
    let mut found: Vec<Crontab> = files.iter().filter_map(|path| drop_in(path, user)).collect();
    if let Some(own) = ask("crontab", &["-l"]).filter(|answer| answer.is_yes())
        && let Some(line) = own.stdout.lines().find(|line| starts_poller(line, None))
    {
        found.push(Crontab { name: format!("the crontab of {user}"), guard: guard(line), traps: Vec::new() });
    }
    // What a package manager or an editor left beside a good file is no mistake of anybody's.
    let good = found.iter().any(|crontab| crontab.traps.is_empty());
    found.retain(|crontab| !good || crontab.traps.is_empty());
    found
}

fn drop_in(path: &Path, user: &str) -> Option<Crontab> {
    let meta = fs::metadata(path).ok().filter(|meta| meta.is_file() && meta.len() < LONGEST)?;
    let text = String::from_utf8_lossy(&fs::read(path).ok()?).into_owned();
    let line = text.lines().find(|line| starts_poller(line, Some(user)))?;
    Some(Crontab {
        name: path.display().to_string(),
        guard: guard(line),
        traps: traps(path, meta.uid(), meta.mode(), &text),
    })
}

/// Whether a line of a crontab runs poller; those of the system name a user before the command.
pub fn starts_poller(line: &str, user: Option<&str>) -> bool {
    let line = line.trim_start();
    if line.starts_with('#') {
        return false;
    }
    let times = if line.starts_with('@') { 1 } else { 5 };
    let mut words = line.split_ascii_whitespace().skip(times);
    let is_theirs = user.is_none_or(|user| words.next() == Some(user));
    let is_poller = |word: &str| word == "poller" || word.ends_with("/poller");
    is_theirs && words.flat_map(|word| word.split(|c: char| ";|&(){}'\"".contains(c))).any(is_poller)
}

fn guard(line: &str) -> Guard {
    let looks = line.contains("/run/systemd/system") || line.contains("poller.timer");
    if looks { Guard::StandsBack } else { Guard::None }
}

/// What keeps cron from reading a file of /etc/cron.d, without a word; see cron(8).
pub fn traps(path: &Path, uid: u32, mode: u32, text: &str) -> Vec<(String, String)> {
    let shown = path.display();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut traps = Vec::new();
    let mut trap = |why: String, fix: String| traps.push((why, fix));
    let is_good = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
    if path.starts_with(CRON_D) && !name.chars().all(is_good) {
        let better: String = name.chars().take_while(|&c| is_good(c)).collect();
        let better = if better.is_empty() { "poller" } else { better.as_str() };
        let why = "cron passes over names with a dot or anything but letters, digits, `_` and `-`".to_owned();
        trap(why, format!("mv {shown} {CRON_D}/{better}"));
    }
    if uid != 0 {
        trap("cron wants it to belong to root".to_owned(), format!("chown root:root {shown}"));
    }
    if mode & 0o022 != 0 {
        let why = format!("cron refuses a file that others can write (mode {:04o})", mode & 0o7777);
        trap(why, format!("chmod go-w {shown}"));
    }
    if !text.ends_with('\n') {
        trap("cron refuses a file whose last line does not end".to_owned(), format!("echo >> {shown}"));
    }
    traps
}

fn judge(timer: Timer, crontabs: &[Crontab], daemon: Daemon, caller: Caller) -> Vec<Finding> {
    let (sound, trapped): (Vec<&Crontab>, Vec<&Crontab>) = crontabs.iter().partition(|c| c.traps.is_empty());
    let mut found = Vec::new();
    let by_timer = matches!(timer, Timer::Active | Timer::StartedByHand);
    // Beside a timer, a file that cron passes over is at its best.
    for crontab in trapped.into_iter().filter(|_| !by_timer) {
        for (why, fix) in &crontab.traps {
            found.push(Finding::warning(CHECK, format!("{}: {why}", crontab.name)).fix(fix));
        }
    }
    // With the timer enabled or active, the shipped line does nothing.
    let runs = |crontab: &&&Crontab| crontab.guard == Guard::None || matches!(timer, Timer::Absent | Timer::Disabled);
    let by_cron: Vec<&str> = sound.iter().filter(runs).map(|crontab| crontab.name.as_str()).collect();
    match (by_timer, by_cron.as_slice()) {
        (true, []) if timer == Timer::StartedByHand => found.push(
            Finding::warning(CHECK, "poller.timer is active, but not enabled: it is gone after a reboot")
                .fix("systemctl enable poller.timer"),
        ),
        (true, []) => found.push(Finding::ok(CHECK, "poller.timer is active")),
        (true, more) => found.push(
            Finding::warning(CHECK, format!("both start poller: poller.timer and {}", more.join(", ")))
                .fix("keep one; the line shipped as cron/poller stands back where the timer is enabled"),
        ),
        (false, [one]) if daemon == Daemon::Runs => found.push(Finding::ok(CHECK, format!("cron, by {one}"))),
        (false, [one]) => found.push(
            Finding::warning(CHECK, format!("{one} is for cron, and no cron runs here"))
                .fix("systemctl enable --now cron (RHEL: crond), or install it: apt-get install cron"),
        ),
        (false, [_, _, ..]) => found.push(
            Finding::warning(CHECK, format!("more than one crontab starts poller: {}", by_cron.join(", ")))
                .fix("keep one"),
        ),
        (false, []) if timer == Timer::Paused => found.push(
            Finding::warning(CHECK, "poller.timer is enabled, and stopped: polls are paused")
                .fix("systemctl start poller.timer"),
        ),
        // A file that cron would read, once it is mended, is told above.
        (false, []) if !found.is_empty() => {}
        (false, []) => found.push(nothing(timer, caller)),
    }
    found
}

fn nothing(timer: Timer, caller: Caller) -> Finding {
    let finding = Finding::warning(CHECK, "nothing starts poller by itself");
    match timer {
        Timer::Disabled => finding.fix("systemctl enable --now poller.timer"),
        _ if caller == Caller::Root => finding
            .fix("with systemd: systemctl enable --now poller.timer")
            .fix("with cron: install -m 0644 /usr/share/poller/cron/poller /etc/cron.d/poller"),
        _ => finding.fix("crontab -e, and add: */5 * * * * /usr/bin/poller"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    const SHIPPED: &str = include_str!("../../../cron/poller");

    fn crontab(guard: Guard, traps: &[&str]) -> Crontab {
        let traps = traps.iter().map(|why| (why.to_string(), "mend it".to_owned())).collect();
        Crontab { name: "/etc/cron.d/poller".to_owned(), guard, traps }
    }

    #[test]
    fn one_of_the_two_starts_poller() {
        use Daemon::{Absent, Runs};
        let (none, ours, plain) = (vec![], vec![crontab(Guard::StandsBack, &[])], vec![crontab(Guard::None, &[])]);
        let trapped = vec![crontab(Guard::StandsBack, &["dot"])];
        let (ok, warning) = (Verdict::Ok, Verdict::Warning);
        for (timer, crontabs, daemon, expected) in [
            (Timer::Active, &none, Absent, vec![(ok, "poller.timer is active")]),
            (Timer::Active, &ours, Runs, vec![(ok, "poller.timer is active")]),
            (Timer::Active, &plain, Runs, vec![(warning, "both start poller")]),
            (Timer::StartedByHand, &ours, Runs, vec![(warning, "gone after a reboot")]),
            (Timer::Paused, &ours, Runs, vec![(warning, "paused")]),
            (Timer::Paused, &plain, Runs, vec![(ok, "cron, by")]),
            (Timer::Disabled, &ours, Runs, vec![(ok, "cron, by")]),
            (Timer::Disabled, &none, Runs, vec![(warning, "nothing starts poller")]),
            (Timer::Absent, &ours, Runs, vec![(ok, "cron, by")]),
            (Timer::Absent, &plain, Absent, vec![(warning, "no cron runs here")]),
            (Timer::Absent, &trapped, Runs, vec![(warning, "dot")]),
            (Timer::Active, &trapped, Runs, vec![(ok, "poller.timer is active")]),
            (Timer::Absent, &none, Runs, vec![(warning, "nothing starts poller")]),
        ] {
            let found = judge(timer, crontabs, daemon, Caller::Root);
            assert_eq!(found.len(), expected.len(), "{timer:?} {crontabs:?} {found:?}");
            for (finding, (verdict, text)) in found.iter().zip(expected) {
                assert!(
                    finding.verdict == verdict && finding.text.contains(text),
                    "{timer:?} {crontabs:?} {finding:?}"
                );
                assert_eq!(finding.fix.is_empty(), verdict == Verdict::Ok, "{finding:?}");
            }
        }
    }

    #[test]
    fn a_line_that_starts_poller_is_told_from_others() {
        let shipped = SHIPPED.lines().find(|line| starts_poller(line, Some("root"))).unwrap();
        assert_eq!(guard(shipped), Guard::StandsBack);
        for (line, user, expected) in [
            ("*/5 * * * * root /usr/bin/poller", Some("root"), true),
            ("@hourly root poller todo", Some("root"), true),
            ("*/5 * * * * deploy /usr/bin/poller", Some("root"), false),
            ("*/5 * * * * cd / && (/usr/local/bin/poller)", None, true),
            ("#*/5 * * * * root /usr/bin/poller", Some("root"), false),
            ("*/5 * * * * root /usr/bin/mailpoller", Some("root"), false),
            ("MAILTO=poller", None, false),
        ] {
            assert_eq!(starts_poller(line, user), expected, "{line}");
        }
        assert_eq!(guard("*/5 * * * * root /usr/bin/poller"), Guard::None);
    }

    #[test]
    fn what_cron_passes_over_is_told_with_its_remedy() {
        let traps = |name: &str, uid, mode, text| traps(&Path::new(CRON_D).join(name), uid, mode, text);
        assert_eq!(traps("poller", 0, 0o100644, SHIPPED), []);
        for (name, uid, mode, text, fix) in [
            ("poller.cron", 0, 0o100644, "x\n", "mv /etc/cron.d/poller.cron /etc/cron.d/poller"),
            ("poller~", 0, 0o100644, "x\n", "mv /etc/cron.d/poller~ /etc/cron.d/poller"),
            ("poller", 1000, 0o100644, "x\n", "chown root:root /etc/cron.d/poller"),
            ("poller", 0, 0o100664, "x\n", "chmod go-w /etc/cron.d/poller"),
            ("poller", 0, 0o100644, "x", "echo >> /etc/cron.d/poller"),
        ] {
            let found = traps(name, uid, mode, text);
            assert_eq!(found.iter().map(|(_, fix)| fix.as_str()).collect::<Vec<_>>(), [fix]);
        }
    }
}
