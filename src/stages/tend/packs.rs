//! The files of a repository's object store: which loose objects and packs there are, and new packs of them.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use git2::{Oid, Repository};

/// Packs larger than this are never copied. 64 MiB of history is the work of many fetches.
const LARGE: u64 = 64 << 20;
/// No more than this is merged at a time, so that it takes a minute or two, and not the time that tending may have.
const TOGETHER: u64 = 256 << 20;
/// Objects larger than this are not compared with others when packs are merged: libgit2 holds ten at a time.
const COMPARED: i64 = 1 << 20;

/// A pack's name, without `pack-` and ending.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pack(String);

impl Pack {
    pub fn named(name: &str) -> Pack {
        Pack(name.to_owned())
    }
}

pub struct Folder {
    repository: PathBuf,
    objects: PathBuf,
    packs: PathBuf,
    /// New packs of the journals' are made here, out of sight until it is written down whose they are.
    aside: PathBuf,
}

impl Folder {
    pub fn of(repository: &Path) -> Folder {
        let objects = repository.join("objects");
        let (packs, aside) = (objects.join("pack"), objects.join("poller-aside"));
        Folder { repository: repository.to_owned(), objects, packs, aside }
    }

    /// Every loose object and its file.
    pub fn loose(&self) -> Result<Vec<(Oid, PathBuf)>> {
        let mut found = Vec::new();
        for folder in read_dir(&self.objects)? {
            let name = folder.file_name();
            let Some(start) = name.to_str().filter(|name| name.len() == 2) else { continue };
            for file in read_dir(&folder.path())? {
                let rest = file.file_name();
                let id = rest.to_str().filter(|rest| rest.len() == 38).map(|rest| format!("{start}{rest}"));
                if let Some(id) = id.and_then(|id| Oid::from_str(&id).ok()) {
                    found.push((id, file.path()));
                }
            }
        }
        Ok(found)
    }

    /// About how many loose objects there are: ids spread evenly, so an eighth of the folders stands for all.
    pub fn about_loose(&self) -> Result<usize> {
        let mut found = 0;
        for start in 0..32 {
            match fs::read_dir(self.objects.join(format!("{:02x}", start * 8))) {
                Ok(folder) => found += folder.count(),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e).context(self.objects.display().to_string()),
            }
        }
        Ok(found * 8)
    }

    /// Every complete pack and its size in bytes, the smallest first.
    pub fn packs(&self) -> Result<Vec<(u64, Pack)>> {
        let mut found = Vec::new();
        for file in read_dir(&self.packs)? {
            let name = file.file_name();
            let name = name.to_str().and_then(|name| name.strip_prefix("pack-")?.strip_suffix(".idx"));
            let Some(pack) = name.map(|name| Pack(name.to_owned())) else { continue };
            let size = fs::metadata(self.file(&pack, "pack")).map(|meta| meta.len());
            found.push((size.unwrap_or(0), pack));
        }
        found.sort_by(|a, b| (a.0, &a.1.0).cmp(&(b.0, &b.1.0)));
        Ok(found)
    }

    /// Removes what a killed run left: packs in the making, and those that have lost their index, which goes first.
    pub fn tidy(&self) -> Result<()> {
        let partial = self.list().with_extension("partial");
        for (path, removed) in [(&self.aside, fs::remove_dir_all(&self.aside)), (&partial, fs::remove_file(&partial))] {
            match removed {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e).context(path.display().to_string()),
                _ => {}
            }
        }
        for file in read_dir(&self.packs)? {
            let path = file.path();
            if path.extension().is_some_and(|e| e == "pack") && !path.with_extension("idx").exists() {
                fs::remove_file(&path).with_context(|| path.display().to_string())?;
            }
        }
        Ok(())
    }

    /// The packs that are the journals' and nothing else's.
    pub fn journal_packs(&self) -> Result<Vec<Pack>> {
        match fs::read_to_string(self.list()) {
            Ok(text) => {
                let there = self.packs()?;
                let listed = text.lines().map(|line| Pack(line.to_owned()));
                Ok(listed.filter(|pack| there.iter().any(|(_, other)| other == pack)).collect())
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(e) => Err(e).context(self.list().display().to_string()),
        }
    }

    pub fn list_journal_packs(&self, packs: &[Pack]) -> Result<()> {
        let (path, partial) = (self.list(), self.list().with_extension("partial"));
        let write = || -> io::Result<()> {
            let mut file = File::create(&partial)?;
            packs.iter().try_for_each(|pack| writeln!(file, "{}", pack.0))?;
            file.sync_all()?;
            fs::rename(&partial, &path)?;
            sync(&self.repository)
        };
        write().with_context(|| path.display().to_string())
    }

    /// One that was made where it is seen.
    pub fn add_journal_pack(&self, pack: Pack) -> Result<()> {
        let mut listed = self.journal_packs()?;
        listed.push(pack);
        self.list_journal_packs(&listed)
    }

    fn list(&self) -> PathBuf {
        self.repository.join("journal-packs")
    }

    /// Makes one pack of the journals' objects. It is listed before it can be seen, so that it is never taken
    /// for a pack that a server sent.
    pub fn write_journal_pack(&self, repo: &Repository, objects: &HashSet<Oid>) -> Result<Option<Pack>> {
        if objects.is_empty() {
            return Ok(None);
        }
        fs::create_dir(&self.aside).with_context(|| self.aside.display().to_string())?;
        let pack = write(repo, objects, &self.aside)?;
        let mut listed = self.journal_packs()?;
        listed.push(pack.clone());
        self.list_journal_packs(&listed)?;
        for ending in ["pack", "idx"] {
            let made = self.aside.join(format!("pack-{}.{ending}", pack.0));
            let place = self.file(&pack, ending);
            fs::rename(&made, &place).with_context(|| place.display().to_string())?;
        }
        sync(&self.packs).with_context(|| self.packs.display().to_string())?;
        fs::remove_dir(&self.aside).with_context(|| self.aside.display().to_string())?;
        Ok(Some(pack))
    }

    /// The small packs that are to become one, where there are more than `most`.
    pub fn to_merge(&self, most: usize) -> Result<Vec<Pack>> {
        let journals = self.journal_packs()?;
        let packs: Vec<_> = self.packs()?.into_iter().filter(|(_, pack)| !journals.contains(pack)).collect();
        let sizes: Vec<u64> = packs.iter().map(|(size, _)| *size).collect();
        Ok(packs.into_iter().take(how_many(&sizes, most)).map(|(_, pack)| pack).collect())
    }

    /// Makes one pack of several; they stay.
    pub fn merge(&self, repo: &Repository, packs: &[Pack]) -> Result<Option<Pack>> {
        if packs.is_empty() {
            return Ok(None);
        }
        let mut objects = HashSet::new();
        for pack in packs {
            let path = self.file(pack, "idx");
            let index = fs::read(&path).with_context(|| path.display().to_string())?;
            objects.extend(ids(&index).with_context(|| path.display().to_string())?);
        }
        let pack = write(repo, &objects, &self.packs)?;
        sync(&self.packs).with_context(|| self.packs.display().to_string())?;
        Ok(Some(pack))
    }

    /// The index goes first: a pack without one is nothing, an index without its pack is an error.
    pub fn remove(&self, pack: &Pack) -> Result<()> {
        for ending in ["idx", "pack"] {
            let path = self.file(pack, ending);
            fs::remove_file(&path).with_context(|| path.display().to_string())?;
        }
        Ok(())
    }

    fn file(&self, pack: &Pack, ending: &str) -> PathBuf {
        self.packs.join(format!("pack-{}.{ending}", pack.0))
    }
}

