//! The watch cache: the latest objects of all kinds in persistent ordered maps, and a window of recent events.
//!
//! One task follows the store and applies each commit. Reads take a snapshot, which is a pointer copy, and go on without a
//! lock. A write waits until its own revision has been applied ([`Cache::wait_for`]), so whoever was answered reads what they
//! wrote. History lives here and not in the engine: a list at an earlier revision is the present rewound through the window; a
//! watch that begins before the window is refused (`k8s.io/apiserver/pkg/storage/cacher`).
//!
//! # Locks
//!
//! One [`RwLock`] guards everything. It is a synchronous one and never held across an `.await`:
//!
//! - [`Cache::apply`] holds it for writing while it applies one commit with all its changes: nobody ever sees half of a
//!   transaction. Subscribers run and watchers' queues are filled under it. Both never block: a subscriber works on memory, a
//!   queue that is full is closed.
//! - Readers hold it for a lookup or for the copy of a map's root, never while they filter or encode.
//! - Registering and dropping a watcher needs it for writing, for a moment.
//!
//! The published revision (`Cache::revision`) is raised after the lock is free: whoever waits for it finds the lock open.

mod encodings;
mod object;
mod past;
mod ranked;
mod watcher;
mod window;

pub(crate) use encodings::Form;
pub(crate) use object::{
    Head, Object, PARTIAL, encode, encode_for_storage, join_key, set_resource_version, split_key,
};
#[cfg(test)]
pub(crate) use ranked::steps;
pub(crate) use ranked::{Iter, RankedMap};
pub(crate) use watcher::{Delivery, Event, EventKind, Interest, Watcher, event_line, metadata_line};

use fleetpass_store::{Change, Entry, Revision, Store};
use futures::StreamExt;
use parking_lot::RwLock;
use past::Past;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use watcher::Watchers;
use window::Window;

/// The objects of one resource at one revision.
pub(crate) type Objects = RankedMap<Arc<str>, Arc<Object>>;

/// Why a read of the past or the future is not possible.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CacheError {
    /// The revision is older than what is remembered.
    #[error("too old resource version: {asked} ({oldest})")]
    TooOld {
        /// The revision that was asked for.
        asked: Revision,
        /// The oldest that can be served.
        oldest: Revision,
    },
    /// The revision has not come in time.
    #[error("Too large resource version: {asked}, current: {current}")]
    TooLarge {
        /// The revision that was asked for.
        asked: Revision,
        /// The present one.
        current: Revision,
    },
}

/// Is told of every change, in order, before any reader can see it: what a subscriber derives from objects (the RBAC index, the
/// table of kinds) is never older than the objects.
pub(crate) trait Subscriber: Send + Sync {
    /// An object that is about to be applied. No lock is held: what takes long is done here and kept for the event. Every object
    /// comes here before the event that brings it.
    fn prepare(&self, _prefix: &str, _object: &Arc<Object>) {}

    /// A change. Runs under the cache's write lock. So it must be quick, must not block, and must not call back into the cache,
    /// which would deadlock. A lock that it takes itself must never be held by anybody who calls the cache.
    fn on_event(&self, prefix: &str, event: &Event);
}

impl<F: Fn(&str, &Event) + Send + Sync> Subscriber for F {
    fn on_event(&self, prefix: &str, event: &Event) {
        self(prefix, event);
    }
}

/// One resource: all objects below one storage prefix.
#[derive(Default)]
struct ResourceCache {
    /// A persistent map: a clone shares all nodes with the original, and a change copies the path to what is changed. That
    /// makes snapshots cheap and leaves those that were taken as they are.
    objects: Objects,
    window: Window,
    /// Earlier states that were asked for.
    past: Past,
    watchers: Watchers,
}

#[derive(Default)]
struct Inner {
    /// By storage prefix. A resource appears with its first object or watcher and stays until the next reload.
    resources: HashMap<Box<str>, ResourceCache>,
    /// The revision at which the whole cache was last loaded.
    loaded: Revision,
    /// The revision that has been applied last: that at which a snapshot taken now is the whole truth. `Cache::revision`
    /// follows it once the lock is free.
    applied: Revision,
}

/// The watch cache of a whole store.
pub(crate) struct Cache {
    inner: RwLock<Inner>,
    /// Published after each commit; never ahead of `inner.applied`.
    revision: watch::Sender<Revision>,
    subscribers: Vec<Box<dyn Subscriber>>,
    /// For the readiness check only, so no ordering with anything else is needed.
    following: AtomicBool,
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache").field("revision", &self.revision()).finish_non_exhaustive()
    }
}

