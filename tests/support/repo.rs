//! The git server's repository and a developer's clone of it, both driven by the git program.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub enum Content {
    File(Vec<u8>),
    Exec(Vec<u8>),
    Link(String),
    Gone,
}

pub fn file(bytes: impl AsRef<[u8]>) -> Content {
    Content::File(bytes.as_ref().to_vec())
}

pub fn exec(bytes: impl AsRef<[u8]>) -> Content {
    Content::Exec(bytes.as_ref().to_vec())
}

pub fn link(target: &str) -> Content {
    Content::Link(target.to_owned())
}

pub fn gone() -> Content {
    Content::Gone
}

/// Paths with their mode and object id, as `git ls-tree -r` has them.
pub type Tree = BTreeMap<String, (String, String)>;

pub struct Repo {
    pub bare: PathBuf,
    pub work: PathBuf,
}

/// The git program, deaf to the configuration of whoever runs the tests.
pub fn git_command() -> Command {
    let mut git = Command::new("git");
    for (key, _) in std::env::vars_os() {
        if key.to_string_lossy().starts_with("GIT_") {
            git.env_remove(key);
        }
    }
    git.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    git.env("GIT_AUTHOR_NAME", "Ada Author").env("GIT_AUTHOR_EMAIL", "ada@example.org");
    git.env("GIT_COMMITTER_NAME", "Carl Committer").env("GIT_COMMITTER_EMAIL", "carl@example.org");
    git.args(["-c", "safe.directory=*", "-c", "core.quotePath=false", "-c", "gc.auto=0"]);
    git
}

pub fn git(folder: &Path, args: &[&str]) -> String {
    git_with_input(folder, args, b"")
}

pub fn git_with_input(folder: &Path, args: &[&str], input: &[u8]) -> String {
    String::from_utf8_lossy(&git_bytes(folder, args, input)).into_owned()
}

/// What git prints, as it is.
pub fn git_bytes(folder: &Path, args: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = git_command()
        .arg("-C")
        .arg(folder)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("git");
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let feeder = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let out = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "git {args:?} in {}: {said}", folder.display());
    out.stdout
}

impl Repo {
    pub fn make(root: &Path, name: &str) -> Repo {
        let bare = root.join("server").join(format!("{name}.git"));
        let work = root.join("work").join(name);
        let (shown_bare, shown_work) = (bare.to_str().unwrap(), work.to_str().unwrap());
        git(root, &["init", "-q", "--bare", "-b", "main", shown_bare]);
        // What receives a push takes nothing from the one who pushes.
        git(&bare, &["config", "gc.auto", "0"]);
        git(root, &["init", "-q", "-b", "main", shown_work]);
        git(&work, &["remote", "add", "origin", shown_bare]);
        Repo { bare, work }
    }

    /// Changes files in the clone and commits them; the commit's full id.
    pub fn commit(&self, files: &[(&str, Content)], message: &str) -> String {
        for (name, content) in files {
            put(&self.work.join(name), content);
        }
        git(&self.work, &["add", "-A", "--force"]);
        git(&self.work, &["commit", "-q", "--allow-empty", "-m", message]);
        self.head()
    }

    pub fn head(&self) -> String {
        self.id_of("HEAD")
    }

    pub fn id_of(&self, rev: &str) -> String {
        git(&self.work, &["rev-parse", "--verify", rev]).trim().to_owned()
    }

    pub fn push(&self) {
        self.push_to("refs/heads/main");
    }

    pub fn push_to(&self, reference: &str) {
        git(&self.work, &["push", "-q", "origin", &format!("HEAD:{reference}")]);
    }

    pub fn force_push(&self) {
        git(&self.work, &["push", "-q", "--force", "origin", "HEAD:refs/heads/main"]);
    }

    /// An annotated tag on the server.
    pub fn tag(&self, name: &str) {
        git(&self.work, &["tag", "-a", "-m", name, name]);
        git(&self.work, &["push", "-q", "origin", &format!("refs/tags/{name}")]);
    }

    pub fn light_tag(&self, name: &str) {
        git(&self.work, &["tag", name]);
        git(&self.work, &["push", "-q", "origin", &format!("refs/tags/{name}")]);
    }

    pub fn delete(&self, reference: &str) {
        git(&self.bare, &["update-ref", "-d", reference]);
    }

    /// Goes back to `rev` in the clone, so that the next commit rewrites history.
    pub fn rewind_to(&self, rev: &str) {
        git(&self.work, &["reset", "-q", "--hard", rev]);
    }

    pub fn blob(&self, bytes: &[u8]) -> String {
        git_with_input(&self.bare, &["hash-object", "-w", "--stdin"], bytes).trim().to_owned()
    }

    /// A tree written byte for byte into the server's repository, whatever git thinks of it.
    pub fn raw_tree(&self, entries: &[(&str, &str, &str)]) -> String {
        let mut bytes = Vec::new();
        for (mode, name, id) in entries {
            bytes.extend_from_slice(format!("{mode} {name}\0").as_bytes());
            bytes.extend((0..40).step_by(2).map(|i| u8::from_str_radix(&id[i..i + 2], 16).unwrap()));
        }
        let args = ["hash-object", "-t", "tree", "-w", "--stdin", "--literally"];
        git_with_input(&self.bare, &args, &bytes).trim().to_owned()
    }

    /// Makes `tree` the server's next commit on main.
    pub fn publish_tree(&self, tree: &str, message: &str) -> String {
        let parent = git(&self.bare, &["rev-parse", "--verify", "refs/heads/main"]);
        let args = ["commit-tree", "-p", parent.trim(), "-m", message, tree];
        let commit = git(&self.bare, &args).trim().to_owned();
        git(&self.bare, &["update-ref", "refs/heads/main", &commit]);
        commit
    }

    pub fn ls_tree(&self, rev: &str) -> Tree {
        let listing = git(&self.bare, &["ls-tree", "-r", "-z", rev]);
        listing
            .split_terminator('\0')
            .map(|line| {
                let (head, path) = line.split_once('\t').unwrap();
                let mut head = head.split(' ');
                let mode = head.next().unwrap().to_owned();
                (path.to_owned(), (mode, head.nth(1).unwrap().to_owned()))
            })
            .collect()
    }
}

/// Puts one thing at `path`, whatever was there or is in the way: never through a link.
pub fn put(path: &Path, content: &Content) {
    let above: Vec<_> = path.ancestors().skip(1).collect();
    for above in above.into_iter().rev() {
        if fs::symlink_metadata(above).is_ok_and(|meta| !meta.is_dir()) {
            if matches!(content, Content::Gone) {
                return;
            }
            fs::remove_file(above).unwrap();
        }
    }
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path).unwrap(),
        Ok(_) => fs::remove_file(path).unwrap(),
        Err(_) => {}
    }
    if matches!(content, Content::Gone) {
        return;
    }
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    match content {
        Content::File(bytes) | Content::Exec(bytes) => {
            fs::write(path, bytes).unwrap();
            let mode = if matches!(content, Content::Exec(_)) { 0o755 } else { 0o644 };
            super::set_mode(path, mode);
        }
        Content::Link(target) => symlink(target, path).unwrap(),
        Content::Gone => unreachable!(),
    }
}
