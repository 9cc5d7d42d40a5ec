//! Commits and tags signed with SSH keys: what `[verify] allowed_signers` lets pass, held against what git says
//! of the same objects, and what becomes of the rest.

use std::fs;
use std::path::PathBuf;

use crate::support::repo::{git_command, git_with_input};
use crate::support::sshd::make_key;
use crate::support::{Content, World, file, set_mode, sh};

/// A world whose app asks for signatures, with the keys that people have.
fn asking(name: &str) -> World {
    let world = World::new(name);
    for who in ["alice", "mallory", "old", "young", "archivist"] {
        make_key(&key(&world, who), "");
    }
    world.app("site").verify("allowed_signers = \"allowed_signers\"").write();
    allow(&world, &[("alice", "namespaces=\"git\"")]);
    world
}

fn key(world: &World, who: &str) -> PathBuf {
    world.path("work").join(who)
}

fn allow(world: &World, signers: &[(&str, &str)]) -> PathBuf {
    let line = |(who, options): &(&str, &str)| {
        let public = fs::read_to_string(key(world, who).with_extension("pub")).unwrap();
        format!("{who}@example.org {options} {public}")
    };
    world.write_etc("allowed_signers", &signers.iter().map(line).collect::<String>())
}

/// git, in the clone, which signs by this key.
fn git_as(world: &World, who: &str, args: &[&str]) {
    let signingkey = format!("user.signingkey={}", key(world, who).display());
    let mut all = vec!["-c", "gpg.format=ssh", "-c", &signingkey];
    all.extend(args);
    git_with_input(&world.repo.work, &all, b"");
}

fn commit(world: &World, who: &str, files: &[(&str, Content)], message: &str) -> String {
    for (name, content) in files {
        crate::support::repo::put(&world.repo.work.join(name), content);
    }
    git_as(world, who, &["add", "-A"]);
    git_as(world, who, &["commit", "-q", "--allow-empty", "-S", "-m", message]);
    world.repo.head()
}

fn first(world: &World) -> String {
    let first = commit(world, "alice", &[("deploy.sh", world.script("")), ("index.html", file("one\n"))], "first");
    world.repo.push();
    first
}

/// Makes `raw` a commit, byte for byte, and the clone's newest.
pub fn write_commit(world: &World, raw: &str) -> String {
    let args = ["hash-object", "-t", "commit", "-w", "--stdin", "--literally"];
    let id = git_with_input(&world.repo.work, &args, raw.as_bytes()).trim().to_owned();
    world.repo.rewind_to(&id);
    id
}

pub fn raw(world: &World, commit: &str) -> String {
    git_with_input(&world.repo.work, &["cat-file", "commit", commit], b"")
}

/// The header lines with the signature.
pub fn header_of(raw: &str) -> String {
    let lines = raw.split_inclusive('\n').skip_while(|line| !line.starts_with("gpgsig "));
    lines.enumerate().take_while(|(n, line)| *n == 0 || line.starts_with(' ')).map(|(_, line)| line).collect()
}

pub fn with_header(unsigned: &str, header: &str) -> String {
    let (headers, message) = unsigned.split_once("\n\n").unwrap();
    format!("{headers}\n{header}\n{message}")
}

/// A signature of any kind over a commit, as the header that git would write.
fn signed_for(world: &World, who: &str, namespace: &str, raw: &str) -> String {
    let payload = world.path("work/payload");
    fs::write(&payload, raw).unwrap();
    let (signer, shown) = (key(world, who), payload.to_str().unwrap());
    sh("ssh-keygen", &["-q", "-Y", "sign", "-n", namespace, "-f", signer.to_str().unwrap(), shown]);
    let made = world.path("work/payload.sig");
    let signature = fs::read_to_string(&made).unwrap();
    fs::remove_file(made).unwrap();
    format!("gpgsig {}\n", signature.trim_end().replace('\n', "\n "))
}

/// What git itself says of an object on the server.
fn git_accepts(world: &World, what: &str, name: &str) -> bool {
    let signers = format!("gpg.ssh.allowedSignersFile={}", world.path("etc/allowed_signers").display());
    let mut git = git_command();
    git.arg("-C").arg(&world.repo.bare).args(["-c", &signers, what, name]);
    git.output().unwrap().status.success()
}

