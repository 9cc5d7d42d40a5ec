//! Why an OpenPGP signature does not count, in sentences.

use std::path::Path;

use jiff::Timestamp;

use super::certificate::{Unfit, Which};
use super::document::AHEAD;
use crate::outcome::{Class, Failure};
use crate::report::{duration, printable};

#[derive(Debug, PartialEq, Eq)]
pub enum Flaw {
    Unreadable,
    TooLong,
    Several,
    Version,
    NotADocument,
    LineEnds,
    WeakHash(String),
    AsksTooMuch,
    NoTime,
    /// It names no key.
    Anonymous,
    /// The key that it names, which is not in the file.
    Unknown(String),
    WeakKey {
        fingerprint: String,
        what: String,
    },
    /// The signature is not over this.
    Mismatch,
    Future(i64),
    Expired(i64),
    Unfit {
        fingerprint: String,
        name: String,
        why: Unfit,
    },
}

const ANEW: &str = "sign it anew, git commit --amend -S";
const NEWER: &str = "sign it with a gpg of today and its defaults: git commit --amend -S";

impl Flaw {
    pub fn failure(self, subject: &str, file: &Path) -> Failure {
        let refused = |text: &str| Failure::new(Class::Refused, format!("{subject} {text}"));
        let shown = file.display();
        match self {
            Flaw::Unreadable => refused("carries an OpenPGP signature that cannot be read")
                .help("it is damaged, or something was added to it: sign it anew, git commit --amend -S"),
            Flaw::TooLong => refused("carries an OpenPGP signature of more than 64 KiB").help(NEWER),
            Flaw::Several => refused("carries more than one OpenPGP signature")
                .help("which one should count cannot be told: sign it anew with one key, git commit --amend -S"),
            Flaw::Version => refused("carries an OpenPGP signature of a version other than 4 and 6").help(NEWER),
            Flaw::NotADocument => refused("carries an OpenPGP signature that is not one of a document").help(ANEW),
            Flaw::LineEnds => refused("is signed as a text, and has line ends of several kinds in it")
                .help("take textmode out of gpg.conf, and sign it anew"),
            Flaw::WeakHash(hash) => refused(&format!("is signed with {hash}, a hash that is not strong enough"))
                .help("take digest-algo, personal-digest-preferences and the like out of gpg.conf, and sign it anew"),
            Flaw::AsksTooMuch => refused("carries an OpenPGP signature with a critical part that poller does not know")
                .help("take what marks notations or policies as critical (a `!`) out of gpg.conf, and sign it anew"),
            Flaw::NoTime => {
                refused("carries an OpenPGP signature that does not say, once, when it was made").help(ANEW)
            }
            Flaw::Anonymous => refused("carries an OpenPGP signature that does not say which key made it").help(NEWER),
            Flaw::Unknown(key) => refused(&format!("is signed by the OpenPGP key {key}, which is not in {shown}"))
                .help("if its owner may sign what is deployed here, add it, from a machine that has it:")
                .help(format!("gpg --export --armor {key} >> {shown}")),
            Flaw::WeakKey { fingerprint, what } => {
                refused(&format!("is signed by the key {fingerprint}, which is {what}"))
                    .help("sign it with another key: gpg --quick-generate-key NAME ed25519 sign")
            }
            Flaw::Mismatch => refused("does not fit its signature")
                .help("it was altered after it was signed, or the signature is that of something else"),
            Flaw::Future(time) => refused(&format!("is signed at {}, which is to come", at(time))).help(format!(
                "a clock is wrong, the signer's or this host's; up to {} are passed over",
                duration(std::time::Duration::from_secs(AHEAD.unsigned_abs()))
            )),
            Flaw::Expired(time) => refused(&format!("carries a signature that has expired at {}", at(time)))
                .help("sign it anew, and without default-sig-expire in gpg.conf"),
            Flaw::Unfit { fingerprint, name, why } => {
                let name = if name.is_empty() { String::new() } else { format!(" ({})", printable(&name)) };
                let (text, help) = unfit(why);
                let again = format!("then export it again: gpg --export --armor {fingerprint} and into {shown}");
                let failure = refused(&format!("is signed by the key {fingerprint}{name}, {text}")).help(help);
                if matches!(why, Unfit::Early(..) | Unfit::Revoked(_)) { failure } else { failure.help(again) }
            }
        }
    }
}

pub const RENEW: &str =
    "its owner renews it by setting how long it lasts: gpg --quick-set-expire FINGERPRINT 2y, and … 2y '*'";
pub const SUBKEY: &str = "its owner makes a new subkey: gpg --quick-add-key FINGERPRINT ed25519 sign 2y";

fn unfit(why: Unfit) -> (String, &'static str) {
    const OTHER: &str = "sign it with a key that is not revoked, and take this one out of the file";
    let subject = |which: Which| match which {
        Which::Key => "which",
        Which::Subkey => "whose subkey, which made the signature,",
    };
    match why {
        Unfit::NoSelfSignature => {
            ("which has no valid name and no signature of its own that says what it is for".into(), RENEW)
        }
        Unfit::WeakSelfSignature => {
            ("which its owner has signed with a hash that is not strong enough, such as SHA-1".into(), RENEW)
        }
        Unfit::Revoked(which) => (format!("{} is revoked", subject(which)), OTHER),
        Unfit::Expired(which, end) => (
            format!("{} had expired at {}, before it was signed", subject(which), at(end)),
            "sign it with a key that has not expired, or have its owner renew it: gpg --quick-set-expire FINGERPRINT 2y",
        ),
        Unfit::Early(which, begin) => (
            format!("{} was made at {} only, after the signature", subject(which), at(begin)),
            "the signer's clock was wrong, or the date is invented: sign it anew, git commit --amend -S",
        ),
        Unfit::NotForSigning(which) => (format!("{} is not meant for signatures", subject(which)), SUBKEY),
        Unfit::NotBound => ("to which the subkey that made the signature is not bound".into(), SUBKEY),
        Unfit::WeakBinding => (
            "to which the subkey that made the signature is bound with a hash that is not strong enough, such as SHA-1"
                .into(),
            SUBKEY,
        ),
        Unfit::NoBackSignature => (
            "to which the subkey that made the signature does not say that it belongs".into(),
            "its owner lets it say so: gpg --edit-key FINGERPRINT cross-certify save",
        ),
    }
}

pub fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX)
}
