//! What keeps one app from being deployed: key, server, ref, commit, commands, target, sudo.

use std::fs;
use std::path::Path;

use super::{check, expect, findings, new_app};
use crate::support::{World, exec, file, seconds, set_mode, sh};

#[test]
fn a_key_that_others_can_read() {
    let world = new_app("key mode");
    set_mode(&world.key_file(), 0o644);
    let shown = check(&world).expect(77);
    expect(&shown, Some("site"), "key", "failed", &["0644", "chmod 600"]);
    expect(&shown, Some("site"), "target", "ok", &[]);
}

#[test]
fn what_is_configured_in_vain() {
    let world = World::new("in vain");
    world.write_host_config("deadline = \"20s\"");
    world.app("site").in_place().target("shared = [\"media/\"]").deploy("timeout = \"20s\"").write();
    world.push(&[("deploy.sh", world.script(""))], "first");
    let shown = check(&world).expect(0);
    expect(&shown, Some("site"), "timeout", "warning", &["20s", "[host] deadline"]);
    expect(&shown, Some("site"), "shared", "warning", &["in-place"]);
}

#[test]
fn a_key_with_a_passphrase_and_one_that_is_none() {
    let world = new_app("key kind");
    fs::write(world.key_file(), "rubbish\n").unwrap();
    expect(&check(&world).expect(78), Some("site"), "key", "failed", &["is not a private key"]);
    fs::remove_file(world.key_file()).unwrap();
    fs::remove_file(world.key_file().with_extension("pub")).unwrap();
    crate::support::sshd::make_key(&world.key_file(), "secret");
    expect(&check(&world).expect(77), Some("site"), "key", "failed", &["passphrase", "ssh-keygen -p"]);
}

#[test]
fn a_host_key_that_is_not_pinned() {
    let world = new_app("not pinned");
    world.write_etc("known_hosts", "");
    let shown = check(&world).expect(76);
    let text = expect(&shown, Some("site"), "server", "failed", &[&world.sshd.fingerprint()]);
    assert!(text.contains(world.sshd.known_hosts_line().trim()), "the line to add\n{text}");
}

#[test]
fn a_server_that_is_down_and_not_pinned_is_both() {
    let mut world = new_app("down");
    world.write_etc("known_hosts", "");
    world.sshd.stop();
    let shown = check(&world).expect(76);
    expect(&shown, Some("site"), "server", "failed", &["refused"]);
    expect(&shown, Some("site"), "known_hosts", "failed", &["pins no key"]);
    world.sshd.restart();
}

#[test]
fn a_server_that_says_nothing_is_waited_for_no_longer_than_configured() {
    let world = World::new("silent");
    let port = crate::support::mischief::silent_server();
    let url = world.sshd.url_by_port(port, &world.repo.bare);
    world.write_etc("known_hosts", &world.sshd.known_hosts_line_for(port));
    world.app("site").source(&format!("url = \"{url}\"\ntimeout = \"1s\"")).write();
    let shown = check(&world).expect(69).within(seconds(30));
    expect(&shown, Some("site"), "server", "failed", &["no answer within 1s"]);
}

#[test]
fn a_key_that_the_server_rejects() {
    let world = new_app("rejected");
    world.sshd.authorize_nobody();
    expect(&check(&world).expect(77), Some("site"), "server", "failed", &["rejected the key", "ssh-ed25519 "]);
}

#[test]
fn a_ref_that_is_not_there() {
    let world = new_app("no ref");
    world.app("site").source("branch = \"production\"").write();
    let shown = check(&world).expect(69);
    expect(&shown, Some("site"), "ref", "failed", &["no branch `production`", "git push"]);
    expect(&shown, Some("site"), "server", "ok", &[]);
}

#[test]
fn a_key_that_may_push_is_told_from_one_that_may_not_and_nothing_is_pushed() {
    let world = new_app("rights");
    let refs = || crate::support::repo::git(&world.repo.bare, &["for-each-ref"]);
    let before = refs();
    let shown = check(&world).expect(0);
    let text = expect(
        &shown,
        Some("site"),
        "push",
        "warning",
        &["may push", "read-only"].map(|w| if w == "may push" { "key push" } else { w }),
    );
    let hint = text.lines().find_map(|line| line.strip_prefix("authorized_keys: ")).expect("the line's beginning");
    // The remedy, taken literally.
    world.sshd.authorize(hint);
    let shown = check(&world).expect(0);
    expect(&shown, Some("site"), "push", "ok", &["read-only"]);
    world.poll(&[]).expect(0);
    // A server that says no in words, as forges do.
    let path = world.repo.bare.display();
    let wrapper = world.path("server/wrapper");
    crate::support::put_exec(
        &wrapper,
        &format!(
            "#!/bin/sh\ncase \"$SSH_ORIGINAL_COMMAND\" in git-upload-pack*) exec git-upload-pack '{path}';; esac\necho 'ERROR: this key is read-only' >&2\nexit 1\n"
        ),
    );
    world.sshd.authorize(&format!("command=\"{}\"", wrapper.display()));
    expect(&check(&world).expect(0), Some("site"), "push", "ok", &["read-only"]);
    assert_eq!(refs(), before);
}

