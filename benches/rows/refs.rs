//! An unchanged poll of one app, with few and with many references at the server.

use std::rc::Rc;

use super::poll::{ls_remote, unchanged};
use crate::support::host::{App, Host};
use crate::support::lab::Lab;
use crate::support::peers;
use crate::support::repository::Repository;
use crate::support::rows::Row;
use crate::support::table::grouped;

pub const FEW: usize = 10;
pub const MANY: usize = 100_000;

pub fn title(refs: usize) -> String {
    format!("one app, {} references, nothing new", grouped(refs as u64))
}

pub fn rows(lab: &Rc<Lab>) -> Vec<Row> {
    [FEW, 1_000, MANY].map(|refs| row(lab, refs)).into()
}

fn row(lab: &Rc<Lab>, refs: usize) -> Row {
    let name = format!("refs-{refs}");
    let repository = Repository::new(lab, &format!("{name}.git"), 20, 0);
    repository.add_refs(refs);
    let host = Host::new(lab, &name, vec![App::new("site", &repository.url)]);
    host.poll();
    let clone = lab.path(&format!("{name}.clone"));
    repository.clone_to(&clone);
    let probe = peers::probe(lab, vec![(0, repository.path.clone())]);
    let peers = [peers::git_fetch(lab, &clone), ls_remote(lab, &repository)].map(|peer| peer.at_most(3));
    let contestants = [unchanged(&host, 1), probe].into_iter().chain(peers).collect();
    let row = Row::new(title(refs), 12, contestants);
    // git makes a call or more for each of them.
    if refs == MANY { row.without_calls() } else { row }
}
