//! Connections that stall, drip, are reset, are closed or have a bit turned, at the first byte, before the
//! last and at the end of each turn that client and server take, in both directions.

use std::collections::BTreeMap;
use std::time::Duration;

use super::fleet::{DEADLINE, Ended, Fleet, TIMEOUT};
use crate::all;
use crate::support::mischief::{Mood, Place, Plan, Recording, Way};
use crate::tally::{Group, Tally};

/// The turns of a probe, and of a fetch where it differs, as a proxy sees them.
const STAGES: [&str; 19] = [
    "our name",
    "its name",
    "our KEXINIT",
    "its KEXINIT",
    "our half of the key",
    "its half, the host key and NEWKEYS",
    "our NEWKEYS and the service",
    "the service's answer",
    "our key",
    "its answer to the key",
    "our signature",
    "the login's answer",
    "our channel",
    "the channel's answer",
    "the command",
    "the advertisement",
    "what we ask for",
    "the refs or the pack",
    "our farewell",
];
const ASKING: usize = 16;
const FAREWELL: usize = 18;

/// Where one case strikes.
struct Case {
    plan: Plan,
    name: String,
    /// Whether the poll may have had what it needs.
    harmless: bool,
}

impl Case {
    /// A broken line is 69 always, whatever it looked like from here; something that was changed on the way may
    /// be 76. Success needs all that was asked for.
    #[track_caller]
    fn judge(&self, ended: &Ended) {
        let fits = match ended.code {
            0 => self.harmless || !ended.struck,
            69 => true,
            76 => self.plan.mood == Mood::Flips,
            _ => false,
        };
        assert!(fits, "{}: exit {}", self.name, ended.code);
    }
}

/// After the first byte of each turn, before its last one and after it; in the middle too of what is long.
/// Of a byte that is changed: the first, one in the middle, and the last.
fn points(recording: &Recording, mood: Mood) -> Vec<(usize, Way, u64)> {
    let mut points = Vec::new();
    for (turn, (way, length)) in recording.turns.iter().enumerate().take(STAGES.len()) {
        let mut offsets =
            if mood == Mood::Flips { vec![0, length / 2, length - 1] } else { vec![1, length - 1, *length] };
        if *length > 10_000 {
            offsets.extend([length / 10, length / 3]);
        }
        points.extend(offsets.into_iter().map(|offset| (turn, *way, offset)));
    }
    points
}

fn cases(recording: &Recording, connection: usize, moods: &[Mood]) -> Vec<Case> {
    let mut cases = Vec::new();
    for &mood in moods {
        for (turn, way, offset) in points(recording, mood) {
            let plan = Plan { mood, way, place: Place::Turn(turn, offset), connection: Some(connection) };
            let name = format!("{mood:?} {offset} bytes into {}", STAGES[turn]);
            let (length, padding) = (recording.turns[turn].1, [2, 3, 4]);
            let harmless = match mood {
                // The bytes that fill up a packet before the keys are there: SSH itself passes over them. And what ends
                // the channel after the pack: that has come whole by then, and has a checksum of its own.
                Mood::Flips => {
                    let is_last = offset + 1 == length;
                    turn == FAREWELL || is_last && (padding.contains(&turn) || turn + 1 == FAREWELL)
                }
                _ => turn >= ASKING,
            };
            cases.push(Case { plan, name, harmless });
        }
    }
    cases
}

/// All of them, or every few, so that each mood and stage is met somewhere.
fn chosen(cases: Vec<Case>, few: usize) -> Vec<Case> {
    let step = if all() { 1 } else { cases.len().div_ceil(few) };
    // Another beginning each day would be a test that fails by chance: always the same ones.
    cases.into_iter().skip(step / 2).step_by(step).collect()
}

#[derive(Default)]
struct Measured {
    codes: BTreeMap<(String, i32), usize>,
    silence: Duration,
    drip: Duration,
    missed: usize,
}

impl Measured {
    fn take(&mut self, case: &Case, ended: &Ended) {
        *self.codes.entry((format!("{:?}", case.plan.mood), ended.code)).or_default() += 1;
        let longest = if case.plan.mood == Mood::Drips { &mut self.drip } else { &mut self.silence };
        *longest = (*longest).max(ended.took);
        self.missed += usize::from(!ended.struck);
    }

    fn tell(&self, tally: &mut Tally) {
        for ((mood, code), count) in &self.codes {
            tally.note(format!("{mood}: {count} x exit {code}"));
        }
        tally.note(format!("limit {TIMEOUT:?}: at most {:.1} s", self.silence.as_secs_f32()));
        if !self.drip.is_zero() {
            tally.note(format!("dripping, deadline {DEADLINE:?}: at most {:.1} s", self.drip.as_secs_f32()));
        }
        tally.note(format!("{} not met", self.missed));
    }
}

const CUTS: [Mood; 4] = [Mood::Stalls, Mood::Resets, Mood::Closes, Mood::Drips];

#[test]
fn an_unchanged_poll_through_a_connection_that_breaks_anywhere() {
    let mut fleet = Fleet::new(if all() { 16 } else { 8 });
    let mut tally = Tally::new(Group::Network);
    let mut measured = Measured::default();
    let recording = fleet.record().remove(0);
    // What the server says after the farewell comes through or not, as the two run.
    assert!((STAGES.len()..=STAGES.len() + 1).contains(&recording.turns.len()), "{recording:?}");
    for batch in chosen(cases(&recording, 0, &CUTS), 8).chunks(fleet.size()) {
        let plans: Vec<Plan> = batch.iter().map(|case| case.plan).collect();
        for (case, ended) in batch.iter().zip(fleet.meet(&plans)) {
            tally.case(&case.name);
            case.judge(&ended);
            measured.take(case, &ended);
        }
    }
    fleet.push();
    fleet.recover();
    measured.tell(&mut tally);
}

#[test]
fn a_fetch_through_a_connection_that_breaks_anywhere() {
    over_a_fetch(&CUTS, 8);
}

#[test]
fn one_bit_that_is_turned_on_the_way_deploys_nothing() {
    over_a_fetch(&[Mood::Flips], 8);
}

fn over_a_fetch(moods: &[Mood], few: usize) {
    let mut fleet = Fleet::new(if all() { 16 } else { 8 });
    let mut tally = Tally::new(Group::Network);
    let mut measured = Measured::default();
    fleet.push();
    let recordings = fleet.record();
    let mut cases = cases(&recordings[1], 1, moods);
    if moods.contains(&Mood::Flips) {
        cases.extend(self::cases(&recordings[0], 0, moods));
    }
    for (number, batch) in chosen(cases, few).chunks(fleet.size()).enumerate() {
        if number > 0 {
            fleet.push();
            fleet.record();
        }
        let plans: Vec<Plan> = batch.iter().map(|case| case.plan).collect();
        for (case, ended) in batch.iter().zip(fleet.meet(&plans)) {
            tally.case(&case.name);
            case.judge(&ended);
            measured.take(case, &ended);
        }
        fleet.recover();
    }
    measured.tell(&mut tally);
}
