//! `fleetpass manager` works on a real Kubernetes with the rights that `fleetpass install` prints and no others.

use anyhow::{Context as _, Result, ensure};
use fleetpass_api::{ManagedServiceAccount, names};
use fleetpass_testkit::cluster::ADMIN_TOKEN;
use fleetpass_testkit::rig::{
    Kubectl, Process, RealCluster, SOON, Signal, eventually, install, program, total,
};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::PostParams;
use kube::{Api, Client};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use serde_json::json;
use std::path::PathBuf;
use tempfile::TempDir;

const NAMESPACE: &str = "fleetpass";
const NAME: &str = "fleetpass-manager";

/// A hub with what a manager needs.
struct Hub {
    cluster: RealCluster,
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
        let admin = cluster.endpoint().admin().await?;
        Ok(Self { cluster, admin, folder })
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

/// A request for a client's certificate, as `user` sends it.
async fn ask(hub: &Hub, user: &str, groups: &[String], name: &str, organization: &str) -> Result<()> {
    let mut config = hub.cluster.endpoint().config(ADMIN_TOKEN).await?;
    config.auth_info.impersonate = Some(user.to_owned());
    config.auth_info.impersonate_groups = Some(groups.to_vec());
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, organization);
    params.distinguished_name.push(DnType::CommonName, user);
    let pem = params.serialize_request(&KeyPair::generate()?)?.pem()?;
    let request = json!({
        "metadata": {"name": name},
        "spec": {"request": k8s_openapi::ByteString(pem.into_bytes()), "signerName": "kubernetes.io/kube-apiserver-client",
            "usages": ["client auth", "digital signature"], "expirationSeconds": 3600},
    });
    let requests: Api<CertificateSigningRequest> = Api::all(Client::try_from(config)?);
    requests.create(&PostParams::default(), &serde_json::from_value(request)?).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_approves_renewals_and_says_who_is_there() -> Result<()> {
    let hub = Hub::start().await?;
    let manager = hub.manager("manager", ["15s", "10s", "2s"])?;
    let accounts: Api<ManagedServiceAccount> = Api::namespaced(hub.admin.clone(), "cluster1");
    accounts.create(&PostParams::default(), &ManagedServiceAccount::new("cluster1", "robot")).await?;
    let lease = json!({
        "metadata": {"name": names::AGENT_LEASE, "namespace": "cluster1"},
        "spec": {"holderIdentity": "somebody/somewhere", "leaseDurationSeconds": 1,
            "renewTime": fleetpass_apimachinery::time::rfc3339_micro(fleetpass_api::clock::system().now())},
    });
    let leases: Api<Lease> = Api::namespaced(hub.admin.clone(), "cluster1");
    leases.create(&PostParams::default(), &serde_json::from_value(lease)?).await?;
    // One second long: it is seen, or was, whichever comes first to be read here; then it is gone.
    eventually("the agent was last seen then", SOON, async || {
        let status = accounts.get("robot").await.ok()?.status?;
        let condition = status.condition(names::CONDITION_AGENT_AVAILABLE)?;
        (condition.status == "False" && condition.reason == names::REASON_AGENT_GONE).then_some(())
    })
    .await
    .with_context(|| hub.log("manager"))?;

    let (agent, group) = (names::agent_user("cluster1"), names::agent_group("cluster1"));
    let groups = [group.clone(), names::ADDON_GROUP.to_owned()];
    // Who has the name and not the right; an agent that asks for another's group; and one that renews.
    let kubectl = Kubectl::new(hub.cluster.endpoint(), ADMIN_TOKEN)?;
    let may_ask =
        ["create", "clusterrole", "asker", "--verb=create", "--resource=certificatesigningrequests"];
    kubectl.run(&may_ask).await?;
    kubectl.run(&["create", "clusterrolebinding", "asker", "--clusterrole=asker", "--user=eve"]).await?;
    ask(&hub, "eve", &["devs".to_owned()], "stranger", "devs").await?;
    ask(&hub, &agent, &groups, "greedy", &names::agent_group("cluster2")).await?;
    ask(&hub, &agent, &groups, "renewal", &group).await?;
    let requests: Api<CertificateSigningRequest> = Api::all(hub.admin.clone());
    let decided = async |name: &str| -> Option<String> {
        let conditions = requests.get(name).await.ok()?.status?.conditions?;
        Some(conditions.first()?.type_.clone())
    };
    let decision = eventually("a decision", SOON, async || decided("renewal").await).await;
    ensure!(decision.with_context(|| hub.log("manager"))? == "Approved");
    ensure!(decided("stranger").await.is_none() && decided("greedy").await.is_none());
    ensure!(manager.stop(SOON).await?.success(), "{}", hub.log("manager"));
    let log = hub.log("manager");
    ensure!(!log.contains("forbidden") && !log.contains("403"), "a right is missing: {log}");
    total("manager, Kubernetes", "a renewal approved, two requests left alone, an agent that was gone")
}
