//! What a server may ask of us: to look at its host key. russh accepts every channel that a server opens by
//! itself, and keeps it; here the first of them ends the connection, for poller never asks for forwarding.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use russh::Channel;
use russh::client::{ChannelOpenHandle, Handler, Msg, Session};
use russh::keys::PublicKeyOrCertificate;

use super::known_hosts::KnownHosts;
use super::session::SessionError;

pub struct Client {
    pub pinned: KnownHosts,
    pub host: String,
    pub port: u16,
    /// Set before the connection ends for a channel that nobody asked for.
    pub uninvited: Arc<AtomicBool>,
}

impl Client {
    fn refuse(&self) -> Result<(), SessionError> {
        self.uninvited.store(true, Ordering::Release);
        Err(SessionError::Uninvited)
    }
}

impl Handler for Client {
    type Error = SessionError;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, SessionError> {
        self.pinned.check(&self.host, self.port, &shown.public_key()).map_err(SessionError::HostKey)?;
        Ok(true)
    }

    async fn server_channel_open_session(
        &mut self,
        _: Channel<Msg>,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), SessionError> {
        self.refuse()
    }

    async fn server_channel_open_direct_tcpip(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), SessionError> {
        self.refuse()
    }

    async fn server_channel_open_direct_streamlocal(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), SessionError> {
        self.refuse()
    }

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), SessionError> {
        self.refuse()
    }

    async fn server_channel_open_forwarded_streamlocal(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), SessionError> {
        self.refuse()
    }

    async fn server_channel_open_agent_forward(
        &mut self,
        _: Channel<Msg>,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), SessionError> {
        self.refuse()
    }

    async fn server_channel_open_x11(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), SessionError> {
        self.refuse()
    }

    /// A kind that russh does not know is refused by it as well; this makes it the same end for all.
    async fn should_accept_unknown_server_channel(&mut self, _: russh::ChannelId, _: &str) -> bool {
        true
    }

    async fn server_channel_open_unknown(
        &mut self,
        _: Channel<Msg>,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), SessionError> {
        self.refuse()
    }
}
