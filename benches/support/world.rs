//! A server and its clients in a temporary folder of their own, which goes away with the value: sshd on
//! a free loopback port with throwaway keys, a repository, a clone of it, and an app that poller has
//! deployed. Started by root, poller has a fetch user and a deploy user, made for the occasion.

use std::fs::{self, DirBuilder};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{DirBuilderExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::unistd::{Uid, User};

/// Who asks the server.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Contestant {
    Poller,
    Probe,
    GitFetch,
    /// The key exchange that poller and an OpenSSH of before 9.9 agree on, in place of ssh's own choice.
    GitFetchCurve25519,
    GitLsRemote,
    Ssh,
}

impl Contestant {
    pub const ALL: [Contestant; 6] = [
        Contestant::Poller,
        Contestant::Probe,
        Contestant::GitFetch,
        Contestant::GitFetchCurve25519,
        Contestant::GitLsRemote,
        Contestant::Ssh,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Contestant::Poller => "`poller`, the whole unchanged run",
            Contestant::Probe => "a bare russh probe",
            Contestant::GitFetch => "`git fetch --dry-run`",
            Contestant::GitFetchCurve25519 => "the same over curve25519",
            Contestant::GitLsRemote => "`git ls-remote`",
            Contestant::Ssh => "`ssh host true`",
        }
    }
}

pub struct World {
    root: PathBuf,
    sshd: Child,
    port: u16,
    /// Who logs in at the server: whoever runs this.
    login: String,
    /// Throwaway accounts.
    users: Vec<String>,
}

impl World {
    /// `refs` references: `main`, further branches, and as many tags.
    pub fn new(refs: usize) -> World {
        let root = scratch();
        for key in ["host_key", "key"] {
            let options = ["-q", "-t", "ed25519", "-N", "", "-f"];
            succeed(Command::new("ssh-keygen").args(options).arg(root.join(key)));
        }
        fs::copy(root.join("key.pub"), root.join("authorized_keys")).expect("authorized_keys");
        let (port, sshd) = start_sshd(&root);
        let me = User::from_uid(Uid::current()).expect("who runs this");
        let mut world =
            World { root, sshd, port, login: me.expect("an entry for who runs this").name, users: Vec::new() };
        world.write_known_hosts();
        world.make_repositories(refs);
        world.configure();
        succeed(&mut world.command(Contestant::Poller));
        world
    }

