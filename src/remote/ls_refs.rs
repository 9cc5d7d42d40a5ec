//! Asks a git server for the tips of a few references, over a stream on which its
//! upload-pack has been started. Version 2 of the protocol filters on the server,
//! so that the answer stays small however many references there are; versions 0
//! and 1, which list everything, are read for servers that know no better.
//!
//! All that comes in is the word of a server: bounded in size, names and ids
//! checked, texts escaped before anyone shows them.

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};

use super::pkt_line::{self, Packet};
pub use super::versions::highest;
use super::{versions, wildcard};
use crate::report::printable;

/// Bytes read before a server is taken to list for ever.
const MAX_READ: usize = 64 << 20;
/// Bytes that the references take which are kept: a pattern may fit all that a server makes up.
const MAX_KEPT: usize = 16 << 20;
/// Longest reference name kept, in bytes.
const MAX_NAME: usize = 1024;
/// Longest quotation of what a server said, in characters.
const QUOTED: usize = 200;
pub(super) const TAGS: &str = "refs/tags/";

/// What to ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// One reference, by its full name.
    Ref(String),
    /// The tags whose name, after refs/tags/, fits the pattern; `*` and `?` only.
    Tags { pattern: String },
}

/// One reference of the server. `peeled` is what an annotated tag points to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advertised {
    pub name: String,
    pub id: [u8; 20],
    pub peeled: Option<[u8; 20]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    V0,
    V1,
    V2,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub protocol: Protocol,
    /// Those wanted that exist, in the server's order.
    pub refs: Vec<Advertised>,
    /// The server has no reference at all. Version 2 does not tell: false there.
    pub empty: bool,
}

#[derive(Debug)]
pub enum ProbeError {
    Packet(pkt_line::Error),
    /// What answered is no git server. `seen` is printable, at most 200
    /// characters, empty when nothing came at all.
    NotGit {
        seen: String,
    },
    /// The server's own words, from an ERR packet; printable as well.
    Remote(String),
    /// A git server that poller cannot work with, and why.
    Unsupported(String),
    /// It would not stop listing references, or listed too many that are wanted.
    TooMany,
}

impl From<pkt_line::Error> for ProbeError {
    fn from(error: pkt_line::Error) -> ProbeError {
        match error {
            pkt_line::Error::Garbage { seen } => not_git(&seen),
            other => ProbeError::Packet(other),
        }
    }
}

/// Asks once, and ends the conversation. There is no time limit in here.
pub async fn ask<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, wanted: &[Wanted]) -> Result<Answer, ProbeError> {
    let mut buffered = BufReader::new(stream);
    let mut talk = Talk::new(&mut buffered);
    let first = talk.first().await?;
    let mut answer = Answer { protocol: Protocol::V0, refs: Vec::new(), empty: false };
    match first {
        Packet::Data(line) if line == b"version 2" => {
            answer.protocol = Protocol::V2;
            talk.version_2(wanted, &mut answer).await?;
        }
        Packet::Data(line) if line == b"version 1" => {
            answer.protocol = Protocol::V1;
            let first = talk.next().await?;
            talk.version_0(first, wanted, &mut answer).await?;
        }
        Packet::Data(line) if line.starts_with(b"version ") => {
            return Err(unknown_version(&line));
        }
        first => talk.version_0(first, wanted, &mut answer).await?,
    }
    // For politeness only: whoever has hung up already has answered all the same.
    let _ = pkt_line::write_flush(talk.stream).await;
    let _ = talk.stream.flush().await;
    Ok(answer)
}

/// Reads what a server of version 0 says before it is asked for anything: one reference, if it is
/// there, and the capabilities. What follows in the stream is left in it.
pub async fn advertised<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut BufReader<S>,
    wanted: Wanted,
) -> Result<(Option<Advertised>, Vec<u8>), ProbeError> {
    let mut talk = Talk::new(stream);
    let first = talk.first().await?;
    if let Packet::Data(line) = &first
        && line.starts_with(b"version ")
    {
        return Err(unknown_version(line));
    }
    let mut answer = Answer { protocol: Protocol::V0, refs: Vec::new(), empty: false };
    talk.version_0(first, &[wanted], &mut answer).await?;
    Ok((answer.refs.into_iter().next(), talk.capabilities))
}

