use super::*;
use crate::{fake::Log, health::Health};
use http::{Request, Response};
use http_body_util::{BodyExt as _, combinators::UnsyncBoxBody};
use kube::{Client, client::Body};
use serde_json::{Value, json};
use std::{convert::Infallible, sync::Mutex};

#[test]
fn waits_are_anywhere_below_a_ceiling_that_doubles() {
    for (earlier, seconds) in [(0, 1), (1, 2), (2, 4), (3, 8), (4, 16), (5, 30), (6, 30), (u32::MAX, 30)] {
        let ceiling = Duration::from_secs(seconds);
        assert_eq!(reconnect_wait(earlier, 0), Duration::ZERO);
        assert_eq!(reconnect_wait(earlier, u32::MAX), ceiling);
        let half = reconnect_wait(earlier, u32::MAX / 2);
        assert!(half > ceiling * 49 / 100 && half < ceiling * 51 / 100, "{earlier}: {half:?}");
    }
}

#[test]
fn only_a_watch_that_lasts_forgets_the_failures_before_it() {
    let start = Instant::now();
    let mut reconnect = Reconnect::default();
    let mut now = start;
    for seconds in [1, 2, 4, 8, 16, 30, 30] {
        // It was taken up again, and failed a moment later.
        let wait = reconnect.after_failure(now, u32::MAX);
        assert_eq!(wait, Duration::from_secs(seconds));
        now += wait + Duration::from_secs(1);
    }
    now += STEADY;
    assert_eq!(reconnect.after_failure(now, u32::MAX), Duration::from_secs(1));
}

type Answer = Response<UnsyncBoxBody<bytes::Bytes, Infallible>>;

fn text(text: impl Into<bytes::Bytes>) -> Answer {
    Response::new(http_body_util::Full::new(text.into()).boxed_unsync())
}

/// Open, and silent for ever.
fn silence() -> Answer {
    let silence = futures::stream::pending::<Result<http_body::Frame<bytes::Bytes>, Infallible>>();
    Response::new(http_body_util::StreamBody::new(silence).boxed_unsync())
}

fn object(name: &str, version: u64) -> Value {
    json!({"metadata": {"name": name, "resourceVersion": version.to_string()}})
}

fn list(version: u64, next: &str, items: &[Value]) -> Answer {
    text(
        json!({"metadata": {"resourceVersion": version.to_string(), "continue": next}, "items": items})
            .to_string(),
    )
}

/// A value of the query.
fn value(query: &str, key: &str) -> Option<String> {
    let pair = query.split('&').find_map(|pair| pair.split_once('=').filter(|(name, _)| *name == key));
    pair.map(|(_, value)| value.to_owned())
}

/// A watch of a server that answers queries so.
struct Scene {
    signals: mpsc::Receiver<Signal>,
    health: Arc<Health>,
    asked: Arc<Mutex<Vec<String>>>,
    _watching: tokio_util::task::AbortOnDropHandle<()>,
}

fn watching(kind: Kind, answer: impl Fn(&str) -> Answer + Clone + Send + 'static) -> Scene {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = asked.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let query = request.uri().query().unwrap_or_default().to_owned();
        let answer = answer(&query);
        log.lock().unwrap().push(query);
        async move { Ok::<_, Infallible>(answer) }
    });
    let health = Arc::new(Health::default());
    let client = Client::new(service, "default");
    let peer = Arc::new(Peer::new(kind.side(), client, Duration::from_secs(30), health.clone()));
    let (send, signals) = mpsc::channel(100_000);
    let watching = tokio::spawn(watch(peer, "/api/v1/namespaces/c1/secrets".to_owned(), kind, send));
    let _watching = tokio_util::task::AbortOnDropHandle::new(watching);
    Scene { signals, health, asked, _watching }
}

impl Scene {
    /// What it told in that time.
    async fn tells(&mut self, time: Duration) -> Vec<Signal> {
        let mut told = Vec::new();
        let end = Instant::now() + time;
        while let Ok(Some(signal)) = tokio::time::timeout_at(end, self.signals.recv()).await {
            told.push(signal);
        }
        told
    }

    fn lists(&self) -> usize {
        self.asked.lock().unwrap().iter().filter(|query| !query.contains("watch=")).count()
    }

    fn awaits(&self) -> String {
        self.health.awaits().unwrap_or_default()
    }
}

