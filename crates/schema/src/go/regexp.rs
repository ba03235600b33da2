//! Go's regular expressions (RE2 syntax, `regexp/syntax/parse.go`) in the syntax of the `regex` crate: what Go reads
//! differently is rewritten, what Go refuses is refused with Go's error code. How they are matched is in [`program`].

mod machine;
mod program;

pub use machine::Effort;
pub(crate) use program::{Program, check, program};

use crate::error::{RegexpError, RegexpProblem};
use regex::Regex;

/// The largest repeat count that Go accepts, of repetitions within each other together (`repeatIsValid`).
const MAX_REPEAT: u32 = 1000;
/// How many characters all classes of an expression may list, each range counting two (`maxRunes` in `parse.go`). Go's limit is
/// sixteen times this one: 26,000 times `\pL`, for which we would need 128 MiB as it does. Nobody writes that in good faith.
const MAX_CLASS_RUNES: usize = (128 << 20) / 4 / 16;
/// What a class counts that is not spelled out: as many as `\pL`, one of the largest.
const NAMED_CLASS_RUNES: usize = 1292;

/// Compiles an expression that is our own.
///
/// # Errors
/// What `regexp.Compile` would refuse, or what is too large for the crate.
pub(crate) fn compile(source: &str) -> Result<Regex, RegexpError> {
    let problem = |error| match error {
        regex::Error::CompiledTooBig(_) => RegexpProblem::Large,
        _ => RegexpProblem::InvalidSyntax,
    };
    let refused = |error| RegexpError { problem: problem(error), part: source.into() };
    program::build(&translate(source)?).map_err(refused)
}

/// An expression in the syntax of the crate.
///
/// # Errors
/// What Go refuses while it reads it.
fn translate(source: &str) -> Result<String, RegexpError> {
    let chars = source.chars().collect();
    let repeats = Repeats::default();
    let translator = Translator {
        chars,
        at: 0,
        out: String::new(),
        source,
        no_class_ends: false,
        repeats,
        class_runes: 0,
    };
    translator.run()
}

fn refuse<T>(problem: RegexpProblem, part: &str) -> Result<T, RegexpError> {
    Err(RegexpError { problem, part: part.into() })
}

/// Goes through an expression once, from front to back. It has to stay linear in the length of the expression, which
/// users give (in CRDs, and in rules even as values): where it looks ahead, it either goes on behind what it found, or
/// does not look a second time.
struct Translator<'a> {
    chars: Vec<char>,
    /// The place of the next character that was not read yet.
    at: usize,
    /// What was read, in the syntax of the crate `regex`.
    out: String,
    source: &'a str,
    /// No `:]` comes any more.
    no_class_ends: bool,
    repeats: Repeats,
    /// How many characters the classes list so far.
    class_runes: usize,
}

/// How often the innermost of what was read would be repeated by all repetitions around it (`repeatIsValid`).
#[derive(Default)]
struct Repeats {
    /// The most within each group that is open, the outermost first, without the last operand of it.
    groups: Vec<u32>,
    /// The most within the part outside of all groups.
    top: u32,
    /// The same of the last operand, which a repetition may follow.
    last: u32,
}

impl Repeats {
    /// Another operand, that repeats nothing by itself.
    fn operand(&mut self) {
        self.settle();
        self.last = 1;
    }

    fn settle(&mut self) {
        let group = self.groups.last_mut().unwrap_or(&mut self.top);
        *group = (*group).max(self.last);
    }

    fn open(&mut self) {
        self.settle();
        self.last = 0;
        self.groups.push(0);
    }

    fn close(&mut self) {
        self.settle();
        // An empty group is an operand as well.
        self.last = self.groups.pop().unwrap_or_default().max(1);
    }

    /// The last operand is repeated by `{low,high}`. Gives whether that is allowed.
    fn repeat(&mut self, low: u32, high: Option<u32>) -> bool {
        let factor = match high {
            // Nothing is left of what is in it.
            Some(0) => 0,
            Some(high) => high,
            None => low.max(1),
        };
        self.last = self.last.saturating_mul(factor);
        !(low >= 2 || high.is_some_and(|high| high >= 2)) || self.last <= MAX_REPEAT
    }
}

