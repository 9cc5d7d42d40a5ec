//! What holds for every state, tip, policy and time. Commits are few here, so that they are often the same.

use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::journal::state::{Deployed, Place, Published, Refused, Seen, Skipped, Started};

fn commit() -> impl Strategy<Value = Commit> {
    (0u8..4).prop_map(|n| Commit::from_bytes(&[n; 20]))
}

/// Mostly close to each other, and now and then where time ends.
fn time() -> impl Strategy<Value = Timestamp> {
    prop_oneof![
        20 => (0i64..1000).prop_map(|second| Timestamp::from_second(second).unwrap()),
        1 => Just(Timestamp::MIN),
        1 => Just(Timestamp::MAX),
    ]
}

fn deployed() -> impl Strategy<Value = Deployed> {
    let place = Place { directory: "/srv/x".into(), layout: crate::config::Layout::Releases };
    (commit(), time()).prop_map(move |(commit, at)| Deployed {
        commit,
        release: None,
        at,
        run: "r".into(),
        subdir: None,
        place: place.clone(),
    })
}

fn failed() -> impl Strategy<Value = Failed> {
    let attempts = prop_oneof![0u32..8, Just(u32::MAX - 1)];
    (commit(), attempts, time()).prop_map(|(commit, attempts, since)| Failed {
        commit,
        attempts,
        since,
        reason: "exit 1".into(),
        release: None,
    })
}

fn started() -> impl Strategy<Value = Started> {
    let kind = prop_oneof![Just(Kind::Deploy), Just(Kind::Retry), Just(Kind::Rollback)];
    (commit(), kind, time(), any::<bool>()).prop_map(|(commit, kind, at, told)| Started {
        commit,
        kind,
        release: None,
        at,
        run: "r".into(),
        told,
    })
}

fn paths() -> impl Strategy<Value = Vec<String>> {
    prop_oneof![Just(vec![]), Just(vec!["site/**".to_owned()])]
}

fn frozen() -> impl Strategy<Value = Frozen> {
    (time(), option::of(time())).prop_map(|(since, until)| Frozen {
        by: "alice".into(),
        reason: "audit".into(),
        since,
        until,
    })
}

fn state() -> impl Strategy<Value = State> {
    let refused = (commit(), time()).prop_map(|(commit, since)| Refused { commit, reason: "r".into(), since });
    let skipped = (commit(), paths(), time()).prop_map(|(commit, paths, since)| Skipped { commit, paths, since });
    let seen = (commit(), time()).prop_map(|(tip, since)| Seen { tip, since });
    let stray = commit().prop_map(|commit| Published { commit, subdir: None });
    let often = option::weighted(0.8, deployed());
    let rarely = (option::weighted(0.2, frozen()), option::weighted(0.2, started()));
    let notes = (option::of(failed()), option::of(refused), option::of(skipped), option::of(seen));
    (often, option::of(deployed()), notes, rarely, prop::collection::vec(stray, 0..2)).prop_map(
        |(deployed, previous, (failed, refused, skipped, seen), (frozen, started), stray)| State {
            deployed,
            previous,
            failed,
            refused,
            skipped,
            frozen,
            seen,
            started,
            stray,
            touched: None,
        },
    )
}

#[derive(Clone, Debug)]
struct Case {
    state: State,
    tip: Commit,
    retries: u32,
    paths: Vec<String>,
    soak: Duration,
    force: Force,
    waited: u32,
    now: Timestamp,
}

impl Case {
    fn policy(&self) -> Policy<'_> {
        let &Case { retries, soak, force, waited, .. } = self;
        Policy { retries, paths: &self.paths, soak, force, waited }
    }

    fn decide(&self) -> Decision {
        self.decide_at(self.now)
    }

    fn decide_at(&self, now: Timestamp) -> Decision {
        decide(&self.state, &self.tip, &self.policy(), now)
    }

    fn is_frozen(&self) -> bool {
        self.state.frozen.as_ref().is_some_and(|frozen| frozen.holds(self.now))
    }

    fn rolls_back(&self) -> bool {
        self.state.started.as_ref().is_some_and(|started| started.kind == Kind::Rollback)
    }

    /// Nothing that stands above the journal's notes about the tip.
    fn is_plain(&self) -> bool {
        self.state.frozen.is_none() && self.state.started.is_none() && self.force == Force::No
    }
}

