//! The events of a YAML stream: libyaml's grammar over the scanner's tokens (`parserc.go` of Go's yaml package).

use super::error::YamlError;
use super::resolve::Tag;
use super::scanner::{Mark, Problem, Scanner, Text, Texts, Token, TokenKind};
use std::collections::HashMap;

/// What a YAML stream consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    DocumentStart,
    DocumentEnd,
    StreamEnd,
    Alias(Text),
    Scalar { anchor: Option<Text>, tag: Option<Tag>, value: Text, plain: bool },
    Start { anchor: Option<Text>, is_mapping: bool },
    End,
}

/// An event and the line on which it begins, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Located {
    pub(super) event: Event,
    pub(super) line: u32,
}

/// What comes next (`yaml_parser_state_t`). `first`: the token that opens the collection is still to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    DocumentStart,
    DocumentContent,
    BlockNode,
    DocumentEnd,
    BlockSequenceEntry { first: bool },
    IndentlessSequenceEntry,
    BlockMappingKey { first: bool },
    BlockMappingValue,
    FlowSequenceEntry { first: bool },
    FlowPairKey,
    FlowPairValue,
    FlowPairEnd,
    FlowMappingKey { first: bool },
    FlowMappingValue { empty: bool },
}

/// Turns tokens into events. A state machine with a stack of its own, so that nesting needs no recursion.
pub(super) struct Events<'a> {
    scanner: Scanner<'a>,
    state: State,
    /// The states to go back to, one for each collection that is open and one for the document.
    states: Vec<State>,
    /// Where the open collections began.
    marks: Vec<Mark>,
    /// What the handles of tags stand for, in this document.
    tags: HashMap<&'a str, Text>,
}

impl From<Problem> for YamlError {
    fn from(problem: Problem) -> Self {
        // Go counts lines from 1 for problems of the scanner, from 0 for all others, and leaves out line 0.
        let line = match (problem.at.line, problem.context.line) {
            (0, context) => context,
            (line, _) => line + u32::from(problem.by_scanner),
        };
        if line == 0 {
            YamlError::new(problem.text)
        } else {
            YamlError::new(format_args!("line {line}: {}", problem.text))
        }
    }
}

type Step = Result<Located, Problem>;

/// A problem of the grammar.
fn complaint(context: Mark, text: &'static str, at: Mark) -> Problem {
    Problem { text, at, context, by_scanner: false }
}

/// The scalar that is meant where none is written: null.
fn empty_scalar(mark: Mark) -> Located {
    let event = Event::Scalar { anchor: None, tag: None, value: Text::default(), plain: true };
    Located { event, line: mark.line }
}

