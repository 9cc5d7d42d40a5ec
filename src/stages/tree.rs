//! Git trees as a server sends them, read by poller's own eyes.
//!
//! A tree object can hold what no git program would write: `..`, names with a slash, a name twice,
//! modes that mean nothing. libgit2 normalises some of that away, so the raw bytes are parsed here
//! and whatever is not plainly sane is refused, before one byte is handed to the stager.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use git2::{ObjectType, Odb, OdbObject, Oid};

use crate::outcome::{Class, Failure};
use crate::report::printable;

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
const DEEPEST: usize = 200;
/// Longest path, below PATH_MAX with room for the target directory.
const LONGEST_PATH: usize = 3500;
/// Files and folders. A few small trees that name each other over and over make any number of them.
const MOST_ENTRIES: usize = 2_000_000;
/// Bytes of all paths together.
const MOST_PATHS: usize = 128 << 20;
/// Bytes of one tree object.
const LARGEST_TREE: usize = 64 << 20;

enum Item {
    Tree(Oid),
    Leaf(Leaf),
}

/// One way through a tree, or two of them side by side, and what it may still take.
struct Walk<'o> {
    odb: &'o Odb<'o>,
    entries: usize,
    paths: usize,
}

/// All leaves of a tree.
pub fn leaves(odb: &Odb, tree: Oid) -> Result<Leaves> {
    let mut all = Leaves::new();
    collect(&mut Walk::new(odb), tree, &mut Vec::new(), 0, &mut all)?;
    Ok(all)
}

fn collect(walk: &mut Walk, tree: Oid, path: &mut Vec<u8>, depth: usize, all: &mut Leaves) -> Result<()> {
    for (name, item) in walk.items(tree, path, depth)? {
        let length = path.len();
        enter(path, &name)?;
        match item {
            Item::Tree(id) => collect(walk, id, path, depth + 1, all)?,
            Item::Leaf(leaf) => {
                all.insert(path.clone(), leaf);
            }
        }
        path.truncate(length);
    }
    Ok(())
}

/// What is new, changed or gone from one tree to another. Equal folders are not opened.
pub fn changes(odb: &Odb, from: Option<Oid>, to: Option<Oid>) -> Result<BTreeMap<Vec<u8>, Change>> {
    let mut found = BTreeMap::new();
    compare(&mut Walk::new(odb), from, to, &mut Vec::new(), 0, &mut found)?;
    Ok(found)
}

fn compare(
    walk: &mut Walk,
    from: Option<Oid>,
    to: Option<Oid>,
    path: &mut Vec<u8>,
    depth: usize,
    found: &mut BTreeMap<Vec<u8>, Change>,
) -> Result<()> {
    if from == to {
        return Ok(());
    }
    let mut read = |tree: Option<Oid>| tree.map_or(Ok(BTreeMap::new()), |id| walk.items(id, path, depth));
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
        compare(walk, old_tree, new_tree, path, depth + 1, found)?;
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
        here = match Walk::new(odb).items(here, folder.as_bytes(), 0)?.remove(part.as_bytes()) {
            Some(Item::Tree(id)) => id,
            _ => return Ok(None),
        };
    }
    Ok(Some(here))
}

impl<'o> Walk<'o> {
    fn new(odb: &'o Odb<'o>) -> Self {
        Walk { odb, entries: MOST_ENTRIES, paths: MOST_PATHS }
    }

    /// One tree's entries, each name and mode judged.
    fn items(&mut self, tree: Oid, at: &[u8], depth: usize) -> Result<BTreeMap<Vec<u8>, Item>> {
        if depth > DEEPEST {
            return Err(refused(format!(
                "the tree is more than {DEEPEST} folders deep: {}…",
                show(&at[..at.len().min(60)])
            )));
        }
        let object = self.object(tree, at)?;
        let mut found = BTreeMap::new();
        let mut rest = object.data();
        while !rest.is_empty() {
            let (mode, name, id);
            (mode, name, id, rest) =
                next(rest).ok_or_else(|| refused(format!("a damaged tree object at {}", show(at))))?;
            let whole = || if at.is_empty() { show(name) } else { format!("{}/{}", show(at), show(name)) };
            if let Some(why) = bad_name(name) {
                return Err(refused(format!("the tree has the name {}, {why}", whole())));
            }
            self.count(at.len() + name.len() + 1)?;
            let item = item(mode, id).ok_or_else(|| {
                let other = show(mode);
                let allowed = "040000, 100644, 100755 and 120000";
                refused(format!("the tree has {} with the mode {other}, which is none of {allowed}", whole()))
            })?;
            // On a case-folding file system more would be one file; here they only must not be the same bytes.
            if found.insert(name.to_vec(), item).is_some() {
                return Err(refused(format!("the tree has the name {} twice", whole())));
            }
        }
        Ok(found)
    }

    fn object(&self, tree: Oid, at: &[u8]) -> Result<OdbObject<'o>> {
        let context = || format!("the tree {tree} of {}", show(at));
        let (size, kind) = self.odb.read_header(tree).with_context(context)?;
        if kind != ObjectType::Tree {
            return Err(refused(format!("{} is said to be a folder and is a {kind}", show(at))));
        }
        if size > LARGEST_TREE {
            return Err(refused(format!("the folder {} is a tree object of {size} bytes", show(at))));
        }
        self.odb.read(tree).with_context(context)
    }

    fn count(&mut self, path: usize) -> Result<()> {
        let entries = self.entries.checked_sub(1);
        let entries = entries.ok_or_else(|| refused(format!("the tree has more than {MOST_ENTRIES} files")))?;
        let paths = self.paths.checked_sub(path);
        let paths = paths.ok_or_else(|| refused(format!("the tree's paths have more than {MOST_PATHS} bytes")))?;
        (self.entries, self.paths) = (entries, paths);
        Ok(())
    }
}

fn item(mode: &[u8], id: Oid) -> Option<Item> {
    let leaf = |kind| Item::Leaf(Leaf { kind, id });
    Some(match mode {
        b"40000" => Item::Tree(id),
        b"100644" => leaf(Kind::File),
        b"100755" => leaf(Kind::Executable),
        b"120000" => leaf(Kind::Link),
        b"160000" => leaf(Kind::Submodule),
        _ => return None,
    })
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
    format!("`{}`", printable(&String::from_utf8_lossy(bytes)))
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
