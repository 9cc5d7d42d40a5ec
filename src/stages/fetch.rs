//! Fetch: brings the tip's objects into the repository. Runs in the fetcher.
//!
//! No ref is moved here. A pack appears in the repository whole or not at all, and until the journal
//! names one of its commits nothing points at it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use fs2::FileExt;
use git2::{AutotagOption, Direction, ErrorClass, ErrorCode, FetchOptions, Oid, Remote, RemoteCallbacks, Repository};

use crate::commit::Commit;
use crate::journal;
use crate::journal::damaged::ensure_sound;
use crate::journal::in_use::InUse;
use crate::outcome::{Class, Failure, remedy};
use crate::processes::messages::{Access, Fetch, Tip};
use crate::remote::transport;
use crate::report::terminal::tell;
use crate::stages::tend;
use crate::sys::cage::{Cage, Outside, Reading};
use crate::sys::libgit2;
use crate::sys::limits::Limits;

/// So many commits are told to be here, however many apps share the repository.
const MOST_KNOWN: usize = 100;

/// An open repository, and the quarantine that goes when it is dropped.
pub struct Opened {
    pub repo: Repository,
    quarantine: Option<Quarantine>,
    _in_use: Option<InUse>,
}

/// An app's repository, to work on without its server; made for a journal's first entry. Nothing else can be
/// reached from then on.
pub fn open_without_server(path: &Path) -> Result<Opened> {
    Limits::FETCHER.impose()?;
    let opened = open_repository(path)?;
    Grounds::of(path, &opened).close(Outside::Settled)?;
    Ok(opened)
}

fn open_repository(path: &Path) -> Result<Opened> {
    let repo = journal::open_or_create(path)?;
    Ok(Opened { repo, quarantine: None, _in_use: Some(InUse::mark(path)?) })
}

/// What a fetcher can reach: its repository; in a dry run its quarantine, and the repository to read.
struct Grounds<'o> {
    repository: &'o Path,
    quarantine: Option<&'o Path>,
}

impl<'o> Grounds<'o> {
    fn of(repository: &'o Path, opened: &'o Opened) -> Grounds<'o> {
        Grounds { repository, quarantine: opened.quarantine.as_ref().map(|quarantine| quarantine.0.as_path()) }
    }

    /// While names are looked up, or a local repository is read.
    fn begin(&self) -> Result<()> {
        self.cage(Reading::Anywhere, Outside::Open)
    }

    fn close(&self, outside: Outside) -> Result<()> {
        self.cage(Reading::Beneath(&[self.repository]), outside)
    }

    fn cage(&self, read: Reading, outside: Outside) -> Result<()> {
        let temporary = std::env::temp_dir();
        let remove = self.quarantine.is_some().then_some(temporary.as_path());
        Cage { read, write: &[self.quarantine.unwrap_or(self.repository)], remove, outside }.enter()
    }
}

/// What was fetched.
pub struct Fetched {
    pub reference: String,
    /// What the ref holds: the commit, or a tag object.
    pub object: Oid,
    pub commit: Commit,
    /// The files that came with it.
    brought: Vec<PathBuf>,
}

impl Fetched {
    /// Removes what a server sent that turned out to be damaged. The tip would count as there from then
    /// on, and would not be fetched again when the server has been repaired.
    ///
    /// Not what another app's journal stands on by now: the damage may lie in a folder that is not its own. An app
    /// that has not recorded it yet fails, and fetches it again.
    pub fn discard(&self, repo: &Repository) -> Result<()> {
        let _fetch = Lock::take(repo.path(), Step::Fetch)?;
        let _record = Lock::take(repo.path(), Step::Record)?;
        if self.is_named(repo)? { Ok(()) } else { remove_all(&self.brought) }
    }

