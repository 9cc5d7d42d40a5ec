//! The moments of a run: each call that changes a name or asks for something to be on the disk. Found
//! by strace in a run that is left alone, and met again by a SIGSTOP right after that call.

use std::collections::HashMap;
use std::fs;
use std::process::Command;
use std::time::Instant;

use nix::sys::signal::Signal;

use crate::support::run::{Outcome, Running};
use crate::support::{World, processes, seconds};

/// Between two of these the disk stays as it is, or gets a part of what the next will give it. Those
/// with `?` are not on every machine.
const CALLS: &str = "?rename,?renameat,renameat2,?symlink,symlinkat,?link,linkat,?unlink,unlinkat,?mkdir,mkdirat,\
     ?rmdir,fsync,fdatasync,syncfs";

/// Right after a call of one of poller's processes.
#[derive(Clone, Debug)]
pub struct Point {
    /// The hidden word of a helper, or `poller` for the supervisor.
    role: String,
    call: String,
    /// strace counts each call of each process on its own.
    number: usize,
}

impl std::fmt::Display for Point {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {}", self.role, self.call, self.number)
    }
}

fn traced(world: &World, args: &[&str], more: &[&str]) -> Command {
    let plain = world.command(args);
    let mut traced = Command::new("/usr/bin/strace");
    traced.args(["-f", "-q", "-s", "4096", "-o"]).arg(world.path("trace"));
    traced.args(["-e", &format!("trace=execve,{CALLS}")]).args(more);
    traced.arg(plain.get_program()).args(plain.get_args());
    traced.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", "/root").current_dir("/");
    traced
}

fn trace(world: &World) -> String {
    String::from_utf8_lossy(&fs::read(world.path("trace")).unwrap_or_default()).into_owned()
}

/// A run that is left alone, and its moments in the order in which they came.
pub fn points(world: &World, args: &[&str]) -> (Outcome, Vec<Point>) {
    let outcome = world.spawn(traced(world, args, &[])).wait();
    let (mut roles, mut counts, mut points) = (HashMap::new(), HashMap::new(), Vec::new());
    for line in trace(world).lines() {
        let Some((pid, rest)) = line.split_once(' ') else { continue };
        let Some((call, told)) = rest.trim_start().split_once('(') else { continue };
        if call == "execve" {
            roles.insert(pid.to_owned(), role(told.split('"').nth(3), told.split('"').nth(5)));
        } else if call.bytes().all(|b| b.is_ascii_alphanumeric()) {
            let number = counts.entry((pid.to_owned(), call.to_owned())).or_insert(0);
            *number += 1;
            let role: Option<String> = roles.get(pid).cloned().flatten();
            // What failed changed nothing.
            if let (Some(role), false) = (role, told.contains(") = -1 ")) {
                points.push(Point { role, call: call.to_owned(), number: *number });
            }
        }
    }
    (outcome, points)
}

/// By what a process was started as; None for a script.
fn role(name: Option<&str>, word: Option<&str>) -> Option<String> {
    let is_poller = name.is_some_and(|name| name.ends_with("poller"));
    let helper = word.filter(|word| word.starts_with('_'));
    is_poller.then(|| helper.unwrap_or("poller").to_owned())
}

/// A run that stands still.
pub enum Met {
    Stopped(Running),
    /// It was over before: the moment did not come this time.
    Over(Outcome),
}

/// Starts a run that stands still from `point` on, with nothing of it going on.
pub fn stop_at(world: &World, args: &[&str], point: &Point) -> Met {
    let inject = format!("inject={}:signal=SIGSTOP:when={}", point.call, point.number);
    let _ = fs::remove_file(world.path("trace"));
    let mut running = world.spawn(traced(world, args, &["-e", &inject]));
    let (mut seen, start) = (0, Instant::now());
    loop {
        let over = running.is_over();
        let text = trace(world);
        let stops: Vec<_> = text.lines().filter(|line| line.ends_with("--- stopped by SIGSTOP ---")).collect();
        for line in &stops[seen..] {
            let pid: i32 = line.split(' ').next().unwrap().parse().expect("a process");
            let command = processes::command_line(pid);
            let mut words = command.split(' ');
            if role(words.next(), words.next()).as_ref() == Some(&point.role) {
                return Met::Stopped(running);
            }
            // The same call, but another process's.
            processes::signal(pid, Signal::SIGCONT);
        }
        seen = stops.len();
        if over {
            return Met::Over(running.wait());
        }
        assert!(start.elapsed() < seconds(120), "{point}: neither stopped nor over\n{text}");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}
