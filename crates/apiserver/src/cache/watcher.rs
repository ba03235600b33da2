//! Watchers of a resource: bounded queues, found by namespace, so that the cost of a change depends on the number of watchers
//! that it concerns and not on the number of all.
//!
//! A watcher that does not keep up is ended, never waited for (`k8s.io/apiserver/pkg/storage/cacher/cache_watcher.go`): events
//! are queued under the cache's lock, and waiting would stall every writer. Its client begins again at the last revision that
//! it saw, from the window.

use super::object::{Head, Object};
use bytes::Bytes;
use fleetpass_store::Revision;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc;

/// How many events may wait for one watcher before it is ended. Events are shared, so a full queue costs 1024 pointers.
const QUEUE: usize = 1024;

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EventKind {
    /// It is new.
    Added,
    /// It was changed.
    Modified,
    /// It is gone; the event carries its last state.
    Deleted,
}

impl EventKind {
    /// As a watch event prints it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

/// One change of one object, shared by all who watch it.
#[derive(Debug)]
pub(crate) struct Event {
    /// The revision of the commit.
    pub revision: Revision,
    /// What happened.
    pub kind: EventKind,
    /// The object after the change (before it, with the revision of the deletion, if it was deleted).
    pub object: Arc<Object>,
    /// The object before the change.
    pub previous: Option<Arc<Object>>,
    /// The JSON line for the API version that was wanted last: encoded once, shared by all watchers of that version. Nearly
    /// always there is only one. The lock is held while encoding, so that others wait for the line instead of making it too.
    encoded: Mutex<Option<(Box<str>, Bytes)>>,
}

impl Event {
    pub(super) fn new(
        revision: Revision,
        kind: EventKind,
        object: Arc<Object>,
        previous: Option<Arc<Object>>,
    ) -> Self {
        Self { revision, kind, object, previous, encoded: Mutex::default() }
    }

    /// Whether the object lies in `namespace`; the empty namespace holds all.
    pub(crate) fn is_in(&self, namespace: &str) -> bool {
        namespace.is_empty() || self.object.namespace_and_name().0 == namespace
    }

    /// The event as a line of JSON for watchers of `kind` in `api_version`.
    pub(crate) fn line(&self, kind: &str, api_version: &str) -> Bytes {
        let mut encoded = self.encoded.lock();
        if let Some((version, line)) = &*encoded
            && **version == *api_version
        {
            return line.clone();
        }
        let line = event_line(self.kind.as_str(), &self.object, kind, api_version);
        *encoded = Some((api_version.into(), line.clone()));
        line
    }

    /// Gives back the memory of the line, if there is one.
    pub(super) fn forget_line(&self) {
        *self.encoded.lock() = None;
    }

    #[cfg(test)]
    pub(super) fn has_line(&self) -> bool {
        self.encoded.lock().is_some()
    }
}

/// A watch event as a line of JSON.
pub(crate) fn event_line(event: &str, object: &Object, kind: &str, api_version: &str) -> Bytes {
    let mut out = Vec::with_capacity(object.size() + 160);
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(event.as_bytes());
    out.extend_from_slice(b"\",\"object\":");
    object.write(Head::Full { kind, api_version }, &mut out);
    out.extend_from_slice(b"}\n");
    out.into()
}

type Queue = mpsc::Sender<Arc<Event>>;

/// The watchers of one resource, by namespace; the empty namespace watches all.
#[derive(Default)]
pub(super) struct Watchers {
    by_namespace: HashMap<Box<str>, Vec<(u64, Queue)>>,
}

/// The id of the next watcher. One counter for all resources and for the life of the process: when a cache is loaded again, its
/// resources begin anew while old watchers are still to be dropped, and dropping one must not remove another of the same id.
static NEXT_ID: AtomicU64 = AtomicU64::new(0);

impl Watchers {
    pub(super) fn add(&mut self, namespace: &str) -> (u64, mpsc::Receiver<Arc<Event>>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        self.by_namespace.entry(namespace.into()).or_default().push((id, sender));
        (id, receiver)
    }

    pub(super) fn remove(&mut self, namespace: &str, id: u64) {
        if let Some(watchers) = self.by_namespace.get_mut(namespace) {
            watchers.retain(|(i, _)| *i != id);
            // Namespaces come and go: an empty entry for each that was ever watched would be a leak.
            if watchers.is_empty() {
                self.by_namespace.remove(namespace);
            }
        }
    }

    /// Queues the event for the watchers of its namespace and for those of all namespaces. A watcher whose queue is full, or
    /// which is gone, is removed: its queue closes, and it ends after the events that are in it.
    pub(super) fn send(&mut self, event: &Arc<Event>) {
        let namespace = event.object.namespace_and_name().0;
        // A cluster-scoped object has the empty namespace, whose watchers must not get it twice.
        let all = (!namespace.is_empty()).then_some("");
        for scope in [Some(namespace), all].into_iter().flatten() {
            if let Some(watchers) = self.by_namespace.get_mut(scope) {
                watchers.retain(|(_, queue)| queue.try_send(event.clone()).is_ok());
            }
        }
    }
}

/// The receiving end of one watch.
pub(crate) struct Watcher {
    /// Events of the window that happened before this watcher was registered; they come before those of the queue.
    backlog: VecDeque<Arc<Event>>,
    events: mpsc::Receiver<Arc<Event>>,
    on_drop: Box<dyn Fn() + Send + Sync>,
}

impl Watcher {
    pub(super) fn new(
        backlog: VecDeque<Arc<Event>>,
        events: mpsc::Receiver<Arc<Event>>,
        on_drop: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        Self { backlog, events, on_drop: Box::new(on_drop) }
    }

    /// The next event; `None` if the watch was ended, because it was too slow or because the cache was loaded again.
    /// Cancel-safe: an event leaves the queue only when it is returned.
    pub(crate) async fn next(&mut self) -> Option<Arc<Event>> {
        // All of the backlog is older than anything in the queue: it was taken under the lock that registered the watcher.
        match self.backlog.pop_front() {
            Some(event) => Some(event),
            None => self.events.recv().await,
        }
    }

    /// Whether no event is waiting.
    pub(crate) fn is_empty(&self) -> bool {
        self.backlog.is_empty() && self.events.is_empty()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        (self.on_drop)();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watcher_of_the_time_before_a_reload_does_not_remove_one_of_the_time_after_it() {
        let (before, _queue) = Watchers::default().add("ns");
        let mut reloaded = Watchers::default();
        let (_, mut queue) = reloaded.add("ns");
        reloaded.remove("ns", before);
        let object = Object::new("/registry/things/ns/a".into(), 1, r#"{"metadata":{}}"#.into()).unwrap();
        reloaded.send(&Arc::new(Event::new(1, EventKind::Added, Arc::new(object), None)));
        assert!(queue.try_recv().is_ok());
    }
}
