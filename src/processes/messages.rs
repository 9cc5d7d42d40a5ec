//! What poller's processes say to each other. Every request has one reply, but for [`Reply::Progress`].

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use super::looks::{First, InTree, Mode, Programs, Push, Right, Room};
pub use super::origins::Origins;
pub use super::publishing::{Onto, StagerJob, StagerReply, StagerRequest};
use crate::commit::Commit;
use crate::config::{Follow, Remote};
use crate::journal::state::{Deployed, Published, Run};
use crate::journal::{Entry, Journal};
use crate::outcome::Failure;
use crate::stages::tend::{Due, Tended};
use crate::sys::account::Account;
use crate::sys::privdrop::NewPrivileges;
use crate::sys::proc::Identity;

/// Text that must not end up in a log or an error.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// By what right a remote is asked. Keys come with the request, since only the supervisor may read them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Access {
    Key {
        path: PathBuf,
        key: Secret,
        known_hosts_path: PathBuf,
        known_hosts: String,
    },
    /// `ssh_command`
    Program(Vec<String>),
    Local,
}

/// Where an app's commits come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// As configured, for messages.
    pub url: String,
    pub remote: Remote,
    pub access: Access,
    /// How long the server may be silent.
    pub timeout: Duration,
}

/// The one thing that a prober is asked.
#[derive(Debug, Serialize, Deserialize)]
pub enum ProberRequest {
    Tips(Probe),
    /// Whether keys may push to what they are to read, for `check`; at most so many connections at once.
    Rights(Origins, usize),
    /// Which host key a server shows, for `init`; the answer is one line in OpenSSH's format.
    HostKey {
        host: String,
        port: u16,
        timeout: Duration,
    },
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Probe {
    /// One for each app.
    pub origins: Origins,
    pub apps: Vec<ProbeApp>,
    /// Connections open at once.
    pub connections: usize,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProbeApp {
    pub name: String,
    pub follow: Follow,
    pub repository: PathBuf,
}

/// What a reader is asked, one at a time: what journals say, without any server.
#[derive(Debug, Serialize, Deserialize)]
pub enum ReaderRequest {
    /// Where apps stand, as (app, repository).
    Journals(Vec<(String, PathBuf)>),
    /// The newest runs of an app, newest first: at most so many, and fewer where they fill a message.
    History { app: String, repository: PathBuf, limit: usize },
    /// What the commands of a run said: of the run whose id begins so, or of the newest that said anything,
    /// if one did. A run that is not there, or not the only one, is the caller's mistake.
    Output { app: String, repository: PathBuf, run: Option<String> },
}

#[derive(Debug, Serialize, Deserialize)]
pub enum ReaderReply {
    /// In the order of the request.
    Journals(Vec<Result<Journal, Failure>>),
    History(Vec<Past>),
    Output {
        past: Box<Past>,
        output: Vec<u8>,
    },
}

/// One run of an app, as its journal tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Past {
    pub run: Run,
    /// What was deployed after it, and what before that.
    pub deployed: Option<Deployed>,
    pub previous: Option<Deployed>,
}

/// What the prober says of one app, as soon as it knows.
#[derive(Debug, Serialize, Deserialize)]
pub struct Probed {
    pub app: String,
    pub journal: Result<Journal, Failure>,
    pub tip: Result<Tip, Failure>,
}

/// Where the followed ref stands on the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tip {
    /// The full name, such as `refs/tags/v1.4.0`.
    pub reference: String,
    /// What the ref holds: a commit, or a tag object.
    pub object: Commit,
    /// The commit, tags peeled, as far as the server told.
    pub commit: Commit,
}

