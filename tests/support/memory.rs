//! How much memory poller's processes take at most, each by its role.
//!
//! The kernel keeps the peak of each process (`VmHWM`) for as long as it lives. A helper lives on for a
//! moment after its work, so looking every two milliseconds meets the peak of all but the shortest. What
//! no look has met is in [`largest_child`], which the kernel adds up itself and which knows no roles.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::time::{Duration, Instant};

use super::run::{Outcome, Running};

const LOOK: Duration = Duration::from_millis(2);

/// Bytes at most, by role: `supervisor`, `prober`, `fetcher`, …
#[derive(Clone, Debug, Default)]
pub struct Peaks(pub BTreeMap<String, u64>);

impl Peaks {
    pub fn of(&self, role: &str) -> u64 {
        self.0.get(role).copied().unwrap_or(0)
    }

    pub fn take_larger(&mut self, other: &Peaks) {
        for (role, bytes) in &other.0 {
            let known = self.0.entry(role.clone()).or_default();
            *known = (*known).max(*bytes);
        }
    }

    /// `supervisor 12 MiB, prober 14 MiB, …` of these roles.
    pub fn words(&self, roles: &[&str]) -> String {
        let words: Vec<_> = roles.iter().map(|role| format!("{role} {} MiB", mib(self.of(role)))).collect();
        words.join(", ")
    }
}

/// What the largest process took that this test has waited for, or that one of those has waited for.
pub fn largest_child() -> u64 {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN);
    u64::try_from(usage.expect("getrusage").max_rss()).unwrap_or(0) << 10
}

/// Rounded up.
pub fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

/// Waits for the end of a run and watches its processes.
pub fn watch(mut running: Running) -> (Outcome, Peaks) {
    let supervisor = running.pid();
    let mut peaks = Peaks::default();
    // What each process is; None for those of others.
    let mut known: HashMap<i32, Option<String>> = HashMap::from([(supervisor, Some("supervisor".to_owned()))]);
    let start = Instant::now();
    while !running.is_over() && start.elapsed() < Duration::from_secs(120) {
        for pid in super::processes::all() {
            let role = known.get(&pid).cloned().unwrap_or_else(|| {
                let role = role_of(pid, supervisor)?;
                known.insert(pid, role.clone());
                role
            });
            if let (Some(role), Some(bytes)) = (role, peak(pid)) {
                let most = peaks.0.entry(role).or_default();
                *most = (*most).max(bytes);
            }
        }
        std::thread::sleep(LOOK);
    }
    (running.wait(), peaks)
}

/// The role of a helper of this supervisor, Some(None) for somebody else's process; None while that is
/// not to be told, because it has just been forked.
fn role_of(pid: i32, supervisor: i32) -> Option<Option<String>> {
    match super::processes::parent_of(pid) {
        Some(parent) if parent == supervisor => {
            let line = super::processes::command_line(pid);
            let role = line.strip_prefix("poller _")?.split(' ').next()?.to_owned();
            Some(Some(role))
        }
        _ => Some(None),
    }
}

fn peak(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
}
