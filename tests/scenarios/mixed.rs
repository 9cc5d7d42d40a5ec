//! More than one thing goes wrong, or the configuration changes in between: what is live must still be
//! one whole commit, and the journal must say which.

use std::fs;

use crate::support::{Content, World, exec, file, gone, seconds};

/// A deploy whose script is killed together with poller and all its helpers.
fn killed_in_its_script(world: &World, mut files: Vec<(&str, Content)>) {
    files.push(("deploy.sh", world.script("sleep 300")));
    world.push(&files, "killed");
    let running = world.spawn_poll(&[]);
    world.wait_for_script("sleep 300");
    running.kill_all();
}

#[test]
fn a_build_that_fails_after_a_killed_deploy_puts_the_deployed_commit_back() {
    let world = World::new("build after kill");
    world.app("site").deploy("build = \"./build.sh\"\ntimeout = \"60s\"").write();
    world.repo.commit(&[("build.sh", exec("#!/bin/sh\nexit 0\n"))], "build");
    let first = world.deployed_as_configured();
    killed_in_its_script(&world, vec![("index.html", file("killed\n"))]);
    world.push(&[("build.sh", exec("#!/bin/sh\nexit 3\n")), ("deploy.sh", world.script(""))], "bad build");
    world.poll(&[]).expect(1).within(seconds(60));
    world.expect_live("site", &first);
    assert_eq!(world.recorded("site"), Some(first));
}

#[test]
fn two_deploys_in_place_that_were_cut_short_leave_nothing_of_either() {
    let world = World::new("cut short twice");
    world.app("site").in_place().deploy("timeout = \"60s\"").write();
    world.deployed_as_configured();
    killed_in_its_script(&world, vec![("index.html", file("b\n")), ("only-b", file("b\n"))]);
    killed_in_its_script(&world, vec![("index.html", file("one\n")), ("only-b", gone()), ("only-c", file("c\n"))]);
    let last = world.push(&[("only-c", gone()), ("deploy.sh", world.script(""))], "last");
    world.poll(&[]).expect(0).within(seconds(60));
    world.expect_live("site", &last);
    assert!(!world.target("site").join("only-b").exists() && !world.target("site").join("only-c").exists());
}

#[test]
fn a_former_release_that_somebody_removed_is_written_anew() {
    let world = World::new("removed release");
    world.app("site").deploy("retries = 2").write();
    let first = world.deployed_as_configured();
    for release in world.releases("site") {
        fs::remove_dir_all(world.target("site").join("releases").join(release)).unwrap();
    }
    world.push(&[("deploy.sh", world.script("exit 3"))], "bad");
    world.poll(&[]).expect(1);
    world.expect_live("site", &first);
    world.poll(&[]).expect(1);
    world.poll(&[]).expect(0).silent();
    world.expect_live("site", &first);
}

#[test]
fn another_folder_of_the_repository_in_place_replaces_the_first_one() {
    let world = World::new("subdir changes");
    let app = |folder: &str| {
        world.app("site").in_place().source(&format!("subdir = \"{folder}\"")).without("deploy.script").write();
    };
    app("one");
    world.push(&[("one/a", file("a\n")), ("two/c", file("c\n"))], "both");
    world.poll(&[]).expect(0);
    assert!(world.target("site").join("a").exists());
    app("two");
    world.push(&[("other", file("x\n"))], "elsewhere");
    world.poll(&[]).expect(0);
    assert!(world.target("site").join("c").exists(), "the new folder is published");
    assert!(!world.target("site").join("a").exists(), "the old one is gone");
}

#[test]
fn another_target_directory_gets_all_of_the_tree() {
    let world = World::new("directory changes");
    world.app("site").in_place().without("deploy.script").write();
    world.push(&[("a", file("a\n")), ("b", file("b\n"))], "first");
    world.poll(&[]).expect(0);
    let moved = world.path("target/moved");
    fs::create_dir(&moved).unwrap();
    let owner = fs::metadata(world.target("site")).unwrap();
    use std::os::unix::fs::{MetadataExt, chown};
    chown(&moved, Some(owner.uid()), Some(owner.gid())).unwrap();
    world
        .app("site")
        .in_place()
        .target(&format!("directory = \"{}\"", moved.display()))
        .without("deploy.script")
        .write();
    world.push(&[("b", file("new b\n"))], "second");
    world.poll(&[]).expect(0);
    assert_eq!(fs::read_to_string(moved.join("a")).unwrap(), "a\n");
    assert_eq!(fs::read_to_string(moved.join("b")).unwrap(), "new b\n");
}

#[test]
fn a_failed_commit_that_was_kept_gives_way_when_the_branch_goes_back() {
    let world = World::new("kept");
    world.app("site").deploy("on_failure = \"keep\"\nretries = 1\nbuild = \"./build.sh\"").write();
    world.repo.commit(&[("build.sh", exec("#!/bin/sh\nexit 0\n"))], "build");
    let first = world.deployed_as_configured();
    let kept = world.push(&[("deploy.sh", world.script("exit 3"))], "bad script");
    world.poll(&[]).expect(1);
    world.expect_live("site", &kept);
    world.push(&[("build.sh", exec("#!/bin/sh\nexit 4\n"))], "bad build");
    world.poll(&[]).expect(1);
    world.repo.rewind_to(&first);
    world.repo.force_push();
    world.poll(&[]).expect(0);
    world.expect_live("site", &first);
}

