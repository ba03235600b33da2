//! How much a server does at once, how long it takes for an answer, and how large ones are sent.

use anyhow::Context as _;
use bytes::Bytes;
use fleetpass_api::clock;
use fleetpass_apimachinery::user::{SYSTEM_MASTERS, UserInfo};
use fleetpass_apiserver::{RequestLimits, body};
use fleetpass_store::MemoryStore;
use fleetpass_testkit::cluster::Cluster;
use futures::{StreamExt as _, channel::mpsc};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tower::Service as _;

const CONFIGMAPS: &str = "/api/v1/namespaces/default/configmaps";

type Sent = UnsyncBoxBody<Bytes, Infallible>;

async fn cluster(limits: RequestLimits) -> anyhow::Result<Cluster> {
    let tune = |options: &mut fleetpass_apiserver::Options| options.limits = limits;
    Cluster::start_tuned(Arc::new(MemoryStore::default()), clock::system(), tune).await
}

fn admin() -> UserInfo {
    UserInfo { name: "admin".into(), groups: vec![SYSTEM_MASTERS.into()], ..UserInfo::default() }
}

/// One who may do something, but is not of the operator's own group.
async fn editor(cluster: &Cluster) -> anyhow::Result<UserInfo> {
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": "editor"}, "subjects": [{"kind": "User", "name": "eve", "apiGroup": "rbac.authorization.k8s.io"}],
        "roleRef": {"kind": "ClusterRole", "name": "cluster-admin", "apiGroup": "rbac.authorization.k8s.io"}});
    let path = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    let answer = ask(cluster, admin(), Method::POST, path, whole(&binding)).await?;
    anyhow::ensure!(answer.status() == StatusCode::CREATED);
    Ok(UserInfo { name: "eve".into(), groups: vec!["system:authenticated".into()], ..UserInfo::default() })
}

fn whole(value: &Value) -> Sent {
    Full::from(value.to_string()).boxed_unsync()
}

fn configmap(name: &str, size: usize) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"text": "x".repeat(size)}})
}

/// A body that comes when it is sent.
fn slow() -> (mpsc::UnboundedSender<Bytes>, Sent) {
    let (sender, receiver) = mpsc::unbounded();
    (sender, StreamBody::new(receiver.map(|bytes| Ok(Frame::data(bytes)))).boxed_unsync())
}

async fn ask(
    cluster: &Cluster,
    user: UserInfo,
    method: Method,
    target: &str,
    body: Sent,
) -> anyhow::Result<Response<body::Body>> {
    let request = Request::builder()
        .method(method)
        .uri(target)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ACCEPT_ENCODING, "gzip")
        .body(body)?;
    Ok(cluster.server.client_service(user).call(request).await?)
}

