//! A sequence of OpenPGP packets, cut where their lengths say.
//!
//! The pgp crate's own reader passes over what it cannot make out, and takes a header that was cut off for the end.

use pgp::packet::{PacketHeader, Signature};
use pgp::types::{PacketLength, Tag};

pub struct Packet<'a> {
    pub header: PacketHeader,
    pub body: &'a [u8],
}

impl Packet<'_> {
    pub fn tag(&self) -> Tag {
        self.header.tag()
    }

    /// None: it is no signature, or not one to its last byte.
    pub fn signature(&self) -> Option<Signature> {
        let mut body = self.body;
        let signature = Signature::try_from_reader(self.header, &mut body).ok()?;
        (self.tag() == Tag::Signature && body.is_empty()).then_some(signature)
    }
}

/// None: the bytes are not packets, from the first to the last.
pub fn split(bytes: &[u8]) -> Option<Vec<Packet<'_>>> {
    let mut packets = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let header = PacketHeader::try_from_reader(&mut rest).ok()?;
        // The other kinds of lengths are for data that is streamed; keys and signatures are not.
        let PacketLength::Fixed(length) = header.packet_length() else { return None };
        let (body, after) = rest.split_at_checked(usize::try_from(length).ok()?)?;
        packets.push(Packet { header, body });
        rest = after;
    }
    Some(packets)
}
