//! An SSH server in which every byte can be wrong. One key exchange (curve25519), one cipher (AES-GCM),
//! everybody is let in: no more than a client needs to believe in it, and nothing between an attack and
//! the wire. russh's server would not send what it knows to be wrong.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::agreement::{EphemeralPrivateKey, UnparsedPublicKey, X25519, agree_ephemeral};
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};

pub const DISCONNECT: u8 = 1;
pub const IGNORE: u8 = 2;
pub const DEBUG: u8 = 4;
pub const SERVICE_ACCEPT: u8 = 6;
pub const EXT_INFO: u8 = 7;
pub const KEXINIT: u8 = 20;
const NEWKEYS: u8 = 21;
const KEX_REPLY: u8 = 31;
pub const USERAUTH_REQUEST: u8 = 50;
pub const USERAUTH_FAILURE: u8 = 51;
pub const USERAUTH_SUCCESS: u8 = 52;
pub const USERAUTH_BANNER: u8 = 53;
/// Or a question for keyboard-interactive.
pub const USERAUTH_PK_OK: u8 = 60;
pub const GLOBAL_REQUEST: u8 = 80;
pub const CHANNEL_OPEN: u8 = 90;
pub const CHANNEL_CONFIRMATION: u8 = 91;
pub const CHANNEL_FAILED: u8 = 92;
pub const WINDOW_ADJUST: u8 = 93;
pub const CHANNEL_DATA: u8 = 94;
pub const EXTENDED_DATA: u8 = 95;
pub const CHANNEL_EOF: u8 = 96;
pub const CHANNEL_CLOSE: u8 = 97;
pub const CHANNEL_REQUEST: u8 = 98;
pub const CHANNEL_SUCCESS: u8 = 99;
pub const CHANNEL_FAILURE: u8 = 100;

pub const GREETING: &[u8] = b"SSH-2.0-Hostile_1.0\r\n";

/// A message in the making.
#[derive(Clone, Default)]
pub struct Message(pub Vec<u8>);

impl Message {
    pub fn new(kind: u8) -> Message {
        Message(vec![kind])
    }

    pub fn u32(mut self, number: u32) -> Message {
        self.0.extend(number.to_be_bytes());
        self
    }

    pub fn byte(mut self, byte: u8) -> Message {
        self.0.push(byte);
        self
    }

    pub fn string(self, bytes: impl AsRef<[u8]>) -> Message {
        let bytes = bytes.as_ref();
        let mut whole = self.u32(u32::try_from(bytes.len()).unwrap());
        whole.0.extend(bytes);
        whole
    }

    /// A positive number, as strings of digits go.
    fn number(self, bytes: &[u8]) -> Message {
        let start = bytes.iter().position(|b| *b != 0).unwrap_or(bytes.len());
        let sign = if bytes.get(start).is_some_and(|b| b & 128 != 0) { &[0][..] } else { &[] };
        self.string([sign, &bytes[start..]].concat())
    }
}

/// Takes a message apart again.
pub fn take<'b>(bytes: &mut &'b [u8], length: usize) -> io::Result<&'b [u8]> {
    let (taken, rest) = bytes.split_at_checked(length).ok_or(io::ErrorKind::InvalidData)?;
    *bytes = rest;
    Ok(taken)
}

pub fn take_u32(bytes: &mut &[u8]) -> io::Result<u32> {
    Ok(u32::from_be_bytes(take(bytes, 4)?.try_into().unwrap()))
}

pub fn take_string<'b>(bytes: &mut &'b [u8]) -> io::Result<&'b [u8]> {
    let length = take_u32(bytes)?;
    take(bytes, length as usize)
}

/// One direction's key, and the number of its next packet.
struct Seal {
    key: LessSafeKey,
    nonce: [u8; 12],
}

impl Seal {
    fn new(key: &[u8], nonce: &[u8]) -> Seal {
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).unwrap());
        Seal { key, nonce: nonce.try_into().unwrap() }
    }

    fn next(&mut self) -> Nonce {
        let nonce = self.nonce;
        let count = u64::from_be_bytes(nonce[4..].try_into().unwrap());
        self.nonce[4..].copy_from_slice(&count.wrapping_add(1).to_be_bytes());
        Nonce::assume_unique_for_key(nonce)
    }
}

pub struct Reader {
    stream: TcpStream,
    seal: Option<Seal>,
}

