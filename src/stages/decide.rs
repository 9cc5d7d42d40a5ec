//! What to do about a tip: a pure function, the heart of poller.
//!
//! No input or output, no clock of its own. `--dry-run` prints what it says.

use jiff::Timestamp;

use crate::commit::Commit;
use crate::journal::state::{Kind, State};

/// What the configuration has a say in.
#[derive(Clone, Debug)]
pub struct Policy<'a> {
    /// Attempts at one commit.
    pub retries: u32,
    /// `[source] paths`: patterns of interest.
    pub paths: &'a [String],
    pub force: Force,
}

/// Whether the app was named with `--force`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Force {
    Yes,
    No,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The tip is what is deployed, or differs from it in nothing of interest.
    Unchanged,
    /// Something is new and is left alone.
    Skip { why: String },
    /// Fetch, verify and, if that goes well, deploy.
    Deploy { kind: Kind, why: Why },
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

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
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

pub fn decide(state: &State, tip: &Commit, policy: &Policy, now: Timestamp) -> Decision {
    let deploy = |kind, why| Decision::Deploy { kind, why };

    // A freeze stands above all, --force included: lifting it is a decision of its own.
    if let Some(frozen) = &state.frozen
        && frozen.until.is_none_or(|until| now < until)
    {
        let until = frozen.until.map(|t| format!(" until {t:.0}")).unwrap_or_default();
        return Decision::Skip {
            why: format!("frozen by {} since {:.0}{until}: {}", frozen.by, frozen.since, frozen.reason),
        };
    }
    if policy.force == Force::Yes {
        return deploy(Kind::Deploy, Why::Forced);
    }
    let failed = state.failed.as_ref().filter(|f| f.commit == *tip);
    if let Some(failed) = failed.filter(|f| f.attempts >= policy.retries) {
        return Decision::Skip {
            why: format!(
                "broken: {} of {} attempts at this commit failed ({}); it waits for another commit",
                failed.attempts, policy.retries, failed.reason
            ),
        };
    }
    // What was begun and not ended may be live in part: nothing else is looked at before it is mended.
    if state.started.is_some() {
        return deploy(Kind::Retry, Why::Interrupted);
    }
    if let Some(failed) = failed {
        let kind = if failed.attempts == 0 { Kind::Deploy } else { Kind::Retry };
        return deploy(kind, Why::Again(failed.attempts + 1));
    }
    let Some(deployed) = &state.deployed else {
        return match &state.refused {
            Some(refused) if refused.commit == *tip => deploy(Kind::Deploy, Why::Reconsider),
            _ => deploy(Kind::Deploy, Why::First),
        };
    };
    // What is live besides it (a failed commit that was kept, for one) gives way first.
    if deployed.commit == *tip && state.stray.is_empty() {
        return Decision::Unchanged;
    }
    if let Some(skipped) = &state.skipped
        && skipped.commit == *tip
        && state.stray.is_empty()
        && skipped.paths == policy.paths
    {
        return Decision::Unchanged;
    }
    match &state.refused {
        Some(refused) if refused.commit == *tip => deploy(Kind::Deploy, Why::Reconsider),
        _ => deploy(Kind::Deploy, Why::NewCommit),
    }
}

/// The word of the contract for where an app stands, as far as its journal and the tip tell.
pub fn state_word(state: &State, tip: Option<&Commit>, policy: &Policy, now: Timestamp) -> &'static str {
    let Some(tip) = tip else { return "unreachable" };
    if state.frozen.as_ref().is_some_and(|f| f.until.is_none_or(|until| now < until)) {
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
        Some(Started { commit: commit(digit), release: None, at: at(0), run: "r".into(), told: false })
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

    /// The tip is `b` throughout, three attempts, patterns `site/**`, the time 100 s.
    #[test]
    fn every_row_of_the_table() {
        let deploy = |kind, why| Decision::Deploy { kind, why };
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
            let policy = Policy { retries: 3, paths: &paths, force };
            assert_eq!(decide(&state, &commit('b'), &policy, at(100)), expected, "{name}");
            let unforced = Policy { force: Force::No, ..policy };
            assert_eq!(state_word(&state, Some(&commit('b')), &unforced, at(100)), word, "{name}");
        }
        let policy = Policy { retries: 3, paths: &paths, force: Force::No };
        assert_eq!(state_word(&ok(), None, &policy, at(100)), "unreachable");
        let broken = State { failed: failed('b', 3), ..ok() };
        assert!(
            matches!(decide(&broken, &commit('b'), &policy, at(100)), Decision::Skip { why } if why.starts_with("broken"))
        );
    }

    #[test]
    fn a_freeze_stands_above_force_and_interruption() {
        for state in [
            State { frozen: frozen(None), ..State::default() },
            State { frozen: frozen(Some(101)), started: started('c'), ..State::default() },
        ] {
            let policy = Policy { retries: 3, paths: &[], force: Force::Yes };
            let Decision::Skip { why } = decide(&state, &commit('b'), &policy, at(100)) else { panic!("not skipped") };
            assert!(why.contains("alice") && why.contains("audit"), "{why}");
            assert_eq!(state_word(&state, Some(&commit('b')), &policy, at(100)), "frozen");
        }
    }
}
