//! `poller`: polls every app, or those named, and says how it went.

use std::collections::BTreeMap;
use std::sync::{Mutex, mpsc};
use std::time::Instant;

use anyhow::Result;
use jiff::Timestamp;
use nix::sys::signal::SigSet;
use nix::unistd::Uid;

use crate::cli::Cli;
use crate::config::{App, AppName, Config, LoadError};
use crate::event;
use crate::outcome::{Class, Failure, Outcome};
use crate::pipeline;
use crate::processes::messages::Probed;
use crate::processes::output::Output;
use crate::processes::supervisor::{self, Preparation, Prepared};
use crate::processes::workshop::Workshop;
use crate::report::run::{self, Ended};
use crate::report::terminal::Console;
use crate::report::{log, plural, printable};
use crate::road::{Context, Road};
use crate::stages::decide::Force;
use crate::stages::lock::{self, Asked, Lock};
use crate::sys::account::Account;
use crate::sys::signals;

/// How many lines of a failed script a report ends with.
const LAST_LINES: usize = 20;

pub fn run(cli: &Cli) -> u8 {
    poll(cli).unwrap_or_else(|e| {
        let failure = Failure::of(e);
        run::global(&Console::new(), &failure);
        failure.class.exit_code()
    })
}

fn poll(cli: &Cli) -> Result<u8> {
    let began = Instant::now();
    let signals = signals::block()?;
    let config = supervisor::load(cli.config.as_deref())?;
    let mut preparation = Preparation::new(&config)?;
    let selection = select(&config, &cli.apps)?;
    let fetch_account = preparation.fetch_account()?;
    supervisor::make_folders(&config.paths, fetch_account.as_ref())?;
    let context = context(cli, &config, signals, fetch_account)?;
    let apps = selection.apps.len() + selection.broken.len();
    event!(INFO, "run.started", stage = "lock", version = env!("CARGO_PKG_VERSION"); "{}", plural(apps, "app"));
    for app in &selection.elsewhere {
        event!(DEBUG, "poll.elsewhere", app = app.name.as_str(), stage = "decide"; "not for this host: {:?}", app.source.hosts);
        if !cli.apps.is_empty() {
            context
                .console
                .note(&format!("- {}: not for this host, {} (hosts = {:?})", app.name, context.host, app.source.hosts));
        }
    }

    let mut all: Vec<Ended> = Vec::new();
    for (name, failure) in selection.broken {
        let lock = memory_of(&config, &name, &context);
        let ended = Ended { lock, ..Ended::early(name, failure, 0) };
        ended.log("lock");
        all.push(ended);
    }
    let force = if cli.force { Force::Yes } else { Force::No };
    all.extend(poll_apps(&config, &context, selection.apps, &mut preparation, force));
    Ok(run::conclude(&context, &config, all, began, cli.json))
}

/// Opens the log and begins to listen for signals: from here on everything is on record.
fn context(cli: &Cli, config: &Config, signals: SigSet, fetch_account: Option<Account>) -> Result<Context> {
    let run = uuid::Uuid::now_v7().to_string();
    let log = log::open(&config.paths.log, &run, cli.verbose).map_err(|e| {
        let failure = Failure::of(e);
        let message = format!("the log cannot be opened: {}", failure.message);
        Failure { message, ..failure }.help("nothing was polled; set `[paths] log`, or mend its folder")
    })?;
    Ok(Context {
        host: config.host.name.clone(),
        who: supervisor::who(&Account::current()?),
        stop: signals::watch(signals, config.host.deadline)?,
        console: Console::new(),
        log,
        log_path: config.paths.log.clone(),
        is_root: Uid::effective().is_root(),
        fetch_account,
        run,
    })
}

pub struct Selection<'c> {
    pub apps: Vec<&'c App>,
    /// Apps of other hosts.
    pub elsewhere: Vec<&'c App>,
    pub broken: Vec<(String, Failure)>,
}

/// The apps that are named, or all that are for this host.
pub fn select<'c>(config: &'c Config, named: &[String]) -> Result<Selection<'c>> {
    let wanted = |name: &str| named.is_empty() || named.iter().any(|n| n == name);
    let apps = config.apps.iter().map(|a| a.name.as_str());
    let known: Vec<&str> = apps.chain(config.broken.iter().map(|b| b.name.as_str())).collect();
    if let Some(name) = named.iter().find(|name| !known.contains(&name.as_str())) {
        let known =
            if known.is_empty() { "there are none yet".to_owned() } else { format!("there are: {}", known.join(", ")) };
        return Err(Failure::new(Class::Usage, format!("there is no app `{}`", printable(name))).help(known).into());
    }
    let chosen = config.apps.iter().filter(|a| wanted(a.name.as_str()));
    let (apps, elsewhere) = chosen.partition(|a| a.source.applies_to(&config.host.name));
    let broken = config.broken.iter().filter(|b| wanted(&b.name)).map(|b| (b.name.clone(), broken(&b.error))).collect();
    Ok(Selection { apps, elsewhere, broken })
}

