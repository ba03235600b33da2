//! watch: what happens to the objects that a query selects, from a revision on
//! (`k8s.io/apiserver/pkg/storage/cacher/cacher.go`).

use super::candidates::{Pace, Reach};
use super::engine::Registry;
use super::errors::cache_error;
use super::resource_version::parse_revision;
use super::scope::Scope;
use crate::cache::{Delivery, EventKind, Object, Objects, Watcher};
use fleetpass_apimachinery::status::Status;
use fleetpass_apimachinery::{FieldSelector, LabelSelector};
use fleetpass_codec::options::ListOptions;
use fleetpass_store::Revision;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, Interval, Sleep, sleep_until};

/// How often a watcher that asked for bookmarks gets one; kube-apiserver sends them about as often
/// (`defaultBookmarkFrequency` in `storage/cacher/cacher.go`).
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);

/// One item of a watch stream.
#[derive(Debug, Clone)]
pub(crate) enum WatchItem {
    /// An object was added, changed or deleted, as this client sees it.
    Object {
        /// What happened, as far as the selection goes.
        kind: EventKind,
        /// The object.
        object: Arc<Object>,
        /// The event as all its watchers have it, where their encodings may be used.
        shared: Option<Arc<Delivery>>,
    },
    /// Everything up to this revision has been sent.
    Bookmark {
        /// The revision.
        revision: Revision,
        /// Whether this ends the initial events.
        initial_events_end: bool,
    },
    /// The watch ends with an error that the client must see.
    Error(Status),
}

/// A watch under way.
pub(crate) struct Watching {
    /// Objects that are sent as `ADDED` before any event.
    initial: Option<Initial>,
    /// The bookmark that ends the initial events, if the client asked for it.
    initial_end: Option<Revision>,
    /// `None` once the watch is ended, or where it could not begin.
    watcher: Option<Watcher>,
    /// Why it could not begin: a revision that is too old is told in the stream, as a real server tells it.
    refusal: Option<Status>,
    labels: LabelSelector,
    fields: FieldSelector,
    /// Events up to this revision are skipped: they are part of the initial state, or the client has seen them (it may name a
    /// revision that this replica has not reached yet).
    after: Revision,
    bookmarks: Option<Interval>,
    /// One timer for the whole watch: another for each event would be a large part of what an event costs. `None`: it has no end
    /// of its own.
    until: Option<Pin<Box<Sleep>>>,
    ended: bool,
}

/// The state with which a watch begins. It is searched for what the selectors select in pieces, while it is sent: a watch runs
/// on the thread of its connection.
struct Initial {
    objects: Objects,
    /// What was found and is not sent yet.
    found: VecDeque<Arc<Object>>,
    /// The key up to which the search has got.
    after: Option<Arc<str>>,
    searched: bool,
}

impl Initial {
    fn new(objects: Objects) -> Self {
        Self { objects, found: VecDeque::new(), after: None, searched: false }
    }

    /// Searches one more piece.
    fn search(
        &mut self,
        registry: &Registry,
        scope: &Scope<'_>,
        labels: &LabelSelector,
        fields: &FieldSelector,
    ) {
        let reach = Reach::of(scope, fields);
        let mut pace = Pace::of(fields);
        for object in reach.candidates(&self.objects, self.after.as_deref()) {
            if registry.selects(scope, labels, fields, object) {
                self.found.push_back(object.clone());
            }
            if pace.ends_with(object) {
                self.after = Some(object.key.clone());
                return;
            }
        }
        self.searched = true;
    }
}

impl Registry {
    /// Begins a watch.
    ///
    /// A `resourceVersion` that is too old, or that the store does not reach, is no error here: the watch begins and its only
    /// event is the 410, since clients look for it there. It ends after `default_timeout` if the query names no time of its own.
    pub(crate) async fn watch(
        &self,
        scope: &Scope<'_>,
        query: &ListOptions,
        default_timeout: Duration,
    ) -> Result<Watching, Status> {
        let prefix = &scope.row.storage_prefix;
        let reach = Reach::of(scope, &query.fields);
        let asked = match query.resource_version.as_str() {
            "" => 0,
            text => parse_revision(text).map_err(Status::plain_error)?,
        };
        // Without `sendInitialEvents` the old rule holds: revision 0 or none means "state first, then changes".
        let send_state = match query.send_initial_events {
            Some(initial) => initial,
            None => asked == 0,
        };
        let mut watching = if send_state || asked == 0 {
            if asked > 0 {
                self.cache.wait_for_fresh(asked).await.map_err(cache_error)?;
            } else {
                self.wait_until_fresh().await?;
            }
            // Snapshot and registration are one step under the cache's lock, so no event can fall between them.
            let (revision, objects, watcher) = self.cache.watch_from_now(prefix, reach.interest());
            let mut watching = Watching::new(Some(watcher), query, revision);
            if send_state {
                watching.initial = Some(Initial::new(objects));
                if query.allow_watch_bookmarks {
                    watching.initial_end = Some(revision);
                }
            }
            watching
        } else {
            let begun = match self.cache.wait_for_fresh(asked).await {
                Ok(()) => self.cache.watch(prefix, reach.interest(), asked).map_err(cache_error),
                // Another replica may be a moment ahead of this one. What does not come is not of this store: a backup was put
                // back, or the objects were moved. kube-apiserver waits for it in silence, for good, and its clients are deaf
                // so long; this is the answer upon which all of them list anew.
                Err(error) => Err(Status::expired(error.to_string())),
            };
            match begun {
                Ok(watcher) => Watching::new(Some(watcher), query, asked),
                Err(refusal) => {
                    let mut watching = Watching::new(None, query, asked);
                    watching.refusal = Some(refusal);
                    watching
                }
            }
        };
        let seconds = query.timeout_seconds.and_then(|s| u64::try_from(s).ok()).filter(|s| *s > 0);
        // An end that lies beyond what the clock can represent is no end.
        let until = Instant::now().checked_add(seconds.map_or(default_timeout, Duration::from_secs));
        watching.until = until.map(|until| Box::pin(sleep_until(until)));
        Ok(watching)
    }
}

