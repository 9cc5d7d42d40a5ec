//! Trees that no porcelain makes: refused before anything is written outside the release in the making.

use std::fs;
use std::os::unix::fs::symlink;

use crate::support::World;

const FILE: &str = "100644";
const EXEC: &str = "100755";
const LINK: &str = "120000";
const FOLDER: &str = "40000";

/// The pieces that the trees are built of, all in the server's repository.
struct Parts<'w> {
    world: &'w World,
    /// The deploy script.
    script: String,
    text: String,
}

impl Parts<'_> {
    fn link(&self, to: &str) -> String {
        self.world.repo.blob(to.as_bytes())
    }

    fn tree(&self, entries: &[(&str, &str, &str)]) -> String {
        self.world.repo.raw_tree(entries)
    }
}

type Build = dyn Fn(&Parts) -> Vec<(&'static str, &'static str, String)>;

fn world(name: &str, layout: &str) -> (World, String) {
    let world = World::new(name);
    world.app("site").target(&format!("layout = \"{layout}\"")).write();
    let first = world.deployed_as_configured();
    fs::write(world.path("outside"), "precious\n").unwrap();
    (world, first)
}

fn publish(world: &World, first: &str, build: &Build) -> String {
    let script = world.repo.ls_tree(first)["deploy.sh"].1.clone();
    let text = world.repo.blob(b"planted\n");
    let parts = Parts { world, script: script.clone(), text };
    let mut entries = vec![(EXEC, "deploy.sh", script)];
    entries.extend(build(&parts));
    let entries: Vec<_> = entries.iter().map(|(mode, name, id)| (*mode, *name, id.as_str())).collect();
    world.repo.publish_tree(&parts.tree(&entries), "hostile")
}

/// Everything around the app, but what poller writes to: nothing of it may change.
fn surroundings(world: &World) -> String {
    let find = "cd \"$1\" && find . -path ./var -prune -o -path ./target/site -prune -o -path ./server -prune \
         -o -path ./work -prune -o -path ./sshd -prune -o -path ./link-texts -prune -o -name '*.out' -o -name '*.err' \
         -o -type f -printf '%p %s %T@\\n' -o ! -type d -printf '%p %l\\n' | sort";
    crate::support::sh("sh", &["-c", find, "sh", world.root.to_str().unwrap()])
}

#[track_caller]
fn expect_refusal(name: &str, build: &Build) {
    for layout in ["releases", "in-place"] {
        let (world, first) = world(name, layout);
        publish(&world, &first, build);
        let before = surroundings(&world);
        let outcome = world.poll(&[]).expect_one_of(&[77, 76]);
        assert!(!outcome.stderr.is_empty(), "{name}, {layout}");
        assert_eq!(surroundings(&world), before, "{name}, {layout}");
        world.expect_live("site", &first);
        assert_eq!(world.ran().len(), 1, "{name}, {layout}");
        assert_eq!(world.recorded("site"), Some(first));
        world.expect_no_leftovers("site");
        world.expect_no_processes();
    }
}

#[test]
fn a_link_to_an_absolute_path() {
    expect_refusal("absolute link", &|p| vec![(LINK, "evil", p.link("/etc/passwd"))]);
}

#[test]
fn a_link_that_climbs_out() {
    expect_refusal("climbing link", &|p| vec![(LINK, "evil", p.link("../../../outside"))]);
}

#[test]
fn a_link_that_climbs_out_from_a_folder_further_down() {
    expect_refusal("deep link", &|p| {
        let link = p.link("../../../outside");
        let inner = p.tree(&[(LINK, "evil", &link)]);
        vec![(FOLDER, "folder", inner)]
    });
}

#[test]
fn a_link_that_climbs_out_by_way_of_another_link() {
    expect_refusal("two links", &|p| {
        let here = p.link(".");
        let inner = p.tree(&[(LINK, "here", &here)]);
        // a/here is a, yet by its letters `a/here/..` looks like `a`.
        vec![(FOLDER, "a", inner), (LINK, "evil", p.link("a/here/../../.."))]
    });
}

#[test]
fn a_link_to_nothing() {
    expect_refusal("empty link", &|p| vec![(LINK, "evil", p.link(""))]);
}

#[test]
fn a_link_with_a_nul_in_it() {
    expect_refusal("nul link", &|p| vec![(LINK, "evil", p.link("deploy.sh\0/../../x"))]);
}

#[test]
fn a_name_that_is_the_folder_above() {
    expect_refusal("dotdot", &|p| vec![(FILE, "..", p.text.clone())]);
    expect_refusal("dotdot tree", &|p| {
        let inner = p.tree(&[(FILE, "planted", &p.text)]);
        vec![(FOLDER, "..", inner)]
    });
}

#[test]
fn a_name_that_is_the_folder_itself() {
    expect_refusal("dot", &|p| vec![(FILE, ".", p.text.clone())]);
}

