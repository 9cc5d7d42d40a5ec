//! `poller check`: each thing that would keep an app from being deployed is found, with a remedy that
//! works, and nothing is changed by looking.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::support::run::Outcome;
use crate::support::{World, exec, file, seconds, set_mode, sh};

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
struct Machine<'w> {
    world: &'w World,
    cron: Child,
}

impl<'w> Machine<'w> {
    fn new(world: &'w World) -> Machine<'w> {
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

    fn check(&self, args: &[&str]) -> Outcome {
        self.world.spawn(self.command(args)).wait()
    }
}

impl Drop for Machine<'_> {
    fn drop(&mut self) {
        let _ = self.cron.kill();
        let _ = self.cron.wait();
    }
}

/// The marks are coloured on a terminal, and a screen is plain text.
fn without_colour(text: &str) -> String {
    let mut plain = String::new();
    for (n, part) in text.split("\x1b[").enumerate() {
        plain += if n == 0 { part } else { part.split_once('m').map_or(part, |(_, rest)| rest) };
    }
    plain
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
    world.screen("check-terminal", "poller check", &without_colour(&shown.stderr));
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
    assert_eq!(shown.code, 78, "{}", shown.story());
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

#[test]
fn a_key_that_others_can_read() {
    let world = new_app("key mode");
    set_mode(&world.key_file(), 0o644);
    let shown = check(&world).expect(77);
    expect(&shown, Some("site"), "key", "failed", &["0644", "chmod 600"]);
    expect(&shown, Some("site"), "target", "ok", &[]);
}

#[test]
fn a_key_with_a_passphrase_and_one_that_is_none() {
    let world = new_app("key kind");
    fs::write(world.key_file(), "rubbish\n").unwrap();
    expect(&check(&world).expect(78), Some("site"), "key", "failed", &["is not a private key"]);
    fs::remove_file(world.key_file()).unwrap();
    fs::remove_file(world.key_file().with_extension("pub")).unwrap();
    crate::support::sshd::make_key(&world.key_file(), "secret");
    expect(&check(&world).expect(77), Some("site"), "key", "failed", &["passphrase", "ssh-keygen -p"]);
}

#[test]
fn a_host_key_that_is_not_pinned() {
    let world = new_app("not pinned");
    world.write_etc("known_hosts", "");
    let shown = check(&world).expect(76);
    let text = expect(&shown, Some("site"), "server", "failed", &[&world.sshd.fingerprint()]);
    assert!(text.contains(world.sshd.known_hosts_line().trim()), "the line to add\n{text}");
}

#[test]
fn a_server_that_is_down_and_not_pinned_is_both() {
    let mut world = new_app("down");
    world.write_etc("known_hosts", "");
    world.sshd.stop();
    let shown = check(&world).expect(76);
    expect(&shown, Some("site"), "server", "failed", &["refused"]);
    expect(&shown, Some("site"), "known_hosts", "failed", &["pins no key"]);
    world.sshd.restart();
}

#[test]
fn a_server_that_says_nothing_is_waited_for_no_longer_than_configured() {
    let world = World::new("silent");
    let port = crate::support::mischief::silent_server();
    let url = world.sshd.url_by_port(port, &world.repo.bare);
    world.write_etc("known_hosts", &world.sshd.known_hosts_line_for(port));
    world.app("site").source(&format!("url = \"{url}\"\ntimeout = \"1s\"")).write();
    let shown = check(&world).expect(69).within(seconds(30));
    expect(&shown, Some("site"), "server", "failed", &["no answer within 1s"]);
}

#[test]
fn a_key_that_the_server_rejects() {
    let world = new_app("rejected");
    world.sshd.authorize_nobody();
    expect(&check(&world).expect(77), Some("site"), "server", "failed", &["rejected the key", "ssh-ed25519 "]);
}

#[test]
fn a_ref_that_is_not_there() {
    let world = new_app("no ref");
    world.app("site").source("branch = \"production\"").write();
    let shown = check(&world).expect(69);
    expect(&shown, Some("site"), "ref", "failed", &["no branch `production`", "git push"]);
    expect(&shown, Some("site"), "server", "ok", &[]);
}

#[test]
fn a_key_that_may_push_is_told_from_one_that_may_not_and_nothing_is_pushed() {
    let world = new_app("rights");
    let refs = || crate::support::repo::git(&world.repo.bare, &["for-each-ref"]);
    let before = refs();
    let shown = check(&world).expect(0);
    let text = expect(
        &shown,
        Some("site"),
        "push",
        "warning",
        &["may push", "read-only"].map(|w| if w == "may push" { "key push" } else { w }),
    );
    let hint = text.lines().find_map(|line| line.strip_prefix("authorized_keys: ")).expect("the line's beginning");
    // The remedy, taken literally.
    world.sshd.authorize(hint);
    let shown = check(&world).expect(0);
    expect(&shown, Some("site"), "push", "ok", &["read-only"]);
    world.poll(&[]).expect(0);
    // A server that says no in words, as forges do.
    let path = world.repo.bare.display();
    let wrapper = world.path("server/wrapper");
    crate::support::put_exec(
        &wrapper,
        &format!(
            "#!/bin/sh\ncase \"$SSH_ORIGINAL_COMMAND\" in git-upload-pack*) exec git-upload-pack '{path}';; esac\necho 'ERROR: this key is read-only' >&2\nexit 1\n"
        ),
    );
    world.sshd.authorize(&format!("command=\"{}\"", wrapper.display()));
    expect(&check(&world).expect(0), Some("site"), "push", "ok", &["read-only"]);
    assert_eq!(refs(), before);
}

#[test]
fn an_ordinary_poll_never_asks_for_the_right_to_push() {
    let world = new_app("asks not");
    let asked = world.path("server/asked");
    let wrapper = world.path("server/wrapper");
    crate::support::put_exec(
        &wrapper,
        &format!(
            "#!/bin/sh\necho \"$SSH_ORIGINAL_COMMAND\" >> '{}'\nexec sh -c \"$SSH_ORIGINAL_COMMAND\"\n",
            asked.display()
        ),
    );
    world.sshd.authorize(&format!("command=\"{}\"", wrapper.display()));
    world.poll(&[]).expect(0);
    assert!(!fs::read_to_string(&asked).unwrap().contains("receive-pack"));
    check(&world).expect(0);
    assert!(fs::read_to_string(&asked).unwrap().contains("receive-pack"));
}

#[test]
fn a_script_that_is_missing_or_not_executable_or_has_no_interpreter() {
    let world = World::new("script");
    world.app("site").write();
    world.push(&[("index.html", file("one\n"))], "first");
    expect(&check(&world).expect(1), Some("site"), "script", "failed", &["./deploy.sh is not in the commit"]);
    world.push(&[("deploy.sh", file("#!/bin/sh\n"))], "plain");
    let shown = check(&world).expect(1);
    let text =
        expect(&shown, Some("site"), "script", "failed", &["not executable", "git update-index --chmod=+x deploy.sh"]);
    // The remedy, taken literally, in the clone.
    let fix = text.lines().find(|line| line.starts_with("git update-index")).unwrap();
    let fix = fix.replace("git push", "git push -q origin HEAD:main");
    sh(
        "sh",
        &[
            "-c",
            &format!(
                "cd {} && git config user.name A && git config user.email a@b && {fix}",
                world.repo.work.display()
            ),
        ],
    );
    expect(&check(&world).expect(0), Some("site"), "script", "ok", &[]);
    world.push(&[("deploy.sh", exec("#!/usr/bin/env no-such-interpreter\n"))], "odd");
    expect(&check(&world).expect(1), Some("site"), "script", "failed", &["no-such-interpreter"]);
    world.push(&[("deploy.sh", exec("echo hello\n"))], "no first line");
    expect(&check(&world).expect(1), Some("site"), "script", "failed", &["what runs it"]);
}

#[test]
fn a_script_behind_a_link_and_in_a_subdir_is_found_where_a_deploy_would_run_it() {
    let world = World::new("links");
    world.app("site").source("subdir = \"app\"").deploy("script = \"./deploy.sh\"").write();
    let link = crate::support::link("bin/real.sh");
    world.push(&[("app/deploy.sh", link), ("app/bin/real.sh", world.script(""))], "first");
    expect(&check(&world).expect(0), Some("site"), "script", "ok", &[]);
    world.poll(&[]).expect(0);
    world.push(&[("app/bin/real.sh", file("#!/bin/sh\n"))], "plain");
    expect(&check(&world).expect(1), Some("site"), "script", "failed", &["not executable"]);
}

#[test]
fn a_commit_that_would_be_refused() {
    let world = World::new("rewritten");
    let first = world.deployed();
    world.push(&[("index.html", file("two\n"))], "second");
    world.poll(&[]).expect(0);
    world.repo.rewind_to(&first);
    world.repo.commit(&[("index.html", file("other\n"))], "other");
    world.repo.force_push();
    expect(
        &check(&world).expect(77),
        Some("site"),
        "commit",
        "failed",
        &["history was rewritten", "poller --force site"],
    );
}

#[test]
fn a_target_that_the_deploy_user_cannot_write_and_one_that_is_not_there() {
    needs_root!();
    let world = new_app("target");
    let target = world.target("site");
    sh("chown", &["root:root", target.to_str().unwrap()]);
    let shown = check(&world).expect(74);
    let text = expect(&shown, Some("site"), "target", "failed", &["cannot be written by", &world.deployer.name]);
    sh("sh", &["-c", text.lines().last().unwrap()]);
    expect(&check(&world).expect(0), Some("site"), "target", "ok", &[]);
    fs::remove_dir(&target).unwrap();
    let text = expect(&check(&world).expect(78), Some("site"), "target", "failed", &["install -d"]);
    sh("sh", &["-c", text.lines().last().unwrap().split_once(": ").unwrap().1]);
    world.poll(&[]).expect(0);
}

#[test]
fn a_target_with_something_of_somebody_elses_in_it() {
    let world = new_app("foreign");
    fs::write(world.target("site").join("index.php"), "").unwrap();
    expect(&check(&world).expect(77), Some("site"), "target", "failed", &["index.php", "poller adopt site"]);
}

#[test]
fn a_target_without_room_for_a_release() {
    needs_root!();
    let world = World::new("full");
    world.mount_tmpfs(&world.target("site"), "size=1m,nr_inodes=40", Some(&world.deployer));
    world.app("site").write();
    world.push(&[("deploy.sh", world.script("")), ("big", file(vec![7; 1_500_000]))], "big");
    expect(&check(&world).expect(74), Some("site"), "room", "failed", &["1.6 MiB", "make room"]);
    let many: Vec<(String, _)> = (0..60).map(|n| (format!("many/{n}"), file("x"))).collect();
    for (name, content) in &many {
        crate::support::repo::put(&world.repo.work.join(name), content);
    }
    world.push(&[("big", crate::support::gone())], "many");
    expect(&check(&world).expect(74), Some("site"), "room", "failed", &["inodes"]);
}

#[test]
fn shared_files_that_are_not_there_and_folders_that_are_made() {
    let world = new_app("shared");
    world.app("site").target("shared = [\"db.sqlite3\", \"media/\"]").write();
    expect(&check(&world).expect(0), Some("site"), "shared", "warning", &["shared/db.sqlite3 is not there yet"]);
    let shared = world.target("site").join("shared");
    fs::create_dir(&shared).unwrap();
    world.deployer.own(&shared);
    fs::write(shared.join("db.sqlite3"), "").unwrap();
    assert!(findings(&check(&world).expect(0), Some("site"), "shared").is_empty());
}

#[test]
fn a_metrics_folder_that_is_missing() {
    let world = new_app("metrics");
    let folder = world.path("var/metrics");
    world.write_host_config(&format!("\n[metrics]\ntextfile = \"{}/poller.prom\"", folder.display()));
    let text = expect(&check(&world).expect(78), None, "metrics", "failed", &["is not there"]);
    sh("sh", &["-c", text.lines().last().unwrap().split_once(": ").unwrap().1]);
    expect(&check(&world).expect(0), None, "metrics", "ok", &[]);
}

#[test]
fn folders_and_programs_of_the_host_that_others_could_change() {
    let world = new_app("host");
    let tell = world.path("etc/tell");
    crate::support::put_exec(&tell, "#!/bin/sh\n");
    world.write_host_config(&format!("\n[notify]\ncommand = \"{}\"", tell.display()));
    world.poll(&[]).expect(0);
    expect(&check(&world).expect(0), None, "notify", "ok", &[]);
    set_mode(&tell, 0o777);
    expect(&check(&world).expect(77), None, "notify", "failed", &["chmod o-w"]);
    set_mode(&tell, 0o644);
    expect(&check(&world).expect(78), None, "notify", "failed", &["chmod a+x"]);
    fs::remove_file(&tell).unwrap();
    expect(&check(&world).expect(78), None, "notify", "failed", &["does not exist"]);
    world.write_host_config("");
    for (folder, word) in [(world.state(), "state"), (world.run_dir(), "locks")] {
        set_mode(&folder, 0o777);
        expect(&check(&world).expect(77), None, word, "failed", &["0777"]);
        set_mode(&folder, 0o755);
    }
    set_mode(world.log_file().parent().unwrap(), 0o777);
    expect(&check(&world).expect(77), None, "log", "failed", &["0777"]);
}

#[test]
fn a_fetch_user_and_a_deploy_user_who_do_not_exist() {
    needs_root!();
    let world = new_app("users");
    world.app("site").deploy("user = \"nosuchuser\"").write();
    let shown = check(&world).expect(78);
    expect(&shown, Some("site"), "user", "failed", &["nosuchuser", "useradd"]);
    expect(&shown, Some("site"), "ref", "ok", &[]);
    let text = fs::read_to_string(world.config_file()).unwrap();
    world.write_etc("poller.toml", &text.replace(&world.fetcher.name, "nosuchfetcher"));
    let mark = world.sshd.mark();
    expect(&check(&world).expect(78), None, "fetch_user", "failed", &["useradd --system", "nosuchfetcher"]);
    assert_eq!(world.sshd.connections_since(mark), 0, "root talks to nobody");
}

#[test]
fn sudo_that_is_not_allowed_allowed_and_allowed_with_a_password() {
    needs_root!();
    needs_program!("sudo");
    let world = new_app("sudo");
    let (id, user) = ("/usr/bin/id -u", world.deployer.name.as_str());
    world.app("site").deploy(&format!("sudo = [\"{id}\"]")).write();
    let text = expect(&check(&world).expect(77), Some("site"), "sudo", "failed", &["may not run: /usr/bin/id -u"]);
    assert!(text.contains("poller sudoers site"), "{text}");
    struct DropIn(String);
    impl Drop for DropIn {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }
    let drop_in = DropIn(format!("/etc/sudoers.d/{user}"));
    let allow = |tag: &str| {
        fs::write(&drop_in.0, format!("{user} ALL = (root) {tag}{id}\n")).unwrap();
        set_mode(Path::new(&drop_in.0), 0o440);
    };
    allow("");
    expect(&check(&world).expect(77), Some("site"), "sudo", "failed", &["password"]);
    allow("NOPASSWD: ");
    expect(&check(&world).expect(0), Some("site"), "sudo", "ok", &[]);
}

#[test]
fn a_unit_is_looked_for_where_systemd_runs() {
    let world = new_app("units");
    world.app("site").deploy("restart = [\"no-such-unit-here.service\"]").write();
    let shown = check(&world);
    if Path::new("/run/systemd/system").is_dir() {
        expect(&shown, Some("site"), "units", "failed", &["no-such-unit-here.service"]);
    } else {
        expect(&shown, Some("site"), "units", "warning", &["systemd does not run here"]);
    }
}

#[test]
fn an_app_for_other_hosts_is_said_to_be_and_a_frozen_one_by_whom() {
    let world = World::new("elsewhere");
    world.deployed();
    world.app("other").source("hosts = [\"db-*\"]").write();
    world.poll(&["freeze", "site", "--reason", "the fair"]).expect(0);
    let shown = check(&world).expect(0);
    expect(&shown, Some("other"), "hosts", "ok", &["only for db-*"]);
    expect(&shown, Some("site"), "frozen", "warning", &["the fair", "poller unfreeze site"]);
}

#[test]
fn a_crontab_that_cron_passes_over_and_two_that_start_poller() {
    needs_root!();
    let world = new_app("schedule");
    let machine = Machine::new(&world);
    let check = || machine.check(&["check", "--json"]);
    expect(&check().expect(0), None, "schedule", "ok", &["/etc/cron.d/poller"]);
    let plain = world.path("cron/cron.d/poller");
    let dotted = world.path("cron/cron.d/poller.cron");
    fs::rename(&plain, &dotted).unwrap();
    expect(&check().expect(78), None, "schedule", "failed", &["mv /etc/cron.d/poller.cron /etc/cron.d/poller"]);
    fs::copy(&dotted, &plain).unwrap();
    expect(&check().expect(0), None, "schedule", "ok", &[]);
    fs::write(world.path("cron/cron.d/another"), "* * * * * root /usr/bin/poller\n").unwrap();
    expect(&check().expect(0), None, "schedule", "warning", &["another", "keep one"]);
    for name in ["another", "poller", "poller.cron"] {
        fs::remove_file(world.path("cron/cron.d").join(name)).unwrap();
    }
    expect(&check().expect(0), None, "schedule", "warning", &["nothing starts poller"]);
}

/// Damages the journal, and takes each remedy that is printed literally, as root or whoever runs this.
#[track_caller]
fn expect_remedies_that_work(name: &str, damage: impl Fn(&World, &Path, &str)) {
    for remedy in ["tee", "rm -f"] {
        let world = World::new(name);
        let first = world.deployed();
        world.app("other").source("timeout = \"5s\"").deploy("script = \"/bin/true\"").write();
        world.poll(&[]).expect(0);
        let bare = world.repositories().remove(0);
        damage(&world, &bare, &world.journal_tip("site").unwrap());
        let shown = check(&world).expect(74);
        let text = expect(&shown, Some("site"), "journal", "failed", &["nothing is deployed while"]);
        expect(&shown, Some("other"), "journal", "ok", &[]);
        expect(&shown, Some("other"), "ref", "ok", &[]);
        world.poll(&["site"]).expect(74);
        assert_eq!(world.ran().len(), 1, "never a blind deploy");
        let command =
            text.lines().map(str::trim).find(|line| line.contains(remedy) && line.contains("refs/poller")).unwrap();
        sh("sh", &["-c", command.split(" && poller adopt").next().unwrap()]);
        if remedy == "tee" {
            world.poll(&[]).expect(0);
            world.expect_live("site", &first);
            assert_eq!(world.recorded("site"), Some(first));
            check(&world).expect(0);
        } else {
            // The journal is new, and what is live waits to be adopted.
            assert!(command.ends_with("&& poller adopt site"), "{command}");
            let shown = check(&world).expect(77);
            expect(&shown, Some("site"), "journal", "ok", &["new"]);
            expect(&shown, Some("site"), "target", "failed", &["poller adopt site"]);
        }
    }
}

fn loose(bare: &Path, id: &str) -> std::path::PathBuf {
    let path = bare.join("objects").join(&id[..2]).join(&id[2..]);
    set_mode(&path, 0o644);
    path
}

#[test]
fn a_journal_whose_ref_is_rubbish_is_mended_as_printed() {
    expect_remedies_that_work("ref", |_, bare, _| fs::write(bare.join("refs/poller/site"), "rubbish\n").unwrap());
}

#[test]
fn a_journal_whose_tip_is_gone_is_mended_as_printed() {
    expect_remedies_that_work("gone", |_, bare, tip| fs::remove_file(loose(bare, tip)).unwrap());
}

#[test]
fn a_journal_whose_tip_was_cut_short_is_mended_as_printed() {
    expect_remedies_that_work("cut", |_, bare, tip| {
        let path = loose(bare, tip);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    });
}

#[test]
fn a_journal_whose_tip_is_empty_is_mended_as_printed() {
    expect_remedies_that_work("empty", |_, bare, tip| fs::write(loose(bare, tip), "").unwrap());
}

#[test]
fn a_journal_whose_ref_was_packed_by_git_and_whose_tip_is_gone_is_mended_as_printed() {
    expect_remedies_that_work("packed", |world, bare, tip| {
        crate::support::repo::git(bare, &["pack-refs", "--all", "--prune"]);
        world.fetcher.own(&bare.join("packed-refs"));
        assert!(!bare.join("refs/poller/site").exists());
        fs::remove_file(loose(bare, tip)).unwrap();
    });
}

#[test]
fn a_commit_of_the_project_that_looks_like_an_entry_is_never_offered_as_one() {
    let world = World::new("forged");
    world.deployed();
    let bare = world.repositories().remove(0);
    let tip = world.journal_tip("site").unwrap();
    let show = |name: &str| crate::support::repo::git(&bare, &["show", &format!("{tip}:{name}")]);
    let later = show("run.toml").replace("started = \"20", "started = \"29").replace("ended = \"20", "ended = \"29");
    let forged =
        world.push(&[("state.toml", file(show("state.toml"))), ("run.toml", file(later))], "site: deploy deployed: x");
    world.poll(&[]).expect(0);
    fs::write(bare.join("refs/poller/site"), "rubbish\n").unwrap();
    let text = expect(&check(&world).expect(74), Some("site"), "journal", "failed", &["tee"]);
    assert!(!text.contains(&forged), "{text}");
}
