//! `poller rollback`: back to the last good release, or to a commit that was good before, without asking
//! any server; its script runs again, and the app stays there until `poller unfreeze`.

use std::time::Instant;

use anyhow::Result;
use jiff::Timestamp;

use super::setting::{self, Desk, Trail};
use crate::cli::Common;
use crate::config::App;
use crate::event;
use crate::journal::state::{Deployed, Frozen, State};
use crate::outcome::{Class, Failure, Outcome};
use crate::pipeline;
use crate::processes::messages::{Past, ReaderReply, ReaderRequest, Tip};
use crate::processes::supervisor;
use crate::report::metrics::Occasion;
use crate::report::notify::Notifier;
use crate::report::run::{self, Ended};
use crate::report::terminal::print;
use crate::report::{LAST_LINES, printable};
use crate::road::back::{Goal, nothing_earlier};
use crate::stages::lock::Lock;
use crate::stages::record::Back;

/// How far back a goal is looked for.
const LONGEST: usize = 2_000;
/// How the reason of a rollback's freeze begins.
const ROLLED_BACK: &str = "rolled back from";

pub fn run(common: &Common, app: &str, commit: Option<&str>, reason: Option<&str>) -> u8 {
    setting::run(|_| {
        let config = supervisor::load(common.config.as_deref())?;
        let app = setting::one(&config, app)?;
        let desk = Desk::open(common, &config, &format!("rollback {}", app.name))?;
        let began = Instant::now();
        let (mut lock, mut trail) = (desk.lock(app)?, Trail::default());
        let known = lock.content.polled.as_ref().and_then(|p| Some((p.tip.clone()?, p.reference.clone()?)));
        let road = desk.road(app, &mut lock, &mut trail)?;
        let state = road.journal.state.clone();
        let goal = goal(&desk, app, &state, commit, reason)?;
        event!(INFO, "run.started", app = app.name.as_str(), stage = "lock", command = "rollback", who = desk.context.who.as_str(); "to {}: {}", goal.good.commit.short(), goal.back.as_ref().map_or("", |back| &back.freeze.reason));
        let result = pipeline::rollback(road, &goal).map_err(Failure::of);
        let done = result.is_ok();
        let ended = Ended {
            result,
            last: trail.output.last(LAST_LINES),
            tip: known.map(|(commit, reference)| Tip { reference, object: commit.clone(), commit }),
            state: trail.state.take().or(Some(state)),
            deploy: trail.ms.contains_key("stage").then(|| trail.ms.values().sum()),
            milliseconds: began.elapsed().as_millis() as u64,
            occasion: Occasion::Command,
            ..Ended::early(app.name.as_str().to_owned(), Some(app), Failure::new(Class::Bug, "nothing happened"))
        };
        Ok(conclude(&desk, app, Ended { lock: Some(lock), ..ended }, done.then_some(&goal), began, common))
    })
}

fn conclude(desk: &Desk, app: &App, ended: Ended, done: Option<&Goal>, began: Instant, common: &Common) -> u8 {
    let stage = ended.lock.as_ref().map_or("record", |lock: &Lock| lock.content.stage.as_str()).to_owned();
    ended.log(&stage);
    let from = match &ended.result {
        Ok(Outcome::Deployed { from, .. }) => from.as_ref().map(|f| f[..10].to_owned()),
        _ => None,
    };
    let notifier = Notifier::of_a_command(desk.config.notify.as_ref(), &desk.context);
    let code = run::conclude(&desk.context, desk.config, vec![ended], began, notifier, common.json);
    if let Some(goal) = done.filter(|_| !common.json) {
        let (to, name) = (goal.good.commit.short(), &app.name);
        let from = from.unwrap_or_else(|| "nothing".to_owned());
        print(&format!("{name}: back at {to} (before: {from}), and frozen there until: poller unfreeze {name}\n"));
    }
    code
}

/// Where to go, with all that is to be recorded about it.
fn goal(desk: &Desk, app: &App, state: &State, commit: Option<&str>, reason: Option<&str>) -> Result<Goal> {
    let name = app.name.as_str();
    let request =
        ReaderRequest::History { app: name.to_owned(), repository: desk.preparation.repository(app)?, limit: LONGEST };
    let ReaderReply::History(past) = supervisor::read(desk.context.fetch_account.as_ref(), &request)? else {
        anyhow::bail!("the reader answered another question");
    };
    let current = state.deployed.as_ref();
    // A failed commit that was kept, or a deploy that was cut short: then the last good one is not live.
    let is_live = state.started.is_none() && state.stray.is_empty();
    let good = match commit {
        Some(beginning) => Some(find(name, &past, beginning)?),
        // One that was cut short goes where it was going.
        None if let Some(back) = state.unfinished_rollback() => {
            past.iter().filter_map(|p| p.deployed.clone()).find(|d| d.commit == back.commit)
        }
        None if is_live => earlier(state, &past),
        None => current.cloned(),
    };
    let good = good.ok_or_else(|| nothing_earlier(name))?;
    if current.is_some_and(|d| d.commit == good.commit) && is_live {
        return Err(Failure::new(Class::Usage, format!("{name}: {} is what is deployed", good.commit.short()))
            .help(format!("to keep it: poller freeze {name} --reason …; to deploy it again: poller --force {name}"))
            .into());
    }
    let stray = state.stray.iter().map(|published| &published.commit).rfind(|commit| **commit != good.commit);
    let left = stray.or(current.map(|d| &d.commit)).map_or("nothing", |commit| commit.short());
    let why = reason.map(|reason| format!(": {}", printable(reason.trim()))).unwrap_or_default();
    // Its freeze takes the place of another one: whoever lifts it is to know of both.
    let holds = |f: &&Frozen| f.holds(Timestamp::now()) && !f.reason.starts_with(ROLLED_BACK);
    let other = state.frozen.as_ref().filter(holds).map(|f| format!("; frozen before by {}: {}", f.by, f.reason));
    let freeze = Frozen {
        by: desk.context.who.clone(),
        reason: format!("{ROLLED_BACK} {left} to {}{why}{}", good.commit.short(), other.unwrap_or_default()),
        since: Timestamp::now(),
        until: None,
    };
    let previous = before(&past, &good);
    let deploy = past.iter().find(|p| p.run.to.as_ref() == Some(&good.commit) && !p.run.reference.is_empty());
    let reference = deploy.map(|p| p.run.reference.clone()).unwrap_or_default();
    Ok(Goal { good, reference, back: Some(Back { freeze, previous }) })
}

