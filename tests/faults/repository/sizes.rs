//! Trees that are deep, wide or heavy beyond all reason: a limit that says so, in bounded time and memory.

use std::fs;
use std::os::unix::fs::MetadataExt;

use git2::Oid;

use super::{FILE, FOLDER, Hostile, LINK, SUBMODULE};
use crate::all;

/// `levels` trees, each with the next one ten times, and `last` at the bottom.
fn bomb(hostile: &Hostile, levels: usize, last: (&str, Oid)) -> Vec<Oid> {
    let names: Vec<_> = (0..10).map(|n| n.to_string()).collect();
    let mut trees = Vec::new();
    let (mut mode, mut id) = last;
    for _ in 0..levels {
        let entries: Vec<_> = names.iter().map(|name| (mode, name.as_bytes(), id)).collect();
        id = hostile.tree(&entries);
        mode = FOLDER;
        trees.push(id);
    }
    trees
}

#[test]
fn ten_trees_that_stand_for_ten_thousand_million_files() {
    let mut hostile = Hostile::new("bomb");
    let text = hostile.blob("boom\n");
    let empty = hostile.tree(&[]);
    let limit = "more than 1000000 files and folders";
    for (case, last) in
        [("of files", (FILE, text)), ("of empty folders", (FOLDER, empty)), ("of submodules", (SUBMODULE, text))]
    {
        let top = *bomb(&hostile, 10, last).last().unwrap();
        if case != "of empty folders" && !all() {
            continue;
        }
        hostile.refused(case, &[(FOLDER, b"bomb", top)], limit);
    }
    if !all() {
        return;
    }
    hostile.tally.case("of long names");
    let names: Vec<_> = (0..10).map(|n| format!("{n}{}", "x".repeat(250))).collect();
    let mut id = text;
    let mut mode = FILE;
    for _ in 0..12 {
        id = hostile.tree(&names.iter().map(|name| (mode, name.as_bytes(), id)).collect::<Vec<_>>());
        mode = FOLDER;
    }
    let commit = hostile.push(&[(FOLDER, b"bomb", id)]);
    hostile.expect_refused(&commit, "the paths of the tree have more than 256 MiB together");
    hostile.tally.case("beside the folder that is published");
    let top = *bomb(&hostile, 10, (FILE, text)).last().unwrap();
    let inner = hostile.tree_with(&[]);
    for app in super::APPS {
        let app_file = hostile.world.app(app).source("subdir = \"inner\"\npaths = [\"inner/**\"]");
        let app_file = if app == "place" { app_file.in_place() } else { app_file };
        app_file.write();
    }
    let commit = hostile.push(&[(FOLDER, b"bomb", top), (FOLDER, b"inner", inner)]);
    let outcome = hostile.world.poll(&[]).expect(77);
    assert!(outcome.stderr.contains(limit), "{}", outcome.story());
    assert_ne!(hostile.world.revision("site"), Some(commit));
}

/// Serves a commit with so many folders in each other.
fn serve_deep(hostile: &Hostile, levels: usize, name: &[u8]) -> String {
    let text = hostile.blob("text\n");
    let mut all = vec![text, hostile.tree(&[(FILE, b"file", text)])];
    for _ in 0..levels {
        all.push(hostile.tree(&[(FOLDER, name, *all.last().unwrap())]));
    }
    let top = hostile.tree_with(&[(FOLDER, b"deep", *all.last().unwrap())]);
    let tip = hostile.commit(top);
    all.extend([top, tip]);
    hostile.serve(&tip.to_string(), &all);
    tip.to_string()
}

