//! Watchers of a resource: bounded queues, found by namespace and name, so that the cost of a change depends on the number of
//! watchers that it concerns and not on the number of all.
//!
//! A watcher that does not keep up is ended, never waited for (`k8s.io/apiserver/pkg/storage/cacher/cache_watcher.go`): events
//! are queued under the cache's lock, and waiting would stall every writer. Its client begins again at the last revision that
//! it saw, from the window.

use super::encodings::{Encodings, Form};
use super::object::{Head, Object};
use bytes::Bytes;
use fleetpass_store::Revision;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
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
    /// Held for a moment, to look at it or to replace it.
    sharing: Mutex<Sharing>,
}

/// How the watchers of an event find its encodings.
#[derive(Debug)]
enum Sharing {
    /// Through the delivery that some of them still have before them. Weak: the event lives as long as the window remembers it,
    /// its encodings only as long as somebody is going to want them.
    Open(Weak<Delivery>),
    /// Not at all: the event is so old that only stragglers read it, and each encodes it for itself.
    Closed,
}

impl Event {
    pub(crate) fn new(
        revision: Revision,
        kind: EventKind,
        object: Arc<Object>,
        previous: Option<Arc<Object>>,
    ) -> Self {
        Self { revision, kind, object, previous, sharing: Mutex::new(Sharing::Open(Weak::new())) }
    }

    /// The event as watchers get it, the same for all who have it before them at the same time.
    pub(super) fn deliver(self: &Arc<Self>) -> Arc<Delivery> {
        let mut sharing = self.sharing.lock();
        let Sharing::Open(current) = &mut *sharing else {
            return Arc::new(Delivery { event: self.clone(), encodings: Encodings::closed() });
        };
        if let Some(delivery) = current.upgrade() {
            return delivery;
        }
        let delivery = Arc::new(Delivery { event: self.clone(), encodings: Encodings::open() });
        *current = Arc::downgrade(&delivery);
        delivery
    }

    /// Gives back the memory of the encodings, if there are any, and keeps none from now on.
    pub(super) fn close(&self) {
        // Dropped after the lock is free: this may be the last handle to the delivery.
        let before = std::mem::replace(&mut *self.sharing.lock(), Sharing::Closed);
        if let Sharing::Open(current) = before
            && let Some(delivery) = current.upgrade()
        {
            delivery.encodings.close();
        }
    }
}

/// An event on its way to watchers, with what was made of it for them. When the last of them has taken it, it is dropped.
pub(crate) struct Delivery {
    /// The event.
    pub event: Arc<Event>,
    encodings: Encodings,
}

impl std::fmt::Debug for Delivery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Delivery").field("event", &self.event).finish_non_exhaustive()
    }
}

impl Delivery {
    /// The event in a form. It is made by `encode` unless another watcher has had it made.
    pub(crate) fn encoded(&self, form: &Form, encode: impl FnOnce() -> Bytes) -> Bytes {
        self.encodings.get(form, encode)
    }

    #[cfg(test)]
    pub(super) fn forms(&self) -> usize {
        self.encodings.count()
    }
}

/// A watch event with the whole object as a line of JSON.
pub(crate) fn event_line(event: &str, object: &Object, kind: &str, api_version: &str) -> Bytes {
    line(event, object.size(), |out| object.write(Head::Full { kind, api_version }, out))
}

/// A watch event with the object's metadata alone as a line of JSON. `api_version` is a version of `meta.k8s.io`.
pub(crate) fn metadata_line(event: &str, object: &Object, api_version: &str) -> Bytes {
    line(event, 0, |out| object.write_metadata(api_version, out))
}

/// A line of about `size` bytes more than what is around the object.
fn line(event: &str, size: usize, object: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut out = Vec::with_capacity(size + 160);
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(event.as_bytes());
    out.extend_from_slice(b"\",\"object\":");
    object(&mut out);
    out.extend_from_slice(b"}\n");
    out.into()
}

/// Which objects of a resource a watcher can have any interest in. Its selectors may narrow that further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Interest<'a> {
    /// Those in this namespace; empty: in all, or the kind has none.
    pub namespace: &'a str,
    /// Those of this name; empty: of any.
    pub name: &'a str,
}

