//! A hub whose disk fails for a while: it goes on to say what it knows, refuses what it cannot write with the cause, and comes
//! back by itself with everything that it acknowledged.

use anyhow::Context as _;
use fleetpass_api::clock;
use fleetpass_apimachinery::user::{SYSTEM_MASTERS, UserInfo};
use fleetpass_store::suite::disk::{Disk, Fault, Plan};
use fleetpass_store::{EmbeddedStore, Store};
use fleetpass_testkit::cluster::Cluster;
use futures::StreamExt as _;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, WatchEvent, WatchParams};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use tower::Service as _;

const CONFIGMAPS: &str = "/api/v1/namespaces/default/configmaps";
const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";

/// Asks as the administrator; status and text of the answer.
async fn ask(
    cluster: &Cluster,
    method: &str,
    path: &str,
    body: &Value,
) -> anyhow::Result<(StatusCode, String)> {
    let user = UserInfo { name: "admin".into(), groups: vec![SYSTEM_MASTERS.into()], ..UserInfo::default() };
    let body = if body.is_null() { Vec::new() } else { serde_json::to_vec(body)? };
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/json")
        .body(Full::from(body))?;
    let answer = cluster.server.client_service(user).call(request).await?;
    let status = answer.status();
    let bytes = answer.into_body().collect().await.map_err(anyhow::Error::from_boxed)?.to_bytes();
    Ok((status, String::from_utf8(bytes.into())?))
}

async fn create(cluster: &Cluster, path: &str, object: &Value) -> anyhow::Result<Value> {
    let (status, text) = ask(cluster, "POST", path, object).await?;
    anyhow::ensure!(status == StatusCode::CREATED, "{path}: {status} {text}");
    Ok(serde_json::from_str(&text)?)
}

fn configmap(name: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {"text": "x".repeat(10_000)}})
}

fn token_request() -> Value {
    json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}})
}

/// The names of the ConfigMaps that the test made.
async fn listed(cluster: &Cluster) -> anyhow::Result<BTreeSet<String>> {
    let (status, text) = ask(cluster, "GET", CONFIGMAPS, &Value::Null).await?;
    anyhow::ensure!(status == StatusCode::OK, "{status} {text}");
    let list: Value = serde_json::from_str(&text)?;
    let names = list["items"].as_array().context("a list")?.iter();
    let names = names.map(|item| item["metadata"]["name"].as_str().unwrap_or_default().to_owned());
    Ok(names.filter(|name| name != "kube-root-ca.crt").collect())
}

/// What goes on whatever the disk does.
async fn what_is_known(cluster: &Cluster, token: &str) -> anyhow::Result<()> {
    assert!(listed(cluster).await?.contains("before"));
    let (status, text) = ask(cluster, "GET", &format!("{CONFIGMAPS}/before"), &Value::Null).await?;
    assert_eq!(status, StatusCode::OK, "{text}");
    create(cluster, &format!("{ACCOUNTS}/robot/token"), &token_request()).await?;
    let review =
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}});
    let reviewed = create(cluster, "/apis/authentication.k8s.io/v1/tokenreviews", &review).await?;
    assert_eq!(reviewed["status"]["authenticated"], true, "{reviewed}");
    // Over the network, as somebody who is known by a token of ours, and may do little.
    let robot = cluster.client_over_tls(cluster.address, token).await?;
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let request = Request::post("/apis/authentication.k8s.io/v1/selfsubjectreviews")
        .header("content-type", "application/json")
        .body(serde_json::to_vec(&review)?)?;
    let who: Value = robot.request(request).await?;
    assert_eq!(who["status"]["userInfo"]["username"], "system:serviceaccount:default:robot");
    let forbidden = robot.request::<Value>(Request::get(CONFIGMAPS).body(Vec::new())?).await;
    assert!(matches!(&forbidden, Err(kube::Error::Api(status)) if status.code == 403), "{forbidden:?}");
    Ok(())
}

async fn health(cluster: &Cluster, path: &str) -> anyhow::Result<(u16, String)> {
    let (status, text) = ask(cluster, "GET", path, &Value::Null).await?;
    Ok((status.as_u16(), text))
}

