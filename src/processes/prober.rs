//! The prober: asks for the tips of all apps and reads their journals, as the fetch user. For
//! `poller init` it asks a server for its host key instead.
//!
//! Apps that share host, port, user and identity share a connection; those that share a repository
//! too share the question. Answers go out as they come, so that a slow server holds up nobody else.

use std::collections::{BTreeSet, HashMap};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::AsyncReadExt;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::messages::{Access, Origin, Probe, ProbeApp, Probed, ProberRequest, Tip};
use super::{rights, wire};
use crate::config::{Follow, Remote};
use crate::journal;
use crate::outcome::{Class, Failure};
use crate::remote::ls_refs::{self, Wanted};
use crate::remote::session::{Session, Stage, timed_out};
use crate::remote::{A_MOMENT, Complaint, Conversation, Protocol, host_key, local, openssh, runtime};
use crate::stages::probe;
use crate::sys::cage::{Cage, Outside, Reading};
use crate::sys::limits::Limits;

/// sshd's MaxSessions is 10.
const CHANNELS: usize = 8;

type Answers = Vec<(usize, Result<Tip, Failure>)>;

pub fn run() -> Result<()> {
    let request: ProberRequest = wire::receive(&mut std::io::stdin().lock())?.context("no request")?;
    if !starts_programs(&request) {
        Limits::SMALL.impose()?;
        Cage { read: Reading::Anywhere, write: &[], remove: None, outside: Outside::Open }.enter()?;
    }
    let runtime = runtime()?;
    let mut out = std::io::stdout().lock();
    let result = match request {
        ProberRequest::Tips(request) => runtime.block_on(probe(Arc::new(request), &mut out)),
        ProberRequest::HostKey { host, port, timeout } => {
            wire::send(&mut out, &runtime.block_on(host_key::ask(&host, port, timeout)))
        }
        ProberRequest::Rights(origins, connections) => runtime.block_on(rights::ask(&origins, connections, &mut out)),
    };
    // A name server that never answers keeps a thread busy; this process does not wait for it.
    runtime.shutdown_background();
    result
}

/// Programs of the user's own are not poller's to confine, so this process is not before they are started.
fn starts_programs(request: &ProberRequest) -> bool {
    let is_program = |origin: &Origin| matches!(origin.access, Access::Program(_));
    match request {
        ProberRequest::Tips(probe) => probe.apps.iter().any(|app| is_program(&app.origin)),
        ProberRequest::Rights(origins, _) => origins.iter().any(is_program),
        ProberRequest::HostKey { .. } => false,
    }
}

/// Leaves the connections that there are, and the repositories to read.
fn close_cage(request: &Probe) -> Result<()> {
    let repositories: BTreeSet<&Path> = request.apps.iter().map(|app| app.repository.as_path()).collect();
    let repositories: Vec<&Path> = repositories.into_iter().collect();
    let with_programs = request.apps.iter().any(|app| matches!(app.origin.access, Access::Program(_)));
    let outside = if with_programs { Outside::SettledWithPrograms } else { Outside::Settled };
    Limits::SMALL.impose()?;
    Cage { read: Reading::Beneath(&repositories), write: &[], remove: None, outside }.enter()
}

