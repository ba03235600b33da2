//! delete and deletecollection (`k8s.io/apiserver/pkg/registry/rest/delete.go`,
//! `pkg/registry/generic/registry/store.go`).

use super::conversion::{to_external, to_internal, to_stored};
use super::engine::Registry;
use super::errors::store_error;
use super::read::Listed;
use super::scope::Scope;
use super::update::{CONFLICT_RETRIES, should_remove};
use crate::cache::{Object, encode_for_storage, set_resource_version};
use fleetpass_apimachinery::meta;
use fleetpass_apimachinery::status::{GroupResource, Status};
use fleetpass_apimachinery::time;
use fleetpass_codec::options::{DeleteOptions, ListOptions, Propagation};
use fleetpass_store::{Revision, Txn};
use futures::TryStreamExt as _;
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Held until the object's dependents have lost their reference to it.
const ORPHAN: &str = "orphan";
/// Held until the object's dependents are gone.
const FOREGROUND: &str = "foregroundDeletion";

/// How many objects of a collection are deleted at once.
const AT_ONCE: usize = 64;

/// What a deletion did.
pub(crate) struct Deleted {
    /// The object as it was last.
    pub object: Value,
    /// Whether it is gone. If not, something holds it: finalizers or its grace period.
    pub gone: bool,
    /// The revision of the deletion; 0 if nothing was written.
    revision: Revision,
}

/// The object may be a Secret: it is never printed.
impl std::fmt::Debug for Deleted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deleted").field("gone", &self.gone).finish_non_exhaustive()
    }
}

impl Registry {
    /// Deletes one object, or marks it as being deleted if something holds it: finalizers, a grace period, its kind.
    ///
    /// # Errors
    /// 404, 409 for a precondition that does not hold, and what the kind's admission says.
    pub(crate) async fn delete(&self, scope: &Scope<'_>, request: &DeleteOptions) -> Result<Deleted, Status> {
        // Before the lookup, as admission of a deletion is in `endpoints/handlers/delete.go`.
        scope.strategy.admit_delete(&self.context(scope))?;
        self.wait_until_fresh().await?;
        let deleted = self.delete_known(scope, request).await?;
        self.cache.wait_for(deleted.revision).await;
        Ok(deleted)
    }

    /// Deletes an object of which the cache knows the latest state. Does not wait until the cache has the deletion.
    async fn delete_known(&self, scope: &Scope<'_>, request: &DeleteOptions) -> Result<Deleted, Status> {
        let key = scope.key(scope.name);
        for _ in 0..=CONFLICT_RETRIES {
            let stored = self.cache.get(&key).ok_or_else(|| scope.not_found())?;
            // A deletion has no version to insist on (unless as a precondition, which each attempt checks): retry on conflicts.
            match self.try_delete(scope, request, &stored).await? {
                Some(deleted) => return Ok(deleted),
                None => self.wait_until_fresh().await?,
            }
        }
        Err(Status::conflict(
            scope.gr(),
            scope.name,
            "the object is being changed too often; please try again",
        ))
    }

    /// One attempt; `None` if somebody else changed the object meanwhile.
    async fn try_delete(
        &self,
        scope: &Scope<'_>,
        request: &DeleteOptions,
        stored: &Object,
    ) -> Result<Option<Deleted>, Status> {
        let old = to_internal(scope.row, self.present(scope, stored));
        check_preconditions(scope, request, &old)?;
        let mut object = old.clone();
        let graceful = self.mark_deleted(scope, request, &mut object);
        let gone = should_remove(scope.strategy, &object);
        let out = |object| to_external(scope.row, &scope.version.name, object);
        // What the client is shown of an object that is gone at once: as it was stored, or, for kinds that end gracefully, as
        // it was marked.
        let last = |marked: Value, old: Value| if gone && !graceful { old } else { marked };
        let txn = if gone {
            Txn::delete(stored.key.clone(), stored.revision)
        } else {
            let value = encode_for_storage(&to_stored(scope.row, &object));
            // Marked already, by an earlier deletion: nothing to write.
            if stored.is_same_text(&value) {
                return Ok(Some(Deleted { object: out(old), gone: false, revision: 0 }));
            }
            Txn::update(stored.key.clone(), value, stored.revision)
        };
        if scope.options.dry_run {
            return Ok(Some(Deleted { object: out(last(object, old)), gone, revision: 0 }));
        }
        match self.store.commit(txn).await {
            Ok(revision) => {
                if !gone {
                    set_resource_version(&mut object, revision);
                }
                Ok(Some(Deleted { object: out(last(object, old)), gone, revision }))
            }
            Err(fleetpass_store::Error::Conflict { .. }) => Ok(None),
            Err(error) => Err(store_error(error)),
        }
    }

    /// Deletes all objects that a query selects; the answer is what was selected. Not atomic: what was deleted before an error
    /// stays deleted.
    pub(crate) async fn delete_collection(
        &self,
        scope: &Scope<'_>,
        query: &ListOptions,
        request: &DeleteOptions,
    ) -> Result<Listed, Status> {
        let listed = self.list(scope, query).await?.all().await;
        self.delete_listed(scope, &listed.objects, request).await?;
        Ok(listed)
    }

