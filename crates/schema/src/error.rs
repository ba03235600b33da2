//! Why something does not decode, compile or parse, as facts.
//!
//! An error says what was found, what was expected and where; its `Display` words that in plain English.
//! kube-apiserver's answers quote the errors of Go's libraries instead: [`crate::go::Words`] around an error words it
//! as they do, to the byte. A caller with other readers matches on the facts.

use crate::json_type::Type;
use fleetpass_apimachinery::{field, json};
use std::fmt;

/// Why JSON does not fit the Go type of a built-in kind, or of object metadata.
///
/// The large facts are boxed, because the decoder returns a `Result` from every level of its recursion.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A value of another type, or a number that does not fit.
    #[error(transparent)]
    Type(Box<TypeMismatch>),
    /// A string that is no time.
    #[error(transparent)]
    Time(Box<TimeError>),
    /// A text that is no quantity.
    #[error(transparent)]
    Quantity(#[from] QuantityError),
    /// A string that is no base64.
    #[error(transparent)]
    Base64(#[from] Base64Error),
    /// A value is nested more deeply than [`MAX_KEPT_DEPTH`](json::MAX_KEPT_DEPTH).
    #[error("nested more deeply than {} levels", json::MAX_KEPT_DEPTH)]
    TooDeep,
    /// `additionalProperties`, `additionalItems` or the like of a CRD's schema is neither a boolean nor a schema.
    #[error("neither a boolean nor a schema")]
    NotSchemaOrBool,
}

impl From<TypeMismatch> for DecodeError {
    fn from(mismatch: TypeMismatch) -> Self {
        Self::Type(Box::new(mismatch))
    }
}

impl From<TimeError> for DecodeError {
    fn from(error: TimeError) -> Self {
        Self::Time(Box::new(error))
    }
}

impl From<json::TooDeep> for DecodeError {
    fn from(_: json::TooDeep) -> Self {
        Self::TooDeep
    }
}

/// A value whose type is not the one that the schema has at its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeMismatch {
    /// Where the value is, from the root of what is decoded (`rules[0].verbs`); empty for the root itself.
    pub path: String,
    /// What was found.
    pub found: Found,
    /// The JSON type that was expected.
    pub expected: Type,
    /// The Go type that was expected (`[]string`, `int32`, `v1.ObjectMeta`).
    pub go_type: String,
    /// The field as Go names it; `None` where Go's decoder knows of none around the value.
    pub go_field: Option<GoField>,
}

impl fmt::Display for TypeMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        match &self.found {
            Found::UnfitNumber(text) => write!(f, "{text} does not fit {}", self.go_type),
            found => write!(f, "expected {}, found {}", self.expected.name(), found.go_name()),
        }
    }
}

impl std::error::Error for TypeMismatch {}

/// A field as Go's JSON decoder names it: the path has fields of structs only, neither indexes nor keys of maps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoField {
    /// The innermost struct around the value (`PolicyRule`).
    pub struct_name: String,
    /// The fields from the root to the value (`rules.verbs`).
    pub path: String,
}

/// What stands where something else was expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool,
    /// A number where none was expected.
    Number,
    /// A number where one was expected, that the type cannot hold: its text (`6e2` for a whole number).
    UnfitNumber(String),
    /// A string.
    String,
    /// A list.
    Array,
    /// An object.
    Object,
}

impl Found {
    /// The name of the type in Go's decoding errors.
    pub(crate) fn go_name(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool => "bool",
            Self::Number | Self::UnfitNumber(_) => "number",
            Self::String => "string",
            Self::Array => "array",
            Self::Object => "object",
        }
    }
}

impl From<&json::Raw<'_>> for Found {
    fn from(raw: &json::Raw<'_>) -> Self {
        use json::Raw;
        match raw {
            Raw::Null => Self::Null,
            Raw::Bool(_) => Self::Bool,
            Raw::Number(_) => Self::Number,
            Raw::String(_) => Self::String,
            Raw::Array(_) => Self::Array,
            Raw::Object(_) => Self::Object,
        }
    }
}

impl From<&serde_json::Value> for Found {
    fn from(value: &serde_json::Value) -> Self {
        use serde_json::Value;
        match value {
            Value::Null => Self::Null,
            Value::Bool(_) => Self::Bool,
            Value::Number(_) => Self::Number,
            Value::String(_) => Self::String,
            Value::Array(_) => Self::Array,
            Value::Object(_) => Self::Object,
        }
    }
}

/// Why a text is no time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no time as {layout} has it: {problem}")]
pub struct TimeError {
    /// The text.
    pub text: String,
    /// How it should have looked.
    pub layout: TimeLayout,
    /// What is wrong with it.
    pub problem: TimeProblem,
}

/// How a time is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeLayout {
    /// RFC 3339 (`metav1.Time`).
    Rfc3339,
    /// RFC 3339 with exactly six decimals (`metav1.MicroTime`).
    Rfc3339Micro,
}

impl fmt::Display for TimeLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rfc3339 => "RFC 3339",
            Self::Rfc3339Micro => "RFC 3339 with microseconds",
        })
    }
}

/// What is wrong with a time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimeProblem {
    /// Another part was expected where `rest` begins.
    #[error("expected {expected} at {rest:?}")]
    Unexpected {
        /// What was expected.
        expected: TimePart,
        /// The text from there on.
        rest: String,
    },
    /// A part has the right form and a value that no time has.
    #[error("{0} out of range")]
    OutOfRange(TimePart),
    /// Something follows the time.
    #[error("{0:?} after its end")]
    Trailing(String),
    /// No time; where it goes wrong is not known.
    #[error("no time at all")]
    Unreadable,
}

