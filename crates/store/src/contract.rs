//! What the API server may expect of every engine.

use crate::error::{Cause, Result};
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use std::fmt;
use std::sync::Arc;

/// A point in the history of the whole store. Every commit that changes something gets the next
/// one; 0 is the empty store that nothing was ever written to. etcd counts from 1, and counts the commits of all its
/// users.
pub type Revision = u64;

/// A key with its value at some revision.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Arc<str>,
    /// The value, in plain, whatever the engine keeps on disk.
    pub value: Bytes,
    /// The revision that created the key; a deletion and a new creation start anew.
    pub create_revision: Revision,
    /// The revision that last wrote the key.
    pub mod_revision: Revision,
}

impl fmt::Debug for Entry {
    /// Leaves the value out: it may be a Secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("key", &self.key)
            .field("value", &Hidden(self.value.len()))
            .field("create_revision", &self.create_revision)
            .field("mod_revision", &self.mod_revision)
            .finish()
    }
}

/// A value in a debug print: its size only.
struct Hidden(usize);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} bytes>", self.0)
    }
}

/// All entries under a prefix at one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The revision of the whole store that the entries show. A watch after it continues this
    /// listing without a gap.
    pub revision: Revision,
    /// The entries in the order of their keys' bytes.
    pub entries: Vec<Entry>,
}

/// A change that a transaction asks for.
#[derive(Clone, PartialEq, Eq)]
pub enum Op {
    /// Write the key, whether it exists or not.
    Put {
        /// The key; not empty.
        key: Arc<str>,
        /// Its new value.
        value: Bytes,
    },
    /// Remove the key; nothing happens if it does not exist.
    Delete {
        /// The key; not empty.
        key: Arc<str>,
    },
}

impl Op {
    /// The key that the operation is about.
    pub fn key(&self) -> &Arc<str> {
        match self {
            Op::Put { key, .. } | Op::Delete { key } => key,
        }
    }
}

impl fmt::Debug for Op {
    /// Leaves the value out: it may be a Secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Op::Put { key, value } => {
                f.debug_struct("Put").field("key", key).field("value", &Hidden(value.len())).finish()
            }
            Op::Delete { key } => f.debug_struct("Delete").field("key", key).finish(),
        }
    }
}

/// A condition of a transaction: the key was last written by exactly this revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compare {
    /// The key.
    pub key: Arc<str>,
    /// Its expected modification revision; 0: the key must not exist.
    pub mod_revision: Revision,
}

/// Conditions and changes that are carried out together or not at all.
///
/// - All compares are judged against the state before the transaction. The first one, in order, that
///   does not hold rejects the transaction with [`Error::Conflict`](crate::Error::Conflict).
/// - The operations of one transaction get one revision and appear as one [`Event`], in their order.
/// - A key may appear in one operation only, and no key may be empty
///   ([`Error::Invalid`](crate::Error::Invalid)), as etcd has it.
/// - A transaction that changes nothing (it has no operations, or deletes only keys that do not
///   exist) gets no revision and no event: it answers the store's present revision. A put always
///   changes something, even if it writes the value that was there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Txn {
    /// What must hold.
    pub compares: Vec<Compare>,
    /// What is done then.
    pub ops: Vec<Op>,
}

impl Txn {
    /// Writes `key` if it does not exist.
    pub fn create(key: impl Into<Arc<str>>, value: impl Into<Bytes>) -> Txn {
        Txn::update(key, value, 0)
    }

    /// Writes `key` if it was last written by `mod_revision` (0: if it does not exist).
    pub fn update(key: impl Into<Arc<str>>, value: impl Into<Bytes>, mod_revision: Revision) -> Txn {
        let key = key.into();
        Txn {
            compares: vec![Compare { key: key.clone(), mod_revision }],
            ops: vec![Op::Put { key, value: value.into() }],
        }
    }

    /// Writes `key` whatever is there.
    pub fn put(key: impl Into<Arc<str>>, value: impl Into<Bytes>) -> Txn {
        Txn { compares: Vec::new(), ops: vec![Op::Put { key: key.into(), value: value.into() }] }
    }

    /// Removes `key` if it was last written by `mod_revision`.
    pub fn delete(key: impl Into<Arc<str>>, mod_revision: Revision) -> Txn {
        let key = key.into();
        Txn { compares: vec![Compare { key: key.clone(), mod_revision }], ops: vec![Op::Delete { key }] }
    }

    /// Removes `key` whatever is there; changes nothing if it does not exist.
    pub fn remove(key: impl Into<Arc<str>>) -> Txn {
        Txn { compares: Vec::new(), ops: vec![Op::Delete { key: key.into() }] }
    }

