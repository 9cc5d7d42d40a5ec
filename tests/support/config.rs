//! poller.toml and the apps' files: defaults that work, and a builder to change single keys of them.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use super::World;

/// An app's file in the making. Each method takes lines of TOML, one `key = value` a line, which
/// replace the defaults of the same keys.
pub struct App<'w> {
    world: &'w World,
    name: String,
    tables: BTreeMap<&'static str, Vec<(String, String)>>,
}

impl World {
    /// An app that follows `main` of the world's repository over SSH and runs `./deploy.sh`.
    pub fn app(&self, name: &str) -> App<'_> {
        let app = App { world: self, name: name.to_owned(), tables: BTreeMap::new() };
        let url = self.sshd.url(&self.repo.bare);
        app.source(&format!("url = \"{url}\"\nbranch = \"main\"\nidentity = \"keys/deploy\""))
            .source("timeout = \"5s\"")
            .target(&format!("directory = \"{}\"", self.target(name).display()))
            .deploy(&format!("user = \"{}\"", self.deployer.name))
            .deploy("script = \"./deploy.sh\"\ntimeout = \"30s\"")
    }

    /// poller.toml, with `more` after the sections that every test needs; `more` may begin with
    /// further keys of `[host]`.
    pub fn write_host_config(&self, more: &str) {
        let text = format!(
            "[paths]\nstate = \"{}\"\nrun = \"{}\"\nlog = \"{}\"\n\n[host]\nname = \"testhost\"\n\
             fetch_user = \"{}\"\n{more}\n",
            self.state().display(),
            self.run_dir().display(),
            self.log_file().display(),
            self.fetcher.name,
        );
        self.write_etc("poller.toml", &text);
    }

    /// A file beside poller.toml, writable by its owner only.
    pub fn write_etc(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path("etc").join(name);
        fs::write(&path, text).unwrap();
        super::set_mode(&path, 0o644);
        path
    }

    pub fn config_file(&self) -> PathBuf {
        self.path("etc/poller.toml")
    }

    pub fn key_file(&self) -> PathBuf {
        self.path("etc/keys/deploy")
    }
}

impl<'w> App<'w> {
    pub fn source(self, lines: &str) -> Self {
        self.set("source", lines)
    }

    pub fn target(self, lines: &str) -> Self {
        self.set("target", lines)
    }

    pub fn deploy(self, lines: &str) -> Self {
        self.set("deploy", lines)
    }

    pub fn health(self, lines: &str) -> Self {
        self.set("health", lines)
    }

    pub fn verify(self, lines: &str) -> Self {
        self.set("verify", lines)
    }

    pub fn in_place(self) -> Self {
        self.target("layout = \"in-place\"")
    }

    /// Takes a key out again, such as `source.branch`.
    pub fn without(mut self, dotted: &str) -> Self {
        let (table, key) = dotted.split_once('.').expect("table.key");
        self.tables.get_mut(table).expect("a table").retain(|(name, _)| name != key);
        self
    }

    fn set(mut self, table: &'static str, lines: &str) -> Self {
        let keys = self.tables.entry(table).or_default();
        for line in lines.lines().filter(|line| !line.trim().is_empty()) {
            let (key, value) = line.split_once('=').expect("key = value");
            let (key, value) = (key.trim().to_owned(), value.trim().to_owned());
            keys.retain(|(name, _)| *name != key);
            keys.push((key, value));
        }
        self
    }

    pub fn text(&self) -> String {
        let mut text = String::new();
        for (table, keys) in &self.tables {
            text += &format!("[{table}]\n");
            for (key, value) in keys {
                text += &format!("{key} = {value}\n");
            }
        }
        text
    }

    /// Writes the file, and makes the target folder for the deploy user where there is none yet.
    pub fn write(self) {
        let target = self.world.target(&self.name);
        if !target.exists() {
            fs::create_dir(&target).unwrap();
            super::set_mode(&target, 0o755);
            self.world.deployer.own(&target);
        }
        self.write_file_only();
    }

    pub fn write_file_only(self) {
        self.world.write_etc(&format!("apps.d/{}.toml", self.name), &self.text());
    }
}
