//! OpenPGP signatures, held against the keys of `pgp_keys`.
//!
//! The mathematics and the formats of single packets are the pgp crate's. What it leaves open is decided here, and
//! always for the strict side: how a block of armour ends (`armour.rs`), where a packet does (`packets.rs`), what
//! belongs to a key (`keys.rs`), whether that key may sign (`certificate.rs`, `algorithms.rs`), and what a signature
//! must say (`document.rs`). A key that can sign nothing is told beforehand (`idle.rs`). Nobody else's word counts: no
//! web of trust, no key server, no keyring but the file.

pub mod algorithms;
pub mod armour;
pub mod certificate;
pub mod document;
pub mod idle;
pub mod keys;
mod packets;
pub mod refusal;

#[cfg(test)]
mod tests;
