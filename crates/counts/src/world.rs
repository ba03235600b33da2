//! Servers in memory, and the objects in them.

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use fleetpass_api::clock::Clock;
use fleetpass_apimachinery::user::{ALL_AUTHENTICATED, SYSTEM_MASTERS, UserInfo};
use fleetpass_apiserver::body::Body;
use fleetpass_apiserver::{ApiServer, ConnectionLimits, Options, RequestLimits};
use fleetpass_auth::authn::TokenFile;
use fleetpass_store::{MemoryStore, Op, Store, Txn};
use fleetpass_token::claims::Lifetimes;
use fleetpass_token::key::{KeyKind, SigningKey};
use fleetpass_token::ring::KeyRing;
use http::Response;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http_body_util::{BodyExt as _, Full};
use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// The namespace of the objects that a world begins with.
pub(crate) const NAMESPACE: &str = "tenant";

/// Who asks.
#[derive(Debug, Clone)]
pub(crate) enum Asks {
    /// One who may everything; known already, as behind a connection that has sent its credentials before.
    Admin,
    /// Whoever the token says.
    Bearer(Rc<str>),
}

/// A request, and what it has to be answered with.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) asks: Asks,
    pub(crate) method: &'static str,
    /// Path and query.
    pub(crate) target: String,
    pub(crate) content_type: &'static str,
    pub(crate) accept: &'static str,
    pub(crate) body: Bytes,
    /// The status of the answer: a refusal would be counted as a fast success otherwise.
    pub(crate) expected: u16,
}

impl Call {
    fn new(method: &'static str, target: String, body: Bytes, expected: u16) -> Self {
        let (content_type, accept) = ("application/json", "application/json");
        Self { asks: Asks::Admin, method, target, content_type, accept, body, expected }
    }

    pub(crate) fn get(target: impl Into<String>) -> Self {
        Self::new("GET", target.into(), Bytes::new(), 200)
    }

    pub(crate) fn delete(target: impl Into<String>) -> Self {
        Self::new("DELETE", target.into(), Bytes::new(), 200)
    }

    pub(crate) fn post(target: impl Into<String>, object: &Value) -> Self {
        Self::new("POST", target.into(), object.to_string().into(), 201)
    }

    pub(crate) fn put(target: impl Into<String>, object: &Value) -> Self {
        Self::new("PUT", target.into(), object.to_string().into(), 200)
    }

    pub(crate) fn patch(target: impl Into<String>, content_type: &'static str, patch: &Value) -> Self {
        let call = Self::new("PATCH", target.into(), patch.to_string().into(), 200);
        Self { content_type, ..call }
    }

    pub(crate) fn accepting(self, accept: &'static str) -> Self {
        Self { accept, ..self }
    }

    pub(crate) fn asked_by(self, asks: Asks) -> Self {
        Self { asks, ..self }
    }
}

/// A clock that stands: what is counted must not depend on when it is counted.
struct Stopped;

impl Clock for Stopped {
    fn now(&self) -> Timestamp {
        Timestamp::constant(1_800_000_000, 0)
    }
}

/// What a world is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    /// ConfigMaps in [`NAMESPACE`].
    pub(crate) objects: usize,
    /// CRDs beside the one that the server brings along.
    pub(crate) crds: usize,
    /// Lines of the token file.
    pub(crate) tokens: usize,
    /// What tokens are signed with.
    pub(crate) key: KeyKind,
}

/// The token of a line of the token file.
pub(crate) fn static_token(line: usize) -> Rc<str> {
    format!("static-token-{line:08}").into()
}

/// The name of an object that a world begins with.
pub(crate) fn object_name(number: usize) -> String {
    format!("object-{number:06}")
}

/// A ConfigMap as clients write them.
pub(crate) fn configmap(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {"app": "web", "tier": "front"}},
        "data": {"colour": "blue", "text": "x".repeat(200)}})
}

/// A small CRD.
pub(crate) fn crd(number: usize) -> Value {
    let plural = format!("widgets{number}");
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.group{number}.example.com")},
        "spec": {"group": format!("group{number}.example.com"), "scope": "Namespaced",
            "names": {"plural": plural, "singular": format!("widget{number}"), "kind": format!("Widget{number}"),
                "listKind": format!("Widget{number}List")},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object", "properties": {"spec": {"type": "object", "required": ["size"], "properties": {
                    "size": {"type": "integer", "minimum": 1, "maximum": 10},
                    "colour": {"type": "string", "pattern": "^[a-z]{1,20}$"},
                    "parts": {"type": "array", "maxItems": 10, "items": {"type": "string", "maxLength": 20}}},
                    "x-kubernetes-validations": [{"rule": "self.size > 0"}]}}}}}]}})
}

