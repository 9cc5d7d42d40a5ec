//! Keys of the file by which nothing counts that is signed from now on: told by `poller check`, before somebody signs
//! in vain. What they signed in their time still passes, unless they are revoked or were never good.

use std::path::Path;

use pgp::types::KeyDetails;

use super::algorithms::weakness;
use super::certificate::{Certificate, Unfit, Which};
use super::document::AHEAD;
use super::keys::PgpKeys;
use super::refusal::{RENEW, SUBKEY, at as time};
use crate::outcome::{Class, Failure};
use crate::report::printable;

/// Why a key can sign nothing.
#[derive(Debug, PartialEq, Eq)]
pub enum Idle {
    Weak(Which, String),
    Unfit(Unfit),
}

const ANOTHER: &str = "its owner makes another key, to take its place in the file: \
    gpg --quick-generate-key NAME ed25519 sign";
const CLOCK: &str = "a clock is wrong, its owner's or this host's";

/// One for each such key.
pub fn idle(keys: &PgpKeys, now: i64, file: &Path) -> Vec<Failure> {
    let at = u32::try_from(now).unwrap_or(u32::MAX);
    let idle = keys.certificates.iter().filter_map(|certificate| Some((certificate, why(certificate, at)?)));
    idle.map(|(certificate, why)| failure(certificate, &why, at, file)).collect()
}

/// None: it can sign.
pub fn why(certificate: &Certificate, at: u32) -> Option<Idle> {
    if let Some(what) = weakness(&certificate.primary) {
        return Some(Idle::Weak(Which::Key, what));
    }
    // The owner's clock may be ahead of this one.
    let is_soon = |why| matches!(why, Unfit::Early(_, begin) if begin <= i64::from(at) + AHEAD);
    let parts = match certificate.may_any_sign(at) {
        Ok(parts) => parts,
        Err(why) => return (!is_soon(why)).then_some(Idle::Unfit(why)),
    };
    let mut all = Vec::new();
    let subkeys = certificate.subkeys.iter().map(|subkey| weakness(&subkey.what));
    for (part, weak) in parts.into_iter().zip([None].into_iter().chain(subkeys)) {
        match (part, weak) {
            (Err(why), None) if is_soon(why) => return None,
            (Err(why), _) => all.push(Idle::Unfit(why)),
            (Ok(()), Some(what)) => all.push(Idle::Weak(Which::Subkey, what)),
            (Ok(()), None) => return None,
        }
    }
    // Most keys have parts that are for something else; what is wrong is told of those that were to sign.
    let other = all.iter().position(|why| !matches!(why, Idle::Unfit(Unfit::NotForSigning(_))));
    Some(all.swap_remove(other.unwrap_or(0)))
}

fn failure(certificate: &Certificate, why: &Idle, at: u32, file: &Path) -> Failure {
    let fingerprint = format!("{:X}", certificate.primary.fingerprint());
    let name = certificate.name(at);
    let name = if name.is_empty() { name } else { format!(" ({})", printable(&name)) };
    let (text, help) = told(why);
    let shown = file.display();
    let message = format!("{shown}: with the key {fingerprint}{name} nothing can be signed: {text}");
    let failure = Failure::new(Class::Refused, message).help(help);
    match help {
        ANOTHER | CLOCK => failure,
        _ => failure.help(format!("then export it again: gpg --export --armor {fingerprint} and into {shown}")),
    }
}

fn told(why: &Idle) -> (String, &'static str) {
    let subject = |which: &Which| match which {
        Which::Key => "it",
        Which::Subkey => "its subkey",
    };
    let unfit = match why {
        Idle::Weak(Which::Key, what) => return (format!("it is {what}"), ANOTHER),
        Idle::Weak(Which::Subkey, what) => return (format!("its subkey is {what}"), SUBKEY),
        Idle::Unfit(unfit) => unfit,
    };
    match unfit {
        Unfit::NoSelfSignature => {
            ("it has no valid name and no signature of its own that says what it is for".into(), RENEW)
        }
        Unfit::WeakSelfSignature => {
            ("its owner has signed it with a hash that is not strong enough, such as SHA-1".into(), RENEW)
        }
        Unfit::Revoked(Which::Key) => ("it is revoked".into(), ANOTHER),
        Unfit::Revoked(Which::Subkey) => ("its subkey is revoked".into(), SUBKEY),
        Unfit::Expired(which, end) => (format!("{} has expired at {}", subject(which), time(*end)), RENEW),
        Unfit::Early(which, begin) => {
            (format!("{} was made at {}, which is to come", subject(which), time(*begin)), CLOCK)
        }
        Unfit::NotForSigning(_) => ("neither it nor a subkey of it is meant for signatures".into(), SUBKEY),
        Unfit::NotBound => ("its subkey is not bound to it".into(), SUBKEY),
        Unfit::WeakBinding => {
            ("its subkey is bound to it with a hash that is not strong enough, such as SHA-1".into(), SUBKEY)
        }
        Unfit::NoBackSignature => (
            "its subkey does not say that it belongs to it".into(),
            "its owner lets it say so: gpg --edit-key FINGERPRINT cross-certify save",
        ),
    }
}
