//! A journal that cannot be read: found, never deployed over, and mended by what is printed.

use std::fs;
use std::path::Path;

use super::{check, expect};
use crate::support::{World, file, set_mode, sh};

/// Damages the journal, and takes each remedy that is printed literally, as root or whoever runs this.
#[track_caller]
fn expect_remedies_that_work(name: &str, damage: impl Fn(&World, &Path, &str)) {
    for remedy in ["tee", "rm -f"] {
        let world = World::new(name);
        let first = world.deployed();
        world.app("other").source("timeout = \"5s\"").deploy("script = \"/bin/true\"").write();
        world.poll(&[]).expect(0);
        let bare = world.repositories().remove(0);
        damage(&world, &bare, &world.journal_tip("site").unwrap());
        let shown = check(&world).expect(74);
        let text = expect(&shown, Some("site"), "journal", "failed", &["nothing is deployed while"]);
        expect(&shown, Some("other"), "journal", "ok", &[]);
        expect(&shown, Some("other"), "ref", "ok", &[]);
        world.poll(&["site"]).expect(74);
        assert_eq!(world.ran().len(), 1, "never a blind deploy");
        let command =
            text.lines().map(str::trim).find(|line| line.contains(remedy) && line.contains("refs/poller")).unwrap();
        sh("sh", &["-c", command.split(" && poller adopt").next().unwrap()]);
        if remedy == "tee" {
            world.poll(&[]).expect(0);
            world.expect_live("site", &first);
            assert_eq!(world.recorded("site"), Some(first));
            check(&world).expect(0);
        } else {
            // The journal is new, and what is live waits to be adopted.
            assert!(command.ends_with("&& poller adopt site"), "{command}");
            let shown = check(&world).expect(77);
            expect(&shown, Some("site"), "journal", "ok", &["new"]);
            expect(&shown, Some("site"), "target", "failed", &["poller adopt site"]);
        }
    }
}

fn loose(bare: &Path, id: &str) -> std::path::PathBuf {
    let path = bare.join("objects").join(&id[..2]).join(&id[2..]);
    set_mode(&path, 0o644);
    path
}

#[test]
fn a_journal_whose_ref_is_rubbish_is_mended_as_printed() {
    expect_remedies_that_work("ref", |_, bare, _| fs::write(bare.join("refs/poller/site"), "rubbish\n").unwrap());
}

#[test]
fn a_journal_whose_tip_is_gone_is_mended_as_printed() {
    expect_remedies_that_work("gone", |_, bare, tip| fs::remove_file(loose(bare, tip)).unwrap());
}

#[test]
fn a_journal_whose_tip_was_cut_short_is_mended_as_printed() {
    expect_remedies_that_work("cut", |_, bare, tip| {
        let path = loose(bare, tip);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    });
}

#[test]
fn a_journal_whose_tip_is_empty_is_mended_as_printed() {
    expect_remedies_that_work("empty", |_, bare, tip| fs::write(loose(bare, tip), "").unwrap());
}

#[test]
fn a_journal_whose_ref_was_packed_by_git_and_whose_tip_is_gone_is_mended_as_printed() {
    expect_remedies_that_work("packed", |world, bare, tip| {
        crate::support::repo::git(bare, &["pack-refs", "--all", "--prune"]);
        world.fetcher.own(&bare.join("packed-refs"));
        assert!(!bare.join("refs/poller/site").exists());
        fs::remove_file(loose(bare, tip)).unwrap();
    });
}

#[test]
fn a_commit_of_the_project_that_looks_like_an_entry_is_never_offered_as_one() {
    let world = World::new("forged");
    world.deployed();
    let bare = world.repositories().remove(0);
    let tip = world.journal_tip("site").unwrap();
    let show = |name: &str| crate::support::repo::git(&bare, &["show", &format!("{tip}:{name}")]);
    let later = show("run.toml").replace("started = \"20", "started = \"29").replace("ended = \"20", "ended = \"29");
    let forged =
        world.push(&[("state.toml", file(show("state.toml"))), ("run.toml", file(later))], "site: deploy deployed: x");
    world.poll(&[]).expect(0);
    fs::write(bare.join("refs/poller/site"), "rubbish\n").unwrap();
    let text = expect(&check(&world).expect(74), Some("site"), "journal", "failed", &["tee"]);
    assert!(!text.contains(&forged), "{text}");
}
