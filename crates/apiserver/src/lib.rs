//! A library that serves Kubernetes-style APIs from a store.

pub mod authn;
pub mod authz;
pub mod codec;
pub mod field;
pub mod meta;
pub mod patch;
pub mod resources;
pub mod schema;
pub mod status;
pub mod strategy;
pub mod user;
pub mod validation;
