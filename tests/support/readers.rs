//! What a run left: its log, the journal, what is published, and a hash over whole folders.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::World;
use super::repo::{Tree, git, git_bytes, git_with_input};

/// One entry of an app's journal.
#[derive(Debug, Clone)]
pub struct Entry {
    pub run: toml::Table,
    pub state: toml::Table,
    pub output: Vec<u8>,
}

impl Entry {
    pub fn kind(&self) -> &str {
        self.text("kind")
    }

    pub fn outcome(&self) -> &str {
        self.text("outcome")
    }

    pub fn to(&self) -> &str {
        self.text("to")
    }

    pub fn text(&self, key: &str) -> &str {
        self.run.get(key).and_then(toml::Value::as_str).unwrap_or("")
    }
}

impl World {
    /// Every line of the log. A line that is not a JSON object fails the test.
    #[track_caller]
    pub fn log(&self) -> Vec<Value> {
        read_log(&self.log_file())
    }

    /// The log's lines of one event.
    #[track_caller]
    pub fn events(&self, event: &str) -> Vec<Value> {
        self.log().into_iter().filter(|line| line["event"] == event).collect()
    }

    pub fn repositories(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.state()).into_iter().flatten().flatten();
        let mut found: Vec<_> = entries.map(|entry| entry.path()).collect();
        found.retain(|path| path.extension().is_some_and(|ext| ext == "git"));
        found.sort();
        found
    }

    fn journal_refs(&self, app: &str) -> Vec<(PathBuf, String)> {
        let name = format!("refs/poller/{app}");
        let tip = |bare: &Path| git(bare, &["for-each-ref", "--format=%(objectname)", &name]);
        let tips = self.repositories().into_iter().map(|bare| (bare.clone(), tip(&bare).trim().to_owned()));
        tips.filter(|(_, tip)| !tip.is_empty()).collect()
    }

    /// The journal's tip, for telling whether anything was recorded.
    pub fn journal_tip(&self, app: &str) -> Option<String> {
        self.journal_refs(app).pop().map(|(_, tip)| tip)
    }

    /// An app's journal, newest entry first.
    #[track_caller]
    pub fn journal(&self, app: &str) -> Vec<Entry> {
        self.entries(app, &[])
    }

    #[track_caller]
    pub fn newest_entry(&self, app: &str) -> Option<Entry> {
        self.entries(app, &["-1"]).pop()
    }

    #[track_caller]
    fn entries(&self, app: &str, which: &[&str]) -> Vec<Entry> {
        let found = self.journal_refs(app);
        assert!(found.len() < 2, "the journal of {app} is in {} repositories", found.len());
        let Some((bare, tip)) = found.into_iter().next() else {
            return Vec::new();
        };
        let ids = git(&bare, &[&["log", "--first-parent", "--format=%H"], which, &[&tip]].concat());
        read_entries(&bare, &ids.lines().collect::<Vec<_>>())
    }

    /// Kinds and outcomes, oldest first: `deploy started`, `deploy deployed`, …
    #[track_caller]
    pub fn history(&self, app: &str) -> Vec<String> {
        let entries = self.journal(app).into_iter().rev();
        entries.map(|e| format!("{} {}", e.kind(), e.outcome())).collect()
    }

    /// The commit that state.toml calls deployed.
    #[track_caller]
    pub fn recorded(&self, app: &str) -> Option<String> {
        let newest = self.newest_entry(app)?;
        let deployed = newest.state.get("deployed")?;
        // Either the commit itself or a table that has it.
        let commit = deployed.as_str().or_else(|| deployed.get("commit")?.as_str());
        commit.map(str::to_owned)
    }

    /// Where an app's live tree lies: `current` in a `releases` layout, the folder itself in-place.
    pub fn live_folder(&self, app: &str) -> PathBuf {
        let target = self.target(app);
        let current = target.join("current");
        if fs::symlink_metadata(&current).is_ok_and(|meta| meta.is_symlink()) { current } else { target }
    }

    pub fn current(&self, app: &str) -> Option<PathBuf> {
        fs::read_link(self.target(app).join("current")).ok()
    }

    pub fn revision(&self, app: &str) -> Option<String> {
        let text = fs::read_to_string(self.live_folder(app).join("REVISION")).ok()?;
        Some(text.trim().to_owned())
    }

    pub fn live_text(&self, app: &str, name: &str) -> Option<String> {
        fs::read_to_string(self.live_folder(app).join(name)).ok()
    }

    /// Folders under `releases`, oldest first.
    pub fn releases(&self, app: &str) -> Vec<String> {
        let entries = fs::read_dir(self.target(app).join("releases")).into_iter().flatten().flatten();
        let mut names: Vec<_> = entries.map(|e| e.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// What is live, in the terms of [`super::Repo::ls_tree`], without REVISION. An empty folder has
    /// mode `empty`; permissions other than 0644 and 0755 show as they are.
    #[track_caller]
    pub fn live(&self, app: &str) -> Tree {
        self.tree_of(&self.live_folder(app))
    }

    #[track_caller]
    pub fn tree_of(&self, folder: &Path) -> Tree {
        let mut found = Vec::new();
        walk(folder, Path::new(""), &mut found);
        found.retain(|(path, _)| path != "REVISION");
        // Links' targets are hashed as files with that content, all in one run of git.
        let links = self.path("link-texts");
        let _ = fs::remove_dir_all(&links);
        fs::create_dir(&links).unwrap();
        let mut names = String::new();
        for (number, (path, mode)) in found.iter().enumerate() {
            let whole = folder.join(path);
            let hashed = match mode.as_str() {
                "empty" => continue,
                "120000" => {
                    let copy = links.join(number.to_string());
                    fs::write(&copy, fs::read_link(&whole).unwrap().as_os_str().as_bytes()).unwrap();
                    copy
                }
                _ => whole,
            };
            names += &format!("{}\n", hashed.display());
        }
        let args = ["hash-object", "--no-filters", "--stdin-paths"];
        let ids = git_with_input(&self.root, &args, names.as_bytes());
        let mut ids = ids.lines();
        let mut id = |mode: &str| if mode == "empty" { "" } else { ids.next().unwrap() }.to_owned();
        found
            .into_iter()
            .map(|(path, mode)| {
                let id = id(&mode);
                (path, (mode, id))
            })
            .collect()
    }

    /// What is live is exactly the commit's tree.
    #[track_caller]
    pub fn expect_live(&self, app: &str, commit: &str) {
        assert_eq!(self.revision(app).as_deref(), Some(commit), "REVISION");
        same_tree(&self.live(app), &self.repo.ls_tree(commit));
    }

    /// Nothing half done in the repositories, the target or the run folder.
    #[track_caller]
    pub fn expect_no_leftovers(&self, app: &str) {
        let mut found = Vec::new();
        for folder in [self.state(), self.target(app)] {
            let mut names = Vec::new();
            walk(&folder, Path::new(""), &mut names);
            found.extend(names.into_iter().map(|(path, _)| folder.join(path)));
        }
        found.retain(|path| {
            let text = path.to_string_lossy();
            text.contains(".partial")
                || text.contains("pack_git2_")
                || text.contains("/tmp_")
                || text.contains("quarantine")
                || (text.contains(".git/") && text.ends_with(".lock"))
        });
        assert!(found.is_empty(), "left over: {found:#?}");
    }

    /// A hash over names, kinds, modes, owners, contents, and the times of all but folders.
    pub fn hash_of_everything(&self) -> String {
        let script = "cd \"$1\" && { find etc var target notes \\( -type d -printf '%p %y %m %U %G\\n' \
             -o -printf '%p %y %m %U %G %T@ %l\\n' \\) | sort; \
             find etc var target notes -type f -print0 | sort -z | xargs -0r sha256sum; } | sha256sum";
        super::sh("sh", &["-c", script, "sh", self.root.to_str().unwrap()])
    }
}

#[track_caller]
pub fn read_log(path: &Path) -> Vec<Value> {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8(text).expect("the log is UTF-8");
    assert!(text.is_empty() || text.ends_with('\n'), "the log's last line is torn");
    let parse = |line: &str| {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("not JSON, {e}: {line}"));
        assert!(value.is_object(), "not an object: {line}");
        value
    };
    text.lines().map(parse).collect()
}

