//! Notifications: who is told what, and how often.

use std::fs;

use serde_json::Value;

use crate::support::http::{Http, Request};
use crate::support::{World, file, put_exec, seconds, set_mode};

/// Where the secret of a URL is.
pub const HOOK: &str = "/hook/s3cret";

pub fn with_url(name: &str, http: &Http, more: &str) -> World {
    let world = World::new(name);
    world.write_host_config(&format!("[notify]\nurl = \"{}\"\n{more}", http.url(HOOK)));
    world
}

fn with_ping(name: &str, http: &Http, more: &str) -> World {
    let world = World::new(name);
    world.write_host_config(&format!("[notify]\nping = \"{}\"\n{more}", http.url("/ping/s3cret?create=1")));
    world
}

pub fn events(requests: &[Request]) -> Vec<String> {
    requests.iter().map(|r| r.json()["event"].as_str().unwrap().to_owned()).collect()
}

fn push_bad(world: &World, output: &str) -> String {
    world.push(&[("deploy.sh", world.script(&format!("echo {output}; exit 3")))], output)
}

/// Deploys one more commit, and pushes another in its place.
fn rewrite_history(world: &World, first: &str) {
    world.push(&[("deploy.sh", world.script("")), ("index.html", file("two\n"))], "second");
    world.poll(&[]).expect(0);
    world.repo.rewind_to(first);
    world.repo.commit(&[("index.html", file("other\n"))], "another second");
    world.repo.force_push();
}

fn run_ids(world: &World) -> Vec<String> {
    world.events("run.started").iter().map(|line| line["run"].as_str().unwrap().to_owned()).collect()
}

/// Nothing in the log or the report gives the secret part of a URL away.
#[track_caller]
pub fn expect_secret_kept(world: &World, said: &str) {
    let log = fs::read_to_string(world.log_file()).unwrap();
    assert!(!log.contains("s3cret") && !said.contains("s3cret"), "{log}\n{said}");
}

#[track_caller]
pub fn expect_undelivered(world: &World, why: &str) -> Value {
    let failed = world.events("notify.failed");
    let found = failed.iter().find(|line| line["error"].as_str().unwrap().contains(why));
    let found = found.unwrap_or_else(|| panic!("no {why:?} in {failed:#?}"));
    assert_eq!(found["level"], "warn");
    found.clone()
}

#[test]
fn a_run_is_announced_and_its_end_told_with_the_same_id() {
    let http = Http::start();
    let world = with_ping("ping", &http, "");
    world.deployed();
    push_bad(&world, "secret output");
    world.poll(&["site"]).expect(1);
    let requests = http.take();
    let lines: Vec<_> = requests.iter().map(|r| format!("{} {}", r.method, r.path)).collect();
    let runs = run_ids(&world);
    assert_eq!(
        lines,
        [
            format!("POST /ping/s3cret/start?create=1&rid={}", runs[0]),
            format!("POST /ping/s3cret?create=1&rid={}", runs[0]),
            format!("POST /ping/s3cret/start?create=1&rid={}", runs[1]),
            format!("POST /ping/s3cret/fail?create=1&rid={}", runs[1]),
        ]
    );
    assert!(requests.iter().all(|r| r.body.is_empty()), "output only when asked for: {requests:?}");
    expect_secret_kept(&world, "");
    world.expect_no_processes();
}

#[test]
fn the_end_of_the_output_goes_with_a_failed_ping_where_asked_for() {
    let http = Http::start();
    let world = with_ping("ping output", &http, "ping_output = true");
    world.deployed();
    push_bad(&world, "the database is away");
    world.poll(&[]).expect(1);
    let requests = http.take();
    let last = requests.last().unwrap();
    assert!(last.path.contains("/fail?"), "{last:?}");
    assert!(last.body.contains("the database is away") && last.body.contains("site: "), "{last:?}");
    assert!(requests[..3].iter().all(|r| r.body.is_empty()));
}

#[test]
fn a_run_that_is_told_to_stop_says_that_it_failed_and_of_which_run() {
    let http = Http::start();
    let world = with_ping("ping stop", &http, "");
    world.app("site").deploy("script = [\"/bin/sleep\", \"30\"]").write();
    world.push(&[("index.html", file("one\n"))], "first");
    let running = world.spawn_poll(&[]);
    world.wait_for_script("/bin/sleep 30");
    running.signal(nix::sys::signal::Signal::SIGTERM);
    running.wait().expect(1);
    let run = &run_ids(&world)[0];
    let expected = ["/start", "/fail"].map(|what| format!("POST /ping/s3cret{what}?create=1&rid={run}"));
    assert_eq!(http.take_lines(), expected);
}

