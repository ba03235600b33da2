//! Errors about a field of an object, worded as `k8s.io/apimachinery/pkg/util/validation/field` words them.

use serde_json::Value;
use std::collections::HashSet;
use std::fmt;
use std::ops::Deref;

/// The path of a field (`field.Path`): `spec.versions[0].name`, `metadata.labels[a/b]`. Immutable: extending one gives a new
/// path.
// The text itself and not a linked list as in Go: paths are mostly printed, and rules make them only when they look at a
// field, not for each value of an object.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Path(String);

impl Path {
    /// A path of one or more dot-separated names; the empty string is the object itself.
    pub fn new(path: impl Into<String>) -> Self {
        Self(path.into())
    }
    /// The field `name` below this one.
    pub fn child(&self, name: &str) -> Self {
        if self.0.is_empty() { Self(name.into()) } else { Self(format!("{}.{name}", self.0)) }
    }
    /// Element `index` of this list.
    pub fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }
    /// Entry `key` of this map.
    pub fn key(&self, key: &str) -> Self {
        Self(format!("{}[{key}]", self.0))
    }
    /// The path as it is printed.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Go prints the nil path of the root as `<nil>`.
        f.write_str(if self.0.is_empty() { "<nil>" } else { &self.0 })
    }
}

/// What is wrong with a field (`field.ErrorType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorType {
    /// The value refers to something that does not exist.
    NotFound,
    /// A value must be given.
    Required,
    /// The value must be unique and is not.
    Duplicate,
    /// The value breaks a rule.
    Invalid,
    /// The value is not one of those allowed.
    NotSupported,
    /// The value is well formed, but not allowed under these conditions.
    Forbidden,
    /// The value has too many bytes or characters.
    TooLong,
    /// The list has too many elements.
    TooMany,
    /// The rule could not be checked.
    Internal,
    /// The value has the wrong type.
    TypeInvalid,
}

impl ErrorType {
    /// The `reason` of a status cause (`FieldValueInvalid`, …).
    pub fn reason(self) -> &'static str {
        match self {
            Self::NotFound => "FieldValueNotFound",
            Self::Required => "FieldValueRequired",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::Internal => "InternalError",
            Self::TypeInvalid => "FieldValueTypeInvalid",
        }
    }
    fn bit(self) -> u16 {
        1 << self as u16
    }
    /// `ErrorType.String()`.
    fn words(self) -> &'static str {
        match self {
            // Go tells `TypeInvalid` apart in the cause's reason only, not in the message.
            Self::NotFound => "Not found",
            Self::Required => "Required value",
            Self::Duplicate => "Duplicate value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::Internal => "Internal error",
        }
    }
}

/// One error about one field.
#[derive(Debug, Clone, PartialEq)]
pub struct Error {
    /// The kind of error.
    pub kind: ErrorType,
    /// Where.
    pub field: Path,
    /// The value that was found there; `None` where the kind of error prints no value.
    pub value: Option<Value>,
    /// What to do about it.
    pub detail: String,
}

/// The errors of an object, in the order in which they are reported: the first hundred, or fewer if they are long, and how many
/// more there are. An object can be wrong in as many places as it has values, each error takes more memory than what it is about,
/// and a refusal should not be longer than that; kube-apiserver keeps and tells all.
///
/// As a slice it is the errors that are told. It is no iterator by value, so that a list is only added to another with what it
/// does not tell ([`ErrorList::append`]).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ErrorList {
    told: Vec<Error>,
    /// The size of those.
    bytes: usize,
    untold: usize,
    /// The kinds of all errors, told or not, as bits.
    kinds: u16,
}

