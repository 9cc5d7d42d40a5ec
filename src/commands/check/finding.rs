//! What the doctor found, and how it is shown.

use std::io::IsTerminal;

use serde_json::{Value, json};

use crate::outcome::{Class, Failure, exit_code};
use crate::report::{plural, printable};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Ok,
    /// Worth a look; polls go on.
    Warning,
    /// A poll would fail, with the exit code of this class.
    Failed(Class),
}

/// One line of the report, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// A stable word for what was looked at.
    pub check: &'static str,
    pub verdict: Verdict,
    /// Several lines where a file is quoted.
    pub text: String,
    pub fix: Vec<String>,
}

impl Finding {
    pub fn ok(check: &'static str, text: impl Into<String>) -> Finding {
        Finding { check, verdict: Verdict::Ok, text: text.into(), fix: Vec::new() }
    }

    pub fn warning(check: &'static str, text: impl Into<String>) -> Finding {
        Finding { verdict: Verdict::Warning, ..Finding::ok(check, text) }
    }

    pub fn failed(check: &'static str, class: Class, text: impl Into<String>) -> Finding {
        Finding { verdict: Verdict::Failed(class), ..Finding::ok(check, text) }
    }

    /// A failure as a poll would report it.
    pub fn of(check: &'static str, failure: Failure) -> Finding {
        // A file's problem is one text, whose last lines are its remedy.
        let lines = failure.message.lines();
        let (fix, text): (Vec<&str>, Vec<&str>) = lines.partition(|line| line.trim_start().starts_with("= "));
        let fix = fix.iter().map(|line| line.trim_start().trim_start_matches("= ").to_owned());
        let mut fix: Vec<String> = fix.chain(failure.help).collect();
        if fix.is_empty() {
            fix.push(where_to_look(failure.class).to_owned());
        }
        Finding { fix, ..Finding::failed(check, failure.class, text.join("\n")) }
    }

    /// Adds a line that says what to do.
    pub fn fix(mut self, line: impl Into<String>) -> Finding {
        self.fix.push(line.into());
        self
    }

    /// For what polls go on without, such as metrics: what fails there is a warning.
    pub fn beside_polls(self) -> Finding {
        if self.is_failed() { Finding { verdict: Verdict::Warning, ..self } } else { self }
    }

    pub fn is_failed(&self) -> bool {
        matches!(self.verdict, Verdict::Failed(_))
    }

    fn as_json(&self) -> Value {
        let (result, class) = match self.verdict {
            Verdict::Ok => ("ok", None),
            Verdict::Warning => ("warning", None),
            Verdict::Failed(class) => ("failed", Some(class.word())),
        };
        // JSON lets through what turns text around on a terminal.
        let text: Vec<String> = self.text.lines().map(printable).collect();
        let fix: Vec<String> = self.fix.iter().map(|line| printable(line)).collect();
        json!({ "check": self.check, "result": result, "text": text.join("\n"), "fix": fix, "class": class })
    }
}

/// For a failure that has no remedy of its own.
fn where_to_look(class: Class) -> &'static str {
    match class {
        Class::Config | Class::Usage => "correct that place, and check again",
        Class::Refused => "look at who may change what is named: namei -l PATH",
        Class::Io => "look at what is named, and at the disk below it: ls -l, df -h, dmesg",
        Class::Unreachable | Class::Protocol => {
            "look at the repository where it lies: git fsck, and that it can be read"
        }
        Class::Deploy | Class::Interrupted | Class::Busy => "check again",
        Class::Bug => "please report it, with what stands here",
    }
}

/// All that was found: of the host, and of each app.
#[derive(Debug, Default)]
pub struct Report {
    pub host: Vec<Finding>,
    pub apps: Vec<(String, Vec<Finding>)>,
}

impl Report {
    fn all(&self) -> impl Iterator<Item = &Finding> {
        self.host.iter().chain(self.apps.iter().flat_map(|(_, findings)| findings))
    }

    /// As a poll would give it; warnings do not count.
    pub fn exit(&self) -> u8 {
        exit_code(self.all().filter_map(|finding| match finding.verdict {
            Verdict::Failed(class) => Some(class.exit_code()),
            _ => None,
        }))
    }

