//! Talking to the real server: protocols, host keys, deploy keys, and what is no git repository.

use std::fs;

use nix::sys::signal::Signal;

use crate::support::sshd::make_key;
use crate::support::{Content, World, file, processes, put_exec, seconds, set_mode, wait_until};

fn start(world: &World) -> String {
    world.app("site").write();
    world.push(&[("deploy.sh", world.script(""))], "first")
}

/// Nothing was published, recorded or run.
#[track_caller]
fn expect_nothing_happened(world: &World) {
    assert!(world.ran().is_empty());
    assert_eq!(world.current("site"), None);
    world.expect_no_leftovers("site");
    world.expect_no_processes();
}

#[test]
fn a_server_that_speaks_only_v0_is_polled_and_fetched_from() {
    let world = World::with_v0_server("v0");
    let first = world.deployed();
    world.poll(&[]).expect(0).silent();
    assert_eq!(world.revision("site"), Some(first));
    let second = world.push(&[("index.html", file("two\n"))], "second");
    world.poll(&[]).expect(0);
    world.expect_live("site", &second);
}

#[test]
fn tags_are_peeled_on_a_v0_server_too() {
    let world = World::with_v0_server("v0 tags");
    world.app("site").without("source.branch").source("tag = \"v*\"").write();
    let first = world.push(&[("deploy.sh", world.script(""))], "first");
    world.repo.tag("v1.0.0");
    world.poll(&[]).expect(0);
    world.expect_live("site", &first);
    world.poll(&[]).expect(0).silent();
    assert_eq!(world.ran().len(), 1);
}

#[test]
fn the_real_ssh_can_be_the_transport() {
    needs_program!("ssh");
    let world = World::new("openssh");
    let keys = world.path("ssh");
    fs::create_dir(&keys).unwrap();
    for (name, text) in
        [("key", fs::read_to_string(world.key_file()).unwrap()), ("hosts", world.sshd.known_hosts_line())]
    {
        fs::write(keys.join(name), text).unwrap();
        crate::support::set_mode(&keys.join(name), 0o600);
        world.fetcher.own(&keys.join(name));
    }
    let shown = keys.display();
    let command = format!(
        "ssh -F /dev/null -o BatchMode=yes -o IdentitiesOnly=yes -i {shown}/key -o UserKnownHostsFile={shown}/hosts"
    );
    let app = world.app("site").without("source.identity");
    app.source(&format!("ssh_command = \"{command}\"")).write();
    let first = world.deployed_as_configured();
    assert_eq!(world.revision("site"), Some(first));
    world.poll(&[]).expect(0).silent();
    let second = world.push(&[("index.html", file("two\n"))], "second");
    world.poll(&[]).expect(0);
    world.expect_live("site", &second);
    world.expect_no_processes();
}

#[test]
fn an_ssh_command_that_fails_is_unreachable_and_says_what_it_said() {
    let world = World::new("openssh fails");
    let app = world.app("site").without("source.identity");
    app.source("ssh_command = \"/bin/sh -c 'echo no route for you >&2; exit 255' ssh\"").write();
    world.push(&[("deploy.sh", world.script(""))], "first");
    world.poll(&[]).expect_one_of(&[69, 76]).says("no route for you");
    expect_nothing_happened(&world);
}

#[test]
fn an_ssh_command_gets_no_pipe_of_pollers_and_ends_with_it() {
    let world = World::new("openssh ends");
    let (program, said) = (world.path("etc/wrapper"), world.path("notes/descriptors"));
    let shown = said.display();
    fs::write(&said, "").unwrap();
    set_mode(&said, 0o666);
    put_exec(
        &program,
        &format!("#!/bin/sh\n[ ! -e /proc/$$/fd/3 ] || echo 3 >> {shown}\necho it >> {shown}\nexec sleep 9999\n"),
    );
    let app = world.app("site").without("source.identity");
    app.source(&format!("ssh_command = \"{}\"", program.display())).write();
    world.push(&[("deploy.sh", world.script(""))], "first");
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let running = world.spawn_poll(&[]);
        let sleeps = || world.processes().iter().any(|pid| processes::command_line(*pid) == "sleep 9999");
        wait_until("the program", seconds(10), sleeps);
        running.signal(signal);
        running.wait();
        wait_until("its end", seconds(10), || !sleeps());
    }
    assert_eq!(fs::read_to_string(&said).unwrap(), "it\nit\n");
}

