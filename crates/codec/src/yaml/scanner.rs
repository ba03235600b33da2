//! The tokens of a YAML stream, and where libyaml would complain: its words are part of the API's answers
//! (`scannerc.go`, `readerc.go` of Go's yaml package).

mod scalars;

use std::collections::VecDeque;

/// A place in the stream; lines and columns from 0.
///
/// Numbers of 32 bits, because there are several in each token and one in each node: [`MAX_LENGTH`] keeps them from
/// overflowing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Mark {
    /// In characters.
    pub(super) index: u32,
    pub(super) line: u32,
    pub(super) column: u32,
}

/// The longest stream, in bytes. Bodies are much shorter; it is for callers that limit nothing.
const MAX_LENGTH: usize = u32::MAX as usize / 4;

/// A piece of the stream as it stands there, or of [`Texts::made`] behind it. Nothing is copied for a scalar unless
/// escapes or line breaks make its value differ from what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Text {
    start: u32,
    length: u32,
}

/// What [`Text`]s are pieces of.
#[derive(Debug, Default)]
pub(super) struct Texts<'a> {
    source: &'a str,
    /// The values of scalars that differ from what was written, one behind the other. Positions in it count from the end of
    /// the source. An escape of two bytes may stand for a character of three, so it gets at most half as long again.
    made: String,
}

impl<'a> Texts<'a> {
    /// The text of a piece.
    pub(super) fn get(&self, text: Text) -> &str {
        let (start, length) = (text.start as usize, text.length as usize);
        match start.checked_sub(self.source.len()) {
            None => &self.source[start..start + length],
            Some(start) => &self.made[start..start + length],
        }
    }

    /// The text of a piece as it stands in the source; `None` for one that was made.
    pub(super) fn written(&self, text: Text) -> Option<&'a str> {
        let start = text.start as usize;
        self.source.get(start..start + text.length as usize)
    }

    /// The name of an anchor or the handle of a tag, which are never made.
    pub(super) fn name(&self, text: Text) -> &'a str {
        self.written(text).unwrap_or_default()
    }

    /// The piece of the source between two positions.
    fn slice(&self, start: usize, end: usize) -> Text {
        // In range, because the source is at most `MAX_LENGTH` long.
        Text { start: start as u32, length: (end - start) as u32 }
    }

    /// What was added to `made` since its length was `start`.
    fn made_since(&self, start: usize) -> Text {
        Text { start: (self.source.len() + start) as u32, length: (self.made.len() - start) as u32 }
    }
}

/// Why a stream is not YAML.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) text: &'static str,
    /// Where it was found. Go counts lines differently for problems of the scanner and of the parser.
    pub(super) at: Mark,
    /// The beginning of what was being read.
    pub(super) context: Mark,
    pub(super) by_scanner: bool,
}

/// What libyaml's grammar is made of. The starts and ends of block collections follow from indentation and stand for no text;
/// a `Key` mostly stands for none either.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenKind {
    StreamEnd,
    VersionDirective { major: u32, minor: u32 },
    TagDirective { handle: Text, prefix: Text },
    DocumentStart,
    DocumentEnd,
    BlockSequenceStart,
    BlockMappingStart,
    BlockEnd,
    FlowSequenceStart,
    FlowSequenceEnd,
    FlowMappingStart,
    FlowMappingEnd,
    BlockEntry,
    FlowEntry,
    Key,
    Value,
    Alias(Text),
    Anchor(Text),
    Tag { handle: Text, suffix: Text },
    Scalar { value: Text, plain: bool },
}

/// A token and its place. Small and copied freely: its texts are elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kind: TokenKind,
    pub(super) start: Mark,
    pub(super) end: Mark,
}

/// A token that turns out to be a key if a `:` follows on the same line.
#[derive(Debug, Clone, Copy, Default)]
struct SimpleKey {
    possible: bool,
    /// It stands where only a key can be, so that a missing `:` is an error.
    required: bool,
    /// The number of the token, counted from the beginning of the stream.
    token: usize,
    mark: Mark,
}

