//! The prober: asks for the tips of all apps and reads their journals, as the fetch user. For
//! `poller init` it asks a server for its host key instead.
//!
//! Apps that share host, port, user and identity share a connection; those that share a repository
//! too share the question. Answers go out as they come, so that a slow server holds up nobody else.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::AsyncReadExt;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;

use super::messages::{Access, Origin, Probe, ProbeApp, Probed, ProberRequest, Tip};
use super::{rights, wire};
use crate::config::{Follow, Remote};
use crate::journal;
use crate::outcome::{Class, Failure};
use crate::remote::channels::{AT_ONCE, Channels};
use crate::remote::ls_refs::{self, Wanted};
use crate::remote::session::{Session, Stage, timed_out};
use crate::remote::{A_MOMENT, Complaint, Conversation, Protocol, Service, host_key, local, openssh, runtime};
use crate::stages::probe;
use crate::sys::cage::{Cage, Outside, Reading};
use crate::sys::limits::Limits;

/// An app to ask for.
struct App {
    name: String,
    origin: Origin,
    follow: Follow,
    repository: PathBuf,
}

/// What is heard of an app, by its index; the outer error ends the prober.
type Heard = Result<(usize, Result<Tip, Failure>)>;

/// Answers go out as they come.
#[derive(Clone)]
struct Answers(mpsc::UnboundedSender<Heard>);

impl Answers {
    fn tell(&self, index: usize, tip: Result<Tip, Failure>) {
        // The other end listens until the last answer.
        let _ = self.0.send(Ok((index, tip)));
    }

    fn tell_all(&self, group: &[usize], failure: &Failure) {
        group.iter().for_each(|&index| self.tell(index, Err(failure.clone())));
    }
}

pub fn run() -> Result<()> {
    // Other runs hold all locks, and there is nothing to ask.
    let Some(request) = wire::receive::<ProberRequest>(&mut std::io::stdin().lock())? else { return Ok(()) };
    let request = Request::of(request)?;
    if !request.starts_programs() {
        Limits::SMALL.impose()?;
        Cage { read: Reading::Anywhere, write: &[], remove: None, outside: Outside::Open }.enter()?;
    }
    let runtime = runtime()?;
    let mut out = std::io::stdout().lock();
    let result = match request {
        Request::Tips(apps, connections) => runtime.block_on(probe(apps.into(), connections, &mut out)),
        Request::HostKey { host, port, timeout } => {
            wire::send(&mut out, &runtime.block_on(host_key::ask(&host, port, timeout)))
        }
        Request::Rights(origins, connections) => runtime.block_on(rights::ask(&origins, connections, &mut out)),
    };
    // A name server that never answers keeps a thread busy; this process does not wait for it.
    runtime.shutdown_background();
    result
}

/// What is asked, unpacked.
enum Request {
    Tips(Vec<App>, usize),
    Rights(Vec<Origin>, usize),
    HostKey { host: String, port: u16, timeout: Duration },
}

impl Request {
    fn of(request: ProberRequest) -> Result<Request> {
        Ok(match request {
            ProberRequest::Tips(Probe { origins, apps, connections }) => {
                let origins = origins.unpack()?;
                ensure!(origins.len() == apps.len(), "{} origins of {} apps", origins.len(), apps.len());
                let apps = apps.into_iter().zip(origins).map(|(ProbeApp { name, follow, repository }, origin)| App {
                    name,
                    origin,
                    follow,
                    repository,
                });
                Request::Tips(apps.collect(), connections)
            }
            ProberRequest::Rights(origins, connections) => Request::Rights(origins.unpack()?, connections),
            ProberRequest::HostKey { host, port, timeout } => Request::HostKey { host, port, timeout },
        })
    }

    /// Programs of the user's own are not poller's to confine, so this process is not before they are started.
    fn starts_programs(&self) -> bool {
        match self {
            Request::Tips(apps, _) => apps.iter().any(|app| is_program(&app.origin)),
            Request::Rights(origins, _) => origins.iter().any(is_program),
            Request::HostKey { .. } => false,
        }
    }
}

fn is_program(origin: &Origin) -> bool {
    matches!(origin.access, Access::Program(_))
}

