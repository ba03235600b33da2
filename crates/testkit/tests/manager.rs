//! The hub-side controllers as `fleetpass manager` runs them: with their printed rights and no others, on a server that
//! does nothing by itself.

use anyhow::{Context as _, Result, ensure};
use fleetpass_api::clock::{self, Clock, SharedClock};
use fleetpass_api::features::FeatureGates;
use fleetpass_api::{ManagedServiceAccount, names};
use fleetpass_apimachinery::user::UserInfo;
use fleetpass_controllers::Identity;
use fleetpass_controllers::leader::{self, Election, Standing, Timing};
use fleetpass_hub::join;
use fleetpass_hub::manager::Manager;
use fleetpass_hub::manifests::{DEFAULT_MANAGER_NAMESPACE, MANAGER, Manager as Manifests};
use fleetpass_testkit::cluster::Cluster;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const FEATURES: FeatureGates = FeatureGates { ephemeral_identity: true };
/// A bound on waiting, not a promise.
const SOON: Duration = Duration::from_secs(60);

/// The machine's clock, moved.
struct Moved(AtomicI64);

impl Clock for Moved {
    fn now(&self) -> Timestamp {
        clock::system().now() + SignedDuration::from_secs(self.0.load(Ordering::Relaxed))
    }
}

/// A server without controllers, where the manager's manifests were applied.
async fn hub() -> Result<Cluster> {
    let hub = Cluster::bare(clock::system()).await?;
    let manifests = Manifests { namespace: DEFAULT_MANAGER_NAMESPACE, image: None, features: FEATURES };
    join::ensure(&hub.admin(), &manifests.manifests()).await?;
    join::join(&hub.admin(), "cluster1").await?;
    Ok(hub)
}

/// The manager's ServiceAccount.
fn account(hub: &Cluster) -> Client {
    let groups = ["system:serviceaccounts", "system:serviceaccounts:fleetpass", "system:authenticated"];
    hub.client(UserInfo {
        name: names::service_account_user(DEFAULT_MANAGER_NAMESPACE, MANAGER),
        groups: groups.map(String::from).into(),
        ..UserInfo::default()
    })
}

/// A manager in this process.
struct Running {
    manager: Arc<Manager>,
    standing: watch::Receiver<Standing>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    fn start(hub: &Cluster, candidate: &str, timing: Timing, clock: SharedClock) -> Self {
        let manager = Arc::new(Manager::new(MANAGER, clock.clone(), FEATURES));
        let identity = Identity {
            namespace: DEFAULT_MANAGER_NAMESPACE.into(),
            lease: MANAGER.into(),
            candidate: candidate.into(),
        };
        let election = Election { identity, timing, field_manager: MANAGER.into() };
        let (sender, standing) = watch::channel(Standing::Unknown);
        let stop = CancellationToken::new();
        let (client, works, ends) = (account(hub), manager.clone(), stop.clone());
        let task = tokio::spawn(async move {
            let term = |ends| works.term(client.clone(), ends);
            leader::run(client.clone(), clock, election, sender, ends, term).await;
        });
        Self { manager, standing, stop, task }
    }

    async fn stands(&mut self, at: Standing) -> Result<()> {
        let standing = tokio::time::timeout(SOON, self.standing.wait_for(|standing| *standing == at)).await;
        standing.with_context(|| format!("{at:?} not in time"))??;
        Ok(())
    }

    fn leads(&self) -> bool {
        self.manager.metrics().contains("leader_election_master_status{name=\"fleetpass-manager\"} 1\n")
    }

    /// Stops it as SIGTERM does.
    async fn stop(self) -> Result<()> {
        self.stop.cancel();
        Ok(self.task.await?)
    }
}

async fn lease(hub: &Cluster) -> Result<Lease> {
    Ok(Api::namespaced(hub.admin(), DEFAULT_MANAGER_NAMESPACE).get(MANAGER).await?)
}

#[tokio::test]
async fn one_works_and_the_next_takes_over() -> Result<()> {
    let hub = hub().await?;
    // Nobody asks for the Lease a second time within this test, and it does not run out.
    let hours = |hours: u64| Duration::from_secs(3600 * hours);
    let patient = Timing::new(hours(3), hours(2), hours(1))?;
    let quick = Timing::new(Duration::from_secs(1), Duration::from_millis(800), Duration::from_millis(200))?;
    let mut first = Running::start(&hub, "first", patient, clock::system());
    first.stands(Standing::Leading).await?;
    let holder = lease(&hub).await?;
    ensure!(holder.spec.and_then(|spec| spec.holder_identity).as_deref() == Some("first"));
    let managers: Vec<_> = holder.metadata.managed_fields.into_iter().flatten().map(|m| m.manager).collect();
    ensure!(managers == [Some(MANAGER.to_owned())], "{managers:?}");

    let mut second = Running::start(&hub, "second", patient, clock::system());
    second.stands(Standing::Waiting).await?;
    ensure!(first.leads() && !second.leads());
    ensure!(!second.manager.metrics().contains("fleetpass_hub_accounts "), "who waits has nothing to say");
    first.stop().await?;
    second.stands(Standing::Leading).await?;
    second.stop().await?;
    ensure!(lease(&hub).await?.spec.and_then(|spec| spec.holder_identity).unwrap_or_default().is_empty());

    // One that dies gives nothing up: the next waits until the Lease has run out.
    let mut third = Running::start(&hub, "third", quick, clock::system());
    third.stands(Standing::Leading).await?;
    let mut fourth = Running::start(&hub, "fourth", quick, clock::system());
    fourth.stands(Standing::Waiting).await?;
    third.task.abort();
    ensure!(third.task.await.is_err_and(|error| error.is_cancelled()));
    fourth.stands(Standing::Leading).await?;
    ensure!(lease(&hub).await?.spec.and_then(|spec| spec.holder_identity).as_deref() == Some("fourth"));
    fourth.stop().await
}