impl Interest<'_> {
    /// Whether the object is one of them.
    pub(super) fn covers(self, object: &Object) -> bool {
        let (namespace, name) = object.namespace_and_name();
        (self.namespace.is_empty() || self.namespace == namespace)
            && (self.name.is_empty() || self.name == name)
    }
}

/// The sending ends of watchers' queues by the ids of the watchers. Ordered maps: thousands of watchers may go at once, when a
/// proxy between them and us does.
type Queues = BTreeMap<u64, mpsc::Sender<Arc<Delivery>>>;

/// The watchers of one resource, by namespace, then by name; empty stands for all.
#[derive(Default)]
pub(super) struct Watchers {
    by_namespace: HashMap<Box<str>, HashMap<Box<str>, Queues>>,
}

/// The id of the next watcher. One counter for all resources and for the life of the process: when a cache is loaded again, its
/// resources begin anew while old watchers are still to be dropped, and dropping one must not remove another of the same id.
static NEXT_ID: AtomicU64 = AtomicU64::new(0);

impl Watchers {
    pub(super) fn add(&mut self, interest: Interest<'_>) -> (u64, mpsc::Receiver<Arc<Delivery>>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let by_name = self.by_namespace.entry(interest.namespace.into()).or_default();
        by_name.entry(interest.name.into()).or_default().insert(id, sender);
        (id, receiver)
    }

    pub(super) fn remove(&mut self, interest: Interest<'_>, id: u64) {
        let Some(by_name) = self.by_namespace.get_mut(interest.namespace) else { return };
        let Some(watchers) = by_name.get_mut(interest.name) else { return };
        watchers.remove(&id);
        // Namespaces and names come and go: an empty entry for each that was ever watched would be a leak.
        if watchers.is_empty() {
            by_name.remove(interest.name);
        }
        if by_name.is_empty() {
            self.by_namespace.remove(interest.namespace);
        }
    }

    /// Queues the event for all who may be interested in its object. A watcher whose queue is full, or which is gone, is
    /// removed: its queue closes, and it ends after the events that are in it.
    pub(super) fn send(&mut self, event: &Arc<Event>) {
        let (namespace, name) = event.object.namespace_and_name();
        // A cluster-scoped object has the empty namespace, whose watchers must not get it twice.
        let all = (!namespace.is_empty()).then_some("");
        let mut delivery = None;
        for scope in [Some(namespace), all].into_iter().flatten() {
            let Some(by_name) = self.by_namespace.get_mut(scope) else { continue };
            for name in [name, ""] {
                if let Some(watchers) = by_name.get_mut(name) {
                    let delivery = delivery.get_or_insert_with(|| event.deliver());
                    watchers.retain(|_, queue| queue.try_send(delivery.clone()).is_ok());
                }
            }
        }
    }
}

/// The receiving end of one watch.
pub(crate) struct Watcher {
    /// Events of the window that happened before this watcher was registered; they come before those of the queue.
    backlog: VecDeque<Arc<Delivery>>,
    events: mpsc::Receiver<Arc<Delivery>>,
    on_drop: Box<dyn Fn() + Send + Sync>,
}

impl Watcher {
    pub(super) fn new(
        events: mpsc::Receiver<Arc<Delivery>>,
        on_drop: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        Self { backlog: VecDeque::new(), events, on_drop: Box::new(on_drop) }
    }

    /// Puts events in front of those of the queue, which must be younger. Watchers that begin at the same time, as after a
    /// restart of a proxy, share what is made of them.
    pub(super) fn begin_with(&mut self, backlog: &[Arc<Event>]) {
        self.backlog = backlog.iter().map(Event::deliver).collect();
    }

