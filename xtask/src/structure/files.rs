//! How long files may be.

use super::Finding;
use super::tree::Source;

/// The most lines that a Rust file may have.
const MAX_LINES: usize = 800;

/// The files that are too long.
pub(super) fn check(sources: &[Source]) -> Vec<Finding> {
    let too_long = sources.iter().filter_map(|source| {
        let lines = source.text.lines().count();
        (lines > MAX_LINES).then(|| Finding {
            file: source.path.clone(),
            line: MAX_LINES + 1,
            message: format!(
                "the file has {lines} lines; split it by subject into files of at most {MAX_LINES}"
            ),
        })
    });
    too_long.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_may_have_800_lines_and_not_one_more() {
        let source = |path: &str, lines| Source { path: path.into(), text: "fn f() {}\n".repeat(lines) };
        let findings = check(&[source("short.rs", 800), source("long.rs", 801)]);
        let found: Vec<String> = findings.iter().map(Finding::to_string).collect();
        assert_eq!(
            found,
            ["long.rs:801: the file has 801 lines; split it by subject into files of at most 800"]
        );
    }
}
