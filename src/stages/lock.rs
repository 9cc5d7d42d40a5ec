//! Lock: one kernel lock an app. The file's content names its holder for people, and the script for
//! whoever comes after a killed run; only the kernel lock counts, and it goes with its process.

use std::fs::{File, OpenOptions, Permissions};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use fs2::FileExt as _;
use jiff::Timestamp;
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use crate::commit::Commit;
use crate::event;
use crate::outcome::{Class, Failure};
use crate::report::memory::Reported;
use crate::sys::proc::{self, Entry, Identity, descendants, signal_all};

/// The whole block is written at once and always as long, so that a kill leaves no mixture.
const BLOCK: usize = 4096;
/// How long a keeper may take to end its script after its poller was killed: its own two graces, and some.
const KEEPER: Duration = Duration::from_secs(20);

/// What the file says, for people and for the next run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Content {
    pub pid: i32,
    pub run: String,
    pub since: Option<Timestamp>,
    pub stage: String,
    /// The process that runs the app's script, and the script itself; its number is its session too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keeper: Option<Identity>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub script: Option<Identity>,
    /// The run that they belong to: it stands in their environment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub script_run: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reported: Option<Reported>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub polled: Option<Polled>,
    /// Set while the repository is tended: a run that was killed in that left something to tidy up.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub tending: bool,
}

/// How the newest poll of the app ended, for `status`. Gone after a reboot, until the next one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Polled {
    pub at: Timestamp,
    pub run: String,
    /// As in the log: `unchanged`, `skipped`, `deployed`, `unreachable`, …
    pub outcome: String,
    /// One of the contract's states.
    pub state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tip: Option<Commit>,
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// Why it came to that, in a sentence.
    pub why: String,
    /// How many polls left a commit that failed alone since it was tried.
    #[serde(default)]
    pub waited: u32,
}

impl Content {
    pub fn waited(&self) -> u32 {
        self.polled.as_ref().map_or(0, |polled| polled.waited)
    }
}

/// An app's lock, held.
#[derive(Debug)]
pub struct Lock {
    file: File,
    pub content: Content,
}

/// What came of asking for it.
#[derive(Debug)]
pub enum Asked {
    Held(Lock),
    /// Another run has it: an expected outcome.
    Busy(Content),
}

pub fn path(run_directory: &Path, app: &str) -> PathBuf {
    run_directory.join(format!("{app}.lock"))
}

/// Takes the lock if it is free.
pub fn take(path: &Path, run: &str, now: Timestamp) -> Result<Asked> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        // A lock can be held by whoever may open the file, for reading too: nobody else may.
        .mode(0o600)
        .custom_flags(nix::libc::O_NOFOLLOW)
        .open(path)
        .with_context(|| format!("the lock {}", path.display()))?;
    if file.metadata().is_ok_and(|meta| meta.permissions().mode() & 0o077 != 0) {
        file.set_permissions(Permissions::from_mode(0o600)).with_context(|| format!("the lock {}", path.display()))?;
    }
    let locked = file.try_lock_exclusive();
    let before = read(&file);
    match locked {
        Ok(()) => {}
        Err(e) if e.raw_os_error() == fs2::lock_contended_error().raw_os_error() => {
            return Ok(Asked::Busy(before));
        }
        Err(e) => return Err(e).with_context(|| format!("the lock {}", path.display())),
    }
    let content = Content {
        pid: std::process::id() as i32,
        run: run.to_owned(),
        since: Some(now),
        stage: "probe".into(),
        // What a killed run's script left alive is looked for before these are forgotten.
        ..before
    };
    let mut lock = Lock { file, content };
    lock.write()?;
    Ok(Asked::Held(lock))
}

/// What the file of a lock says, whoever holds it; nothing where there is none.
pub fn peek(path: &Path) -> Content {
    let options = OpenOptions::new().read(true).custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK).open(path);
    options.map_or_else(|_| Content::default(), |file| read(&file))
}

/// Who holds it now, if anybody does.
///
/// Not asked by trying to take it: a poll that begins in that moment would find it busy. The process that
/// the file names is looked at instead, and it counts when it has this very file locked. Another user's
/// process cannot be looked at, nor can one of another PID namespace; neither is anybody.
pub fn holder(path: &Path) -> Option<Content> {
    let content = peek(path);
    let meta = std::fs::symlink_metadata(path).ok()?;
    proc::has_locked(content.pid, &meta).then_some(content)
}

/// Who holds a lock, for people; what cannot be read is nobody.
fn read(file: &File) -> Content {
    let mut block = vec![0; BLOCK];
    let length = file.read_at(&mut block, 0).unwrap_or(0);
    let text = std::str::from_utf8(&block[..length]).ok();
    // Without the empty lines that fill up the block: each is an event to the parser.
    text.and_then(|text| toml::from_str(text.trim_end()).ok()).unwrap_or_default()
}

impl Lock {
    pub fn enter(&mut self, stage: &str) -> Result<()> {
        if self.content.stage == stage {
            return Ok(());
        }
        self.content.stage = stage.to_owned();
        self.write()
    }

    pub fn runs(&mut self, keeper: Option<Identity>, script: Option<Identity>) -> Result<()> {
        self.content.script_run = keeper.as_ref().map(|_| self.content.run.clone());
        self.content.keeper = keeper;
        self.content.script = script;
        self.write()
    }

    pub fn remember(&mut self, reported: Option<Reported>, polled: Option<Polled>) -> Result<()> {
        self.content.reported = reported;
        self.content.polled = polled;
        self.write()
    }

