//! Record: what an entry of the journal says of a deploy, and what state follows from it. No I/O.

use std::collections::BTreeMap;

use jiff::{Timestamp, ToSpan};

use crate::commit::Commit;
use crate::journal::state::*;

/// What is known of a deploy when it begins.
#[derive(Clone, Debug)]
pub struct Facts {
    pub run: String,
    pub kind: Kind,
    pub reference: String,
    pub commit: Commit,
    pub release: Option<String>,
    pub subdir: Option<String>,
    pub place: Place,
    pub who: String,
    pub began: Timestamp,
    /// Set for a rollback by hand.
    pub back: Option<Back>,
}

/// What a rollback by hand does beside going back.
#[derive(Clone, Debug)]
pub struct Back {
    /// It holds from the begin on: a poll after a kill must not deploy again what somebody wanted gone.
    pub freeze: Frozen,
    /// What a further rollback goes back to: never what was just left.
    pub previous: Option<Deployed>,
}

impl Facts {
    fn frozen(&self, state: &State) -> Option<Frozen> {
        self.back.as_ref().map(|back| back.freeze.clone()).or_else(|| state.frozen.clone())
    }
}

/// What is live after a deploy that did not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Live {
    /// What was live before: nothing was touched, for better or worse.
    Untouched,
    /// What is deployed, put back.
    Former,
    /// The failed commit (`on_failure = "keep"`).
    Failed,
    /// Something in between: putting it back failed.
    Unsure,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Result {
    Deployed,
    Failed {
        reason: String,
        exit: Option<i32>,
        live: Live,
    },
    /// The script said 75.
    Deferred {
        reason: String,
        live: Live,
    },
    /// poller was told to stop.
    Interrupted {
        reason: String,
        live: Live,
    },
    /// Something of this machine, not of the commit.
    Error {
        reason: String,
        live: Live,
    },
}

impl Result {
    pub fn ending(&self) -> Ending {
        match self {
            Result::Deployed => Ending::Deployed,
            Result::Failed { .. } => Ending::Failed,
            Result::Deferred { .. } => Ending::Deferred,
            Result::Interrupted { .. } => Ending::Interrupted,
            Result::Error { .. } => Ending::Error,
        }
    }
}

/// The entry's `run.toml`.
pub fn run(
    facts: &Facts,
    from: Option<&Commit>,
    result: Option<&Result>,
    now: Timestamp,
    ms: BTreeMap<String, u64>,
) -> Run {
    let (exit, error) = match result {
        None => (None, None),
        Some(Result::Deployed) => (Some(0), None),
        Some(Result::Failed { reason, exit, .. }) => (*exit, Some(reason)),
        Some(Result::Deferred { reason, .. }) => (Some(75), Some(reason)),
        Some(Result::Interrupted { reason, .. } | Result::Error { reason, .. }) => (None, Some(reason)),
    };
    Run {
        id: facts.run.clone(),
        kind: facts.kind,
        outcome: result.map_or(Ending::Started, Result::ending),
        from: from.cloned(),
        to: Some(facts.commit.clone()),
        reference: facts.reference.clone(),
        who: facts.who.clone(),
        started: facts.began,
        ended: result.map(|_| now),
        exit,
        error: error.cloned(),
        reason: facts.back.as_ref().map(|back| back.freeze.reason.clone()),
        ms,
    }
}

/// The state while a deploy runs.
pub fn begun(state: &State, facts: &Facts) -> State {
    let started = Started {
        commit: facts.commit.clone(),
        kind: facts.kind,
        release: facts.release.clone(),
        at: facts.began,
        run: facts.run.clone(),
        told: false,
    };
    State {
        started: Some(started),
        stray: with(&state.stray, facts),
        frozen: facts.frozen(state),
        touched: Some(facts.place.clone()),
        ..state.clone()
    }
}

/// A list, so that a second deploy that is cut short does not make the first one forgotten.
fn with(stray: &[Published], facts: &Facts) -> Vec<Published> {
    let mut all = stray.to_vec();
    let this = Published { commit: facts.commit.clone(), subdir: facts.subdir.clone() };
    if !all.contains(&this) {
        all.push(this);
    }
    all
}

/// What is written, first thing, about a deploy that a killed run left without an end.
pub fn interrupted(state: &State, from: Option<&Commit>, reference: &str, who: &str) -> Option<(State, Run)> {
    let started = state.started.as_ref().filter(|s| !s.told)?;
    let run = Run {
        id: started.run.clone(),
        kind: started.kind,
        outcome: Ending::Interrupted,
        from: from.cloned(),
        to: Some(started.commit.clone()),
        reference: reference.to_owned(),
        who: who.to_owned(),
        started: started.at,
        ended: None,
        exit: None,
        error: Some("the run was killed, or the machine went down".into()),
        reason: None,
        ms: BTreeMap::new(),
    };
    Some((told(state.clone()), run))
}

