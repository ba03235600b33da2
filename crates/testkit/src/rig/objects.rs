//! Small helpers for the objects that suites work with.

use anyhow::{Result, bail};
use fleetpass_api::account::CRD_JSON;
use fleetpass_api::names;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DynamicObject, ListParams, PostParams};
use kube::core::GroupVersionKind;
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, Client, ResourceExt as _};
use std::time::Duration;

/// The objects of a kind in a namespace. `api_version` is `v1` or `group/version`.
pub fn objects(client: &Client, api_version: &str, kind: &str, namespace: &str) -> Api<DynamicObject> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    Api::namespaced_with(client.clone(), namespace, &resource)
}

/// Teaches a cluster the ManagedServiceAccount, and waits until it is served.
pub(super) async fn install_accounts(client: &Client) -> Result<()> {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let definition: CustomResourceDefinition = serde_json::from_str(CRD_JSON)?;
    let name = definition.name_any();
    definitions.create(&PostParams::default(), &definition).await?;
    tokio::time::timeout(
        Duration::from_secs(30),
        await_condition(definitions, &name, conditions::is_crd_established()),
    )
    .await??;
    // Established is said before every path is there.
    let accounts = objects(client, &format!("{}/{}", names::GROUP, names::V1BETA1), names::KIND, "default");
    eventually("ManagedServiceAccounts are served", Duration::from_secs(30), async || {
        accounts.list(&ListParams::default()).await.ok()
    })
    .await?;
    Ok(())
}

/// Asks until there is an answer, and gives it.
///
/// # Errors
///
/// None within `limit`.
pub async fn eventually<T>(
    what: &str,
    limit: Duration,
    mut ask: impl AsyncFnMut() -> Option<T>,
) -> Result<T> {
    let deadline = tokio::time::Instant::now() + limit;
    loop {
        if let Some(answer) = ask().await {
            return Ok(answer);
        }
        if tokio::time::Instant::now() > deadline {
            bail!("not within {limit:?}: {what}");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
