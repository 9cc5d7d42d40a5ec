//! What commands begin with: the configuration, the app that is meant, the lock, and who asks.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;
use nix::sys::signal::SigSet;
use nix::unistd::Uid;

use crate::cli::Common;
use crate::config::{App, AppName, Config, LoadError};
use crate::journal::Journal;
use crate::journal::state::State;
use crate::near::near;
use crate::outcome::{Class, Failure, is_of_kind};
use crate::processes::messages::{ReaderReply, ReaderRequest};
use crate::processes::output::Output;
use crate::processes::preparation::Preparation;
use crate::processes::supervisor;
use crate::processes::workshop::Workshop;
use crate::report::terminal::{Console, print_failure};
use crate::report::{log, printable};
use crate::road::{AskedBy, Context, Road};
use crate::stages::decide::Force;
use crate::stages::lock::{self, Asked, Lock};
use crate::sys::account::Account;
use crate::sys::signals;

/// Runs a command's body and tells how it failed, if it did.
pub fn run(body: impl FnOnce(&Console) -> Result<u8>) -> u8 {
    let console = Console::new();
    body(&console).unwrap_or_else(|e| {
        let failure = Failure::of(e);
        print_failure(&failure);
        console.say(&format!("poller: {}", failure.message));
        failure.help.iter().for_each(|line| console.say(&format!("  {line}")));
        failure.class.exit_code()
    })
}

/// Opens the log and begins to listen for signals: from here on everything is on record. `wait` is what the
/// run waits before it begins, which is no part of its deadline.
pub fn context(
    common: &Common,
    config: &Config,
    signals: SigSet,
    fetch_account: Option<Account>,
    wait: Duration,
) -> Result<Context> {
    let run = uuid::Uuid::now_v7().to_string();
    let log = log::open(&config.paths.log, &run, common.verbose).map_err(|e| {
        let class = if is_denied(&e) { Class::Refused } else { Class::Io };
        let failure = Failure { class, ..Failure::of(e) };
        let message = format!("the log cannot be opened: {}", failure.message);
        Failure { message, ..failure }.help("nothing was done; set `[paths] log`, or mend its folder")
    })?;
    Ok(Context {
        host: config.host.name.clone(),
        asked_by: AskedBy::Person,
        who: supervisor::who(&Account::current()?),
        stop: signals::watch(signals, config.host.deadline + wait)?,
        console: Console::new(),
        log,
        log_path: config.paths.log.clone(),
        is_root: Uid::effective().is_root(),
        fetch_account,
        run,
    })
}

/// The apps that were named, or all.
pub struct Selection<'c> {
    pub apps: Vec<&'c App>,
    /// Apps of other hosts.
    pub elsewhere: Vec<&'c App>,
    pub broken: Vec<(String, Failure)>,
}

/// The apps that are named, or all that are for this host.
pub fn select<'c>(config: &'c Config, named: &[String]) -> Result<Selection<'c>> {
    let wanted = |name: &str| named.is_empty() || named.iter().any(|n| n == name);
    let known = known(config);
    if let Some(name) = named.iter().find(|name| !known.contains(&name.as_str())) {
        return Err(unknown(config, name).into());
    }
    let chosen = config.apps.iter().filter(|a| wanted(a.name.as_str()));
    let (apps, elsewhere) = chosen.partition(|a| a.source.applies_to(&config.host.name));
    let broken = config.broken.iter().filter(|b| wanted(&b.name)).map(|b| (b.name.clone(), broken(&b.error))).collect();
    Ok(Selection { apps, elsewhere, broken })
}

/// The one app that a command is about.
pub fn one<'c>(config: &'c Config, name: &str) -> Result<&'c App> {
    if let Some(app) = config.apps.iter().find(|app| app.name.as_str() == name) {
        return Ok(app);
    }
    match config.broken.iter().find(|b| b.name == name) {
        Some(b) => Err(broken(&b.error).into()),
        None => Err(unknown(config, name).into()),
    }
}

fn known(config: &Config) -> Vec<&str> {
    let apps = config.apps.iter().map(|a| a.name.as_str());
    apps.chain(config.broken.iter().map(|b| b.name.as_str())).collect()
}

fn unknown(config: &Config, name: &str) -> Failure {
    let known = known(config);
    let of_the_host = Path::new("/etc/poller/apps.d").join(format!("{name}.toml"));
    if !Uid::effective().is_root() && AppName::parse(name).is_ok() && of_the_host.exists() {
        // Somebody who forgot sudo.
        return not_allowed(
            &format!("{} is the host's, and {} yours", of_the_host.display(), config.file.display()),
            "…",
        );
    }
    let failure = Failure::new(Class::Usage, format!("there is no app `{}`", printable(name)));
    let folder = config.file.with_file_name("apps.d");
    let failure = match near(name, &known) {
        Some(near) => failure.help(format!("did you mean `{near}`?")),
        None => failure,
    };
    match known.as_slice() {
        [] => failure.help(format!("there are none yet in {}; make one: poller init NAME URL", folder.display())),
        _ => failure.help(format!("there are: {}", known.join(", "))),
    }
}

