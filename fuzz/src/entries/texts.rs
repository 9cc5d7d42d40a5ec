//! Text from anywhere that ends up on a terminal, in the log or in a file of ours.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::{assert_printable, text};
use crate::commands::check::schedule;
use crate::processes::output::{Output, Stream};
use crate::remote::wildcard;
use crate::report::{is_treacherous, log, metrics, terminal};

/// One line that a terminal does not obey, the same when it is made printable twice; a log line and a JSON
/// document that say what they were given.
pub fn printable(data: &[u8]) {
    let text = text(data);
    let safe = crate::report::printable(&text);
    assert_printable(&safe);
    assert!(!safe.contains('\n'));
    assert_eq!(crate::report::printable(&safe), safe);
    if !text.contains(|c| c == '\t' || is_treacherous(c)) {
        assert_eq!(safe, text);
    }
    let mut line = Map::new();
    line.insert("msg".into(), text.as_str().into());
    let logged = log::encode(&line);
    assert_printable(&logged);
    assert_eq!(logged.find('\n'), Some(logged.len() - 1));
    assert_eq!(serde_json::from_str::<Map<String, Value>>(&logged).unwrap(), line);
    let document = json!({ text.as_str(): [text.as_str()] });
    let shown = terminal::json_text(&document);
    assert_printable(&shown);
    assert_eq!(serde_json::from_str::<Value>(&shown).unwrap(), document);
}

/// A line of a crontab, or a whole one.
pub fn crontab(data: &[u8]) {
    let text = text(data);
    for line in text.lines() {
        for user in [None, Some("root")] {
            let starts = schedule::starts_poller(line, user);
            assert!(!starts || (line.contains("poller") && !line.trim_start().starts_with('#')));
            assert!(!starts || schedule::starts_poller(&format!("  {line}"), user), "blanks before it are nothing");
        }
        assert!(schedule::starts_poller(&format!("* * * * * root poller; {line}"), Some("root")));
    }
    let traps = |name: &str, mode, text: &str| schedule::traps(&Path::new("/etc/cron.d").join(name), 0, mode, text);
    assert_eq!(traps("poller", 0o644, &text).is_empty(), text.ends_with('\n'));
    if let Some(name) = text.lines().next().filter(|name| !name.contains('/') && !name.is_empty()) {
        for (why, fix) in traps(name, 0o666, "\n") {
            assert!(!why.is_empty() && !fix.is_empty());
        }
    }
}

/// What lies where the metrics go: what is kept of it is what poller itself would have written.
pub fn metrics(data: &[u8]) {
    let written = metrics::render(&metrics::parse(&text(data)));
    assert_printable(&written);
    assert_eq!(metrics::render(&metrics::parse(&written)), written);
}

/// What scripts say: bounded, cut into lines that a terminal does not obey. The first byte says into what
/// pieces it is cut, and whose they are.
pub fn output(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else { return };
    let mut output = Output::default();
    let mut live = 0;
    // More than is kept of one command.
    for _ in 0..(first >> 4) * 4 + 1 {
        for (n, piece) in rest.chunks(usize::from(first & 15) * 64 + 1).enumerate() {
            let stream = if n % 3 == 0 { Stream::Stderr } else { Stream::Stdout };
            output.take(stream, piece, &mut |line| {
                live += 1;
                assert!(line.text.len() <= 8 << 10);
            });
        }
    }
    output.finish(&mut |_| live += 1);
    let text = output.text();
    assert!(text.len() <= (128 << 10) + 200, "{}", text.len());
    assert!(live + output.tail().count() <= text.iter().filter(|&&b| b == b'\n').count());
    output.last(20).iter().for_each(|line| {
        assert_printable(line);
        assert!(!line.contains('\n'));
    });
    let mut next = Output::default();
    next.append(&output, "before");
    output.begin();
    output.begin();
    assert!(output.text().len() <= (128 << 10) + 200 && next.text().len() <= (128 << 10) + 20);
}

/// A pattern and a text, a line each, held against the plainest way to compare them.
pub fn wildcard(data: &[u8]) {
    let text = text(data);
    let (pattern, text) = text.split_once('\n').unwrap_or((&text, ""));
    let fits = wildcard::fits(pattern, text);
    if pattern.len() <= 8 && text.len() <= 24 {
        let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
        assert_eq!(fits, plainly(&pattern, &text));
    }
    assert!(wildcard::fits("*", text));
    assert!(text.contains(['*', '?']) || wildcard::fits(text, text));
}

fn plainly(pattern: &[char], text: &[char]) -> bool {
    match (pattern, text) {
        ([], []) => true,
        (['*', rest @ ..], _) => (0..=text.len()).any(|skip| plainly(rest, &text[skip..])),
        ([wanted, pattern @ ..], [got, text @ ..]) => (*wanted == '?' || wanted == got) && plainly(pattern, text),
        _ => false,
    }
}
