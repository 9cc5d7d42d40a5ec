//! The file of `pgp_keys`: armoured public keys, one block after the other, as `gpg --export --armor` writes them.
//!
//! Whatever cannot be read makes the whole file an error: it might have been the revocation of a key.

use std::path::Path;

use pgp::packet::{PublicKey, PublicSubkey, Signature, SignatureType, UserId};
use pgp::types::{KeyDetails, Tag};

use super::armour::{self, Around};
use super::certificate::{Certificate, Signed};
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
    let mut reader = Reader { certificates: Vec::new(), place: Place::Nowhere };
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

/// What the next signature belongs to.
enum Place {
    Nowhere,
    /// Something that is not looked at, such as a photo, or a subkey of a type that verifies nothing.
    Unread,
    Key,
    User(usize),
    Subkey(usize),
}

/// Puts keys together. One that comes twice becomes one: if a copy has a revocation, it is revoked.
struct Reader {
    certificates: Vec<Certificate>,
    place: Place,
}

impl Reader {
    fn take(&mut self, packet: &Packet<'_>) -> Result<(), Refused> {
        match packet.tag() {
            Tag::SecretKey | Tag::SecretSubkey => return Err(Refused::Secret),
            Tag::PublicKey => self.key(packet)?,
            Tag::UserId => {
                let id = UserId::try_from_reader(packet.header, packet.body).map_err(|_| UNREADABLE)?;
                let users = &mut self.certificate()?.users;
                self.place = Place::User(place_of(users, id, |a, b| a.id() == b.id()));
            }
            Tag::PublicSubkey => {
                let mut body = packet.body;
                let subkey = PublicSubkey::try_from_reader(packet.header, &mut body);
                let subkeys = &mut self.certificate()?.subkeys;
                self.place = match subkey {
                    Ok(key) if body.is_empty() => {
                        Place::Subkey(place_of(subkeys, key, |a, b| a.fingerprint() == b.fingerprint()))
                    }
                    // Of a newer kind, most often one for encryption. Nothing can be verified by it.
                    _ => Place::Unread,
                };
            }
            Tag::UserAttribute => {
                self.certificate()?;
                self.place = Place::Unread;
            }
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
        // The last one is where everything that follows goes.
        let known = self.certificates.iter().position(|known| known.primary.fingerprint() == key.fingerprint());
        let certificate = known.map_or_else(|| Certificate::new(key), |index| self.certificates.remove(index));
        self.certificates.push(certificate);
        self.place = Place::Key;
        Ok(())
    }

    fn signature(&mut self, packet: &Packet<'_>) -> Result<(), Refused> {
        let signature = packet.signature().filter(|signature| signature.config().is_some());
        let revokes = signature.as_ref().is_some_and(|s| s.typ() == Some(SignatureType::KeyRevocation));
        if matches!(self.place, Place::Unread) && !revokes {
            return Ok(());
        }
        let signature = signature
            .ok_or(Refused::Why("a signature in the block that begins here cannot be read, and might revoke a key"))?;
        // Wherever it stands.
        let place = if revokes { &Place::Key } else { &self.place };
        let certificate = self.certificates.last_mut().ok_or(OUT_OF_PLACE)?;
        let signatures: &mut Vec<Signature> = match *place {
            Place::Nowhere | Place::Unread => return Err(OUT_OF_PLACE),
            Place::Key => &mut certificate.direct,
            Place::User(index) => &mut certificate.users[index].signatures,
            Place::Subkey(index) => &mut certificate.subkeys[index].signatures,
        };
        signatures.push(signature);
        Ok(())
    }

    /// The one that is being read.
    fn certificate(&mut self) -> Result<&mut Certificate, Refused> {
        match self.place {
            Place::Nowhere => Err(OUT_OF_PLACE),
            _ => self.certificates.last_mut().ok_or(OUT_OF_PLACE),
        }
    }
}

const UNREADABLE: Refused =
    Refused::Why("a key in the block that begins here cannot be read: export it without that one");
const OUT_OF_PLACE: Refused = Refused::Why("the block that begins here does not begin with a key");

fn place_of<T>(all: &mut Vec<Signed<T>>, what: T, same: impl Fn(&T, &T) -> bool) -> usize {
    all.iter().position(|known| same(&known.what, &what)).unwrap_or_else(|| {
        all.push(Signed { what, signatures: Vec::new() });
        all.len() - 1
    })
}
