//! Standard error: what is happening, for somebody who watches; a short report, for cron's mail.

use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use crate::outcome::{Class, Failure, Outcome, exit_code};

/// Whether results were asked for as JSON, whether any were printed, and whether any got lost.
static JSON: AtomicBool = AtomicBool::new(false);
static PRINTED: AtomicBool = AtomicBool::new(false);
static LOST: AtomicBool = AtomicBool::new(false);

/// Standard error, and whether somebody watches it.
pub struct Console {
    watched: bool,
    colour: bool,
    /// Whether a line that is overwritten stands at the cursor.
    transient: Mutex<bool>,
}

/// Results go to standard output. A reader that has seen enough (`| head`) is no error.
pub fn print(text: &str) {
    PRINTED.store(true, Ordering::Relaxed);
    if let Err(e) = std::io::stdout().write_all(text.as_bytes())
        && e.kind() != std::io::ErrorKind::BrokenPipe
    {
        LOST.store(true, Ordering::Relaxed);
        let _ = writeln!(std::io::stderr(), "poller: standard output: {e}");
    }
}

/// A line on standard error. That nobody reads it any more is no reason to end, as `eprintln!` would.
pub fn tell(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Said once, at the begin: `--json` was given.
pub fn expect_json() {
    JSON.store(true, Ordering::Relaxed);
}

/// Whoever asked for JSON gets one document, also of a command that failed before it had results.
pub fn print_failure(failure: &Failure) {
    if JSON.load(Ordering::Relaxed) && !PRINTED.load(Ordering::Relaxed) {
        let error = json!({ "class": failure.class.word(), "message": failure.message, "help": failure.help });
        print_json(&json!({ "schema": 1, "exit": failure.class.exit_code(), "error": error }));
    }
}

/// The exit code of a command that ended with `code`: results that did not get out are no success.
pub fn settled(code: u8) -> u8 {
    if LOST.load(Ordering::Relaxed) { exit_code([code, Class::Io.exit_code()]) } else { code }
}

/// One JSON document. What JSON itself lets through, C1 controls and marks that turn text around, is
/// escaped: somebody may read it on a terminal.
pub fn print_json(document: &serde_json::Value) {
    print(&json_text(document));
}

/// Its text, as it is printed.
pub fn json_text(document: &serde_json::Value) -> String {
    let mut text = String::new();
    for c in format!("{document:#}\n").chars() {
        match c {
            c if c != '\n' && super::is_treacherous(c) => text.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => text.push(c),
        }
    }
    text
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    Plain,
    Good,
    Bad,
    Faint,
}

impl Tone {
    /// What turns it on; `RESET` turns it off.
    pub fn code(self) -> &'static str {
        match self {
            Tone::Plain => "",
            Tone::Good => "\x1b[32m",
            Tone::Bad => "\x1b[31m",
            Tone::Faint => "\x1b[2m",
        }
    }
}

pub const RESET: &str = "\x1b[0m";

/// Whether a stream shows colours: a terminal that can, for somebody who did not say no.
pub fn is_colourful(stream: &impl IsTerminal) -> bool {
    stream.is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
        && std::env::var_os("TERM").is_some_and(|t| t != "dumb")
}

impl Console {
    pub fn new() -> Console {
        let watched = std::io::stderr().is_terminal();
        let colour = is_colourful(&std::io::stderr());
        Console { watched, colour, transient: Mutex::new(false) }
    }

    pub fn is_watched(&self) -> bool {
        self.watched
    }

    /// Which stage an app has reached.
    pub fn progress(&self, app: &str, stage: &str) {
        if self.watched {
            self.line(Tone::Faint, &format!("  {app}: {stage}"));
        }
    }

    /// How far a transfer is; overwritten by what comes next.
    pub fn transfer(&self, app: &str, received: usize, total: usize, bytes: usize) {
        if self.watched {
            let mut transient = self.transient.lock().unwrap_or_else(|e| e.into_inner());
            let text = format!("\r  {app}: fetch: {received} of {total} objects, {} KiB\x1b[K", bytes / 1024);
            *transient = true;
            let _ = std::io::stderr().write_all(text.as_bytes());
        }
    }

    /// Something that only somebody who watches wants to know.
    pub fn note(&self, text: &str) {
        if self.watched {
            self.line(Tone::Plain, text);
        }
    }

    /// A line of a script; the text is printable already.
    pub fn output(&self, app: &str, text: &str) {
        if self.watched {
            self.line(Tone::Plain, &format!("  {app} | {text}"));
        }
    }

    /// How an app ended, for somebody who watches.
    pub fn ended(&self, app: &str, result: &Result<Outcome, Failure>, reference: &str) {
        if !self.watched {
            return;
        }
        match result {
            Ok(Outcome::Unchanged { commit }) => {
                self.line(Tone::Good, &format!("✓ {app}: unchanged, {} {reference}", &commit[..10]))
            }
            Ok(Outcome::Skipped { commit, why }) => {
                self.line(Tone::Plain, &format!("- {app}: {} left alone: {why}", &commit[..10]))
            }
            Ok(Outcome::Deployed { from, to, milliseconds }) => {
                let from = from.as_ref().map_or("nothing", |f| &f[..10]);
                self.line(
                    Tone::Good,
                    &format!(
                        "✓ {app}: deployed {} (before: {from}) in {:.1} s",
                        &to[..10],
                        *milliseconds as f64 / 1000.0
                    ),
                );
            }
            Err(failure) => self.failure(app, failure),
        }
    }

    /// A failure and its remedy.
    pub fn failure(&self, app: &str, failure: &Failure) {
        let mut lines = failure.message.lines();
        self.line(Tone::Bad, &format!("✗ {app}: {}", lines.next().unwrap_or_default()));
        for line in lines {
            self.line(Tone::Plain, &format!("    {line}"));
        }
        for line in &failure.help {
            self.line(Tone::Plain, &format!("    {line}"));
        }
    }

    /// A plain line of a report.
    pub fn say(&self, text: &str) {
        self.line(Tone::Plain, text);
    }

    /// Writes a line, or the lines of a text; whatever it quotes, a terminal does not obey it.
    fn line(&self, tone: Tone, text: &str) {
        let text: Vec<String> = text.lines().map(super::printable).collect();
        let text = text.join("\n");
        let mut transient = self.transient.lock().unwrap_or_else(|e| e.into_inner());
        let clear = if std::mem::take(&mut *transient) { "\r\x1b[K" } else { "" };
        let code = if self.colour { tone.code() } else { "" };
        let reset = if code.is_empty() { "" } else { RESET };
        // Nobody can be told that standard error is gone.
        let _ = std::io::stderr().write_all(format!("{clear}{code}{text}{reset}\n").as_bytes());
    }
}
