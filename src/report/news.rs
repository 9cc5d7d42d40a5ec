//! What there is to tell of an app after a poll, and the document that says so. Nothing is sent here.

use jiff::Timestamp;
use serde_json::json;

use super::memory::{Reported, Say};
use super::printable;
use super::run::Ended;
use crate::config::NotifyOn;
use crate::outcome::{Class, Failure, Outcome};
use crate::road::Context;

/// Of what a script said, this much of the end goes along, in bytes.
pub const MOST_OUTPUT: usize = 10_000;

/// One document for `[notify]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    pub event: NotifyOn,
    pub app: String,
    /// JSON, one line.
    pub document: String,
}

/// Which events are told: a pure function of what the mail says, how the poll ended, and what was asked for.
///
/// The end of a failure is told where its beginning was.
pub fn events(
    say: &Say,
    result: &Result<Outcome, Failure>,
    before: Option<&Reported>,
    on: &[NotifyOn],
) -> Vec<NotifyOn> {
    let mut events = Vec::new();
    match (say, result) {
        (Say::Failure | Say::StillFailing { .. }, Err(failure)) => match failure.class {
            Class::Busy => {}
            Class::Refused => events.push(NotifyOn::Refused),
            _ => events.push(NotifyOn::Failed),
        },
        (Say::Recovered { .. }, _) if before.is_some_and(|b| b.notified) => events.push(NotifyOn::Recovered),
        _ => {}
    }
    if let Ok(Outcome::Deployed { .. }) = result {
        events.push(NotifyOn::Deployed);
    }
    events.retain(|event| on.contains(event));
    events
}

/// The documents about an app. `memory` is what is remembered from here on.
pub fn of(
    context: &Context,
    ended: &Ended,
    say: &Say,
    before: Option<&Reported>,
    memory: &mut Option<Reported>,
    on: &[NotifyOn],
) -> Vec<News> {
    let events = events(say, &ended.result, before, on);
    if let Some(memory) = memory {
        memory.notified |= events.iter().any(|event| matches!(event, NotifyOn::Failed | NotifyOn::Refused));
    }
    let since = match say {
        Say::Failure => memory.as_ref().map(|m| m.since),
        Say::StillFailing { since } | Say::Recovered { since } => Some(*since),
        Say::Nothing => None,
    };
    let still = matches!(say, Say::StillFailing { .. });
    let document = |event| News {
        event,
        app: ended.name.clone(),
        document: format!(
            "{}\n",
            document(context, ended, event, since.filter(|_| event != NotifyOn::Deployed), still)
        ),
    };
    events.into_iter().map(document).collect()
}

fn document(
    context: &Context,
    ended: &Ended,
    event: NotifyOn,
    since: Option<Timestamp>,
    still: bool,
) -> serde_json::Value {
    let now = Timestamp::now();
    let deployed = ended.state.as_ref().and_then(|s| s.deployed.as_ref()).map(|d| d.commit.to_string());
    // What was live before this poll.
    let previous = match &ended.result {
        Ok(Outcome::Deployed { from, .. }) => from.clone(),
        Ok(_) => None,
        Err(_) => deployed,
    };
    let failure = ended.result.as_ref().err();
    json!({
        "schema": 1,
        "event": event.word(),
        "host": context.host,
        "app": ended.name,
        "run": context.run,
        "time": format!("{now:.0}"),
        "outcome": ended.outcome(),
        "state": ended.state_word(now),
        "commit": ended.tip.as_ref().map(|t| t.commit.as_str()),
        "previous": previous,
        "ref": ended.tip.as_ref().map(|t| t.reference.as_str()),
        "message": message(ended, event, since),
        "help": failure.map(|f| f.help.iter().map(|line| plain(line)).collect::<Vec<_>>()).unwrap_or_default(),
        "output": failure.map(|_| end_of(&ended.last.join("\n"))).unwrap_or_default(),
        "since": since.map(|t| format!("{t:.0}")),
        "still": still,
    })
}

