//! What an engine brings to the suite.

use crate::{Event, EventStream, Store};
use async_trait::async_trait;
use futures::StreamExt;
use std::sync::Arc;

/// An engine under test. Every property gets a new one.
#[async_trait]
pub trait Harness: Send + Sync + 'static {
    /// The store of this harness, empty. Called once.
    async fn open(&self) -> Arc<dyn Store>;

    /// Closes the store and opens it again with the same data; an engine that keeps nothing returns
    /// the store itself.
    async fn reopen(&self, store: Arc<dyn Store>) -> Arc<dyn Store>;

    /// Makes the engine forget the events up to the present revision or a part of it that includes
    /// the first one. It may write to the store to do so.
    async fn forget_events(&self, store: &dyn Store);
}

/// The next `n` events of a watch.
pub(super) async fn take(stream: &mut EventStream, n: usize) -> Vec<Arc<Event>> {
    let mut events = Vec::with_capacity(n);
    while events.len() < n {
        events.push(stream.next().await.expect("the watch goes on").expect("an event"));
    }
    events
}