async fn text(answer: Response<body::Body>) -> anyhow::Result<String> {
    let bytes = answer.into_body().collect().await.map_err(anyhow::Error::from_boxed)?.to_bytes();
    Ok(String::from_utf8(bytes.into())?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_has_enough_to_do_says_so() -> anyhow::Result<()> {
    let cluster = cluster(RequestLimits { mutating: 1, ..RequestLimits::default() }).await?;
    let eve = editor(&cluster).await?;
    let (sender, body) = slow();
    let asking = ask(&cluster, eve.clone(), Method::POST, CONFIGMAPS, body);
    let meanwhile = async {
        // The controllers write as well, so that a slot may be taken for a moment by them; not for long.
        let mut refused = None;
        Cluster::eventually("429", async || {
            let body = whole(&configmap("second", 1));
            let answer =
                ask(&cluster, eve.clone(), Method::POST, &format!("{CONFIGMAPS}?dryRun=All"), body).await;
            refused = answer.ok().filter(|answer| answer.status() == StatusCode::TOO_MANY_REQUESTS);
            refused.is_some()
        })
        .await?;
        let refused = refused.context("429")?;
        assert_eq!(refused.headers()[header::RETRY_AFTER], "1");
        assert_eq!(refused.headers()[header::CONTENT_TYPE], "text/plain; charset=utf-8");
        assert_eq!(text(refused).await?, "Too many requests, please try again later.\n");
        // Reading has slots of its own, and the operator is let in.
        let read = ask(&cluster, eve.clone(), Method::GET, CONFIGMAPS, whole(&Value::Null)).await?;
        assert_eq!(read.status(), StatusCode::OK);
        let body = whole(&configmap("third", 1));
        let operator = ask(&cluster, admin(), Method::POST, CONFIGMAPS, body).await?;
        assert_eq!(operator.status(), StatusCode::CREATED);
        sender.unbounded_send(configmap("first", 1).to_string().into())?;
        drop(sender);
        anyhow::Ok(())
    };
    let (first, meanwhile) = tokio::join!(asking, meanwhile);
    meanwhile?;
    assert_eq!(first?.status(), StatusCode::CREATED);
    Cluster::eventually("a slot is free again", async || {
        let body = whole(&configmap("fourth", 1));
        let answer =
            ask(&cluster, eve.clone(), Method::POST, &format!("{CONFIGMAPS}?dryRun=All"), body).await;
        answer.is_ok_and(|answer| answer.status() == StatusCode::CREATED)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_takes_too_long_is_given_up() -> anyhow::Result<()> {
    let short = Duration::from_millis(200);
    let impatient = cluster(RequestLimits { timeout: short, ..RequestLimits::default() }).await?;
    let patient = cluster(RequestLimits::default()).await?;
    for (cluster, query) in [(&impatient, ""), (&patient, "?timeout=50ms"), (&impatient, "?timeout=1h")] {
        let (_never, body) = slow();
        let answer = ask(cluster, admin(), Method::POST, &format!("{CONFIGMAPS}{query}"), body).await?;
        assert_eq!(answer.status(), StatusCode::GATEWAY_TIMEOUT, "{query}");
        let status: Value = serde_json::from_str(&text(answer).await?)?;
        assert_eq!(status["reason"], "Timeout");
        assert_eq!(status["message"], "Timeout: request did not complete within the allotted timeout");
    }
    // Nobody is let in to be told that; a watch has a time of its own.
    let answer =
        ask(&patient, UserInfo::anonymous(), Method::GET, "/api?timeout=soon", whole(&Value::Null)).await?;
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    let target = format!("{CONFIGMAPS}?watch=1&timeout=50ms&timeoutSeconds=1");
    let answer = ask(&patient, admin(), Method::GET, &target, whole(&Value::Null)).await?;
    assert_eq!(answer.status(), StatusCode::OK);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_ends_when_its_time_is_up() -> anyhow::Result<()> {
    let cluster =
        cluster(RequestLimits { min_watch: Duration::from_millis(100), ..RequestLimits::default() }).await?;
    let target = format!("{CONFIGMAPS}?watch=1&resourceVersion=0&fieldSelector=metadata.name%3Dnobody");
    let answer = ask(&cluster, admin(), Method::GET, &target, whole(&Value::Null)).await?;
    assert_eq!(tokio::time::timeout(Duration::from_secs(10), text(answer)).await??, "");
    // The longest time that can be asked for is more than clocks can count.
    let target = format!("{CONFIGMAPS}?watch=1&timeoutSeconds={}", i64::MAX);
    let answer = ask(&cluster, admin(), Method::GET, &target, whole(&Value::Null)).await?;
    assert_eq!(answer.status(), StatusCode::OK);
    let ended = tokio::time::timeout(Duration::from_millis(300), text(answer)).await;
    assert!(ended.is_err(), "it ended: {ended:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn large_answers_are_packed_for_those_who_take_it() -> anyhow::Result<()> {
    let cluster = cluster(RequestLimits::default()).await?;
    for name in ["a", "b"] {
        let body = whole(&configmap(name, 100 * 1024));
        let answer = ask(&cluster, admin(), Method::POST, CONFIGMAPS, body).await?;
        assert_eq!(answer.status(), StatusCode::CREATED);
        assert!(!answer.headers().contains_key(header::CONTENT_ENCODING));
    }
    let answer = ask(&cluster, admin(), Method::GET, CONFIGMAPS, whole(&Value::Null)).await?;
    assert_eq!(answer.headers()[header::CONTENT_ENCODING], "gzip");
    assert_eq!(answer.headers()[header::VARY], "Accept-Encoding");
    let sent = answer.into_body().collect().await.map_err(anyhow::Error::from_boxed)?.to_bytes();
    assert!(sent.len() < 10 * 1024, "{} bytes", sent.len());
    Ok(())
}

/// However an object grows, it is stored up to 1.5 MiB, as kube-apiserver's etcd stores it.
#[tokio::test(flavor = "multi_thread")]
async fn a_stored_object_is_bounded_however_it_grows() -> anyhow::Result<()> {
    const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";
    let cluster = cluster(RequestLimits::default()).await?;
    let names = |prefix: &str, kilobytes: usize| {
        Value::from_iter(
            (0..kilobytes).map(|i| json!({"name": format!("{prefix}{i:04}-{}", "x".repeat(1000))})),
        )
    };
    let account = |name: &str, list: &str, value: Value| json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}, list: value});
    let adds: Vec<Value> = (0..700)
        .map(|i| json!({"op": "add", "path": "/secrets/-", "value": {"name": format!("b{i:04}-{}", "x".repeat(1000))}}))
        .collect();
    let copies = vec![json!({"op": "copy", "from": "/secrets/0", "path": "/secrets/-"}); 700];
    let json = "application/json";
    let apply = "application/apply-patch+yaml";
    for (method, path, kind, body) in [
        (Method::POST, "", json, account("new", "secrets", names("a", 1700))),
        (Method::PUT, "/one", json, account("one", "secrets", names("a", 1700))),
        (Method::PATCH, "/one", "application/json-patch+json", adds.into()),
        (Method::PATCH, "/one", "application/json-patch+json", copies.into()),
        (Method::PATCH, "/one", "application/merge-patch+json", json!({"imagePullSecrets": names("a", 700)})),
        (
            Method::PATCH,
            "/one",
            "application/strategic-merge-patch+json",
            json!({"secrets": names("b", 700)}),
        ),
        (Method::PATCH, "/one?fieldManager=m", apply, account("one", "secrets", names("b", 700))),
        (Method::PATCH, "/new?fieldManager=m", apply, account("new", "secrets", names("b", 1700))),
    ] {
        let what = format!("{method} {path} {kind}");
        let first = ask(
            &cluster,
            admin(),
            Method::POST,
            ACCOUNTS,
            whole(&account("one", "secrets", names("a", 900))),
        );
        anyhow::ensure!(first.await?.status() == StatusCode::CREATED, "{what}");
        let request = Request::builder()
            .method(method)
            .uri(format!("{ACCOUNTS}{path}"))
            .header(header::CONTENT_TYPE, kind)
            .body(whole(&body))?;
        let answer = cluster.server.client_service(admin()).call(request).await?;
        assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR, "{what}");
        let status: Value = serde_json::from_str(&text(answer).await?)?;
        assert_eq!(status["message"], "etcdserver: request is too large", "{what}");
        let request = Request::builder().uri(format!("{ACCOUNTS}/one")).body(whole(&Value::Null))?;
        let answer = cluster.server.client_service(admin()).call(request).await?;
        let object: Value = serde_json::from_str(&text(answer).await?)?;
        assert_eq!(object["secrets"].as_array().map(Vec::len), Some(900), "{what}");
        let gone =
            ask(&cluster, admin(), Method::DELETE, &format!("{ACCOUNTS}/one"), whole(&json!({}))).await?;
        assert_eq!(gone.status(), StatusCode::OK, "{what}");
    }
    Ok(())
}
