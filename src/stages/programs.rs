//! Programs: what stands in a commit where the configuration names a command. Runs in the fetcher, for
//! `check`: a script that is missing or not executable is better known before a deploy fails on it.

use anyhow::Result;
use git2::{Odb, Repository};

use super::stream::is_shared;
use super::tree::{self, Kind, Leaf, Leaves};
use super::verify::published_tree;
use crate::commit::Commit;
use crate::processes::messages::{First, InTree, Mode, Programs};
use crate::report::printable;

/// As many links as the kernel follows.
const MOST_LINKS: usize = 40;
/// What the kernel reads of a first line, and some.
const LONGEST_FIRST: usize = 256;

pub fn look(repo: &Repository, commit: &Commit, request: &Programs) -> Result<Vec<InTree>> {
    let odb = repo.odb()?;
    let tree = published_tree(repo, commit.oid()?, request.subdir.as_deref())?;
    let leaves = tree::leaves(&odb, tree)?;
    Ok(request.paths.iter().map(|path| find(&odb, &leaves, path, &request.shared)).collect())
}

fn find(odb: &Odb, leaves: &Leaves, path: &str, shared: &[String]) -> InTree {
    let Some(path) = resolve(odb, leaves, path) else { return InTree::Elsewhere };
    if is_shared(&path, shared) {
        return InTree::Elsewhere;
    }
    let folder = [&path[..], b"/"].concat();
    let below = leaves.range(folder.clone()..).next().is_some_and(|(name, _)| name.starts_with(&folder));
    match leaves.get(&path) {
        Some(Leaf { kind: Kind::Submodule, .. }) => InTree::Folder,
        Some(leaf @ Leaf { kind: Kind::File, .. }) => InTree::File { mode: Mode::Plain, first: first(odb, leaf) },
        Some(leaf) => InTree::File { mode: Mode::Executable, first: first(odb, leaf) },
        None if below || path.is_empty() => InTree::Folder,
        None => InTree::Missing,
    }
}

/// Where a path leads when links are followed as the kernel would; None for out of the tree.
fn resolve(odb: &Odb, leaves: &Leaves, path: &str) -> Option<Vec<u8>> {
    let mut ahead = parts(path.as_bytes());
    let mut here: Vec<Vec<u8>> = Vec::new();
    let mut followed = 0;
    while let Some(part) = ahead.pop() {
        if part == b".." {
            here.pop()?;
            continue;
        }
        here.push(part);
        let Some(leaf) = leaves.get(&here.join(&b'/')).filter(|leaf| leaf.kind == Kind::Link) else { continue };
        let target = odb.read(leaf.id).ok()?;
        followed += 1;
        if followed > MOST_LINKS || target.data().starts_with(b"/") {
            return None;
        }
        here.pop();
        ahead.extend(parts(target.data()));
    }
    Some(here.join(&b'/'))
}

/// The parts of a path, the first one last.
fn parts(path: &[u8]) -> Vec<Vec<u8>> {
    let parts = path.split(|&b| b == b'/').filter(|part| !part.is_empty() && *part != b".");
    parts.rev().map(<[u8]>::to_vec).collect()
}

fn first(odb: &Odb, leaf: &Leaf) -> First {
    odb.read(leaf.id).map_or(First::Other, |object| beginning(object.data()))
}

/// What a file's first bytes say about who runs it.
fn beginning(data: &[u8]) -> First {
    if data.starts_with(b"\x7fELF") {
        return First::Elf;
    }
    let Some(rest) = data.strip_prefix(b"#!") else { return First::Other };
    let end = rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len()).min(LONGEST_FIRST);
    // A carriage return stays to be seen: it is part of the name that the kernel looks for.
    First::Interpreter(printable(String::from_utf8_lossy(&rest[..end]).trim_matches([' ', '\t'])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_line_names_its_interpreter() {
        let interpreter = |text: &str| First::Interpreter(text.to_owned());
        for (data, expected) in [
            (&b"#!/bin/sh\nset -e\n"[..], interpreter("/bin/sh")),
            (b"#! /usr/bin/env python3", interpreter("/usr/bin/env python3")),
            (b"#!/bin/sh\r\n", interpreter("/bin/sh\\r")),
            (b"#!\n", interpreter("")),
            (b"\x7fELF\x02", First::Elf),
            (b"echo hello\n", First::Other),
            (b"", First::Other),
        ] {
            assert_eq!(beginning(data), expected);
        }
    }
}