impl Cache {
    /// Loads the store and follows it until `stop`. Subscribers are told of every object that was loaded (as
    /// [`EventKind::Added`]) and of every change from then on.
    pub(crate) async fn start(
        store: Arc<dyn Store>,
        subscribers: Vec<Box<dyn Subscriber>>,
        stop: CancellationToken,
    ) -> Result<Arc<Self>, fleetpass_store::Error> {
        let cache = Arc::new(Self {
            inner: RwLock::default(),
            revision: watch::Sender::new(0),
            subscribers,
            following: AtomicBool::new(true),
        });
        let mut events = cache.load(&store).await?;
        let follower = cache.clone();
        tokio::spawn(async move {
            loop {
                let event = tokio::select! {
                    event = events.next() => event,
                    () = stop.cancelled() => return,
                };
                match event {
                    Some(Ok(event)) => follower.apply(&event),
                    // The stream has failed or has ended, for example because the store has dropped events that we did not
                    // take in time. What was missed is unknown, so all is loaded again.
                    ended => {
                        let error = ended.and_then(Result::err).map(|e| e.to_string()).unwrap_or_default();
                        tracing::warn!(error, "the store's event stream ended; loading the store again");
                        follower.following.store(false, Ordering::Relaxed);
                        let Some(again) = follower.load_until_it_works(&store, &stop).await else { return };
                        events = again;
                        follower.following.store(true, Ordering::Relaxed);
                    }
                }
            }
        });
        Ok(cache)
    }

    async fn load_until_it_works(
        &self,
        store: &Arc<dyn Store>,
        stop: &CancellationToken,
    ) -> Option<fleetpass_store::EventStream> {
        let mut pause = Duration::from_millis(50);
        loop {
            match self.load(store).await {
                Ok(events) => return Some(events),
                Err(error) => tracing::error!(%error, "cannot load the store; trying again"),
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(Duration::from_secs(5)),
                () = stop.cancelled() => return None,
            }
        }
    }

    /// Loads everything and takes up the events after it. Nothing is missed between the two: the watch begins at the revision
    /// of the listing.
    async fn load(
        &self,
        store: &Arc<dyn Store>,
    ) -> Result<fleetpass_store::EventStream, fleetpass_store::Error> {
        let listing = store.list("/registry/").await?;
        // Before the reset: if this fails, the cache keeps what it has.
        let events = store.watch(listing.revision).await?;
        self.reset(&listing.entries, listing.revision);
        Ok(events)
    }

    /// Replaces everything. Watchers are ended, since they cannot be told what they have missed: their queues close with the
    /// old resources, their clients begin again. Subscribers are told of every object (again) and of every one that is gone.
    fn reset(&self, entries: &[Entry], revision: Revision) {
        let objects: Vec<Arc<Object>> = entries.iter().filter_map(|entry| self.prepare(entry)).collect();
        let mut inner = self.inner.write();
        let before = std::mem::take(&mut inner.resources);
        inner.loaded = revision;
        inner.applied = revision;
        for object in objects {
            let key = object.key.clone();
            let prefix = split_key(&key).0;
            let cache = inner.resource(prefix);
            cache.objects.insert(object.key.clone(), object.clone());
            self.notify(prefix, &Event::new(object.revision, EventKind::Added, object, None));
        }
        // What was deleted while nobody looked. Subscribers must hear of it, or a role binding that is gone would stay in
        // force.
        for (prefix, old) in before {
            let now = inner.resource(&prefix);
            for (key, gone) in &old.objects {
                if now.objects.get(key).is_none() {
                    let last = Arc::new(gone.at_revision(revision));
                    self.notify(&prefix, &Event::new(revision, EventKind::Deleted, last, Some(gone.clone())));
                }
            }
        }
        drop(inner);
        self.revision.send_replace(revision);
    }

    /// Applies one commit. The lock is held for all of its changes, which have one revision.
    fn apply(&self, commit: &fleetpass_store::Event) {
        // Read before the lock is taken: nobody waits for that.
        let objects: Vec<Option<Arc<Object>>> = commit
            .changes
            .iter()
            .map(|change| match change {
                Change::Put(entry) => self.prepare(entry),
                Change::Delete { .. } => None,
            })
            .collect();
        let mut inner = self.inner.write();
        for (change, object) in commit.changes.iter().zip(objects) {
            match change {
                Change::Put(entry) => {
                    let Some(object) = object else { continue };
                    let prefix = split_key(&entry.key).0;
                    let cache = inner.resource(prefix);
                    let previous = cache.objects.insert(object.key.clone(), object.clone());
                    // By what the cache had, not by what the writer meant: for watchers an object is new if they have not seen
                    // it.
                    let kind = if previous.is_some() { EventKind::Modified } else { EventKind::Added };
                    self.publish(prefix, cache, Event::new(commit.revision, kind, object, previous));
                }
                Change::Delete { key, .. } => {
                    let prefix = split_key(key).0;
                    let cache = inner.resource(prefix);
                    let Some(previous) = cache.objects.remove(key) else { continue };
                    // A deletion has a revision of its own, at which clients resume; the stored text has none in it.
                    let last = Arc::new(previous.at_revision(commit.revision));
                    self.publish(
                        prefix,
                        cache,
                        Event::new(commit.revision, EventKind::Deleted, last, Some(previous)),
                    );
                }
            }
        }
        inner.applied = commit.revision;
        // First unlock, then publish: those who are woken want to read.
        drop(inner);
        self.revision.send_replace(commit.revision);
    }

