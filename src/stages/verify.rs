//! Verify: whether the fetched commit may be published at all. Runs in the fetcher, before one byte
//! of it reaches the target's file system.

use anyhow::Result;
use git2::{ObjectType, Odb, Oid, Repository, Sort};
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use super::fetch::Fetched;
use super::links::{Links, MAX_TARGET};
use super::signature;
use super::stream::{OWN, is_own, is_shared};
use super::tree::{self, Kind, Leaves};
use crate::commit::Commit;
use crate::outcome::{Class, Failure};
use crate::processes::messages::{Rewind, Summary, SummaryCommit, Verified, Verify};
use crate::report::{excerpt, plural, printable};
use crate::sys::libgit2::LARGEST_OBJECT;

/// What a dry run lists at most; the totals say how many there are.
const LISTED: usize = 50;
/// How many submodules are warned of by name.
const NAMED: usize = 20;
/// Parts of all links together that are walked to see where they lead: a real tree has thousands.
const MOST_STEPS: usize = 2_000_000;

pub fn verify(repo: &Repository, fetched: &Fetched, request: &Verify) -> Result<Verified> {
    let odb = repo.odb()?;
    let tip = fetched.commit.oid()?;
    // Before anything is made of what the server sent.
    let signer = request.signers.as_ref().map(|signers| signature::judge(repo, fetched, signers)).transpose()?;
    let deployed = request.deployed.as_ref().map(Commit::oid).transpose()?;
    if let Some(deployed) = deployed {
        fast_forward(repo, &request.app, deployed, tip, request.rewind)?;
    }
    let whole = root(repo, tip)?;
    let published = published_tree(repo, tip, request.subdir.as_deref())?;
    let mut leaves = tree::leaves(&odb, published)?;
    let all = leaves.len();
    leaves.retain(|path, _| !is_shared(path, &request.shared));
    way_to_shared(&leaves, &request.shared)?;
    let mut verified = Verified { signer, ..inspect(&odb, &leaves, &request.shared)? };

    if leaves.len() < all {
        verified.warnings.push(
            "the repository has files under paths that `[target] shared` links elsewhere; they are not published"
                .into(),
        );
    }
    for own in OWN.iter().filter(|own| leaves.keys().any(|path| is_own(path) && path.starts_with(own.as_bytes()))) {
        verified.warnings.push(format!("`{own}` of the repository is not published: poller has its own"));
    }
    // A redeploy of the same commit is asked for by hand: the filter has no say then.
    if let Some(deployed) = deployed.filter(|&d| d != tip && !request.paths.is_empty()) {
        let changed = tree::changes(&odb, Some(root(repo, deployed)?), Some(whole))?;
        let interesting = patterns(&request.paths)?;
        verified.of_no_interest =
            !changed.keys().any(|path| interesting.is_match(String::from_utf8_lossy(path).as_ref()));
    }
    if request.summary {
        let before = deployed.map(|d| published_tree(repo, d, request.subdir.as_deref())).transpose();
        // The folder may be new: then every file in it is.
        verified.summary = Some(summary(repo, &odb, deployed, tip, before.unwrap_or(None), published)?);
    }
    Ok(verified)
}

fn root(repo: &Repository, commit: Oid) -> Result<Oid> {
    Ok(repo.find_commit(commit).map_err(|e| tree::missing("the commit", commit, e))?.tree_id())
}

/// The tree that is published: the commit's own, or a folder of it.
pub fn published_tree(repo: &Repository, commit: Oid, subdir: Option<&str>) -> Result<Oid> {
    let whole = root(repo, commit)?;
    match subdir {
        None => Ok(whole),
        Some(folder) => tree::subtree(&repo.odb()?, whole, folder)?.ok_or_else(|| {
            Failure::new(Class::Config, format!("the commit has no folder `{}`", printable(folder)))
                .help("check `[source] subdir`")
                .into()
        }),
    }
}

fn fast_forward(repo: &Repository, app: &str, deployed: Oid, tip: Oid, rewind: Rewind) -> Result<()> {
    if deployed == tip || rewind == Rewind::Allowed || descends(repo, tip, deployed)? {
        return Ok(());
    }
    Err(Failure::new(
        Class::Refused,
        format!("history was rewritten: {tip} does not descend from {deployed}, which is deployed"),
    )
    .help(format!("if that is meant, accept it once: poller --force {app}"))
    .help("or always: `allow_rewind = true` in `[verify]`")
    .into())
}

fn descends(repo: &Repository, tip: Oid, deployed: Oid) -> Result<bool> {
    repo.graph_descendant_of(tip, deployed).map_err(|e| tree::missing("the history of the commit", tip, e))
}

