//! How a run went, told to everybody: standard error, log, metrics, JSON, and the exit code.

use std::collections::BTreeSet;
use std::time::Instant;

use anyhow::Result;
use jiff::Timestamp;
use serde_json::json;

use super::memory::{self, News, Say};
use super::metrics::{self, Occasion, Sample};
use super::news;
use super::notify::Notifier;
use super::terminal::{Console, print_failure, print_json};
use crate::config::{App, Config, NotifyOn};
use crate::event;
use crate::journal::state::State;
use crate::outcome::{Class, Failure, Outcome, exit_code};
use crate::processes::messages::Tip;
use crate::road::{AskedBy, Context};
use crate::stages::decide::{Force, Policy, state_word};
use crate::stages::lock::{self, Asked, Lock, Polled};

/// What is kept of a sentence: all of it has to fit into the lock file.
const LONGEST_WHY: usize = 600;

/// How one app ended.
pub struct Ended<'c> {
    pub name: String,
    pub occasion: Occasion,
    /// None where its file is broken.
    pub app: Option<&'c App>,
    pub result: Result<Outcome, Failure>,
    /// The end of what its commands said.
    pub last: Vec<String>,
    pub tip: Option<Tip>,
    pub state: Option<State>,
    /// How many milliseconds a deploy took, if one was begun.
    pub deploy: Option<u64>,
    pub milliseconds: u64,
    pub lock: Option<Lock>,
    /// Others may have it since it has ended.
    pub released: bool,
    /// It had failed since then, and is well again.
    pub failed_since: Option<Timestamp>,
}

impl<'c> Ended<'c> {
    /// One that did not come as far as the road.
    pub fn early(name: String, app: Option<&'c App>, failure: Failure) -> Ended<'c> {
        Ended {
            name,
            occasion: Occasion::Poll,
            app,
            result: Err(failure),
            last: Vec::new(),
            tip: None,
            state: None,
            deploy: None,
            milliseconds: 0,
            lock: None,
            released: false,
            failed_since: None,
        }
    }

    fn code(&self) -> u8 {
        self.result.as_ref().map_or_else(|f| f.class.exit_code(), |_| 0)
    }

    pub fn outcome(&self) -> &'static str {
        self.result.as_ref().map_or_else(|f| f.class.word(), Outcome::word)
    }

    /// Where the app stands after this, in the contract's words; None when its journal was not read.
    pub fn state_word(&self, now: Timestamp) -> Option<&'static str> {
        match &self.result {
            Err(f) if f.class == Class::Refused && self.tip.is_some() => Some("refused"),
            Err(f) if matches!(f.class, Class::Unreachable | Class::Protocol) => Some("unreachable"),
            _ => {
                let policy = Policy::of(self.app?, Force::No, 0);
                let state = self.state.as_ref()?;
                let asked = self.tip.as_ref().map(|t| &t.commit);
                let tip = match self.occasion {
                    Occasion::Poll => asked,
                    // No server was asked. What is deployed is as it should be, unless the journal says more.
                    Occasion::Command => Some(asked.or(state.deployed.as_ref().map(|d| &d.commit))?),
                };
                Some(state_word(state, tip, &policy, now))
            }
        }
    }

    /// Lets others have the app, once `status` can say how it ended: this run may go on for long with others.
    pub fn release(mut self, context: &Context) -> Self {
        let polled = polled(context, &self, Timestamp::now());
        if let Some(mut lock) = self.lock.take() {
            let reported = lock.content.reported.clone();
            if let Err(e) = lock.remember(reported, Some(polled)) {
                event!(WARN, "report.failed", app = self.name.as_str(), stage = "report", error = format!("{e:#}"); "how it ended cannot be remembered");
            }
            self.released = true;
        }
        self
    }

    fn is_busy(&self) -> bool {
        self.result.as_ref().is_err_and(|f| f.class == Class::Busy)
    }

    /// The line about a failure, once, whatever stage it came from.
    pub fn log(&self, stage: &str) {
        let Err(failure) = &self.result else { return };
        let (app, outcome) = (self.name.as_str(), self.outcome());
        if self.is_busy() {
            event!(INFO, "poll.busy", app = app, stage = stage, outcome = outcome; "{}", failure.message);
            return;
        }
        let commit = self.tip.as_ref().map(|t| t.commit.as_str());
        event!(ERROR, "poll.failed", app = app, stage = stage, commit = commit, outcome = outcome, exit = i64::from(self.code()), error = failure.message.as_str(); "{}", failure.help.join("; "));
    }
}

