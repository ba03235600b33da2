//! Go's regular expressions (RE2 syntax, `regexp/syntax/parse.go`) on top of the `regex` crate: what Go reads
//! differently is rewritten, what Go refuses is refused with Go's error code.

use crate::error::{RegexpError, RegexpProblem};
use regex::{Regex, RegexBuilder};

/// The largest repeat count that Go accepts.
const MAX_REPEAT: u32 = 1000;
/// The most memory a compiled expression may take, in bytes.
const SIZE_LIMIT: usize = 10 << 20;

/// Compiles an expression in Go's syntax.
///
/// # Errors
/// What `regexp.Compile` would refuse, or what needs more than [`SIZE_LIMIT`].
pub(crate) fn compile(source: &str) -> Result<Regex, RegexpError> {
    let translated =
        Translator { chars: source.chars().collect(), at: 0, out: String::new(), source }.run()?;
    RegexBuilder::new(&translated).size_limit(SIZE_LIMIT).octal(true).build().map_err(|error| {
        let problem = match error {
            regex::Error::CompiledTooBig(_) => RegexpProblem::Large,
            _ => RegexpProblem::InvalidSyntax,
        };
        RegexpError { problem, part: source.into() }
    })
}

fn refuse<T>(problem: RegexpProblem, part: &str) -> Result<T, RegexpError> {
    Err(RegexpError { problem, part: part.into() })
}

struct Translator<'a> {
    chars: Vec<char>,
    at: usize,
    out: String,
    source: &'a str,
}

