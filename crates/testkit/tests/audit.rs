//! The audit log of a running server: every request leaves its events, and none of them a secret.

use anyhow::Context as _;
use bytes::Bytes;
use fleetpass_api::clock;
use fleetpass_apimachinery::user::{SYSTEM_MASTERS, UserInfo};
use fleetpass_apiserver::audit::{Log, Sink, Written};
use fleetpass_store::MemoryStore;
use fleetpass_testkit::cluster::{ADMIN_TOKEN, Cluster};
use fleetpass_testkit::oracle::Target;
use http::Request;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;
use tower::Service as _;

const ADMIN: (&str, &str) = ("authorization", "Bearer admintoken");
const SECRETS: &str = "/api/v1/namespaces/default/secrets";
const TOKEN: &str = "/api/v1/namespaces/default/serviceaccounts/robot/token";

/// Keeps what is written.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Sink for Kept {
    fn write(&mut self, lines: &[Vec<u8>]) -> Written {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(lines.concat());
        Written::default()
    }
}

struct Audited {
    cluster: Cluster,
    target: Target,
    kept: Kept,
}

impl Audited {
    async fn start() -> anyhow::Result<Self> {
        let kept = Kept::default();
        let log = Log::start(kept.clone())?;
        let store = Arc::new(MemoryStore::default());
        let cluster =
            Cluster::start_tuned(store, clock::system(), |options| options.audit = Some(log)).await?;
        let target = Target::new(cluster.address, &cluster.ca_pem, ADMIN_TOKEN)?;
        Ok(Self { cluster, target, kept })
    }

