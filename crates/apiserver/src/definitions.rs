//! CustomResourceDefinitions at work: their names are accepted, their kinds join the catalog, and when one is deleted its
//! objects go first (`apiextensions-apiserver/pkg/controller/{status,establish,finalizer}`).
//!
//! ```text
//! cache ─► on_event, under the cache's lock ─► catalog: what is served
//!              │ notify
//!              ▼
//!          run ─► reconcile ─► conditions (NamesAccepted, Established), finalizer ─► registry ─► store ─► cache
//! ```
//!
//! The two halves are apart on purpose. The catalog has to follow at once: a kind must be served when the write that has
//! established it is answered. Writing conditions is I/O, and cannot happen under a lock.

use crate::cache::{Event, EventKind, Subscriber};
use crate::catalog::Catalog;
use crate::registry::Registry;
use crate::resources::customresourcedefinitions::{
    CLEANUP_FINALIZER, GROUP, deletion_in_progress, naming_conditions,
};
use crate::resources::customresources;
use crate::strategy::Resource;
use fleetpass_apimachinery::meta;
use fleetpass_apimachinery::status::{GroupResource, Status};
use fleetpass_store::Revision;
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

const PREFIX: &str = "/registry/apiextensions.k8s.io/customresourcedefinitions";
const PLURAL: &str = "customresourcedefinitions";

/// How many attempts a start makes to have its definitions established. More than one is needed only when somebody else writes
/// the same definitions: the task in the background, or another replica that starts.
const MAX_ATTEMPTS: usize = 50;

/// One definition as it was last seen.
struct Known {
    definition: Value,
    /// Objects written at this revision or later were pruned and defaulted by the present schemas and look the same in every
    /// version, so their stored bytes can be served as they are. `Revision::MAX`: none, since versions differ.
    uniform_since: Revision,
}

/// All definitions, and what follows from them.
///
/// `known` is locked by the cache's follower while that holds the cache's own lock. So the order is cache, then `known`:
/// whoever holds `known` must not call the cache or the registry, nor await.
pub(crate) struct Definitions {
    catalog: Arc<Catalog>,
    known: Mutex<BTreeMap<String, Known>>,
    /// Wakes [`Definitions::run`]. Several changes that come while it works are one wake-up: it looks at all definitions
    /// anyway.
    changed: Notify,
}

/// What has to be written so that a CRD that the server brings along has the desired spec; `None` if it has. Labels, status and
/// whatever else was added to it stay.
pub(crate) fn updated_spec(existing: Option<&Value>, desired: &Value) -> Option<Value> {
    let Some(existing) = existing else { return Some(desired.clone()) };
    let mut wanted = existing.clone();
    for (name, value) in desired["spec"].as_object()? {
        wanted["spec"][name.as_str()] = value.clone();
    }
    // Compared after defaulting, since what is stored was defaulted: otherwise every start would write.
    let mut defaulted = wanted.clone();
    if let Some(strategy) = crate::resources::customresourcedefinitions::resource().strategy() {
        strategy.default(&mut defaulted);
    }
    (!meta::same(Some(&defaulted["spec"]), Some(&existing["spec"]))).then_some(wanted)
}

impl Definitions {
    pub(crate) fn new(catalog: Arc<Catalog>) -> Arc<Self> {
        Arc::new(Self { catalog, known: Mutex::default(), changed: Notify::new() })
    }

    /// Follows every change of a definition before anybody can read it, so that the catalog is never behind the cache.
    pub(crate) fn subscriber(self: &Arc<Self>) -> Subscriber {
        let definitions = self.clone();
        Box::new(move |prefix, event| {
            if prefix == PREFIX {
                definitions.on_event(event);
            }
        })
    }

    fn on_event(&self, event: &Event) {
        let definition = event.object.value();
        let name = meta::name(&definition).to_string();
        let mut known = self.known.lock();
        if event.kind == EventKind::Deleted {
            known.remove(&name);
        } else {
            // A change of the status or of labels leaves the stored form of objects as it is.
            let before = known.get(&name).filter(|k| k.definition["spec"] == definition["spec"]);
            let uniform_since = match before {
                Some(before) => before.uniform_since,
                None if versions_agree(&definition) => event.revision,
                None => Revision::MAX,
            };
            known.insert(name, Known { definition, uniform_since });
        }
        // The rows of all definitions are made anew, today, whichever has changed: a table that is derived as a whole cannot
        // differ from what it is derived from, and a reader sees either the old one or the new one. It costs time for each
        // definition, with its schemas, under the cache's lock, and loading many is quadratic. CRDs are few and change rarely;
        // with many hundreds the rows should be kept in `Known`.
        self.catalog.set_custom(known.values().filter_map(row).collect());
        // Unlocked before the task is woken, since that takes the lock.
        drop(known);
        self.changed.notify_one();
    }

