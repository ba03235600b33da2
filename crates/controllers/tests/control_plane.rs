//! The controllers at work on an API server in this process.

use anyhow::{Context as _, Result, ensure};
use fleetpass_apimachinery::user::UserInfo;
use fleetpass_apiserver::{ApiServer, ConnectionLimits, Options as ServerOptions, RequestLimits};
use fleetpass_auth::authn::TokenFile;
use fleetpass_controllers::Options;
use fleetpass_store::MemoryStore;
use fleetpass_token::claims::Lifetimes;
use fleetpass_token::key::{KeyKind, SigningKey};
use fleetpass_token::ring::KeyRing;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Client, ResourceExt as _};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// An API server and the controllers, until dropped.
struct ControlPlane {
    client: Client,
    stop: CancellationToken,
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl ControlPlane {
    async fn start() -> Result<Self> {
        let mut options = Options::default();
        options.root_ca = Some("-----BEGIN CERTIFICATE-----\n".into());
        options.namespace_grace = Duration::ZERO;
        Self::start_with(options).await
    }

    async fn start_with(options: Options) -> Result<Self> {
        let key = SigningKey::generate_pem(KeyKind::P256)?;
        let stop = CancellationToken::new();
        let server = ServerOptions {
            store: Arc::new(MemoryStore::default()),
            clock: fleetpass_api::clock::system(),
            key_ring: KeyRing::from_pem(key.expose_secret().as_bytes(), &[] as &[&[u8]])?,
            issuers: vec!["https://kubernetes.default.svc".into()],
            api_audiences: Vec::new(),
            lifetimes: Lifetimes::default(),
            token_users: TokenFile::parse("")?,
            external_address: "127.0.0.1:6443".into(),
            jwks_uri: None,
            crds: Vec::new(),
            audit: None,
            limits: RequestLimits::default(),
            connections: ConnectionLimits::default(),
        };
        let server = ApiServer::start(server, stop.clone()).await?;
        let user = UserInfo {
            name: "system:fleetpass".into(),
            groups: vec!["system:masters".into(), "system:authenticated".into()],
            ..UserInfo::default()
        };
        let client = Client::new(server.client_service(user), "default");
        let clock = fleetpass_api::clock::system();
        tokio::spawn(fleetpass_controllers::run(client.clone(), options, clock, stop.clone()));
        Ok(Self { client, stop })
    }

    fn objects(&self, api_version: &str, kind: &str, plural: &str, namespace: &str) -> Api<DynamicObject> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let resource =
            ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
        match namespace {
            "" => Api::all_with(self.client.clone(), &resource),
            namespace => Api::namespaced_with(self.client.clone(), namespace, &resource),
        }
    }

    fn namespaces(&self) -> Api<DynamicObject> {
        self.objects("v1", "Namespace", "namespaces", "")
    }

    fn maps(&self, namespace: &str) -> Api<DynamicObject> {
        self.objects("v1", "ConfigMap", "configmaps", namespace)
    }

    fn secrets(&self, namespace: &str) -> Api<DynamicObject> {
        self.objects("v1", "Secret", "secrets", namespace)
    }

    async fn namespace(&self, name: &str) -> Result<DynamicObject> {
        create(
            &self.namespaces(),
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}),
        )
        .await
    }
}

async fn create(objects: &Api<DynamicObject>, object: Value) -> Result<DynamicObject> {
    Ok(objects.create(&PostParams::default(), &serde_json::from_value(object)?).await?)
}

async fn patch(objects: &Api<DynamicObject>, name: &str, patch: Value) -> Result<DynamicObject> {
    Ok(objects.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?)
}

fn owned_by(owners: &[&DynamicObject], blocks: bool) -> Value {
    let reference = |owner: &&DynamicObject| {
        let types = owner.types.clone().unwrap_or_default();
        json!({"apiVersion": types.api_version, "kind": types.kind, "name": owner.name_any(),
            "uid": owner.metadata.uid, "blockOwnerDeletion": blocks})
    };
    Value::Array(owners.iter().map(reference).collect())
}

fn map(name: &str, metadata: Value) -> Value {
    let mut map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata});
    map["metadata"]["name"] = json!(name);
    map
}

