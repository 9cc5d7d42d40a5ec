//! `poller retry`: the commit that failed is tried once more, at once, however often it was before.
//!
//! It is a poll of the one app that neither waits nor counts attempts; rules about history, signatures
//! and freezes hold.

use super::poll::{self, Request};
use super::setting;
use crate::cli::Common;
use crate::config::Config;
use crate::processes::supervisor;
use crate::stages::decide::Force;

pub fn run(common: &Common, app: &str) -> u8 {
    setting::run(|_| {
        let config: Config = supervisor::load(common.config.as_deref())?;
        setting::one(&config, app)?;
        setting::admit(&config, &format!("retry {app}"))?;
        Ok(poll::run(&Request { common, apps: &[app.to_owned()], force: Force::Retry }))
    })
}
