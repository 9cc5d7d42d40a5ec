//! `poller init`: what it makes, what it refuses, and that nothing that is there is ever written over.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;

use crate::support::run::Outcome;
use crate::support::{World, am_root, random_word, set_mode, sh};

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
fn a_second_init_for_another_repository_or_with_other_flags_is_refused() {
    let world = bare("other url");
    world.init_accepting().expect(0);
    let before = world.hash_of_everything();
    let url = world.url();
    world.poll(&["init", "site", "git@github.com:me/site.git"]).expect(64).says("set up already, for").says(&url);
    for (flag, value) in [
        ("--branch", "live"),
        ("--tag", "v*"),
        ("--directory", "/srv/elsewhere"),
        ("--script", "./other.sh"),
        ("--restart", "site.service"),
    ] {
        world.poll(&["init", "site", &url, flag, value]).expect(64).says("site.toml").says(flag);
        assert_eq!(world.hash_of_everything(), before, "{flag}");
    }
}

#[test]
fn a_mistake_on_the_command_line_leaves_nothing_behind() {
    let world = bare("mistakes");
    let url = world.url();
    for (args, word) in [
        (["status", &url, "--branch", "main"], "choose another name"),
        (["help", &url, "--branch", "main"], "choose another name"),
        (["a b", &url, "--branch", "main"], "not a name"),
        (["../x", &url, "--branch", "main"], "not a name"),
        (["site", "https://github.com/me/site.git", "--branch", "main"], "git@github.com:me/site.git"),
        (["site", "me/site", "--branch", "main"], "git@host:path"),
        (["site", &url, "--branch", "a..b"], "--branch"),
        (["site", &url, "--ref", "prod"], "refs/"),
        (["site", &url, "--directory", "www"], "--directory"),
        (["site", &url, "--script", "'"], "--script"),
        (["site", &url, "--restart", "site"], "site.service"),
        (["site", &url, "--accept-host-key", "yes"], "--accept-host-key"),
        (["site", &url, "--user", "root"], "root"),
        (["site", "/srv/git/site.git", "--accept-host-key", OTHER_PRINT], "local"),
    ] {
        let all = [&["init"], args.as_slice()].concat();
        world.poll(&all).expect(64).says(word);
        world.expect_nothing_made();
    }
}

#[test]
fn without_a_terminal_the_missing_user_is_asked_for_by_its_flag() {
    needs_root!();
    let world = bare("no user");
    let url = world.url();
    world.poll(&["init", "site", &url]).expect(64).says("--user").says("useradd");
    world.expect_nothing_made();
    let nobody = format!("pt{}", random_word());
    world.poll(&["init", "site", &url, "--user", &nobody]).expect(78).says(&format!("nologin {nobody}"));
    world.expect_nothing_made();
}

#[test]
fn without_the_fetch_user_nothing_is_made() {
    needs_root!();
    let world = bare("no fetch user");
    let missing = format!("pt{}", random_word());
    let text = fs::read_to_string(world.config_file()).unwrap().replace(&world.fetcher.name, &missing);
    world.write_etc("poller.toml", &text);
    world.init_accepting().expect(78).says("useradd").says(&missing);
    world.expect_nothing_made();
}

#[test]
fn an_unknown_host_key_is_shown_and_never_pinned_silently() {
    let world = bare("unknown");
    let print = world.sshd.fingerprint();
    let outcome = world.init(&[]).expect(76).says(&format!("--accept-host-key {print}")).says("owner");
    world.expect_nothing_made();
    world.screen(
        "init-unknown-host-key",
        "poller init site git@git.example.org:site.git --user www-data",
        &outcome.stderr,
    );
    world.init(&["--accept-host-key", OTHER_PRINT]).expect(76).says(&print).says(OTHER_PRINT);
    world.expect_nothing_made();
    // Nobody tried to log in.
    assert_eq!(world.sshd.key_attempts_since(0), 0);
}

#[test]
fn a_pinned_host_key_is_never_replaced() {
    let mut world = bare("changed");
    let (line, pinned) = (world.sshd.known_hosts_line(), world.sshd.fingerprint());
    world.write_etc("known_hosts", &line);
    world.sshd.change_host_key();
    world.init_accepting().expect(76).says(&pinned).says("never replaced");
    assert_eq!(fs::read_to_string(world.path("etc/known_hosts")).unwrap(), line);
    assert!(!world.path("etc/keys").exists() && !world.target("site").exists());
}

