//! A hub moves to an etcd and back: its objects, tokens and clients go on, and what was interrupted is never served.

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fleetpass_store::migrate::{MARK, Target as _};
use fleetpass_store::{EmbeddedOptions, EmbeddedStore, Encryption, KeyRing, Store as _};
use fleetpass_testkit::cluster::ADMIN_TOKEN;
use fleetpass_testkit::rig::{
    Etcd, FleetpassHub, HubOptions, Kubectl, Process, SOON, Signal, Storage, eventually, program, total,
};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec, TokenReview, TokenReviewSpec};
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::api::{DynamicObject, ListParams, ObjectMeta, PostParams, WatchParams};
use kube::core::ApiResource;
use kube::{Api, Client, ResourceExt as _};
use serde_json::Value;
use std::path::Path;
use std::process::Output;
use std::time::Duration;
use tokio::process::Command;
use tokio::time::Instant;

const VALUE: &str = "hunter2-hunter2-hunter2";
/// The revision of a source that has lived for a while: raising etcd's takes long enough to be interrupted.
const FAR: u64 = 120_000;

async fn migrate(from: &str, to: &str, flags: &[&str]) -> Result<Output> {
    let mut command = Command::new(program("fleetpass")?);
    command.args(["migrate", "--from", from, "--to", to]).args(flags).kill_on_drop(true);
    Ok(command.output().await?)
}

async fn migrates(from: &str, to: &str, flags: &[&str]) -> Result<String> {
    let output = migrate(from, to, flags).await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

async fn refuses(from: &str, to: &str, flags: &[&str], words: &str) -> Result<()> {
    let output = migrate(from, to, flags).await?;
    let error = String::from_utf8(output.stderr)?;
    ensure!(output.status.code() == Some(1) && error.contains(words), "{words:?} is not in {error:?}");
    Ok(())
}

/// What a client knows of a hub.
struct Seen {
    /// UIDs by kind, namespace and name; resource versions aside, an object is what it was.
    objects: Vec<(String, Value)>,
    /// The revision of its last list.
    revision: u64,
    /// A token of a service account.
    token: String,
}

const KINDS: [(&str, &str, &str); 5] = [
    ("v1", "Namespace", "namespaces"),
    ("v1", "Secret", "secrets"),
    ("v1", "ServiceAccount", "serviceaccounts"),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "clusterrolebindings"),
    ("apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions"),
];

/// All objects of some kinds without their resource versions, and the greatest revision that was given out.
async fn objects(client: &Client) -> Result<(Vec<(String, Value)>, u64)> {
    let mut objects = Vec::new();
    let mut revision = 0;
    for (api_version, kind, plural) in KINDS {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let resource = ApiResource {
            group: group.into(),
            version: version.into(),
            api_version: api_version.into(),
            kind: kind.into(),
            plural: plural.into(),
        };
        let list =
            Api::<DynamicObject>::all_with(client.clone(), &resource).list(&ListParams::default()).await?;
        revision =
            revision.max(list.metadata.resource_version.as_deref().context("a list's revision")?.parse()?);
        for mut object in list {
            ensure!(object.resource_version().context("a version")?.parse::<u64>()? <= revision, "{kind}");
            object.metadata.resource_version = None;
            let name = format!("{kind} {}/{}", object.namespace().unwrap_or_default(), object.name_any());
            objects.push((name, serde_json::to_value(object)?));
        }
    }
    Ok((objects, revision))
}

