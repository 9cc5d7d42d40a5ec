//! Where commits come from: key, known_hosts, the server, the ref, and what the key may do there.

use super::Patient;
use super::finding::Finding;
use crate::config::Remote;
use crate::outcome::{Class, Failure};
use crate::processes::messages::{Access, Origin, Push};
use crate::remote::known_hosts::KnownHosts;
use crate::remote::session::describe_key;

pub fn look(patient: &Patient) -> Vec<Finding> {
    let origin = match &patient.origin {
        Ok(origin) => origin,
        Err(failure) => return vec![Finding::of("key", failure.clone())],
    };
    let mut found = Vec::new();
    if let Access::Key { path, key, .. } = &origin.access {
        match describe_key(path, &key.0) {
            Ok(key) => found.push(Finding::ok("key", format!("{}, {key}", path.display()))),
            // The prober met the same, and would say the same.
            Err(failure) => return vec![Finding::of("key", failure)],
        }
    }
    match &patient.tip {
        None => {}
        Some(Ok(tip)) => {
            found.push(Finding::ok("server", answered(origin)));
            found.push(Finding::ok("ref", format!("{} is at {}", tip.reference, tip.commit.short())));
            found.extend(right(origin, patient.push));
        }
        Some(Err(failure)) if is_about_the_ref(failure) => {
            found.push(Finding::ok("server", answered(origin)));
            found.push(Finding::of("ref", failure.clone()));
        }
        Some(Err(failure)) => {
            found.push(Finding::of("server", failure.clone()));
            found.extend(not_pinned(origin).filter(|_| failure.class == Class::Unreachable));
        }
    }
    found
}

fn is_about_the_ref(failure: &Failure) -> bool {
    failure.class == Class::Unreachable && failure.message.contains(": there is no ")
}

fn answered(origin: &Origin) -> String {
    match (&origin.remote, &origin.access) {
        (Remote::Ssh { user, host, port, .. }, access) => {
            let port = if *port == 22 { String::new() } else { format!(" port {port}") };
            let how = match access {
                Access::Program(_) => "answers through `ssh_command`",
                _ => "shows its pinned host key, and accepts the key",
            };
            format!("{user}@{host}{port} {how}")
        }
        (Remote::Local(path), _) => format!("{} can be read", path.display()),
    }
}

/// A server that is down shows no key; that none is pinned for it is known all the same.
fn not_pinned(origin: &Origin) -> Option<Finding> {
    let (Remote::Ssh { host, port, .. }, Access::Key { known_hosts_path, known_hosts, .. }) =
        (&origin.remote, &origin.access)
    else {
        return None;
    };
    if !KnownHosts::parse(known_hosts_path, known_hosts).algorithms(host, *port).is_empty() {
        return None;
    }
    let text = format!("{} pins no key of {host} port {port}", known_hosts_path.display());
    Some(
        Finding::failed("known_hosts", Class::Protocol, text)
            .fix("the first poll that reaches the server shows the line to add"),
    )
}

fn right(origin: &Origin, push: Push) -> Option<Finding> {
    let Remote::Ssh { path, .. } = &origin.remote else { return None };
    match push {
        Push::Refused => Some(Finding::ok("push", "refused by the server: the key is read-only")),
        Push::Unknown => None,
        Push::Allowed => Some(
            Finding::warning(
                "push",
                "the server would let this key push: whoever gets it could change what is deployed",
            )
            .fix("make it a read-only deploy key of the repository; on a plain SSH server, put before it in")
            .fix(format!("authorized_keys: restrict,command=\"git-upload-pack '{path}'\"")),
        ),
    }
}
