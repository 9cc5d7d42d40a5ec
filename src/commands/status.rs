//! `poller status`: where each app stands and why, from its journal and its lock file. It asks no server.

use anyhow::{Result, bail};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::dry_run::age;
use super::setting::{self, Selection};
use super::standing::{Sight, Standing};
use crate::cli::Common;
use crate::commit::Commit;
use crate::config::{App, Config};
use crate::journal::Journal;
use crate::journal::state::State;
use crate::outcome::{Failure, exit_code};
use crate::processes::messages::{ReaderReply, ReaderRequest};
use crate::processes::preparation::Preparation;
use crate::processes::supervisor;
use crate::report::page::{Page, columns};
use crate::report::printable;
use crate::report::terminal::{Console, Tone, print, print_json};
use crate::stages::decide::{Force, Policy};
use crate::stages::lock::{self, Content};

/// One app, as far as it is known.
struct Row {
    name: String,
    standing: Standing,
    state: State,
    tip: Option<Commit>,
    content: Content,
    running: Option<Content>,
    /// Attempts at one commit; none where the file is broken.
    retries: Option<u32>,
    /// What is wrong with its file or its journal.
    error: Option<Failure>,
}

pub fn run(common: &Common, named: &[String]) -> u8 {
    setting::run(|console| {
        let config = supervisor::load(common.config.as_deref())?;
        setting::admit(&config, "status")?;
        let selection = setting::select(&config, named)?;
        let rows = rows(&config, selection, named)?;
        if common.json {
            let apps: Vec<Value> = rows.iter().map(as_json).collect();
            print_json(&json!({ "schema": 1, "host": config.host.name, "apps": apps }));
        } else {
            print(&as_text(&rows, &Page::new()));
            if rows.is_empty() {
                nothing_to_show(console, &config);
            }
        }
        Ok(exit_code(rows.iter().map(|row| row.error.as_ref().map_or(0, |e| e.class.exit_code()))))
    })
}

fn rows(config: &Config, selection: Selection, named: &[String]) -> Result<Vec<Row>> {
    let journals = journals(config, &selection.apps)?;
    let now = Timestamp::now();
    let known = selection.apps.iter().zip(journals).map(|(app, journal)| look(config, app, journal, now));
    let mut rows: Vec<Row> = known.collect::<Result<_>>()?;
    rows.extend(selection.broken.into_iter().map(|(name, failure)| broken(name, "config", None, failure)));
    // Those of other hosts are of interest to whoever names them.
    let elsewhere = selection.elsewhere.into_iter().filter(|_| !named.is_empty());
    rows.extend(elsewhere.map(|app| {
        let why = format!("not for this host ({}), by its `[source] hosts`", config.host.name);
        unknown(app.name.as_str().to_owned(), "elsewhere", Some(app.deploy.retries), why)
    }));
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(rows)
}

fn journals(config: &Config, apps: &[&App]) -> Result<Vec<Result<Journal, Failure>>> {
    if apps.is_empty() {
        return Ok(Vec::new());
    }
    let preparation = Preparation::new(config)?;
    let place = |app: &&App| Ok((app.name.as_str().to_owned(), preparation.repository(app)?));
    let request = ReaderRequest::Journals(apps.iter().map(place).collect::<Result<_>>()?);
    match setting::read(config, &request)? {
        ReaderReply::Journals(journals) if journals.len() == apps.len() => Ok(journals),
        _ => bail!("the reader answered another question"),
    }
}

fn look(config: &Config, app: &App, journal: Result<Journal, Failure>, now: Timestamp) -> Result<Row> {
    let name = app.name.as_str();
    let path = lock::path(&config.paths.run, name);
    let mut journal = journal;
    let running = lock::holder(&path);
    // A deploy that was on its way when the journal was read may have ended before the lock was looked at.
    if running.is_none() && journal.as_ref().is_ok_and(|j| j.state.started.is_some()) {
        journal = journals(config, &[app])?.remove(0);
    }
    let state = match journal {
        Ok(journal) => journal.state,
        Err(failure) => return Ok(broken(name.to_owned(), "unreadable", Some(app.deploy.retries), failure)),
    };
    let content = lock::peek(&path);
    let policy = Policy::of(app, Force::No, content.waited());
    let sight =
        Sight { app: name, state: &state, polled: content.polled.as_ref(), running: running.as_ref(), policy, now };
    let (standing, tip) = (sight.standing(), sight.tip().cloned());
    let retries = Some(app.deploy.retries);
    Ok(Row { name: name.to_owned(), standing, tip, content, running, retries, error: None, state })
}

