//! `poller init`: what it makes, what it refuses, and that nothing that is there is ever written over.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;

mod host_key;
mod refusals;

use crate::support::run::Outcome;
use crate::support::{World, am_root, set_mode, sh};

const OTHER_PRINT: &str = "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU";

/// A host on which poller is installed, and nothing set up.
fn bare(name: &str) -> World {
    let world = World::new(name);
    fs::remove_file(world.path("etc/known_hosts")).unwrap();
    fs::remove_dir_all(world.path("etc/keys")).unwrap();
    fs::remove_dir(world.path("etc/apps.d")).unwrap();
    world
}

trait Init {
    fn url(&self) -> String;
    fn init(&self, more: &[&str]) -> Outcome;
    fn init_accepting(&self) -> Outcome;
    /// Everything in the configuration folder, with its content.
    fn etc(&self) -> Vec<(String, u32, String)>;
    fn expect_nothing_made(&self);
}

impl Init for World {
    fn url(&self) -> String {
        self.sshd.url(&self.repo.bare)
    }

    fn init(&self, more: &[&str]) -> Outcome {
        let (url, directory) = (self.url(), self.target("site"));
        let mut args = vec!["init", "site", &url, "--user", &self.deployer.name];
        args.extend(["--directory", directory.to_str().unwrap()]);
        args.extend(more);
        self.poll(&args)
    }

    fn init_accepting(&self) -> Outcome {
        self.init(&["--accept-host-key", &self.sshd.fingerprint()])
    }

    fn etc(&self) -> Vec<(String, u32, String)> {
        let found = sh("find", &[self.path("etc").to_str().unwrap(), "-printf", "%p\n"]);
        let mut paths: Vec<&str> = found.lines().collect();
        paths.sort_unstable();
        let read = |path: &str| (path.to_owned(), mode(Path::new(path)), fs::read_to_string(path).unwrap_or_default());
        paths.into_iter().map(read).collect()
    }

    fn expect_nothing_made(&self) {
        let etc: Vec<String> = self.etc().into_iter().map(|(path, ..)| path).collect();
        assert_eq!(etc.len(), 2, "etc and poller.toml: {etc:?}");
        assert_eq!(fs::read_dir(self.path("target")).unwrap().count(), 0);
    }
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).permissions().mode() & 0o7777
}

/// As somebody pastes it on the server's page.
fn let_in(world: &World) {
    fs::copy(world.path("etc/keys/site.pub"), world.path("sshd/authorized_keys")).unwrap();
}

#[test]
fn a_new_app_is_set_up_and_deploys_once_its_key_is_added() {
    let world = bare("new app");
    let shown = world.init_accepting().expect(0);
    assert!(shown.stderr.is_empty(), "{}", shown.story());
    let public = fs::read_to_string(world.path("etc/keys/site.pub")).unwrap();
    assert!(public.ends_with(" poller site on testhost\n"), "{public}");
    let shown = shown.prints(public.trim()).prints(&world.sshd.fingerprint()).prints(" check site\n");
    assert!(!shown.stdout.contains("PRIVATE"), "{}", shown.story());
    for (path, expected) in [
        ("etc/keys", 0o700),
        ("etc/keys/site", 0o600),
        ("etc/keys/site.pub", 0o644),
        ("etc/known_hosts", 0o644),
        ("etc/apps.d", 0o755),
        ("etc/apps.d/site.toml", 0o644),
        ("target/site", 0o755),
    ] {
        assert_eq!(mode(&world.path(path)), expected, "{path}");
    }
    assert_eq!(world.etc().len(), 8, "nothing else: {:?}", world.etc());
    let made = fs::metadata(world.target("site")).unwrap();
    assert_eq!((made.uid(), made.gid()), (world.deployer.uid, world.deployer.gid));
    assert_eq!(fs::read_to_string(world.path("etc/known_hosts")).unwrap(), world.sshd.known_hosts_line());
    let key = world.path("etc/keys/site");
    assert_eq!(sh("ssh-keygen", &["-yf", key.to_str().unwrap()]), public);

    let_in(&world);
    let first = world.push(&[("deploy.sh", world.script(""))], "first");
    world.poll(&["site"]).expect(0);
    world.expect_live("site", &first);
}

#[test]
fn a_second_init_of_the_same_changes_nothing() {
    let world = bare("second");
    world.init_accepting().expect(0);
    let before = world.hash_of_everything();
    for more in [&[] as &[&str], &["--branch", "main", "--script", "./deploy.sh"]] {
        world.init(more).expect(0).prints("keys/site, kept").prints("kept in").prints("kept as it is");
        assert_eq!(world.hash_of_everything(), before);
    }
    let url = world.url();
    world.poll(&["init", "site", &url]).expect(0).prints("kept as it is");
    assert_eq!(world.hash_of_everything(), before);
}

