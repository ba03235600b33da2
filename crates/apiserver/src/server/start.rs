//! Starting: what every server has before it answers its first request.
//!
//! The order follows from what depends on what: the catalog of built-in kinds, then the cache, whose subscribers (RBAC, CRDs)
//! see every object while it is being loaded, then the registry over both, and with it the objects that must exist.

use super::connections::{ConnectionLimits, Connections};
use super::health::{Check, Health};
use super::limits::{Limits, RequestLimits};
use super::metrics::Metrics;
use super::offload::Pools;
use super::outliving::Outliving;
use super::state::ServerState;
use crate::cache::{Cache, Event, EventKind, Subscriber, split_key};
use crate::catalog::Catalog;
use crate::definitions::Definitions;
use crate::registry::{OwnWrite, Registry};
use crate::resources;
use crate::strategy::Resource;
use fleetpass_api::clock::SharedClock;
use fleetpass_apimachinery::status::Status;
use fleetpass_apimachinery::{Lister, meta};
use fleetpass_auth::authn::oidc::Oidc;
use fleetpass_auth::authn::{Authenticator, NoIssuer, ServiceAccountConfig, ServiceAccounts, TokenFile};
use fleetpass_auth::authz::impersonation::ModeCache;
use fleetpass_auth::authz::rbac::Index;
use fleetpass_auth::authz::{Authorizer, Union, bootstrap};
use fleetpass_schema::openapi::builtin;
use fleetpass_store::{Health as StoreHealth, Store};
use fleetpass_token::claims::Lifetimes;
use fleetpass_token::ring::KeyRing;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// What a server is made of.
pub struct Options {
    /// Where objects are kept.
    pub store: Arc<dyn Store>,
    /// What time it is.
    pub clock: SharedClock,
    /// The keys of service-account tokens.
    pub key_ring: KeyRing,
    /// `--service-account-issuer`: the first issues, all are accepted.
    pub issuers: Vec<String>,
    /// `--api-audiences`; empty: the first issuer.
    pub api_audiences: Vec<String>,
    /// How long tokens live.
    pub lifetimes: Lifetimes,
    /// `--token-auth-file`.
    pub token_users: TokenFile,
    /// Host and port at which clients reach the server, for discovery and OIDC documents.
    pub external_address: String,
    /// `--service-account-jwks-uri`.
    pub jwks_uri: Option<String>,
    /// CRDs that are put in place at every start; those that are there are brought up to date.
    pub crds: Vec<Value>,
    /// `--audit-log-path`: who did what.
    pub audit: Option<crate::audit::Log>,
    /// How much at once, and for how long.
    pub limits: RequestLimits,
    /// How many connections at once.
    pub connections: ConnectionLimits,
}

/// Why a server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store cannot be read or written.
    #[error("the store cannot be used: {0}")]
    Store(#[from] fleetpass_store::Error),
    /// No issuer was given.
    #[error("--service-account-issuer is missing: tokens need an issuer")]
    NoIssuer,
    /// What every server has cannot be put in place, because the store cannot be written.
    #[error("{what} cannot be stored: {problem}, and start again")]
    Unwritable {
        /// Which object.
        what: String,
        /// What cannot be written, why, and what an operator can do.
        problem: String,
    },
    /// What every server has cannot be put in place.
    #[error("{what} cannot be put in place: {status}")]
    Refused {
        /// Which object.
        what: String,
        /// Why.
        status: Status,
    },
}

impl From<NoIssuer> for StartError {
    fn from(_: NoIssuer) -> Self {
        Self::NoIssuer
    }
}

