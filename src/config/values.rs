//! Single values of the configuration, each checked while it is read.
//!
//! A check runs inside serde's visitor because only there toml adds where the value stands, to the element of an array even.
//! So a wrong value is shown with its own line without any code here knowing about files.

use std::fmt;
use std::marker::PhantomData;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use globset::GlobBuilder;
use serde::Deserialize;
use serde::de::{Deserializer, Unexpected, Visitor};

use super::names::{Account, EnvName, EnvValue, HostName, SudoCommand, UnitName};
use super::notify::HttpUrl;
use super::problem::{Fault, printable};
use super::remote::{BranchName, RefName, RemoteUrl, TagPattern};

/// A value that is written as a string.
pub trait Text: Sized {
    const EXPECTING: &'static str;

    fn parse(text: &str) -> Result<Self, Fault>;

    /// What to say where a number stands instead, if more is to be said than that it is one.
    fn for_integer(_number: i64) -> Option<Fault> {
        None
    }
}

struct TextVisitor<T>(PhantomData<T>);

impl<T: Text> Visitor<'_> for TextVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTING)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        T::parse(text).map_err(E::custom)
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<T, E> {
        Err(match T::for_integer(number) {
            Some(fault) => E::custom(fault),
            None => E::invalid_type(Unexpected::Signed(number), &self),
        })
    }
}

macro_rules! read_as_text {
    ($($value:ty),* $(,)?) => {$(
        impl<'de> Deserialize<'de> for $value {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(TextVisitor(PhantomData))
            }
        }
    )*};
}

read_as_text!(BranchName, TagPattern, RefName, RemoteUrl);
read_as_text!(Pause, TimeLimit, Umask, FilePath, RelPath, PathGlob, HostGlob);
read_as_text!(Account, UnitName, EnvName, EnvValue, SudoCommand, HostName, HttpUrl);

/// The name of an app: the stem of its file. It becomes a ref name and a file name, hence the few characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppName(String);

impl AppName {
    /// The error says what is wrong with the name, on one line.
    pub fn parse(name: &str) -> Result<AppName, String> {
        let refused = |why: &str| Err(printable(&format!("`{name}` is not a name for an app: {why}")));
        let usual = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if name.is_empty() || name.len() > 64 {
            return refused("a name has 1 to 64 characters");
        }
        if !name.chars().all(usual) {
            return refused("only letters, digits, `.`, `_` and `-` may stand in one");
        }
        if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            return refused("it starts with a letter or a digit");
        }
        // git would not take these as the last part of a ref's name.
        if name.contains("..") || name.ends_with('.') || name.ends_with(".lock") {
            return refused("it has no `..` and does not end in `.` or `.lock`");
        }
        Ok(AppName(name.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AppName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A duration that may be zero.
#[derive(Debug, Clone, Copy)]
pub struct Pause(pub Duration);

/// A duration that may not: zero would read as "none" to some and "at once" to others.
#[derive(Debug, Clone, Copy)]
pub struct TimeLimit(pub Duration);

const LONGEST: Duration = Duration::from_secs(7 * 24 * 60 * 60);
const DURATIONS: &str = "write for example \"90s\", \"10m\", \"1h30m\", \"2d\" or \"500ms\"";

impl Text for Pause {
    const EXPECTING: &'static str = "a duration in quotes";

    fn parse(text: &str) -> Result<Pause, Fault> {
        duration(text, LONGEST).map(Pause)
    }

    fn for_integer(number: i64) -> Option<Fault> {
        Some(Fault::new(format!("the unit of `{number}` is missing")).help(DURATIONS))
    }
}

impl Text for TimeLimit {
    const EXPECTING: &'static str = Pause::EXPECTING;

    fn parse(text: &str) -> Result<TimeLimit, Fault> {
        match duration(text, LONGEST)? {
            Duration::ZERO => {
                Err(Fault::new("a time limit is not zero").help("no time limit is ever none").help(DURATIONS))
            }
            limit => Ok(TimeLimit(limit)),
        }
    }

    fn for_integer(number: i64) -> Option<Fault> {
        Pause::for_integer(number)
    }
}

/// A length of time up to `longest`, which is a number of days.
pub fn duration(text: &str, longest: Duration) -> Result<Duration, Fault> {
    let too_long = || {
        let days = longest.as_secs() / (24 * 60 * 60);
        Fault::new(format!("`{text}` is too long")).help(format!("the longest is \"{days}d\""))
    };
    let odd = || Fault::new(format!("`{text}` is not a duration")).help(DURATIONS);
    let mut total = Duration::ZERO;
    let mut rest = text;
    loop {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at(digits);
        let letters = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, after) = after.split_at(letters);
        let milliseconds: u64 = match unit {
            _ if number.is_empty() => return Err(odd()),
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "" if after.is_empty() => {
                return Err(Fault::new(format!("the unit of `{text}` is missing")).help(DURATIONS));
            }
            _ => return Err(odd()),
        };
        let part = number.parse::<u64>().ok().and_then(|n| n.checked_mul(milliseconds));
        total = part
            .and_then(|part| total.checked_add(Duration::from_millis(part)))
            .filter(|total| *total <= longest)
            .ok_or_else(too_long)?;
        rest = after;
        if rest.is_empty() {
            return Ok(total);
        }
    }
}

/// How many: from 1 to 1000, so that neither "none" nor a slip of the finger passes.
#[derive(Debug, Clone, Copy)]
pub struct Count(pub u16);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Count, D::Error> {
        struct CountVisitor;

        impl Visitor<'_> for CountVisitor {
            type Value = Count;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number from 1 to 1000")
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Count, E> {
                match u16::try_from(number) {
                    Ok(count @ 1..=1000) => Ok(Count(count)),
                    _ => Err(E::custom(Fault::new(format!("`{number}` is not a number from 1 to 1000")))),
                }
            }
        }

        deserializer.deserialize_i64(CountVisitor)
    }
}

