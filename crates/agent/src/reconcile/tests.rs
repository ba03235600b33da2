use crate::{
    Agent, CaSource, Handle, Options,
    fake::{FakeClock, Server},
};
use fleetpass_api::names;
use serde_json::{Value, json};
use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};
use tokio_util::sync::CancellationToken;

const ACCOUNT: &str = "/apis/authentication.open-cluster-management.io/v1beta1/namespaces/cluster1/managedserviceaccounts/robot";
const SECRET: &str = "/api/v1/namespaces/cluster1/secrets/robot";
const SERVICE: &str = "/api/v1/namespaces/open-cluster-management-agent-addon/serviceaccounts/robot";
const START: i64 = 1_800_000_000;

struct Scene {
    hub: Server,
    spoke: Server,
    clock: Arc<FakeClock>,
    context: Arc<super::Context>,
    agent: Agent,
    handle: Handle,
    memory: super::Memory,
}

impl Scene {
    fn new() -> Self {
        let clock = Arc::new(FakeClock(AtomicI64::new(START)));
        let server = || Server { now: Some(clock.clone()), ..Server::default() };
        let (hub, spoke) = (server(), server());
        let options =
            Options { ca: CaSource::Pem(b"ca".to_vec()), ..Options::new("cluster1", clock.clone()) };
        let (agent, handle) = Agent::new(hub.client(), spoke.client(), options).unwrap();
        let context = agent.context();
        context.claim.grant();
        hub.put(
            ACCOUNT,
            json!({"metadata": {"name": "robot", "namespace": "cluster1"}, "spec": {"rotation": {"validity": "1h"}}}),
        );
        Self { hub, spoke, clock, context, agent, handle, memory: super::Memory::default() }
    }

    async fn reconcile(&mut self) -> super::Outcome {
        self.context.reconcile("robot", &mut self.memory).await
    }

    fn condition(&self, type_: &str) -> Value {
        let account = self.hub.get(ACCOUNT).unwrap();
        let conditions = account["status"]["conditions"].as_array().unwrap().clone();
        conditions.into_iter().find(|condition| condition["type"] == type_).unwrap()
    }
}

#[tokio::test]
async fn a_fresh_account_gets_its_token_and_then_peace() {
    let mut scene = Scene::new();
    assert!(matches!(scene.reconcile().await, super::Outcome::Settled { wait: Some(_), .. }));
    assert_eq!(
        scene.spoke.take_writes(),
        [
            "POST /api/v1/namespaces/open-cluster-management-agent-addon/serviceaccounts".to_owned(),
            format!("POST {SERVICE}/token"),
        ]
    );
    assert_eq!(
        scene.hub.take_writes(),
        ["POST /api/v1/namespaces/cluster1/secrets".to_owned(), format!("PATCH {ACCOUNT}/status"),]
    );

    let secret = scene.hub.get(SECRET).unwrap();
    assert_eq!(secret["type"], "Opaque");
    assert_eq!(secret["metadata"]["labels"], json!({names::LABEL_IS_MANAGED: "true"}));
    let annotations = &secret["metadata"]["annotations"];
    assert_eq!(annotations[names::ANNOTATION_TOKEN_ISSUED_AT], "2027-01-15T08:00:00Z");
    assert_eq!(annotations[names::ANNOTATION_TOKEN_EXPIRES_AT], "2027-01-15T09:00:00Z");
    assert_eq!(secret["data"].as_object().unwrap().keys().collect::<Vec<_>>(), ["ca.crt", "token"]);
    assert_eq!(
        secret["metadata"]["ownerReferences"],
        json!([{
            "apiVersion": "authentication.open-cluster-management.io/v1beta1", "kind": "ManagedServiceAccount",
            "name": "robot", "uid": scene.hub.get(ACCOUNT).unwrap()["metadata"]["uid"],
        }])
    );
    assert_eq!(scene.spoke.get(SERVICE).unwrap()["metadata"]["labels"][names::LABEL_IS_MANAGED], "true");
    let status = scene.hub.get(ACCOUNT).unwrap()["status"].clone();
    assert_eq!(status["expirationTimestamp"], "2027-01-15T09:00:00Z");
    assert_eq!(
        status["tokenSecretRef"],
        json!({"name": "robot", "lastRefreshTimestamp": "2027-01-15T08:00:00Z"})
    );
    assert_eq!(scene.condition("SecretCreated")["status"], "True");
    assert_eq!(scene.condition("TokenReported")["status"], "True");

    scene.reconcile().await;
    assert!(scene.spoke.take_writes().is_empty() && scene.hub.take_writes().is_empty());
    let metrics = scene.handle.metrics();
    assert!(
        metrics.contains(
            "fleetpass_agent_token_refreshes_total{cluster=\"cluster1\",cause=\"secret_missing\"} 1"
        ),
        "{metrics}"
    );
    assert!(
        metrics
            .contains("fleetpass_agent_token_seconds_to_expiry{cluster=\"cluster1\",account=\"robot\"} 3600"),
        "{metrics}"
    );
}

