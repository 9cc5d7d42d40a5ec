//! The cage from inside: each test starts itself once more, enters it there, and tries.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::Command;

use super::*;
use crate::sys::limits::Limits;

const INSIDE: &str = "POLLER_TEST_INSIDE";

/// Runs `inside` in a process of its own, with a folder of its own, for what it gives up it never gets back.
fn in_a_process(test: &str, inside: impl FnOnce(&Path)) {
    if let Some(folder) = std::env::var_os(INSIDE) {
        nix::sys::prctl::set_no_new_privs().unwrap();
        return inside(&PathBuf::from(folder));
    }
    let folder = std::env::temp_dir().join(format!("poller-cage-{}-{test}", std::process::id()));
    for name in ["own/a", "own/b", "foreign"] {
        fs::create_dir_all(folder.join(name)).unwrap();
    }
    fs::write(folder.join("own/a/file"), "own").unwrap();
    fs::write(folder.join("foreign/file"), "foreign").unwrap();
    let name = format!("sys::cage::tests::{test}");
    let output = Command::new("/proc/self/exe")
        .args([&name, "--exact", "--nocapture", "--test-threads=1"])
        .env(INSIDE, &folder)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    fs::remove_dir_all(&folder).unwrap();
    assert!(output.status.success() && said.contains("1 passed"), "{}\n{said}", output.status);
}

#[track_caller]
fn refused<T>(what: std::io::Result<T>) {
    let error = what.err().expect("it was let through");
    let kinds = [ErrorKind::PermissionDenied, ErrorKind::CrossesDevices];
    assert!(kinds.contains(&error.kind()), "{error}");
}

fn has_landlock(version: i32) -> bool {
    landlock_version() >= version
}

fn cage<'a>(read: Reading<'a>, write: &'a [&'a Path], outside: Outside) -> Cage<'a> {
    Cage { read, write, remove: None, outside }
}

/// By number, with no arguments to speak of.
fn call(number: libc::c_long, arguments: [libc::c_long; 3]) -> Result<libc::c_long, Errno> {
    let [a, b, c] = arguments;
    // SAFETY: of tests only: refused calls do nothing, and no argument is an address.
    Errno::result(unsafe { libc::syscall(number, a, b, c, 0, 0, 0) })
}

#[test]
fn a_settled_helper_has_its_repository_and_no_other_file() {
    in_a_process("a_settled_helper_has_its_repository_and_no_other_file", |folder| {
        let (own, foreign) = (folder.join("own"), folder.join("foreign"));
        symlink(foreign.join("file"), own.join("link")).unwrap();
        cage(Reading::Beneath(&[&own]), &[&own], Outside::Settled).enter().unwrap();
        // What git does in there.
        assert_eq!(fs::read_to_string(own.join("a/file")).unwrap(), "own");
        fs::write(own.join("a/new"), "one").unwrap();
        fs::rename(own.join("a/new"), own.join("b/new")).unwrap();
        fs::hard_link(own.join("b/new"), own.join("a/again")).unwrap();
        fs::create_dir(own.join("c")).unwrap();
        fs::remove_dir(own.join("c")).unwrap();
        File::open(&own).unwrap().sync_all().unwrap();
        OpenOptions::new().write(true).truncate(true).open(own.join("b/new")).unwrap();
        fs::remove_file(own.join("b/new")).unwrap();
        if !has_landlock(2) {
            return;
        }
        for path in ["/etc/passwd", "/proc/self/maps", "/dev/null"] {
            refused(File::open(path));
        }
        refused(fs::read_dir("/"));
        refused(fs::read_dir(folder));
        refused(File::open(foreign.join("file")));
        refused(File::open(own.join("link")));
        refused(File::create(foreign.join("new")));
        refused(fs::create_dir(foreign.join("new")));
        refused(symlink("x", foreign.join("new")));
        refused(OpenOptions::new().append(true).open(foreign.join("file")));
        refused(fs::remove_file(foreign.join("file")));
        refused(fs::rename(own.join("a/file"), foreign.join("stolen")));
        refused(fs::hard_link(foreign.join("file"), own.join("stolen")));
        refused(UnixListener::bind(own.join("socket")));
        refused(nix::unistd::mkfifo(&own.join("pipe"), nix::sys::stat::Mode::S_IRWXU).map_err(Into::into));
        if has_landlock(3) {
            let path = std::ffi::CString::new(foreign.join("file").as_os_str().as_encoded_bytes()).unwrap();
            refused(nix::unistd::truncate(path.as_c_str(), 0).map_err(Into::into));
        }
        if has_landlock(6) {
            refused(nix::sys::signal::kill(nix::unistd::getppid(), None).map_err(Into::into));
        }
    });
}

#[test]
fn a_dry_run_leaves_the_repository_and_can_take_its_quarantine_away() {
    in_a_process("a_dry_run_leaves_the_repository_and_can_take_its_quarantine_away", |folder| {
        let (repository, quarantine) = (folder.join("own"), folder.join("foreign"));
        let write: &[&Path] = &[&quarantine];
        let cage =
            Cage { read: Reading::Beneath(&[&repository]), write, remove: Some(folder), outside: Outside::Settled };
        cage.enter().unwrap();
        assert_eq!(fs::read_to_string(repository.join("a/file")).unwrap(), "own");
        fs::create_dir(quarantine.join("objects")).unwrap();
        fs::write(quarantine.join("objects/pack"), "one").unwrap();
        if has_landlock(2) {
            refused(File::create(repository.join("a/new")));
            refused(fs::remove_file(repository.join("a/file")));
            refused(OpenOptions::new().append(true).open(repository.join("a/file")));
        }
        fs::remove_dir_all(&quarantine).unwrap();
        // For whoever looks after this test.
        assert!(!quarantine.exists());
    });
}

