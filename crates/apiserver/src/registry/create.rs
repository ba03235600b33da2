//! create (`k8s.io/apiserver/pkg/endpoints/handlers/create.go`, `pkg/registry/generic/registry/store.go`).

use super::conversion::{round_trip, to_external, to_internal};
use super::engine::{Registry, random_u64};
use super::managed;
use super::scope::{Scope, Written};
use super::size::stored_text;
use super::update::Tracking;
use crate::cache::set_resource_version;
use crate::resources::namespaces;
use fleetpass_apimachinery::meta;
use fleetpass_apimachinery::status::Status;
use fleetpass_apimachinery::validation::{metadata, prepare};
use fleetpass_store::Txn;
use serde_json::Value;

impl Registry {
    /// Creates `object`, which has been decoded by the kind's schema and defaulted by its strategy.
    ///
    /// # Errors
    /// 409 if there is one of that name, and what admission and validation say.
    pub(crate) async fn create(&self, scope: &Scope<'_>, mut object: Value) -> Result<Written, Status> {
        prepare::match_namespace(&mut object, scope.namespace)?;
        let mut warnings: Vec<String> = prepare::drop_duplicate_owners(&mut object).into_iter().collect();
        managed::track_create(scope, &mut object);
        self.create_tracked(scope, object, Tracking::Update, &mut warnings).await.map(|object| Written {
            object: to_external(scope.row, &scope.version.name, object),
            created: true,
            warnings,
        })
    }

    /// Creates an object whose managed fields are known, and how.
    pub(super) async fn create_tracked(
        &self,
        scope: &Scope<'_>,
        object: Value,
        tracking: Tracking,
        warnings: &mut Vec<String>,
    ) -> Result<Value, Status> {
        self.wait_until_fresh().await?;
        let mut object = to_internal(scope.row, object);
        // Once, before the loop: a mutating admission must not run again on its own result. Everything behind it starts from a
        // fresh copy, since each attempt has another name, and the name may go into what the kind prepares.
        self.admit(scope, &mut object, None)?;
        for attempt in 1.. {
            let mut candidate = object.clone();
            let (generated, warned) = self.prepare_new(scope, &mut candidate)?;
            match self.insert(scope, candidate, tracking).await {
                Err(status) if status.reason == "AlreadyExists" && generated => {
                    if attempt == prepare::NAME_ATTEMPTS {
                        let name = status.details.as_ref().map(|d| d.name.clone()).unwrap_or_default();
                        return Err(prepare::generated_name_taken(scope.gr(), &name));
                    }
                }
                result => {
                    warnings.extend(warned);
                    return result;
                }
            }
        }
        unreachable!("the loop ends by returning")
    }

    /// Admission of a write: what the namespace allows (nothing new while it is being deleted), then what the kind allows.
    pub(super) fn admit(
        &self,
        scope: &Scope<'_>,
        object: &mut Value,
        old: Option<&Value>,
    ) -> Result<(), Status> {
        let ctx = self.context(scope);
        if old.is_none() && scope.row.resource.namespaced {
            let name = meta::name(object);
            namespaces::admit_into(self, scope.namespace, true, scope.gr(), name)?;
        }
        scope.strategy.admit(&ctx, object, old)
    }

    /// Fills in what the server sets, lets the kind prepare the object, and validates it (`rest.BeforeCreate`). Returns whether
    /// the name was generated, and warnings.
    fn prepare_new(&self, scope: &Scope<'_>, object: &mut Value) -> Result<(bool, Vec<String>), Status> {
        let ctx = self.context(scope);
        let strategy = scope.strategy;
        let uid = uuid::Uuid::new_v4().to_string();
        let new = prepare::NewObject {
            namespace: scope.namespace,
            uid: &uid,
            now: scope.now,
            random: random_u64(),
            counts_generation: strategy.counts_generation(),
        };
        let generated = prepare::for_create(object, &new)?;
        strategy.prepare_for_create(&ctx, object);
        // Errors of metadata come first, as in `BeforeCreate`: clients see the order.
        let mut errors = metadata::validate(object, scope.row.resource.namespaced, &|name, prefix| {
            strategy.validate_name(name, prefix)
        });
        errors.append(strategy.validate(&ctx, object));
        if !errors.is_empty() {
            return Err(scope.invalid(object, &errors));
        }
        strategy.admit_final(&ctx, object, None)?;
        let warnings = strategy.warnings(&ctx, object, None);
        strategy.canonicalize(object);
        *object = round_trip(&self.catalog, scope, std::mem::take(object));
        Ok((generated, warnings))
    }

    /// Stores a complete new object.
    async fn insert(
        &self,
        scope: &Scope<'_>,
        mut object: Value,
        tracking: Tracking,
    ) -> Result<Value, Status> {
        if !meta::text(&object, &["metadata", "resourceVersion"]).is_empty() {
            return Err(Status::plain_error("resourceVersion should not be set on objects to be created"));
        }
        meta::metadata_mut(&mut object).remove("resourceVersion");
        let name = meta::name(&object).to_string();
        let key = scope.key(&name);
        let value = stored_text(scope.row, &mut object, 0, tracking == Tracking::Update)?;
        // The store would find this out; a dry run does not get that far.
        if scope.options.dry_run {
            self.charges(scope, &object)?;
            return match self.cache.get(&key) {
                Some(existing) => Err(self.already_exists(scope, &name, &existing.value())),
                None => Ok(object),
            };
        }
        match self.commit_charged(scope, &object, Txn::create(key, value)).await? {
            Ok(revision) => {
                // Before answering: the client must be able to read what it wrote. There is no timeout here, because the write
                // has happened and "failed" would be wrong; the request's own deadline bounds the wait.
                self.cache.wait_for(revision).await;
                set_resource_version(&mut object, revision);
                Ok(object)
            }
            Err(current) => {
                let existing = current.and_then(|entry| crate::cache::Object::from_entry(&entry).ok());
                let existing = existing.map(|object| object.value()).unwrap_or_default();
                Err(self.already_exists(scope, &name, &existing))
            }
        }
    }

    /// 409; the message says so if the object that has the name is being deleted, since waiting helps then.
    fn already_exists(&self, scope: &Scope<'_>, name: &str, existing: &Value) -> Status {
        let mut status = Status::already_exists(scope.gr(), name);
        if meta::is_being_deleted(existing) {
            status.message = format!("object is being deleted: {}", status.message);
        }
        status
    }
}
