//! Origins on their way to the prober. What many apps have in common, a long known_hosts first of all, goes once: a
//! message has a bound, and hundreds of apps must fit.

use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::messages::{Access, Origin};
use crate::config::Remote;

#[derive(Debug, Serialize, Deserialize)]
pub struct Origins {
    known_hosts: Vec<String>,
    /// Each without its known_hosts, and which of them it is.
    accesses: Vec<(Access, usize)>,
    origins: Vec<Packed>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Packed {
    url: String,
    remote: Remote,
    timeout: Duration,
    /// Which of the accesses.
    access: usize,
}

impl Origins {
    pub fn pack<'o>(origins: impl IntoIterator<Item = &'o Origin>) -> Origins {
        let mut packed = Origins { known_hosts: Vec::new(), accesses: Vec::new(), origins: Vec::new() };
        for Origin { url, remote, access, timeout } in origins {
            let mut access = access.clone();
            let known_hosts = match &mut access {
                Access::Key { known_hosts, .. } => std::mem::take(known_hosts),
                Access::Program(_) | Access::Local => String::new(),
            };
            let known_hosts = place(&mut packed.known_hosts, known_hosts);
            let access = place(&mut packed.accesses, (access, known_hosts));
            packed.origins.push(Packed { url: url.clone(), remote: remote.clone(), timeout: *timeout, access });
        }
        packed
    }

    pub fn unpack(self) -> Result<Vec<Origin>> {
        let Origins { known_hosts: texts, accesses, origins } = self;
        let unpacked = origins.into_iter().map(|Packed { url, remote, timeout, access }| {
            let (mut access, text) = accesses.get(access).context("an origin without access")?.clone();
            if let Access::Key { known_hosts, .. } = &mut access {
                known_hosts.clone_from(texts.get(text).context("an access without known_hosts")?);
            }
            Ok(Origin { url, remote, access, timeout })
        });
        unpacked.collect()
    }
}

/// Where it is among all; put there if it is not yet.
fn place<T: PartialEq>(all: &mut Vec<T>, one: T) -> usize {
    all.iter().position(|known| *known == one).unwrap_or_else(|| {
        all.push(one);
        all.len() - 1
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::messages::Secret;
    use super::*;

    #[test]
    fn what_origins_share_goes_once_and_comes_back_to_each() {
        let known_hosts = "git.example.org ssh-ed25519 AAAA\n".repeat(1000);
        let origin = |n: usize| Origin {
            url: format!("git@git.example.org:site-{n}.git"),
            remote: Remote::Local(PathBuf::from(format!("/srv/git/site-{n}.git"))),
            access: Access::Key {
                path: format!("/etc/poller/keys/site-{n}").into(),
                key: Secret(format!("key {n}")),
                known_hosts_path: "/etc/poller/known_hosts".into(),
                known_hosts: known_hosts.clone(),
            },
            timeout: Duration::from_secs(n as u64),
        };
        let origins: Vec<Origin> = (0..1000).map(origin).collect();
        let sent = serde_json::to_string(&Origins::pack(&origins)).unwrap();
        assert!(sent.len() < 2 * known_hosts.len() + 1000 * 400, "{} bytes", sent.len());
        let come: Origins = serde_json::from_str(&sent).unwrap();
        assert_eq!(come.unpack().unwrap(), origins);
    }
}
