//! An installation of poller: its configuration, its apps, and what it keeps.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;

use super::lab::{Lab, succeed};

#[derive(Clone)]
pub struct App {
    pub name: String,
    pub url: String,
    /// Which key, see [`Lab::key`].
    pub key: usize,
    /// Further lines of `[target]`.
    pub target: &'static str,
}

impl App {
    pub fn new(name: impl Into<String>, url: &str) -> App {
        App { name: name.into(), url: url.to_owned(), key: 0, target: "" }
    }
}

#[derive(Clone)]
pub struct Host {
    lab: Rc<Lab>,
    /// The configuration's folder.
    folder: PathBuf,
    /// The folder of state, locks, log and targets.
    pub data: PathBuf,
    apps: Vec<App>,
    /// How much of the log was looked at.
    read: Rc<Cell<usize>>,
}

impl Host {
    /// Nothing is deployed yet.
    pub fn new(lab: &Rc<Lab>, name: &str, apps: Vec<App>) -> Host {
        let data = lab.folder(&format!("{name}.data"));
        let host = Host { lab: Rc::clone(lab), folder: lab.folder(name), data, apps, read: Rc::default() };
        host.write_configuration();
        host.make_targets();
        host
    }

    /// Knows only the first apps of this one, with the same state.
    pub fn with_first(&self, count: usize) -> Host {
        let folder = self.folder.join(format!("first-{count}"));
        fs::create_dir(&folder).expect("mkdir");
        let apps = self.apps[..count].to_vec();
        let host = Host { folder, apps, ..self.clone() };
        host.write_configuration();
        host
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut poller = self.lab.command(env!("CARGO_BIN_EXE_poller"));
        poller.args(arguments).arg("--config").arg(self.folder.join("poller.toml"));
        poller
    }

    pub fn poll(&self) {
        succeed(&mut self.command(&[]));
    }

    /// The first deploys of many apps, a few at a time, so that they do not depend on how many a run can ask for.
    pub fn deploy_all(&self) {
        for apps in self.apps.chunks(8) {
            let names: Vec<&str> = apps.iter().map(|app| app.name.as_str()).collect();
            succeed(&mut self.command(&names));
        }
    }

    /// What is new in the log says so many times that this happened. An end of a whole run is in there once.
    pub fn expect(&self, event: &str, times: usize) {
        let log = fs::read_to_string(self.log()).expect("poller's log");
        let new = &log[self.read.replace(log.len()).min(log.len())..];
        let found = new.matches(&format!("\"event\":\"{event}\"")).count();
        assert!(found == times, "{event} is there {found} times instead of {times}: {new}");
    }

    /// What is in the log up to now is nobody's business any more.
    pub fn skip_log(&self) {
        let length = fs::metadata(self.log()).map_or(0, |meta| meta.len());
        self.read.set(length as usize);
    }

    pub fn target(&self, app: usize) -> PathBuf {
        self.data.join("targets").join(&self.apps[app].name)
    }

    /// The folder that the app's files are in.
    pub fn live(&self, app: usize) -> PathBuf {
        let target = self.target(app);
        if self.apps[app].target.contains("in-place") { target } else { target.join("current") }
    }

    pub fn expect_live(&self, commit: &str) {
        let revision = fs::read_to_string(self.live(0).join("REVISION")).expect("REVISION");
        assert!(revision.trim() == commit, "{revision} is live instead of {commit}");
    }

    /// As if poller had never run.
    pub fn forget(&self) {
        fs::remove_dir_all(&self.data).expect("rm");
        self.read.set(0);
        self.make_targets();
    }

    /// Removes all releases but the newest two, which nobody measures.
    pub fn drop_releases(&self) {
        let folder = self.target(0).join("releases");
        let entries = fs::read_dir(folder).expect("the releases");
        let mut releases: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
        releases.sort();
        releases.iter().rev().skip(2).for_each(|release| fs::remove_dir_all(release).expect("rm"));
    }

    pub fn state(&self) -> PathBuf {
        self.data.join("state")
    }

    fn log(&self) -> PathBuf {
        self.data.join("poller.log")
    }

    fn make_targets(&self) {
        let targets = self.data.join("targets");
        fs::create_dir_all(&targets).expect("mkdir");
        self.apps.iter().for_each(|app| self.lab.make_target(&targets.join(&app.name)));
    }

    fn write_configuration(&self) {
        let at = self.data.display();
        let fetch_user =
            self.lab.fetch_user().map_or(String::new(), |user| format!("fetch_user = \"{}\"\n", user.name));
        let paths = format!("state = \"{at}/state\"\nrun = \"{at}/run\"\nlog = \"{at}/poller.log\"\n");
        let text = format!("[host]\n{fetch_user}[paths]\n{paths}");
        fs::write(self.folder.join("poller.toml"), text).expect("poller.toml");
        let apps = self.folder.join("apps.d");
        fs::create_dir(&apps).expect("mkdir");
        for app in &self.apps {
            self.write_app(&apps, app);
        }
    }

    fn write_app(&self, folder: &Path, app: &App) {
        let user = self.lab.deploy_user().map_or(String::new(), |user| format!("user = \"{}\"\n", user.name));
        let text = format!(
            "[source]\nurl = \"{}\"\nbranch = \"main\"\nidentity = \"{}\"\nknown_hosts = \"{}\"\n\
             [target]\ndirectory = \"{}\"\n{}\n[deploy]\n{user}script = \"/bin/true\"\n",
            app.url,
            self.lab.key(app.key).display(),
            self.lab.known_hosts().display(),
            self.data.join("targets").join(&app.name).display(),
            app.target,
        );
        fs::write(folder.join(format!("{}.toml", app.name)), text).expect("the app's file");
    }
}
