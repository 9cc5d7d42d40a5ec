//! A machine whose power can be cut: the world with its state, its target or both on a disk of its own.
//! The git server, the configuration and the scripts' notes lie elsewhere and lose nothing.

use std::fs;
use std::os::unix::fs::symlink;

use crate::support::mounts::{Cut, Disk, Kind};
use crate::support::run::Running;
use crate::support::{World, exec, file, gone, link, processes, seconds, wait_until};

/// What lies on the disk that loses its power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// State, locks, log and target, on one file system.
    Everything,
    /// State, locks and log; the target is on a disk that goes on.
    State,
    /// The target alone.
    Target,
}

#[derive(Clone, Copy, Debug)]
pub struct Make {
    pub kind: Kind,
    pub lost: Lost,
    pub cut: Cut,
}

impl std::fmt::Display for Make {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let lost = match self.lost {
            Lost::Everything => "state and target",
            Lost::State => "the state",
            Lost::Target => "the target",
        };
        let log = if self.cut == Cut::UnsyncedData { ", log flushed" } else { "" };
        write!(f, "{lost} on {}{log}", self.kind.name())
    }
}

pub struct Machine {
    // Dropped first: it is mounted inside the world.
    disk: Disk,
    pub world: World,
    pub make: Make,
    layout: &'static str,
}

/// A path under `shared/` that is too long for an inode to hold the link to it.
pub const LONG: &str = "store/of-things-that-outlive-every-release/under-a-name-that-is-long/uploads";

impl Machine {
    pub fn new(name: &str, make: Make, layout: &'static str) -> Machine {
        let world = World::new(name);
        let at = world.path(if make.lost == Lost::Target { "target" } else { "var" });
        if make.lost == Lost::Everything {
            fs::remove_dir(world.path("target")).unwrap();
            symlink("var/target", world.path("target")).unwrap();
        }
        let disk = Disk::make(make.kind, &world.path("disk"), &at);
        let machine = Machine { disk, world, make, layout };
        machine.fill();
        machine
    }

    /// As it was before anything was deployed.
    pub fn make_anew(&self) {
        self.disk.make_anew();
        for other in ["var/state", "var/run", "var/log", "target/site"] {
            let _ = fs::remove_dir_all(self.world.path(other));
        }
        self.fill();
    }

    fn fill(&self) {
        let world = &self.world;
        if self.make.lost == Lost::Everything {
            fs::create_dir(world.path("var/target")).unwrap();
        }
        let app = world.app("site").deploy("build = \"./build.sh\"").target(&format!("layout = \"{}\"", self.layout));
        match self.layout {
            "releases" => app.target(&format!("shared = [\"media/\", \"{LONG}/\"]")).write(),
            _ => app.write(),
        }
        self.disk.sync();
    }

    pub fn is_in_place(&self) -> bool {
        self.layout == "in-place"
    }

    /// A commit in which files come, go, change and stay; its build and its script make files of their own.
    pub fn push(&self, round: usize) -> String {
        let world = &self.world;
        let make = |name: &str| format!("mkdir -p made && echo \"$POLLER_COMMIT\" > made/{name}\n{}", self.hold(name));
        let old = format!("pages/{}.html", round.saturating_sub(2));
        let page = format!("pages/{round}.html");
        let folder = format!("{}/deep/er/page", round % 2);
        let other = format!("{}/deep", (round + 1) % 2);
        let files = [
            (old.as_str(), gone()),
            (other.as_str(), gone()),
            (page.as_str(), file("page\n")),
            (folder.as_str(), file(format!("deep {round}\n"))),
            ("index.html", file(format!("{round}\n"))),
            ("big", file(format!("{round:8}").repeat(20_000))),
            ("same", file("the same\n")),
            ("newest", link(&page)),
            ("build.sh", exec(format!("#!/bin/sh\nset -eu\n{}", make("by-build")))),
            ("deploy.sh", world.script(&make("by-script"))),
        ];
        world.push(&files, &format!("round {round}"))
    }

    /// The same with a script that fails, once it has made its file.
    pub fn push_failing(&self, round: usize) -> String {
        self.push(round);
        let script = self.world.script("mkdir -p made && echo bad > made/by-script\nexit 1\n");
        self.world.push(&[("deploy.sh", script)], "failing")
    }

    /// Lines of a script that stands still where the test wants it to.
    fn hold(&self, name: &str) -> String {
        let (wanted, there) = (self.world.notes("wanted"), self.world.notes("there"));
        let (wanted, there) = (wanted.display(), there.display());
        format!("if [ \"$(cat '{wanted}' 2>/dev/null)\" = {name} ]; then touch '{there}'; exec sleep 100; fi\n")
    }

    /// A poll whose script `name` has made its file, and stands still.
    pub fn poll_until(&self, name: &str) -> Running {
        let (wanted, there) = (self.world.notes("wanted"), self.world.notes("there"));
        fs::write(&wanted, name).unwrap();
        let running = self.world.spawn_poll(&[]);
        wait_until(&format!("{name} to be made"), seconds(60), || there.exists());
        fs::remove_file(wanted).unwrap();
        fs::remove_file(there).unwrap();
        running
    }

    /// The end of all that runs, at once.
    pub fn cut(&self, running: Option<Running>) {
        self.disk.cut(self.make.cut);
        if let Some(running) = running {
            // The supervisor first: it is not to see its helpers end.
            for pid in processes::helpers_of(running.pid()) {
                processes::signal(pid, nix::sys::signal::Signal::SIGKILL);
            }
        }
        processes::kill_all_of(&self.world);
        self.disk.power_on();
    }

    pub fn sync(&self) {
        self.disk.sync();
    }
}
