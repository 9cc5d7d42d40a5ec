use std::path::Path;

use pgp::crypto::ed25519::{Mode, SecretKey as Ed25519};
use pgp::crypto::hash::HashAlgorithm;
use pgp::crypto::public_key::PublicKeyAlgorithm;
use pgp::packet::{
    KeyFlags, Notation, PacketHeader, PacketTrait, PubKeyInner, PublicKey, PublicSubkey, SecretKey, SecretSubkey,
    Signature, SignatureConfig, SignatureType, SignatureVersionSpecific, Subpacket, SubpacketData, UserId,
};
use pgp::types::{
    Duration, KeyDetails, KeyVersion, PacketHeaderVersion, Password, PlainSecretParams, PublicParams, SecretParams,
    SigningKey, Tag, Timestamp,
};

use super::armour::{self, Around, Block};
use super::certificate::{Unfit, Which};
use super::document::{AHEAD, Document, Found};
use super::idle::{self, Idle};
use super::keys::{LONGEST, PgpKeys};
use super::refusal::Flaw;
use crate::outcome::Failure;

mod documents;
mod files;
mod keys;

/// When the keys were made, when a signature is, and the time now.
const MADE: u32 = 1_000_000;
const SIGNED: u32 = 2_000_000;
const NOW: i64 = 3_000_000;
const PAYLOAD: &[u8] = b"tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\n\nA subject\n";

/// A key pair whose numbers are always the same.
struct Pair {
    primary: SecretKey,
    subkey: SecretSubkey,
}

impl Pair {
    fn new(seed: u8) -> Pair {
        Pair::of(seed, KeyVersion::V4, Mode::EdDSALegacy)
    }

    fn of(seed: u8, version: KeyVersion, mode: Mode) -> Pair {
        let params = |seed| {
            let secret = Ed25519::try_from_bytes([seed; 32], mode).unwrap();
            let (algorithm, public, secret) = match mode {
                Mode::EdDSALegacy => (
                    PublicKeyAlgorithm::EdDSALegacy,
                    PublicParams::EdDSALegacy((&secret).into()),
                    PlainSecretParams::EdDSALegacy(pgp::crypto::eddsa_legacy::SecretKey::Ed25519(secret)),
                ),
                Mode::Ed25519 => (
                    PublicKeyAlgorithm::Ed25519,
                    PublicParams::Ed25519((&secret).into()),
                    PlainSecretParams::Ed25519(secret),
                ),
            };
            let inner = PubKeyInner::new(version, algorithm, Timestamp::from_secs(MADE), None, public).unwrap();
            (inner, SecretParams::Plain(secret))
        };
        let (inner, secret) = params(seed);
        let primary = SecretKey::new(PublicKey::from_inner(inner).unwrap(), secret).unwrap();
        let (inner, secret) = params(seed + 100);
        let subkey = SecretSubkey::new(PublicSubkey::from_inner(inner).unwrap(), secret).unwrap();
        Pair { primary, subkey }
    }

    /// What most signatures say, and more.
    fn config(&self, typ: SignatureType, at: u32, more: Vec<SubpacketData>) -> SignatureConfig {
        config(&self.primary, typ, at, more)
    }

    fn user(&self, config: SignatureConfig) -> Signature {
        config
            .sign_certification(&self.primary, self.primary.public_key(), &Password::empty(), Tag::UserId, &alice())
            .unwrap()
    }

    fn on_key(&self, config: SignatureConfig) -> Signature {
        config.sign_key(&self.primary, &Password::empty(), self.primary.public_key()).unwrap()
    }

    fn binding(&self, more: Vec<SubpacketData>) -> Signature {
        let config = self.config(SignatureType::SubkeyBinding, MADE, more);
        let (key, none) = (&self.primary, Password::empty());
        config.sign_subkey_binding(key, key.public_key(), &none, self.subkey.public_key()).unwrap()
    }

    fn back(&self, hash: HashAlgorithm) -> SubpacketData {
        let mut config = config(&self.subkey, SignatureType::KeyBinding, MADE, Vec::new());
        config.hash_alg = hash;
        let (key, none) = (&self.subkey, Password::empty());
        let signature =
            config.sign_primary_key_binding(key, key.public_key(), &none, self.primary.public_key()).unwrap();
        SubpacketData::EmbeddedSignature(Box::new(signature))
    }

    /// The key, its name and a signature on it, and whatever else.
    fn plain(&self, more: &[Signature]) -> Vec<u8> {
        let own = self.user(self.config(SignatureType::CertPositive, MADE, vec![flags(sign)]));
        self.file(&[], &[own], more)
    }

