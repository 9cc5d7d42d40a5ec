//! What all rows share, in a temporary folder that goes away with it: the server, the keys, and the two
//! users that poller has when root starts it.

use std::cell::RefCell;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::unistd::{Uid, User};

use super::server::Server;

/// Keys beside the first one, for apps with an identity each.
pub const IDENTITIES: usize = 200;

pub struct Lab {
    root: PathBuf,
    pub server: RefCell<Server>,
    pub port: u16,
    /// Who logs in at the server: whoever runs this.
    pub login: String,
    /// Who fetches, and who deploys; throwaway accounts.
    users: Option<(User, User)>,
}

impl Lab {
    pub fn new() -> Lab {
        let root = scratch();
        make_folder(&root.join("empty"));
        make_folder(&root.join("keys"));
        make_key(&root.join("host_key"));
        let mut authorized = String::new();
        for n in 0..=IDENTITIES {
            let key = root.join("keys").join(n.to_string());
            make_key(&key);
            authorized += &fs::read_to_string(key.with_extension("pub")).expect("a public key");
        }
        fs::write(root.join("authorized_keys"), authorized).expect("authorized_keys");
        let server = Server::start(&root);
        let port = server.port;
        let host_key = fs::read_to_string(root.join("host_key.pub")).expect("the host key");
        fs::write(root.join("known_hosts"), format!("[127.0.0.1]:{port} {host_key}")).expect("known_hosts");
        let me = User::from_uid(Uid::current()).expect("the user database").expect("who runs this");
        let mut lab = Lab { root, server: RefCell::new(server), port, login: me.name, users: None };
        if Uid::effective().is_root() {
            lab.users = Some((make_user(&format!("pb{port}f")), make_user(&format!("pb{port}d"))));
        }
        lab
    }

    /// A new folder of this name.
    pub fn folder(&self, name: &str) -> PathBuf {
        let path = self.root.join(name);
        make_folder(&path);
        path
    }

    /// A name for something new.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The first key, or one of those for apps with an identity each.
    pub fn key(&self, number: usize) -> PathBuf {
        self.root.join("keys").join(number.to_string())
    }

    pub fn host_key(&self) -> PathBuf {
        self.root.join("host_key.pub")
    }

    pub fn known_hosts(&self) -> PathBuf {
        self.root.join("known_hosts")
    }

    pub fn url(&self, repository: &Path) -> String {
        format!("ssh://{}@127.0.0.1:{}{}", self.login, self.port, repository.display())
    }

    pub fn fetch_user(&self) -> Option<&User> {
        self.users.as_ref().map(|(fetch, _)| fetch)
    }

    pub fn deploy_user(&self) -> Option<&User> {
        self.users.as_ref().map(|(_, deploy)| deploy)
    }

    /// A new folder to deploy to.
    pub fn make_target(&self, path: &Path) {
        make_folder(path);
        if let Some(user) = self.deploy_user() {
            chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).expect("chown");
        }
    }

    /// What was written is on the disk, so that nobody waits for what another one wrote.
    pub fn settle(&self) {
        succeed(Command::new("sync").arg("-f").arg(&self.root));
    }

    /// With the environment that cron gives, and nothing of the user's own configuration.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", self.root.join("empty")).env("LANG", "C.UTF-8");
        for (name, value) in git_environment() {
            command.env(name, value);
        }
        command.env("GIT_SSH_COMMAND", format!("ssh {}", self.ssh_options(0).join(" ")));
        command
    }

    pub fn ssh_options(&self, key: usize) -> Vec<String> {
        vec![
            "-F/dev/null".to_owned(),
            format!("-i{}", self.key(key).display()),
            format!("-oUserKnownHostsFile={}", self.known_hosts().display()),
            "-oGlobalKnownHostsFile=/dev/null".to_owned(),
            "-oIdentitiesOnly=yes".to_owned(),
            "-oBatchMode=yes".to_owned(),
        ]
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Some((fetch, deploy)) = &self.users {
            for user in [fetch, deploy] {
                let _ = Command::new("/usr/sbin/userdel").arg(&user.name).status();
            }
        }
        let _ = fs::remove_dir_all(&self.root);
    }
}

pub fn who() -> &'static str {
    if Uid::effective().is_root() { "as root, with a fetch user and a deploy user" } else { "as one ordinary user" }
}

/// A new folder that its owner alone can write, and others can pass through.
fn scratch() -> PathBuf {
    let id = std::process::id();
    let names = (0..100).map(|n| std::env::temp_dir().join(format!("poller-bench-{id}-{n}")));
    let mut builder = DirBuilder::new();
    builder.mode(0o755);
    let mut made = names.filter(|path| builder.create(path).is_ok());
    made.next().expect("a temporary folder")
}

fn make_folder(path: &Path) {
    DirBuilder::new().mode(0o755).recursive(true).create(path).expect("mkdir");
}

fn make_key(path: &Path) {
    succeed(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path));
}

fn make_user(name: &str) -> User {
    let options = ["-M", "-U", "-s", "/usr/sbin/nologin", "-d", "/nonexistent"];
    succeed(Command::new("/usr/sbin/useradd").args(options).arg(name));
    User::from_name(name).expect("the user database").expect("the user just made")
}

/// For git: no configuration but its own, and somebody who commits.
pub fn git_environment() -> [(&'static str, &'static str); 6] {
    [
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_AUTHOR_NAME", "Ada"),
        ("GIT_AUTHOR_EMAIL", "ada@example.org"),
        ("GIT_COMMITTER_NAME", "Ada"),
        ("GIT_COMMITTER_EMAIL", "ada@example.org"),
    ]
}

/// Returns what it said.
pub fn succeed(command: &mut Command) -> String {
    let said = command.stdin(Stdio::null()).output();
    let said = said.unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(said.status.success(), "{command:?}: {said:?}");
    String::from_utf8_lossy(&said.stdout).into_owned()
}
