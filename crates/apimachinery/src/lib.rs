//! What all Kubernetes-style objects share.

pub mod field;
pub mod gvk;
pub mod json;
pub mod lister;
pub mod meta;
pub mod request;
pub mod selectors;
pub mod status;
pub mod time;
pub mod user;
pub mod validation;