#[test]
fn folders_in_folders() {
    let mut hostile = Hostile::by_pack("deep");
    let depths = if all() { vec![200, 201, 1000, 2048, 10_000, 100_000] } else { vec![3_000] };
    for levels in depths {
        hostile.tally.case(format!("{levels} levels"));
        let tip = serve_deep(&hostile, levels, b"d");
        hostile.expect_refused(&tip, "more than 200 folders deep");
    }
    hostile.tally.case("a path of more than 4096 bytes");
    let tip = serve_deep(&hostile, 20, &[b'd'; 255]);
    hostile.expect_refused(&tip, "a path of more than 3500 bytes");
    hostile.tally.case("200 levels are published, and go again");
    let tip = serve_deep(&hostile, 199, b"d");
    hostile.world.poll(&[]).expect(0);
    hostile.expect_live(&tip);
    hostile.first = tip;
    let top = hostile.tree_with(&[]);
    let tip = hostile.commit(top);
    hostile.serve(&tip.to_string(), &[top, tip]);
    hostile.world.poll(&[]).expect(0);
    hostile.expect_live(&tip.to_string());
}

#[test]
fn a_million_files_and_many_submodules() {
    let mut hostile = Hostile::new("wide");
    let text = hostile.blob("text\n");
    let most = if all() { 1_000_000 } else { 2_000 };
    let names: Vec<_> = (0..most).map(|n| format!("{n:07}")).collect();
    let entries: Vec<_> = names.iter().map(|name| (FILE, name.as_bytes(), text)).collect();
    if all() {
        // With the deploy script it is one more.
        hostile.refused("1,000,001 entries", &entries, "more than 1000000 files and folders");
        hostile.published("100,000 files", &entries[..100_000]);
    }
    let none: Vec<_> = names.iter().take(20_000).map(|name| (SUBMODULE, name.as_bytes(), text)).collect();
    hostile.published(format!("{} submodules, warned of in a few words", none.len()), &none);
    let warned = hostile.world.events("deploy.warning");
    assert!(
        warned.len() < 60 && warned.iter().any(|line| line["msg"].as_str().unwrap().contains(" more")),
        "{warned:?}"
    );
}

#[test]
fn more_bytes_than_the_disk_has() {
    needs_root!();
    let mut hostile = Hostile::new("heavy");
    let target = hostile.world.path("small");
    hostile.world.mount_tmpfs(&target, "size=8m,nr_inodes=300", Some(&hostile.world.deployer));
    let lines = format!("directory = \"{}\"", target.display());
    hostile.world.app("site").target(&lines).write_file_only();
    hostile.world.poll(&["--force", "site"]).expect(0);
    let used = || fs::read_dir(target.join("releases")).unwrap().count();
    let before = used();
    let heavy = hostile.blob(vec![b'x'; 1 << 20]);
    let names: Vec<_> = (0..1000).map(|n| n.to_string()).collect();
    for (case, count, id, why) in [
        ("100 times one blob of 1 MiB", 100, heavy, "bytes, and there are"),
        ("more files than inodes", 400, hostile.blob(""), "files, and there are inodes for"),
    ] {
        hostile.tally.case(case);
        hostile.push(&names[..count].iter().map(|n| (FILE, n.as_bytes(), id)).collect::<Vec<_>>());
        hostile.world.poll(&["site"]).expect(74).says("no room for the tree").says(why);
        assert_eq!(used(), before);
    }
    hostile.tally.case("what fits is published");
    hostile.push(&names[..4].iter().map(|n| (FILE, n.as_bytes(), heavy)).collect::<Vec<_>>());
    hostile.world.poll(&["site"]).expect(0);
    assert_eq!(used(), before + 1);
}

#[test]
fn files_of_nothing_and_of_very_much() {
    let mut hostile = Hostile::new("blobs");
    let size = if all() { 100 << 20 } else { 10 << 20 };
    let (nothing, much) = (hostile.blob(""), hostile.blob(vec![b'm'; size]));
    let link = hostile.blob("much");
    let commit = hostile.published(
        format!("0 bytes and {} MB", size >> 20),
        &[(LINK, b"link", link), (FILE, b"much", much), (FILE, b"nothing", nothing)],
    );
    hostile.expect_live(&commit);
    for app in super::APPS {
        let live = hostile.world.live_folder(app);
        assert_eq!(fs::metadata(live.join("much")).unwrap().size(), size as u64);
    }
}
