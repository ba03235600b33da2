//! What of Go shows in Kubernetes' API: how struct fields and types with rules of their own are decoded and printed,
//! numbers, regular expressions, and the words of errors.

mod base64;
pub(crate) mod number;
pub(crate) mod regexp;
mod words;

pub use base64::decode_base64;
pub use words::Words;

/// The options of a Go struct field that decide what is decoded and printed (`encoding/json`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Field {
    /// A pointer: `0`, `""` and `false` are told apart from "not given".
    pub pointer: bool,
    /// `omitempty`: not printed when nil, zero, or an empty list, map or string. Structs are never empty.
    pub omit_empty: bool,
    /// `omitzero`: not printed when zero.
    pub omit_zero: bool,
    /// The embedded struct that the field is part of (`TypeMeta`), which decoding errors name.
    pub embedded: Option<String>,
}

/// A Go type with its own rules for reading and printing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Special {
    /// `metav1.Time`: RFC 3339, printed in UTC with whole seconds.
    Time,
    /// `metav1.MicroTime`: RFC 3339 with six decimals.
    MicroTime,
    /// `resource.Quantity`: printed in canonical form.
    Quantity,
    /// `intstr.IntOrString`.
    IntOrString,
    /// `[]byte`: base64.
    Bytes,
    /// `metav1.FieldsV1`, `apiextensions.JSON`, `runtime.RawExtension`: any JSON, kept as it is.
    Any,
    /// `apiextensions.JSONSchemaPropsOrArray`.
    SchemaOrArray,
    /// `apiextensions.JSONSchemaPropsOrBool`.
    SchemaOrBool,
    /// `apiextensions.JSONSchemaPropsOrStringArray`.
    SchemaOrStringArray,
}
