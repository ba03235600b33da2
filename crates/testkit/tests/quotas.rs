//! What quotas allow, on a hub with its controllers: through the API, as a client sees it.

use anyhow::{Context as _, Result, ensure};
use fleetpass_api::clock;
use fleetpass_store::MemoryStore;
use fleetpass_testkit::cluster::Cluster;
use futures::future::join_all;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use serde_json::{Value, json};
use std::sync::Arc;

const ACCOUNTS: &str = "count/managedserviceaccounts.authentication.open-cluster-management.io";

/// The objects of a kind in the namespace `cluster1`.
fn objects(client: &kube::Client, api_version: &str, kind: &str, plural: &str) -> Api<DynamicObject> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
    Api::namespaced_with(client.clone(), "cluster1", &resource)
}

fn quotas(client: &kube::Client) -> Api<DynamicObject> {
    objects(client, "v1", "ResourceQuota", "resourcequotas")
}

fn secrets(client: &kube::Client) -> Api<DynamicObject> {
    objects(client, "v1", "Secret", "secrets")
}

fn object(kind: &str, name: &str, more: Value) -> Result<DynamicObject> {
    let mut object = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}});
    if let (Value::Object(object), Value::Object(more)) = (&mut object, more) {
        object.extend(more);
    }
    Ok(serde_json::from_value(object)?)
}

async fn create(objects: &Api<DynamicObject>, object: DynamicObject) -> kube::Result<DynamicObject> {
    objects.create(&PostParams::default(), &object).await
}

async fn create_secret(client: &kube::Client, name: &str) -> Result<DynamicObject> {
    Ok(create(&secrets(client), object("Secret", name, json!({}))?).await?)
}

/// The message of a refusal with 403.
fn forbidden<T: std::fmt::Debug>(result: Result<T>) -> Result<String> {
    let error = result.err().context("it was not refused")?;
    match error.downcast_ref::<kube::Error>() {
        Some(kube::Error::Api(status)) if status.code == 403 && status.reason == "Forbidden" => {
            Ok(status.message.clone())
        }
        _ => Err(error),
    }
}

async fn used(client: &kube::Client, quota: &str, name: &str) -> Result<Value> {
    let quota = quotas(client).get(quota).await?;
    Ok(quota.data["status"]["used"].get(name).cloned().unwrap_or_default())
}

/// Creates the namespace and a quota, and waits until its limits are in force.
async fn limit(client: &kube::Client, name: &str, hard: Value) -> Result<()> {
    let namespaces: Api<DynamicObject> = Api::all_with(
        client.clone(),
        &ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("", "v1", "Namespace"), "namespaces"),
    );
    if namespaces.get_opt("cluster1").await?.is_none() {
        create(&namespaces, object("Namespace", "cluster1", json!({}))?).await?;
    }
    let quota = object("ResourceQuota", name, json!({"spec": {"hard": hard}}))?;
    create(&quotas(client), quota).await?;
    in_force(client, name, &hard).await
}

async fn in_force(client: &kube::Client, name: &str, hard: &Value) -> Result<()> {
    Cluster::eventually("the limits are in force", async || {
        let quota = quotas(client).get(name).await.expect("a quota");
        let status = &quota.data["status"];
        let counted = |name: &String| status["used"].get(name).is_some();
        status["hard"] == *hard && hard.as_object().is_some_and(|hard| hard.keys().all(counted))
    })
    .await
}

#[tokio::test]
async fn a_tenant_stores_no_more_than_its_quota() -> Result<()> {
    let cluster = Cluster::start().await?;
    let client = cluster.admin();
    limit(&client, "tenant", json!({"count/secrets": "2", "secrets": "3", ACCOUNTS: "1"})).await?;

    create_secret(&client, "a").await?;
    create_secret(&client, "b").await?;
    assert_eq!(used(&client, "tenant", "count/secrets").await?, "2");
    assert_eq!(used(&client, "tenant", "secrets").await?, "2");
    assert_eq!(
        forbidden(create_secret(&client, "c").await)?,
        "secrets \"c\" is forbidden: exceeded quota: tenant, requested: count/secrets=1, used: count/secrets=2, \
         limited: count/secrets=2"
    );
    // The quota is asked before the name is looked up, as in kube-apiserver.
    forbidden(create_secret(&client, "a").await)?;

    // Custom resources, by server-side apply.
    let version = "authentication.open-cluster-management.io/v1beta1";
    let accounts = objects(&client, version, "ManagedServiceAccount", "managedserviceaccounts");
    let apply = async |name: &str| {
        let account = json!({"apiVersion": version, "kind": "ManagedServiceAccount",
            "metadata": {"name": name}, "spec": {"rotation": {}}});
        accounts.patch(name, &PatchParams::apply("test"), &Patch::Apply(account)).await
    };
    apply("robot").await?;
    apply("robot").await?;
    let message = forbidden(apply("other").await.map_err(Into::into))?;
    assert!(message.contains(&format!("requested: {ACCOUNTS}=1, used: {ACCOUNTS}=1")), "{message}");

    // What is deleted makes room.
    secrets(&client).delete("a", &DeleteParams::default()).await?;
    Cluster::eventually("the place is free", async || {
        used(&client, "tenant", "count/secrets").await.is_ok_and(|used| used == "1")
    })
    .await?;
    create_secret(&client, "c").await?;
    forbidden(create_secret(&client, "d").await)?;

    // Events are in no quota, and other namespaces in that of none.
    let elsewhere: Api<DynamicObject> = Api::namespaced_with(
        client.clone(),
        "default",
        &ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("", "v1", "Secret"), "secrets"),
    );
    for name in ["a", "b", "c"] {
        create(&elsewhere, object("Secret", name, json!({}))?).await?;
    }
    Ok(())
}