pub(super) async fn start(options: Options, stop: CancellationToken) -> Result<ServerState, StartError> {
    let api_audiences = if options.api_audiences.is_empty() {
        // The documented default of `--api-audiences`: the issuer's URL.
        options.issuers.iter().take(1).cloned().collect()
    } else {
        options.api_audiences
    };
    let config = ServiceAccountConfig {
        issuers: options.issuers,
        api_audiences: api_audiences.clone(),
        lifetimes: options.lifetimes,
    };
    let oidc = config.issuers.first().and_then(|issuer| {
        Oidc::new(issuer, options.jwks_uri.as_deref(), &options.external_address)
            // An issuer that is no https URL cannot have discovery; tokens work all the same.
            .map_err(|error| tracing::warn!(%error, "OIDC discovery is not served"))
            .ok()
    });
    let accounts = Arc::new(ServiceAccounts::new(config, options.key_ring)?);
    let authenticator =
        Arc::new(Authenticator::new(options.token_users, Some(accounts.clone()), api_audiences));
    let catalog = Arc::new(Catalog::new(builtin_rows(&accounts, &authenticator)));
    let index = Arc::new(Index::new());
    let authorizer: Arc<dyn Authorizer> = Arc::new(Union::masters_and_rbac(index.clone()));
    let definitions = Definitions::new(catalog.clone());
    // Given to the cache before it loads, so that they have seen every object when it is ready.
    let subscribers: Vec<Box<dyn Subscriber>> =
        vec![Box::new(rbac_subscriber(index)), definitions.subscriber()];
    let cache = Cache::start(options.store.clone(), subscribers, stop.clone()).await?;
    let registry =
        Arc::new(Registry::new(options.store.clone(), cache, catalog, authorizer.clone(), options.clock));
    // For the CRDs that are in the store already: a deletion of one may have been under way when the server stopped.
    tokio::spawn(definitions.clone().run(registry.clone(), stop.clone()));
    let put_in_place = async {
        bootstrap_objects(&registry, &options.crds).await?;
        definitions.establish(&registry, &options.crds).await.map_err(|status| StartError::Refused {
            what: "the kinds that the server brings along".into(),
            status,
        })
    };
    put_in_place.await.map_err(|error| explained(error, &*options.store))?;
    let connections = Arc::new(Connections::new(options.connections));
    Ok(ServerState {
        health: health(&registry, options.store.clone(), probe_store(options.store, stop.clone())),
        registry,
        authenticator,
        accounts,
        authorizer,
        recent_impersonations: ModeCache::new(),
        oidc,
        openapi: crate::openapi::Cache::default(),
        limits: Limits::new(options.limits),
        pools: Pools::new(),
        outliving: Outliving::default(),
        metrics: Arc::new(Metrics::new(options.audit.as_ref()).with(&connections)),
        connections,
        audit: options.audit,
        external_address: options.external_address,
        stop,
    })
}

/// An error at the start, with what the operator has to look after if the store is what fails. A Status is for clients, and
/// names no file.
fn explained(error: StartError, store: &dyn Store) -> StartError {
    match (error, store.health()) {
        (
            StartError::Refused { what, .. },
            StoreHealth::Unwritable { problem, .. } | StoreHealth::Stopped { problem },
        ) => StartError::Unwritable { what, problem },
        (error, _) => error,
    }
}

/// The rows that are compiled in.
fn builtin_rows(accounts: &Arc<ServiceAccounts>, authenticator: &Arc<Authenticator>) -> Vec<Resource> {
    let schema = |kind: &str| builtin(&format!("io.k8s.api.authentication.v1.{kind}"));
    let mut service_accounts =
        resources::serviceaccounts::resource(resources::token_request::action(accounts.clone()));
    let token = resources::token_request::subresource(schema("TokenRequest"), accounts.clone());
    service_accounts.subresources.retain(|subresource| subresource.name != "token");
    service_accounts.subresources.push(token);
    vec![
        resources::namespaces::resource(),
        service_accounts,
        resources::secrets::resource(),
        resources::configmaps::resource(),
        resources::resourcequotas::resource(),
        resources::pods::resource(),
        resources::nodes::resource(),
        resources::events::resource(),
        resources::events::events_group_resource(),
        resources::leases::resource(),
        resources::certificatesigningrequests::resource(),
        resources::roles::resource(),
        resources::rolebindings::resource(),
        resources::clusterroles::resource(),
        resources::clusterrolebindings::resource(),
        resources::token_review::resource(schema("TokenReview"), authenticator.clone(), true),
        resources::self_subject_review::resource(schema("SelfSubjectReview")),
        resources::subjectaccessreviews::resource(),
        resources::selfsubjectaccessreviews::resource(),
        resources::localsubjectaccessreviews::resource(),
        resources::selfsubjectrulesreviews::resource(),
        resources::customresourcedefinitions::resource(),
    ]
}

/// Keeps the RBAC index up to date. As a subscriber of the cache it is done when a write is answered: a binding holds from then
/// on, and one that was deleted holds no longer.
fn rbac_subscriber(index: Arc<Index>) -> impl Subscriber {
    move |prefix: &str, event: &Event| {
        let resource = prefix.strip_prefix("/registry/").unwrap_or_default();
        if !matches!(resource, "roles" | "rolebindings" | "clusterroles" | "clusterrolebindings") {
            return;
        }
        let (_, (namespace, name)) = split_key(&event.object.key);
        let object = (event.kind != EventKind::Deleted).then(|| event.object.value());
        // Decoding under the cache's lock is affordable here: RBAC objects are small and rarely written.
        index.apply(resource, namespace, name, object.as_ref());
    }
}

