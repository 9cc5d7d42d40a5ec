//! Git trees as a server sends them, read by poller's own eyes.
//!
//! A tree object can hold what no git program would write: `..`, names with a slash, a name twice,
//! modes that mean nothing. libgit2 normalises some of that away, so the raw bytes are parsed here
//! and whatever is not plainly sane is refused, before one byte is handed to the stager.

use std::collections::BTreeMap;

use anyhow::Result;
use git2::{ObjectType, Odb, Oid};

use super::fetch::is_ours;
use crate::outcome::{Class, Failure};
use crate::report::{excerpt, printable};

/// What is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    File,
    Executable,
    Link,
    /// Published as an empty folder.
    Submodule,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    pub kind: Kind,
    pub id: Oid,
}

/// Path to leaf, sorted; paths are raw bytes with `/` between the parts.
pub type Leaves = BTreeMap<Vec<u8>, Leaf>;

/// What stood under a path before, and what stands there now.
pub type Change = (Option<Leaf>, Option<Leaf>);

/// Deeper than any file system's path limit lets one go.
pub const DEEPEST: usize = 200;
/// Longest path, below PATH_MAX with room for the target directory.
const LONGEST_PATH: usize = 3500;
/// Files and folders in a commit. Ten small objects can stand for ten thousand million files: each of
/// ten trees has the next one ten times.
const MOST_ENTRIES: usize = 1_000_000;
/// The bytes of all paths together, for they are held in memory.
const MOST_PATH_BYTES: usize = 256 << 20;
/// One tree object, for it is held in memory too.
const LARGEST_TREE: usize = 128 << 20;

/// What a walk may still meet.
struct Budget {
    entries: usize,
    path_bytes: usize,
}

impl Budget {
    fn new() -> Budget {
        Budget { entries: MOST_ENTRIES, path_bytes: MOST_PATH_BYTES }
    }

    fn pay(&mut self, path: usize) -> Result<()> {
        let left = self.entries.checked_sub(1);
        self.entries = left.ok_or_else(|| {
            refused(format!("the tree has more than {MOST_ENTRIES} files and folders, the most that poller publishes"))
        })?;
        let left = self.path_bytes.checked_sub(path);
        self.path_bytes = left.ok_or_else(|| {
            refused(format!("the paths of the tree have more than {} MiB together", MOST_PATH_BYTES >> 20))
        })?;
        Ok(())
    }
}

enum Item {
    Tree(Oid),
    Leaf(Leaf),
}

/// All leaves of a tree.
pub fn leaves(odb: &Odb, tree: Oid) -> Result<Leaves> {
    let mut all = Leaves::new();
    collect(odb, tree, &mut Vec::new(), 0, &mut all, &mut Budget::new())?;
    Ok(all)
}

fn collect(
    odb: &Odb,
    tree: Oid,
    path: &mut Vec<u8>,
    depth: usize,
    all: &mut Leaves,
    budget: &mut Budget,
) -> Result<()> {
    for (name, item) in items(odb, tree, path, depth, budget)? {
        let length = path.len();
        enter(path, &name)?;
        match item {
            Item::Tree(id) => collect(odb, id, path, depth + 1, all, budget)?,
            Item::Leaf(leaf) => drop(all.insert(path.clone(), leaf)),
        }
        path.truncate(length);
    }
    Ok(())
}

/// What is new, changed or gone from one tree to another. Equal folders are not opened.
pub fn changes(odb: &Odb, from: Option<Oid>, to: Option<Oid>) -> Result<BTreeMap<Vec<u8>, Change>> {
    let mut found = BTreeMap::new();
    compare(odb, (from, to), &mut Vec::new(), 0, &mut found, &mut Budget::new())?;
    Ok(found)
}

