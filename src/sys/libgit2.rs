//! libgit2's process-wide switches. They are not thread-safe, hence `unsafe`, and set once, before
//! any other use, in a process that has one thread.

use std::sync::Mutex;

use anyhow::{Context, Result};
use git2::transport::{Service, SmartSubtransport, SmartSubtransportStream, Transport};
use git2::{ConfigLevel, opts};

/// The largest object that is taken from a server; libgit2 holds a whole one in memory, and of a delta
/// three: what it is made from, what is written there, and what comes out.
pub const LARGEST_OBJECT: u64 = 512 << 20;

/// How much of the packs is mapped at a time, and in pieces of what size.
const MAPPED: usize = 128 << 20;
const MAPPED_PIECE: usize = 16 << 20;

/// Puts libgit2 on a short lead. Call once, first thing in a process that uses it.
pub fn restrain() -> Result<()> {
    // libgit2 takes SUDO_UID for a sign that another user's repository is fine.
    // SAFETY: called before any thread is started.
    unsafe { std::env::remove_var("SUDO_UID") };
    // An `insteadOf` in a user's or the system's configuration would redirect the URL.
    for level in [ConfigLevel::System, ConfigLevel::Global, ConfigLevel::XDG, ConfigLevel::ProgramData] {
        // SAFETY: no other thread, nothing of libgit2 in use yet.
        unsafe { opts::set_search_path(level, "") }.context("emptying libgit2's search paths")?;
    }
    // SAFETY: as above. Repositories are made by poller's own user; a local source may belong to another.
    unsafe { opts::set_verify_owner_validation(false) }.context("owner validation")?;
    // Left alone it maps packs of up to 8 GiB, which all counts as this process's.
    // SAFETY: as above.
    unsafe {
        opts::set_mwindow_size(MAPPED_PIECE).context("libgit2's windows")?;
        opts::set_mwindow_mapped_limit(MAPPED).context("libgit2's windows")?;
    }
    // One ref update is poller's transaction: it must be on the disk before the next step is taken.
    enable_fsync();
    opts::strict_hash_verification(true);
    Ok(())
}

fn enable_fsync() {
    // SAFETY: libgit2 is initialised by the calls before; the option takes one int by value.
    unsafe {
        libgit2_sys::git_libgit2_opts(
            libgit2_sys::GIT_OPT_ENABLE_FSYNC_GITDIR as nix::libc::c_int,
            1 as nix::libc::c_int,
        );
    }
}

/// The stream that the next connection to `poller://` uses; see [`offer`].
static OFFERED: Mutex<Option<Box<dyn SmartSubtransportStream>>> = Mutex::new(None);

/// The URL under which libgit2 finds the stream that was offered.
pub const OFFERED_URL: &str = "poller://connection";

/// Hands libgit2 a connection that is already open, checked and speaking to `git-upload-pack`.
pub fn offer(stream: Box<dyn SmartSubtransportStream>) -> Result<()> {
    static REGISTERED: std::sync::Once = std::sync::Once::new();
    let mut result = Ok(());
    REGISTERED.call_once(|| {
        // SAFETY: once, and this process has one thread that uses libgit2.
        result = unsafe { git2::transport::register("poller", |remote| Transport::smart(remote, false, Offered)) };
    });
    result.context("registering the transport")?;
    *OFFERED.lock().unwrap_or_else(|e| e.into_inner()) = Some(stream);
    Ok(())
}

struct Offered;

impl SmartSubtransport for Offered {
    fn action(&self, _url: &str, service: Service) -> Result<Box<dyn SmartSubtransportStream>, git2::Error> {
        if !matches!(service, Service::UploadPackLs) {
            return Err(git2::Error::from_str("poller only ever fetches"));
        }
        let stream = OFFERED.lock().unwrap_or_else(|e| e.into_inner()).take();
        stream.ok_or_else(|| git2::Error::from_str("no connection was offered"))
    }

    fn close(&self) -> Result<(), git2::Error> {
        Ok(())
    }
}
