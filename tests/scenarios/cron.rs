//! The drop-in under the real cron: what is pushed is deployed, an unchanged minute mails nothing, a failure
//! mails once. cron runs in a mount namespace of its own, with its folders, /run and its mail program replaced.
//! Takes some minutes.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::support::{World, put_exec, seconds, wait_until};

struct Cron(Child);

impl Drop for Cron {
    fn drop(&mut self) {
        for pid in crate::support::processes::descendants_of(self.0.id() as i32) {
            crate::support::processes::signal(pid, nix::sys::signal::Signal::SIGKILL);
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The shipped drop-in for the program under test, every minute.
fn drop_in(world: &World) -> String {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("cron/poller");
    let text = fs::read_to_string(&shipped).unwrap_or_else(|e| panic!("{}: {e}", shipped.display()));
    assert!(text.ends_with('\n'), "cron ignores a last line without its end");
    let mut lines = Vec::new();
    for line in text.lines() {
        let Some(rest) = line.strip_prefix("*/5 * * * *") else {
            lines.push(line.to_owned());
            continue;
        };
        assert!(!rest.contains('%'), "cron makes a new line of it: {line}");
        assert!(rest.ends_with("/usr/bin/poller"), "the poll comes last, with nothing behind it: {line}");
        let command = rest.replace("/usr/bin/poller", env!("CARGO_BIN_EXE_poller"));
        lines.push(format!("* * * * *{command} --config {}", world.config_file().display()));
    }
    assert!(lines.iter().any(|line| line.starts_with("* * * * *")), "a line for every five minutes");
    lines.join("\n") + "\n"
}

fn start_cron(world: &World) -> Cron {
    for folder in ["cron", "cron/cron.d", "cron/crontabs", "cron/run", "mail"] {
        fs::create_dir(world.path(folder)).unwrap();
    }
    crate::support::set_mode(&world.path("cron/crontabs"), 0o1730);
    fs::write(world.path("cron/cron.d/poller"), drop_in(world)).unwrap();
    crate::support::set_mode(&world.path("cron/cron.d/poller"), 0o644);
    fs::write(world.path("cron/crontab"), "").unwrap();
    crate::support::set_mode(&world.path("cron/crontab"), 0o644);
    let mail = world.path("mail");
    put_exec(&world.path("cron/sendmail"), &format!("#!/bin/sh\ncat > '{}/'$$\n", mail.display()));
    // A machine that sends no mail has no mail program to put another in the place of.
    let script = "cd \"$1\" && mount --bind cron.d /etc/cron.d && mount --bind crontabs /var/spool/cron/crontabs \
         && mount --bind crontab /etc/crontab && { if [ -e /usr/sbin/sendmail ]; \
         then mount --bind sendmail \"$(readlink -f /usr/sbin/sendmail)\"; \
         else cp -a /usr/sbin sbin && cp sendmail sbin/ && mount --bind sbin /usr/sbin; fi; } \
         && mount --bind run /run && exec /usr/sbin/cron -f";
    let cron = Command::new("unshare")
        .args(["-m", "sh", "-c", script, "sh"])
        .arg(world.path("cron"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(world.path("cron/errors")).unwrap())
        .spawn()
        .unwrap();
    Cron(cron)
}

fn mails(world: &World) -> Vec<String> {
    let entries = fs::read_dir(world.path("mail")).unwrap().flatten();
    entries.map(|entry| String::from_utf8_lossy(&fs::read(entry.path()).unwrap()).into_owned()).collect()
}

#[test]
fn the_drop_in_deploys_a_push_mails_nothing_for_an_unchanged_minute_and_a_failure_once() {
    needs_root!();
    for program in ["cron", "unshare"] {
        needs_program!(program);
    }
    let world = World::new("cron");
    world.app("site").deploy("on_failure = \"restore\"").write();
    let first = world.push(&[("deploy.sh", world.script(""))], "first");
    let mut cron = start_cron(&world);
    wait_until("cron deploys the first push", seconds(90), || {
        assert!(cron.0.try_wait().unwrap().is_none(), "{:?}", fs::read_to_string(world.path("cron/errors")));
        world.revision("site").as_deref() == Some(&first)
    });
    wait_until("an unchanged minute", seconds(90), || !world.events("poll.unchanged").is_empty());
    assert_eq!(mails(&world), Vec::<String>::new());
    world.sshd.stop_listening();
    let runs = world.events("run.finished").len();
    wait_until("two minutes of failure", seconds(160), || world.events("run.finished").len() >= runs + 2);
    std::thread::sleep(seconds(1));
    let mails = mails(&world);
    assert_eq!(mails.len(), 1, "{mails:?}");
    assert!(mails[0].contains("site"), "{}", mails[0]);
    drop(cron);
}

#[test]
fn cron_would_read_the_drop_in() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("cron/poller");
    let name = shipped.file_name().unwrap().to_str().unwrap();
    assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c)), "cron ignores other names");
    let text = fs::read_to_string(&shipped).unwrap();
    assert!(text.lines().any(|line| line.starts_with("*/5 * * * * root ")), "{text}");
}
