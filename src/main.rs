//! poller: a cron line that deploys what was pushed. `docs/architecture.md` is the map.

use std::process::ExitCode;

use clap::CommandFactory;
use nix::sys::stat::{Mode, umask};

use cli::{Cli, Command};
use outcome::{Class, Failure};
use processes::Role;
use report::terminal::{expect_json, print, print_failure, settled, tell};
use stages::decide::Force;

mod cli;
mod commands;
mod commit;
mod config;
#[cfg(test)]
#[path = "../fuzz/src/entries/mod.rs"]
mod entries;
mod journal;
mod near;
mod outcome;
mod pipeline;
mod processes;
mod remote;
mod report;
mod road;
mod stages;
mod sys;

fn main() -> ExitCode {
    // A panic is a bug; its text is on standard error, and its code is not mistaken for an outcome.
    std::panic::catch_unwind(run).unwrap_or(ExitCode::from(Class::Bug.exit_code()))
}

fn run() -> ExitCode {
    if let Some((role, parent)) = Role::of_this_process() {
        return match processes::run(role, &parent) {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => {
                tell(&format!("poller: {}: {e:#}", role.word()));
                ExitCode::from(Class::Bug.exit_code())
            }
        };
    }
    let cli = match cli::parse() {
        Ok(cli) => cli,
        Err(e) => {
            // --help and --version come this way too; nothing is left to say when the terminal is gone.
            let _ = e.print();
            if e.use_stderr() && std::env::args_os().any(|word| word == "--json") {
                let text = e.to_string();
                let message = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
                expect_json();
                print_failure(&Failure::new(Class::Usage, message).help("poller --help"));
            }
            return if e.use_stderr() { ExitCode::from(Class::Usage.exit_code()) } else { ExitCode::SUCCESS };
        }
    };
    if cli.common.json {
        expect_json();
    }
    // With 002 poller would not trust its own folders, with 077 its fetch user could not get to them. What is
    // not for others says so itself.
    umask(Mode::from_bits_truncate(0o022));
    ExitCode::from(settled(obey(&cli)))
}

fn obey(cli: &Cli) -> u8 {
    let common = &cli.common;
    match &cli.command {
        None if cli.dry_run => commands::dry_run::run(cli),
        None => {
            let force = if cli.force { Force::Yes } else { Force::No };
            commands::poll::run(&commands::poll::Request { common, apps: &cli.apps, force })
        }
        Some(Command::Init(init)) => commands::init::run(common, init),
        Some(Command::Check(check)) => commands::check::run(common, check),
        Some(Command::Sudoers { apps }) => commands::sudoers::run(common, apps),
        Some(Command::Status { apps }) => commands::status::run(common, apps),
        Some(Command::History { app, lines }) => commands::history::run(common, app, *lines),
        Some(Command::Log { app, run, follow }) => {
            let mode = if *follow { commands::log::Mode::Follow } else { commands::log::Mode::Show };
            commands::log::run(common, app, run.as_deref(), mode)
        }
        Some(Command::Freeze { app, reason, time }) => commands::freeze::freeze(common, app, reason, *time),
        Some(Command::Unfreeze { app }) => commands::freeze::unfreeze(common, app),
        Some(Command::Rollback { app, commit, reason }) => {
            commands::rollback::run(common, app, commit.as_deref(), reason.as_deref())
        }
        Some(Command::Retry { app }) => commands::retry::run(common, app),
        Some(Command::Adopt { app, commit }) => commands::adopt::run(common, app, commit.as_deref()),
        Some(Command::Completions { shell }) => {
            let mut text = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "poller", &mut text);
            print(&String::from_utf8_lossy(&text));
            0
        }
    }
}