#[test]
fn a_folder_of_the_name_that_poller_writes_itself_is_left_out() {
    let world = World::new("revision");
    world.app("site").without("deploy.script").write();
    let commit = world.push(&[("REVISION/x", file("x\n")), ("a", file("a\n"))], "revision");
    world.poll(&[]).expect(0);
    let revision = fs::read_to_string(world.target("site").join("current/REVISION")).unwrap();
    assert_eq!(revision.trim(), commit);
    assert!(!world.events("deploy.warning").is_empty());
}

#[test]
fn a_child_with_a_name_that_is_no_text_is_found_all_the_same() {
    let world = World::new("odd name");
    world.deployed();
    let script = "name=$(printf '\\377'); cp /bin/sleep \"./$name\"; setsid \"./$name\" 300 & sleep 0.3";
    world.push(&[("deploy.sh", world.script(script))], "odd");
    world.poll(&[]).expect(1);
    world.expect_no_processes();
}

#[test]
fn what_a_killed_deploy_left_live_is_taken_back_though_no_server_answers() {
    for layout in ["releases", "in-place"] {
        let mut world = World::new("taken back");
        world.app("site").target(&format!("layout = \"{layout}\"")).write();
        let first = world.deployed_as_configured();
        killed_in_its_script(&world, vec![("index.html", file("killed\n")), ("only-b", file("b\n"))]);
        world.sshd.stop();
        world.poll(&[]).expect(69).says(&format!("live: {} again", &first[..10]));
        world.expect_live("site", &first);
        assert!(!world.live_folder("site").join("only-b").exists());
        assert_eq!(world.history("site").last().unwrap(), "deploy interrupted");
        world.poll(&[]).expect(69).silent();
        world.sshd.restart();
        let good = world.push(&[("deploy.sh", world.script(""))], "good");
        world.poll(&[]).expect(0).within(seconds(60));
        world.expect_live("site", &good);
        assert_eq!(world.recorded("site"), Some(good));
    }
}

#[test]
fn what_a_killed_deploy_left_live_is_taken_back_when_the_next_commit_is_refused() {
    let world = World::new("taken back refused");
    let root = world.deployed();
    let first = world.push(&[("index.html", file("one\n"))], "first");
    world.poll(&[]).expect(0);
    killed_in_its_script(&world, vec![("index.html", file("killed\n"))]);
    world.repo.rewind_to(&root);
    world.repo.commit(&[("index.html", file("rewritten\n"))], "other");
    world.repo.force_push();
    world.poll(&[]).expect(77).says(&format!("live: {} again", &first[..10]));
    world.expect_live("site", &first);
    world.poll(&[]).expect(77).silent();
    world.expect_live("site", &first);
}

#[test]
fn a_former_release_that_is_written_anew_is_built_before_it_is_live() {
    let world = World::new("built anew");
    world.app("site").deploy("build = \"./build.sh\"\nretries = 2").write();
    world.repo.commit(&[("build.sh", exec("#!/bin/sh\necho built > made\n"))], "build");
    let first = world.deployed_as_configured();
    for release in world.releases("site") {
        fs::remove_dir_all(world.target("site").join("releases").join(release)).unwrap();
    }
    world.push(&[("deploy.sh", world.script("exit 3")), ("build.sh", exec("#!/bin/sh\nexit 0\n"))], "bad");
    world.poll(&[]).expect(1).says(&format!("live: {} again", &first[..10]));
    assert_eq!(world.revision("site"), Some(first));
    assert_eq!(world.live_text("site", "made").as_deref(), Some("built\n"));
}

#[test]
fn not_now_does_not_hide_that_the_former_release_could_not_be_put_back() {
    let world = World::new("not now and gone");
    let broken = world.notes("broken");
    world.app("site").deploy("build = \"./build.sh\"").write();
    let build = exec(format!("#!/bin/sh\n! test -e '{}'\n", broken.display()));
    world.repo.commit(&[("build.sh", build)], "build");
    let first = world.deployed_as_configured();
    let script = world.script(&format!("touch '{}'; rm -rf ../*-{first}; exit 75", broken.display()));
    world.push(&[("deploy.sh", script)], "second");
    world.poll(&[]).expect(1).says("WHAT WAS LIVE COULD NOT BE PUT BACK");
}

#[test]
fn units_are_restarted_though_the_former_release_s_script_fails() {
    let world = World::new("units anyway");
    world.app("site").write();
    let flag = world.notes("fails");
    world.push(&[("deploy.sh", world.script(&format!("! test -e '{}'", flag.display())))], "first");
    world.poll(&[]).expect(0);
    world.app("site").deploy("restart = [\"no-such-unit.service\"]").write();
    fs::write(&flag, "").unwrap();
    world.push(&[("index.html", file("bad\n"))], "bad");
    world.poll(&[]).expect(1).says("the former release's script").says("systemctl restart no-such-unit.service");
    let started = world.events("command.started");
    assert!(started.last().unwrap()["msg"].as_str().unwrap().contains("restart no-such-unit.service"), "{started:?}");
}
