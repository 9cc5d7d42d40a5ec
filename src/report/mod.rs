//! What a run tells the world: log lines, a terminal or cron's mail, metrics. A reporter that fails
//! never fails a deploy; only a log that cannot be written stops one before it begins.

pub mod log;
pub mod memory;
pub mod metrics;
pub mod terminal;

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

/// Control characters, and the invisible ones that turn text around.
pub fn is_treacherous(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_codes_and_turned_text_become_plain_text() {
        assert_eq!(printable("a\x1b[2Jb\r\nc"), r"a\u{1b}[2Jb\r\nc");
        assert_eq!(printable("\u{9b}31m"), r"\u{9b}31m");
        assert_eq!(printable("evil\u{202e}txt"), r"evil\u{202e}txt");
        assert_eq!(printable("grüße → fine"), "grüße → fine");
    }
}