/// Waits until the object is as `condition` says (none: it does not exist), ten seconds at most; tells how long it took.
async fn until(
    what: &str,
    objects: &Api<DynamicObject>,
    name: &str,
    condition: impl Fn(Option<&DynamicObject>) -> bool,
) -> Result<Duration> {
    let start = Instant::now();
    loop {
        let found = objects.get_opt(name).await?;
        if condition(found.as_ref()) {
            return Ok(start.elapsed());
        }
        ensure!(start.elapsed() < Duration::from_secs(10), "{what}: not within ten seconds: {found:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn until_gone(objects: &Api<DynamicObject>, name: &str) -> Result<Duration> {
    until(&format!("{name} goes"), objects, name, |found| found.is_none()).await
}

#[tokio::test]
async fn namespaces_have_what_every_namespace_has() -> Result<()> {
    let plane = ControlPlane::start().await?;
    plane.namespace("team").await?;
    let accounts = plane.objects("v1", "ServiceAccount", "serviceaccounts", "team");
    until("the account appears", &accounts, "default", |found| found.is_some()).await?;
    let first = accounts.get("default").await?;
    accounts.delete("default", &DeleteParams::default()).await?;
    until("it comes back", &accounts, "default", |found| {
        found.is_some_and(|account| account.metadata.uid != first.metadata.uid)
    })
    .await?;

    let maps = plane.maps("team");
    until("the CA appears", &maps, "kube-root-ca.crt", |found| found.is_some()).await?;
    patch(&maps, "kube-root-ca.crt", json!({"data": {"ca.crt": "nonsense", "more": "x"}})).await?;
    until("an edit is undone", &maps, "kube-root-ca.crt", |found| {
        found.is_some_and(|map| map.data["data"] == json!({"ca.crt": "-----BEGIN CERTIFICATE-----\n"}))
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn a_namespace_goes_when_the_last_of_its_content_has_gone() -> Result<()> {
    let plane = ControlPlane::start().await?;
    plane.namespace("team").await?;
    let secrets = plane.secrets("team");
    let secret = |name: &str, finalizers: Value| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "finalizers": finalizers}});
    create(&secrets, secret("plain", json!([]))).await?;
    create(&secrets, secret("held", json!(["example.com/hold"]))).await?;
    plane.namespaces().delete("team", &DeleteParams::foreground()).await?;
    until_gone(&secrets, "plain").await?;
    let says = |namespace: &DynamicObject, index: usize| {
        namespace.data.pointer(&format!("/status/conditions/{index}/message")).cloned()
    };
    until("the status tells what holds it", &plane.namespaces(), "team", |found| {
        let found = found.expect("it is held");
        says(found, 4)
            == Some(json!(
                "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances"
            ))
    })
    .await?;
    let namespace = plane.namespaces().get("team").await?;
    assert_eq!(
        says(&namespace, 3),
        Some(json!("Some resources are remaining: secrets. has 1 resource instances"))
    );
    patch(&secrets, "held", json!({"metadata": {"finalizers": null}})).await?;
    until_gone(&plane.namespaces(), "team").await?;
    Ok(())
}

#[tokio::test]
async fn what_nobody_owns_any_more_goes_at_once() -> Result<()> {
    let plane = ControlPlane::start().await?;
    plane.namespace("team").await?;
    let maps = plane.maps("team");
    let first = create(&maps, map("first", json!({}))).await?;
    let second = create(&maps, map("second", json!({}))).await?;
    create(&maps, map("of-first", json!({"ownerReferences": owned_by(&[&first], false)}))).await?;
    create(&maps, map("of-both", json!({"ownerReferences": owned_by(&[&first, &second], false)}))).await?;
    create(&maps, map("free", json!({}))).await?;

    maps.delete("first", &DeleteParams::background()).await?;
    let took = until_gone(&maps, "of-first").await?;
    assert!(took < Duration::from_secs(1), "{took:?}");
    until("the other owner keeps it", &maps, "of-both", |found| {
        found.expect("it is kept").owner_references().iter().map(|owner| owner.name.as_str()).eq(["second"])
    })
    .await?;
    maps.delete("second", &DeleteParams::background()).await?;
    until_gone(&maps, "of-both").await?;
    maps.get("free").await?;
    Ok(())
}

#[tokio::test]
async fn an_owner_that_was_never_there_keeps_nothing() -> Result<()> {
    let plane = ControlPlane::start().await?;
    plane.namespace("team").await?;
    let maps = plane.maps("team");
    let missing = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "ghost", "uid": "x"}]);
    let unknown = json!([{"apiVersion": "nobody.io/v1", "kind": "Thing", "name": "ghost", "uid": "x"}]);
    create(&maps, map("unknown", json!({"ownerReferences": unknown}))).await?;
    create(&maps, map("missing", json!({"ownerReferences": missing}))).await?;
    until_gone(&maps, "missing").await?;
    maps.get("unknown").await.context("an owner of an unknown kind is not taken for gone")?;
    Ok(())
}

