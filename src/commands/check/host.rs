//! The host's side: configuration, folders, log, metrics and whom to tell.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::sys::statvfs::statvfs;
use nix::unistd::{AccessFlags, Uid, User, access};

use super::finding::Finding;
use crate::config::{Config, Notify, notify};
use crate::outcome::{Class, Failure, MAKE_ROOM};
use crate::report::metrics::place::Folder;
use crate::report::plural;
use crate::sys::account::Account;
use crate::sys::cage::Offered;
use crate::sys::trusted_file;

/// What a poll that deploys a small commit writes, at least.
const LEAST_BYTES: u64 = 64 << 10;
const LEAST_INODES: u64 = 16;

pub fn look(config: &Config, fetch: &Result<Option<Account>, Failure>) -> Vec<Finding> {
    let mut found = vec![configuration(config)];
    match fetch {
        Ok(Some(account)) => found.push(Finding::ok("fetch_user", &account.name)),
        Ok(None) => {}
        Err(failure) => found.push(Finding::of("fetch_user", failure.clone())),
    }
    let owner = fetch.as_ref().ok().and_then(Option::as_ref);
    let paths = &config.paths;
    found.push(with_room(state(&paths.state, owner), &paths.state));
    found.push(with_room(run(&paths.run), &paths.run));
    found.push(with_room(log(&paths.log), paths.log.parent().unwrap_or(Path::new("/"))));
    found.push(cage(Offered::here()));
    found.extend(config.metrics.as_ref().map(|metrics| textfile(&metrics.textfile).beside_polls()));
    found.extend(config.notify.iter().flat_map(notification));
    found
}

pub fn configuration(config: &Config) -> Finding {
    let count = config.apps.len() + config.broken.len();
    let file = &config.file;
    let folder = file.with_file_name("apps.d");
    let file = if file.exists() {
        file.display().to_string()
    } else {
        format!("no {}: all is at its default", file.display())
    };
    if count == 0 {
        return Finding::warning("config", format!("{file}; no app in {}", folder.display()))
            .fix("make one: poller init NAME URL");
    }
    Finding::ok("config", format!("{file}, {}", plural(count, "app")))
}

/// Where the repositories are; missing is fine as long as a poll can make it.
fn state(path: &Path, owner: Option<&Account>) -> Finding {
    let check = "state";
    let Ok(meta) = fs::metadata(path) else { return missing(check, path) };
    let (wanted, name) = match owner {
        Some(account) => (account.uid, account.name.clone()),
        None => (Uid::effective().as_raw(), "you".to_owned()),
    };
    let shown = path.display();
    if !meta.is_dir() {
        return Finding::failed(check, Class::Io, format!("{shown} is not a folder")).fix("move it away");
    }
    // Without its user, root cannot say whose it is to be.
    if meta.uid() != wanted && (owner.is_some() || !Uid::effective().is_root()) {
        let theirs = user(meta.uid());
        let finding = Finding::failed(check, Class::Refused, format!("{shown} belongs to {theirs} and not to {name}"));
        return match owner {
            Some(_) => finding.fix(format!("chown -R {name}: {shown}")),
            None => finding.fix("as root: sudo poller check"),
        };
    }
    let mode = meta.mode() & 0o7777;
    if mode & 0o022 != 0 {
        let text = format!("{shown} can be written by others (mode {mode:04o}), and it decides what is deployed");
        return Finding::failed(check, Class::Refused, text).fix(format!("chmod go-w {shown}"));
    }
    if mode & 0o700 != 0o700 {
        return Finding::failed(check, Class::Io, format!("{shown} cannot be written by {name} (mode {mode:04o})"))
            .fix(format!("chmod u+rwx {shown}"));
    }
    Finding::ok(check, shown.to_string())
}

fn run(path: &Path) -> Finding {
    if !path.exists() {
        return missing("locks", path);
    }
    match trusted_file::check_folder(path) {
        Ok(()) => writable("locks", path),
        Err(e) => Finding::of("locks", Failure::of(e)),
    }
}

fn log(path: &Path) -> Finding {
    let check = "log";
    let Some(folder) = path.parent() else {
        return Finding::failed(check, Class::Config, "a log without a folder").fix("set `[paths] log`");
    };
    if !folder.exists() {
        return missing(check, folder);
    }
    if let Err(e) = trusted_file::check_folder(folder) {
        return Finding::of(check, Failure::of(e));
    }
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
    match OpenOptions::new().append(true).custom_flags(flags).open(path) {
        Ok(_) => Finding::ok(check, path.display().to_string()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let found = writable(check, folder);
            if found.is_failed() { found } else { Finding::ok(check, format!("{}, not there yet", path.display())) }
        }
        Err(e) => Finding::failed(check, Class::Io, format!("{} cannot be opened: {e}", path.display()))
            .fix("nothing is deployed without a log; mend it, or set `[paths] log`"),
    }
}