#[tokio::test]
async fn an_agent_that_starts_again_keeps_the_token() {
    let mut scene = Scene::new();
    scene.reconcile().await;
    let (secret, account) = (scene.hub.get(SECRET), scene.hub.get(ACCOUNT));
    scene.memory = super::Memory::default();
    scene.spoke.take_writes();
    scene.reconcile().await;
    assert_eq!(scene.spoke.take_writes(), ["POST /apis/authentication.k8s.io/v1/tokenreviews"]);
    assert_eq!((scene.hub.get(SECRET), scene.hub.get(ACCOUNT)), (secret, account));
}

#[tokio::test]
async fn a_foreign_service_account_is_never_minted_for() {
    let mut scene = Scene::new();
    scene.spoke.put(SERVICE, json!({"metadata": {"name": "robot", "namespace": "agents"}}));
    scene.reconcile().await;
    assert!(scene.spoke.take_writes().is_empty());
    assert_eq!(scene.hub.take_writes(), [format!("PATCH {ACCOUNT}/status")]);
    assert_eq!(scene.condition("TokenReported")["reason"], "NameConflict");

    scene.hub.state.lock().unwrap().objects.remove(ACCOUNT);
    scene.reconcile().await;
    assert!(scene.spoke.get(SERVICE).is_some(), "and never deleted");
}

#[tokio::test]
async fn a_service_account_says_whose_it_is_and_one_of_another_agent_is_left_alone() {
    let kube_system = "/api/v1/namespaces/kube-system";
    let mut scene = Scene::new();
    scene.hub.put(kube_system, json!({"metadata": {"name": "kube-system", "uid": "hub1"}}));
    scene.reconcile().await;
    let marks = |cluster: &str, hub: &str| json!({names::ANNOTATION_CLUSTER_NAME: cluster, names::ANNOTATION_HUB: hub});
    assert_eq!(scene.spoke.get(SERVICE).unwrap()["metadata"]["annotations"], marks("cluster1", "hub1"));

    for (cluster, hub) in [("cluster2", "hub1"), ("cluster1", "hub2")] {
        let mut service = scene.spoke.get(SERVICE).unwrap();
        service["metadata"]["annotations"] = marks(cluster, hub);
        scene.spoke.put(SERVICE, service);
        let secret = scene.hub.get(SECRET);
        scene.spoke.take_writes();
        scene.reconcile().await;
        assert!(scene.spoke.take_writes().is_empty());
        let condition = scene.condition("TokenReported");
        assert_eq!((&condition["status"], &condition["reason"]), (&json!("False"), &json!("NameConflict")));
        assert_eq!(scene.hub.get(SECRET), secret);
    }
    scene.hub.state.lock().unwrap().objects.remove(ACCOUNT);
    scene.reconcile().await;
    assert!(scene.spoke.take_writes().is_empty() && scene.spoke.get(SERVICE).is_some());
}

#[tokio::test]
async fn a_service_account_without_a_mark_is_adopted_with_its_token() {
    let mut scene = Scene::new();
    scene.reconcile().await;
    let secret = scene.hub.get(SECRET);
    // As the upstream addon's agent makes it.
    let unmarked = {
        let mut service = scene.spoke.get(SERVICE).unwrap();
        service["metadata"]["annotations"] = json!({"somebody/else": "x"});
        service
    };
    let marked = json!({"somebody/else": "x", names::ANNOTATION_CLUSTER_NAME: "cluster1"});
    for (may, annotations) in [(false, &unmarked["metadata"]["annotations"]), (true, &marked)] {
        scene.spoke.put(SERVICE, unmarked.clone());
        scene.spoke.state.lock().unwrap().forbidden =
            if may { Vec::new() } else { vec!["PATCH /api/v1/namespaces"] };
        scene.spoke.take_writes();
        assert!(matches!(scene.reconcile().await, super::Outcome::Settled { wait: Some(_), .. }));
        assert_eq!(&scene.spoke.get(SERVICE).unwrap()["metadata"]["annotations"], annotations);
        assert_eq!(scene.hub.get(SECRET), secret, "no new token");
        assert_eq!(scene.condition("TokenReported")["status"], "True");
        // The refusal is remembered for a while, not for ever.
        scene.reconcile().await;
        assert!(scene.spoke.take_writes().iter().all(|write| !write.contains("/token")));
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(3_600)).await;
        tokio::time::resume();
    }
}

#[tokio::test]
async fn a_cluster_that_keeps_no_marks_gets_its_tokens_all_the_same() {
    let mut scene = Scene::new();
    scene.spoke.state.lock().unwrap().strips_annotations = true;
    scene.reconcile().await;
    assert_eq!(scene.condition("TokenReported")["status"], "True", "{}", scene.condition("TokenReported"));
    let writes = scene.spoke.take_writes();
    let patches = writes.iter().filter(|write| write.starts_with("PATCH")).count();
    assert_eq!(patches, 1, "{writes:?}");
    scene.reconcile().await;
    assert!(scene.spoke.take_writes().is_empty());
}

