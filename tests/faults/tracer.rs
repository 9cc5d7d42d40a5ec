//! Runs a program under ptrace, and strikes one of its processes at one of its system calls: by SIGKILL,
//! or by an error that the call then returns without having done anything.
//!
//! strace can do both, but it counts in all processes at once: the call that is the fifth in a helper was
//! the fifth in the supervisor before, which then is what dies. Here the process is chosen too, so that
//! each call of each process is met once. Only the chosen process is stopped at its calls, which makes
//! a run hardly slower.
//!
//! Whoever looks through the process table, as a keeper does again and again, opens, reads and closes a
//! file of each process of the machine. That counts once in each process, and not for each of them.
//!
//! A process of another program, such as a deploy script, is followed to its end and never struck: what
//! it does between its fork and its `execve` is poller's own, and counts.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::libc::{self, user_regs_struct};
use nix::sys::ptrace::{self, Event, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::support::World;

/// Which calls are counted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Calls {
    All,
    /// Those that change something on a disk, or say something: what a full or a broken disk refuses.
    Changes,
    /// In each process all from its `times`th call of this number on, itself included.
    From {
        number: i64,
        times: usize,
    },
}

#[derive(Clone, Copy, Debug)]
pub enum Blow {
    Kill,
    Error(Errno),
}

/// The `call`th call, from 1, of the `process`th process, from 0 in the order of their making.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    pub process: usize,
    pub call: usize,
}

/// A process that was seen.
#[derive(Clone, Debug, Default)]
pub struct Process {
    /// `supervisor`, a helper's hidden word without its underscore, or the name of another program.
    pub role: String,
    /// The numbers of its calls, as far as they were counted.
    pub calls: Vec<u64>,
    pid: i32,
    is_foreign: bool,
    looks: Looks,
    /// How often it made the call from which on others count.
    passed: usize,
}

/// Where a process is in its looks at others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Looks {
    #[default]
    None,
    First,
    Counted,
    Further,
}

/// What came of a run.
pub struct Seen {
    pub processes: Vec<Process>,
    /// The exit status; 128 and the signal's number for a death by signal.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
    /// What was struck: the process and the call.
    pub struck: Option<String>,
}

impl Seen {
    /// Each call of each process that was counted.
    pub fn points(&self) -> Vec<Point> {
        let of = |process: usize| (1..=self.processes[process].calls.len()).map(move |call| Point { process, call });
        (0..self.processes.len()).flat_map(of).collect()
    }
}

struct Tracer {
    calls: Calls,
    aim: Option<(Point, Blow)>,
    processes: Vec<Process>,
    /// Which process a thread belongs to.
    threads: HashMap<i32, usize>,
    /// Threads whose end was told. That a thread was made may be told after it, by the one that made it.
    ended: HashSet<i32>,
    struck: Option<String>,
    /// The thread whose call is to return an error.
    failing: Option<(Pid, Errno)>,
}

/// Runs the program with these arguments and counts the calls of all its processes.
pub fn count(world: &World, arguments: &[&str], calls: Calls) -> Seen {
    trace(world, arguments, calls, None)
}

/// Runs it and strikes at `point`. Returns when all its processes have ended.
pub fn strike(world: &World, arguments: &[&str], calls: Calls, point: Point, blow: Blow) -> Seen {
    trace(world, arguments, calls, Some((point, blow)))
}

