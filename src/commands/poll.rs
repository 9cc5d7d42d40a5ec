//! `poller`: polls every app, or those named, and says how it went.

use std::collections::BTreeMap;
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use anyhow::Result;
use jiff::Timestamp;
use nix::sys::signal::SigSet;

use super::setting::{Selection, admit, busy, context, select, unless_denied};
use crate::cli::Common;
use crate::config::{App, AppName, Config, Host};
use crate::event;
use crate::outcome::{Class, Failure, Outcome};
use crate::pipeline;
use crate::processes::helper::Helper;
use crate::processes::messages::Probed;
use crate::processes::output::Output;
use crate::processes::preparation::{Preparation, Prepared};
use crate::processes::supervisor;
use crate::processes::workshop::Workshop;
use crate::report::notify::Notifier;
use crate::report::run::{self, Ended};
use crate::report::terminal::Console;
use crate::report::{LAST_LINES, duration, log, plural};
use crate::road::{AskedBy, Context, Road};
use crate::stages::decide::Force;
use crate::stages::lock::{self, Asked, Lock};
use crate::stages::splay;
use crate::stages::tend::{Due, Tended};
use crate::sys::account::Account;
use crate::sys::signals;

/// What was asked for.
pub struct Request<'a> {
    pub common: &'a Common,
    /// None: all of this host.
    pub apps: &'a [String],
    pub force: Force,
}

impl Request<'_> {
    /// As it is typed.
    fn words(&self) -> String {
        let option = match self.force {
            Force::No => None,
            Force::Retry => Some("retry"),
            Force::Yes => Some("--force"),
        };
        option.into_iter().chain(self.apps.iter().map(String::as_str)).collect::<Vec<_>>().join(" ")
    }
}

pub fn run(request: &Request) -> u8 {
    poll(request).unwrap_or_else(|e| {
        let failure = Failure::of(e);
        run::global(&Console::new(), &failure);
        failure.class.exit_code()
    })
}

fn poll(request: &Request) -> Result<u8> {
    let signals = signals::block()?;
    let config = supervisor::load(request.common.config.as_deref())?;
    admit(&config, &request.words())?;
    let Beginning { mut preparation, selection, context, prober } =
        begin(request, &config, signals).inspect_err(|e| record(&config, e))?;
    if !wait_for_turn(&context, &config, request) {
        let busy = Class::Busy.exit_code();
        event!(INFO, "run.finished", stage = "lock", outcome = "busy", exit = i64::from(busy); "told to stop while it waited for its turn");
        return Err(Failure::new(Class::Busy, "told to stop while it waited for its turn (`[host] splay`)").into());
    }
    let began = Instant::now();
    let prober = prober.or_else(|| prober_for(&selection, context.fetch_account.as_ref()));
    let apps = selection.apps.len() + selection.broken.len();
    let notifier = Notifier::begin(config.notify.as_ref(), &context);
    event!(INFO, "run.started", stage = "lock", version = env!("CARGO_PKG_VERSION"); "{}", plural(apps, "app"));
    for app in &selection.elsewhere {
        event!(DEBUG, "poll.elsewhere", app = app.name.as_str(), stage = "decide"; "not for this host: {:?}", app.source.hosts);
        if !request.apps.is_empty() {
            context
                .console
                .note(&format!("- {}: not for this host, {} (hosts = {:?})", app.name, context.host, app.source.hosts));
        }
    }

    let mut all: Vec<Ended> = Vec::new();
    for (name, failure) in selection.broken {
        let lock = memory_of(&config, &name, &context);
        let ended = Ended { lock, ..Ended::early(name, None, failure) };
        ended.log("lock");
        all.push(ended);
    }
    let mut over = None;
    if let Some(prober) = prober {
        let (ended, prober) = poll_apps(&config, &context, selection.apps, &mut preparation, prober, request.force);
        all.extend(ended);
        over = prober;
    }
    let code = run::conclude(&context, &config, all, began, notifier, request.common.json);
    // It has ended by now.
    drop(over);
    Ok(code)
}

struct Beginning<'c> {
    preparation: Preparation<'c>,
    selection: Selection<'c>,
    context: Context,
    /// None when the run waits for its turn first: nothing is to stand by all that time.
    prober: Option<Result<Helper>>,
}

/// All that may fail for the run as a whole.
fn begin<'c>(request: &Request, config: &'c Config, signals: SigSet) -> Result<Beginning<'c>> {
    let preparation = Preparation::new(config)?;
    let selection = select(config, request.apps)?;
    let fetch_account = preparation.fetch_account()?;
    let wait = turn(config, request, &Console::new());
    // As early as can be: a process takes longer to start than all the rest until it is asked.
    let prober = wait.is_zero().then(|| prober_for(&selection, fetch_account.as_ref())).flatten();
    supervisor::make_folders(&config.paths, fetch_account.as_ref()).map_err(|e| unless_denied(e, &request.words()))?;
    let asked_by = if request.force == Force::No { AskedBy::Schedule } else { AskedBy::Person };
    let context = Context { asked_by, ..context(request.common, config, signals, fetch_account, wait)? };
    Ok(Beginning { preparation, selection, context, prober })
}

