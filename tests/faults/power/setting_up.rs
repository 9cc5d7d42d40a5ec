//! `poller init`: what it said it made is there, with its content; what was cut short is finished by
//! the same command.

use std::fs;
use std::os::unix::fs::MetadataExt;

use super::makes;
use super::stops::{Met, points, stop_at};
use crate::all;
use crate::support::mounts::Disk;
use crate::support::{World, processes, sh};
use crate::tally::{Group, Tally};

#[test]
fn what_init_said_it_made_is_there() {
    needs_disks!();
    let mut tally = Tally::new(Group::Power);
    for make in makes(0) {
        let world = World::new("init");
        let disk = Disk::make(make.kind, &world.path("disk"), &world.path("etc"));
        let (url, directory) = (world.sshd.url(&world.repo.bare), world.path("etc/www/site"));
        let print = world.sshd.fingerprint();
        let mut args = vec!["init", "site", &url, "--user", &world.deployer.name, "--accept-host-key", &print];
        args.extend(["--directory", directory.to_str().unwrap()]);
        let bare = || {
            disk.make_anew();
            world.write_host_config("");
            disk.sync();
        };

        bare();
        let (outcome, points) = points(&world, &args);
        outcome.expect(0).prints("ssh-ed25519");
        assert!(points.len() > 15, "only {} moments: {points:?}", points.len());
        for point in points.iter().step_by(if all() { 1 } else { points.len() / 2 }) {
            tally.case(format!("{} after {point}", make.kind.name()));
            bare();
            if let Met::Stopped(running) = stop_at(&world, &args, point) {
                disk.cut(make.cut);
                processes::kill_all_of(&world);
                drop(running);
            }
            disk.power_on();
            world.poll(&args).expect(0);
            expect_all_there(&world);
        }
        tally.case(format!("{} after its end", make.kind.name()));
        bare();
        world.poll(&args).expect(0);
        disk.cut(make.cut);
        disk.power_on();
        expect_all_there(&world);
    }
}

#[track_caller]
fn expect_all_there(world: &World) {
    let key = world.path("etc/keys/site");
    let public = fs::read_to_string(world.path("etc/keys/site.pub")).unwrap();
    assert_eq!(sh("ssh-keygen", &["-yf", key.to_str().unwrap()]), public);
    assert_eq!(fs::read_to_string(world.path("etc/known_hosts")).unwrap(), world.sshd.known_hosts_line());
    let made = fs::metadata(world.path("etc/www/site")).unwrap();
    assert_eq!((made.uid(), made.mode() & 0o7777), (world.deployer.uid, 0o755));
    let app = fs::read_to_string(world.path("etc/apps.d/site.toml")).unwrap();
    assert!(app.contains(&world.sshd.url(&world.repo.bare)), "{app}");
    // It loads, and knows of nothing deployed.
    world.poll(&["status"]).expect(0).prints("site");
}
