//! The supervisor: what must be done with full rights, and nothing more. It reads the configuration and
//! the keys, takes the locks, starts the others and hands each what it needs.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::unistd::Uid;

use super::Role;
use super::helper::{Helper, Patience, Start};
use super::messages::{
    Origin, Origins, Probe, ProbeApp, Probed, ProberRequest, Push, ReaderReply, ReaderRequest, Right,
};
use super::preparation::Prepared;
use crate::config::{self, Config, Defaults, Paths, Reader};
use crate::outcome::{Class, Failure, is_of_kind};
use crate::sys::account::Account;
use crate::sys::fresh;
use crate::sys::signals::Stop;
use crate::sys::trusted_file::{self, Secrecy};

/// Reads configuration that only root or the caller can have written.
struct Trusted;

impl Reader for Trusted {
    fn read(&self, path: &Path) -> Result<String> {
        trusted_file::read(path, Secrecy::Public)
    }

    fn list(&self, folder: &Path) -> Result<Vec<PathBuf>> {
        if !folder.try_exists().with_context(|| folder.display().to_string())? {
            return Ok(Vec::new());
        }
        trusted_file::check_folder(folder)?;
        let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
        entries.map(|entry| Ok(entry?.path())).collect()
    }
}

/// The same, with a file that is to be written, to see what it would mean.
struct WithNew<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Reader for WithNew<'_> {
    fn read(&self, path: &Path) -> Result<String> {
        if path == self.path { Ok(self.text.to_owned()) } else { Trusted.read(path) }
    }

    fn list(&self, folder: &Path) -> Result<Vec<PathBuf>> {
        let mut files = Trusted.list(folder)?;
        if self.path.parent() == Some(folder) && !files.iter().any(|file| file == self.path) {
            files.push(self.path.to_owned());
        }
        Ok(files)
    }
}

/// Reads it whoever can have written it: for a look at what the files say, and nothing more.
struct Plain;

impl Reader for Plain {
    fn read(&self, path: &Path) -> Result<String> {
        // Something that is no file, such as a pipe, might never end.
        let meta = std::fs::metadata(path).with_context(|| path.display().to_string())?;
        anyhow::ensure!(meta.is_file(), "{} is not a plain file", path.display());
        std::fs::read_to_string(path).with_context(|| path.display().to_string())
    }

    fn list(&self, folder: &Path) -> Result<Vec<PathBuf>> {
        match std::fs::read_dir(folder) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            entries => {
                let entries = entries.with_context(|| folder.display().to_string())?;
                entries.map(|entry| Ok(entry?.path())).collect()
            }
        }
    }
}

/// Reads the configuration that polls go by: only root or the caller can have written it.
pub fn load(file: Option<&Path>) -> Result<Config, Failure> {
    load_through(file, &Trusted)
}

/// Reads a configuration to say what is wrong with it, and not to act on it.
pub fn load_unchecked(file: Option<&Path>) -> Result<Config, Failure> {
    load_through(file, &Plain)
}

/// The configuration as it would be with `text` at `path`.
pub fn load_with(file: Option<&Path>, path: &Path, text: &str) -> Result<Config, Failure> {
    load_through(file, &WithNew { path, text })
}

/// Where an ordinary user's things are when nothing else is said, and root's.
fn load_through(file: Option<&Path>, reader: &dyn Reader) -> Result<Config, Failure> {
    let root = Uid::effective().is_root();
    let host_name = nix::unistd::gethostname().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let (default_file, paths) = if root {
        let paths = Paths {
            state: "/var/lib/poller".into(),
            run: "/run/poller".into(),
            log: "/var/log/poller/poller.log".into(),
        };
        (PathBuf::from("/etc/poller/poller.toml"), paths)
    } else {
        let paths = xdg("XDG_STATE_HOME", ".local/state").map(|state| state.join("poller"));
        let default_file = xdg("XDG_CONFIG_HOME", ".config").map(|config| config.join("poller/poller.toml"));
        let named = |e: Failure| file.map(|_| PathBuf::new()).ok_or(e);
        let state = paths.or_else(named)?;
        let paths = Paths { run: state.join("run"), log: state.join("poller.log"), state };
        (default_file.or_else(named)?, paths)
    };
    let defaults = Defaults { host_name, paths, optional_file: file.is_none() };
    let file = file.map_or(default_file, Path::to_owned);
    let config = config::load(&file, defaults, reader).map_err(load_failure)?;
    // Without a home there is no default.
    let Paths { state, run, log } = &config.paths;
    if let Some((name, _)) = [("state", state), ("run", run), ("log", log)].iter().find(|(_, path)| path.is_relative())
    {
        return Err(Failure::new(
            Class::Config,
            format!("{}: HOME is not set, and `[paths] {name}` is not", file.display()),
        )
        .help("set HOME, or `state`, `run` and `log` in `[paths]`"));
    }
    Ok(config)
}

