//! Whole configurations, read from memory: which files count, and which of their apps are broken.

mod meaning;
mod problems;
mod remotes;
mod samples;
mod values;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::*;

const FILE: &str = "/etc/poller/poller.toml";

/// A whole app in as few lines as there can be.
const SMALL: &str = r#"[source]
url = "git@github.com:me/todo.git"
branch = "main"
identity = "keys/todo"
[target]
directory = "/srv/todo"
"#;

#[derive(Default)]
struct Memory {
    files: BTreeMap<PathBuf, String>,
    denied: Option<&'static str>,
    read: RefCell<Vec<PathBuf>>,
}

impl Memory {
    fn with(files: &[(&str, &str)]) -> Memory {
        let owned = |(path, text): &(&str, &str)| (PathBuf::from(path), (*text).to_owned());
        Memory { files: files.iter().map(owned).collect(), ..Memory::default() }
    }

    fn load(&self) -> Result<Config, LoadError> {
        load(Path::new(FILE), defaults(true), self)
    }
}

impl Reader for Memory {
    fn read(&self, path: &Path) -> anyhow::Result<String> {
        self.read.borrow_mut().push(path.to_owned());
        if self.denied.is_some_and(|denied| path.ends_with(denied)) {
            return Err(anyhow::Error::new(io::Error::from(io::ErrorKind::PermissionDenied)).context("not trusted"));
        }
        let missing = || anyhow::Error::new(io::Error::from(io::ErrorKind::NotFound)).context("cannot open");
        self.files.get(path).cloned().ok_or_else(missing)
    }

    fn list(&self, dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
        let beside = |path: &&PathBuf| path.parent() == Some(dir);
        Ok(self.files.keys().filter(beside).rev().cloned().collect())
    }
}

fn defaults(optional_file: bool) -> Defaults {
    Defaults {
        host_name: "web-1".to_owned(),
        paths: Paths {
            state: "/var/lib/poller".into(),
            run: "/run/poller".into(),
            log: "/var/log/poller/poller.log".into(),
        },
        optional_file,
    }
}

fn app(text: &str) -> Result<App, Problem> {
    let mut config = Memory::with(&[("/etc/poller/apps.d/todo.toml", text)]).load().unwrap();
    match config.broken.pop().map(|broken| broken.error) {
        None => Ok(config.apps.remove(0)),
        Some(LoadError::Problem(problem)) => Err(problem),
        Some(LoadError::Read(error)) => panic!("{error:#}"),
    }
}

fn host(text: &str) -> Result<Config, Problem> {
    match Memory::with(&[(FILE, text)]).load() {
        Ok(config) => Ok(config),
        Err(LoadError::Problem(problem)) => Err(problem),
        Err(LoadError::Read(error)) => panic!("{error:#}"),
    }
}

