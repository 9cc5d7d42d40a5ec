//! The stages as the supervisor drives them: what is asked of which process, and what follows.
//!
//! `pipeline.rs` puts them in order; each type here is what one stage hands to the next.

pub mod adopt;
pub mod back;
mod live;
pub mod note;
pub mod prepare;
mod settle;

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::Result;
use jiff::Timestamp;

use crate::commit::Commit;
use crate::config::{App, Layout};
use crate::event;
use crate::journal::state::{Kind, Run, State};
use crate::journal::{Entry, Journal};
use crate::outcome::{Class, Failure, Outcome};
use crate::processes::messages::{Origin, Signers, Verified as Findings};
use crate::processes::output::Output;
use crate::processes::workshop::Workshop;
use crate::report::log::Health as LogHealth;
use crate::report::terminal::Console;
use crate::stages::decide::{Force, Policy, Why};
use crate::stages::lock::Lock;
use crate::stages::record::Facts;
use crate::sys::account::Account;
use crate::sys::signals::Stop;

/// What all apps of a run share.
pub struct Context {
    pub run: String,
    pub host: String,
    pub asked_by: AskedBy,
    /// Who started this run, for the journal.
    pub who: String,
    pub fetch_account: Option<Account>,
    pub stop: Stop,
    pub console: Console,
    pub log: LogHealth,
    pub log_path: std::path::PathBuf,
    pub is_root: bool,
}

/// Whether somebody waits for the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskedBy {
    /// Cron or a timer: what was told before is not told again.
    Schedule,
    /// A person who wants something done: a failure is told, known or not.
    Person,
}

/// One app on its way.
pub struct Road<'r> {
    pub context: &'r Context,
    pub app: &'r App,
    /// Who the scripts run as: the deploy user, or whoever started an unprivileged poller.
    pub account: Account,
    /// None for what is done without asking the server.
    pub origin: Option<Origin>,
    /// Whose signatures count; none for what is done without asking the server.
    pub signers: Option<Signers>,
    pub force: Force,
    pub lock: &'r mut Lock,
    pub journal: Journal,
    pub shop: Workshop<'r>,
    /// What the commands of this run said, for the journal and the report.
    pub output: &'r mut Output,
    pub ms: &'r mut BTreeMap<String, u64>,
    /// Where the journal stands at the end, for whoever reports.
    pub state: &'r mut Option<State>,
    /// Whether the repository wants to be tended when all is done.
    pub untidy: &'r mut bool,
}

pub enum Decided {
    Go(Plan),
    /// A rollback by hand that was cut short is to be carried through.
    Back(Box<back::Goal>),
    Stay(Outcome),
}

/// What came of a fetch.
pub enum Arrived {
    Go(Fetched),
    /// It is not what was asked about, and is not to be deployed.
    Stay(Outcome),
}

/// A deploy is to be made.
pub struct Plan {
    kind: Kind,
    why: Why,
    tip: crate::processes::messages::Tip,
}

/// Its objects are here.
pub struct Fetched {
    plan: Plan,
    commit: Commit,
}

pub enum Judged {
    Publish(Box<Verified>),
    Leave(Outcome),
}

/// It may be published.
pub struct Verified {
    plan: Plan,
    commit: Commit,
    findings: Findings,
}

/// It is on the target's disk, under a name of its own.
pub struct Staged {
    facts: Facts,
}

/// The journal knows that it was begun.
pub struct Begun {
    facts: Facts,
    /// The state from before, which is what a failure goes back to.
    before: State,
}

/// What stopped a deploy that was begun.
#[derive(Debug)]
pub struct Setback {
    pub failure: Failure,
    pub exit: Option<i32>,
    /// How far it came.
    pub reached: Reached,
    pub cause: SetbackCause,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    /// Nothing live was changed.
    Build,
    /// The commit is live, or in part.
    Live,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetbackCause {
    /// The commit's own doing.
    Commit,
    /// The script said 75.
    NotNow,
    /// poller was told to stop.
    Stopped,
    /// This machine's.
    Machine,
}

impl Road<'_> {
    fn name(&self) -> &str {
        self.app.name.as_str()
    }

    fn policy(&self) -> Policy<'_> {
        Policy::of(self.app, self.force, self.lock.content.waited())
    }

    fn deployed(&self) -> Option<&Commit> {
        self.journal.state.deployed.as_ref().map(|d| &d.commit)
    }

    fn is_in_place(&self) -> bool {
        self.app.target.layout == Layout::InPlace
    }

    /// Says on a terminal and in the lock file which stage is reached.
    fn enter(&mut self, stage: &'static str) -> Result<()> {
        self.lock.enter(stage)?;
        self.context.console.progress(self.app.name.as_str(), stage);
        Ok(())
    }

    /// Runs a stage and keeps how long it took.
    fn timed<T>(&mut self, stage: &str, work: impl FnOnce(&mut Self) -> T) -> T {
        let start = Instant::now();
        let result = work(self);
        let taken = start.elapsed().as_millis() as u64;
        *self.ms.entry(stage.to_owned()).or_default() += taken;
        result
    }

    /// Before anything live changes: a deploy that nobody could read about is not made.
    fn ensure_log(&self) -> Result<()> {
        match self.context.log.error() {
            None => Ok(()),
            Some(e) => Err(Failure::new(
                Class::Io,
                format!("the log {} cannot be written: {e}", self.context.log_path.display()),
            )
            .help("nothing was deployed; make room or mend the log, the next run goes on")
            .into()),
        }
    }

    fn append(&mut self, state: State, run: Run, output: Vec<u8>) -> Result<()> {
        let entry = Entry {
            expected: self.journal.head.clone(),
            state: state.clone(),
            author: run.who.clone(),
            host: self.context.host.clone(),
            run,
            output,
        };
        let (head, untidy) = self.shop.record(entry)?;
        *self.untidy = untidy;
        *self.state = Some(state.clone());
        self.journal = Journal { head: Some(head), state };
        Ok(())
    }

    fn warn(&self, stage: &'static str, warnings: &[String]) {
        for text in warnings {
            event!(WARN, "deploy.warning", app = self.name(), stage = stage; "{text}");
        }
    }
}

fn now() -> Timestamp {
    Timestamp::now()
}
