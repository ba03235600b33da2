//! What `fleetpass install` prints is applied to a real hub and a real cluster: again and again, without a conflict and
//! without a change.

use anyhow::{Context as _, Result, ensure};
use fleetpass_testkit::cluster::ADMIN_TOKEN;
use fleetpass_testkit::rig::{Kubectl, RealCluster, install, total};
use serde_json::Value;

const COMMANDS: [&[&str]; 3] = [
    &["hub", "--image", "registry.example/fleetpass:1"],
    &["cluster", "--cluster", "cluster1", "--side", "hub"],
    &["cluster", "--cluster", "cluster1", "--side", "cluster", "--image", "registry.example/fleetpass:1"],
];

#[tokio::test(flavor = "multi_thread")]
async fn applying_again_changes_nothing() -> Result<()> {
    let cluster = RealCluster::start().await?;
    let kubectl = Kubectl::new(cluster.endpoint(), ADMIN_TOKEN)?;
    let mut objects = 0;
    for command in COMMANDS {
        let manifest = install(command).await?;
        let apply = || kubectl.run_with(&["apply", "--server-side", "-f", "-"], &manifest);
        let said = apply().await?;
        let before = owners(&kubectl, &manifest).await?;
        ensure!(apply().await? == said, "{command:?}: the second run says something else");
        let after = owners(&kubectl, &manifest).await?;
        ensure!(before == after, "{command:?} changes what it made:\n{before:#?}\n{after:#?}");
        ensure!(said.lines().count() == before.len() && !before.is_empty(), "{command:?}: {said}");
        objects += before.len();
    }
    total("install", &format!("{objects} objects applied twice without a conflict or a change"))
}

/// Each object's identity, its generation, and when kubectl changed what it owns; not what controllers do meanwhile.
async fn owners(kubectl: &Kubectl, manifest: &str) -> Result<Vec<String>> {
    let shown =
        kubectl.run_with(&["get", "-f", "-", "--show-managed-fields", "-o", "json"], manifest).await?;
    let shown: Value = serde_json::from_str(&shown)?;
    let objects = shown["items"].as_array().context("no list")?;
    Ok(objects
        .iter()
        .map(|object| {
            let metadata = &object["metadata"];
            let fields = metadata["managedFields"].as_array().into_iter().flatten();
            // Of an object without fields nobody owns any.
            let ours = fields.filter(|entry| entry["manager"] == "kubectl").collect::<Vec<_>>();
            format!("{} {} {} {ours:?}", object["kind"], metadata["uid"], metadata["generation"])
        })
        .collect())
}
