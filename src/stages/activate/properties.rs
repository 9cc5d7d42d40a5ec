//! What holds for every folder of releases, whatever was kept, protected or asked to go.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::sample::subsequence;

use super::*;

/// Some releases, and what others put beside them.
fn names() -> impl Strategy<Value = Vec<String>> {
    let release = (0u32..40, 0u8..3)
        .prop_map(|(second, commit)| format!("20260102T0304{second:02}Z-{}", Commit::from_bytes(&[commit; 20])));
    let other = prop_oneof![
        "[a-z0-9TZ-]{1,20}",
        release.clone().prop_map(|name| format!("{name}.partial")),
        release.clone().prop_map(|name| name[..name.len() - 1].to_owned()),
    ];
    let name = prop_oneof![4 => release, 1 => other];
    prop::collection::btree_set(name, 0..20).prop_map(|names| names.into_iter().collect())
}

/// Names in any order, how many to keep, and which ones are protected or to be removed.
fn case() -> impl Strategy<Value = (Vec<String>, usize, Vec<String>, Vec<String>)> {
    names().prop_flat_map(|names| {
        let some = subsequence(names.clone(), 0..=names.len().min(4));
        (Just(names).prop_shuffle(), 1usize..8, some.clone(), some)
    })
}

fn going(names: &[String], keep: usize, protect: &[String], remove: &[String]) -> BTreeSet<String> {
    let protect: Vec<&str> = protect.iter().map(String::as_str).collect();
    let gone = retired(names.to_vec(), keep, &protect, remove);
    let set: BTreeSet<String> = gone.iter().cloned().collect();
    assert_eq!(set.len(), gone.len(), "nothing goes twice");
    set
}

proptest! {
    #[test]
    fn what_is_live_or_was_good_stays_and_so_does_what_is_no_release((names, keep, protect, remove) in case()) {
        for gone in going(&names, keep, &protect, &remove) {
            prop_assert!(!protect.contains(&gone) && is_release_name(&gone) && names.contains(&gone));
        }
    }

    #[test]
    fn as_many_stay_as_are_to_be_kept_and_they_are_the_newest((names, keep, protect, remove) in case()) {
        let gone = going(&names, keep, &protect, &remove);
        let asked_to_go = |name: &&String| remove.contains(name) && !protect.contains(name);
        let mut releases: Vec<&String> = names.iter().filter(|name| is_release_name(name)).collect();
        releases.retain(|name| !asked_to_go(name));
        releases.sort();
        for newest in releases.iter().rev().take(keep) {
            prop_assert!(!gone.contains(*newest), "{newest}");
        }
        // And no more than these and what is protected.
        let stay = releases.iter().filter(|name| !gone.contains(**name)).count();
        prop_assert!(stay <= keep.min(releases.len()) + protect.len());
        prop_assert!(names.iter().filter(asked_to_go).all(|name| gone.contains(name) || !is_release_name(name)));
    }

    #[test]
    fn the_order_of_a_folder_does_not_matter((names, keep, protect, remove) in case()) {
        let mut sorted = names.clone();
        sorted.sort();
        prop_assert_eq!(going(&sorted, keep, &protect, &remove), going(&names, keep, &protect, &remove));
    }

    #[test]
    fn what_was_done_is_not_done_again((names, keep, protect, remove) in case()) {
        let gone = going(&names, keep, &protect, &remove);
        let left: Vec<String> = names.into_iter().filter(|name| !gone.contains(name)).collect();
        prop_assert_eq!(going(&left, keep, &protect, &remove), BTreeSet::new());
    }

    #[test]
    fn to_keep_more_removes_no_more((names, keep, protect, remove) in case()) {
        let (few, many) = (going(&names, keep, &protect, &remove), going(&names, keep + 1, &protect, &remove));
        prop_assert!(many.is_subset(&few));
    }
}