    /// This transaction and `other` as one.
    #[must_use]
    pub fn and(mut self, other: Txn) -> Txn {
        self.compares.extend(other.compares);
        self.ops.extend(other.ops);
        self
    }
}

/// What one commit changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The revision that the commit got.
    pub revision: Revision,
    /// What it changed, in the order of the transaction's operations. Empty only where an engine shares its revisions
    /// with others: everything up to this revision has been delivered.
    pub changes: Vec<Change>,
}

/// One key's part of an [`Event`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The key was written. It was created if the entry's revisions are equal.
    Put(Entry),
    /// The key was removed.
    Delete {
        /// The key.
        key: Arc<str>,
        /// The revision that had created it; 0 if the engine no longer knows.
        prev_create_revision: Revision,
        /// The revision that had last written it; 0 if the engine no longer knows.
        prev_mod_revision: Revision,
    },
}

impl Change {
    /// The key that changed.
    pub fn key(&self) -> &Arc<str> {
        match self {
            Change::Put(entry) => &entry.key,
            Change::Delete { key, .. } => key,
        }
    }
}

// Shared: an event has the values of its entries, and every watcher of the API server gets each.
/// Events in order, each shared by all its watchers.
///
/// The stream ends after an error, and when the store was closed, after the last event.
pub type EventStream = BoxStream<'static, Result<Arc<Event>>>;

/// How an engine fares, for health checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Commits are carried out, as far as is known.
    Writable,
    /// Commits fail, and the engine goes on trying by itself. What it said before still holds, and reads go on as far as
    /// they can.
    Unwritable {
        /// What clients are told.
        cause: Cause,
        /// For the operator: what cannot be written, why, and what to do.
        problem: String,
    },
    /// Nothing but opening the store again helps: the process has to be restarted.
    Stopped {
        /// For the operator: what happened.
        problem: String,
    },
}

// A trait object, and hence boxed futures: the API server is compiled once for all engines, and next to a commit, or a
// request to etcd, an allocation does not count.
/// A revisioned key-value store.
///
/// What was answered holds: a read that starts after a commit was answered sees it, in every engine.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The entry of `key`, or `None` if it does not exist.
    async fn get(&self, key: &str) -> Result<Option<Entry>>;

    /// All entries whose keys start with `prefix` (every entry for an empty one), from one consistent
    /// snapshot.
    async fn list(&self, prefix: &str) -> Result<Listing>;

    /// Carries out a transaction. When it answers, the commit is durable and published to watchers.
    ///
    /// Answers the revision of the commit, or the present one if the transaction changed nothing.
    /// A caller who stops waiting does not take the transaction back: it may still happen.
    ///
    /// # Errors
    ///
    /// [`Error::Conflict`](crate::Error::Conflict) if a compare does not hold;
    /// [`Error::Unwritable`](crate::Error::Unwritable) if there is no room, or the disk fails;
    /// [`Error::OutcomeUnknown`](crate::Error::OutcomeUnknown) if it cannot be told whether it happened.
    async fn commit(&self, txn: Txn) -> Result<Revision>;

    /// The revision of the last commit that was answered, or a later one.
    async fn revision(&self) -> Result<Revision>;

    /// Every event with a revision greater than `after`, in order, none lost, none twice. An `after`
    /// that has not been reached yet waits for it.
    ///
    /// The engine keeps a bounded number of events for its watchers, and none from before it was
    /// opened. A watcher that falls further behind than that gets
    /// [`Error::Lagged`](crate::Error::Lagged) in place of the events that are gone, and the stream ends.
    ///
    /// # Errors
    ///
    /// [`Error::Compacted`](crate::Error::Compacted) if events after `after` are gone already.
    async fn watch(&self, after: Revision) -> Result<EventStream>;

    /// How the engine fares. From memory: it asks no disk and no server, and does not wait.
    fn health(&self) -> Health;

    /// Finishes what is under way, ends the watches after their last event, and releases what the
    /// engine holds. Everything asked afterwards answers [`Error::Closed`](crate::Error::Closed).
    async fn close(&self);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_prints_no_value() {
        let entry = Entry { key: "/k".into(), value: "hunter2".into(), create_revision: 1, mod_revision: 2 };
        let printed = format!(
            "{:?} {:?} {:?}",
            Change::Put(entry.clone()),
            Txn::put("/k", "hunter2"),
            crate::Error::Conflict { key: "/k".into(), current: Some(entry) },
        );
        assert!(!printed.contains("hunter2"), "{printed}");
        assert_eq!(printed.matches("<7 bytes>").count(), 3, "{printed}");
    }
}
