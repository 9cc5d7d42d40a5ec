//! What persons change: cut short, repeated, or met by a target that is not what it was.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use crate::support::run::Outcome;
use crate::support::{World, file, link, seconds, wait_until};

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
        world.poll(&[]).expect(77).says("is not empty").says("poller adopt site");
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

/// The branch at a commit that it was at before.
fn put_back(world: &World, commit: &str) {
    world.repo.rewind_to(commit);
    world.repo.force_push();
}

/// The same program, some time later.
fn poll_later(world: &World, shift: &str) -> Outcome {
    let poll = world.command(&[]);
    let mut later = Command::new("faketime");
    later.arg("-f").arg(shift).arg(poll.get_program()).args(poll.get_args()).current_dir("/");
    world.spawn(later).wait()
}

#[test]
fn a_tip_that_went_away_and_came_back_has_to_stand_anew() {
    needs_program!("faketime");
    let world = World::new("soak away");
    let first = world.deployed();
    world.app("site").source("soak = \"1h\"").write();
    let second = world.push(&[("index.html", file("two\n"))], "second");
    world.poll(&[]).expect(0).silent();
    put_back(&world, &first);
    world.poll(&[]).expect(0).silent();
    let tip = world.journal_tip("site");
    world.poll(&[]).expect(0).silent();
    assert_eq!(world.journal_tip("site"), tip, "noted once");
    put_back(&world, &second);
    poll_later(&world, "+2h").expect(0).silent();
    world.expect_live("site", &first);
    poll_later(&world, "+4h").expect(0).silent();
    world.expect_live("site", &second);
}

#[test]
fn a_tip_that_gave_way_to_a_refused_one_has_to_stand_anew() {
    needs_program!("faketime");
    let world = World::new("soak refused");
    let first = world.deployed();
    world.app("site").source("soak = \"1h\"").write();
    let refused = world.push(&[("out", link("../../../../etc/passwd"))], "leads out");
    world.poll(&[]).expect(0).silent();
    poll_later(&world, "+2h").expect(77);
    put_back(&world, &first);
    let second = world.push(&[("index.html", file("two\n"))], "second");
    world.poll(&[]).expect(0);
    put_back(&world, &refused);
    world.poll(&[]).expect(77);
    put_back(&world, &second);
    poll_later(&world, "+2h").expect(0);
    world.expect_live("site", &first);
    poll_later(&world, "+4h").expect(0);
    world.expect_live("site", &second);
}

#[test]
fn what_was_published_in_place_comes_back_as_a_release_in_a_new_directory() {
    let world = World::new("moved and changed");
    world.app("site").in_place().write();
    let first = world.deployed_as_configured();
    write_elsewhere(&world, "releases", "");
    world.push(&[("deploy.sh", world.script("[ $POLLER_REASON = rollback ]"))], "bad");
    world.poll(&[]).expect(1).says(&format!("live: {} again", &first[..10]));
    world.expect_live("other", &first);
}

#[test]
fn what_is_left_alone_is_not_written_down_again_and_again() {
    let world = World::new("steady");
    let steady = |what: &str| {
        world.poll(&[]);
        let tip = world.journal_tip("site");
        for _ in 0..5 {
            world.poll(&[]);
        }
        assert_eq!(world.journal_tip("site"), tip, "{what}: {:?}", world.history("site"));
    };
    world.app("site").source("paths = [\"*.html\", \"deploy.sh\"]").deploy("retries = 1").write();
    let first = world.deployed_as_configured();
    steady("unchanged");
    world.push(&[("other", file("x"))], "of no interest");
    steady("skipped");
    let bad = world.push(&[("deploy.sh", world.script("[ $POLLER_REASON = rollback ]"))], "bad");
    steady("broken");
    world.app("site").source("soak = \"1h\"").deploy("retries = 1").write();
    world.push(&[("index.html", file("two\n"))], "second");
    steady("soaking");
    world.poll(&["freeze", "site", "--reason", "x"]).expect(0);
    steady("frozen");
    put_back(&world, &bad);
    steady("frozen, and another tip");
    world.poll(&["unfreeze", "site"]).expect(0);
    steady("broken again");
    world.app("site").write();
    world.repo.rewind_to(&first);
    world.repo.commit(&[("a", link("/etc/passwd"))], "evil");
    world.repo.force_push();
    steady("refused");
    world.sshd.stop_listening();
    steady("unreachable");
    world.expect_live("site", &first);
}

