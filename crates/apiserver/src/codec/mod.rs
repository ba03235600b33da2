//! Bytes to objects and back: JSON, YAML; strict decoding. No I/O.

pub mod json;
pub mod negotiate;
pub mod options;
pub mod selectors;