fn prober_for(selection: &Selection, fetch_account: Option<&Account>) -> Option<Result<Helper>> {
    (!selection.apps.is_empty()).then(|| supervisor::start_prober(fetch_account))
}

/// The line about a run that could not begin, where its log can be opened.
fn record(config: &Config, error: &anyhow::Error) {
    let failure = Failure::seen(error);
    let opened = supervisor::make_log_folder(&config.paths)
        .and_then(|()| log::open(&config.paths.log, &uuid::Uuid::now_v7().to_string(), false));
    // Why not is what the run fails for, or comes on top of it.
    let Ok(_) = opened else { return };
    let code = i64::from(failure.class.exit_code());
    event!(ERROR, "run.finished", stage = "lock", outcome = "failed", exit = code, error = failure.message.as_str(); "the run could not begin");
}

/// A schedule starts all hosts in the same second; each waits its own part of `splay`. A person does not.
fn turn(config: &Config, request: &Request, console: &Console) -> Duration {
    if !request.apps.is_empty() || console.is_watched() {
        return Duration::ZERO;
    }
    splay::part(&config.host.name, config.host.splay)
}

/// False when told to stop meanwhile.
fn wait_for_turn(context: &Context, config: &Config, request: &Request) -> bool {
    let part = turn(config, request, &context.console);
    if part.is_zero() {
        return true;
    }
    event!(DEBUG, "run.waiting", stage = "lock"; "{} of a splay of {}", duration(part), duration(config.host.splay));
    context.stop.pause(part)
}

/// A broken app's lock: what was reported about it is remembered there.
fn memory_of(config: &Config, name: &str, context: &Context) -> Option<Lock> {
    // A file whose name is no app's has a lock that no app can have.
    let name = match AppName::parse(name) {
        Ok(name) => name.as_str().to_owned(),
        Err(_) => format!("@{}", git2::Oid::hash_object(git2::ObjectType::Blob, name.as_bytes()).ok()?),
    };
    match lock::take(&lock::path(&config.paths.run, &name), &context.run, Timestamp::now()) {
        Ok(Asked::Held(lock)) => Some(lock),
        _ => None,
    }
}

/// Locks and prepares each app, then sends all that can go on their road.
fn poll_apps<'c>(
    config: &'c Config,
    context: &Context,
    apps: Vec<&'c App>,
    preparation: &mut Preparation<'c>,
    prober: Result<Helper>,
    force: Force,
) -> (Vec<Ended<'c>>, Option<Helper>) {
    let mut ended = Vec::new();
    let mut ready: Vec<(Prepared, Lock)> = Vec::new();
    for app in apps {
        let name = app.name.as_str();
        let early = |e: anyhow::Error, lock: Option<Lock>| {
            let ended = Ended { lock, ..Ended::early(name.to_owned(), Some(app), Failure::of(e)) };
            ended.log("lock");
            ended
        };
        match lock::take(&lock::path(&config.paths.run, name), &context.run, Timestamp::now()) {
            Err(e) => ended.push(early(e, None)),
            Ok(Asked::Busy(holder)) => ended.push(early(busy(&holder).into(), None)),
            Ok(Asked::Held(lock)) => {
                let prepared = preparation.prepare(app);
                match prepared {
                    Ok(prepared) => ready.push((prepared, lock)),
                    Err(e) => ended.push(early(e, Some(lock)).release(context)),
                }
            }
        }
    }
    let (travelled, prober) = travel(context, ready, prober, &config.host, force);
    ended.extend(travelled);
    (ended, prober)
}

