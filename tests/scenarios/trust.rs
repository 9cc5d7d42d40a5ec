//! Files that somebody else could have replaced: refused with 77 before anything is connected to.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use crate::support::{World, file, put_exec, set_mode};

/// Spoils something, and expects a refusal that names the path and its remedy, and no connection.
#[track_caller]
fn expect_refusal(name: &str, mode: Option<&str>, spoil: impl Fn(&World) -> std::path::PathBuf) {
    let world = World::new(name);
    world.app("site").write();
    world.push(&[("deploy.sh", world.script(""))], "first");
    let path = spoil(&world);
    let mark = world.sshd.mark();
    let outcome = world.poll(&[]).expect(77).says(path.to_str().unwrap());
    if let Some(mode) = mode {
        assert!(outcome.stderr.contains(mode), "the mode {mode}\n{}", outcome.story());
        assert!(outcome.stderr.contains("chmod"), "a remedy\n{}", outcome.story());
    }
    assert_eq!(world.sshd.connections_since(mark), 0, "nothing was connected to");
    assert!(world.ran().is_empty());
}

fn chmod(path: &Path, mode: u32) -> std::path::PathBuf {
    set_mode(path, mode);
    path.to_owned()
}

#[test]
fn poller_toml_writable_by_others() {
    expect_refusal("conf", Some("666"), |w| chmod(&w.config_file(), 0o666));
}

#[test]
fn a_state_folder_that_is_to_be_made_where_others_can_write() {
    expect_refusal("state", None, |w| {
        let shared = w.path("shared");
        fs::create_dir(&shared).unwrap();
        set_mode(&shared, 0o777);
        name_state(w, &shared.join("state"));
        shared
    });
}

fn name_state(world: &World, state: &Path) {
    let text = fs::read_to_string(world.config_file()).unwrap();
    let text = text.replace(world.state().to_str().unwrap(), state.to_str().unwrap());
    fs::write(world.config_file(), text).unwrap();
}

#[test]
fn a_log_folder_that_somebody_elses_link_leads_to_is_not_made() {
    let world = World::new("log link");
    world.app("site").write();
    let (theirs, lured) = (world.path("theirs"), world.path("lured"));
    fs::create_dir(&lured).unwrap();
    fs::create_dir(&theirs).unwrap();
    symlink(&lured, theirs.join("a")).unwrap();
    set_mode(&theirs, 0o777);
    let text = fs::read_to_string(world.config_file()).unwrap();
    let log = theirs.join("a/log/poller.log");
    fs::write(world.config_file(), text.replace(world.log_file().to_str().unwrap(), log.to_str().unwrap())).unwrap();
    world.poll(&[]).expect(77).says(theirs.to_str().unwrap());
    assert_eq!(fs::read_dir(&lured).unwrap().count(), 0, "root made nothing there");
}

#[test]
fn a_narrow_umask_closes_no_folder_to_the_fetch_user() {
    let world = World::new("umask");
    world.app("site").write();
    name_state(&world, &world.path("new/below/state"));
    let commit = world.push(&[("deploy.sh", world.script(""))], "first");
    let mut command = Command::new("/bin/sh");
    let poll = world.command(&[]);
    command.args(["-c", "umask 077; exec \"$0\" \"$@\""]).arg(poll.get_program()).args(poll.get_args());
    command.current_dir("/").env_clear().envs(poll.get_envs().filter_map(|(name, value)| Some((name, value?))));
    world.spawn(command).wait().expect(0);
    world.expect_live("site", &commit);
}

#[test]
fn an_apps_file_writable_by_others() {
    expect_refusal("app", Some("662"), |w| chmod(&w.path("etc/apps.d/site.toml"), 0o662));
}

#[test]
fn known_hosts_writable_by_others() {
    expect_refusal("hosts", Some("646"), |w| chmod(&w.path("etc/known_hosts"), 0o646));
}

#[test]
fn the_folder_of_the_configuration_writable_by_others() {
    expect_refusal("folder", Some("777"), |w| chmod(&w.path("etc"), 0o777));
}

#[test]
fn apps_d_writable_by_others() {
    expect_refusal("appsd", Some("777"), |w| chmod(&w.path("etc/apps.d"), 0o777));
}

#[test]
fn a_parent_further_up_writable_by_others() {
    expect_refusal("parent", Some("777"), |w| chmod(&w.root, 0o777));
}

