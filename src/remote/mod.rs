//! Asking a git server: over SSH in-process, through a program, or on this machine.

pub mod channels;
mod client;
pub mod guard;
pub mod host_key;
pub mod host_key_error;
pub mod known_hosts;
pub mod local;
pub mod ls_refs;
pub mod openssh;
pub mod pkt_line;
pub mod session;
pub mod transport;
pub mod versions;
pub mod wildcard;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

/// For a server's last words after a conversation went wrong.
pub const A_MOMENT: Duration = Duration::from_secs(1);

/// One thread, and one more for as long as a name is looked up: a cage does not hold for a thread that is older.
pub fn runtime() -> std::io::Result<Runtime> {
    Builder::new_current_thread().enable_all().thread_keep_alive(Duration::ZERO).build()
}

/// A conversation with `git-upload-pack`, whatever it runs through.
pub trait Conversation: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Conversation for T {}

/// Which protocol is asked for. libgit2 speaks the first one only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    V0,
    V2,
}

/// What is started on the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    UploadPack,
    /// Started only to see whether it would answer; nothing is ever sent to it.
    ReceivePack,
}

impl Service {
    pub fn word(self) -> &'static str {
        match self {
            Service::UploadPack => "git-upload-pack",
            Service::ReceivePack => "git-receive-pack",
        }
    }
}

/// What the server's `git-upload-pack` wrote to its standard error: where forges say "no such repository".
#[derive(Clone, Debug)]
pub struct Complaint {
    text: Arc<Mutex<Vec<u8>>>,
    over: Arc<watch::Sender<bool>>,
}

impl Default for Complaint {
    fn default() -> Self {
        Complaint { text: Arc::default(), over: Arc::new(watch::Sender::new(false)) }
    }
}

impl Complaint {
    /// Enough for a sentence; a server may write without end.
    const LONGEST: usize = 2000;

    pub fn push(&self, bytes: &[u8]) {
        let mut text = self.text.lock().unwrap_or_else(|e| e.into_inner());
        let room = Self::LONGEST.saturating_sub(text.len());
        text.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// Nothing more will come.
    pub fn end(&self) {
        self.over.send_replace(true);
    }

    /// Waits for the server's last words, which travel apart from its output, but not long.
    pub async fn settled(&self) {
        let mut over = self.over.subscribe();
        // The sender is held by this very value, so the only other end of the wait is the time limit.
        let _ = tokio::time::timeout(A_MOMENT, over.wait_for(|over| *over)).await;
    }

    /// One printable line; None when nothing was said.
    pub fn text(&self) -> Option<String> {
        let bytes = self.text.lock().unwrap_or_else(|e| e.into_inner());
        let text = crate::report::printable(String::from_utf8_lossy(&bytes).trim());
        (!text.is_empty()).then_some(text)
    }
}
