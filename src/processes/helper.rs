//! The supervisor's end of a helper process: start it, ask it, and end it when it takes too long.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::Signal;
use nix::unistd::pipe2;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Role, caller, wire};
use crate::outcome::{Class, Failure, MAKE_ROOM, TOO_MUCH_MEMORY, is_of_kind};
use crate::sys::account::Account;
use crate::sys::privdrop::{Confinement, NewPrivileges, confine, pass_descriptor};
use crate::sys::signals::{Cause, Stop, until};

/// How long a helper is waited for that was killed, or that has closed its end.
const UNKILLABLE: Duration = Duration::from_secs(10);
/// How long a helper may take to read what it is asked. They read when they have nothing else to do.
const LISTENING: Duration = Duration::from_secs(60);

/// For helpers and scripts alike, unless the app's `env` says otherwise.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How long to wait for an answer, and what cuts the wait short.
#[derive(Clone, Copy)]
pub struct Patience<'a> {
    pub time: Duration,
    /// None for what must be finished even when poller was told to stop.
    pub stop: Option<&'a Stop>,
    /// What a wait that was too long means.
    pub class: Class,
}

/// How a helper is started.
pub struct Start<'a> {
    pub role: Role,
    pub account: Option<&'a Account>,
    pub umask: u32,
    /// Files that become descriptors 3, 4, … of the helper.
    pub descriptors: Vec<OwnedFd>,
    /// Its standard input, when somebody else writes to that pipe too.
    pub input: Option<(OwnedFd, OwnedFd)>,
}

pub struct Helper {
    role: Role,
    child: Child,
    input: Option<File>,
    output: File,
    grace: Duration,
}

impl Helper {
    pub fn start(start: Start) -> Result<Helper> {
        // The link to this very program works for every user, wherever the file lies, and goes on
        // working when the file is replaced during the run.
        let mut command = Command::new("/proc/self/exe");
        command.arg0("poller").arg(start.role.word()).arg(std::process::id().to_string());
        command.env_clear().env("PATH", PATH).env("LANG", "C.UTF-8");
        match start.account {
            Some(account) => drop(command.env("HOME", &account.home).env("USER", &account.name)),
            None => pass_own(&mut command),
        }
        if start.role == Role::Caller {
            pass(&mut command, &caller::ENVIRONMENT);
        }
        let (theirs, ours) = match start.input {
            Some(pipe) => pipe,
            None => pipe2(OFlag::O_CLOEXEC).context("a pipe")?,
        };
        command.stdin(theirs).stdout(Stdio::piped());
        // A terminal can be read through whatever descriptor one has of it, and be written codes to.
        if std::io::stderr().is_terminal() {
            command.stderr(Stdio::null());
        }
        let kept = 3 + start.descriptors.len() as u32;
        // The descriptors are moved out of the way first: a target may be the number of another source.
        let aside: Vec<OwnedFd> = start.descriptors.iter().map(|fd| above(fd, 10)).collect::<Result<_>>()?;
        for (target, fd) in (3..).zip(&aside) {
            pass_descriptor(&mut command, fd.as_raw_fd(), target);
        }
        let confinement = Confinement {
            account: start.account,
            directory: Path::new("/"),
            umask: start.umask,
            new_privileges: if start.role == Role::Keeper { NewPrivileges::Allowed } else { NewPrivileges::Denied },
            keep_below: kept,
        };
        confine(&mut command, &confinement)?;
        let mut child = command.spawn().with_context(|| format!("starting the {}", name(start.role)))?;
        let output = child.stdout.take().context("a child without its pipe")?;
        let output = File::from(OwnedFd::from(output));
        Ok(Helper { role: start.role, child, input: Some(File::from(ours)), output, grace: Duration::ZERO })
    }

    /// How long it may take from now on to tidy up after itself when a wait for it is given up.
    pub fn set_grace(&mut self, grace: Duration) {
        self.grace = grace;
    }

