//! `[notify]`: pings that a run began and ended, and news of apps, by HTTP and to a command.
//!
//! All of it is bounded in time, and none of it changes how a run ends: what could not be delivered is
//! a line in the log. A URL is shown without its path, which is often a password.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::news::News;
use super::{duration, plural, printable};
use crate::config::notify::shown;
use crate::config::{Command, Notify, NotifyOn};
use crate::event;
use crate::outcome::Failure;
use crate::processes::calls::Calls;
use crate::processes::helper::PATH;
use crate::processes::messages::{Answer, Call, Keep, Method, Secret};
use crate::processes::output::{Line, Output};
use crate::processes::script::{self, Observer};
use crate::road::Context;
use crate::sys::privdrop::NewPrivileges;
use crate::sys::proc::Identity;
use crate::sys::signals::Stop;
use crate::sys::trusted_file;

/// For each attempt at telling somebody.
const ATTEMPT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_secs(1);
/// For all that a run has to tell, and for what is left of it once poller was told to stop.
const ALL: Duration = Duration::from_secs(60);
const ALL_WHEN_STOPPED: Duration = Duration::from_secs(10);
const BEGIN: &str = "the ping of the run's begin";
/// Lines of a command's output in the log.
const MOST_LINES: usize = 100;

/// Tells whom `[notify]` names. Belongs to one run.
pub struct Notifier<'c> {
    notify: &'c Notify,
    /// Of polls only: the switch behind it watches that these go on.
    ping: Option<&'c str>,
    context: &'c Context,
    calls: Calls<'c>,
    began: Began,
    url: Url,
}

/// Whether the answer to the first ping is still to come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Began {
    Untold,
    Asked,
}

/// Whether `url` is worth another attempt in this run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Url {
    Heard,
    /// It gave no answer to both attempts: the others need the time.
    Silent,
}

/// What came of an attempt that did not deliver.
#[derive(Debug)]
enum Undelivered {
    /// Nothing came back.
    Unanswered(String),
    /// It may be taken another time.
    Later(String),
    /// It will be the same.
    Never(String),
}

impl Undelivered {
    fn why(&self) -> &str {
        match self {
            Undelivered::Unanswered(why) | Undelivered::Later(why) | Undelivered::Never(why) => why,
        }
    }
}

