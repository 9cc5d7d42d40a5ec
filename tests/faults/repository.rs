//! Trees, names and messages that no git program would make. Each is pushed as raw objects and polled by
//! two apps at once, one in each layout; where not even a git server would pass it on, it comes as a
//! pack made by hand.

mod links;
mod modes;
mod names;
mod own;
mod sizes;
mod words;

use std::cell::Cell;
use std::fs;
use std::path::PathBuf;

use git2::{ObjectType, Oid, Repository};

use crate::support::repo::git;
use crate::support::{World, put_exec};
use crate::tally::{Group, Tally};

pub const FILE: &str = "100644";
pub const EXEC: &str = "100755";
pub const LINK: &str = "120000";
pub const FOLDER: &str = "40000";
pub const SUBMODULE: &str = "160000";

/// `releases` and `in-place`.
const APPS: [&str; 2] = ["site", "place"];

/// Mode, name, object: an entry of a tree, whatever git thinks of it.
pub type Entry<'e> = (&'e str, &'e [u8], Oid);

pub struct Hostile {
    pub world: World,
    pub tally: Tally,
    /// Deployed by both apps.
    pub first: String,
    server: Repository,
    /// Where the pack made by hand is served from.
    served: Option<PathBuf>,
    pushed: Cell<usize>,
}

impl Hostile {
    /// Over SSH, from git's own server.
    pub fn new(name: &str) -> Hostile {
        Hostile::build(World::new(name), None)
    }

    /// From a program that sends the packs made by [`Hostile::serve`], and no questions asked.
    pub fn by_pack(name: &str) -> Hostile {
        let world = World::new(name);
        let served = world.path("served");
        fs::create_dir(&served).unwrap();
        Hostile::build(world, Some(served))
    }

    fn build(world: World, served: Option<PathBuf>) -> Hostile {
        let apps = [world.app("site"), world.app("place").in_place()];
        for app in apps {
            match &served {
                None => app.write(),
                Some(folder) => {
                    let program = folder.join("serve");
                    put_exec(&program, &SERVE.replace("FOLDER", folder.to_str().unwrap()));
                    app.source(&format!("ssh_command = \"{}\"", program.display())).without("source.identity").write();
                }
            }
        }
        let script = world.script("");
        let first = world.repo.commit(&[("deploy.sh", script), ("index.html", crate::support::file("one\n"))], "first");
        world.repo.push();
        let server = Repository::open(&world.repo.bare).unwrap();
        let hostile =
            Hostile { world, tally: Tally::new(Group::Repository), first, server, served, pushed: Cell::default() };
        if hostile.served.is_some() {
            let all = git(&hostile.world.repo.bare, &["rev-list", "--objects", "--all"]);
            let all: Vec<Oid> = all.lines().map(|line| Oid::from_str(&line[..40]).unwrap()).collect();
            hostile.serve(&hostile.first, &all);
        }
        hostile.world.poll(&[]).expect(0);
        hostile.expect_live(&hostile.first);
        fs::write(hostile.world.path("outside"), "precious\n").unwrap();
        hostile
    }

    pub fn object(&self, kind: ObjectType, bytes: &[u8]) -> Oid {
        self.server.odb().unwrap().write(kind, bytes).unwrap()
    }

    pub fn blob(&self, bytes: impl AsRef<[u8]>) -> Oid {
        self.object(ObjectType::Blob, bytes.as_ref())
    }

    pub fn tree(&self, entries: &[Entry]) -> Oid {
        let mut bytes = Vec::new();
        for (mode, name, id) in entries {
            bytes.extend([mode.as_bytes(), b" ", name, b"\0", id.as_bytes()].concat());
        }
        self.object(ObjectType::Tree, &bytes)
    }

    /// A tree with the deploy script and these.
    pub fn tree_with(&self, entries: &[Entry]) -> Oid {
        let script = &self.world.repo.ls_tree(&self.first)["deploy.sh"].1;
        let script = (EXEC, &b"deploy.sh"[..], Oid::from_str(script).unwrap());
        self.tree(&[&[script], entries].concat())
    }

    /// A commit after the first, which nothing points at yet.
    pub fn commit(&self, tree: Oid) -> Oid {
        let number = self.pushed.get();
        self.pushed.set(number + 1);
        let at = 1_700_000_000 + number;
        let people = format!("author A <a@example.org> {at} +0000\ncommitter C <c@example.org> {at} +0000");
        let text = format!("tree {tree}\nparent {}\n{people}\n\nhostile\n", self.first);
        self.object(ObjectType::Commit, text.as_bytes())
    }

    /// Makes it what `main` holds on the server.
    pub fn publish(&self, commit: Oid) -> String {
        let commit = commit.to_string();
        git(&self.world.repo.bare, &["update-ref", "refs/heads/main", &commit]);
        commit
    }

    pub fn push(&self, entries: &[Entry]) -> String {
        self.publish(self.commit(self.tree_with(entries)))
    }

    /// Serves a pack of exactly these objects, with `commit` as what `main` holds.
    pub fn serve(&self, commit: &str, objects: &[Oid]) {
        let folder = self.served.as_ref().expect("a world by pack");
        let mut builder = self.server.packbuilder().unwrap();
        for object in objects {
            builder.insert_object(*object, None).unwrap();
        }
        let mut pack = git2::Buf::new();
        builder.write_buf(&mut pack).unwrap();
        let line = format!("{commit} refs/heads/main\0ofs-delta agent=hand\n");
        fs::write(folder.join("refs"), format!("{:04x}{line}0000", line.len() + 4)).unwrap();
        fs::write(folder.join("pack"), &*pack).unwrap();
    }

