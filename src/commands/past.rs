//! What `history` and `log` share: which app is meant, and a run in words.

use anyhow::{Context, Result};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::setting;
use crate::cli::Common;
use crate::commit::Commit;
use crate::config::{App, Config};
use crate::journal::state::{Ending, Run};
use crate::outcome::{Class, Failure};
use crate::processes::messages::{ReaderReply, ReaderRequest};
use crate::processes::preparation::Preparation;
use crate::processes::supervisor;
use crate::stages::lock::{self, Content};

/// The configuration, for somebody who may look at runs.
pub fn admitted(common: &Common, command: &str) -> Result<Config> {
    let config = supervisor::load(common.config.as_deref())?;
    setting::admit(&config, command)?;
    Ok(config)
}

/// The app whose past is asked for. It is found by the URL in its file, so there is none without one.
pub fn app<'c>(config: &'c Config, name: &str) -> Result<&'c App> {
    setting::one(config, name).map_err(|e| {
        let failure = Failure::of(e);
        let help = match failure.class {
            Class::Config => "its journal is found by the URL in that file: mend it first".to_owned(),
            Class::Usage if !failure.help.iter().any(|line| line.starts_with("did you mean")) => format!(
                "of an app whose file is gone, the journal is still in {}; to see it, put the file back",
                config.paths.state.display()
            ),
            _ => return failure.into(),
        };
        failure.help(help).into()
    })
}

pub fn ask(
    config: &Config,
    app: &App,
    request: impl FnOnce(String, std::path::PathBuf) -> ReaderRequest,
) -> Result<ReaderReply> {
    let repository = Preparation::new(config)?.repository(app).context("the place of the journal")?;
    setting::read(config, &request(app.name.as_str().to_owned(), repository))
}

/// Who is at work on the app now.
pub fn holder(config: &Config, app: &App) -> Option<Content> {
    lock::holder(&lock::path(&config.paths.run, app.name.as_str()))
}

/// How a run ended, in a word. An entry without an end is a run that is at work, or that was killed.
pub fn outcome(run: &Run, holder: Option<&Content>) -> &'static str {
    match run.outcome {
        Ending::Started if holder.is_some_and(|holder| holder.run == run.id) => "running",
        Ending::Started => Ending::Interrupted.word(),
        ending => ending.word(),
    }
}

/// `nothing → fe05e4b08b`; the one commit where nothing moved.
pub fn route(run: &Run) -> String {
    let short = |commit: &Option<Commit>| commit.as_ref().map_or("nothing", Commit::short).to_owned();
    let (from, to) = (short(&run.from), short(&run.to));
    if run.from == run.to { to } else { format!("{from} → {to}") }
}

/// How long its stages took, in seconds; None where it had none.
pub fn took(run: &Run) -> Option<f64> {
    let milliseconds: u64 = run.ms.values().sum();
    let is_over = run.outcome != Ending::Started && !run.ms.is_empty();
    is_over.then_some(milliseconds as f64 / 1000.0)
}

/// To the second, in UTC.
pub fn time(at: Timestamp) -> String {
    format!("{at:.0}")
}

pub fn as_json(run: &Run, holder: Option<&Content>) -> Value {
    json!({
        "run": run.id,
        "kind": run.kind.word(),
        "outcome": outcome(run, holder),
        "from": run.from,
        "to": run.to,
        "ref": Some(&run.reference).filter(|reference| !reference.is_empty()),
        "who": run.who,
        "started": run.started,
        "ended": run.ended,
        "seconds": took(run),
        "ms": run.ms,
        "exit": run.exit,
        "error": run.error,
        "reason": run.reason,
    })
}
