//! A generated history of 200 commits with links, executables, renames, deletions and folders that become
//! files: after each, what is live is what `git ls-tree -r` lists, in both layouts.

use crate::support::{Content, World, exec, file, gone, link};

const COMMITS: u32 = 200;

/// xorshift: the same history every time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % sides as u64) as usize
    }
}

/// The history so far, and what grows next.
struct Garden {
    dice: Dice,
    /// Files and links that there are.
    paths: Vec<String>,
}

impl Garden {
    fn new_path(&mut self) -> String {
        let folders = ["", "a/", "a/b/", "a/b/c/", "img/", "name with space/", "été/"];
        let folder = folders[self.dice.roll(folders.len())];
        let endings = ["", ".txt", ".py", ".html", ".sh"];
        format!("{folder}f{}{}", self.dice.roll(40), endings[self.dice.roll(endings.len())])
    }

    fn content(&mut self) -> Content {
        let text = (0..self.dice.roll(50)).map(|_| format!("{}\r\n", self.dice.roll(1000))).collect::<String>();
        match self.dice.roll(8) {
            0 => exec(format!("#!/bin/sh\n{text}")),
            1 => link(["f1", "f2.txt", "missing", "./f3"][self.dice.roll(4)]),
            2 => file((0..self.dice.roll(3000)).map(|_| self.dice.roll(256) as u8).collect::<Vec<_>>()),
            _ => file(text),
        }
    }

    fn any_path(&mut self) -> Option<String> {
        let count = self.paths.len();
        (count > 0).then(|| self.paths[self.dice.roll(count)].clone())
    }

    fn put(&mut self, path: &str) {
        // A path takes the place of what lies under it and of what it would lie under.
        let (below, own) = (format!("{path}/"), path.to_owned());
        self.paths.retain(|old| *old != own && !old.starts_with(&below) && !own.starts_with(&format!("{old}/")));
        self.paths.push(own);
    }

    /// One change to the clone.
    fn change(&mut self, world: &World) {
        let work = &world.repo.work;
        let old = self.any_path();
        match (self.dice.roll(10), old) {
            (0 | 1, Some(old)) => {
                crate::support::repo::put(&work.join(&old), &gone());
                self.paths.retain(|path| *path != old);
            }
            (2, Some(old)) => {
                let new = self.new_path();
                if new != old && !new.starts_with(&format!("{old}/")) && !old.starts_with(&format!("{new}/")) {
                    crate::support::repo::put(&work.join(&new), &gone());
                    crate::support::repo::put(&work.join(&new), &file("")); // makes the folders
                    std::fs::rename(work.join(&old), work.join(&new)).unwrap();
                    self.paths.retain(|path| *path != old);
                    self.put(&new);
                }
            }
            (3, Some(old)) => {
                // The file becomes a folder.
                let content = self.content();
                let new = format!("{old}/inside");
                crate::support::repo::put(&work.join(&new), &content);
                self.put(&new);
            }
            (4, Some(old)) if old.contains('/') => {
                // The folder becomes a file or a link.
                let content = self.content();
                let folder = old.split_once('/').unwrap().0.to_owned();
                crate::support::repo::put(&work.join(&folder), &content);
                self.put(&folder);
            }
            (5, Some(old)) => {
                let content = self.content();
                crate::support::repo::put(&work.join(&old), &content);
            }
            _ => {
                let (path, content) = (self.new_path(), self.content());
                crate::support::repo::put(&work.join(&path), &content);
                self.put(&path);
            }
        }
    }
}

/// The next commit of the history, pushed.
fn grow(world: &World, garden: &mut Garden, number: u32) -> String {
    for _ in 0..=garden.dice.roll(6) {
        garden.change(world);
    }
    world.push(&[("count", file(format!("{number}\n")))], &format!("commit {number}"))
}

fn garden() -> Garden {
    Garden { dice: Dice(0x9E37_79B9_7F4A_7C15), paths: Vec::new() }
}

#[test]
fn the_history_has_every_kind_of_change() {
    let world = World::new("history");
    let mut garden = garden();
    for number in 1..=COMMITS {
        grow(&world, &mut garden, number);
    }
    let raw = crate::support::repo::git(&world.repo.work, &["log", "--raw", "-M", "--no-abbrev", "--format="]);
    let count = |what: &dyn Fn(&[&str]) -> bool| {
        raw.lines().filter(|line| what(&line.split_whitespace().collect::<Vec<_>>())).count()
    };
    for (status, least) in [("A", 50), ("M", 50), ("D", 20), ("R", 20), ("T", 5)] {
        let found = count(&|fields| fields[4].starts_with(status));
        assert!(found >= least, "{status}: {found}");
    }
    for mode in ["100644", "100755", "120000"] {
        let found = count(&|fields| fields[1] == mode);
        assert!(found >= 30, "{mode}: {found}");
    }
    let inside = raw.lines().filter(|line| line.ends_with("/inside")).count();
    assert!(inside > 10, "files become folders");
}

fn replay(layout: &str) {
    let world = World::new("replay");
    world.app("site").target(&format!("layout = \"{layout}\"\nkeep = 3")).deploy("script = \"/bin/true\"").write();
    let mut garden = garden();
    for number in 1..=COMMITS {
        let commit = grow(&world, &mut garden, number);
        let outcome = world.poll(&[]).expect(0).silent();
        assert_eq!(world.revision("site").as_deref(), Some(commit.as_str()), "{number}\n{}", outcome.story());
        world.expect_live("site", &commit);
    }
    let deployed = world.history("site").iter().filter(|entry| *entry == "deploy deployed").count();
    assert_eq!(deployed, COMMITS as usize);
    world.expect_no_leftovers("site");
}

#[test]
fn two_hundred_commits_into_releases() {
    replay("releases");
}

#[test]
fn two_hundred_commits_in_place() {
    replay("in-place");
}
