//! One SSH connection: TCP, host key, authentication, and channels that run `git-upload-pack`.
//!
//! Nothing is sent after the key exchange to a server whose key is not pinned, and one attempt is
//! made with the one key that was configured.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use russh::client::{self, AuthResult, Handle, Msg};
use russh::keys::{Algorithm, PrivateKey, PrivateKeyWithHashAlg};
use russh::{Channel, ChannelMsg, Preferred};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::net::TcpStream;

use super::client::Client;
use super::known_hosts::{HostKeyError, KnownHosts};
use super::{Complaint, Conversation, Protocol, Service};
use crate::config::Remote;
use crate::outcome::{Class, Failure};
use crate::processes::messages::{Access, Origin};
use crate::report::duration;

/// An authenticated connection.
pub struct Session {
    handle: Handle<Client>,
    host: String,
    /// The server opened a channel itself, which ended the connection.
    uninvited: Arc<AtomicBool>,
}

/// How far a connection has come, so that a time-out can say what was waited for.
#[derive(Clone, Default)]
pub struct Stage(Arc<Mutex<&'static str>>);

impl Stage {
    pub fn enter(&self, what: &'static str) {
        *self.0.lock().unwrap_or_else(|e| e.into_inner()) = what;
    }

    pub fn now(&self) -> &'static str {
        *self.0.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// The failure for a server that took longer than `timeout`.
pub fn timed_out(url: &str, stage: &Stage, timeout: Duration) -> Failure {
    let limit = duration(timeout);
    Failure::new(Class::Unreachable, format!("{url}: no answer within {limit} while {}", stage.now()))
        .help("nothing was changed; the next poll tries again")
}

impl Session {
    /// Connects and authenticates. The caller sets the deadline, and hears when the connection is there, before the
    /// server has said a word.
    pub async fn open(origin: &Origin, stage: &Stage, connected: impl AsyncFnOnce()) -> Result<Session, Failure> {
        let (Remote::Ssh { user, host, port, .. }, Access::Key { path, key, known_hosts_path, known_hosts }) =
            (&origin.remote, &origin.access)
        else {
            return Err(Failure::new(Class::Bug, "an SSH session for something that is not SSH"));
        };
        let key = private_key(path, &key.0)?;
        let pinned = KnownHosts::parse(known_hosts_path, known_hosts);
        let stream = connect(host, *port, origin.timeout, stage).await?;
        connected().await;

        stage.enter("exchanging keys");
        let config = client::Config {
            preferred: preferred(pinned.algorithms(host, *port)),
            // The window bounds what a server may send ahead, the pipe behind it what we hold.
            window_size: 8 << 20,
            ..client::Config::default()
        };
        let uninvited = Arc::default();
        let handler = Client { pinned, host: host.clone(), port: *port, uninvited: Arc::clone(&uninvited) };
        let mut handle =
            client::connect_stream(Arc::new(config), stream, handler).await.map_err(|e| e.into_failure(host, *port))?;

        stage.enter("authenticating");
        let key = PrivateKeyWithHashAlg::new(Arc::new(key), None);
        let answer = handle
            .authenticate_publickey(user, key.clone())
            .await
            .map_err(|e| SessionError::from(e).into_failure(host, *port))?;
        if let AuthResult::Failure { remaining_methods, .. } = answer {
            // russh reports a connection that broke during the login as a rejection without alternatives.
            if remaining_methods.is_empty()
                && let Ok(Err(e)) = tokio::time::timeout(Duration::from_secs(1), handle).await
            {
                return Err(e.into_failure(host, *port));
            }
            return Err(rejected(user, host, path, &key));
        }
        Ok(Session { handle, host: host.clone(), uninvited })
    }

    /// Runs `git-upload-pack` for a repository on a channel of its own.
    pub async fn upload_pack(
        &self,
        path: &str,
        protocol: Protocol,
        stage: &Stage,
    ) -> Result<(Box<dyn Conversation>, Complaint), Failure> {
        self.start(Service::UploadPack, path, protocol, stage).await
    }

    pub async fn start(
        &self,
        service: Service,
        path: &str,
        protocol: Protocol,
        stage: &Stage,
    ) -> Result<(Box<dyn Conversation>, Complaint), Failure> {
        stage.enter("starting git on the server");
        let channel = self.channel().await?.ok_or_else(|| self.no_channel())?;
        self.start_on(channel, service, path, protocol, stage).await
    }

    /// None when the server will not have one more, for the time being or at all.
    pub async fn channel(&self) -> Result<Option<Channel<Msg>>, Failure> {
        match self.handle.channel_open_session().await {
            Ok(channel) => Ok(Some(channel)),
            Err(russh::Error::ChannelOpenFailure(_)) => Ok(None),
            Err(e) => Err(self.broken(e)),
        }
    }

    pub fn no_channel(&self) -> Failure {
        Failure::new(Class::Protocol, format!("{} accepts the key but opens no channel for a command", self.host))
            .help("let it allow sessions: MaxSessions in its sshd_config")
    }

    fn broken(&self, e: russh::Error) -> Failure {
        let e = if self.uninvited.load(Ordering::Acquire) { SessionError::Uninvited } else { e.into() };
        e.into_failure(&self.host, 0)
    }

    /// The same on a channel that is open.
    pub async fn start_on(
        &self,
        mut channel: Channel<Msg>,
        service: Service,
        path: &str,
        protocol: Protocol,
        stage: &Stage,
    ) -> Result<(Box<dyn Conversation>, Complaint), Failure> {
        let program = service.word();
        stage.enter("starting git on the server");
        let broken = |e: russh::Error| self.broken(e);
        if protocol == Protocol::V2 {
            // A server that does not accept the variable answers in v0, which is understood too.
            channel.set_env(false, "GIT_PROTOCOL", "version=2").await.map_err(broken)?;
        }
        let command = format!("{program} {}", quoted(path));
        channel.exec(true, command.as_bytes()).await.map_err(broken)?;
        let complaint = Complaint::default();
        loop {
            match channel.wait().await {
                Some(ChannelMsg::Success) => break,
                Some(ChannelMsg::ExtendedData { data, .. }) => complaint.push(&data),
                Some(ChannelMsg::WindowAdjusted { .. }) => {}
                // The channel did not end, the connection did.
                None => return Err(broken(russh::Error::Disconnect)),
                _ => {
                    let said = complaint.text().map(|t| format!(": {t}")).unwrap_or_default();
                    return Err(Failure::new(
                        Class::Protocol,
                        format!("{} accepts the key but will not run {program}{said}", self.host),
                    )
                    .help("is it a git server, and may this key read the repository?"));
                }
            }
        }
        stage.enter("waiting for git on the server");
        Ok((Box::new(conversation(channel, complaint.clone())), complaint))
    }
}

/// As a shell on the other side would read it back.
pub fn quoted(path: &str) -> String {
    format!("'{}'", path.replace('\'', r"'\''"))
}

/// Tries the addresses of a name one after the other. One that does not answer gets its share of `timeout`
/// only, so that one is left for the next, and for what follows; the last may take what is left.
pub(super) async fn connect(host: &str, port: u16, timeout: Duration, stage: &Stage) -> Result<Prompt, Failure> {
    let unreachable =
        |what: String| Failure::new(Class::Unreachable, what).help("nothing was changed; the next poll tries again");
    stage.enter("resolving the name");
    let addresses: Vec<SocketAddr> = tokio::net::lookup_host((host, port))
        .await
        .map_err(|e| unreachable(format!("{host}: the name does not resolve: {e}")))?
        .collect();
    stage.enter("connecting");
    let share = timeout / (addresses.len() as u32 + 1);
    let mut why = "no address".to_owned();
    for (index, address) in addresses.iter().enumerate() {
        let connecting = TcpStream::connect(address);
        let connected = if index + 1 < addresses.len() {
            tokio::time::timeout(share, connecting).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        } else {
            connecting.await
        };
        match connected {
            Ok(stream) => {
                stream.set_nodelay(true).map_err(|e| unreachable(format!("{host} port {port}: {e}")))?;
                return Ok(Prompt(stream));
            }
            Err(e) => why = e.to_string(),
        }
    }
    Err(unreachable(format!("{host} port {port}: {why}")))
}

/// Offers the algorithms of the keys that are pinned, so that the server shows one of those.
pub(super) fn preferred(pinned: Vec<Algorithm>) -> Preferred {
    let all = || Preferred::default().key.iter().filter(|&a| !a.clone().is_rsa()).cloned().collect();
    let key: Vec<Algorithm> = if pinned.is_empty() { all() } else { pinned };
    Preferred { key: Cow::Owned(key), ..Preferred::default() }
}

/// What a key is, for a person: its type and fingerprint.
///
/// # Errors
/// It is none, or none that poller can use.
pub fn describe_key(path: &Path, text: &str) -> Result<String, Failure> {
    let key = private_key(path, text)?;
    Ok(format!("{} {}", key.algorithm(), key.public_key().fingerprint(russh::keys::HashAlg::Sha256)))
}

pub fn private_key(path: &Path, text: &str) -> Result<PrivateKey, Failure> {
    let path = path.display();
    let new_key = format!("make one for poller: ssh-keygen -t ed25519 -N '' -f {path}.new");
    let passphrase = || {
        Failure::new(
            Class::Refused,
            format!("the key {path} is protected by a passphrase, which nobody is there to type"),
        )
        .help(format!("remove it: ssh-keygen -p -N '' -f {path}"))
    };
    let key = match russh::keys::decode_secret_key(text, None) {
        Ok(key) => key,
        Err(russh::keys::Error::KeyIsEncrypted) => return Err(passphrase()),
        Err(russh::keys::Error::UnsupportedKeyType { key_type_string, .. }) => {
            return Err(Failure::new(
                Class::Config,
                format!("the key {path} is of the type {key_type_string}, which poller does not use"),
            )
            .help(new_key));
        }
        Err(e) => {
            return Err(Failure::new(
                Class::Config,
                format!("{path} is not a private key in OpenSSH's or PEM format: {e}"),
            )
            .help("`identity` names the private key, not the file that ends in .pub")
            .help(new_key));
        }
    };
    if key.is_encrypted() {
        return Err(passphrase());
    }
    if key.algorithm().is_rsa() || key.algorithm().is_dsa() {
        return Err(Failure::new(
            Class::Config,
            format!("the key {path} is of the type {}, which poller does not use", key.algorithm()),
        )
        .help(new_key));
    }
    Ok(key)
}

fn rejected(user: &str, host: &str, path: &Path, key: &PrivateKeyWithHashAlg) -> Failure {
    let public = key.public_key();
    let fingerprint = public.fingerprint(russh::keys::HashAlg::Sha256);
    let failure =
        Failure::new(Class::Refused, format!("{user}@{host} rejected the key {} ({fingerprint})", path.display()));
    match public.to_openssh() {
        Ok(line) => failure.help(format!("add it as a read-only deploy key of the repository: {line}")),
        Err(_) => failure.help(format!("add it as a read-only deploy key: ssh-keygen -y -f {}", path.display())),
    }
}

#[derive(Debug)]
pub enum SessionError {
    HostKey(HostKeyError),
    /// A channel towards us, which nobody asked for.
    Uninvited,
    Ssh(russh::Error),
}

impl From<russh::Error> for SessionError {
    fn from(e: russh::Error) -> Self {
        SessionError::Ssh(e)
    }
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SessionError::HostKey(e) => e.fmt(f),
            SessionError::Uninvited => f.write_str("opened a channel that nobody asked for"),
            SessionError::Ssh(e) => e.fmt(f),
        }
    }
}

