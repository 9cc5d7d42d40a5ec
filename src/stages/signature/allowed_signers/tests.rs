use super::*;

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIdQ8rXoMBwNnIZNGDzGXC4iYGSu0nZ7dKqwc2UsNWJu";
const OTHER: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ50/X5uY2bJ9SmEPUsdLZ4tRs8kcYRGmvpI7xHPCmzj";
const NAMELESS: &str = "a line begins with whose key it is, such as alice@example.org";
const NOW: i64 = 1_800_000_000; // 2027-01-15T08:00:00Z

fn parse(text: &str) -> Result<AllowedSigners, String> {
    AllowedSigners::parse(Path::new("/etc/signers"), text).map_err(|failure| failure.message)
}

fn data(key: &str) -> KeyData {
    PublicKey::from_openssh(key).unwrap().key_data().clone()
}

#[track_caller]
fn find(text: &str) -> Result<String, Unfit> {
    parse(text).unwrap().find(&data(KEY), "git", NOW).map(str::to_owned)
}

fn utc(text: &str) -> Timestamp {
    text.parse().unwrap()
}

#[test]
fn a_key_signs_when_a_line_has_it_and_its_options_hold() {
    for (line, principals) in [
        ("alice@example.org KEY", "alice@example.org"),
        ("\talice \t KEY   a comment = \"of any kind\r", "alice"),
        ("alice,bob KEY", "alice,bob"),
        ("\"Alice A,b\" KEY", "Alice A,b"),
        ("* KEY", "*"),
        ("*,!mallory KEY", "*,!mallory"),
        ("a namespaces=\"git\" KEY", "a"),
        ("a NameSpaces=\"file,g?t\" KEY", "a"),
        ("a namespaces=\"*\",valid-after=\"20270115\" KEY", "a"),
        ("a valid-after=\"202701150800\" KEY", "a"),
        ("a valid-before=\"20270115080000Z\" KEY", "a"),
        ("a valid-after=\"20200101z\",valid-before=\"20300101\",namespaces=\"x\\\"y,git\" KEY", "a"),
        ("# said\n\n   \n#a OTHER\nb OTHER\na valid-before=\"20200101\" KEY\nc KEY", "c"),
    ] {
        let text = line.replace("KEY", KEY).replace("OTHER", OTHER);
        assert_eq!(find(&text).as_deref(), Ok(principals), "{line}");
    }
}

#[test]
fn why_a_key_may_not_sign_is_told_by_its_last_line() {
    for (line, why) in [
        ("", Unfit::Unknown),
        ("a OTHER", Unfit::Unknown),
        ("!a KEY", Unfit::Nobody { line: 1 }),
        ("*,!* KEY", Unfit::Nobody { line: 1 }),
        ("a namespaces=\"file\" KEY", Unfit::Namespace { line: 1 }),
        ("a namespaces=\"*,!git\" KEY", Unfit::Namespace { line: 1 }),
        ("a namespaces=\"\" KEY", Unfit::Namespace { line: 1 }),
        ("a namespaces=\"GIT\" KEY", Unfit::Namespace { line: 1 }),
        ("a valid-after=\"20270115080001\" KEY", Unfit::Early { line: 1, after: utc("2027-01-15T08:00:01Z") }),
        (
            "#\na namespaces=\"file\" KEY\na valid-before=\"202701150759\" KEY",
            Unfit::Late { line: 3, before: utc("2027-01-15T07:59:00Z") },
        ),
    ] {
        let text = line.replace("KEY", KEY).replace("OTHER", OTHER);
        assert_eq!(find(&text), Err(why), "{line}");
    }
}

#[test]
fn what_cannot_be_read_is_an_error_with_its_line() {
    for (line, why) in [
        ("alice", "the key is missing"),
        ("KEY alice", NAMELESS),
        ("alice ssh-ed25519", "the key is missing"),
        ("\"alice KEY", "a quote is not closed"),
        (", KEY", NAMELESS),
        ("a cert-authority KEY", "`cert-authority` is not supported: list the keys themselves"),
        ("a namespaces=\"git\",CERT-authority KEY", "`cert-authority` is not supported: list the keys themselves"),
        ("a no-touch-required KEY", "unknown option or key type `no-touch-required`"),
        ("a namespaces=git KEY", "the value of `namespaces` is not in double quotes"),
        ("a namespaces KEY", "the value of `namespaces` is not in double quotes"),
        ("a namespaces=\"git KEY", "a quote is not closed"),
        ("a namespaces=\"git\"x KEY", "`x` after the value of `namespaces`"),
        ("a namespaces=\"git\", KEY", "a comma is followed by no option"),
        ("a namespaces=\"git\",namespaces=\"*\" KEY", "`namespaces` is given twice"),
        ("a valid-after=\"20300101\",valid-before=\"20300101\" KEY", "`valid-before` is not after `valid-after`"),
        ("a namespaces=\"git\" ssh-foo AAAA", "unknown key type `ssh-foo`"),
        ("a ssh-foo AAAA", "unknown option or key type `ssh-foo`"),
        ("a namespaces=\"git\"", "the key is missing"),
    ] {
        let text = format!("# first\nb {OTHER}\n{}\nb {OTHER}", line.replace("KEY", KEY));
        assert_eq!(parse(&text).unwrap_err(), format!("/etc/signers:3: {why}"), "{line}");
    }
    for broken in ["ssh-ed25519 %", "ssh-ed25519 AAAA", &KEY[..40], &KEY.replace("ssh-ed25519", "ssh-rsa")] {
        let why = parse(&format!("a {broken}")).unwrap_err();
        assert!(why.starts_with("/etc/signers:1: the ssh-") && why.contains(" key cannot be read: "), "{why}");
    }
    // A control character in the file reaches no terminal.
    assert!(!parse("a \u{1b}[2J AAAA").unwrap_err().contains('\u{1b}'));
}

#[test]
fn a_time_that_is_none_is_an_error() {
    for wrong in
        ["", "0", "2027", "2027011", "20270230", "20271301", "202701012500", "2027-01-01", "20270101+", "forever"]
    {
        let why = parse(&format!("a valid-before=\"{wrong}\" {KEY}")).unwrap_err();
        assert!(why.contains("`valid-before` is no time"), "{wrong}: {why}");
    }
}
