//! Values that come from the command line or a person, held to the same rules as those in a file. An
//! error is what is wrong, and a line of help after it each.

use std::path::PathBuf;

use super::command::Command;
use super::names::{Account, UnitName};
use super::problem::Fault;
use super::remote::{BranchName, Follow, RefName, Remote, RemoteUrl, TagPattern};
use super::resolve::target_directory;
use super::values::{FilePath, Text};

pub fn remote(text: &str) -> Result<Remote, String> {
    shown(RemoteUrl::parse(text).map(|url| url.remote))
}

pub fn branch(text: &str) -> Result<Follow, String> {
    shown(BranchName::parse(text).map(|name| Follow::Branch(name.0)))
}

pub fn tag(text: &str) -> Result<Follow, String> {
    shown(TagPattern::parse(text).map(|name| Follow::Tag(name.0)))
}

pub fn reference(text: &str) -> Result<Follow, String> {
    shown(RefName::parse(text).map(|name| Follow::Ref(name.0)))
}

/// A user, and never the superuser; whether there is one of the name is another question.
pub fn account(text: &str) -> Result<String, String> {
    shown(Account::parse(text).map(|account| account.0))
}

pub fn unit(text: &str) -> Result<String, String> {
    shown(UnitName::parse(text).map(|unit| unit.0))
}

pub fn command(text: &str) -> Result<Command, String> {
    shown(Command::split(text))
}

pub fn directory(text: &str) -> Result<PathBuf, String> {
    shown(FilePath::parse(text).and_then(|path| target_directory(&path.0)))
}

fn shown<T>(value: Result<T, Fault>) -> Result<T, String> {
    value.map_err(|fault| fault.to_string())
}
