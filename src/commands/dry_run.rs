//! `poller --dry-run`: what a poll would do, without doing any of it.
//!
//! It takes no lock, writes no log, and fetches into a quarantine outside poller's folders.

use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::cli::Cli;

use crate::config::{Layout, OnFailure, Paths, notify};
use crate::journal::Journal;
use crate::outcome::{Class, Failure, exit_code};
use crate::processes::messages::{Probed, Tip, Verified};
use crate::processes::preparation::{Preparation, Prepared};
use crate::processes::supervisor;
use crate::processes::workshop::Workshop;
use crate::report::terminal::{Console, print, print_json};
use crate::report::{duration, plural};
use crate::road::prepare::verify_request;
use crate::stages::decide::{Decision, Force, Policy, decide, state_word};
use crate::stages::lock;
use crate::sys::account::Account;
use crate::sys::signals::{self, Stop};

pub fn run(cli: &Cli) -> u8 {
    let console = Console::new();
    match look(cli, &console) {
        Ok(code) => code,
        Err(e) => {
            let failure = Failure::of(e);
            crate::report::run::global(&console, &failure);
            failure.class.exit_code()
        }
    }
}

/// What is known of one app.
struct View<'p> {
    prepared: &'p Prepared<'p>,
    journal: Journal,
    tip: Tip,
    decision: Decision,
    state: &'static str,
    /// Who asks a `[health] url`.
    fetch: Option<String>,
    /// What fetch and verify came to, when something is to be deployed.
    verdict: Option<Result<Verified, Failure>>,
}

fn look(cli: &Cli, console: &Console) -> Result<u8> {
    let signals = signals::block()?;
    let config = supervisor::load(cli.common.config.as_deref())?;
    let stop = signals::watch(signals, config.host.deadline)?;
    let selection = super::setting::select(&config, &cli.apps)?;
    let mut preparation = Preparation::new(&config)?;
    let fetch = preparation.fetch_account()?;
    let force = if cli.force { Force::Yes } else { Force::No };

    let mut failures: Vec<(String, Failure)> = selection.broken;
    let mut prepared = Vec::new();
    for app in selection.apps {
        match preparation.prepare(app) {
            Ok(app) => prepared.push(app),
            Err(e) => failures.push((app.name.as_str().to_owned(), Failure::of(e))),
        }
    }
    let mut views = Vec::new();
    let asked: Vec<&Prepared> = prepared.iter().collect();
    let mut answers = Vec::new();
    let prober = supervisor::start_prober(fetch.as_ref());
    supervisor::probe(&asked, prober, config.host.jobs, &stop, |index, probed| answers.push((index, probed)));
    answers.sort_by_key(|(index, _)| *index);
    for (index, probed) in answers {
        match view(&prepared[index], probed, &config.paths, fetch.as_ref(), &stop, force, console) {
            Ok(view) => views.push(view),
            Err(e) => failures.push((prepared[index].app.name.as_str().to_owned(), Failure::of(e))),
        }
    }
    if cli.common.json {
        let apps: Vec<Value> = views.iter().map(as_json).chain(failures.iter().map(failure_json)).collect();
        print_json(&json!({ "schema": 1, "dry_run": true, "host": config.host.name, "apps": apps }));
    } else {
        for view in &views {
            print(&as_text(view));
        }
        for (app, failure) in &failures {
            console.failure(app, failure);
        }
        print("Dry run: nothing was locked, written, moved or run.\n");
    }
    let refused = views.iter().filter_map(|v| v.verdict.as_ref()?.as_ref().err()).map(|f| f.class.exit_code());
    Ok(exit_code(failures.iter().map(|(_, f)| f.class.exit_code()).chain(refused)))
}

