//! The reader: tells commands what journals say, as the fetch user. It asks no server.

use anyhow::{Result, bail};

use super::messages::{Past, ReaderReply, ReaderRequest};
use super::wire;
use crate::journal::{self, Told};
use crate::outcome::{Class, Failure};
use crate::report::printable;

pub fn run() -> Result<()> {
    let mut input = std::io::stdin().lock();
    while let Some(request) = wire::receive::<ReaderRequest>(&mut input)? {
        let reply = answer(request).map_err(Failure::of);
        wire::send(&mut std::io::stdout().lock(), &reply)?;
    }
    Ok(())
}

fn answer(request: ReaderRequest) -> Result<ReaderReply> {
    match request {
        ReaderRequest::Journals(apps) => {
            let read = |(app, repository): (String, _)| journal::read(repository, &app).map_err(Failure::of);
            Ok(ReaderReply::Journals(apps.iter().map(|(app, path)| read((app.clone(), path.as_path()))).collect()))
        }
        ReaderRequest::History { app, repository, limit } => {
            let mut all = Vec::new();
            journal::history(&repository, &app, |told| {
                all.push(past(told));
                all.len() < limit
            })?;
            Ok(ReaderReply::History(all))
        }
        ReaderRequest::Output { app, repository, run } => {
            let mut found: Option<(Past, Vec<u8>)> = None;
            let mut ambiguous = None;
            journal::history(&repository, &app, |told| {
                let output = told.output().unwrap_or_default();
                let matches = match &run {
                    Some(prefix) => told.run.id.starts_with(prefix.as_str()),
                    None => !output.is_empty(),
                };
                match &found {
                    _ if !matches => true,
                    None => {
                        found = Some((past(told), output));
                        run.is_some()
                    }
                    Some((first, _)) => {
                        ambiguous = Some((first.run.id.clone(), told.run.id.clone()));
                        false
                    }
                }
            })?;
            if let (Some((one, other)), Some(prefix)) = (ambiguous, &run) {
                let message = format!("`{}` is the beginning of more than one run", printable(prefix));
                return Err(Failure::new(Class::Usage, message).help(format!("for example {one} and {other}")).into());
            }
            match (found, run) {
                (Some((past, output)), _) => Ok(ReaderReply::Output { past, output }),
                (None, Some(prefix)) => bail!(
                    Failure::new(Class::Usage, format!("there is no run `{}` of {app}", printable(&prefix)))
                        .help(format!("the runs there are: poller history {app}"))
                ),
                (None, None) => bail!(
                    Failure::new(Class::Usage, format!("no run of {app} said anything yet"))
                        .help(format!("its runs: poller history {app}"))
                ),
            }
        }
    }
}

fn past(told: Told) -> Past {
    Past { run: told.run, deployed: told.state.deployed, previous: told.state.previous }
}
