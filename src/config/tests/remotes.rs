//! A table for URLs and one for names of refs.

use std::path::PathBuf;

use super::super::remote::{BranchName, RefName, Remote, RemoteUrl, TagPattern};
use super::super::values::Text;
use super::values::{refused, taken};

#[test]
fn urls_over_ssh() {
    for (url, user, host, port, path) in [
        ("git@github.com:me/todo.git", "git", "github.com", 22, "me/todo.git"),
        ("git@host:/srv/todo.git", "git", "host", 22, "/srv/todo.git"),
        ("git@host:~me/todo", "git", "host", 22, "~me/todo"),
        ("me@[::1]:x", "me", "::1", 22, "x"),
        ("me@host:a@b:c", "me", "host", 22, "a@b:c"),
        ("ssh://host/srv/x", "git", "host", 22, "/srv/x"),
        ("ssh://me@host:2222/srv/x", "me", "host", 2222, "/srv/x"),
        ("ssh://me@host/~me/x", "me", "host", 22, "~me/x"),
        ("ssh://host/~/x", "git", "host", 22, "~/x"),
        ("ssh://me@[fe80::1%eth0]:22/x", "me", "fe80::1%eth0", 22, "/x"),
        ("ssh://[::1]/x", "git", "::1", 22, "/x"),
        ("ssh://host/with%20blank", "git", "host", 22, "/with blank"),
    ] {
        let (user, host, path) = (user.to_owned(), host.to_owned(), path.to_owned());
        let parsed = RemoteUrl::parse(url).unwrap_or_else(|fault| panic!("{url}: {fault}"));
        assert_eq!(parsed.remote, Remote::Ssh { user, host, port, path }, "{url}");
        assert_eq!(parsed.text, url);
    }
}

#[test]
fn local_urls() {
    for (url, path) in
        [("/srv/git/todo.git", "/srv/git/todo.git"), ("/srv/a%20b", "/srv/a%20b"), ("file:///srv/a%20b", "/srv/a b")]
    {
        assert_eq!(RemoteUrl::parse(url).unwrap().remote, Remote::Local(PathBuf::from(path)));
    }
}

#[test]
fn urls_that_are_refused() {
    refused::<RemoteUrl>(&[
        ("", "not empty"),
        (" git@host:x", "blanks around"),
        ("git@host:a\u{1b}[31m", "control characters"),
        ("ssh://host/a%0ab", "printable"),
        ("ssh://host/a%zz", "hexadecimal"),
        ("ssh://host/a%2", "hexadecimal"),
        ("https://token@github.com/me/todo.git", "git@github.com:me/todo.git"),
        ("https://github.com/me/todo.git", "https:// URL is not supported by this version"),
        ("http://host:80/x", "\"git@host:x\""),
        ("git://host/x", "not supported by this version"),
        ("ftp://host/x", "not the URL"),
        ("github.com:me/todo.git", "add it: \"git@github.com:me/todo.git\""),
        ("todo.git", "not the URL"),
        ("./todo.git", "not the URL"),
        ("git@host", "not the URL"),
        ("git@host:", "names no path"),
        ("git@host:-x", "begins with `-`"),
        ("git@-oProxyCommand=x:y", "not a host name"),
        ("-x@host:y", "not a user name"),
        ("@host:y", "not a user name"),
        ("git@[host:22]:x", "not an IPv6 address"),
        ("git@[::1]x", "not the URL"),
        ("ssh://-oX/y", "not a host name"),
        ("ssh://-x@host/y", "not a user name"),
        ("ssh://%2dx@host/y", "not a user name"),
        ("ssh://me:secret@host/y", "password"),
        ("ssh://host", "names no path"),
        ("ssh://host/", "names no path"),
        ("ssh:///x", "not a host name"),
        ("ssh://host:0/x", "not a port"),
        ("ssh://host:/x", "not a port"),
        ("ssh://host:65536/x", "not a port"),
        ("ssh://host:+22/x", "not a port"),
        ("ssh://::1/x", "brackets"),
        ("ssh://[::1/x", "not closed"),
        ("ssh://[::1]22/x", "only a port"),
        ("ssh://höst/x", "not a host name"),
        ("file://host/x", "three slashes"),
    ]);
    let hint = RemoteUrl::parse("https://me:secret@h/x").unwrap_err().to_string();
    assert!(!hint.contains("secret"), "{hint}");
}

#[test]
fn refs() {
    taken::<BranchName>(&["main", "feature/x", "a.b", "ünï"]);
    taken::<TagPattern>(&["v1", "v*", "release/*-final"]);
    taken::<RefName>(&["refs/deploy/prod", "refs/heads/main"]);
    refused::<BranchName>(&[
        ("", "not the name"),
        ("-x", "not the name"),
        ("@", "not the name"),
        ("HEAD", "not the name"),
        ("refs/heads/main", "write branch = \"main\""),
        ("v*", "which only `tag` may"),
        ("a b", "contains ` `"),
        ("a~1", "contains `~`"),
        ("a^", "contains `^`"),
        ("a:b", "contains `:`"),
        ("a?", "contains `?`"),
        ("a[b", "contains `[`"),
        ("a\\b", "contains `\\`"),
        ("a\u{7f}", "contains"),
        ("a..b", "contains `..`"),
        ("a@{1}", "contains `@{`"),
        ("a.", "ends with"),
        ("/a", "empty"),
        ("a/", "empty"),
        ("a//b", "empty"),
        ("a/.b", "starts with `.`"),
        ("a.lock/b", "`.lock`"),
    ]);
    refused::<TagPattern>(&[("refs/tags/v*", "write tag = \"v*\""), ("v?", "contains `?`")]);
    refused::<RefName>(&[("main", "starts with `refs/`"), ("refs/x/*", "contains `*`"), ("refs/", "empty")]);
}
