//! Modes that are none of the four, and objects that are not what their mode says.

use super::{EXEC, FILE, FOLDER, Hostile, LINK, sample};

/// All types that fit the bits, each with permissions that git writes and some that it does not.
fn by_bits() -> Vec<String> {
    let permissions = [0o644, 0o755, 0, 0o664, 0o600, 0o777, 0o4755, 0o2755, 0o1755, 0o7777];
    let accepted = ["40000", "100644", "100755", "120000", "160000"];
    let modes = (0..16).flat_map(|kind| permissions.iter().map(move |bits| format!("{:o}", (kind << 12) | bits)));
    modes.filter(|mode| !accepted.contains(&mode.as_str())).collect()
}

/// The accepted ones, written otherwise.
const SPELLINGS: [&str; 18] = [
    "040000",
    "0040000",
    "0100644",
    "0000000000000000000000000100644",
    "18446744073709651620",
    "4294967296100644",
    "+100644",
    "-100644",
    "0x81a4",
    "0o100644",
    "100644\t",
    "10064a",
    "100648",
    "",
    "100644.0",
    "٤٠٠٠٠",
    "\u{1b}[2J",
    "100664",
];

#[test]
fn modes_by_their_bits() {
    let mut hostile = Hostile::by_pack("mode bits");
    let text = hostile.blob("planted\n");
    let modes = sample(by_bits(), 20);
    for mode in &modes {
        let top = hostile.tree_with(&[(mode, b"odd", text)]);
        hostile.served_and_refused(format!("mode {mode}"), &[top, text], "with the mode");
    }
    for mode in ["100600", "104755", "40755", "120777"] {
        let folder = hostile.tree(&[(mode, b"odd", text)]);
        let top = hostile.tree_with(&[(FOLDER, b"folder", folder)]);
        hostile.served_and_refused(format!("mode {mode} in a folder"), &[top, folder, text], "with the mode");
    }
}

#[test]
fn modes_by_their_spelling() {
    let mut hostile = Hostile::by_pack("mode spelling");
    let text = hostile.blob("planted\n");
    for mode in sample(SPELLINGS.to_vec(), 4) {
        let top = hostile.tree_with(&[(mode, b"odd", text)]);
        hostile.served_and_refused(format!("mode {mode:?}"), &[top, text], "with the mode");
    }
}

#[test]
fn objects_that_are_not_what_their_mode_says() {
    let mut hostile = Hostile::by_pack("wrong kind");
    let text = hostile.blob("planted\n");
    let tree = hostile.tree(&[(FILE, b"planted", text)]);
    let commit = git2::Oid::from_str(&hostile.first).unwrap();
    let none = git2::Oid::from_str(&"1".repeat(40)).unwrap();
    let cases = [
        ("a folder that is a file", FOLDER, text, 77, "is said to be a folder and is a blob"),
        ("a file that is a folder", FILE, tree, 77, "is said to be a file and is a tree"),
        ("a program that is a commit", EXEC, commit, 77, "is said to be a file and is a commit"),
        ("a link that is a folder", LINK, tree, 77, "is said to be a file and is a tree"),
        ("a folder that is a commit", FOLDER, commit, 77, "is said to be a folder and is a commit"),
        ("a file that was not sent", FILE, none, 76, "cannot be read"),
        ("a link that was not sent", LINK, none, 76, "cannot be read"),
        ("a folder that was not sent", FOLDER, none, 76, "cannot be read"),
    ];
    for (case, mode, id, code, why) in cases {
        hostile.tally.case(case);
        let top = hostile.tree_with(&[(mode, b"odd", id)]);
        let tip = hostile.commit(top);
        hostile.serve(&tip.to_string(), &[tip, top, text, tree]);
        hostile.expect_failure(&tip.to_string(), code, why);
    }
}

#[test]
fn tree_objects_that_are_cut_short() {
    let mut hostile = Hostile::by_pack("damaged");
    let text = hostile.blob("planted\n");
    let whole = [&b"100644 planted\0"[..], text.as_bytes()].concat();
    for length in sample((1..whole.len()).collect(), 6) {
        hostile.tally.case(format!("after {length} bytes"));
        let damaged = hostile.object(git2::ObjectType::Tree, &whole[..length]);
        let top = hostile.tree_with(&[(FOLDER, b"folder", damaged)]);
        let tip = hostile.commit(top);
        hostile.serve(&tip.to_string(), &[tip, top, damaged, text]);
        hostile.expect_failure(&tip.to_string(), 77, "a damaged tree object");
    }
}
