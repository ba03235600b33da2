//! CustomResourceDefinitions at work: their names are accepted, their kinds join the catalog, and when one is deleted its
//! objects go first (`apiextensions-apiserver/pkg/controller/{status,establish,finalizer}`).
//!
//! ```text
//! cache ─► prepare, without a lock ─► on_event, under the cache's lock ─► catalog: what is served
//!             reads the definition          │ the definitions that are due
//!                                           ▼
//!                                  work queue ─► reconcile ─► conditions (NamesAccepted, Established), finalizer
//!                                                                └─► registry ─► store ─► cache
//! ```
//!
//! The two halves are apart on purpose. The catalog has to follow at once: a kind must be served when the write that has
//! established it is answered. Writing conditions is I/O, and cannot happen under a lock.
//!
//! # What an event costs
//!
//! An event of one definition changes one row. The definition is read before the cache's lock is taken, and of it only what the
//! table of kinds shows: schemas stay text, rules and patterns are compiled by the first request that needs them. Under the lock
//! maps are changed, in time that grows with the logarithm of the number of definitions.

mod brought;
mod state;

use crate::cache::{Event, EventKind, Object, Subscriber, join_key};
use crate::catalog::{Catalog, Row};
use crate::registry::Registry;
use crate::resources::customresourcedefinitions::{
    CLEANUP_FINALIZER, GROUP, deletion_in_progress, naming_conditions,
};
use fleetpass_apimachinery::meta;
use fleetpass_apimachinery::status::{GroupResource, Status};
use fleetpass_workqueue::{Backlog, Backoff, Cause, Next, Options, Queue, queue};
use parking_lot::Mutex;
use serde_json::Value;
use state::{Known, State};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

pub(crate) use brought::updated_spec;

const PREFIX: &str = "/registry/apiextensions.k8s.io/customresourcedefinitions";
const PLURAL: &str = "customresourcedefinitions";

/// How many attempts a start makes to have its definitions established. More than one is needed only when somebody else writes
/// the same definitions: the task in the background, or another replica that starts.
const MAX_ATTEMPTS: usize = 50;

/// When a definition is looked at again that could not be brought up to date: after a conflict its event is about to arrive;
/// objects that are held by finalizers cause an event when they go, so that the long delays are a precaution only.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(10), Duration::from_secs(300));

/// How many definitions are worked on at once: one with many objects to delete must not keep others from being established.
const WORKERS: usize = 8;

/// All definitions, and what follows from them.
///
/// # Locks
///
/// `state`, `prepared` and `terminating` are locked by the cache's follower while that holds the cache's own lock. So the order
/// is cache, then these: whoever holds one of them must not call the cache or the registry, nor await. None is held while
/// another one is taken, nor while a definition is read.
pub(crate) struct Definitions {
    catalog: Arc<Catalog>,
    state: Mutex<State>,
    /// What was read of definitions whose events are about to come. Each is taken out by its event.
    prepared: Mutex<VecDeque<Prepared>>,
    /// Deleted definitions that wait for their objects to go, by the storage prefix of the objects.
    terminating: Mutex<BTreeMap<String, Terminating>>,
    /// How many these are: every event of every object asks, and mostly there are none.
    terminating_count: AtomicUsize,
    /// The definitions that [`Definitions::run`] has to look at.
    due: Queue<String>,
    /// Held while one definition is granted names, until the cache has the write: two that ask for the same name at the same
    /// time must not both get it.
    granting: tokio::sync::Mutex<()>,
    /// Taken by [`Definitions::run`].
    backlog: Mutex<Option<Backlog<String>>>,
}

/// What was read of an object, or why it cannot be read.
type Prepared = (Arc<Object>, Result<Arc<Known>, String>);

/// A deleted definition whose objects are not gone yet.
struct Terminating {
    definition: String,
    /// Whether every object has been asked to go. An object that appears later (its creation was under way when the
    /// definition was deleted) takes it back.
    is_swept: bool,
}

