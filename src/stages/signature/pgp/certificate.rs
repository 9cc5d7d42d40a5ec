//! A public key with what its owner says of it, and whether it may sign.
//!
//! Of several signatures of the owner on one thing the newest counts, so that who renews a key need not take the old
//! signatures away. A revocation is believed as it stands, whoever made it and why, and for all times: the file is
//! the administrator's own, and who has a stolen key can sign with any date.

use pgp::packet::{PublicKey, PublicSubkey, Signature, SignatureType, SubpacketData, UserId};
use pgp::types::{Duration, KeyDetails, Tag, Timestamp};

use super::algorithms::is_strong;

#[derive(Debug)]
pub struct Certificate {
    pub primary: PublicKey,
    pub direct: Vec<Signature>,
    pub users: Vec<Signed<UserId>>,
    pub subkeys: Vec<Signed<PublicSubkey>>,
}

#[derive(Debug)]
pub struct Signed<T> {
    pub what: T,
    pub signatures: Vec<Signature>,
}

/// The primary key, or one of the subkeys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Primary,
    Subkey(usize),
}

/// Why a key may not sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit {
    /// There is a name or a signature of its own by which it could be judged.
    NoSelfSignature,
    /// Or only one with SHA-1 or worse.
    WeakSelfSignature,
    Revoked(Which),
    Expired(Which, i64),
    /// The signature is older than the key.
    Early(Which, i64),
    NotForSigning(Which),
    NotBound,
    WeakBinding,
    /// The subkey does not say that it belongs to the key, so anybody could claim it.
    NoBackSignature,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    Key,
    Subkey,
}

impl Certificate {
    pub fn new(primary: PublicKey) -> Certificate {
        Certificate { primary, direct: Vec::new(), users: Vec::new(), subkeys: Vec::new() }
    }

    /// Whether a signature that was made at this time counts.
    pub fn may_sign(&self, part: Part, at: u32) -> Result<(), Unfit> {
        let own = self.valid(at)?;
        match part {
            Part::Primary => primary_may_sign(own),
            Part::Subkey(index) => self.subkey_may_sign(&self.subkeys[index], at),
        }
    }

    /// As [`Self::may_sign`], of each part and at once: the primary key, then the subkeys.
    pub fn may_any_sign(&self, at: u32) -> Result<Vec<Result<(), Unfit>>, Unfit> {
        let own = self.valid(at)?;
        let subkeys = self.subkeys.iter().map(|subkey| self.subkey_may_sign(subkey, at));
        Ok([primary_may_sign(own)].into_iter().chain(subkeys).collect())
    }

    /// The word by which all of it can be used.
    fn valid(&self, at: u32) -> Result<&Signature, Unfit> {
        if has(&self.direct, SignatureType::KeyRevocation) {
            return Err(Unfit::Revoked(Which::Key));
        }
        let own = self.own_word(at)?;
        is_valid(Which::Key, &self.primary, own, at).map(|()| own)
    }

    fn subkey_may_sign(&self, subkey: &Signed<PublicSubkey>, at: u32) -> Result<(), Unfit> {
        if has(&subkey.signatures, SignatureType::SubkeyRevocation) {
            return Err(Unfit::Revoked(Which::Subkey));
        }
        let bindings = subkey.signatures.iter().filter(|s| s.typ() == Some(SignatureType::SubkeyBinding));
        let genuine = |s: &Signature| s.verify_subkey_binding(&self.primary, &subkey.what).is_ok();
        let binding = newest(self.own(bindings, at, genuine)).ok_or(Unfit::NotBound)?;
        is_understood(binding, Unfit::WeakBinding, Unfit::NotBound)?;
        is_valid(Which::Subkey, &subkey.what, binding, at)?;
        if !binding.key_flags().sign() {
            return Err(Unfit::NotForSigning(Which::Subkey));
        }
        let answers = |s: &Signature| {
            let understood = !is_weak(s) && !asks_too_much(s) && lasts(s, at);
            understood && s.verify_primary_key_binding(&subkey.what, &self.primary).is_ok()
        };
        match embedded(binding).any(answers) {
            true => Ok(()),
            false if embedded(binding).any(is_weak) => Err(Unfit::WeakBinding),
            false => Err(Unfit::NoBackSignature),
        }
    }

    /// The owner's newest signature on the key or on one of its names: what it is for, and until when.
    fn own_word(&self, at: u32) -> Result<&Signature, Unfit> {
        let on_key = self.direct.iter().filter(|s| s.typ() == Some(SignatureType::Key));
        let on_key = self.own(on_key, at, |s| s.verify_key(&self.primary).is_ok());
        let on_names = self.users.iter().filter_map(|user| self.own_word_on(user, at));
        let all: Vec<&Signature> = on_key.chain(on_names).collect();
        // There are signatures on keys for other ends, which do not speak of what the key is for.
        let speaks = all.iter().copied().filter(|s| says(s, |data| matches!(data, SubpacketData::KeyFlags(_))));
        let word = newest(speaks).or_else(|| newest(all.iter().copied())).ok_or(Unfit::NoSelfSignature)?;
        is_understood(word, Unfit::WeakSelfSignature, Unfit::NoSelfSignature).map(|()| word)
    }

