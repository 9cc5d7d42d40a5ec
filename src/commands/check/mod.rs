//! `poller check`: whatever would keep apps from being deployed, each with its remedy.
//!
//! It asks what a poll asks, by the same helpers, and changes nothing: no lock, no log, no journal. What
//! one app suffers from never hides the findings of another.

mod app;
mod ask;
mod commands;
mod finding;
mod host;
pub mod schedule;
mod source;
mod sudo;
mod target;

use std::path::PathBuf;

use anyhow::Result;
use nix::sys::signal::SigSet;

use super::setting::{self, Selection};
use crate::cli::{Check, Common};
use crate::config::{App, Config};
use crate::journal::Journal;
use crate::outcome::Failure;
use crate::processes::messages::{Access, Origin, Probed, Push, ReaderReply, ReaderRequest, Signers, Tip};
use crate::processes::preparation::{Preparation, Prepared};
use crate::processes::supervisor;
use crate::report::terminal::{print, print_json};
use crate::sys::account::Account;
use crate::sys::signals::{self, Stop};
use finding::{Finding, Paint, Report};

pub fn run(common: &Common, check: &Check) -> u8 {
    setting::run(|_| {
        let signals = signals::block()?;
        let loaded = match check.config_only {
            true => supervisor::load_unchecked(common.config.as_deref()),
            false => supervisor::load(common.config.as_deref()),
        };
        let (host, report) = match loaded {
            Ok(config) if check.config_only => (config.host.name.clone(), written(&config, &check.apps)?),
            Ok(config) => (config.host.name.clone(), examine(&config, &check.apps, signals)?),
            Err(failure) => {
                let name = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned());
                let host = vec![Finding::of("config", failure)];
                (name.unwrap_or_default(), Report { host, ..Report::default() })
            }
        };
        match common.json {
            true => print_json(&report.as_json(&host)),
            false => print(&report.as_text(&host, Paint::of_standard_output())),
        }
        Ok(report.exit())
    })
}

/// `--config-only`: what the files say.
fn written(config: &Config, named: &[String]) -> Result<Report> {
    let Selection { apps, elsewhere, broken } = setting::select(config, named)?;
    let sound = apps.into_iter().chain(elsewhere);
    let mut apps: Vec<(String, Vec<Finding>)> = sound.map(|app| (name(app), vec![file(app)])).collect();
    apps.extend(broken.into_iter().map(|(app, failure)| (app, vec![Finding::of("config", failure)])));
    apps.sort_by(|one, other| one.0.cmp(&other.0));
    Ok(Report { host: vec![host::configuration(config)], apps })
}

/// What all apps of a check share.
struct Doctor<'c> {
    config: &'c Config,
    /// None for an ordinary user, who does everything as himself.
    fetch: Option<Account>,
    stop: Stop,
}

/// One app, and what is known of it so far. What failed is told once, where it belongs.
struct Patient<'c> {
    app: &'c App,
    account: Result<Account, Failure>,
    origin: Result<Origin, Failure>,
    signers: Result<Option<Signers>, Failure>,
    repository: PathBuf,
    journal: Option<Result<Journal, Failure>>,
    tip: Option<Result<Tip, Failure>>,
    push: Push,
}

fn examine(config: &Config, named: &[String], signals: SigSet) -> Result<Report> {
    let selection = setting::select(config, named)?;
    let stop = signals::watch(signals, config.host.deadline)?;
    let mut preparation = Preparation::new(config)?;
    let fetch = preparation.fetch_account().map_err(Failure::of);
    let mut host = host::look(config, &fetch);
    host.extend(schedule::look(&Account::current()?.name));

    let mut patients = Vec::new();
    for app in selection.apps {
        patients.push(Patient {
            app,
            account: preparation.deploy_account(app).map_err(Failure::of),
            origin: preparation.origin(app).map_err(Failure::of),
            signers: preparation.signers(app).map_err(Failure::of),
            repository: preparation.repository(app)?,
            journal: None,
            tip: None,
            push: Push::Unknown,
        });
    }
    let mut report = Report { host, apps: Vec::new() };
    // Without the fetch user nobody may talk to a server: root does not.
    if let Ok(fetch) = fetch {
        let doctor = Doctor { config, fetch, stop };
        doctor.read_journals(&mut patients);
        doctor.ask_servers(&mut patients)?;
        report.apps.extend(patients.iter().map(|patient| (name(patient.app), app::examine(patient, Some(&doctor)))));
    } else {
        report.apps.extend(patients.iter().map(|patient| (name(patient.app), app::examine(patient, None))));
    }
    let elsewhere = |app: &App| {
        let text = format!("not for this host: only for {}", app.source.hosts.join(", "));
        (name(app), vec![file(app), Finding::ok("hosts", text)])
    };
    report.apps.extend(selection.elsewhere.into_iter().map(elsewhere));
    report.apps.extend(selection.broken.into_iter().map(|(app, failure)| (app, vec![Finding::of("config", failure)])));
    report.apps.sort_by(|one, other| one.0.cmp(&other.0));
    Ok(report)
}