#[test]
fn a_broken_commit_whose_retry_is_killed_does_not_stay_live() {
    for layout in LAYOUTS {
        let world = World::new("broken killed");
        world.app("site").deploy("retries = 1").target(&format!("layout = \"{layout}\"")).write();
        let first = world.deployed_as_configured();
        let gate = world.notes("gate");
        let wait = format!("while [ -e '{}' ]; do sleep 0.1; done; [ $POLLER_REASON = rollback ]", gate.display());
        world.push(&[("deploy.sh", world.script(&wait))], "bad");
        world.poll(&[]).expect(1);
        kill_while_its_script_runs(&world, &["retry", "site"]);
        world.poll(&[]).expect(1);
        world.expect_live("site", &first);
        world.poll(&[]).expect(0).silent();
        assert!(world.journal("site")[0].state.get("started").is_none());
        world.poll(&["retry", "site"]).expect(1).says("attempt 3, asked for by hand");
    }
}

#[test]
fn not_now_says_when_it_is_tried_again() {
    let world = World::new("not now when");
    world.app("site").deploy("retries = 1").write();
    world.deployed_as_configured();
    let code = world.notes("code");
    world.push(&[("deploy.sh", world.script(&format!("exit $(cat '{}')", code.display())))], "bad");
    fs::write(&code, "75").unwrap();
    world.poll_on_terminal(&[]).expect(0).says("tried again at the next poll");
    fs::write(&code, "1").unwrap();
    world.poll(&[]).expect(1);
    fs::write(&code, "75").unwrap();
    world.poll_on_terminal(&["retry", "site"]).expect(0).says("not tried again by itself: poller retry site");
    let ran = world.ran().len();
    world.poll(&[]).expect(0).silent();
    assert_eq!(world.ran().len(), ran);
}

#[test]
fn a_failed_rollback_that_is_kept_stays_until_it_is_unfrozen() {
    let world = World::new("rollback kept");
    world.app("site").deploy("on_failure = \"keep\"").write();
    let script = world.script("[ \"$POLLER_REASON\" != rollback ]");
    let first = world.push(&[("deploy.sh", script), ("index.html", file("one\n"))], "first");
    world.poll(&[]).expect(0);
    let second = world.push(&[("index.html", file("two\n"))], "second");
    world.poll(&[]).expect(0);
    world.poll(&["rollback", "site"]).expect(1).says("stays live").says("until: poller unfreeze site");
    world.poll(&[]).expect(0).silent();
    world.expect_live("site", &first);
    world.poll(&["unfreeze", "site"]).expect(0);
    world.poll(&[]).expect(0).silent();
    world.expect_live("site", &second);
}

#[test]
fn a_pipe_in_place_of_revision_keeps_no_adoption_waiting() {
    let world = World::new("adopt pipe");
    world.app("site").in_place().write();
    world.push(&[("deploy.sh", world.script(""))], "first");
    let revision = world.target("site").join("REVISION");
    crate::support::sh("mkfifo", &[revision.to_str().unwrap()]);
    world.deployer.own(&revision);
    world.poll(&["adopt", "site"]).expect(64).says("poller adopt site COMMIT").within(seconds(20));
}

#[test]
fn a_current_that_leads_out_of_releases_is_no_release_to_adopt() {
    let world = World::new("adopt elsewhere");
    world.app("site").write();
    let first = world.push(&[("deploy.sh", world.script(""))], "first");
    let (elsewhere, target) = (world.path("www/release"), world.target("site"));
    fs::create_dir_all(&elsewhere).unwrap();
    fs::write(elsewhere.join("REVISION"), &first).unwrap();
    let point = |to: &std::path::Path| {
        let _ = fs::remove_file(target.join("current"));
        symlink(to, target.join("current")).unwrap();
    };
    for wrong in [elsewhere.clone(), "releases/gone".into(), "../../www/release".into()] {
        point(&wrong);
        world.poll(&["adopt", "site", &first]).expect(64).says("no link `current` that leads into `releases`");
    }
    assert_eq!(world.journal_tip("site"), None);
    // One that another tool made there, by its whole path, is one.
    fs::create_dir(target.join("releases")).unwrap();
    fs::rename(&elsewhere, target.join("releases/20240101")).unwrap();
    crate::support::sh("chown", &["-Rh", &world.deployer.name, target.to_str().unwrap()]);
    point(&target.join("releases/20240101"));
    world.poll(&["adopt", "site"]).expect(0).prints("is taken for deployed");
}

#[test]
fn a_rollback_does_not_make_another_ones_freeze_forgotten() {
    let world = World::new("rollback frozen");
    let first = world.deployed();
    world.push(&[("index.html", file("two\n"))], "second");
    world.poll(&[]).expect(0);
    world.poll(&["freeze", "site", "--reason", "audit until friday"]).expect(0);
    world.poll(&["rollback", "site", "--reason", "orders"]).expect(0);
    world.expect_live("site", &first);
    world.poll(&["unfreeze", "site"]).expect(0).prints("orders").prints("audit until friday");
}

