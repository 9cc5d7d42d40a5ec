//! The metrics file for node_exporter's textfile collector: written whole, by rename, after every run.
//!
//! Counters go on from what the file said before. So it is read as strictly as something from outside:
//! what this program would not have written is passed over, and no series of an app is kept that is not
//! configured any more. Apps that this run did not poll keep their lines.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use fs2::FileExt as _;

pub mod place;
#[cfg(test)]
mod tests;

use place::Folder;

/// What made a run look at an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    Poll,
    /// An operator's command, such as a rollback: it asks no server, and is counted as no poll.
    Command,
}

/// What a run has to say of one app.
#[derive(Clone, Debug)]
pub struct Sample {
    pub app: String,
    pub occasion: Occasion,
    /// None where it is not known in this run.
    pub commit: Option<String>,
    pub reference: Option<String>,
    /// None where the journal could not be read: the state then stays what it was.
    pub state: Option<&'static str>,
    pub outcome: &'static str,
    /// Whether the server answered.
    pub polled: bool,
    /// How a deploy ended, if one was begun, and how long it took in seconds.
    pub deploy: Option<(&'static str, f64)>,
    pub git_operations: u64,
    pub git_errors: u64,
}

const STATES: [&str; 9] =
    ["ok", "pending", "frozen", "failed", "broken", "interrupted", "refused", "unreachable", "new"];

/// Name, kind, labels, help: also the order in the file.
const FAMILIES: [(&str, &str, &[&str], &str); 10] = [
    ("poller_app_info", "gauge", &["app", "commit", "ref", "state"], "What is deployed; always 1."),
    ("poller_app_state", "gauge", &["app", "state"], "1 for the state that the app is in, 0 for the others."),
    ("poller_deploys_total", "counter", &["app", "outcome"], "Deploys begun, by outcome."),
    ("poller_git_errors_total", "counter", &[], "Exchanges with a git server that failed."),
    ("poller_git_operations_total", "counter", &[], "Exchanges with a git server."),
    ("poller_last_deploy_duration_seconds", "gauge", &["app"], "How long the last deploy took."),
    ("poller_last_deploy_timestamp_seconds", "gauge", &["app"], "When the last deploy ended, seconds since the epoch."),
    (
        "poller_last_poll_success_timestamp_seconds",
        "gauge",
        &["app"],
        "When the server answered last, seconds since the epoch.",
    ),
    ("poller_last_poll_timestamp_seconds", "gauge", &["app"], "When the app was polled last, seconds since the epoch."),
    ("poller_polls_total", "counter", &["app", "outcome"], "Polls, by outcome."),
];

/// Some thousand apps' worth.
const LONGEST: u64 = 16 << 20;
/// Above it a number with a fraction stops counting by one.
const LARGEST: f64 = 9_007_199_254_740_992.0;
/// Other runs hold the lock for as long as it takes to write a file.
const PATIENCE: Duration = Duration::from_secs(5);

/// All that the file says.
#[derive(Debug, Default, PartialEq)]
pub struct Told {
    apps: BTreeMap<String, App>,
    git_operations: f64,
    git_errors: f64,
}

#[derive(Debug, Default, PartialEq)]
struct App {
    commit: String,
    reference: String,
    /// One of [`STATES`].
    state: Option<&'static str>,
    last_poll: Option<f64>,
    last_success: Option<f64>,
    last_deploy: Option<f64>,
    duration: Option<f64>,
    polls: BTreeMap<String, f64>,
    deploys: BTreeMap<String, f64>,
}

/// Brings the file up to date. `configured` are the apps of this host; series of others go.
/// The lock is for two runs at a time: neither may lose what the other has counted.
pub fn update(path: &Path, lock: &Path, samples: &[Sample], configured: &BTreeSet<String>, now: f64) -> Result<()> {
    let folder = Folder::open(path)?;
    let _lock = lock_file(lock)?;
    let mut told = match read(&folder.file()) {
        Ok(text) => parse(&text),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Told::default(),
        Err(e) => return Err(e).with_context(|| path.display().to_string()),
    };
    samples.iter().for_each(|sample| told.take(sample, now));
    told.apps.retain(|name, _| configured.contains(name));
    let text = render(&told);
    let write = || -> std::io::Result<()> {
        // The exporter reads *.prom only. What a killed run left makes room.
        let partial = folder.partial();
        let _ = fs::remove_file(&partial);
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(&partial)?;
        // The exporter is another user, whatever the umask of this one says.
        file.set_permissions(fs::Permissions::from_mode(0o644))?;
        file.write_all(text.as_bytes())?;
        fs::rename(&partial, folder.file())
    };
    write().with_context(|| path.display().to_string())
}

fn lock_file(path: &Path) -> Result<File> {
    let mut options = fs::OpenOptions::new();
    // Not readable by others: whoever can open it could hold it.
    options.write(true).create(true).truncate(false).mode(0o600).custom_flags(nix::libc::O_NOFOLLOW);
    let file = options.open(path).with_context(|| path.display().to_string())?;
    let since = Instant::now();
    while let Err(e) = file.try_lock_exclusive() {
        anyhow::ensure!(since.elapsed() < PATIENCE, "{}: {e}", path.display());
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(file)
}

/// What lies there may be anything, a pipe for one.
fn read(path: &Path) -> std::io::Result<String> {
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
    let file = fs::OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("not a plain file; remove it"));
    }
    let mut bytes = Vec::new();
    file.take(LONGEST).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

impl Told {
    fn take(&mut self, sample: &Sample, now: f64) {
        let app = self.apps.entry(super::printable(&sample.app)).or_default();
        if let Some(commit) = &sample.commit {
            app.commit = super::printable(commit);
        }
        if let Some(reference) = &sample.reference {
            app.reference = super::printable(reference);
        }
        // Nothing was ever heard of an app whose very first poll came to nothing.
        app.state = sample.state.or(app.state).or(Some("new"));
        if sample.occasion == Occasion::Poll {
            app.last_poll = Some(now);
            *app.polls.entry(sample.outcome.to_owned()).or_default() += 1.0;
            if sample.polled {
                app.last_success = Some(now);
            }
        }
        if let Some((outcome, seconds)) = sample.deploy {
            *app.deploys.entry(outcome.to_owned()).or_default() += 1.0;
            app.last_deploy = Some(now);
            app.duration = Some(seconds);
        }
        self.git_operations += sample.git_operations as f64;
        self.git_errors += sample.git_errors as f64;
    }

