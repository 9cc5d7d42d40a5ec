//! An unchanged poll of one app, beside whatever else asks a server whether a branch has moved.

use std::rc::Rc;

use crate::support::host::{App, Host};
use crate::support::lab::{Lab, succeed};
use crate::support::peers::{self, POLLER};
use crate::support::repository::Repository;
use crate::support::rows::{Contestant, Row};

pub const TITLE: &str = "one app, nothing new";

pub fn rows(lab: &Rc<Lab>) -> Vec<Row> {
    let repository = Repository::new(lab, "poll.git", 20, 0);
    repository.add_refs(10);
    let host = Host::new(lab, "poll", vec![App::new("site", &repository.url)]);
    host.poll();
    let folder = lab.folder("poll.peers");
    let (clone, pulled, synced) = (folder.join("clone"), folder.join("pulled"), folder.join("synced"));
    repository.clone_to(&clone);
    repository.clone_to(&pulled);
    let mut contestants = vec![unchanged(&host, 1), peers::probe(lab, vec![(0, repository.path.clone())])];
    let programs = [
        peers::git_fetch(lab, &clone),
        peers::git_fetch_curve25519(lab, &clone),
        ls_remote(lab, &repository),
        peers::ssh(lab),
    ];
    contestants.extend(programs.map(|program| program.at_most(10)));
    if let Some(sync) = peers::git_sync(lab, &synced, &repository.url) {
        // The first time it fetches.
        for mut command in sync.programs() {
            succeed(&mut command);
        }
        contestants.push(sync);
    }
    contestants.extend(peers::ansible_pull(lab, &pulled, &repository.url).map(|pull| pull.at_most(4)));
    vec![Row::new(TITLE, 20, contestants)]
}

/// A poll that finds nothing new in so many apps.
pub fn unchanged(host: &Host, apps: usize) -> Contestant {
    let (before, after) = (host.clone(), host.clone());
    let host = host.clone();
    Contestant::new(POLLER, move || vec![host.command(&[])])
        .before(move || before.skip_log())
        .after(move || after.expect("poll.unchanged", apps))
}

pub fn ls_remote(lab: &Rc<Lab>, repository: &Repository) -> Contestant {
    let (lab, url) = (Rc::clone(lab), repository.url.clone());
    Contestant::new(peers::GIT_LS_REMOTE, move || vec![peers::git_ls_remote(&lab, 0, &url)])
}
