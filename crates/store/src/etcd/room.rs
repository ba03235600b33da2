//! Whether etcd takes writes: it refuses them while its alarm NOSPACE is raised (etcd, `server/etcdserver/apply/apply.go`,
//! `applierV3Capped`). Reads, and transactions that only delete, go on.

use super::members::Failure;
use super::rpc::PutRequest;
use super::shared::Shared;
use crate::contract::Health;
use crate::error::Cause;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// How often it is tried whether etcd takes writes again.
const PROBE_INTERVAL: Duration = Duration::from_secs(2);

/// What an operator can do.
const REMEDY: &str = "compact and defragment etcd, then disarm its alarm";

impl Shared {
    /// Takes note of what became of a write that adds something, and says so once when that has changed.
    pub(super) fn note_write<T>(self: &Arc<Self>, written: Result<T, Failure>) -> Result<T, Failure> {
        match &written {
            Ok(_) => self.has_room(),
            Err(Failure::Full(reason)) => self.is_full(reason),
            // They say nothing about room.
            Err(_) => {}
        }
        written
    }

    fn is_full(self: &Arc<Self>, reason: &str) {
        let mut full = self.full.lock();
        if full.is_none() {
            tracing::warn!(reason, "etcd takes no writes, reads go on; {REMEDY}");
            // Not joined anywhere: it ends with the trouble or with the store.
            tokio::spawn(probe(Arc::downgrade(self)));
        }
        *full = Some(reason.to_owned());
    }

    fn has_room(&self) {
        // Read by every write; nobody holds it for more than a moment.
        if self.full.lock().take().is_some() {
            tracing::info!("etcd takes writes again");
        }
    }

    /// How the store fares.
    pub(super) fn health(&self) -> Health {
        match &*self.full.lock() {
            None => Health::Writable,
            Some(reason) => Health::Unwritable {
                cause: Cause::Other(reason.clone()),
                problem: format!("etcd takes no writes: {reason}; {REMEDY}"),
            },
        }
    }
}

/// Writes a note now and then, until etcd takes it: without traffic nobody else would find out.
async fn probe(shared: Weak<Shared>) {
    loop {
        tokio::time::sleep(PROBE_INTERVAL).await;
        let Some(shared) = shared.upgrade() else { return };
        if shared.check().is_err() || shared.full.lock().is_none() {
            return;
        }
        let key = shared.layout.note("room");
        let write = shared.members.write(|mut client| {
            let request = PutRequest { key: key.clone().into(), value: Vec::new() };
            async move { client.put(request).await }
        });
        // What came of it is noted; nobody waits for more.
        let _ = shared.note_write(write.await);
    }
}
