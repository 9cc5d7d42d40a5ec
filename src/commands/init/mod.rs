//! `poller init NAME URL`: key, host key, target directory and apps.d/NAME.toml for a new app.
//!
//! All that can go wrong is looked at before anything is made, so that a mistake leaves nothing behind.
//! What is there is used as it is and never written over, so what was cut short is finished by running
//! the same again. The app's file comes last: what it names is there already.
//!
//! - `answers` asks, or takes flags
//! - `key`, `host_key`, `place` and `app_file` each know one part: what is there, and how to make it
//! - `forge` knows where a key is added
//! - `told` says what was done

mod answers;
mod app_file;
mod forge;
mod host_key;
mod key;
mod place;
mod told;

use std::path::PathBuf;

use anyhow::Result;
use clap::CommandFactory;
use nix::unistd::Uid;

use super::setting;
use crate::cli::{Cli, Common, Init};
use crate::config::{App, AppName, Config, Remote, given};
use crate::outcome::{Class, Failure};
use crate::processes::preparation::Preparation;
use crate::processes::supervisor;
use crate::report::printable;
use crate::report::terminal::{Console, print, print_json, tell};
use crate::sys::account::Account;
use crate::sys::fresh::{self, Draft};
use answers::{Asker, Flags, mistyped};
use host_key::{HostKey, Server};
use key::Key;
use place::Place;
use told::Told;

pub fn run(common: &Common, init: &Init) -> u8 {
    setting::run(|console| {
        set_up(common, init, console).map_err(|e| if setting::is_denied(&e) { denied(&e) } else { e })?;
        Ok(0)
    })
}

fn denied(error: &anyhow::Error) -> anyhow::Error {
    setting::not_allowed(&format!("{error:#}"), "init …").into()
}

fn set_up(common: &Common, init: &Init, console: &Console) -> Result<()> {
    let name = name(&init.name)?;
    given::remote(&init.url).map_err(|why| mistyped("", &why))?;
    let flags = Flags::of(init)?;
    let accept = init.accept_host_key.as_deref().map(host_key::accepted).transpose()?;
    let config = supervisor::load(common.config.as_deref())?;
    let me = Account::current()?;
    let flags = own_user(flags, &me)?;
    let preparation = Preparation::new(&config)?;
    let fetch = preparation.fetch_account()?;
    let asker = Asker::new();
    if !Uid::effective().is_root() && common.config.is_none() {
        console.note(&format!(
            "for {} alone, in {}; for the host: sudo poller init …",
            me.name,
            folder(&config).display()
        ));
    }
    let draft = match known(&config, &name)? {
        Some(app) => {
            same(app, &init.url, &flags)?;
            Drafted { app: app.clone(), text: None }
        }
        None => Drafted::new(common, init, &config, &name, flags, &asker)?,
    };
    let app = &draft.app;
    let (account, _) = preparation.place(app)?;
    let key = prepare_key(app, &config)?;
    let place = Place::prepare(&app.target.directory, &account)?;
    if draft.text.is_some() {
        fresh::check(&app.file)?;
    }
    // The server is asked last: all else is sure by now.
    let host_key = prepare_host_key(app, fetch.as_ref(), accept.as_deref(), &asker)?;
    let parts = Parts { app, account: &account, key, host_key, place, text: draft.text };
    parts.make().map_err(half_done)?;
    setting::one(&supervisor::load(common.config.as_deref())?, name.as_str())?;
    let told = Told::of(&parts, common.config.as_ref().map(|_| config.file.as_path()))?;
    if let (Asker::Terminal, Some(_)) = (&asker, &parts.text) {
        // The questions are over.
        tell("");
    }
    match common.json {
        true => print_json(&told.json()),
        false => print(&told.text()),
    }
    Ok(())
}

/// A name that can be an app's, and be polled by it.
fn name(text: &str) -> Result<AppName, Failure> {
    let name = AppName::parse(text).map_err(|why| Failure::new(Class::Usage, why))?;
    let taken = text == "help" || Cli::command().find_subcommand(text).is_some();
    if taken {
        return Err(Failure::new(
            Class::Usage,
            format!("`{text}` is a command of poller's: no app of that name could be polled by it"),
        )
        .help(format!("choose another name, such as {text}-app")));
    }
    if let Some(other) = text.strip_suffix(".pub") {
        let message = format!("`{text}`: its key would lie where the public half of `{other}`'s does");
        return Err(Failure::new(Class::Usage, message).help("choose a name that does not end in .pub"));
    }
    Ok(name)
}

/// An ordinary user's apps run as that user, which needs no saying.
fn own_user(flags: Flags, me: &Account) -> Result<Flags, Failure> {
    match &flags.user {
        Some(other) if !Uid::effective().is_root() && *other != me.name => {
            let message =
                format!("--user {}: poller runs as {} and cannot become another user", printable(other), me.name);
            Err(Failure::new(Class::Usage, message).help("as root: sudo poller init …, or leave --user out"))
        }
        _ => Ok(flags),
    }
}

fn folder(config: &Config) -> PathBuf {
    config.file.parent().map_or_else(|| PathBuf::from("/"), PathBuf::from)
}

/// The app of this name, if its file is there.
fn known<'c>(config: &'c Config, name: &AppName) -> Result<Option<&'c App>> {
    let is_there = config.apps.iter().map(|app| app.name.as_str()).chain(config.broken.iter().map(|b| b.name.as_str()));
    if is_there.into_iter().any(|there| there == name.as_str()) {
        return setting::one(config, name.as_str()).map(Some);
    }
    Ok(None)
}

