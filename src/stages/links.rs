//! Does a symbolic link stay inside the published tree? A pure function over all
//! links of a tree, so that a commit is judged before a single file of it lies on
//! the disk: a link that leads out could make a web server publish, or a script
//! overwrite, what lies beside the release.
//!
//! Resolution is physical, as the kernel's: `..` leads to the parent of the folder
//! a link led to, not of the name it was reached by.

use std::collections::BTreeMap;

use super::stream::is_shared;

/// Links the kernel follows in one resolution before it says ELOOP.
const MAX_FOLLOWED: usize = 40;
/// Longest target, one less than Linux's PATH_MAX.
pub const MAX_TARGET: usize = 4095;
/// Bytes of a path or target quoted in a reason.
const QUOTED: usize = 120;

/// All links of the tree, path → target, both as raw bytes; paths are relative to
/// the published root and '/'-separated.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Links {
    links: BTreeMap<Vec<u8>, Vec<u8>>,
    shared: Vec<String>,
}

impl Links {
    #[cfg(test)]
    pub fn new() -> Links {
        Links::default()
    }

    /// Of a tree in which these paths will be links to elsewhere.
    pub fn with_shared(shared: &[String]) -> Links {
        Links { shared: shared.to_vec(), ..Links::default() }
    }

    pub fn insert(&mut self, path: Vec<u8>, target: Vec<u8>) {
        self.links.insert(path, target);
    }

    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.links.iter().map(|(path, target)| (&**path, &**target))
    }

    /// Why following the link at `path` can leave the root, or is nothing to
    /// follow at all; `None` for a harmless link and for what is no link. `steps` is what may still be
    /// walked for all links together: a small tree can have ways without end.
    pub fn escapes(&self, path: &[u8], steps: &mut usize) -> Option<String> {
        let target = self.links.get(path)?;
        let mut folder = parent(path).to_vec();
        // What is still to be walked, the next component last.
        let mut ahead = Vec::new();
        if let Err(reason) = enter(target, &mut ahead, steps) {
            return Some(reason);
        }
        let mut followed = 1;
        while let Some(component) = ahead.pop() {
            if component == b".." {
                if is_shared(&folder, &self.shared) {
                    let by = quote(&folder);
                    return Some(format!(
                        "{} leads up from {by}, which `[target] shared` links elsewhere",
                        quote(target)
                    ));
                }
                if folder.is_empty() {
                    return Some(format!("{} leads above the published root", quote(target)));
                }
                folder.truncate(parent(&folder).len());
                continue;
            }
            let here = folder.len();
            if here > 0 {
                folder.push(b'/');
            }
            folder.extend_from_slice(component);
            let Some(next) = self.links.get(&folder) else {
                continue;
            };
            followed += 1;
            if followed > MAX_FOLLOWED {
                return None;
            }
            if let Err(reason) = enter(next, &mut ahead, steps) {
                let by = quote(&folder);
                return Some(format!("{} goes through the link {by}: {reason}", quote(target)));
            }
            folder.truncate(here);
        }
        None
    }
}

/// Puts a target's components before those still to be walked.
fn enter<'a>(target: &'a [u8], ahead: &mut Vec<&'a [u8]>, steps: &mut usize) -> Result<(), String> {
    if target.is_empty() {
        return Err("the target is empty".to_owned());
    }
    if target.len() > MAX_TARGET {
        return Err(format!("the target is longer than {MAX_TARGET} bytes"));
    }
    if target.contains(&0) {
        return Err(format!("{} has a NUL byte in it", quote(target)));
    }
    if target[0] == b'/' {
        return Err(format!("{} is an absolute path", quote(target)));
    }
    let before = ahead.len();
    let components = target.rsplit(|byte| *byte == b'/');
    ahead.extend(components.filter(|component| !matches!(*component, b"" | b".")));
    let left = steps.checked_sub(ahead.len() - before + 1);
    *steps = left.ok_or("it takes too long to see where all the links lead")?;
    Ok(())
}

/// The folder a path lies in; empty for the root.
fn parent(path: &[u8]) -> &[u8] {
    let end = path.iter().rposition(|byte| *byte == b'/');
    &path[..end.unwrap_or(0)]
}