/// An app of which nothing is known but what is wrong with it.
fn broken(name: String, word: &'static str, retries: Option<u32>, error: Failure) -> Row {
    let why = printable(error.message.lines().next().unwrap_or_default());
    Row { error: Some(error), ..unknown(name, word, retries, why) }
}

fn unknown(name: String, word: &'static str, retries: Option<u32>, why: String) -> Row {
    Row {
        name,
        standing: Standing { word, why, next: None },
        state: State::default(),
        tip: None,
        content: Content::default(),
        running: None,
        retries,
        error: None,
    }
}

fn as_text(rows: &[Row], page: &Page) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let head = ["APP", "STATE", "DEPLOYED", "TIP", "SINCE", "LAST POLL", "NEXT RETRY"].map(str::to_owned);
    let cells: Vec<[String; 7]> = std::iter::once(head).chain(rows.iter().map(cells)).collect();
    let mut text = String::new();
    for (n, cells) in columns(&cells).iter().enumerate() {
        let Some(row) = n.checked_sub(1).map(|n| &rows[n]) else {
            text.push_str(&format!("{}\n", page.paint(Tone::Faint, &cells.concat())));
            continue;
        };
        let [app, state, rest @ ..] = cells;
        text.push_str(&format!("{app}{}{}\n", page.paint(tone(row.standing.word), state), rest.concat()));
        // Of what is well, a glance is enough.
        let faint = if row.standing.word == "ok" { Tone::Faint } else { Tone::Plain };
        text.push_str(&page.below(faint, &row.standing.why));
        row.error
            .iter()
            .flat_map(|e| &e.help)
            // Not broken into lines: commands are copied from there.
            .for_each(|help| text.push_str(&format!("  {}\n", printable(help))));
    }
    text
}

fn cells(row: &Row) -> [String; 7] {
    let none = || "-".to_owned();
    let deployed = row.state.deployed.as_ref();
    [
        printable(&row.name),
        row.standing.word.to_owned(),
        deployed.map_or_else(none, |d| d.commit.short().to_owned()),
        row.tip.as_ref().map_or_else(none, |tip| tip.short().to_owned()),
        deployed.map_or_else(none, |d| format!("{:.0}", d.at)),
        row.content.polled.as_ref().map_or_else(none, |polled| age(polled.at.as_second())),
        match row.standing.next {
            None => none(),
            Some(0 | 1) => "next poll".to_owned(),
            Some(polls) => format!("in {polls} polls"),
        },
    ]
}

fn tone(word: &str) -> Tone {
    match word {
        "ok" => Tone::Good,
        "new" | "pending" | "frozen" | "elsewhere" => Tone::Plain,
        _ => Tone::Bad,
    }
}

fn nothing_to_show(console: &Console, config: &Config) {
    if !config.apps.is_empty() {
        console.say(&format!("no app is for this host ({}), by their `[source] hosts`", config.host.name));
        return;
    }
    let folder = config.file.with_file_name("apps.d");
    console.say(&format!("there are no apps in {}; make one: poller init NAME URL", folder.display()));
    if !nix::unistd::Uid::effective().is_root() && std::path::Path::new("/etc/poller/apps.d").exists() {
        console.say("those of the host: sudo poller status");
    }
}

fn as_json(row: &Row) -> Value {
    let (state, polled) = (&row.state, row.content.polled.as_ref());
    let deployed = |of: &Option<crate::journal::state::Deployed>| of.as_ref().map(|d| d.commit.to_string());
    let frozen = state.frozen.as_ref().filter(|frozen| frozen.holds(Timestamp::now()));
    json!({
        "app": row.name,
        "state": row.standing.word,
        "why": row.standing.why,
        "deployed": deployed(&state.deployed),
        "previous": deployed(&state.previous),
        "tip": row.tip,
        "ref": polled.and_then(|p| p.reference.as_ref()),
        "since": state.deployed.as_ref().map(|d| d.at),
        "last_poll": polled.map(|p| json!({ "at": p.at, "run": p.run, "outcome": p.outcome })),
        "next_attempt_in_polls": row.standing.next,
        "attempts": state.failed.as_ref().map(|f| f.attempts),
        "retries": row.retries,
        "failed": state.failed.as_ref().map(|f| {
            json!({ "commit": f.commit, "since": f.since, "reason": f.reason, "release": f.release })
        }),
        "frozen": frozen.map(|f| json!({ "by": f.by, "reason": f.reason, "since": f.since, "until": f.until })),
        "refused": state.refused,
        "seen": state.seen,
        "running": row.running.as_ref().map(|r| {
            json!({ "pid": r.pid, "run": r.run, "since": r.since, "stage": r.stage })
        }),
        "error": row.error.as_ref().map(|e| json!({ "message": e.message, "help": e.help })),
    })
}
