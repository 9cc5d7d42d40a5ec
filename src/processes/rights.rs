//! Whether a key may push, asked by the prober for `check`.
//!
//! `git-receive-pack` is started and its first packet read: a server that would take a push advertises
//! its refs, one that would not says so. Nothing is ever sent to it, so nothing can change there.

use std::io::Write;

use anyhow::Result;
use futures_util::future::join_all;
use tokio::sync::{Mutex, Semaphore};

use super::messages::{Access, Origin, Push, Right};
use super::wire;
use crate::config::Remote;
use crate::outcome::Class;
use crate::remote::pkt_line::{self, Packet};
use crate::remote::session::{Session, Stage};
use crate::remote::{Protocol, Service};

/// Asks for each origin, and tells as soon as it knows.
pub async fn ask(origins: &[Origin], connections: usize, out: &mut impl Write) -> Result<()> {
    let connections = Semaphore::new(connections.max(1));
    let out = Mutex::new(out);
    let told = join_all(origins.iter().enumerate().map(async |(index, origin)| {
        let _permit = connections.acquire().await?;
        // Connecting and asking together: who is slow here was slow before, and that was told.
        let push = tokio::time::timeout(origin.timeout, may_push(origin)).await.unwrap_or(Push::Unknown);
        let mut out = out.lock().await;
        wire::send(&mut **out, &Right { index, push })
    }));
    told.await.into_iter().collect()
}

async fn may_push(origin: &Origin) -> Push {
    let (Remote::Ssh { path, .. }, Access::Key { .. }) = (&origin.remote, &origin.access) else {
        return Push::Unknown;
    };
    let stage = Stage::default();
    let Ok(session) = Session::open(origin, &stage, async || ()).await else { return Push::Unknown };
    let started = session.start(Service::ReceivePack, path, Protocol::V0, &stage).await;
    let (mut conversation, complaint) = match started {
        Ok(started) => started,
        // The connection holds, and the server will not run it.
        Err(failure) if failure.class == Class::Protocol => return Push::Refused,
        Err(_) => return Push::Unknown,
    };
    let first = pkt_line::read(&mut conversation).await;
    if first.is_err() {
        complaint.settled().await;
    }
    judge(first.ok().as_ref(), complaint.text().is_some())
}

/// What the first packet says, or its absence and what the server complained about meanwhile.
fn judge(first: Option<&Packet>, complained: bool) -> Push {
    match first {
        Some(Packet::Data(line)) if line.starts_with(b"ERR ") => Push::Refused,
        Some(Packet::Data(line)) => {
            let capabilities = line.iter().position(|&b| b == 0).map_or(&b""[..], |nul| &line[nul + 1..]);
            let mut capabilities = capabilities.split(|&b| b == b' ' || b == b'\n');
            // A forced command answers with `git-upload-pack` whatever was asked for; only a receiving
            // git reports a status.
            if capabilities.any(|one| one == b"report-status") { Push::Allowed } else { Push::Refused }
        }
        Some(_) => Push::Unknown,
        None if complained => Push::Refused,
        None => Push::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_receiving_git_would_take_a_push() {
        let id = "e".repeat(40);
        let packet = |text: String| Packet::Data(text.into_bytes());
        let receiving = packet(format!("{id} refs/heads/main\0report-status delete-refs quiet\n"));
        let empty = packet(format!("{} capabilities^{{}}\0 report-status\n", "0".repeat(40)));
        let reading = packet(format!("{id} HEAD\0multi_ack thin-pack side-band\n"));
        let refusal = packet("ERR access denied\n".to_owned());
        for (first, complained, expected) in [
            (Some(&receiving), false, Push::Allowed),
            (Some(&empty), false, Push::Allowed),
            (Some(&reading), false, Push::Refused),
            (Some(&refusal), false, Push::Refused),
            (None, true, Push::Refused),
            (None, false, Push::Unknown),
            (Some(&Packet::Flush), false, Push::Unknown),
        ] {
            assert_eq!(judge(first, complained), expected, "{first:?}");
        }
    }
}
