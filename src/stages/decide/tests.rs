use super::*;
use crate::journal::state::*;

fn commit(digit: char) -> Commit {
    Commit::try_from(digit.to_string().repeat(40)).unwrap()
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn deployed(digit: char) -> Option<Deployed> {
    Some(Deployed {
        commit: commit(digit),
        release: None,
        at: at(0),
        run: "r".into(),
        subdir: None,
        place: Place { directory: "/srv/x".into(), layout: crate::config::Layout::Releases },
    })
}

fn failed(digit: char, attempts: u32) -> Option<Failed> {
    Some(Failed { commit: commit(digit), attempts, since: at(0), reason: "exit 1".into(), release: None })
}

fn stray(digit: char) -> Vec<Published> {
    vec![Published { commit: commit(digit), subdir: None }]
}

fn started(digit: char) -> Option<Started> {
    Some(Started { commit: commit(digit), kind: Kind::Deploy, release: None, at: at(0), run: "r".into(), told: false })
}

fn refused(digit: char) -> Option<Refused> {
    Some(Refused { commit: commit(digit), reason: "rewind".into(), since: at(0) })
}

fn skipped(digit: char, path: &str) -> Option<Skipped> {
    Some(Skipped { commit: commit(digit), paths: vec![path.into()], since: at(0) })
}

fn frozen(until: Option<i64>) -> Option<Frozen> {
    Some(Frozen { by: "alice".into(), reason: "audit".into(), since: at(0), until: until.map(at) })
}

fn policy(paths: &[String]) -> Policy<'_> {
    Policy { retries: 3, paths, soak: Duration::ZERO, force: Force::No, waited: 0 }
}

/// The tip is `b` throughout, three attempts, patterns `site/**`, the time 100 s.
#[test]
fn every_row_of_the_table() {
    let deploy = |kind, why| Decision::Deploy { kind, why, commit: commit('b') };
    let new = State::default;
    let ok = || State { deployed: deployed('a'), ..new() };
    let same = || State { deployed: deployed('b'), ..new() };
    let rows: Vec<(&str, State, Force, Decision, &str)> = vec![
        ("nothing yet", new(), Force::No, deploy(Kind::Deploy, Why::First), "new"),
        ("nothing new", same(), Force::No, Decision::Unchanged, "ok"),
        ("nothing new, forced", same(), Force::Yes, deploy(Kind::Deploy, Why::Forced), "ok"),
        ("a push", ok(), Force::No, deploy(Kind::Deploy, Why::NewCommit), "pending"),
        (
            "failed once",
            State { failed: failed('b', 1), ..ok() },
            Force::No,
            deploy(Kind::Retry, Why::Again(2)),
            "failed",
        ),
        (
            "said not now",
            State { failed: failed('b', 0), ..ok() },
            Force::No,
            deploy(Kind::Deploy, Why::Again(1)),
            "pending",
        ),
        (
            "broken, forced",
            State { failed: failed('b', 3), ..ok() },
            Force::Yes,
            deploy(Kind::Deploy, Why::Forced),
            "broken",
        ),
        (
            "another failed before",
            State { failed: failed('c', 3), ..ok() },
            Force::No,
            deploy(Kind::Deploy, Why::NewCommit),
            "pending",
        ),
        (
            "pushed back to the deployed",
            State { failed: failed('c', 1), ..same() },
            Force::No,
            Decision::Unchanged,
            "ok",
        ),
        (
            "pushed back, the failed one is live",
            State { failed: failed('c', 1), stray: stray('c'), ..same() },
            Force::No,
            deploy(Kind::Deploy, Why::NewCommit),
            "pending",
        ),
        (
            "first one failed",
            State { failed: failed('b', 1), ..new() },
            Force::No,
            deploy(Kind::Retry, Why::Again(2)),
            "failed",
        ),
        (
            "interrupted",
            State { started: started('b'), ..ok() },
            Force::No,
            deploy(Kind::Retry, Why::Interrupted),
            "interrupted",
        ),
        (
            "broken, and the attempt that was asked for by hand was interrupted",
            State { started: started('b'), failed: failed('b', 3), ..ok() },
            Force::No,
            deploy(Kind::Retry, Why::Interrupted),
            "interrupted",
        ),
        (
            "interrupted at another",
            State { started: started('c'), ..same() },
            Force::No,
            deploy(Kind::Retry, Why::Interrupted),
            "interrupted",
        ),
        (
            "refused",
            State { refused: refused('b'), ..ok() },
            Force::No,
            deploy(Kind::Deploy, Why::Reconsider),
            "refused",
        ),
        (
            "refused another",
            State { refused: refused('c'), ..ok() },
            Force::No,
            deploy(Kind::Deploy, Why::NewCommit),
            "pending",
        ),
        (
            "refused at first",
            State { refused: refused('b'), ..new() },
            Force::No,
            deploy(Kind::Deploy, Why::Reconsider),
            "refused",
        ),
        ("of no interest", State { skipped: skipped('b', "site/**"), ..ok() }, Force::No, Decision::Unchanged, "ok"),
        (
            "interests changed",
            State { skipped: skipped('b', "doc/**"), ..ok() },
            Force::No,
            deploy(Kind::Deploy, Why::NewCommit),
            "pending",
        ),
        (
            "freeze is over",
            State { frozen: frozen(Some(99)), ..ok() },
            Force::No,
            deploy(Kind::Deploy, Why::NewCommit),
            "pending",
        ),
    ];
    let paths = ["site/**".to_owned()];
    for (name, state, force, expected, word) in rows {
        let policy = Policy { force, ..policy(&paths) };
        assert_eq!(decide(&state, &commit('b'), &policy, at(100)), expected, "{name}");
        let unforced = Policy { force: Force::No, ..policy };
        assert_eq!(state_word(&state, Some(&commit('b')), &unforced, at(100)), word, "{name}");
    }
    let policy = policy(&paths);
    assert_eq!(state_word(&ok(), None, &policy, at(100)), "unreachable");
    let broken = State { failed: failed('b', 3), ..ok() };
    assert!(
        matches!(decide(&broken, &commit('b'), &policy, at(100)), Decision::Skip(why) if why.to_string().starts_with("broken"))
    );
}

