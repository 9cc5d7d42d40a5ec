//! Why a signature does not count, and what to do about it.

use std::path::PathBuf;

use super::allowed_signers::Unfit;
use super::pgp::refusal::Flaw;
use crate::outcome::{Class, Failure};
use crate::processes::messages::{KeyFile, Signers};

#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    Unsigned,
    Several,
    /// A `gpgsig…` header that is not git's for this kind of repository.
    OddHeader,
    /// Signed with OpenPGP, and `pgp_keys` is not set.
    NoPgp,
    /// Signed with SSH, and `allowed_signers` is not set.
    NoSsh,
    X509,
    Pgp(Flaw),
    Unreadable,
    Namespace(String),
    KeyType {
        fingerprint: String,
        kind: String,
    },
    /// The signature is not over this.
    Mismatch,
    NoTime,
    /// The tag was made under this name.
    OtherName(String),
    NotAllowed {
        fingerprint: String,
        /// The key, as a line of the file ends.
        line: String,
        why: Unfit,
    },
}

const SSH: &str = "sign it with an SSH key: git config gpg.format ssh, git config user.signingkey FILE, git commit -S";
const OPENPGP: &str =
    "sign it with gpg: git config gpg.format openpgp, git config user.signingkey FINGERPRINT, git commit -S";
const FORGE: &str = "a forge signs the merges and edits made on its pages with its own key: merge where yours is";

/// How to make a signature that would be looked at, a line for each way.
fn sign(signers: &Signers) -> impl Iterator<Item = &'static str> {
    let ssh = signers.allowed_signers.as_ref().map(|_| SSH);
    ssh.into_iter().chain(signers.pgp_keys.as_ref().map(|_| OPENPGP))
}

fn asked_for(signers: &Signers) -> &'static str {
    match (&signers.allowed_signers, &signers.pgp_keys) {
        (Some(_), Some(_)) => "`[verify] allowed_signers` and `pgp_keys` ask for it",
        (None, Some(_)) => "`[verify] pgp_keys` asks for it",
        _ => "`[verify] allowed_signers` asks for it",
    }
}

impl Refusal {
    /// `subject` is what was looked at, such as "the commit fe5617a".
    pub fn failure(self, subject: &str, signers: &Signers) -> Failure {
        let refused = |text: String| Failure::new(Class::Refused, format!("{subject} {text}"));
        let file = |file: Option<&KeyFile>| file.map_or_else(PathBuf::new, |file| file.file.clone());
        let with_ways = |failure: Failure| sign(signers).fold(failure, Failure::help);
        match self {
            Refusal::Unsigned => with_ways(refused(format!("is not signed, and {}", asked_for(signers)))),
            Refusal::Several => refused("carries more than one signature".into())
                .help("which one should count cannot be told: sign it anew, git commit --amend -S"),
            Refusal::OddHeader => refused("carries a signature header that is not git's for SHA-1 repositories".into())
                .help("sign it anew, git commit --amend -S"),
            Refusal::NoPgp => with_ways(
                refused("is signed with OpenPGP, and there are no `pgp_keys` in `[verify]` to hold it against".into())
                    .help(FORGE),
            )
            .help("or list the OpenPGP keys that count: gpg --export --armor NAME > FILE, and pgp_keys = \"FILE\""),
            Refusal::NoSsh => with_ways(refused(
                "is signed with an SSH key, and there are no `allowed_signers` in `[verify]` to hold it against".into(),
            ))
            .help("or list the SSH keys that count: allowed_signers = \"FILE\", as in ssh-keygen(1)"),
            Refusal::X509 => with_ways(refused("is signed with X.509, which poller does not verify".into())),
            Refusal::Pgp(flaw) => flaw.failure(subject, &file(signers.pgp_keys.as_ref())),
            Refusal::Unreadable => refused("carries a signature that cannot be read".into())
                .help("it is damaged, or of a kind that git does not make: sign it anew, git commit --amend -S"),
            Refusal::Namespace(other) => {
                refused(format!("carries a signature that was made for `{other}` and not for `git`"))
                    .help("it was not made by git: sign it with git commit -S or git tag -s")
            }
            Refusal::KeyType { fingerprint, kind } => {
                refused(format!("is signed by the {kind} key {fingerprint}, a type that poller does not verify"))
                    .help("sign it with another key: ssh-keygen -t ed25519")
            }
            Refusal::Mismatch => refused("does not fit its signature".into())
                .help("it was altered after it was signed, or the signature is that of something else"),
            Refusal::NoTime => refused("does not say when it was made, so its signer cannot be judged".into())
                .help("sign it anew, git commit --amend -S"),
            Refusal::OtherName(name) => refused(format!("holds a tag that was made as `{name}`"))
                .help("a signed tag counts under its own name only: make it anew, git tag -s"),
            Refusal::NotAllowed { fingerprint, line, why } => {
                not_allowed(refused, &fingerprint, &line, why, &file(signers.allowed_signers.as_ref()).display())
            }
        }
    }
}

fn not_allowed(
    refused: impl Fn(String) -> Failure,
    fingerprint: &str,
    key: &str,
    why: Unfit,
    file: &impl std::fmt::Display,
) -> Failure {
    let signed = format!("is signed by the key {fingerprint}");
    match why {
        Unfit::Unknown => refused(format!("{signed}, which is not in {file}"))
            .help("if its owner may sign what is deployed here, add a line with the name before the key:")
            .help(format!("NAME@HOST namespaces=\"git\" {key}")),
        Unfit::Nobody { line } => refused(format!("{signed}, and {file}:{line} lists nobody that it stands for"))
            .help("a list of principals needs one that is not taken back by a `!`"),
        Unfit::Namespace { line } => refused(format!("{signed}, which {file}:{line} does not let sign for `git`"))
            .help("if it may, write namespaces=\"git\" in that line"),
        Unfit::Early { line, after } => {
            refused(format!("{signed} before its time: {file}:{line} lets it from {after} on"))
                .help("the time of a signature is the committer's or the tagger's")
        }
        Unfit::Late { line, before } => {
            refused(format!("{signed} after its time: {file}:{line} lets it until {before}"))
                .help("sign it with a key that has not expired, or change valid-before in that line")
        }
    }
}