    /// Whether a journal names a commit of what came.
    fn is_named(&self, repo: &Repository) -> Result<bool> {
        let named = named(repo)?;
        for file in self.brought.iter().filter(|file| file.extension().is_some_and(|e| e == "idx")) {
            let index = fs::read(file).with_context(|| file.display().to_string())?;
            if tend::ids(&index)?.iter().any(|id| named.contains(id)) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Fetches the tip and returns what the ref holds now: it may have moved since the probe.
pub fn fetch(request: &Fetch, progress: impl FnMut(usize, usize, usize)) -> Result<(Opened, Fetched)> {
    let opened = open(request)?;
    let grounds = Grounds::of(&request.repository, &opened);
    // A program of the user's own is not poller's to confine; it is started before the cage is closed.
    if !matches!(request.origin.access, Access::Program(_)) {
        Limits::FETCHER.impose()?;
        grounds.begin()?;
    }
    let path = opened.repo.path();
    let _lock = Lock::take(path, Step::Fetch)?;
    clean_packs(path)?;
    let before = packs(path)?;
    let done = obtain(&opened.repo, request, &grounds, progress);
    let brought = || Ok::<_, anyhow::Error>(packs(path)?.into_iter().filter(|pack| !before.contains(pack)).collect());
    match done.and_then(|object| Ok((object, peel(&opened.repo, object, &request.tip)?))) {
        Ok((object, commit)) => {
            let fetched = Fetched { reference: request.tip.reference.clone(), object, commit, brought: brought()? };
            Ok((opened, fetched))
        }
        Err(e) => {
            clean_packs(path)?;
            remove_all(&brought()?)?;
            Err(e)
        }
    }
}

fn open(request: &Fetch) -> Result<Opened> {
    if !request.quarantine {
        return open_repository(&request.repository);
    }
    let quarantine = Quarantine::new()?;
    let repo = journal::create(&quarantine.0)?;
    let objects = request.repository.join("objects");
    let mut in_use = None;
    if objects.try_exists()? {
        in_use = Some(InUse::mark(&request.repository)?);
        repo.odb()?.add_disk_alternate(objects.to_str().context("a path that is not UTF-8")?)?;
    }
    Ok(Opened { repo, quarantine: Some(quarantine), _in_use: in_use })
}

/// The tip's object, from the server unless it is here: fetched by a run that was cut short, or for an app that
/// shares the repository. The cage is closed afterwards.
fn obtain(
    repo: &Repository,
    request: &Fetch,
    grounds: &Grounds,
    progress: impl FnMut(usize, usize, usize),
) -> Result<Oid> {
    if has(repo, &request.tip) {
        Limits::FETCHER.impose()?;
        grounds.close(Outside::Settled)?;
        return Ok(request.tip.object.oid()?);
    }
    let object = download(repo, request, grounds, progress)?;
    // libgit2 plays both sides, with threads for the packing, and the repository may lean on others.
    if matches!(request.origin.access, Access::Local) {
        grounds.close(Outside::Settled)?;
    }
    Ok(object)
}

fn has(repo: &Repository, tip: &Tip) -> bool {
    tip.object.oid().is_ok_and(|id| repo.odb().is_ok_and(|odb| odb.exists(id)))
}

fn download(
    repo: &Repository,
    request: &Fetch,
    grounds: &Grounds,
    mut progress: impl FnMut(usize, usize, usize),
) -> Result<Oid> {
    let origin = &request.origin;
    let gone = || {
        let reference = &request.tip.reference;
        Failure::new(Class::Unreachable, format!("{}: `{reference}` was there a moment ago and is gone", origin.url))
    };
    let (url, broken, complaint) = match (&origin.access, &origin.remote) {
        (Access::Local, crate::config::Remote::Local(path)) => {
            (path.to_str().context("a path that is not UTF-8")?.to_owned(), None, None)
        }
        _ => {
            let mut opened = transport::open(origin, &request.tip.reference)?;
            opened.object.ok_or_else(gone)?;
            // A quarantine has no journals.
            match grounds.quarantine {
                None => opened.stream.knows(known(repo)?),
                Some(_) => opened
                    .stream
                    .knows(Repository::open_bare(grounds.repository).map_or(Ok(Vec::new()), |r| known(&r))?),
            }
            Limits::FETCHER.impose()?;
            grounds.close(match origin.access {
                Access::Program(_) => Outside::SettledWithPrograms,
                _ => Outside::Settled,
            })?;
            libgit2::offer(Box::new(opened.stream))?;
            (libgit2::OFFERED_URL.to_owned(), Some(opened.broken), Some(opened.complaint))
        }
    };
    let mut reason = None;
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
        let done = remote.download(&[&request.tip.reference], Some(&mut options));
        // Now, for the goodbye to a server that has gone fails as well.
        reason = broken.and_then(|broken| broken.take());
        done.map(|()| Some(object))
    })();
    match fetched {
        Ok(Some(object)) => Ok(object),
        // libgit2 calls the fetch of a branch that is not there a success.
        Ok(None) => Err(gone().into()),
        Err(e) => {
            // libgit2 paraphrases what the stream said; the stream kept the real reason.
            if let Some(failure) = reason {
                return Err(failure.into());
            }
            Err(failure_of(&origin.url, &e, complaint.and_then(|c| c.text())).into())
        }
    }
}

/// Commits of the project that the newest entries of the journals name: they were fetched with all that they
/// lead to.
fn known(repo: &Repository) -> Result<Vec<Oid>> {
    Ok(named(repo)?.into_iter().take(MOST_KNOWN).collect())
}

fn named(repo: &Repository) -> Result<BTreeSet<Oid>> {
    let mut named = BTreeSet::new();
    for reference in repo.references_glob(&journal::reference("*"))? {
        let Some(id) = reference?.target() else { continue };
        // What cannot be read is told where it matters; here it only costs a larger pack.
        if ensure_sound(repo.path(), id).is_ok()
            && let Ok(entry) = repo.find_commit(id)
        {
            // The first parent is the entry before.
            named.extend(entry.parent_ids().skip(1));
        }
    }
    Ok(named)
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
    let found = repo.find_object(object, None).with_context(|| format!("reading {object}")).map_err(damaged)?;
    match found.peel_to_commit() {
        Ok(commit) => Ok(commit.id().into()),
        // A tree or a blob, or a tag of one.
        Err(e) if matches!(e.code(), ErrorCode::Peel | ErrorCode::InvalidSpec) => {
            Err(Failure::new(Class::Refused, format!("`{}` holds no commit", tip.reference))
                .help("name a branch or a tag of a commit in `[source]`")
                .into())
        }
        Err(e) => Err(damaged(anyhow::Error::from(e).context(format!("what `{}` leads to", tip.reference)))),
    }
}

/// What libgit2 cannot make sense of, or does not find, is the server's fault and not this machine's.
pub fn damaged(error: anyhow::Error) -> anyhow::Error {
    let git = error.chain().find_map(|cause| cause.downcast_ref::<git2::Error>());
    if git.is_none_or(is_ours) || error.chain().any(|cause| cause.is::<Failure>()) {
        return error;
    }
    let text = crate::report::printable(&format!("{error:#}"));
    Failure::new(Class::Protocol, format!("the server sent what does not hold: {text}"))
        .help("if it stays so, the repository on the server is damaged: run git fsck there")
        .into()
}

/// Whether this machine is at fault, and not what a server sent.
pub fn is_ours(e: &git2::Error) -> bool {
    matches!(e.class(), ErrorClass::Os | ErrorClass::Filesystem | ErrorClass::NoMemory) || remedy(e.message()).is_some()
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
        Err(e) if e.code() == ErrorCode::Ambiguous => {
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
pub(super) fn clean_packs(repository: &Path) -> Result<()> {
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

/// The packs of a repository and their indices, these first: without one a pack is not looked at.
fn packs(repository: &Path) -> Result<Vec<PathBuf>> {
    let folder = repository.join("objects/pack");
    let entries = fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
    let mut found = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    found.retain(|path| path.extension().is_some_and(|end| end == "pack" || end == "idx"));
    found.sort_by_key(|path| path.extension().is_some_and(|end| end == "pack"));
    Ok(found)
}

fn remove_all(paths: &[PathBuf]) -> Result<()> {
    paths.iter().try_for_each(|path| remove_if_there(path))
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

#[cfg(test)]
mod tests;
