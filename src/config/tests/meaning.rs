//! What files mean that say nothing, and files that say everything.

use std::path::Path;
use std::time::Duration;

use super::super::notify::NotifyOn;
use super::super::{Follow, Layout, OnFailure, Remote, Source};
use super::{FILE, SMALL, app, defaults, host};

#[test]
fn a_small_app_has_every_default() {
    let app = app(SMALL).unwrap();
    assert_eq!(app.name.as_str(), "todo");
    assert_eq!(app.file, Path::new("/etc/poller/apps.d/todo.toml"));
    assert_eq!(
        app.source,
        Source {
            url: "git@github.com:me/todo.git".to_owned(),
            remote: Remote::Ssh {
                user: "git".to_owned(),
                host: "github.com".to_owned(),
                port: 22,
                path: "me/todo.git".to_owned(),
            },
            follow: Follow::Branch("main".to_owned()),
            identity: Some("/etc/poller/keys/todo".into()),
            known_hosts: "/etc/poller/known_hosts".into(),
            ssh_command: None,
            subdir: None,
            paths: Vec::new(),
            hosts: Vec::new(),
            soak: Duration::ZERO,
            timeout: Duration::from_secs(30),
        }
    );
    assert_eq!(app.target.directory, Path::new("/srv/todo"));
    assert_eq!((app.target.layout, app.target.keep), (Layout::Releases, 5));
    assert!(app.target.shared.is_empty());
    let deploy = app.deploy;
    assert_eq!((deploy.umask, deploy.retries), (0o022, 3));
    assert_eq!((deploy.timeout, deploy.on_failure), (Duration::from_secs(600), OnFailure::Rollback));
    assert!(deploy.user.is_none() && deploy.script.is_none() && deploy.sudo.is_empty());
    assert!(app.health.is_none());
    assert!(!app.verify.allow_rewind && app.verify.allowed_signers.is_none() && app.verify.pgp_keys.is_none());
}

