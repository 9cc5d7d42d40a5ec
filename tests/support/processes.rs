//! What runs on this machine, read from /proc: who descends from whom, and what a scenario left behind.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{World, am_root};

pub fn signal(pid: i32, signal: Signal) {
    let _ = kill(Pid::from_raw(pid), signal);
}

pub fn is_alive(pid: i32) -> bool {
    stat(pid).is_some_and(|(_, state)| state != 'Z')
}

pub fn all() -> Vec<i32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Parent and state.
fn stat(pid: i32) -> Option<(i32, char)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?.chars().next()?;
    Some((fields.next()?.parse().ok()?, state))
}

/// Session of a process.
pub fn session_of(pid: i32) -> i32 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    text.rsplit_once(") ").unwrap().1.split(' ').nth(3).unwrap().parse().unwrap()
}

pub fn parent_of(pid: i32) -> Option<i32> {
    stat(pid).map(|(parent, _)| parent)
}

pub fn descendants_of(pid: i32) -> Vec<i32> {
    let parents: Vec<_> = all().into_iter().filter_map(|p| Some((p, stat(p)?.0))).collect();
    let (mut found, mut next) = (Vec::new(), vec![pid]);
    while let Some(parent) = next.pop() {
        for (child, _) in parents.iter().filter(|(_, above)| *above == parent) {
            found.push(*child);
            next.push(*child);
        }
    }
    found
}

fn is_poller(pid: i32) -> bool {
    let exe = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    exe == Path::new(env!("CARGO_BIN_EXE_poller"))
}

/// The program's own processes below `pid`: no scripts.
pub fn helpers_of(pid: i32) -> Vec<i32> {
    descendants_of(pid).into_iter().filter(|pid| is_poller(*pid)).collect()
}

pub fn command_line(pid: i32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ").trim().to_owned()
}

pub fn status_field(pid: i32, field: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let prefix = format!("{field}:");
    let line = text.lines().find_map(|line| line.strip_prefix(&prefix));
    line.unwrap_or_else(|| panic!("no {field}")).trim().to_owned()
}

pub fn environment(pid: i32) -> Vec<(String, String)> {
    let bytes = fs::read(format!("/proc/{pid}/environ")).unwrap();
    String::from_utf8(bytes)
        .unwrap()
        .split_terminator('\0')
        .map(|pair| pair.split_once('=').expect("NAME=value"))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// Open descriptors and what they are.
pub fn descriptors(pid: i32) -> Vec<(i32, PathBuf)> {
    let mut found: Vec<_> = fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .flatten()
        .filter_map(|entry| {
            let number = entry.file_name().to_str()?.parse().ok()?;
            Some((number, fs::read_link(entry.path()).ok()?))
        })
        .collect();
    found.sort();
    found
}

pub fn describe(pids: &[i32]) -> String {
    pids.iter().map(|pid| format!("{pid} {}\n", command_line(*pid))).collect()
}

impl World {
    /// Every living process that belongs to this world: run by one of its users, or with its folder
    /// in the environment, the command line or as working directory. Not its sshd, nor what that has started,
    /// which may outlive its connection for a moment.
    pub fn processes(&self) -> Vec<i32> {
        let mark = self.root.to_str().unwrap();
        let mut server = descendants_of(self.sshd.pid());
        server.push(self.sshd.pid());
        let servers_home = format!("\0HOME={mark}/sshd\0");
        let me = std::process::id() as i32;
        let ours = |pid: &i32| {
            let read = |name| fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
            let says = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).contains(mark);
            let cwd = fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
            let environment = read("environ");
            if format!("\0{}", String::from_utf8_lossy(&environment)).contains(&servers_home) {
                return false;
            }
            self.runs_as_one_of_ours(*pid) || says(environment) || says(read("cmdline")) || cwd.starts_with(&self.root)
        };
        let living = all().into_iter().filter(|pid| *pid != me && is_alive(*pid));
        living.filter(|pid| !server.contains(pid)).filter(ours).collect()
    }

    fn runs_as_one_of_ours(&self, pid: i32) -> bool {
        use std::os::unix::fs::MetadataExt;
        let owner = fs::metadata(format!("/proc/{pid}")).map(|meta| meta.uid());
        am_root() && owner.is_ok_and(|uid| uid == self.deployer.uid || uid == self.fetcher.uid)
    }

    /// Processes of scripts: this world's, without poller's own.
    pub fn script_processes(&self) -> Vec<i32> {
        self.processes().into_iter().filter(|pid| !is_poller(*pid)).collect()
    }

    #[track_caller]
    pub fn expect_no_processes(&self) {
        // A killed process is gone a moment after the kill.
        for _ in 0..50 {
            if self.processes().is_empty() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("left behind:\n{}", describe(&self.processes()));
    }

    /// The script's process that has `word` in its command line, waited for.
    #[track_caller]
    pub fn wait_for_script(&self, word: &str) -> i32 {
        let found = |world: &World| world.script_processes().into_iter().find(|pid| command_line(*pid).contains(word));
        super::wait_until(&format!("a process {word:?}"), super::seconds(20), || found(self).is_some());
        found(self).expect("it just ran")
    }
}

pub fn kill_all_of(world: &World) {
    for _ in 0..20 {
        let left = world.processes();
        if left.is_empty() {
            return;
        }
        left.into_iter().for_each(|pid| signal(pid, Signal::SIGKILL));
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}