/// The same objects, a token that is still good, and no revision that went back.
async fn goes_on(client: &Client, seen: &Seen) -> Result<u64> {
    let (now, revision) = objects(client).await?;
    for (name, object) in &seen.objects {
        let found = now.iter().find(|(other, _)| other == name);
        ensure!(found.is_some_and(|(_, found)| found == object), "{name} is not what it was");
    }
    ensure!(revision > seen.revision, "the revision went from {} to {revision}", seen.revision);
    let versions = Api::<Secret>::all(client.clone()).list_metadata(&ListParams::default()).await?;
    for secret in versions {
        let version: u64 = secret.resource_version().context("a version")?.parse()?;
        ensure!(version > seen.revision, "{} has the version {version}", secret.name_any());
    }
    let review = TokenReview {
        spec: TokenReviewSpec { token: seen.token.clone(), ..TokenReviewSpec::default() },
        ..TokenReview::default()
    };
    let review = Api::<TokenReview>::all(client.clone()).create(&PostParams::default(), &review).await?;
    ensure!(review.status.context("a status")?.authenticated == Some(true), "the token is no longer good");
    // Who watched before is told to list anew.
    let watched =
        Api::<Secret>::all(client.clone()).watch(&WatchParams::default(), &seen.revision.to_string()).await;
    let expired = match watched {
        Err(kube::Error::Api(status)) => status.code == 410,
        Err(error) => return Err(error.into()),
        Ok(events) => {
            let first =
                tokio::time::timeout(SOON, futures::StreamExt::next(&mut std::pin::pin!(events))).await?;
            matches!(first, Some(Ok(kube::api::WatchEvent::Error(status))) if status.code == 410)
        }
    };
    ensure!(expired, "a watch from before was taken up");
    Ok(revision)
}

