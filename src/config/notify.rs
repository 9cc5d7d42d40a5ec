//! Whom to tell about failures, and the URLs that poller sends something to.

use std::path::Path;

use serde::Deserialize;
use toml::Spanned;

use super::command::Command;
use super::problem::{Fault, Problem};
use super::resolve::Document;
use super::values::Text;

/// `[notify]`: at least one of the three is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notify {
    /// Gets the news as JSON on its standard input.
    pub command: Option<Command>,
    /// Gets the same JSON by POST.
    pub url: Option<String>,
    /// Is told that a run began, went well or failed, as healthchecks.io understands it.
    pub ping: Option<String>,
    /// Whether the end of what a failed script said goes with the ping.
    pub ping_output: bool,
    pub on: Vec<NotifyOn>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NotifyOn {
    Failed,
    Recovered,
    Deployed,
    Refused,
}

impl NotifyOn {
    pub fn word(self) -> &'static str {
        match self {
            NotifyOn::Failed => "failed",
            NotifyOn::Recovered => "recovered",
            NotifyOn::Deployed => "deployed",
            NotifyOn::Refused => "refused",
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct NotifyTable {
    command: Option<Spanned<Command>>,
    url: Option<HttpUrl>,
    ping: Option<HttpUrl>,
    #[serde(default)]
    ping_output: bool,
    on: Option<Vec<NotifyOn>>,
}

pub fn resolve(document: &Document<'_>, table: Spanned<NotifyTable>) -> Result<Notify, Problem> {
    let header = table.span();
    let table = table.into_inner();
    if table.command.is_none() && table.url.is_none() && table.ping.is_none() {
        let fault = Fault::new("`[notify]` does not say whom to tell").help("add `command`, `url` or `ping`");
        return Err(document.problem(Some(header), fault));
    }
    if let Some(command) = table.command.as_ref().filter(|c| !Path::new(c.get_ref().program()).is_absolute()) {
        let fault = Fault::new(format!("`{}` is not absolute", command.get_ref().program()))
            .help("write the whole path of the program, from `/`");
        return Err(document.problem(Some(command.span()), fault));
    }
    Ok(Notify {
        command: table.command.map(Spanned::into_inner),
        url: table.url.map(|url| url.0),
        ping: table.ping.map(|url| url.0),
        ping_output: table.ping_output,
        on: table.on.unwrap_or_else(|| vec![NotifyOn::Failed, NotifyOn::Recovered]),
    })
}

/// `http://` or `https://`, a host, and no secret that would have to be kept out of messages by care:
/// what is shown of it is [`shown`].
#[derive(Debug)]
pub struct HttpUrl(pub String);

impl Text for HttpUrl {
    const EXPECTING: &'static str = "a string";

    fn parse(text: &str) -> Result<HttpUrl, Fault> {
        let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        let Some(rest) = rest else {
            return Err(Fault::new("the URL does not begin with https:// or http://")
                .help("write for example \"https://hc.example.org/ping/UUID\""));
        };
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(Fault::new("a URL has no blanks or control characters"));
        }
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if host.is_empty() || host.contains('@') {
            return Err(Fault::new("the URL names no host, or a user before it").help("write \"https://host/path\""));
        }
        Ok(HttpUrl(text.to_owned()))
    }
}

/// A URL as logs and errors show it: its path and query are often a password.
pub fn shown(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let more = if end < rest.len() && &rest[end..] != "/" { "/…" } else { "" };
    format!("{scheme}://{}{more}", &rest[..end])
}

/// A URL whose path is no secret, as that of a health check: without its query.
pub fn without_query(url: &str) -> String {
    let url = url.split('#').next().unwrap_or_default();
    url.split_once('?').map_or_else(|| url.to_owned(), |(before, _)| format!("{before}?…"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_health_checks_url_is_shown_up_to_its_query() {
        assert_eq!(without_query("http://127.0.0.1:8000/healthz"), "http://127.0.0.1:8000/healthz");
        assert_eq!(without_query("http://h/x?token=y#z"), "http://h/x?…");
    }

    #[test]
    fn a_url_is_shown_without_its_secret() {
        assert_eq!(shown("https://hooks.example.org/T0/B0/secret"), "https://hooks.example.org/…");
        assert_eq!(shown("http://127.0.0.1:8000"), "http://127.0.0.1:8000");
        assert_eq!(shown("https://h/?token=x"), "https://h/…");
    }

    #[test]
    fn what_is_no_url_is_refused() {
        for bad in ["ftp://x", "https://", "https://u:p@h/", "https://h/ x", "example.org"] {
            assert!(HttpUrl::parse(bad).is_err(), "{bad}");
        }
        assert!(HttpUrl::parse("http://[::1]:8080/x").is_ok());
    }
}
