//! The helpers that work on one app, started when first needed, and what they can be asked.
//!
//! The stager's standard input has two writers that take turns: the supervisor, with requests, and
//! the fetcher, with the tree in between. When either helper breaks, both go; who died while nothing was asked of
//! it is replaced when something is.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::pipe2;

use super::Role;
use super::helper::{Helper, Patience, Start};
use super::messages::*;
use super::supervisor;
use crate::commit::Commit;
use crate::config::App;
use crate::journal::{Entry, Journal};
use crate::outcome::{Class, Failure};
use crate::stages::tend::{Due, Tended};
use crate::sys::account::Account;
use crate::sys::signals::Stop;

/// A transfer is watched by the stream itself, silence by silence; this stands over the rest of a fetch.
const FETCH: Duration = Duration::from_secs(20 * 60);
/// For a fetch that is given up to remove what it has of the pack.
const FAREWELL: Duration = Duration::from_secs(3);
const VERIFY: Duration = Duration::from_secs(10 * 60);
const STAGE: Duration = Duration::from_secs(20 * 60);
/// Another run may be updating another app's ref in the same repository, or tending it: then a good deploy waits,
/// so that it is not taken back for nothing.
const RECORD: Duration = Duration::from_secs(6 * 60);
const TEND: Duration = Duration::from_secs(5 * 60);
const SMALL: Duration = Duration::from_secs(60);
/// What the tree's pipe holds, in bytes: what Linux gives to anybody.
const PIPE: i32 = 1 << 20;

pub struct Workshop<'r> {
    app: &'r App,
    repository: PathBuf,
    fetch_account: Option<&'r Account>,
    deploy_account: Option<Account>,
    stop: &'r Stop,
    fetcher: Option<Helper>,
    stager: Option<Helper>,
    /// Between the start of the one and the start of the other.
    pipe: Option<(OwnedFd, OwnedFd)>,
}

impl<'r> Workshop<'r> {
    pub fn new(
        app: &'r App,
        repository: PathBuf,
        fetch: Option<&'r Account>,
        deploy: Option<Account>,
        stop: &'r Stop,
    ) -> Self {
        Workshop {
            app,
            repository,
            fetch_account: fetch,
            deploy_account: deploy,
            stop,
            fetcher: None,
            stager: None,
            pipe: None,
        }
    }

    pub fn fetch(
        &mut self,
        origin: &Origin,
        tip: &Tip,
        quarantine: bool,
        mut progress: impl FnMut(usize, usize, usize),
    ) -> Result<Commit> {
        let patience = Patience { time: FETCH, stop: Some(self.stop), class: Class::Unreachable };
        let request = FetcherRequest::Fetch(Box::new(Fetch {
            origin: origin.clone(),
            tip: tip.clone(),
            repository: self.repository.clone(),
            quarantine,
        }));
        // One that has opened the repository has given up the network.
        self.fetcher = None;
        let fetcher = self.fetcher()?;
        fetcher.set_grace(FAREWELL);
        let mut reply: Result<FetcherReply, Failure> = fetcher.ask(&request, patience)?;
        loop {
            match reply? {
                FetcherReply::Progress { received, total, bytes } => progress(received, total, bytes),
                FetcherReply::Fetched { commit } => {
                    fetcher.set_grace(Duration::ZERO);
                    return Ok(commit);
                }
                other => return Err(unexpected(&other)),
            }
            reply = fetcher.receive(patience)?;
        }
    }

    pub fn verify(&mut self, request: Verify) -> Result<Verified> {
        let patience = Patience { time: VERIFY, stop: Some(self.stop), class: Class::Protocol };
        match self.fetcher()?.ask::<_, Result<_, Failure>>(&FetcherRequest::Verify(request), patience)?? {
            FetcherReply::Verified(verified) => Ok(verified),
            other => Err(unexpected(&other)),
        }
    }

