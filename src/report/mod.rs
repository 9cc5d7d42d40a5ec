//! What a run tells the world: log lines, a terminal or cron's mail, metrics. A reporter that fails
//! never fails a deploy; only a log that cannot be written stops one before it begins.

pub mod log;
pub mod memory;
pub mod metrics;
pub mod news;
pub mod notify;
pub mod page;
pub mod run;
pub mod terminal;

use std::time::Duration;

/// How many lines of a failed script a report ends with.
pub const LAST_LINES: usize = 20;

/// Text from a commit, a server or a script, made harmless for a terminal and one line long.
pub fn printable(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' => safe.push(' '),
            c if is_treacherous(c) => safe.extend(c.escape_default()),
            c => safe.push(c),
        }
    }
    safe
}

/// Bytes from outside, in a message that goes into journal, log and mail: printable, and no more of them than
/// make sense there.
pub fn excerpt(bytes: &[u8]) -> String {
    const MOST: usize = 1000;
    let cut = &bytes[..bytes.len().min(MOST)];
    let dots = if cut.len() < bytes.len() { "…" } else { "" };
    format!("{}{dots}", printable(&String::from_utf8_lossy(cut)))
}

/// Control characters, and the invisible ones that turn text around.
pub fn is_treacherous(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

/// `1 file`, `2 files`.
pub fn plural(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// A length of time as the configuration writes it: `90s` is `1m30s`.
pub fn duration(time: Duration) -> String {
    let (seconds, milliseconds) = (time.as_secs(), time.subsec_millis());
    let units =
        [(seconds / 3600, "h"), (seconds % 3600 / 60, "m"), (seconds % 60, "s"), (u64::from(milliseconds), "ms")];
    let text: String = units.iter().filter(|(n, _)| *n > 0).map(|(n, unit)| format!("{n}{unit}")).collect();
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_they_are_configured() {
        for (time, text) in [(0, "0s"), (30_000, "30s"), (90_500, "1m30s500ms"), (600_000, "10m"), (5_400_000, "1h30m")]
        {
            assert_eq!(duration(Duration::from_millis(time)), text);
        }
    }

    #[test]
    fn escape_codes_and_turned_text_become_plain_text() {
        assert_eq!(printable("a\x1b[2Jb\r\nc"), r"a\u{1b}[2Jb\r\nc");
        assert_eq!(printable("\u{9b}31m"), r"\u{9b}31m");
        assert_eq!(printable("evil\u{202e}txt"), r"evil\u{202e}txt");
        assert_eq!(printable("grüße → fine"), "grüße → fine");
    }
}
