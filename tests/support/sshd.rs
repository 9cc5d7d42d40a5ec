//! The real OpenSSH server on a loopback port of its own, and the keys that go with it.

use std::fs;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

#[derive(Clone, Copy, PartialEq)]
pub enum Protocol {
    Any,
    /// `GIT_PROTOCOL` does not pass, so git on the server speaks v0.
    OnlyV0,
}

pub struct Sshd {
    pub port: u16,
    pub login: String,
    folder: PathBuf,
    client_key: PathBuf,
    protocol: Protocol,
    child: Child,
}

pub fn make_key(path: &Path, passphrase: &str) {
    let shown = path.to_str().unwrap();
    super::sh("ssh-keygen", &["-q", "-t", "ed25519", "-N", passphrase, "-C", "deploy", "-f", shown]);
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Sshd {
    pub fn start(folder: &Path, client_key: &Path, protocol: Protocol) -> Sshd {
        fs::create_dir(folder).unwrap();
        make_key(&folder.join("host_key"), "");
        let login = nix::unistd::User::from_uid(nix::unistd::Uid::current()).unwrap().unwrap().name;
        if super::am_root() {
            let _ = fs::create_dir("/run/sshd"); // Debian's service would make it
        }
        let (port, child) = launch(folder, protocol, None);
        let client_key = client_key.to_owned();
        let sshd = Sshd { port, login, folder: folder.to_owned(), client_key, protocol, child };
        sshd.authorize("");
        sshd
    }

    /// Lets the deploy key in, with these options (such as `command="…"`) before it.
    pub fn authorize(&self, options: &str) {
        self.authorize_key(options, &self.client_key);
    }

    /// Lets another key in, by its public half.
    pub fn authorize_key(&self, options: &str, public: &Path) {
        let line = format!("{options} {}", fs::read_to_string(public).unwrap());
        fs::write(self.folder.join("authorized_keys"), line.trim_start()).unwrap();
    }

    pub fn authorize_nobody(&self) {
        fs::write(self.folder.join("authorized_keys"), "").unwrap();
    }

    /// Another host key on the same port.
    pub fn change_host_key(&mut self) {
        self.stop();
        for name in ["host_key", "host_key.pub"] {
            fs::remove_file(self.folder.join(name)).unwrap();
        }
        make_key(&self.folder.join("host_key"), "");
        self.restart();
    }

    /// The same server with more in its configuration.
    pub fn restart_with(&mut self, lines: &str) {
        self.stop();
        fs::write(self.folder.join("more"), lines).unwrap();
        self.restart();
    }

    pub fn restart(&mut self) {
        self.child = launch(&self.folder, self.protocol, Some(self.port)).1;
    }

    pub fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Ends the server from then on, for a test that has the world only by reference.
    pub fn stop_listening(&self) {
        super::processes::signal(self.pid(), nix::sys::signal::Signal::SIGKILL);
    }

    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// `ssh-ed25519 AAAA…`
    pub fn host_key(&self) -> String {
        let text = fs::read_to_string(self.folder.join("host_key.pub")).unwrap();
        text.split(' ').take(2).collect::<Vec<_>>().join(" ").trim().to_owned()
    }

    pub fn known_hosts_line(&self) -> String {
        self.known_hosts_line_for(self.port)
    }

    pub fn known_hosts_line_for(&self, port: u16) -> String {
        format!("[127.0.0.1]:{port} {}\n", self.host_key())
    }

    /// The host key's fingerprint as ssh-keygen says it.
    pub fn fingerprint(&self) -> String {
        let key = self.folder.join("host_key.pub");
        let said = super::sh("ssh-keygen", &["-lf", key.to_str().unwrap()]);
        said.split(' ').nth(1).unwrap().to_owned()
    }

    pub fn url(&self, repository: &Path) -> String {
        self.url_by_port(self.port, repository)
    }

    pub fn url_by_port(&self, port: u16, repository: &Path) -> String {
        format!("ssh://{}@127.0.0.1:{port}{}", self.login, repository.display())
    }

    /// How much the server has logged so far; for [`Sshd::log_since`].
    pub fn mark(&self) -> usize {
        fs::metadata(self.folder.join("log")).map_or(0, |meta| meta.len() as usize)
    }

    pub fn log_since(&self, mark: usize) -> String {
        let bytes = fs::read(self.folder.join("log")).unwrap();
        String::from_utf8_lossy(&bytes[mark.min(bytes.len())..]).into_owned()
    }

    pub fn connections_since(&self, mark: usize) -> usize {
        self.log_since(mark).lines().filter(|line| line.starts_with("Connection from ")).count()
    }

    /// Requests to log in by method `publickey` that reached the server.
    pub fn key_attempts_since(&self, mark: usize) -> usize {
        let log = self.log_since(mark);
        log.lines().filter(|l| l.contains("userauth-request") && l.contains("publickey")).count()
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.stop();
    }
}

fn launch(folder: &Path, protocol: Protocol, port: Option<u16>) -> (u16, Child) {
    let accept = if protocol == Protocol::Any { "AcceptEnv GIT_PROTOCOL\n" } else { "" };
    for _ in 0..10 {
        let chosen = port.unwrap_or_else(free_port);
        let shown = folder.display();
        // The login shell would read the developer's own start-up files, which is slow and none of ours.
        let conf = format!(
            "ListenAddress 127.0.0.1:{chosen}\nHostKey {shown}/host_key\n\
             AuthorizedKeysFile {shown}/authorized_keys\nPidFile none\nUsePAM no\nStrictModes no\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\n\
             PermitRootLogin prohibit-password\nMaxStartups 100:30:200\nPrintMotd no\n\
             LogLevel DEBUG1\nSetEnv HOME={shown}\n{accept}{}\n",
            fs::read_to_string(folder.join("more")).unwrap_or_default()
        );
        fs::write(folder.join("conf"), conf).unwrap();
        let log = fs::OpenOptions::new().create(true).append(true).open(folder.join("log")).unwrap();
        let mut child = Command::new("/usr/sbin/sshd")
            .args(["-D", "-e", "-f"])
            .arg(folder.join("conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("/usr/sbin/sshd");
        if answers(chosen, &mut child) {
            return (chosen, child);
        }
        let _ = child.kill();
        let _ = child.wait();
    }
    panic!("sshd does not start: {}", fs::read_to_string(folder.join("log")).unwrap());
}

fn answers(port: u16, child: &mut Child) -> bool {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(5) {
        if child.try_wait().unwrap().is_some() {
            return false; // somebody else took the port
        }
        if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) {
            stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let mut greeting = [0; 4];
            let spoke = stream.read_exact(&mut greeting).is_ok() && &greeting == b"SSH-";
            return spoke && child.try_wait().unwrap().is_none();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    false
}
