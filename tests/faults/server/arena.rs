//! One case after another in a world of its own: the hostile poll, what it must not have done, and the
//! honest poll after it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};

use super::host::{Attack, Ground, Seat, Server};
use super::pack::from_hex;
use crate::support::memory::{Peaks, largest_child, mib, watch};
use crate::support::run::Outcome;
use crate::support::{World, file, seconds};
use crate::tally::{Group, Tally};

/// What each process may take at most.
const BOUNDS: [(&str, u64); 3] = [("supervisor", 64 << 20), ("prober", 64 << 20), ("fetcher", 256 << 20)];

pub struct Case {
    pub name: String,
    pub seat: Seat,
    pub attack: Arc<Attack>,
    /// The exit codes that are right.
    pub codes: &'static [i32],
    /// What standard error says.
    pub says: &'static str,
    /// Among those that every run of the tests meets.
    pub always: bool,
    /// The app follows tags, and not a branch.
    pub tags: bool,
    /// What this one may take in the fetcher.
    pub fetcher: u64,
    /// The source's time limit in seconds; the run has four times as long.
    pub patience: u64,
    /// What takes long to make, before anybody waits for it.
    pub prepare: fn(),
}

impl Case {
    pub fn new(name: &str, seat: Seat, attack: Attack, codes: &'static [i32], says: &'static str) -> Case {
        let (name, attack) = (format!("{name} ({seat:?})"), Arc::new(attack));
        Case {
            name,
            seat,
            attack,
            codes,
            says,
            always: false,
            tags: false,
            fetcher: BOUNDS[2].1,
            patience: 2,
            prepare: || (),
        }
    }

    pub fn always(mut self) -> Case {
        self.always = true;
        self
    }

    pub fn tags(mut self) -> Case {
        self.tags = true;
        self
    }
}

/// Runs the cases, a few side by side, and counts them. All are tried, whichever do not hold.
pub fn run(cases: Vec<Case>) {
    let mut tally = Tally::new(Group::Server);
    let only = std::env::var("POLLER_FAULTS_CASE").ok();
    let wanted = |case: &Case| match &only {
        Some(part) => case.name.contains(part),
        None => crate::all() || case.always,
    };
    let cases: Vec<Case> = cases.into_iter().filter(wanted).collect();
    let next = AtomicUsize::new(0);
    let mut peaks = Peaks::default();
    let mut failed = Vec::new();
    std::thread::scope(|scope| {
        let (sender, reports) = channel();
        for _ in 0..4.min(cases.len()) {
            let sender = sender.clone();
            scope.spawn(|| work(&cases, &next, sender));
        }
        drop(sender);
        for (name, held) in reports {
            match held {
                Some(of_case) => {
                    tally.case(name);
                    peaks.take_larger(&of_case);
                }
                None => failed.push(name),
            }
        }
    });
    let roles = BOUNDS.map(|(role, _)| role);
    tally.note(format!("at most {}", peaks.words(&roles)));
    if !failed.is_empty() {
        tally.case(failed.join(", "));
        panic!("{} of {} did not hold: {failed:#?}", failed.len(), cases.len());
    }
    // A process that came and went between two looks is in what the kernel adds up.
    let largest = cases.iter().map(|case| case.fetcher).max().unwrap_or(0);
    let most = largest_child();
    assert!(most <= largest, "some process took {} MiB, more than {}", mib(most), mib(largest));
    assert!(roles.iter().all(|role| only.is_some() || peaks.of(role) > 0), "nothing was measured: {peaks:?}");
}

/// What a case took, None when it did not hold.
type Report = (String, Option<Peaks>);

fn work(cases: &[Case], next: &AtomicUsize, reports: Sender<Report>) {
    let mut arena = None;
    while let Some(case) = cases.get(next.fetch_add(1, Ordering::SeqCst)) {
        let whole = arena.take().unwrap_or_else(Arena::new);
        let met = catch_unwind(AssertUnwindSafe(move || {
            let peaks = whole.meet(case);
            (whole, peaks)
        }));
        // What a case that failed leaves is nothing to go on with.
        let report = met.ok().map(|(whole, peaks)| {
            arena = Some(whole);
            peaks
        });
        reports.send((case.name.clone(), report)).expect("somebody counts");
    }
}

struct Arena {
    world: World,
    server: Server,
    rounds: AtomicUsize,
}

impl Arena {
    fn new() -> Arena {
        let world = World::new("hostile");
        let server = Server::start();
        world.write_etc("known_hosts", &server.known_hosts_line());
        let arena = Arena { world, server, rounds: AtomicUsize::new(0) };
        arena.configure(false, 30);
        arena.world.deployed_as_configured();
        arena
    }