fn compare(
    odb: &Odb,
    (from, to): (Option<Oid>, Option<Oid>),
    path: &mut Vec<u8>,
    depth: usize,
    found: &mut BTreeMap<Vec<u8>, Change>,
    budget: &mut Budget,
) -> Result<()> {
    if from == to {
        return Ok(());
    }
    let mut read = |tree: Option<Oid>| tree.map_or(Ok(BTreeMap::new()), |id| items(odb, id, path, depth, budget));
    let (mut old, mut new) = (read(from)?, read(to)?);
    let names: Vec<Vec<u8>> = old.keys().chain(new.keys().filter(|n| !old.contains_key(*n))).cloned().collect();
    for name in names {
        let length = path.len();
        enter(path, &name)?;
        let split = |item: Option<Item>| match item {
            None => (None, None),
            Some(Item::Tree(id)) => (Some(id), None),
            Some(Item::Leaf(leaf)) => (None, Some(leaf)),
        };
        let (old_tree, old_leaf) = split(old.remove(&name));
        let (new_tree, new_leaf) = split(new.remove(&name));
        if old_leaf != new_leaf {
            found.insert(path.clone(), (old_leaf, new_leaf));
        }
        compare(odb, (old_tree, new_tree), path, depth + 1, found, budget)?;
        path.truncate(length);
    }
    Ok(())
}

fn enter(path: &mut Vec<u8>, name: &[u8]) -> Result<()> {
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    if path.len() > LONGEST_PATH {
        return Err(refused(format!("a path of more than {LONGEST_PATH} bytes: {}…", show(&path[..100]))));
    }
    Ok(())
}

/// The tree of a folder in a commit's tree; None where there is none.
pub fn subtree(odb: &Odb, tree: Oid, folder: &str) -> Result<Option<Oid>> {
    let mut here = tree;
    for part in folder.split('/').filter(|p| !p.is_empty() && *p != ".") {
        here = match items(odb, here, folder.as_bytes(), 0, &mut Budget::new())?.remove(part.as_bytes()) {
            Some(Item::Tree(id)) => id,
            _ => return Ok(None),
        };
    }
    Ok(Some(here))
}

/// One tree's entries, each name and mode judged.
fn items(odb: &Odb, tree: Oid, at: &[u8], depth: usize, budget: &mut Budget) -> Result<BTreeMap<Vec<u8>, Item>> {
    if depth > DEEPEST {
        return Err(refused(format!(
            "the tree is more than {DEEPEST} folders deep: {}…",
            show(&at[..at.len().min(60)])
        )));
    }
    let missing = |e| missing(&format!("the folder {}", show(at)), tree, e);
    let (size, kind) = odb.read_header(tree).map_err(missing)?;
    if kind != ObjectType::Tree {
        return Err(refused(format!("{} is said to be a folder and is a {kind}", show(at))));
    }
    if size > LARGEST_TREE {
        return Err(refused(format!("the folder {} has {size} bytes of names", show(at))));
    }
    let object = odb.read(tree).map_err(missing)?;
    let mut found = BTreeMap::new();
    let mut rest = object.data();
    while !rest.is_empty() {
        let (mode, name, id);
        (mode, name, id, rest) = next(rest).ok_or_else(|| refused(format!("a damaged tree object at {}", show(at))))?;
        let whole = || {
            if at.is_empty() { show(name) } else { format!("{}/{}", show(at), show(name)) }
        };
        if let Some(why) = bad_name(name) {
            return Err(refused(format!("the tree has the name {}, {why}", whole())));
        }
        // On a case-folding file system more would be one file; here they only must not be the same bytes.
        if found.contains_key(name) {
            return Err(refused(format!("the tree has the name {} twice", whole())));
        }
        let leaf = |kind| Item::Leaf(Leaf { kind, id });
        let item = match mode {
            b"40000" => Item::Tree(id),
            b"100644" => leaf(Kind::File),
            b"100755" => leaf(Kind::Executable),
            b"120000" => leaf(Kind::Link),
            b"160000" => leaf(Kind::Submodule),
            other => {
                let other = show(other);
                return Err(refused(format!(
                    "the tree has {} with the mode {other}, which is none of 040000, 100644, 100755 and 120000",
                    whole()
                )));
            }
        };
        budget.pay(at.len() + 1 + name.len())?;
        found.insert(name.to_vec(), item);
    }
    Ok(found)
}