const HOUR: Duration = Duration::from_secs(3_600);

fn is(name: &str, version: u64) -> Signal {
    Signal::Changed(name.into(), Kind::ServiceAccount, Change::Is(version.to_string()))
}

fn all(names: &[&str]) -> Signal {
    Signal::Listed(Kind::ServiceAccount, names.iter().map(|name| Name::from(*name)).collect())
}

#[tokio::test(start_paused = true)]
async fn lists_watches_and_lists_anew_now_and_then() {
    let mut scene = watching(Kind::ServiceAccount, |query| {
        assert!(query.contains("labelSelector="), "{query}");
        if !query.contains("watch=") {
            return list(7, "", &[object("a", 3)]);
        }
        assert_eq!(value(query, "resourceVersion").unwrap(), "7");
        silence()
    });
    let told = scene.tells(HOUR).await;
    let lists = scene.lists();
    assert!((5..=8).contains(&lists), "{lists} lists in an hour");
    assert_eq!(told.len(), 2 * lists);
    assert!(told.chunks(2).all(|told| *told == [is("a", 3), all(&["a"])]), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn events_are_told_and_taken_up_where_they_ended() {
    let watches = Arc::new(Mutex::new(0));
    let mut scene = watching(Kind::ServiceAccount, move |query| {
        if !query.contains("watch=") {
            return list(7, "", &[]);
        }
        let mut watches = watches.lock().unwrap();
        *watches += 1;
        if *watches > 1 {
            return silence();
        }
        let events = [
            json!({"type": "ADDED", "object": object("a", 8)}),
            json!({"type": "MODIFIED", "object": object("a", 9)}),
            json!({"type": "DELETED", "object": {"metadata": {"name": "a", "uid": "u1", "resourceVersion": "10"}}}),
            json!({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "12"}}}),
            json!({"type": "A LATER VERSION'S", "object": {"metadata": {"resourceVersion": "13"}}}),
        ];
        let events = events.iter().map(|event| format!("{event}\n")).collect::<String>();
        let seconds = value(query, "timeoutSeconds").unwrap().parse().unwrap();
        let body = futures::stream::iter([Ok(http_body::Frame::data(events.into()))]);
        let end = futures::stream::once(tokio::time::sleep(Duration::from_secs(seconds)));
        let body = futures::StreamExt::chain(
            body,
            futures::StreamExt::map(end, |()| Ok(http_body::Frame::data("\n".into()))),
        );
        Response::new(http_body_util::StreamBody::new(body).boxed_unsync())
    });
    let changed = |change| Signal::Changed("a".into(), Kind::ServiceAccount, change);
    let told = scene.tells(Duration::from_secs(400)).await;
    assert_eq!(
        told,
        [
            all(&[]),
            changed(Change::At("8".into())),
            changed(Change::At("9".into())),
            changed(Change::Deleted { uid: "u1".into(), version: "10".into() }),
        ]
    );
    let asked = scene.asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 3, "{asked:?}");
    assert_eq!(value(&asked[2], "resourceVersion").unwrap(), "13");
}