/// A failure that concerns the whole run is told every time: there may be no place to remember it.
pub fn global(console: &Console, failure: &Failure) {
    print_failure(failure);
    if failure.class == Class::Busy && !console.is_watched() {
        return;
    }
    console.say(&format!("poller: {}", failure.message));
    failure.help.iter().for_each(|line| console.say(&format!("  {line}")));
}

/// Tells everybody, and returns the exit code.
pub fn conclude(
    context: &Context,
    config: &Config,
    mut all: Vec<Ended>,
    began: Instant,
    notifier: Option<Notifier>,
    json: bool,
) -> u8 {
    let now = Timestamp::now();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    let (on, mut news) = (notifier.as_ref().map_or(&[][..], Notifier::on), Vec::new());
    for ended in &mut all {
        if ended.released {
            ended.lock = lock_again(context, config, &ended.name, now);
        }
        if let Err(e) = tell(context, ended, now, on, &mut news) {
            event!(WARN, "report.failed", app = ended.name.as_str(), stage = "report", error = format!("{e:#}"); "what was reported cannot be remembered");
        }
    }
    if let Some(metrics) = &config.metrics {
        let samples: Vec<Sample> = all.iter().filter(|e| !e.is_busy()).map(|e| sample(e, now)).collect();
        let lock = config.paths.run.join("@metrics.lock");
        let updated = metrics::update(&metrics.textfile, &lock, &samples, &names_here(config), now.as_second() as f64);
        if let Err(e) = updated {
            let failure = Failure::of(e);
            event!(WARN, "report.failed", stage = "report", error = failure.message.as_str(); "the metrics could not be written; {}", failure.help.join("; "));
            context.console.note(&format!("! the metrics could not be written: {}", failure.message));
            failure.help.iter().for_each(|line| context.console.note(&format!("    {line}")));
        }
    }
    let code = exit_code(all.iter().map(Ended::code));
    // Nothing is mailed on a good day: silence on 0 is part of the contract.
    if ![0, Class::Busy.exit_code()].contains(&code) && !context.console.is_watched() {
        let well = all.iter().filter_map(|ended| Some((&ended.name, ended.failed_since?)));
        well.for_each(|(name, since)| {
            context.console.say(&format!("poller on {}: {name}: well again; it failed since {since:.0}", context.host));
        });
    }
    if let Some(notifier) = notifier {
        // Whoever is told may take long to answer: the next run need not wait for that.
        all.iter_mut().for_each(|ended| ended.lock = None);
        let code = if context.log.error().is_some() { exit_code([code, Class::Io.exit_code()]) } else { code };
        notifier.conclude(code, || news::report(all.iter()), news);
    }
    let outcome = match code {
        0 => "ok",
        75 => "busy",
        _ => "failed",
    };
    event!(INFO, "run.finished", stage = "report", outcome = outcome, exit = i64::from(code), ms = began.elapsed().as_millis() as u64; "{}", super::plural(all.len(), "app"));
    let code = match context.log.error() {
        None => code,
        Some(e) => {
            context.console.say(&format!("poller: the log {} cannot be written: {e}", context.log_path.display()));
            context.console.say("  make room (df -h, df -i); the next run goes on by itself");
            exit_code([code, Class::Io.exit_code()])
        }
    };
    if json {
        print_json(&as_json(context, &all, code));
    }
    code
}

/// The lock of an app that has ended long ago, for what is remembered there. Another run that has it by now
/// will find out for itself.
fn lock_again(context: &Context, config: &Config, name: &str, now: Timestamp) -> Option<Lock> {
    match lock::take(&lock::path(&config.paths.run, name), &context.run, now) {
        Ok(Asked::Held(lock)) => Some(lock),
        Ok(Asked::Busy(_)) => None,
        Err(e) => {
            event!(WARN, "report.failed", app = name, stage = "report", error = format!("{e:#}"); "what was reported cannot be remembered");
            None
        }
    }
}

