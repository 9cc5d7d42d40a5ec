//! Runs programs under ptrace: how many system calls they and their children make, and how much memory
//! those have that are alive at the same time.
//!
//! The kernel keeps the peak of each process, and it is read in the process's last moment. The sum over
//! those alive together is never less than what they really had, since their peaks may lie apart, and
//! since a page that two of them share counts twice. What they have with such pages counted once is
//! looked at whenever one of them ends.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Event, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::measure::Seen;

#[derive(Default)]
struct Process {
    pid: i32,
    /// In KiB.
    peak: u64,
    /// When it was first seen and when it ended, in numbers of such events.
    born: usize,
    ended: Option<usize>,
}

/// Whether each system call is stopped at, which makes a run of very many of them slow.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Calls {
    Counted,
    Passed,
}

struct Tracer {
    calls: Calls,
    processes: Vec<Process>,
    /// Which process a thread belongs to.
    threads: HashMap<i32, usize>,
    /// Threads whose end was told. That a thread was made may be told after it, by the one that made it.
    gone: HashSet<i32>,
    /// Nothing counts before the program itself is there.
    has_begun: bool,
    syscalls: u64,
    shared_once: u64,
    time: usize,
}

/// Runs them one after the other; each has to end with this status.
pub fn trace(commands: &[Command], status: i32, calls: Calls) -> Seen {
    let mut all = Seen::default();
    for command in commands {
        let seen = trace_one(command, status, calls);
        all.syscalls += seen.syscalls;
        all.memory = all.memory.max(seen.memory);
        all.shared_once = all.shared_once.max(seen.shared_once);
    }
    all
}

#[expect(clippy::zombie_processes, reason = "its end is awaited with those of all that it makes")]
fn trace_one(plain: &Command, status: i32, calls: Calls) -> Seen {
    // It waits for a line until it is traced.
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "read go; exec \"$@\" < /dev/null", "sh"]).arg(plain.get_program()).args(plain.get_args());
    command.env_clear().envs(plain.get_envs().filter_map(|(key, value)| Some((key, value?))));
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    command.stderr(if status == 0 { Stdio::inherit() } else { Stdio::null() });
    let mut child = command.spawn().expect("/bin/sh");
    let first = Pid::from_raw(child.id() as i32);
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_TRACEEXIT
        | Options::PTRACE_O_EXITKILL;
    ptrace::seize(first, options).expect("ptrace");
    child.stdin.take().expect("its input").write_all(b"\n").expect("its input");
    let mut tracer = Tracer {
        calls,
        processes: Vec::new(),
        threads: HashMap::new(),
        gone: HashSet::new(),
        has_begun: false,
        syscalls: 0,
        shared_once: 0,
        time: 0,
    };
    let code = tracer.follow(first);
    assert!(code == status, "{plain:?}: {code}");
    tracer.seen()
}

impl Tracer {
    /// Until all have ended. Returns the exit status of the first.
    fn follow(&mut self, first: Pid) -> i32 {
        self.process_of(first);
        let mut code = None;
        while !self.threads.is_empty() {
            match waitpid(None, Some(WaitPidFlag::__WALL)) {
                Err(Errno::EINTR) => {}
                Err(_) => break,
                Ok(WaitStatus::Exited(pid, status)) => {
                    self.forget(pid);
                    code = if pid == first { Some(status) } else { code };
                }
                Ok(WaitStatus::Signaled(pid, signal, _)) => {
                    self.forget(pid);
                    code = if pid == first { Some(128 + signal as i32) } else { code };
                }
                Ok(WaitStatus::PtraceEvent(pid, _, event)) => self.event(pid, event),
                Ok(WaitStatus::PtraceSyscall(pid)) => self.call(pid),
                Ok(WaitStatus::Stopped(pid, signal)) => self.go_on(pid, Some(signal)),
                Ok(_) => {}
            }
        }
        code.expect("the program's own end")
    }

    fn forget(&mut self, pid: Pid) {
        self.threads.remove(&pid.as_raw());
        self.gone.insert(pid.as_raw());
    }

    fn event(&mut self, pid: Pid, event: i32) {
        let is = |which: Event| event == which as i32;
        let index = self.process_of(pid);
        if is(Event::PTRACE_EVENT_FORK) || is(Event::PTRACE_EVENT_VFORK) || is(Event::PTRACE_EVENT_CLONE) {
            if let Some(new) = ptrace::getevent(pid).ok().filter(|new| !self.gone.contains(&(*new as i32))) {
                self.process_of(Pid::from_raw(new as i32));
            }
        } else if is(Event::PTRACE_EVENT_EXEC) {
            self.has_begun = true;
        } else if is(Event::PTRACE_EVENT_EXIT) {
            self.end(pid, index);
        }
        self.go_on(pid, None);
    }

    /// A thread is about to end, and has its memory still.
    fn end(&mut self, thread: Pid, index: usize) {
        let peak = field(&format!("/proc/{thread}/status"), "VmHWM:");
        let process = &mut self.processes[index];
        process.peak = process.peak.max(peak);
        if process.pid != thread.as_raw() {
            return;
        }
        let alive = self.processes.iter().filter(|process| process.ended.is_none());
        let now = alive.map(|process| field(&format!("/proc/{}/smaps_rollup", process.pid), "Pss:")).sum();
        self.shared_once = self.shared_once.max(now);
        self.time += 1;
        self.processes[index].ended = Some(self.time);
    }

    /// The process that a thread belongs to; a new one when it was not seen before.
    fn process_of(&mut self, pid: Pid) -> usize {
        let pid = pid.as_raw();
        if let Some(known) = self.threads.get(&pid) {
            return *known;
        }
        let group = field(&format!("/proc/{pid}/status"), "Tgid:") as i32;
        let index = if group != pid && group != 0 {
            self.process_of(Pid::from_raw(group))
        } else {
            self.time += 1;
            self.processes.push(Process { pid, born: self.time, ..Process::default() });
            self.processes.len() - 1
        };
        self.threads.insert(pid, index);
        index
    }

    fn call(&mut self, pid: Pid) {
        // Gone meanwhile, when another one of its threads or another process ended it.
        let Ok(info) = ptrace::syscall_info(pid) else { return };
        if self.has_begun && info.op == libc::PTRACE_SYSCALL_INFO_ENTRY {
            self.syscalls += 1;
        }
        self.go_on(pid, None);
    }

    /// One that is struck by a signal in between is gone, which is no error.
    fn go_on(&mut self, pid: Pid, signal: Option<Signal>) {
        let _ = match self.calls {
            Calls::Counted => ptrace::syscall(pid, signal),
            Calls::Passed => ptrace::cont(pid, signal),
        };
    }

    fn seen(&self) -> Seen {
        let lives = |at: usize| {
            let alive = self.processes.iter().filter(move |p| p.born <= at && p.ended.is_none_or(|ended| at < ended));
            alive.map(|process| process.peak).sum::<u64>()
        };
        let memory = (1..=self.time).map(lives).max().unwrap_or_default();
        Seen { memory, shared_once: self.shared_once, syscalls: self.syscalls, bytes: 0 }
    }
}

/// A number in one of the kernel's lists; nothing when the process is gone, or may not be looked at.
fn field(path: &str, name: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|value| value.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}
