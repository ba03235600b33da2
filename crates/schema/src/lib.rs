//! The schema of a kind: one model for built-in kinds (read from the OpenAPI document that a real server
//! publishes) and for custom resources (read from a CRD), and the rules that work on it. No I/O.

mod json_type;
mod model;

pub mod error;

pub mod crd;
pub mod go;
pub mod openapi;

pub mod quantity;
pub mod time;
pub mod typed;

pub mod custom_resource;
pub mod defaulting;
pub mod fieldpath;
pub mod formats;
pub mod jsonpath;
pub mod listtype;
pub mod objectmeta;
pub mod pruning;
pub mod validation;

pub mod cel;

pub use json_type::Type;
pub use model::{Documentation, ListType, PatchStrategy, Pattern, Schema, ValidationRule, ValueValidation};
