//! What a git server can send in place of the pack that was asked for.

use std::io::{self, Write};
use std::sync::LazyLock;

use super::arena::Case;
use super::channel::Channel;
use super::git::*;
use super::host::{Attack, Ground, Seat};
use super::on_ssh::CODES;
use super::pack::*;
use super::ssh::loop_over;

type Codes = &'static [i32];
const PROTOCOL: Codes = &[76];
const UNREACHABLE: Codes = &[69];
const REFUSED: Codes = &[77];
const EITHER: Codes = &[76, 69];
const FINE: Codes = &[0];
const ABSENT: Id = [0xab; 20];

type Play = fn(&mut Channel, &Ground) -> io::Result<()>;

pub fn cases() -> Vec<Case> {
    let case = |(name, play, codes, says, always): Row| {
        let case = Case::new(name, Seat::Fetcher, Attack::Git(Box::new(play)), codes, says);
        if always { case.always() } else { case }
    };
    let rows = [stream(), sizes(), deltas(), what_is_missing(), what_is_malformed(), trees()].concat();
    let mut cases: Vec<Case> = rows.into_iter().map(case).collect();
    for case in &mut cases {
        for (name, patience, mib) in LARGE {
            if case.name.starts_with(name) {
                (case.patience, case.fetcher) = (patience, mib << 20);
            }
        }
        case.prepare = prepare;
    }
    cases
}

fn prepare() {
    LazyLock::force(&ZEROS);
    LazyLock::force(&LINKS);
    if crate::all() {
        LazyLock::force(&WIDE);
        LazyLock::force(&MANY);
    }
}

/// What takes its time, in seconds, and what it may take in MiB: those that keep within all limits take
/// what the limits allow.
const LARGE: [(&str, u64, u64); 14] = [
    ("as large as is taken", 25, 1700),
    ("as many objects as are taken", 25, 256),
    ("blobs that expand a thousandfold", 25, 256),
    ("a blob of 500 MiB", 25, 256),
    ("a blob of 1 GiB", 10, 256),
    ("a blob that expands", 10, 256),
    ("a delta that doubles", 10, 256),
    ("a commit of 400 MiB", 25, 1300),
    ("deltas on deltas", 10, 256),
    ("a commit of 100,000 parents", 25, 256),
    ("a chain of 10,000 tags", 25, 256),
    ("ten trees that make", 25, 384),
    ("seven folders of 300,000 files", 25, 384),
    ("links as long as a disk", 10, 256),
];

type Row = (&'static str, Play, Codes, &'static str, bool);

#[rustfmt::skip]
fn stream() -> Vec<Row> {
    vec![
        ("progress in escape codes without end", |c, g| chatter(c, g, packet(format!("\x02{CODES}"))), PROTOCOL, "without end", true),
        ("progress of nothing without end", |c, g| chatter(c, g, packet("\x02")), EITHER, "", false),
        ("acknowledgements without end", |c, g| chatter(c, g, packet(format!("ACK {} common\n", hex(&ABSENT)))), PROTOCOL, "", true),
        ("refusals without end", |c, g| chatter(c, g, packet("NAK\n")), EITHER, "", false),
        ("empty pieces of a pack without end", |c, g| chatter(c, g, packet("\x01")), EITHER, "", false),
        ("an error on the third band, in escape codes", |c, g| said(c, g, &packet(format!("\x03{CODES}"))), PROTOCOL, "gave up", true),
        ("an error of 60 KB on the third band", |c, g| said(c, g, &packet(format!("\x03{}", CODES.repeat(2000)))), PROTOCOL, "gave up", false),
        ("an error packet, in escape codes", |c, g| said(c, g, &packet(format!("ERR {CODES}"))), PROTOCOL, "gave up", false),
        ("a fourth band", |c, g| said(c, g, &packet(format!("\x04{CODES}"))), EITHER, "", false),
        ("escape codes for a packet", |c, g| said(c, g, CODES.as_bytes()), EITHER, "", true),
        ("a flush and no pack", |c, g| said(c, g, FLUSH), EITHER, "", false),
        ("a hang-up and no pack", |c, g| up_to_the_pack(c, &site(g).0), EITHER, "", false),
        ("nothing, and no hang-up", |c, g| said(c, g, b""), UNREACHABLE, "silent", false),
        ("a pack without end", pack_without_end, UNREACHABLE, "", true),
        ("a wrong signature", |c, g| corrupted(c, g, 0), EITHER, "", false),
        ("a wrong version", |c, g| corrupted(c, g, 7), EITHER, "", false),
        ("a bit that is wrong", |c, g| corrupted(c, g, 40), EITHER, "", false),
        ("a wrong checksum", |c, g| { let at = site(g).1.bytes().len() - 3; corrupted(c, g, at) }, PROTOCOL, "", true),
        ("bytes after the pack", |c, g| { let (tip, pack) = site(g); send_bytes(c, &tip, &[pack.bytes(), vec![0; 100]].concat()) }, PROTOCOL, "after its end", true),
        ("a pack that is cut short", |c, g| { let (tip, pack) = site(g); let b = pack.bytes(); send_bytes(c, &tip, &b[..b.len() - 30]) }, EITHER, "", false),
        ("hangs up right after the pack", right_after, &[0, 69, 76], "", true),
        ("another tip than a moment ago", |c, g| { let (tip, pack) = site(g); send(c, &tip, &pack) }, FINE, "", true),
    ]
}