/// Why a definition is not up to date.
enum Pending {
    /// Objects of a deleted definition are held by their finalizers.
    Held,
    Refused(Status),
}

impl From<Status> for Pending {
    fn from(status: Status) -> Self {
        Self::Refused(status)
    }
}

/// What [`Definitions`] has to do with the cache.
struct Follower(Arc<Definitions>);

impl Subscriber for Follower {
    fn prepare(&self, prefix: &str, object: &Arc<Object>) {
        if prefix == PREFIX {
            self.0.prepare(object);
        }
    }

    fn on_event(&self, prefix: &str, event: &Event) {
        if prefix == PREFIX {
            self.0.on_event(event);
        } else if self.0.terminating_count.load(Ordering::Relaxed) > 0 {
            self.0.on_object(prefix, event.kind);
        }
    }
}

impl Definitions {
    pub(crate) fn new(catalog: Arc<Catalog>) -> Arc<Self> {
        let (due, backlog) = queue(BACKOFF);
        Arc::new(Self {
            catalog,
            state: Mutex::default(),
            prepared: Mutex::default(),
            terminating: Mutex::default(),
            terminating_count: AtomicUsize::new(0),
            due,
            granting: tokio::sync::Mutex::default(),
            backlog: Mutex::new(Some(backlog)),
        })
    }

    /// Follows every change of a definition before anybody can read it, so that the catalog is never behind the cache.
    pub(crate) fn subscriber(self: &Arc<Self>) -> Box<dyn Subscriber> {
        Box::new(Follower(self.clone()))
    }

    fn known(&self, name: &str) -> Option<Arc<Known>> {
        self.state.lock().get(name).cloned()
    }

    /// Reads a definition, in time linear in its text.
    fn prepare(&self, object: &Arc<Object>) {
        let known = self.read(object);
        self.prepared.lock().push_back((Arc::clone(object), known));
    }

    fn read(&self, object: &Object) -> Result<Arc<Known>, String> {
        let before = self.known(object.namespace_and_name().1);
        let known = Known::read(object.stored_text(), object.revision, before.as_deref());
        known.map(Arc::new).map_err(|error| error.to_string())
    }

    fn on_event(&self, event: &Event) {
        let (_, name) = event.object.namespace_and_name();
        let now = match event.kind {
            EventKind::Deleted => None,
            EventKind::Added | EventKind::Modified => self.take_prepared(&event.object),
        };
        if now.is_none() {
            self.forget_objects(|waiting| waiting.definition == name);
        }
        let row = now.as_ref().and_then(|now| now.row.clone());
        let before = self.known(name).and_then(|known| known.row.clone());
        // First the catalog: whoever sees in the state that a definition is established finds its kind served. Nothing can come
        // between the two, since events come one after the other.
        self.replace_row(before, row);
        let due = self.state.lock().change(name, now);
        due.into_iter().for_each(|name| self.due.add(name));
    }

    /// What was read of a definition before its event came; `None` if it cannot be read.
    fn take_prepared(&self, object: &Arc<Object>) -> Option<Arc<Known>> {
        let mut prepared = self.prepared.lock();
        // The first one: events come in the order in which their objects were prepared.
        let place = prepared.iter().position(|(of, _)| Arc::ptr_eq(of, object));
        let known = place.and_then(|place| prepared.remove(place)).map(|(_, known)| known);
        drop(prepared);
        let known = known.unwrap_or_else(|| self.read(object));
        let report = |why: &String| {
            let (_, name) = object.namespace_and_name();
            tracing::error!(
                name,
                why,
                "a stored CustomResourceDefinition cannot be read, its kind is not served"
            );
        };
        known.inspect_err(report).ok()
    }

    fn replace_row(&self, before: Option<Arc<Row>>, now: Option<Arc<Row>>) {
        if let (Some(before), Some(now)) = (&before, &now)
            && Arc::ptr_eq(before, now)
        {
            return;
        }
        if let Some(now) = &now {
            self.catalog.put_custom(now);
        }
        // The plural name of an established kind does not change, but the row may be gone.
        if let Some(before) = before.filter(|before| now.as_ref().is_none_or(|now| before.gr() != now.gr())) {
            self.catalog.remove_custom(&before.resource.group, &before.resource.plural);
        }
    }