type Scan<T> = Result<T, Problem>;

/// Turns characters into tokens, as far as they are asked for.
///
/// A token cannot be handed out while it may still become a key: then a `Key`, and perhaps the start of a mapping, have to be
/// inserted before it. So there is a queue, and [`Scanner::peek`] reads on until its head is settled.
pub(super) struct Scanner<'a> {
    texts: Texts<'a>,
    /// What is read next, in bytes.
    position: usize,
    /// The same place, in characters and lines.
    mark: Mark,
    tokens: VecDeque<Token>,
    /// How many tokens were taken.
    taken: usize,
    /// Whether the last token is in the queue, or was.
    ended: bool,
    /// The column of the block collection at hand, -1 outside of all.
    indent: isize,
    /// The same of those around it.
    indents: Vec<isize>,
    /// Whether a key may begin here: at the beginning of a line, after `- `, `? `, `,` and opening brackets.
    simple_key_allowed: bool,
    /// One for each level of flow collections, and one outside.
    simple_keys: Vec<SimpleKey>,
    /// The numbers of the tokens that may become keys, with the level of their key, in order. Go's reader keeps such a table
    /// to be quick, and forgets an empty flow collection when it ends: such a one is no key there, nor is it here.
    /// What was handed out is forgotten, so that it is never longer than the queue.
    candidates: VecDeque<(usize, usize)>,
}

fn is_break(c: Option<char>) -> bool {
    matches!(c, Some('\r' | '\n' | '\u{85}' | '\u{2028}' | '\u{2029}'))
}

fn is_blank(c: Option<char>) -> bool {
    matches!(c, Some(' ' | '\t'))
}

fn is_breakz(c: Option<char>) -> bool {
    c.is_none() || is_break(c)
}

fn is_blankz(c: Option<char>) -> bool {
    is_blank(c) || is_breakz(c)
}