/// The apps that this host has metrics of. One that moved to other hosts would seem to be missed here.
fn names_here(config: &Config) -> BTreeSet<String> {
    let apps = config.apps.iter().filter(|app| app.source.applies_to(&config.host.name));
    apps.map(|app| app.name.as_str().to_owned()).chain(config.broken.iter().map(|b| b.name.clone())).collect()
}

/// Reports a failure, its end, or nothing; remembers it in the app's lock file. What `on` asks for is put
/// into `told`, to be sent when all apps are reported.
fn tell(
    context: &Context,
    ended: &mut Ended,
    now: Timestamp,
    on: &[NotifyOn],
    told: &mut Vec<news::News>,
) -> Result<()> {
    let console = &context.console;
    let reference = ended.tip.as_ref().map_or("", |t| t.reference.as_str());
    console.ended(&ended.name, &ended.result, reference);
    if ended.is_busy() {
        return Ok(());
    }
    let failure = ended.result.as_ref().err();
    let fingerprint = failure.map(|f| fingerprint(f, ended.tip.as_ref()));
    let news = match (&ended.result, &fingerprint) {
        (_, Some(failure)) => News::Failure(failure),
        (Ok(Outcome::Skipped { .. }), None) => News::None,
        _ => News::Well,
    };
    let before = ended.lock.as_ref().and_then(|l| l.content.reported.clone());
    let (say, mut memory) = memory::decide(before.as_ref(), news, now);
    told.extend(news::of(context, ended, &say, before.as_ref(), &mut memory, on));
    match (&say, failure) {
        (Say::Failure, Some(failure)) => mail(context, ended, failure, ""),
        (Say::StillFailing { since }, Some(failure)) => {
            mail(context, ended, failure, &format!("still, since {since:.0}: "))
        }
        (Say::Recovered { since }, _) => {
            ended.failed_since = Some(*since);
            event!(INFO, "poll.recovered", app = ended.name.as_str(), stage = "report"; "well again; it failed since {since:.0}");
        }
        (Say::Nothing, Some(failure)) if context.asked_by == AskedBy::Person => mail(context, ended, failure, ""),
        _ => {}
    }
    let polled = match &ended.lock {
        // Said when it was released; by now another run may have said more.
        Some(lock) if ended.released => lock.content.polled.clone(),
        _ => Some(polled(context, ended, now)),
    };
    match &mut ended.lock {
        Some(lock) => lock.remember(memory, polled),
        None => Ok(()),
    }
}

/// What `status` says of this poll until the next one.
fn polled(context: &Context, ended: &Ended, now: Timestamp) -> Polled {
    let before = ended.lock.as_ref().map_or(0, |lock| lock.content.waited());
    let tried = ended.deploy.is_some();
    let waited = match &ended.state {
        Some(state) if state.failed.is_none() => 0,
        Some(_) if tried => 0,
        Some(_) if ended.tip.is_some() => before.saturating_add(1),
        _ => before,
    };
    let why = match &ended.result {
        Ok(Outcome::Unchanged { .. }) => "nothing new: the tip is what is deployed".to_owned(),
        Ok(Outcome::Skipped { why, .. }) => why.clone(),
        Ok(Outcome::Deployed { milliseconds, .. }) => format!("deployed in {:.1} s", *milliseconds as f64 / 1000.0),
        Err(failure) => failure.message.lines().next().unwrap_or_default().to_owned(),
    };
    Polled {
        at: now,
        run: context.run.clone(),
        outcome: ended.outcome().to_owned(),
        state: ended.state_word(now).unwrap_or("new").to_owned(),
        tip: ended.tip.as_ref().map(|t| t.commit.clone()),
        reference: ended.tip.as_ref().map(|t| t.reference.clone()),
        why: super::printable(&why).chars().take(LONGEST_WHY).collect(),
        waited,
    }
}

/// What makes a failure the same as the one before: its class, the commit, and its first line.
fn fingerprint(failure: &Failure, tip: Option<&Tip>) -> String {
    let line: String = failure.message.lines().next().unwrap_or_default().chars().take(300).collect();
    format!("{} {} {}", failure.class.word(), tip.map_or("", |t| t.commit.as_str()), steady(&line))
}

