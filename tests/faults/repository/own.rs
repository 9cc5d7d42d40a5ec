//! Committed names that meet poller's own, or the app's `shared`.

use std::fs;

use super::{FILE, FOLDER, Hostile, LINK};

#[test]
fn what_is_named_as_pollers_own_is_not_published() {
    let mut hostile = Hostile::new("own names");
    let text = hostile.blob("planted\n");
    let link = hostile.blob("deploy.sh");
    let inner = hostile.tree(&[(FILE, b"deploy.sh", text), (FILE, b"index.html", text)]);
    for name in [&b"REVISION"[..], b".poller.partial"] {
        for (mode, id) in [(FILE, text), (LINK, link), (FOLDER, inner)] {
            let shown = String::from_utf8_lossy(name).into_owned();
            let page = hostile.blob("two\n");
            hostile.published(format!("{shown} as {mode}"), &[(FILE, b"index.html", page), (mode, name, id)]);
            for app in super::APPS {
                let live = hostile.world.live_folder(app);
                assert_eq!(fs::read_to_string(live.join("index.html")).unwrap(), "two\n");
                let script = fs::read_to_string(live.join("deploy.sh")).unwrap();
                assert!(script.starts_with("#!/bin/sh"), "{script}");
                assert!(live.join("REVISION").metadata().unwrap().is_file());
                assert!(!live.join(".poller.partial").exists());
            }
        }
    }
}

#[test]
fn what_is_in_the_way_of_shared() {
    let mut hostile = Hostile::new("shared");
    hostile.world.app("site").target("shared = [\"media/uploads\", \"db.sqlite3\", \"a/b/c/\"]").write();
    hostile.world.poll(&["--force", "site"]).expect(0);
    let text = hostile.blob("planted\n");
    let inner = hostile.tree(&[(FILE, b"planted", text)]);
    let out = hostile.blob("deploy.sh");
    for (name, mode, id) in [(&b"media"[..], FILE, text), (b"media", LINK, out), (b"a", FILE, text)] {
        hostile.tally.case(format!("{} as {mode}", String::from_utf8_lossy(name)));
        let commit = hostile.push(&[(mode, name, id)]);
        let outcome = hostile.world.poll(&["site"]).expect(77).says("`[target] shared` has");
        assert!(outcome.stderr.contains("make it a folder in the repository"), "{}", outcome.story());
        assert_ne!(hostile.world.revision("site"), Some(commit));
    }
    hostile.tally.case("committed under the shared names");
    let folder = hostile.tree(&[(FOLDER, b"uploads", inner), (FILE, b"page", text)]);
    hostile.first = hostile.push(&[(FILE, b"db.sqlite3", text), (FOLDER, b"media", folder)]);
    hostile.world.poll(&["site"]).expect(0);
    let live = hostile.world.live_folder("site");
    assert!(fs::symlink_metadata(live.join("db.sqlite3")).unwrap().is_symlink());
    assert!(fs::symlink_metadata(live.join("media/uploads")).unwrap().is_symlink());
    assert!(live.join("media/page").exists() && !live.join("media/uploads/planted").exists());
    hostile.tally.case("links through a shared name stay in `shared`");
    let (through, above) = (hostile.blob("media/uploads/../../.."), hostile.blob("a/b/c/../../../../x"));
    for id in [through, above] {
        hostile.push(&[(LINK, b"evil", id)]);
        hostile.world.poll(&["site"]).expect(77);
    }
    let page = hostile.blob("media/uploads/page");
    hostile.push(&[(LINK, b"page", page)]);
    hostile.world.poll(&["site"]).expect(0);
}
