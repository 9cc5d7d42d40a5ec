//! The file of `pgp_keys`: armoured public keys, one block after the other, as `gpg --export --armor` writes them.
//!
//! Whatever cannot be read makes the whole file an error: it might have been the revocation of a key.

use std::collections::HashMap;
use std::path::Path;

use pgp::packet::{PublicKey, PublicSubkey, Signature, SignatureType, UserId};
use pgp::types::{Fingerprint, KeyDetails, Tag};

use super::armour::{self, Around};
use super::certificate::{Certificate, Signed, is_issued_by};
use super::packets::{self, Packet};
use crate::outcome::{Class, Failure};

/// Longer files are key rings. It goes through a pipe for each app that has something new.
pub const LONGEST: usize = 1 << 20;

const PUBLIC: &str = "PGP PUBLIC KEY BLOCK";
const SECRET: &str = "PGP PRIVATE KEY BLOCK";

#[derive(Debug)]
pub struct PgpKeys {
    pub certificates: Vec<Certificate>,
}

impl PgpKeys {
    /// # Errors
    /// `Config`, with what is wrong and how to write the file.
    pub fn parse(file: &Path, text: &str) -> Result<PgpKeys, Failure> {
        let shown = file.display();
        read(text).map_err(|wrong| match wrong {
            Wrong::Secret => {
                Failure::new(Class::Config, format!("{shown} HOLDS A SECRET KEY, with which others can sign"))
                    .help("take it off this host at once, and off its backups: poller needs public keys only")
                    .help(format!("export them, where they are: {EXPORT} > {shown}"))
                    .help("if somebody else could have read it, revoke it: gpg --gen-revoke NAME")
            }
            Wrong::At(line, why) => Failure::new(Class::Config, format!("{shown}:{line}: {why}"))
                .help(format!("export them, where they are: {EXPORT} > {shown}")),
            Wrong::Whole(why) => Failure::new(Class::Config, format!("{shown} {why}"))
                .help(format!("export them, where they are: {EXPORT} > {shown}")),
        })
    }
}

/// How the file is made. Without other people's signatures, which say nothing here.
const EXPORT: &str = "gpg --export --armor --export-options export-minimal NAME…";

