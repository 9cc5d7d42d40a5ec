//! Fetch: brings the tip's objects into the repository. Runs in the fetcher.
//!
//! No ref is moved here. A pack appears in the repository whole or not at all, and until the journal
//! names one of its commits nothing points at it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use fs2::FileExt;
use git2::{AutotagOption, Direction, ErrorClass, FetchOptions, Oid, Remote, RemoteCallbacks, Repository};

use crate::commit::Commit;
use crate::journal;
use crate::outcome::{Class, Failure, remedy};
use crate::processes::messages::{Access, Fetch, Tip};
use crate::remote::transport;
use crate::report::terminal::tell;
use crate::sys::libgit2;

/// An open repository, and the quarantine that goes when it is dropped.
pub struct Opened {
    pub repo: Repository,
    _quarantine: Option<Quarantine>,
}

impl Opened {
    /// An app's repository, to work on without its server; made for a journal's first entry.
    pub fn existing_or_new(path: &Path) -> Result<Opened> {
        Ok(Opened { repo: journal::open_or_create(path)?, _quarantine: None })
    }
}

/// What was fetched.
pub struct Fetched {
    pub reference: String,
    /// What the ref holds: the commit, or a tag object.
    pub object: Oid,
    pub commit: Commit,
}

/// Fetches the tip and returns what the ref holds now: it may have moved since the probe.
pub fn fetch(request: &Fetch, progress: impl FnMut(usize, usize, usize)) -> Result<(Opened, Fetched)> {
    let opened = open(request)?;
    let object = if request.quarantine {
        if has(&opened.repo, &request.tip) {
            request.tip.object.oid()?
        } else {
            download(&opened.repo, request, progress)?
        }
    } else {
        let _lock = Lock::take(opened.repo.path(), Step::Fetch)?;
        clean_packs(opened.repo.path())?;
        if has(&opened.repo, &request.tip) {
            // Fetched by a run that was cut short, or for an app that shares the repository.
            request.tip.object.oid()?
        } else {
            let done = download(&opened.repo, request, progress);
            if done.is_err() {
                clean_packs(opened.repo.path())?;
            }
            done?
        }
    };
    let commit = peel(&opened.repo, object, &request.tip)?;
    let reference = request.tip.reference.clone();
    Ok((opened, Fetched { reference, object, commit }))
}

fn open(request: &Fetch) -> Result<Opened> {
    if !request.quarantine {
        let repo = journal::open_or_create(&request.repository)?;
        return Ok(Opened { repo, _quarantine: None });
    }
    let quarantine = Quarantine::new()?;
    let repo = journal::create(&quarantine.0)?;
    let objects = request.repository.join("objects");
    if objects.try_exists()? {
        repo.odb()?.add_disk_alternate(objects.to_str().context("a path that is not UTF-8")?)?;
    }
    Ok(Opened { repo, _quarantine: Some(quarantine) })
}

fn has(repo: &Repository, tip: &Tip) -> bool {
    tip.object.oid().is_ok_and(|id| repo.odb().is_ok_and(|odb| odb.exists(id)))
}

fn download(repo: &Repository, request: &Fetch, mut progress: impl FnMut(usize, usize, usize)) -> Result<Oid> {
    let origin = &request.origin;
    let (url, broken, complaint) = match (&origin.access, &origin.remote) {
        (Access::Local, crate::config::Remote::Local(path)) => {
            (path.to_str().context("a path that is not UTF-8")?.to_owned(), None, None)
        }
        _ => {
            let (stream, broken, complaint) = transport::open(origin)?;
            libgit2::offer(Box::new(stream))?;
            (libgit2::OFFERED_URL.to_owned(), Some(broken), Some(complaint))
        }
    };
    let fetched = (|| -> Result<Option<Oid>, git2::Error> {
        let mut remote = repo.remote_anonymous(&url)?;
        remote.connect(Direction::Fetch)?;
        let Some(object) = advertised(&remote, &request.tip.reference)? else {
            return Ok(None);
        };
        let mut callbacks = RemoteCallbacks::new();
        callbacks.transfer_progress(|now| {
            progress(now.received_objects(), now.total_objects(), now.received_bytes());
            true
        });
        let mut options = FetchOptions::new();
        options.remote_callbacks(callbacks).download_tags(AutotagOption::None).update_fetchhead(false);
        remote.download(&[&request.tip.reference], Some(&mut options))?;
        Ok(Some(object))
    })();
    match fetched {
        Ok(Some(object)) => Ok(object),
        // libgit2 calls the fetch of a branch that is not there a success.
        Ok(None) => Err(Failure::new(
            Class::Unreachable,
            format!("{}: `{}` was there a moment ago and is gone", origin.url, request.tip.reference),
        )
        .into()),
        Err(e) => {
            // libgit2 paraphrases what the stream said; the stream kept the real reason.
            if let Some(failure) = broken.and_then(|b| b.take()) {
                return Err(failure.into());
            }
            Err(failure_of(&origin.url, &e, complaint.and_then(|c| c.text())).into())
        }
    }
}

fn advertised(remote: &Remote, name: &str) -> Result<Option<Oid>, git2::Error> {
    Ok(remote.list()?.iter().find(|head| head.name() == name).map(|head| head.oid()))
}

