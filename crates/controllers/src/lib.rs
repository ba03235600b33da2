//! What makes an API server a control plane: controllers that work through a [`kube::Client`], whatever server is
//! behind it.
//!
//! | controller | what it keeps true |
//! | --- | --- |
//! | namespace defaults | every namespace has the account `default` and the ConfigMap `kube-root-ca.crt` |
//! | namespace content | a namespace that is being deleted is emptied, then released |
//! | garbage | objects go when their last owner is gone |
//! | token Secrets | Secrets of type `kubernetes.io/service-account-token` hold a token, and go with their account |
//! | aggregation | aggregated ClusterRoles have the rules of the roles that they select |
//! | certificates | approved requests of the signer `kubernetes.io/kube-apiserver-client` get a certificate |
//! | certificate requests | old CertificateSigningRequests go |
//! | events | Events go after their time to live |
//! | quotas | the status of ResourceQuotas says how much there is; what is gone is free again |
//!
//! ```text
//!   server ─► discovery ─► monitor: one watch of metadata per resource
//!                             │ every event, to every controller's Observer
//!                ┌────────────┼─────────────┬──────────────┐
//!                ▼            ▼             ▼              ▼
//!             garbage     namespaces   token Secrets   aggregation, certificates: each a queue of keys
//!                │            │             │              │
//!                └────────────┴──────┬──────┴──────────────┘
//!                                    ▼
//!                   reconcile(key): read live, decide, write with preconditions ─► server
//!
//!   events, certificate requests: a sweep of a list, then sleep until something in it is due
//! ```
//!
//! All of them listen to one watch of metadata per resource and read an object when they need more than that; nothing
//! else of the server's objects is kept in memory, and nothing polls. Each has its own queue, so that none waits for
//! another and a failing object waits only for itself.
//!
//! On Kubernetes these are controllers of kube-controller-manager; they behave like those and can take their place, on
//! any server that speaks its API.
//!
//! # Example
//!
//! The controllers are given a client and work until they are stopped. Here the server is a function that knows one
//! namespace, and is asked to create its ServiceAccount `default`.
//!
//! ```
//! use fleetpass_controllers::{Options, run};
//! use jiff::SignedDuration;
//! use serde_json::{Value, json};
//! use tokio_util::sync::CancellationToken;
//! # use kube::{Client, client::Body};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! # let (created, mut objects) = tokio::sync::mpsc::unbounded_channel();
//! let server = move |method: &str, path: &str, sent: Value| match (method, path) {
//!     ("GET", "/api") => Some(json!({"kind": "APIVersions", "versions": ["v1"]})),
//!     ("GET", "/apis") => Some(json!({"kind": "APIGroupList", "groups": []})),
//!     ("GET", "/api/v1") => Some(json!({"groupVersion": "v1", "resources": [
//!         {"name": "namespaces", "singularName": "", "namespaced": false, "kind": "Namespace",
//!             "verbs": ["delete", "list", "watch"]}]})),
//!     ("GET", "/api/v1/namespaces") => {
//!         Some(json!({"metadata": {"resourceVersion": "1"}, "items": [{"metadata": {"name": "team"}}]}))
//!     }
//!     ("POST", "/api/v1/namespaces/team/serviceaccounts") => {
//!         created.send(sent.clone()).ok()?;
//!         Some(sent)
//!     }
//!     _ => None, // 404
//! };
//! # let service = tower::service_fn(move |request: http::Request<Body>| {
//! #     let server = server.clone();
//! #     async move {
//! #         let (parts, body) = request.into_parts();
//! #         if parts.uri.query().unwrap_or_default().contains("watch=") {
//! #             std::future::pending::<()>().await;
//! #         }
//! #         let body = http_body_util::BodyExt::collect(body).await?.to_bytes();
//! #         let sent = serde_json::from_slice(&body).unwrap_or_default();
//! #         let (code, answer) = match server(parts.method.as_str(), parts.uri.path(), sent) {
//! #             Some(answer) => (200, answer),
//! #             None => (404, json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
//! #                 "code": 404, "reason": "NotFound", "message": "not found"})),
//! #         };
//! #         let answer = Body::from(answer.to_string().into_bytes());
//! #         http::Response::builder().status(code).body(answer).map_err(kube::Error::HttpError)
//! #     }
//! # });
//! # let client = Client::new(service, "default");
//!
//! let mut options = Options::default();
//! options.longest_certificate = SignedDuration::from_hours(24 * 90);
//! options.event_ttl = None; // Events are left to the server.
//! let stop = CancellationToken::new();
//! let running = tokio::spawn(run(client, options, fleetpass_api::clock::system(), stop.clone()));
//!
//! let account: Value = objects.recv().await.unwrap();
//! assert_eq!(account["metadata"], json!({"name": "default", "namespace": "team"}));
//! stop.cancel();
//! running.await.unwrap().unwrap();
//! # }
//! ```
//!
//! # What they deliberately do not do
//!
//! - They keep no objects. What is decided is decided on a live read; a watch only says where to look.
//! - They know no server: nothing here depends on what is behind the client.
//! - They make no Pods, Deployments or Nodes come true: a hub for identity has none.

mod aggregation;
mod certificates;
mod discovery;
mod error;
mod events;
mod garbage;
pub mod leader;
mod live;
#[cfg(test)]
mod mock;
mod monitor;
mod namespaces;
mod queue;
mod quotas;
mod sweep;
mod token_secrets;

pub use aggregation::roles_are_aggregated;
pub use certificates::authority::{AuthorityError, CertificateAuthority};
pub use error::Error;
pub use leader::Identity;
pub use token_secrets::TokenIssuer;

