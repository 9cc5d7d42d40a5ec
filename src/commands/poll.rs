//! `poller`: polls every app, or those named, and says how it went.

use std::collections::BTreeMap;
use std::sync::{Mutex, mpsc};
use std::time::Instant;

use anyhow::Result;
use jiff::Timestamp;

use crate::cli::Cli;
use crate::config::{App, AppName, Config};
use crate::event;
use crate::journal::state::State;
use crate::outcome::{Class, Failure, Outcome, exit_code};
use crate::pipeline;
use crate::processes::messages::{Probed, Tip};
use crate::processes::output::Output;
use crate::processes::supervisor::{self, Preparation, Prepared};
use crate::processes::workshop::Workshop;
use crate::report::memory::{self, Say};
use crate::report::metrics::{self, Sample};
use crate::report::terminal::Console;
use crate::report::{log, printable};
use crate::road::{Context, Road};
use crate::stages::decide::{Force, Policy, state_word};
use crate::stages::lock::{self, Asked, Lock};
use crate::sys::signals;

/// How many lines of a failed script a report ends with.
const LAST_LINES: usize = 20;

/// How one app ended.
struct Ended {
    app: String,
    result: Result<Outcome, Failure>,
    /// The end of what its commands said.
    last: Vec<String>,
    tip: Option<Tip>,
    state: Option<State>,
    retries: u32,
    /// Whether a deploy was begun, and what it took.
    deploy: Option<u64>,
    milliseconds: u64,
    lock: Option<Lock>,
}

pub fn run(cli: &Cli) -> u8 {
    let console = Console::new();
    match poll(cli, &console) {
        Ok(code) => code,
        Err(e) => {
            let failure = Failure::of(e);
            report_global(&console, &failure);
            failure.class.exit_code()
        }
    }
}

/// A failure that concerns the whole run is told every time: there may be no place to remember it.
pub fn report_global(console: &Console, failure: &Failure) {
    if failure.class == Class::Busy && !console.is_watched() {
        return;
    }
    console.say(&format!("poller: {}", failure.message));
    failure
        .help
        .iter()
        .for_each(|line| console.say(&format!("  {line}")));
}

fn poll(cli: &Cli, console: &Console) -> Result<u8> {
    let began = Instant::now();
    let signals = signals::block()?;
    let config = supervisor::load(cli.config.as_deref())?;
    let mut preparation = Preparation::new(&config)?;
    let selection = select(&config, &cli.apps)?;
    let fetch_account = preparation.fetch_account()?;
    supervisor::make_folders(&config.paths, fetch_account.as_ref())?;
    let run = uuid::Uuid::now_v7().to_string();
    let log = log::open(&config.paths.log, &run, cli.verbose).map_err(|e| {
        let failure = Failure::of(e);
        let class = if failure.class == Class::Refused {
            Class::Refused
        } else {
            Class::Io
        };
        Failure {
            class,
            message: format!("the log cannot be opened: {}", failure.message),
            ..failure
        }
        .help("nothing was polled; set `[paths] log`, or mend its folder")
    })?;
    let context = Context {
        host: config.host.name.clone(),
        who: supervisor::who(&crate::sys::account::Account::current()?),
        stop: signals::watch(signals, config.host.deadline)?,
        console: Console::new(),
        log,
        log_path: config.paths.log.clone(),
        is_root: nix::unistd::Uid::effective().is_root(),
        fetch_account,
        run,
    };
    event!(INFO, "run.started", stage = "lock", version = env!("CARGO_PKG_VERSION"); "{} apps", selection.apps.len() + selection.broken.len());

    let mut all: Vec<Ended> = Vec::new();
    for (name, failure) in selection.broken {
        let lock = AppName::parse(&name)
            .ok()
            .and_then(|_| held(&config, &name, &context));
        all.push(Ended {
            lock,
            ..Ended::early(name, failure, 0)
        });
    }
    let force = if cli.force { Force::Yes } else { Force::No };
    all.extend(poll_apps(
        &config,
        &context,
        selection.apps,
        &mut preparation,
        force,
    ));
    all.sort_by(|a, b| a.app.cmp(&b.app));
    Ok(conclude(cli, &config, &context, console, all, began))
}

pub struct Selection<'c> {
    pub apps: Vec<&'c App>,
    pub broken: Vec<(String, Failure)>,
}

