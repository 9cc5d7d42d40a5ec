//! Nothing is removed from a repository while somebody reads it.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result};
use fs2::FileExt;

/// Taken by whoever reads a repository, for as long as that lasts: what is read is not removed meanwhile.
pub struct InUse(#[allow(dead_code, reason = "held for its lock")] File);

impl InUse {
    pub fn mark(repository: &Path) -> Result<InUse> {
        let folder = File::open(repository).with_context(|| repository.display().to_string())?;
        FileExt::lock_shared(&folder).with_context(|| repository.display().to_string())?;
        Ok(InUse(folder))
    }
}

/// Keeps readers out for a moment. None when one is at work.
pub fn alone(repository: &Path) -> Result<Option<File>> {
    let folder = File::open(repository).with_context(|| repository.display().to_string())?;
    match FileExt::try_lock_exclusive(&folder) {
        Ok(()) => Ok(Some(folder)),
        Err(e) if e.raw_os_error() == fs2::lock_contended_error().raw_os_error() => Ok(None),
        Err(e) => Err(e).with_context(|| repository.display().to_string()),
    }
}
