//! What is wrong with a configuration file, and where: the file, the line with carets under the span, and the remedy.
//!
//! A check knows what is wrong ([`Fault`]); only the reader of the file knows where ([`Problem`]). Faults travel through
//! serde as text, the message first and one line of help after it each, because that is all that a deserializer's error
//! carries. Everything shown is one line of printable characters: a value in a file can't forge a line or a terminal code.

use std::fmt::{self, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::secrets;
use crate::near::near;

/// What is wrong, not yet where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    message: String,
    help: Vec<String>,
}

impl Fault {
    pub fn new(message: impl AsRef<str>) -> Fault {
        Fault { message: printable(message.as_ref()), help: Vec::new() }
    }

    /// Adds a line that says what to do about it.
    pub fn help(mut self, line: impl AsRef<str>) -> Fault {
        self.help.push(printable(line.as_ref()));
        self
    }

    /// Without the value that was found: only what kind it is of.
    fn without_value(mut self) -> Fault {
        if let Some((_, found)) = self.message.split_once(", found ")
            && let Some(at) = found.find(['`', '"'])
        {
            let kind = self.message.len() - found.len() + at;
            self.message.truncate(kind);
            self.message.truncate(self.message.trim_end().len());
        }
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.help.iter().try_for_each(|line| write!(f, "\n{line}"))
    }
}

/// A fault in a file. Its `Display` is for people, several lines long and without a newline at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem(Box<Located>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Located {
    file: PathBuf,
    place: Option<Place>,
    fault: Fault,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    line: usize,
    column: usize,
    shown: String,
    indent: usize,
    carets: usize,
}

impl Problem {
    /// `span` counts bytes of `text`, as toml does; without one, the problem is with the file as a whole.
    pub fn new(file: &Path, text: &str, span: Option<Range<usize>>, fault: Fault) -> Problem {
        Problem(Box::new(Located { file: file.to_owned(), place: span.map(|span| Place::find(text, span)), fault }))
    }

    pub fn from_toml(file: &Path, text: &str, error: &toml::de::Error) -> Problem {
        let fault = reworded(error.message());
        let is_secret = error.span().is_some_and(|span| secrets::is_environment(text, span.start));
        Problem::new(file, text, error.span(), if is_secret { fault.without_value() } else { fault })
    }
}

/// The parts, for tests: everything else reads the text.
#[cfg(test)]
impl Problem {
    pub fn file(&self) -> &Path {
        &self.0.file
    }

    /// The first line is 1; none where the file as a whole is meant.
    pub fn line(&self) -> Option<usize> {
        self.0.place.as_ref().map(|place| place.line)
    }

    /// In characters, the first is 1.
    pub fn column(&self) -> Option<usize> {
        self.0.place.as_ref().map(|place| place.column)
    }

    pub fn message(&self) -> &str {
        &self.0.fault.message
    }

    pub fn help(&self) -> &[String] {
        &self.0.fault.help
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", printable(&self.0.file.to_string_lossy()))?;
        let mut gutter = 1;
        if let Some(place) = &self.0.place {
            write!(f, "{}:{}:", place.line, place.column)?;
            gutter = place.line.to_string().len();
        }
        write!(f, " {}", self.0.fault.message)?;
        if let Some(place) = &self.0.place {
            write!(f, "\n{:gutter$} |", "")?;
            write!(f, "\n{} | {}", place.line, place.shown)?;
            let (indent, carets) = (place.indent, "^".repeat(place.carets));
            write!(f, "\n{:gutter$} | {:indent$}{carets}", "", "")?;
        }
        let mut help = self.0.fault.help.iter();
        help.try_for_each(|line| write!(f, "\n{:gutter$} = {line}", ""))
    }
}

impl std::error::Error for Problem {}

impl Place {
    fn find(text: &str, span: Range<usize>) -> Place {
        let start = boundary_at_or_before(text, span.start);
        let end = boundary_at_or_before(text, span.end).max(start);
        let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |n| start + n);
        let before = &text[line_start..start];
        let marked = text[start..end.min(line_end)].trim_end_matches('\r');
        let indent = rendered(before);
        let line = text[line_start..line_end].trim_end_matches('\r');
        let line = secrets::struck_out(text, line_start, line);
        Place {
            line: text[..line_start].matches('\n').count() + 1,
            column: before.chars().count() + 1,
            shown: rendered(&line),
            indent: width(&indent),
            // At the end of a line or of the file there is nothing to underline, but still a place to point at.
            carets: width(&rendered(marked)).max(1),
        }
    }
}

pub(super) fn boundary_at_or_before(text: &str, index: usize) -> usize {
    let index = index.min(text.len());
    (0..=index).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0)
}

/// A source line as it is shown: a tab would be as wide as the terminal likes, so it becomes spaces.
fn rendered(text: &str) -> String {
    printable(&text.replace('\t', "    "))
}

