//! Whose an account's objects are: agents that share a cluster, a namespace, or a name, with the rights that our
//! manifests grant and no others, between API servers in this process.

use anyhow::{Context as _, Result, ensure};
use fleetpass_agent::{Agent, CaSource, Handle, InCluster, Options};
use fleetpass_api::features::FeatureGates;
use fleetpass_api::{ManagedServiceAccount, clock, names};
use fleetpass_apimachinery::user::UserInfo;
use fleetpass_hub::join;
use fleetpass_testkit::cluster::Cluster;
use k8s_openapi::api::authentication::v1::TokenReview;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Event, Namespace, Secret, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRoleBinding, Role, RoleBinding};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A bound on waiting, not a promise.
const SOON: Duration = Duration::from_secs(60);
/// How long the Lease on the hub lasts here.
const LEASE: Duration = Duration::from_secs(3);
const AGENTS: &str = names::DEFAULT_AGENT_NAMESPACE;

/// Waits until there is something.
async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    let found = tokio::time::timeout(SOON, async {
        loop {
            if let Some(found) = look().await? {
                return anyhow::Ok(found);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    found.await.with_context(|| format!("not within {SOON:?}: {what}"))?
}

/// What the agent needs on its cluster.
fn manifests(cluster: &str, namespace: &str) -> Vec<Value> {
    let features = FeatureGates::default();
    InCluster { cluster, namespace, image: None, hub_kubeconfig_secret: "unused", features }.manifests()
}

/// An agent in this process, between a hub and a cluster that know it under a name.
struct Running {
    cluster: String,
    namespace: String,
    hub: Client,
    spoke: Client,
    options: Options,
    handle: Handle,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    /// Grants the rights of our manifests on both sides, and starts an agent that has them.
    async fn start(hub: &Cluster, spoke: &Cluster, cluster: &str, namespace: &str) -> Result<Self> {
        join::join(&hub.admin(), cluster).await?;
        join::ensure(&spoke.admin(), &manifests(cluster, namespace)).await?;
        let options = Options {
            agent_namespace: namespace.into(),
            ca: CaSource::Pem(spoke.ca_pem.clone().into_bytes()),
            hub_lease: LEASE,
            ..Options::new(cluster, clock::system())
        };
        Self::run(hub, spoke, options)
    }

    /// Starts an agent with the rights that it has.
    fn run(hub: &Cluster, spoke: &Cluster, options: Options) -> Result<Self> {
        let cluster = options.cluster.clone();
        let groups = vec![names::agent_group(&cluster), "system:authenticated".into()];
        let user = names::agent_user(&cluster);
        let on_hub = hub.client(UserInfo { name: user, groups, ..UserInfo::default() });
        Self::run_as(on_hub, hub, spoke, options)
    }

    /// Starts an agent that is somebody else on the hub.
    fn run_as(on_hub: Client, hub: &Cluster, spoke: &Cluster, options: Options) -> Result<Self> {
        let (cluster, namespace) = (options.cluster.clone(), options.agent_namespace.clone());
        let account = names::service_account_user(&namespace, names::ADDON_NAME);
        let groups = vec!["system:serviceaccounts".into(), "system:authenticated".into()];
        let on_spoke = spoke.client(UserInfo { name: account, groups, ..UserInfo::default() });
        let (agent, handle) = Agent::new(on_hub, on_spoke, options.clone())?;
        let stop = CancellationToken::new();
        let task = tokio::spawn(agent.run(stop.clone()));
        let (hub, spoke) = (hub.admin(), spoke.admin());
        Ok(Self { cluster, namespace, hub, spoke, options, handle, stop, task })
    }

    async fn stop(self) -> Result<()> {
        self.stop.cancel();
        Ok(self.task.await?)
    }

    fn accounts(&self) -> Api<ManagedServiceAccount> {
        Api::namespaced(self.hub.clone(), &self.cluster)
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.hub.clone(), &self.cluster)
    }

    fn services(&self) -> Api<ServiceAccount> {
        Api::namespaced(self.spoke.clone(), &self.namespace)
    }

    async fn create(&self, name: &str) -> Result<()> {
        let account = serde_json::from_value(json!({
            "apiVersion": format!("{}/{}", names::GROUP, names::V1BETA1), "kind": names::KIND,
            "metadata": {"name": name}, "spec": {"rotation": {"validity": "1h"}},
        }))?;
        self.accounts().create(&PostParams::default(), &account).await?;
        Ok(())
    }

    /// The token of the account, once it is reported.
    async fn served(&self, name: &str) -> Result<Secret> {
        self.says(name, "True", names::REASON_TOKEN_REPORTED).await?;
        Ok(self.secrets().get(name).await?)
    }

    /// What `TokenReported` says, once it says this.
    async fn says(&self, name: &str, status: &str, reason: &str) -> Result<String> {
        until(&format!("{}/{name} is {status}, {reason}", self.cluster), async || {
            let account = self.accounts().get(name).await?;
            let condition =
                account.status.as_ref().and_then(|s| s.condition(names::CONDITION_TOKEN_REPORTED));
            let found = condition.filter(|found| found.status == status && found.reason == reason);
            Ok(found.map(|found| found.message.clone()))
        })
        .await
    }

    /// Whether the cluster takes the token of the account.
    async fn accepted(&self, name: &str) -> Result<bool> {
        let secret = self.secrets().get(name).await?;
        let token =
            secret.data.as_ref().and_then(|data| data.get(names::SECRET_KEY_TOKEN)).context("a token")?;
        let review = serde_json::from_value(
            json!({"metadata": {}, "spec": {"token": std::str::from_utf8(&token.0)?}}),
        )?;
        let reviews = Api::<TokenReview>::all(self.spoke.clone());
        let status = reviews.create(&PostParams::default(), &review).await?.status.context("a review")?;
        let user = names::service_account_user(&self.namespace, name);
        Ok(status.authenticated == Some(true) && status.user.and_then(|user| user.username) == Some(user))
    }

    async fn is_in_use(&self) -> Result<()> {
        until("the name is in use", async || Ok(self.handle.is_name_in_use().then_some(()))).await
    }

    async fn gone(&self, name: &str) -> Result<()> {
        until(&format!("ServiceAccount {name} is gone"), async || {
            Ok(self.services().get_opt(name).await?.is_none().then_some(()))
        })
        .await
    }

    /// Waits for an Event about the account.
    async fn event(&self, name: &str, type_: &str, reason: &str) -> Result<()> {
        let uid = self.accounts().get(name).await?.uid();
        let events: Api<Event> = Api::namespaced(self.hub.clone(), &self.cluster);
        until(&format!("an Event {reason} about {}/{name}", self.cluster), async || {
            let all = events.list(&ListParams::default()).await?;
            let found = all.items.iter().find(|event| {
                event.involved_object.uid == uid
                    && uid.is_some()
                    && event.type_.as_deref() == Some(type_)
                    && event.reason.as_deref() == Some(reason)
            });
            Ok(found.map(|_| ()))
        })
        .await
    }

    /// How many tokens this agent has projected.
    fn tokens(&self) -> u64 {
        let metrics = self.handle.metrics();
        let lines = metrics.lines().filter(|line| line.starts_with("fleetpass_agent_token_refreshes_total"));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    }
}

/// Two agents that share a namespace of a cluster serve their accounts side by side, and neither takes the other's.
async fn share(one: &Running, two: &Running) -> Result<()> {
    one.create("a").await?;
    let token = one.served("a").await?;
    let made = one.services().get("a").await?;
    two.create("b").await?;
    two.served("b").await?;
    // The same name for both: the first has it, and the second is told whose it is.
    two.create("a").await?;
    let message = two.says("a", "False", names::REASON_NAME_CONFLICT).await?;
    ensure!(message.contains("belongs to another agent"), "{message}");
    one.create("b").await?;
    one.says("b", "False", names::REASON_NAME_CONFLICT).await?;
    one.event("a", "Normal", names::EVENT_TOKEN_ISSUED).await?;
    one.event("b", "Warning", names::REASON_NAME_CONFLICT).await?;
    ensure!(one.secrets().get("a").await?.data == token.data && two.secrets().get_opt("a").await?.is_none());
    ensure!(one.services().get("a").await?.uid() == made.uid(), "the ServiceAccount was made anew");
    ensure!((one.tokens(), two.tokens()) == (1, 1), "{} and {} tokens", one.tokens(), two.tokens());

    // An account that goes takes what is its own with it: then the name is free, and the other account gets it.
    one.accounts().delete("a", &DeleteParams::default()).await?;
    two.served("a").await?;
    ensure!(one.services().get("a").await?.uid() != made.uid());
    two.accounts().delete("a", &DeleteParams::default()).await?;
    two.gone("a").await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_names_of_one_cluster_share_a_namespace() -> Result<()> {
    let (hub, spoke) = (Cluster::start().await?, Cluster::start().await?);
    let one = Running::start(&hub, &spoke, "one", AGENTS).await?;
    let two = Running::start(&hub, &spoke, "two", AGENTS).await?;
    share(&one, &two).await?;
    one.stop().await?;
    two.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hubs_share_a_cluster_under_one_name() -> Result<()> {
    let (first, second, spoke) = (Cluster::start().await?, Cluster::start().await?, Cluster::start().await?);
    let one = Running::start(&first, &spoke, "cluster1", AGENTS).await?;
    let two = Running::start(&second, &spoke, "cluster1", AGENTS).await?;
    share(&one, &two).await?;
    one.stop().await?;
    two.stop().await
}

/// What the upstream addon's agent made, or a Fleetpass without marks: adopted where there is an account, with its
/// token, and cleared away where there is none.
#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_mark_is_adopted_by_the_account_of_its_name() -> Result<()> {
    let (hub, spoke) = (Cluster::start().await?, Cluster::start().await?);
    let before = Running::start(&hub, &spoke, "cluster1", AGENTS).await?;
    for name in ["kept", "dropped"] {
        before.create(name).await?;
        before.served(name).await?;
    }
    let token = before.served("kept").await?;
    before.stop().await?;

    let services = Api::<ServiceAccount>::namespaced(spoke.admin(), AGENTS);
    for name in ["kept", "dropped"] {
        let mut service = services.get(name).await?;
        let keys = [names::ANNOTATION_CLUSTER_NAME, names::ANNOTATION_HUB];
        ensure!(keys.iter().all(|key| service.annotations().contains_key(*key)), "made without a mark");
        keys.iter().for_each(|key| drop(service.annotations_mut().remove(*key)));
        services.replace(name, &PostParams::default(), &service).await?;
    }
    let made = services.get("kept").await?;
    let accounts = Api::<ManagedServiceAccount>::namespaced(hub.admin(), "cluster1");
    accounts.delete("dropped", &DeleteParams::default()).await?;

    let after = Running::start(&hub, &spoke, "cluster1", AGENTS).await?;
    after.gone("dropped").await?;
    let adopted = until("the ServiceAccount is marked", async || {
        let service = services.get("kept").await?;
        Ok(service.annotations().contains_key(names::ANNOTATION_HUB).then_some(service))
    });
    let adopted = adopted.await?;
    ensure!(
        adopted.uid() == made.uid() && adopted.annotations()[names::ANNOTATION_CLUSTER_NAME] == "cluster1"
    );
    ensure!(after.served("kept").await?.data == token.data && after.tokens() == 0, "the token was replaced");
    after.stop().await
}

/// A hub, a cluster, and an agent with these accounts served.
async fn served(names: &[&str]) -> Result<(Cluster, Cluster, Running)> {
    let (hub, spoke) = (Cluster::start().await?, Cluster::start().await?);
    let agent = Running::start(&hub, &spoke, "cluster1", AGENTS).await?;
    for name in names {
        agent.create(name).await?;
    }
    for name in names {
        agent.served(name).await?;
    }
    Ok((hub, spoke, agent))
}

const ROLE: &str = "open-cluster-management:managed-serviceaccount:addon-agent";

async fn delete_namespace(hub: &Cluster) -> Result<()> {
    let namespaces = Api::<Namespace>::all(hub.admin());
    namespaces.delete("cluster1", &DeleteParams::default()).await?;
    until("the namespace is gone", async || Ok(namespaces.get_opt("cluster1").await?.is_none().then_some(())))
        .await
}

async fn unbind(hub: &Cluster) -> Result<RoleBinding> {
    let bindings = Api::<RoleBinding>::namespaced(hub.admin(), "cluster1");
    let binding = bindings.get(ROLE).await?;
    bindings.delete(ROLE, &DeleteParams::default()).await?;
    Ok(binding)
}

/// `kubectl delete namespace cluster1` on the hub: all accounts were deleted, and with them the rights of the agent.
#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_is_deleted_takes_the_accounts_with_it() -> Result<()> {
    let (hub, _spoke, agent) = served(&["a", "b", "c"]).await?;
    delete_namespace(&hub).await?;
    for name in ["a", "b", "c"] {
        agent.gone(name).await?;
    }
    agent.stop().await
}

/// The same in another order: first the agent is refused, then the accounts go. And without the right to ask for the
/// namespace, as under the upstream addon's roles: what the watch said is enough.
#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_may_go_in_any_order() -> Result<()> {
    let (hub, _spoke, agent) = served(&["a", "b", "c"]).await?;
    let bindings = Api::<ClusterRoleBinding>::all(hub.admin());
    bindings.delete(&format!("{ROLE}:cluster1"), &DeleteParams::default()).await?;
    unbind(&hub).await?;
    delete_namespace(&hub).await?;
    for name in ["a", "b", "c"] {
        agent.gone(name).await?;
    }
    agent.stop().await
}

/// The agent's own identity is a ServiceAccount in that namespace, as README has it: after the first moments it is nobody.
#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_may_take_the_identity_of_the_agent_with_it() -> Result<()> {
    let (hub, spoke, agent) = served(&["a", "b", "c", "d", "e", "f"]).await?;
    let options = agent.options.clone();
    agent.stop().await?;
    let accounts = Api::<ServiceAccount>::namespaced(hub.admin(), "cluster1");
    let request = serde_json::from_value(json!({"spec": {"audiences": [], "expirationSeconds": 3600}}))?;
    let to = PostParams::default();
    let identity = accounts.create_token_request(join::AGENT_SERVICE_ACCOUNT, &to, &request);
    let token = identity.await?.status.context("a status")?.token.context("a token")?;
    let client = hub.client_over_tls(hub.address, &token).await?;
    let agent = Running::run_as(client, &hub, &spoke, options)?;
    agent.create("g").await?;
    agent.served("g").await?;
    delete_namespace(&hub).await?;
    for name in ["a", "b", "c", "d", "e", "f", "g"] {
        agent.gone(name).await?;
    }
    agent.stop().await
}

