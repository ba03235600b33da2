//! ManagedServiceAccount on the hub side: time to live, clean-up, the fleet's metrics, joining clusters.
//!
//! The controllers know no server: they are given a [`kube::Client`], of any Kubernetes or of Fleetpass' own API
//! server in the same process.

mod control;
pub mod fleet;
pub mod join;
pub mod manager;
pub mod manifests;
pub mod orphans;
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