#[tokio::test(start_paused = true)]
async fn a_list_comes_in_pages_that_are_made_smaller_when_they_are_too_large() {
    // 300 objects of 64 KiB each.
    let mut scene = watching(Kind::ServiceAccount, |query| {
        if query.contains("watch=") {
            return silence();
        }
        let limit: usize = value(query, "limit").unwrap().parse().unwrap();
        let from: usize = value(query, "continue").map_or(0, |from| from.parse().unwrap());
        let to = 300.min(from + limit);
        let items: Vec<_> = (from..to)
            .map(|at| {
                let mut object = object(&format!("o{at}"), 1);
                object["metadata"]["annotations"] = json!({"pad": "x".repeat(64 << 10)});
                object
            })
            .collect();
        list(7, &if to < 300 { to.to_string() } else { String::new() }, &items)
    });
    let told = scene.tells(Duration::from_secs(60)).await;
    assert_eq!(told.len(), 301);
    assert!(matches!(&told[300], Signal::Listed(_, names) if names.len() == 300));
    assert_eq!(scene.lists(), 1 + 300_usize.div_ceil(62));
    assert_eq!(
        scene.health.awaits().unwrap(),
        "not all objects of the hub seen yet",
        "nothing is wrong with the cluster"
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_no_list_is_not_taken_for_one() {
    let endless = |query: &str| {
        let from: u64 = value(query, "continue").map_or(0, |from| from.parse().unwrap());
        list(
            7,
            &(from + 500).to_string(),
            &(from..from + 500).map(|at| object(&format!("o{at}"), 1)).collect::<Vec<_>>(),
        )
    };
    let turning = |_: &str| list(7, "again", &[]);
    let long = |_: &str| list(7, "", &[object(&"n".repeat(100_000), 1)]);
    let nameless = |_: &str| list(7, "", &[json!({"metadata": {"resourceVersion": "1"}})]);
    let unversioned = |_: &str| text(r#"{"metadata": {}, "items": []}"#);
    type Row = (&'static str, fn(&str) -> Answer, &'static str);
    let rows: [Row; 5] = [
        ("endless", endless, "a list of more than 50000 objects, or 2000 pages, is not read"),
        ("turning", turning, "a list of more than 50000 objects, or 2000 pages, is not read"),
        ("long", long, "has no name or version"),
        ("nameless", nameless, "has no name or version"),
        ("unversioned", unversioned, "a list without resourceVersion"),
    ];
    for (name, answer, says) in rows {
        let (log, _guard) = Log::begin();
        let mut scene = watching(Kind::ServiceAccount, answer);
        let told = scene.tells(Duration::from_secs(20)).await;
        assert_eq!(told, [], "{name}");
        assert_eq!(log.lines().len(), 1, "{name}: {:#?}", log.lines());
        let awaits = scene.awaits();
        assert!(
            awaits.contains("the cluster refuses the agent: list secrets") && awaits.contains(says),
            "{name}: {awaits}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn revisions_that_go_back_are_told_once() {
    let version = Arc::new(Mutex::new(100_u64));
    let known = version.clone();
    let mut scene = watching(Kind::ServiceAccount, move |query| {
        if query.contains("watch=") { silence() } else { list(*known.lock().unwrap(), "", &[object("a", 5)]) }
    });
    assert!(!scene.tells(HOUR).await.contains(&Signal::Rewound(Side::Cluster)));
    *version.lock().unwrap() = 40;
    let told = scene.tells(HOUR).await;
    // Before the objects are.
    assert_eq!(told[..2], [Signal::Rewound(Side::Cluster), is("a", 5)]);
    assert_eq!(told.iter().filter(|signal| matches!(signal, Signal::Rewound(_))).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_side_that_came_back_is_listed_anew() {
    let mut scene =
        watching(
            Kind::ServiceAccount,
            |query| {
                if query.contains("watch=") { silence() } else { list(7, "", &[]) }
            },
        );
    assert_eq!(scene.tells(Duration::from_secs(20)).await, [all(&[])]);
    // Somebody else was not answered, and then was: this watch heard nothing of either.
    let call = Call::of(&Method::GET, "/api/v1/namespaces/c1/secrets/a", None);
    scene.health.failed(Side::Cluster, &call, &Cause::Connect("refused".to_owned()));
    assert_eq!(scene.tells(Duration::from_secs(20)).await, []);
    scene.health.answered(Side::Cluster, &call);
    assert_eq!(scene.tells(Duration::from_secs(20)).await, [all(&[])]);
    assert_eq!(scene.tells(Duration::from_secs(20)).await, [], "once");
}

#[tokio::test(start_paused = true)]
async fn names_without_end_are_not_remembered() {
    let (log, _guard) = Log::begin();
    let mut scene = watching(Kind::ServiceAccount, |query| {
        if !query.contains("watch=") {
            return list(7, "", &[]);
        }
        let event = |at: u64| {
            let event = json!({"type": "ADDED", "object": object(&format!("o{at}"), 8)});
            Ok::<_, Infallible>(http_body::Frame::data(format!("{event}\n").into()))
        };
        let events = futures::stream::iter(0..u64::MAX);
        let events = futures::StreamExt::map(events, event);
        Response::new(http_body_util::StreamBody::new(events).boxed_unsync())
    });
    let told = scene.tells(Duration::from_millis(1)).await;
    assert_eq!(told.len(), 1 + MOST_OBJECTS);
    assert!(scene.awaits().contains("more than 50000 objects are not looked at"), "{}", scene.awaits());
    assert_eq!(log.lines().iter().filter(|line| line.contains(" WARN ")).count(), 1, "{:#?}", log.lines());
}
