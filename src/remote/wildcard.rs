//! The patterns of known_hosts and of `tag = "v*"`: `*` and `?`, nothing else.

/// Does `pattern`, with `*` for any run of characters and `?` for any one, fit all
/// of `text`? Only the last `*` is ever tried again, which is enough, and keeps a
/// pattern from taking exponential time.
pub fn fits(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    let (mut at, mut seen) = (0, 0);
    // Where the pattern goes on after the last `*`, and where that one's run ends.
    let mut star = None;
    loop {
        match (pattern.get(at), text.get(seen)) {
            (Some('*'), _) => {
                at += 1;
                star = Some((at, seen));
            }
            (None, None) => return true,
            (Some(wanted), Some(got)) if *wanted == '?' || wanted == got => {
                at += 1;
                seen += 1;
            }
            _ => match star {
                Some((after, end)) if end < text.len() => {
                    (at, seen) = (after, end + 1);
                    star = Some((at, seen));
                }
                _ => return false,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn a_pattern_fits_all_of_a_text_or_not_at_all() {
        let fitting = [("", ""), ("*", ""), ("a*b*c", "axxbxbxc"), ("?ö?", "aöb"), ("**", "x")];
        for (pattern, text) in fitting {
            assert!(fits(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("", "a"), ("?", ""), ("a*b", "abc"), ("a", "A"), ("[a]", "a")] {
            assert!(!fits(pattern, text), "{pattern} {text}");
        }
        // Exponential if every `*` were tried again.
        assert!(!fits(&"a*".repeat(40), &"a".repeat(39)));
        assert!(!fits(&format!("{}b", "a*".repeat(40)), &"a".repeat(4000)));
    }
}
