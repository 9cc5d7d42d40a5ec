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
pub fn attempts(made: u32, retries: u32) -> String {
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
    // Longer than can be told is for ever, and not for no time at all.
    let soak = Some(SignedDuration::try_from(policy.soak).unwrap_or(SignedDuration::MAX)).filter(|s| !s.is_zero())?;
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
    newest_note(state).map(|(_, commit)| commit).or(state.deployed.as_ref().map(|d| &d.commit))
}

/// The newest commit that something is noted about, and since when.
pub fn newest_note(state: &State) -> Option<(Timestamp, &Commit)> {
    let noted = [
        state.failed.as_ref().map(|f| (f.since, &f.commit)),
        state.refused.as_ref().map(|r| (r.since, &r.commit)),
        state.skipped.as_ref().map(|s| (s.since, &s.commit)),
        state.seen.as_ref().map(|s| (s.since, &s.tip)),
    ];
    // A tip that soaked is noted before it fails: of two notes of one time the first one counts.
    noted.into_iter().flatten().rev().max_by_key(|(since, _)| *since)
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
