//! The drop-ins and samples, each given to the program that will read it on a server:
//! a sudoers line that sudo rejects, or a cron file that cron passes over in silence,
//! is found here and not there.
//!
//! A test that lacks its program, or root, says so and passes; with `CI=true` in the
//! environment it fails instead, so that nothing goes unchecked unnoticed.

use std::collections::HashSet;
use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

// --- cron ---------------------------------------------------------------------------

#[test]
fn cron_accepts_the_name_the_ending_and_every_line_of_the_drop_in() {
    let path = shipped("cron/poller");
    let name = path.file_name().unwrap().to_str().unwrap();
    assert!(
        name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_'),
        "cron passes over a file named {name}"
    );
    let metadata = fs::symlink_metadata(&path).unwrap();
    assert!(metadata.is_file(), "cron wants a plain file");
    assert_eq!(metadata.mode() & 0o111, 0, "a crontab is no program");

    let text = read("cron/poller");
    assert!(text.ends_with('\n'), "cron passes over a file without a final newline");
    assert!(!text.contains('\r'));
    for line in text.lines().filter(|line| !is_comment(line)) {
        let is_setting = line
            .split_once('=')
            .is_some_and(|(name, _)| !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c == '_'));
        if !is_setting {
            let fields: Vec<_> = line.split_whitespace().collect();
            assert_eq!(&fields[..6], ["*/5", "*", "*", "*", "*", "root"], "{line}");
            assert!(!line.contains('%'), "cron would read % as a newline: {line}");
        }
    }
}

#[test]
fn cron_polls_where_no_timer_does_and_stays_silent_where_one_does() {
    let command = cron_command();
    // (what is-enabled says, what is-active says, is poller run?)
    let table = [
        (true, true, false),
        (true, false, false), // paused by hand: cron must not deploy behind their back
        (false, true, false), // started by hand
        (false, false, true),
    ];
    for (enabled, active, polls) in table {
        let world = Scratch::new();
        let booted = world.folder("booted");
        let bin = world.folder("bin");
        world.script("bin/poller", "echo polled");
        world.script(
            "bin/systemctl",
            &format!(
                "echo complaint >&2\ncase $* in\n\
                 '--quiet is-enabled poller.timer') {enabled} ;;\n\
                 '--quiet is-active poller.timer') {active} ;;\n\
                 *) echo \"unexpected: $*\"; false ;;\nesac"
            ),
        );
        let output = run_cron_command(&command, &booted, &bin);
        assert_eq!(stdout(&output), if polls { "polled\n" } else { "" }, "{enabled} {active}");
        assert_eq!(stderr(&output), "", "anything said here is mailed every five minutes");
    }
}

#[test]
fn cron_polls_where_systemd_is_installed_but_does_not_run_the_machine() {
    let world = Scratch::new();
    let bin = world.folder("bin");
    world.script("bin/poller", "echo polled; exit 75");
    world.script("bin/systemctl", "echo asked; true");
    let output = run_cron_command(&cron_command(), &world.path("not-booted"), &bin);
    assert_eq!(stdout(&output), "polled\n");
    assert_eq!(output.status.code(), Some(75), "the exit status is poller's");
}

#[test]
fn cron_stays_silent_after_the_package_was_removed() {
    let world = Scratch::new();
    let bin = world.folder("bin");
    let output = run_cron_command(&cron_command(), &world.path("not-booted"), &bin);
    assert_eq!((stdout(&output), stderr(&output)), (String::new(), String::new()));
    assert!(output.status.success());
}

// --- logrotate ----------------------------------------------------------------------

#[test]
fn logrotate_reads_the_drop_in_without_complaint() {
    let Some(logrotate) = tool("logrotate") else {
        return;
    };
    if !root() {
        return;
    }
    let world = Scratch::new();
    // Checked as installed: owned by who runs logrotate, and not writable by others.
    let config = world.file("poller", &read("logrotate/poller"), 0o644);
    let state = world.path("state");
    let output = Command::new(logrotate).arg("-d").arg("-s").arg(&state).arg(&config).output();
    let output = output.unwrap();
    let said = both(&output);
    assert!(output.status.success(), "{said}");
    assert!(!said.contains("error:"), "{said}");
    assert!(said.contains("/var/log/poller/poller.log"), "{said}");
}

