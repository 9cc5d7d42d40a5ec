//! What persons change: cut short, repeated, or met by a target that is not what it was.

use std::fs;
use std::os::unix::fs::symlink;

use crate::support::{World, file, seconds, wait_until};

/// Scripts that note themselves and then wait as long as there is a note `gate`.
fn gated(world: &World) -> String {
    format!(
        "script = ['sh', '-c', 'echo \"$POLLER_REASON $POLLER_COMMIT\" >> {}; while [ -e {} ]; do sleep 0.1; done']",
        world.notes("ran").display(),
        world.notes("gate").display()
    )
}

/// For apps whose script is [`gated`].
fn kill_while_its_script_runs(world: &World, args: &[&str]) {
    fs::write(world.notes("gate"), "").unwrap();
    let before = world.ran().len();
    let running = world.spawn_poll(args);
    wait_until("its script runs", seconds(20), || world.ran().len() > before);
    running.kill_supervisor();
    fs::remove_file(world.notes("gate")).unwrap();
}

const LAYOUTS: [&str; 2] = ["releases", "in-place"];

/// The same app with another target directory, which is there and empty.
fn write_elsewhere(world: &World, layout: &str, deploy: &str) {
    let other = world.target("other");
    fs::create_dir_all(&other).unwrap();
    crate::support::sh("chown", &["-Rh", &world.deployer.name, other.to_str().unwrap()]);
    let target = format!("directory = \"{}\"\nlayout = \"{layout}\"", other.display());
    world.app("site").target(&target).deploy(deploy).write_file_only();
}

#[test]
fn a_deploy_that_fails_in_a_new_directory_is_tried_again_there() {
    for (layout, policy) in LAYOUTS.into_iter().flat_map(|l| ["rollback", "keep"].map(|p| (l, p))) {
        let world = World::new("moved");
        let policy = format!("on_failure = \"{policy}\"");
        world.app("site").target(&format!("layout = \"{layout}\"")).deploy(&policy).write();
        world.deployed_as_configured();
        write_elsewhere(&world, layout, &policy);
        world.push(&[("deploy.sh", world.script("[ $POLLER_REASON = rollback ]"))], "bad");
        for _ in 0..2 {
            world.poll(&[]).expect(1);
        }
        let third = world.push(&[("deploy.sh", world.script("")), ("index.html", file("three\n"))], "good");
        world.poll(&[]).expect(0).silent();
        world.expect_live("other", &third);
        assert_eq!(world.recorded("site"), Some(third));
    }
}

#[test]
fn a_deploy_that_is_killed_in_a_new_directory_is_taken_up_again_there() {
    for layout in LAYOUTS {
        let world = World::new("moved killed");
        world.app("site").target(&format!("layout = \"{layout}\"")).write();
        world.repo.commit(&[("same.html", file("never changed\n"))], "same");
        world.deployed_as_configured();
        write_elsewhere(&world, layout, &gated(&world));
        let second = world.push(&[("index.html", file("two\n"))], "second");
        kill_while_its_script_runs(&world, &[]);
        if layout == "in-place" {
            // As if the kill had come between two renames.
            fs::remove_file(world.target("other/same.html")).unwrap();
        }
        world.poll(&[]).expect(0).silent();
        world.expect_live("other", &second);
    }
}

#[test]
fn after_a_first_deploy_that_failed_another_directory_must_be_empty_too() {
    for layout in LAYOUTS {
        let world = World::new("failed first");
        world.app("site").target(&format!("layout = \"{layout}\"")).write();
        world.push(&[("deploy.sh", world.script("exit 1")), ("index.html", file("one\n"))], "bad");
        world.poll(&[]).expect(1);
        let other = world.target("other");
        fs::create_dir(&other).unwrap();
        symlink("elsewhere", other.join("current")).unwrap();
        write_elsewhere(&world, layout, "");
        world.push(&[("deploy.sh", world.script(""))], "good");
        world.poll(&[]).expect(77).says("is not empty");
        assert_eq!(fs::read_link(other.join("current")).unwrap().to_str(), Some("elsewhere"));
    }
}

#[test]
fn the_same_rollback_again_after_a_kill_goes_where_the_first_one_went() {
    let world = World::new("rollback again");
    world.app("site").deploy(&gated(&world)).write();
    let first = world.push(&[("index.html", file("one\n"))], "first");
    world.poll(&[]).expect(0);
    let second = world.push(&[("index.html", file("two\n"))], "second");
    world.poll(&[]).expect(0);
    kill_while_its_script_runs(&world, &["rollback", "site"]);
    let again = world.poll(&["rollback", "site"]).expect(0);
    assert!(again.stdout.contains(&first[..10]), "{}", again.stdout);
    world.expect_live("site", &first);
    assert_ne!(first, second);
}

#[test]
fn a_killed_rollback_is_carried_through_with_the_folder_that_was_published_then() {
    let world = World::new("rollback subdir");
    world.app("site").deploy(&gated(&world)).source("subdir = \"old\"").write();
    world.push(&[("old/index.html", file("one\n"))], "first");
    world.poll(&[]).expect(0);
    let second = world.push(&[("new/index.html", file("two\n"))], "second");
    world.app("site").deploy(&gated(&world)).source("subdir = \"new\"").write();
    world.poll(&[]).expect(0);
    assert_eq!(world.revision("site"), Some(second));
    kill_while_its_script_runs(&world, &["rollback", "site"]);
    world.poll(&[]).expect(0).silent();
    assert_eq!(world.live_text("site", "index.html").as_deref(), Some("one\n"));
}
