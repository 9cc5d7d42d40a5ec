//! Where commits come from: the URL of a repository and the ref that is followed in it.
//!
//! URLs are read as git reads them, with less tolerance: what could reach a command line as an option (a host, user or path
//! that begins with `-`) or forge a line (control characters) is refused here, before anything is started with it.

use std::net::Ipv6Addr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::problem::Fault;
use super::values::Text;

/// A repository, taken apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Remote {
    /// `host` has no brackets; `path` is what git-upload-pack is asked for: absolute, `~user/…`, or from the user's home.
    Ssh {
        user: String,
        host: String,
        port: u16,
        path: String,
    },
    Local(PathBuf),
}

/// Which ref of the repository says what to deploy.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Follow {
    /// The name without `refs/heads/`.
    Branch(String),
    /// A pattern without `refs/tags/`, in which `*` stands for any text.
    Tag(String),
    /// The full name.
    Ref(String),
}

/// A URL as it is written, with what it means.
#[derive(Debug)]
pub struct RemoteUrl {
    pub text: String,
    pub remote: Remote,
}

impl Text for RemoteUrl {
    const EXPECTING: &'static str = "a string";

    fn parse(text: &str) -> Result<RemoteUrl, Fault> {
        if text.is_empty() || text.trim() != text || text.chars().any(char::is_control) {
            return Err(Fault::new("a URL is not empty and has no control characters or blanks around it"));
        }
        Ok(RemoteUrl { text: text.to_owned(), remote: remote(text)? })
    }
}

fn remote(text: &str) -> Result<Remote, Fault> {
    if let Some((scheme, rest)) = text.split_once("://") {
        return match scheme {
            "ssh" => ssh(rest),
            "file" => local(rest),
            "https" | "http" | "git" => Err(unsupported_scheme(scheme, rest)),
            _ => Err(not_a_url(text)),
        };
    }
    match text.starts_with('/') {
        true => Ok(Remote::Local(PathBuf::from(text))),
        false => scp(text),
    }
}

fn not_a_url(text: &str) -> Fault {
    Fault::new(format!("`{text}` is not the URL of a repository"))
        .help("write \"git@host:path\", \"ssh://git@host:port/path\", or an absolute path for a local repository")
}

fn unsupported_scheme(scheme: &str, rest: &str) -> Fault {
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    // What stands before the host may be a token: it is not repeated.
    let host = authority.rsplit('@').next().unwrap_or_default();
    let host = host.split(':').next().unwrap_or_default();
    Fault::new(format!("a {scheme}:// URL is not supported by this version"))
        .help(format!("use SSH with a deploy key: \"git@{host}:{path}\""))
}

fn local(rest: &str) -> Result<Remote, Fault> {
    if !rest.starts_with('/') {
        return Err(Fault::new("a file:// URL names no host").help("write three slashes: \"file:///srv/git/todo.git\""));
    }
    Ok(Remote::Local(PathBuf::from(percent_decoded(rest)?)))
}

fn ssh(rest: &str) -> Result<Remote, Fault> {
    let Some((authority, path)) = rest.split_once('/').filter(|(_, path)| !path.is_empty()) else {
        return Err(Fault::new("the URL names no path").help("write \"ssh://git@host/path\""));
    };
    let (user, host) = authority.rsplit_once('@').unwrap_or(("git", authority));
    let (host, port) = match host.strip_prefix('[') {
        Some(bracketed) => {
            let (address, after) =
                bracketed.split_once(']').ok_or_else(|| Fault::new("the `[` before the host is not closed"))?;
            match after.strip_prefix(':') {
                Some(port) => (ipv6(address)?, Some(port)),
                None if after.is_empty() => (ipv6(address)?, None),
                None => return Err(Fault::new("after `]` only a port may follow")),
            }
        }
        None => match host.split_once(':') {
            Some((_, port)) if port.contains(':') => {
                return Err(Fault::new("an IPv6 address stands in brackets").help("write \"ssh://git@[::1]:22/path\""));
            }
            Some((host, port)) => (host_name(host)?, Some(port)),
            None => (host_name(host)?, None),
        },
    };
    let path = match path.starts_with('~') {
        true => path.to_owned(),
        false => format!("/{path}"),
    };
    Ok(Remote::Ssh {
        user: user_name(&percent_decoded(user)?)?,
        host,
        port: port.map_or(Ok(22), port_number)?,
        path: repository_path(&percent_decoded(&path)?)?,
    })
}

fn scp(text: &str) -> Result<Remote, Fault> {
    let (user, rest) = match text.find('@') {
        Some(at) if !text[..at].contains([':', '/']) => (Some(&text[..at]), &text[at + 1..]),
        _ => (None, text),
    };
    let (host, path) = match rest.strip_prefix('[') {
        Some(bracketed) => {
            let (address, path) = bracketed.split_once("]:").ok_or_else(|| not_a_url(text))?;
            (ipv6(address)?, path)
        }
        None => {
            let (host, path) = rest.split_once(':').ok_or_else(|| not_a_url(text))?;
            if host.contains('/') {
                return Err(not_a_url(text));
            }
            (host_name(host)?, path)
        }
    };
    let Some(user) = user else {
        return Err(Fault::new("the URL names no user").help(format!("add it: \"git@{rest}\"")));
    };
    Ok(Remote::Ssh { user: user_name(user)?, host, port: 22, path: repository_path(path)? })
}