/// For a message: what a commit says is data, never a terminal code.
fn quote(bytes: &[u8]) -> String {
    let cut = &bytes[..bytes.len().min(QUOTED)];
    let dots = if cut.len() < bytes.len() { "…" } else { "" };
    format!("\"{}{dots}\"", cut.escape_ascii())
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests {
    use super::*;

    fn links(pairs: &[(&str, &str)]) -> Links {
        let mut links = Links::new();
        for (path, target) in pairs {
            links.insert(path.as_bytes().to_vec(), target.as_bytes().to_vec());
        }
        links
    }

    #[test]
    fn a_single_link_is_judged_from_its_own_folder() {
        // (path, target, does it leave)
        let table = [
            ("m", "file", false),
            ("m", ".", false),
            ("m", "..", true),
            ("m", "./a//b/./c/", false),
            ("m", "a/..", false),
            ("m", "a/../..", true),
            ("m", "a/../../release/file", true),
            ("m", "not/there/../../..", true),
            ("m", "..a/...", false),
            ("m", "/etc/passwd", true),
            ("m", "//", true),
            ("a/b/m", "../..", false),
            ("a/b/m", "../../..", true),
            ("a/b/m", "../../c", false),
            ("a/b/c/up", "../../..", false),
            ("m", "", true),
            ("m", "a\0b", true),
        ];
        for (path, target, leaves) in table {
            let reason = links(&[(path, target)]).escapes(path.as_bytes(), &mut 100_000);
            assert_eq!(reason.is_some(), leaves, "{path} -> {target}: {reason:?}");
        }
        let long = |length| links(&[("m", &"x".repeat(length))]).escapes(b"m", &mut 100_000);
        assert_eq!(long(4095), None);
        assert!(long(4096).is_some());
    }

    #[test]
    fn two_dots_lead_to_the_parent_of_where_a_link_led() {
        let tree = links(&[
            ("a/b/c/up", "../../.."),
            ("m", "a/b/c/up/.."),
            ("stays", "a/b/c/up/a/b/.."),
            ("deep", "a/b/c"),
            ("a/d", "../deep/../.."),
            ("a/e", "../deep/../../../.."),
            ("loud", "quiet"),
            ("quiet", "etc/link"),
            ("etc/link", "/etc"),
            ("via", "loud/../.."),
        ]);
        // (path, does it leave)
        let table = [
            ("a/b/c/up", false),
            ("m", true),
            ("stays", false),
            ("deep", false),
            ("a/d", false),
            ("a/e", true),
            ("loud", true),
            ("quiet", true),
            ("via", true),
            ("a/b", false),
        ];
        for (path, leaves) in table {
            let reason = tree.escapes(path.as_bytes(), &mut 100_000);
            assert_eq!(reason.is_some(), leaves, "{path}: {reason:?}");
        }
    }

    #[test]
    fn nothing_leads_up_from_what_is_shared() {
        let shared = ["public/uploads/".to_owned(), "db".to_owned()];
        for (path, target, leaves) in [
            ("m", "public/uploads/a", false),
            ("m", "public/uploads/..", true),
            ("m", "public/uploads/a/../b", true),
            ("public/m", "uploads/../../private.key", true),
            ("public/m", "../db", false),
            ("m", "public/uploads.d/..", false),
        ] {
            let mut tree = Links::with_shared(&shared);
            tree.insert(path.as_bytes().to_vec(), target.as_bytes().to_vec());
            let reason = tree.escapes(path.as_bytes(), &mut 100_000);
            assert_eq!(reason.is_some(), leaves, "{path} -> {target}: {reason:?}");
        }
    }

    #[test]
    fn a_loop_ends_and_is_harmless() {
        let tree = links(&[("a", "b"), ("b", "a"), ("self", "self"), ("x", "x/..")]);
        for path in ["a", "b", "self", "x"] {
            assert_eq!(tree.escapes(path.as_bytes(), &mut 100_000), None);
        }
    }

    #[test]
    fn forty_links_are_followed_as_the_kernel_would() {
        let chain = |length: usize| {
            let mut tree = Links::new();
            for step in 1..length {
                let next = format!("l{}", step + 1);
                tree.insert(format!("l{step}").into_bytes(), next.into_bytes());
            }
            tree.insert(format!("l{length}").into_bytes(), b"..".to_vec());
            tree.escapes(b"l1", &mut 100_000)
        };
        assert!(chain(40).is_some());
        assert_eq!(chain(41), None);
    }

    #[test]
    fn a_reason_says_which_link_is_to_blame_and_carries_no_terminal_code() {
        let tree = links(&[("m", "a/x\u{1b}[2J"), ("a/x\u{1b}[2J", "/etc")]);
        assert_eq!(
            tree.escapes(b"m", &mut 100_000).unwrap(),
            r#""a/x\x1b[2J" goes through the link "a/x\x1b[2J": "/etc" is an absolute path"#
        );
        assert_eq!(tree.iter().count(), 2);
    }
}