    /// One line of the file, if it is one that this program writes.
    fn line(&mut self, line: &str) -> Option<()> {
        let (series, value) = line.rsplit_once(' ')?;
        let value: f64 = value.parse().ok().filter(|v: &f64| v.is_finite() && (0.0..=LARGEST).contains(v))?;
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let (_, _, keys, _) = FAMILIES.iter().find(|(family, ..)| *family == name)?;
        let labels = values(labels, keys)?;
        match (name, labels.as_slice()) {
            ("poller_git_operations_total", []) => self.git_operations = value.trunc(),
            ("poller_git_errors_total", []) => self.git_errors = value.trunc(),
            (_, [app, rest @ ..]) if !app.is_empty() => {
                self.apps.entry(app.clone()).or_default().heard(name, rest, value)?
            }
            _ => return None,
        }
        Some(())
    }
}

impl App {
    fn heard(&mut self, name: &str, labels: &[String], value: f64) -> Option<()> {
        let state = |word: &str| STATES.into_iter().find(|state| *state == word);
        match (name, labels) {
            ("poller_app_info", [commit, reference, _]) => {
                (self.commit, self.reference) = (commit.clone(), reference.clone());
            }
            ("poller_app_state", [word]) if value == 1.0 => self.state = state(word).or(self.state),
            ("poller_last_poll_timestamp_seconds", []) => self.last_poll = Some(value),
            ("poller_last_poll_success_timestamp_seconds", []) => self.last_success = Some(value),
            ("poller_last_deploy_timestamp_seconds", []) => self.last_deploy = Some(value),
            ("poller_last_deploy_duration_seconds", []) => self.duration = Some(value),
            ("poller_polls_total", [outcome]) => drop(self.polls.insert(outcome.clone(), value.trunc())),
            ("poller_deploys_total", [outcome]) => drop(self.deploys.insert(outcome.clone(), value.trunc())),
            _ => return None,
        }
        Some(())
    }

