//! Large files that did not change share their bytes with the release before, where the file system can; and
//! only those that are still what the commit says.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::mounts::{Cut, Disk, Kind};
use crate::support::{World, exec, file, set_mode, sh};

macro_rules! needs_disks {
    () => {
        needs_root!();
        needs_program!("xfs_io");
        needs_program!("filefrag");
    };
}

/// Above the size from which on files are cloned.
const LARGE: usize = 300_000;

fn noise() -> Vec<u8> {
    let mut noise = vec![0; LARGE];
    fs::File::open("/dev/urandom").unwrap().read_exact(&mut noise).unwrap();
    noise
}

/// A world whose target lies on a file system of its own. The first field goes first.
struct Scene {
    disk: Disk,
    world: World,
}

fn scene(name: &str, kind: Kind) -> Scene {
    let world = World::new(name);
    let disk = Disk::make(kind, &world.path("disk"), &world.path("target"));
    let scene = Scene { disk, world };
    scene.world.app("site").write();
    scene.world.deployer.own(&scene.world.path("target/site"));
    scene
}

impl Scene {
    fn live(&self, name: &str) -> PathBuf {
        self.world.live_folder("site").join(name)
    }

    /// Whether other files have its bytes too.
    fn is_shared(&self, name: &str) -> bool {
        sh("filefrag", &["-v", self.live(name).to_str().unwrap()]).contains("shared")
    }

    /// The newest line about it in the log.
    fn cloned(&self) -> i64 {
        self.world.events("stage.finished").last().unwrap()["cloned"].as_i64().unwrap()
    }
}

/// poller under strace, which writes to the file that is named first.
fn traced(world: &World, trace: &Path, what: &[&str]) -> Command {
    let plain = world.command(&[]);
    let mut traced = Command::new("/usr/bin/strace");
    traced.args(["-f", "-qq", "-o"]).arg(trace).args(what).arg(plain.get_program()).args(plain.get_args());
    traced.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", "/root").current_dir("/");
    traced
}

#[test]
fn large_files_that_did_not_change_take_no_room_twice() {
    needs_disks!();
    let scene = scene("clones", Kind::Xfs);
    let world = &scene.world;
    let (data, tool) = (noise(), noise());
    world.repo.commit(&[("a/data", file(&data)), ("tool", exec(&tool)), ("changes", file(noise()))], "large");
    world.deployed_as_configured();
    assert_eq!(scene.cloned(), 0);
    let second = world.push(&[("changes", file(noise())), ("new", file(noise()))], "second");
    world.poll(&[]).expect(0).silent();
    world.expect_live("site", &second);
    for (name, shared) in [("a/data", true), ("tool", true), ("changes", false), ("new", false), ("index.html", false)]
    {
        assert_eq!(scene.is_shared(name), shared, "{name}");
    }
    assert_eq!(scene.cloned(), 2);
    let line = world.events("stage.finished").pop().unwrap();
    assert_eq!(line["files"], 6, "a/data changes deploy.sh index.html new tool");

    // What is written to the one is not seen in the other.
    let before = world.target("site").join("releases").join(&world.releases("site")[0]).join("a/data");
    fs::File::options().write(true).open(&before).unwrap().write_all_at(b"mine", 0).unwrap();
    assert_eq!(fs::read(scene.live("a/data")).unwrap(), data);

    // The mode is the new commit's; and all of it was on the disk.
    let third = world.push(&[("a/data", exec(&data))], "a mode");
    world.poll(&[]).expect(0).silent();
    world.expect_live("site", &third);
    assert!(scene.is_shared("a/data"));
    assert_eq!(fs::metadata(scene.live("a/data")).unwrap().permissions().mode() & 0o777, 0o755);
    scene.disk.cut(Cut::Unsynced);
    scene.disk.power_on();
    world.expect_live("site", &third);
}

/// Things that a script, or the deploy user, may do to a file of the live release.
const MISCHIEF: [&str; 9] = ["byte", "longer", "shorter", "gone", "link", "pipe", "folder", "secret", "unreadable"];

