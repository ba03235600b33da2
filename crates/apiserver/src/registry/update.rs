//! update: the one loop through which every change of a stored object goes, be it a PUT, a patch or an apply
//! (`k8s.io/apiserver/pkg/registry/generic/registry/store.go`, `Update`).

use super::conversion::{round_trip, to_external, to_internal};
use super::engine::Registry;
use super::errors::store_error;
use super::managed;
use super::resource_version::body_resource_version;
use super::scope::{Scope, Written};
use super::size::stored_text;
use crate::cache::{Object, set_resource_version};
use crate::strategy::Strategy;
use bytes::Bytes;
use fleetpass_apimachinery::field;
use fleetpass_apimachinery::meta;
use fleetpass_apimachinery::status::Status;
use fleetpass_apimachinery::validation::{metadata, names, prepare};
use fleetpass_store::{Revision, Txn};
use serde_json::Value;

/// How often a write is tried again when others write the same object at the same time; kube-apiserver's patch handler gives up
/// after as many (`maxRetryWhenPatchConflicts` in `endpoints/handlers/patch.go`).
pub(super) const CONFLICT_RETRIES: usize = 5;

/// What a conflict says (`OptimisticLockErrorMsg`).
pub(super) const MODIFIED: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

/// How managed fields follow a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tracking {
    /// An update by the scope's manager.
    Update,
    /// The change carries its managed fields already (server-side apply).
    Done,
}

/// A changed object, before admission.
pub(super) struct Change {
    /// The whole new object.
    pub(super) object: Value,
    /// Whether its managed fields have to be brought up to date.
    pub(super) tracking: Tracking,
    /// Warnings that came up while it was made.
    pub(super) warnings: Vec<String>,
}

impl Registry {
    /// Replaces the object by `body`, decoded and defaulted (PUT).
    pub(crate) async fn update(&self, scope: &Scope<'_>, mut body: Value) -> Result<Written, Status> {
        super::identity::check_identity(scope, &mut body)?;
        // Taken before the body is changed: they are what the client demands.
        let asked = body_resource_version(&body)?;
        let uid = meta::uid(&body).to_string();
        self.wait_until_fresh().await?;
        if self.cache.get(&scope.key(scope.name)).is_none() {
            if !scope.strategy.allow_create_on_update() {
                return Err(scope.not_found());
            }
            // The version of an object that is not there is ignored; `create` would refuse it.
            meta::metadata_mut(&mut body).remove("resourceVersion");
            return self.create(scope, body).await;
        }
        self.change(scope, asked, |old| {
            check_uid(scope, &uid, old)?;
            Ok(Change { object: body.clone(), tracking: Tracking::Update, warnings: Vec::new() })
        })
        .await
    }

    /// Changes the stored object by `make`, which is given the object as the client sees it. If somebody else's write comes
    /// in between, `make` is called again with the newer object, so a patch applies to what is there now. If the client has
    /// demanded a resource version (`asked`, or one in the new object), a retry cannot succeed and it is told of the conflict.
    ///
    /// # Errors
    /// 404, 409, what `make` says, and what admission and validation say.
    pub(super) async fn change(
        &self,
        scope: &Scope<'_>,
        asked: Option<Revision>,
        make: impl Fn(&Value) -> Result<Change, Status>,
    ) -> Result<Written, Status> {
        let key = scope.key(scope.name);
        let mut attempt = 0;
        loop {
            let stored = self.cache.get(&key).ok_or_else(|| scope.not_found())?;
            let old = self.present(scope, &stored);
            let change = make(&old)?;
            let tracking = change.tracking;
            let demanded = asked.or(body_resource_version(&change.object)?.filter(|r| *r != stored.revision));
            let mut written = self.prepare_change(scope, old, &stored, asked, change)?;
            let forgets_owners = tracking == Tracking::Update;
            let value = stored_text(scope.row, &mut written.object, stored.size(), forgets_owners)?;
            match self.commit_change(scope, &stored, value, &mut written.object).await {
                Ok(()) => {
                    written.object = to_external(scope.row, &scope.version.name, written.object);
                    return Ok(written);
                }
                Err(fleetpass_store::Error::Conflict { .. }) => {
                    attempt += 1;
                    if demanded.is_some() || attempt > CONFLICT_RETRIES {
                        return Err(Status::conflict(scope.gr(), scope.name, MODIFIED));
                    }
                    // The other write may not have reached the cache: without waiting, the next attempt would read the same
                    // object and fail again.
                    self.wait_until_fresh().await?;
                }
                Err(error) => return Err(store_error(error)),
            }
        }
    }