/// How many of the packs, whose sizes are given in ascending order, are worth merging: the small ones, up to
/// one that is larger than all before it together, and in any case so many that half of `most` remain.
fn how_many(sizes: &[u64], most: usize) -> usize {
    if sizes.len() <= most {
        return 0;
    }
    let small = sizes.partition_point(|size| *size <= LARGE);
    let (mut count, mut sum) = (0, 0);
    for size in &sizes[..small] {
        let is_many = sizes.len() - count > most / 2;
        if !is_many && *size > sum || sum + size > TOGETHER {
            break;
        }
        (count, sum) = (count + 1, sum + size);
    }
    if count < 2 { 0 } else { count }
}

fn write(repo: &Repository, objects: &HashSet<Oid>, folder: &Path) -> Result<Pack> {
    let mut config = repo.config()?;
    if config.get_i64("core.bigFileThreshold").ok() != Some(COMPARED) {
        config.set_i64("core.bigFileThreshold", COMPARED)?;
    }
    let mut builder = repo.packbuilder()?;
    builder.set_threads(1);
    super::order::insert(&mut builder, repo, objects)?;
    builder.write(folder, 0o440).with_context(|| folder.display().to_string())?;
    Ok(Pack(builder.name()?.context("a pack without a name")?.to_owned()))
}

/// The ids in an index of version 2, which is the only one that libgit2 writes.
pub fn ids(index: &[u8]) -> Result<Vec<Oid>> {
    const NAMES: usize = 8 + 256 * 4;
    ensure!(index.starts_with(b"\xfftOc\0\0\0\x02") && index.len() >= NAMES, "not an index of version 2");
    let count = u32::from_be_bytes(index[NAMES - 4..NAMES].try_into()?) as usize;
    let names = index.get(NAMES..NAMES + count * 20).context("the index is cut short")?;
    names.chunks_exact(20).map(|name| Ok(Oid::from_bytes(name)?)).collect()
}

fn read_dir(path: &Path) -> Result<Vec<fs::DirEntry>> {
    let context = || path.display().to_string();
    fs::read_dir(path).with_context(context)?.map(|entry| entry.with_context(context)).collect()
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_packs_are_merged_and_a_large_one_is_not_copied_for_their_sake() {
        assert_eq!(how_many(&[1; 10], 10), 0);
        assert_eq!(how_many(&[1; 11], 10), 11);
        let mut sizes = vec![1; 11];
        sizes.push(1000);
        assert_eq!(how_many(&sizes, 10), 11);
        sizes.push(LARGE + 1);
        assert_eq!(how_many(&sizes, 10), 11);
        // Each twice the one before: as many as it takes to have few.
        let doubling: Vec<u64> = (0..12).map(|n| 1 << n).collect();
        assert_eq!(how_many(&doubling, 10), 7);
        assert_eq!(how_many(&[LARGE + 1; 20], 10), 0);
        assert_eq!(how_many(&[LARGE; 20], 10), 4, "no more at a time than can be done in it");
    }

    #[test]
    fn an_index_that_is_none_is_an_error() {
        assert!(ids(b"").is_err());
        assert!(ids(&[0; 2000]).is_err());
        let mut short = b"\xfftOc\0\0\0\x02".to_vec();
        short.extend([0; 255 * 4]);
        short.extend([0, 0, 0, 9]);
        assert!(ids(&short).is_err());
        short.extend([7; 9 * 20]);
        assert_eq!(ids(&short).unwrap().len(), 9);
    }
}
