//! What a git server can say in answer to the question which refs there are.

use std::io::{self, Write};

use super::arena::Case;
use super::channel::Channel;
use super::git::*;
use super::host::{Attack, Ground, OnChannel, Seat};
use super::on_ssh::CODES;
use super::pack::{Id, hex};
use super::ssh::loop_over;

const OTHER: Id = [0xab; 20];
const MAIN: &str = "refs/heads/main";

type Codes = &'static [i32];
const PROTOCOL: Codes = &[76];
const UNREACHABLE: Codes = &[69];
const EITHER: Codes = &[76, 69];

/// Where the probe is told of something that is not there, the fetch takes what is.
const ANY: Codes = &[0, 69, 76];

type Play = fn(&mut Channel, &Ground) -> io::Result<()>;

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, play, codes, says, always) in table() {
        for seat in [Seat::Prober, Seat::Fetcher] {
            let case = Case::new(name, seat, git(play, false), codes, says);
            cases.push(if always { case.always() } else { case });
        }
        // The prober as well, as it reads what knows no version 2.
        cases.push(Case::new(&format!("{name}, version 0"), Seat::Prober, git(play, true), codes, says));
    }
    cases.push(Case::new("tags without end", Seat::Prober, git(tags, false), EITHER, "").tags().always());
    cases.push(Case::new("tags without end, version 0", Seat::Prober, git(tags, true), EITHER, "").tags());
    // The limit is met by those who have the time for it.
    let endless = cases.iter_mut().filter(|case| crate::all() && case.name.contains("without end"));
    endless.for_each(|case| case.patience = 20);
    cases
}

fn git(play: Play, old: bool) -> Attack {
    let play: OnChannel = Box::new(move |channel, ground| {
        channel.version_2 &= !old;
        play(channel, ground)
    });
    Attack::Git(play)
}

#[rustfmt::skip]
fn table() -> Vec<(&'static str, Play, Codes, &'static str, bool)> {
    vec![
        ("refs without end", |c, g| endless(c, g, |n| reference(&OTHER, &format!("refs/heads/{n:060}"))), EITHER, "", true),
        ("long refs without end", |c, g| endless(c, g, |n| reference(&OTHER, &format!("refs/heads/{n:065000}"))), EITHER, "", false),
        ("the same ref without end", |c, g| endless(c, g, |_| reference(&OTHER, MAIN)), EITHER, "", true),
        ("empty packets without end", |c, g| endless(c, g, |_| b"0004".to_vec()), EITHER, "", false),
        ("a packet that is cut short", |c, g| cut(c, g, b"ffe0 and then nothing", false), EITHER, "", true),
        ("a packet that never comes", |c, g| cut(c, g, b"ffe0 and then nothing", true), UNREACHABLE, "", false),
        ("a packet that is too long", |c, g| cut(c, g, b"ffff", true), EITHER, "", false),
        ("a length of one", |c, g| cut(c, g, b"0001", true), EITHER, "", false),
        ("a length of two", |c, g| cut(c, g, b"0002", true), EITHER, "", false),
        ("a length of three", |c, g| cut(c, g, b"0003", true), EITHER, "", false),
        ("escape codes for a length", |c, g| cut(c, g, CODES.as_bytes(), true), EITHER, "", true),
        ("names of escape codes", names, UNREACHABLE, "main`", true),
        ("an id of escape codes", |c, g| line(c, g, &packet(format!("{CODES} {MAIN}\n"))), PROTOCOL, "", false),
        ("an id of nothing but zeros", |c, g| line(c, g, &reference(&[0; 20], MAIN)), ANY, "", false),
        ("an id that is not there", |c, g| line(c, g, &reference(&OTHER, MAIN)), ANY, "", true),
        ("a long capability", capability, EITHER, "", false),
        ("capabilities without end", capabilities, EITHER, "", true),
        ("SHA-256", |c, _| sha256(c), PROTOCOL, "poller knows sha1 only", true),
        ("version 3 in escape codes", |c, _| c.write_all(&packet(format!("version 3{CODES}\n"))), PROTOCOL, "does not know", false),
        ("version 1 and nothing else", |c, _| c.write_all(&packet("version 1\n")), EITHER, "", false),
        ("an error in escape codes", |c, g| error(c, g, 1), EITHER, "the server said", true),
        ("an error of 60 KB", |c, g| error(c, g, 2000), EITHER, "the server said", false),
        ("an error before anything else", |c, _| c.write_all(&packet(format!("ERR {CODES}"))), UNREACHABLE, "the server said", false),
        ("a shell that says escape codes", |c, _| c.write_all(CODES.repeat(20).as_bytes()), EITHER, "", false),
        ("a shell that does not end", |c, _| loop_over(|| c.write_all(CODES.as_bytes())), EITHER, "", false),
        ("unborn", |c, g| line(c, g, &packet(format!("unborn HEAD symref-target:{MAIN}\n"))), EITHER, "", false),
    ]
}

