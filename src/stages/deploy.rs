//! Deploy: the commands of an app, each as it may be run: who, where, with what environment and limit.

use std::path::PathBuf;

use crate::commit::Commit;
use crate::config::{App, Command, Layout};
use crate::journal::state::Kind;
use crate::processes::helper::PATH;
use crate::processes::messages::Keep;
use crate::sys::account::Account;
use crate::sys::privdrop::NewPrivileges;

/// What a script is told about the deploy that it is part of.
pub struct Errand<'a> {
    pub app: &'a App,
    pub account: &'a Account,
    pub run: &'a str,
    pub kind: Kind,
    pub reference: &'a str,
    pub commit: &'a Commit,
    pub previous: Option<&'a Commit>,
    /// Name under `releases/`; unused with the layout `in-place`.
    pub release: &'a str,
}

impl Errand<'_> {
    /// Where the published files are.
    pub fn directory(&self) -> PathBuf {
        let target = &self.app.target;
        match target.layout {
            Layout::Releases => target.directory.join("releases").join(self.release),
            Layout::InPlace => target.directory.clone(),
        }
    }

    /// A build, script or health command: as the deploy user, from the release.
    pub fn command(&self, command: &Command) -> Keep {
        let deploy = &self.app.deploy;
        Keep {
            argv: command.argv().to_vec(),
            environment: self.environment(),
            directory: self.directory(),
            account: Some(self.account.clone()),
            umask: deploy.umask,
            // sudo works by gaining privileges; an app that does not need it gets none.
            new_privileges: if deploy.sudo.is_empty() { NewPrivileges::Denied } else { NewPrivileges::Allowed },
            timeout: deploy.timeout,
            input: Vec::new(),
        }
    }

    fn environment(&self) -> Vec<(String, String)> {
        let account = self.account;
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut environment = vec![
            pair("PATH", PATH),
            pair("HOME", &account.home.to_string_lossy()),
            pair("USER", &account.name),
            pair("LOGNAME", &account.name),
            pair("SHELL", &account.shell.to_string_lossy()),
            pair("LANG", "C.UTF-8"),
        ];
        // The app's own may replace those; poller's name what cannot be changed.
        environment.extend(self.app.deploy.env.iter().map(|(name, value)| pair(name, value)));
        environment.extend([
            pair("POLLER_APP", self.app.name.as_str()),
            pair("POLLER_RUN", self.run),
            pair("POLLER_COMMIT", self.commit.as_str()),
            pair("POLLER_PREVIOUS", self.previous.map_or("", Commit::as_str)),
            pair("POLLER_REF", self.reference),
            pair("POLLER_RELEASE", &self.directory().to_string_lossy()),
            pair("POLLER_REASON", self.kind.word()),
        ]);
        environment
    }

    /// `systemctl restart UNIT`: by root directly, else through sudo, beside the script and not of it.
    pub fn unit(&self, verb: &str, unit: &str, is_root: bool) -> Keep {
        let sudo = ["sudo", "-n"].iter().filter(|_| !is_root).copied();
        Keep {
            argv: sudo.chain(["systemctl", verb, unit]).map(str::to_owned).collect(),
            environment: vec![("PATH".into(), PATH.into()), ("LANG".into(), "C.UTF-8".into())],
            directory: PathBuf::from("/"),
            account: None,
            umask: 0o022,
            new_privileges: NewPrivileges::Allowed,
            timeout: self.app.deploy.timeout,
            input: Vec::new(),
        }
    }
}
