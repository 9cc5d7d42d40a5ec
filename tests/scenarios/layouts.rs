//! What is published and where: in-place and releases, part of a repository, what outlives a release.

use std::fs;

use crate::support::{World, exec, file, gone, link, set_mode};

#[test]
fn in_place_touches_only_what_changed_and_keeps_untracked_files() {
    let world = World::new("in place");
    world.app("site").in_place().write();
    world.deployed_as_configured();
    let target = world.target("site");
    assert!(!target.join("current").exists() && !target.join("releases").exists());
    let old = fs::metadata(target.join("index.html")).unwrap().modified().unwrap();
    fs::write(target.join("upload.jpg"), "mine").unwrap();
    let second = world.push(&[("new/page.html", file("new\n"))], "second");
    world.poll(&[]).expect(0).silent();
    assert_eq!(world.revision("site"), Some(second));
    assert_eq!(world.live_text("site", "new/page.html").as_deref(), Some("new\n"));
    assert_eq!(world.live_text("site", "upload.jpg").as_deref(), Some("mine"));
    assert_eq!(fs::metadata(target.join("index.html")).unwrap().modified().unwrap(), old);
    world.push(&[("new/page.html", gone())], "third");
    world.poll(&[]).expect(0);
    assert!(!target.join("new").exists(), "the emptied folder went too");
    assert!(target.join("upload.jpg").exists());
}

#[test]
fn folders_that_a_killed_run_had_begun_to_remove_go() {
    let world = World::new("half removed");
    world.app("site").in_place().write();
    let page = "a/deep/er/page";
    world.push(&[("deploy.sh", world.script("")), (page, file("one\n"))], "first");
    world.poll(&[]).expect(0);
    let second = world.push(&[(page, gone()), ("index.html", file("two\n"))], "second");
    // As a run leaves it that was killed among these: innermost first.
    fs::remove_dir_all(world.target("site").join("a/deep")).unwrap();
    world.poll(&[]).expect(0);
    world.expect_live("site", &second);
    assert!(!world.target("site").join("a").exists());
}

#[test]
fn in_place_goes_back_when_the_script_fails() {
    let world = World::new("in place back");
    world.app("site").in_place().write();
    let first = world.deployed_as_configured();
    world.push(&[("index.html", file("bad\n")), ("extra", file("x")), ("deploy.sh", world.script("exit 1"))], "bad");
    world.poll(&[]).expect(1);
    world.expect_live("site", &first);
    assert_eq!(world.recorded("site"), Some(first));
}

#[test]
fn a_folder_of_the_repository_can_be_published_alone() {
    let world = World::new("subdir");
    world.app("site").source("subdir = \"site\"").write();
    let files = [("site/deploy.sh", world.script("")), ("site/page.html", file("p\n")), ("secret", file("s"))];
    world.push(&files, "first");
    world.poll(&[]).expect(0);
    let live: Vec<_> = world.live("site").into_keys().collect();
    assert_eq!(live, ["deploy.sh", "page.html"]);
}

#[test]
fn a_subdir_that_is_not_in_the_commit_fails_and_changes_nothing() {
    let world = World::new("no subdir");
    world.app("site").source("subdir = \"site\"").write();
    let first = world.push(&[("site/deploy.sh", world.script(""))], "first");
    world.poll(&[]).expect(0);
    world.push(&[("site", gone()), ("other", file("x"))], "second");
    let outcome = world.poll(&[]);
    assert_ne!(outcome.code, 0, "{}", outcome.story());
    assert_eq!(world.revision("site"), Some(first));
}

#[test]
fn only_a_change_under_the_wanted_paths_deploys() {
    let world = World::new("paths");
    world.app("site").source("paths = [\"site/**\", \"deploy.sh\"]").write();
    let first = world.push(&[("deploy.sh", world.script("")), ("site/a", file("1"))], "first");
    world.poll(&[]).expect(0);
    world.push(&[("docs/b", file("2"))], "elsewhere");
    world.poll(&[]).expect(0).silent();
    assert_eq!(world.revision("site"), Some(first));
    assert_eq!(world.ran().len(), 1);
    let third = world.push(&[("site/a", file("3"))], "here");
    world.poll(&[]).expect(0);
    assert_eq!(world.revision("site"), Some(third));
    assert_eq!(world.live_text("site", "docs/b").as_deref(), Some("2"));
}

#[test]
fn a_change_under_the_paths_is_not_lost_behind_one_that_is_not() {
    let world = World::new("paths behind");
    world.app("site").source("paths = [\"site/**\"]").write();
    world.push(&[("deploy.sh", world.script("")), ("site/a", file("1"))], "first");
    world.poll(&[]).expect(0);
    world.push(&[("site/a", file("2"))], "here");
    let tip = world.push(&[("docs/b", file("2"))], "elsewhere");
    world.poll(&[]).expect(0);
    assert_eq!(world.revision("site"), Some(tip));
    assert_eq!(world.live_text("site", "site/a").as_deref(), Some("2"));
}

