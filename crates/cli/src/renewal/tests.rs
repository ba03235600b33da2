//! Renewals against a hub and a cluster of ours, over TLS.

use super::*;
use crate::agent::AgentJob;
use crate::control_plane::{self, ControlPlane};
use crate::files;
use crate::kubeconfig::{KubeconfigFile, administrator};
use crate::pki::{ClientSubject, Identity};
use crate::settings::{HubRole, Role, Settings, Storage};
use fleetpass_agent::{Agent, Options, spoke_manifests};
use fleetpass_api::{ManagedServiceAccount, clock, names};
use fleetpass_apiserver::{ConnectionLimits, RequestLimits};
use fleetpass_hub::join;
use jiff::SignedDuration;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::ResourceExt as _;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use std::path::PathBuf;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::time::Instant;

const CLUSTER: &str = "cluster1";

/// A hub, and the kubeconfig of an agent whose certificate is in the last third of its life.
struct World {
    directory: TempDir,
    hub: ControlPlane,
    kubeconfig: PathBuf,
}

async fn plane(directory: &Path, name: &str, role: Role) -> ControlPlane {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let settings = Settings {
        directory: directory.join(name),
        kubeconfig: directory.join(format!("{name}.kubeconfig")),
        name: name.into(),
        role,
        certificate: None,
        client_ca_file: None,
        token_auth_file: None,
        issuers: vec!["https://kubernetes.default.svc".into()],
        api_audiences: Vec::new(),
        max_token_expiration: None,
        signing_key_file: None,
        key_files: Vec::new(),
        storage: Storage::Embedded,
        encrypt_secrets: true,
        audit_log: None,
        limits: RequestLimits::default(),
        connections: ConnectionLimits::default(),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    ControlPlane::start(settings, listener, clock::system()).await.unwrap()
}

/// A kubeconfig for somebody on a control plane, with a certificate of a year that was issued so many days ago.
fn kubeconfig(path: PathBuf, plane: &ControlPlane, subject: ClientSubject, days: i64) {
    let issued = clock::system().now() - SignedDuration::from_hours(24 * days);
    let file = KubeconfigFile {
        path,
        cluster: plane.name.clone(),
        server: plane.url.clone(),
        trust: plane.trust.clone(),
        subject,
        authority: plane.authority.clone(),
    };
    file.ensure(issued).unwrap();
}

async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition().await {
        assert!(Instant::now() < deadline, "not within a minute: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

impl World {
    /// With an approver, if it is to be a hub.
    async fn new(role: Role) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let hub = plane(directory.path(), "hub", role).await;
        let joined = join::join(&hub.client(), CLUSTER).await.unwrap();
        let path = directory.path().join("agent.kubeconfig");
        let subject = ClientSubject { user: joined.user, groups: joined.groups };
        kubeconfig(path.clone(), &hub, subject, 300);
        Self { directory, hub, kubeconfig: path }
    }

    async fn hub() -> Self {
        Self::new(Role::Hub(HubRole::default())).await
    }

    fn source(&self) -> Source {
        Source::Files(vec![self.kubeconfig.clone()])
    }

    fn credential(&self) -> (Place, Identity) {
        match place::find(std::slice::from_ref(&self.kubeconfig)).unwrap() {
            Credential::Certificate(place, identity) => (place, *identity),
            other => panic!("{other:?}"),
        }
    }

    async fn renewer(&self) -> Renewer {
        let client = self.hub.client();
        let mut options = Options::new(CLUSTER, clock::system());
        options.ca = fleetpass_agent::CaSource::Pem(b"PEM".to_vec());
        let (_, handle) = Agent::new(client.clone(), client, options).unwrap();
        let watched = Watched::new(Side::Hub, self.source(), handle, clock::system());
        Renewer { watched, cluster: CLUSTER.into(), secret: None }
    }

    fn requests(&self) -> Api<CertificateSigningRequest> {
        Api::all(self.hub.client())
    }

    async fn requested(&self) -> Vec<CertificateSigningRequest> {
        self.requests().list(&Default::default()).await.unwrap().items
    }

    async fn decide(&self, name: &str, decision: &str) {
        let condition =
            json!({"type": decision, "status": "True", "reason": "Test", "message": "a person's"});
        let patch = Patch::Merge(json!({"status": {"conditions": [condition]}}));
        self.requests().patch_subresource("approval", name, &PatchParams::default(), &patch).await.unwrap();
    }

    /// Whether the hub takes what is in the kubeconfig.
    async fn is_let_in(&self) -> bool {
        let client = self.source().load().await.unwrap().client();
        let accounts: Api<ManagedServiceAccount> = Api::namespaced(client, CLUSTER);
        // A plain control plane does not know the kind, and says so to those only whom it lets in.
        match accounts.list(&Default::default()).await {
            Ok(_) => true,
            Err(kube::Error::Api(status)) => !matches!(status.code, 401 | 403),
            Err(_) => false,
        }
    }

    async fn stop(self) {
        control_plane::stop(vec![self.hub]).await;
    }
}

impl Renewer {
    fn trouble(&self) -> Option<String> {
        self.watched.trouble.lock().unwrap().clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_in_its_last_third_is_renewed_and_one_that_is_fresh_is_not() {
    let world = World::hub().await;
    let (place, old) = world.credential();
    let stop = CancellationToken::new();
    let running = tokio::spawn(world.renewer().await.run(stop.clone()));
    eventually("another certificate", async || world.credential().1.chain() != old.chain()).await;
    let new = world.credential().1;
    assert!(world.is_let_in().await);
    assert!(new.validity().not_after > old.validity().not_after);
    assert_ne!(new.key().unwrap().secret_der(), old.key().unwrap().secret_der());
    let requested = world.requested().await;
    assert_eq!(requested.len(), 1);
    assert!(requested[0].name_any().starts_with("fleetpass-agent-cluster1-"));
    // It goes on running, and finds nothing to do: what is in the file is fresh.
    let renewer = world.renewer().await;
    assert!(tokio::time::timeout(Duration::from_millis(300), renewer.work()).await.is_err());
    assert_eq!(world.requested().await.len(), 1);
    assert_eq!(world.credential().0, place);
    stop.cancel();
    running.await.unwrap();
    world.stop().await;
}

struct At(std::sync::atomic::AtomicI64);

impl fleetpass_api::clock::Clock for At {
    fn now(&self) -> Timestamp {
        Timestamp::from_second(self.0.load(std::sync::atomic::Ordering::Relaxed)).unwrap()
    }
}

#[tokio::test]
async fn an_end_that_comes_near_is_said_and_one_that_is_averted_is_not() {
    let clock = Arc::new(At(0.into()));
    let nobody = Client::new(
        tower::service_fn(async |_: http::Request<kube::client::Body>| {
            Ok::<_, std::convert::Infallible>(http::Response::new(kube::client::Body::empty()))
        }),
        "default",
    );
    let options = Options {
        ca: fleetpass_agent::CaSource::Pem(b"PEM".to_vec()),
        ..Options::new(CLUSTER, clock.clone())
    };
    let (_, handle) = Agent::new(nobody.clone(), nobody, options).unwrap();
    let watched = Watched::new(Side::Hub, Source::InCluster, handle.clone(), clock.clone());
    let day = 86_400;
    let time = |second| Timestamp::from_second(second).unwrap();
    let mut warned = None;
    let mut look = |now, ends| {
        clock.0.store(now, std::sync::atomic::Ordering::Relaxed);
        watched.tell(&Credential::Token(time(0), time(ends)), &mut warned);
        let metric = format!(
            "fleetpass_agent_credential_seconds_to_expiry{{cluster=\"cluster1\",side=\"hub\"}} {}\n",
            ends - now
        );
        assert!(handle.metrics().contains(&metric), "{}", handle.metrics());
        (fleetpass_agent::Observed::remarks(&handle), warned)
    };
    assert_eq!(look(day / 2, day), (vec![], None));
    let (remarks, warned) = look(day - 60, day);
    assert_eq!(warned, Some(time(day)));
    let text = "the agent's credential for the hub ends at 1970-01-02T00:00:00Z: nobody has renewed it yet";
    assert_eq!(remarks, [text]);
    assert_eq!(look(day - 60, 30 * day), (vec![], None), "renewed");
    assert_eq!(look(23 * day + 1, 30 * day).0, Vec::<String>::new(), "a token of a month: within three days");
    watched.complain(&Trouble::NotAllowed);
    let (remarks, _) = look(31 * day, 30 * day);
    assert!(
        remarks[0].contains("ended at") && remarks[0].contains("does not let the agent create"),
        "{remarks:?}"
    );
    watched.tell(&Credential::Other, &mut None);
    assert!(!handle.metrics().contains("expiry{cluster=\"cluster1\",side=\"hub\"}"));
    assert_eq!(fleetpass_agent::Observed::remarks(&handle), Vec::<String>::new());
}

/// Dropped after ever longer times, from before the request to after the file. Whatever the moment, what is there then works.
#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_moment_it_comes_back() {
    let world = World::hub().await;
    // Two files, so that there is a moment between them.
    let (_, old) = world.credential();
    let text = std::fs::read_to_string(&world.kubeconfig).unwrap();
    let lines = text.lines().map(|line| match line.trim_start() {
        line if line.starts_with("client-certificate-data") => "    client-certificate: agent.crt".into(),
        line if line.starts_with("client-key-data") => "    client-key: agent.key".into(),
        _ => line.to_owned(),
    });
    let text = lines.collect::<Vec<_>>().join("\n");
    let path = |name: &str| world.directory.path().join(name);
    files::write(&path("agent.crt"), old.chain_pem().as_bytes()).unwrap();
    files::write(&path("agent.key"), secrecy::ExposeSecret::expose_secret(old.key_pem()).as_bytes()).unwrap();
    files::write(&world.kubeconfig, text.as_bytes()).unwrap();
    for attempt in 0_u32.. {
        let renewer = world.renewer().await;
        let life = Duration::from_millis(15) * attempt;
        let _ = tokio::time::timeout(life, renewer.work()).await;
        // The next start.
        recover(&world.source()).await;
        let now = world.credential().1;
        assert!(world.is_let_in().await, "after {life:?}");
        if now.chain() != old.chain() {
            break;
        }
        assert!(life < Duration::from_secs(20), "it is never renewed");
    }
    assert!(std::fs::read_dir(world.directory.path()).unwrap().all(|file| {
        let name = file.unwrap().file_name().to_string_lossy().into_owned();
        !name.contains(".renewal") && !name.ends_with(".tmp")
    }));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_approver_somebody_decides_by_hand() {
    // A plain control plane: it signs, and approves nothing.
    let world = World::new(Role::Cluster).await;
    join::ensure(&world.hub.client(), &join::renewal_manifests()).await.unwrap();
    let (place, old) = world.credential();
    let renewer = world.renewer().await;
    let denied = {
        let renewing = renewer.renew(place.clone(), &old);
        let deciding = async {
            eventually("a request", async || !world.requested().await.is_empty()).await;
            let name = world.requested().await[0].name_any();
            world.decide(&name, "Denied").await;
            name
        };
        let (renewed, name) = tokio::join!(renewing, deciding);
        let trouble = renewed.err().unwrap().to_string();
        assert_eq!(trouble, format!("the CertificateSigningRequest {name} was denied: a person's"));
        name
    };
    assert_eq!(world.credential().1.chain(), old.chain());
    let renewing = renewer.renew(place, &old);
    let deciding = async {
        eventually("another request", async || world.requested().await.len() == 2).await;
        let requested = world.requested().await;
        let name = requested.iter().map(|request| request.name_any()).find(|name| *name != denied).unwrap();
        world.decide(&name, "Approved").await;
    };
    let (renewed, ()) = tokio::join!(renewing, deciding);
    assert!(matches!(renewed, Ok(Renewed::Until(ends)) if ends == world.credential().1.validity().not_after));
    assert!(world.is_let_in().await);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_it_says_so_once_and_goes_on() {
    let world = World::new(Role::Cluster).await;
    let (place, old) = world.credential();
    let renewer = world.renewer().await;
    let (mut failures, day) = (0, SignedDuration::from_hours(24));
    let first = renewer.attempt(place.clone(), &old, &mut failures, day).await;
    let trouble = renewer.trouble().unwrap();
    assert!(
        trouble.contains("does not let the agent create") && trouble.contains("agent-renewal"),
        "{trouble}"
    );
    let second = renewer.attempt(place.clone(), &old, &mut failures, day).await;
    assert!(failures == 2 && second > first / 2, "{first:?} {second:?}");
    assert_eq!(world.credential().1.chain(), old.chain());
    // What could not be kept is not asked for.
    std::fs::remove_file(&world.kubeconfig).unwrap();
    join::ensure(&world.hub.client(), &join::renewal_manifests()).await.unwrap();
    renewer.attempt(place, &old, &mut failures, day).await;
    assert!(renewer.trouble().unwrap().contains("could not be kept"), "{:?}", renewer.trouble());
    assert!(world.requested().await.is_empty());
    world.stop().await;
}

/// The files are on a volume; the Secret is on a cluster, which here is the hub.
#[tokio::test(flavor = "multi_thread")]
async fn in_a_pod_the_secret_is_written() {
    let mut world = World::hub().await;
    let volume = world.directory.path().join("volume");
    let secrets: Api<Secret> = Api::namespaced(world.hub.client(), "default");
    let text = std::fs::read(&world.kubeconfig).unwrap();
    let secret = json!({"metadata": {"name": "hub-kubeconfig-secret"},
        "data": {"kubeconfig": ByteString(text), "cluster-name": ByteString(b"cluster1".to_vec())}});
    secrets.create(&PostParams::default(), &serde_json::from_value(secret).unwrap()).await.unwrap();
    // As a kubelet does it.
    let sync = async |version: &str| {
        let secret = secrets.get("hub-kubeconfig-secret").await.unwrap();
        std::fs::create_dir_all(volume.join(version)).unwrap();
        std::fs::write(volume.join(version).join("kubeconfig"), &secret.data.unwrap()["kubeconfig"].0)
            .unwrap();
        let link = |target: &str, name: &str| {
            let path = volume.join(name);
            let _ = std::fs::remove_file(&path);
            std::os::unix::fs::symlink(target, path).unwrap();
        };
        link(version, "..data");
        link("..data/kubeconfig", "kubeconfig");
    };
    sync("..1").await;
    world.kubeconfig = volume.join("kubeconfig");
    let (place, old) = world.credential();
    let mut renewer = world.renewer().await;
    assert!(matches!(renewer.renew(place.clone(), &old).await, Err(Trouble::Volume)));
    let secret =
        |name: &str| SecretRef { client: world.hub.client(), namespace: "default".into(), name: name.into() };
    renewer.secret = Some(secret("missing"));
    let trouble = renewer.renew(place.clone(), &old).await.err().unwrap().to_string();
    assert!(trouble.contains("Secret default/missing of the cluster cannot be read"), "{trouble}");
    assert!(world.requested().await.is_empty());

    renewer.secret = Some(secret("hub-kubeconfig-secret"));
    assert!(matches!(renewer.renew(place.clone(), &old).await, Ok(Renewed::Until(_))));
    assert_eq!(world.credential().1.chain(), old.chain(), "the file comes later");
    // It waits for the kubelet, and does not ask again; nor does an agent that was restarted meanwhile.
    assert!(matches!(renewer.renew(place.clone(), &old).await, Ok(Renewed::OnItsWay)));
    assert_eq!(world.requested().await.len(), 1);
    sync("..2").await;
    assert!(world.credential().1.validity().not_after > old.validity().not_after);
    assert!(world.is_let_in().await);
    let kept = secrets.get("hub-kubeconfig-secret").await.unwrap().data.unwrap();
    assert_eq!(kept["cluster-name"].0, b"cluster1");
    world.stop().await;
}

/// The whole agent: it serves its accounts before, and after, and what it shows the hub then is the new certificate.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_goes_on_with_its_new_certificate() {
    let world = World::hub().await;
    let cluster = plane(world.directory.path(), CLUSTER, Role::Cluster).await;
    let spoke = world.directory.path().join("spoke.kubeconfig");
    let subject = json!({"kind": "User", "name": administrator().user});
    let manifests = spoke_manifests(names::DEFAULT_AGENT_NAMESPACE, &subject);
    join::ensure(&cluster.client(), &manifests).await.unwrap();
    kubeconfig(spoke.clone(), &cluster, administrator(), 0);
    let job = AgentJob {
        hub: world.source(),
        spoke: Source::Files(vec![spoke]),
        options: Options::new(CLUSTER, clock::system()),
        ephemeral_identity: false,
        hub_secret: None,
        endpoints: Vec::new(),
        election: None,
    };
    let stop = CancellationToken::new();
    let (_, old) = world.credential();
    let running = tokio::spawn(job.run(stop.clone()));
    let accounts: Api<ManagedServiceAccount> = Api::namespaced(world.hub.client(), CLUSTER);
    let secrets: Api<Secret> = Api::namespaced(world.hub.client(), CLUSTER);
    let served = async |name: &str| {
        accounts.create(&PostParams::default(), &ManagedServiceAccount::new(CLUSTER, name)).await.unwrap();
        eventually(name, async || secrets.get_opt(name).await.unwrap().is_some()).await;
    };
    served("before").await;
    eventually("another certificate", async || world.credential().1.chain() != old.chain()).await;
    served("after").await;
    // Said by the hub, of an agent that it knows by its Lease alone.
    eventually("AgentAvailable", async || {
        let account = accounts.get("after").await.unwrap();
        let condition = account.status.as_ref().and_then(|s| s.condition(names::CONDITION_AGENT_AVAILABLE));
        condition.is_some_and(|condition| condition.status == "True")
    })
    .await;
    let client = world.hub.client();
    let scrape = async || {
        let request = http::Request::get("/metrics")
            .header("Accept", "application/openmetrics-text")
            .body(Vec::new())
            .unwrap();
        client.request_text(request).await.unwrap()
    };
    for line in [
        "fleetpass_hub_agents{state=\"available\"} 1\n",
        "fleetpass_hub_accounts 2\n",
        "fleetpass_hub_token_seconds_to_expiry_count 2\n",
        "fleetpass_hub_agent_renewals_approved_total 1\n",
    ] {
        eventually(line, async || scrape().await.contains(line)).await;
    }
    let metrics = scrape().await;
    assert!(metrics.ends_with("# EOF\n") && metrics.matches("# EOF").count() == 1);
    stop.cancel();
    running.await.unwrap().unwrap();
    let requested: Vec<Value> =
        world.requested().await.iter().map(|request| json!(request.spec.username)).collect();
    assert_eq!(requested, [json!(names::agent_user(CLUSTER))]);
    control_plane::stop(vec![cluster]).await;
    world.stop().await;
}

#[test]
fn what_stands_in_a_damaged_kubeconfig_is_not_told() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("damaged");
    for damaged in ["users: s3cret", "users:\n- name: a\n  user: {token: [s3cret]}", "users: [s3cret\nx: }"] {
        std::fs::write(&path, damaged).unwrap();
        let error = format!("{:#}", place::find(std::slice::from_ref(&path)).unwrap_err());
        assert!(error.contains(path.to_str().unwrap()), "{error}");
        assert!(!error.contains("s3cret"), "{error}");
    }
}
