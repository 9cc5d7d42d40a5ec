//! The rows, in groups that `ROWS=refs,apps` can pick.

use std::rc::Rc;

use crate::support::lab::Lab;
use crate::support::rows::Row;

pub mod age;
pub mod apps;
pub mod poll;
pub mod refs;
pub mod rollback;
pub mod start;
pub mod trees;

pub struct Group {
    pub word: &'static str,
    pub title: &'static str,
    pub rows: fn(&Rc<Lab>) -> Vec<Row>,
}

pub const GROUPS: [Group; 7] = [
    Group { word: "poll", title: "An unchanged poll", rows: poll::rows },
    Group { word: "start", title: "Starting", rows: start::rows },
    Group { word: "refs", title: "References at the server", rows: refs::rows },
    Group { word: "apps", title: "Several apps", rows: apps::rows },
    Group { word: "trees", title: "Deploying", rows: trees::rows },
    Group { word: "rollback", title: "Going back", rows: rollback::rows },
    Group { word: "age", title: "After many deploys", rows: age::rows },
];
