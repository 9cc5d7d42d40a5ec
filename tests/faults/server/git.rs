//! git's side of a conversation, for whoever wants to say something else in the middle of it.

use std::io::{self, Read, Write};

use super::channel::Channel;
use super::pack::{Id, Pack, hex};

pub const FLUSH: &[u8] = b"0000";
/// Those that matter to a fetch. Without `multi_ack` there is one answer to each question.
pub const CAPABILITIES: &str = "side-band-64k ofs-delta thin-pack agent=git/2.39.5";

pub fn packet(data: impl AsRef<[u8]>) -> Vec<u8> {
    let data = data.as_ref();
    [format!("{:04x}", data.len() + 4).as_bytes(), data].concat()
}

pub fn reference(id: &Id, name: &str) -> Vec<u8> {
    packet(format!("{} {name}\n", hex(id)))
}

/// A list of version 0 up to its end, which is left out.
pub fn list_v0(id: &Id, name: &str) -> Vec<u8> {
    packet(format!("{} {name}\0{CAPABILITIES}\n", hex(id)))
}

pub fn capabilities_v2() -> Vec<u8> {
    [packet("version 2\n"), packet("ls-refs=unborn\n"), packet("object-format=sha1\n"), FLUSH.to_vec()].concat()
}

/// The next packet of the client; None for those without a payload.
fn receive(channel: &mut Channel) -> io::Result<Option<Vec<u8>>> {
    let mut digits = [0; 4];
    channel.read_exact(&mut digits)?;
    let length = std::str::from_utf8(&digits).ok().and_then(|text| usize::from_str_radix(text, 16).ok());
    let length = length.ok_or(io::ErrorKind::InvalidData)?;
    if length < 4 {
        return Ok(if length == 1 { Some(Vec::new()) } else { None });
    }
    let mut data = vec![0; length - 4];
    channel.read_exact(&mut data)?;
    Ok(Some(data))
}

/// Takes the question of version 2 in.
pub fn question(channel: &mut Channel) -> io::Result<()> {
    while receive(channel)?.is_some() {}
    Ok(())
}

/// The whole answer to the question which refs there are, in either version, begun and ended as git does.
/// `lines` are packets.
pub fn answer(channel: &mut Channel, tip: &Id, lines: &[u8]) -> io::Result<()> {
    begin(channel, tip)?;
    channel.write_all(lines)?;
    channel.write_all(FLUSH)
}

/// The beginning of such an answer. In version 0 that includes a first ref.
pub fn begin(channel: &mut Channel, tip: &Id) -> io::Result<()> {
    if channel.version_2 {
        channel.write_all(&capabilities_v2())?;
        question(channel)
    } else {
        channel.write_all(&list_v0(tip, "HEAD"))
    }
}

/// Shows `tip` as `main` and hears what the client wants, up to where the pack is due.
pub fn up_to_the_pack(channel: &mut Channel, tip: &Id) -> io::Result<()> {
    let refs = reference(tip, "refs/heads/main");
    answer(channel, tip, &refs)?;
    let mut flushes = 0;
    loop {
        match receive(channel)? {
            None => {
                flushes += 1;
                // After the wants come questions in groups: what there is on that side.
                if flushes > 1 {
                    channel.write_all(&packet("NAK\n"))?;
                }
            }
            Some(line) if line.starts_with(b"done") => return channel.write_all(&packet("NAK\n")),
            Some(_) => {}
        }
    }
}

/// Bytes of a pack, in packets.
pub fn band_1(channel: &mut Channel, bytes: &[u8]) -> io::Result<()> {
    for chunk in bytes.chunks(65_000) {
        channel.write_all(&packet([&[1], chunk].concat()))?;
    }
    Ok(())
}

/// Sends a whole pack as what `tip` needs, and says goodbye.
pub fn send(channel: &mut Channel, tip: &Id, pack: &Pack) -> io::Result<()> {
    send_bytes(channel, tip, &pack.bytes())
}

pub fn send_bytes(channel: &mut Channel, tip: &Id, pack: &[u8]) -> io::Result<()> {
    up_to_the_pack(channel, tip)?;
    band_1(channel, pack)?;
    channel.write_all(FLUSH)?;
    channel.finish(0)?;
    channel.linger();
    Ok(())
}