/// The error belongs to the configuration, so its failure is made from what it shows.
fn broken(error: &LoadError) -> Failure {
    match error {
        LoadError::Problem(problem) => Failure::new(Class::Config, problem.to_string()),
        LoadError::Read(e) => match e.downcast_ref::<Failure>() {
            Some(failure) => failure.clone(),
            None => Failure::new(Class::Config, format!("{e:#}")).help("mend or remove the file"),
        },
    }
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
    force: Force,
) -> Vec<Ended> {
    let mut ended = Vec::new();
    let mut ready: Vec<(Prepared, Lock)> = Vec::new();
    for app in apps {
        let name = app.name.as_str();
        let early = |e: anyhow::Error, lock: Option<Lock>| {
            let ended = Ended { lock, ..Ended::early(name.to_owned(), Failure::of(e), app.deploy.retries) };
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
                    Err(e) => ended.push(early(e, Some(lock))),
                }
            }
        }
    }
    ended.extend(travel(context, ready, config.host.jobs, force));
    ended
}

fn busy(holder: &lock::Content) -> Failure {
    let since = holder.since.map(|t| format!(" since {t:.0}")).unwrap_or_default();
    let text = format!(
        "another run holds the lock: process {} (run {}){since}, in the stage `{}`",
        holder.pid, holder.run, holder.stage
    );
    Failure::new(Class::Busy, text).help("nothing to do: its end frees the lock, whatever way it ends")
}

/// Probes all at once and sends each app on its road as soon as its answer is there, `jobs` side by side.
fn travel(context: &Context, ready: Vec<(Prepared, Lock)>, jobs: usize, force: Force) -> Vec<Ended> {
    let (prepared, locks): (Vec<Prepared>, Vec<Lock>) = ready.into_iter().unzip();
    let mut locks: Vec<Option<Lock>> = locks.into_iter().map(Some).collect();
    let (to_workers, work) = mpsc::channel::<(usize, Lock, Result<Probed, Failure>)>();
    let (work, results) = (Mutex::new(work), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..jobs.min(prepared.len()) {
            scope.spawn(|| {
                loop {
                    let next = work.lock().unwrap_or_else(|e| e.into_inner()).recv();
                    let Ok((index, lock, probed)) = next else { break };
                    let ended = one(context, &prepared[index], lock, probed, force);
                    results.lock().unwrap_or_else(|e| e.into_inner()).push(ended);
                }
            });
        }
        let asked: Vec<&Prepared> = prepared.iter().collect();
        supervisor::probe(&asked, context.fetch_account.as_ref(), jobs, &context.stop, |index, probed| {
            if let Some(lock) = locks[index].take() {
                // The workers live as long as this channel; it closes below.
                let _ = to_workers.send((index, lock, probed));
            }
        });
        drop(to_workers);
    });
    results.into_inner().unwrap_or_else(|e| e.into_inner())
}

/// One app's poll, from the prober's answer to its end.
fn one(context: &Context, prepared: &Prepared, mut lock: Lock, probed: Result<Probed, Failure>, force: Force) -> Ended {
    let began = Instant::now();
    let (app, mut output) = (prepared.app, Output::default());
    let unasked = Failure::new(Class::Bug, "nothing happened");
    let mut ended = Ended::early(app.name.as_str().to_owned(), unasked, app.deploy.retries);
    let travelled = (|| -> Result<Outcome> {
        // First of all, whatever the probe said: what a killed run left alive has no time limit.
        lock.recover(app.name.as_str())?;
        let probed = probed?;
        let journal = probed.journal?;
        ended.state = Some(journal.state.clone());
        let tip = probed.tip?;
        ended.tip = Some(tip.clone());
        let deploy_account = context.is_root.then(|| prepared.account.clone());
        let (mut ms, mut state) = (BTreeMap::new(), None);
        let outcome = pipeline::poll(
            Road {
                context,
                app,
                account: prepared.account.clone(),
                origin: prepared.origin.clone(),
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
            },
            &tip,
        );
        ended.state = state.or(ended.state.take());
        ended.deploy = ms.contains_key("stage").then(|| ms.values().sum());
        outcome
    })();
    ended.result = travelled.map_err(Failure::of);
    ended.last = output.last(LAST_LINES);
    ended.milliseconds = began.elapsed().as_millis() as u64;
    ended.log(&lock.content.stage);
    ended.lock = Some(lock);
    ended
}