/// The apps that are named, or all that are for this host.
pub fn select<'c>(config: &'c Config, named: &[String]) -> Result<Selection<'c>> {
    let wanted = |name: &str| named.is_empty() || named.iter().any(|n| n == name);
    for name in named {
        let known = config
            .apps
            .iter()
            .map(|a| a.name.as_str())
            .chain(config.broken.iter().map(|b| b.name.as_str()));
        if !known.clone().any(|n| n == name) {
            let known: Vec<&str> = known.collect();
            let known = if known.is_empty() {
                "there are none yet".to_owned()
            } else {
                format!("there are: {}", known.join(", "))
            };
            return Err(Failure::new(
                Class::Usage,
                format!("there is no app `{}`", printable(name)),
            )
            .help(known)
            .into());
        }
    }
    let apps = config
        .apps
        .iter()
        .filter(|a| wanted(a.name.as_str()) && a.source.applies_to(&config.host.name))
        .collect();
    let broken = config
        .broken
        .iter()
        .filter(|b| wanted(&b.name))
        .map(|b| (b.name.clone(), broken_failure(&b.error)))
        .collect();
    Ok(Selection { apps, broken })
}

/// The error is shared with the configuration, so it is made anew from what it shows.
fn broken_failure(error: &crate::config::LoadError) -> Failure {
    match error {
        crate::config::LoadError::Problem(problem) => {
            Failure::new(Class::Config, problem.to_string())
        }
        crate::config::LoadError::Read(e) => match e.downcast_ref::<Failure>() {
            Some(failure) => failure.clone(),
            None => Failure::new(Class::Config, format!("{e:#}")).help("mend or remove the file"),
        },
    }
}

/// A broken app's lock, only to remember in it what was reported.
fn held(config: &Config, name: &str, context: &Context) -> Option<Lock> {
    match lock::take(
        &lock::path(&config.paths.run, name),
        &context.run,
        Timestamp::now(),
    ) {
        Ok(Asked::Held(lock)) => Some(lock),
        _ => None,
    }
}

impl Ended {
    fn early(app: String, failure: Failure, retries: u32) -> Ended {
        Ended {
            app,
            result: Err(failure),
            last: Vec::new(),
            tip: None,
            state: None,
            retries,
            deploy: None,
            milliseconds: 0,
            lock: None,
        }
    }
}

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
        let early =
            |e: anyhow::Error| Ended::early(name.to_owned(), Failure::of(e), app.deploy.retries);
        match lock::take(
            &lock::path(&config.paths.run, name),
            &context.run,
            Timestamp::now(),
        ) {
            Err(e) => ended.push(early(e)),
            Ok(Asked::Busy(holder)) => ended.push(early(busy(&holder).into())),
            Ok(Asked::Held(mut lock)) => match preparation
                .prepare(app)
                .and_then(|p| lock.recover(name).map(|()| p))
            {
                Err(e) => ended.push(Ended {
                    lock: Some(lock),
                    ..early(e)
                }),
                Ok(prepared) => ready.push((prepared, lock)),
            },
        }
    }
    ended.extend(travel(context, ready, config.host.jobs, force));
    ended
}

fn busy(holder: &lock::Content) -> Failure {
    let since = holder
        .since
        .map(|t| format!(" since {t:.0}"))
        .unwrap_or_default();
    Failure::new(
        Class::Busy,
        format!(
            "another run is at it: process {} (run {}){since}, in the stage `{}`",
            holder.pid, holder.run, holder.stage
        ),
    )
    .help("nothing to do: its end frees the lock, whatever way it ends")
}

/// Probes all at once and sends each app on its road as soon as its answer is there, `jobs` side by side.
fn travel(
    context: &Context,
    ready: Vec<(Prepared, Lock)>,
    jobs: usize,
    force: Force,
) -> Vec<Ended> {
    let (prepared, locks): (Vec<Prepared>, Vec<Lock>) = ready.into_iter().unzip();
    let mut locks: Vec<Option<Lock>> = locks.into_iter().map(Some).collect();
    let (to_workers, work) = mpsc::channel::<(usize, Lock, Result<Probed, Failure>)>();
    let (work, results) = (Mutex::new(work), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..jobs.min(prepared.len()) {
            scope.spawn(|| {
                loop {
                    let next = work.lock().unwrap_or_else(|e| e.into_inner()).recv();
                    let Ok((index, lock, probed)) = next else {
                        break;
                    };
                    let ended = one(context, &prepared[index], lock, probed, force);
                    results
                        .lock()
                        .unwrap_or_else(|e| e.into_inner())
                        .push(ended);
                }
            });
        }
        let asked: Vec<&Prepared> = prepared.iter().collect();
        supervisor::probe(
            &asked,
            context.fetch_account.as_ref(),
            jobs,
            &context.stop,
            |index, probed| {
                if let Some(lock) = locks[index].take() {
                    // The workers live as long as this channel; it closes below.
                    let _ = to_workers.send((index, lock, probed));
                }
            },
        );
        drop(to_workers);
    });
    results.into_inner().unwrap_or_else(|e| e.into_inner())
}

