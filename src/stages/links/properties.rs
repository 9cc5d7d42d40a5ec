//! What is accepted, held against the plainest resolver, and against the kernel's own.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;

fn name() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("a"), Just("b"), Just("c")]
}

fn path() -> impl Strategy<Value = String> {
    prop::collection::vec(name(), 1..4).prop_map(|parts| parts.join("/"))
}

fn target() -> impl Strategy<Value = String> {
    let part = prop_oneof![4 => name(), 3 => Just(".."), 1 => Just("."), 1 => Just("")];
    prop::collection::vec(part, 0..7).prop_map(|parts| parts.join("/"))
}

fn tree() -> impl Strategy<Value = Vec<(String, String)>> {
    prop::collection::btree_map(path(), target(), 1..8).prop_map(|all| all.into_iter().collect())
}

fn links(tree: &[(String, String)]) -> Links {
    let mut links = Links::new();
    for (path, target) in tree {
        links.insert(path.clone().into_bytes(), target.clone().into_bytes());
    }
    links
}

enum Walked {
    Inside,
    Outside,
    /// More links than the kernel follows.
    TooFar,
}

/// From a folder along a target, one part after another, into each link as it is met.
fn walk(tree: &[(String, String)], here: &mut Vec<String>, target: &str, left: &mut usize) -> Walked {
    if *left == 0 {
        return Walked::TooFar;
    }
    *left -= 1;
    if target.is_empty() || target.starts_with('/') {
        return Walked::Outside;
    }
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." if here.pop().is_none() => return Walked::Outside,
            ".." => {}
            name => {
                here.push(name.to_owned());
                if let Some((_, next)) = tree.iter().find(|(path, _)| *path == here.join("/")) {
                    here.pop();
                    match walk(tree, here, next, left) {
                        Walked::Inside => {}
                        other => return other,
                    }
                }
            }
        }
    }
    Walked::Inside
}

/// Makes the links of a tree that are accepted, and folders for them to lead through. Folders come first, so
/// that nothing is ever made through a link; nothing lies below a link in a tree of git's either.
fn make(root: &Path, tree: &[(String, String)]) {
    let is_below = |path: &str| tree.iter().any(|(link, _)| path.starts_with(&format!("{link}/")));
    let is_link = |path: &str| tree.iter().any(|(link, _)| link == path);
    for folder in ["a/a", "a/b", "b/a", "b/c", "c/c/c"] {
        if !is_below(folder) && !is_link(folder) {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
    }
    for (path, _) in tree.iter().filter(|(path, _)| !is_below(path)) {
        fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
    }
    for (path, target) in tree.iter().filter(|(path, _)| !is_below(path)) {
        // Where another link needs a folder of this name, it has one.
        let _ = std::os::unix::fs::symlink(target, root.join(path));
    }
}

struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

proptest! {
    #[test]
    fn a_link_is_refused_exactly_when_the_plainest_resolver_gets_out(tree in tree()) {
        let links = links(&tree);
        for (path, target) in &tree {
            let mut here: Vec<String> = path.split('/').map(str::to_owned).collect();
            here.pop();
            let leaves = matches!(walk(&tree, &mut here, target, &mut MAX_FOLLOWED.clone()), Walked::Outside);
            prop_assert_eq!(links.escapes(path.as_bytes(), &mut usize::MAX.clone()).is_some(), leaves, "{} -> {}", path, target);
        }
    }

    #[test]
    fn a_link_that_is_accepted_stays_inside_for_the_kernel_too(tree in tree()) {
        let scratch = Scratch(std::env::temp_dir().join(format!("poller-links-{}", std::process::id())));
        let root = scratch.0.join("outside/release");
        fs::create_dir_all(&root).unwrap();
        let root = root.canonicalize().unwrap();
        let links = links(&tree);
        let accepted: Vec<(String, String)> =
            tree.into_iter().filter(|(path, _)| links.escapes(path.as_bytes(), &mut usize::MAX.clone()).is_none()).collect();
        make(&root, &accepted);
        for (path, _) in &accepted {
            if let Ok(reached) = root.join(path).canonicalize() {
                prop_assert!(reached.starts_with(&root), "{} leads to {}", path, reached.display());
            }
        }
    }
}
