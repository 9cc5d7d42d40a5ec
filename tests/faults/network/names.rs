//! Name servers that never answer, say no, or name addresses where nobody is.

use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::net::{DEAD, DEAD_V6, End, Net, RESOLVER, SERVER};
use crate::all;
use crate::support::run::Outcome;
use crate::support::{World, file, seconds};
use crate::tally::{Group, Tally};

const HOST: &str = "git.test";

/// What a name server does with a question.
enum Resolver {
    Silent,
    /// A code: 2 for SERVFAIL, 3 for NXDOMAIN, 5 for REFUSED.
    Fails(u8),
    Names(Vec<&'static str>),
    /// Not an answer at all.
    Babbles,
    /// "Ask again by TCP", where nobody listens.
    Truncates,
}

struct Served {
    over: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Served {
    fn end(self) {
        self.over.store(true, Ordering::SeqCst);
        self.thread.join().unwrap();
    }
}

impl Resolver {
    /// Serves in a thread of its own until it is told to end.
    fn serve(self, net: &Net) -> Served {
        let socket = net.inside(End::Server, || UdpSocket::bind((RESOLVER, 53)).unwrap());
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            let mut question = [0; 512];
            while !told.load(Ordering::SeqCst) {
                let Ok((length, from)) = socket.recv_from(&mut question) else { continue };
                if let Some(answer) = self.answer(&question[..length]) {
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        Served { over, thread }
    }

    fn answer(&self, query: &[u8]) -> Option<Vec<u8>> {
        // The header, one name in labels up to the empty one, type and class.
        let end = 12 + query.get(12..)?.iter().position(|&byte| byte == 0)? + 5;
        let kind = query.get(end - 3)?;
        let with = |flags: [u8; 2], answers: u8| {
            let mut answer = query[..end].to_vec();
            answer[2..4].copy_from_slice(&flags);
            answer[4..12].copy_from_slice(&[0, 1, 0, answers, 0, 0, 0, 0]);
            answer
        };
        Some(match self {
            Resolver::Silent => return None,
            Resolver::Fails(code) => with([0x81, 0x80 | code], 0),
            Resolver::Babbles => [&query[..2], &b"\xff\xff\xff\xff\xff\xff is what I say"[..]].concat(),
            Resolver::Truncates => with([0x83, 0x80], 0),
            Resolver::Names(addresses) => {
                let all = addresses.iter().map(|text| text.parse::<IpAddr>().unwrap());
                let fit: Vec<_> = all.filter(|ip| *kind == if ip.is_ipv4() { 1 } else { 28 }).collect();
                let mut answer = with([0x81, 0x80], fit.len() as u8);
                for ip in fit {
                    let bytes = match ip {
                        IpAddr::V4(ip) => ip.octets().to_vec(),
                        IpAddr::V6(ip) => ip.octets().to_vec(),
                    };
                    answer.extend([0xc0, 12, 0, *kind, 0, 1, 0, 0, 0, 0, 0, bytes.len() as u8]);
                    answer.extend(bytes);
                }
                answer
            }
        })
    }
}

struct Place {
    world: World,
    net: Net,
    live: String,
}

impl Place {
    fn new() -> Place {
        let world = World::new("names");
        let net = Net::new(&world);
        // What is in nobody's /etc: only DNS is asked.
        net.put_etc("nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n");
        net.put_etc("resolv.conf", &format!("nameserver {RESOLVER}\n"));
        net.pin(&world, HOST);
        let live = world.push(&[("deploy.sh", world.script(""))], "first");
        let place = Place { world, net, live };
        place.limit("20s");
        place.poll(Resolver::Names(vec![SERVER])).expect(0);
        place
    }

    fn limit(&self, timeout: &str) {
        let url = self.net.url_of(&self.world, HOST);
        self.world.app("site").source(&format!("url = \"{url}\"\ntimeout = \"{timeout}\"")).write();
    }

    fn poll(&self, resolver: Resolver) -> Outcome {
        let served = resolver.serve(&self.net);
        let outcome = self.net.poll(&self.world, &[]);
        served.end();
        outcome
    }
}

#[test]
fn a_name_server_that_does_not_help_is_69_within_the_limit() {
    needs_root!();
    needs_program!("nft");
    let mut tally = Tally::new(Group::Network);
    let place = Place::new();
    let mut longest = Duration::ZERO;
    place.limit("2s");
    let cases = [
        ("silent", Resolver::Silent),
        ("NXDOMAIN", Resolver::Fails(3)),
        ("SERVFAIL", Resolver::Fails(2)),
        ("REFUSED", Resolver::Fails(5)),
        ("no address", Resolver::Names(vec![])),
        ("babble", Resolver::Babbles),
        ("truncated, and no TCP", Resolver::Truncates),
        ("a black hole", Resolver::Names(vec![DEAD[0]])),
        ("two black holes", Resolver::Names(DEAD.to_vec())),
        ("black holes of both kinds", Resolver::Names(vec![DEAD[0], DEAD_V6])),
        ("many addresses", Resolver::Names(vec![DEAD[0]; 20])),
        ("loopback, where nobody listens", Resolver::Names(vec!["127.0.0.1"])),
        ("an address that is none", Resolver::Names(vec!["0.0.0.0", "255.255.255.255"])),
    ];
    for (name, resolver) in cases.into_iter().step_by(if all() { 1 } else { 4 }) {
        tally.case(name);
        let outcome = place.poll(resolver).within(seconds(15));
        assert_eq!(outcome.code, 69, "{name}\n{}", outcome.story());
        longest = longest.max(outcome.took);
        assert_eq!(place.world.revision("site").as_ref(), Some(&place.live), "{name}");
        place.world.expect_no_processes();
    }
    tally.case("all name servers are black holes");
    place.net.put_etc("resolv.conf", &format!("nameserver {}\nnameserver {}\n", DEAD[0], DEAD[1]));
    let outcome = place.poll(Resolver::Silent).expect(69).within(seconds(15)).says("resolving the name");
    longest = longest.max(outcome.took);
    place.world.expect_no_processes();
    tally.note(format!("limit 2 s: at most {:.1} s", longest.as_secs_f32()));
}

#[test]
fn of_several_addresses_a_dead_one_leaves_time_for_the_next() {
    needs_root!();
    needs_program!("nft");
    let mut tally = Tally::new(Group::Network);
    let place = Place::new();
    let cases = [
        ("two are dead", vec![DEAD[0], DEAD[1], SERVER]),
        ("the first refuses", vec![RESOLVER, SERVER]),
        ("the first is dead", vec![DEAD[0], SERVER]),
        ("IPv6 is dead", vec![DEAD_V6, SERVER]),
        ("the second is dead", vec![SERVER, DEAD[0]]),
    ];
    for (name, addresses) in cases.into_iter().take(if all() { 5 } else { 2 }) {
        tally.case(name);
        place.limit("8s");
        let tip = place.world.push(&[("index.html", file(name))], name);
        let outcome = place.poll(Resolver::Names(addresses)).expect(0).within(seconds(30));
        place.world.expect_live("site", &tip);
        tally.note(format!("{name}: {:.1} s", outcome.took.as_secs_f32()));
    }
}
