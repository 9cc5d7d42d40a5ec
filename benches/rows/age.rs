//! An app that was deployed ten times, and one that was deployed a thousand times: what a poll costs, and
//! what is kept. Each of these deploys is a whole run of poller, in place, over SSH.

use std::rc::Rc;

use super::poll::unchanged;
use super::trees::LAYOUT_IN_PLACE;
use crate::support::host::{App, Host};
use crate::support::lab::Lab;
use crate::support::repository::Repository;
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
    vec![Row::new(TITLE, 20, vec![aged(lab, &young, YOUNG), aged(lab, &old, OLD)])]
}

fn aged(lab: &Rc<Lab>, repository: &Repository, deploys: usize) -> Contestant {
    // Both end at the same commit, and with the same history: the project's own growth is not poller's.
    for _ in deploys..OLD {
        repository.push();
    }
    let app = App { target: LAYOUT_IN_PLACE, ..App::new("site", &repository.url) };
    let host = Host::new(lab, &format!("age-{deploys}"), vec![app]);
    host.poll();
    for _ in 1..deploys {
        repository.push();
        host.poll();
    }
    host.expect("deploy.finished", deploys);
    host.expect_live(repository.tip());
    unchanged(&host, 1).named(name(deploys)).keeps(host.data.join("targets"), host.state())
}
