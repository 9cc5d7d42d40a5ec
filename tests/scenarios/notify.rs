//! Notifications: who is told what, how often, and that nobody who is told can hold up a deploy.

use std::fs;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::http::{Http, Reply, Request};
use crate::support::processes::{command_line, environment, helpers_of, status_field};
use crate::support::tls::TlsServer;
use crate::support::{World, file, put_exec, seconds, set_mode, wait_until};

/// Where the secret of a URL is.
const HOOK: &str = "/hook/s3cret";

fn with_url(name: &str, http: &Http, more: &str) -> World {
    let world = World::new(name);
    world.write_host_config(&format!("[notify]\nurl = \"{}\"\n{more}", http.url(HOOK)));
    world
}

fn with_ping(name: &str, http: &Http, more: &str) -> World {
    let world = World::new(name);
    world.write_host_config(&format!("[notify]\nping = \"{}\"\n{more}", http.url("/ping/s3cret?create=1")));
    world
}

fn events(requests: &[Request]) -> Vec<String> {
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
fn expect_secret_kept(world: &World, said: &str) {
    let log = fs::read_to_string(world.log_file()).unwrap();
    assert!(!log.contains("s3cret") && !said.contains("s3cret"), "{log}\n{said}");
}

#[track_caller]
fn expect_undelivered(world: &World, why: &str) -> Value {
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
fn a_webhook_that_hangs_or_drips_holds_up_nothing_for_long() {
    let http = Http::start();
    let world = with_url("hook hangs", &http, "on = [\"deployed\"]");
    http.next(&[Reply::Hang, Reply::Drip]);
    world.app("site").write();
    world.app("other").write();
    let commit = world.push(&[("deploy.sh", world.script(""))], "next");
    world.poll(&[]).expect(0).silent().within(seconds(45));
    assert_eq!(world.recorded("site"), Some(commit));
    let line = expect_undelivered(&world, "did not answer within 10s");
    assert!(line["msg"].as_str().unwrap().contains(&format!("http://127.0.0.1:{}/…", http.port)), "{line}");
    assert_eq!(http.take().len(), 2, "two attempts, and no more for the other app");
    expect_undelivered(&world, "dropped: nothing came back before");
    expect_secret_kept(&world, "");
    world.expect_no_processes();
}

#[test]
fn whoever_speaks_http_is_the_fetch_user_with_nothing_but_the_way_out_in_its_environment() {
    // Others may not even look at it.
    needs_root!();
    let http = Http::start();
    let world = with_url("caller", &http, "on = [\"deployed\"]");
    http.always(Reply::Hang);
    world.app("site").write();
    world.push(&[("deploy.sh", world.script(""))], "first");
    let mut command = world.command(&[]);
    command.env("no_proxy", "localhost").env("SECRET", "x").env("SSL_CERT_FILE", "/etc/hosts");
    let running = world.spawn(command);
    wait_until("the POST", seconds(20), || !http.take().is_empty());
    let helpers = helpers_of(running.pid());
    let caller = helpers.into_iter().find(|pid| command_line(*pid).contains("_caller")).expect("a caller");
    let uid = world.fetcher.uid.to_string();
    assert_eq!(status_field(caller, "Uid").split_whitespace().collect::<Vec<_>>(), vec![uid.as_str(); 4]);
    assert_eq!((status_field(caller, "NoNewPrivs"), status_field(caller, "CapEff")), ("1".into(), "0".repeat(16)));
    assert!(!command_line(caller).contains("s3cret"));
    let names: Vec<_> = environment(caller).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["HOME", "LANG", "PATH", "SSL_CERT_FILE", "USER", "no_proxy"]);
}

#[test]
fn a_process_is_started_for_it_only_where_there_is_something_to_say() {
    needs_program!("strace");
    let http = Http::start();
    let world = World::new("processes");
    world.deployed();
    let helpers = || {
        let trace = world.path("trace");
        let plain = world.command(&[]);
        let mut traced = std::process::Command::new("/usr/bin/strace");
        traced.args(["-f", "-qq", "-e", "trace=execve", "-o"]).arg(&trace).arg(plain.get_program());
        traced.args(plain.get_args()).env_clear().env("PATH", "/usr/bin:/bin").env("HOME", "/").current_dir("/");
        world.spawn(traced).wait().expect(0).silent();
        let text = fs::read_to_string(&trace).unwrap();
        let words = text.lines().filter_map(|line| line.split('"').find(|word| word.starts_with('_')));
        words.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(helpers(), ["_prober"]);
    world.write_host_config(&format!("[notify]\nurl = \"{0}\"\ncommand = \"/bin/true\"", http.url(HOOK)));
    assert_eq!(helpers(), ["_prober"]);
    world.write_host_config(&format!("[notify]\nping = \"{}\"", http.url(HOOK)));
    assert_eq!(helpers(), ["_caller", "_prober"]);
}

#[test]
fn while_a_webhook_hangs_the_next_run_finds_the_locks_free() {
    let http = Http::start();
    let world = with_url("hook locks", &http, "on = [\"deployed\"]");
    http.always(Reply::Hang);
    world.app("site").write();
    world.push(&[("deploy.sh", world.script(""))], "first");
    let running = world.spawn_poll(&[]);
    wait_until("the POST", seconds(20), || !http.take().is_empty());
    world.poll(&[]).expect(0).silent();
    // Not waited for: it takes as long as in the test above.
    drop(running);
}

#[test]
fn a_stop_shortens_the_wait() {
    let http = Http::start();
    let world = with_url("hook stop", &http, "on = [\"deployed\"]");
    http.always(Reply::Hang);
    world.app("site").write();
    world.push(&[("deploy.sh", world.script(""))], "first");
    let running = world.spawn_poll(&[]);
    wait_until("the POST", seconds(20), || !http.take().is_empty());
    running.signal(Signal::SIGTERM);
    running.wait().expect(0).within(seconds(20));
    assert_eq!(http.take().len(), 0, "no second attempt");
}

#[test]
fn an_error_that_passes_is_tried_again() {
    let http = Http::start();
    let world = with_url("hook 500", &http, "on = [\"deployed\"]");
    http.next(&[Reply::Status(500)]);
    world.deployed();
    assert_eq!(events(&http.take()), ["deployed", "deployed"]);
    assert_eq!((world.events("notify.failed").len(), world.events("notify.sent").len()), (0, 1));
}

#[test]
fn a_webhook_that_redirects_is_a_mistake_to_be_told() {
    let (http, elsewhere) = (Http::start(), Http::start());
    let world = with_url("hook redirect", &http, "on = [\"deployed\"]");
    http.always(Reply::Redirect(elsewhere.url(HOOK)));
    world.deployed();
    expect_undelivered(&world, &format!("it redirects to http://127.0.0.1:{}/… (308): write that URL", elsewhere.port));
    assert_eq!((http.take().len(), elsewhere.take().len()), (1, 0));
    expect_secret_kept(&world, "");
}

#[test]
fn a_webhook_that_is_not_there_fails_no_deploy_and_a_terminal_says_so() {
    let world = World::new("hook gone");
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let urls = format!("url = \"http://127.0.0.1:{free}{HOOK}\"\nping = \"http://127.0.0.1:{free}/s3cret\"");
    world.write_host_config(&format!("[notify]\n{urls}\non = [\"deployed\"]"));
    world.deployed();
    world.push(&[("index.html", file("two\n"))], "second");
    let outcome = world.poll_on_terminal(&[]).expect(0).says("connection refused").says("was not delivered to");
    expect_undelivered(&world, "connection refused");
    expect_secret_kept(&world, &outcome.stderr);
    let shown = outcome.stderr.replace(&free.to_string(), "9000");
    let plain = ["\u{1b}[2m", "\u{1b}[32m", "\u{1b}[0m"].iter().fold(shown, |text, code| text.replace(code, ""));
    world.screen("notify-terminal", "poller", &plain);
}

#[test]
fn a_certificate_of_nobody_known_is_refused_until_its_authority_is_named() {
    needs_program!("openssl");
    let world = World::new("tls");
    let mut server = TlsServer::start(&world, "IP:127.0.0.1", "30");
    world.write_host_config(&format!("[notify]\nurl = \"{}\"\non = [\"deployed\"]", server.url(HOOK)));
    world.deployed();
    expect_undelivered(&world, "an authority that this machine does not trust");
    assert!(!server.heard().contains("POST"), "nothing was said to a stranger");
    world.push(&[("index.html", file("two\n"))], "second");
    server.answer();
    let mut command = world.command(&[]);
    command.env("SSL_CERT_FILE", &server.authority);
    world.spawn(command).wait().expect(0);
    assert!(
        server.heard().contains("\"event\":\"deployed\""),
        "{}\n{:#?}",
        server.heard(),
        world.events("notify.failed")
    );
    assert_eq!(world.events("notify.sent").len(), 1);
}

#[test]
fn a_certificate_for_another_name_or_from_another_time_is_refused() {
    needs_program!("openssl");
    for (name, days, why) in [
        ("DNS:other.example.org", "30", "its certificate is for another name"),
        ("IP:127.0.0.1", "-1", "its certificate has expired"),
    ] {
        let world = World::new("tls wrong");
        let server = TlsServer::start(&world, name, days);
        world.write_host_config(&format!("[notify]\nurl = \"{}\"\non = [\"deployed\"]", server.url(HOOK)));
        world.app("site").write();
        world.push(&[("deploy.sh", world.script(""))], "first");
        let mut command = world.command(&[]);
        command.env("SSL_CERT_FILE", &server.authority);
        world.spawn(command).wait().expect(0).silent();
        expect_undelivered(&world, why);
        assert!(!server.heard().contains("POST"));
    }
}

#[test]
fn the_proxy_of_the_environment_is_used_and_its_exceptions_hold() {
    let proxy = Http::start();
    let world = World::new("proxy");
    world.write_host_config(&format!("[notify]\nurl = \"http://hooks.invalid{HOOK}\"\non = [\"deployed\"]"));
    world.app("site").write();
    world.push(&[("deploy.sh", world.script(""))], "first");
    let with_proxy = |except: &str| {
        let mut command = world.command(&[]);
        command.env("http_proxy", proxy.url("")).env("no_proxy", except);
        world.spawn(command).wait().expect(0).silent();
    };
    with_proxy("");
    let requests = proxy.take();
    assert_eq!((requests[0].method.as_str(), requests[0].path.as_str()), ("CONNECT", "hooks.invalid:80"));
    assert_eq!(requests[1].json()["event"], "deployed");
    world.push(&[("index.html", file("two\n"))], "second");
    with_proxy("example.org, invalid");
    assert!(proxy.take().is_empty());
    assert_eq!(world.events("notify.failed").len(), 1, "there is no host of that name");
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