    /// The next event; `None` if the watch was ended, because it was too slow or because the cache was loaded again.
    /// Cancel-safe: an event leaves the queue only when it is returned.
    pub(crate) async fn next(&mut self) -> Option<Arc<Delivery>> {
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
    use std::cell::Cell;

    const NS: Interest<'_> = Interest { namespace: "ns", name: "" };

    const ALL: Interest<'_> = Interest { namespace: "", name: "" };

    fn event(key: &str, revision: Revision) -> Arc<Event> {
        let object = Object::new(key.into(), revision, r#"{"metadata":{}}"#.into()).unwrap();
        Arc::new(Event::new(revision, EventKind::Added, Arc::new(object), None))
    }

    #[test]
    fn an_event_is_encoded_once_for_all_its_watchers_and_then_forgotten() {
        let mut watchers = Watchers::default();
        let mut queues: Vec<_> =
            (0..1000).map(|n| watchers.add(if n % 2 == 0 { NS } else { ALL }).1).collect();
        let event = event("/registry/things/ns/a", 1);
        watchers.send(&event);
        let (forms, made) = ([Form::new("json"), Form::new("metadata")], Cell::new(0));
        let last = queues.split_off(999);
        for (n, queue) in queues.iter_mut().enumerate() {
            let taken = queue.try_recv().unwrap();
            let text = taken.encoded(&forms[n % 2], || {
                made.set(made.get() + 1);
                forms_text(n % 2)
            });
            assert_eq!(text, forms_text(n % 2));
        }
        assert_eq!((made.get(), event.deliver().forms()), (2, 2));
        // Nobody has the event before them any more: what was made of it goes, although the window remembers it.
        drop(last);
        assert_eq!(event.deliver().forms(), 0);
    }

    fn forms_text(form: usize) -> Bytes {
        ["whole", "metadata"][form].into()
    }

    #[tokio::test]
    async fn watchers_of_the_past_share_what_is_made_for_them_too() {
        let past = [1, 2].map(|revision| event("/registry/things/ns/a", revision));
        let mut watchers: Vec<_> = (0..10)
            .map(|_| {
                let mut watcher = Watcher::new(mpsc::channel(1).1, || ());
                watcher.begin_with(&past);
                watcher
            })
            .collect();
        let (form, made) = (Form::new("json"), Cell::new(0));
        for watcher in &mut watchers {
            for revision in [1, 2] {
                let taken = watcher.next().await.unwrap();
                assert_eq!(taken.event.revision, revision);
                taken.encoded(&form, || {
                    made.set(made.get() + 1);
                    Bytes::new()
                });
            }
        }
        assert_eq!(made.get(), 2);
    }

    #[test]
    fn a_watcher_of_the_time_before_a_reload_does_not_remove_one_of_the_time_after_it() {
        let (before, _queue) = Watchers::default().add(NS);
        let mut reloaded = Watchers::default();
        let (_, mut queue) = reloaded.add(NS);
        reloaded.remove(NS, before);
        reloaded.send(&event("/registry/things/ns/a", 1));
        assert!(queue.try_recv().is_ok());
    }

    #[test]
    fn events_reach_those_whom_they_concern_and_no_others() {
        let of = |namespace, name| Interest { namespace, name };
        let interests = [
            of("", ""),
            of("", "a"),
            of("", "b"),
            of("ns", ""),
            of("ns", "a"),
            of("ns", "b"),
            of("other", ""),
            of("other", "a"),
        ];
        let mut watchers = Watchers::default();
        let mut queues: Vec<_> =
            interests.iter().map(|interest| (*interest, watchers.add(*interest))).collect();
        for (key, reached) in [
            ("/registry/things/ns/a", vec![of("", ""), of("", "a"), of("ns", ""), of("ns", "a")]),
            ("/registry/things/ns/c", vec![of("", ""), of("ns", "")]),
            ("/registry/things/b", vec![of("", ""), of("", "b")]),
        ] {
            let event = event(key, 1);
            watchers.send(&event);
            let got: Vec<_> = queues
                .iter_mut()
                .filter_map(|(interest, (_, queue))| queue.try_recv().is_ok().then_some(*interest))
                .collect();
            assert_eq!(got, reached, "{key}");
            assert!(interests.iter().all(|i| i.covers(&event.object) == reached.contains(i)), "{key}");
            assert!(queues.iter_mut().all(|(_, (_, queue))| queue.try_recv().is_err()), "{key}: twice");
        }
        queues.iter().for_each(|(interest, (id, _))| watchers.remove(*interest, *id));
        assert!(watchers.by_namespace.is_empty());
    }
}
