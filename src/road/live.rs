//! What changes what is live: build, activate, deploy, restart, health, and the commands they run.

use anyhow::Result;

use super::{Begun, Reached, Road, Setback, SetbackCause};
use crate::commit::Commit;
use crate::config::Command;
use crate::event;
use crate::journal::state::Kind;
use crate::outcome::{Class, Failure};
use crate::processes::calls::Calls;
use crate::processes::messages::{Cause, End, Keep, Kept};
use crate::processes::output::Line;
use crate::processes::script::{self, Observer};
use crate::report::printable;
use crate::report::terminal::Console;
use crate::stages::deploy::Errand;
use crate::stages::health::{self, No};
use crate::stages::lock::Lock;
use crate::sys::proc::Identity;
use crate::sys::signals::{self, Stop};

/// sysexits.h: "not now".
const TEMPFAIL: i32 = 75;

/// What is being deployed, or gone back to.
pub struct Destination<'a> {
    pub kind: Kind,
    pub commit: &'a Commit,
    pub previous: Option<&'a Commit>,
    pub release: &'a str,
    pub reference: &'a str,
}

impl Begun {
    pub fn destination(&self) -> Destination<'_> {
        Destination {
            kind: self.facts.kind,
            commit: &self.facts.commit,
            previous: self.before.deployed.as_ref().map(|d| &d.commit),
            release: self.facts.release.as_deref().unwrap_or_default(),
            reference: &self.facts.reference,
        }
    }
}

