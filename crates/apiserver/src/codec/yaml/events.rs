//! The events of a YAML stream.

use super::YamlError;
use saphyr_parser::{Event as Parsed, Parser, ScalarStyle, StrInput};

/// What a YAML stream consists of.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Event {
    DocumentStart,
    DocumentEnd,
    StreamEnd,
    Alias(String),
    Scalar { anchor: Option<String>, tag: Option<String>, value: String, plain: bool },
    Start { anchor: Option<String>, is_mapping: bool },
    End,
}

/// An event and the line on which it begins, from 0.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Located {
    pub(super) event: Event,
    pub(super) line: u64,
}

pub(super) struct Events<'a> {
    parser: Parser<'a, StrInput<'a>>,
}

impl<'a> Events<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Result<Self, YamlError> {
        let text = std::str::from_utf8(bytes).map_err(|_| YamlError::new("invalid leading UTF-8 octet"))?;
        Ok(Self { parser: Parser::new_from_str(text) })
    }

    pub(super) fn next_event(&mut self) -> Result<Located, YamlError> {
        let anchor = |id: usize| (id != 0).then(|| id.to_string());
        loop {
            let Some(next) = self.parser.next_event() else {
                return Ok(Located { event: Event::StreamEnd, line: 0 });
            };
            let (event, span) = next.map_err(|e| YamlError::new(e.info()))?;
            let event = match event {
                Parsed::Nothing | Parsed::StreamStart => continue,
                Parsed::StreamEnd => Event::StreamEnd,
                Parsed::DocumentStart(_) => Event::DocumentStart,
                Parsed::DocumentEnd => Event::DocumentEnd,
                Parsed::Alias(id) => Event::Alias(id.to_string()),
                Parsed::Scalar(value, style, id, tag) => Event::Scalar {
                    anchor: anchor(id),
                    plain: style == ScalarStyle::Plain,
                    tag: tag.map(|tag| format!("{}{}", tag.handle, tag.suffix)),
                    value: value.into_owned(),
                },
                Parsed::SequenceStart(id, _) => Event::Start { anchor: anchor(id), is_mapping: false },
                Parsed::MappingStart(id, _) => Event::Start { anchor: anchor(id), is_mapping: true },
                Parsed::SequenceEnd | Parsed::MappingEnd => Event::End,
            };
            return Ok(Located { event, line: span.start.line().saturating_sub(1) as u64 });
        }
    }
}
