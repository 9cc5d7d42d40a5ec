//! poller as a library, for the fuzzer only: the modules of `../src` as they are, and under [`entries`] what
//! is asked of them. poller itself is a program and offers no interface.

#![allow(dead_code)]

#[path = "../../src/cli.rs"]
pub mod cli;
#[path = "../../src/commands/mod.rs"]
pub mod commands;
#[path = "../../src/commit.rs"]
pub mod commit;
#[path = "../../src/config/mod.rs"]
pub mod config;
pub mod entries;
#[path = "../../src/journal/mod.rs"]
pub mod journal;
#[path = "../../src/near.rs"]
pub mod near;
#[path = "../../src/outcome.rs"]
pub mod outcome;
#[path = "../../src/pipeline.rs"]
pub mod pipeline;
#[path = "../../src/processes/mod.rs"]
pub mod processes;
#[path = "../../src/remote/mod.rs"]
pub mod remote;
#[path = "../../src/report/mod.rs"]
pub mod report;
#[path = "../../src/road/mod.rs"]
pub mod road;
#[path = "../../src/stages/mod.rs"]
pub mod stages;
#[path = "../../src/sys/mod.rs"]
pub mod sys;