#[test]
fn an_entry_of_the_journal_is_no_commit_to_adopt_and_a_frozen_app_stays_frozen() {
    let world = World::new("adopt entry");
    world.app("site").in_place().write();
    let first = world.push(&[("deploy.sh", world.script(""))], "first");
    world.push(&[("index.html", file("two\n"))], "second");
    fs::write(world.target("site").join("REVISION"), &first).unwrap();
    world.poll(&["freeze", "site", "--reason", "moving"]).expect(0);
    let entry = world.journal_tip("site").unwrap();
    world.poll(&["adopt", "site", &entry]).expect(64).says("no commit");
    world.poll(&["adopt", "site"]).expect(0).prints("it is frozen");
    world.poll(&[]).expect(0).silent();
    assert_eq!(world.recorded("site"), Some(first));
}

/// The calls that change something, or that begin something. Those with `?` are not on every machine.
const POINTS: [&str; 6] =
    ["?rename,?renameat,renameat2", "?unlink,unlinkat", "?symlink,symlinkat", "fsync", "syncfs", "setsid"];

/// A command under strace in which each process dies of its `number`th such call. Whether any did.
fn dies_at(world: &World, args: &[&str], calls: &str, number: usize) -> bool {
    let trace = world.path("trace");
    let plain = world.command(args);
    let mut traced = Command::new("/usr/bin/strace");
    traced.args(["-f", "-q", "-o"]).arg(&trace);
    traced.args(["-e", &format!("trace={calls}")]);
    traced.args(["-e", &format!("inject={calls}:signal=SIGKILL:when={number}")]);
    traced.arg(plain.get_program()).args(plain.get_args());
    traced.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", "/root");
    world.spawn(traced).wait();
    String::from_utf8_lossy(&fs::read(&trace).unwrap()).contains("killed by SIGKILL")
}

/// Whatever a kill left, one poll is enough: back and frozen, or as if nobody had asked.
fn a_rollback_that_dies_anywhere(layout: &str, keep: usize) {
    let world = World::new("rollback dies");
    world.app("site").target(&format!("layout = \"{layout}\"\nkeep = {keep}")).write();
    let first = world.deployed_as_configured();
    world.push(&[("two", file("x"))], "second");
    world.poll(&[]).expect(0);
    let third = world.push(&[("index.html", file("three\n")), ("gone/sub.html", file("x"))], "third");
    world.poll(&[]).expect(0);
    let mut carried = 0;
    for (calls, number) in POINTS.into_iter().flat_map(|calls| (1..4).map(move |number| (calls, number))) {
        if !dies_at(&world, &["rollback", "site", &first], calls, number) {
            world.poll(&["unfreeze", "site"]).expect(0);
            world.poll(&[]).expect(0);
            continue;
        }
        let what = format!("{calls} number {number}");
        // What a killed run left running may hold the lock for a moment.
        wait_until(&what, seconds(30), || world.poll(&[]).expect_one_of(&[0, 75]).code == 0);
        let state = world.journal("site")[0].state.clone();
        let live = world.revision("site").unwrap();
        assert_eq!(world.recorded("site").as_ref(), Some(&live), "{what}");
        assert!(state.get("started").is_none() && (live == first || live == third), "{what}: {state:?}");
        assert_eq!(state.get("frozen").is_some(), live == first, "{what}: {state:?}");
        if live == first {
            carried += 1;
            world.expect_no_leftovers("site");
            world.expect_live("site", &first);
            world.poll(&["unfreeze", "site"]).expect(0);
        }
        // Deployed anew, with whatever lies about.
        world.poll(&["--force", "site"]).expect(0);
        world.expect_live("site", &third);
        world.expect_no_leftovers("site");
    }
    assert!(carried > 3, "only {carried} came so far");
}

#[test]
fn a_rollback_to_a_kept_release_may_die_anywhere() {
    needs_root!();
    needs_program!("strace");
    a_rollback_that_dies_anywhere("releases", 9);
}

#[test]
fn a_rollback_to_a_retired_release_may_die_anywhere() {
    needs_root!();
    needs_program!("strace");
    a_rollback_that_dies_anywhere("releases", 1);
}

#[test]
fn a_rollback_in_place_may_die_anywhere() {
    needs_root!();
    needs_program!("strace");
    a_rollback_that_dies_anywhere("in-place", 9);
}
