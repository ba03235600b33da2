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
//!
//! All of them listen to one watch of metadata per resource and read an object when they need more than that; nothing
//! else of the server's objects is kept in memory, and nothing polls. Each has its own queue, so that none waits for
//! another and a failing object waits only for itself.
//!
//! On Kubernetes these are controllers of kube-controller-manager; they behave like those and can take their place, on
//! any server that speaks its API.

mod aggregation;
mod certificates;
mod discovery;
mod events;
mod garbage;
pub mod leader;
mod live;
#[cfg(test)]
mod mock;
mod monitor;
mod namespaces;
mod queue;
mod sweep;
mod token_secrets;

pub use certificates::authority::{AuthorityError, CertificateAuthority};
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

/// Why a controller could not do something. It tries again by itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The server refused, or could not be asked.
    #[error("{}", message(.0))]
    Kube(#[from] kube::Error),
    /// An owner is of a kind that the server does not know.
    #[error("the server has no resource for the owner kind {0}")]
    UnknownKind(String),
    /// No token could be signed.
    #[error("no token could be signed: {0}")]
    Token(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// No certificate could be signed.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// Something is not done yet.
    #[error("{0}")]
    Incomplete(String),
}

/// What went wrong, in the words of the server where it has some.
fn message(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// Runs all controllers until `stop`.
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
    let mut observers = Vec::new();
    let mut tasks: Vec<BoxFuture<'static, ()>> = Vec::new();
    let resources = Resources::default();
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
    tasks.push(monitor::run(client, resources, observers, synced, stop).boxed());
    join_all(tasks).await;
}
