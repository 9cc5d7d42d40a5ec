//! The health check by URL: what counts as well, how long it may take, and what a failed one says.

use crate::support::http::{Http, Reply};
use crate::support::{World, exec, file, seconds};

const QUICK: &str = "attempts = 3\ninterval = \"100ms\"\ntimeout = \"5s\"";

fn world_with_health(name: &str, http: &Http, more: &str) -> World {
    let world = World::new(name);
    let url = format!("url = \"{}\"", http.url("/healthz?key=secret"));
    world.app("site").health(&url).health(QUICK).health(more).write();
    world
}

#[test]
fn an_app_that_answers_200_is_deployed() {
    let http = Http::start();
    let world = world_with_health("health url", &http, "");
    let first = world.deployed_as_configured();
    let requests = http.take();
    assert_eq!(requests.len(), 1, "{requests:?}");
    assert_eq!((requests[0].method.as_str(), requests[0].path.as_str()), ("GET", "/healthz?key=secret"));
    assert!(requests[0].header("user-agent").unwrap().starts_with("poller/"));
    assert_eq!(world.recorded("site"), Some(first));
    assert!(world.events("health.answered")[0]["msg"].as_str().unwrap().ends_with("answered 200"));
    world.poll(&[]).expect(0).silent();
    assert_eq!(http.take_lines(), [""; 0], "an unchanged poll asks nobody");
    world.expect_no_processes();
}

#[test]
fn an_app_that_needs_a_moment_is_asked_again() {
    let http = Http::start();
    http.next(&[Reply::Status(503), Reply::Close]);
    let world = world_with_health("health moment", &http, "");
    world.deployed_as_configured();
    assert_eq!(http.take().len(), 3);
}

#[test]
fn an_app_that_stays_sick_is_put_back_and_the_report_says_what_came_back() {
    let http = Http::start();
    let world = world_with_health("health sick", &http, "");
    let first = world.deployed_as_configured();
    http.take();
    http.always(Reply::Status(503));
    world.push(&[("index.html", file("sick\n"))], "sick");
    let shown = http.url("/healthz?…");
    let said = format!("the health check GET {shown} answered 503 (3 attempts)");
    let outcome = world.poll(&[]).expect(1).says(&said);
    assert!(!outcome.stderr.contains("secret"), "{}", outcome.stderr);
    assert_eq!(http.take().len(), 3);
    world.screen("health-failed", "poller", &outcome.stderr.replace(&http.port.to_string(), "8000"));
    world.expect_live("site", &first);
    assert_eq!(world.ran().last().unwrap(), &("rollback".to_owned(), first));
}

#[test]
fn a_redirect_is_not_well_and_not_followed() {
    let http = Http::start();
    let elsewhere = Http::start();
    let world = world_with_health("health redirect", &http, "attempts = 1");
    http.always(Reply::Redirect(elsewhere.url("/login?token=x")));
    world.push(&[("deploy.sh", world.script(""))], "first");
    world.poll(&[]).expect(1).says("answered 308, a redirect to").says("(1 attempt)");
    assert_eq!(elsewhere.take_lines(), [""; 0]);
}

#[test]
fn a_server_that_never_answers_is_bounded_by_the_timeout() {
    for (name, reply) in [("health hangs", Reply::Hang), ("health drips", Reply::Drip)] {
        let http = Http::start();
        let world = world_with_health(name, &http, "attempts = 2\ntimeout = \"1s\"");
        http.always(reply);
        world.push(&[("deploy.sh", world.script(""))], "first");
        world.poll(&[]).expect(1).says("did not answer within 1s (2 attempts)").within(seconds(30));
        world.expect_no_processes();
    }
}

#[test]
fn nobody_listening_says_so() {
    let world = World::new("health refused");
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("url = \"http://127.0.0.1:{free}/up\"");
    world.app("site").health(&url).health(QUICK).write();
    world.push(&[("deploy.sh", world.script(""))], "first");
    world.poll(&[]).expect(1).says(&format!("GET http://127.0.0.1:{free}/up failed: connection refused"));
}

#[test]
fn with_a_command_too_both_must_be_well_and_the_command_is_asked_first() {
    let http = Http::start();
    let world = world_with_health("health both", &http, "command = \"./healthy.sh\"\nattempts = 1");
    let check = |code: u8| exec(format!("#!/bin/sh\nexit {code}\n"));
    world.repo.commit(&[("healthy.sh", check(0))], "health");
    world.deployed_as_configured();
    assert_eq!(http.take().len(), 1);
    world.push(&[("healthy.sh", check(4))], "sick by command");
    world.poll(&[]).expect(1).says("the health check exited with status 4");
    assert_eq!(http.take_lines(), [""; 0], "the command came first");
    http.always(Reply::Status(500));
    world.push(&[("healthy.sh", check(0))], "sick by URL");
    world.poll(&[]).expect(1).says("answered 500");
}

#[test]
fn a_stop_ends_the_wait_for_an_answer() {
    let http = Http::start();
    let world = world_with_health("health stop", &http, "attempts = 5\ntimeout = \"1m\"");
    let first = world.deployed_as_configured();
    http.always(Reply::Hang);
    http.take();
    world.push(&[("index.html", file("two\n"))], "second");
    let running = world.spawn_poll(&[]);
    let mut asked = 0;
    crate::support::wait_until("the health check", seconds(20), || {
        asked += http.take().len();
        asked > 0
    });
    running.signal(nix::sys::signal::Signal::SIGTERM);
    running.wait().expect(1).within(seconds(40));
    world.expect_live("site", &first);
    assert_eq!(world.journal("site")[0].outcome(), "interrupted");
}

#[test]
fn the_health_of_this_machine_is_not_asked_through_a_proxy() {
    let (http, proxy) = (Http::start(), Http::start());
    let world = world_with_health("health proxy", &http, "");
    world.push(&[("deploy.sh", world.script(""))], "first");
    let mut command = world.command(&[]);
    command.env("http_proxy", proxy.url("")).env("ALL_PROXY", proxy.url(""));
    world.spawn(command).wait().expect(0);
    assert_eq!((http.take().len(), proxy.take().len()), (1, 0));
}