    pub fn as_json(&self, host: &str) -> Value {
        let checks = |findings: &[Finding]| findings.iter().map(Finding::as_json).collect::<Vec<_>>();
        let app = |(name, findings): &(String, Vec<Finding>)| json!({ "app": name, "checks": checks(findings) });
        let apps: Vec<Value> = self.apps.iter().map(app).collect();
        let host_checks = checks(&self.host);
        json!({ "schema": 1, "name": host, "host": host_checks, "apps": apps, "exit": self.exit() })
    }

    pub fn as_text(&self, host: &str, paint: Paint) -> String {
        let width = self.all().map(|finding| finding.check.len()).max().unwrap_or(0);
        let mut text = String::new();
        let hosts = (!self.host.is_empty()).then_some((host, &self.host));
        let apps = self.apps.iter().map(|(name, findings)| (name.as_str(), findings));
        for (name, findings) in hosts.into_iter().chain(apps) {
            text.push_str(&format!("{}\n", printable(name)));
            findings.iter().for_each(|finding| text.push_str(&lines(finding, width, paint)));
            text.push('\n');
        }
        text + &self.summary() + "\n"
    }

    fn summary(&self) -> String {
        let failed = self.all().filter(|finding| finding.is_failed()).count();
        let warnings = self.all().filter(|finding| finding.verdict == Verdict::Warning).count();
        match (failed, warnings) {
            (0, 0) => "all is well".to_owned(),
            (0, _) => format!("no problem, {}", plural(warnings, "warning")),
            (_, 0) => plural(failed, "problem"),
            _ => format!("{}, {}", plural(failed, "problem"), plural(warnings, "warning")),
        }
    }
}

/// Whether marks have a colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paint {
    Colour,
    Plain,
}

impl Paint {
    pub fn of_standard_output() -> Paint {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
            && std::env::var_os("TERM").is_some_and(|term| term != "dumb");
        if wanted && std::io::stdout().is_terminal() { Paint::Colour } else { Paint::Plain }
    }
}

fn lines(finding: &Finding, width: usize, paint: Paint) -> String {
    let (mark, colour) = match finding.verdict {
        Verdict::Ok => ("✓", "\x1b[32m"),
        Verdict::Warning => ("!", "\x1b[33m"),
        Verdict::Failed(_) => ("✗", "\x1b[31m"),
    };
    let mark = if paint == Paint::Colour { format!("{colour}{mark}\x1b[0m") } else { mark.to_owned() };
    let mut said = finding.text.lines().map(printable);
    let mut text =
        format!("  {mark} {:<width$}  {}\n", finding.check.replace('_', " "), said.next().unwrap_or_default());
    let indent = " ".repeat(width + 6);
    for line in said.chain(finding.fix.iter().flat_map(|fix| fix.lines()).map(printable)) {
        text.push_str(format!("{indent}{line}").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_counts_and_warnings_do_not_decide_the_exit_code() {
        let problem = |class| Finding::failed("x", class, "bad");
        for (host, app, summary, exit) in [
            (vec![Finding::ok("x", "")], vec![], "all is well", 0),
            (vec![Finding::warning("x", "")], vec![], "no problem, 1 warning", 0),
            (vec![problem(Class::Io)], vec![Finding::warning("x", "")], "1 problem, 1 warning", 74),
            (vec![problem(Class::Deploy)], vec![problem(Class::Unreachable)], "2 problems", 1),
            (vec![problem(Class::Unreachable)], vec![problem(Class::Config)], "2 problems", 78),
        ] {
            let report = Report { host, apps: vec![("a".to_owned(), app)] };
            assert_eq!((report.summary().as_str(), report.exit()), (summary, exit));
        }
    }

    #[test]
    fn what_is_quoted_stays_below_its_line_and_obeys_no_terminal() {
        let finding = Finding::failed("config", Class::Config, "a:1: bad\x1b[2J\n  |\n1 | x").fix("mend it");
        let text = lines(&finding, 8, Paint::Plain);
        assert_eq!(
            text,
            "  ✗ config    a:1: bad\\u{1b}[2J\n                |\n              1 | x\n              mend it\n"
        );
    }
}
