//! Configuration files, and single values of them.

use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path, PathBuf};

use super::{assert_printable, text};
use crate::commands::sudoers::{Caller, need, rules};
use crate::config::{self, App, Config, Defaults, Follow, LoadError, Paths, Reader, Remote, given};

/// The files of /etc/poller, in memory.
struct Memory(BTreeMap<PathBuf, String>);

impl Reader for Memory {
    fn read(&self, path: &Path) -> anyhow::Result<String> {
        self.0.get(path).cloned().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound).into())
    }

    fn list(&self, folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
        Ok(self.0.keys().filter(|path| path.parent() == Some(folder)).cloned().collect())
    }
}

fn load(files: [(&str, String); 2]) -> Result<Config, LoadError> {
    let defaults = Defaults {
        host_name: "web-1".to_owned(),
        paths: Paths { state: "/var/lib/poller".into(), run: "/run/poller".into(), log: "/var/log/poller.log".into() },
        optional_file: true,
    };
    let files = files.map(|(path, text)| (Path::new("/etc/poller").join(path), text));
    config::load(Path::new("/etc/poller/poller.toml"), defaults, &Memory(files.into()))
}

/// An app's file, with a second app beside it.
pub fn app(data: &[u8]) {
    let other = "[source]\nurl = \"/srv/git/b.git\"\nbranch = \"main\"\n[target]\ndirectory = \"/srv/b\"\n";
    let files = [("apps.d/a.toml", text(data)), ("apps.d/b.toml", other.to_owned())];
    let config = load(files).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.apps.len() + config.broken.len(), 2);
    for broken in &config.broken {
        // In the order of their names: the one that came first is never at fault for the other.
        assert!(broken.name == "a" || config.apps.iter().any(|app| app.name.as_str() == "a"), "{}", broken.error);
        assert_printable(&broken.error.to_string());
    }
    config.apps.iter().for_each(means_what_it_says);
}

fn means_what_it_says(app: &App) {
    let directory = &app.target.directory;
    assert!(directory.is_absolute() && directory.components().all(|part| part != Component::ParentDir));
    assert_eq!(given::remote(&app.source.url), Ok(app.source.remote.clone()));
    let deploy = &app.deploy;
    let health = app.health.iter().flat_map(|health| &health.command);
    for command in deploy.build.iter().chain(&deploy.script).chain(health) {
        assert_eq!(given::command(&command.to_string()).as_ref(), Ok(command));
    }
    for path in app.source.subdir.iter().chain(&app.target.shared) {
        let mut parts = Path::new(path).components();
        assert!(parts.all(|part| matches!(part, Component::Normal(_))), "{path}");
    }
    assert!(app.target.keep > 0 && deploy.retries > 0 && deploy.umask <= 0o777 && !deploy.timeout.is_zero());
    assert!(deploy.user.as_deref() != Some("root"));
    for unit in deploy.restart.iter().chain(&deploy.reload) {
        assert!(!unit.starts_with('-') && !unit.contains(char::is_whitespace));
    }
    assert!(deploy.env.keys().all(|name| !name.starts_with("POLLER_") && !name.contains('=')));
    assert!(deploy.env.values().all(|value| !value.contains('\0')));
    drop_in(app);
}

/// poller.toml.
pub fn host(data: &[u8]) {
    let small = "[source]\nurl = \"/srv/git/a.git\"\nbranch = \"main\"\n[target]\ndirectory = \"/srv/a\"\n";
    match load([("poller.toml", text(data)), ("apps.d/a.toml", small.to_owned())]) {
        Ok(config) => {
            assert!(config.host.jobs > 0 && !config.host.deadline.is_zero() && !config.host.name.is_empty());
            assert!([&config.paths.state, &config.paths.run, &config.paths.log].into_iter().all(|p| p.is_absolute()));
            let notify = config.notify.iter();
            assert!(notify.flat_map(|n| n.url.iter().chain(&n.ping)).all(|url| url.starts_with("http")));
        }
        Err(error) => assert_printable(&error.to_string()),
    }
}

