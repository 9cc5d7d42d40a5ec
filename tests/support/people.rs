//! Throwaway accounts, made by the system's own tools. One test at a time changes the user database:
//! the tools lock it themselves, but give up instead of waiting.

use std::cell::RefCell;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

pub fn am_root() -> bool {
    nix::unistd::Uid::effective().is_root()
}

/// Clones are the same account: whichever is removed, it is gone.
#[derive(Clone)]
pub struct Account {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    pub home: PathBuf,
    made: bool,
    groups: Rc<RefCell<Vec<String>>>,
}

impl Account {
    /// A new user as root, otherwise the one who runs the tests.
    pub fn make(root: &Path, suffix: &str) -> Account {
        if !am_root() {
            return Account::own_self();
        }
        let name = format!("pt{}{suffix}", super::random_word());
        let home = root.join(format!("home-{suffix}"));
        let shown = home.to_str().unwrap();
        change_users("useradd", &["-M", "-U", "-d", shown, "-s", "/bin/sh", "-p", "*", &name]);
        let account = Account::look_up(&name, true);
        fs::create_dir(&home).unwrap();
        account.own(&home);
        account
    }

    fn own_self() -> Account {
        let me = nix::unistd::User::from_uid(nix::unistd::Uid::current()).unwrap().unwrap();
        Account::look_up(&me.name, false)
    }

    fn look_up(name: &str, made: bool) -> Account {
        let user = nix::unistd::User::from_name(name).unwrap().unwrap();
        Account {
            name: name.to_owned(),
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
            home: user.dir,
            made,
            groups: Rc::default(),
        }
    }

    /// Gives a path to this account; of no effect where there is only one user.
    pub fn own(&self, path: &Path) {
        if self.made {
            chown(path, Some(self.uid), Some(self.gid)).unwrap();
        } else {
            assert_eq!(fs::metadata(path).unwrap().uid(), self.uid);
        }
    }

    /// A new group that this account is a further member of; its name and number.
    pub fn join_new_group(&self) -> (String, u32) {
        let name = format!("pt{}g", super::random_word());
        change_users("groupadd", &[&name]);
        self.groups.borrow_mut().push(name.clone());
        change_users("usermod", &["-a", "-G", &name, &self.name]);
        let gid = nix::unistd::Group::from_name(&name).unwrap().unwrap().gid.as_raw();
        (name, gid)
    }

    pub fn remove(&self) {
        if self.made {
            change_users("userdel", &[&self.name]);
            for group in self.groups.borrow_mut().drain(..) {
                change_users("groupdel", &[&group]);
            }
        }
    }
}

fn change_users(program: &str, args: &[&str]) {
    let lock = File::create("/run/poller-tests.lock").expect("the tests' lock");
    lock.lock().unwrap();
    let mut said = String::new();
    for _ in 0..50 {
        let out = Command::new(Path::new("/usr/sbin").join(program))
            .args(args)
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|e| panic!("{program}: {e}"));
        if out.status.success() {
            return;
        }
        said = String::from_utf8_lossy(&out.stderr).into_owned();
        if !said.contains("cannot lock") && !said.contains("currently used by process") {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    if std::thread::panicking() {
        eprintln!("{program} {args:?}: {said}");
    } else {
        panic!("{program} {args:?}: {said}");
    }
}
