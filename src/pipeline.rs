//! The road of one app, from a tip to an outcome, in the words of docs/architecture.md.
//!
//! lock and probe lie before it (`processes/supervisor.rs`: they serve all apps at once), report behind.

use anyhow::Result;

use crate::outcome::Outcome;
use crate::processes::messages::Tip;
use crate::road::{Begun, Decided, Judged, Road, Setback};

/// Each stage takes what the one before made, so none can be left out or put in another place.
pub fn poll(mut road: Road, tip: &Tip) -> Result<Outcome> {
    let plan = match road.decide(tip) {
        Decided::Go(plan) => plan,
        Decided::Stay(outcome) => return Ok(outcome),
    };
    let fetched = road.fetch(plan)?;
    let verified = match road.verify(fetched)? {
        Judged::Publish(verified) => verified,
        Judged::Leave(outcome) => return Ok(outcome),
    };
    let staged = road.stage(verified)?;
    let begun = road.begin(staged)?;
    match go_live(&mut road, &begun) {
        Ok(()) => road.succeed(begun),
        Err(setback) => road.fail(begun, setback),
    }
}

fn go_live(road: &mut Road, begun: &Begun) -> Result<(), Setback> {
    road.build(begun)?;
    road.activate(begun)?;
    road.deploy(begun)?;
    road.restart(begun)?;
    road.health(begun)
}
