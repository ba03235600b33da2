//! What makes an API server a control plane: controllers that work through a [`kube::Client`], whatever server is
//! behind it.
//!
//! | controller | what it keeps true |
//! | --- | --- |
//! | namespace defaults | every namespace has the account `default` and the ConfigMap `kube-root-ca.crt` |
//! | namespace content | a namespace that is being deleted is emptied, then released |
//! | garbage | objects go when their last owner is gone |
//!
//! All of them listen to one watch of metadata per resource and read an object when they need more than that; nothing
//! else of the server's objects is kept in memory, and nothing polls. Each has its own queue, so that none waits for
//! another and a failing object waits only for itself.
//!
//! On Kubernetes these are controllers of kube-controller-manager; they behave like those and can take their place, on
//! any server that speaks its API.

mod discovery;
mod garbage;
mod live;
#[cfg(test)]
mod mock;
mod monitor;
mod namespaces;
mod queue;

use fleetpass_api::clock::SharedClock;
use kube::Client;
use monitor::Resources;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What the controllers do, and with what.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// The CA bundle (PEM) that `kube-root-ca.crt` holds in every namespace; without it no such ConfigMap is made.
    pub root_ca: Option<String>,
    /// How long the content of a namespace stays after its deletion was asked for, so that every server of the control
    /// plane has noticed. kube-controller-manager waits 5 seconds, and so does the default.
    pub namespace_grace: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { root_ca: None, namespace_grace: Duration::from_secs(5) }
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
    /// Something is not done yet.
    #[error("{0}")]
    Incomplete(String),
}

/// What went wrong, without a body that may hold a secret.
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
    let resources = Resources::default();
    let (synced, is_synced) = watch::channel(false);
    let (defaults, new_namespaces, watches_defaults) =
        namespaces::defaults::defaults(client.clone(), options.root_ca);
    let (deleter, old_namespaces, watches_content) =
        namespaces::content::deleter(client.clone(), clock, options.namespace_grace);
    let (collector, garbage, watches_owners) = garbage::collector(client.clone(), resources.clone());
    let observers = vec![watches_owners, watches_defaults, watches_content];
    tokio::join!(
        monitor::run(client, resources, observers, synced, stop.clone()),
        namespaces::defaults::run(defaults, new_namespaces, stop.clone()),
        namespaces::content::run(deleter, old_namespaces, stop.clone()),
        garbage::run(collector, garbage, is_synced, stop),
    );
    Ok(())
}