/// The error belongs to the configuration, so its failure is made from what it shows.
pub fn broken(error: &LoadError) -> Failure {
    match error {
        LoadError::Problem(problem) => Failure::new(Class::Config, problem.to_string()),
        LoadError::Read(e) => match e.downcast_ref::<Failure>() {
            Some(failure) => failure.clone(),
            None => Failure::new(Class::Config, format!("{e:#}")).help("mend or remove the file"),
        },
    }
}

/// What a road leaves behind for whoever reports.
#[derive(Default)]
pub struct Trail {
    pub output: Output,
    pub ms: BTreeMap<String, u64>,
    pub state: Option<State>,
    /// The next poll that records something sees to it.
    untidy: bool,
}

/// What an operator needs to change something about an app: the same right as a poll.
pub struct Desk<'c> {
    pub config: &'c Config,
    pub context: Context,
    pub preparation: Preparation<'c>,
}

impl<'c> Desk<'c> {
    /// # Errors
    /// `Refused` for somebody who may not: state and locks are another user's.
    pub fn open(common: &Common, config: &'c Config, command: &str) -> Result<Desk<'c>> {
        let signals = signals::block()?;
        admit(config, command)?;
        let preparation = Preparation::new(config)?;
        let fetch_account = preparation.fetch_account()?;
        let context = supervisor::make_folders(&config.paths, fetch_account.as_ref())
            .and_then(|()| context(common, config, signals, fetch_account, Duration::ZERO))
            .map_err(|e| unless_denied(e, command))?;
        Ok(Desk { config, context, preparation })
    }

    /// The road of one app, with its lock held and its journal read, but without its server.
    pub fn road<'a>(&'a self, app: &'a App, lock: &'a mut Lock, trail: &'a mut Trail) -> Result<Road<'a>> {
        let (account, repository) = self.preparation.place(app)?;
        let journal = self.journal(app)?;
        let context = &self.context;
        let deploy_account = context.is_root.then(|| account.clone());
        let fetch = context.fetch_account.as_ref();
        Ok(Road {
            context,
            app,
            account,
            origin: None,
            signers: None,
            force: Force::No,
            lock,
            journal,
            shop: Workshop::new(app, repository, fetch, deploy_account, &context.stop),
            output: &mut trail.output,
            ms: &mut trail.ms,
            state: &mut trail.state,
            untidy: &mut trail.untidy,
        })
    }

    fn journal(&self, app: &App) -> Result<Journal> {
        let repository = self.preparation.repository(app)?;
        let request = ReaderRequest::Journals(vec![(app.name.as_str().to_owned(), repository)]);
        match supervisor::read(self.context.fetch_account.as_ref(), &request)? {
            ReaderReply::Journals(mut journals) if journals.len() == 1 => Ok(journals.remove(0)?),
            _ => anyhow::bail!("the reader answered another question"),
        }
    }

    /// The app's lock, with whatever a killed run left tidied up.
    pub fn lock(&self, app: &App) -> Result<Lock> {
        let name = app.name.as_str();
        match lock::take(&lock::path(&self.config.paths.run, name), &self.context.run, Timestamp::now())? {
            Asked::Busy(holder) => Err(busy(&holder).into()),
            Asked::Held(mut lock) => {
                lock.recover(name)?;
                Ok(lock)
            }
        }
    }
}

/// Whether the caller may change state at all. Told before anything is tried, in one sentence.
pub fn admit(config: &Config, command: &str) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    let me = Uid::effective();
    if me.is_root() {
        return Ok(());
    }
    for folder in [&config.paths.state, &config.paths.run] {
        if std::fs::metadata(folder).is_ok_and(|meta| meta.uid() != me.as_raw()) {
            return Err(not_allowed(&format!("{} is not yours", folder.display()), command).into());
        }
    }
    Ok(())
}

pub fn is_denied(e: &anyhow::Error) -> bool {
    !Uid::effective().is_root() && is_of_kind(e, std::io::ErrorKind::PermissionDenied)
}

/// The same error, unless the caller's rights are what is in the way.
pub fn unless_denied(e: anyhow::Error, command: &str) -> anyhow::Error {
    if is_denied(&e) { not_allowed(&format!("{e:#}"), command).into() } else { e }
}

pub fn not_allowed(why: &str, command: &str) -> Failure {
    Failure::new(Class::Refused, format!("not allowed: {why}"))
        .help(format!("as root: sudo poller {command}").trim_end())
}

/// Another run is at it.
pub fn busy(holder: &lock::Content) -> Failure {
    let since = holder.since.map(|t| format!(" since {t:.0}")).unwrap_or_default();
    let text = format!(
        "another run holds the lock: process {} (run {}){since}, in the stage `{}`",
        holder.pid, holder.run, holder.stage
    );
    Failure::new(Class::Busy, text).help("nothing to do: its end frees the lock, whatever way it ends")
}

/// Asks the journals, as the user who may read them.
pub fn read(config: &Config, request: &ReaderRequest) -> Result<ReaderReply> {
    let preparation = Preparation::new(config)?;
    supervisor::read(preparation.fetch_account()?.as_ref(), request)
}
