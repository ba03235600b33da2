//! The recorded answers of a real kube-apiserver, replayed against a server of ours.

use fleetpass_testkit::cluster::{ADMIN_TOKEN, Cluster};
use fleetpass_testkit::oracle::{Scenario, Target};
use futures::StreamExt;
use std::collections::BTreeSet;
use std::path::Path;

/// How many scenarios are replayed at once; each waits a lot for watches to end.
const AT_ONCE: usize = 8;

#[tokio::test(flavor = "multi_thread")]
async fn recorded_conversations_go_as_with_kube_apiserver() -> anyhow::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../conformance");
    let mut scenarios = Scenario::read_all(&folder.join("scenarios"))?;
    if let Ok(only) = std::env::var("SCENARIOS") {
        scenarios.retain(|scenario| only.split(',').any(|name| scenario.name.contains(name)));
    }
    let cluster = Cluster::start().await?;
    let target = Target::new(cluster.address, &cluster.ca_pem, ADMIN_TOKEN)?;
    let outcomes: Vec<_> = futures::stream::iter(&scenarios)
        .map(|scenario| scenario.replay(&target))
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let listed: BTreeSet<String> = std::fs::read_to_string(folder.join("exceptions.txt"))?
        .lines()
        .map(|line| line.split_whitespace().next().unwrap_or_default())
        .filter(|id| !id.is_empty() && !id.starts_with("//"))
        .map(String::from)
        .collect();
    let (mut passed, mut wrong) = (0, Vec::new());
    for outcome in outcomes.iter().flatten() {
        match (outcome.differences.is_empty(), listed.contains(&outcome.id)) {
            (true, false) => passed += 1,
            (false, true) => {}
            (true, true) => {
                wrong.push(format!("{} passes now: take it off the list of exceptions", outcome.id))
            }
            (false, false) => {
                wrong.push(format!(
                    "{} {}\n    {}",
                    outcome.id,
                    outcome.label,
                    outcome.differences.join("\n    ")
                ));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{passed} steps as recorded, {} listed exceptions, {} wrong:\n{}",
        listed.len(),
        wrong.len(),
        wrong.join("\n")
    );
    assert!(passed > 0, "no scenario was replayed");
    Ok(())
}