/// What leads to an entry of `shared` has to be a folder, for the link to it lies there.
fn way_to_shared(leaves: &Leaves, shared: &[String]) -> Result<()> {
    for entry in shared {
        let slashes = entry.trim_end_matches('/').match_indices('/').map(|(at, _)| &entry[..at]);
        for above in slashes {
            let Some(leaf) = leaves.get(above.as_bytes()).filter(|leaf| leaf.kind != Kind::Submodule) else { continue };
            let what = if leaf.kind == Kind::Link { "link" } else { "file" };
            return Err(Failure::new(
                Class::Refused,
                format!("`{above}` is a {what} in the commit, and `[target] shared` has `{entry}` in it"),
            )
            .help("make it a folder in the repository, or take the entry out of `[target] shared`")
            .into());
        }
    }
    Ok(())
}

/// Looks at every leaf: sizes, links, submodules. All blobs must be there.
fn inspect(odb: &Odb, leaves: &Leaves, shared: &[String]) -> Result<Verified> {
    let mut verified = Verified::default();
    let mut links = Links::with_shared(shared);
    let mut submodules = 0;
    for (path, leaf) in leaves {
        let shown = || printable(&String::from_utf8_lossy(path));
        if leaf.kind == Kind::Submodule {
            submodules += 1;
            if submodules <= NAMED {
                verified.warnings.push(format!("`{}` is a submodule, which is published as an empty folder", shown()));
            }
            continue;
        }
        let missing = |e| tree::missing(&format!("`{}`", shown()), leaf.id, e);
        let (size, kind) = odb.read_header(leaf.id).map_err(missing)?;
        if kind != ObjectType::Blob {
            return Err(Failure::new(Class::Refused, format!("`{}` is said to be a file and is a {kind}", shown()))
                .help("nothing was written; find out who pushed this commit and how")
                .into());
        }
        if size as u64 > LARGEST_OBJECT {
            return Err(Failure::new(
                Class::Refused,
                format!("`{}` has {size} bytes, more than the {LARGEST_OBJECT} that poller publishes", shown()),
            )
            .help("keep files of that size out of git")
            .into());
        }
        if leaf.kind == Kind::Link {
            // Measured before it is read: it may be a file of any size.
            if size > MAX_TARGET {
                return Err(Failure::new(
                    Class::Refused,
                    format!("the link `{}`: the target is longer than {MAX_TARGET} bytes, it has {size}", shown()),
                )
                .help("nothing was written; find out who pushed this commit and how")
                .into());
            }
            links.insert(path.clone(), odb.read(leaf.id).map_err(missing)?.data().to_vec());
        } else {
            verified.bytes += size as u64;
        }
        verified.files += 1;
    }
    if submodules > NAMED {
        verified.warnings.push(format!("and {} more", plural(submodules - NAMED, "submodule")));
    }
    let mut steps = MOST_STEPS;
    for (path, target) in links.iter() {
        if let Some(why) = links.escapes(path, &mut steps) {
            return Err(Failure::new(
                Class::Refused,
                format!("the link `{}` → `{}` leaves the published tree: {why}", excerpt(path), excerpt(target)),
            )
            .help("make it relative and keep it inside, or name it in `[target] shared`")
            .into());
        }
    }
    Ok(verified)
}

fn patterns(paths: &[String]) -> Result<GlobSet> {
    let mut set = GlobSetBuilder::new();
    for pattern in paths {
        // `*` stays within a folder, as in .gitignore; `**` does not.
        set.add(GlobBuilder::new(pattern).literal_separator(true).build()?);
    }
    Ok(set.build()?)
}

fn summary(
    repo: &Repository,
    odb: &Odb,
    deployed: Option<Oid>,
    tip: Oid,
    before: Option<Oid>,
    after: Oid,
) -> Result<Summary> {
    let mut walk = repo.revwalk()?;
    walk.set_sorting(Sort::TOPOLOGICAL | Sort::TIME)?;
    walk.push(tip)?;
    if let Some(deployed) = deployed {
        walk.hide(deployed)?;
    }
    let mut summary = Summary::default();
    for id in walk {
        let id = id.map_err(|e| tree::missing("the history of the commit", tip, e))?;
        summary.commits_total += 1;
        if summary.commits.len() < LISTED {
            // One in the middle that libgit2 cannot parse: only the tip's tree is published.
            let Ok(commit) = repo.find_commit(id) else {
                let (subject, author) = ("(cannot be read)".to_owned(), "nobody".to_owned());
                summary.commits.push(SummaryCommit { commit: id.into(), subject, author, time: 0 });
                continue;
            };
            summary.commits.push(SummaryCommit {
                commit: id.into(),
                subject: excerpt(commit.message_bytes().split(|&b| b == b'\n').next().unwrap_or_default()),
                author: excerpt(commit.author().name_bytes()),
                time: commit.time().seconds(),
            });
        }
    }
    for (path, change) in tree::changes(odb, before, Some(after))? {
        let letter = match change {
            (None, Some(_)) => 'A',
            (Some(_), None) => 'D',
            _ => 'M',
        };
        summary.files_total += 1;
        if summary.files.len() < LISTED {
            summary.files.push(format!("{letter} {}", printable(&String::from_utf8_lossy(&path))));
        }
    }
    Ok(summary)
}
