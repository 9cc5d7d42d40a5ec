//! Two network namespaces and a cable between them: poller runs in the one, and the other leads to the
//! world's sshd. Nothing of it is seen outside.

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;

use nix::sched::{CloneFlags, setns};

use crate::support::mischief::Proxy;
use crate::support::run::{Outcome, Running};
use crate::support::{World, random_word, seconds, sh, wait_until};

/// Where the server listens. Its bits are further from the client's than those of [`DEAD`], so that
/// getaddrinfo names it last.
pub const SERVER: &str = "10.77.0.10";
const CLIENT: &str = "10.77.0.1";
pub const DEAD: [&str; 2] = ["10.77.0.2", "10.77.0.3"];
pub const DEAD_V6: &str = "fd77::2";
pub const RESOLVER: &str = "10.77.0.53";
/// Each end of the cable has this name.
const CABLE: &str = "wire";

pub struct Net {
    client: String,
    server: String,
    pub proxy: Proxy,
}

/// The namespaces of each end.
#[derive(Clone, Copy)]
pub enum End {
    Client,
    Server,
}

impl Net {
    /// The network, with the world's sshd behind it.
    pub fn new(world: &World) -> Net {
        let word = random_word();
        let (client, server) = (format!("pt{word}c"), format!("pt{word}s"));
        for name in [&client, &server] {
            sh("ip", &["netns", "add", name]);
            sh("ip", &["-n", name, "link", "set", "lo", "up"]);
        }
        let cable = ["link", "add", CABLE, "netns", &client, "type", "veth", "peer", "name", CABLE, "netns", &server];
        sh("ip", &cable);
        let addresses = |name: &str, all: &[&str], prefix: &str| {
            for address in all {
                let whole = format!("{address}{prefix}");
                sh("ip", &["-n", name, "address", "add", &whole, "dev", CABLE, "nodad"]);
            }
            sh("ip", &["-n", name, "link", "set", CABLE, "up"]);
        };
        addresses(&client, &[CLIENT], "/24");
        addresses(&client, &["fd77::1"], "/64");
        addresses(&server, &[SERVER, DEAD[0], DEAD[1], RESOLVER], "/24");
        addresses(&server, &[DEAD_V6], "/64");
        let listener = inside(&server, || TcpListener::bind((SERVER, 0)).unwrap());
        let net = Net { client, server, proxy: Proxy::on(listener, world.sshd.port) };
        net.heal();
        net
    }

    /// As if the cable were new: no limits, and only the dead addresses drop what comes.
    pub fn heal(&self) {
        for end in [End::Client, End::Server] {
            let _ = self.command(end, "tc").args(["qdisc", "del", "dev", CABLE, "root"]).output();
            self.nft(end, "flush ruleset");
            self.nft(end, "add table inet t");
            self.nft(end, "add chain inet t in { type filter hook input priority 0; }");
            self.nft(end, "add chain inet t out { type filter hook output priority 0; }");
            self.run(end, "ip", &["link", "set", CABLE, "up"]);
        }
        let route = ["route", "replace", "10.77.0.0/24", "dev", CABLE, "src"];
        self.run(End::Client, "ip", &[&route[..], &[CLIENT]].concat());
        self.run(End::Server, "ip", &[&route[..], &[SERVER]].concat());
        // Neighbours that were gone a moment ago have to be found again.
        let port = self.proxy.port;
        let reaches = || self.inside(End::Client, || TcpStream::connect((SERVER, port)).is_ok());
        wait_until("a line that is well again", seconds(20), reaches);
        for dead in DEAD {
            self.nft(End::Server, &format!("add rule inet t in ip daddr {dead} drop"));
        }
        self.nft(End::Server, &format!("add rule inet t in ip6 daddr {DEAD_V6} tcp dport > 0 drop"));
    }

    /// A rule of nft at one end, such as `in drop`.
    pub fn rule(&self, end: End, rule: &str) {
        self.nft(end, &format!("add rule inet t {rule}"));
    }

    /// Both directions get no more than this, such as `64kbit`.
    pub fn narrow(&self, rate: &str) {
        let args = ["qdisc", "replace", "dev", CABLE, "root", "tbf", "rate", rate, "burst", "4kb", "latency", "500ms"];
        self.run(End::Client, "tc", &args);
        self.run(End::Server, "tc", &args);
    }

    pub fn unplug(&self) {
        self.run(End::Server, "ip", &["link", "set", CABLE, "down"]);
    }

    pub fn plug(&self) {
        self.run(End::Server, "ip", &["link", "set", CABLE, "up"]);
    }

    fn nft(&self, end: End, command: &str) {
        self.run(end, "nft", &[command]);
    }

    pub fn run(&self, end: End, program: &str, args: &[&str]) {
        let out = self.command(end, program).args(args).output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{program} {args:?}: {said}");
    }

    fn command(&self, end: End, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", self.name(end), program]);
        command
    }

    fn name(&self, end: End) -> &str {
        match end {
            End::Client => &self.client,
            End::Server => &self.server,
        }
    }

    pub fn inside<T: Send>(&self, end: End, work: impl FnOnce() -> T + Send) -> T {
        inside(self.name(end), work)
    }

    /// What poller sees as /etc/NAME from now on.
    pub fn put_etc(&self, name: &str, text: &str) {
        let folder = self.etc();
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(name), text).unwrap();
    }

    fn etc(&self) -> PathBuf {
        PathBuf::from("/etc/netns").join(&self.client)
    }

    pub fn url(&self, world: &World) -> String {
        self.url_of(world, SERVER)
    }

    pub fn url_of(&self, world: &World, host: &str) -> String {
        format!("ssh://{}@{host}:{}{}", world.sshd.login, self.proxy.port, world.repo.bare.display())
    }

    pub fn pin(&self, world: &World, host: &str) {
        world.write_etc("known_hosts", &format!("[{host}]:{} {}\n", self.proxy.port, world.sshd.host_key()));
    }

    /// The app `site`, with this time limit.
    pub fn configure(&self, world: &World, timeout: &str) {
        world.app("site").source(&format!("url = \"{}\"\ntimeout = \"{timeout}\"", self.url(world))).write();
        self.pin(world, SERVER);
    }

    pub fn spawn(&self, world: &World, args: &[&str]) -> Running {
        let plain = world.command(args);
        let mut command = self.command(End::Client, plain.get_program().to_str().unwrap());
        command.args(plain.get_args()).current_dir("/").env_clear();
        command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
        world.spawn(command)
    }

    pub fn poll(&self, world: &World, args: &[&str]) -> Outcome {
        self.spawn(world, args).wait()
    }
}

/// Does something in a namespace, in a thread of its own, which is the only one that enters it.
fn inside<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let entered = scope.spawn(|| {
            let namespace = File::open(format!("/run/netns/{name}")).unwrap();
            setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        });
        entered.join().expect("work in a namespace")
    })
}

impl Drop for Net {
    fn drop(&mut self) {
        for name in [&self.client, &self.server] {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
        let _ = fs::remove_dir_all(self.etc());
        // The folder is nobody's if this test was the only one to need it.
        let _ = fs::remove_dir("/etc/netns");
    }
}
