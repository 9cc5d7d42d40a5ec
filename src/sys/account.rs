//! Users and groups, looked up by name once, before anything is forked.

use std::ffi::CString;
use std::path::PathBuf;
use std::sync::OnceLock;

use anyhow::{Context, Result};
use nix::unistd::{Gid, Group, Uid, User, getgrouplist};
use serde::ser::{Error as _, SerializeStruct};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::outcome::{Class, Failure};

/// Who a process is to become: numbers only, so that nothing needs looking up after a fork.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Account {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    #[serde(deserialize_with = "known")]
    groups: OnceLock<Vec<u32>>,
    pub home: PathBuf,
    pub shell: PathBuf,
}

impl Account {
    /// Looks `name` up; `group` takes the place of the user's own primary group.
    ///
    /// # Errors
    /// Configuration: the user or group does not exist, or is uid 0.
    pub fn named(name: &str, group: Option<&str>) -> Result<Account> {
        let user = User::from_name(name).with_context(|| format!("looking up the user {name}"))?.ok_or_else(|| {
            Failure::new(Class::Config, format!("the user `{name}` does not exist"))
                .help(format!("create it: useradd --system --shell /usr/sbin/nologin {name}"))
        })?;
        if user.uid.is_root() {
            return Err(Failure::new(Class::Config, format!("the user `{name}` is uid 0"))
                .help("name a restricted user: a deploy script never runs as root")
                .into());
        }
        let gid = match group {
            None => user.gid,
            Some(group) => {
                Group::from_name(group)
                    .with_context(|| format!("looking up the group {group}"))?
                    .ok_or_else(|| {
                        Failure::new(Class::Config, format!("the group `{group}` does not exist"))
                            .help(format!("create it: groupadd --system {group}"))
                    })?
                    .gid
            }
        };
        Ok(Account::from_user(user, gid))
    }

    /// The user that poller itself runs as.
    pub fn current() -> Result<Account> {
        let uid = Uid::effective();
        let user = User::from_uid(uid).context("looking up the current user")?.unwrap_or_else(|| nameless(uid));
        Ok(Account::from_user(user, Gid::effective()))
    }

    /// Supplementary groups, as initgroups(3) would set them. Looked up when something is to run as this
    /// user, which in most polls nothing does: whoever has many users asks a directory server for it.
    pub fn groups(&self) -> Result<&[u32]> {
        if let Some(groups) = self.groups.get() {
            return Ok(groups);
        }
        let name = CString::new(self.name.as_str())?;
        let groups = getgrouplist(&name, Gid::from_raw(self.gid))
            .with_context(|| format!("looking up the groups of the user {}", self.name))?;
        Ok(self.groups.get_or_init(|| groups.into_iter().map(Gid::as_raw).collect()))
    }

    /// What this process's user is called, as whoever started it has said: in the cage, no name can be looked up.
    pub fn my_name() -> Option<String> {
        let said = std::env::var("USER").ok().filter(|name| !name.is_empty());
        said.or_else(|| User::from_uid(Uid::effective()).ok().flatten().map(|user| user.name))
    }

    fn from_user(user: User, gid: Gid) -> Account {
        Account {
            name: user.name,
            uid: user.uid.as_raw(),
            gid: gid.as_raw(),
            groups: OnceLock::new(),
            home: user.dir,
            shell: user.shell,
        }
    }
}

/// Another process gets the numbers too, so that it has nothing to look up.
impl Serialize for Account {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let groups = self.groups().map_err(|e| S::Error::custom(format!("{e:#}")))?;
        let mut account = serializer.serialize_struct("Account", 6)?;
        account.serialize_field("name", &self.name)?;
        account.serialize_field("uid", &self.uid)?;
        account.serialize_field("gid", &self.gid)?;
        account.serialize_field("groups", groups)?;
        account.serialize_field("home", &self.home)?;
        account.serialize_field("shell", &self.shell)?;
        account.end()
    }
}

fn known<'d, D: Deserializer<'d>>(deserializer: D) -> Result<OnceLock<Vec<u32>>, D::Error> {
    Vec::deserialize(deserializer).map(OnceLock::from)
}

/// A container may run as a uid that its user database does not know.
fn nameless(uid: Uid) -> User {
    User {
        name: uid.to_string(),
        passwd: CString::default(),
        uid,
        gid: Gid::effective(),
        gecos: CString::default(),
        dir: PathBuf::from("/"),
        shell: PathBuf::from("/bin/sh"),
    }
}