    /// What stands under these paths in the fetched commit.
    pub fn programs(&mut self, request: Programs) -> Result<Vec<InTree>> {
        let patience = Patience { time: VERIFY, stop: Some(self.stop), class: Class::Protocol };
        match self.fetcher()?.ask::<_, Result<_, Failure>>(&FetcherRequest::Programs(request), patience)?? {
            FetcherReply::Programs(found) => Ok(found),
            other => Err(unexpected(&other)),
        }
    }

    /// Whether the target can be written to, and how much fits.
    pub fn room(&mut self, shared: Vec<String>, programs: Vec<String>, path: &str) -> Result<Room> {
        match self.small(StagerRequest::Room { shared, programs, path: path.to_owned() })? {
            StagerReply::Room(room) => Ok(room),
            _ => anyhow::bail!("the stager answered another question"),
        }
    }

    /// Whether the target may be deployed to for the first time.
    pub fn inspect(&mut self) -> Result<()> {
        self.small(StagerRequest::Inspect { app: self.app.name.to_string() }).map(drop)
    }

    /// Whether the target's file system can clone files of a release.
    fn can_clone(&mut self, release: &str) -> Result<bool> {
        match self.small(StagerRequest::CanClone { release: release.to_owned() })? {
            StagerReply::CanClone(can) => Ok(can),
            _ => anyhow::bail!("the stager answered another question"),
        }
    }

    pub fn has_release(&mut self, name: &str) -> Result<bool> {
        match self.small(StagerRequest::Has { release: name.to_owned() })? {
            StagerReply::Has(there) => Ok(there),
            _ => anyhow::bail!("the stager answered another question"),
        }
    }

    /// The release and the commit that the target's files name.
    pub fn live(&mut self) -> Result<(Option<String>, Option<Commit>)> {
        match self.small(StagerRequest::Live)? {
            StagerReply::Live { release, commit } => Ok((release, commit)),
            _ => anyhow::bail!("the stager answered another question"),
        }
    }

    /// The one commit in the repository whose name begins so.
    pub fn resolve(&mut self, beginning: &str) -> Result<Commit> {
        let patience = Patience { time: SMALL, stop: None, class: Class::Io };
        let request = FetcherRequest::Resolve { beginning: beginning.to_owned() };
        match self.fetcher()?.ask::<_, Result<_, Failure>>(&request, patience)?? {
            FetcherReply::Resolved { commit } => Ok(commit),
            other => Err(unexpected(&other)),
        }
    }

    /// Streams a tree from the fetcher to the stager. `stop` is None for a rollback that must be finished.
    pub fn stage(&mut self, name: &str, tree: StreamTree, stop: Option<&Stop>) -> Result<StagerReply> {
        let patience = Patience { time: STAGE, stop, class: Class::Io };
        let shared = if self.app.target.layout == crate::config::Layout::Releases {
            self.app.target.shared.clone()
        } else {
            Vec::new()
        };
        self.both()?;
        let (name, commit) = (name.to_owned(), tree.commit.clone());
        let clones_from = match &tree.base {
            Some(base) if self.can_clone(&base.release)? => Some(base.release.clone()),
            _ => None,
        };
        let (onto, request) = match clones_from {
            None => (Onto::Nothing, FetcherRequest::Stream(tree)),
            Some(release) => {
                let job = StagerRequest::Clone { name: name.clone(), release };
                match self.pass(job, &FetcherRequest::Offer(tree), patience)? {
                    StagerReply::Cloned { lacking } => (Onto::Clones, FetcherRequest::Rest { lacking }),
                    _ => anyhow::bail!("the stager answered another question"),
                }
            }
        };
        self.pass(StagerRequest::Stage { name, commit, shared, onto }, &request, patience)
    }

