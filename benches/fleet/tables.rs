//! The tables, in markdown.

use std::fmt::Write;

use super::hosts::{Names, Schedule, arrivals};
use super::load::{self, MaxStartups};
use super::poll::{self, BYTES, CPU, FETCH_BYTES, FETCH_CPU, INTERVAL};
use super::push;
use super::soak::{self, Rule};

const SIZES: [usize; 3] = [10, 1_000, 100_000];
/// Fleets of each kind of names.
const FLEETS: usize = 5;

const BARE: Schedule = Schedule::Cron { splay: 0 };
const SPLAY: Schedule = Schedule::Cron { splay: 300 };
const TIMER: Schedule = Schedule::Timer { delay: 240.0 };
const LONG_TIMER: Schedule = Schedule::Timer { delay: 290.0 };

/// The fullest second with splay, as a multiple of the mean.
const TARGET: f64 = 1.3;
/// Round trips between host and server, in seconds: one building, one continent, two.
const ROUND_TRIPS: [f64; 3] = [0.001, 0.020, 0.100];
const DEFAULT: MaxStartups = MaxStartups(10, 30, 100);
const RAISED: MaxStartups = MaxStartups(1000, 30, 2000);
/// 1 Gbit/s, without the headers, in bytes a second.
const LINE: f64 = 117e6;
const CORES: f64 = 16.0;

pub fn all() -> String {
    type Table = fn(&mut String) -> std::fmt::Result;
    let tables: [(&str, Table); 8] = [
        ("arrivals", spread),
        ("names", by_names),
        ("connections", connections),
        ("the server", server),
        ("a push", seen),
        ("packs", packs),
        ("canaries", canaries),
        ("a bad commit", bad_commit),
    ];
    let mut out = String::new();
    for (n, (name, table)) in tables.into_iter().enumerate() {
        out.push_str(&format!("**{}, {name}**\n\n", n + 1));
        // Writing to a string never fails.
        table(&mut out).expect("a string");
        out.push('\n');
    }
    out
}

/// Each kind of names, several fleets of each.
fn fleets(schedule: Schedule, hosts: usize) -> Vec<Vec<f64>> {
    let one = |names| (0..FLEETS).map(move |fleet| arrivals(schedule, names, fleet, hosts));
    Names::ALL.into_iter().flat_map(one).collect()
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    values.sum::<f64>() / count
}

fn most(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(0.0, f64::max)
}

/// `100,000`
fn thousands(n: usize) -> String {
    let digits = n.to_string();
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().map(|g| std::str::from_utf8(g).unwrap_or("")).collect();
    groups.join(",")
}

