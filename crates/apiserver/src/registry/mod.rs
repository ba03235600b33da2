//! The registry: one engine that reads and writes the objects of all kinds. It knows no kind by name; what is
//! special about a kind is in its [`Strategy`](crate::strategy::Strategy).
//!
//! # The order of a write
//!
//! As in `k8s.io/apiserver/pkg/registry/generic/registry/store.go` and `pkg/registry/rest/{create,update}.go`:
//!
//! ```text
//! wait until the cache is fresh
//!   ┌► read the object from the cache            (not for create)
//!   │  make the new object: body, patch or apply; check its resourceVersion
//!   │  managed fields                            who owns what the client has changed
//!   │  admit                                     may change the object or refuse it: namespace, then the kind's own rules
//!   │  prepare                                   clear what clients may not set, fill in what the server sets
//!   │  validate                                  all errors at once, 422
//!   │  admit_final                               may only refuse: it sees what would be stored
//!   │  canonicalize, encode                      too large: 500 in etcd's words
//!   │  charge the quotas of the namespace        (only for create)
//!   └─ commit, if the stored revision is still the one that was read; else again from the top
//! wait until the cache has applied the commit
//! ```
//!
//! Admission comes before validation, because it may fill in what validation demands; final admission after it, because its
//! rules may rely on a valid object. Managed fields come before admission, so that what the server adds belongs to nobody.
//!
//! **Why a write waits for its own revision**: whoever has been answered must read what they wrote, through a get from the
//! cache, and through everything that subscribers of the cache keep: a role binding holds, and the kind of a CRD is known, when
//! the write is answered.
//!
//! **Why writes are optimistic**: the new object is computed from a copy without any lock, and the store commits it only if
//! nothing has changed since. A stale cache can therefore cost a retry, never an update that is lost. Whether an object
//! *exists* is decided by the cache, so each write first makes sure that it is fresh.
//!
//! **Why quotas are charged in the commit that creates**: as a write of their own, as in kube-apiserver, what was charged for a
//! create that then fails would stay charged until a controller counts again. The commit compares the quotas too, so creates
//! that race each other, on any replica, never exceed a limit (see `quota`).
//!
//! **Cancellation**: everything may be dropped at any await. Before the commit nothing has happened; a commit that the store
//! has accepted takes place whether or not somebody waits for its answer.

mod candidates;
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
mod quota;
mod read;
mod resource_version;
mod scope;
mod search;
mod selected;
mod size;
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
pub(crate) use search::Search;
pub(crate) use watch::{WatchItem, Watching};
