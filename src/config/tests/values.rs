//! A table for each kind of value: what passes, what is refused, and why.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::super::command::Command;
use super::super::names::{Account, EnvName, EnvValue, HostName, SudoCommand, UnitName};
use super::super::values::{AppName, Count, FilePath, HostGlob, PathGlob, Pause, RelPath, Text, TimeLimit, Umask};

pub fn refused<T: Text + Debug>(cases: &[(&str, &str)]) {
    for (text, message) in cases {
        match T::parse(text) {
            Ok(value) => panic!("{text:?} was taken for {value:?}"),
            Err(fault) => assert!(fault.to_string().contains(message), "{text:?}: {fault}"),
        }
    }
}

pub fn taken<T: Text>(cases: &[&str]) {
    for text in cases {
        assert!(T::parse(text).is_ok(), "{text:?} was refused");
    }
}

/// What toml makes of a value that is not a string.
fn from_toml<T: DeserializeOwned>(value: &str) -> Result<T, String> {
    let table: Result<BTreeMap<String, T>, _> = toml::from_str(&format!("v = {value}"));
    table.map(|mut table| table.remove("v").unwrap()).map_err(|error| error.message().to_owned())
}

#[test]
fn app_names() {
    for name in ["todo", "a", "A.b_c-9", "9", &"x".repeat(64)] {
        assert_eq!(AppName::parse(name).unwrap().to_string(), name);
    }
    for name in ["", ".a", "-a", "_a", "a b", "a/b", "a..b", "a.lock", "a.", "é", "a\n", &"x".repeat(65)] {
        let why = AppName::parse(name).unwrap_err();
        assert!(why.contains("is not a name for an app") && !why.contains('\n'), "{why}");
    }
}

#[test]
fn durations() {
    for (text, milliseconds) in [
        ("90s", 90_000),
        ("10m", 600_000),
        ("1h30m", 5_400_000),
        ("2d", 172_800_000),
        ("500ms", 500),
        ("7d", 604_800_000),
        ("0s", 0),
    ] {
        assert_eq!(Pause::parse(text).unwrap().0, Duration::from_millis(milliseconds), "{text}");
    }
    let cases = [
        ("", "not a duration"),
        ("10", "the unit of `10` is missing\nwrite for example \"90s\""),
        ("1h30", "unit of `1h30` is missing"),
        ("s", "not a duration"),
        ("-5s", "not a duration"),
        ("1.5h", "not a duration"),
        ("5 s", "not a duration"),
        ("5S", "not a duration"),
        ("5w", "not a duration"),
        ("8d", "too long"),
        ("7d1ms", "too long"),
        ("99999999999999999999d", "too long"),
        ("18446744073709551615d", "too long"),
    ];
    refused::<Pause>(&cases);
    refused::<TimeLimit>(&cases);
    refused::<TimeLimit>(&[("0s", "no time limit is ever none"), ("0h0m", "not zero")]);
    let bare = from_toml::<TimeLimit>("10").unwrap_err();
    assert!(bare.starts_with("the unit of `10` is missing\n"), "{bare}");
}

#[test]
fn counts_and_umasks() {
    assert_eq!(from_toml::<Count>("1000").unwrap().0, 1000);
    for value in ["0", "-1", "1001", "99999999999", "1.5", "true"] {
        assert!(from_toml::<Count>(value).unwrap_err().contains("from 1 to 1000"), "{value}");
    }
    for (text, mask) in [("022", 0o022), ("0027", 0o027), ("7", 7), ("077", 0o77)] {
        assert_eq!(Umask::parse(text).unwrap().0, mask);
    }
    refused::<Umask>(&[
        ("", "not a umask"),
        ("1000", "not a umask"),
        ("100", "rights of the owner"),
        ("0777", "rights of the owner"),
        ("8", "not a umask"),
        ("+22", "not"),
        ("0o22", "not"),
        ("00022", "not"),
    ]);
    assert!(from_toml::<Umask>("22").unwrap_err().contains("write it as a string"));
}

#[test]
fn commands() {
    for (value, argv) in [
        ("\"./deploy.sh 'two words' $HOME\"", vec!["./deploy.sh", "two words", "$HOME"]),
        ("[\"a b\", \"\"]", vec!["a b", ""]),
    ] {
        assert_eq!(from_toml::<Command>(value).unwrap().argv(), argv);
    }
    assert_eq!(from_toml::<Command>("['a b', '$x']").unwrap().to_string(), "'a b' '$x'");
    for (value, why) in [
        ("''", "empty"),
        ("'  '", "empty"),
        ("[]", "empty"),
        ("['']", "empty"),
        ("\"a 'b\"", "not closed"),
        ("[\"a\\u0000\"]", "NUL"),
        ("1", "expected a string or an array of strings"),
    ] {
        let message = from_toml::<Command>(value).unwrap_err();
        assert!(message.contains(why), "{value}: {message}");
    }
}

