//! One run of a program: wall time, the processor time of it and its children, and their memory.

use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};

/// Makes this program run another one and print the memory of its largest process.
pub const WORD: &str = "--largest-process";

#[derive(Clone, Copy)]
pub struct Sample {
    wall: Duration,
    cpu: Duration,
}

/// What is shown of many runs: medians, in milliseconds and MiB.
pub struct Summary {
    pub wall: f64,
    pub quarter: f64,
    pub three_quarters: f64,
    pub cpu: f64,
    pub memory: f64,
}

/// Runs a program that has to succeed and has nothing to say.
pub fn run(mut command: Command) -> Sample {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let before = processor_time();
    let start = Instant::now();
    let status = command.status();
    let wall = start.elapsed();
    let cpu = processor_time() - before;
    let status = status.unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(status.success(), "{command:?}: {status}");
    Sample { wall, cpu }
}

/// Of the children that have been waited for, and of theirs.
fn processor_time() -> Duration {
    let usage = of_children();
    let time = |t: TimeVal| Duration::from_micros(t.num_microseconds() as u64);
    time(usage.user_time()) + time(usage.system_time())
}

fn of_children() -> Usage {
    getrusage(UsageWho::RUSAGE_CHILDREN).expect("getrusage")
}

/// The kernel keeps one maximum for all children, so each program gets a parent of its own.
/// In KiB; not less than that parent's own, which is small.
pub fn largest_process(command: &Command) -> u64 {
    let mut parent = Command::new(std::env::current_exe().expect("this program's path"));
    parent.arg(WORD).arg(command.get_program());
    parent.args(command.get_args()).env_clear();
    for (name, value) in command.get_envs() {
        value.map(|value| parent.env(name, value));
    }
    let said = parent.output().expect("this program again");
    assert!(said.status.success(), "{command:?}: {said:?}");
    let text = String::from_utf8(said.stdout).expect("a number");
    text.trim().parse().expect("a number")
}

pub fn main(arguments: &[String]) -> ExitCode {
    let [program, arguments @ ..] = arguments else {
        return ExitCode::FAILURE;
    };
    let mut command = Command::new(program);
    run({
        command.args(arguments);
        command
    });
    println!("{}", of_children().max_rss());
    ExitCode::SUCCESS
}

impl Summary {
    pub fn of(samples: &[Sample], memory: u64) -> Summary {
        let milliseconds = |of: fn(&Sample) -> Duration| {
            let mut all: Vec<f64> = samples.iter().map(|sample| of(sample).as_secs_f64() * 1000.0).collect();
            all.sort_by(f64::total_cmp);
            all
        };
        let wall = milliseconds(|sample| sample.wall);
        Summary {
            wall: at(&wall, 0.5),
            quarter: at(&wall, 0.25),
            three_quarters: at(&wall, 0.75),
            cpu: at(&milliseconds(|sample| sample.cpu), 0.5),
            memory: memory as f64 / 1024.0,
        }
    }
}

/// The value that `part` of all are below; between two, on the line that joins them.
fn at(sorted: &[f64], part: f64) -> f64 {
    let place = part * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    below + (above - below) * place.fract()
}
