//! The command line, nothing else.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Pull-based deploys: asks a git server over SSH whether anything changed, and if so publishes the
/// commit and runs the deploy script as a restricted user.
#[derive(Debug, Parser)]
#[command(name = "poller", version, args_conflicts_with_subcommands = true, after_help = AFTER)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Show what would be done; run nothing, move nothing, leave nothing
    #[arg(short = 'n', long)]
    pub dry_run: bool,

    /// Deploy the apps named even when nothing is new, attempts are used up or history was rewritten
    #[arg(long, requires = "apps")]
    pub force: bool,

    /// Another poller.toml; apps.d lies beside it
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Results as JSON on standard output
    #[arg(long)]
    pub json: bool,

    /// More in the log
    #[arg(short, long)]
    pub verbose: bool,

    /// Only these apps
    #[arg(value_name = "APP")]
    pub apps: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print completions for a shell
    Completions { shell: clap_complete::Shell },
}

const AFTER: &str = "\
Exit status, the first of these that happened:
  78 configuration   77 refused: permissions, signature, rewind, authentication
  76 host key or protocol   74 input/output   1 a deploy failed
  69 remote unreachable or timed out   75 another run holds the lock   0 all else
  64 usage   70 a bug

Files: /etc/poller/poller.toml, /etc/poller/apps.d/NAME.toml, /var/log/poller/poller.log
An ordinary user's: $XDG_CONFIG_HOME/poller, and $XDG_STATE_HOME/poller for state, locks and log.";

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn force_wants_the_apps_named() {
        assert!(Cli::try_parse_from(["poller", "--force"]).is_err());
        assert!(Cli::try_parse_from(["poller", "--force", "todo"]).is_ok());
        assert!(Cli::try_parse_from(["poller", "-n", "--json", "a", "b"]).is_ok());
    }

    #[test]
    fn every_flag_and_exit_status_is_in_the_man_page() {
        let page = include_str!("../docs/man/poller.8");
        let command = Cli::command();
        for argument in command.get_arguments() {
            if let Some(long) = argument.get_long() {
                // mdoc writes the first dash itself.
                assert!(page.contains(&format!("Fl -{long}")), "--{long}");
            }
            if let Some(short) = argument.get_short() {
                assert!(page.contains(&format!("Fl {short}")), "-{short}");
            }
        }
        for subcommand in command.get_subcommands() {
            assert!(page.contains(subcommand.get_name()), "{}", subcommand.get_name());
        }
        for code in [78, 77, 76, 74, 1, 69, 75, 0, 64, 70] {
            assert!(page.contains(&format!(".It {code}")), "{code}");
        }
    }
}