#[test]
fn a_missing_poller_toml_is_an_error_only_where_it_was_asked_for() {
    let empty = Memory::default();
    assert!(empty.load().unwrap().apps.is_empty());
    match load(Path::new(FILE), defaults(false), &empty) {
        Err(LoadError::Read(error)) => assert!(is_of_kind(&error, io::ErrorKind::NotFound)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_readers_own_error_is_passed_through_to_be_downcast() {
    let mut memory = Memory::with(&[(FILE, ""), ("/etc/poller/apps.d/a.toml", SMALL)]);
    memory.denied = Some("poller.toml");
    let Err(LoadError::Read(error)) = memory.load() else {
        panic!("read");
    };
    assert!(error.downcast_ref::<io::Error>().is_some());
    memory.denied = Some("a.toml");
    let config = memory.load().unwrap();
    assert!(matches!(&config.broken[0].error, LoadError::Read(error) if error.to_string() == "not trusted"));
}

#[test]
fn a_broken_app_never_stops_the_others() {
    let other = SMALL.replace("/srv/todo", "/srv/other");
    let config = Memory::with(&[
        ("/etc/poller/apps.d/a.toml", "nonsense"),
        ("/etc/poller/apps.d/b.toml", SMALL),
        ("/etc/poller/apps.d/c d.toml", SMALL),
        ("/etc/poller/apps.d/e.toml", &other),
    ])
    .load()
    .unwrap();
    let names: Vec<_> = config.apps.iter().map(|app| app.name.as_str()).collect();
    assert_eq!(names, ["b", "e"]);
    let broken: Vec<_> = config.broken.iter().map(|app| app.name.as_str()).collect();
    assert_eq!(broken, ["a", "c d"]);
    assert_eq!(
        config.broken[1].error.to_string(),
        "/etc/poller/apps.d/c d.toml: `c d` is not a name for an app: only letters, digits, `.`, `_` and `-` may stand in one\n  = rename the file; the app is named after it"
    );
}

#[test]
fn only_visible_toml_files_of_apps_d_are_read() {
    let memory = Memory::with(&[
        ("/etc/poller/apps.d/.todo.toml", "x"),
        ("/etc/poller/apps.d/todo.toml~", "x"),
        ("/etc/poller/apps.d/README", "x"),
        ("/etc/poller/apps.d/todo.toml", SMALL),
        ("/etc/poller/apps.d/deep/more.toml", "x"),
    ]);
    let config = memory.load().unwrap();
    assert_eq!((config.apps.len(), config.broken.len()), (1, 0));
    assert_eq!(memory.read.borrow().len(), 2);
}

#[test]
fn two_apps_of_one_host_never_share_a_directory() {
    let cases = [
        ("/srv/todo", "the app `a` has this directory already"),
        ("/srv/todo/", "the app `a` has this directory already"),
        ("/srv/todo/sub", "this directory lies inside `/srv/todo`, that of the app `a`"),
        ("/srv", "`/srv/todo`, the directory of the app `a`, lies inside this one"),
    ];
    for (directory, message) in cases {
        let second = SMALL.replace("/srv/todo", directory);
        let files = [("/etc/poller/apps.d/a.toml", SMALL), ("/etc/poller/apps.d/b.toml", &second)];
        let config = Memory::with(&files).load().unwrap();
        assert_eq!(config.apps.len(), 1);
        let LoadError::Problem(problem) = &config.broken[0].error else {
            panic!("problem");
        };
        assert_eq!((problem.message(), problem.line()), (message, Some(6)));
    }
    let beside = SMALL.replace("/srv/todo", "/srv/todo2");
    let elsewhere = SMALL.replace("[target]", "hosts = [\"db-*\"]\n[target]");
    for second in [beside, elsewhere] {
        let files = [("/etc/poller/apps.d/a.toml", SMALL), ("/etc/poller/apps.d/b.toml", &second)];
        assert_eq!(Memory::with(&files).load().unwrap().apps.len(), 2);
    }
}

#[test]
fn hosts_are_globs_and_none_means_all() {
    let with = |hosts: &str| app(&SMALL.replace("[target]", &format!("hosts = {hosts}\n[target]"))).unwrap().source;
    for (hosts, host, applies) in [
        ("[]", "web-1", true),
        ("[\"web-*\"]", "web-1", true),
        ("[\"web-*\"]", "db-1", false),
        ("[\"db-1\", \"web-[12]\"]", "web-2", true),
        ("[\"{a,b}.example\"]", "b.example", true),
        ("[\"web\"]", "web-1", false),
    ] {
        assert_eq!(with(hosts).applies_to(host), applies, "{hosts} {host}");
    }
}

#[test]
fn what_is_sent_to_child_processes_survives_the_way() {
    fn same<T>(value: T)
    where
        T: Serialize + serde::de::DeserializeOwned + PartialEq + fmt::Debug,
    {
        // Any format that describes itself does; toml wants a table at the top.
        let text = toml::to_string(&BTreeMap::from([("v", &value)])).unwrap();
        let mut back: BTreeMap<String, T> = toml::from_str(&text).unwrap();
        assert_eq!(back.remove("v").unwrap(), value);
    }
    let app = app(&format!("{SMALL}[health]\ncommand = ['curl', '-f', 'a b']\n")).unwrap();
    same(app.source.remote);
    same(Remote::Local("/srv/x".into()));
    same(app.source.follow);
    same(app.target.layout);
    same(app.deploy.on_failure);
    same(app.health.unwrap());
}
