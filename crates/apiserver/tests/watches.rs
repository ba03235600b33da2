//! Watches of revisions that the store has not reached.
#![allow(clippy::unwrap_used)]

mod common;

use bytes::Bytes;
use fleetpass_apimachinery::user::{ALL_AUTHENTICATED, SYSTEM_MASTERS, UserInfo};
use fleetpass_store::{MemoryStore, Store as _, Txn};
use http::Request;
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// The first event of a watch of all ConfigMaps from a revision on, asked for now and awaited by the caller.
async fn first_event(server: &fleetpass_apiserver::ApiServer, revision: u64) -> Value {
    let admin = UserInfo {
        name: "admin".into(),
        groups: vec![SYSTEM_MASTERS.into(), ALL_AUTHENTICATED.into()],
        ..UserInfo::default()
    };
    let path = format!("/api/v1/configmaps?watch=1&resourceVersion={revision}");
    let request = Request::get(path).body(Full::new(Bytes::new())).unwrap();
    let answer = server.client_service(admin).oneshot(request).await.unwrap();
    assert_eq!(answer.status(), 200);
    let frame = answer.into_body().frame().await.unwrap().unwrap();
    serde_json::from_slice(&frame.into_data().unwrap()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_watch_from_a_revision_that_does_not_come_is_told_to_list_anew() {
    let (store, stop) = (Arc::new(MemoryStore::default()), CancellationToken::new());
    let server = common::server_on(store.clone(), &stop).await;
    let present = store.revision().await.unwrap();
    let event = first_event(&server, present + 1_000_000).await;
    assert_eq!(event["type"], "ERROR");
    assert_eq!((&event["object"]["code"], &event["object"]["reason"]), (&json!(410), &json!("Expired")));
    let message = event["object"]["message"].as_str().unwrap();
    assert!(message.starts_with("Too large resource version: "), "{message}");
    stop.cancel();
}

#[tokio::test]
async fn a_watch_from_a_revision_that_another_replica_has_already_waits_for_it() {
    let (store, stop) = (Arc::new(MemoryStore::default()), CancellationToken::new());
    let server = common::server_on(store.clone(), &stop).await;
    let object = |name: &str| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}})
            .to_string()
    };
    let ahead = store.revision().await.unwrap() + 1;
    let write = async {
        // Where it is asked for first, where it is written first: the event after that revision is the answer in both.
        store.commit(Txn::put("/registry/configmaps/default/seen", object("seen"))).await.unwrap();
        store.commit(Txn::put("/registry/configmaps/default/new", object("new"))).await.unwrap();
    };
    let (event, ()) = tokio::join!(first_event(&server, ahead), write);
    assert_eq!((&event["type"], &event["object"]["metadata"]["name"]), (&json!("ADDED"), &json!("new")));
    stop.cancel();
}
