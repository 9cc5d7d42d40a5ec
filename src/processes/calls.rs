//! Asking the caller, from the supervisor's side. It is started with the first request.

use std::time::Duration;

use anyhow::Result;

use super::Role;
use super::helper::{Helper, Patience, Start};
use super::messages::{Answer, Call};
use crate::outcome::{Class, Failure};
use crate::report::printable;
use crate::sys::account::Account;
use crate::sys::signals::Stop;

/// The caller keeps the time itself. This stands over what it cannot: a lookup of a name, a stopped process.
const SLACK: Duration = Duration::from_secs(2);

pub struct Calls<'c> {
    account: Option<&'c Account>,
    caller: Option<Helper>,
}

impl<'c> Calls<'c> {
    pub fn new(account: Option<&'c Account>) -> Calls<'c> {
        Calls { account, caller: None }
    }

    /// Sends a request without waiting for its answer; [`Calls::receive`] does, before anything else is asked.
    pub fn send(&mut self, call: &Call) -> Result<(), String> {
        let sent = self.caller().and_then(|caller| caller.send(call));
        sent.map_err(|e| {
            self.caller = None;
            told(e)
        })
    }

    /// The answer to what was sent, or why there is none, in a sentence.
    pub fn receive(&mut self, limit: Duration, stop: Option<&Stop>) -> Result<Answer, String> {
        let patience = Patience { time: limit + SLACK, stop, class: Class::Unreachable };
        let received = match &mut self.caller {
            Some(caller) => caller.receive::<Result<Answer, String>>(patience),
            None => return Err("nothing was asked".to_owned()),
        };
        received.unwrap_or_else(|e| {
            // It was ended, and what it may still have said with it.
            self.caller = None;
            Err(told(e))
        })
    }

    pub fn ask(&mut self, call: &Call, stop: Option<&Stop>) -> Result<Answer, String> {
        self.send(call)?;
        self.receive(call.timeout, stop)
    }

    fn caller(&mut self) -> Result<&mut Helper> {
        let caller = match self.caller.take() {
            Some(caller) => caller,
            None => Helper::start(Start {
                role: Role::Caller,
                account: self.account,
                umask: 0o077,
                descriptors: Vec::new(),
                input: None,
            })?,
        };
        Ok(self.caller.insert(caller))
    }
}

fn told(e: anyhow::Error) -> String {
    printable(&Failure::of(e).message)
}