    /// Has the fetcher write to the stager, who knows by `job` what is coming.
    fn pass(&mut self, job: StagerRequest, request: &FetcherRequest, patience: Patience) -> Result<StagerReply> {
        let job = self.job(job);
        let (Some(fetcher), Some(stager)) = (&mut self.fetcher, &mut self.stager) else {
            anyhow::bail!("the helpers are gone");
        };
        stager.send(&job)?;
        let streamed = match fetcher.ask::<_, Result<FetcherReply, Failure>>(request, patience) {
            Ok(reply) => reply.map_err(anyhow::Error::from),
            Err(e) => Err(e),
        };
        if let Err(e) = streamed {
            // Without its end the tree is nothing; the stager removes it when its input ends.
            self.fetcher = None;
            if let Some(mut stager) = self.stager.take() {
                stager.hang_up();
                let patience = Patience { time: SMALL, stop: None, class: Class::Io };
                let _ = stager.receive::<Result<StagerReply, Failure>>(patience);
            }
            return Err(e);
        }
        let reply = stager.receive::<Result<StagerReply, Failure>>(patience);
        self.settled(reply)
    }

    /// Waits until what the app's commands made is on the disk.
    pub fn sync(&mut self) -> Result<()> {
        // It may be as much as was staged.
        self.ask_stager(StagerRequest::Sync, STAGE).map(drop)
    }

    pub fn activate(&mut self, name: &str) -> Result<()> {
        self.small(StagerRequest::Activate { name: name.to_owned() }).map(drop)
    }

    pub fn restore(&mut self, release: Option<String>) -> Result<()> {
        self.small(StagerRequest::Restore { release }).map(drop)
    }

    pub fn retire(&mut self, keep: usize, protect: Vec<String>, remove: Vec<String>) -> Result<StagerReply> {
        self.small(StagerRequest::Retire { keep, protect, remove })
    }

    /// What the journal says now, by a process of its own.
    pub fn recorded(&self) -> Result<Journal> {
        let request = ReaderRequest::Journals(vec![(self.app.name.as_str().to_owned(), self.repository.clone())]);
        match supervisor::read(self.fetch_account, &request)? {
            ReaderReply::Journals(mut journals) if journals.len() == 1 => Ok(journals.remove(0)?),
            _ => anyhow::bail!("the reader answered another question"),
        }
    }

    /// The entry's name, and whether the repository wants to be tended.
    pub fn record(&mut self, entry: Entry) -> Result<(Commit, bool)> {
        let app = self.app.name.as_str().to_owned();
        // What has happened is recorded, told to stop or not.
        let patience = Patience { time: RECORD, stop: None, class: Class::Io };
        self.open_fetcher(patience)?;
        let request = FetcherRequest::Record { app, entry: Box::new(entry) };
        match self.fetcher()?.ask::<_, Result<_, Failure>>(&request, patience)?? {
            FetcherReply::Recorded { head, untidy } => Ok((head, untidy)),
            other => Err(unexpected(&other)),
        }
    }

    /// Keeps the repository from growing with age. The last thing that is asked. The outer error is that of a
    /// fetcher that was ended in the middle of it.
    pub fn tend(&mut self, history: usize, due: Due) -> Result<Result<Option<Tended>, Failure>> {
        let patience = Patience { time: TEND, stop: Some(self.stop), class: Class::Io };
        let (app, repository) = (self.app.name.as_str().to_owned(), self.repository.clone());
        let request = FetcherRequest::Tend { app, repository, history, due };
        match self.fetcher()?.ask::<_, Result<_, Failure>>(&request, patience)? {
            Ok(FetcherReply::Tended(done)) => Ok(Ok(done)),
            Ok(other) => Err(unexpected(&other)),
            Err(failure) => Ok(Err(failure)),
        }
    }

    /// Lets the helpers end by themselves, with whatever they have to tidy up.
    pub fn finish(mut self) {
        // The pipe first: a stager reads it until nobody holds its other end.
        self.pipe = None;
        for helper in [self.fetcher.take(), self.stager.take()].into_iter().flatten() {
            helper.finish();
        }
    }

    fn job(&self, request: StagerRequest) -> StagerJob {
        StagerJob { directory: self.app.target.directory.clone(), layout: self.app.target.layout, request }
    }