#[test]
fn shared_paths_outlive_releases() {
    let world = World::new("shared");
    world.app("site").target("shared = [\"db.sqlite3\", \"media\"]").write();
    world.deployed_as_configured();
    let shared = world.target("site").join("shared");
    fs::create_dir_all(shared.join("media")).unwrap();
    fs::write(shared.join("media/photo"), "p").unwrap();
    fs::write(shared.join("db.sqlite3"), "rows").unwrap();
    world.push(&[("index.html", file("two\n"))], "second");
    world.poll(&[]).expect(0);
    assert_eq!(world.live_text("site", "media/photo").as_deref(), Some("p"));
    assert_eq!(world.live_text("site", "db.sqlite3").as_deref(), Some("rows"));
    let link = fs::symlink_metadata(world.live_folder("site").join("media")).unwrap();
    assert!(link.is_symlink());
}

#[test]
fn a_script_can_write_into_what_is_shared() {
    let world = World::new("shared write");
    world.app("site").target("shared = [\"media\"]").write();
    for number in 1..3 {
        let script = world.script(&format!("echo {number} >> media/log"));
        world.push(&[("deploy.sh", script)], "write");
        world.poll(&[]).expect(0);
    }
    let log = fs::read_to_string(world.target("site").join("shared/media/log"));
    assert_eq!(log.unwrap(), "1\n2\n");
}

#[test]
fn old_releases_go_and_the_last_good_one_stays() {
    let world = World::new("keep");
    world.app("site").target("keep = 2").deploy("retries = 1").write();
    world.deployed_as_configured();
    let mut good = String::new();
    for number in 0..4 {
        good = world.push(&[("index.html", file(format!("{number}\n")))], "more");
        world.poll(&[]).expect(0);
    }
    assert_eq!(world.releases("site").len(), 2);
    for number in 0..4 {
        let bad = world.script(&format!("exit 1 # {number}"));
        world.push(&[("deploy.sh", bad)], "bad");
        world.poll(&[]).expect(1);
        world.expect_live("site", &good);
    }
    assert!(world.releases("site").len() <= 3, "{:?}", world.releases("site"));
}

#[test]
fn modes_links_and_names_are_published_as_committed() {
    let world = World::new("faithful");
    for (name, layout) in [("releases", "releases"), ("inplace", "in-place")] {
        world.app(name).target(&format!("layout = \"{layout}\"")).write();
    }
    let files = [
        ("deploy.sh", world.script("")),
        ("bin/tool", exec("#!/bin/sh\n")),
        ("bin/alias", link("tool")),
        ("up", link("bin/../bin/tool")),
        ("name with spaces", file("x")),
        ("ümläut/日本", file("x")),
        ("-dash", file("x")),
        ("empty", file("")),
        ("crlf.txt", file("a\r\nb\r\n")),
        ("keyword.txt", file("$Id$\n")),
        (".gitattributes", file("*.txt text eol=lf ident\n")),
        (".gitignore", file("*.pyc\n")),
        ("module.pyc", file([0u8, 255, 10])),
    ];
    let first = world.push(&files, "first");
    world.poll(&[]).expect(0);
    world.expect_live("releases", &first);
    world.expect_live("inplace", &first);
}

#[test]
fn what_is_published_belongs_to_the_deploy_user() {
    use std::os::unix::fs::MetadataExt;
    needs_root!();
    let world = World::new("owner");
    world.deployed();
    for path in ["", "deploy.sh", "REVISION"] {
        let meta = fs::metadata(world.live_folder("site").join(path)).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (world.deployer.uid, world.deployer.gid), "{path}");
    }
}

#[test]
fn a_target_with_files_that_poller_did_not_put_there_is_refused() {
    for layout in ["releases", "in-place"] {
        let world = World::new("not empty");
        let target = world.target("site");
        world.app("site").target(&format!("layout = \"{layout}\"")).write();
        fs::write(target.join("index.php"), "old site").unwrap();
        set_mode(&target.join("index.php"), 0o644);
        world.push(&[("deploy.sh", world.script(""))], "first");
        world.poll(&[]).expect(77).says("adopt");
        assert!(world.ran().is_empty());
        let names: Vec<_> = fs::read_dir(&target).unwrap().flatten().map(|e| e.file_name()).collect();
        assert_eq!(names, ["index.php"], "{layout}");
    }
}

#[test]
fn a_submodule_is_an_empty_folder_and_a_warning() {
    for layout in ["releases", "in-place"] {
        let world = World::new("submodule");
        world.app("site").target(&format!("layout = \"{layout}\"")).write();
        let first = world.deployed_as_configured();
        let script = world.repo.ls_tree(&first)["deploy.sh"].1.clone();
        let tree = world.repo.raw_tree(&[("100755", "deploy.sh", &script), ("160000", "module", &first)]);
        let second = world.repo.publish_tree(&tree, "with a submodule");
        world.poll(&[]).expect(0);
        assert_eq!(world.revision("site"), Some(second));
        assert_eq!(world.live("site")["module"].0, "empty");
        let warns = |line: &serde_json::Value| {
            line["level"].as_str().unwrap_or("").eq_ignore_ascii_case("warn") && line.to_string().contains("module")
        };
        assert!(world.log().iter().any(warns), "a warning names the submodule");
    }
}
