//! The tests' own tools, checked against git and OpenSSH without the program under test: a scenario is
//! worth what its world is.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::process::Command;

use crate::support::mischief::{Mood, Proxy, listener};
use crate::support::repo::{git, git_command};
use crate::support::{Account, World, am_root, exec, file, gone, link, processes, seconds};

fn real_git(world: &World, port: u16, protocol: &str, arguments: &[&str]) -> std::process::Output {
    let hosts = world.path("etc/known_hosts");
    let ssh = format!(
        "ssh -F /dev/null -o BatchMode=yes -o IdentitiesOnly=yes -i {} -o UserKnownHostsFile={}",
        world.key_file().display(),
        hosts.display()
    );
    let mut command: Command = git_command();
    command.env("GIT_SSH_COMMAND", ssh).env("GIT_TRACE_PACKET", "1");
    command.args(["-c", &format!("protocol.version={protocol}")]).args(arguments);
    command.arg(world.sshd.url_by_port(port, &world.repo.bare)).output().unwrap()
}

#[test]
fn the_server_speaks_v2_or_only_v0() {
    for (world, v2) in [(World::new("v2"), true), (World::with_v0_server("v0"), false)] {
        let first = world.push(&[("a", file("x"))], "first");
        let out = real_git(&world, world.sshd.port, "2", &["ls-remote"]);
        let (said, trace) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        assert!(out.status.success() && said.contains(&first), "{trace}");
        assert_eq!(trace.contains("version 2"), v2, "{trace}");
    }
}

#[test]
fn the_fingerprint_is_what_the_client_sees() {
    let world = World::new("fingerprint");
    assert!(world.sshd.fingerprint().starts_with("SHA256:"));
    world.write_etc("known_hosts", "");
    let mark = world.sshd.mark();
    let out = real_git(&world, world.sshd.port, "2", &["ls-remote"]);
    assert!(!out.status.success());
    assert!(!world.sshd.log_since(mark).contains("userauth-request"));
    assert_eq!(world.sshd.connections_since(mark), 1);
    world.write_etc("known_hosts", &world.sshd.known_hosts_line());
    world.sshd.authorize_nobody();
    let mark = world.sshd.mark();
    real_git(&world, world.sshd.port, "2", &["ls-remote"]);
    assert_eq!(world.sshd.key_attempts_since(mark), 1, "{}", world.sshd.log_since(mark));
}

#[test]
fn the_proxy_passes_on_and_misbehaves_as_told() {
    use std::io::Write;
    let server = listener(|mut stream| {
        let _ = stream.write_all(&[7; 100_000]);
        std::thread::sleep(seconds(5));
    });
    let proxy = Proxy::before(server);
    for (mood, end) in [
        (Mood::Stalls, Some(ErrorKind::WouldBlock)),
        (Mood::Resets, Some(ErrorKind::ConnectionReset)),
        (Mood::Closes, None),
    ] {
        proxy.set(mood, 5000);
        let mut stream = TcpStream::connect(("127.0.0.1", proxy.port)).unwrap();
        stream.set_read_timeout(Some(seconds(1))).unwrap();
        let mut bytes = Vec::new();
        let result = stream.read_to_end(&mut bytes);
        assert_eq!(result.err().map(|e| e.kind()), end, "{mood:?}");
        assert!(bytes.len() <= 5000, "{mood:?}: {}", bytes.len());
        assert!(mood == Mood::Resets || bytes.len() == 5000, "a reset may overtake what was sent");
    }
    assert_eq!(proxy.struck(), 3);
    let world = World::new("through");
    world.push(&[("a", file("x"))], "first");
    let proxy = Proxy::before(world.sshd.port);
    world.write_etc("known_hosts", &world.sshd.known_hosts_line_for(proxy.port));
    assert!(real_git(&world, proxy.port, "2", &["ls-remote"]).status.success());
}

#[test]
fn a_checkout_by_git_reads_as_its_tree() {
    let world = World::new("checkout");
    let first = world.push(
        &[
            ("a/b", file("x\r\n")),
            ("t", exec("#!/bin/sh\n")),
            ("l", link("a/b")),
            ("ü n", file("")),
            ("c/d", file("1")),
        ],
        "first",
    );
    let second = world.push(&[("a", file("was a folder")), ("c/d", gone()), ("t/x", link("../l"))], "second");
    for commit in [first, second] {
        let out = world.path(&format!("out-{commit}"));
        std::fs::create_dir(&out).unwrap();
        git(&world.repo.bare, &["--work-tree", out.to_str().unwrap(), "checkout", "-q", "-f", &commit, "--", "."]);
        let tree = world.repo.ls_tree(&commit);
        crate::support::readers::same_tree(&world.tree_of(&out), &tree);
        std::fs::create_dir(out.join("stray")).unwrap();
        assert_ne!(world.tree_of(&out), tree, "an empty folder shows");
    }
}

#[test]
fn trees_that_no_porcelain_makes_can_be_made() {
    let world = World::new("raw");
    world.push(&[("a", file("x"))], "first");
    let blob = world.repo.blob(b"x");
    let tree = world.repo.raw_tree(&[("100644", "..", &blob), ("100664", "a/b", &blob), ("0", "x", &blob)]);
    let commit = world.repo.publish_tree(&tree, "raw");
    let raw = git(&world.repo.bare, &["cat-file", "-s", &tree]);
    assert_eq!(raw.trim().parse::<usize>().unwrap(), (8 + 2 + 20) + (8 + 3 + 20) + (3 + 1 + 20));
    assert_eq!(git(&world.repo.bare, &["rev-parse", "main"]).trim(), commit);
}

#[test]
fn accounts_and_processes_go_with_their_world() {
    needs_root!();
    let world = World::new("accounts");
    let account: Account = world.deployer.clone();
    let (group, gid) = account.join_new_group();
    let said = crate::support::sh("id", &["-G", &account.name]);
    assert!(said.split_whitespace().any(|id| id == gid.to_string()), "{said}");
    let mut left = Command::new("setpriv")
        .args([&format!("--reuid={}", account.uid), "--clear-groups", "sleep", "1000"])
        .spawn()
        .unwrap();
    crate::support::wait_until("the sleep", seconds(5), || !world.script_processes().is_empty());
    let root = world.root.clone();
    drop(world);
    assert!(left.wait().unwrap().code().is_none(), "killed");
    assert!(!root.exists());
    assert!(nix::unistd::User::from_name(&account.name).unwrap().is_none());
    assert!(nix::unistd::Group::from_name(&group).unwrap().is_none());
}

#[test]
fn the_tests_world_is_trusted() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let world = World::new("trusted");
    for folder in world.path("etc/apps.d").ancestors() {
        let meta = std::fs::metadata(folder).unwrap();
        assert_eq!(meta.permissions().mode() & 0o022, 0, "{}", folder.display());
        assert!(!am_root() || meta.uid() == 0);
    }
    assert!(world.processes().is_empty(), "{}", processes::describe(&world.processes()));
}
