//! `poller log`: what the commands of a run said, and with `--follow` what they are saying.
//!
//! Signals are left as they are: ^C ends a watch as it ends `tail -f`, with 130 in a shell, and the deploy
//! goes on.

use std::io::{ErrorKind, Write};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::follow::Tail;
use super::past::{admitted, app as find, as_json, ask, holder, outcome, route, time, took};
use super::setting;
use crate::cli::Common;
use crate::config::{App, Config};
use crate::journal::state::{Ending, Run};
use crate::outcome::Class;
use crate::processes::messages::{Past, ReaderReply, ReaderRequest};
use crate::report::printable;
use crate::report::terminal::{Console, print, print_json};
use crate::stages::lock::Content;

/// How long to wait before looking again whether more was said.
const PAUSE: Duration = Duration::from_millis(200);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Show,
    /// As long as it runs.
    Follow,
}

pub fn run(common: &Common, name: &str, run: Option<&str>, mode: Mode) -> u8 {
    setting::run(|console| {
        let config = admitted(common, &format!("log {}", printable(name)))?;
        let app = find(&config, name)?;
        let desk = Desk { common, config: &config, app, console };
        let holder = holder(&config, app);
        let (named, live) = match run.map(str::to_ascii_lowercase) {
            None => (None, holder),
            // Named whole, one that has yet to begin its deploy can be waited for.
            Some(id) if holder.as_ref().is_some_and(|holder| holder.run == id) => (Some(id), holder),
            Some(beginning) => {
                let id = desk.output(Some(beginning))?.0.run.id;
                let live = holder.filter(|holder| holder.run == id);
                (Some(id), live)
            }
        };
        if let Some(holder) = live {
            let told = match mode {
                Mode::Follow => desk.follow(&holder)?,
                Mode::Show => desk.show_so_far(&holder)?,
            };
            if let Some(code) = told {
                return Ok(code);
            }
        }
        let (past, output) = desk.output(named)?;
        desk.show(&past.run, &output);
        if mode == Mode::Follow {
            let at = time(past.run.started);
            console.say(&format!("no deploy of {} is going on; this was the run of {at}", app.name));
        }
        Ok(0)
    })
}

/// What a look at an app's runs needs.
struct Desk<'a> {
    common: &'a Common,
    config: &'a Config,
    app: &'a App,
    console: &'a Console,
}

impl Desk<'_> {
    fn output(&self, run: Option<String>) -> Result<(Past, Vec<u8>)> {
        match ask(self.config, self.app, |app, repository| ReaderRequest::Output { app, repository, run })? {
            ReaderReply::Output { past, output } => Ok((*past, output)),
            _ => bail!("the reader answered another question"),
        }
    }

    /// The deploy that this holder of the lock is at, once its begin is on record.
    fn deploy_of(&self, holder: &Content) -> Result<Option<Run>> {
        let newest = |app, repository| ReaderRequest::History { app, repository, limit: 1 };
        match ask(self.config, self.app, newest)? {
            ReaderReply::History(mut all) => {
                let run = all.pop().map(|past| past.run);
                Ok(run.filter(|run| run.id == holder.run && run.outcome == Ending::Started))
            }
            _ => bail!("the reader answered another question"),
        }
    }

    fn is_at_it(&self, former: &Content) -> bool {
        holder(self.config, self.app).is_some_and(|now| now.run == former.run)
    }

    fn show(&self, run: &Run, output: &[u8]) {
        let text = String::from_utf8_lossy(output);
        if self.common.json {
            return self.show_json(run, None, &text);
        }
        print(&header(run, None));
        let lines: String = text.lines().map(|line| format!("{}\n", shown(line))).collect();
        print(&lines);
        if output.is_empty() {
            self.console.say("its commands said nothing, or it ran none");
        }
    }

    fn show_json(&self, run: &Run, holder: Option<&Content>, output: &str) {
        let mut document = json!({ "schema": 1, "app": self.app.name.as_str() });
        if let (Some(document), Some(run)) = (document.as_object_mut(), as_json(run, holder).as_object()) {
            document.extend(run.clone());
            document.insert("output".to_owned(), output.into());
        }
        print_json(&document);
    }

    /// What a deploy that is going on said up to now. None when the holder is not deploying.
    fn show_so_far(&self, holder: &Content) -> Result<Option<u8>> {
        let mut tail = Tail::open(&self.config.paths.log, self.app.name.as_str(), &holder.run)?;
        let Some(run) = self.deploy_of(holder)? else {
            return Ok(None);
        };
        tail.read()?;
        let lines = tail.take_lines();
        if self.common.json {
            let output: String = lines.iter().map(|line| format!("{line}\n")).collect();
            self.show_json(&run, Some(holder), &output);
            return Ok(Some(0));
        }
        print(&header(&run, Some(holder)));
        print(&lines.iter().map(|line| format!("{}\n", shown(line))).collect::<String>());
        self.console.say(&format!("it is going on; watch it: poller log {} --follow", self.app.name));
        Ok(Some(0))
    }

    /// Prints what a run says as it comes, to its end. None when it ends without a deploy.
    fn follow(&self, holder: &Content) -> Result<Option<u8>> {
        let mut tail = Tail::open(&self.config.paths.log, self.app.name.as_str(), &holder.run)?;
        tail.read()?;
        if tail.has_ended() {
            // Done here, and at work for another app.
            return Ok(None);
        }
        while !tail.has_begun() {
            // Asked before the log is read: what is not there then will not come.
            let is_at_it = self.is_at_it(holder);
            tail.read()?;
            if !tail.has_begun() && !is_at_it {
                return self.already_over(holder);
            }
            if !tail.has_begun() {
                std::thread::sleep(PAUSE);
            }
        }
        let Some(run) = self.deploy_of(holder)? else {
            return self.already_over(holder);
        };
        if !self.common.json && put(&header(&run, Some(holder)))?.is_gone() {
            return Ok(Some(0));
        }
        loop {
            let is_at_it = self.is_at_it(holder);
            tail.read()?;
            let lines: String = tail.take_lines().iter().map(|line| format!("{}\n", shown(line))).collect();
            if !self.common.json && put(&lines)?.is_gone() {
                return Ok(Some(0));
            }
            if tail.has_ended() || !is_at_it {
                break;
            }
            std::thread::sleep(PAUSE);
        }
        self.end(holder).map(Some)
    }

    /// A deploy that ended between two looks, or whose log is gone: told from the journal. None when the
    /// holder did not deploy.
    fn already_over(&self, holder: &Content) -> Result<Option<u8>> {
        // A freeze may have come after it.
        let newest = |app, repository| ReaderRequest::History { app, repository, limit: 10 };
        let ReaderReply::History(all) = ask(self.config, self.app, newest)? else {
            bail!("the reader answered another question");
        };
        let is_deploy = |ending| !matches!(ending, Ending::Refused | Ending::Skipped | Ending::Done);
        if !all.iter().any(|past| past.run.id == holder.run && is_deploy(past.run.outcome)) {
            return Ok(None);
        }
        let (past, output) = self.output(Some(holder.run.clone()))?;
        self.show(&past.run, &output);
        if !self.common.json {
            self.console.say(&format!("{}: {}", self.app.name, ending(&past.run)));
        }
        Ok(Some(code(past.run.outcome)))
    }

    /// Tells how a run ended that was followed.
    fn end(&self, holder: &Content) -> Result<u8> {
        let (past, output) = loop {
            let is_at_it = self.is_at_it(holder);
            let (past, output) = self.output(Some(holder.run.clone()))?;
            if past.run.outcome != Ending::Started || !is_at_it {
                break (past, output);
            }
            std::thread::sleep(PAUSE);
        };
        if self.common.json {
            self.show_json(&past.run, None, &String::from_utf8_lossy(&output));
        } else {
            self.console.say(&format!("{}: {}", self.app.name, ending(&past.run)));
        }
        Ok(code(past.run.outcome))
    }
}

