//! Lists in pages, and the deletion of whole collections.

mod common;

use async_trait::async_trait;
use bytes::Bytes;
use fleetpass_apimachinery::user::UserInfo;
use fleetpass_store::{Entry, EventStream, Health, Listing, MemoryStore, Op, Result, Revision, Store, Txn};
use http::Request;
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// A store in which deletions wait until they are let through, and are counted while they wait.
struct Gated {
    store: MemoryStore,
    open: watch::Sender<bool>,
    waiting: watch::Sender<usize>,
}

impl Gated {
    fn new(open: bool) -> Arc<Self> {
        let (open, waiting) = (watch::Sender::new(open), watch::Sender::new(0));
        Arc::new(Self { store: MemoryStore::default(), open, waiting })
    }

    /// Returns when so many deletions wait.
    async fn wait_for(&self, waiting: usize) {
        self.waiting.subscribe().wait_for(|now| *now == waiting).await.expect("the store is there");
    }
}

#[async_trait]
impl Store for Gated {
    async fn get(&self, key: &str) -> Result<Option<Entry>> {
        self.store.get(key).await
    }
    async fn list(&self, prefix: &str) -> Result<Listing> {
        self.store.list(prefix).await
    }
    async fn commit(&self, txn: Txn) -> Result<Revision> {
        if txn.ops.iter().any(|op| matches!(op, Op::Delete { .. })) {
            self.waiting.send_modify(|waiting| *waiting += 1);
            self.open.subscribe().wait_for(|open| *open).await.expect("the store is there");
        }
        self.store.commit(txn).await
    }
    async fn revision(&self) -> Result<Revision> {
        self.store.revision().await
    }
    async fn watch(&self, after: Revision) -> Result<EventStream> {
        self.store.watch(after).await
    }
    fn health(&self) -> Health {
        self.store.health()
    }
    async fn close(&self) {
        self.store.close().await;
    }
}

/// A server with `count` ConfigMaps in the namespace `default`.
struct World {
    store: Arc<Gated>,
    service: fleetpass_apiserver::ClientService,
    _stop: tokio_util::sync::DropGuard,
}

const PATH: &str = "/api/v1/namespaces/default/configmaps";

async fn world(count: usize, open: bool) -> World {
    let store = Gated::new(open);
    let stop = CancellationToken::new();
    let user = UserInfo { name: "root".into(), groups: vec!["system:masters".into()], ..UserInfo::default() };
    let service = common::server_on(store.clone(), &stop).await.client_service(user);
    let world = World { store, service, _stop: stop.drop_guard() };
    for n in 0..count {
        let body =
            json!({"metadata": {"name": format!("c{n:03}"), "labels": {"even": (n % 2 == 0).to_string()}}});
        assert_eq!(world.ask("POST", PATH, body).await.0, 201);
    }
    world
}

impl World {
    async fn ask(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
        let request = request.body(Full::new(body)).expect("a request");
        let answer = self.service.clone().oneshot(request).await.expect("an answer");
        let code = answer.status().as_u16();
        let body = answer.into_body().collect().await.expect("a body").to_bytes();
        (code, serde_json::from_slice(&body).expect("JSON"))
    }

    async fn list(&self, query: &str) -> Value {
        let (code, list) = self.ask("GET", &format!("{PATH}?{query}"), Value::Null).await;
        assert_eq!(code, 200, "{list}");
        list
    }

    /// Waits until no object is left.
    async fn emptied(&self) {
        while self.list("").await["items"] != json!([]) {
            tokio::task::yield_now().await;
        }
    }
}

fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().expect("a list");
    items.iter().map(|item| item["metadata"]["name"].as_str().expect("a name")).collect()
}

