//! What an honest agent notices while others attack: four attackers send one and the same of the worst requests in a loop.

mod requests;

use crate::load::{self, Answers};
use crate::pace::Pace;
use crate::proc::resident_mb;
use crate::report::{Goal, Section, round};
use crate::servers::{self, Program, program_name};
use anyhow::{Context as _, Result};
use bytes::Bytes;
use fleetpass_testkit::rig::{ControlPlane, Endpoint};
use fleetpass_token::key::KeyKind;
use futures::{StreamExt as _, TryStreamExt as _};
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderValue, Request};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use kube::api::{Api, DynamicObject, PostParams};
use kube::client::Body;
use kube::core::{ApiResource, GroupVersionKind};
use requests::Attack;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

const ATTACKERS: usize = 4;
/// The honest agent's namespace.
const HONEST: &str = "honest";
/// How long the honest agent pauses between two rounds.
const PAUSE: Duration = Duration::from_millis(20);
/// The most that a server may make the honest agent wait, in milliseconds, for 99 of 100 requests.
const P99_GOAL: f64 = 100.0;
/// The most memory that it may take meanwhile, in MB.
const RESIDENT_GOAL: f64 = 300.0;

/// What the honest agent saw during one attack.
struct Seen {
    token: Answers,
    renewal: Answers,
    livez: Answers,
    /// Requests of the honest agent that were not answered with what it asked for.
    failed: usize,
    /// Requests of attackers that were answered, whatever the answer.
    attacks: u64,
    /// The most that was resident meanwhile.
    resident_mb: f64,
}

/// Measures both servers under each attack.
///
/// # Errors
///
/// A server does not start, or refuses what prepares the attacks.
pub(crate) async fn measure(pace: &Pace) -> Result<Section> {
    let how = format!(
        "{ATTACKERS} attackers, each administrator of a namespace of its own who may write CustomResourceDefinitions and ask for \
         TokenReviews too, send one of the worst requests in a loop, one after the other. An honest agent asks for a token \
         (ES256), renews a Lease, and looks at `/livez`, every {} ms, each over a connection of its own. All of them run on the \
         same machine as the server. Latencies of the honest agent in milliseconds; the most that was resident.",
        PAUSE.as_millis()
    );
    let columns = [
        "attack",
        "server",
        "attacks per s",
        "token p99",
        "renewal p99",
        "livez p99",
        "worst",
        "resident MB",
    ];
    let mut section = Section::new("Under attack", &how, &columns);
    let (mut p99, mut resident, mut failed) = ((0.0, ""), (0.0, ""), 0);
    for program in Program::BOTH {
        for (attack, seen) in measure_one(pace, program).await? {
            let quantiles = [&seen.token, &seen.renewal, &seen.livez].map(|answers| answers.quantile(0.99));
            let worst = [&seen.token, &seen.renewal, &seen.livez].map(|answers| answers.quantile(1.0));
            section.row([
                attack.into(),
                program_name(program).into(),
                (seen.attacks as f64 / seen.token.seconds).into(),
                quantiles[0].into(),
                quantiles[1].into(),
                quantiles[2].into(),
                worst.into_iter().fold(0.0, f64::max).into(),
                seen.failed.into(),
                seen.resident_mb.into(),
            ]);
            if program == Program::Fleetpass {
                let worst = quantiles.into_iter().fold(0.0, f64::max);
                p99 = if worst > p99.0 { (worst, attack) } else { p99 };
                failed += seen.failed;
                resident = if seen.resident_mb > resident.0 { (seen.resident_mb, attack) } else { resident };
            }
        }
    }
    section.goals.push(Goal::at_most(
        "an honest agent's p99, under the worst attack",
        P99_GOAL,
        p99.0,
        "ms",
        p99.1,
    ));
    let what = "resident under the worst attack";
    section.goals.push(Goal::at_most(what, RESIDENT_GOAL, resident.0, "MB", resident.1));
    let what = "an honest agent's requests that failed under attack";
    section.goals.push(Goal::at_most(what, 0.0, failed as f64, "", ""));
    Ok(section)
}