fn user_name(user: &str) -> Result<String, Fault> {
    if user.contains(':') {
        return Err(
            Fault::new("a password in a URL is not used").help("remove it; the key of `identity` authenticates")
        );
    }
    let odd = |c: char| c.is_control() || c.is_whitespace() || c == '@';
    if user.is_empty() || user.starts_with('-') || user.contains(odd) {
        return Err(Fault::new(format!("`{user}` is not a user name for the server")));
    }
    Ok(user.to_owned())
}

fn host_name(host: &str) -> Result<String, Fault> {
    let usual = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if host.is_empty() || host.len() > 255 || host.starts_with('-') || !host.chars().all(usual) {
        return Err(Fault::new(format!("`{host}` is not a host name")));
    }
    Ok(host.to_owned())
}

fn ipv6(address: &str) -> Result<String, Fault> {
    let (number, zone) = address.split_once('%').unwrap_or((address, "zone"));
    if number.parse::<Ipv6Addr>().is_err() || host_name(zone).is_err() {
        return Err(Fault::new(format!("`{address}` is not an IPv6 address"))
            .help("brackets are for those only; a port goes into \"ssh://git@host:2222/path\""));
    }
    Ok(address.to_owned())
}

fn port_number(port: &str) -> Result<u16, Fault> {
    let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    match port.parse() {
        Ok(number) if digits && number != 0 => Ok(number),
        _ => Err(Fault::new(format!("`{port}` is not a port")).help("write a number from 1 to 65535")),
    }
}

fn repository_path(path: &str) -> Result<String, Fault> {
    if path.is_empty() || path == "/" {
        return Err(Fault::new("the URL names no path"));
    }
    if path.starts_with('-') {
        return Err(Fault::new("the path begins with `-`, which the server could take for an option"));
    }
    Ok(path.to_owned())
}

/// git decodes `%20` and the like in URLs with a scheme, though not in the scp form.
fn percent_decoded(text: &str) -> Result<String, Fault> {
    let bad = || Fault::new("a `%` in the URL is not followed by two hexadecimal digits of a printable character");
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte != b'%' {
            out.push(*byte);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2).ok_or_else(bad)?;
        let digit = |b: u8| char::from(b).to_digit(16).ok_or_else(bad);
        out.push((digit(digits[0])? * 16 + digit(digits[1])?) as u8);
        rest = after;
    }
    let text = String::from_utf8(out).map_err(|_| bad())?;
    match text.chars().any(char::is_control) {
        true => Err(bad()),
        false => Ok(text),
    }
}

/// A branch's name, without `refs/heads/`.
#[derive(Debug)]
pub struct BranchName(pub String);

/// A tag's name or pattern, without `refs/tags/`.
#[derive(Debug)]
pub struct TagPattern(pub String);

/// The full name of a ref.
#[derive(Debug)]
pub struct RefName(pub String);

impl Text for BranchName {
    const EXPECTING: &'static str = "a string";

    fn parse(name: &str) -> Result<BranchName, Fault> {
        short_name("branch", "refs/heads/", name, Stars::Refused)?;
        Ok(BranchName(name.to_owned()))
    }
}

impl Text for TagPattern {
    const EXPECTING: &'static str = "a string";

    fn parse(name: &str) -> Result<TagPattern, Fault> {
        short_name("tag", "refs/tags/", name, Stars::Allowed)?;
        Ok(TagPattern(name.to_owned()))
    }
}

impl Text for RefName {
    const EXPECTING: &'static str = "a string";

    fn parse(name: &str) -> Result<RefName, Fault> {
        if !name.starts_with("refs/") {
            return Err(Fault::new("a `ref` is a full name and starts with `refs/`")
                .help("write for example ref = \"refs/deploy/prod\", or name a `branch` or a `tag`"));
        }
        valid_ref(name, name, Stars::Refused)?;
        Ok(RefName(name.to_owned()))
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Stars {
    Allowed,
    Refused,
}

fn short_name(kind: &str, prefix: &str, name: &str, stars: Stars) -> Result<(), Fault> {
    if let Some(short) = name.strip_prefix(prefix) {
        return Err(
            Fault::new(format!("a `{kind}` is named without `{prefix}`")).help(format!("write {kind} = \"{short}\""))
        );
    }
    // git itself refuses to make a branch of these names: one reads as an option, the others as shorthands.
    if name.is_empty() || name.starts_with('-') || name == "HEAD" || name == "@" {
        return Err(Fault::new(format!("`{name}` is not the name of a {kind}")));
    }
    valid_ref(name, &format!("{prefix}{name}"), stars)
}

/// The rules of git check-ref-format.
fn valid_ref(written: &str, full: &str, stars: Stars) -> Result<(), Fault> {
    let refused = |why: &str| Err(Fault::new(format!("`{written}` is not a valid ref name: {why}")));
    let odd = |c: char| c.is_ascii_control() || matches!(c, ' ' | '~' | '^' | ':' | '?' | '[' | '\\');
    if let Some(c) = full.chars().find(|c| odd(*c)) {
        return refused(&format!("it contains `{c}`"));
    }
    if stars == Stars::Refused && full.contains('*') {
        return match written.starts_with("refs/") {
            true => refused("it contains `*`"),
            false => refused("it contains `*`, which only `tag` may"),
        };
    }
    if let Some(part) = ["..", "@{"].iter().find(|part| full.contains(**part)) {
        return refused(&format!("it contains `{part}`"));
    }
    if full.ends_with('.') {
        return refused("it ends with `.`");
    }
    if full.split('/').any(str::is_empty) {
        return refused("a part between slashes is empty");
    }
    if full.split('/').any(|part| part.starts_with('.') || part.ends_with(".lock")) {
        return refused("a part starts with `.` or ends with `.lock`");
    }
    Ok(())
}
