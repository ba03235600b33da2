use super::count::{Count, TokenState};
use super::*;
use fleetpass_api::account::SecretRef;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use kube::client::Body;
use serde_json::{Value, json};
use std::collections::HashMap;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn status(expires: Option<i64>, reported: Option<(&str, &str)>) -> Status {
    let condition = |(status, reason): (&str, &str)| Condition {
        type_: names::CONDITION_TOKEN_REPORTED.into(),
        status: status.into(),
        reason: reason.into(),
        last_transition_time: Time(at(0)),
        message: String::new(),
        observed_generation: None,
    };
    Status {
        expiration_timestamp: expires.map(|second| Time(at(second))),
        conditions: reported.map(condition).into_iter().collect(),
        ..Status::default()
    }
}

#[test]
fn the_state_of_a_token_is_read_from_the_status() {
    let well = Some(("True", names::REASON_TOKEN_REPORTED));
    let away = Some(("True", names::REASON_CLUSTER_UNREACHABLE));
    let blocked = Some(("False", names::REASON_NAME_CONFLICT));
    for (status, state) in [
        (None, TokenState::Missing),
        (Some(status(None, None)), TokenState::Missing),
        (Some(status(None, blocked)), TokenState::Missing),
        (Some(status(Some(11), well)), TokenState::Valid),
        (Some(status(Some(11), away)), TokenState::Failing),
        (Some(status(Some(11), blocked)), TokenState::Failing),
        (Some(status(Some(11), None)), TokenState::Failing),
        (Some(status(Some(10), well)), TokenState::Expired),
        (Some(status(Some(10), away)), TokenState::Expired),
    ] {
        assert_eq!(Token::of(status.as_ref()).state(at(10)), state, "{status:?}");
    }
}

#[test]
fn accounts_are_counted_as_they_come_and_go() {
    let fleet = Fleet::new(fleetpass_api::clock::system());
    let mut listed = BTreeMap::new();
    let account = |cluster: &str, name: &str, expires| ManagedServiceAccount {
        status: Some(status(expires, Some(("True", names::REASON_TOKEN_REPORTED)))),
        ..ManagedServiceAccount::new(cluster, name)
    };
    let count =
        |fleet: &Fleet| Count::of(&fleet.lock(), at(10)).map(|count| Count { left: Vec::new(), ..count });
    let mut happen = |event| drop(fleet.apply(event, &mut listed));
    happen(watcher::Event::Init);
    happen(watcher::Event::InitApply(account("c1", "a", Some(30))));
    happen(watcher::Event::InitApply(account("c1", "b", Some(20))));
    assert_eq!(count(&fleet), None, "not all are known yet");
    happen(watcher::Event::InitDone);
    happen(watcher::Event::Apply(account("c2", "a", Some(5))));
    happen(watcher::Event::Apply(account("c2", "b", None)));
    let expected = Count {
        accounts: 4,
        clusters: 2,
        tokens: [2, 0, 1, 1],
        next_expiry: Some(at(20)),
        ..Count::default()
    };
    assert_eq!(count(&fleet), Some(expected));
    happen(watcher::Event::Delete(account("c1", "b", None)));
    happen(watcher::Event::Delete(account("c2", "b", None)));
    let expected = Count {
        accounts: 2,
        clusters: 2,
        tokens: [1, 0, 1, 0],
        next_expiry: Some(at(30)),
        ..Count::default()
    };
    assert_eq!(count(&fleet), Some(expected));
    // A new list replaces what was known.
    happen(watcher::Event::Init);
    happen(watcher::Event::InitApply(account("c3", "a", None)));
    happen(watcher::Event::InitDone);
    let expected =
        Count { accounts: 1, clusters: 1, tokens: [0, 0, 0, 1], next_expiry: None, ..Count::default() };
    assert_eq!(count(&fleet), Some(expected));
}

/// A clock that goes with tokio's, which is paused.
struct Paused(Instant);

