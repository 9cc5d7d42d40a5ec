//! Where an app stands and why, from its journal and its lock file: a pure function, in one word and one
//! sentence.

use jiff::Timestamp;

use crate::commit::Commit;
use crate::journal::state::{Kind, Started, State};
use crate::report::{duration, printable};
use crate::stages::decide::{Decision, Policy, Skip, Why, attempts, decide, newest_known, newest_note, state_word};
use crate::stages::lock::{Content, Polled};

/// What is known of an app without asking any server.
pub struct Sight<'a> {
    pub app: &'a str,
    pub state: &'a State,
    /// How the newest poll ended; none: there was none since the boot.
    pub polled: Option<&'a Polled>,
    /// Who holds its lock now.
    pub running: Option<&'a Content>,
    pub policy: Policy<'a>,
    pub now: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// One of the contract's states.
    pub word: &'static str,
    pub why: String,
    /// With which poll from now the next attempt comes: 1 is the next one. None where none is due.
    pub next: Option<u32>,
}

impl Sight<'_> {
    pub fn standing(&self) -> Standing {
        // What runs now was not interrupted.
        let state = match self.deploying() {
            Some(_) => State { started: None, ..self.state.clone() },
            None => self.state.clone(),
        };
        let Some(tip) = self.tip().or_else(|| newest_known(&state)) else {
            return self.told(self.failed_poll().map_or("new", |(word, _)| word), self.nothing_known(), None);
        };
        let decision = decide(&state, tip, &self.policy, self.now);
        let word = state_word(&state, Some(tip), &self.policy, self.now);
        match self.failed_poll() {
            // Nothing is deployed of a frozen app, whatever its server says.
            Some((_, why)) if word == "frozen" => {
                self.told(word, format!("{}; {why}", self.because(&state, &decision, tip)), None)
            }
            Some((failed, why)) => self.told(if failed.is_empty() { word } else { failed }, why, None),
            None => self.told(word, self.because(&state, &decision, tip), self.next(&decision)),
        }
    }

    /// The tip as of the last poll, or what the present one is deploying or has done with.
    pub fn tip(&self) -> Option<&Commit> {
        let deploying = self.deploying().filter(|started| started.kind != Kind::Rollback);
        let present = deploying.map(|started| &started.commit).or_else(|| self.news());
        present.or_else(|| self.polled?.tip.as_ref())
    }

    /// The commit that the run which holds the lock has put on record. It may be at work for other apps
    /// yet, and how the poll ended is written down when all of them are done.
    fn news(&self) -> Option<&Commit> {
        let holder = self.running?;
        let noted = newest_note(self.state).filter(|(since, _)| holder.since.is_some_and(|began| *since >= began));
        let deployed = self.state.deployed.as_ref().filter(|deployed| deployed.run == holder.run);
        noted.map(|(_, commit)| commit).or(deployed.map(|deployed| &deployed.commit))
    }

    /// How the newest poll ended, unless the present one has changed something since.
    fn last_poll(&self) -> Option<&Polled> {
        self.polled.filter(|_| self.deploying().is_none() && self.news().is_none())
    }

    /// A deploy that is at work at this moment.
    fn deploying(&self) -> Option<&Started> {
        let running = self.running?;
        self.state.started.as_ref().filter(|started| started.run == running.run && !started.told)
    }

    /// A poll that failed for a reason that the journal does not know, as state and sentence. The state is
    /// empty where it is the journal's.
    fn failed_poll(&self) -> Option<(&'static str, String)> {
        let polled = self.last_poll()?;
        let word = match (polled.outcome.as_str(), &polled.tip) {
            ("unchanged" | "skipped" | "deployed" | "failed" | "interrupted", _) => return None,
            ("refused", Some(tip)) if self.state.refused.as_ref().is_some_and(|r| r.commit == *tip) => return None,
            ("refused", Some(_)) => "refused",
            ("config", _) => "config",
            (_, None) => "unreachable",
            _ if polled.state == "unreachable" => "unreachable",
            _ => "",
        };
        Some((word, format!("the last poll failed: {}", polled.why)))
    }

    fn nothing_known(&self) -> String {
        match (self.failed_poll(), self.polled) {
            (Some((_, why)), _) => why,
            (None, Some(_)) => "never deployed".to_owned(),
            (None, None) => "not polled since the boot, and never deployed".to_owned(),
        }
    }

    fn next(&self, decision: &Decision) -> Option<u32> {
        match decision {
            Decision::Deploy { .. } => Some(1),
            Decision::Skip(Skip::Waiting { polls, .. }) => Some(polls.saturating_add(2)),
            Decision::Skip(_) | Decision::Unchanged => None,
        }
    }

    /// The sentence, with what comes before and after every one.
    fn told(&self, word: &'static str, why: String, next: Option<u32>) -> Standing {
        let mut why = match (self.deploying(), self.polled) {
            (Some(started), _) => self.deploys(started),
            (None, None) if self.running.is_none() && self.state != &State::default() => {
                format!("not polled since the boot; {why}")
            }
            (None, _) => why,
        };
        if let Some(holder) = self.running.filter(|_| self.deploying().is_none()) {
            why.push_str(&format!("; a run is at it now, in the stage `{}` (process {})", holder.stage, holder.pid));
        }
        Standing { word, why: printable(&why), next: next.filter(|_| self.deploying().is_none()) }
    }

    fn deploys(&self, started: &Started) -> String {
        let (stage, pid) = self.running.map_or(("", 0), |holder| (holder.stage.as_str(), holder.pid));
        let verb = if started.kind == Kind::Rollback { "going back to" } else { "deploying" };
        format!(
            "{verb} {} now, since {:.0}, in the stage `{stage}` (process {pid}); watch it: poller log {} --follow",
            started.commit.short(),
            started.at,
            self.app
        )
    }

    fn because(&self, state: &State, decision: &Decision, tip: &Commit) -> String {
        let (app, short) = (self.app, tip.short());
        match decision {
            Decision::Unchanged if state.deployed.as_ref().is_some_and(|d| d.commit == *tip) => {
                match (self.last_poll(), &state.deployed) {
                    (Some(polled), _) if polled.outcome == "deployed" => format!("{short} was {}", polled.why),
                    (Some(_), _) => "nothing new: the tip is what is deployed".to_owned(),
                    (None, _) => format!("the last one to be deployed was {short}"),
                }
            }
            Decision::Unchanged => format!("nothing new: {short} changes nothing that `[source] paths` names"),
            Decision::Skip(frozen @ Skip::Frozen(_)) => frozen.to_string(),
            Decision::Skip(Skip::Broken { failed, retries }) => format!(
                "{} at {short} failed ({}); it waits for another commit; \
                 to see more: poller log {app}; to try again: poller retry {app}",
                attempts(failed.attempts, *retries),
                first_line(&failed.reason)
            ),
            Decision::Skip(Skip::Waiting { failed, retries, polls }) => format!(
                "failed attempt {} of {retries} at {short}: {}; next attempt in {} polls",
                failed.attempts,
                first_line(&failed.reason),
                polls.saturating_add(2)
            ),
            Decision::Skip(Skip::Soaking { until, soak, .. }) => {
                format!("{short} is new, and deployed once it has stood for {}: after {until:.0}", duration(*soak))
            }
            Decision::Deploy { why, commit, .. } => self.due(state, *why, commit),
        }
    }

    /// Why the next poll deploys.
    fn due(&self, state: &State, why: Why, goal: &Commit) -> String {
        let short = goal.short();
        match (why, &state.started, &state.failed, &state.refused) {
            (Why::Interrupted, Some(started), ..) => format!(
                "the {} of {} that began at {:.0} was interrupted (run {}); the next poll takes it up",
                started.kind.word(),
                started.commit.short(),
                started.at,
                started.run
            ),
            (Why::Again(_), _, Some(failed), _) if failed.attempts == 0 => {
                format!("{short} was put off: {}; next attempt with the next poll", first_line(&failed.reason))
            }
            (Why::Again(_), _, Some(failed), _) => format!(
                "failed attempt {} of {} at {short}: {}; next attempt with the next poll",
                failed.attempts,
                self.policy.retries,
                first_line(&failed.reason)
            ),
            (Why::Reconsider, _, _, Some(refused)) => {
                format!("{short} is refused since {:.0}: {}", refused.since, first_line(&refused.reason))
            }
            (Why::First, ..) => format!("never deployed; {short} is due with the next poll"),
            _ => format!("{short} is due with the next poll"),
        }
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Layout;
    use crate::journal::state::{Deployed, Failed, Frozen, Place, Refused};
    use crate::stages::decide::Force;
    use std::time::Duration;

    fn commit(digit: char) -> Commit {
        Commit::try_from(digit.to_string().repeat(40)).unwrap()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn ok() -> State {
        let place = Place { directory: "/srv/x".into(), layout: Layout::Releases };
        let deployed = Deployed { commit: commit('a'), release: None, at: at(0), run: "r".into(), subdir: None, place };
        State { deployed: Some(deployed), ..State::default() }
    }

    fn failed(attempts: u32) -> State {
        let reason = "exit 1\nmore".to_owned();
        State { failed: Some(Failed { commit: commit('b'), attempts, since: at(1), reason, release: None }), ..ok() }
    }

    fn started(run: &str) -> State {
        let (commit, run) = (commit('b'), run.to_owned());
        State {
            started: Some(Started { commit, kind: Kind::Deploy, release: None, at: at(5), run, told: false }),
            ..ok()
        }
    }

    fn refused() -> State {
        State { refused: Some(Refused { commit: commit('b'), reason: "a rewind".into(), since: at(4) }), ..ok() }
    }

    fn frozen(until: i64) -> State {
        let frozen = Frozen { by: "alice".into(), reason: "audit".into(), since: at(0), until: Some(at(until)) };
        State { frozen: Some(frozen), ..ok() }
    }

    fn polled(outcome: &str, state: &str, tip: Option<char>, why: &str) -> Option<Polled> {
        Some(Polled {
            at: at(9),
            run: "p".into(),
            outcome: outcome.into(),
            state: state.into(),
            tip: tip.map(commit),
            reference: None,
            why: why.into(),
            waited: 0,
        })
    }

    fn holder(run: &str) -> Option<Content> {
        Some(Content { pid: 42, run: run.into(), since: Some(at(1)), stage: "deploy".into(), ..Content::default() })
    }

    /// State, newest poll, holder; word, beginning of the sentence, next attempt.
    type Case = (State, Option<Polled>, Option<Content>, &'static str, &'static str, Option<u32>);

    #[test]
    fn each_state_has_its_word_its_sentence_and_its_next_attempt() {
        let well = |tip| polled("unchanged", "ok", Some(tip), "nothing new");
        let away = || polled("unreachable", "unreachable", None, "no route to host");
        let full = || polled("io", "pending", Some('b'), "the disk is full");
        let rows: Vec<Case> = vec![
            (State::default(), None, None, "new", "not polled since the boot, and never deployed", None),
            (State::default(), well('b'), None, "new", "never deployed; bbbbbbbbbb is due with the next poll", Some(1)),
            (State::default(), away(), None, "unreachable", "the last poll failed: no route to host", None),
            (ok(), well('a'), None, "ok", "nothing new: the tip is what is deployed", None),
            (
                ok(),
                polled("deployed", "ok", Some('a'), "deployed in 0.3 s"),
                None,
                "ok",
                "aaaaaaaaaa was deployed in 0.3 s",
                None,
            ),
            (ok(), None, None, "ok", "not polled since the boot; the last one to be deployed was aaaaaaaaaa", None),
            (ok(), well('b'), None, "pending", "bbbbbbbbbb is due with the next poll", Some(1)),
            (ok(), away(), None, "unreachable", "the last poll failed: no route to host", None),
            (ok(), polled("config", "new", None, "no key"), None, "config", "the last poll failed: no key", None),
            (ok(), full(), None, "pending", "the last poll failed: the disk is full", None),
            (
                ok(),
                polled("refused", "refused", Some('b'), "no login"),
                None,
                "refused",
                "the last poll failed: no login",
                None,
            ),
            (
                refused(),
                polled("refused", "refused", Some('b'), "x"),
                None,
                "refused",
                "bbbbbbbbbb is refused since 1970-01-01T00:00:04Z: a rewind",
                Some(1),
            ),
            (
                failed(1),
                polled("failed", "failed", Some('b'), "x"),
                None,
                "failed",
                "failed attempt 1 of 3 at bbbbbbbbbb: exit 1; next attempt with the next poll",
                Some(1),
            ),
            (
                failed(2),
                polled("failed", "failed", Some('b'), "x"),
                None,
                "failed",
                "failed attempt 2 of 3 at bbbbbbbbbb: exit 1; next attempt in 2 polls",
                Some(2),
            ),
            (
                failed(3),
                None,
                None,
                "broken",
                "not polled since the boot; 3 of 3 attempts at bbbbbbbbbb failed (exit 1)",
                None,
            ),
            (
                failed(0),
                well('b'),
                None,
                "pending",
                "bbbbbbbbbb was put off: exit 1; next attempt with the next poll",
                Some(1),
            ),
            (
                frozen(200),
                well('b'),
                None,
                "frozen",
                "frozen by alice since 1970-01-01T00:00:00Z until 1970-01-01T00:03:20Z: audit",
                None,
            ),
            (
                frozen(200),
                away(),
                None,
                "frozen",
                "frozen by alice since 1970-01-01T00:00:00Z until 1970-01-01T00:03:20Z: audit; the last poll failed",
                None,
            ),
            (frozen(99), well('b'), None, "pending", "bbbbbbbbbb is due with the next poll", Some(1)),
            (
                started("k"),
                well('a'),
                None,
                "interrupted",
                "the deploy of bbbbbbbbbb that began at 1970-01-01T00:00:05Z was interrupted (run k)",
                Some(1),
            ),
            (
                started("k"),
                well('a'),
                holder("k"),
                "pending",
                "deploying bbbbbbbbbb now, since 1970-01-01T00:00:05Z, in the stage `deploy` (process 42)",
                None,
            ),
            (started("k"), away(), holder("k"), "pending", "deploying bbbbbbbbbb now", None),
            // It is done with this app, and at work for another.
            (failed(1), well('a'), holder("z"), "failed", "failed attempt 1 of 3 at bbbbbbbbbb", Some(1)),
            (ok(), well('b'), holder("r"), "ok", "the last one to be deployed was aaaaaaaaaa; a run", None),
            (ok(), away(), holder("r"), "ok", "the last one to be deployed was aaaaaaaaaa; a run", None),
            (started("k"), well('a'), holder("z"), "interrupted", "the deploy of bbbbbbbbbb", Some(1)),
            (ok(), well('a'), holder("z"), "ok", "nothing new: the tip is what is deployed; a run is at it now", None),
        ];
        for (state, polled, running, word, why, next) in rows {
            let policy = Policy { retries: 3, paths: &[], soak: Duration::ZERO, force: Force::No, waited: 0 };
            let (polled, running) = (polled.as_ref(), running.as_ref());
            let sight = Sight { app: "site", state: &state, polled, running, policy, now: at(100) };
            let standing = sight.standing();
            assert_eq!((standing.word, standing.next), (word, next), "{why}: {}", standing.why);
            assert!(standing.why.starts_with(why), "{why}\n{}", standing.why);
        }
    }

    #[test]
    fn whatever_a_reason_quotes_a_terminal_does_not_obey_it() {
        let mut state = failed(1);
        state.failed.as_mut().unwrap().reason = "\x1b[2Jgone".to_owned();
        let policy = Policy { retries: 3, paths: &[], soak: Duration::ZERO, force: Force::No, waited: 0 };
        let sight = Sight { app: "site", state: &state, polled: None, running: None, policy, now: at(100) };
        assert!(!sight.standing().why.contains('\x1b'));
    }
}
