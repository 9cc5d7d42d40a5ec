use std::fs;

use git2::Signature;

use super::*;

/// A repository with a pack of one commit, as a fetch brings it.
fn fetched(name: &str) -> (Quarantine, Fetched) {
    let folder = Quarantine(std::env::temp_dir().join(format!("poller-fetch-{}-{name}", std::process::id())));
    let repo = Repository::init_bare(&folder.0).unwrap();
    let commit = commit(&repo, &[]);
    let mut pack = repo.packbuilder().unwrap();
    pack.insert_commit(commit).unwrap();
    pack.write(&folder.0.join("objects/pack"), 0o440).unwrap();
    for loose in fs::read_dir(folder.0.join("objects")).unwrap() {
        let loose = loose.unwrap();
        if loose.file_name().len() == 2 {
            fs::remove_dir_all(loose.path()).unwrap();
        }
    }
    let brought = packs(&folder.0).unwrap();
    assert_eq!(brought.len(), 2);
    let fetched = Fetched { reference: "refs/heads/main".to_owned(), object: commit, commit: commit.into(), brought };
    (folder, fetched)
}

fn commit(repo: &Repository, parents: &[Oid]) -> Oid {
    let who = Signature::now("a", "a@example.org").unwrap();
    let tree = repo.find_tree(repo.treebuilder(None).unwrap().write().unwrap()).unwrap();
    let parents: Vec<_> = parents.iter().map(|id| repo.find_commit(*id).unwrap()).collect();
    repo.commit(None, &who, &who, "text\n", &tree, &parents.iter().collect::<Vec<_>>()).unwrap()
}

#[test]
fn a_damaged_pack_goes_unless_another_apps_journal_stands_on_it() {
    let (folder, alone) = fetched("alone");
    alone.discard(&Repository::open_bare(&folder.0).unwrap()).unwrap();
    assert!(packs(&folder.0).unwrap().is_empty());

    let (folder, shared) = fetched("shared");
    let repo = Repository::open_bare(&folder.0).unwrap();
    let first = commit(&repo, &[]);
    let entry = commit(&repo, &[first, shared.object]);
    repo.reference(&journal::reference("other"), entry, false, "test").unwrap();
    shared.discard(&repo).unwrap();
    assert_eq!(packs(&folder.0).unwrap(), shared.brought);
}