#[test]
fn everything_that_an_app_file_can_say() {
    let app = app(r#"
[source]
url = "ssh://deploy@git.example:2222/srv/todo.git"
tag = "v*"
known_hosts = "/etc/ssh/known"
ssh_command = "ssh -F 'my config'"
subdir = "./site//new/"
paths = ["site/**"]
hosts = ["web-*"]
timeout = "5s"
soak = "0s"
[target]
directory = "/var/www//projects/./todo/"
layout = "in-place"
keep = 2
shared = ["db.sqlite3", "./media/"]
[deploy]
user = "gunicorn"
group = "hosted_apps"
build = "./build.sh --fast 'two words'"
script = ["./deploy.sh", "$HOME"]
env = { DJANGO_SETTINGS_MODULE = "todo.settings", _x = "" }
umask = "027"
timeout = "1h30m"
retries = 1
on_failure = "keep"
restart = ["todo_gunicorn.service"]
reload = ["nginx@a.service"]
sudo = ["/usr/bin/systemctl restart todo"]
[health]
command = "curl -fsS http://127.0.0.1:8000/healthz"
attempts = 2
interval = "500ms"
timeout = "3s"
[verify]
allowed_signers = "./signers"
pgp_keys = "/srv/keys.asc"
allow_rewind = true
"#)
    .unwrap();
    let source = &app.source;
    assert_eq!(source.follow, Follow::Tag("v*".to_owned()));
    assert_eq!(source.known_hosts, Path::new("/etc/ssh/known"));
    assert_eq!(source.ssh_command.as_deref().unwrap(), ["ssh", "-F", "my config"]);
    assert_eq!(source.subdir.as_deref(), Some("site/new"));
    assert_eq!((&source.paths[..], &source.hosts[..]), (&["site/**".to_owned()][..], &["web-*".to_owned()][..]));
    assert_eq!(source.timeout, Duration::from_secs(5));
    assert_eq!(app.target.directory.as_os_str(), "/var/www/projects/todo");
    assert_eq!((app.target.layout, app.target.keep), (Layout::InPlace, 2));
    assert_eq!(app.target.shared, ["db.sqlite3", "media/"]);
    let deploy = &app.deploy;
    assert_eq!(deploy.build.as_ref().unwrap().argv(), ["./build.sh", "--fast", "two words"]);
    assert_eq!(deploy.script.as_ref().unwrap().to_string(), "./deploy.sh '$HOME'");
    assert_eq!(deploy.env["DJANGO_SETTINGS_MODULE"], "todo.settings");
    assert_eq!((deploy.umask, deploy.timeout), (0o027, Duration::from_secs(5400)));
    assert_eq!((deploy.user.as_deref(), deploy.group.as_deref()), (Some("gunicorn"), Some("hosted_apps")));
    assert_eq!((deploy.retries, deploy.on_failure), (1, OnFailure::Keep));
    assert_eq!((&deploy.restart[0][..], &deploy.reload[0][..]), ("todo_gunicorn.service", "nginx@a.service"));
    assert_eq!(deploy.sudo, ["/usr/bin/systemctl restart todo"]);
    let health = app.health.unwrap();
    assert_eq!(health.command.unwrap().program(), "curl");
    assert_eq!((health.attempts, health.interval), (2, Duration::from_millis(500)));
    assert_eq!(health.timeout, Duration::from_secs(3));
    assert!(app.verify.allow_rewind);
    assert_eq!(app.verify.allowed_signers.as_deref(), Some(Path::new("/etc/poller/signers")));
    assert_eq!(app.verify.pgp_keys.as_deref(), Some(Path::new("/srv/keys.asc")));
}

#[test]
fn everything_that_poller_toml_can_say() {
    let config = host(
        r#"
[host]
name = "db-7"
fetch_user = "fetcher"
jobs = 2
splay = "4m"
deadline = "5m"
[paths]
state = "state"
run = "./run"
log = "/var/log/p.log"
[metrics]
textfile = "metrics/poller.prom"
[notify]
command = "/usr/local/bin/tell-us --all"
ping = "https://hc.example.org/1"
on = ["failed", "deployed"]
"#,
    )
    .unwrap();
    assert_eq!((&config.host.name[..], &config.host.fetch_user[..]), ("db-7", "fetcher"));
    assert_eq!((config.host.jobs, config.host.deadline), (2, Duration::from_secs(300)));
    assert_eq!(config.paths.state, Path::new("/etc/poller/state"));
    assert_eq!(config.paths.run.as_os_str(), "/etc/poller/run");
    assert_eq!(config.paths.log, Path::new("/var/log/p.log"));
    assert_eq!(config.metrics.unwrap().textfile, Path::new("/etc/poller/metrics/poller.prom"));
    assert_eq!((config.host.splay, config.file.as_path()), (Duration::from_secs(240), Path::new(FILE)));
    let notify = config.notify.unwrap();
    assert_eq!(notify.command.unwrap().argv(), ["/usr/local/bin/tell-us", "--all"]);
    assert_eq!((notify.url, notify.ping.as_deref()), (None, Some("https://hc.example.org/1")));
    assert_eq!((notify.ping_output, notify.on), (false, vec![NotifyOn::Failed, NotifyOn::Deployed]));
}

#[test]
fn the_first_override_for_this_host_holds() {
    let with = |text: &str| app(&format!("{SMALL}{text}")).unwrap().source;
    let canary = "[[source.override]]\nhosts = [\"canary-*\"]\nbranch = \"next\"\n";
    let here = "[[source.override]]\nhosts = [\"db-*\", \"web-*\"]\nsoak = \"1h\"\n";
    let later = "[[source.override]]\nhosts = [\"*\"]\nbranch = \"other\"\nsoak = \"2h\"\n";
    let main = Follow::Branch("main".to_owned());
    let source = with(&format!("{canary}{here}{later}"));
    assert_eq!((source.follow, source.soak), (main.clone(), Duration::from_secs(3600)));
    assert_eq!(with(canary).follow, main);
    let source = with(later);
    assert_eq!((source.follow, source.soak), (Follow::Branch("other".to_owned()), Duration::from_secs(7200)));
}

#[test]
fn an_empty_poller_toml_has_every_default() {
    let config = host("").unwrap();
    assert_eq!((&config.host.name[..], &config.host.fetch_user[..]), ("web-1", "poller"));
    assert_eq!((config.host.jobs, config.host.deadline), (8, Duration::from_secs(1800)));
    assert_eq!(config.paths, defaults(true).paths);
    assert!(config.metrics.is_none() && config.notify.is_none() && config.host.splay.is_zero());
}
