//! The real git's upload-pack, where it is installed.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::super::*;
use super::{main_branch, tags};
use crate::remote::versions::highest;

/// A repository in a temporary folder, made and asked by the real git.
struct Repository(PathBuf);

impl Repository {
    /// `None` where git is not installed.
    fn new(name: &str) -> Option<Repository> {
        let folder = std::env::temp_dir().join(format!("poller-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let it = Repository(folder);
        let git = it.git(&["--version"]).output();
        git.is_ok().then(|| it.run(&["init", "-q", "-b", "main"], ""))?;
        Some(it)
    }

    fn git(&self, arguments: &[&str]) -> std::process::Command {
        let mut git = std::process::Command::new("git");
        let me = [("NAME", "me"), ("EMAIL", "me@example.org")];
        for (name, value) in me {
            git.env(format!("GIT_AUTHOR_{name}"), value);
            git.env(format!("GIT_COMMITTER_{name}"), value);
        }
        git.current_dir(&self.0).args(arguments);
        git.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
        git
    }

    fn run(&self, arguments: &[&str], input: &str) -> String {
        let file = self.0.join(".git-input");
        std::fs::write(&file, input).unwrap();
        let mut git = self.git(arguments);
        let output = git.stdin(std::fs::File::open(&file).unwrap()).output().unwrap();
        assert!(output.status.success(), "git {arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    async fn ask(&self, protocol: &str, folder: &Path, wanted: &[Wanted]) -> Result<Answer, ProbeError> {
        let mut git = self.git(&["upload-pack"]);
        git.arg(folder).env("GIT_PROTOCOL", protocol).stderr(Stdio::null());
        let mut git = tokio::process::Command::from(git);
        let mut child = git.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (out, input) = (child.stdout.take().unwrap(), child.stdin.take().unwrap());
        let answer = ask(&mut tokio::io::join(out, input), wanted).await;
        // A clean end shows that nothing was left hanging.
        assert_eq!(child.wait().await.unwrap().success(), answer.is_ok());
        answer
    }
}

impl Drop for Repository {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[tokio::test]
async fn the_real_upload_pack_answers_in_all_versions() {
    let Some(git) = Repository::new("ls-refs") else {
        return;
    };
    let versions = [("version=2", Protocol::V2), ("version=1", Protocol::V1), ("", Protocol::V0)];
    for (spoken, protocol) in versions {
        let answer = git.ask(spoken, &git.0, &main_branch()).await.unwrap();
        assert_eq!(answer, Answer { protocol, refs: vec![], empty: protocol != Protocol::V2 });
    }
    git.run(&["commit", "-q", "--allow-empty", "-m", "one"], "");
    git.run(&["tag", "-a", "-m", "it", "v1.0"], "");
    let (commit, tag) = (git.run(&["rev-parse", "main"], ""), git.run(&["rev-parse", "v1.0"], ""));
    let many: String = (0..2000).map(|n| format!("create refs/heads/main-{n} {commit}\n")).collect();
    git.run(&["update-ref", "--stdin"], &many);

    let id = |hex: &str| object_id(hex.as_bytes()).unwrap();
    let (head, tag_name) = ("refs/heads/main".to_owned(), "refs/tags/v1.0".to_owned());
    let branch = Advertised { name: head, id: id(&commit), peeled: None };
    let tag = Advertised { name: tag_name, id: id(&tag), peeled: Some(id(&commit)) };
    let mut both = main_branch();
    both.extend(tags("v*"));
    let missing = [Wanted::Ref("refs/heads/main-".to_owned())];
    for (spoken, protocol) in versions {
        let ask = async |wanted| git.ask(spoken, &git.0, wanted).await.unwrap();
        let answer = ask(&both).await;
        assert_eq!(answer, Answer { protocol, refs: vec![branch.clone(), tag.clone()], empty: false });
        assert_eq!(highest("v*", &answer.refs), Some(&tag));
        let answer = ask(&missing).await;
        assert_eq!(answer, Answer { protocol, refs: vec![], empty: false });
        let nowhere = git.ask(spoken, Path::new("nowhere"), &both).await;
        assert!(matches!(nowhere, Err(ProbeError::NotGit { seen }) if seen.is_empty()));
    }
}
