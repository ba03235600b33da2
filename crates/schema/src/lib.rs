//! The schema of a kind: one model for built-in kinds (read from the OpenAPI document that a real server
//! publishes) and for custom resources (read from a CRD), and the rules that work on it. No I/O.

use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The JSON type of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// A JSON object, with [`Schema::properties`] or [`Schema::additional`].
    Object,
    /// A list.
    Array,
    /// A string.
    String,
    /// A whole number.
    Integer,
    /// Any number.
    Number,
    /// `true` or `false`.
    Boolean,
}

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
pub struct About {
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

/// A node of a schema. Both worlds fill what they have: built-in kinds have no value validations, custom
/// resources have no Go types.
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
    /// The schema of a map's values (`additionalProperties`).
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
    pub validation: Option<Box<validation::ValueValidation>>,
    /// What the schema says for people, and what it says but nothing checks; custom resources only.
    pub about: Option<Box<About>>,
    /// The Go type that a JSON decoding error names (`v1.TokenRequestSpec`, `[]string`, `int64`, `v1.Time`);
    /// built-in kinds only. The part before the dot is the Go package, the rest the type.
    pub go_type: Option<String>,
    /// How the Go struct field at this node is decoded and printed; built-in kinds only.
    pub go: go::Field,
    /// A Go type that reads and prints itself (`v1.Time`, `resource.Quantity`); built-in kinds only.
    pub special: Option<go::Special>,
    /// The definition that stands here, where spelling it out would never end (a schema inside a schema).
    /// All else is then empty; ask [`Schema::resolved`]. Built-in kinds only.
    pub reference: Option<String>,
}

impl Schema {
    /// This node, or the definition that it refers to.
    pub fn resolved(self: &Arc<Self>) -> Arc<Schema> {
        match &self.reference {
            Some(name) => openapi::builtin(name),
            None => Arc::clone(self),
        }
    }
}

pub mod cel;
pub mod crd;
pub mod custom;
pub mod default;
pub mod fieldpath;
pub mod formats;
pub mod go;
pub mod gonum;
pub mod goregexp;
pub mod jsonpath;
pub mod listtype;
pub mod objectmeta;
pub mod openapi;
pub mod prune;
pub mod quantity;
pub mod time;
pub mod typed;
pub mod validate;
pub mod validation;
