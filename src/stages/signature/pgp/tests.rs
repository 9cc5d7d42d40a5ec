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
use super::keys::{LONGEST, PgpKeys};
use super::refusal::Flaw;
use crate::outcome::Failure;

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

#[test]
fn a_signature_by_a_key_of_the_file_passes() {
    let pair = Pair::new(1);
    let found = judged(&pair.sign(Vec::new()), &keys(&pair.plain(&[]))).unwrap();
    let fingerprint = format!("{:X}", pair.primary.fingerprint());
    assert_eq!(found, Found { name: "Alice <alice@example.org>".to_owned(), fingerprint, subkey: None });
    // Of version 6, which has its signature on the key itself.
    let pair = Pair::of(1, KeyVersion::V6, Mode::Ed25519);
    let own = pair.on_key(pair.config(SignatureType::Key, MADE, vec![flags(sign)]));
    let found = judged(&pair.sign(Vec::new()), &keys(&pair.file(&[own], &[], &[]))).unwrap();
    assert_eq!((found.name.as_str(), found.fingerprint.len()), ("", 64));
}

#[test]
fn a_signature_of_another_kind_is_refused_by_its_reason() {
    let pair = Pair::new(1);
    let keys = keys(&pair.plain(&[]));
    let made = |config: SignatureConfig| bytes(&config.sign(&pair.primary, &Password::empty(), PAYLOAD).unwrap());
    let with = |change: fn(&mut SignatureConfig)| {
        let mut config = pair.config(SignatureType::Binary, SIGNED, Vec::new());
        change(&mut config);
        made(config)
    };
    let notation = |is_critical| {
        let data = Notation { readable: true, name: "n@example.org".into(), value: "v".into() };
        let mut subpacket = Subpacket::regular(SubpacketData::Notation(data)).unwrap();
        subpacket.is_critical = is_critical;
        let mut config = pair.config(SignatureType::Binary, SIGNED, Vec::new());
        config.hashed_subpackets.push(subpacket);
        made(config)
    };
    let good = pair.sign(Vec::new());
    let signed_at = |at| made(pair.config(SignatureType::Binary, at, Vec::new()));
    let late = SIGNED + 100;
    let v3 = SignatureVersionSpecific::V3 {
        created: Timestamp::from_secs(SIGNED),
        issuer_key_id: pair.primary.legacy_key_id(),
    };
    let v3 = {
        let mut config = SignatureConfig::v4(SignatureType::Binary, pair.primary.algorithm(), HashAlgorithm::Sha256);
        config.version_specific = v3;
        let sample = pair.config(SignatureType::Binary, SIGNED, vec![]);
        let sample = sample.sign(&pair.primary, &Password::empty(), PAYLOAD).unwrap();
        bytes(&Signature::from_config(config, [0, 0], sample.signature().unwrap().clone()).unwrap())
    };
    for (name, signature, flaw) in [
        ("two", [good.clone(), good.clone()].concat(), Flaw::Several),
        ("with a key behind it", [good.clone(), pair.plain(&[])].concat(), Flaw::Several),
        ("cut short", good[..good.len() - 1].to_vec(), Flaw::Unreadable),
        ("and a byte", [good.clone(), vec![0xc2]].concat(), Flaw::Unreadable),
        ("a byte in it", lengthened(&good), Flaw::Unreadable),
        ("nothing", Vec::new(), Flaw::Unreadable),
        ("no signature", bytes(&alice()), Flaw::Unreadable),
        ("version 3", v3, Flaw::Version),
        ("of a key", bytes(&pair.on_key(pair.config(SignatureType::Key, SIGNED, vec![]))), Flaw::NotADocument),
        ("SHA-1", with(|config| config.hash_alg = HashAlgorithm::Sha512), Flaw::WeakHash("SHA1".to_owned())),
        ("a critical notation", notation(true), Flaw::AsksTooMuch),
        ("no time", with(|config| drop(config.hashed_subpackets.remove(0))), Flaw::NoTime),
        ("two times", pair.sign(vec![time(SIGNED + 1)]), Flaw::NoTime),
        ("no issuer", with(|config| drop(config.hashed_subpackets.pop())), Flaw::Anonymous),
        ("of tomorrow", signed_at(u32::try_from(NOW + AHEAD).unwrap() + 1), Flaw::Future(NOW + AHEAD + 1)),
        (
            "expired",
            pair.sign(vec![SubpacketData::SignatureExpirationTime(Duration::from_secs(100))]),
            Flaw::Expired(late.into()),
        ),
    ] {
        let signature = if name == "SHA-1" { sha1(&signature) } else { signature };
        assert_eq!(judged(&signature, &keys), Err(flaw), "{name}");
    }
    assert!(judged(&notation(false), &keys).is_ok(), "a notation that is not critical");
    let lasting = SubpacketData::SignatureExpirationTime(Duration::from_secs(2_000_000));
    assert!(judged(&pair.sign(vec![lasting]), &keys).is_ok());
    assert!(judged(&signed_at(u32::try_from(NOW + AHEAD).unwrap()), &keys).is_ok(), "a clock that is a bit ahead");
    assert_eq!(unfit(judged(&signed_at(MADE - 1), &keys)), Unfit::Early(Which::Key, MADE.into()));
}