    /// An object came or went. If its definition waits for that, it is looked at.
    fn on_object(&self, prefix: &str, kind: EventKind) {
        let mut terminating = self.terminating.lock();
        let Some(waiting) = terminating.get_mut(prefix) else { return };
        match kind {
            EventKind::Added => waiting.is_swept = false,
            EventKind::Deleted => {}
            EventKind::Modified => return,
        }
        self.due.add(waiting.definition.clone());
    }

    /// Accepts names, and finalizes deleted definitions, until `stop`. Idempotent: every replica may run it.
    pub(crate) async fn run(self: Arc<Self>, registry: Arc<Registry>, stop: CancellationToken) {
        let Some(backlog) = self.backlog.lock().take() else { return };
        let (this, registry) = (&*self, &registry);
        let reconcile =
            |name: String| async move { this.reconcile(registry, &name).await.map(|()| Next::Wait) };
        let failed = |name: &String, failure: &fleetpass_workqueue::Failure<Pending>| match &failure.cause {
            // Somebody else has written the definition; its event is about to arrive.
            Cause::Error(Pending::Refused(status)) if status.reason == "Conflict" => {}
            Cause::Error(Pending::Refused(status)) => {
                tracing::warn!(name, %status, "a CustomResourceDefinition cannot be brought up to date");
            }
            Cause::Error(Pending::Held) | Cause::TookTooLong => {}
        };
        backlog.work(Options::workers(WORKERS), stop, reconcile, failed).await;
    }

    /// Accepts names until the kinds of these definitions are served, so that a server that has started serves what it brought
    /// along.
    ///
    /// # Errors
    /// 409 for a definition whose names another one has, and what keeps its status from being written.
    pub(crate) async fn establish(
        &self,
        registry: &Arc<Registry>,
        definitions: &[Value],
    ) -> Result<(), Status> {
        let missing = || {
            let table = registry.catalog().kinds();
            definitions.iter().find(|definition| {
                let spec = &definition["spec"];
                table.get(meta::text(spec, &["group"]), meta::text(spec, &["names", "plural"])).is_none()
            })
        };
        // The task in the background does the same at the same time. The second of two writers gets a conflict and looks again.
        for _ in 0..MAX_ATTEMPTS {
            if missing().is_none() {
                return Ok(());
            }
            for definition in definitions {
                match self.reconcile(registry, meta::name(definition)).await {
                    Ok(()) | Err(Pending::Held) => {}
                    // Somebody else has just written it. The event of that is on its way.
                    Err(Pending::Refused(status)) if status.reason == "Conflict" => {
                        registry.wait_until_fresh().await?;
                    }
                    Err(Pending::Refused(status)) => return Err(status),
                }
            }
        }
        match missing() {
            None => Ok(()),
            Some(definition) => {
                let gr = GroupResource { group: GROUP, resource: PLURAL };
                let why = "its kind is not served: see the conditions in its status";
                Err(Status::conflict(gr, meta::name(definition), why))
            }
        }
    }

    /// Brings one definition up to date.
    async fn reconcile(&self, registry: &Arc<Registry>, name: &str) -> Result<(), Pending> {
        let Some(known) = self.known(name) else { return Ok(()) };
        if meta::is_being_deleted(known.outline()) {
            return self.finalize(registry, name, &known).await;
        }
        // Whose names are accepted depends on all definitions, so the lock is held for the comparison, but not for the write.
        if naming_conditions(known.outline(), &self.state.lock().names, registry.now()).is_none() {
            return Ok(());
        }
        let _granting = self.granting.lock().await;
        let Some(mut definition) = stored(registry, name) else { return Ok(()) };
        let status = naming_conditions(&definition, &self.state.lock().names, registry.now());
        if let Some(status) = status {
            definition["status"] = status;
            registry.update_own(GROUP, PLURAL, "status", definition).await?;
        }
        Ok(())
    }

