//! From the tip to a release on the disk: decide, fetch, verify, stage, begin. Nothing live changes here.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use super::{Arrived, Begun, Decided, Fetched, Judged, Plan, Road, Staged, Verified, now};
use crate::commit::Commit;
use crate::config::{App, Layout};
use crate::event;
use crate::journal::state::{Ending, Kind, Place, Refused, Run, Seen, Skipped, State};
use crate::outcome::{Class, Failure, Outcome};
use crate::processes::messages::{Base, KeyFile, Rewind, Signers, StagerReply, StreamTree, Tip, Verify};
use crate::report::plural;
use crate::stages::decide::{Decision, Force, Skip, decide};
use crate::stages::record::{self, Facts};

/// What the fetcher is to hold the commit against; a dry run asks the same and wants a summary.
pub fn verify_request(app: &App, signers: Option<&Signers>, state: &State, force: Force, summary: bool) -> Verify {
    let forced = force == Force::Yes;
    // Forced, or something else is live: the filter has no say.
    let unfiltered = forced || state.started.is_some() || !state.stray.is_empty();
    // Only a dry run asks about a rollback; back is where that goes.
    let back = state.unfinished_rollback();
    let free = forced || back.is_some() || app.verify.allow_rewind;
    let signers = match &back {
        // A file that was not read is one that lets nobody sign.
        None => signers.cloned().or_else(|| unread(app)),
        // Going back is to what was deployed before, and was signed then if that was asked for.
        Some(_) => None,
    };
    Verify {
        app: app.name.as_str().to_owned(),
        deployed: state.deployed.as_ref().map(|d| d.commit.clone()),
        rewind: if free { Rewind::Allowed } else { Rewind::Refused },
        signers,
        subdir: back.map_or_else(|| app.source.subdir.clone(), |back| back.subdir),
        shared: shared(app),
        paths: if unfiltered { Vec::new() } else { app.source.paths.clone() },
        summary,
    }
}

fn unread(app: &App) -> Option<Signers> {
    let empty = |file: &PathBuf| KeyFile { file: file.clone(), text: String::new() };
    let (allowed_signers, pgp_keys) = (app.verify.allowed_signers.as_ref(), app.verify.pgp_keys.as_ref());
    let signers = Signers { allowed_signers: allowed_signers.map(empty), pgp_keys: pgp_keys.map(empty) };
    (allowed_signers.is_some() || pgp_keys.is_some()).then_some(signers)
}

/// In place nothing is linked: what is not tracked stays where it is.
fn shared(app: &App) -> Vec<String> {
    match app.target.layout {
        Layout::Releases => app.target.shared.clone(),
        Layout::InPlace => Vec::new(),
    }
}

fn place(app: &App) -> Place {
    Place { directory: app.target.directory.clone(), layout: app.target.layout }
}

/// Whether poller never wrote to the app's target.
pub fn is_new_here(app: &App, state: &State) -> bool {
    let here = place(app);
    if state.deployed.as_ref().is_some_and(|d| d.place == here) {
        return false;
    }
    match &state.touched {
        Some(place) => *place != here,
        // An entry from before this was written down.
        None => state.deployed.is_some() || (state.started.is_none() && state.failed.is_none()),
    }
}