/// Ed25519 does not sign SHA-1: the number of the hash is put into a finished signature.
fn sha1(signature: &[u8]) -> Vec<u8> {
    let mut signature = signature.to_vec();
    // After the header of two bytes: version, type, algorithm, hash.
    assert_eq!(signature[5], u8::from(HashAlgorithm::Sha512));
    signature[5] = HashAlgorithm::Sha1.into();
    signature
}

/// With a byte in the packet that belongs to nothing.
fn lengthened(signature: &[u8]) -> Vec<u8> {
    let mut longer = signature.to_vec();
    longer[1] += 1;
    longer.push(0);
    longer
}

#[test]
fn what_is_signed_is_the_payload_and_nothing_else() {
    let pair = Pair::new(1);
    let keys = keys(&pair.plain(&[]));
    let document = Document::read(armoured("PGP SIGNATURE", &pair.sign(Vec::new())).as_bytes()).unwrap();
    let longer = [PAYLOAD, b"\n"].concat();
    for payload in [&b""[..], &PAYLOAD[1..], &longer] {
        assert_eq!(document.check(payload, &keys, NOW), Err(Flaw::Mismatch));
    }
    let text = pair.config(SignatureType::Text, SIGNED, Vec::new());
    let text = bytes(&text.sign(&pair.primary, &Password::empty(), PAYLOAD).unwrap());
    let document = Document::read(armoured("PGP SIGNATURE", &text).as_bytes()).unwrap();
    assert!(document.check(PAYLOAD, &keys, NOW).is_ok());
    let returns = String::from_utf8_lossy(PAYLOAD).replace('\n', "\r\n");
    assert_eq!(document.check(returns.as_bytes(), &keys, NOW), Err(Flaw::LineEnds));

    let strangers = judged(&Pair::new(2).sign(Vec::new()), &keys);
    assert_eq!(strangers, Err(Flaw::Unknown(format!("{:X}", Pair::new(2).primary.fingerprint()))));
    // It says that Alice made it.
    let mut config = pair.config(SignatureType::Binary, SIGNED, Vec::new());
    config.unhashed_subpackets =
        vec![Subpacket::regular(SubpacketData::IssuerKeyId(pair.primary.legacy_key_id())).unwrap()];
    let forged = bytes(&config.clone().sign(&Pair::new(2).primary, &Password::empty(), PAYLOAD).unwrap());
    assert_eq!(judged(&forged, &keys), Err(Flaw::Mismatch));
    // Of two names for its key, both must be true.
    config.unhashed_subpackets = vec![Subpacket::regular(SubpacketData::IssuerKeyId([1; 8].into())).unwrap()];
    let torn = bytes(&config.sign(&pair.primary, &Password::empty(), PAYLOAD).unwrap());
    assert!(matches!(judged(&torn, &keys), Err(Flaw::Unknown(_))));
}

