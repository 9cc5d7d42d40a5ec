//! File systems of a test's own, in a file behind a loop device, whose power can be cut: what was not
//! synced is gone, as after a real one.

use std::cell::Cell;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::{seconds, sh, wait_until};

/// No file system syncs by itself within a test: what is there after a cut was synced by the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// As Debian mounts it: data=ordered, delayed allocation.
    Ext4,
    /// With the two safety nets off that ext4 has for programs that do not sync.
    Ext4Writeback,
    Xfs,
}

impl Kind {
    fn make(self, image: &Path) {
        let image = image.to_str().unwrap();
        match self {
            Kind::Ext4 | Kind::Ext4Writeback => sh("mkfs.ext4", &["-q", "-F", "-E", "lazy_itable_init=1", image]),
            Kind::Xfs => sh("mkfs.xfs", &["-q", "-f", image]),
        };
    }

    fn options(self) -> &'static str {
        match self {
            Kind::Ext4 => "commit=600",
            Kind::Ext4Writeback => "commit=600,data=writeback,noauto_da_alloc",
            Kind::Xfs => "noatime",
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Kind::Ext4 => "ext4",
            Kind::Ext4Writeback => "ext4 data=writeback",
            Kind::Xfs => "xfs",
        }
    }
}

/// What a power cut takes along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// All that was not synced.
    Unsynced,
    /// The data only: names, links and lengths were on the disk already.
    UnsyncedData,
}

/// The smallest that mkfs.xfs makes. The file has holes: it takes what is written.
const SIZE: u64 = 320 << 20;

/// A mounted file system. Unmounted, detached and removed when dropped; drop it before what it lies in.
pub struct Disk {
    kind: Kind,
    image: PathBuf,
    at: PathBuf,
    mounted: Cell<bool>,
}

impl Disk {
    /// Makes the file system in a file `image` and mounts it at `at`.
    pub fn make(kind: Kind, image: &Path, at: &Path) -> Disk {
        leave_the_machines_mounts();
        let disk = Disk { kind, image: image.to_owned(), at: at.to_owned(), mounted: Cell::new(false) };
        fs::create_dir_all(at).unwrap();
        disk.make_anew();
        disk
    }

    /// An empty one in its place.
    pub fn make_anew(&self) {
        self.unmount();
        let _ = fs::remove_file(&self.image);
        File::create(&self.image).and_then(|file| file.set_len(SIZE)).unwrap();
        self.kind.make(&self.image);
        self.mount();
        super::set_mode(&self.at, 0o755);
    }

    /// The power is gone, from this moment on.
    pub fn cut(&self, cut: Cut) {
        let flush: &[&str] = if cut == Cut::UnsyncedData { &["-f"] } else { &[] };
        let command = [&["shutdown"], flush].concat().join(" ");
        sh("xfs_io", &["-x", "-c", &command, self.at.to_str().unwrap()]);
    }

    /// After a cut, once no process is left on it: what the disk has, and nothing that memory had.
    pub fn power_on(&self) {
        self.unmount();
        self.mount();
    }

    /// Writes out all there is.
    pub fn sync(&self) {
        sh("sync", &["-f", self.at.to_str().unwrap()]);
    }

    /// On a loop device that goes with the mount.
    fn mount(&self) {
        let options = format!("loop,{}", self.kind.options());
        // Between finding a free device and taking it, another test may be faster.
        wait_until(&format!("{} to be mounted", self.image.display()), seconds(120), || {
            let (image, at) = (self.image.to_str().unwrap(), self.at.to_str().unwrap());
            quiet("mount", &["-t", self.type_name(), "-o", &options, image, at])
        });
        self.mounted.set(true);
    }

    fn type_name(&self) -> &'static str {
        if self.kind == Kind::Xfs { "xfs" } else { "ext4" }
    }

    /// Returns when the file system is gone: while it is there, it may write to the disk.
    fn unmount(&self) {
        if !self.mounted.replace(false) {
            return;
        }
        // A process that was killed lets go of its files a moment later.
        wait_until("nobody on the file system", seconds(30), || quiet("umount", &[self.at.to_str().unwrap()]));
        wait_until("the loop device to be free", seconds(30), || {
            sh("losetup", &["-j", self.image.to_str().unwrap()]).is_empty()
        });
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted.get() {
            // Lazily: a test that failed may have left processes on it. The device goes when they do.
            quiet("umount", &["-l", self.at.to_str().unwrap()]);
        }
        let _ = fs::remove_file(&self.image);
    }
}

thread_local! {
    static ALONE: Cell<bool> = const { Cell::new(false) };
}

/// Gives this thread, and what it starts, a copy of the machine's mounts. Other tests make copies of the
/// machine's too, and in such a one a file system would live on that was unmounted here, and go on
/// writing to the disk that was cut.
fn leave_the_machines_mounts() {
    if ALONE.replace(true) {
        return;
    }
    unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace");
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("mounts of our own");
}

fn quiet(program: &str, args: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
