//! The wall clock is set back a year, before a run and in the middle of one: what has a limit ends within it,
//! and what goes by the clock goes on.
//!
//! The clock is changed for the supervisor, which is the only process that asks for the time of day.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::noise;
use crate::all;
use crate::support::mischief::{Mood, Place, Plan, Proxy, Way};
use crate::support::run::{Outcome, Running};
use crate::support::{World, file, seconds, wait_until};
use crate::tally::{Group, Tally};

const A_YEAR_BACK: &str = "-365d";

/// A world whose runs see the clock that a file sets, at each look.
struct Clock {
    world: World,
}

impl Clock {
    fn new(name: &str) -> Clock {
        let clock = Clock { world: World::new(name) };
        clock.set("+0");
        clock
    }

    fn set(&self, offset: &str) {
        // By rename: it is read whenever somebody asks for the time.
        fs::write(self.world.path("clock.new"), format!("{offset}\n")).unwrap();
        fs::rename(self.world.path("clock.new"), self.world.path("clock")).unwrap();
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.world.command(args);
        command.env("LD_PRELOAD", library()).env("FAKETIME_TIMESTAMP_FILE", self.world.path("clock"));
        // A clock that is set leaves the monotonic one as it was.
        command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        command
    }

    fn spawn(&self, args: &[&str]) -> Running {
        self.world.spawn(self.command(args))
    }

    fn poll(&self, args: &[&str]) -> Outcome {
        self.spawn(args).wait()
    }

    fn behind(&self, proxy: &Proxy, timeout: &str) {
        let url = self.world.sshd.url_by_port(proxy.port, &self.world.repo.bare);
        self.world.app("site").source(&format!("url = \"{url}\"\ntimeout = \"{timeout}\"")).write();
        self.world.write_etc("known_hosts", &self.world.sshd.known_hosts_line_for(proxy.port));
    }

    fn push(&self, what: &str) -> String {
        let script = self.world.script("");
        self.world.push(&[("deploy.sh", script), ("index.html", file(what))], what)
    }
}

fn library() -> PathBuf {
    let folders = fs::read_dir("/usr/lib").unwrap().flatten();
    let mut all = folders.map(|folder| folder.path().join("faketime/libfaketime.so.1"));
    all.find(|path| path.exists()).expect("libfaketime")
}

/// Stalls at a stage: what the run does about it, with the clock set back before, or once it stalls.
const STAGES: [(usize, usize); 4] = [(0, 3), (0, 17), (1, 9), (1, 17)];

#[test]
fn a_clock_that_is_set_back_makes_no_wait_longer() {
    needs_program!("faketime");
    let clock = Clock::new("back");
    let world = &clock.world;
    let mut tally = Tally::new(Group::Network);
    let mut longest = Duration::ZERO;
    let proxy = Proxy::before(world.sshd.port);
    clock.behind(&proxy, "20s");
    let live = clock.push("first");
    clock.poll(&[]).expect(0);
    let tip = world.push(&[("noise", file(noise(300_000)))], "second");
    for (timeout, deadline, what) in [("2s", "60s", "the connection's limit"), ("60s", "3s", "the run's deadline")] {
        clock.behind(&proxy, timeout);
        world.write_host_config(&format!("deadline = \"{deadline}\""));
        for (connection, turn) in STAGES.into_iter().skip(if all() { 0 } else { 3 }) {
            for jumps in ["in the middle", "before the run"].into_iter().take(if all() { 2 } else { 1 }) {
                tally.case(format!("{what}, turn {turn} of connection {connection}, set back {jumps}"));
                clock.set(if jumps == "in the middle" { "+0" } else { A_YEAR_BACK });
                let place = Place::Turn(turn, 10);
                proxy.meet(Plan { mood: Mood::Stalls, way: Way::FromServer, place, connection: Some(connection) });
                let running = clock.spawn(&[]);
                wait_until("the stall", seconds(20), || proxy.struck() > 0);
                clock.set(A_YEAR_BACK);
                let outcome = running.wait().expect(69).within(seconds(25));
                longest = longest.max(outcome.took);
                assert_eq!(world.revision("site").as_ref(), Some(&live));
                world.expect_no_leftovers("site");
                world.expect_no_processes();
            }
        }
    }
    tally.note(format!("limits 2 s and 3 s: at most {:.1} s", longest.as_secs_f32()));
    proxy.behave();
    clock.behind(&proxy, "20s");
    world.write_host_config("");
    clock.poll(&[]).expect(0);
    world.expect_live("site", &tip);
}

#[test]
fn a_script_keeps_to_its_time_though_the_clock_is_set_back_meanwhile() {
    needs_program!("faketime");
    let clock = Clock::new("script");
    let world = &clock.world;
    let mut tally = Tally::new(Group::Network);
    world.app("site").deploy("timeout = \"2s\"").write();
    let live = clock.push("first");
    clock.poll(&[]).expect(0);
    for (name, host, signal) in [
        ("its own limit", "", None),
        ("the run's deadline", "deadline = \"3s\"", None),
        ("TERM", "", Some(Signal::SIGTERM)),
    ] {
        tally.case(name);
        clock.set("+0");
        world.write_host_config(host);
        let own = if name == "its own limit" { "2s" } else { "60s" };
        world.app("site").deploy(&format!("timeout = \"{own}\"")).write();
        world.push(
            &[("deploy.sh", world.script("[ $POLLER_REASON = rollback ] || sleep 600")), ("n", file(name))],
            name,
        );
        let before = world.ran().len();
        let running = clock.spawn(&[]);
        wait_until("the script", seconds(20), || world.ran().len() > before);
        clock.set(A_YEAR_BACK);
        if let Some(signal) = signal {
            running.signal(signal);
        }
        running.wait().expect(1).within(seconds(25));
        assert_eq!(world.recorded("site").as_ref(), Some(&live));
        world.expect_live("site", &live);
        world.expect_no_processes();
        clock.poll(&["history", "site"]).expect(0);
        clock.poll(&["status"]).expect_one_of(&[0, 1]);
    }
}