fn xdg(variable: &str, default: &str) -> Result<PathBuf, Failure> {
    // The specification: a path that is not absolute is to be ignored.
    if let Some(set) = std::env::var_os(variable).map(PathBuf::from).filter(|p| p.is_absolute()) {
        return Ok(set);
    }
    let home = std::env::var_os("HOME").map(PathBuf::from).filter(|p| p.is_absolute());
    let home = home.ok_or_else(|| {
        Failure::new(Class::Config, "HOME is not set").help("set it, or name a file: poller --config FILE")
    })?;
    Ok(home.join(default))
}

/// A problem in a file is its own text; an unreadable file is as trusted_file says.
pub fn load_failure(error: config::LoadError) -> Failure {
    match error {
        config::LoadError::Problem(problem) => {
            let text = problem.to_string();
            Failure::new(Class::Config, text)
        }
        config::LoadError::Read(error) => missing_is_config(error, "name another one: poller --config FILE"),
    }
}

/// A file that is named and not there, or is no text, is a wrong configuration, not a broken disk.
pub fn missing_is_config(error: anyhow::Error, help: &str) -> Failure {
    let wrong = [std::io::ErrorKind::NotFound, std::io::ErrorKind::InvalidData];
    let wrong = wrong.into_iter().any(|kind| is_of_kind(&error, kind));
    let denied = is_of_kind(&error, std::io::ErrorKind::PermissionDenied);
    let failure = Failure::of(error);
    if denied && failure.class == Class::Io {
        return Failure { class: Class::Refused, ..failure }
            .help("let the user that poller runs as read it, or run poller as root: sudo poller …");
    }
    if wrong && failure.class == Class::Io {
        return Failure { class: Class::Config, ..failure }.help(help);
    }
    failure
}

/// Makes the folders that packages make too, where they are missing: /run is empty after a boot.
pub fn make_folders(paths: &Paths, fetch: Option<&Account>) -> Result<()> {
    // An ordinary user's other folders lie in the state folder, so that one comes first.
    make_folder(&paths.state, 0o750, fetch)?;
    make_folder(&paths.run, 0o755, None)?;
    trusted_file::check_folder(&paths.run)?;
    make_log_folder(paths)
}

pub fn make_log_folder(paths: &Paths) -> Result<()> {
    if let Some(folder) = paths.log.parent() {
        make_folder(folder, 0o750, None)?;
        trusted_file::check_folder(folder)?;
    }
    Ok(())
}

