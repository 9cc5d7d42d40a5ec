//! An installation that has deployed for years: its repository holds what is needed, in few files, and
//! tending it may be killed like anything else.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::repo::{Content, git};
use crate::support::{World, file, seconds, sh, wait_until};

/// Loose objects and packs.
fn files(world: &World) -> (usize, usize) {
    let bare = world.repositories().remove(0);
    let names = |folder: &Path| -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    let objects = bare.join("objects");
    let folders = names(&objects).into_iter().filter(|name| name.len() == 2);
    let loose = folders.map(|name| names(&objects.join(name)).len()).sum();
    (loose, names(&objects.join("pack")).iter().filter(|name| name.ends_with(".idx")).count())
}

#[test]
fn a_hundred_deploys_leave_a_bounded_journal_and_few_files() {
    let world = World::new("age");
    world.write_host_config("history = 30");
    world.deployed();
    let mut newest = String::new();
    let mut most = (0, 0);
    for round in 0..100 {
        newest = world.push(&[("index.html", file(format!("{round}\n")))], &format!("round {round}"));
        world.poll(&[]).expect(0).silent();
        let now = files(&world);
        most = (most.0.max(now.0), most.1.max(now.1));
    }
    assert!(most.0 <= 400 && most.1 <= 13, "at most {} loose objects and {} packs", most.0, most.1);
    let entries = world.history("site").len();
    // A quarter more, and what comes between two times of tending.
    assert!((30..=85).contains(&entries), "{entries} entries");
    assert!(world.events("repository.tended").len() >= 3);
    assert!(world.events("repository.untended").is_empty());
    let bare = world.repositories().remove(0);
    git(&bare, &["fsck", "--strict", "--full"]);
    world.expect_live("site", &newest);
    world.expect_no_leftovers("site");
    // What it is all kept for.
    world.poll(&["history", "site"]).expect(0);
    world.poll(&["check"]).expect(0);
    world.poll(&["rollback", "site", "--reason", "years"]).expect(0);
    let before = world.repo.id_of("HEAD~1");
    assert_eq!(world.revision("site").as_deref(), Some(before.as_str()));
}

/// libgit2 tells a server the newest 256 commits that are here: all of them are entries then, and no server
/// has those.
#[test]
fn after_hundreds_of_entries_a_fetch_brings_only_what_is_new() {
    let world = World::new("entries");
    let names: Vec<String> = (0..60).map(|n| format!("file-{n}")).collect();
    let many: Vec<(&str, Content)> = names.iter().map(|name| (name.as_str(), file(name))).collect();
    world.push(&many, "many files");
    let deployed = world.deployed();
    let bare = world.repositories().remove(0);
    let mut entry = world.journal_tip("site").expect("a journal");
    let tree = git(&bare, &["rev-parse", &format!("{entry}^{{tree}}")]);
    for _ in 0..300 {
        entry = git(&bare, &["commit-tree", tree.trim(), "-p", entry.trim(), "-p", &deployed, "-m", "site: note"]);
    }
    git(&bare, &["update-ref", "refs/poller/site", entry.trim()]);
    sh("chown", &["-R", &world.fetcher.name, bare.to_str().unwrap()]);
    let packs = || -> BTreeSet<PathBuf> {
        let all = fs::read_dir(bare.join("objects/pack")).unwrap().map(|entry| entry.unwrap().path());
        all.filter(|path| path.extension().is_some_and(|extension| extension == "idx")).collect()
    };
    let before = packs();
    let mut newest = String::new();
    for dry in [true, false] {
        newest = world.push(&[("index.html", file(format!("dry: {dry}\n")))], "one file more");
        world.poll(if dry { &["--dry-run"] } else { &[] }).expect(0);
    }
    // The entries are in a pack of their own by now.
    let after = packs();
    let contents = after.difference(&before).map(|pack| git(&bare, &["verify-pack", "-v", pack.to_str().unwrap()]));
    let fetched: Vec<String> = contents.filter(|objects| objects.contains(&newest)).collect();
    let files = fetched.concat().lines().filter(|line| line.contains(" blob ")).count();
    assert!((1..=6).contains(&files), "{files} files for two that are new");
}

