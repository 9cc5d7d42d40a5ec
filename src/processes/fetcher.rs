//! The fetcher: everything that reads what a git server sent, as the fetch user.
//!
//! It answers one request after another until its input ends. Descriptor 3 leads to the stager.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use git2::Repository;

use super::messages::{FetcherReply, FetcherRequest};
use super::wire;
use crate::journal;
use crate::outcome::{Class, Failure};
use crate::stages::fetch::{self, Fetched, Lock, Opened, Step};
use crate::stages::stream::Outgoing;
use crate::stages::{programs, tend, verify};
use crate::sys::privdrop::inherited;

/// The descriptor on which trees go to the stager.
pub const STREAM: i32 = 3;

pub fn run() -> Result<()> {
    // An entry has the time zone in it, whose file is out of reach by the time one is written. The C library
    // reads it once.
    git2::Signature::now("poller", "poller").context("the time zone")?;
    let mut input = std::io::stdin().lock();
    // At once: a program that the user named must not be started with it.
    let mut session = Session { stager: Some(File::from(inherited(STREAM)?)), ..Session::default() };
    while let Some(request) = wire::receive::<FetcherRequest>(&mut input)? {
        let reply = session.answer(request).map_err(Failure::of);
        wire::send(&mut std::io::stdout().lock(), &reply)?;
    }
    Ok(())
}

#[derive(Default)]
struct Session {
    opened: Option<Opened>,
    fetched: Option<Fetched>,
    /// Where trees go.
    stager: Option<File>,
    /// Part of it was offered to the stager.
    offered: Option<Outgoing>,
}

impl Session {
    fn answer(&mut self, request: FetcherRequest) -> Result<FetcherReply> {
        match request {
            FetcherRequest::Open { repository } => {
                self.open(repository)?;
                Ok(FetcherReply::Opened)
            }
            FetcherRequest::Fetch(request) => {
                let (opened, fetched) = fetch::fetch(&request, progress())?;
                self.opened = Some(opened);
                let commit = fetched.commit.clone();
                self.fetched = Some(fetched);
                Ok(FetcherReply::Fetched { commit })
            }
            FetcherRequest::Resolve { beginning } => {
                Ok(FetcherReply::Resolved { commit: fetch::resolve(&self.opened()?.repo, &beginning)? })
            }
            FetcherRequest::Verify(request) => {
                let (repo, fetched) = (&self.opened()?.repo, self.fetched()?);
                verify::verify(repo, fetched, &request).map(FetcherReply::Verified).map_err(|e| {
                    let failure = Failure::of(fetch::damaged(e));
                    match failure.class {
                        Class::Protocol => fetched.discard(repo).err().unwrap_or(failure.into()),
                        _ => failure.into(),
                    }
                })
            }
            FetcherRequest::Programs(request) => {
                let commit = &self.fetched()?.commit;
                Ok(FetcherReply::Programs(programs::look(&self.opened()?.repo, commit, &request)?))
            }
            FetcherRequest::Stream(request) => {
                let outgoing = Outgoing::new(&self.opened()?.repo, &request)?;
                self.write_to_stager(FetcherReply::Streamed, |repo, to| outgoing.stream(repo, to))
            }
            FetcherRequest::Offer(request) => {
                let base = request.base.as_ref().context("an offer without a release")?;
                let mut outgoing = Outgoing::new(&self.opened()?.repo, &request)?;
                let reply = self.write_to_stager(FetcherReply::Offered, |repo, to| outgoing.offer(repo, base, to))?;
                self.offered = Some(outgoing);
                Ok(reply)
            }
            FetcherRequest::Rest { lacking } => {
                let mut outgoing = self.offered.take().context("nothing was offered")?;
                outgoing.keep_back(&lacking);
                self.write_to_stager(FetcherReply::Streamed, |repo, to| outgoing.stream(repo, to))
            }
            FetcherRequest::Record { app, entry } => {
                let repo = &self.opened()?.repo;
                let _lock = Lock::take(repo.path(), Step::Record)?;
                fetch::clean_refs(repo.path())?;
                let head = journal::append(repo, &app, &entry)?;
                // Where that cannot be told, tending says why.
                Ok(FetcherReply::Recorded { head, untidy: tend::is_needed(repo.path()).unwrap_or(true) })
            }
            FetcherRequest::Tend { app, repository, history, due } => {
                // What is open is in use, and stays.
                self.opened = None;
                fetch::open_without_server(&repository)?;
                Ok(FetcherReply::Tended(tend::tend(&repository, &app, history, due)?))
            }
        }
    }

    /// Writes to the stager, and says `reply` when all of it is in the pipe.
    fn write_to_stager(
        &mut self,
        reply: FetcherReply,
        write: impl FnOnce(&Repository, &mut BufWriter<File>) -> Result<()>,
    ) -> Result<FetcherReply> {
        let stager = self.stager.take().context("a stream that was given up")?;
        let mut to = BufWriter::with_capacity(256 << 10, stager);
        let done = write(&self.opened()?.repo, &mut to).and_then(|()| Ok(to.flush()?));
        let (stager, _) = to.into_parts();
        self.stager = Some(stager);
        match done {
            Ok(()) => Ok(reply),
            Err(e) if is_broken_pipe(&e) => Ok(FetcherReply::StagerGone),
            Err(e) => Err(e),
        }
    }

    fn open(&mut self, repository: PathBuf) -> Result<()> {
        self.opened = Some(fetch::open_without_server(&repository)?);
        Ok(())
    }

    fn fetched(&self) -> Result<&Fetched> {
        self.fetched.as_ref().context("nothing was fetched")
    }

    fn opened(&self) -> Result<&Opened> {
        self.opened.as_ref().context("no repository was opened")
    }
}

/// Tells the supervisor how far the transfer is, a few times a second.
fn progress() -> impl FnMut(usize, usize, usize) {
    let mut last = Instant::now();
    move |received, total, bytes| {
        if last.elapsed() >= Duration::from_millis(200) {
            last = Instant::now();
            let reply: Result<FetcherReply, Failure> = Ok(FetcherReply::Progress { received, total, bytes });
            // A supervisor that is gone takes this process with it.
            let _ = wire::send(&mut std::io::stdout().lock(), &reply);
        }
    }
}

fn is_broken_pipe(e: &anyhow::Error) -> bool {
    e.chain().filter_map(|e| e.downcast_ref::<std::io::Error>()).any(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}