/// The namespace went while the agent was down: what it made before is cleared away by the next one.
#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_was_deleted_is_noticed_after_a_restart() -> Result<()> {
    let (hub, spoke, agent) = served(&["a", "b", "c"]).await?;
    let options = agent.options.clone();
    agent.stop().await?;
    delete_namespace(&hub).await?;
    let again = Running::run(&hub, &spoke, options)?;
    for name in ["a", "b", "c"] {
        again.gone(name).await?;
    }
    again.stop().await
}

/// Rights that are taken away are no deletion: nothing is touched, and all goes on when they are back.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_no_deletion() -> Result<()> {
    let (hub, spoke, agent) = served(&["a", "b"]).await?;
    let binding = unbind(&hub).await?;
    let options = agent.options.clone();
    agent.stop().await?;
    let again = Running::run(&hub, &spoke, options)?;
    // Whatever it does on its own account, and what others do meanwhile.
    let mut touched = again.services().get("b").await?;
    touched.annotations_mut().insert("touched".into(), "yes".into());
    again.services().replace("b", &PostParams::default(), &touched).await?;
    until("it is refused for both accounts", async || {
        let metrics = again.handle.metrics();
        let refused = metrics.lines().filter(|line| {
            line.starts_with("fleetpass_agent_request_failures_total") && line.contains("kind=\"refused\"")
        });
        let refused: u64 = refused.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum();
        Ok((refused >= 4).then_some(()))
    })
    .await?;
    for name in ["a", "b"] {
        ensure!(again.services().get_opt(name).await?.is_some(), "{name} was deleted");
    }
    let bindings = Api::<RoleBinding>::namespaced(hub.admin(), "cluster1");
    let mut binding = binding;
    binding.metadata.resource_version = None;
    binding.metadata.uid = None;
    bindings.create(&PostParams::default(), &binding).await?;
    again.accounts().delete("b", &DeleteParams::default()).await?;
    again.gone("b").await?;
    ensure!(again.accepted("a").await? && again.tokens() == 0, "the token of a was replaced");
    again.stop().await
}