    /// Deletes objects that were listed, each as [`Registry::delete`] does, [`AT_ONCE`] at a time; ends with the first error.
    /// Some are always under way while others wait for the disk, so an fsync of the store is shared by many. (kube-apiserver
    /// has `--delete-collection-workers` for this.) The cache is waited for once, for the last of them.
    pub(super) async fn delete_listed(
        &self,
        scope: &Scope<'_>,
        objects: &[Arc<Object>],
        request: &DeleteOptions,
    ) -> Result<(), Status> {
        let last = AtomicU64::new(0);
        let delete = |object: &Arc<Object>| {
            let (object, last) = (object.clone(), &last);
            async move {
                // A dry run waits for nothing, and others want their turn.
                tokio::task::yield_now().await;
                let (namespace, name) = object.namespace_and_name();
                let scope = Scope { namespace, name, ..*scope };
                scope.strategy.admit_delete(&self.context(&scope))?;
                match self.delete_known(&scope, request).await {
                    Ok(deleted) => drop(last.fetch_max(deleted.revision, Ordering::Relaxed)),
                    // Somebody else has deleted it since the list was made: it is gone, as the client wanted.
                    Err(status) if status.reason == "NotFound" => {}
                    Err(status) => return Err(status),
                }
                Ok(())
            }
        };
        let result =
            futures::stream::iter(objects.iter().map(Ok)).try_for_each_concurrent(AT_ONCE, delete).await;
        // After an error too: what was deleted is to be seen.
        self.cache.wait_for(last.into_inner()).await;
        result
    }
}

impl Registry {
    /// Marks an object as being deleted: time, grace period, and the finalizers that the propagation asks for
    /// (`rest.BeforeDelete`). Returns whether the kind ends gracefully.
    fn mark_deleted(&self, scope: &Scope<'_>, request: &DeleteOptions, object: &mut Value) -> bool {
        let strategy = scope.strategy;
        let grace = strategy.graceful_deletion(&self.context(scope), object, request.grace_period_seconds);
        let seconds = grace.unwrap_or(0).max(0);
        let first = !meta::is_being_deleted(object);
        let earlier = meta::at(object, &["metadata", "deletionGracePeriodSeconds"]).and_then(Value::as_i64);
        let ends = scope.now.checked_add(jiff::SignedDuration::from_secs(seconds)).unwrap_or(scope.now);
        let metadata = meta::metadata_mut(object);
        // Another deletion can shorten the grace period, never lengthen it (`BeforeDelete`).
        let shorter = earlier.is_some_and(|e| seconds < e);
        if first || shorter {
            metadata.insert("deletionTimestamp".into(), time::rfc3339(ends).into());
            metadata.insert("deletionGracePeriodSeconds".into(), seconds.into());
        }
        // The mark is a change of what is desired, so it counts, for kinds that count at all.
        let generation = metadata.get("generation").and_then(Value::as_i64).unwrap_or(0);
        if first && generation > 0 {
            metadata.insert("generation".into(), (generation + 1).into());
        }
        let held = deletion_finalizers(metadata.get("finalizers"), request);
        match held.is_empty() {
            true => metadata.remove("finalizers"),
            false => metadata.insert("finalizers".into(), held.into()),
        };
        if first {
            strategy.begin_deletion(object);
        }
        grace.is_some()
    }
}

/// The finalizers of an object whose deletion asks for this propagation (`deletionFinalizersForGarbageCollection`).
fn deletion_finalizers(current: Option<&Value>, request: &DeleteOptions) -> Vec<String> {
    let mut names: Vec<String> = current
        .and_then(Value::as_array)
        .map(|list| list.iter().filter_map(Value::as_str).map(Into::into).collect())
        .unwrap_or_default();
    let propagation = match (request.propagation_policy, request.orphan_dependents) {
        (Some(propagation), _) => Some(propagation),
        (None, Some(true)) => Some(Propagation::Orphan),
        (None, Some(false)) => Some(Propagation::Background),
        (None, None) => None,
    };
    let wanted = match propagation {
        // No policy in the request: an earlier request's finalizers, if there are any, stay in force.
        None => return names,
        Some(Propagation::Background) => None,
        Some(Propagation::Orphan) => Some(ORPHAN),
        Some(Propagation::Foreground) => Some(FOREGROUND),
    };
    names.retain(|name| ![ORPHAN, FOREGROUND].contains(&name.as_str()) || Some(name.as_str()) == wanted);
    if let Some(wanted) = wanted
        && !names.iter().any(|name| name == wanted)
    {
        names.push(wanted.into());
    }
    names
}

/// Refuses with 409 unless all holds (`rest.BeforeDelete`); the message names the kind.
fn check_preconditions(scope: &Scope<'_>, request: &DeleteOptions, old: &Value) -> Result<(), Status> {
    let (uid, version) = (request.uid.as_deref(), request.resource_version.as_deref());
    if let Some(status) = scope.strategy.refuse_preconditions(old, uid, version) {
        return Err(status);
    }
    let kind = GroupResource { group: &scope.row.resource.group, resource: &scope.row.resource.kind };
    let found = meta::uid(old);
    if let Some(asked) = &request.uid
        && asked != found
    {
        return Err(Status::conflict(
            kind,
            scope.name,
            format!(
                "the UID in the precondition ({asked}) does not match the UID in record ({found}). The object might \
             have been deleted and then recreated"
            ),
        ));
    }
    let found = meta::text(old, &["metadata", "resourceVersion"]);
    if let Some(asked) = &request.resource_version
        && asked != found
    {
        return Err(Status::conflict(
            kind,
            scope.name,
            format!(
                "the ResourceVersion in the precondition ({asked}) does not match the ResourceVersion in record \
             ({found}). The object might have been modified"
            ),
        ));
    }
    Ok(())
}