/// Control characters, and those that reorder or hide text, become visible escapes.
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if crate::report::is_treacherous(c) {
            let _ = write!(out, "{}", c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// Terminal columns, near enough to put a caret under the right place: East Asian text and pictures are two columns wide,
/// combining accents none.
pub(super) fn width(text: &str) -> usize {
    text.chars()
        .map(|c| match u32::from(c) {
            0x0300..=0x036f | 0xfe00..=0xfe0f => 0,
            0x1100..=0x115f | 0x2e80..=0xa4cf | 0xac00..=0xd7a3 | 0xf900..=0xfaff => 2,
            0xfe30..=0xfe6f | 0xff00..=0xff60 | 0xffe0..=0xffe6 => 2,
            0x1f300..=0x1faff | 0x20000..=0x3fffd => 2,
            _ => 1,
        })
        .sum()
}

/// serde speaks of fields, variants, sequences and maps; the reader of a TOML file knows keys, values, arrays and tables.
fn reworded(message: &str) -> Fault {
    for (prefix, noun) in [("unknown field `", "key"), ("unknown variant `", "value")] {
        // A key may hold any text, so what follows it is searched from the end.
        if let Some((name, known)) = message.strip_prefix(prefix).and_then(|rest| rest.rsplit_once("`, expected ")) {
            return unknown(noun, name, known);
        }
    }
    if let Some((found, expected)) =
        message.strip_prefix("invalid type: ").and_then(|rest| rest.rsplit_once(", expected "))
    {
        return wrong_type(found, expected);
    }
    if message == "wanted string or table" {
        return Fault::new("expected a string");
    }
    if message.starts_with("unexpected leading zero") {
        return Fault::new("a number has no zero in front").help("write octal digits as a string, such as \"022\"");
    }
    let mut lines = message.lines();
    let fault = Fault::new(lines.next().unwrap_or_default());
    lines.fold(fault, Fault::help)
}

fn unknown(noun: &str, name: &str, known: &str) -> Fault {
    let known: Vec<&str> = known.split('`').skip(1).step_by(2).collect();
    let list = known.iter().map(|key| format!("`{key}`"));
    let list = list.collect::<Vec<_>>().join(", ");
    let mut fault = Fault::new(format!("unknown {noun} `{name}`"));
    fault = fault.help(match known.len() {
        1 => format!("expected {list}"),
        _ => format!("expected one of: {list}"),
    });
    match near(name, &known) {
        Some(key) => fault.help(format!("did you mean `{key}`?")),
        None => fault,
    }
}

fn wrong_type(found: &str, expected: &str) -> Fault {
    let found = match found {
        "map" => "a table",
        "sequence" => "an array",
        other => other,
    };
    let expected = match expected {
        "a sequence" => "an array",
        "a map" => "a table",
        other => other,
    };
    let fault = Fault::new(format!("expected {expected}, found {found}"));
    let scalar = ["integer", "floating point", "boolean"];
    if expected == "a string" && scalar.iter().any(|kind| found.starts_with(kind)) {
        return fault.help("write it in quotes");
    }
    fault
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, span: Range<usize>) -> String {
        Problem::new(Path::new("f.toml"), text, Some(span), Fault::new("no")).to_string()
    }

    #[test]
    fn a_value_that_was_found_is_left_out() {
        for (message, expected) in [
            ("expected a string, found integer `80`", "expected a string, found integer"),
            ("expected a table, found string \"s3cr\"", "expected a table, found string"),
            ("expected a string, found an array", "expected a string, found an array"),
        ] {
            assert_eq!(Fault::new(message).without_value().message, expected);
        }
    }

    #[test]
    fn tabs_and_wide_characters_before_the_span_do_not_shift_the_caret() {
        assert_eq!(shown("a = 1\n\té漢= bad\r\n", 14..17), "f.toml:2:6: no\n  |\n2 |     é漢= bad\n  |          ^^^");
    }

    #[test]
    fn control_characters_of_the_line_are_shown_escaped() {
        assert_eq!(
            shown("k = \u{1b}[31mx\u{202e}", 9..10),
            "f.toml:1:10: no\n  |\n1 | k = \\u{1b}[31mx\\u{202e}\n  |               ^"
        );
    }

    #[test]
    fn a_span_of_several_lines_is_underlined_on_the_first() {
        assert_eq!(shown("k = [\n 1,\n]\n", 4..12), "f.toml:1:5: no\n  |\n1 | k = [\n  |     ^");
    }

    #[test]
    fn the_gutter_grows_with_the_line_number_and_the_end_of_file_has_a_place() {
        let text = "\n".repeat(11);
        assert_eq!(shown(&text, 11..11), "f.toml:12:1: no\n   |\n12 | \n   | ^");
        assert_eq!(shown("é", 1..9), "f.toml:1:1: no\n  |\n1 | é\n  | ^");
    }

    #[test]
    fn serde_words_become_toml_words() {
        for (message, expected) in [
            ("invalid type: map, expected a string", "expected a string, found a table"),
            (
                "invalid type: integer `1`, expected a string",
                "expected a string, found integer `1`\nwrite it in quotes",
            ),
            (
                "unknown variant `inplace`, expected `releases` or `in-place`",
                "unknown value `inplace`\nexpected one of: `releases`, `in-place`\ndid you mean `in-place`?",
            ),
            ("unknown field `a\nb`, expected `textfile`", "unknown key `a\\nb`\nexpected `textfile`"),
            ("first\nsecond", "first\nsecond"),
        ] {
            assert_eq!(reworded(message).to_string(), expected);
        }
    }
}
