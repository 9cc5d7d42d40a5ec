//! Walking back through an app's journal.

use std::collections::HashSet;
use std::path::Path;

use anyhow::{Context, Result};
use git2::{ErrorCode, Repository};

use super::in_use::InUse;
use super::state::{Ending, Run, State};
use super::{commit, file, reference, tree, unreadable};

/// One run, as the entry at its end tells it; of a run that has none yet, the one at its begin.
pub struct Told<'r> {
    pub run: Run,
    pub state: State,
    repo: &'r Repository,
    tree: git2::Oid,
}

impl Told<'_> {
    /// What its commands said. None when they said nothing.
    pub fn output(&self) -> Result<Option<Vec<u8>>> {
        let tree = self.repo.find_tree(self.tree)?;
        let Some(entry) = tree.get_name("output.log") else { return Ok(None) };
        let blob = self.repo.find_blob(entry.id()).context("output.log")?;
        Ok(Some(blob.content().to_vec()))
    }
}

/// Shows each run to `see`, newest first, until that says false. An app without a journal has none.
pub fn history(repository: &Path, app: &str, mut see: impl FnMut(Told) -> bool) -> Result<()> {
    let mut walk = || -> Result<()> {
        if !repository.try_exists()? {
            return Ok(());
        }
        let _in_use = InUse::mark(repository)?;
        let repo = Repository::open_bare(repository)?;
        let mut next = match repo.refname_to_id(&reference(app)) {
            Ok(id) => Some(commit(&repo, id)?),
            Err(e) if e.code() == ErrorCode::NotFound => None,
            Err(e) => return Err(e.into()),
        };
        let mut told: HashSet<String> = HashSet::new();
        while let Some(entry) = next {
            let tree = tree(&repo, &entry)?;
            let run: Run = toml::from_str(&file(&repo, &tree, "run.toml")?).context("run.toml")?;
            let state: State = toml::from_str(&file(&repo, &tree, "state.toml")?).context("state.toml")?;
            // A run that ended is told by its end. Another's entry may stand between that and its begin: a
            // run that was killed is ended by the next one, and somebody may have frozen the app meanwhile.
            let is_told = run.outcome == Ending::Started && told.contains(&run.id);
            told.insert(run.id.clone());
            if !is_told && !see(Told { run, state, repo: &repo, tree: tree.id() }) {
                return Ok(());
            }
            // The first parent is always an entry; the first entry has none.
            next = entry.parent_id(0).ok().map(|id| commit(&repo, id)).transpose()?;
        }
        Ok(())
    };
    walk().map_err(|e| unreadable(repository, app, &e))
}
