//! Which key may sign.

use super::*;

#[test]
fn a_key_is_what_its_owner_says_of_it_now() {
    let pair = Pair::new(1);
    let own = |at, more| pair.user(pair.config(SignatureType::CertPositive, at, more));
    let on_key = |typ, at, more| pair.on_key(pair.config(typ, at, more));
    let good = || own(MADE, vec![flags(sign)]);
    let weak = |at| {
        let mut config = pair.config(SignatureType::CertPositive, at, vec![flags(sign)]);
        config.hash_alg = HashAlgorithm::Sha512;
        let strong = pair.user(config);
        Signature::try_from_reader(header(&strong), &sha1(&bytes(&strong))[2..]).unwrap()
    };
    let mut critical = pair.config(SignatureType::CertPositive, MADE + 1, vec![flags(sign), lasts(1)]);
    let unknown = SubpacketData::Experimental(101, vec![1].into());
    critical.hashed_subpackets.push(Subpacket::critical(unknown).unwrap());
    let critical = pair.user(critical);
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
        ("SHA-1", vec![], vec![weak(MADE)], Some(Unfit::WeakSelfSignature)),
        ("revoked", vec![revoked(MADE)], vec![good()], Some(Unfit::Revoked(Which::Key))),
        ("revoked later", vec![revoked(SIGNED + 1)], vec![good()], Some(Unfit::Revoked(Which::Key))),
        ("name taken back", vec![], vec![good(), taken_back(MADE + 1)], Some(Unfit::NoSelfSignature)),
        ("and given again", vec![], vec![good(), taken_back(MADE + 1), own(MADE + 2, vec![flags(sign)])], None),
        ("expired", vec![], vec![ended()], Some(end)),
        ("expires later", vec![], vec![own(MADE, vec![flags(sign), lasts(SIGNED - MADE + 1)])], None),
        ("renewed", vec![], vec![ended(), own(MADE + 9, vec![flags(sign), lasts(SIGNED)])], None),
        ("made shorter", vec![], vec![own(MADE + 9, vec![flags(sign), lasts(SIGNED - MADE)]), good()], Some(end)),
        ("SHA-1 since", vec![], vec![good(), weak(MADE + 1)], Some(Unfit::WeakSelfSignature)),
        ("asks too much since", vec![], vec![good(), critical], Some(Unfit::NoSelfSignature)),
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
    // By itself, wherever in the file: of the key that it names, not of the one above it.
    let (bob, block) = (Pair::new(2), |bytes: &[u8]| armoured("PGP PUBLIC KEY BLOCK", bytes));
    let revocation = block(&bytes(&revoked(MADE)));
    let both = parse(&(block(&pair.plain(&[])) + &block(&bob.plain(&[])) + &revocation)).unwrap();
    assert_eq!(unfit(judged(&pair.sign(Vec::new()), &both)), Unfit::Revoked(Which::Key));
    assert!(judged(&bob.sign(Vec::new()), &both).is_ok());
    let failure = parse(&(block(&bob.plain(&[])) + &revocation)).unwrap_err();
    assert!(failure.message.contains("the revocation that begins here is of no key above it"), "{failure}");
    // At the end, also of a part that is not looked at.
    for part in [&[][..], &[0xd1, 1, 0], &[0xce, 1, 5]] {
        let behind = [&pair.plain(&[]), part, &bytes(&revoked(MADE))].concat();
        assert_eq!(unfit(judged(&pair.sign(Vec::new()), &keys(&behind))), Unfit::Revoked(Which::Key));
    }
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
fn a_key_that_can_sign_nothing_is_known_beforehand_and_one_that_can_is_not_called_idle() {
    let pair = Pair::new(1);
    let own = |more| pair.user(pair.config(SignatureType::CertPositive, MADE, more));
    let revoked = || pair.on_key(pair.config(SignatureType::KeyRevocation, MADE, vec![]));
    let back = || pair.back(HashAlgorithm::Sha512);
    let bound = |more| pair.binding(more);
    let unfit = |why| Some(Idle::Unfit(why));
    let for_all = |which| Some(Idle::Unfit(Unfit::NotForSigning(which)));
    let encrypts = |flags: &mut KeyFlags| flags.set_encrypt_comms(true);
    let day = AHEAD as u32;
    for (name, at, on_key, on_name, on_subkey, expected) in [
        ("signs", SIGNED, vec![], own(vec![flags(sign)]), vec![], None),
        ("revoked", SIGNED, vec![revoked()], own(vec![flags(sign)]), vec![], unfit(Unfit::Revoked(Which::Key))),
        (
            "over",
            SIGNED,
            vec![],
            own(vec![flags(sign), lasts(SIGNED - MADE)]),
            vec![],
            unfit(Unfit::Expired(Which::Key, SIGNED.into())),
        ),
        ("over in a second", SIGNED - 1, vec![], own(vec![flags(sign), lasts(SIGNED - MADE)]), vec![], None),
        ("certifies", SIGNED, vec![], own(vec![flags(certify)]), vec![], for_all(Which::Key)),
        (
            "and encrypts",
            SIGNED,
            vec![],
            own(vec![flags(certify)]),
            vec![bound(vec![flags(encrypts)])],
            for_all(Which::Key),
        ),
        ("its subkey signs", SIGNED, vec![], own(vec![flags(certify)]), vec![bound(vec![flags(sign), back()])], None),
        (
            "its subkey does not say so",
            SIGNED,
            vec![],
            own(vec![flags(certify)]),
            vec![bound(vec![flags(sign)])],
            unfit(Unfit::NoBackSignature),
        ),
        ("signs without its subkey", SIGNED, vec![], own(vec![flags(sign)]), vec![bound(vec![flags(sign)])], None),
        ("made tomorrow", MADE - day, vec![], own(vec![flags(sign)]), vec![], None),
        (
            "made later",
            MADE - day - 1,
            vec![],
            own(vec![flags(sign)]),
            vec![],
            unfit(Unfit::Early(Which::Key, MADE.into())),
        ),
    ] {
        let keys = keys(&pair.file(&on_key, &[on_name], &on_subkey));
        assert_eq!(idle::why(&keys.certificates[0], at), expected, "{name}");
        let told = idle::idle(&keys, at.into(), Path::new("keys"));
        assert_eq!(told.len(), usize::from(expected.is_some()), "{name}");
        for failure in told {
            assert!(failure.message.contains(" (Alice <alice@example.org>) nothing can be signed: "), "{failure}");
        }
    }
}
