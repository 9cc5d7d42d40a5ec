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
fn what_the_sample_says_of_other_hosts_is_only_for_those() {
    let app = switched_on(APP, &["tag", "ref", "ssh_command", "hosts"]);
    let canary = app.replacen("[[source.override]]\n", "[[source.override]]\nhosts = [\"canary-*\"]\n", 1);
    let on = |host: &str| app_of(load_both(&format!("[host]\nname = \"{host}\"\n"), &canary)).source.follow;
    assert_eq!(on("web-1"), Follow::Branch("main".to_owned()));
    assert_eq!(on("canary-1"), Follow::Branch("next".to_owned()));
}

/// The keys of a table, as its loader names them when it meets one that it does not know.
fn keys<T: serde::de::DeserializeOwned>(table: &str) -> Vec<String> {
    let error = match toml::from_str::<T>(&format!("{table}\nno_such_key = 1\n")) {
        Ok(_) => panic!("{table} takes every key"),
        Err(error) => error.message().to_owned(),
    };
    let (_, expected) = error.split_once("expected").unwrap_or_else(|| panic!("{table}: {error}"));
    expected.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// What the man page says below a heading such as `[host]`.
fn section<'t>(page: &'t str, table: &str) -> &'t str {
    let (_, rest) = page.split_once(&format!(".Ss {table}\n")).unwrap_or_else(|| panic!("{table} is not in the page"));
    rest.split("\n.S").next().unwrap_or_default()
}

/// The lines of a sample that belong to a table, switched on or not.
fn part<'t>(sample: &'t str, table: &str) -> Vec<&'t str> {
    let lines = sample.lines().map(|line| line.strip_prefix('#').unwrap_or(line));
    lines.skip_while(|line| *line != table).skip(1).take_while(|line| !line.starts_with('[')).collect()
}

#[test]
fn every_key_that_the_loader_knows_is_in_the_man_page_and_in_a_sample() {
    let page = include_str!("../../../docs/man/poller.toml.5");
    let host = |table| (table, HOST, keys::<file::HostFile>(table));
    let app = |table| (table, APP, keys::<file::AppFile>(table));
    let tables = [
        host("[host]"),
        host("[paths]"),
        host("[metrics]"),
        host("[notify]"),
        app("[source]"),
        app("[[source.override]]"),
        app("[target]"),
        app("[deploy]"),
        app("[health]"),
        app("[verify]"),
    ];
    for (table, sample, keys) in tables {
        assert!(!keys.is_empty(), "{table}");
        for key in keys.iter().filter(|key| *key != "override") {
            assert!(section(page, table).contains(&format!(".It Cm {key} No")), "{table} {key} is not in the man page");
            // One of three shows how the others are written.
            let left_out = table == "[[source.override]]" && ["tag", "ref"].contains(&key.as_str());
            let is_there = part(sample, table).iter().any(|line| line.starts_with(&format!("{key} =")));
            assert!(is_there != left_out, "{table} {key} in the sample: {is_there}");
        }
    }
    let tables = [keys::<file::HostFile>(""), keys::<file::AppFile>("")].concat();
    assert_eq!(tables.len(), 9, "a table is new: {tables:?}");
}

#[test]
fn what_the_samples_say_is_the_default_is_the_default() {
    let plain = load_both("", SMALL);
    let said = load_both(&switched_on(HOST, &["name", "textfile"]), SMALL);
    assert_eq!((&plain.paths, plain.host.jobs, plain.host.deadline), (&said.paths, said.host.jobs, said.host.deadline));
    assert_eq!(plain.host.splay, said.host.splay);
    // Whom to tell has no default, but what to tell does.
    let least = load_both("[notify]\ncommand = \"/bin/true\"\n", SMALL).notify.unwrap();
    let notify = said.notify.unwrap();
    assert_eq!((&notify.on, notify.ping_output), (&least.on, least.ping_output));
}
