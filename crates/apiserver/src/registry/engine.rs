//! The registry itself: what it is made of, and what all its verbs need.

use super::conversion::present;
use super::decoded::Decoded;
use super::errors::{cache_error, store_error};
use super::quota::Charging;
use super::scope::Scope;
use super::selected::Selected;
use crate::cache::{Cache, Object, join_key, key_range};
use crate::catalog::{self, Catalog};
use crate::strategy::Context;
use fleetpass_api::clock::SharedClock;
use fleetpass_apimachinery::Lister;
use fleetpass_apimachinery::status::Status;
use fleetpass_auth::authz::Authorizer;
use fleetpass_store::Store;
use jiff::Timestamp;
use serde_json::Value;
use std::ops::Bound;
use std::sync::Arc;

/// The registry of one server.
pub(crate) struct Registry {
    pub(super) store: Arc<dyn Store>,
    pub(super) cache: Arc<Cache>,
    pub(super) catalog: Arc<Catalog>,
    authorizer: Arc<dyn Authorizer>,
    clock: SharedClock,
    decoded: Decoded,
    pub(super) selected: Selected,
    pub(super) charging: Charging,
}

impl Registry {
    /// A registry over a store and the cache that follows it.
    pub(crate) fn new(
        store: Arc<dyn Store>,
        cache: Arc<Cache>,
        catalog: Arc<Catalog>,
        authorizer: Arc<dyn Authorizer>,
        clock: SharedClock,
    ) -> Self {
        Self {
            store,
            cache,
            catalog,
            authorizer,
            clock,
            decoded: Decoded::default(),
            selected: Selected::default(),
            charging: Charging::default(),
        }
    }

    /// The present moment.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The clock that tells it.
    pub(crate) fn clock(&self) -> &SharedClock {
        &self.clock
    }

    /// The cache that the registry reads from.
    pub(crate) fn cache(&self) -> &Arc<Cache> {
        &self.cache
    }

    /// The table of kinds.
    pub(crate) fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    /// What the phases of a write may know: the request, and all other objects.
    pub(crate) fn context<'a>(&'a self, scope: &Scope<'a>) -> Context<'a> {
        Context {
            user: scope.user,
            now: scope.now,
            namespace: scope.namespace,
            name: scope.name,
            version: &scope.version.name,
            dry_run: scope.options.dry_run,
            lister: self,
            authorizer: &*self.authorizer,
        }
    }

    /// Waits until the cache has all that was committed before this call, by whichever replica: reads after an acknowledged
    /// write see it (a consistent read from cache, KEP-2340). With the embedded store the revision is a number in memory; etcd
    /// is asked for it.
    ///
    /// # Errors
    /// 503 or 500 if the store does not say its revision, 504 if the cache does not get there within three seconds.
    pub(crate) async fn wait_until_fresh(&self) -> Result<(), Status> {
        let revision = self.store.revision().await.map_err(store_error)?;
        self.cache.wait_for_fresh(revision).await.map_err(cache_error)
    }

    /// The object as a tree, in the version and form of `scope`, with kind and apiVersion.
    pub(super) fn present(&self, scope: &Scope<'_>, object: &Object) -> Value {
        present(scope.row, &scope.version.name, object)
    }
}

impl Lister for Registry {
    fn get(&self, group: &str, resource: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        let key = join_key(&catalog::storage_prefix(group, resource), namespace, name);
        let object = self.cache.get(&key)?;
        // The decoded tree of a Secret is not kept: its values should be in memory for as short a time as possible.
        let is_secret = group.is_empty() && resource == "secrets";
        Some(if is_secret { Arc::new(object.value()) } else { self.decoded.value(&object) })
    }

    fn list(&self, group: &str, resource: &str, namespace: &str) -> Vec<Arc<Value>> {
        let prefix = catalog::storage_prefix(group, resource);
        let (_, objects) = self.cache.snapshot(&prefix);
        // The snapshot shares all objects with the cache; only those in the namespace are decoded.
        let (first, end) = key_range(&prefix, namespace);
        objects
            .range(Bound::Included(first.as_str()))
            .take_while(|(key, _)| ***key < *end)
            .map(|(_, object)| Arc::new(object.value()))
            .collect()
    }
}

/// Randomness for names, ids and how long watches last.
pub(crate) fn random_u64() -> u64 {
    let (high, _) = uuid::Uuid::new_v4().as_u64_pair();
    high
}