impl<'c> Notifier<'c> {
    /// Says that the run begins, and does not wait for the answer. None without `[notify]`: then there is
    /// not a process more than before.
    pub fn begin(notify: Option<&'c Notify>, context: &'c Context) -> Option<Notifier<'c>> {
        let notify = notify?;
        let calls = Calls::new(context.fetch_account.as_ref());
        let ping = notify.ping.as_deref();
        let mut notifier = Notifier { notify, ping, context, calls, began: Began::Untold, url: Url::Heard };
        if let Some(ping) = ping {
            let call = post(&ping_url(ping, "/start", &context.run), "", String::new(), ATTEMPT);
            match notifier.calls.send(&call) {
                Ok(()) => notifier.began = Began::Asked,
                Err(why) => notifier.undelivered(None, BEGIN, &shown(ping), &why),
            }
        }
        Some(notifier)
    }

    /// For what a person asked for, which is no poll: news, but no ping.
    pub fn of_a_command(notify: Option<&'c Notify>, context: &'c Context) -> Option<Notifier<'c>> {
        let calls = Calls::new(context.fetch_account.as_ref());
        Some(Notifier { notify: notify?, ping: None, context, calls, began: Began::Untold, url: Url::Heard })
    }

    pub fn on(&self) -> &'c [NotifyOn] {
        &self.notify.on
    }

    /// Tells how the run ended and what is new. `report` is what goes with a ping that says "failed".
    pub fn conclude(mut self, code: u8, report: impl FnOnce() -> String, news: Vec<News>) {
        let mut budget = Budget::new(&self.context.stop);
        let notify = self.notify;
        if let Some(ping) = self.ping {
            // First of all: whoever waits for it raises the alarm by itself.
            self.finish_ping(ping, code, report, &mut budget);
        }
        for news in news {
            if let Some(url) = &notify.url {
                self.post_news(url, &news, &mut budget);
            }
            if let Some(command) = &notify.command {
                self.command(command, &news, &mut budget);
            }
        }
    }

    fn finish_ping(&mut self, ping: &str, code: u8, report: impl FnOnce() -> String, budget: &mut Budget) {
        if self.began == Began::Asked {
            let limit = budget.left().unwrap_or_default().min(ATTEMPT);
            // Not tried again: said now, it would be a lie about when the run began.
            if let Err(e) = judge(self.calls.receive(limit, None)) {
                self.undelivered(None, BEGIN, &shown(ping), e.why());
            }
        }
        // Busy is no failure: another run works on it, and tells how that ends.
        let (suffix, body) = match code {
            0 | 75 => ("", String::new()),
            _ if self.notify.ping_output => ("/fail", report()),
            _ => ("/fail", String::new()),
        };
        let url = ping_url(ping, suffix, &self.context.run);
        let call = |limit| post(&url, "text/plain; charset=utf-8", body.clone(), limit);
        let end = "the ping of the run's end";
        match self.deliver(budget, call) {
            Ok(status) => event!(DEBUG, "notify.sent", stage = "report"; "{end} to {}: {status}", shown(ping)),
            Err(e) => self.undelivered(None, end, &shown(ping), e.why()),
        }
    }

    fn post_news(&mut self, url: &str, news: &News, budget: &mut Budget) {
        let (app, what) = (news.app.as_str(), what(news));
        if self.url == Url::Silent {
            return self.undelivered(Some(app), &what, &shown(url), "dropped: nothing came back before");
        }
        let call = |limit| post(url, "application/json", news.document.clone(), limit);
        match self.deliver(budget, call) {
            Ok(status) => {
                event!(INFO, "notify.sent", app = app, stage = "report"; "{what} to {}: {status}", shown(url))
            }
            Err(e) => {
                if let Undelivered::Unanswered(_) = e {
                    self.url = Url::Silent;
                }
                self.undelivered(Some(app), &what, &shown(url), e.why());
            }
        }
    }

    /// Two attempts, a second apart, within what is left of the time. The status that it was taken with.
    fn deliver(&mut self, budget: &mut Budget, call: impl Fn(Duration) -> Call) -> Result<u16, Undelivered> {
        let Some(left) = budget.left() else { return Err(Undelivered::Later(budget.spent())) };
        let first = judge(self.calls.ask(&call(left.min(ATTEMPT)), None));
        if matches!(first, Ok(_) | Err(Undelivered::Never(_))) || !self.context.stop.pause(PAUSE) {
            return first;
        }
        match budget.left() {
            Some(left) => judge(self.calls.ask(&call(left.min(ATTEMPT)), None)),
            None => first,
        }
    }

    /// Runs the command, which finds the news on its standard input. Once: only itself knows whether
    /// doing its work twice would do harm.
    fn command(&mut self, command: &Command, news: &News, budget: &mut Budget) {
        let (app, what) = (Some(news.app.as_str()), what(news));
        let run = |limit| -> Result<Option<String>> {
            trusted_file::check_program(Path::new(command.program()))?;
            let job = self.job(command, news, limit);
            let (mut output, mut said) = (Output::default(), Said { app: &news.app, lines: 0 });
            // Not ended by a stop: what is left of its time is short enough.
            let kept = script::run(&job, None, &mut output, &mut said)?;
            said.end(&output);
            Ok(script::verdict("it", &job, &kept))
        };
        let program = printable(command.program());
        match budget.left().map(|left| run(left.min(ATTEMPT))) {
            None => self.undelivered(app, &what, &program, &budget.spent()),
            Some(Ok(None)) => {
                event!(INFO, "notify.sent", app = app, stage = "report"; "{what} to {program}")
            }
            Some(Ok(Some(why))) => self.undelivered(app, &what, &program, &why),
            Some(Err(e)) => self.undelivered(app, &what, &program, &Failure::of(e).message),
        }
    }

    fn job(&self, command: &Command, news: &News, timeout: Duration) -> Keep {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        Keep {
            argv: command.argv().to_vec(),
            environment: vec![
                pair("PATH", PATH),
                pair("LANG", "C.UTF-8"),
                pair("POLLER_EVENT", news.event.word()),
                pair("POLLER_APP", &news.app),
                pair("POLLER_RUN", &self.context.run),
                pair("POLLER_HOST", &self.context.host),
            ],
            directory: PathBuf::from("/"),
            account: self.context.fetch_account.clone(),
            umask: 0o077,
            new_privileges: NewPrivileges::Denied,
            timeout,
            input: news.document.clone().into_bytes(),
        }
    }

    fn undelivered(&self, app: Option<&str>, what: &str, whom: &str, why: &str) {
        event!(WARN, "notify.failed", app = app, stage = "report", error = printable(why); "{what} was not delivered to {whom}");
        self.context.console.note(&format!("- {what} was not delivered to {whom}: {why}"));
    }
}

fn what(news: &News) -> String {
    let happened = match news.event {
        NotifyOn::Failed => "failed",
        NotifyOn::Refused => "was refused",
        NotifyOn::Recovered => "recovered",
        NotifyOn::Deployed => "was deployed",
    };
    format!("the news that {} {happened}", news.app)
}