use fleetpass_api::clock::SharedClock;
use futures::future::{BoxFuture, FutureExt as _, join_all};
use jiff::SignedDuration;
use kube::Client;
use monitor::Resources;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What the controllers do, and with what.
#[derive(Clone)]
#[non_exhaustive]
pub struct Options {
    /// The CA bundle (PEM) that `kube-root-ca.crt` holds in every namespace, and Secrets with tokens hold too; without
    /// it no such ConfigMap is made.
    pub root_ca: Option<String>,
    /// How long the content of a namespace stays after its deletion was asked for, so that every server of the control
    /// plane has noticed. kube-controller-manager waits 5 seconds, and so does the default.
    pub namespace_grace: Duration,
    /// Who signs the tokens that live in Secrets; without it such Secrets stay empty.
    pub token_issuer: Option<Arc<dyn TokenIssuer>>,
    /// Who signs certificates of clients (`kubernetes.io/kube-apiserver-client`); without it requests are not answered.
    pub client_authority: Option<Arc<CertificateAuthority>>,
    /// The longest life of a certificate; a year unless told otherwise (`--cluster-signing-duration`).
    pub longest_certificate: SignedDuration,
    /// For how long an Event lives after it was written last; an hour unless told otherwise (`--event-ttl`). None:
    /// Events are left to the server.
    pub event_ttl: Option<SignedDuration>,
    /// If several processes run controllers on the same server: who this one is, and in which election. None: the
    /// controllers run at once.
    pub leader_election: Option<Identity>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            root_ca: None,
            namespace_grace: Duration::from_secs(5),
            token_issuer: None,
            client_authority: None,
            longest_certificate: SignedDuration::from_hours(24 * 365),
            event_ttl: Some(SignedDuration::from_hours(1)),
            leader_election: None,
        }
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("namespace_grace", &self.namespace_grace)
            .field("token_issuer", &self.token_issuer.is_some())
            .field("client_authority", &self.client_authority)
            .field("longest_certificate", &self.longest_certificate)
            .field("event_ttl", &self.event_ttl)
            .field("leader_election", &self.leader_election)
            .finish_non_exhaustive()
    }
}

/// Runs all controllers until `stop`. Reconciliations under way are dropped then: they are repeatable, and the lists of
/// the next start bring back what they were about.
///
/// # Errors
/// None at present: what fails is tried again. A server that cannot be reached is waited for.
pub async fn run(
    client: Client,
    options: Options,
    clock: SharedClock,
    stop: CancellationToken,
) -> Result<(), Error> {
    match options.leader_election.clone() {
        None => controllers(client, options, clock, stop).await,
        Some(identity) => {
            let term = |ends| controllers(client.clone(), options.clone(), clock.clone(), ends);
            let standing = watch::Sender::new(leader::Standing::Unknown);
            leader::run(client.clone(), clock.clone(), identity.into(), standing, stop, term).await;
        }
    }
    Ok(())
}

/// All controllers that `options` ask for, until `stop`.
async fn controllers(client: Client, options: Options, clock: SharedClock, stop: CancellationToken) {
    // The observers go to the monitor, the backlogs to the tasks: a controller is both ends of a queue.
    let mut observers = Vec::new();
    let mut tasks: Vec<BoxFuture<'static, ()>> = Vec::new();
    let resources = Resources::default();
    // Only garbage waits for it. The others look at single objects, for which one list is as good as all.
    let (synced, is_synced) = watch::channel(false);

    let (collector, backlog, observer) = garbage::collector(client.clone(), resources.clone());
    observers.push(observer);
    tasks.push(garbage::run(collector, backlog, is_synced, stop.clone()).boxed());

    let (defaults, backlog, observer) =
        namespaces::defaults::defaults(client.clone(), options.root_ca.clone());
    observers.push(observer);
    tasks.push(namespaces::defaults::run(defaults, backlog, stop.clone()).boxed());

    let (deleter, backlog, observer) =
        namespaces::content::deleter(client.clone(), clock.clone(), options.namespace_grace);
    observers.push(observer);
    tasks.push(namespaces::content::run(deleter, backlog, stop.clone()).boxed());

    let (counter, backlog, observer) = quotas::counter(client.clone(), clock.clone(), resources.clone());
    observers.push(observer);
    tasks.push(quotas::run(counter, backlog, stop.clone()).boxed());

    let (backlog, observer) = aggregation::aggregation();
    observers.push(observer);
    tasks.push(aggregation::run(client.clone(), backlog, stop.clone()).boxed());

    if let Some(issuer) = options.token_issuer {
        let (keeper, backlog, observer) = token_secrets::keeper(client.clone(), issuer, options.root_ca);
        observers.push(observer);
        tasks.push(token_secrets::run(keeper, backlog, stop.clone()).boxed());
    }
    if let Some(authority) = options.client_authority {
        let (signer, backlog, observer) = certificates::signing::signer(
            client.clone(),
            authority,
            options.longest_certificate,
            clock.clone(),
        );
        observers.push(observer);
        tasks.push(certificates::signing::run(signer, backlog, stop.clone()).boxed());
    }
    tasks.push(certificates::cleanup::run(client.clone(), clock.clone(), stop.clone()).boxed());
    if let Some(lifetime) = options.event_ttl {
        tasks.push(events::run(client.clone(), clock, lifetime, stop.clone()).boxed());
    }
    // Last, because it takes the observers.
    tasks.push(monitor::run(client, resources, observers, synced, stop).boxed());
    join_all(tasks).await;
}
