//! System calls that a helper never makes and that attacks are made of.
//!
//! A list of what is refused, and not of what is allowed: what a C library calls changes with its version,
//! and a list that fits Debian's today would end fetches on another system, or after an upgrade. Refused
//! calls give an error, EPERM, and not death: what meets one by mistake can say so.
//!
//! The filter is written out here, as there is nothing to it: the number is looked for in a sorted list.
//! It comes in two parts, which add up. See `man 2 seccomp`.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, bail};
use nix::errno::Errno;
use nix::libc::{self, c_long, sock_filter, sock_fprog};

/// A part of the filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// No programs, no rights over other processes, no new corners of the kernel.
    Always,
    /// No sockets, threads or processes beyond those that are there, and no new code.
    Settled,
}

/// A call that is refused, as a whole or when an argument has one of these bits.
struct Refusal {
    call: c_long,
    bits: Option<(u32, u32)>,
    error: Errno,
}

const fn all(call: c_long) -> Refusal {
    Refusal { call, bits: None, error: Errno::EPERM }
}

const fn with(call: c_long, argument: u32, bits: u32) -> Refusal {
    Refusal { call, bits: Some((argument, bits)), error: Errno::EPERM }
}

/// Its flags lie in memory, where no filter can see them. glibc then uses `clone`.
const CLONE3: Refusal = Refusal { call: libc::SYS_clone3, bits: None, error: Errno::ENOSYS };

const NAMESPACES: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u32;

const ALWAYS: &[Refusal] = &[
    all(libc::SYS_execve),
    all(libc::SYS_execveat),
    // Other processes of the same user.
    all(libc::SYS_ptrace),
    all(libc::SYS_process_vm_readv),
    all(libc::SYS_process_vm_writev),
    all(libc::SYS_pidfd_getfd),
    all(libc::SYS_kcmp),
    // A user namespace is the way to most of what follows.
    all(libc::SYS_unshare),
    all(libc::SYS_setns),
    with(libc::SYS_clone, 0, NAMESPACES),
    CLONE3,
    all(libc::SYS_mount),
    all(libc::SYS_umount2),
    all(libc::SYS_pivot_root),
    all(libc::SYS_chroot),
    all(libc::SYS_move_mount),
    all(libc::SYS_open_tree),
    all(libc::SYS_fsopen),
    all(libc::SYS_fsconfig),
    all(libc::SYS_fsmount),
    all(libc::SYS_fspick),
    all(libc::SYS_mount_setattr),
    all(libc::SYS_open_by_handle_at),
    all(libc::SYS_name_to_handle_at),
    // Where most holes of the kernel were.
    all(libc::SYS_bpf),
    all(libc::SYS_perf_event_open),
    all(libc::SYS_userfaultfd),
    all(libc::SYS_io_uring_setup),
    all(libc::SYS_io_uring_enter),
    all(libc::SYS_io_uring_register),
    all(libc::SYS_keyctl),
    all(libc::SYS_add_key),
    all(libc::SYS_request_key),
    all(libc::SYS_fanotify_init),
    all(libc::SYS_personality),
    #[cfg(target_arch = "x86_64")]
    all(libc::SYS_modify_ldt),
    // For root only anyhow.
    all(libc::SYS_init_module),
    all(libc::SYS_finit_module),
    all(libc::SYS_delete_module),
    all(libc::SYS_kexec_load),
    #[cfg(target_arch = "x86_64")]
    all(libc::SYS_kexec_file_load),
    all(libc::SYS_reboot),
    all(libc::SYS_swapon),
    all(libc::SYS_swapoff),
    all(libc::SYS_acct),
    all(libc::SYS_quotactl),
];

const SETTLED: &[Refusal] = &[
    all(libc::SYS_socket),
    all(libc::SYS_connect),
    all(libc::SYS_bind),
    all(libc::SYS_listen),
    all(libc::SYS_clone),
    #[cfg(target_arch = "x86_64")]
    all(libc::SYS_fork),
    #[cfg(target_arch = "x86_64")]
    all(libc::SYS_vfork),
    // Shared memory can be attached as code.
    all(libc::SYS_shmat),
    with(libc::SYS_mmap, 2, libc::PROT_EXEC as u32),
    with(libc::SYS_mprotect, 2, libc::PROT_EXEC as u32),
    with(libc::SYS_pkey_mprotect, 2, libc::PROT_EXEC as u32),
];

/// AUDIT_ARCH_X86_64 and AUDIT_ARCH_AARCH64. What poller is not built for runs without a filter.
const ARCHITECTURE: Option<u32> = if cfg!(target_arch = "x86_64") {
    Some(0xc000_003e)
} else if cfg!(target_arch = "aarch64") {
    Some(0xc000_00b7)
} else {
    None
};