#[expect(clippy::zombie_processes, reason = "its end is awaited with those of all that it makes")]
fn trace(world: &World, arguments: &[&str], calls: Calls, aim: Option<(Point, Blow)>) -> Seen {
    let plain = world.command(arguments);
    let (out, err) = (world.path("traced.out"), world.path("traced.err"));
    // It waits for a line until it is traced.
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "read go; exec \"$@\" < /dev/null", "sh"]).arg(plain.get_program()).args(plain.get_args());
    command.current_dir("/").env_clear();
    command.envs(plain.get_envs().filter_map(|(key, value)| Some((key, value?))));
    command.stdin(Stdio::piped()).stdout(File::create(&out).unwrap()).stderr(File::create(&err).unwrap());
    let mut child = command.spawn().unwrap();
    let first = Pid::from_raw(child.id() as i32);
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_EXITKILL;
    ptrace::seize(first, options).unwrap();
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    // It counts from its execve on, when it is the program under test.
    let shell = Process { role: "sh".into(), pid: first.as_raw(), is_foreign: true, ..Process::default() };
    let mut tracer = Tracer {
        calls,
        aim,
        processes: vec![shell],
        threads: HashMap::from([(first.as_raw(), 0)]),
        ended: HashSet::new(),
        struck: None,
        failing: None,
    };
    let code = tracer.follow(first);
    let text = |path: &Path| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
    Seen { processes: tracer.processes, code, stdout: text(&out), stderr: text(&err), struck: tracer.struck }
}

impl Tracer {
    /// Until every process has ended; the first one's exit status.
    fn follow(&mut self, first: Pid) -> i32 {
        let mut code = None;
        while !self.threads.is_empty() {
            // Only what this thread traces: other tests of the program have children too.
            let status = match waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)) {
                Err(Errno::EINTR) => continue,
                status => status.expect("waiting for what is traced"),
            };
            match status {
                WaitStatus::Exited(pid, status) => {
                    self.end(pid);
                    code = if pid == first { Some(status) } else { code };
                }
                WaitStatus::Signaled(pid, signal, _) => {
                    self.end(pid);
                    code = if pid == first { Some(128 + signal as i32) } else { code };
                }
                WaitStatus::PtraceEvent(pid, _, event) => self.event(pid, event),
                WaitStatus::PtraceSyscall(pid) => self.call(pid),
                WaitStatus::Stopped(pid, signal) => self.go_on(pid, Some(signal)),
                _ => {}
            }
        }
        code.expect("the program's own end")
    }

    fn end(&mut self, pid: Pid) {
        self.threads.remove(&pid.as_raw());
        self.ended.insert(pid.as_raw());
    }

    fn event(&mut self, pid: Pid, event: i32) {
        let is = |which: Event| event == which as i32;
        self.process_of(pid);
        if is(Event::PTRACE_EVENT_FORK) || is(Event::PTRACE_EVENT_VFORK) || is(Event::PTRACE_EVENT_CLONE) {
            if let Some(new) = ptrace::getevent(pid).ok().filter(|new| !self.ended.contains(&(*new as i32))) {
                self.process_of(Pid::from_raw(new as i32));
            }
        } else if is(Event::PTRACE_EVENT_EXEC) {
            let (role, is_foreign) = role(pid);
            let process = self.process_of(pid);
            let process = &mut self.processes[process];
            (process.role, process.is_foreign) = (role, is_foreign);
        }
        self.go_on(pid, None);
    }

    /// The process that a thread belongs to; a new one when it was not seen before.
    fn process_of(&mut self, pid: Pid) -> usize {
        let pid = pid.as_raw();
        if let Some(known) = self.threads.get(&pid) {
            return *known;
        }
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|value| value.trim().parse::<i32>().ok()).unwrap_or_default()
        };
        let group = field("Tgid:");
        let index = if group != pid && group != 0 {
            self.process_of(Pid::from_raw(group))
        } else {
            let parent = field("PPid:");
            let above = self.threads.get(&parent).map(|index| &self.processes[*index]);
            let is_foreign = above.is_some_and(|above| above.is_foreign);
            let role = above.map_or_else(String::new, |above| format!("{}'s child", above.role));
            self.processes.push(Process { role, pid, is_foreign, ..Process::default() });
            self.processes.len() - 1
        };
        self.threads.insert(pid, index);
        index
    }

    fn call(&mut self, pid: Pid) {
        let index = self.process_of(pid);
        // Gone meanwhile, for another one of its threads or another process ended it.
        let (Ok(info), Ok(registers)) = (ptrace::syscall_info(pid), ptrace::getregs(pid)) else { return };
        if info.op == libc::PTRACE_SYSCALL_INFO_EXIT {
            if let Some((_, errno)) = self.failing.take_if(|(failing, _)| *failing == pid) {
                let _ = ptrace::setregs(pid, user_regs_struct { rax: (-(errno as i64)) as u64, ..registers });
            }
            if registers.orig_rax as i64 == libc::SYS_openat && (registers.rax as i64) < 0 {
                self.processes[index].end_look();
            }
            return self.go_on(pid, None);
        }
        let is_look = self.processes[index].looks(pid, &registers);
        let process = &mut self.processes[index];
        let counts = match self.calls {
            Calls::All => true,
            Calls::Changes => changes(pid, &registers),
            Calls::From { number, times } => {
                process.passed += usize::from(number == registers.orig_rax as i64);
                process.passed >= times
            }
        };
        if is_look || !counts {
            return self.go_on(pid, None);
        }
        let process = &mut self.processes[index];
        process.calls.push(registers.orig_rax);
        let met = Point { process: index, call: process.calls.len() };
        let Some((_, blow)) = self.aim.take_if(|(point, _)| *point == met) else { return self.go_on(pid, None) };
        self.struck = Some(format!("{} at call {} ({})", process.role, met.call, name(registers.orig_rax)));
        match blow {
            // In this stop the call has not been made yet, and now it will not be.
            Blow::Kill => drop(kill(Pid::from_raw(process.pid), Signal::SIGKILL)),
            Blow::Error(errno) => {
                // A number that no call has; what it returns is set when it returns.
                let _ = ptrace::setregs(pid, user_regs_struct { orig_rax: u64::MAX, ..registers });
                self.failing = Some((pid, errno));
                self.go_on(pid, None);
            }
        }
    }

    /// One that is struck by a signal in between is gone, which is no error.
    fn go_on(&mut self, pid: Pid, signal: Option<Signal>) {
        let index = self.process_of(pid);
        let process = &self.processes[index];
        let counted = !process.is_foreign && self.struck.is_none() && self.aim.is_none_or(|(p, _)| p.process == index);
        let is_failing = self.failing.is_some_and(|(failing, _)| failing == pid);
        let _ = if counted || is_failing { ptrace::syscall(pid, signal) } else { ptrace::cont(pid, signal) };
    }
}

