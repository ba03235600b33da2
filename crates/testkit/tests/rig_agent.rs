//! The agent between real programs: hub and cluster each a real Kubernetes or a Fleetpass, rights as our manifests
//! grant them, everything that happens to a fleet.

use anyhow::{Context as _, Result, ensure};
use fleetpass_api::names;
use fleetpass_testkit::rig::{
    AgentProgram, CLUSTER, ControlPlane, Fleet, HubOptions, Projected, RealClusterOptions, SOON, eventually,
    total, user_name,
};
use k8s_openapi::ByteString;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;
use std::time::Duration;
use tokio::time::Instant;

/// The longest that the clusters of these tests let a token live; accounts ask for 360 days.
const LONGEST: Duration = Duration::from_secs(3600);
/// How long an outage lasts.
const OUTAGE: Duration = Duration::from_secs(60);

async fn real() -> Result<ControlPlane> {
    ControlPlane::kubernetes(&RealClusterOptions {
        max_token_expiration: Some(LONGEST),
        ..RealClusterOptions::default()
    })
    .await
}

async fn ours() -> Result<ControlPlane> {
    let flags = ["--service-account-max-token-expiration=1h", "--feature-gates=EphemeralIdentity=true"];
    let flags = flags.map(String::from).to_vec();
    ControlPlane::fleetpass(&HubOptions { flags, ..HubOptions::default() }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn kubernetes_hub_and_kubernetes_cluster() -> Result<()> {
    walk("agent, hub Kubernetes, cluster Kubernetes", real().await?, real().await?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn fleetpass_hub_and_kubernetes_cluster() -> Result<()> {
    walk("agent, hub Fleetpass, cluster Kubernetes", ours().await?, real().await?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn kubernetes_hub_and_fleetpass_cluster() -> Result<()> {
    walk("agent, hub Kubernetes, cluster Fleetpass", real().await?, ours().await?).await
}

/// Everything that happens to a fleet, while one token grows old enough to be renewed.
async fn walk(title: &str, hub: ControlPlane, cluster: ControlPlane) -> Result<()> {
    let mut fleet = Fleet::start(AgentProgram::Fleetpass, hub, cluster).await?;
    rights_end_at_the_manifests(&fleet).await.context("rights")?;
    fleet.create("aging", &json!({"rotation": {"validity": "10m"}})).await?;
    let aging = fleet.served("aging", None).await?;

    created_and_deleted(&fleet).await.context("created and deleted")?;
    lifetimes_are_those_that_the_cluster_gave(&fleet).await.context("lifetimes")?;
    secrets_come_back(&fleet).await.context("Secrets")?;
    a_service_account_comes_back(&fleet).await.context("ServiceAccount")?;
    time_to_live_ends_an_account(&fleet).await.context("time to live")?;
    names_that_are_taken_are_left_alone(&fleet).await.context("name conflicts")?;
    the_agent_goes_on_where_it_stopped(&mut fleet).await.context("agent restarted")?;
    let hub = the_hub_is_down_for_a_minute(&mut fleet).await.context("hub down")?;
    let cluster = the_cluster_is_down_for_a_minute(&mut fleet).await.context("cluster down")?;

    let age = renewed_in_time(&fleet, &aging).await.context("rotation")?;
    let seconds = |time: Duration| format!("{:.1} s", time.as_secs_f64());
    total(
        title,
        &format!(
            "12 cases; a token of 600 s was renewed after {age} s; served again {} after the hub was back, {} after \
             the cluster was",
            seconds(hub),
            seconds(cluster)
        ),
    )
}

/// The agent may do on either side what the manifests say, and nothing of what an administrator may.
async fn rights_end_at_the_manifests(fleet: &Fleet) -> Result<()> {
    let (hub, cluster) = fleet.as_agent().await?;
    let agents = names::DEFAULT_AGENT_NAMESPACE;
    for (client, verb, group, resource, namespace, allowed) in [
        (&hub, "create", "", "secrets", CLUSTER, true),
        (&hub, "get", "", "secrets", "kube-system", false),
        (&hub, "create", names::GROUP, names::PLURAL, CLUSTER, false),
        (&hub, "create", "", "serviceaccounts/token", CLUSTER, false),
        (&hub, "impersonate", "", "users", "", false),
        (&cluster, "create", "", "serviceaccounts/token", agents, true),
        (&cluster, "create", "", "serviceaccounts/token", "kube-system", false),
        (&cluster, "get", "", "secrets", agents, false),
        (&cluster, "bind", "rbac.authorization.k8s.io", "clusterroles", "", false),
        (&cluster, "escalate", "rbac.authorization.k8s.io", "roles", agents, false),
        (&cluster, "impersonate", "", "serviceaccounts", agents, false),
    ] {
        let is = may(client, verb, group, resource, namespace).await?;
        ensure!(is == allowed, "{verb} {resource}.{group} in {namespace:?}: {is}");
    }
    Ok(())
}

async fn may(client: &Client, verb: &str, group: &str, resource: &str, namespace: &str) -> Result<bool> {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let attributes = ResourceAttributes {
        verb: Some(verb.into()),
        group: Some(group.into()),
        resource: Some(resource.into()),
        subresource: Some(subresource.into()).filter(|name: &String| !name.is_empty()),
        namespace: Some(namespace.into()).filter(|name: &String| !name.is_empty()),
        ..ResourceAttributes::default()
    };
    let spec = SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() };
    let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let answer = reviews.create(&PostParams::default(), &review).await?;
    Ok(answer.status.context("a review without an answer")?.allowed)
}

async fn created_and_deleted(fleet: &Fleet) -> Result<()> {
    fleet.create("short-lived", &json!({"rotation": {}})).await?;
    let projected = fleet.served("short-lived", None).await?;
    let secret = &projected.secret;
    let keys: Vec<&String> = secret.data.iter().flatten().map(|(key, _)| key).collect();
    ensure!(keys == [names::SECRET_KEY_CA, names::SECRET_KEY_TOKEN], "the Secret holds {keys:?}");
    ensure!(secret.type_.as_deref() == Some(names::SECRET_TYPE_OPAQUE), "its type is {:?}", secret.type_);
    let owner = secret.owner_references().first().map(|owner| (owner.kind.clone(), owner.name.clone()));
    ensure!(owner == Some((names::KIND.into(), "short-lived".into())), "its owner is {owner:?}");
    let service_account = fleet.service_accounts().get("short-lived").await?;
    let label = service_account.labels().get(names::LABEL_IS_MANAGED).map(String::as_str);
    ensure!(label == Some(names::LABEL_IS_MANAGED_VALUE), "the ServiceAccount's label is {label:?}");

    fleet.accounts().delete("short-lived", &DeleteParams::default()).await?;
    fleet.gone("short-lived").await?;
    fleet.refused(&projected).await
}

/// The cluster shortens lifetimes: the status says when the token that is there ends, and the agent goes by that.
async fn lifetimes_are_those_that_the_cluster_gave(fleet: &Fleet) -> Result<()> {
    fleet.create("shortened", &json!({"rotation": {}})).await?;
    let projected = fleet.served("shortened", None).await?;
    let (issued, expires) = (projected.claim("iat")?, projected.claim("exp")?);
    ensure!(expires - issued == LONGEST.as_secs().cast_signed(), "it lives {} s", expires - issued);
    let status = fleet.accounts().get("shortened").await?.status.context("no status")?;
    let said = status.expiration_timestamp.map(|time| time.0.as_second());
    ensure!(said == Some(expires), "the status says {said:?}, the token {expires}");
    Ok(())
}

async fn secrets_come_back(fleet: &Fleet) -> Result<()> {
    fleet.create("spoiled", &json!({"rotation": {}})).await?;
    let first = fleet.served("spoiled", None).await?;
    fleet.secrets().delete("spoiled", &DeleteParams::default()).await?;
    let second = fleet.served("spoiled", Some(&first)).await?;
    ensure!(second.secret.uid() != first.secret.uid(), "it is the same Secret");

    let merge = |data| async move {
        let patch = Patch::Merge(json!({"data": data}));
        fleet.secrets().patch("spoiled", &PatchParams::default(), &patch).await
    };
    // No token at all, and the token of another user: each is replaced by a fresh one.
    merge(json!({"token": ByteString(b"tampered".to_vec())})).await?;
    let third = fleet.served("spoiled", Some(&second)).await?;
    fleet.create("other", &json!({"rotation": {}})).await?;
    let other = fleet.served("other", None).await?;
    merge(json!({"token": ByteString(other.token.into_bytes())})).await?;
    let fourth = fleet.served("spoiled", Some(&third)).await?;
    // What is around the token is put right, and the token stays.
    merge(json!({"ca.crt": ByteString(b"tampered".to_vec()), "extra": ByteString(b"x".to_vec())})).await?;
    eventually("what is around the token is as it was", SOON, async || {
        let secret = fleet.secrets().get("spoiled").await.ok()?;
        (secret.data == fourth.secret.data).then_some(())
    })
    .await
}

async fn a_service_account_comes_back(fleet: &Fleet) -> Result<()> {
    fleet.create("orphaned", &json!({"rotation": {}})).await?;
    let first = fleet.served("orphaned", None).await?;
    fleet.service_accounts().delete("orphaned", &DeleteParams::default()).await?;
    fleet.served("orphaned", Some(&first)).await?;
    fleet.refused(&first).await
}

async fn time_to_live_ends_an_account(fleet: &Fleet) -> Result<()> {
    fleet.create("passing", &json!({"rotation": {}, "ttlSecondsAfterCreation": 30})).await?;
    let projected = fleet.served("passing", None).await?;
    fleet.gone("passing").await?;
    fleet.refused(&projected).await
}

async fn names_that_are_taken_are_left_alone(fleet: &Fleet) -> Result<()> {
    let mut theirs = ServiceAccount::default();
    theirs.metadata.name = Some("taken".into());
    let theirs = fleet.service_accounts().create(&PostParams::default(), &theirs).await?;
    fleet.create("taken", &json!({"rotation": {}})).await?;
    fleet.not_served("taken", names::REASON_NAME_CONFLICT).await?;
    let now = fleet.service_accounts().get("taken").await?;
    ensure!(now.resource_version() == theirs.resource_version(), "their ServiceAccount was changed");
    ensure!(fleet.secrets().get_opt("taken").await?.is_none(), "a token of theirs was projected");
    fleet.service_accounts().delete("taken", &DeleteParams::default()).await?;
    fleet.served("taken", None).await?;

    let mut theirs = Secret { string_data: Some([("a".into(), "b".into())].into()), ..Secret::default() };
    theirs.metadata.name = Some("occupied".into());
    let theirs = fleet.secrets().create(&PostParams::default(), &theirs).await?;
    fleet.create("occupied", &json!({"rotation": {}})).await?;
    fleet.not_served("occupied", names::REASON_NAME_CONFLICT).await?;
    let now = fleet.secrets().get("occupied").await?;
    ensure!(now.resource_version() == theirs.resource_version(), "their Secret was changed");
    fleet.secrets().delete("occupied", &DeleteParams::default()).await?;
    fleet.served("occupied", None).await?;
    Ok(())
}

async fn the_agent_goes_on_where_it_stopped(fleet: &mut Fleet) -> Result<()> {
    fleet.create("kept", &json!({"rotation": {}})).await?;
    let kept = fleet.served("kept", None).await?;
    fleet.create("dropped", &json!({"rotation": {}})).await?;
    fleet.served("dropped", None).await?;
    fleet.agent.halt().await?;
    fleet.accounts().delete("dropped", &DeleteParams::default()).await?;
    fleet.create("asked-meanwhile", &json!({"rotation": {}})).await?;
    fleet.agent.resume()?;
    fleet.gone("dropped").await?;
    fleet.served("asked-meanwhile", None).await?;
    fleet.unchanged("kept", &kept).await
}

async fn the_hub_is_down_for_a_minute(fleet: &mut Fleet) -> Result<Duration> {
    fleet.create("through-hub-outage", &json!({"rotation": {}})).await?;
    let before = fleet.served("through-hub-outage", None).await?;
    fleet.hub.halt().await?;
    tokio::time::sleep(OUTAGE).await;
    // The cluster does not need the hub.
    ensure!(fleet.who(&before).await? == user_name("through-hub-outage"));
    fleet.hub.resume().await?;
    let back = Instant::now();
    fleet.create("after-hub-outage", &json!({"rotation": {}})).await?;
    fleet.served("after-hub-outage", None).await?;
    let took = back.elapsed();
    fleet.unchanged("through-hub-outage", &before).await?;
    Ok(took)
}

async fn the_cluster_is_down_for_a_minute(fleet: &mut Fleet) -> Result<Duration> {
    fleet.create("through-outage", &json!({"rotation": {}})).await?;
    let before = fleet.served("through-outage", None).await?;
    fleet.create("deleted-in-outage", &json!({"rotation": {}})).await?;
    fleet.served("deleted-in-outage", None).await?;
    fleet.cluster.halt().await?;
    fleet.create("asked-in-outage", &json!({"rotation": {}})).await?;
    fleet.accounts().delete("deleted-in-outage", &DeleteParams::default()).await?;
    fleet.not_served("asked-in-outage", names::REASON_CLUSTER_UNREACHABLE).await?;
    tokio::time::sleep(OUTAGE).await;
    fleet.cluster.resume().await?;
    let back = Instant::now();
    fleet.served("asked-in-outage", None).await?;
    let took = back.elapsed();
    fleet.gone("deleted-in-outage").await?;
    fleet.unchanged("through-outage", &before).await?;
    Ok(took)
}

/// Waits for the renewal of the oldest token; its age then, in seconds.
async fn renewed_in_time(fleet: &Fleet, old: &Projected) -> Result<i64> {
    let limit = Duration::from_secs(600);
    let new = eventually("the old token is renewed", limit, async || {
        let secret = fleet.secrets().get("aging").await.ok()?;
        Projected::read(secret).filter(|now| now.token != old.token)
    })
    .await
    .with_context(|| fleet.agent.last_lines())?;
    let age = new.claim("iat")? - old.claim("iat")?;
    // At 78 % of its lifetime, before its last fifth begins.
    ensure!(age >= 468, "a good token was replaced after {age} s of its 600");
    ensure!(new.claim("iat")? < old.claim("exp")?, "the token ended before the next one came");
    ensure!(new.secret.uid() == old.secret.uid(), "the Secret was replaced, not updated");
    // Whoever read the old one may use it to its end.
    ensure!(fleet.who(old).await? == user_name("aging") && fleet.who(&new).await? == user_name("aging"));
    Ok(age)
}
