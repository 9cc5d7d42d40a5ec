//! The target directory, and the programs of the host: looked at by the stager, as the deploy user.

use super::commands::{self, Needs};
use super::finding::Finding;
use super::{Doctor, Patient};
use crate::config::Layout;
use crate::outcome::{Class, Failure};
use crate::processes::messages::{InTree, Room, Verified};
use crate::processes::workshop::Workshop;
use crate::road::prepare::is_new_here;

/// What is found of the commands, and of the target.
pub fn look(
    patient: &Patient,
    doctor: &Doctor,
    needs: &Needs,
    in_tree: Option<&[InTree]>,
    verified: Option<&Verified>,
) -> (Vec<Finding>, Vec<Finding>) {
    let app = patient.app;
    // Nobody else may look there.
    let Ok(account) = &patient.account else { return (commands::judge(needs, in_tree, None), Vec::new()) };
    let deploy = doctor.fetch.is_some().then(|| account.clone());
    let mut shop = Workshop::new(app, patient.repository.clone(), doctor.fetch.as_ref(), deploy, &doctor.stop);
    let shared = if app.target.layout == Layout::InPlace { Vec::new() } else { app.target.shared.clone() };
    let room = shop.room(shared, needs.on_host(in_tree), needs.path).map_err(Failure::of);
    let state = patient.journal.as_ref().and_then(|journal| journal.as_ref().ok()).map(|journal| &journal.state);
    let is_new = state.is_some_and(|state| is_new_here(app, state));
    let refused = match &room {
        Ok(_) if is_new => shop.inspect().err().map(Failure::of),
        _ => None,
    };
    shop.finish();
    let unusable = room.as_ref().ok().map(|room| room.unusable.as_slice());
    let commands = commands::judge(needs, in_tree, unusable);
    let mut found = match (&room, refused) {
        (Err(failure), _) => vec![Finding::of("target", failure.clone())],
        (Ok(_), Some(failure)) => vec![Finding::of("target", failure)],
        (Ok(room), None) => judge(&app.target.directory.display().to_string(), &account.name, room),
    };
    if let Ok(room) = &room {
        found.extend(verified.and_then(|verified| full(app.target.layout, verified, room)));
        found.extend(room.missing.iter().map(|entry| {
            let path = app.target.directory.join("shared").join(entry);
            Finding::warning("shared", format!("{} is not there yet", path.display())).fix(
                "put it there, or let the script make it through the link; a folder is written with a `/` at its end",
            )
        }));
    }
    if app.target.layout == Layout::InPlace && !app.target.shared.is_empty() {
        found.push(
            Finding::warning("shared", "`[target] shared` does nothing with `layout = \"in-place\"`")
                .fix("remove it: what the repository does not have stays where it is"),
        );
    }
    (commands, found)
}

fn judge(directory: &str, user: &str, room: &Room) -> Vec<Finding> {
    if room.not_writable.is_empty() {
        return vec![Finding::ok("target", format!("{directory}, writable by {user}"))];
    }
    let finding = |(below, why): &(String, String)| {
        let text = format!("{directory}{below} cannot be written by {user}: {why}");
        let finding = Finding::failed("target", Class::Io, text);
        match why.contains("ead-only") {
            true => finding.fix(format!("look at: findmnt -T {directory}")),
            false => finding.fix(format!("chown {user}: {directory}{below}")),
        }
    };
    room.not_writable.iter().map(finding).collect()
}

/// Whether one more release has room: its own size, and a tenth more for folders and the ends of blocks.
fn full(layout: Layout, verified: &Verified, room: &Room) -> Option<Finding> {
    let tenth_more = |n: u64| n.saturating_add(n / 10);
    let (bytes, files) = (tenth_more(verified.bytes), tenth_more(verified.files) + 2);
    let text = if room.bytes < bytes {
        format!("one more release needs {}, and {} are free", size(bytes), size(room.bytes))
    } else if room.counts_inodes && room.inodes < files {
        format!("one more release needs {files} inodes, and {} are free", room.inodes)
    } else {
        return None;
    };
    Some(match layout {
        Layout::Releases => {
            Finding::failed("room", Class::Io, text).fix("make room (df -h, df -i), or lower `[target] keep`")
        }
        // Only what differs is written.
        Layout::InPlace => {
            Finding::warning("room", text + "; a deploy writes only what changed").fix("make room (df -h, df -i)")
        }
    })
}

/// A number of bytes as a person reads it.
pub fn size(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    let power = (1..=4).rev().find(|&power| bytes >= 1 << (10 * power));
    match power {
        None => format!("{bytes} bytes"),
        Some(power) => format!("{:.1} {}", bytes as f64 / (1u64 << (10 * power)) as f64, units[power - 1]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_told_in_the_unit_that_fits() {
        for (bytes, text) in
            [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (3 << 20, "3.0 MiB"), (5 << 40, "5.0 TiB")]
        {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn a_release_needs_bytes_and_inodes_and_some_file_systems_do_not_count_the_latter() {
        let verified = Verified { bytes: 1000, files: 100, ..Verified::default() };
        let room = |bytes, inodes, counts_inodes| Room { bytes, inodes, counts_inodes, ..Room::default() };
        for (room, expected) in [
            (room(1100, 112, true), None),
            (room(1099, 112, true), Some("1.1 KiB")),
            (room(5000, 111, true), Some("112 inodes")),
            (room(5000, 0, false), None),
        ] {
            let found = full(Layout::Releases, &verified, &room);
            assert_eq!(found.is_some(), expected.is_some(), "{room:?}");
            assert!(found.is_none_or(|finding| finding.text.contains(expected.unwrap_or_default())));
        }
    }
}
