//! `ssh_command`: the way out for jump hosts, certificates, agents and hardware keys. The program
//! brings its own trust; poller only talks through its pipes.

use std::pin::Pin;
use std::process::Stdio;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::session::quoted;
use super::{Complaint, Conversation, Protocol};
use crate::config::Remote;
use crate::outcome::{Class, Failure};
use crate::sys::privdrop::end_with_parent;

/// Starts the program, with the arguments that git gives to OpenSSH.
pub fn upload_pack(
    argv: &[String],
    remote: &Remote,
    protocol: Protocol,
) -> Result<(Box<dyn Conversation>, Complaint), Failure> {
    let (Remote::Ssh { user, host, port, path }, [program, arguments @ ..]) = (remote, argv) else {
        return Err(Failure::new(Class::Bug, "ssh_command for something that is not SSH"));
    };
    let mut command = Command::new(program);
    command.args(arguments);
    if protocol == Protocol::V2 {
        command.args(["-o", "SendEnv=GIT_PROTOCOL"]).env("GIT_PROTOCOL", "version=2");
    }
    if *port != 22 {
        command.args(["-p", &port.to_string()]);
    }
    command.arg(format!("{user}@{host}")).arg(format!("git-upload-pack {}", quoted(path)));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    // Not by `kill_on_drop` alone: this process may be killed itself.
    end_with_parent(command.as_std_mut());
    let mut child = command.spawn().map_err(|e| {
        Failure::new(Class::Config, format!("ssh_command: {program} cannot be started: {e}"))
            .help("name the program by its full path in `[source] ssh_command`")
    })?;
    let (Some(stdin), Some(stdout), Some(mut stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(Failure::new(Class::Bug, "a child without its pipes"));
    };
    let complaint = Complaint::default();
    let heard = complaint.clone();
    tokio::spawn(async move {
        let mut buffer = [0; 1024];
        while let Ok(n @ 1..) = stderr.read(&mut buffer).await {
            heard.push(&buffer[..n]);
        }
        heard.end();
    });
    Ok((Box::new(Piped { _child: child, stdin, stdout }), complaint))
}

struct Piped {
    /// Ended when the conversation is dropped.
    _child: Child,
    stdin: ChildStdin,
    stdout: ChildStdout,
}

impl AsyncRead for Piped {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stdout).poll_read(cx, buf)
    }
}

impl AsyncWrite for Piped {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stdin).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stdin).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stdin).poll_shutdown(cx)
    }
}
