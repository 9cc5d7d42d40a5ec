//! The messages between poller's processes, and the frames they travel in.
//!
//! A frame is a length (u32, big endian), a kind (one byte) and a body. Requests and replies are JSON
//! in frames of the kind [`MESSAGE`]; a tree travels from fetcher to stager in frames of the other
//! kinds, raw. The supervisor trusts neither side: a frame is bounded, and what does not parse ends
//! the helper.

use std::io::{self, Read, Write};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A JSON message.
pub const MESSAGE: u8 = b'M';

/// With an end of file: who sent it has ended.
const CUT_SHORT: &str = "the stream ended within a frame";

/// The longest frame. A journal entry with its output fits many times over.
const LONGEST: usize = 16 << 20;

pub fn send<T: Serialize>(to: &mut impl Write, message: &T) -> Result<()> {
    let body = serde_json::to_vec(message).context("putting a message together")?;
    ensure!(body.len() <= LONGEST, "a message of {} bytes, and {LONGEST} is the most", body.len());
    write_frame(to, MESSAGE, &[&body]).context("sending a message to another of poller's processes")
}

/// None at the end of the stream.
pub fn receive<T: DeserializeOwned>(from: &mut impl Read) -> Result<Option<T>> {
    let mut body = Vec::new();
    match read_frame(from, &mut body)? {
        None => Ok(None),
        Some(MESSAGE) => Ok(Some(serde_json::from_slice(&body).context("a message that is none")?)),
        Some(other) => bail!("a frame of the kind {other} where a message was due"),
    }
}

/// Writes one frame whose body is the parts one after another, for a reader that waits for it.
pub fn write_frame(to: &mut impl Write, kind: u8, parts: &[&[u8]]) -> io::Result<()> {
    let mut frame = Vec::with_capacity(5 + parts.iter().map(|part| part.len()).sum::<usize>());
    put_frame(&mut frame, kind, parts)?;
    // One write a frame: the reader wakes once.
    to.write_all(&frame)?;
    to.flush()
}

/// The same for one of many: `to` collects them, and is flushed after the last.
pub fn put_frame(to: &mut impl Write, kind: u8, parts: &[&[u8]]) -> io::Result<()> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let length = u32::try_from(length).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    to.write_all(&length.to_be_bytes())?;
    to.write_all(&[kind])?;
    parts.iter().try_for_each(|part| to.write_all(part))
}

/// Reads one frame's body into `body` and returns its kind; None at the end of the stream.
pub fn read_frame(from: &mut impl Read, body: &mut Vec<u8>) -> Result<Option<u8>> {
    let mut head = [0; 5];
    let mut filled = 0;
    while filled < head.len() {
        match from.read(&mut head[filled..]) {
            Ok(0) if filled == 0 => return Ok(None),
            Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof)).context(CUT_SHORT),
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e.into()),
        }
    }
    let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
    ensure!(length <= LONGEST, "a frame of {length} bytes");
    body.resize(length, 0);
    from.read_exact(body).context(CUT_SHORT)?;
    Ok(Some(head[4]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_comes_through_and_the_end_is_none() {
        let mut pipe = Vec::new();
        send(&mut pipe, &("a", 1)).unwrap();
        let mut reader = pipe.as_slice();
        assert_eq!(receive::<(String, u32)>(&mut reader).unwrap(), Some(("a".into(), 1)));
        assert_eq!(receive::<(String, u32)>(&mut reader).unwrap(), None);
    }

    #[test]
    fn a_frame_cut_short_or_too_long_is_an_error() {
        let mut pipe = Vec::new();
        send(&mut pipe, &"hello").unwrap();
        for length in 1..pipe.len() {
            assert!(receive::<String>(&mut &pipe[..length]).is_err(), "cut at {length}");
        }
        assert!(receive::<String>(&mut [0xff; 16].as_slice()).is_err());
        let error = send(&mut Vec::new(), &"x".repeat(LONGEST)).unwrap_err();
        assert!(error.to_string().contains("is the most"), "{error}");
    }
}
