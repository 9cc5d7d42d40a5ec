//! Signature: who signed what is to be published. Runs in the fetcher, before anything else is asked of a commit.
//!
//! As git does: the commit is signed by a key that counts, or the annotated tag that names it is, since a tag's
//! signature covers the commit's id. The raw bytes of the object are taken apart here (`object.rs`). A signature of
//! SSH is held against `allowed_signers`, read as ssh-keygen(1) has it (`allowed_signers.rs`), one of OpenPGP against
//! `pgp_keys` (`pgp.rs`); where both are set, either will do. Each way to fall short has its sentence (`refusal.rs`,
//! `pgp/refusal.rs`). Nothing is started for it, and no key but the files' is ever trusted.
//!
//! Not supported: X.509 signatures; SSH certificates, and RSA keys of SSH (russh is built without them).

pub mod allowed_signers;
pub mod object;
pub mod pgp;
mod refusal;

use anyhow::{Context, Result};
use git2::{ObjectType, Oid, Repository};
use russh::keys::ssh_key::SshSig;
use russh::keys::{Algorithm, HashAlg, PublicKey};

use self::allowed_signers::AllowedSigners;
use self::object::{Kind, Signed};
use self::pgp::document::Document;
use self::pgp::keys::PgpKeys;
use self::refusal::Refusal;
use super::fetch::Fetched;
use crate::outcome::Failure;
use crate::processes::messages::{KeyFile, SignedObject, Signer, Signers};
use crate::report::excerpt;

/// What git says a signature is for. Signatures of files and of other things do not count.
const NAMESPACE: &str = "git";

/// Of a name in an OpenPGP key, this much is shown.
const LONGEST_NAME: usize = 200;

/// Who signed the fetched commit, or the tag that led to it.
///
/// A tag that is not well signed does no harm to a commit that is: the server could have shown the commit
/// without it.
///
/// # Errors
/// `Refused`, with what was missing and what to do about it.
pub fn judge(repo: &Repository, fetched: &Fetched, signers: &Signers) -> Result<Signer> {
    let trusted = Trusted::parse(signers)?;
    let now = jiff::Timestamp::now().as_second();
    let of_tag = match tag(repo, fetched)? {
        None => None,
        Some((subject, signed)) => match signed.and_then(|signed| check(&signed, &trusted, now)) {
            Ok(found) => return Ok(found.by(SignedObject::Tag)),
            Err(refusal) => Some((subject, refusal)),
        },
    };
    let raw = read(repo, fetched.commit.oid()?, ObjectType::Commit)?;
    let refusal = match object::commit(&raw).and_then(|signed| check(&signed, &trusted, now)) {
        Ok(found) => return Ok(found.by(SignedObject::Commit)),
        Err(refusal) => refusal,
    };
    // Of two that fall short, the one that somebody tried to sign is told.
    let (subject, refusal) = match of_tag {
        Some((subject, of_tag)) if of_tag != Refusal::Unsigned => (subject, of_tag),
        _ => (format!("the commit {}", fetched.commit.short()), refusal),
    };
    Err(refusal.failure(&subject, signers).into())
}

/// The files, read. One that is not set lets no signature of its kind pass.
struct Trusted {
    allowed_signers: Option<AllowedSigners>,
    pgp_keys: Option<PgpKeys>,
}

impl Trusted {
    fn parse(signers: &Signers) -> Result<Trusted, Failure> {
        let Signers { allowed_signers, pgp_keys } = signers;
        Ok(Trusted {
            allowed_signers: allowed_signers
                .as_ref()
                .map(|it| AllowedSigners::parse(&it.file, &it.text))
                .transpose()?,
            pgp_keys: pgp_keys.as_ref().map(|it| PgpKeys::parse(&it.file, &it.text)).transpose()?,
        })
    }
}

/// The annotated tag that the ref holds, if it holds one: what to call it, and its parts.
fn tag(repo: &Repository, fetched: &Fetched) -> Result<Option<(String, Result<Signed, Refusal>)>> {
    let odb = repo.odb()?;
    let object = odb.read(fetched.object).with_context(|| format!("reading {}", fetched.object))?;
    if object.kind() != ObjectType::Tag {
        return Ok(None);
    }
    let subject = format!("the tag {}", crate::report::printable(&fetched.reference));
    let signed = object::tag(object.data()).and_then(|(name, signed)| {
        // Otherwise a server could show an old release under a new name.
        match fetched.reference.strip_prefix("refs/tags/") {
            Some(shown) if shown.as_bytes() != name => Err(Refusal::OtherName(excerpt(name))),
            _ => Ok(signed),
        }
    });
    Ok(Some((subject, signed)))
}

