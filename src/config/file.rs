//! What is written: the tables and keys of poller.toml and of a file in apps.d, exactly those of the contract.
//!
//! An unknown key is an error everywhere. Everything is optional here; what must be given is checked where it is known which
//! table to point at. Values that take part in a check with others keep their span. Keys that only a later version acts on
//! are read too, so that their types are checked and their refusal has a line.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use super::command::Command;
use super::names::{Account, EnvName, EnvValue, HostName, SudoCommand, UnitName};
use super::notify::{HttpUrl, NotifyTable};
use super::remote::{BranchName, RefName, RemoteUrl, TagPattern};
use super::values::{Count, FilePath, HostGlob, PathGlob, Pause, RelPath, TimeLimit, Umask};
use super::{Layout, OnFailure};

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HostFile {
    pub host: HostTable,
    pub paths: PathsTable,
    pub metrics: MetricsTable,
    pub notify: Option<Spanned<NotifyTable>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct HostTable {
    pub name: Option<HostName>,
    pub fetch_user: Option<Account>,
    pub jobs: Option<Count>,
    pub splay: Option<Spanned<Pause>>,
    pub deadline: Option<TimeLimit>,
    pub history: Option<Count>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct PathsTable {
    pub state: Option<FilePath>,
    pub run: Option<FilePath>,
    pub log: Option<FilePath>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct MetricsTable {
    pub textfile: Option<FilePath>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AppFile {
    pub source: Option<Spanned<SourceTable>>,
    pub target: Option<Spanned<TargetTable>>,
    pub deploy: DeployTable,
    pub health: Option<Spanned<HealthTable>>,
    pub verify: VerifyTable,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct SourceTable {
    pub url: Option<Spanned<RemoteUrl>>,
    pub branch: Option<Spanned<BranchName>>,
    pub tag: Option<Spanned<TagPattern>>,
    #[serde(rename = "ref")]
    pub reference: Option<Spanned<RefName>>,
    pub identity: Option<Spanned<FilePath>>,
    pub known_hosts: Option<FilePath>,
    pub ssh_command: Option<Spanned<Command>>,
    pub subdir: Option<RelPath>,
    pub paths: Vec<PathGlob>,
    pub hosts: Vec<HostGlob>,
    pub timeout: Option<TimeLimit>,
    pub soak: Option<Pause>,
    #[serde(rename = "override")]
    pub overrides: Vec<Spanned<OverrideTable>>,
}

/// `[[source.override]]`: what is different on some hosts.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct OverrideTable {
    pub hosts: Vec<HostGlob>,
    pub branch: Option<Spanned<BranchName>>,
    pub tag: Option<Spanned<TagPattern>>,
    #[serde(rename = "ref")]
    pub reference: Option<Spanned<RefName>>,
    pub soak: Option<Pause>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct TargetTable {
    pub directory: Option<Spanned<FilePath>>,
    pub layout: Option<Layout>,
    pub keep: Option<Count>,
    pub shared: Vec<Spanned<RelPath>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct DeployTable {
    pub user: Option<Account>,
    pub group: Option<Account>,
    pub build: Option<Command>,
    pub script: Option<Command>,
    pub env: BTreeMap<EnvName, EnvValue>,
    pub umask: Option<Umask>,
    pub timeout: Option<TimeLimit>,
    pub retries: Option<Count>,
    pub on_failure: Option<OnFailure>,
    pub restart: Vec<UnitName>,
    pub reload: Vec<UnitName>,
    pub sudo: Vec<SudoCommand>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct HealthTable {
    pub command: Option<Command>,
    pub url: Option<HttpUrl>,
    pub attempts: Option<Count>,
    pub interval: Option<Pause>,
    pub timeout: Option<TimeLimit>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct VerifyTable {
    pub allowed_signers: Option<FilePath>,
    pub pgp_keys: Option<FilePath>,
    pub allow_rewind: bool,
}
