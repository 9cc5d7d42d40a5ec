//! A row has contestants that do the same work. All rows of a group are run round by round, so that
//! whatever else the machine does hits all of them alike: the order of rows and of contestants is shifted
//! by one from round to round. What cannot be measured in a timed run is measured in one of its own.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::rc::Rc;

use super::lab::Lab;
use super::measure::{self, Disk, Sample, Seen, Summary, disk_of};
use super::trace::{Calls, trace};

type Action = Box<dyn FnMut()>;

enum Work {
    Programs(Box<dyn Fn() -> Vec<Command>>),
    UntilConnected(TcpListener, Box<dyn Fn() -> Command>),
}

pub struct Contestant {
    pub name: String,
    work: Work,
    before: Action,
    after: Action,
    status: i32,
    /// How many rounds at most.
    at_most: Option<usize>,
    disk: Option<(PathBuf, PathBuf)>,
}

pub struct Row {
    pub title: String,
    rounds: usize,
    warm_up: usize,
    begin: Action,
    calls: Calls,
    contestants: Vec<Contestant>,
    prepared: Option<Box<dyn FnOnce()>>,
}

pub struct Results {
    pub title: String,
    pub contestants: Vec<(String, Summary)>,
}

impl Contestant {
    /// Is timed from the start of its first program to the end of its last.
    pub fn new(name: impl Into<String>, programs: impl Fn() -> Vec<Command> + 'static) -> Contestant {
        Contestant::of(name.into(), Work::Programs(Box::new(programs)))
    }

    /// Is timed from its start until it has connected to a listener of ours.
    pub fn connects(name: &str, listener: TcpListener, program: impl Fn() -> Command + 'static) -> Contestant {
        Contestant::of(name.to_owned(), Work::UntilConnected(listener, Box::new(program)))
    }

    fn of(name: String, work: Work) -> Contestant {
        let nothing = || Box::new(|| ());
        Contestant { name, work, before: nothing(), after: nothing(), status: 0, at_most: None, disk: None }
    }

    /// Outside the clock, before each run.
    pub fn before(self, action: impl FnMut() + 'static) -> Contestant {
        Contestant { before: Box::new(action), ..self }
    }

    /// Outside the clock, after each run: panics when the work was not done.
    pub fn after(self, action: impl FnMut() + 'static) -> Contestant {
        Contestant { after: Box::new(action), ..self }
    }

    /// Has to end with this exit status.
    pub fn fails_with(self, status: i32) -> Contestant {
        Contestant { status, ..self }
    }

    pub fn named(self, name: String) -> Contestant {
        Contestant { name, ..self }
    }

    pub fn at_most(self, rounds: usize) -> Contestant {
        Contestant { at_most: Some(rounds), ..self }
    }

    /// What is kept: the published files and the repository.
    pub fn keeps(self, published: PathBuf, repository: PathBuf) -> Contestant {
        Contestant { disk: Some((published, repository)), ..self }
    }

    /// What is run and timed, once more.
    pub fn programs(&self) -> Vec<Command> {
        match &self.work {
            Work::Programs(programs) => programs(),
            Work::UntilConnected(_, program) => vec![program()],
        }
    }

    fn run(&mut self) -> Sample {
        (self.before)();
        let sample = match &self.work {
            Work::Programs(programs) => measure::run(programs(), self.status),
            Work::UntilConnected(listener, program) => measure::until_connected(program(), listener, self.status),
        };
        (self.after)();
        sample
    }

    /// Of many programs one after the other the first one only, which the others are like.
    fn look(&mut self, lab: &Lab, calls: Calls) -> Option<Seen> {
        let Work::Programs(programs) = &self.work else { return None };
        (self.before)();
        let commands = programs();
        let alike = if commands.len() >= MANY { commands.len() as u64 } else { 1 };
        let traced = if alike > 1 { &commands[..1] } else { &commands[..] };
        lab.server.borrow().bytes();
        let seen = trace(traced, self.status, calls);
        let bytes = lab.server.borrow().bytes();
        (self.after)();
        Some(Seen { bytes: bytes * alike, syscalls: seen.syscalls * alike, ..seen })
    }
}

/// From so many programs on they are one program again and again.
const MANY: usize = 10;

