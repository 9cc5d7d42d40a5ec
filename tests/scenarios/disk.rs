//! No room: on each file system that poller writes to, bytes or inodes. 74, nothing changed, and the next
//! run comes to a good end once there is room.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;

use crate::support::{Content, World, file};

fn noise(bytes: usize) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    fs::File::open("/dev/urandom").unwrap().read_exact(&mut noise).unwrap();
    noise
}

/// Takes what room there is.
fn fill(folder: &Path) {
    let mut file = fs::File::create(folder.join("filler")).unwrap();
    for size in [65536, 4096, 1] {
        while file.write_all(&noise(size)).is_ok() {}
    }
}

/// Ends the log at the end of a page, so that not even a short line has room beyond it.
fn fill_last_page(log: &Path) {
    let length = fs::metadata(log).unwrap().len() as usize;
    let empty = "{\"event\":\"test.padding\",\"msg\":\"\"}\n".len();
    let wanted = 2 * 4096 - length % 4096;
    let line = format!("{{\"event\":\"test.padding\",\"msg\":\"{}\"}}\n", "x".repeat(wanted - empty));
    fs::OpenOptions::new().append(true).open(log).unwrap().write_all(line.as_bytes()).unwrap();
}

fn many_files(count: usize) -> Vec<(String, Content)> {
    (0..count).map(|n| (format!("many/{n}"), file(format!("{n}\n")))).collect()
}

fn push_many(world: &World, count: usize) -> String {
    let files = many_files(count);
    for (name, content) in &files {
        crate::support::repo::put(&world.repo.work.join(name), content);
    }
    world.push(&[], "many files")
}

/// What is live and recorded did not change, and after `make_room` the push is deployed.
#[track_caller]
fn expect_74_and_recovery(world: &World, first: &str, second: &str, make_room: impl Fn()) {
    world.poll(&[]).expect(74);
    // The same again, whatever else it says: how much is free, or the name of a temporary file.
    world.poll(&[]).expect(74).silent();
    world.expect_live("site", first);
    assert_eq!(world.recorded("site").as_deref(), Some(first));
    assert_eq!(world.ran().len(), 1);
    world.expect_no_processes();
    make_room();
    world.poll(&[]).expect(0);
    world.expect_live("site", second);
    world.expect_no_leftovers("site");
}

#[test]
fn the_repositories_disk_is_full_while_fetching() {
    needs_root!();
    let world = World::new("state full");
    world.mount_tmpfs(&world.state(), "size=2m", Some(&world.fetcher));
    let first = world.deployed();
    let second = world.push(&[("noise", file(noise(3_000_000)))], "big");
    expect_74_and_recovery(&world, &first, &second, || world.remount(&world.state(), "size=40m"));
}

#[test]
fn the_repositories_inodes_are_used_up() {
    needs_root!();
    let world = World::new("state inodes");
    world.mount_tmpfs(&world.state(), "size=20m,nr_inodes=2000", Some(&world.fetcher));
    let first = world.deployed();
    let second = world.push(&[("index.html", file("two\n"))], "second");
    let used = || {
        let mut n = 0;
        while fs::File::create(world.state().join(format!("filler{n}"))).is_ok() {
            n += 1;
        }
    };
    used();
    expect_74_and_recovery(&world, &first, &second, || world.remount(&world.state(), "size=20m,nr_inodes=9000"));
}

#[test]
fn the_targets_disk_is_full_while_staging() {
    needs_root!();
    for layout in ["releases", "in-place"] {
        let world = World::new("target full");
        world.mount_tmpfs(&world.target("site"), "size=1m", Some(&world.deployer));
        world.app("site").target(&format!("layout = \"{layout}\"")).write();
        let first = world.deployed_as_configured();
        let second = world.push(&[("noise", file(noise(3_000_000))), ("a-first", file("x"))], "big");
        expect_74_and_recovery(&world, &first, &second, || world.remount(&world.target("site"), "size=40m"));
    }
}

#[test]
fn the_targets_inodes_are_used_up() {
    needs_root!();
    for layout in ["releases", "in-place"] {
        let world = World::new("target inodes");
        world.mount_tmpfs(&world.target("site"), "size=20m,nr_inodes=60", Some(&world.deployer));
        world.app("site").target(&format!("layout = \"{layout}\"")).write();
        let first = world.deployed_as_configured();
        let second = push_many(&world, 200);
        let room = || world.remount(&world.target("site"), "size=20m,nr_inodes=5000");
        expect_74_and_recovery(&world, &first, &second, room);
    }
}

#[test]
fn the_logs_disk_is_full() {
    needs_root!();
    let world = World::new("log full");
    let folder = world.log_file().parent().unwrap().to_owned();
    world.mount_tmpfs(&folder, "size=256k,mode=0755", None);
    let first = world.deployed();
    let second = world.push(&[("index.html", file("two\n"))], "second");
    fill_last_page(&world.log_file());
    let kept = fs::read(world.log_file()).unwrap();
    fill(&folder);
    let outcome = world.poll(&[]).expect(74);
    assert!(!outcome.stderr.is_empty());
    world.expect_live("site", &first);
    fs::remove_file(folder.join("filler")).unwrap();
    assert!(fs::read(world.log_file()).unwrap().starts_with(&kept));
    world.poll(&[]).expect(0);
    world.expect_live("site", &second);
}

#[test]
fn the_repositories_disk_is_full_when_the_outcome_is_to_be_recorded() {
    needs_root!();
    let world = World::new("record full");
    world.mount_tmpfs(&world.state(), "size=2m", Some(&world.fetcher));
    let first = world.deployed();
    let flag = world.notes("full");
    let script =
        format!("n=0; while ! test -e '{}' && test $n -lt 200; do n=$((n+1)); sleep 0.1; done", flag.display());
    let second = world.push(&[("deploy.sh", world.script(&script))], "slow");
    let running = world.spawn_poll(&[]);
    world.wait_for_script("deploy.sh");
    fill(&world.state());
    fs::write(&flag, "").unwrap();
    running.wait().expect(74).says("could not be recorded").says("make room");
    world.expect_no_processes();
    world.expect_live("site", &first);
    fs::remove_file(world.state().join("filler")).unwrap();
    world.poll(&[]).expect(0);
    world.expect_live("site", &second);
    assert_eq!(world.recorded("site"), Some(second));
    let history = world.history("site");
    assert!(history.iter().filter(|entry| entry.ends_with(" started")).count() >= 2, "{history:?}");
    world.expect_no_leftovers("site");
}

#[test]
fn the_run_folders_disk_is_full() {
    needs_root!();
    let world = World::new("run full");
    world.mount_tmpfs(&world.run_dir(), "size=64k,mode=0755", None);
    let first = world.deployed();
    world.push(&[("index.html", file("two\n"))], "second");
    fill(&world.run_dir());
    // A lock that cannot name its holder is still a lock; either way is sound.
    let outcome = world.poll(&[]).expect_one_of(&[0, 74]);
    if outcome.code == 74 {
        world.expect_live("site", &first);
    }
    fs::remove_file(world.run_dir().join("filler")).unwrap();
    world.poll(&[]).expect(0);
}

#[test]
fn a_target_that_became_read_only() {
    needs_root!();
    let world = World::new("read only");
    world.mount_tmpfs(&world.target("site"), "size=10m", Some(&world.deployer));
    let first = world.deployed();
    let second = world.push(&[("index.html", file("two\n"))], "second");
    world.remount(&world.target("site"), "ro");
    expect_74_and_recovery(&world, &first, &second, || world.remount(&world.target("site"), "rw"));
}
