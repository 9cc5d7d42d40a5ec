//! What an app's journal remembers: `state.toml` and `run.toml` of an entry.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::commit::Commit;
use crate::config::Layout;

/// `state.toml`: where the app stands after an entry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// What went well last and is live, unless `started` says that something was begun since.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deployed: Option<Deployed>,
    /// What went well before that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous: Option<Deployed>,
    /// The commit that was tried last and failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<Failed>,
    /// The commit that `verify` would not have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refused>,
    /// A commit that changed nothing of interest (`[source] paths`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skipped: Option<Skipped>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frozen: Option<Frozen>,
    /// A tip that has yet to stand long enough (`[source] soak`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seen: Option<Seen>,
    /// Set while a deploy runs. Found by a later run, it means that poller was killed in the middle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<Started>,
    /// What may be live, in whole or in part, besides `deployed`: begun and not ended, or kept after a
    /// failure. Empty when what is live is exactly what is deployed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stray: Vec<Published>,
    /// Where the newest deploy was begun, if it did not go well: files of it may be there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub touched: Option<Place>,
}

impl State {
    /// What a rollback by hand was on its way to when it was cut short.
    pub fn unfinished_rollback(&self) -> Option<Published> {
        let started = self.started.as_ref().filter(|s| s.kind == Kind::Rollback)?;
        let known = self.stray.iter().rev().find(|p| p.commit == started.commit).cloned();
        Some(known.unwrap_or(Published { commit: started.commit.clone(), subdir: None }))
    }
}

/// A commit, and which part of it was published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    pub commit: Commit,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subdir: Option<String>,
}

/// Where and how an app is published; another place is another target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub directory: PathBuf,
    pub layout: Layout,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployed {
    pub commit: Commit,
    /// The name under `releases/`; absent with the layout `in-place`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    pub at: Timestamp,
    pub run: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subdir: Option<String>,
    pub place: Place,
}

impl Deployed {
    pub fn published(&self) -> Published {
        Published { commit: self.commit.clone(), subdir: self.subdir.clone() }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    pub commit: Commit,
    /// How often it was tried; a script that said "not now" (75) or was interrupted does not count.
    pub attempts: u32,
    pub since: Timestamp,
    pub reason: String,
    /// Left in `releases/` for a look until the next attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    pub commit: Commit,
    pub reason: String,
    pub since: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    pub commit: Commit,
    /// The patterns that it was held against: other patterns, another look.
    pub paths: Vec<String>,
    pub since: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frozen {
    pub by: String,
    pub reason: String,
    pub since: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

impl Frozen {
    /// Whether it still holds.
    pub fn holds(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    pub tip: Commit,
    pub since: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    pub commit: Commit,
    #[serde(default)]
    pub kind: Kind,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    pub at: Timestamp,
    pub run: String,
    /// Whether an entry says how it ended; a run that was killed could not write one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub told: bool,
}

/// What an entry is about. The first three are the words that a script sees as `POLLER_REASON`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    #[default]
    Deploy,
    Retry,
    Rollback,
    Refusal,
    Skip,
    /// A tip was seen for the first time that has to stand for a while.
    Soak,
    Freeze,
    Unfreeze,
    Adopt,
}

impl Kind {
    pub fn word(self) -> &'static str {
        match self {
            Kind::Deploy => "deploy",
            Kind::Retry => "retry",
            Kind::Rollback => "rollback",
            Kind::Refusal => "refusal",
            Kind::Skip => "skip",
            Kind::Soak => "soak",
            Kind::Freeze => "freeze",
            Kind::Unfreeze => "unfreeze",
            Kind::Adopt => "adopt",
        }
    }
}

/// How an entry's run ended, or that it has not yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ending {
    Started,
    Deployed,
    Failed,
    /// The script said 75, "not now".
    Deferred,
    Interrupted,
    Refused,
    Skipped,
    /// Input or output on this machine, after the deploy had begun.
    Error,
    /// What was asked for by hand, such as a freeze, is so now.
    Done,
}

impl Ending {
    pub fn word(self) -> &'static str {
        match self {
            Ending::Started => "started",
            Ending::Deployed => "deployed",
            Ending::Failed => "failed",
            Ending::Deferred => "deferred",
            Ending::Interrupted => "interrupted",
            Ending::Refused => "refused",
            Ending::Skipped => "skipped",
            Ending::Error => "error",
            Ending::Done => "done",
        }
    }
}

/// `run.toml`: what this entry is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// UUIDv7, the same in the log.
    pub id: String,
    pub kind: Kind,
    pub outcome: Ending,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Commit>,
    /// None where it is about no commit: a freeze before the first deploy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Commit>,
    #[serde(rename = "ref")]
    pub reference: String,
    pub who: String,
    pub started: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<Timestamp>,
    /// Of the command that decided the outcome.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Why somebody did it, in that person's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Milliseconds a stage took.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ms: BTreeMap<String, u64>,
}
