//! The first deploy of a tree, and an update by one commit, in both layouts; beside what git does for the
//! same files on the disk.

use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::support::host::{App, Host};
use crate::support::lab::{Lab, succeed};
use crate::support::peers::{git_in, sync};
use crate::support::repository::{Repository, git};
use crate::support::rows::{Contestant, Row};
use crate::support::table::grouped;

pub const RELEASES: &str = "`poller`, releases";
pub const IN_PLACE: &str = "`poller`, in place";
pub const CLONE: &str = "`git clone`, `sync`";
pub const WORKTREE: &str = "`git fetch`, `git worktree add`, `sync`";
pub const RESET: &str = "`git fetch`, `git reset --hard`, `sync`";

/// The same work as a new worktree: nothing is removed in the time that counts.
const KEEP_ALL: &str = "keep = 1000";
pub const KEEP_FIVE: &str = "`poller`, releases, removing the sixth";
pub const LAYOUT_IN_PLACE: &str = "layout = \"in-place\"";

pub fn first(files: usize) -> String {
    format!("first deploy, {} files", grouped(files as u64))
}

pub fn update(files: usize) -> String {
    format!("update by one commit, {} files", grouped(files as u64))
}

pub fn rows(lab: &Rc<Lab>) -> Vec<Row> {
    [(100, 5), (3_000, 3), (30_000, 2)].into_iter().flat_map(|(files, rounds)| of_size(lab, files, rounds)).collect()
}

fn of_size(lab: &Rc<Lab>, files: usize, rounds: usize) -> [Row; 2] {
    let name = format!("tree-{files}");
    let repository = Repository::new(lab, &format!("{name}.git"), files, Row::beginnings(rounds) + 1);
    let folder = lab.folder(&name);
    let host = |word: &str, target| {
        let app = App { target, ..App::new("site", &repository.url) };
        Host::new(lab, &format!("{name}/{word}"), vec![app])
    };
    let first_row = Row::new(
        first(files),
        rounds,
        vec![
            first_deploy(lab, host("first", KEEP_ALL), RELEASES, &repository),
            first_deploy(lab, host("first-in-place", LAYOUT_IN_PLACE), IN_PLACE, &repository),
            clone(lab, folder.join("clone"), &repository),
        ],
    );
    let mut updates = vec![
        releases(lab, host("releases", KEEP_ALL), &repository),
        in_place(lab, host("in-place", LAYOUT_IN_PLACE), &repository),
        worktree(lab, &folder, &repository),
        reset(lab, folder.join("reset"), &repository),
    ];
    if files == 3_000 {
        updates.push(five_releases(lab, host("five", "keep = 5"), &repository));
    }
    let pushed = repository.clone();
    // No target is about the update of a large tree, and half of its time goes to removing what it made.
    let rounds = if files > 3_000 { 1 } else { rounds };
    let rows = [first_row, Row::new(update(files), rounds, updates).begins_with(move || pushed.push())];
    if files > 3_000 { rows.map(|row| row.without_calls().without_warm_up()) } else { rows }
}

fn first_deploy(lab: &Rc<Lab>, host: Host, name: &str, repository: &Repository) -> Contestant {
    let (lab, before, after, repository) = (Rc::clone(lab), host.clone(), host.clone(), repository.clone());
    Contestant::new(name, move || vec![host.command(&[])])
        .before(move || {
            before.forget();
            lab.settle();
        })
        .after(move || after.expect_live(repository.tip()))
}

fn clone(lab: &Rc<Lab>, path: PathBuf, repository: &Repository) -> Contestant {
    let (lab, own, url) = (Rc::clone(lab), Rc::clone(lab), repository.url.clone());
    let (before, after, repository) = (path.clone(), path.clone(), repository.clone());
    Contestant::new(CLONE, move || {
        let mut git = own.command("git");
        git.args(["clone", "-q", &url]).arg(&path);
        vec![git, sync(&own, &path)]
    })
    .before(move || {
        remove(&before);
        lab.settle();
    })
    .after(move || expect_head(&after, repository.tip()))
}

fn poller(lab: &Rc<Lab>, host: &Host, name: &str, repository: &Repository) -> Contestant {
    host.poll();
    let (lab, host, after, repository) = (Rc::clone(lab), host.clone(), host.clone(), repository.clone());
    Contestant::new(name, move || vec![host.command(&[])])
        .before(move || lab.settle())
        .after(move || after.expect_live(repository.tip()))
}

fn releases(lab: &Rc<Lab>, host: Host, repository: &Repository) -> Contestant {
    let (own, before) = (Rc::clone(lab), host.clone());
    poller(lab, &host, RELEASES, repository).before(move || {
        before.drop_releases();
        own.settle();
    })
}

fn in_place(lab: &Rc<Lab>, host: Host, repository: &Repository) -> Contestant {
    poller(lab, &host, IN_PLACE, repository)
}

fn five_releases(lab: &Rc<Lab>, host: Host, repository: &Repository) -> Contestant {
    host.poll();
    for _ in 0..5 {
        succeed(&mut host.command(&["--force", "site"]));
    }
    poller(lab, &host, KEEP_FIVE, repository)
}

/// A clone, and beside it a worktree for the newest commit. The one before it goes outside the clock.
fn worktree(lab: &Rc<Lab>, folder: &Path, repository: &Repository) -> Contestant {
    let clone = folder.join("fetch");
    repository.clone_to(&clone);
    let trees = folder.join("worktrees");
    fs::create_dir(&trees).expect("mkdir");
    let of = {
        let (trees, repository) = (trees.clone(), repository.clone());
        move || trees.join(repository.tip())
    };
    let (lab, own, live, old) = (Rc::clone(lab), Rc::clone(lab), of.clone(), clone.clone());
    let (after, tip) = (of.clone(), repository.clone());
    Contestant::new(WORKTREE, move || {
        let tree = live();
        let path = tree.to_str().expect("a path");
        let add = git_in(&own, &clone, &["worktree", "add", "-q", "--detach", path, "origin/main"]);
        vec![git_in(&own, &clone, &["fetch", "-q"]), add, sync(&own, &tree)]
    })
    .before(move || {
        for tree in fs::read_dir(&trees).expect("the worktrees") {
            remove(&tree.expect("an entry").path());
        }
        succeed(&mut git_in(&lab, &old, &["worktree", "prune"]));
        lab.settle();
    })
    .after(move || expect_head(&after(), tip.tip()))
}

fn reset(lab: &Rc<Lab>, path: PathBuf, repository: &Repository) -> Contestant {
    repository.clone_to(&path);
    let (lab, own, after, repository) = (Rc::clone(lab), Rc::clone(lab), path.clone(), repository.clone());
    Contestant::new(RESET, move || {
        let reset = git_in(&own, &path, &["reset", "-q", "--hard", "origin/main"]);
        vec![git_in(&own, &path, &["fetch", "-q"]), reset, sync(&own, &path)]
    })
    .before(move || lab.settle())
    .after(move || expect_head(&after, repository.tip()))
}

fn expect_head(tree: &Path, commit: &str) {
    let head = succeed(git().arg("-C").arg(tree).args(["rev-parse", "HEAD"]));
    assert!(head.trim() == commit, "{} has {head} instead of {commit}", tree.display());
}

fn remove(folder: &Path) {
    if folder.exists() {
        fs::remove_dir_all(folder).expect("rm");
    }
}
