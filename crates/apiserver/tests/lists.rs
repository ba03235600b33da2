//! Lists that are too long to be made at once: made while they are sent, and found while they are made.

mod common;

use bytes::Bytes;
use fleetpass_apimachinery::user::UserInfo;
use fleetpass_apiserver::audit::{Log, Sink, Written};
use fleetpass_apiserver::body::Body;
use fleetpass_apiserver::{ApiServer, ClientService};
use fleetpass_store::{MemoryStore, Store as _, Txn};
use http::{Request, Response};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Empty};
use serde_json::{Value, json};
use std::io::Read as _;
use std::sync::{Arc, Mutex};
use tokio_util::sync::{CancellationToken, DropGuard};
use tower::ServiceExt as _;

const COUNT: usize = 3000;
const PATH: &str = "/api/v1/namespaces/default/configmaps";

/// The lines of an audit log.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<Value>>>);

impl Sink for Lines {
    fn write(&mut self, lines: &[Vec<u8>]) -> Written {
        let events = lines.iter().map(|line| serde_json::from_slice(line).expect("an event"));
        self.0.lock().expect("unpoisoned").extend(events);
        Written::default()
    }
}

/// A server with many ConfigMaps.
struct World {
    server: ApiServer,
    service: ClientService,
    lines: Lines,
    _stop: DropGuard,
}

fn name(n: usize) -> String {
    format!("c{n:05}")
}

