//! The `labelSelector` and `fieldSelector` of a list: parsing with Go's errors, matching, printing.
//!
//! Selectors that stand inside objects (`metav1.LabelSelector`) are [`crate::validation::selectors`].

mod fields;
mod labels;

pub use fields::{FieldSelector, FieldTerm};
pub use labels::{LabelSelector, Requirement};