async fn measure_one(pace: &Pace, program: Program) -> Result<Vec<(&'static str, Seen)>> {
    let plane = servers::start(program, KeyKind::P256).await?;
    let honest = prepare_honest(plane.endpoint()).await?;
    let mut attackers = Vec::new();
    for number in 0..ATTACKERS {
        attackers.push(prepare_attacker(plane.endpoint(), number, pace.count(2_000, 20)).await?);
    }
    let mut all = Vec::new();
    for attack in requests::all() {
        let name = attack.name;
        let seen = under_attack(&plane, &honest, &attackers, attack, pace.span(6.0)).await?;
        // It takes minutes; whoever waits sees how far it is.
        let [token, renewal, livez] =
            [&seen.token, &seen.renewal, &seen.livez].map(|a| round(a.quantile(0.99)));
        println!(
            "{}: {name}: {} answered, p99 {token} {renewal} {livez} ms, {} failed, {} MB",
            program_name(program),
            seen.attacks,
            seen.failed,
            round(seen.resident_mb)
        );
        all.push((name, seen));
    }
    Ok(all)
}

/// Somebody with a namespace and a token.
struct Tenant {
    endpoint: Endpoint,
    namespace: String,
    token: String,
}

/// Makes a namespace and a ServiceAccount with the rights of an administrator there.
async fn tenant(endpoint: &Endpoint, namespace: &str) -> Result<Tenant> {
    let admin = endpoint.admin().await?;
    let object: Namespace = serde_json::from_value(json!({"metadata": {"name": namespace}}))?;
    Api::all(admin.clone()).create(&PostParams::default(), &object).await?;
    let accounts: Api<ServiceAccount> = Api::namespaced(admin.clone(), namespace);
    let account = serde_json::from_value(json!({"metadata": {"name": "tenant"}}))?;
    accounts.create(&PostParams::default(), &account).await?;
    let subjects = json!([{"kind": "ServiceAccount", "name": "tenant", "namespace": namespace}]);
    bind(&admin, "RoleBinding", Some(namespace), "admin", &subjects).await?;
    let request: TokenRequest =
        serde_json::from_value(json!({"spec": {"audiences": [], "expirationSeconds": 86_400}}))?;
    let answer = accounts.create_token_request("tenant", &PostParams::default(), &request).await?;
    let token = answer.status.and_then(|status| status.token).context("the answer has no token")?;
    Ok(Tenant { endpoint: endpoint.clone(), namespace: namespace.into(), token })
}

async fn bind(
    client: &kube::Client,
    kind: &str,
    namespace: Option<&str>,
    role: &str,
    subjects: &Value,
) -> Result<()> {
    let gvk = GroupVersionKind::gvk("rbac.authorization.k8s.io", "v1", kind);
    let resource = ApiResource::from_gvk(&gvk);
    let api: Api<DynamicObject> = match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let name = namespace.map_or_else(|| format!("{role}-{}", subjects[0]["namespace"]), |_| role.to_owned());
    let binding = serde_json::from_value(json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind,
        "metadata": {"name": name.replace('"', "")}, "subjects": subjects,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}}))?;
    api.create(&PostParams::default(), &binding).await?;
    Ok(())
}

async fn create_role(client: &kube::Client, name: &str, rules: &Value) -> Result<()> {
    let gvk = GroupVersionKind::gvk("rbac.authorization.k8s.io", "v1", "ClusterRole");
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &ApiResource::from_gvk(&gvk));
    let role =
        serde_json::from_value(json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": name}, "rules": rules}))?;
    api.create(&PostParams::default(), &role).await?;
    Ok(())
}

