//! An app that was deployed ten times, and one that was deployed a thousand times: what a poll costs, and
//! what is kept. Each of these deploys is a whole run of poller, in place, over SSH.

use std::process::Command;
use std::rc::Rc;
use std::thread;

use super::poll::unchanged;
use super::trees::LAYOUT_IN_PLACE;
use crate::support::host::{App, Host};
use crate::support::lab::{Lab, succeed};
use crate::support::repository::{Push, Repository};
use crate::support::rows::{Contestant, Row};
use crate::support::table::grouped;

pub const YOUNG: usize = 10;
pub const OLD: usize = 1_000;
pub const TITLE: &str = "one app, 3,000 files, nothing new";

pub fn name(deploys: usize) -> String {
    format!("`poller` after {} deploys", grouped(deploys as u64))
}

pub fn rows(lab: &Rc<Lab>) -> Vec<Row> {
    let young = Repository::new(lab, "age-young.git", 3_000, OLD);
    let old = young.copy(lab, "age-old.git");
    let (young, young_is_ready) = aged(lab, &young, YOUNG);
    let (old, old_is_ready) = aged(lab, &old, OLD);
    let is_ready = move || {
        young_is_ready();
        old_is_ready();
    };
    vec![Row::new(TITLE, 20, vec![young, old]).prepared_by(is_ready)]
}

/// Goes on deploying in the background; the second waits for the last one.
fn aged(lab: &Rc<Lab>, repository: &Repository, deploys: usize) -> (Contestant, impl FnOnce() + 'static) {
    // Both end at the same commit, and with the same history: the project's own growth is not poller's.
    for _ in deploys..OLD {
        repository.push();
    }
    let app = App { target: LAYOUT_IN_PLACE, ..App::new("site", &repository.url) };
    let host = Host::new(lab, &format!("age-{deploys}"), vec![app]);
    host.poll();
    let pushes = repository.push_later(deploys - 1).into_iter();
    let steps: Vec<(Push, Command)> = pushes.map(|push| (push, host.command(&[]))).collect();
    let deploying = thread::spawn(move || {
        for (push, mut poll) in steps {
            push.now();
            succeed(&mut poll);
        }
    });
    let contestant = unchanged(&host, 1).named(name(deploys)).keeps(host.data.join("targets"), host.state());
    let tip = repository.tip().to_owned();
    let is_ready = move || {
        deploying.join().expect("the deploys");
        host.expect("deploy.finished", deploys);
        host.expect_live(&tip);
    };
    (contestant, is_ready)
}
