//! The deploy user moves things about in his own tree while poller works there as him: his folders become
//! links, and folders again, in a tight loop. What lies outside the tree is not read, written or removed,
//! neither what is root's nor what he could change himself; root opens nothing in the tree at all.

mod hands;
mod left;
mod root;

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::all;
use crate::support::{World, file, set_mode, sh};
use crate::tally::{Group, Tally};
use hands::{Hands, Trick};

/// A folder outside of the target whose every access leaves a mark: the file system keeps exact times.
pub struct Canary {
    pub folder: PathBuf,
    paths: Vec<PathBuf>,
    marks: Vec<String>,
}

/// Names that poller would remove, read or write if it found them in its own tree.
const BAIT: [&str; 9] = [
    "20200101T000000Z-0123456789012345678901234567890123456789/file",
    "20200101T000000Z-0123456789012345678901234567890123456789.partial/file",
    "x.partial/file",
    "folder/page",
    "folder/inner/page",
    "releases/20200101T000000Z-0123456789012345678901234567890123456789.partial/file",
    "REVISION",
    "index.html",
    "uploads/precious",
];

impl Canary {
    /// Half of it is the deploy user's own, so that nothing but poller's care protects it.
    pub fn new(world: &World) -> Canary {
        let folder = world.path("canary");
        world.mount_tmpfs(&folder, "size=4m,strictatime", Some(&world.deployer));
        let mut paths = vec![folder.clone()];
        for part in ["his", "roots", "secret"] {
            for bait in BAIT {
                let path = folder.join(part).join(bait);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(&path, "precious\n").unwrap();
                fs::create_dir_all(folder.join(part).join("empty/empty")).unwrap();
            }
        }
        sh("chown", &["-R", &world.deployer.name, folder.join("his").to_str().unwrap()]);
        set_mode(&folder.join("secret"), 0o700);
        collect(&folder, &mut paths);
        let mut canary = Canary { folder, paths, marks: Vec::new() };
        canary.marks = canary.look();
        canary
    }

    /// By paths that are known: a listing would leave a mark itself.
    fn look(&self) -> Vec<String> {
        let mark = |path: &PathBuf| {
            let meta = fs::symlink_metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            let times = [
                (meta.atime(), meta.atime_nsec()),
                (meta.mtime(), meta.mtime_nsec()),
                (meta.ctime(), meta.ctime_nsec()),
            ];
            let owner = (meta.mode(), meta.uid(), meta.gid());
            format!("{} {owner:?} {} {} {times:?}", path.display(), meta.size(), meta.nlink())
        };
        self.paths.iter().map(mark).collect()
    }

    #[track_caller]
    pub fn expect_untouched(&self) {
        let differ: Vec<_> = self.look().into_iter().zip(&self.marks).filter(|(now, before)| now != *before).collect();
        assert!(differ.is_empty(), "touched: {differ:#?}");
    }
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        found.push(entry.path());
        if entry.file_type().unwrap().is_dir() {
            collect(&entry.path(), found);
        }
    }
}

/// The codes of the contract, but "a bug" and "usage".
const CODES: [i32; 8] = [0, 1, 69, 74, 75, 76, 77, 78];

pub fn make(name: &str, layout: &str) -> (World, Canary) {
    let world = World::new(name);
    let shared = if layout == "releases" { "\nshared = [\"uploads\"]\nkeep = 2" } else { "" };
    world.app("site").target(&format!("layout = \"{layout}\"{shared}")).deploy("retries = 100").write();
    world.repo.commit(&[("folder/page", file("0\n")), ("folder/inner/page", file("0\n"))], "folders");
    world.deployed_as_configured();
    let canary = Canary::new(&world);
    (world, canary)
}

/// A commit in which files change, come and go, and folders give way to files.
pub fn push(world: &World, round: usize) -> String {
    let text = || file(format!("{round}\n"));
    let odd = format!("folder/inner/{round}");
    let before = format!("folder/inner/{}", round.wrapping_sub(1));
    let thing = if round.is_multiple_of(2) { ("thing", text()) } else { ("thing/deep/page", text()) };
    world.push(
        &[
            ("folder/page", text()),
            ("folder/inner/page", text()),
            (&odd, text()),
            (&before, crate::support::gone()),
            thing,
        ],
        "round",
    )
}