#[test]
fn a_name_with_a_slash() {
    expect_refusal("slash", &|p| vec![(FILE, "a/b", p.text.clone())]);
    expect_refusal("slashes", &|p| vec![(FILE, "../../planted", p.text.clone())]);
    expect_refusal("absolute", &|p| vec![(FILE, "/srv/planted", p.text.clone())]);
}

#[test]
fn a_name_that_is_empty() {
    expect_refusal("no name", &|p| vec![(FILE, "", p.text.clone())]);
}

#[test]
fn a_folder_named_as_gits_own() {
    expect_refusal("dot git", &|p| {
        let inner = p.tree(&[(FILE, "config", &p.text)]);
        vec![(FOLDER, ".git", inner)]
    });
    expect_refusal("deep dot git", &|p| {
        let inner = p.tree(&[(FILE, "config", &p.text)]);
        let outer = p.tree(&[(FOLDER, ".git", &inner)]);
        vec![(FOLDER, "folder", outer)]
    });
    expect_refusal("file dot git", &|p| vec![(FILE, ".git", p.text.clone())]);
}

#[test]
fn modes_that_are_not_among_the_four() {
    for mode in ["100664", "100600", "104755", "100777", "120777", "40755", "010644", "060644", "0", "140000"] {
        expect_refusal(mode, &move |p| vec![(mode, "odd", p.text.clone())]);
    }
}

#[test]
fn a_file_and_a_folder_of_one_name() {
    expect_refusal("twice", &|p| {
        let inner = p.tree(&[(FILE, "planted", &p.text)]);
        vec![(FILE, "x", p.text.clone()), (FOLDER, "x", inner)]
    });
}

#[test]
fn two_files_of_one_name() {
    expect_refusal("two files", &|p| vec![(FILE, "x", p.text.clone()), (FILE, "x", p.script.clone())]);
}

#[test]
fn a_link_and_a_folder_of_one_name() {
    expect_refusal("link and folder", &|p| {
        let inner = p.tree(&[(FILE, "outside", &p.text)]);
        vec![(LINK, "x", p.link("..")), (FOLDER, "x", inner)]
    });
    expect_refusal("inner link and folder", &|p| {
        let inner = p.tree(&[(FILE, "deploy.sh", &p.text)]);
        vec![(LINK, "x", p.link(".")), (FOLDER, "x", inner)]
    });
}

#[test]
fn a_tree_that_is_a_file() {
    expect_refusal("no tree", &|p| vec![(FOLDER, "x", p.text.clone())]);
}

#[test]
fn a_committed_file_in_the_place_of_pollers_own() {
    // REVISION is poller's to write; a repository that has one must not make two truths.
    let (world, first) = world("revision", "releases");
    let commit = publish(&world, &first, &|p| vec![(FILE, "REVISION", p.text.clone())]);
    let outcome = world.poll(&[]).expect_one_of(&[0, 76, 77]);
    let expected = if outcome.code == 0 { commit } else { first };
    assert_eq!(world.revision("site"), Some(expected));
}

#[test]
fn a_revision_that_is_a_link_is_not_written_through() {
    let (world, first) = world("revision link", "in-place");
    publish(&world, &first, &|p| vec![(LINK, "REVISION", p.link("deploy.sh"))]);
    world.poll(&[]).expect_one_of(&[0, 76, 77]);
    let script = world.live_text("site", "deploy.sh").unwrap();
    assert!(script.starts_with("#!/bin/sh"), "{script}");
}

#[test]
fn a_link_that_stays_inside_is_published_as_a_link() {
    for layout in ["releases", "in-place"] {
        let (world, first) = world("inside", layout);
        let commit = publish(&world, &first, &|p| {
            let up = p.link("../deploy.sh");
            let inner = p.tree(&[(LINK, "up", &up)]);
            vec![(LINK, "dangling", p.link("not-there")), (FOLDER, "folder", inner), (LINK, "one", p.link("deploy.sh"))]
        });
        world.poll(&[]).expect(0);
        world.expect_live("site", &commit);
    }
}

#[test]
fn an_in_place_target_whose_folder_became_a_link_is_not_written_through() {
    let world = World::new("swapped");
    world.app("site").in_place().write();
    let put = |text: &str| [("folder/page", crate::support::file(text))];
    world.repo.commit(&put("one\n"), "folder");
    world.deployed_as_configured();
    let outside = world.path("notes/outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("page"), "precious\n").unwrap();
    world.deployer.own(&outside);
    let folder = world.target("site").join("folder");
    fs::remove_dir_all(&folder).unwrap();
    symlink(&outside, &folder).unwrap();
    world.push(&put("two\n"), "second");
    world.poll(&[]);
    assert_eq!(fs::read_to_string(outside.join("page")).unwrap(), "precious\n");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
}
