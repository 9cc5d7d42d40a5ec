//! The floor: the least that asks a git server for one branch over SSH with the library that poller uses.
//! One process, protocol v2; no configuration, no lock, no journal, no log, no other user, and nothing
//! that would explain an error. Of several repositories, those with one key share a session, with 8
//! channels at a time, as poller's do; and 8 sessions are open at a time.

use std::io;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use russh::ChannelStream;
use russh::client::{self, Handle, Handler, Msg};
use russh::keys::{PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate, load_secret_key};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

/// Makes this program the probe: port, user, host key file, then a key file and a repository, again and again.
pub const WORD: &str = "--bare-probe";
const BRANCH: &str = "refs/heads/main";
/// Sessions, and channels in a session.
const AT_ONCE: usize = 8;

pub fn main(arguments: &[String]) -> ExitCode {
    let [port, user, host_key, asked @ ..] = arguments else {
        return ExitCode::FAILURE;
    };
    let port = port.parse().expect("a port");
    let (asked, []) = asked.as_chunks::<2>() else {
        return ExitCode::FAILURE;
    };
    let sessions: Vec<&[[String; 2]]> = asked.chunk_by(|[one, _], [other, _]| one == other).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let tips: Result<Vec<Vec<String>>, russh::Error> = runtime.block_on(async {
        let all = sessions.iter().map(|asked| ask_all(port, user, host_key, asked));
        stream::iter(all).buffer_unordered(AT_ONCE).try_collect().await
    });
    runtime.shutdown_background();
    let tips: Vec<String> = tips.expect("answers").concat();
    println!("{} answers, {}", tips.len(), tips[0]);
    ExitCode::SUCCESS
}

/// The tips of the repositories that one key opens.
async fn ask_all(port: u16, user: &str, host_key: &str, asked: &[[String; 2]]) -> Result<Vec<String>, russh::Error> {
    let session = connect(port, user, &asked[0][0], host_key).await?;
    let all = asked.iter().map(async |[_, repository]| {
        let mut stream = open(&session, repository).await?;
        let tip = ask(&mut stream).await?;
        // sshd counts a channel until its program has ended, and allows ten.
        if asked.len() > AT_ONCE {
            while stream.read(&mut [0; 64]).await? > 0 {}
        }
        Ok(tip)
    });
    stream::iter(all).buffer_unordered(AT_ONCE).try_collect().await
}

async fn connect(port: u16, user: &str, key: &str, host_key: &str) -> Result<Handle<Pinned>, russh::Error> {
    let key = load_secret_key(key, None)?;
    let host_key = std::fs::read_to_string(host_key)?;
    let pinned = PublicKey::from_openssh(&host_key).expect("a public key");
    let socket = TcpStream::connect(("127.0.0.1", port)).await?;
    socket.set_nodelay(true)?;
    let config = Arc::new(client::Config::default());
    let mut session = client::connect_stream(config, Prompt(socket), Pinned(pinned)).await?;
    let key = PrivateKeyWithHashAlg::new(Arc::new(key), None);
    let answer = session.authenticate_publickey(user, key).await?;
    assert!(answer.success(), "the key is not accepted");
    Ok(session)
}

async fn open(session: &Handle<Pinned>, repository: &str) -> Result<ChannelStream<Msg>, russh::Error> {
    let channel = loop {
        match session.channel_open_session().await {
            // Nor is it told when the program is gone: the next one may come too early.
            Err(russh::Error::ChannelOpenFailure(_)) => tokio::time::sleep(Duration::from_millis(1)).await,
            opened => break opened?,
        }
    };
    channel.set_env(false, "GIT_PROTOCOL", "version=2").await?;
    let command = format!("git-upload-pack '{repository}'");
    channel.exec(false, command).await?;
    Ok(channel.into_stream())
}

/// The id of the branch's tip.
async fn ask(stream: &mut ChannelStream<Msg>) -> Result<String, russh::Error> {
    while packet(stream).await?.is_some() {}
    let mut request = String::new();
    for line in ["command=ls-refs\n", "object-format=sha1\n"] {
        push_packet(&mut request, line);
    }
    request.push_str("0001");
    push_packet(&mut request, "peel\n");
    push_packet(&mut request, &format!("ref-prefix {BRANCH}\n"));
    request.push_str("0000");
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut tip = None;
    while let Some(line) = packet(stream).await? {
        if let Some((id, name)) = line.trim_end().split_once(' ')
            && name == BRANCH
        {
            tip = Some(id.to_owned());
        }
    }
    stream.write_all(b"0000").await?;
    Ok(tip.expect("the branch"))
}

fn push_packet(request: &mut String, line: &str) {
    *request += &format!("{:04x}{line}", line.len() + 4);
}

/// None is the end of a message.
async fn packet(stream: &mut ChannelStream<Msg>) -> Result<Option<String>, russh::Error> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).await?;
    let length = std::str::from_utf8(&length).expect("hex digits");
    let length = usize::from_str_radix(length, 16).expect("hex digits");
    let Some(length) = length.checked_sub(4) else {
        return Ok(None);
    };
    let mut line = vec![0; length];
    stream.read_exact(&mut line).await?;
    Ok(Some(String::from_utf8(line).expect("text")))
}

struct Pinned(PublicKey);

impl Handler for Pinned {
    type Error = russh::Error;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        Ok(shown.public_key().key_data() == self.0.key_data())
    }
}

/// Acknowledges at once, as poller's own stream does: without it sshd's Nagle costs both 40 ms.
struct Prompt(TcpStream);

impl AsyncRead for Prompt {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.0).poll_read(cx, buffer);
        if done.is_ready() {
            let _ = socket2::SockRef::from(&self.0).set_tcp_quickack(true);
        }
        done
    }
}

impl AsyncWrite for Prompt {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
