//! Why a signature does not count, and what to do about it.

use std::path::Path;

use super::allowed_signers::Unfit;
use crate::outcome::{Class, Failure};

#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    Unsigned,
    Several,
    /// A `gpgsig…` header that is not git's for this kind of repository.
    OddHeader,
    Pgp,
    X509,
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

const SIGN: &str = "sign it with an SSH key: git config gpg.format ssh, git config user.signingkey FILE, git commit -S";
const FORGE: &str = "a forge signs the merges and edits made on its pages with its own key: merge where yours is";

impl Refusal {
    /// `subject` is what was looked at, such as "the commit fe5617a".
    pub fn failure(self, subject: &str, file: &Path) -> Failure {
        let refused = |text: String| Failure::new(Class::Refused, format!("{subject} {text}"));
        let shown = file.display();
        match self {
            Refusal::Unsigned => refused("is not signed, and `[verify] allowed_signers` asks for it".into()).help(SIGN),
            Refusal::Several => refused("carries more than one signature".into())
                .help("which one should count cannot be told: sign it anew, git commit --amend -S"),
            Refusal::OddHeader => refused("carries a signature header that is not git's for SHA-1 repositories".into())
                .help("sign it anew, git commit --amend -S"),
            Refusal::Pgp => {
                refused("is signed with OpenPGP, which this version does not verify".into()).help(FORGE).help(SIGN)
            }
            Refusal::X509 => refused("is signed with X.509, which poller does not verify".into()).help(SIGN),
            Refusal::Unreadable => refused("carries a signature that cannot be read".into())
                .help("it is damaged or not of SSH's making: sign it anew, git commit --amend -S"),
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
            Refusal::NotAllowed { fingerprint, line, why } => not_allowed(refused, &fingerprint, &line, why, &shown),
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
