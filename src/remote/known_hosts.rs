//! Is the host key that a server showed the one pinned in known_hosts? A pure
//! check over loaded lines: reading the file, and whether it can be trusted, is
//! done elsewhere. The rules are OpenSSH's (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT"):
//! lists, wildcards, negation, hashed names, `@revoked`. Each refusal says what to
//! compare, and what to write where. Nothing is ever learnt at first sight.
//!
//! Stricter than OpenSSH in two things: a line for `host` does not stand for
//! `[host]:2222`, and a key revoked for `host` is revoked on each of its ports.
//! Not supported: `@cert-authority` (its line is ignored), RSA, DSA and hardware-backed keys
//! (this build cannot verify their signatures), SSHFP records, RSA1.

use std::path::{Path, PathBuf};

use ring::hmac;
use russh::keys::ssh_key::known_hosts::HostPatterns;
use russh::keys::{Algorithm, EcdsaCurve, HashAlg, PublicKey};

pub use super::host_key_error::HostKeyError;
use super::host_key_error::{Ignored, Pin, Shown};
use super::wildcard;
use crate::report::printable;

/// What this build can verify, best first.
pub(super) const PREFERENCE: [Algorithm; 4] = [
    Algorithm::Ed25519,
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
];
/// Key types that are valid in the file and of no use here.
const UNSUPPORTED: [&str; 4] =
    ["ssh-rsa", "ssh-dss", "sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com"];

/// Lines with a hashed host that are searched for the port they mean, and ports that are tried of one that
/// lists them: a long file must not hold up the answer.
const MOST_HASHED: usize = 4;
const MOST_PORTS: usize = 64;

/// The lines of one known_hosts file.
#[derive(Debug)]
pub struct KnownHosts {
    file: PathBuf,
    entries: Vec<Entry>,
    ignored: Vec<Ignored>,
}

#[derive(Debug)]
struct Entry {
    line: usize,
    marker: Marker,
    hosts: HostPatterns,
    key: Key,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Marker {
    Pinned,
    Revoked,
}

#[derive(Debug)]
enum Key {
    Usable(PublicKey),
    /// The type's name.
    Unsupported(String),
}

impl KnownHosts {
    /// Takes the lines that make sense. As with OpenSSH, one bad line does not take away the hosts
    /// on the good ones; a refusal for want of a line names those that were ignored.
    pub fn parse(file: &Path, text: &str) -> KnownHosts {
        let mut known = KnownHosts { file: file.to_owned(), entries: Vec::new(), ignored: Vec::new() };
        for (index, text) in text.lines().enumerate() {
            let line = index + 1;
            match parse_line(text) {
                Ok(None) => {}
                Ok(Some((marker, hosts, key))) => known.entries.push(Entry { line, marker, hosts, key }),
                Err(why) => known.ignored.push(Ignored { line, why }),
            }
        }
        known
    }

    /// The algorithms pinned for this host and port, best first: the ones to offer,
    /// lest the server show a key of another type and look like an impostor.
    pub fn algorithms(&self, host: &str, port: u16) -> Vec<Algorithm> {
        let pinned: Vec<Algorithm> = self
            .pinned(host, port)
            .filter_map(|entry| entry.usable())
            .filter(|key| self.revoked(host, port, key).is_none())
            .map(PublicKey::algorithm)
            .collect();
        let mut wanted = PREFERENCE.to_vec();
        wanted.retain(|algorithm| pinned.contains(algorithm));
        wanted
    }

    /// The keys pinned for this host and port that may be used, as type and fingerprint, best first.
    pub fn pins(&self, host: &str, port: u16) -> Vec<(String, String)> {
        let keys = self.pinned(host, port).filter_map(|entry| entry.usable());
        let mut keys: Vec<&PublicKey> = keys.filter(|key| self.revoked(host, port, key).is_none()).collect();
        keys.sort_by_key(|key| PREFERENCE.iter().position(|known| *known == key.algorithm()));
        keys.into_iter().map(|key| (key.algorithm().to_string(), fingerprint(key))).collect()
    }