/// Polls and commands while the tricks are played, then one poll that must come to a good end.
fn play(layout: &str, tricks: &[Trick]) {
    let mut tally = Tally::new(Group::Repository);
    let (world, canary) = make("tricks", layout);
    let mut round = 0;
    for trick in crate::repository::sample(tricks.to_vec(), 2) {
        for aim in ["his", "roots", "secret"] {
            if aim != "his" && (!all() || trick.needs_no_aim()) {
                continue;
            }
            let hands = Hands::start(&world, &world.target("site"), trick, &canary.folder.join(aim));
            let end = Instant::now() + if all() { Duration::from_secs(40) } else { Duration::from_millis(500) };
            let mut codes = std::collections::BTreeMap::<i32, usize>::new();
            let enough = round + 4;
            while Instant::now() < end || round < enough {
                round += 1;
                tally.case(format!("{trick:?} to what is {aim}, round {round}"));
                push(&world, round);
                let commands: &[&[&str]] = match round % 6 {
                    0 => &[&[], &["check"], &["status"]],
                    1 => &[&["--force", "site"]],
                    2 => &[&["rollback", "site", "--reason", "try"], &["unfreeze", "site"]],
                    3 => &[&["--dry-run"], &[]],
                    4 => &[&["retry", "site"]],
                    _ => &[&[], &["adopt", "site"]],
                };
                for command in commands {
                    let code = world.poll(command).code;
                    let fits = CODES.contains(&code)
                        || (code == 64
                            && ["rollback", "adopt", "retry", "unfreeze"]
                                .contains(&command.first().copied().unwrap_or("")));
                    assert!(fits, "{command:?} ends with {code}");
                    *codes.entry(code).or_default() += 1;
                }
                canary.expect_untouched();
            }
            let swaps = hands.stop();
            assert!(swaps > 100, "{trick:?}: only {swaps} swaps");
            tally.note(format!("{trick:?}, {aim}: {swaps} swaps, exits {codes:?}"));
            tally.case(format!("{trick:?} to what is {aim}: healed"));
            heal(&world, round);
            canary.expect_untouched();
        }
    }
    world.expect_no_processes();
}

/// Left alone, the next poll comes to a good end, or says what to mend where a file of the repository is
/// not the repository's any more.
fn heal(world: &World, round: usize) {
    let _ = world.poll(&["unfreeze", "site"]);
    let tip = push(world, round + 1000);
    let outcome = world.poll(&[]);
    if outcome.code != 0 {
        assert!(outcome.code == 77 && outcome.stderr.contains("move it away"), "{}", outcome.story());
        clear_in_place(world);
    }
    world.poll(&["--force", "site"]).expect(0);
    expect_published(world, &tip);
    world.expect_no_leftovers("site");
}

/// All of the commit is live; beside it may lie what is linked to `shared/`, or what he put there.
#[track_caller]
pub fn expect_published(world: &World, tip: &str) {
    assert_eq!(world.revision("site").as_deref(), Some(tip));
    let (mut live, tree) = (world.live("site"), world.repo.ls_tree(tip));
    live.retain(|path, _| tree.contains_key(path));
    crate::support::readers::same_tree(&live, &tree);
}

/// What the message says: what is in the way is moved away.
fn clear_in_place(world: &World) {
    for entry in fs::read_dir(world.target("site")).unwrap().flatten() {
        match entry.file_type().unwrap().is_dir() {
            true => fs::remove_dir_all(entry.path()).unwrap(),
            false => fs::remove_file(entry.path()).unwrap(),
        }
    }
}

#[test]
fn folders_of_releases_become_links_while_poller_works() {
    needs_root!();
    play(
        "releases",
        &[Trick::Path("releases"), Trick::Path("shared"), Trick::Path("current"), Trick::Releases, Trick::Inside],
    );
}

#[test]
fn folders_in_place_become_links_while_poller_works() {
    needs_root!();
    play(
        "in-place",
        &[Trick::Path("folder"), Trick::Path("folder/inner"), Trick::Path(".poller.partial"), Trick::Path("thing")],
    );
}

#[test]
fn modes_and_clutter_change_while_poller_works() {
    needs_root!();
    play("releases", &[Trick::Clutter, Trick::Modes]);
}

#[test]
fn with_protected_symlinks_on() {
    needs_root!();
    if !all() {
        return;
    }
    let _setting = Setting::new("/proc/sys/fs/protected_symlinks", "1");
    play("releases", &[Trick::Path("releases"), Trick::Path("current"), Trick::Inside]);
}

/// A setting of this machine, put back at the end.
struct Setting(&'static str, String);

impl Setting {
    fn new(path: &'static str, value: &str) -> Setting {
        let before = fs::read_to_string(path).unwrap();
        fs::write(path, value).unwrap();
        Setting(path, before)
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        let _ = fs::write(self.0, &self.1);
    }
}

/// A link in the place of `path`; what was there is beside it.
pub fn replace(world: &World, path: &Path, target: &Path) {
    let aside = path.with_extension("aside");
    fs::rename(path, aside).unwrap();
    symlink(target, path).unwrap();
    std::os::unix::fs::lchown(path, Some(world.deployer.uid), Some(world.deployer.gid)).unwrap();
}

pub fn put_back(path: &Path) {
    fs::remove_file(path).unwrap();
    fs::rename(path.with_extension("aside"), path).unwrap();
}