/// Without what another run would say otherwise of the same failure: how much is free, a process's number,
/// libgit2's random names. Statuses and signals are shorter.
fn steady(line: &str) -> String {
    const SHORTEST: usize = 4;
    let mut text = String::new();
    for (index, part) in line.split("_git2_").enumerate() {
        let part = if index > 0 { part.trim_start_matches(|c: char| c.is_ascii_alphanumeric()) } else { part };
        let mut rest = part;
        while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
            let (before, number) = rest.split_at(at);
            let end = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
            text += before;
            text += if end < SHORTEST { &number[..end] } else { "#" };
            rest = &number[end..];
        }
        text += rest;
    }
    text
}

/// The report that cron mails; somebody at a terminal has seen it all already.
fn mail(context: &Context, ended: &Ended, failure: &Failure, since: &str) {
    let console = &context.console;
    if console.is_watched() {
        return;
    }
    console.say(&format!("poller on {}: {}: {since}{}", context.host, ended.name, failure.message));
    failure.help.iter().for_each(|line| console.say(&format!("  {line}")));
    if !ended.last.is_empty() {
        console.say("  the end of what it said:");
        ended.last.iter().for_each(|line| console.say(&format!("  | {line}")));
    }
    console.say(&format!("  log: {} (run {})", context.log_path.display(), context.run));
}

fn sample(ended: &Ended, now: Timestamp) -> Sample {
    let state = ended.state.as_ref();
    let asked = ended.occasion == Occasion::Poll && ended.state.is_some();
    let cut_off = matches!(&ended.result, Err(f) if matches!(f.class, Class::Unreachable | Class::Protocol));
    Sample {
        app: ended.name.clone(),
        occasion: ended.occasion,
        commit: state.and_then(|s| s.deployed.as_ref()).map(|d| d.commit.to_string()),
        reference: ended.tip.as_ref().map(|t| t.reference.clone()),
        state: ended.state_word(now),
        outcome: ended.outcome(),
        polled: ended.tip.is_some(),
        deploy: ended.deploy.map(|ms| (ended.outcome(), ms as f64 / 1000.0)),
        git_operations: u64::from(asked),
        git_errors: u64::from(asked && (ended.tip.is_none() || cut_off)),
    }
}

fn as_json(context: &Context, all: &[Ended], code: u8) -> serde_json::Value {
    let app = |ended: &Ended| {
        let failure = ended.result.as_ref().err();
        let why = match &ended.result {
            Ok(Outcome::Skipped { why, .. }) => Some(why),
            _ => None,
        };
        json!({
            "app": ended.name,
            "outcome": ended.outcome(),
            "commit": ended.tip.as_ref().map(|t| t.commit.as_str()),
            "ref": ended.tip.as_ref().map(|t| t.reference.as_str()),
            "deployed": ended.state.as_ref().and_then(|s| s.deployed.as_ref()).map(|d| d.commit.as_str()),
            "why": why,
            "error": failure.map(|f| f.message.as_str()),
            "help": failure.map(|f| &f.help),
            "ms": ended.milliseconds,
        })
    };
    let apps: Vec<serde_json::Value> = all.iter().map(app).collect();
    json!({ "schema": 1, "run": context.run, "host": context.host, "exit": code, "apps": apps })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_failure_is_the_same_whatever_is_free_and_whoever_ran() {
        let of = |text: &str| fingerprint(&Failure::new(Class::Io, text), None);
        let room = |free: u64| of(&format!("no room for the tree: it has 70000 bytes, and there are {free} free"));
        assert_eq!(room(65_536), room(4_096));
        let pack = |name: &str| of(&format!("cannot extend packfile '/x/pack_git2_{name}': No space left on device"));
        assert_eq!(pack("0123456789abcdef"), pack("fedcba9876543210"));
        assert_ne!(pack("0123456789abcdef"), of("cannot extend packfile '/x/pack_git2_': Input/output error"));
        assert_eq!(of("left running: 12345 (sleep)"), of("left running: 4321 (sleep)"));
        assert_ne!(of("./deploy.sh exited with status 1"), of("./deploy.sh exited with status 127"));
    }
}
