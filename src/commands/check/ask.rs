//! Asking a program of this machine something, without waiting for it for ever.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::processes::helper::PATH;

/// `systemctl` may wait for a manager that is busy, `sudo` for a directory service.
const LIMIT: Duration = Duration::from_secs(10);
const LONGEST: u64 = 1 << 20;

pub struct Answer {
    pub code: Option<i32>,
    pub stdout: String,
}

impl Answer {
    pub fn is_yes(&self) -> bool {
        self.code == Some(0)
    }
}

/// None when there is no such program, or it gave no answer in time.
pub fn ask(program: &str, arguments: &[&str]) -> Option<Answer> {
    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("PATH", PATH).env("LANG", "C.UTF-8");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().ok()?;
    // Read beside the wait: a full pipe would keep the program from ending.
    let stdout = child.stdout.take()?;
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut text = Vec::new();
        let _ = stdout.take(LONGEST).read_to_end(&mut text);
        // Nobody listens any more when the time was up.
        let _ = tell.send(String::from_utf8_lossy(&text).into_owned());
    });
    let end = Instant::now() + LIMIT;
    let stdout = told.recv_timeout(LIMIT);
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(Answer { code: status.code(), stdout: stdout.unwrap_or_default() }),
            Ok(None) if Instant::now() < end => std::thread::sleep(Duration::from_millis(5)),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_its_status_and_what_was_said() {
        let answer = ask("sh", &["-c", "echo yes; exit 3"]).unwrap();
        assert_eq!((answer.code, answer.stdout.as_str()), (Some(3), "yes\n"));
        assert!(ask("no-such-program-of-any-name", &[]).is_none());
    }
}
