//! `poller freeze` and `poller unfreeze`: an app stays as it is, whatever is pushed, until somebody lifts it.
//!
//! The freeze is an entry of the journal, so it outlives reboots, and says who did it and why.

use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;
use serde_json::json;

use super::setting::{self, Desk, Trail};
use crate::cli::Common;
use crate::config::App;
use crate::journal::state::{Ending, Frozen, Kind, State};
use crate::outcome::{Class, Failure};
use crate::processes::supervisor;
use crate::report::printable;
use crate::report::terminal::{print, print_json};
use crate::road::note::Note;

pub fn freeze(common: &Common, app: &str, reason: &str, time: Option<Duration>) -> u8 {
    setting::run(|_| {
        let reason = reason.trim();
        if reason.is_empty() {
            return Err(Failure::new(Class::Usage, "a freeze without a reason is a riddle for whoever comes next")
                .help("--reason \"what we wait for\"")
                .into());
        }
        let config = supervisor::load(common.config.as_deref())?;
        let app = setting::one(&config, app)?;
        let desk = Desk::open(common, &config, &format!("freeze {} --reason …", app.name))?;
        let now = Timestamp::now();
        let until = time.map(|time| now.checked_add(time)).transpose()?;
        let frozen = Frozen { by: desk.context.who.clone(), reason: printable(reason), since: now, until };
        let mut unfinished = None;
        change(&desk, app, "freeze", |state| {
            unfinished = state.started.clone();
            match state.frozen.as_ref().filter(|f| f.holds(now)) {
                Some(before) => Err(already(app.name.as_str(), before)),
                None => Ok(Some(Note {
                    kind: Kind::Freeze,
                    outcome: Ending::Done,
                    state: State { frozen: Some(frozen.clone()), ..state.clone() },
                    reason: Some(frozen.reason.clone()),
                })),
            }
        })?;
        let until = frozen.until.map_or_else(|| "until poller unfreeze".to_owned(), |t| format!("until {t:.0}"));
        let text = format!("frozen {until}, by {}: {}", frozen.by, frozen.reason);
        let name = &app.name;
        let text = match &unfinished {
            Some(started) => format!(
                "{text}\n  a run was killed while it deployed {}, and what is live may be half of it: poller rollback {name}, or unfreeze it",
                started.commit.short()
            ),
            None => text,
        };
        tell(common, app, "frozen", &text, &json!({ "frozen": frozen, "unfinished": unfinished }));
        Ok(0)
    })
}

pub fn unfreeze(common: &Common, app: &str) -> u8 {
    setting::run(|_| {
        let config = supervisor::load(common.config.as_deref())?;
        let app = setting::one(&config, app)?;
        let desk = Desk::open(common, &config, &format!("unfreeze {}", app.name))?;
        let (mut before, mut next) = (None, "deploys what is new");
        change(&desk, app, "unfreeze", |state| {
            before = state.frozen.clone();
            if state.started.as_ref().is_some_and(|started| started.kind == Kind::Rollback) {
                next = "first carries the rollback through that was cut short";
            }
            Ok(before.as_ref().map(|before| Note {
                kind: Kind::Unfreeze,
                outcome: Ending::Done,
                state: State { frozen: None, ..state.clone() },
                reason: Some(before.reason.clone()),
            }))
        })?;
        let text = match &before {
            Some(before) => format!(
                "no longer frozen (it was by {} since {:.0}: {}); the next poll {next}",
                before.by, before.since, before.reason
            ),
            None => "was not frozen; nothing was changed".to_owned(),
        };
        tell(common, app, "unfrozen", &text, &json!({ "was": before }));
        Ok(0)
    })
}

fn already(app: &str, before: &Frozen) -> Failure {
    let until = before.until.map(|t| format!(" until {t:.0}")).unwrap_or_default();
    Failure::new(
        Class::Usage,
        format!("{app} is frozen already, by {} since {:.0}{until}: {}", before.by, before.since, before.reason),
    )
    .help(format!("to freeze it for another reason or time: poller unfreeze {app}, then freeze it again"))
}

/// Reads where the app stands, and records what `decide` makes of it, with the app's lock held.
fn change(
    desk: &Desk,
    app: &App,
    command: &'static str,
    decide: impl FnOnce(&State) -> Result<Option<Note>, Failure>,
) -> Result<()> {
    let (mut lock, mut trail) = (desk.lock(app)?, Trail::default());
    let mut road = desk.road(app, &mut lock, &mut trail)?;
    let Some(note) = decide(&road.journal.state)? else { return Ok(()) };
    let text = note.reason.clone().unwrap_or_default();
    road.write_down(note)?;
    road.on_record(command, &text);
    Ok(())
}

fn tell(common: &Common, app: &App, what: &str, text: &str, more: &serde_json::Value) {
    if common.json {
        let mut json = json!({ "schema": 1, "app": app.name.as_str(), "done": what });
        if let (Some(json), Some(more)) = (json.as_object_mut(), more.as_object()) {
            json.extend(more.clone());
        }
        print_json(&json);
    } else {
        print(&format!("{}: {text}\n", app.name));
    }
}