impl Doctor<'_> {
    /// All at once; when that goes wrong as a whole, each by a process of its own.
    fn read_journals(&self, patients: &mut [Patient]) {
        let read = |patients: &[Patient]| -> Result<Vec<Result<Journal, Failure>>> {
            let wanted = patients.iter().map(|p| (name(p.app), p.repository.clone())).collect();
            match supervisor::read(self.fetch.as_ref(), &ReaderRequest::Journals(wanted))? {
                ReaderReply::Journals(journals) if journals.len() == patients.len() => Ok(journals),
                _ => anyhow::bail!("the reader answered another question"),
            }
        };
        let journals = read(patients).unwrap_or_else(|_| {
            let one = |patient| read(std::slice::from_ref(patient)).map(|mut one| one.remove(0));
            patients.iter().map(|patient| one(patient).unwrap_or_else(|e| Err(Failure::of(e)))).collect()
        });
        patients.iter_mut().zip(journals).for_each(|(patient, journal)| patient.journal = Some(journal));
    }

    /// The tips of all apps, then whether the keys that worked may push.
    fn ask_servers(&self, patients: &mut [Patient]) -> Result<()> {
        let (fetch, jobs) = (self.fetch.as_ref(), self.config.host.jobs);
        let me = Account::current()?;
        let mut asked = Vec::new();
        for (index, patient) in patients.iter().enumerate() {
            let Ok(origin) = &patient.origin else { continue };
            // The prober has no use for the deploy user, who may not exist.
            let (app, origin, repository) = (patient.app, origin.clone(), patient.repository.clone());
            asked.push((index, Prepared { app, account: me.clone(), origin, repository, signers: None }));
        }
        let prepared: Vec<&Prepared> = asked.iter().map(|(_, prepared)| prepared).collect();
        let mut tips: Vec<(usize, Result<Probed, Failure>)> = Vec::new();
        supervisor::probe(&prepared, supervisor::start_prober(fetch), jobs, &self.stop, |place, probed| {
            tips.push((place, probed))
        });
        for (place, probed) in tips {
            let mut answer = probed;
            // The prober broke as a whole. Asked alone, an app that is well is told from the one it broke on.
            if answer.is_err() && prepared.len() > 1 {
                supervisor::probe(
                    &prepared[place..=place],
                    supervisor::start_prober(fetch),
                    jobs,
                    &self.stop,
                    |_, probed| answer = probed,
                );
            }
            patients[asked[place].0].tip = Some(answer.and_then(|probed| probed.tip));
        }
        let known = |p: &Patient| p.tip.as_ref().is_some_and(|tip| tip.is_ok());
        let mut origins: Vec<Origin> = Vec::new();
        for origin in patients.iter().filter(|p| known(p)).filter_map(|p| p.origin.as_ref().ok()) {
            if matches!(origin.access, Access::Key { .. }) && !origins.contains(origin) {
                origins.push(origin.clone());
            }
        }
        let rights = supervisor::rights(origins.clone(), fetch, jobs, &self.stop);
        for patient in patients {
            let origin = patient.origin.as_ref().ok();
            let place = origins.iter().position(|asked| Some(asked) == origin);
            patient.push = place.map_or(Push::Unknown, |place| rights[place]);
        }
        Ok(())
    }
}

fn name(app: &App) -> String {
    app.name.as_str().to_owned()
}

fn file(app: &App) -> Finding {
    Finding::ok("config", app.file.display().to_string())
}