    /// Holds the key a server showed against the file.
    pub fn check(&self, host: &str, port: u16, key: &PublicKey) -> Result<(), HostKeyError> {
        let shown = Box::new(self.shown(host, port, key));
        if let Some(line) = self.revoked(host, port, key) {
            return Err(HostKeyError::Revoked { shown, line });
        }
        let supported = PREFERENCE.contains(&key.algorithm());
        if supported && self.pinned(host, port).any(|entry| entry.is_for(key)) {
            return Ok(());
        }
        let valid = self.pinned(host, port).filter(|entry| {
            let key = entry.usable();
            key.is_none_or(|key| self.revoked(host, port, key).is_none())
        });
        let (usable, useless): (Vec<&Entry>, Vec<&Entry>) = valid.partition(|entry| entry.usable().is_some());
        if !usable.is_empty() {
            let pins = usable.into_iter().map(Entry::pin).collect();
            return Err(HostKeyError::Changed { shown, pins });
        }
        if !useless.is_empty() || !supported {
            let pins = useless.into_iter().map(Entry::pin).collect();
            return Err(HostKeyError::OnlyUnsupported { shown, pins });
        }
        Err(match self.elsewhere(host, key) {
            Some((line, name)) => HostKeyError::OtherPort { shown, line, name },
            None => HostKeyError::NotPinned { shown, ignored: self.ignored.clone() },
        })
    }

    fn pinned(&self, host: &str, port: u16) -> impl Iterator<Item = &Entry> {
        let name = file_name_of(host, port);
        self.entries.iter().filter(move |entry| entry.marker == Marker::Pinned && entry.is_about(&name))
    }

    /// The line that revokes `key`. A leaked key is leaked on every port, so a
    /// line for the plain host counts as well.
    fn revoked(&self, host: &str, port: u16, key: &PublicKey) -> Option<usize> {
        let (name, plain) = (file_name_of(host, port), file_name_of(host, 22));
        let revoked = self.entries.iter().find(|entry| {
            entry.marker == Marker::Revoked && entry.is_for(key) && (entry.is_about(&name) || entry.is_about(&plain))
        });
        revoked.map(|entry| entry.line)
    }

    /// The first line that pins `key` for this host under another port or none. A
    /// hashed name does not say its port, so all are tried; that costs some ten
    /// milliseconds a line, on the way to an error, for a few lines with this very key.
    fn elsewhere(&self, host: &str, key: &PublicKey) -> Option<(usize, String)> {
        let host = host.to_ascii_lowercase();
        let mut hashed = 0;
        let pins = self.entries.iter();
        let mut pins = pins.filter(|entry| entry.marker == Marker::Pinned && entry.is_for(key));
        pins.find_map(|entry| {
            let ports: Box<dyn Iterator<Item = u16>> = match &entry.hosts {
                HostPatterns::HashedName { .. } if hashed == MOST_HASHED => return None,
                HostPatterns::HashedName { .. } => Box::new(1..=u16::MAX),
                HostPatterns::Patterns(patterns) => {
                    Box::new(patterns.iter().filter_map(|pattern| port_of(pattern)).take(MOST_PORTS))
                }
            };
            hashed += usize::from(matches!(entry.hosts, HostPatterns::HashedName { .. }));
            let bracketed = ports.map(|port| format!("[{host}]:{port}"));
            let mut names = std::iter::once(host.clone()).chain(bracketed);
            let name = names.find(|name| entry.is_about(name))?;
            Some((entry.line, name))
        })
    }