#[rustfmt::skip]
fn sizes() -> Vec<Row> {
    vec![
        ("four billion objects", |c, g| announced(c, g, u32::MAX), REFUSED, "4294967295 objects", true),
        ("five million objects that never come", never_come, EITHER, "", true),
        ("more objects than it says", |c, g| announced(c, g, 2), PROTOCOL, "after its end", false),
        ("no objects", |c, g| send(c, &site(g).0, &Pack::default()), EITHER, "", false),
        ("a blob that expands a thousandfold, to 1 GiB", |c, g| with(c, g, |p| p.raw(BLOB, 1 << 30, &zeros(1024))), REFUSED, "1073741824 bytes", true),
        ("blobs that expand a thousandfold, 500 MiB each", many_bombs, &[69, 77], "", false),
        ("a blob of 1 GiB that says it has ten bytes", |c, g| with(c, g, |p| p.raw(BLOB, 10, &zeros(1024))), PROTOCOL, "longer than it says", true),
        ("a blob of 500 MiB that says it has one byte more", |c, g| with(c, g, |p| p.raw(BLOB, (500 << 20) + 1, &zeros(500))), PROTOCOL, "shorter than it says", false),
        ("a commit of 400 MiB", |c, g| with_tip(c, g, |p| { p.raw(COMMIT, 400 << 20, &zeros(400)); ABSENT }), EITHER, "", false),
        ("a length that does not end", |c, g| with(c, g, |p| p.raw(3 | 8, 0, &[0xff; 40])), PROTOCOL, "", false),
        ("as large as is taken", largest, &[0, 69], "", false),
        ("as many objects as are taken", most_objects, EITHER, "", false),
    ]
}

#[rustfmt::skip]
fn deltas() -> Vec<Row> {
    vec![
        ("a delta that doubles and doubles", doubling, REFUSED, "bytes, more than", true),
        ("a delta that says to make 1 TiB", |c, g| with(c, g, |p| { p.add(BLOB, b"base"); p.delta_back(13, &delta(4, 1 << 40, &[0x90, 4])) }), REFUSED, "1099511627776 bytes", true),
        ("a delta that says its base has 1 TiB", |c, g| with(c, g, |p| { p.add(BLOB, b"base"); p.delta_back(13, &delta(1 << 40, 4, &[0x90, 4])) }), REFUSED, "1099511627776 bytes", false),
        ("a delta whose lengths do not end", |c, g| with(c, g, |p| p.delta_to(ABSENT, &[0xff; 40])), PROTOCOL, "no end", false),
        ("a delta that reads beyond its base", |c, g| with(c, g, |p| { let at = p.position(); p.add(BLOB, b"base"); let back = p.position() - at; p.delta_back(back, &delta(4, 60_000, &[0xb0, 0x60, 0xea])) }), EITHER, "", false),
        ("a delta that makes more than it says", |c, g| with(c, g, |p| { let at = p.position(); p.add(BLOB, b"base"); let back = p.position() - at; p.delta_back(back, &delta(4, 4, &[0x90, 4].repeat(100))) }), EITHER, "", false),
        ("a delta of itself", |c, g| with(c, g, |p| p.delta_back(0, &delta(4, 4, &[0x90, 4]))), EITHER, "", true),
        ("a delta of what comes before the pack", |c, g| with(c, g, |p| p.delta_back(1 << 40, &delta(4, 4, &[0x90, 4]))), EITHER, "", false),
        ("a delta in the middle of another object", |c, g| with(c, g, |p| { p.add(BLOB, &[7; 500]); p.delta_back(3, &delta(4, 4, &[0x90, 4])) }), EITHER, "", false),
        ("a delta of what is not there", |c, g| with(c, g, |p| p.delta_to(ABSENT, &delta(4, 4, &[0x90, 4]))), EITHER, "", true),
        ("deltas on deltas, 20,000 deep", |c, g| with(c, g, chain), &[0, 69, 76], "", false),
    ]
}