#[tokio::test]
async fn a_foreign_secret_is_never_overwritten() {
    let mut scene = Scene::new();
    scene
        .hub
        .put(SECRET, json!({"metadata": {"name": "robot"}, "type": "Opaque", "data": {"token": "bWluZQ=="}}));
    scene.reconcile().await;
    assert!(scene.spoke.take_writes().is_empty());
    assert_eq!(scene.hub.take_writes(), [format!("PATCH {ACCOUNT}/status")]);
    assert_eq!(scene.condition("TokenReported")["reason"], "NameConflict");
}

#[tokio::test]
async fn a_deleted_account_is_cleared_away_and_forgotten() {
    let mut scene = Scene::new();
    scene.reconcile().await;
    scene.hub.state.lock().unwrap().objects.remove(ACCOUNT);
    let outcome = scene.reconcile().await;
    assert_eq!(outcome, super::Outcome::Settled { versions: super::Versions::default(), wait: None });
    assert_eq!((scene.hub.get(SECRET), scene.spoke.get(SERVICE)), (None, None));
    assert!(!scene.handle.metrics().contains("account=\"robot\""));
}

#[tokio::test]
async fn a_cluster_that_is_away_costs_nothing_and_is_said() {
    let mut scene = Scene::new();
    scene.reconcile().await;
    let secret = scene.hub.get(SECRET);
    scene.spoke.state.lock().unwrap().away = true;
    scene.clock.0.store(START + 3_500, Ordering::SeqCst);
    assert!(matches!(scene.reconcile().await, super::Outcome::Failed { .. }));
    assert_eq!(scene.hub.get(SECRET), secret);
    let condition = scene.condition("TokenReported");
    assert_eq!((&condition["status"], &condition["reason"]), (&json!("True"), &json!("ClusterUnreachable")));
    assert!(
        scene.handle.metrics().contains("fleetpass_agent_side_up{cluster=\"cluster1\",side=\"cluster\"} 0")
    );

    scene.spoke.state.lock().unwrap().away = false;
    scene.reconcile().await;
    assert_ne!(scene.hub.get(SECRET), secret);
    assert_eq!(scene.condition("TokenReported")["reason"], "TokenReported");
    assert!(
        scene.handle.metrics().contains("fleetpass_agent_side_up{cluster=\"cluster1\",side=\"cluster\"} 1")
    );
}

#[tokio::test]
async fn a_hub_that_is_away_or_without_the_kind_deletes_nothing() {
    let mut scene = Scene::new();
    scene.reconcile().await;
    scene.spoke.take_writes();
    scene.hub.state.lock().unwrap().away = true;
    assert!(matches!(scene.reconcile().await, super::Outcome::Failed { versions: None }));
    assert!(scene.spoke.take_writes().is_empty());

    // kube-apiserver's answer to a path that it does not serve: text, and no word about the object.
    let service = tower::service_fn(|_: http::Request<kube::client::Body>| async {
        let mut response = http::Response::new(kube::client::Body::from(b"404 page not found\n".to_vec()));
        *response.status_mut() = http::StatusCode::NOT_FOUND;
        Ok::<_, std::convert::Infallible>(response)
    });
    let options =
        Options { ca: CaSource::Pem(b"ca".to_vec()), ..Options::new("cluster1", scene.clock.clone()) };
    let bare = kube::Client::new(service, "default");
    let (agent, _handle) = Agent::new(bare, scene.spoke.client(), options).unwrap();
    agent.context().claim.grant();
    let outcome = agent.context().reconcile("robot", &mut scene.memory).await;
    assert!(matches!(outcome, super::Outcome::Failed { .. }));
    assert!(scene.spoke.take_writes().is_empty() && scene.spoke.get(SERVICE).is_some());
}

#[tokio::test(start_paused = true)]
async fn runs_until_it_is_told_to_stop() {
    let Scene { hub, spoke, clock, agent, handle, .. } = Scene::new();
    let orphan = SERVICE.replace("robot", "orphan");
    spoke.put(
        &orphan,
        json!({"metadata": {"name": "orphan", "namespace": "x", "labels": {names::LABEL_IS_MANAGED: "true"}}}),
    );
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(agent.run(shutdown.clone()));
    let until = |seconds, done: Box<dyn Fn() -> bool>| async move {
        tokio::time::timeout(Duration::from_secs(seconds), async {
            while !done() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
        .expect("in time");
    };
    let (server, cluster) = (hub.clone(), spoke.clone());
    until(60, Box::new(move || server.get(SECRET).is_some() && cluster.get(&orphan).is_none())).await;
    let first = hub.get(SECRET).unwrap()["data"]["token"].clone();
    assert!(handle.health().is_ready());

    // Nothing happens any more: at the next review at the latest the agent looks by itself, and finds the token due.
    clock.0.store(START + 3_000, Ordering::SeqCst);
    let server = hub.clone();
    until(600, Box::new(move || server.get(SECRET).unwrap()["data"]["token"] != first)).await;
    shutdown.cancel();
    running.await.unwrap();
}
