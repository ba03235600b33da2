//! The recorded answers of a real kube-apiserver, replayed against a server of ours.

use fleetpass_testkit::cluster::{ADMIN_TOKEN, Cluster};
use fleetpass_testkit::oracle::{Exceptions, Scenario, Target, replay_all};
use std::path::Path;

#[tokio::test(flavor = "multi_thread")]
async fn recorded_conversations_go_as_with_kube_apiserver() -> anyhow::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../conformance");
    let mut scenarios = Scenario::read_all(&folder.join("scenarios"))?;
    if let Ok(only) = std::env::var("SCENARIOS") {
        scenarios.retain(|scenario| only.split(',').any(|name| scenario.name.contains(name)));
    }
    let cluster = Cluster::start().await?;
    let target = Target::new(cluster.address, &cluster.ca_pem, ADMIN_TOKEN)?;
    let exceptions = Exceptions::read(&folder.join("exceptions.txt"))?;
    replay_all(&scenarios, &target, &exceptions).await.require_right()
}
