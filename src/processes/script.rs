//! Running one command under a keeper, from the supervisor's side: its output is read, kept within
//! bounds and logged as it comes; its end is what the keeper says.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, poll};
use nix::unistd::pipe2;

use super::Role;
use super::helper::{Helper, Patience, Start};
use super::messages::{End, Keep, Kept};
use super::output::{Line, Output, Stream};
use crate::outcome::{Class, Failure};
use crate::report::duration;
use crate::sys::proc::Identity;
use crate::sys::signals::{Stop, until};

/// What a keeper may take beyond its script's time to end the tree: its graces, and some.
const SLACK: Duration = Duration::from_secs(30);

/// What the caller wants to know while a command runs.
pub trait Observer {
    /// Before the command may start: the keeper's identity, then the command's own, for whoever comes
    /// after this process was killed.
    fn runs(&mut self, keeper: Option<Identity>, script: Option<Identity>) -> Result<()>;
    /// A line of the first part of the output, as it comes.
    fn line(&mut self, line: &Line);
}

/// Runs `job` and waits for its end. `stop` ends it early, tree and all.
pub fn run(job: &Keep, stop: Option<&Stop>, output: &mut Output, observer: &mut impl Observer) -> Result<Kept> {
    let (stdout, stdout_to) = pipe2(OFlag::O_CLOEXEC).context("a pipe")?;
    let (stderr, stderr_to) = pipe2(OFlag::O_CLOEXEC).context("a pipe")?;
    let start =
        Start { role: Role::Keeper, account: None, umask: 0o022, descriptors: vec![stdout_to, stderr_to], input: None };
    let mut keeper = Helper::start(start)?;
    let identity = Identity::of(keeper.pid());
    observer.runs(identity.clone(), None)?;
    keeper.send(job)?;

    let mut pipes = [Some(File::from(stdout)), Some(File::from(stderr))];
    for pipe in pipes.iter().flatten() {
        fcntl(pipe.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    }
    // The keeper has limits of its own; one that does not keep them, because somebody stopped it, has none.
    let mut limit = Instant::now() + job.timeout + SLACK;
    let mut stopping = false;
    let ended = loop {
        let news = wait(&keeper, &pipes, stop.filter(|_| !stopping), limit)?;
        for (pipe, stream) in pipes.iter_mut().zip([Stream::Stdout, Stream::Stderr]) {
            drain(pipe, stream, output, observer)?;
        }
        if news.stop {
            // The keeper takes the end of its input for the order to end the tree.
            stopping = true;
            limit = limit.min(Instant::now() + SLACK);
            keeper.hang_up();
        }
        if news.keeper {
            let patience = Patience { time: Duration::from_secs(10), stop: None, class: Class::Deploy };
            match keeper.receive(patience)? {
                Kept::Started(script) => observer.runs(identity.clone(), script)?,
                ended => break ended,
            }
        }
        if Instant::now() >= limit {
            return Err(Failure::new(Class::Deploy, "the keeper of the script does not answer").into());
        }
    };
    // All writers are gone, or cannot be ended: what is in the pipes now is all there is.
    for (pipe, stream) in pipes.iter_mut().zip([Stream::Stdout, Stream::Stderr]) {
        drain(pipe, stream, output, observer)?;
    }
    output.finish(&mut |line| observer.line(line));
    keeper.finish();
    Ok(ended)
}

struct News {
    keeper: bool,
    stop: bool,
}

fn wait(keeper: &Helper, pipes: &[Option<File>; 2], stop: Option<&Stop>, limit: Instant) -> Result<News> {
    let mut fds = vec![PollFd::new(keeper.output().as_fd(), PollFlags::POLLIN)];
    if let Some(stop) = stop {
        fds.push(PollFd::new(stop.descriptor(), PollFlags::POLLIN));
    }
    fds.extend(pipes.iter().flatten().map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)));
    match poll(&mut fds, until(limit)) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(e) => return Err(e.into()),
    }
    let ready = |index: usize| fds.get(index).is_some_and(|fd| fd.any() == Some(true));
    Ok(News { keeper: ready(0), stop: stop.is_some() && ready(1) })
}

/// Reads what is there, for a moment at most: a script that never stops talking must not keep the
/// supervisor from hearing anything else.
fn drain(pipe: &mut Option<File>, stream: Stream, output: &mut Output, observer: &mut impl Observer) -> Result<()> {
    let end = Instant::now() + Duration::from_millis(100);
    let mut buffer = [0; 64 << 10];
    while let Some(file) = pipe {
        match file.read(&mut buffer) {
            Ok(0) => *pipe = None,
            Ok(n) => output.take(stream, &buffer[..n], &mut |line| observer.line(line)),
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => break,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e).context("reading the script's output"),
        }
        if Instant::now() >= end {
            break;
        }
    }
    Ok(())
}

/// How a command ended, in words: None when it went well.
pub fn verdict(what: &str, job: &Keep, kept: &Kept) -> Option<String> {
    let limit = duration(job.timeout);
    let End { cause, exit, signal, left, alive } = match kept {
        Kept::NotStarted { errno } => {
            return Some(format!("{what} could not be started: {}", start_error(*errno)));
        }
        Kept::Started(_) => return Some(format!("{what} never ended")),
        Kept::Ended(end) => end,
    };
    let mut text = match (cause, exit, signal) {
        (super::messages::Cause::Deadline, ..) => {
            format!("{what} ran longer than its {limit} and was ended")
        }
        (super::messages::Cause::Stopped, ..) => {
            format!("{what} was ended, because poller was told to stop")
        }
        (_, Some(0), _) if left.is_empty() && alive.is_empty() => return None,
        (_, Some(0), _) => format!("{what} ended and left processes running"),
        (_, Some(code), _) => format!("{what} exited with status {code}"),
        (_, None, Some(number)) => {
            let name = nix::sys::signal::Signal::try_from(*number).map_or("a signal", |s| s.as_str());
            format!("{what} was killed by {name} ({number})")
        }
        (_, None, None) => format!("{what} ended in a way that nobody saw"),
    };
    if !left.is_empty() {
        text.push_str(&format!(
            "; what it left running was ended: {} (start services through systemd: `restart = [\"NAME.service\"]`)",
            crate::report::printable(&left.join(", "))
        ));
    }
    if !alive.is_empty() {
        text.push_str(&format!("; these could not be ended: {}", crate::report::printable(&alive.join(", "))));
    }
    Some(text)
}

fn start_error(errno: i32) -> String {
    match Errno::from_raw(errno) {
        Errno::ENOENT => "it is not in the commit, or the program in its first line (#!) does not exist".to_owned(),
        Errno::EACCES => "it is not executable: git update-index --chmod=+x FILE, commit and push".to_owned(),
        Errno::ENOEXEC => "it has no first line that names its program, such as #!/bin/sh".to_owned(),
        Errno::EPERM => "the change to the deploy user was refused".to_owned(),
        errno => errno.desc().to_owned(),
    }
}

/// A failure of the supervision itself: the deploy's, unless it is this machine's.
pub fn broken(e: anyhow::Error) -> Failure {
    let failure = Failure::of(e);
    match failure.class {
        Class::Bug | Class::Protocol => Failure { class: Class::Deploy, help: Vec::new(), ..failure },
        _ => failure,
    }
}
