//! The host: folders, metrics, whom to tell, users, and what starts poller.

use std::fs;

use super::{Machine, check, expect, new_app};
use crate::support::{set_mode, sh};

#[test]
fn a_metrics_folder_that_is_missing() {
    let world = new_app("metrics");
    let folder = world.path("var/metrics");
    world.write_host_config(&format!("\n[metrics]\ntextfile = \"{}/poller.prom\"", folder.display()));
    let text = expect(&check(&world).expect(0), None, "metrics", "warning", &["is not there"]);
    sh("sh", &["-c", text.lines().last().unwrap().split_once(": ").unwrap().1]);
    expect(&check(&world).expect(0), None, "metrics", "ok", &[]);
}

#[test]
fn a_full_disk_below_state_locks_or_log_is_told_before_a_poll_meets_it() {
    needs_root!();
    let world = new_app("full");
    fs::create_dir_all(world.log_file().parent().unwrap()).unwrap();
    let log = world.log_file().parent().unwrap().to_owned();
    for (folder, word, owner) in
        [(world.state(), "state", Some(&world.fetcher)), (world.run_dir(), "locks", None), (log, "log", None)]
    {
        world.mount_tmpfs(&folder, "size=1m,mode=0755", owner);
        expect(&check(&world).expect(0), None, word, "ok", &[]);
        // As much as it takes.
        assert!(fs::write(folder.join("fill"), vec![0; 2 << 20]).is_err());
        expect(&check(&world).expect(74), None, word, "failed", &["is full", "df -h"]);
        fs::remove_file(folder.join("fill")).unwrap();
    }
}

#[test]
fn folders_and_programs_of_the_host_that_others_could_change() {
    let world = new_app("host");
    let tell = world.path("etc/tell");
    crate::support::put_exec(&tell, "#!/bin/sh\n");
    world.write_host_config(&format!("\n[notify]\ncommand = \"{}\"", tell.display()));
    world.poll(&[]).expect(0);
    expect(&check(&world).expect(0), None, "notify", "ok", &[]);
    set_mode(&tell, 0o777);
    expect(&check(&world).expect(0), None, "notify", "warning", &["o-w /"]);
    set_mode(&tell, 0o644);
    expect(&check(&world).expect(0), None, "notify", "warning", &["chmod a+x"]);
    fs::remove_file(&tell).unwrap();
    expect(&check(&world).expect(0), None, "notify", "warning", &["does not exist"]);
    world.write_host_config("");
    for (folder, word) in [(world.state(), "state"), (world.run_dir(), "locks")] {
        set_mode(&folder, 0o777);
        expect(&check(&world).expect(77), None, word, "failed", &["0777"]);
        set_mode(&folder, 0o755);
    }
    set_mode(world.log_file().parent().unwrap(), 0o777);
    expect(&check(&world).expect(77), None, "log", "failed", &["0777"]);
}

#[test]
fn a_fetch_user_and_a_deploy_user_who_do_not_exist() {
    needs_root!();
    let world = new_app("users");
    world.app("site").deploy("user = \"nosuchuser\"").write();
    let shown = check(&world).expect(78);
    expect(&shown, Some("site"), "user", "failed", &["nosuchuser", "useradd"]);
    expect(&shown, Some("site"), "ref", "ok", &[]);
    let text = fs::read_to_string(world.config_file()).unwrap();
    world.write_etc("poller.toml", &text.replace(&world.fetcher.name, "nosuchfetcher"));
    let mark = world.sshd.mark();
    expect(&check(&world).expect(78), None, "fetch_user", "failed", &["useradd --system", "nosuchfetcher"]);
    assert_eq!(world.sshd.connections_since(mark), 0, "root talks to nobody");
}

#[test]
fn a_crontab_that_cron_passes_over_and_two_that_start_poller() {
    needs_root!();
    let world = new_app("schedule");
    let machine = Machine::new(&world);
    let check = || machine.check(&["check", "--json"]);
    expect(&check().expect(0), None, "schedule", "ok", &["/etc/cron.d/poller"]);
    let plain = world.path("cron/cron.d/poller");
    let dotted = world.path("cron/cron.d/poller.cron");
    fs::rename(&plain, &dotted).unwrap();
    expect(&check().expect(0), None, "schedule", "warning", &["mv /etc/cron.d/poller.cron /etc/cron.d/poller"]);
    fs::copy(&dotted, &plain).unwrap();
    expect(&check().expect(0), None, "schedule", "ok", &[]);
    fs::write(world.path("cron/cron.d/another"), "* * * * * root /usr/bin/poller\n").unwrap();
    expect(&check().expect(0), None, "schedule", "warning", &["another", "keep one"]);
    for name in ["another", "poller", "poller.cron"] {
        fs::remove_file(world.path("cron/cron.d").join(name)).unwrap();
    }
    expect(&check().expect(0), None, "schedule", "warning", &["nothing starts poller"]);
}
