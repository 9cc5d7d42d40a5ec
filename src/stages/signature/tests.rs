use std::path::Path;

use russh::keys::PrivateKey;
use russh::keys::ssh_key::private::{Ed25519Keypair, KeypairData};
use russh::keys::ssh_key::public::{KeyData, SkEd25519};
use russh::keys::ssh_key::{Signature, SshSig};

use super::allowed_signers::Unfit;
use super::*;

const TREE: &str = "tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\n";
const WHO: &str = "author A <a> 1 +0000\ncommitter C <c> 1800000000 +0100\n";
const NOW: i64 = 1_800_000_000;
const MESSAGE: &str = "\nA subject\n\n gpgsig none\n";

fn key(seed: u8) -> PrivateKey {
    PrivateKey::new(KeypairData::from(Ed25519Keypair::from_seed(&[seed; 32])), "").unwrap()
}

fn plain() -> String {
    format!("{TREE}{WHO}{MESSAGE}")
}

fn armour(key: &PrivateKey, namespace: &str, hash: HashAlg, payload: &str) -> String {
    key.sign(namespace, hash, payload.as_bytes()).unwrap().to_string()
}

/// With the signature in its header.
fn with(header: &str, armour: &str) -> String {
    let lines = armour.trim_end().replace('\n', "\n ");
    plain().replacen(WHO, &format!("{WHO}{header} {lines}\n"), 1)
}

fn trusting(text: &str) -> Trusted {
    let allowed_signers = AllowedSigners::parse(Path::new("signers"), text).unwrap();
    Trusted { allowed_signers: Some(allowed_signers), pgp_keys: None }
}

fn allowed(line: &str) -> Trusted {
    let own = key(1).public_key().to_openssh().unwrap();
    trusting(&format!("alice {line} {own}"))
}

fn judged(raw: &str) -> Result<String, Refusal> {
    let signed = object::commit(raw.as_bytes())?;
    check(&signed, &allowed(""), NOW).map(|found| found.principals)
}

#[test]
fn a_commit_signed_by_an_allowed_key_passes() {
    for hash in [HashAlg::Sha256, HashAlg::Sha512] {
        let armour = armour(&key(1), "git", hash, &plain());
        assert_eq!(judged(&with("gpgsig", &armour)).as_deref(), Ok("alice"));
        // However long its lines are.
        let one_line = armour.replace('\n', "").replace("E-----", "E-----\n").replace("-----END", "\n-----END");
        assert_eq!(judged(&with("gpgsig", &one_line)).as_deref(), Ok("alice"));
    }
    let commit = object::commit(with("gpgsig", "x\ny").as_bytes()).unwrap();
    assert_eq!(commit.payload, plain().as_bytes(), "the payload is the commit without the header");
    assert_eq!((commit.armour, commit.time), (b"x\ny\n".to_vec(), Some(1_800_000_000)));
}

#[test]
fn a_commit_whose_signature_does_not_count_is_refused_by_its_reason() {
    let good = armour(&key(1), "git", HashAlg::Sha512, &plain());
    let signed = with("gpgsig", &good);
    let twice = signed.replacen(WHO, &format!("{WHO}gpgsig {}\n", good.trim_end().replace('\n', "\n ")), 1);
    let two_in_one = with("gpgsig", &format!("{good}{good}"));
    let pgp = "-----BEGIN PGP SIGNATURE-----\n\niHUE\n-----END PGP SIGNATURE-----";
    let other = armour(&key(1), "file", HashAlg::Sha512, &plain());
    for (raw, refusal) in [
        (plain(), Refusal::Unsigned),
        (plain().replace("A subject", &good), Refusal::Unsigned),
        (twice, Refusal::Several),
        (with("gpgsig-sha256", &good), Refusal::OddHeader),
        (signed.replacen(WHO, &format!("{WHO}gpgsig-sha256 x\n"), 1), Refusal::OddHeader),
        (with("gpgsig", pgp), Refusal::NoPgp),
        (with("gpgsig", "-----BEGIN SIGNED MESSAGE-----\nMII\n-----END SIGNED MESSAGE-----"), Refusal::X509),
        (with("gpgsig", ""), Refusal::Unreadable),
        (with("gpgsig", "-----BEGIN CERTIFICATE-----"), Refusal::Unreadable),
        (with("gpgsig", "-----BEGIN SSH SIGNATURE-----"), Refusal::Unreadable),
        (with("gpgsig", &good.replace("U1NIU0lH", "V1NIU0lH")), Refusal::Unreadable),
        (two_in_one, Refusal::Unreadable),
        (with("gpgsig", &format!("{good}more")), Refusal::Unreadable),
        (with("gpgsig", &other), Refusal::Namespace("file".to_owned())),
        (signed.replace("A subject", "B subject"), Refusal::Mismatch),
        (signed.replace("tree 4b", "tree 5b"), Refusal::Mismatch),
        (
            signed.replacen(WHO, &format!("parent 4b825dc642cb6eb9a060e54bf8d69288fbee4904\n{WHO}"), 1),
            Refusal::Mismatch,
        ),
        (with("gpgsig", &armour(&key(1), "git", HashAlg::Sha512, "")), Refusal::Mismatch),
    ] {
        assert_eq!(judged(&raw), Err(refusal), "{raw}");
    }
    let stranger = judged(&with("gpgsig", &armour(&key(2), "git", HashAlg::Sha512, &plain())));
    assert!(matches!(stranger, Err(Refusal::NotAllowed { why: Unfit::Unknown, .. })), "{stranger:?}");
}