    pub fn tends(&mut self, tending: bool) -> Result<()> {
        self.content.tending = tending;
        self.write()
    }

    fn write(&mut self) -> Result<()> {
        let mut text = toml::to_string(&self.content).context("the lock's content")?;
        if text.len() > BLOCK {
            // A very long failure: better forgotten than a block that nobody can read.
            self.content.reported = None;
            text = toml::to_string(&self.content).context("the lock's content")?;
        }
        let padding = BLOCK.saturating_sub(text.len());
        text.push_str(&"\n".repeat(padding));
        self.file.write_all_at(text.as_bytes(), 0).context("writing the lock's content")
    }

    /// Ends what a killed run's script left alive, so that no second script ever runs beside it.
    pub fn recover(&mut self, app: &str) -> Result<()> {
        let (keeper, script) = (self.content.keeper.clone(), self.content.script.clone());
        if keeper.is_none() && script.is_none() {
            return Ok(());
        }
        let former_run = self.content.script_run.clone().unwrap_or_default();
        if let Some(keeper) = keeper.filter(Identity::is_alive) {
            event!(WARN, "lock.recovering", app = app, stage = "lock"; "the run {former_run} was killed; its keeper is ending the script");
            wait_until(KEEPER, || !keeper.is_alive());
            if keeper.is_alive() {
                let mut family = descendants(keeper.pid);
                family.extend(Entry::read(keeper.pid));
                end(|| {
                    family
                        .iter()
                        .filter(|e| Identity::of(e.pid).is_some_and(|i| i.started == e.started))
                        .cloned()
                        .collect()
                });
            }
        }
        // Other apps of that run, which may be this one, have scripts of their own.
        let marks = [format!("POLLER_RUN={former_run}"), format!("POLLER_APP={app}")];
        let left = || -> Vec<Entry> {
            // A session's number is not given out again while anyone is in it; a process that left the
            // session, or one whose number was not written down any more, is known by its environment.
            // When another process has that number by now, the session was over.
            let is_given_anew = |s: &Identity| Entry::read(s.pid).is_some_and(|e| e.started != s.started);
            let script = script.as_ref().filter(|s| s.boot == proc::boot_id() && !is_given_anew(s));
            let in_session = |e: &Entry| script.is_some_and(|s| e.session == s.pid && e.started >= s.started);
            proc::all().into_iter().filter(|e| !e.is_over() && (in_session(e) || e.has_environment(&marks))).collect()
        };
        let found = left();
        if !found.is_empty() {
            let names: Vec<String> = found.iter().map(Entry::label).collect();
            event!(WARN, "lock.recovered", app = app, stage = "lock"; "ending what the killed run {former_run} left: {}", names.join(", "));
            let alive = end(left);
            if !alive.is_empty() {
                let names: Vec<String> = alive.iter().map(Entry::label).collect();
                return Err(Failure::new(
                    Class::Io,
                    format!(
                        "a script of the killed run {former_run} is still alive and cannot be ended: {}",
                        names.join(", ")
                    ),
                )
                .help(format!("end it by hand, then poll again: kill -9 {}", alive[0].pid))
                .into());
            }
        }
        self.runs(None, None)
    }
}

/// TERM, then KILL; returns who withstood both.
fn end(who: impl Fn() -> Vec<Entry>) -> Vec<Entry> {
    signal_all(&who(), Signal::SIGTERM);
    wait_until(Duration::from_secs(5), || who().is_empty());
    wait_until(Duration::from_secs(5), || {
        signal_all(&who(), Signal::SIGKILL);
        who().is_empty()
    });
    who()
}

/// Looks again and again: the end of a process that is not a child is not announced.
fn wait_until(time: Duration, done: impl Fn() -> bool) {
    let end = Instant::now() + time;
    while !done() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_is_the_kernels_and_its_content_is_for_people() {
        let path = std::env::temp_dir().join(format!("poller-lock-{}", std::process::id()));
        let Asked::Held(mut first) = take(&path, "run-1", Timestamp::UNIX_EPOCH).unwrap() else { panic!("busy") };
        first.enter("deploy").unwrap();
        let Asked::Busy(holder) = take(&path, "run-2", Timestamp::UNIX_EPOCH).unwrap() else { panic!("taken twice") };
        assert_eq!((holder.run.as_str(), holder.stage.as_str()), ("run-1", "deploy"));
        assert_eq!(super::holder(&path).map(|h| h.run), Some("run-1".to_owned()));
        drop(first);
        assert_eq!(super::holder(&path), None);
        // The file is still there and says "deploy"; that counts for nothing.
        let Asked::Held(second) = take(&path, "run-2", Timestamp::UNIX_EPOCH).unwrap() else { panic!("stuck") };
        assert_eq!(second.content.stage, "probe");
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn looking_who_holds_a_lock_never_keeps_anybody_from_taking_it() {
        let path = std::env::temp_dir().join(format!("poller-lock-look-{}", std::process::id()));
        let over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    holder(&path);
                }
            });
            for _ in 0..300 {
                let asked = take(&path, "run", Timestamp::UNIX_EPOCH).unwrap();
                assert!(matches!(asked, Asked::Held(_)));
            }
            over.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_content_that_is_rubbish_is_nobody() {
        let path = std::env::temp_dir().join(format!("poller-lock-rubbish-{}", std::process::id()));
        std::fs::write(&path, b"\xff\x00 = [").unwrap();
        let Asked::Held(lock) = take(&path, "run", Timestamp::UNIX_EPOCH).unwrap() else { panic!("busy") };
        assert_eq!(lock.content.keeper, None);
        std::fs::remove_file(path).unwrap();
    }
}
