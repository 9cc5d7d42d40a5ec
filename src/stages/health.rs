//! Health: whether what was deployed works, asked a few times.

use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, poll};

use crate::sys::signals::{Stop, until};

/// Asks until the answer is yes or the attempts are used up; the last complaint otherwise.
pub fn ask(
    attempts: u32,
    interval: Duration,
    stop: &Stop,
    mut check: impl FnMut() -> Result<(), String>,
) -> Result<(), String> {
    let mut last = String::new();
    for attempt in 1..=attempts {
        match check() {
            Ok(()) => return Ok(()),
            Err(why) => last = why,
        }
        if attempt < attempts && !pause(interval, stop) {
            break;
        }
    }
    Err(format!("{last} ({attempts} attempts)"))
}

/// False when poller was told to stop meanwhile.
fn pause(time: Duration, stop: &Stop) -> bool {
    let end = Instant::now() + time;
    while Instant::now() < end && stop.cause().is_none() {
        let mut fds = [PollFd::new(stop.descriptor(), PollFlags::POLLIN)];
        // An interrupted wait is simply begun again.
        let _ = poll(&mut fds, until(end));
    }
    stop.cause().is_none()
}
