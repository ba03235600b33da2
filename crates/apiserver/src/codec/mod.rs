//! Bytes to objects and back: JSON, YAML; strict decoding. No I/O.

pub mod body;
pub mod json;
mod scheme;
pub mod yaml;
