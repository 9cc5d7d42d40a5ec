//! Taking over what is live already: a clone, a former release, a repository that moved.

use std::fs;

use crate::support::repo::git;
use crate::support::{World, file};

#[test]
fn a_clone_is_adopted_in_place_and_only_what_changed_is_touched_from_then_on() {
    needs_root!();
    let world = World::new("adopt clone");
    world.app("site").in_place().write_file_only();
    let first = world.push(&[("deploy.sh", world.script("")), ("index.html", file("one\n"))], "first");
    let target = world.target("site");
    git(&world.root, &["clone", "-q", world.repo.bare.to_str().unwrap(), target.to_str().unwrap()]);
    crate::support::sh("chown", &["-R", &world.deployer.name, target.to_str().unwrap()]);
    world.poll(&[]).expect(77).says("poller adopt");
    let second = world.push(&[("index.html", file("two\n"))], "second");
    let adopted = world.poll(&["adopt", "site"]).expect(0);
    world.screen("adopt-terminal", "poller adopt site", &adopted.stdout);
    assert_eq!((world.recorded("site"), world.ran().len()), (Some(first.clone()), 0));
    let again = world.poll(&["adopt", "site", "--json"]).expect(0);
    world.screen("adopt-json", "poller adopt site --json", &again.stdout);
    world.poll(&[]).expect(0).silent();
    assert_eq!(world.live_text("site", "index.html").as_deref(), Some("two\n"));
    assert_eq!(world.recorded("site"), Some(second));
    assert!(target.join(".git/HEAD").exists(), "what is not from the repository stays");
}

#[test]
fn what_no_file_tells_is_named_by_hand() {
    needs_root!();
    let world = World::new("adopt named");
    world.app("site").in_place().write();
    let first = world.push(&[("deploy.sh", world.script("")), ("index.html", file("one\n"))], "first");
    fs::write(world.target("site").join("index.html"), "one\n").unwrap();
    let untold = world.poll(&["adopt", "site"]).expect(64);
    world.screen("adopt-untold", "poller adopt site", &untold.stderr);
    world.poll(&["adopt", "site", "0123"]).expect(64).says("no commit `0123`");
    world.poll(&["adopt", "site", "main"]).expect(64).says("not the name of a commit");
    assert_eq!(world.journal_tip("site"), None);
    world.poll(&["adopt", "site", &first[..9]]).expect(0).prints("it is the tip");
    assert_eq!(world.recorded("site"), Some(first));
}

#[test]
fn a_repository_with_another_url_goes_on_from_what_is_live() {
    let world = World::new("adopt moved");
    let first = world.deployed();
    let moved = world.path("server/moved.git");
    fs::rename(&world.repo.bare, &moved).unwrap();
    git(&world.repo.work, &["remote", "set-url", "origin", moved.to_str().unwrap()]);
    world.app("site").source(&format!("url = \"{}\"", world.sshd.url(&moved))).write_file_only();
    world.poll(&[]).expect(77).says("poller adopt");
    world.poll(&["adopt", "site"]).expect(0);
    world.poll(&[]).expect(0).silent();
    assert_eq!((world.revision("site"), world.ran().len()), (Some(first), 1));
    let second = world.push(&[("index.html", file("two\n"))], "second");
    world.poll(&[]).expect(0).silent();
    assert_eq!(world.revision("site"), Some(second));
}

#[test]
fn an_empty_target_has_nothing_to_adopt() {
    let world = World::new("adopt empty");
    world.app("site").write();
    world.push(&[("deploy.sh", world.script(""))], "first");
    world.poll(&["adopt", "site"]).expect(64).says("no link `current`").says("in-place");
    assert_eq!(world.journal_tip("site"), None);
}
