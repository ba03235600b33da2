//! The four ways in which Kubernetes changes part of an object, and who owns which field afterwards: JSON patch, merge
//! patch, strategic merge patch and server-side apply, with `metadata.managedFields`. No I/O and no clock: every function
//! takes JSON trees and gives JSON trees.
//!
//! ```text
//!  Content-Type ─► PatchKind          fieldManager, User-Agent ─► manager_name
//!                      │                                               │
//!  body (decoded) ─► Body ─► patch ─► Patched      body (decoded) ─► FieldManager::apply
//!  object, schema ─────────────┘         │         object or none ─────┘    │
//!                                        ▼                                  │
//!              the caller decodes, defaults and validates the object  ◄─────┘
//!                                        │                                  │
//!                       FieldManager::update(old, new)                      │
//!                                        ▼                                  ▼
//!                           object with managedFields ─► keep_times(new, old) ─► store
//! ```
//!
//! [`FieldManager::update`] is for every write that is not an apply: creates, replacements and the three other patches. It
//! compares the object before and after; an apply knows its owner's fields from the configuration.
//!
//! What is refused is an [`Error`]; its message is what kube-apiserver says, with [`Words`] for what Go's `fmt` prints.
//!
//! ```
//! use fleetpass_apply::{Body, PatchKind, patch};
//! use fleetpass_schema::openapi::builtin;
//! use serde_json::json;
//!
//! let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "secrets": [{"name": "a"}]});
//! let change = json!({"secrets": [{"name": "b"}]});
//! let body = Body { value: &change, duplicates: &[], validated: true };
//! let schema = builtin("io.k8s.api.core.v1.ServiceAccount");
//!
//! // A strategic merge patch knows that secrets are told apart by their names; a merge patch replaces every list.
//! let merged = patch(PatchKind::Strategic, &account, &body, &schema)?;
//! assert_eq!(merged.object["secrets"], json!([{"name": "b"}, {"name": "a"}]));
//! let merged = patch(PatchKind::Merge, &account, &body, &schema)?;
//! assert_eq!(merged.object["secrets"], json!([{"name": "b"}]));
//! # Ok::<(), fleetpass_apply::Error>(())
//! ```
//!
//! # What it does not do
//! - It reads no bytes: bodies come decoded, with the duplicate members that the decoder saw.
//! - It does not check that the object that comes out is valid, nor that its name and kind are still those of the request.
//!   Only server-side apply looks at types, as far as it must to tell who owns what.
//! - It does not convert between versions of a kind: entries of all known versions are taken to name the same fields.
//! - It knows no HTTP: which [`Error`] is which status is for the server to say.

mod body;
mod error;
mod field_manager;
pub mod fieldpath;
mod json_patch;
mod kind;
mod limit;
mod managed_fields;
mod manager_name;
mod merge_patch;
mod strategic;
mod typed;
mod value;
mod words;

pub use body::{Body, Patched};
pub use error::{Conflict, Conflicts, Error, Misfit, MisfitObject};
pub use field_manager::FieldManager;
pub use kind::{PatchKind, UnsupportedMediaType};
pub use managed_fields::{ManagedFieldsError, Operation, Owner, keep_times};
pub use manager_name::manager_name;
pub use strategic::{ConversionError, Directive, StrategicError, conversion_error};
pub use typed::{KeyError, Problem, ValidationError, ValidationErrors};
pub use value::{Found, OrderedValue};
pub use words::{Container, Destination, Expected, GoWords, PatchPart, Words};

use fleetpass_schema::Schema;
use serde_json::Value;

/// Applies a JSON, merge or strategic merge patch to the object that is served in the version of the request.
///
/// # Errors
/// What is wrong with the patch. [`PatchKind::Apply`] needs more than a body and is refused: see [`FieldManager::apply`].
pub fn patch(kind: PatchKind, live: &Value, body: &Body<'_>, schema: &Schema) -> Result<Patched, Error> {
    match kind {
        PatchKind::Json => json_patch::apply(live, body),
        PatchKind::Merge => merge_patch::apply(live, body),
        PatchKind::Strategic => strategic::apply(live, body, schema),
        PatchKind::Apply => Err(Error::UnsupportedKind(kind)),
    }
}
