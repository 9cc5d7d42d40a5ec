//! The metrics file: what it says of apps in every state, and that nothing in its place can do harm.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::support::{World, set_mode};

const STATES: [&str; 9] =
    ["ok", "pending", "frozen", "failed", "broken", "interrupted", "refused", "unreachable", "new"];

/// A world whose poller writes metrics.
fn measured(name: &str) -> (World, PathBuf) {
    let world = World::new(name);
    let folder = world.path("metrics");
    fs::create_dir(&folder).unwrap();
    set_mode(&folder, 0o755);
    let file = folder.join("poller.prom");
    write_config(&world, &file);
    (world, file)
}

fn write_config(world: &World, textfile: &std::path::Path) {
    world.write_host_config(&format!("\n[metrics]\ntextfile = \"{}\"", textfile.display()));
}

/// Series to value.
fn read(file: &std::path::Path) -> BTreeMap<String, f64> {
    let text = fs::read_to_string(file).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.rsplit_once(' ').unwrap()).map(|(name, v)| (name.to_owned(), v.parse().unwrap())).collect()
}

/// The one state of an app.
#[track_caller]
fn state_of(metrics: &BTreeMap<String, f64>, app: &str) -> &'static str {
    let value = |state: &str| metrics.get(&format!("poller_app_state{{app=\"{app}\",state=\"{state}\"}}")).copied();
    let values: Vec<Option<f64>> = STATES.iter().map(|state| value(state)).collect();
    assert!(values.iter().all(Option::is_some), "one series a state of {app}: {metrics:#?}");
    let is: Vec<&str> = STATES.into_iter().filter(|state| value(state) == Some(1.0)).collect();
    assert_eq!(is.len(), 1, "{app} is in one state: {is:?}");
    is[0]
}

fn simple(world: &World, name: &str, script: &str) {
    world.app(name).deploy(&format!("script = {script}")).write();
}

#[test]
fn apps_in_every_state_make_a_file_that_promtool_finds_nothing_wrong_with() {
    needs_program!("promtool");
    let (world, file) = measured("promtool");
    simple(&world, "fine", "\"/usr/bin/true\"");
    simple(&world, "flaky", "\"/usr/bin/false\"");
    world.app("dead").deploy("script = \"/usr/bin/false\"\nretries = 1").write();
    simple(&world, "cold", "\"/usr/bin/true\"");
    simple(&world, "later", "[\"/bin/sh\", \"-c\", \"exit 75\"]");
    world.app("lost").source("url = \"ssh://git@127.0.0.1:1/x.git\"").write();
    world.app("slow").source("soak = \"1h\"").write();
    world.write_etc("apps.d/bad.toml", "url = 1\n");
    world.push(&[("index.html", crate::support::file("one\n"))], "first");
    world.poll(&[]).expect(78);
    world.poll(&["freeze", "cold", "--reason", "a quiet week"]).expect(0);
    world.push(&[("index.html", crate::support::file("two\n"))], "second");
    world.poll(&[]).expect(78);
    let metrics = read(&file);
    for (app, state) in [
        ("fine", "ok"),
        ("flaky", "failed"),
        ("dead", "broken"),
        ("cold", "frozen"),
        ("later", "pending"),
        ("slow", "new"),
        ("bad", "new"),
    ] {
        assert_eq!(state_of(&metrics, app), state, "{app}");
    }
    assert_eq!(metrics["poller_polls_total{app=\"bad\",outcome=\"config\"}"], 2.0);
    assert_eq!(state_of(&metrics, "lost"), "unreachable");
    assert!(!metrics.contains_key("poller_last_poll_success_timestamp_seconds{app=\"lost\"}"));
    assert!(metrics.contains_key("poller_last_poll_timestamp_seconds{app=\"lost\"}"));
    assert_eq!(metrics["poller_git_errors_total"], 2.0);
    let mut promtool = Command::new("/usr/bin/promtool");
    promtool.args(["check", "metrics"]).stdin(fs::File::open(&file).unwrap());
    let output = promtool.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
}

#[test]
fn an_app_that_is_configured_no_more_goes_and_one_that_was_not_named_stays() {
    let (world, file) = measured("gone");
    for name in ["a", "b", "c"] {
        simple(&world, name, "\"/usr/bin/true\"");
    }
    world.push(&[("index.html", crate::support::file("one\n"))], "first");
    world.poll(&[]).expect(0);
    world.poll(&["a"]).expect(0);
    let metrics = read(&file);
    assert_eq!(metrics["poller_polls_total{app=\"a\",outcome=\"unchanged\"}"], 1.0);
    assert_eq!(metrics["poller_polls_total{app=\"b\",outcome=\"deployed\"}"], 1.0, "not named, and still there");
    fs::remove_file(world.path("etc/apps.d/b.toml")).unwrap();
    world.app("c").source("hosts = [\"another\"]").write();
    world.poll(&["a"]).expect(0);
    let text = fs::read_to_string(&file).unwrap();
    assert!(!text.contains("app=\"b\"") && !text.contains("app=\"c\""), "{text}");
    assert_eq!(read(&file)["poller_polls_total{app=\"a\",outcome=\"unchanged\"}"], 2.0);
}