#[test]
fn a_run_that_finds_another_at_work_pings_too() {
    let http = Http::start();
    let world = with_ping("ping busy", &http, "");
    world.app("site").deploy("script = [\"/bin/sleep\", \"3\"]").write();
    world.push(&[("index.html", file("one\n"))], "first");
    let first = world.spawn_poll(&[]);
    world.wait_for_script("/bin/sleep 3");
    world.poll(&[]).expect(75).silent();
    first.wait().expect(0);
    let lines = http.take_lines();
    assert_eq!(lines.len(), 4, "{lines:?}");
    assert!(lines.iter().all(|line| !line.contains("/fail")), "{lines:?}");
}

#[test]
fn a_failure_is_told_once_and_again_when_it_changes_and_when_it_ends() {
    let http = Http::start();
    let world = with_url("news", &http, "");
    let first = world.deployed();
    assert!(http.take().is_empty(), "a deploy is not told unless asked for");
    let bad = push_bad(&world, "boom");
    for _ in 0..3 {
        world.poll(&[]).expect_one_of(&[0, 1]);
    }
    let requests = http.take();
    assert_eq!(events(&requests), ["failed"]);
    let news = requests[0].json();
    assert_eq!((requests[0].method.as_str(), requests[0].path.as_str()), ("POST", HOOK));
    assert_eq!(requests[0].header("content-type"), Some("application/json"));
    for (field, value) in [
        ("host", "testhost"),
        ("app", "site"),
        ("outcome", "failed"),
        ("commit", &bad),
        ("previous", &first),
        ("ref", "refs/heads/main"),
        ("run", &run_ids(&world)[1]),
        ("output", "boom"),
    ] {
        assert_eq!(news[field], value, "{field} in {news:#}");
    }
    assert_eq!((&news["schema"], &news["still"]), (&1.into(), &false.into()));
    assert!(news["message"].as_str().unwrap().contains("exited with status 3"), "{news:#}");
    assert!(news["help"].is_array() && news["since"].is_string() && news["time"].is_string());

    let pretty = format!("{news:#}\n").replace(&http.port.to_string(), "8000");
    world.screen("notify-json", "what `command` and `url` are told", &pretty);

    let worse = push_bad(&world, "worse");
    world.poll(&[]).expect(1);
    let requests = http.take();
    assert_eq!(events(&requests), ["failed"], "another failure");
    assert_eq!(requests[0].json()["commit"], worse.as_str());

    let good = world.push(&[("deploy.sh", world.script(""))], "good");
    world.poll(&[]).expect(0).silent();
    world.poll(&[]).expect(0).silent();
    let requests = http.take();
    assert_eq!(events(&requests), ["recovered"]);
    let news = requests[0].json();
    assert_eq!((&news["commit"], &news["outcome"]), (&good.as_str().into(), &"deployed".into()));
    assert!(news["message"].as_str().unwrap().contains("well again"), "{news:#}");
    assert_eq!(world.events("notify.sent").len(), 3);
    expect_secret_kept(&world, "");
}

#[test]
fn a_failure_that_lasts_is_told_again_after_a_day() {
    let http = Http::start();
    let mut world = with_url("news daily", &http, "");
    world.deployed();
    world.sshd.stop();
    world.poll(&[]).expect(69);
    world.poll(&[]).expect(69);
    assert_eq!(events(&http.take()), ["failed"]);
    // What was reported is remembered in the lock file; there it becomes older than a day.
    let file = world.run_dir().join("site.lock");
    let text = fs::read_to_string(&file).unwrap();
    let mut content: toml::Table = text.parse().unwrap();
    let reported = content["reported"].as_table_mut().unwrap();
    for time in ["since", "at"] {
        reported.insert(time.into(), "2026-01-02T03:04:05Z".into());
    }
    fs::write(&file, content.to_string()).unwrap();
    world.poll(&[]).expect(69).says("still");
    world.poll(&[]).expect(69).silent();
    let requests = http.take();
    assert_eq!(events(&requests), ["failed"]);
    let news = requests[0].json();
    assert_eq!((&news["still"], &news["since"]), (&true.into(), &"2026-01-02T03:04:05Z".into()));
}

#[test]
fn deploys_and_refusals_are_told_where_asked_for() {
    let http = Http::start();
    let world = with_url("news on", &http, "on = [\"deployed\", \"refused\"]");
    let first = world.deployed();
    let requests = http.take();
    assert_eq!(events(&requests), ["deployed"]);
    assert_eq!(
        (&requests[0].json()["commit"], &requests[0].json()["previous"]),
        (&first.as_str().into(), &Value::Null)
    );
    push_bad(&world, "boom");
    world.poll(&[]).expect(1);
    assert!(http.take().is_empty(), "failures were not asked for");
    rewrite_history(&world, &first);
    http.take();
    world.poll(&[]).expect(77);
    assert_eq!(events(&http.take()), ["refused"]);
}