#[test]
fn a_key_is_what_its_owner_says_of_it_now() {
    let pair = Pair::new(1);
    let own = |at, more| pair.user(pair.config(SignatureType::CertPositive, at, more));
    let on_key = |typ, at, more| pair.on_key(pair.config(typ, at, more));
    let good = || own(MADE, vec![flags(sign)]);
    let mut weak = pair.config(SignatureType::CertPositive, MADE, vec![flags(sign)]);
    weak.hash_alg = HashAlgorithm::Sha512;
    let weak =
        Signature::try_from_reader(header(&pair.user(weak.clone())), &sha1(&bytes(&pair.user(weak)))[2..]).unwrap();
    let revoked = |at| on_key(SignatureType::KeyRevocation, at, vec![]);
    let taken_back = |at| own_revocation(&pair, at);
    let ended = || own(MADE, vec![flags(sign), lasts(SIGNED - MADE)]);
    let end = Unfit::Expired(Which::Key, SIGNED.into());
    let mallory = Pair::new(2);
    let hers = mallory.config(SignatureType::CertPositive, MADE, vec![flags(sign)]);
    let (key, none) = (pair.primary.public_key(), Password::empty());
    let hers = hers.sign_certification_third_party(&mallory.primary, &none, key, Tag::UserId, &alice()).unwrap();
    for (name, on_key, on_name, expected) in [
        ("good", vec![], vec![good()], None),
        ("not for signing", vec![], vec![own(MADE, vec![flags(certify)])], Some(Unfit::NotForSigning(Which::Key))),
        ("for anything", vec![], vec![own(MADE, vec![])], Some(Unfit::NotForSigning(Which::Key))),
        ("no name", vec![], vec![], Some(Unfit::NoSelfSignature)),
        ("somebody else's word", vec![], vec![hers], Some(Unfit::NoSelfSignature)),
        ("SHA-1", vec![], vec![weak], Some(Unfit::WeakSelfSignature)),
        ("revoked", vec![revoked(MADE)], vec![good()], Some(Unfit::Revoked(Which::Key))),
        ("revoked later", vec![revoked(SIGNED + 1)], vec![good()], Some(Unfit::Revoked(Which::Key))),
        ("name taken back", vec![], vec![good(), taken_back(MADE + 1)], Some(Unfit::NoSelfSignature)),
        ("and given again", vec![], vec![good(), taken_back(MADE + 1), own(MADE + 2, vec![flags(sign)])], None),
        ("expired", vec![], vec![ended()], Some(end)),
        ("expires later", vec![], vec![own(MADE, vec![flags(sign), lasts(SIGNED - MADE + 1)])], None),
        ("renewed", vec![], vec![ended(), own(MADE + 9, vec![flags(sign), lasts(SIGNED)])], None),
        ("made shorter", vec![], vec![own(MADE + 9, vec![flags(sign), lasts(SIGNED - MADE)]), good()], Some(end)),
        ("on the key", vec![on_key(SignatureType::Key, MADE, vec![flags(sign)])], vec![], None),
        ("no flags on the key", vec![on_key(SignatureType::Key, SIGNED, vec![])], vec![good()], None),
    ] {
        let result = judged(&pair.sign(Vec::new()), &keys(&pair.file(&on_key, &on_name, &[])));
        match expected {
            None => assert!(result.is_ok(), "{name}: {result:?}"),
            Some(why) => assert_eq!(unfit(result), why, "{name}"),
        }
    }
    // Twice in the file, once as it was before it was revoked.
    let both = [pair.file(&[revoked(MADE)], &[good()], &[]), pair.plain(&[])].concat();
    assert_eq!(unfit(judged(&pair.sign(Vec::new()), &keys(&both))), Unfit::Revoked(Which::Key));
    let behind = [pair.plain(&[]), bytes(&revoked(MADE))].concat();
    assert_eq!(unfit(judged(&pair.sign(Vec::new()), &keys(&behind))), Unfit::Revoked(Which::Key));
}

