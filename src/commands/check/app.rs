//! One app: its findings, in the order in which a poll would meet them.

use jiff::Timestamp;

use super::commands::Needs;
use super::finding::Finding;
use super::{Doctor, Patient, file, source, sudo, target};
use crate::journal::Journal;
use crate::outcome::{Class, Failure};
use crate::processes::messages::{InTree, Programs, Signers, Tip, Verified};
use crate::processes::workshop::Workshop;
use crate::report::{duration, plural};
use crate::road::prepare::verify_request;
use crate::stages::decide::{Decision, Force, Policy, Skip, decide};
use crate::stages::{lock, signature};

/// Without a doctor, the fetch user is missing: then only this machine is looked at.
pub fn examine(patient: &Patient, doctor: Option<&Doctor>) -> Vec<Finding> {
    let app = patient.app;
    let mut found = vec![file(app)];
    found.push(match &patient.account {
        Ok(account) => Finding::ok("user", &account.name),
        Err(failure) => Finding::of("user", failure.clone()),
    });
    found.extend(source::look(patient));
    found.extend(signers(patient));
    let needs = Needs::of(app);
    let mut seen = None;
    if let Some(doctor) = doctor {
        found.extend(time(patient, doctor));
        found.extend(journal(patient, doctor));
        if let (Some(Ok(tip)), Ok(signers)) = (&patient.tip, &patient.signers) {
            match look_at_commit(patient, doctor, tip, signers.as_ref(), &needs) {
                Ok((verified, in_tree)) => {
                    found.extend(commit(tip, &verified));
                    seen = Some((verified, in_tree));
                }
                Err(failure) => found.push(Finding::of("commit", failure)),
            }
        }
        let in_tree = seen.as_ref().map(|(_, in_tree)| in_tree.as_slice());
        let verified = seen.as_ref().map(|(verified, _)| verified);
        let (commands, targets) = target::look(patient, doctor, &needs, in_tree, verified);
        found.extend(commands);
        found.extend(targets);
    } else {
        found.push(
            Finding::warning("server", "not asked, and its commits not looked at, for want of the fetch user")
                .fix("see above"),
        );
    }
    if let Ok(account) = &patient.account {
        found.extend(sudo::look(app, account));
    }
    found
}

/// A command that may take longer than the run is never ended by its own limit, and begun again at each poll.
fn time(patient: &Patient, doctor: &Doctor) -> Option<Finding> {
    let (timeout, deadline) = (patient.app.deploy.timeout, doctor.config.host.deadline);
    let text = format!(
        "a command may take {}, and the whole run, all apps together, {}",
        duration(timeout),
        duration(deadline)
    );
    let fix =
        "raise `[host] deadline`, or lower `[deploy] timeout`: what the deadline ends is begun again at each poll";
    (timeout >= deadline).then(|| Finding::warning("timeout", text).fix(fix))
}

/// A file of keys that stops the app, or keys in it that let nobody sign.
fn signers(patient: &Patient) -> Vec<Finding> {
    let idle = match &patient.signers {
        Ok(None) => return Vec::new(),
        Ok(Some(signers)) => signature::idle_keys(signers),
        Err(failure) => Err(failure.clone()),
    };
    match idle {
        Ok(idle) => idle.into_iter().map(|failure| Finding::of("signers", failure).beside_polls()).collect(),
        Err(failure) => vec![Finding::of("signers", failure)],
    }
}

/// Where the app stands, as far as that keeps it from being deployed.
fn journal(patient: &Patient, doctor: &Doctor) -> Vec<Finding> {
    let app = patient.app;
    let name = app.name.as_str();
    let state = match &patient.journal {
        Some(Ok(Journal { state, .. })) => state,
        Some(Err(failure)) => return vec![Finding::of("journal", failure.clone())],
        None => return Vec::new(),
    };
    let stands = match &state.deployed {
        Some(deployed) => format!("{} is deployed, since {:.0}", deployed.commit.short(), deployed.at),
        None => "new: nothing was deployed yet".to_owned(),
    };
    let mut found = vec![Finding::ok("journal", stands)];
    let now = Timestamp::now();
    if let Some(frozen) = state.frozen.as_ref().filter(|frozen| frozen.holds(now)) {
        let text = Skip::Frozen(frozen.clone()).to_string();
        found.push(Finding::warning("frozen", text).fix(format!("poller unfreeze {name}")));
        return found;
    }
    if let Some(Ok(tip)) = &patient.tip {
        let waited = lock::peek(&lock::path(&doctor.config.paths.run, name)).waited();
        if let Decision::Skip(skip) = decide(state, &tip.commit, &Policy::of(app, Force::No, waited), now) {
            let finding = Finding::warning("state", skip.to_string());
            found.push(match skip {
                Skip::Soaking { .. } => Finding::ok("state", skip.to_string()),
                _ => {
                    finding.fix(format!("what it said: poller log {name}")).fix(format!("at once: poller retry {name}"))
                }
            });
        }
    }
    found
}

/// Fetches the tip into a quarantine and holds it against the rules, as a dry run does.
fn look_at_commit(
    patient: &Patient,
    doctor: &Doctor,
    tip: &Tip,
    signers: Option<&Signers>,
    needs: &Needs,
) -> Result<(Verified, Vec<InTree>), Failure> {
    let (app, origin) = (patient.app, patient.origin.as_ref().map_err(Clone::clone)?);
    // A journal that cannot be read is told by itself; the commit is then looked at without a past.
    let state = match &patient.journal {
        Some(Ok(journal)) => journal.state.clone(),
        _ => Default::default(),
    };
    let request = verify_request(app, signers, &state, Force::No, false);
    let programs = Programs { paths: needs.in_tree(), subdir: request.subdir.clone(), shared: request.shared.clone() };
    let mut shop = Workshop::new(app, patient.repository.clone(), doctor.fetch.as_ref(), None, &doctor.stop);
    let found = shop.fetch(origin, tip, true, |_, _, _| {}).and_then(|_| {
        let verified = shop.verify(request)?;
        Ok((verified, shop.programs(programs)?))
    });
    // The fetcher removes its quarantine when it ends by itself.
    shop.finish();
    found.map_err(Failure::of)
}

fn commit(tip: &Tip, verified: &Verified) -> Vec<Finding> {
    let size = format!("{}, {}", plural(verified.files as usize, "file"), target::size(verified.bytes));
    let signer = verified.signer.as_ref().map(|signer| format!(", {signer}")).unwrap_or_default();
    let mut found = vec![Finding::ok("commit", format!("{} may be published: {size}{signer}", tip.commit.short()))];
    let warning = |text: &String| Finding::warning("commit", text).fix("the rest is published all the same");
    found.extend(verified.warnings.iter().map(warning));
    found
}

/// What a deploy would fail on, told before it does.
pub const WOULD_FAIL: Class = Class::Deploy;