fn post(url: &str, content_type: &str, body: String, timeout: Duration) -> Call {
    Call { method: Method::Post, url: Secret(url.to_owned()), content_type: content_type.to_owned(), body, timeout }
}

/// The address that says `suffix` of this run. What the URL asks already stays.
fn ping_url(ping: &str, suffix: &str, run: &str) -> String {
    let url = ping.split('#').next().unwrap_or_default();
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    let and = if query.is_empty() { "" } else { "&" };
    format!("{}{suffix}?{query}{and}rid={run}", path.trim_end_matches('/'))
}

/// Whether an answer means that it was taken.
fn judge(answer: Result<Answer, String>) -> Result<u16, Undelivered> {
    let Answer { status, location } = answer.map_err(Undelivered::Unanswered)?;
    match status {
        200..=299 => Ok(status),
        300..=399 => {
            let to = location.filter(|to| to.contains("://")).map_or("elsewhere".to_owned(), |to| shown(&to));
            // To follow would send the news where the configuration does not say.
            Err(Undelivered::Never(format!("it redirects to {to} ({status}): write that URL into `[notify]`")))
        }
        // Not in time, or too often.
        408 | 429 | 500.. => Err(Undelivered::Later(format!("it answered {status}"))),
        _ => Err(Undelivered::Never(format!("it answered {status}"))),
    }
}

/// What is left of the time.
struct Budget<'s> {
    stop: &'s Stop,
    end: Instant,
    stopping: bool,
}

impl<'s> Budget<'s> {
    fn new(stop: &'s Stop) -> Budget<'s> {
        Budget { stop, end: Instant::now() + ALL, stopping: false }
    }

    /// None when there is none left.
    fn left(&mut self) -> Option<Duration> {
        if !self.stopping && self.stop.cause().is_some() {
            self.stopping = true;
            self.end = self.end.min(Instant::now() + ALL_WHEN_STOPPED);
        }
        let left = self.end.saturating_duration_since(Instant::now());
        // In less nobody can answer.
        (left > Duration::from_millis(100)).then_some(left)
    }

    fn spent(&self) -> String {
        let limit = if self.stopping { ALL_WHEN_STOPPED } else { ALL };
        format!("dropped: the {} for all notifications of a run are over", duration(limit))
    }
}

/// Puts what a command says into the log, as far as it is short.
struct Said<'n> {
    app: &'n str,
    lines: usize,
}

impl Said<'_> {
    fn end(&self, output: &Output) {
        let more = self.lines.saturating_sub(MOST_LINES) + output.tail().count() + output.dropped_lines as usize;
        if more > 0 {
            event!(WARN, "notify.output", app = self.app, stage = "report"; "… {} left out …", plural(more, "line"));
        }
    }
}

impl Observer for Said<'_> {
    fn runs(&mut self, _: Option<Identity>, _: Option<Identity>) -> Result<()> {
        // Its keeper ends it when this process is killed.
        Ok(())
    }

    fn line(&mut self, line: &Line) {
        self.lines += 1;
        if self.lines <= MOST_LINES {
            let text = String::from_utf8_lossy(&line.text);
            event!(INFO, "notify.output", app = self.app, stage = "report", stream = line.stream.word(); "{}", text.trim_end_matches('\r'));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ping_says_what_happened_and_of_which_run() {
        for (ping, suffix, expected) in [
            ("https://hc/ping/uuid", "/start", "https://hc/ping/uuid/start?rid=R"),
            ("https://hc/ping/uuid/", "", "https://hc/ping/uuid?rid=R"),
            ("https://hc/key/slug?create=1", "/fail", "https://hc/key/slug/fail?create=1&rid=R"),
            ("https://hc/x?", "/fail", "https://hc/x/fail?rid=R"),
            ("https://hc/x#part", "", "https://hc/x?rid=R"),
        ] {
            assert_eq!(ping_url(ping, suffix, "R"), expected);
        }
    }

    #[test]
    fn what_may_pass_is_tried_again_and_a_redirect_is_told() {
        let answer = |status, location: Option<&str>| Ok(Answer { status, location: location.map(str::to_owned) });
        assert!(judge(answer(204, None)).is_ok());
        for status in [408, 429, 500, 503] {
            assert!(matches!(judge(answer(status, None)), Err(Undelivered::Later(_))));
        }
        for status in [301, 400, 401, 404] {
            assert!(matches!(judge(answer(status, None)), Err(Undelivered::Never(_))));
        }
        let Err(Undelivered::Never(why)) = judge(answer(308, Some("https://h.example.org/secret"))) else {
            panic!("a redirect is final");
        };
        assert!(why.contains("redirects to https://h.example.org/…"), "{why}");
        assert!(matches!(judge(Err("x".into())), Err(Undelivered::Unanswered(_))));
    }
}
