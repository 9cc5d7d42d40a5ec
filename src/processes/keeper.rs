//! The keeper: runs one command and answers for everything that comes of it.
//!
//! It is a subreaper, so whatever the command forks stays below it, new sessions included. When the
//! time is up, when poller is told to stop, and when poller itself is killed (this process's input
//! ends then), the whole tree goes: TERM first, KILL after a grace. A process that outlives its
//! command is ended too, and named: it would be gone with systemd's unit and live on under cron.

use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::messages::{Cause, End, Keep, Kept};
use super::wire;
use crate::sys::privdrop::{Confinement, confine, end_with_parent, inherited};
use crate::sys::proc::{Entry, Identity, descendants, signal_all};
use crate::sys::signals::until;

/// The descriptors that become the command's standard output and error.
pub const OUTPUT: [i32; 2] = [3, 4];

/// Between TERM and KILL.
const GRACE: Duration = Duration::from_secs(5);
/// For the last parts of a pipeline to end by themselves after their shell.
const SETTLE: Duration = Duration::from_secs(1);
/// How long KILL is repeated; what is left then cannot be killed.
const KILLING: Duration = Duration::from_secs(5);
/// How often /proc is read while waiting: a grandchild's end does not signal its grandparent.
const TICK: Duration = Duration::from_millis(50);

pub fn run() -> Result<()> {
    nix::sys::prctl::set_child_subreaper(true).context("becoming a subreaper")?;
    let mut set = SigSet::empty();
    // Only its input tells it to stop: a signal meant for the script must not leave the script alone.
    for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        set.add(signal);
    }
    pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&set), None)?;
    let children = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    let input = std::io::stdin();
    let Some(job) = wire::receive::<Keep>(&mut input.lock())? else {
        return Ok(());
    };

    let deadline = Instant::now() + job.timeout;
    let leader = match start(&job) {
        Ok(pid) => pid,
        Err(errno) => {
            return wire::send(&mut std::io::stdout().lock(), &Kept::NotStarted { errno });
        }
    };
    let mut keeper = Keeper { leader, children, status: None };
    // A supervisor that is gone is seen as the end of the input, below.
    let _ = wire::send(&mut std::io::stdout().lock(), &Kept::Started(Identity::of(leader.as_raw())));
    let cause = keeper.wait(deadline, input.as_fd())?;
    let (left, alive) = keeper.end_tree(cause)?;
    let (exit, signal) = match keeper.status {
        Some(WaitStatus::Exited(_, code)) => (Some(code), None),
        Some(WaitStatus::Signaled(_, signal, _)) => (None, Some(signal as i32)),
        _ => (None, None),
    };
    let end = Kept::Ended(End { cause, exit, signal, left, alive });
    let _ = wire::send(&mut std::io::stdout().lock(), &end);
    Ok(())
}

fn start(job: &Keep) -> Result<Pid, i32> {
    let io = |e: std::io::Error| e.raw_os_error().unwrap_or(0);
    let [program, arguments @ ..] = job.argv.as_slice() else {
        return Err(Errno::EINVAL as i32);
    };
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(job.environment.iter().map(|(k, v)| (k, v)));
    let output = |fd| inherited(fd).map(File::from).map_err(|_| Errno::EBADF as i32);
    command.stdin(input(&job.input).map_err(|e| e as i32)?).stdout(output(OUTPUT[0])?).stderr(output(OUTPUT[1])?);
    let confinement = Confinement {
        account: job.account.as_ref(),
        directory: &job.directory,
        umask: job.umask,
        new_privileges: job.new_privileges,
        keep_below: 3,
    };
    confine(&mut command, &confinement).map_err(|_| Errno::EINVAL as i32)?;
    // Were this process killed, nobody would hold the script to its time: it goes too.
    end_with_parent(&mut command);
    let child = command.spawn().map_err(io)?;
    // Its end is awaited by number, with everybody else's.
    Ok(Pid::from_raw(child.id() as i32))
}

/// What the command reads: a file in memory, for a pipe that nobody reads would block.
fn input(bytes: &[u8]) -> Result<Stdio, Errno> {
    if bytes.is_empty() {
        return Ok(Stdio::null());
    }
    let mut file = File::from(memfd_create(c"input", MFdFlags::MFD_CLOEXEC)?);
    let written = file.write_all(bytes).and_then(|()| file.rewind());
    written.map_err(|e| e.raw_os_error().map_or(Errno::EIO, Errno::from_raw))?;
    Ok(Stdio::from(file))
}

struct Keeper {
    leader: Pid,
    children: SignalFd,
    status: Option<WaitStatus>,
}

impl Keeper {
    /// Until the command ends, its time is up, or the supervisor wants it to stop.
    fn wait(&mut self, deadline: Instant, input: std::os::fd::BorrowedFd) -> Result<Cause> {
        loop {
            self.reap()?;
            if self.status.is_some() {
                return Ok(Cause::Exited);
            }
            if Instant::now() >= deadline {
                return Ok(Cause::Deadline);
            }
            let mut fds =
                [PollFd::new(self.children.as_fd(), PollFlags::POLLIN), PollFd::new(input, PollFlags::POLLIN)];
            match poll(&mut fds, until(deadline)) {
                Err(Errno::EINTR) | Ok(0) => continue,
                Err(e) => return Err(e.into()),
                // Nothing more is ever said to a keeper: any news on its input is the end.
                Ok(_) if fds[1].any() == Some(true) => return Ok(Cause::Stopped),
                Ok(_) => while let Ok(Some(_)) = self.children.read_signal() {},
            }
        }
    }

    /// Collects every child that has ended; orphans of the tree become children here.
    fn reap(&mut self) -> Result<()> {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(()),
                Ok(status) if status.pid() == Some(self.leader) => self.status = Some(status),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Ends what is left. Returns what had outlived its command, and what could not be ended.
    fn end_tree(&mut self, cause: Cause) -> Result<(Vec<String>, Vec<String>)> {
        let mut left = Vec::new();
        if cause == Cause::Exited {
            left = self.wait_for_none(SETTLE)?;
        }
        let family = self.family();
        signal_all(&family, Signal::SIGTERM);
        // A stopped process gets its TERM only when it goes on.
        signal_all(&family, Signal::SIGCONT);
        self.wait_for_none(GRACE)?;
        let end = Instant::now() + KILLING;
        loop {
            let family = self.family();
            if family.is_empty() || Instant::now() >= end {
                self.reap()?;
                let labels = |all: Vec<Entry>| all.iter().map(Entry::label).collect();
                return Ok((labels(left), labels(family)));
            }
            // Again and again: between the look and the signal one may have forked.
            signal_all(&family, Signal::SIGKILL);
            self.tick()?;
        }
    }

    /// Waits until nobody is left, and returns who is at the end of the time.
    fn wait_for_none(&mut self, time: Duration) -> Result<Vec<Entry>> {
        let end = Instant::now() + time;
        loop {
            self.reap()?;
            let family = self.family();
            if family.is_empty() || Instant::now() >= end {
                return Ok(family);
            }
            self.tick()?;
        }
    }

    fn family(&self) -> Vec<Entry> {
        descendants(std::process::id() as i32)
    }

    fn tick(&mut self) -> Result<()> {
        let mut fds = [PollFd::new(self.children.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, until(Instant::now() + TICK)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
        while let Ok(Some(_)) = self.children.read_signal() {}
        self.reap()
    }
}