impl Road<'_> {
    pub fn build(&mut self, begun: &Begun) -> Result<(), Setback> {
        let Some(command) = &self.app.deploy.build else {
            return Ok(());
        };
        // In place there is no release to build in before it is live.
        if self.is_in_place() {
            return Ok(());
        }
        self.command("build", "build", command, &begun.destination(), Reached::Build)?;
        // Once it is live, a power cut must not leave what the build made without its content.
        self.timed("build", |road| road.shop.sync()).map_err(|e| Setback {
            failure: Failure::of(e),
            exit: None,
            reached: Reached::Build,
            cause: SetbackCause::Machine,
        })
    }

    pub fn activate(&mut self, begun: &Begun) -> Result<(), Setback> {
        let machine =
            |e| Setback { failure: Failure::of(e), exit: None, reached: Reached::Live, cause: SetbackCause::Machine };
        self.ensure_log().map_err(|e| Setback { reached: Reached::Build, ..machine(e) })?;
        if self.context.stop.cause().is_some() {
            return Err(self.stopped(Reached::Build));
        }
        self.enter("activate").map_err(machine)?;
        let name = begun.facts.release.clone().unwrap_or_default();
        self.timed("activate", |road| road.shop.activate(&name)).map_err(machine)?;
        event!(INFO, "activate.finished", app = self.name(), stage = "activate", commit = begun.facts.commit.as_str(); "live");
        match &self.app.deploy.build {
            Some(command) if self.is_in_place() => {
                self.command("build", "build", command, &begun.destination(), Reached::Live)
            }
            _ => Ok(()),
        }
    }

    pub fn deploy(&mut self, begun: &Begun) -> Result<(), Setback> {
        let Some(command) = &self.app.deploy.script else {
            return Ok(());
        };
        self.command("deploy", "script", command, &begun.destination(), Reached::Live)
    }

    pub fn restart(&mut self, begun: &Begun) -> Result<(), Setback> {
        self.units(&begun.destination(), Some(&self.context.stop))
    }

    pub fn health(&mut self, begun: &Begun) -> Result<(), Setback> {
        let Some(check) = &self.app.health else {
            return Ok(());
        };
        self.enter("health").map_err(|e| Setback {
            failure: Failure::of(e),
            exit: None,
            reached: Reached::Live,
            cause: SetbackCause::Machine,
        })?;
        let destination = begun.destination();
        let stop = &self.context.stop;
        let mut calls = Calls::new(self.context.fetch_account.as_ref());
        let mut exit = None;
        let result = health::ask(check.attempts, check.interval, stop, || {
            if let Some(command) = &check.command {
                let job = Keep { timeout: check.timeout, ..self.errand(&destination).command(command) };
                let kept = self.run(&job, "health", destination.commit, Some(stop)).map_err(|e| match e.class {
                    // What it left running could not be ended, for one: nothing may run beside that.
                    Class::Io => No::Broken(e),
                    _ => No::NotYet(e.message),
                })?;
                exit = exit_of(&kept);
                script::verdict("the health check", &job, &kept).map_or(Ok(()), |why| Err(No::NotYet(why)))?;
            }
            let Some(url) = &check.url else { return Ok(()) };
            exit = None;
            let said = health::get(url, check.timeout, |call| calls.ask(call, Some(stop)));
            let text = said.as_deref().unwrap_or_else(|why| why);
            event!(INFO, "health.answered", app = self.name(), stage = "health", commit = destination.commit.as_str(); "{text}");
            said.map(drop).map_err(No::NotYet)
        });
        let reached = Reached::Live;
        match result {
            Ok(()) => Ok(()),
            Err(_) if stop.cause().is_some() => Err(self.stopped(reached)),
            Err(No::NotYet(why)) => {
                Err(Setback { failure: Failure::new(Class::Deploy, why), exit, reached, cause: SetbackCause::Commit })
            }
            Err(No::Broken(failure)) => Err(Setback { failure, exit: None, reached, cause: SetbackCause::Machine }),
        }
    }

    /// Restarts and reloads the units that the app names.
    pub fn units(&mut self, destination: &Destination, stop: Option<&Stop>) -> Result<(), Setback> {
        let deploy = &self.app.deploy;
        let all = deploy
            .restart
            .iter()
            .map(|unit| ("restart", unit))
            .chain(deploy.reload.iter().map(|unit| ("reload", unit)));
        for (verb, unit) in all {
            let job = self.errand(destination).unit(verb, unit, self.context.is_root);
            self.judged(verb, &format!("systemctl {verb} {unit}"), &job, destination, Reached::Live, stop).map_err(
                |mut setback| {
                    if !self.context.is_root {
                        setback.failure =
                            setback.failure.help(format!("may this user? sudo -n -l systemctl {verb} {unit}"));
                    }
                    setback.failure = setback
                        .failure
                        .help(format!("look at it: systemctl status {unit}; journalctl -u {unit} -n 50"));
                    setback
                },
            )?;
        }
        Ok(())
    }

    pub(super) fn command(
        &mut self,
        stage: &'static str,
        what: &str,
        command: &Command,
        destination: &Destination,
        reached: Reached,
    ) -> Result<(), Setback> {
        let job = self.errand(destination).command(command);
        self.judged(stage, &format!("the {what} {command}"), &job, destination, reached, Some(&self.context.stop))
    }

    /// The script of the release that is gone back to.
    pub fn former_script(&mut self, destination: &Destination) -> Result<(), Setback> {
        let Some(command) = &self.app.deploy.script else {
            return Ok(());
        };
        let job = self.errand(destination).command(command);
        self.judged(
            "rollback",
            &format!("the former release's script {command}"),
            &job,
            destination,
            Reached::Live,
            Some(&self.context.stop),
        )
    }

    fn judged(
        &mut self,
        stage: &'static str,
        what: &str,
        job: &Keep,
        destination: &Destination,
        reached: Reached,
        stop: Option<&Stop>,
    ) -> Result<(), Setback> {
        let setback = |failure, exit, cause| Setback { failure, exit, reached, cause };
        self.enter(stage).map_err(|e| setback(Failure::of(e), None, SetbackCause::Machine))?;
        let kept = self.timed(stage, |road| road.run(job, stage, destination.commit, stop)).map_err(|failure| {
            let cause = if failure.class == Class::Io { SetbackCause::Machine } else { SetbackCause::Commit };
            setback(failure, None, cause)
        })?;
        let Some(text) = script::verdict(what, job, &kept) else {
            return Ok(());
        };
        let exit = exit_of(&kept);
        if matches!(&kept, Kept::Ended(End { cause: Cause::Stopped, .. })) {
            return Err(self.stopped(reached));
        }
        let cause = match &kept {
            // Said by itself, and not when it was ended.
            Kept::Ended(End { cause: Cause::Exited, left, alive, .. })
                if exit == Some(TEMPFAIL) && left.is_empty() && alive.is_empty() =>
            {
                SetbackCause::NotNow
            }
            _ => SetbackCause::Commit,
        };
        let mut failure = Failure::new(Class::Deploy, text);
        if matches!(&kept, Kept::NotStarted { .. }) && !job.argv[0].contains('/') {
            failure = failure.help(format!(
                "a name without a slash is looked for in PATH; a file of the release is written ./{}",
                job.argv[0]
            ));
        }
        Err(setback(failure, exit, cause))
    }

    fn stopped(&self, reached: Reached) -> Setback {
        let cause = self.context.stop.cause();
        let why = cause.map_or_else(|| "a signal".to_owned(), |c| c.to_string());
        let mut failure = Failure::new(Class::Interrupted, format!("the deploy was interrupted by {why}"));
        if let Some(signals::Cause::Deadline(_)) = cause {
            failure = failure.help("all that a run does has to end within `[host] deadline`: raise it, or lower `[deploy] timeout`; it is begun again until it fits");
        }
        Setback { failure, exit: None, reached, cause: SetbackCause::Stopped }
    }

    fn errand<'a>(&'a self, destination: &Destination<'a>) -> Errand<'a> {
        Errand {
            app: self.app,
            account: &self.account,
            run: &self.context.run,
            kind: destination.kind,
            reference: destination.reference,
            commit: destination.commit,
            previous: destination.previous,
            release: destination.release,
        }
    }

    /// Runs one command and logs what it says.
    fn run(&mut self, job: &Keep, stage: &'static str, commit: &Commit, stop: Option<&Stop>) -> Result<Kept, Failure> {
        let app = self.app.name.as_str();
        event!(INFO, "command.started", app = app, stage = stage, commit = commit.as_str(); "{}", printable(&job.argv.join(" ")));
        let mut output = std::mem::take(self.output);
        output.begin();
        let mut witness = Witness { lock: self.lock, console: &self.context.console, app, stage, commit };
        let kept = script::run(job, stop, &mut output, &mut witness);
        if let Some(gap) = output.gap() {
            event!(WARN, "deploy.output.dropped", app = app, stage = stage, commit = commit.as_str(); "{gap}");
        }
        output.tail().for_each(|line| witness.say(line));
        *self.output = output;
        // A keeper that died left its script to itself: nothing else runs before that is ended.
        // So do processes that withstood their end.
        let is_over = kept.as_ref().is_ok_and(|kept| !matches!(kept, Kept::Ended(end) if !end.alive.is_empty()));
        let settled = if is_over { self.lock.runs(None, None) } else { self.lock.recover(app) };
        let kept = kept.map_err(script::broken)?;
        settled.map_err(Failure::of)?;
        event!(INFO, "command.finished", app = app, stage = stage, commit = commit.as_str(), exit = exit_of(&kept).map(i64::from); "{}", script::verdict("it", job, &kept).unwrap_or_else(|| "it went well".to_owned()));
        Ok(kept)
    }
}

fn exit_of(kept: &Kept) -> Option<i32> {
    match kept {
        Kept::Ended(end) => end.exit,
        _ => None,
    }
}

/// Sees a command run, for the lock file, the log and a terminal.
struct Witness<'a> {
    lock: &'a mut Lock,
    console: &'a Console,
    app: &'a str,
    stage: &'static str,
    commit: &'a Commit,
}

impl Witness<'_> {
    fn say(&self, line: &Line) {
        let text = String::from_utf8_lossy(&line.text);
        event!(INFO, "deploy.output", app = self.app, stage = self.stage, commit = self.commit.as_str(), stream = line.stream.word(); "{}", text.trim_end_matches('\r'));
        self.console.output(self.app, &printable(&text));
    }
}

impl Observer for Witness<'_> {
    fn runs(&mut self, keeper: Option<Identity>, script: Option<Identity>) -> Result<()> {
        self.lock.runs(keeper, script)
    }

    fn line(&mut self, line: &Line) {
        self.say(line);
    }
}
