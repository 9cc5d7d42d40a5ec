use super::HostKeyError::{Changed, NotPinned, OnlyUnsupported, OtherPort, Revoked};
use super::*;

// Each with what `ssh-keygen -l` prints of it.
const ONE: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIF/djURYhdG0N9QkiIWlBwq8/jVG8Mmqz7tOYcXISZEm";
const ONE_PRINT: &str = "SHA256:d2odmC4tTAk6vR+my0WGuU84lrrvugGJgSQ+fo87jq4";
const TWO: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAyYPfyyqiWNk4OZGM4Hq16+H16LJ+0ZqQ0rjjodSP7x";
const TWO_PRINT: &str = "SHA256:BMrbaSjMcpSwq6wERBqD1TjakzE5MPpwUPnSm9B3g+w";
const P256: &str = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBB06+lMyAbtGwYt/PqdXj0IAq/E6mNnb1vRcfyi3t59mPpfsWAzJSzEbCsAiN8h6xAbpdii6QDPQnhZSzXmXcco=";
const P256_PRINT: &str = "SHA256:RPD4INlbSBNL3mDS2hmRBIzB02fQOo+RPuRCzaNZ4II";
const P384: &str = "ecdsa-sha2-nistp384 AAAAE2VjZHNhLXNoYTItbmlzdHAzODQAAAAIbmlzdHAzODQAAABhBIM7D5unkz64IoCkEAWo98fD8S+aiDMvYb64+F+XIxDBmU2fVoASId5ZVvsQtmNeD8YF6OjEARLwif/1CVbDA1BkWZsAaWgzMRbNs7lU5Imc7wydqudJI8BAJKCVz5TCOg==";
const P521: &str = "ecdsa-sha2-nistp521 AAAAE2VjZHNhLXNoYTItbmlzdHA1MjEAAAAIbmlzdHA1MjEAAACFBAE50DwnXBozb27RYWgAELNJCeixYj+4Ii1h6iTHKxpo3YYLRJkmBS3jZFUJ6bsSJO75awsx+cMNFMZ/936iHK/SAQA7S9aRwQ6XX9DF/46n8f6VTyfQEcN4UkD1jaxXhH4gi3dMfV96SIJpA0xhGbC0Pfd7az4sXj4UcvjCwj1eiIwPPw==";
const RSA: &str = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQC4NhXibpSuDMuQx9Ua8XRQudbe6lxM5PgUf7DaqcEmcZY93scSzm/+KPF1oFcZiP9v3NAOoIBGLULGPnHRd/65Aq6mLgn4x9LiA3CS8toT6UcLMkSEQwHBNBYSSffmFs3nfDS6OaWZWdRd1gaeR1iNCynwQJFH2SIpPcquOxzgZ44gBdKhhESnY3bmYHPV879TP/Drt/o7e3rX/cfIka8QaQSaZRcL+q5VTsWOHOk3dAY2k5JAu9nwaQ4Oeb4F008vvqP2kFjjjHGP6dVsdTT078uHwLLjAzXkxI88OPXRL/tK1ZafUEbpwmsrNxkxWAfOjHmoGqaazOFDwOCJcnOP";
// `ssh-keygen -H` made these of git.example and [git.example]:2222.
const HASHED: &str = "|1|rzPJnJsxmj1BMUERDosx8JAqXLI=|kR8uLjmdrh+ioSOBjZXOKkQN29k=";
const HASHED_2222: &str = "|1|AOzMS3lFleZ93ORSdtJis9mGx40=|sxd6atzvU7pt4rc1SkMuxZnW4cw=";

/// Known hosts in which `ONE` and the like stand for the keys above.
fn known(text: &str) -> KnownHosts {
    let hashes = [("HASHED_2222", HASHED_2222), ("HASHED", HASHED)];
    let keys = [("ONE", ONE), ("TWO", TWO), ("P256", P256), ("P384", P384)];
    let more = [("P521", P521), ("RSA", RSA)];
    let mut text = text.to_owned();
    for (name, value) in hashes.into_iter().chain(keys).chain(more) {
        text = text.replace(&format!("${name}"), value);
    }
    KnownHosts::parse(Path::new("/etc/poller/known_hosts"), &text)
}

fn key(text: &str) -> PublicKey {
    PublicKey::from_openssh(text).unwrap()
}

fn name_of(verdict: &Result<(), HostKeyError>) -> &'static str {
    match verdict {
        Ok(()) => "ok",
        Err(NotPinned { .. }) => "not pinned",
        Err(Changed { .. }) => "changed",
        Err(Revoked { .. }) => "revoked",
        Err(OtherPort { .. }) => "other port",
        Err(OnlyUnsupported { .. }) => "unsupported",
    }
}

