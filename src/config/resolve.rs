//! From what is written to what it means: defaults filled in, paths made absolute, and the rules that join several keys.
//!
//! Nothing here reads a file; a document comes in with its text, so that a problem can show the line.

use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use toml::Spanned;

use super::command::Command;
use super::file::{AppFile, DeployTable, HealthTable, HostFile, OverrideTable, SourceTable, TargetTable, VerifyTable};
use super::names::{UnitName, plain_env};
use super::notify;
use super::problem::{Fault, Problem};
use super::remote::{BranchName, Follow, RefName, Remote, RemoteUrl, TagPattern};
use super::values::{AppName, FilePath, RelPath};
use super::{
    App, Defaults, Deploy, Health, Host, Layout, Metrics, Notify, OnFailure, Paths, Source, Target, Verify,
    matches_host,
};

/// A configuration file that has been read.
pub struct Document<'a> {
    pub file: &'a Path,
    pub text: &'a str,
    /// Where relative paths start.
    pub folder: &'a Path,
}

impl Document<'_> {
    pub fn problem(&self, span: Option<Range<usize>>, fault: Fault) -> Problem {
        Problem::new(self.file, self.text, span, fault)
    }

    fn at<T>(&self, place: &Spanned<T>, fault: Fault) -> Problem {
        self.problem(Some(place.span()), fault)
    }

    fn parse<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        toml::from_str(self.text).map_err(|error| Problem::from_toml(self.file, self.text, &error))
    }

    fn absolute(&self, path: &FilePath) -> PathBuf {
        // Collecting the components drops `.` and doubled slashes; `..` stays, for a link may stand before it.
        self.folder.join(&path.0).components().collect()
    }

    /// The value of a key that must be given; `table` is the span of the header that lacks it.
    fn required<T>(&self, value: Option<T>, table: &Range<usize>, key: &str, example: &str) -> Result<T, Problem> {
        value.ok_or_else(|| self.problem(Some(table.clone()), missing(key, example)))
    }
}

fn missing(key: &str, example: &str) -> Fault {
    Fault::new(format!("{key} is missing")).help(format!("add for example {example}"))
}

const LONGEST_SPLAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The settings of the host, out of poller.toml.
pub fn host(
    document: &Document<'_>,
    defaults: Defaults,
) -> Result<(Host, Paths, Option<Metrics>, Option<Notify>), Problem> {
    let written: HostFile = document.parse()?;
    let notify = written.notify.map(|table| notify::resolve(document, table)).transpose()?;
    let table = written.host;
    let splay = table.splay.as_ref().map_or(Duration::ZERO, |splay| splay.get_ref().0);
    if let Some(splay) = table.splay.filter(|splay| splay.get_ref().0 > LONGEST_SPLAY) {
        let fault =
            Fault::new("`splay` is longer than a day").help("it spreads the hosts over the time between two polls");
        return Err(document.at(&splay, fault));
    }
    let host = Host {
        name: table.name.map_or(defaults.host_name, |name| name.0),
        fetch_user: table.fetch_user.map_or_else(|| "poller".to_owned(), |user| user.0),
        jobs: table.jobs.map_or(8, |jobs| jobs.0.into()),
        splay,
        deadline: table.deadline.map_or(Duration::from_secs(30 * 60), |limit| limit.0),
        history: table.history.map_or(500, |count| count.0.into()),
    };
    let or = |path: Option<FilePath>, default: PathBuf| path.map_or(default, |path| document.absolute(&path));
    let paths = Paths {
        state: or(written.paths.state, defaults.paths.state),
        run: or(written.paths.run, defaults.paths.run),
        log: or(written.paths.log, defaults.paths.log),
    };
    let metrics = written.metrics.textfile.map(|textfile| Metrics { textfile: document.absolute(&textfile) });
    Ok((host, paths, metrics, notify))
}

/// An app, and where its target directory is written, for a conflict with another app is seen only later.
pub fn app(document: &Document<'_>, name: AppName, host_name: &str) -> Result<(App, Range<usize>), Problem> {
    let written: AppFile = document.parse()?;
    let no_table =
        |table: &str, example: &str| document.problem(None, missing(&format!("the table `[{table}]`"), example));
    let source = written
        .source
        .ok_or_else(|| no_table("source", "[source] with url = \"git@host:path\" and branch = \"main\""))?;
    let target = written.target.ok_or_else(|| no_table("target", "[target] with directory = \"/srv/app\""))?;
    let source = resolve_source(document, source, host_name)?;
    let (target, directory) = resolve_target(document, target)?;
    let app = App {
        name,
        file: document.file.to_owned(),
        source,
        target,
        deploy: resolve_deploy(written.deploy),
        health: written.health.map(|health| resolve_health(document, health)).transpose()?,
        verify: resolve_verify(document, written.verify),
    };
    Ok((app, directory))
}