fn endless(channel: &mut Channel, ground: &Ground, make: fn(usize) -> Vec<u8>) -> io::Result<()> {
    begin(channel, &ground.deployed)?;
    let mut number = 0;
    loop_over(|| {
        let mut batch = Vec::new();
        while batch.len() < 100_000 {
            number += 1;
            batch.extend(make(number));
        }
        channel.write_all(&batch)
    })
}

fn tags(channel: &mut Channel, ground: &Ground) -> io::Result<()> {
    endless(channel, ground, |n| reference(&OTHER, &format!("refs/tags/v{n}.0.0")))
}

/// Sends bytes in the middle of the list, and closes or waits.
fn cut(channel: &mut Channel, ground: &Ground, bytes: &[u8], wait: bool) -> io::Result<()> {
    begin(channel, &ground.deployed)?;
    channel.write_all(bytes)?;
    if wait {
        channel.linger();
    }
    channel.finish(0)
}

fn line(channel: &mut Channel, ground: &Ground, line: &[u8]) -> io::Result<()> {
    answer(channel, &ground.deployed, line)?;
    channel.linger();
    Ok(())
}

/// None of them is the one that is wanted, however it is looked at.
fn names(channel: &mut Channel, ground: &Ground) -> io::Result<()> {
    let mut lines = Vec::new();
    for name in [
        CODES.to_owned(),
        format!("{MAIN}{CODES}"),
        format!("{MAIN}\nrefs/heads/x"),
        format!("{MAIN}\0refs"),
        "refs/heads/../heads/main".to_owned(),
        "refs//heads/main".to_owned(),
        format!("{MAIN}.lock"),
        "x".repeat(60_000),
    ] {
        lines.extend(reference(&OTHER, &name));
    }
    answer(channel, &ground.deployed, &lines)?;
    channel.linger();
    Ok(())
}

fn capability(channel: &mut Channel, ground: &Ground) -> io::Result<()> {
    let long = format!("{CODES}={}", "x".repeat(65_000));
    if channel.version_2 {
        channel.write_all(&[packet("version 2\n"), packet(&long), FLUSH.to_vec()].concat())?;
    } else {
        let line = format!("{} {MAIN}\0 symref=HEAD:{MAIN} object-format={long}", hex(&ground.deployed));
        channel.write_all(&[packet(line), FLUSH.to_vec()].concat())?;
    }
    channel.linger();
    Ok(())
}

fn capabilities(channel: &mut Channel, ground: &Ground) -> io::Result<()> {
    if channel.version_2 {
        channel.write_all(&packet("version 2\n"))?;
    } else {
        channel.write_all(&list_v0(&ground.deployed, "HEAD"))?;
    }
    let word = if channel.version_2 { "x=y\n".to_owned() } else { format!("shallow {}\n", hex(&OTHER)) };
    let batch = packet(word).repeat(2000);
    loop_over(|| channel.write_all(&batch))
}

fn sha256(channel: &mut Channel) -> io::Result<()> {
    if channel.version_2 {
        channel.write_all(&[packet("version 2\n"), packet("ls-refs\n"), packet("object-format=sha256\n")].concat())?;
    } else {
        channel.write_all(&packet(format!("{} {MAIN}\0object-format=sha256\n", "ab".repeat(32))))?;
    }
    channel.write_all(FLUSH)?;
    channel.linger();
    Ok(())
}

fn error(channel: &mut Channel, ground: &Ground, times: usize) -> io::Result<()> {
    begin(channel, &ground.deployed)?;
    channel.write_all(&packet(format!("ERR {}", CODES.repeat(times))))?;
    channel.linger();
    Ok(())
}
