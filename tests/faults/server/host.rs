//! The server: honest, until it is told what to do to the next poll.

use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{Ed25519KeyPair, KeyPair};
use russh::keys::PublicKey;
use russh::keys::ssh_key::public::{Ed25519PublicKey, KeyData};

use super::channel::Channel;
use super::pack::Id;
use super::ssh::{Heard, Kex, Wire};

/// What the attacks know about the client.
#[derive(Clone)]
pub struct Ground {
    /// The commit that is deployed.
    pub deployed: Id,
    /// The honest server's repository.
    pub repository: PathBuf,
}

pub type OnStream = fn(&mut TcpStream) -> io::Result<()>;
pub type OnWire = fn(&mut Wire) -> io::Result<()>;
pub type OnChannel = Box<dyn Fn(&mut Channel, &Ground) -> io::Result<()> + Send + Sync>;

/// From where on the server means harm.
pub enum Attack {
    /// In place of a greeting.
    Stream(OnStream),
    /// After the greetings.
    Greeted(OnWire),
    Exchange(Kex),
    /// In place of a login.
    Login(OnWire),
    /// Everybody is in; in place of a channel.
    LoggedIn(OnWire),
    /// In place of git.
    Git(OnChannel),
}

/// Whom it is meant for: the first connection of a poll is the prober's, the second the fetcher's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Seat {
    Prober,
    Fetcher,
}

type Plan = Option<(Seat, Arc<Attack>, Ground)>;

pub struct Server {
    pub port: u16,
    key: Arc<Ed25519KeyPair>,
    plan: Arc<Mutex<Plan>>,
    heard: Arc<Mutex<Arc<Heard>>>,
    over: Arc<AtomicBool>,
}

impl Server {
    pub fn start() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut seed = [0; 32];
        SystemRandom::new().fill(&mut seed).unwrap();
        let key = Arc::new(Ed25519KeyPair::from_seed_unchecked(&seed).unwrap());
        let server = Server { port, key, plan: Arc::default(), heard: Arc::default(), over: Arc::default() };
        let (key, plan) = (Arc::clone(&server.key), Arc::clone(&server.plan));
        let (heard, over) = (Arc::clone(&server.heard), Arc::clone(&server.over));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                let heard = Arc::clone(&heard.lock().unwrap());
                let number = heard.connections.fetch_add(1, Ordering::SeqCst);
                let seat = if number == 0 { Seat::Prober } else { Seat::Fetcher };
                let meant = |(whom, attack, ground): &(Seat, Arc<Attack>, Ground)| {
                    (*whom == seat).then(|| (Arc::clone(attack), ground.clone()))
                };
                let attack = plan.lock().unwrap().as_ref().and_then(meant);
                // What is said to the honest server may be said.
                let heard = if attack.is_some() { heard } else { Arc::default() };
                let key = Arc::clone(&key);
                std::thread::spawn(move || {
                    let Ok(control) = stream.try_clone() else { return };
                    // Whoever is attacked hangs up sooner or later.
                    let _ = serve(stream, key, heard, attack);
                    let _ = control.shutdown(Shutdown::Both);
                });
            }
        });
        server
    }

    pub fn known_hosts_line(&self) -> String {
        let point = <[u8; 32]>::try_from(self.key.public_key().as_ref()).unwrap();
        let key = PublicKey::from(KeyData::Ed25519(Ed25519PublicKey(point)));
        format!("[127.0.0.1]:{} {}\n", self.port, key.to_openssh().unwrap())
    }

    pub fn url(&self, repository: &Path) -> String {
        format!("ssh://git@127.0.0.1:{}{}", self.port, repository.display())
    }

    /// Means harm from now on; what is heard meanwhile.
    pub fn attack(&self, seat: Seat, attack: Arc<Attack>, ground: Ground) -> Arc<Heard> {
        *self.plan.lock().unwrap() = Some((seat, attack, ground));
        self.forget()
    }

    /// Is honest again.
    pub fn repent(&self) {
        *self.plan.lock().unwrap() = None;
        self.forget();
    }

    fn forget(&self) -> Arc<Heard> {
        let mut heard = self.heard.lock().unwrap();
        *heard = Arc::default();
        Arc::clone(&heard)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn serve(
    mut stream: TcpStream,
    key: Arc<Ed25519KeyPair>,
    heard: Arc<Heard>,
    attack: Option<(Arc<Attack>, Ground)>,
) -> io::Result<()> {
    let (attack, ground) = match &attack {
        Some((attack, ground)) => (Some(&**attack), Some(ground)),
        None => (None, None),
    };
    if let Some(Attack::Stream(play)) = attack {
        return play(&mut stream);
    }
    let mut wire = Wire::greet(stream, key, heard)?;
    match attack {
        Some(Attack::Greeted(play)) => return play(&mut wire),
        Some(Attack::Exchange(how)) => wire.exchange(*how)?,
        _ => wire.exchange(Kex::Right)?,
    }
    if let Some(Attack::Login(play)) = attack {
        return play(&mut wire);
    }
    wire.let_in()?;
    if let Some(Attack::LoggedIn(play)) = attack {
        return play(&mut wire);
    }
    let mut channel = Channel::open(wire)?;
    match (attack, ground) {
        (Some(Attack::Git(play)), Some(ground)) => play(&mut channel, ground),
        _ => channel.be_honest(),
    }
}
