//! What a script says, kept within bounds: the first and the last part, and a count of the middle.

use std::collections::VecDeque;

/// Bytes kept of the beginning, and again of the end.
const PART: usize = 64 << 10;
/// A longer line is cut into pieces.
const LONGEST_LINE: usize = 8 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    pub fn word(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub stream: Stream,
    pub text: Vec<u8>,
}

/// What the commands before the present one may take of a journal entry.
const PAST: usize = 128 << 10;

/// The lines of both streams in the order in which they came, of one command after another.
#[derive(Debug, Default)]
pub struct Output {
    /// Commands that ended before.
    past: Vec<u8>,
    /// What was said while a failure was cleaned up.
    after: Vec<u8>,
    unfinished: [Vec<u8>; 2],
    head: Vec<Line>,
    head_bytes: usize,
    tail: VecDeque<Line>,
    tail_bytes: usize,
    pub dropped_lines: u64,
    pub dropped_bytes: u64,
}

impl Output {
    /// Another command begins; the bounds are its own.
    pub fn begin(&mut self) {
        let text = self.present();
        let mut past = std::mem::take(&mut self.past);
        if past.len() + text.len() <= PAST {
            past.extend_from_slice(&text);
        } else {
            // The command before is closer to what went wrong than the first one.
            past = [b"\xe2\x80\xa6 earlier output left out \xe2\x80\xa6\n".as_slice(), &text].concat();
        }
        *self = Output { past, ..Output::default() };
    }

    /// Puts another command's output behind, without making it the present one.
    pub fn append(&mut self, other: &Output, title: &str) {
        let text = other.text();
        if text.is_empty() {
            return;
        }
        self.after.extend_from_slice(format!("--- {title}\n").as_bytes());
        self.after.extend_from_slice(&text[..text.len().min(PAST)]);
    }

    /// Takes bytes of one stream; `live` sees each line of the first part as it comes.
    pub fn take(&mut self, stream: Stream, mut bytes: &[u8], live: &mut impl FnMut(&Line)) {
        while !bytes.is_empty() {
            let pending = &mut self.unfinished[stream as usize];
            let room = LONGEST_LINE - pending.len();
            let end = bytes.iter().take(room).position(|&b| b == b'\n');
            let piece = end.unwrap_or(bytes.len().min(room));
            pending.extend_from_slice(&bytes[..piece]);
            bytes = &bytes[piece + usize::from(end.is_some())..];
            if end.is_some() || pending.len() == LONGEST_LINE {
                let text = std::mem::take(pending);
                self.line(Line { stream, text }, live);
            }
        }
    }

