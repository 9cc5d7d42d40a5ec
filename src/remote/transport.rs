//! A conversation as libgit2 wants it: blocking reads and writes, each with a time limit.
//!
//! Of the references that a server lists, libgit2 sees the one that is wanted: it would keep all of
//! them, however many there are. What follows passes the [`guard`](super::guard).
//!
//! libgit2 turns an error of the stream into text of its own, so the stream keeps the real one.

use std::borrow::Cow;
use std::future::Future;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::future::{Either, select};
use git2::Oid;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, ReadBuf};
use tokio::net::unix::pipe;
use tokio::runtime::Runtime;
use tokio::time::{Instant, Sleep};

use super::guard::{Guard, LIMITS};
use super::ls_refs::{self, Advertised, Wanted};
use super::session::{Session, Stage, timed_out};
use super::{Complaint, Conversation, Protocol, openssh};
use crate::outcome::{Class, Failure};
use crate::processes::messages::{Access, Origin};
use crate::stages::probe;

/// What libgit2 knows to make use of in a fetch, in the order of its own list.
const CAPABILITIES: [&str; 9] = [
    "ofs-delta",
    "multi_ack_detailed",
    "multi_ack",
    "include-tag",
    "side-band-64k",
    "side-band",
    "thin-pack",
    "allow-tip-sha1-in-want",
    "allow-reachable-sha1-in-want",
];

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
    /// What libgit2 is to read first, the last byte in front.
    list: Vec<u8>,
    /// What the server is told first of all that is here.
    known: Vec<Oid>,
    guard: Guard,
}

/// A stream that is ready to be asked for a pack.
pub struct Opened {
    pub stream: Stream,
    pub broken: Broken,
    pub complaint: Complaint,
    /// What the reference holds; None when there is none of that name.
    pub object: Option<[u8; 20]>,
}

/// Why a stream stopped, for whoever gets libgit2's paraphrase of it.
#[derive(Clone, Default)]
pub struct Broken(Arc<Mutex<Option<Failure>>>);

impl Broken {
    pub fn take(&self) -> Option<Failure> {
        self.0.lock().unwrap_or_else(|e| e.into_inner()).take()
    }
}

/// Opens a conversation in the protocol that libgit2 speaks, up to where the server waits to be asked.
/// `origin` is not a local one.
pub fn open(origin: &Origin, reference: &str) -> Result<Opened, Failure> {
    let bug = |e: io::Error| Failure::new(Class::Bug, format!("the runtime: {e}"));
    let runtime = super::runtime().map_err(bug)?;
    let stage = Stage::default();
    let stop = {
        let _entered = runtime.enter();
        HangUp::watched()
    };
    let opened = runtime.block_on(async {
        let (mut held, complaint) = match limit(origin.timeout, connect(origin, &stage), &stop).await {
            Step::Done(opened) => opened?,
            Step::Silent => return Err(timed_out(&origin.url, &stage, origin.timeout)),
            Step::Stopped => return Err(given_up(&origin.url)),
        };
        let listed = {
            let listing = std::pin::pin!(list(&mut held, origin, reference, &complaint));
            match select(listing, std::pin::pin!(stop.come())).await {
                Either::Left((listed, _)) => listed?,
                Either::Right(_) => return Err(given_up(&origin.url)),
            }
        };
        Ok((held, complaint, listed))
    });
    let (held, complaint, (found, capabilities)) = match opened {
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
        list: found.as_ref().map_or_else(Vec::new, |found| shortened(found, &capabilities)),
        known: Vec::new(),
        guard: Guard::new(LIMITS),
    };
    Ok(Opened { stream, broken, complaint, object: found.map(|found| found.id) })
}

async fn connect(origin: &Origin, stage: &Stage) -> Result<(Held, Complaint), Failure> {
    if let Access::Program(argv) = &origin.access {
        let (conversation, complaint) = openssh::upload_pack(argv, &origin.remote, Protocol::V0)?;
        return Ok((Held { conversation, _session: None }, complaint));
    }
    let session = Session::open(origin, stage, async || ()).await?;
    let crate::config::Remote::Ssh { path, .. } = &origin.remote else {
        return Err(Failure::new(Class::Bug, "a transport for a local repository"));
    };
    let (conversation, complaint) = session.upload_pack(path, Protocol::V0, stage).await?;
    Ok((Held { conversation, _session: Some(session) }, complaint))
}

/// Reads the server's list of references. It may be long, so only its silences are limited. A server
/// that says more before it is asked is not heard.
async fn list(
    held: &mut Held,
    origin: &Origin,
    reference: &str,
    complaint: &Complaint,
) -> Result<(Option<Advertised>, Vec<u8>), Failure> {
    let mut patient = BufReader::new(Patient::new(&mut held.conversation, origin.timeout));
    match ls_refs::advertised(&mut patient, Wanted::Ref(reference.to_owned())).await {
        Ok(found) => Ok(found),
        Err(error) => {
            complaint.settled().await;
            Err(probe::failure(&origin.url, error, complaint.text()))
        }
    }
}