#[test]
fn a_journal_that_cannot_be_read_keeps_its_neighbours_objects_and_stops_no_deploy() {
    let world = World::new("neighbours");
    world.app("shop").write();
    world.deployed();
    let bare = world.repositories().remove(0);
    world.poll(&[]).expect(0);
    fs::write(bare.join("refs/poller/shop"), "rubbish\n").unwrap();
    let mut newest = String::new();
    for round in 0..25 {
        newest = world.push(&[("index.html", file(format!("{round}\n")))], "round");
        world.poll(&["site"]).expect(0);
    }
    world.expect_live("site", &newest);
    assert!(!world.events("repository.untended").is_empty());
    assert!(files(&world).0 > 200, "nothing was removed");
}

/// The app's folders as they are, to be tried on again and again.
fn copy(world: &World, from: &str, to: &str) {
    sh("rm", &["-rf", world.path(to).to_str().unwrap()]);
    sh("cp", &["-a", world.path(from).to_str().unwrap(), world.path(to).to_str().unwrap()]);
}

/// A poll under strace, in which each process dies of its `number`th such call; none does of the zeroth.
/// Returns the most calls that a process made.
fn traced(world: &World, calls: &str, number: usize) -> usize {
    let trace = world.path("trace");
    let plain = world.command(&[]);
    let mut traced = std::process::Command::new("/usr/bin/strace");
    traced.args(["-f", "-q", "-o"]).arg(&trace).args(["-e", &format!("trace={calls}")]);
    if number > 0 {
        traced.args(["-e", &format!("inject={calls}:signal=SIGKILL:when={number}")]);
    }
    traced.arg(plain.get_program()).args(plain.get_args());
    traced.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", "/root");
    world.spawn(traced).wait();
    let mut counts = std::collections::HashMap::<String, usize>::new();
    for line in String::from_utf8_lossy(&fs::read(&trace).unwrap()).lines().filter(|line| line.contains('(')) {
        *counts.entry(line.split(' ').next().unwrap_or_default().to_owned()).or_default() += 1;
    }
    counts.into_values().max().unwrap_or(0)
}

#[test]
fn tending_may_be_killed_anywhere() {
    needs_root!();
    needs_program!("strace");
    let world = World::new("tending");
    world.write_host_config("history = 8");
    world.deployed();
    for round in 0..9 {
        world.push(&[("index.html", file(format!("{round}\n")))], "round");
        world.poll(&[]).expect(0);
    }
    // The next deploy is the one that tends.
    let new = world.push(&[("index.html", file("newest\n"))], "newest");
    copy(&world, "var", "var.before");
    copy(&world, "target", "target.before");
    for calls in ["unlink", "rename", "fsync", "mkdir"] {
        let anew = || {
            copy(&world, "var.before", "var");
            copy(&world, "target.before", "target");
        };
        anew();
        let count = traced(&world, calls, 0);
        assert_eq!(world.events("repository.tended").len(), 1, "this is the one");
        // The fetcher that tends makes the most of them, and tending is what it does.
        let step = count.div_ceil(6).max(1);
        for number in (1..=count).rev().step_by(step) {
            anew();
            traced(&world, calls, number);
            wait_until("a good end", seconds(30), || world.poll(&[]).expect_one_of(&[0, 75]).code == 0);
            world.expect_live("site", &new);
            assert_eq!(world.recorded("site").as_deref(), Some(new.as_str()), "{calls} {number}");
            git(&world.repositories().remove(0), &["fsck", "--strict", "--full"]);
            world.expect_no_leftovers("site");
            // The next time it is tended, all is as if it had never died.
            let after = world.push(&[("index.html", file(format!("{calls} {number}\n")))], "after");
            world.poll(&[]).expect(0);
            world.expect_live("site", &after);
            world.expect_no_leftovers("site");
            world.repo.rewind_to("HEAD~1");
            world.repo.force_push();
        }
    }
}