impl ErrorList {
    /// No errors.
    pub fn new() -> Self {
        Self::default()
    }
    /// Adds an error.
    pub fn push(&mut self, error: Error) {
        self.kinds |= error.kind.bit();
        if self.told.len() < MAX_TOLD && self.bytes <= MAX_TOLD_BYTES {
            self.bytes += error.size();
            self.told.push(error);
        } else {
            self.untold += 1;
        }
    }
    /// Adds the errors of another list.
    pub fn append(&mut self, other: Self) {
        other.told.into_iter().for_each(|error| self.push(error));
        self.untold += other.untold;
        self.kinds |= other.kinds;
    }
    /// Puts the errors that are told into the order of their texts.
    pub fn sort_by_text(&mut self) {
        self.told.sort_by_cached_key(ToString::to_string);
    }
    /// The same errors, changed one by one.
    pub fn map(self, change: impl FnMut(Error) -> Error) -> Self {
        let mut changed: Self = self.told.into_iter().map(change).collect();
        changed.untold += self.untold;
        changed.kinds |= self.kinds;
        changed
    }
    /// Whether one of the errors is of one of these kinds.
    pub fn has(&self, kinds: &[ErrorType]) -> bool {
        kinds.iter().any(|kind| self.kinds & kind.bit() != 0)
    }
}

impl Deref for ErrorList {
    type Target = [Error];
    fn deref(&self) -> &[Error] {
        &self.told
    }
}

impl Extend<Error> for ErrorList {
    fn extend<I: IntoIterator<Item = Error>>(&mut self, errors: I) {
        errors.into_iter().for_each(|error| self.push(error));
    }
}

impl FromIterator<Self> for ErrorList {
    fn from_iter<I: IntoIterator<Item = Self>>(lists: I) -> Self {
        let mut all = Self::new();
        lists.into_iter().for_each(|list| all.append(list));
        all
    }
}

impl FromIterator<Error> for ErrorList {
    fn from_iter<I: IntoIterator<Item = Error>>(errors: I) -> Self {
        let mut list = Self::new();
        list.extend(errors);
        list
    }
}

impl<const N: usize> From<[Error; N]> for ErrorList {
    fn from(errors: [Error; N]) -> Self {
        errors.into_iter().collect()
    }
}

impl Error {
    fn new(kind: ErrorType, field: &Path, value: Option<Value>, detail: impl Into<String>) -> Self {
        Self { kind, field: field.clone(), value, detail: detail.into() }
    }
    /// `field: Required value[: detail]`
    pub fn required(field: &Path, detail: impl Into<String>) -> Self {
        Self::new(ErrorType::Required, field, None, detail)
    }
    /// `field: Invalid value: value: detail`
    pub fn invalid(field: &Path, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::new(ErrorType::Invalid, field, Some(value.into()), detail)
    }
    /// Like [`Error::invalid`], with the cause `FieldValueTypeInvalid`.
    pub fn type_invalid(field: &Path, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::new(ErrorType::TypeInvalid, field, Some(value.into()), detail)
    }
    /// `field: Duplicate value: value`
    pub fn duplicate(field: &Path, value: impl Into<Value>) -> Self {
        Self::new(ErrorType::Duplicate, field, Some(value.into()), "")
    }
    /// `field: Not found: value`
    pub fn not_found(field: &Path, value: impl Into<Value>) -> Self {
        Self::new(ErrorType::NotFound, field, Some(value.into()), "")
    }
    /// `field: Forbidden: detail`
    pub fn forbidden(field: &Path, detail: impl Into<String>) -> Self {
        Self::new(ErrorType::Forbidden, field, None, detail)
    }
    /// `field: Internal error: detail`
    pub fn internal(field: &Path, detail: impl Into<String>) -> Self {
        Self::new(ErrorType::Internal, field, None, detail)
    }
    /// `field: Too long: may not be more than N bytes`
    pub fn too_long(field: &Path, max: usize) -> Self {
        Self::new(ErrorType::TooLong, field, None, format!("may not be more than {max} bytes"))
    }
    /// `field: Too many: N: must have at most M items`
    pub fn too_many(field: &Path, actual: usize, max: usize) -> Self {
        let items = if max == 1 { "item" } else { "items" };
        Self::new(ErrorType::TooMany, field, Some(actual.into()), format!("must have at most {max} {items}"))
    }
    /// `field: Unsupported value: value: supported values: "a", "b"` (in the order given).
    pub fn not_supported(field: &Path, value: impl Into<Value>, supported: &[&str]) -> Self {
        let quoted: Vec<String> = supported.iter().map(|s| go_quote(s)).collect();
        // Without any supported values Go leaves the detail out, not just the list.
        let detail = if quoted.is_empty() {
            String::new()
        } else {
            format!("supported values: {}", quoted.join(", "))
        };
        Self::new(ErrorType::NotSupported, field, Some(value.into()), detail)
    }
    /// About how many bytes the message has, without making it.
    fn size(&self) -> usize {
        fn of(value: &Value) -> usize {
            match value {
                Value::String(text) => text.len(),
                Value::Array(list) => list.iter().map(of).sum::<usize>() + list.len(),
                Value::Object(map) => map.iter().map(|(name, value)| name.len() + of(value)).sum(),
                _ => 4,
            }
        }
        self.field.0.len() + self.value.as_ref().map_or(0, of) + self.detail.len()
    }
    /// The message without the field: what a status cause carries.
    pub fn body(&self) -> String {
        let mut text = self.kind.words().to_string();
        if let Some(value) = &self.value {
            text.push_str(": ");
            text.push_str(&go_value(value));
        }
        if !self.detail.is_empty() {
            text.push_str(": ");
            text.push_str(&self.detail);
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.body())
    }
}

