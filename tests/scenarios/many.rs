//! Many apps of one server: they share a connection, however few channels at once the server allows in it.

use std::process::Command;

use crate::support::World;

const APPS: usize = 20;

/// Each with a repository of its own, and all deployed.
fn deployed() -> World {
    let world = World::new("many");
    world.push(&[("deploy.sh", world.script(""))], "first");
    for n in 0..APPS {
        let copy = world.path(&format!("server-{n}.git"));
        assert!(Command::new("cp").arg("-a").arg(&world.repo.bare).arg(&copy).status().unwrap().success());
        world.app(&format!("app-{n}")).source(&format!("url = \"{}\"", world.sshd.url(&copy))).write();
    }
    world.poll(&[]).expect(0);
    world
}

#[test]
fn twenty_repositories_share_a_connection_however_few_channels_the_server_allows() {
    needs_root!();
    let mut world = deployed();
    for limit in ["", "MaxSessions 3", "MaxSessions 1"] {
        world.sshd.restart_with(limit);
        for _ in 0..3 {
            let (mark, before) = (world.sshd.mark(), world.events("poll.unchanged").len());
            world.poll(&[]).expect(0).silent();
            assert_eq!(world.sshd.connections_since(mark), 1, "{limit}");
            assert_eq!(world.events("poll.unchanged").len() - before, APPS, "{limit}");
        }
    }
}

#[test]
fn a_server_that_opens_no_channel_at_all_is_told_at_once() {
    needs_root!();
    let mut world = deployed();
    world.sshd.restart_with("MaxSessions 0");
    world.poll(&["app-0"]).expect(76).says("opens no channel for a command").says("MaxSessions");
    world.poll(&[]).expect(76);
}
