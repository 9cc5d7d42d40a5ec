//! SIGKILL at every system call of a poll, enumerated by strace.