#[test]
fn a_key_that_others_can_read() {
    expect_refusal("key", Some("644"), |w| chmod(&w.key_file(), 0o644));
}

#[test]
fn a_key_that_its_group_can_read() {
    expect_refusal("group key", Some("640"), |w| chmod(&w.key_file(), 0o640));
}

#[test]
fn the_folder_of_the_key_writable_by_others() {
    expect_refusal("keys", Some("777"), |w| chmod(&w.path("etc/keys"), 0o777));
}

#[test]
fn an_absolute_script_writable_by_others() {
    expect_refusal("script", Some("777"), |w| {
        let script = w.path("etc/deploy");
        put_exec(&script, "#!/bin/sh\n");
        w.app("site").deploy(&format!("script = \"{}\"", script.display())).write();
        chmod(&script, 0o777)
    });
}

#[test]
fn an_absolute_script_in_a_folder_writable_by_others() {
    expect_refusal("script folder", Some("777"), |w| {
        let script = w.path("scripts/deploy");
        put_exec(&script, "#!/bin/sh\n");
        w.app("site").deploy(&format!("script = \"{}\"", script.display())).write();
        chmod(&w.path("scripts"), 0o777)
    });
}

#[test]
fn a_configuration_that_belongs_to_the_deploy_user() {
    needs_root!();
    expect_refusal("owned app", None, |w| {
        let path = w.path("etc/apps.d/site.toml");
        w.deployer.own(&path);
        path
    });
    expect_refusal("owned folder", None, |w| {
        w.deployer.own(&w.path("etc/apps.d"));
        w.path("etc/apps.d")
    });
}

#[test]
fn a_key_that_belongs_to_the_deploy_user() {
    needs_root!();
    expect_refusal("owned key", None, |w| {
        w.deployer.own(&w.key_file());
        w.key_file()
    });
}

#[test]
fn a_link_in_the_place_of_a_file_is_judged_by_where_it_leads() {
    needs_root!();
    expect_refusal("link", None, |w| {
        let (real, place) = (w.path("notes/site.toml"), w.path("etc/apps.d/site.toml"));
        fs::rename(&place, &real).unwrap();
        symlink(&real, &place).unwrap();
        // The notes' folder is the deploy user's.
        w.path("notes")
    });
}

#[test]
fn a_missing_key_is_named() {
    let world = World::new("no key");
    world.app("site").write();
    world.push(&[("deploy.sh", world.script(""))], "first");
    fs::remove_file(world.key_file()).unwrap();
    let mark = world.sshd.mark();
    world.poll(&[]).expect_one_of(&[77, 78]).says("keys/deploy");
    assert_eq!(world.sshd.connections_since(mark), 0);
}

#[test]
fn root_opens_nothing_under_the_target() {
    needs_root!();
    needs_program!("strace");
    expect_nothing_opened_as_root(&[]);
    expect_nothing_opened_as_root(&["check"]);
}

#[track_caller]
fn expect_nothing_opened_as_root(args: &[&str]) {
    let world = World::new("strace");
    world.deployed();
    world.push(&[("index.html", file("two\n"))], "second");
    let trace = world.path("trace");
    let mut traced = std::process::Command::new("/usr/bin/strace");
    traced.args(["-f", "-ff", "-e", "trace=%file,%process,setuid,setresuid", "-o"]).arg(&trace);
    let plain = world.command(args);
    traced.arg(plain.get_program()).args(plain.get_args()).env_clear();
    traced.env("PATH", "/usr/bin:/bin").env("HOME", "/root");
    world.spawn(traced).wait().expect(0);
    let target = world.path("target");
    let opened: Vec<_> = calls_as_root(&world.root)
        .into_iter()
        .filter(|line| OPENERS.iter().any(|call| line.starts_with(call)))
        .filter(|line| line.contains(target.to_str().unwrap()))
        .collect();
    assert!(opened.is_empty(), "as root: {opened:#?}");
}

const OPENERS: [&str; 8] = ["open", "creat", "rename", "unlink", "mkdir", "symlink", "chown", "truncate"];

