//! The hosts: their names, and when in the interval each of them comes.

use std::time::Duration;

use super::poll::INTERVAL;
use super::random::Random;
use crate::stages::splay;

/// How hosts are named.
#[derive(Clone, Copy)]
pub enum Names {
    Counted,
    Domain,
    Address,
    Id,
}

impl Names {
    pub const ALL: [Names; 4] = [Names::Counted, Names::Domain, Names::Address, Names::Id];

    pub fn example(self) -> &'static str {
        match self {
            Names::Counted => "`web-1`, `web-2`, …",
            Names::Domain => "`web001.eu.example.org`, …",
            Names::Address => "`ip-10-0-3-17`, …",
            Names::Id => "`6c1ff29a-03d4-…`",
        }
    }

    /// The name of one host of the fleet with this number.
    fn of(self, fleet: usize, host: usize, random: &mut Random) -> String {
        const ROLES: [&str; 5] = ["web", "app", "db", "worker", "edge"];
        const REGIONS: [&str; 4] = ["eu", "us-east", "us-west", "ap"];
        let role = |n: usize| ROLES[n % ROLES.len()];
        match self {
            Names::Counted => format!("{}-{}", role(fleet), host + 1),
            Names::Domain => {
                let (region, rest) = (REGIONS[host % REGIONS.len()], host / REGIONS.len());
                format!("{}{:03}.{region}.example.org", role(fleet + rest), rest / ROLES.len() + 1)
            }
            Names::Address => format!("ip-10-{}-{}-{}", 8 * fleet + (host >> 16), (host >> 8) & 255, host & 255),
            Names::Id => {
                let (high, low) = (random.bits(), random.bits());
                format!(
                    "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
                    high >> 32,
                    (high >> 16) & 0xffff,
                    high & 0xfff,
                    0x8000 | (low >> 50),
                    low & 0xffff_ffff_ffff
                )
            }
        }
    }
}

/// What starts poller, and how long it waits then.
#[derive(Clone, Copy)]
pub enum Schedule {
    /// cron at each fifth minute, and `[host] splay` in seconds.
    Cron { splay: u64 },
    /// cron, and a fifth of the hosts each at `0-55/5`, `1-56/5` and so on, by hand.
    Minutes,
    /// The timer, with so many seconds of `RandomizedDelaySec`.
    Timer { delay: f64 },
    /// Each host at any moment: what chance alone does.
    Chance,
}

/// The clocks of most hosts are kept by NTP within this deviation; one in a hundred is off by up to this.
const CLOCK: f64 = 0.010;
const BAD_CLOCK: f64 = 0.9;
/// The timer's `AccuracySec`. systemd takes a moment in it that differs from host to host.
const ACCURACY: f64 = 5.0;

/// When each host of a fleet comes, in seconds from the beginning of the interval, sorted. The interval repeats, so
/// what comes after its end is at its beginning.
pub fn arrivals(schedule: Schedule, names: Names, fleet: usize, hosts: usize) -> Vec<f64> {
    let mut random = Random::new((fleet as u64) << 32 | (names as u64) << 24 | hosts as u64);
    let mut arrivals: Vec<f64> = (0..hosts)
        .map(|host| {
            let name = names.of(fleet, host, &mut random);
            moment(schedule, &name, host, &mut random).rem_euclid(INTERVAL)
        })
        .collect();
    arrivals.sort_by(f64::total_cmp);
    // Each host comes once, and in the interval.
    assert_eq!(arrivals.len(), hosts);
    assert!(arrivals.iter().all(|at| (0.0..INTERVAL).contains(at)));
    arrivals
}

fn moment(schedule: Schedule, name: &str, host: usize, random: &mut Random) -> f64 {
    let is_bad = random.below(100.0) < 1.0;
    let clock = if is_bad { random.below(2.0 * BAD_CLOCK) - BAD_CLOCK } else { random.normal(CLOCK) };
    match schedule {
        Schedule::Cron { splay } => clock + cron(random) + splay::part(name, Duration::from_secs(splay)).as_secs_f64(),
        Schedule::Minutes => clock + cron(random) + (host % 5 * 60) as f64,
        // Made from the machine's id, which is as random as can be.
        Schedule::Timer { delay } => clock + random.below(delay) + random.below(ACCURACY),
        Schedule::Chance => random.below(INTERVAL),
    }
}

/// Debian's cron wakes one to two seconds after the minute: the fraction is what it happens to be on a host.
fn cron(random: &mut Random) -> f64 {
    1.0 + random.below(1.0)
}
