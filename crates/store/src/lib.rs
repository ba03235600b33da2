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
//!
//! ```text
//!  get, list      commit(Txn)                            watch(after)
//!      │               │ well-formed? (transaction)           ▲
//!      │               ▼                                      │ in order, none lost, none twice
//!      │           do its compares hold? ── no ─► Conflict    │
//!      │               │ yes                               window of recent events
//!      │               ▼                                      ▲
//!      │           one commit, one revision, one Event ───────┘ when it is durable
//!      ▼               ▼
//!  the engine: a map (MemoryStore), redb (EmbeddedStore: one writer), etcd (EtcdStore: it judges, keeps the window)
//!      │               │
//!      └── sealing ────┘  values under some prefixes are encrypted, on disk and on etcd
//! ```
//!
//! ```
//! use fleetpass_store::{Change, Error, MemoryStore, Store, Txn};
//! use futures::StreamExt;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Error> {
//! let store = MemoryStore::default();
//! let first = store.commit(Txn::create("/registry/configmaps/ns/a", "1")).await?;
//! store.commit(Txn::update("/registry/configmaps/ns/a", "2", first)).await?;
//!
//! // Whoever read the first revision cannot write over the second one, and is told what is there.
//! let conflict = store.commit(Txn::update("/registry/configmaps/ns/a", "3", first)).await;
//! let Err(Error::Conflict { current: Some(entry), .. }) = conflict else { panic!("{conflict:?}") };
//! assert_eq!((&entry.value[..], entry.create_revision), (&b"2"[..], first));
//!
//! // A watch after the first commit begins with the second one, however long ago that was.
//! let mut events = store.watch(first).await?;
//! let event = events.next().await.expect("the store is open")?;
//! assert_eq!(event.changes, [Change::Put(entry)]);
//! # Ok(())
//! # }
//! ```
//!
//! # What it does not do
//! - It knows no objects: keys and values are text and bytes, and a `resourceVersion` is made of a revision elsewhere.
//! - It keeps no history. A get or a list is of the present; a watch can begin only where the events since then are still
//!   in the window ([`Error::Compacted`]). Lists at earlier revisions are the work of the API server's watch cache.
//! - It does not filter: a watch has the events of all keys.
//! - It tries nothing again. [`Error::retry_can_help`] says where a caller may; after
//!   [`Error::OutcomeUnknown`] it has to read first.
//! - It has no leases and no locks between processes, but for the lock on the directory of an [`EmbeddedStore`].

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

pub use contract::{Change, Compare, Entry, Event, EventStream, Health, Listing, Op, Revision, Store, Txn};
pub use embedded::{EmbeddedOptions, EmbeddedStore, WallClock};
pub use error::{Cause, Error, OpenError, Result};
pub use etcd::{EtcdOptions, EtcdStore, EtcdTls};
pub use events::Window;
pub use keyring::KeyRing;
pub use memory::MemoryStore;
pub use sealing::Encryption;
