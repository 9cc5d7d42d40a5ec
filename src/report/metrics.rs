//! The metrics file for node_exporter's textfile collector: written whole, by rename, after every run.
//!
//! Counters go on from what the file said before; apps that this run did not poll keep their lines.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result};

/// What a run has to say of one app.
#[derive(Clone, Debug)]
pub struct Sample {
    pub app: String,
    /// None where it is not known in this run.
    pub commit: Option<String>,
    pub reference: Option<String>,
    /// None where the journal could not be read: the state then stays what it was.
    pub state: Option<&'static str>,
    pub outcome: &'static str,
    /// Whether the server answered.
    pub polled: bool,
    /// How a deploy ended, if one was begun, and how long it took in seconds.
    pub deploy: Option<(&'static str, f64)>,
    pub git_operations: u64,
    pub git_errors: u64,
}

const STATES: [&str; 9] =
    ["ok", "pending", "frozen", "failed", "broken", "interrupted", "refused", "unreachable", "new"];

/// Name, kind, help: also the order in the file.
const FAMILIES: [(&str, &str, &str); 10] = [
    ("poller_app_info", "gauge", "What is deployed; always 1."),
    ("poller_app_state", "gauge", "1 for the state that the app is in, 0 for the others."),
    ("poller_deploys_total", "counter", "Deploys begun, by outcome."),
    ("poller_git_errors_total", "counter", "Exchanges with a git server that failed."),
    ("poller_git_operations_total", "counter", "Exchanges with a git server."),
    ("poller_last_deploy_duration_seconds", "gauge", "How long the last deploy took."),
    ("poller_last_deploy_timestamp_seconds", "gauge", "When the last deploy ended, seconds since the epoch."),
    ("poller_last_poll_success_timestamp_seconds", "gauge", "When the server answered last, seconds since the epoch."),
    ("poller_last_poll_timestamp_seconds", "gauge", "When the app was polled last, seconds since the epoch."),
    ("poller_polls_total", "counter", "Polls, by outcome."),
];

/// Some thousand apps' worth.
const LONGEST: u64 = 16 << 20;

/// Series (name and labels) to value.
type Series = BTreeMap<String, f64>;

/// Brings the file up to date.
pub fn update(path: &Path, samples: &[Sample], now: f64) -> Result<()> {
    let before = match read(path) {
        Ok(text) => parse(&text),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Series::new(),
        Err(e) => return Err(e).with_context(|| path.display().to_string()),
    };
    let text = render(&apply(before, samples, now));
    let partial = path.with_extension(format!("partial.{}", std::process::id()));
    let write = || -> std::io::Result<()> {
        // The exporter reads *.prom only. What a killed run of the same number left makes room.
        let _ = fs::remove_file(&partial);
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(&partial)?;
        file.write_all(text.as_bytes())?;
        fs::rename(&partial, path)
    };
    write().with_context(|| path.display().to_string())
}

/// The folder may belong to the exporter's user, who could have put a link or a pipe there.
fn read(path: &Path) -> std::io::Result<String> {
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
    let file = fs::OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("not a plain file"));
    }
    let mut text = String::new();
    file.take(LONGEST).read_to_string(&mut text)?;
    Ok(text)
}

fn parse(text: &str) -> Series {
    let lines = text.lines().filter(|line| line.starts_with("poller_"));
    lines
        .filter_map(|line| line.rsplit_once(' '))
        .filter_map(|(series, value)| Some((series.to_owned(), value.parse().ok()?)))
        .collect()
}

fn apply(mut series: Series, samples: &[Sample], now: f64) -> Series {
    for sample in samples {
        let app = format!("app=\"{}\"", escaped(&sample.app));
        // Commit and ref are labels: the old line is another series and must go.
        let info = format!("poller_app_info{{{app},");
        if sample.commit.is_some() {
            series.retain(|name, _| !name.starts_with(&info));
        }
        if let (Some(commit), Some(reference), Some(state)) = (&sample.commit, &sample.reference, sample.state) {
            series.insert(
                format!("{info}commit=\"{}\",ref=\"{}\",state=\"{state}\"}}", escaped(commit), escaped(reference)),
                1.0,
            );
        }
        for state in STATES.iter().copied().filter(|_| sample.state.is_some()) {
            series.insert(
                format!("poller_app_state{{{app},state=\"{state}\"}}"),
                f64::from(u8::from(Some(state) == sample.state)),
            );
        }
        series.insert(format!("poller_last_poll_timestamp_seconds{{{app}}}"), now);
        if sample.polled {
            series.insert(format!("poller_last_poll_success_timestamp_seconds{{{app}}}"), now);
        }
        *series.entry(format!("poller_polls_total{{{app},outcome=\"{}\"}}", sample.outcome)).or_default() += 1.0;
        if let Some((outcome, seconds)) = sample.deploy {
            *series.entry(format!("poller_deploys_total{{{app},outcome=\"{outcome}\"}}")).or_default() += 1.0;
            series.insert(format!("poller_last_deploy_timestamp_seconds{{{app}}}"), now);
            series.insert(format!("poller_last_deploy_duration_seconds{{{app}}}"), seconds);
        }
        *series.entry("poller_git_operations_total".into()).or_default() += sample.git_operations as f64;
        *series.entry("poller_git_errors_total".into()).or_default() += sample.git_errors as f64;
    }
    series
}

fn render(series: &Series) -> String {
    let mut text = String::new();
    for (family, kind, help) in FAMILIES {
        let own = series.iter().filter(|(name, _)| name.split('{').next() == Some(family)).collect::<Vec<_>>();
        if own.is_empty() {
            continue;
        }
        let _ = writeln!(text, "# HELP {family} {help}\n# TYPE {family} {kind}");
        for (name, value) in own {
            let _ = writeln!(text, "{name} {value}");
        }
    }
    text
}

/// A label's value as the exposition format wants it; a ref's name may hold a quote.
fn escaped(text: &str) -> String {
    super::printable(text).replace('\\', r"\\").replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(app: &str, commit: &str, state: &'static str) -> Sample {
        Sample {
            app: app.into(),
            commit: Some(commit.into()),
            reference: Some("refs/heads/a\"b".into()),
            state: Some(state),
            outcome: "deployed",
            polled: true,
            deploy: Some(("deployed", 1.5)),
            git_operations: 2,
            git_errors: 0,
        }
    }

    #[test]
    fn counters_go_on_and_other_apps_keep_their_lines() {
        let first = render(&apply(Series::new(), &[sample("a", "1", "ok"), sample("b", "2", "ok")], 10.0));
        let second = render(&apply(parse(&first), &[sample("a", "3", "failed")], 20.0));
        for line in [
            "poller_polls_total{app=\"a\",outcome=\"deployed\"} 2",
            "poller_polls_total{app=\"b\",outcome=\"deployed\"} 1",
            "poller_app_info{app=\"a\",commit=\"3\",ref=\"refs/heads/a\\\"b\",state=\"failed\"} 1",
            "poller_app_state{app=\"a\",state=\"ok\"} 0",
            "poller_app_state{app=\"a\",state=\"failed\"} 1",
            "poller_last_poll_timestamp_seconds{app=\"b\"} 10",
            "poller_git_operations_total 6",
        ] {
            assert!(second.lines().any(|l| l == line), "{line} is not in\n{second}");
        }
        assert!(!second.contains("commit=\"1\""));
        assert_eq!(second.matches("# TYPE poller_polls_total counter").count(), 1);
    }
}