impl SessionError {
    pub(super) fn into_failure(self, host: &str, port: u16) -> Failure {
        let at = if port == 0 { host.to_owned() } else { format!("{host} port {port}") };
        match self {
            SessionError::HostKey(e) => e.into(),
            SessionError::Uninvited => Failure::new(Class::Protocol, format!("{at} {self}"))
                .help("is it a git server? poller asks for no forwarding, and ends such a connection"),
            SessionError::Ssh(russh::Error::Version) => {
                Failure::new(Class::Protocol, format!("{at} does not speak SSH 2"))
                    .help("are host and port those of an SSH server?")
            }
            SessionError::Ssh(e @ russh::Error::NoCommonAlgo { .. }) => {
                Failure::new(Class::Protocol, format!("{at}: {e}"))
                    .help("pin a key of a kind that the server has, in known_hosts: ssh-keyscan shows them")
            }
            SessionError::Ssh(russh::Error::WrongServerSig | russh::Error::PacketAuth | russh::Error::Kex) => {
                Failure::new(Class::Protocol, format!("{at}: the key exchange failed its check"))
                    .help("something between here and the server changes what is sent")
            }
            SessionError::Ssh(e) => Failure::new(Class::Unreachable, format!("{at}: the SSH connection broke: {e}"))
                .help("nothing was changed; the next poll tries again"),
        }
    }
}

