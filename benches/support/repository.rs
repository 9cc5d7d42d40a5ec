//! Bare repositories at the server, made by `git fast-import`: a tree of a given size, and a row of
//! commits on top of it that `main` is moved along, one at a time.
//!
//! A file has 400 to 2,500 bytes of text, a folder 100 files. Each commit changes a line in one of 300
//! files: in 1 of 100, 10 of 3,000, 100 of 30,000. All is in one pack with a bitmap, as
//! at a server that is looked after.

use std::cell::Cell;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::rc::Rc;

use super::lab::{Lab, git_environment, succeed};

#[derive(Clone)]
pub struct Repository {
    pub path: PathBuf,
    pub url: String,
    /// The first of them has the whole tree.
    commits: Rc<Vec<String>>,
    at: Rc<Cell<usize>>,
}

/// A commit that is yet to be put on `main`.
pub struct Push {
    place: PathBuf,
    commit: String,
}

impl Push {
    pub fn now(&self) {
        fs::write(&self.place, format!("{}\n", self.commit)).expect("a ref");
    }
}

impl Repository {
    /// `main` is at the first commit, with `updates` more to come.
    pub fn new(lab: &Lab, name: &str, files: usize, updates: usize) -> Repository {
        let path = lab.path(name);
        succeed(git().args(["init", "-q", "--bare", "-b", "main"]).arg(&path));
        let marks = path.join("marks");
        let mut import = git();
        import.arg("-C").arg(&path).args(["fast-import", "--quiet"]);
        import.arg(format!("--export-marks={}", marks.display()));
        let mut import = import.stdin(Stdio::piped()).spawn().expect("git fast-import");
        let mut input = import.stdin.take().expect("its input");
        for commit in 0..=updates {
            input.write_all(history(files, commit).as_bytes()).expect("its input");
        }
        drop(input);
        assert!(import.wait().expect("git fast-import").success());
        succeed(git().arg("-C").arg(&path).args(["repack", "-adbq"]));
        let marks = fs::read_to_string(marks).expect("the marks");
        let mut commits: Vec<(usize, String)> = marks.lines().filter_map(mark).collect();
        commits.sort();
        let commits = commits.into_iter().map(|(_, id)| id).collect();
        let url = lab.url(&path);
        let repository = Repository { path, url, commits: Rc::new(commits), at: Rc::default() };
        repository.show();
        repository
    }

    /// The same with another name.
    pub fn copy(&self, lab: &Lab, name: &str) -> Repository {
        let path = lab.path(name);
        succeed(Command::new("cp").arg("-a").arg(&self.path).arg(&path));
        Repository {
            url: lab.url(&path),
            path,
            commits: Rc::clone(&self.commits),
            at: Rc::new(self.at.as_ref().clone()),
        }
    }

    /// Puts the next commit on `main`.
    pub fn push(&self) {
        self.at.set(self.at.get() + 1);
        self.show();
    }

    /// Moves on by so many commits at once. Each is on `main` when what is returned for it says so, which another
    /// thread may do.
    pub fn push_later(&self, commits: usize) -> Vec<Push> {
        let place = self.path.join("refs/heads/main");
        let next = (0..commits).map(|_| {
            self.at.set(self.at.get() + 1);
            Push { place: place.clone(), commit: self.tip().to_owned() }
        });
        next.collect()
    }

    /// The tip.
    pub fn tip(&self) -> &str {
        self.commits.get(self.at.get()).expect("enough commits were made")
    }

    fn show(&self) {
        Push { place: self.path.join("refs/heads/main"), commit: self.tip().to_owned() }.now();
    }

    /// Gives it references besides `main`, half branches and half tags, all of the same commit. They are
    /// written as `git pack-refs` would: made one by one they leave a folder behind that takes long to list.
    pub fn add_refs(&self, refs: usize) {
        write_packed(&self.path, "heads/topic", self.tip(), refs);
    }

    /// A clone that has all of it, and is made without the server.
    pub fn clone_to(&self, path: &Path) {
        succeed(git().args(["clone", "-q", "--single-branch"]).arg(&self.path).arg(path));
        let refs = fs::read_to_string(self.path.join("packed-refs")).unwrap_or_default().lines().count();
        if refs > 0 {
            write_packed(&path.join(".git"), "remotes/origin/topic", self.tip(), refs);
            fs::write(path.join(".git/refs/remotes/origin/main"), format!("{}\n", self.tip())).expect("a ref");
        }
        let git = || {
            let mut git = git();
            git.arg("-C").arg(path);
            git
        };
        succeed(git().args(["config", "remote.origin.fetch", "+refs/heads/*:refs/remotes/origin/*"]));
        succeed(git().args(["remote", "set-url", "origin", &self.url]));
    }
}

/// Sorted, which the file promises.
fn write_packed(git_folder: &Path, branches: &str, commit: &str, refs: usize) {
    let mut text = "# pack-refs with: peeled fully-peeled sorted \n".to_owned();
    for (names, count) in [(branches, (refs - 1) / 2), ("tags/v1", refs - 1 - (refs - 1) / 2)] {
        for n in 0..count {
            writeln!(text, "{commit} refs/{names}.{n:06}").expect("text");
        }
    }
    fs::write(git_folder.join("packed-refs"), text).expect("packed-refs");
}

fn mark(line: &str) -> Option<(usize, String)> {
    let (mark, id) = line.strip_prefix(':')?.split_once(' ')?;
    Some((mark.parse().ok()?, id.to_owned()))
}

/// What fast-import makes a commit of.
fn history(files: usize, commit: usize) -> String {
    let mut text = format!("commit refs/heads/main\nmark :{}\n", commit + 1);
    let date = 1_750_000_000 + commit * 60;
    write!(text, "committer Ada <ada@example.org> {date} +0000\ndata 6\nchange\n").expect("text");
    for file in 0..files {
        if commit > 0 && !file.is_multiple_of(300) {
            continue;
        }
        // Another file each time, and its content new.
        let file = if commit > 0 { (file + commit * 7) % files } else { file };
        let content = content(file, commit);
        let folder = file / 100;
        write!(text, "M 100644 inline part-{folder:03}/file-{file:05}.txt\ndata {}\n", content.len()).expect("text");
        text += &content;
        text.push('\n');
    }
    // What ansible-pull would run.
    if commit == 0 {
        text += "M 100644 inline local.yml\ndata 3\n[]\n\n";
    }
    text
}

/// Words without meaning, the same in each run; one line of them is the commit's.
fn content(file: usize, commit: usize) -> String {
    let mut seed = file as u64 * 2_654_435_761 + 88_172_645_463_325_252;
    let mut random = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let mut text = format!("commit {commit}\n");
    for _ in 0..10 + random() % 50 {
        for _ in 0..4 {
            write!(text, "{:08x} ", random() % 0xffff_ffff).expect("text");
        }
        text += "lorem\n";
    }
    text
}

pub fn git() -> Command {
    let mut git = Command::new("git");
    git.envs(git_environment());
    git
}