impl<'a> Events<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Result<Self, YamlError> {
        Ok(Self {
            scanner: Scanner::new(bytes)?,
            state: State::DocumentStart,
            states: Vec::new(),
            marks: Vec::new(),
            tags: HashMap::new(),
        })
    }

    /// The next event. Behind the first document the stream is not read.
    pub(super) fn next_event(&mut self) -> Result<Located, YamlError> {
        Ok(self.step()?)
    }

    /// The texts of the events so far.
    pub(super) fn texts(&self) -> &Texts<'a> {
        self.scanner.texts()
    }

    /// The texts of the events, when no more are wanted.
    pub(super) fn into_texts(self) -> Texts<'a> {
        self.scanner.into_texts()
    }

    fn step(&mut self) -> Step {
        match self.state {
            State::DocumentStart => self.document_start(),
            State::DocumentContent => self.document_content(),
            State::BlockNode => self.node(true, false),
            State::DocumentEnd => self.document_end(),
            State::BlockSequenceEntry { first } => self.block_sequence_entry(first),
            State::IndentlessSequenceEntry => self.indentless_sequence_entry(),
            State::BlockMappingKey { first } => self.block_mapping_key(first),
            State::BlockMappingValue => self.block_mapping_value(),
            State::FlowSequenceEntry { first } => self.flow_sequence_entry(first),
            State::FlowPairKey => self.flow_pair_key(),
            State::FlowPairValue => self.flow_pair_value(),
            State::FlowPairEnd => {
                self.state = State::FlowSequenceEntry { first: false };
                let line = self.peek()?.start.line;
                Ok(Located { event: Event::End, line })
            }
            State::FlowMappingKey { first } => self.flow_mapping_key(first),
            State::FlowMappingValue { empty } => self.flow_mapping_value(empty),
        }
    }

    /// The next token, copied: the state changes while it is looked at.
    fn peek(&mut self) -> Result<Token, Problem> {
        self.scanner.peek()
    }

    /// Goes back to what surrounds the node that is complete.
    fn pop(&mut self) {
        self.state = self.states.pop().unwrap_or(State::DocumentEnd);
    }

    /// The end of a collection.
    fn close(&mut self, token: &Token) -> Located {
        self.pop();
        self.marks.pop();
        self.scanner.skip();
        Located { event: Event::End, line: token.start.line }
    }

    /// A node, and then `next`.
    fn node_then(&mut self, next: State, block: bool, indentless: bool) -> Step {
        self.states.push(next);
        self.node(block, indentless)
    }

    /// The start of a document. Without `---` the content begins at once, and there may be no directives.
    fn document_start(&mut self) -> Step {
        let token = self.peek()?;
        let explicit = matches!(
            token.kind,
            TokenKind::VersionDirective { .. }
                | TokenKind::TagDirective { .. }
                | TokenKind::DocumentStart
                | TokenKind::StreamEnd
        );
        if token.kind == TokenKind::StreamEnd {
            return Ok(Located { event: Event::StreamEnd, line: token.start.line });
        }
        self.directives()?;
        self.states.push(State::DocumentEnd);
        self.state = State::BlockNode;
        if explicit {
            let token = self.peek()?;
            if token.kind != TokenKind::DocumentStart {
                let text = "did not find expected <document start>";
                return Err(complaint(Mark::default(), text, token.start));
            }
            self.scanner.skip();
            self.state = State::DocumentContent;
        }
        Ok(Located { event: Event::DocumentStart, line: token.start.line })
    }

    /// The `%YAML` and `%TAG` lines before a document.
    fn directives(&mut self) -> Result<(), Problem> {
        let mut version = None;
        loop {
            let token = self.peek()?;
            let wrong = |text| Err(complaint(Mark::default(), text, token.start));
            match token.kind {
                TokenKind::VersionDirective { .. } if version.is_some() => {
                    return wrong("found duplicate %YAML directive");
                }
                TokenKind::VersionDirective { major, minor } => {
                    if (major, minor) != (1, 1) {
                        return wrong("found incompatible YAML document");
                    }
                    version = Some((major, minor));
                }
                TokenKind::TagDirective { handle, prefix } => {
                    let handle = self.scanner.texts().name(handle);
                    if self.tags.insert(handle, prefix).is_some() {
                        return wrong("found duplicate %TAG directive");
                    }
                }
                _ => break,
            }
            self.scanner.skip();
        }
        Ok(())
    }

    /// What follows `---`: a node, or nothing, which is null.
    fn document_content(&mut self) -> Step {
        let token = self.peek()?;
        match token.kind {
            TokenKind::VersionDirective { .. }
            | TokenKind::TagDirective { .. }
            | TokenKind::DocumentStart
            | TokenKind::DocumentEnd
            | TokenKind::StreamEnd => {
                self.pop();
                Ok(empty_scalar(token.start))
            }
            _ => self.node(true, false),
        }
    }

    /// The end of a document, with `...` or without.
    fn document_end(&mut self) -> Step {
        let token = self.peek()?;
        if token.kind == TokenKind::DocumentEnd {
            self.scanner.skip();
        }
        self.state = State::DocumentStart;
        Ok(Located { event: Event::DocumentEnd, line: token.start.line })
    }

    /// A node: an alias, or anchor and tag in either order, then a scalar or the start of a collection. `block`: block
    /// collections may begin here; `indentless`: also a sequence that is not indented, which is the case of a mapping's value.
    fn node(&mut self, block: bool, indentless: bool) -> Step {
        let mut token = self.peek()?;
        let start = token.start;
        let located = |event| Ok(Located { event, line: start.line });
        if let TokenKind::Alias(name) = token.kind {
            self.pop();
            self.scanner.skip();
            return located(Event::Alias(name));
        }
        let (mut anchor, mut tag) = (None, None);
        loop {
            match token.kind {
                TokenKind::Anchor(name) if anchor.is_none() => anchor = Some(name),
                TokenKind::Tag { handle, suffix } if tag.is_none() => {
                    tag = Some(self.resolve_tag(handle, suffix, start, token.start)?);
                }
                kind => {
                    token.kind = kind;
                    break;
                }
            }
            self.scanner.skip();
            token = self.peek()?;
        }
        // The tag of a collection means nothing to the decoder, so the event has none.
        let begin = |events: &mut Self, state, is_mapping| {
            events.state = state;
            located(Event::Start { anchor, is_mapping })
        };
        match token.kind {
            TokenKind::BlockEntry if indentless => begin(self, State::IndentlessSequenceEntry, false),
            TokenKind::Scalar { value, plain } => {
                self.pop();
                self.scanner.skip();
                located(Event::Scalar { anchor, tag, value, plain })
            }
            TokenKind::FlowSequenceStart => begin(self, State::FlowSequenceEntry { first: true }, false),
            TokenKind::FlowMappingStart => begin(self, State::FlowMappingKey { first: true }, true),
            TokenKind::BlockSequenceStart if block => {
                begin(self, State::BlockSequenceEntry { first: true }, false)
            }
            TokenKind::BlockMappingStart if block => {
                begin(self, State::BlockMappingKey { first: true }, true)
            }
            // An anchor or tag alone stands for an empty scalar.
            _ if anchor.is_some() || tag.is_some() => {
                self.pop();
                located(Event::Scalar { anchor, tag, value: Text::default(), plain: true })
            }
            _ => Err(complaint(start, "did not find expected node content", token.start)),
        }
    }

    /// What a tag means, when its handle is replaced by what that stands for.
    fn resolve_tag(&self, handle: Text, suffix: Text, start: Mark, at: Mark) -> Result<Tag, Problem> {
        let texts = self.scanner.texts();
        let handle = texts.name(handle);
        let prefix = match (handle, self.tags.get(handle)) {
            ("", _) => "",
            (_, Some(prefix)) => texts.get(*prefix),
            // These two need no directive, but one may redefine them.
            ("!", None) => "!",
            ("!!", None) => "tag:yaml.org,2002:",
            (_, None) => return Err(complaint(start, "found undefined tag handle", at)),
        };
        Ok(Tag::of(prefix, texts.get(suffix)))
    }

    /// Takes the token that opens a collection and remembers where it stands.
    fn open(&mut self, first: bool) -> Result<(), Problem> {
        // In the collection's first state and not when its event is made, as in libyaml.
        if first {
            let token = self.peek()?;
            self.marks.push(token.start);
            self.scanner.skip();
        }
        Ok(())
    }

    /// The problem of a collection whose end is missing.
    fn unfinished(&mut self, text: &'static str, token: &Token) -> Problem {
        complaint(self.marks.pop().unwrap_or_default(), text, token.start)
    }

    /// `- node`, or the end of the sequence.
    fn block_sequence_entry(&mut self, first: bool) -> Step {
        self.open(first)?;
        let token = self.peek()?;
        let again = State::BlockSequenceEntry { first: false };
        match token.kind {
            TokenKind::BlockEntry => {
                self.scanner.skip();
                // Nothing behind the `-`.
                if matches!(self.peek()?.kind, TokenKind::BlockEntry | TokenKind::BlockEnd) {
                    self.state = again;
                    return Ok(empty_scalar(token.end));
                }
                self.node_then(again, true, false)
            }
            TokenKind::BlockEnd => Ok(self.close(&token)),
            _ => Err(self.unfinished("did not find expected '-' indicator", &token)),
        }
    }

    /// `- node` of a sequence at the column of the key above it. No token begins or ends such a sequence: it is over with the
    /// first one that is no `-`.
    fn indentless_sequence_entry(&mut self) -> Step {
        let token = self.peek()?;
        if token.kind != TokenKind::BlockEntry {
            self.pop();
            return Ok(Located { event: Event::End, line: token.start.line });
        }
        self.scanner.skip();
        match self.peek()?.kind {
            TokenKind::BlockEntry | TokenKind::Key | TokenKind::Value | TokenKind::BlockEnd => {
                self.state = State::IndentlessSequenceEntry;
                Ok(empty_scalar(token.end))
            }
            _ => self.node_then(State::IndentlessSequenceEntry, true, false),
        }
    }

    /// A key, or the end of the mapping.
    fn block_mapping_key(&mut self, first: bool) -> Step {
        self.open(first)?;
        let token = self.peek()?;
        match token.kind {
            TokenKind::Key => {
                self.scanner.skip();
                match self.peek()?.kind {
                    // A `?` with nothing behind it: the key is null.
                    TokenKind::Key | TokenKind::Value | TokenKind::BlockEnd => {
                        self.state = State::BlockMappingValue;
                        Ok(empty_scalar(token.end))
                    }
                    _ => self.node_then(State::BlockMappingValue, true, true),
                }
            }
            TokenKind::BlockEnd => Ok(self.close(&token)),
            _ => Err(self.unfinished("did not find expected key", &token)),
        }
    }

    /// The value of the key that was read.
    fn block_mapping_value(&mut self) -> Step {
        let token = self.peek()?;
        let next = State::BlockMappingKey { first: false };
        // A `? key` without a `:` has the value null.
        if token.kind != TokenKind::Value {
            self.state = next;
            return Ok(empty_scalar(token.start));
        }
        self.scanner.skip();
        match self.peek()?.kind {
            TokenKind::Key | TokenKind::Value | TokenKind::BlockEnd => {
                self.state = next;
                Ok(empty_scalar(token.end))
            }
            _ => self.node_then(next, true, true),
        }
    }

    /// A node and its comma, or the end of the sequence.
    fn flow_sequence_entry(&mut self, first: bool) -> Step {
        self.open(first)?;
        let mut token = self.peek()?;
        if token.kind != TokenKind::FlowSequenceEnd && !first {
            if token.kind != TokenKind::FlowEntry {
                return Err(self.unfinished("did not find expected ',' or ']'", &token));
            }
            self.scanner.skip();
            token = self.peek()?;
        }
        match token.kind {
            // `[a: b]` is a sequence of one mapping with one key.
            TokenKind::Key => {
                self.state = State::FlowPairKey;
                self.scanner.skip();
                let event = Event::Start { anchor: None, is_mapping: true };
                Ok(Located { event, line: token.start.line })
            }
            TokenKind::FlowSequenceEnd => Ok(self.close(&token)),
            _ => self.node_then(State::FlowSequenceEntry { first: false }, false, false),
        }
    }

    fn flow_pair_key(&mut self) -> Step {
        let token = self.peek()?;
        match token.kind {
            TokenKind::Value | TokenKind::FlowEntry | TokenKind::FlowSequenceEnd => {
                // libyaml takes the token here, so that `[? : b]` is an error.
                self.scanner.skip();
                self.state = State::FlowPairValue;
                Ok(empty_scalar(token.end))
            }
            _ => self.node_then(State::FlowPairValue, false, false),
        }
    }

    fn flow_pair_value(&mut self) -> Step {
        let mut token = self.peek()?;
        if token.kind == TokenKind::Value {
            self.scanner.skip();
            token = self.peek()?;
            if !matches!(token.kind, TokenKind::FlowEntry | TokenKind::FlowSequenceEnd) {
                return self.node_then(State::FlowPairEnd, false, false);
            }
        }
        self.state = State::FlowPairEnd;
        Ok(empty_scalar(token.start))
    }

    /// A key and the comma before it, or the end of the mapping.
    fn flow_mapping_key(&mut self, first: bool) -> Step {
        self.open(first)?;
        let mut token = self.peek()?;
        if token.kind != TokenKind::FlowMappingEnd && !first {
            if token.kind != TokenKind::FlowEntry {
                return Err(self.unfinished("did not find expected ',' or '}'", &token));
            }
            self.scanner.skip();
            token = self.peek()?;
        }
        match token.kind {
            TokenKind::Key => {
                self.scanner.skip();
                token = self.peek()?;
                match token.kind {
                    TokenKind::Value | TokenKind::FlowEntry | TokenKind::FlowMappingEnd => {
                        self.state = State::FlowMappingValue { empty: false };
                        Ok(empty_scalar(token.start))
                    }
                    _ => self.node_then(State::FlowMappingValue { empty: false }, false, false),
                }
            }
            TokenKind::FlowMappingEnd => Ok(self.close(&token)),
            _ => self.node_then(State::FlowMappingValue { empty: true }, false, false),
        }
    }

    /// The value of the key that was read; with `empty` the key came without a `?` or `:`, and has none.
    fn flow_mapping_value(&mut self, empty: bool) -> Step {
        let mut token = self.peek()?;
        let next = State::FlowMappingKey { first: false };
        if !empty && token.kind == TokenKind::Value {
            self.scanner.skip();
            token = self.peek()?;
            if !matches!(token.kind, TokenKind::FlowEntry | TokenKind::FlowMappingEnd) {
                return self.node_then(next, false, false);
            }
        }
        self.state = next;
        Ok(empty_scalar(token.start))
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;

    #[test]
    fn errors_are_those_of_go() {
        for (text, expected) in [
            ("{", "line 1: did not find expected node content"),
            ("a: b: c", "mapping values are not allowed in this context"),
            (
                "apiVersion: v1\nkind: ServiceAccount\nmetadata:\n  name: [broken\n",
                "line 4: did not find expected ',' or ']'",
            ),
            ("apiVersion: v1\nkind: [\n", "line 2: did not find expected node content"),
            ("a:\n  b: c: d", "line 2: mapping values are not allowed in this context"),
            ("a: 1\n b: 2\n", "line 2: mapping values are not allowed in this context"),
            ("a: 1\nb\n", "line 3: could not find expected ':'"),
            ("a: 1\n- b\n", "line 1: did not find expected key"),
            ("- a\nb: 1\n", "line 1: did not find expected '-' indicator"),
            ("a:\n\t- b\n", "line 2: found character that cannot start any token"),
            ("a: 'b\n", "line 2: found unexpected end of stream"),
            ("a: \"\\q\"\n", "found unknown escape character"),
            ("a: {b: c\n", "line 1: did not find expected ',' or '}'"),
            ("a: @b\n", "found character that cannot start any token"),
            ("a: *b\n", "unknown anchor 'b' referenced"),
            ("a: &x [*x]\n", "anchor 'x' value contains itself"),
            ("a: !x!y z\n", "found undefined tag handle"),
            ("a: \u{1}\n", "control characters are not allowed"),
            ("a: |0\n  b\n", "found an indentation indicator equal to 0"),
        ] {
            let error = parse(text.as_bytes()).map(|document| document.raw).unwrap_err();
            assert_eq!(error.to_string(), format!("yaml: {expected}"), "{text:?}");
        }
    }
}
