//! A revisioned key-value store: the contract and its engines.
//!
//! [`Store`] is what the API server needs from storage: get, list a prefix, commit a transaction
//! that compares modification revisions, and the stream of events after a revision. Every commit
//! that changes something gets the next revision; there is one order for the whole store.
//!
//! | engine | keeps its data | for |
//! | --- | --- | --- |
//! | [`MemoryStore`] | nowhere | tests |
//! | [`EmbeddedStore`] | in a redb file, one writer with group commit | one machine |
//! | [`EtcdStore`] | on an etcd cluster, laid out as kube-apiserver does | replicas |
//!
//! The engines share the rules (how a transaction is judged, which events can be
//! replayed) and pass the same suite (feature `suite`).

mod contract;
mod embedded;
mod error;
mod etcd;
mod events;
mod keyring;
mod memory;
pub mod migrate;
mod private_file;
mod sealing;
#[cfg(feature = "suite")]
pub mod suite;
mod transaction;

pub use contract::{Change, Compare, Entry, Event, EventStream, Listing, Op, Revision, Store, Txn};
pub use embedded::{EmbeddedOptions, EmbeddedStore};
pub use error::{Error, OpenError, Result};
pub use etcd::{EtcdOptions, EtcdStore, EtcdTls};
pub use events::Window;
pub use keyring::KeyRing;
pub use memory::MemoryStore;
pub use sealing::Encryption;
