//! Real lines that are bad: narrow, lossy, cut, refused and with a hole for large packets, in namespaces of
//! the test's own.

use std::time::Duration;

use super::net::{End, Net};
use super::noise;
use crate::all;
use crate::support::run::Outcome;
use crate::support::{World, file, seconds, wait_until};
use crate::tally::{Group, Tally};

/// A world behind a line, with one commit deployed and another one, of so many bytes, pushed.
struct Line {
    world: World,
    net: Net,
    live: String,
    tip: String,
    /// The slowest run under mischief beyond its limit.
    overrun: Duration,
}

impl Line {
    fn new(bytes: usize) -> Line {
        let world = World::new("line");
        let net = Net::new(&world);
        net.configure(&world, "10s");
        let script = world.script("");
        let live = world.push(&[("deploy.sh", script)], "first");
        net.poll(&world, &[]).expect(0);
        let mut line = Line { world, net, tip: live.clone(), live, overrun: Duration::ZERO };
        line.push(bytes);
        line
    }

    fn push(&mut self, bytes: usize) {
        self.tip = self.world.push(&[("noise", file(noise(bytes)))], "next");
    }

    fn limits(&self, timeout: &str, deadline: &str) {
        self.net.configure(&self.world, timeout);
        self.world.write_host_config(&format!("deadline = \"{deadline}\""));
    }

    /// The run failed for the network, or got over it where `may_succeed`; what is live is one or the other.
    #[track_caller]
    fn judge(&mut self, what: &str, outcome: Outcome, codes: &[i32], limit: Duration) -> i32 {
        let outcome = outcome.within(limit + seconds(15));
        assert!(codes.contains(&outcome.code), "{what}: exit {}\n{}", outcome.code, outcome.story());
        self.overrun = self.overrun.max(outcome.took.saturating_sub(limit));
        if outcome.code == 0 {
            self.live = self.tip.clone();
        }
        assert_eq!(self.world.revision("site").as_ref(), Some(&self.live), "{what}");
        assert_eq!(self.world.recorded("site").as_ref(), Some(&self.live), "{what}");
        self.world.expect_no_leftovers("site");
        self.world.expect_no_processes();
        outcome.code
    }

    /// A cable that is as it should be: the next poll deploys.
    #[track_caller]
    fn recover(&mut self) {
        self.net.heal();
        self.limits("20s", "90s");
        self.net.poll(&self.world, &[]).expect(0);
        self.live = self.tip.clone();
        self.world.expect_live("site", &self.live);
    }

    fn poll(&self) -> Outcome {
        self.net.poll(&self.world, &[])
    }
}

#[test]
fn a_line_that_is_too_narrow_for_the_pack_ends_by_the_deadline_and_a_wider_one_deploys() {
    needs_root!();
    needs_program!("nft");
    let mut tally = Tally::new(Group::Network);
    let mut line = Line::new(600_000);
    tally.case("64 kbit/s, silence is never long, the deadline is");
    line.limits("10s", "4s");
    line.net.narrow("64kbit");
    let outcome = line.poll().says("deadline");
    line.judge("narrow", outcome, &[69], seconds(4));
    if all() {
        tally.case("64 kbit/s and less patience than a packet takes");
        line.limits("2s", "60s");
        let outcome = line.poll();
        line.judge("impatient", outcome, &[69], seconds(60));
    }
    tally.case("4 Mbit/s deploys");
    line.limits("10s", "60s");
    line.net.narrow("4mbit");
    let outcome = line.poll();
    line.judge("wider", outcome, &[0], seconds(60));
    line.push(10);
    line.recover();
    tally.note(format!("at most {:.1} s over its limit", line.overrun.as_secs_f32()));
}

#[test]
fn a_line_that_loses_packets_deploys_whole_or_not_at_all() {
    needs_root!();
    needs_program!("nft");
    let mut tally = Tally::new(Group::Network);
    let mut line = Line::new(200_000);
    let (rates, rounds): (&[u32], _) = if all() { (&[1, 5, 10, 20, 30, 50, 80], 5) } else { (&[5, 20], 1) };
    let mut deployed = 0;
    for (rate, round) in rates.iter().flat_map(|rate| (0..rounds).map(move |round| (rate, round))) {
        tally.case(format!("{rate} percent lost, round {round}"));
        line.limits("3s", "10s");
        for end in [End::Client, End::Server] {
            line.net.rule(end, &format!("in numgen random mod 100 < {rate} drop"));
        }
        let outcome = line.poll();
        let code = line.judge("loss", outcome, &[0, 69], seconds(10));
        deployed += usize::from(code == 0);
        line.push(200_000);
        line.recover();
        line.push(200_000);
    }
    tally.note(format!("{deployed} deployed all the same"));
    tally.note(format!("at most {:.1} s over the deadline", line.overrun.as_secs_f32()));
}