struct Talk<'a, S> {
    stream: &'a mut BufReader<S>,
    /// Bytes that may still come.
    left: usize,
    /// Bytes that may still be kept.
    room: usize,
    /// Of version 0, as they came.
    capabilities: Vec<u8>,
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin> Talk<'a, S> {
    fn new(stream: &'a mut BufReader<S>) -> Self {
        Talk { stream, left: MAX_READ, room: MAX_KEPT, capabilities: Vec::new() }
    }

    async fn first(&mut self) -> Result<Packet, ProbeError> {
        match self.next().await {
            // Also a greeting that begins like a length ("Access denied").
            Err(ProbeError::Packet(pkt_line::Error::Eof { seen })) => Err(not_git(&seen)),
            other => other,
        }
    }

    /// The next packet, a text's newline removed.
    async fn next(&mut self) -> Result<Packet, ProbeError> {
        let mut packet = pkt_line::read(self.stream).await?;
        let mut size = 4;
        if let Packet::Data(line) = &mut packet {
            size += line.len();
            if let Some(said) = line.strip_prefix(b"ERR ") {
                return Err(ProbeError::Remote(quotation(said)));
            }
            if line.last() == Some(&b'\n') {
                line.pop();
            }
        }
        self.left = self.left.checked_sub(size).ok_or(ProbeError::TooMany)?;
        Ok(packet)
    }

    /// The next line, `None` at the end of a message.
    async fn line(&mut self) -> Result<Option<Vec<u8>>, ProbeError> {
        line_of(self.next().await?)
    }

    async fn version_2(&mut self, wanted: &[Wanted], answer: &mut Answer) -> Result<(), ProbeError> {
        let (mut ls_refs, mut agent, mut format) = (false, false, false);
        while let Some(line) = self.line().await? {
            let (name, value) = cut(&line, b'=');
            match name {
                b"ls-refs" => ls_refs = true,
                b"agent" => agent = true,
                b"object-format" => {
                    only_sha1(value)?;
                    format = true;
                }
                _ => {}
            }
        }
        if !ls_refs {
            let why = "the server does not offer ls-refs, which poller needs";
            return Err(ProbeError::Unsupported(why.to_owned()));
        }

        // In one write, hence in one packet of the network.
        let mut request = Vec::new();
        pkt_line::write_data(&mut request, b"command=ls-refs\n").await?;
        if agent {
            let agent = concat!("agent=poller/", env!("CARGO_PKG_VERSION"), "\n");
            pkt_line::write_data(&mut request, agent.as_bytes()).await?;
        }
        if format {
            pkt_line::write_data(&mut request, b"object-format=sha1\n").await?;
        }
        pkt_line::write_delim(&mut request).await?;
        pkt_line::write_data(&mut request, b"peel\n").await?;
        for wanted in wanted {
            let line = format!("ref-prefix {}\n", wanted.prefix());
            pkt_line::write_data(&mut request, line.as_bytes()).await?;
        }
        pkt_line::write_flush(&mut request).await?;
        let stream = &mut *self.stream;
        stream.write_all(&request).await.map_err(pkt_line::Error::Io)?;
        stream.flush().await.map_err(pkt_line::Error::Io)?;

        while let Some(line) = self.line().await? {
            let (id, rest) = id_and_rest(&line)?;
            let mut attributes = rest.split(|byte| *byte == b' ');
            let name = attributes.next().unwrap_or_default();
            let mut peeled = None;
            for attribute in attributes {
                if let Some(hex) = attribute.strip_prefix(b"peeled:") {
                    peeled = Some(object_id(hex).ok_or_else(|| not_git(&line))?);
                }
            }
            self.take(answer, wanted, name, id, peeled)?;
        }
        Ok(())
    }

    fn take(
        &mut self,
        answer: &mut Answer,
        wanted: &[Wanted],
        name: &[u8],
        id: [u8; 20],
        peeled: Option<[u8; 20]>,
    ) -> Result<(), ProbeError> {
        let kept = answer.take(wanted, name, id, peeled);
        self.room = self.room.checked_sub(kept).ok_or(ProbeError::TooMany)?;
        Ok(())
    }

    /// `packet` is the first of the list, already read.
    async fn version_0(&mut self, packet: Packet, wanted: &[Wanted], answer: &mut Answer) -> Result<(), ProbeError> {
        // A bare flush is how old servers say that they have nothing.
        let Some(first) = line_of(packet)? else {
            answer.empty = true;
            return Ok(());
        };
        let (line, capabilities) = cut(&first, 0);
        for capability in capabilities.split(|byte| *byte == b' ') {
            if let Some(format) = capability.strip_prefix(b"object-format=") {
                only_sha1(format)?;
            }
        }
        let mut line = line.to_vec();
        self.capabilities = capabilities.to_vec();
        loop {
            // A shallow repository lists its borders among the references.
            if !line.starts_with(b"shallow ") {
                let (id, name) = id_and_rest(&line)?;
                match name.strip_suffix(b"^{}") {
                    Some(b"capabilities") => answer.empty = true,
                    Some(tag) => answer.peel(tag, id),
                    None => self.take(answer, wanted, name, id, None)?,
                }
            }
            match self.line().await? {
                Some(next) => line = next,
                None => return Ok(()),
            }
        }
    }
}