    /// Takes what stands in the streams without a final newline.
    pub fn finish(&mut self, live: &mut impl FnMut(&Line)) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let text = std::mem::take(&mut self.unfinished[stream as usize]);
            if !text.is_empty() {
                self.line(Line { stream, text }, live);
            }
        }
    }

    fn line(&mut self, line: Line, live: &mut impl FnMut(&Line)) {
        let size = line.text.len() + 1;
        // Once the tail is begun the head is closed, or a short line would jump the queue.
        if self.tail.is_empty() && self.dropped_lines == 0 && self.head_bytes + size <= PART {
            live(&line);
            self.head_bytes += size;
            self.head.push(line);
            return;
        }
        self.tail_bytes += size;
        self.tail.push_back(line);
        while self.tail_bytes > PART {
            let Some(gone) = self.tail.pop_front() else {
                break;
            };
            self.tail_bytes -= gone.text.len() + 1;
            self.dropped_lines += 1;
            self.dropped_bytes += gone.text.len() as u64 + 1;
        }
    }

    /// The lines that `live` has not seen, once all is over.
    pub fn tail(&self) -> impl Iterator<Item = &Line> {
        self.tail.iter()
    }

    /// A sentence about the middle; None when all was kept.
    pub fn gap(&self) -> Option<String> {
        (self.dropped_lines > 0)
            .then(|| format!("… {} lines ({} bytes) left out …", self.dropped_lines, self.dropped_bytes))
    }

    /// As it goes into the journal.
    pub fn text(&self) -> Vec<u8> {
        [self.past.as_slice(), &self.present(), &self.after].concat()
    }

    fn present(&self) -> Vec<u8> {
        let mut text = Vec::with_capacity(self.head_bytes + self.tail_bytes + 100);
        let mut push = |line: &[u8]| {
            text.extend_from_slice(line);
            text.push(b'\n');
        };
        self.head.iter().for_each(|line| push(&line.text));
        if let Some(gap) = self.gap() {
            push(gap.as_bytes());
        }
        self.tail.iter().for_each(|line| push(&line.text));
        text
    }

    /// The present command's last lines, and what was said while it was cleaned up, for a report.
    pub fn last(&self, count: usize) -> Vec<String> {
        let all: Vec<&Line> = self.head.iter().chain(&self.tail).collect();
        let present = all[all.len().saturating_sub(count)..].iter().map(|line| line.text.as_slice());
        let after: Vec<&[u8]> = self.after.split(|&b| b == b'\n').filter(|line| !line.is_empty()).collect();
        let after = after[after.len().saturating_sub(count)..].iter().copied();
        let show = |line: &[u8]| crate::report::printable(&String::from_utf8_lossy(line));
        present.chain(after).map(show).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(output: &mut Output, lines: usize) -> usize {
        let mut seen = 0;
        for n in 0..lines {
            output.take(Stream::Stdout, format!("line {n}\n").as_bytes(), &mut |_| seen += 1);
        }
        seen
    }

    #[test]
    fn a_little_is_kept_whole_and_in_order() {
        let mut output = Output::default();
        let mut none = |_: &Line| {};
        output.take(Stream::Stdout, b"on", &mut none);
        output.take(Stream::Stderr, b"two\n", &mut none);
        output.take(Stream::Stdout, b"e\nthree", &mut none);
        output.finish(&mut none);
        assert_eq!(output.text(), b"two\none\nthree\n");
        assert_eq!(output.last(2), ["one", "three"]);
        assert_eq!(output.gap(), None);
    }

    #[test]
    fn of_a_lot_the_ends_are_kept_and_the_middle_is_counted() {
        let mut output = Output::default();
        let lines = 100_000;
        let seen = fill(&mut output, lines);
        let text = String::from_utf8(output.text()).unwrap();
        assert!(text.len() < 2 * PART + 200);
        assert!(text.starts_with("line 0\nline 1\n") && text.ends_with("line 99999\n"));
        let kept = text.lines().filter(|l| l.starts_with("line")).count();
        assert_eq!(kept as u64 + output.dropped_lines, lines as u64);
        assert_eq!(seen + output.tail().count(), kept);
    }

    #[test]
    fn each_command_has_bounds_of_its_own_and_all_of_them_together_too() {
        let mut output = Output::default();
        output.take(Stream::Stdout, b"build\n", &mut |_| {});
        output.begin();
        output.take(Stream::Stdout, b"deploy\n", &mut |_| {});
        assert_eq!((output.text(), output.last(5)), (b"build\ndeploy\n".to_vec(), vec!["deploy".to_owned()]));
        for _ in 0..5 {
            output.begin();
            fill(&mut output, 100_000);
        }
        assert!(output.text().len() < PAST + 3 * PART);
    }

    #[test]
    fn a_line_without_end_is_cut() {
        let mut output = Output::default();
        output.take(Stream::Stdout, &vec![b'x'; 3 * LONGEST_LINE + 1], &mut |_| {});
        output.finish(&mut |_| {});
        assert_eq!(
            output.head.iter().map(|l| l.text.len()).collect::<Vec<_>>(),
            [LONGEST_LINE, LONGEST_LINE, LONGEST_LINE, 1]
        );
    }
}