impl fleetpass_api::clock::Clock for Paused {
    fn now(&self) -> Timestamp {
        at(1_000_000) + jiff::SignedDuration::try_from(self.0.elapsed()).unwrap()
    }
}

/// A hub with accounts and Leases, which counts what is asked of it. Watches are silent: events are given to the fleet.
#[derive(Default)]
struct Hub {
    accounts: Mutex<HashMap<String, Value>>,
    writes: Mutex<Vec<(String, Value)>>,
    /// Answer the next write with 409.
    conflict: AtomicBool,
}

impl Hub {
    fn client(self: &Arc<Self>) -> Client {
        let hub = self.clone();
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let hub = hub.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = http_body_util::BodyExt::collect(body).await.unwrap().to_bytes();
                let path: Vec<&str> = parts.uri.path().split('/').collect();
                let key = format!("{}/{}", path[5], path[7]);
                let mut accounts = hub.accounts.lock().unwrap();
                let refusal = |code: u16| {
                    let body = json!({"kind": "Status", "status": "Failure", "code": code, "metadata": {},
                        "reason": "r", "message": "m"});
                    (code, body)
                };
                let (code, body) = match (parts.method.as_str(), accounts.get_mut(&key)) {
                    ("GET", Some(account)) => (200, account.clone()),
                    ("PATCH", Some(_)) if hub.conflict.swap(false, Ordering::Relaxed) => refusal(409),
                    ("PATCH", Some(account)) => {
                        assert_eq!(path[8], "status");
                        let patch: Value = serde_json::from_slice(&body).unwrap();
                        assert_eq!(
                            patch["metadata"]["resourceVersion"],
                            account["metadata"]["resourceVersion"]
                        );
                        account["status"]["conditions"] = patch["status"]["conditions"].clone();
                        hub.writes.lock().unwrap().push((key, patch["status"]["conditions"].clone()));
                        (200, account.clone())
                    }
                    _ => refusal(404),
                };
                let body = http_body_util::Full::new(bytes::Bytes::from(body.to_string()));
                let response = http::Response::builder().status(code).body(body).unwrap();
                Ok::<_, std::convert::Infallible>(response)
            }
        });
        Client::new(service, "default")
    }

    /// What was said since the last call: of which account, which status, why.
    fn said(&self) -> Vec<(String, String, String)> {
        let writes = std::mem::take(&mut *self.writes.lock().unwrap());
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let said = writes.into_iter().map(|(key, conditions)| {
            let own = conditions.as_array().unwrap().iter().find(|c| c["type"] == "AgentAvailable").unwrap();
            (key, text(&own["status"]), text(&own["reason"]))
        });
        said.collect()
    }
}

/// A fleet over a hub.
struct World {
    hub: Arc<Hub>,
    fleet: Fleet,
    version: std::cell::Cell<u64>,
}

impl World {
    fn new() -> Self {
        let fleet = Fleet::new(Arc::new(Paused(Instant::now())));
        Self { hub: Arc::default(), fleet, version: 0.into() }
    }

    /// The account as the hub has it, and its event.
    fn account(&self, cluster: &str, name: &str, expires: Option<i64>) -> ManagedServiceAccount {
        let mut account = ManagedServiceAccount::new(cluster, name);
        account.metadata.resource_version = Some("1".into());
        account.metadata.creation_timestamp = Some(Time(self.fleet.clock.now()));
        let refresh = |_| SecretRef { name: name.into(), last_refresh_timestamp: Time(at(999_000)) };
        account.status = expires.map(|second| Status {
            token_secret_ref: Some(refresh(second)),
            ..status(Some(1_000_000 + second), Some(("True", names::REASON_TOKEN_REPORTED)))
        });
        let key = format!("{cluster}/{name}");
        self.hub.accounts.lock().unwrap().insert(key, serde_json::to_value(&account).unwrap());
        account
    }

