use super::*;

fn sample(app: &str, commit: &str, state: &'static str) -> Sample {
    Sample {
        app: app.into(),
        occasion: Occasion::Poll,
        commit: Some(commit.into()),
        reference: Some("refs/heads/a\"b\\".into()),
        state: Some(state),
        outcome: "deployed",
        polled: true,
        deploy: Some(("deployed", 1.5)),
        git_operations: 2,
        git_errors: 0,
    }
}

fn after(before: &str, samples: &[Sample], now: f64) -> String {
    let mut told = parse(before);
    samples.iter().for_each(|sample| told.take(sample, now));
    render(&told)
}

#[track_caller]
fn has(text: &str, line: &str) {
    assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
}

#[test]
fn counters_go_on_and_other_apps_keep_their_lines() {
    let first = after("", &[sample("a", "1", "ok"), sample("b", "2", "ok")], 10.0);
    let second = after(&first, &[sample("a", "3", "failed")], 20.0);
    for line in [
        "poller_polls_total{app=\"a\",outcome=\"deployed\"} 2",
        "poller_polls_total{app=\"b\",outcome=\"deployed\"} 1",
        "poller_app_info{app=\"a\",commit=\"3\",ref=\"refs/heads/a\\\"b\\\\\",state=\"failed\"} 1",
        "poller_app_state{app=\"a\",state=\"ok\"} 0",
        "poller_app_state{app=\"a\",state=\"failed\"} 1",
        "poller_last_poll_timestamp_seconds{app=\"b\"} 10",
        "poller_last_deploy_duration_seconds{app=\"b\"} 1.5",
        "poller_git_operations_total 6",
    ] {
        has(&second, line);
    }
    assert!(!second.contains("commit=\"1\""));
    assert_eq!(second.matches("# TYPE poller_polls_total counter").count(), 1);
    assert_eq!(render(&parse(&second)), second, "what is written is read");
}

#[test]
fn an_operators_command_is_no_poll() {
    let before = after("", &[sample("a", "1", "ok")], 10.0);
    let command = Sample { occasion: Occasion::Command, git_operations: 0, ..sample("a", "0", "frozen") };
    let text = after(&before, &[command], 20.0);
    for line in [
        "poller_polls_total{app=\"a\",outcome=\"deployed\"} 1",
        "poller_last_poll_timestamp_seconds{app=\"a\"} 10",
        "poller_last_poll_success_timestamp_seconds{app=\"a\"} 10",
        "poller_deploys_total{app=\"a\",outcome=\"deployed\"} 2",
        "poller_last_deploy_timestamp_seconds{app=\"a\"} 20",
        "poller_app_state{app=\"a\",state=\"frozen\"} 1",
    ] {
        has(&text, line);
    }
}

#[test]
fn exactly_one_state_is_one_whatever_the_file_said() {
    let unknown = Sample { state: None, commit: None, reference: None, deploy: None, ..sample("a", "", "ok") };
    let two = "poller_app_state{app=\"a\",state=\"ok\"} 1\npoller_app_state{app=\"a\",state=\"failed\"} 1\n";
    for (before, state) in [("", "new"), (two, "failed")] {
        let text = after(before, std::slice::from_ref(&unknown), 1.0);
        let states: Vec<&str> = text.lines().filter(|line| line.starts_with("poller_app_state")).collect();
        assert_eq!(states.len(), STATES.len(), "{text}");
        assert_eq!(states.iter().filter(|line| line.ends_with(" 1")).count(), 1, "{text}");
        has(&text, &format!("poller_app_state{{app=\"a\",state=\"{state}\"}} 1"));
        has(&text, &format!("poller_app_info{{app=\"a\",commit=\"\",ref=\"\",state=\"{state}\"}} 1"));
    }
}

#[test]
fn rubbish_in_the_file_is_passed_over() {
    let polls = "poller_polls_total{app=\"a\",outcome=\"deployed\"}";
    for value in ["NaN", "inf", "+Inf", "-1", "1e300", "1e999", "", "1 1700000000000", "0x10"] {
        has(&after(&format!("{polls} {value}\n"), &[sample("a", "1", "ok")], 1.0), &format!("{polls} 1"));
    }
    for line in [
        "poller_polls_total{outcome=\"deployed\",app=\"a\"} 7",
        "poller_polls_total{app=\"a\"} 7",
        "poller_polls_total{app=\"a\",outcome=\"x} 7",
        "poller_polls_total{app=\"a\",outcome=\"x\",more=\"y\"} 7",
        "poller_polls_total{app=\"\",outcome=\"x\"} 7",
        "poller_polls_total 7",
        "poller_polls_total{app=\"a\\n\",outcome=\"x\"} 7",
        "poller_git_errors_total{app=\"a\"} 7",
        "poller_something_else 7",
        "node_load1 7",
        "poller_app_state{app=\"a\",state=\"splendid\"} 1",
        "{} 7",
        " 7",
        "\u{fffd}\u{0} 7",
    ] {
        let text = after(line, &[], 1.0);
        assert!(!text.contains('7') && !text.contains("splendid"), "{line} came through:\n{text}");
    }
    // Half of a counter is no count.
    has(&after(&format!("{polls} 2.5\n"), &[sample("a", "1", "ok")], 1.0), &format!("{polls} 3"));
}

#[test]
fn the_rules_and_the_dashboard_name_every_metric_and_none_that_there_is_not() {
    let rules = include_str!("../../../packaging/prometheus/poller.rules.yml");
    let dashboard = include_str!("../../../packaging/grafana/poller.json");
    let in_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let names = |text: &str| -> BTreeSet<String> {
        text.split(|c| !in_word(c)).filter(|word| word.starts_with("poller_")).map(str::to_owned).collect()
    };
    let own: BTreeSet<String> = FAMILIES.iter().map(|(name, ..)| (*name).to_owned()).collect();
    for (what, text) in [("rules", rules), ("dashboard", dashboard)] {
        let strange: Vec<String> = names(text).difference(&own).cloned().collect();
        assert!(strange.is_empty(), "the {what} name what is not written: {strange:?}");
    }
    let used: BTreeSet<String> = names(rules).union(&names(dashboard)).cloned().collect();
    assert_eq!(used, own, "each metric has a place where it is looked at");
}

#[test]
fn the_rules_and_the_dashboard_name_only_states_that_there_are() {
    let rules = include_str!("../../../packaging/prometheus/poller.rules.yml");
    let dashboard = include_str!("../../../packaging/grafana/poller.json").replace("\\\"", "\"");
    for text in [rules, dashboard.as_str()] {
        for part in text.split("state=").skip(1).filter_map(|rest| rest.trim_start_matches('~').strip_prefix('"')) {
            let words = part.split('"').next().unwrap_or_default();
            for word in words.split('|') {
                assert!(STATES.contains(&word), "there is no state `{word}`");
            }
        }
    }
}
