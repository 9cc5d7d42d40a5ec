//! One run of a contestant: wall time, and the processor time of its programs and their children. What
//! is shown of many runs.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};

#[derive(Clone, Copy)]
pub struct Sample {
    pub wall: Duration,
    /// None where it would not be that of the time measured.
    pub cpu: Option<Duration>,
}

/// What was seen in a run of its own, which is not timed.
#[derive(Clone, Copy, Default)]
pub struct Seen {
    /// In KiB: the most that processes alive at the same time had, each with its own peak.
    pub memory: u64,
    /// In KiB: the most that they had together when one of them ended, shared pages counted once.
    pub shared_once: u64,
    pub syscalls: u64,
    /// Both directions, what TCP carries.
    pub bytes: u64,
}

/// What is kept on the disk after all rounds, in bytes.
#[derive(Clone, Copy)]
pub struct Disk {
    pub published: u64,
    pub repository: u64,
}

/// Medians, in milliseconds.
#[derive(Clone, Copy)]
pub struct Summary {
    pub rounds: usize,
    pub wall: f64,
    pub quarter: f64,
    pub three_quarters: f64,
    pub cpu: Option<f64>,
    pub seen: Option<Seen>,
    pub disk: Option<Disk>,
}

/// Runs programs one after the other. Each has to end with this status.
pub fn run(commands: Vec<Command>, status: i32) -> Sample {
    let before = processor_time();
    let start = Instant::now();
    for mut command in commands {
        finish(spawn(&mut command, status), &command, status);
    }
    let wall = start.elapsed();
    Sample { wall, cpu: Some(processor_time() - before) }
}

/// The time from the start of a program until it has connected to this listener, which then hangs up.
pub fn until_connected(mut command: Command, listener: &TcpListener, status: i32) -> Sample {
    let start = Instant::now();
    let child = spawn(&mut command, status);
    let (socket, _) = listener.accept().expect("a connection");
    let wall = start.elapsed();
    drop(socket);
    finish(child, &command, status);
    Sample { wall, cpu: None }
}

fn spawn(command: &mut Command, status: i32) -> Child {
    // What has to fail has something to say about it.
    let errors = if status == 0 { Stdio::inherit() } else { Stdio::null() };
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
    command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"))
}

fn finish(mut child: Child, command: &Command, status: i32) {
    let ended = child.wait().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(ended.code() == Some(status), "{command:?}: {ended}");
}

/// Of the children that have been waited for, and of theirs.
fn processor_time() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("getrusage");
    let time = |t: TimeVal| Duration::from_micros(t.num_microseconds() as u64);
    time(usage.user_time()) + time(usage.system_time())
}

impl Summary {
    pub fn of(samples: &[Sample], seen: Option<Seen>, disk: Option<Disk>) -> Summary {
        let milliseconds = |of: &dyn Fn(&Sample) -> Option<Duration>| {
            let mut all: Vec<f64> = samples.iter().filter_map(|s| Some(of(s)?.as_secs_f64() * 1000.0)).collect();
            all.sort_by(f64::total_cmp);
            all
        };
        let wall = milliseconds(&|sample| Some(sample.wall));
        let cpu = milliseconds(&|sample| sample.cpu);
        Summary {
            rounds: samples.len(),
            wall: at(&wall, 0.5),
            quarter: at(&wall, 0.25),
            three_quarters: at(&wall, 0.75),
            cpu: (!cpu.is_empty()).then(|| at(&cpu, 0.5)),
            seen,
            disk,
        }
    }
}

/// The value that `part` of all are below; between two, on the line that joins them.
fn at(sorted: &[f64], part: f64) -> f64 {
    let place = part * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    below + (above - below) * place.fract()
}

/// What the files and folders beneath a folder take up, that folder included.
pub fn disk_of(folder: &Path) -> u64 {
    let Ok(meta) = fs::symlink_metadata(folder) else { return 0 };
    let beneath = match fs::read_dir(folder) {
        Ok(entries) if meta.is_dir() => entries.map(|entry| disk_of(&entry.expect("an entry").path())).sum(),
        _ => 0,
    };
    meta.blocks() * 512 + beneath
}
