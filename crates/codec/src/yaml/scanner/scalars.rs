//! The scalars of YAML: block (`|`, `>`), quoted and plain ones.

use super::{Mark, Scan, Scanner, Text, Token, TokenKind, is_blank, is_blankz, is_break, is_breakz};

/// The breaks between two pieces of text.
#[derive(Default)]
struct Breaks {
    first: Option<char>,
    more: String,
}

impl Breaks {
    /// Adds what folding makes of them: a single break becomes a space, of several the first one goes. The Unicode separators
    /// always stay.
    fn fold_into(&self, value: &mut String) {
        match self.first {
            Some('\n') if self.more.is_empty() => value.push(' '),
            Some('\n') | None => value.push_str(&self.more),
            Some(first) => {
                value.push(first);
                value.push_str(&self.more);
            }
        }
    }

    fn clear(&mut self) {
        self.first = None;
        // Keeps its memory for the next line.
        self.more.clear();
    }
}

/// The value of a flow scalar while it is read: a piece of the source, as long as nothing in it means something else than itself.
struct Value {
    /// Where the part begins that has not been copied.
    start: usize,
    /// Where the value begins in `made`, once something had to be.
    made: Option<usize>,
}

impl Scanner<'_> {
    /// Copies the value as far as `end`, because what comes next has to be made. [`Value::start`] is to be set behind that.
    fn copy(&mut self, value: &mut Value, end: usize) {
        value.made.get_or_insert(self.texts.made.len());
        let source = self.texts.source;
        self.texts.made.push_str(&source[value.start..end]);
    }

    /// The value, which ends at `end`.
    fn finish(&mut self, value: &mut Value, end: usize) -> Text {
        match value.made {
            None => self.texts.slice(value.start, end),
            Some(made) => {
                self.copy(value, end);
                self.texts.made_since(made)
            }
        }
    }

    /// A literal (`|`) or folded (`>`) scalar: all lines that are indented more than what is around it.
    pub(super) fn fetch_block_scalar(&mut self, literal: bool) -> Scan<()> {
        self.remove_simple_key()?;
        self.simple_key_allowed = true;
        let start = self.mark;
        self.advance();
        let (chomping, increment) = self.block_scalar_header(start)?;
        self.end_of_line(start)?;
        let mut end = self.mark;
        let mut indent = increment.map_or(0, |n| if self.indent >= 0 { self.indent + n } else { n });
        let begin = self.texts.made.len();
        // The break before the line at hand, whether that line begins with a blank, and the empty lines in between.
        let (mut leading_break, mut leading_blank) = (None, false);
        let mut breaks = String::new();
        self.block_scalar_breaks(&mut breaks, &mut indent, start, &mut end)?;
        while self.column() == indent && self.at(0).is_some() {
            // Folding: a single break between two lines of text becomes a space. Lines that begin with a blank keep theirs.
            let blank = is_blank(self.at(0));
            if !literal && leading_break == Some('\n') && !leading_blank && !blank {
                if breaks.is_empty() {
                    self.texts.made.push(' ');
                }
            } else {
                self.texts.made.extend(leading_break);
            }
            self.texts.made.push_str(&breaks);
            leading_blank = blank;
            let line = self.take_while(|c| !is_breakz(c));
            self.texts.made.push_str(line);
            leading_break = self.take_break();
            self.block_scalar_breaks(&mut breaks, &mut indent, start, &mut end)?;
        }
        // Chomping: `-` drops the last break, `+` keeps the empty lines behind it, too.
        if chomping != Some('-') {
            self.texts.made.extend(leading_break);
        }
        if chomping == Some('+') {
            self.texts.made.push_str(&breaks);
        }
        let value = self.texts.made_since(begin);
        self.tokens.push_back(Token { kind: TokenKind::Scalar { value, plain: false }, start, end });
        Ok(())
    }

    /// Chomping (`+`, `-`) and the indentation indicator, in either order.
    fn block_scalar_header(&mut self, start: Mark) -> Scan<(Option<char>, Option<isize>)> {
        let (mut chomping, mut increment) = (None, None);
        for _ in 0..2 {
            match self.at(0) {
                Some(c @ ('+' | '-')) if chomping.is_none() => chomping = Some(c),
                Some(c) if c.is_ascii_digit() && increment.is_none() => {
                    if c == '0' {
                        return Err(self.problem(start, "found an indentation indicator equal to 0"));
                    }
                    increment = c.to_digit(10).and_then(|n| isize::try_from(n).ok());
                }
                _ => break,
            }
            self.advance();
        }
        Ok((chomping, increment))
    }

    /// Leaves in `breaks` the line breaks before the next line of a block scalar; finds out its indentation if it is not
    /// known (0).
    fn block_scalar_breaks(
        &mut self,
        breaks: &mut String,
        indent: &mut isize,
        start: Mark,
        end: &mut Mark,
    ) -> Scan<()> {
        breaks.clear();
        let mut deepest = 0;
        *end = self.mark;
        loop {
            while (*indent == 0 || self.column() < *indent) && self.at(0) == Some(' ') {
                self.advance();
            }
            deepest = deepest.max(self.column());
            if (*indent == 0 || self.column() < *indent) && self.at(0) == Some('\t') {
                let text = "found a tab character where an indentation space is expected";
                return Err(self.problem(start, text));
            }
            match self.take_break() {
                Some(c) => breaks.push(c),
                None => break,
            }
            *end = self.mark;
        }
        // The first line that is not empty sets the indentation, and it has to be right of what is around it.
        if *indent == 0 {
            *indent = deepest.max(self.indent + 1).max(1);
        }
        Ok(())
    }

    /// A quoted scalar.
    pub(super) fn fetch_flow_scalar(&mut self, single: bool) -> Scan<()> {
        self.save_simple_key()?;
        self.simple_key_allowed = false;
        let start = self.mark;
        let quote = if single { '\'' } else { '"' };
        self.advance();
        let mut value = Value { start: self.position, made: None };
        loop {
            // Also inside quotes: a forgotten quote must not swallow the next document.
            if self.document_indicator().is_some() {
                return Err(self.problem(start, "found unexpected document indicator"));
            }
            if self.at(0).is_none() {
                return Err(self.problem(start, "found unexpected end of stream"));
            }
            let mut folding = false;
            while let Some(c) = self.at(0).filter(|c| !is_blankz(Some(*c))) {
                match c {
                    '\'' if single && self.at(1) == Some('\'') => {
                        // The first of the two belongs to the value.
                        self.copy(&mut value, self.position + 1);
                        self.advance_by(2);
                        value.start = self.position;
                    }
                    _ if c == quote => break,
                    // An escaped break joins the lines without a space.
                    '\\' if !single && is_break(self.at(1)) => {
                        self.copy(&mut value, self.position);
                        self.advance();
                        self.take_break();
                        value.start = self.position;
                        folding = true;
                        break;
                    }
                    '\\' if !single => {
                        self.copy(&mut value, self.position);
                        self.escape(start)?;
                        value.start = self.position;
                    }
                    _ => {
                        self.advance();
                    }
                }
            }
            if self.at(0) == Some(quote) {
                break;
            }
            self.fold(&mut value, folding);
        }
        let value = self.finish(&mut value, self.position);
        self.advance();
        self.push(TokenKind::Scalar { value, plain: false }, start);
        Ok(())
    }

    /// Blanks and line breaks inside a quoted scalar: blanks stay, one break becomes a space, more stay.
    /// `escaped`: an escaped break came before, so that blanks go and all further breaks stay.
    fn fold(&mut self, value: &mut Value, escaped: bool) {
        let gap = self.position;
        let (mut breaks, mut folding) = (Breaks::default(), escaped);
        while is_blank(self.at(0)) || is_break(self.at(0)) {
            match self.take_break() {
                Some(c) if folding => breaks.more.push(c),
                Some(c) => {
                    breaks.first = Some(c);
                    folding = true;
                }
                None => {
                    self.advance();
                }
            }
        }
        if folding {
            self.copy(value, gap);
            breaks.fold_into(&mut self.texts.made);
            value.start = self.position;
        }
    }

    /// Adds the character of an escape in double quotes, which is read from its backslash, to what is made.
    fn escape(&mut self, start: Mark) -> Scan<()> {
        let digits = match self.at(1) {
            Some('x') => 2,
            Some('u') => 4,
            Some('U') => 8,
            _ => 0,
        };
        if digits == 0 {
            let c = match self.at(1) {
                Some('0') => '\0',
                Some('a') => '\u{7}',
                Some('b') => '\u{8}',
                Some('t' | '\t') => '\t',
                Some('n') => '\n',
                Some('v') => '\u{b}',
                Some('f') => '\u{c}',
                Some('r') => '\r',
                Some('e') => '\u{1b}',
                Some(c @ (' ' | '"' | '\'' | '\\')) => c,
                Some('N') => '\u{85}',
                Some('_') => '\u{a0}',
                Some('L') => '\u{2028}',
                Some('P') => '\u{2029}',
                _ => return Err(self.problem(start, "found unknown escape character")),
            };
            self.texts.made.push(c);
            self.advance_by(2);
            return Ok(());
        }
        self.advance_by(2);
        // Eight digits are 32 bits, so nothing overflows.
        let mut code = 0_u32;
        for ahead in 0..digits {
            let Some(digit) = self.at(ahead).and_then(|c| c.to_digit(16)) else {
                return Err(self.problem(start, "did not find expected hexdecimal number"));
            };
            code = code << 4 | digit;
        }
        let Some(c) = char::from_u32(code) else {
            return Err(self.problem(start, "found invalid Unicode character escape code"));
        };
        self.texts.made.push(c);
        self.advance_by(digits);
        Ok(())
    }

    /// A scalar without quotes: up to `: `, ` #`, an indicator of a flow collection, or a line that is not indented enough.
    pub(super) fn fetch_plain_scalar(&mut self) -> Scan<()> {
        self.save_simple_key()?;
        self.simple_key_allowed = false;
        let start = self.mark;
        let mut end = start;
        let indent = self.indent + 1;
        let mut value = Value { start: self.position, made: None };
        // Where the last word ended. What is between words is looked at only when another one comes: blanks at the end do not
        // belong to the scalar.
        let mut value_end = self.position;
        let mut breaks = Breaks::default();
        let mut folding = false;
        loop {
            if self.document_indicator().is_some() || self.at(0) == Some('#') {
                break;
            }
            if !self.at_end_of_plain_word() {
                if folding {
                    self.copy(&mut value, value_end);
                    breaks.fold_into(&mut self.texts.made);
                    value.start = self.position;
                    breaks.clear();
                    folding = false;
                }
                while !self.at_end_of_plain_word() {
                    self.advance();
                }
                value_end = self.position;
                end = self.mark;
            }
            if !(is_blank(self.at(0)) || is_break(self.at(0))) {
                break;
            }
            while is_blank(self.at(0)) || is_break(self.at(0)) {
                match self.take_break() {
                    Some(c) if folding => breaks.more.push(c),
                    Some(c) => {
                        breaks.first = Some(c);
                        folding = true;
                    }
                    // Only spaces indent: a tab there would mean something else in each editor.
                    None if folding && self.column() < indent && self.at(0) == Some('\t') => {
                        return Err(self.problem(start, "found a tab character that violates indentation"));
                    }
                    None => {
                        self.advance();
                    }
                }
            }
            if !self.in_flow() && self.column() < indent {
                break;
            }
        }
        let value = self.finish(&mut value, value_end);
        self.tokens.push_back(Token { kind: TokenKind::Scalar { value, plain: true }, start, end });
        // It ended with its line, so the next token is the first one of another line.
        if folding {
            self.simple_key_allowed = true;
        }
        Ok(())
    }

    /// Whether a word of a plain scalar ends here. A `:` inside a word is part of it (`http://host`), and outside of brackets so
    /// are commas and brackets.
    fn at_end_of_plain_word(&self) -> bool {
        match self.at(0) {
            Some(':') => is_blankz(self.at(1)),
            Some(c) => is_blankz(Some(c)) || (self.in_flow() && ",?[]{}".contains(c)),
            None => true,
        }
    }
}
