//! Reflectors: whatever happens to their watches, they end with what the list has.

use super::{admin, configmap, configmaps};
use anyhow::{Context as _, Result, ensure};
use fleetpass_testkit::cluster::{ADMIN_TOKEN, Cluster};
use fleetpass_testkit::proxy::Proxy;
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{Config, Event};
use kube::runtime::{WatchStreamExt as _, reflector, watcher};
use kube::{Client, ResourceExt as _};
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;

const LABEL: &str = "written-by=test";
const WRITERS: usize = 6;
const ROUNDS: usize = 15;

/// Tries again soon, however often it was cut: the default waits longer each time.
struct Soon;

impl Iterator for Soon {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(Duration::from_millis(50))
    }
}

impl Backoff for Soon {
    fn reset(&mut self) {}
}

/// Names and revisions.
type Revisions = BTreeMap<String, String>;

fn revisions<'a>(objects: impl IntoIterator<Item = &'a ConfigMap>) -> Revisions {
    objects.into_iter().map(|one| (one.name_any(), one.resource_version().unwrap_or_default())).collect()
}

/// Creates, changes and deletes ConfigMaps; of its three names at most two are left.
async fn write(client: Client, writer: usize) -> Result<()> {
    let api = configmaps(&client);
    for round in 0..ROUNDS {
        let name = format!("w{writer}-{}", round % 3);
        let mut object = configmap(&name, &json!({"round": round.to_string()}))?;
        object.labels_mut().insert("written-by".into(), "test".into());
        match api.get_metadata_opt(&name).await? {
            None => drop(api.create(&PostParams::default(), &object).await?),
            Some(_) if round % 4 == 3 => drop(api.delete(&name, &DeleteParams::default()).await?),
            Some(_) => {
                let change = Patch::Merge(json!({"data": {"round": round.to_string()}}));
                api.patch(&name, &PatchParams::default(), &change).await?;
            }
        }
    }
    Ok(())
}

/// Lets writers work at once while a reflector's connections are cut again and again; it ends with what is there.
async fn follows(config: Config) -> Result<()> {
    let cluster = Cluster::start().await?;
    let client = admin(&cluster).await?;
    for n in 0..7 {
        let mut object = configmap(&format!("before-{n}"), &json!({}))?;
        object.labels_mut().insert("written-by".into(), "test".into());
        configmaps(&client).create(&PostParams::default(), &object).await?;
    }
    let proxy = Proxy::start(cluster.address).await?;
    let through = cluster.client_over_tls(proxy.address, ADMIN_TOKEN).await?;
    let (reader, writer) = reflector::store();
    let stream = watcher(configmaps(&through), config.labels(LABEL)).backoff(Soon).reflect(writer);
    let following = tokio::spawn(stream.for_each(async |_| {}));
    tokio::time::timeout(Duration::from_secs(30), reader.wait_until_ready()).await??;
    ensure!(reader.len() == 7, "the first list has {} objects", reader.len());

    let mut writers: Vec<_> = (0..WRITERS).map(|n| tokio::spawn(write(client.clone(), n))).collect();
    let mut cuts = 0;
    while !writers.iter().all(tokio::task::JoinHandle::is_finished) {
        cuts += proxy.cut();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for writer in &mut writers {
        writer.await??;
    }
    ensure!(cuts > 0, "nothing was cut");
    let listed = configmaps(&client).list(&ListParams::default().labels(LABEL)).await?;
    let listed = revisions(&listed.items);
    let same = Cluster::eventually("the reflector has what the list has", async || {
        revisions(reader.state().iter().map(|one| &**one)) == listed
    });
    same.await.with_context(|| format!("{:?}\n{listed:?}", reader.state()))?;
    following.abort();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reflector_over_pages_ends_with_what_the_list_has() -> Result<()> {
    follows(Config::default().page_size(3)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reflector_over_streaming_lists_ends_with_what_the_list_has() -> Result<()> {
    follows(Config::default().streaming_lists()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reflector_over_any_revision_ends_with_what_the_list_has() -> Result<()> {
    follows(Config::default().any_semantic()).await
}

/// The first objects come as `Init`, `InitApply`…, `InitDone`; what happens afterwards behind them, each once.
#[tokio::test(flavor = "multi_thread")]
async fn a_streaming_list_tells_where_its_beginning_ends() -> Result<()> {
    let cluster = Cluster::start().await?;
    let client = admin(&cluster).await?;
    let api: Api<ConfigMap> = configmaps(&client);
    for name in ["a", "b"] {
        api.create(&PostParams::default(), &configmap(name, &json!({"is": "old"}))?).await?;
    }
    let config = Config::default().streaming_lists().fields("metadata.name!=kube-root-ca.crt");
    let mut events = watcher(api.clone(), config).boxed();
    let mut seen = Vec::new();
    let mut next = async || -> Result<String> {
        let event = tokio::time::timeout(Duration::from_secs(10), events.try_next()).await??;
        Ok(match event.context("the stream ends")? {
            Event::Init => "init".into(),
            Event::InitApply(one) => format!("first {}", one.name_any()),
            Event::InitDone => "done".into(),
            Event::Apply(one) => format!("{} is {}", one.name_any(), one.data.unwrap_or_default()["is"]),
            Event::Delete(one) => format!("{} is gone", one.name_any()),
        })
    };
    for _ in 0..4 {
        seen.push(next().await?);
    }
    seen[1..3].sort();
    assert_eq!(seen, ["init", "first a", "first b", "done"]);
    api.patch("a", &PatchParams::default(), &Patch::Merge(json!({"data": {"is": "new"}}))).await?;
    assert_eq!(next().await?, "a is new");
    api.delete("b", &DeleteParams::default()).await?;
    assert_eq!(next().await?, "b is gone");
    Ok(())
}
