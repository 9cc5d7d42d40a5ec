//! Entries that no deploy makes: a freeze, an adoption, whatever a person decides.

use anyhow::Result;

use super::{Road, now};
use crate::event;
use crate::journal::state::{Ending, Kind, Run, State};

/// What is to be written down.
pub struct Note {
    pub kind: Kind,
    pub outcome: Ending,
    pub state: State,
    /// Why, in the words of whoever did it.
    pub reason: Option<String>,
}

impl Road<'_> {
    pub fn write_down(&mut self, note: Note) -> Result<()> {
        self.enter("record")?;
        let at = now();
        let from = self.deployed().cloned();
        let to = note.state.deployed.as_ref().map(|d| d.commit.clone());
        let run = Run {
            id: self.context.run.clone(),
            kind: note.kind,
            outcome: note.outcome,
            from,
            to,
            reference: String::new(),
            who: self.context.who.clone(),
            started: at,
            ended: Some(at),
            exit: None,
            error: None,
            reason: note.reason,
            ms: Default::default(),
        };
        self.append(note.state, run, Vec::new())
    }

    /// A line in the log about what a person did.
    pub fn on_record(&self, what: &'static str, text: &str) {
        event!(INFO, "operator.noted", app = self.name(), stage = "record", command = what, who = self.context.who.as_str(); "{text}");
    }
}
