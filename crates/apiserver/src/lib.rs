//! A library that serves Kubernetes-style APIs from a store.
//!
//! A request's way: [`server`] routes it, [`authn`] finds out who asks, [`authz`] whether they may, [`audit`] says who did
//! what; [`codec`] reads the body, the kind's [`strategy`] completes and checks it, the [`registry`] commits it to the store and
//! answers from the [`cache`].

pub mod alias;
pub mod audit;
pub mod authn;
pub mod authz;
pub mod cache;
pub mod catalog;
pub mod codec;
mod definitions;
pub mod discovery;
pub mod field;
pub mod meta;
pub mod openapi;
pub mod patch;
pub mod registry;
pub mod request;
pub mod resources;
pub mod schema;
pub mod server;
pub mod status;
pub mod strategy;
pub mod user;
pub mod validation;
