//! A channel on which the client has started `git-upload-pack`, and the honest git behind it.

use std::io::{self, Read, Write};
use std::process::Stdio;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Condvar, Mutex};

use super::ssh::*;
use crate::support::repo::git_command;

pub struct Channel {
    out: Arc<Out>,
    inbox: Receiver<Vec<u8>>,
    rest: Vec<u8>,
    pub command: String,
    /// The prober asks for version 2, the fetcher does not.
    pub version_2: bool,
}

/// Shared with the thread that reads.
struct Out {
    writer: Mutex<Writer>,
    number: u32,
    /// What the client still takes; None when it has gone.
    window: Mutex<Option<u64>>,
    more: Condvar,
}

impl Channel {
    pub fn open(mut wire: Wire) -> io::Result<Channel> {
        let (number, window) = wire.channel_asked()?;
        wire.send(&Message::new(CHANNEL_CONFIRMATION).u32(number).u32(0).u32(1 << 30).u32(32_768))?;
        let (command, version_2) = wire.command(number)?;
        let (reader, writer) = wire.into_halves();
        let out = Arc::new(Out {
            writer: Mutex::new(writer),
            number,
            window: Mutex::new(Some(u64::from(window))),
            more: Condvar::new(),
        });
        let (heard, inbox) = channel();
        let shared = Arc::clone(&out);
        std::thread::spawn(move || {
            let _ = listen(reader, &shared, |data| heard.send(data).is_ok());
            *shared.window.lock().unwrap() = None;
            shared.more.notify_all();
        });
        Ok(Channel { out, inbox, rest: Vec::new(), command, version_2 })
    }

    /// What is left of it, for another hand; nothing stays here.
    pub fn lend(&mut self) -> Channel {
        let (_, empty) = channel();
        Channel {
            out: Arc::clone(&self.out),
            inbox: std::mem::replace(&mut self.inbox, empty),
            rest: std::mem::take(&mut self.rest),
            command: self.command.clone(),
            version_2: self.version_2,
        }
    }

    pub fn send(&self, message: &Message) -> io::Result<()> {
        self.out.writer.lock().unwrap().send(message)
    }

    pub fn number(&self) -> u32 {
        self.out.number
    }

    /// Standard error.
    pub fn complain(&self, text: &[u8]) -> io::Result<()> {
        self.out.wait_for(text.len())?;
        self.send(&Message::new(EXTENDED_DATA).u32(self.number()).u32(1).string(text))
    }

    /// The program has ended.
    pub fn exit(&self, status: u32) -> io::Result<()> {
        self.send(&Message::new(CHANNEL_REQUEST).u32(self.number()).string("exit-status").byte(0).u32(status))
    }

    pub fn finish(&self, status: u32) -> io::Result<()> {
        self.exit(status)?;
        self.send(&Message::new(CHANNEL_EOF).u32(self.number()))?;
        self.send(&Message::new(CHANNEL_CLOSE).u32(self.number()))
    }

    /// Waits until the client has nothing more to say.
    pub fn linger(&self) {
        while self.inbox.recv().is_ok() {}
    }

    /// What git itself would do.
    pub fn be_honest(self) -> io::Result<()> {
        let path = self.command.split('\'').nth(1).expect("a path in quotes").to_owned();
        let mut git = git_command();
        if self.version_2 {
            git.env("GIT_PROTOCOL", "version=2");
        }
        git.args(["upload-pack", &path]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = git.spawn()?;
        let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let Channel { out, inbox, .. } = self;
        std::thread::spawn(move || {
            while let Ok(data) = inbox.recv() {
                if stdin.write_all(&data).is_err() {
                    break;
                }
            }
        });
        let mut buffer = vec![0; 32_000];
        let done = loop {
            match stdout.read(&mut buffer) {
                Ok(0) => break Ok(()),
                Ok(n) => match out.data(&buffer[..n]) {
                    Ok(()) => {}
                    Err(e) => break Err(e),
                },
                Err(e) => break Err(e),
            }
        };
        drop(stdout);
        let status = child.wait()?;
        done?;
        let writer = &mut *out.writer.lock().unwrap();
        let status = u32::try_from(status.code().unwrap_or(1)).unwrap_or(1);
        writer.send(&Message::new(CHANNEL_REQUEST).u32(out.number).string("exit-status").byte(0).u32(status))?;
        writer.send(&Message::new(CHANNEL_EOF).u32(out.number))?;
        writer.send(&Message::new(CHANNEL_CLOSE).u32(out.number))
    }
}

impl Out {
    fn wait_for(&self, length: usize) -> io::Result<()> {
        let mut window = self.window.lock().unwrap();
        loop {
            match *window {
                None => return Err(io::ErrorKind::BrokenPipe.into()),
                Some(left) if left >= length as u64 => {
                    *window = Some(left - length as u64);
                    return Ok(());
                }
                Some(_) => window = self.more.wait(window).unwrap(),
            }
        }
    }

    fn data(&self, bytes: &[u8]) -> io::Result<()> {
        for chunk in bytes.chunks(32_000) {
            self.wait_for(chunk.len())?;
            let message = Message::new(CHANNEL_DATA).u32(self.number).string(chunk);
            self.writer.lock().unwrap().send(&message)?;
        }
        Ok(())
    }
}

/// Takes in what the client says until it closes or goes.
fn listen(mut reader: Reader, out: &Out, mut hear: impl FnMut(Vec<u8>) -> bool) -> io::Result<()> {
    loop {
        let message = reader.receive()?;
        let mut rest = &message[1..];
        match message[0] {
            WINDOW_ADJUST => {
                take_u32(&mut rest)?;
                let more = u64::from(take_u32(&mut rest)?);
                if let Some(window) = &mut *out.window.lock().unwrap() {
                    *window += more;
                }
                out.more.notify_all();
            }
            CHANNEL_DATA => {
                take_u32(&mut rest)?;
                if !hear(take_string(&mut rest)?.to_vec()) {
                    return Ok(());
                }
            }
            CHANNEL_EOF | CHANNEL_CLOSE | DISCONNECT => return Ok(()),
            _ => {}
        }
    }
}

impl Read for Channel {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.rest.is_empty() {
            match self.inbox.recv() {
                Ok(data) => self.rest = data,
                Err(_) => return Ok(0),
            }
        }
        let length = buffer.len().min(self.rest.len());
        buffer[..length].copy_from_slice(&self.rest[..length]);
        self.rest.drain(..length);
        Ok(length)
    }
}

impl Write for Channel {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.data(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
