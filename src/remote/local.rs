//! A repository on this machine: `file://` and plain paths, read by libgit2.

use std::path::Path;

use anyhow::{Context, Result};
use git2::Direction;

use super::ls_refs::Advertised;
use crate::outcome::{Class, Failure};

/// All refs of the repository, annotated tags with what they peel to.
pub fn refs(path: &Path) -> Result<Vec<Advertised>, Failure> {
    list(path).map_err(|e| {
        Failure::new(Class::Unreachable, format!("{}: {e:#}", path.display()))
            .help("is it a git repository that poller's fetch user can read?")
    })
}

fn list(path: &Path) -> Result<Vec<Advertised>> {
    let url = path.to_str().context("a path that is not UTF-8")?;
    let mut remote = git2::Remote::create_detached(url)?;
    remote.connect(Direction::Fetch)?;
    let mut found: Vec<Advertised> = Vec::new();
    for head in remote.list()? {
        let (name, id) = (head.name(), raw(head.oid()));
        match name.strip_suffix("^{}") {
            // The peeled value follows the tag that it belongs to.
            Some(tag) => {
                if let Some(last) = found.last_mut().filter(|last| last.name == tag) {
                    last.peeled = Some(id);
                }
            }
            None => found.push(Advertised { name: name.to_owned(), id, peeled: None }),
        }
    }
    Ok(found)
}

fn raw(id: git2::Oid) -> [u8; 20] {
    let mut bytes = [0; 20];
    bytes.copy_from_slice(id.as_bytes());
    bytes
}
