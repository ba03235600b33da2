//! Validation that all kinds share: names, labels, annotations, object metadata.

pub mod names;
