//! How large an expression may be. Reading, checking and evaluation go down into it recursively, on the stack of the thread
//! that serves the request: what is too deep for that must be refused before it is read.

/// How many characters an expression may have (`parser/options.go` of cel-go).
const MOST_CHARACTERS: usize = 100_000;
/// How deep an expression may be (`parser/options.go`).
const MOST_LEVELS: usize = 250;

/// Refuses what is too long or too deep, in the words of cel-go.
///
/// Depth is estimated from above: each operator is taken to hold all that stands before it, up to a comma, `&&` or `||`
/// (chains of which are kept in balance) or to the bracket around it; each condition (`a ? b : c`) all that stands behind it,
/// up to a comma or to the bracket around it.
pub(super) fn check(source: &str) -> Result<(), String> {
    let length = source.chars().count();
    if length > MOST_CHARACTERS {
        return Err(format!(
            "expression code point size exceeds limit: size: {length}, limit {MOST_CHARACTERS}"
        ));
    }
    if levels(source.as_bytes()) > MOST_LEVELS {
        return Err(format!("expression recursion limit exceeded: {MOST_LEVELS}"));
    }
    Ok(())
}

/// How many operators and brackets are within each other at most.
fn levels(source: &[u8]) -> usize {
    // Operators and conditions of the present part, those of the parts around it, and the sum of these.
    let (mut here, mut conditions, mut around, mut outside) = (0_usize, 0_usize, Vec::new(), 0_usize);
    let mut most = 0;
    let mut at = 0;
    while let Some(&byte) = source.get(at) {
        let rest = &source[at..];
        match byte {
            b'"' | b'\'' => at += quoted(source, at),
            b'/' if rest.starts_with(b"//") => {
                at += rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len());
                continue;
            }
            b'&' | b'|' => here = 0,
            b',' => (here, conditions) = (0, 0),
            b'(' | b'[' | b'{' => {
                here += 1;
                outside += here + conditions;
                around.push((std::mem::take(&mut here), std::mem::take(&mut conditions)));
            }
            b')' | b']' | b'}' => {
                if let Some(before) = around.pop() {
                    (here, conditions) = before;
                    outside -= here + conditions;
                }
            }
            b'?' if !is_optional(source, at) => conditions += 1,
            b'.' | b'+' | b'-' | b'*' | b'/' | b'%' | b'!' | b'<' | b'>' | b'=' | b'?' => here += 1,
            b'i' if is_in(source, at) => here += 1,
            _ => {}
        }
        most = most.max(outside + here + conditions);
        at += 1;
    }
    most
}

/// Whether the `?` at `at` is one of optional values (`a.?b`, `a[?b]`, `[?a, ?b]`, `{?a: b}`) and no condition's.
fn is_optional(source: &[u8], at: usize) -> bool {
    let before = source[..at].iter().rev().find(|byte| !byte.is_ascii_whitespace());
    before.is_none_or(|byte| b".[{,".contains(byte))
}

/// Whether the operator `in` stands at `at`.
fn is_in(source: &[u8], at: usize) -> bool {
    let word = |index: usize| source.get(index).is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
    source[at..].starts_with(b"in") && !word(at + 2) && !(at > 0 && word(at - 1))
}

/// The length of the text in quotes that begins at `at`, without its last byte.
fn quoted(source: &[u8], at: usize) -> usize {
    let quote = source[at];
    let before = |back: usize| at.checked_sub(back).map(|index| source[index].to_ascii_lowercase());
    let raw = before(1) == Some(b'r') || (before(1) == Some(b'b') && before(2) == Some(b'r'));
    let triple = source[at..].starts_with(&[quote; 3]);
    let end: &[u8] = if triple { &[quote; 3] } else { &[quote] };
    let mut length = end.len();
    while at + length < source.len() {
        let rest = &source[at + length..];
        if rest[0] == b'\\' && !raw {
            length += 2;
        } else if rest.starts_with(end) {
            return length + end.len() - 1;
        } else {
            length += 1;
        }
    }
    source.len() - at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_counted_from_above() {
        for (source, expected) in [
            ("self", 0),
            ("a.b", 1),
            ("a in bin", 1),
            ("a && b && c || d", 0),
            ("a + b && c + d + e", 2),
            ("f(a + b, c + d + e)", 3),
            ("x.f(a).g(b)", 4),
            ("[[1], [[2]]]", 3),
            (r#"'((((((' + "[[[[" + r'\' + '\'((('"#, 3),
            ("'''a'((('b''' + b", 1),
            ("1 // + + + (((\n + 2", 1),
            ("'((((", 0),
            ("a)))) + b", 1),
            ("a ? b : c && d ? e : f || g ? h : i", 3),
            ("(a ? b : c) && (d ? e : f)", 2),
            ("f(a ? b : c, d ? e : f)", 2),
            ("a.?b.c() && a[?0].b && [?a, ?b] == c", 4),
        ] {
            assert_eq!(levels(source.as_bytes()), expected, "{source}");
        }
    }

    #[test]
    fn what_would_overflow_the_stack_is_refused() {
        let deep = "expression recursion limit exceeded: 250";
        for (head, unit) in [
            ("self", ".a"),
            ("self", "[0]"),
            ("1", " + 1"),
            ("'a'", "+'a'"),
            ("", "!"),
            ("", "("),
            ("", "a ? b : "),
            ("a", " in a"),
            // Within each other in spite of what stands between them.
            ("", "a ? b : c && "),
            ("", "a || b ? c : "),
            ("", "a && b ? c || d : e && "),
        ] {
            assert_eq!(check(&format!("{head}{}", unit.repeat(4_000))), Err(deep.into()), "{unit}");
        }
        let long = "expression code point size exceeds limit: size: 100001, limit 100000";
        assert_eq!(check(&"é".repeat(100_001)), Err(long.into()));
        assert_eq!(check(&"é".repeat(100_000)), Ok(()));
        assert_eq!(check(&"self.a.b.size() > 0 && ".repeat(4_000)), Ok(()));
    }
}