#[test]
fn an_ordinary_poll_never_asks_for_the_right_to_push() {
    let world = new_app("asks not");
    let asked = world.path("server/asked");
    let wrapper = world.path("server/wrapper");
    crate::support::put_exec(
        &wrapper,
        &format!(
            "#!/bin/sh\necho \"$SSH_ORIGINAL_COMMAND\" >> '{}'\nexec sh -c \"$SSH_ORIGINAL_COMMAND\"\n",
            asked.display()
        ),
    );
    world.sshd.authorize(&format!("command=\"{}\"", wrapper.display()));
    world.poll(&[]).expect(0);
    assert!(!fs::read_to_string(&asked).unwrap().contains("receive-pack"));
    check(&world).expect(0);
    assert!(fs::read_to_string(&asked).unwrap().contains("receive-pack"));
}

#[test]
fn a_script_that_is_missing_or_not_executable_or_has_no_interpreter() {
    let world = World::new("script");
    world.app("site").write();
    world.push(&[("index.html", file("one\n"))], "first");
    expect(&check(&world).expect(1), Some("site"), "script", "failed", &["./deploy.sh is not in the commit"]);
    world.push(&[("deploy.sh", file("#!/bin/sh\n"))], "plain");
    let shown = check(&world).expect(1);
    let text =
        expect(&shown, Some("site"), "script", "failed", &["not executable", "git update-index --chmod=+x deploy.sh"]);
    // The remedy, taken literally, in the clone.
    let fix = text.lines().find(|line| line.starts_with("git update-index")).unwrap();
    let fix = fix.replace("git push", "git push -q origin HEAD:main");
    sh(
        "sh",
        &[
            "-c",
            &format!(
                "cd {} && git config user.name A && git config user.email a@b && {fix}",
                world.repo.work.display()
            ),
        ],
    );
    expect(&check(&world).expect(0), Some("site"), "script", "ok", &[]);
    world.push(&[("deploy.sh", exec("#!/usr/bin/env no-such-interpreter\n"))], "odd");
    expect(&check(&world).expect(1), Some("site"), "script", "failed", &["no-such-interpreter"]);
    world.push(&[("deploy.sh", exec("echo hello\n"))], "no first line");
    expect(&check(&world).expect(1), Some("site"), "script", "failed", &["what runs it"]);
}

#[test]
fn a_script_behind_a_link_and_in_a_subdir_is_found_where_a_deploy_would_run_it() {
    let world = World::new("links");
    world.app("site").source("subdir = \"app\"").deploy("script = \"./deploy.sh\"").write();
    let link = crate::support::link("bin/real.sh");
    world.push(&[("app/deploy.sh", link), ("app/bin/real.sh", world.script(""))], "first");
    expect(&check(&world).expect(0), Some("site"), "script", "ok", &[]);
    world.poll(&[]).expect(0);
    world.push(&[("app/bin/real.sh", file("#!/bin/sh\n"))], "plain");
    expect(&check(&world).expect(1), Some("site"), "script", "failed", &["not executable"]);
}

#[test]
fn a_commit_that_would_be_refused() {
    let world = World::new("rewritten");
    let first = world.deployed();
    world.push(&[("index.html", file("two\n"))], "second");
    world.poll(&[]).expect(0);
    world.repo.rewind_to(&first);
    world.repo.commit(&[("index.html", file("other\n"))], "other");
    world.repo.force_push();
    expect(
        &check(&world).expect(77),
        Some("site"),
        "commit",
        "failed",
        &["history was rewritten", "poller --force site"],
    );
}

#[test]
fn a_target_that_the_deploy_user_cannot_write_and_one_that_is_not_there() {
    needs_root!();
    let world = new_app("target");
    let target = world.target("site");
    sh("chown", &["root:root", target.to_str().unwrap()]);
    let shown = check(&world).expect(74);
    let text = expect(&shown, Some("site"), "target", "failed", &["cannot be written by", &world.deployer.name]);
    sh("sh", &["-c", text.lines().last().unwrap()]);
    expect(&check(&world).expect(0), Some("site"), "target", "ok", &[]);
    fs::remove_dir(&target).unwrap();
    let text = expect(&check(&world).expect(78), Some("site"), "target", "failed", &["install -d"]);
    sh("sh", &["-c", text.lines().last().unwrap().split_once(": ").unwrap().1]);
    world.poll(&[]).expect(0);
}

#[test]
fn a_target_with_something_of_somebody_elses_in_it() {
    let world = new_app("foreign");
    fs::write(world.target("site").join("index.php"), "").unwrap();
    expect(&check(&world).expect(77), Some("site"), "target", "failed", &["index.php", "poller adopt site"]);
}