    pub fn who() -> &'static str {
        if Uid::effective().is_root() { "as root, with a fetch user and a deploy user" } else { "as one ordinary user" }
    }

    /// With the environment that cron gives, and nothing of the user's own configuration.
    pub fn command(&self, contestant: Contestant) -> Command {
        let url = self.url();
        let mut command = match contestant {
            Contestant::Poller => {
                let mut poller = Command::new(env!("CARGO_BIN_EXE_poller"));
                poller.arg("--config").arg(self.root.join("poller.toml"));
                poller
            }
            Contestant::Probe => {
                let mut probe = Command::new(std::env::current_exe().expect("this program"));
                let (key, host_key) = (self.root.join("key"), self.root.join("host_key.pub"));
                probe.args([super::probe::WORD, &self.port.to_string(), &self.login]);
                probe.args([key, host_key, self.root.join("server.git")]);
                probe
            }
            Contestant::GitFetch | Contestant::GitFetchCurve25519 => {
                let mut git = git();
                git.arg("-C").arg(self.root.join("clone"));
                git.args(["fetch", "--dry-run"]);
                git
            }
            Contestant::GitLsRemote => {
                let mut git = git();
                git.args(["ls-remote", &url, "refs/heads/main"]);
                git
            }
            Contestant::Ssh => {
                let mut ssh = Command::new("ssh");
                ssh.args(self.ssh_options());
                ssh.args(["-p", &self.port.to_string(), "-l", &self.login]);
                ssh.args(["127.0.0.1", "true"]);
                ssh
            }
        };
        let mut ssh = format!("ssh {}", self.ssh_options().join(" "));
        if contestant == Contestant::GitFetchCurve25519 {
            ssh += " -oKexAlgorithms=curve25519-sha256";
        }
        command.env_clear().env("PATH", "/usr/bin:/bin");
        command.env("HOME", &self.root).env("GIT_SSH_COMMAND", ssh);
        without_configuration(&mut command);
        command
    }

    /// poller saw nothing new in the last `runs` runs, and has deployed once.
    pub fn assert_unchanged(&self, runs: usize) {
        let log = fs::read_to_string(self.root.join("poller.log")).expect("poller's log");
        let count = |event: &str| log.matches(&format!("\"event\":\"{event}\"")).count();
        let (unchanged, deployed) = (count("poll.unchanged"), count("deploy.finished"));
        assert_eq!((unchanged, deployed), (runs, 1), "{log}");
    }

    fn url(&self) -> String {
        let server = self.root.join("server.git");
        let server = server.display();
        format!("ssh://{}@127.0.0.1:{}{server}", self.login, self.port)
    }

    fn ssh_options(&self) -> Vec<String> {
        let (key, known) = (self.root.join("key"), self.root.join("known_hosts"));
        vec![
            "-F/dev/null".to_owned(),
            format!("-i{}", key.display()),
            format!("-oUserKnownHostsFile={}", known.display()),
            "-oGlobalKnownHostsFile=/dev/null".to_owned(),
            "-oIdentitiesOnly=yes".to_owned(),
            "-oBatchMode=yes".to_owned(),
        ]
    }

    fn write_known_hosts(&self) {
        let key = fs::read_to_string(self.root.join("host_key.pub")).expect("the host key");
        let line = format!("[127.0.0.1]:{} {key}", self.port);
        fs::write(self.root.join("known_hosts"), line).expect("known_hosts");
    }

    fn make_repositories(&self, refs: usize) {
        let (server, clone) = (self.root.join("server.git"), self.root.join("clone"));
        succeed(git().args(["init", "-q", "-b", "main"]).arg(&clone));
        fs::write(clone.join("index.html"), "one\n").expect("a file");
        for line in ["add -A", "commit -q -m first"] {
            succeed(git().arg("-C").arg(&clone).args(line.split(' ')));
        }
        let copy = ["clone", "-q", "--bare"];
        succeed(git().args(copy).args([&clone, &server]));
        let mut update = git();
        update.arg("-C").arg(&server);
        update.args(["update-ref", "--stdin"]).stdin(Stdio::piped());
        let mut update = update.spawn().expect("git update-ref");
        let mut input = update.stdin.take().expect("its input");
        for n in 1..refs {
            let kind = if n % 2 == 0 { "heads/topic" } else { "tags/v1" };
            writeln!(input, "create refs/{kind}.{n} refs/heads/main").expect("its input");
        }
        drop(input);
        assert!(update.wait().expect("git update-ref").success());
        succeed(git().arg("-C").arg(&server).args(["pack-refs", "--all"]));
        // The clone has all of it already.
        let url = self.url();
        for line in [
            &format!("remote add origin {}", server.display()),
            "fetch -q --tags origin",
            "pack-refs --all",
            &format!("remote set-url origin {url}"),
        ] {
            succeed(git().arg("-C").arg(&clone).args(line.split(' ')));
        }
    }

    fn configure(&mut self) {
        let root = self.root.clone();
        let target = root.join("target");
        make_folder(&target);
        let (mut fetch_user, mut deploy_user) = (String::new(), String::new());
        if Uid::effective().is_root() {
            let fetcher = self.make_user("f");
            let deployer = self.make_user("d");
            let (uid, gid) = (deployer.uid.as_raw(), deployer.gid.as_raw());
            chown(&target, Some(uid), Some(gid)).expect("chown");
            fetch_user = format!("[host]\nfetch_user = \"{}\"\n", fetcher.name);
            deploy_user = format!("user = \"{}\"\n", deployer.name);
        }
        let at = root.display();
        let host =
            format!("{fetch_user}[paths]\nstate = \"{at}/state\"\nrun = \"{at}/run\"\nlog = \"{at}/poller.log\"\n");
        fs::write(root.join("poller.toml"), host).expect("poller.toml");
        let app = format!(
            "[source]\nurl = \"{}\"\nbranch = \"main\"\nidentity = \"key\"\n\
             [target]\ndirectory = \"{}\"\n[deploy]\n{deploy_user}script = \"/bin/true\"\n",
            self.url(),
            target.display()
        );
        make_folder(&root.join("apps.d"));
        fs::write(root.join("apps.d/site.toml"), app).expect("the app's file");
    }

    fn make_user(&mut self, suffix: &str) -> User {
        let name = format!("pb{}{suffix}", self.port);
        let options = ["-M", "-N", "-s", "/usr/sbin/nologin", "-d", "/nonexistent"];
        succeed(Command::new("/usr/sbin/useradd").args(options).arg(&name));
        self.users.push(name.clone());
        let user = User::from_name(&name).expect("the user database");
        user.expect("the user just made")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.sshd.kill();
        let _ = self.sshd.wait();
        for user in &self.users {
            let _ = Command::new("/usr/sbin/userdel").arg(user).status();
        }
        let _ = fs::remove_dir_all(&self.root);
    }
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
    DirBuilder::new().mode(0o755).create(path).expect("mkdir");
}

