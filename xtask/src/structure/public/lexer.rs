//! Rust source as tokens: enough of the language to tell names from comments and literals.

/// A piece of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token<'a> {
    pub(super) kind: Kind,
    pub(super) text: &'a str,
    /// The first is 1.
    pub(super) line: usize,
}

/// What a token is. Numbers, characters, lifetimes and ordinary comments leave none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A keyword or a name; a raw one with its `r#`.
    Word,
    /// One character of punctuation.
    Mark,
    /// What is between the quotes of a string.
    Text,
    /// A documentation comment of one line, without its slashes.
    Doc,
}

impl Token<'_> {
    /// Whether this is that word or that character of punctuation.
    pub(super) fn is(&self, text: &str) -> bool {
        matches!(self.kind, Kind::Word | Kind::Mark) && self.text == text
    }
}

/// The tokens of a source. Of one that is no Rust, some tokens.
pub(super) fn tokens(source: &str) -> Vec<Token<'_>> {
    let mut lexer = Lexer { source, at: 0, line: 1, tokens: Vec::new() };
    while let Some(next) = lexer.peek() {
        lexer.step(next);
    }
    lexer.tokens
}

struct Lexer<'a> {
    source: &'a str,
    /// A byte offset.
    at: usize,
    line: usize,
    tokens: Vec<Token<'a>>,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.source[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    /// Goes on by some bytes and gives them.
    fn take(&mut self, length: usize) -> &'a str {
        let taken = &self.rest()[..length.min(self.rest().len())];
        self.at += taken.len();
        self.line += taken.matches('\n').count();
        taken
    }

    /// Goes on for as long as the characters are such, and gives them.
    fn take_while(&mut self, such: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest().find(|c| !such(c)).unwrap_or(self.rest().len());
        self.take(end)
    }

    fn push(&mut self, kind: Kind, text: &'a str, line: usize) {
        self.tokens.push(Token { kind, text, line });
    }

    /// Reads what begins with this character.
    fn step(&mut self, next: char) {
        let line = self.line;
        if self.rest().starts_with("//") {
            let comment = self.take_while(|c| c != '\n');
            // Four slashes begin an ordinary comment again.
            let doc = comment.strip_prefix("///").filter(|doc| !doc.starts_with('/'));
            if let Some(doc) = doc.or_else(|| comment.strip_prefix("//!")) {
                self.push(Kind::Doc, doc, line);
            }
        } else if self.rest().starts_with("/*") {
            self.block_comment();
        } else if next == '"' {
            self.string(line);
        } else if next == '\'' {
            self.quote();
        } else if next.is_ascii_digit() {
            self.take_while(is_of_word);
        } else if is_of_word(next) {
            self.word(line);
        } else {
            let mark = self.take(next.len_utf8());
            if !next.is_whitespace() {
                self.push(Kind::Mark, mark, line);
            }
        }
    }

    /// Block comments nest.
    fn block_comment(&mut self) {
        let mut depth = 0;
        while !self.rest().is_empty() {
            if self.rest().starts_with("/*") {
                depth += 1;
                self.take(2);
            } else if self.rest().starts_with("*/") {
                depth -= 1;
                self.take(2);
                if depth == 0 {
                    return;
                }
            } else {
                self.take(self.peek().map_or(0, char::len_utf8));
            }
        }
    }

    /// A string with escapes, from its first quote.
    fn string(&mut self, line: usize) {
        self.take(1);
        let mut escaped = false;
        let inside = self.rest().find(|c| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        let text = self.take(inside.unwrap_or(self.rest().len()));
        self.push(Kind::Text, text, line);
        self.take(1);
    }

    /// A string without escapes, from its first `#` or quote.
    fn raw_string(&mut self, line: usize) {
        let hashes = self.take_while(|c| c == '#');
        self.take(1);
        let end = format!("\"{hashes}");
        let text = self.take(self.rest().find(&end).unwrap_or(self.rest().len()));
        self.push(Kind::Text, text, line);
        self.take(end.len());
    }

    /// A character or a lifetime.
    fn quote(&mut self) {
        self.take(1);
        let mut following = self.rest().chars();
        let (first, second) = (following.next(), following.next());
        if first == Some('\\') {
            // The escaped character may be a quote itself.
            self.take(1);
            self.take(self.peek().map_or(0, char::len_utf8));
            self.take_while(|c| c != '\'');
            self.take(1);
        } else if second == Some('\'') {
            self.take(first.map_or(0, char::len_utf8) + 1);
        } else {
            self.take_while(is_of_word);
        }
    }

    /// A word, or a literal with a prefix.
    fn word(&mut self, line: usize) {
        let start = self.at;
        let word = self.take_while(is_of_word);
        let rest = self.rest();
        match word {
            "r" | "br" | "cr" if rest.trim_start_matches('#').starts_with('"') => self.raw_string(line),
            "b" | "c" if rest.starts_with('"') => self.string(line),
            "b" if rest.starts_with('\'') => self.quote(),
            "r" if rest.starts_with('#') => {
                self.take(1);
                self.take_while(is_of_word);
                self.push(Kind::Word, &self.source[start..self.at], line);
            }
            _ => self.push(Kind::Word, word, line),
        }
    }
}

/// Whether a character may be in a name.
pub(super) fn is_of_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(source: &str) -> Vec<&str> {
        tokens(source).iter().map(|token| token.text).collect()
    }

    #[test]
    fn names_and_marks_are_tokens_and_numbers_are_not() {
        assert_eq!(
            texts("a.b(0x1f, 1u8, 2.max(c))"),
            ["a", ".", "b", "(", ",", ",", ".", "max", "(", "c", ")", ")"]
        );
        assert_eq!(texts("r#type: u8"), ["r#type", ":", "u8"]);
    }

    #[test]
    fn comments_hide_names_and_documentation_is_kept() {
        assert_eq!(texts("a // b\n//// c\n/* d /* e */ f */ g"), ["a", "g"]);
        let doc = tokens("//! of the file\nx\n/// of the item");
        assert_eq!((doc[0].kind, doc[0].text, doc[0].line), (Kind::Doc, " of the file", 1));
        assert_eq!((doc[2].kind, doc[2].text, doc[2].line), (Kind::Doc, " of the item", 3));
    }

    #[test]
    fn literals_end_where_they_end() {
        assert_eq!(texts(r#"f("a \" b", c)"#), ["f", "(", r#"a \" b"#, ",", "c", ")"]);
        assert_eq!(texts(r#"f("a \\", c)"#), ["f", "(", r"a \\", ",", "c", ")"]);
        assert_eq!(texts("f(r#\"a \" b\"#, c)"), ["f", "(", "a \" b", ",", "c", ")"]);
        assert_eq!(texts("f(b\"a\", br\"b\\\", c)"), ["f", "(", "a", ",", "b\\", ",", "c", ")"]);
        assert_eq!(
            texts(r"f('a', '\'', '\u{1f600}', 'é', b'x', c)"),
            ["f", "(", ",", ",", ",", ",", ",", "c", ")"]
        );
        assert_eq!(texts("x: &'static str"), ["x", ":", "&", "str"]);
    }

    #[test]
    fn lines_are_counted_in_all_that_has_several() {
        let source = "/* 1\n2 */ a\n\"3\n4\" b\nr\"5\n6\" c";
        let words = tokens(source).into_iter().filter(|token| token.kind == Kind::Word);
        assert_eq!(
            words.map(|word| (word.text, word.line)).collect::<Vec<_>>(),
            [("a", 2), ("b", 4), ("c", 6)]
        );
    }
}