#[track_caller]
fn expect_unpinned(world: &World, mark: usize) {
    let line = world.sshd.known_hosts_line();
    let outcome = world.poll(&[]).expect(76).says(&world.sshd.fingerprint()).says("known_hosts");
    assert!(outcome.stderr.contains(line.trim()), "the line to add: {line}\n{}", outcome.story());
    let log = world.sshd.log_since(mark);
    assert!(!log.contains("userauth-request"), "nothing is sent to an unknown server:\n{log}");
    expect_nothing_happened(world);
}

#[test]
fn a_host_key_that_is_not_pinned_is_shown_and_nothing_is_sent() {
    let world = World::new("unpinned");
    start(&world);
    world.write_etc("known_hosts", "# none yet\n");
    expect_unpinned(&world, world.sshd.mark());
}

#[test]
fn a_known_hosts_file_that_is_not_there_pins_nothing() {
    let world = World::new("no hosts");
    start(&world);
    fs::remove_file(world.path("etc/known_hosts")).unwrap();
    world.poll(&[]).expect_one_of(&[76, 78]).says("known_hosts");
    expect_nothing_happened(&world);
}

#[test]
fn a_key_pinned_for_another_port_does_not_stand_for_this_one() {
    let world = World::new("other port");
    start(&world);
    let key = world.sshd.host_key();
    world.write_etc("known_hosts", &format!("127.0.0.1 {key}\n[127.0.0.1]:1 {key}\n"));
    expect_unpinned(&world, world.sshd.mark());
}

#[test]
fn a_changed_host_key_is_refused_and_both_are_named() {
    let mut world = World::new("changed");
    let first = world.deployed();
    let old = world.sshd.fingerprint();
    world.sshd.change_host_key();
    let mark = world.sshd.mark();
    world.push(&[("index.html", file("two\n"))], "second");
    world.poll(&[]).expect(76).says(&world.sshd.fingerprint()).says(&old).says("known_hosts");
    assert!(!world.sshd.log_since(mark).contains("userauth-request"));
    world.expect_live("site", &first);
}

#[test]
fn a_revoked_host_key_is_refused_even_where_it_is_also_pinned() {
    let world = World::new("revoked");
    start(&world);
    let line = world.sshd.known_hosts_line();
    world.write_etc("known_hosts", &format!("{line}@revoked * {}\n", world.sshd.host_key()));
    let mark = world.sshd.mark();
    world.poll(&[]).expect(76).says("revoked").says(&world.sshd.fingerprint());
    assert!(!world.sshd.log_since(mark).contains("userauth-request"));
    expect_nothing_happened(&world);
}

#[test]
fn hashed_names_are_understood() {
    let world = World::new("hashed");
    let hosts = world.path("etc/known_hosts");
    crate::support::sh("ssh-keygen", &["-q", "-H", "-f", hosts.to_str().unwrap()]);
    let _ = fs::remove_file(world.path("etc/known_hosts.old"));
    crate::support::set_mode(&hosts, 0o644);
    assert!(fs::read_to_string(&hosts).unwrap().starts_with("|1|"));
    world.deployed();
}

#[test]
fn a_rejected_key_gets_one_attempt() {
    let world = World::new("rejected");
    start(&world);
    world.sshd.authorize_nobody();
    let mark = world.sshd.mark();
    world.poll(&[]).expect(77).says("keys/deploy");
    assert!(world.sshd.key_attempts_since(mark) <= 1, "{}", world.sshd.log_since(mark));
    assert_eq!(world.sshd.connections_since(mark), 1);
    expect_nothing_happened(&world);
}

#[test]
fn a_key_with_a_passphrase_is_refused_by_name() {
    let world = World::new("passphrase");
    start(&world);
    for name in ["etc/keys/deploy", "etc/keys/deploy.pub"] {
        fs::remove_file(world.path(name)).unwrap();
    }
    make_key(&world.key_file(), "open sesame");
    world.poll(&[]).expect(77).says("keys/deploy").says("passphrase");
    expect_nothing_happened(&world);
}

