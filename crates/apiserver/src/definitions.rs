//! CustomResourceDefinitions at work: their names are granted, their kinds join the table of kinds, and when one is
//! deleted its objects go first (`apiextensions-apiserver/pkg/controller/{status,establish,finalizer}`).

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

/// How often a start tries to have its definitions served; each try but the last is lost to another writer.
const MAX_ATTEMPTS: usize = 50;

/// One definition as it was last seen.
struct Known {
    definition: Value,
    /// Since which revision objects are stored as the present schemas show them.
    uniform_since: Revision,
}

/// All definitions, and what follows from them.
pub(crate) struct Definitions {
    catalog: Arc<Catalog>,
    known: Mutex<BTreeMap<String, Known>>,
    changed: Notify,
}

/// The desired state of a CRD that the server brings along: its spec, whatever else was added to it.
pub(crate) fn updated_spec(existing: Option<&Value>, desired: &Value) -> Option<Value> {
    let Some(existing) = existing else { return Some(desired.clone()) };
    let mut wanted = existing.clone();
    for (name, value) in desired["spec"].as_object()? {
        wanted["spec"][name.as_str()] = value.clone();
    }
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

    /// Told of every change of a definition before anybody can read it: the table of kinds is never behind.
    pub(crate) fn subscriber(self: &Arc<Self>) -> Subscriber {
        let definitions = self.clone();
        Box::new(move |prefix, event| {
            if prefix == PREFIX {
                definitions.apply(event);
            }
        })
    }

    fn apply(&self, event: &Event) {
        let definition = event.object.value();
        let name = meta::name(&definition).to_string();
        let mut known = self.known.lock();
        if event.kind == EventKind::Deleted {
            known.remove(&name);
        } else {
            let before = known.get(&name).filter(|k| k.definition["spec"] == definition["spec"]);
            let uniform_since = match before {
                Some(before) => before.uniform_since,
                None if versions_agree(&definition) => event.revision,
                None => Revision::MAX,
            };
            known.insert(name, Known { definition, uniform_since });
        }
        self.catalog.set_custom(known.values().filter_map(row).collect());
        drop(known);
        self.changed.notify_one();
    }

    /// Grants names and clears up after deleted definitions until `stop`.
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
                // Objects are held by finalizers; whoever lets go of them does not tell us.
                Ok(false) => Duration::from_millis(250),
                Err(status) if status.reason == "Conflict" => Duration::from_millis(10),
                Err(status) => {
                    tracing::warn!(%status, "a CustomResourceDefinition cannot be brought up to date");
                    Duration::from_secs(1)
                }
            };
        }
    }

    /// Grants names until the kinds of these definitions are served, so that a server that has started serves what it
    /// brought along.
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
        // The task in the background does the same; whoever comes second finds a conflict and looks again.
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

    /// Brings all definitions up to date; whether nothing is left to do.
    async fn reconcile(&self, registry: &Arc<Registry>) -> Result<bool, Status> {
        let mut done = true;
        let names: Vec<String> = self.known.lock().keys().cloned().collect();
        for name in names {
            let Some(mut definition) = self.known.lock().get(&name).map(|k| k.definition.clone()) else {
                continue;
            };
            if meta::is_being_deleted(&definition) {
                done &= self.finalize(registry, definition).await?;
                continue;
            }
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

    /// Deletes the objects of a deleted definition, then lets go of it. Whether it is gone.
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
            let name = meta::name(&definition).to_string();
            let Some(now) = self.known.lock().get(&name).map(|k| k.definition.clone()) else {
                return Ok(true);
            };
            definition = now;
        }
        let spec = &definition["spec"];
        let (group, plural) = (meta::text(spec, &["group"]), meta::text(spec, &["names", "plural"]));
        let row = registry.catalog().kinds().get(group, plural).cloned();
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

/// Whether all versions show an object alike.
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
