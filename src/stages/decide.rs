//! What to do about a tip: a pure function, the heart of poller.
//!
//! No input or output, no clock of its own. `--dry-run` prints what it says, `status` explains it.

use std::fmt;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::commit::Commit;
use crate::config::App;
use crate::journal::state::{Failed, Frozen, Kind, State};
use crate::report::plural;

/// What the configuration and the caller have a say in.
#[derive(Clone, Debug)]
pub struct Policy<'a> {
    /// Attempts at one commit.
    pub retries: u32,
    /// `[source] paths`: patterns of interest.
    pub paths: &'a [String],
    /// How long a tip must have stood.
    pub soak: Duration,
    pub force: Force,
    /// How many polls left the failed commit alone since it was tried last.
    pub waited: u32,
}

impl<'a> Policy<'a> {
    pub fn of(app: &'a App, force: Force, waited: u32) -> Policy<'a> {
        let source = &app.source;
        Policy { retries: app.deploy.retries, paths: &source.paths, soak: source.soak, force, waited }
    }
}

/// What was asked for by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Force {
    No,
    /// `poller retry`: a commit that failed is tried, however often it was before.
    Retry,
    /// `--force`: the tip is deployed, whatever it is.
    Yes,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The tip is what is deployed, or differs from it in nothing of interest.
    Unchanged,
    /// Something is new and is left alone.
    Skip(Skip),
    /// Fetch, verify and, if that goes well, deploy. The commit is the tip, but for a deploy that was
    /// interrupted and whose end cannot wait for the tip.
    Deploy { kind: Kind, why: Why, commit: Commit },
}

/// Why something new is left alone. Its `Display` is a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Skip {
    Frozen(Frozen),
    /// All attempts at this commit are used up.
    Broken {
        failed: Failed,
        retries: u32,
    },
    /// The next attempt is some polls away.
    Waiting {
        failed: Failed,
        retries: u32,
        polls: u32,
    },
    /// The tip has not stood long enough. `known` is false when the journal is yet to be told of it.
    Soaking {
        until: Timestamp,
        soak: Duration,
        known: bool,
    },
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Skip::Frozen(frozen) => {
                let until = frozen.until.map(|t| format!(" until {t:.0}")).unwrap_or_default();
                write!(f, "frozen by {} since {:.0}{until}: {}", frozen.by, frozen.since, frozen.reason)
            }
            Skip::Broken { failed, retries } => {
                let made = attempts(failed.attempts, *retries);
                let reason = &failed.reason;
                write!(f, "broken: {made} at this commit failed ({reason}); it waits for another commit")
            }
            Skip::Waiting { failed, retries, polls } => {
                let next = if *polls == 0 {
                    "the next poll".to_owned()
                } else {
                    format!("{} from now", plural(*polls as usize + 1, "poll"))
                };
                write!(
                    f,
                    "attempt {} of {retries} at this commit failed ({}); the next one is made by {next}",
                    failed.attempts, failed.reason
                )
            }
            Skip::Soaking { until, soak, .. } => {
                write!(
                    f,
                    "new, and deployed once it has stood for {}: after {until:.0}",
                    crate::report::duration(*soak)
                )
            }
        }
    }
}

/// How many were made of how many. `poller retry` may make more than there are.
fn attempts(made: u32, retries: u32) -> String {
    match made > retries {
        true => format!("all {}", plural(made as usize, "attempt")),
        false => format!("{made} of {retries} attempts"),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    First,
    NewCommit,
    /// The attempt before failed; this is the n-th.
    Again(u32),
    /// A run before was killed in the middle of a deploy.
    Interrupted,
    /// The refused commit is still the tip: it is looked at again, since keys and rules may have changed.
    Reconsider,
    Forced,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::First => f.write_str("never deployed before"),
            Why::NewCommit => f.write_str("a new commit"),
            Why::Again(attempt) => write!(f, "attempt {attempt} at this commit"),
            Why::Interrupted => f.write_str("an interrupted deploy"),
            Why::Reconsider => f.write_str("refused before, looked at again"),
            Why::Forced => f.write_str("--force"),
        }
    }
}

/// How many polls are left out between two attempts, after so many failed ones: 0, 1, 3, 7, … In polls and
/// not in hours, so that it fits whatever the schedule is and no clock can get it wrong.
pub fn distance(attempts: u32) -> u32 {
    const LONGEST: u32 = 63;
    match attempts {
        0 => 0,
        n => 1u32.checked_shl(n - 1).map_or(LONGEST, |polls| (polls - 1).min(LONGEST)),
    }
}

