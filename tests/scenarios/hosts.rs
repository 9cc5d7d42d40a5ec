//! Many hosts, one repository: soak, overrides and splay, without any coordination.

use std::process::Command;

use crate::support::{World, file};

/// The same program, some time later.
fn poll_later(world: &World, shift: &str) -> crate::support::run::Outcome {
    let poll = world.command(&[]);
    let mut later = Command::new("faketime");
    later.arg("-f").arg(shift).arg(poll.get_program()).args(poll.get_args()).current_dir("/");
    world.spawn(later).wait()
}

#[test]
fn a_tip_is_deployed_once_it_has_stood_as_long_as_it_must() {
    let world = World::new("soak");
    needs_program!("faketime");
    let first = world.deployed();
    world.app("site").source("soak = \"1h\"").write();
    let second = world.push(&[("index.html", file("two\n"))], "second");
    world.poll_on_terminal(&[]).expect(0).says("once it has stood for 1h");
    let tip = world.journal_tip("site");
    world.poll(&[]).expect(0).silent();
    assert_eq!(world.journal_tip("site"), tip, "seen once, recorded once");
    poll_later(&world, "+30m").expect(0).silent();
    world.expect_live("site", &first);
    // A newer tip has to stand for itself.
    let third = world.push(&[("index.html", file("three\n"))], "third");
    poll_later(&world, "+59m").expect(0).silent();
    poll_later(&world, "+90m").expect(0).silent();
    world.expect_live("site", &first);
    poll_later(&world, "+120m").expect(0).silent();
    world.expect_live("site", &third);
    assert_ne!(second, third);
    assert_eq!(world.history("site")[2..], ["soak skipped", "soak skipped", "deploy started", "deploy deployed"]);
}

#[test]
fn what_is_pushed_between_the_question_and_the_fetch_has_to_stand_for_itself() {
    let mut world = World::new("soak push");
    needs_program!("faketime");
    let first = world.deployed();
    world.app("site").source("soak = \"1h\"").write();
    world.push(&[("index.html", file("two\n"))], "second");
    world.poll(&[]).expect(0).silent();
    let third = world.repo.commit(&[("index.html", file("three\n"))], "third");
    world.repo.push_to("refs/heads/next");
    // The question is asked in protocol v2, the fetch in the older one: only then does `main` move.
    let (program, git) = (world.path("server/push"), world.path("server/site.git"));
    let text = format!(
        "#!/bin/sh\n[ -n \"$GIT_PROTOCOL\" ] || git --git-dir={} update-ref refs/heads/main {third}\nexec sh -c \"$SSH_ORIGINAL_COMMAND\"\n",
        git.display()
    );
    crate::support::put_exec(&program, &text);
    let force = format!("ForceCommand {}", program.display());
    world.sshd.restart_with(&force);
    poll_later(&world, "+90m").expect(0).silent();
    world.expect_live("site", &first);
    poll_later(&world, "+149m").expect(0).silent();
    world.expect_live("site", &first);
    poll_later(&world, "+160m").expect(0).silent();
    world.expect_live("site", &third);
    assert_eq!(world.history("site")[2..], ["soak skipped", "soak skipped", "deploy started", "deploy deployed"]);
}

#[test]
fn force_does_not_wait_and_a_failed_attempt_does_not_soak_again() {
    let world = World::new("soak force");
    world.deployed();
    world.app("site").source("soak = \"1h\"").write();
    let second = world.push(&[("index.html", file("two\n"))], "second");
    world.poll(&["--force", "site"]).expect(0);
    world.expect_live("site", &second);
    world.push(&[("deploy.sh", world.script("exit 1"))], "bad");
    world.poll(&[]).expect(0).silent();
    world.poll(&["--force", "site"]).expect(1);
    world.poll(&[]).expect(1);
}

#[test]
fn canary_hosts_follow_another_branch_and_the_rest_wait() {
    let world = World::new("override");
    let overrides = "[[source.override]]\nhosts = [\"canary-*\"]\nsoak = \"0s\"\nbranch = \"next\"\n";
    let write = || {
        let text = world.app("site").source("soak = \"1h\"").text();
        world.write_etc("apps.d/site.toml", &format!("{text}{overrides}"));
    };
    let first = world.deployed();
    write();
    let second = world.push(&[("index.html", file("two\n"))], "second");
    world.repo.push_to("refs/heads/next");
    world.poll(&[]).expect(0).silent();
    world.expect_live("site", &first);
    world.write_host_config("");
    let text = std::fs::read_to_string(world.config_file()).unwrap().replace("testhost", "canary-1");
    world.write_etc("poller.toml", &text);
    world.poll(&[]).expect(0).silent();
    world.expect_live("site", &second);
    assert_eq!(world.journal("site")[0].text("ref"), "refs/heads/next");
}

#[test]
fn splay_makes_a_schedule_wait_and_a_person_not() {
    let world = World::new("splay");
    world.deployed();
    world.write_host_config("splay = \"2s\"");
    let scheduled = world.poll(&["--verbose"]).expect(0);
    let waited = world.events("run.waiting");
    assert_eq!(waited.len(), 1);
    let part = waited[0]["msg"].as_str().unwrap().split(' ').next().unwrap().to_owned();
    let time = match part.strip_suffix("ms").map(|ms| ms.rsplit('s').next().unwrap().parse::<u64>().unwrap()) {
        Some(ms) => ms + if part.contains("1s") { 1000 } else { 0 },
        None => panic!("{part}"),
    };
    assert!(scheduled.took.as_millis() >= u128::from(time), "{:?} for {part}", scheduled.took);
    world.poll_on_terminal(&["--verbose"]).expect(0);
    world.poll(&["--verbose", "site"]).expect(0);
    assert_eq!(world.events("run.waiting").len(), 1);
}

#[test]
fn a_splay_lengthens_the_deadline_of_a_run_that_waits_alone() {
    let world = World::new("splay deadline");
    world.write_host_config("splay = \"24h\"\ndeadline = \"3s\"");
    world.app("site").deploy("timeout = \"60s\"").write();
    world.push(&[("deploy.sh", world.script("sleep 300"))], "slow");
    let ended = world.poll(&["site"]).expect(1).within(crate::support::seconds(30));
    ended.says("the run's deadline of 3s").says("`[host] deadline`");
}

#[test]
fn a_signal_ends_the_wait_of_a_splay_and_nothing_was_done() {
    let world = World::new("splay stop");
    world.deployed();
    world.push(&[("index.html", file("two\n"))], "second");
    world.write_host_config("splay = \"24h\"");
    let tip = world.journal_tip("site");
    let running = world.spawn_poll(&["--verbose", "--json"]);
    crate::support::wait_until("it waits", crate::support::seconds(20), || !world.events("run.waiting").is_empty());
    running.signal(nix::sys::signal::Signal::SIGTERM);
    let stopped = running.wait().expect(75).prints("told to stop while it waited");
    assert!(stopped.stderr.is_empty(), "{}", stopped.story());
    assert_eq!(world.journal_tip("site"), tip);
}