#[tokio::test]
async fn foreground_deletion_ends_with_the_owner_and_orphans_stay() -> Result<()> {
    let plane = ControlPlane::start().await?;
    plane.namespace("team").await?;
    let maps = plane.maps("team");
    let owner = create(&maps, map("owner", json!({}))).await?;
    let held = json!({"ownerReferences": owned_by(&[&owner], true), "finalizers": ["example.com/hold"]});
    create(&maps, map("held", held)).await?;
    maps.delete("owner", &DeleteParams::foreground()).await?;
    until("the dependent is deleted first", &maps, "held", |found| {
        found.expect("it is held").metadata.deletion_timestamp.is_some()
    })
    .await?;
    maps.get("owner").await.context("the owner waits")?;
    patch(&maps, "held", json!({"metadata": {"finalizers": null}})).await?;
    until_gone(&maps, "owner").await?;

    // Nothing is awaited between these three: the collector must find dependents that it was not told of yet.
    let parent = create(&maps, map("parent", json!({}))).await?;
    create(&maps, map("orphan", json!({"ownerReferences": owned_by(&[&parent], true)}))).await?;
    maps.delete("parent", &DeleteParams::orphan()).await?;
    until_gone(&maps, "parent").await?;
    assert!(maps.get("orphan").await?.owner_references().is_empty());
    Ok(())
}

#[tokio::test]
async fn objects_of_new_definitions_own_and_are_owned() -> Result<()> {
    let plane = ControlPlane::start().await?;
    plane.namespace("team").await?;
    let definitions =
        plane.objects("apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions", "");
    let schema = json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
    create(
        &definitions,
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "teams.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
        "names": {"plural": "teams", "kind": "Team"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema}]}}),
    )
    .await?;
    until("the definition is established", &definitions, "teams.example.com", |found| {
        let conditions =
            found.and_then(|found| found.data.pointer("/status/conditions")).and_then(Value::as_array);
        conditions.into_iter().flatten().any(|c| c["type"] == "Established" && c["status"] == "True")
    })
    .await?;
    let teams = plane.objects("example.com/v1", "Team", "teams", "team");
    let team =
        create(&teams, json!({"apiVersion": "example.com/v1", "kind": "Team", "metadata": {"name": "a"}}))
            .await?;
    let secrets = plane.secrets("team");
    create(
        &secrets,
        json!({"apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "of-team", "ownerReferences": owned_by(&[&team], false)}}),
    )
    .await?;
    teams.delete("a", &DeleteParams::default()).await?;
    until_gone(&secrets, "of-team").await?;
    Ok(())
}

/// Signs with a key of its own, as a server would with its ring.
struct Issuer(SigningKey);

impl fleetpass_controllers::TokenIssuer for Issuer {
    fn issue(
        &self,
        claims: &fleetpass_token::claims::LegacyClaims,
    ) -> Result<secrecy::SecretString, Box<dyn std::error::Error + Send + Sync>> {
        Ok(self.0.sign(claims)?)
    }
}

#[tokio::test]
async fn secrets_with_tokens_are_filled_and_go_with_their_account() -> Result<()> {
    let mut options = Options::default();
    options.root_ca = Some("PEM".into());
    let key = SigningKey::generate_pem(KeyKind::P256)?;
    options.token_issuer = Some(Arc::new(Issuer(SigningKey::from_pem(key.expose_secret().as_bytes())?)));
    let plane = ControlPlane::start_with(options).await?;
    plane.namespace("team").await?;
    let accounts = plane.objects("v1", "ServiceAccount", "serviceaccounts", "team");
    create(&accounts, json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}}))
        .await?;
    let secrets = plane.secrets("team");
    let secret = |name: &str, account: &str| {
        json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token",
            "metadata": {"name": name, "annotations": {"kubernetes.io/service-account.name": account}}})
    };
    create(&secrets, secret("token", "robot")).await?;
    create(&secrets, secret("stray", "nobody")).await?;
    until("the Secret is filled", &secrets, "token", |found| {
        let data = &found.expect("it stays").data["data"];
        ["token", "ca.crt", "namespace"]
            .iter()
            .all(|key| data[key].as_str().is_some_and(|value| !value.is_empty()))
    })
    .await?;
    until_gone(&secrets, "stray").await?;
    accounts.delete("robot", &DeleteParams::default()).await?;
    until_gone(&secrets, "token").await?;
    Ok(())
}

