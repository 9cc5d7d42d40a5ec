//! Links that lead out of the tree, and links that do not.

use std::fs;
use std::os::unix::fs::symlink;

use super::{EXEC, FILE, FOLDER, Hostile, LINK, sample};
use crate::all;
use crate::support::{World, file};

#[test]
fn links_that_lead_out() {
    let mut hostile = Hostile::new("links out");
    let long = "x/".repeat(2048);
    let targets: Vec<(&[u8], &str)> = vec![
        (b"/etc/passwd", "is an absolute path"),
        (b"../../../outside", "leads above the published root"),
        (b"..", "leads above the published root"),
        (b"", "the target is empty"),
        (b"deploy.sh\0/../../x", "has a NUL byte in it"),
        (b"\0", "has a NUL byte in it"),
        (b"//", "is an absolute path"),
        (b"./deploy.sh/../../x", "leads above the published root"),
        (b"not/there/../../..", "leads above the published root"),
        (b"\x1b[2J/../../../x", "leads above the published root"),
        (b"new\nline/../..\n/../../x", "leads above the published root"),
        (b"\xff\xfe/../../..", "leads above the published root"),
        (long.as_bytes(), "the target is longer than 4095 bytes"),
    ];
    let targets = sample(targets, 3);
    for (target, why) in &targets {
        let shown = String::from_utf8_lossy(&target[..target.len().min(40)]).into_owned();
        let link = hostile.blob(target);
        hostile.refused(format!("to {shown:?}"), &[(LINK, b"evil", link)], why);
    }
    let deep = hostile.blob("../../../outside");
    let folder = hostile.tree(&[(LINK, b"evil", deep)]);
    hostile.refused("from a folder", &[(FOLDER, b"folder", folder)], "leads above the published root");
    // a/here is a, yet by its letters `a/here/..` looks like `a`.
    let (here, evil) = (hostile.blob("."), hostile.blob("a/here/../../.."));
    let folder = hostile.tree(&[(LINK, b"here", here)]);
    hostile.refused("by way of another", &[(FOLDER, b"a", folder), (LINK, b"evil", evil)], "leads above");
    let (one, two) = (hostile.blob("two"), hostile.blob("a/../.."));
    hostile.refused("by two names", &[(LINK, b"one", one), (LINK, b"two", two)], "leads above");
}

#[test]
fn links_of_many_bytes_or_steps() {
    let mut hostile = Hostile::new("many steps");
    hostile.tally.case("a link of many MB, thirty times");
    let big = hostile.blob(vec![b'x'; if all() { 100 << 20 } else { 5 << 20 }]);
    let names: Vec<_> = (0..30).map(|n| format!("link{n}")).collect();
    let commit = hostile.push(&names.iter().map(|n| (LINK, n.as_bytes(), big)).collect::<Vec<_>>());
    hostile.expect_refused(&commit, "the target is longer than 4095 bytes");
    hostile.tally.case("links whose ways have no end");
    // Each leads over the next ones again and again, as far as the kernel would go with it.
    let way = |n: usize| format!("link{n:06}/").repeat(300).into_bytes();
    let count = if all() { 100_000 } else { 20_000 };
    let ids: Vec<_> = (0..10).map(|n| hostile.blob(way(n + 1))).collect();
    let names: Vec<_> = (0..count).map(|n| format!("link{n:06}")).collect();
    let commit = hostile
        .push(&names.iter().zip(ids.iter().cycle()).map(|(n, id)| (LINK, n.as_bytes(), *id)).collect::<Vec<_>>());
    hostile.expect_refused(&commit, "it takes too long to see where all the links lead");
}

#[test]
fn links_that_stay_inside_are_published_as_links() {
    let mut hostile = Hostile::new("links inside");
    let text = hostile.blob("text\n");
    let to = |target: &str| hostile.blob(target);
    let (up, loops, other) = (to("../deploy.sh"), to("itself"), to("b"));
    let (dangling, dot, back) = (to("not-there"), to("."), to("a"));
    let (odd, longest) = (to("new\nline\u{1b}[2J"), to(&"x".repeat(4095)));
    let inner = hostile.tree(&[(LINK, b"up", up), (FILE, b"file", text)]);
    let entries = [
        (LINK, &b"a"[..], other),
        (LINK, b"b", back),
        (LINK, b"dangling", dangling),
        (LINK, b"dot", dot),
        (FOLDER, b"folder", inner),
        (LINK, b"itself", loops),
        (LINK, b"longest", longest),
        (LINK, b"odd", odd),
    ];
    let commit = hostile.published("up, dangling, loops, dots, 4095 bytes", &entries);
    hostile.expect_live(&commit);
}

/// What was a folder becomes a link, what was a link a folder, and so on: each time all that was there
/// is from the repository, so all of it gives way, and nothing goes through a link.
#[test]
fn things_that_change_their_kind() {
    let mut hostile = Hostile::new("kinds");
    let text = hostile.blob("text\n");
    let inner = hostile.tree(&[(FILE, b"deploy.sh", text), (FILE, b"file", text)]);
    let outer = hostile.tree(&[(FOLDER, b"inner", inner), (FILE, b"file", text)]);
    let (dot, folder) = (hostile.blob("."), hostile.blob("folder"));
    let kinds = [
        ("file", (FILE, text)),
        ("folder", (FOLDER, inner)),
        ("link to the root", (LINK, dot)),
        ("folder in a folder", (FOLDER, outer)),
        ("link to a folder", (LINK, folder)),
        ("program", (EXEC, text)),
        ("submodule", (super::SUBMODULE, text)),
    ];
    let some = vec![1, 0, 6, 2, 3, 4, 5, 6, 1];
    let every: Vec<usize> = (0..7).flat_map(|a| (0..7).flat_map(move |b| [a, (a + b) % 7])).collect();
    let mut last = "nothing";
    for kind in if all() { every } else { some } {
        let (name, (mode, id)) = kinds[kind];
        if name == last {
            continue;
        }
        let entries = [(FOLDER, &b"folder"[..], inner), (mode, b"thing", id)];
        let commit = hostile.published(format!("{last} becomes {name}"), &entries);
        if mode != super::SUBMODULE {
            hostile.expect_live(&commit);
        }
        last = name;
    }
}

#[test]
fn an_in_place_target_whose_folder_became_a_link_is_not_written_through() {
    let world = World::new("swapped");
    let mut tally = crate::tally::Tally::new(crate::tally::Group::Repository);
    world.app("site").in_place().write();
    let put = |text: &str| [("folder/page", file(text))];
    world.repo.commit(&put("one\n"), "folder");
    world.deployed_as_configured();
    let outside = world.path("notes/outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("page"), "precious\n").unwrap();
    world.deployer.own(&outside);
    let folder = world.target("site").join("folder");
    fs::remove_dir_all(&folder).unwrap();
    symlink(&outside, &folder).unwrap();
    tally.case("a changed file");
    world.push(&put("two\n"), "second");
    world.poll(&[]).expect(77).says("is not from the repository and is in the way");
    tally.case("a file that goes");
    world.push(&[("folder/page", crate::support::gone())], "third");
    world.poll(&[]).expect(0);
    assert_eq!(fs::read_to_string(outside.join("page")).unwrap(), "precious\n");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
}
