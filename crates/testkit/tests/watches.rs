//! Watches that begin where nothing is remembered any longer.

use fleetpass_apimachinery::user::{SYSTEM_MASTERS, UserInfo};
use fleetpass_store::{MemoryStore, Store};
use fleetpass_testkit::cluster::Cluster;
use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, PostParams, WatchEvent, WatchParams};
use std::sync::Arc;

fn configmaps(cluster: &Cluster) -> Api<ConfigMap> {
    let user = UserInfo { name: "admin".into(), groups: vec![SYSTEM_MASTERS.into()], ..UserInfo::default() };
    Api::namespaced(kube::Client::new(cluster.server.client_service(user), "default"), "default")
}

fn named(name: &str) -> ConfigMap {
    ConfigMap {
        metadata: kube::core::ObjectMeta { name: Some(name.into()), ..Default::default() },
        ..Default::default()
    }
}

/// A real server answers 200 and tells it in the stream (`newErrWatcher` in `storage/cacher/cacher.go`): clients take
/// a refusal of the watch itself for a passing fault and come back with the same revision for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_revision_that_is_too_old_is_told_in_the_stream() -> anyhow::Result<()> {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    let clock = fleetpass_api::clock::system();
    let before = {
        let cluster = Cluster::start_with(store.clone(), clock.clone()).await?;
        let made = configmaps(&cluster).create(&PostParams::default(), &named("a")).await?;
        configmaps(&cluster).create(&PostParams::default(), &named("b")).await?;
        made.metadata.resource_version.unwrap_or_default()
    };
    // What was before the start of this one, nobody remembers.
    let cluster = Cluster::start_with(store, clock).await?;
    let mut events = configmaps(&cluster).watch(&WatchParams::default(), &before).await?.boxed();
    match events.next().await {
        Some(Ok(WatchEvent::Error(status))) => {
            assert_eq!((status.code, status.reason.as_str()), (410, "Expired"));
            assert!(status.message.starts_with("too old resource version"), "{}", status.message);
        }
        other => panic!("no error event: {other:?}"),
    }
    assert!(events.next().await.is_none(), "the stream ends behind it");
    Ok(())
}
