//! A commit or a tag object taken apart: what is signed, the signature, and when it was made.
//!
//! The same cut as git makes: from a commit its `gpgsig` header goes, from a tag all from the last line on that
//! begins a signature. Whatever git might read in two ways is refused.

use russh::keys::ssh_key::SshSig;

use super::refusal::Refusal;

const BEGIN: &str = "-----BEGIN SSH SIGNATURE-----";
const END: &str = "-----END SSH SIGNATURE-----";
/// How the signatures begin that git knows.
const PGP: [&[u8]; 2] = [b"-----BEGIN PGP SIGNATURE-----", b"-----BEGIN PGP MESSAGE-----"];
const X509: &[u8] = b"-----BEGIN SIGNED MESSAGE-----";

#[derive(Debug, PartialEq, Eq)]
pub struct Signed {
    pub payload: Vec<u8>,
    pub armour: Vec<u8>,
    /// By the committer's or tagger's clock, in seconds since the epoch.
    pub time: Option<i64>,
}

pub fn commit(raw: &[u8]) -> Result<Signed, Refusal> {
    let mut payload = Vec::with_capacity(raw.len());
    let mut armour = Vec::new();
    let (mut count, mut inside) = (0, false);
    let mut rest = raw;
    while !rest.is_empty() {
        let (line, after) = rest.split_at(line_end(rest));
        if line == b"\n" {
            // The message, as it is.
            payload.extend_from_slice(rest);
            break;
        }
        if let Some(first) = line.strip_prefix(b"gpgsig ") {
            count += 1;
            armour.extend_from_slice(first);
            inside = true;
        } else if line.starts_with(b"gpgsig") {
            return Err(Refusal::OddHeader);
        } else if inside && line.starts_with(b" ") {
            armour.extend_from_slice(&line[1..]);
        } else {
            payload.extend_from_slice(line);
            inside = false;
        }
        rest = after;
    }
    match count {
        0 => Err(Refusal::Unsigned),
        1 => Ok(Signed { time: time(&payload, b"committer "), payload, armour }),
        _ => Err(Refusal::Several),
    }
}

/// The tag's own name, and its parts.
pub fn tag(raw: &[u8]) -> Result<(&[u8], Signed), Refusal> {
    let headers = || raw.split(|&b| b == b'\n').take_while(|line| !line.is_empty());
    if headers().any(|line| line.starts_with(b"gpgsig")) {
        return Err(Refusal::OddHeader);
    }
    let name = headers().find_map(|line| line.strip_prefix(b"tag ")).unwrap_or_default();
    let mut begins = None;
    let mut at = 0;
    while at < raw.len() {
        let line = &raw[at..];
        let known = PGP.into_iter().chain([X509, BEGIN.as_bytes()]);
        if known.into_iter().any(|begin| line.starts_with(begin)) {
            begins = Some(at);
        }
        at += line_end(line);
    }
    let (payload, armour) = raw.split_at(begins.ok_or(Refusal::Unsigned)?);
    Ok((name, Signed { time: time(payload, b"tagger "), payload: payload.to_vec(), armour: armour.to_vec() }))
}

/// The length of the first line, its end included.
fn line_end(text: &[u8]) -> usize {
    text.iter().position(|&b| b == b'\n').map_or(text.len(), |at| at + 1)
}

/// `WHO Name <address> SECONDS ZONE`
fn time(payload: &[u8], who: &[u8]) -> Option<i64> {
    let mut headers = payload.split(|&b| b == b'\n').take_while(|line| !line.is_empty());
    let line = headers.find_map(|line| line.strip_prefix(who))?;
    let after = &line[line.iter().rposition(|&b| b == b'>')? + 1..];
    let seconds = std::str::from_utf8(after).ok()?.split_ascii_whitespace().next()?;
    seconds.bytes().all(|b| b.is_ascii_digit()).then(|| seconds.parse().ok())?
}

/// By how it begins, as git tells them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Ssh,
    Pgp,
    X509,
    Unknown,
}

pub fn kind(armour: &[u8]) -> Kind {
    match armour {
        _ if PGP.iter().any(|begin| armour.starts_with(begin)) => Kind::Pgp,
        _ if armour.starts_with(X509) => Kind::X509,
        _ if armour.starts_with(BEGIN.as_bytes()) => Kind::Ssh,
        _ => Kind::Unknown,
    }
}

/// The SSH signature inside its armour. Lines may be of any length: not every tool breaks them where OpenSSH does.
pub fn dearmour(armour: &[u8]) -> Result<SshSig, Refusal> {
    let text = std::str::from_utf8(armour).map_err(|_| Refusal::Unreadable)?;
    let inside = text.trim().strip_prefix(BEGIN).and_then(|text| text.strip_suffix(END)).ok_or(Refusal::Unreadable)?;
    let base64: Vec<u8> = inside.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    let mut pem = format!("{BEGIN}\n");
    for line in base64.chunks(70) {
        pem += std::str::from_utf8(line).map_err(|_| Refusal::Unreadable)?;
        pem.push('\n');
    }
    SshSig::from_pem(format!("{pem}{END}\n")).map_err(|_| Refusal::Unreadable)
}
