//! Recordings stay true: they are replayed against the real kube-apiserver, which shows that the replayer is right,
//! and against `fleetpass hub`.

use anyhow::Result;
use fleetpass_testkit::cluster::ADMIN_TOKEN;
use fleetpass_testkit::oracle::{Exceptions, Scenario, Target, Verdict, replay_all};
use fleetpass_testkit::rig::{ControlPlane, HubOptions, RealClusterOptions, total};
use std::path::{Path, PathBuf};

fn conformance() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../conformance")
}

fn target(plane: &ControlPlane) -> Result<Target> {
    let endpoint = plane.endpoint();
    Target::new(endpoint.address(), &endpoint.ca_pem, ADMIN_TOKEN)
}

fn scenarios() -> Result<Vec<Scenario>> {
    Scenario::read_all(&conformance().join("scenarios"))
}

#[tokio::test(flavor = "multi_thread")]
async fn kube_apiserver_answers_as_recorded() -> Result<()> {
    let plane = ControlPlane::kubernetes(&RealClusterOptions::default()).await?;
    let target = target(&plane)?.built_here();
    let mut left = scenarios()?;
    let all: usize = left.iter().map(|scenario| scenario.steps.len()).sum();
    // Its controllers have a pace of their own: where they were late, the conversation is held again, by itself.
    let mut verdict = Verdict::default();
    for _ in 0..3 {
        verdict = replay_all(&left, &target, &Exceptions::default()).await;
        left.retain(|scenario| {
            let step = format!("{}#", scenario.name);
            verdict.wrong.iter().any(|wrong| wrong.starts_with(&step))
        });
        if left.is_empty() {
            break;
        }
    }
    verdict.require_right()?;
    total("recordings, kube-apiserver", &format!("{all} steps as recorded"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleetpass_hub_answers_as_recorded() -> Result<()> {
    let plane = ControlPlane::fleetpass(&HubOptions::default()).await?;
    let exceptions = Exceptions::read(&conformance().join("exceptions.txt"))?;
    let verdict = replay_all(&scenarios()?, &target(&plane)?, &exceptions).await;
    verdict.require_right()?;
    let excepted = verdict.excepted.iter().map(|step| format!("; not as recorded: {step}"));
    let seen = format!("{} steps as recorded{}", verdict.passed, excepted.collect::<String>());
    total("recordings, fleetpass hub", &seen)
}
