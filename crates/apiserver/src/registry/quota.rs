//! The quotas of a namespace, charged for what is created in it (the plugin `ResourceQuota`,
//! `k8s.io/apiserver/pkg/admission/plugin/resourcequota`).
//!
//! What kube-apiserver does in two writes, first the status of the quotas, then the object, is one transaction here: either the
//! object is there and charged, or neither. It holds only if no quota has changed since its usage was read, so two creates that
//! would both take the last place cannot, whichever replicas they reach.

use super::conversion::present;
use super::engine::Registry;
use super::errors::store_error;
use super::own::own_options;
use super::scope::Scope;
use super::size::stored_text;
use super::update::{Change, MODIFIED, Tracking};
use crate::cache::{Object, key_range};
use crate::catalog::Row;
use crate::resources::resourcequotas::{self, RESOURCE};
use crate::strategy::Handler;
use crate::system_user::system_user;
use fleetpass_api::quota::is_ignored;
use fleetpass_apimachinery::meta;
use fleetpass_apimachinery::status::Status;
use fleetpass_store::{Entry, Error, Revision, Txn};
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::HashMap;
use std::ops::Bound;
use std::sync::{Arc, Weak};
use tokio::sync::OwnedMutexGuard;

/// Where quotas are stored.
const PREFIX: &str = "/registry/resourcequotas";
/// How often a create is tried again because a quota has changed. Each time somebody else's write succeeded: the controller's, a
/// user's, or a create on another replica. Those on this one wait for their turn.
const ATTEMPTS: usize = 100;

/// Whose turn it is to create in a namespace that has quotas. Without turns all but one of those that create at the same time would
/// fail to compare the quotas and try again, and `n` of them would take `n²` commits.
///
/// The outer lock guards the table and is held for a look-up. A turn is held from reading the quotas until the commit is answered;
/// whoever waits for one can be dropped. A namespace's turn is in the table while somebody has it or waits for it.
#[derive(Default)]
pub(super) struct Charging(Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>);

impl Charging {
    async fn turn(&self, namespace: &str) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.0.lock();
            match turns.get(namespace).and_then(Weak::upgrade) {
                Some(turn) => turn,
                None => {
                    // What nobody holds any more goes here, so the table has no more entries than creates are under way.
                    turns.retain(|_, turn| turn.strong_count() > 0);
                    let turn = Arc::default();
                    turns.insert(namespace.to_string(), Arc::downgrade(&turn));
                    turn
                }
            }
        };
        turn.lock_owned().await
    }
}

/// What became of a transaction that creates an object.
enum Outcome {
    /// It was carried out.
    Created(Revision),
    /// There is an object of that name.
    Exists(Option<Entry>),
    /// A quota is no longer as it was read.
    QuotaChanged,
}

impl Registry {
    /// Carries out `create`, whose one operation puts the new `object`, and charges the quotas of its namespace for it. The error
    /// in the answer is the entry that has the object's key already; then nothing is charged.
    ///
    /// # Errors
    /// 403 if a quota would be exceeded, or is not counted yet; 409 if the quotas change all the time; what the store says.
    pub(super) async fn commit_charged(
        &self,
        scope: &Scope<'_>,
        object: &Value,
        create: Txn,
    ) -> Result<Result<Revision, Option<Entry>>, Status> {
        // Nearly all namespaces have no quotas, and pay for this look-up only.
        if self.quotas(scope).is_empty() {
            return match self.commit_both(scope, create, Txn::default()).await? {
                Outcome::Created(revision) => Ok(Ok(revision)),
                Outcome::Exists(entry) => Ok(Err(entry)),
                Outcome::QuotaChanged => Err(Status::internal("a create depends on what it does not read")),
            };
        }
        let _turn = self.charging.turn(scope.namespace).await;
        for _ in 0..ATTEMPTS {
            let charges = self.charges(scope, object)?;
            match self.commit_both(scope, create.clone(), charges).await? {
                Outcome::Created(revision) => {
                    // Still in this turn: the next one reads the quotas from the cache.
                    self.cache.wait_for(revision).await;
                    return Ok(Ok(revision));
                }
                Outcome::Exists(entry) => return Ok(Err(entry)),
                // The change may not have reached the cache: without waiting, the next attempt would fail in the same way.
                Outcome::QuotaChanged => self.wait_until_fresh().await?,
            }
        }
        Err(Status::conflict(scope.gr(), meta::name(object), MODIFIED))
    }

