//! The git server: an sshd on a free loopback port, with throwaway keys.

use std::fs;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::unistd::Uid;

use super::wire::Counter;

pub struct Server {
    root: PathBuf,
    sshd: Child,
    /// Where clients find it, also when a counter stands there and sshd at another one.
    pub port: u16,
    counter: Option<Counter>,
}

impl Server {
    /// In a folder that has `host_key` and `authorized_keys`.
    pub fn start(root: &Path) -> Server {
        if Uid::effective().is_root() {
            let _ = fs::create_dir("/run/sshd"); // Debian's service would make it.
        }
        let port = free_port();
        Server { root: root.to_owned(), sshd: start_sshd(root, port), port, counter: None }
    }

    /// From now on all that clients and server say goes through a counter.
    pub fn count_bytes(&mut self) {
        self.stop();
        let hidden = free_port();
        self.sshd = start_sshd(&self.root, hidden);
        self.counter = Some(Counter::between(self.port, hidden));
    }

    /// What was said since the last time.
    pub fn bytes(&self) -> u64 {
        self.counter.as_ref().map_or(0, Counter::take)
    }

    pub fn count_no_more(&mut self) {
        self.stop();
        self.counter = None;
        self.sshd = start_sshd(&self.root, self.port);
    }

    fn stop(&mut self) {
        let _ = self.sshd.kill();
        let _ = self.sshd.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

pub fn free_port() -> u16 {
    let free = TcpListener::bind("127.0.0.1:0").expect("a port");
    free.local_addr().expect("a port").port()
}

fn start_sshd(root: &Path, port: u16) -> Child {
    let at = root.display();
    // HOME: what the user's shell reads at its start can take longer than all the rest.
    let configuration = format!(
        "ListenAddress 127.0.0.1:{port}\nHostKey {at}/host_key\nPidFile none\n\
         AuthorizedKeysFile {at}/authorized_keys\nStrictModes no\nUsePAM no\n\
         PermitRootLogin prohibit-password\nPasswordAuthentication no\nPrintMotd no\n\
         KbdInteractiveAuthentication no\nMaxStartups 500:30:1000\n\
         AcceptEnv GIT_PROTOCOL\nSetEnv HOME={at}/empty\nLogLevel ERROR\n"
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
                return sshd;
            }
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let _ = sshd.kill();
    let _ = sshd.wait();
    panic!("sshd does not answer on port {port}");
}