fn git() -> Command {
    let mut git = Command::new("git");
    without_configuration(&mut git);
    for who in ["AUTHOR", "COMMITTER"] {
        git.env(format!("GIT_{who}_NAME"), "Ada");
        git.env(format!("GIT_{who}_EMAIL"), "ada@example.org");
    }
    git
}

fn without_configuration(command: &mut Command) {
    command.env("GIT_CONFIG_GLOBAL", "/dev/null");
    command.env("GIT_CONFIG_NOSYSTEM", "1");
}

fn succeed(command: &mut Command) {
    let said = command.stdin(Stdio::null()).output();
    let said = said.unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(said.status.success(), "{command:?}: {said:?}");
}

fn start_sshd(root: &Path) -> (u16, Child) {
    if Uid::effective().is_root() {
        let _ = fs::create_dir("/run/sshd"); // Debian's service would make it.
    }
    let free = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = free.local_addr().expect("a port").port();
    drop(free);
    let at = root.display();
    // HOME: what the user's shell reads at its start can take longer than all the rest.
    let configuration = format!(
        "ListenAddress 127.0.0.1:{port}\nHostKey {at}/host_key\nPidFile none\n\
         AuthorizedKeysFile {at}/authorized_keys\nStrictModes no\nUsePAM no\n\
         PermitRootLogin prohibit-password\nPasswordAuthentication no\nPrintMotd no\n\
         KbdInteractiveAuthentication no\nMaxStartups 500:30:1000\n\
         AcceptEnv GIT_PROTOCOL\nSetEnv HOME={at}\nLogLevel ERROR\n"
    );
    fs::write(root.join("sshd_config"), configuration).expect("sshd_config");
    let mut sshd = Command::new("/usr/sbin/sshd");
    sshd.args(["-D", "-e", "-f"]).arg(root.join("sshd_config"));
    let log = fs::File::create(root.join("sshd.log")).expect("sshd's log");
    sshd.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    let mut sshd = sshd.spawn().expect("/usr/sbin/sshd");
    for _ in 0..500 {
        if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) {
            let mut greeting = [0; 4];
            if stream.read_exact(&mut greeting).is_ok() && &greeting == b"SSH-" {
                return (port, sshd);
            }
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let _ = sshd.kill();
    let _ = sshd.wait();
    panic!("sshd does not answer on port {port}");
}
