use super::state::*;
use super::*;
use jiff::Timestamp;

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("poller-journal-{}-{name}.git", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A commit of the deployed project.
fn source(repo: &Repository, message: &str) -> Commit {
    let who = Signature::now("dev", "dev@example.org").unwrap();
    let tree = repo.find_tree(repo.treebuilder(None).unwrap().write().unwrap()).unwrap();
    repo.commit(None, &who, &who, message, &tree, &[]).unwrap().into()
}

fn entry(expected: Option<Commit>, to: &Commit) -> Entry {
    let deployed = Deployed {
        commit: to.clone(),
        release: None,
        at: Timestamp::UNIX_EPOCH,
        run: "r".into(),
        subdir: None,
        place: Place { directory: "/srv/x".into(), layout: crate::config::Layout::Releases },
    };
    Entry {
        expected,
        state: State { deployed: Some(deployed), ..State::default() },
        run: Run {
            id: "r".into(),
            kind: Kind::Deploy,
            outcome: Ending::Deployed,
            from: None,
            to: Some(to.clone()),
            reference: "refs/heads/main".into(),
            who: "root".into(),
            started: Timestamp::UNIX_EPOCH,
            ended: None,
            exit: Some(0),
            error: None,
            reason: None,
            ms: Default::default(),
        },
        output: b"hello\n".to_vec(),
        author: "ev<il>\nname".into(),
        host: "web-1".into(),
    }
}

#[test]
fn what_is_written_is_read_and_the_first_parent_is_always_an_entry() {
    let scratch = Scratch::new("roundtrip");
    assert_eq!(read(&scratch.0, "todo").unwrap(), Journal::default());
    let repo = open_or_create(&scratch.0).unwrap();
    assert_eq!(read(&scratch.0, "todo").unwrap(), Journal::default());

    let (one, two) = (source(&repo, "one"), source(&repo, "two"));
    let first = append(&repo, "todo", &entry(None, &one)).unwrap();
    let second = append(&repo, "todo", &entry(Some(first.clone()), &two)).unwrap();
    let journal = read(&scratch.0, "todo").unwrap();
    assert_eq!(journal.head, Some(second.clone()));
    assert_eq!(journal.state.deployed.unwrap().commit, two);

    let second = repo.find_commit(second.oid().unwrap()).unwrap();
    assert_eq!(Commit::from(second.parent_id(0).unwrap()), first);
    assert_eq!(Commit::from(second.parent_id(1).unwrap()), two);
    assert_eq!(second.parent(0).unwrap().parent_count(), 0);
}

#[test]
fn an_entry_that_came_in_between_is_not_overwritten() {
    let scratch = Scratch::new("swap");
    let repo = open_or_create(&scratch.0).unwrap();
    let one = source(&repo, "one");
    let first = append(&repo, "todo", &entry(None, &one)).unwrap();
    assert!(append(&repo, "todo", &entry(None, &one)).is_err());
    append(&repo, "todo", &entry(Some(first.clone()), &one)).unwrap();
    let failure = Failure::of(append(&repo, "todo", &entry(Some(first), &one)).unwrap_err());
    assert!(failure.message.contains("changed by somebody else"), "{failure:?}");
}

#[test]
fn a_journal_that_cannot_be_read_is_an_error_and_not_new() {
    let scratch = Scratch::new("broken");
    let repo = open_or_create(&scratch.0).unwrap();
    let one = source(&repo, "one");
    let written = append(&repo, "todo", &entry(None, &one)).unwrap();
    std::fs::write(scratch.0.join("refs/poller/todo"), "rubbish\n").unwrap();
    let failure = Failure::of(read(&scratch.0, "todo").unwrap_err());
    assert_eq!(failure.class, Class::Io);
    assert!(failure.help.iter().any(|line| line.contains(written.as_str())), "{failure:?}");
}

/// Appends an entry about a run and returns it.
fn run(repo: &Repository, expected: Option<Commit>, to: &Commit, id: &str, outcome: Ending) -> Commit {
    let mut entry = entry(expected, to);
    entry.run = Run { id: id.into(), outcome, ..entry.run };
    append(repo, "todo", &entry).unwrap()
}

fn told(path: &Path, limit: usize) -> Result<Vec<(String, Ending)>> {
    let mut all = Vec::new();
    history(path, "todo", |told| {
        all.push((told.run.id.clone(), told.run.outcome));
        all.len() < limit
    })?;
    Ok(all)
}

#[test]
fn a_run_is_told_once_by_its_end_whatever_came_in_between() {
    let scratch = Scratch::new("told");
    let repo = open_or_create(&scratch.0).unwrap();
    let to = source(&repo, "one");
    let mut head = None;
    for (id, outcome) in [
        ("1", Ending::Started),
        ("1", Ending::Deployed),
        ("2", Ending::Started),
        ("3", Ending::Done),
        ("2", Ending::Interrupted),
        ("4", Ending::Started),
    ] {
        head = Some(run(&repo, head, &to, id, outcome));
    }
    let expected = [("4", Ending::Started), ("2", Ending::Interrupted), ("3", Ending::Done), ("1", Ending::Deployed)];
    assert_eq!(told(&scratch.0, 9).unwrap(), expected.map(|(id, outcome)| (id.to_owned(), outcome)));
    assert!(told(&scratch.0.join("nowhere"), 9).unwrap().is_empty());
}

#[test]
fn no_more_entries_are_read_than_are_asked_for_and_a_lost_one_is_no_end() {
    let scratch = Scratch::new("lost");
    let repo = open_or_create(&scratch.0).unwrap();
    let to = source(&repo, "one");
    let first = run(&repo, None, &to, "1", Ending::Deployed);
    let second = run(&repo, Some(first.clone()), &to, "2", Ending::Deployed);
    run(&repo, Some(second), &to, "3", Ending::Deployed);
    let (folder, name) = first.as_str().split_at(2);
    std::fs::remove_file(scratch.0.join("objects").join(folder).join(name)).unwrap();
    assert_eq!(told(&scratch.0, 2).unwrap().len(), 2);
    let failure = Failure::of(told(&scratch.0, 3).unwrap_err());
    assert_eq!(failure.class, Class::Io, "{failure:?}");
}

#[test]
fn repositories_are_told_apart_by_url_and_identity() {
    let path = |url, identity: Option<&str>| repository_path(Path::new("/s"), url, identity.map(Path::new)).unwrap();
    let one = path("git@github.com:me/todo.git", Some("/k/a"));
    assert!(one.to_str().unwrap().starts_with("/s/me-todo-"), "{}", one.display());
    assert_ne!(one, path("git@github.com:me/todo.git", Some("/k/b")));
    assert_ne!(one, path("git@gitlab.com:me/todo.git", Some("/k/a")));
    assert_eq!(one, path("git@github.com:me/todo.git", Some("/k/a")));
}
