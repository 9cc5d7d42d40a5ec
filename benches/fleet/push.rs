//! A push: when the hosts see it, and what sending it to all of them takes.

use super::load;
use super::poll::INTERVAL;

/// Seconds from a push at `push` until these parts of the hosts have seen it.
pub fn seen(arrivals: &[f64], push: f64, parts: [f64; 3]) -> [f64; 3] {
    let mut waits: Vec<f64> = arrivals.iter().map(|at| (at - push).rem_euclid(INTERVAL)).collect();
    waits.sort_by(f64::total_cmp);
    parts.map(|part| waits[((waits.len() as f64 * part).ceil() as usize).max(1) - 1])
}

/// A push at each of so many moments of the interval: the mean of each part, and the longest.
pub fn seen_over(arrivals: &[f64], moments: usize, parts: [f64; 3]) -> [(f64, f64); 3] {
    let all: Vec<[f64; 3]> =
        (0..moments).map(|n| seen(arrivals, n as f64 * INTERVAL / moments as f64, parts)).collect();
    [0, 1, 2].map(|part| {
        let mean = all.iter().map(|waits| waits[part]).sum::<f64>() / moments as f64;
        (mean, all.iter().map(|waits| waits[part]).fold(0.0, f64::max))
    })
}

/// All hosts fetch so many bytes, over a line that carries so many a second.
pub struct Sent {
    /// Bytes asked for in the fullest second.
    pub most: f64,
    /// The longest that a byte that was asked for waits for its turn, in seconds: that is how long a fetch takes,
    /// when the line serves who came first.
    pub wait: f64,
    /// From the first host's fetch to the last byte.
    pub until: f64,
}

pub fn sent(arrivals: &[f64], bytes: f64, line: f64) -> Sent {
    let (mut backlog, mut worst, mut asked, mut until) = (0.0_f64, 0.0_f64, 0.0, 0.0);
    let mut most = 0.0_f64;
    // Nothing fetches after the first interval: it only empties what waits.
    let seconds = load::seconds(arrivals);
    let first = seconds.iter().position(|n| *n > 0).unwrap_or(0);
    for (second, hosts) in seconds.iter().enumerate() {
        let now = *hosts as f64 * bytes;
        asked += now;
        most = most.max(now);
        backlog = (backlog + now - line).max(0.0);
        worst = worst.max(backlog / line);
        if now > 0.0 {
            until = (second + 1 - first) as f64 + backlog / line;
        }
    }
    // A line carries no more than it can.
    assert!(until + 1.0 >= asked / line);
    Sent { most, wait: worst, until }
}