/// The permission bits that new files do not get.
#[derive(Debug, Clone, Copy)]
pub struct Umask(pub u32);

impl Text for Umask {
    const EXPECTING: &'static str = "a string of octal digits";

    fn parse(text: &str) -> Result<Umask, Fault> {
        let octal = (1..=4).contains(&text.len()) && text.bytes().all(|b| matches!(b, b'0'..=b'7'));
        match u32::from_str_radix(text, 8) {
            Ok(0o100..=0o777) if octal => Err(Fault::new(format!("`{text}` takes away rights of the owner"))
                .help("then nothing could be published; what is usual: \"022\", \"027\", \"077\"")),
            Ok(mask @ 0..=0o77) if octal => Ok(Umask(mask)),
            _ => Err(Fault::new(format!("`{text}` is not a umask")).help("write octal digits, such as \"022\"")),
        }
    }

    fn for_integer(_number: i64) -> Option<Fault> {
        Some(Fault::new("a umask is octal digits").help("write it as a string, such as \"022\""))
    }
}

/// A path of the host, absolute or from the folder of poller.toml.
#[derive(Debug)]
pub struct FilePath(pub PathBuf);

impl Text for FilePath {
    const EXPECTING: &'static str = "a string";

    fn parse(text: &str) -> Result<FilePath, Fault> {
        if text.is_empty() || text.chars().any(char::is_control) {
            return Err(Fault::new("a path is not empty and has no control characters"));
        }
        if text.starts_with('~') {
            return Err(Fault::new("`~` is not expanded").help("write the path in full"));
        }
        Ok(FilePath(PathBuf::from(text)))
    }
}

/// A path inside a release, without `.`, doubled slashes, or a way out. A `/` at its end, which means a folder, is kept.
#[derive(Debug)]
pub struct RelPath(pub String);

impl Text for RelPath {
    const EXPECTING: &'static str = "a string";

    fn parse(text: &str) -> Result<RelPath, Fault> {
        stays_inside(text)?;
        let parts = Path::new(text).components().filter_map(|part| match part {
            Component::Normal(part) => part.to_str(),
            _ => None,
        });
        let mut path = parts.collect::<Vec<_>>().join("/");
        if path.is_empty() {
            return Err(Fault::new(format!("`{text}` names nothing inside")).help("leave it out for all of it"));
        }
        if text.ends_with('/') {
            path.push('/');
        }
        Ok(RelPath(path))
    }
}

fn stays_inside(text: &str) -> Result<(), Fault> {
    if text.chars().any(char::is_control) {
        return Err(Fault::new("a path has no control characters"));
    }
    if text.starts_with('/') {
        return Err(Fault::new(format!("`{text}` is absolute"))
            .help("write it from the top of the repository, without the first `/`"));
    }
    if text.split('/').any(|part| part == "..") {
        return Err(
            Fault::new(format!("`{text}` contains `..`")).help("write it from the top of the repository, without `..`")
        );
    }
    Ok(())
}

/// Which paths of a commit count.
#[derive(Debug)]
pub struct PathGlob(pub String);

impl Text for PathGlob {
    const EXPECTING: &'static str = "a string";

    fn parse(text: &str) -> Result<PathGlob, Fault> {
        stays_inside(text)?;
        // These compile, and would never match the path of a file.
        if text.split('/').any(|part| part == ".") {
            return Err(Fault::new(format!("`{text}` contains `.` as a folder")).help("leave it out"));
        }
        if text.ends_with('/') {
            return Err(Fault::new("a pattern matches files, not folders").help(format!("write \"{text}**\"")));
        }
        glob(text).map(PathGlob)
    }
}

/// On which hosts.
#[derive(Debug)]
pub struct HostGlob(pub String);

impl Text for HostGlob {
    const EXPECTING: &'static str = "a string";

    fn parse(text: &str) -> Result<HostGlob, Fault> {
        glob(text).map(HostGlob)
    }
}

fn glob(text: &str) -> Result<String, Fault> {
    if text.is_empty() {
        return Err(Fault::new("a pattern is not empty"));
    }
    match GlobBuilder::new(text).literal_separator(true).build() {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(Fault::new(format!("`{text}` is not a pattern: {}", error.kind()))),
    }
}