#[test]
fn what_was_cut_short_is_finished_by_running_it_again() {
    let world = bare("cut short");
    world.init_accepting().expect(0);
    let before = world.etc();
    for part in ["etc/keys/site.pub", "etc/known_hosts", "etc/apps.d/site.toml"] {
        fs::remove_file(world.path(part)).unwrap();
        world.init_accepting().expect(0).prints("keys/site, kept");
        assert_eq!(world.etc(), before, "{part}");
    }
    fs::remove_dir(world.target("site")).unwrap();
    // What a killed run leaves: names that nothing else uses.
    fs::write(world.path("etc/keys/.site.partial"), "half a ke").unwrap();
    set_mode(&world.path("etc/keys/.site.partial"), 0o600);
    fs::create_dir(world.path("target/.site.partial")).unwrap();
    for file in ["etc/keys/site", "etc/keys/site.pub"] {
        fs::remove_file(world.path(file)).unwrap();
    }
    world.init_accepting().expect(0).prints("keys/site, new").prints("kept as it is");
    assert_eq!(world.etc().len(), before.len(), "{:?}", world.etc());
    assert_eq!(fs::read_dir(world.path("target")).unwrap().count(), 1);
    let key = world.path("etc/keys/site");
    assert_eq!(
        sh("ssh-keygen", &["-yf", key.to_str().unwrap()]),
        fs::read_to_string(world.path("etc/keys/site.pub")).unwrap()
    );
}

#[test]
fn a_local_repository_takes_no_key() {
    let world = bare("local");
    let url = format!("file://{}", world.repo.bare.display());
    let directory = world.target("site");
    let args = ["init", "site", &url, "--user", &world.deployer.name, "--directory", directory.to_str().unwrap()];
    let shown = world.poll(&args).expect(0);
    assert!(!shown.stdout.contains("key"), "{}", shown.story());
    assert!(!world.path("etc/keys").exists() && !world.path("etc/known_hosts").exists());
    let first = world.push(&[("deploy.sh", world.script(""))], "first");
    world.poll(&[]).expect(0);
    world.expect_live("site", &first);
}

#[test]
fn an_ordinary_user_has_a_poller_of_ones_own() {
    needs_root!();
    let world = bare("ordinary");
    let (user, url, print) = (&world.deployer, world.url(), world.sshd.fingerprint());
    let run = |more: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_poller"));
        command.args(["init", "site", &url]).args(more);
        command.env_clear().env("HOME", &user.home).env("PATH", "/usr/bin:/bin").current_dir("/");
        command.uid(user.uid).gid(user.gid).stdin(std::process::Stdio::null());
        world.spawn(command).wait()
    };
    run(&["--user", "root"]).expect(64);
    run(&["--user", &world.fetcher.name]).expect(64).says("cannot become");
    assert_eq!(fs::read_dir(&user.home).unwrap().count(), 0);
    run(&["--accept-host-key", &print]).expect(0).prints(user.home.join("site").to_str().unwrap());
    let folder = user.home.join(".config/poller");
    assert_eq!(mode(&folder.join("keys/site")), 0o600);
    for path in [folder.join("keys/site"), folder.join("apps.d/site.toml"), user.home.join("site")] {
        assert_eq!(fs::metadata(&path).unwrap().uid(), user.uid, "{}", path.display());
    }
    let text = fs::read_to_string(folder.join("apps.d/site.toml")).unwrap();
    assert!(!text.contains("user ="), "{text}");
    run(&[]).expect(0).prints("kept as it is");
    // The host's configuration is not that user's to write.
    let host = world.config_file();
    run(&["--config", host.to_str().unwrap(), "--accept-host-key", &print]).expect(77).says("sudo poller init");
    world.expect_nothing_made();
}

/// What a reader would type where poller.toml is at its place.
fn plain(world: &World, text: &str) -> String {
    text.replace(&format!("--config {} ", world.config_file().display()), "")
}

