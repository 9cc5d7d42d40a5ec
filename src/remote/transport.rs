//! A conversation as libgit2 wants it: blocking reads and writes, each with a time limit.
//!
//! libgit2 turns an error of the stream into text of its own, so the stream keeps the real one.

use std::future::Future;
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Runtime;

use super::session::{Session, Stage, timed_out};
use super::{Complaint, Conversation, Protocol, openssh};
use crate::outcome::{Class, Failure};
use crate::processes::messages::{Access, Origin};

/// A conversation, and what must live as long as it does.
struct Held {
    conversation: Box<dyn Conversation>,
    _session: Option<Session>,
}

pub struct Stream {
    runtime: Arc<Runtime>,
    /// None only while it is dropped.
    held: Option<Held>,
    timeout: Duration,
    url: String,
    broken: Broken,
    complaint: Complaint,
}

/// Why a stream stopped, for whoever gets libgit2's paraphrase of it.
#[derive(Clone, Default)]
pub struct Broken(Arc<Mutex<Option<Failure>>>);

impl Broken {
    pub fn take(&self) -> Option<Failure> {
        self.0.lock().unwrap_or_else(|e| e.into_inner()).take()
    }
}

/// Opens a conversation in the protocol that libgit2 speaks. `origin` is not a local one.
pub fn open(origin: &Origin) -> Result<(Stream, Broken, Complaint), Failure> {
    let bug = |e: io::Error| Failure::new(Class::Bug, format!("the runtime: {e}"));
    let runtime = super::runtime().map_err(bug)?;
    let stage = Stage::default();
    let opened = runtime.block_on(async {
        tokio::time::timeout(origin.timeout, connect(origin, &stage))
            .await
            .unwrap_or_else(|_| Err(timed_out(&origin.url, &stage, origin.timeout)))
    });
    let (held, complaint) = match opened {
        Ok(opened) => opened,
        Err(failure) => {
            // A name server that never answers keeps a thread busy; nobody waits for it.
            runtime.shutdown_background();
            return Err(failure);
        }
    };
    let broken = Broken::default();
    let stream = Stream {
        runtime: Arc::new(runtime),
        held: Some(held),
        timeout: origin.timeout,
        url: origin.url.clone(),
        broken: broken.clone(),
        complaint: complaint.clone(),
    };
    Ok((stream, broken, complaint))
}

async fn connect(origin: &Origin, stage: &Stage) -> Result<(Held, Complaint), Failure> {
    if let Access::Program(argv) = &origin.access {
        let (conversation, complaint) = openssh::upload_pack(argv, &origin.remote, Protocol::V0)?;
        return Ok((Held { conversation, _session: None }, complaint));
    }
    let session = Session::open(origin, stage).await?;
    let crate::config::Remote::Ssh { path, .. } = &origin.remote else {
        return Err(Failure::new(Class::Bug, "a transport for a local repository"));
    };
    let (conversation, complaint) = session.upload_pack(path, Protocol::V0, stage).await?;
    Ok((Held { conversation, _session: Some(session) }, complaint))
}

impl Stream {
    /// Waits for one step of the conversation, but not for ever.
    fn step<T>(
        &mut self,
        doing: &str,
        work: impl AsyncFnOnce(&mut Box<dyn Conversation>) -> io::Result<T>,
    ) -> io::Result<T> {
        let held = self.held.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        let limited = limit(self.timeout, work(&mut held.conversation));
        let (class, text) = match self.runtime.block_on(limited) {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(e)) => (Class::Unreachable, format!("{}: {doing}: {e}", self.url)),
            Err(_) => (
                Class::Unreachable,
                format!(
                    "{}: silent for {} in the middle of the transfer",
                    self.url,
                    crate::report::duration(self.timeout)
                ),
            ),
        };
        let failure = Failure::new(class, text).help("nothing was changed; the next poll tries again");
        let error = io::Error::other(failure.message.clone());
        *self.broken.0.lock().unwrap_or_else(|e| e.into_inner()) = Some(failure);
        Err(error)
    }
}

/// The timer must be made within the runtime, hence an async function.
async fn limit<T>(timeout: Duration, work: impl Future<Output = T>) -> Result<T, tokio::time::error::Elapsed> {
    tokio::time::timeout(timeout, work).await
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.step("reading", async |conversation| conversation.read(buffer).await);
        if matches!(read, Ok(0) | Err(_)) {
            self.runtime.block_on(self.complaint.settled());
        }
        read
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.step("writing", async |conversation| {
            conversation.write_all(bytes).await?;
            conversation.flush().await?;
            Ok(bytes.len())
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // A channel that is dropped outside its runtime panics.
        let runtime = Arc::clone(&self.runtime);
        let _entered = runtime.enter();
        self.held = None;
    }
}