#[test]
fn after_a_boot_the_newest_commit_of_the_journal_stands_for_the_tip() {
    let seen = |digit, since| Some(Seen { tip: commit(digit), since: at(since) });
    let failed_at = |digit, attempts, since| failed(digit, attempts).map(|f| Failed { since: at(since), ..f });
    let refused_at = |digit, since| refused(digit).map(|r| Refused { since: at(since), ..r });
    let ok = || State { deployed: deployed('a'), ..State::default() };
    let rows: Vec<(&str, State, Option<char>, &str)> = vec![
        ("nothing at all", State::default(), None, "new"),
        ("deployed", ok(), Some('a'), "ok"),
        ("failed", State { failed: failed_at('b', 1, 5), ..ok() }, Some('b'), "failed"),
        ("broken", State { failed: failed_at('b', 3, 5), ..ok() }, Some('b'), "broken"),
        ("not now", State { failed: failed_at('b', 0, 5), ..ok() }, Some('b'), "pending"),
        ("refused", State { refused: refused_at('b', 5), ..ok() }, Some('b'), "refused"),
        (
            "refused after another failed",
            State { failed: failed_at('b', 1, 5), refused: refused_at('c', 6), ..ok() },
            Some('c'),
            "refused",
        ),
        ("seen, and failed", State { seen: seen('b', 4), failed: failed_at('b', 1, 5), ..ok() }, Some('b'), "failed"),
        (
            "a newer one soaks",
            State { seen: seen('c', 90), failed: failed_at('b', 1, 5), ..ok() },
            Some('c'),
            "pending",
        ),
        ("of no interest", State { skipped: skipped('b', "site/**"), ..ok() }, Some('b'), "ok"),
        ("interrupted", State { started: started('b'), ..ok() }, Some('b'), "interrupted"),
        ("frozen", State { frozen: frozen(Some(101)), failed: failed_at('b', 1, 5), ..ok() }, Some('b'), "frozen"),
        ("frozen until a moment ago", State { frozen: frozen(Some(99)), ..ok() }, Some('a'), "ok"),
        ("only the first one failed", State { failed: failed_at('b', 1, 5), ..State::default() }, Some('b'), "failed"),
    ];
    let paths = ["site/**".to_owned()];
    let policy = Policy { soak: Duration::from_secs(50), ..policy(&paths) };
    for (name, state, tip, word) in rows {
        let known = newest_known(&state);
        assert_eq!(known, tip.map(commit).as_ref(), "{name}");
        let shown = known.map_or("new", |tip| state_word(&state, Some(tip), &policy, at(100)));
        assert_eq!(shown, word, "{name}");
    }
}

