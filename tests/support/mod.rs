//! A world of its own for each scenario: a git server behind a real sshd, the users, the configuration
//! and the program under test, all in one scratch folder that goes away with the value.
//!
//! `POLLER_TEST_KEEP=1` keeps the folder of a test that failed.
#![allow(dead_code, unused_imports, reason = "each of the test programs uses a part")]

pub mod config;
pub mod http;
pub mod memory;
pub mod mischief;
pub mod mounts;
pub mod people;
pub mod processes;
pub mod readers;
pub mod repo;
pub mod run;
pub mod screen;
pub mod sshd;
pub mod tls;

use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

pub use people::{Account, am_root};
pub use repo::{Content, Repo, exec, file, gone, link};
pub use sshd::Sshd;

/// Ends a test that this machine can't run; a failure on CI, where everything must be able to run.
macro_rules! skip {
    ($why:expr) => {{
        assert!(std::env::var_os("CI").is_none(), "skipped on CI: {}", $why);
        eprintln!("skipped: {}", $why);
        return;
    }};
}

macro_rules! needs_root {
    () => {
        if !$crate::support::am_root() {
            skip!("needs root")
        }
    };
}

macro_rules! needs_program {
    ($name:expr) => {
        if !$crate::support::have($name) {
            skip!(format!("needs the program {}", $name))
        }
    };
}

pub struct World {
    pub root: PathBuf,
    pub repo: Repo,
    pub sshd: Sshd,
    /// Fetches when poller runs as root; otherwise the user who runs the tests.
    pub fetcher: Account,
    /// Owns the target and runs the script.
    pub deployer: Account,
    mounts: RefCell<Vec<PathBuf>>,
}

impl World {
    pub fn new(name: &str) -> World {
        World::build(name, sshd::Protocol::Any)
    }

    /// A world whose server never hears of protocol v2.
    pub fn with_v0_server(name: &str) -> World {
        World::build(name, sshd::Protocol::OnlyV0)
    }

    fn build(name: &str, protocol: sshd::Protocol) -> World {
        let root = scratch(name);
        for folder in ["etc", "etc/apps.d", "var", "target", "notes", "server", "work"] {
            fs::create_dir(root.join(folder)).unwrap();
            set_mode(&root.join(folder), 0o755);
        }
        fs::create_dir(root.join("etc/keys")).unwrap();
        set_mode(&root.join("etc/keys"), 0o700);
        sshd::make_key(&root.join("etc/keys/deploy"), "");
        let sshd = Sshd::start(&root.join("sshd"), &root.join("etc/keys/deploy.pub"), protocol);
        let fetcher = Account::make(&root, "f");
        let deployer = Account::make(&root, "d");
        let repo = Repo::make(&root, "site");
        deployer.own(&root.join("notes"));
        let world = World { root, repo, sshd, fetcher, deployer, mounts: RefCell::default() };
        world.write_etc("known_hosts", &world.sshd.known_hosts_line());
        world.write_host_config("");
        world
    }

    pub fn path(&self, inside: &str) -> PathBuf {
        self.root.join(inside)
    }

    pub fn state(&self) -> PathBuf {
        self.path("var/state")
    }

    pub fn run_dir(&self) -> PathBuf {
        self.path("var/run")
    }

    pub fn log_file(&self) -> PathBuf {
        self.path("var/log/poller.log")
    }

    pub fn target(&self, app: &str) -> PathBuf {
        self.path("target").join(app)
    }

    /// Where scripts leave word of themselves.
    pub fn notes(&self, name: &str) -> PathBuf {
        self.path("notes").join(name)
    }

    pub fn note(&self, name: &str) -> String {
        fs::read_to_string(self.notes(name)).unwrap_or_default()
    }

    /// A deploy script that first notes `REASON COMMIT` in `ran`, then does `more`.
    pub fn script(&self, more: &str) -> Content {
        let ran = self.notes("ran");
        exec(format!("#!/bin/sh\nset -eu\necho \"$POLLER_REASON $POLLER_COMMIT\" >> '{}'\n{more}\n", ran.display()))
    }