    /// Packets: the key, those on it, the name, those on it, the subkey, those on it.
    fn file(&self, on_key: &[Signature], on_name: &[Signature], on_subkey: &[Signature]) -> Vec<u8> {
        let mut bytes = bytes(self.primary.public_key());
        on_key.iter().for_each(|signature| bytes.extend(self::bytes(signature)));
        bytes.extend(self::bytes(&alice()));
        on_name.iter().for_each(|signature| bytes.extend(self::bytes(signature)));
        if !on_subkey.is_empty() {
            bytes.extend(self::bytes(self.subkey.public_key()));
            on_subkey.iter().for_each(|signature| bytes.extend(self::bytes(signature)));
        }
        bytes
    }

    fn sign(&self, more: Vec<SubpacketData>) -> Vec<u8> {
        let config = self.config(SignatureType::Binary, SIGNED, more);
        bytes(&config.sign(&self.primary, &Password::empty(), PAYLOAD).unwrap())
    }

    fn sign_by_subkey(&self) -> Vec<u8> {
        let config = config(&self.subkey, SignatureType::Binary, SIGNED, Vec::new());
        bytes(&config.sign(&self.subkey, &Password::empty(), PAYLOAD).unwrap())
    }
}

fn config(key: &impl SigningKey, typ: SignatureType, at: u32, more: Vec<SubpacketData>) -> SignatureConfig {
    let mut config = match key.version() {
        KeyVersion::V6 => SignatureConfig::v6_with_salt(typ, key.algorithm(), HashAlgorithm::Sha256, vec![7; 16]),
        _ => SignatureConfig::v4(typ, key.algorithm(), HashAlgorithm::Sha256),
    };
    let usual = [time(at), SubpacketData::IssuerFingerprint(key.fingerprint())];
    config.hashed_subpackets = usual.into_iter().chain(more).map(|data| Subpacket::regular(data).unwrap()).collect();
    config
}

fn time(at: u32) -> SubpacketData {
    SubpacketData::SignatureCreationTime(Timestamp::from_secs(at))
}

fn flags(set: fn(&mut KeyFlags)) -> SubpacketData {
    let mut flags = KeyFlags::default();
    set(&mut flags);
    SubpacketData::KeyFlags(flags)
}

fn sign(flags: &mut KeyFlags) {
    flags.set_sign(true);
}

fn certify(flags: &mut KeyFlags) {
    flags.set_certify(true);
}

fn lasts(seconds: u32) -> SubpacketData {
    SubpacketData::KeyExpirationTime(Duration::from_secs(seconds))
}

fn alice() -> UserId {
    UserId::from_str(PacketHeaderVersion::New, "Alice <alice@example.org>").unwrap()
}

fn bytes(packet: &impl PacketTrait) -> Vec<u8> {
    let mut bytes = Vec::new();
    packet.to_writer_with_header(&mut bytes).unwrap();
    bytes
}

fn armoured(label: &str, bytes: &[u8]) -> String {
    let digits = |bytes: &[u8]| -> String {
        const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let four = |three: &[u8]| {
            let mut padded = [0; 4];
            padded[1..=three.len()].copy_from_slice(three);
            let all = u32::from_be_bytes(padded);
            let digit =
                |n: usize| if n > three.len() { '=' } else { DIGITS[(all >> (18 - 6 * n) & 63) as usize].into() };
            [0, 1, 2, 3].map(digit)
        };
        bytes.chunks(3).flat_map(four).collect()
    };
    let lines: Vec<String> =
        digits(bytes).as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line).into_owned()).collect();
    let sum = digits(&armour::crc24(bytes));
    format!("-----BEGIN {label}-----\n\n{}\n={sum}\n-----END {label}-----\n", lines.join("\n"))
}

fn keys(bytes: &[u8]) -> PgpKeys {
    parse(&armoured("PGP PUBLIC KEY BLOCK", bytes)).unwrap()
}

fn parse(text: &str) -> Result<PgpKeys, Failure> {
    PgpKeys::parse(Path::new("/etc/keys"), text)
}

fn judged(signature: &[u8], keys: &PgpKeys) -> Result<Found, Flaw> {
    Document::read(armoured("PGP SIGNATURE", signature).as_bytes())?.check(PAYLOAD, keys, NOW)
}

fn unfit(result: Result<Found, Flaw>) -> Unfit {
    match result {
        Err(Flaw::Unfit { why, .. }) => why,
        other => panic!("{other:?}"),
    }
}

/// Ed25519 does not sign SHA-1: the number of the hash is put into a finished signature.
fn sha1(signature: &[u8]) -> Vec<u8> {
    let mut signature = signature.to_vec();
    // After the header of two bytes: version, type, algorithm, hash.
    assert_eq!(signature[5], u8::from(HashAlgorithm::Sha512));
    signature[5] = HashAlgorithm::Sha1.into();
    signature
}
