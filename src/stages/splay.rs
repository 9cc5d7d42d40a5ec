//! Splay: which part of the wait before a poll is this host's own. A pure function of its name, so that a
//! host polls at the same moment each time, and many hosts at as many moments.

use std::time::Duration;

/// This host's part of `splay`: the same at each run, and spread evenly over hosts.
pub fn part(host: &str, splay: Duration) -> Duration {
    splay.mul_f64(fraction(host))
}

/// From 0 up to, but not including, 1.
fn fraction(host: &str) -> f64 {
    // FNV-1a, and a last mixing: names that differ in a digit at their end must lie far apart.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in host.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    (hash >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_spread_evenly_and_stay_where_they_are() {
        let splay = Duration::from_secs(300);
        let mut buckets = [0; 10];
        for host in (0..1000).map(|n| format!("web-{n}")) {
            let part = part(&host, splay);
            assert!(part < splay && part == super::part(&host, splay));
            buckets[(part.as_secs_f64() / 30.0) as usize] += 1;
        }
        assert!(buckets.iter().all(|n| (70..=130).contains(n)), "{buckets:?}");
        assert_eq!(part("web-1", Duration::ZERO), Duration::ZERO);
    }

    /// What `docs/fleet.md` promises a git server.
    #[test]
    fn of_a_large_fleet_no_second_gets_a_third_more_than_its_share() {
        let schemes: [fn(u32) -> String; 3] = [
            |n| format!("web-{n}"),
            |n| format!("web{:03}.{}.example.org", n / 4, ["eu", "us-east", "us-west", "ap"][n as usize % 4]),
            |n| format!("ip-10-{}-{}-{}", n >> 16, (n >> 8) & 255, n & 255),
        ];
        for name in schemes {
            let mut seconds = [0; 300];
            for host in (0..100_000).map(name) {
                seconds[part(&host, Duration::from_secs(300)).as_secs() as usize] += 1;
            }
            let most = seconds.into_iter().max().unwrap();
            assert!(f64::from(most) <= 1.3 * 100_000.0 / 300.0, "{}: {most}", name(0));
        }
    }
}
