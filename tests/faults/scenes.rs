//! The scenes that [`super::points`] and [`super::disk`] play: each from one and the same beginning,
//! which is put back from a copy, and with the end that each must come to by itself.
//!
//! What changes lies in memory (tmpfs), so that a scene can be played some thousand times. What a power
//! cut leaves of a real file system is another group's.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::support::repo::git;
use crate::support::{World, file, gone, link, sh};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scene {
    /// Nothing is new.
    Unchanged,
    /// The first poll of an app, with no folder of poller's there yet.
    First,
    /// From one commit to the next, in a release of its own.
    Releases,
    /// The same over the live files.
    InPlace,
    /// Back to the commit before, by hand.
    Rollback,
    Freeze,
    Unfreeze,
}

/// What lies in a folder: modes and contents by path.
type Files = BTreeMap<String, (u32, Vec<u8>)>;

pub struct Stage {
    pub scene: Scene,
    pub world: World,
    /// What is live at the beginning; the scene's end where there was nothing before.
    before: String,
    /// What is to be live and recorded in the end.
    goal: String,
    /// What these look like.
    trees: BTreeMap<String, Files>,
    /// The journal's newest entry at the beginning.
    tip: Option<String>,
}

const FOLDERS: [&str; 3] = ["var", "target", "notes"];

impl Scene {
    pub fn arguments(self) -> &'static [&'static str] {
        match self {
            Scene::Unchanged | Scene::First | Scene::Releases | Scene::InPlace => &[],
            Scene::Rollback => &["rollback", "site"],
            Scene::Freeze => &["freeze", "site", "--reason", "a test"],
            Scene::Unfreeze => &["unfreeze", "site"],
        }
    }

    fn layout(self) -> &'static str {
        if self == Scene::InPlace { "in-place" } else { "releases" }
    }

    pub fn set(self) -> Stage {
        let world = World::new(&format!("{self:?}"));
        world.mount_tmpfs(&world.path("var"), "size=64m,mode=0755", None);
        world.mount_tmpfs(&world.path("target"), "size=64m,mode=0755", None);
        world.mount_tmpfs(&world.path("notes"), "size=1m", Some(&world.deployer));
        let metrics = world.path("var/metrics");
        fs::create_dir(&metrics).unwrap();
        world.write_host_config(&format!("\n[metrics]\ntextfile = \"{}/poller.prom\"", metrics.display()));
        world.app("site").target(&format!("layout = \"{}\"", self.layout())).deploy("retries = 9").write();
        let mut trees = BTreeMap::new();
        let mut commit = |files: &[(&str, _)], message: &str| {
            let commit = world.push(files, message);
            trees.insert(commit.clone(), committed(&world.repo.work, &commit));
            commit
        };
        let first = commit(
            &[
                ("deploy.sh", world.script("")),
                ("index.html", file("one\n")),
                ("pages/old.html", file("old\n")),
                ("pages/kept.html", file("kept\n")),
                ("here", link("index.html")),
            ],
            "first",
        );
        if self != Scene::First {
            world.poll(&[]).expect(0);
        }
        let mut goal = first.clone();
        let mut before = first.clone();
        if matches!(self, Scene::Releases | Scene::InPlace | Scene::Rollback) {
            let changed = file("two\n");
            let files = [("index.html", changed), ("pages/old.html", gone()), ("pages/new.html", file("new\n"))];
            let second = commit(&files, "second");
            (before, goal) = (first, second);
        }
        match self {
            Scene::Rollback => {
                world.poll(&[]).expect(0);
                (before, goal) = (goal, before);
            }
            Scene::Unfreeze => drop(world.poll(Scene::Freeze.arguments()).expect(0)),
            _ => {}
        }
        let tip = world.journal_tip("site");
        fs::create_dir(world.path("kept")).unwrap();
        for folder in FOLDERS {
            sh("cp", &["-a", shown(&world.path(folder)), shown(&world.path("kept"))]);
        }
        Stage { scene: self, world, before, goal, trees, tip }
    }
}

impl Stage {
    /// Puts everything back to where the scene begins.
    pub fn reset(&self) {
        let each = "for f in var target notes; do find $f -mindepth 1 -delete; cp -a kept/$f/. $f/; done";
        let out = Command::new("/bin/sh").args(["-ec", each]).current_dir(&self.world.root).status().unwrap();
        assert!(out.success(), "putting the beginning back");
    }

    /// What is live this moment: wholly the old tree or wholly the new one, or nothing yet. In place it is
    /// a mixture for as long as the renames take, as documented: there it is whole after the next run.
    #[track_caller]
    pub fn expect_whole(&self, what: &str) {
        if self.scene == Scene::InPlace {
            return;
        }
        match self.live() {
            None => assert!(self.scene == Scene::First, "{what}: nothing is live"),
            Some(live) => assert!(live == self.before || live == self.goal, "{what}: {live} is live"),
        }
    }

    /// The commit that is live, with exactly its tree.
    #[track_caller]
    fn live(&self) -> Option<String> {
        let target = self.world.target("site");
        let folder = if self.scene == Scene::InPlace { target } else { target.join("current") };
        if fs::symlink_metadata(&folder).is_err() {
            return None;
        }
        let mut live = files(&folder);
        let (_, revision) = live.remove("REVISION").unwrap_or_else(|| panic!("no REVISION in {}", folder.display()));
        let commit = String::from_utf8(revision).unwrap().trim().to_owned();
        let tree = self.trees.get(&commit).unwrap_or_else(|| panic!("{commit:?} is live"));
        assert!(live == *tree, "not the tree of {commit}: {:?} and not {:?}", live.keys(), tree.keys());
        Some(commit)
    }