impl Row {
    pub fn new(title: impl Into<String>, rounds: usize, contestants: Vec<Contestant>) -> Row {
        let (title, begin) = (title.into(), Box::new(|| ()));
        Row { title, rounds, warm_up: 1, begin, calls: Calls::Counted, contestants, prepared: None }
    }

    /// So many system calls that to count them takes minutes.
    pub fn without_calls(self) -> Row {
        Row { calls: Calls::Passed, ..self }
    }

    /// It takes so long that what a first time costs more is nothing beside it.
    pub fn without_warm_up(self) -> Row {
        Row { warm_up: 0, ..self }
    }

    /// Some of its preparation goes on in the background; this waits for its end.
    pub fn prepared_by(self, end: impl FnOnce() + 'static) -> Row {
        Row { prepared: Some(Box::new(end)), ..self }
    }

    /// Returns when all is prepared.
    pub fn wait(&mut self) {
        if let Some(end) = self.prepared.take() {
            end();
        }
    }

    /// Once a round, outside the clock, before the contestants run.
    pub fn begins_with(self, action: impl FnMut() + 'static) -> Row {
        Row { begin: Box::new(action), ..self }
    }

    /// How often a row of so many rounds begins in all, whatever ROUNDS says.
    pub fn beginnings(rounds: usize) -> usize {
        scaled(rounds) + 2
    }

    fn rounds(&self) -> usize {
        scaled(self.rounds)
    }
}

/// Rounds of the cheapest rows, unless ROUNDS says otherwise; then all others have more or less in proportion.
const ROUNDS: usize = 20;

fn scaled(rounds: usize) -> usize {
    let wanted = std::env::var("ROUNDS").ok().filter(|text| !text.is_empty());
    let wanted: usize = wanted.map_or(ROUNDS, |text| text.parse().expect("ROUNDS is a number"));
    assert!(wanted > 0, "ROUNDS is a number above 0");
    (rounds * wanted / ROUNDS).max(1)
}

/// Timed rounds, then the run in which all else is looked at.
pub fn measure(lab: &Rc<Lab>, mut rows: Vec<Row>) -> Vec<Results> {
    let mut samples: Vec<Vec<Vec<Sample>>> =
        rows.iter().map(|row| row.contestants.iter().map(|_| Vec::new()).collect()).collect();
    let most = rows.iter().map(|row| row.warm_up + row.rounds()).max().unwrap_or_default();
    for round in 0..most {
        eprintln!("  round {} of {most}", round + 1);
        for step in 0..rows.len() {
            let at = (round + step) % rows.len();
            let row = &mut rows[at];
            if round < row.warm_up + row.rounds() {
                run_round(row, round, &mut samples[at]);
            }
        }
    }
    eprintln!("  memory, bytes, system calls");
    lab.server.borrow_mut().count_bytes();
    let results = rows.into_iter().zip(samples).map(|(row, samples)| look(lab, row, samples)).collect();
    lab.server.borrow_mut().count_no_more();
    results
}

fn run_round(row: &mut Row, round: usize, samples: &mut [Vec<Sample>]) {
    let (counts, rounds) = (round >= row.warm_up, row.rounds());
    (row.begin)();
    for step in 0..row.contestants.len() {
        let at = (round + step) % row.contestants.len();
        let contestant = &mut row.contestants[at];
        // Those that run in fewer rounds are spread over all of them, and need no warming.
        let share = contestant.at_most.map_or(rounds, |most| scaled(most).min(rounds));
        if counts && is_its_turn(round - row.warm_up, share, rounds) || !counts && share == rounds {
            let sample = contestant.run();
            if counts {
                samples[at].push(sample);
            }
        }
    }
}

fn is_its_turn(round: usize, share: usize, rounds: usize) -> bool {
    round * share / rounds != (round + 1) * share / rounds
}

fn look(lab: &Lab, mut row: Row, samples: Vec<Vec<Sample>>) -> Results {
    (row.begin)();
    let contestants = row.contestants.into_iter().zip(samples);
    let summaries = contestants.map(|(mut contestant, samples)| {
        let seen = contestant.look(lab, row.calls);
        let disk = contestant.disk.as_ref();
        let disk =
            disk.map(|(published, repository)| Disk { published: disk_of(published), repository: disk_of(repository) });
        (contestant.name, Summary::of(&samples, seen, disk))
    });
    Results { title: row.title, contestants: summaries.collect() }
}
