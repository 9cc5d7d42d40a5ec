//! `poller retry`: the commit that failed is tried once more, at once, however often it was before.
//!
//! It is a poll of the one app that neither waits nor minds how many attempts there were; rules about
//! history, signatures and freezes hold.

use super::poll::{self, Request};
use crate::cli::Common;
use crate::stages::decide::Force;

pub fn run(common: &Common, app: &str) -> u8 {
    poll::run(&Request { common, apps: &[app.to_owned()], force: Force::Retry })
}
