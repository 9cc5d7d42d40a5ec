//! What the supervisor finds out about apps before any network: who their scripts run as, where their journals are,
//! and the keys and lists that their helpers get. Each user is looked up, and each file read, once.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::unistd::Uid;

use super::messages::{Access, KeyFile, Origin, Secret, Signers};
use super::supervisor::missing_is_config;
use crate::config::{self, App, Config};
use crate::journal;
use crate::outcome::{Class, Failure};
use crate::stages::signature;
use crate::sys::account::Account;
use crate::sys::trusted_file::{self, Secrecy};

/// An app with everything looked up and checked, before any network.
pub struct Prepared<'c> {
    pub app: &'c App,
    /// Who the scripts run as.
    pub account: Account,
    pub origin: Origin,
    pub repository: PathBuf,
    /// Whose signatures count, where they are asked for.
    pub signers: Option<Signers>,
}

/// Looks accounts up and reads keys, each file once.
pub struct Preparation<'c> {
    config: &'c Config,
    me: Account,
    is_root: bool,
    read: HashMap<(PathBuf, Secrecy), Result<String, Failure>>,
    fetch: OnceCell<Account>,
}

impl<'c> Preparation<'c> {
    pub fn new(config: &'c Config) -> Result<Self> {
        let (me, is_root) = (Account::current()?, Uid::effective().is_root());
        Ok(Preparation { config, me, is_root, read: HashMap::new(), fetch: OnceCell::new() })
    }

    /// What is known of an app without its server: who its scripts run as, and where its journal is.
    pub fn place(&self, app: &App) -> Result<(Account, PathBuf)> {
        Ok((self.deploy_account(app)?, self.repository(app)?))
    }

    pub fn repository(&self, app: &App) -> Result<PathBuf> {
        let source = &app.source;
        journal::repository_path(&self.config.paths.state, &source.url, source.identity.as_deref())
    }