fn view<'p>(
    prepared: &'p Prepared,
    probed: Result<Probed, Failure>,
    paths: &Paths,
    fetch: Option<&Account>,
    stop: &Stop,
    force: Force,
    console: &Console,
) -> Result<View<'p>> {
    let probed = probed?;
    let (journal, tip) = (probed.journal?, probed.tip?);
    let app = prepared.app;
    let waited = lock::peek(&lock::path(&paths.run, app.name.as_str())).waited();
    let policy = Policy::of(app, force, waited);
    let now = Timestamp::now();
    let decision = decide(&journal.state, &tip.commit, &policy, now);
    let unforced = Policy { force: Force::No, ..policy };
    let state = state_word(&journal.state, Some(&tip.commit), &unforced, now);
    let goal = match &decision {
        Decision::Deploy { commit, .. } if *commit != tip.commit => {
            Tip { object: commit.clone(), commit: commit.clone(), reference: tip.reference.clone() }
        }
        _ => tip.clone(),
    };
    let verdict = matches!(decision, Decision::Deploy { .. }).then(|| {
        let mut shop = Workshop::new(app, prepared.repository.clone(), fetch, None, stop);
        let progress = |received, total, bytes| console.transfer(app.name.as_str(), received, total, bytes);
        let found = shop
            .fetch(&prepared.origin, &goal, true, progress)
            .and_then(|_| shop.verify(verify_request(app, prepared.signers.as_ref(), &journal.state, force, true)));
        // The fetcher removes its quarantine when it ends by itself.
        shop.finish();
        found.map_err(Failure::of)
    });
    // A server that cannot be fetched from is no verdict about the commit.
    match verdict {
        Some(Err(failure)) if failure.class != Class::Refused => Err(failure.into()),
        verdict => {
            let fetch = fetch.map(|account| account.name.clone());
            Ok(View { prepared, journal, tip, decision, state, fetch, verdict })
        }
    }
}

fn as_text(view: &View) -> String {
    let app = view.prepared.app;
    let mut text = String::new();
    let mut line = |key: &str, value: &str| text.push_str(&format!("  {key:<9} {value}\n"));
    let deployed = view.journal.state.deployed.as_ref();
    line("state", view.state);
    line("ref", &format!("{} of {}", view.tip.reference, app.source.url));
    let from = deployed.map_or("nothing", |d| d.commit.short());
    line("deployed", &format!("{from} → {}", view.tip.commit.short()));
    match &view.decision {
        Decision::Unchanged => line("verdict", "nothing to do"),
        Decision::Skip(why) => line("verdict", &format!("left alone: {why}")),
        Decision::Deploy { why, .. } => match &view.verdict {
            Some(Err(failure)) => {
                line("verdict", &format!("refused: {}", failure.message));
                failure.help.iter().for_each(|help| line("", help));
            }
            Some(Ok(found)) if found.of_no_interest => {
                line("verdict", "left alone: none of the changed files matches `[source] paths`")
            }
            verdict => {
                line("verdict", &format!("would deploy ({why})"));
                let found = verdict.as_ref().and_then(|v| v.as_ref().ok());
                if let Some(signer) = found.and_then(|f| f.signer.as_ref()) {
                    line("signature", &signer.to_string());
                }
                found.into_iter().flat_map(|f| &f.warnings).for_each(|warning| line("warning", warning));
            }
        },
    }
    if let Some(Ok(found)) = &view.verdict {
        if let Some(summary) = &found.summary {
            for commit in &summary.commits {
                line(
                    "commit",
                    &format!("{} {} ({}, {})", commit.commit.short(), commit.subject, commit.author, age(commit.time)),
                );
            }
            more(&mut line, summary.commits.len(), summary.commits_total, "commits");
            summary.files.iter().for_each(|file| line("file", file));
            more(&mut line, summary.files.len(), summary.files_total, "files");
        }
        if !found.of_no_interest {
            line(
                "publish",
                &format!("{}, {} bytes, to {}", plural(found.files as usize, "file"), found.bytes, destination(view)),
            );
            plan(view).iter().for_each(|step| line("run", step));
        }
    }
    format!("{}\n{text}", app.name)
}

fn more(line: &mut impl FnMut(&str, &str), shown: usize, total: usize, what: &str) {
    if total > shown {
        line("", &format!("… and {} more {what}", total - shown));
    }
}

