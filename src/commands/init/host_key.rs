//! The server's host key: found in known_hosts, or pinned there after somebody vouched for it. The
//! public forges' keys are bundled; any other is shown, and accepted by its fingerprint or by a typed
//! `yes`. Never silently, and never in the place of another.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use russh::keys::ssh_key::Fingerprint;
use russh::keys::{HashAlg, PublicKey};

use super::answers::Asker;
use crate::outcome::{Class, Failure};
use crate::processes::supervisor;
use crate::remote::host_key_error::{HostKeyError, Shown};
use crate::remote::known_hosts::{KnownHosts, file_name_of};
use crate::report::printable;
use crate::report::terminal::tell;
use crate::sys::account::Account;
use crate::sys::fresh::{self, Draft};
use crate::sys::trusted_file::{self, Secrecy};

/// What is shipped as /etc/poller/known_hosts.
const BUNDLED: &str = include_str!("../../../etc/poller/known_hosts");
const TIMEOUT: Duration = Duration::from_secs(30);
const COMPARE: &str = "compare the fingerprint with the one that the server's owner publishes";

/// A server, by what its host key is pinned for.
#[derive(Clone, Copy)]
pub struct Server<'a> {
    pub host: &'a str,
    pub port: u16,
}

pub struct HostKey<'a> {
    server: Server<'a>,
    /// The known_hosts file, where links lead to.
    pub path: PathBuf,
    /// Type and fingerprint, best first.
    pub pins: Vec<(String, String)>,
    /// What is to be added to the file; None: pinned already.
    add: Option<String>,
}

/// A fingerprint as it is given by `--accept-host-key`.
pub fn accepted(text: &str) -> Result<String, Failure> {
    let parsed = text.trim().parse::<Fingerprint>().ok().filter(|print| print.algorithm() == HashAlg::Sha256);
    parsed.map(|print| print.to_string()).ok_or_else(|| {
        Failure::new(Class::Usage, format!("--accept-host-key: `{}` is not a fingerprint", printable(text)))
            .help("it looks like SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU, as ssh-keygen -l prints it")
    })
}

impl<'a> HostKey<'a> {
    /// Finds out what is to be pinned; asks the server, as the fetch user, if nothing else tells.
    ///
    /// # Errors
    /// `Protocol` when nobody vouches for the key, or when it is not the one that was vouched for.
    pub fn prepare(
        server: Server<'a>,
        file: &Path,
        fetch: Option<&Account>,
        accept: Option<&str>,
        asker: &Asker,
    ) -> Result<HostKey<'a>> {
        let Server { host, port } = server;
        let text = read(file)?;
        // A link is followed only now that it is known to be nobody else's.
        let path = if file.exists() { std::fs::canonicalize(file)? } else { file.to_owned() };
        let known = KnownHosts::parse(&path, &text);
        let pins = known.pins(host, port);
        if !pins.is_empty() {
            vouched(server, &pins, accept, &format!("pinned in {}", path.display()))?;
            return Ok(HostKey { server, path, pins, add: None });
        }
        fresh::check(&path)?;
        let add = match bundled(server) {
            Some((lines, pins)) => {
                vouched(server, &pins, accept, "what its owner publishes")?;
                // A paragraph of its own.
                if text.is_empty() { lines } else { format!("\n{lines}") }
            }
            None => ask(server, &known, fetch, accept, asker)?,
        };
        let pins = KnownHosts::parse(&path, &joined(&text, &add)).pins(host, port);
        if pins.is_empty() {
            let message = format!("{} revokes the host keys of {host}", path.display());
            return Err(Failure::new(Class::Protocol, message)
                .help("ask the server's owner which key is the right one")
                .into());
        }
        Ok(HostKey { server, path, pins, add: Some(add) })
    }

    pub fn is_there(&self) -> bool {
        self.add.is_none()
    }

    /// `git.example.org`, or `[git.example.org]:2222`.
    pub fn name(&self) -> String {
        file_name_of(self.server.host, self.server.port)
    }

    /// Adds the lines, with all others kept: the file is read again while no other poller can write it.
    pub fn write(&self) -> Result<()> {
        let Some(add) = &self.add else { return fresh::tidy(&self.path) };
        let Server { host, port } = self.server;
        let mut draft = Draft::begin(&self.path)?;
        let text = read(&self.path)?;
        let pins = KnownHosts::parse(&self.path, &text).pins(host, port);
        if pins.iter().any(|pin| self.pins.contains(pin)) {
            return Ok(());
        }
        if !pins.is_empty() {
            let message =
                format!("the host key of {host} was pinned by somebody else in this moment, and it is another");
            return Err(Failure::new(Class::Protocol, message).help("look at it, and run this again").into());
        }
        draft.write(&joined(&text, add))?;
        draft.replace(0o644)
    }
}

fn read(path: &Path) -> Result<String> {
    match trusted_file::read(path, Secrecy::Public) {
        Ok(text) => {
            // Written anew, a file that was read in part would lose the rest.
            let length = std::fs::metadata(path).with_context(|| path.display().to_string())?.len();
            anyhow::ensure!(length == text.len() as u64, "{} is too long", path.display());
            Ok(text)
        }
        Err(e) if fresh::is_missing(&e) => Ok(String::new()),
        Err(e) => Err(e),
    }
}

fn joined(text: &str, add: &str) -> String {
    let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    format!("{text}{end}{add}")
}

