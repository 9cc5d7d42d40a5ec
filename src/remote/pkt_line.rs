//! git's pkt-line framing: four hex digits of length, then that many bytes less
//! four. Only framing lives here; what a packet means is the reader's business.
//! What comes in is not trusted: a packet is bounded, and when the other side is
//! no git server at all (a shell's greeting, a banner) the error keeps what it
//! said, so that it can be quoted to whoever has to fix it.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

/// Longest packet on the wire, its four digits included (gitprotocol-common).
pub const MAX_PACKET: usize = 65520;
/// Bytes quoted of something that is no packet, beyond the four of its length.
const QUOTED: usize = 200;

/// One packet as it came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    /// A payload; it may be empty ("0004").
    Data(Vec<u8>),
    /// "0000", the end of a message.
    Flush,
    /// "0001", between the sections of a version 2 message.
    Delim,
    /// "0002", the end of a stateless response.
    ResponseEnd,
}

/// Why no packet could be read or written.
#[derive(Debug)]
pub enum Error {
    Io(std::io::Error),
    /// Four bytes (fewer at the end of the stream) that are no length, and what
    /// had come in behind them.
    Garbage {
        seen: Vec<u8>,
    },
    /// More than `MAX_PACKET` bytes announced, or asked to be sent.
    TooLong,
    /// The stream ended. `seen` is the beginning of a packet that was cut short,
    /// empty when it ended between two packets.
    Eof {
        seen: Vec<u8>,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Io(error) => write!(f, "{error}"),
            Error::Garbage { seen } => {
                write!(f, "not a git packet: \"{}\"", seen.escape_ascii())
            }
            Error::TooLong => write!(f, "a git packet of more than {MAX_PACKET} bytes"),
            Error::Eof { .. } => f.write_str("the connection ended in the middle of an exchange"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Io(error) => Some(error),
            _ => None,
        }
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Error {
        Error::Io(error)
    }
}

/// Reads one packet. Not cancel-safe: a dropped read loses its place in the stream.
pub async fn read<R: AsyncRead + Unpin>(stream: &mut R) -> Result<Packet, Error> {
    let mut head = [0; 4];
    let got = fill(stream, &mut head).await?;
    if got < head.len() {
        let seen = head[..got].to_vec();
        let all_hex = seen.iter().all(u8::is_ascii_hexdigit);
        return Err(if all_hex { Error::Eof { seen } } else { Error::Garbage { seen } });
    }
    let length = match length(head) {
        Some(0) => return Ok(Packet::Flush),
        Some(1) => return Ok(Packet::Delim),
        Some(2) => return Ok(Packet::ResponseEnd),
        None | Some(3) => {
            let mut seen = head.to_vec();
            whatever_is_there(stream, &mut seen).await;
            return Err(Error::Garbage { seen });
        }
        Some(length) if length > MAX_PACKET => return Err(Error::TooLong),
        Some(length) => length - head.len(),
    };
    let mut data = vec![0; length];
    let got = fill(stream, &mut data).await?;
    if got < length {
        // "Access denied" begins with four hex digits: such a greeting looks like
        // a long packet that is cut short, and has to be quotable as well.
        let mut seen = head.to_vec();
        seen.extend_from_slice(&data[..got.min(QUOTED)]);
        return Err(Error::Eof { seen });
    }
    Ok(Packet::Data(data))
}

/// Writes `data` as one packet.
pub async fn write_data<W: AsyncWrite + Unpin>(stream: &mut W, data: &[u8]) -> Result<(), Error> {
    let length = data.len() + 4;
    if length > MAX_PACKET {
        return Err(Error::TooLong);
    }
    stream.write_all(format!("{length:04x}").as_bytes()).await?;
    stream.write_all(data).await?;
    Ok(())
}

/// Writes the end of a message. Packets only; flushing the stream is the caller's.
pub async fn write_flush<W: AsyncWrite + Unpin>(stream: &mut W) -> Result<(), Error> {
    Ok(stream.write_all(b"0000").await?)
}

/// Writes the mark between two sections.
pub async fn write_delim<W: AsyncWrite + Unpin>(stream: &mut W) -> Result<(), Error> {
    Ok(stream.write_all(b"0001").await?)
}

fn length(head: [u8; 4]) -> Option<usize> {
    head.iter().try_fold(0, |sum, digit| {
        let value = char::from(*digit).to_digit(16)?;
        Some(sum * 16 + value as usize)
    })
}

/// Like `read_exact`, but tells how far it came when the stream ends early.
async fn fill<R: AsyncRead + Unpin>(stream: &mut R, buffer: &mut [u8]) -> Result<usize, Error> {
    let mut got = 0;
    while got < buffer.len() {
        match stream.read(&mut buffer[got..]).await? {
            0 => break,
            more => got += more,
        }
    }
    Ok(got)
}

/// Adds up to `QUOTED` bytes that are there already. It never waits: a shell that
/// has greeted waits for our input for ever, and the greeting would be lost to
/// the deadline.
async fn whatever_is_there<R: AsyncRead + Unpin>(stream: &mut R, seen: &mut Vec<u8>) {
    let mut space = [0; QUOTED];
    let mut buffer = ReadBuf::new(&mut space);
    poll_fn(|context| {
        loop {
            let before = buffer.filled().len();
            let polled = Pin::new(&mut *stream).poll_read(context, &mut buffer);
            let grew = buffer.filled().len() > before;
            if !matches!(polled, Poll::Ready(Ok(()))) || !grew || buffer.remaining() == 0 {
                return Poll::Ready(());
            }
        }
    })
    .await;
    seen.extend_from_slice(buffer.filled());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn packets_come_back_as_they_were_written() {
        let mut wire = Vec::new();
        write_data(&mut wire, b"version 2\n").await.unwrap();
        write_delim(&mut wire).await.unwrap();
        write_data(&mut wire, b"").await.unwrap();
        write_data(&mut wire, &[7; MAX_PACKET - 4]).await.unwrap();
        write_flush(&mut wire).await.unwrap();
        assert!(wire.starts_with(b"000eversion 2\n00010004fff0\x07"));
        wire.extend_from_slice(b"0002");

        let mut stream = wire.as_slice();
        let expected = [
            Packet::Data(b"version 2\n".to_vec()),
            Packet::Delim,
            Packet::Data(Vec::new()),
            Packet::Data(vec![7; MAX_PACKET - 4]),
            Packet::Flush,
            Packet::ResponseEnd,
        ];
        for packet in expected {
            assert_eq!(read(&mut stream).await.unwrap(), packet);
        }
        assert!(matches!(read(&mut stream).await, Err(Error::Eof { seen }) if seen.is_empty()));
    }

    #[tokio::test]
    async fn what_is_no_packet_is_told_apart_and_quoted() {
        let long = format!("Hi! {}", "x".repeat(500));
        let greeting = b"Access denied\n";
        // (bytes, the error's name, what it quotes)
        let table: [(&[u8], &str, &[u8]); 9] = [
            (b"", "eof", b""),
            (b"00", "eof", b"00"),
            (b"000ever", "eof", b"000ever"),
            (greeting, "eof", greeting),
            (b"Hi\n", "garbage", b"Hi\n"),
            (b"Welcome to web-1\n", "garbage", b"Welcome to web-1\n"),
            (b"0003", "garbage", b"0003"),
            (b"+00f", "garbage", b"+00f"),
            (long.as_bytes(), "garbage", &long.as_bytes()[..204]),
        ];
        for (bytes, name, quoted) in table {
            let (got, seen) = match read(&mut &*bytes).await {
                Err(Error::Eof { seen }) => ("eof", seen),
                Err(Error::Garbage { seen }) => ("garbage", seen),
                other => panic!("{other:?}"),
            };
            assert_eq!((got, seen.as_slice()), (name, quoted));
        }
        for bytes in ["fff1", "ffff"] {
            assert!(matches!(read(&mut bytes.as_bytes()).await, Err(Error::TooLong)));
        }
        let sent = write_data(&mut Vec::new(), &[0; MAX_PACKET - 3]).await;
        assert!(matches!(sent, Err(Error::TooLong)));
    }

    #[tokio::test]
    async fn a_shell_that_waits_for_input_is_quoted_without_waiting() {
        let (mut shell, mut ours) = tokio::io::duplex(1024);
        shell.write_all(b"Hi there!\n").await.unwrap();
        // The shell's end stays open all the while.
        let seen = match read(&mut ours).await {
            Err(Error::Garbage { seen }) => seen,
            other => panic!("{other:?}"),
        };
        assert_eq!(seen, b"Hi there!\n");
        drop(shell);
    }
}
