//! Is the host key that a server showed the one pinned in known_hosts? A pure
//! check over loaded lines: reading the file, and whether it can be trusted, is
//! done elsewhere. The rules are OpenSSH's (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT"):
//! lists, wildcards, negation, hashed names, `@revoked`. Each refusal says what to
//! compare, and what to write where. Nothing is ever learnt at first sight.
//!
//! Stricter than OpenSSH in two things: a line for `host` does not stand for
//! `[host]:2222`, and a key revoked for `host` is revoked on each of its ports.
//! Not supported: `@cert-authority` (a warning), RSA, DSA and hardware-backed keys
//! (this build cannot verify their signatures), SSHFP records, RSA1.

use std::fmt;
use std::path::{Path, PathBuf};

use ring::hmac;
use russh::keys::ssh_key::known_hosts::HostPatterns;
use russh::keys::{Algorithm, EcdsaCurve, HashAlg, PublicKey};

/// What this build can verify, best first.
const PREFERENCE: [Algorithm; 4] = [
    Algorithm::Ed25519,
    Algorithm::Ecdsa {
        curve: EcdsaCurve::NistP256,
    },
    Algorithm::Ecdsa {
        curve: EcdsaCurve::NistP384,
    },
    Algorithm::Ecdsa {
        curve: EcdsaCurve::NistP521,
    },
];
/// Key types that are valid in the file and of no use here.
const UNSUPPORTED: [&str; 4] = [
    "ssh-rsa",
    "ssh-dss",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
];
const COMPARE: &str =
    "First compare the fingerprint with the one that the server's owner publishes.";

/// The lines of one known_hosts file.
#[derive(Debug)]
pub struct KnownHosts {
    file: PathBuf,
    entries: Vec<Entry>,
    warnings: Vec<String>,
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

/// What the server showed, and where it would have to be pinned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    pub host: String,
    pub port: u16,
    pub file: PathBuf,
    pub key_type: String,
    /// As `ssh-keygen -l` prints it, `SHA256:…`.
    pub fingerprint: String,
    /// `host`, or `[host]:port` for any port but 22.
    pub name: String,
    /// The whole line for the file.
    pub to_add: String,
}

/// A line of the file that pins a key; the fingerprint is absent for a key that
/// this build cannot verify.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    pub line: usize,
    pub key_type: String,
    pub fingerprint: Option<String>,
}

/// Why a host key is refused. The text names the remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostKeyError {
    /// The file has no line for this host and port.
    NotPinned { shown: Box<Shown> },
    /// It has, with other keys.
    Changed { shown: Box<Shown>, pins: Vec<Pin> },
    /// This very key is marked `@revoked`.
    Revoked { shown: Box<Shown>, line: usize },
    /// This very key is pinned for `name`: the host on another port, or without one.
    OtherPort {
        shown: Box<Shown>,
        line: usize,
        name: String,
    },
    /// All lines for the host have types this build cannot verify. No pins: the
    /// key shown is itself of such a type.
    OnlyUnsupported { shown: Box<Shown>, pins: Vec<Pin> },
}

impl KnownHosts {
    /// Takes the lines that make sense. The others become warnings: as with
    /// OpenSSH, one bad line does not take away the hosts on the good ones.
    pub fn parse(file: &Path, text: &str) -> KnownHosts {
        let mut known = KnownHosts {
            file: file.to_owned(),
            entries: Vec::new(),
            warnings: Vec::new(),
        };
        for (index, text) in text.lines().enumerate() {
            let line = index + 1;
            match parse_line(text) {
                Ok(None) => {}
                Ok(Some((marker, hosts, key))) => known.entries.push(Entry {
                    line,
                    marker,
                    hosts,
                    key,
                }),
                Err(why) => {
                    let place = file.display();
                    known
                        .warnings
                        .push(format!("{place}:{line}: {why}; the line is ignored"));
                }
            }
        }
        known
    }

