//! Servers and networks that misbehave: a proxy before the real sshd that stalls, drips or resets, and
//! listeners that say nothing, or too little.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Mood {
    /// Passes everything on.
    Well = 0,
    /// After the limit passes nothing more, and keeps the connection.
    Stalls = 1,
    /// After the limit breaks the connection with a TCP reset.
    Resets = 2,
    /// After the limit ends the connection in good order.
    Closes = 3,
    /// After the limit passes one byte a second.
    Drips = 4,
}

const MOODS: [Mood; 5] = [Mood::Well, Mood::Stalls, Mood::Resets, Mood::Closes, Mood::Drips];

/// A relay to a port on this machine. The limit is counted per connection, in bytes from the server.
pub struct Proxy {
    pub port: u16,
    control: Arc<Control>,
}

struct Control {
    mood: AtomicU8,
    limit: AtomicU64,
    struck: AtomicUsize,
}

impl Control {
    fn mood(&self) -> Mood {
        MOODS[self.mood.load(SeqCst) as usize]
    }
}

impl Proxy {
    pub fn before(server: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let control =
            Arc::new(Control { mood: AtomicU8::new(0), limit: AtomicU64::new(u64::MAX), struck: AtomicUsize::new(0) });
        let shared = control.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let shared = shared.clone();
                std::thread::spawn(move || relay(client, server, &shared));
            }
        });
        Proxy { port, control }
    }

    /// From now on every connection meets this after `limit` bytes from the server.
    pub fn set(&self, mood: Mood, limit: u64) {
        self.control.limit.store(limit, SeqCst);
        self.control.mood.store(mood as u8, SeqCst);
    }

    /// How many connections reached the limit.
    pub fn struck(&self) -> usize {
        self.control.struck.load(SeqCst)
    }
}

fn relay(client: TcpStream, server: u16, control: &Control) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", server)) else {
        return;
    };
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    let (up_from, up_to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    let up = std::thread::spawn(move || copy(up_from, up_to));
    downstream(client, server, control);
    drop(up);
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    let mut bytes = [0; 16384];
    while let Ok(n @ 1..) = from.read(&mut bytes) {
        if to.write_all(&bytes[..n]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

fn downstream(mut client: TcpStream, mut server: TcpStream, control: &Control) {
    let (mut passed, mut bytes) = (0u64, [0; 4096]);
    while let Ok(n @ 1..) = server.read(&mut bytes) {
        let mood = control.mood();
        let room = control.limit.load(SeqCst).saturating_sub(passed);
        if mood == Mood::Well || n as u64 <= room {
            passed += n as u64;
            if client.write_all(&bytes[..n]).is_err() {
                break;
            }
            continue;
        }
        let (before, after) = bytes[..n].split_at(room as usize);
        let _ = client.write_all(before);
        control.struck.fetch_add(1, SeqCst);
        match mood {
            Mood::Drips => drip(&mut client, after),
            Mood::Stalls => wait_for_hang_up(&server),
            Mood::Resets => return reset(client, &server),
            Mood::Well | Mood::Closes => {}
        }
        break;
    }
    let _ = client.shutdown(Shutdown::Both);
    let _ = server.shutdown(Shutdown::Both);
}

fn drip(to: &mut TcpStream, bytes: &[u8]) {
    for byte in bytes {
        if to.write_all(&[*byte]).is_err() {
            return;
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Leaves the server unread for as long as a test may take.
fn wait_for_hang_up(server: &TcpStream) {
    for _ in 0..1200 {
        if server.peek(&mut [0]).is_err() {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Breaks the connection with RST, which std has no stable way to ask for.
fn reset(client: TcpStream, server: &TcpStream) {
    let _ = server.shutdown(Shutdown::Both);
    // Ends the other direction's thread, so that ours is the last descriptor; sends nothing.
    let _ = client.shutdown(Shutdown::Read);
    std::thread::sleep(Duration::from_millis(50));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    runtime.block_on(async {
        client.set_nonblocking(true).unwrap();
        let stream = tokio::net::TcpStream::from_std(client).unwrap();
        let _ = stream.set_zero_linger();
    });
}

/// A listener that treats each connection by `serve` in a thread of its own; its port.
pub fn listener(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let serve = Arc::new(serve);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = serve.clone();
            std::thread::spawn(move || serve(stream));
        }
    });
    port
}

/// Accepts and says nothing.
pub fn silent_server() -> u16 {
    listener(|_stream| std::thread::sleep(Duration::from_secs(120)))
}

/// Speaks an endless banner, a byte a second.
pub fn dripping_server() -> u16 {
    listener(|mut stream| {
        while stream.write_all(b"x").is_ok() {
            std::thread::sleep(Duration::from_secs(1));
        }
    })
}

/// Introduces itself as SSH, and that was all.
pub fn greeting_server() -> u16 {
    listener(|mut stream| {
        let _ = stream.write_all(b"SSH-2.0-x\r\n");
        std::thread::sleep(Duration::from_secs(120));
    })
}

/// Not SSH at all.
pub fn web_server() -> u16 {
    listener(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\nno\n");
        std::thread::sleep(Duration::from_millis(200));
    })
}