/// Refuses a second `init` that means something else than the file says.
fn same(app: &App, url: &str, flags: &Flags) -> Result<(), Failure> {
    let file = app.file.display();
    if app.source.url != url {
        let message = format!("{} is set up already, for {} ({file})", app.name, printable(&app.source.url));
        return Err(Failure::new(Class::Usage, message).help("choose another name, or edit the file"));
    }
    let deploy = &app.deploy;
    let differs = [
        ("branch, --tag or --ref", flags.follow.as_ref().is_some_and(|follow| *follow != app.source.follow)),
        ("directory", flags.directory.as_ref().is_some_and(|directory| *directory != app.target.directory)),
        (
            "user",
            flags.user.is_some() && flags.user != deploy.user && (Uid::effective().is_root() || deploy.user.is_some()),
        ),
        ("script", flags.script.is_some() && flags.script != deploy.script),
        ("restart", !flags.restart.is_empty() && flags.restart != deploy.restart),
    ];
    match differs.iter().find(|(_, differs)| *differs) {
        Some((flag, _)) => Err(Failure::new(
            Class::Usage,
            format!("{} is set up already, and {file} says something else than --{flag}", app.name),
        )
        .help("edit the file, or leave the flag out: what is there is never written over")),
        None => Ok(()),
    }
}

/// An app as it is in its file, or will be.
struct Drafted {
    app: App,
    /// None: the file is there.
    text: Option<String>,
}

impl Drafted {
    /// Asks what is not given, and loads the file before it is written, so that no broken one ever is.
    fn new(
        common: &Common,
        init: &Init,
        config: &Config,
        name: &AppName,
        flags: Flags,
        asker: &Asker,
    ) -> Result<Drafted> {
        let answers = answers::collect(name, init, flags, asker)?;
        for other in config.apps.iter().filter(|other| other.source.applies_to(&config.host.name)) {
            let theirs = &other.target.directory;
            if theirs.starts_with(&answers.directory) || answers.directory.starts_with(theirs) {
                let message =
                    format!("the app `{}` publishes to {} ({})", other.name, theirs.display(), other.file.display());
                return Err(Failure::new(Class::Usage, message)
                    .help("give each app a directory of its own, none inside another: --directory DIR")
                    .into());
            }
        }
        if let Some(user) = &answers.user {
            Account::named(user, None)?;
        }
        let remote = given::remote(&init.url).map_err(|why| mistyped("", &why))?;
        let text = app_file::text(name, &init.url, &remote, &answers);
        let file = folder(config).join("apps.d").join(format!("{name}.toml"));
        let loaded = supervisor::load_with(common.config.as_deref(), &file, &text)?;
        let app = setting::one(&loaded, name.as_str())?.clone();
        Ok(Drafted { app, text: Some(text) })
    }
}

fn prepare_key(app: &App, config: &Config) -> Result<Option<Key>> {
    let comment = format!("poller {} on {}", app.name, config.host.name);
    app.source.identity.as_deref().map(|path| Key::prepare(path, &comment)).transpose()
}

/// None where there is no host key, or where `ssh_command` looks after it.
fn prepare_host_key<'a>(
    app: &'a App,
    fetch: Option<&Account>,
    accept: Option<&str>,
    asker: &Asker,
) -> Result<Option<HostKey<'a>>> {
    let source = &app.source;
    let no_use = match (&source.remote, &source.ssh_command) {
        (Remote::Ssh { host, port, .. }, None) => {
            let server = Server { host, port: *port };
            return HostKey::prepare(server, &source.known_hosts, fetch, accept, asker).map(Some);
        }
        (Remote::Ssh { .. }, Some(_)) => format!("the `ssh_command` of {} checks host keys by itself", app.name),
        (Remote::Local(_), _) => "a local repository has no host key".to_owned(),
    };
    match accept {
        None => Ok(None),
        Some(_) => Err(Failure::new(Class::Usage, no_use).help("leave --accept-host-key out").into()),
    }
}

/// Everything an app needs, there or to be made.
struct Parts<'a> {
    app: &'a App,
    account: &'a Account,
    /// None for a local repository, and where `ssh_command` brings its own.
    key: Option<Key>,
    host_key: Option<HostKey<'a>>,
    place: Place<'a>,
    /// None: the app's file is there.
    text: Option<String>,
}

impl Parts<'_> {
    fn make(&self) -> Result<()> {
        if let Some(key) = &self.key {
            key.write()?;
        }
        if let Some(host_key) = &self.host_key {
            host_key.write()?;
        }
        self.place.write()?;
        let Some(text) = &self.text else { return fresh::tidy(&self.app.file) };
        let mut draft = Draft::begin(&self.app.file)?;
        draft.write(text)?;
        draft.keep(0o644)
    }
}

/// What was made by then is whole, and used by the next try.
fn half_done(error: anyhow::Error) -> anyhow::Error {
    if setting::is_denied(&error) {
        return error;
    }
    let failure = Failure::of(error);
    let help = "what was made is whole and stays; mend this and run the same again, which makes the rest";
    match failure.class {
        Class::Io => Failure { help: vec![help.to_owned()], ..failure }.into(),
        _ => failure.help(help).into(),
    }
}