    /// One text for each ignored line, `file:line: why`.
    pub fn warnings(&self) -> Vec<String> {
        self.warnings.clone()
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
        let (usable, useless): (Vec<&Entry>, Vec<&Entry>) =
            valid.partition(|entry| entry.usable().is_some());
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
            None => HostKeyError::NotPinned { shown },
        })
    }

    fn pinned(&self, host: &str, port: u16) -> impl Iterator<Item = &Entry> {
        let name = file_name_of(host, port);
        self.entries
            .iter()
            .filter(move |entry| entry.marker == Marker::Pinned && entry.is_about(&name))
    }

    /// The line that revokes `key`. A leaked key is leaked on every port, so a
    /// line for the plain host counts as well.
    fn revoked(&self, host: &str, port: u16, key: &PublicKey) -> Option<usize> {
        let (name, plain) = (file_name_of(host, port), file_name_of(host, 22));
        let revoked = self.entries.iter().find(|entry| {
            entry.marker == Marker::Revoked
                && entry.is_for(key)
                && (entry.is_about(&name) || entry.is_about(&plain))
        });
        revoked.map(|entry| entry.line)
    }

    /// The first line that pins `key` for this host under another port or none. A
    /// hashed name does not say its port, so all are tried; that costs some
    /// milliseconds, on the way to an error, for lines with this very key only.
    fn elsewhere(&self, host: &str, key: &PublicKey) -> Option<(usize, String)> {
        let host = host.to_ascii_lowercase();
        let pins = self.entries.iter();
        let mut pins = pins.filter(|entry| entry.marker == Marker::Pinned && entry.is_for(key));
        pins.find_map(|entry| {
            let bracketed = (1..=u16::MAX).map(|port| format!("[{host}]:{port}"));
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
                let fits = |pattern: &str| wildcard(&pattern.to_ascii_lowercase(), name);
                let (no, yes): (Vec<&str>, Vec<&str>) = patterns
                    .iter()
                    .map(String::as_str)
                    .partition(|pattern| pattern.starts_with('!'));
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
        self.usable()
            .is_some_and(|own| own.key_data() == key.key_data())
    }

    fn pin(&self) -> Pin {
        let (key_type, fingerprint) = match &self.key {
            Key::Usable(key) => (key.algorithm().to_string(), Some(fingerprint(key))),
            Key::Unsupported(name) => (name.clone(), None),
        };
        Pin {
            line: self.line,
            key_type,
            fingerprint,
        }
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
    let hosts: HostPatterns = hosts
        .parse()
        .map_err(|_| "the hashed host cannot be read".to_owned())?;
    if UNSUPPORTED.contains(&kind) {
        return Ok(Some((marker, hosts, Key::Unsupported(kind.to_owned()))));
    }
    if !PREFERENCE.iter().any(|known| known.as_str() == kind) {
        return Err(format!("unknown key type {kind:?}"));
    }
    let key = PublicKey::from_openssh(&format!("{kind} {data}"))
        .map_err(|error| format!("the {kind} key cannot be read: {error}"))?;
    Ok(Some((marker, hosts, Key::Usable(key))))
}

/// The name a host goes by in the file.
fn file_name_of(host: &str, port: u16) -> String {
    let host = host.to_ascii_lowercase();
    if port == 22 {
        host
    } else {
        format!("[{host}]:{port}")
    }
}

fn fingerprint(key: &PublicKey) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}

/// Does `pattern`, with `*` for any run of characters and `?` for any one, fit all
/// of `text`? Only the last `*` is ever tried again, which is enough, and keeps a
/// pattern from taking exponential time.
pub(super) fn wildcard(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    let (mut at, mut seen) = (0, 0);
    // Where the pattern goes on after the last `*`, and where that one's run ends.
    let mut star = None;
    loop {
        match (pattern.get(at), text.get(seen)) {
            (Some('*'), _) => {
                at += 1;
                star = Some((at, seen));
            }
            (None, None) => return true,
            (Some(wanted), Some(got)) if *wanted == '?' || wanted == got => {
                at += 1;
                seen += 1;
            }
            _ => match star {
                Some((after, end)) if end < text.len() => {
                    (at, seen) = (after, end + 1);
                    star = Some((at, seen));
                }
                _ => return false,
            },
        }
    }
}

impl std::error::Error for HostKeyError {}

impl fmt::Display for HostKeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostKeyError::NotPinned { shown } => {
                shown.head(f, "is not pinned")?;
                shown.add(f, "If they are the same, add this line to the file:")
            }
            HostKeyError::Changed { shown, pins } => {
                shown.head(f, "HAS CHANGED: this may be an attack")?;
                list(f, pins)?;
                let how = "Ask the server's owner whether the key was replaced. \
                    Only after that put this line in the place of the old one:";
                shown.add(f, how)
            }
            HostKeyError::Revoked { shown, line } => {
                shown.head(f, "is REVOKED: this may be an attack")?;
                writeln!(f, "  line {line} marks this key @revoked")?;
                write!(
                    f,
                    "It must not be trusted, so there is no line to add. \
                    Ask the server's owner which key has taken its place,\n\
                    and compare fingerprints before pinning that one."
                )
            }
            HostKeyError::OtherPort { shown, line, name } => {
                shown.head(f, "is pinned under another name only")?;
                writeln!(
                    f,
                    "  line {line} pins this key for {name}, which does not stand for {}:\n  \
                    port 22 is written host, any other [host]:port",
                    shown.name
                )?;
                shown.add(f, "If they are the same, add this line to the file:")
            }
            HostKeyError::OnlyUnsupported { shown, pins } => {
                shown.head(f, "cannot be checked: its type is not supported")?;
                list(f, pins)?;
                writeln!(
                    f,
                    "Pin the server's ed25519 or ecdsa key; this prints it:\n\
                    ssh-keyscan -t ed25519 -p {} {}",
                    shown.port, shown.host
                )?;
                if PREFERENCE
                    .iter()
                    .any(|known| known.as_str() == shown.key_type)
                {
                    shown.add(f, "If they are the same, add this line to the file:")
                } else {
                    f.write_str(COMPARE)
                }
            }
        }
    }
}

