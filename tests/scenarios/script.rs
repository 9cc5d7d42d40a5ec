//! What the script is given: exactly the rights, environment and descriptors that are documented.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::support::processes::{descriptors, environment, session_of, status_field};
use crate::support::{World, exec, file};

/// Starts a deploy whose script is `/bin/sleep`, shows `look` its process, and lets it end.
fn look_at_script(world: &World, look: impl Fn(i32)) {
    world.push(&[("index.html", file("one\n"))], "first");
    let running = world.spawn_poll(&[]);
    let pid = world.wait_for_script("/bin/sleep 2");
    look(pid);
    running.wait().expect(0).silent();
    world.expect_no_processes();
}

const SLEEP: &str = "script = [\"/bin/sleep\", \"2\"]";

fn numbers(text: &str) -> Vec<u32> {
    let mut numbers: Vec<_> = text.split_whitespace().map(|word| word.parse().unwrap()).collect();
    numbers.sort();
    numbers
}

#[test]
fn the_script_has_its_users_ids_and_no_others() {
    needs_root!();
    let world = World::new("ids");
    let (_, member_of) = world.deployer.join_new_group();
    world.app("site").deploy(SLEEP).write();
    look_at_script(&world, |pid| {
        let (uid, gid) = (world.deployer.uid, world.deployer.gid);
        assert_eq!(numbers(&status_field(pid, "Uid")), [uid; 4]);
        assert_eq!(numbers(&status_field(pid, "Gid")), [gid; 4]);
        let mut groups = vec![gid, member_of];
        groups.sort();
        assert_eq!(numbers(&status_field(pid, "Groups")), groups);
    });
}

#[test]
fn a_group_can_be_named_and_the_users_own_groups_stay() {
    needs_root!();
    let world = World::new("group");
    let (name, gid) = world.deployer.join_new_group();
    let (_, other) = world.deployer.join_new_group();
    world.app("site").deploy(SLEEP).deploy(&format!("group = \"{name}\"")).write();
    look_at_script(&world, |pid| {
        assert_eq!(numbers(&status_field(pid, "Gid")), [gid; 4]);
        let groups = numbers(&status_field(pid, "Groups"));
        assert!(groups.contains(&gid) && groups.contains(&other) && !groups.contains(&0), "{groups:?}");
    });
}

#[test]
fn the_script_has_no_capabilities_and_cannot_get_any() {
    needs_root!();
    let world = World::new("caps");
    world.app("site").deploy(SLEEP).write();
    look_at_script(&world, |pid| {
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(status_field(pid, set), "0000000000000000", "{set}");
        }
        assert_eq!(status_field(pid, "NoNewPrivs"), "1");
        assert_eq!(status_field(pid, "SigBlk"), "0000000000000000", "no signal is blocked");
        assert_eq!(status_field(pid, "SigIgn"), "0000000000000000", "no signal is ignored");
    });
}

#[test]
fn an_app_that_names_sudo_commands_keeps_the_way_to_sudo() {
    let world = World::new("sudo");
    world.app("site").deploy(SLEEP).deploy("sudo = [\"/usr/bin/systemctl restart x.service\"]").write();
    look_at_script(&world, |pid| assert_eq!(status_field(pid, "NoNewPrivs"), "0"));
}

#[test]
fn the_environment_is_exactly_the_documented_one() {
    let world = World::new("environment");
    world.app("site").deploy(SLEEP).deploy("env = { GREETING = \"two words\", EMPTY = \"\" }").write();
    let mut seen = BTreeMap::new();
    world.push(&[("index.html", file("one\n"))], "first");
    let mut command = world.command(&[]);
    command.env("LEAKED", "1").env("GIT_DIR", "/x").env("SSH_AUTH_SOCK", "/y").env("LD_LIBRARY_PATH", "/z");
    let running = world.spawn(command);
    seen.extend(environment(world.wait_for_script("/bin/sleep 2")));
    running.wait().expect(0);
    let names: Vec<_> = seen.keys().map(String::as_str).collect();
    let mut expected = vec!["PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "GREETING", "EMPTY"];
    expected.extend(["POLLER_APP", "POLLER_RUN", "POLLER_COMMIT", "POLLER_PREVIOUS", "POLLER_REF"]);
    expected.extend(["POLLER_RELEASE", "POLLER_REASON"]);
    expected.sort();
    assert_eq!(names, expected);
    assert_eq!(seen["GREETING"], "two words");
    assert_eq!(seen["EMPTY"], "");
    assert_eq!(seen["USER"], world.deployer.name);
    assert_eq!(seen["LOGNAME"], world.deployer.name);
    assert_eq!(Path::new(&seen["HOME"]), world.deployer.home);
    assert_eq!(seen["POLLER_PREVIOUS"], "", "there was none");
    assert_eq!(seen["POLLER_REASON"], "deploy");
}

#[test]
fn descriptors_directory_and_session_are_the_scripts_own() {
    let world = World::new("descriptors");
    world.app("site").deploy(SLEEP).write();
    let own = session_of(std::process::id() as i32);
    look_at_script(&world, |pid| {
        let open = descriptors(pid);
        let numbers: Vec<_> = open.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [0, 1, 2], "{open:?}");
        assert_eq!(open[0].1, Path::new("/dev/null"));
        assert_ne!(session_of(pid), own);
        let folder = fs::read_link(format!("/proc/{pid}/cwd")).unwrap();
        assert_eq!(folder, fs::canonicalize(world.live_folder("site")).unwrap());
    });
}