impl Reader {
    pub fn receive(&mut self) -> io::Result<Vec<u8>> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let tag = if self.seal.is_some() { 16 } else { 0 };
        let mut packet = vec![0; u32::from_be_bytes(length).min(1 << 20) as usize + tag];
        self.stream.read_exact(&mut packet)?;
        if let Some(seal) = &mut self.seal {
            let nonce = seal.next();
            let opened = seal.key.open_in_place(nonce, Aad::from(length), &mut packet);
            let length = opened.map_err(|_| io::ErrorKind::InvalidData)?.len();
            packet.truncate(length);
        }
        let padding = usize::from(*packet.first().ok_or(io::ErrorKind::InvalidData)?);
        Ok(packet[1..packet.len() - padding].to_vec())
    }
}

pub struct Writer {
    pub stream: TcpStream,
    seal: Option<Seal>,
}

impl Writer {
    pub fn send(&mut self, message: &Message) -> io::Result<()> {
        let packet = self.packed(message);
        self.stream.write_all(&packet)
    }

    /// Many at once, for floods.
    pub fn send_all(&mut self, messages: &[Message]) -> io::Result<()> {
        let packets: Vec<u8> = messages.iter().flat_map(|message| self.packed(message)).collect();
        self.stream.write_all(&packets)
    }

    fn packed(&mut self, Message(payload): &Message) -> Vec<u8> {
        let outside = if self.seal.is_some() { 0 } else { 4 };
        let mut padding = 16 - (outside + 1 + payload.len()) % 16;
        if padding < 4 {
            padding += 16;
        }
        let length = u32::try_from(1 + payload.len() + padding).unwrap().to_be_bytes();
        let mut body = Vec::with_capacity(payload.len() + 64);
        body.push(u8::try_from(padding).unwrap());
        body.extend(payload);
        body.resize(body.len() + padding, 0);
        if let Some(seal) = &mut self.seal {
            let nonce = seal.next();
            seal.key.seal_in_place_append_tag(nonce, Aad::from(length), &mut body).unwrap();
        }
        [&length[..], &body].concat()
    }
}

/// What a server does wrong in the key exchange.
#[derive(Clone, Copy, PartialEq)]
pub enum Kex {
    Right,
    OtherKey,
    WrongSignature,
    ZeroPoint,
    GarbageAfter,
}

/// What was heard of the client that a test wants to know.
#[derive(Default)]
pub struct Heard {
    /// Messages under the new keys: whatever a client says once it trusts the server.
    pub trusting: AtomicUsize,
    pub connections: AtomicUsize,
}

pub struct Wire {
    reader: Reader,
    pub writer: Writer,
    session: Option<Vec<u8>>,
    greeting: Vec<u8>,
    heard: Arc<Heard>,
    key: Arc<Ed25519KeyPair>,
}

impl Wire {
    /// Greets, and reads the client's greeting.
    pub fn greet(stream: TcpStream, key: Arc<Ed25519KeyPair>, heard: Arc<Heard>) -> io::Result<Wire> {
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        stream.set_write_timeout(Some(Duration::from_secs(60)))?;
        stream.set_nodelay(true)?;
        let mut reader = Reader { stream: stream.try_clone()?, seal: None };
        let mut writer = Writer { stream, seal: None };
        writer.stream.write_all(GREETING)?;
        let (mut greeting, mut byte) = (Vec::new(), [0]);
        while byte != *b"\n" {
            reader.stream.read_exact(&mut byte)?;
            greeting.extend(byte);
        }
        let greeting = greeting.trim_ascii_end().to_vec();
        Ok(Wire { reader, writer, session: None, greeting, heard, key })
    }

    pub fn into_halves(self) -> (Reader, Writer) {
        (self.reader, self.writer)
    }

    pub fn receive(&mut self) -> io::Result<Vec<u8>> {
        let message = self.reader.receive()?;
        if self.session.is_some() {
            self.heard.trusting.fetch_add(1, Ordering::SeqCst);
        }
        Ok(message)
    }

    pub fn send(&mut self, message: &Message) -> io::Result<()> {
        self.writer.send(message)
    }

    /// The next message that is neither ignored nor about keys.
    pub fn expect(&mut self, kind: u8) -> io::Result<Vec<u8>> {
        loop {
            let message = self.receive()?;
            if message.first() == Some(&kind) {
                return Ok(message);
            }
        }
    }