    /// Whether it goes on. One that was killed while nobody asked it is noticed by nothing else.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    pub fn output(&self) -> &File {
        &self.output
    }

    pub fn send<T: Serialize>(&mut self, message: &T) -> Result<()> {
        let role = name(self.role);
        let file = self.input.as_ref().with_context(|| format!("the {role} is not listening any more"))?;
        let mut input = Bounded { file, end: Instant::now() + LISTENING };
        wire::send(&mut input, message).with_context(|| format!("asking the {role}"))
    }

    /// Ends its input: nothing more will be said to it.
    pub fn hang_up(&mut self) {
        self.input = None;
    }

    pub fn ask<T: Serialize, R: DeserializeOwned>(&mut self, message: &T, patience: Patience) -> Result<R> {
        match self.send(message) {
            Ok(()) => self.receive(patience),
            // A helper that died does not listen; why it died is told by what comes (or not) from it.
            Err(e) if is_of_kind(&e, io::ErrorKind::BrokenPipe) => self.receive::<R>(patience).and(Err(e)),
            // It has not been asked, or only in part, and would wait for the rest.
            Err(e) => {
                self.end();
                Err(e)
            }
        }
    }

    /// The next message. A helper that takes too long is ended; so is one that talks nonsense.
    pub fn receive<R: DeserializeOwned>(&mut self, patience: Patience) -> Result<R> {
        let end = Instant::now() + patience.time;
        let mut watched = Watched { file: &self.output, end, stop: patience.stop };
        let failure = match wire::receive(&mut watched) {
            Ok(Some(message)) => return Ok(message),
            Ok(None) => self.died(),
            Err(e) if is_of_kind(&e, io::ErrorKind::UnexpectedEof) => self.died(),
            Err(e) => match patience.stop.and_then(Stop::cause) {
                // Told by a person or by systemd, nothing is wrong; a run that is too long is.
                Some(cause @ Cause::Signal(_)) => Failure::new(Class::Busy, format!("stopped by {cause}")),
                Some(cause) => Failure::new(patience.class, format!("stopped by {cause}")),
                None if Instant::now() >= end => Failure::new(
                    patience.class,
                    format!(
                        "the {} took longer than {} and was ended",
                        name(self.role),
                        crate::report::duration(patience.time)
                    ),
                ),
                None => Failure::new(Class::Bug, format!("the {} does not speak as it should: {e:#}", name(self.role))),
            },
        };
        if !self.grace.is_zero() {
            self.hang_up();
            self.drain(self.grace);
        }
        self.end();
        Err(failure.into())
    }

    /// Why a helper is gone that should have answered.
    fn died(&mut self) -> Failure {
        let role = name(self.role);
        let Some(status) = self.wait() else {
            return Failure::new(Class::Bug, format!("the {role} has closed its end, and does not end"))
                .help("it was killed; please report it");
        };
        if self.role == Role::Keeper {
            // It runs nobody's code but poller's: somebody ended it, and the script went with it.
            return Failure::new(Class::Deploy, format!("the process that kept the script was ended ({status})"))
                .help("what the script left running was ended too; look for who sent that signal, or for an out-of-memory kill: journalctl -k");
        }
        match status.signal().and_then(|s| Signal::try_from(s).ok()) {
            // libgit2 writes packs through memory maps: a full disk is a signal there.
            Some(Signal::SIGBUS) => {
                Failure::new(Class::Io, format!("the {role} could not write to the disk")).help(MAKE_ROOM)
            }
            Some(Signal::SIGKILL) => Failure::new(Class::Io, format!("the {role} was killed from outside"))
                .help("out of memory? look at: journalctl -k --grep 'Out of memory'"),
            // How a Rust program ends that is refused memory.
            Some(Signal::SIGABRT) => {
                Failure::new(Class::Io, format!("the {role} gave up, most likely for want of memory"))
                    .help(TOO_MUCH_MEMORY)
            }
            Some(signal) => Failure::new(Class::Protocol, format!("the {role} crashed ({signal})"))
                .help("nothing was published; please report it, with the commit it crashed on"),
            None => Failure::new(Class::Bug, format!("the {role} ended ({status}) without an answer")).help(
                "what it said goes to standard error where that is no terminal: poller … 2>FILE; please report it",
            ),
        }
    }

    fn end(&mut self) {
        self.input = None;
        // It may be gone already, which is the aim.
        let _ = self.child.kill();
        self.wait();
    }

    /// In a call to a disk that does not answer it cannot even be killed: nothing is gained by waiting with it.
    fn wait(&mut self) -> Option<ExitStatus> {
        let end = Instant::now() + UNKILLABLE;
        // Most are gone at once, and each poll ends by waiting here.
        let mut pause = Duration::from_micros(50);
        loop {
            match self.child.try_wait() {
                Ok(None) if Instant::now() < end => std::thread::sleep(pause),
                ended => return ended.ok().flatten(),
            }
            pause = (pause * 2).min(Duration::from_millis(10));
        }
    }

    /// Lets it end by itself, which it does when its input ends.
    pub fn finish(mut self) {
        self.input = None;
        self.drain(Duration::from_secs(5));
        self.end();
    }

    /// Reads to the end, which is the helper's end too, or until the time is up.
    fn drain(&self, time: Duration) {
        let mut watched = Watched { file: &self.output, end: Instant::now() + time, stop: None };
        let _ = io::copy(&mut watched, &mut io::sink());
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // A keeper ends its script's tree first, when its input ends; but not for ever.
        if self.role == Role::Keeper {
            self.input = None;
            self.drain(Duration::from_secs(30));
        }
        self.end();
    }
}

fn name(role: Role) -> &'static str {
    role.word().trim_start_matches('_')
}

/// An ordinary user's `ssh_command` may want the agent and the home of that user.
fn pass_own(command: &mut Command) {
    pass(command, &["HOME", "USER", "SSH_AUTH_SOCK"]);
}

fn pass(command: &mut Command, variables: &[&str]) {
    for variable in variables {
        if let Some(value) = std::env::var_os(variable) {
            command.env(variable, value);
        }
    }
}

