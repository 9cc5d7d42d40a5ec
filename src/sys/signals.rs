//! Being told to stop: by SIGTERM, SIGINT or SIGHUP, or because the whole run's deadline has come.
//!
//! Whoever waits for something polls [`Stop::descriptor`] too; it becomes readable once and stays so,
//! for every waiter.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::pipe2;

/// Why poller has to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    Signal(&'static str),
    Deadline(Duration),
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Cause::Signal(name) => write!(f, "{name}"),
            Cause::Deadline(limit) => write!(f, "the run's deadline of {}", crate::report::duration(*limit)),
        }
    }
}

#[derive(Clone)]
pub struct Stop(Arc<Shared>);

struct Shared {
    readable: OwnedFd,
    cause: OnceLock<Cause>,
}

impl Stop {
    pub fn cause(&self) -> Option<Cause> {
        self.0.cause.get().copied()
    }

    /// Waits; false when told to stop meanwhile.
    pub fn pause(&self, time: Duration) -> bool {
        let end = Instant::now() + time;
        while Instant::now() < end && self.cause().is_none() {
            let mut fds = [PollFd::new(self.descriptor(), PollFlags::POLLIN)];
            // An interrupted wait is simply begun again.
            let _ = poll(&mut fds, until(end));
        }
        self.cause().is_none()
    }

    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.0.readable.as_fd()
    }
}

/// Blocks the signals in this thread and all that it starts. Call before the first thread.
pub fn block() -> Result<SigSet> {
    let mut set = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        set.add(signal);
    }
    pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&set), None).context("blocking signals")?;
    Ok(set)
}

/// Watches for the blocked signals and the deadline in a thread of its own.
pub fn watch(set: SigSet, deadline: Duration) -> Result<Stop> {
    let (readable, writable) = pipe2(OFlag::O_CLOEXEC).context("a pipe")?;
    let stop = Stop(Arc::new(Shared { readable, cause: OnceLock::new() }));
    let signals = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC).context("signalfd")?;
    let shared = Arc::clone(&stop.0);
    let end = Instant::now() + deadline;
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            let cause = wait(&signals, end).unwrap_or(Cause::Deadline(deadline));
            // The first cause counts; there is but one thread that sets it.
            let _ = shared.cause.set(cause);
            // Closing the other end is what every waiter sees.
            drop(writable);
        })
        .context("starting the signal thread")?;
    Ok(stop)
}

/// The signal that came before `end`.
fn wait(signals: &SignalFd, end: Instant) -> Option<Cause> {
    loop {
        let mut fds = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, until(end)) {
            Ok(0) if Instant::now() >= end => return None,
            Ok(0) | Err(nix::errno::Errno::EINTR) => continue,
            Err(_) => return None,
            Ok(_) => {
                let info = signals.read_signal().ok().flatten()?;
                let signal = Signal::try_from(info.ssi_signo as i32).ok()?;
                return Some(Cause::Signal(signal.as_str()));
            }
        }
    }
}

/// What is left until `end`, as poll(2) wants it: rounded up, so that it does not spin at the end.
pub fn until(end: Instant) -> PollTimeout {
    let left = end.saturating_duration_since(Instant::now());
    let milliseconds = left.as_millis().saturating_add(u128::from(!left.subsec_nanos().is_multiple_of(1_000_000)));
    PollTimeout::try_from(milliseconds.min(i32::MAX as u128) as i32).unwrap_or(PollTimeout::MAX)
}
