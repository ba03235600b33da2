//! Bytes to objects and back: JSON, YAML; strict decoding. No I/O.

pub mod json;
