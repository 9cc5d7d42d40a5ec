//! SIGKILL at random moments, a thousand times, over a repository that goes on changing and two apps that
//! follow it: one in releases, one in place, with a journal in the same repository of poller's.
//!
//! `POLLER_SEED` plays the same choices again; what the moments of the kills meet is up to the machine.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::all;
use crate::support::readers::same_tree;
use crate::support::repo::{git, git_command};
use crate::support::{Content, World, exec, file, gone, processes, seconds, wait_until};
use crate::tally::{Group, Tally};

const APPS: [&str; 2] = ["site", "place"];
const KEEP: usize = 3;
/// How many rounds there are between two looks at whether all is well.
const CALM: usize = 10;

/// SplitMix64: the same numbers for the same seed, on any machine.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Script {
    Good,
    Fails,
}

struct Chaos {
    world: World,
    dice: Dice,
    /// What was pushed, in order.
    pushed: Vec<(String, Script)>,
    /// How long a run takes that deploys.
    usual: Duration,
    killed: usize,
}

impl Chaos {
    fn begin(seed: u64) -> Chaos {
        let world = World::new("random");
        // All of it is read at the end.
        world.write_host_config("history = 1000");
        world.mount_tmpfs(&world.path("var"), "size=512m,mode=0755", None);
        world.mount_tmpfs(&world.path("target"), "size=64m,mode=0755", None);
        world.mount_tmpfs(&world.path("notes"), "size=16m", Some(&world.deployer));
        world.app("site").target(&format!("keep = {KEEP}")).deploy("retries = 9").write();
        world.app("place").in_place().deploy("retries = 9").write();
        let (dice, usual) = (Dice(seed), Duration::ZERO);
        let mut chaos = Chaos { world, dice, pushed: Vec::new(), usual, killed: 0 };
        chaos.push(Script::Good);
        chaos.world.poll(&[]).expect(0);
        chaos.push(Script::Good);
        chaos.usual = chaos.world.poll(&[]).expect(0).took;
        chaos
    }

    /// It notes what it is run for, and whether it is alone.
    fn script(&self, does: Script) -> Content {
        let notes = self.world.path("notes");
        let exit = if does == Script::Good { 0 } else { 1 };
        exec(format!(
            "#!/bin/sh\nset -eu\ncd '{}'\nexec 9>>\"$POLLER_APP.alone\"\nflock -n 9 || echo \"$POLLER_APP\" >> overlap\n\
             echo \"$POLLER_APP $POLLER_COMMIT\" >> ran\nsleep 0.02\nexit {exit}\n",
            notes.display()
        ))
    }

    fn push(&mut self, script: Script) {
        let n = self.pushed.len();
        let (new, old) = (format!("pages/{n}.html"), format!("pages/{}.html", n.saturating_sub(3)));
        self.world.repo.commit(&[(&old, gone())], "tidy");
        let files = [
            ("deploy.sh", self.script(script)),
            (new.as_str(), file(format!("page {n}\n"))),
            ("index.html", file(format!("{n}\n"))),
        ];
        let commit = self.world.push(&files, "round");
        self.pushed.push((commit, script));
    }

    fn round(&mut self) -> String {
        let pushes = [0, 1, 1, 1, 2][self.dice.below(5)];
        for _ in 0..pushes {
            let script = if self.dice.percent(15) { Script::Fails } else { Script::Good };
            self.push(script);
        }
        let app = APPS[self.dice.below(2)];
        let arguments: &[&str] = match self.dice.below(20) {
            0 => &["rollback", app],
            1 => &["freeze", app, "--reason", "chance"],
            2 | 3 => &["unfreeze", app],
            4 => &["retry", app],
            _ => &[],
        };
        let mut running = self.world.spawn_poll(arguments);
        let moment = self.dice.below(1_200) as u32;
        std::thread::sleep(self.usual * moment / 1_000);
        let (victim, nth) = (self.dice.below(10), self.dice.below(1_000));
        let what = format!("{pushes} pushed, {arguments:?}, at {moment} of 1000");
        if victim == 0 || running.is_over() {
            self.expect_sound(running.wait(), &what);
            return format!("{what}: nobody killed");
        }
        self.killed += 1;
        match victim {
            1..=4 => {
                running.kill_all();
                format!("{what}: all killed")
            }
            5..=7 => {
                running.kill_supervisor();
                format!("{what}: the supervisor killed")
            }
            _ => {
                let helpers = processes::helpers_of(running.pid());
                let helper = helpers.get(nth % helpers.len().max(1)).copied();
                let line = helper.map(processes::command_line).unwrap_or_default();
                helper.inspect(|pid| processes::signal(*pid, Signal::SIGKILL));
                self.expect_sound(running.wait(), &what);
                format!("{what}: killed {line:?}")
            }
        }
    }

