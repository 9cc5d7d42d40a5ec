//! Names that lead out of the tree, names that git keeps for itself, and odd ones that are published.

use std::fs;
use std::os::unix::ffi::OsStrExt;

use super::{EXEC, FILE, FOLDER, Hostile, LINK, SUBMODULE, expect_harmless, sample};
use crate::all;

/// Refuses names as each kind of thing, at the top and in a folder; or each name as one of these.
fn refuse(hostile: &mut Hostile, names: &[(&[u8], &str)]) {
    let text = hostile.blob("planted\n");
    let inner = hostile.tree(&[(FILE, b"config", text)]);
    let target = hostile.blob("deploy.sh");
    let kinds = [(FILE, text), (FOLDER, inner), (LINK, target), (EXEC, text), (SUBMODULE, text)];
    for (number, (name, why)) in names.iter().enumerate() {
        let shown = String::from_utf8_lossy(&name[..name.len().min(40)]).into_owned();
        let place = |at: usize| all() || at == number % (kinds.len() + 1);
        for (_, (mode, id)) in kinds.iter().enumerate().filter(|(at, _)| place(*at)) {
            let top = hostile.tree_with(&[(mode, name, *id)]);
            hostile.served_and_refused(format!("{shown:?} as {mode}"), &[top, inner, text, target], why);
        }
        if place(kinds.len()) {
            let folder = hostile.tree(&[(FILE, name, text)]);
            let top = hostile.tree_with(&[(FOLDER, b"folder", folder)]);
            hostile.served_and_refused(format!("{shown:?} in a folder"), &[top, folder, text], why);
        }
    }
}

#[test]
fn names_that_lead_out_of_the_tree() {
    let mut hostile = Hostile::by_pack("leading out");
    let names: Vec<(&[u8], &str)> = vec![
        (b"..", "which is not a name"),
        (b".", "which is not a name"),
        (b"", "which is empty"),
        (b"a/b", "which is a path"),
        (b"../../planted", "which is a path"),
        (b"/srv/planted", "which is a path"),
        (b"folder/", "which is a path"),
        (b"/", "which is a path"),
    ];
    refuse(&mut hostile, &names);
}

#[test]
fn gits_own_name_in_every_spelling() {
    let mut hostile = Hostile::by_pack("dot git");
    let names: Vec<&[u8]> = vec![
        b".git",
        b".GIT",
        b".Git",
        b".giT",
        b"git~1",
        b"GIT~1",
        b".git.",
        b".git ",
        b".git . .",
        b".git::$INDEX_ALLOCATION",
        b".git:stream",
        b"git~1:x",
        ".g\u{200c}it".as_bytes(),
        ".\u{200d}g\u{200e}i\u{200f}t".as_bytes(),
        "\u{feff}.git".as_bytes(),
        ".git\u{202e}".as_bytes(),
        ".GI\u{206a}T".as_bytes(),
    ];
    let names: Vec<_> = sample(names, 2).into_iter().map(|name| (name, "which git keeps for itself")).collect();
    refuse(&mut hostile, &names);
}

#[test]
fn names_that_are_too_long() {
    let mut hostile = Hostile::by_pack("long names");
    // The longest are as long as a message between processes may be, and longer.
    let names = [256, 257, 4096, 100_000, 7_000_000, 20_000_000].map(|length| vec![b'x'; length]);
    let names = names.each_ref().map(|name| (&**name, "which is longer than 255 bytes"));
    refuse(&mut hostile, &names);
}

#[test]
fn a_name_twice() {
    let mut hostile = Hostile::new("twice");
    let (text, other) = (hostile.blob("planted\n"), hostile.blob("other\n"));
    let (inner, target) = (hostile.tree(&[(FILE, b"deploy.sh", text)]), hostile.blob("."));
    let up = hostile.blob("..");
    let name = &b"x"[..];
    for (case, entries) in [
        ("a file and a folder", vec![(FILE, name, text), (FOLDER, name, inner)]),
        ("two files", vec![(FILE, name, text), (FILE, name, other)]),
        ("the same file", vec![(FILE, name, text), (FILE, name, text)]),
        ("a link and a folder", vec![(LINK, name, target), (FOLDER, name, inner)]),
        ("a link up and a folder", vec![(LINK, name, up), (FOLDER, name, inner)]),
        ("two folders", vec![(FOLDER, name, inner), (FOLDER, name, inner)]),
        ("a submodule and a link", vec![(SUBMODULE, name, text), (LINK, name, target)]),
        ("far apart", vec![(FILE, name, text), (FILE, b"y", text), (FILE, b"z", text), (FOLDER, name, inner)]),
        ("the script", vec![(LINK, b"deploy.sh", target)]),
    ] {
        hostile.refused(case, &entries, "twice");
    }
}

/// Not pretty, and a file system takes them: published byte for byte, and shown so that no terminal obeys.
#[test]
fn odd_names_are_published_as_they_are() {
    let mut hostile = Hostile::new("odd names");
    let names: Vec<Vec<u8>> = vec![
        b"new\nline".to_vec(),
        b"tab\there".to_vec(),
        b"\x1b[2Jclear".to_vec(),
        b"\x1b]0;title\x07".to_vec(),
        b"\r\r\rover".to_vec(),
        b"\x08\x08\x7f".to_vec(),
        b"\xff\xfe\x80".to_vec(),
        b"\xc2\x9b31m".to_vec(),
        "\u{202e}gpj.exe".into(),
        b"-rf".to_vec(),
        b"--help".to_vec(),
        b" ".to_vec(),
        b"*".to_vec(),
        b"$(touch planted)".to_vec(),
        b"`id`;'\"".to_vec(),
        b"a\\b".to_vec(),
        b".gitmodules".to_vec(),
        b".gitattributes".to_vec(),
        b"...".to_vec(),
        b"git~2".to_vec(),
        b"CON".to_vec(),
        b"current".to_vec(),
        b"releases".to_vec(),
        vec![b'n'; 255],
    ];
    let bytes: Vec<_> = names.iter().map(|name| (name.clone(), hostile.blob(name))).collect();
    let mut entries: Vec<_> = bytes.iter().map(|(name, id)| (FILE, &**name, *id)).collect();
    // Unsorted as well: git would find half of them only.
    entries.reverse();
    let folder = hostile.tree(&entries);
    entries.push((FOLDER, b"folder", folder));
    let commit = hostile.push(&entries);
    let shown = hostile.world.poll(&["--dry-run"]).expect(0);
    expect_harmless(&shown.stdout);
    assert!(shown.stdout.contains("\\u{1b}[2Jclear") && shown.stdout.contains("new\\nline"), "{}", shown.stdout);
    expect_harmless(&hostile.world.poll(&["--dry-run", "--json"]).expect(0).stdout);
    hostile.world.poll(&[]).expect(0).silent();
    for app in super::APPS {
        let live = hostile.world.live_folder(app);
        assert_eq!(hostile.world.revision(app).as_deref(), Some(&*commit));
        for name in &names {
            hostile.tally.case(format!("{:?} in {app}", String::from_utf8_lossy(name)));
            for folder in [live.clone(), live.join("folder")] {
                let path = folder.join(std::ffi::OsStr::from_bytes(name));
                assert_eq!(fs::read(&path).unwrap(), *name, "{}", path.display());
            }
        }
    }
    hostile.first = commit;
    hostile.published("gone again with the next commit", &[]);
    for app in super::APPS {
        assert_eq!(fs::read_dir(hostile.world.live_folder(app)).unwrap().count(), 2);
    }
}
