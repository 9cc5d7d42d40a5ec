//! How a deploy that was begun ends: recorded as deployed, or taken back and recorded as failed.

use anyhow::Result;

use super::live::Destination;
use super::{Begun, Reached, Road, Setback, SetbackCause, now};
use crate::config::OnFailure;
use crate::event;
use crate::journal::state::{Deployed, Kind, Published, State};
use crate::outcome::{Class, Failure, Outcome};
use crate::processes::messages::StagerReply;
use crate::report::plural;
use crate::stages::decide::distance;
use crate::stages::record::{self, Facts, Live};

impl Road<'_> {
    pub fn succeed(&mut self, mut begun: Begun) -> Result<Outcome> {
        let result = record::Result::Deployed;
        let recorded =
            self.enter("record").and_then(|()| self.sync_commands()).and_then(|()| self.finish(&begun, &result));
        if let Err(e) = recorded {
            return Err(self.unrecorded(&mut begun, Failure::of(e)).into());
        }
        let facts = &begun.facts;
        let milliseconds: u64 = self.ms.values().sum();
        let from = begun.before.deployed.as_ref().map(|d| d.commit.clone());
        event!(INFO, "deploy.finished", app = self.name(), stage = "record", commit = facts.commit.as_str(), previous = from.as_ref().map(|c| c.as_str()), outcome = "deployed", exit = 0, ms = milliseconds; "deployed {}", facts.commit.short());
        self.retire(begun.before.failed.as_ref().and_then(|f| f.release.clone()));
        Ok(Outcome::Deployed { from: from.map(String::from), to: facts.commit.to_string(), milliseconds })
    }

    /// What is recorded must be there after a power cut: what the app's commands made, too.
    fn sync_commands(&mut self) -> Result<()> {
        let deploy = &self.app.deploy;
        if deploy.build.is_none() && deploy.script.is_none() {
            return Ok(());
        }
        self.timed("record", |road| road.shop.sync())
    }

    /// A success that cannot be recorded is none: a full disk never changes what is live. The journal
    /// still says "started", so the next run takes the deploy up again.
    fn unrecorded(&mut self, begun: &mut Begun, why: Failure) -> Failure {
        let commit = begun.facts.commit.clone();
        let message = format!("{} was deployed, but that could not be recorded: {}", commit.short(), why.message);
        let mut failure = Failure { message, ..why };
        event!(ERROR, "deploy.finished", app = self.name(), stage = "record", commit = commit.as_str(), outcome = "error", error = failure.message.as_str(); "taken back");
        self.undo(begun, SetbackCause::Commit, Reached::Live).tell(&mut failure);
        failure
    }

    /// Takes back what was begun, as far as the app wants that, and records it.
    pub fn fail(&mut self, mut begun: Begun, mut setback: Setback) -> Result<Outcome> {
        let by_hand = begun.facts.kind == Kind::Rollback;
        if by_hand && setback.cause == SetbackCause::NotNow {
            // There is no next poll that would try a rollback again.
            setback.cause = SetbackCause::Commit;
        }
        let mut failure = setback.failure;
        // Before this deploy another one may have been cut short: then what is live is not what is
        // deployed, however early this one failed.
        let is_clean = begun.before.started.is_none() && begun.before.stray.is_empty();
        let undone = match setback.reached {
            Reached::Build if is_clean => Undone::NothingToDo,
            _ => self.undo(&mut begun, setback.cause, setback.reached),
        };
        undone.tell(&mut failure);
        let reason = failure.message.clone();
        let live = undone.live();
        let result = match setback.cause {
            SetbackCause::Stopped => record::Result::Interrupted { reason, live },
            SetbackCause::Machine => record::Result::Error { reason, live },
            SetbackCause::NotNow => record::Result::Deferred { reason, live },
            SetbackCause::Commit => record::Result::Failed { reason, exit: setback.exit, live },
        };
        let outcome = result.ending().word();
        let commit = &begun.facts.commit;
        if setback.cause != SetbackCause::NotNow {
            event!(ERROR, "deploy.finished", app = self.name(), stage = "record", commit = commit.as_str(), outcome = outcome, exit = setback.exit.map(i64::from), ms = self.ms.values().sum::<u64>(), error = failure.message.as_str(); "not deployed");
        } else {
            event!(INFO, "deploy.finished", app = self.name(), stage = "record", commit = commit.as_str(), outcome = outcome, exit = setback.exit.map(i64::from); "not now");
        }
        if let Err(e) = self.finish(&begun, &result) {
            // Both are to be known; the next run finds the deploy begun and takes it up again.
            failure.help.push(format!("and this could not be recorded: {}", Failure::of(e).message));
            return Err(Failure { class: Class::Io, ..failure }.into());
        }
        let attempts = self.journal.state.failed.as_ref().map_or(0, |f| f.attempts);
        // The failed release is left for a look; the one of the attempt before goes.
        self.retire(begun.before.failed.as_ref().and_then(|f| f.release.clone()));
        // With the wrong commit live it cannot wait for another time.
        if setback.cause == SetbackCause::NotNow && !matches!(undone, Undone::NotRestored(_)) {
            let again = match distance(attempts) {
                _ if attempts >= self.app.deploy.retries => {
                    format!("it is not tried again by itself: poller retry {}", self.name())
                }
                0 => "it is tried again at the next poll".to_owned(),
                polls => format!("it is tried again {} from now", plural(polls as usize + 1, "poll")),
            };
            let why = format!("the script said \"not now\" (exit 75); {again}");
            return Ok(Outcome::Skipped { commit: commit.to_string(), why });
        }
        if by_hand {
            failure.message = format!("the rollback to {} failed: {}", commit.short(), failure.message);
            let (state, name) = (&self.journal.state, self.name());
            if state.started.is_some() {
                failure.help.push(format!("the next poll carries it through; or at once: poller rollback {name}"));
            } else if state.frozen.as_ref().is_some_and(|frozen| frozen.holds(now())) {
                failure.help.push(format!("it is frozen as it is, until: poller unfreeze {name}"));
            }
        } else if setback.cause == SetbackCause::Commit {
            let retries = self.app.deploy.retries;
            let (short, name) = (commit.short(), self.name());
            // The last attempt is another failure than the ones before: it is reported for itself.
            if attempts < retries {
                failure.message = format!("deploy of {short} failed: {}", failure.message);
                let again = match distance(attempts) {
                    0 => "the next poll tries again".to_owned(),
                    polls => format!("the next attempt is {} from now", plural(polls as usize + 1, "poll")),
                };
                failure
                    .help
                    .push(format!("attempt {attempts} of {retries}: {again}; a new commit is deployed at once"));
            } else {
                failure.message = format!("deploy of {short} failed for the last time: {}", failure.message);
                let which = match attempts > retries {
                    true => format!("attempt {attempts}, asked for by hand"),
                    false => format!("attempt {attempts} of {retries}"),
                };
                failure.help.push(format!("{which}: it waits for another commit (or: poller retry {name})"));
            }
        }
        Err(failure.into())
    }

    fn undo(&mut self, begun: &mut Begun, cause: SetbackCause, reached: Reached) -> Undone {
        let policy = self.app.deploy.on_failure;
        if cause == SetbackCause::Commit && policy == OnFailure::Keep && reached == Reached::Live {
            return Undone::Kept;
        }
        if let Err(e) = self.restore(begun) {
            let failure = Failure::of(e);
            event!(ERROR, "rollback.finished", app = self.name(), stage = "rollback", outcome = "failed", error = failure.message.as_str(); "what was live before could not be put back");
            return Undone::NotRestored(failure);
        }
        let Some(former) = begun.before.deployed.clone() else {
            return Undone::Nothing;
        };
        event!(INFO, "rollback.finished", app = self.name(), stage = "rollback", commit = former.commit.as_str(), outcome = "restored"; "{} is live again", former.commit.short());
        if cause != SetbackCause::Commit || policy != OnFailure::Rollback {
            return Undone::Restored(former, None);
        }
        let destination = back_to(&former, begun);
        // What failed is what the report shows, not the former script's success.
        let failed_output = std::mem::take(self.output);
        let stop = self.context.stop.clone();
        let script = self.former_script(&destination);
        // Whatever its script came to: what runs is to be of the release that is live.
        let units = self.units(&destination, Some(&stop));
        let ran = both(script.err(), units.err());
        let rollback_output = std::mem::replace(self.output, failed_output);
        self.output.append(&rollback_output, "the former release's script:");
        if let Err(e) = self.sync_commands() {
            let failure = Failure::of(e);
            event!(ERROR, "rollback.finished", app = self.name(), stage = "rollback", outcome = "failed", error = failure.message.as_str(); "what the former release's script made may not be on the disk");
            return Undone::NotRestored(failure);
        }
        Undone::Restored(former.clone(), ran)
    }

    /// Makes live what was live before: a link, or with the layout `in-place` the files that differ.
    fn restore(&mut self, begun: &mut Begun) -> Result<()> {
        // The lock's file says it to people, and may be on a disk that is full: nothing waits for that.
        if let Err(e) = self.enter("rollback") {
            self.warn("rollback", &[format!("{e:#}")]);
        }
        let former = begun.before.deployed.clone();
        let published = former.as_ref().map(|d| (d.commit.clone(), d.subdir.clone())).unzip();
        let (commit, subdir) = (published.0, published.1.flatten());
        if self.is_in_place() {
            // The journal says what was begun, so whatever may be live is reckoned with.
            let mut tree = self.tree(commit, subdir);
            let this = Published { commit: begun.facts.commit.clone(), subdir: begun.facts.subdir.clone() };
            if !tree.bases.contains(&Some(this.clone())) {
                tree.bases.push(Some(this));
            }
            self.shop.stage("rollback", tree, None)?;
            return self.shop.activate("rollback");
        }
        let missing = match &former {
            // Nothing was live, or the release of this very target.
            None => return self.shop.restore(None),
            Some(Deployed { release: Some(release), place, .. }) if *place == self.place() => {
                let Err(e) = self.shop.restore(Some(release.clone())) else { return Ok(()) };
                e
            }
            Some(_) => anyhow::anyhow!("it was published to another place, or not as a release"),
        };
        let Some(former) = &mut begun.before.deployed else { return Err(missing) };
        // Somebody removed it, or the target is another folder now. The repository still has it.
        event!(WARN, "rollback.restaged", app = self.app.name.as_str(), stage = "rollback", commit = former.commit.as_str(), error = format!("{missing:#}"); "the former release is written anew");
        let name = record::release_name(&former.commit, &self.journal.state, now());
        let tree = self.tree(commit, subdir);
        self.shop.stage(&name, tree, None)?;
        former.release = Some(name);
        former.place = self.place();
        self.build_former(begun)?;
        let name = begun.before.deployed.as_ref().and_then(|d| d.release.clone()).unwrap_or_default();
        self.shop.activate(&name)
    }

    /// A release that was written anew is worth nothing before it is built.
    fn build_former(&mut self, begun: &Begun) -> Result<()> {
        let (Some(command), Some(former)) = (&self.app.deploy.build, &begun.before.deployed) else { return Ok(()) };
        let destination = back_to(former, begun);
        let failed_output = std::mem::take(self.output);
        let built = self.command("rollback", "former release's build", command, &destination, Reached::Build);
        let said = std::mem::replace(self.output, failed_output);
        self.output.append(&said, "the former release's build:");
        built.map_err(|setback| setback.failure)?;
        self.shop.sync()
    }

    /// What a killed run left live, in whole or in part, does not stay until what keeps the next deploy from
    /// beginning is over: the server may be away for long, or the tip be one that is refused.
    pub fn put_back(&mut self, why: anyhow::Error) -> anyhow::Error {
        let state = self.journal.state.clone();
        let Some(started) = state.started.as_ref().filter(|_| state.deployed.is_some() && !state.stray.is_empty())
        else {
            return why;
        };
        // A rollback by hand is carried through, which `poller rollback` does without a server. Told to stop, the
        // next run does it.
        if started.kind == Kind::Rollback || self.context.stop.cause().is_some() {
            return why;
        }
        // What was begun is among what may be live, and as it was configured then.
        let known = state.stray.iter().rev().find(|published| published.commit == started.commit);
        let facts = Facts {
            run: started.run.clone(),
            kind: started.kind,
            reference: self.last_reference(),
            commit: started.commit.clone(),
            release: started.release.clone(),
            subdir: known.and_then(|published| published.subdir.clone()),
            place: self.place(),
            who: self.context.who.clone(),
            began: started.at,
            back: None,
        };
        let short = started.commit.short().to_owned();
        let mut begun = Begun { facts, before: state.clone() };
        let mut failure = Failure::of(why);
        let restored = self.restore(&mut begun).and_then(|()| {
            let (state, run) = record::put_back(&begun.before, &begun.facts, now());
            self.append(state, run, Vec::new())
        });
        let line = match (restored, &begun.before.deployed) {
            (Ok(()), Some(former)) => {
                event!(INFO, "rollback.finished", app = self.name(), stage = "rollback", commit = former.commit.as_str(), outcome = "restored"; "{} is live again; the deploy of {short} was cut short", former.commit.short());
                format!("live: {} again; the deploy of {short} had been cut short", former.commit.short())
            }
            (restored, _) => {
                let error = restored.map_or_else(|e| Failure::of(e).message, |()| String::new());
                event!(ERROR, "rollback.finished", app = self.name(), stage = "rollback", outcome = "failed", error = error.as_str(); "what was live before could not be put back");
                format!(
                    "the deploy of {short} had been cut short, and may be live in part: {error}; the next run goes over it"
                )
            }
        };
        failure.help.insert(0, line);
        failure.into()
    }

    fn finish(&mut self, begun: &Begun, result: &record::Result) -> Result<()> {
        let at = now();
        let state = record::ended(&begun.before, &begun.facts, result, at);
        let from = begun.before.deployed.as_ref().map(|d| &d.commit);
        let run = record::run(&begun.facts, from, Some(result), at, self.ms.clone());
        let text = self.output.text();
        self.append(state.clone(), run, text).or_else(|e| self.ensure_recorded(state, e))
    }

    /// An entry that was not acknowledged may stand there all the same: its writer was killed before it
    /// could answer, or the disk refused the sync after the rename. Then it counts. To take back what it
    /// tells of would leave a journal that is not true, and no later run would look at it again.
    fn ensure_recorded(&mut self, state: State, why: anyhow::Error) -> Result<()> {
        let Ok(journal) = self.shop.recorded() else { return Err(why) };
        if journal.head == self.journal.head || journal.state != state {
            return Err(why);
        }
        let warning = format!("the entry stands in the journal, though its writing ended with: {why:#}");
        self.warn("record", &[warning]);
        *self.state = Some(state);
        self.journal = journal;
        Ok(())
    }

    /// Removes old releases. That this fails is worth a line and no more.
    pub fn retire(&mut self, remove: Option<String>) {
        if self.is_in_place() {
            return;
        }
        let state = &self.journal.state;
        let good = [&state.deployed, &state.previous].into_iter().flatten().filter_map(|d| d.release.clone());
        let failed = state.failed.iter().filter_map(|f| f.release.clone());
        let protect: Vec<String> = good.chain(failed).collect();
        match self.shop.retire(self.app.target.keep, protect, remove.into_iter().collect()) {
            Ok(StagerReply::Retired { warnings, .. }) => self.warn("record", &warnings),
            Ok(_) => {}
            Err(e) => {
                event!(WARN, "deploy.warning", app = self.name(), stage = "record", error = format!("{e:#}"); "old releases could not be removed")
            }
        }
    }
}

