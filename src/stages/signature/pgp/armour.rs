//! ASCII armour, read strictly.
//!
//! The pgp crate passes over what stands before and after a block, and over a checksum that is wrong. Here both are
//! errors: what is added to a signature is no part of it, and a key file that was damaged may have lost a revocation.

/// What may stand around the blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Around {
    Nothing,
    /// Lines that begin with `#`, for people.
    Comments,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Block {
    /// `PGP SIGNATURE`
    pub label: String,
    pub bytes: Vec<u8>,
    /// Where it begins.
    pub line: usize,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Broken {
    pub line: usize,
    pub why: &'static str,
}

/// All blocks of a text.
pub fn blocks(text: &str, around: Around) -> Result<Vec<Block>, Broken> {
    let mut blocks = Vec::new();
    let mut lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim_ascii_end()));
    while let Some((number, line)) = lines.next() {
        if line.is_empty() || (around == Around::Comments && line.starts_with('#')) {
            continue;
        }
        let label = line.strip_prefix("-----BEGIN ").and_then(|rest| rest.strip_suffix("-----"));
        let label = label.ok_or(Broken { line: number, why: "this line is outside of a block" })?;
        blocks.push(block(number, label, &mut lines)?);
    }
    Ok(blocks)
}

/// What follows the first line, up to and with the last.
fn block<'a>(line: usize, label: &str, lines: &mut impl Iterator<Item = (usize, &'a str)>) -> Result<Block, Broken> {
    let open = Broken { line, why: "the block that begins here has no end" };
    let end = format!("-----END {label}-----");
    // `Version:` and the like, which mean nothing.
    loop {
        let Some((number, line)) = lines.next() else { return Err(open) };
        match line {
            "" => break,
            header if header.contains(": ") || header.ends_with(':') => {}
            _ => {
                return Err(Broken {
                    line: number,
                    why: "a blank line is missing between the block's headers and data",
                });
            }
        }
    }
    let (mut base64, mut checksum) = (String::new(), None);
    loop {
        let Some((number, line)) = lines.next() else { return Err(open) };
        if line == end {
            break;
        }
        if checksum.is_some() || line.starts_with('-') {
            return Err(Broken { line: number, why: "this line does not belong into the block" });
        }
        match line.strip_prefix('=') {
            Some(sum) if sum.len() == 4 => checksum = Some(sum),
            _ => base64.push_str(line),
        }
    }
    let bytes = decode(&base64).ok_or(Broken { line, why: "the block that begins here is not base64" })?;
    if checksum.is_some_and(|sum| decode(sum).is_none_or(|sum| sum != crc24(&bytes))) {
        return Err(Broken { line, why: "the block that begins here is damaged: its checksum is wrong" });
    }
    Ok(Block { label: label.to_owned(), bytes, line })
}

fn decode(base64: &str) -> Option<Vec<u8>> {
    let digits = base64.trim_end_matches('=');
    if !base64.len().is_multiple_of(4) || base64.len() - digits.len() > 2 {
        return None;
    }
    let mut bytes = Vec::with_capacity(digits.len() / 4 * 3 + 2);
    let (mut held, mut bits) = (0u32, 0);
    for digit in digits.bytes() {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        held = held << 6 | u32::from(value);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits) as u8);
            held &= (1 << bits) - 1;
        }
    }
    // What is left over of the last digit would be a second way to write the same.
    (held == 0).then_some(bytes)
}

/// As in RFC 9580, 6.1.1.
pub(super) fn crc24(bytes: &[u8]) -> [u8; 3] {
    let mut crc: u32 = 0x00b7_04ce;
    for &byte in bytes {
        crc ^= u32::from(byte) << 16;
        for _ in 0..8 {
            crc <<= 1;
            if crc & 0x0100_0000 != 0 {
                crc ^= 0x0186_4cfb;
            }
        }
    }
    let [_, a, b, c] = crc.to_be_bytes();
    [a, b, c]
}
