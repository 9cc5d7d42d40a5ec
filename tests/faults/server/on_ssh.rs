//! What an SSH server can do wrong before git is asked anything, and beside it.

use std::io::{self, Write};

use super::arena::Case;
use super::channel::Channel;
use super::host::Attack::{Exchange, Git, Greeted, LoggedIn, Login, Stream};
use super::host::{Attack, OnChannel, Seat};
use super::ssh::*;

/// Turns a terminal red, sets its title, and hides what follows; in one byte and in two.
pub const CODES: &str = "\x1b[31m\x1b]0;owned\x07\u{9b}2J\r\n\u{202e}";

type Codes = &'static [i32];
const PROTOCOL: Codes = &[76];
const UNREACHABLE: Codes = &[69];
const EITHER: Codes = &[76, 69];
const REJECTED: Codes = &[77];
const FINE: Codes = &[0];

/// An attack as a function makes it, for there is one for each seat.
type Make = fn() -> Attack;

pub fn cases() -> Vec<Case> {
    let table: Vec<(&str, Make, Codes, &str)> = [before_the_login(), at_the_login(), after_the_login()].concat();
    let always = ["another host key", "a wrong signature", "a banner without end", "a huge packet", "endless stderr"];
    let both = table.into_iter().flat_map(|(name, make, codes, says)| {
        [Seat::Prober, Seat::Fetcher].map(|seat| {
            let case = Case::new(name, seat, make(), codes, says);
            if always.contains(&name) || (seat == Seat::Prober && ALSO.contains(&name)) { case.always() } else { case }
        })
    });
    both.collect()
}

/// Met by every run, but by the prober alone.
const ALSO: [&str; 12] = [
    "a greeting without end",
    "lines before the greeting without end",
    "garbage under the new keys",
    "no algorithm in common, in escape codes",
    "ignored messages without end",
    "new keys over and over",
    "asks for ever to log in",
    "a channel refused in escape codes",
    "channels towards the client without end",
    "global requests that nobody reads the answers of",
    "a window that never opens",
    "a farewell in escape codes",
];

fn before_the_login() -> Vec<(&'static str, Make, Codes, &'static str)> {
    vec![
        ("a greeting without end", || Stream(|s| flood(s, b"SSH-2.0-", &[b'A'; 4096])), PROTOCOL, "SSH 2"),
        (
            "lines before the greeting without end",
            || Stream(|s| flood(s, b"", format!("{CODES}hello\r\n").as_bytes())),
            PROTOCOL,
            "SSH 2",
        ),
        (
            "a web server, in escape codes",
            || Stream(|s| s.write_all(format!("HTTP/1.1 400 Bad{CODES}\r\n\r\n").as_bytes())),
            EITHER,
            "",
        ),
        ("a huge packet", || Greeted(|w| raw(w, &[0xff, 0xff, 0xff, 0xff, 4, KEXINIT])), UNREACHABLE, "broke"),
        ("a packet of one byte", || Greeted(|w| raw(w, &[0, 0, 0, 1, 0, 0, 0, 0])), EITHER, ""),
        (
            "a packet all of padding",
            || Greeted(|w| raw(w, &[0, 0, 0, 12, 255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])),
            EITHER,
            "",
        ),
        (
            "a list of algorithms that is said to be 4 GiB long",
            || Greeted(|w| w.send(&Message(vec![KEXINIT; 17]).u32(u32::MAX))),
            EITHER,
            "",
        ),
        ("no algorithm in common, in escape codes", || Greeted(|w| w.send(&kexinit(CODES))), EITHER, ""),
        ("no algorithm in common", || Greeted(|w| w.send(&kexinit("none\x1b[31m"))), EITHER, ""),
        ("an algorithm of 200 KB, in escape codes", || Greeted(|w| w.send(&kexinit(&CODES.repeat(7000)))), EITHER, ""),
        ("algorithms without end", || Greeted(|w| loop_over(|| w.send(&kexinit("curve25519-sha256")))), EITHER, ""),
        ("another host key", || Exchange(Kex::OtherKey), PROTOCOL, "the host key"),
        ("a wrong signature", || Exchange(Kex::WrongSignature), PROTOCOL, "failed its check"),
        ("a point at zero", || Exchange(Kex::ZeroPoint), EITHER, ""),
        ("garbage under the new keys", || Exchange(Kex::GarbageAfter), EITHER, ""),
        ("a farewell before the keys", || Greeted(|w| w.send(&farewell())), EITHER, ""),
    ]
}

