//! What a signature must be.

use super::*;

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