async fn restored(spoke: &Cluster, agent: &Running) -> Result<()> {
    Ok(join::ensure(&spoke.admin(), &manifests(&agent.cluster, &agent.namespace)).await?)
}

/// The agent's namespace is deleted on the cluster, with all ServiceAccounts, and the agent's rights. When it is there
/// again, all is made anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_died_with_the_agents_namespace_is_not_reported() -> Result<()> {
    let (_hub, spoke, agent) = served(&["a", "b"]).await?;
    let namespaces = Api::<Namespace>::all(spoke.admin());
    namespaces.delete(AGENTS, &DeleteParams::default()).await?;
    for name in ["a", "b"] {
        agent.says(name, "False", names::REASON_CLUSTER_REFUSED).await?;
    }
    let gone = async || Ok(namespaces.get_opt(AGENTS).await?.is_none().then_some(()));
    until("the namespace is gone", gone).await?;
    restored(&spoke, &agent).await?;
    for name in ["a", "b"] {
        until("there is a good token", async || Ok(agent.accepted(name).await?.then_some(()))).await?;
        agent.served(name).await?;
    }
    ensure!(agent.tokens() == 4, "{} tokens", agent.tokens());
    agent.stop().await
}

/// The ServiceAccount is gone, and the agent may not make another.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_died_with_its_service_account_is_not_reported() -> Result<()> {
    let (_hub, spoke, agent) = served(&["a"]).await?;
    let roles = Api::<Role>::namespaced(spoke.admin(), AGENTS);
    let mut role = roles.get(ROLE).await?;
    for rule in role.rules.iter_mut().flatten() {
        rule.verbs.retain(|verb| verb != "create");
    }
    role.rules.iter_mut().for_each(|rules| rules.retain(|rule| !rule.verbs.is_empty()));
    roles.replace(ROLE, &PostParams::default(), &role).await?;
    agent.services().delete("a", &DeleteParams::default()).await?;
    let message = agent.says("a", "False", names::REASON_CLUSTER_REFUSED).await?;
    ensure!(message.contains("no longer accepts the token"), "{message}");
    restored(&spoke, &agent).await?;
    agent.served("a").await?;
    ensure!(agent.accepted("a").await?);
    agent.stop().await
}

