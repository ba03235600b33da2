//! Bytes to objects and back: JSON, YAML, protobuf; strict decoding. No I/O.

pub mod body;
pub mod negotiate;
pub mod options;
pub mod patch;
pub mod protobuf;
pub mod redecode;
mod scheme;
pub mod yaml;