    fn shown(&self, host: &str, port: u16, key: &PublicKey) -> Shown {
        let name = file_name_of(host, port);
        // A key's comment, if it has one, is not for the file.
        let text = PublicKey::from(key.key_data().clone()).to_openssh();
        let text = text.unwrap_or_default();
        Shown {
            host: host.to_owned(),
            port,
            file: self.file.clone(),
            key_type: key.algorithm().to_string(),
            fingerprint: fingerprint(key),
            to_add: format!("{name} {}", text.trim_end()),
            name,
        }
    }
}

impl Entry {
    fn is_about(&self, name: &str) -> bool {
        match &self.hosts {
            HostPatterns::HashedName { salt, hash } => {
                let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, salt);
                hmac::verify(&key, name.as_bytes(), hash).is_ok()
            }
            HostPatterns::Patterns(patterns) => {
                let fits = |pattern: &str| wildcard::fits(&pattern.to_ascii_lowercase(), name);
                let (no, yes): (Vec<&str>, Vec<&str>) =
                    patterns.iter().map(String::as_str).partition(|pattern| pattern.starts_with('!'));
                yes.into_iter().any(fits) && !no.into_iter().any(|pattern| fits(&pattern[1..]))
            }
        }
    }

    fn usable(&self) -> Option<&PublicKey> {
        match &self.key {
            Key::Usable(key) => Some(key),
            Key::Unsupported(_) => None,
        }
    }

    fn is_for(&self, key: &PublicKey) -> bool {
        self.usable().is_some_and(|own| own.key_data() == key.key_data())
    }

    fn pin(&self) -> Pin {
        let (key_type, fingerprint) = match &self.key {
            Key::Usable(key) => (key.algorithm().to_string(), Some(fingerprint(key))),
            Key::Unsupported(name) => (name.clone(), None),
        };
        Pin { line: self.line, key_type, fingerprint }
    }
}

fn parse_line(text: &str) -> Result<Option<(Marker, HostPatterns, Key)>, String> {
    let mut words = text.split([' ', '\t']).filter(|word| !word.is_empty());
    let (marker, hosts) = match words.next() {
        None => return Ok(None),
        Some(comment) if comment.starts_with('#') => return Ok(None),
        Some("@revoked") => (Marker::Revoked, words.next()),
        Some("@cert-authority") => return Err("@cert-authority is not supported".to_owned()),
        Some(other) if other.starts_with('@') => return Err(format!("unknown marker {other:?}")),
        hosts => (Marker::Pinned, hosts),
    };
    let (Some(hosts), Some(kind), Some(data)) = (hosts, words.next(), words.next()) else {
        return Err("a line is a host, a key type and a key".to_owned());
    };
    if hosts.starts_with('|') && !hosts.starts_with("|1|") {
        return Err("this way of hashing the host is unknown".to_owned());
    }
    let hosts: HostPatterns = hosts.parse().map_err(|_| "the hashed host cannot be read".to_owned())?;
    if UNSUPPORTED.contains(&kind) {
        return Ok(Some((marker, hosts, Key::Unsupported(kind.to_owned()))));
    }
    if !PREFERENCE.iter().any(|known| known.as_str() == kind) {
        return Err(format!("unknown key type {kind:?}"));
    }
    let key = PublicKey::from_openssh(&format!("{kind} {data}"))
        .map_err(|error| format!("the {kind} key cannot be read: {}", printable(&error.to_string())))?;
    Ok(Some((marker, hosts, Key::Usable(key))))
}

/// The name a host goes by in the file.
pub fn file_name_of(host: &str, port: u16) -> String {
    let host = host.to_ascii_lowercase();
    if port == 22 { host } else { format!("[{host}]:{port}") }
}

/// The port in a pattern such as `[*.example.org]:2222`.
fn port_of(pattern: &str) -> Option<u16> {
    pattern.rsplit_once("]:")?.1.parse().ok()
}

/// As `ssh-keygen -l` prints it, `SHA256:…`.
fn fingerprint(key: &PublicKey) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}

#[cfg(test)]
mod tests;