fn read(repo: &Repository, id: Oid, kind: ObjectType) -> Result<Vec<u8>> {
    let odb = repo.odb()?;
    let object = odb.read(id).with_context(|| format!("reading {id}"))?;
    anyhow::ensure!(object.kind() == kind, "{id} is no {kind}");
    Ok(object.data().to_vec())
}

/// Whose key it was.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    principals: String,
    fingerprint: String,
    subkey: Option<String>,
}

impl Found {
    fn by(self, signed: SignedObject) -> Signer {
        let Found { principals, fingerprint, subkey } = self;
        Signer { principals, fingerprint, subkey, signed }
    }
}

/// Holds a signature against what it covers and against who may sign.
fn check(signed: &Signed, trusted: &Trusted, now: i64) -> Result<Found, Refusal> {
    match object::kind(&signed.armour) {
        Kind::Pgp => check_pgp(signed, trusted.pgp_keys.as_ref().ok_or(Refusal::NoPgp)?, now),
        Kind::Ssh => check_ssh(signed, trusted.allowed_signers.as_ref().ok_or(Refusal::NoSsh)?),
        Kind::X509 => Err(Refusal::X509),
        Kind::Unknown => Err(Refusal::Unreadable),
    }
}

fn check_pgp(signed: &Signed, keys: &PgpKeys, now: i64) -> Result<Found, Refusal> {
    let document = Document::read(&signed.armour).map_err(Refusal::Pgp)?;
    let found = document.check(&signed.payload, keys, now).map_err(Refusal::Pgp)?;
    // The file is trusted; its owner does not read every name in it.
    let principals = excerpt(found.name.as_bytes()).chars().take(LONGEST_NAME).collect();
    Ok(Found { principals, fingerprint: found.fingerprint, subkey: found.subkey })
}

fn check_ssh(signed: &Signed, allowed: &AllowedSigners) -> Result<Found, Refusal> {
    let signature = object::dearmour(&signed.armour)?;
    let namespace = signature.namespace();
    if namespace != NAMESPACE {
        return Err(Refusal::Namespace(excerpt(namespace.as_bytes())));
    }
    let key = PublicKey::from(signature.public_key().clone());
    let fingerprint = key.fingerprint(HashAlg::Sha256).to_string();
    let kind = key.algorithm();
    if matches!(kind, Algorithm::Rsa { .. } | Algorithm::Dsa | Algorithm::Other(_)) {
        return Err(Refusal::KeyType { fingerprint, kind: excerpt(kind.as_str().as_bytes()) });
    }
    verify(&key, &signed.payload, &signature)?;
    let time = signed.time.ok_or(Refusal::NoTime)?;
    match allowed.find(key.key_data(), NAMESPACE, time) {
        Ok(principals) => Ok(Found { principals: principals.to_owned(), fingerprint, subkey: None }),
        Err(why) => {
            let line = PublicKey::from(key.key_data().clone()).to_openssh().unwrap_or_default();
            Err(Refusal::NotAllowed { fingerprint, line, why })
        }
    }
}

fn verify(key: &PublicKey, payload: &[u8], signature: &SshSig) -> Result<(), Refusal> {
    // As OpenSSH: a key of one type has no business with another's signatures.
    if signature.algorithm() != key.algorithm() {
        return Err(Refusal::Unreadable);
    }
    key.verify(NAMESPACE, payload, signature).map_err(|_| Refusal::Mismatch)
}

/// Reads the files for their mistakes only, so that they are told before any server is asked.
pub fn proofread(signers: &Signers) -> Result<(), Failure> {
    Trusted::parse(signers).map(drop)
}

/// The keys of `pgp_keys` by which nothing counts that is signed from now on: why, and what to do.
///
/// # Errors
/// As [`proofread`].
pub fn idle_keys(signers: &Signers) -> Result<Vec<Failure>, Failure> {
    let now = jiff::Timestamp::now().as_second();
    let Some(KeyFile { file, text }) = &signers.pgp_keys else { return Ok(Vec::new()) };
    Ok(pgp::idle::idle(&PgpKeys::parse(file, text)?, now, file))
}

#[cfg(test)]
mod tests;