#[rustfmt::skip]
fn what_is_missing() -> Vec<Row> {
    vec![
        ("a blob left out", |c, g| with_tip(c, g, |p| { let t = p.add(TREE, &tree(&[("100644", b"a", ABSENT)])); p.add(COMMIT, &commit(t, &[g.deployed])) }), PROTOCOL, "cannot be read", true),
        ("a folder left out", |c, g| with_tip(c, g, |p| { let t = p.add(TREE, &tree(&[("40000", b"a", ABSENT)])); p.add(COMMIT, &commit(t, &[g.deployed])) }), PROTOCOL, "", true),
        ("the tree left out", |c, g| with_tip(c, g, |p| p.add(COMMIT, &commit(ABSENT, &[g.deployed]))), PROTOCOL, "", true),
        ("history left out", history_left_out, PROTOCOL, "", true),
        ("the tip left out", |c, g| send(c, &ABSENT, &site(g).1), EITHER, "", true),
        ("the blob of the true commit left out, and mended later", true_commit, PROTOCOL, "cannot be read", true),
    ]
}

#[rustfmt::skip]
fn what_is_malformed() -> Vec<Row> {
    vec![
        ("a commit of nothing", |c, g| with_tip(c, g, |p| p.add(COMMIT, b"")), PROTOCOL, "", false),
        ("a commit without a tree", |c, g| with_tip(c, g, |p| p.add(COMMIT, format!("author {WHO}\ncommitter {WHO}\n\n").as_bytes())), PROTOCOL, "", true),
        ("a commit of two trees", two_trees, &[76, 77], "", true),
        ("a commit of 100,000 parents", parents, &[76, 77], "", false),
        ("a commit whose tree is a blob", |c, g| with_tip(c, g, |p| { let b = p.add(BLOB, b"x"); p.add(COMMIT, &commit(b, &[g.deployed])) }), &[76, 77], "", false),
        ("a branch that holds a tree", |c, g| with_tip(c, g, |p| p.add(TREE, b"")), REFUSED, "holds no commit", false),
        ("a tag of a blob", |c, g| with_tip(c, g, |p| { let b = p.add(BLOB, b"x"); p.add(TAG, &tag(b, "blob")) }), REFUSED, "holds no commit", false),
        ("a tag of what is not there", |c, g| with_tip(c, g, |p| p.add(TAG, &tag(ABSENT, "commit"))), PROTOCOL, "", true),
        ("a tag that lies about its kind", |c, g| with_tip(c, g, |p| { let b = p.add(BLOB, b"x"); p.add(TAG, &tag(b, "commit")) }), &[76, 77], "", false),
        ("a chain of 10,000 tags", tags, FINE, "", false),
        ("a tag of nothing", |c, g| with_tip(c, g, |p| p.add(TAG, b"")), &[76, 77], "", false),
        ("a header that lies in an object that is named", lying, EITHER, "", true),
    ]
}