fn case() -> impl Strategy<Value = Case> {
    let soak = prop_oneof![
        3 => Just(Duration::ZERO),
        3 => (0u64..500).prop_map(Duration::from_secs),
        1 => Just(Duration::MAX),
    ];
    let force = prop_oneof![4 => Just(Force::No), 1 => Just(Force::Retry), 1 => Just(Force::Yes)];
    let (retries, waited) = (1u32..6, prop_oneof![0u32..10, 50u32..70]);
    (state(), commit(), retries, paths(), soak, force, waited, time()).prop_map(
        |(state, tip, retries, paths, soak, force, waited, now)| Case {
            state,
            tip,
            retries,
            paths,
            soak,
            force,
            waited,
            now,
        },
    )
}

proptest! {
    #[test]
    fn what_is_frozen_is_left_alone_by_force_even_but_for_a_rollback_that_was_begun(case in case()) {
        match case.decide() {
            Decision::Deploy { kind: Kind::Rollback, commit, .. } => {
                prop_assert!(case.rolls_back());
                prop_assert_eq!(commit, case.state.started.unwrap().commit);
            }
            decision => {
                prop_assert!(!case.rolls_back());
                let skipped = matches!(decision, Decision::Skip(Skip::Frozen(_)));
                prop_assert_eq!(skipped, case.is_frozen());
            }
        }
    }

    #[test]
    fn the_commit_is_the_tip_or_the_one_that_was_begun(case in case()) {
        if let Decision::Deploy { commit, why, .. } = case.decide()
            && commit != case.tip
        {
            prop_assert_eq!(why, Why::Interrupted);
            prop_assert_eq!(commit, case.state.started.unwrap().commit);
        }
    }

    #[test]
    fn force_deploys_the_tip_and_nothing_else_ever_says_so(case in case()) {
        let forced = matches!(case.decide(), Decision::Deploy { why: Why::Forced, .. });
        prop_assert_eq!(forced, case.force == Force::Yes && !case.is_frozen() && !case.rolls_back());
    }

    #[test]
    fn what_is_deployed_already_is_not_deployed_again(mut case in case()) {
        case.state.stray.clear();
        case.state.failed = case.state.failed.filter(|failed| failed.commit != case.tip);
        let same = case.state.deployed.as_ref().is_some_and(|deployed| deployed.commit == case.tip);
        if same && case.force != Force::Yes && case.state.started.is_none() && !case.is_frozen() {
            prop_assert_eq!(case.decide(), Decision::Unchanged);
        }
    }

    #[test]
    fn unchanged_means_that_something_is_deployed_and_nothing_else_may_be_live(case in case()) {
        if case.decide() == Decision::Unchanged {
            prop_assert!(case.state.deployed.is_some() && case.state.stray.is_empty() && case.state.started.is_none());
        }
    }

    #[test]
    fn a_commit_that_failed_is_tried_no_more_often_than_allowed_and_not_before_its_poll(case in case()) {
        let failed = case.state.failed.clone().filter(|failed| failed.commit == case.tip);
        let Some(failed) = failed.filter(|_| case.is_plain()) else { return Ok(()) };
        match case.decide() {
            Decision::Deploy { why, .. } => {
                prop_assert!(failed.attempts < case.retries && case.waited >= distance(failed.attempts));
                prop_assert_eq!(why, Why::Again(failed.attempts + 1));
            }
            Decision::Skip(Skip::Broken { .. }) => prop_assert!(failed.attempts >= case.retries),
            Decision::Skip(Skip::Waiting { polls, .. }) => {
                prop_assert_eq!(case.waited + polls + 1, distance(failed.attempts));
            }
            other => prop_assert!(false, "{other:?}"),
        }
    }

    #[test]
    fn retry_waits_for_no_poll_and_counts_no_attempts(mut case in case()) {
        case.force = Force::Retry;
        let skipped = matches!(case.decide(), Decision::Skip(Skip::Broken { .. } | Skip::Waiting { .. }));
        prop_assert!(!skipped);
    }

    #[test]
    fn a_tip_that_nothing_is_known_of_has_stood_as_long_as_it_must(case in case()) {
        let state = &case.state;
        let known = [
            state.failed.as_ref().map(|f| &f.commit),
            state.refused.as_ref().map(|r| &r.commit),
            state.deployed.as_ref().map(|d| &d.commit),
            state.started.as_ref().map(|s| &s.commit),
        ];
        let is_known = known.contains(&Some(&case.tip));
        if let Decision::Deploy { commit, why, .. } = case.decide()
            && commit == case.tip && !is_known && why != Why::Forced && !case.soak.is_zero() && case.now < Timestamp::MAX
        {
            let seen = state.seen.as_ref().filter(|seen| seen.tip == case.tip);
            let soak = SignedDuration::try_from(case.soak).unwrap_or(SignedDuration::MAX);
            prop_assert!(case.now >= seen.unwrap().since.checked_add(soak).unwrap_or(Timestamp::MAX));
        }
    }

    #[test]
    fn a_tip_that_soaks_is_deployed_when_it_is_time_and_not_before(mut case in case()) {
        if let Decision::Skip(Skip::Soaking { until, known, .. }) = case.decide() {
            prop_assert!(case.now < until);
            if !known {
                // As the poll that found it notes.
                case.state.seen = Some(Seen { tip: case.tip.clone(), since: case.now });
            }
            let still = Decision::Skip(Skip::Soaking { until, soak: case.soak, known: true });
            prop_assert_eq!(case.decide(), still);
            let deploys = matches!(case.decide_at(until), Decision::Deploy { .. });
            // A freeze that held then may hold again once the clock was set back.
            prop_assert!(deploys || case.state.frozen.is_some());
        }
    }

    #[test]
    fn time_alone_takes_no_decision_back(case in case(), later in time()) {
        let decision = case.decide();
        if case.state.frozen.is_none() && later >= case.now && matches!(decision, Decision::Deploy { .. }) {
            let again = case.decide_at(later);
            let Decision::Deploy { why, .. } = &again else { panic!("{again:?}") };
            // What was interrupted gives way to a tip that has soaked by then.
            prop_assert!(decision == again || *why == Why::Interrupted);
        }
    }

    #[test]
    fn the_word_for_the_state_says_what_was_decided(mut case in case()) {
        case.force = Force::No;
        let word = state_word(&case.state, Some(&case.tip), &case.policy(), case.now);
        let expected: &[&str] = match case.decide() {
            Decision::Unchanged => &["ok", "refused"],
            Decision::Skip(Skip::Frozen(_)) => &["frozen"],
            Decision::Skip(Skip::Broken { .. }) => &["broken"],
            Decision::Skip(Skip::Waiting { .. }) => &["failed"],
            Decision::Skip(Skip::Soaking { .. }) => &["pending", "new"],
            Decision::Deploy { why: Why::Interrupted, .. } => &["interrupted", "frozen"],
            Decision::Deploy { why: Why::Again(_), .. } => &["failed", "pending"],
            Decision::Deploy { why: Why::Reconsider, .. } => &["refused"],
            Decision::Deploy { .. } => &["new", "pending"],
        };
        prop_assert!(expected.contains(&word), "{word}");
    }

    #[test]
    fn a_commit_that_always_fails_gets_all_its_attempts_at_growing_distances_and_no_more(retries in 1u32..12) {
        let (tip, now) = (Commit::from_bytes(&[1; 20]), Timestamp::UNIX_EPOCH);
        let (mut state, mut waited, mut polls) = (State::default(), 0, Vec::new());
        for poll in 1u32..400 {
            let policy = Policy { retries, paths: &[], soak: Duration::ZERO, force: Force::No, waited };
            match decide(&state, &tip, &policy, now) {
                Decision::Deploy { .. } => {
                    polls.push(poll);
                    let attempts = state.failed.map_or(0, |failed| failed.attempts) + 1;
                    let failed = Failed { commit: tip.clone(), attempts, since: now, reason: "r".into(), release: None };
                    state.failed = Some(failed);
                    waited = 0;
                }
                _ => waited += 1,
            }
        }
        prop_assert_eq!(polls.len(), retries as usize);
        let distances: Vec<u32> = polls.windows(2).map(|pair| pair[1] - pair[0]).collect();
        prop_assert!(distances.is_sorted() && distances.iter().all(|polls| *polls <= 64), "{distances:?}");
    }

    #[test]
    fn the_distance_grows_and_stays_within_bounds(attempts in any::<u32>()) {
        prop_assert!(distance(attempts) <= distance(attempts.saturating_add(1)) && distance(attempts) < 64);
    }
}
