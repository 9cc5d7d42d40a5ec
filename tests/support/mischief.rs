//! Servers and networks that misbehave: a proxy before the real sshd that stalls, drips, resets, cuts or
//! flips a bit at a chosen byte, and listeners that say nothing, or too little.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Mood {
    /// Passes everything on.
    Well,
    /// After the limit passes nothing more, and keeps the connection.
    Stalls,
    /// After the limit breaks the connection with a TCP reset.
    Resets,
    /// After the limit ends the connection in good order.
    Closes,
    /// After the limit passes one byte a second.
    Drips,
    /// After the limit passes 4 KiB now and then: never silent for long, and never done.
    Trickles,
    /// Turns one bit of the byte after the limit, and passes everything on.
    Flips,
}

/// Which way bytes go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    FromServer,
    ToServer,
}

/// Where in a connection.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    /// After so many bytes from the server.
    Byte(u64),
    /// After so many bytes of this turn, counted from 0 over both sides; if it is shorter, when the same
    /// side speaks next. How many bytes a stage takes depends on how the server cuts them into packets,
    /// and who speaks when does not.
    Turn(usize, u64),
}

/// What a connection meets.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub mood: Mood,
    pub way: Way,
    pub place: Place,
    /// Counted from 0 since the plan was made; None for each.
    pub connection: Option<usize>,
}

/// What went through one connection.
#[derive(Clone, Default, Debug)]
pub struct Recording {
    /// Who spoke in turn, and how many bytes.
    pub turns: Vec<(Way, u64)>,
    /// Neither side will say more.
    over: bool,
}

impl Recording {
    /// The turn that bytes belong to which come now, and how many of it came before them.
    fn turn_of(&self, way: Way) -> (usize, u64) {
        match self.turns.last() {
            Some((last, count)) if *last == way => (self.turns.len() - 1, *count),
            _ => (self.turns.len(), 0),
        }
    }

    fn take(&mut self, way: Way, bytes: u64) {
        match self.turns.last_mut() {
            Some((last, count)) if *last == way => *count += bytes,
            _ => self.turns.push((way, bytes)),
        }
    }
}

/// A relay to a port of this machine.
pub struct Proxy {
    pub port: u16,
    control: Arc<Control>,
}

struct Control {
    plan: Mutex<Plan>,
    struck: AtomicUsize,
    passed: AtomicU64,
    /// Those from before the plan was made are forgotten here, and go on by themselves.
    recordings: Mutex<Vec<Arc<Mutex<Recording>>>>,
}

const HARMLESS: Plan = Plan { mood: Mood::Well, way: Way::FromServer, place: Place::Byte(u64::MAX), connection: None };

impl Proxy {
    pub fn before(server: u16) -> Proxy {
        Proxy::on(TcpListener::bind("127.0.0.1:0").unwrap(), server)
    }

    /// One that listens elsewhere, such as in a network of the test's own.
    pub fn on(listener: TcpListener, server: u16) -> Proxy {
        let port = listener.local_addr().unwrap().port();
        let control = Arc::new(Control {
            plan: Mutex::new(HARMLESS),
            struck: AtomicUsize::new(0),
            passed: AtomicU64::new(0),
            recordings: Mutex::default(),
        });
        let shared = control.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let shared = shared.clone();
                // A connection has its number when it comes, not when its thread gets to run.
                let (number, recording) = shared.register();
                std::thread::spawn(move || {
                    relay(client, server, &shared, number, &recording);
                    recording.lock().unwrap().over = true;
                });
            }
        });
        Proxy { port, control }
    }

    /// From now on every connection meets this after `limit` bytes from the server.
    pub fn set(&self, mood: Mood, limit: u64) {
        *self.control.plan.lock().unwrap() = Plan { mood, place: Place::Byte(limit), ..HARMLESS };
    }

    /// From now on, and all that is counted and recorded begins anew.
    pub fn meet(&self, plan: Plan) {
        self.control.recordings.lock().unwrap().clear();
        self.control.struck.store(0, SeqCst);
        self.control.passed.store(0, SeqCst);
        *self.control.plan.lock().unwrap() = plan;
    }

    pub fn behave(&self) {
        self.meet(HARMLESS);
    }

    /// How many connections reached the limit since the plan was made.
    pub fn struck(&self) -> usize {
        self.control.struck.load(SeqCst)
    }

    /// Bytes from the server that were passed on since the plan was made.
    pub fn passed(&self) -> u64 {
        self.control.passed.load(SeqCst)
    }

    /// What went through since the plan was made, a connection each. Waits for their ends: a client is gone
    /// before its last words have come through here.
    pub fn recordings(&self) -> Vec<Recording> {
        let recordings = self.control.recordings.lock().unwrap().clone();
        let over = || recordings.iter().all(|recording| recording.lock().unwrap().over);
        super::wait_until("the connections' ends", super::seconds(20), over);
        recordings.iter().map(|recording| recording.lock().unwrap().clone()).collect()
    }
}

impl Control {
    fn register(&self) -> (usize, Arc<Mutex<Recording>>) {
        let mut recordings = self.recordings.lock().unwrap();
        let recording = Arc::<Mutex<Recording>>::default();
        recordings.push(recording.clone());
        (recordings.len() - 1, recording)
    }
}

/// Both ends of one connection.
struct Link<'a> {
    client: TcpStream,
    server: TcpStream,
    control: &'a Control,
    number: usize,
    recording: &'a Mutex<Recording>,
    /// The client is gone.
    over: AtomicBool,
    /// It ends by a reset, with no farewell before.
    reset: AtomicBool,
}

