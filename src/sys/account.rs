//! Users and groups, looked up by name once, before anything is forked.

use std::ffi::CString;
use std::path::PathBuf;

use anyhow::{Context, Result};
use nix::unistd::{Gid, Group, Uid, User, getgrouplist};
use serde::{Deserialize, Serialize};

use crate::outcome::{Class, Failure};

/// Who a process is to become: numbers only, so that nothing needs looking up after a fork.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups, as initgroups(3) would set them.
    pub groups: Vec<u32>,
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
        Account::from_user(user, gid)
    }

    /// The user that poller itself runs as.
    pub fn current() -> Result<Account> {
        let uid = Uid::effective();
        let user = User::from_uid(uid).context("looking up the current user")?.unwrap_or_else(|| nameless(uid));
        Account::from_user(user, Gid::effective())
    }

    /// What this process's user is called, as whoever started it has said: in the cage, no name can be looked up.
    pub fn my_name() -> Option<String> {
        let said = std::env::var("USER").ok().filter(|name| !name.is_empty());
        said.or_else(|| User::from_uid(Uid::effective()).ok().flatten().map(|user| user.name))
    }

    fn from_user(user: User, gid: Gid) -> Result<Account> {
        let name = CString::new(user.name.as_str())?;
        let groups = getgrouplist(&name, gid).context("looking up supplementary groups")?;
        Ok(Account {
            name: user.name,
            uid: user.uid.as_raw(),
            gid: gid.as_raw(),
            groups: groups.into_iter().map(Gid::as_raw).collect(),
            home: user.dir,
            shell: user.shell,
        })
    }
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