    /// What it adds to a family: values of the labels behind `app`, and the number.
    fn series(&self, family: &str) -> Vec<(Vec<&str>, f64)> {
        let one = |value: Option<f64>| value.map(|v| (Vec::new(), v)).into_iter().collect();
        match family {
            "poller_app_info" => {
                self.state.map(|state| (vec![self.commit.as_str(), &self.reference, state], 1.0)).into_iter().collect()
            }
            "poller_app_state" if self.state.is_some() => {
                let is = |state: &str| f64::from(u8::from(self.state == Some(state)));
                STATES.iter().map(|state| (vec![*state], is(state))).collect()
            }
            "poller_deploys_total" => counts(&self.deploys),
            "poller_polls_total" => counts(&self.polls),
            "poller_last_deploy_duration_seconds" => one(self.duration),
            "poller_last_deploy_timestamp_seconds" => one(self.last_deploy),
            "poller_last_poll_success_timestamp_seconds" => one(self.last_success),
            "poller_last_poll_timestamp_seconds" => one(self.last_poll),
            _ => Vec::new(),
        }
    }
}

fn counts(counts: &BTreeMap<String, f64>) -> Vec<(Vec<&str>, f64)> {
    counts.iter().map(|(outcome, n)| (vec![outcome.as_str()], *n)).collect()
}

pub fn parse(text: &str) -> Told {
    let mut told = Told::default();
    for line in text.lines() {
        // A comment, a line cut short, another version's: passed over.
        let _ = told.line(line);
    }
    told
}

/// The values of exactly these labels, in this order: `a="x",b="y"}`.
fn values(mut text: &str, keys: &[&str]) -> Option<Vec<String>> {
    let mut all = Vec::new();
    for (n, key) in keys.iter().enumerate() {
        text = if n == 0 { text } else { text.strip_prefix(',')? };
        text = text.strip_prefix(key)?.strip_prefix("=\"")?;
        let (mut value, mut chars) = (String::new(), text.char_indices());
        loop {
            match chars.next()?.1 {
                '"' => break,
                '\\' => value.push(chars.next().map(|(_, c)| c).filter(|c| matches!(c, '\\' | '"'))?),
                c if super::is_treacherous(c) => return None,
                c => value.push(c),
            }
        }
        text = chars.as_str();
        all.push(value);
    }
    (text == "}").then_some(all)
}

pub fn render(told: &Told) -> String {
    let mut text = String::new();
    for (family, kind, keys, help) in FAMILIES {
        let mut lines = String::new();
        let mut line = |values: &[&str], number: f64| {
            let labels: Vec<String> = keys.iter().zip(values).map(|(k, v)| format!("{k}=\"{}\"", escaped(v))).collect();
            let labels = if keys.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
            let _ = writeln!(lines, "{family}{labels} {number}");
        };
        match family {
            "poller_git_operations_total" => line(&[], told.git_operations),
            "poller_git_errors_total" => line(&[], told.git_errors),
            _ => {
                for (name, app) in &told.apps {
                    for (more, number) in app.series(family) {
                        line(&[&[name.as_str()], &more[..]].concat(), number);
                    }
                }
            }
        }
        if !lines.is_empty() {
            let _ = write!(text, "# HELP {family} {help}\n# TYPE {family} {kind}\n{lines}");
        }
    }
    text
}

/// A label's value as the exposition format wants it; a ref's name may hold a quote.
fn escaped(text: &str) -> String {
    text.replace('\\', r"\\").replace('"', "\\\"")
}
