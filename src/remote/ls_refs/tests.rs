use tokio::io::AsyncReadExt;

use super::*;

mod real_git;

const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
const V2: [&str; 5] = ["version 2\n", "agent=x\n", "ls-refs=unborn\n", "object-format=sha1\n", ""];

fn main_branch() -> Vec<Wanted> {
    vec![Wanted::Ref("refs/heads/main".to_owned())]
}

fn tags(pattern: &str) -> Vec<Wanted> {
    vec![Wanted::Tags { pattern: pattern.to_owned() }]
}

/// Packets of these lines; "" is a flush, `$A` and `$B` are ids.
async fn packets(lines: &[&str]) -> Vec<u8> {
    let mut wire = Vec::new();
    for line in lines {
        let line = line.replace("$A", A).replace("$B", B);
        match line.as_str() {
            "" => pkt_line::write_flush(&mut wire).await.unwrap(),
            line => pkt_line::write_data(&mut wire, line.as_bytes()).await.unwrap(),
        }
    }
    wire
}

/// Plays a server that says `bytes` and hangs up; also what it was asked.
async fn served(bytes: &[u8], wanted: &[Wanted]) -> (Result<Answer, ProbeError>, String) {
    let (mut server, mut ours) = tokio::io::duplex(bytes.len().max(1) + 4096);
    server.write_all(bytes).await.unwrap();
    server.shutdown().await.unwrap();
    let answer = ask(&mut ours, wanted).await;
    drop(ours);
    let mut asked = String::new();
    server.read_to_string(&mut asked).await.unwrap();
    (answer, asked)
}

fn names(answer: &Answer) -> Vec<&str> {
    answer.refs.iter().map(|one| &*one.name).collect()
}

#[tokio::test]
async fn version_2_is_asked_for_prefixes_and_filtered_exactly() {
    let lines = [
        "$A refs/heads/main\n",
        "$B refs/heads/main2\n",
        "$A refs/tags/v1 peeled:$B\n",
        "$A refs/tags/v2 symref-target:refs/x new-attribute\n",
        "$A refs/tags/w1\n",
        "$A refs/tags/v\u{1b}[2J\n",
        "$A refs/tags/v/../../x\n",
        "",
    ];
    let mut wanted = main_branch();
    wanted.extend(tags("v*"));
    let (answer, asked) = served(&packets(&[&V2[..], &lines].concat()).await, &wanted).await;
    let answer = answer.unwrap();
    assert_eq!((answer.protocol, answer.empty), (Protocol::V2, false));
    assert_eq!(names(&answer), ["refs/heads/main", "refs/tags/v1", "refs/tags/v2"]);
    assert_eq!((answer.refs[1].id, answer.refs[1].peeled), ([0xaa; 20], Some([0xbb; 20])));
    let agent = concat!("agent=poller/", env!("CARGO_PKG_VERSION"), "\n");
    let agent = format!("{:04x}{agent}", agent.len() + 4);
    let expected = format!(
        "0014command=ls-refs\n{agent}0017object-format=sha1\n00010009peel\n\
        001fref-prefix refs/heads/main\n001bref-prefix refs/tags/v\n00000000"
    );
    assert_eq!(asked, expected);
}

#[tokio::test]
async fn versions_0_and_1_list_everything() {
    let lines = [
        "$A HEAD\0multi_ack symref=HEAD:refs/heads/main object-format=sha1\n",
        "$A refs/heads/main\n",
        "$A refs/heads/main2\n",
        "$A refs/tags/v1\n",
        "$B refs/tags/v1^{}\n",
        "$A refs/tags/w1\n",
        "$B refs/tags/w1^{}\n",
        "shallow $B\n",
        "",
    ];
    let mut wanted = main_branch();
    wanted.extend(tags("v*"));
    for (protocol, before) in [(Protocol::V0, &[][..]), (Protocol::V1, &["version 1\n"])] {
        let (answer, asked) = served(&packets(&[before, &lines].concat()).await, &wanted).await;
        let answer = answer.unwrap();
        assert_eq!((answer.protocol, answer.empty), (protocol, false));
        assert_eq!(names(&answer), ["refs/heads/main", "refs/tags/v1"]);
        assert_eq!(answer.refs[0].peeled, None);
        assert_eq!(answer.refs[1].peeled, Some([0xbb; 20]));
        assert_eq!(asked, "0000");
    }
    let zero = format!("{} capabilities^{{}}\0agent=x\n", "0".repeat(40));
    for lines in [&[""][..], &[&zero, ""]] {
        let answer = served(&packets(lines).await, &wanted).await.0.unwrap();
        assert!(answer.empty && answer.refs.is_empty());
    }
}