#[tokio::test]
async fn pages_tell_what_is_behind_them_and_show_one_state() {
    let world = world(50, true).await;
    let all = world.list("").await;
    let (mut token, mut seen, mut remaining) = (String::new(), Vec::new(), Vec::new());
    loop {
        let page = world.list(&format!("limit=20&continue={token}")).await;
        seen.extend(names(&page).into_iter().map(String::from));
        remaining.push(page["metadata"]["remainingItemCount"].clone());
        assert_eq!(page["metadata"]["resourceVersion"], all["metadata"]["resourceVersion"]);
        // What happens between two pages changes none of them.
        let gone = format!("{PATH}/c0{}", 49 - remaining.len());
        assert_eq!(world.ask("DELETE", &gone, Value::Null).await.0, 200);
        let new = json!({"metadata": {"name": format!("c0{}-new", 30 + remaining.len())}});
        assert_eq!(world.ask("POST", PATH, new).await.0, 201);
        token = page["metadata"]["continue"].as_str().unwrap_or_default().into();
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(remaining, [json!(30), json!(10), Value::Null]);
    assert_eq!(seen, names(&all));
    assert_eq!(names(&world.list("fieldSelector=metadata.name%3Dc007").await), ["c007"]);
    let page = world.list("limit=5&labelSelector=even%3Dtrue").await;
    assert_eq!(names(&page), ["c000", "c002", "c004", "c006", "c008"]);
    assert_eq!(page["metadata"].get("remainingItemCount"), None);
}

#[tokio::test]
async fn a_collection_is_deleted_many_at_a_time_and_only_what_was_selected() {
    let world = world(150, false).await;
    let delete =
        async { world.ask("DELETE", &format!("{PATH}?labelSelector=even%3Dtrue"), Value::Null).await };
    let ((code, deleted), ()) = tokio::join!(delete, async {
        // As many as there may be at once; no other comes before one of these is done.
        world.store.wait_for(64).await;
        world.store.open.send_replace(true);
    });
    assert_eq!((code, names(&deleted).len()), (200, 75), "{deleted}");
    assert_eq!(names(&world.list("").await).len(), 75);
    assert_eq!(names(&world.list("labelSelector=even%3Dtrue").await), [] as [&str; 0]);
}

#[tokio::test]
async fn what_something_holds_is_marked() {
    let world = world(3, true).await;
    let held = json!({"metadata": {"finalizers": ["example.com/hold"]}});
    let request =
        Request::patch(format!("{PATH}/c001")).header("content-type", "application/merge-patch+json");
    let request = request.body(Full::new(Bytes::from(held.to_string()))).expect("a request");
    assert_eq!(world.service.clone().oneshot(request).await.expect("an answer").status(), 200);
    assert_eq!(world.ask("DELETE", PATH, Value::Null).await.0, 200);
    let left = world.list("").await;
    assert_eq!(names(&left), ["c001"]);
    assert!(left["items"][0]["metadata"]["deletionTimestamp"].is_string());
}

#[tokio::test]
async fn a_deletion_goes_on_when_its_time_is_up() {
    let world = world(100, false).await;
    // On a busy machine a request's time may be up before it has its turn; then there is nothing that could go on.
    let mut timeout = 20;
    while *world.store.waiting.borrow() == 0 {
        let path = format!("{PATH}?timeout={timeout}ms");
        let (code, status) = world.ask("DELETE", &path, Value::Null).await;
        assert_eq!((code, &status["reason"]), (504, &json!("Timeout")), "{status}");
        timeout *= 2;
    }
    world.store.open.send_replace(true);
    world.emptied().await;
}

#[tokio::test]
async fn a_deletion_goes_on_when_its_client_is_gone() {
    let world = world(100, false).await;
    tokio::select! {
        _ = world.ask("DELETE", PATH, Value::Null) => unreachable!("the store does not let it through"),
        () = world.store.wait_for(64) => {}
    }
    world.store.open.send_replace(true);
    world.emptied().await;
}

#[tokio::test]
async fn what_is_searched_in_pieces_is_all_there() {
    let world = world(0, true).await;
    let secrets = "/api/v1/namespaces/default/secrets";
    for n in 0..20 {
        let kind = if n % 3 == 0 { "example.com/a" } else { "example.com/b" };
        // Decoding one of them is more than a quarter of a piece.
        let data = json!({"text": "x".repeat(40_000)});
        let body = json!({"metadata": {"name": format!("s{n:02}")}, "type": kind, "stringData": data});
        assert_eq!(world.ask("POST", secrets, body).await.0, 201);
    }
    let query = "fieldSelector=type%3Dexample.com/a";
    let (code, list) = world.ask("GET", &format!("{secrets}?{query}"), Value::Null).await;
    let expected = ["s00", "s03", "s06", "s09", "s12", "s15", "s18"];
    assert_eq!((code, names(&list)), (200, expected.to_vec()));
    let watch = format!(
        "{secrets}?watch=1&{query}&sendInitialEvents=true&allowWatchBookmarks=true\
        &resourceVersionMatch=NotOlderThan"
    );
    let request = Request::get(watch).body(Full::new(Bytes::new())).expect("a request");
    let answer = world.service.clone().oneshot(request).await.expect("an answer");
    let (mut body, mut text) = (answer.into_body(), Vec::new());
    while !text.windows(8).any(|window| window == b"BOOKMARK") {
        let frame = body.frame().await.expect("an event").expect("a frame");
        text.extend_from_slice(&frame.into_data().expect("data"));
    }
    let text = String::from_utf8(text).expect("text");
    let events = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let seen: Vec<_> = events
        .map(|event| event["object"]["metadata"]["name"].as_str().unwrap_or("end").to_owned())
        .collect();
    assert_eq!(seen, [&expected[..], &["end"]].concat());
}