async fn comes_back(fault: Fault, cause: &str) -> anyhow::Result<()> {
    let disk = Disk::new();
    let cluster = Cluster::start_with(Arc::new(EmbeddedStore::on_disk(&disk)), clock::system()).await?;
    create(&cluster, ACCOUNTS, &json!({"metadata": {"name": "robot"}})).await?;
    let token = create(&cluster, &format!("{ACCOUNTS}/robot/token"), &token_request()).await?;
    let token = token["status"]["token"].as_str().context("a token")?;
    let before = create(&cluster, CONFIGMAPS, &configmap("before")).await?;
    let revision = before["metadata"]["resourceVersion"].as_str().context("a revision")?;
    let maps: Api<ConfigMap> = Api::namespaced(cluster.admin(), "default");
    let params = WatchParams::default().fields("metadata.name!=kube-root-ca.crt");
    let mut watch = maps.watch(&params, revision).await?.boxed();

    disk.fail(Some(Plan { after: 0, lasting: u32::MAX, fault }));
    for name in ["first", "second", "third"] {
        let (status, text) = ask(&cluster, "POST", CONFIGMAPS, &configmap(name)).await?;
        let refusal: Value = serde_json::from_str(&text)?;
        assert_eq!((status.as_u16(), refusal["kind"].as_str()), (500, Some("Status")), "{text}");
        assert!(refusal["message"].as_str().unwrap_or_default().ends_with(cause), "{text}");
        assert!(!text.contains("simulated"), "clients are told no file: {text}");
    }
    let (status, _) = ask(&cluster, "DELETE", &format!("{CONFIGMAPS}/before"), &Value::Null).await?;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(
        listed(&cluster).await?,
        BTreeSet::from(["before".to_owned()]),
        "what is not certain is not shown"
    );
    what_is_known(&cluster, token).await?;
    let (code, text) = health(&cluster, "/readyz?verbose").await?;
    assert_eq!(code, 500);
    assert!(text.contains("[-]store failed: reason withheld\n"), "{text}");
    assert!(text.contains("[+]watch-cache ok\n") && text.contains("[+]store-engine ok\n"), "{text}");
    assert_eq!(health(&cluster, "/livez").await?, (200, "ok".into()));

    disk.fail(None);
    Cluster::eventually("ready again", async || {
        health(&cluster, "/readyz").await.is_ok_and(|(code, _)| code == 200)
    })
    .await?;
    create(&cluster, CONFIGMAPS, &configmap("after")).await?;
    what_is_known(&cluster, token).await?;
    // One watch from before to after, without a gap: it makes what a list shows.
    let mut seen = BTreeSet::from(["before".to_owned()]);
    while !seen.contains("after") {
        match watch.next().await.context("the watch goes on")?? {
            WatchEvent::Added(map) => {
                assert!(seen.insert(map.metadata.name.unwrap_or_default()), "nothing is told twice");
            }
            other => anyhow::bail!("{other:?}"),
        }
    }
    assert_eq!(seen, listed(&cluster).await?);
    if fault != Fault::Io {
        assert_eq!(
            seen,
            BTreeSet::from(["before".to_owned(), "after".to_owned()]),
            "what was refused is not there"
        );
    }

    let all = listed(&cluster).await?;
    let store = cluster.store.clone();
    drop(cluster);
    store.close().await;
    let again = Cluster::start_with(Arc::new(EmbeddedStore::on_disk(&disk)), clock::system()).await?;
    assert_eq!(listed(&again).await?, all, "nothing is lost");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_goes_on_while_its_disk_is_full() -> anyhow::Result<()> {
    comes_back(Fault::NoSpace, ": no space left on device").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_goes_on_while_its_disk_gives_errors() -> anyhow::Result<()> {
    comes_back(Fault::Io, ": Input/output error (os error 5)").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_goes_on_while_its_disk_only_reads() -> anyhow::Result<()> {
    comes_back(Fault::ReadOnly, ": read-only file system").await
}

/// A server that cannot put in place what it needs says which file cannot be written and what to do.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_at_the_start_is_an_error_for_the_operator() -> anyhow::Result<()> {
    let disk = Disk::new();
    let store = Arc::new(EmbeddedStore::on_disk(&disk));
    disk.fail(Some(Plan { after: 0, lasting: u32::MAX, fault: Fault::NoSpace }));
    let error = Cluster::start_with(store.clone(), clock::system()).await.err().context("no room")?;
    let text = error.to_string();
    assert!(text.contains("simulated cannot be written: no space left on device"), "{text}");
    assert!(text.ends_with("make room on its file system, and start again"), "{text}");
    disk.fail(None);
    store.close().await;
    Cluster::start_with(Arc::new(EmbeddedStore::on_disk(&disk)), clock::system()).await?;
    Ok(())
}