#[rustfmt::skip]
fn trees() -> Vec<Row> {
    vec![
        ("ten trees that make ten billion files", |c, g| nested(c, g, 10, 10, 1), REFUSED, "more than 1000000 files", false),
        ("trees that make no files in endless folders", |c, g| nested(c, g, 2, 150, 0), REFUSED, "more than", true),
        ("trees of long names", |c, g| nested(c, g, 6, 9, 240), REFUSED, "more than", true),
        ("a tree that is 300 folders deep", |c, g| nested(c, g, 1, 300, 1), REFUSED, "folders deep", false),
        ("seven folders of 300,000 files", wide, REFUSED, "more than 1000000 files", false),
        ("links as long as a disk", links, REFUSED, "the target is longer than", true),
        ("a tree that is cut short", |c, g| malformed_tree(c, g, b"100644 a\x00123"), REFUSED, "damaged", false),
        ("a name of escape codes that is a path", |c, g| malformed_tree(c, g, &tree(&[("100644", format!("{CODES}/x").as_bytes(), ABSENT)])), REFUSED, "which is a path", true),
    ]
}

/// A small commit upon the deployed one.
fn site(ground: &Ground) -> (Id, Pack) {
    let mut pack = Pack::default();
    let tip = pack.site(&[ground.deployed]);
    (tip, pack)
}

/// The same with something more in the pack.
fn with(channel: &mut Channel, ground: &Ground, more: impl FnOnce(&mut Pack)) -> io::Result<()> {
    let (tip, mut pack) = site(ground);
    more(&mut pack);
    send(channel, &tip, &pack)
}

fn with_tip(channel: &mut Channel, _: &Ground, make: impl FnOnce(&mut Pack) -> Id) -> io::Result<()> {
    let mut pack = Pack::default();
    let tip = make(&mut pack);
    send(channel, &tip, &pack)
}

fn chatter(channel: &mut Channel, ground: &Ground, word: Vec<u8>) -> io::Result<()> {
    up_to_the_pack(channel, &site(ground).0)?;
    let batch = word.repeat(100_000 / word.len());
    loop_over(|| channel.write_all(&batch))
}

fn said(channel: &mut Channel, ground: &Ground, bytes: &[u8]) -> io::Result<()> {
    up_to_the_pack(channel, &site(ground).0)?;
    channel.write_all(bytes)?;
    channel.linger();
    Ok(())
}

/// Small blobs of their own, more and more of them.
fn pack_without_end(channel: &mut Channel, ground: &Ground) -> io::Result<()> {
    let (tip, mut pack) = site(ground);
    up_to_the_pack(channel, &tip)?;
    pack.announce(4_000_000);
    band_1(channel, &pack.header())?;
    let mut number: u64 = 0;
    loop_over(|| {
        let mut batch = Vec::new();
        for _ in 0..20 {
            number += 1;
            // Stored, not packed: 8 KiB that begin with a number.
            let data = [&number.to_be_bytes()[..], &[0x5a; 8184]].concat();
            batch.extend(head(BLOB, 8192));
            batch.extend(stored(&data));
        }
        band_1(channel, &batch)
    })
}

fn corrupted(channel: &mut Channel, ground: &Ground, at: usize) -> io::Result<()> {
    let (tip, pack) = site(ground);
    let mut bytes = pack.bytes();
    bytes[at] ^= 0x10;
    send_bytes(channel, &tip, &bytes)
}

fn right_after(channel: &mut Channel, ground: &Ground) -> io::Result<()> {
    let (tip, pack) = site(ground);
    up_to_the_pack(channel, &tip)?;
    band_1(channel, &pack.bytes())
}

fn announced(channel: &mut Channel, ground: &Ground, count: u32) -> io::Result<()> {
    let (tip, mut pack) = site(ground);
    pack.announce(count);
    send(channel, &tip, &pack)
}

fn never_come(channel: &mut Channel, ground: &Ground) -> io::Result<()> {
    let (tip, mut pack) = site(ground);
    pack.announce(5_000_000);
    let bytes = pack.bytes();
    send_bytes(channel, &tip, &bytes[..bytes.len() - 20])
}

/// Each of its own size, for an object that comes twice is refused for that.
fn many_bombs(channel: &mut Channel, ground: &Ground) -> io::Result<()> {
    with(channel, ground, |pack| {
        for mib in 489..=500 {
            pack.raw(BLOB, (mib as u64) << 20, &zeros(mib));
        }
    })
}