    /// Reads a stored value, and lets subscribers read the object; without any lock.
    fn prepare(&self, entry: &Entry) -> Option<Arc<Object>> {
        let object = parse(entry)?;
        let prefix = split_key(&entry.key).0;
        for subscriber in &self.subscribers {
            subscriber.prepare(prefix, &object);
        }
        Some(object)
    }

    /// Subscribers first, then the window and the watchers: a client that is told of a change must find its effects.
    fn publish(&self, prefix: &str, cache: &mut ResourceCache, event: Event) {
        self.notify(prefix, &event);
        let event = Arc::new(event);
        cache.window.push(event.clone());
        cache.past.forget_before(cache.window.start());
        cache.watchers.send(&event);
    }

    fn notify(&self, prefix: &str, event: &Event) {
        for subscriber in &self.subscribers {
            subscriber.on_event(prefix, event);
        }
    }

    /// Whether the store is being followed; false while its event stream is being taken up again.
    pub(crate) fn is_following(&self) -> bool {
        self.following.load(Ordering::Relaxed)
    }

    /// The revision up to which everything has been applied.
    pub(crate) fn revision(&self) -> Revision {
        *self.revision.borrow()
    }

    /// Waits until `revision` has been applied, however long that takes. Dropping the future is harmless.
    pub(crate) async fn wait_for(&self, revision: Revision) {
        // An error would mean that the sender is gone, and that lives as long as `self`.
        let _ = self.revision.subscribe().wait_for(|r| *r >= revision).await;
    }

    /// Waits for a revision that a client asked for, up to three seconds as kube-apiserver does
    /// (`blockTimeout` in `storage/cacher/watch_cache.go`).
    pub(crate) async fn wait_for_fresh(&self, revision: Revision) -> Result<(), CacheError> {
        // Nearly always true; it saves the timer and the subscription.
        if self.revision() >= revision {
            return Ok(());
        }
        match tokio::time::timeout(Duration::from_secs(3), self.wait_for(revision)).await {
            Ok(()) => Ok(()),
            Err(_) => Err(CacheError::TooLarge { asked: revision, current: self.revision() }),
        }
    }

    /// The object at `key`.
    pub(crate) fn get(&self, key: &str) -> Option<Arc<Object>> {
        let inner = self.inner.read();
        inner.resources.get(split_key(key).0)?.objects.get(key).cloned()
    }

    /// All objects of a resource, with the revision at which this is the whole truth.
    pub(crate) fn snapshot(&self, prefix: &str) -> (Revision, Objects) {
        let inner = self.inner.read();
        (inner.applied, inner.resources.get(prefix).map(|c| c.objects.clone()).unwrap_or_default())
    }

    /// All objects of a resource as they were at `revision`, which must not be in the future: the nearest later state that is
    /// known with the events until then undone, the latest first. Costs time for each of these events, at most as many as the
    /// window holds, and nothing for a state that was asked for not long ago, such as that of the pages of one list.
    pub(crate) fn snapshot_at(&self, prefix: &str, revision: Revision) -> Result<Objects, CacheError> {
        let (state, mut objects, undo) = {
            let inner = self.inner.read();
            // No object or watcher since the store was loaded, so it was empty at every revision from then on.
            let Some(cache) = inner.resources.get(prefix) else {
                return if revision >= inner.loaded {
                    Ok(Objects::default())
                } else {
                    Err(CacheError::TooOld { asked: revision, oldest: inner.loaded })
                };
            };
            if revision < cache.window.start() {
                return Err(CacheError::TooOld { asked: revision, oldest: cache.window.start() });
            }
            let state = cache.window.last_until(revision);
            let (from, objects) =
                cache.past.nearest(state).unwrap_or_else(|| (Revision::MAX, cache.objects.clone()));
            let undo: Vec<_> = cache.window.between(state, from).cloned().collect();
            (state, objects, undo)
        };
        if undo.is_empty() {
            return Ok(objects);
        }
        // Without the lock: writers must not wait for thousands of steps.
        past::undo(&mut objects, &undo);
        let inner = self.inner.read();
        if let Some(cache) = inner.resources.get(prefix).filter(|cache| cache.window.start() <= state) {
            cache.past.keep(state, &objects);
        }
        Ok(objects)
    }