fn make_folder(path: &Path, mode: u32, owner: Option<&Account>) -> Result<()> {
    use std::os::unix::fs::lchown;
    if !path.try_exists().with_context(|| path.display().to_string())? {
        fresh::own_folder(path, mode)?;
    }
    // Crash before: the next run finds it not given yet.
    if let Some(owner) = owner
        && is_still_to_be_given(path).with_context(|| path.display().to_string())?
    {
        // Where others can write, it might be a link by now.
        if let Some(parent) = path.parent() {
            trusted_file::check_folder(parent)?;
        }
        lchown(path, Some(owner.uid), Some(owner.gid)).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// Whether a folder that root made is nobody else's yet, and empty.
fn is_still_to_be_given(path: &Path) -> std::io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    Ok(std::fs::symlink_metadata(path)?.uid() == 0 && std::fs::read_dir(path)?.next().is_none())
}

/// Starts the prober, which needs a moment until it can listen: what is to be asked is put together meanwhile.
pub fn start_prober(fetch: Option<&Account>) -> Result<Helper> {
    Helper::start(Start { role: Role::Prober, account: fetch, umask: 0o027, descriptors: Vec::new(), input: None })
}

/// Asks for the tips of all apps; `answer` hears of each as soon as it is known. The prober that has answered for
/// all is returned, so that nobody waits for its end who has something to do.
pub fn probe(
    apps: &[&Prepared],
    prober: Result<Helper>,
    jobs: usize,
    stop: &Stop,
    mut answer: impl FnMut(usize, Result<Probed, Failure>),
) -> Option<Helper> {
    let mut waiting: HashMap<&str, usize> = apps.iter().enumerate().map(|(i, p)| (p.app.name.as_str(), i)).collect();
    if waiting.is_empty() {
        return prober.ok();
    }
    let request = Probe {
        origins: Origins::pack(apps.iter().map(|p| &p.origin)),
        apps: apps
            .iter()
            .map(|p| ProbeApp {
                name: p.app.name.as_str().to_owned(),
                follow: p.app.source.follow.clone(),
                repository: p.repository.clone(),
            })
            .collect(),
        connections: jobs,
    };
    // The prober keeps the time itself, twice for an app: connecting, and the exchange. This stands over
    // what it cannot time, such as a local repository on a dead network disk.
    let longest = apps.iter().map(|p| p.origin.timeout).max().unwrap_or_default();
    let rounds = apps.len().div_ceil(jobs.max(1)) as u32 + 1;
    let patience =
        Patience { time: longest * 2 * rounds + Duration::from_secs(10), stop: Some(stop), class: Class::Unreachable };
    let result = (|| -> Result<Helper> {
        let mut prober = prober?;
        prober.send(&ProberRequest::Tips(request))?;
        while !waiting.is_empty() {
            let probed: Probed = prober.receive(patience)?;
            let index =
                waiting.remove(probed.app.as_str()).context("the prober answered for an app that was not asked for")?;
            answer(index, Ok(probed));
        }
        prober.hang_up();
        Ok(prober)
    })();
    match result {
        Ok(prober) => Some(prober),
        Err(e) => {
            let failure = Failure::of(e);
            waiting.into_values().for_each(|index| answer(index, Err(failure.clone())));
            None
        }
    }
}

/// The host key that a server shows, as one line in OpenSSH's format. It is not trusted yet.
pub fn host_key(fetch: Option<&Account>, host: &str, port: u16, timeout: Duration) -> Result<String> {
    let mut prober = start_prober(fetch)?;
    let patience = Patience { time: timeout + Duration::from_secs(10), stop: None, class: Class::Unreachable };
    let request = ProberRequest::HostKey { host: host.to_owned(), port, timeout };
    let line = prober.ask::<_, Result<String, Failure>>(&request, patience)??;
    prober.finish();
    Ok(line)
}

/// Whether the keys of these origins may push, in their order. What cannot be told is not known.
pub fn rights(origins: Vec<Origin>, fetch: Option<&Account>, jobs: usize, stop: &Stop) -> Vec<Push> {
    let mut found = vec![Push::Unknown; origins.len()];
    let longest = origins.iter().map(|origin| origin.timeout).max().unwrap_or_default();
    let rounds = origins.len().div_ceil(jobs.max(1)) as u32;
    let time = longest * rounds + Duration::from_secs(10);
    let patience = Patience { time, stop: Some(stop), class: Class::Unreachable };
    let ask = |found: &mut Vec<Push>| -> Result<()> {
        let mut prober = start_prober(fetch)?;
        prober.send(&ProberRequest::Rights(Origins::pack(&origins), jobs))?;
        for _ in 0..found.len() {
            let right: Right = prober.receive(patience)?;
            *found.get_mut(right.index).context("an answer to another question")? = right.push;
        }
        prober.finish();
        Ok(())
    };
    // The server was asked for its tips before this, and its trouble is told there.
    let _ = ask(&mut found);
    found
}

/// Asks a reader one thing.
pub fn read(fetch: Option<&Account>, request: &ReaderRequest) -> Result<ReaderReply> {
    let start = Start { role: Role::Reader, account: fetch, umask: 0o027, descriptors: Vec::new(), input: None };
    let mut reader = Helper::start(start)?;
    let patience = Patience { time: Duration::from_secs(60), stop: None, class: Class::Io };
    let reply = reader.ask::<_, Result<ReaderReply, Failure>>(request, patience)??;
    reader.finish();
    Ok(reply)
}

/// Who started this run: the person behind sudo, else the user.
pub fn who(me: &Account) -> String {
    let behind_sudo = std::env::var("SUDO_USER").ok().filter(|name| !name.is_empty() && Uid::current().is_root());
    behind_sudo.unwrap_or_else(|| me.name.clone())
}
