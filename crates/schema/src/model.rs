//! The model of a schema, which both sources fill: a CRD ([`crate::crd`]) and the OpenAPI documents of built-in
//! kinds ([`crate::openapi`]).

use crate::error::RegexpError;
use crate::go;
use crate::go::regexp::Effort;
use crate::json_type::Type;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// How a list is merged (`x-kubernetes-list-type`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ListType {
    /// Replaced as a whole.
    #[default]
    Atomic,
    /// A set of scalars.
    Set,
    /// Objects told apart by the values of these keys.
    Map(Vec<String>),
}

/// How lists and maps are patched by a strategic merge patch (`x-kubernetes-patch-strategy`,
/// `x-kubernetes-patch-merge-key`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PatchStrategy {
    /// `patchStrategy` holds `merge`.
    pub merge: bool,
    /// `patchStrategy` holds `retainKeys`.
    pub retain_keys: bool,
    /// `patchMergeKey`, where elements are merged by a key.
    pub merge_key: Option<String>,
}

/// What a schema says that has no effect on objects; it is published with the schema.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Documentation {
    /// `title`, or empty.
    pub title: String,
    /// `description`, or empty.
    pub description: String,
    /// A `format` that nothing checks, or empty; any other is in [`Schema::format`].
    pub format: String,
    /// `externalDocs`.
    pub external_docs: Option<Value>,
    /// `example`.
    pub example: Option<Value>,
}

/// A node of a schema. Both sources fill what they have: built-in kinds have no value validations, custom
/// resources have no Go types.
///
/// Children are shared (`Arc`), so cloning a node copies one level only.
#[derive(Debug, Clone, Default)]
pub struct Schema {
    /// The type; `None` where any value fits (`x-kubernetes-preserve-unknown-fields` without a type, or
    /// int-or-string).
    pub kind: Option<Type>,
    /// `format` (`int32`, `int64`, `date-time`, `byte`, …).
    pub format: Option<String>,
    /// `null` is a value of its own.
    pub nullable: bool,
    /// The fields of an object.
    pub properties: BTreeMap<String, Arc<Schema>>,
    /// The schema of a map's values (`additionalProperties`). A node with it is a map, never a struct: Kubernetes
    /// forbids it beside `properties`.
    pub additional: Option<Arc<Schema>>,
    /// The schema of a list's elements.
    pub items: Option<Arc<Schema>>,
    /// Names of fields that must be there (CRDs), or that Go always prints (built-in kinds).
    pub required: Vec<String>,
    /// The default, if the schema has one. For built-in kinds `{}` marks a struct that is always printed.
    pub default: Option<Value>,
    /// `x-kubernetes-preserve-unknown-fields`: pruning stops here.
    pub preserve_unknown_fields: bool,
    /// `x-kubernetes-embedded-resource`: an object with apiVersion, kind and metadata of its own.
    pub embedded_resource: bool,
    /// `x-kubernetes-int-or-string`.
    pub int_or_string: bool,
    /// `x-kubernetes-list-type` with its keys.
    pub list_type: ListType,
    /// `x-kubernetes-map-type: atomic` (also used for atomic structs).
    pub atomic: bool,
    /// Strategic merge hints; built-in kinds only.
    pub patch: PatchStrategy,
    /// Value validations; custom resources only.
    pub validation: Option<Box<ValueValidation>>,
    /// What the schema says for people, and what it says but nothing checks; custom resources only.
    pub documentation: Option<Box<Documentation>>,
    /// The Go type that a JSON decoding error names (`v1.TokenRequestSpec`, `[]string`, `int64`, `v1.Time`);
    /// built-in kinds only. The part before the dot is the Go package, the rest the type.
    pub go_type: Option<String>,
    /// How the Go struct field at this node is decoded and printed; built-in kinds only.
    pub go: go::Field,
    /// A Go type that reads and prints itself (`v1.Time`, `resource.Quantity`); built-in kinds only.
    pub special: Option<go::Special>,
    /// The definition that stands here, where spelling it out would never end (a schema inside a schema).
    /// All else is then empty; ask [`crate::openapi::resolve`]. Built-in kinds only.
    pub reference: Option<String>,
}

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
    pub rules: Vec<ValidationRule>,
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

/// A regular expression in Go's syntax. It is compiled when a value is checked for the first time, and kept as long as it is in
/// use and there is room: a definition may have thousands, and what a few bytes compile to may be megabytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    source: Arc<str>,
}

impl Pattern {
    /// An expression; one that does not compile matches nothing, see [`Pattern::error`].
    pub fn new(source: &str) -> Self {
        Self { source: source.into() }
    }
    /// The expression as it was written.
    pub fn source(&self) -> &str {
        &self.source
    }
    /// Why the expression does not compile. It is read for this, in time linear in its length.
    pub fn error(&self) -> Option<RegexpError> {
        go::regexp::check(&self.source).err()
    }
    /// Whether some part of `text` matches; `None` if that takes more work than what is left of `effort`.
    pub fn is_match(&self, text: &str, effort: &mut Effort) -> Option<bool> {
        let (program, fresh) = go::regexp::program(&self.source);
        let Ok(program) = program.as_ref() else { return Some(false) };
        if fresh {
            effort.spend(program.price())?;
        }
        program.is_match(text, effort)
    }
}

/// One entry of `x-kubernetes-validations`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ValidationRule {
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
