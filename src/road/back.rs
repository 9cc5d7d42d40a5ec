//! Going back by hand: to a release that went well before, without asking any server.

use anyhow::Result;

use super::{Begun, Road, Setback, Staged, now};
use crate::event;
use crate::journal::state::{Deployed, Kind, Published};
use crate::outcome::{Class, Failure};
use crate::processes::messages::{StagerReply, StreamTree};
use crate::report::plural;
use crate::stages::record::{self, Back, Facts};

/// Where to, and what is known of that.
#[derive(Clone, Debug)]
pub struct Goal {
    pub good: Deployed,
    /// The ref that it came from, for the script.
    pub reference: String,
    /// None for a rollback that goes on: its freeze is on record since it began.
    pub back: Option<Back>,
}

/// A goal whose files are on the target's disk.
pub struct Returned {
    pub staged: Staged,
    /// Whether they had to be written anew: then they are to be built, too.
    pub anew: bool,
}

impl Road<'_> {
    /// The goal of a rollback that was cut short. Its files are written anew, wherever it came to: a
    /// release that it made itself may not be built.
    pub fn back_to(&self, back: Published, reference: String) -> Goal {
        let good = Deployed {
            commit: back.commit,
            release: None,
            at: now(),
            run: self.context.run.clone(),
            subdir: back.subdir,
            place: self.place(),
        };
        Goal { good, reference, back: None }
    }

    /// The goal of a rollback that was cut short, as far as this run may go on with it.
    pub fn rollback_begun(&self) -> Option<Goal> {
        let back = self.journal.state.unfinished_rollback().filter(|_| self.context.stop.cause().is_none())?;
        Some(self.back_to(back, self.last_reference()))
    }

    /// The ref that the poll before followed, where no server says which one it is.
    pub fn last_reference(&self) -> String {
        self.lock.content.polled.as_ref().and_then(|polled| polled.reference.clone()).unwrap_or_default()
    }

    /// The release as it was left, built and all; where that is gone, the commit's files once more.
    pub fn find(&mut self, goal: &Goal) -> Result<Returned> {
        self.enter("stage")?;
        let began = now();
        let good = &goal.good;
        let place = self.place();
        let mut release = match &good.release {
            Some(name) if good.place == place && self.shop.has_release(name)? => Some(name.clone()),
            _ => None,
        };
        let anew = release.is_none();
        if anew {
            if self.is_new_here() {
                self.shop.inspect()?;
            }
            let name = record::release_name(&good.commit, &self.journal.state, began);
            let tree: StreamTree = self.tree(Some(good.commit.clone()), good.subdir.clone());
            let reply = self.timed("stage", |road| road.shop.stage(&name, tree, Some(&road.context.stop)))?;
            if let StagerReply::Staged { files, warnings, .. } = reply {
                self.warn("stage", &warnings);
                event!(INFO, "stage.finished", app = self.name(), stage = "stage", commit = good.commit.as_str(), files = files, ms = self.ms.get("stage").copied(); "{} written", plural(files as usize, "file"));
            }
            release = (!self.is_in_place()).then_some(name);
        } else {
            // It counts as a deploy from here on, however short this stage was.
            self.ms.insert("stage".to_owned(), 0);
        }
        let facts = Facts {
            run: self.context.run.clone(),
            kind: Kind::Rollback,
            reference: goal.reference.clone(),
            commit: good.commit.clone(),
            release,
            subdir: good.subdir.clone(),
            place,
            who: self.context.who.clone(),
            began,
            back: goal.back.clone(),
        };
        Ok(Returned { staged: Staged { facts }, anew })
    }

    /// Puts it on record; a release that was kept stays even when that fails.
    pub fn begin_again(&mut self, returned: Returned) -> Result<Begun> {
        if returned.anew { self.begin(returned.staged) } else { self.put_on_record(returned.staged) }
    }

    /// Build is for files that were written anew; a release that was kept is built already.
    pub fn build_again(&mut self, begun: &Begun, anew: bool) -> Result<(), Setback> {
        if anew { self.build(begun) } else { Ok(()) }
    }
}

/// What a poll comes to whose server does not answer, and that had a rollback to finish.
pub fn carried_through(mut why: Failure, goal: &Goal) -> Failure {
    let short = goal.good.commit.short();
    why.help.insert(0, format!("live: {short}; the rollback to it had been cut short, and is carried through"));
    why
}

/// What a rollback without a goal comes to.
pub fn nothing_earlier(app: &str) -> Failure {
    Failure::new(
        Class::Usage,
        format!("{app}: nothing earlier that went well is kept, so there is nothing to go back to"),
    )
    .help(format!("what was deployed so far: poller history {app}"))
    .help("to undo a commit, revert it in git and push")
}
