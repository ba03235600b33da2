//! Validation that all kinds share: names, labels, annotations, object metadata, selectors in objects; and the preparation
//! of metadata that every write goes through before it is validated.
//!
//! Each rule looks at a value and returns the errors it found; none of them stops at the first, because a client should
//! hear of all of them at once. The order of the errors is the order of kube-apiserver's, which clients see.

pub mod metadata;
pub mod names;
pub mod prepare;
pub mod selectors;