    /// All that was written so far.
    async fn text(&self) -> String {
        self.cluster.server.flush_audit_log().await;
        String::from_utf8_lossy(&self.kept.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// The events of the request with this id.
    async fn events(&self, id: &str) -> Vec<Value> {
        let text = self.text().await;
        let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        events.filter(|event| event["auditID"] == id).collect()
    }

    /// Asks over TLS; gives the answer's head, with its body still to come.
    async fn send(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> anyhow::Result<http::Response<Incoming>> {
        let io = TokioIo::new(self.target.connect().await?);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(target).header("host", "localhost");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let bytes = if body.is_null() { Bytes::new() } else { body.to_string().into() };
        Ok(sender.send_request(request.body(Full::new(bytes))?).await?)
    }

    /// Asks over TLS; gives the events that this left, and the answer.
    async fn ask(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> anyhow::Result<(Vec<Value>, Value)> {
        let response = self.send(method, target, headers, body).await?;
        let id = response.headers().get("audit-id").context("no Audit-Id")?.to_str()?.to_owned();
        let bytes = response.into_body().collect().await?.to_bytes();
        Ok((self.events(&id).await, serde_json::from_slice(&bytes).unwrap_or_default()))
    }

    /// As [`ask`](Self::ask), where one event is the answer's.
    async fn one(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> anyhow::Result<(Value, Value)> {
        let (mut events, answer) = self.ask(method, target, headers, body).await?;
        anyhow::ensure!(events.len() == 1, "{method} {target}: {events:?}");
        Ok((events.remove(0), answer))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_reaches_the_log() -> anyhow::Result<()> {
    let audited = Audited::start().await?;
    let body = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"},
        "stringData": {"password": "s3cr3t-value"}});
    let (event, _) = audited.one("POST", SECRETS, &[ADMIN], &body).await?;
    assert_eq!(event["objectRef"]["name"], "a");
    assert_eq!((&event["verb"], &event["responseStatus"]["code"]), (&json!("create"), &json!(201)));
    assert_eq!(event["annotations"]["authorization.k8s.io/decision"], "allow");
    // Refused, and the answer quotes the body.
    for refused in [
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "b"}, "data": {"password": "s3cr3t-value"}}),
        json!({"kind": "s3cr3t-value"}),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "b"}, "type": "kubernetes.io/tls",
            "stringData": {"s3cr3t-value/": ""}}),
    ] {
        let (event, answer) = audited.one("POST", SECRETS, &[ADMIN], &refused).await?;
        assert_eq!(event["responseStatus"]["code"], answer["code"]);
        assert!(matches!(answer["code"].as_i64(), Some(400 | 422)), "{answer}");
        assert_eq!(event["responseStatus"].get("message"), None);
    }
    let patch = ("content-type", "application/merge-patch+json");
    let patched = json!({"stringData": {"password": "s3cr3t-value"}});
    audited.one("PATCH", &format!("{SECRETS}/a"), &[ADMIN, patch], &patched).await?;
    let apply = ("content-type", "application/apply-patch+yaml");
    let wrong =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}, "data": ["s3cr3t-value"]});
    let target = format!("{SECRETS}/a?fieldManager=test");
    let (event, answer) = audited.one("PATCH", &target, &[ADMIN, apply], &wrong).await?;
    assert!(answer["message"].as_str().is_some_and(|message| message.contains("s3cr3t")), "{answer}");
    assert_eq!(event["responseStatus"].get("message"), None);
    let (_, read) = audited.one("GET", &format!("{SECRETS}/a"), &[ADMIN], &Value::Null).await?;
    let encoded = read["data"]["password"].as_str().context("the Secret is there")?;
    let (event, _) = audited.one("DELETE", &format!("{SECRETS}/a"), &[ADMIN], &Value::Null).await?;
    let gone = json!({"name": "a", "kind": "secrets", "uid": read["metadata"]["uid"]});
    assert_eq!(
        event["responseStatus"],
        json!({"metadata": {}, "status": "Success", "details": gone, "code": 200})
    );

    // A token is made, used, reviewed and put into a query.
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}});
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    audited.one("POST", accounts, &[ADMIN], &account).await?;
    let (issued, answer) = audited.one("POST", TOKEN, &[ADMIN], &json!({})).await?;
    let token = answer["status"]["token"].as_str().context("a token")?.to_owned();
    let credential = &issued["annotations"]["authentication.kubernetes.io/issued-credential-id"];
    assert!(credential.as_str().is_some_and(|id| id.starts_with("JTI=")), "{issued}");
    let bearer = format!("Bearer {token}");
    let as_robot = ("authorization", bearer.as_str());
    let (used, _) =
        audited.one("GET", &format!("{SECRETS}?token={token}"), &[as_robot], &Value::Null).await?;
    assert_eq!(&used["user"]["extra"]["authentication.kubernetes.io/credential-id"][0], credential);
    assert_eq!(used["requestURI"], format!("{SECRETS}?token=REDACTED"));
    assert_eq!(used["annotations"]["authorization.k8s.io/decision"], "forbid");
    assert_eq!(used["responseStatus"]["reason"], "Forbidden");
    let review =
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}});
    audited.one("POST", "/apis/authentication.k8s.io/v1/tokenreviews", &[ADMIN], &review).await?;

    // Bad credentials leave one event, that of the head of the answer.
    for (header, attempted) in [("Bearer s3cr3t-value", "bearer"), ("Basic czNjcjN0OnMzY3IzdA==", "basic")] {
        let bad = [("authorization", header), ("x-forwarded-for", "192.0.2.1")];
        let (events, _) = audited.ask("GET", SECRETS, &bad, &Value::Null).await?;
        if attempted == "bearer" {
            assert_eq!(events.len(), 1, "{events:?}");
            assert_eq!(events[0]["stage"], "ResponseStarted");
            let message = format!("Authentication failed, attempted: {attempted}");
            assert_eq!(events[0]["responseStatus"], json!({"metadata": {}, "message": message, "code": 401}));
            assert_eq!(events[0]["sourceIPs"], json!(["192.0.2.1", "127.0.0.1"]));
        }
    }

    let text = audited.text().await;
    let (signature, password) = (token.rsplit('.').next().unwrap_or(&token), encoded);
    for secret in ["s3cr3t", ADMIN_TOKEN, "czNjcjN0", &token, signature, password] {
        let lines: Vec<&str> = text.lines().filter(|line| line.contains(secret)).collect();
        assert!(lines.is_empty(), "{secret}: {lines:?}");
    }
    for line in text.lines() {
        let event: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        assert_eq!((&event["kind"], &event["level"]), (&json!("Event"), &json!("Metadata")));
        assert!(event.get("requestObject").is_none() && event.get("responseObject").is_none());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_leaves_an_event_when_it_begins_and_one_when_it_is_over() -> anyhow::Result<()> {
    let audited = Audited::start().await?;
    let id = ("audit-id", "my-watch");
    let target = "/api/v1/namespaces/default/configmaps?watch=true";
    let response = audited.send("GET", target, &[ADMIN, id], &Value::Null).await?;
    assert_eq!(response.headers()["audit-id"], "my-watch");
    let events = audited.events("my-watch").await;
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!((&events[0]["verb"], &events[0]["stage"]), (&json!("watch"), &json!("ResponseStarted")));
    drop(response);
    let both = async || audited.events("my-watch").await.len() == 2;
    Cluster::eventually("the watch is over", both).await?;
    let last = &audited.events("my-watch").await[1];
    assert_eq!((&last["stage"], &last["responseStatus"]["code"]), (&json!("ResponseComplete"), &json!(200)));
    // One that is refused begins and is over at once.
    let (events, _) = audited.ask("GET", "/api/v1/pods?watch=1", &[], &Value::Null).await?;
    let stages: Vec<&Value> = events.iter().map(|event| &event["stage"]).collect();
    assert_eq!(stages, [&json!("ResponseStarted"), &json!("ResponseComplete")]);
    assert_eq!(events[1]["user"]["username"], "system:anonymous");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_acts_as_another_is_named_with_him() -> anyhow::Result<()> {
    let audited = Audited::start().await?;
    let headers = [ADMIN, ("impersonate-user", "bob"), ("impersonate-group", "devs")];
    let (event, _) = audited.one("GET", SECRETS, &headers, &Value::Null).await?;
    assert_eq!(
        (&event["user"]["username"], &event["impersonatedUser"]["username"]),
        (&json!("admin"), &json!("bob"))
    );
    assert_eq!(event["responseStatus"]["code"], 403);
    Ok(())
}

/// The write may have been done already: who leaves early must not get away without a trace.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_before_the_answer_leaves_an_event() -> anyhow::Result<()> {
    let audited = Audited::start().await?;
    let admin = UserInfo { name: "admin".into(), groups: vec![SYSTEM_MASTERS.into()], ..UserInfo::default() };
    let reading = Arc::new(Notify::new());
    let said = reading.clone();
    let body = StreamBody::new(futures::stream::poll_fn(move |_| {
        said.notify_one();
        std::task::Poll::<Option<Result<Frame<Bytes>, std::io::Error>>>::Pending
    }));
    let request = Request::builder().method("POST").uri(SECRETS).header("audit-id", "gone").body(body)?;
    let mut service = audited.cluster.server.client_service(admin);
    tokio::select! {
        answer = service.call(request) => panic!("answered without a body: {answer:?}"),
        () = reading.notified() => {}
    }
    let events = audited.events("gone").await;
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(events[0]["responseStatus"]["message"], "Connection closed early");
    assert_eq!(events[0]["stage"], "ResponseComplete");
    assert_eq!(events[0].get("sourceIPs"), None, "no socket, no address");
    Ok(())
}
