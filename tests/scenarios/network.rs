//! A network that fails: each way ends as 69 within its deadline, and changes nothing.

use std::fs;

use crate::support::mischief::{self, Mood, Proxy};
use crate::support::{World, file, seconds, sshd};

fn noise(bytes: usize) -> Vec<u8> {
    use std::io::Read;
    let mut noise = vec![0; bytes];
    fs::File::open("/dev/urandom").unwrap().read_exact(&mut noise).unwrap();
    noise
}

/// A world whose app goes to `port` with a limit of two seconds.
fn world_by(name: &str, port: impl Fn(&World) -> u16) -> World {
    let world = World::new(name);
    let port = port(&world);
    let url = world.sshd.url_by_port(port, &world.repo.bare);
    world.app("site").source(&format!("url = \"{url}\"\ntimeout = \"2s\"")).write();
    let pinned = world.sshd.known_hosts_line() + &world.sshd.known_hosts_line_for(port);
    world.write_etc("known_hosts", &pinned);
    world
}

#[track_caller]
fn expect_unreachable(world: &World) {
    world.push(&[("deploy.sh", world.script(""))], "first");
    world.poll(&[]).expect(69).within(seconds(15));
    assert!(world.ran().is_empty() && world.current("site").is_none());
    world.expect_no_leftovers("site");
    world.expect_no_processes();
    assert_eq!(world.events("run.finished").len(), 1);
}

#[test]
fn a_port_where_nobody_listens() {
    expect_unreachable(&world_by("refused", |_| sshd::free_port()));
}

#[test]
fn a_server_that_accepts_and_is_silent() {
    expect_unreachable(&world_by("silent", |_| mischief::silent_server()));
}

#[test]
fn a_server_that_drips_its_banner() {
    expect_unreachable(&world_by("drips", |_| mischief::dripping_server()));
}

#[test]
fn a_server_that_falls_silent_after_its_banner() {
    expect_unreachable(&world_by("banner", |_| mischief::greeting_server()));
}

#[test]
fn a_server_that_is_not_ssh_is_69_or_76() {
    let world = world_by("web", |_| mischief::web_server());
    world.push(&[("deploy.sh", world.script(""))], "first");
    world.poll(&[]).expect_one_of(&[69, 76]).within(seconds(15));
    assert!(world.ran().is_empty());
}

#[test]
fn a_name_that_does_not_resolve() {
    let world = World::new("name");
    world.app("site").source("url = \"ssh://git@no-such-host.invalid/x.git\"\ntimeout = \"2s\"").write();
    world.poll(&[]).expect(69).within(seconds(20)).says("no-such-host.invalid");
}

#[test]
fn a_server_that_stops_answering_leaves_what_is_live() {
    let mut world = World::new("down");
    let first = world.deployed();
    world.push(&[("index.html", file("two\n"))], "second");
    let tip = world.journal_tip("site");
    world.sshd.stop();
    world.poll(&[]).expect(69);
    world.expect_live("site", &first);
    assert_eq!(world.recorded("site"), Some(first));
    let _ = tip;
    world.sshd.restart();
    world.poll(&[]).expect(0);
    assert_eq!(world.ran().len(), 2);
}

/// Deploys once through a proxy that behaves, then meets `mood` in the middle of a pack of 4 MB, and
/// gets over it as soon as the network does.
#[track_caller]
fn expect_recovery_from(mood: Mood, limit: u64) {
    let world = World::new("mid pack");
    let proxy = Proxy::before(world.sshd.port);
    let url = world.sshd.url_by_port(proxy.port, &world.repo.bare);
    world.app("site").source(&format!("url = \"{url}\"\ntimeout = \"2s\"")).write();
    world.write_etc("known_hosts", &world.sshd.known_hosts_line_for(proxy.port));
    let first = world.deployed_as_configured();
    let second = world.push(&[("noise", file(noise(4_000_000)))], "second");
    proxy.set(mood, limit);
    world.poll(&[]).expect(69).within(seconds(20));
    assert!(proxy.struck() > 0, "the limit was reached");
    world.expect_live("site", &first);
    assert_eq!(world.recorded("site"), Some(first));
    assert_eq!(world.releases("site").len(), 1);
    world.expect_no_leftovers("site");
    world.expect_no_processes();
    proxy.set(Mood::Well, u64::MAX);
    world.poll(&[]).expect(0);
    world.expect_live("site", &second);
}

#[test]
fn a_pack_that_stalls() {
    expect_recovery_from(Mood::Stalls, 1_000_000);
}

#[test]
fn a_pack_that_is_reset() {
    expect_recovery_from(Mood::Resets, 1_000_000);
}

#[test]
fn a_pack_that_ends_early() {
    expect_recovery_from(Mood::Closes, 1_000_000);
}

#[test]
fn a_pack_that_drips_ends_by_the_deadline_of_the_run() {
    let world = World::new("drip pack");
    let proxy = Proxy::before(world.sshd.port);
    let url = world.sshd.url_by_port(proxy.port, &world.repo.bare);
    world.app("site").source(&format!("url = \"{url}\"\ntimeout = \"2s\"")).write();
    world.write_etc("known_hosts", &world.sshd.known_hosts_line_for(proxy.port));
    let first = world.deployed_as_configured();
    world.write_host_config("deadline = \"6s\"");
    world.push(&[("noise", file(noise(4_000_000)))], "second");
    proxy.set(Mood::Drips, 1_000_000);
    world.poll(&[]).expect(69).within(seconds(20));
    world.expect_live("site", &first);
    world.expect_no_leftovers("site");
    world.expect_no_processes();
}

#[test]
fn a_connection_that_breaks_in_the_handshake_or_the_login() {
    for mood in [Mood::Stalls, Mood::Resets, Mood::Closes] {
        for limit in [10, 300, 1500, 2600] {
            let world = World::new("early");
            let proxy = Proxy::before(world.sshd.port);
            let url = world.sshd.url_by_port(proxy.port, &world.repo.bare);
            world.app("site").source(&format!("url = \"{url}\"\ntimeout = \"1s\"")).write();
            world.write_etc("known_hosts", &world.sshd.known_hosts_line_for(proxy.port));
            world.push(&[("deploy.sh", world.script(""))], "first");
            proxy.set(mood, limit);
            let outcome = world.poll(&[]).within(seconds(15));
            assert_eq!(outcome.code, 69, "{mood:?} after {limit}\n{}", outcome.story());
            assert!(world.ran().is_empty());
            world.expect_no_leftovers("site");
        }
    }
}

#[test]
fn an_unreachable_server_does_not_hold_up_other_apps() {
    let world = world_by("others", |_| mischief::silent_server());
    world.app("good").write();
    let first = world.push(&[("deploy.sh", world.script(""))], "first");
    world.poll(&[]).expect(69).says("site").within(seconds(15));
    world.expect_live("good", &first);
}