impl Process {
    /// Whether this call is part of a look at another process, and not of the first one.
    fn looks(&mut self, thread: Pid, call: &user_regs_struct) -> bool {
        match (call.orig_rax as i64, self.looks) {
            (libc::SYS_openat, _) if is_of_a_process(thread, call.rsi) => {
                self.looks = if self.looks == Looks::None { Looks::First } else { Looks::Further };
            }
            (libc::SYS_close, Looks::Further) => {
                self.end_look();
                return true;
            }
            (libc::SYS_close, _) => self.end_look(),
            _ => {}
        }
        self.looks == Looks::Further
    }

    fn end_look(&mut self) {
        if self.looks != Looks::None {
            self.looks = Looks::Counted;
        }
    }
}

/// Whether the path at this address of the process is `/proc/PID/stat` or the like.
fn is_of_a_process(pid: Pid, address: u64) -> bool {
    let mut path = [0; 7];
    let memory = File::open(format!("/proc/{pid}/mem"));
    let read = memory.and_then(|memory| memory.read_exact_at(&mut path, address));
    read.is_ok() && path.starts_with(b"/proc/") && path[6].is_ascii_digit()
}

/// What a process is after its `execve`, and whether it is somebody else's program.
fn role(pid: Pid) -> (String, bool) {
    let link = |name: &str| fs::read_link(format!("/proc/{pid}/{name}")).unwrap_or_default();
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<String> = line.split(|b| *b == 0).map(|w| String::from_utf8_lossy(w).into_owned()).collect();
    if link("exe") != Path::new(env!("CARGO_BIN_EXE_poller")) {
        let name = link("exe").file_name().map(|name| name.to_string_lossy().into_owned());
        return (name.unwrap_or_default(), true);
    }
    match words.get(1).and_then(|word| word.strip_prefix('_')) {
        Some(helper) => (helper.to_owned(), false),
        None => ("supervisor".to_owned(), false),
    }
}