#[test]
fn what_was_changed_in_the_live_release_comes_from_the_commit_again() {
    needs_disks!();
    let scene = scene("clones changed", Kind::Xfs);
    let world = &scene.world;
    let content: Vec<(String, Vec<u8>)> =
        MISCHIEF.iter().map(|name| ((*name).to_owned(), noise())).chain([("in/side".to_owned(), noise())]).collect();
    let mut files: Vec<_> = content.iter().map(|(name, bytes)| (name.as_str(), file(bytes))).collect();
    files.push(("whole", file(noise())));
    world.repo.commit(&files, "large");
    world.deployed_as_configured();

    // Bytes that are right but for the way to them would pass every look at them.
    let outside = world.path("target/outside");
    fs::create_dir(&outside).unwrap();
    let right = |name: &str| content.iter().find(|(known, _)| known == name).unwrap().1.clone();
    fs::write(outside.join("link"), right("link")).unwrap();
    fs::write(outside.join("side"), right("in/side")).unwrap();
    fs::write(outside.join("secret"), right("secret")).unwrap();
    set_mode(&outside.join("secret"), 0o600);
    let byte = fs::File::options().write(true).open(scene.live("byte")).unwrap();
    byte.write_all_at(&[!right("byte")[7]], 7).unwrap();
    let sized = |name: &str, by: i64| {
        let file = fs::File::options().write(true).open(scene.live(name)).unwrap();
        file.set_len((LARGE as i64 + by) as u64).unwrap();
    };
    sized("longer", 1);
    sized("shorter", -1);
    for name in ["gone", "link", "pipe", "folder", "secret"] {
        fs::remove_file(scene.live(name)).unwrap();
    }
    symlink(outside.join("link"), scene.live("link")).unwrap();
    sh("mkfifo", &[scene.live("pipe").to_str().unwrap()]);
    fs::create_dir(scene.live("folder")).unwrap();
    fs::hard_link(outside.join("secret"), scene.live("secret")).unwrap();
    set_mode(&scene.live("unreadable"), 0o000);
    fs::rename(scene.live("in"), scene.live("was-in")).unwrap();
    symlink(&outside, scene.live("in")).unwrap();

    let second = world.push(&[("index.html", file("two\n"))], "second");
    world.poll(&[]).expect(0).silent();
    world.expect_live("site", &second);
    for (name, bytes) in &content {
        assert!(fs::read(scene.live(name)).unwrap() == *bytes && !scene.is_shared(name), "{name}");
    }
    assert!(scene.is_shared("whole"));
    assert_eq!(scene.cloned(), 1);
    world.expect_no_leftovers("site");
}

#[test]
fn a_release_before_that_is_gone_or_is_a_link_is_done_without() {
    needs_disks!();
    let scene = scene("clones gone", Kind::Xfs);
    let world = &scene.world;
    world.repo.commit(&[("large", file(noise()))], "large");
    world.deployed_as_configured();
    for (round, what) in ["gone", "a link"].into_iter().enumerate() {
        let live = fs::canonicalize(world.live_folder("site")).unwrap();
        let aside = world.path(&format!("target/aside{round}"));
        fs::rename(&live, &aside).unwrap();
        if what == "a link" {
            symlink(&aside, &live).unwrap();
        }
        let next = world.push(&[("index.html", file(what))], what);
        world.poll(&[]).expect(0).silent();
        world.expect_live("site", &next);
        assert!(!scene.is_shared("large"), "{what}");
        fs::remove_dir_all(aside).unwrap();
    }
}

#[test]
fn a_stager_that_is_killed_among_its_clones_leaves_nothing() {
    needs_disks!();
    needs_program!("strace");
    let scene = scene("clones killed", Kind::Xfs);
    let world = &scene.world;
    let names: Vec<String> = (0..4).map(|n| format!("large{n}")).collect();
    let files: Vec<_> = names.iter().map(|name| (name.as_str(), file(noise()))).collect();
    world.repo.commit(&files, "large");
    let first = world.deployed_as_configured();
    let second = world.push(&[("index.html", file("two\n"))], "second");
    // Nobody else makes this call: it opens the file to try it with, and then one after the other.
    for nth in [1, 2, 4] {
        let blow = format!("inject=openat2:signal=SIGKILL:when={nth}");
        world.spawn(traced(world, &world.path("trace"), &["-e", &blow])).wait().expect(74);
        world.expect_live("site", &first);
        world.expect_no_processes();
    }
    world.poll(&[]).expect(0);
    world.expect_live("site", &second);
    assert!(names.iter().all(|name| scene.is_shared(name)));
    world.expect_no_leftovers("site");
}

#[test]
fn without_the_means_nothing_is_cloned_and_all_is_well() {
    needs_disks!();
    needs_program!("strace");
    // A kernel without openat2, or a container that keeps it to itself.
    for error in ["ENOSYS", "EPERM"] {
        let scene = scene("clones without", Kind::Xfs);
        let world = &scene.world;
        world.repo.commit(&[("large", file(noise()))], "large");
        world.deployed_as_configured();
        let second = world.push(&[("index.html", file("two\n"))], "second");
        let denied = format!("inject=openat2:error={error}");
        world.spawn(traced(world, &world.path("trace"), &["-e", &denied])).wait().expect(0).silent();
        world.expect_live("site", &second);
        assert!(!scene.is_shared("large"));
    }
}

#[test]
fn a_file_system_that_cannot_clone_is_asked_once() {
    needs_disks!();
    needs_program!("strace");
    let scene = scene("clones ext4", Kind::Ext4);
    let world = &scene.world;
    world.repo.commit(&[("large", file(noise())), ("larger", file(noise()))], "large");
    world.deployed_as_configured();
    let second = world.push(&[("index.html", file("two\n"))], "second");
    let trace = world.path("trace");
    world.spawn(traced(world, &trace, &["-e", "trace=ioctl,openat2"])).wait().expect(0).silent();
    world.expect_live("site", &second);
    let text = fs::read_to_string(trace).unwrap();
    assert_eq!(text.matches("FICLONE").count(), 1, "{text}");
    assert_eq!(text.matches("openat2(").count(), 1, "{text}");
    assert_eq!(scene.cloned(), 0);
}