    /// A run that was let end ended with a code of its own: deployed, failed, broken off, busy, or refused
    /// because there was nothing to roll back to.
    #[track_caller]
    fn expect_sound(&self, outcome: crate::support::run::Outcome, what: &str) {
        assert!([0, 1, 64, 74, 75].contains(&outcome.code), "{what}: exit {}\n{}", outcome.code, outcome.story());
        assert!(!outcome.stderr.contains("panicked"), "{what}\n{}", outcome.story());
    }

    /// Whatever was killed: `current` leads to a whole tree of something that was pushed.
    #[track_caller]
    fn expect_whole(&self) {
        let live = fs::canonicalize(self.world.target("site").join("current")).expect("something is live");
        let commit = fs::read_to_string(live.join("REVISION")).unwrap().trim().to_owned();
        assert!(self.pushed.iter().any(|(pushed, _)| *pushed == commit), "{commit} is live");
        same_tree(&self.world.tree_of(&live), &self.world.repo.ls_tree(&commit));
    }

    /// The script is mended and the freezes are lifted: a plain poll deploys the tip to both.
    #[track_caller]
    fn calm(&mut self) {
        self.push(Script::Good);
        // A rollback that was cut short is carried through first, frozen or not.
        self.until_free(&[]);
        for app in APPS {
            self.until_free(&["unfreeze", app]);
        }
        self.until_free(&[]);
        let (tip, _) = self.pushed.last().unwrap();
        for app in APPS {
            self.world.expect_live(app, tip);
            self.world.expect_no_leftovers(app);
        }
        self.world.expect_no_processes();
        self.world.poll(&[]).expect(0).silent();
    }

    /// What a killed run left may hold the lock for a moment.
    #[track_caller]
    fn until_free(&self, arguments: &[&str]) {
        wait_until("a lock that is free", seconds(30), || self.world.poll(arguments).expect_one_of(&[0, 75]).code == 0);
    }
}

#[test]
fn over_a_repository_that_goes_on_changing() {
    needs_root!();
    needs_program!("flock");
    let chosen = std::env::var("POLLER_SEED").ok().map(|seed| seed.parse().expect("POLLER_SEED is a number"));
    let seed = chosen.unwrap_or_else(|| u64::from(u32::from_str_radix(&crate::support::random_word(), 16).unwrap()));
    eprintln!("to make the same choices again: POLLER_SEED={seed}");
    let rounds = if all() { 1_000 } else { 40 };
    let mut tally = Tally::new(Group::Kills);
    let mut chaos = Chaos::begin(seed);
    for round in 1..=rounds {
        tally.case(format!("round {round} with POLLER_SEED={seed}"));
        let what = chaos.round();
        eprintln!("{round}: {what}");
        chaos.expect_whole();
        if round % CALM == 0 {
            chaos.calm();
        }
    }
    chaos.calm();
    let scripts = fs::read_to_string(chaos.world.notes("ran")).unwrap();
    assert_eq!(chaos.world.note("overlap"), "", "two scripts of one app at a time");
    let mut entries = 0;
    for app in APPS {
        entries += expect_history(&chaos, app, &scripts);
    }
    let grown = expect_explained(&chaos, entries);
    tally.note(format!("{} killed, {} pushed, {entries} entries; {grown}", chaos.killed, chaos.pushed.len()));
}