#[test]
fn a_run_that_writes_during_rotation_loses_no_line_and_the_next_one_opens_the_new_log() {
    let Some(logrotate) = tool("logrotate") else {
        return;
    };
    if !root() {
        return;
    }
    let world = Scratch::new();
    let log = world.folder("log").join("poller.log");
    let text = read("logrotate/poller").replace("/var/log/poller/poller.log", text_of(&log));
    let config = world.file("poller", &text, 0o644);
    let open = || fs::OpenOptions::new().append(true).create(true).open(&log).unwrap();

    let mut at_work = open();
    writeln!(at_work, "before").unwrap();
    let state = world.path("state");
    let output = Command::new(logrotate).arg("-f").arg("-s").arg(&state).arg(&config).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", both(&output));
    writeln!(at_work, "after").unwrap();
    writeln!(open(), "next run").unwrap();

    // Plain, not compressed: the run that was at work goes on writing to it.
    let old = fs::read_to_string(log.with_file_name("poller.log.1")).unwrap();
    assert_eq!(old, "before\nafter\n");
    assert_eq!(fs::read_to_string(&log).unwrap(), "next run\n");
    let made = fs::metadata(&log).unwrap();
    assert_eq!(made.mode() & 0o7777, 0o640);
    assert_eq!(made.uid(), 0);
}

// --- systemd ------------------------------------------------------------------------

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    let Some(analyze) = tool("systemd-analyze") else {
        return;
    };
    let world = Scratch::new();
    let units = [
        startable(&world, "packaging/systemd/poller.service"),
        world.file("poller.timer", &read("packaging/systemd/poller.timer"), 0o644),
        startable(&world, "packaging/examples/django/todo_gunicorn.service"),
    ];
    let output =
        Command::new(analyze).args(["verify", "--man=no", "--recursive-errors=no"]).args(&units).output().unwrap();
    let said = both(&output);
    assert!(output.status.success(), "{said}");
    // A misspelt directive is only a warning, and the status stays 0. What other units
    // of this machine are warned about is not ours.
    let ours = ["poller.service", "poller.timer", "todo_gunicorn.service"];
    let complaint = said.lines().find(|line| ours.iter().any(|unit| line.contains(unit)));
    assert_eq!(complaint, None, "{said}");
}

#[test]
fn the_service_stays_confined() {
    let Some(analyze) = tool("systemd-analyze") else {
        return;
    };
    let world = Scratch::new();
    let unit = startable(&world, "packaging/systemd/poller.service");
    // 3.8 with systemd 252; the weights move a little between versions.
    let output = Command::new(analyze)
        .args(["security", "--offline=true", "--no-pager", "--threshold=42"])
        .arg(&unit)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", both(&output));
}

#[test]
fn the_service_leaves_out_what_would_break_sudo_deploys_and_locks() {
    let unit = read("packaging/systemd/poller.service");
    let set: Vec<_> = unit
        .lines()
        .filter(|line| !is_comment(line))
        .filter_map(|line| line.split_once('=').map(|(name, _)| name))
        .collect();
    let harmful = [
        "User",
        "DynamicUser",
        "PrivateUsers",
        "NoNewPrivileges",
        "ProtectHome",
        "ProtectProc",
        "MemoryDenyWriteExecute",
        "RestrictSUIDSGID",
        "RuntimeDirectory",
        "StateDirectory",
        "LogsDirectory",
    ];
    for directive in harmful {
        assert!(!set.contains(&directive), "{directive}= is explained in the file, not set");
    }
    assert!(unit.contains("\nProtectSystem=full\n"), "strict would close /srv and /var/www");
    assert!(unit.contains("\nSuccessExitStatus=75\n"));
    assert!(unit.contains("\nKillMode=mixed\n"));
}