/// Whether a call changes something on a disk, or says something: what a full or a broken disk can refuse.
fn changes(pid: Pid, call: &user_regs_struct) -> bool {
    let creates = |flags: u64| flags & libc::O_CREAT as u64 != 0;
    // Pipes and sockets have no name that is a path.
    let is_file = |fd: u64| fs::read_link(format!("/proc/{pid}/fd/{fd}")).is_ok_and(|path| path.is_absolute());
    match call.orig_rax as i64 {
        libc::SYS_open => creates(call.rsi),
        libc::SYS_openat => creates(call.rdx),
        libc::SYS_write | libc::SYS_writev => is_file(call.rdi),
        number => CHANGES.iter().any(|(_, change)| *change == number),
    }
}

const CHANGES: [(&str, i64); 34] = [
    ("write", libc::SYS_write),
    ("pwrite64", libc::SYS_pwrite64),
    ("writev", libc::SYS_writev),
    ("pwritev", libc::SYS_pwritev),
    ("sendfile", libc::SYS_sendfile),
    ("splice", libc::SYS_splice),
    ("copy_file_range", libc::SYS_copy_file_range),
    ("fsync", libc::SYS_fsync),
    ("fdatasync", libc::SYS_fdatasync),
    ("syncfs", libc::SYS_syncfs),
    ("msync", libc::SYS_msync),
    ("sync_file_range", libc::SYS_sync_file_range),
    ("truncate", libc::SYS_truncate),
    ("ftruncate", libc::SYS_ftruncate),
    ("fallocate", libc::SYS_fallocate),
    ("creat", libc::SYS_creat),
    ("mkdir", libc::SYS_mkdir),
    ("mkdirat", libc::SYS_mkdirat),
    ("rmdir", libc::SYS_rmdir),
    ("rename", libc::SYS_rename),
    ("renameat", libc::SYS_renameat),
    ("renameat2", libc::SYS_renameat2),
    ("link", libc::SYS_link),
    ("linkat", libc::SYS_linkat),
    ("symlink", libc::SYS_symlink),
    ("symlinkat", libc::SYS_symlinkat),
    ("unlink", libc::SYS_unlink),
    ("unlinkat", libc::SYS_unlinkat),
    ("chmod", libc::SYS_chmod),
    ("fchmod", libc::SYS_fchmod),
    ("fchmodat", libc::SYS_fchmodat),
    ("chown", libc::SYS_chown),
    ("lchown", libc::SYS_lchown),
    ("fchown", libc::SYS_fchown),
];

/// Calls that are met often; the others are shown by their number.
const OTHERS: [(&str, i64); 24] = [
    ("read", libc::SYS_read),
    ("open", libc::SYS_open),
    ("openat", libc::SYS_openat),
    ("close", libc::SYS_close),
    ("mmap", libc::SYS_mmap),
    ("munmap", libc::SYS_munmap),
    ("mprotect", libc::SYS_mprotect),
    ("brk", libc::SYS_brk),
    ("fstat", libc::SYS_fstat),
    ("lstat", libc::SYS_lstat),
    ("newfstatat", libc::SYS_newfstatat),
    ("statx", libc::SYS_statx),
    ("poll", libc::SYS_poll),
    ("futex", libc::SYS_futex),
    ("fcntl", libc::SYS_fcntl),
    ("flock", libc::SYS_flock),
    ("clone", libc::SYS_clone),
    ("clone3", libc::SYS_clone3),
    ("execve", libc::SYS_execve),
    ("wait4", libc::SYS_wait4),
    ("setresuid", libc::SYS_setresuid),
    ("rt_sigprocmask", libc::SYS_rt_sigprocmask),
    ("rt_sigaction", libc::SYS_rt_sigaction),
    ("exit_group", libc::SYS_exit_group),
];

pub fn name(number: u64) -> String {
    let known = CHANGES.iter().chain(&OTHERS).find(|(_, known)| *known == number as i64);
    known.map_or_else(|| format!("system call {number}"), |(name, _)| (*name).to_owned())
}