fn resolve_source(document: &Document<'_>, table: Spanned<SourceTable>, host_name: &str) -> Result<Source, Problem> {
    let header = table.span();
    let table = table.into_inner();
    let example = "url = \"git@github.com:me/todo.git\"";
    let url = document.required(table.url, &header, "`url` in `[source]`", example)?;
    check_credentials(document, &url, table.identity.as_ref(), table.ssh_command.as_ref())?;
    let url = url.into_inner();
    let everywhere = follow(document, &header, table.branch, table.tag, table.reference)?;
    let here = resolve_override(document, table.overrides, host_name)?;
    Ok(Source {
        url: url.text,
        remote: url.remote,
        follow: here.follow.unwrap_or(everywhere),
        soak: here.soak.or(table.soak.map(|soak| soak.0)).unwrap_or(Duration::ZERO),
        identity: table.identity.map(|path| document.absolute(path.get_ref())),
        known_hosts: match &table.known_hosts {
            Some(path) => document.absolute(path),
            None => document.folder.join("known_hosts"),
        },
        ssh_command: table.ssh_command.map(|command| command.get_ref().argv().to_vec()),
        subdir: table.subdir.map(|path| path.0.trim_end_matches('/').to_owned()),
        paths: table.paths.into_iter().map(|glob| glob.0).collect(),
        hosts: table.hosts.into_iter().map(|glob| glob.0).collect(),
        timeout: table.timeout.map_or(Duration::from_secs(30), |limit| limit.0),
    })
}

/// What an override says for this host.
#[derive(Default)]
struct Override {
    follow: Option<Follow>,
    soak: Option<Duration>,
}

/// All are checked; of those that are for this host, the first holds.
fn resolve_override(
    document: &Document<'_>,
    tables: Vec<Spanned<OverrideTable>>,
    host_name: &str,
) -> Result<Override, Problem> {
    let mut first = None;
    for table in tables {
        let header = table.span();
        let table = table.into_inner();
        if table.hosts.is_empty() {
            let fault = missing("`hosts` in `[[source.override]]`", "hosts = [\"canary-*\"]");
            return Err(document.problem(Some(header), fault));
        }
        let names_a_ref = table.branch.is_some() || table.tag.is_some() || table.reference.is_some();
        if !names_a_ref && table.soak.is_none() {
            let fault =
                Fault::new("`[[source.override]]` changes nothing").help("add `branch`, `tag`, `ref` or `soak`");
            return Err(document.problem(Some(header), fault));
        }
        let follow = match names_a_ref {
            true => Some(follow(document, &header, table.branch, table.tag, table.reference)?),
            false => None,
        };
        let hosts: Vec<String> = table.hosts.into_iter().map(|glob| glob.0).collect();
        if first.is_none() && matches_host(&hosts, host_name) {
            first = Some(Override { follow, soak: table.soak.map(|soak| soak.0) });
        }
    }
    Ok(first.unwrap_or_default())
}

/// The key comes either from `identity` or from what `ssh_command` is told, and never from both: which one was used would
/// depend on the server.
fn check_credentials(
    document: &Document<'_>,
    url: &Spanned<RemoteUrl>,
    identity: Option<&Spanned<FilePath>>,
    ssh_command: Option<&Spanned<Command>>,
) -> Result<(), Problem> {
    let local = |key: &str| Fault::new(format!("a local repository takes no `{key}`")).help("remove it");
    match (&url.get_ref().remote, identity, ssh_command) {
        (Remote::Local(_), Some(identity), _) => Err(document.at(identity, local("identity"))),
        (Remote::Local(_), None, Some(command)) => Err(document.at(command, local("ssh_command"))),
        (Remote::Ssh { .. }, Some(identity), Some(_)) => Err(document.at(
            identity,
            Fault::new("`identity` and `ssh_command` are both given")
                .help("`ssh_command` brings its own: put an IdentityFile line into the file of its -F option"),
        )),
        (Remote::Ssh { .. }, None, None) => Err(document.at(
            url,
            Fault::new("`identity` in `[source]` is missing, and an SSH server wants a key")
                .help("add for example identity = \"keys/todo\""),
        )),
        _ => Ok(()),
    }
}

