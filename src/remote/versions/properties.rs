//! Tags have one order, in whatever order a server lists them.

use proptest::prelude::*;

use super::*;

fn refs() -> impl Strategy<Value = Vec<Advertised>> {
    let tag = prop_oneof!["v?[0-2]{1,2}(\\.0?[0-2]{1,2}){0,2}(-rc\\.?[0-2]|-[ab])?(\\+[ab])?", "[v0-2a.+-]{0,8}",];
    prop::collection::btree_set(tag, 0..12).prop_map(|tags| {
        tags.into_iter().map(|tag| Advertised { name: format!("{TAGS}{tag}"), id: [1; 20], peeled: None }).collect()
    })
}

fn pattern() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("*"), Just("v*"), Just("v1*"), Just("v1.*"), Just("*-rc*"), Just("v*-*"), Just("?.*")]
}

proptest! {
    #[test]
    fn the_highest_is_the_same_in_any_order(
        (refs, shuffled) in refs().prop_flat_map(|refs| (Just(refs.clone()), Just(refs).prop_shuffle())),
        pattern in pattern(),
    ) {
        prop_assert_eq!(highest(pattern, &refs), highest(pattern, &shuffled));
    }

    #[test]
    fn the_highest_of_all_is_the_highest_of_its_parts_highest(refs in refs(), pattern in pattern(), at in 0usize..12) {
        let (one, two) = refs.split_at(at.min(refs.len()));
        let parts: Vec<Advertised> = [one, two].into_iter().filter_map(|part| highest(pattern, part)).cloned().collect();
        prop_assert_eq!(highest(pattern, &refs), highest(pattern, &parts));
    }

    #[test]
    fn a_pre_release_is_the_highest_only_where_it_is_asked_for(refs in refs()) {
        if let Some(found) = highest("v*", &refs) {
            let core = found.name.split('+').next().unwrap_or_default();
            prop_assert!(!core.contains('-'), "{}", found.name);
        }
    }
}