#[tokio::test]
async fn what_is_no_answer_is_told_apart() {
    let long = format!("$A refs/heads/main\0{}", "x".repeat(500));
    let with = |more: &[&'static str]| [&V2[..4], more].concat();
    // (lines, what the error's debug text is, or begins with)
    let table = [
        (vec!["ERR access denied\n"], "Remote(\"access denied\")"),
        (vec!["$A HEAD\0x", "ERR no\u{1b}[2J"], "Remote(\"no\\\\u{1b}[2J\")"),
        (with(&["", "ERR gone"]), "Remote(\"gone\")"),
        (with(&["", "zz refs/heads/main", ""]), "NotGit { seen: \"zz refs"),
        (with(&["", "$A", ""]), "NotGit { seen: \"aaaa"),
        (with(&["", "$A refs/tags/v1 peeled:b", ""]), "NotGit { seen: \"aaaa"),
        (vec!["hello\n"], "NotGit { seen: \"hello\" }"),
        (vec!["$A HEAD\0object-format=sha256", ""], "Unsupported(\"the repository's"),
        (vec!["version 2\n", "ls-refs\n", "object-format=sha256", ""], "Unsupported("),
        (vec!["version 2\n", "agent=x\n", "ls-refsx", ""], "Unsupported(\"the server does"),
        (vec!["version 3\n"], "Unsupported(\"the server speaks"),
        (with(&["", "$A refs/heads/main"]), "Packet(Eof"),
        (vec![&long], "Packet(Eof"),
    ];
    for (lines, expected) in table {
        let (answer, _) = served(&packets(&lines).await, &main_branch()).await;
        let said = format!("{:?}", answer.unwrap_err());
        assert!(said.starts_with(expected), "{lines:?}: {said}");
    }
    // What is no packet at all.
    let banner = "Hi 'me'!\u{1b}[2J\u{7}".repeat(30);
    let banner_begins = "Hi 'me'!\\u{1b}[2J\\u{7}".repeat(9);
    let table = [
        ("", ""),
        ("Access denied\n", "Access denied"),
        ("This account is not available.\n", "This account is not available."),
        (&*banner, &banner_begins[..120]),
    ];
    for (bytes, expected) in table {
        let (answer, _) = served(bytes.as_bytes(), &main_branch()).await;
        let Err(ProbeError::NotGit { seen }) = answer else {
            panic!("{answer:?}");
        };
        assert!(seen.starts_with(expected) && seen.chars().count() <= 200, "{seen}");
        assert_eq!(seen.is_empty(), expected.is_empty());
    }
}

#[tokio::test]
async fn a_list_without_end_is_cut() {
    let line = format!("{A} refs/heads/main{}", "x".repeat(65_000));
    for mut wire in [packets(&[&V2[..], &[&*line; 16]].concat()).await, packets(&[&*line; 16]).await] {
        let (mut server, mut ours) = tokio::io::duplex(1 << 20);
        let lines = packets(&[&*line; 16]).await;
        let endless = async {
            while server.write_all(&wire).await.is_ok() {
                wire.clone_from(&lines);
            }
        };
        let asking = async {
            let answer = ask(&mut ours, &main_branch()).await;
            drop(ours);
            answer
        };
        let ((), answer) = tokio::join!(endless, asking);
        assert!(matches!(answer, Err(ProbeError::TooMany)));
    }
}

#[test]
fn a_name_that_git_would_not_allow_is_never_kept() {
    let long = format!("refs/heads/{}", "x".repeat(1024));
    let bad = ["", "a b", "a\nb", "a\u{9b}b", "a..b", "/a", "a/", "a//b", "a/.b", "a.lock/b", "a?", "a@{b", &long];
    for name in bad {
        assert!(!is_valid(name), "{name:?}");
    }
    for name in ["HEAD", "refs/heads/main", "refs/tags/v1.0.0", "refs/heads/größe@x"] {
        assert!(is_valid(name), "{name:?}");
    }
}
