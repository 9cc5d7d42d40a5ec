//! What holds for every host and every length.

use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn a_host_has_a_part_of_its_own_that_grows_with_the_whole(host in ".{0,40}", seconds in 1u64..86_400) {
        let (short, long) = (Duration::from_secs(seconds), Duration::from_secs(2 * seconds));
        prop_assert!(part(&host, short) < short);
        prop_assert_eq!(part(&host, short), part(&host, short));
        // The same share of twice the time, but for rounding.
        prop_assert!(part(&host, long).abs_diff(2 * part(&host, short)) < Duration::from_nanos(10));
    }
}
