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

async fn replay(target: Target, exceptions: &Exceptions) -> Result<Verdict> {
    let scenarios = Scenario::read_all(&conformance().join("scenarios"))?;
    Ok(replay_all(&scenarios, &target, exceptions).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn kube_apiserver_answers_as_recorded() -> Result<()> {
    let plane = ControlPlane::kubernetes(&RealClusterOptions::default()).await?;
    let verdict = replay(target(&plane)?.built_here(), &Exceptions::default()).await?;
    verdict.require_right()?;
    total("recordings, kube-apiserver", &format!("{} steps as recorded", verdict.passed))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleetpass_hub_answers_as_recorded() -> Result<()> {
    let plane = ControlPlane::fleetpass(&HubOptions::default()).await?;
    let exceptions = Exceptions::read(&conformance().join("exceptions.txt"))?;
    let verdict = replay(target(&plane)?, &exceptions).await?;
    verdict.require_right()?;
    let excepted = verdict.excepted.iter().map(|step| format!("; not as recorded: {step}"));
    let seen = format!("{} steps as recorded{}", verdict.passed, excepted.collect::<String>());
    total("recordings, fleetpass hub", &seen)
}
