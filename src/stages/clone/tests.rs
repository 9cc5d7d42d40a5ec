//! Both halves together: what is offered, what is taken, and that the release is whole whichever it was.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use git2::{Repository, Signature};

use super::*;
use crate::commit::Commit;
use crate::journal::state::Published;
use crate::processes::messages::{Base, StagerReply, StreamTree};
use crate::processes::wire::{put_frame, read_frame};
use crate::stages::stream::Outgoing;

const LARGE: usize = 100_000;
const OLD: &str = "20260102T030405Z-0123456789012345678901234567890123456789";
const NEW: &str = "20260102T030406Z-0123456789012345678901234567890123456789";

/// A repository and a target, removed with the value.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

type Files<'a> = [(&'a str, i32, Vec<u8>)];

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("poller-clone-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(path.join("target/releases").join(OLD)).unwrap();
        Repository::init_bare(path.join("repo")).unwrap();
        Scratch(path)
    }

    fn repo(&self) -> Repository {
        Repository::open_bare(self.0.join("repo")).unwrap()
    }

    fn commit(&self, files: &Files) -> Commit {
        let repo = self.repo();
        let mut tree = repo.treebuilder(None).unwrap();
        for (name, mode, bytes) in files {
            tree.insert(*name, repo.blob(bytes).unwrap(), *mode).unwrap();
        }
        let tree = repo.find_tree(tree.write().unwrap()).unwrap();
        let who = Signature::now("a", "a@b").unwrap();
        repo.commit(None, &who, &who, "x", &tree, &[]).unwrap().into()
    }

    /// The release before, whatever its commit says.
    fn put(&self, name: &str, bytes: &[u8]) {
        fs::write(self.0.join("target/releases").join(OLD).join(name), bytes).unwrap();
    }

    fn outgoing(&self, old: &Commit, new: &Commit, shared: &[&str]) -> (Outgoing, Vec<u8>) {
        let published = Published { commit: old.clone(), subdir: None };
        let base = Base { release: OLD.to_owned(), published };
        let request = StreamTree {
            commit: Some(new.clone()),
            subdir: None,
            shared: shared.iter().map(|&path| path.to_owned()).collect(),
            bases: Vec::new(),
            base: Some(base.clone()),
        };
        let mut outgoing = Outgoing::new(&self.repo(), &request).unwrap();
        let mut pipe = Vec::new();
        outgoing.offer(&self.repo(), &base, &mut pipe).unwrap();
        (outgoing, pipe)
    }

    fn target(&self) -> Target {
        Target::open(&self.0.join("target")).unwrap()
    }

    fn released(&self) -> BTreeMap<String, (u32, Vec<u8>)> {
        read(&self.0.join("target/releases").join(NEW))
    }
}

fn read(folder: &Path) -> BTreeMap<String, (u32, Vec<u8>)> {
    let entries = fs::read_dir(folder).unwrap().flatten();
    let file = |path: &Path| (fs::metadata(path).unwrap().permissions().mode() & 0o111, fs::read(path).unwrap());
    entries.map(|entry| (entry.file_name().into_string().unwrap(), file(&entry.path()))).collect()
}

/// The frames of a kind, each without its first `skip` bytes.
fn frames(mut pipe: &[u8], kinds: &[u8], skip: usize) -> Vec<String> {
    let (mut found, mut body) = (Vec::new(), Vec::new());
    while let Some(kind) = read_frame(&mut pipe, &mut body).unwrap() {
        if kinds.contains(&kind) {
            found.push(String::from_utf8(body[skip..].to_vec()).unwrap());
        }
    }
    found
}

fn large(seed: u8) -> Vec<u8> {
    vec![seed; LARGE]
}

const FILE: i32 = 0o100_644;
const TOOL: i32 = 0o100_755;
const LINK: i32 = 0o120_000;

