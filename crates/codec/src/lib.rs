//! Bytes to Kubernetes-style objects and back: bodies in JSON, YAML and protobuf, the headers that say which of them, and the
//! options in a request's query. Whatever a client sends, it gets the answer that kube-apiserver would give, to the letter.
//!
//! ```text
//!  Content-Type ─► negotiate::input ─► Format ─┐
//!                                              ▼
//!  body ──────────────────────────────► body::decode_builtin ─► object, warnings
//!         json::Raw   (apimachinery)        │   decode_custom
//!         yaml::parse                       │ which kind?   scheme
//!         protobuf::open                    │ its schema?   fleetpass-schema
//!                                           └ unknown and duplicate fields: FieldValidation
//!
//!  patch ─► patch::read ─► document ─► (fleetpass-apply) ─► object ─► redecode ─► object
//!
//!  query ─► options::{list, write, delete}
//!
//!  Accept ─► negotiate::output ─► MediaType, TargetKind (Table, …)
//!                                     │
//!  object ────────────────────────────┴─► serde_json, yaml::print, protobuf::encode ─► bytes
//! ```
//!
//! Errors about bodies are finished refusals (`Status`), because their text depends on how far decoding got and quotes the body.
//!
//! # What it does not do
//!
//! - No I/O: a body is a slice that was read before, and limited in size by whoever read it.
//! - It defaults and validates nothing. The object is what Go would print after decoding; defaults, admission and rules come
//!   later, in the kind's strategy.
//! - It converts nothing: what a Table looks like is the server's business, this crate only reads that one is wanted.
//! - Nothing recurses without a limit, and nothing takes more than linear time for the size of what a stranger sent (aliases in
//!   YAML are counted).
//!
//! # Example
//!
//! ```
//! use fleetpass_apimachinery::gvk::GvkRef;
//! use fleetpass_codec::body::{FieldValidation, decode_builtin};
//! use fleetpass_codec::{negotiate, protobuf, yaml};
//! use fleetpass_schema::openapi;
//!
//! // A body in YAML, by its content type.
//! let body = b"data:\n  color: blue\n  color: red\nmetadata: {name: paint}\n";
//! let format = negotiate::input(Some("application/yaml"), &[])?.format();
//!
//! // The path says which kind it should be; the body may leave that out.
//! let expected = GvkRef { group: "", version: "v1", kind: "ConfigMap" };
//! let schema = openapi::find_kind("", "v1", "ConfigMap").expect("a built-in kind");
//! let decoded = decode_builtin(body, format, expected, &schema, FieldValidation::Warn)?;
//! assert_eq!(decoded.value["data"]["color"], "red");
//! assert_eq!(decoded.warnings, [r#"line 3: key "color" already set in map"#]);
//!
//! // The same object for two clients.
//! assert!(yaml::print(&decoded.value).starts_with("apiVersion: v1\ndata:\n  color: red\nkind: ConfigMap\n"));
//! assert!(protobuf::encode(&decoded.value)?.starts_with(b"k8s\0"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod body;
pub mod negotiate;
pub mod options;
pub mod patch;
pub mod protobuf;
mod redecode;
mod scheme;
pub mod yaml;

pub use redecode::redecode;