/// The exit code of a watch, for how the run ended.
fn code(ending: Ending) -> u8 {
    match ending {
        Ending::Deployed | Ending::Deferred | Ending::Skipped | Ending::Done => 0,
        Ending::Error => Class::Io.exit_code(),
        Ending::Refused => Class::Refused.exit_code(),
        // Without an end on record it was killed.
        Ending::Failed | Ending::Interrupted | Ending::Started => Class::Deploy.exit_code(),
    }
}

/// Whether anybody still reads.
enum Reader {
    There,
    Gone,
}

impl Reader {
    fn is_gone(&self) -> bool {
        matches!(self, Reader::Gone)
    }
}

/// Writes at once. A reader that has seen enough ends the watch.
fn put(text: &str) -> Result<Reader> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(Reader::Gone),
        written => written.map(|()| Reader::There).context("standard output"),
    }
}

/// A line of output, fit for a terminal.
fn shown(line: &str) -> String {
    printable(line.trim_end_matches('\r'))
}

fn header(run: &Run, holder: Option<&Content>) -> String {
    let mut text = String::new();
    let mut line = |key: &str, value: &str| text.push_str(&format!("{key:<8} {}\n", printable(value)));
    line("run", &run.id);
    let of = if run.reference.is_empty() { String::new() } else { format!(" of {}", run.reference) };
    line(run.kind.word(), &format!("{}{of}", route(run)));
    let mut how = outcome(run, holder).to_owned();
    if let Some(seconds) = took(run) {
        how.push_str(&format!(" after {seconds:.1} s"));
    }
    if let Some(exit) = run.exit.filter(|exit| *exit != 0) {
        how.push_str(&format!(", exit status {exit}"));
    }
    line("outcome", &how);
    line("by", &format!("{}, {}", run.who, time(run.started)));
    run.reason.iter().for_each(|reason| line("reason", reason));
    for error in run.error.iter().flat_map(|error| error.lines()) {
        line("error", error);
    }
    text.push('\n');
    text
}

fn ending(run: &Run) -> String {
    let to = run.to.as_ref().map_or("nothing", |to| to.short());
    let error = run.error.as_deref().unwrap_or_default().lines().next().unwrap_or_default();
    match run.outcome {
        Ending::Started => format!("the {} of {to} was killed; the next poll takes it up", run.kind.word()),
        Ending::Deployed => format!("deployed {to} in {:.1} s", took(run).unwrap_or_default()),
        ending if error.is_empty() => format!("{} {}", ending.word(), to),
        ending => format!("{to} {}: {error}", ending.word()),
    }
}
