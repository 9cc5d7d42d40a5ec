//! What a server sends once a pack was asked for, looked at on its way to libgit2, which believes what
//! a pack says of itself: how many objects there are, how long each is, what a delta makes of its base.
//! It takes memory for all of that before it finds out.
//!
//! Here the packets are taken apart and the objects inflated into nothing, to see that they are as long
//! as they say and that no number is beyond [`LIMITS`]. Deltas are not applied: what they would make is
//! written at their beginning. Whether ids and checksums are right is for libgit2 to say.

use flate2::{Decompress, FlushDecompress, Status};

use super::pkt_line::MAX_PACKET;
use crate::outcome::{Class, Failure};
use crate::report::printable;
use crate::sys::libgit2::LARGEST_OBJECT;

/// What is taken from a server in one fetch.
#[derive(Clone, Copy)]
pub struct Limits {
    /// Objects in a pack; libgit2 keeps some 150 bytes of each.
    pub objects: u32,
    /// Bytes of one object, and of what a delta makes.
    pub object: u64,
    /// Bytes of a pack.
    pub pack: u64,
    /// What a pack may expand to: so many bytes, and so many more for each byte of it. Text is packed to
    /// a fourth or a tenth, zeros to a thousandth.
    pub expanded: u64,
    pub ratio: u64,
    /// Bytes beside the pack: acknowledgements, progress, complaints.
    pub chatter: u64,
}

pub const LIMITS: Limits = Limits {
    objects: 5_000_000,
    object: LARGEST_OBJECT,
    pack: 16 << 30,
    expanded: 4 << 30,
    ratio: 100,
    chatter: 16 << 20,
};

/// Enough of a complaint for a sentence.
const LONGEST_WORDS: usize = 500;
const HEADER: usize = 12;
const TRAILER: usize = 20;

pub struct Guard {
    limits: Limits,
    frame: Frame,
    chatter: u64,
    /// A complaint so far.
    words: Vec<u8>,
    pack: Pack,
}

/// Where in the framing the stream stands.
enum Frame {
    /// Some of a packet's four digits.
    Head(Vec<u8>),
    /// Bytes left of a packet; the first of them says what it is.
    Body { left: usize, kind: Option<u8> },
    /// A server without side bands sends its pack bare, to the end of the stream.
    Bare,
}

impl Guard {
    pub fn new(limits: Limits) -> Guard {
        Guard { limits, frame: Frame::Head(Vec::new()), chatter: 0, words: Vec::new(), pack: Pack::new(limits) }
    }

    /// Looks at the next bytes of the stream. After a failure the stream must not be read on.
    pub fn look(&mut self, mut bytes: &[u8]) -> Result<(), Failure> {
        while !bytes.is_empty() {
            match &mut self.frame {
                Frame::Bare => return self.pack.look(bytes),
                Frame::Head(digits) => {
                    let (taken, rest) = bytes.split_at(bytes.len().min(4 - digits.len()));
                    digits.extend_from_slice(taken);
                    bytes = rest;
                    self.chatter += taken.len() as u64;
                    if digits.len() == 4 {
                        self.frame = after(digits)?;
                        if matches!(self.frame, Frame::Bare) {
                            self.pack.look(b"PACK")?;
                        }
                    }
                }
                Frame::Body { left, kind } => {
                    let (mut taken, rest) = bytes.split_at(bytes.len().min(*left));
                    bytes = rest;
                    *left -= taken.len();
                    if kind.is_none() {
                        *kind = Some(taken[0]);
                        taken = &taken[1..];
                    }
                    let (kind, ended) = (*kind, *left == 0);
                    if kind == Some(1) {
                        self.pack.look(taken)?;
                    } else {
                        self.chatter += taken.len() as u64;
                    }
                    if let Some(3 | b'E') = kind {
                        let room = LONGEST_WORDS.saturating_sub(self.words.len());
                        self.words.extend_from_slice(&taken[..taken.len().min(room)]);
                    }
                    if ended {
                        self.frame = Frame::Head(Vec::new());
                        self.hear_out(kind)?;
                    }
                }
            }
            if self.chatter > self.limits.chatter {
                return Err(Failure::new(Class::Protocol, "the server talks without end instead of sending a pack"));
            }
        }
        Ok(())
    }
}