impl Translator<'_> {
    /// A copy, for errors.
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
            // `?` behind a repetition belongs to it (a lazy one), any other repetition behind it is refused.
            let repetition = match c {
                '*' | '+' | '?' => {
                    self.at += 1;
                    Some((0, Some(1)))
                }
                '{' => self.counted()?,
                _ => None,
            };
            if let Some((low, high)) = repetition {
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
                if !self.repeats.repeat(low, high) {
                    return refuse(RegexpProblem::InvalidRepeatSize, &operator);
                }
                self.out.push_str(&operator);
                continue;
            }
            repeated = None;
            operand = true;
            if !matches!(c, '(' | ')') {
                self.repeats.operand();
            }
            match c {
                '(' => {
                    let opened = self.group()?;
                    depth += usize::from(opened);
                    operand = !opened;
                    if opened {
                        self.repeats.open();
                    }
                }
                ')' => {
                    if depth == 0 {
                        return refuse(RegexpProblem::UnexpectedParen, self.source);
                    }
                    depth -= 1;
                    self.repeats.close();
                    self.keep();
                }
                '|' => {
                    self.keep();
                    operand = false;
                }
                '[' => self.class()?,
                '\\' => self.escape(false)?,
                // Literals to Go where they repeat and close nothing; to the crate they are if they are escaped.
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

    /// At `{`: steps over `{n}`, `{n,}`, `{n,m}` and gives the bounds; anything else is the character itself.
    fn counted(&mut self) -> Result<Option<(u32, Option<u32>)>, RegexpError> {
        let begin = self.at;
        // No further than digits go: a search for the `}` would look at the same text from each of many `{`.
        let tail = &self.chars[begin + 1..];
        let inside = tail.iter().take_while(|c| c.is_ascii_digit() || **c == ',').count();
        if tail.get(inside) != Some(&'}') {
            return Ok(None);
        }
        let length = inside + 1;
        let body = self.slice(begin + 1, begin + length);
        let (low, high) = body.split_once(',').unwrap_or((&body, &body));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if !digits(low) || !(high.is_empty() || digits(high)) {
            return Ok(None);
        }
        let number = |text: &str| text.parse::<u32>().ok().filter(|n| *n <= MAX_REPEAT);
        let whole = self.slice(begin, begin + length + 1);
        let endless = high.is_empty();
        let (Some(low), Some(high)) = (number(low), if endless { Some(MAX_REPEAT) } else { number(high) })
        else {
            return refuse(RegexpProblem::InvalidRepeatSize, &whole);
        };
        if low > high {
            return refuse(RegexpProblem::InvalidRepeatSize, &whole);
        }
        self.at = begin + length + 1;
        Ok(Some((low, (!endless).then_some(high))))
    }

    /// At `(`: a group, with or without a name or flags. Gives whether it opens one that a `)` has to close.
    fn group(&mut self) -> Result<bool, RegexpError> {
        let begin = self.at;
        if self.peek(1) != Some('?') {
            self.keep();
            return Ok(true);
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
            return Ok(true);
        }
        let mut end = begin + 2;
        while let Some(c) = self.chars.get(end) {
            match c {
                'i' | 'm' | 's' | 'U' | '-' => end += 1,
                ':' | ')' if end > begin + 2 || *c == ':' => {
                    let flags = self.slice(begin, end + 1);
                    self.out.push_str(&flags);
                    let opened = *c == ':';
                    if !opened {
                        // An empty group, for a repetition that may follow: the crate refuses one of flags.
                        self.out.push_str("()");
                    }
                    self.at = end + 1;
                    return Ok(opened);
                }
                _ => break,
            }
        }
        if end >= self.chars.len() {
            return refuse(RegexpProblem::MissingParen, self.source);
        }
        refuse(RegexpProblem::InvalidPerlOp, &self.slice(begin, end + 1))
    }

    /// Counts the characters that a class lists.
    fn spend_runes(&mut self, runes: usize) -> Result<(), RegexpError> {
        self.class_runes += runes;
        if self.class_runes > MAX_CLASS_RUNES { refuse(RegexpProblem::Large, self.source) } else { Ok(()) }
    }

    /// At `[`: a class. Inside it Go knows no set operations and no nested classes.
    fn class(&mut self) -> Result<(), RegexpError> {
        let begin = self.at;
        // What a negated class or one without case lists is found out by the crate; it is at most some hundred.
        self.spend_runes(NAMED_CLASS_RUNES / 16)?;
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
                    let tail = &self.chars[self.at..];
                    let end = match self.no_class_ends {
                        true => None,
                        false => tail.windows(2).position(|pair| *pair == [':', ']']),
                    };
                    self.no_class_ends = end.is_none();
                    if let Some(end) = end {
                        self.out.extend(&tail[..end + 2]);
                        self.at += end + 2;
                    } else {
                        self.out.push_str("\\[");
                        self.at += 1;
                    }
                }
                '\\' => self.escape(true)?,
                // Nested classes and set operations (`&&`, `~~`) to the crate, literals to Go.
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
                    // `+--` is a range that ends at the dash; to the crate `--` is a difference of sets.
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
            // Letters of ASCII only make words.
            'b' if !in_class => "(?-u:\\b)".into(),
            'B' if !in_class => "(?-u:\\B)".into(),
            'A' | 'z' if !in_class => format!("\\{c}"),
            // Control characters by their letters.
            'a' => "\\x07".into(),
            'f' => "\\x0C".into(),
            'v' => "\\x0B".into(),
            't' | 'n' | 'r' => format!("\\{c}"),
            'Q' if !in_class => {
                let tail = &self.chars[begin + 2..];
                let end = tail.windows(2).position(|pair| *pair == ['\\', 'E']);
                let literal: String = tail[..end.unwrap_or(tail.len())].iter().collect();
                self.out.push_str(&regex::escape(&literal));
                self.at = end.map_or(self.chars.len(), |end| begin + 2 + end + 2);
                return Ok(());
            }
            'p' | 'P' => {
                self.spend_runes(NAMED_CLASS_RUNES)?;
                return self.braced();
            }
            'x' => return self.braced(),
            '0'..='7' => {
                let digits: String =
                    self.chars[begin + 1..].iter().take(3).take_while(|d| ('0'..='7').contains(*d)).collect();
                // `\1` would be a back-reference, which RE2 has not.
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
    use super::{Effort, Program, check, compile};
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
            let program = Program::new(pattern).expect("the same");
            assert_eq!(program.is_match(text, &mut Effort::new(100_000)), Some(matches), "{pattern}");
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
            ("(a{31}){33}?", "invalid repeat count: `{33}?`"),
            ("((a{2}){3}){200}x", "invalid repeat count: `{200}`"),
            ("((a{501})*){2}", "invalid repeat count: `{2}`"),
            ("(?:a{501}b|c){2}", "invalid repeat count: `{2}`"),
            ("a\\", "trailing backslash at end of expression: ``"),
        ] {
            let error = check(pattern).unwrap_err();
            assert_eq!(Words(&error).to_string(), format!("error parsing regexp: {message}"));
        }
    }
}