#[test]
fn a_freeze_stands_above_force_and_interruption() {
    for state in [
        State { frozen: frozen(None), ..State::default() },
        State { frozen: frozen(Some(101)), started: started('c'), ..State::default() },
    ] {
        let policy = Policy { force: Force::Yes, ..policy(&[]) };
        let Decision::Skip(why) = decide(&state, &commit('b'), &policy, at(100)) else { panic!("not skipped") };
        let why = why.to_string();
        assert!(why.contains("alice") && why.contains("audit"), "{why}");
        assert_eq!(state_word(&state, Some(&commit('b')), &policy, at(100)), "frozen");
    }
}

#[test]
fn the_distance_between_attempts_grows_and_retry_does_not_wait() {
    let distances: Vec<u32> = [0, 1, 2, 3, 4, 7, 8, 40].map(distance).to_vec();
    assert_eq!(distances, [0, 0, 1, 3, 7, 63, 63, 63]);
    let state = State { failed: failed('b', 2), ..State::default() };
    let waited = |waited, force| decide(&state, &commit('b'), &Policy { waited, force, ..policy(&[]) }, at(100));
    let Decision::Skip(why @ Skip::Waiting { polls: 0, .. }) = waited(0, Force::No) else { panic!("not waiting") };
    assert!(why.to_string().ends_with("made by the next poll"), "{why}");
    for again in [waited(1, Force::No), waited(9, Force::No), waited(0, Force::Retry)] {
        assert!(matches!(again, Decision::Deploy { kind: Kind::Retry, why: Why::Again(3), .. }), "{again:?}");
    }
    let used_up = State { failed: failed('b', 3), ..State::default() };
    let retried = decide(&used_up, &commit('b'), &Policy { force: Force::Retry, ..policy(&[]) }, at(100));
    assert!(matches!(retried, Decision::Deploy { why: Why::Again(4), .. }), "{retried:?}");
    let fine = State { deployed: deployed('b'), ..State::default() };
    assert_eq!(decide(&fine, &commit('b'), &Policy { force: Force::Retry, ..policy(&[]) }, at(1)), Decision::Unchanged);
}

#[test]
fn a_tip_soaks_from_when_it_was_seen_and_nothing_else_does() {
    let policy = Policy { soak: Duration::from_secs(50), ..policy(&[]) };
    let of = |state: &State, now| decide(state, &commit('b'), &policy, at(now));
    let seen = |digit, since| Some(Seen { tip: commit(digit), since: at(since) });
    let ok = State { deployed: deployed('a'), ..State::default() };
    let soaking = |until, known| Decision::Skip(Skip::Soaking { until: at(until), soak: policy.soak, known });
    assert_eq!(of(&ok, 100), soaking(150, false));
    assert_eq!(of(&State { seen: seen('b', 60), ..ok.clone() }, 100), soaking(110, true));
    assert_eq!(of(&State { seen: seen('c', 10), ..ok.clone() }, 100), soaking(150, false));
    assert_eq!(of(&State { seen: seen('b', 900), ..ok.clone() }, 100), soaking(150, false));
    assert_eq!(state_word(&ok, Some(&commit('b')), &policy, at(100)), "pending");
    let deploys = |state: &State, now| match of(state, now) {
        Decision::Deploy { commit, .. } => commit,
        other => panic!("{other:?}"),
    };
    assert_eq!(deploys(&State { seen: seen('b', 50), ..ok.clone() }, 100), commit('b'));
    assert_eq!(deploys(&State { failed: failed('b', 1), ..ok.clone() }, 100), commit('b'));
    // What was begun is ended first; what came since has yet to soak.
    assert_eq!(deploys(&State { started: started('c'), ..ok.clone() }, 100), commit('c'));
    assert_eq!(deploys(&State { started: started('c'), seen: seen('b', 0), ..ok }, 100), commit('b'));
}

#[test]
fn a_rollback_that_was_cut_short_is_carried_through_though_frozen() {
    let begun = started('c').map(|s| Started { kind: Kind::Rollback, ..s });
    let state = State { deployed: deployed('b'), frozen: frozen(None), started: begun, ..State::default() };
    let Decision::Deploy { kind, commit: goal, .. } = decide(&state, &commit('b'), &policy(&[]), at(1)) else {
        panic!("left alone")
    };
    assert_eq!((kind, goal), (Kind::Rollback, commit('c')));
}