/// One object of the full size, and a delta that makes another of it.
fn largest(channel: &mut Channel, ground: &Ground) -> io::Result<()> {
    let size = 512 << 20;
    with(channel, ground, |pack| {
        let at = pack.position();
        pack.raw(BLOB, size, &zeros(512));
        let back = pack.position() - at;
        // All of it in pieces of 8 MiB, the last one a byte longer at its cost: one byte is written anew.
        let mut steps = vec![1, b'x'];
        for piece in 0..64u64 {
            let [_, _, c, d, ..] = (piece << 23).to_le_bytes();
            let length = if piece == 63 { (8 << 20) - 1 } else { 8u64 << 20 };
            let [e, f, g, ..] = length.to_le_bytes();
            steps.extend([0xfc, c, d, e, f, g]);
        }
        pack.delta_back(back, &delta(size, size, &steps));
    })
}

/// A fifth of what is taken, as a pack of all would take a minute to make; each as small as can be.
static MANY: LazyLock<Pack> = LazyLock::new(|| {
    let mut pack = Pack::default();
    (0..1_000_000u32).for_each(|number| pack.raw(BLOB, 4, &stored(&number.to_be_bytes())));
    pack
});

fn most_objects(channel: &mut Channel, ground: &Ground) -> io::Result<()> {
    let mut pack = MANY.clone();
    let tip = pack.site(&[ground.deployed]);
    // One is missing: all are held while it is waited for.
    pack.announce(1_000_005);
    let bytes = [pack.header(), pack.objects().to_vec()].concat();
    send_bytes(channel, &tip, &bytes)
}

/// 1 KiB, and deltas that each say twice what the one before made; 40 of them make 1 PiB.
fn doubling(channel: &mut Channel, ground: &Ground) -> io::Result<()> {
    with(channel, ground, |pack| {
        let mut at = pack.position();
        pack.raw(BLOB, 1 << 20, &zeros(1));
        let mut size = 1u64 << 20;
        for _ in 0..12 {
            let here = pack.position();
            let times = if size < 1 << 23 {
                copies(size, 2)
            } else {
                delta(size, size * 2, &[0xf0, 0, 0, 0x80].repeat((size >> 22) as usize))
            };
            pack.delta_back(here - at, &times);
            at = here;
            size *= 2;
        }
    })
}

fn chain(pack: &mut Pack) {
    let mut at = pack.position();
    pack.add(BLOB, b"base");
    for number in 0..20_000u32 {
        let here = pack.position();
        let [a, b, c, d] = number.to_be_bytes();
        pack.delta_back(here - at, &delta(4, 4, &[4, a, b, c, d]));
        // Each makes other bytes of a base of the same length.
        at = here;
    }
}

fn history_left_out(channel: &mut Channel, _: &Ground) -> io::Result<()> {
    let mut pack = Pack::default();
    let tip = pack.site(&[ABSENT]);
    send(channel, &tip, &pack)
}

/// The commit that the honest server has too, without one of its files.
fn true_commit(channel: &mut Channel, ground: &Ground) -> io::Result<()> {
    let git = |args: &[&str]| {
        let out = crate::support::repo::git_command().arg("-C").arg(&ground.repository).args(args).output();
        out.expect("git").stdout
    };
    let tip = String::from_utf8(git(&["rev-parse", "main"])).unwrap();
    let mut pack = Pack::default();
    let commit = pack.add(COMMIT, &git(&["cat-file", "commit", "main"]));
    pack.add(TREE, &git(&["cat-file", "tree", "main^{tree}"]));
    assert_eq!(hex(&commit), tip.trim());
    send(channel, &commit, &pack)
}

fn two_trees(channel: &mut Channel, ground: &Ground) -> io::Result<()> {
    let (_, mut pack) = site(ground);
    let (one, other) = (pack.add(TREE, b""), tree(&[("100644", b"x", id(BLOB, b"hostile\n"))]));
    let other = pack.add(TREE, &other);
    let (one, other, parent) = (hex(&one), hex(&other), hex(&ground.deployed));
    let text = format!("tree {one}\ntree {other}\nparent {parent}\nauthor {WHO}\ncommitter {WHO}\n\n");
    let tip = pack.add(COMMIT, text.as_bytes());
    send(channel, &tip, &pack)
}

fn parents(channel: &mut Channel, ground: &Ground) -> io::Result<()> {
    let (_, mut pack) = site(ground);
    let tree = pack.add(TREE, b"");
    let tip = pack.add(COMMIT, &commit(tree, &vec![ABSENT; 100_000]));
    send(channel, &tip, &pack)
}