pub fn decide(state: &State, tip: &Commit, policy: &Policy, now: Timestamp) -> Decision {
    let deploy = |kind, why| Decision::Deploy { kind, why, commit: tip.clone() };

    // A rollback that was begun by hand is carried through: it is what the freeze protects.
    if let Some(started) = state.started.as_ref().filter(|s| s.kind == Kind::Rollback) {
        return Decision::Deploy { kind: Kind::Rollback, why: Why::Interrupted, commit: started.commit.clone() };
    }
    // A freeze stands above all else, --force included: lifting it is a decision of its own.
    if let Some(frozen) = state.frozen.as_ref().filter(|frozen| frozen.holds(now)) {
        return Decision::Skip(Skip::Frozen(frozen.clone()));
    }
    if policy.force == Force::Yes {
        return deploy(Kind::Deploy, Why::Forced);
    }
    let failed = state.failed.as_ref().filter(|f| f.commit == *tip);
    let soaking = soaking(state, tip, policy, now);
    // What was begun and not ended may be live in part: nothing else is looked at before it is mended.
    if let Some(started) = &state.started {
        let commit = if soaking.is_some() { &started.commit } else { tip };
        return Decision::Deploy { kind: Kind::Retry, why: Why::Interrupted, commit: commit.clone() };
    }
    if let Some(failed) = failed.filter(|f| f.attempts >= policy.retries && policy.force == Force::No) {
        return Decision::Skip(Skip::Broken { failed: failed.clone(), retries: policy.retries });
    }
    if let Some(failed) = failed {
        let polls = distance(failed.attempts).saturating_sub(policy.waited);
        if polls > 0 && policy.force == Force::No {
            return Decision::Skip(Skip::Waiting { failed: failed.clone(), retries: policy.retries, polls: polls - 1 });
        }
        let kind = if failed.attempts == 0 { Kind::Deploy } else { Kind::Retry };
        return deploy(kind, Why::Again(failed.attempts + 1));
    }
    let deployed = state.deployed.as_ref();
    // What is live besides it (a failed commit that was kept, for one) gives way first.
    if state.stray.is_empty() {
        let of_no_interest =
            state.skipped.as_ref().is_some_and(|s| s.commit == *tip && s.paths == policy.paths) && deployed.is_some();
        if of_no_interest || deployed.is_some_and(|d| d.commit == *tip) {
            return Decision::Unchanged;
        }
    }
    if let Some(soaking) = soaking {
        return Decision::Skip(soaking);
    }
    match &state.refused {
        Some(refused) if refused.commit == *tip => deploy(Kind::Deploy, Why::Reconsider),
        _ if deployed.is_none() => deploy(Kind::Deploy, Why::First),
        _ => deploy(Kind::Deploy, Why::NewCommit),
    }
}

/// Whether a tip has yet to stand for some time.
fn soaking(state: &State, tip: &Commit, policy: &Policy, now: Timestamp) -> Option<Skip> {
    let soak = SignedDuration::try_from(policy.soak).ok().filter(|soak| !soak.is_zero())?;
    // It soaked before it was tried, refused or passed over, and what is deployed has stood the longest.
    let known = [
        state.failed.as_ref().map(|f| &f.commit),
        state.refused.as_ref().map(|r| &r.commit),
        state.deployed.as_ref().map(|d| &d.commit),
        state.started.as_ref().map(|s| &s.commit),
    ];
    if known.into_iter().flatten().any(|commit| commit == tip) {
        return None;
    }
    // Seen in the future: the clock was set back, and the wait starts anew.
    let seen = state.seen.as_ref().filter(|seen| seen.tip == *tip && seen.since <= now);
    let since = seen.map_or(now, |seen| seen.since);
    let until = since.checked_add(soak).unwrap_or(Timestamp::MAX);
    (now < until).then_some(Skip::Soaking { until, soak: policy.soak, known: seen.is_some() })
}

/// The word of the contract for where an app stands, as far as its journal and the tip tell.
pub fn state_word(state: &State, tip: Option<&Commit>, policy: &Policy, now: Timestamp) -> &'static str {
    let Some(tip) = tip else { return "unreachable" };
    if state.frozen.as_ref().is_some_and(|frozen| frozen.holds(now)) {
        return "frozen";
    }
    if state.started.is_some() {
        return "interrupted";
    }
    if let Some(failed) = state.failed.as_ref().filter(|f| f.commit == *tip) {
        return match failed.attempts {
            // The script said "not now".
            0 => "pending",
            attempts if attempts >= policy.retries => "broken",
            _ => "failed",
        };
    }
    if state.refused.as_ref().is_some_and(|r| r.commit == *tip) {
        return "refused";
    }
    match decide(state, tip, policy, now) {
        Decision::Unchanged => "ok",
        _ if state.deployed.is_none() => "new",
        _ => "pending",
    }
}

/// The newest commit that the journal knows of: the best guess at the tip while no server was asked since
/// the boot. What was deployed cleared all that was noted before it.
pub fn newest_known(state: &State) -> Option<&Commit> {
    if let Some(started) = &state.started {
        return Some(&started.commit);
    }
    let noted = [
        state.failed.as_ref().map(|f| (f.since, &f.commit)),
        state.refused.as_ref().map(|r| (r.since, &r.commit)),
        state.skipped.as_ref().map(|s| (s.since, &s.commit)),
        state.seen.as_ref().map(|s| (s.since, &s.tip)),
    ];
    // A tip that soaked is noted before it fails: of two notes of one time the first one counts.
    let newest = noted.into_iter().flatten().rev().max_by_key(|(since, _)| *since);
    newest.map(|(_, commit)| commit).or(state.deployed.as_ref().map(|d| &d.commit))
}

#[cfg(test)]
mod tests {
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
        Some(Started {
            commit: commit(digit),
            kind: Kind::Deploy,
            release: None,
            at: at(0),
            run: "r".into(),
            told: false,
        })
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
            (
                "of no interest",
                State { skipped: skipped('b', "site/**"), ..ok() },
                Force::No,
                Decision::Unchanged,
                "ok",
            ),
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
            (
                "seen, and failed",
                State { seen: seen('b', 4), failed: failed_at('b', 1, 5), ..ok() },
                Some('b'),
                "failed",
            ),
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
            (
                "only the first one failed",
                State { failed: failed_at('b', 1, 5), ..State::default() },
                Some('b'),
                "failed",
            ),
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
        assert_eq!(
            decide(&fine, &commit('b'), &Policy { force: Force::Retry, ..policy(&[]) }, at(1)),
            Decision::Unchanged
        );
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
}
