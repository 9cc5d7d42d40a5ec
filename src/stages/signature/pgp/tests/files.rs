//! The file of keys, and armour.

use super::*;

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
        assert!(failure.help.iter().any(|help| help.contains("gpg --export --armor")), "{failure:?}");
    }
    // A subkey of a type that nobody knows yet signs nothing, and does no harm.
    let strange = [public.clone(), vec![0xce, 1, 5], vec![0xc2, 1, 9]].concat();
    assert!(parse(&armoured("PGP PUBLIC KEY BLOCK", &strange)).is_ok());
}

/// Each of them was compared with all before it.
#[test]
fn thousands_of_names_subkeys_and_keys_are_read_at_once() {
    let public = Pair::new(1).plain(&[]);
    let name = |number: u32| [&[0xcd, 3], &number.to_be_bytes()[1..]].concat();
    // For encryption, of version 4, each made a second after the one before.
    let key = |tag: u8, number: u32| [&[tag, 38, 4], &number.to_be_bytes()[..], &[25], &[9; 32]].concat();
    let began = std::time::Instant::now();
    let read = |more: Vec<u8>| {
        let text = armoured("PGP PUBLIC KEY BLOCK", &[public.clone(), more].concat());
        assert!(text.len() < LONGEST, "{}", text.len());
        parse(&text).unwrap().certificates
    };
    assert_eq!(read((0..150_000).flat_map(name).collect())[0].users.len(), 150_001);
    assert_eq!(read((0..18_000).flat_map(|number| key(0xce, number)).collect())[0].subkeys.len(), 18_000);
    assert_eq!(read((0..18_000).flat_map(|number| key(0xc6, number)).collect()).len(), 18_001);
    assert!(began.elapsed() < std::time::Duration::from_secs(60), "{:?}", began.elapsed());
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
