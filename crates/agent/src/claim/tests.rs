use super::*;
use crate::{Agent, CaSource, Handle, Options, fake::Server};
use fleetpass_api::clock;
use serde_json::json;
use tokio_util::sync::CancellationToken;

const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/cluster1/leases/fleetpass-agent";
const KUBE_SYSTEM: &str = "/api/v1/namespaces/kube-system";
const LASTS: Duration = Duration::from_secs(60);

fn holder(text: &str) -> Holder {
    Holder::read(Some(text)).unwrap()
}

#[test]
fn who_takes_the_lease() {
    let seen = |holder: &str, unchanged: u64, own: bool| {
        Some(Seen {
            holder: Holder::read(Some(holder)),
            unchanged: Duration::from_secs(unchanged),
            lasts: LASTS,
            own,
        })
    };
    let (take, leave) = (Move::Take, Move::Leave);
    let table = [
        ("no Lease", "u1/ns", None, false, &take),
        ("it names nobody", "u1/ns", seen("", 0, false), false, &take),
        ("this cluster's own", "u1/ns", seen("u1/ns", 0, false), true, &take),
        ("another cluster's", "u1/ns", seen("u2/ns", 59, false), false, &leave),
        ("another cluster's, run out", "u1/ns", seen("u2/ns", 60, false), false, &take),
        ("the agent was moved", "u1/new", seen("u1/old", 0, false), false, &take),
        ("it is the one that was moved away", "u1/old", seen("u1/new", 0, false), true, &leave),
        ("it is, and the new one is gone", "u1/old", seen("u1/new", 60, false), true, &take),
        ("the cluster was set up anew under a running agent", "u2/ns", seen("u1/ns", 0, true), true, &take),
        ("the holder does not know its cluster", "u1/ns", seen("unknown/ns", 0, false), true, &take),
        ("neither knows its cluster", "unknown/ns", seen("unknown/ns", 0, false), false, &take),
        (
            "one that does not know takes from none that does",
            "unknown/ns",
            seen("u1/ns", 0, false),
            false,
            &leave,
        ),
        ("nor from another that does not", "unknown/a", seen("unknown/b", 0, false), false, &leave),
        ("a holder of somebody else's making", "u1/ns", seen("pod-1", 0, false), false, &leave),
    ];
    for (what, me, seen, held, expected) in table {
        assert_eq!(&consider(&holder(me), seen.as_ref(), held), expected, "{what}");
    }
}

#[test]
fn what_a_failed_round_means() {
    let now = Instant::now();
    let unavailable = || CallErrorKind::Unavailable("HTTP 503".into());
    let refused = || CallErrorKind::Refused { code: 403, reason: "Forbidden".into(), message: String::new() };
    let held = || Standing::Held(now + Duration::from_secs(1));
    let lapsed = || Standing::Held(now);
    let in_use = || Standing::InUse("u2/ns".into());
    let table = [
        (held(), unavailable(), 1, held()),
        (lapsed(), unavailable(), 1, Standing::Unknown),
        (Standing::Unknown, unavailable(), 1, Standing::Unknown),
        // Something answers that this agent works, and never about the Lease.
        (Standing::Unknown, unavailable(), 120, Standing::Unguarded),
        // The name was in use when there was word last.
        (in_use(), unavailable(), 1_000, in_use()),
        (in_use(), CallErrorKind::Conflict, 1, in_use()),
        (Standing::Unguarded, unavailable(), 1, Standing::Unguarded),
        (Standing::Unknown, refused(), 0, Standing::Unguarded),
        (held(), refused(), 0, Standing::Unguarded),
        // The namespace is gone: nobody else works there, and what is there has to be cleared away.
        (held(), CallErrorKind::NotFound("namespaces \"cluster1\" not found".into()), 0, Standing::Unguarded),
    ];
    for (before, kind, silent, expected) in table {
        let what = format!("{before:?}, {kind:?}, {silent} s");
        let next = after_failure(before, &kind, Duration::from_secs(silent), LASTS, now);
        assert_eq!(next, expected, "{what}");
    }
}

#[test]
fn a_lease_says_who_and_since_when_and_keeps_what_others_put_there() {
    let at = |second| Timestamp::from_second(second).unwrap();
    let first = renewed(None, &holder("u1/ns"), LASTS, at(10));
    let spec = first.spec.clone().unwrap();
    assert_eq!(first.metadata.name.as_deref(), Some("fleetpass-agent"));
    assert_eq!((spec.holder_identity.as_deref(), spec.lease_duration_seconds), (Some("u1/ns"), Some(60)));
    assert_eq!((spec.lease_transitions, spec.acquire_time), (Some(0), Some(MicroTime(at(10)))));
    let mut labelled = first;
    labelled.metadata.labels = Some([("a".to_owned(), "b".to_owned())].into());
    let renewal = renewed(Some(&labelled), &holder("u1/ns"), LASTS, at(20));
    let spec = renewal.spec.clone().unwrap();
    assert_eq!((spec.acquire_time, spec.renew_time), (Some(MicroTime(at(10))), Some(MicroTime(at(20)))));
    let other = renewed(Some(&renewal), &holder("u2/ns"), LASTS, at(30));
    let spec = other.spec.unwrap();
    assert_eq!((spec.lease_transitions, spec.acquire_time), (Some(1), Some(MicroTime(at(30)))));
    assert_eq!(other.metadata.labels, labelled.metadata.labels);
}