async fn world() -> World {
    let store = MemoryStore::default();
    for n in 0..COUNT {
        // As it is stored: `metadata` comes first.
        let metadata = json!({"name": name(n), "namespace": "default", "uid": n.to_string(),
            "labels": {"even": (n % 2 == 0).to_string()}});
        let data = json!({"text": "x".repeat(100)});
        let value =
            format!(r#"{{"kind":"ConfigMap","apiVersion":"v1","metadata":{metadata},"data":{data}}}"#);
        let key = format!("/registry/configmaps/default/{}", name(n));
        store.commit(Txn::create(key, value)).await.expect("a commit");
    }
    let (lines, stop) = (Lines::default(), CancellationToken::new());
    let log = Log::start(lines.clone()).expect("a log");
    let server = common::audited_server_on(Arc::new(store), Some(log), &stop).await;
    let user = UserInfo { name: "root".into(), groups: vec!["system:masters".into()], ..UserInfo::default() };
    let service = server.client_service(user);
    World { server, service, lines, _stop: stop.drop_guard() }
}

impl World {
    async fn get(&self, query: &str, headers: &[(&str, &str)]) -> Response<Body> {
        let mut request = Request::get(format!("{PATH}?{query}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Empty::<Bytes>::new()).expect("a request");
        self.service.clone().oneshot(request).await.expect("an answer")
    }

    async fn list(&self, query: &str) -> Value {
        let answer = self.get(query, &[]).await;
        assert_eq!(answer.status(), 200);
        serde_json::from_slice(&all(answer).await).expect("JSON")
    }

    /// The events about lists of ConfigMaps.
    async fn events(&self) -> Vec<Value> {
        self.server.flush_audit_log().await;
        let lines = self.lines.0.lock().expect("unpoisoned");
        let lists = lines
            .iter()
            .filter(|event| event["requestURI"].as_str().is_some_and(|uri| uri.starts_with(PATH)));
        lists.cloned().collect()
    }
}

async fn all(answer: Response<Body>) -> Bytes {
    answer.into_body().collect().await.expect("a whole body").to_bytes()
}

fn names(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().expect("a list");
    items.iter().map(|item| item["metadata"]["name"].as_str().expect("a name").into()).collect()
}

#[tokio::test]
async fn pages_of_any_length_lead_through_the_list() {
    let world = world().await;
    for (limit, selector) in
        [(0, ""), (1000, ""), (1100, ""), (2000, ""), (2999, ""), (3000, ""), (3001, ""), (1400, "even=true")]
    {
        let expected: Vec<_> = (0..COUNT).filter(|n| selector.is_empty() || n % 2 == 0).map(name).collect();
        let (mut seen, mut token) = (Vec::new(), String::new());
        loop {
            let page = world.list(&format!("limit={limit}&labelSelector={selector}&continue={token}")).await;
            let names = names(&page);
            assert!(limit == 0 || names.len() <= limit, "{} of {limit}", names.len());
            seen.extend(names);
            let metadata = &page["metadata"];
            token = metadata["continue"].as_str().unwrap_or_default().into();
            let remaining = (selector.is_empty() && !token.is_empty()).then_some(COUNT - seen.len());
            assert_eq!(metadata["remainingItemCount"].as_u64(), remaining.map(|n| n as u64), "{limit}");
            if token.is_empty() {
                break;
            }
        }
        assert_eq!(seen, expected, "{limit} {selector}");
    }
}

#[tokio::test]
async fn selectors_find_what_is_far_behind() {
    let world = world().await;
    let last = world.list(&format!("fieldSelector=metadata.name={}", name(COUNT - 1))).await;
    assert_eq!(names(&last), [name(COUNT - 1)]);
    assert_eq!(names(&world.list("labelSelector=even=true").await).len(), COUNT / 2);
    assert_eq!(world.list("labelSelector=even=neither").await["items"], json!([]));
    assert_eq!(names(&world.list("fieldSelector=metadata.name!=c00000").await).len(), COUNT - 1);
}

#[tokio::test]
async fn every_form_has_all_of_the_objects() {
    let world = world().await;
    let partial = "as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    let table = "application/json;as=Table;g=meta.k8s.io;v=v1";
    let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).expect("JSON");
    let whole = world.list("").await;
    for (accept, check) in [
        (
            format!("application/json;{partial}"),
            &(|bytes: &[u8]| {
                assert_eq!(names(&json(bytes)).len(), COUNT);
                assert!(bytes.len() < COUNT * 250, "no data");
            }) as &dyn Fn(&[u8]),
        ),
        (table.into(), &|bytes| assert_eq!(json(bytes)["rows"].as_array().map(Vec::len), Some(COUNT))),
        ("application/yaml".into(), &|bytes| {
            let text = String::from_utf8_lossy(bytes);
            assert_eq!(text.lines().filter(|line| line.starts_with("- data:")).count(), COUNT);
        }),
        ("application/vnd.kubernetes.protobuf".into(), &|bytes| {
            let list = fleetpass_codec::protobuf::decode_object(bytes).expect("a list");
            assert_eq!((names(&list).len(), &list["kind"]), (COUNT, &json!("ConfigMapList")));
        }),
        (format!("application/vnd.kubernetes.protobuf;{partial}"), &|bytes| {
            assert_eq!(names(&fleetpass_codec::protobuf::decode_object(bytes).expect("a list")).len(), COUNT);
        }),
    ] {
        let answer = world.get("", &[("accept", &accept)]).await;
        assert_eq!(answer.body().size_hint().exact(), None, "{accept}: nobody knows how long it gets");
        check(&all(answer).await);
    }
    // Indented, as for curl; packed.
    let answer = world.get("", &[("user-agent", "curl/8"), ("accept-encoding", "gzip")]).await;
    assert_eq!(answer.headers()["content-encoding"], "gzip");
    let packed = all(answer).await;
    let mut text = Vec::new();
    flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut text).expect("gzip");
    assert!(text.starts_with(b"{\n  \"apiVersion\": \"v1\",\n  \"items\": [\n    {\n      \"data\""));
    assert_eq!(json(&text), whole);
    // A short one is sent with its length, and as it is.
    let answer = world.get("limit=2", &[("accept-encoding", "gzip")]).await;
    assert!(
        answer.body().size_hint().exact().is_some() && !answer.headers().contains_key("content-encoding")
    );
}

#[tokio::test]
async fn the_audit_log_hears_of_a_list_once_when_it_was_sent_or_given_up() {
    let world = world().await;
    let mut read = world.get("n=1", &[]).await.into_body();
    let mut given_up = world.get("n=2", &[]).await.into_body();
    for body in [&mut read, &mut given_up] {
        assert!(body.frame().await.expect("a piece").is_ok());
    }
    assert_eq!(world.events().await, [] as [Value; 0], "not before its end");
    drop(given_up);
    while read.frame().await.transpose().expect("a piece").is_some() {}
    drop(read);
    // Small answers are noted before they are sent.
    world.list("n=3&limit=1").await;
    let mut events = world.events().await;
    events.sort_by_key(|event| event["requestURI"].to_string());
    let seen: Vec<_> = events
        .iter()
        .map(|event| (event["stage"].as_str(), event["responseStatus"]["code"].as_u64()))
        .collect();
    assert_eq!(seen, [(Some("ResponseComplete"), Some(200)); 3]);
}