fn projected(name: &str, account: &str, uid: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {
            "name": name, "namespace": "cluster1",
            "labels": {names::LABEL_IS_MANAGED: names::LABEL_IS_MANAGED_VALUE},
            "ownerReferences": [{
                "apiVersion": format!("{}/{}", names::GROUP, names::V1BETA1), "kind": names::KIND,
                "name": account, "uid": uid,
            }],
        },
    })
}

#[tokio::test]
async fn accounts_end_orphans_go_and_the_fleet_is_counted() -> Result<()> {
    let hub = hub().await?;
    let admin = hub.admin();
    let accounts: Api<ManagedServiceAccount> = Api::namespaced(admin.clone(), "cluster1");
    let secrets: Api<Secret> = Api::namespaced(admin.clone(), "cluster1");
    let create = async |name: &str, seconds: Option<i32>| {
        let mut account = ManagedServiceAccount::new("cluster1", name);
        account.spec.ttl_seconds_after_creation = seconds;
        accounts.create(&PostParams::default(), &account).await
    };
    let lasting = create("lasting", None).await?;
    create("pending", None).await?;
    create("passing", Some(100)).await?;
    create("later", Some(100_000)).await?;
    let status = json!({"status": {
        "expirationTimestamp": "2999-01-01T00:00:00Z",
        "conditions": [{
            "type": names::CONDITION_TOKEN_REPORTED, "status": "True", "message": "",
            "reason": names::REASON_TOKEN_REPORTED, "lastTransitionTime": "2026-01-01T00:00:00Z",
        }],
    }});
    accounts.patch_status("lasting", &PatchParams::default(), &Patch::Merge(status)).await?;
    let uid = lasting.uid().context("a UID")?;
    let mut foreign = projected("foreign", "nobody", "gone");
    foreign["metadata"]["labels"] = json!({});
    let of = [projected("lasting", "lasting", &uid), projected("recreated", "lasting", "former"), foreign];
    join::ensure(&admin, &of).await?;
    join::ensure(&admin, &[projected("orphan", "nobody", "gone")]).await?;

    let clock = Arc::new(Moved(AtomicI64::new(0)));
    let mut manager = Running::start(&hub, "only", Timing::default(), clock.clone());
    manager.stands(Standing::Leading).await?;
    let says = async |lines: &[&str]| {
        let said = Cluster::eventually("the metrics say so", async || {
            let text = manager.manager.metrics();
            lines.iter().all(|line| text.contains(&format!("{line}\n")))
        });
        said.await.with_context(|| manager.manager.metrics())
    };
    says(&[
        "fleetpass_hub_accounts 4",
        "fleetpass_hub_clusters 1",
        "fleetpass_hub_tokens{state=\"valid\"} 1",
        "fleetpass_hub_tokens{state=\"missing\"} 3",
        "fleetpass_hub_next_token_expiry_timestamp_seconds 32472144000",
        "fleetpass_hub_expired_accounts_deleted_total 0",
        "fleetpass_hub_orphaned_secrets_deleted_total 2",
    ])
    .await?;
    let mut left: Vec<_> =
        secrets.list_metadata(&Default::default()).await?.iter().map(|s| s.name_any()).collect();
    left.sort();
    ensure!(left == ["foreign", "lasting"], "{left:?}");

    clock.0.store(1_000, Ordering::Relaxed);
    // A controller looks again when something happens to the account; its timer goes by the time of the machine.
    let touch = Patch::Merge(json!({"metadata": {"annotations": {"touched": "yes"}}}));
    for name in ["passing", "later"] {
        accounts.patch_metadata(name, &PatchParams::default(), &touch).await?;
    }
    says(&["fleetpass_hub_accounts 3", "fleetpass_hub_expired_accounts_deleted_total 1"]).await?;
    ensure!(accounts.get_opt("passing").await?.is_none() && accounts.get_opt("later").await?.is_some());
    manager.stop().await
}