#[track_caller]
pub fn same_tree(ours: &Tree, git: &Tree) {
    let differ: BTreeMap<_, _> = ours
        .keys()
        .chain(git.keys())
        .filter(|path| ours.get(*path) != git.get(*path))
        .map(|path| (path, (ours.get(path), git.get(path))))
        .collect();
    assert!(differ.is_empty(), "published and committed differ: {differ:#?}");
}

/// All of them from one process: after hundreds of deploys a few for each would take seconds.
fn read_entries(bare: &Path, ids: &[&str]) -> Vec<Entry> {
    let names = ids.iter().flat_map(|id| ["run.toml", "state.toml", "output.log"].map(|name| format!("{id}:{name}\n")));
    let said = git_bytes(bare, &["cat-file", "--batch"], names.collect::<String>().as_bytes());
    let mut rest = said.as_slice();
    // A line of what it is and how long, then so many bytes and an end of line; or `NAME missing`.
    let mut next = || {
        let end = rest.iter().position(|&b| b == b'\n').expect("a line about an object");
        let head = String::from_utf8_lossy(&rest[..end]).into_owned();
        rest = &rest[end + 1..];
        let length: usize = head.split_once(" blob ")?.1.parse().expect("a length");
        let bytes = rest[..length].to_vec();
        rest = &rest[length + 1..];
        Some(bytes)
    };
    let parse = |id: &str, name: &str, bytes: Option<Vec<u8>>| {
        let bytes = bytes.unwrap_or_else(|| panic!("no {name} in {id}"));
        String::from_utf8_lossy(&bytes).parse().unwrap_or_else(|e| panic!("{name} of {id}: {e}"))
    };
    let entry = |id: &&str| Entry {
        run: parse(id, "run.toml", next()),
        state: parse(id, "state.toml", next()),
        output: next().unwrap_or_default(),
    };
    ids.iter().map(entry).collect()
}

fn walk(folder: &Path, below: &Path, found: &mut Vec<(String, String)>) {
    let Ok(entries) = fs::read_dir(folder.join(below)) else {
        return;
    };
    for entry in entries.flatten() {
        let path = below.join(entry.file_name());
        let meta = entry.metadata().unwrap();
        let name = path.to_str().expect("UTF-8").to_owned();
        let mode = meta.permissions().mode() & 0o7777;
        if meta.is_symlink() {
            found.push((name, "120000".into()));
        } else if meta.is_dir() {
            let before = found.len();
            walk(folder, &path, found);
            if found.len() == before {
                found.push((name, "empty".into()));
            }
        } else {
            let plain = matches!(mode, 0o644 | 0o755) && meta.is_file();
            found.push((name, if plain { format!("100{mode:o}") } else { format!("odd {mode:o}") }));
        }
    }
}
