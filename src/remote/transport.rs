//! A conversation as libgit2 wants it: blocking reads and writes, each with a time limit.
//!
//! libgit2 turns an error of the stream into text of its own, so the stream keeps the real one.

use std::future::Future;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
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
    stop: HangUp,
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
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(bug)?;
    let stage = Stage::default();
    let stop = {
        let _entered = runtime.enter();
        HangUp::watched()
    };
    let opened = match runtime.block_on(limit(origin.timeout, connect(origin, &stage), &stop)) {
        Step::Done(opened) => opened,
        Step::Silent => Err(timed_out(&origin.url, &stage, origin.timeout)),
        Step::Stopped => Err(given_up(&origin.url)),
    };
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
        stop,
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
    fn is_given_up(&self) -> bool {
        let broken = self.broken.0.lock().unwrap_or_else(|e| e.into_inner());
        broken.as_ref().is_some_and(|failure| failure.class == Class::Busy)
    }

    /// Waits for one step of the conversation, but not for ever.
    fn step<T>(
        &mut self,
        doing: &str,
        work: impl AsyncFnOnce(&mut Box<dyn Conversation>) -> io::Result<T>,
    ) -> io::Result<T> {
        let held = self.held.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        let limited = limit(self.timeout, work(&mut held.conversation), &self.stop);
        let unreachable = |text: String| {
            Failure::new(Class::Unreachable, text).help("nothing was changed; the next poll tries again")
        };
        let failure = match self.runtime.block_on(limited) {
            Step::Done(Ok(value)) => return Ok(value),
            Step::Done(Err(e)) => unreachable(format!("{}: {doing}: {e}", self.url)),
            Step::Stopped => given_up(&self.url),
            Step::Silent => {
                let limit = crate::report::duration(self.timeout);
                unreachable(format!("{}: silent for {limit} in the middle of the transfer", self.url))
            }
        };
        let error = io::Error::other(failure.message.clone());
        *self.broken.0.lock().unwrap_or_else(|e| e.into_inner()) = Some(failure);
        Err(error)
    }
}

/// Told to nobody: whoever gave it up does not listen any more.
fn given_up(url: &str) -> Failure {
    Failure::new(Class::Busy, format!("{url}: given up in the middle of the transfer"))
}

/// How a step came to its end.
enum Step<T> {
    Done(T),
    /// The time was up.
    Silent,
    /// Nobody wants it any more.
    Stopped,
}

/// The timer must be made within the runtime, hence an async function.
async fn limit<T>(timeout: Duration, work: impl Future<Output = T>, stop: &HangUp) -> Step<T> {
    let timed = std::pin::pin!(tokio::time::timeout(timeout, work));
    match select(timed, std::pin::pin!(stop.come())).await {
        Either::Left((Ok(done), _)) => Step::Done(done),
        Either::Left((Err(_), _)) => Step::Silent,
        Either::Right(_) => Step::Stopped,
    }
}

/// The end of this process's input, by which the supervisor tells that a fetch is given up: what there is of
/// the pack is removed before the end. During a fetch nothing else is ever said there.
struct HangUp(Option<pipe::Receiver>);

impl HangUp {
    /// Within the runtime. An input that cannot be watched, such as a file, never ends. It is only waited for
    /// and never read here, so it stays as it is for whoever reads it.
    fn watched() -> HangUp {
        let input = std::io::stdin().as_fd().try_clone_to_owned();
        HangUp(input.and_then(pipe::Receiver::from_owned_fd_unchecked).ok())
    }

    async fn come(&self) {
        match &self.0 {
            Some(input) => drop(input.readable().await),
            None => std::future::pending().await,
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.step("reading", async |conversation| conversation.read(buffer).await);
        // What the server said last tells why it ended.
        if matches!(read, Ok(0) | Err(_)) && !self.is_given_up() {
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
