//! All that this crate knows of how Go and Kubernetes word their errors.

use crate::error::{
    Base64Error, CustomResourceError, DecodeError, FieldPathError, Found, QuantityError, RegexpError,
    TimeError, TimeLayout, TimePart, TimeProblem, TypeMismatch,
};
use fleetpass_apimachinery::field::go_quote;
use fleetpass_apimachinery::json::TooDeep;
use std::fmt;

/// An error, worded to the byte as kube-apiserver quotes it in its answers.
///
/// ```
/// use fleetpass_schema::{go, quantity};
///
/// let error = quantity::canonical("1 Gi").unwrap_err();
/// assert!(go::Words(&error).to_string().starts_with("quantities must match the regular expression"));
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Words<'a, E>(pub &'a E);

impl fmt::Display for Words<'_, DecodeError> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            DecodeError::Type(mismatch) => Words(&**mismatch).fmt(f),
            DecodeError::Time(error) => Words(&**error).fmt(f),
            DecodeError::Quantity(error) => Words(error).fmt(f),
            DecodeError::Base64(error) => Words(error).fmt(f),
            DecodeError::TooDeep => TooDeep.fmt(f),
            DecodeError::NotSchemaOrBool => f.write_str("boolean or JSON schema expected"),
        }
    }
}

/// `UnmarshalTypeError` of `encoding/json`, with the field path of `sigs.k8s.io/json`.
impl fmt::Display for Words<'_, TypeMismatch> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TypeMismatch { found, go_type, go_field, .. } = self.0;
        write!(f, "json: cannot unmarshal {}", found.go_name())?;
        if let Found::UnfitNumber(text) = found {
            write!(f, " {text}")?;
        }
        match go_field {
            None => write!(f, " into Go value of type {go_type}"),
            Some(field) => {
                let (outer, path) = (&field.struct_name, &field.path);
                write!(f, " into Go struct field {outer}.{path} of type {go_type}")
            }
        }
    }
}

/// `ParseError` of the package `time`.
impl fmt::Display for Words<'_, TimeError> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TimeError { text, layout, problem } = self.0;
        let layout = match layout {
            TimeLayout::Rfc3339 => "2006-01-02T15:04:05Z07:00",
            TimeLayout::Rfc3339Micro => "2006-01-02T15:04:05.000000Z07:00",
        };
        match problem {
            TimeProblem::Unexpected { expected, rest } => write!(
                f,
                "parsing time {} as {}: cannot parse {} as {}",
                time_quote(text),
                time_quote(layout),
                time_quote(rest),
                time_quote(&layout_element(*expected))
            ),
            TimeProblem::OutOfRange(part) => {
                write!(f, "parsing time {}: {part} out of range", time_quote(text))
            }
            TimeProblem::Trailing(rest) => {
                write!(f, "parsing time {}: extra text: {}", time_quote(text), time_quote(rest))
            }
            TimeProblem::Unreadable => {
                let text = go_quote(text);
                write!(f, "parsing time {text} as {}: cannot parse {text} as \"2006\"", go_quote(layout))
            }
        }
    }
}

/// A part of a time in Go's layouts, which are the time `Mon Jan 2 15:04:05 MST 2006` as they would print it.
fn layout_element(part: TimePart) -> String {
    match part {
        TimePart::Year => "2006",
        TimePart::Month => "01",
        TimePart::Day => "02",
        TimePart::Hour => "15",
        TimePart::Minute => "04",
        TimePart::Second => "05",
        TimePart::Fraction => ".000000",
        TimePart::Offset | TimePart::OffsetHour | TimePart::OffsetMinute => "Z07:00",
        TimePart::Separator(separator) => return separator.into(),
    }
    .into()
}

/// The quoting of the package `time`, which is not that of `strconv`: quotes and backslashes escaped, all else but
/// printable ASCII in hex, byte for byte.
fn time_quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        if c == '"' || c == '\\' {
            out.push('\\');
            out.push(c);
        } else if c < ' ' || c as u32 >= 0x80 {
            let mut buffer = [0; 4];
            for byte in c.encode_utf8(&mut buffer).bytes() {
                out.push_str(&format!("\\x{byte:02x}"));
            }
        } else {
            out.push(c);
        }
    }
    out.push('"');
    out
}

/// `ErrFormatWrong`, `ErrNumeric` and `ErrSuffix` of `k8s.io/apimachinery/pkg/api/resource/quantity.go`.
impl fmt::Display for Words<'_, QuantityError> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            QuantityError::Format => {
                "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
            }
            QuantityError::Number => "unable to parse numeric part of quantity",
            QuantityError::Suffix => "unable to parse quantity's suffix",
        })
    }
}

/// `CorruptInputError` of `encoding/base64`.
impl fmt::Display for Words<'_, Base64Error> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "illegal base64 data at input byte {}", self.0.offset)
    }
}

/// `Error` of `regexp/syntax`.
impl fmt::Display for Words<'_, RegexpError> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error parsing regexp: {}: `{}`", self.0.problem, self.0.part)
    }
}

/// `ValidFieldPath` in `apiextensions-apiserver/pkg/apiserver/schema/cel/validation.go`.
impl fmt::Display for Words<'_, FieldPathError> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            FieldPathError::UnexpectedEnd => f.write_str("unexpected end of JSON path"),
            FieldPathError::NoSuchField => f.write_str("does not refer to a valid field"),
            FieldPathError::BracketsNotAllowed => f.write_str("array notation is not allowed"),
            FieldPathError::NotQuoted(found) => write!(f, "expected single quoted string but got {found}"),
            FieldPathError::NotClosed(found) => write!(f, "expected ] but got {found}"),
            FieldPathError::NotAStep(found) => write!(f, "expected [ or . but got: {found}"),
        }
    }
}

impl fmt::Display for Words<'_, CustomResourceError> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            CustomResourceError::Metadata(error) => Words(error).fmt(f),
            CustomResourceError::Embedded(error) => error.fmt(f),
        }
    }
}