/// What went well before what is deployed now.
fn earlier(state: &State, past: &[Past]) -> Option<Deployed> {
    let deployed = state.deployed.as_ref()?;
    state.previous.clone().or_else(|| before(past, deployed))
}

/// What was deployed before `good` when that was deployed first.
fn before(past: &[Past], good: &Deployed) -> Option<Deployed> {
    past.iter()
        .filter(|p| p.deployed.as_ref().is_some_and(|d| d.commit == good.commit))
        .filter_map(|p| p.previous.clone())
        .next_back()
        .filter(|previous| previous.commit != good.commit)
}

/// The one commit that was deployed here and begins so.
fn find(app: &str, past: &[Past], beginning: &str) -> Result<Deployed, Failure> {
    let shown = printable(beginning);
    let hexadecimal = (4..=40).contains(&beginning.len()) && beginning.bytes().all(|b| b.is_ascii_hexdigit());
    if !hexadecimal {
        return Err(Failure::new(Class::Usage, format!("`{shown}` is not the name of a commit"))
            .help("write its 40 hexadecimal digits, or at least the first four of them"));
    }
    let beginning = beginning.to_ascii_lowercase();
    // Newest first: a commit that was deployed twice has its release from the last time.
    let mut found: Vec<&Deployed> = Vec::new();
    for good in past.iter().filter_map(|p| p.deployed.as_ref()) {
        if good.commit.as_str().starts_with(&beginning) && found.iter().all(|f| f.commit != good.commit) {
            found.push(good);
        }
    }
    match found.as_slice() {
        [one] => Ok((*one).clone()),
        [] => Err(Failure::new(Class::Usage, format!("`{shown}` was never deployed well to {app}"))
            .help(format!("what was: poller history {app}"))
            .help("to deploy another commit, push it")),
        more => {
            let names: Vec<&str> = more.iter().map(|d| d.commit.short()).collect();
            Err(Failure::new(Class::Usage, format!("`{shown}` is the beginning of more than one commit"))
                .help(format!("there are: {}", names.join(", "))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commit::Commit;
    use crate::config::Layout;
    use crate::journal::state::{Ending, Kind, Place, Run};

    fn good(name: &str) -> Deployed {
        Deployed {
            commit: Commit::try_from(format!("{name:0<40}")).unwrap(),
            release: None,
            at: Timestamp::UNIX_EPOCH,
            run: "r".into(),
            subdir: None,
            place: Place { directory: "/srv/x".into(), layout: Layout::Releases },
        }
    }

    fn past(deployed: &str, previous: Option<&str>) -> Past {
        let run = Run {
            id: "r".into(),
            kind: Kind::Deploy,
            outcome: Ending::Deployed,
            from: None,
            to: Some(good(deployed).commit),
            reference: "refs/heads/main".into(),
            who: "root".into(),
            started: Timestamp::UNIX_EPOCH,
            ended: None,
            exit: None,
            error: None,
            reason: None,
            ms: Default::default(),
        };
        Past { run, deployed: Some(good(deployed)), previous: previous.map(good) }
    }

    #[test]
    fn one_goes_back_step_by_step_and_never_to_what_was_left() {
        // c after b after a, then back to b: what lies before b is a, and not c.
        let all = [past("b", Some("a")), past("c", Some("b")), past("b", Some("a")), past("a", None)];
        let state = |deployed: &str, previous: Option<&str>| State {
            deployed: Some(good(deployed)),
            previous: previous.map(good),
            ..State::default()
        };
        assert_eq!(earlier(&state("c", Some("b")), &all[1..]), Some(good("b")));
        assert_eq!(earlier(&state("b", None), &all), Some(good("a")));
        assert_eq!(earlier(&state("a", None), &all), None);
        assert_eq!(earlier(&State::default(), &all), None);
    }

    #[test]
    fn a_commit_is_found_by_a_beginning_that_no_other_has() {
        let all = [past("abcd2", None), past("abcd1", None), past("abcd2", None)];
        assert_eq!(find("x", &all, "ABCD2").unwrap(), good("abcd2"));
        for (bad, what) in
            [("abcd", "more than one"), ("ffff", "never deployed"), ("abc", "not the name"), ("--x-", "not the name")]
        {
            let failure = find("x", &all, bad).unwrap_err();
            assert!(failure.class == Class::Usage && failure.message.contains(what), "{failure:?}");
        }
    }
}