#[test]
fn a_key_is_held_against_the_lines_as_openssh_would() {
    // Verdict on key ONE, host and port, the file ("/" ends a line of it).
    let table = r"
        not pinned  | git.example 22   |
        ok          | git.example 22   | git.example $ONE
        ok          | git.example 22   | git.example\t$ONE me@home\r
        ok          | git.example 22   |   # c//\t\r/ git.example  $ONE
        ok          | gIT.example 22   | Git.EXAMPLE $ONE
        not pinned  | git.example 22   | git.example2 $ONE
        changed     | git.example 22   | git.example $TWO
        ok          | git.example 22   | git.example $TWO/git.example $ONE
        changed     | git.example 22   | git.example $P256
        ok          | git.example 22   | git.example $P256/git.example $ONE

        ok          | GIT.example 2222 | [git.example]:2222 $ONE
        ok          | ::1 2222         | [::1]:2222 $ONE
        other port  | git.example 2222 | git.example $ONE
        not pinned  | git.example 2222 | git.example $TWO
        other port  | git.example 22   | [git.example]:22 $ONE
        other port  | git.example 22   | [git.example]:9 $ONE
        changed     | git.example 22   | [git.example]:9 $ONE/git.example $TWO

        ok          | git.example 22   | a,git.example,b $ONE
        ok          | git.example 22   | *.example $ONE
        ok          | git.example 22   | gi?.ex*le* $ONE
        not pinned  | git.example 22   | git?.example $ONE
        not pinned  | git.example 22   | *.example,!git.example $ONE
        not pinned  | git.example 22   | !GIT.example,*.example $ONE
        not pinned  | git.example 22   | !other.example $ONE
        ok          | git.example 2222 | [*.example]:2222 $ONE
        ok          | git.example 2222 | * $ONE

        ok          | git.example 22   | $HASHED $ONE
        ok          | Git.Example 22   | $HASHED $ONE
        not pinned  | git2.example 22  | $HASHED $ONE
        ok          | git.example 2222 | $HASHED_2222 $ONE
        other port  | git.example 22   | $HASHED_2222 $ONE
        changed     | git.example 22   | $HASHED $TWO

        revoked     | git.example 22   | @revoked git.example $ONE
        revoked     | git.example 22   | git.example $ONE/@revoked * $ONE
        revoked     | git.example 22   | @revoked $HASHED $ONE/* $ONE
        revoked     | git.example 7    | @revoked git.example $ONE/* $ONE
        ok          | git.example 22   | @revoked else.example $ONE/* $ONE
        ok          | git.example 22   | @revoked * $TWO/git.example $ONE
        not pinned  | git.example 22   | @revoked * $TWO/git.example $TWO

        unsupported | git.example 22   | git.example $RSA
        unsupported | git.example 22   | git.example ssh-dss AAAA/* $RSA
        unsupported | git.example 22   | git.example $RSA/[git.example]:9 $ONE
        ok          | git.example 22   | git.example $RSA/* $ONE
        changed     | git.example 22   | git.example $RSA/* $TWO
        not pinned  | git.example 22   | @cert-authority * $ONE
        not pinned  | git.example 22   | @trusted * $ONE";
    let rows = table.lines().filter(|row| !row.is_empty());
    for row in rows {
        let mut cells = row.splitn(3, " |");
        let mut cell = || cells.next().unwrap();
        let (expected, place, text) = (cell().trim(), cell(), cell());
        let (host, port) = place.trim().split_once(' ').unwrap();
        let text = text.replace('/', "\n");
        let text = text.replace(r"\t", "\t").replace(r"\r", "\r");
        let known = known(&text);
        let verdict = known.check(host, port.trim().parse().unwrap(), &key(ONE));
        assert_eq!(name_of(&verdict), expected, "{row}");
    }
    let verdict = known("git.example $RSA").check("git.example", 22, &key(RSA));
    assert_eq!(name_of(&verdict), "unsupported");
    let verdict = known("").check("git.example", 22, &key(RSA));
    assert_eq!(name_of(&verdict), "unsupported");
}

/// Each port there is was once tried on each pattern, minutes for a file like this.
#[test]
fn a_long_file_does_not_hold_up_a_refusal() {
    let listed: String = (0..2000).map(|n| format!("[other{n}]:{n},")).collect();
    let text = format!("{listed}* $TWO\n{listed}x $ONE\n[git.*]:9 $ONE");
    let begun = std::time::Instant::now();
    let verdict = known(&text).check("git.example", 22, &key(ONE));
    assert_eq!(name_of(&verdict), "changed");
    let verdict = known(&text.replace(",* $TWO", ",y $TWO")).check("git.example", 22, &key(ONE));
    assert_eq!(name_of(&verdict), "other port");
    assert!(begun.elapsed() < std::time::Duration::from_secs(30), "{:?}", begun.elapsed());
}

#[test]
fn the_algorithms_offered_are_those_pinned_best_first() {
    let text = "h $P521\nh $P384\nh $P256\nh $ONE\nh $RSA\nh $TWO\n[h]:9 $P384\n\
        r $ONE\nr $P256\n@revoked r $ONE\nrsa $RSA";
    let table = [
        ("h", 22, "ssh-ed25519 ecdsa-sha2-nistp256 ecdsa-sha2-nistp384 ecdsa-sha2-nistp521"),
        ("h", 9, "ecdsa-sha2-nistp384"),
        ("r", 22, "ecdsa-sha2-nistp256"),
        ("rsa", 22, ""),
        ("unknown", 22, ""),
    ];
    for (host, port, expected) in table {
        let algorithms = known(text).algorithms(host, port);
        let names: Vec<&str> = algorithms.iter().map(Algorithm::as_str).collect();
        assert_eq!(names.join(" "), expected, "{host} {port}");
    }
}

#[test]
fn a_bad_line_is_ignored_by_name_and_harms_no_other() {
    // (line, why it is ignored)
    let table = [
        ("git.example", "a line is"),
        ("git.example ssh-ed25519", "a line is"),
        ("@revoked git.example", "a line is"),
        ("git.example 1024 35 1453", "unknown key type \"1024\""),
        ("git.example ssh-ed25519 AAAA", "cannot be read"),
        ("git.example ssh-ed25519 !!!", "cannot be read"),
        (&format!("h ecdsa-sha2-nistp256 {}", &ONE[12..]), "cannot be read"),
        // A curve that is named `nis`, with what clears a screen behind it.
        (
            "h ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzG1sySngAAABBBDExMTExMTExMTExMTExMTExMTExMTExMTExMTExMTExMTExMTExMTExMTExMTExMTExMTExMTExMTExMTExMTE=",
            "\'nis\\u{1b}[2Jx\'",
        ),
        ("|1|x|y $ONE", "hashed host"),
        ("|2|AAAA|AAAA $ONE", "hashing"),
        ("@cert-authority * $ONE", "@cert-authority is not supported"),
        ("@\u{1b}[2J * $ONE", "unknown marker \"@\\u{1b}[2J\""),
    ];
    for (line, expected) in table {
        let known = known(&format!("# mine\n{line}\ngit.example $ONE"));
        let [ignored] = &known.ignored[..] else {
            panic!("{line}: {:?}", known.ignored);
        };
        assert_eq!(ignored.line, 2, "{line}");
        assert!(ignored.why.contains(expected), "{}", ignored.why);
        assert_eq!(known.check("git.example", 22, &key(ONE)), Ok(()));
    }
}

#[test]
fn a_refusal_says_what_to_compare_and_what_to_write_where() {
    let line = format!("[git.example]:2222 {TWO}");
    let compare = "First compare the fingerprint with the one";
    // (the file, what the text says beside what all of them say)
    let table = [
        ("", vec!["is not pinned", compare, &line]),
        (
            "#\n@cert-authority * $ONE\n[git.example]:2222 ssh-ed25519\n",
            vec![
                "\n  line 2 is ignored: @cert-authority is not supported\n",
                "\n  line 3 is ignored: a line is a host,",
            ],
        ),
        (
            "#\n[git.example]:2222 $ONE\n[git.example]:2222 $P256",
            vec!["attack", "line 2 pins", ONE_PRINT, "line 3 pins", P256_PRINT]
                .into_iter()
                .chain(["Ask the server's owner", "in the place of", compare, &line])
                .collect(),
        ),
        ("\n@revoked * $TWO", vec!["line 2 marks", "REVOKED", "no line to add"]),
        ("$HASHED $TWO", vec!["line 1 pins this key for git.example,", compare, &line]),
        (
            "\n[git.example]:2222 $RSA",
            vec!["line 2 pins: ssh-rsa", compare, &line]
                .into_iter()
                .chain(["\nssh-keyscan -t ed25519 -p 2222 git.example\n"])
                .collect(),
        ),
    ];
    let file = "/etc/poller/known_hosts";
    for (text, parts) in table {
        let shown = key(&format!("{TWO} a comment"));
        let error = known(text).check("git.example", 2222, &shown).unwrap_err();
        let said = error.to_string();
        let always = ["git.example port 2222", "ssh-ed25519", TWO_PRINT, file];
        for part in parts.into_iter().chain(always) {
            assert!(said.contains(part), "no {part:?} in:\n{said}");
        }
        assert!(!said.contains("a comment"));
    }
}

#[test]
fn of_many_ignored_lines_the_first_few_are_named() {
    for (count, more) in [(5, None), (6, Some("1 more")), (900, Some("895 more"))] {
        let file = known(&"git.example\n".repeat(count));
        let said = file.check("git.example", 22, &key(ONE)).unwrap_err();
        let said = said.to_string();
        assert_eq!(said.matches("is ignored").count(), 5);
        assert_eq!(said.contains("more"), more.is_some(), "{said}");
        assert!(said.contains(more.unwrap_or_default()), "{said}");
    }
}
