//! Schemas of Kubernetes-style objects, and what an API server does with them: decode, default, prune, validate,
//! evaluate rules. Objects are `serde_json::Value` trees; everything here is a function of its arguments, without I/O
//! and without a clock.
//!
//! ```text
//!  CustomResourceDefinition                        OpenAPI documents of kube-apiserver,
//!  openAPIV3Schema                                 and what Go's struct tags add to them
//!        │ crd                                                │ openapi, go
//!        └───────────────────────► Schema ◄───────────────────┘
//!                                    │
//!          ┌─────────────────────────┴──────────────────────────┐
//!     custom resources                                    built-in kinds
//!          │                                                    │
//!   custom_resource::decode                               typed::decode
//!     objectmeta   metadata as Go reads it                  types, unknown and duplicate fields
//!     pruning      unknown fields go                        quantity, time, base64 in canonical form
//!     defaulting   nulls go, defaults come                  empty members go, as Go prints the struct
//!          │                                                    │
//!   validation, listtype, objectmeta                      (rules of each kind: the server's)
//!          │ nothing that would mislead a rule is wrong
//!   cel::Rules
//!          ▼                                                    ▼
//!     field errors, or an object that may be stored       an object in canonical form
//! ```
//!
//! # Example
//!
//! A custom resource goes through what an API server does with it:
//!
//! ```
//! use fleetpass_apimachinery::field::Path;
//! use fleetpass_schema::cel::Rules;
//! use fleetpass_schema::{crd, custom_resource, validation};
//! use serde_json::json;
//! use std::sync::Arc;
//!
//! // `spec.versions[].schema.openAPIV3Schema` of a CustomResourceDefinition.
//! let schema = Arc::new(crd::schema(&json!({
//!     "type": "object",
//!     "properties": {"spec": {
//!         "type": "object",
//!         "properties": {
//!             "replicas": {"type": "integer", "default": 1, "maximum": 10},
//!             "max": {"type": "integer"},
//!         },
//!         "x-kubernetes-validations": [{
//!             "rule": "!has(self.max) || self.replicas <= self.max",
//!             "message": "replicas must not exceed max",
//!         }],
//!     }},
//! })));
//! // Compiled once; `true`: the schema is that of whole resources.
//! let rules = Rules::new(&schema, true).expect("the schema has a rule");
//!
//! let mut object = json!({
//!     "apiVersion": "example.com/v1",
//!     "kind": "Widget",
//!     "metadata": {"name": "w"},
//!     "spec": {"max": 0, "colour": "red"},
//! });
//!
//! // Fields that the schema does not know are pruned and told, defaults are filled in.
//! let unknown = custom_resource::decode(&mut object, &schema)?;
//! assert_eq!(unknown, ["spec.colour"]);
//! assert_eq!(object["spec"], json!({"max": 0, "replicas": 1}));
//!
//! // Values first, rules after them: a rule may rely on what the schema says.
//! assert!(validation::validate(&Path::default(), &schema, &object).is_empty());
//! let errors = rules.validate(&object, None);
//! assert_eq!(errors[0].to_string(), "spec: Invalid value: replicas must not exceed max");
//! # Ok::<(), fleetpass_schema::error::CustomResourceError>(())
//! ```
//!
//! # Where to find what
//!
//! | | |
//! | --- | --- |
//! | **The model** | [`Schema`] with [`Type`], [`ListType`], [`PatchStrategy`]; what it demands of values in [`ValueValidation`], [`Pattern`] (within an [`Effort`]) and [`ValidationRule`]; what it only says in [`Documentation`] |
//! | **Read from a CRD** | [`crd`] |
//! | **Read from OpenAPI** (built-in kinds) | [`openapi`] has the schemas, [`go`] what Go's struct tags add; [`typed`] decodes objects by them, with [`quantity`] and [`time`] |
//! | **Custom resources** | [`custom_resource`] puts the steps in order: [`objectmeta`], [`pruning`], [`defaulting`] |
//! | **Rules on values** | [`validation`] with [`formats`], [`listtype`], and [`objectmeta`] for embedded resources |
//! | **Rules in CEL** (`x-kubernetes-validations`) | [`cel`] checks, prices and evaluates them |
//! | **Paths into objects** | [`fieldpath`] (`.spec.a`, in rules and selectable fields), [`jsonpath`] (in printer columns) |
//! | **Errors** | [`error`] as facts, [`go::Words`] as kube-apiserver words them; rules on values give `field::Error`s |
//!
//! # What it does not do
//!
//! - **It does not judge CustomResourceDefinitions.** [`crd::schema`] reads any JSON as far as it makes sense. Whether a
//!   schema is structural, and cheap enough, is the validation of the definition; [`cel::RuleChecker`] tells it what the
//!   rules cost.
//! - **It does not know the rules of built-in kinds** beyond their types, such as the form of a Secret's name.
//! - **It does not merge.** Server-side apply and patches read the same [`Schema`], in a crate of their own.
//! - **It does not read bodies.** JSON, YAML and protobuf become `Value`s or `Raw` trees before.
//! - **It does not fetch schemas.** Those of the built-in kinds, of Kubernetes 1.36, are compiled in.

// The model, which all else reads.
mod correlation;
mod json_type;
mod location;
mod model;

pub mod error;

// Where schemas come from.
pub mod crd;
pub mod go;
pub mod openapi;

// Decoding built-in kinds.
pub mod quantity;
pub mod time;
pub mod typed;

// Custom resources, step by step.
pub mod custom_resource;
pub mod defaulting;
pub mod objectmeta;
pub mod pruning;

// Rules on values.
pub mod cel;
pub mod formats;
pub mod listtype;
pub mod validation;

pub mod fieldpath;
pub mod jsonpath;

pub use go::regexp::Effort;
pub use json_type::Type;
pub use model::{Documentation, ListType, PatchStrategy, Pattern, Schema, ValidationRule, ValueValidation};
