//! Screens of polls and dry runs, and those that no other group shows.

use crate::support::{World, file};

#[test]
fn a_poll_on_a_terminal_as_json_and_as_mail() {
    needs_root!();
    let world = World::new("screens poll");
    world.app("site").deploy("retries = 2").write();
    let say = |text: &str, code: u8| world.script(&format!("echo {text}; exit {code}"));
    world.push(&[("deploy.sh", say("checked", 0)), ("index.html", file("one\n"))], "Say hello");
    let first = world.poll(&["--json"]).expect(0);
    world.screen("poll-json", "poller --json", &first.stdout);
    world.push(&[("deploy.sh", say("\"no greeting, no deploy\"", 1))], "Say nothing");
    let failed = world.poll_on_terminal(&[]).expect(1);
    world.screen("poll-failing", "poller", &failed.stderr);
    // Told on the terminal already; what cron mails is the next failure.
    let mailed = world.poll(&[]).expect(1);
    world.screen("mail", "poller", &mailed.stderr);
    let waiting = world.poll_on_terminal(&[]).expect(0);
    world.screen("poll-broken", "poller", &waiting.stderr);
}

#[test]
fn a_dry_run_on_a_terminal_as_json_and_of_what_would_be_refused() {
    needs_root!();
    let world = World::new("screens dry run");
    let first = world.deployed();
    world.push(&[("index.html", file("two\n"))], "Greet twice");
    let shown = world.poll(&["--dry-run", "site"]).expect(0);
    world.screen("dry-run-terminal", "poller --dry-run site", &shown.stdout);
    let json = world.poll(&["--dry-run", "--json", "site"]).expect(0);
    world.screen("dry-run-json", "poller --dry-run --json site", &json.stdout);
    world.poll(&[]).expect(0);
    world.repo.rewind_to(&first);
    world.repo.commit(&[("index.html", file("another\n"))], "Start over");
    world.repo.force_push();
    let refused = world.poll(&["--dry-run", "site"]).expect(77);
    world.screen("dry-run-refused", "poller --dry-run site", &refused.stdout);
}

#[test]
fn unfreeze_as_json_and_apps_that_are_not_there() {
    needs_root!();
    let world = World::new("screens rest");
    world.deployed();
    world.poll(&["freeze", "site", "--reason", "audit"]).expect(0);
    let json = world.poll(&["unfreeze", "site", "--json"]).expect(0);
    world.screen("unfreeze-json", "poller unfreeze site --json", &json.stdout);
    let unknown = world.poll(&["unfreeze", "sit"]).expect(64);
    world.screen("unfreeze-unknown-app", "poller unfreeze sit", &unknown.stderr);
    let unknown = world.poll(&["history", "blog"]).expect(64);
    world.screen("history-unknown-app", "poller history blog", &unknown.stderr);
}
