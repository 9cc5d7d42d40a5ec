//! "Did you mean …?": the known word that is nearest to a mistyped one.

/// The nearest of `known`, if it is near at all.
pub fn near<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let near = known.iter().map(|known| (edits(word, known), *known));
    near.filter(|(edits, _)| *edits <= 2).min().map(|(_, known)| known)
}

/// Levenshtein distance, a swap of two neighbours counting as one, in characters.
fn edits(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    // Keys are short; a huge "key" of a broken file is not worth a table of its size.
    if a.len().abs_diff(b.len()) > 2 {
        return usize::MAX;
    }
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let substitution = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = substitution.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edit_distance() {
        for (a, b, expected) in [
            ("branch", "branch", 0),
            ("brunch", "branch", 1),
            ("bracnh", "branch", 1),
            ("brnach", "branch", 1),
            ("tags", "tag", 1),
            ("", "ab", 2),
            ("identity_file", "identity", usize::MAX),
            ("tag", "ref", 3),
        ] {
            assert_eq!(edits(a, b), expected, "{a} {b}");
        }
    }
}