/// The paragraphs of the bundled file that are about a server.
fn bundled(server: Server) -> Option<(String, Vec<(String, String)>)> {
    let about = |text: &str| KnownHosts::parse(Path::new("known_hosts"), text).pins(server.host, server.port);
    let paragraphs = BUNDLED.split("\n\n").filter(|paragraph| !about(paragraph).is_empty());
    let lines: String = paragraphs.map(|paragraph| format!("{}\n\n", paragraph.trim())).collect();
    let lines = lines.trim_end().to_owned() + "\n";
    let pins = about(&lines);
    (!pins.is_empty()).then_some((lines, pins))
}

/// Whether the fingerprint that somebody gave is one of those that are known.
fn vouched(server: Server, pins: &[(String, String)], accept: Option<&str>, known: &str) -> Result<(), Failure> {
    if accept.is_none_or(|accept| pins.iter().any(|(_, print)| print == accept)) {
        return Ok(());
    }
    let message =
        format!("--accept-host-key is not the host key of {} port {}: another is {known}", server.host, server.port);
    let failure = pins
        .iter()
        .fold(Failure::new(Class::Protocol, message), |failure, (kind, print)| failure.help(format!("{kind} {print}")));
    Err(failure
        .help("ask the server's owner whether the key was replaced; a pinned key is never replaced by poller")
        .help("nothing was changed"))
}

/// The line for the key that the server shows, once somebody vouched for it.
fn ask(
    server: Server,
    known: &KnownHosts,
    fetch: Option<&Account>,
    accept: Option<&str>,
    asker: &Asker,
) -> Result<String> {
    let Server { host, port } = server;
    let line = supervisor::host_key(fetch, host, port, TIMEOUT).map_err(|e| {
        let failure = Failure::of(e);
        let help = "nothing was changed; run this again when it answers".to_owned();
        if failure.class == Class::Unreachable { Failure { help: vec![help], ..failure } } else { failure }
    })?;
    let key = PublicKey::from_openssh(&line).context("a host key that is none")?;
    let shown = match known.check(host, port, &key) {
        Err(HostKeyError::NotPinned { shown, .. } | HostKeyError::OtherPort { shown, .. }) => shown,
        // Pinned is a key that poller cannot check. This one it can.
        Err(HostKeyError::OnlyUnsupported { shown, pins }) if !pins.is_empty() => shown,
        Err(refused) => return Err(Failure::from(refused).into()),
        Ok(()) => anyhow::bail!("a host key that is pinned, and is not"),
    };
    compare(&shown, accept, asker)?;
    Ok(format!("{}\n", shown.to_add))
}

/// Whether somebody vouches for the key shown: by its fingerprint, or by a typed `yes`.
fn compare(shown: &Shown, accept: Option<&str>, asker: &Asker) -> Result<()> {
    let Shown { host, port, key_type, fingerprint, .. } = shown;
    let refused = |message: &str| Failure::new(Class::Protocol, message);
    if let Some(accept) = accept {
        if accept == fingerprint {
            return Ok(());
        }
        return Err(refused(&format!("{host} port {port} shows another host key than the one accepted"))
            .help(format!("accepted: {accept}"))
            .help(format!("shown:    {fingerprint} ({key_type})"))
            .help("a mistyped fingerprint, or somebody between here and the server; nothing was changed")
            .into());
    }
    let unknown = format!("the host key of {host} port {port} is not known yet");
    if let Asker::Terminal = asker {
        tell(&format!("T{}:\n  {key_type} {fingerprint}\nFirst {COMPARE}.", &unknown[1..]));
    }
    match asker.line("If they are the same, type yes: ")?.as_deref() {
        Some("yes") => Ok(()),
        Some(_) => Err(refused("the host key was not accepted").help("nothing was changed").into()),
        None => Err(refused(&unknown)
            .help(format!("shown: {key_type} {fingerprint}"))
            .help(format!("First {COMPARE}."))
            .help("If they are the same, run this again with")
            .help(format!("  --accept-host-key {fingerprint}"))
            .into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_public_forges_are_bundled_with_where_they_publish_their_keys() {
        for host in ["github.com", "gitlab.com", "bitbucket.org", "codeberg.org", "git.sr.ht", "GitHub.com"] {
            let (lines, pins) = bundled(Server { host, port: 22 }).unwrap();
            assert_eq!(pins.len(), 2, "{host}");
            assert_eq!(pins[0].0, "ssh-ed25519");
            assert!(pins.iter().all(|(_, print)| lines.contains(&format!("# {print}"))), "{lines}");
            assert_eq!(lines.lines().filter(|line| line.starts_with("# https://")).count(), 2, "{lines}");
            assert!(!lines.contains("Don't take"));
        }
        assert!(bundled(Server { host: "github.com", port: 2222 }).is_none());
        assert!(bundled(Server { host: "git.example.org", port: 22 }).is_none());
    }

    #[test]
    fn a_fingerprint_is_read_as_ssh_keygen_prints_it() {
        let print = "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU";
        assert_eq!(accepted(print).unwrap(), print);
        for wrong in ["", "yes", "SHA256:", "SHA256:abc", "+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU", "MD5:16:27:ac"]
        {
            assert_eq!(accepted(wrong).unwrap_err().class, Class::Usage, "{wrong}");
        }
    }

    #[test]
    fn lines_are_added_to_a_file_without_a_newline_at_its_end() {
        assert_eq!(joined("a", "b\n"), "a\nb\n");
        assert_eq!(joined("a\n", "b\n"), "a\nb\n");
        assert_eq!(joined("", "b\n"), "b\n");
    }
}