/// Without room for an entry and its objects, a poll ends before it begins.
fn with_room(finding: Finding, folder: &Path) -> Finding {
    let Some(there) = folder.ancestors().find(|folder| folder.exists()).filter(|_| !finding.is_failed()) else {
        return finding;
    };
    let Ok(stat) = statvfs(there) else { return finding };
    // What is kept back is for root.
    let is_roots = Uid::effective().is_root() && fs::metadata(there).is_ok_and(|meta| meta.uid() == 0);
    let (blocks, inodes) = match is_roots {
        true => (stat.blocks_free(), stat.files_free()),
        false => (stat.blocks_available(), stat.files_available()),
    };
    if blocks.saturating_mul(stat.fragment_size()) < LEAST_BYTES {
        full(finding.check, there, "bytes")
    } else if stat.files() > 0 && inodes < LEAST_INODES {
        full(finding.check, there, "inodes")
    } else {
        finding
    }
}

fn full(check: &'static str, folder: &Path, of: &str) -> Finding {
    let text = format!("the file system of {} is full: it has next to no {of} left", folder.display());
    Finding::failed(check, Class::Io, text).fix(MAKE_ROOM)
}

/// What this kernel has to lock helpers in with. A poll takes what there is.
fn cage(offered: Offered) -> Finding {
    let Offered { landlock, seccomp } = offered;
    let seccomp_word = if seccomp { "seccomp" } else { "no seccomp" };
    let landlock_word = if landlock > 0 { format!("landlock {landlock}") } else { "no landlock".to_owned() };
    let text = format!("{landlock_word}, {seccomp_word}");
    if offered.is_enough() {
        return Finding::ok("cage", text);
    }
    let text = format!("{text}: helpers can do more than they need, should a server break into one");
    let mut finding = Finding::warning("cage", text);
    if landlock == 0 {
        finding = finding
            .fix("Linux has landlock since 5.13, and poller needs that of 5.19; in a container, its seccomp profile decides")
            .fix("where it is built in and turned off: add it to `lsm=` on the kernel's command line");
    } else if landlock == 1 {
        finding = finding.fix("the fetcher needs landlock 2, which Linux has since 5.19");
    }
    match seccomp {
        true => finding,
        false => {
            finding.fix("the kernel lacks CONFIG_SECCOMP_FILTER, or a container's profile keeps seccomp(2) from it")
        }
    }
}

fn textfile(path: &Path) -> Finding {
    let check = "metrics";
    let folder = path.parent().unwrap_or(Path::new("/"));
    let shown = folder.display();
    if !folder.is_dir() {
        let finding = Finding::failed(check, Class::Config, format!("{shown} is not there, so no metrics are written"));
        return finding
            .fix("Debian's exporter makes it: apt-get install prometheus-node-exporter")
            .fix(format!("or by hand: install -d -m 755 {shown}"));
    }
    if path.extension().is_none_or(|end| end != "prom") {
        return Finding::warning(check, format!("{}: the exporter reads only names that end in .prom", path.display()))
            .fix("rename it in `[metrics] textfile`");
    }
    match Folder::open(path).map(|_| writable(check, folder)) {
        Err(e) => Finding::of(check, Failure::of(e)),
        Ok(found) if found.is_failed() => found,
        Ok(_) => Finding::ok(check, path.display().to_string()),
    }
}

fn notification(notify: &Notify) -> Vec<Finding> {
    let check = "notify";
    let mut found = Vec::new();
    if let Some(command) = &notify.command {
        let found_of_it = program(check, Path::new(command.program()));
        found.push(found_of_it.unwrap_or_else(|| Finding::ok(check, command.to_string())).beside_polls());
    }
    for (what, url) in [("url", &notify.url), ("ping", &notify.ping)] {
        found.extend(
            url.as_ref().map(|url| Finding::ok(check, format!("{what}: {}, not called now", notify::shown(url)))),
        );
    }
    found
}

/// What keeps an absolute program from being run.
pub fn program(check: &'static str, path: &Path) -> Option<Finding> {
    let shown = path.display();
    if let Err(e) = trusted_file::check_program(path) {
        let failure = Failure::of(e);
        let missing = !path.exists();
        return Some(match failure.class {
            Class::Io if missing => Finding::failed(check, Class::Config, format!("{shown} does not exist"))
                .fix("name a program of this host, or a file of the release as ./NAME"),
            _ => Finding::of(check, failure),
        });
    }
    let meta = fs::metadata(path).ok()?;
    if !meta.is_file() || meta.mode() & 0o111 == 0 {
        return Some(
            Finding::failed(check, Class::Deploy, format!("{shown} is not executable"))
                .fix(format!("chmod a+x {shown}")),
        );
    }
    None
}

/// A folder that a poll makes, if it can.
fn missing(check: &'static str, path: &Path) -> Finding {
    let there = path.ancestors().skip(1).find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    let found = writable(check, there);
    if found.is_failed() {
        return found;
    }
    Finding::ok(check, format!("{}, made by the first poll", path.display()))
}

fn writable(check: &'static str, folder: &Path) -> Finding {
    match access(folder, AccessFlags::W_OK | AccessFlags::X_OK) {
        Ok(()) => Finding::ok(check, folder.display().to_string()),
        Err(e) => Finding::failed(check, Class::Io, format!("{} cannot be written: {}", folder.display(), e.desc()))
            .fix(format!("look at: ls -ld {0}; findmnt -T {0}", folder.display())),
    }
}

fn user(uid: u32) -> String {
    let found = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    found.map_or_else(|| uid.to_string(), |user| user.name)
}