impl Guard {
    /// A complaint ends the transfer. libgit2 passes over it and waits for a pack.
    fn hear_out(&mut self, kind: Option<u8>) -> Result<(), Failure> {
        let words = std::mem::take(&mut self.words);
        let words = match kind {
            Some(3) => &words[..],
            Some(b'E') => words.strip_prefix(b"RR ").unwrap_or(&words),
            _ => return Ok(()),
        };
        let said = printable(String::from_utf8_lossy(words).trim());
        Err(Failure::new(Class::Protocol, format!("the server gave up: {said}"))
            .help("nothing was changed; the next poll tries again"))
    }
}

fn after(digits: &[u8]) -> Result<Frame, Failure> {
    if digits == b"PACK" {
        return Ok(Frame::Bare);
    }
    let length = std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()));
    match length.and_then(|text| usize::from_str_radix(text, 16).ok()) {
        Some(0 | 4) => Ok(Frame::Head(Vec::new())),
        Some(length @ 5..=MAX_PACKET) => Ok(Frame::Body { left: length - 4, kind: None }),
        _ => {
            let seen = digits.escape_ascii();
            Err(Failure::new(
                Class::Protocol,
                format!("this is not git's protocol; where a packet was due stood: {seen}"),
            ))
        }
    }
}

/// Where in a pack the stream stands.
enum Part {
    Header(Vec<u8>),
    /// The length and the kind of an object, bit by bit.
    Object {
        kind: Option<u8>,
        size: u64,
        shift: u32,
    },
    /// Where a delta's base is: so many bytes of an id, or a distance, whose last byte has no high bit.
    BaseId(usize),
    BaseDistance,
    Data,
    Trailer(usize),
    Over,
}

struct Pack {
    limits: Limits,
    part: Part,
    /// Objects that are still to come.
    left: u32,
    received: u64,
    expanded: u64,
    inflate: Decompress,
    scratch: Vec<u8>,
    delta: bool,
    size: u64,
    made: u64,
    /// The beginning of a delta, where its base's size and its own are.
    beginning: Vec<u8>,
}

impl Pack {
    fn new(limits: Limits) -> Pack {
        Pack {
            limits,
            part: Part::Header(Vec::new()),
            left: 0,
            received: 0,
            expanded: 0,
            inflate: Decompress::new(true),
            scratch: vec![0; 32 << 10],
            delta: false,
            size: 0,
            made: 0,
            beginning: Vec::new(),
        }
    }

    fn look(&mut self, mut bytes: &[u8]) -> Result<(), Failure> {
        self.received += bytes.len() as u64;
        if self.received > self.limits.pack {
            return Err(too_much(format!("the pack has more than {} MiB", self.limits.pack >> 20)));
        }
        while let Some((&byte, rest)) = bytes.split_first() {
            match &mut self.part {
                Part::Data => {
                    bytes = self.data(bytes)?;
                    continue;
                }
                Part::Header(header) => {
                    header.push(byte);
                    if header.len() == HEADER {
                        let header = std::mem::take(header);
                        self.header(&header)?;
                    }
                }
                Part::Object { kind, size, shift } => {
                    let bits = if kind.is_none() { byte & 15 } else { byte & 127 };
                    if *shift > 57 {
                        return Err(damaged("an object's length has no end"));
                    }
                    *size |= u64::from(bits) << *shift;
                    *shift += if kind.is_none() { 4 } else { 7 };
                    let kind = *kind.get_or_insert(byte >> 4 & 7);
                    if byte & 128 == 0 {
                        let size = *size;
                        self.object(kind, size)?;
                    }
                }
                Part::BaseId(left) => {
                    *left -= 1;
                    if *left == 0 {
                        self.part = Part::Data;
                    }
                }
                Part::BaseDistance => {
                    if byte & 128 == 0 {
                        self.part = Part::Data;
                    }
                }
                Part::Trailer(left) => {
                    *left -= 1;
                    if *left == 0 {
                        self.part = Part::Over;
                    }
                }
                Part::Over => return Err(damaged("it goes on after its end")),
            }
            bytes = rest;
        }
        Ok(())
    }