    /// Follows the objects of a resource that are of `interest` from `after` on. What is in the window is delivered first.
    pub(crate) fn watch(
        self: &Arc<Self>,
        prefix: &str,
        interest: Interest<'_>,
        after: Revision,
    ) -> Result<Watcher, CacheError> {
        let mut inner = self.inner.write();
        let cache = inner.resource(prefix);
        // An event between the two has been forgotten: serving the rest would hide it from the client.
        if after < cache.window.start() {
            return Err(CacheError::TooOld { asked: after, oldest: cache.window.start() });
        }
        let backlog: Vec<_> =
            cache.window.after(after).filter(|event| interest.covers(&event.object)).cloned().collect();
        let mut watcher = self.register(prefix, interest, cache);
        // Without the lock: what is in the backlog is settled, and there may be thousands of events.
        drop(inner);
        watcher.begin_with(&backlog);
        Ok(watcher)
    }

    /// Follows the objects of a resource that are of `interest` from now on, beginning with what is there: all objects, and the
    /// revision at which they are the whole truth. One step under the lock, so the watcher's first event is the first one after
    /// that revision.
    pub(crate) fn watch_from_now(
        self: &Arc<Self>,
        prefix: &str,
        interest: Interest<'_>,
    ) -> (Revision, Objects, Watcher) {
        let mut inner = self.inner.write();
        let applied = inner.applied;
        let cache = inner.resource(prefix);
        let objects = cache.objects.clone();
        let watcher = self.register(prefix, interest, cache);
        (applied, objects, watcher)
    }

    /// Adds a watcher. It removes itself when it is dropped, which takes the write lock: a [`Watcher`] must not be dropped
    /// while the lock is held.
    fn register(
        self: &Arc<Self>,
        prefix: &str,
        interest: Interest<'_>,
        cache: &mut ResourceCache,
    ) -> Watcher {
        let (id, events) = cache.watchers.add(interest);
        // Weak: a watcher must not keep a cache alive that its server has let go of.
        let (cache, prefix) = (Arc::downgrade(self), prefix.to_string());
        let (namespace, name) = (interest.namespace.to_string(), interest.name.to_string());
        Watcher::new(events, move || {
            if let Some(cache) = cache.upgrade()
                && let Some(resource) = cache.inner.write().resources.get_mut(prefix.as_str())
            {
                resource.watchers.remove(Interest { namespace: &namespace, name: &name }, id);
            }
        })
    }

    /// How many objects each resource has, for metrics: (storage prefix, count).
    pub(crate) fn counts(&self) -> Vec<(String, usize)> {
        let inner = self.inner.read();
        inner.resources.iter().map(|(prefix, cache)| (prefix.to_string(), cache.objects.len())).collect()
    }
}

impl Inner {
    /// The resource, which is made if it is not there. Its window begins when the store was loaded, not now: it was empty
    /// since, so nothing that happened after that has been forgotten.
    fn resource(&mut self, prefix: &str) -> &mut ResourceCache {
        // Two lookups instead of `entry`, which would need an owned key for each change.
        if !self.resources.contains_key(prefix) {
            let cache = ResourceCache { window: Window::new(self.loaded), ..ResourceCache::default() };
            self.resources.insert(prefix.into(), cache);
        }
        self.resources.get_mut(prefix).expect("inserted above")
    }
}

/// A stored value as an object. One that cannot be read is left out and logged, so that it does not take down all others.
fn parse(entry: &Entry) -> Option<Arc<Object>> {
    match Object::from_entry(entry) {
        Ok(object) => Some(Arc::new(object)),
        Err(error) => {
            tracing::error!(%error, "leaving out a stored object that cannot be read");
            None
        }
    }
}

/// The keys below `prefix`, and below `namespace` in it unless that is empty: the first that may be one of them, and the
/// first after them all.
pub(crate) fn key_range(prefix: &str, namespace: &str) -> (String, String) {
    // `0` is the character after `/`, so all that begins with the first text, and nothing else, lies between the two. Without
    // the slash, namespace `a` would hold the objects of namespace `ab`.
    if namespace.is_empty() {
        (format!("{prefix}/"), format!("{prefix}0"))
    } else {
        (format!("{prefix}/{namespace}/"), format!("{prefix}/{namespace}0"))
    }
}

#[cfg(test)]
mod tests;