fn follow(
    document: &Document<'_>,
    header: &Range<usize>,
    branch: Option<Spanned<BranchName>>,
    tag: Option<Spanned<TagPattern>>,
    reference: Option<Spanned<RefName>>,
) -> Result<Follow, Problem> {
    let mut given: Vec<(Range<usize>, Follow)> = Vec::new();
    given.extend(branch.map(|name| (name.span(), Follow::Branch(name.into_inner().0))));
    given.extend(tag.map(|name| (name.span(), Follow::Tag(name.into_inner().0))));
    given.extend(reference.map(|name| (name.span(), Follow::Ref(name.into_inner().0))));
    given.sort_by_key(|(span, _)| span.start);
    if let Some((second, _)) = given.get(1) {
        let fault = Fault::new("an app follows one ref, and this is the second");
        let fault = fault.help("keep one of `branch`, `tag` and `ref`");
        return Err(document.problem(Some(second.clone()), fault));
    }
    given.pop().map(|(_, follow)| follow).ok_or_else(|| {
        let fault = Fault::new("`[source]` does not say which ref to follow");
        let fault = fault.help("name one of the three: branch = \"main\", tag = \"v*\" or ref = \"refs/deploy/prod\"");
        document.problem(Some(header.clone()), fault)
    })
}

fn resolve_target(document: &Document<'_>, table: Spanned<TargetTable>) -> Result<(Target, Range<usize>), Problem> {
    let header = table.span();
    let table = table.into_inner();
    let example = "directory = \"/var/www/todo\"";
    let directory = document.required(table.directory, &header, "`directory` in `[target]`", example)?;
    let span = directory.span();
    let path = target_directory(&directory.get_ref().0).map_err(|fault| document.at(&directory, fault))?;
    let target = Target {
        directory: path,
        layout: table.layout.unwrap_or(Layout::Releases),
        keep: table.keep.map_or(5, |keep| keep.0.into()),
        shared: resolve_shared(document, table.shared)?,
    };
    Ok((target, span))
}

/// The directory of an app, tidied up.
pub fn target_directory(written: &Path) -> Result<PathBuf, Fault> {
    let path: PathBuf = written.components().collect();
    let refused = |why: &str, help: &str| Err(Fault::new(why).help(help));
    if !path.is_absolute() {
        return refused("`directory` is not absolute", "write the whole path, from `/`");
    }
    if path.components().any(|part| part == Component::ParentDir) {
        return refused("`directory` contains `..`", "write the path without it");
    }
    if path == Path::new("/") {
        return refused("`directory` is the root of the file system", "name a folder for this app alone");
    }
    Ok(path)
}

fn resolve_shared(document: &Document<'_>, entries: Vec<Spanned<RelPath>>) -> Result<Vec<String>, Problem> {
    let mut shared: Vec<String> = Vec::new();
    for entry in entries {
        let new = Path::new(&entry.get_ref().0);
        // What lies in a shared folder is shared already; a second link inside it would be written into the folder itself.
        let overlaps = |old: &&String| new.starts_with(old) || Path::new(old).starts_with(new);
        if let Some(old) = shared.iter().find(overlaps) {
            let fault = Fault::new(format!("`{}` and `{old}` overlap", new.display())).help("keep the outer one");
            return Err(document.at(&entry, fault));
        }
        shared.push(entry.into_inner().0);
    }
    Ok(shared)
}

fn resolve_deploy(table: DeployTable) -> Deploy {
    let units = |units: Vec<UnitName>| units.into_iter().map(|unit| unit.0).collect();
    Deploy {
        user: table.user.map(|user| user.0),
        group: table.group.map(|group| group.0),
        build: table.build,
        script: table.script,
        env: plain_env(table.env),
        umask: table.umask.map_or(0o022, |umask| umask.0),
        timeout: table.timeout.map_or(Duration::from_secs(10 * 60), |limit| limit.0),
        retries: table.retries.map_or(3, |retries| retries.0.into()),
        on_failure: table.on_failure.unwrap_or(OnFailure::Rollback),
        restart: units(table.restart),
        reload: units(table.reload),
        sudo: table.sudo.into_iter().map(|command| command.0).collect(),
    }
}

fn resolve_health(document: &Document<'_>, table: Spanned<HealthTable>) -> Result<Health, Problem> {
    let header = table.span();
    let table = table.into_inner();
    if table.command.is_none() && table.url.is_none() {
        let fault = Fault::new("`[health]` does not say what to ask")
            .help("add for example url = \"http://127.0.0.1:8000/healthz\"")
            .help("or command = \"./healthy.sh\"");
        return Err(document.problem(Some(header), fault));
    }
    Ok(Health {
        command: table.command,
        url: table.url.map(|url| url.0),
        attempts: table.attempts.map_or(5, |attempts| attempts.0.into()),
        interval: table.interval.map_or(Duration::from_secs(2), |pause| pause.0),
        timeout: table.timeout.map_or(Duration::from_secs(10), |limit| limit.0),
    })
}

fn resolve_verify(document: &Document<'_>, table: VerifyTable) -> Verify {
    let allowed_signers = table.allowed_signers.map(|path| document.absolute(&path));
    let pgp_keys = table.pgp_keys.map(|path| document.absolute(&path));
    Verify { allowed_signers, pgp_keys, allow_rewind: table.allow_rewind }
}
