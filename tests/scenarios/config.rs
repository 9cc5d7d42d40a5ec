//! Mistakes in the configuration: status 78, the place of the mistake, and the other apps polled all the same.

use std::fs;
use std::os::unix::ffi::OsStrExt;

use crate::support::World;

/// One good app and one whose file is `text`: exit 78, the place shown, the good one deployed.
#[track_caller]
fn expect_mistake(name: &str, line: usize, wanted: &[&str], edit: impl Fn(String, &World) -> String) {
    let world = World::new(name);
    world.app("good").write();
    let text = edit(world.app("bad").text(), &world);
    world.write_etc("apps.d/bad.toml", &text);
    let first = world.push(&[("deploy.sh", world.script(""))], "first");
    let outcome = world.poll(&[]).expect(78).says("apps.d/bad.toml").says("^");
    for word in wanted {
        assert!(outcome.stderr.contains(word), "{word:?} is not in\n{}", outcome.story());
    }
    if line > 0 {
        let said = &outcome.stderr;
        let found = said.contains(&format!("bad.toml:{line}:")) || said.contains(&format!("line {line}"));
        assert!(found, "line {line} is not named\n{}", outcome.story());
    }
    world.expect_live("good", &first);
    assert!(world.journal("bad").is_empty());
}

#[track_caller]
fn line_of(text: &str, what: &str) -> usize {
    1 + text.lines().position(|line| line.starts_with(what)).expect(what)
}

#[test]
fn an_unknown_key_is_shown_with_its_line() {
    let world = World::new("line");
    let text = world.app("bad").deploy("scirpt = \"./x\"").text();
    let line = line_of(&text, "scirpt");
    drop(world);
    expect_mistake("unknown key", line, &["scirpt"], |_, w| w.app("bad").deploy("scirpt = \"./x\"").text());
}

#[test]
fn an_unknown_table_is_an_error() {
    expect_mistake("unknown table", 0, &["deplyo"], |text, _| text + "\n[deplyo]\nuser = \"x\"\n");
}

#[test]
fn a_value_of_the_wrong_type_is_an_error() {
    expect_mistake("wrong type", 0, &["keep"], |_, w| w.app("bad").target("keep = \"five\"").text());
}

#[test]
fn text_that_is_no_toml_is_an_error() {
    expect_mistake("no toml", 1, &[], |text, _| format!("[source\n{text}"));
}

#[test]
fn branch_and_tag_together_are_an_error() {
    expect_mistake("branch and tag", 0, &["branch", "tag"], |_, w| w.app("bad").source("tag = \"v*\"").text());
}

#[test]
fn branch_and_ref_together_are_an_error() {
    expect_mistake("branch and ref", 0, &["branch", "ref"], |_, w| {
        w.app("bad").source("ref = \"refs/deploy/x\"").text()
    });
}

#[test]
fn neither_branch_nor_tag_nor_ref_is_an_error() {
    expect_mistake("none", 0, &["branch", "tag", "ref"], |_, w| w.app("bad").without("source.branch").text());
}

#[test]
fn a_duration_without_a_unit_is_an_error() {
    expect_mistake("duration", 0, &["timeout", "10"], |_, w| w.app("bad").deploy("timeout = \"10\"").text());
}

#[test]
fn a_time_limit_of_nothing_is_an_error() {
    expect_mistake("no limit", 0, &["timeout"], |_, w| w.app("bad").deploy("timeout = \"0s\"").text());
}

#[test]
fn a_relative_target_is_an_error() {
    expect_mistake("relative", 0, &["directory", "absolute"], |_, w| {
        w.app("bad").target("directory = \"www/site\"").text()
    });
}

#[test]
fn a_subdir_that_climbs_out_is_an_error() {
    expect_mistake("climbs", 0, &["subdir"], |_, w| w.app("bad").source("subdir = \"../etc\"").text());
}

#[test]
fn a_shared_path_that_climbs_out_is_an_error() {
    expect_mistake("shared", 0, &["shared"], |_, w| w.app("bad").target("shared = [\"../x\"]").text());
}

#[test]
fn an_https_remote_is_refused_with_a_word_about_it() {
    expect_mistake("https", 0, &["https"], |_, w| {
        w.app("bad").source("url = \"https://git.example.org/x.git\"").text()
    });
}

#[test]
fn a_url_that_would_be_an_option_is_an_error() {
    expect_mistake("option", 0, &["url"], |_, w| w.app("bad").source("url = \"ssh://-oProxyCommand=x/y\"").text());
}

#[test]
fn an_unknown_key_in_poller_toml_stops_everything() {
    let world = World::new("host key");
    world.app("site").write();
    world.write_host_config("jbos = 4");
    world.push(&[("deploy.sh", world.script(""))], "first");
    world.poll(&[]).expect(78).says("poller.toml").says("jbos").says("^");
    assert!(world.ran().is_empty());
}

#[test]
fn a_poller_toml_that_is_not_there_is_named() {
    let world = World::new("no file");
    fs::remove_file(world.config_file()).unwrap();
    world.poll(&[]).expect_one_of(&[78]).says("poller.toml");
}

