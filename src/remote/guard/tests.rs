//! Packs made by hand, handed over in pieces of every size.

use std::io::Write;

use flate2::Compression;
use flate2::write::ZlibEncoder;

use super::*;

const SMALL: Limits = Limits { objects: 4, object: 10_000, pack: 100_000, expanded: 20_000, ratio: 10, chatter: 200 };

fn deflated(data: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

/// An object's kind and length as a pack has them.
fn head(kind: u8, mut size: u64) -> Vec<u8> {
    let mut bytes = vec![kind << 4 | (size & 15) as u8];
    size >>= 4;
    while size > 0 {
        *bytes.last_mut().unwrap() |= 128;
        bytes.push((size & 127) as u8);
        size >>= 7;
    }
    bytes
}

fn object(kind: u8, base: &[u8], size: u64, data: &[u8]) -> Vec<u8> {
    [head(kind, size), base.to_vec(), deflated(data)].concat()
}

fn blob(data: &[u8]) -> Vec<u8> {
    object(3, b"", data.len() as u64, data)
}

fn pack(count: u32, objects: &[Vec<u8>]) -> Vec<u8> {
    [b"PACK\0\0\0\x02".to_vec(), count.to_be_bytes().to_vec(), objects.concat(), vec![7; 20]].concat()
}

/// In packets of the first side band, between the server's words and its goodbye.
fn in_packets(pack: &[u8]) -> Vec<u8> {
    let mut wire = b"0008NAK\n0008\x02hi\n".to_vec();
    for chunk in pack.chunks(50) {
        wire.extend(format!("{:04x}\x01", chunk.len() + 5).into_bytes());
        wire.extend(chunk);
    }
    wire.extend(b"0005\x01");
    wire.extend(b"0000");
    wire
}

/// The verdict, which must not depend on where the stream is cut.
fn verdict(wire: &[u8]) -> Result<(), Failure> {
    let whole = Guard::new(SMALL).look(wire);
    for size in [1, 7, 64] {
        let mut guard = Guard::new(SMALL);
        let in_pieces = wire.chunks(size).try_for_each(|piece| guard.look(piece));
        assert_eq!(in_pieces.as_ref().err(), whole.as_ref().err(), "in pieces of {size}");
    }
    whole
}

#[test]
fn what_git_sends_passes_in_packets_and_bare() {
    let delta = [&[100, 100][..], &[0x90, 100]].concat();
    let whole = pack(
        4,
        &[
            blob(b""),
            blob(&[b'x'; 5000]),
            object(6, &[0x81, 0x05], delta.len() as u64, &delta),
            object(7, &[1; 20], delta.len() as u64, &delta),
        ],
    );
    verdict(&in_packets(&whole)).unwrap();
    verdict(&[b"0008NAK\n".to_vec(), whole].concat()).unwrap();
    verdict(&in_packets(&pack(0, &[]))).unwrap();
}

#[test]
fn what_lies_or_is_too_much_is_told() {
    let delta = |base: &[u8], made: &[u8]| {
        let delta = [base, made, &[0x90, 1][..]].concat();
        pack(1, &[object(7, &[1; 20], delta.len() as u64, &delta)])
    };
    // 20,000 as a delta writes it.
    let large = [0xa0, 0x9c, 0x01];
    let table: [(Vec<u8>, &str); 14] = [
        (pack(5, &[]), "has 5 objects"),
        (pack(u32::MAX, &[]), "has 4294967295 objects"),
        (pack(1, &[blob(&[0; 20_000])]), "object of 20000 bytes"),
        (pack(1, &[object(3, b"", 10, &[0; 5000])]), "longer than it says"),
        (pack(1, &[object(3, b"", 5000, &[0; 10])]), "shorter than it says"),
        (pack(4, &[blob(&[0; 9999]), blob(&[1; 9999]), blob(&[2; 9999])]), "expands beyond measure"),
        (delta(&[10], &large), "object of 20000 bytes"),
        (delta(&large, &[10]), "object of 20000 bytes"),
        (delta(&[10], &[0xff; 20]), "no end"),
        (pack(1, &[object(7, &[1; 20], 1, &[5])]), "no beginning"),
        (pack(1, &[object(5, b"", 1, b"x")]), "no known kind"),
        (pack(1, &[vec![0xb0; 30]]), "no end"),
        (pack(1, &[[head(3, 10), vec![9; 30]].concat()]), "cannot be inflated"),
        ([pack(0, &[]), vec![0]].concat(), "goes on after its end"),
    ];
    for (pack, words) in table {
        let failure = verdict(&in_packets(&pack)).unwrap_err();
        assert!(failure.message.contains(words), "{words}: {failure}");
    }
    let wrong = [b"KCAP".to_vec(), vec![0; 30]].concat();
    assert!(verdict(&in_packets(&wrong)).unwrap_err().message.contains("does not begin"));
}

#[test]
fn a_pack_or_a_chatter_without_end_is_cut() {
    let mut state = 1u64;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    });
    let noise: Vec<u8> = noise.take(9000).collect();
    let many: Vec<_> = (0..12).map(|_| blob(&noise)).collect();
    let limits = Limits { objects: 20, ..SMALL };
    let failure = Guard::new(limits).look(&[b"0008NAK\n".to_vec(), pack(12, &many)].concat()).unwrap_err();
    assert!(failure.message.contains("more than 0 MiB"), "{failure}");
    for word in [&b"0008\x02hi\n"[..], b"0005\x01", b"0004", b"0008NAK\n"] {
        let failure = verdict(&word.repeat(60)).unwrap_err();
        assert!(failure.message.contains("without end"), "{failure}");
    }
}

#[test]
fn what_is_no_packet_is_quoted_without_codes() {
    for (wire, quoted) in [(&b"\x1b[2J"[..], "\\x1b[2J"), (b"0003", "0003"), (b"ffff", "ffff"), (b"+001", "+001")] {
        let failure = verdict(wire).unwrap_err();
        assert!(failure.message.ends_with(quoted), "{failure}");
    }
}

#[test]
fn a_complaint_ends_the_transfer_and_is_quoted() {
    for wire in [&b"000d\x03no \x1b[2J\n"[..], b"000fERR no \x1b[2J"] {
        let failure = verdict(wire).unwrap_err();
        assert_eq!(failure.message, r"the server gave up: no \u{1b}[2J");
    }
}