fn own_revocation(pair: &Pair, at: u32) -> Signature {
    pair.user(pair.config(SignatureType::CertRevocation, at, Vec::new()))
}

fn header(signature: &Signature) -> PacketHeader {
    *signature.packet_header()
}

#[test]
fn a_subkey_signs_when_it_and_its_key_say_so() {
    let (pair, mallory) = (Pair::new(1), Pair::new(2));
    let back = |hash| pair.back(hash);
    let strong = HashAlgorithm::Sha256;
    let good = || pair.binding(vec![flags(sign), back(strong)]);
    let revoked = pair.config(SignatureType::SubkeyRevocation, MADE, Vec::new());
    let (key, none) = (&pair.primary, Password::empty());
    let revoked = revoked.sign_subkey_binding(key, key.public_key(), &none, pair.subkey.public_key()).unwrap();
    let bound_by_mallory = mallory.binding(vec![flags(sign), mallory.back(strong)]);
    let end = lasts(SIGNED - MADE);
    for (name, signatures, expected) in [
        ("good", vec![good()], None),
        (
            "not for signing",
            vec![pair.binding(vec![flags(certify), back(strong)])],
            Some(Unfit::NotForSigning(Which::Subkey)),
        ),
        ("no answer", vec![pair.binding(vec![flags(sign)])], Some(Unfit::NoBackSignature)),
        ("another's answer", vec![pair.binding(vec![flags(sign), mallory.back(strong)])], Some(Unfit::NoBackSignature)),
        ("bound by another", vec![bound_by_mallory], Some(Unfit::NotBound)),
        ("revoked", vec![good(), revoked], Some(Unfit::Revoked(Which::Subkey))),
        (
            "expired",
            vec![pair.binding(vec![flags(sign), end, back(strong)])],
            Some(Unfit::Expired(Which::Subkey, SIGNED.into())),
        ),
    ] {
        let result = judged(&pair.sign_by_subkey(), &keys(&pair.plain(&signatures)));
        match expected {
            None => {
                let subkey = Some(format!("{:X}", pair.subkey.fingerprint()));
                assert_eq!(result.map(|found| found.subkey), Ok(subkey), "{name}");
            }
            Some(why) => assert_eq!(unfit(result), why, "{name}"),
        }
    }
    // The subkey is not revoked, and its key is.
    let revoked = pair.on_key(pair.config(SignatureType::KeyRevocation, MADE, vec![]));
    let own = pair.user(pair.config(SignatureType::CertPositive, MADE, vec![flags(sign)]));
    let result = judged(&pair.sign_by_subkey(), &keys(&pair.file(&[revoked], &[own], &[good()])));
    assert_eq!(unfit(result), Unfit::Revoked(Which::Key));
    // Somebody claims the subkey for a key of his own.
    let mut claimed = mallory.plain(&[]);
    claimed.extend(bytes(pair.subkey.public_key()));
    let claim = mallory.config(SignatureType::SubkeyBinding, MADE, vec![flags(sign), back(strong)]);
    let key = &mallory.primary;
    let claim = claim.sign_subkey_binding(key, key.public_key(), &none, pair.subkey.public_key()).unwrap();
    claimed.extend(bytes(&claim));
    assert_eq!(unfit(judged(&pair.sign_by_subkey(), &keys(&claimed))), Unfit::NoBackSignature);
}