    /// Everything between what the client wants and the commit: preconditions, admission, preparation, validation. Without I/O,
    /// so it can be repeated.
    pub(super) fn prepare_change(
        &self,
        scope: &Scope<'_>,
        old: Value,
        stored: &Object,
        asked: Option<Revision>,
        change: Change,
    ) -> Result<Written, Status> {
        let Change { mut object, tracking, mut warnings } = change;
        let strategy = scope.strategy;
        let given = if asked.is_some() { asked } else { body_resource_version(&object)? };
        match given {
            Some(revision) if revision != stored.revision => {
                return Err(Status::conflict(scope.gr(), scope.name, MODIFIED));
            }
            None if !strategy.allow_unconditional_update() => {
                let path = field::Path::new("metadata.resourceVersion");
                let error = field::Error::invalid(&path, 0, "must be specified for an update");
                let resource = &scope.row.resource;
                return Err(Status::invalid(&resource.group, &resource.plural, scope.name, &[error].into()));
            }
            // From here on it has the version that it replaces, as admission and the rules expect.
            _ => set_resource_version(&mut object, stored.revision),
        }
        warnings.extend(prepare::drop_duplicate_owners(&mut object));
        if tracking == Tracking::Update {
            managed::track_update(scope, &old, &mut object);
        }
        // From here on both are in the form that the kind's rules see.
        let (mut object, old) = (to_internal(scope.row, object), &to_internal(scope.row, old));
        self.admit(scope, &mut object, Some(old))?;
        let ctx = self.context(scope);
        prepare::for_update(&mut object, old, scope.namespace)?;
        strategy.prepare_for_update(&ctx, &mut object, old);
        // After the strategy has put back what this request may not change: only what remains of the change counts.
        if strategy.counts_generation() {
            prepare::count_generation(&mut object, old, &["status"]);
        }
        let namespaced = scope.row.resource.namespaced;
        // The name is immutable and was validated on create, perhaps by rules that have become stricter since. So only what a
        // path cannot contain is refused here (`BeforeUpdate` in `pkg/registry/rest/update.go`).
        let mut errors = metadata::validate(&object, namespaced, &names::is_path_segment);
        errors.append(metadata::validate_update(&object, old));
        errors.append(strategy.validate_update(&ctx, &object, old));
        if !errors.is_empty() {
            return Err(scope.invalid(&object, &errors));
        }
        strategy.admit_final(&ctx, &object, Some(old))?;
        warnings.extend(strategy.warnings(&ctx, &object, Some(old)));
        strategy.canonicalize(&mut object);
        let mut object = round_trip(&self.catalog, scope, object);
        // Last: only now it is known whether the write changes anything.
        managed::keep_unchanged_times(&mut object, old);
        Ok(Written { object, created: false, warnings })
    }

    /// Commits a prepared change, of which `value` is the text. Nothing is written if nothing changes, as in etcd3's `GuaranteedUpdate`: no new revision, no
    /// event. If the change took away the last thing that held a deleted object, the object is deleted instead.
    async fn commit_change(
        &self,
        scope: &Scope<'_>,
        stored: &Object,
        value: Bytes,
        object: &mut Value,
    ) -> Result<(), fleetpass_store::Error> {
        let gone = should_remove(scope.strategy, object);
        if !gone && stored.is_same_text(&value) {
            return Ok(());
        }
        if scope.options.dry_run {
            return Ok(());
        }
        let key = stored.key.clone();
        // Not written once more before it goes (`deleteWithoutFinalizers`): watchers see its last stored state, finalizer
        // included.
        let txn =
            if gone { Txn::delete(key, stored.revision) } else { Txn::update(key, value, stored.revision) };
        let revision = self.store.commit(txn).await?;
        self.cache.wait_for(revision).await;
        if !gone {
            set_resource_version(object, revision);
        }
        Ok(())
    }
}

/// Whether nothing holds a deleted object any longer: no finalizer, no grace period, nothing of its kind
/// (`ShouldDeleteDuringUpdate`).
pub(super) fn should_remove(strategy: &dyn Strategy, object: &Value) -> bool {
    let grace = meta::at(object, &["metadata", "deletionGracePeriodSeconds"]).and_then(Value::as_i64);
    meta::is_being_deleted(object)
        && meta::list(object, &["metadata", "finalizers"]).is_empty()
        && grace.unwrap_or(0) == 0
        && !strategy.is_held(object)
}

/// A UID in the body of a PUT is a precondition.
fn check_uid(scope: &Scope<'_>, asked: &str, old: &Value) -> Result<(), Status> {
    let found = meta::uid(old);
    if asked.is_empty() || asked == found {
        return Ok(());
    }
    let key = scope.key(scope.name);
    let why = format!(
        "StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: Precondition \
         failed: UID in precondition: {asked}, UID in object meta: {found}"
    );
    Err(Status::conflict(scope.gr(), scope.name, why))
}