/// What an error of libgit2 means to poller.
fn failure_of(url: &str, e: &git2::Error, complaint: Option<String>) -> Failure {
    let text = crate::report::printable(e.message());
    if let Some(remedy) = remedy(&text) {
        return Failure::new(Class::Io, format!("{url}: {text}")).help(remedy);
    }
    let said = complaint.map(|c| format!(" (the server said: {c})")).unwrap_or_default();
    // The connection held and git on the other side gave up: its repository is damaged, or it is hostile.
    let gave_up = said.contains("fatal: ") || said.contains("error: ");
    let class = match e.class() {
        _ if gave_up => Class::Protocol,
        ErrorClass::Os | ErrorClass::Filesystem => Class::Io,
        ErrorClass::Net | ErrorClass::Ssh => Class::Unreachable,
        _ => Class::Protocol,
    };
    Failure::new(class, format!("{url}: the fetch failed: {text}{said}"))
        .help("nothing was changed; the next poll tries again")
}

/// The commit behind a tag object, or a failure for a ref that holds something else.
fn peel(repo: &Repository, object: Oid, tip: &Tip) -> Result<Commit> {
    let found = repo.find_object(object, None).with_context(|| format!("reading {object}"))?;
    let commit = found.peel_to_commit().map_err(|_| {
        Failure::new(Class::Refused, format!("`{}` holds no commit", tip.reference))
            .help("name a branch or a tag of a commit in `[source]`")
    })?;
    Ok(commit.id().into())
}

/// The one commit whose name begins with `beginning`.
pub fn resolve(repo: &Repository, beginning: &str) -> Result<Commit> {
    let hexadecimal = (4..=40).contains(&beginning.len()) && beginning.bytes().all(|b| b.is_ascii_hexdigit());
    let shown = crate::report::printable(beginning);
    if !hexadecimal {
        return Err(Failure::new(Class::Usage, format!("`{shown}` is not the name of a commit"))
            .help("write its 40 hexadecimal digits, or at least the first four of them")
            .into());
    }
    match repo.find_commit_by_prefix(beginning) {
        // The journals' own entries are commits of the same repository, and none of the project's.
        Ok(commit) if !journal::is_entry(repo, &commit)? => Ok(commit.id().into()),
        Err(e) if e.code() == git2::ErrorCode::Ambiguous => {
            Err(Failure::new(Class::Usage, format!("`{shown}` is the beginning of more than one object"))
                .help("write more of its digits")
                .into())
        }
        _ => Err(Failure::new(Class::Usage, format!("there is no commit `{shown}` in what the followed ref leads to"))
            .help("compare with: git log")
            .into()),
    }
}

/// What is done to a repository by one process at a time.
#[derive(Clone, Copy)]
pub enum Step {
    Fetch,
    Record,
}

/// A kernel lock on the repository for one step; waits while another run takes that step. It lies on
/// folders that are there anyway, so it leaves no file.
pub struct Lock(#[allow(dead_code, reason = "held for its lock")] File);

impl Lock {
    pub fn take(repository: &Path, step: Step) -> Result<Lock> {
        let path = repository.join(match step {
            Step::Fetch => "objects",
            Step::Record => "refs",
        });
        let folder = File::open(&path).with_context(|| path.display().to_string())?;
        FileExt::lock_exclusive(&folder).with_context(|| path.display().to_string())?;
        Ok(Lock(folder))
    }
}

/// Removes what a fetch that was killed left. Only with the lock for [`Step::Fetch`].
fn clean_packs(repository: &Path) -> Result<()> {
    remove_if_there(&repository.join("shallow.lock"))?;
    remove_beginning_with(&repository.join("objects/pack"), "pack_git2_")
}

fn remove_beginning_with(folder: &Path, prefix: &str) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(prefix.as_bytes()) {
            remove_if_there(&entry.path())?;
        }
    }
    Ok(())
}

/// Removes lock files of refs, and half-written objects, that a killed run left. Only with the lock for [`Step::Record`].
pub fn clean_refs(repository: &Path) -> Result<()> {
    for name in ["HEAD.lock", "config.lock", "packed-refs.lock"] {
        remove_if_there(&repository.join(name))?;
    }
    remove_beginning_with(&repository.join("objects"), "tmp_object_git2_")?;
    let folder = repository.join("refs/poller");
    let Ok(entries) = fs::read_dir(&folder) else {
        return Ok(());
    };
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "lock") {
            remove_if_there(&path)?;
        }
    }
    Ok(())
}

fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e).with_context(|| path.display().to_string()),
        _ => Ok(()),
    }
}

/// A repository of its own for a dry run, outside all of poller's folders, removed at the end.
struct Quarantine(PathBuf);

impl Quarantine {
    fn new() -> Result<Quarantine> {
        let template = std::env::temp_dir().join(format!("poller-dry-run-{}", "X".repeat(6)));
        let path = nix::unistd::mkdtemp(&template).with_context(|| template.display().to_string())?;
        Ok(Quarantine(path))
    }
}

impl Drop for Quarantine {
    fn drop(&mut self) {
        if let Err(e) = fs::remove_dir_all(&self.0) {
            tell(&format!("poller: {} could not be removed: {e}", self.0.display()));
        }
    }
}
