//! The command line, nothing else.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand, error::ErrorKind};

/// Pull-based deploys: asks a git server over SSH whether anything changed, and if so publishes the
/// commit and runs the deploy script as a restricted user.
#[derive(Debug, Parser)]
#[command(name = "poller", version, after_help = AFTER)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,

    #[command(flatten)]
    pub common: Common,

    /// Show what would be done; run nothing, move nothing, leave nothing
    #[arg(short = 'n', long)]
    pub dry_run: bool,

    /// Deploy the apps named even when nothing is new, attempts are used up or history was rewritten
    #[arg(long, requires = "apps")]
    pub force: bool,

    /// Only these apps
    #[arg(value_name = "APP")]
    pub apps: Vec<String>,
}

/// What every command takes.
#[derive(Clone, Debug, Default, Args)]
pub struct Common {
    /// Another poller.toml; apps.d lies beside it
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,

    /// Results as JSON on standard output
    #[arg(long, global = true)]
    pub json: bool,

    /// More in the log
    #[arg(short, long, global = true)]
    pub verbose: bool,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Set an app up: key, host key, target directory and apps.d/NAME.toml
    Init(Init),
    /// Look for whatever would keep apps from being deployed, with the remedy
    Check(Check),
    /// Print the sudoers drop-in that the apps need
    Sudoers {
        /// Only these apps
        #[arg(value_name = "APP")]
        apps: Vec<String>,
    },
    /// Where each app stands and why, without asking any server
    Status {
        /// Only these apps
        #[arg(value_name = "APP")]
        apps: Vec<String>,
    },
    /// The runs that changed something, newest first
    History {
        #[arg(value_name = "APP")]
        app: String,
        /// At most so many
        #[arg(short = 'n', long, value_name = "N", default_value_t = 20)]
        lines: usize,
    },
    /// What the commands of a run said; of the newest without RUN
    Log {
        #[arg(value_name = "APP")]
        app: String,
        /// The run's id, or a beginning of it that no other has
        #[arg(value_name = "RUN")]
        run: Option<String>,
        /// Go on while it runs: ends with 0 when it is deployed or put off, 1 when it fails, 130 at ^C
        #[arg(short, long)]
        follow: bool,
    },
    /// Leave an app as it is until unfreeze, whatever is pushed
    Freeze {
        #[arg(value_name = "APP")]
        app: String,
        /// Why, for whoever wonders
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// For so long only, such as 2h or 3d
        #[arg(long = "for", value_name = "TIME", value_parser = time)]
        time: Option<Duration>,
    },
    /// Let polls deploy a frozen app again
    Unfreeze {
        #[arg(value_name = "APP")]
        app: String,
    },
    /// Go back to the last good release, or to COMMIT, without network, and freeze there
    Rollback {
        #[arg(value_name = "APP")]
        app: String,
        /// A commit that was deployed here before, or a beginning of it that no other has
        #[arg(value_name = "COMMIT")]
        commit: Option<String>,
        /// Why, for whoever wonders
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Try the commit that failed once more, at once
    Retry {
        #[arg(value_name = "APP")]
        app: String,
    },
    /// Take what is live in the target directory for deployed, without running anything
    Adopt {
        #[arg(value_name = "APP")]
        app: String,
        /// The commit that is live, when its files do not tell
        #[arg(value_name = "COMMIT")]
        commit: Option<String>,
    },
    /// Print completions for a shell
    Completions { shell: clap_complete::Shell },
}

#[derive(Clone, Debug, Default, Args)]
pub struct Init {
    /// The app's name: letters, digits, `.`, `_` and `-`
    #[arg(value_name = "NAME")]
    pub name: String,
    /// The repository, as for git clone
    #[arg(value_name = "URL")]
    pub url: String,
    /// Follow this branch; main, if nothing else is said
    #[arg(long, value_name = "NAME", group = "follow")]
    pub branch: Option<String>,
    /// Follow the highest version among the tags that match
    #[arg(long, value_name = "PATTERN", group = "follow")]
    pub tag: Option<String>,
    /// Follow this ref
    #[arg(long = "ref", value_name = "REF", group = "follow")]
    pub reference: Option<String>,
    /// Where to publish; /srv/NAME, if nothing else is said, or for an ordinary user ~/NAME
    #[arg(long, value_name = "DIR")]
    pub directory: Option<PathBuf>,
    /// Who owns what is published and runs the script; the user NAME, if there is one
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,
    /// What to run after publishing; ./deploy.sh, if nothing else is said
    #[arg(long, value_name = "COMMAND")]
    pub script: Option<String>,
    /// A unit to restart after each deploy; may be given several times
    #[arg(long, value_name = "UNIT")]
    pub restart: Vec<String>,
    /// The server's host key, by its fingerprint as its owner publishes it
    #[arg(long, value_name = "SHA256:…")]
    pub accept_host_key: Option<String>,
}

#[derive(Clone, Debug, Default, Args)]
pub struct Check {
    /// Only these apps
    #[arg(value_name = "APP")]
    pub apps: Vec<String>,
    /// Only what the files say: needs no network and no root
    #[arg(long)]
    pub config_only: bool,
}

/// What was typed, or clap's own answer to it (`--help`, a mistake).
pub fn parse() -> Result<Cli, clap::Error> {
    let cli = Cli::try_parse()?;
    // clap would let these stand before a subcommand, where they mean nothing.
    if cli.command.is_some() && (cli.dry_run || cli.force || !cli.apps.is_empty()) {
        let text = "--dry-run, --force and apps before a command are for polling; write them without one, or the apps after it\n";
        return Err(Cli::command().error(ErrorKind::ArgumentConflict, text));
    }
    Ok(cli)
}

/// A length of time as the configuration writes it.
fn time(text: &str) -> Result<Duration, String> {
    if text.starts_with('-') {
        return Err("it lies in the past".to_owned());
    }
    match crate::config::duration(text)? {
        Duration::ZERO => Err("nothing can be frozen for no time at all".to_owned()),
        time => Ok(time),
    }
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
    fn the_configuration_may_be_named_before_and_after_a_command() {
        for words in [["poller", "--config", "/f", "status", "a"], ["poller", "status", "a", "--config", "/f"]] {
            let cli = Cli::try_parse_from(words).unwrap();
            assert_eq!(cli.common.config, Some(PathBuf::from("/f")));
            assert!(matches!(cli.command, Some(Command::Status { apps }) if apps == ["a"]));
        }
    }

    #[test]
    fn a_freeze_that_ends_before_it_begins_is_refused() {
        for text in ["0s", "-2h", "2", "yesterday"] {
            let words = ["poller", "freeze", "a", "--reason", "x", &format!("--for={text}")].map(str::to_owned);
            assert!(Cli::try_parse_from(words).is_err(), "{text}");
        }
    }

    #[test]
    fn every_flag_and_exit_status_is_in_the_man_page() {
        let page = include_str!("../docs/man/poller.8");
        let command = Cli::command();
        let subcommands = command.get_subcommands().flat_map(|c| c.get_arguments());
        for argument in command.get_arguments().chain(subcommands) {
            if let Some(long) = argument.get_long() {
                // mdoc writes the first dash itself.
                assert!(page.contains(&format!("Fl -{long}")), "--{long}");
            }
            if let Some(short) = argument.get_short() {
                assert!(page.contains(&format!("Fl {short}")), "-{short}");
            }
        }
        for subcommand in command.get_subcommands() {
            assert!(page.contains(&format!("Cm {}", subcommand.get_name())), "{}", subcommand.get_name());
        }
        for code in [78, 77, 76, 74, 1, 69, 75, 0, 64, 70] {
            assert!(page.contains(&format!(".It {code}")), "{code}");
        }
    }
}
