//! The engine for tests: a map behind a lock. Nothing outlives the process.

use crate::contract::{Entry, EventStream, Health, Listing, Revision, Store, Txn};
use crate::error::{Error, Result};
use crate::events::{End, Events, Window};
use crate::migrate::Target;
use crate::transaction::{self, Outcome, Revisions, State};
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ops::Bound;
use std::sync::Arc;

/// A store in memory, with the semantics of the durable ones.
#[derive(Debug)]
pub struct MemoryStore {
    /// Locked for each operation, and by a commit until its event is published. Never held across an await.
    state: Mutex<Memory>,
    events: Events,
}

#[derive(Debug, Default)]
struct Memory {
    entries: BTreeMap<Arc<str>, Entry>,
    revision: Revision,
}

impl MemoryStore {
    /// An empty store that keeps `window` recent events for its watchers.
    pub fn new(window: Window) -> Self {
        MemoryStore { state: Mutex::default(), events: Events::new(window, 0) }
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        MemoryStore::new(Window::default())
    }
}

impl State for Memory {
    type Error = Infallible;

    fn revisions(&self, key: &str) -> Result<Option<Revisions>, Infallible> {
        let revisions = |e: &Entry| Revisions { create: e.create_revision, modified: e.mod_revision };
        Ok(self.entries.get(key).map(revisions))
    }

    fn put(&mut self, key: &Arc<str>, value: &Bytes, revisions: Revisions) -> Result<(), Infallible> {
        let entry = Entry {
            key: key.clone(),
            value: value.clone(),
            create_revision: revisions.create,
            mod_revision: revisions.modified,
        };
        self.entries.insert(key.clone(), entry);
        Ok(())
    }

    fn remove(&mut self, key: &str) -> Result<(), Infallible> {
        self.entries.remove(key);
        Ok(())
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn get(&self, key: &str) -> Result<Option<Entry>> {
        self.events.check()?;
        Ok(self.state.lock().entries.get(key).cloned())
    }

    async fn list(&self, prefix: &str) -> Result<Listing> {
        self.events.check()?;
        let state = self.state.lock();
        // A range, not a scan: a list costs what it returns.
        let from = (Bound::Included(prefix), Bound::Unbounded);
        let under = state.entries.range::<str, _>(from).take_while(|(key, _)| key.starts_with(prefix));
        Ok(Listing { revision: state.revision, entries: under.map(|(_, e)| e.clone()).collect() })
    }

    async fn commit(&self, txn: Txn) -> Result<Revision> {
        transaction::validate(&txn)?;
        // Asked under the lock, so that nothing is committed after closing.
        let mut state = self.state.lock();
        self.events.check()?;
        let next = state.revision + 1;
        let Ok(outcome) = transaction::apply(&mut *state, &txn, next);
        match outcome {
            Outcome::Applied(event) => {
                state.revision = next;
                // Under the lock, so that events are published in the order of their revisions.
                self.events.publish([Arc::new(event)]);
                Ok(next)
            }
            Outcome::Unchanged => Ok(state.revision),
            Outcome::Conflict(key) => {
                let current = state.entries.get(&key).cloned();
                Err(Error::Conflict { key, current })
            }
        }
    }

    async fn revision(&self) -> Result<Revision> {
        self.events.check()?;
        Ok(self.state.lock().revision)
    }

    async fn watch(&self, after: Revision) -> Result<EventStream> {
        self.events.watch(after)
    }

    fn health(&self) -> Health {
        Health::Writable
    }

    async fn close(&self) {
        // Under the lock, so that a commit under way is published before the end.
        let _state = self.state.lock();
        self.events.end(End::Closed);
    }
}

#[async_trait]
impl Target for MemoryStore {
    async fn raise(&self, revision: Revision) -> Result<()> {
        self.events.check()?;
        let mut state = self.state.lock();
        state.revision = state.revision.max(revision);
        Ok(())
    }
}
