//! Processes as /proc tells of them: who descends from whom, and whether a remembered one still lives.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// No environment is longer; but a process can say of its own that it goes on without end.
const ENVIRONMENT: u64 = 8 << 20;

/// A process that cannot be mistaken for another one: numbers come back, start times within a boot do not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub pid: i32,
    /// Start time in clock ticks since boot, field 22 of /proc/PID/stat.
    pub started: u64,
    pub boot: String,
}

impl Identity {
    /// None when there is no such process (any more).
    pub fn of(pid: i32) -> Option<Identity> {
        Some(Identity { pid, started: Entry::read(pid)?.started, boot: boot_id() })
    }

    pub fn is_alive(&self) -> bool {
        self.boot == boot_id() && Entry::read(self.pid).is_some_and(|e| e.started == self.started && !e.is_over())
    }
}

/// One line of the process table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub pid: i32,
    pub name: String,
    pub state: char,
    pub parent: i32,
    pub session: i32,
    pub threads: u32,
    pub started: u64,
}

impl Entry {
    pub fn read(pid: i32) -> Option<Entry> {
        // A name is any bytes, and the kernel cuts it where it likes: in the middle of a character, too.
        Entry::parse(&String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/stat")).ok()?))
    }

    /// The name is in parentheses and may hold anything, parentheses and spaces too.
    fn parse(stat: &str) -> Option<Entry> {
        let (pid, rest) = stat.split_once(" (")?;
        let (name, rest) = rest.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        Some(Entry {
            pid: pid.parse().ok()?,
            name: name.to_owned(),
            state: fields.first()?.chars().next()?,
            parent: fields.get(1)?.parse().ok()?,
            session: fields.get(3)?.parse().ok()?,
            threads: fields.get(17)?.parse().ok()?,
            started: fields.get(19)?.parse().ok()?,
        })
    }

    /// Whether nothing of it runs any more. A process whose first thread has ended is a zombie to look at,
    /// while its other threads go on.
    pub fn is_over(&self) -> bool {
        matches!(self.state, 'Z' | 'X') && self.threads <= 1
    }

    /// Whether the process was started with all of these assignments in its environment.
    pub fn has_environment(&self, assignments: &[String]) -> bool {
        let has = |file: PathBuf| {
            let mut all = Vec::new();
            let read = File::open(file).and_then(|file| file.take(ENVIRONMENT).read_to_end(&mut all));
            let is_there = |wanted: &String| all.split(|&b| b == 0).any(|one| one == wanted.as_bytes());
            read.is_ok() && assignments.iter().all(is_there)
        };
        let process = PathBuf::from(format!("/proc/{}", self.pid));
        if self.state != 'Z' {
            return has(process.join("environ"));
        }
        // A first thread that has ended has none any more; the others have.
        let threads = fs::read_dir(process.join("task")).into_iter().flatten().flatten();
        threads.map(|thread| thread.path().join("environ")).any(has)
    }

    /// `PID (name)`, fit for a person.
    pub fn label(&self) -> String {
        format!("{} ({})", self.pid, self.name)
    }
}

/// The whole process table, without what ends while it is read.
pub fn all() -> Vec<Entry> {
    let Ok(folder) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    folder.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter_map(Entry::read).collect()
}

/// Everything below `root` that is alive, `root` itself not included.
pub fn descendants(root: i32) -> Vec<Entry> {
    let table = all();
    let mut family = HashSet::from([root]);
    // A child may stand before its parent in the table: repeat until nothing is added.
    loop {
        let before = family.len();
        family.extend(table.iter().filter(|e| family.contains(&e.parent)).map(|e| e.pid).collect::<Vec<_>>());
        if family.len() == before {
            break;
        }
    }
    table.into_iter().filter(|e| e.pid != root && !e.is_over() && family.contains(&e.pid)).collect()
}

/// Signals all of them. One that is gone already, or that became root's by sudo, is passed over.
pub fn signal_all(processes: &[Entry], signal: Signal) {
    for process in processes {
        // ESRCH is the aim; EPERM is seen by the caller, who looks again at what is left.
        let _ = kill(Pid::from_raw(process.pid), signal);
    }
}

/// Whether a process has the file open and locked by flock.
pub fn has_locked(pid: i32, file: &fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    let is_it = |path: &Path| fs::metadata(path).is_ok_and(|m| (m.dev(), m.ino()) == (file.dev(), file.ino()));
    let mut all = descriptors.flatten().filter(|entry| is_it(&entry.path()));
    all.any(|entry| {
        let info = Path::new("/proc").join(pid.to_string()).join("fdinfo").join(entry.file_name());
        // `lock:   1: FLOCK  ADVISORY  WRITE 359 00:13:11691 0 EOF`
        fs::read_to_string(info).is_ok_and(|text| text.lines().any(|l| l.starts_with("lock:") && l.contains("FLOCK")))
    })
}

/// Changes with every boot.
pub fn boot_id() -> String {
    fs::read_to_string(Path::new("/proc/sys/kernel/random/boot_id")).unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_and_spaces_is_read() {
        let line = "42 (a) S (b) S 7 42 40 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 98765 1 2";
        let entry = Entry::parse(line).unwrap();
        assert_eq!(
            (entry.pid, entry.name.as_str(), entry.parent, entry.session, entry.started),
            (42, "a) S (b", 7, 40, 98765)
        );
    }

    #[test]
    fn this_process_is_alive_and_a_namesake_is_not_it() {
        let me = Identity::of(std::process::id() as i32).unwrap();
        assert!(me.is_alive());
        assert!(!Identity { started: me.started + 1, ..me.clone() }.is_alive());
        assert!(!Identity { boot: "another".into(), ..me }.is_alive());
    }
}
