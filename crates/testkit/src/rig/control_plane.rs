//! A control plane as its clients see it, whichever program it is.

use super::endpoint::Endpoint;
use super::fleetpass::{FleetpassHub, HubOptions};
use super::kubernetes::{RealCluster, RealClusterOptions};
use anyhow::Result;

/// A real Kubernetes, or a Fleetpass in a process of its own.
pub enum ControlPlane {
    /// kube-apiserver and its companions.
    Kubernetes(Box<RealCluster>),
    /// `fleetpass hub`.
    Fleetpass(Box<FleetpassHub>),
}

impl ControlPlane {
    /// A real Kubernetes.
    pub async fn kubernetes(options: &RealClusterOptions) -> Result<Self> {
        Ok(Self::Kubernetes(Box::new(RealCluster::start_with(options).await?)))
    }

    /// A Fleetpass.
    pub async fn fleetpass(options: &HubOptions) -> Result<Self> {
        Ok(Self::Fleetpass(Box::new(FleetpassHub::start(options).await?)))
    }

    /// Where it is.
    pub fn endpoint(&self) -> &Endpoint {
        match self {
            Self::Kubernetes(cluster) => cluster.endpoint(),
            Self::Fleetpass(hub) => hub.endpoint(),
        }
    }

    /// The processes that answer its requests.
    pub fn processes(&self) -> Vec<u32> {
        match self {
            Self::Kubernetes(cluster) => cluster.processes(),
            Self::Fleetpass(hub) => hub.process().into_iter().collect(),
        }
    }

    /// Ends its API server as a crash would.
    pub async fn halt(&mut self) -> Result<()> {
        match self {
            Self::Kubernetes(cluster) => cluster.halt().await,
            Self::Fleetpass(hub) => hub.halt().await,
        }
    }

    /// Starts its API server again at the same address.
    pub async fn resume(&mut self) -> Result<()> {
        match self {
            Self::Kubernetes(cluster) => cluster.resume().await,
            Self::Fleetpass(hub) => hub.resume().await,
        }
    }
}
