//! Health: whether what was deployed works, asked a few times.

use std::time::Duration;

use crate::report::plural;
use crate::sys::signals::Stop;

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
        if attempt < attempts && !stop.pause(interval) {
            break;
        }
    }
    Err(format!("{last} ({})", plural(attempts as usize, "attempt")))
}