/// What strace saw, of each process until it gave its rights away. Who was forked after that is not root.
fn calls_as_root(folder: &Path) -> Vec<String> {
    let mut traces = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        if let Some(pid) = name.strip_prefix("trace.") {
            let text = String::from_utf8_lossy(&fs::read(entry.path()).unwrap()).into_owned();
            traces.insert(pid.to_owned(), text);
        }
    }
    let born: Vec<_> = traces.values().flat_map(|text| text.lines().filter_map(forked)).collect();
    let mut next: Vec<_> = traces.keys().filter(|pid| !born.contains(pid)).cloned().collect();
    assert_eq!(next.len(), 1, "one process began it all");
    let mut calls = Vec::new();
    while let Some(pid) = next.pop() {
        let text = traces.get(&pid).map_or("", String::as_str);
        for line in text.lines().take_while(|line| !is_drop(line)) {
            next.extend(forked(line));
            calls.push(line.to_owned());
        }
    }
    calls
}

/// The process or thread that this call made.
fn forked(line: &str) -> Option<String> {
    let forks = ["clone", "fork", "vfork"].iter().any(|call| line.starts_with(call));
    let (_, result) = line.rsplit_once(" = ").filter(|_| forks)?;
    result.split(' ').next()?.parse::<u32>().ok().map(|pid| pid.to_string())
}

/// setuid or setresuid to somebody who is not root, and it worked.
fn is_drop(line: &str) -> bool {
    let call = line.starts_with("setuid(") || line.starts_with("setresuid(");
    call && !line.contains("uid(0") && line.trim_end().ends_with("= 0")
}

#[test]
fn a_lock_folder_in_which_everybody_can_make_files_is_refused_even_when_sticky() {
    expect_refusal("sticky run", None, |world| {
        fs::create_dir_all(world.run_dir()).unwrap();
        chmod(&world.run_dir(), 0o1777)
    });
}

#[test]
fn a_pipe_in_the_metrics_files_place_hangs_nothing_and_a_file_is_written() {
    let world = World::new("metrics");
    let metrics = world.path("metrics.prom");
    world.write_host_config(&format!("\n[metrics]\ntextfile = \"{}\"", metrics.display()));
    let commit = world.deployed();
    let text = fs::read_to_string(&metrics).unwrap();
    for part in [
        &format!("poller_app_info{{app=\"site\",commit=\"{commit}\",ref=\"refs/heads/main\",state=\"ok\"}} 1\n"),
        "poller_app_state{app=\"site\",state=\"ok\"} 1\n",
        "poller_deploys_total{app=\"site\",outcome=\"deployed\"} 1\n",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    fs::remove_file(&metrics).unwrap();
    nix::unistd::mkfifo(&metrics, nix::sys::stat::Mode::from_bits_truncate(0o666)).unwrap();
    world.poll(&[]).expect(0).silent().within(crate::support::seconds(20));
    assert_eq!(world.events("report.failed").len(), 1);
}

#[test]
fn nobody_else_can_hold_a_lock_and_stop_the_polls() {
    needs_root!();
    needs_program!("flock");
    let world = World::new("lock mode");
    world.deployed();
    let lock = world.run_dir().join("site.lock");
    // As an earlier version left it.
    crate::support::set_mode(&lock, 0o644);
    world.poll(&[]).expect(0);
    let hold = ["-u", &world.deployer.name, "--", "flock", "-n", lock.to_str().unwrap(), "true"];
    let held = std::process::Command::new("runuser").args(hold).output().unwrap();
    assert!(!held.status.success(), "{held:?}");
}

#[test]
fn files_that_the_caller_may_not_read_are_a_matter_of_permission() {
    let world = World::new("not readable");
    world.app("site").write();
    set_mode(&world.config_file(), 0o600);
    world
        .poll_as(&world.deployer, &["check", "--config-only"])
        .expect(77)
        .prints("Permission denied")
        .prints("sudo poller");
}

#[test]
fn a_configuration_that_is_named_needs_no_home() {
    use std::os::unix::process::CommandExt;
    let world = World::new("no home");
    world.app("site").write();
    let checked = |home: Option<&str>| {
        let mut command = world.command(&["check", "--config-only"]);
        command.uid(world.deployer.uid).gid(world.deployer.gid).env_remove("HOME");
        home.map(|home| command.env("HOME", home));
        world.spawn(command).wait()
    };
    checked(None).expect(0);
    let text = std::fs::read_to_string(world.config_file()).unwrap();
    let without: Vec<&str> = text.lines().filter(|line| !line.starts_with("log = ")).collect();
    world.write_etc("poller.toml", &without.join("\n"));
    checked(None).expect(78).prints("HOME is not set");
    checked(Some("/nonexistent")).expect(0);
}