/// With as many digits as mean something.
fn short(value: f64) -> String {
    match value {
        v if v >= 1000.0 => thousands(v.round() as usize),
        v if v >= 10.0 => format!("{v:.0}"),
        v if v >= 1.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

fn spread(out: &mut String) -> std::fmt::Result {
    let schedules = [
        ("cron", BARE),
        ("cron, minutes by hand", Schedule::Minutes),
        ("cron, `splay = \"4m\"`", Schedule::Cron { splay: 240 }),
        ("cron, `splay = \"5m\"`", SPLAY),
        ("the timer as packaged, 4min", TIMER),
        ("the timer with 290s", LONG_TIMER),
        ("chance alone", Schedule::Chance),
    ];
    writeln!(out, "| hosts | started by | mean, polls/s | fullest second | × mean | × mean, worst fleet |")?;
    writeln!(out, "| ---: | --- | ---: | ---: | ---: | ---: |")?;
    let mut verdict = String::new();
    for hosts in SIZES {
        for (what, schedule) in schedules {
            let peaks: Vec<(usize, f64)> = fleets(schedule, hosts).iter().map(|one| load::peak(one)).collect();
            let fullest = mean(peaks.iter().map(|p| p.0 as f64));
            let times = mean(peaks.iter().map(|p| p.1));
            let worst = most(peaks.iter().map(|p| p.1));
            let rate = short(hosts as f64 / INTERVAL);
            let fullest = short(fullest);
            writeln!(out, "| {} | {what} | {rate} | {fullest} | {times:.2} | {worst:.2} |", thousands(hosts))?;
            if hosts == 100_000 && what.contains("5m") {
                let met = if worst <= TARGET { "met" } else { "NOT met" };
                verdict = format!("target, 100,000 hosts with splay: the fullest second ≤ {TARGET} × the mean: ");
                write!(verdict, "{times:.2} ×, in the worst fleet {worst:.2} ×, {met}")?;
            }
        }
    }
    writeln!(out, "\n    {verdict}")
}

fn by_names(out: &mut String) -> std::fmt::Result {
    writeln!(out, "| names, `splay = \"5m\"` | × mean, 100,000 hosts | unevenness | unevenness, 1,000 hosts |")?;
    writeln!(out, "| --- | ---: | ---: | ---: |")?;
    let row = |out: &mut String, what: &str, schedule, names| {
        let of = |hosts| (0..FLEETS).map(move |fleet| arrivals(schedule, names, fleet, hosts)).collect::<Vec<_>>();
        let (many, few) = (of(100_000), of(1_000));
        let times = mean(many.iter().map(|one| load::peak(one).1));
        let many = mean(many.iter().map(|one| load::unevenness(one)));
        let few = mean(few.iter().map(|one| load::unevenness(one)));
        writeln!(out, "| {what} | {times:.2} | {many:.2} | {few:.2} |")
    };
    for names in Names::ALL {
        row(out, names.example(), SPLAY, names)?;
    }
    row(out, "chance alone", Schedule::Chance, Names::Id)
}

fn connections(out: &mut String) -> std::fmt::Result {
    writeln!(
        out,
        "| hosts | splay | round trip | open at once | not logged in yet | dropped, `10:30:100` | dropped, `1000:30:2000` |"
    )?;
    writeln!(out, "| ---: | --- | ---: | ---: | ---: | ---: | ---: |")?;
    for hosts in [10, 1_000, 10_000, 100_000] {
        for (what, schedule) in [("none", BARE), ("5m", SPLAY)] {
            let fleets = fleets(schedule, hosts);
            for trip in ROUND_TRIPS {
                let (open, waiting) = (poll::open(trip), poll::unauthenticated(trip));
                let at_once = |lasting| mean(fleets.iter().map(|one| load::open_at_once(one, lasting) as f64));
                let dropped = |limit| 100.0 * mean(fleets.iter().map(|one| load::dropped(one, waiting, limit)));
                writeln!(
                    out,
                    "| {} | {what} | {:.0} ms | {} | {} | {:.1} % | {:.1} % |",
                    thousands(hosts),
                    trip * 1000.0,
                    short(at_once(open)),
                    short(at_once(waiting)),
                    dropped(DEFAULT),
                    dropped(RAISED)
                )?;
            }
        }
    }
    Ok(())
}

fn server(out: &mut String) -> std::fmt::Result {
    writeln!(
        out,
        "| hosts | splay | MB/s, mean | MB, fullest second | cores, mean | cores, fullest second | worked off by {CORES} cores in |"
    )?;
    writeln!(out, "| ---: | --- | ---: | ---: | ---: | ---: | ---: |")?;
    for hosts in SIZES {
        for (what, schedule) in [("none", BARE), ("5m", SPLAY)] {
            let fullest = mean(fleets(schedule, hosts).iter().map(|one| load::peak(one).0 as f64));
            let rate = hosts as f64 / INTERVAL;
            writeln!(
                out,
                "| {} | {what} | {} | {} | {} | {} | {} s |",
                thousands(hosts),
                short(rate * BYTES / 1e6),
                short(fullest * BYTES / 1e6),
                short(rate * CPU),
                short(fullest * CPU),
                short(fullest * CPU / CORES)
            )?;
        }
    }
    Ok(())
}

fn seen(out: &mut String) -> std::fmt::Result {
    writeln!(out, "| hosts | started by | 50 % | 99 % | 100 % |")?;
    writeln!(out, "| ---: | --- | ---: | ---: | ---: |")?;
    for hosts in SIZES {
        for (what, schedule) in [("cron", BARE), ("cron, `splay = \"5m\"`", SPLAY), ("the timer as packaged", TIMER)] {
            let one = arrivals(schedule, Names::Counted, 0, hosts);
            let parts = push::seen_over(&one, 60, [0.5, 0.99, 1.0]);
            let cells: Vec<String> = parts.iter().map(|(mean, most)| format!("{mean:.0} s ({most:.0})")).collect();
            writeln!(out, "| {} | {what} | {} |", thousands(hosts), cells.join(" | "))?;
        }
    }
    Ok(())
}

fn packs(out: &mut String) -> std::fmt::Result {
    writeln!(
        out,
        "| hosts | splay | pack | MB/s, mean | MB, fullest second | cores, mean | a fetch waits for the line up to | until all have it |"
    )?;
    writeln!(out, "| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |")?;
    for hosts in [1_000, 100_000] {
        for (what, schedule) in [("none", BARE), ("5m", SPLAY)] {
            let one = arrivals(schedule, Names::Counted, 0, hosts);
            for (name, pack) in [("20 kB", 20e3), ("300 kB", 300e3), ("1 MB", 1e6)] {
                let bytes = BYTES + FETCH_BYTES + pack;
                let sent = push::sent(&one, bytes, LINE);
                let rate = hosts as f64 / INTERVAL;
                writeln!(
                    out,
                    "| {} | {what} | {name} | {} | {} | {} | {} s | {} s |",
                    thousands(hosts),
                    short(rate * bytes / 1e6),
                    short(sent.most / 1e6),
                    short(rate * (CPU + FETCH_CPU)),
                    short(sent.wait),
                    short(sent.until)
                )?;
            }
        }
    }
    Ok(())
}

/// What `[source] soak` can be, with one host in a hundred that does not wait.
const SOAKS: [(&str, Schedule, f64, f64); 5] = [
    ("none, no canaries; the timer", TIMER, 0.0, 0.0),
    ("`14m`; the timer", TIMER, 0.01, 840.0),
    ("`15m`; the timer", TIMER, 0.01, 900.0),
    ("`15m`; cron, `splay = \"5m\"`", SPLAY, 0.01, 900.0),
    ("`59m`; the timer", TIMER, 0.01, 3540.0),
];

fn canaries(out: &mut String) -> std::fmt::Result {
    writeln!(
        out,
        "| soak of the others | canaries, all | others, first | half | 99 % | all | waited a poll too long |"
    )?;
    writeln!(out, "| --- | ---: | ---: | ---: | ---: | ---: | ---: |")?;
    for (what, schedule, canaries, soak) in SOAKS {
        let hosts = soak::rollout(&Rule { schedule, canaries, soak }, 100_000);
        let minutes = |is_canary: bool| {
            let mut all: Vec<f64> =
                hosts.iter().filter(|host| host.is_canary == is_canary).map(|host| host.deploys / 60.0).collect();
            all.sort_by(f64::total_cmp);
            all
        };
        let (few, rest) = (minutes(true), minutes(false));
        let canaries = few.last().map_or("-".to_owned(), |all| format!("{all:.1}"));
        let at = |part: f64| rest[((rest.len() - 1) as f64 * part) as usize];
        let late = 100.0 * hosts.iter().filter(|host| host.late).count() as f64 / rest.len() as f64;
        writeln!(
            out,
            "| {what} | {canaries} | {:.1} | {:.1} | {:.1} | {:.1} | {late:.0} % |",
            at(0.0),
            at(0.5),
            at(0.99),
            at(1.0)
        )?;
    }
    Ok(())
}

fn bad_commit(out: &mut String) -> std::fmt::Result {
    const AFTER: [f64; 6] = [2.0, 5.0, 10.0, 15.0, 20.0, 30.0];
    let columns = AFTER.map(|minutes| format!("{minutes:.0} min"));
    writeln!(out, "| soak of the others | {} | at 30 min, the last is well again after |", columns.join(" | "))?;
    writeln!(out, "| --- |{} ---: |", " ---: |".repeat(AFTER.len()))?;
    for (what, schedule, canaries, soak) in SOAKS {
        let hosts = soak::rollout(&Rule { schedule, canaries, soak }, 100_000);
        let all = AFTER.map(|minutes| soak::taken_back(&hosts, soak, minutes * 60.0));
        let reached = all.map(|(reached, _)| thousands(reached));
        let well = all[AFTER.len() - 1].1 / 60.0;
        writeln!(out, "| {what} | {} | {well:.1} min |", reached.join(" | "))?;
    }
    Ok(())
}