fn above(fd: &OwnedFd, lowest: i32) -> Result<OwnedFd> {
    let copy = nix::fcntl::fcntl(fd.as_fd(), nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(lowest)).context("a descriptor")?;
    crate::sys::privdrop::inherited(copy)
}

/// Reads a pipe, but not longer than `end`, and not past a stop.
struct Watched<'a> {
    file: &'a File,
    end: Instant,
    stop: Option<&'a Stop>,
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut fds = vec![PollFd::new(self.file.as_fd(), PollFlags::POLLIN)];
            if let Some(stop) = self.stop {
                fds.push(PollFd::new(stop.descriptor(), PollFlags::POLLIN));
            }
            match poll(&mut fds, until(self.end)) {
                Err(Errno::EINTR) => continue,
                Err(e) => return Err(e.into()),
                // These two first: one that never stops talking is not to keep them from being seen.
                Ok(_) if fds.get(1).is_some_and(|fd| fd.any() == Some(true)) => {
                    return Err(io::ErrorKind::ConnectionAborted.into());
                }
                Ok(_) if Instant::now() >= self.end => return Err(io::ErrorKind::TimedOut.into()),
                Ok(_) if fds[0].any() == Some(true) => return (&*self.file).read(buffer),
                Ok(_) => {}
            }
        }
    }
}

/// Writes to a pipe, but not longer than `end`: its reader may have stopped reading.
struct Bounded<'a> {
    file: &'a File,
    end: Instant,
}

impl Write for Bounded<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            let mut fds = [PollFd::new(self.file.as_fd(), PollFlags::POLLOUT)];
            match poll(&mut fds, until(self.end)) {
                Err(Errno::EINTR) => continue,
                Err(e) => return Err(e.into()),
                // Where there is room, there is room for so much, and the write does not block.
                Ok(ready) if ready > 0 => {
                    return (&*self.file).write(&bytes[..bytes.len().min(nix::libc::PIPE_BUF)]);
                }
                Ok(_) if Instant::now() >= self.end => return Err(io::ErrorKind::TimedOut.into()),
                Ok(_) => {}
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn helper(script: &str) -> Helper {
        let (theirs, ours) = pipe2(OFlag::O_CLOEXEC).unwrap();
        let mut shell = Command::new("/bin/sh");
        let mut child = shell.args(["-c", script]).stdin(theirs).stdout(Stdio::piped()).spawn().unwrap();
        let output = File::from(OwnedFd::from(child.stdout.take().unwrap()));
        Helper { role: Role::Fetcher, child, input: Some(File::from(ours)), output, grace: Duration::ZERO }
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(300)
    }

    #[test]
    fn one_that_closes_its_end_and_goes_on_is_ended() {
        let mut helper = helper("exec >&-; exec sleep 1000");
        let patience = Patience { time: Duration::from_secs(600), stop: None, class: Class::Protocol };
        let error = helper.receive::<String>(patience).unwrap_err();
        assert!(error.to_string().contains("closed its end"), "{error}");
        assert!(!helper.is_alive());
    }

    #[test]
    fn one_that_is_killed_in_the_middle_of_a_word_was_killed() {
        let mut helper = helper("printf '\\0\\0\\0\\10Mabc'; kill -9 $$");
        let patience = Patience { time: Duration::from_secs(600), stop: None, class: Class::Protocol };
        let failure = Failure::of(helper.receive::<String>(patience).unwrap_err());
        assert!(failure.class == Class::Io && failure.message.contains("killed from outside"), "{failure:?}");
    }

    #[test]
    fn one_that_never_stops_talking_is_heard_for_its_time_only() {
        let helper = helper("exec yes");
        let mut watched = Watched { file: &helper.output, end: soon(), stop: None };
        let error = io::copy(&mut watched, &mut io::sink()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn one_that_does_not_listen_is_told_for_its_time_only() {
        let helper = helper("exec sleep 1000");
        let mut input = Bounded { file: helper.input.as_ref().unwrap(), end: soon() };
        let error = input.write_all(&[0; 1 << 20]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn one_that_cannot_be_asked_is_not_waited_for() {
        let mut helper = helper("exec sleep 1000");
        let patience = Patience { time: Duration::from_secs(600), stop: None, class: Class::Protocol };
        let error = helper.ask::<_, String>(&"x".repeat(17 << 20), patience).unwrap_err();
        assert!(format!("{error:#}").contains("is the most"), "{error:#}");
        assert!(!helper.is_alive());
    }

    #[test]
    fn a_message_longer_than_the_pipe_comes_whole() {
        let mut helper = helper("exec wc -c");
        helper.send(&"x".repeat(1 << 20)).unwrap();
        helper.hang_up();
        let mut count = String::new();
        (&helper.output).read_to_string(&mut count).unwrap();
        assert_eq!(count.trim(), (5 + 2 + (1 << 20)).to_string());
    }
}