/// How long to wait between two questions to the store.
const PROBE_INTERVAL: Duration = Duration::from_secs(2);
/// How long an answer may take before the store counts as not answering.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// Whether the store has answered lately. A task asks it, because a health check must not wait for it.
fn probe_store(store: Arc<dyn Store>, stop: CancellationToken) -> Arc<AtomicBool> {
    let answers = Arc::new(AtomicBool::new(true));
    let seen = answers.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = tokio::time::sleep(PROBE_INTERVAL) => {}
                () = stop.cancelled() => return,
            }
            let answer = tokio::time::timeout(PROBE_TIMEOUT, store.revision()).await;
            seen.store(matches!(answer, Ok(Ok(_))), Ordering::Relaxed);
        }
    });
    answers
}

/// The health checks. Liveness fails only if nothing but a restart can help: it cures neither a store that does not answer or
/// a disk that is full nor a cache that is loading, and would take away what can still be read.
fn health(registry: &Arc<Registry>, store: Arc<dyn Store>, answers: Arc<AtomicBool>) -> Health {
    // Weak: the state owns both the checks and the registry, and a cycle would keep them for ever.
    let registry = Arc::downgrade(registry);
    let cache = move || match registry.upgrade() {
        Some(registry) if registry.cache().is_following() => Ok(()),
        Some(_) => Err("the watch cache does not follow the store".to_string()),
        None => Err("the server has stopped".to_string()),
    };
    let engine = store.clone();
    let alive = move || match engine.health() {
        StoreHealth::Writable | StoreHealth::Unwritable { .. } => Ok(()),
        StoreHealth::Stopped { problem } => Err(problem),
    };
    let ready = move || match store.health() {
        StoreHealth::Unwritable { problem, .. } | StoreHealth::Stopped { problem } => Err(problem),
        StoreHealth::Writable if answers.load(Ordering::Relaxed) => Ok(()),
        StoreHealth::Writable => Err("the store does not answer".to_string()),
    };
    Health::new(
        vec![Check::new("store-engine", alive)],
        vec![Check::new("store", ready), Check::new("watch-cache", cache)],
    )
}

/// Creates what is missing of namespaces, roles and bindings, and CRDs; brings roles and CRDs up to date
/// (`pkg/controlplane/controller/systemnamespaces`, `pkg/registry/rbac/rest/storage_rbac.go`).
async fn bootstrap_objects(registry: &Arc<Registry>, crds: &[Value]) -> Result<(), StartError> {
    let namespaces = ["default", "kube-system", "kube-public", "kube-node-lease"]
        .map(|name| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}));
    let namespaces =
        namespaces.into_iter().map(|object| ensure(registry, "", "namespaces", object, create_only));
    let rbac = bootstrap::objects().into_iter().map(|(resource, object)| {
        ensure(registry, fleetpass_auth::authz::rbac::GROUP, resource, object, bootstrap::reconcile)
    });
    futures::future::try_join_all(namespaces).await?;
    // All at once: the store commits them in a few groups.
    futures::future::try_join_all(rbac).await?;
    let crds = crds.iter().cloned().map(|object| {
        ensure(
            registry,
            "apiextensions.k8s.io",
            "customresourcedefinitions",
            object,
            crate::definitions::updated_spec,
        )
    });
    futures::future::try_join_all(crds).await?;
    Ok(())
}

/// Creates what is missing; what is there stays as it is.
fn create_only(existing: Option<&Value>, desired: &Value) -> Option<Value> {
    existing.is_none().then(|| desired.clone())
}

/// Brings one object into the state that `reconcile` asks for.
async fn ensure(
    registry: &Arc<Registry>,
    group: &str,
    plural: &str,
    desired: Value,
    reconcile: fn(Option<&Value>, &Value) -> Option<Value>,
) -> Result<(), StartError> {
    let name = meta::name(&desired).to_string();
    let refused = |status| StartError::Refused { what: format!("{plural} {name}"), status };
    loop {
        let existing = Lister::get(&**registry, group, plural, "", &name);
        // Compared before writing: a start of a server that is up to date writes nothing.
        let Some(wanted) = reconcile(existing.as_deref(), &desired) else { return Ok(()) };
        let how = match &existing {
            None => OwnWrite::Create,
            // `bootstrap::reconcile` takes the UID away from a binding whose role, which is immutable, has to change.
            Some(_) if meta::uid(&wanted).is_empty() => OwnWrite::Replace,
            Some(_) => OwnWrite::Update,
        };
        let written = registry.write_own(group, plural, wanted, how).await;
        match written {
            Ok(_) => return Ok(()),
            // Another replica is starting too. Look at what it wrote: mostly there is nothing left to do.
            Err(status) if status.code == 409 => registry.wait_until_fresh().await.map_err(refused)?,
            Err(status) => return Err(refused(status)),
        }
    }
}