impl Watching {
    fn new(watcher: Option<Watcher>, query: &ListOptions, after: Revision) -> Self {
        let bookmarks = query.allow_watch_bookmarks.then(|| {
            let mut interval = tokio::time::interval_at(Instant::now() + BOOKMARK_EVERY, BOOKMARK_EVERY);
            // A slow client gets the next bookmark a whole period later, not several at once to catch up.
            interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            interval
        });
        Self {
            initial: None,
            initial_end: None,
            watcher,
            refusal: None,
            labels: query.labels.clone(),
            fields: query.fields.clone(),
            after,
            bookmarks,
            until: None,
            ended: false,
        }
    }

    /// The next item; `None` when the watch is over (its time is up, or it was too slow). Safe to drop and to call again:
    /// nothing is taken out of a queue before this returns it.
    pub(crate) async fn next(&mut self, registry: &Registry, scope: &Scope<'_>) -> Option<WatchItem> {
        while let Some(initial) = &mut self.initial {
            if let Some(object) = initial.found.pop_front() {
                return Some(WatchItem::Object { kind: EventKind::Added, object, shared: None });
            }
            if initial.searched {
                self.initial = None;
                break;
            }
            // One piece each time that the connection's other tasks have had their turn.
            if initial.after.is_some() {
                tokio::task::yield_now().await;
            }
            initial.search(registry, scope, &self.labels, &self.fields);
        }
        if let Some(revision) = self.initial_end.take() {
            return Some(WatchItem::Bookmark { revision, initial_events_end: true });
        }
        if let Some(status) = self.refusal.take() {
            return Some(WatchItem::Error(status));
        }
        while !self.ended {
            let watcher = self.watcher.as_mut()?;
            // In this order: events before bookmarks, since a bookmark is only sent when no event waits; and events before the
            // end, so that a watch whose time is up sends what has already happened.
            tokio::select! {
                biased;
                event = watcher.next() => match event {
                    Some(delivery) if delivery.event.revision > self.after => {
                        if let Some(item) = self.translate(registry, scope, delivery) {
                            return Some(item);
                        }
                    }
                    Some(_) => {}
                    None => self.ended = true,
                },
                () = tick(self.bookmarks.as_mut()) => {
                    if let Some(item) = self.bookmark(registry) {
                        return Some(item);
                    }
                }
                () = passed(self.until.as_mut()) => self.ended = true,
            }
        }
        None
    }

    /// A bookmark, unless events are waiting: then there is nothing to say about the present yet.
    fn bookmark(&mut self, registry: &Registry) -> Option<WatchItem> {
        // The order of these two lines matters. The cache queues an event before it publishes its revision: so events up to
        // `revision` are in the queue by now, and if that is empty afterwards, all of them have been sent. The other way round,
        // an event could slip in between, and the bookmark would claim it.
        let revision = registry.cache.revision();
        let nothing_waits = self.watcher.as_ref().is_some_and(Watcher::is_empty);
        nothing_waits.then_some(WatchItem::Bookmark { revision, initial_events_end: false })
    }

    /// An event as this selection sees it (`convertToWatchEvent` in `storage/cacher/cache_watcher.go`): an object that begins
    /// to fit is added, one that ceases to fit is deleted, with its old state and the revision of the event.
    fn translate(
        &self,
        registry: &Registry,
        scope: &Scope<'_>,
        delivery: Arc<Delivery>,
    ) -> Option<WatchItem> {
        let event = &delivery.event;
        // The usual case: nothing to decide, and the encodings can be shared.
        if self.labels.is_empty() && self.fields.is_empty() {
            return Some(WatchItem::Object {
                kind: event.kind,
                object: event.object.clone(),
                shared: Some(delivery),
            });
        }
        let fits =
            |object: &Arc<Object>| registry.selects_of_event(scope, &self.labels, &self.fields, object);
        let before = event.previous.as_ref().is_some_and(fits);
        let now = event.kind != EventKind::Deleted && fits(&event.object);
        let item = |kind, object: Arc<Object>| {
            let shared =
                (kind == event.kind && Arc::ptr_eq(&object, &event.object)).then(|| delivery.clone());
            Some(WatchItem::Object { kind, object, shared })
        };
        match (before, now) {
            (false, false) => None,
            (false, true) => item(EventKind::Added, event.object.clone()),
            (true, true) => item(EventKind::Modified, event.object.clone()),
            (true, false) if event.kind == EventKind::Deleted => {
                item(EventKind::Deleted, event.object.clone())
            }
            (true, false) => {
                let last = event.previous.as_ref()?.at_revision(event.revision);
                item(EventKind::Deleted, Arc::new(last))
            }
        }
    }
}

async fn tick(interval: Option<&mut Interval>) {
    match interval {
        Some(interval) => {
            interval.tick().await;
        }
        None => std::future::pending().await,
    }
}

async fn passed(until: Option<&mut Pin<Box<Sleep>>>) {
    match until {
        Some(until) => until.await,
        None => std::future::pending().await,
    }
}