#[test]
fn releases_keep_their_order_though_the_clock_went_back() {
    needs_program!("faketime");
    let clock = Clock::new("order");
    let world = &clock.world;
    let mut tally = Tally::new(Group::Network);
    world.app("site").target("keep = 2").write();
    let mut commits = vec![clock.push("first")];
    clock.poll(&[]).expect(0);
    for (name, offset) in
        [("a year back", A_YEAR_BACK), ("two years back", "-730d"), ("a day on", "+1d"), ("back", "-1d")]
    {
        tally.case(name);
        clock.set(offset);
        commits.push(clock.push(name));
        clock.poll(&[]).expect(0).silent();
        let newest = commits.last().unwrap();
        world.expect_live("site", newest);
        // The newest two by their names are the newest two by their deploys.
        let kept: Vec<String> = commits.iter().rev().take(2).rev().cloned().collect();
        let releases = world.releases("site");
        let there: Vec<_> = releases.iter().map(|name| name.split_once('-').unwrap().1.to_owned()).collect();
        assert_eq!(there, kept, "{name}");
        let told = world.poll(&["history", "site"]).expect(0);
        let at = |commit: &str| told.stdout.find(&format!("→ {}", &commit[..10])).expect("each is told of");
        assert!(at(newest) < at(&commits[commits.len() - 2]), "the newest first\n{}", told.stdout);
    }
    tally.case("a rollback goes to the one before");
    clock.set("-400d");
    clock.poll(&["rollback", "site"]).expect(0);
    world.expect_live("site", &commits[commits.len() - 2]);
    clock.poll(&[]).expect(0);
    world.expect_live("site", &commits[commits.len() - 2]);
    clock.poll(&["unfreeze", "site"]).expect(0);
    clock.poll(&[]).expect(0);
    world.expect_live("site", commits.last().unwrap());
}

#[test]
fn what_goes_by_the_clock_goes_on_when_it_went_back() {
    needs_program!("faketime");
    let clock = Clock::new("goes on");
    let world = &clock.world;
    let mut tally = Tally::new(Group::Network);
    let first = world.deployed();

    tally.case("a tip that soaks");
    world.app("site").source("soak = \"1h\"").write();
    let second = clock.push("second");
    clock.poll(&[]).expect(0).silent();
    world.expect_live("site", &first);
    clock.set(A_YEAR_BACK);
    clock.poll(&[]).expect(0).silent();
    clock.set("-364d");
    clock.poll(&[]).expect(0).silent();
    world.expect_live("site", &second);
    world.app("site").source("soak = \"0s\"").write();

    tally.case("a failure is told again when its day is over by either way of counting");
    let url = format!("url = \"ssh://{}@127.0.0.1:{}/x\"", world.sshd.login, crate::support::sshd::free_port());
    world.app("site").source(&url).write();
    clock.set("+0");
    assert!(!clock.poll(&[]).expect(69).stderr.is_empty());
    clock.poll(&[]).expect(69).silent();
    clock.set(A_YEAR_BACK);
    assert!(!clock.poll(&[]).expect(69).stderr.is_empty());
    clock.poll(&[]).expect(69).silent();
    world.app("site").write();
    clock.poll(&[]).expect(0).silent();

    tally.case("a freeze holds until its time, however far that is now");
    clock.set("+0");
    clock.poll(&["freeze", "site", "--reason", "audit", "--for", "1h"]).expect(0);
    clock.set(A_YEAR_BACK);
    let third = clock.push("third");
    clock.poll(&[]).expect(0).silent();
    world.expect_live("site", &second);
    clock.poll(&["status"]).expect_one_of(&[0, 1]);
    clock.poll(&["unfreeze", "site"]).expect(0);
    clock.poll(&[]).expect(0).silent();
    world.expect_live("site", &third);

    tally.case("a lock of the future is nobody's");
    clock.set("+365d");
    clock.poll(&[]).expect(0).silent();
    clock.set("+0");
    clock.poll(&[]).expect(0).silent();
    clock.poll(&["status", "--json"]).expect_one_of(&[0, 1]);

    tally.case("a host waits its turn by the other clock");
    world.write_host_config("splay = \"3s\"");
    let running = clock.spawn(&[]);
    clock.set(A_YEAR_BACK);
    running.wait().expect(0).within(seconds(30));
}

#[test]
fn a_monotonic_clock_of_another_beginning_is_as_good() {
    needs_root!();
    let clock = Clock::new("unshare");
    let world = &clock.world;
    let mut tally = Tally::new(Group::Network);
    let proxy = Proxy::before(world.sshd.port);
    let away = |args: &[&str]| {
        let plain = world.command(args);
        let mut command = Command::new("unshare");
        command.args(["--time", "--monotonic", "40000000", "--boottime", "40000000", "--fork"]);
        command.arg(plain.get_program()).args(plain.get_args()).current_dir("/");
        world.spawn(command).wait()
    };
    tally.case("a deploy");
    clock.behind(&proxy, "20s");
    let first = clock.push("first");
    away(&[]).expect(0);
    world.expect_live("site", &first);
    tally.case("a server that stalls");
    clock.behind(&proxy, "2s");
    proxy.meet(Plan { mood: Mood::Stalls, way: Way::FromServer, place: Place::Turn(9, 10), connection: None });
    let outcome = away(&[]).expect(69).within(seconds(15));
    tally.note(format!("limit 2 s: {:.1} s", outcome.took.as_secs_f32()));
    world.expect_no_processes();
}