/// A TCP stream that acknowledges at once. After authentication sshd sends two small packets, and
/// Nagle's algorithm on its side holds the second until ours is acknowledged: 40 ms, half of a probe.
pub(super) struct Prompt(TcpStream);

impl AsyncRead for Prompt {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.0).poll_read(cx, buf);
        if done.is_ready() {
            // The kernel forgets the option; it only ever speeds things up, so a refusal is no error.
            let _ = socket2::SockRef::from(&self.0).set_tcp_quickack(true);
        }
        done
    }
}

impl AsyncWrite for Prompt {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Separates the channel's output from its complaints, which russh's own stream would drop.
fn conversation(channel: Channel<Msg>, complaint: Complaint) -> impl Conversation {
    let (mut from_server, to_server) = channel.split();
    let (mut filling, filled) = tokio::io::duplex(256 << 10);
    let broke = Arc::new(AtomicBool::new(false));
    let found_broken = Arc::clone(&broke);
    tokio::spawn(async move {
        let mut ended = false;
        while let Some(message) = from_server.wait().await {
            match message {
                ChannelMsg::Data { data } => {
                    let Ok(()) = filling.write_all(&data).await else { break };
                }
                ChannelMsg::ExtendedData { data, .. } => complaint.push(&data),
                // After Eof the exit status and late complaints still come.
                ChannelMsg::Eof => ended = true,
                ChannelMsg::Close => {
                    ended = true;
                    break;
                }
                _ => {}
            }
        }
        // Before the reader sees the end, which comes when `filling` goes.
        found_broken.store(!ended, Ordering::Release);
        complaint.end();
    });
    Spoken { filled, broke, writer: Box::pin(to_server.make_writer()) }
}

struct Spoken {
    filled: DuplexStream,
    /// The connection went, and git on the other side did not say that it had finished.
    broke: Arc<AtomicBool>,
    writer: Pin<Box<dyn AsyncWrite + Send>>,
}

impl AsyncRead for Spoken {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.filled).poll_read(cx, buf);
        let at_end = matches!(read, Poll::Ready(Ok(()))) && buf.filled().len() == before;
        if at_end && self.broke.load(Ordering::Acquire) {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionReset, "the SSH connection broke")));
        }
        read
    }
}

impl AsyncWrite for Spoken {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.writer.as_mut().poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writer.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writer.as_mut().poll_shutdown(cx)
    }
}