    fn configure(&self, tags: bool, timeout: u64) {
        let (world, url) = (&self.world, self.server.url(&self.world.repo.bare));
        let app = world.app("site").source(&format!("url = \"{url}\"\ntimeout = \"{timeout}s\""));
        let app = if tags { app.without("source.branch").source("tag = \"v*\"") } else { app };
        app.write();
        world.write_host_config(&format!("deadline = \"{}s\"", 4 * timeout));
    }

    fn meet(&self, case: &Case) -> Peaks {
        let world = &self.world;
        let round = self.rounds.fetch_add(1, Ordering::SeqCst);
        let next = world.push(&[("page.html", file(format!("{round}\n")))], "next");
        let live = world.revision("site").expect("something is live");
        let (logged, stored) = (log_length(world), stored(&world.state()));
        self.configure(case.tags, case.patience);
        (case.prepare)();
        let ground = Ground { deployed: from_hex(&live), repository: world.repo.bare.clone() };
        let heard = self.server.attack(case.seat, Arc::clone(&case.attack), ground);
        let (outcome, peaks) = watch(world.spawn_poll(&[]));
        self.server.repent();
        let what = &case.name;
        println!(
            "{what} | exit {} | {} ms | {} | {}",
            outcome.code,
            outcome.took.as_millis(),
            peaks.words(&BOUNDS.map(|(role, _)| role)),
            first_lines(&outcome.stderr),
        );
        assert!(case.codes.contains(&outcome.code), "{what}: exit {}\n{}", outcome.code, outcome.story());
        assert!(outcome.stderr.contains(case.says), "{what}: {:?} is not said\n{}", case.says, outcome.story());
        assert!(outcome.took < seconds(20 + 4 * case.patience), "{what}: took {:?}", outcome.took);
        self.expect_plain_text(case, &outcome, logged);
        if matches!(*case.attack, Attack::Exchange(how) if how != super::ssh::Kex::GarbageAfter) {
            assert_eq!(heard.trusting.load(Ordering::SeqCst), 0, "{what}: the client went on");
        }
        if outcome.code != 0 {
            assert_eq!(world.revision("site"), Some(live.clone()), "{what}: what is live changed");
        }
        for (role, bound) in BOUNDS {
            let (most, bound) = (peaks.of(role), if role == "fetcher" { case.fetcher } else { bound });
            assert!(most <= bound, "{what}: the {role} took {} MiB, more than {}", mib(most), mib(bound));
        }
        self.expect_recovery(case, &outcome, &next, stored);
        peaks
    }

    /// The same server, honest again.
    fn expect_recovery(&self, case: &Case, hostile: &Outcome, next: &str, stored_before: u64) {
        let (world, what) = (&self.world, &case.name);
        self.configure(false, 30);
        // A commit that was deployed from the hostile server is not an ancestor of the honest one.
        let forced: &[&str] = if hostile.code == 0 { &["--force", "site"] } else { &[] };
        let honest = world.poll(forced);
        assert_eq!(honest.code, 0, "{what}: the honest poll after it\n{}", honest.story());
        assert_eq!(world.revision("site").as_deref(), Some(next), "{what}: the honest poll after it");
        world.expect_live("site", next);
        world.expect_no_leftovers("site");
        let grown = stored(&world.state()).saturating_sub(stored_before);
        assert!(grown < 2 << 20, "{what}: the state folder grew by {} KiB", grown >> 10);
    }

    fn expect_plain_text(&self, case: &Case, outcome: &Outcome, logged: usize) {
        let log = fs::read(self.world.log_file()).unwrap();
        let log = String::from_utf8(log[logged..].to_vec()).expect("the log is UTF-8");
        for (place, text) in [("standard error", outcome.stderr.as_str()), ("the log", &log)] {
            let code = text.chars().find(|c| c.is_control() && *c != '\n');
            assert_eq!(code, None, "{}: {place} has a control character\n{}", case.name, outcome.story());
            let longest = text.lines().map(str::len).max().unwrap_or(0);
            assert!(longest < 20_000, "{}: {place} has a line of {longest} bytes", case.name);
        }
        assert!(!log.contains("\\u001b") && !log.contains("\\u009b"), "{}: an escape code in the log", case.name);
    }
}

fn first_lines(text: &str) -> String {
    let lines: Vec<_> = text.lines().take(3).map(|line| line.chars().take(300).collect::<String>()).collect();
    lines.join(" / ")
}

fn log_length(world: &World) -> usize {
    fs::metadata(world.log_file()).map_or(0, |meta| meta.len() as usize)
}

/// Bytes on the disk under a folder.
fn stored(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => stored(&entry.path()),
            Ok(meta) => meta.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}
