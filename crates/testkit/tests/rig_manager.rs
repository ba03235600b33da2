//! `fleetpass manager` works on a real Kubernetes with the rights that `fleetpass install` prints and no others.

use anyhow::{Context as _, Result, ensure};
use fleetpass_api::ManagedServiceAccount;
use fleetpass_testkit::cluster::ADMIN_TOKEN;
use fleetpass_testkit::rig::{
    Kubectl, Process, RealCluster, SOON, Signal, eventually, install, program, total,
};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::PostParams;
use kube::{Api, Client};
use std::path::PathBuf;
use tempfile::TempDir;

const NAMESPACE: &str = "fleetpass";
const NAME: &str = "fleetpass-manager";

/// A hub with what a manager needs.
struct Hub {
    _cluster: RealCluster,
    admin: Client,
    folder: TempDir,
}

impl Hub {
    async fn start() -> Result<Self> {
        let cluster = RealCluster::start().await?;
        let kubectl = Kubectl::new(cluster.endpoint(), ADMIN_TOKEN)?;
        let apply = ["apply", "--server-side", "-f", "-"];
        let manager = install(&["hub", "--feature-gates=EphemeralIdentity=true"]).await?;
        kubectl.run_with(&apply, &manager).await?;
        let agent = install(&["cluster", "--cluster=cluster1", "--side=hub"]).await?;
        kubectl.run_with(&apply, &agent).await?;
        let token = kubectl.run(&["-n", NAMESPACE, "create", "token", NAME]).await?;
        let folder = tempfile::tempdir()?;
        cluster.endpoint().write_kubeconfig(&folder.path().join("kubeconfig"), token.trim())?;
        Ok(Self { admin: cluster.endpoint().admin().await?, _cluster: cluster, folder })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A manager whose Lease holds for so long.
    fn manager(&self, name: &str, [lease, renew, retry]: [&str; 3]) -> Result<Process> {
        let arguments = [
            "manager".to_owned(),
            format!("--kubeconfig={}", self.path("kubeconfig").display()),
            format!("--leader-elect-resource-namespace={NAMESPACE}"),
            format!("--leader-elect-lease-duration={lease}"),
            format!("--leader-elect-renew-deadline={renew}"),
            format!("--leader-elect-retry-period={retry}"),
            "--feature-gates=EphemeralIdentity=true".into(),
            "--metrics-bind-address=0".into(),
            "--health-probe-bind-address=0".into(),
        ];
        Process::start(name, &program("fleetpass")?, arguments, &[], &self.path(name))
    }

    fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    async fn lease(&self) -> Option<Lease> {
        Api::namespaced(self.admin.clone(), NAMESPACE).get(NAME).await.ok()
    }

    /// The manager that leads and is none of `former`.
    async fn leader(&self, former: &[&str]) -> Result<String> {
        eventually("another manager leads", SOON, async || {
            let holder = self.lease().await?.spec?.holder_identity?;
            (!holder.is_empty() && !former.contains(&holder.as_str())).then_some(holder)
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn managers_take_over_from_each_other_with_their_own_rights() -> Result<()> {
    let hub = Hub::start().await?;
    // Its Lease holds for hours, and so would the other one's patience: what is given up is seen.
    let patient = ["3h", "2h", "1h"];
    let first = hub.manager("first", patient)?;
    let one = hub.leader(&[]).await?;
    let second = hub.manager("second", patient)?;
    ensure!(first.stop(SOON).await?.success(), "{}", hub.log("first"));
    let two = hub.leader(&[&one]).await?;
    let fields = hub.lease().await.context("a Lease")?.metadata.managed_fields.unwrap_or_default();
    let managers: Vec<_> = fields.iter().filter_map(|field| field.manager.as_deref()).collect();
    ensure!(managers == [NAME], "the Lease was written by {managers:?}");
    ensure!(second.stop(SOON).await?.success(), "{}", hub.log("second"));

    let third = hub.manager("third", ["2s", "1500ms", "500ms"])?;
    let three = hub.leader(&[&one, &two]).await?;
    let fourth = hub.manager("fourth", ["2s", "1500ms", "500ms"])?;
    third.signal(Signal::KILL)?;
    third.kill().await?;
    hub.leader(&[&one, &two, &three]).await?;

    let accounts: Api<ManagedServiceAccount> = Api::namespaced(hub.admin.clone(), "cluster1");
    let mut passing = ManagedServiceAccount::new("cluster1", "passing");
    passing.spec.ttl_seconds_after_creation = Some(1);
    accounts.create(&PostParams::default(), &passing).await?;
    eventually("its time is over", SOON, async || {
        accounts.get_opt("passing").await.ok()?.is_none().then_some(())
    })
    .await?;
    ensure!(fourth.stop(SOON).await?.success(), "{}", hub.log("fourth"));
    for name in ["first", "second", "third", "fourth"] {
        let log = hub.log(name);
        ensure!(!log.contains("forbidden") && !log.contains("403"), "{name} lacks a right: {log}");
    }
    total("manager, Kubernetes", "4 managers, one at a time, with the printed rights")
}