/// What was live before a killed run's deploy is live again, though nothing new can be deployed for now.
pub fn put_back(state: &State, facts: &Facts, now: Timestamp) -> (State, Run) {
    let reason = "the run was killed, or the machine went down; what was live before was put back".to_owned();
    let result = Result::Interrupted { reason, live: Live::Former };
    let from = state.deployed.as_ref().map(|d| &d.commit);
    let run = run(facts, from, Some(&result), now, BTreeMap::new());
    (told(State { stray: Vec::new(), ..state.clone() }), run)
}

fn told(mut state: State) -> State {
    if let Some(started) = &mut state.started {
        started.told = true;
    }
    state
}

/// The state after it. `state` is the one from before the deploy.
pub fn ended(state: &State, facts: &Facts, result: &Result, now: Timestamp) -> State {
    match result {
        Result::Deployed => deployed(state, facts, now),
        // What stays live by hand is not to give way to the tip at the next poll.
        Result::Failed { live: Live::Failed, .. } if facts.kind == Kind::Rollback => {
            State { frozen: facts.frozen(state), ..after(state, facts, Live::Failed) }
        }
        // A rollback by hand says nothing about the tip, nor about the attempts at it.
        Result::Failed { live, .. } | Result::Deferred { live, .. } if facts.kind == Kind::Rollback => {
            after(state, facts, *live)
        }
        Result::Failed { reason, live, .. } => failed(after(state, facts, *live), state, facts, reason, 1, now),
        Result::Deferred { reason, live } => failed(after(state, facts, *live), state, facts, reason, 0, now),
        // The next run finds it and names it.
        Result::Interrupted { live, .. } => {
            let stray = after(state, facts, *live).stray;
            told(State { stray, ..begun(state, facts) })
        }
        Result::Error { live, .. } => after(state, facts, *live),
    }
}

fn deployed(state: &State, facts: &Facts, now: Timestamp) -> State {
    let deployed = Deployed {
        commit: facts.commit.clone(),
        release: facts.release.clone(),
        at: now,
        run: facts.run.clone(),
        subdir: facts.subdir.clone(),
        place: facts.place.clone(),
    };
    // A redeploy of the same commit does not make it its own predecessor.
    let previous = match &state.deployed {
        _ if facts.kind == Kind::Rollback => facts.back.as_ref().and_then(|back| back.previous.clone()),
        Some(before) if before.commit != facts.commit => Some(before.clone()),
        _ => state.previous.clone(),
    };
    State { deployed: Some(deployed), previous, frozen: facts.frozen(state), ..State::default() }
}

/// What a deploy that did not succeed leaves behind.
fn after(state: &State, facts: &Facts, live: Live) -> State {
    let before = State { touched: Some(facts.place.clone()), ..state.clone() };
    match live {
        Live::Untouched => before,
        Live::Former => State { started: None, stray: Vec::new(), ..before },
        Live::Failed => State { started: None, stray: with(&[], facts), ..before },
        Live::Unsure => told(begun(state, facts)),
    }
}

fn failed(after: State, before: &State, facts: &Facts, reason: &str, count: u32, now: Timestamp) -> State {
    let same = before.failed.as_ref().filter(|f| f.commit == facts.commit);
    let failed = Failed {
        commit: facts.commit.clone(),
        attempts: same.map_or(0, |f| f.attempts) + count,
        since: same.map_or(now, |f| f.since),
        reason: reason.to_owned(),
        release: facts.release.clone(),
    };
    State { failed: Some(failed), refused: None, skipped: None, ..after }
}

