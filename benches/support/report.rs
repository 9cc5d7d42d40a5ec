//! What poller is to hold, and whether it did. Nothing fails when it did not: time on a shared machine is
//! no ground for a red build.

use std::fmt::Write as _;

use super::measure::Summary;
use super::peers::{ANSIBLE_PULL, GIT_FETCH, GIT_SYNC, POLLER, PROBE};
use super::rows::Results;
use crate::rows::{age, apps, poll, refs, trees};

/// A row's title and a contestant's name, or how it begins.
type Place = (String, String);

enum Measure {
    Wall,
    Cpu,
    Bytes,
    Disk,
    /// In megabytes, what processes share counted once, and no ratio.
    Memory,
}

struct Target {
    claim: String,
    measure: Measure,
    of: Place,
    against: Option<Place>,
    at_most: f64,
    /// What stands in the way: held against the same.
    floor: Option<Place>,
}

/// The targets of what was measured, as a table.
pub fn targets(all: &[Results]) -> String {
    let mut text = "| target | at most | measured | | the floor |\n| --- | ---: | ---: | --- | ---: |\n".to_owned();
    for target in list() {
        let Some(value) = value(all, &target, &target.of) else { continue };
        let verdict = if value <= target.at_most { "met" } else { "**NOT met**" };
        let floor = target.floor.as_ref().and_then(|floor| self::value(all, &target, floor));
        let show = |value: f64| match target.measure {
            Measure::Memory => format!("{value:.1} MB"),
            _ => format!("{value:.3}"),
        };
        let limit = match target.measure {
            Measure::Memory => format!("{} MB", target.at_most),
            _ => target.at_most.to_string(),
        };
        let floor = floor.map_or_else(|| "–".to_owned(), show);
        writeln!(text, "| {} | {limit} | {} | {verdict} | {floor} |", target.claim, show(value)).expect("text");
    }
    text
}

fn value(all: &[Results], target: &Target, of: &Place) -> Option<f64> {
    let value = |place: &Place| amount(find(all, place)?, &target.measure);
    match &target.against {
        Some(against) => Some(value(of)? / value(against)?),
        None => value(of),
    }
}

fn amount(of: &Summary, measure: &Measure) -> Option<f64> {
    match measure {
        Measure::Wall => Some(of.wall),
        Measure::Cpu => of.cpu,
        Measure::Bytes => of.seen.map(|seen| seen.bytes as f64),
        Measure::Disk => of.disk.map(|disk| (disk.published + disk.repository) as f64),
        Measure::Memory => of.seen.map(|seen| seen.shared_once as f64 * 1024.0 / 1e6),
    }
}

fn find<'a>(all: &'a [Results], (title, name): &Place) -> Option<&'a Summary> {
    let row = all.iter().find(|row| row.title == *title)?;
    // Names that differ in their end only are told apart by the whole of them.
    let exact = row.contestants.iter().find(|(own, _)| own == name);
    let found = exact.or_else(|| row.contestants.iter().find(|(own, _)| own.starts_with(name.as_str())));
    found.map(|(_, summary)| summary).filter(|summary| summary.rounds > 0)
}

fn place(title: impl Into<String>, name: impl Into<String>) -> Place {
    (title.into(), name.into())
}

fn ratio(claim: impl Into<String>, measure: Measure, of: Place, against: Place, at_most: f64) -> Target {
    Target { claim: claim.into(), measure, of, against: Some(against), at_most, floor: None }
}

fn memory(claim: &str, of: Place, at_most: f64) -> Target {
    Target { claim: claim.to_owned(), measure: Measure::Memory, of, against: None, at_most, floor: None }
}

fn list() -> Vec<Target> {
    let one = |name: &str| place(poll::TITLE, name);
    let mut list = vec![
        ratio("unchanged poll against a bare russh probe: wall", Measure::Wall, one(POLLER), one(PROBE), 1.15),
        ratio("against the old script: wall", Measure::Wall, one(POLLER), one(GIT_FETCH), 0.19),
        ratio("against the old script: CPU", Measure::Cpu, one(POLLER), one(GIT_FETCH), 0.07),
        ratio("against git-sync: wall", Measure::Wall, one(POLLER), one(GIT_SYNC), 0.15),
        ratio("against ansible-pull: wall", Measure::Wall, one(POLLER), one(ANSIBLE_PULL), 0.03),
        memory("memory of an unchanged poll, all processes together", one(POLLER), 16.0),
    ];
    list[1].floor = Some(one(PROBE));
    list[2].floor = Some(one(PROBE));
    for (name, measure) in [("wall", Measure::Wall), ("bytes", Measure::Bytes)] {
        let of = |refs, who: &str| place(refs::title(refs), who);
        let claim = format!("100,000 references against 10: {name}");
        list.push(ratio(claim, measure, of(refs::MANY, POLLER), of(refs::FEW, POLLER), 1.05));
    }
    list.extend(of_apps());
    list.extend(of_trees());
    for (name, measure, at_most) in [("poll", Measure::Wall, 1.1), ("disk", Measure::Disk, 1.2)] {
        let of = |deploys| place(age::TITLE, age::name(deploys));
        let claim = format!("after 1,000 deploys against after 10: {name}");
        list.push(ratio(claim, measure, of(age::OLD), of(age::YOUNG), at_most));
    }
    list
}

fn of_apps() -> Vec<Target> {
    let (fifty, each) = (apps::one_identity(50), apps::identity_each(200));
    let against = |claim: &str, title: &str, apps, at_most| Target {
        floor: Some(place(title, PROBE)),
        ..ratio(claim, Measure::Wall, place(title, POLLER), place(title, apps::one_by_one(apps)), at_most)
    };
    vec![
        against("50 apps, one identity, against 50 × `git ls-remote`: wall", &fifty, 50, 0.015),
        against("200 apps, an identity each, against 200 × `git ls-remote`: wall", &each, 200, 0.10),
        Target {
            floor: Some(place(&each, PROBE)),
            ..memory("memory of these 200 apps, all processes together", place(&each, POLLER), 64.0)
        },
    ]
}

fn of_trees() -> Vec<Target> {
    let update = trees::update(3_000);
    let of = |name: &str, poller: &str, git: &str| {
        let claim = format!("update, 3,000 files, {name}, against git and `sync`: wall");
        ratio(claim, Measure::Wall, place(&update, poller), place(&update, git), 1.0)
    };
    let mut list =
        vec![of("releases", trees::RELEASES, trees::WORKTREE), of("in place", trees::IN_PLACE, trees::RESET)];
    for files in [100, 3_000, 30_000] {
        let title = trees::first(files);
        for (layout, name) in [("releases", trees::RELEASES), ("in place", trees::IN_PLACE)] {
            let claim = format!("{title}, {layout}, against `git clone` and `sync`: wall");
            list.push(ratio(claim, Measure::Wall, place(&title, name), place(&title, trees::CLONE), 1.2));
        }
    }
    list
}
