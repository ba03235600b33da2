//! A controller: it owns what it makes, restores it, and cleans up before its object goes.

use super::admin;
use anyhow::{Context as _, Result, ensure};
use fleetpass_api::{ManagedServiceAccount, names};
use fleetpass_testkit::cluster::Cluster;
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::controller::Action;
use kube::runtime::finalizer::{Event, finalizer};
use kube::runtime::{Controller, watcher};
use kube::{Api, Client, Resource as _, ResourceExt as _};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const NAMESPACE: &str = "default";
const FINALIZER: &str = "test.fleetpass.io/cleanup";
const MANAGER: &str = "test-controller";

struct Context {
    client: Client,
    reconciled: AtomicUsize,
}

type Failed = kube::runtime::finalizer::Error<kube::Error>;

/// What an account's Secret holds is its annotation `wish`.
async fn apply(account: &ManagedServiceAccount, client: &Client) -> kube::Result<Action> {
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": account.name_any(), "ownerReferences": [account.controller_owner_ref(&())]},
        "stringData": {"wish": account.annotations().get("wish").cloned().unwrap_or_default()},
    });
    let secrets: Api<Secret> = Api::namespaced(client.clone(), NAMESPACE);
    secrets.patch(&account.name_any(), &PatchParams::apply(MANAGER).force(), &Patch::Apply(secret)).await?;
    Ok(Action::await_change())
}

/// Leaves a trace of the account.
async fn clean_up(account: &ManagedServiceAccount, client: &Client) -> kube::Result<Action> {
    let traces: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    let trace = json!({"metadata": {"name": format!("trace-of-{}", account.name_any())},
        "apiVersion": "v1", "kind": "ConfigMap", "data": {"uid": account.uid()}});
    let name = format!("trace-of-{}", account.name_any());
    traces.patch(&name, &PatchParams::apply(MANAGER), &Patch::Apply(trace)).await?;
    Ok(Action::await_change())
}

async fn reconcile(account: Arc<ManagedServiceAccount>, context: Arc<Context>) -> Result<Action, Failed> {
    context.reconciled.fetch_add(1, Ordering::Relaxed);
    let accounts: Api<ManagedServiceAccount> = Api::namespaced(context.client.clone(), NAMESPACE);
    let client = &context.client;
    finalizer(&accounts, FINALIZER, account, |event| async move {
        match event {
            Event::Apply(account) => apply(&account, client).await,
            Event::Cleanup(account) => clean_up(&account, client).await,
        }
    })
    .await
}

fn again(_: Arc<ManagedServiceAccount>, _: &Failed, _: Arc<Context>) -> Action {
    Action::requeue(Duration::from_millis(100))
}

async fn holds(secrets: &Api<Secret>, name: &str, wish: &str) -> bool {
    let Ok(Some(secret)) = secrets.get_opt(name).await else { return false };
    secret.data.is_some_and(|data| data.get("wish").is_some_and(|held| held.0 == wish.as_bytes()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_restores_what_it_owns_and_cleans_up() -> Result<()> {
    let cluster = Cluster::start().await?;
    let client = admin(&cluster).await?;
    let accounts: Api<ManagedServiceAccount> = Api::namespaced(client.clone(), NAMESPACE);
    let secrets: Api<Secret> = Api::namespaced(client.clone(), NAMESPACE);
    let context = Arc::new(Context { client: client.clone(), reconciled: AtomicUsize::new(0) });
    let running = Controller::new(accounts.clone(), watcher::Config::default())
        .owns(secrets.clone(), watcher::Config::default())
        .run(reconcile, again, context.clone())
        .for_each(async |_| {});
    let running = tokio::spawn(running);

    let mut account = ManagedServiceAccount::new(NAMESPACE, "one");
    account.annotations_mut().insert("wish".into(), "first".into());
    let created = accounts.create(&PostParams::default(), &account).await?;
    Cluster::eventually("it has its Secret", async || holds(&secrets, "one", "first").await).await?;
    let held = accounts.get("one").await?;
    ensure!(held.finalizers() == [FINALIZER], "{:?}", held.finalizers());
    let owners = secrets.get("one").await?.metadata.owner_references.unwrap_or_default();
    ensure!(owners.len() == 1 && owners[0].uid == created.uid().context("a UID")?, "{owners:?}");
    ensure!(owners[0].kind == names::KIND && owners[0].controller == Some(true), "{owners:?}");

    // The object changes.
    let wish = Patch::Merge(json!({"metadata": {"annotations": {"wish": "second"}}}));
    accounts.patch("one", &PatchParams::default(), &wish).await?;
    Cluster::eventually("it follows", async || holds(&secrets, "one", "second").await).await?;
    // What it owns changes, and goes.
    let other = Patch::Merge(json!({"stringData": {"wish": "of another"}}));
    let broken = secrets.patch("one", &PatchParams::default(), &other).await?;
    Cluster::eventually("it is restored", async || holds(&secrets, "one", "second").await).await?;
    secrets.delete("one", &DeleteParams::default()).await?;
    Cluster::eventually("it comes back", async || {
        let found = secrets.get_opt("one").await.ok().flatten();
        found.is_some_and(|found| found.uid() != broken.uid()) && holds(&secrets, "one", "second").await
    })
    .await?;

    // It goes, when the controller has cleaned up, and what it owned with it.
    let going = accounts.delete("one", &DeleteParams::default()).await?;
    let going = going.left().context("it waits for its finalizer")?;
    ensure!(going.metadata.deletion_timestamp.is_some());
    Cluster::eventually("it is gone", async || matches!(accounts.get_opt("one").await, Ok(None))).await?;
    let traces: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    let trace = traces.get("trace-of-one").await?;
    ensure!(trace.data.unwrap_or_default().get("uid") == created.uid().as_ref());
    Cluster::eventually("its Secret is gone", async || matches!(secrets.get_opt("one").await, Ok(None)))
        .await?;

    // Applying what is there already is no change: a controller that is woken by its own writes would never rest.
    let count = context.reconciled.load(Ordering::Relaxed);
    ensure!(count <= 25, "{count} reconciles for a handful of changes");
    running.abort();
    Ok(())
}