    /// A plain next poll, and for what was asked for by hand the same command again, come to the right end.
    #[track_caller]
    pub fn expect_recovery(&self, what: &str) {
        match self.scene {
            Scene::Unchanged | Scene::First | Scene::Releases | Scene::InPlace => {
                self.world.poll(&[]).expect(0);
            }
            Scene::Rollback | Scene::Freeze | Scene::Unfreeze => {
                self.world.poll(&[]).expect(0);
                self.expect_whole(what);
                // Wholly done or not at all: then it is done now. Twice is refused, with a sentence.
                let was_done = self.is_done();
                let twice = if self.scene == Scene::Unfreeze { 0 } else { 64 };
                self.world.poll(self.scene.arguments()).expect(if was_done { twice } else { 0 });
            }
        }
        self.expect_end(what);
    }

    /// The end that the scene comes to, undisturbed or not.
    #[track_caller]
    pub fn expect_end(&self, what: &str) {
        self.expect_done(what);
        self.world.expect_no_leftovers("site");
    }

    /// A further deploy, which takes away what a call that failed left: a fetch clears up after fetches,
    /// an entry after entries.
    #[track_caller]
    pub fn expect_nothing_left_by_the_next_deploy(&self, what: &str) {
        if matches!(self.scene, Scene::Rollback | Scene::Freeze) {
            self.world.poll(Scene::Unfreeze.arguments()).expect(0);
        }
        self.world.poll(&["--force", "site"]).expect(0);
        self.expect_whole(what);
        self.world.expect_no_leftovers("site");
    }

    /// The same, but for what may lie about until the next deploy.
    #[track_caller]
    pub fn expect_done(&self, what: &str) {
        let world = &self.world;
        assert_eq!(self.live().as_deref(), Some(self.goal.as_str()), "{what}: what is live");
        assert!(self.is_done(), "{what}: the journal says\n{}", self.state());
        let wanted: &[&str] = match self.scene {
            Scene::Unchanged => &[],
            // A run whose helper was killed has failed, and what comes after is a retry.
            Scene::First | Scene::Releases | Scene::InPlace => &["deploy deployed", "retry deployed"],
            Scene::Rollback => &["rollback deployed"],
            Scene::Freeze => &["freeze done"],
            Scene::Unfreeze => &["unfreeze done"],
        };
        let entries = self.entries();
        let good: Vec<_> = entries.iter().filter(|e| e.contains(" deployed: ") || e.contains(" done: ")).collect();
        let is_wanted = |entry: &str| wanted.iter().any(|kind| entry.contains(&format!(" {kind}: ")));
        let once = good.len() == usize::from(!wanted.is_empty()) && good.iter().all(|entry| is_wanted(entry));
        assert!(once, "{what}: not recorded once\n{}", entries.join("\n"));
        if wanted.iter().any(|kind| kind.ends_with("deployed")) {
            let ran = world.ran();
            let its =
                |(why, commit): &(String, String)| wanted.iter().any(|k| k.starts_with(why)) && *commit == self.goal;
            assert!(ran.iter().any(its), "{what}: its script did not run: {ran:?}");
        }
        world.expect_no_processes();
        let tip = world.journal_tip("site");
        world.poll(&[]).expect(0).silent();
        assert_eq!(world.journal_tip("site"), tip, "{what}: a further poll recorded something");
    }

    /// Whether the journal says that what was wanted is done.
    fn is_done(&self) -> bool {
        let state: toml::Table = self.state().parse().unwrap();
        let deployed = state.get("deployed").and_then(|d| d.get("commit")?.as_str()) == Some(self.goal.as_str());
        let frozen = state.contains_key("frozen");
        let settled = !state.contains_key("started") && !state.contains_key("failed");
        deployed && settled && frozen == matches!(self.scene, Scene::Rollback | Scene::Freeze)
    }

    fn state(&self) -> String {
        let Some(repository) = self.world.repositories().pop() else { return String::new() };
        git(&repository, &["show", "refs/poller/site:state.toml"])
    }

    /// The subjects of the entries since the beginning, newest first.
    fn entries(&self) -> Vec<String> {
        let Some(repository) = self.world.repositories().pop() else { return Vec::new() };
        let since = self.tip.as_ref().map(|tip| format!("^{tip}"));
        let mut arguments = vec!["log", "--first-parent", "--format=%s", "refs/poller/site"];
        arguments.extend(since.as_deref());
        git(&repository, &arguments).lines().map(str::to_owned).collect()
    }
}

fn shown(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The tree of a commit, as it is to be published.
fn committed(work: &Path, commit: &str) -> Files {
    let head = git(work, &["rev-parse", "HEAD"]);
    assert_eq!(head.trim(), commit);
    let mut found = files(work);
    found.retain(|path, _| !path.starts_with(".git/"));
    found
}

fn files(folder: &Path) -> Files {
    let mut found = Files::new();
    walk(folder, "", &mut found);
    found
}

fn walk(folder: &Path, below: &str, found: &mut Files) {
    for entry in fs::read_dir(folder.join(below)).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let path = if below.is_empty() { name } else { format!("{below}/{name}") };
        let meta = entry.metadata().unwrap();
        if meta.is_dir() {
            walk(folder, &path, found);
        } else if meta.is_symlink() {
            let target = fs::read_link(entry.path()).unwrap();
            found.insert(path, (0o120000, target.as_os_str().as_bytes().to_vec()));
        } else {
            found.insert(path, (meta.permissions().mode() & 0o7777, fs::read(entry.path()).unwrap()));
        }
    }
}
