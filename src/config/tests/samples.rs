//! The samples that are shipped mean something, as they are and with every optional key switched on.

use super::*;

const HOST: &str = include_str!("../../../etc/poller/poller.toml");
const APP: &str = include_str!("../../../etc/poller/apps.d/todo.toml.sample");
const DJANGO: &str = include_str!("../../../packaging/examples/django/todo.toml");

/// Optional keys and tables are written `#key = …` and `#[table]`, prose `# …`.
fn switched_on(text: &str, but: &[&str]) -> String {
    let line = |line: &str| {
        let key = line.strip_prefix('#').filter(|rest| !rest.is_empty() && !rest.starts_with([' ', '#']));
        let key = key.filter(|rest| !but.iter().any(|b| rest.starts_with(&format!("{b} "))));
        format!("{}\n", key.unwrap_or(line))
    };
    text.lines().map(line).collect()
}

fn load_both(host: &str, app: &str) -> Config {
    let files = [(FILE, host), ("/etc/poller/apps.d/todo.toml", app)];
    Memory::with(&files).load().unwrap_or_else(|e| panic!("{e}"))
}

#[track_caller]
fn app_of(config: Config) -> App {
    if let Some(broken) = config.broken.first() {
        panic!("{}", broken.error);
    }
    config.apps.into_iter().next().expect("an app")
}

#[test]
fn the_samples_are_valid_as_they_are_shipped() {
    let app = app_of(load_both(HOST, APP));
    assert_eq!(app.target.directory, Path::new("/var/www/projects/todo"));
    let django = app_of(load_both(HOST, DJANGO));
    assert_eq!(django.deploy.restart, ["todo_gunicorn.service"]);
}

#[test]
fn the_samples_are_valid_with_every_optional_key() {
    // One of three can be followed, and ssh_command brings an identity of its own.
    let app = switched_on(APP, &["tag", "ref", "ssh_command"]);
    assert!(app.matches("\n[health]").count() == 1 && app.contains("\ngroup ="), "nothing was switched on:\n{app}");
    let config = load_both(&switched_on(HOST, &[]), &app);
    assert_eq!((config.host.jobs, config.host.fetch_user.as_str()), (8, "poller"));
    let app = app_of(config);
    assert!(app.health.is_some() && app.deploy.group.is_some() && app.deploy.build.is_some());
}

#[test]
fn what_the_samples_say_is_the_default_is_the_default() {
    let plain = load_both("", SMALL);
    let said = load_both(&switched_on(HOST, &["name", "textfile"]), SMALL);
    assert_eq!((&plain.paths, plain.host.jobs, plain.host.deadline), (&said.paths, said.host.jobs, said.host.deadline));
}