async fn prepare_honest(endpoint: &Endpoint) -> Result<Tenant> {
    let honest = tenant(endpoint, HONEST).await?;
    let admin = endpoint.admin().await?;
    let rules = json!([{"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["*"]}]);
    create_role(&admin, "bench-agent", &rules).await?;
    create_role(
        &admin,
        "bench-attacker",
        &json!([{"apiGroups": ["apiextensions.k8s.io"], "resources": ["customresourcedefinitions"], "verbs": ["*"]},
            {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]},
            {"nonResourceURLs": ["/openapi/*"], "verbs": ["get"]}]),
    )
    .await?;
    let subjects = json!([{"kind": "ServiceAccount", "name": "tenant", "namespace": HONEST}]);
    bind(&admin, "ClusterRoleBinding", None, "bench-agent", &subjects).await?;
    Ok(honest)
}

/// An attacker, with what there is to read in the namespace.
async fn prepare_attacker(endpoint: &Endpoint, number: usize, objects: usize) -> Result<Tenant> {
    let namespace = format!("attacker-{number}");
    let attacker = tenant(endpoint, &namespace).await?;
    let admin = endpoint.admin().await?;
    let subjects = json!([{"kind": "ServiceAccount", "name": "tenant", "namespace": namespace}]);
    bind(&admin, "ClusterRoleBinding", None, "bench-attacker", &subjects).await?;
    let maps: Api<ConfigMap> = Api::namespaced(admin, &namespace);
    maps.create(&PostParams::default(), &serde_json::from_value(requests::large_object())?).await?;
    futures::stream::iter(0..objects)
        .map(|number| {
            let maps = maps.clone();
            async move {
                let map = json!({"metadata": {"name": format!("map-{number}")}, "data": {"text": "x".repeat(1_000)}});
                maps.create(&PostParams::default(), &serde_json::from_value(map)?).await?;
                anyhow::Ok(())
            }
        })
        .buffer_unordered(32)
        .try_collect::<()>()
        .await?;
    Ok(attacker)
}

/// What all who take part in one attack share.
struct Shared {
    attack: Attack,
    over: AtomicBool,
    answered: AtomicU64,
}

async fn under_attack(
    plane: &ControlPlane,
    honest: &Tenant,
    attackers: &[Tenant],
    attack: Attack,
    span: Duration,
) -> Result<Seen> {
    let shared = Arc::new(Shared { attack, over: AtomicBool::new(false), answered: AtomicU64::new(0) });
    let mut attacking = JoinSet::new();
    for attacker in attackers {
        let client = client(attacker, shared.attack.anonymous).await?;
        attacking.spawn(attack_on(client, attacker.namespace.clone(), shared.clone()));
    }
    let agent = honest_agent(honest, span);
    let watched = async {
        let mut most = 0.0_f64;
        while !shared.over.load(Ordering::Relaxed) {
            most = most.max(resident_mb(&plane.processes())?);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        anyhow::Ok(most)
    };
    let ended = async {
        let seen = agent.await;
        shared.over.store(true, Ordering::Relaxed);
        seen
    };
    let (seen, resident_mb) = tokio::join!(ended, watched);
    // Requests under way are given up: some would take minutes.
    attacking.shutdown().await;
    let [token, renewal, livez] = seen?;
    let failed = token.1 + renewal.1 + livez.1;
    let attacks = shared.answered.load(Ordering::Relaxed);
    let (token, renewal, livez) = (token.0, renewal.0, livez.0);
    Ok(Seen { token, renewal, livez, failed, attacks, resident_mb: resident_mb? })
}

/// A client with one connection's worth of requests: they are sent one after the other.
async fn client(tenant: &Tenant, anonymous: bool) -> Result<kube::Client> {
    let mut config = tenant.endpoint.config(&tenant.token).await?;
    config.read_timeout = Some(Duration::from_secs(120));
    config.default_retry = false;
    if anonymous {
        config.auth_info = kube::config::AuthInfo::default();
    }
    Ok(kube::Client::try_from(config)?)
}

/// Sends an attack again and again.
async fn attack_on(client: kube::Client, namespace: String, shared: Arc<Shared>) {
    let attack = &shared.attack;
    let text = String::from_utf8_lossy(&attack.body);
    let varies = text.contains("{n}");
    let mut number = 0_u64;
    while !shared.over.load(Ordering::Relaxed) {
        number += 1;
        let body = if varies { text.replace("{n}", &number.to_string()).into() } else { attack.body.clone() };
        let path = attack.path.replace("{ns}", &namespace).replace("{n}", &number.to_string());
        let mut request = request(attack.method, &path, attack.content_type, &body);
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static(attack.accept));
        // Whatever the answer: a refusal is one, and a connection that breaks is made anew.
        if let Ok(answer) = client.send(request).await {
            shared.answered.fetch_add(1, Ordering::Relaxed);
            if attack.unread {
                // Kept, as much as the server sends unasked; the connection is lost with it.
                tokio::time::sleep(Duration::from_millis(200)).await;
            } else {
                let _ = http_body_util::BodyExt::collect(answer.into_body()).await;
            }
        }
    }
}

/// Asks for tokens, renews a Lease and looks at `/livez` for so long; what each took.
async fn honest_agent(tenant: &Tenant, span: Duration) -> Result<[(Answers, usize); 3]> {
    let token = post(
        &format!("/api/v1/namespaces/{HONEST}/serviceaccounts/tenant/token"),
        "application/json",
        "POST",
        &json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3_600}}),
    );
    let renewal = post(
        &format!(
            "/apis/coordination.k8s.io/v1/namespaces/{HONEST}/leases/agent?fieldManager=agent&force=true"
        ),
        "application/apply-patch+yaml",
        "PATCH",
        &json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "agent"},
            "spec": {"holderIdentity": "agent", "leaseDurationSeconds": 60}}),
    );
    let livez: MakeRequest = Box::new(|| load::request("GET", "/livez", Bytes::new()).map(|_| Body::empty()));
    let [token, renewal, livez] = [token, renewal, livez].map(|make| async {
        let client = client(tenant, false).await?;
        anyhow::Ok(again_and_again(&client, make, span).await)
    });
    let (token, renewal, livez) = tokio::try_join!(token, renewal, livez)?;
    Ok([token, renewal, livez])
}