    fn small(&mut self, request: StagerRequest) -> Result<StagerReply> {
        // In place each changed file is renamed, and an old release is removed file by file.
        let is_long = matches!(request, StagerRequest::Activate { .. } | StagerRequest::Retire { .. });
        self.ask_stager(request, if is_long { STAGE } else { SMALL })
    }

    fn ask_stager(&mut self, request: StagerRequest, time: Duration) -> Result<StagerReply> {
        let patience = Patience { time, stop: None, class: Class::Io };
        let job = self.job(request);
        self.bury();
        if self.stager.is_none() {
            self.start_stager()?;
        }
        let reply = self.stager.as_mut().context("no stager")?.ask::<_, Result<StagerReply, Failure>>(&job, patience);
        self.settled(reply)
    }

    /// A stager that failed has ended: its input may be in the middle of a tree.
    fn settled(&mut self, reply: Result<Result<StagerReply, Failure>>) -> Result<StagerReply> {
        match reply {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(failure)) => {
                self.forget();
                Err(failure.into())
            }
            Err(e) => {
                self.forget();
                Err(e)
            }
        }
    }

    fn forget(&mut self) {
        self.stager = None;
        self.fetcher = None;
        self.pipe = None;
    }

    /// Forgets helpers that have died.
    fn bury(&mut self) {
        for helper in [&mut self.fetcher, &mut self.stager] {
            if helper.as_mut().is_some_and(|helper| !helper.is_alive()) {
                *helper = None;
            }
        }
    }

    /// A fetcher that has the repository open.
    fn open_fetcher(&mut self, patience: Patience) -> Result<()> {
        self.bury();
        if self.fetcher.is_none() {
            let open = FetcherRequest::Open { repository: self.repository.clone() };
            self.fetcher()?.ask::<_, Result<FetcherReply, Failure>>(&open, patience)??;
        }
        Ok(())
    }

    fn fetcher(&mut self) -> Result<&mut Helper> {
        if self.fetcher.is_none() {
            // A stager without its fetcher holds the end of a pipe that nobody can write to any more.
            self.stager = None;
            let (read, write) = pipe2(OFlag::O_CLOEXEC).context("a pipe")?;
            // So that one may inflate while the other waits for the disk. It works with less, too, for a user who
            // has many pipes.
            let _ = fcntl(&write, FcntlArg::F_SETPIPE_SZ(PIPE));
            let for_fetcher = write.try_clone().context("a pipe")?;
            self.pipe = Some((read, write));
            let start = Start {
                role: Role::Fetcher,
                account: self.fetch_account,
                umask: 0o027,
                descriptors: vec![for_fetcher],
                input: None,
            };
            self.fetcher = Some(Helper::start(start)?);
        }
        self.fetcher.as_mut().context("no fetcher")
    }

    fn start_stager(&mut self) -> Result<()> {
        let input = self.pipe.take();
        // The one that is there writes to a stager that is gone.
        if input.is_none() {
            self.fetcher = None;
        }
        let start = Start {
            role: Role::Stager,
            account: self.deploy_account.as_ref(),
            umask: self.app.deploy.umask,
            descriptors: Vec::new(),
            input,
        };
        self.stager = Some(Helper::start(start)?);
        Ok(())
    }

    /// Both, with the pipe between them.
    fn both(&mut self) -> Result<()> {
        self.bury();
        if self.stager.is_none() && self.pipe.is_none() {
            self.fetcher = None;
        }
        // A stager that was started alone has no fetcher at the other end.
        self.open_fetcher(Patience { time: SMALL, stop: None, class: Class::Io })?;
        if self.stager.is_none() {
            self.start_stager()?;
        }
        Ok(())
    }
}

fn unexpected(reply: &FetcherReply) -> anyhow::Error {
    Failure::new(Class::Bug, format!("the fetcher answered another question: {reply:?}")).into()
}
