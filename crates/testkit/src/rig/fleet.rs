//! A hub, a cluster and the agent between them, with the rights that our manifests grant and no others.

use super::agent::{Agent, AgentProgram, Side};
use super::control_plane::ControlPlane;
use super::kubectl::Kubectl;
use super::objects::eventually;
use super::programs::program;
use crate::cluster::ADMIN_TOKEN;
use anyhow::{Context, Result, ensure};
use fleetpass_api::account::ManagedServiceAccount;
use fleetpass_api::names;
use k8s_openapi::api::authentication::v1::{
    SelfSubjectReview, TokenRequest, TokenRequestSpec, TokenReview, TokenReviewSpec,
};
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::process::Command;

/// The name of the cluster, and of its namespace on the hub.
pub const CLUSTER: &str = "cluster1";

/// How long the agent may take for what it has to do. It is a bound on waiting, not a promise.
pub const SOON: Duration = Duration::from_secs(120);

/// A hub, a cluster, and an agent.
pub struct Fleet {
    /// The hub.
    pub hub: ControlPlane,
    /// The cluster.
    pub cluster: ControlPlane,
    /// The agent.
    pub agent: Agent,
    hub_side: Side,
    cluster_side: Side,
    hub_admin: Client,
    cluster_admin: Client,
}

/// A token that reached the hub, as a user of the hub gets it.
#[derive(Clone)]
pub struct Projected {
    /// The Secret that holds it.
    pub secret: Secret,
    /// The token.
    pub token: String,
    /// The cluster's authority as the Secret has it, PEM.
    pub ca_pem: String,
}

impl Fleet {
    /// Prepares both sides as our manifests have it, and starts an agent.
    pub async fn start(program: AgentProgram, hub: ControlPlane, cluster: ControlPlane) -> Result<Self> {
        let hub_admin = hub.endpoint().admin().await?;
        let cluster_admin = cluster.endpoint().admin().await?;
        for (plane, side) in [(&hub, "hub"), (&cluster, "cluster")] {
            let arguments = ["cluster", "--cluster", CLUSTER, "--side", side];
            let gate = ["--feature-gates=EphemeralIdentity=true"];
            let manifest = install(&[&arguments[..], &gate[..]].concat()).await?;
            let kubectl = Kubectl::new(plane.endpoint(), ADMIN_TOKEN)?;
            kubectl.run_with(&["apply", "--server-side", "-f", "-"], &manifest).await?;
        }
        let hub_token = mint(&hub_admin, CLUSTER, "fleetpass-agent").await?;
        let agents = names::DEFAULT_AGENT_NAMESPACE;
        let cluster_token = mint(&cluster_admin, agents, names::ADDON_NAME).await?;
        let hub_side = Side { endpoint: hub.endpoint().clone(), token: hub_token };
        let cluster_side = Side { endpoint: cluster.endpoint().clone(), token: cluster_token };
        let agent = Agent::start(program, CLUSTER, &hub_side, &cluster_side)?;
        Ok(Self { hub, cluster, agent, hub_side, cluster_side, hub_admin, cluster_admin })
    }

    /// Starts another agent in the place of one that was stopped.
    pub fn start_agent(&mut self, program: AgentProgram) -> Result<()> {
        self.agent = Agent::start(program, CLUSTER, &self.hub_side, &self.cluster_side)?;
        Ok(())
    }

    /// Starts another agent, which trusts this authority (PEM) on its way to the cluster, in the place of one that was stopped.
    pub fn start_agent_that_trusts(&mut self, ca_pem: &str) -> Result<()> {
        let mut cluster_side = self.cluster_side.clone();
        ca_pem.clone_into(&mut cluster_side.endpoint.ca_pem);
        self.agent = Agent::start(AgentProgram::Fleetpass, CLUSTER, &self.hub_side, &cluster_side)?;
        Ok(())
    }

    /// What the condition TokenReported of an account says: status, reason, message.
    pub async fn says(&self, name: &str) -> Result<(String, String, String)> {
        let account = self.accounts().get(name).await?;
        let condition = condition(&account).context("it has no condition TokenReported")?;
        Ok((condition.status.clone(), condition.reason.clone(), condition.message.clone()))
    }

    /// The accounts of the cluster, as the hub's administrator.
    pub fn accounts(&self) -> Api<ManagedServiceAccount> {
        Api::namespaced(self.hub_admin.clone(), CLUSTER)
    }

