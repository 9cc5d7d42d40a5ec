//! What comes through a connection or a pipe.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::assert_printable;
use crate::outcome::Failure;
use crate::processes::messages::{
    Answer as Heard, Call, End, FetcherReply, FetcherRequest, Keep, Kept, Probed, ProberRequest, ReaderReply,
    ReaderRequest, Right, StagerJob, StagerReply,
};
use crate::processes::wire;
use crate::remote::ls_refs::{self, Answer, ProbeError, Wanted, highest};
use crate::remote::pkt_line::{self, Error, Packet};
use crate::stages::probe;

/// A server that says its bytes, so many at a time, and listens to nothing.
struct Server<'a> {
    says: &'a [u8],
    at_once: usize,
}

impl AsyncRead for Server<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (now, later) = self.says.split_at(self.says.len().min(self.at_once).min(buffer.remaining()));
        buffer.put_slice(now);
        self.says = later;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Server<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Nothing in here ever waits, so whatever is not ready at once never will be.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("it waits"),
    }
}

/// Packets are bounded, and are the same again when they are written and read.
pub fn pkt_line(data: &[u8]) {
    let (packets, error) = packets(data, usize::MAX);
    assert_printable(&error.to_string());
    if let Error::Garbage { seen } | Error::Eof { seen } = &error {
        assert!(seen.len() <= 204);
    }
    let mut wire = Vec::new();
    for packet in &packets {
        match packet {
            Packet::Data(data) => {
                assert!(data.len() <= pkt_line::MAX_PACKET - 4);
                now(pkt_line::write_data(&mut wire, data)).unwrap();
            }
            Packet::Flush => now(pkt_line::write_flush(&mut wire)).unwrap(),
            Packet::Delim => now(pkt_line::write_delim(&mut wire)).unwrap(),
            Packet::ResponseEnd => wire.extend_from_slice(b"0002"),
        }
    }
    assert!(data.len() >= wire.len() && data[..wire.len()].eq_ignore_ascii_case(&wire));
    assert_eq!(self::packets(&wire, 1).0, packets, "read byte by byte");
}

fn packets(data: &[u8], at_once: usize) -> (Vec<Packet>, Error) {
    let mut server = Server { says: data, at_once };
    let mut packets = Vec::new();
    loop {
        match now(pkt_line::read(&mut server)) {
            Ok(packet) => packets.push(packet),
            Err(error) => return (packets, error),
        }
    }
}

/// Only what was asked for is taken from an answer, names are harmless, and it does not depend on how the
/// bytes arrived.
pub fn ls_refs(data: &[u8]) {
    let wanted = [Wanted::Ref("refs/heads/main".to_owned()), Wanted::Tags { pattern: "v*".to_owned() }];
    let asked = |at_once| now(ls_refs::ask(&mut Server { says: data, at_once }, &wanted));
    let (whole, slowly) = (asked(usize::MAX), asked(1));
    match (&whole, &slowly) {
        (Ok(whole), Ok(slowly)) => {
            assert_eq!(whole, slowly);
            judge(whole);
        }
        (Err(_), Err(_)) => [whole, slowly].into_iter().filter_map(Result::err).for_each(quoted),
        _ => panic!("{whole:?} or {slowly:?}"),
    }
}

fn judge(answer: &Answer) {
    for one in &answer.refs {
        assert_printable(&one.name);
        assert!(one.name.len() <= 1024 && git2::Reference::is_valid_name(&one.name), "{:?}", one.name);
        assert!(one.name == "refs/heads/main" || one.name.starts_with("refs/tags/v"), "{:?}", one.name);
    }
    if let Some(tag) = highest("v*", &answer.refs) {
        assert!(answer.refs.contains(tag));
    }
}

fn quoted(error: ProbeError) {
    let told = probe::failure("URL", error, None).message;
    assert_printable(&told);
    assert!(!told.contains('\n') && told.chars().count() < 400, "{told}");
}

/// The first byte says which message it is; the rest is its JSON. What is understood is the same again
/// when it is sent on.
pub fn messages(data: &[u8]) {
    let Some((kind, body)) = data.split_first() else { return };
    // As frames: bounded, whatever they say.
    let mut rest = body;
    let mut frame = Vec::new();
    while let Ok(Some(_)) = wire::read_frame(&mut rest, &mut frame) {
        assert!(frame.len() <= body.len());
    }
    match kind % 14 {
        0 => message::<ProberRequest>(body),
        1 => message::<Probed>(body),
        2 => message::<ReaderRequest>(body),
        3 => message::<Result<ReaderReply, Failure>>(body),
        4 => message::<FetcherRequest>(body),
        5 => message::<Result<FetcherReply, Failure>>(body),
        6 => message::<StagerJob>(body),
        7 => message::<Result<StagerReply, Failure>>(body),
        8 => message::<Keep>(body),
        9 => message::<Kept>(body),
        10 => message::<Call>(body),
        11 => message::<Result<Heard, String>>(body),
        12 => message::<Right>(body),
        _ => message::<End>(body),
    }
}

fn message<T: Serialize + DeserializeOwned>(body: &[u8]) {
    let mut frame = Vec::new();
    wire::write_frame(&mut frame, wire::MESSAGE, &[body]).unwrap();
    let Ok(Some(first)) = wire::receive::<T>(&mut frame.as_slice()) else { return };
    let mut sent = Vec::new();
    wire::send(&mut sent, &first).unwrap();
    let second: T = wire::receive(&mut sent.as_slice()).unwrap().unwrap();
    let mut again = Vec::new();
    wire::send(&mut again, &second).unwrap();
    assert_eq!(sent, again);
}