#[test]
fn a_target_without_room_for_a_release() {
    needs_root!();
    let world = World::new("full");
    world.mount_tmpfs(&world.target("site"), "size=1m,nr_inodes=40", Some(&world.deployer));
    world.app("site").write();
    world.push(&[("deploy.sh", world.script("")), ("big", file(vec![7; 1_500_000]))], "big");
    expect(&check(&world).expect(74), Some("site"), "room", "failed", &["1.6 MiB", "make room"]);
    let many: Vec<(String, _)> = (0..60).map(|n| (format!("many/{n}"), file("x"))).collect();
    for (name, content) in &many {
        crate::support::repo::put(&world.repo.work.join(name), content);
    }
    world.push(&[("big", crate::support::gone())], "many");
    expect(&check(&world).expect(74), Some("site"), "room", "failed", &["inodes"]);
}

#[test]
fn shared_files_that_are_not_there_and_folders_that_are_made() {
    let world = new_app("shared");
    world.app("site").target("shared = [\"db.sqlite3\", \"media/\"]").write();
    expect(&check(&world).expect(0), Some("site"), "shared", "warning", &["shared/db.sqlite3 is not there yet"]);
    let shared = world.target("site").join("shared");
    fs::create_dir(&shared).unwrap();
    world.deployer.own(&shared);
    fs::write(shared.join("db.sqlite3"), "").unwrap();
    assert!(findings(&check(&world).expect(0), Some("site"), "shared").is_empty());
}

#[test]
fn sudo_that_is_not_allowed_allowed_and_allowed_with_a_password() {
    needs_root!();
    needs_program!("sudo");
    let world = new_app("sudo");
    let (id, user) = ("/usr/bin/id -u", world.deployer.name.as_str());
    world.app("site").deploy(&format!("sudo = [\"{id}\"]")).write();
    let text = expect(&check(&world).expect(77), Some("site"), "sudo", "failed", &["may not run: /usr/bin/id -u"]);
    assert!(text.contains("poller sudoers site"), "{text}");
    struct DropIn(String);
    impl Drop for DropIn {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }
    let drop_in = DropIn(format!("/etc/sudoers.d/{user}"));
    let allow = |tag: &str| {
        fs::write(&drop_in.0, format!("{user} ALL = (root) {tag}{id}\n")).unwrap();
        set_mode(Path::new(&drop_in.0), 0o440);
    };
    allow("");
    expect(&check(&world).expect(77), Some("site"), "sudo", "failed", &["password"]);
    allow("NOPASSWD: ");
    expect(&check(&world).expect(0), Some("site"), "sudo", "ok", &[]);
}

#[test]
fn a_unit_is_looked_for_where_systemd_runs() {
    let world = new_app("units");
    world.app("site").deploy("restart = [\"no-such-unit-here.service\"]").write();
    let shown = check(&world);
    if Path::new("/run/systemd/system").is_dir() {
        expect(&shown, Some("site"), "units", "failed", &["no-such-unit-here.service"]);
    } else {
        expect(&shown, Some("site"), "units", "warning", &["systemd does not run here"]);
    }
}

#[test]
fn an_app_for_other_hosts_is_said_to_be_and_a_frozen_one_by_whom() {
    let world = World::new("elsewhere");
    world.deployed();
    world.app("other").source("hosts = [\"db-*\"]").write();
    world.poll(&["freeze", "site", "--reason", "the fair"]).expect(0);
    let shown = check(&world).expect(0);
    expect(&shown, Some("other"), "hosts", "ok", &["only for db-*"]);
    expect(&shown, Some("site"), "frozen", "warning", &["the fair", "poller unfreeze site"]);
}

#[test]
fn an_app_that_the_prober_never_comes_back_from_hides_no_other() {
    let world = new_app("hangs");
    world.app("site").source("timeout = \"1s\"").write();
    // A repository on this machine whose tag was cut short: libgit2 never comes to its end.
    let other = world.path("server/other.git");
    sh("git", &["clone", "-q", "--bare", world.repo.bare.to_str().unwrap(), other.to_str().unwrap()]);
    let identity = ["-c", "user.name=A", "-c", "user.email=a@b"];
    crate::support::repo::git(&other, &[&identity[..], &["tag", "-a", "-m", "x", "v1"]].concat());
    let tag = crate::support::repo::git(&other, &["rev-parse", "v1"]);
    let path = other.join("objects").join(&tag[..2]).join(tag[2..].trim());
    let whole = fs::read(&path).unwrap();
    set_mode(&path, 0o644);
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let url = format!("url = \"{}\"\ntimeout = \"1s\"", other.display());
    world.app("other").source(&url).without("source.identity").write();
    let shown = check(&world).expect(69).within(seconds(80));
    expect(&shown, Some("other"), "server", "failed", &["took longer"]);
    expect(&shown, Some("site"), "ref", "ok", &[]);
    expect(&shown, Some("site"), "script", "ok", &[]);
}
