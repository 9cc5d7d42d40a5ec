//! Canaries and soak: when each host deploys a push, and how many have a bad one before it is taken back.
//!
//! The rule is that of `src/stages/decide.rs`: a host notes when it first saw the tip, and deploys at the first poll
//! at which the tip has stood for `soak` since then.

use super::hosts::{self, Names, Schedule};
use super::poll::INTERVAL;
use super::random::Random;

/// From the moment that poller is started to the one that it decides at varies by this, in seconds.
const WAVERING: f64 = 0.020;
/// cron starts a little later in the second from minute to minute, until a second is full. Seconds in an interval.
const CREEPING: (f64, f64) = (0.005, 0.050);

pub struct Rule {
    pub schedule: Schedule,
    /// The part of the hosts whose soak is nothing.
    pub canaries: f64,
    /// Seconds, of the others.
    pub soak: f64,
}

pub struct Host {
    pub is_canary: bool,
    /// Seconds after the push.
    pub deploys: f64,
    /// It took one poll more than on a perfect clock.
    pub late: bool,
    phase: f64,
    creeping: f64,
    fraction: f64,
    seed: u64,
}

impl Host {
    /// When the poll with this number decides. The same each time that it is asked.
    fn poll(&self, number: u32) -> f64 {
        let wavering = Random::new(self.seed ^ u64::from(number) << 40).normal(WAVERING);
        let creeping = (self.fraction + self.creeping * f64::from(number)).fract();
        self.phase + INTERVAL * f64::from(number) + creeping + wavering
    }

    /// When it deploys what is pushed at `push`, and whether a poll later than on a perfect clock.
    fn deploys(&self, push: f64, soak: f64) -> (f64, bool) {
        let first = (0..).find(|n| self.poll(*n) >= push).expect("a poll after any push");
        let since = self.poll(first);
        let then = (first..).find(|n| self.poll(*n) - since >= soak).expect("a poll after any soak");
        (self.poll(then), f64::from(then - first) > (soak / INTERVAL).ceil())
    }
}

/// A push in the middle of an interval, at 0; what each host does with it.
pub fn rollout(rule: &Rule, hosts: usize) -> Vec<Host> {
    let mut random = Random::new(7);
    let arrivals = hosts::arrivals(rule.schedule, Names::Counted, 0, hosts);
    let creeps = matches!(rule.schedule, Schedule::Cron { .. } | Schedule::Minutes);
    let of = |phase: f64, random: &mut Random| {
        let is_canary = random.below(1.0) < rule.canaries;
        let creeping = if creeps { CREEPING.0 + random.below(CREEPING.1 - CREEPING.0) } else { 0.0 };
        let fraction = if creeps { random.below(1.0) } else { 0.0 };
        // The interval that the push falls into begins before it.
        let phase = phase - INTERVAL / 2.0;
        let mut host = Host { is_canary, deploys: 0.0, late: false, phase, creeping, fraction, seed: random.bits() };
        (host.deploys, host.late) = host.deploys(0.0, if is_canary { 0.0 } else { rule.soak });
        host
    };
    arrivals.into_iter().map(|phase| of(phase, &mut random)).collect()
}

/// A bad commit, replaced by a good one so many seconds after its push: how many had deployed it by then, and when
/// the last of these has the good one, counted from the second push.
pub fn taken_back(hosts: &[Host], soak: f64, after: f64) -> (usize, f64) {
    let reached: Vec<&Host> = hosts.iter().filter(|host| host.deploys < after).collect();
    let good = |host: &&Host| host.deploys(after, if host.is_canary { 0.0 } else { soak }).0 - after;
    (reached.len(), reached.iter().map(good).fold(0.0, f64::max))
}
