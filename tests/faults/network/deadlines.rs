//! The deadline of a run, and being told to stop: over a connection at each of its stages, a server that
//! trickles for ever, and every command that asks a server.

use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::noise;
use crate::all;
use crate::support::mischief::{Mood, Place, Plan, Proxy, Way};
use crate::support::run::Outcome;
use crate::support::{World, file, seconds, wait_until};
use crate::tally::{Group, Tally};

struct Behind {
    world: World,
    proxy: Proxy,
    live: String,
}

impl Behind {
    fn new() -> Behind {
        let world = World::new("deadlines");
        let proxy = Proxy::before(world.sshd.port);
        world.write_etc("known_hosts", &world.sshd.known_hosts_line_for(proxy.port));
        let behind = Behind { world, proxy, live: String::new() };
        behind.limits("10s", "90s", "30s");
        let live = behind.world.deployed_as_configured();
        Behind { live, ..behind }
    }

    fn limits(&self, timeout: &str, deadline: &str, script: &str) {
        let url = self.world.sshd.url_by_port(self.proxy.port, &self.world.repo.bare);
        let app = self.world.app("site").source(&format!("url = \"{url}\"\ntimeout = \"{timeout}\""));
        app.deploy(&format!("timeout = \"{script}\"")).write();
        self.world.write_host_config(&format!("deadline = \"{deadline}\""));
    }

    fn push_much(&self) -> String {
        self.world.push(&[("noise", file(noise(3_000_000)))], "much")
    }

    /// What is live is what was, and nothing is left of the attempt.
    #[track_caller]
    fn expect_untouched(&self) {
        assert_eq!(self.world.revision("site").as_ref(), Some(&self.live));
        assert_eq!(self.world.recorded("site").as_ref(), Some(&self.live));
        self.world.expect_no_leftovers("site");
        self.world.expect_no_processes();
    }

    #[track_caller]
    fn recover(&mut self, tip: &str) {
        self.proxy.behave();
        self.limits("20s", "90s", "30s");
        self.world.poll(&[]).expect(0);
        self.world.expect_live("site", tip);
        self.live = tip.to_owned();
    }
}

/// How much later than told.
fn over(outcome: &Outcome, limit: Duration) -> Duration {
    outcome.took.saturating_sub(limit)
}

/// Where a run is to be met.
const STAGES: [(&str, usize, usize); 5] = [
    ("the handshake of the probe", 0, 3),
    ("the login of the probe", 0, 9),
    ("the refs", 0, 17),
    ("the handshake of the fetch", 1, 3),
    ("the pack", 1, 17),
];

#[test]
fn the_deadline_of_the_run_ends_it_wherever_it_is() {
    let mut behind = Behind::new();
    let mut tally = Tally::new(Group::Network);
    let mut longest = Duration::ZERO;
    let tip = behind.push_much();
    let limit = seconds(3);
    for (stage, connection, turn) in STAGES.into_iter().step_by(if all() { 1 } else { 3 }) {
        for mood in if all() { &[Mood::Stalls, Mood::Drips][..] } else { &[Mood::Stalls][..] } {
            tally.case(format!("{mood:?} in {stage}"));
            // The limit of the connection is far off, so that only the run's counts.
            behind.limits("60s", "3s", "30s");
            let place = Place::Turn(turn, 10);
            behind.proxy.meet(Plan { mood: *mood, way: Way::FromServer, place, connection: Some(connection) });
            let outcome = behind.world.poll(&[]).expect(69).within(seconds(20));
            longest = longest.max(over(&outcome, limit));
            behind.expect_untouched();
        }
    }
    tally.case("a server that trickles for ever");
    behind.limits("5s", "5s", "30s");
    let place = Place::Turn(17, 100_000);
    behind.proxy.meet(Plan { mood: Mood::Trickles, way: Way::FromServer, place, connection: Some(1) });
    let outcome = behind.world.poll(&[]).expect(69).says("deadline").within(seconds(25));
    longest = longest.max(over(&outcome, seconds(5)));
    behind.expect_untouched();
    behind.recover(&tip);
    tally.note(format!("at most {:.1} s over the deadline", longest.as_secs_f32()));
}

#[test]
fn being_told_to_stop_ends_it_wherever_it_is() {
    let mut behind = Behind::new();
    let mut tally = Tally::new(Group::Network);
    let mut longest = Duration::ZERO;
    let tip = behind.push_much();
    behind.limits("60s", "90s", "30s");
    let signals: &[Signal] =
        if all() { &[Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] } else { &[Signal::SIGTERM] };
    for (stage, connection, turn) in STAGES {
        for signal in signals {
            tally.case(format!("{signal} in {stage}"));
            let place = Place::Turn(turn, 10);
            behind.proxy.meet(Plan { mood: Mood::Stalls, way: Way::FromServer, place, connection: Some(connection) });
            let running = behind.world.spawn_poll(&[]);
            wait_until("the stall", seconds(20), || behind.proxy.struck() > 0);
            let told = std::time::Instant::now();
            running.signal(*signal);
            running.wait().expect(75);
            longest = longest.max(told.elapsed());
            assert!(told.elapsed() < seconds(15), "{stage}: {:?}", told.elapsed());
            behind.expect_untouched();
        }
    }
    behind.recover(&tip);
    tally.note(format!("ended at most {:.1} s after the signal", longest.as_secs_f32()));
}

