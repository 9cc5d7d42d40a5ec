//! The road of one app, from a tip to an outcome, in the words of docs/architecture.md.
//!
//! lock and probe lie before it (`processes/supervisor.rs`: they serve all apps at once), report behind.

use anyhow::Result;

use crate::outcome::{Failure, Outcome};
use crate::processes::messages::Tip;
use crate::road::back::{self, Goal};
use crate::road::{Arrived, Begun, Decided, Judged, Road, Setback};

/// From the server's answer to the end.
pub fn poll(mut road: Road, tip: Result<Tip, Failure>) -> Result<Outcome> {
    if let Err(why) = &tip
        && let Some(goal) = road.rollback_begun()
    {
        // It needs no server, and does not wait for one.
        let why = why.clone();
        rollback(road, &goal)?;
        return Err(back::carried_through(why, &goal).into());
    }
    let begun = match begin(&mut road, tip) {
        Ok(Next::Live(begun)) => *begun,
        Ok(Next::Back(goal)) => return rollback(road, &goal),
        Ok(Next::Stay(outcome)) => return Ok(outcome),
        Err(why) => return Err(road.put_back(why)),
    };
    match go_live(&mut road, &begun) {
        Ok(()) => road.succeed(begun),
        Err(setback) => road.fail(begun, setback),
    }
}

enum Next {
    Live(Box<Begun>),
    Back(Box<Goal>),
    Stay(Outcome),
}

/// Each stage takes what the one before made, so none can be left out or put in another place.
fn begin(road: &mut Road, tip: Result<Tip, Failure>) -> Result<Next> {
    let plan = match road.decide(&tip?)? {
        Decided::Go(plan) => plan,
        Decided::Back(goal) => return Ok(Next::Back(goal)),
        Decided::Stay(outcome) => return Ok(Next::Stay(outcome)),
    };
    let fetched = match road.fetch(plan)? {
        Arrived::Go(fetched) => fetched,
        Arrived::Stay(outcome) => return Ok(Next::Stay(outcome)),
    };
    let verified = match road.verify(fetched)? {
        Judged::Publish(verified) => *verified,
        Judged::Leave(outcome) => return Ok(Next::Stay(outcome)),
    };
    let staged = road.stage(verified)?;
    Ok(Next::Live(Box::new(road.begin(staged)?)))
}

/// Back to what went well before, by hand: no server is asked.
pub fn rollback(mut road: Road, goal: &Goal) -> Result<Outcome> {
    let returned = road.find(goal)?;
    let anew = returned.anew;
    let begun = road.begin_again(returned)?;
    let gone_back = road.build_again(&begun, anew).and_then(|()| go_live_built(&mut road, &begun));
    match gone_back {
        Ok(()) => road.succeed(begun),
        Err(setback) => road.fail(begun, setback),
    }
}

fn go_live(road: &mut Road, begun: &Begun) -> Result<(), Setback> {
    road.build(begun)?;
    go_live_built(road, begun)
}

fn go_live_built(road: &mut Road, begun: &Begun) -> Result<(), Setback> {
    road.activate(begun)?;
    road.deploy(begun)?;
    road.restart(begun)?;
    road.health(begun)
}
