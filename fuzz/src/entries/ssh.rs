//! What a person wrote about keys, and what a commit says of its signature.

use std::path::Path;

use russh::keys::PublicKey;
use russh::keys::ssh_key::LineEnding;

use super::{assert_printable, text, told};
use crate::processes::messages::{KeyFile, Signers};
use crate::remote::known_hosts::KnownHosts;
use crate::report::excerpt;
use crate::stages::signature::allowed_signers::AllowedSigners;
use crate::stages::signature::object;

/// GitHub's, as good as any.
const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl";

/// A key that passes is one that was offered and shown as pinned; a line at the end pins it, and one with
/// `@revoked` takes it back whatever else the file says.
pub fn known_hosts(data: &[u8]) {
    let key = PublicKey::from_openssh(KEY).unwrap();
    let file = text(data);
    let read = |text: &str| KnownHosts::parse(Path::new("known_hosts"), text);
    let known = read(&file);
    for port in [22, 2222] {
        let pins = known.pins("git.example.org", port);
        let algorithms = known.algorithms("git.example.org", port);
        assert_eq!(pins.is_empty(), algorithms.is_empty());
        // On the way to this error each port there is is tried, which takes its time.
        if pins.is_empty() && !data.len().is_multiple_of(32) {
            continue;
        }
        match known.check("git.example.org", port, &key) {
            Ok(()) => {
                assert!(algorithms.contains(&key.algorithm()));
                assert!(pins.iter().any(|(_, shown)| KEY.len() > shown.len() && shown.starts_with("SHA256:")));
            }
            Err(error) => assert_printable(&error.to_string()),
        }
    }
    let pinned = read(&format!("{file}\ngit.example.org {KEY}\n"));
    assert!(file.contains("@revoked") || pinned.check("git.example.org", 22, &key).is_ok());
    let revoked = read(&format!("{file}\n@revoked * {KEY}\n"));
    assert!(revoked.check("git.example.org", 22, &key).is_err());
}

/// Comments change nothing, an error names a line that is there, and nobody signs whom the file does not name.
pub fn allowed_signers(data: &[u8]) {
    let key = PublicKey::from_openssh(KEY).unwrap();
    let file = text(data);
    let read = |text: &str| AllowedSigners::parse(Path::new("signers"), text);
    let find = |signers: &AllowedSigners, time| {
        signers.find(key.key_data(), "git", time).map(str::to_owned).map_err(|unfit| format!("{unfit:?}"))
    };
    match read(&file) {
        Ok(signers) => {
            let longer = read(&format!("# a comment\n\n{file}\n# another")).unwrap();
            for time in [i64::MIN, 0, 1_800_000_000, i64::MAX] {
                match find(&signers, time) {
                    Ok(principals) => {
                        assert!(file.contains(&principals));
                        assert_eq!(find(&longer, time).as_ref(), Ok(&principals));
                    }
                    Err(_) => assert!(find(&longer, time).is_err()),
                }
            }
        }
        Err(failure) => {
            assert_printable(&failure.message);
            let line = failure.message.strip_prefix("signers:").and_then(|rest| rest.split(':').next()).unwrap();
            assert!((1..=file.lines().count()).contains(&line.parse().unwrap()));
        }
    }
}

/// Of an object nothing is added and nothing is lost but what marks the signature; what is left of a commit
/// has none. A signature that can be read is the same when it is written anew.
pub fn signature(data: &[u8]) {
    match object::commit(data) {
        Ok(signed) => {
            assert!(signed.payload.len() + signed.armour.len() < data.len());
            assert!(object::commit(&signed.payload).is_err());
            armour(&signed.armour);
        }
        Err(refusal) => told(&refusal.failure("the commit", &signers()).message),
    }
    match object::tag(data) {
        Ok((name, signed)) => {
            assert_eq!([signed.payload, signed.armour.clone()].concat(), data);
            assert_printable(&excerpt(name));
            armour(&signed.armour);
        }
        Err(refusal) => told(&refusal.failure("the tag", &signers()).message),
    }
    armour(data);
}

fn armour(bytes: &[u8]) {
    match object::dearmour(bytes) {
        Ok(signature) => {
            let written = signature.to_pem(LineEnding::LF).unwrap();
            let Ok(again) = object::dearmour(written.as_bytes()) else { panic!("{written}") };
            assert!(again == signature, "{written}");
        }
        Err(refusal) => told(&refusal.failure("it", &signers()).message),
    }
}

fn signers() -> Signers {
    let file = KeyFile { file: "signers".into(), text: String::new() };
    Signers { allowed_signers: Some(file), pgp_keys: None }
}
