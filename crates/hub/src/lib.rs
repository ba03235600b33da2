//! ManagedServiceAccount on the hub side: time to live, clean-up, the fleet's metrics, joining clusters.
//!
//! ```text
//!                     ┌─► ttl      ─┐
//!   watch accounts ───┤             ├─ control: store ─► queue ─► reconcile ─► delete, if it is the one that was seen
//!                     │   orphans  ─┘
//!                     │      ▲
//!                     │      └──── watch Secrets with our label
//!                     └─► fleet ──► metrics
//!   watch CertificateSigningRequests ──► renewals ──► approve, if an agent asks for the name that it has
//!
//!   join, manifests ──► the objects that a hub, a cluster's namespace or a manager needs
//! ```
//!
//! - [`ttl`] deletes accounts whose `spec.ttlSecondsAfterCreation` is over.
//! - `orphans` deletes projected Secrets whose account is gone, where no garbage collector does.
//! - `renewals` approves CertificateSigningRequests in which agents ask for the name that they have.
//! - `fleet` counts accounts and clusters, tells how their tokens and agents are, and says in the accounts whether their
//!   agent is available; the rules of that are in `availability`.
//! - [`manager`] is all of them in one process, for a hub that is an ordinary Kubernetes.
//! - [`roles`] are what `view`, `edit` and `admin` may do with accounts.
//! - [`join`] gives a cluster its namespace, and its agent the rights there; [`manifests`] are those of a manager.
//!
//! The controllers know no server: they are given a [`kube::Client`], of any Kubernetes or of Fleetpass' own API
//! server in the same process.
//!
//! # Example
//!
//! What a hub needs for a cluster is a list of manifests, whether they are applied by [`join::join`] or printed for
//! `kubectl apply`. What an agent may write is in the cluster's namespace:
//!
//! ```
//! use fleetpass_api::features::FeatureGates;
//! use fleetpass_hub::join::hub_manifests;
//!
//! let manifests = hub_manifests("cluster1", FeatureGates::default());
//! let kinds: Vec<_> = manifests.iter().map(|manifest| manifest["kind"].as_str().unwrap()).collect();
//! assert_eq!(kinds[..4], ["Namespace", "ServiceAccount", "Role", "RoleBinding"]);
//! assert_eq!(manifests[0]["metadata"]["name"], "cluster1");
//! assert!(manifests[1..4].iter().all(|manifest| manifest["metadata"]["namespace"] == "cluster1"));
//! ```
//!
//! # Guarantees
//!
//! - Every deletion has the UID of the object that was seen as precondition, that of a Secret its version too: one that
//!   took its name meanwhile, or was changed meanwhile, stays.
//! - "Gone" is only what the server says about that very object. A hub that does not know the kind, or does not
//!   answer, is no hub without accounts.
//! - All may be stopped at any moment and run twice at once: the second deletion finds nothing.
//!
//! # What it deliberately does not do
//!
//! - No tokens: hub-side controllers read the metadata of Secrets only. Tokens are the agents' business.
//! - No election. Who may work is decided by the caller (`fleetpass_controllers::leader`), who ends a term.
//! - No finalizers: without a manager, accounts are deleted as they always were.

mod availability;
mod control;
mod fleet;
pub mod join;
pub mod manager;
pub mod manifests;
mod orphans;
mod renewals;
pub mod roles;
pub mod ttl;

use kube::{Api, Client, Resource};
/// What a controller counts: shared by its clones.
pub use prometheus_client::metrics::counter::Counter;

/// Which namespaces a controller looks after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// All of them: on the hub.
    All,
    /// One cluster's: in its agent, as the upstream addon's agent does it.
    Cluster(String),
}

impl Scope {
    fn api<K>(&self, client: Client) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        match self {
            Self::All => Api::all(client),
            Self::Cluster(cluster) => Api::namespaced(client, cluster),
        }
    }
}
