//! Either half swaps: the upstream addon's agent on a Fleetpass hub, and our agent in its place and back, on a hub and
//! a cluster that know nothing of it.

use anyhow::{Context as _, Result, ensure};
use fleetpass_api::names;
use fleetpass_testkit::rig::{AgentProgram, ControlPlane, Fleet, HubOptions, RealClusterOptions, total};
use kube::ResourceExt as _;
use kube::api::DeleteParams;
use serde_json::json;
use tokio::sync::Mutex;

/// The upstream agent serves on a fixed port: one at a time.
static UPSTREAM: Mutex<()> = Mutex::const_new(());

#[tokio::test(flavor = "multi_thread")]
async fn agents_swap_on_a_fleetpass_hub() -> Result<()> {
    swap("swap, hub Fleetpass", ControlPlane::fleetpass(&HubOptions::default()).await?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_swap_on_a_kubernetes_hub() -> Result<()> {
    swap("swap, hub Kubernetes", ControlPlane::kubernetes(&RealClusterOptions::default()).await?).await
}

async fn swap(title: &str, hub: ControlPlane) -> Result<()> {
    let cluster = ControlPlane::kubernetes(&RealClusterOptions::default()).await?;
    let _alone = UPSTREAM.lock().await;
    let mut fleet = Fleet::start(AgentProgram::Upstream, hub, cluster).await?;
    works(&fleet, "by-upstream").await.context("the upstream agent")?;
    let adopted = adopts(&mut fleet, "upstream-made", AgentProgram::Fleetpass);
    adopted.await.context("our agent after the upstream one")?;
    works(&fleet, "by-us").await.context("our agent")?;
    let adopted = adopts(&mut fleet, "we-made", AgentProgram::Upstream);
    adopted.await.context("the upstream agent after ours")?;
    fleet.agent.stop().await?;
    total(title, "upstream's 3 accounts adopted by us, our 3 by upstream; no token or object made anew")
}

/// An account is served, its Secret comes back, and it goes without a trace.
async fn works(fleet: &Fleet, name: &str) -> Result<()> {
    fleet.create(name, &json!({"rotation": {}})).await?;
    let first = fleet.served(name, None).await?;
    fleet.secrets().delete(name, &DeleteParams::default()).await?;
    let second = fleet.served(name, Some(&first)).await?;
    fleet.accounts().delete(name, &DeleteParams::default()).await?;
    fleet.gone(name).await?;
    fleet.refused(&second).await
}

/// Accounts that one agent made are kept by the next as they are, or taken away if that was asked for meanwhile.
async fn adopts(fleet: &mut Fleet, name: &str, next: AgentProgram) -> Result<()> {
    let (kept, short, dropped) = (format!("{name}-kept"), format!("{name}-short"), format!("{name}-dropped"));
    fleet.create(&kept, &json!({"rotation": {}})).await?;
    fleet.create(&short, &json!({"rotation": {"validity": "720h"}})).await?;
    fleet.create(&dropped, &json!({"rotation": {}})).await?;
    for name in [&kept, &short, &dropped] {
        fleet.served(name, None).await?;
    }
    fleet.agent.stop().await?;
    // Only now: the upstream agent mints again what its cache does not show yet.
    let before = (fleet.served(&kept, None).await?, fleet.served(&short, None).await?);
    let made = fleet.service_accounts().get(&kept).await?;
    fleet.accounts().delete(&dropped, &DeleteParams::default()).await?;
    fleet.start_agent(next)?;
    // Once these are done, it has looked at everything.
    fleet.gone(&dropped).await?;
    works(fleet, &format!("{name}-next")).await?;

    fleet.unchanged(&kept, &before.0).await?;
    fleet.unchanged(&short, &before.1).await?;
    let now = fleet.service_accounts().get(&kept).await?;
    // Ours marks what it adopts; upstream's knows no marks.
    let marked = now.annotations().contains_key(names::ANNOTATION_CLUSTER_NAME);
    ensure!(now.uid() == made.uid() && marked, "the ServiceAccount was made anew, or not adopted");
    let changed = now.resource_version() != made.resource_version();
    ensure!(changed == (next == AgentProgram::Fleetpass), "changed: {changed}, by {next:?}");
    Ok(())
}
