//! Bad input, and what is there and does not fit: refused before anything is made.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;

use super::{Init, OTHER_PRINT, bare};
use crate::support::{random_word, set_mode};

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
        (["a.pub", &url, "--branch", "main"], "public half of `a`"),
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
    ] {
        let all = [&["init"], args.as_slice()].concat();
        world.poll(&all).expect(64).says(word);
        world.expect_nothing_made();
    }
    let args = ["init", "site", "/srv/git/site.git", "--user", &world.deployer.name, "--accept-host-key", OTHER_PRINT];
    let directory = world.target("site");
    world.poll(&[&args[..], &["--directory", directory.to_str().unwrap()]].concat()).expect(64).says("local");
    world.expect_nothing_made();
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