#[test]
fn a_revoked_host_key_cannot_be_accepted() {
    let world = bare("revoked");
    let line = format!("@revoked {}", world.sshd.known_hosts_line());
    world.write_etc("known_hosts", &line);
    world.init_accepting().expect(76).says("REVOKED");
    assert_eq!(fs::read_to_string(world.path("etc/known_hosts")).unwrap(), line);
}

#[test]
fn known_hosts_is_added_to_and_keeps_its_mode_and_its_last_line() {
    let world = bare("adds");
    let other = world.sshd.known_hosts_line_for(2);
    let file = world.write_etc("known_hosts", &format!("# ours\n{}", other.trim_end()));
    set_mode(&file, 0o640);
    world.init_accepting().expect(0);
    let expected = format!("# ours\n{other}{}", world.sshd.known_hosts_line());
    assert_eq!(fs::read_to_string(&file).unwrap(), expected);
    assert_eq!(mode(&file), 0o640);
}

#[test]
fn the_public_forges_need_no_fingerprint_and_the_page_for_the_key_is_named() {
    let world = bare("forge");
    let directory = world.target("site");
    let args = ["init", "site", "git@github.com:me/todo.git", "--user", &world.deployer.name, "--directory"];
    let args = [&args[..], &[directory.to_str().unwrap()]].concat();
    world.poll(&[&args[..], &["--accept-host-key", &world.sshd.fingerprint()]].concat()).expect(76).says(OTHER_PRINT);
    world.expect_nothing_made();
    world
        .poll(&args)
        .expect(0)
        .prints("https://github.com/me/todo/settings/keys/new")
        .prints("\"Allow write access\" unticked")
        .prints(OTHER_PRINT);
    let known = fs::read_to_string(world.path("etc/known_hosts")).unwrap();
    assert_eq!(known.lines().filter(|line| line.starts_with("github.com ")).count(), 2, "{known}");
    assert!(!known.contains("gitlab"), "{known}");
}

#[test]
fn two_at_once_lose_neither_host_key() {
    let world = bare("two");
    let start = |name: &str, url: &str| {
        let directory = world.target(name);
        let args = ["init", name, url, "--user", &world.deployer.name, "--directory", directory.to_str().unwrap()];
        world.spawn_poll(&args)
    };
    let all: Vec<_> = ["github.com", "gitlab.com", "codeberg.org", "bitbucket.org"]
        .iter()
        .map(|host| start(&host.replace('.', "-"), &format!("git@{host}:me/todo.git")))
        .collect();
    all.into_iter().for_each(|running| drop(running.wait().expect(0)));
    let known = fs::read_to_string(world.path("etc/known_hosts")).unwrap();
    for host in ["github.com", "gitlab.com", "codeberg.org", "bitbucket.org"] {
        assert_eq!(known.lines().filter(|line| line.starts_with(&format!("{host} "))).count(), 2, "{host}\n{known}");
    }
}

#[test]
fn a_server_that_does_not_answer_leaves_nothing_behind() {
    let mut world = bare("unreachable");
    let print = world.sshd.fingerprint();
    world.sshd.stop();
    world.init(&["--accept-host-key", &print]).expect(69).says("nothing was changed");
    world.expect_nothing_made();
    world.sshd.restart();
    world.init_accepting().expect(0);
}

#[test]
fn a_directory_of_somebody_else_is_left_alone() {
    needs_root!();
    let world = bare("foreign");
    let target = world.target("site");
    fs::create_dir(&target).unwrap();
    let name = &world.deployer.name;
    world.init_accepting().expect(77).says("belongs to root").says(&format!("chown {name}: {}", target.display()));
    assert_eq!(fs::metadata(&target).unwrap().uid(), 0);
    assert!(!world.path("etc/keys").exists());
    chown(&target, Some(world.deployer.uid), Some(world.deployer.gid)).unwrap();
    world.init_accepting().expect(0).prints("kept");
}

#[test]
fn root_makes_nothing_beneath_a_folder_of_the_deploy_user() {
    needs_root!();
    let world = bare("beneath");
    let inside = world.deployer.home.join("www/site");
    let url = world.url();
    let (print, name) = (world.sshd.fingerprint(), world.deployer.name.clone());
    let args = ["init", "site", &url, "--user", &name, "--accept-host-key", &print, "--directory"];
    let args = [&args[..], &[inside.to_str().unwrap()]].concat();
    world.poll(&args).expect(77).says(&format!("sudo -u {name} mkdir -p {}", inside.display()));
    world.expect_nothing_made();
    // A link that the user laid out leads root nowhere either.
    std::os::unix::fs::symlink("/etc", world.deployer.home.join("www")).unwrap();
    world.poll(&args).expect(77);
    assert!(!Path::new("/etc/site").exists());
    fs::remove_file(world.deployer.home.join("www")).unwrap();
    fs::create_dir_all(&inside).unwrap();
    world.deployer.own(&inside);
    world.poll(&args).expect(0).prints("kept");
}

