//! What else asks a server whether something is new, and brings it: the programs beside poller.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;

use super::lab::Lab;
use super::probe;
use super::rows::Contestant;

pub const POLLER: &str = "`poller`";
pub const PROBE: &str = "a bare russh probe";
pub const GIT_FETCH: &str = "`git fetch --dry-run`, the old script's";
pub const CURVE25519: &str = "the same over curve25519";
pub const GIT_LS_REMOTE: &str = "`git ls-remote`";
pub const SSH: &str = "`ssh host true`";
pub const GIT_SYNC: &str = "git-sync `--one-time`";
pub const ANSIBLE_PULL: &str = "`ansible-pull --only-if-changed`";

/// The floor, for one repository or for several: see [`probe`].
pub fn probe(lab: &Rc<Lab>, asked: Vec<(usize, PathBuf)>) -> Contestant {
    let lab = Rc::clone(lab);
    let name = match asked.len() {
        1 => PROBE.to_owned(),
        n if asked.iter().all(|(key, _)| *key == asked[0].0) => {
            format!("{PROBE}: {n} channels, 8 at a time, one session")
        }
        n => format!("{PROBE}: {n} sessions, 8 at a time"),
    };
    Contestant::new(name, move || {
        let mut probe = lab.command(std::env::current_exe().expect("this program"));
        probe.args([probe::WORD, &lab.port.to_string(), &lab.login]).arg(lab.host_key());
        for (key, repository) in &asked {
            probe.arg(lab.key(*key)).arg(repository);
        }
        vec![probe]
    })
}

pub fn git_fetch(lab: &Rc<Lab>, clone: &Path) -> Contestant {
    let (lab, clone) = (Rc::clone(lab), clone.to_owned());
    Contestant::new(GIT_FETCH, move || vec![git_in(&lab, &clone, &["fetch", "--dry-run"])])
}

/// The key exchange that poller and an OpenSSH of before 9.9 agree on, in place of ssh's own choice.
pub fn git_fetch_curve25519(lab: &Rc<Lab>, clone: &Path) -> Contestant {
    let (lab, clone) = (Rc::clone(lab), clone.to_owned());
    Contestant::new(CURVE25519, move || {
        let mut git = git_in(&lab, &clone, &["fetch", "--dry-run"]);
        let ssh = format!("ssh {} -oKexAlgorithms=curve25519-sha256", lab.ssh_options(0).join(" "));
        git.env("GIT_SSH_COMMAND", ssh);
        vec![git]
    })
}

/// `git ls-remote` for the one branch, once.
pub fn git_ls_remote(lab: &Lab, key: usize, url: &str) -> Command {
    let mut git = lab.command("git");
    git.args(["ls-remote", url, "refs/heads/main"]);
    git.env("GIT_SSH_COMMAND", format!("ssh {}", lab.ssh_options(key).join(" ")));
    git
}

pub fn ssh(lab: &Rc<Lab>) -> Contestant {
    let lab = Rc::clone(lab);
    Contestant::new(SSH, move || {
        let mut ssh = lab.command("ssh");
        ssh.args(lab.ssh_options(0)).args(["-p", &lab.port.to_string(), "-l", &lab.login, "127.0.0.1", "true"]);
        vec![ssh]
    })
}

/// In a clone that has everything already. None where it is not installed.
pub fn ansible_pull(lab: &Rc<Lab>, clone: &Path, url: &str) -> Option<Contestant> {
    if !Path::new("/usr/bin/ansible-pull").exists() {
        println!("{ANSIBLE_PULL} is left out, it is not installed: apt-get install ansible-core");
        return None;
    }
    let (lab, clone, url) = (Rc::clone(lab), clone.to_owned(), url.to_owned());
    Some(Contestant::new(ANSIBLE_PULL, move || {
        let mut ansible = lab.command("ansible-pull");
        // It writes below its home, and the server's is to stay empty.
        ansible.env("HOME", clone.parent().expect("a folder above")).args(["--only-if-changed", "-i", "localhost,"]);
        ansible.args(["-U", &url, "-C", "main", "-d"]).arg(&clone);
        vec![ansible]
    }))
}

/// The program that GIT_SYNC names; None when it names none. It keeps what it fetched in `folder`.
pub fn git_sync(lab: &Rc<Lab>, folder: &Path, url: &str) -> Option<Contestant> {
    let Some(program) = std::env::var_os("GIT_SYNC").filter(|path| !path.is_empty()) else {
        println!("{GIT_SYNC} is left out: GIT_SYNC=path names none");
        return None;
    };
    let (lab, folder, url) = (Rc::clone(lab), folder.to_owned(), url.to_owned());
    Some(Contestant::new(GIT_SYNC, move || {
        let mut sync = lab.command(&program);
        sync.env("HOME", folder.parent().expect("a folder above"));
        sync.args(["--one-time", "--verbose=-1", "--ref=main", "--link=link", &format!("--repo={url}")]);
        sync.arg(format!("--root={}", folder.display()));
        sync.arg(format!("--ssh-key-file={}", lab.key(0).display()));
        sync.arg(format!("--ssh-known-hosts-file={}", lab.known_hosts().display()));
        vec![sync]
    }))
}

pub fn git_in(lab: &Lab, clone: &Path, arguments: &[&str]) -> Command {
    let mut git = lab.command("git");
    git.arg("-C").arg(clone).args(arguments);
    git
}

/// Writes to the disk what was checked out there.
pub fn sync(lab: &Lab, folder: &Path) -> Command {
    let mut sync = lab.command("sync");
    sync.arg("-f").arg(folder);
    sync
}
