//! What the server meets in one interval, from when each host comes.

use super::poll::INTERVAL;
use super::random::Random;

/// How many come in each second.
pub fn seconds(arrivals: &[f64]) -> Vec<usize> {
    let mut seconds = vec![0; INTERVAL as usize];
    for at in arrivals {
        seconds[*at as usize] += 1;
    }
    assert_eq!(seconds.iter().sum::<usize>(), arrivals.len());
    seconds
}

/// The fullest second, and as a multiple of the mean over the interval.
pub fn peak(arrivals: &[f64]) -> (usize, f64) {
    let most = seconds(arrivals).into_iter().max().unwrap_or(0);
    (most, most as f64 * INTERVAL / arrivals.len() as f64)
}

/// How much the seconds differ from each other, as a multiple of what they do by chance: 1 is as even as
/// chance, 0 would be each second the same. (Pearson's χ² over its degrees of freedom.)
pub fn unevenness(arrivals: &[f64]) -> f64 {
    let seconds = seconds(arrivals);
    let mean = arrivals.len() as f64 / INTERVAL;
    let sum: f64 = seconds.iter().map(|n| (*n as f64 - mean).powi(2) / mean).sum();
    sum / (seconds.len() - 1) as f64
}

/// The most connections at one time, when each lasts so many seconds and none is refused.
pub fn open_at_once(arrivals: &[f64], lasting: f64) -> usize {
    let mut open = Gate::new(lasting);
    // The interval before this one fills the server.
    twice(arrivals)
        .map(|at| {
            open.leave(at);
            open.enter(at);
            open.inside()
        })
        .max()
        .unwrap_or(0)
}

/// sshd's `MaxStartups start:rate:full`.
#[derive(Clone, Copy)]
pub struct MaxStartups(pub usize, pub usize, pub usize);

impl MaxStartups {
    /// Whether a connection is dropped, with so many that are not authenticated yet.
    fn drops(self, waiting: usize, random: &mut Random) -> bool {
        let MaxStartups(start, rate, full) = self;
        if waiting < start {
            return false;
        }
        if waiting >= full {
            return true;
        }
        let percent = rate + (100 - rate) * (waiting - start) / (full - start);
        random.below(100.0) < percent as f64
    }
}

/// The part of all connections that sshd drops, when each that it takes needs so many seconds to authenticate.
pub fn dropped(arrivals: &[f64], lasting: f64, limit: MaxStartups) -> f64 {
    let mut random = Random::new(arrivals.len() as u64);
    let (mut waiting, mut dropped) = (Gate::new(lasting), 0);
    for (n, at) in twice(arrivals).enumerate() {
        waiting.leave(at);
        if !limit.drops(waiting.inside(), &mut random) {
            waiting.enter(at);
        } else if n >= arrivals.len() {
            dropped += 1;
        }
    }
    f64::from(dropped) / arrivals.len() as f64
}

/// Those who are there at the same time. All stay equally long, so who came first leaves first.
struct Gate {
    lasting: f64,
    ends: std::collections::VecDeque<f64>,
}

impl Gate {
    fn new(lasting: f64) -> Gate {
        Gate { lasting, ends: Default::default() }
    }

    fn leave(&mut self, now: f64) {
        while self.ends.front().is_some_and(|end| *end <= now) {
            self.ends.pop_front();
        }
    }

    fn enter(&mut self, now: f64) {
        self.ends.push_back(now + self.lasting);
    }

    fn inside(&self) -> usize {
        self.ends.len()
    }
}

/// Two intervals, one after the other.
fn twice(arrivals: &[f64]) -> impl Iterator<Item = f64> {
    arrivals.iter().copied().chain(arrivals.iter().map(|at| at + INTERVAL))
}