/// Held by a group of apps until it is connected, or has failed to be.
struct Connecting(#[allow(dead_code, reason = "held for its end")] watch::Receiver<()>);

async fn probe(request: Arc<Probe>, out: &mut impl Write) -> Result<()> {
    let connections = Arc::new(Semaphore::new(request.connections.max(1)));
    let mut tasks: JoinSet<Result<Answers>> = JoinSet::new();
    let (all_connected, connecting) = watch::channel(());
    for group in groups(&request.apps) {
        let (request, connections) = (Arc::clone(&request), Arc::clone(&connections));
        let connecting = Connecting(connecting.clone());
        tasks.spawn(async move {
            let _permit = connections.acquire().await?;
            Ok(ask_group(&request.apps, group, connecting).await)
        });
    }
    drop(connecting);
    let caged = Arc::clone(&request);
    tasks.spawn(async move {
        all_connected.closed().await;
        close_cage(&caged).map(|()| Vec::new())
    });
    // The connections are begun before the journals are read, and go on in between: disk and network work
    // side by side.
    let mut journals = Vec::with_capacity(request.apps.len());
    for app in &request.apps {
        tokio::task::yield_now().await;
        journals.push(Some(journal::read(&app.repository, &app.name).map_err(Failure::of)));
    }
    while let Some(answers) = tasks.join_next().await {
        for (index, tip) in answers.context("a probe that broke")?? {
            let journal = journals[index].take().context("an app answered twice")?;
            wire::send(out, &Probed { app: request.apps[index].name.clone(), journal, tip })?;
        }
    }
    Ok(())
}

/// What apps must have in common to share a connection: access, user, host and port; or else all.
type Connection<'a> = (&'a Access, Option<(&'a str, &'a str, u16)>, Option<&'a Remote>);

/// Indices of apps that are asked over one connection.
fn groups(apps: &[ProbeApp]) -> Vec<Vec<usize>> {
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

async fn ask_group(apps: &[ProbeApp], group: Vec<usize>, connecting: Connecting) -> Answers {
    let Some(origin) = group.first().map(|&index| &apps[index].origin) else {
        return Vec::new();
    };
    let timeout = group.iter().map(|&i| apps[i].origin.timeout).max().unwrap_or(origin.timeout);
    let all = |failure: Failure| group.iter().map(|&i| (i, Err(failure.clone()))).collect();
    match (&origin.access, &origin.remote) {
        (Access::Local, Remote::Local(path)) => {
            let path = path.clone();
            let refs = tokio::task::spawn_blocking(move || local::refs(&path)).await;
            drop(connecting);
            let refs = refs.unwrap_or_else(|e| Err(Failure::new(Class::Bug, e.to_string())));
            let tip = |i: &usize, refs: &[_]| probe::tip(&apps[*i].origin.url, &apps[*i].follow, refs, refs.is_empty());
            match refs {
                Ok(refs) => group.iter().map(|i| (*i, tip(i, &refs))).collect(),
                Err(failure) => all(failure),
            }
        }
        (Access::Program(argv), remote) => {
            let stage = Stage::default();
            stage.enter("waiting for ssh_command");
            let opened = openssh::upload_pack(argv, remote, Protocol::V2);
            drop(connecting);
            ask(apps, &group, async { opened }, &stage, timeout).await
        }
        _ => {
            let stage = Stage::default();
            let session = match tokio::time::timeout(timeout, Session::open(origin, &stage)).await {
                Ok(Ok(session)) => session,
                Ok(Err(failure)) => return all(failure),
                Err(_) => return all(timed_out(&origin.url, &stage, timeout)),
            };
            drop(connecting);
            ask_session(apps, &group, &session, timeout).await
        }
    }
}

/// One channel a repository, a few at once.
async fn ask_session(apps: &[ProbeApp], group: &[usize], session: &Session, timeout: Duration) -> Answers {
    let mut by_path: HashMap<&str, Vec<usize>> = HashMap::new();
    for &index in group {
        if let Remote::Ssh { path, .. } = &apps[index].origin.remote {
            by_path.entry(path).or_default().push(index);
        }
    }
    let channels = Semaphore::new(CHANNELS);
    let asked = by_path.iter().map(async |(path, indices)| {
        let Ok(_permit) = channels.acquire().await else {
            return Vec::new();
        };
        let stage = Stage::default();
        ask(apps, indices, session.upload_pack(path, Protocol::V2, &stage), &stage, timeout).await
    });
    futures_util::future::join_all(asked).await.into_iter().flatten().collect()
}

/// Opens one conversation and asks for what these apps of one repository follow.
async fn ask(
    apps: &[ProbeApp],
    indices: &[usize],
    open: impl Future<Output = Result<(Box<dyn Conversation>, Complaint), Failure>>,
    stage: &Stage,
    timeout: Duration,
) -> Answers {
    let Some(url) = indices.first().map(|&i| apps[i].origin.url.as_str()) else {
        return Vec::new();
    };
    let wanted: Vec<Wanted> = indices.iter().map(|&i| probe::wanted(&apps[i].follow)).collect();
    let exchange = async {
        let (mut conversation, complaint) = open.await?;
        let answer = ls_refs::ask(&mut conversation, &wanted).await;
        Ok((answer, conversation, complaint))
    };
    let answer = match tokio::time::timeout(timeout, exchange).await {
        Ok(Ok((Ok(answer), ..))) => Ok(answer),
        // The time that last words take must not hide what they are about.
        Ok(Ok((Err(error), conversation, complaint))) => Err(told(url, error, conversation, &complaint).await),
        Ok(Err(failure)) => Err(failure),
        Err(_) => Err(timed_out(url, stage, timeout)),
    };
    let tip = |follow: &Follow| match &answer {
        Ok(answer) => probe::tip_of_answer(url, follow, answer),
        Err(failure) => Err(failure.clone()),
    };
    indices.iter().map(|&i| (i, tip(&apps[i].follow))).collect()
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