fn message(ended: &Ended, event: NotifyOn, since: Option<Timestamp>) -> String {
    let since = since.map_or_else(String::new, |t| format!("; it failed since {t:.0}"));
    match &ended.result {
        Err(failure) => plain(&failure.message),
        Ok(_) if event == NotifyOn::Recovered => format!("well again{since}"),
        Ok(Outcome::Deployed { from, to, milliseconds }) => {
            let (from, seconds) = (from.as_ref().map_or("nothing", |f| &f[..10]), *milliseconds as f64 / 1000.0);
            format!("deployed {} (before: {from}) in {seconds:.1} s", &to[..10])
        }
        Ok(Outcome::Unchanged { .. } | Outcome::Skipped { .. }) => String::new(),
    }
}

/// The ends of what failed scripts said, for a ping.
pub fn report<'e>(all: impl Iterator<Item = &'e Ended<'e>>) -> String {
    let mut text = String::new();
    for ended in all {
        if let Err(failure) = &ended.result
            && failure.class != Class::Busy
        {
            text += &format!("{}: {}\n", ended.name, plain(&failure.message));
            ended.last.iter().for_each(|line| text += &format!("  | {line}\n"));
        }
    }
    end_of(&text)
}

/// Whoever gets it may show it on a terminal.
fn plain(text: &str) -> String {
    text.lines().map(printable).collect::<Vec<_>>().join("\n")
}

fn end_of(text: &str) -> String {
    let mut from = text.len().saturating_sub(MOST_OUTPUT);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    text[from..].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [NotifyOn; 4] = [NotifyOn::Failed, NotifyOn::Recovered, NotifyOn::Deployed, NotifyOn::Refused];

    fn at(hours: i64) -> Timestamp {
        Timestamp::from_second(hours * 3600).unwrap()
    }

    fn failed(class: Class) -> Result<Outcome, Failure> {
        Err(Failure::new(class, "x"))
    }

    fn deployed() -> Result<Outcome, Failure> {
        Ok(Outcome::Deployed { from: None, to: "0".repeat(40), milliseconds: 1 })
    }

    #[test]
    fn each_event_is_told_where_it_was_asked_for() {
        use NotifyOn::{Deployed, Failed, Recovered, Refused};
        let (still, well) = (Say::StillFailing { since: at(1) }, Say::Recovered { since: at(1) });
        let before = Reported { failure: "failed".into(), since: at(1), at: at(1), notified: true };
        let table = [
            (Say::Failure, failed(Class::Deploy), vec![Failed]),
            (Say::Failure, failed(Class::Unreachable), vec![Failed]),
            (Say::Failure, failed(Class::Interrupted), vec![Failed]),
            (Say::Failure, failed(Class::Config), vec![Failed]),
            (Say::Failure, failed(Class::Refused), vec![Refused]),
            (Say::Failure, failed(Class::Busy), vec![]),
            (still.clone(), failed(Class::Deploy), vec![Failed]),
            (still, failed(Class::Refused), vec![Refused]),
            (Say::Nothing, failed(Class::Deploy), vec![]),
            (Say::Nothing, deployed(), vec![Deployed]),
            (well.clone(), deployed(), vec![Recovered, Deployed]),
            (well, Ok(Outcome::Unchanged { commit: "0".repeat(40) }), vec![Recovered]),
        ];
        for (say, result, expected) in table {
            assert_eq!(events(&say, &result, Some(&before), &ALL), expected, "{say:?} {result:?}");
            for event in ALL {
                let only: Vec<_> = expected.iter().copied().filter(|e| *e == event).collect();
                assert_eq!(events(&say, &result, Some(&before), &[event]), only, "{say:?} {result:?}");
            }
        }
    }

    #[test]
    fn the_end_of_a_failure_that_was_not_told_is_not_told_either() {
        let before = Reported { failure: "refused".into(), since: at(1), at: at(1), notified: false };
        let well = Ok(Outcome::Unchanged { commit: "0".repeat(40) });
        assert_eq!(events(&Say::Recovered { since: at(1) }, &well, Some(&before), &ALL), []);
    }

    #[test]
    fn of_a_long_output_the_end_is_sent() {
        let long = format!("first{}ü last", "ü".repeat(MOST_OUTPUT));
        let end = end_of(&long);
        assert!(end.len() <= MOST_OUTPUT && end.ends_with("ü last") && !end.contains("first"));
        assert_eq!(end_of("short"), "short");
    }
}
