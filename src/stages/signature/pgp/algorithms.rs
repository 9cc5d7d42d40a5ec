//! Which hashes and keys are strong enough.

use pgp::crypto::hash::HashAlgorithm;
use pgp::crypto::public_key::PublicKeyAlgorithm;
use pgp::ser::Serialize;
use pgp::types::{EcdsaPublicParams, EddsaLegacyPublicParams, KeyDetails, PublicParams};

/// Shorter RSA keys are refused.
pub const LEAST_RSA_BITS: u16 = 2048;

/// SHA-1, MD5 and RIPEMD-160 are not among them: whoever can make two texts of one hash could have one signed and
/// show the other. SHA-224 is not for the keys of today.
pub fn is_strong(hash: HashAlgorithm) -> bool {
    use HashAlgorithm::*;
    matches!(hash, Sha256 | Sha384 | Sha512 | Sha3_256 | Sha3_512)
}

/// What a key is called that poller does not believe, and why not.
pub fn weakness(key: &impl KeyDetails) -> Option<String> {
    use PublicKeyAlgorithm::*;
    match (key.public_params(), key.algorithm()) {
        (PublicParams::RSA(params), RSA | RSASign) => {
            // Written out, the first two bytes are the length of the modulus in bits.
            let bits = match params.to_bytes().as_deref() {
                Ok(&[high, low, ..]) => u16::from_be_bytes([high, low]),
                _ => 0,
            };
            let short = format!("an RSA key of {bits} bits: fewer than {LEAST_RSA_BITS} can be broken");
            (bits < LEAST_RSA_BITS).then_some(short)
        }
        (PublicParams::EdDSALegacy(EddsaLegacyPublicParams::Ed25519 { .. }), EdDSALegacy)
        | (PublicParams::Ed25519(_), Ed25519)
        | (PublicParams::Ed448(_), Ed448) => None,
        (PublicParams::ECDSA(params), ECDSA) => match params {
            EcdsaPublicParams::Unsupported { .. } => {
                Some("an ECDSA key on a curve that poller does not verify".to_owned())
            }
            _ => None,
        },
        (_, DSA) => Some("a DSA key, a type that is not trusted any more".to_owned()),
        (_, Elgamal | ElgamalEncrypt) => Some("an ElGamal key, which is not for signatures".to_owned()),
        (_, other) => Some(format!("a key of a type that poller does not verify (number {})", u8::from(other))),
    }
}