/// A server with all that it starts with.
pub(crate) struct World {
    pub(crate) server: ApiServer,
    pub(crate) store: Arc<dyn Store>,
    size: Size,
    /// Made once: to find the primes of an RSA key takes now a few tries, now many.
    key: Arc<SecretString>,
    stop: CancellationToken,
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl World {
    /// Fills a store and starts a server on it.
    pub(crate) async fn start(size: Size) -> Result<Self> {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
        let key = Arc::new(SigningKey::generate_pem(size.key)?);
        let (server, stop) = serve(store.clone(), size, &key).await?;
        let world = Self { server, store, size, key, stop };
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}});
        world.call(&Call::post("/api/v1/namespaces", &namespace)).await?;
        let accounts = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts");
        world.call(&Call::post(accounts, &account)).await?;
        let group = "rbac.authorization.k8s.io";
        let rbac = format!("/apis/{group}/v1/namespaces/{NAMESPACE}");
        let role = json!({"apiVersion": format!("{group}/v1"), "kind": "Role", "metadata": {"name": "reader"},
            "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch"]}]});
        world.call(&Call::post(format!("{rbac}/roles"), &role)).await?;
        let binding = json!({"apiVersion": format!("{group}/v1"), "kind": "RoleBinding", "metadata": {"name": "readers"},
            "roleRef": {"apiGroup": group, "kind": "Role", "name": "reader"},
            "subjects": [{"kind": "ServiceAccount", "name": "robot", "namespace": NAMESPACE},
                {"apiGroup": group, "kind": "Group", "name": "readers"}]});
        world.call(&Call::post(format!("{rbac}/rolebindings"), &binding)).await?;
        world.fill().await?;
        // The server that is measured has found its objects, and has not seen them being made.
        world.restarted().await
    }

    /// Starts another server on the same store.
    pub(crate) async fn restarted(&self) -> Result<Self> {
        let (server, stop) = serve(self.store.clone(), self.size, &self.key).await?;
        Ok(Self { server, store: self.store.clone(), size: self.size, key: self.key.clone(), stop })
    }

    /// Puts the objects into the store as the server does. Through its API that would take most of the time.
    async fn fill(&self) -> Result<()> {
        let path = format!("/api/v1/namespaces/{NAMESPACE}/configmaps");
        self.call(&Call::post(&path, &configmap("template"))).await?;
        let key = |name: &str| format!("/registry/configmaps/{NAMESPACE}/{name}");
        let template = self.store.get(&key("template")).await?.context("what was created is in the store")?;
        let text = String::from_utf8(template.value.to_vec())?;
        let object: Value = serde_json::from_str(&text)?;
        let uid = object["metadata"]["uid"].as_str().context("an object has a UID")?.to_owned();
        self.call(&Call::delete(format!("{path}/template"))).await?;
        let numbers: Vec<usize> = (0..self.size.objects).collect();
        for numbers in numbers.chunks(500) {
            let put = |number: &usize| {
                let name = object_name(*number);
                let uid_of_this = format!("00000000-0000-4000-8000-{number:012}");
                let value = text.replace("\"template\"", &format!("{name:?}")).replace(&uid, &uid_of_this);
                Op::Put { key: key(&name).into(), value: value.into() }
            };
            self.store.commit(Txn { compares: Vec::new(), ops: numbers.iter().map(put).collect() }).await?;
        }
        Ok(())
    }

    /// Makes a request, and reads the answer to its end.
    ///
    /// # Errors
    ///
    /// The answer has another status than it should have.
    pub(crate) async fn call(&self, call: &Call) -> Result<Bytes> {
        self.answer(call, self.open(call.clone()).await?).await
    }

    /// Makes a request and gives the answer, whose body is still to come.
    pub(crate) async fn open(&self, call: Call) -> Result<Response<Body>> {
        let mut request = http::Request::builder()
            .method(call.method)
            .uri(call.target)
            .header(CONTENT_TYPE, call.content_type)
            .header(ACCEPT, call.accept);
        let service = match call.asks {
            Asks::Admin => self.server.client_service(UserInfo {
                name: "admin".into(),
                groups: vec![SYSTEM_MASTERS.into(), ALL_AUTHENTICATED.into()],
                ..UserInfo::default()
            }),
            Asks::Bearer(token) => {
                request = request.header(AUTHORIZATION, format!("Bearer {token}"));
                self.server.service()
            }
        };
        let request = request.body(Full::new(call.body)).context("a request that can be sent")?;
        Ok(service.oneshot(request).await.unwrap_or_else(|never| match never {}))
    }

    async fn answer(&self, call: &Call, answer: Response<Body>) -> Result<Bytes> {
        let status = answer.status().as_u16();
        let mut body = std::pin::pin!(answer.into_body());
        let mut kept = Vec::new();
        // Piece by piece, as what is sent on: of a long answer only the beginning is kept.
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| anyhow::anyhow!("the answer breaks off: {error}"))?;
            let Ok(data) = frame.into_data() else { continue };
            if kept.len() < 16 * 1024 {
                kept.extend_from_slice(&data[..data.len().min(16 * 1024)]);
            }
        }
        let text = || String::from_utf8_lossy(&kept[..kept.len().min(500)]).into_owned();
        let what = || format!("{} {} is answered {status}: {}", call.method, call.target, text());
        ensure!(status == call.expected, what());
        Ok(kept.into())
    }
}

/// A server on a store.
async fn serve(
    store: Arc<dyn Store>,
    size: Size,
    key: &SecretString,
) -> Result<(ApiServer, CancellationToken)> {
    let mut users = String::new();
    for line in 0..size.tokens {
        writeln!(users, "{},user-{line},uid-{line},readers", static_token(line))?;
    }
    let mut crds = vec![serde_json::from_str(fleetpass_api::account::CRD_JSON)?];
    crds.extend((0..size.crds).map(crd));
    let options = Options {
        store,
        clock: Arc::new(Stopped),
        key_ring: KeyRing::from_pem(key.expose_secret().as_bytes(), &[] as &[&[u8]])?,
        issuers: vec!["https://kubernetes.default.svc".into()],
        api_audiences: Vec::new(),
        lifetimes: Lifetimes::default(),
        token_users: TokenFile::parse(&users)?,
        external_address: "127.0.0.1:1".into(),
        jwks_uri: None,
        crds,
        audit: None,
        // callgrind makes all fifty times slower: nothing may end at a deadline.
        limits: RequestLimits { timeout: Duration::from_secs(3600), ..RequestLimits::default() },
        connections: ConnectionLimits::default(),
    };
    let stop = CancellationToken::new();
    Ok((ApiServer::start(options, stop.clone()).await?, stop))
}
