//! The registry: one engine that reads and writes the objects of all kinds. It knows no kind by name; what is
//! special about a kind is in its [`Strategy`](crate::strategy::Strategy).

mod conversion;
mod create;
mod decoded;
mod delete;
mod engine;
mod errors;
mod identity;
mod managed;
mod own;
mod pages;
mod patch;
mod patch_status;
mod read;
mod resource_version;
mod scope;
mod update;
mod watch;

pub(crate) use conversion::present;
pub(crate) use engine::{Registry, random_u64};
pub(crate) use managed::track_action;
pub(crate) use own::OwnWrite;
pub(crate) use patch::PatchRequest;
pub(crate) use patch_status::patch_status;
pub(crate) use read::Listed;
pub(crate) use scope::{Scope, Written};
pub(crate) use watch::{WatchItem, Watching};
