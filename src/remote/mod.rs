//! Asking a git server: over SSH in-process, through a program, or on this machine.

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

use tokio::io::{AsyncRead, AsyncWrite};

/// A conversation with `git-upload-pack`, whatever it runs through.
pub trait Conversation: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Conversation for T {}

/// Which protocol is asked for. libgit2 speaks the first one only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    V0,
    V2,
}

/// What the server's `git-upload-pack` wrote to its standard error: where forges say "no such repository".
#[derive(Clone, Debug, Default)]
pub struct Complaint(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl Complaint {
    /// Enough for a sentence; a server may write without end.
    const LONGEST: usize = 2000;

    pub fn push(&self, bytes: &[u8]) {
        let mut text = self.0.lock().unwrap_or_else(|e| e.into_inner());
        let room = Self::LONGEST.saturating_sub(text.len());
        text.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// One printable line; None when nothing was said.
    pub fn text(&self) -> Option<String> {
        let bytes = self.0.lock().unwrap_or_else(|e| e.into_inner());
        let text = crate::report::printable(String::from_utf8_lossy(&bytes).trim());
        (!text.is_empty()).then_some(text)
    }
}