/// A copied unit: two clusters, and one name for both.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_clusters_under_one_name_only_one_works() -> Result<()> {
    let (hub, first, second) = (Cluster::start().await?, Cluster::start().await?, Cluster::start().await?);
    let one = Running::start(&hub, &first, "cluster1", AGENTS).await?;
    one.create("a").await?;
    one.served("a").await?;
    let two = Running::start(&hub, &second, "cluster1", AGENTS).await?;
    two.is_in_use().await?;
    ensure!(two.handle.metrics().contains("fleetpass_agent_cluster_name_in_use{cluster=\"cluster1\"} 1"));
    let before = one.secrets().get("a").await?.resource_version();
    one.create("b").await?;
    one.served("b").await?;
    tokio::time::sleep(LEASE).await;
    // For longer than the Lease lasts: nothing of the first is touched, nothing is made on the second.
    ensure!(one.secrets().get("a").await?.resource_version() == before && one.accepted("b").await?);
    ensure!(two.services().get_opt("a").await?.is_none() && (one.tokens(), two.tokens()) == (2, 0));
    let leases = Api::<Lease>::namespaced(hub.admin(), "cluster1");
    let lease = leases.get(names::AGENT_LEASE).await?.spec.context("a spec")?;
    let uid = Api::<Namespace>::all(first.admin()).get("kube-system").await?.uid().context("a UID")?;
    ensure!(lease.holder_identity == Some(format!("{uid}/{AGENTS}")) && lease.renew_time.is_some());

    // The first is gone for good: the second works, without a step by hand.
    one.stop().await?;
    for name in ["a", "b"] {
        until("the second serves", async || Ok(two.accepted(name).await?.then_some(()))).await?;
        two.served(name).await?;
    }
    ensure!(!two.handle.is_name_in_use());
    two.stop().await
}

