use super::*;
use crate::fake::{FakeClock, Server};
use fleetpass_api::account::Status;
use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

const START: i64 = 1_800_000_000;

struct Scene {
    events: Events,
    clock: Arc<FakeClock>,
}

impl Scene {
    fn new() -> Self {
        let clock = Arc::new(FakeClock(AtomicI64::new(START)));
        Self { events: Events::new("cluster1", clock.clone()), clock }
    }

    fn pass(&self, seconds: i64) {
        self.clock.0.fetch_add(seconds, Ordering::SeqCst);
    }

    fn sent(&self) -> Vec<(String, u64)> {
        let mut receive = self.events.receive.lock().unwrap();
        std::iter::from_fn(|| receive.as_mut().unwrap().try_recv().ok())
            .map(|write| {
                (write.event["reason"].as_str().unwrap().to_owned(), write.event["count"].as_u64().unwrap())
            })
            .collect()
    }
}

fn account(reason: &str, expiring: bool) -> Account {
    let condition = |type_: &str, status: &str, reason: &str| {
        json!({"type": type_, "status": status, "reason": reason,
        "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z"})
    };
    let expiring = condition("TokenExpiring", if expiring { "True" } else { "False" }, reason);
    let conditions = json!({"conditions": [condition("TokenReported", "True", reason), expiring]});
    let status: Status = serde_json::from_value(conditions).unwrap();
    Account { uid: "u".into(), resource_version: "7".into(), status, ..Account::default() }
}

#[test]
fn a_failing_account_says_so_once_and_then_slowly() {
    let scene = Scene::new();
    let failing = account("ClusterUnreachable", false);
    for _ in 0..(2 * 3600 / 30) {
        scene.events.found("robot", Some(&failing));
        scene.pass(30);
    }
    let reason = || "ClusterUnreachable".to_owned();
    assert_eq!(scene.sent(), [(reason(), 1), (reason(), 2), (reason(), 3), (reason(), 4)]);
}

#[test]
fn every_change_of_state_is_said() {
    let scene = Scene::new();
    let [well, failing, expiring] = [
        account("TokenReported", false),
        account("ClusterUnreachable", false),
        account("ClusterUnreachable", true),
    ];
    for found in [&well, &failing, &failing, &expiring, &expiring, &well, &failing] {
        scene.events.found("robot", Some(found));
        scene.pass(1);
    }
    let expected = [("ClusterUnreachable", 1), ("TokenExpiring", 1), ("ClusterUnreachable", 2)];
    assert_eq!(scene.sent(), expected.map(|(reason, count)| (reason.to_owned(), count)));
    scene.events.found("robot", None);
    assert!(scene.events.said().is_empty(), "an account that is gone is forgotten");
}

#[test]
fn tokens_are_counted_and_an_account_that_flaps_is_bounded() {
    let scene = Scene::new();
    let well = account("TokenReported", false);
    scene.events.happened("robot", &well, Cause::SecretMissing);
    scene.events.happened("robot", &well, Cause::Due);
    scene.events.happened("robot", &well, Cause::Rejected);
    let expected = [("TokenIssued", 1), ("TokenRotated", 1), ("TokenRotated", 2)];
    assert_eq!(scene.sent(), expected.map(|(reason, count)| (reason.to_owned(), count)));
    for _ in 0..1_000 {
        scene.events.happened("robot", &well, Cause::SecretAltered);
    }
    assert_eq!(scene.sent().len(), BURST as usize - 3);
    scene.pass(REFILL);
    scene.events.happened("robot", &well, Cause::Due);
    assert_eq!(scene.sent().len(), 1);
    scene.pass(KEPT);
    scene.events.found("robot", Some(&well));
    assert!(scene.events.said().is_empty(), "nothing to remember");
}

#[test]
fn an_event_is_about_the_object_and_not_its_name() {
    let scene = Scene::new();
    scene.events.found("robot", Some(&account("NameConflict", false)));
    let other = Account { uid: "other".into(), ..account("NameConflict", false) };
    scene.events.found("robot", Some(&other));
    assert_eq!(scene.sent(), [("NameConflict".to_owned(), 1), ("NameConflict".to_owned(), 1)]);
    scene.events.found(&"ä".repeat(126), Some(&other));
    let name = scene.events.receive.lock().unwrap().as_mut().unwrap().try_recv().unwrap().name;
    assert!(name.len() <= 253, "{name}");
}

#[tokio::test]
async fn a_second_event_of_a_reason_changes_the_first() {
    let scene = Scene::new();
    let hub = Server::default();
    let well = account("TokenReported", false);
    scene.events.happened("robot", &well, Cause::SecretMissing);
    scene.events.happened("robot", &well, Cause::SecretMissing);
    let path = "/api/v1/namespaces/cluster1/events";
    let posting = scene.events.post(hub.client());
    let written = async {
        let mut writes = Vec::new();
        while writes.len() < 2 {
            writes.append(&mut hub.take_writes());
            tokio::task::yield_now().await;
        }
        writes
    };
    let writes = tokio::select! {
        () = posting => unreachable!("it goes on"),
        writes = written => writes,
    };
    assert_eq!(writes[0], format!("POST {path}"));
    assert!(writes[1].starts_with(&format!("PATCH {path}/robot.")), "{writes:?}");
}