    /// What ran so far, as (reason, commit).
    pub fn ran(&self) -> Vec<(String, String)> {
        let text = self.note("ran");
        text.lines()
            .map(|line| line.split_once(' ').expect("REASON COMMIT"))
            .map(|(reason, commit)| (reason.to_owned(), commit.to_owned()))
            .collect()
    }

    /// One commit pushed, app `site` written, deployed once: the start of most scenarios.
    pub fn deployed(&self) -> String {
        self.app("site").write();
        self.deployed_as_configured()
    }

    pub fn deployed_as_configured(&self) -> String {
        let script = self.script("");
        let first = self.repo.commit(&[("deploy.sh", script), ("index.html", file("one\n"))], "first");
        self.repo.push();
        self.poll(&[]).expect(0);
        assert_eq!(self.revision("site").as_deref(), Some(first.as_str()), "the first deploy");
        first
    }

    pub fn push(&self, files: &[(&str, Content)], message: &str) -> String {
        let commit = self.repo.commit(files, message);
        self.repo.push();
        commit
    }

    /// A small file system of its own at `path`; unmounted with the world.
    pub fn mount_tmpfs(&self, path: &Path, options: &str, owner: Option<&Account>) {
        fs::create_dir_all(path).unwrap();
        let mut options = options.to_owned();
        if let Some(owner) = owner {
            options += &format!(",uid={},gid={},mode=0755", owner.uid, owner.gid);
        }
        sh("mount", &["-t", "tmpfs", "-o", &options, "tmpfs", path.to_str().unwrap()]);
        self.mounts.borrow_mut().push(path.to_owned());
    }

    pub fn remount(&self, path: &Path, options: &str) {
        sh("mount", &["-o", &format!("remount,{options}"), path.to_str().unwrap()]);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() && std::env::var_os("POLLER_TEST_KEEP").is_some() {
            eprintln!("kept: {}", self.root.display());
        }
        processes::kill_all_of(self);
        self.sshd.stop();
        for mount in self.mounts.borrow().iter().rev() {
            let _ = Command::new("umount").arg("-l").arg(mount).status();
        }
        self.fetcher.remove();
        self.deployer.remove();
        if !(std::thread::panicking() && std::env::var_os("POLLER_TEST_KEEP").is_some()) {
            let _ = fs::remove_dir_all(&self.root);
        }
    }
}

/// A new folder whose parents nobody else can write.
fn scratch(name: &str) -> PathBuf {
    let base = if am_root() {
        PathBuf::from("/srv")
    } else {
        let home = std::env::var_os("HOME").map(PathBuf::from);
        home.unwrap_or_else(|| env!("CARGO_TARGET_TMPDIR").into()).join(".poller-tests")
    };
    fs::create_dir_all(&base).unwrap();
    let plain: String = name.chars().filter(char::is_ascii_alphanumeric).take(16).collect();
    let root = base.join(format!("pt{}-{plain}", random_word()));
    fs::create_dir(&root).unwrap();
    set_mode(&root, 0o755);
    root
}

/// Eight letters and digits that no other test has.
pub fn random_word() -> String {
    use std::io::Read;
    let mut bytes = [0u8; 4];
    fs::File::open("/dev/urandom").unwrap().read_exact(&mut bytes).unwrap();
    format!("{:08x}", u32::from_ne_bytes(bytes))
}

pub fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .unwrap_or_else(|e| panic!("chmod {}: {e}", path.display()));
}

pub fn have(program: &str) -> bool {
    ["/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/bin"]
        .iter()
        .any(|folder| Path::new(folder).join(program).exists())
}

/// Runs a program that has to succeed; its standard output.
pub fn sh(program: &str, args: &[&str]) -> String {
    let out = Command::new(program).args(args).stdin(Stdio::null()).output();
    let out = out.unwrap_or_else(|e| panic!("{program}: {e}"));
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{program} {args:?}: {} {said}", out.status);
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// Waits for something to become true, and panics with `what` if it does not.
pub fn wait_until(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < limit, "waited {limit:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// An executable file anywhere, with the folders above it.
pub fn put_exec(path: &Path, text: &str) {
    repo::put(path, &exec(text));
}
