//! A signature over a commit or a tag.
//!
//! It comes from the server, so it is bounded, and there is exactly one way to read it: one block, one packet, one
//! time in it, and a key that it names itself.

use pgp::packet::{Signature, SignatureType, SubpacketData};
use pgp::types::{Fingerprint, KeyDetails, KeyId, VerifyingKey};

use super::algorithms::{is_strong, weakness};
use super::armour::{self, Around};
use super::certificate::{Certificate, Part, Unfit, asks_too_much, end};
use super::keys::PgpKeys;
use super::packets;
use super::refusal::Flaw;

/// gpg's are a tenth of it, with an RSA key of 16384 bits a third.
const LONGEST: usize = 64 << 10;

/// How far a signer's clock may be ahead of this one, in seconds: a day, for those whose time zone is wrong.
pub const AHEAD: i64 = 24 * 60 * 60;

#[derive(Debug)]
pub struct Document {
    signature: Signature,
    /// When it was made, by its own word.
    created: u32,
    /// The keys that it names; all of them must fit.
    fingerprints: Vec<Fingerprint>,
    ids: Vec<KeyId>,
}

/// Whose key it was.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    pub name: String,
    pub fingerprint: String,
    pub subkey: Option<String>,
}

impl Document {
    /// Reads a signature without asking whose it is.
    pub fn read(armoured: &[u8]) -> Result<Document, Flaw> {
        if armoured.len() > LONGEST {
            return Err(Flaw::TooLong);
        }
        let text = std::str::from_utf8(armoured).map_err(|_| Flaw::Unreadable)?;
        let mut blocks = armour::blocks(text, Around::Nothing).map_err(|_| Flaw::Unreadable)?;
        let block = blocks.pop().filter(|block| block.label == "PGP SIGNATURE").ok_or(Flaw::Unreadable)?;
        if !blocks.is_empty() {
            return Err(Flaw::Several);
        }
        let packets = packets::split(&block.bytes).ok_or(Flaw::Unreadable)?;
        let signature = match &packets[..] {
            [packet] => packet.signature().ok_or(Flaw::Unreadable)?,
            [] => return Err(Flaw::Unreadable),
            _ => return Err(Flaw::Several),
        };
        let fingerprints = signature.issuer_fingerprint().into_iter().cloned().collect();
        let ids = signature.issuer_key_id().into_iter().copied().collect();
        let created = created(&signature)?;
        Ok(Document { signature, created, fingerprints, ids })
    }

    /// Whether it was made over this, by a key that may.
    pub fn check(&self, payload: &[u8], keys: &PgpKeys, now: i64) -> Result<Found, Flaw> {
        // Line ends are all the same in a signature of a text: then it must have one kind only.
        if self.signature.typ() == Some(SignatureType::Text) && payload.contains(&b'\r') {
            return Err(Flaw::LineEnds);
        }
        let mut flaw = Flaw::Unknown(self.issuer().ok_or(Flaw::Anonymous)?);
        for certificate in &keys.certificates {
            for part in self.parts(certificate) {
                match self.check_by(certificate, part, payload, now) {
                    Ok(found) => return Ok(found),
                    Err(found) => flaw = found,
                }
            }
        }
        Err(flaw)
    }

    /// Those of a certificate that the signature says it was made by.
    fn parts<'a>(&'a self, certificate: &'a Certificate) -> impl Iterator<Item = Part> + 'a {
        let subkeys = certificate.subkeys.iter().enumerate();
        let subkeys = subkeys.filter(|(_, subkey)| self.names(&subkey.what)).map(|(index, _)| Part::Subkey(index));
        self.names(&certificate.primary).then_some(Part::Primary).into_iter().chain(subkeys)
    }

    fn names(&self, key: &impl KeyDetails) -> bool {
        self.fingerprints.iter().all(|named| *named == key.fingerprint())
            && self.ids.iter().all(|named| *named == key.legacy_key_id())
    }

    /// As people know keys.
    fn issuer(&self) -> Option<String> {
        let fingerprint = self.fingerprints.first().map(|fingerprint| format!("{fingerprint:X}"));
        fingerprint.or_else(|| self.ids.first().map(|id| id.to_string().to_uppercase()))
    }

    fn check_by(&self, whose: &Certificate, part: Part, payload: &[u8], now: i64) -> Result<Found, Flaw> {
        let fingerprint = format!("{:X}", whose.primary.fingerprint());
        let subkey = match part {
            Part::Primary => None,
            Part::Subkey(index) => Some(&whose.subkeys[index].what),
        };
        // A strong subkey is worth no more than the key that vouches for it.
        let weak = weakness(&whose.primary).or_else(|| subkey.and_then(weakness));
        if let Some(what) = weak {
            return Err(Flaw::WeakKey { fingerprint, what });
        }
        match subkey {
            None => self.verify(&whose.primary, payload)?,
            Some(subkey) => self.verify(subkey, payload)?,
        }
        let name = whose.name(self.created);
        let unfit = |why: Unfit| Flaw::Unfit { fingerprint: fingerprint.clone(), name: name.clone(), why };
        whose.may_sign(part, self.created).map_err(unfit)?;
        if i64::from(self.created) > now + AHEAD {
            return Err(Flaw::Future(self.created.into()));
        }
        let created = pgp::types::Timestamp::from_secs(self.created);
        match end(created, self.signature.signature_expiration_time()) {
            Some(end) if end <= now => Err(Flaw::Expired(end)),
            _ => Ok(Found { name, fingerprint, subkey: subkey.map(|subkey| format!("{:X}", subkey.fingerprint())) }),
        }
    }

    fn verify(&self, key: &impl VerifyingKey, payload: &[u8]) -> Result<(), Flaw> {
        // A key of one type has no business with another's signatures.
        let same_type = self.signature.config().is_some_and(|config| config.pub_alg == key.algorithm());
        let verified = same_type && self.signature.verify(key, payload).is_ok();
        if verified { Ok(()) } else { Err(Flaw::Mismatch) }
    }
}

/// Whether it is a signature of the kind that git makes; when it was made.
fn created(signature: &Signature) -> Result<u32, Flaw> {
    use pgp::packet::SignatureVersion::{V4, V6};
    let config = signature.config().filter(|config| matches!(config.version(), V4 | V6));
    let config = config.ok_or(Flaw::Version)?;
    if !matches!(config.typ, SignatureType::Binary | SignatureType::Text) {
        return Err(Flaw::NotADocument);
    }
    if !is_strong(config.hash_alg) {
        return Err(Flaw::WeakHash(config.hash_alg.to_string()));
    }
    if asks_too_much(signature) {
        return Err(Flaw::AsksTooMuch);
    }
    let (mut times, mut ends) = (Vec::new(), 0);
    for subpacket in config.hashed_subpackets() {
        match &subpacket.data {
            SubpacketData::SignatureCreationTime(time) => times.push(time.as_secs()),
            SubpacketData::SignatureExpirationTime(_) => ends += 1,
            _ => {}
        }
    }
    match times[..] {
        [time] if ends < 2 => Ok(time),
        _ => Err(Flaw::NoTime),
    }
}
