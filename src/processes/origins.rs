//! Origins on their way to the prober. What many apps have in common, such as a key and a long known_hosts, goes
//! once: a message has a bound, and hundreds of apps must fit.

use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::messages::{Access, Origin};
use crate::config::Remote;

#[derive(Debug, Serialize, Deserialize)]
pub struct Origins {
    accesses: Vec<Access>,
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
        let mut packed = Origins { accesses: Vec::new(), origins: Vec::new() };
        for Origin { url, remote, access, timeout } in origins {
            let known = packed.accesses.iter().position(|known| known == access);
            let access = known.unwrap_or_else(|| {
                packed.accesses.push(access.clone());
                packed.accesses.len() - 1
            });
            packed.origins.push(Packed { url: url.clone(), remote: remote.clone(), timeout: *timeout, access });
        }
        packed
    }

    pub fn unpack(self) -> Result<Vec<Origin>> {
        let Origins { accesses, origins } = self;
        let unpacked = origins.into_iter().map(|Packed { url, remote, timeout, access }| {
            let access = accesses.get(access).context("an origin without access")?.clone();
            Ok(Origin { url, remote, access, timeout })
        });
        unpacked.collect()
    }
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
                path: "/etc/poller/keys/site".into(),
                key: Secret(format!("key {}", n % 2)),
                known_hosts_path: "/etc/poller/known_hosts".into(),
                known_hosts: known_hosts.clone(),
            },
            timeout: Duration::from_secs(n as u64),
        };
        let origins: Vec<Origin> = (0..1000).map(origin).collect();
        let sent = serde_json::to_string(&Origins::pack(&origins)).unwrap();
        assert!(sent.len() < 3 * known_hosts.len() + 1000 * 200, "{} bytes", sent.len());
        let come: Origins = serde_json::from_str(&sent).unwrap();
        assert_eq!(come.unpack().unwrap(), origins);
    }
}
