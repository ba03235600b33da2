//! What goes into a patch, and what comes out.

use serde_json::Value;
use std::fmt;

/// A decoded patch body.
#[derive(Clone, Copy)]
pub struct Body<'a> {
    /// The document.
    pub value: &'a Value,
    /// One `duplicate field "path"` for each member that stands twice in an object.
    pub duplicates: &'a [String],
    /// Whether `fieldValidation` is `Warn` or `Strict`, so that the body is checked more closely.
    pub validated: bool,
}

/// The object may be a Secret: it is never printed.
impl fmt::Debug for Body<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").field("validated", &self.validated).finish_non_exhaustive()
    }
}

/// A patched object, not yet decoded by its kind's schema.
#[derive(Clone, PartialEq)]
pub struct Patched {
    /// The object.
    pub object: Value,
    /// What `fieldValidation=Warn` warns of and `Strict` refuses; what decoding the object finds comes after it.
    pub strict: Vec<String>,
}

/// The object may be a Secret: it is never printed.
impl fmt::Debug for Patched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Patched").finish_non_exhaustive()
    }
}
