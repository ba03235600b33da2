//! A library that serves Kubernetes-style APIs from a store.
//!
//! A request's way: [`server`] routes it, [`authn`] finds out who asks, [`authz`] whether they may, [`audit`] says who did
//! what; [`codec`] reads the body, the kind's [`strategy`] completes and checks it, the [`registry`] commits it to the store and
//! answers from the [`cache`].

pub mod alias;
pub mod audit;
pub mod cache;
pub mod catalog;
mod definitions;
pub mod discovery;
pub mod openapi;
pub mod registry;
pub mod resources;
pub mod server;
mod signing;
pub mod strategy;
mod system_user;