fn at_the_login() -> Vec<(&'static str, Make, Codes, &'static str)> {
    vec![
        ("a banner without end", || Login(|w| accepted(w, |w| many(w, &banner(CODES)))), UNREACHABLE, "authenticating"),
        (
            "a banner of 200 KB without end",
            || Login(|w| accepted(w, |w| many(w, &banner(&CODES.repeat(7000))))),
            UNREACHABLE,
            "authenticating",
        ),
        ("ignored messages without end", || Login(|w| many(w, &ignored(10))), UNREACHABLE, ""),
        ("debug messages without end", || Login(|w| many(w, &debug())), UNREACHABLE, ""),
        ("large ignored messages without end", || Login(|w| many(w, &ignored(200_000))), UNREACHABLE, ""),
        ("new keys over and over", || Login(|w| loop_over(|| w.exchange(Kex::Right))), UNREACHABLE, ""),
        (
            "asks for ever to log in",
            || Login(|w| accepted(w, |w| many(w, &Message::new(USERAUTH_FAILURE).string("publickey").byte(1)))),
            REJECTED,
            "rejected the key",
        ),
        (
            "rejects without an alternative",
            || Login(|w| accepted(w, |w| w.send(&Message::new(USERAUTH_FAILURE).string(CODES).byte(0)))),
            &[69, 77],
            "",
        ),
        (
            "questions to a keyboard without end",
            || Login(|w| accepted(w, |w| many(w, &question(2)))),
            &[69, 76, 77],
            "",
        ),
        ("four billion questions", || Login(|w| accepted(w, |w| many(w, &question(u32::MAX)))), &[69, 76, 77], ""),
        ("extensions without end", || Login(|w| many(w, &extensions())), UNREACHABLE, ""),
        ("says nothing to a login", || Login(|w| accepted(w, |w| w.receive().map(drop))), UNREACHABLE, ""),
        ("in before anybody asked", || Login(in_before_asked), &[0, 69, 76], ""),
        ("a farewell at the login", || Login(|w| accepted(w, |w| w.send(&farewell()))), &[69, 77], ""),
    ]
}

fn after_the_login() -> Vec<(&'static str, Make, Codes, &'static str)> {
    vec![
        ("a channel refused in escape codes", || LoggedIn(|w| refuse(w, 1)), PROTOCOL, "MaxSessions"),
        ("a channel refused in 200 KB", || LoggedIn(|w| refuse(w, 7000)), PROTOCOL, "MaxSessions"),
        ("a channel never answered", || LoggedIn(|w| loop_over(|| w.receive().map(drop))), UNREACHABLE, ""),
        ("channels towards the client without end", || LoggedIn(channels), PROTOCOL, "nobody asked for"),
        (
            "channels that nobody reads the answers of",
            || LoggedIn(|w| unread(w, &open("x11"))),
            PROTOCOL,
            "nobody asked for",
        ),
        (
            "channels of a kind that there is not",
            || LoggedIn(|w| unread(w, &open(CODES))),
            PROTOCOL,
            "nobody asked for",
        ),
        (
            "global requests that nobody reads the answers of",
            || LoggedIn(|w| unread(w, &Message::new(GLOBAL_REQUEST).string("keepalive@openssh.com").byte(1))),
            UNREACHABLE,
            "",
        ),
        (
            "unknown global requests of 200 KB",
            || LoggedIn(|w| unread(w, &Message::new(GLOBAL_REQUEST).string(CODES.repeat(7000)).byte(1))),
            UNREACHABLE,
            "",
        ),
        ("a window that never opens", || LoggedIn(no_window), UNREACHABLE, ""),
        ("windows without end", || LoggedIn(windows), UNREACHABLE, ""),
        ("a farewell in escape codes", || LoggedIn(|w| w.send(&farewell())), UNREACHABLE, ""),
        ("data beyond the window", || LoggedIn(beyond_the_window), EITHER, ""),
        ("no such command, in escape codes", || LoggedIn(no_command), PROTOCOL, "will not run"),
        ("answers without end", || LoggedIn(answers), EITHER, ""),
        ("endless stderr", || on_channel(|c| loop_over(|| c.complain(CODES.repeat(500).as_bytes()))), UNREACHABLE, ""),
        (
            "a long complaint and nothing else",
            || on_channel(|c| c.complain(CODES.repeat(500).as_bytes()).and_then(|()| c.finish(1))),
            EITHER,
            "",
        ),
        ("an end before the data", || on_channel(|c| c.exit(1).and_then(|()| c.finish(1))), EITHER, ""),
        ("an exit status, and then all the rest", || on_channel(|c| c.exit(1).and_then(|()| honest(c))), FINE, ""),
        ("closed without a word", || on_channel(|_| Ok(())), EITHER, ""),
    ]
}

fn on_channel(play: fn(&mut Channel) -> io::Result<()>) -> Attack {
    let play: OnChannel = Box::new(move |channel, _| play(channel));
    Git(play)
}

fn flood(stream: &mut std::net::TcpStream, first: &[u8], then: &[u8]) -> io::Result<()> {
    stream.write_all(first)?;
    loop_over(|| stream.write_all(then))
}

