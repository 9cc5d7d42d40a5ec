//! What the commands of a run say, from the log, while it is going on.
//!
//! A run writes to the file that it opened at its begin, even after logrotate renamed it. So both are
//! watched, the log and the one that was renamed last, each by the descriptor that was opened here.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::sys::trusted_file;

/// No line of poller's is as long; the rest of one that is longer is passed over.
const LONGEST_LINE: usize = 1 << 20;

pub struct Tail {
    app: String,
    run: String,
    files: Vec<Source>,
    /// What was said and not taken yet.
    lines: Vec<String>,
    began: bool,
    ended: bool,
}

struct Source {
    file: File,
    /// A last line that has not been written to its end.
    rest: Vec<u8>,
    position: u64,
}

impl Tail {
    pub fn open(log: &Path, app: &str, run: &str) -> Result<Tail> {
        if let Some(folder) = log.parent() {
            trusted_file::check_folder(folder)?;
        }
        // In this order: renamed in between, the file is met twice, and not at all the other way round.
        let mut files: Vec<Source> = Vec::new();
        for path in [log.to_owned(), renamed(log)] {
            let Some(source) = Source::open(&path).with_context(|| path.display().to_string())? else { continue };
            let identity = |source: &Source| source.file.metadata().map(|m| (m.dev(), m.ino())).ok();
            if files.iter().all(|known| identity(known) != identity(&source)) {
                files.insert(0, source);
            }
        }
        let (app, run) = (app.to_owned(), run.to_owned());
        Ok(Tail { app, run, files, lines: Vec::new(), began: false, ended: false })
    }

    /// Reads what was written since the last time.
    pub fn read(&mut self) -> Result<()> {
        let mut events = Vec::new();
        for source in &mut self.files {
            source.read(|line| {
                // Most lines are of other runs: they are not worth parsing.
                if line.windows(self.run.len()).any(|part| part == self.run.as_bytes())
                    && let Ok(event) = serde_json::from_slice::<Value>(line)
                    && event["run"] == self.run.as_str()
                    && event["app"] == self.app.as_str()
                {
                    events.push(event);
                }
            })?;
        }
        for event in events {
            match event["event"].as_str() {
                Some("deploy.started") => self.began = true,
                Some("deploy.finished") => self.ended = true,
                Some("deploy.output" | "deploy.output.dropped") => {
                    self.lines.push(event["msg"].as_str().unwrap_or_default().to_owned());
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// What was said since it was asked last.
    pub fn take_lines(&mut self) -> Vec<String> {
        std::mem::take(&mut self.lines)
    }

    /// Whether the deploy is on record.
    pub fn has_begun(&self) -> bool {
        self.began
    }

    /// Whether it is over; its end may be on record a moment later.
    pub fn has_ended(&self) -> bool {
        self.ended
    }
}

/// As logrotate calls it.
fn renamed(log: &Path) -> PathBuf {
    let mut name = log.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

impl Source {
    fn open(path: &Path) -> Result<Option<Source>> {
        let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
        match OpenOptions::new().read(true).custom_flags(flags).open(path) {
            Ok(file) => Ok(Some(Source { file, rest: Vec::new(), position: 0 })),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    fn read(&mut self, mut line: impl FnMut(&[u8])) -> Result<()> {
        // With copytruncate it begins anew.
        if self.file.metadata()?.len() < self.position {
            self.position = self.file.seek(SeekFrom::Start(0))?;
            self.rest.clear();
        }
        let mut bytes = vec![0; 64 << 10];
        loop {
            let count = match self.file.read(&mut bytes) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(e.into()),
            };
            self.position += count as u64;
            self.rest.extend_from_slice(&bytes[..count]);
            let whole = self.rest.iter().rposition(|&b| b == b'\n').map_or(0, |end| end + 1);
            self.rest[..whole].split(|&b| b == b'\n').for_each(&mut line);
            self.rest.drain(..whole);
            if self.rest.len() > LONGEST_LINE {
                self.rest.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn event(run: &str, event: &str, msg: &str) -> String {
        format!("{{\"run\":\"{run}\",\"event\":\"{event}\",\"app\":\"site\",\"msg\":\"{msg}\"}}\n")
    }

    #[test]
    fn lines_come_once_whole_and_through_a_rotation() {
        let log = std::env::temp_dir().join(format!("poller-follow-{}.log", std::process::id()));
        let old = renamed(&log);
        std::fs::write(&old, event("r1", "deploy.started", "") + &event("r1", "deploy.output", "one")).unwrap();
        std::fs::write(&log, event("r2", "deploy.output", "another's")).unwrap();
        let files = [&log, &old].map(|path| Source::open(path).unwrap().unwrap());
        let mut tail = Tail {
            app: "site".into(),
            run: "r1".into(),
            files: files.into_iter().rev().collect(),
            lines: Vec::new(),
            began: false,
            ended: false,
        };
        tail.read().unwrap();
        assert_eq!((tail.take_lines(), tail.has_begun()), (vec!["one".to_owned()], true));
        // Half a line is none yet; and the file may be renamed once more meanwhile.
        let mut file = OpenOptions::new().append(true).open(&old).unwrap();
        let two = event("r1", "deploy.output", "two");
        file.write_all(&two.as_bytes()[..20]).unwrap();
        tail.read().unwrap();
        assert!(tail.take_lines().is_empty());
        std::fs::rename(&old, log.with_extension("2")).unwrap();
        file.write_all(&two.as_bytes()[20..]).unwrap();
        file.write_all(event("r1", "deploy.finished", "").as_bytes()).unwrap();
        tail.read().unwrap();
        assert_eq!((tail.take_lines(), tail.has_ended()), (vec!["two".to_owned()], true));
        for path in [log.with_extension("2"), log] {
            std::fs::remove_file(path).unwrap();
        }
    }
}
