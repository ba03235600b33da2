//! The scalars of YAML: block (`|`, `>`), quoted and plain ones.

use super::{Mark, Scan, Scanner, Token, TokenKind, is_blank, is_blankz, is_break, is_breakz};

impl Scanner {
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
        let mut value = String::new();
        // The break before the line at hand, whether that line begins with a blank, and the empty lines in between.
        let (mut leading_break, mut leading_blank) = (String::new(), false);
        let mut breaks = self.block_scalar_breaks(&mut indent, start, &mut end)?;
        while self.column() == indent && self.at(0).is_some() {
            // Folding: a single break between two lines of text becomes a space. Lines that begin with a blank keep theirs.
            let blank = is_blank(self.at(0));
            if !literal && leading_break == "\n" && !leading_blank && !blank {
                if breaks.is_empty() {
                    value.push(' ');
                }
            } else {
                value.push_str(&leading_break);
            }
            leading_break.clear();
            value.push_str(&breaks);
            leading_blank = blank;
            value.push_str(&self.take_while(|c| !is_breakz(c)));
            leading_break.extend(self.take_break());
            breaks = self.block_scalar_breaks(&mut indent, start, &mut end)?;
        }
        // Chomping: `-` drops the last break, `+` keeps the empty lines behind it, too.
        if chomping != Some('-') {
            value.push_str(&leading_break);
        }
        if chomping == Some('+') {
            value.push_str(&breaks);
        }
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

    /// The line breaks before the next line of a block scalar; finds out its indentation if it is not known (0).
    fn block_scalar_breaks(&mut self, indent: &mut isize, start: Mark, end: &mut Mark) -> Scan<String> {
        let mut breaks = String::new();
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
        Ok(breaks)
    }

    /// A quoted scalar.
    pub(super) fn fetch_flow_scalar(&mut self, single: bool) -> Scan<()> {
        self.save_simple_key()?;
        self.simple_key_allowed = false;
        let start = self.mark;
        let quote = if single { '\'' } else { '"' };
        self.advance();
        let mut value = String::new();
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
                        self.advance_by(2);
                        value.push('\'');
                    }
                    _ if c == quote => break,
                    // An escaped break joins the lines without a space.
                    '\\' if !single && is_break(self.at(1)) => {
                        self.advance();
                        self.take_break();
                        folding = true;
                        break;
                    }
                    '\\' if !single => self.escape(&mut value, start)?,
                    _ => {
                        value.push(c);
                        self.advance();
                    }
                }
            }
            if self.at(0) == Some(quote) {
                break;
            }
            self.fold(&mut value, folding);
        }
        self.advance();
        self.push(TokenKind::Scalar { value, plain: false }, start);
        Ok(())
    }

    /// Blanks and line breaks inside a quoted scalar: blanks stay, one break becomes a space, more stay.
    /// `folding`: an escaped break came before.
    fn fold(&mut self, value: &mut String, mut folding: bool) {
        let (mut blanks, mut first, mut more) = (String::new(), String::new(), String::new());
        while is_blank(self.at(0)) || is_break(self.at(0)) {
            if let Some(c) = self.take_break() {
                if folding {
                    more.push(c);
                } else {
                    blanks.clear();
                    first.push(c);
                    folding = true;
                }
            } else if let Some(c) = self.advance().filter(|_| !folding) {
                blanks.push(c);
            }
        }
        value.push_str(&join(folding, &blanks, &first, &more));
    }

    /// An escape in double quotes, from its backslash.
    fn escape(&mut self, value: &mut String, start: Mark) -> Scan<()> {
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
            value.push(c);
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
        value.push(c);
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
        let mut value = String::new();
        let (mut blanks, mut first, mut more) = (String::new(), String::new(), String::new());
        let mut folding = false;
        loop {
            if self.document_indicator().is_some() || self.at(0) == Some('#') {
                break;
            }
            while let Some(c) = self.at(0).filter(|c| !is_blankz(Some(*c))) {
                // A `:` inside a word is part of it (`http://host`), and outside of brackets so are commas and brackets.
                let ends = (c == ':' && is_blankz(self.at(1))) || (self.in_flow() && ",?[]{}".contains(c));
                if ends {
                    break;
                }
                // What was between the words is added only now: blanks at the end do not belong to the scalar.
                value.push_str(&join(folding, &blanks, &first, &more));
                (blanks, first, more, folding) = Default::default();
                value.push(c);
                self.advance();
                end = self.mark;
            }
            if !(is_blank(self.at(0)) || is_break(self.at(0))) {
                break;
            }
            while is_blank(self.at(0)) || is_break(self.at(0)) {
                if let Some(c) = self.take_break() {
                    if folding {
                        more.push(c);
                    } else {
                        blanks.clear();
                        first.push(c);
                        folding = true;
                    }
                    continue;
                }
                // Only spaces indent: a tab there would mean something else in each editor.
                if folding && self.column() < indent && self.at(0) == Some('\t') {
                    return Err(self.problem(start, "found a tab character that violates indentation"));
                }
                if let Some(c) = self.advance().filter(|_| !folding) {
                    blanks.push(c);
                }
            }
            if !self.in_flow() && self.column() < indent {
                break;
            }
        }
        self.tokens.push_back(Token { kind: TokenKind::Scalar { value, plain: true }, start, end });
        // It ended with its line, so the next token is the first one of another line.
        if folding {
            self.simple_key_allowed = true;
        }
        Ok(())
    }
}

/// What folding makes of blanks and breaks between two pieces of text.
fn join(folding: bool, blanks: &str, first: &str, more: &str) -> String {
    match (folding, first, more) {
        (false, _, _) => blanks.into(),
        (true, "\n", "") => " ".into(),
        (true, "\n", more) => more.into(),
        (true, first, more) => format!("{first}{more}"),
    }
}
