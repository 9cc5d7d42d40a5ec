//! One commit after the other, held against what git says of it.

use super::*;
use crate::signatures::{header_of, raw, with_header, write_commit};

enum Verdict {
    Passes,
    /// Here, though not by git.
    PassesHereOnly,
    Refused(&'static str),
    /// Refused, though git lets it pass.
    RefusedHereOnly(&'static str),
}
use Verdict::{Passes, PassesHereOnly, Refused, RefusedHereOnly};

type Make = fn(&World, &Gpg) -> String;

const CASES: [(&str, Make, Verdict); 23] = [
    ("ed25519", |w, g| g.commit(w, "alice", &[], "signed"), Passes),
    ("unsigned", |w, _| w.repo.commit(&[], "unsigned"), Refused("is not signed, and `[verify] pgp_keys` asks for it")),
    ("RSA-3072", |w, g| by_new(w, g, "rsa3072"), Passes),
    ("P-256", |w, g| by_new(w, g, "nistp256"), Passes),
    ("P-521", |w, g| by_new(w, g, "nistp521"), Passes),
    ("Brainpool", |w, g| by_new(w, g, "brainpoolP256r1"), RefusedHereOnly("a curve that poller does not verify")),
    ("RSA-1024", |w, g| by_new(w, g, "rsa1024"), RefusedHereOnly("an RSA key of 1024 bits")),
    ("DSA", |w, g| by_new(w, g, "dsa2048"), RefusedHereOnly("a DSA key")),
    (
        "not in the file",
        |w, g| {
            g.make("mallory", "ed25519", "sign", "never");
            g.commit(w, "mallory", &[], "stranger")
        },
        Refused("which is not in"),
    ),
    ("signing subkey", by_subkey, Passes),
    (
        "signing subkey, revoked",
        |w, g| {
            let commit = g.commit(w, "carol", &[], "by a revoked subkey");
            revoke_subkey(g, "carol");
            allow(w, g, &["alice", "carol"]);
            commit
        },
        Refused("whose subkey, which made the signature, is revoked"),
    ),
    ("revoked", revoked, Refused("is revoked")),
    ("expired", expired, Refused("had expired at 2020-01-03T00:00:00Z, before it was signed")),
    ("expired later", expired_later, PassesHereOnly),
    ("from before the key", before_the_key, Refused("after the signature")),
    ("from next year", from_next_year, RefusedHereOnly("which is to come")),
    ("expiring", expiring, Refused("carries a signature that has expired at 2020-01-03T00:00:00Z")),
    ("as a text", |w, g| with_conf(w, g, "textmode"), Passes),
    ("SHA-1", |w, g| with_conf(w, g, "digest-algo SHA1"), RefusedHereOnly("is signed with SHA1")),
    ("critical notation", |w, g| with_conf(w, g, "sig-notation !n@example.org=v"), Refused("a critical part")),
    ("another commit's", copied, Refused("does not fit its signature")),
    (
        "tampered",
        |w, g| {
            let signed = g.commit(w, "alice", &[], "tampered");
            write_commit(w, &raw(w, &signed).replace("tampered", "Tampered"))
        },
        Refused("does not fit its signature"),
    ),
    ("signed twice", twice, Refused("more than one signature")),
];

fn by_new(world: &World, gpg: &Gpg, kind: &str) -> String {
    gpg.make(kind, kind, "sign", "never");
    allow(world, gpg, &["alice", kind]);
    gpg.commit(world, kind, &[], kind)
}

fn by_subkey(world: &World, gpg: &Gpg) -> String {
    let key = gpg.make("carol", "rsa3072", "cert", "never");
    gpg.run(&["--quick-add-key", &key, "ed25519", "sign", "never"]);
    allow(world, gpg, &["alice", "carol"]);
    gpg.commit(world, "carol", &[], "by a subkey")
}

fn revoke_subkey(gpg: &Gpg, who: &str) {
    let mut edit = Command::new("gpg");
    edit.arg("--homedir").arg(&gpg.home).args(["--quiet", "--no-tty", "--yes", "--command-fd", "0", "--edit-key"]);
    edit.arg(gpg.fingerprint(who)).stdin(std::process::Stdio::piped());
    let mut child = edit.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
    let answers = b"key 1\nrevkey\ny\n0\n\ny\nsave\n";
    std::io::Write::write_all(child.stdin.as_mut().unwrap(), answers).unwrap();
    assert!(child.wait().unwrap().success());
}

fn revoked(world: &World, gpg: &Gpg) -> String {
    let key = gpg.make("dave", "ed25519", "sign", "never");
    let commit = gpg.commit(world, "dave", &[], "before it was revoked");
    let certificate = gpg.home.join(format!("openpgp-revocs.d/{key}.rev"));
    let text = fs::read_to_string(&certificate).unwrap().replace(":-----BEGIN", "-----BEGIN");
    fs::write(&certificate, text).unwrap();
    gpg.run(&["--import", certificate.to_str().unwrap()]);
    allow(world, gpg, &["alice", "dave"]);
    commit
}

/// Signed after its key's end: that was set later, to a time before.
fn expired(world: &World, gpg: &Gpg) -> String {
    gpg.conf("faked-system-time 20200101T000000");
    let key = gpg.make("erin", "ed25519", "sign", "never");
    gpg.conf("");
    let commit = gpg.commit(world, "erin", &[], "signed too late");
    gpg.conf("faked-system-time 20200102T000000");
    gpg.run(&["--quick-set-expire", &key, "1d"]);
    gpg.conf("");
    allow(world, gpg, &["alice", "erin"]);
    commit
}

fn expiring(world: &World, gpg: &Gpg) -> String {
    gpg.conf("faked-system-time 20200101T000000");
    gpg.make("grace", "ed25519", "sign", "never");
    allow(world, gpg, &["alice", "grace"]);
    gpg.conf("faked-system-time 20200102T000000\ndefault-sig-expire 1d");
    let commit = gpg.commit(world, "grace", &[], "for a day");
    gpg.conf("");
    commit
}

fn expired_later(world: &World, gpg: &Gpg) -> String {
    gpg.conf("faked-system-time 20200101T000000");
    gpg.make("frank", "ed25519", "sign", "1y");
    let commit = gpg.commit(world, "frank", &[], "signed in time");
    gpg.conf("");
    allow(world, gpg, &["alice", "frank"]);
    commit
}

fn before_the_key(world: &World, gpg: &Gpg) -> String {
    gpg.conf("faked-system-time 20200101T000000\nignore-time-conflict");
    let commit = gpg.commit(world, "alice", &[], "an invented date");
    gpg.conf("");
    commit
}

fn from_next_year(world: &World, gpg: &Gpg) -> String {
    with_conf(world, gpg, "faked-system-time 20990101T000000")
}

fn with_conf(world: &World, gpg: &Gpg, lines: &str) -> String {
    gpg.conf(lines);
    let commit = gpg.commit(world, "alice", &[], lines);
    gpg.conf("");
    commit
}

fn copied(world: &World, gpg: &Gpg) -> String {
    let header = header_of(&raw(world, &gpg.commit(world, "alice", &[], "the original")));
    let unsigned = raw(world, &world.repo.commit(&[], "the copy"));
    write_commit(world, &with_header(&unsigned, &header))
}

fn twice(world: &World, gpg: &Gpg) -> String {
    let signed = raw(world, &gpg.commit(world, "alice", &[], "twice"));
    let header = header_of(&signed);
    write_commit(world, &signed.replacen(&header, &format!("{header}{header}"), 1))
}

#[test]
fn what_passes_is_what_git_and_gpg_call_good_and_where_not_it_is_written_down() {
    needs_program!("gpg");
    let (world, gpg) = asking("pgp as git");
    let mut good = gpg.first(&world);
    world.poll(&[]).expect(0).silent();
    for (name, make, verdict) in CASES {
        world.repo.rewind_to(&good);
        let commit = make(&world, &gpg);
        world.repo.force_push();
        let by_git = git_accepts(&world, "verify-commit", &commit);
        let is_as_git = match verdict {
            Passes | PassesHereOnly => {
                world.poll(&[]).expect(0).silent();
                good = commit;
                by_git == matches!(verdict, Passes)
            }
            Refused(why) | RefusedHereOnly(why) => {
                world.poll(&[]).expect(77).says(why);
                by_git == matches!(verdict, RefusedHereOnly(_))
            }
        };
        assert!(is_as_git, "{name}: git accepts it: {by_git}");
        world.expect_live("site", &good);
    }
}
