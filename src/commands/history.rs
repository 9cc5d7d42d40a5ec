//! `poller history`: the runs that changed something about an app, newest first.

use anyhow::bail;
use serde_json::{Value, json};

use super::past::{admitted, app, as_json, ask, holder, outcome, route, time, took};
use super::setting;
use crate::cli::Common;
use crate::journal::state::Run;
use crate::outcome::{Class, Failure};
use crate::processes::messages::{Past, ReaderReply, ReaderRequest};
use crate::report::page::{Page, columns};
use crate::report::printable;
use crate::report::terminal::{Console, Tone, print, print_json};
use crate::stages::lock::Content;

/// What is shown of an id at least.
const SHORTEST: usize = 8;

pub fn run(common: &Common, name: &str, lines: usize) -> u8 {
    setting::run(|console| {
        if lines == 0 {
            let failure = Failure::new(Class::Usage, "a history of no runs has nothing to show");
            return Err(failure.help(format!("at least one: poller history {} -n 1", printable(name))).into());
        }
        let config = admitted(common, &format!("history {}", printable(name)))?;
        let app = app(&config, name)?;
        // One more than is shown tells whether there are older ones, and how much of an id tells it apart.
        let limit = lines.saturating_add(1);
        let reply = ask(&config, app, |app, repository| ReaderRequest::History { app, repository, limit })?;
        let ReaderReply::History(all) = reply else { bail!("the reader answered another question") };
        let holder = holder(&config, app);
        let shown = &all[..all.len().min(lines)];
        if common.json {
            let runs: Vec<Value> = shown.iter().map(|past| as_json(&past.run, holder.as_ref())).collect();
            let older = all.len() > shown.len();
            print_json(&json!({ "schema": 1, "app": app.name.as_str(), "runs": runs, "older": older }));
            return Ok(0);
        }
        if all.is_empty() {
            console.say(&format!("{}: nothing happened yet; what keeps it: poller status {}", app.name, app.name));
            return Ok(0);
        }
        show(&all, shown, holder.as_ref());
        hint(console, app.name.as_str(), &all, lines);
        Ok(0)
    })
}

fn show(all: &[Past], shown: &[Past], holder: Option<&Content>) {
    let page = Page::new();
    let ids: Vec<&str> = all.iter().map(|past| past.run.id.as_str()).collect();
    let length = telling(&ids);
    let head = ["WHEN", "RUN", "KIND", "COMMITS", "OUTCOME", "TOOK", "WHO"].map(str::to_owned);
    let rows: Vec<[String; 7]> =
        std::iter::once(head).chain(shown.iter().map(|p| row(&p.run, length, holder))).collect();
    let mut text = String::new();
    for (n, cells) in columns(&rows).iter().enumerate() {
        let Some(past) = n.checked_sub(1).map(|n| &shown[n]) else {
            text.push_str(&format!("{}\n", page.paint(Tone::Faint, &cells.concat())));
            continue;
        };
        let [when, run, kind, commits, outcome, took, who] = cells;
        let outcome = page.paint(tone(outcome.trim_end()), outcome);
        text.push_str(&format!("{when}{run}{kind}{commits}{outcome}{took}{who}\n"));
        for more in [&past.run.reason, &past.run.error].into_iter().flatten() {
            text.push_str(&page.cut_below(&printable(more.lines().next().unwrap_or_default())));
        }
    }
    print(&text);
}

fn row(run: &Run, length: usize, holder: Option<&Content>) -> [String; 7] {
    let id: String = printable(&run.id).chars().take(length).collect();
    let took = took(run).map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.1} s"));
    let (kind, outcome) = (run.kind.word().to_owned(), outcome(run, holder).to_owned());
    [time(run.started), id, kind, route(run), outcome, took, printable(&run.who)]
}

/// How much of an id tells each of them apart: ids that begin with the time share a long beginning.
fn telling(ids: &[&str]) -> usize {
    let mut sorted = ids.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    let common = |a: &str, b: &str| a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
    let longest = sorted.windows(2).map(|pair| common(pair[0], pair[1])).max().unwrap_or(0);
    (longest + 1).max(SHORTEST)
}

fn tone(outcome: &str) -> Tone {
    match outcome {
        "deployed" => Tone::Good,
        "failed" | "interrupted" | "refused" | "error" => Tone::Bad,
        _ => Tone::Plain,
    }
}

/// How to see more, for somebody who watches.
fn hint(console: &Console, app: &str, all: &[Past], lines: usize) {
    if all.len() > lines {
        console.note(&format!("older ones: poller history {app} -n {}", lines.saturating_mul(5)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_much_of_an_id_is_shown_as_tells_it_apart() {
        assert_eq!(telling(&[]), 8);
        assert_eq!(telling(&["01a1f96c-2081"]), 8);
        assert_eq!(telling(&["01a1f96c-2081", "01a1f96c-2093", "01a1f96b-2081"]), 12);
        assert_eq!(telling(&["01a1f96c-2081", "01a1f96c-2081"]), 8);
    }
}
