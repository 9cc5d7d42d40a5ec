//! Delivering notifications: servers that hang, redirect or are not who they say, proxies, and that none
//! of them can hold up a deploy.

use std::collections::BTreeSet;
use std::fs;

use nix::sys::signal::Signal;

use crate::notify::{HOOK, events, expect_secret_kept, expect_undelivered, with_url};
use crate::support::http::{Http, Reply};
use crate::support::processes::{command_line, environment, helpers_of, status_field};
use crate::support::tls::TlsServer;
use crate::support::{World, file, seconds, wait_until};

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
        // Whichever comes first.
        words.map(str::to_owned).collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>()
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