/// The name lives on, with another CA, another key and another `kube-system`.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_is_set_up_anew_takes_its_name_over() -> Result<()> {
    let (hub, before) = (Cluster::start().await?, Cluster::start().await?);
    let agent = Running::start(&hub, &before, "cluster1", AGENTS).await?;
    agent.create("a").await?;
    let old = agent.served("a").await?;
    agent.stop().await?;
    drop(before);

    let anew = Cluster::start().await?;
    let agent = Running::start(&hub, &anew, "cluster1", AGENTS).await?;
    until("the new cluster takes the token", async || Ok(agent.accepted("a").await?.then_some(()))).await?;
    let new = agent.served("a").await?;
    let ca = |secret: &Secret| secret.data.as_ref().and_then(|data| data.get(names::SECRET_KEY_CA)).cloned();
    ensure!(ca(&new).is_some_and(|ca| ca.0 == anew.ca_pem.as_bytes()) && ca(&new) != ca(&old));
    ensure!(agent.tokens() == 1, "{} tokens", agent.tokens());
    agent.stop().await
}

/// The agent is moved to another namespace, while the one that it was moved from still runs.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_was_moved_takes_its_name_with_it() -> Result<()> {
    let (hub, spoke) = (Cluster::start().await?, Cluster::start().await?);
    let old = Running::start(&hub, &spoke, "cluster1", AGENTS).await?;
    old.create("a").await?;
    old.served("a").await?;
    let new = Running::start(&hub, &spoke, "cluster1", "elsewhere").await?;
    until("the token is of the new namespace", async || Ok(new.accepted("a").await?.then_some(()))).await?;
    old.is_in_use().await?;
    tokio::time::sleep(LEASE).await;
    let served = new.served("a").await?;
    // The old one looks at the Lease before it replaces a token that is not its own.
    ensure!(old.tokens() + new.tokens() <= 4, "{} and {} tokens", old.tokens(), new.tokens());
    tokio::time::sleep(LEASE).await;
    ensure!(new.secrets().get("a").await?.resource_version() == served.resource_version(), "they fight");
    ensure!(!new.handle.is_name_in_use() && old.handle.is_name_in_use());
    old.stop().await?;
    // An account that goes takes its ServiceAccount in the new namespace with it. The agent has no rights in the old
    // one: what is there stays.
    new.accounts().delete("a", &DeleteParams::default()).await?;
    new.gone("a").await?;
    ensure!(Api::<ServiceAccount>::namespaced(spoke.admin(), AGENTS).get_opt("a").await?.is_some());
    new.stop().await
}
