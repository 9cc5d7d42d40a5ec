//! The stager: the one process that touches the target directory, as the app's deploy user.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::messages::{Onto, StagerJob, StagerReply, StagerRequest};
use super::wire;
use crate::config::Layout;
use crate::outcome::Failure;
use crate::stages::activate::Target;
use crate::stages::clone::Begun;
use crate::stages::room::is_usable;
use crate::stages::stage::Staged;
use crate::sys::cage::{Cage, Outside, Reading};
use crate::sys::limits::Limits;

pub fn run() -> Result<()> {
    let mut input = std::io::BufReader::with_capacity(256 << 10, std::io::stdin().lock());
    let mut kept = Kept::default();
    let mut is_caged = false;
    while let Some(job) = wire::receive::<StagerJob>(&mut input)? {
        if !std::mem::replace(&mut is_caged, true) {
            close_cage(&job.directory)?;
        }
        let reply = answer(job, &mut input, &mut kept).map_err(Failure::of);
        let broke_off = reply.is_err();
        wire::send(&mut std::io::stdout().lock(), &reply)?;
        if broke_off {
            // What is left of a tree in the pipe is no request.
            return Ok(());
        }
    }
    Ok(())
}

/// Leaves the target directory to write. It is the same in all jobs of a stager.
fn close_cage(directory: &Path) -> Result<()> {
    Limits::STAGER.impose()?;
    Cage { read: Reading::Anywhere, write: &[directory], remove: None, outside: Outside::Settled }.enter()
}

/// What the next request goes on with.
#[derive(Default)]
struct Kept {
    /// Staged in place, not live yet.
    waiting: Option<(Target, Staged)>,
    /// A release that has its clones.
    begun: Option<Begun>,
}

fn answer(job: StagerJob, input: &mut impl Read, kept: &mut Kept) -> Result<StagerReply> {
    let target = Target::open(&job.directory)?;
    match (job.request, job.layout) {
        (StagerRequest::Inspect { app }, layout) => {
            target.inspect(&app, layout == Layout::Releases)?;
            Ok(StagerReply::Inspected)
        }
        (StagerRequest::Has { release }, Layout::Releases) => Ok(StagerReply::Has(target.has(&release)?)),
        (StagerRequest::Has { .. }, Layout::InPlace) => Ok(StagerReply::Has(false)),
        (StagerRequest::Live, layout) => {
            let (release, commit) = target.what_is_live(layout == Layout::Releases)?;
            Ok(StagerReply::Live { release, commit })
        }
        (StagerRequest::Room { shared, programs, path }, layout) => {
            let mut room = target.room(layout == Layout::Releases, &shared)?;
            room.unusable = programs.into_iter().filter(|program| !is_usable(program, &path)).collect();
            Ok(StagerReply::Room(room))
        }
        (StagerRequest::CanClone { release }, Layout::Releases) => {
            Ok(StagerReply::CanClone(target.can_clone(&release)))
        }
        (StagerRequest::Clone { name, release }, Layout::Releases) => {
            let (begun, lacking) = target.clone_release(&name, &release, input)?;
            kept.begun = Some(begun);
            Ok(StagerReply::Cloned { lacking })
        }
        (StagerRequest::Stage { name, commit, shared, onto }, Layout::Releases) => {
            let begun = match onto {
                Onto::Nothing => Begun::empty(&target, &name)?,
                Onto::Clones => kept.begun.take().filter(|begun| begun.is(&name)).context("nothing was cloned")?,
            };
            target.stage_release(begun, commit.as_ref(), &shared, input)
        }
        (StagerRequest::Stage { commit, .. }, Layout::InPlace) => {
            let (reply, staged) = target.stage_in_place(commit.as_ref(), input)?;
            kept.waiting = Some((target, staged));
            Ok(reply)
        }
        (StagerRequest::Sync, layout) => {
            target.sync(layout == Layout::Releases)?;
            Ok(StagerReply::Synced)
        }
        (StagerRequest::Activate { name }, Layout::Releases) => {
            target.switch(Some(&name))?;
            Ok(StagerReply::Activated)
        }
        (StagerRequest::Activate { .. }, Layout::InPlace) => {
            // Where it was staged, whatever has the directory's name by now.
            let (target, staged) = kept.waiting.take().context("nothing was staged")?;
            target.apply(&staged)?;
            Ok(StagerReply::Activated)
        }
        (StagerRequest::Restore { release }, Layout::Releases) => {
            target.switch(release.as_deref())?;
            Ok(StagerReply::Restored)
        }
        (StagerRequest::Retire { keep, protect, remove }, Layout::Releases) => target.retire(keep, &protect, &remove),
        (
            StagerRequest::Restore { .. }
            | StagerRequest::Retire { .. }
            | StagerRequest::CanClone { .. }
            | StagerRequest::Clone { .. },
            Layout::InPlace,
        ) => {
            bail!("a request that makes no sense in place")
        }
    }
}
