//! The cluster's CA bundle, which goes into every Secret beside the token.

use crate::{
    calls::{CallError, CallErrorKind, Calls},
    side::Side,
};
use std::{path::PathBuf, time::Duration};
use tokio::{sync::Mutex, time::Instant};

/// Where the CA bundle (PEM) of the cluster comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CaSource {
    /// It is this, for as long as the agent runs: `certificate-authority-data` of a kubeconfig.
    Pem(Vec<u8>),
    /// It is in this file, which may be replaced: `certificate-authority` of a kubeconfig, or
    /// `/var/run/secrets/kubernetes.io/serviceaccount/ca.crt` in a pod.
    File(PathBuf),
    /// It is in the ConfigMap `kube-root-ca.crt` of the agent's namespace, kept there by kube-controller-manager.
    ConfigMap,
}

/// How long an answer is good: a replaced CA reaches the Secrets within this and the next look at each. Every reconcile
/// needs the bundle, and it hardly ever changes.
const KEEP: Duration = Duration::from_secs(60);

/// The bundle as it was read last.
pub(crate) struct CaBundle {
    source: CaSource,
    /// When it was read, and what it was. A tokio mutex, because it is held while the source is read, for one request's
    /// time limit at most: who asks meanwhile waits for that answer instead of asking too.
    known: Mutex<Option<(Instant, Vec<u8>)>>,
}

impl CaBundle {
    pub(crate) fn new(source: CaSource) -> Self {
        Self { source, known: Mutex::default() }
    }

    /// The bundle. Many reconciles that ask at once cause one read. A failure is not kept: the next who asks tries
    /// again.
    ///
    /// Cancel safety: a read that is dropped leaves what was known.
    pub(crate) async fn read(&self, calls: &Calls) -> Result<Vec<u8>, CallError> {
        if let CaSource::Pem(bundle) = &self.source {
            return Ok(bundle.clone());
        }
        let mut known = self.known.lock().await;
        if let Some((at, bundle)) = &*known
            && at.elapsed() < KEEP
        {
            return Ok(bundle.clone());
        }
        let bundle = match &self.source {
            CaSource::Pem(bundle) => bundle.clone(),
            CaSource::File(path) => {
                let read = tokio::fs::read(path).await.ok().filter(|bundle| !bundle.is_empty());
                read.ok_or(CallError {
                    side: Side::Cluster,
                    call: "read the CA file",
                    kind: CallErrorKind::Unusable("it cannot be read or is empty"),
                })?
            }
            CaSource::ConfigMap => calls.root_ca().await?,
        };
        *known = Some((Instant::now(), bundle.clone()));
        Ok(bundle)
    }
}