/// The name of a release: the time first, so that names sort by age, and later than any known one, so
/// that it is new even within a second or after the clock was set back.
pub fn release_name(commit: &Commit, state: &State, now: Timestamp) -> String {
    let known = [
        state.deployed.as_ref().and_then(|d| d.release.as_deref()),
        state.previous.as_ref().and_then(|d| d.release.as_deref()),
        state.failed.as_ref().and_then(|f| f.release.as_deref()),
        state.started.as_ref().and_then(|s| s.release.as_deref()),
    ];
    let stamp = |t: Timestamp| t.strftime("%Y%m%dT%H%M%SZ").to_string();
    let mut time = now;
    for name in known.into_iter().flatten() {
        if let Some(last) = name.get(..16)
            && stamp(time).as_str() <= last
            && let Ok(last) = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", last)
            && let Ok(last) = last.to_zoned(jiff::tz::TimeZone::UTC)
        {
            time = last.timestamp().checked_add(1.second()).unwrap_or(now);
        }
    }
    format!("{}-{commit}", stamp(time))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(digit: char) -> Commit {
        Commit::try_from(digit.to_string().repeat(40)).unwrap()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn facts(digit: char) -> Facts {
        Facts {
            run: "r".into(),
            kind: Kind::Deploy,
            reference: "refs/heads/main".into(),
            commit: commit(digit),
            release: Some(format!("x-{digit}")),
            subdir: None,
            place: Place { directory: "/srv/x".into(), layout: crate::config::Layout::Releases },
            who: "root".into(),
            began: at(1),
            back: None,
        }
    }

    #[test]
    fn a_success_moves_what_was_deployed_to_previous_and_forgets_failures() {
        let one = ended(&State::default(), &facts('a'), &Result::Deployed, at(2));
        assert_eq!((&one.deployed.as_ref().unwrap().commit, &one.previous), (&commit('a'), &None));
        let bad = Result::Failed { reason: "exit 1".into(), exit: Some(1), live: Live::Former };
        let failing = ended(&one, &facts('b'), &bad, at(3));
        assert_eq!(failing.failed.as_ref().unwrap().attempts, 1);
        let failing = ended(&failing, &facts('b'), &bad, at(4));
        assert_eq!(failing.failed.as_ref().map(|f| (f.attempts, f.since)), Some((2, at(3))));
        let two = ended(&failing, &facts('b'), &Result::Deployed, at(5));
        assert_eq!(two.failed, None);
        assert_eq!(two.previous.as_ref().unwrap().commit, commit('a'));
        // Deployed again: the predecessor stays the other one.
        assert_eq!(ended(&two, &facts('b'), &Result::Deployed, at(6)).previous, two.previous);
    }

    #[test]
    fn not_now_does_not_count_and_an_interruption_is_remembered() {
        let deferred =
            ended(&State::default(), &facts('a'), &Result::Deferred { reason: "75".into(), live: Live::Former }, at(2));
        assert_eq!(deferred.failed.unwrap().attempts, 0);
        let cut = ended(
            &State::default(),
            &facts('a'),
            &Result::Interrupted { reason: "TERM".into(), live: Live::Former },
            at(2),
        );
        assert_eq!(cut.started.unwrap().commit, commit('a'));
        let full =
            ended(&State::default(), &facts('a'), &Result::Error { reason: "full".into(), live: Live::Former }, at(2));
        assert_eq!(full, State { touched: Some(facts('a').place), ..State::default() });
    }

    #[test]
    fn what_may_be_live_is_remembered_until_something_is_put_back_or_deployed() {
        let one = ended(&State::default(), &facts('a'), &Result::Deployed, at(1));
        let killed_twice = begun(&begun(&one, &facts('b')), &facts('c'));
        let commits: Vec<_> = killed_twice.stray.iter().map(|p| p.commit.clone()).collect();
        assert_eq!(commits, [commit('b'), commit('c')]);
        let bad = |live| Result::Failed { reason: String::new(), exit: Some(1), live };
        let stray = |live| ended(&killed_twice, &facts('d'), &bad(live), at(2)).stray.len();
        assert_eq!(
            (stray(Live::Untouched), stray(Live::Former), stray(Live::Failed), stray(Live::Unsure)),
            (2, 0, 1, 3)
        );
        assert!(ended(&killed_twice, &facts('d'), &Result::Deployed, at(2)).stray.is_empty());
        let interrupted =
            ended(&one, &facts('b'), &Result::Interrupted { reason: String::new(), live: Live::Former }, at(2));
        assert!(interrupted.started.is_some_and(|s| s.told), "its own entry says how it ended");
    }

    #[test]
    fn release_names_grow_even_when_the_clock_does_not() {
        let first = release_name(&commit('a'), &State::default(), at(0));
        assert_eq!(first, format!("19700101T000000Z-{}", commit('a')));
        let mut state =
            ended(&State::default(), &Facts { release: Some(first.clone()), ..facts('a') }, &Result::Deployed, at(0));
        let second = release_name(&commit('a'), &state, at(0));
        assert!(second > first, "{second}");
        state.failed = ended(
            &state,
            &Facts { release: Some(second.clone()), ..facts('b') },
            &Result::Failed { reason: String::new(), exit: None, live: Live::Former },
            at(0),
        )
        .failed;
        assert!(release_name(&commit('a'), &state, at(0)) > second);
        assert!(release_name(&commit('a'), &state, at(9)).starts_with("19700101T000009Z"));
    }
}
