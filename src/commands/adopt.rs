//! `poller adopt`: what is live in the target directory is taken for deployed, without running anything.
//!
//! For a directory that another tool filled, and for an app whose repository has another URL now.

use anyhow::Result;
use jiff::Timestamp;
use serde_json::json;

use super::setting::{self, Desk, Trail};
use crate::cli::Common;
use crate::outcome::Failure;
use crate::processes::messages::{Probed, Tip};
use crate::processes::supervisor;
use crate::report::terminal::{print, print_json};
use crate::road::adopt::Adopted;

pub fn run(common: &Common, app: &str, commit: Option<&str>) -> u8 {
    setting::run(|_| {
        let config = supervisor::load(common.config.as_deref())?;
        let app = setting::one(&config, app)?;
        let mut desk = Desk::open(common, &config, &format!("adopt {}", app.name))?;
        let (mut lock, mut trail) = (desk.lock(app)?, Trail::default());
        let prepared = desk.preparation.prepare(app)?;
        let mut answer: Option<Result<Probed, Failure>> = None;
        let fetch = desk.context.fetch_account.as_ref();
        supervisor::probe(&[&prepared], supervisor::start_prober(fetch), 1, &desk.context.stop, |_, probed| {
            answer = Some(probed)
        });
        let probed = answer.ok_or_else(|| anyhow::anyhow!("the prober did not answer"))??;
        let tip: Tip = probed.tip?;
        let mut road = desk.road(app, &mut lock, &mut trail)?;
        road.origin = Some(prepared.origin.clone());
        let adopted = road.adopt(&tip, commit)?;
        let (what, deployed) = match &adopted {
            Adopted::Now(deployed) => ("adopted", deployed),
            Adopted::Before(deployed) => ("unchanged", deployed),
        };
        let (name, to) = (&app.name, deployed.commit.short());
        if common.json {
            let json = json!({ "schema": 1, "app": name.as_str(), "done": what, "deployed": deployed });
            print_json(&json);
            return Ok(0);
        }
        let is_frozen = road.journal.state.frozen.as_ref().is_some_and(|frozen| frozen.holds(Timestamp::now()));
        let next = match tip.commit == deployed.commit {
            true => format!("it is the tip of {}", tip.reference),
            false if is_frozen => format!("it is frozen, so that it stays live until: poller unfreeze {name}"),
            false => format!("the next poll deploys {}, the tip of {}", tip.commit.short(), tip.reference),
        };
        print(&match adopted {
            Adopted::Now(_) => format!("{name}: {to} is taken for deployed; {next}\n"),
            Adopted::Before(_) => format!("{name}: {to} is what is deployed already; nothing was changed\n"),
        });
        Ok(0)
    })
}
