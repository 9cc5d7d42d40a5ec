//! Taking over what somebody else published: it is recorded as deployed, and nothing is run or moved.

use anyhow::{Context, Result};

use super::note::Note;
use super::{Road, now};
use crate::commit::Commit;
use crate::config::Layout;
use crate::event;
use crate::journal::state::{Deployed, Ending, Kind, State};
use crate::outcome::{Class, Failure};
use crate::processes::messages::Tip;

/// What came of it.
pub enum Adopted {
    Now(Deployed),
    /// The journal said so already.
    Before(Deployed),
}

impl Road<'_> {
    pub fn adopt(&mut self, tip: &Tip, named: Option<&str>) -> Result<Adopted> {
        self.enter("fetch")?;
        // The history, so that the next commit can be held against the adopted one.
        let origin = self.origin.as_ref().context("a road without an origin")?;
        let (console, app) = (&self.context.console, self.app.name.as_str());
        self.shop.fetch(origin, tip, false, |received, total, bytes| console.transfer(app, received, total, bytes))?;
        self.enter("stage")?;
        let (release, found) = self.shop.live()?;
        if self.app.target.layout == Layout::Releases && release.is_none() {
            return Err(self.no_current().into());
        }
        let commit = match (named, &found) {
            (Some(beginning), _) => self.shop.resolve(beginning)?,
            (None, Some(found)) => self.shop.resolve(found.as_str())?,
            (None, None) => return Err(self.untold().into()),
        };
        if let Some(found) = found.filter(|found| *found != commit) {
            event!(WARN, "adopt.differs", app = self.name(), stage = "stage", commit = commit.as_str(); "the files in the target say {found}");
        }
        let deployed = Deployed {
            commit,
            release,
            at: now(),
            run: self.context.run.clone(),
            subdir: self.app.source.subdir.clone(),
            place: self.place(),
        };
        let state = &self.journal.state;
        if let Some(before) = state.deployed.as_ref().filter(|before| is_same(before, &deployed))
            && state.started.is_none()
            && state.stray.is_empty()
        {
            return Ok(Adopted::Before(before.clone()));
        }
        let state = State {
            deployed: Some(deployed.clone()),
            previous: state.deployed.clone().filter(|d| d.commit != deployed.commit && d.place == deployed.place),
            frozen: state.frozen.clone(),
            seen: state.seen.clone(),
            ..State::default()
        };
        self.write_down(Note { kind: Kind::Adopt, outcome: Ending::Done, state, reason: None })?;
        self.on_record("adopt", &format!("{} is taken for deployed", deployed.commit));
        Ok(Adopted::Now(deployed))
    }

    fn no_current(&self) -> Failure {
        let directory = self.app.target.directory.display();
        Failure::new(
            Class::Usage,
            format!("{directory} has no link `current` that leads into `releases`, so there is no release to adopt"),
        )
        .help("an empty directory needs no adopting: the first poll deploys to it")
        .help("for a folder that holds the files themselves, such as a clone: layout = \"in-place\" in `[target]`")
    }

    fn untold(&self) -> Failure {
        let (directory, name) = (self.app.target.directory.display(), self.name());
        Failure::new(
            Class::Usage,
            format!("nothing in {directory} tells which commit is live: there is no REVISION, and no clone"),
        )
        .help(format!("name the commit: poller adopt {name} COMMIT"))
    }
}

fn is_same(one: &Deployed, other: &Deployed) -> bool {
    let key = |d: &Deployed| -> (Commit, Option<String>, Option<String>) {
        (d.commit.clone(), d.release.clone(), d.subdir.clone())
    };
    key(one) == key(other) && one.place == other.place
}