fn tags(channel: &mut Channel, ground: &Ground) -> io::Result<()> {
    let (mut tip, mut pack) = site(ground);
    for number in 0..10_000 {
        tip = pack.add(TAG, &tag(tip, if number == 0 { "commit" } else { "tag" }));
    }
    send(channel, &tip, &pack)
}

/// A blob that says it is longer than it is, in a tree under the id that it would have.
fn lying(channel: &mut Channel, ground: &Ground) -> io::Result<()> {
    let (_, mut pack) = site(ground);
    pack.raw(BLOB, 100_000, &deflated(b"short"));
    let lie = [&b"blob 100000\0"[..], b"short"].concat();
    let named = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, &lie).as_ref().try_into().unwrap();
    let tree = pack.add(TREE, &tree(&[("100644", b"a", named)]));
    let tip = pack.add(COMMIT, &commit(tree, &[ground.deployed]));
    send(channel, &tip, &pack)
}

/// Trees of `width` names for the same tree below, `depth` times over, and a blob or nothing at the
/// bottom. With names of some length.
fn nested(channel: &mut Channel, ground: &Ground, width: usize, depth: usize, length: usize) -> io::Result<()> {
    let (_, mut pack) = site(ground);
    let blob = id(BLOB, b"hostile\n");
    let name = |number: usize| format!("{number:0width$}", width = length.max(1)).into_bytes();
    let names: Vec<_> = (0..width).map(name).collect();
    let files: Vec<_> = names.iter().map(|name| ("100644", &name[..], blob)).collect();
    let mut below = pack.add(TREE, &tree(if length == 0 { &[] } else { &files }));
    for _ in 0..depth {
        let folders: Vec<_> = names.iter().map(|name| ("40000", &name[..], below)).collect();
        below = pack.add(TREE, &tree(&folders));
    }
    let tip = pack.add(COMMIT, &commit(below, &[ground.deployed]));
    send(channel, &tip, &pack)
}

/// Seven folders that are one.
static WIDE: LazyLock<(Pack, Id)> = LazyLock::new(|| {
    let mut pack = Pack::default();
    let blob = pack.add(BLOB, b"hostile\n");
    let names: Vec<_> = (0..300_000).map(|number| format!("{number:08}").into_bytes()).collect();
    let files: Vec<_> = names.iter().map(|name| ("100644", &name[..], blob)).collect();
    let folder = pack.add(TREE, &tree(&files));
    let folders: Vec<_> = [b"1", b"2", b"3", b"4", b"5", b"6", b"7"].map(|name| ("40000", &name[..], folder)).to_vec();
    let root = pack.add(TREE, &tree(&folders));
    (pack, root)
});

fn wide(channel: &mut Channel, ground: &Ground) -> io::Result<()> {
    made(channel, ground, &WIDE)
}

/// Three hundred links whose target is one blob of 8 MiB.
static LINKS: LazyLock<(Pack, Id)> = LazyLock::new(|| {
    let mut pack = Pack::default();
    pack.raw(BLOB, 8 << 20, &zeros(8));
    let target = id(BLOB, &vec![0; 8 << 20]);
    let names: Vec<_> = (100..400).map(|number: i32| number.to_string().into_bytes()).collect();
    let links: Vec<_> = names.iter().map(|name| ("120000", &name[..], target)).collect();
    let root = pack.add(TREE, &tree(&links));
    (pack, root)
});

fn links(channel: &mut Channel, ground: &Ground) -> io::Result<()> {
    made(channel, ground, &LINKS)
}

/// A commit of a tree that was made before.
fn made(channel: &mut Channel, ground: &Ground, (pack, root): &(Pack, Id)) -> io::Result<()> {
    let mut pack = pack.clone();
    let tip = pack.add(COMMIT, &commit(*root, &[ground.deployed]));
    send(channel, &tip, &pack)
}

fn malformed_tree(channel: &mut Channel, ground: &Ground, bytes: &[u8]) -> io::Result<()> {
    let (_, mut pack) = site(ground);
    let folder = pack.add(TREE, bytes);
    let tip = pack.add(COMMIT, &commit(folder, &[ground.deployed]));
    send(channel, &tip, &pack)
}