impl Shown {
    fn head(&self, f: &mut fmt::Formatter<'_>, what: &str) -> fmt::Result {
        writeln!(f, "the host key of {} port {} {what}", self.host, self.port)?;
        writeln!(f, "  shown: {} {}", self.key_type, self.fingerprint)?;
        writeln!(f, "  known hosts file: {}", self.file.display())
    }

    fn add(&self, f: &mut fmt::Formatter<'_>, how: &str) -> fmt::Result {
        write!(f, "{COMPARE}\n{how}\n{}", self.to_add)
    }
}

fn list(f: &mut fmt::Formatter<'_>, pins: &[Pin]) -> fmt::Result {
    for pin in pins {
        let key = pin.fingerprint.as_deref().unwrap_or("(not supported)");
        writeln!(f, "  line {} pins: {} {key}", pin.line, pin.key_type)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::HostKeyError::{Changed, NotPinned, OnlyUnsupported, OtherPort, Revoked};
    use super::*;

    // Each with what `ssh-keygen -l` prints of it.
    const ONE: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIF/djURYhdG0N9QkiIWlBwq8/jVG8Mmqz7tOYcXISZEm";
    const ONE_PRINT: &str = "SHA256:d2odmC4tTAk6vR+my0WGuU84lrrvugGJgSQ+fo87jq4";
    const TWO: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAyYPfyyqiWNk4OZGM4Hq16+H16LJ+0ZqQ0rjjodSP7x";
    const TWO_PRINT: &str = "SHA256:BMrbaSjMcpSwq6wERBqD1TjakzE5MPpwUPnSm9B3g+w";
    const P256: &str = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBB06+lMyAbtGwYt/PqdXj0IAq/E6mNnb1vRcfyi3t59mPpfsWAzJSzEbCsAiN8h6xAbpdii6QDPQnhZSzXmXcco=";
    const P256_PRINT: &str = "SHA256:RPD4INlbSBNL3mDS2hmRBIzB02fQOo+RPuRCzaNZ4II";
    const P384: &str = "ecdsa-sha2-nistp384 AAAAE2VjZHNhLXNoYTItbmlzdHAzODQAAAAIbmlzdHAzODQAAABhBIM7D5unkz64IoCkEAWo98fD8S+aiDMvYb64+F+XIxDBmU2fVoASId5ZVvsQtmNeD8YF6OjEARLwif/1CVbDA1BkWZsAaWgzMRbNs7lU5Imc7wydqudJI8BAJKCVz5TCOg==";
    const P521: &str = "ecdsa-sha2-nistp521 AAAAE2VjZHNhLXNoYTItbmlzdHA1MjEAAAAIbmlzdHA1MjEAAACFBAE50DwnXBozb27RYWgAELNJCeixYj+4Ii1h6iTHKxpo3YYLRJkmBS3jZFUJ6bsSJO75awsx+cMNFMZ/936iHK/SAQA7S9aRwQ6XX9DF/46n8f6VTyfQEcN4UkD1jaxXhH4gi3dMfV96SIJpA0xhGbC0Pfd7az4sXj4UcvjCwj1eiIwPPw==";
    const RSA: &str = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQC4NhXibpSuDMuQx9Ua8XRQudbe6lxM5PgUf7DaqcEmcZY93scSzm/+KPF1oFcZiP9v3NAOoIBGLULGPnHRd/65Aq6mLgn4x9LiA3CS8toT6UcLMkSEQwHBNBYSSffmFs3nfDS6OaWZWdRd1gaeR1iNCynwQJFH2SIpPcquOxzgZ44gBdKhhESnY3bmYHPV879TP/Drt/o7e3rX/cfIka8QaQSaZRcL+q5VTsWOHOk3dAY2k5JAu9nwaQ4Oeb4F008vvqP2kFjjjHGP6dVsdTT078uHwLLjAzXkxI88OPXRL/tK1ZafUEbpwmsrNxkxWAfOjHmoGqaazOFDwOCJcnOP";
    // `ssh-keygen -H` made these of git.example and [git.example]:2222.
    const HASHED: &str = "|1|rzPJnJsxmj1BMUERDosx8JAqXLI=|kR8uLjmdrh+ioSOBjZXOKkQN29k=";
    const HASHED_2222: &str = "|1|AOzMS3lFleZ93ORSdtJis9mGx40=|sxd6atzvU7pt4rc1SkMuxZnW4cw=";

    /// Known hosts in which `ONE` and the like stand for the keys above.
    fn known(text: &str) -> KnownHosts {
        let hashes = [("HASHED_2222", HASHED_2222), ("HASHED", HASHED)];
        let keys = [("ONE", ONE), ("TWO", TWO), ("P256", P256), ("P384", P384)];
        let more = [("P521", P521), ("RSA", RSA)];
        let mut text = text.to_owned();
        for (name, value) in hashes.into_iter().chain(keys).chain(more) {
            text = text.replace(&format!("${name}"), value);
        }
        KnownHosts::parse(Path::new("/etc/poller/known_hosts"), &text)
    }

    fn key(text: &str) -> PublicKey {
        PublicKey::from_openssh(text).unwrap()
    }

    fn name_of(verdict: &Result<(), HostKeyError>) -> &'static str {
        match verdict {
            Ok(()) => "ok",
            Err(NotPinned { .. }) => "not pinned",
            Err(Changed { .. }) => "changed",
            Err(Revoked { .. }) => "revoked",
            Err(OtherPort { .. }) => "other port",
            Err(OnlyUnsupported { .. }) => "unsupported",
        }
    }

    #[test]
    fn a_key_is_held_against_the_lines_as_openssh_would() {
        // Verdict on key ONE, host and port, the file ("/" ends a line of it).
        let table = r"
            not pinned  | git.example 22   |
            ok          | git.example 22   | git.example $ONE
            ok          | git.example 22   | git.example\t$ONE me@home\r
            ok          | git.example 22   |   # c//\t\r/ git.example  $ONE
            ok          | gIT.example 22   | Git.EXAMPLE $ONE
            not pinned  | git.example 22   | git.example2 $ONE
            changed     | git.example 22   | git.example $TWO
            ok          | git.example 22   | git.example $TWO/git.example $ONE
            changed     | git.example 22   | git.example $P256
            ok          | git.example 22   | git.example $P256/git.example $ONE

            ok          | GIT.example 2222 | [git.example]:2222 $ONE
            ok          | ::1 2222         | [::1]:2222 $ONE
            other port  | git.example 2222 | git.example $ONE
            not pinned  | git.example 2222 | git.example $TWO
            other port  | git.example 22   | [git.example]:22 $ONE
            other port  | git.example 22   | [git.example]:9 $ONE
            changed     | git.example 22   | [git.example]:9 $ONE/git.example $TWO

            ok          | git.example 22   | a,git.example,b $ONE
            ok          | git.example 22   | *.example $ONE
            ok          | git.example 22   | gi?.ex*le* $ONE
            not pinned  | git.example 22   | git?.example $ONE
            not pinned  | git.example 22   | *.example,!git.example $ONE
            not pinned  | git.example 22   | !GIT.example,*.example $ONE
            not pinned  | git.example 22   | !other.example $ONE
            ok          | git.example 2222 | [*.example]:2222 $ONE
            ok          | git.example 2222 | * $ONE

            ok          | git.example 22   | $HASHED $ONE
            ok          | Git.Example 22   | $HASHED $ONE
            not pinned  | git2.example 22  | $HASHED $ONE
            ok          | git.example 2222 | $HASHED_2222 $ONE
            other port  | git.example 22   | $HASHED_2222 $ONE
            changed     | git.example 22   | $HASHED $TWO

            revoked     | git.example 22   | @revoked git.example $ONE
            revoked     | git.example 22   | git.example $ONE/@revoked * $ONE
            revoked     | git.example 22   | @revoked $HASHED $ONE/* $ONE
            revoked     | git.example 7    | @revoked git.example $ONE/* $ONE
            ok          | git.example 22   | @revoked else.example $ONE/* $ONE
            ok          | git.example 22   | @revoked * $TWO/git.example $ONE
            not pinned  | git.example 22   | @revoked * $TWO/git.example $TWO

            unsupported | git.example 22   | git.example $RSA
            unsupported | git.example 22   | git.example ssh-dss AAAA/* $RSA
            unsupported | git.example 22   | git.example $RSA/[git.example]:9 $ONE
            ok          | git.example 22   | git.example $RSA/* $ONE
            changed     | git.example 22   | git.example $RSA/* $TWO
            not pinned  | git.example 22   | @cert-authority * $ONE
            not pinned  | git.example 22   | @trusted * $ONE";
        let rows = table.lines().filter(|row| !row.is_empty());
        for row in rows {
            let mut cells = row.splitn(3, " |");
            let mut cell = || cells.next().unwrap();
            let (expected, place, text) = (cell().trim(), cell(), cell());
            let (host, port) = place.trim().split_once(' ').unwrap();
            let text = text.replace('/', "\n");
            let text = text.replace(r"\t", "\t").replace(r"\r", "\r");
            let known = known(&text);
            let verdict = known.check(host, port.trim().parse().unwrap(), &key(ONE));
            assert_eq!(name_of(&verdict), expected, "{row}");
        }
        let verdict = known("git.example $RSA").check("git.example", 22, &key(RSA));
        assert_eq!(name_of(&verdict), "unsupported");
        let verdict = known("").check("git.example", 22, &key(RSA));
        assert_eq!(name_of(&verdict), "unsupported");
    }

    #[test]
    fn the_algorithms_offered_are_those_pinned_best_first() {
        let text = "h $P521\nh $P384\nh $P256\nh $ONE\nh $RSA\nh $TWO\n[h]:9 $P384\n\
            r $ONE\nr $P256\n@revoked r $ONE\nrsa $RSA";
        let table = [
            (
                "h",
                22,
                "ssh-ed25519 ecdsa-sha2-nistp256 ecdsa-sha2-nistp384 ecdsa-sha2-nistp521",
            ),
            ("h", 9, "ecdsa-sha2-nistp384"),
            ("r", 22, "ecdsa-sha2-nistp256"),
            ("rsa", 22, ""),
            ("unknown", 22, ""),
        ];
        for (host, port, expected) in table {
            let algorithms = known(text).algorithms(host, port);
            let names: Vec<&str> = algorithms.iter().map(Algorithm::as_str).collect();
            assert_eq!(names.join(" "), expected, "{host} {port}");
        }
    }

    #[test]
    fn a_bad_line_is_a_warning_and_harms_no_other() {
        // (line, what its warning says)
        let table = [
            ("git.example", "a line is"),
            ("git.example ssh-ed25519", "a line is"),
            ("@revoked git.example", "a line is"),
            ("git.example 1024 35 1453", "unknown key type \"1024\""),
            ("git.example ssh-ed25519 AAAA", "cannot be read"),
            ("git.example ssh-ed25519 !!!", "cannot be read"),
            (
                &format!("h ecdsa-sha2-nistp256 {}", &ONE[12..]),
                "cannot be read",
            ),
            ("|1|x|y $ONE", "hashed host"),
            ("|2|AAAA|AAAA $ONE", "hashing"),
            ("@cert-authority * $ONE", "@cert-authority is not supported"),
            ("@\u{1b}[2J * $ONE", "unknown marker \"@\\u{1b}[2J\""),
        ];
        for (line, expected) in table {
            let known = known(&format!("# mine\n{line}\ngit.example $ONE"));
            let warnings = known.warnings();
            assert_eq!(warnings.len(), 1, "{line}");
            assert!(warnings[0].starts_with("/etc/poller/known_hosts:2: "));
            assert!(warnings[0].contains(expected), "{}", warnings[0]);
            assert_eq!(known.check("git.example", 22, &key(ONE)), Ok(()));
        }
    }

    #[test]
    fn a_refusal_says_what_to_compare_and_what_to_write_where() {
        let line = format!("[git.example]:2222 {TWO}");
        let compare = "First compare the fingerprint with the one";
        // (the file, what the text says beside what all of them say)
        let table = [
            ("", vec!["is not pinned", compare, &line]),
            (
                "#\n[git.example]:2222 $ONE\n[git.example]:2222 $P256",
                vec![
                    "attack",
                    "line 2 pins",
                    ONE_PRINT,
                    "line 3 pins",
                    P256_PRINT,
                ]
                .into_iter()
                .chain(["Ask the server's owner", "in the place of", compare, &line])
                .collect(),
            ),
            (
                "\n@revoked * $TWO",
                vec!["line 2 marks", "REVOKED", "no line to add"],
            ),
            (
                "$HASHED $TWO",
                vec!["line 1 pins this key for git.example,", compare, &line],
            ),
            (
                "\n[git.example]:2222 $RSA",
                vec!["line 2 pins: ssh-rsa", compare, &line]
                    .into_iter()
                    .chain(["\nssh-keyscan -t ed25519 -p 2222 git.example\n"])
                    .collect(),
            ),
        ];
        let file = "/etc/poller/known_hosts";
        for (text, parts) in table {
            let shown = key(&format!("{TWO} a comment"));
            let error = known(text).check("git.example", 2222, &shown).unwrap_err();
            let said = error.to_string();
            let always = ["git.example port 2222", "ssh-ed25519", TWO_PRINT, file];
            for part in parts.into_iter().chain(always) {
                assert!(said.contains(part), "no {part:?} in:\n{said}");
            }
            assert!(!said.contains("a comment"));
        }
    }
}
