//! How many cases a test tried and how many held, with what was measured on the way: a row of the table
//! in docs/reliability.md. Written to `target/faults`, or `faults-in-full`, as the test ends, whichever way it does.

use std::fmt::Display;
use std::fs;
use std::path::PathBuf;

use crate::all;

/// The groups of the table.
#[derive(Clone, Copy)]
pub enum Group {
    Kills,
    Disk,
    Power,
    Network,
    Server,
    Repository,
    Cage,
}

impl Group {
    fn name(self) -> &'static str {
        match self {
            Group::Kills => "kills",
            Group::Disk => "full and failing disks",
            Group::Power => "power cuts",
            Group::Network => "network",
            Group::Server => "hostile server",
            Group::Repository => "hostile repository",
            Group::Cage => "the cage",
        }
    }
}

pub struct Tally {
    group: Group,
    test: String,
    tried: usize,
    held: usize,
    notes: Vec<String>,
    current: Option<String>,
}

impl Tally {
    pub fn new(group: Group) -> Tally {
        let test = std::thread::current().name().expect("a test's thread has its name").to_owned();
        assert!(test.contains("::"), "{test} is not the name of a test");
        Tally { group, test, tried: 0, held: 0, notes: Vec::new(), current: None }
    }

    /// Begins the next case. The one before has held, or the test would have ended there.
    pub fn case(&mut self, name: impl Display) {
        self.close();
        self.tried += 1;
        self.current = Some(name.to_string());
    }

    /// What was measured, in a few words: "fetcher at most 21 MiB".
    pub fn note(&mut self, text: impl Display) {
        self.notes.push(text.to_string());
    }

    fn close(&mut self) {
        self.held += usize::from(self.current.take().is_some());
    }

    fn row(&self) -> String {
        let notes = self.notes.join("; ");
        format!("| {} | `{}` | {} | {} | {notes} |\n", self.group.name(), self.test, self.tried, self.held)
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        match self.current.clone() {
            Some(case) if std::thread::panicking() => eprintln!("case {}: {case}", self.tried),
            _ => self.close(),
        }
        let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        let folder = target.parent().expect("target").join(if all() { "faults-in-full" } else { "faults" });
        let _ = fs::create_dir_all(&folder);
        let file = folder.join(self.test.replace("::", "."));
        if let Err(e) = fs::write(&file, self.row()) {
            eprintln!("{}: {e}", file.display());
        }
    }
}