#[test]
fn a_folder_that_is_not_there_is_warned_of_and_changes_no_exit_code() {
    let (world, file) = measured("no folder");
    world.deployed();
    fs::remove_dir_all(file.parent().unwrap()).unwrap();
    world.poll(&[]).expect(0).silent();
    let warned = world.events("report.failed");
    assert_eq!(warned.len(), 1);
    assert_eq!(warned[0]["level"], "warn");
    assert!(warned[0]["error"].as_str().unwrap().contains("its folder is not there"), "{}", warned[0]);
    assert!(warned[0]["msg"].as_str().unwrap().contains("mkdir -p"), "{}", warned[0]);
    world.poll_on_terminal(&[]).expect(0).says("the metrics could not be written").says("mkdir -p");
}

#[test]
fn rubbish_in_the_files_place_is_replaced_and_the_exporter_can_read_it() {
    let (world, file) = measured("rubbish");
    world.deployed();
    for rubbish in [
        &b"\xff\xfe\x00 poller_\n{}\npoller_polls_total{app=\"site\",outcome=\"unchanged\"} NaN\n"[..],
        b"poller_polls_total{app=\"site\",outcome=\"unchanged\"} -3\npoller_git_operations_total inf\n",
        b"poller_polls_total{app=\"site\",outcome=\"unchanged\"} 1e300",
        b"",
    ] {
        fs::write(&file, rubbish).unwrap();
        // What a killed run left.
        fs::write(file.with_file_name("poller.prom.partial"), "half").unwrap();
        let plain = world.command(&[]);
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "umask 077; exec \"$0\" \"$@\""]).arg(plain.get_program()).args(plain.get_args());
        command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", "/").stdin(Stdio::null());
        world.spawn(command).wait().expect(0).silent();
        let metrics = read(&file);
        assert_eq!(metrics["poller_polls_total{app=\"site\",outcome=\"unchanged\"}"], 1.0);
        assert_eq!(metrics["poller_git_operations_total"], 1.0);
        assert_eq!(state_of(&metrics, "site"), "ok");
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o644);
        assert_eq!(fs::read_dir(file.parent().unwrap()).unwrap().count(), 1, "nothing is left beside it");
    }
    assert!(world.events("report.failed").is_empty());
}

#[test]
fn a_folder_in_which_others_can_make_files_is_refused() {
    needs_root!();
    let (world, file) = measured("open folder");
    world.deployed();
    fs::remove_file(&file).unwrap();
    let folder = file.parent().unwrap();
    set_mode(folder, 0o777);
    world.poll_on_terminal(&[]).expect(0).says("others can make files in").says("chmod o-w");
    set_mode(folder, 0o755);
    world.deployer.own(folder);
    world.poll_on_terminal(&[]).expect(0).says("belongs to another user").says("chown root");
    assert!(!file.exists());
}

#[test]
fn the_exporters_folder_above_may_be_its_own_and_its_links_are_not_followed() {
    needs_root!();
    let (world, file) = measured("exporter");
    world.deployed();
    // As on Debian: /var/lib/prometheus is the exporter's, node-exporter in it root's.
    let (above, elsewhere) = (world.path("prometheus"), world.path("elsewhere"));
    fs::create_dir_all(above.join("node-exporter")).unwrap();
    fs::create_dir(&elsewhere).unwrap();
    world.deployer.own(&above);
    write_config(&world, &above.join("node-exporter/poller.prom"));
    world.poll(&[]).expect(0).silent();
    assert!(above.join("node-exporter/poller.prom").exists());
    fs::rename(above.join("node-exporter"), above.join("aside")).unwrap();
    let link = above.join("node-exporter");
    symlink(&elsewhere, &link).unwrap();
    std::os::unix::fs::lchown(&link, Some(world.deployer.uid), None).unwrap();
    world.poll_on_terminal(&[]).expect(0).says("a link that another user made");
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
    // A link of root's own is as good as the folder.
    let own = world.path("own");
    symlink(file.parent().unwrap(), &own).unwrap();
    write_config(&world, &own.join("linked.prom"));
    world.poll(&[]).expect(0).silent();
    assert!(file.with_file_name("linked.prom").exists());
}

#[test]
fn runs_side_by_side_lose_no_count() {
    let (world, file) = measured("side by side");
    let names = ["a", "b", "c", "d"];
    for name in names {
        simple(&world, name, "\"/usr/bin/true\"");
    }
    world.push(&[("index.html", crate::support::file("one\n"))], "first");
    world.poll(&[]).expect(0);
    for _ in 0..3 {
        let runs: Vec<_> = names.iter().map(|name| world.spawn_poll(&[name])).collect();
        runs.into_iter().for_each(|run| drop(run.wait().expect(0)));
    }
    let metrics = read(&file);
    for name in names {
        assert_eq!(metrics[&format!("poller_polls_total{{app=\"{name}\",outcome=\"unchanged\"}}")], 3.0);
    }
    assert_eq!(metrics["poller_git_operations_total"], 16.0);
}
