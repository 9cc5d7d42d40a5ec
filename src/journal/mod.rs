//! The state in git: one ref an app, whose commits are the entries.
//!
//! An entry's first parent is the entry before. Further parents are the commits that the state names,
//! so that git itself keeps whatever a rollback needs. The first entry of an app has no parent at all:
//! a first parent is always poller's own and never something that a server sent.
//!
//! One compare-and-swap of the ref is the transaction. State and history are one commit, so they
//! cannot disagree, and a crash leaves the entry before.

pub mod damaged;
mod history;
pub mod in_use;
pub mod shorten;
pub mod state;

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use fs2::FileExt;
use git2::{Commit as GitCommit, ErrorCode, Oid, Repository, Signature, Tree};
use nix::unistd::syncfs;
use serde::{Deserialize, Serialize};

use crate::commit::Commit;
use crate::outcome::{Class, Failure};
use damaged::{ensure_sound, unreadable};
pub use history::{Told, history};
use in_use::InUse;
use state::{Run, State};

/// What an app's journal says now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    /// The newest entry; none for an app that was never deployed.
    pub head: Option<Commit>,
    pub state: State,
}

/// A new entry.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// What the ref must still be.
    pub expected: Option<Commit>,
    pub state: State,
    pub run: Run,
    /// Bounded by the supervisor.
    pub output: Vec<u8>,
    /// For the commit's author field.
    pub author: String,
    pub host: String,
}

pub fn reference(app: &str) -> String {
    format!("refs/poller/{app}")
}

/// Reads an app's newest entry. A repository that is not there yet is an empty journal; one that is
/// there and cannot be read is an error, never "new": that would deploy blindly.
pub fn read(repository: &Path, app: &str) -> Result<Journal> {
    if !repository.try_exists().with_context(|| repository.display().to_string())? {
        return Ok(Journal::default());
    }
    let inner = || -> Result<Journal> {
        let _in_use = InUse::mark(repository)?;
        let repo = Repository::open_bare(repository)?;
        let head = match repo.refname_to_id(&reference(app)) {
            Ok(id) => id,
            Err(e) if e.code() == ErrorCode::NotFound => return Ok(Journal::default()),
            Err(e) => return Err(e.into()),
        };
        let tree = tree(&repo, &commit(&repo, head)?)?;
        let state = toml::from_str(&file(&repo, &tree, "state.toml")?).context("state.toml")?;
        Ok(Journal { head: Some(head.into()), state })
    };
    inner().map_err(|e| unreadable(repository, app, &e))
}

fn commit(repo: &Repository, id: Oid) -> Result<GitCommit<'_>> {
    ensure_sound(repo.path(), id)?;
    Ok(repo.find_commit(id)?)
}

fn tree<'r>(repo: &'r Repository, commit: &GitCommit) -> Result<Tree<'r>> {
    ensure_sound(repo.path(), commit.tree_id())?;
    Ok(repo.find_tree(commit.tree_id())?)
}

fn file(repo: &Repository, tree: &Tree, name: &str) -> Result<String> {
    let entry = tree.get_name(name).with_context(|| format!("the entry has no {name}"))?;
    ensure_sound(repo.path(), entry.id())?;
    let blob = repo.find_blob(entry.id())?;
    Ok(String::from_utf8(blob.content().to_vec())?)
}

/// Writes an entry. When this returns, it is on the disk.
pub fn append(repo: &Repository, app: &str, entry: &Entry) -> Result<Commit> {
    let who = Signature::now(&plain(&entry.author), &format!("{}@{}", plain(&entry.author), plain(&entry.host)))?;
    let mut parents = Vec::new();
    if let Some(before) = &entry.expected {
        parents.push(repo.find_commit(before.oid()?)?);
        for commit in named(&entry.state) {
            let commit = repo.find_commit(commit.oid()?)?;
            if parents.iter().skip(1).all(|p| p.id() != commit.id()) {
                parents.push(commit);
            }
        }
    }
    let parents: Vec<&GitCommit> = parents.iter().collect();

    let mut tree = repo.treebuilder(None)?;
    let state = toml::to_string(&entry.state).context("writing state.toml")?;
    tree.insert("state.toml", repo.blob(state.as_bytes())?, 0o100644)?;
    let run = toml::to_string(&entry.run).context("writing run.toml")?;
    tree.insert("run.toml", repo.blob(run.as_bytes())?, 0o100644)?;
    if !entry.output.is_empty() {
        tree.insert("output.log", repo.blob(&entry.output)?, 0o100644)?;
    }
    let tree = repo.find_tree(tree.write()?)?;
    let id = repo.commit(None, &who, &who, &message(app, &entry.run), &tree, &parents)?;
    swap(repo, app, entry.expected.as_ref(), id)?;
    Ok(id.into())
}

/// Every commit that the state names and that must stay reachable.
fn named(state: &State) -> Vec<&Commit> {
    let deployed = [&state.deployed, &state.previous].into_iter().flatten().map(|d| &d.commit);
    let started = state.started.iter().map(|s| &s.commit);
    let stray = state.stray.iter().map(|p| &p.commit);
    deployed.chain(started).chain(stray).collect()
}