/// The journal tells one story, in which each commit was deployed once, or left out for a newer one; how
/// many entries it has.
#[track_caller]
fn expect_history(chaos: &Chaos, app: &str, scripts: &str) -> usize {
    let place: BTreeMap<&str, (usize, Script)> =
        chaos.pushed.iter().enumerate().map(|(n, (commit, script))| (commit.as_str(), (n, *script))).collect();
    let journal = chaos.world.journal(app);
    let (mut live, mut newest, mut times) = (String::new(), None, BTreeMap::new());
    for entry in journal.iter().rev().filter(|entry| entry.outcome() == "deployed") {
        let (kind, to) = (entry.kind(), entry.to().to_owned());
        let (nth, script) = place[to.as_str()];
        let told = format!("{app}: {kind} of push {nth}");
        assert_eq!(script, Script::Good, "{told}: its script fails");
        assert_eq!(entry.text("from"), live, "{told}: it went on from something else");
        // By hand one goes back to anything; a poll goes forward, or again to what was left.
        if kind != "rollback" {
            assert!(to != live, "{told}: twice");
            assert!(newest.is_none_or(|newest| newest <= nth), "{told}: after push {newest:?}");
            newest = Some(nth);
        }
        *times.entry(to.clone()).or_insert(0) += 1;
        live = to;
    }
    assert_eq!(live, chaos.pushed.last().unwrap().0, "{app}: the newest is what is deployed");
    assert_eq!(chaos.world.recorded(app).as_ref(), Some(&live), "{app}: state and history agree");
    for (commit, recorded) in times {
        let ran = scripts.lines().filter(|line| *line == format!("{app} {commit}")).count();
        assert!(ran >= recorded, "{app}: {commit} is recorded {recorded} times, and its script ran {ran} times");
    }
    journal.len()
}

/// Nothing is on the disk that the journal does not explain; how much that is.
#[track_caller]
fn expect_explained(chaos: &Chaos, entries: usize) -> String {
    let world = &chaos.world;
    for (folder, known) in [
        (world.run_dir(), &["site.lock", "place.lock"][..]),
        (world.log_file().parent().unwrap().to_owned(), &["poller.log"]),
    ] {
        let odd: Vec<_> = names(&folder).into_iter().filter(|name| !known.contains(&name.as_str())).collect();
        assert!(odd.is_empty(), "{}: {odd:?}", folder.display());
    }
    // What was deployed before stays, also where it is what somebody went back to and older than all that are kept.
    assert!(world.releases("site").len() <= KEEP + 1, "{:?}", world.releases("site"));
    let repositories = world.repositories();
    let [repository] = repositories.as_slice() else { panic!("{repositories:?}") };
    assert_eq!(names(&world.state()).len(), 1);
    let usual = ["HEAD", "config", "description", "hooks", "info", "journal-packs", "objects", "refs"];
    let odd: Vec<_> = names(repository).into_iter().filter(|name| !usual.contains(&name.as_str())).collect();
    assert!(odd.is_empty(), "{odd:?}");
    assert_eq!(names(&repository.join("refs/poller")), ["place", "site"]);
    let packs = names(&repository.join("objects/pack"));
    assert!(packs.iter().all(|name| name.ends_with(".pack") || name.ends_with(".idx")), "{packs:?}");
    // A fetch that was killed is made again, and may bring the same and something newer.
    let packs = packs.iter().filter(|name| name.ends_with(".pack")).count();
    assert!(packs <= chaos.pushed.len() + chaos.killed, "{packs} packs for {} pushes", chaos.pushed.len());

    let mut fsck = git_command();
    fsck.args(["fsck", "--strict", "--unreachable", "--no-progress"]).current_dir(repository);
    let out = fsck.output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{text}{}", String::from_utf8_lossy(&out.stderr));
    let (unreachable, other): (Vec<_>, Vec<_>) = text.lines().partition(|line| line.starts_with("unreachable "));
    assert!(other.is_empty(), "{other:?}");
    // An entry that was cut short is a commit, a tree and three files; a commit that was fetched and not
    // begun, for a newer one came, is two commits (one tidies), their trees and files.
    let bound = 5 * chaos.killed + 12 * chaos.pushed.len();
    assert!(unreachable.len() <= bound, "{} objects that nothing names, more than {bound}", unreachable.len());
    let kib = git(repository, &["count-objects", "-v"]);
    let of = |name: &str| kib.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(": ")).unwrap_or("?").to_owned();
    assert_eq!(of("garbage"), "0", "{kib}");
    let size = du(repository) / 1024;
    format!(
        "{packs} packs, {} loose objects, {} unreachable, {size} KiB for {entries} entries",
        of("count"),
        unreachable.len()
    )
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The bytes of all files.
fn du(folder: &Path) -> u64 {
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let meta = entry.metadata().unwrap();
            if meta.is_dir() { du(&entry.path()) } else { meta.len() }
        })
        .sum()
}