#[test]
fn a_key_that_others_can_read_is_refused_and_stays() {
    let world = bare("open key");
    world.init_accepting().expect(0);
    let key = world.path("etc/keys/site");
    set_mode(&key, 0o644);
    let before = world.hash_of_everything();
    world.init_accepting().expect(77).says("chmod 600");
    fs::remove_file(world.path("etc/apps.d/site.toml")).unwrap();
    world.init_accepting().expect(77).says("chmod 600");
    assert!(!world.path("etc/apps.d/site.toml").exists());
    set_mode(&key, 0o600);
    world.init_accepting().expect(0);
    set_mode(&key, 0o644);
    assert_eq!(world.hash_of_everything().len(), before.len());
}

#[test]
fn a_key_and_a_public_half_that_do_not_fit_are_refused() {
    let world = bare("no fit");
    world.init_accepting().expect(0);
    let (key, public) = (world.path("etc/keys/site"), world.path("etc/keys/site.pub"));
    let text = fs::read_to_string(&key).unwrap();
    fs::remove_file(&key).unwrap();
    world.init_accepting().expect(78).says("site.pub is there");
    assert!(!key.exists());
    fs::write(&key, text).unwrap();
    set_mode(&key, 0o600);
    world.init_accepting().expect(0);
    fs::write(&public, format!("{}\n", world.sshd.host_key())).unwrap();
    world.init_accepting().expect(78).says("not the public half");
    assert_eq!(fs::read_to_string(&public).unwrap().trim(), world.sshd.host_key());
}

#[test]
fn a_folder_that_cannot_be_written_is_found_before_anything_is_made() {
    needs_root!();
    let world = bare("read only");
    let config = fs::read_to_string(world.config_file()).unwrap();
    world.mount_tmpfs(&world.path("etc"), "mode=0755", None);
    world.write_etc("poller.toml", &config);
    world.remount(&world.path("etc"), "ro");
    world.init_accepting().expect(74).says("Read-only file system");
    world.remount(&world.path("etc"), "rw");
    world.expect_nothing_made();
    world.init_accepting().expect(0);
}

#[test]
fn a_directory_that_another_app_has_is_refused() {
    let world = bare("taken");
    world.init_accepting().expect(0);
    let before = world.hash_of_everything();
    let taken = world.target("site");
    let inside = taken.join("inner");
    for directory in [taken.to_str().unwrap(), inside.to_str().unwrap(), world.path("target").to_str().unwrap()] {
        // Its file sorts before the other's, which must not be the one that breaks.
        let args = ["init", "blog", "/srv/git/blog.git", "--user", &world.deployer.name, "--directory", directory];
        world.poll(&args).expect(64).says("`site`").says("--directory");
        assert_eq!(world.hash_of_everything(), before);
    }
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

#[test]
fn on_a_terminal_it_asks_for_what_was_not_given() {
    let world = bare("asks");
    let url = world.url();
    let directory = world.target("site");
    let mut dialogue = vec![
        ("Branch to follow [main]: ", ""),
        ("directory [", "www"),
        ("]: ", directory.to_str().unwrap()),
        ("Script to run", ""),
        ("Units", "site.service"),
        ("Type yes: ", "yes"),
    ];
    if am_root() {
        dialogue.insert(3, ("User", &world.deployer.name));
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
fn only_a_typed_yes_accepts_a_host_key() {
    let world = bare("typed");
    let (url, directory) = (world.url(), world.target("site"));
    let mut args = vec!["init", "site", &url, "--branch", "main", "--script", "./deploy.sh", "--restart", "a.service"];
    args.extend(["--user", &world.deployer.name, "--directory", directory.to_str().unwrap()]);
    for answer in ["y", "Yes", ""] {
        world.poll_in_dialogue(&args, &[("Type yes: ", answer)]).expect(76).says("not accepted");
        world.expect_nothing_made();
    }
    world.poll_in_dialogue(&args, &[("Type yes: ", "\u{4}")]).expect_one_of(&[64, 76]);
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