    /// The Secrets of the cluster on the hub, as its administrator.
    pub fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.hub_admin.clone(), CLUSTER)
    }

    /// The ServiceAccounts in the agent's namespace, as the cluster's administrator.
    pub fn service_accounts(&self) -> Api<ServiceAccount> {
        Api::namespaced(self.cluster_admin.clone(), names::DEFAULT_AGENT_NAMESPACE)
    }

    /// Clients as the agent itself is seen: of the hub, of the cluster.
    pub async fn as_agent(&self) -> Result<(Client, Client)> {
        let (hub, cluster) = (&self.hub_side, &self.cluster_side);
        Ok((hub.endpoint.client(&hub.token).await?, cluster.endpoint.client(&cluster.token).await?))
    }

    /// Creates an account. `spec` is that of a ManagedServiceAccount.
    pub async fn create(&self, name: &str, spec: &Value) -> Result<ManagedServiceAccount> {
        let account = serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": CLUSTER}, "spec": spec}))?;
        Ok(self.accounts().create(&PostParams::default(), &account).await?)
    }

    /// Waits until an account has a token that its cluster accepts, other than `old`, and says so in its status.
    pub async fn served(&self, name: &str, old: Option<&Projected>) -> Result<Projected> {
        let what = format!("{name} has a token");
        let found = eventually(&what, SOON, async || {
            self.agent.tend().ok()?;
            let secret = self.secrets().get_opt(name).await.ok()??;
            let projected = Projected::read(secret)?;
            let stale = old.is_some_and(|old| old.token == projected.token);
            let user = self.who(&projected).await.ok()?;
            let account = self.accounts().get(name).await.ok()?;
            let said = reason(&account) == Some(("True".into(), names::REASON_TOKEN_REPORTED.into()));
            (!stale && said && user == user_name(name)).then_some(projected)
        });
        found.await.with_context(|| self.agent.last_lines())
    }

    /// Sees that an account has the Secret and the token that it had.
    pub async fn unchanged(&self, name: &str, before: &Projected) -> Result<()> {
        let now = self.served(name, None).await?;
        ensure!(now.secret.metadata.uid == before.secret.metadata.uid, "{name} has another Secret");
        ensure!(now.token == before.token, "{name} has another token");
        Ok(())
    }

    /// Waits until an account says of its token that it is not there, for this reason.
    pub async fn not_served(&self, name: &str, why: &str) -> Result<()> {
        let what = format!("{name} says {why}");
        let said = eventually(&what, SOON, async || {
            self.agent.tend().ok()?;
            let account = self.accounts().get(name).await.ok()?;
            (reason(&account) == Some(("False".into(), why.into()))).then_some(())
        });
        said.await.with_context(|| self.agent.last_lines())
    }

    /// Waits until nothing is left of an account: neither itself, its Secret nor its ServiceAccount.
    pub async fn gone(&self, name: &str) -> Result<()> {
        let what = format!("{name} is gone");
        let gone = eventually(&what, SOON, async || {
            self.agent.tend().ok()?;
            let account = self.accounts().get_opt(name).await.ok()?.is_none();
            let secret = self.secrets().get_opt(name).await.ok()?.is_none();
            let service_account = self.service_accounts().get_opt(name).await.ok()?.is_none();
            (account && secret && service_account).then_some(())
        });
        gone.await.with_context(|| self.agent.last_lines())
    }

    /// Whom the cluster takes the bearer of a token for, with nothing but what the Secret holds.
    pub async fn who(&self, projected: &Projected) -> Result<String> {
        let mut endpoint = self.cluster.endpoint().clone();
        endpoint.ca_pem.clone_from(&projected.ca_pem);
        let config = endpoint.config(&projected.token).await?;
        let reviews: Api<SelfSubjectReview> = Api::all(Client::try_from(config)?);
        let review = reviews.create(&PostParams::default(), &SelfSubjectReview::default()).await?;
        let user = review.status.and_then(|status| status.user_info).and_then(|user| user.username);
        user.context("the cluster names no user")
    }

    /// Waits until the cluster does not accept a token.
    pub async fn refused(&self, projected: &Projected) -> Result<()> {
        let reviews: Api<TokenReview> = Api::all(self.cluster_admin.clone());
        let spec = TokenReviewSpec { token: projected.token.clone(), audiences: None };
        let review = TokenReview { spec, ..TokenReview::default() };
        eventually("the token is refused", SOON, async || {
            let answer = reviews.create(&PostParams::default(), &review).await.ok()?;
            (answer.status?.authenticated != Some(true)).then_some(())
        })
        .await
    }
}

impl Projected {
    /// What a Secret of an account holds; nothing, if it is not complete.
    pub fn read(secret: Secret) -> Option<Self> {
        let data = secret.data.as_ref()?;
        let text = |key: &str| String::from_utf8(data.get(key)?.0.clone()).ok();
        let (token, ca_pem) = (text(names::SECRET_KEY_TOKEN)?, text(names::SECRET_KEY_CA)?);
        Some(Self { secret, token, ca_pem })
    }

    /// A number of the token's claims: `iat`, `exp`.
    pub fn claim(&self, name: &str) -> Result<i64> {
        use base64::Engine as _;
        let claims = self.token.split('.').nth(1).context("no JWT")?;
        let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(claims)?;
        let claims: Value = serde_json::from_slice(&claims)?;
        claims[name].as_i64().with_context(|| format!("the token has no {name}"))
    }
}

/// What `fleetpass install` prints, for `kubectl apply`.
pub async fn install(arguments: &[&str]) -> Result<String> {
    let printed = Command::new(program("fleetpass")?).arg("install").args(arguments).output().await?;
    let error = String::from_utf8_lossy(&printed.stderr);
    ensure!(printed.status.success(), "fleetpass install {}: {error}", arguments.join(" "));
    Ok(String::from_utf8(printed.stdout)?)
}

/// The name of the user that an account's token stands for on the cluster.
pub fn user_name(account: &str) -> String {
    format!("system:serviceaccount:{}:{account}", names::DEFAULT_AGENT_NAMESPACE)
}

/// An account's condition TokenReported.
fn condition(account: &ManagedServiceAccount) -> Option<&Condition> {
    let conditions = &account.status.as_ref()?.conditions;
    conditions.iter().find(|condition| condition.type_ == names::CONDITION_TOKEN_REPORTED)
}

/// Its status and reason.
fn reason(account: &ManagedServiceAccount) -> Option<(String, String)> {
    condition(account).map(|condition| (condition.status.clone(), condition.reason.clone()))
}

/// A token of a ServiceAccount, once that exists: the agent's credentials, as its manifests' users make them.
async fn mint(client: &Client, namespace: &str, name: &str) -> Result<String> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let spec = TokenRequestSpec { expiration_seconds: Some(24 * 3600), ..TokenRequestSpec::default() };
    let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
    let answer = accounts.create_token_request(name, &PostParams::default(), &request).await?;
    answer.status.and_then(|status| status.token).context("the answer to a TokenRequest has no token")
}