/// The request with these commits ahead of those that it says are here. It begins with what is wanted, and an
/// empty packet after that.
fn with_known<'b>(request: &'b [u8], known: &[Oid]) -> Cow<'b, [u8]> {
    let mut at = 0;
    while let Some(length) = request.get(at..at + 4).and_then(|length| std::str::from_utf8(length).ok()) {
        match usize::from_str_radix(length, 16) {
            Ok(0) => {
                let (wanted, rest) = request.split_at(at + 4);
                let here: String = known.iter().map(|id| format!("0032have {id}\n")).collect();
                return [wanted, here.as_bytes(), rest].concat().into();
            }
            Ok(length @ 4..) => at += length,
            _ => break,
        }
    }
    request.into()
}

/// The list as libgit2 gets to see it.
fn shortened(found: &Advertised, capabilities: &[u8]) -> Vec<u8> {
    let offered = String::from_utf8_lossy(capabilities);
    let known: Vec<_> = CAPABILITIES.into_iter().filter(|known| offered.split(' ').any(|one| one == *known)).collect();
    let id: String = found.id.iter().map(|byte| format!("{byte:02x}")).collect();
    let line = format!("{id} {}\0{}\n", found.name, known.join(" "));
    let mut list = format!("{:04x}{line}0000", line.len() + 4).into_bytes();
    list.reverse();
    list
}

/// Reads that end when nothing came for a while.
struct Patient<'a> {
    conversation: &'a mut Box<dyn Conversation>,
    timeout: Duration,
    alarm: Pin<Box<Sleep>>,
}

impl<'a> Patient<'a> {
    fn new(conversation: &'a mut Box<dyn Conversation>, timeout: Duration) -> Self {
        Patient { conversation, timeout, alarm: Box::pin(tokio::time::sleep(timeout)) }
    }
}

impl AsyncRead for Patient<'_> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut *self.conversation).poll_read(cx, buf);
        let next = Instant::now() + self.timeout;
        if done.is_ready() {
            self.alarm.as_mut().reset(next);
            return done;
        }
        ready!(self.alarm.as_mut().poll(cx));
        let silent = format!("silent for {}", crate::report::duration(self.timeout));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, silent)))
    }
}

impl AsyncWrite for Patient<'_> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.conversation).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.conversation).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.conversation).poll_shutdown(cx)
    }
}

impl Stream {
    /// Commits that are here with all that they lead to. libgit2 tells the server the newest commits of the
    /// repository, 256 of them, most of which may be entries of journals, which no server has; it then
    /// fetches everything anew.
    pub fn knows(&mut self, commits: Vec<Oid>) {
        self.known = commits;
    }

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
        Err(self.end(failure))
    }

    /// Keeps the reason, and makes of it an error that libgit2 can pass on.
    fn end(&self, failure: Failure) -> io::Error {
        let error = io::Error::other(failure.message.clone());
        *self.broken.0.lock().unwrap_or_else(|e| e.into_inner()) = Some(failure);
        error
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
        if !self.list.is_empty() {
            let length = buffer.len().min(self.list.len());
            buffer[..length].fill_with(|| self.list.pop().unwrap_or_default());
            return Ok(length);
        }
        let read = self.step("reading", async |conversation| conversation.read(buffer).await);
        // What the server said last tells why it ended.
        if matches!(read, Ok(0) | Err(_)) && !self.is_given_up() {
            self.runtime.block_on(self.complaint.settled());
        }
        let read = read?;
        self.guard.look(&buffer[..read]).map_err(|mut failure| {
            failure.message = format!("{}: {}", self.url, failure.message);
            self.end(failure)
        })?;
        Ok(read)
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let known = std::mem::take(&mut self.known);
        let told = with_known(bytes, &known);
        self.step("writing", async |conversation| {
            conversation.write_all(&told).await?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_here_is_told_after_what_is_wanted() {
        let id = Oid::from_bytes(&[0xab; 20]).unwrap();
        let have = format!("0032have {id}\n");
        let request = b"000awant x0000000bhave y0009done\n";
        let told = with_known(request, &[id, id]);
        assert_eq!(told, format!("000awant x0000{have}{have}000bhave y0009done\n").as_bytes());
        assert_eq!(with_known(request, &[]), &request[..]);
        for odd in [&b""[..], b"000", b"0032want", b"0001", b"zzzz0000"] {
            assert_eq!(with_known(odd, &[id]), odd);
        }
    }
}
