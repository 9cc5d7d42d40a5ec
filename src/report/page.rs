//! Standard output as a page: aligned columns, sentences below them, and no wider than the terminal.

use std::io::IsTerminal;

use super::terminal::{RESET, Tone, is_colourful};

/// Where a terminal does not say how wide it is.
const WIDTH: usize = 100;
/// Narrower than this, a page is a puzzle.
const NARROWEST: usize = 40;

pub struct Page {
    colour: bool,
    /// None: not a terminal, so that whoever searches the lines finds them whole.
    width: Option<usize>,
}

impl Page {
    pub fn new() -> Page {
        let out = std::io::stdout();
        let width = out.is_terminal().then(|| {
            let told = terminal_size::terminal_size_of(&out).map(|(width, _)| usize::from(width.0));
            told.filter(|width| *width > 0).unwrap_or(WIDTH).max(NARROWEST)
        });
        Page { colour: is_colourful(&out), width }
    }

    pub fn paint(&self, tone: Tone, text: &str) -> String {
        match tone.code() {
            code if self.colour && !code.is_empty() => format!("{code}{text}{RESET}"),
            _ => text.to_owned(),
        }
    }

    /// A sentence below a row: indented, and broken between words.
    pub fn below(&self, tone: Tone, text: &str) -> String {
        let room = self.width.map_or(usize::MAX, |width| width - INDENT.len());
        let (mut lines, mut line) = (Vec::new(), String::new());
        for word in text.split(' ') {
            if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > room {
                lines.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines.push(line);
        lines.iter().map(|line| format!("{INDENT}{}\n", self.paint(tone, line))).collect()
    }

    /// One line below a row, cut where the terminal ends.
    pub fn cut_below(&self, text: &str) -> String {
        let room = self.width.map_or(usize::MAX, |width| width - INDENT.len());
        if text.chars().count() <= room {
            return format!("{INDENT}{text}\n");
        }
        let kept: String = text.chars().take(room - 1).collect();
        format!("{INDENT}{kept}…\n")
    }
}

const INDENT: &str = "  ";

/// Rows as lines, each column as wide as its widest cell; the last one is not filled up.
pub fn columns<const N: usize>(rows: &[[String; N]]) -> Vec<[String; N]> {
    let widest = |n: usize| rows.iter().map(|row| row[n].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(widest);
    let fill = |row: &[String; N]| {
        std::array::from_fn(|n| match n + 1 == N {
            true => row[n].clone(),
            false => format!("{:<width$}  ", row[n], width = widths[n]),
        })
    };
    rows.iter().map(fill).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_are_broken_between_words_and_lines_are_cut() {
        let page = Page { colour: false, width: Some(14) };
        assert_eq!(page.below(Tone::Faint, "one two three four"), "  one two\n  three four\n");
        assert_eq!(page.below(Tone::Faint, "grüßegrüßegrüße x"), "  grüßegrüßegrüße\n  x\n");
        assert_eq!(page.cut_below("one two three four"), "  one two thr…\n");
        assert_eq!(page.cut_below("one two thre"), "  one two thre\n");
        let pipe = Page { width: None, ..page };
        assert_eq!(pipe.below(Tone::Faint, "one two three four"), "  one two three four\n");
        assert_eq!(pipe.cut_below("one two three four"), "  one two three four\n");
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["A", "LAST"], ["é→é", "x"]].map(|row| row.map(str::to_owned));
        let lines: Vec<String> = columns(&rows).iter().map(|row| row.concat()).collect();
        assert_eq!(lines, ["A    LAST", "é→é  x"]);
    }
}
