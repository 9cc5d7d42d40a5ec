//! `poller check`: each thing that would keep an app from being deployed is found, with a remedy that
//! works, and nothing is changed by looking.

mod app;
mod host;
mod journal;

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::support::run::Outcome;
use crate::support::{World, file, set_mode, sh};

/// What was found under a word, of an app or of the host: (result, text and fix, class).
fn findings(outcome: &Outcome, of: Option<&str>, check: &str) -> Vec<(String, String, String)> {
    let json: Value = serde_json::from_str(&outcome.stdout).unwrap_or_else(|e| panic!("{e}\n{}", outcome.story()));
    assert_eq!(json["schema"], 1);
    let all = match of {
        None => json["host"].as_array().cloned(),
        Some(app) => json["apps"]
            .as_array()
            .unwrap()
            .iter()
            .find(|a| a["app"] == app)
            .map(|a| &a["checks"])
            .and_then(Value::as_array)
            .cloned(),
    };
    let all = all.unwrap_or_else(|| panic!("nothing of {of:?}\n{}", outcome.story()));
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let told = |f: &Value| {
        let fix: Vec<String> = f["fix"].as_array().unwrap().iter().map(word).collect();
        assert_eq!(fix.is_empty(), f["result"] == "ok", "what is wrong has a remedy: {f}");
        (word(&f["result"]), format!("{}\n{}", word(&f["text"]), fix.join("\n")), word(&f["class"]))
    };
    all.iter().filter(|f| f["check"] == check).map(told).collect()
}

/// One finding under that word, and it says all of this.
#[track_caller]
fn expect(outcome: &Outcome, of: Option<&str>, check: &str, result: &str, says: &[&str]) -> String {
    let found = findings(outcome, of, check);
    let [(found, text, _)] = found.as_slice() else { panic!("{check}: {found:?}\n{}", outcome.story()) };
    assert_eq!(found, result, "{text}");
    for word in says {
        assert!(text.contains(word), "{check} does not say {word:?}:\n{text}");
    }
    text.clone()
}

fn check(world: &World) -> Outcome {
    world.poll(&["check", "--json"])
}

/// One commit pushed, app `site` written, nothing deployed.
fn new_app(name: &str) -> World {
    let world = World::new(name);
    world.app("site").write();
    world.push(&[("deploy.sh", world.script("")), ("index.html", file("one\n"))], "first");
    world
}

/// A machine on which cron runs, with the shipped drop-in, and systemd does not.
pub struct Machine<'w> {
    world: &'w World,
    cron: Child,
}

impl<'w> Machine<'w> {
    pub fn new(world: &'w World) -> Machine<'w> {
        for folder in ["cron", "cron/cron.d", "cron/crontabs", "cron/run"] {
            fs::create_dir(world.path(folder)).unwrap();
        }
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("cron/poller");
        fs::copy(shipped, world.path("cron/cron.d/poller")).unwrap();
        set_mode(&world.path("cron/cron.d/poller"), 0o644);
        fs::write(world.path("cron/crontab"), "").unwrap();
        // A process is a cron by its name.
        fs::copy("/bin/sleep", world.path("cron/cron")).unwrap();
        let cron = Command::new(world.path("cron/cron")).arg("300").stdin(Stdio::null()).spawn().unwrap();
        Machine { world, cron }
    }

    fn command(&self, args: &[&str]) -> Command {
        let script = "cd \"$1\" && shift && mount --bind cron.d /etc/cron.d && mount --bind run /run \
             && mount --bind crontab /etc/crontab \
             && { ! test -d /var/spool/cron/crontabs || mount --bind crontabs /var/spool/cron/crontabs; } \
             && cd / && exec \"$@\"";
        let plain = self.world.command(args);
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", script, "sh"]).arg(self.world.path("cron"));
        command.arg(plain.get_program()).args(plain.get_args()).env_clear();
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", "/").stdin(Stdio::null());
        command
    }

    pub fn check(&self, args: &[&str]) -> Outcome {
        self.world.spawn(self.command(args)).wait()
    }
}

impl Drop for Machine<'_> {
    fn drop(&mut self) {
        let _ = self.cron.kill();
        let _ = self.cron.wait();
    }
}

fn read_only(world: &World) {
    let path = world.repo.bare.display();
    world.sshd.authorize(&format!("restrict,command=\"git-upload-pack '{path}'\""));
}

