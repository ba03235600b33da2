//! What a schema says about values beyond their types: bounds, lengths, patterns, junctors and rules.
//! Only custom resources have these; they come from `JSONSchemaProps` (see [`super::crd`]).

use super::{Schema, goregexp};
use regex::Regex;
use serde_json::Value;
use std::sync::Arc;

/// The value validations of one node of a custom resource's schema.
#[derive(Debug, Clone, Default)]
pub struct ValueValidation {
    /// The largest number allowed.
    pub maximum: Option<f64>,
    /// The maximum itself is not allowed.
    pub exclusive_maximum: bool,
    /// The smallest number allowed.
    pub minimum: Option<f64>,
    /// The minimum itself is not allowed.
    pub exclusive_minimum: bool,
    /// The number must be a multiple of this.
    pub multiple_of: Option<f64>,
    /// The most characters (not bytes) of a string.
    pub max_length: Option<i64>,
    /// The fewest characters of a string.
    pub min_length: Option<i64>,
    /// What a string must match.
    pub pattern: Option<Pattern>,
    /// The most elements of a list.
    pub max_items: Option<i64>,
    /// The fewest elements of a list.
    pub min_items: Option<i64>,
    /// Elements of a list must differ.
    pub unique_items: bool,
    /// The most members of an object.
    pub max_properties: Option<i64>,
    /// The fewest members of an object.
    pub min_properties: Option<i64>,
    /// The values allowed; empty allows all.
    pub enumeration: Vec<Value>,
    /// `additionalProperties: false`: members that are not declared are errors (where pruning left any).
    pub forbid_additional: bool,
    /// All of these must hold.
    pub all_of: Vec<Arc<Schema>>,
    /// At least one of these must hold.
    pub any_of: Vec<Arc<Schema>>,
    /// Exactly one of these must hold.
    pub one_of: Vec<Arc<Schema>>,
    /// This must not hold.
    pub not: Option<Arc<Schema>>,
    /// `x-kubernetes-validations`.
    pub rules: Vec<Rule>,
}

impl ValueValidation {
    /// Whether nothing is demanded.
    pub fn is_empty(&self) -> bool {
        self.maximum.is_none()
            && self.minimum.is_none()
            && self.multiple_of.is_none()
            && self.max_length.is_none()
            && self.min_length.is_none()
            && self.pattern.is_none()
            && self.max_items.is_none()
            && self.min_items.is_none()
            && !self.unique_items
            && self.max_properties.is_none()
            && self.min_properties.is_none()
            && self.enumeration.is_empty()
            && !self.forbid_additional
            && self.all_of.is_empty()
            && self.any_of.is_empty()
            && self.one_of.is_empty()
            && self.not.is_none()
            && self.rules.is_empty()
    }
}

/// A regular expression in Go's syntax.
#[derive(Debug, Clone)]
pub struct Pattern {
    source: String,
    compiled: Result<Regex, String>,
}

impl Pattern {
    /// Compiles `source`; an expression that does not compile matches nothing, see [`Pattern::error`].
    pub fn new(source: &str) -> Self {
        Self { source: source.into(), compiled: goregexp::compile(source) }
    }
    /// The expression as it was written.
    pub fn source(&self) -> &str {
        &self.source
    }
    /// Why the expression does not compile, worded as Go words it.
    pub fn error(&self) -> Option<&str> {
        self.compiled.as_ref().err().map(String::as_str)
    }
    /// Whether some part of `text` matches.
    pub fn is_match(&self, text: &str) -> bool {
        self.compiled.as_ref().is_ok_and(|regex| regex.is_match(text))
    }
}

/// One entry of `x-kubernetes-validations`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    /// The CEL expression that must be true.
    pub rule: String,
    /// What to say if it is not; empty says the rule itself.
    pub message: String,
    /// A CEL expression whose string is said instead; empty if there is none.
    pub message_expression: String,
    /// The `reason` of the status cause; `None` is `FieldValueInvalid`.
    pub reason: Option<String>,
    /// A field below this one that the error is about; empty for this one.
    pub field_path: String,
    /// `oldSelf` is an optional, so that the rule also holds on create.
    pub optional_old_self: Option<bool>,
}
