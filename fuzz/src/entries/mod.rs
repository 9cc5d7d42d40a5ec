//! What the fuzzer calls: a function a target, from bytes to nothing, that panics where a promise is broken.
//!
//! Most promise more than not to panic: what was read and written again reads the same, what a person will
//! see is printable, what was accepted means what it says. The unit tests of poller feed each file of the
//! corpus to its function, so that what the fuzzer once found stays found.

mod config;
mod git;
mod pgp;
mod ssh;
mod texts;
mod wire;

pub type Entry = fn(&[u8]);

/// Each target by its name: that of its folder in the corpus, and of its file in `fuzz_targets/`.
pub const ALL: [(&str, Entry); 21] = [
    ("allowed_signers", ssh::allowed_signers),
    ("config_app", config::app),
    ("config_host", config::host),
    ("crontab", texts::crontab),
    ("journal", git::journal),
    ("known_hosts", ssh::known_hosts),
    ("loose_object", git::loose_object),
    ("ls_refs", wire::ls_refs),
    ("messages", wire::messages),
    ("metrics", texts::metrics),
    ("output", texts::output),
    ("pgp_keys", pgp::keys),
    ("pgp_signature", pgp::signature),
    ("pkt_line", wire::pkt_line),
    ("printable", texts::printable),
    ("remote", config::remote),
    ("signature", ssh::signature),
    ("sudoers", config::sudoers),
    ("tree", git::tree),
    ("versions", git::versions),
    ("wildcard", texts::wildcard),
];

/// Runs the entry of this name.
///
/// # Panics
/// Where a promise is broken, or the name is unknown.
pub fn run(name: &str, data: &[u8]) {
    let (_, entry) = ALL.iter().find(|(known, _)| *known == name).expect("a target of this name");
    entry(data);
}

/// A message to people: one line.
fn told(message: &str) {
    assert_printable(message);
    assert!(!message.contains('\n'));
}

/// What people see: lines of printable characters.
fn assert_printable(text: &str) {
    let treacherous = text.chars().find(|&c| c != '\n' && crate::report::is_treacherous(c));
    assert_eq!(treacherous, None, "{text:?}");
}

fn text(data: &[u8]) -> String {
    String::from_utf8_lossy(data).into_owned()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn every_file_of_the_corpus_keeps_its_promise() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        for (name, _) in ALL {
            let mut files = 0;
            for file in fs::read_dir(corpus.join(name)).unwrap() {
                let file = file.unwrap().path();
                // Shown when the test fails: the last one is to blame.
                println!("{}", file.display());
                run(name, &fs::read(file).unwrap());
                files += 1;
            }
            assert!(files > 0, "no corpus for {name}");
        }
    }

    #[test]
    fn every_entry_is_a_target_and_has_a_folder() {
        let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
        let names = |folder: &str| {
            let all = fs::read_dir(fuzz.join(folder)).unwrap().map(|file| file.unwrap().path());
            let mut names: Vec<String> = all.map(|p| p.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
            names.sort();
            names
        };
        let entries: Vec<&str> = ALL.iter().map(|(name, _)| *name).collect();
        assert_eq!(names("fuzz_targets"), entries);
        assert_eq!(names("corpus"), entries);
        let manifest = fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
        assert_eq!(manifest.matches("[[bin]]").count(), entries.len());
    }
}
