//! What goes wrong between a hub, a cluster and an agent, as far as real Kubernetes shows it: what the agent does, what it says,
//! and that it goes on by itself.

use anyhow::{Context as _, Result, ensure};
use fleetpass_api::names;
use fleetpass_testkit::rig::{
    AgentProgram, CLUSTER, ControlPlane, Fleet, HubOptions, RealClusterOptions, SOON, eventually, total,
};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::api::{DeleteParams, ListParams, ObjectMeta, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;

async fn real() -> Result<ControlPlane> {
    ControlPlane::kubernetes(&RealClusterOptions::default()).await
}

async fn ours() -> Result<ControlPlane> {
    ControlPlane::fleetpass(&HubOptions::default()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn kubernetes_hub_and_kubernetes_cluster() -> Result<()> {
    walk("troubles, hub Kubernetes, cluster Kubernetes", real().await?, real().await?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn fleetpass_hub_and_kubernetes_cluster() -> Result<()> {
    walk("troubles, hub Fleetpass, cluster Kubernetes", ours().await?, real().await?).await
}

async fn walk(title: &str, hub: ControlPlane, cluster: ControlPlane) -> Result<()> {
    let mut fleet = Fleet::start(AgentProgram::Fleetpass, hub, cluster).await?;
    the_hub_takes_the_agents_rights_away(&fleet).await.context("rights on the hub")?;
    the_agent_trusts_the_wrong_authority(&mut fleet).await.context("wrong authority")?;
    a_service_account_of_another_agent_is_left_alone(&fleet).await.context("another agent's")?;
    the_namespace_is_deleted_on_the_hub(&fleet).await.context("namespace on the hub")?;
    total(title, "4 cases")
}

/// A refusal is no deletion: what there is stays, and the agent goes on when it is let in again.
async fn the_hub_takes_the_agents_rights_away(fleet: &Fleet) -> Result<()> {
    fleet.create("kept", &json!({"rotation": {}})).await?;
    let kept = fleet.served("kept", None).await?;
    let bindings: Api<RoleBinding> = Api::namespaced(fleet.hub.endpoint().admin().await?, CLUSTER);
    let taken = bindings.list(&ListParams::default()).await?.items;
    ensure!(!taken.is_empty(), "the agent has no rights on the hub");
    for binding in &taken {
        bindings.delete(&binding.name_any(), &DeleteParams::default()).await?;
    }
    fleet.create("asked-meanwhile", &json!({"rotation": {}})).await?;
    eventually("the agent says that the hub refuses it", SOON, async || {
        fleet.agent.last_lines().contains("refuses the agent").then_some(())
    })
    .await
    .with_context(|| fleet.agent.last_lines())?;
    ensure!(fleet.service_accounts().get_opt("kept").await?.is_some(), "its ServiceAccount was deleted");
    for binding in taken {
        let metadata = ObjectMeta { name: binding.metadata.name.clone(), ..ObjectMeta::default() };
        bindings.create(&PostParams::default(), &RoleBinding { metadata, ..binding }).await?;
    }
    fleet.served("asked-meanwhile", None).await?;
    fleet.unchanged("kept", &kept).await
}

/// The account says what is wrong with the certificate, and not that nobody answers.
async fn the_agent_trusts_the_wrong_authority(fleet: &mut Fleet) -> Result<()> {
    fleet.create("distrusted", &json!({"rotation": {}})).await?;
    let before = fleet.served("distrusted", None).await?;
    fleet.agent.stop().await?;
    let wrong = fleet.hub.endpoint().ca_pem.clone();
    fleet.start_agent_that_trusts(&wrong)?;
    fleet.create("asked-with-distrust", &json!({"rotation": {}})).await?;
    fleet.not_served("asked-with-distrust", names::REASON_CLUSTER_UNREACHABLE).await?;
    let (_, _, message) = fleet.says("asked-with-distrust").await?;
    ensure!(message.contains("certificate"), "it says: {message}");
    fleet.agent.stop().await?;
    fleet.start_agent(AgentProgram::Fleetpass)?;
    fleet.served("asked-with-distrust", None).await?;
    fleet.unchanged("distrusted", &before).await
}

/// What carries the mark of another agent is neither minted for nor deleted, with an account and without.
async fn a_service_account_of_another_agent_is_left_alone(fleet: &Fleet) -> Result<()> {
    let theirs = serde_json::from_value(json!({"metadata": {
        "name": "theirs",
        "labels": {names::LABEL_IS_MANAGED: names::LABEL_IS_MANAGED_VALUE},
        "annotations": {names::ANNOTATION_CLUSTER_NAME: "another-cluster"},
    }}))?;
    let theirs = fleet.service_accounts().create(&PostParams::default(), &theirs).await?;
    fleet.create("theirs", &json!({"rotation": {}})).await?;
    fleet.not_served("theirs", names::REASON_NAME_CONFLICT).await?;
    let (_, _, message) = fleet.says("theirs").await?;
    ensure!(message.contains("another-cluster"), "it says: {message}");
    fleet.accounts().delete("theirs", &DeleteParams::default()).await?;
    // Behind it in the queue: when this one is served, that one was looked at.
    fleet.create("after-theirs", &json!({"rotation": {}})).await?;
    fleet.served("after-theirs", None).await?;
    let now = fleet.service_accounts().get("theirs").await?;
    ensure!(now.resource_version() == theirs.resource_version(), "their ServiceAccount was changed");
    Ok(())
}

/// With the namespace the agent's rights go, and its own account; it clears the cluster all the same.
async fn the_namespace_is_deleted_on_the_hub(fleet: &Fleet) -> Result<()> {
    fleet.create("leaving", &json!({"rotation": {}})).await?;
    let leaving = fleet.served("leaving", None).await?;
    let namespaces: Api<Namespace> = Api::all(fleet.hub.endpoint().admin().await?);
    namespaces.delete(CLUSTER, &DeleteParams::default()).await?;
    eventually("the ServiceAccounts of the cluster are gone", SOON, async || {
        let left = fleet.service_accounts().list(&ListParams::default()).await.ok()?.items;
        let is_ours = |name: String| !["default", names::ADDON_NAME, "theirs"].contains(&name.as_str());
        (!left.iter().any(|account| is_ours(account.name_any()))).then_some(())
    })
    .await
    .with_context(|| fleet.agent.last_lines())?;
    fleet.refused(&leaving).await
}