fn one(
    context: &Context,
    prepared: &Prepared,
    mut lock: Lock,
    probed: Result<Probed, Failure>,
    force: Force,
) -> Ended {
    let began = Instant::now();
    let mut output = Output::default();
    let (app, name) = (prepared.app, prepared.app.name.as_str());
    let mut ended = Ended::early(
        name.to_owned(),
        Failure::new(Class::Bug, "nothing happened"),
        app.deploy.retries,
    );
    ended.result = (|| -> Result<Outcome> {
        let probed = probed?;
        let journal = probed.journal?;
        ended.state = Some(journal.state.clone());
        let tip = probed.tip?;
        ended.tip = Some(tip.clone());
        let deploy_account = context.is_root.then(|| prepared.account.clone());
        let shop = Workshop::new(
            app,
            prepared.repository.clone(),
            context.fetch_account.as_ref(),
            deploy_account,
            &context.stop,
        );
        let mut ms = BTreeMap::new();
        let mut state = None;
        let road = Road {
            context,
            app,
            account: prepared.account.clone(),
            origin: prepared.origin.clone(),
            force,
            lock: &mut lock,
            journal,
            shop,
            output: &mut output,
            ms: &mut ms,
            state: &mut state,
        };
        let outcome = pipeline::poll(road, &tip);
        ended.state = state.or(ended.state.take());
        ended.deploy = ms.contains_key("activate").then(|| ms.values().sum());
        outcome
    })()
    .map_err(Failure::of);
    ended.last = output.last(LAST_LINES);
    ended.milliseconds = began.elapsed().as_millis() as u64;
    if let Err(failure) = &ended.result {
        event!(ERROR, "poll.failed", app = name, stage = lock.content.stage.as_str(), outcome = failure.class.word(), exit = i64::from(failure.class.exit_code()), error = failure.message.as_str(); "{}", failure.help.join("; "));
    }
    ended.lock = Some(lock);
    ended
}

/// Tells of the run: standard error, log, metrics, JSON, and the exit code.
fn conclude(
    cli: &Cli,
    config: &Config,
    context: &Context,
    console: &Console,
    mut all: Vec<Ended>,
    began: Instant,
) -> u8 {
    let now = Timestamp::now();
    for ended in &mut all {
        if ended.lock.is_none()
            && let Err(failure) = &ended.result
        {
            let (level_busy, word) = (failure.class == Class::Busy, failure.class.word());
            if level_busy {
                event!(INFO, "poll.busy", app = ended.app.as_str(), stage = "lock", outcome = word; "{}", failure.message);
            }
        }
        if console.is_watched() {
            let reference = ended.tip.as_ref().map_or("", |t| t.reference.as_str());
            console.ended(&ended.app, &ended.result, reference);
        }
        if let Err(e) = tell(context, console, ended, now) {
            event!(WARN, "report.failed", app = ended.app.as_str(), stage = "report", error = format!("{e:#}"); "what was reported cannot be remembered");
        }
    }
    // A lock or a configuration that failed before the road began has no line of its own yet.
    for ended in all
        .iter()
        .filter(|e| e.state.is_none() && e.milliseconds == 0)
    {
        if let Err(failure) = ended.result.as_ref().map_err(|f| f).map(|_| ())
            && failure.class != Class::Busy
        {
            event!(ERROR, "poll.failed", app = ended.app.as_str(), stage = "lock", outcome = failure.class.word(), exit = i64::from(failure.class.exit_code()), error = failure.message.as_str(); "{}", failure.help.join("; "));
        }
    }
    let mut codes: Vec<u8> = all
        .iter()
        .map(|e| {
            e.result
                .as_ref()
                .map_or_else(|f| f.class.exit_code(), |_| 0)
        })
        .collect();
    if let Some(metrics) = &config.metrics {
        let samples: Vec<Sample> = all
            .iter()
            .filter(|e| !is_busy(e))
            .map(|e| sample(e, now))
            .collect();
        if let Err(e) = metrics::update(&metrics.textfile, &samples, now.as_second() as f64) {
            event!(WARN, "report.failed", stage = "report", error = format!("{e:#}"); "the metrics could not be written");
        }
    }
    let code = exit_code(codes.iter().copied());
    event!(INFO, "run.finished", stage = "report", outcome = if code == 0 { "ok" } else { "failed" }, exit = i64::from(code), ms = began.elapsed().as_millis() as u64; "{} apps", all.len());
    if let Some(e) = context.log.error() {
        console.say(&format!(
            "poller: the log {} cannot be written: {e}",
            context.log_path.display()
        ));
        console.say("  make room (df -h, df -i); the next run goes on by itself");
        codes.push(Class::Io.exit_code());
    }
    if cli.json {
        print_json(context, &all, exit_code(codes.iter().copied()));
    }
    exit_code(codes)
}

fn is_busy(ended: &Ended) -> bool {
    ended.result.as_ref().is_err_and(|f| f.class == Class::Busy)
}

