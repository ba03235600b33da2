//! `--lease-health-check`: a Lease in the agent's namespace that says that the agent is alive, as the upstream
//! addon's agent keeps one (open-cluster-management-io/addon-framework, `pkg/lease/lease_controller.go`).

use crate::{claim::Claim, health::Health, side::cause::brief};
use fleetpass_api::{clock::SharedClock, names};
use fleetpass_workqueue::Backoff;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use std::{sync::Arc, time::Duration};

/// How long others take the agent for alive after a renewal; also the time between renewals, as upstream.
const LEASE_SECONDS: i32 = 60;
/// Times to the next attempt after ones that failed.
const RETRY: Backoff = Backoff::new(Duration::from_secs(5), Duration::from_secs(LEASE_SECONDS as u64));

/// Renews the Lease while the agent is ready, until dropped. Dropping it at any point is safe: a renewal is one write,
/// and a Lease that is not renewed says what it should.
pub(crate) async fn keep(
    client: Client,
    namespace: String,
    clock: SharedClock,
    health: Arc<Health>,
    claim: Arc<Claim>,
) {
    let leases = Api::<Lease>::namespaced(client, &namespace);
    let mut failures = 0;
    let mut told = None;
    loop {
        // One that is not ready lets its Lease run out: the hub shall see that it does not do its work.
        let wait = if !health.is_ready() || claim.is_in_use() {
            RETRY.first
        } else {
            match renew(&leases, &clock).await {
                Ok(()) => {
                    (failures, told) = (0, None);
                    Duration::from_secs(LEASE_SECONDS as u64)
                }
                Err(error) => {
                    tell(&error, &mut told);
                    failures += 1;
                    RETRY.delay(failures - 1)
                }
            }
        };
        tokio::time::sleep(wait).await;
    }
}

/// Says it once, until it is another error. What is about the side is said of the side.
fn tell(error: &kube::Error, told: &mut Option<u16>) {
    let kube::Error::Api(status) = error else {
        return tracing::debug!(%error, "the Lease could not be renewed");
    };
    if told.replace(status.code) != Some(status.code) {
        let why = brief(&status.message);
        tracing::warn!(
            code = status.code,
            why,
            "the Lease {} could not be renewed; trying again",
            names::ADDON_NAME
        );
    }
}

async fn renew(leases: &Api<Lease>, clock: &SharedClock) -> Result<(), kube::Error> {
    let spec = LeaseSpec {
        lease_duration_seconds: Some(LEASE_SECONDS),
        renew_time: Some(MicroTime(clock.now())),
        ..LeaseSpec::default()
    };
    // Without a precondition: nobody else writes this Lease, it elects no one.
    let patch = Patch::Merge(serde_json::json!({"spec": spec}));
    match leases.patch(names::ADDON_NAME, &PatchParams::default(), &patch).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => {
            let metadata = ObjectMeta { name: Some(names::ADDON_NAME.to_owned()), ..ObjectMeta::default() };
            leases.create(&PostParams::default(), &Lease { metadata, spec: Some(spec) }).await
        }
        result => result,
    }
    .map(drop)
}