#[test]
fn sysusers_makes_the_fetch_user_and_tmpfiles_gives_it_its_folder_and_no_other() {
    let (Some(sysusers), Some(tmpfiles)) = (tool("systemd-sysusers"), tool("systemd-tmpfiles")) else {
        return;
    };
    if !root() {
        return;
    }
    let world = Scratch::new();
    let etc = world.folder("etc");
    fs::write(etc.join("passwd"), "root:x:0:0:root:/root:/bin/sh\n").unwrap();
    fs::write(etc.join("group"), "root:x:0:\nadm:x:4:\n").unwrap();

    let in_world = format!("--root={}", text_of(&world.0));
    let output =
        Command::new(sysusers).arg(&in_world).arg(shipped("packaging/sysusers.d/poller.conf")).output().unwrap();
    assert!(output.status.success(), "{}", both(&output));
    let passwd = fs::read_to_string(etc.join("passwd")).unwrap();
    let account = passwd.lines().find(|line| line.starts_with("poller:")).expect(&passwd);
    let account: Vec<_> = account.split(':').collect();
    assert_eq!(&account[5..], ["/var/lib/poller", "/usr/sbin/nologin"]);
    let (uid, gid) = (account[2].parse().unwrap(), account[3].parse().unwrap());

    let output = Command::new(tmpfiles)
        .args(["--create", &in_world])
        .arg(shipped("packaging/tmpfiles.d/poller.conf"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", both(&output));
    let made = |path: &str| {
        let metadata = fs::metadata(world.path(path)).unwrap();
        (metadata.mode() & 0o7777, metadata.uid(), metadata.gid())
    };
    assert_eq!(made("run/poller"), (0o755, 0, 0));
    assert_eq!(made("var/lib/poller"), (0o750, uid, gid));
    assert_eq!(made("var/log/poller"), (0o750, 0, 4));
}

// --- sudo ---------------------------------------------------------------------------

#[test]
fn visudo_accepts_the_sudoers_sample() {
    let Some(visudo) = tool("visudo") else { return };
    let world = Scratch::new();
    let sample = world.file("poller-todo", &read("packaging/sudoers/poller-todo"), 0o440);
    let output = Command::new(visudo).arg("-cf").arg(&sample).output().unwrap();
    assert!(output.status.success(), "{}", both(&output));
}

#[test]
fn the_sudoers_sample_allows_one_exact_command_and_nothing_like_it() {
    let path = shipped("packaging/sudoers/poller-todo");
    let name = path.file_name().unwrap().to_str().unwrap();
    assert!(!name.contains('.') && !name.ends_with('~'), "sudo passes over {name}");

    let text = read("packaging/sudoers/poller-todo");
    let rules: Vec<_> = text.lines().filter(|line| !is_comment(line)).collect();
    assert_eq!(rules, ["gunicorn ALL = (root) NOPASSWD: /usr/bin/systemctl restart todo_gunicorn.service"]);

    // The same letters in the app that goes with it.
    let app = read("packaging/examples/django/todo.toml");
    assert!(app.contains("restart = [\"todo_gunicorn.service\"]"));
}

// --- Prometheus and Grafana ---------------------------------------------------------

#[test]
fn promtool_accepts_the_alert_rules_and_they_fire_when_they_should() {
    let Some(promtool) = tool("promtool") else { return };
    for (what, file) in [("check", "poller.rules.yml"), ("test", "poller.rules.test.yml")] {
        let file = shipped(&format!("packaging/prometheus/{file}"));
        let output = Command::new(&promtool).args([what, "rules"]).arg(file).output().unwrap();
        assert!(output.status.success(), "{}", both(&output));
    }
    let (rules, tests) =
        (read("packaging/prometheus/poller.rules.yml"), read("packaging/prometheus/poller.rules.test.yml"));
    let alerts: Vec<_> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert_eq!(alerts.len(), 6);
    for alert in alerts {
        assert!(tests.matches(&format!("alertname: {alert}\n")).count() >= 2, "{alert} fires, and does not");
    }
}

#[test]
fn each_alert_says_what_to_run() {
    let rules = read("packaging/prometheus/poller.rules.yml");
    let alerts: Vec<_> = rules.split("- alert: ").skip(1).collect();
    for alert in alerts {
        for part in ["severity: ", "summary: ", "description: ", "`poller "] {
            assert!(alert.contains(part), "{part} is missing: {alert}");
        }
    }
}

#[test]
fn the_dashboard_is_json_that_asks_whatever_prometheus_is_chosen() {
    let text = read("packaging/grafana/poller.json");
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    assert!(variables.iter().any(|v| v["name"] == "datasource" && v["type"] == "datasource"));
    let panels = dashboard["panels"].as_array().unwrap();
    let mut taken = HashSet::new();
    let mut ids = HashSet::new();
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "an id twice");
        let places = ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().unwrap());
        for (x, y) in (0..places[2]).flat_map(|x| (0..places[3]).map(move |y| (x, y))) {
            assert!(places[0] + x < 24 && taken.insert((places[0] + x, places[1] + y)), "panels overlap: {panel}");
        }
        for asks in panel["targets"].as_array().unwrap().iter().chain([panel]) {
            assert_eq!(asks["datasource"]["uid"], "${datasource}", "a data source of one installation: {asks}");
        }
    }
}