/// How many errors of a list are told.
const MAX_TOLD: usize = 100;
/// How many bytes they may have together, since each may quote a long value or path; the first is told however long it is.
const MAX_TOLD_BYTES: usize = 64 * 1024;

/// Joins error messages as `utilerrors.NewAggregate` does: duplicates are dropped; more than one
/// message stands in brackets, separated by commas. After a hundred, or fewer if they are long, it says how many more there are.
pub fn aggregate(errors: &ErrorList) -> String {
    let mut messages: Vec<String> = Vec::new();
    // A set beside the list: the order is that of first appearance.
    let mut seen = HashSet::new();
    for error in errors.iter() {
        let text = error.to_string();
        if seen.insert(text.clone()) {
            messages.push(text);
        }
    }
    if errors.untold > 0 {
        messages.push(format!("and {} more", errors.untold));
    }
    if messages.len() == 1 { messages.remove(0) } else { format!("[{}]", messages.join(", ")) }
}

/// `text` as Go's `%q` prints it.
pub fn go_quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => out.push_str(&format!("\\x{:02x}", c as u32)),
            // Go escapes whatever `strconv.IsPrint` refuses. Above ASCII only these are escaped here; its tables are
            // not carried along, and the rest is printed as it is.
            '\u{feff}' | '\u{2028}' | '\u{2029}' => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A bad value as `field.Error.ErrorBody` prints it: strings quoted, everything else as the JSON that Go writes.
fn go_value(value: &Value) -> String {
    match value {
        Value::String(text) => go_quote(text),
        // `json.Marshal` escapes these three for the sake of HTML; `serde_json` does not.
        other => other.to_string().replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_errors_are_told() {
        let error = |i: usize| Error::required(&Path::new("list").index(i), "");
        let errors: ErrorList = (0..150).map(error).collect();
        let text = aggregate(&errors);
        assert!(text.starts_with("[list[0]: Required value, list[1]: "), "{text}");
        assert!(text.ends_with(", list[99]: Required value, and 50 more]"), "{text}");
        assert!(!aggregate(&(0..100).map(error).collect()).contains("more"));
        // Nor is the rest forgotten when lists are put together, and no kind of error is.
        let mut both = errors.clone();
        both.append(errors);
        both.push(Error::too_many(&Path::new("list"), 2, 1));
        assert!(aggregate(&both).ends_with(", and 201 more]"));
        assert_eq!(both.len(), 100);
        assert!(both.has(&[ErrorType::TooMany]) && !both.has(&[ErrorType::TooLong]));
        // The same error twice is told once.
        assert_eq!(aggregate(&[error(1), error(1)].into()), "list[1]: Required value");
    }

    #[test]
    fn long_errors_are_not_told_a_hundred_times() {
        let long = Path::new("k".repeat(1_000_000));
        let errors: ErrorList = (0..50).map(|i| Error::invalid(&long.index(i), "v", "bad")).collect();
        let text = aggregate(&errors);
        assert!(text.len() < 1_001_000 && text.ends_with(", and 49 more]"), "{}", text.len());
        let quoted = Error::invalid(&Path::new("a"), vec!["v".repeat(40_000)], "bad");
        assert_eq!(ErrorList::from_iter(vec![quoted; 9]).len(), 2);
    }
}