/// A part of a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimePart {
    /// Four digits.
    Year,
    /// Two digits.
    Month,
    /// Two digits.
    Day,
    /// One or two digits.
    Hour,
    /// One or two digits.
    Minute,
    /// One or two digits.
    Second,
    /// A point and six decimals.
    Fraction,
    /// `Z` or an offset from UTC.
    Offset,
    /// The hours of an offset.
    OffsetHour,
    /// The minutes of an offset.
    OffsetMinute,
    /// The character between two parts.
    Separator(char),
}

impl fmt::Display for TimePart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Year => "year",
            Self::Month => "month",
            Self::Day => "day",
            Self::Hour => "hour",
            Self::Minute => "minute",
            Self::Second => "second",
            Self::Fraction => "fractional second",
            Self::Offset => "time zone offset",
            Self::OffsetHour => "time zone offset hour",
            Self::OffsetMinute => "time zone offset minute",
            Self::Separator(separator) => return write!(f, "{separator:?}"),
        })
    }
}

/// Why a text is no `resource.Quantity`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Not a number with a suffix.
    #[error("a quantity is a number with a suffix, such as 100m or 1.5Gi")]
    Format,
    /// The number has no digits.
    #[error("the number of a quantity has no digits")]
    Number,
    /// No such suffix.
    #[error(
        "a quantity's suffix is one of n, u, m, k, M, G, T, P, E, Ki, Mi, Gi, Ti, Pi, Ei, or an exponent"
    )]
    Suffix,
}

/// A text that is not base64 as Go's `StdEncoding` reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no base64 from byte {offset} on")]
pub struct Base64Error {
    /// Where Go's decoder stops, in bytes.
    pub offset: usize,
}

/// Why a regular expression does not compile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem} in {part:?}")]
pub struct RegexpError {
    /// What is wrong.
    pub problem: RegexpProblem,
    /// The part of the expression that is wrong, or all of it.
    pub part: String,
}

/// What can be wrong with a regular expression (`ErrorCode` in `regexp/syntax/parse.go`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RegexpProblem {
    /// `*`, `+`, `?` or `{n}` with nothing before it.
    #[error("missing argument to repetition operator")]
    MissingRepeatArgument,
    /// A repetition of a repetition (`a**`).
    #[error("invalid nested repetition operator")]
    InvalidRepeatOp,
    /// A repeat count that is too large, or whose bounds are the wrong way round.
    #[error("invalid repeat count")]
    InvalidRepeatSize,
    /// A `)` without its `(`.
    #[error("unexpected )")]
    UnexpectedParen,
    /// A `(` without its `)`.
    #[error("missing closing )")]
    MissingParen,
    /// A `[` without its `]`.
    #[error("missing closing ]")]
    MissingBracket,
    /// A group whose name is empty, not a word or not closed.
    #[error("invalid named capture")]
    InvalidNamedCapture,
    /// `(?` and something that RE2 has not, such as a look-ahead.
    #[error("invalid or unsupported Perl syntax")]
    InvalidPerlOp,
    /// A range that ends before it begins (`[z-a]`), or a class that is not closed.
    #[error("invalid character class range")]
    InvalidCharRange,
    /// A backslash and a character that mean nothing together.
    #[error("invalid escape sequence")]
    InvalidEscape,
    /// A backslash at the end.
    #[error("trailing backslash at end of expression")]
    TrailingBackslash,
    /// Compiled it would take too much memory.
    #[error("expression too large")]
    Large,
    /// Groups and repetitions within each other, more than can be followed.
    #[error("expression nests too deeply")]
    NestingDepth,
    /// Anything else.
    #[error("invalid syntax")]
    InvalidSyntax,
}

/// Why a field path of a CRD (`.spec.a`) cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FieldPathError {
    /// The path ends within a step.
    #[error("it ends too early")]
    UnexpectedEnd,
    /// The schema has no such field.
    #[error("the schema has no such field")]
    NoSuchField,
    /// `['name']` in a place where only `.name` may stand.
    #[error("only steps such as .name are allowed")]
    BracketsNotAllowed,
    /// A bracket holds something else than a name in single quotes.
    #[error("expected a name in single quotes, found {0}")]
    NotQuoted(String),
    /// A bracket is not closed after the name.
    #[error("expected ], found {0}")]
    NotClosed(String),
    /// A step begins with neither `.` nor `[`.
    #[error("expected . or [, found {0}")]
    NotAStep(String),
}

/// Why a text is no JSONPath that a CRD may use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonPathError {
    /// No step begins like that: the text from there on.
    #[error("unrecognized character in path: {0}")]
    UnrecognizedCharacter(String),
    /// A `[` is not closed.
    #[error("unterminated array")]
    UnterminatedArray,
    /// A `[?(` is not closed.
    #[error("unterminated filter")]
    UnterminatedFilter,
    /// A quote is not closed.
    #[error("unterminated quoted string")]
    UnterminatedQuotes,
    /// No such comparison in a filter.
    #[error("unrecognized filter operator {0}")]
    UnrecognizedOperator(String),
    /// A filter compares with something that is no path, no literal and no string.
    #[error("unrecognized identifier {0}")]
    UnrecognizedIdentifier(String),
    /// What stands in brackets is no index and no slice.
    #[error("invalid array index {0}")]
    InvalidIndex(String),
    /// So many filters within each other could exhaust the stack.
    #[error("filters are nested too deeply")]
    TooManyFilters,
}

/// Why a body is not an object of a custom kind.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CustomResourceError {
    /// Its metadata do not decode.
    #[error("metadata: {0}")]
    Metadata(#[from] DecodeError),
    /// The identity or the metadata of a resource that is embedded in it.
    #[error("{0}")]
    Embedded(field::Error),
}
