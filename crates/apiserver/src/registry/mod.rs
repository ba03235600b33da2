//! The registry: one engine that reads and writes the objects of all kinds. It knows no kind by name; what is
//! special about a kind is in its [`Strategy`](crate::strategy::Strategy).

mod create;
mod decoded;
mod delete;
mod identity;
mod managed;
mod own;
mod pages;
mod patch;
mod patch_status;
mod read;
mod update;
mod watch;

pub(crate) use managed::track_action;
pub(crate) use patch::PatchRequest;
pub(crate) use patch_status::patch_status;
pub(crate) use read::Listed;
pub(crate) use watch::{WatchItem, Watching};

use crate::cache::{Cache, CacheError, Object, join_key, range};
use crate::catalog::{Catalog, Row};
use crate::strategy::{Context, Strategy, Version, WriteOptions};
use decoded::Decoded;
use fleetpass_api::clock::SharedClock;
use fleetpass_apimachinery::Lister;
use fleetpass_apimachinery::gvk::api_version;
use fleetpass_apimachinery::status::{Cause, Details, GroupResource, Status};
use fleetpass_apimachinery::user::UserInfo;
use fleetpass_auth::authz::Authorizer;
use fleetpass_schema::typed;
use fleetpass_store::{Revision, Store};
use jiff::Timestamp;
use serde_json::Value;
use std::sync::Arc;

/// How often a write is tried again when others write the same object at the same time
/// (`OptimisticLock` retries; kube-apiserver's patch handler gives up after five).
const CONFLICT_RETRIES: usize = 5;

/// The registry of one server.
pub(crate) struct Registry {
    store: Arc<dyn Store>,
    cache: Arc<Cache>,
    catalog: Arc<Catalog>,
    authorizer: Arc<dyn Authorizer>,
    clock: SharedClock,
    decoded: Decoded,
}

/// What all requests to one resource have in common.
#[derive(Clone, Copy)]
pub(crate) struct Scope<'a> {
    /// The kind.
    pub row: &'a Row,
    /// The version that the client speaks.
    pub version: &'a Version,
    /// Who asks.
    pub user: &'a UserInfo,
    /// The namespace, or empty.
    pub namespace: &'a str,
    /// The name, or empty.
    pub name: &'a str,
    /// The subresource, or empty.
    pub subresource: &'a str,
    /// The strategy of the resource or subresource.
    pub strategy: &'a dyn Strategy,
    /// dry run, field manager.
    pub options: &'a WriteOptions,
    /// `User-Agent`, from which a field manager is named if the client names none.
    pub user_agent: &'a str,
    /// The moment at which the request is handled.
    pub now: Timestamp,
}

/// An object that was written (or would have been, in a dry run).
pub(crate) struct Written {
    /// The object, with its resource version unless nothing was stored.
    pub object: Value,
    /// Whether it is new.
    pub created: bool,
    /// What the client should be warned of.
    pub warnings: Vec<String>,
}

/// The object may be a Secret: it is never printed.
impl std::fmt::Debug for Written {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Written")
            .field("created", &self.created)
            .field("warnings", &self.warnings)
            .finish_non_exhaustive()
    }
}

impl<'a> Scope<'a> {
    fn gr(&self) -> GroupResource<'a> {
        GroupResource { group: &self.row.resource.group, resource: &self.row.resource.plural }
    }

    fn key(&self, name: &str) -> Arc<str> {
        join_key(&self.row.storage_prefix, self.namespace, name)
    }

    fn not_found(&self) -> Status {
        Status::not_found(self.gr(), self.name)
    }

    /// 422 about an object: it is spoken of under the kind that its body names, which for custom resources may be
    /// the error itself.
    fn invalid(&self, object: &Value, errors: &fleetpass_apimachinery::field::ErrorList) -> Status {
        let kind = match fleetpass_apimachinery::meta::text(object, &["kind"]) {
            "" => self.row.resource.kind.as_str(),
            kind => kind,
        };
        let name = if self.name.is_empty() { fleetpass_apimachinery::meta::name(object) } else { self.name };
        Status::invalid(&self.row.resource.group, kind, name, errors)
    }
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
        Self { store, cache, catalog, authorizer, clock, decoded: Decoded::default() }
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

    /// What the phases of a write may know.
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

    /// Waits until the cache has all that was committed before this call, by whichever replica: reads after an
    /// acknowledged write see it.
    pub(crate) async fn fresh(&self) -> Result<(), Status> {
        let revision = self.store.revision().await.map_err(store_error)?;
        self.cache.wait_for_fresh(revision).await.map_err(cache_error)
    }

    /// The object as a tree, in the version and form of `scope`, with kind and apiVersion.
    fn present(&self, scope: &Scope<'_>, object: &Object) -> Value {
        present(scope.row, &scope.version.name, object)
    }
}

/// A stored object in the form that a row shows in one of its versions.
pub(crate) fn present(row: &Row, version: &str, stored: &Object) -> Value {
    let mut object = stored.value();
    if !row.is_uniform(stored.revision)
        && let Some(strategy) = row.strategy()
    {
        strategy.show(&mut object, version);
    }
    outward(row, version, object)
}

