//! The reader: tells commands what journals say, as the fetch user. It asks no server.

use std::path::Path;

use anyhow::Result;

use super::messages::{Past, ReaderReply, ReaderRequest};
use super::wire;
use crate::journal::state::Run;
use crate::journal::{self, Told};
use crate::outcome::{Class, Failure};
use crate::report::printable;
use crate::sys::cage::{Cage, Outside, Reading};
use crate::sys::limits::Limits;

/// How much of a history fits into one message, with room to spare for how JSON writes it.
const FILLED: usize = 4 << 20;
/// How many runs a mistaken id is answered with.
const EXAMPLES: usize = 5;
/// The length of a run's id.
const WHOLE: usize = 36;

pub fn run() -> Result<()> {
    let mut input = std::io::stdin().lock();
    let mut is_caged = false;
    while let Some(request) = wire::receive::<ReaderRequest>(&mut input)? {
        if !std::mem::replace(&mut is_caged, true) {
            close_cage(&request)?;
        }
        let reply = answer(request).map_err(Failure::of);
        wire::send(&mut std::io::stdout().lock(), &reply)?;
    }
    Ok(())
}

/// Leaves the repositories of the first request to read. Nobody asks for others later.
fn close_cage(request: &ReaderRequest) -> Result<()> {
    let repositories: Vec<&Path> = match request {
        ReaderRequest::Journals(apps) => apps.iter().map(|(_, repository)| repository.as_path()).collect(),
        ReaderRequest::History { repository, .. } | ReaderRequest::Output { repository, .. } => vec![repository],
    };
    Limits::SMALL.impose()?;
    Cage { read: Reading::Beneath(&repositories), write: &[], remove: None, outside: Outside::Settled }.enter()
}

fn answer(request: ReaderRequest) -> Result<ReaderReply> {
    match request {
        ReaderRequest::Journals(apps) => {
            let read = |(app, repository): (String, _)| journal::read(repository, &app).map_err(Failure::of);
            Ok(ReaderReply::Journals(apps.iter().map(|(app, path)| read((app.clone(), path.as_path()))).collect()))
        }
        ReaderRequest::History { app, repository, limit } => {
            let (mut all, mut bytes) = (Vec::new(), 0);
            journal::history(&repository, &app, |told| {
                bytes += weight(&told.run);
                all.push(past(told));
                all.len() < limit && bytes < FILLED
            })?;
            Ok(ReaderReply::History(all))
        }
        ReaderRequest::Output { app, repository, run: None } => newest_output(&app, &repository),
        ReaderRequest::Output { app, repository, run: Some(beginning) } => output_of(&app, &repository, &beginning),
    }
}

/// About how many bytes a run takes in a message.
fn weight(run: &Run) -> usize {
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    1000 + text(&run.error) + text(&run.reason) + run.ms.len() * 20
}

/// The newest run that said anything; where none did, the newest.
fn newest_output(app: &str, repository: &Path) -> Result<ReaderReply> {
    let (mut found, mut newest) = (None, None);
    journal::history(repository, app, |told| {
        if let Some(output) = told.output().transpose() {
            found = Some((past(told), output));
        } else if newest.is_none() {
            newest = Some((past(told), Ok(Vec::new())));
        }
        found.is_none()
    })?;
    match found.or(newest) {
        Some((past, output)) => Ok(ReaderReply::Output { past: Box::new(past), output: output? }),
        None => Err(Failure::new(Class::Usage, format!("{app} was never deployed, so nothing was said yet"))
            .help(format!("what keeps it: poller status {app}"))
            .into()),
    }
}

fn output_of(app: &str, repository: &Path, beginning: &str) -> Result<ReaderReply> {
    let beginning = beginning.to_ascii_lowercase();
    let mut found: Option<(Past, Result<Option<Vec<u8>>>)> = None;
    let (mut like_it, mut newest) = (Vec::new(), Vec::new());
    journal::history(repository, app, |told| {
        if newest.len() < EXAMPLES {
            newest.push(example(&told.run));
        }
        let is_known = found.as_ref().is_some_and(|(past, _)| past.run.id == told.run.id);
        if told.run.id.starts_with(&beginning) && !is_known {
            like_it.push(example(&told.run));
            if found.is_none() {
                let output = told.output();
                found = Some((past(told), output));
            }
        }
        let is_found = beginning.len() == WHOLE && found.is_some();
        !is_found && like_it.len() < EXAMPLES
    })?;
    let shown = printable(&beginning);
    match found {
        Some((past, output)) if like_it.len() == 1 => {
            Ok(ReaderReply::Output { past: Box::new(past), output: output?.unwrap_or_default() })
        }
        Some(_) => {
            let failure =
                Failure::new(Class::Usage, format!("`{shown}` is the beginning of more than one run of {app}"));
            Err(like_it.into_iter().fold(failure, Failure::help).into())
        }
        None if newest.is_empty() => {
            Err(Failure::new(Class::Usage, format!("{app} has no run `{shown}`, nor any other"))
                .help(format!("what keeps it: poller status {app}"))
                .into())
        }
        None => {
            let failure = Failure::new(Class::Usage, format!("{app} has no run `{shown}`"));
            let failure = newest.into_iter().fold(failure.help("its newest ones:"), Failure::help);
            Err(failure.help(format!("all of them: poller history {app}")).into())
        }
    }
}

/// A run as one of those that could have been meant.
fn example(run: &Run) -> String {
    format!("{}  {:.0}  {} {}", run.id, run.started, run.kind.word(), run.outcome.word())
}

fn past(told: Told) -> Past {
    Past { run: told.run, deployed: told.state.deployed, previous: told.state.previous }
}
