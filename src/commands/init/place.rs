//! The target directory, made for the deploy user. One that is there is looked at, and left as it is.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result};
use nix::unistd::{Uid, User};

use crate::outcome::{Class, Failure};
use crate::sys::account::Account;
use crate::sys::fresh;

pub struct Place<'a> {
    path: &'a Path,
    account: &'a Account,
    is_there: bool,
}

impl<'a> Place<'a> {
    /// # Errors
    /// `Refused` when the folder is another user's, or when it would be made where others can write.
    pub fn prepare(path: &'a Path, account: &'a Account) -> Result<Place<'a>> {
        let is_there = match std::fs::metadata(path) {
            Ok(found) if !found.is_dir() => {
                return Err(Failure::new(Class::Config, format!("{} is not a folder", path.display()))
                    .help("name another one: --directory DIR")
                    .into());
            }
            Ok(found) if found.uid() != account.uid => return Err(foreign(path, account, found.uid()).into()),
            Ok(_) => true,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                if std::fs::symlink_metadata(path).is_ok() {
                    return Err(Failure::new(
                        Class::Config,
                        format!("{} is a link that leads nowhere", path.display()),
                    )
                    .help("remove it, or make the folder it leads to")
                    .into());
                }
                fresh::check(path).map_err(|e| by_hand(e, path, account))?;
                false
            }
            Err(e) => return Err(e).with_context(|| path.display().to_string()),
        };
        Ok(Place { path, account, is_there })
    }

    pub fn is_there(&self) -> bool {
        self.is_there
    }

    pub fn write(&self) -> Result<()> {
        if self.is_there { Ok(()) } else { fresh::folder(self.path, 0o755, self.account) }
    }
}

fn foreign(path: &Path, account: &Account, owner: u32) -> Failure {
    let owner = User::from_uid(Uid::from_raw(owner)).ok().flatten().map_or_else(|| owner.to_string(), |user| user.name);
    let (path, name) = (path.display(), &account.name);
    Failure::new(Class::Refused, format!("{path} is there already, and belongs to {owner}"))
        .help(format!("if it is to be {name}'s: chown {name}: {path}"))
        .help("or publish elsewhere: --directory DIR")
}

/// Beneath a folder of the deploy user's, root makes nothing: that user could turn it elsewhere.
fn by_hand(error: anyhow::Error, path: &Path, account: &Account) -> anyhow::Error {
    let failure = Failure::of(error);
    let (path, name) = (path.display(), &account.name);
    if Uid::effective().is_root() && failure.class == Class::Refused {
        let help = format!("make it as the user who is to own it, then run this again: sudo -u {name} mkdir -p {path}");
        return Failure { help: vec![help], ..failure }.into();
    }
    if !Uid::effective().is_root() && failure.class == Class::Io {
        let help = format!("have it made: sudo install -d -o {name} {path}");
        return Failure {
            class: Class::Refused,
            help: vec![help, "or publish elsewhere: --directory DIR".to_owned()],
            ..failure
        }
        .into();
    }
    failure.into()
}