    /// Deletes the objects of a deleted definition, then removes the finalizer that holds it (`crd_finalizer.go`). The order
    /// matters: without the definition its objects could not be reached any more.
    async fn finalize(&self, registry: &Arc<Registry>, name: &str, known: &Known) -> Result<(), Pending> {
        let finalizers = meta::list(known.outline(), &["metadata", "finalizers"]);
        if !finalizers.iter().any(|f| f == CLEANUP_FINALIZER) {
            return Ok(());
        }
        let now = registry.now();
        if known.outline().get("status") != Some(&deletion_in_progress(known.outline(), now)) {
            let Some(mut definition) = stored(registry, name) else { return Ok(()) };
            definition["status"] = deletion_in_progress(&definition, now);
            registry.update_own(GROUP, PLURAL, "status", definition).await?;
        }
        // Without a row its names were never accepted, and there are no objects. A built-in row of that name is not its own.
        let (group, plural) =
            known.row.as_ref().map_or(("", ""), |row| (&row.resource.group, &row.resource.plural));
        let row = registry.catalog().kinds().get(group, plural).cloned();
        if let Some(row) = row.filter(|row| row.resource.custom) {
            self.empty(registry, name, &row).await?;
        }
        let Some(mut definition) = stored(registry, name) else { return Ok(()) };
        if let Some(finalizers) =
            meta::metadata_mut(&mut definition).get_mut("finalizers").and_then(Value::as_array_mut)
        {
            finalizers.retain(|f| f != CLEANUP_FINALIZER);
        }
        registry.update_own(GROUP, PLURAL, "", definition).await?;
        Ok(())
    }

    /// Deletes all objects of a deleted definition, once, and from then on only looks whether there are any left.
    async fn empty(&self, registry: &Arc<Registry>, name: &str, row: &Arc<Row>) -> Result<(), Pending> {
        let prefix = row.storage_prefix.as_str();
        let is_swept = self.await_objects(name, prefix);
        if !is_swept && let Err(status) = registry.delete_all(row).await {
            self.set_swept(prefix, false);
            return Err(status.into());
        }
        if registry.cache().snapshot(prefix).1.len() > 0 {
            return Err(Pending::Held);
        }
        self.forget_objects(|waiting| waiting.definition == name);
        Ok(())
    }

    /// Waits for the objects of these definitions no more.
    fn forget_objects(&self, gone: impl Fn(&Terminating) -> bool) {
        if self.terminating_count.load(Ordering::Relaxed) > 0 {
            let mut terminating = self.terminating.lock();
            terminating.retain(|_, waiting| !gone(waiting));
            self.terminating_count.store(terminating.len(), Ordering::Relaxed);
        }
    }

    /// Notes that a definition waits for its objects to go. Gives whether all of them have been asked to; if not, the caller
    /// does so now: noted before it begins, so that no object that appears meanwhile is overlooked.
    fn await_objects(&self, name: &str, prefix: &str) -> bool {
        let mut terminating = self.terminating.lock();
        let fresh = Terminating { definition: name.into(), is_swept: false };
        let waiting = terminating.entry(prefix.into()).or_insert(fresh);
        let before = std::mem::replace(&mut waiting.is_swept, true);
        self.terminating_count.store(terminating.len(), Ordering::Relaxed);
        before
    }

    fn set_swept(&self, prefix: &str, is_swept: bool) {
        if let Some(waiting) = self.terminating.lock().get_mut(prefix) {
            waiting.is_swept = is_swept;
        }
    }
}

/// A definition as it is stored now.
fn stored(registry: &Registry, name: &str) -> Option<Value> {
    registry.cache().get(&join_key(PREFIX, "", name)).map(|object| object.value())
}

#[cfg(test)]
#[path = "definitions/tests.rs"]
mod tests;
