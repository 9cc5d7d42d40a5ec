//! The configuration: what poller.toml and the files in apps.d beside it mean.
//!
//! Two layers. [`file`] is what is written, key by key; the types here are what it means: checked, absolute, and with no
//! option where there is a default. Nothing here opens a file or asks the host anything, a [`Reader`] does, because whether a
//! file can be trusted is decided while it is opened. A broken app file never stops the other apps.
//!
//! - `problem` says what is wrong, on which line, and what to do about it
//! - `values`, `names`, `command` and `remote` hold the checks of single values
//! - `resolve` fills in defaults and checks what joins several keys

mod command;
mod file;
pub mod given;
mod names;
pub mod notify;
mod problem;
mod remote;
mod resolve;
mod secrets;
#[cfg(test)]
mod tests;
mod values;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use globset::Glob;
use serde::{Deserialize, Serialize};

use crate::outcome::is_of_kind;
pub use command::Command;
pub use notify::{Notify, NotifyOn};
pub use problem::Problem;
use problem::{Fault, printable};
pub use remote::{Follow, Remote};
use resolve::Document;
pub use values::AppName;

/// How bytes of a configuration file are obtained; the caller checks trust while opening.
pub trait Reader {
    /// A file that is not there is an [`io::Error`] of kind `NotFound` somewhere in the chain.
    fn read(&self, path: &Path) -> anyhow::Result<String>;
    /// The `*.toml` of a folder, sorted; none where the folder is missing.
    fn list(&self, dir: &Path) -> anyhow::Result<Vec<PathBuf>>;
}

/// What holds where poller.toml says nothing.
pub struct Defaults {
    pub host_name: String,
    pub paths: Paths,
    /// Without poller.toml, everything is at its default.
    pub optional_file: bool,
}

#[derive(Debug)]
pub struct Config {
    pub host: Host,
    pub paths: Paths,
    pub metrics: Option<Metrics>,
    pub notify: Option<Notify>,
    /// The poller.toml that was read, there or not; apps.d lies beside it.
    pub file: PathBuf,
    /// Sorted by the names of their files, those of other hosts included.
    pub apps: Vec<App>,
    pub broken: Vec<BrokenApp>,
}

#[derive(Debug)]
pub struct BrokenApp {
    /// The stem of the file, not always a valid name for an app, but always printable.
    pub name: String,
    pub error: LoadError,
}

