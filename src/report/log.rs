//! The log: one JSON object a line, appended with one write each.
//!
//! The writer is tracing-appender's, blocking: its non-blocking one loses lines in short runs. Each
//! run opens the file anew, so logrotate needs no signal and no copytruncate.

use std::fmt::{Debug, Write as _};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, fchown};
use std::path::Path;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use jiff::Timestamp;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_appender::rolling::{RollingFileAppender, Rotation};
use tracing_subscriber::layer::{Context as LayerContext, Layer, SubscriberExt};

/// The target of all of poller's own events; nothing else gets into the log.
pub const TARGET: &str = "poller";

/// Writes one event to the log: `event!(INFO, "poll.unchanged", app = …; "nothing new")`.
#[macro_export]
macro_rules! event {
    ($level:ident, $name:expr $(, $key:ident = $value:expr)* ; $($message:tt)+) => {
        tracing::event!(target: "poller", tracing::Level::$level, event = $name $(, $key = $value)*, $($message)+)
    };
}

/// Whether every line so far was written, for the stages that must not go on without a log.
#[derive(Clone, Default)]
pub struct Health(Arc<Mutex<Option<String>>>);

impl Health {
    pub fn error(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(|e| e.into_inner()).clone()
    }
}

/// Opens the log and makes it the place where events go.
pub fn open(path: &Path, run: &str, verbose: bool) -> Result<Health> {
    // The appender would make the file with the process's umask and panic where it cannot: make it here.
    let file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o640)
        .custom_flags(nix::libc::O_NOFOLLOW)
        .open(path)
        .with_context(|| path.display().to_string())?;
    end_torn_line(&file).with_context(|| path.display().to_string())?;
    let folder = path.parent().context("a log without a folder")?;
    // Whoever may read the folder may read the log: on Debian the group adm.
    if file.metadata()?.len() == 0 && nix::unistd::Uid::effective().is_root() {
        let group = std::fs::metadata(folder)?.gid();
        fchown(&file, None, Some(group)).with_context(|| path.display().to_string())?;
    }
    let name = path.file_name().and_then(|n| n.to_str()).context("a log file's name that is not UTF-8")?;
    let appender = RollingFileAppender::builder()
        .rotation(Rotation::NEVER)
        .filename_prefix(name)
        .build(folder)
        .with_context(|| path.display().to_string())?;
    let health = Health::default();
    let layer = JsonLines {
        run: run.to_owned(),
        level: if verbose { Level::DEBUG } else { Level::INFO },
        to: Mutex::new(Lines { file: appender, is_torn: false }),
        health: health.clone(),
    };
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer))
        .context("the log was opened twice")?;
    Ok(health)
}

/// A power cut or a full disk can leave the last line without its end. The next one is not to suffer for it.
fn end_torn_line(mut file: &File) -> Result<()> {
    let is_torn = || -> Result<Option<u64>> {
        let length = file.metadata()?.len();
        let mut last = [0];
        let torn = length > 0 && file.read_at(&mut last, length - 1)? == 1 && last[0] != b'\n';
        Ok(torn.then_some(length))
    };
    let Some(before) = is_torn()? else { return Ok(()) };
    // Another run may be in the middle of a long line: then it is longer, or whole, a moment later.
    std::thread::sleep(std::time::Duration::from_millis(20));
    if is_torn()? == Some(before) {
        file.write_all(b"\n")?;
    }
    Ok(())
}

struct JsonLines {
    run: String,
    level: Level,
    to: Mutex<Lines<RollingFileAppender>>,
    health: Health,
}

struct Lines<W> {
    file: W,
    /// The last line is without its end, for want of room.
    is_torn: bool,
}

impl<W: Write> Lines<W> {
    /// One write a line: with O_APPEND, lines of two runs never mix.
    fn put(&mut self, line: &str) -> std::io::Result<()> {
        let whole = if self.is_torn { format!("\n{line}") } else { line.to_owned() };
        let mut rest = whole.as_bytes();
        while !rest.is_empty() {
            match self.file.write(rest) {
                Ok(0) => return Err(std::io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    rest = &rest[written..];
                    self.is_torn = !rest.is_empty();
                }
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

impl<S: Subscriber> Layer<S> for JsonLines {
    fn on_event(&self, event: &Event<'_>, _: LayerContext<'_, S>) {
        let metadata = event.metadata();
        if metadata.target() != TARGET || *metadata.level() > self.level {
            return;
        }
        let mut line = Map::new();
        line.insert("ts".into(), format!("{:.6}", Timestamp::now()).into());
        line.insert("level".into(), metadata.level().as_str().to_lowercase().into());
        line.insert("run".into(), self.run.as_str().into());
        event.record(&mut Fields(&mut line));
        let text = encode(&line);
        let mut to = self.to.lock().unwrap_or_else(|e| e.into_inner());
        if let Err(e) = to.put(&text) {
            self.health.0.lock().unwrap_or_else(|e| e.into_inner()).get_or_insert(e.to_string());
        }
    }
}

/// JSON on one line, without anything that a terminal would obey when somebody looks at the file.
pub fn encode(line: &Map<String, Value>) -> String {
    let json = serde_json::to_string(line).unwrap_or_default();
    let mut text = String::with_capacity(json.len() + 1);
    for c in json.chars() {
        // JSON itself lets DEL, C1 controls and direction marks through as they are.
        if super::is_treacherous(c) {
            let _ = write!(text, "\\u{:04x}", u32::from(c));
        } else {
            text.push(c);
        }
    }
    text.push('\n');
    text
}

struct Fields<'a>(&'a mut Map<String, Value>);

impl Fields<'_> {
    fn put(&mut self, field: &Field, value: Value) {
        let name = if field.name() == "message" { "msg" } else { field.name() };
        self.0.insert(name.to_owned(), value);
    }
}

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.put(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file on a disk with so much room.
    struct Disk {
        text: Vec<u8>,
        room: usize,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let fits = bytes.len().min(self.room);
            if fits == 0 {
                return Err(std::io::ErrorKind::StorageFull.into());
            }
            self.text.extend_from_slice(&bytes[..fits]);
            self.room -= fits;
            Ok(fits)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_for_which_there_was_no_room_takes_no_other_with_it() {
        for room in 0..5 {
            let mut lines = Lines { file: Disk { text: Vec::new(), room: 4 + room }, is_torn: false };
            lines.put("one\n").unwrap();
            assert_eq!(lines.put("second\n").unwrap_err().kind(), std::io::ErrorKind::StorageFull);
            lines.put("third\n").unwrap_err();
            lines.file.room = 100;
            lines.put("last\n").unwrap();
            let text = String::from_utf8(lines.file.text).unwrap();
            assert!(text.starts_with("one\n") && text.ends_with("\nlast\n"), "{text:?}");
        }
    }

    #[test]
    fn what_a_script_says_cannot_forge_a_line_or_a_terminal_code() {
        let mut line = Map::new();
        line.insert("msg".into(), "a\n{\"forged\":1}\x1b[2J\u{9b}m\x7f\u{202e}".into());
        let text = encode(&line);
        assert_eq!(text.matches('\n').count(), 1);
        assert!(text.trim_end().chars().all(|c| !super::super::is_treacherous(c)));
        let back: Map<String, Value> = serde_json::from_str(&text).unwrap();
        assert_eq!(back, line);
    }
}
