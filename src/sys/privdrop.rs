//! Starting a process with exactly the rights it should have.
//!
//! Between fork and exec only async-signal-safe calls are made; everything that allocates, looks up
//! or can fail in an interesting way has been done before.

use std::ffi::CString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, chdir, getresgid, getresuid, setgid, setgroups, setresuid, setsid};

use super::account::Account;

/// Whether a process may gain rights by exec: sudo, setuid and setgid files, file capabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum NewPrivileges {
    Allowed,
    Denied,
}

/// What a child process starts with.
pub struct Confinement<'a> {
    /// None keeps the caller's identity.
    pub account: Option<&'a Account>,
    /// Entered after the identity has changed, so that root never walks a path of the user's.
    pub directory: &'a Path,
    pub umask: u32,
    pub new_privileges: NewPrivileges,
    /// Descriptors from 3 up to (not including) this one stay open; all above are closed at exec.
    pub keep_below: u32,
}

/// Makes `command` start under `confinement`, in a session of its own, with default signals.
pub fn confine(command: &mut Command, confinement: &Confinement) -> Result<()> {
    let directory =
        CString::new(confinement.directory.as_os_str().as_encoded_bytes()).context("a folder name with a NUL byte")?;
    let umask_bits = Mode::from_bits_truncate(confinement.umask);
    let new_privileges = confinement.new_privileges;
    let keep_below = confinement.keep_below;
    // An unprivileged poller stays who it is: setgroups would be refused even for the same groups.
    let identity = match confinement.account.filter(|_| Uid::effective().is_root()) {
        Some(account) => Some(Identity::of(account)?),
        None => None,
    };

    let in_child = move || -> io::Result<()> {
        setsid()?;
        default_signals()?;
        if let Some(identity) = &identity {
            identity.assume()?;
        }
        umask(umask_bits);
        chdir(directory.as_c_str())?;
        if new_privileges == NewPrivileges::Denied {
            nix::sys::prctl::set_no_new_privs()?;
        }
        close_from(keep_below)
    };
    // SAFETY: the closure makes system calls only; it neither allocates nor takes a lock, and the
    // values it reads were made before the fork.
    unsafe { command.pre_exec(in_child) };
    Ok(())
}

struct Identity {
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
}

impl Identity {
    fn of(account: &Account) -> Result<Identity> {
        let groups = account.groups()?.iter().copied().map(Gid::from_raw).collect();
        Ok(Identity { uid: Uid::from_raw(account.uid), gid: Gid::from_raw(account.gid), groups })
    }

    /// setgroups → setgid → setuid, then proof that there is no way back.
    fn assume(&self) -> io::Result<()> {
        setgroups(&self.groups)?;
        setgid(self.gid)?;
        setresuid(self.uid, self.uid, self.uid)?;
        let (user, group) = (getresuid()?, getresgid()?);
        let is_user = [user.real, user.effective, user.saved].iter().all(|&id| id == self.uid);
        let is_group = [group.real, group.effective, group.saved].iter().all(|&id| id == self.gid);
        let can_return = setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0)).is_ok();
        if !is_user || !is_group || can_return {
            return Err(Errno::EPERM.into());
        }
        Ok(())
    }
}

/// Cron and shells hand down ignored signals and poller itself blocks some; a script expects neither.
fn default_signals() -> io::Result<()> {
    // The kernel's struct sigaction, all zero: SIG_DFL, no flags, nothing masked.
    let default = [0u64; 4];
    for signal in (1..=64).filter(|s| ![libc::SIGKILL, libc::SIGSTOP].contains(s)) {
        // By the system call: the C library keeps two signals for itself and refuses to reset them.
        // SAFETY: `default` is as large as the kernel's struct, and no handler is installed.
        let done =
            unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), std::ptr::null::<u64>(), 8usize) };
        if done != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    Ok(())
}

/// Marks every descriptor from `first` on close-on-exec. Marking instead of closing keeps the pipe
/// open by which the standard library reports a failed exec.
fn close_from(first: u32) -> io::Result<()> {
    // SAFETY: a system call on numbers; it touches no memory.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if done == 0 {
        return Ok(());
    }
    // Before Linux 5.11: one by one. The soft limit is what bounds the numbers in use.
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` outlives the call.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    for descriptor in first..limit.rlim_cur.min(65_536) as u32 {
        // SAFETY: fcntl on a number that may be closed: EBADF is the expected answer then.
        unsafe { libc::fcntl(descriptor as i32, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
    Ok(())
}

/// Ends this process when its parent dies, however that happens.
///
/// The kernel forgets the setting when the identity changes, so a helper asks for it itself, first thing.
/// `parent` is who started it: were it gone already, no signal would ever come.
pub fn die_with_parent(parent: i32) -> Result<()> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).context("asking to end with the parent")?;
    anyhow::ensure!(nix::unistd::getppid().as_raw() == parent, "the parent process is gone");
    Ok(())
}

/// Makes `command` end when its parent does, for as long as it gains no privileges. Call after
/// [`confine`]: the change of identity would make the kernel forget it.
pub fn end_with_parent(command: &mut Command) {
    let parent = nix::unistd::getpid();
    let in_child = move || -> io::Result<()> {
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
        // Were the parent gone already, no signal would ever come.
        if nix::unistd::getppid() == parent { Ok(()) } else { Err(Errno::ESRCH.into()) }
    };
    // SAFETY: as in `confine`: system calls, nothing else.
    unsafe { command.pre_exec(in_child) };
}

/// Gives descriptor `target` of the child another descriptor's file.
pub fn pass_descriptor(command: &mut Command, from: std::os::fd::RawFd, target: std::os::fd::RawFd) {
    let hand_over = move || -> io::Result<()> {
        // SAFETY: dup2 on descriptors; `from` is kept open by the caller until after the spawn.
        let done = unsafe {
            // dup2 onto itself would leave close-on-exec set.
            if from == target { libc::fcntl(from, libc::F_SETFD, 0) } else { libc::dup2(from, target) }
        };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    };
    // SAFETY: as in `confine`: a system call, nothing else.
    unsafe { command.pre_exec(hand_over) };
}

/// Takes over a descriptor that the supervisor passed on. Call once for each.
pub fn inherited(descriptor: std::os::fd::RawFd) -> Result<std::os::fd::OwnedFd> {
    // SAFETY: a question about a number.
    let flags = unsafe { libc::fcntl(descriptor, libc::F_GETFD) };
    anyhow::ensure!(flags >= 0, "descriptor {descriptor} was not passed on");
    // SAFETY: the descriptor is open, and nothing in this process has made it, so nobody else owns it.
    let owned = unsafe { std::os::fd::FromRawFd::from_raw_fd(descriptor) };
    // What this process starts in turn has no business with it.
    // SAFETY: as above.
    unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) };
    Ok(owned)
}