    /// Accepts names, and finalizes deleted definitions, until `stop`. Idempotent and without memory: every replica may run it.
    pub(crate) async fn run(self: Arc<Self>, registry: Arc<Registry>, stop: CancellationToken) {
        let mut pause = Duration::from_secs(3600);
        loop {
            tokio::select! {
                () = self.changed.notified() => {}
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => return,
            }
            pause = match self.reconcile(&registry).await {
                Ok(true) => Duration::from_secs(3600),
                // Custom objects are held by finalizers. Their deletion is no event of a definition, so look again soon.
                Ok(false) => Duration::from_millis(250),
                // Somebody else has written the definition; its event is about to arrive.
                Err(status) if status.reason == "Conflict" => Duration::from_millis(10),
                Err(status) => {
                    tracing::warn!(%status, "a CustomResourceDefinition cannot be brought up to date");
                    Duration::from_secs(1)
                }
            };
        }
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
            match self.reconcile(registry).await {
                Ok(_) => {}
                Err(status) if status.reason == "Conflict" => tokio::task::yield_now().await,
                Err(status) => return Err(status),
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

    /// Brings all definitions up to date. `false` if a deletion has to wait for objects that are held.
    async fn reconcile(&self, registry: &Arc<Registry>) -> Result<bool, Status> {
        let mut done = true;
        // By name, each looked up when its turn comes: earlier writes of this very loop may have changed it.
        let names: Vec<String> = self.known.lock().keys().cloned().collect();
        for name in names {
            let Some(mut definition) = self.known.lock().get(&name).map(|k| k.definition.clone()) else {
                continue;
            };
            if meta::is_being_deleted(&definition) {
                done &= self.finalize(registry, definition).await?;
                continue;
            }
            // Whose names are accepted depends on all definitions, so the lock is held for the whole comparison, but not for
            // the write.
            let status = {
                let known = self.known.lock();
                naming_conditions(&definition, known.values().map(|k| &k.definition), registry.now())
            };
            if let Some(status) = status {
                definition["status"] = status;
                registry.update_own(GROUP, PLURAL, "status", definition).await?;
            }
        }
        Ok(done)
    }

    /// Deletes the objects of a deleted definition, then removes the finalizer that holds it (`crd_finalizer.go`). `false`
    /// while objects are left. The order matters: without the definition its objects could not be reached any more.
    async fn finalize(&self, registry: &Arc<Registry>, mut definition: Value) -> Result<bool, Status> {
        let held =
            meta::list(&definition, &["metadata", "finalizers"]).iter().any(|f| f == CLEANUP_FINALIZER);
        if !held {
            return Ok(true);
        }
        let status = deletion_in_progress(&definition, registry.now());
        if definition.get("status") != Some(&status) {
            definition["status"] = status;
            registry.update_own(GROUP, PLURAL, "status", definition.clone()).await?;
            // The write has changed the resource version: go on with the object as it is now, or the next write conflicts.
            let name = meta::name(&definition).to_string();
            let Some(now) = self.known.lock().get(&name).map(|k| k.definition.clone()) else {
                return Ok(true);
            };
            definition = now;
        }
        let spec = &definition["spec"];
        let (group, plural) = (meta::text(spec, &["group"]), meta::text(spec, &["names", "plural"]));
        let row = registry.catalog().kinds().get(group, plural).cloned();
        // Without a row its names were never accepted, and there are no objects. A built-in row of that name is not its own.
        if let Some(row) = row.filter(|row| row.resource.custom)
            && registry.delete_all(&row).await? > 0
        {
            return Ok(false);
        }
        if let Some(finalizers) =
            meta::metadata_mut(&mut definition).get_mut("finalizers").and_then(Value::as_array_mut)
        {
            finalizers.retain(|f| f != CLEANUP_FINALIZER);
        }
        registry.update_own(GROUP, PLURAL, "", definition).await?;
        Ok(true)
    }
}

/// The catalog's row for a definition; `None` if it is not established, or is one that cannot be served.
fn row(known: &Known) -> Option<Resource> {
    match customresources::row(&known.definition) {
        Ok(row) => row.map(|row| Resource { uniform_since: known.uniform_since, ..row }),
        Err(why) => {
            let name = meta::name(&known.definition);
            tracing::warn!(name, why, "a CustomResourceDefinition cannot be served");
            None
        }
    }
}

/// Whether all versions have the same schema, so that an object looks the same in each of them.
fn versions_agree(definition: &Value) -> bool {
    let mut schemas = meta::list(definition, &["spec", "versions"]).iter().map(|version| &version["schema"]);
    let first = schemas.next();
    schemas.all(|schema| Some(schema) == first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_crd_that_is_there_is_only_renewed_when_its_spec_differs() {
        let desired =
            json!({"metadata": {"name": "a"}, "spec": {"group": "g", "versions": [{"name": "v1"}]}});
        assert_eq!(updated_spec(None, &desired), Some(desired.clone()));
        let mut existing = desired.clone();
        existing["status"] = json!({"conditions": []});
        existing["metadata"]["uid"] = "u".into();
        let unchanged = updated_spec(Some(&existing), &desired);
        // Defaults that the strategy fills in are no difference once they are stored.
        let mut stored = unchanged.unwrap_or_else(|| existing.clone());
        if let Some(strategy) = crate::resources::customresourcedefinitions::resource().strategy() {
            strategy.default(&mut stored);
        }
        assert_eq!(updated_spec(Some(&stored), &desired), None);
        let mut other = desired.clone();
        other["spec"]["versions"] = json!([{"name": "v2"}]);
        let renewed = updated_spec(Some(&stored), &other).expect("another version");
        assert_eq!(renewed["metadata"]["uid"], "u");
        assert_eq!(renewed["spec"]["versions"][0]["name"], "v2");
    }
}
