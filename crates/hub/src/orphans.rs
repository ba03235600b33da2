//! Secrets whose ManagedServiceAccount is gone.
//!
//! The hub's garbage collector removes them by their ownerReference, and the cluster's agent does so too. This is
//! for the rest: a hub without a garbage collector and a cluster that never came back.

use crate::{Scope, control::control};
use fleetpass_api::{ManagedServiceAccount, names};
use fleetpass_workqueue::Next;
use k8s_openapi::{api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::OwnerReference};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, Preconditions},
    core::{ObjectMeta, PartialObjectMeta},
    runtime::{reflector::ObjectRef, watcher},
};
use prometheus_client::metrics::counter::Counter;
use std::{sync::Arc, time::Duration};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Time between two looks at a Secret to which nothing happens: nothing tells when its account goes, because accounts
/// are not watched here.
const INTERVAL: Duration = Duration::from_secs(300);
/// Time to the next attempt after one that failed.
const RETRY: Duration = Duration::from_secs(5);

type SecretMeta = PartialObjectMeta<Secret>;

/// The ManagedServiceAccount that owns an object, if one does. Any version of the kind counts, because references are
/// not rewritten when the hub begins to serve another.
fn owner(metadata: &ObjectMeta) -> Option<&OwnerReference> {
    metadata.owner_references.as_deref()?.iter().find(|owner| {
        let group = owner.api_version.split_once('/').map(|(group, _)| group);
        owner.kind == names::KIND && group == Some(names::GROUP)
    })
}

struct Context {
    client: Client,
    deleted: Counter,
}

/// Deletes our Secrets whose account is gone, until shut down; counts them in `deleted`. Reads metadata only.
pub(crate) async fn run(client: Client, scope: Scope, deleted: Counter, shutdown: CancellationToken) {
    let labels = format!("{}={}", names::LABEL_IS_MANAGED, names::LABEL_IS_MANAGED_VALUE);
    let api: Api<SecretMeta> = scope.api(client.clone());
    let failed = |secret: &ObjectRef<_>, error: &kube::Error| {
        tracing::warn!(secret = secret.name, %error, "could not tell whether a Secret is an orphan");
    };
    let select = watcher::Config::default().labels(&labels);
    let context = Arc::new(Context { client, deleted });
    let reconcile = |secret| reconcile(secret, context.clone());
    control(api, select, RETRY, reconcile, failed, &Notify::new(), shutdown).await;
}

async fn reconcile(secret: Arc<SecretMeta>, context: Arc<Context>) -> Result<Next, kube::Error> {
    // One without an owner may be a copy or a backup: it is not known to be an orphan.
    let metadata = &secret.metadata;
    let Some(owner) = owner(metadata).filter(|_| metadata.deletion_timestamp.is_none()) else {
        return Ok(Next::Wait);
    };
    let (namespace, name) = (secret.namespace().unwrap_or_default(), secret.name_any());
    if owner_lives(&context.client, &namespace, owner).await? {
        return Ok(Next::After(INTERVAL));
    }
    let api = Api::<SecretMeta>::namespaced(context.client.clone(), &namespace);
    // The version too: the agent writes a new owner into the Secret when an account is created anew under its name, and
    // that Secret, of the same UID, has to stay.
    let same =
        Preconditions { uid: metadata.uid.clone(), resource_version: metadata.resource_version.clone() };
    match api.delete(&name, &DeleteParams::default().preconditions(same)).await {
        Ok(_) => {
            context.deleted.inc();
            tracing::info!(namespace, name, "deleted a Secret whose account is gone");
        }
        // Gone or changed, perhaps taken over by a new account: its own event is on the way.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
        Err(error) => return Err(error),
    }
    Ok(Next::After(INTERVAL))
}

/// Whether the very account that owns the Secret exists. A 404 that is not about the account itself, such as that of
/// a hub whose CRD is missing, is an error and no answer.
async fn owner_lives(client: &Client, namespace: &str, owner: &OwnerReference) -> Result<bool, kube::Error> {
    let api = Api::<PartialObjectMeta<ManagedServiceAccount>>::namespaced(client.clone(), namespace);
    match api.get(&owner.name).await {
        Ok(account) => Ok(account.metadata.uid.as_deref() == Some(owner.uid.as_str())),
        Err(kube::Error::Api(status))
            if status.code == 404
                && status.details.as_ref().is_some_and(|details| details.name == owner.name) =>
        {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_account_counts_as_owner() {
        let reference = |api_version: &str, kind: &str| OwnerReference {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            ..OwnerReference::default()
        };
        let table = [
            ("authentication.open-cluster-management.io/v1beta1", "ManagedServiceAccount", true),
            ("authentication.open-cluster-management.io/v1alpha1", "ManagedServiceAccount", true),
            ("example.com/v1beta1", "ManagedServiceAccount", false),
            ("v1", "ManagedServiceAccount", false),
            ("authentication.open-cluster-management.io/v1beta1", "Other", false),
        ];
        for (api_version, kind, owns) in table {
            let owner_references = Some(vec![reference(api_version, kind)]);
            let metadata = ObjectMeta { owner_references, ..ObjectMeta::default() };
            assert_eq!(owner(&metadata).is_some(), owns, "{api_version} {kind}");
        }
    }
}