    fn header(&mut self, header: &[u8]) -> Result<(), Failure> {
        let count = header[8..].iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte));
        if !header.starts_with(b"PACK") {
            return Err(damaged("it does not begin like one"));
        }
        if count > self.limits.objects {
            let most = self.limits.objects;
            return Err(too_much(format!("the pack has {count} objects, more than the {most} that poller takes")));
        }
        self.left = count;
        self.next();
        Ok(())
    }

    fn next(&mut self) {
        self.part = match self.left {
            0 => Part::Trailer(TRAILER),
            _ => Part::Object { kind: None, size: 0, shift: 0 },
        };
    }

    fn object(&mut self, kind: u8, size: u64) -> Result<(), Failure> {
        self.part = match kind {
            1..=4 => Part::Data,
            6 => Part::BaseDistance,
            7 => Part::BaseId(20),
            _ => return Err(damaged("an object is of no known kind")),
        };
        self.delta = kind > 4;
        (self.size, self.made) = (size, 0);
        self.beginning.clear();
        self.inflate.reset(true);
        self.bounded(size)
    }

    fn bounded(&self, size: u64) -> Result<(), Failure> {
        let most = self.limits.object;
        if size > most {
            return Err(too_much(format!(
                "the pack has an object of {size} bytes, more than the {most} that poller takes"
            )));
        }
        Ok(())
    }

    /// Inflates, and returns what does not belong to this object any more.
    fn data<'b>(&mut self, mut bytes: &'b [u8]) -> Result<&'b [u8], Failure> {
        loop {
            let (read, made) = (self.inflate.total_in(), self.inflate.total_out());
            let status = self.inflate.decompress(bytes, &mut self.scratch, FlushDecompress::None);
            let status = status.map_err(|_| damaged("an object cannot be inflated"))?;
            let (read, made) = (self.inflate.total_in() - read, self.inflate.total_out() - made);
            bytes = &bytes[usize::try_from(read).unwrap_or(bytes.len())..];
            self.inflated(usize::try_from(made).unwrap_or(0))?;
            if matches!(status, Status::StreamEnd) {
                if self.made != self.size {
                    return Err(damaged("an object is shorter than it says"));
                }
                if self.delta && !self.delta_is_bounded()? {
                    return Err(damaged("a delta has no beginning"));
                }
                self.left -= 1;
                self.next();
                return Ok(bytes);
            }
            // A full scratch may mean that there is more to come out of what was read.
            if bytes.is_empty() && made < self.scratch.len() as u64 {
                return Ok(bytes);
            }
            if read == 0 && made == 0 {
                return Err(damaged("an object cannot be inflated"));
            }
        }
    }

    fn inflated(&mut self, made: usize) -> Result<(), Failure> {
        self.made += made as u64;
        self.expanded += made as u64;
        if self.made > self.size {
            return Err(damaged("an object is longer than it says"));
        }
        if self.expanded > self.limits.expanded + self.limits.ratio.saturating_mul(self.received) {
            let shown = self.expanded >> 20;
            return Err(too_much(format!("the pack expands beyond measure, to more than {shown} MiB")));
        }
        if self.delta && self.beginning.len() < 20 {
            let wanted = made.min(20 - self.beginning.len());
            self.beginning.extend_from_slice(&self.scratch[..wanted]);
            self.delta_is_bounded()?;
        }
        Ok(())
    }

    /// Whether both sizes at the beginning of a delta have come; an error if one is too large.
    fn delta_is_bounded(&self) -> Result<bool, Failure> {
        let mut rest = &self.beginning[..];
        for _ in 0..2 {
            let Some(end) = rest.iter().position(|byte| byte & 128 == 0) else {
                return if rest.len() > 9 { Err(damaged("a delta's length has no end")) } else { Ok(false) };
            };
            if end > 8 {
                return Err(damaged("a delta's length has no end"));
            }
            self.bounded(rest[..=end].iter().rev().fold(0, |size, byte| size << 7 | u64::from(byte & 127)))?;
            rest = &rest[end + 1..];
        }
        Ok(true)
    }
}

fn damaged(what: &str) -> Failure {
    Failure::new(Class::Protocol, format!("the pack that the server sent is damaged: {what}"))
        .help("if it stays so, run git fsck on the server")
}

fn too_much(what: String) -> Failure {
    Failure::new(Class::Refused, what).help("nothing was kept; files of that size do not belong in git")
}

#[cfg(test)]
mod tests;
