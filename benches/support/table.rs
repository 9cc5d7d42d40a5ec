//! The rows as tables in Markdown.

use std::fmt::Write as _;

use super::measure::Summary;
use super::rows::Results;

const HEAD: &str =
    "wall, ms | middle half | CPU, ms | memory, MiB | on the wire, KiB | system calls | wall × | CPU × |";

pub fn of_group(title: &str, rows: &[Results]) -> String {
    let mut text = format!("### {title}\n");
    for row in rows {
        write!(text, "\n| {} | {HEAD}\n|{}\n", row.title, " --- |".to_owned() + &" ---: |".repeat(8)).expect("text");
        let first = row.contestants[0].1;
        for (name, summary) in &row.contestants {
            text += &line(name, summary, &first);
        }
        text += &kept(row);
    }
    text
}

fn line(name: &str, it: &Summary, first: &Summary) -> String {
    let maybe = |value: Option<String>| value.unwrap_or_else(|| "–".to_owned());
    let seen = it.seen.as_ref();
    let memory = seen.map(|s| format!("{:.1} ({:.1})", mebibytes(s.memory), mebibytes(s.shared_once)));
    let cells = [
        format!("{:.1}", it.wall),
        format!("{:.1}–{:.1}", it.quarter, it.three_quarters),
        maybe(it.cpu.map(|cpu| format!("{cpu:.1}"))),
        maybe(memory),
        maybe(seen.filter(|s| s.bytes > 0).map(|s| format!("{:.1}", s.bytes as f64 / 1024.0))),
        maybe(seen.filter(|s| s.syscalls > 0).map(|s| grouped(s.syscalls))),
        format!("{:.2}", it.wall / first.wall),
        maybe(it.cpu.zip(first.cpu).map(|(it, first)| format!("{:.2}", it / first))),
    ];
    format!("| {name} | {} |\n", cells.join(" | "))
}

/// In a line below the table, where something is kept.
fn kept(row: &Results) -> String {
    let mut text = String::new();
    for (name, summary) in &row.contestants {
        let Some(disk) = summary.disk else { continue };
        let [repository, published] = [disk.repository, disk.published].map(|bytes| bytes as f64 / 1024.0 / 1024.0);
        writeln!(text, "\n{name}: {repository:.2} MiB of repository, {published:.2} MiB of published files.")
            .expect("text");
    }
    text
}

fn mebibytes(kibibytes: u64) -> f64 {
    kibibytes as f64 / 1024.0
}

/// With commas.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
