//! What was reported last about an app, so that cron does not mail the same failure every five minutes.
//!
//! It lives in the app's lock file: it is worth nothing after a reboot, and nothing to a deploy.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// A failure that was reported and may go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reported {
    /// What it was: class and message, so that another failure is another report.
    pub failure: String,
    pub since: Timestamp,
    /// When somebody was told last.
    pub at: Timestamp,
    /// Whether `[notify]` was told of it, or of what it was before: then its end is told there too.
    #[serde(default)]
    pub notified: bool,
}

/// What to say now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Say {
    Nothing,
    /// It began, or became another one.
    Failure,
    /// It is the same as before, for a day (again).
    StillFailing {
        since: Timestamp,
    },
    Recovered {
        since: Timestamp,
    },
}

/// How a poll ended, for the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News<'a> {
    Well,
    /// Left alone: what failed before is no better for it.
    None,
    Failure(&'a str),
}

/// A pure function of what was said before, how this poll ended, and the time.
pub fn decide(before: Option<&Reported>, news: News, now: Timestamp) -> (Say, Option<Reported>) {
    let day = SignedDuration::from_hours(24);
    match (before, news) {
        (None, News::Well | News::None) => (Say::Nothing, None),
        (Some(before), News::None) => (Say::Nothing, Some(before.clone())),
        (Some(before), News::Well) => (Say::Recovered { since: before.since }, None),
        (Some(before), News::Failure(failure)) if before.failure == failure => {
            // A clock that was set back must not silence a failure for long.
            let silent = now.duration_since(before.at).abs();
            if silent < day {
                (Say::Nothing, Some(before.clone()))
            } else {
                (Say::StillFailing { since: before.since }, Some(Reported { at: now, ..before.clone() }))
            }
        }
        (before, News::Failure(failure)) => {
            let notified = before.is_some_and(|before| before.notified);
            (Say::Failure, Some(Reported { failure: failure.to_owned(), since: now, at: now, notified }))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_when_it_begins_changes_ends_and_once_a_day() {
        let at = |hours: i64| Timestamp::from_second(hours * 3600).unwrap();
        let (say, memory) = decide(None, News::Well, at(0));
        assert_eq!((say, &memory), (Say::Nothing, &None));
        let (say, memory) = decide(memory.as_ref(), News::Failure("x"), at(1));
        assert_eq!(say, Say::Failure);
        let (say, memory) = decide(memory.as_ref(), News::Failure("x"), at(24));
        assert_eq!(say, Say::Nothing);
        let (say, memory) = decide(memory.as_ref(), News::Failure("x"), at(25));
        assert_eq!(say, Say::StillFailing { since: at(1) });
        let (say, memory) = decide(memory.as_ref(), News::Failure("x"), at(26));
        assert_eq!(say, Say::Nothing);
        let (say, memory) = decide(memory.as_ref(), News::Failure("y"), at(27));
        assert_eq!(say, Say::Failure);
        // Attempts used up, or frozen: neither better nor worse.
        let (say, memory) = decide(memory.as_ref(), News::None, at(27));
        assert_eq!(say, Say::Nothing);
        let (say, memory) = decide(memory.as_ref(), News::Well, at(28));
        assert_eq!((say, memory), (Say::Recovered { since: at(27) }, None));
    }
}