/// From here on x86_64 has its calls once more, for programs with short pointers.
const SECOND_NUMBERS: u32 = 0x4000_0000;

/// Where `struct seccomp_data` has what a filter looks at.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const AT_LEAST: u32 = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
const ANY_BIT: u32 = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;

fn program(architecture: u32, refusals: &[Refusal]) -> Vec<sock_filter> {
    let mut steps = vec![
        step(LOAD, ARCH, 0, 0),
        // The numbers of 32-bit calls mean something else.
        step(EQUAL, architecture, 1, 0),
        step(RETURN, libc::SECCOMP_RET_KILL_PROCESS, 0, 0),
        step(LOAD, NUMBER, 0, 0),
        step(AT_LEAST, SECOND_NUMBERS, 0, 1),
        refuse_with(Errno::ENOSYS),
    ];
    let mut sorted: Vec<&Refusal> = refusals.iter().collect();
    sorted.sort_by_key(|refusal| refusal.call);
    steps.extend(search(&sorted));
    steps
}

const fn step(code: u32, k: u32, yes: u8, no: u8) -> sock_filter {
    sock_filter { code: code as u16, jt: yes, jf: no, k }
}

fn refuse_with(error: Errno) -> sock_filter {
    step(RETURN, libc::SECCOMP_RET_ERRNO | error as u32, 0, 0)
}

/// Halves the list until a few are left. The kernel runs the filter for each number there is when it is put
/// in place, and for each call that it cannot tell from the number.
fn search(sorted: &[&Refusal]) -> Vec<sock_filter> {
    let mut steps = Vec::new();
    if sorted.len() > 3 {
        let (below, above) = sorted.split_at(sorted.len() / 2);
        let (lower, upper) = (search(below), search(above));
        let over = u8::try_from(lower.len()).expect("a list of some dozens");
        steps.push(step(AT_LEAST, above[0].call as u32, over, 0));
        steps.extend(lower);
        steps.extend(upper);
        return steps;
    }
    for refusal in sorted {
        let number = refusal.call as u32;
        match refusal.bits {
            None => steps.extend([step(EQUAL, number, 0, 1), refuse_with(refusal.error)]),
            // The lower half of the argument, as both architectures store it.
            Some((argument, bits)) => steps.extend([
                step(EQUAL, number, 0, 4),
                step(LOAD, ARGUMENTS + 8 * argument, 0, 0),
                step(ANY_BIT, bits, 0, 1),
                refuse_with(refusal.error),
                step(LOAD, NUMBER, 0, 0),
            ]),
        }
    }
    steps.push(step(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0));
    steps
}

/// Refuses these calls from now on, for all threads of this process and all that it starts. Without
/// seccomp in the kernel nothing happens. The process has `no_new_privs`.
pub fn refuse(part: Part) -> Result<()> {
    static DONE: [AtomicBool; 2] = [AtomicBool::new(false), AtomicBool::new(false)];
    let Some(architecture) = ARCHITECTURE else { return Ok(()) };
    if DONE[part as usize].swap(true, Ordering::Relaxed) {
        return Ok(());
    }
    let steps = program(architecture, if part == Part::Always { ALWAYS } else { SETTLED });
    let program = sock_fprog { len: steps.len() as u16, filter: steps.as_ptr().cast_mut() };
    let flags = libc::SECCOMP_FILTER_FLAG_TSYNC;
    // SAFETY: the kernel copies the program, which outlives the call.
    let done = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &program) };
    let error = Errno::last();
    match done {
        0 => Ok(()),
        // Not built in, or kept from us by a container's own filter.
        -1 if !is_offered() => Ok(()),
        -1 => bail!("the filter of system calls: {error}"),
        thread => bail!("the filter of system calls could not be put on the thread {thread}"),
    }
}

/// Whether the kernel has what [`refuse`] needs.
pub fn is_offered() -> bool {
    let action = libc::SECCOMP_RET_ERRNO;
    // SAFETY: the kernel reads one number.
    let answer = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0, &action) };
    ARCHITECTURE.is_some() && answer == 0
}

/// For tests: the calls of a part that are refused whatever their arguments.
#[cfg(test)]
pub fn refused_as_a_whole(part: Part) -> Vec<(c_long, Errno)> {
    let refusals = if part == Part::Always { ALWAYS } else { SETTLED };
    refusals.iter().filter(|one| one.bits.is_none()).map(|one| (one.call, one.error)).collect()
}
