//! Probe: from what a server advertised to the tip of the one ref that an app follows.

use crate::commit::Commit;
use crate::config::Follow;
use crate::outcome::{Class, Failure};
use crate::processes::messages::Tip;
use crate::remote::ls_refs::{Advertised, Answer, ProbeError, Wanted, highest};

/// What to ask the server for.
pub fn wanted(follow: &Follow) -> Wanted {
    match follow {
        Follow::Branch(name) => Wanted::Ref(format!("refs/heads/{name}")),
        Follow::Tag(pattern) => Wanted::Tags { pattern: pattern.clone() },
        Follow::Ref(name) => Wanted::Ref(name.clone()),
    }
}

/// The tip, or why there is none. A server without the ref is never "unchanged".
pub fn tip(url: &str, follow: &Follow, refs: &[Advertised], empty: bool) -> Result<Tip, Failure> {
    let found = match follow {
        Follow::Tag(pattern) => highest(pattern, refs),
        Follow::Branch(_) | Follow::Ref(_) => {
            let Wanted::Ref(name) = wanted(follow) else {
                return Err(Failure::new(Class::Bug, "a ref without a name"));
            };
            refs.iter().find(|r| r.name == name)
        }
    };
    let Some(found) = found else {
        let (what, help) = match follow {
            Follow::Branch(name) => (format!("no branch `{name}`"), format!("push it: git push {url} HEAD:{name}")),
            Follow::Tag(pattern) => (
                format!("no tag that matches `{pattern}` and is a version"),
                "tag a commit, for example v1.0.0, and push the tag".to_owned(),
            ),
            Follow::Ref(name) => (format!("no ref `{name}`"), format!("push it: git push {url} HEAD:{name}")),
        };
        let empty = if empty { "the repository is empty: " } else { "" };
        return Err(Failure::new(Class::Unreachable, format!("{url}: {empty}there is {what}"))
            .help(help)
            .help("or name another one in `[source]`"));
    };
    Ok(Tip {
        reference: found.name.clone(),
        object: Commit::from_bytes(&found.id),
        commit: Commit::from_bytes(found.peeled.as_ref().unwrap_or(&found.id)),
    })
}

/// The tip in a server's answer.
pub fn tip_of_answer(url: &str, follow: &Follow, answer: &Answer) -> Result<Tip, Failure> {
    tip(url, follow, &answer.refs, answer.empty)
}

/// A failed conversation, with what the server complained about.
pub fn failure(url: &str, error: ProbeError, complaint: Option<String>) -> Failure {
    let later = "nothing was changed; the next poll tries again";
    match (error, complaint) {
        (ProbeError::NotGit { seen }, Some(said)) if seen.is_empty() => {
            Failure::new(Class::Unreachable, format!("{url}: the server said: {said}"))
                .help("check the path in `[source] url`, and that the deploy key may read the repository")
        }
        (ProbeError::NotGit { seen }, _) => {
            let seen = if seen.is_empty() {
                "it closed the connection without a word".to_owned()
            } else {
                format!("it said: {seen}")
            };
            Failure::new(Class::Protocol, format!("{url}: this is not a git server; {seen}"))
                .help("does the account's shell or .bashrc print something, or is git not installed there?")
        }
        (ProbeError::Remote(said), _) => Failure::new(Class::Unreachable, format!("{url}: the server said: {said}"))
            .help("check the path in `[source] url`, and that the deploy key may read the repository"),
        (ProbeError::Unsupported(what), _) => Failure::new(Class::Protocol, format!("{url}: {what}")),
        (ProbeError::TooMany, _) => {
            Failure::new(Class::Protocol, format!("{url}: the server lists more refs than poller reads"))
                .help("is it the right repository? a narrower `tag` in `[source]` takes less")
        }
        (ProbeError::Packet(e), said) => {
            let said = said.map(|s| format!(" (the server said: {s})")).unwrap_or_default();
            Failure::new(Class::Unreachable, format!("{url}: the conversation broke off: {e}{said}")).help(later)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advertised(name: &str, id: u8, peeled: Option<u8>) -> Advertised {
        Advertised { name: name.into(), id: [id; 20], peeled: peeled.map(|p| [p; 20]) }
    }

    #[test]
    fn a_branch_is_found_by_its_whole_name_and_a_tag_is_peeled() {
        let refs = [
            advertised("refs/heads/main2", 1, None),
            advertised("refs/heads/main", 2, None),
            advertised("refs/tags/v1.2.0", 3, Some(4)),
            advertised("refs/tags/v1.10.0", 5, Some(6)),
        ];
        let main = tip("u", &Follow::Branch("main".into()), &refs, false).unwrap();
        assert_eq!(main.commit, Commit::from_bytes(&[2; 20]));
        let tag = tip("u", &Follow::Tag("v*".into()), &refs, false).unwrap();
        assert_eq!((tag.reference.as_str(), tag.commit), ("refs/tags/v1.10.0", Commit::from_bytes(&[6; 20])));
        assert_eq!(tag.object, Commit::from_bytes(&[5; 20]));
    }

    #[test]
    fn what_is_missing_is_a_failure_that_names_it() {
        let missing = tip("u", &Follow::Branch("main".into()), &[], true).unwrap_err();
        assert_eq!(missing.class, Class::Unreachable);
        assert!(missing.message.contains("empty") && missing.message.contains("`main`"), "{missing}");
    }
}
