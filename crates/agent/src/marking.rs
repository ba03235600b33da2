//! Whether the cluster lets the agent put its mark on ServiceAccounts that it did not make.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// How long after a refusal the agent tries again: somebody may have given it the right.
const AGAIN: Duration = Duration::from_secs(10 * 60);

/// The upstream addon's Role grants no change of ServiceAccounts: its agent needs none. Under it, what upstream's agent
/// made stays without a mark; what this one makes carries it from the beginning.
#[derive(Debug, Default)]
pub(crate) struct Marking {
    /// A std mutex: held for a comparison, never across an `await`.
    refused: Mutex<Option<Instant>>,
}

impl Marking {
    /// Whether it was refused, lately.
    pub(crate) fn is_refused(&self) -> bool {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.is_some_and(|at| at.elapsed() < AGAIN)
    }

    /// It was refused: said the first time.
    pub(crate) fn refused(&self, why: &str) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if refused.replace(Instant::now()).is_none() {
            tracing::warn!(
                why,
                "the cluster does not let the agent mark the ServiceAccounts that it adopts: an agent of another name \
                 of this cluster, in the same namespace, may delete them. Apply the manifests of `fleetpass install \
                 cluster --side cluster` anew"
            );
        }
    }
}
