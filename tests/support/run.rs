//! Runs of the program under test: as cron would start it, in the background, and on a terminal.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::{World, processes};

/// No run of any scenario takes this long unless something hangs.
const TOO_LONG: Duration = Duration::from_secs(120);

pub struct Outcome {
    /// The exit status; 128 and the signal's number for a death by signal.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
    log: PathBuf,
}

impl Outcome {
    /// Panics with all there is to know unless the run ended with `code`.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        self.expect_one_of(&[code])
    }

    #[track_caller]
    pub fn expect_one_of(self, codes: &[i32]) -> Self {
        assert!(codes.contains(&self.code), "exit {} and not {codes:?}\n{}", self.code, self.story());
        self
    }

    /// Nothing on either stream.
    #[track_caller]
    pub fn silent(self) -> Self {
        assert!(self.stdout.is_empty() && self.stderr.is_empty(), "not silent\n{}", self.story());
        self
    }

    #[track_caller]
    pub fn says(self, what: &str) -> Self {
        let found = self.stderr.contains(what);
        assert!(found, "standard error does not say {what:?}\n{}", self.story());
        self
    }

    #[track_caller]
    pub fn prints(self, what: &str) -> Self {
        let found = self.stdout.contains(what);
        assert!(found, "standard output does not have {what:?}\n{}", self.story());
        self
    }

    #[track_caller]
    pub fn within(self, limit: Duration) -> Self {
        assert!(self.took <= limit, "took {:?}, more than {limit:?}\n{}", self.took, self.story());
        self
    }

    pub fn story(&self) -> String {
        story(&self.stdout, &self.stderr, &self.log)
    }
}

fn story(stdout: &str, stderr: &str, log: &std::path::Path) -> String {
    let log = fs::read(log).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let lines: Vec<_> = log.lines().collect();
    let tail: Vec<_> = lines[lines.len().saturating_sub(40)..].iter().map(|l| clip(l)).collect();
    format!("--- stdout\n{}\n--- stderr\n{}\n--- log\n{}", clip(stdout), clip(stderr), tail.join("\n"))
}

fn clip(text: &str) -> String {
    if text.len() < 4000 { text.to_owned() } else { text.chars().take(4000).collect::<String>() + "…" }
}

/// A run that is still going. Killed with its helpers when dropped.
pub struct Running {
    child: Child,
    start: Instant,
    out: PathBuf,
    err: PathBuf,
    log: PathBuf,
    ended: bool,
}

