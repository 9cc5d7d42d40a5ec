//! Asks a git server for the tips of a few references, over a stream on which its
//! upload-pack has been started. Version 2 of the protocol filters on the server,
//! so that the answer stays small however many references there are; versions 0
//! and 1, which list everything, are read for servers that know no better.
//!
//! All that comes in is the word of a server: bounded in size, names and ids
//! checked, texts escaped before anyone shows them.

use std::fmt;

use semver::{BuildMetadata, Prerelease, Version};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};

use super::known_hosts::wildcard;
use super::pkt_line::{self, Packet};

/// Bytes read before a server is taken to list for ever.
const MAX_READ: usize = 64 << 20;
/// Longest reference name kept, in bytes.
const MAX_NAME: usize = 1024;
/// Longest quotation of what a server said, in characters.
const QUOTED: usize = 200;
const TAGS: &str = "refs/tags/";

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
    /// It would not stop listing references.
    TooMany,
}

impl fmt::Display for ProbeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProbeError::Packet(error) => write!(f, "{error}"),
            ProbeError::NotGit { seen } if seen.is_empty() => f.write_str(
                "the server closed the connection without an answer: is the path right, \
                and may this key read it?",
            ),
            ProbeError::NotGit { seen } => {
                write!(f, "this is not a git server, it said: {seen}")
            }
            ProbeError::Remote(said) => write!(f, "the git server said: {said}"),
            ProbeError::Unsupported(what) => f.write_str(what),
            ProbeError::TooMany => write!(
                f,
                "the server sent more than {} MiB of references",
                MAX_READ >> 20
            ),
        }
    }
}

impl std::error::Error for ProbeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ProbeError::Packet(error) => Some(error),
            _ => None,
        }
    }
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
pub async fn ask<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    wanted: &[Wanted],
) -> Result<Answer, ProbeError> {
    let mut talk = Talk {
        stream: BufReader::new(stream),
        left: MAX_READ,
    };
    let first = match talk.next().await {
        // Also a greeting that begins like a length ("Access denied").
        Err(ProbeError::Packet(pkt_line::Error::Eof { seen })) => return Err(not_git(&seen)),
        other => other?,
    };
    let mut answer = Answer {
        protocol: Protocol::V0,
        refs: Vec::new(),
        empty: false,
    };
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
            let said = printable(&line);
            return Err(ProbeError::Unsupported(format!(
                "the server speaks git protocol \"{said}\", which poller does not know"
            )));
        }
        first => talk.version_0(first, wanted, &mut answer).await?,
    }
    // For politeness only: whoever has hung up already has answered all the same.
    let _ = pkt_line::write_flush(&mut talk.stream).await;
    let _ = talk.stream.flush().await;
    Ok(answer)
}

