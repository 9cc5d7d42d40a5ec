//! Packs and objects, as git writes them and as it never would.

use std::io::Write;
use std::sync::LazyLock;

use flate2::Compression;
use flate2::write::{DeflateEncoder, ZlibEncoder};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

pub const COMMIT: u8 = 1;
pub const TREE: u8 = 2;
pub const BLOB: u8 = 3;
pub const TAG: u8 = 4;
const OFS_DELTA: u8 = 6;
const REF_DELTA: u8 = 7;

pub type Id = [u8; 20];

#[derive(Clone, Default)]
pub struct Pack {
    objects: Vec<u8>,
    count: u32,
    /// Announced in place of the true number.
    announced: Option<u32>,
}

impl Pack {
    pub fn add(&mut self, kind: u8, data: &[u8]) -> Id {
        self.raw(kind, data.len() as u64, &packed(data));
        id(kind, data)
    }

    /// An object that says of itself to be `size` bytes long.
    pub fn raw(&mut self, kind: u8, size: u64, deflated: &[u8]) {
        self.count += 1;
        self.objects.extend(head(kind, size));
        self.objects.extend(deflated);
    }

    /// A delta against what stands so many bytes before it, or against itself.
    pub fn delta_back(&mut self, distance: usize, delta: &[u8]) {
        self.count += 1;
        self.objects.extend(head(OFS_DELTA, delta.len() as u64));
        let mut digits = vec![(distance & 127) as u8];
        let mut left = distance >> 7;
        while left > 0 {
            left -= 1;
            digits.push((left & 127) as u8 | 128);
            left >>= 7;
        }
        self.objects.extend(digits.iter().rev());
        self.objects.extend(packed(delta));
    }

    pub fn delta_to(&mut self, base: Id, delta: &[u8]) {
        self.count += 1;
        self.objects.extend(head(REF_DELTA, delta.len() as u64));
        self.objects.extend(base);
        self.objects.extend(packed(delta));
    }

    /// Where the next object will begin.
    pub fn position(&self) -> usize {
        12 + self.objects.len()
    }

    pub fn announce(&mut self, count: u32) {
        self.announced = Some(count);
    }

    /// A commit whose tree holds these files and nothing else.
    pub fn site(&mut self, parents: &[Id]) -> Id {
        let page = self.add(BLOB, b"hostile\n");
        let script = self.add(BLOB, b"#!/bin/sh\n");
        let tree = self.add(TREE, &tree(&[("100755", b"deploy.sh", script), ("100644", b"index.html", page)]));
        self.add(COMMIT, &commit(tree, parents))
    }

    pub fn objects(&self) -> &[u8] {
        &self.objects
    }

    pub fn header(&self) -> Vec<u8> {
        let count = self.announced.unwrap_or(self.count);
        [b"PACK\0\0\0\x02", &count.to_be_bytes()[..]].concat()
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = [self.header(), self.objects.clone()].concat();
        let sum = digest(&SHA1_FOR_LEGACY_USE_ONLY, &bytes);
        bytes.extend(sum.as_ref());
        bytes
    }
}

/// Kind and length before an object.
pub fn head(kind: u8, mut size: u64) -> Vec<u8> {
    let mut bytes = vec![kind << 4 | (size & 15) as u8];
    size >>= 4;
    while size > 0 {
        *bytes.last_mut().unwrap() |= 128;
        bytes.push((size & 127) as u8);
        size >>= 7;
    }
    bytes
}

/// As fast as can be: packing is slow in a build for tests.
fn packed(data: &[u8]) -> Vec<u8> {
    if data.len() > 60_000 { deflated(data) } else { stored(data) }
}

pub fn deflated(data: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

/// In one block that is not packed; at most 64 KiB.
pub fn stored(data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).unwrap();
    let (mut a, mut b) = (1u32, 0u32);
    for byte in data {
        a = (a + u32::from(*byte)) % 65_521;
        b = (b + a) % 65_521;
    }
    let [low, high] = length.to_le_bytes();
    let mut bytes = vec![0x78, 0x01, 1, low, high, !low, !high];
    bytes.extend(data);
    bytes.extend((b << 16 | a).to_be_bytes());
    bytes
}

/// A MiB of zeros, as a block that others can follow.
pub static ZEROS: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&vec![0; 1 << 20]).unwrap();
    encoder.flush().unwrap();
    encoder.get_ref().clone()
});

/// So many MiB of zeros, deflated: about a thousandth of it. One block, over and over.
pub fn zeros(mib: usize) -> Vec<u8> {
    let sum = ((mib as u64) << 20) % 65_521;
    let mut bytes = vec![0x78, 0x9c];
    for _ in 0..mib {
        bytes.extend(&*ZEROS);
    }
    bytes.extend([3, 0]);
    bytes.extend(((sum << 16 | 1) as u32).to_be_bytes());
    bytes
}

/// A length as a delta has it.
fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number > 127 {
        bytes.push((number & 127) as u8 | 128);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

/// A delta that says to make `made` bytes of a base of `base` bytes, with these instructions.
pub fn delta(base: u64, made: u64, instructions: &[u8]) -> Vec<u8> {
    [varint(base), varint(made), instructions.to_vec()].concat()
}

/// The whole base, `times` over; a base of less than 16 MiB.
pub fn copies(base: u64, times: u64) -> Vec<u8> {
    let [a, b, c, ..] = base.to_le_bytes();
    delta(base, base * times, &[0xf0, a, b, c].repeat(times as usize))
}

pub fn id(kind: u8, data: &[u8]) -> Id {
    let name = ["commit", "tree", "blob", "tag"][usize::from(kind) - 1];
    let whole = [format!("{name} {}\0", data.len()).as_bytes(), data].concat();
    digest(&SHA1_FOR_LEGACY_USE_ONLY, &whole).as_ref().try_into().unwrap()
}

pub fn hex(id: &Id) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn from_hex(text: &str) -> Id {
    let digits: Vec<u8> = (0..20).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap()).collect();
    digits.try_into().unwrap()
}

pub fn tree(entries: &[(&str, &[u8], Id)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (mode, name, id) in entries {
        bytes.extend(format!("{mode} ").as_bytes());
        bytes.extend(*name);
        bytes.push(0);
        bytes.extend(id);
    }
    bytes
}

pub const WHO: &str = "Eve <eve@example.org> 1700000000 +0000";

pub fn commit(tree: Id, parents: &[Id]) -> Vec<u8> {
    let mut text = format!("tree {}\n", hex(&tree));
    for parent in parents {
        text += &format!("parent {}\n", hex(parent));
    }
    text += &format!("author {WHO}\ncommitter {WHO}\n\nhostile\n");
    text.into_bytes()
}

pub fn tag(object: Id, kind: &str) -> Vec<u8> {
    format!("object {}\ntype {kind}\ntag t\ntagger {WHO}\n\nhostile\n", hex(&object)).into_bytes()
}