#[derive(Debug)]
pub enum LoadError {
    /// What the file says is wrong.
    Problem(Problem),
    /// The reader's own error, untouched.
    Read(anyhow::Error),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    pub name: String,
    pub fetch_user: String,
    /// At least 1.
    pub jobs: usize,
    /// Each host waits its own fixed part of this before it polls.
    pub splay: Duration,
    pub deadline: Duration,
    /// How many entries each app's journal keeps, at least.
    pub history: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    pub state: PathBuf,
    pub run: PathBuf,
    pub log: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metrics {
    pub textfile: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct App {
    pub name: AppName,
    pub file: PathBuf,
    pub source: Source,
    pub target: Target,
    pub deploy: Deploy,
    pub health: Option<Health>,
    pub verify: Verify,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// As it is written.
    pub url: String,
    pub remote: Remote,
    pub follow: Follow,
    /// Given for an SSH remote, unless `ssh_command` is.
    pub identity: Option<PathBuf>,
    pub known_hosts: PathBuf,
    pub ssh_command: Option<Vec<String>>,
    /// Without a slash at its end.
    pub subdir: Option<String>,
    /// Globs over paths from the top of the repository; none means every path.
    pub paths: Vec<String>,
    /// Globs over names of hosts; see [`Source::applies_to`].
    pub hosts: Vec<String>,
    /// How long a tip must have stood before it is deployed.
    pub soak: Duration,
    /// For connecting, for the probe as a whole, and for each silence of a transfer.
    pub timeout: Duration,
}

impl Source {
    pub fn applies_to(&self, host_name: &str) -> bool {
        self.hosts.is_empty() || matches_host(&self.hosts, host_name)
    }
}

fn matches_host(globs: &[String], host_name: &str) -> bool {
    globs.iter().any(|glob| Glob::new(glob).is_ok_and(|glob| glob.compile_matcher().is_match(host_name)))
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Absolute, without `..`, and not the root.
    pub directory: PathBuf,
    pub layout: Layout,
    /// How many releases stay, at least 1.
    pub keep: usize,
    /// Paths inside a release; one that ends in `/` is a folder. None lies in another.
    pub shared: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    Releases,
    InPlace,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deploy {
    pub user: Option<String>,
    pub group: Option<String>,
    pub build: Option<Command>,
    pub script: Option<Command>,
    pub env: BTreeMap<String, String>,
    pub umask: u32,
    /// For each command.
    pub timeout: Duration,
    /// Attempts at one commit, at least 1.
    pub retries: u32,
    pub on_failure: OnFailure,
    pub restart: Vec<String>,
    pub reload: Vec<String>,
    pub sudo: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    /// The link goes back and the previous release's script runs again.
    Rollback,
    /// Only the link goes back.
    Restore,
    Keep,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// At least one of the two is given; with both, both must be well.
    pub command: Option<Command>,
    /// Is well when it answers with a status of 200 to 299.
    pub url: Option<String>,
    /// At least 1.
    pub attempts: u32,
    pub interval: Duration,
    pub timeout: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verify {
    /// Whose SSH signatures count. Neither this nor `pgp_keys`: no signature is asked for.
    pub allowed_signers: Option<PathBuf>,
    /// Whose OpenPGP signatures count.
    pub pgp_keys: Option<PathBuf>,
    pub allow_rewind: bool,
}

/// Reads poller.toml at `file`, and the apps beside it.
pub fn load(file: &Path, defaults: Defaults, reader: &dyn Reader) -> Result<Config, LoadError> {
    let file = std::path::absolute(file).map_err(|error| LoadError::Read(error.into()))?;
    let folder = file.parent().unwrap_or(Path::new("/"));
    let text = match reader.read(&file) {
        Err(error) if defaults.optional_file && is_of_kind(&error, io::ErrorKind::NotFound) => String::new(),
        read => read?,
    };
    let document = Document { file: &file, text: &text, folder };
    let (host, paths, metrics, notify) = resolve::host(&document, defaults)?;
    let (apps, broken) = load_apps(folder, &host.name, reader)?;
    Ok(Config { host, paths, metrics, notify, file, apps, broken })
}

/// A length of time as it is written in a file, for the command line; a year at most.
pub fn duration(text: &str) -> Result<Duration, String> {
    values::duration(text, Duration::from_secs(365 * 24 * 60 * 60)).map_err(|fault| fault.to_string())
}

fn load_apps(folder: &Path, host_name: &str, reader: &dyn Reader) -> Result<(Vec<App>, Vec<BrokenApp>), LoadError> {
    let mut files = reader.list(&folder.join("apps.d"))?;
    files.retain(|file| is_app_file(file));
    files.sort();
    let (mut apps, mut broken) = (Vec::new(), Vec::new());
    for file in files {
        match load_app(&file, folder, host_name, &apps, reader) {
            Ok(app) => apps.push(app),
            Err(error) => broken.push(BrokenApp { name: printable(&stem(&file)), error }),
        }
    }
    Ok((apps, broken))
}

/// Editors leave hidden files beside the one that they edit.
fn is_app_file(file: &Path) -> bool {
    let name = file.file_name().unwrap_or_default().as_encoded_bytes();
    name.ends_with(b".toml") && !name.starts_with(b".")
}

fn stem(file: &Path) -> String {
    file.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

fn load_app(
    file: &Path,
    folder: &Path,
    host_name: &str,
    earlier: &[App],
    reader: &dyn Reader,
) -> Result<App, LoadError> {
    let name = AppName::parse(&stem(file)).map_err(|why| {
        let fault = Fault::new(why).help("rename the file; the app is named after it");
        Problem::new(file, "", None, fault)
    })?;
    let text = reader.read(file)?;
    let document = Document { file, text: &text, folder };
    let (app, directory) = resolve::app(&document, name, host_name)?;
    check_directory(&document, &app, directory, host_name, earlier)?;
    Ok(app)
}

/// Two apps in one directory would remove each other's releases. Apps of different hosts never meet.
fn check_directory(
    document: &Document<'_>,
    app: &App,
    written: Range<usize>,
    host_name: &str,
    earlier: &[App],
) -> Result<(), Problem> {
    let (mine, here) = (&app.target.directory, |app: &App| app.source.applies_to(host_name));
    let meets = |other: &&App| {
        let theirs = &other.target.directory;
        here(app) && here(other) && (mine.starts_with(theirs) || theirs.starts_with(mine))
    };
    let Some(other) = earlier.iter().find(meets) else {
        return Ok(());
    };
    let theirs = other.target.directory.display();
    let fault = match mine.starts_with(&other.target.directory) {
        true if *mine == other.target.directory => {
            Fault::new(format!("the app `{}` has this directory already", other.name))
        }
        true => Fault::new(format!("this directory lies inside `{theirs}`, that of the app `{}`", other.name)),
        false => Fault::new(format!("`{theirs}`, the directory of the app `{}`, lies inside this one", other.name)),
    };
    Err(document.problem(Some(written), fault.help("give each app a directory of its own")))
}

impl From<Problem> for LoadError {
    fn from(problem: Problem) -> LoadError {
        LoadError::Problem(problem)
    }
}

impl From<anyhow::Error> for LoadError {
    fn from(error: anyhow::Error) -> LoadError {
        LoadError::Read(error)
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadError::Problem(problem) => problem.fmt(f),
            LoadError::Read(error) => write!(f, "{error:#}"),
        }
    }
}

impl std::error::Error for LoadError {}
