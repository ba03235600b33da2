//! Validation that all kinds share: names, labels, annotations, object metadata; and the preparation of
//! metadata that every write goes through.

pub mod metadata;
pub mod names;
pub mod prepare;
pub mod selectors;
