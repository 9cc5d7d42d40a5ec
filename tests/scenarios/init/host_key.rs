//! Whose word is taken for a server's host key: the shipped file's, a fingerprint given, a typed `yes`.

use std::fs;

use super::{Init, OTHER_PRINT, bare, mode};
use crate::support::set_mode;

#[test]
fn an_unknown_host_key_is_shown_and_never_pinned_silently() {
    let world = bare("unknown");
    let print = world.sshd.fingerprint();
    let outcome = world.init(&[]).expect(76).says(&format!("--accept-host-key {print}")).says("owner");
    world.expect_nothing_made();
    world.screen(
        "init-unknown-host-key",
        "poller init site git@git.example.org:site.git --user www-data",
        &outcome.stderr,
    );
    world.init(&["--accept-host-key", OTHER_PRINT]).expect(76).says(&print).says(OTHER_PRINT);
    world.expect_nothing_made();
    // Nobody tried to log in.
    assert_eq!(world.sshd.key_attempts_since(0), 0);
}

#[test]
fn a_pinned_host_key_is_never_replaced() {
    let mut world = bare("changed");
    let (line, pinned) = (world.sshd.known_hosts_line(), world.sshd.fingerprint());
    world.write_etc("known_hosts", &line);
    world.sshd.change_host_key();
    world.init_accepting().expect(76).says(&pinned).says("never replaced");
    assert_eq!(fs::read_to_string(world.path("etc/known_hosts")).unwrap(), line);
    assert!(!world.path("etc/keys").exists() && !world.target("site").exists());
}

#[test]
fn a_revoked_host_key_cannot_be_accepted() {
    let world = bare("revoked");
    let line = format!("@revoked {}", world.sshd.known_hosts_line());
    world.write_etc("known_hosts", &line);
    world.init_accepting().expect(76).says("REVOKED");
    assert_eq!(fs::read_to_string(world.path("etc/known_hosts")).unwrap(), line);
}

#[test]
fn known_hosts_is_added_to_and_keeps_its_mode_and_its_last_line() {
    let world = bare("adds");
    let other = world.sshd.known_hosts_line_for(2);
    let file = world.write_etc("known_hosts", &format!("# ours\n{}", other.trim_end()));
    set_mode(&file, 0o640);
    world.init_accepting().expect(0);
    let expected = format!("# ours\n{other}{}", world.sshd.known_hosts_line());
    assert_eq!(fs::read_to_string(&file).unwrap(), expected);
    assert_eq!(mode(&file), 0o640);
}

#[test]
fn the_public_forges_need_no_fingerprint_and_the_page_for_the_key_is_named() {
    let world = bare("forge");
    let directory = world.target("site");
    let args = ["init", "site", "git@github.com:me/todo.git", "--user", &world.deployer.name, "--directory"];
    let args = [&args[..], &[directory.to_str().unwrap()]].concat();
    world.poll(&[&args[..], &["--accept-host-key", &world.sshd.fingerprint()]].concat()).expect(76).says(OTHER_PRINT);
    world.expect_nothing_made();
    world
        .poll(&args)
        .expect(0)
        .prints("https://github.com/me/todo/settings/keys/new")
        .prints("\"Allow write access\" unticked")
        .prints(OTHER_PRINT);
    let known = fs::read_to_string(world.path("etc/known_hosts")).unwrap();
    assert_eq!(known.lines().filter(|line| line.starts_with("github.com ")).count(), 2, "{known}");
    assert!(!known.contains("gitlab"), "{known}");
}

#[test]
fn two_at_once_lose_neither_host_key() {
    let world = bare("two");
    let start = |name: &str, url: &str| {
        let directory = world.target(name);
        let args = ["init", name, url, "--user", &world.deployer.name, "--directory", directory.to_str().unwrap()];
        world.spawn_poll(&args)
    };
    let all: Vec<_> = ["github.com", "gitlab.com", "codeberg.org", "bitbucket.org"]
        .iter()
        .map(|host| start(&host.replace('.', "-"), &format!("git@{host}:me/todo.git")))
        .collect();
    all.into_iter().for_each(|running| drop(running.wait().expect(0)));
    let known = fs::read_to_string(world.path("etc/known_hosts")).unwrap();
    for host in ["github.com", "gitlab.com", "codeberg.org", "bitbucket.org"] {
        assert_eq!(known.lines().filter(|line| line.starts_with(&format!("{host} "))).count(), 2, "{host}\n{known}");
    }
}

#[test]
fn a_server_that_does_not_answer_leaves_nothing_behind() {
    let mut world = bare("unreachable");
    let print = world.sshd.fingerprint();
    world.sshd.stop();
    world.init(&["--accept-host-key", &print]).expect(69).says("nothing was changed");
    world.expect_nothing_made();
    world.sshd.restart();
    world.init_accepting().expect(0);
}

#[test]
fn only_a_typed_yes_accepts_a_host_key() {
    let world = bare("typed");
    let (url, directory) = (world.url(), world.target("site"));
    let mut args = vec!["init", "site", &url, "--branch", "main", "--script", "./deploy.sh", "--restart", "a.service"];
    args.extend(["--user", &world.deployer.name, "--directory", directory.to_str().unwrap()]);
    for answer in ["y", "Yes", ""] {
        world.poll_in_dialogue(&args, &[("type yes: ", answer)]).expect(76).says("not accepted");
        world.expect_nothing_made();
    }
}