fn swap(repo: &Repository, app: &str, expected: Option<&Commit>, id: Oid) -> Result<()> {
    let name = reference(app);
    let done = match expected {
        Some(old) => repo.reference_matching(&name, id, true, old.oid()?, "poller"),
        None => repo.reference(&name, id, false, "poller"),
    };
    match done {
        Ok(_) => Ok(()),
        Err(e) if matches!(e.code(), ErrorCode::Modified | ErrorCode::Exists) => {
            Err(Failure::new(Class::Io, format!("{name} was changed by somebody else while this run worked"))
                .help("nothing is lost: the next run starts from what stands there now")
                .into())
        }
        Err(e) => Err(e).with_context(|| format!("updating {name}")),
    }
}

/// Whether a commit is an entry of any journal in this repository.
pub fn is_entry(repo: &Repository, commit: &GitCommit) -> Result<bool> {
    let tree = commit.tree()?;
    if ["state.toml", "run.toml"].into_iter().any(|name| tree.get_name(name).is_none()) {
        return Ok(false);
    }
    let mut walk = repo.revwalk()?;
    walk.simplify_first_parent()?;
    walk.push_glob(&reference("*"))?;
    for id in walk {
        if id? == commit.id() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A subject that makes `git log --oneline refs/poller/APP` a history.
fn message(app: &str, run: &Run) -> String {
    let short = |commit: &Option<Commit>| commit.as_ref().map_or("nothing", Commit::short).to_owned();
    let (from, to) = (short(&run.from), short(&run.to));
    let what = if run.from == run.to { from } else { format!("{from} → {to}") };
    let mut text = format!("{app}: {} {}: {what}\n\nRun: {}\n", run.kind.word(), run.outcome.word(), run.id);
    if !run.reference.is_empty() {
        text.push_str(&format!("Ref: {}\n", run.reference));
    }
    if let Some(reason) = &run.reason {
        text.push_str(&format!("Reason: {}\n", plain(reason)));
    }
    if let Some(error) = &run.error {
        text.push_str(&format!("Error: {}\n", plain(error)));
    }
    text
}

/// Git's author line has its own syntax, and a terminal its own: neither is to be had from data.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || "<>".contains(c) { ' ' } else { c }).collect()
}

/// Opens an app's repository, or makes it.
///
/// It is made under another name and renamed, so that one whose making was cut short is never opened;
/// a lock on the folder keeps apps that share the repository from making it twice.
pub fn open_or_create(path: &Path) -> Result<Repository> {
    let context = || format!("the repository {}", path.display());
    if !path.try_exists().with_context(context)? {
        let folder = path.parent().with_context(context)?;
        let lock = File::open(folder).with_context(|| folder.display().to_string())?;
        FileExt::lock_exclusive(&lock).with_context(|| folder.display().to_string())?;
        if !path.try_exists().with_context(context)? {
            let partial = path.with_extension("git.partial");
            match std::fs::remove_dir_all(&partial) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(e).with_context(context);
                }
                _ => {}
            }
            create(&partial).with_context(context)?;
            // libgit2 syncs objects and refs, but not HEAD and config of a new repository: a power cut
            // would leave them empty under the final name.
            File::open(&partial).and_then(|made| Ok(syncfs(made)?)).with_context(context)?;
            std::fs::rename(&partial, path).with_context(context)?;
            lock.sync_all().with_context(context)?;
        }
    }
    Repository::open_bare(path).with_context(context)
}

/// Makes a bare repository in a folder that is empty or not there.
pub fn create(path: &Path) -> Result<Repository> {
    let mut options = git2::RepositoryInitOptions::new();
    // No template: hooks and excludes of the machine have no business here.
    options.bare(true).mkpath(true).external_template(false).initial_head("poller");
    Ok(Repository::init_opts(path, &options)?)
}

/// Where the repository for this URL and identity is: readable, and never the same for two of them.
pub fn repository_path(state: &Path, url: &str, identity: Option<&Path>) -> Result<PathBuf> {
    let key = format!("{url}\0{}", identity.map(|p| p.display().to_string()).unwrap_or_default());
    let hash = Oid::hash_object(git2::ObjectType::Blob, key.as_bytes())?.to_string();
    let tail: Vec<&str> = url.trim_end_matches('/').trim_end_matches(".git").rsplit(['/', ':']).take(2).collect();
    let name: String = tail
        .iter()
        .rev()
        .flat_map(|part| part.chars().chain(['-']))
        .map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' })
        .collect();
    let name = name.trim_matches('-');
    ensure!(hash.len() > 10, "a hash that is none");
    let name = if name.is_empty() { "repository" } else { name };
    Ok(state.join(format!("{}-{}.git", &name[..name.len().min(60)], &hash[..10])))
}

#[cfg(test)]
mod tests;