    fn list(&self, accounts: &[ManagedServiceAccount], leases: &[v1::Lease]) {
        let mut listed = BTreeMap::new();
        self.fleet.apply(watcher::Event::Init, &mut listed);
        for account in accounts {
            self.fleet.apply(watcher::Event::InitApply(account.clone()), &mut listed);
        }
        self.fleet.apply(watcher::Event::InitDone, &mut listed);
        let mut listed = HashSet::new();
        self.fleet.see(watcher::Event::Init, &mut listed);
        for lease in leases {
            self.fleet.see(watcher::Event::InitApply(lease.clone()), &mut listed);
        }
        self.fleet.see(watcher::Event::InitDone, &mut listed);
    }

    /// A Lease that is renewed now.
    fn lease(&self, cluster: &str) -> v1::Lease {
        self.version.set(self.version.get() + 1);
        let mut lease = v1::Lease::default();
        lease.metadata.namespace = Some(cluster.into());
        lease.metadata.resource_version = Some(self.version.get().to_string());
        let spec = lease.spec.get_or_insert_default();
        spec.renew_time = Some(MicroTime(self.fleet.clock.now()));
        spec.lease_duration_seconds = Some(60);
        lease
    }

    fn renew(&self, cluster: &str) -> Vec<Arc<str>> {
        self.fleet.see(watcher::Event::Apply(self.lease(cluster)), &mut HashSet::new())
    }

    /// One look at a cluster. What was written comes back as an event.
    async fn look(&self, cluster: &str) -> Next {
        let next = self.fleet.say(self.hub.client(), cluster.into()).await.unwrap();
        let accounts = self.hub.accounts.lock().unwrap().clone();
        for account in accounts.into_values() {
            let account = serde_json::from_value(account).unwrap();
            self.fleet.apply(watcher::Event::Apply(account), &mut BTreeMap::new());
        }
        next
    }
}

