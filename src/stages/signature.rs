//! Signature: who signed what is to be published. Runs in the fetcher, before anything else is asked of a commit.
//!
//! As git does with `gpg.format=ssh`: the commit is signed by a key of `allowed_signers`, or the annotated tag
//! that names it is, since a tag's signature covers the commit's id. The raw bytes of the object are taken apart
//! here (`object.rs`), the file is read as ssh-keygen(1) has it (`allowed_signers.rs`), and each way to fall short
//! has its sentence (`refusal.rs`). Nothing is started for it, and no key but the file's is ever trusted.
//!
//! Not supported: OpenPGP and X.509 signatures, certificates, and RSA keys (their crate is left out of this build).

pub mod allowed_signers;
pub mod object;
mod refusal;

use anyhow::{Context, Result};
use git2::{ObjectType, Oid, Repository};
use russh::keys::ssh_key::SshSig;
use russh::keys::{Algorithm, HashAlg, PublicKey};

use self::allowed_signers::AllowedSigners;
use self::object::Signed;
use self::refusal::Refusal;
use super::fetch::Fetched;
use crate::outcome::Failure;
use crate::processes::messages::{SignedObject, Signer, Signers};

/// What git says a signature is for. Signatures of files and of other things do not count.
const NAMESPACE: &str = "git";

/// Who signed the fetched commit, or the tag that led to it.
///
/// A tag that is not well signed does no harm to a commit that is: the server could have shown the commit
/// without it.
///
/// # Errors
/// `Refused`, with what was missing and what to do about it.
pub fn judge(repo: &Repository, fetched: &Fetched, signers: &Signers) -> Result<Signer> {
    let allowed = AllowedSigners::parse(&signers.file, &signers.text)?;
    let of_tag = match tag(repo, fetched)? {
        None => None,
        Some((subject, signed)) => match signed.and_then(|signed| check(&signed, &allowed)) {
            Ok(found) => return Ok(found.by(SignedObject::Tag)),
            Err(refusal) => Some((subject, refusal)),
        },
    };
    let raw = read(repo, fetched.commit.oid()?, ObjectType::Commit)?;
    let refusal = match object::commit(&raw).and_then(|signed| check(&signed, &allowed)) {
        Ok(found) => return Ok(found.by(SignedObject::Commit)),
        Err(refusal) => refusal,
    };
    // Of two that fall short, the one that somebody tried to sign is told.
    let (subject, refusal) = match of_tag {
        Some((subject, of_tag)) if of_tag != Refusal::Unsigned => (subject, of_tag),
        _ => (format!("the commit {}", fetched.commit.short()), refusal),
    };
    Err(refusal.failure(&subject, &signers.file).into())
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
            Some(shown) if shown.as_bytes() != name => Err(Refusal::OtherName(object::text(name))),
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
}

impl Found {
    fn by(self, signed: SignedObject) -> Signer {
        Signer { principals: self.principals, fingerprint: self.fingerprint, signed }
    }
}

/// Holds a signature against what it covers and against who may sign.
fn check(signed: &Signed, allowed: &AllowedSigners) -> Result<Found, Refusal> {
    let signature = object::dearmour(&signed.armour)?;
    let namespace = signature.namespace();
    if namespace != NAMESPACE {
        return Err(Refusal::Namespace(object::text(namespace.as_bytes())));
    }
    let key = PublicKey::from(signature.public_key().clone());
    let fingerprint = key.fingerprint(HashAlg::Sha256).to_string();
    let kind = key.algorithm();
    if matches!(kind, Algorithm::Rsa { .. } | Algorithm::Dsa | Algorithm::Other(_)) {
        return Err(Refusal::KeyType { fingerprint, kind: object::text(kind.as_str().as_bytes()) });
    }
    verify(&key, &signed.payload, &signature)?;
    let time = signed.time.ok_or(Refusal::NoTime)?;
    match allowed.find(key.key_data(), NAMESPACE, time) {
        Ok(principals) => Ok(Found { principals: principals.to_owned(), fingerprint }),
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

/// Reads the file for its mistakes only, so that they are told before any server is asked.
pub fn proofread(signers: &Signers) -> Result<(), Failure> {
    AllowedSigners::parse(&signers.file, &signers.text).map(drop)
}

#[cfg(test)]
mod tests;
