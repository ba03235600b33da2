use super::*;
use bytes::Bytes;
use futures::channel::mpsc;
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody};
use k8s_openapi::{api::core::v1::ConfigMap, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{Client, ResourceExt as _, client::Body};
use serde_json::{Value, json};
use std::{
    cell::RefCell,
    convert::Infallible,
    sync::{Mutex, PoisonError},
};
use tokio::time::{Instant, sleep};

/// What a watch sends: one event a line, for as long as the sender is held.
type Events = mpsc::UnboundedReceiver<Result<Vec<u8>, Infallible>>;
type Sender = mpsc::UnboundedSender<Result<Vec<u8>, Infallible>>;

/// A server that answers each list, and the watch after it, with what is next. Then it is silent.
fn server(answers: impl IntoIterator<Item = (Value, Events)>) -> Client {
    let (lists, watches): (Vec<_>, Vec<_>) = answers.into_iter().unzip();
    let rest = Arc::new(Mutex::new((lists.into_iter(), watches.into_iter())));
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let watching = request.uri().query().unwrap_or_default().contains("watch=");
        let mut rest = rest.lock().unwrap_or_else(PoisonError::into_inner);
        let body = match watching {
            false => rest.0.next().map(|list| Full::new(Bytes::from(list.to_string())).boxed_unsync()),
            true => rest.1.next().map(|events| {
                let frames = events.map(|line| line.map(|line| Frame::data(line.into())));
                StreamBody::new(frames).boxed_unsync()
            }),
        };
        async move {
            match body {
                Some(body) => Ok::<_, Infallible>(http::Response::new(body)),
                None => std::future::pending().await,
            }
        }
    });
    Client::new(service, "default")
}

fn object(name: &str, version: u64) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {
            "namespace": "ns", "name": name, "resourceVersion": version.to_string(), "uid": format!("uid-{version}"),
            "labels": {"a": "b"}, "annotations": {"c": "d"}, "managedFields": [{"manager": "someone"}],
        },
    })
}

fn list(version: u64, items: &[Value]) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMapList",
        "metadata": {"resourceVersion": version.to_string()}, "items": items,
    })
}

fn send(events: &Sender, event: &str, object: Value) {
    let line = json!({"type": event, "object": object}).to_string() + "\n";
    events.unbounded_send(Ok(line.into_bytes())).unwrap();
}

/// A run: when in seconds, of which object, at which version.
type Seen = (u64, String, String);

/// Has `script` happen to a server that gives `answers`, and gives all runs. What the objects' names begin with says
/// how runs end: "bad" fails, "again" comes after 100 seconds, all others well. Retries come after 10 seconds.
async fn runs(answers: Vec<(Value, Events)>, script: impl Future<Output = ()>) -> Vec<Seen> {
    let start = Instant::now();
    let (seen, failures) = (RefCell::new(Vec::new()), RefCell::new(Vec::new()));
    let reconcile = |object: Arc<ConfigMap>| {
        let ObjectMeta { labels, annotations, managed_fields, .. } = &object.metadata;
        assert_eq!((labels, annotations, managed_fields), (&None, &None, &None), "they are not kept");
        let name = object.name_any();
        let version = object.resource_version().unwrap();
        seen.borrow_mut().push((start.elapsed().as_secs(), name.clone(), version));
        async move {
            match name.as_str() {
                "bad" => Err(kube::Error::TlsRequired),
                "again" => Ok(Next::After(Duration::from_secs(100))),
                _ => Ok(Next::Wait),
            }
        }
    };
    let failed = |key: &ObjectRef<ConfigMap>, error: &kube::Error| {
        assert!(matches!(error, kube::Error::TlsRequired));
        failures.borrow_mut().push(key.clone());
    };
    let shutdown = CancellationToken::new();
    let retry = Duration::from_secs(10);
    let select = watcher::Config::default();
    let again = Notify::new();
    let control =
        control(Api::all(server(answers)), select, retry, reconcile, failed, &again, shutdown.clone());
    let end = async {
        script.await;
        shutdown.cancel();
    };
    tokio::join!(control, end);
    let bad = ObjectRef::new("bad").within("ns");
    assert!(failures.borrow().iter().all(|failed| *failed == bad));
    let failing = seen.borrow().iter().filter(|(_, name, _)| name == "bad").count();
    assert_eq!(failures.borrow().len(), failing, "each failure is told");
    seen.into_inner()
}

fn seen(expected: &[(u64, &str, u64)]) -> Vec<Seen> {
    expected.iter().map(|(at, name, version)| (*at, (*name).to_owned(), version.to_string())).collect()
}

#[tokio::test(start_paused = true)]
async fn objects_run_when_they_are_seen_change_or_are_due_and_not_when_they_are_gone() {
    let (events, watch) = mpsc::unbounded();
    let all = list(3, &[object("again", 1), object("bad", 2), object("good", 3)]);
    let script = async {
        sleep(Duration::from_secs(15)).await;
        send(&events, "MODIFIED", object("good", 4));
        send(&events, "DELETED", object("bad", 5));
        send(&events, "ADDED", object("new", 6));
        // "again" has to wait from now.
        send(&events, "MODIFIED", object("again", 7));
        sleep(Duration::from_secs(110)).await;
        send(&events, "DELETED", object("again", 8));
        sleep(Duration::from_secs(1_000)).await;
    };
    let mut runs = runs(vec![(all, watch)], script).await;
    runs.sort();
    let expected = [
        (0, "again", 1),
        (0, "bad", 2),
        (0, "good", 3),
        (10, "bad", 2),
        (15, "again", 7),
        (15, "good", 4),
        (15, "new", 6),
        (115, "again", 7),
    ];
    assert_eq!(runs, seen(&expected));
}

#[tokio::test(start_paused = true)]
async fn a_new_list_is_looked_at_as_it_is_when_it_is_complete() {
    let ((first, watch), (_second, silence)) = (mpsc::unbounded(), mpsc::unbounded());
    let lists = [list(2, &[object("changed", 1), object("gone", 2)]), list(9, &[object("changed", 8)])];
    let answers = lists.into_iter().zip([watch, silence]).collect();
    let script = async {
        sleep(Duration::from_secs(1)).await;
        let expired =
            json!({"kind": "Status", "status": "Failure", "code": 410, "reason": "Expired", "message": ""});
        send(&first, "ERROR", expired);
        sleep(Duration::from_secs(100)).await;
    };
    let mut runs: Vec<_> =
        runs(answers, script).await.into_iter().map(|(_, name, version)| (name, version)).collect();
    runs.sort();
    let expected = [("changed", "1"), ("changed", "8"), ("gone", "2")];
    assert_eq!(runs, expected.map(|(name, version)| (name.to_owned(), version.to_owned())));
}