fn is_word(c: Option<char>) -> bool {
    c.is_some_and(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
}

impl<'a> Scanner<'a> {
    /// A scanner of a whole stream. Errors: it is not UTF-8, or has characters that YAML does not allow.
    // UTF-16, which libyaml reads too, is refused as bad UTF-8.
    pub(super) fn new(bytes: &'a [u8]) -> Scan<Self> {
        let nowhere =
            |text| Problem { text, at: Mark::default(), context: Mark::default(), by_scanner: false };
        if bytes.len() > MAX_LENGTH {
            return Err(nowhere("the stream is too long"));
        }
        let text = std::str::from_utf8(bytes).map_err(|error| {
            let bad = bytes.get(error.valid_up_to()).copied().unwrap_or(0);
            nowhere(match (error.error_len(), bad) {
                (None, _) => "incomplete UTF-8 octet sequence",
                (_, 0x80..=0xbf | 0xf8..) => "invalid leading UTF-8 octet",
                _ => "invalid trailing UTF-8 octet",
            })
        })?;
        // A byte order mark is allowed at the beginning only; elsewhere it is a character like others.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let readable = |c: char| matches!(c, '\t' | '\n' | '\r' | ' '..='~' | '\u{85}' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..);
        if !text.chars().all(readable) {
            return Err(nowhere("control characters are not allowed"));
        }
        Ok(Self {
            texts: Texts { source: text, made: String::new() },
            position: 0,
            mark: Mark::default(),
            tokens: VecDeque::new(),
            taken: 0,
            ended: false,
            indent: -1,
            indents: Vec::new(),
            simple_key_allowed: true,
            simple_keys: vec![SimpleKey::default()],
            candidates: VecDeque::new(),
        })
    }

    /// The texts that the tokens so far refer to.
    pub(super) fn texts(&self) -> &Texts<'a> {
        &self.texts
    }

    /// The texts of all tokens that were handed out, when no more are wanted.
    pub(super) fn into_texts(self) -> Texts<'a> {
        self.texts
    }

    /// The next token, which stays where it is.
    pub(super) fn peek(&mut self) -> Scan<Token> {
        while self.tokens.is_empty() || self.head_may_be_key()? {
            if self.ended {
                break;
            }
            self.fetch()?;
        }
        // The end of the stream is never taken.
        self.tokens
            .front()
            .copied()
            .ok_or_else(|| self.problem(self.mark, "did not find expected <stream-end>"))
    }

    /// Takes the token that [`Self::peek`] gave.
    pub(super) fn skip(&mut self) {
        if self.tokens.front().is_some_and(|token| token.kind != TokenKind::StreamEnd) {
            self.tokens.pop_front();
            self.taken += 1;
        }
    }

    /// A problem here with what began at `context`.
    fn problem(&self, context: Mark, text: &'static str) -> Problem {
        Problem { text, at: self.mark, context, by_scanner: true }
    }

    /// The character so many ahead; `None` behind the end.
    fn at(&self, ahead: usize) -> Option<char> {
        let rest = self.texts.source.as_bytes().get(self.position..)?;
        // Nearly all characters are of one byte, and so are those that are passed over on the way to the one that is asked
        // for.
        match rest.get(..=ahead) {
            Some(bytes) if bytes.is_ascii() => Some(bytes[ahead].into()),
            _ => self.texts.source[self.position..].chars().nth(ahead),
        }
    }

    /// Takes a character that is no line break.
    fn advance(&mut self) -> Option<char> {
        let c = self.at(0)?;
        self.position += c.len_utf8();
        self.mark.index += 1;
        self.mark.column += 1;
        Some(c)
    }

    fn advance_by(&mut self, count: usize) {
        for _ in 0..count {
            self.advance();
        }
    }

    /// Takes a line break; all kinds but the Unicode separators become `\n`.
    fn take_break(&mut self) -> Option<char> {
        let c = self.at(0).filter(|c| is_break(Some(*c)))?;
        let count = if c == '\r' && self.at(1) == Some('\n') { 2 } else { 1 };
        // Of two characters the first is of one byte, as the second is.
        self.position += c.len_utf8() * count as usize;
        self.mark.index += count;
        self.mark.line += 1;
        self.mark.column = 0;
        Some(if matches!(c, '\u{2028}' | '\u{2029}') { c } else { '\n' })
    }

    /// Takes characters as long as they are wanted; line breaks must not be.
    fn take_while(&mut self, wanted: impl Fn(Option<char>) -> bool) -> &'a str {
        let start = self.position;
        while self.at(0).is_some_and(|c| wanted(Some(c))) {
            self.advance();
        }
        &self.texts.source[start..self.position]
    }

    /// What was read since `start`.
    fn text_since(&self, start: usize) -> Text {
        self.texts.slice(start, self.position)
    }

    /// Whether this is inside brackets, where indentation means nothing.
    fn in_flow(&self) -> bool {
        self.simple_keys.len() > 1
    }

    /// The column, as indentation is compared with it.
    fn column(&self) -> isize {
        isize::try_from(self.mark.column).unwrap_or(isize::MAX)
    }

    /// Appends a token that ends here.
    fn push(&mut self, kind: TokenKind, start: Mark) {
        self.tokens.push_back(Token { kind, start, end: self.mark });
    }

    /// Whether the token at the head may still become a key, so that the scanner must read on.
    fn head_may_be_key(&mut self) -> Scan<bool> {
        while self.candidates.front().is_some_and(|(token, _)| *token < self.taken) {
            self.candidates.pop_front();
        }
        match self.candidates.front() {
            Some(&(token, level)) if token == self.taken => self.still_valid(level),
            _ => Ok(false),
        }
    }

    /// Forgets that a token may become a key.
    fn forget_candidate(&mut self, token: usize) {
        // Mostly the last one. Others are looked for in a queue that the limit of a simple key keeps short.
        if let Ok(index) = self.candidates.binary_search_by_key(&token, |(token, _)| *token) {
            self.candidates.remove(index);
        }
    }

    /// A simple key ends with its line, or after 1024 characters.
    fn still_valid(&mut self, index: usize) -> Scan<bool> {
        let Some(&key) = self.simple_keys.get(index).filter(|key| key.possible) else { return Ok(false) };
        // The limit of libyaml is what keeps the queue short.
        if key.mark.line < self.mark.line || key.mark.index + 1024 < self.mark.index {
            if key.required {
                return Err(self.problem(key.mark, "could not find expected ':'"));
            }
            self.simple_keys[index].possible = false;
            return Ok(false);
        }
        Ok(true)
    }

    /// Notes that the next token may become a key. To be called before it is appended.
    fn save_simple_key(&mut self) -> Scan<()> {
        if !self.simple_key_allowed {
            return Ok(());
        }
        // At the column of a mapping only its next key can begin.
        let required = !self.in_flow() && self.indent == self.column();
        self.remove_simple_key()?;
        let key =
            SimpleKey { possible: true, required, token: self.taken + self.tokens.len(), mark: self.mark };
        // The number that the token will have when it is appended.
        debug_assert!(self.candidates.back().is_none_or(|(token, _)| *token < key.token), "in order");
        self.candidates.push_back((key.token, self.simple_keys.len() - 1));
        if let Some(last) = self.simple_keys.last_mut() {
            *last = key;
        }
        Ok(())
    }

    /// The token that might have become a key on this level does not. Errors: it had to.
    fn remove_simple_key(&mut self) -> Scan<()> {
        if let Some(key) = self.simple_keys.last().filter(|key| key.possible && key.required) {
            return Err(self.problem(key.mark, "could not find expected ':'"));
        }
        if let Some(key) = self.simple_keys.last_mut().filter(|key| key.possible) {
            key.possible = false;
            let token = key.token;
            self.forget_candidate(token);
        }
        Ok(())
    }

    /// Begins a block collection at `column` if one is needed; its token goes before the token number `before`.
    fn roll_indent(&mut self, column: isize, before: Option<usize>, kind: TokenKind, mark: Mark) {
        if self.in_flow() || self.indent >= column {
            return;
        }
        self.indents.push(self.indent);
        self.indent = column;
        let token = Token { kind, start: mark, end: mark };
        match before {
            Some(number) => self.insert(number, token),
            None => self.tokens.push_back(token),
        }
    }

    /// Puts a token before the token `number`, or at the end if that one was taken already.
    fn insert(&mut self, number: usize, token: Token) {
        // Tokens that may become keys are kept in the queue, so the number is in it; the other case cannot harm.
        match number.checked_sub(self.taken) {
            Some(index) if index <= self.tokens.len() => self.tokens.insert(index, token),
            _ => self.tokens.push_back(token),
        }
    }

    /// Ends the block collections right of `column`.
    fn unroll_indent(&mut self, column: isize) {
        if self.in_flow() {
            return;
        }
        while self.indent > column {
            self.push(TokenKind::BlockEnd, self.mark);
            self.indent = self.indents.pop().unwrap_or(-1);
        }
    }

    /// Reads at least one token into the queue.
    fn fetch(&mut self) -> Scan<()> {
        self.skip_to_next_token();
        // Before the character is looked at: going back to the left ends collections, whatever comes there.
        self.unroll_indent(self.column());
        let Some(c) = self.at(0) else { return self.fetch_stream_end() };
        // The order of these checks matters: `%`, `---` and `...` mean something at the beginning of a line only, and otherwise
        // begin a plain scalar, as do `-`, `?` and `:` without a blank behind them.
        if self.mark.column == 0 && c == '%' {
            return self.fetch_directive();
        }
        if let Some(kind) = self.document_indicator() {
            // A document ends all collections of the one before.
            self.unroll_indent(-1);
            self.remove_simple_key()?;
            self.simple_key_allowed = false;
            let start = self.mark;
            self.advance_by(3);
            self.push(kind, start);
            return Ok(());
        }
        let next_blank = is_blankz(self.at(1));
        let flow = self.in_flow();
        match c {
            '[' => self.fetch_flow_start(TokenKind::FlowSequenceStart),
            '{' => self.fetch_flow_start(TokenKind::FlowMappingStart),
            ']' => self.fetch_flow_end(TokenKind::FlowSequenceEnd),
            '}' => self.fetch_flow_end(TokenKind::FlowMappingEnd),
            ',' => {
                self.remove_simple_key()?;
                self.simple_key_allowed = true;
                self.fetch_indicator(TokenKind::FlowEntry);
                Ok(())
            }
            '-' if next_blank => self.fetch_block_entry(),
            '?' if flow || next_blank => self.fetch_key(),
            ':' if flow || next_blank => self.fetch_value(),
            '*' | '&' => self.fetch_anchor(c == '*'),
            '!' => self.fetch_tag(),
            '|' | '>' if !flow => self.fetch_block_scalar(c == '|'),
            '\'' | '"' => self.fetch_flow_scalar(c == '\''),
            _ => {
                let indicator = "-?:,[]{}#&*!|>'\"%@`".contains(c) || is_blankz(Some(c));
                let plain = !indicator
                    || (c == '-' && !is_blank(self.at(1)))
                    || (!flow && matches!(c, '?' | ':') && !next_blank);
                if plain {
                    self.fetch_plain_scalar()
                } else {
                    Err(self.problem(self.mark, "found character that cannot start any token"))
                }
            }
        }
    }

    /// Passes over blanks, comments and line breaks. A tab does not count as indentation, so it is passed over only where none
    /// is expected.
    fn skip_to_next_token(&mut self) {
        loop {
            while self.at(0) == Some(' ')
                || (self.at(0) == Some('\t') && (self.in_flow() || !self.simple_key_allowed))
            {
                self.advance();
            }
            if self.at(0) == Some('#') {
                self.take_while(|c| !is_breakz(c));
            }
            if self.take_break().is_none() {
                return;
            }
            if !self.in_flow() {
                self.simple_key_allowed = true;
            }
        }
    }

    /// `---` or `...` at the beginning of a line.
    fn document_indicator(&self) -> Option<TokenKind> {
        if self.mark.column != 0 || !is_blankz(self.at(3)) {
            return None;
        }
        match [self.at(0)?, self.at(1)?, self.at(2)?] {
            ['-', '-', '-'] => Some(TokenKind::DocumentStart),
            ['.', '.', '.'] => Some(TokenKind::DocumentEnd),
            _ => None,
        }
    }

    /// A token of one character.
    fn fetch_indicator(&mut self, kind: TokenKind) {
        let start = self.mark;
        self.advance();
        self.push(kind, start);
    }

    fn fetch_stream_end(&mut self) -> Scan<()> {
        // As if the last line had an end; problems are then reported on the line after it, as in Go.
        if self.mark.column != 0 {
            self.mark.column = 0;
            self.mark.line += 1;
        }
        self.unroll_indent(-1);
        self.remove_simple_key()?;
        self.simple_key_allowed = false;
        self.push(TokenKind::StreamEnd, self.mark);
        self.ended = true;
        Ok(())
    }

    fn fetch_flow_start(&mut self, kind: TokenKind) -> Scan<()> {
        self.save_simple_key()?;
        let token = self.taken + self.tokens.len();
        // A level of its own for the keys inside. The bracket itself may be a key, on the level around it.
        self.simple_keys.push(SimpleKey { token, ..SimpleKey::default() });
        self.simple_key_allowed = true;
        self.fetch_indicator(kind);
        Ok(())
    }

    /// A closing bracket. One that was not opened is for the grammar to refuse.
    fn fetch_flow_end(&mut self, kind: TokenKind) -> Scan<()> {
        self.remove_simple_key()?;
        if self.in_flow()
            && let Some(key) = self.simple_keys.pop()
        {
            self.forget_candidate(key.token);
        }
        self.simple_key_allowed = false;
        self.fetch_indicator(kind);
        Ok(())
    }

    fn fetch_block_entry(&mut self) -> Scan<()> {
        if !self.in_flow() {
            if !self.simple_key_allowed {
                return Err(self.problem(self.mark, "block sequence entries are not allowed in this context"));
            }
            self.roll_indent(self.column(), None, TokenKind::BlockSequenceStart, self.mark);
        }
        self.remove_simple_key()?;
        self.simple_key_allowed = true;
        self.fetch_indicator(TokenKind::BlockEntry);
        Ok(())
    }

    fn fetch_key(&mut self) -> Scan<()> {
        if !self.in_flow() {
            if !self.simple_key_allowed {
                return Err(self.problem(self.mark, "mapping keys are not allowed in this context"));
            }
            self.roll_indent(self.column(), None, TokenKind::BlockMappingStart, self.mark);
        }
        self.remove_simple_key()?;
        self.simple_key_allowed = !self.in_flow();
        self.fetch_indicator(TokenKind::Key);
        Ok(())
    }

    fn fetch_value(&mut self) -> Scan<()> {
        // There is always one level. With a possible key this `:` makes it one: the `Key` goes before the token that is in the
        // queue already, and the mapping that begins with it before that. Without one the key is empty, or began with `?`.
        let last = self.simple_keys.len() - 1;
        if self.still_valid(last)? {
            let key = self.simple_keys[last];
            let token = Token { kind: TokenKind::Key, start: key.mark, end: key.mark };
            self.insert(key.token, token);
            let column = isize::try_from(key.mark.column).unwrap_or(isize::MAX);
            self.roll_indent(column, Some(key.token), TokenKind::BlockMappingStart, key.mark);
            self.simple_keys[last].possible = false;
            self.forget_candidate(key.token);
            self.simple_key_allowed = false;
        } else {
            if !self.in_flow() {
                if !self.simple_key_allowed {
                    return Err(self.problem(self.mark, "mapping values are not allowed in this context"));
                }
                self.roll_indent(self.column(), None, TokenKind::BlockMappingStart, self.mark);
            }
            self.simple_key_allowed = !self.in_flow();
        }
        self.fetch_indicator(TokenKind::Value);
        Ok(())
    }

    fn fetch_anchor(&mut self, is_alias: bool) -> Scan<()> {
        self.save_simple_key()?;
        self.simple_key_allowed = false;
        let start = self.mark;
        self.advance();
        let name = self.position;
        self.take_while(is_word);
        let name = self.text_since(name);
        let ends = is_blankz(self.at(0)) || self.at(0).is_some_and(|c| "?:,]}%@`".contains(c));
        if name.length == 0 || !ends {
            return Err(self.problem(start, "did not find expected alphabetic or numeric character"));
        }
        self.push(if is_alias { TokenKind::Alias(name) } else { TokenKind::Anchor(name) }, start);
        Ok(())
    }

    fn fetch_tag(&mut self) -> Scan<()> {
        self.save_simple_key()?;
        self.simple_key_allowed = false;
        let start = self.mark;
        let begin = self.position;
        let (handle, suffix) = if self.at(1) == Some('<') {
            self.advance_by(2);
            let uri = self.tag_uri("", start)?;
            if self.at(0) != Some('>') {
                return Err(self.problem(start, "did not find the expected '>'"));
            }
            self.advance();
            (Text::default(), uri)
        } else {
            let handle = self.tag_handle(false, start)?;
            if handle.len() > 1 && handle.ends_with('!') {
                (self.text_since(begin), self.tag_uri("", start)?)
            } else {
                let suffix = self.tag_uri(handle, start)?;
                // A lone `!` is a tag of its own.
                let mark = self.texts.slice(begin, begin + 1);
                if suffix.length == 0 { (Text::default(), mark) } else { (mark, suffix) }
            }
        };
        if !is_blankz(self.at(0)) {
            return Err(self.problem(start, "did not find expected whitespace or line break"));
        }
        self.push(TokenKind::Tag { handle, suffix }, start);
        Ok(())
    }

    /// `!`, `!!` or `!name!`; a tag may also be a `!` with its suffix directly behind it.
    fn tag_handle(&mut self, directive: bool, start: Mark) -> Scan<&'a str> {
        const WRONG: &str = "did not find expected '!'";
        let begin = self.position;
        if self.at(0) != Some('!') {
            return Err(self.problem(start, WRONG));
        }
        self.advance();
        let name = self.take_while(is_word);
        if self.at(0) == Some('!') {
            self.advance();
        } else if directive && !name.is_empty() {
            return Err(self.problem(start, WRONG));
        }
        Ok(&self.texts.source[begin..self.position])
    }

    /// A URI; `head` is a handle whose name turned out to be the beginning of the URI.
    fn tag_uri(&mut self, head: &str, start: Mark) -> Scan<Text> {
        let mut bytes = head.as_bytes().get(1..).unwrap_or_default().to_vec();
        let mut any = !head.is_empty();
        while let Some(c) = self.at(0).filter(|c| is_word(Some(*c)) || ";/?:@&=+$,.!~*'()[]%".contains(*c)) {
            any = true;
            self.advance();
            // All characters that get here are ASCII, so the cast cuts nothing off.
            if c != '%' {
                bytes.push(c as u8);
                continue;
            }
            let digit = |c: Option<char>| c.and_then(|c| c.to_digit(16));
            let (Some(high), Some(low)) = (digit(self.at(0)), digit(self.at(1))) else {
                return Err(self.problem(start, "did not find URI escaped octet"));
            };
            self.advance_by(2);
            bytes.push((high * 16 + low) as u8);
        }
        if !any {
            return Err(self.problem(start, "did not find expected tag URI"));
        }
        let uri = std::str::from_utf8(&bytes)
            .map_err(|_| self.problem(start, "found an incorrect leading UTF-8 octet"))?;
        let begin = self.texts.made.len();
        self.texts.made.push_str(uri);
        Ok(self.texts.made_since(begin))
    }

    fn fetch_directive(&mut self) -> Scan<()> {
        self.unroll_indent(-1);
        self.remove_simple_key()?;
        self.simple_key_allowed = false;
        let start = self.mark;
        self.advance();
        let name = self.take_while(is_word);
        if name.is_empty() {
            return Err(self.problem(start, "could not find expected directive name"));
        }
        if !is_blankz(self.at(0)) {
            return Err(self.problem(start, "found unexpected non-alphabetical character"));
        }
        let kind = match name {
            "YAML" => {
                self.take_while(is_blank);
                let major = self.version_number(start)?;
                if self.at(0) != Some('.') {
                    return Err(self.problem(start, "did not find expected digit or '.' character"));
                }
                self.advance();
                TokenKind::VersionDirective { major, minor: self.version_number(start)? }
            }
            "TAG" => {
                self.take_while(is_blank);
                let begin = self.position;
                self.tag_handle(true, start)?;
                let handle = self.text_since(begin);
                if !is_blank(self.at(0)) {
                    return Err(self.problem(start, "did not find expected whitespace"));
                }
                self.take_while(is_blank);
                let prefix = self.tag_uri("", start)?;
                if !is_blankz(self.at(0)) {
                    return Err(self.problem(start, "did not find expected whitespace or line break"));
                }
                TokenKind::TagDirective { handle, prefix }
            }
            _ => return Err(self.problem(start, "found unknown directive name")),
        };
        self.push(kind, start);
        self.end_of_line(start)
    }

    /// One of the two numbers of `%YAML 1.1`.
    fn version_number(&mut self, start: Mark) -> Scan<u32> {
        let digits = self.take_while(|c| c.is_some_and(|c| c.is_ascii_digit()));
        if digits.len() > 2 {
            return Err(self.problem(start, "found extremely long version number"));
        }
        digits.parse().map_err(|_| self.problem(start, "did not find expected version number"))
    }

    /// What may stand at the end of a line: blanks and a comment.
    fn end_of_line(&mut self, start: Mark) -> Scan<()> {
        self.take_while(is_blank);
        if self.at(0) == Some('#') {
            self.take_while(|c| !is_breakz(c));
        }
        if !is_breakz(self.at(0)) {
            return Err(self.problem(start, "did not find expected comment or line break"));
        }
        self.take_break();
        Ok(())
    }
}