impl Translator<'_> {
    fn rest(&self, from: usize) -> String {
        self.chars[from.min(self.chars.len())..].iter().collect()
    }
    fn slice(&self, from: usize, to: usize) -> String {
        self.chars[from..to.min(self.chars.len())].iter().collect()
    }
    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn run(mut self) -> Result<String, RegexpError> {
        let mut depth = 0usize;
        // Where the operator that may follow would repeat something, and where the last repetition began.
        let mut operand = false;
        let mut repeated: Option<usize> = None;
        while let Some(c) = self.peek(0) {
            let begin = self.at;
            let repetition = match c {
                '*' | '+' | '?' => {
                    self.at += 1;
                    true
                }
                '{' => self.counted()?,
                _ => false,
            };
            if repetition {
                if !operand {
                    return refuse(RegexpProblem::MissingRepeatArgument, &self.slice(begin, self.at));
                }
                if self.peek(0) == Some('?') {
                    self.at += 1;
                }
                if let Some(first) = repeated {
                    return refuse(RegexpProblem::InvalidRepeatOp, &self.slice(first, self.at));
                }
                repeated = Some(begin);
                let operator = self.slice(begin, self.at);
                self.out.push_str(&operator);
                continue;
            }
            repeated = None;
            operand = true;
            match c {
                '(' => {
                    self.group()?;
                    depth += 1;
                    operand = false;
                }
                ')' => {
                    if depth == 0 {
                        return refuse(RegexpProblem::UnexpectedParen, self.source);
                    }
                    depth -= 1;
                    self.keep();
                }
                '|' => {
                    self.keep();
                    operand = false;
                }
                '[' => self.class()?,
                '\\' => self.escape(false)?,
                '{' | '}' | ']' => {
                    self.out.push('\\');
                    self.keep();
                }
                _ => self.keep(),
            }
        }
        if depth > 0 {
            return refuse(RegexpProblem::MissingParen, self.source);
        }
        Ok(self.out)
    }

    fn keep(&mut self) {
        if let Some(c) = self.peek(0) {
            self.out.push(c);
        }
        self.at += 1;
    }

    /// At `{`: steps over `{n}`, `{n,}`, `{n,m}`; anything else is the character itself.
    fn counted(&mut self) -> Result<bool, RegexpError> {
        let begin = self.at;
        let Some(length) = self.chars[begin..].iter().position(|c| *c == '}') else { return Ok(false) };
        let body = self.slice(begin + 1, begin + length);
        let (low, high) = body.split_once(',').unwrap_or((&body, &body));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if !digits(low) || !(high.is_empty() || digits(high)) {
            return Ok(false);
        }
        let number = |text: &str| text.parse::<u32>().ok().filter(|n| *n <= MAX_REPEAT);
        let whole = self.slice(begin, begin + length + 1);
        let (Some(low), Some(high)) =
            (number(low), if high.is_empty() { Some(MAX_REPEAT) } else { number(high) })
        else {
            return refuse(RegexpProblem::InvalidRepeatSize, &whole);
        };
        if low > high {
            return refuse(RegexpProblem::InvalidRepeatSize, &whole);
        }
        self.at = begin + length + 1;
        Ok(true)
    }

    /// At `(`: a group, with or without a name or flags.
    fn group(&mut self) -> Result<(), RegexpError> {
        let begin = self.at;
        if self.peek(1) != Some('?') {
            self.keep();
            return Ok(());
        }
        let named = match (self.peek(2), self.peek(3)) {
            (Some('P'), Some('<')) => Some(4),
            (Some('<'), Some(c)) if c != '=' && c != '!' => Some(3),
            _ => None,
        };
        if let Some(skip) = named {
            let Some(end) = self.chars[begin..].iter().position(|c| *c == '>') else {
                return refuse(RegexpProblem::InvalidNamedCapture, &self.rest(begin));
            };
            let name = self.slice(begin + skip, begin + end);
            if name.is_empty() || !name.chars().all(|c| c == '_' || c.is_alphanumeric()) {
                return refuse(RegexpProblem::InvalidNamedCapture, &self.slice(begin, begin + end + 1));
            }
            // Names only matter to captures, which nobody reads: leaving them out frees us of crate limits.
            self.out.push('(');
            self.at = begin + end + 1;
            return Ok(());
        }
        let mut end = begin + 2;
        while let Some(c) = self.chars.get(end) {
            match c {
                'i' | 'm' | 's' | 'U' | '-' => end += 1,
                ':' | ')' if end > begin + 2 || *c == ':' => {
                    let flags = self.slice(begin, end + 1);
                    self.out.push_str(&flags);
                    // `(?i)` opens no group: the caller counts one, so close it by an empty one.
                    if *c == ')' {
                        self.out.push('(');
                        self.chars.insert(end + 1, ')');
                    }
                    self.at = end + 1;
                    return Ok(());
                }
                _ => break,
            }
        }
        if end >= self.chars.len() {
            return refuse(RegexpProblem::MissingParen, self.source);
        }
        refuse(RegexpProblem::InvalidPerlOp, &self.slice(begin, end + 1))
    }

    /// At `[`: a class. Inside it Go knows no set operations and no nested classes.
    fn class(&mut self) -> Result<(), RegexpError> {
        let begin = self.at;
        self.keep();
        if self.peek(0) == Some('^') {
            self.keep();
        }
        let mut first = true;
        loop {
            let Some(c) = self.peek(0) else {
                return refuse(RegexpProblem::MissingBracket, &self.rest(begin));
            };
            match c {
                ']' if !first => {
                    self.keep();
                    return Ok(());
                }
                '[' if self.peek(1) == Some(':') => {
                    let tail = self.rest(self.at);
                    if let Some(end) = tail.find(":]") {
                        let name = &tail[..end + 2];
                        self.out.push_str(name);
                        self.at += name.chars().count();
                    } else {
                        self.out.push_str("\\[");
                        self.at += 1;
                    }
                }
                '\\' => self.escape(true)?,
                '[' | ']' | '&' | '~' | '^' => {
                    self.out.push('\\');
                    self.keep();
                }
                '-' => {
                    // A dash is itself at either end, and a range in between.
                    let edge = first || self.peek(1) == Some(']');
                    if edge {
                        self.out.push('\\');
                    }
                    self.keep();
                    if !edge && self.peek(0) == Some('-') {
                        self.out.push('\\');
                        self.keep();
                    }
                }
                low => {
                    if self.peek(1) == Some('-')
                        && let Some(high) = self.peek(2)
                        && high != ']'
                        && high != '\\'
                        && high < low
                    {
                        return refuse(RegexpProblem::InvalidCharRange, &self.slice(self.at, self.at + 3));
                    }
                    self.keep();
                }
            }
            first = false;
        }
    }

    /// At a backslash. Go's Perl classes are ASCII only.
    fn escape(&mut self, in_class: bool) -> Result<(), RegexpError> {
        let begin = self.at;
        let Some(c) = self.peek(1) else { return refuse(RegexpProblem::TrailingBackslash, "") };
        let ascii = |class: &str, negated: bool| match (in_class, negated) {
            (true, false) => class.to_string(),
            (_, true) => format!("[^{class}]"),
            (false, false) => format!("[{class}]"),
        };
        let replacement = match c {
            'd' => ascii("0-9", false),
            'D' => ascii("0-9", true),
            'w' => ascii("0-9A-Za-z_", false),
            'W' => ascii("0-9A-Za-z_", true),
            's' => ascii("\\t\\n\\x0C\\r ", false),
            'S' => ascii("\\t\\n\\x0C\\r ", true),
            'b' if !in_class => "(?-u:\\b)".into(),
            'B' if !in_class => "(?-u:\\B)".into(),
            'A' | 'z' if !in_class => format!("\\{c}"),
            'a' => "\\x07".into(),
            'f' => "\\x0C".into(),
            'v' => "\\x0B".into(),
            't' | 'n' | 'r' => format!("\\{c}"),
            'Q' if !in_class => {
                let tail = self.rest(begin + 2);
                let literal = tail.split("\\E").next().unwrap_or_default().to_string();
                self.out.push_str(&regex::escape(&literal));
                self.at = begin + 2 + literal.chars().count();
                if self.rest(self.at).starts_with("\\E") {
                    self.at += 2;
                }
                return Ok(());
            }
            'p' | 'P' | 'x' => return self.braced(),
            '0'..='7' => {
                let digits: String =
                    self.chars[begin + 1..].iter().take(3).take_while(|d| ('0'..='7').contains(*d)).collect();
                if c != '0' && digits.len() == 1 {
                    return refuse(RegexpProblem::InvalidEscape, &self.slice(begin, begin + 2));
                }
                self.at = begin + 1 + digits.len();
                let code = u32::from_str_radix(&digits, 8).unwrap_or_default();
                self.out.push_str(&format!("\\x{{{code:x}}}"));
                return Ok(());
            }
            c if c.is_ascii_punctuation() => {
                if c == '_' {
                    "_".into()
                } else {
                    format!("\\{c}")
                }
            }
            _ => return refuse(RegexpProblem::InvalidEscape, &self.slice(begin, begin + 2)),
        };
        self.out.push_str(&replacement);
        self.at = begin + 2;
        Ok(())
    }

    /// At `\p`, `\P` or `\x`: one letter, two hexadecimal digits, or something in braces.
    fn braced(&mut self) -> Result<(), RegexpError> {
        let begin = self.at;
        let unicode = self.peek(1) != Some('x');
        let length = if self.peek(2) == Some('{') {
            match self.chars[begin..].iter().position(|c| *c == '}') {
                Some(end) => end + 1,
                None if unicode => return refuse(RegexpProblem::InvalidCharRange, &self.rest(begin)),
                None => return refuse(RegexpProblem::InvalidEscape, &self.rest(begin)),
            }
        } else if unicode {
            3
        } else {
            4
        };
        if begin + length > self.chars.len() {
            return refuse(RegexpProblem::InvalidEscape, &self.rest(begin));
        }
        let text = self.slice(begin, begin + length);
        self.out.push_str(&text);
        self.at = begin + length;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::compile;
    use crate::go::Words;

    #[test]
    fn matches_as_go_does() {
        for (pattern, text, matches) in [
            ("^[A-Z]{3}$", "ABC", true),
            ("^[A-Z]{3}$", "ABC\n", false),
            (r"^\d+$", "٣", false),
            (r"^\w+$", "é", false),
            (r"^[\w.-]+$", "a.b-c_1", true),
            ("^[a[b]$", "[", true),
            ("^[]a]$", "]", true),
            ("^[a&&b]+$", "&", true),
            ("a{,5}", "a{,5}", true),
            ("^(?i)abc$", "ABC", true),
            (r"^\Qa.b\E$", "a.b", true),
            (r"^\Qa.b\E$", "axb", false),
            (
                "^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$",
                "example.com/Good",
                true,
            ),
            ("^[^/]+$", "a/b", false),
            ("(?P<year>[0-9]{4})", "2026", true),
        ] {
            let regex = compile(pattern).unwrap_or_else(|e| panic!("{pattern}: {e}"));
            assert_eq!(regex.is_match(text), matches, "{pattern} on {text:?}");
        }
    }

    #[test]
    fn refuses_in_gos_words() {
        for (pattern, message) in [
            ("(", "missing closing ): `(`"),
            ("a)", "unexpected ): `a)`"),
            ("[a", "missing closing ]: `[a`"),
            ("*a", "missing argument to repetition operator: `*`"),
            ("a**", "invalid nested repetition operator: `**`"),
            ("(?=a)", "invalid or unsupported Perl syntax: `(?=`"),
            ("[z-a]", "invalid character class range: `z-a`"),
            (r"\y", r"invalid escape sequence: `\y`"),
            ("a{2,1}", "invalid repeat count: `{2,1}`"),
            ("a{1001}", "invalid repeat count: `{1001}`"),
            ("a\\", "trailing backslash at end of expression: ``"),
        ] {
            let error = compile(pattern).unwrap_err();
            assert_eq!(Words(&error).to_string(), format!("error parsing regexp: {message}"));
        }
    }
}
