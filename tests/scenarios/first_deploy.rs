//! README's "Your first deploy", as it is typed: from an installed poller to a live release.

use std::fs;

use crate::check::Machine;
use crate::support::{World, exec, file, sh};

#[test]
fn three_commands_after_the_installation_an_app_is_live() {
    needs_root!();
    let world = World::new("first deploy");
    // As `make install` leaves it.
    fs::remove_file(world.path("etc/known_hosts")).unwrap();
    fs::remove_dir_all(world.path("etc/keys")).unwrap();
    fs::remove_dir(world.path("etc/apps.d")).unwrap();
    let script = "#!/bin/sh\nset -eu\necho \"checked $(wc -c <index.html) bytes\"\n";
    let first = world.push(&[("deploy.sh", exec(script)), ("index.html", file("Hello, world\n"))], "Say hello");
    let url = world.sshd.url(&world.repo.bare);

    let directory = world.target("site");
    let dialogue = [
        ("Branch", ""),
        ("directory", directory.to_str().unwrap()),
        ("Script", ""),
        ("Units", ""),
        ("type yes", "yes"),
    ];
    let init = world.poll_in_dialogue(&["init", "site", &url, "--user", &world.deployer.name], &dialogue).expect(0);
    let shown = init.stderr.replace(&format!(" --config {}", world.config_file().display()), "");
    // The world has folders of its own; on a server the default is taken.
    let asked = format!("[/srv/site]: {}", directory.display());
    assert!(shown.contains(&asked), "{shown}");
    let shown = shown.replace(&asked, "[/srv/site]: ");
    world.screen("first-init", "poller init site git@git.example.org:site.git --user www-data", &shown);

    // Pasted into the server's page for deploy keys, read-only.
    let read_only = format!("restrict,command=\"git-upload-pack '{}'\"", world.repo.bare.display());
    world.sshd.authorize_key(&read_only, &world.path("etc/keys/site.pub"));
    let machine = Machine::new(&world);
    fs::remove_file(world.path("cron/cron.d/poller")).unwrap();
    let check = machine.check(&["check", "site"]).expect(0);
    world.screen("first-check", "poller check site", &check.stdout);

    let poll = world.poll_on_terminal(&["site"]).expect(0);
    world.screen("first-poll", "poller site", &poll.stderr);
    world.expect_live("site", &first);
    let installed = sh("ls", &["-A", directory.to_str().unwrap()]);
    assert_eq!(installed.split_whitespace().collect::<Vec<_>>(), ["current", "releases"]);
}