fn said(expected: &[(&str, &str, &str)]) -> Vec<(String, String, String)> {
    expected.iter().map(|(key, status, why)| ((*key).into(), (*status).into(), (*why).into())).collect()
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_goes_and_comes_back_is_said_once_each() {
    let world = World::new();
    let accounts = [world.account("c1", "a", Some(9_999)), world.account("c1", "b", None)];
    assert_eq!(world.look("c1").await, Next::Wait, "nothing is known yet");
    world.list(&accounts, &[world.lease("c1")]);
    assert_eq!(world.look("c1").await, Next::After(Duration::from_secs(120)));
    assert_eq!(world.hub.said(), said(&[("c1/a", "True", "AgentSeen"), ("c1/b", "True", "AgentSeen")]));
    for _ in 0..100 {
        tokio::time::advance(Duration::from_secs(20)).await;
        assert_eq!(world.renew("c1"), [], "a renewal is not worth a look");
    }
    assert_eq!(world.look("c1").await, Next::After(Duration::from_secs(120)));
    tokio::time::advance(Duration::from_secs(121)).await;
    world.look("c1").await;
    assert_eq!(world.hub.said(), said(&[("c1/a", "False", "AgentGone"), ("c1/b", "False", "AgentGone")]));
    tokio::time::advance(Duration::from_secs(3_600)).await;
    world.look("c1").await;
    assert_eq!(world.hub.said(), [], "said once");
    assert_eq!(world.renew("c1"), ["c1".into()], "this one is");
    world.hub.conflict.store(true, Ordering::Relaxed);
    assert_eq!(world.look("c1").await, Next::After(Duration::from_secs(1)), "its agent was faster");
    world.look("c1").await;
    assert_eq!(world.hub.said(), said(&[("c1/a", "True", "AgentSeen"), ("c1/b", "True", "AgentSeen")]));
    let kept = world.hub.accounts.lock().unwrap()["c1/a"]["status"].clone();
    assert_eq!(kept["conditions"][0]["type"], "TokenReported", "the agent's own");
    assert!(kept["expirationTimestamp"].is_string());
}

#[tokio::test(start_paused = true)]
async fn nobody_is_missed_before_there_was_time_and_none_who_works_without_a_lease() {
    let world = World::new();
    let accounts = [world.account("none", "a", None), world.account("upstream", "a", Some(5_000))];
    world.list(&accounts, &[]);
    assert_eq!(world.look("none").await, Next::After(Duration::from_secs(121)));
    world.look("upstream").await;
    assert_eq!(world.hub.said(), []);
    tokio::time::advance(Duration::from_secs(121)).await;
    world.look("none").await;
    world.look("upstream").await;
    assert_eq!(world.hub.said(), said(&[("none/a", "False", "NoAgent")]));
    // Its last token has ended, and nobody has renewed it.
    tokio::time::advance(Duration::from_secs(5_000)).await;
    world.look("upstream").await;
    assert_eq!(world.hub.said(), said(&[("upstream/a", "False", "AgentGone")]));
    let account = world.account("none", "b", Some(9_000));
    world.fleet.apply(watcher::Event::Apply(account), &mut BTreeMap::new());
    world.look("none").await;
    assert_eq!(world.hub.said(), said(&[("none/a", "True", "AgentSeen")]), "an agent of upstream's has come");
}

#[tokio::test(start_paused = true)]
async fn a_hub_that_was_restarted_takes_nothing_back_before_it_knows() {
    let world = World::new();
    let accounts = [world.account("c1", "a", None)];
    let lease = world.lease("c1");
    tokio::time::advance(Duration::from_secs(1_000)).await;
    world.list(&accounts, std::slice::from_ref(&lease));
    assert_eq!(world.look("c1").await, Next::After(Duration::from_secs(120)));
    assert_eq!(world.hub.said(), [], "the Lease is old, or the agent's clock is slow");
    tokio::time::advance(Duration::from_secs(60)).await;
    // A list in between brings nothing new, and a deletion by hand neither.
    world.list(&accounts, std::slice::from_ref(&lease));
    world.fleet.see(watcher::Event::Delete(lease), &mut HashSet::new());
    tokio::time::advance(Duration::from_secs(60)).await;
    world.look("c1").await;
    assert_eq!(world.hub.said(), said(&[("c1/a", "False", "AgentGone")]));
}

#[tokio::test(start_paused = true)]
async fn agents_are_counted_by_what_is_known_of_them() {
    let world = World::new();
    let accounts = ["alive", "gone", "upstream"].map(|cluster| world.account(cluster, "a", Some(500)));
    world.list(&accounts[..1], &[]);
    let count = || Count::of(&world.fleet.lock(), world.fleet.clock.now()).unwrap();
    assert_eq!(count().agents, Some([0, 0, 0, 1]));
    world.list(&accounts, &["alive", "gone", "empty"].map(|cluster| world.lease(cluster)));
    tokio::time::advance(Duration::from_secs(119)).await;
    world.renew("alive");
    world.renew("empty");
    tokio::time::advance(Duration::from_secs(2)).await;
    let count = count();
    assert_eq!((count.accounts, count.clusters, count.agents), (3, 3, Some([2, 1, 0, 1])));
    assert_eq!(count.left, [379.0; 3]);
    let mut registry = prometheus_client::registry::Registry::default();
    registry.register_collector(Box::new(Shared(Arc::new(world.fleet))));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    for line in [
        "fleetpass_hub_agents{state=\"available\"} 2\n",
        "fleetpass_hub_agents{state=\"gone\"} 1\n",
        "fleetpass_hub_agents{state=\"no_lease\"} 1\n",
        "fleetpass_hub_token_seconds_to_expiry_bucket{le=\"60.0\"} 0\n",
        "fleetpass_hub_token_seconds_to_expiry_bucket{le=\"600.0\"} 3\n",
        "fleetpass_hub_token_seconds_to_expiry_count 3\n",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}