impl Wanted {
    /// What all names that match begin with. The server filters by it, and may
    /// send more than that.
    fn prefix(&self) -> String {
        match self {
            Wanted::Ref(name) => name.clone(),
            Wanted::Tags { pattern } => format!("{TAGS}{}", versions::literal(pattern)),
        }
    }

    fn matches(&self, name: &str) -> bool {
        match self {
            Wanted::Ref(wanted) => wanted == name,
            Wanted::Tags { pattern } => name.strip_prefix(TAGS).is_some_and(|tag| wildcard::fits(pattern, tag)),
        }
    }
}

impl Answer {
    /// Keeps a reference that is wanted, and tells how many bytes that takes.
    fn take(&mut self, wanted: &[Wanted], name: &[u8], id: [u8; 20], peeled: Option<[u8; 20]>) -> usize {
        let valid = std::str::from_utf8(name).ok().filter(|name| is_valid(name));
        if let Some(name) = valid.filter(|name| wanted.iter().any(|one| one.matches(name))) {
            let size = name.len() + size_of::<Advertised>();
            self.refs.push(Advertised { name: name.to_owned(), id, peeled });
            return size;
        }
        0
    }

    /// A peeled value follows the tag it belongs to, which may not be wanted.
    fn peel(&mut self, tag: &[u8], id: [u8; 20]) {
        if let Some(last) = self.refs.last_mut()
            && last.name.as_bytes() == tag
        {
            last.peeled = Some(id);
        }
    }
}

fn line_of(packet: Packet) -> Result<Option<Vec<u8>>, ProbeError> {
    match packet {
        Packet::Data(line) => Ok(Some(line)),
        Packet::Flush => Ok(None),
        Packet::Delim => Err(not_git(b"0001")),
        Packet::ResponseEnd => Err(not_git(b"0002")),
    }
}

fn unknown_version(line: &[u8]) -> ProbeError {
    let said = quotation(line);
    ProbeError::Unsupported(format!("the server speaks git protocol \"{said}\", which poller does not know"))
}

fn only_sha1(format: &[u8]) -> Result<(), ProbeError> {
    if format == b"sha1" {
        return Ok(());
    }
    let format = quotation(format);
    Err(ProbeError::Unsupported(format!("the repository's object format is {format}; poller knows sha1 only")))
}

/// The two sides of the first `at`; without one the second is empty.
fn cut(line: &[u8], at: u8) -> (&[u8], &[u8]) {
    match line.iter().position(|byte| *byte == at) {
        Some(end) => (&line[..end], &line[end + 1..]),
        None => (line, &[]),
    }
}

fn id_and_rest(line: &[u8]) -> Result<([u8; 20], &[u8]), ProbeError> {
    let (hex, rest) = cut(line, b' ');
    let id = object_id(hex).filter(|_| !rest.is_empty());
    Ok((id.ok_or_else(|| not_git(line))?, rest))
}

fn object_id(hex: &[u8]) -> Option<[u8; 20]> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let mut id = [0; 20];
    if hex.len() != 2 * id.len() {
        return None;
    }
    for (byte, pair) in id.iter_mut().zip(hex.chunks_exact(2)) {
        *byte = u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok()?;
    }
    Some(id)
}

/// What git itself would let a reference be called, so that no name can mean
/// something else in a path, a pattern or a log. See git-check-ref-format.
fn is_valid(name: &str) -> bool {
    let bad = |c: char| c.is_control() || c.is_whitespace() || "~^:?*[\\".contains(c);
    name.len() <= MAX_NAME
        && !name.contains(bad)
        && !name.contains("..")
        && !name.contains("@{")
        && !name.ends_with('.')
        && name.split('/').all(|part| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock"))
}

fn not_git(seen: &[u8]) -> ProbeError {
    ProbeError::NotGit { seen: quotation(seen) }
}

/// A quotation that can be shown on any terminal.
fn quotation(bytes: &[u8]) -> String {
    let text = printable(String::from_utf8_lossy(bytes).trim_end());
    text.chars().take(QUOTED).collect()
}

#[cfg(test)]
mod tests;