#[test]
fn the_time_of_a_signature_is_the_committers() {
    let raw = with("gpgsig", &armour(&key(1), "git", HashAlg::Sha512, &plain()));
    let signed = object::commit(raw.as_bytes()).unwrap();
    assert!(check(&signed, &allowed("valid-after=\"20270115080000Z\""), NOW).is_ok());
    let early = check(&signed, &allowed("valid-after=\"20270115080001Z\""), NOW);
    assert!(matches!(early, Err(Refusal::NotAllowed { why: Unfit::Early { .. }, .. })), "{early:?}");
    let late = check(&signed, &allowed("valid-before=\"20270115075959Z\""), NOW);
    assert!(matches!(late, Err(Refusal::NotAllowed { why: Unfit::Late { .. }, .. })), "{late:?}");
    for (committer, time) in [
        ("C <c> 12 +0000", Some(12)),
        ("C <c> > 12 +0000", Some(12)),
        ("C <c> -12 +0000", None),
        ("C <c> +12 +0000", None),
        ("C <c>", None),
        ("C 12 +0000", None),
        ("C <c> 99999999999999999999 +0000", None),
    ] {
        let raw = format!("{TREE}committer {committer}\ngpgsig x\n\ncommitter C <c> 7 +0000\n");
        assert_eq!(object::commit(raw.as_bytes()).unwrap().time, time, "{committer}");
    }
}

#[test]
fn a_tag_is_signed_up_to_the_last_signature_in_it() {
    let body = "object 4b825dc642cb6eb9a060e54bf8d69288fbee4904\ntype commit\ntag v1\ntagger T <t> 1800000000 +0000\n\n\
                One\n-----BEGIN SSH SIGNATURE-----\nquoted\n";
    let good = armour(&key(1), "git", HashAlg::Sha512, body);
    let raw = format!("{body}{good}");
    let (name, signed) = object::tag(raw.as_bytes()).unwrap();
    assert_eq!((name, signed.time, &signed.payload[..]), (&b"v1"[..], Some(1_800_000_000), body.as_bytes()));
    assert!(check(&signed, &allowed(""), NOW).is_ok());
    for (raw, refusal) in [
        (format!("{raw}more\n"), Refusal::Unreadable),
        (format!("{body}-----BEGIN PGP SIGNATURE-----\n"), Refusal::NoPgp),
        (raw.replace("4b825", "5b825"), Refusal::Mismatch),
    ] {
        let (_, signed) = object::tag(raw.as_bytes()).unwrap();
        assert_eq!(check(&signed, &allowed(""), NOW), Err(refusal), "{raw}");
    }
    assert_eq!(object::tag(b"object x\ntag v1\n\nnothing\n"), Err(Refusal::Unsigned));
    assert_eq!(object::tag(raw.replace("tagger", "gpgsig-sha256 x\ntagger").as_bytes()), Err(Refusal::OddHeader));
}

#[test]
fn a_signature_of_another_type_than_its_key_is_not_read() {
    let good = key(1).sign("git", HashAlg::Sha512, plain().as_bytes()).unwrap();
    let claims = |key: KeyData, signature: Signature| {
        let armour = SshSig::new(key, "git", HashAlg::Sha512, signature).unwrap().to_string();
        judged(&with("gpgsig", &armour))
    };
    let sk = "sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAIIdQ8rXoMBwNnIZNGDzGXC4iYGSu0nZ7dKqwc2UsNWJuAAAABHNzaDo=";
    let sk = PublicKey::from_openssh(sk).unwrap().key_data().clone();
    assert_eq!(claims(sk, good.signature().clone()), Err(Refusal::Unreadable));
    let another = claims(key(2).public_key().key_data().clone(), good.signature().clone());
    assert_eq!(another, Err(Refusal::Mismatch), "a signature that names another key than the one that made it");
}

#[test]
fn a_hardware_keys_signature_counts_only_with_what_the_key_added_to_it() {
    let seed = ring::signature::Ed25519KeyPair::from_seed_unchecked(&[1; 32]).unwrap();
    let KeyData::Ed25519(public) = key(1).public_key().key_data().clone() else { panic!("an Ed25519 key") };
    let own = KeyData::SkEd25519(SkEd25519::new(public, "ssh:"));
    let line = PublicKey::from(own.clone()).to_openssh().unwrap();
    let allowed = trusting(&format!("alice {line}"));
    let touched = [1, 0, 0, 0, 7];
    let sha256 = |bytes: &[u8]| ring::digest::digest(&ring::digest::SHA256, bytes).as_ref().to_vec();
    let message = SshSig::signed_data("git", HashAlg::Sha512, plain().as_bytes()).unwrap();
    let made = seed.sign(&[sha256(b"ssh:"), touched.to_vec(), sha256(&message)].concat());
    for (added, passes) in [(touched, true), ([0, 0, 0, 0, 7], false), ([1, 0, 0, 0, 8], false)] {
        let signature = Signature::new(Algorithm::SkEd25519, [made.as_ref(), &added[..]].concat()).unwrap();
        let armour = SshSig::new(own.clone(), "git", HashAlg::Sha512, signature).unwrap().to_string();
        let signed = object::commit(with("gpgsig", &armour).as_bytes()).unwrap();
        let found = check(&signed, &allowed, NOW).map(|found| found.principals);
        let expected = if passes { Ok("alice".to_owned()) } else { Err(Refusal::Mismatch) };
        assert_eq!(found, expected, "{added:?}");
    }
}