/// One entry as it stands in a tree object, and what follows it.
type RawEntry<'b> = (&'b [u8], &'b [u8], Oid, &'b [u8]);

/// `MODE SP NAME NUL ID`
fn next(bytes: &[u8]) -> Option<RawEntry<'_>> {
    let space = bytes.iter().position(|&b| b == b' ')?;
    let (mode, rest) = (&bytes[..space], &bytes[space + 1..]);
    let nul = rest.iter().position(|&b| b == 0)?;
    let (name, rest) = (&rest[..nul], &rest[nul + 1..]);
    let id = Oid::from_bytes(rest.get(..20)?).ok()?;
    Some((mode, name, id, &rest[20..]))
}

/// Why a name cannot be published; one part of a path.
pub fn bad_name(name: &[u8]) -> Option<&'static str> {
    if name.is_empty() {
        return Some("which is empty");
    }
    if name == b"." || name == b".." {
        return Some("which is not a name");
    }
    if name.contains(&b'/') || name.contains(&0) {
        return Some("which is a path");
    }
    if name.len() > 255 {
        return Some("which is longer than 255 bytes");
    }
    is_dot_git(name).then_some("which git keeps for itself")
}

/// `.git` in any spelling that some file system takes for it.
fn is_dot_git(name: &[u8]) -> bool {
    // HFS+ ignores these, so they are no difference.
    let ignored =
        |c: char| matches!(c, '\u{200c}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{206a}'..='\u{206f}' | '\u{feff}');
    let text: String = String::from_utf8_lossy(name).chars().filter(|&c| !ignored(c)).collect();
    // NTFS drops dots and spaces at the end, and what follows a colon.
    let text = text.split(':').next().unwrap_or_default().trim_end_matches(['.', ' ']).to_lowercase();
    text == ".git" || text == "git~1"
}

fn show(bytes: &[u8]) -> String {
    format!("`{}`", excerpt(bytes))
}

/// An object that a commit has and the repository has not, or not whole.
pub fn missing(what: &str, id: Oid, e: git2::Error) -> anyhow::Error {
    let message = format!("{what} ({id}) cannot be read");
    if is_ours(&e) {
        return anyhow::Error::from(e).context(message);
    }
    Failure::new(Class::Protocol, format!("{message}: {}", printable(e.message())))
        .help("the server left it out or sent it damaged: run git fsck there")
        .into()
}

fn refused(message: String) -> anyhow::Error {
    Failure::new(Class::Refused, message).help("nothing was written; find out who pushed this commit and how").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_no_names_are_told_apart_from_odd_ones() {
        for bad in [
            &b""[..],
            b".",
            b"..",
            b"a/b",
            b".git",
            b".GIT",
            b".git.",
            b".git ",
            b"git~1",
            b"GIT~1",
            ".g\u{200c}it".as_bytes(),
            b".git::$INDEX",
        ] {
            assert!(bad_name(bad).is_some(), "{}", show(bad));
        }
        assert!(bad_name(&[b'x'; 256]).is_some());
        for fine in [
            &b"a"[..],
            b".gitignore",
            b".gitmodules",
            b"...",
            b"a b",
            b"-",
            b"\xff\xfe",
            b"new\nline",
            b"git~2",
            &[b'x'; 255],
        ] {
            assert!(bad_name(fine).is_none(), "{}", show(fine));
        }
    }

    #[test]
    fn a_damaged_entry_is_seen() {
        let mut good = b"100644 a\0".to_vec();
        good.extend([7; 20]);
        assert!(next(&good).is_some());
        for length in 0..good.len() {
            assert!(next(&good[..length]).is_none(), "{length}");
        }
    }
}
