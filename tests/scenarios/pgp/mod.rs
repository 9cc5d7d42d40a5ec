//! Commits and tags signed with OpenPGP: what `[verify] pgp_keys` lets pass, held against what git and gpg say of the
//! same objects with the same keys.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::support::repo::{git_command, git_with_input, put};
use crate::support::sshd::make_key;
use crate::support::{Content, World, file, set_mode};

mod cases;

/// gpg, with a home in the world's folder. What it starts in the background ends with it.
struct Gpg {
    home: PathBuf,
}

impl Drop for Gpg {
    fn drop(&mut self) {
        let _ = Command::new("gpgconf").arg("--homedir").arg(&self.home).args(["--kill", "all"]).output();
    }
}

impl Gpg {
    fn new(world: &World, name: &str) -> Gpg {
        let home = world.path(name);
        fs::create_dir_all(&home).unwrap();
        set_mode(&home, 0o700);
        Gpg { home }
    }

    /// What every call is told by the file, so that git's calls are as well.
    fn conf(&self, lines: &str) {
        fs::write(self.home.join("gpg.conf"), lines).unwrap();
    }

    fn run(&self, args: &[&str]) -> String {
        let mut gpg = Command::new("gpg");
        gpg.arg("--homedir").arg(&self.home).args(["--quiet", "--batch", "--yes", "--pinentry-mode", "loopback"]);
        let out = gpg.args(["--passphrase", ""]).args(args).output().unwrap();
        assert!(out.status.success(), "gpg {args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }

    /// A new key's fingerprint.
    fn make(&self, who: &str, kind: &str, usage: &str, lasts: &str) -> String {
        self.run(&["--quick-generate-key", &mail(who), kind, usage, lasts]);
        self.fingerprint(who)
    }

    fn fingerprint(&self, who: &str) -> String {
        let listed = self.run(&["--with-colons", "--list-keys", &format!("={}", mail(who))]);
        let line = listed.lines().find(|line| line.starts_with("fpr:")).unwrap();
        line.trim_matches(':').rsplit(':').next().unwrap().to_owned()
    }

    fn export(&self, who: &str) -> String {
        self.run(&["--export", "--armor", &format!("={}", mail(who))])
    }

    /// git, in the clone, which signs by this key.
    fn git_as(&self, world: &World, who: &str, args: &[&str]) {
        let mut git = git_command();
        git.arg("-C").arg(&world.repo.work).env("GNUPGHOME", &self.home);
        git.args(["-c", &format!("user.signingkey={}", self.fingerprint(who))]).args(args);
        let out = git.output().unwrap();
        assert!(out.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    }

    fn commit(&self, world: &World, who: &str, files: &[(&str, Content)], message: &str) -> String {
        files.iter().for_each(|(name, content)| put(&world.repo.work.join(name), content));
        self.git_as(world, who, &["add", "-A"]);
        self.git_as(world, who, &["commit", "-q", "--allow-empty", "-S", "-m", message]);
        world.repo.head()
    }

    fn first(&self, world: &World) -> String {
        let files = [("deploy.sh", world.script("")), ("index.html", file("one\n"))];
        let first = self.commit(world, "alice", &files, "first");
        world.repo.push();
        first
    }
}

fn mail(who: &str) -> String {
    format!("{who} <{who}@example.org>")
}

/// A world whose app asks for OpenPGP signatures, and Alice.
fn asking(name: &str) -> (World, Gpg) {
    let world = World::new(name);
    let gpg = Gpg::new(&world, "gpg");
    gpg.make("alice", "ed25519", "sign", "never");
    world.app("site").verify("pgp_keys = \"pgp_keys\"").write();
    allow(&world, &gpg, &["alice"]);
    (world, gpg)
}

fn allow(world: &World, gpg: &Gpg, who: &[&str]) -> PathBuf {
    world.write_etc("pgp_keys", &who.iter().map(|who| gpg.export(who)).collect::<String>())
}

/// What git says of an object on the server, with a key ring that holds the file and nothing else.
fn git_accepts(world: &World, what: &str, name: &str) -> bool {
    let ring = Gpg::new(world, "ring");
    let file = world.path("etc/pgp_keys");
    ring.run(&["--import", file.to_str().unwrap()]);
    let mut git = git_command();
    git.arg("-C").arg(&world.repo.bare).args([what, "--raw", name]).env("GNUPGHOME", &ring.home);
    let accepts = git.output().unwrap().status.success();
    drop(ring);
    fs::remove_dir_all(world.path("ring")).unwrap();
    accepts
}

#[test]
fn a_signed_tag_vouches_for_its_commit_with_openpgp_too() {
    needs_program!("gpg");
    let (world, gpg) = asking("pgp tags");
    gpg.make("mallory", "ed25519", "sign", "never");
    let app = world.app("site").without("source.branch").source("tag = \"v*\"");
    app.verify("pgp_keys = \"pgp_keys\"").write();
    let tag = |who: &str, name: &str| {
        gpg.git_as(&world, who, &["tag", "-s", "-m", "A release", name]);
        gpg.git_as(&world, who, &["push", "-q", "origin", &format!("refs/tags/{name}")]);
    };
    let one = world.repo.commit(&[("deploy.sh", world.script(""))], "unsigned, tag signed");
    tag("alice", "v1");
    world.poll(&[]).expect(0);
    world.expect_live("site", &one);
    assert!(git_accepts(&world, "verify-tag", "v1"));
    let said = world.events("verify.signed")[0]["msg"].as_str().unwrap().to_owned();
    assert_eq!(said, format!("tag signed by {}, {}", mail("alice"), gpg.fingerprint("alice")));

    world.repo.commit(&[], "unsigned, light tag");
    world.repo.light_tag("v2");
    world.poll(&[]).expect(77).says("the commit ").says("is not signed");

    world.repo.commit(&[], "unsigned, tag of a stranger");
    tag("mallory", "v3");
    world.poll(&[]).expect(77).says("the tag refs/tags/v3 is signed by the OpenPGP key").says("which is not in");
    assert!(!git_accepts(&world, "verify-tag", "v3"));

    // What Alice released as something else, shown as the newest.
    tag("alice", "experiment");
    let object = world.repo.id_of("refs/tags/experiment");
    git_with_input(&world.repo.bare, &["update-ref", "refs/tags/v9", &object], b"");
    world.poll(&[]).expect(77).says("the tag refs/tags/v9 holds a tag that was made as `experiment`");

    // The signature of the first, put under another text.
    let newest = world.repo.head();
    let raw = git_with_input(&world.repo.work, &["cat-file", "tag", "v1"], b"")
        .replace("tag v1\n", "tag v10\n")
        .replace(&one, &newest);
    let forged = git_with_input(&world.repo.work, &["hash-object", "-t", "tag", "-w", "--stdin"], raw.as_bytes());
    git_with_input(&world.repo.work, &["push", "-q", "origin", &format!("{}:refs/tags/v10", forged.trim())], b"");
    world.poll(&[]).expect(77).says("the tag refs/tags/v10 does not fit its signature");
    assert!(!git_accepts(&world, "verify-tag", "v10"));
    world.expect_live("site", &one);
}

#[test]
fn nothing_is_staged_of_what_is_refused_and_an_old_signed_commit_does_not_come_back() {
    needs_program!("gpg");
    let (world, gpg) = asking("pgp replay");
    gpg.make("mallory", "ed25519", "sign", "never");
    gpg.commit(&world, "mallory", &[("deploy.sh", world.script(""))], "first");
    world.repo.push();
    world.poll(&[]).expect(77).says("which is not in").says("gpg --export --armor");
    world.poll(&[]).expect(77).silent();
    world.poll(&["--force", "site"]).expect(77);
    assert!(world.ran().is_empty());
    assert!(fs::read_dir(world.target("site")).unwrap().next().is_none(), "not one byte was staged");
    assert_eq!(world.history("site"), ["refusal refused"]);

    let old = gpg.first(&world);
    world.poll(&[]).expect(0);
    let tip = gpg.commit(&world, "alice", &[("index.html", file("two\n"))], "second");
    world.repo.push();
    world.poll(&[]).expect(0);
    world.repo.rewind_to(&old);
    world.repo.force_push();
    world.poll(&[]).expect(77).says("history was rewritten");
    world.expect_live("site", &tip);
    let event = world.events("verify.signed").pop().unwrap();
    assert_eq!((&event["principals"], &event["commit"]), (&mail("alice").into(), &tip.as_str().into()), "{event}");
}

#[test]
fn each_kind_of_signature_counts_where_its_keys_are_listed() {
    needs_program!("gpg");
    let (world, gpg) = asking("pgp and ssh");
    let ssh = world.path("work/ssh");
    make_key(&ssh, "");
    let line = format!("bob@example.org {}", fs::read_to_string(ssh.with_extension("pub")).unwrap());
    world.write_etc("allowed_signers", &line);
    let by_ssh = |message: &str| {
        let key = format!("user.signingkey={}", ssh.display());
        let args = ["-c", "gpg.format=ssh", "-c", &key, "commit", "-q", "--allow-empty", "-S", "-m", message];
        git_with_input(&world.repo.work, &args, b"");
        world.repo.push();
        world.repo.head()
    };
    let by_pgp = |message: &str| {
        let commit = gpg.commit(&world, "alice", &[], message);
        world.repo.push();
        commit
    };
    gpg.first(&world);
    world.poll(&[]).expect(0);
    by_ssh("only OpenPGP counts");
    world
        .poll(&[])
        .expect(77)
        .says("is signed with an SSH key, and there are no `allowed_signers`")
        .says("gpg.format openpgp");

    world.app("site").verify("allowed_signers = \"allowed_signers\"\npgp_keys = \"pgp_keys\"").write();
    world.poll(&[]).expect(0);
    world.expect_live("site", &world.repo.head());
    let tip = by_pgp("either");
    world.poll(&[]).expect(0);
    world.expect_live("site", &tip);
    world.repo.commit(&[], "neither");
    world.repo.push();
    let shown = world.poll(&[]).expect(77).says("`[verify] allowed_signers` and `pgp_keys` ask for it");
    assert!(
        shown.stderr.contains("gpg.format ssh") && shown.stderr.contains("gpg.format openpgp"),
        "{}",
        shown.story()
    );

    world.app("site").verify("allowed_signers = \"allowed_signers\"").write();
    by_pgp("only SSH counts");
    world.poll(&[]).expect(77).says("is signed with OpenPGP, and there are no `pgp_keys`").says("pgp_keys = \"FILE\"");
    let tip = by_ssh("as it should be");
    world.poll(&[]).expect(0);
    world.expect_live("site", &tip);
}

#[test]
fn a_file_of_keys_that_cannot_be_relied_on_stops_the_app_before_any_network() {
    needs_program!("gpg");
    let (world, gpg) = asking("pgp file");
    gpg.first(&world);
    let path = world.path("etc/pgp_keys");
    let good = fs::read_to_string(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let mark = world.sshd.mark();
    world.poll(&[]).expect(78).says("etc/pgp_keys").says("gpg --export --armor");
    let secret = gpg.run(&["--export-secret-keys", "--armor", &mail("alice")]);
    let binary = Command::new("gpg").arg("--homedir").arg(&gpg.home).args(["--export"]).output().unwrap().stdout;
    let damaged = good.replacen(&good[150..151], if &good[150..151] == "A" { "B" } else { "A" }, 1);
    for (text, mode, code, why) in [
        (good.clone().into_bytes(), 0o646, 77, "0646"),
        (Vec::new(), 0o644, 78, "holds no public key"),
        (binary, 0o644, 78, "gpg --export --armor"),
        (good.split("-----END").next().unwrap().into(), 0o644, 78, "pgp_keys:1: the block that begins here has no end"),
        (damaged.into_bytes(), 0o644, 78, "pgp_keys:1: the block that begins here"),
        (format!("{good}{secret}").into_bytes(), 0o600, 78, "HOLDS A SECRET KEY"),
    ] {
        fs::write(&path, text).unwrap();
        set_mode(&path, mode);
        world.poll(&[]).expect(code).says(why);
        world.poll(&["-n"]).expect(code).says(why);
    }
    assert_eq!(world.sshd.connections_since(mark), 0);
    let shown = world.poll(&["check", "site"]).expect(78).prints("✗ signers");
    assert!(!shown.stdout.contains("may be published"), "{}", shown.story());
    let shown = world.poll_on_terminal(&[]).expect(78);
    world.screen("signed-pgp-secret-key", "poller", &shown.stderr);
    assert!(world.ran().is_empty());
    allow(&world, &gpg, &["alice"]);
    world.poll(&[]).expect(0);
}

#[test]
fn who_signed_with_openpgp_is_shown_before_it_is_deployed() {
    needs_program!("gpg");
    let (world, gpg) = asking("pgp shown");
    gpg.first(&world);
    world.poll(&[]).expect(0);
    // A name that would turn the terminal's text around.
    let key = gpg.make("carol\u{202e}", "ed25519", "cert", "never");
    gpg.run(&["--quick-add-key", &key, "ed25519", "sign", "never"]);
    allow(&world, &gpg, &["alice", "carol\u{202e}"]);
    let two = gpg.commit(&world, "carol\u{202e}", &[("index.html", file("two\n"))], "Change the front page");
    world.repo.push();
    let shown = world.poll(&["-n"]).expect(0).prints("signed by carol\\u{202e} <carol\\u{202e}@example.org>, ");
    assert!(shown.stdout.contains(&format!("{key}, subkey ")), "{}", shown.story());
    world.screen("signed-pgp-dry-run", "poller --dry-run", &shown.stdout);
    let json: serde_json::Value = serde_json::from_str(&world.poll(&["-n", "--json"]).expect(0).stdout).unwrap();
    let signer = &json["apps"][0]["signer"];
    assert_eq!((&signer["fingerprint"], &signer["signed"]), (&key.as_str().into(), &"commit".into()), "{json}");
    assert_eq!(signer["subkey"].as_str().map(str::len), Some(40), "{json}");
    let shown = world.poll(&["check", "site"]);
    assert!(shown.stdout.contains(&format!(", {key}, subkey ")), "{}", shown.story());
    world.poll(&[]).expect(0);
    world.expect_live("site", &two);
    assert_eq!(world.events("verify.signed").pop().unwrap()["subkey"], signer["subkey"]);

    gpg.make("mallory", "ed25519", "sign", "never");
    gpg.commit(&world, "mallory", &[("index.html", file("three\n"))], "Change it again");
    world.repo.push();
    let shown = world.poll(&["-n"]).expect(77);
    world.screen("signed-pgp-dry-run-refused", "poller --dry-run", &shown.stdout);
}

#[test]
fn a_listed_key_that_can_sign_nothing_is_told_by_check_with_a_remedy() {
    needs_program!("gpg");
    let (world, gpg) = asking("pgp idle");
    gpg.first(&world);
    world.poll(&[]).expect(0);
    let text = |world: &World| world.poll(&["check", "site"]).stdout;
    assert!(!text(&world).contains("signers"), "nothing to say of Alice's");

    let only_encrypts = gpg.make("bob", "rsa3072", "encrypt", "never");
    let old = gpg.make("carol", "dsa2048", "sign", "never");
    gpg.conf("faked-system-time 20200101T000000");
    let over = gpg.make("dave", "ed25519", "sign", "1y");
    gpg.conf("");
    let revoked = gpg.make("erin", "ed25519", "sign", "never");
    let by_subkey = gpg.make("frank", "ed25519", "cert", "never");
    gpg.run(&["--quick-add-key", &by_subkey, "ed25519", "sign", "never"]);
    let keys = allow(&world, &gpg, &["alice", "bob", "carol", "dave", "erin", "frank"]);
    // At the end, below somebody else's key: what gpg made along with Erin's.
    let certificate = fs::read_to_string(gpg.home.join(format!("openpgp-revocs.d/{revoked}.rev"))).unwrap();
    let certificate = &certificate[certificate.find(":-----BEGIN").unwrap() + 1..];
    fs::write(&keys, fs::read_to_string(&keys).unwrap() + certificate).unwrap();
    let shown = world.poll(&["check", "site", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&shown.stdout).unwrap();
    let checks = json["apps"][0]["checks"].as_array().unwrap();
    let told: Vec<_> = checks.iter().filter(|check| check["check"] == "signers").collect();
    let expected = [
        (&only_encrypts, "neither it nor a subkey of it is meant for signatures", "gpg --quick-add-key"),
        (&old, "it is a DSA key", "gpg --quick-generate-key"),
        (&over, "it has expired at 2020-12-31", "gpg --quick-set-expire"),
        (&revoked, "it is revoked", "gpg --quick-generate-key"),
    ];
    assert_eq!(told.len(), expected.len(), "{}", shown.story());
    for (finding, (key, why, remedy)) in told.into_iter().zip(expected) {
        assert_eq!(finding["result"], "warning", "{finding}");
        let text = finding["text"].as_str().unwrap();
        assert!(text.contains("etc/pgp_keys") && text.contains(key.as_str()) && text.contains(why), "{finding}");
        assert!(finding["fix"][0].as_str().unwrap().contains(remedy), "{finding}");
    }
    world.screen("check-pgp-idle-keys", "poller check site", &text(&world));
    // It stops nobody else.
    let tip = gpg.commit(&world, "frank", &[("index.html", file("two\n"))], "second");
    world.repo.push();
    world.poll(&[]).expect(0);
    world.expect_live("site", &tip);
}