    /// None: the name is not the owner's, or was taken back.
    fn own_word_on<'a>(&'a self, user: &'a Signed<UserId>, at: u32) -> Option<&'a Signature> {
        let revokes = |s: &&Signature| s.typ() == Some(SignatureType::CertRevocation);
        let given = user.signatures.iter().filter(|s| s.is_certification() && !revokes(s));
        let genuine = |s: &Signature| s.verify_certification(&self.primary, Tag::UserId, &user.what).is_ok();
        let word = newest(self.own(given, at, genuine))?;
        let mut taken_back = user.signatures.iter().filter(revokes).filter(|s| is_issued_by(s, &self.primary));
        taken_back.all(|s| s.created() < word.created()).then_some(word)
    }

    /// The owner's signatures among these, as long as they last. Those with a weak hash and those that ask for more
    /// than is understood are not verified, and not passed over either, in favour of older ones that may allow more.
    fn own<'a>(
        &'a self,
        among: impl Iterator<Item = &'a Signature>,
        at: u32,
        genuine: impl Fn(&Signature) -> bool,
    ) -> impl Iterator<Item = &'a Signature> {
        let lasting = among.filter(move |s| is_issued_by(s, &self.primary) && lasts(s, at));
        lasting.filter(move |s| is_weak(s) || asks_too_much(s) || genuine(s))
    }

    /// The owner's name: the one marked as the first, or else the first. Not yet fit for a terminal.
    pub fn name(&self, at: u32) -> String {
        let mut names = self.users.iter().filter_map(|user| Some((user, self.own_word_on(user, at)?)));
        let first = names.clone().find(|(_, word)| word.is_primary()).or_else(|| names.next());
        first.map_or_else(String::new, |(user, _)| String::from_utf8_lossy(user.what.id()).into_owned())
    }
}

fn primary_may_sign(own: &Signature) -> Result<(), Unfit> {
    if own.key_flags().sign() { Ok(()) } else { Err(Unfit::NotForSigning(Which::Key)) }
}

fn has(signatures: &[Signature], typ: SignatureType) -> bool {
    signatures.iter().any(|signature| signature.typ() == Some(typ))
}

fn newest<'a>(signatures: impl Iterator<Item = &'a Signature>) -> Option<&'a Signature> {
    signatures.max_by_key(|signature| signature.created())
}

fn is_weak(signature: &Signature) -> bool {
    signature.hash_alg().is_some_and(|hash| !is_strong(hash))
}

fn embedded(signature: &Signature) -> impl Iterator<Item = &Signature> {
    let config = signature.config().into_iter();
    let all = config.flat_map(|config| config.hashed_subpackets().chain(config.unhashed_subpackets()));
    all.filter_map(|subpacket| match &subpacket.data {
        SubpacketData::EmbeddedSignature(signature) => Some(&**signature),
        _ => None,
    })
}

fn says(signature: &Signature, is_it: impl Fn(&SubpacketData) -> bool) -> bool {
    signature.config().is_some_and(|config| config.hashed_subpackets().any(|subpacket| is_it(&subpacket.data)))
}

/// By its own word, or if it has none: whether it is true is for the mathematics.
pub fn is_issued_by(signature: &Signature, key: &PublicKey) -> bool {
    let (fingerprints, ids) = (signature.issuer_fingerprint(), signature.issuer_key_id());
    fingerprints.is_empty() && ids.is_empty()
        || fingerprints.iter().any(|&f| *f == key.fingerprint())
        || ids.iter().any(|&id| *id == key.legacy_key_id())
}

/// Whether it says when it was made, and has not expired itself.
fn lasts(signature: &Signature, at: u32) -> bool {
    let ends = |created| end(created, signature.signature_expiration_time()).is_some_and(|end| end <= i64::from(at));
    signature.created().is_some_and(|created| !ends(created))
}

fn is_understood(signature: &Signature, weak: Unfit, other: Unfit) -> Result<(), Unfit> {
    match signature {
        s if is_weak(s) => Err(weak),
        s if asks_too_much(s) => Err(other),
        _ => Ok(()),
    }
}

/// Whether a part of it is marked as indispensable that is not understood here.
pub fn asks_too_much(signature: &Signature) -> bool {
    use SubpacketData::*;
    let Some(config) = signature.config() else { return true };
    let mut critical = config.hashed_subpackets().chain(config.unhashed_subpackets()).filter(|s| s.is_critical);
    critical.any(|subpacket| match &subpacket.data {
        SignatureCreationTime(_) | SignatureExpirationTime(_) | KeyExpirationTime(_) | KeyFlags(_) => false,
        IssuerKeyId(_) | IssuerFingerprint(_) | SignersUserID(_) | IsPrimary(_) | EmbeddedSignature(_) => false,
        // For encryption, or for people.
        Features(_) | PreferredSymmetricAlgorithms(_) | PreferredHashAlgorithms(_) => false,
        PreferredCompressionAlgorithms(_) | PreferredEncryptionModes(_) | PreferredAeadAlgorithms(_) => false,
        KeyServerPreferences(_) | PreferredKeyServer(_) | PolicyURI(_) | ExportableCertification(_) => false,
        _ => true,
    })
}

fn is_valid(which: Which, key: &impl KeyDetails, word: &Signature, at: u32) -> Result<(), Unfit> {
    let created = key.created_at();
    if at < created.as_secs() {
        return Err(Unfit::Early(which, created.as_secs().into()));
    }
    match end(created, word.key_expiration_time()) {
        Some(end) if end <= i64::from(at) => Err(Unfit::Expired(which, end)),
        _ => Ok(()),
    }
}

/// When something is over, in seconds since the epoch; none or nought is never.
pub fn end(created: Timestamp, after: Option<Duration>) -> Option<i64> {
    let after = after.map(Duration::as_secs).filter(|&after| after > 0)?;
    Some(i64::from(created.as_secs()) + i64::from(after))
}