#[tokio::test]
async fn limits_follow_the_spec_and_several_quotas_all_hold() -> Result<()> {
    let cluster = Cluster::start().await?;
    let client = cluster.admin();
    limit(&client, "wide", json!({"count/secrets": "9", "services": "1", "requests.storage": "1Gi"})).await?;
    limit(&client, "narrow", json!({"count/secrets": "1"})).await?;
    create_secret(&client, "a").await?;
    let message = forbidden(create_secret(&client, "b").await)?;
    assert!(message.contains("exceeded quota: narrow,"), "{message}");
    // The wide one was not charged for what the narrow one refused.
    assert_eq!(used(&client, "wide", "count/secrets").await?, "1");
    // What the hub has no kind for is not used.
    assert_eq!(used(&client, "wide", "services").await?, "0");
    assert_eq!(used(&client, "wide", "requests.storage").await?, "0");

    let hard = json!({"count/secrets": "2", "secrets": "2"});
    let patch = json!({"spec": {"hard": hard}});
    quotas(&client).patch("narrow", &PatchParams::default(), &Patch::Merge(patch)).await?;
    in_force(&client, "narrow", &hard).await?;
    create_secret(&client, "b").await?;
    assert_eq!(used(&client, "narrow", "secrets").await?, "2");
    forbidden(create_secret(&client, "c").await)?;
    quotas(&client).delete("narrow", &DeleteParams::default()).await?;
    create_secret(&client, "c").await?;
    assert_eq!(used(&client, "wide", "count/secrets").await?, "3");
    Ok(())
}

#[tokio::test]
async fn a_dry_run_is_judged_and_not_charged() -> Result<()> {
    let cluster = Cluster::start().await?;
    let client = cluster.admin();
    limit(&client, "tenant", json!({"count/secrets": "1"})).await?;
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let secret = object("Secret", "a", json!({}))?;
    secrets(&client).create(&dry, &secret).await?;
    assert_eq!(used(&client, "tenant", "count/secrets").await?, "0");
    create_secret(&client, "a").await?;
    forbidden(secrets(&client).create(&dry, &object("Secret", "b", json!({}))?).await.map_err(Into::into))?;
    Ok(())
}

#[tokio::test]
async fn a_create_that_fails_is_not_charged() -> Result<()> {
    let cluster = Cluster::start().await?;
    let client = cluster.admin();
    limit(&client, "tenant", json!({"count/secrets": "3"})).await?;
    create_secret(&client, "a").await?;
    let before = quotas(&client).get("tenant").await?;
    let error = create_secret(&client, "a").await.err().context("there is one already")?;
    assert!(error.to_string().contains("already exists"), "{error}");
    let invalid = object("Secret", "b", json!({"data": {"not a key": ""}}))?;
    assert!(create(&secrets(&client), invalid).await.is_err());
    // Not even touched.
    assert_eq!(
        quotas(&client).get("tenant").await?.metadata.resource_version,
        before.metadata.resource_version
    );
    Ok(())
}

#[tokio::test]
async fn a_quota_of_quotas_counts_itself_when_it_is_in_force() -> Result<()> {
    let cluster = Cluster::start().await?;
    let client = cluster.admin();
    limit(&client, "quotas", json!({"count/resourcequotas": "2", "resourcequotas": "2"})).await?;
    limit(&client, "more", json!({"count/secrets": "1"})).await?;
    Cluster::eventually("both are counted", async || {
        used(&client, "quotas", "resourcequotas").await.is_ok_and(|used| used == "2")
    })
    .await?;
    let third = object("ResourceQuota", "third", json!({"spec": {"hard": {}}}))?;
    let message = forbidden(create(&quotas(&client), third).await.map_err(Into::into))?;
    assert!(message.contains("requested: count/resourcequotas=1,resourcequotas=1, used: "), "{message}");
    Ok(())
}

