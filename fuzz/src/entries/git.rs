//! What lies in a repository: journals that were damaged, and trees and tags that a server made up.

use jiff::Timestamp;

use super::{assert_printable, text};
use crate::commit::Commit;
use crate::journal::damaged;
use crate::journal::state::{Run, State};
use crate::outcome::{Class, Failure};
use crate::remote::ls_refs::{Advertised, highest};
use crate::stages::decide::{Decision, Force, Policy, decide, newest_known, state_word};
use crate::stages::lock::Content;
use crate::stages::tree;

/// A `state.toml`, a `run.toml` or a lock file: what can be read is the same when it is written anew, and
/// whatever it says, something is decided.
pub fn journal(data: &[u8]) {
    let text = text(data);
    if let Some(state) = same_again::<State>(&text) {
        act_on(&state);
    }
    same_again::<Run>(&text);
    same_again::<Content>(&text);
}

fn same_again<T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug>(
    text: &str,
) -> Option<T> {
    let first: T = toml::from_str(text).ok()?;
    let written = toml::to_string(&first).unwrap();
    assert_eq!(toml::from_str::<T>(&written).as_ref(), Ok(&first), "{written}");
    Some(first)
}

fn act_on(state: &State) {
    let other = Commit::from_bytes(&[7; 20]);
    let _ = (newest_known(state), state.unfinished_rollback());
    for tip in [&other, newest_known(state).unwrap_or(&other)] {
        for (force, soak) in [(Force::No, 0), (Force::Retry, u64::MAX), (Force::Yes, 600)] {
            let soak = std::time::Duration::from_secs(soak);
            let policy = Policy { retries: 3, paths: &[], soak, force, waited: 1 };
            for now in [Timestamp::MIN, Timestamp::UNIX_EPOCH, Timestamp::MAX] {
                let decision = decide(state, tip, &policy, now);
                assert!(!state_word(state, Some(tip), &policy, now).is_empty());
                if let Decision::Skip(skip) = decision {
                    assert!(!skip.to_string().is_empty());
                }
            }
        }
    }
}

/// A loose object that is cut short anywhere is seen to be, and none is inflated without end.
pub fn loose_object(data: &[u8]) {
    let mut inflate = flate2::Decompress::new(true);
    let mut space = vec![0; 1 << 16];
    // How much of the data is the object; what stands behind it is nobody's.
    let mut ended = false;
    while (inflate.total_in() as usize) < data.len() && inflate.total_out() < 1 << 20 {
        let rest = &data[inflate.total_in() as usize..];
        match inflate.decompress(rest, &mut space, flate2::FlushDecompress::None) {
            Ok(flate2::Status::StreamEnd) => {
                ended = true;
                break;
            }
            Ok(_) => {}
            Err(_) => break,
        }
    }
    if inflate.total_out() >= 1 << 20 {
        return;
    }
    let end = inflate.total_in() as usize;
    assert_eq!(damaged::is_whole(data), ended && inflate.total_out() > 0);
    if ended {
        for cut in [0, end / 2, end - 1] {
            assert!(!damaged::is_whole(&data[..cut]), "cut at {cut}");
        }
    }
    if damaged::is_commit(data) {
        assert!(inflate.total_out() >= 7);
    }
}

/// A tree object as a server made it up: what is published has names that stay inside, and nothing twice.
pub fn tree(data: &[u8]) {
    let odb = git2::Odb::new().unwrap();
    odb.add_new_mempack_backend(1).unwrap();
    // The other half of the data is a folder in it, should the first half name one.
    let (outer, inner) = data.split_at(data.len() / 2);
    let inner = odb.write(git2::ObjectType::Tree, inner).unwrap();
    let outer = [b"40000 folder\0", inner.as_bytes(), outer].concat();
    for raw in [data, &outer] {
        let id = odb.write(git2::ObjectType::Tree, raw).unwrap();
        match tree::leaves(&odb, id) {
            Ok(leaves) => {
                for path in leaves.keys() {
                    assert!(path.len() <= 3500);
                    assert!(path.split(|&b| b == b'/').all(|part| tree::bad_name(part).is_none()), "{path:?}");
                }
                let changes = tree::changes(&odb, None, Some(id)).unwrap();
                assert!(changes.keys().eq(leaves.keys()), "all of it is new where nothing was");
                assert!(tree::changes(&odb, Some(id), Some(id)).unwrap().is_empty());
            }
            Err(error) => {
                // Protocol: a tree that it names is not here.
                let failure = Failure::of(error);
                assert!(matches!(failure.class, Class::Refused | Class::Protocol), "{failure}");
                assert_printable(&failure.message);
            }
        }
    }
}

/// A pattern on the first line, tags on the others. The highest is one of them, in whatever order they came.
pub fn versions(data: &[u8]) {
    let text = text(data);
    let mut lines: Vec<&str> = text.lines().collect();
    let pattern = if lines.is_empty() { "" } else { lines.remove(0) };
    lines.sort_unstable();
    lines.dedup();
    let tag = |name: &&str| Advertised { name: format!("refs/tags/{name}"), id: [1; 20], peeled: None };
    let mut refs: Vec<Advertised> = lines.iter().map(tag).collect();
    let found = highest(pattern, &refs).cloned();
    refs.reverse();
    assert_eq!(highest(pattern, &refs).cloned(), found);
    if let Some(found) = found {
        let name = found.name.strip_prefix("refs/tags/").unwrap();
        assert!(crate::remote::wildcard::fits(pattern, name));
        // Without the highest, another one is.
        refs.retain(|one| *one != found);
        assert_ne!(highest(pattern, &refs), Some(&found));
    }
}
