//! The Secret that a pod's files come from. They cannot be written; the kubelet writes them when the Secret has changed.

use super::SecretRef;
use super::place::Place;
use crate::pki::Identity;
use anyhow::Context as _;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use std::path::Path;
use zeroize::Zeroizing;

/// How often a write is tried that met somebody else's.
const WRITES: usize = 3;

impl SecretRef {
    fn api(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    fn called(&self) -> String {
        format!("the Secret {}/{} of the cluster", self.namespace, self.name)
    }

    /// Whether it has a later certificate than `old` already, which the file will have soon; if not, whether we may write it.
    pub(super) async fn prepare(&self, place: &Place, old: &Identity) -> anyhow::Result<bool> {
        let secret =
            self.api().get(&self.name).await.with_context(|| format!("{} cannot be read", self.called()))?;
        let there = place.read(&|path| content(&secret, path));
        let there = there.with_context(|| format!("{} is not what the files are", self.called()))?;
        if there.validity().not_after > old.validity().not_after {
            return Ok(true);
        }
        self.patch(&json!({"data": {}}), true).await?;
        Ok(false)
    }

    /// Writes certificate and key into it.
    pub(super) async fn write(&self, place: &Place, new: &Identity) -> anyhow::Result<()> {
        let mut last = Ok(());
        for _ in 0..WRITES {
            let secret = self
                .api()
                .get(&self.name)
                .await
                .with_context(|| format!("{} cannot be read", self.called()))?;
            let contents = place.contents(&|path| content(&secret, path), new)?;
            let data: serde_json::Map<String, Value> = contents
                .iter()
                .map(|(path, content)| (key(path), json!(ByteString(content.to_vec()))))
                .collect();
            // All keys at once, and only onto what was read: the kubeconfig in it may have been changed meanwhile.
            let version = json!({"resourceVersion": secret.metadata.resource_version});
            match self.patch(&json!({"metadata": version, "data": data}), false).await {
                Err(error) if is_conflict(&error) => last = Err(error),
                result => return result,
            }
        }
        last
    }

    async fn patch(&self, patch: &Value, dry_run: bool) -> anyhow::Result<()> {
        let params = PatchParams { dry_run, ..PatchParams::default() };
        let patched = self.api().patch_metadata(&self.name, &params, &Patch::Merge(patch)).await;
        patched.map(drop).with_context(|| format!("{} cannot be written", self.called()))
    }
}

fn is_conflict(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(kube::Error::Api(status)) if status.is_conflict())
}

/// The key of a Secret that is this file on a volume.
fn key(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn content(secret: &Secret, path: &Path) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    let key = key(path);
    let content = secret.data.as_ref().and_then(|data| data.get(&key));
    let content = content.with_context(|| format!("it has no key {key}"))?;
    Ok(Zeroizing::new(content.0.clone()))
}
