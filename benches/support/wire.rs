//! A TCP proxy that counts: stands at the server's port while bytes are measured.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

#[derive(Default)]
struct Counts {
    bytes: AtomicU64,
    /// Directions that are still open.
    open: AtomicUsize,
    is_over: AtomicBool,
}

pub struct Counter {
    counts: Arc<Counts>,
    port: u16,
    accepting: Option<JoinHandle<()>>,
}

impl Counter {
    /// Listens at one loopback port and passes everything on to another one.
    pub fn between(port: u16, server: u16) -> Counter {
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("the server's port, which is free now");
        let counts = Arc::new(Counts::default());
        let shared = Arc::clone(&counts);
        let accepting = thread::spawn(move || {
            for client in listener.incoming() {
                if shared.is_over.load(Ordering::SeqCst) {
                    return;
                }
                let client = client.expect("a connection");
                let server = TcpStream::connect(("127.0.0.1", server)).expect("sshd");
                for socket in [&client, &server] {
                    socket.set_nodelay(true).expect("nodelay");
                }
                shared.open.fetch_add(2, Ordering::SeqCst);
                let copies = [client.try_clone(), server.try_clone()].map(|copy| copy.expect("a copy of a socket"));
                let [client_copy, server_copy] = copies;
                pump(client, server_copy, Arc::clone(&shared));
                pump(server, client_copy, Arc::clone(&shared));
            }
        });
        Counter { counts, port, accepting: Some(accepting) }
    }

    /// What went through since the last time, when all that is open has come to its end.
    pub fn take(&self) -> u64 {
        for _ in 0..5000 {
            if self.counts.open.load(Ordering::SeqCst) == 0 {
                return self.counts.bytes.swap(0, Ordering::SeqCst);
            }
            thread::sleep(Duration::from_millis(1));
        }
        panic!("a connection through the counter does not end");
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        self.counts.is_over.store(true, Ordering::SeqCst);
        // It waits for a connection: here is one.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, counts: Arc<Counts>) {
    thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        // A reset is an end too.
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            counts.bytes.fetch_add(length as u64, Ordering::SeqCst);
            if to.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
        let _ = from.shutdown(Shutdown::Read);
        counts.open.fetch_sub(1, Ordering::SeqCst);
    });
}