#[tokio::test]
async fn pods_count_until_they_have_ended() -> Result<()> {
    let cluster = Cluster::start().await?;
    let client = cluster.admin();
    limit(&client, "tenant", json!({"pods": "1", "count/pods": "9"})).await?;
    // Its accounts are made by a controller; without one no pod is admitted.
    let accounts = objects(&client, "v1", "ServiceAccount", "serviceaccounts");
    Cluster::eventually("the account default", async || accounts.get("default").await.is_ok()).await?;
    let pods = objects(&client, "v1", "Pod", "pods");
    let pod =
        |name: &str| object("Pod", name, json!({"spec": {"containers": [{"name": "c", "image": "i"}]}}));
    create(&pods, pod("a")?).await?;
    let message = forbidden(create(&pods, pod("b")?).await.map_err(Into::into))?;
    assert!(message.contains("requested: pods=1, used: pods=1, limited: pods=1"), "{message}");
    let ended = json!({"status": {"phase": "Succeeded"}});
    pods.patch_status("a", &PatchParams::default(), &Patch::Merge(ended)).await?;
    Cluster::eventually("a pod that has ended makes room", async || {
        used(&client, "tenant", "pods").await.is_ok_and(|used| used == "0")
    })
    .await?;
    create(&pods, pod("b")?).await?;
    assert_eq!(used(&client, "tenant", "count/pods").await?, "2");
    Ok(())
}

/// Two servers on one store, as two replicas on etcd: neither knows what the other is about to do.
#[tokio::test(flavor = "multi_thread")]
async fn creates_that_race_on_two_servers_never_exceed_a_quota() -> Result<()> {
    let store = Arc::new(MemoryStore::default());
    let first = Cluster::start_with(store.clone(), clock::system()).await?;
    let second = Cluster::start_with(store, clock::system()).await?;
    let clients = [first.admin(), second.admin()];
    limit(&clients[0], "tenant", json!({"count/secrets": "20"})).await?;
    let attempts = (0..60).map(|i| {
        let client = &clients[i % 2];
        async move { create_secret(client, &format!("s{i}")).await }
    });
    let results = join_all(attempts).await;
    let created = results.iter().filter(|result| result.is_ok()).count();
    for refused in results.into_iter().filter(Result::is_err) {
        let message = forbidden(refused)?;
        assert!(message.ends_with("used: count/secrets=20, limited: count/secrets=20"), "{message}");
    }
    assert_eq!(created, 20);
    let stored = secrets(&clients[0]).list(&ListParams::default()).await?.items.len();
    assert_eq!(stored, 20);
    assert_eq!(used(&clients[1], "tenant", "count/secrets").await?, "20");
    Ok(())
}

/// Deletions make the controller count while others create: a count from before a create must not be written after it.
#[tokio::test(flavor = "multi_thread")]
async fn counting_beside_creates_and_deletions_never_frees_too_much() -> Result<()> {
    let store = Arc::new(MemoryStore::default());
    let first = Cluster::start_with(store.clone(), clock::system()).await?;
    let second = Cluster::start_with(store, clock::system()).await?;
    let clients = [first.admin(), second.admin()];
    limit(&clients[0], "tenant", json!({"count/secrets": "5"})).await?;
    let tenants = (0..8).map(|tenant| {
        let client = &clients[tenant % 2];
        async move {
            let mut created = 0;
            for i in 0..30 {
                let name = format!("t{tenant}-{i}");
                match create_secret(client, &name).await {
                    Ok(_) => created += 1,
                    refused => {
                        forbidden(refused)?;
                        // Whoever is refused deletes one of its own, if it can.
                        let _ = secrets(client)
                            .delete(&format!("t{tenant}-{}", i - 1), &DeleteParams::default())
                            .await;
                        continue;
                    }
                }
                let stored = secrets(client).list(&ListParams::default()).await?.items.len();
                ensure!(stored <= 5, "{stored} secrets, of 5");
            }
            Ok::<i32, anyhow::Error>(created)
        }
    });
    let created = futures::future::try_join_all(tenants).await?;
    ensure!(created.iter().sum::<i32>() >= 5, "{created:?}");
    // In the end it is exact.
    let stored = secrets(&clients[0]).list(&ListParams::default()).await?.items.len().to_string();
    Cluster::eventually("the count is right", async || {
        used(&clients[0], "tenant", "count/secrets").await.is_ok_and(|used| used == stored)
    })
    .await
}

#[tokio::test]
async fn a_table_shows_what_is_used() -> Result<()> {
    let cluster = Cluster::start().await?;
    let client = cluster.admin();
    limit(&client, "tenant", json!({"count/secrets": "2", "configmaps": "5"})).await?;
    create_secret(&client, "a").await?;
    // The ConfigMap that every namespace has.
    Cluster::eventually("everything is counted", async || {
        used(&client, "tenant", "configmaps").await.is_ok_and(|used| used == "1")
    })
    .await?;
    let request = http::Request::get("/api/v1/namespaces/cluster1/resourcequotas")
        .header(http::header::ACCEPT, "application/json;as=Table;v=v1;g=meta.k8s.io")
        .body(Vec::new())?;
    let table: Value = client.request(request).await?;
    let columns: Vec<&str> = table["columnDefinitions"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|c| c["name"].as_str())
        .collect();
    assert_eq!(columns, ["Name", "Request", "Limit", "Age"]);
    let cells = &table["rows"][0]["cells"];
    assert_eq!(cells[0], "tenant");
    assert_eq!(cells[1], "configmaps: 1/5, count/secrets: 1/2");
    assert_eq!(cells[2], "");
    ensure!(cells[3].is_string(), "an age");
    Ok(())
}