/// Single values, as `poller init` is given them. A URL that is accepted is accepted as it is printed, and a
/// ref's name that is accepted is one to git.
pub fn remote(data: &[u8]) {
    let text = text(data);
    match given::remote(&text) {
        Ok(remote) => {
            let printed = printed(&remote);
            assert_eq!(given::remote(&printed), Ok(remote), "{printed}");
        }
        Err(why) => assert_printable(&why),
    }
    for follow in [given::branch(&text), given::tag(&text), given::reference(&text)] {
        let full = match follow {
            Ok(Follow::Branch(name)) => format!("refs/heads/{name}"),
            Ok(Follow::Tag(name)) => format!("refs/tags/{}", name.replace('*', "x")),
            Ok(Follow::Ref(name)) => name,
            Err(why) => {
                assert_printable(&why);
                continue;
            }
        };
        assert!(git2::Reference::is_valid_name(&full), "{full:?}");
    }
    if let Ok(length) = config::duration(&text) {
        assert_eq!(config::duration(&crate::report::duration(length)), Ok(length));
    }
    if let Ok(command) = given::command(&text) {
        assert_eq!(given::command(&command.to_string()), Ok(command));
    }
    for why in [given::account(&text).err(), given::unit(&text).err(), given::directory(&text).err()] {
        assert_printable(&why.unwrap_or_default());
    }
}

/// A remote as the shortest URL that can hold anything that it may consist of.
fn printed(remote: &Remote) -> String {
    let encoded = |text: &str| -> String {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"/._-".contains(&b);
        text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
    };
    match remote {
        Remote::Local(path) => format!("file://{}", encoded(path.to_str().unwrap())),
        Remote::Ssh { user, host, port, path } => {
            for part in [user, host, path] {
                assert!(!part.is_empty() && !part.starts_with('-') && !part.contains(char::is_control), "{part:?}");
            }
            let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
            let user_part = encoded(user).replace('/', "%2F");
            if let Some(rest) = path.strip_prefix('/') {
                format!("ssh://{user_part}@{host}:{port}/{}", encoded(rest))
            } else if let Some(rest) = path.strip_prefix('~') {
                format!("ssh://{user_part}@{host}:{port}/~{}", encoded(rest))
            } else {
                format!("{user}@{host}:{path}")
            }
        }
    }
}

/// A user on the first line, and a command on each of the others.
pub fn sudoers(data: &[u8]) {
    let text = text(data);
    let mut lines = text.split('\n');
    let user = lines.next().unwrap_or_default();
    let commands: Vec<&str> = lines.collect();
    let mut deploy = toml::Table::new();
    deploy.insert("user".into(), user.into());
    deploy.insert("sudo".into(), commands.into());
    let mut file: toml::Table =
        toml::from_str("source = { url = \"/srv/a.git\", branch = \"main\" }\ntarget = { directory = \"/srv/a\" }")
            .unwrap();
    file.insert("deploy".into(), deploy.into());
    let files = [("apps.d/a.toml", toml::to_string(&file).unwrap()), ("poller.toml", String::new())];
    let config = load(files).unwrap_or_else(|error| panic!("{error}"));
    config.apps.iter().for_each(drop_in);
}

/// Each rule is a line, and sudo reads from it the words that were meant.
fn drop_in(app: &App) {
    let need = need(app, &Caller::Root);
    let rules = rules(&need);
    for rule in &rules {
        assert!(!rule.contains(char::is_control), "{rule:?}");
        let (user, command) = rule.split_once(" ALL = (root) NOPASSWD: ").unwrap();
        assert!(user.starts_with('"') && user.ends_with('"') || user.chars().all(|c| !c.is_ascii_uppercase()));
        let words = read_as_sudo_does(command);
        assert!(need.commands.contains(&words), "{rule:?} is {words:?}");
    }
}

/// The words of a command in a sudoers file. What would be a pattern, a list or a comment there panics.
fn read_as_sudo_does(command: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut chars = command.chars();
    while let Some(c) = chars.next() {
        let word = words.last_mut().unwrap();
        match c {
            ' ' => words.push(String::new()),
            ',' | ':' | '=' | '#' | '!' | '^' | '*' | '?' | '[' | ']' => panic!("`{c}` is bare in {command:?}"),
            '\\' => match chars.next().unwrap() {
                // Twice two: once for the file, once for the pattern.
                '\\' => {
                    assert_eq!(chars.by_ref().take(2).collect::<String>(), r"\\");
                    word.push('\\');
                }
                c => word.push(c),
            },
            c => word.push(c),
        }
    }
    // An argument that is `""` says that there is none; without one sudo would allow any.
    assert!(words.len() > 1, "{command:?}");
    if words.len() == 2 && words[1] == "\"\"" {
        words.pop();
    }
    words
}