async fn fill(client: &Client) -> Result<Seen> {
    let secret = Secret {
        metadata: ObjectMeta { name: Some("kept".into()), ..ObjectMeta::default() },
        string_data: Some([("password".into(), VALUE.into())].into()),
        ..Secret::default()
    };
    Api::<Secret>::default_namespaced(client.clone()).create(&PostParams::default(), &secret).await?;
    let accounts = Api::<ServiceAccount>::default_namespaced(client.clone());
    eventually("the default account is there", SOON, async || {
        accounts.get_opt("default").await.ok().flatten()
    })
    .await?;
    let request = TokenRequest {
        spec: Some(TokenRequestSpec { expiration_seconds: Some(7200), ..TokenRequestSpec::default() }),
        ..TokenRequest::default()
    };
    let token = accounts.create_token_request("default", &PostParams::default(), &request).await?;
    let token = token.status.and_then(|status| status.token).context("a token")?;
    let (objects, revision) = objects(client).await?;
    Ok(Seen { objects, revision, token })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_moves_to_etcd_and_back() -> Result<()> {
    let etcd = Etcd::start(3).await?;
    let mut hub = FleetpassHub::start(&HubOptions::default()).await?;
    let seen = fill(&hub.endpoint().admin().await?).await?;
    let here = format!("embedded:{}", hub.data_dir().display());
    let there = format!("etcd:{}", etcd.endpoints().join(","));

    refuses(&here, &there, &[], "in use by another process").await?;
    hub.stop().await?;
    let told = migrates(&here, &there, &[]).await?;
    refuses(&here, &there, &[], "is not empty").await?;
    let stored: Value =
        serde_json::from_str(&etcd.etcdctl(&["get", "-w", "json", "/registry/secrets/default/kept"]).await?)?;
    let stored = STANDARD.decode(stored["kvs"][0]["value"].as_str().context("a Secret in etcd")?)?;
    let open = |text: &str| stored.windows(text.len()).any(|window| window == text.as_bytes());
    ensure!(!open("kind") && !open(&STANDARD.encode(VALUE)), "a Secret lies open in etcd");

    // One without the keys is refused; one with them goes on.
    let stranger = Storage::Etcd { servers: etcd.endpoints(), keys_of: None };
    let started = FleetpassHub::start(&HubOptions { storage: stranger, ..HubOptions::default() }).await;
    ensure!(started.is_err(), "a hub without the keys started");
    let storage = Storage::Etcd { servers: etcd.endpoints(), keys_of: Some(hub.data_dir()) };
    let mut replica = FleetpassHub::start(&HubOptions { storage, ..HubOptions::default() }).await?;
    let on_etcd = goes_on(&replica.endpoint().admin().await?, &seen).await.context("on etcd")?;

    let back = tempfile::tempdir()?;
    let keys = hub.data_dir().join("encryption.key");
    let keys = format!("--encryption-key-file={}", keys.display());
    let elsewhere = format!("embedded:{}", back.path().join("hub").display());
    refuses(&there, &elsewhere, &[&keys], "a process uses it").await.context("a hub runs on the source")?;
    replica.stop().await?;
    std::fs::rename(hub.data_dir().join("store"), hub.data_dir().join("store.before"))?;
    let again = migrates(&there, &here, &[]).await?;
    hub.resume().await?;
    let seen = Seen { revision: on_etcd, ..seen };
    goes_on(&hub.endpoint().admin().await?, &seen).await.context("back again")?;
    let kubectl = Kubectl::new(hub.endpoint(), ADMIN_TOKEN)?;
    kubectl.run(&["get", "secret", "kept"]).await?;
    let lines =
        |told: &str| told.lines().filter(|line| line.contains("compared")).map(str::trim).collect::<String>();
    total("migrate, embedded to etcd", &lines(&told))?;
    total("migrate, etcd to embedded", &lines(&again))
}

/// The store of a data directory.
async fn open(directory: &Path) -> Result<EmbeddedStore> {
    let mut options = EmbeddedOptions::new(directory.join("store"));
    let keys = KeyRing::load(&directory.join("encryption.key"))?;
    options.encryption = Some(Encryption { keys, prefixes: vec!["/registry/secrets/".into()] });
    Ok(EmbeddedStore::open(options).await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_move_is_refused_and_goes_on() -> Result<()> {
    let etcd = Etcd::start(1).await?;
    let mut hub = FleetpassHub::start(&HubOptions::default()).await?;
    let seen = fill(&hub.endpoint().admin().await?).await?;
    hub.stop().await?;
    let store = open(&hub.data_dir()).await?;
    store.raise(FAR).await?;
    store.close().await;
    let here = format!("embedded:{}", hub.data_dir().display());
    let there = format!("etcd:{}", etcd.endpoints().join(","));

    let log = tempfile::tempdir()?;
    let arguments = ["migrate", "--from", &here, "--to", &there];
    let first =
        Process::start("fleetpass migrate", &program("fleetpass")?, arguments, &[], &log.path().join("log"))?;
    eventually("the target is marked", SOON, async || {
        etcd.etcdctl(&["get", "--keys-only", MARK]).await.ok().filter(|found| found.contains(MARK))
    })
    .await?;
    first.signal(Signal::KILL)?;
    first.kill().await?;
    ensure!(
        etcd.etcdctl(&["get", "--keys-only", MARK]).await?.contains(MARK),
        "it was done before it was killed"
    );
    let storage = || Storage::Etcd { servers: etcd.endpoints(), keys_of: Some(hub.data_dir()) };
    let started = FleetpassHub::start(&HubOptions { storage: storage(), ..HubOptions::default() }).await;
    let refused = started.err().map(|error| format!("{error:#}")).unwrap_or_default();
    ensure!(refused.contains("fleetpass migrate"), "a hub started on half of its objects: {refused}");

    let began = Instant::now();
    migrates(&here, &there, &[]).await?;
    let took = began.elapsed();
    let replica = FleetpassHub::start(&HubOptions { storage: storage(), ..HubOptions::default() }).await?;
    let seen = Seen { revision: FAR, ..seen };
    goes_on(&replica.endpoint().admin().await?, &seen).await?;
    let rate = FAR as f64 / took.max(Duration::from_millis(1)).as_secs_f64();
    total(
        "migrate, revision of etcd",
        &format!("raised by {rate:.0} a second at least, after an interruption"),
    )
}