#[test]
fn an_app_that_is_not_there_is_named() {
    let world = World::new("no app");
    world.app("site").write();
    world.push(&[("deploy.sh", world.script(""))], "first");
    world.poll(&["sitee"]).expect_one_of(&[64, 78]).says("sitee");
    assert!(world.ran().is_empty());
}

#[test]
fn an_app_name_with_a_slash_is_refused() {
    let world = World::new("slash");
    world.app("site").write();
    world.poll(&["../site"]).expect_one_of(&[64, 78]).says("../site");
}

#[test]
fn a_file_whose_name_is_no_app_name_is_an_error_for_itself_alone() {
    for name in ["a b", "-n", "x..y", "ref.lock"] {
        let world = World::new("bad name");
        world.app("good").write();
        world.write_etc(&format!("apps.d/{name}.toml"), &world.app("x").text());
        let first = world.push(&[("deploy.sh", world.script(""))], "first");
        world.poll(&[]).expect(78).says(name);
        world.expect_live("good", &first);
    }
}

#[test]
fn files_that_do_not_end_in_toml_are_left_alone() {
    let world = World::new("other files");
    world.write_etc("apps.d/old.toml.bak", "nonsense");
    world.write_etc("apps.d/.site.toml.swp", "nonsense");
    world.write_etc("apps.d/README", "nonsense");
    world.deployed();
}

#[test]
fn no_app_at_all_is_no_failure() {
    let world = World::new("no apps");
    world.poll(&[]).expect(0);
}

#[test]
fn a_user_that_does_not_exist_is_found_before_any_network() {
    for (key, line) in [("user", "user = \"nobody-by-this-name\""), ("group", "group = \"no-such-group\"")] {
        let world = World::new("no user");
        world.app("site").deploy(line).write();
        world.push(&[("deploy.sh", world.script(""))], "first");
        let mark = world.sshd.mark();
        world.poll(&[]).expect(78).says(line.split('"').nth(1).unwrap()).says(key);
        assert_eq!(world.sshd.connections_since(mark), 0);
        assert!(world.repositories().is_empty() && world.ran().is_empty());
    }
}

#[test]
fn a_fetch_user_that_does_not_exist_is_an_error_as_root() {
    needs_root!();
    let world = World::new("no fetch user");
    world.app("site").write();
    let text = fs::read_to_string(world.config_file()).unwrap();
    world.write_etc("poller.toml", &text.replace(&world.fetcher.name, "nobody-by-this-name"));
    let mark = world.sshd.mark();
    world.poll(&[]).expect(78).says("nobody-by-this-name");
    assert_eq!(world.sshd.connections_since(mark), 0);
}

#[test]
fn who_fetches_does_not_run_scripts() {
    needs_root!();
    let world = World::new("fetch user deploys");
    world.app("site").write();
    let file = world.path("etc/apps.d/site.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace(&world.deployer.name, &world.fetcher.name)).unwrap();
    let mark = world.sshd.mark();
    world.poll(&[]).expect(78).says(&world.fetcher.name).says("every app's journal").says("[deploy]");
    assert_eq!(world.sshd.connections_since(mark), 0);
    world.poll(&["check", "site"]).expect(78).prints("every app's journal");

    let mark = world.sshd.mark();
    world.app("site").deploy(&format!("group = \"{}\"", world.fetcher.name)).write();
    world.poll(&[]).expect(78).says("every app's repository").says("name another `group`");
    assert_eq!(world.sshd.connections_since(mark), 0);
}

#[test]
fn who_may_not_make_pollers_folders_is_told_whose_they_are() {
    needs_root!();
    let world = World::new("folders of root");
    world.app("site").write();
    world.poll_as(&world.deployer, &["site"]).expect(77).says("not allowed").says("sudo poller site");
    assert!(!world.state().exists());
}

#[test]
fn a_word_that_is_no_text_is_a_wrong_command_line() {
    let world = World::new("no text");
    world.app("site").write();
    let mut command = world.command(&[]);
    command.arg(std::ffi::OsStr::from_bytes(b"caf\xe9"));
    world.spawn(command).wait().expect(64);
}

#[test]
fn known_hosts_that_is_too_long_to_be_read_whole_is_not_read_in_part() {
    let world = World::new("long known_hosts");
    world.app("site").write();
    let known_hosts = world.path("etc/known_hosts");
    fs::OpenOptions::new().write(true).open(&known_hosts).unwrap().set_len(9 << 20).unwrap();
    world.poll(&[]).expect(78).says("known_hosts has 9437184 bytes").says("is the most");
}

#[test]
fn an_empty_user_or_a_number_never_becomes_root() {
    for user in ["", "0", "4294967295", "-1"] {
        let world = World::new("odd user");
        world.app("site").deploy(&format!("user = \"{user}\"")).write();
        world.push(&[("deploy.sh", world.script(""))], "first");
        world.poll(&[]).expect(78);
        assert!(world.ran().is_empty());
    }
}

#[test]
fn a_misused_command_line_is_64() {
    let world = World::new("usage");
    world.app("site").write();
    world.poll(&["--no-such-flag"]).expect(64);
    world.poll(&["--force"]).expect(64);
}