impl World {
    /// The program with nothing around it but what cron gives.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_poller"));
        command.args(args).arg("--config").arg(self.config_file());
        command.current_dir("/").env_clear();
        command.env("PATH", "/usr/bin:/bin").env("HOME", "/").env("SHELL", "/bin/sh");
        command.env("LOGNAME", self.whoami()).env("USER", self.whoami());
        command.stdin(Stdio::null());
        command
    }

    fn whoami(&self) -> String {
        self.sshd.login.clone()
    }

    pub fn poll(&self, args: &[&str]) -> Outcome {
        self.spawn_poll(args).wait()
    }

    /// As somebody else, with the same configuration.
    pub fn poll_as(&self, who: &super::Account, args: &[&str]) -> Outcome {
        use std::os::unix::process::CommandExt;
        let mut command = self.command(args);
        command.uid(who.uid).gid(who.gid).env("HOME", "/nonexistent").env("USER", &who.name);
        self.spawn(command).wait()
    }

    pub fn spawn_poll(&self, args: &[&str]) -> Running {
        self.spawn(self.command(args))
    }

    /// Runs a command made by [`World::command`], perhaps wrapped or changed by the test.
    pub fn spawn(&self, mut command: Command) -> Running {
        let word = super::random_word();
        let (out, err) = (self.path(&format!("{word}.out")), self.path(&format!("{word}.err")));
        command.stdout(File::create(&out).unwrap()).stderr(File::create(&err).unwrap());
        let start = Instant::now();
        let child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        Running { child, start, out, err, log: self.log_file(), ended: false }
    }

    /// A run whose three streams are a terminal; what it showed is in `stderr`.
    pub fn poll_on_terminal(&self, args: &[&str]) -> Outcome {
        self.on_terminal(self.command(args))
    }

    pub fn on_terminal(&self, command: Command) -> Outcome {
        self.in_dialogue(command, &[])
    }

    /// The same with somebody who types: each answer once the question before it is on the screen.
    pub fn poll_in_dialogue(&self, args: &[&str], dialogue: &[(&str, &str)]) -> Outcome {
        self.in_dialogue(self.command(args), dialogue)
    }

    fn in_dialogue(&self, mut command: Command, dialogue: &[(&str, &str)]) -> Outcome {
        let pty = nix::pty::openpty(None, None).expect("a pseudo-terminal");
        command.env("TERM", "xterm");
        command.stdin(pty.slave.try_clone().unwrap());
        command.stdout(pty.slave.try_clone().unwrap()).stderr(pty.slave);
        let start = Instant::now();
        let mut child = command.spawn().unwrap();
        drop(command); // its ends of the terminal
        let mut screen = File::from(pty.master);
        let mut dialogue: VecDeque<(String, String)> =
            dialogue.iter().map(|(question, answer)| ((*question).to_owned(), format!("{answer}\n"))).collect();
        let reader = std::thread::spawn(move || {
            let (mut shown, mut bytes, mut answered) = (Vec::new(), [0; 4096], 0);
            while let Ok(n @ 1..) = screen.read(&mut bytes) {
                shown.extend_from_slice(&bytes[..n]);
                let asked = |question: &str| String::from_utf8_lossy(&shown[answered..]).contains(question);
                if let Some((_, answer)) = dialogue.front().filter(|(question, _)| asked(question)).cloned() {
                    answered = shown.len();
                    dialogue.pop_front();
                    screen.write_all(answer.as_bytes()).expect("typing");
                }
            }
            String::from_utf8_lossy(&shown).into_owned()
        });
        let status = wait(&mut child, start, || String::from("on a terminal"));
        let took = start.elapsed();
        let stderr = reader.join().unwrap();
        Outcome { code: code(status), stdout: String::new(), stderr, took, log: self.log_file() }
    }
}

impl Running {
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    pub fn signal(&self, signal: Signal) {
        processes::signal(self.pid(), signal);
    }

    pub fn is_over(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// What it has printed up to now.
    pub fn printed(&self) -> String {
        read(&self.out)
    }

    /// SIGKILL to the supervisor alone.
    pub fn kill_supervisor(mut self) {
        self.signal(Signal::SIGKILL);
        self.child.wait().unwrap();
        self.ended = true;
    }

    /// SIGKILL to the supervisor and every helper of it, but to no script.
    pub fn kill_all(mut self) {
        let helpers = processes::helpers_of(self.pid());
        self.signal(Signal::SIGKILL);
        for helper in helpers.iter().chain(&processes::helpers_of(self.pid())) {
            processes::signal(*helper, Signal::SIGKILL);
        }
        self.child.wait().unwrap();
        self.ended = true;
    }

    pub fn wait(mut self) -> Outcome {
        let (out, err, log) = (self.out.clone(), self.err.clone(), self.log.clone());
        let status = wait(&mut self.child, self.start, || story(&read(&out), &read(&err), &log));
        let took = self.start.elapsed();
        self.ended = true;
        Outcome { code: code(status), stdout: read(&self.out), stderr: read(&self.err), took, log }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended {
            let mut all = processes::descendants_of(self.pid());
            all.push(self.pid());
            all.into_iter().for_each(|pid| processes::signal(pid, Signal::SIGKILL));
            let _ = self.child.wait();
        }
        let _ = fs::remove_file(&self.out);
        let _ = fs::remove_file(&self.err);
    }
}

fn read(path: &std::path::Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

fn wait(child: &mut Child, start: Instant, story: impl Fn() -> String) -> ExitStatus {
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if start.elapsed() > TOO_LONG {
            let pid = child.id() as i32;
            let tree = processes::describe(&processes::descendants_of(pid));
            processes::descendants_of(pid).into_iter().for_each(|p| processes::signal(p, Signal::SIGKILL));
            let _ = child.kill();
            let _ = child.wait();
            panic!("still running after {TOO_LONG:?}\n{tree}\n{}", story());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}
