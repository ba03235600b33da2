//! The names that a source mentions.

use super::lexer::{Kind, Token, is_of_word};
use std::collections::HashSet;

/// The names in code, without comments. Of a string, those that a format may capture (`{NAME}`) and those of a path
/// (`module::function`, as serde's attributes have them) are names too.
pub(super) fn in_code<'a>(tokens: &[Token<'a>]) -> HashSet<&'a str> {
    let mut names = HashSet::new();
    for token in tokens {
        match token.kind {
            Kind::Word => {
                names.insert(token.text.trim_start_matches("r#"));
            }
            Kind::Text => names.extend(in_string(token.text)),
            Kind::Mark | Kind::Doc => {}
        }
    }
    names
}

fn in_string(text: &str) -> Vec<&str> {
    if text.contains("::") && text.chars().all(|c| c == ':' || is_of_word(c)) {
        return text.split("::").collect();
    }
    let captured =
        text.split('{').skip(1).map(|rest| &rest[..rest.find(|c| !is_of_word(c)).unwrap_or(rest.len())]);
    captured.filter(|name| !name.is_empty()).collect()
}

/// The code of the examples in documentation comments, which is compiled as a crate of its own. Examples in other
/// languages are left out.
pub(super) fn examples(tokens: &[Token<'_>]) -> String {
    let mut code = String::new();
    let (mut inside, mut is_rust, mut last_line) = (false, false, 0);
    for doc in tokens.iter().filter(|token| token.kind == Kind::Doc) {
        if doc.line > last_line + 1 {
            inside = false;
        }
        last_line = doc.line;
        if let Some(language) = doc.text.trim_start().strip_prefix("```") {
            inside = !inside;
            is_rust = is_rust_example(language);
        } else if inside && is_rust {
            code.push_str(doc.text);
            code.push('\n');
        }
    }
    code
}

/// Whether rustdoc takes a block with these words after its fence for Rust.
fn is_rust_example(language: &str) -> bool {
    const WORDS: [&str; 5] = ["rust", "no_run", "should_panic", "ignore", "compile_fail"];
    language.split(',').all(|word| {
        let word = word.trim();
        word.is_empty() || WORDS.contains(&word) || word.starts_with("edition")
    })
}

#[cfg(test)]
mod tests {
    use super::super::lexer::tokens;
    use super::*;

    #[test]
    fn names_are_in_code_in_formats_and_in_paths() {
        let tokens = tokens(
            "a(\"not these {CAPTURED} {shown:?} {}\"); // nor this\n#[serde(with = \"path::to\")] r#b",
        );
        let mut names: Vec<&str> = in_code(&tokens).into_iter().collect();
        names.sort_unstable();
        assert_eq!(names, ["CAPTURED", "a", "b", "path", "serde", "shown", "to", "with"]);
    }

    #[test]
    fn examples_are_the_rust_in_the_documentation() {
        let source = "/// Text.\n/// ```\n/// one();\n/// ```\n/// More.\n/// ```text\n/// two();\n/// ```\nfn f() {}\n\
                      //! ```no_run\n//! three();\n//! ```\n/// ```\n/// left open\nfn g() {}\n/// no example";
        assert_eq!(examples(&tokens(source)), " one();\n three();\n left open\n");
    }
}
