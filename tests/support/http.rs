//! A stand-in for whoever is told by HTTP: one thread that writes down what it is sent and answers as a
//! test wants. It passes for a proxy too: after a CONNECT it answers in the target's place.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Status(u16),
    Redirect(String),
    /// Reads the request and says nothing.
    Hang,
    /// Begins an answer, a byte every now and then.
    Drip,
    /// Closes the connection instead.
    Close,
}

#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    /// What stood after the method.
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("not JSON, {e}: {}", self.body))
    }
}

struct Shared {
    /// What the next requests meet, and all after them.
    next: VecDeque<Reply>,
    always: Reply,
    seen: Vec<Request>,
}

pub struct Http {
    pub port: u16,
    shared: Arc<Mutex<Shared>>,
}

impl Http {
    /// Answers 200 to everybody until told otherwise.
    pub fn start() -> Http {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Shared { next: VecDeque::new(), always: Reply::Status(200), seen: Vec::new() };
        let shared = Arc::new(Mutex::new(shared));
        let of_thread = shared.clone();
        std::thread::spawn(move || {
            let mut hanging = Vec::new();
            for stream in listener.incoming().flatten() {
                hanging.extend(serve(stream, &of_thread));
            }
        });
        Http { port, shared }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub fn always(&self, reply: Reply) {
        self.shared.lock().unwrap().always = reply;
    }

    /// What the requests from now on meet, one each, before what all others do.
    pub fn next(&self, replies: &[Reply]) {
        self.shared.lock().unwrap().next.extend(replies.iter().cloned());
    }

    /// What was asked since this was asked last.
    pub fn take(&self) -> Vec<Request> {
        std::mem::take(&mut self.shared.lock().unwrap().seen)
    }

    /// The same, as `METHOD PATH`.
    pub fn take_lines(&self) -> Vec<String> {
        self.take().iter().map(|r| format!("{} {}", r.method, r.path)).collect()
    }
}

/// Answers one connection, or returns it to be left hanging.
fn serve(mut stream: TcpStream, shared: &Mutex<Shared>) -> Option<TcpStream> {
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut request = read(&mut stream)?;
    if request.method == "CONNECT" {
        shared.lock().unwrap().seen.push(request);
        stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").ok()?;
        request = read(&mut stream)?;
    }
    let reply = {
        let mut shared = shared.lock().unwrap();
        shared.seen.push(request);
        let always = shared.always.clone();
        shared.next.pop_front().unwrap_or(always)
    };
    let head = match reply {
        Reply::Status(status) => format!("HTTP/1.1 {status} As Asked\r\n"),
        Reply::Redirect(to) => format!("HTTP/1.1 308 Permanent Redirect\r\nLocation: {to}\r\n"),
        Reply::Hang => return Some(stream),
        Reply::Drip => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nX-Long: ");
            while stream.write_all(b"x").is_ok() {
                std::thread::sleep(Duration::from_millis(200));
            }
            return None;
        }
        Reply::Close => return None,
    };
    let _ = stream.write_all(format!("{head}Content-Length: 2\r\nConnection: close\r\n\r\nok").as_bytes());
    None
}

fn read(stream: &mut TcpStream) -> Option<Request> {
    let (mut bytes, mut chunk) = (Vec::new(), [0; 4096]);
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break end + 4;
        }
        match stream.read(&mut chunk) {
            Ok(n @ 1..) => bytes.extend_from_slice(&chunk[..n]),
            _ => return None,
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.lines();
    let mut words = lines.next()?.split(' ').map(str::to_owned);
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length").and_then(|(_, n)| n.parse().ok());
    let mut body = bytes[end..].to_vec();
    while body.len() < length.unwrap_or(0) {
        match stream.read(&mut chunk) {
            Ok(n @ 1..) => body.extend_from_slice(&chunk[..n]),
            _ => return None,
        }
    }
    Some(Request {
        method: words.next()?,
        path: words.next()?,
        headers,
        body: String::from_utf8_lossy(&body).into_owned(),
    })
}