/// `poller init` under strace, killed at the `number`th of its calls of one kind; whether it was.
fn killed_at(world: &World, call: &str, number: u32) -> bool {
    let (url, directory) = ("git@github.com:me/todo.git", world.target("site"));
    let args = ["init", "site", url, "--user", &world.deployer.name, "--directory", directory.to_str().unwrap()];
    let own = world.command(&args);
    let mut traced = std::process::Command::new("/usr/bin/strace");
    traced.args(["-qq", "-o", "/dev/null", "-e", &format!("trace={call}")]);
    traced.args(["-e", &format!("inject={call}:signal=SIGKILL:when={number}")]);
    traced.arg(own.get_program()).args(own.get_args());
    traced.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", "/").stdin(std::process::Stdio::null());
    let killed = world.spawn(traced).wait().expect_one_of(&[0, 137]).code != 0;
    world.poll(&args).expect(0);
    killed
}

#[test]
fn killed_at_any_call_that_changes_something_it_is_finished_by_running_it_again() {
    needs_program!("strace");
    let world = bare("killed");
    for call in ["write", "fsync", "linkat", "unlinkat", "renameat", "mkdirat", "fchmod"] {
        for number in 1.. {
            let killed = killed_at(&world, call, number);
            let context = format!("{call} {number}");
            assert_eq!(world.etc().len(), 8, "{context}: {:?}", world.etc());
            assert_eq!(fs::read_dir(world.path("target")).unwrap().count(), 1, "{context}");
            let known = fs::read_to_string(world.path("etc/known_hosts")).unwrap();
            assert_eq!(known.matches("\ngithub.com ").count(), 2, "{context}: {known}");
            let key = world.path("etc/keys/site");
            let public = fs::read_to_string(world.path("etc/keys/site.pub")).unwrap();
            assert_eq!(sh("ssh-keygen", &["-yf", key.to_str().unwrap()]), public, "{context}");
            assert_eq!(fs::metadata(world.target("site")).unwrap().uid(), world.deployer.uid, "{context}");
            for made in ["etc/keys", "etc/apps.d", "target/site"] {
                fs::remove_dir_all(world.path(made)).unwrap();
            }
            fs::remove_file(world.path("etc/known_hosts")).unwrap();
            if !killed {
                assert!(number > 1, "{call} is not called at all");
                break;
            }
        }
    }
}

#[test]
fn on_a_terminal_it_asks_for_what_was_not_given() {
    let world = bare("asks");
    let url = world.url();
    let directory = world.target("site");
    let mut dialogue = vec![
        ("Branch to follow [main]: ", ""),
        ("directory [", directory.to_str().unwrap()),
        ("Script to run", ""),
        ("Units", "site.service"),
        ("type yes: ", "yes"),
    ];
    if am_root() {
        dialogue.insert(2, ("User", &world.deployer.name));
    }
    let outcome = world.poll_in_dialogue(&["init", "site", &url], &dialogue).expect(0);
    let shown = outcome.stderr.replace(&format!("{}/site", world.deployer.home.display()), "/srv/site");
    let text = fs::read_to_string(world.path("etc/apps.d/site.toml")).unwrap();
    for line in ["branch = \"main\"", "script = \"./deploy.sh\"", "restart = [\"site.service\"]"] {
        assert!(text.contains(line), "{text}");
    }
    if am_root() {
        world.screen("init-terminal", "poller init site git@git.example.org:site.git", &plain(&world, &shown));
    }
}

#[test]
fn on_a_terminal_a_bad_answer_is_asked_for_again_and_the_end_of_input_ends_it() {
    let world = bare("asks again");
    let url = world.url();
    let dialogue =
        [("Branch to follow", "a..b"), ("Branch to follow", "live"), ("directory [", "www"), ("directory [", "\u{4}")];
    let outcome = world.poll_in_dialogue(&["init", "site", &url], &dialogue).expect(64);
    let outcome = outcome.says("a..b").says("is not absolute").says("nothing was changed");
    assert_eq!(outcome.stderr.matches("Publish to").count(), 2, "{}", outcome.story());
    world.expect_nothing_made();
}

#[test]
fn json_has_the_steps_the_key_and_what_comes_next() {
    let world = bare("json");
    let shown = world.init(&["--accept-host-key", &world.sshd.fingerprint(), "--json"]).expect(0);
    let json: serde_json::Value = serde_json::from_str(&shown.stdout).expect("JSON");
    assert_eq!(json["schema"], 1);
    assert_eq!(json["steps"].as_array().unwrap().len(), 4);
    let public = fs::read_to_string(world.path("etc/keys/site.pub")).unwrap();
    assert_eq!(json["public_key"].as_str(), Some(public.trim()));
    if am_root() {
        let command = "poller init site git@git.example.org:site.git --user www-data --accept-host-key SHA256:… --json";
        world.screen("init-json", command, &plain(&world, &shown.stdout));
    }
}
