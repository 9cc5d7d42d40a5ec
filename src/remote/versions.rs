//! Which of many tags is the highest version. Pure: names in, one of them out.

use semver::{BuildMetadata, Prerelease, Version};

use super::ls_refs::{Advertised, TAGS};
use super::wildcard;

/// The tag with the highest version of those that fit `pattern`; names that are
/// no version are passed over. What stands before the version in the pattern
/// (`v`, `release-`) is not compared. A pre-release counts only where the pattern
/// has a '-' after that, as in `v*-rc*`.
pub fn highest<'a>(pattern: &str, refs: &'a [Advertised]) -> Option<&'a Advertised> {
    let before = before_version(literal(pattern));
    let (_, of_version) = pattern.split_at(before.len());
    let tags = refs.iter().filter_map(|one| {
        let tag = one.name.strip_prefix(TAGS)?;
        let tag = Some(tag).filter(|tag| wildcard::fits(pattern, tag))?;
        let version = version(tag.strip_prefix(before)?)?;
        let wanted = version.pre.is_empty() || of_version.contains('-');
        wanted.then_some((version, one))
    });
    // By name as well, so that 1.2 beside 1.2.0 does not depend on the order.
    tags.max_by(|(a, one), (b, two)| a.cmp(b).then_with(|| one.name.cmp(&two.name))).map(|(_, one)| one)
}

/// The part of a pattern before its first wildcard.
pub(super) fn literal(pattern: &str) -> &str {
    &pattern[..pattern.find(['*', '?']).unwrap_or(pattern.len())]
}

/// Cuts a version's beginning off: of `v1.` (the pattern is `v1.*`) the `v` is
/// left, since v1.10.0 is to be compared as 1.10.0. A digit within a word, as in
/// `app2-`, begins no version.
fn before_version(literal: &str) -> &str {
    let starts_version = |at: &usize| {
        let (before, rest) = literal.split_at(*at);
        let word = before.strip_suffix('v').unwrap_or(before);
        let numbers = rest.split('-').next().unwrap_or(rest);
        rest.starts_with(|c: char| c.is_ascii_digit())
            && numbers.chars().all(|c| c == '.' || c.is_ascii_digit())
            && !word.ends_with(|c: char| c == '.' || c.is_alphanumeric())
    };
    let mut starts = literal.char_indices().map(|(at, _)| at);
    &literal[..starts.find(starts_version).unwrap_or(literal.len())]
}

/// Semantic versions, a little wider: one to three numbers, zeros before them
/// (2024.01.05), a `v` in front.
fn version(text: &str) -> Option<Version> {
    let text = text.strip_prefix('v').unwrap_or(text);
    let (text, build) = text.split_once('+').unwrap_or((text, ""));
    let (numbers, pre) = text.split_once('-').unwrap_or((text, ""));
    if numbers.len() < text.len() && pre.is_empty() {
        return None;
    }
    let mut parts = [0; 3];
    for (at, number) in numbers.split('.').enumerate() {
        // `parse` alone would take "+1".
        let digits = number.bytes().all(|byte| byte.is_ascii_digit());
        *parts.get_mut(at)? = number.parse().ok().filter(|_| digits)?;
    }
    let [major, minor, patch] = parts;
    Some(Version { major, minor, patch, pre: Prerelease::new(pre).ok()?, build: BuildMetadata::new(build).ok()? })
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_version_wins() {
        // (pattern, tags, the highest)
        let table = [
            ("v*", "v1.2.0 v1.10.0 v1.9.9", "v1.10.0"),
            ("v*", "v1.2 v1 v1.1.9", "v1.2"),
            ("*", "v1.2.3 1.3.0 vendor x", "1.3.0"),
            ("v*", "v2.0.0-rc1 v1.0.0", "v1.0.0"),
            ("v*", "v2.0.0-rc1", ""),
            ("v*-rc*", "v2.0.0-rc1 v2.0.0-rc.2 v1.0.0-rc9", "v2.0.0-rc1"),
            ("v2.0.0-*", "v2.0.0-rc1 v2.0.0-beta", "v2.0.0-rc1"),
            ("v*", "v1.0.0+b1 v1.0.0+b2", "v1.0.0+b2"),
            ("v*", "v1.2 v1.2.0", "v1.2.0"),
            ("v*", "v1.2.3.4 v1. v.1 v+1 v1.x v1- v v99999999999999999999", ""),
            ("release-*", "release-1.2 release-v1.3 release-x", "release-v1.3"),
            ("release-*", "release-2.0.0-rc1 release-1.9", "release-1.9"),
            ("release-*", "release-2.0.0-rc1", ""),
            ("release-*-rc*", "release-2.0.0-rc1 release-1.9", "release-2.0.0-rc1"),
            ("release-2.0.0-rc1", "release-2.0.0-rc1", "release-2.0.0-rc1"),
            ("v2.0.0-rc1", "v2.0.0-rc1", "v2.0.0-rc1"),
            ("v1.*", "v1.2.3 v1.10 v2.0.0 v1.x", "v1.10"),
            ("v1*", "v1.2.3 v10.0.0 v2.0.0", "v10.0.0"),
            ("app2-*", "app2-1.2 app2-1.10", "app2-1.10"),
            ("app-v1.*", "app-v1.2 app-v1.10", "app-v1.10"),
            ("2024.*", "2024.01.05 2024.1.4 2024.12.01", "2024.12.01"),
            ("v?.0", "v1.0 v2.0 v10.0", "v2.0"),
            ("v1.0.0", "v1.0.0 v1.0.1", "v1.0.0"),
            ("v*", "", ""),
        ];
        for (pattern, tags, expected) in table {
            let refs = |prefix: &str| -> Vec<Advertised> {
                let one = |tag| Advertised { name: format!("{prefix}{tag}"), id: [1; 20], peeled: None };
                tags.split_whitespace().map(one).collect()
            };
            let name = |one: &Advertised| one.name.replace(TAGS, "");
            let refs_found = refs(TAGS);
            let found = highest(pattern, &refs_found).map(name).unwrap_or_default();
            assert_eq!(found, expected, "{pattern} of {tags}");
            assert_eq!(highest(pattern, &refs("refs/heads/")), None);
        }
    }
}