#[test]
fn a_key_file_is_read_to_the_end_or_not_at_all() {
    let pair = Pair::new(1);
    let public = pair.plain(&[]);
    let good = armoured("PGP PUBLIC KEY BLOCK", &public);
    let two = format!("# Alice\n{good}\n# Bob\n{}", armoured("PGP PUBLIC KEY BLOCK", &Pair::new(2).plain(&[])));
    assert_eq!(parse(&two).unwrap().certificates.len(), 2);
    assert_eq!(parse(&format!("{good}{good}")).unwrap().certificates.len(), 1, "one key, twice");
    assert!(parse(&good.replace("BLOCK-----\n\n", "BLOCK-----\r\nComment: hers\r\n \r\n")).is_ok());
    let secret = armoured("PGP PUBLIC KEY BLOCK", &[bytes(&pair.primary), public.clone()].concat());
    let line = good.lines().nth(2).unwrap();
    for (text, says) in [
        (String::new(), "/etc/keys holds no public key"),
        ("# nobody yet\n\n".to_owned(), "/etc/keys holds no public key"),
        (armoured("PGP PUBLIC KEY BLOCK", b""), "/etc/keys holds no public key"),
        (armoured("PGP PRIVATE KEY BLOCK", &bytes(&pair.primary)), "HOLDS A SECRET KEY"),
        (format!("{good}-----BEGIN PGP PRIVATE KEY BLOCK-----"), "HOLDS A SECRET KEY"),
        (secret, "HOLDS A SECRET KEY"),
        (format!("# Alice\nAlice\n{good}"), "/etc/keys:2: this line is outside of a block"),
        (
            good.replace("\n-----END PGP PUBLIC KEY BLOCK-----", ""),
            "/etc/keys:1: the block that begins here has no end",
        ),
        (good.replace("-----\n\n", "-----\n"), "/etc/keys:2: a blank line is missing"),
        (good.replacen(line, &line.to_uppercase(), 1), "/etc/keys:1: the block that begins here is damaged"),
        (good.replacen(line, &line[4..], 1), "is damaged"),
        (good.replacen(line, &line[1..], 1), "is not base64"),
        (good.replacen("=\n-", "\n-", 1).replacen(line, "-----", 1), "/etc/keys:3: this line does not belong"),
        (armoured("PGP SIGNATURE", &pair.sign(vec![])), "/etc/keys:1: a block that is no public key"),
        (
            armoured("PGP PUBLIC KEY BLOCK", &public[..public.len() - 1]),
            "/etc/keys:1: the block that begins here cannot be read",
        ),
        (armoured("PGP PUBLIC KEY BLOCK", &bytes(&alice())), "does not begin with a key"),
        (armoured("PGP PUBLIC KEY BLOCK", &pair.sign(vec![])), "does not begin with a key"),
        (armoured("PGP PUBLIC KEY BLOCK", &[public.clone(), vec![0xc2, 1, 9]].concat()), "might revoke a key"),
        (armoured("PGP PUBLIC KEY BLOCK", &[public.clone(), vec![0xc2, 1, 4]].concat()), "might revoke a key"),
        (armoured("PGP PUBLIC KEY BLOCK", &[0xc6, 1, 5]), "a key in the block that begins here cannot be read"),
        (armoured("PGP PUBLIC KEY BLOCK", &[public.clone(), vec![0xcb, 1, 0]].concat()), "something else than keys"),
        ("#".repeat(LONGEST + 1), "longer than 1 MiB"),
    ] {
        let failure = parse(&text).map(|_| ()).expect_err(says);
        assert!(failure.message.contains(says), "{says}: {failure:?}");
        assert_eq!(failure.class, crate::outcome::Class::Config);
        assert!(failure.help.iter().any(|help| help.starts_with("gpg --export --armor")), "{failure:?}");
    }
    // A subkey of a type that nobody knows yet signs nothing, and does no harm.
    let strange = [public.clone(), vec![0xce, 1, 5], vec![0xc2, 1, 9]].concat();
    assert!(parse(&armoured("PGP PUBLIC KEY BLOCK", &strange)).is_ok());
}