fn destination(view: &View) -> String {
    let target = &view.prepared.app.target;
    match target.layout {
        Layout::Releases => format!("{}/releases, then `current`", target.directory.display()),
        Layout::InPlace => format!("{}, in place", target.directory.display()),
    }
}

/// What would run, as whom, with which limit.
fn plan(view: &View) -> Vec<String> {
    let app = view.prepared.app;
    let deploy = &app.deploy;
    let who = &view.prepared.account.name;
    let limit = deploy.timeout;
    let mut steps = Vec::new();
    let mut step = |what: &str, command: String, who: &str, limit: Duration| {
        steps.push(format!("{what}: {command} as {who}, at most {}", duration(limit)))
    };
    for (what, command) in [("build", &deploy.build), ("script", &deploy.script)] {
        if let Some(command) = command {
            step(what, command.to_string(), who, limit);
        }
    }
    let systemctl = if nix::unistd::Uid::effective().is_root() { "root" } else { "root, by sudo -n" };
    for (verb, units) in [("restart", &deploy.restart), ("reload", &deploy.reload)] {
        for unit in units {
            step(verb, format!("systemctl {verb} {unit}"), systemctl, limit);
        }
    }
    if let Some(health) = &app.health {
        if let Some(command) = &health.command {
            step("health", format!("{command} (up to {} times)", health.attempts), who, health.timeout);
        }
        if let Some(url) = &health.url {
            let who = view.fetch.as_deref().unwrap_or(who);
            step(
                "health",
                format!("GET {} (up to {} times)", notify::without_query(url), health.attempts),
                who,
                health.timeout,
            );
        }
    }
    steps.push(match deploy.on_failure {
        OnFailure::Rollback => "on failure: the former release again, and its script".to_owned(),
        OnFailure::Restore => "on failure: the former release again, without its script".to_owned(),
        OnFailure::Keep => "on failure: the failed release stays".to_owned(),
    });
    steps
}

pub(super) fn age(time: i64) -> String {
    let seconds = Timestamp::now().as_second().saturating_sub(time);
    match seconds {
        ..0 => "in the future".to_owned(),
        0..120 => format!("{seconds} s ago"),
        120..7200 => format!("{} min ago", seconds / 60),
        7200..172_800 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

fn as_json(view: &View) -> Value {
    let app = view.prepared.app;
    let (verdict, why) = match (&view.decision, &view.verdict) {
        (Decision::Unchanged, _) => ("unchanged", String::new()),
        (Decision::Skip(why), _) => ("skipped", why.to_string()),
        (_, Some(Err(failure))) => ("refused", failure.message.clone()),
        (_, Some(Ok(found))) if found.of_no_interest => ("skipped", "no path of interest changed".to_owned()),
        (Decision::Deploy { why, .. }, _) => ("deploy", why.to_string()),
    };
    let found = view.verdict.as_ref().and_then(|v| v.as_ref().ok());
    json!({
        "app": app.name.as_str(),
        "state": view.state,
        "url": app.source.url,
        "ref": view.tip.reference,
        "deployed": view.journal.state.deployed.as_ref().map(|d| d.commit.as_str()),
        "tip": view.tip.commit.as_str(),
        "verdict": verdict,
        "why": why,
        "signer": found.and_then(|f| f.signer.as_ref()),
        "warnings": found.map(|f| &f.warnings),
        "summary": found.and_then(|f| f.summary.as_ref()),
        "directory": app.target.directory,
        "user": view.prepared.account.name,
        "run": if verdict == "deploy" { plan(view) } else { Vec::new() },
    })
}

fn failure_json((app, failure): &(String, Failure)) -> Value {
    json!({ "app": app, "verdict": "error", "class": failure.class.word(), "error": failure.message, "help": failure.help })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_told_in_the_unit_that_fits() {
        let now = Timestamp::now().as_second();
        assert_eq!(age(now + 60), "in the future");
        assert_eq!(age(now - 180), "3 min ago");
        assert_eq!(age(now - 3 * 86_400), "3 days ago");
    }
}
