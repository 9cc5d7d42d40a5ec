//! Many apps of one repository, each by a proxy of its own, so that many cases run side by side; and what
//! must hold of each after its network misbehaved.

use std::collections::BTreeMap;
use std::time::Duration;

use super::noise;
use crate::support::mischief::{Plan, Proxy, Recording};
use crate::support::repo::git;
use crate::support::run::Outcome;
use crate::support::{World, exec, file, gone};

/// What `[source] timeout` is while the network misbehaves, and `[host] deadline`.
pub const TIMEOUT: Duration = Duration::from_secs(2);
pub const DEADLINE: Duration = Duration::from_secs(6);

/// How an app's poll under mischief ended.
pub struct Ended {
    pub code: i32,
    pub took: Duration,
    /// Whether its proxy struck at all.
    pub struck: bool,
}

pub struct Fleet {
    pub world: World,
    /// The last one belongs to the app that goes first and is recorded.
    proxies: Vec<Proxy>,
    live: String,
    rounds: usize,
}

fn name(number: usize) -> String {
    format!("app{number:02}")
}

impl Fleet {
    /// So many apps that meet mischief, deployed.
    pub fn new(size: usize) -> Fleet {
        let world = World::new("fleet");
        let proxies: Vec<Proxy> = (0..=size).map(|_| Proxy::before(world.sshd.port)).collect();
        let pinned: String = proxies.iter().map(|p| world.sshd.known_hosts_line_for(p.port)).collect();
        world.write_etc("known_hosts", &pinned);
        let mut fleet = Fleet { world, proxies, live: String::new(), rounds: 0 };
        fleet.calm();
        fleet.push();
        fleet.world.poll(&[]).expect(0);
        fleet
    }

    pub fn size(&self) -> usize {
        self.proxies.len() - 1
    }

    /// Time enough for a machine that has much to do.
    fn calm(&self) {
        self.configure("20s", "deadline = \"90s\"\njobs = 16");
        self.proxies.iter().for_each(Proxy::behave);
    }

    fn configure(&self, timeout: &str, host: &str) {
        for (number, proxy) in self.proxies.iter().enumerate() {
            let url = self.world.sshd.url_by_port(proxy.port, &self.world.repo.bare);
            self.world.app(&name(number)).source(&format!("url = \"{url}\"\ntimeout = \"{timeout}\"")).write();
        }
        self.world.write_host_config(host);
    }

    /// A commit with 40 kB that no compression makes shorter.
    pub fn push(&mut self) {
        self.rounds += 1;
        let notes = self.world.notes("");
        let script = format!("#!/bin/sh\necho \"$POLLER_COMMIT\" >> '{}'\"$POLLER_APP\"\n", notes.display());
        let old = format!("noise-{}", self.rounds - 1);
        let new = format!("noise-{}", self.rounds);
        let files = [("deploy.sh", exec(script)), (old.as_str(), gone()), (new.as_str(), file(noise(40_000)))];
        self.live = self.world.push(&files, "next");
    }

    /// The connections of a poll that goes well: one without, two with something to fetch.
    pub fn record(&self) -> Vec<Recording> {
        let proxy = self.proxies.last().expect("one more than the fleet");
        proxy.behave();
        self.world.poll(&[&name(self.size())]).expect(0);
        proxy.recordings()
    }

    /// Polls an app for each plan, all at once, and holds each to what was promised.
    pub fn meet(&self, plans: &[Plan]) -> Vec<Ended> {
        assert!(plans.len() <= self.size());
        self.configure("2s", &format!("deadline = \"{}s\"", DEADLINE.as_secs()));
        let before = self.journals();
        let live: Vec<_> = (0..plans.len()).map(|n| self.world.revision(&name(n))).collect();
        let releases: Vec<_> = (0..plans.len()).map(|n| self.world.releases(&name(n))).collect();
        for (proxy, plan) in self.proxies.iter().zip(plans) {
            proxy.meet(*plan);
        }
        let running: Vec<_> = (0..plans.len()).map(|n| self.world.spawn_poll(&[&name(n)])).collect();
        // Each has a thread that waits for it, or the first would hide when the others ended.
        let outcomes: Vec<Outcome> = std::thread::scope(|scope| {
            let waiting: Vec<_> = running.into_iter().map(|run| scope.spawn(|| run.wait())).collect();
            waiting.into_iter().map(|run| run.join().expect("a run that ends")).collect()
        });
        let after = self.journals();
        let mut ended = Vec::new();
        for (number, outcome) in outcomes.into_iter().enumerate() {
            let (app, plan) = (name(number), plans[number]);
            let shown = self.world.revision(&app);
            let story = format!("{app}, {plan:?}: exit {}\n{}", outcome.code, outcome.story());
            if outcome.code == 0 {
                assert_eq!(shown.as_ref(), Some(&self.live), "{story}");
            } else {
                assert_eq!(shown, live[number], "what is live: {story}");
                assert_eq!(self.world.releases(&app), releases[number], "{story}");
                assert_eq!(after.get(&app), before.get(&app), "the journal: {story}");
                assert!(!self.world.note(&app).contains(&self.live) || live[number].as_ref() == Some(&self.live));
            }
            self.world.expect_no_leftovers(&app);
            let struck = self.proxies[number].struck() > 0;
            assert!(outcome.took < DEADLINE + Duration::from_secs(20), "took {:?}: {story}", outcome.took);
            ended.push(Ended { code: outcome.code, took: outcome.took, struck });
        }
        self.world.expect_no_processes();
        ended
    }

    /// The network is well again: the next poll of all deploys what they missed.
    pub fn recover(&self) {
        self.calm();
        self.world.poll(&[]).expect(0);
        for number in 0..self.proxies.len() {
            self.world.expect_live(&name(number), &self.live);
            let ran = self.world.note(&name(number));
            assert_eq!(ran.lines().filter(|line| **line == self.live).count(), 1, "its script ran once");
        }
    }

    /// The newest entry of each app's journal.
    fn journals(&self) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        for bare in self.world.repositories() {
            let refs = git(&bare, &["for-each-ref", "--format=%(refname:lstrip=2) %(objectname)", "refs/poller"]);
            found.extend(refs.lines().filter_map(|l| l.split_once(' ')).map(|(a, b)| (a.to_owned(), b.to_owned())));
        }
        found
    }
}