#[test]
fn what_is_large_and_the_same_is_offered_and_not_sent_unless_it_is_lacking() {
    let scratch = Scratch::new("offer");
    let old = scratch.commit(&[
        ("REVISION", FILE, large(0)),
        ("a", FILE, large(1)),
        ("b", FILE, large(2)),
        ("c", FILE, large(3)),
        ("d", TOOL, large(4)),
        ("link", LINK, large(5)),
        ("media", FILE, large(6)),
        ("moved", FILE, large(7)),
        ("small", FILE, b"small".to_vec()),
    ]);
    let new = scratch.commit(&[
        ("REVISION", FILE, large(0)),
        ("a", FILE, large(1)),
        ("b", TOOL, large(2)),
        ("c", FILE, large(33)),
        ("d", TOOL, large(4)),
        ("link", LINK, large(5)),
        ("media", FILE, large(6)),
        ("moved-here", FILE, large(7)),
        ("small", FILE, b"small".to_vec()),
    ]);
    let (mut outgoing, pipe) = scratch.outgoing(&old, &new, &["media"]);
    assert_eq!(frames(&pipe, &[OFFER], 28), ["a"]);
    assert_eq!(frames(&pipe, &[OFFER_EXECUTABLE], 28), ["b", "d"]);
    // Numbers that were not offered ask for nothing.
    outgoing.keep_back(&[1, 3, u32::MAX]);
    let mut pipe = Vec::new();
    outgoing.stream(&scratch.repo(), &mut pipe).unwrap();
    let sent = [crate::stages::stream::FILE, crate::stages::stream::EXECUTABLE];
    assert_eq!(frames(&pipe, &sent, 9), ["b", "c", "moved-here", "small"]);
}

/// Whether this file system can clone or not.
#[test]
fn a_release_is_whole_whatever_became_of_the_one_before() {
    let scratch = Scratch::new("whole");
    let files: Vec<_> = (0..6).map(|n| (["a", "b", "c", "d", "e", "f"][n], FILE, large(n as u8))).collect();
    let old = scratch.commit(&files);
    let new = scratch.commit(&[&files[..], &[("new", TOOL, b"new".to_vec())]].concat());
    scratch.put(REVISION, b"x");
    scratch.put("a", &large(0));
    scratch.put("b", &large(99));
    scratch.put("c", b"short");
    std::os::unix::fs::symlink("a", scratch.0.join("target/releases").join(OLD).join("d")).unwrap();
    fs::create_dir(scratch.0.join("target/releases").join(OLD).join("e")).unwrap();

    let (mut outgoing, pipe) = scratch.outgoing(&old, &new, &[]);
    let target = scratch.target();
    let (begun, lacking) = target.clone_release(NEW, OLD, &mut pipe.as_slice()).unwrap();
    let can = target.can_clone(OLD);
    assert_eq!(lacking, if can { vec![1, 2, 3, 4, 5] } else { vec![0, 1, 2, 3, 4, 5] });
    let partial = scratch.0.join("target/releases").join(format!("{NEW}.partial"));
    assert_eq!(read(&partial).len(), usize::from(can), "nothing is left of what did not fit");
    outgoing.keep_back(&lacking);
    let mut pipe = Vec::new();
    outgoing.stream(&scratch.repo(), &mut pipe).unwrap();
    let reply = target.stage_release(begun, Some(&new), &[], &mut pipe.as_slice()).unwrap();
    let bytes = 6 * LARGE as u64 + 3;
    assert_eq!(reply, StagerReply::Staged { files: 7, bytes, cloned: u64::from(can), warnings: Vec::new() });
    let mut released = scratch.released();
    assert_eq!(released.remove(REVISION).unwrap().1, format!("{new}\n").into_bytes());
    for (name, _, bytes) in &files {
        assert_eq!(released.remove(*name), Some((0, bytes.clone())), "{name}");
    }
    assert_eq!(released.remove("new"), Some((0o111, b"new".to_vec())));
    assert!(released.is_empty());
}

#[test]
fn a_release_that_is_none_is_not_cloned_from() {
    let scratch = Scratch::new("names");
    for name in ["..", "../releases", "elsewhere", "20260102T030405Z-0123", ""] {
        assert!(!scratch.target().can_clone(name), "{name}");
    }
}

#[test]
fn an_offer_that_is_none_is_an_error_and_leaves_nothing() {
    let scratch = Scratch::new("garbage");
    let frame = |kind: u8, body: &[u8]| {
        let mut pipe = Vec::new();
        put_frame(&mut pipe, kind, &[body]).unwrap();
        pipe
    };
    let named = |path: &[u8]| [&[0; 28][..], path].concat();
    for bad in [
        Vec::new(),
        frame(OFFER, &[0; 28]),
        frame(OFFER, &named(b"a")),
        frame(OFFER, &named(b"../a")),
        frame(OFFER, &named(b"/etc/passwd")),
        frame(OFFER_EXECUTABLE, &named(b"a/.git/hooks/x")),
        frame(b'F', &named(b"a")),
    ] {
        assert!(scratch.target().clone_release(NEW, OLD, &mut bad.as_slice()).is_err());
        assert_eq!(read_names(&scratch.0.join("target/releases")), [OLD]);
    }
}

fn read_names(folder: &Path) -> Vec<String> {
    fs::read_dir(folder).unwrap().flatten().map(|entry| entry.file_name().into_string().unwrap()).collect()
}