#[test]
fn a_helper_that_has_yet_to_connect_can_read_and_connect_but_neither_write_nor_start_anything() {
    in_a_process(
        "a_helper_that_has_yet_to_connect_can_read_and_connect_but_neither_write_nor_start_anything",
        |folder| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            cage(Reading::Anywhere, &[], Outside::Open).enter().unwrap();
            assert!(File::open("/etc/passwd").is_ok() && fs::read_dir("/").is_ok());
            // Looking up a name takes a thread.
            let address = listener.local_addr().unwrap();
            std::thread::spawn(move || TcpStream::connect(address).unwrap()).join().unwrap();
            if has_landlock(1) {
                refused(File::create(folder.join("foreign/new")));
                refused(OpenOptions::new().write(true).open(folder.join("own/a/file")));
                refused(fs::remove_file(folder.join("own/a/file")));
            }
            refused(Command::new("/bin/true").status());
            // Then it settles.
            cage(Reading::Beneath(&[]), &[], Outside::Settled).enter().unwrap();
            refused(TcpStream::connect(address));
            if has_landlock(1) {
                refused(File::open("/etc/passwd"));
                refused(File::open(folder.join("own/a/file")));
            }
        },
    );
}

#[test]
fn a_connection_that_is_there_goes_on_and_no_other_begins() {
    in_a_process("a_connection_that_is_there_goes_on_and_no_other_begins", |folder| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut there = TcpStream::connect(address).unwrap();
        let mut served = listener.accept().unwrap().0;
        cage(Reading::Anywhere, &[folder], Outside::Settled).enter().unwrap();
        served.write_all(b"on").unwrap();
        let mut bytes = [0; 2];
        there.read_exact(&mut bytes).unwrap();
        refused(TcpStream::connect(address));
        refused(UdpSocket::bind("127.0.0.1:0"));
        refused(UnixStream::connect(folder.join("socket")));
        refused(UnixListener::bind(folder.join("socket")));
        // Another address for the same socket.
        assert_eq!(call(libc::SYS_connect, [3, 0, 0]), Err(Errno::EPERM));
        refused(std::thread::Builder::new().spawn(|| ()).map(drop));
        refused(Command::new("/bin/true").status());
    });
}

#[test]
fn calls_that_attacks_are_made_of_are_refused() {
    in_a_process("calls_that_attacks_are_made_of_are_refused", |_| {
        assert!(seccomp::is_offered());
        cage(Reading::Anywhere, &[], Outside::Open).enter().unwrap();
        for (number, error) in seccomp::refused_as_a_whole(Part::Always) {
            assert_eq!(call(number, [-1, 0, 0]), Err(error), "call {number}");
        }
        for flag in [libc::CLONE_NEWUSER, libc::CLONE_NEWNS, libc::CLONE_NEWNET, libc::CLONE_NEWPID] {
            let flags = libc::c_long::from(flag | libc::SIGCHLD);
            assert_eq!(call(libc::SYS_clone, [flags, 0, 0]), Err(Errno::EPERM));
        }
        std::thread::spawn(|| ()).join().unwrap();
        // With the numbers of another ABI.
        #[cfg(target_arch = "x86_64")]
        assert_eq!(call(0x4000_0000 | 520, [0, 0, 0]), Err(Errno::ENOSYS));
        cage(Reading::Anywhere, &[], Outside::Settled).enter().unwrap();
        for (number, error) in seccomp::refused_as_a_whole(Part::Settled) {
            assert_eq!(call(number, [0, 0, 0]), Err(error), "call {number}");
        }
        let executable = libc::c_long::from(libc::PROT_READ | libc::PROT_EXEC);
        for number in [libc::SYS_mmap, libc::SYS_mprotect, libc::SYS_pkey_mprotect] {
            assert_eq!(call(number, [0, 4096, executable]), Err(Errno::EPERM), "call {number}");
        }
        // Memory as such is to be had.
        assert_eq!(vec![7_u8; 64 << 20].len(), 64 << 20);
    });
}

#[test]
fn memory_files_and_cores_are_bounded_and_a_stricter_bound_stays() {
    in_a_process("memory_files_and_cores_are_bounded_and_a_stricter_bound_stays", |folder| {
        crate::sys::limits::no_core().unwrap();
        Limits { memory: 128 << 20, file: Some(1 << 20) }.impose().unwrap();
        Limits::FETCHER.impose().unwrap();
        let mut memory: Vec<u8> = Vec::new();
        assert!(memory.try_reserve_exact(256 << 20).is_err() && memory.try_reserve_exact(16 << 20).is_ok());
        let mut file = File::create(folder.join("own/large")).unwrap();
        let error = file.write_all(&vec![1; 2 << 20]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EFBIG));
        let (core, _) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_CORE).unwrap();
        assert_eq!(core, 0);
    });
}
