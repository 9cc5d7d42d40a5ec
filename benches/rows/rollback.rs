//! Back to the commit before, without the network.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::rc::Rc;

use super::trees::{IN_PLACE, LAYOUT_IN_PLACE, RELEASES};
use crate::support::host::{App, Host};
use crate::support::lab::{Lab, succeed};
use crate::support::peers::{git_in, sync};
use crate::support::repository::Repository;
use crate::support::rows::{Contestant, Row};

pub fn rows(lab: &Rc<Lab>) -> Vec<Row> {
    let repository = Repository::new(lab, "rollback.git", 3_000, 1);
    let before = repository.tip().to_owned();
    let hosts = [("rollback", ""), ("rollback-in-place", LAYOUT_IN_PLACE)].map(|(name, target)| {
        let host = Host::new(lab, name, vec![App { target, ..App::new("site", &repository.url) }]);
        host.poll();
        host
    });
    repository.push();
    hosts.iter().for_each(Host::poll);
    let [releases, in_place] = hosts;
    let clone = lab.path("rollback.clone");
    repository.clone_to(&clone);
    let rows = vec![
        poller(lab, releases, RELEASES, &repository, &before),
        poller(lab, in_place, IN_PLACE, &repository, &before),
        reset(lab, clone),
        link(lab),
    ];
    vec![Row::new("rollback, 3,000 files", 7, rows)]
}

fn poller(lab: &Rc<Lab>, host: Host, name: &str, repository: &Repository, goal: &str) -> Contestant {
    let (lab, before, after) = (Rc::clone(lab), host.clone(), host.clone());
    let (repository, goal) = (repository.clone(), goal.to_owned());
    Contestant::new(name, move || vec![host.command(&["rollback", "site", "--reason", "bench"])])
        .before(move || lab.settle())
        .after(move || {
            after.expect_live(&goal);
            succeed(&mut before.command(&["unfreeze", "site"]));
            before.poll();
            before.expect_live(repository.tip());
        })
}

fn reset(lab: &Rc<Lab>, clone: PathBuf) -> Contestant {
    let (lab, own, back) = (Rc::clone(lab), Rc::clone(lab), clone.clone());
    Contestant::new("`git reset --hard HEAD~1`, `sync`", move || {
        vec![git_in(&own, &clone, &["reset", "-q", "--hard", "HEAD~1"]), sync(&own, &clone)]
    })
    .before(move || {
        succeed(&mut git_in(&lab, &back, &["reset", "-q", "--hard", "origin/main"]));
        lab.settle();
    })
}

/// The least that a script does: another link, by rename.
fn link(lab: &Rc<Lab>) -> Contestant {
    let folder = lab.folder("rollback.link");
    let (lab, own, before) = (Rc::clone(lab), Rc::clone(lab), folder.join("next"));
    Contestant::new("`mv -T next current`, `sync`", move || {
        let mut mv = own.command("mv");
        mv.arg("-T").arg(folder.join("next")).arg(folder.join("current"));
        vec![mv, sync(&own, &folder)]
    })
    .before(move || {
        let _ = fs::remove_file(&before);
        symlink("releases/one", &before).expect("a link");
        lab.settle();
    })
}