/// What a fetcher is asked, one at a time.
#[derive(Debug, Serialize, Deserialize)]
pub enum FetcherRequest {
    /// Opens a repository, without asking its server anything.
    Open {
        repository: PathBuf,
    },
    Fetch(Box<Fetch>),
    /// The one commit in the repository whose name begins so.
    Resolve {
        beginning: String,
    },
    Verify(Verify),
    /// What stands under these paths in the fetched commit, for `check`.
    Programs(Programs),
    /// Streams a commit's tree to the stager.
    Stream(StreamTree),
    /// Tells the stager which files of the tree the release before should have.
    Offer(StreamTree),
    /// Streams what was not offered, and of what was, those numbers.
    Rest {
        lacking: Vec<u32>,
    },
    Record {
        app: String,
        entry: Box<Entry>,
    },
    /// Keeps the repository from growing with age; the last request.
    Tend {
        app: String,
        repository: PathBuf,
        /// How many entries a journal keeps.
        history: usize,
        due: Due,
    },
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Fetch {
    pub origin: Origin,
    pub tip: Tip,
    pub repository: PathBuf,
    /// For a dry run: objects go to a folder of their own that is removed at the end.
    pub quarantine: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Verify {
    /// The app's name, for the remedy.
    pub app: String,
    /// What was deployed: the new commit must descend from it.
    pub deployed: Option<Commit>,
    pub rewind: Rewind,
    /// Who may have signed it; none: a signature is not asked for.
    pub signers: Option<Signers>,
    pub subdir: Option<String>,
    /// Paths that are linked to `shared/` and so are not published.
    pub shared: Vec<String>,
    /// Patterns of interest; none: everything is.
    pub paths: Vec<String>,
    /// Whether to list commits and files, for a dry run.
    pub summary: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rewind {
    Allowed,
    Refused,
}

/// Whose signatures count. At least one of the two is there; a signature of either kind will do.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Signers {
    pub allowed_signers: Option<KeyFile>,
    pub pgp_keys: Option<KeyFile>,
}

/// A file that only the supervisor may read.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KeyFile {
    pub file: PathBuf,
    pub text: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct StreamTree {
    /// None: an empty tree, which takes back the first in-place deploy of an app.
    pub commit: Option<Commit>,
    pub subdir: Option<String>,
    /// Paths that are linked to `shared/` instead.
    pub shared: Vec<String>,
    /// What may be live, for the layout `in-place`: what differs from any of these is sent. None in it
    /// stands for an empty target. After an interrupted deploy the live tree may hold files of more
    /// than one commit. Without any, all of the tree is sent.
    pub bases: Vec<Option<Published>>,
    /// The release to clone from, for the layout `releases`.
    pub base: Option<Base>,
}

/// A release that is there, as far as the journal knows, and what was published as it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    pub release: String,
    pub published: Published,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum FetcherReply {
    Opened,
    Progress {
        received: usize,
        total: usize,
        bytes: usize,
    },
    /// The commit that the ref holds now, tags peeled.
    Fetched {
        commit: Commit,
    },
    Resolved {
        commit: Commit,
    },
    Verified(Verified),
    /// In the order of the request.
    Programs(Vec<InTree>),
    Streamed,
    Offered,
    /// The stager ended before the tree did; its own reply says why.
    StagerGone,
    Recorded {
        head: Commit,
        /// Whether the repository wants to be tended.
        untidy: bool,
    },
    /// None where there was nothing to do.
    Tended(Option<Tended>),
}

/// What `verify` found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// Set when no path of interest changed.
    pub of_no_interest: bool,
    /// Submodules and the like, worth a line in the log.
    pub warnings: Vec<String>,
    /// Set when a signature was asked for.
    pub signer: Option<Signer>,
    pub files: u64,
    pub bytes: u64,
    pub summary: Option<Summary>,
}

/// Whose signature let a commit pass.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signer {
    /// As in the line of the file, or the name in the OpenPGP key.
    pub principals: String,
    /// `SHA256:…`, or that of the OpenPGP key, in hexadecimal.
    pub fingerprint: String,
    /// The subkey that made the signature, if it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subkey: Option<String>,
    pub signed: SignedObject,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SignedObject {
    Commit,
    /// The tag that names the commit.
    Tag,
}

impl fmt::Display for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.signed {
            SignedObject::Commit => "signed",
            SignedObject::Tag => "tag signed",
        };
        let who = match self.principals.as_str() {
            "" => "a key without a name".to_owned(),
            principals => crate::report::printable(principals),
        };
        write!(f, "{what} by {who}, {}", self.fingerprint)?;
        self.subkey.iter().try_for_each(|subkey| write!(f, ", subkey {subkey}"))
    }
}

/// What a dry run shows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    pub commits: Vec<SummaryCommit>,
    pub commits_total: usize,
    /// `A path`, `M path`, `D path`.
    pub files: Vec<String>,
    pub files_total: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SummaryCommit {
    pub commit: Commit,
    pub subject: String,
    pub author: String,
    /// Seconds since the epoch.
    pub time: i64,
}

/// One command for a keeper to run and to end.
#[derive(Debug, Serialize, Deserialize)]
pub struct Keep {
    pub argv: Vec<String>,
    pub environment: Vec<(String, String)>,
    pub directory: PathBuf,
    /// None: as poller itself.
    pub account: Option<Account>,
    pub umask: u32,
    pub new_privileges: NewPrivileges,
    pub timeout: Duration,
    /// What it finds on its standard input; nothing at all when this is empty.
    #[serde(default)]
    pub input: Vec<u8>,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Kept {
    Started(Option<Identity>),
    /// It could not be started at all: the error number.
    NotStarted {
        errno: i32,
    },
    Ended(End),
}

/// How a command ended, and what it left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    pub cause: Cause,
    pub exit: Option<i32>,
    pub signal: Option<i32>,
    /// Processes that outlived the command and were ended.
    pub left: Vec<String>,
    /// Processes that could not be ended: another user's, by sudo, or stuck in the kernel.
    pub alive: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// By itself.
    Exited,
    /// Its time was up.
    Deadline,
    /// poller was told to stop, or died.
    Stopped,
}

/// One HTTP request for the caller to make. Its answer is `Result<Answer, String>`: what came back, or a
/// sentence about why nothing did.
#[derive(Debug, Serialize, Deserialize)]
pub struct Call {
    pub method: Method,
    /// Its path is often a password.
    pub url: Secret,
    pub content_type: String,
    /// Of a POST.
    pub body: String,
    /// For all of it, from looking up the name to the answer.
    pub timeout: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Method {
    Get,
    Post,
}

/// The beginning of a server's answer; of no interest is the rest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    pub status: u16,
    /// Where a redirect leads. It is not followed.
    pub location: Option<String>,
}