fn relay(client: TcpStream, server: u16, control: &Control, number: usize, recording: &Mutex<Recording>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", server)) else {
        return;
    };
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    let (over, reset) = (AtomicBool::new(false), AtomicBool::new(false));
    let link = Link { client, server, control, number, recording, over, reset };
    std::thread::scope(|scope| {
        scope.spawn(|| link.pass(Way::ToServer));
        link.pass(Way::FromServer);
    });
}

impl Link<'_> {
    /// How many bytes may still go this way before the plan strikes.
    fn room(&self, plan: &Plan, way: Way, passed: u64) -> u64 {
        if plan.way != way || plan.connection.is_some_and(|only| only != self.number) {
            return u64::MAX;
        }
        match plan.place {
            Place::Byte(limit) => limit.saturating_sub(passed),
            Place::Turn(turn, offset) => {
                let (now, before) = self.recording.lock().unwrap().turn_of(way);
                match now.cmp(&turn) {
                    std::cmp::Ordering::Less => u64::MAX,
                    std::cmp::Ordering::Equal => offset.saturating_sub(before),
                    std::cmp::Ordering::Greater => 0,
                }
            }
        }
    }

    fn record(&self, way: Way, bytes: &[u8]) {
        self.recording.lock().unwrap().take(way, bytes.len() as u64);
        if way == Way::FromServer {
            self.control.passed.fetch_add(bytes.len() as u64, SeqCst);
        }
    }

    fn pass(&self, way: Way) {
        let (from, mut to) = match way {
            Way::FromServer => (&self.server, &self.client),
            Way::ToServer => (&self.client, &self.server),
        };
        self.copy(from, &mut to, way);
        if !self.reset.load(SeqCst) {
            let _ = to.shutdown(Shutdown::Write);
        }
        if way == Way::ToServer {
            // A client that is gone ends whatever waits here; a server may end one way only.
            self.over.store(true, SeqCst);
        }
    }

    fn copy(&self, mut from: &TcpStream, to: &mut &TcpStream, way: Way) {
        let (mut passed, mut bytes, mut flipped) = (0u64, [0; 4096], false);
        let mut turns = 0;
        while let Ok(n @ 1..) = if passed == 0 { first_line(from, &mut bytes) } else { from.read(&mut bytes) } {
            if way == Way::FromServer && (passed == 0 && bytes.starts_with(b"SSH-") || turns == 1) {
                turns += 1;
                self.let_the_client_speak();
            }
            let plan = *self.control.plan.lock().unwrap();
            let room = self.room(&plan, way, passed);
            let here = plan.mood != Mood::Well && room <= n as u64;
            let mut head = if here { room as usize } else { n };
            if here && plan.mood == Mood::Flips {
                if head < n && !flipped {
                    bytes[head] ^= 1;
                    flipped = true;
                    self.control.struck.fetch_add(1, SeqCst);
                }
                head = n;
            }
            passed += head as u64;
            self.record(way, &bytes[..head]);
            if to.write_all(&bytes[..head]).is_err() {
                return;
            }
            if here && plan.mood != Mood::Flips {
                self.control.struck.fetch_add(1, SeqCst);
                return self.strike(plan, from, to, &bytes[head..n]);
            }
        }
    }

    /// Client and server send their names and their KEXINIT without waiting for each other. Here the client
    /// goes first, so that turns are the same each time; one that says nothing is not waited for long.
    fn let_the_client_speak(&self) {
        let end = Instant::now() + Duration::from_millis(500);
        let spoke = || self.recording.lock().unwrap().turns.last().is_some_and(|(way, _)| *way == Way::ToServer);
        while !spoke() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn strike(&self, plan: Plan, mut from: &TcpStream, to: &mut &TcpStream, rest: &[u8]) {
        match plan.mood {
            Mood::Stalls => {
                let mut lost = [0; 4096];
                while let Ok(1..) = from.read(&mut lost) {
                    if self.over.load(SeqCst) {
                        break;
                    }
                }
                // What a server says at its end is held back too, until the client goes.
                while plan.way == Way::FromServer && !self.over.load(SeqCst) {
                    std::thread::sleep(Duration::from_millis(50));
                }
            }
            Mood::Drips | Mood::Trickles => {
                let (size, pause) = if plan.mood == Mood::Drips { (1, 1000) } else { (4096, 100) };
                let mut bytes = [0; 4096];
                let mut going = self.drip(to, rest, size, pause);
                while going {
                    let Ok(n @ 1..) = from.read(&mut bytes) else { break };
                    going = self.drip(to, &bytes[..n], size, pause);
                }
            }
            Mood::Resets => {
                self.reset.store(true, SeqCst);
                for end in [&self.client, &self.server] {
                    let _ = socket2::SockRef::from(end).set_linger(Some(Duration::ZERO));
                    // Ends the other way's thread and sends nothing; closed after that, it is a reset.
                    let _ = end.shutdown(Shutdown::Read);
                }
            }
            Mood::Closes => {
                let _ = self.client.shutdown(Shutdown::Both);
                let _ = self.server.shutdown(Shutdown::Both);
            }
            Mood::Well | Mood::Flips => {}
        }
    }

    /// So many bytes at once, with so many milliseconds between; whether both sides are still there.
    fn drip(&self, to: &mut &TcpStream, bytes: &[u8], size: usize, pause: u64) -> bool {
        for part in bytes.chunks(size) {
            if self.over.load(SeqCst) || to.write_all(part).is_err() {
                return false;
            }
            std::thread::sleep(Duration::from_millis(pause));
        }
        true
    }
}

/// Reads up to the end of the first line, or of what SSH allows for one.
fn first_line(mut from: &TcpStream, bytes: &mut [u8]) -> std::io::Result<usize> {
    let mut length = 0;
    while length < 255 && from.read(&mut bytes[length..=length])? == 1 {
        length += 1;
        if bytes[length - 1] == b'\n' {
            break;
        }
    }
    Ok(length)
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