#[derive(Debug, PartialEq, Eq)]
enum Wrong {
    Secret,
    At(usize, &'static str),
    Whole(&'static str),
}

fn read(text: &str) -> Result<PgpKeys, Wrong> {
    // Before anything else: it is said even of a file that is broken as well.
    if text.contains(SECRET) {
        return Err(Wrong::Secret);
    }
    if text.len() > LONGEST {
        return Err(Wrong::Whole("is longer than 1 MiB: export only the keys that may sign here"));
    }
    let blocks = armour::blocks(text, Around::Comments).map_err(|broken| Wrong::At(broken.line, broken.why))?;
    let mut reader = Reader { certificates: Vec::new(), known: HashMap::new(), place: Place::Nowhere };
    for block in &blocks {
        if block.label != PUBLIC {
            return Err(Wrong::At(block.line, "a block that is no public key"));
        }
        let packets = packets::split(&block.bytes);
        let packets = packets.ok_or(Wrong::At(block.line, "the block that begins here cannot be read"))?;
        reader.place = Place::Nowhere;
        for packet in &packets {
            reader.take(packet).map_err(|refused| match refused {
                Refused::Secret => Wrong::Secret,
                Refused::Why(why) => Wrong::At(block.line, why),
            })?;
        }
    }
    match reader.certificates.is_empty() {
        true => Err(Wrong::Whole("holds no public key")),
        false => Ok(PgpKeys { certificates: reader.certificates }),
    }
}

enum Refused {
    Secret,
    Why(&'static str),
}

/// What the next signature belongs to; the first number is the certificate's.
#[derive(Clone, Copy)]
enum Place {
    Nowhere,
    /// Something that is not looked at, such as a photo, or a subkey of a type that verifies nothing.
    Unread(usize),
    Key(usize),
    User(usize, usize),
    Subkey(usize, usize),
}

/// What there can be one of only.
#[derive(PartialEq, Eq, Hash)]
enum Known {
    Key(Fingerprint),
    User(usize, Vec<u8>),
    Subkey(usize, Fingerprint),
}

/// Puts keys together. One that comes twice becomes one: if a copy has a revocation, it is revoked.
struct Reader {
    certificates: Vec<Certificate>,
    /// By its number. Looked up, not looked for: a key may have ten thousand subkeys.
    known: HashMap<Known, usize>,
    place: Place,
}

impl Reader {
    fn take(&mut self, packet: &Packet<'_>) -> Result<(), Refused> {
        match packet.tag() {
            Tag::SecretKey | Tag::SecretSubkey => return Err(Refused::Secret),
            Tag::PublicKey => self.key(packet)?,
            Tag::UserId => {
                let id = UserId::try_from_reader(packet.header, packet.body).map_err(|_| UNREADABLE)?;
                let index = self.certificate()?;
                let (known, users) = (&mut self.known, &mut self.certificates[index].users);
                let user = *known.entry(Known::User(index, id.id().to_vec())).or_insert_with(|| add(users, id));
                self.place = Place::User(index, user);
            }
            Tag::PublicSubkey => {
                let mut body = packet.body;
                let subkey = PublicSubkey::try_from_reader(packet.header, &mut body);
                let index = self.certificate()?;
                let (known, subkeys) = (&mut self.known, &mut self.certificates[index].subkeys);
                self.place = match subkey {
                    Ok(key) if body.is_empty() => {
                        let known = known.entry(Known::Subkey(index, key.fingerprint()));
                        Place::Subkey(index, *known.or_insert_with(|| add(subkeys, key)))
                    }
                    // Of a newer kind, most often one for encryption. Nothing can be verified by it.
                    _ => Place::Unread(index),
                };
            }
            Tag::UserAttribute => self.place = Place::Unread(self.certificate()?),
            Tag::Signature => self.signature(packet)?,
            // These mean nothing, or are somebody's private notes.
            Tag::Marker | Tag::Trust | Tag::Padding | Tag::UnassignedNonCritical(_) | Tag::Experimental(_) => {}
            _ => return Err(Refused::Why("the block that begins here holds something else than keys")),
        }
        Ok(())
    }

    fn key(&mut self, packet: &Packet<'_>) -> Result<(), Refused> {
        let mut body = packet.body;
        let key = PublicKey::try_from_reader(packet.header, &mut body).map_err(|_| UNREADABLE)?;
        if !body.is_empty() {
            return Err(UNREADABLE);
        }
        let (known, certificates) = (&mut self.known, &mut self.certificates);
        let index = *known.entry(Known::Key(key.fingerprint())).or_insert_with(|| {
            certificates.push(Certificate::new(key));
            certificates.len() - 1
        });
        self.place = Place::Key(index);
        Ok(())
    }

    fn signature(&mut self, packet: &Packet<'_>) -> Result<(), Refused> {
        let signature = packet.signature().filter(|signature| signature.config().is_some());
        let revokes = signature.as_ref().is_some_and(|s| s.typ() == Some(SignatureType::KeyRevocation));
        if matches!(self.place, Place::Unread(_)) && !revokes {
            return Ok(());
        }
        let signature = signature
            .ok_or(Refused::Why("a signature in the block that begins here cannot be read, and might revoke a key"))?;
        let certificates = &mut self.certificates;
        let signatures: &mut Vec<Signature> = match self.place {
            Place::Nowhere if revokes => return self.revocation(&signature),
            Place::Nowhere => return Err(OUT_OF_PLACE),
            Place::Unread(index) | Place::Key(index) => &mut certificates[index].direct,
            // Wherever it stands.
            Place::User(index, _) | Place::Subkey(index, _) if revokes => &mut certificates[index].direct,
            Place::User(index, user) => &mut certificates[index].users[user].signatures,
            Place::Subkey(index, subkey) => &mut certificates[index].subkeys[subkey].signatures,
        };
        signatures.push(signature);
        Ok(())
    }

    /// By itself in a block, as gpg makes it along with each key: it must name a key of the file.
    fn revocation(&mut self, signature: &Signature) -> Result<(), Refused> {
        let is_anonymous = signature.issuer_fingerprint().is_empty() && signature.issuer_key_id().is_empty();
        let named = self.certificates.iter_mut().filter(|one| !is_anonymous && is_issued_by(signature, &one.primary));
        let revoked = named.map(|one| one.direct.push(signature.clone())).count();
        if revoked > 0 { Ok(()) } else { Err(STRAY_REVOCATION) }
    }

    /// The one that is being read.
    fn certificate(&self) -> Result<usize, Refused> {
        match self.place {
            Place::Nowhere => Err(OUT_OF_PLACE),
            Place::Unread(index) | Place::Key(index) | Place::User(index, _) | Place::Subkey(index, _) => Ok(index),
        }
    }
}

const UNREADABLE: Refused =
    Refused::Why("a key in the block that begins here cannot be read: export it without that one");
const STRAY_REVOCATION: Refused =
    Refused::Why("the revocation that begins here is of no key above it: put it below its key");
const OUT_OF_PLACE: Refused = Refused::Why("the block that begins here does not begin with a key");

fn add<T>(all: &mut Vec<Signed<T>>, what: T) -> usize {
    all.push(Signed { what, signatures: Vec::new() });
    all.len() - 1
}