#[test]
fn promtool_understands_every_question_of_the_dashboard() {
    let Some(promtool) = tool("promtool") else { return };
    let dashboard: Value = serde_json::from_str(&read("packaging/grafana/poller.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let asked = panels.flat_map(|panel| panel["targets"].as_array().unwrap()).map(|t| t["expr"].as_str().unwrap());
    let mut rules = String::from("groups:\n- name: dashboard\n  rules:\n");
    for (n, expr) in asked.enumerate() {
        let expr = expr.replace("$__rate_interval", "5m").replace("$instance", ".*").replace("$app", ".*");
        assert!(!expr.contains('$'), "a variable that Grafana does not know: {expr}");
        rules += &format!("  - record: question:{n}\n    expr: {}\n", Value::from(expr));
    }
    let world = Scratch::new();
    let file = world.file("rules.yml", &rules, 0o644);
    let output = Command::new(promtool).args(["check", "rules"]).arg(file).output().unwrap();
    assert!(output.status.success(), "{}", both(&output));
}

// --- known hosts --------------------------------------------------------------------

#[test]
fn every_pinned_key_has_the_fingerprint_that_its_comment_gives() {
    let Some(ssh_keygen) = tool("ssh-keygen") else {
        return;
    };
    let path = shipped("etc/poller/known_hosts");
    let output = Command::new(ssh_keygen).arg("-lf").arg(&path).output().unwrap();
    assert!(output.status.success(), "{}", both(&output));
    // "256 SHA256:… github.com (ED25519)", a line a key, in the order of the file.
    let printed = stdout(&output);
    let printed: Vec<(&str, &str)> = printed
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .map(|fields| (fields[1], fields[2]))
        .collect();

    let text = read("etc/poller/known_hosts");
    let lines: Vec<_> = text.lines().collect();
    let keys: Vec<_> = (0..lines.len()).filter(|&n| !is_comment(lines[n])).collect();
    assert_eq!(keys.len(), printed.len());
    for (&n, &(fingerprint, host)) in keys.iter().zip(&printed) {
        let fields: Vec<_> = lines[n].split(' ').collect();
        assert_eq!(fields[0], host);
        assert!(["ssh-ed25519", "ecdsa-sha2-nistp256"].contains(&fields[1]), "not verified by poller: {}", lines[n]);
        assert_eq!(lines[n - 1], format!("# {fingerprint}"), "above {host} {}", fields[1]);
        assert!(lines[n - 2].starts_with("# https://"), "where {host} publishes it");
    }
}

// --- the Django example -------------------------------------------------------------

#[test]
fn shellcheck_finds_nothing_in_the_example_script() {
    let Some(shellcheck) = tool("shellcheck") else {
        return;
    };
    let script = shipped("packaging/examples/django/deploy.sh");
    assert_ne!(fs::metadata(&script).unwrap().mode() & 0o100, 0, "must be executable");
    let output = Command::new(shellcheck).arg(&script).output().unwrap();
    assert!(output.status.success(), "{}", both(&output));
}

#[test]
fn the_example_script_installs_once_and_a_rollback_neither_downloads_nor_migrates() {
    let release = Release::new();

    release.deploy("deploy").unwrap();
    let first = "venv --clear\npip install\nmigrate\ncollectstatic\n";
    assert_eq!(release.done(), first);

    release.deploy("rollback").unwrap();
    assert_eq!(release.done(), "collectstatic\n");

    fs::write(release.world.path("requirements.txt"), "django==5.2.1\n").unwrap();
    release.deploy("retry").unwrap();
    assert_eq!(release.done(), "pip install\nmigrate\ncollectstatic\n");
}

#[test]
fn the_example_script_fails_when_a_step_does_and_starts_again_where_it_stopped() {
    let release = Release::new();

    let broken = release.world.file("fail-pip", "", 0o644);
    release.deploy("deploy").unwrap_err();
    assert_eq!(release.done(), "venv --clear\npip install\n");

    fs::remove_file(broken).unwrap();
    release.deploy("retry").unwrap();
    assert_eq!(release.done(), "pip install\nmigrate\ncollectstatic\n");
}

/// A release with the example's script in it, and a Python that only notes what it is
/// asked to do.
struct Release {
    world: Scratch,
}

impl Release {
    fn new() -> Self {
        let world = Scratch::new();
        world.folder("bin");
        world.script(
            "bin/python3",
            "test \"$1 $2\" = '-m venv' || exit 2\n\
             echo \"venv $3\" >> done\n\
             mkdir -p \"$4/bin\"\n\
             cp tools/pip tools/python \"$4/bin/\"",
        );
        world.folder("tools");
        world.script("tools/pip", "echo \"pip $1\" >> done\ntest ! -e fail-pip");
        world.script("tools/python", "echo \"$2\" >> done");
        world.file("requirements.txt", "django==5.2\n", 0o644);
        world.file("deploy.sh", &read("packaging/examples/django/deploy.sh"), 0o755);
        Release { world }
    }

    fn deploy(&self, reason: &str) -> Result<(), String> {
        let path = format!("{}:/usr/bin:/bin", text_of(&self.world.path("bin")));
        let output = Command::new("/bin/sh")
            .arg("deploy.sh")
            .current_dir(&self.world.0)
            .env_clear()
            .env("PATH", path)
            .env("POLLER_REASON", reason)
            .output()
            .unwrap();
        output.status.success().then_some(()).ok_or_else(|| both(&output))
    }

    /// What was done since the last call.
    fn done(&self) -> String {
        let notes = self.world.path("done");
        let done = fs::read_to_string(&notes).unwrap_or_default();
        fs::write(notes, "").unwrap();
        done
    }
}

// --- support ------------------------------------------------------------------------

fn shipped(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(shipped(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn is_comment(line: &str) -> bool {
    line.is_empty() || line.starts_with('#')
}

fn text_of(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn both(output: &Output) -> String {
    stdout(output) + &stderr(output)
}

/// The command of the drop-in's only job, as cron hands it to the shell.
fn cron_command() -> String {
    let text = read("cron/poller");
    let job = text.lines().find(|line| line.starts_with("*/5 ")).expect("a job");
    job.split_once(" root ").expect("run by root").1.to_owned()
}

/// Runs the command with `booted` in the place of systemd's mark and `bin` in that of
/// poller's and systemctl's folder.
fn run_cron_command(command: &str, booted: &Path, bin: &Path) -> Output {
    let command = command
        .replace("/run/systemd/system", text_of(booted))
        .replace("/usr/bin/poller", text_of(&bin.join("poller")));
    Command::new("/bin/sh").args(["-c", &command]).env_clear().env("PATH", bin).stdin(Stdio::null()).output().unwrap()
}

/// A copy of a unit whose program exists here: systemd-analyze looks for it.
fn startable(world: &Scratch, unit: &str) -> PathBuf {
    let text: Vec<String> = read(unit)
        .lines()
        .map(|line| match line.strip_prefix("ExecStart=") {
            Some(_) => "ExecStart=/bin/true".to_owned(),
            None => line.to_owned(),
        })
        .collect();
    let name = Path::new(unit).file_name().unwrap().to_str().unwrap();
    world.file(name, &(text.join("\n") + "\n"), 0o644)
}

/// Where a program is, looked for in the administrators' folders too.
fn tool(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file());
    if found.is_none() {
        skip(&format!("{name} is not installed"));
    }
    found
}

fn root() -> bool {
    let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
    if !is_root {
        skip("needs root, to become or to serve another user");
    }
    is_root
}

fn skip(why: &str) {
    assert_ne!(env::var_os("CI").as_deref(), Some(OsStr::new("true")), "{why}");
    println!("skipped: {why}");
}

/// A folder of a test's own, gone with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("poller-dropins-{}-{count}", std::process::id());
        let folder = env::temp_dir().join(name);
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        Scratch(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn folder(&self, name: &str) -> PathBuf {
        let folder = self.path(name);
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        folder
    }

    fn file(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        let file = self.path(name);
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        file
    }

    fn script(&self, name: &str, text: &str) -> PathBuf {
        self.file(name, &format!("#!/bin/sh\n{text}\n"), 0o755)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
