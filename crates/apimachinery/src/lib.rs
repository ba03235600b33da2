//! What all Kubernetes-style objects and requests have in common, whatever their kind: the parts of
//! `k8s.io/apimachinery` (and a little of `k8s.io/apiserver`) that a server cannot do without, in Rust.
//!
//! Objects are JSON trees (`serde_json::Value`), not structs: a server that serves kinds which were defined while it runs
//! has no types for them. So this crate has functions on such trees, and types for what surrounds them.
//!
//! ```text
//!  GET /apis/apps/v1/namespaces/a/deployments?labelSelector=app%3Dweb
//!     │
//!     ├─► Query, RequestInfo                 what is asked for: verb, group, version, resource, name
//!     └─► LabelSelector, FieldSelector       which of the objects
//!
//!  body ─► json::Raw ─► (decoders, in other crates) ─► serde_json::Value
//!                                                        │  gvk   which kind it is
//!                                                        │  meta  reading and changing its members
//!                                                        ▼
//!                                        validation::prepare    what the server sets in metadata
//!                                                        ▼
//!          Lister (other objects) ─────► validation::{metadata, names, selectors}
//!                                                        │
//!                                                        ▼
//!                                        field::Error    field, value, what is wrong with it
//!                                                        ▼
//!                                        status::Status  the refusal that the client gets
//! ```
//!
//! [`user`] says who asks, and [`time`] how times are printed.
//!
//! # What it does not do
//!
//! - No I/O, no clock and no randomness: times, UIDs and random numbers are arguments.
//! - It knows no kind by name and no schema. Types of fields, defaults and unknown fields are `fleetpass-schema`'s business,
//!   bodies and media types `fleetpass-codec`'s.
//! - It does not write messages of its own: clients compare the text of errors, so all of it is worded as Kubernetes words it.
//!
//! # Example
//!
//! ```
//! use fleetpass_apimachinery::status::Status;
//! use fleetpass_apimachinery::validation::{metadata, names};
//! use fleetpass_apimachinery::{Query, RequestInfo};
//! use serde_json::json;
//!
//! // What does a request ask for?
//! let path = "/apis/apps/v1/namespaces/shop/deployments/web";
//! let info = RequestInfo::parse("PUT", path, &Query::default());
//! assert_eq!((info.verb.as_str(), info.resource.as_str()), ("update", "deployments"));
//! assert_eq!((info.namespace.as_str(), info.name.as_str()), ("shop", "web"));
//!
//! // Is the metadata of this object good, for a namespaced kind whose names are DNS subdomains?
//! let object = json!({"metadata": {"name": "Web", "namespace": "shop"}});
//! let errors = metadata::validate(&object, true, &names::is_dns1123_subdomain);
//! assert_eq!(errors[0].field.as_str(), "metadata.name");
//!
//! // What does the client get to hear?
//! let status = Status::invalid("apps", "Deployment", "Web", &errors);
//! assert_eq!(status.code, 422);
//! assert!(status.message.starts_with(
//!     r#"Deployment.apps "Web" is invalid: metadata.name: Invalid value: "Web": a lowercase RFC 1123 subdomain"#
//! ));
//! ```

pub mod field;
pub mod gvk;
pub mod json;
mod lister;
pub mod meta;
mod request;
mod selectors;
pub mod status;
pub mod time;
pub mod user;
pub mod validation;

pub use lister::Lister;
pub use request::{Query, RequestInfo};
pub use selectors::{FieldSelector, FieldTerm, LabelSelector, Requirement};