struct Talk<'a, S> {
    stream: BufReader<&'a mut S>,
    /// Bytes that may still come.
    left: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Talk<'_, S> {
    /// The next packet, a text's newline removed.
    async fn next(&mut self) -> Result<Packet, ProbeError> {
        let mut packet = pkt_line::read(&mut self.stream).await?;
        let mut size = 4;
        if let Packet::Data(line) = &mut packet {
            size += line.len();
            if let Some(said) = line.strip_prefix(b"ERR ") {
                return Err(ProbeError::Remote(printable(said)));
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

    async fn version_2(
        &mut self,
        wanted: &[Wanted],
        answer: &mut Answer,
    ) -> Result<(), ProbeError> {
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
        let stream = &mut self.stream;
        stream
            .write_all(&request)
            .await
            .map_err(pkt_line::Error::Io)?;
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
            answer.take(wanted, name, id, peeled);
        }
        Ok(())
    }

    /// `packet` is the first of the list, already read.
    async fn version_0(
        &mut self,
        packet: Packet,
        wanted: &[Wanted],
        answer: &mut Answer,
    ) -> Result<(), ProbeError> {
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
        loop {
            // A shallow repository lists its borders among the references.
            if !line.starts_with(b"shallow ") {
                let (id, name) = id_and_rest(&line)?;
                match name.strip_suffix(b"^{}") {
                    Some(b"capabilities") => answer.empty = true,
                    Some(tag) => answer.peel(tag, id),
                    None => answer.take(wanted, name, id, None),
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
            Wanted::Tags { pattern } => format!("{TAGS}{}", literal(pattern)),
        }
    }

    fn matches(&self, name: &str) -> bool {
        match self {
            Wanted::Ref(wanted) => wanted == name,
            Wanted::Tags { pattern } => name
                .strip_prefix(TAGS)
                .is_some_and(|tag| wildcard(pattern, tag)),
        }
    }
}

impl Answer {
    fn take(&mut self, wanted: &[Wanted], name: &[u8], id: [u8; 20], peeled: Option<[u8; 20]>) {
        let valid = std::str::from_utf8(name).ok().filter(|name| is_valid(name));
        if let Some(name) = valid.filter(|name| wanted.iter().any(|one| one.matches(name))) {
            let name = name.to_owned();
            self.refs.push(Advertised { name, id, peeled });
        }
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

/// The tag with the highest version of those that fit `pattern`; names that are
/// no version are passed over. What stands before the version in the pattern
/// (`v`, `release-`) is not compared. A pre-release counts only where the pattern
/// has a '-', as in `v*-rc*`.
pub fn highest<'a>(pattern: &str, refs: &'a [Advertised]) -> Option<&'a Advertised> {
    let before = before_version(literal(pattern));
    let tags = refs.iter().filter_map(|one| {
        let tag = one.name.strip_prefix(TAGS)?;
        let tag = Some(tag).filter(|tag| wildcard(pattern, tag))?;
        let version = version(tag.strip_prefix(before)?)?;
        let wanted = version.pre.is_empty() || pattern.contains('-');
        wanted.then_some((version, one))
    });
    // By name as well, so that 1.2 beside 1.2.0 does not depend on the order.
    tags.max_by(|(a, one), (b, two)| a.cmp(b).then_with(|| one.name.cmp(&two.name)))
        .map(|(_, one)| one)
}

/// The part of a pattern before its first wildcard.
fn literal(pattern: &str) -> &str {
    &pattern[..pattern.find(['*', '?']).unwrap_or(pattern.len())]
}

/// Cuts a version's beginning off: of `v1.` (the pattern is `v1.*`) the `v` is
/// left, since v1.10.0 is to be compared as 1.10.0. A digit within a word, as in
/// `app2-`, begins no version.
fn before_version(literal: &str) -> &str {
    let starts_version = |at: &usize| {
        let (before, rest) = literal.split_at(*at);
        let word = before.strip_suffix('v').unwrap_or(before);
        let numbers = rest.split('-').next().unwrap_or(rest);
        rest.starts_with(|c: char| c.is_ascii_digit())
            && numbers.chars().all(|c| c == '.' || c.is_ascii_digit())
            && !word.ends_with(|c: char| c == '.' || c.is_alphanumeric())
    };
    let mut starts = literal.char_indices().map(|(at, _)| at);
    &literal[..starts.find(starts_version).unwrap_or(literal.len())]
}

/// Semantic versions, a little wider: one to three numbers, zeros before them
/// (2024.01.05), a `v` in front.
fn version(text: &str) -> Option<Version> {
    let text = text.strip_prefix('v').unwrap_or(text);
    let (text, build) = text.split_once('+').unwrap_or((text, ""));
    let (numbers, pre) = text.split_once('-').unwrap_or((text, ""));
    if numbers.len() < text.len() && pre.is_empty() {
        return None;
    }
    let mut parts = [0; 3];
    for (at, number) in numbers.split('.').enumerate() {
        // `parse` alone would take "+1".
        let digits = number.bytes().all(|byte| byte.is_ascii_digit());
        *parts.get_mut(at)? = number.parse().ok().filter(|_| digits)?;
    }
    let [major, minor, patch] = parts;
    Some(Version {
        major,
        minor,
        patch,
        pre: Prerelease::new(pre).ok()?,
        build: BuildMetadata::new(build).ok()?,
    })
}

fn line_of(packet: Packet) -> Result<Option<Vec<u8>>, ProbeError> {
    match packet {
        Packet::Data(line) => Ok(Some(line)),
        Packet::Flush => Ok(None),
        Packet::Delim => Err(not_git(b"0001")),
        Packet::ResponseEnd => Err(not_git(b"0002")),
    }
}

fn only_sha1(format: &[u8]) -> Result<(), ProbeError> {
    if format == b"sha1" {
        return Ok(());
    }
    let format = printable(format);
    Err(ProbeError::Unsupported(format!(
        "the repository's object format is {format}; poller knows sha1 only"
    )))
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
        && name
            .split('/')
            .all(|part| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock"))
}

fn not_git(seen: &[u8]) -> ProbeError {
    ProbeError::NotGit {
        seen: printable(seen),
    }
}

/// A quotation that can be shown on any terminal.
fn printable(bytes: &[u8]) -> String {
    let mut out = String::new();
    let mut length = 0;
    for c in String::from_utf8_lossy(bytes).trim_end().chars() {
        let shown: String = match c {
            '\'' | '"' => c.to_string(),
            other => other.escape_debug().collect(),
        };
        length += shown.chars().count();
        if length > QUOTED {
            break;
        }
        out.push_str(&shown);
    }
    out
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};
    use std::process::Stdio;

    use tokio::io::AsyncReadExt;

    use super::*;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
    const V2: [&str; 5] = [
        "version 2\n",
        "agent=x\n",
        "ls-refs=unborn\n",
        "object-format=sha1\n",
        "",
    ];

    fn main_branch() -> Vec<Wanted> {
        vec![Wanted::Ref("refs/heads/main".to_owned())]
    }

    fn tags(pattern: &str) -> Vec<Wanted> {
        vec![Wanted::Tags {
            pattern: pattern.to_owned(),
        }]
    }

    /// Packets of these lines; "" is a flush, `$A` and `$B` are ids.
    async fn packets(lines: &[&str]) -> Vec<u8> {
        let mut wire = Vec::new();
        for line in lines {
            let line = line.replace("$A", A).replace("$B", B);
            match line.as_str() {
                "" => pkt_line::write_flush(&mut wire).await.unwrap(),
                line => pkt_line::write_data(&mut wire, line.as_bytes())
                    .await
                    .unwrap(),
            }
        }
        wire
    }

    /// Plays a server that says `bytes` and hangs up; also what it was asked.
    async fn served(bytes: &[u8], wanted: &[Wanted]) -> (Result<Answer, ProbeError>, String) {
        let (mut server, mut ours) = tokio::io::duplex(bytes.len().max(1) + 4096);
        server.write_all(bytes).await.unwrap();
        server.shutdown().await.unwrap();
        let answer = ask(&mut ours, wanted).await;
        drop(ours);
        let mut asked = String::new();
        server.read_to_string(&mut asked).await.unwrap();
        (answer, asked)
    }

    fn names(answer: &Answer) -> Vec<&str> {
        answer.refs.iter().map(|one| &*one.name).collect()
    }

    #[tokio::test]
    async fn version_2_is_asked_for_prefixes_and_filtered_exactly() {
        let lines = [
            "$A refs/heads/main\n",
            "$B refs/heads/main2\n",
            "$A refs/tags/v1 peeled:$B\n",
            "$A refs/tags/v2 symref-target:refs/x new-attribute\n",
            "$A refs/tags/w1\n",
            "$A refs/tags/v\u{1b}[2J\n",
            "$A refs/tags/v/../../x\n",
            "",
        ];
        let mut wanted = main_branch();
        wanted.extend(tags("v*"));
        let (answer, asked) = served(&packets(&[&V2[..], &lines].concat()).await, &wanted).await;
        let answer = answer.unwrap();
        assert_eq!((answer.protocol, answer.empty), (Protocol::V2, false));
        assert_eq!(
            names(&answer),
            ["refs/heads/main", "refs/tags/v1", "refs/tags/v2"]
        );
        assert_eq!(
            (answer.refs[1].id, answer.refs[1].peeled),
            ([0xaa; 20], Some([0xbb; 20]))
        );
        let agent = concat!("agent=poller/", env!("CARGO_PKG_VERSION"), "\n");
        let agent = format!("{:04x}{agent}", agent.len() + 4);
        let expected = format!(
            "0014command=ls-refs\n{agent}0017object-format=sha1\n00010009peel\n\
            001fref-prefix refs/heads/main\n001bref-prefix refs/tags/v\n00000000"
        );
        assert_eq!(asked, expected);
    }

    #[tokio::test]
    async fn versions_0_and_1_list_everything() {
        let lines = [
            "$A HEAD\0multi_ack symref=HEAD:refs/heads/main object-format=sha1\n",
            "$A refs/heads/main\n",
            "$A refs/heads/main2\n",
            "$A refs/tags/v1\n",
            "$B refs/tags/v1^{}\n",
            "$A refs/tags/w1\n",
            "$B refs/tags/w1^{}\n",
            "shallow $B\n",
            "",
        ];
        let mut wanted = main_branch();
        wanted.extend(tags("v*"));
        for (protocol, before) in [(Protocol::V0, &[][..]), (Protocol::V1, &["version 1\n"])] {
            let (answer, asked) = served(&packets(&[before, &lines].concat()).await, &wanted).await;
            let answer = answer.unwrap();
            assert_eq!((answer.protocol, answer.empty), (protocol, false));
            assert_eq!(names(&answer), ["refs/heads/main", "refs/tags/v1"]);
            assert_eq!(answer.refs[0].peeled, None);
            assert_eq!(answer.refs[1].peeled, Some([0xbb; 20]));
            assert_eq!(asked, "0000");
        }
        let zero = format!("{} capabilities^{{}}\0agent=x\n", "0".repeat(40));
        for lines in [&[""][..], &[&zero, ""]] {
            let answer = served(&packets(lines).await, &wanted).await.0.unwrap();
            assert!(answer.empty && answer.refs.is_empty());
        }
    }

    #[tokio::test]
    async fn what_is_no_answer_is_told_apart() {
        let long = format!("$A refs/heads/main\0{}", "x".repeat(500));
        let with = |more: &[&'static str]| [&V2[..4], more].concat();
        // (lines, what the error's debug text is, or begins with)
        let table = [
            (vec!["ERR access denied\n"], "Remote(\"access denied\")"),
            (
                vec!["$A HEAD\0x", "ERR no\u{1b}[2J"],
                "Remote(\"no\\\\u{1b}[2J\")",
            ),
            (with(&["", "ERR gone"]), "Remote(\"gone\")"),
            (
                with(&["", "zz refs/heads/main", ""]),
                "NotGit { seen: \"zz refs",
            ),
            (with(&["", "$A", ""]), "NotGit { seen: \"aaaa"),
            (
                with(&["", "$A refs/tags/v1 peeled:b", ""]),
                "NotGit { seen: \"aaaa",
            ),
            (vec!["hello\n"], "NotGit { seen: \"hello\" }"),
            (
                vec!["$A HEAD\0object-format=sha256", ""],
                "Unsupported(\"the repository's",
            ),
            (
                vec!["version 2\n", "ls-refs\n", "object-format=sha256", ""],
                "Unsupported(",
            ),
            (
                vec!["version 2\n", "agent=x\n", "ls-refsx", ""],
                "Unsupported(\"the server does",
            ),
            (vec!["version 3\n"], "Unsupported(\"the server speaks"),
            (with(&["", "$A refs/heads/main"]), "Packet(Eof"),
            (vec![&long], "Packet(Eof"),
        ];
        for (lines, expected) in table {
            let (answer, _) = served(&packets(&lines).await, &main_branch()).await;
            let said = format!("{:?}", answer.unwrap_err());
            assert!(said.starts_with(expected), "{lines:?}: {said}");
        }
        // What is no packet at all.
        let banner = "Hi 'me'!\u{1b}[2J\u{7}".repeat(30);
        let banner_begins = "Hi 'me'!\\u{1b}[2J\\u{7}".repeat(9);
        let table = [
            ("", ""),
            ("Access denied\n", "Access denied"),
            (
                "This account is not available.\n",
                "This account is not available.",
            ),
            (&*banner, &banner_begins[..120]),
        ];
        for (bytes, expected) in table {
            let (answer, _) = served(bytes.as_bytes(), &main_branch()).await;
            let Err(ProbeError::NotGit { seen }) = answer else {
                panic!("{answer:?}");
            };
            assert!(
                seen.starts_with(expected) && seen.chars().count() <= 200,
                "{seen}"
            );
            assert_eq!(seen.is_empty(), expected.is_empty());
        }
    }

    #[tokio::test]
    async fn a_list_without_end_is_cut() {
        let line = format!("{A} refs/heads/main{}", "x".repeat(65_000));
        for mut wire in [
            packets(&[&V2[..], &[&*line; 16]].concat()).await,
            packets(&[&*line; 16]).await,
        ] {
            let (mut server, mut ours) = tokio::io::duplex(1 << 20);
            let lines = packets(&[&*line; 16]).await;
            let endless = async {
                while server.write_all(&wire).await.is_ok() {
                    wire.clone_from(&lines);
                }
            };
            let asking = async {
                let answer = ask(&mut ours, &main_branch()).await;
                drop(ours);
                answer
            };
            let ((), answer) = tokio::join!(endless, asking);
            assert!(matches!(answer, Err(ProbeError::TooMany)));
        }
    }

    #[test]
    fn the_highest_version_wins() {
        // (pattern, tags, the highest)
        let table = [
            ("v*", "v1.2.0 v1.10.0 v1.9.9", "v1.10.0"),
            ("v*", "v1.2 v1 v1.1.9", "v1.2"),
            ("*", "v1.2.3 1.3.0 vendor x", "1.3.0"),
            ("v*", "v2.0.0-rc1 v1.0.0", "v1.0.0"),
            ("v*", "v2.0.0-rc1", ""),
            ("v*-rc*", "v2.0.0-rc1 v2.0.0-rc.2 v1.0.0-rc9", "v2.0.0-rc1"),
            ("v2.0.0-*", "v2.0.0-rc1 v2.0.0-beta", "v2.0.0-rc1"),
            ("v*", "v1.0.0+b1 v1.0.0+b2", "v1.0.0+b2"),
            ("v*", "v1.2 v1.2.0", "v1.2.0"),
            (
                "v*",
                "v1.2.3.4 v1. v.1 v+1 v1.x v1- v v99999999999999999999",
                "",
            ),
            (
                "release-*",
                "release-1.2 release-v1.3 release-x",
                "release-v1.3",
            ),
            ("v1.*", "v1.2.3 v1.10 v2.0.0 v1.x", "v1.10"),
            ("v1*", "v1.2.3 v10.0.0 v2.0.0", "v10.0.0"),
            ("app2-*", "app2-1.2 app2-1.10", "app2-1.10"),
            ("app-v1.*", "app-v1.2 app-v1.10", "app-v1.10"),
            ("2024.*", "2024.01.05 2024.1.4 2024.12.01", "2024.12.01"),
            ("v?.0", "v1.0 v2.0 v10.0", "v2.0"),
            ("v1.0.0", "v1.0.0 v1.0.1", "v1.0.0"),
            ("v*", "", ""),
        ];
        for (pattern, tags, expected) in table {
            let refs = |prefix: &str| -> Vec<Advertised> {
                let one = |tag| Advertised {
                    name: format!("{prefix}{tag}"),
                    id: [1; 20],
                    peeled: None,
                };
                tags.split_whitespace().map(one).collect()
            };
            let name = |one: &Advertised| one.name.replace(TAGS, "");
            let refs_found = refs(TAGS);
            let found = highest(pattern, &refs_found).map(name).unwrap_or_default();
            assert_eq!(found, expected, "{pattern} of {tags}");
            assert_eq!(highest(pattern, &refs("refs/heads/")), None);
        }
    }

    #[test]
    fn a_name_that_git_would_not_allow_is_never_kept() {
        let long = format!("refs/heads/{}", "x".repeat(1024));
        let bad = [
            "", "a b", "a\nb", "a\u{9b}b", "a..b", "/a", "a/", "a//b", "a/.b", "a.lock/b", "a?",
            "a@{b", &long,
        ];
        for name in bad {
            assert!(!is_valid(name), "{name:?}");
        }
        for name in [
            "HEAD",
            "refs/heads/main",
            "refs/tags/v1.0.0",
            "refs/heads/größe@x",
        ] {
            assert!(is_valid(name), "{name:?}");
        }
    }

    /// A repository in a temporary folder, made and asked by the real git.
    struct Repository(PathBuf);

    impl Repository {
        /// `None` where git is not installed.
        fn new(name: &str) -> Option<Repository> {
            let folder = std::env::temp_dir().join(format!("poller-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&folder).unwrap();
            let it = Repository(folder);
            let git = it.git(&["--version"]).output();
            git.is_ok()
                .then(|| it.run(&["init", "-q", "-b", "main"], ""))?;
            Some(it)
        }

        fn git(&self, arguments: &[&str]) -> std::process::Command {
            let mut git = std::process::Command::new("git");
            let me = [("NAME", "me"), ("EMAIL", "me@example.org")];
            for (name, value) in me {
                git.env(format!("GIT_AUTHOR_{name}"), value);
                git.env(format!("GIT_COMMITTER_{name}"), value);
            }
            git.current_dir(&self.0).args(arguments);
            git.env("GIT_CONFIG_GLOBAL", "/dev/null")
                .env("GIT_CONFIG_NOSYSTEM", "1");
            git
        }

        fn run(&self, arguments: &[&str], input: &str) -> String {
            let file = self.0.join(".git-input");
            std::fs::write(&file, input).unwrap();
            let mut git = self.git(arguments);
            let output = git
                .stdin(std::fs::File::open(&file).unwrap())
                .output()
                .unwrap();
            assert!(output.status.success(), "git {arguments:?}: {output:?}");
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        }

        async fn ask(
            &self,
            protocol: &str,
            folder: &Path,
            wanted: &[Wanted],
        ) -> Result<Answer, ProbeError> {
            let mut git = self.git(&["upload-pack"]);
            git.arg(folder)
                .env("GIT_PROTOCOL", protocol)
                .stderr(Stdio::null());
            let mut git = tokio::process::Command::from(git);
            let mut child = git
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let (out, input) = (child.stdout.take().unwrap(), child.stdin.take().unwrap());
            let answer = ask(&mut tokio::io::join(out, input), wanted).await;
            // A clean end shows that nothing was left hanging.
            assert_eq!(child.wait().await.unwrap().success(), answer.is_ok());
            answer
        }
    }

    impl Drop for Repository {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[tokio::test]
    async fn the_real_upload_pack_answers_in_all_versions() {
        let Some(git) = Repository::new("ls-refs") else {
            return;
        };
        let versions = [
            ("version=2", Protocol::V2),
            ("version=1", Protocol::V1),
            ("", Protocol::V0),
        ];
        for (spoken, protocol) in versions {
            let answer = git.ask(spoken, &git.0, &main_branch()).await.unwrap();
            assert_eq!(
                answer,
                Answer {
                    protocol,
                    refs: vec![],
                    empty: protocol != Protocol::V2
                }
            );
        }
        git.run(&["commit", "-q", "--allow-empty", "-m", "one"], "");
        git.run(&["tag", "-a", "-m", "it", "v1.0"], "");
        let (commit, tag) = (
            git.run(&["rev-parse", "main"], ""),
            git.run(&["rev-parse", "v1.0"], ""),
        );
        let many: String = (0..2000)
            .map(|n| format!("create refs/heads/main-{n} {commit}\n"))
            .collect();
        git.run(&["update-ref", "--stdin"], &many);

        let id = |hex: &str| object_id(hex.as_bytes()).unwrap();
        let (head, tag_name) = ("refs/heads/main".to_owned(), "refs/tags/v1.0".to_owned());
        let branch = Advertised {
            name: head,
            id: id(&commit),
            peeled: None,
        };
        let tag = Advertised {
            name: tag_name,
            id: id(&tag),
            peeled: Some(id(&commit)),
        };
        let mut both = main_branch();
        both.extend(tags("v*"));
        let missing = [Wanted::Ref("refs/heads/main-".to_owned())];
        for (spoken, protocol) in versions {
            let ask = async |wanted| git.ask(spoken, &git.0, wanted).await.unwrap();
            let answer = ask(&both).await;
            assert_eq!(
                answer,
                Answer {
                    protocol,
                    refs: vec![branch.clone(), tag.clone()],
                    empty: false
                }
            );
            assert_eq!(highest("v*", &answer.refs), Some(&tag));
            let answer = ask(&missing).await;
            assert_eq!(
                answer,
                Answer {
                    protocol,
                    refs: vec![],
                    empty: false
                }
            );
            let nowhere = git.ask(spoken, Path::new("nowhere"), &both).await;
            assert!(matches!(nowhere, Err(ProbeError::NotGit { seen }) if seen.is_empty()));
        }
    }
}