#[test]
fn armour_is_one_block_with_nothing_around_it() {
    let good = armoured("PGP SIGNATURE", &Pair::new(1).sign(Vec::new()));
    let read = |text: &str| Document::read(text.as_bytes()).map(drop);
    assert_eq!(read(&good), Ok(()));
    // As the forges have it.
    assert_eq!(read(&format!("{good}\n \n")), Ok(()));
    assert_eq!(read(&good.replacen("-----\n\n", "-----\nVersion: 1\n\n", 1)), Ok(()));
    let sum = good.lines().rev().nth(1).unwrap();
    assert_eq!(read(&good.replacen(&format!("{sum}\n"), "", 1)), Ok(()), "without its checksum");
    let whole: String = good.lines().skip(2).take_while(|line| !line.starts_with(['=', '-'])).collect();
    for text in [
        format!("{good}more\n"),
        format!("{good}# more\n"),
        format!("more\n{good}"),
        good.replacen(sum, "=AAAA", 1),
        good.replacen(sum, &format!("{sum}\n{sum}"), 1),
        good.replace("PGP SIGNATURE", "PGP MESSAGE"),
        good.replacen("END PGP SIGNATURE", "END PGP MESSAGE", 1),
        good.replacen(&whole[..8], "", 1),
        good.replacen(&whole[..4], "\u{e9}\u{e9}", 1),
    ] {
        assert_eq!(read(&text), Err(Flaw::Unreadable), "{text}");
    }
    assert_eq!(read(&format!("{good}{good}")), Err(Flaw::Several));
    assert_eq!(
        read(&good.replacen("-----\n\n", &format!("-----\nX: {}\n\n", "x".repeat(65536)), 1)),
        Err(Flaw::TooLong)
    );
    assert_eq!(Document::read(&[0xff; 40]).map(drop), Err(Flaw::Unreadable));
    let block =
        |base64: &str| armour::blocks(&format!("-----BEGIN X-----\n\n{base64}\n-----END X-----"), Around::Nothing);
    let label = "X".to_owned();
    assert_eq!(block("aGk="), Ok(vec![Block { label, bytes: b"hi".to_vec(), line: 1 }]));
    for not_base64 in ["aGl=", "aG=k", "aGk", "aG==aGk=", "a===", "aGk-", "aG k"] {
        assert!(block(not_base64).is_err(), "{not_base64}");
    }
}

#[test]
fn whatever_bytes_a_server_sends_there_is_an_answer() {
    let pair = Pair::new(1);
    let (good, public) =
        (pair.sign(Vec::new()), pair.plain(&[pair.binding(vec![flags(sign), pair.back(HashAlgorithm::Sha256)])]));
    let keys = keys(&public);
    let turned = |bytes: &[u8], at: usize, bit: usize| {
        let mut other = bytes.to_vec();
        other[at] ^= 1 << bit;
        other
    };
    for at in 0..good.len() {
        // The lengths of its two numbers, in bits: not every signer counts nulls in the first byte alike.
        let is_length = [68, 67, 34, 33].map(|before| good.len() - before).contains(&at);
        assert!(is_length || judged(&turned(&good, at, at % 8), &keys).is_err(), "bit {} of byte {at}", at % 8);
        assert!(judged(&good[..at], &keys).is_err());
        for bit in 0..8 {
            drop(Document::read(armoured("PGP SIGNATURE", &turned(&good, at, bit)).as_bytes()));
        }
    }
    for at in 0..public.len() {
        drop(parse(&armoured("PGP PUBLIC KEY BLOCK", &public[..at])));
        for bit in 0..8 {
            drop(parse(&armoured("PGP PUBLIC KEY BLOCK", &turned(&public, at, bit))));
        }
    }
}