#[test]
fn a_file_that_is_no_key_is_a_mistake_in_the_configuration() {
    for text in ["", "hello\n", "-----BEGIN OPENSSH PRIVATE KEY-----\n!!\n-----END OPENSSH PRIVATE KEY-----\n"] {
        let world = World::new("no key");
        start(&world);
        fs::write(world.key_file(), text).unwrap();
        let outcome = world.poll(&[]).expect(78).says("keys/deploy");
        assert!(!outcome.stderr.contains("!!"), "nothing of the file is shown");
        expect_nothing_happened(&world);
    }
}

#[test]
fn the_public_half_in_the_keys_place_is_a_mistake_in_the_configuration() {
    let world = World::new("public half");
    start(&world);
    fs::copy(world.path("etc/keys/deploy.pub"), world.key_file()).unwrap();
    world.poll(&[]).expect(78).says("keys/deploy");
    expect_nothing_happened(&world);
}

#[test]
fn a_branch_that_is_not_there_is_never_unchanged() {
    let world = World::new("no branch");
    start(&world);
    world.app("site").source("branch = \"prod\"").write();
    world.poll(&[]).expect_one_of(&[69, 76]).says("prod");
    expect_nothing_happened(&world);
    assert!(world.events("poll.unchanged").is_empty());
}

#[test]
fn a_branch_that_was_deleted_leaves_what_is_live() {
    let world = World::new("deleted");
    let first = world.deployed();
    world.repo.push_to("refs/heads/other");
    world.repo.delete("refs/heads/main");
    world.poll(&[]).expect_one_of(&[69, 76]).says("main");
    world.expect_live("site", &first);
    assert!(world.events("poll.unchanged").is_empty());
}

#[test]
fn an_empty_repository_is_never_unchanged() {
    for world in [World::new("empty"), World::with_v0_server("empty v0")] {
        world.app("site").write();
        world.poll(&[]).expect_one_of(&[69, 76]).says("main");
        expect_nothing_happened(&world);
        let first = world.push(&[("deploy.sh", world.script(""))], "first");
        world.poll(&[]).expect(0);
        world.expect_live("site", &first);
    }
}

#[test]
fn a_repository_that_is_not_there_is_reported_with_the_servers_words() {
    let world = World::new("no repository");
    start(&world);
    let url = world.sshd.url(&world.path("server/missing.git"));
    world.app("site").source(&format!("url = \"{url}\"")).write();
    world.poll(&[]).expect_one_of(&[69, 76]).says("missing.git");
    expect_nothing_happened(&world);
}

#[test]
fn a_shell_that_greets_instead_of_git_is_no_git_server() {
    for (options, said) in [
        ("command=\"echo Welcome to the machine\"", "Welcome"),
        ("command=\"echo Welcome to the machine; eval $SSH_ORIGINAL_COMMAND\"", "Welcome"),
        ("command=\"exit 0\"", ""),
    ] {
        let world = World::new("greeting");
        start(&world);
        world.sshd.authorize(options);
        world.poll(&[]).expect_one_of(&[69, 76]).says(said);
        expect_nothing_happened(&world);
        assert!(world.events("poll.unchanged").is_empty());
    }
}

#[test]
fn a_new_commit_is_fetched_where_the_server_had_a_huge_number_of_refs() {
    let world = World::new("refs");
    let first = world.deployed();
    let refs: String = (0..5000).map(|n| format!("create refs/heads/x{n} {first}\n")).collect();
    crate::support::repo::git_with_input(&world.repo.bare, &["update-ref", "--stdin"], refs.as_bytes());
    let second = world.push(&[("index.html", Content::File(b"two\n".to_vec()))], "second");
    world.poll(&[]).expect(0);
    world.expect_live("site", &second);
    let bare = &world.repositories()[0];
    let kept = crate::support::repo::git(bare, &["for-each-ref"]);
    assert!(kept.lines().count() < 10, "only the ref that is followed is fetched:\n{kept}");
}