/// A tree in the form in which a kind's rules see it, as clients see it in one version.
pub(crate) fn outward(row: &Row, version: &str, object: Value) -> Value {
    let mut shown = match &row.resource.view {
        Some(view) => view.show_stored(&object),
        None => object,
    };
    if let Some(members) = shown.as_object_mut() {
        members.insert("kind".into(), row.resource.kind.clone().into());
        members.insert("apiVersion".into(), api_version(&row.resource.group, version).into());
    }
    shown
}

/// A complete object as a real server gives it back from its storage, where built-in kinds are kept as protobuf: a
/// list or map without elements is not there, bytes that are null are empty.
fn settled(registry: &Registry, scope: &Scope<'_>, object: Value) -> Value {
    if scope.row.resource.custom {
        return object;
    }
    let schema = match &scope.row.resource.view {
        None => Some(scope.version.schema.clone()),
        Some(view) => {
            let (group, plural) = view.stored_as();
            let table = registry.catalog.kinds();
            table.get(group, plural).and_then(|row| row.resource.versions.first().map(|v| v.schema.clone()))
        }
    };
    match schema {
        Some(schema) => typed::as_stored(&object, &schema),
        None => object,
    }
}

/// The opposite of [`outward`].
fn inward(row: &Row, object: Value) -> Value {
    match &row.resource.view {
        Some(view) => view.to_stored(&object),
        None => object,
    }
}

/// The form in which a tree is stored: that of the rules, under the stored `apiVersion`.
fn to_stored(row: &Row, object: &Value) -> Value {
    let mut stored = object.clone();
    if let Some(members) = stored.as_object_mut() {
        members.insert("kind".into(), row.resource.kind.clone().into());
        members.insert("apiVersion".into(), row.storage_api_version().into());
    }
    stored
}

impl Lister for Registry {
    fn get(&self, group: &str, resource: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        let key = join_key(&crate::catalog::storage_prefix(group, resource), namespace, name);
        let object = self.cache.get(&key)?;
        // What is secret does not stay in memory longer than need be.
        let is_secret = group.is_empty() && resource == "secrets";
        Some(if is_secret { Arc::new(object.value()) } else { self.decoded.value(&object) })
    }

    fn list(&self, group: &str, resource: &str, namespace: &str) -> Vec<Arc<Value>> {
        let prefix = crate::catalog::storage_prefix(group, resource);
        let (_, objects) = self.cache.snapshot(&prefix);
        range(&objects, &prefix, namespace, None).map(|object| Arc::new(object.value())).collect()
    }
}

/// A store error as a client sees it; conflicts are the caller's to handle.
fn store_error(error: fleetpass_store::Error) -> Status {
    if error.retry_can_help() {
        tracing::warn!(%error, "the store is not available");
        let mut status =
            Status::new(503, "ServiceUnavailable", format!("the store is not available: {error}"));
        status.details = Some(Box::new(Details { retry_after_seconds: 1, ..Details::default() }));
        return status;
    }
    tracing::error!(%error, "the store failed");
    Status::internal(error)
}

/// A cache error as kube-apiserver words it.
fn cache_error(error: CacheError) -> Status {
    match error {
        CacheError::TooOld { .. } => Status::expired(error.to_string()),
        CacheError::TooLarge { .. } => {
            let mut status = Status::timeout(error.to_string());
            status.details = Some(Box::new(Details {
                causes: vec![Cause {
                    reason: "ResourceVersionTooLarge".into(),
                    message: "Too large resource version".into(),
                    field: String::new(),
                }],
                retry_after_seconds: 1,
                ..Details::default()
            }));
            status
        }
    }
}

/// The resource version in a body: absent, empty and 0 mean none; anything but a number is refused as
/// kube-apiserver's versioner refuses it (500 without reason).
fn body_resource_version(object: &Value) -> Result<Option<Revision>, Status> {
    match fleetpass_apimachinery::meta::text(object, &["metadata", "resourceVersion"]) {
        "" => Ok(None),
        text => go_parse_uint(text).map(|r| (r != 0).then_some(r)).map_err(Status::plain_error),
    }
}

/// A resource version in a query, or the text of the error.
fn parse_revision(text: &str) -> Result<Revision, String> {
    go_parse_uint(text).map_err(|why| {
        format!("resourceVersion: Invalid value: {}: {why}", fleetpass_apimachinery::field::go_quote(text))
    })
}

/// A number as Go's `strconv.ParseUint` reads it, or its error.
fn go_parse_uint(text: &str) -> Result<u64, String> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match text.parse() {
        Ok(number) if digits => Ok(number),
        _ => {
            let why = if digits { "value out of range" } else { "invalid syntax" };
            Err(format!(
                "strconv.ParseUint: parsing {}: {why}",
                fleetpass_apimachinery::field::go_quote(text)
            ))
        }
    }
}

/// Randomness for names, ids and how long watches last.
pub(crate) fn random_u64() -> u64 {
    let (high, _) = uuid::Uuid::new_v4().as_u64_pair();
    high
}