/// Bytes in place of a packet; then it waits.
fn raw(wire: &mut Wire, bytes: &[u8]) -> io::Result<()> {
    wire.writer.stream.write_all(bytes)?;
    loop_over(|| wire.receive().map(drop))
}

/// The service is there; what then follows is up to the attack.
fn accepted(wire: &mut Wire, then: fn(&mut Wire) -> io::Result<()>) -> io::Result<()> {
    wire.expect(5)?;
    wire.send(&Message::new(SERVICE_ACCEPT).string("ssh-userauth"))?;
    wire.expect(USERAUTH_REQUEST)?;
    then(wire)
}

fn many(wire: &mut Wire, message: &Message) -> io::Result<()> {
    let batch = vec![message.clone(); (100_000 / message.0.len()).max(1)];
    loop_over(|| wire.writer.send_all(&batch))
}

/// A flood that asks for answers, which fill the pipe on the way back.
fn unread(wire: &mut Wire, message: &Message) -> io::Result<()> {
    many(wire, message)
}

fn banner(text: &str) -> Message {
    Message::new(USERAUTH_BANNER).string(text).string("")
}

fn ignored(length: usize) -> Message {
    Message::new(IGNORE).string(vec![b'x'; length])
}

fn debug() -> Message {
    Message::new(DEBUG).byte(1).string(CODES).string("")
}

fn farewell() -> Message {
    Message::new(DISCONNECT).u32(11).string(CODES).string("")
}

fn question(prompts: u32) -> Message {
    let message = Message::new(USERAUTH_PK_OK).string(CODES).string(CODES).string("").u32(prompts);
    message.string(CODES).byte(1).string(CODES).byte(1)
}

fn extensions() -> Message {
    Message::new(EXT_INFO).u32(1).string("server-sig-algs").string("x".repeat(30_000))
}

fn in_before_asked(wire: &mut Wire) -> io::Result<()> {
    wire.send(&Message::new(USERAUTH_SUCCESS))?;
    wire.let_in()?;
    loop_over(|| wire.receive().map(drop))
}

/// Every channel that is asked for.
fn refuse(wire: &mut Wire, times: usize) -> io::Result<()> {
    loop_over(|| {
        let (number, _) = wire.channel_asked()?;
        wire.send(&Message::new(CHANNEL_FAILED).u32(number).u32(1).string(CODES.repeat(times)).string(""))
    })
}

fn open(kind: &str) -> Message {
    let message = Message::new(CHANNEL_OPEN).string(kind).u32(7).u32(1 << 20).u32(32_768);
    match kind {
        "x11" => message.string("127.0.0.1").u32(6000),
        "forwarded-tcpip" => message.string("127.0.0.1").u32(22).string("127.0.0.1").u32(22),
        _ => message,
    }
}

fn channels(wire: &mut Wire) -> io::Result<()> {
    let kinds = ["session", "forwarded-tcpip", "x11", "auth-agent@openssh.com", "direct-tcpip", CODES];
    let batch: Vec<Message> = kinds.iter().cycle().take(300).map(|kind| open(kind)).collect();
    loop_over(|| wire.writer.send_all(&batch))
}

/// Takes the channel and the command, and never lets the client say anything.
fn no_window(wire: &mut Wire) -> io::Result<()> {
    let (number, _) = wire.channel_asked()?;
    wire.send(&Message::new(CHANNEL_CONFIRMATION).u32(number).u32(0).u32(0).u32(0))?;
    wire.command(number)?;
    wire.send(&Message::new(CHANNEL_DATA).u32(number).string(super::git::capabilities_v2()))?;
    loop_over(|| wire.receive().map(drop))
}

fn windows(wire: &mut Wire) -> io::Result<()> {
    let number = wire.channel()?;
    wire.command(number)?;
    many(wire, &Message::new(WINDOW_ADJUST).u32(number).u32(u32::MAX))
}

fn beyond_the_window(wire: &mut Wire) -> io::Result<()> {
    let number = wire.channel()?;
    wire.command(number)?;
    many(wire, &Message::new(CHANNEL_DATA).u32(number).string(super::git::packet("x".repeat(60_000)).repeat(4)))
}

fn no_command(wire: &mut Wire) -> io::Result<()> {
    let number = wire.channel()?;
    wire.expect(CHANNEL_REQUEST)?;
    wire.send(&Message::new(EXTENDED_DATA).u32(number).u32(1).string(CODES.repeat(300)))?;
    wire.send(&Message::new(CHANNEL_FAILURE).u32(number))?;
    loop_over(|| wire.receive().map(drop))
}

fn answers(wire: &mut Wire) -> io::Result<()> {
    let number = wire.channel()?;
    many(wire, &Message::new(CHANNEL_SUCCESS).u32(number))
}

/// git by hand, from a channel that is only lent.
fn honest(channel: &mut Channel) -> io::Result<()> {
    channel.lend().be_honest()
}