/// Reports a failure, its end, or nothing; remembers it in the app's lock file.
fn tell(context: &Context, console: &Console, ended: &mut Ended, now: Timestamp) -> Result<()> {
    if is_busy(ended) {
        return Ok(());
    }
    let failure = ended.result.as_ref().err();
    let fingerprint = failure.map(|f| fingerprint(f, ended.tip.as_ref()));
    let before = ended.lock.as_ref().and_then(|l| l.content.reported.clone());
    let (say, memory) = memory::decide(before.as_ref(), fingerprint.as_deref(), now);
    if !console.is_watched() {
        match (&say, failure) {
            (Say::Failure | Say::StillFailing { .. }, Some(failure)) => {
                if let Say::StillFailing { since } = say {
                    console.say(&format!(
                        "poller: {}: still the same since {since:.0}:",
                        ended.app
                    ));
                }
                mail(context, console, ended, failure);
            }
            (Say::Recovered { since }, _) => {
                // A report on a good day would be mail; cron's silence on 0 is part of the contract.
                event!(INFO, "poll.recovered", app = ended.app.as_str(), stage = "report"; "well again; it failed since {since:.0}");
            }
            _ => {}
        }
    }
    match &mut ended.lock {
        Some(lock) => lock.remember(memory),
        None => Ok(()),
    }
}

/// What makes a failure the same as the one before: its class and its first line, without numbers that change.
fn fingerprint(failure: &Failure, tip: Option<&Tip>) -> String {
    let line = failure.message.lines().next().unwrap_or_default();
    let line: String = line.chars().take(300).collect();
    format!(
        "{} {} {line}",
        failure.class.word(),
        tip.map_or("", |t| t.commit.as_str())
    )
}

/// The report that cron mails.
fn mail(context: &Context, console: &Console, ended: &Ended, failure: &Failure) {
    console.say(&format!(
        "poller on {}: {}: {}",
        context.host, ended.app, failure.message
    ));
    failure
        .help
        .iter()
        .for_each(|line| console.say(&format!("  {line}")));
    if !ended.last.is_empty() {
        console.say("  the end of what it said:");
        ended
            .last
            .iter()
            .for_each(|line| console.say(&format!("  | {line}")));
    }
    console.say(&format!(
        "  log: {} (run {})",
        context.log_path.display(),
        context.run
    ));
}

fn sample(ended: &Ended, now: Timestamp) -> Sample {
    let state = ended.state.as_ref();
    let deployed = state
        .and_then(|s| s.deployed.as_ref())
        .map(|d| d.commit.to_string());
    let word = match &ended.result {
        Err(f) if matches!(f.class, Class::Refused) => "refused",
        Err(f) if matches!(f.class, Class::Unreachable | Class::Protocol) => "unreachable",
        _ => {
            let policy = Policy {
                retries: ended.retries,
                paths: &[],
                force: Force::No,
            };
            state.map_or("new", |s| {
                state_word(s, ended.tip.as_ref().map(|t| &t.commit), &policy, now)
            })
        }
    };
    let outcome = ended
        .result
        .as_ref()
        .map_or_else(|f| f.class.word(), Outcome::word);
    Sample {
        app: ended.app.clone(),
        commit: deployed,
        reference: ended.tip.as_ref().map(|t| t.reference.clone()),
        state: word,
        outcome,
        polled: ended.tip.is_some(),
        deploy: ended.deploy.map(|ms| (outcome, ms as f64 / 1000.0)),
        git_operations: u64::from(ended.state.is_some()),
        git_errors: u64::from(ended.state.is_some() && ended.tip.is_none()),
    }
}

fn print_json(context: &Context, all: &[Ended], code: u8) {
    let apps: Vec<serde_json::Value> = all
        .iter()
        .map(|ended| {
            let outcome = ended.result.as_ref().map_or_else(|f| f.class.word(), Outcome::word);
            let failure = ended.result.as_ref().err();
            let why = match &ended.result {
                Ok(Outcome::Skipped { why, .. }) => Some(why.clone()),
                _ => None,
            };
            serde_json::json!({
                "app": ended.app,
                "outcome": outcome,
                "commit": ended.tip.as_ref().map(|t| t.commit.as_str()),
                "ref": ended.tip.as_ref().map(|t| t.reference.as_str()),
                "deployed": ended.state.as_ref().and_then(|s| s.deployed.as_ref()).map(|d| d.commit.as_str()),
                "why": why,
                "error": failure.map(|f| f.message.as_str()),
                "help": failure.map(|f| &f.help),
                "ms": ended.milliseconds,
            })
        })
        .collect();
    let whole = serde_json::json!({ "schema": 1, "run": context.run, "host": context.host, "exit": code, "apps": apps });
    println!("{whole:#}");
}