fn back_to<'a>(former: &'a Deployed, begun: &'a Begun) -> Destination<'a> {
    Destination {
        kind: Kind::Rollback,
        commit: &former.commit,
        previous: Some(&begun.facts.commit),
        release: former.release.as_deref().unwrap_or_default(),
        reference: &begun.facts.reference,
    }
}

/// What went wrong, in one sentence.
fn both(script: Option<Setback>, units: Option<Setback>) -> Option<Failure> {
    match (script.map(|s| s.failure), units.map(|s| s.failure)) {
        (Some(script), Some(units)) => {
            let class = if units.class == Class::Interrupted { units.class } else { script.class };
            let message = format!("{}; {}", script.message, units.message);
            Some(Failure { class, message, help: [script.help, units.help].concat() })
        }
        (script, units) => script.or(units),
    }
}

/// What became of the live tree.
enum Undone {
    /// It was not reached.
    NothingToDo,
    /// The failed commit stays live, as the app wants it.
    Kept,
    /// There was nothing before, and there is nothing now.
    Nothing,
    /// The former one is live, and what its script came to.
    Restored(Deployed, Option<Failure>),
    NotRestored(Failure),
}

impl Undone {
    fn live(&self) -> Live {
        match self {
            Undone::NothingToDo => Live::Untouched,
            // What it had to do is not done: the next run goes over it.
            Undone::Restored(_, Some(Failure { class: Class::Interrupted, .. })) => Live::Unsure,
            Undone::Kept => Live::Failed,
            Undone::Nothing | Undone::Restored(..) => Live::Former,
            Undone::NotRestored(_) => Live::Unsure,
        }
    }

    fn tell(&self, failure: &mut Failure) {
        let line = match self {
            Undone::NothingToDo => "nothing live was changed".to_owned(),
            Undone::Kept => "the failed commit stays live (on_failure = \"keep\")".to_owned(),
            Undone::Nothing => "nothing was deployed before, so nothing is live".to_owned(),
            Undone::Restored(former, None) => format!("live: {} again", former.commit.short()),
            Undone::Restored(former, Some(script)) => {
                format!("live: {} again, but {}", former.commit.short(), script.message)
            }
            Undone::NotRestored(why) => {
                format!("WHAT WAS LIVE COULD NOT BE PUT BACK: {}; the next run goes over it", why.message)
            }
        };
        failure.help.insert(0, line);
        if let Undone::NotRestored(Failure { class: Class::Io, .. }) = self {
            failure.class = Class::Io;
        }
    }
}
