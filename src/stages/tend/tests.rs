use git2::Signature;

use super::*;

/// A repository with a journal, removed with the value.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("poller-tend-{}-{name}", std::process::id()));
        Repository::init_bare(&path).unwrap();
        Scratch(path)
    }

    fn repo(&self) -> Repository {
        Repository::open_bare(&self.0).unwrap()
    }

    /// A pack with one commit of the project's in it, as a fetch brings it.
    fn fetch(&self, number: usize) -> Oid {
        self.bring(|repo| commit(repo, &[("page", &format!("{number} of the project's"))], &[]))
    }

    /// A pack with all that is made.
    fn bring(&self, make: impl FnOnce(&Repository) -> Oid) -> Oid {
        let repo = self.repo();
        let odb = repo.odb().unwrap();
        let memory = odb.add_new_mempack_backend(1000).unwrap();
        let commit = make(&repo);
        let mut pack = git2::Buf::new();
        memory.dump(&repo, &mut pack).unwrap();
        let repo = self.repo();
        let odb = repo.odb().unwrap();
        let mut writer = odb.packwriter().unwrap();
        std::io::Write::write_all(&mut writer, &pack).unwrap();
        writer.commit().unwrap();
        commit
    }

    /// An entry that names a commit of the project's.
    fn record(&self, app: &str, number: usize, named: Oid) -> Oid {
        self.record_saying(app, number, named, "hello")
    }

    /// The same with what its commands said.
    fn record_saying(&self, app: &str, number: usize, named: Oid, said: &str) -> Oid {
        let repo = self.repo();
        let name = format!("refs/poller/{app}");
        let before = repo.refname_to_id(&name).ok();
        let parents: Vec<Oid> = before.into_iter().chain(before.map(|_| named)).collect();
        let text = format!("{app} {number}");
        let entry = commit(&repo, &[("state.toml", &text), ("run.toml", &text), ("output.log", said)], &parents);
        repo.reference(&name, entry, true, "test").unwrap();
        entry
    }

    /// What each entry says, newest first.
    fn told(&self, app: &str) -> Vec<String> {
        let repo = self.repo();
        let all = entries(&repo, &format!("refs/poller/{app}"), usize::MAX).unwrap();
        let text = |entry: &git2::Commit| {
            let blob = entry.tree().unwrap().get_name("state.toml").unwrap().id();
            String::from_utf8(repo.find_blob(blob).unwrap().content().to_vec()).unwrap()
        };
        all.iter().map(text).collect()
    }

    fn fsck(&self) {
        let done = std::process::Command::new("git").args(["fsck", "--strict", "--full"]).current_dir(&self.0).output();
        let done = done.unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn commit(repo: &Repository, files: &[(&str, &str)], parents: &[Oid]) -> Oid {
    commit_at(repo, 1, None, files, parents)
}

/// A commit of that second whose tree is `before` with the files put into it.
fn commit_at(repo: &Repository, second: i64, before: Option<Oid>, files: &[(&str, &str)], parents: &[Oid]) -> Oid {
    let before = before.map(|id| repo.find_commit(id).unwrap().tree().unwrap());
    let mut tree = repo.treebuilder(before.as_ref()).unwrap();
    for (name, text) in files {
        tree.insert(name, repo.blob(text.as_bytes()).unwrap(), 0o100644).unwrap();
    }
    let tree = repo.find_tree(tree.write().unwrap()).unwrap();
    let who = Signature::new("a", "a@b", &git2::Time::new(second, 0)).unwrap();
    let parents: Vec<_> = parents.iter().map(|id| repo.find_commit(*id).unwrap()).collect();
    repo.commit(None, &who, &who, "text\n", &tree, &parents.iter().collect::<Vec<_>>()).unwrap()
}

#[test]
fn years_of_deploys_leave_few_files_and_the_newest_entries() {
    let scratch = Scratch::new("years");
    let (mut last, mut tended) = (Oid::ZERO_SHA1, 0);
    for number in 0..300 {
        last = scratch.fetch(number);
        scratch.record("site", number, last);
        if number % 3 == 0 {
            scratch.record("other", number, last);
        }
        if let Some(done) = tend(&scratch.0, "site", 40, Due::IfNeeded).unwrap() {
            tended += 1;
            assert!(done.loose > 0 || done.merged > 0, "{done:?}");
            assert_eq!(tend(&scratch.0, "site", 40, Due::IfNeeded).unwrap(), None, "once is enough");
        }
    }
    assert!((10..100).contains(&tended), "{tended} times");
    let told = scratch.told("site");
    assert!((40..=54).contains(&told.len()), "{} entries", told.len());
    assert!(told.iter().rev().is_sorted_by_key(|text| text[5..].parse::<usize>().unwrap()));
    assert_eq!(told[0], "site 299");
    assert_eq!(scratch.told("other").len(), 100, "another app's journal is its own");
    let folder = Folder::of(&scratch.0);
    // Their number is estimated.
    assert!(folder.loose().unwrap().len() <= 2 * LOOSE_OBJECTS);
    assert!(folder.packs().unwrap().len() <= PACKS + 2);
    // Nothing of the project is lost, named by an entry or not.
    let repo = scratch.repo();
    assert!(repo.find_commit(last).is_ok());
    drop(repo);
    scratch.fsck();
}

#[test]
fn what_a_new_entry_has_in_common_with_old_ones_stays() {
    let scratch = Scratch::new("common");
    let mut number = 0;
    let mut deploys = |said: &[&str]| {
        for said in said {
            let commit = scratch.fetch(number);
            scratch.record_saying("site", number, commit, said);
            number += 1;
        }
        for _ in 0..PACKS {
            scratch.fetch(number);
            number += 1;
        }
        tend(&scratch.0, "site", 500, Due::IfNeeded).unwrap().unwrap();
        scratch.fsck();
    };
    let others = ["a", "b", "c", "d"];
    // Among the old entries, and so in the journals' pack alone.
    deploys(&[&["usual"][..], &others].concat());
    // Said again, which writes nothing, as a pack has it.
    deploys(&["usual"]);
    deploys(&others);
    let repo = scratch.repo();
    let usual = Oid::hash_object(git2::ObjectType::Blob, b"usual").unwrap();
    assert_eq!(repo.find_blob(usual).unwrap().content(), b"usual");
}

#[test]
fn nothing_is_removed_while_somebody_reads_and_the_next_time_does_it() {
    let scratch = Scratch::new("reading");
    for number in 0..PACKS + 1 {
        let commit = scratch.fetch(number);
        scratch.record("site", number, commit);
    }
    let folder = Folder::of(&scratch.0);
    let reading = crate::journal::in_use::InUse::mark(&scratch.0).unwrap();
    let before = folder.loose().unwrap().len();
    tend(&scratch.0, "site", 500, Due::IfNeeded).unwrap().unwrap();
    assert_eq!(folder.loose().unwrap().len(), before);
    assert!(folder.packs().unwrap().len() > PACKS);
    drop(reading);
    let done = tend(&scratch.0, "site", 500, Due::IfNeeded).unwrap().unwrap();
    assert!(done.merged > PACKS && done.loose > 0, "{done:?}");
    assert_eq!(folder.packs().unwrap().len(), 2, "the project's and the journals'");
    assert_eq!(scratch.told("site").len(), PACKS + 1);
    scratch.fsck();
}

#[test]
fn a_journal_that_cannot_be_read_loses_nothing() {
    let scratch = Scratch::new("damaged");
    for number in 0..PACKS + 1 {
        let commit = scratch.fetch(number);
        scratch.record("site", number, commit);
        scratch.record("other", number, commit);
    }
    fs::write(scratch.0.join("refs/poller/other"), "rubbish\n").unwrap();
    let folder = Folder::of(&scratch.0);
    let before = folder.loose().unwrap().len();
    assert!(tend(&scratch.0, "site", 500, Due::IfNeeded).is_err());
    assert_eq!(folder.loose().unwrap().len(), before);
}

#[test]
fn what_a_killed_one_left_is_taken_up() {
    let scratch = Scratch::new("killed");
    for number in 0..PACKS + 1 {
        let commit = scratch.fetch(number);
        scratch.record("site", number, commit);
    }
    let folder = Folder::of(&scratch.0);
    fs::create_dir(scratch.0.join("objects/poller-aside")).unwrap();
    fs::write(scratch.0.join("objects/poller-aside/pack_git2_x"), "half").unwrap();
    fs::write(scratch.0.join("objects/pack/pack-0123.pack"), "without its index").unwrap();
    folder.list_journal_packs(&[]).unwrap();
    fs::write(scratch.0.join("journal-packs"), "0123456789012345678901234567890123456789\n").unwrap();
    assert_eq!(tend(&scratch.0, "site", 500, Due::Leftovers).unwrap(), None, "no merge that may not come to its end");
    assert!(!scratch.0.join("objects/poller-aside").exists());
    assert!(!scratch.0.join("objects/pack/pack-0123.pack").exists());
    assert_eq!(folder.packs().unwrap().len(), PACKS + 1);
    tend(&scratch.0, "site", 500, Due::IfNeeded).unwrap().unwrap();
    assert_eq!(folder.journal_packs().unwrap().len(), 1);
    scratch.fsck();
}

#[test]
fn the_versions_of_a_folder_take_little_more_than_one_of_them() {
    const FILES: usize = 300;
    const VERSIONS: usize = 250;
    let scratch = Scratch::new("versions");
    let names: Vec<String> = (0..FILES).map(|n| format!("file {n}")).collect();
    let first: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "the first")).collect();
    let mut last = scratch.bring(|repo| commit_at(repo, 0, None, &first, &[]));
    for version in 1..VERSIONS {
        let change = [(names[version * 7 % FILES].as_str(), &*format!("version {version}"))];
        last = scratch.bring(|repo| commit_at(repo, version as i64, Some(last), &change, &[]));
    }
    scratch.record("site", VERSIONS, last);
    tend(&scratch.0, "site", 500, Due::IfNeeded).unwrap().unwrap();
    let size: u64 = Folder::of(&scratch.0).packs().unwrap().iter().map(|(size, _)| size).sum();
    scratch.fsck();
    // 53 KB; in the order of their ids it is 93.
    assert!(size < 65_000, "{size} bytes");
}
