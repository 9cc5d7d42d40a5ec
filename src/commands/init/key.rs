//! The deploy key: made here, for this one app, and never overwritten.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use ring::rand::{SecureRandom, SystemRandom};
use russh::keys::ssh_key::LineEnding;
use russh::keys::ssh_key::private::{Ed25519Keypair, KeypairData};
use russh::keys::{PrivateKey, PublicKey};

use crate::outcome::{Class, Failure};
use crate::remote::session::private_key;
use crate::sys::fresh::{self, Draft};
use crate::sys::trusted_file::{self, Secrecy};

/// The key of an app, there or to be made.
pub struct Key {
    pub path: PathBuf,
    public_path: PathBuf,
    private: PrivateKey,
    is_there: bool,
    public_is_there: bool,
}

impl Key {
    /// Reads the key that is there, or makes one up; nothing is written yet.
    ///
    /// # Errors
    /// `Refused` or `Config` when the key that is there cannot be used.
    pub fn prepare(path: &Path, comment: &str) -> Result<Key> {
        let public_path = with_pub(path);
        let found = optional(path, Secrecy::Private)?;
        let public = optional(&public_path, Secrecy::Public)?;
        let private = match &found {
            Some(text) => private_key(path, text)?,
            None => new_key(comment)?,
        };
        if let Some(text) = &public {
            let fits =
                PublicKey::from_openssh(text.trim()).is_ok_and(|k| k.key_data() == private.public_key().key_data());
            if !fits {
                let (key, public) = (path.display(), public_path.display());
                let message = match found {
                    Some(_) => format!("{public} is not the public half of {key}"),
                    None => format!("{public} is there, and {key}, the key to it, is not"),
                };
                return Err(Failure::new(Class::Config, message)
                    .help(format!("move it away: mv {public} {public}.old"))
                    .into());
            }
        }
        if found.is_none() || public.is_none() {
            fresh::check(path)?;
        }
        let (is_there, public_is_there) = (found.is_some(), public.is_some());
        Ok(Key { path: path.to_owned(), public_path, private, is_there, public_is_there })
    }

    pub fn is_there(&self) -> bool {
        self.is_there
    }

    /// The private half first: a public half without it would be a riddle.
    pub fn write(&self) -> Result<()> {
        if self.is_there {
            fresh::tidy(&self.path)?;
        } else {
            let folder = self.path.parent().context("a key in no folder")?;
            fresh::own_folder(folder, 0o700)?;
            let text = self.private.to_openssh(LineEnding::LF).context("writing the key in OpenSSH's format")?;
            put(&self.path, &text, 0o600)?;
        }
        match self.public_is_there {
            true => fresh::tidy(&self.public_path),
            false => put(&self.public_path, &format!("{}\n", self.public_line()?), 0o644),
        }
    }

    /// The public half, as it is pasted.
    pub fn public_line(&self) -> Result<String> {
        Ok(self.private.public_key().to_openssh()?)
    }
}

fn put(path: &Path, text: &str, mode: u32) -> Result<()> {
    let mut draft = Draft::begin(path)?;
    draft.write(text)?;
    draft.keep(mode)
}

fn optional(path: &Path, secrecy: Secrecy) -> Result<Option<String>> {
    match trusted_file::read(path, secrecy) {
        Ok(text) => Ok(Some(text)),
        Err(e) if fresh::is_missing(&e) => Ok(None),
        Err(e) => Err(e),
    }
}

fn with_pub(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".pub");
    name.into()
}

fn new_key(comment: &str) -> Result<PrivateKey> {
    let mut seed = [0; 32];
    SystemRandom::new().fill(&mut seed).map_err(|_| anyhow!("the system gives no random numbers"))?;
    let pair = Ed25519Keypair::from_seed(&seed);
    PrivateKey::new(KeypairData::from(pair), comment).context("making a key")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_key_reads_back_as_the_same_and_no_two_are_equal() {
        let key = new_key("poller site on web-1").unwrap();
        let text = key.to_openssh(LineEnding::LF).unwrap();
        let back = private_key(Path::new("/key"), &text).unwrap();
        assert_eq!(back.public_key().to_openssh().unwrap(), key.public_key().to_openssh().unwrap());
        assert!(key.public_key().to_openssh().unwrap().ends_with(" poller site on web-1"));
        assert_ne!(new_key("").unwrap().public_key().key_data(), key.public_key().key_data());
    }
}
