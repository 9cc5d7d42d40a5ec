//! poller: a cron line that deploys what was pushed. `docs/architecture.md` is the map.

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use outcome::Class;
use processes::Role;

mod cli;
mod commands;
mod commit;
mod config;
mod journal;
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
                eprintln!("poller: {}: {e:#}", role.word());
                ExitCode::from(Class::Bug.exit_code())
            }
        };
    }
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            // --help and --version come this way too; nothing is left to say when the terminal is gone.
            let _ = e.print();
            return if e.use_stderr() { ExitCode::from(Class::Usage.exit_code()) } else { ExitCode::SUCCESS };
        }
    };
    match cli.command {
        Some(cli::Command::Completions { shell }) => {
            clap_complete::generate(shell, &mut cli::Cli::command(), "poller", &mut std::io::stdout());
            ExitCode::SUCCESS
        }
        None if cli.dry_run => ExitCode::from(commands::dry_run::run(&cli)),
        None => ExitCode::from(commands::poll::run(&cli)),
    }
}