/// An agent, running, of a cluster with that UID (empty: it does not say).
fn start(hub: &Server, cluster: &str, namespace: &str) -> (Handle, CancellationToken) {
    let spoke = Server::default();
    if !cluster.is_empty() {
        spoke.put(KUBE_SYSTEM, json!({"metadata": {"name": "kube-system", "uid": cluster}}));
    }
    let options = Options {
        ca: CaSource::Pem(b"ca".to_vec()),
        agent_namespace: namespace.into(),
        ..Options::new("cluster1", clock::system())
    };
    let (agent, handle) = Agent::new(hub.client(), spoke.client(), options).unwrap();
    let stop = CancellationToken::new();
    tokio::spawn(agent.run(stop.clone()));
    (handle, stop)
}

async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

fn holder_on(hub: &Server) -> String {
    hub.get(LEASE).unwrap()["spec"]["holderIdentity"].as_str().unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn of_two_clusters_under_one_name_one_works_and_the_other_follows_when_it_is_gone() {
    let hub = Server::default();
    let (first, stop) = start(&hub, "u1", "ns");
    pass(1).await;
    let (second, _running) = start(&hub, "u2", "ns");
    for _ in 0..100 {
        pass(10).await;
        assert_eq!((first.is_name_in_use(), second.is_name_in_use()), (false, true));
        assert_eq!(holder_on(&hub), "u1/ns");
        assert!(first.claim_allows_work() && !second.claim_allows_work());
    }
    assert!(second.metrics().contains("fleetpass_agent_cluster_name_in_use{cluster=\"cluster1\"} 1"));
    stop.cancel();
    pass(50).await;
    assert!(second.is_name_in_use(), "a restart of the first must find its name free");
    pass(50).await;
    assert!(!second.is_name_in_use() && second.claim_allows_work());
    assert_eq!(holder_on(&hub), "u2/ns");
}

#[tokio::test(start_paused = true)]
async fn agents_of_one_cluster_hold_it_together_and_the_one_that_was_moved_takes_it() {
    let hub = Server::default();
    let (old, _old) = start(&hub, "u1", "old");
    let (beside, _beside) = start(&hub, "u1", "old");
    pass(100).await;
    assert!(old.claim_allows_work() && beside.claim_allows_work());
    let (new, _new) = start(&hub, "u1", "new");
    pass(100).await;
    assert!(new.claim_allows_work() && old.is_name_in_use() && beside.is_name_in_use());
    pass(1_000).await;
    assert_eq!(holder_on(&hub), "u1/new");
}

#[tokio::test(start_paused = true)]
async fn without_the_rights_it_works_as_if_it_were_alone() {
    let hub = Server::default();
    hub.state.lock().unwrap().forbidden = vec!["GET /apis/coordination.k8s.io"];
    let (forbidden, _forbidden) = start(&hub, "u1", "ns");
    pass(100).await;
    assert!(forbidden.claim_allows_work() && hub.get(LEASE).is_none());

    hub.state.lock().unwrap().forbidden.clear();
    let (unknown, _unknown) = start(&hub, "", "other");
    pass(100).await;
    assert!(unknown.claim_allows_work() && forbidden.claim_allows_work());
    assert_eq!(holder_on(&hub), "u1/ns", "one that cannot say who it is takes it from nobody");
}

#[tokio::test(start_paused = true)]
async fn a_hub_that_is_away_is_waited_for() {
    let hub = Server::default();
    let (agent, _running) = start(&hub, "u1", "ns");
    pass(5).await;
    hub.state.lock().unwrap().away = true;
    pass(30).await;
    assert!(agent.claim_allows_work(), "for as long as the Lease lasts");
    pass(60).await;
    assert!(!agent.claim_allows_work(), "another may have the name by now");
    hub.state.lock().unwrap().away = false;
    pass(15).await;
    assert!(agent.claim_allows_work());
}

#[tokio::test(start_paused = true)]
async fn whoever_doubts_it_gets_a_fresh_look() {
    let hub = Server::default();
    let (agent, _running) = start(&hub, "u1", "ns");
    pass(1).await;
    let mut lease = hub.get(LEASE).unwrap();
    lease["spec"]["holderIdentity"] = "u1/elsewhere".into();
    hub.put(LEASE, lease);
    let began = Instant::now();
    assert!(agent.claim_allows_work() && !agent.claim_confirms().await);
    assert!(began.elapsed() < Duration::from_secs(1));
}