#[test]
fn paths() {
    taken::<FilePath>(&["/a", "keys/todo", "../x"]);
    refused::<FilePath>(&[("", "empty"), ("a\n", "control"), ("~/.ssh/id", "not expanded")]);
    for (text, path) in [("site", "site"), ("./a//b", "a/b"), ("media/", "media/"), ("a..b", "a..b")] {
        assert_eq!(RelPath::parse(text).unwrap().0, path);
    }
    let escapes = [("/a", "absolute"), ("..", "`..`"), ("a/../b", "`..`"), ("a\0", "control")];
    refused::<RelPath>(&escapes);
    refused::<RelPath>(&[("", "nothing"), (".", "nothing"), ("./", "nothing")]);
    taken::<PathGlob>(&["site/**", "*.py", "{a,b}/c", "a..b"]);
    refused::<PathGlob>(&escapes);
    refused::<PathGlob>(&[("", "empty"), ("[a", "not a pattern"), ("./a", "as a folder"), ("site/", "\"site/**\"")]);
    taken::<HostGlob>(&["web-*", "web-[12]"]);
    refused::<HostGlob>(&[("", "empty"), ("{a", "not a pattern")]);
}

#[test]
fn names_of_the_host() {
    taken::<Account>(&["gunicorn", "www-data", "a1", "DOMAIN\\user"]);
    refused::<Account>(&[
        ("x\\", "not the name"),
        ("", "not empty"),
        ("root", "restricted user"),
        ("0", "uid 0 could be anyone"),
        ("1000", "uid 1000 could be anyone"),
        ("a b", "not the name"),
        ("-a", "not the name"),
        ("#0", "not the name"),
        ("a:b", "not the name"),
    ]);
    assert!(from_toml::<Account>("1000").unwrap_err().contains("could be anyone"));
    taken::<HostName>(&["web-1", "web-1.example.org"]);
    refused::<HostName>(&[("", "not empty"), ("a b", "blanks"), ("a/b", "slashes")]);
    taken::<UnitName>(&["a.service", "a@b:c_d-e.f.timer", "x.socket", "x.target", "x.path"]);
    refused::<UnitName>(&[
        ("todo", "write \"todo.service\""),
        ("todo.mount", "no unit suffix"),
        (".service", "suffix only"),
        ("-H.service", "not the name"),
        ("a b.service", "not the name"),
        ("a*.service", "not the name"),
        ("", "not the name"),
    ]);
}

#[test]
fn environment_and_sudo() {
    taken::<EnvName>(&["A", "_a", "PATH", "LD_PRELOAD", "POLLERX"]);
    refused::<EnvName>(&[
        ("", "not the name"),
        ("1A", "not the name"),
        ("A-B", "not the name"),
        ("POLLER_APP", "set by poller"),
    ]);
    taken::<EnvValue>(&["", "a\nb"]);
    refused::<EnvValue>(&[("a\0", "NUL")]);
    taken::<SudoCommand>(&["/usr/bin/systemctl restart todo", "/bin/true"]);
    refused::<SudoCommand>(&[
        ("systemctl restart todo", "not absolute"),
        ("ALL", "not absolute"),
        ("", "not absolute"),
        ("/bin/x *", "wildcard"),
        ("/bin/x?", "wildcard"),
        ("/bin/[ab]", "wildcard"),
        ("/bin/x\n/bin/sh", "one line"),
        ("/usr/bin/", "folder"),
        ("/bin/x ^.+$", "pattern to sudo"),
        ("/bin/x 'a", "not closed"),
        ("/bin/x a #b", "begins a comment"),
        ("/bin/a!b", "name of a program"),
        ("/opt/my\\ apps/ x", "folder"),
        ("/usr/bin/sudoedit /etc/x", "sudoedit"),
        ("/bin/x ''", "empty argument"),
        ("/bin/x 'a '", "blank at the end"),
    ]);
    taken::<SudoCommand>(&["/bin/x 'a #b'", "/bin/x a#b", "/opt/my\\ app/x y", "/bin/x \"a  b\" c!"]);
}
