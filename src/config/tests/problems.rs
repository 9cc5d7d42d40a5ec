//! How problems read, and that each names its line.

use super::{SMALL, app, host};

/// The small app with one line more in a table.
fn small_with(table: &str, line: &str) -> String {
    match SMALL.contains(&format!("[{table}]\n")) {
        true => SMALL.replace(&format!("[{table}]\n"), &format!("[{table}]\n{line}\n")),
        false => format!("{SMALL}[{table}]\n{line}\n"),
    }
}

#[test]
fn an_unknown_key_is_shown_with_the_keys_there_are() {
    assert_eq!(
        app("[source]\nurl = \"git@h:p\"\nbrunch = \"main\"\n").unwrap_err().to_string(),
        "\
/etc/poller/apps.d/todo.toml:3:1: unknown key `brunch`
  |
3 | brunch = \"main\"
  | ^^^^^^
  = expected one of: `url`, `branch`, `tag`, `ref`, `identity`, `known_hosts`, `ssh_command`, `subdir`, `paths`, `hosts`, `timeout`, `soak`, `override`
  = did you mean `branch`?"
    );
}

#[test]
fn a_wrong_value_in_an_array_is_underlined_alone() {
    assert_eq!(
        app(&small_with("deploy", "restart = [\"é.service\", \"todo\"]")).unwrap_err().to_string(),
        "\
/etc/poller/apps.d/todo.toml:8:12: `é.service` is not the name of a unit
  |
8 | restart = [\"é.service\", \"todo\"]
  |            ^^^^^^^^^^^
  = write for example \"todo.service\""
    );
}

#[test]
fn a_missing_key_points_at_the_header_of_its_table() {
    assert_eq!(
        app(&SMALL.replace("directory = \"/srv/todo\"", "")).unwrap_err().to_string(),
        "\
/etc/poller/apps.d/todo.toml:5:1: `directory` in `[target]` is missing
  |
5 | [target]
  | ^^^^^^^^
  = add for example directory = \"/var/www/todo\""
    );
}

#[test]
fn a_syntax_error_is_shown_where_it_is() {
    assert_eq!(
        host("[host]\n\tname = web-1\n").unwrap_err().to_string(),
        "\
/etc/poller/poller.toml:2:9: string values must be quoted, expected literal string
  |
2 |     name = web-1
  |            ^^^^^"
    );
}

#[test]
fn a_missing_table_is_a_problem_of_the_whole_file() {
    let problem = app("").unwrap_err();
    assert_eq!(
        problem.to_string(),
        "/etc/poller/apps.d/todo.toml: the table `[source]` is missing\n  = add for example [source] with url = \"git@host:path\" and branch = \"main\""
    );
    assert_eq!((problem.line(), problem.column()), (None, None));
    assert!(problem.file().ends_with("todo.toml") && problem.help().len() == 1);
    let no_target = SMALL.split("[target]").next().unwrap();
    assert_eq!(app(no_target).unwrap_err().message(), "the table `[target]` is missing");
}

#[test]
fn an_unknown_key_in_every_table_is_an_error_and_names_the_line() {
    for table in ["host", "paths", "metrics", "notify"] {
        let problem = host(&format!("\n[{table}]\nwrong = 1\n")).unwrap_err();
        assert_eq!((problem.message(), problem.line()), ("unknown key `wrong`", Some(3)), "{table}");
    }
    for table in ["source", "target", "deploy", "health", "verify"] {
        let text = small_with(table, "wrong = 1");
        let line = text.lines().position(|line| line == "wrong = 1").map(|index| index + 1);
        let problem = app(&text).unwrap_err();
        assert_eq!((problem.message(), problem.line()), ("unknown key `wrong`", line), "{table}");
    }
    assert_eq!(host("[source]").unwrap_err().message(), "unknown key `source`");
    assert_eq!(app("[host]").unwrap_err().message(), "unknown key `host`");
}

#[test]
fn overrides_notifications_and_waits_that_make_no_sense_are_refused_at_their_line() {
    let with = |text: &str| app(&format!("{SMALL}{text}\n")).unwrap_err();
    assert_eq!(with("[[source.override]]\nanything = 1").message(), "unknown key `anything`");
    assert_eq!(with("[[source.override]]\nsoak = \"1h\"").message(), "`hosts` in `[[source.override]]` is missing");
    assert_eq!(with("[[source.override]]\nhosts = [\"a\"]").message(), "`[[source.override]]` changes nothing");
    let two = with("[[source.override]]\nhosts = [\"a\"]\nbranch = \"b\"\ntag = \"v*\"");
    assert_eq!(two.message(), "an app follows one ref, and this is the second");
    for (text, line, message) in [
        ("[notify]\non = []", 1, "`[notify]` does not say whom to tell"),
        ("[notify]\ncommand = \"tell-us --now\"", 2, "`tell-us` is not absolute"),
        ("[notify]\nurl = \"example.org\"", 2, "the URL does not begin with https:// or http://"),
        ("[host]\nsplay = \"2d\"", 2, "`splay` is longer than a day"),
    ] {
        let problem = host(text).unwrap_err();
        assert_eq!((problem.line(), problem.message()), (Some(line), message), "{problem}");
    }
}

#[test]
fn a_value_of_the_wrong_type_is_told_with_what_was_expected() {
    assert_eq!(
        host("[notify]\ncommand = 1").unwrap_err().message(),
        "expected a string or an array of strings, found integer `1`"
    );
    assert_eq!(host("[notify]\non = [\"faild\"]").unwrap_err().help()[1], "did you mean `failed`?");
    let soak = app(&small_with("source", "soak = \"x\"")).unwrap_err();
    assert_eq!(soak.message(), "`x` is not a duration");
}

#[test]
fn exactly_one_of_branch_tag_and_ref() {
    let none = app(&SMALL.replace("branch = \"main\"\n", "")).unwrap_err();
    assert_eq!((none.line(), none.message()), (Some(1), "`[source]` does not say which ref to follow"));
    assert!(none.help()[0].starts_with("name one of the three"));
    for (second, line) in [("tag = \"v*\"", 2), ("ref = \"refs/x/y\"", 2)] {
        // The one that stands first in the file is the one that was there before.
        let problem = app(&small_with("source", second)).unwrap_err();
        assert_eq!(
            (problem.line(), problem.message()),
            (Some(line + 2), "an app follows one ref, and this is the second")
        );
    }
}

#[test]
fn the_key_comes_from_identity_or_from_ssh_command() {
    let without = SMALL.replace("identity = \"keys/todo\"\n", "");
    let local = |line: &str| without.replace("git@github.com:me/todo.git\"", &format!("/srv/todo.git\"\n{line}"));
    for (text, line, message) in [
        (without.clone(), 2, "`identity` in `[source]` is missing, and an SSH server wants a key"),
        (small_with("source", "ssh_command = \"ssh\""), 5, "`identity` and `ssh_command` are both given"),
        (local("identity = \"k\""), 3, "a local repository takes no `identity`"),
        (local("ssh_command = \"ssh\""), 3, "a local repository takes no `ssh_command`"),
    ] {
        let problem = app(&text).unwrap_err();
        assert_eq!((problem.line(), problem.message()), (Some(line), message), "{problem}");
    }
    assert!(app(&local("")).is_ok());
    let command = app(&without.replace("branch", "ssh_command = \"ssh -F x\"\nbranch")).unwrap();
    assert_eq!(command.source.identity, None);
}

#[test]
fn missing_keys_are_named_with_their_table() {
    for (text, line, message) in [
        (SMALL.replace("url = \"git@github.com:me/todo.git\"\n", ""), 1, "`url` in `[source]` is missing"),
        (small_with("health", "attempts = 2"), 7, "`[health]` does not say what to ask"),
    ] {
        let problem = app(&text).unwrap_err();
        assert_eq!((problem.line(), problem.message()), (Some(line), message));
    }
}

#[test]
fn wrong_types_say_what_was_expected() {
    for (table, line, message) in [
        ("target", "keep = \"5\"", "expected a whole number from 1 to 1000, found string \"5\""),
        ("target", "shared = \"media\"", "expected an array, found string \"media\""),
        ("target", "layout = 1", "expected a string"),
        ("target", "layout = \"release\"", "unknown value `release`"),
        ("deploy", "env = { DEBUG = 1 }", "expected a string, found integer"),
        ("deploy", "env = [\"A=1\"]", "expected a table, found an array"),
        ("deploy", "script = [\"a\", 1]", "expected a string, found integer `1`"),
        ("deploy", "on_failure = \"rolback\"", "unknown value `rolback`"),
        ("verify", "allow_rewind = \"yes\"", "expected a boolean, found string \"yes\""),
    ] {
        let problem = app(&small_with(table, line)).unwrap_err();
        assert_eq!(problem.message(), message, "{problem}");
        assert!(problem.line().is_some(), "{problem}");
    }
    let umask = app(&small_with("deploy", "umask = 022")).unwrap_err();
    assert_eq!(umask.help(), ["write octal digits as a string, such as \"022\""]);
    assert_eq!(app("source = 1").unwrap_err().message(), "expected a table, found integer `1`");
}

#[test]
fn what_is_shown_of_a_file_hides_and_turns_nothing() {
    for odd in ['\u{202e}', '\u{2060}', '\u{206a}', '\u{fff9}', '\u{feff}', '\u{9b}'] {
        let shown = app(&small_with("deploy", &format!("user = \"a {odd}b\""))).unwrap_err().to_string();
        assert!(shown.contains(&odd.escape_default().to_string()) && !shown.contains(odd), "{shown:?}");
    }
}

/// Whatever is wrong with an app's `env`, and however it is laid out.
#[test]
fn no_value_of_an_environment_is_shown() {
    for lines in [
        "env = { PW = \"hunter2\", PORT = 8000 }",
        "env = {\n  PW = \"hunter2\",\n  PORT = 8000\n}",
        "env = {\n  PORT = \"8000\"\n  PW = \"hunter2\"\n}",
        "env = {\n  PORT: \"8000\",\n  PW: \"hunter2\"\n}",
        "env = { PW: \"hunter2\" }",
        "env = { PW \"hunter2\" }",
        "env = { PW = hunter2 }",
        "env = { PW = \"hunter2 }",
        "env = { PW = \"hunter2\\q\" }",
        "env = { PW = \"\"\"one\nhunter2 = \\q\"\"\" }",
        "env.PW = hunter2",
        "env.PORT = 8000",
        "env = [\"PW=hunter2\"]",
        "env = \"hunter2\"",
        "\"env\" = { PW = hunter2 }",
    ] {
        let shown = app(&small_with("deploy", lines)).unwrap_err().to_string();
        assert!(!shown.contains("hunter2") && !shown.contains("8000"), "{lines}\n{shown}");
    }
    for line in
        ["PW: \"hunter2\"", "PW \"hunter2\"", "PW = hunter2", "hunter2", "PORT = 8000", "PW = \"\"\"\nhunter2\\q\"\"\""]
    {
        let shown = app(&format!("{SMALL}[deploy.env]\nA = \"b\"\n{line}\n")).unwrap_err().to_string();
        assert!(!shown.contains("hunter2") && !shown.contains("8000"), "{line}\n{shown}");
    }
}