/// Leaves the connections that there are, and the repositories to read.
fn close_cage(apps: &[App]) -> Result<()> {
    let repositories: BTreeSet<&Path> = apps.iter().map(|app| app.repository.as_path()).collect();
    let repositories: Vec<&Path> = repositories.into_iter().collect();
    let with_programs = apps.iter().any(|app| is_program(&app.origin));
    let outside = if with_programs { Outside::SettledWithPrograms } else { Outside::Settled };
    Limits::SMALL.impose()?;
    Cage { read: Reading::Beneath(&repositories), write: &[], remove: None, outside }.enter()
}

/// Held by a group of apps until it is connected, or has failed to be.
struct Connecting(#[allow(dead_code, reason = "held for its end")] watch::Receiver<()>);

async fn probe(apps: Arc<[App]>, connections: usize, out: &mut impl Write) -> Result<()> {
    let connections = Arc::new(Semaphore::new(connections.max(1)));
    let mut tasks = JoinSet::new();
    let (answers, mut heard) = mpsc::unbounded_channel();
    let answers = Answers(answers);
    let (all_connected, connecting) = watch::channel(());
    for group in groups(&apps) {
        let (apps, connections) = (Arc::clone(&apps), Arc::clone(&connections));
        let (connecting, answers) = (Connecting(connecting.clone()), answers.clone());
        tasks.spawn(async move {
            // It is closed by nobody.
            let _permit = connections.acquire().await;
            ask_group(&apps, group, connecting, &answers).await;
        });
    }
    drop(connecting);
    let caged = Arc::clone(&apps);
    tasks.spawn(async move {
        all_connected.closed().await;
        if let Err(e) = close_cage(&caged) {
            let _ = answers.0.send(Err(e));
        }
    });
    // The connections are begun before the journals are read, and go on in between: disk and network work
    // side by side.
    let mut journals = Vec::with_capacity(apps.len());
    for app in apps.iter() {
        tokio::task::yield_now().await;
        journals.push(Some(journal::read(&app.repository, &app.name).map_err(Failure::of)));
    }
    while let Some(answer) = heard.recv().await {
        let (index, tip) = answer?;
        let journal = journals[index].take().context("an app answered twice")?;
        wire::send(out, &Probed { app: apps[index].name.clone(), journal, tip })?;
    }
    while let Some(done) = tasks.join_next().await {
        done.context("a probe that broke")?;
    }
    Ok(())
}

/// What apps must have in common to share a connection: access, user, host and port; or else all.
type Connection<'a> = (&'a Access, Option<(&'a str, &'a str, u16)>, Option<&'a Remote>);

/// Indices of apps that are asked over one connection.
fn groups(apps: &[App]) -> Vec<Vec<usize>> {
    let mut groups: HashMap<Connection, Vec<usize>> = HashMap::new();
    for (index, app) in apps.iter().enumerate() {
        let key = match (&app.origin.remote, &app.origin.access) {
            (Remote::Ssh { user, host, port, .. }, access @ Access::Key { .. }) => {
                (access, Some((user.as_str(), host.as_str(), *port)), None)
            }
            (remote, access) => (access, None, Some(remote)),
        };
        groups.entry(key).or_default().push(index);
    }
    groups.into_values().collect()
}

async fn ask_group(apps: &[App], group: Vec<usize>, connecting: Connecting, answers: &Answers) {
    let Some(origin) = group.first().map(|&index| &apps[index].origin) else { return };
    let timeout = group.iter().map(|&i| apps[i].origin.timeout).max().unwrap_or(origin.timeout);
    match (&origin.access, &origin.remote) {
        (Access::Local, Remote::Local(path)) => {
            let path = path.clone();
            let refs = tokio::task::spawn_blocking(move || local::refs(&path)).await;
            drop(connecting);
            let refs = refs.unwrap_or_else(|e| Err(Failure::new(Class::Bug, e.to_string())));
            for &index in &group {
                let app = &apps[index];
                let tip = refs.as_ref().map_err(Failure::clone);
                answers.tell(index, tip.and_then(|r| probe::tip(&app.origin.url, &app.follow, r, r.is_empty())));
            }
        }
        (Access::Program(argv), remote) => {
            let stage = Stage::default();
            stage.enter("waiting for ssh_command");
            let opened = openssh::upload_pack(argv, remote, Protocol::V2);
            drop(connecting);
            drop(ask(apps, &group, async { opened }, &stage, timeout, answers).await);
        }
        _ => {
            let stage = Stage::default();
            // The last one to be connected lets the cage be closed before anything that its server says is read. A
            // server takes longer than that to get ready to speak.
            let open = Session::open(origin, &stage, async || {
                drop(connecting);
                tokio::task::yield_now().await;
            });
            let session = match tokio::time::timeout(timeout, open).await {
                Ok(Ok(session)) => session,
                Ok(Err(failure)) => return answers.tell_all(&group, &failure),
                Err(_) => return answers.tell_all(&group, &timed_out(&origin.url, &stage, timeout)),
            };
            ask_session(apps, &group, &session, timeout, answers).await;
        }
    }
}

/// One channel a repository, a few at once.
async fn ask_session(apps: &[App], group: &[usize], session: &Session, timeout: Duration, answers: &Answers) {
    let mut by_path: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for &index in group {
        if let Remote::Ssh { path, .. } = &apps[index].origin.remote {
            by_path.entry(path).or_default().push(index);
        }
    }
    let channels = Channels::new(session);
    let asked = by_path.iter().map(async |(path, indices)| {
        let stage = Stage::default();
        let (permit, channel) = match channels.open(&stage, timeout).await {
            Ok(Some(open)) => open,
            Ok(None) => {
                let url = &apps[indices[0]].origin.url;
                return answers.tell_all(indices, &timed_out(url, &stage, timeout));
            }
            Err(failure) => return answers.tell_all(indices, &failure),
        };
        let open = session.start_on(channel, Service::UploadPack, path, Protocol::V2, &stage);
        if let Some((conversation, complaint)) = ask(apps, indices, open, &stage, timeout, answers).await
            && by_path.len() > AT_ONCE
        {
            // sshd counts a channel until its program is gone.
            complaint.settled().await;
            drop(conversation);
        }
        drop(permit);
    });
    futures_util::future::join_all(asked).await;
}

/// Opens one conversation and asks for what these apps of one repository follow. What is left of it is returned
/// when it went well.
async fn ask(
    apps: &[App],
    indices: &[usize],
    open: impl Future<Output = Result<(Box<dyn Conversation>, Complaint), Failure>>,
    stage: &Stage,
    timeout: Duration,
    answers: &Answers,
) -> Option<(Box<dyn Conversation>, Complaint)> {
    let url = apps[*indices.first()?].origin.url.as_str();
    let wanted: Vec<Wanted> = indices.iter().map(|&i| probe::wanted(&apps[i].follow)).collect();
    let exchange = async {
        let (mut conversation, complaint) = open.await?;
        let answer = ls_refs::ask(&mut conversation, &wanted).await;
        Ok((answer, conversation, complaint))
    };
    let failure = match tokio::time::timeout(timeout, exchange).await {
        Ok(Ok((Ok(answer), conversation, complaint))) => {
            for &index in indices {
                answers.tell(index, probe::tip_of_answer(url, &apps[index].follow, &answer));
            }
            return Some((conversation, complaint));
        }
        // The time that last words take must not hide what they are about.
        Ok(Ok((Err(error), conversation, complaint))) => told(url, error, conversation, &complaint).await,
        Ok(Err(failure)) => failure,
        Err(_) => timed_out(url, stage, timeout),
    };
    answers.tell_all(indices, &failure);
    None
}

/// Waits for the end of a conversation that failed, then of the complaint; neither for long, for a shell
/// may stay open.
async fn told(
    url: &str,
    error: ls_refs::ProbeError,
    mut conversation: Box<dyn Conversation>,
    complaint: &Complaint,
) -> Failure {
    let mut rest = Vec::new();
    let mut end = (&mut conversation).take(4096);
    let _ = tokio::time::timeout(A_MOMENT, end.read_to_end(&mut rest)).await;
    complaint.settled().await;
    probe::failure(url, error, complaint.text())
}