    pub fn expect_live(&self, commit: &str) {
        APPS.iter().for_each(|app| self.world.expect_live(app, commit));
    }

    /// Pushes, and expects that neither app takes it, for a reason with these words in it.
    #[track_caller]
    pub fn refused(&mut self, case: impl std::fmt::Display, entries: &[Entry], why: &str) {
        self.tally.case(case);
        let commit = self.push(entries);
        self.expect_refused(&commit, why);
    }

    /// The same by a pack of exactly these objects, the first of which is the top.
    #[track_caller]
    pub fn served_and_refused(&mut self, case: impl std::fmt::Display, objects: &[Oid], why: &str) {
        self.tally.case(case);
        let tip = self.commit(objects[0]);
        self.serve(&tip.to_string(), &[&[tip], objects].concat());
        self.expect_refused(&tip.to_string(), why);
    }

    #[track_caller]
    pub fn expect_refused(&self, commit: &str, why: &str) {
        self.expect_failure(commit, 77, why);
        let lines = self.world.events("verify.refused");
        let refused = APPS.iter().all(|app| lines.iter().any(|l| l["app"] == *app && l["commit"] == commit));
        assert!(refused, "{commit} is not refused in\n{lines:#?}");
    }

    /// Both apps stay as they are, and the poll ends with this code and says why.
    #[track_caller]
    pub fn expect_failure(&self, commit: &str, code: i32, why: &str) {
        let before = surroundings(&self.world);
        let ran = self.world.ran().len();
        let lines = self.world.log().len();
        let outcome = self.world.poll(&[]).expect(code);
        expect_harmless(&outcome.stderr);
        let told: Vec<_> = self.world.log().split_off(lines);
        let says =
            |app: &str| told.iter().any(|l| l["app"] == app && l["error"].as_str().is_some_and(|e| e.contains(why)));
        assert!(APPS.iter().all(|app| says(app)), "{why:?} for {commit}\n{told:#?}");
        // A dry run fetches and verifies as well.
        if crate::all() {
            let shown = self.world.poll(&["--dry-run"]);
            assert!((shown.stdout.clone() + &shown.stderr).contains(why), "{why:?} for {commit}\n{}", shown.story());
            expect_harmless(&shown.stdout);
        }
        assert_eq!(surroundings(&self.world), before);
        self.expect_live(&self.first);
        assert_eq!(self.world.ran().len(), ran);
        for app in APPS {
            assert_eq!(self.world.recorded(app).as_deref(), Some(&*self.first));
            self.world.expect_no_leftovers(app);
        }
        self.world.expect_no_processes();
    }

    /// Pushes, and expects that both apps publish it. What comes next is built on that.
    #[track_caller]
    pub fn published(&mut self, case: impl std::fmt::Display, entries: &[Entry]) -> String {
        self.tally.case(case);
        let commit = self.push(entries);
        let before = surroundings(&self.world);
        self.world.poll(&[]).expect(0).silent();
        for app in APPS {
            assert_eq!(self.world.revision(app).as_deref(), Some(&*commit));
        }
        assert_eq!(surroundings(&self.world), before);
        self.first.clone_from(&commit);
        commit
    }
}

/// Speaks git's protocol v0 as far as it must: shows the ref, answers each batch of `have` with NAK, and
/// `done` with the pack.
const SERVE: &str = r#"#!/bin/sh
cat 'FOLDER/refs'
flushes=0
while size=$(dd bs=1 count=4 2>/dev/null) && [ -n "$size" ]; do
    if [ "$size" = 0000 ]; then
        flushes=$((flushes + 1))
        [ $flushes = 1 ] || printf '0008NAK\n'
        continue
    fi
    text=$(dd bs=1 count=$((0x$size - 4)) 2>/dev/null)
    if [ "$text" = done ]; then
        printf '0008NAK\n'
        exec cat 'FOLDER/pack'
    fi
done
"#;

/// Nothing that a terminal would obey, but line ends.
#[track_caller]
pub fn expect_harmless(text: &str) {
    let bad =
        |c: &char| (c.is_control() && *c != '\n') || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    assert!(!text.chars().any(|c| bad(&c)), "{text:?}");
}

/// Everything around the apps, but what poller and the tests write to: nothing of it may change.
fn surroundings(world: &World) -> String {
    let find = "cd \"$1\" && find . -path ./var -prune -o -path ./target -prune -o -path ./server -prune \
         -o -path ./work -prune -o -path ./sshd -prune -o -path ./served -prune -o -path ./notes -prune -o -path ./metrics -prune \
         -o -path ./link-texts -prune -o -name '*.out' -o -name '*.err' \
         -o -type f -printf '%p %s %T@\\n' -o ! -type d -printf '%p %l\\n' | sort";
    crate::support::sh("sh", &["-c", find, "sh", world.root.to_str().unwrap()])
}

/// Every so many of them, or all.
pub fn sample<T>(cases: Vec<T>, one_in: usize) -> Vec<T> {
    if crate::all() { cases } else { cases.into_iter().step_by(one_in).collect() }
}