/// Probes all at once and sends each app on its road as soon as its answer is there, `jobs` side by side.
fn travel<'c>(
    context: &Context,
    mut ready: Vec<(Prepared<'c>, Lock)>,
    prober: Result<Helper>,
    host: &Host,
    force: Force,
) -> (Vec<Ended<'c>>, Option<Helper>) {
    if ready.len() < 2 {
        let Some((prepared, lock)) = ready.pop() else { return (Vec::new(), prober.ok()) };
        // One needs no thread.
        let mut answer = Err(Failure::new(Class::Bug, "no answer"));
        let over = supervisor::probe(&[&prepared], prober, 1, &context.stop, |_, probed| answer = probed);
        return (vec![one(context, host, &prepared, lock, answer, force)], over);
    }
    let (prepared, locks): (Vec<Prepared<'c>>, Vec<Lock>) = ready.into_iter().unzip();
    let mut locks: Vec<Option<Lock>> = locks.into_iter().map(Some).collect();
    let (to_workers, work) = mpsc::channel::<(usize, Lock, Result<Probed, Failure>)>();
    let (work, results) = (Mutex::new(work), Mutex::new(Vec::new()));
    let over = std::thread::scope(|scope| {
        for _ in 0..host.jobs.min(prepared.len()) {
            scope.spawn(|| {
                loop {
                    let next = work.lock().unwrap_or_else(|e| e.into_inner()).recv();
                    let Ok((index, lock, probed)) = next else { break };
                    let ended = one(context, host, &prepared[index], lock, probed, force).release(context);
                    results.lock().unwrap_or_else(|e| e.into_inner()).push(ended);
                }
            });
        }
        let asked: Vec<&Prepared> = prepared.iter().collect();
        let over = supervisor::probe(&asked, prober, host.jobs, &context.stop, |index, probed| {
            if let Some(lock) = locks[index].take() {
                // The workers live as long as this channel; it closes below.
                let _ = to_workers.send((index, lock, probed));
            }
        });
        drop(to_workers);
        over
    });
    (results.into_inner().unwrap_or_else(|e| e.into_inner()), over)
}

/// One app's poll, from the prober's answer to its end.
fn one<'c>(
    context: &Context,
    host: &Host,
    prepared: &Prepared<'c>,
    mut lock: Lock,
    probed: Result<Probed, Failure>,
    force: Force,
) -> Ended<'c> {
    let began = Instant::now();
    let (app, mut output) = (prepared.app, Output::default());
    let unasked = Failure::new(Class::Bug, "nothing happened");
    let mut ended = Ended::early(app.name.as_str().to_owned(), Some(app), unasked);
    let mut untidy = false;
    let travelled = (|| -> Result<Outcome> {
        // First of all, whatever the probe said: what a killed run left alive has no time limit.
        lock.recover(app.name.as_str())?;
        let probed = probed?;
        let journal = probed.journal?;
        ended.state = Some(journal.state.clone());
        let tip = probed.tip;
        ended.tip = tip.as_ref().ok().cloned();
        let deploy_account = context.is_root.then(|| prepared.account.clone());
        let (mut ms, mut state) = (BTreeMap::new(), None);
        let outcome = pipeline::poll(
            Road {
                context,
                app,
                account: prepared.account.clone(),
                origin: Some(prepared.origin.clone()),
                signers: prepared.signers.clone(),
                force,
                lock: &mut lock,
                journal,
                shop: Workshop::new(
                    app,
                    prepared.repository.clone(),
                    context.fetch_account.as_ref(),
                    deploy_account,
                    &context.stop,
                ),
                output: &mut output,
                ms: &mut ms,
                state: &mut state,
                untidy: &mut untidy,
            },
            tip,
        );
        ended.state = state.or(ended.state.take());
        ended.deploy = ms.contains_key("stage").then(|| ms.values().sum());
        outcome
    })();
    ended.result = travelled.map_err(Failure::of);
    ended.last = output.last(LAST_LINES);
    ended.milliseconds = began.elapsed().as_millis() as u64;
    ended.log(&lock.content.stage);
    if untidy || lock.content.tending {
        let due = if untidy { Due::IfNeeded } else { Due::Leftovers };
        tend(context, prepared, host.history, due, &mut lock);
    }
    ended.lock = Some(lock);
    ended
}

/// Keeps the app's repository from growing with age. What it can't do now it does another time.
fn tend(context: &Context, prepared: &Prepared, history: usize, due: Due, lock: &mut Lock) {
    let app = prepared.app;
    let fetch_account = context.fetch_account.as_ref();
    let mut shop = Workshop::new(app, prepared.repository.clone(), fetch_account, None, &context.stop);
    // Cut short, the mark stays, and the next run tidies up what is left.
    let done = lock.tends(true).and_then(|()| shop.tend(history, due));
    let done = done.and_then(|answer| lock.tends(false).and(answer.map_err(Into::into)));
    match done {
        Ok(None) => {}
        Ok(Some(done)) => {
            let Tended { loose, merged, shortened } = done;
            let cut = if shortened { ", the journal's oldest entries dropped" } else { "" };
            event!(INFO, "repository.tended", app = app.name.as_str(), stage = "record"; "{loose} loose objects packed or dropped, {merged} packs merged{cut}");
        }
        Err(e) => {
            let failure = Failure::of(e);
            event!(WARN, "repository.untended", app = app.name.as_str(), stage = "record", error = failure.to_string(); "the repository was not tidied: {}", failure.message);
        }
    }
    shop.finish();
}
