//! An unchanged poll of several apps on one server: with one identity, with an identity each, and with one
//! repository for all. A shell script would ask for one after the other.

use std::rc::Rc;

use super::poll::unchanged;
use crate::support::host::{App, Host};
use crate::support::lab::Lab;
use crate::support::peers;
use crate::support::repository::Repository;
use crate::support::rows::{Contestant, Row};

const MOST: usize = 200;

pub fn one_identity(apps: usize) -> String {
    match apps {
        1 => "1 app, nothing new".to_owned(),
        _ => format!("{apps} apps, one identity, nothing new"),
    }
}

pub fn identity_each(apps: usize) -> String {
    format!("{apps} apps, an identity each, nothing new")
}

/// What a script does without poller.
pub fn one_by_one(apps: usize) -> String {
    format!("{apps} × {}", peers::GIT_LS_REMOTE)
}

pub fn rows(lab: &Rc<Lab>) -> Vec<Row> {
    let first = Repository::new(lab, "apps.git", 20, 0);
    let repositories: Vec<Repository> = (0..MOST).map(|n| first.copy(lab, &format!("app-{n}.git"))).collect();
    let host = |name: &str, key: fn(usize) -> usize| {
        let app = |(n, repository): (usize, &Repository)| App {
            key: key(n),
            ..App::new(format!("app-{n}"), &repository.url)
        };
        let host = Host::new(lab, name, repositories.iter().enumerate().map(app).collect());
        host.deploy_all();
        host
    };
    let (shared, own) = (host("shared", |_| 0), host("own", |n| n + 1));
    let floor = |apps: usize, key: fn(usize) -> usize| {
        let asked = repositories[..apps].iter().enumerate();
        peers::probe(lab, asked.map(|(n, repository)| (key(n), repository.path.clone())).collect())
    };
    let git = |apps: usize, key: fn(usize) -> usize| {
        let (lab, urls) = (Rc::clone(lab), repositories[..apps].iter().map(|r| r.url.clone()).collect::<Vec<_>>());
        let programs =
            move || urls.iter().enumerate().map(|(n, url)| peers::git_ls_remote(&lab, key(n), url)).collect();
        Contestant::new(one_by_one(apps), programs)
    };
    let mut rows = Vec::new();
    for (apps, rounds) in [(1, 10), (10, 8), (50, 8), (MOST, 3)] {
        let mut contestants = vec![unchanged(&shared.with_first(apps), apps), floor(apps, |_| 0)];
        match apps {
            10 | 50 => contestants.push(git(apps, |_| 0).at_most(1)),
            _ => {}
        }
        rows.push(Row::new(one_identity(apps), rounds, contestants));
    }
    for (apps, rounds) in [(10, 8), (50, 3), (MOST, 3)] {
        let mut contestants = vec![unchanged(&own.with_first(apps), apps), floor(apps, |n| n + 1)];
        if apps == MOST {
            contestants.push(git(apps, |n| n + 1).at_most(1));
        }
        let row = Row::new(identity_each(apps), rounds, contestants);
        rows.push(if apps == MOST { row.without_warm_up() } else { row });
    }
    rows.push(one_repository(lab, &first));
    rows.push(status(&shared));
    rows
}

fn one_repository(lab: &Rc<Lab>, repository: &Repository) -> Row {
    let apps = (0..20).map(|n| App::new(format!("part-{n}"), &repository.url)).collect();
    let host = Host::new(lab, "parts", apps);
    host.deploy_all();
    let probe = peers::probe(lab, vec![(0, repository.path.clone())]);
    Row::new("20 apps of one repository, nothing new", 10, vec![unchanged(&host, 20), probe])
}

fn status(host: &Host) -> Row {
    let of = |arguments: &'static [&'static str]| {
        let host = host.clone();
        Contestant::new(format!("`poller {}`", arguments.join(" ")), move || vec![host.command(arguments)])
    };
    Row::new("where 200 apps stand, without asking a server", 10, vec![of(&["status"]), of(&["status", "--json"])])
}
