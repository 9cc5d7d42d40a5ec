//! `poller sudoers`: what it prints, put where sudo reads it, and sudo asked what it now allows.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::{Account, World, random_word, set_mode};

/// A drop-in in the real /etc/sudoers.d, gone with the value.
struct Installed(PathBuf);

impl Installed {
    fn new(text: &str) -> Installed {
        let place = PathBuf::from(format!("/etc/sudoers.d/pt-{}", random_word()));
        // sudo passes over a name with a dot: what other tests ask meanwhile meets no half-written file.
        let partial = place.with_extension("partial");
        fs::write(&partial, text).unwrap();
        set_mode(&partial, 0o440);
        fs::rename(&partial, &place).unwrap();
        Installed(place)
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn allows(user: &Account, command: &[&str]) -> bool {
    let mut sudo = Command::new("/usr/bin/sudo");
    sudo.args(["-n", "-l", "-U", &user.name]).args(command);
    sudo.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
}

#[track_caller]
fn visudo_accepts(text: &str) {
    let file = std::env::temp_dir().join(format!("pt{}", random_word()));
    fs::write(&file, text).unwrap();
    let output = Command::new("/usr/sbin/visudo").arg("-cf").arg(&file).output().unwrap();
    let _ = fs::remove_file(&file);
    assert!(output.status.success(), "{}\n{text}", String::from_utf8_lossy(&output.stderr));
}

/// Without the option that only the tests need.
fn as_typed(world: &World, text: &str) -> String {
    text.replace(&format!(" --config {}", world.config_file().display()), "")
}

fn two_apps(world: &World) {
    world
        .app("todo")
        .deploy("restart = [\"todo.service\"]")
        .deploy("sudo = [\"/usr/bin/systemctl restart todo-worker@1.service\", \"/usr/bin/true\"]")
        .write();
    world.app("shop").deploy("reload = [\"nginx.service\"]").write();
}

/// As the deploy user would run a poller of their own.
fn as_deploy_user(world: &World, args: &[&str]) -> Command {
    let program = world.path("poller");
    fs::copy(env!("CARGO_BIN_EXE_poller"), &program).unwrap();
    set_mode(&program, 0o755);
    let mut command = Command::new(program);
    command.args(args).arg("--config").arg(world.config_file());
    command.env_clear().env("HOME", "/").current_dir("/").stdin(Stdio::null());
    if crate::support::am_root() {
        command.uid(world.deployer.uid).gid(world.deployer.gid);
    }
    command
}

#[test]
fn sudo_allows_the_commands_of_the_drop_in_and_none_that_differs() {
    needs_root!();
    needs_program!("visudo");
    let world = World::new("sudoers");
    two_apps(&world);
    let text = world.poll(&["sudoers"]).expect(0).stdout;
    visudo_accepts(&text);
    let _installed = Installed::new(&text);
    let user = &world.deployer;
    let worker = "todo-worker@1.service";
    assert!(allows(user, &["/usr/bin/systemctl", "restart", worker]), "{text}");
    assert!(allows(user, &["/usr/bin/true"]), "{text}");
    let refused: [&[&str]; 8] = [
        &["/usr/bin/systemctl", "restart", "todo-worker@2.service"],
        &["/usr/bin/systemctl", "restart", "todo-worker@1"],
        &["/usr/bin/systemctl", "restart", worker, "other.service"],
        &["/usr/bin/systemctl", "restart"],
        &["/usr/bin/systemctl"],
        &["/usr/bin/true", "x"],
        &["/usr/bin/systemctl", "restart", "todo.service"],
        &["/usr/bin/systemctl", "reload", "nginx.service"],
    ];
    for command in refused {
        assert!(!allows(user, command), "{command:?} is allowed by\n{text}");
    }
    assert!(!allows(&world.fetcher, &["/usr/bin/true"]), "somebody else may not");
}

#[test]
fn every_character_that_means_something_to_sudo_means_itself() {
    needs_root!();
    needs_program!("visudo");
    let world = World::new("sudoers chars");
    // As written in TOML, and the words that the script then gives to sudo.
    let table: [(&str, &[&str]); 7] = [
        (r"/usr/bin/echo a,b c:d e=f", &["a,b", "c:d", "e=f"]),
        (r"/usr/bin/echo '#1' !x x!", &["#1", "!x", "x!"]),
        (r"/usr/bin/echo 'a\b' 'c\\d'", &[r"a\b", r"c\\d"]),
        (r#"/usr/bin/echo '"q' "it's""#, &["\"q", "it's"]),
        (r"/usr/bin/echo 'two  words' x", &["two  words", "x"]),
        (r"/usr/bin/echo x ] '^y' %z @a ~ $HOME", &["x", "]", "^y", "%z", "@a", "~", "$HOME"]),
        (r"/usr/bin/echo grüße", &["grüße"]),
    ];
    let listed: Vec<String> = table.iter().map(|(command, _)| format!("'''{command}'''")).collect();
    world.app("todo").deploy(&format!("sudo = [{}]", listed.join(", "))).write();
    let text = world.poll(&["sudoers", "todo"]).expect(0).stdout;
    visudo_accepts(&text);
    let _installed = Installed::new(&text);
    for (written, words) in table {
        let command = [&["/usr/bin/echo"], words].concat();
        assert!(allows(&world.deployer, &command), "{written} is refused by\n{text}");
        assert!(!allows(&world.deployer, &[&command[..], &["x"]].concat()), "one more argument after {written}");
        let last = format!("{}x", words[words.len() - 1]);
        let other = [&command[..command.len() - 1], &[last.as_str()]].concat();
        assert!(!allows(&world.deployer, &other), "another argument in {written}");
    }
    assert!(!allows(&world.deployer, &["/usr/bin/echo"]));
    assert!(!allows(&world.deployer, &["/usr/bin/echo", "two", "words", "x"]));
}

#[test]
fn an_ordinary_users_drop_in_has_the_units_too() {
    needs_program!("visudo");
    let world = World::new("sudoers user");
    two_apps(&world);
    let outcome = world.spawn(as_deploy_user(&world, &["sudoers"])).wait().expect(0);
    visudo_accepts(&outcome.stdout);
    world.screen("sudoers-ordinary", "poller sudoers", &as_typed(&world, &outcome.stdout));
    needs_root!();
    let _installed = Installed::new(&outcome.stdout);
    let user = &world.deployer;
    assert!(allows(user, &["/usr/bin/systemctl", "restart", "todo.service"]));
    assert!(allows(user, &["/bin/systemctl", "reload", "nginx.service"]));
    assert!(allows(user, &["systemctl", "reload", "nginx.service"]), "as poller calls it");
    assert!(!allows(user, &["/usr/bin/systemctl", "restart", "nginx.service"]));
    assert!(!allows(user, &["/usr/bin/systemctl", "reload", "nginx.service", "x.service"]));
}

#[test]
fn the_drop_in_says_what_it_is_and_how_it_is_installed() {
    needs_root!();
    let world = World::new("sudoers screens");
    two_apps(&world);
    let shown = world.poll_on_terminal(&["sudoers"]).expect(0).stderr;
    world.screen("sudoers-terminal", "poller sudoers", &as_typed(&world, &shown));
    let json = world.poll(&["sudoers", "--json"]).expect(0).stdout;
    world.screen("sudoers-json", "poller sudoers --json", &json);
    let value: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(value["schema"], 1);
    assert_eq!(value["apps"][1]["commands"][1], serde_json::json!(["/usr/bin/true"]));
    let named = world.poll(&["sudoers", "shop"]).expect(0).prints("/etc/sudoers.d/poller-shop");
    assert!(!named.stdout.contains("true"), "only the apps named: {}", named.stdout);
}

#[test]
fn a_name_that_is_no_app_is_64_and_the_near_one_is_named() {
    let world = World::new("sudoers unknown");
    two_apps(&world);
    let outcome = world.poll(&["sudoers", "tdo"]).expect(64).says("did you mean `todo`?");
    assert!(outcome.stdout.is_empty(), "nothing that could be piped into a file");
    world.screen("sudoers-unknown-app", "poller sudoers tdo", &outcome.stderr);
}

#[test]
fn apps_that_need_nothing_or_are_broken_leave_a_valid_file() {
    needs_program!("visudo");
    let world = World::new("sudoers none");
    let none = world.poll(&["sudoers"]).expect(0).prints("nothing is needed");
    visudo_accepts(&none.stdout);
    world.app("site").write();
    let nothing = world.poll(&["sudoers"]).expect(0).prints("# site: needs nothing");
    visudo_accepts(&nothing.stdout);
    world.write_etc("apps.d/bad.toml", "[source]\nurl = 1\n");
    let broken = world.poll(&["sudoers"]).expect(78).prints("\"bad\": left out").says("bad.toml");
    visudo_accepts(&broken.stdout);
}