#[test]
fn a_refusal_is_not_told_unless_asked_for_and_neither_is_its_end() {
    let http = Http::start();
    let world = with_url("news refused", &http, "");
    let first = world.deployed();
    rewrite_history(&world, &first);
    world.poll(&[]).expect(77);
    world.app("site").verify("allow_rewind = true").write();
    world.poll(&[]).expect(0);
    assert_eq!(http.take_lines(), [""; 0]);
}

#[test]
fn a_command_finds_the_news_on_its_input_as_the_fetch_user() {
    let world = World::new("command");
    let (program, seen) = (world.path("bin/tell-us"), world.path("seen"));
    fs::create_dir(&seen).unwrap();
    world.fetcher.own(&seen);
    let text = format!(
        "#!/bin/sh\ncd '{0}'; cat > news; cat /dev/stdin > again; cmp news again; id -u > user; env | sort > env; pwd > pwd\n\
         grep NoNewPrivs /proc/self/status > privileges; echo told \"$1\"; n=0\n\
         while [ $n -lt 300 ]; do n=$((n+1)); echo line $n; done\n",
        seen.display()
    );
    put_exec(&program, &text);
    set_mode(&world.path("bin"), 0o755);
    world.write_host_config(&format!("[notify]\ncommand = [\"{}\", \"a b\"]\non = [\"deployed\"]", program.display()));
    let first = world.deployed();
    let read = |name: &str| fs::read_to_string(seen.join(name)).unwrap();
    let news: Value = serde_json::from_str(&read("news")).unwrap();
    assert_eq!((&news["event"], &news["commit"]), (&"deployed".into(), &first.as_str().into()));
    assert_eq!(read("user").trim(), world.fetcher.uid.to_string());
    assert!(read("privileges").ends_with("1\n"), "{}", read("privileges"));
    let environment = read("env");
    for line in ["POLLER_EVENT=deployed", "POLLER_APP=site", "POLLER_HOST=testhost", "LANG=C.UTF-8"] {
        assert!(environment.lines().any(|l| l == line), "{line} in {environment}");
    }
    assert!(!environment.contains("HOME=") && !environment.contains("USER="), "{environment}");
    let said = world.events("notify.output");
    assert_eq!(said[0]["msg"], "told a b");
    assert_eq!(said.len(), 101, "bounded");
    assert_eq!(said[100]["msg"], "… 201 lines left out …");
}

#[test]
fn a_command_that_hangs_is_ended_with_all_it_started() {
    let world = World::new("command hangs");
    let program = world.path("bin/tell-us");
    put_exec(&program, "#!/bin/sh\nsetsid sleep 300 &\nsleep 300\n");
    set_mode(&world.path("bin"), 0o755);
    world.write_host_config(&format!("[notify]\ncommand = \"{}\"\non = [\"deployed\"]", program.display()));
    world.app("site").write();
    world.push(&[("deploy.sh", world.script(""))], "first");
    world.poll(&[]).expect(0).silent().within(seconds(40));
    expect_undelivered(&world, "ran longer than its 10s and was ended");
    world.expect_no_processes();
}

#[test]
fn a_command_that_others_could_have_written_is_not_run() {
    let world = World::new("command trust");
    let (program, ran) = (world.path("bin/tell-us"), world.path("ran"));
    put_exec(&program, &format!("#!/bin/sh\ntouch '{}'\n", ran.display()));
    set_mode(&world.path("bin"), 0o755);
    set_mode(&program, 0o757);
    world.write_host_config(&format!("[notify]\ncommand = \"{}\"\non = [\"deployed\"]", program.display()));
    world.deployed();
    expect_undelivered(&world, &program.display().to_string());
    assert!(!ran.exists());
    fs::remove_file(&program).unwrap();
    world.push(&[("index.html", file("two\n"))], "second");
    world.poll(&[]).expect(0).silent();
    expect_undelivered(&world, "No such file");
}

#[test]
fn a_broken_file_of_an_app_is_told_like_any_failure() {
    let http = Http::start();
    let world = with_url("news broken", &http, "");
    world.write_etc("apps.d/site.toml", "[source]\nurl = 3\n");
    world.poll(&[]).expect(78);
    world.poll(&[]).expect(78);
    let requests = http.take();
    assert_eq!(events(&requests), ["failed"]);
    assert_eq!((&requests[0].json()["outcome"], &requests[0].json()["commit"]), (&"config".into(), &Value::Null));
}
