//! The memory engine has the properties of a store.

use async_trait::async_trait;
use fleetpass_store::suite::Harness;
use fleetpass_store::{MemoryStore, Store, Txn, Window};
use std::sync::Arc;

const WINDOW: Window = Window { events: 512, bytes: 1 << 20 };

struct Memory;

#[async_trait]
impl Harness for Memory {
    async fn open(&self) -> Arc<dyn Store> {
        Arc::new(MemoryStore::new(WINDOW))
    }

    async fn reopen(&self, store: Arc<dyn Store>) -> Arc<dyn Store> {
        store
    }

    async fn forget_events(&self, store: &dyn Store) {
        for _ in 0..WINDOW.events {
            store.commit(Txn::put("/filler", "")).await.unwrap();
        }
    }
}

fleetpass_store::store_suite!(|| Memory);