enum Verdict {
    Passes,
    Refused(&'static str),
    /// Refused, though git lets it pass.
    RefusedHereOnly(&'static str),
}

type Make = fn(&World) -> String;

const CASES: [(&str, Make, Verdict); 14] = [
    ("signed", |w| commit(w, "alice", &[], "signed"), Verdict::Passes),
    ("unsigned", |w| w.repo.commit(&[], "unsigned"), Verdict::Refused("is not signed")),
    ("a stranger's key", |w| commit(w, "mallory", &[], "stranger"), Verdict::Refused("which is not in")),
    ("expired", |w| commit(w, "old", &[], "expired"), Verdict::Refused("after its time")),
    ("expired later", |w| dated(w, "old", "2019-06-01T12:00:00Z"), Verdict::Passes),
    ("not yet valid", |w| commit(w, "young", &[], "early"), Verdict::Refused("before its time")),
    ("valid later", |w| dated(w, "young", "2098-06-01T12:00:00Z"), Verdict::Passes),
    ("a key for files", |w| commit(w, "archivist", &[], "file"), Verdict::Refused("does not let sign for `git`")),
    ("a signature of a file", |w| forged(w, "alice", "file"), Verdict::Refused("made for `file` and not for `git`")),
    ("signed by ssh-keygen", |w| forged(w, "alice", "git"), Verdict::Passes),
    ("another commit's", copied, Verdict::Refused("does not fit its signature")),
    (
        "tampered",
        |w| {
            let signed = commit(w, "alice", &[], "tampered");
            write_commit(w, &raw(w, &signed).replace("tampered", "Tampered"))
        },
        Verdict::Refused("does not fit its signature"),
    ),
    (
        "signed twice",
        |w| {
            let signed = raw(w, &commit(w, "alice", &[], "twice"));
            let header = header_of(&signed);
            write_commit(w, &signed.replacen(&header, &format!("{header}{header}"), 1))
        },
        Verdict::RefusedHereOnly("more than one signature"),
    ),
    (
        "OpenPGP",
        |w| {
            let unsigned = raw(w, &w.repo.commit(&[], "pgp"));
            let header = "gpgsig -----BEGIN PGP SIGNATURE-----\n \n iHUEABYKAB0=\n -----END PGP SIGNATURE-----\n";
            write_commit(w, &with_header(&unsigned, header))
        },
        Verdict::Refused("signed with OpenPGP"),
    ),
];

/// Signed by somebody whose clock shows this.
fn dated(world: &World, who: &str, date: &str) -> String {
    let signingkey = format!("user.signingkey={}", key(world, who).display());
    let mut git = git_command();
    git.arg("-C").arg(&world.repo.work).args(["-c", "gpg.format=ssh", "-c", &signingkey]);
    git.args(["commit", "-q", "--allow-empty", "-S", "-m", date]).env("GIT_COMMITTER_DATE", date);
    assert!(git.output().unwrap().status.success());
    world.repo.head()
}

fn forged(world: &World, who: &str, namespace: &str) -> String {
    let unsigned = raw(world, &world.repo.commit(&[], namespace));
    let header = signed_for(world, who, namespace, &unsigned);
    write_commit(world, &with_header(&unsigned, &header))
}

fn copied(world: &World) -> String {
    let header = header_of(&raw(world, &commit(world, "alice", &[], "the original")));
    let unsigned = raw(world, &world.repo.commit(&[], "the copy"));
    write_commit(world, &with_header(&unsigned, &header))
}

#[test]
fn what_passes_is_what_git_itself_calls_good() {
    let world = asking("as git");
    allow(
        &world,
        &[
            ("alice", "namespaces=\"git\""),
            ("old", "valid-before=\"20200101Z\""),
            ("young", "valid-after=\"20980101Z\""),
            ("archivist", "namespaces=\"file\""),
        ],
    );
    let mut good = first(&world);
    world.poll(&[]).expect(0).silent();
    for (name, make, verdict) in CASES {
        world.repo.rewind_to(&good);
        let commit = make(&world);
        world.repo.force_push();
        let by_git = git_accepts(&world, "verify-commit", &commit);
        match verdict {
            Verdict::Passes => {
                world.poll(&[]).expect(0).silent();
                assert!(by_git, "{name}: git does not accept it");
                good = commit;
            }
            Verdict::Refused(why) | Verdict::RefusedHereOnly(why) => {
                world.poll(&[]).expect(77).says(why);
                assert_eq!(by_git, matches!(verdict, Verdict::RefusedHereOnly(_)), "{name}: git");
            }
        }
        world.expect_live("site", &good);
    }
}

#[test]
fn keys_of_other_types_pass_and_rsa_is_refused_with_a_sentence() {
    let world = asking("types");
    let mut lines = fs::read_to_string(world.path("etc/allowed_signers")).unwrap();
    for (who, kind, bits) in [("p256", "ecdsa", "256"), ("p384", "ecdsa", "384"), ("rsa", "rsa", "2048")] {
        let path = key(&world, who);
        sh("ssh-keygen", &["-q", "-t", kind, "-b", bits, "-N", "", "-f", path.to_str().unwrap()]);
        lines += &format!("{who} {}", fs::read_to_string(path.with_extension("pub")).unwrap());
    }
    world.write_etc("allowed_signers", &lines);
    first(&world);
    world.poll(&[]).expect(0);
    for who in ["p256", "p384"] {
        let tip = commit(&world, who, &[], who);
        world.repo.push();
        world.poll(&[]).expect(0).silent();
        world.expect_live("site", &tip);
    }
    commit(&world, "rsa", &[], "rsa");
    world.repo.push();
    world.poll(&[]).expect(77).says("is signed by the ssh-rsa key SHA256:").says("ssh-keygen -t ed25519");
}

#[test]
fn the_first_deploy_needs_a_signature_and_a_refusal_is_told_once() {
    let world = asking("first");
    let tip = commit(&world, "mallory", &[("deploy.sh", world.script(""))], "first");
    world.repo.push();
    world
        .poll(&[])
        .expect(77)
        .says("which is not in")
        .says("add a line")
        .says("NAME@HOST namespaces=\"git\" ssh-ed25519 AAAA");
    world.poll(&[]).expect(77).silent();
    // Nothing that lifts other rules lifts this one.
    world.poll(&["--force", "site"]).expect(77);
    world.poll(&["retry", "site"]).expect(77);
    assert!(world.ran().is_empty());
    assert!(fs::read_dir(world.target("site")).unwrap().next().is_none(), "not one byte was staged");
    assert_eq!(world.history("site"), ["refusal refused"]);
    assert!(world.events("verify.signed").is_empty());

    // The tip is the same, and who may sign is not.
    allow(&world, &[("alice", ""), ("mallory", "namespaces=\"git\"")]);
    world.poll(&[]).expect(0);
    world.expect_live("site", &tip);
    let event = world.events("verify.signed").pop().unwrap();
    assert_eq!(event["principals"], "mallory@example.org");
    assert!(event["fingerprint"].as_str().unwrap().starts_with("SHA256:"), "{event}");
    assert_eq!(event["commit"], tip.as_str());
}

#[test]
fn an_old_commit_that_is_well_signed_is_refused_when_it_is_shown_again() {
    let world = asking("replay");
    let old = first(&world);
    let tip = commit(&world, "alice", &[("index.html", file("two\n"))], "second");
    world.repo.push();
    world.poll(&[]).expect(0);
    world.repo.rewind_to(&old);
    world.repo.force_push();
    world.poll(&[]).expect(77).says("history was rewritten");
    world.expect_live("site", &tip);
    world.poll(&["--force", "site"]).expect(0);
    world.expect_live("site", &old);
}

#[test]
fn a_rollback_goes_to_what_was_deployed_before_signatures_were_asked_for() {
    let world = asking("rollback");
    world.app("site").write();
    let one = world.push(&[("deploy.sh", world.script(""))], "one");
    world.poll(&[]).expect(0);
    world.app("site").verify("allowed_signers = \"allowed_signers\"").write();
    commit(&world, "alice", &[("index.html", file("two\n"))], "two");
    world.repo.push();
    world.poll(&[]).expect(0);
    world.poll(&["rollback", "site", "--reason", "two is bad"]).expect(0);
    world.expect_live("site", &one);
}

#[test]
fn a_signed_tag_vouches_for_its_commit_under_its_own_name() {
    let world = asking("tags");
    world
        .app("site")
        .without("source.branch")
        .source("tag = \"v*\"")
        .verify("allowed_signers = \"allowed_signers\"")
        .write();
    let tag = |name: &str| {
        git_as(&world, "alice", &["tag", "-s", "-m", "A release", name]);
        git_as(&world, "alice", &["push", "-q", "origin", &format!("refs/tags/{name}")]);
    };
    let one = world.repo.commit(&[("deploy.sh", world.script(""))], "unsigned, tag signed");
    tag("v1");
    world.poll(&[]).expect(0);
    world.expect_live("site", &one);
    assert!(git_accepts(&world, "verify-tag", "v1"));
    assert_eq!(
        world.events("verify.signed")[0]["msg"].as_str().unwrap().split(',').next(),
        Some("tag signed by alice@example.org")
    );

    let two = commit(&world, "alice", &[], "signed, light tag");
    world.repo.light_tag("v2");
    world.poll(&[]).expect(0);
    world.expect_live("site", &two);

    world.repo.commit(&[], "unsigned, light tag");
    world.repo.light_tag("v3");
    world.poll(&[]).expect(77).says("the commit ").says("is not signed");

    world.repo.commit(&[], "unsigned, tag not signed");
    world.repo.tag("v4");
    world.poll(&[]).expect(77).says("is not signed");
    assert!(!git_accepts(&world, "verify-tag", "v4"));

    git_as(&world, "mallory", &["tag", "-s", "-m", "A release", "v5"]);
    git_as(&world, "mallory", &["push", "-q", "origin", "refs/tags/v5"]);
    world.poll(&[]).expect(77).says("the tag refs/tags/v5 is signed by the key").says("which is not in");
    assert!(!git_accepts(&world, "verify-tag", "v5"));

    // What alice released as something else, shown as the newest.
    world.repo.commit(&[], "not for this");
    tag("experiment");
    let object = world.repo.id_of("refs/tags/experiment");
    git_with_input(&world.repo.bare, &["update-ref", "refs/tags/v9", &object], b"");
    world.poll(&[]).expect(77).says("the tag refs/tags/v9 holds a tag that was made as `experiment`");
    world.expect_live("site", &two);
}

#[test]
fn a_list_of_signers_that_cannot_be_relied_on_stops_the_app_before_any_network() {
    let world = asking("list");
    first(&world);
    let path = world.path("etc/allowed_signers");
    let good = fs::read_to_string(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let mark = world.sshd.mark();
    world.poll(&[]).expect(78).says("etc/allowed_signers").says("ALLOWED SIGNERS");
    for (text, mode, code, why) in [
        (good.clone(), 0o646, 77, "0646"),
        (
            format!("# who may\n{good}bob cert-authority {}", &good[20..]),
            0o644,
            78,
            "allowed_signers:3: `cert-authority`",
        ),
        (good.replace("namespaces", "namespace"), 0o644, 78, "allowed_signers:1: unknown option"),
        (good.replace("AAAA", "AAAB"), 0o644, 78, "allowed_signers:1: the ssh-ed25519 key cannot be read"),
        (good.replace("namespaces=\"git\"", "valid-before=\"soon\""), 0o644, 78, "allowed_signers:1: `valid-before`"),
    ] {
        fs::write(&path, text).unwrap();
        set_mode(&path, mode);
        world.poll(&[]).expect(code).says(why);
        world.poll(&["-n"]).expect(code).says(why);
    }
    assert_eq!(world.sshd.connections_since(mark), 0);
    let shown = world.poll(&["check", "site"]).expect(78).prints("✗ signers");
    assert!(!shown.stdout.contains("may be published"), "{}", shown.story());
    assert!(world.ran().is_empty());
    allow(&world, &[("alice", "")]);
    world.poll(&[]).expect(0);
}

#[test]
fn who_signed_is_shown_before_it_is_deployed() {
    let world = asking("shown");
    first(&world);
    world.poll(&[]).expect(0);
    let two = commit(&world, "alice", &[("index.html", file("two\n"))], "Change the front page");
    world.repo.push();
    let shown = world.poll(&["-n"]).expect(0).prints("signed by alice@example.org, SHA256:");
    world.screen("signed-dry-run", "poller --dry-run", &shown.stdout);
    let json: serde_json::Value = serde_json::from_str(&world.poll(&["-n", "--json"]).expect(0).stdout).unwrap();
    let signer = &json["apps"][0]["signer"];
    assert_eq!((&signer["principals"], &signer["signed"]), (&"alice@example.org".into(), &"commit".into()), "{json}");
    let shown = world.poll(&["check", "site"]);
    assert!(shown.stdout.contains("signed by alice@example.org"), "{}", shown.story());
    world.poll(&[]).expect(0);
    world.expect_live("site", &two);

    commit(&world, "mallory", &[("index.html", file("three\n"))], "Change it again");
    world.repo.push();
    let shown = world.poll(&["-n"]).expect(77);
    world.screen("signed-dry-run-refused", "poller --dry-run", &shown.stdout);
    let shown = world.poll(&["check", "site"]).expect(77);
    assert!(shown.stdout.contains("✗ commit"), "{}", shown.story());
    let shown = world.poll_on_terminal(&[]).expect(77);
    world.screen("signed-refused", "poller", &shown.stderr);
}