    async fn commit_both(&self, scope: &Scope<'_>, create: Txn, charges: Txn) -> Result<Outcome, Status> {
        let created = create.ops.first().map(|op| op.key().clone());
        // If a new quota and the changed one had the same revision, a watch of quotas that is resumed between their two events
        // would never see the second. So these are two commits, as in kube-apiserver; should the second one fail, the controller
        // counts again.
        let in_one = scope.gr() != RESOURCE || charges.ops.is_empty();
        let result = if in_one {
            self.store.commit(create.and(charges)).await
        } else {
            match self.store.commit(charges).await {
                Ok(_) => self.store.commit(create).await,
                error => error,
            }
        };
        match result {
            Ok(revision) => Ok(Outcome::Created(revision)),
            Err(Error::Conflict { key, current }) if Some(&key) == created.as_ref() => {
                Ok(Outcome::Exists(current))
            }
            Err(Error::Conflict { .. }) => Ok(Outcome::QuotaChanged),
            Err(error) => Err(store_error(error)),
        }
    }

    /// The changes of all quotas that count `object`, as one transaction; it is empty if none does.
    ///
    /// # Errors
    /// 403 if a quota would be exceeded, or is not counted yet.
    pub(super) fn charges(&self, scope: &Scope<'_>, object: &Value) -> Result<Txn, Status> {
        let mut charges = Txn::default();
        let quotas = self.quotas(scope);
        if quotas.is_empty() {
            return Ok(charges);
        }
        let kinds = self.catalog.kinds();
        let row = kinds.get(RESOURCE.group, RESOURCE.resource);
        let row = row.ok_or_else(|| Status::internal("there are quotas, and no kind for them"))?;
        for stored in quotas {
            let old = present(row, "v1", &stored);
            let charged = resourcequotas::charge(&old, scope.gr(), object, scope.now)
                .map_err(|why| Status::forbidden(scope.gr(), meta::name(object), why))?;
            if let Some(used) = charged {
                charges = charges.and(self.use_up(scope, row, &stored, old, used.into())?);
            }
        }
        Ok(charges)
    }

    /// The update of a quota's status by the server itself: prepared, validated and tracked like anybody's.
    fn use_up(
        &self,
        scope: &Scope<'_>,
        row: &Arc<Row>,
        stored: &Object,
        old: Value,
        used: Value,
    ) -> Result<Txn, Status> {
        let Some(Handler::Update(strategy)) = row.subresource("status", "v1").map(|status| &status.handler)
        else {
            return Err(Status::internal("quotas have no status"));
        };
        let (user, options) = (system_user(), own_options());
        let (namespace, name) = stored.namespace_and_name();
        let own = self.own_scope(row, &**strategy, name, "status", &user, &options);
        let own = Scope { namespace, now: scope.now, ..own };
        let mut object = old.clone();
        object["status"]["used"] = used;
        let change = Change { object, tracking: Tracking::Update, warnings: Vec::new() };
        let mut written = self.prepare_change(&own, old, stored, None, change)?;
        let value = stored_text(row, &mut written.object, stored.size(), true)?;
        Ok(Txn::update(stored.key.clone(), value, stored.revision))
    }

    /// The quotas of the namespace of `scope`, unless they do not count its resource at all.
    fn quotas(&self, scope: &Scope<'_>) -> Vec<Arc<Object>> {
        let gr = scope.gr();
        if scope.namespace.is_empty() || is_ignored(gr.group, gr.resource) {
            return Vec::new();
        }
        let (_, objects) = self.cache.snapshot(PREFIX);
        if objects.len() == 0 {
            return Vec::new();
        }
        let (first, end) = key_range(PREFIX, scope.namespace);
        let quotas = objects.range(Bound::Included(first.as_str())).take_while(|(key, _)| ***key < *end);
        quotas.map(|(_, quota)| quota.clone()).collect()
    }
}