#[tokio::test]
async fn aggregated_roles_follow_what_they_select() -> Result<()> {
    let plane = ControlPlane::start().await?;
    let roles = plane.objects("rbac.authorization.k8s.io/v1", "ClusterRole", "clusterroles", "");
    let role = |name: &str, labels: Value, rules: Value| {
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": {"name": name, "labels": labels}, "rules": rules})
    };
    let rules = |resource: &str| json!([{"verbs": ["get"], "apiGroups": [""], "resources": [resource]}]);
    let mut aggregated = role("agg", json!({}), json!([]));
    aggregated["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {"to": "agg"}}]});
    create(&roles, aggregated).await?;
    create(&roles, role("part", json!({"to": "agg"}), rules("secrets"))).await?;
    let has =
        |found: Option<&DynamicObject>, expected: &Value| found.is_some_and(|f| f.data["rules"] == *expected);
    until("the rules are gathered", &roles, "agg", |found| has(found, &rules("secrets"))).await?;
    patch(&roles, "agg", json!({"rules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]}))
        .await?;
    until("an edit is undone", &roles, "agg", |found| has(found, &rules("secrets"))).await?;
    roles.delete("part", &DeleteParams::default()).await?;
    until("nothing is left to gather", &roles, "agg", |found| has(found, &Value::Null)).await?;
    patch(&roles, "agg", json!({"rules": rules("pods")})).await?;
    until("an edit of nothing is undone", &roles, "agg", |found| has(found, &Value::Null)).await?;
    until("the roles of the server are aggregated", &roles, "view", |found| {
        found.and_then(|view| view.data["rules"].as_array()).is_some_and(|rules| !rules.is_empty())
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn approved_requests_get_certificates() -> Result<()> {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair};
    let key = KeyPair::generate()?;
    let mut ca = CertificateParams::new(Vec::new())?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = ca.self_signed(&key)?.pem();
    let authority = fleetpass_controllers::CertificateAuthority::from_pem(&ca, &key.serialize_pem())?;
    let mut options = Options::default();
    options.client_authority = Some(Arc::new(authority));
    let plane = ControlPlane::start_with(options).await?;

    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, "robot");
    let request = params.serialize_request(&KeyPair::generate()?)?.pem()?;
    let requests = plane.objects(
        "certificates.k8s.io/v1",
        "CertificateSigningRequest",
        "certificatesigningrequests",
        "",
    );
    create(
        &requests,
        json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
        "metadata": {"name": "robot"}, "spec": {"request": k8s_openapi::ByteString(request.into_bytes()),
        "signerName": "kubernetes.io/kube-apiserver-client", "usages": ["client auth"]}}),
    )
    .await?;
    let approval =
        json!({"status": {"conditions": [{"type": "Approved", "status": "True", "reason": "Test"}]}});
    requests.patch_subresource("approval", "robot", &PatchParams::default(), &Patch::Merge(approval)).await?;
    until("the certificate is issued", &requests, "robot", |found| {
        found.and_then(|found| found.data.pointer("/status/certificate")).is_some()
    })
    .await?;
    Ok(())
}