/// What becomes of a line, by its rules at the server's end.
const CUTS: [(&str, &str); 9] = [
    ("all is dropped that comes", "in ip daddr 10.77.0.10 drop"),
    ("all is dropped that goes", "out ip saddr 10.77.0.10 drop"),
    ("a firewall resets", "in ip daddr 10.77.0.10 meta l4proto tcp reject with tcp reset"),
    ("host unreachable", "in ip daddr 10.77.0.10 reject with icmp type host-unreachable"),
    ("port unreachable", "in ip daddr 10.77.0.10 reject with icmp type port-unreachable"),
    ("prohibited", "in ip daddr 10.77.0.10 reject with icmp type admin-prohibited"),
    ("net unreachable", "in ip daddr 10.77.0.10 reject with icmp type net-unreachable"),
    ("a hole for large packets from the server", "out ip saddr 10.77.0.10 meta length > 1000 drop"),
    ("a hole for large packets to the server", "in ip daddr 10.77.0.10 meta length > 600 drop"),
];

#[test]
fn a_line_that_is_cut_before_the_poll_leaves_what_is_live() {
    needs_root!();
    needs_program!("nft");
    let mut tally = Tally::new(Group::Network);
    let mut line = Line::new(1000);
    let most = if all() { CUTS.len() } else { 3 };
    for (name, rule) in CUTS.into_iter().rev().take(most) {
        tally.case(name);
        line.limits("2s", "20s");
        line.net.rule(End::Server, rule);
        let outcome = line.poll();
        line.judge(name, outcome, &[69], seconds(4));
        line.net.heal();
    }
    tally.case("no cable");
    line.net.unplug();
    let outcome = line.poll();
    line.judge("no cable", outcome, &[69], seconds(4));
    tally.case("no route");
    line.net.heal();
    line.net.run(End::Client, "ip", &["route", "flush", "dev", "wire"]);
    let outcome = line.poll();
    line.judge("no route", outcome, &[69], seconds(4));
    line.recover();
    tally.note(format!("limit 2 s a step: at most {:.1} s over two of them", line.overrun.as_secs_f32()));
}

#[test]
fn a_line_that_is_cut_in_the_middle_of_a_pack_leaves_what_is_live() {
    needs_root!();
    needs_program!("nft");
    let mut tally = Tally::new(Group::Network);
    let mut line = Line::new(2_000_000);
    // In the middle of a pack only small packets go to the server, so the last one cuts nothing.
    let most = if all() { CUTS.len() - 1 } else { 2 };
    for (name, rule) in CUTS.into_iter().take(most) {
        tally.case(name);
        line.limits("2s", "20s");
        let outcome = line.in_the_middle(|net| net.rule(End::Server, rule));
        line.judge(name, outcome, &[69], seconds(8));
        line.net.heal();
    }
    tally.case("the cable is pulled");
    let outcome = line.in_the_middle(Net::unplug);
    line.judge("unplugged", outcome, &[69], seconds(8));
    line.net.heal();
    tally.case("the cable is pulled for half a second");
    line.limits("5s", "60s");
    let outcome = line.in_the_middle(|net| {
        net.unplug();
        std::thread::sleep(Duration::from_millis(500));
        net.plug();
    });
    line.judge("flaps", outcome, &[0], seconds(60));
    line.push(10);
    line.recover();
    tally.note(format!("limit 2 s a silence: at most {:.1} s over the least it takes", line.overrun.as_secs_f32()));
}

impl Line {
    /// A poll that has a part of its pack when this happens.
    fn in_the_middle(&self, happens: impl FnOnce(&Net)) -> Outcome {
        self.net.narrow("8mbit");
        self.net.proxy.behave();
        let running = self.net.spawn(&self.world, &[]);
        wait_until("a part of the pack", seconds(20), || self.net.proxy.passed() > 400_000);
        happens(&self.net);
        running.wait()
    }
}