    pub fn prepare(&mut self, app: &'c App) -> Result<Prepared<'c>> {
        let (account, repository) = self.place(app)?;
        for command in [&app.deploy.build, &app.deploy.script, &app.health.as_ref().and_then(|h| h.command.clone())]
            .into_iter()
            .flatten()
        {
            let program = Path::new(command.program());
            if program.is_absolute() {
                trusted_file::check_program(program).map_err(|e| {
                    missing_is_config(e, "name a program of this host, or a file of the release as ./NAME")
                })?;
            }
        }
        let origin = self.origin(app)?;
        let signers = self.signers(app)?;
        Ok(Prepared { app, account, origin, repository, signers })
    }

    /// The app's `allowed_signers` and `pgp_keys`, without mistakes.
    pub fn signers(&mut self, app: &App) -> Result<Option<Signers>> {
        let config::Verify { allowed_signers, pgp_keys, .. } = &app.verify;
        if allowed_signers.is_none() && pgp_keys.is_none() {
            return Ok(None);
        }
        let help = "list the keys of those who may sign there, as in ssh-keygen(1) under ALLOWED SIGNERS";
        let allowed_signers = self.key_file(allowed_signers.as_deref(), help)?;
        let help = "export the keys of those who may sign there: gpg --export --armor NAME…";
        let pgp_keys = self.key_file(pgp_keys.as_deref(), help)?;
        let signers = Signers { allowed_signers, pgp_keys };
        signature::proofread(&signers)?;
        Ok(Some(signers))
    }

    fn key_file(&mut self, file: Option<&Path>, help: &str) -> Result<Option<KeyFile>> {
        let Some(file) = file else { return Ok(None) };
        let text = self.file(file, Secrecy::Public, help)?;
        Ok(Some(KeyFile { file: file.to_owned(), text }))
    }

    /// Where an app's commits come from, and its key.
    pub fn origin(&mut self, app: &App) -> Result<Origin> {
        let source = &app.source;
        let access = match (&source.remote, &source.ssh_command) {
            (config::Remote::Local(_), _) => Access::Local,
            (config::Remote::Ssh { .. }, Some(argv)) => Access::Program(argv.clone()),
            (config::Remote::Ssh { .. }, None) => self.key(app)?,
        };
        Ok(Origin { url: source.url.clone(), remote: source.remote.clone(), access, timeout: source.timeout })
    }

    pub fn deploy_account(&self, app: &App) -> Result<Account> {
        let deploy = &app.deploy;
        if self.is_root {
            let Some(user) = &deploy.user else {
                return Err(Failure::new(Class::Config, format!("{}: `[deploy] user` is missing", app.file.display()))
                    .help("name the user that the script runs as: user = \"www-data\"")
                    .into());
            };
            let account =
                Account::named(user, deploy.group.as_deref()).with_context(|| app.file.display().to_string())?;
            self.keep_apart(app, &account)?;
            return Ok(account);
        }
        let group = deploy.group.as_deref().map(nix::unistd::Group::from_name).transpose()?.flatten();
        let other_user = deploy.user.as_ref().filter(|user| **user != self.me.name);
        let other_group = deploy.group.as_ref().filter(|_| group.is_none_or(|g| g.gid.as_raw() != self.me.gid));
        if let Some(other) = other_user.or(other_group) {
            return Err(Failure::new(
                Class::Refused,
                format!("{}: poller runs as {} and cannot become {other}", app.file.display(), self.me.name),
            )
            .help("run it as root, or leave `user` and `group` out of `[deploy]`")
            .into());
        }
        Ok(self.me.clone())
    }

    /// What fetches decides what every app's journal says, so no script runs with its rights.
    fn keep_apart(&self, app: &App, account: &Account) -> Result<()> {
        // Where there is no such user, that is told once for all apps.
        let Ok(Some(fetch)) = self.fetch_account() else { return Ok(()) };
        let (file, fetcher) = (app.file.display(), &fetch.name);
        let failure = if account.uid == fetch.uid {
            let text = format!("{file}: {} fetches, and could rewrite what every app's journal says", account.name);
            Failure::new(Class::Config, text)
                .help("name another `user` in `[deploy]`, or another `fetch_user` in `[host]`")
        } else if account.gid == fetch.gid {
            let text = format!(
                "{file}: {} would have the group of {fetcher}, which may read every app's repository",
                account.name
            );
            Failure::new(Class::Config, text).help("name another `group` in `[deploy]`, such as the user's own")
        } else {
            return Ok(());
        };
        Err(failure.into())
    }

    fn key(&mut self, app: &App) -> Result<Access> {
        let source = &app.source;
        let path = source.identity.clone().context("an SSH remote without an identity")?;
        let new_key = format!("make one: ssh-keygen -t ed25519 -N '' -f {}", path.display());
        let key = match self.file(&path, Secrecy::Private, &new_key) {
            Ok(key) => key,
            Err(e) => return Err(self.public_half(&path).map_or(e, anyhow::Error::from)),
        };
        let known_hosts_path = source.known_hosts.clone();
        let known_hosts = self.file(
            &known_hosts_path,
            Secrecy::Public,
            "pin the server's host key there: one line, as in OpenSSH's known_hosts",
        )?;
        Ok(Access::Key { path, key: Secret(key), known_hosts_path, known_hosts })
    }

    /// A key that others may read is most often the wrong file: the public half.
    fn public_half(&self, path: &Path) -> Option<Failure> {
        let text = trusted_file::read(path, Secrecy::Public).ok()?;
        let is_public = ["ssh-", "ecdsa-", "sk-"].iter().any(|kind| text.starts_with(kind));
        is_public.then(|| {
            Failure::new(Class::Config, format!("{} is a public key, not a private one", path.display()))
                .help("`identity` names the private key, whose name has no .pub at its end")
        })
    }

    fn file(&mut self, path: &Path, secrecy: Secrecy, help: &str) -> Result<String> {
        let read = || trusted_file::read(path, secrecy).map_err(|e| missing_is_config(e, help));
        Ok(self.read.entry((path.to_owned(), secrecy)).or_insert_with(read).clone()?)
    }

    /// The user for everything that reads what a git server sent. None: poller's own.
    pub fn fetch_account(&self) -> Result<Option<Account>> {
        if !self.is_root {
            return Ok(None);
        }
        if let Some(found) = self.fetch.get() {
            return Ok(Some(found.clone()));
        }
        let name = &self.config.host.fetch_user;
        let found = Account::named(name, None).map_err(Failure::of).map_err(|failure| {
            let mut failure = Failure { message: format!("[host] fetch_user: {}", failure.message), ..failure };
            failure.help = vec![format!(
                "create it: useradd --system --home-dir {} --shell /usr/sbin/nologin {name}",
                self.config.paths.state.display()
            )];
            failure
        })?;
        Ok(Some(self.fetch.get_or_init(|| found).clone()))
    }
}
