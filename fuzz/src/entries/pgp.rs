//! OpenPGP: the keys that a person put together, and the signature that a server sends along.
//!
//! Below `pgp/` are a key of Alice, with a subkey that signs, and one of Bob, what both signed, and Alice's revocation;
//! gpg made them, and nobody kept the secret halves. Data that is no armour is put into one, as no fuzzer finds out
//! how to.

use std::path::Path;

use super::{text, told};
use crate::stages::signature::pgp::certificate::{Certificate, Part, Unfit, Which};
use crate::stages::signature::pgp::document::{Document, Found};
use crate::stages::signature::pgp::idle;
use crate::stages::signature::pgp::keys::PgpKeys;
use crate::stages::signature::pgp::refusal::Flaw;
use pgp::types::KeyDetails;

const PAYLOAD: &[u8] = b"tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\n\nA subject\n";
/// 2026-01-01, when all of it was made.
const MADE: u32 = 1_767_225_600;
const NOW: i64 = MADE as i64 + 86_400;

/// A key with its owner's signature over the payload.
struct Person {
    key: &'static [u8],
    signature: &'static [u8],
    fingerprint: &'static str,
}

const PEOPLE: [Person; 2] = [
    Person {
        key: include_bytes!("pgp/alice.key"),
        signature: include_bytes!("pgp/alice.sig"),
        fingerprint: "A9D9649C096AA3C708483AD4A5F4C1B81127CB02",
    },
    Person {
        key: include_bytes!("pgp/bob.key"),
        signature: include_bytes!("pgp/bob.sig"),
        fingerprint: "CA98393D425D14DD2CF07F7BDE385C7CB6B8C660",
    },
];
const REVOCATION: &[u8] = include_bytes!("pgp/alice.revocation");

/// Whatever is written around a key, nobody signs but its owner, and not if it is called idle; who comes twice is one,
/// and with a revocation behind it a key is revoked, whoever made that.
pub fn keys(data: &[u8]) {
    key_file(&text(data));
    let armoured = armour("PGP PUBLIC KEY BLOCK", data);
    if key_file(&armoured) {
        let revoked = parse(&armour("PGP PUBLIC KEY BLOCK", &[data, REVOCATION].concat())).unwrap();
        let last = revoked.certificates.last().unwrap();
        for part in parts(last) {
            assert_eq!(last.may_sign(part, MADE), Err(Unfit::Revoked(Which::Key)));
        }
    }
}

/// Whether it is one.
fn key_file(text: &str) -> bool {
    let keys = match parse(text) {
        Ok(keys) => keys,
        Err(failure) => {
            told(&failure.message);
            let line = failure.message.strip_prefix("keys:").and_then(|rest| rest.split(':').next());
            assert!(line.is_none_or(|line| (1..=text.lines().count()).contains(&line.parse().unwrap())));
            return false;
        }
    };
    let twice = parse(&format!("{text}\n# again\n{text}")).unwrap();
    assert_eq!(twice.certificates.len(), keys.certificates.len());
    for one in &keys.certificates {
        let fingerprint = one.primary.fingerprint();
        let same = twice.certificates.iter().find(|other| other.primary.fingerprint() == fingerprint).unwrap();
        assert_eq!(parts(one), parts(same));
        for at in [0, MADE, u32::MAX] {
            assert_eq!(one.name(at), same.name(at));
            for part in parts(one) {
                assert_eq!(one.may_sign(part, at), same.may_sign(part, at));
            }
        }
    }
    idle::idle(&keys, MADE.into(), Path::new("keys")).iter().for_each(|failure| told(&failure.message));
    for person in &PEOPLE {
        let document = read(person.signature).unwrap();
        match document.check(PAYLOAD, &keys, NOW) {
            Ok(found) => {
                assert_eq!(found.fingerprint, person.fingerprint);
                let is_hers = |one: &Certificate| format!("{:X}", one.primary.fingerprint()) == found.fingerprint;
                let hers = keys.certificates.iter().find(|one| is_hers(one)).unwrap();
                assert_eq!(idle::why(hers, MADE), None);
            }
            Err(flaw) => told_flaw(flaw),
        }
        assert!(document.check(b"another", &keys, NOW).is_err());
    }
    true
}

fn parts(certificate: &Certificate) -> Vec<Part> {
    [Part::Primary].into_iter().chain((0..certificate.subkeys.len()).map(Part::Subkey)).collect()
}

/// However a signature is written, it is Alice's or Bob's, over what they signed, and alone.
pub fn signature(data: &[u8]) {
    document(data);
    document(armour("PGP SIGNATURE", data).as_bytes());
}

fn document(armoured: &[u8]) {
    let document = match Document::read(armoured) {
        Ok(document) => document,
        Err(flaw) => return told_flaw(flaw),
    };
    for added in [armoured, b"\n# a comment\n", b"\nx\n"] {
        assert!(Document::read(&[armoured, b"\n", added].concat()).is_err());
    }
    let blocks: String = PEOPLE.iter().map(|person| armour("PGP PUBLIC KEY BLOCK", person.key)).collect();
    let keys = parse(&blocks).unwrap();
    match document.check(PAYLOAD, &keys, NOW) {
        Ok(Found { fingerprint, .. }) => {
            assert!(PEOPLE.iter().any(|person| person.fingerprint == fingerprint));
            assert!(matches!(document.check(PAYLOAD, &keys, i64::from(MADE) - 2 * 86_400), Err(Flaw::Future(_))));
        }
        Err(flaw) => told_flaw(flaw),
    }
    assert!(document.check(b"another", &keys, NOW).is_err());
    assert!(document.check(PAYLOAD, &PgpKeys { certificates: Vec::new() }, NOW).is_err());
}

fn told_flaw(flaw: Flaw) {
    told(&flaw.failure("it", Path::new("keys")).message);
}

fn read(signature: &[u8]) -> Result<Document, Flaw> {
    Document::read(armour("PGP SIGNATURE", signature).as_bytes())
}

fn parse(text: &str) -> Result<PgpKeys, crate::outcome::Failure> {
    PgpKeys::parse(Path::new("keys"), text)
}

/// Without a checksum, as OpenPGP has it today.
fn armour(label: &str, bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut base64 = String::new();
    for three in bytes.chunks(3) {
        let held = three.iter().chain(&[0; 2]).take(3).fold(0, |held, &byte| held << 8 | usize::from(byte));
        let digit = |index: usize| if index <= three.len() { DIGITS[held >> (18 - 6 * index) & 63] } else { b'=' };
        base64.extend((0..4).map(|index| char::from(digit(index))));
    }
    format!("-----BEGIN {label}-----\n\n{base64}\n-----END {label}-----\n")
}