#[test]
fn the_deadline_and_a_signal_end_a_script_and_what_was_live_comes_back() {
    let mut behind = Behind::new();
    let mut tally = Tally::new(Group::Network);
    let stubborn = "trap '' TERM\nwhile :; do sleep 0.2; done";
    let kinds = [("a script that runs over", "sleep 600", 0), ("one that does not listen to TERM", stubborn, 5)];
    for (name, script, grace) in kinds.into_iter().take(if all() { 2 } else { 1 }) {
        let calm = behind.world.script("");
        let good = behind.world.push(&[("deploy.sh", calm), ("index.html", file(name))], "good");
        behind.recover(&good);
        tally.case(format!("{name}, the run's deadline"));
        behind.world.push(
            &[("deploy.sh", behind.world.script(&format!("[ $POLLER_REASON = rollback ] || {{ {script}\n}}")))],
            name,
        );
        behind.limits("10s", "4s", "60s");
        let outcome = behind.world.poll(&[]).expect(1).within(seconds(4 + 5 + 15));
        tally.note(format!("{name}: {:.1} s over the deadline", over(&outcome, seconds(4 + grace)).as_secs_f32()));
        behind.expect_untouched();
        tally.case(format!("{name}, TERM"));
        behind.limits("10s", "90s", "60s");
        let before = behind.world.ran().len();
        let running = behind.world.spawn_poll(&[]);
        wait_until("the script", seconds(20), || behind.world.ran().len() > before);
        running.signal(Signal::SIGTERM);
        running.wait().expect(1).within(seconds(30));
        behind.expect_untouched();
        tally.case(format!("{name}, its own limit"));
        behind.limits("10s", "90s", "2s");
        behind.world.poll(&[]).expect(1).within(seconds(30));
        behind.expect_untouched();
    }
}

#[test]
fn every_command_that_asks_a_server_ends() {
    let behind = Behind::new();
    let mut tally = Tally::new(Group::Network);
    let mut longest = Duration::ZERO;
    behind.push_much();
    behind.limits("2s", "20s", "30s");
    let commands: [&[&str]; 4] = [&["--dry-run"], &["check"], &["adopt", "site"], &["--force", "site"]];
    for (stage, connection, turn) in STAGES.into_iter().skip(if all() { 0 } else { 3 }) {
        for words in commands {
            tally.case(format!("{words:?} in {stage}"));
            let place = Place::Turn(turn, 10);
            // `check` asks once more than it fetches.
            let connection = if words == ["check"] { None } else { Some(connection) };
            behind.proxy.meet(Plan { mood: Mood::Stalls, way: Way::FromServer, place, connection });
            let outcome = behind.world.poll(words).within(seconds(30));
            assert_eq!(outcome.code, 69, "{words:?} in {stage}\n{}", outcome.story());
            longest = longest.max(outcome.took);
            behind.expect_untouched();
            expect_no_quarantine(&behind.world);
        }
    }
    tally.note(format!("limit 2 s a step: at most {:.1} s", longest.as_secs_f32()));
}

#[test]
fn a_dry_run_that_is_told_to_stop_leaves_nothing_behind() {
    let behind = Behind::new();
    let mut tally = Tally::new(Group::Network);
    behind.push_much();
    behind.limits("60s", "90s", "30s");
    for (stage, connection, turn) in STAGES {
        tally.case(stage);
        let place = Place::Turn(turn, 10);
        behind.proxy.meet(Plan { mood: Mood::Stalls, way: Way::FromServer, place, connection: Some(connection) });
        let running = behind.world.spawn_poll(&["--dry-run"]);
        wait_until("the stall", seconds(20), || behind.proxy.struck() > 0);
        running.signal(Signal::SIGTERM);
        running.wait().expect(75).within(seconds(30));
        behind.expect_untouched();
        expect_no_quarantine(&behind.world);
    }
}

/// Nothing of this world's fetcher in /tmp.
#[track_caller]
fn expect_no_quarantine(world: &World) {
    use std::os::unix::fs::MetadataExt;
    let entries = fs::read_dir(std::env::temp_dir()).unwrap().flatten();
    let ours = entries.filter(|entry| {
        entry.file_name().to_string_lossy().starts_with("poller-dry-run-")
            && entry.metadata().is_ok_and(|meta| crate::support::am_root() && meta.uid() == world.fetcher.uid)
    });
    let left: Vec<_> = ours.map(|entry| entry.path()).collect();
    assert!(left.is_empty(), "left over: {left:?}");
}