#[test]
fn a_healthy_app_has_nothing_but_ticks() {
    needs_root!();
    let world = World::new("healthy");
    let machine = Machine::new(&world);
    world.deployed();
    read_only(&world);
    let shown = world.on_terminal(machine.command(&["check"])).expect(0);
    assert!(shown.stderr.contains("\x1b[32m✓"), "{}", shown.story());
    world.screen("check-terminal", "poller check", &shown.stderr);
    let json = machine.check(&["check", "--json"]).expect(0);
    world.screen("check-json", "poller check --json", &json.stdout);
}

#[test]
fn a_check_changes_nothing_before_the_first_deploy_and_after() {
    let world = new_app("changes nothing");
    let before = world.hash_of_everything();
    check(&world).expect(0);
    assert_eq!(world.hash_of_everything(), before);
    world.poll(&[]).expect(0);
    world.push(&[("index.html", file("two\n"))], "second");
    let before = world.hash_of_everything();
    let shown = check(&world).expect(0);
    expect(&shown, Some("site"), "journal", "ok", &["is deployed"]);
    expect(&shown, Some("site"), "script", "ok", &["./deploy.sh"]);
    assert_eq!(world.hash_of_everything(), before);
    world.expect_no_processes();
}

#[test]
fn what_is_wrong_is_shown_with_its_remedy_and_one_apps_trouble_hides_no_other() {
    needs_root!();
    let world = World::new("failing");
    let machine = Machine::new(&world);
    fs::rename(world.path("cron/cron.d/poller"), world.path("cron/cron.d/poller.cron")).unwrap();
    let textfile = world.path("var/lib/prometheus/node-exporter/poller.prom");
    world.write_host_config(&format!("\n[metrics]\ntextfile = \"{}\"", textfile.display()));
    world.deployed();
    read_only(&world);
    world.poll(&["freeze", "site", "--reason", "the fair is on"]).expect(0);
    world.push(&[("start.sh", file("#!/bin/sh\n"))], "Another script");
    world.app("blog").source("identity = \"keys/blog\"").write();
    fs::copy(world.key_file(), world.path("etc/keys/blog")).unwrap();
    set_mode(&world.path("etc/keys/blog"), 0o644);
    world
        .app("shop")
        .target("shared = [\"db.sqlite3\"]")
        .deploy("build = \"/usr/bin/true\"\nscript = \"./start.sh\"\nrestart = [\"shop.service\"]")
        .without("deploy.build")
        .write();
    sh("chown", &["root:root", world.target("shop").to_str().unwrap()]);
    world.app("wiki").source("branch = \"production\"").write();
    let shown = machine.check(&["check"]);
    world.screen("check-failing", "poller check", &shown.stdout);
    let one = machine.check(&["check", "shop"]).expect(74);
    world.screen("check-app", "poller check shop", &one.stdout);
    assert_eq!(shown.code, 77, "{}", shown.story());
}

#[test]
fn what_the_files_say_is_checked_without_root_network_or_trust() {
    let world = World::new("config only");
    world.app("site").write();
    set_mode(&world.path("etc/apps.d/site.toml"), 0o666);
    let mark = world.sshd.mark();
    world.poll(&["check", "--config-only"]).expect(0).prints("all is well");
    world.app("blog").source("brunch = \"main\"").without("source.branch").write();
    world.app("shop").deploy("timeout = \"soon\"").write();
    let before = world.hash_of_everything();
    let shown = world.poll(&["check", "--config-only"]).expect(78);
    world.screen("check-config-only-failing", "poller check --config-only", &shown.stdout);
    let json = world.poll(&["check", "--config-only", "--json"]).expect(78);
    expect(&json, Some("blog"), "config", "failed", &["blog.toml:"]);
    expect(&json, Some("site"), "config", "ok", &[]);
    // Where the host's own file is broken, that is what is said.
    world.write_etc("poller.toml", "[host]\njobs = 0\n");
    let json = world.poll(&["check", "--config-only", "--json"]).expect(78);
    expect(&json, None, "config", "failed", &["poller.toml:2"]);
    world.write_host_config("");
    assert_eq!(world.hash_of_everything().len(), before.len());
    assert_eq!(world.sshd.connections_since(mark), 0);
}

#[test]
fn an_ordinary_user_checks_the_files_of_a_checkout() {
    needs_root!();
    let world = World::new("checkout");
    world.app("site").write();
    let mut command = world.command(&["check", "--config-only"]);
    std::os::unix::process::CommandExt::uid(&mut command, world.deployer.uid);
    world.spawn(command).wait().expect(0).prints("all is well");
}

#[test]
fn a_mistyped_app_is_a_mistake_and_no_finding() {
    let world = new_app("mistyped");
    world.poll(&["check", "sight"]).expect(64).says("there is no app `sight`");
    world.poll(&["check", "site", "--json"]).expect(0);
}