#[test]
fn descriptors_that_poller_was_started_with_do_not_reach_the_script() {
    let world = World::new("inherited");
    world.app("site").deploy(SLEEP).write();
    world.push(&[("index.html", file("one\n"))], "first");
    let plain = world.command(&[]);
    let mut command = std::process::Command::new("/bin/sh");
    command.args(["-c", "exec 7</etc/passwd; exec \"$@\"", "sh"]).arg(plain.get_program());
    command.args(plain.get_args()).env_clear().env("PATH", "/usr/bin:/bin").env("HOME", "/");
    let running = world.spawn(command);
    let open = descriptors(world.wait_for_script("/bin/sleep 2"));
    assert_eq!(open.len(), 3, "{open:?}");
    running.wait().expect(0);
}

#[test]
fn the_umask_is_022_or_what_the_app_says() {
    for (line, expected) in [("", "0022"), ("umask = \"027\"", "0027")] {
        let world = World::new("umask");
        world.app("site").deploy(SLEEP).deploy(line).write();
        look_at_script(&world, |pid| assert_eq!(status_field(pid, "Umask"), expected));
    }
}

#[test]
fn the_script_can_read_neither_key_nor_repositories() {
    needs_root!();
    let world = World::new("secrets");
    world.app("site").write();
    let (key, state) = (world.key_file(), world.state());
    let tries = format!(
        "if cat '{}'; then exit 11; fi\nif ls '{state}'; then exit 12; fi\n\
         if ls '{state}'/*.git/objects; then exit 13; fi\nif cat '{}'; then exit 14; fi",
        key.display(),
        world.log_file().display(),
        state = state.display(),
    );
    world.push(&[("deploy.sh", world.script(&tries))], "first");
    world.poll(&[]).expect(0);
}

#[test]
fn the_key_is_in_no_process_arguments_or_environment_of_the_fetch_user() {
    needs_root!();
    let world = World::new("key in memory");
    world.app("site").deploy("script = [\"/bin/sleep\", \"1\"]").write();
    world.push(&[("index.html", file("one\n"))], "first");
    let running = world.spawn_poll(&[]);
    world.wait_for_script("/bin/sleep 1");
    for pid in crate::support::processes::helpers_of(running.pid()) {
        for name in ["cmdline", "environ"] {
            let bytes = fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
            assert!(!String::from_utf8_lossy(&bytes).contains("PRIVATE KEY"), "{name} of {pid}");
        }
    }
    running.wait().expect(0);
}

#[test]
fn a_string_is_split_as_a_shell_would_and_run_without_one() {
    let world = World::new("split");
    let said = world.notes("said");
    let tool = exec(format!("#!/bin/sh\nprintf '[%s]' \"$@\" > '{}'\n", said.display()));
    let script = "script = \"./tool 'two words' \\\"$HOME\\\" * a;b '' \\\\\\\\\"";
    world.app("site").deploy(script).write();
    world.push(&[("tool", tool)], "first");
    world.poll(&[]).expect(0);
    assert_eq!(world.note("said"), "[two words][$HOME][*][a;b][][\\]");
}

#[test]
fn an_array_is_run_as_it_is() {
    let world = World::new("array");
    let said = world.notes("said");
    let tool = exec(format!("#!/bin/sh\nprintf '[%s]' \"$@\" > '{}'\n", said.display()));
    world.app("site").deploy("script = [\"./tool\", \"it's\", \"a  b\"]").write();
    world.push(&[("tool", tool)], "first");
    world.poll(&[]).expect(0);
    assert_eq!(world.note("said"), "[it's][a  b]");
}

#[test]
fn an_absolute_script_is_the_hosts() {
    let world = World::new("absolute");
    let script = world.path("etc/deploy-site");
    crate::support::put_exec(&script, &format!("#!/bin/sh\npwd > '{}'\n", world.notes("cwd").display()));
    world.app("site").deploy(&format!("script = \"{}\"", script.display())).write();
    world.push(&[("index.html", file("one\n"))], "first");
    world.poll(&[]).expect(0);
    let release = fs::canonicalize(world.live_folder("site")).unwrap();
    assert_eq!(Path::new(world.note("cwd").trim()), release);
}

#[test]
fn both_streams_reach_the_journal_and_the_log_in_order() {
    let world = World::new("order");
    world.app("site").write();
    let script = "for n in 1 2 3 4 5; do echo out $n; echo err $n >&2; sleep 0.05; done";
    world.push(&[("deploy.sh", world.script(script))], "first");
    world.poll(&[]).expect(0).silent();
    let entry = &world.journal("site")[0];
    let text = String::from_utf8_lossy(&entry.output).into_owned();
    let at = |what: &str| text.find(what).unwrap_or_else(|| panic!("{what} is not in {text}"));
    for n in 1..5 {
        assert!(at(&format!("out {n}")) < at(&format!("err {n}")));
        assert!(at(&format!("err {n}")) < at(&format!("out {}", n + 1)));
    }
    let lines = world.events("deploy.output");
    let streams = |name: &str| lines.iter().filter(|line| line["stream"] == name).count();
    assert_eq!((streams("stdout"), streams("stderr")), (5, 5));
}