impl Road<'_> {
    pub fn decide(&mut self, tip: &Tip) -> Result<Decided> {
        let decision = decide(&self.journal.state, &tip.commit, &self.policy(), now());
        self.forget_seen(tip, &decision)?;
        self.follow(tip, decision)
    }

    fn follow(&mut self, tip: &Tip, decision: Decision) -> Result<Decided> {
        let (commit, name) = (tip.commit.as_str(), self.app.name.as_str());
        match decision {
            Decision::Unchanged => {
                event!(INFO, "poll.unchanged", app = name, stage = "decide", commit = commit, outcome = "unchanged"; "{} stands where it stood", tip.reference);
                Ok(Decided::Stay(Outcome::Unchanged { commit: tip.commit.to_string() }))
            }
            Decision::Skip(skip) => {
                let why = skip.to_string();
                event!(INFO, "poll.skipped", app = name, stage = "decide", commit = commit, outcome = "skipped"; "{why}");
                if let Skip::Soaking { known: false, .. } = skip {
                    let seen = Seen { tip: tip.commit.clone(), since: now() };
                    let state = State { seen: Some(seen), ..self.journal.state.clone() };
                    self.note(&tip.reference, &tip.commit, state, Kind::Soak, Ending::Skipped, None)?;
                }
                Ok(Decided::Stay(Outcome::Skipped { commit: tip.commit.to_string(), why }))
            }
            Decision::Deploy { kind, why, commit: goal } => {
                let previous = self.deployed().map(Commit::as_str);
                event!(INFO, "poll.changed", app = name, stage = "decide", commit = commit, previous = previous; "{}: {why}", tip.reference);
                if let Some(started) = &self.journal.state.started {
                    event!(WARN, "deploy.interrupted", app = name, stage = "decide", commit = started.commit.as_str(), outcome = "interrupted"; "the run {} of {:.0} began to deploy {} and did not finish; it is taken up again", started.run, started.at, started.commit.short());
                }
                if kind == Kind::Rollback
                    && let Some(back) = self.journal.state.unfinished_rollback()
                {
                    return Ok(Decided::Back(Box::new(self.back_to(back, tip.reference.clone()))));
                }
                // What was interrupted was fetched then: it is there under its own name.
                let goal = Tip { object: goal.clone(), commit: goal, reference: tip.reference.clone() };
                let tip = if goal.commit == tip.commit { tip.clone() } else { goal };
                Ok(Decided::Go(Plan { kind, why, tip }))
            }
        }
    }

    /// A tip that went away has to stand anew when it comes back.
    fn forget_seen(&mut self, tip: &Tip, decision: &Decision) -> Result<()> {
        if self.journal.state.seen.as_ref().is_none_or(|seen| seen.tip == tip.commit) {
            return Ok(());
        }
        let state = State { seen: None, ..self.journal.state.clone() };
        match decision {
            // It is written down along with the tip that soaks now. A deploy may fail before it writes anything.
            Decision::Skip(Skip::Soaking { .. }) => {
                self.journal.state = state;
                Ok(())
            }
            _ => {
                let why = "the tip that was to stand for a while went away; should it come back, it stands anew";
                self.note(&tip.reference, &tip.commit, state, Kind::Soak, Ending::Skipped, Some(why.to_owned()))
            }
        }
    }

    pub fn fetch(&mut self, plan: Plan) -> Result<Arrived> {
        self.enter("fetch")?;
        let commit = self.timed("fetch", |road| {
            let (console, app) = (&road.context.console, road.app.name.as_str());
            let origin = road.origin.as_ref().context("a road without an origin")?;
            let commit = road.shop.fetch(origin, &plan.tip, false, |received, total, bytes| {
                console.transfer(app, received, total, bytes);
            })?;
            event!(INFO, "fetch.finished", app = app, stage = "fetch", commit = commit.as_str(); "fetched {}", plan.tip.reference);
            anyhow::Ok(commit)
        })?;
        if commit == plan.tip.commit {
            return Ok(Arrived::Go(Fetched { plan, commit }));
        }
        // Somebody pushed since the question: what was decided about the commit before is not true of this one.
        let tip = Tip { object: commit.clone(), commit: commit.clone(), reference: plan.tip.reference.clone() };
        let decision = decide(&self.journal.state, &commit, &self.policy(), now());
        self.forget_seen(&tip, &decision)?;
        match decision {
            Decision::Deploy { kind, why, .. } => Ok(Arrived::Go(Fetched { plan: Plan { kind, why, tip }, commit })),
            stays => match self.follow(&tip, stays)? {
                Decided::Stay(outcome) => Ok(Arrived::Stay(outcome)),
                Decided::Go(_) | Decided::Back(_) => bail!("a decision to stay that was followed by a deploy"),
            },
        }
    }

    pub fn verify(&mut self, fetched: Fetched) -> Result<Judged> {
        self.enter("verify")?;
        let Fetched { plan, commit } = fetched;
        let request = verify_request(self.app, self.signers.as_ref(), &self.journal.state, self.force, false);
        let findings = match self.timed("verify", |road| road.shop.verify(request)) {
            Ok(findings) => findings,
            Err(e) => {
                let failure = Failure::of(e);
                if failure.class == Class::Refused {
                    self.refuse(&plan, &commit, &failure)?;
                }
                return Err(failure.into());
            }
        };
        if let Some(signer) = &findings.signer {
            event!(INFO, "verify.signed", app = self.name(), stage = "verify", commit = commit.as_str(), principals = signer.principals.as_str(), fingerprint = signer.fingerprint.as_str(), subkey = signer.subkey.as_deref(); "{signer}");
        }
        self.warn("verify", &findings.warnings);
        if findings.of_no_interest {
            let outcome = self.pass_over(&plan, &commit)?;
            return Ok(Judged::Leave(outcome));
        }
        Ok(Judged::Publish(Box::new(Verified { plan, commit, findings })))
    }

    /// Remembers a refusal, once: the same commit for the same reason is not news.
    fn refuse(&mut self, plan: &Plan, commit: &Commit, failure: &Failure) -> Result<()> {
        event!(ERROR, "verify.refused", app = self.name(), stage = "verify", commit = commit.as_str(), outcome = "refused", error = failure.message.as_str(); "refused");
        let known = self.journal.state.refused.as_ref();
        if known.is_some_and(|r| r.commit == *commit && r.reason == failure.message) {
            return Ok(());
        }
        let refused = Refused { commit: commit.clone(), reason: failure.message.clone(), since: now() };
        let state = State { refused: Some(refused), ..self.journal.state.clone() };
        self.note(&plan.tip.reference, commit, state, Kind::Refusal, Ending::Refused, Some(failure.message.clone()))
    }

    /// Remembers that a commit changed nothing of interest, so that it is not fetched again and again.
    fn pass_over(&mut self, plan: &Plan, commit: &Commit) -> Result<Outcome> {
        let why = "none of the changed files matches `[source] paths`".to_owned();
        event!(INFO, "poll.skipped", app = self.name(), stage = "verify", commit = commit.as_str(), outcome = "skipped"; "{why}");
        let skipped = Skipped { commit: commit.clone(), paths: self.app.source.paths.clone(), since: now() };
        let state = State { skipped: Some(skipped), refused: None, ..self.journal.state.clone() };
        self.note(&plan.tip.reference, commit, state, Kind::Skip, Ending::Skipped, None)?;
        Ok(Outcome::Skipped { commit: commit.to_string(), why })
    }

    /// An entry about a commit that is not deployed.
    fn note(
        &mut self,
        reference: &str,
        commit: &Commit,
        state: State,
        kind: Kind,
        outcome: Ending,
        why: Option<String>,
    ) -> Result<()> {
        let at = now();
        let (error, reason) = if outcome == Ending::Refused { (why, None) } else { (None, why) };
        let run = Run {
            id: self.context.run.clone(),
            kind,
            outcome,
            from: self.deployed().cloned(),
            to: Some(commit.clone()),
            reference: reference.to_owned(),
            who: self.context.who.clone(),
            started: at,
            ended: Some(at),
            exit: None,
            error,
            reason,
            ms: self.ms.clone(),
        };
        self.append(state, run, Vec::new())
    }

    pub fn stage(&mut self, verified: Verified) -> Result<Staged> {
        self.enter("stage")?;
        let began = now();
        let Verified { plan, commit, findings } = verified;
        if self.is_new_here() {
            self.shop.inspect()?;
        }
        let name = record::release_name(&commit, &self.journal.state, began);
        let tree = self.tree(Some(commit.clone()), self.app.source.subdir.clone());
        let reply = self.timed("stage", |road| road.shop.stage(&name, tree, Some(&road.context.stop)))?;
        if let StagerReply::Staged { files, bytes, cloned, warnings } = reply {
            self.warn("stage", &warnings);
            event!(INFO, "stage.finished", app = self.name(), stage = "stage", commit = commit.as_str(), files = files, bytes = bytes, cloned = cloned, ms = self.ms.get("stage").copied(); "{} written, {} in the tree", plural(files as usize, "file"), findings.files);
        }
        let release = (!self.is_in_place()).then_some(name);
        let facts = Facts {
            run: self.context.run.clone(),
            kind: plan.kind,
            reference: plan.tip.reference,
            commit,
            release,
            subdir: self.app.source.subdir.clone(),
            place: self.place(),
            who: self.context.who.clone(),
            began,
            back: None,
        };
        event!(DEBUG, "deploy.decided", app = self.name(), stage = "stage", commit = facts.commit.as_str(); "{}", plan.why);
        Ok(Staged { facts })
    }

    pub fn place(&self) -> Place {
        place(self.app)
    }

    /// Whether poller never wrote to the target: a new app, or one whose directory or layout was changed.
    pub fn is_new_here(&self) -> bool {
        is_new_here(self.app, &self.journal.state)
    }

    /// The tree to stage: all of it for a release; in place, whatever may differ from what is live.
    pub fn tree(&self, commit: Option<Commit>, subdir: Option<String>) -> StreamTree {
        let state = &self.journal.state;
        let mut bases = Vec::new();
        if self.is_in_place() && !self.is_new_here() {
            // Forced, or a first deploy to here that did not end: every file is written, wherever it may be now.
            let is_elsewhere = state.deployed.as_ref().is_none_or(|d| d.place != self.place());
            if is_elsewhere || self.force == Force::Yes {
                bases.push(None);
            }
            bases.extend(state.deployed.iter().map(|d| Some(d.published())));
            bases.extend(state.stray.iter().cloned().map(Some));
        }
        StreamTree { commit, subdir, shared: shared(self.app), bases, base: self.base() }
    }

    /// The release that has most of what the next one will have.
    fn base(&self) -> Option<Base> {
        let deployed = self.journal.state.deployed.as_ref().filter(|d| d.place == self.place())?;
        Some(Base { release: deployed.release.clone()?, published: deployed.published() })
    }

    /// Puts it on record. When that fails, what was staged goes: a disk that is full must not get fuller.
    pub fn begin(&mut self, staged: Staged) -> Result<Begun> {
        let release = staged.facts.release.clone();
        let begun = self.put_on_record(staged);
        if begun.is_err() {
            self.retire(release);
        }
        begun
    }

    pub fn put_on_record(&mut self, staged: Staged) -> Result<Begun> {
        self.ensure_log()?;
        let facts = staged.facts;
        let (reference, who) = (facts.reference.as_str(), self.context.who.as_str());
        let former = record::interrupted(&self.journal.state, self.deployed(), reference, who);
        if let Some((state, run)) = former {
            self.append(state, run, Vec::new())?;
        }
        let before = self.journal.state.clone();
        let state = record::begun(&before, &facts);
        let run = record::run(&facts, self.deployed(), None, now(), self.ms.clone());
        self.append(state, run, Vec::new())?;
        event!(INFO, "deploy.started", app = self.name(), stage = "deploy", commit = facts.commit.as_str(), previous = self.deployed().map(Commit::as_str), kind = facts.kind.word(); "deploying {}", facts.commit.short());
        Ok(Begun { facts, before })
    }
}