    pub fn exchange(&mut self, how: Kex) -> io::Result<()> {
        let ours = kexinit("curve25519-sha256");
        self.send(&ours)?;
        let theirs = self.expect(KEXINIT)?;
        let init = self.expect(30)?;
        let client_point = take_string(&mut &init[1..])?.to_vec();
        let random = SystemRandom::new();
        let secret = EphemeralPrivateKey::generate(&X25519, &random).unwrap();
        let mut point = secret.compute_public_key().unwrap().as_ref().to_vec();
        let shared = agree_ephemeral(secret, &UnparsedPublicKey::new(&X25519, &client_point), <[u8]>::to_vec);
        let shared = Message::default().number(&shared.map_err(|_| io::ErrorKind::InvalidData)?);
        if how == Kex::ZeroPoint {
            point = vec![0; 32];
        }
        let other = Ed25519KeyPair::from_seed_unchecked(&[9; 32]).unwrap();
        let key = if how == Kex::OtherKey { &other } else { &*self.key };
        let host_key = Message::default().string("ssh-ed25519").string(key.public_key());
        let hashed = Message::default()
            .string(&self.greeting)
            .string(GREETING.trim_ascii_end())
            .string(&theirs)
            .string(&ours.0)
            .string(&host_key.0)
            .string(&client_point)
            .string(&point);
        let hash = digest(&SHA256, &[&hashed.0[..], &shared.0].concat()).as_ref().to_vec();
        let mut signature = key.sign(&hash).as_ref().to_vec();
        if how == Kex::WrongSignature {
            signature[10] ^= 1;
        }
        let signature = Message::default().string("ssh-ed25519").string(signature);
        self.send(&Message::new(KEX_REPLY).string(&host_key.0).string(point).string(&signature.0))?;
        self.send(&Message::new(NEWKEYS))?;
        let session = self.session.clone().unwrap_or_else(|| hash.clone());
        let key = |letter: u8| {
            let text = [&shared.0[..], &hash, &[letter], &session].concat();
            digest(&SHA256, &text).as_ref().to_vec()
        };
        self.writer.seal = Some(Seal::new(&key(b'D'), &key(b'B')[..12]));
        if how == Kex::GarbageAfter {
            return loop_over(|| self.writer.stream.write_all(&[0x1b; 65_536]));
        }
        // What comes before this is still under the old keys.
        self.expect(NEWKEYS)?;
        self.reader.seal = Some(Seal::new(&key(b'C'), &key(b'A')[..12]));
        self.session = Some(session);
        Ok(())
    }

    /// Whoever asks is in.
    pub fn let_in(&mut self) -> io::Result<()> {
        self.expect(5)?;
        self.send(&Message::new(SERVICE_ACCEPT).string("ssh-userauth"))?;
        self.expect(USERAUTH_REQUEST)?;
        self.send(&Message::new(USERAUTH_SUCCESS))
    }

    /// Opens the channel that is asked for; its number on the other side.
    pub fn channel(&mut self) -> io::Result<u32> {
        let (number, _) = self.channel_asked()?;
        self.send(&Message::new(CHANNEL_CONFIRMATION).u32(number).u32(0).u32(1 << 30).u32(32_768))?;
        Ok(number)
    }

    /// Waits for the question; number and window of the other side.
    pub fn channel_asked(&mut self) -> io::Result<(u32, u32)> {
        let open = self.expect(CHANNEL_OPEN)?;
        let mut rest = &open[1..];
        take_string(&mut rest)?;
        Ok((take_u32(&mut rest)?, take_u32(&mut rest)?))
    }

    /// Waits for the command, and whether version 2 was asked for.
    pub fn command(&mut self, number: u32) -> io::Result<(String, bool)> {
        let mut version_2 = false;
        loop {
            let request = self.expect(CHANNEL_REQUEST)?;
            let mut rest = &request[5..];
            let what = take_string(&mut rest)?.to_vec();
            let reply = take(&mut rest, 1)? == [1];
            if reply {
                self.send(&Message::new(CHANNEL_SUCCESS).u32(number))?;
            }
            match &what[..] {
                b"env" => version_2 |= request.ends_with(b"version=2"),
                b"exec" => return Ok((String::from_utf8_lossy(take_string(&mut rest)?).into_owned(), version_2)),
                _ => {}
            }
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// What the server has to offer, with these key exchanges.
pub fn kexinit(exchanges: &str) -> Message {
    let mut message = Message::new(KEXINIT);
    message.0.extend([7; 16]);
    let lists = [exchanges, "ssh-ed25519", CIPHER, CIPHER, MAC, MAC, "none", "none", "", ""];
    lists.iter().fold(message, |message, list| message.string(list)).byte(0).u32(0)
}

const CIPHER: &str = "aes256-gcm@openssh.com";
const MAC: &str = "hmac-sha2-256";

/// Until the client has gone.
pub fn loop_over(mut turn: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    loop {
        turn()?;
    }
}