type MakeRequest = Box<dyn Fn() -> Request<Body> + Send + Sync>;

fn post(path: &str, content_type: &'static str, method: &'static str, body: &Value) -> MakeRequest {
    let (path, body) = (path.to_owned(), Bytes::from(body.to_string()));
    Box::new(move || request(method, &path, content_type, &body))
}

fn request(method: &str, path: &str, content_type: &'static str, body: &Bytes) -> Request<Body> {
    let mut request = load::request(method, path, body.clone()).map(|body| Body::from(body.to_vec()));
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    request
}

/// What the requests took, those that failed too, and how many failed.
async fn again_and_again(client: &kube::Client, make: MakeRequest, span: Duration) -> (Answers, usize) {
    let began = Instant::now();
    let (mut micros, mut failed) = (Vec::new(), 0);
    while began.elapsed() < span {
        let sent = Instant::now();
        if !succeeds(client, make()).await {
            failed += 1;
        }
        micros.push(u32::try_from(sent.elapsed().as_micros()).unwrap_or(u32::MAX));
        tokio::time::sleep(PAUSE).await;
    }
    micros.sort_unstable();
    (Answers { seconds: began.elapsed().as_secs_f64(), micros }, failed)
}

async fn succeeds(client: &kube::Client, request: Request<Body>) -> bool {
    let Ok(answer) = client.send(request).await else { return false };
    let status = answer.status();
    http_body_util::BodyExt::collect(answer.into_body()).await.is_ok() && status.is_success()
}
