//! An API server in memory, without sockets.

use anyhow::{Context as _, Result};
use bytes::Bytes;
use fleetpass_api::clock::Clock;
use fleetpass_apimachinery::user::{ALL_AUTHENTICATED, SYSTEM_MASTERS, UserInfo};
use fleetpass_apiserver::{ApiServer, ConnectionLimits, Options, RequestLimits};
use fleetpass_auth::authn::TokenFile;
use fleetpass_store::MemoryStore;
use fleetpass_token::claims::Lifetimes;
use fleetpass_token::key::{KeyKind, SigningKey};
use fleetpass_token::ring::KeyRing;
use http::header::{ACCEPT, CONTENT_TYPE};
use http_body_util::{BodyExt as _, Full};
use jiff::Timestamp;
use secrecy::ExposeSecret as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum User {
    /// May everything.
    Admin,
    /// May write Secrets, ConfigMaps, roles and bindings in the namespace `tenant`, and nothing outside.
    Tenant,
}

impl User {
    fn info(self) -> UserInfo {
        let named = |name: &str, group: &str| UserInfo {
            name: name.into(),
            groups: vec![group.into(), ALL_AUTHENTICATED.into()],
            ..UserInfo::default()
        };
        match self {
            User::Admin => named("admin", SYSTEM_MASTERS),
            User::Tenant => named("tenant", "tenants"),
        }
    }
}

/// A request.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) user: User,
    pub(crate) method: &'static str,
    /// Path and query.
    pub(crate) target: String,
    pub(crate) content_type: &'static str,
    pub(crate) accept: String,
    pub(crate) body: Vec<u8>,
}

impl Request {
    /// How many bytes a client chose.
    pub(crate) fn size(&self) -> usize {
        self.target.len() + self.accept.len() + self.body.len()
    }
}

/// What came back.
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// How long the body is, in bytes.
    pub(crate) length: usize,
    /// The first characters of the body.
    pub(crate) beginning: String,
}

/// A clock that stands: what is counted must not depend on when it is counted.
struct Stopped;

impl Clock for Stopped {
    fn now(&self) -> Timestamp {
        Timestamp::constant(1_800_000_000, 0)
    }
}

/// A server with all that it starts with. All that can run on one thread does.
pub(crate) struct World {
    runtime: Runtime,
    server: ApiServer,
    stop: CancellationToken,
}

impl World {
    pub(crate) fn start() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let key = SigningKey::generate_pem(KeyKind::P256)?;
        let options = Options {
            store: Arc::new(MemoryStore::default()),
            clock: Arc::new(Stopped),
            key_ring: KeyRing::from_pem(key.expose_secret().as_bytes(), &[] as &[&[u8]])?,
            issuers: vec!["https://kubernetes.default.svc".into()],
            api_audiences: Vec::new(),
            lifetimes: Lifetimes::default(),
            token_users: TokenFile::parse("").context("no users")?,
            external_address: "127.0.0.1:1".into(),
            jwks_uri: None,
            crds: vec![serde_json::from_str(fleetpass_api::account::CRD_JSON)?],
            audit: None,
            connections: ConnectionLimits::default(),
            // callgrind makes all fifty times slower: nothing may end at a deadline.
            limits: RequestLimits { timeout: Duration::from_secs(3600), ..RequestLimits::default() },
        };
        let stop = CancellationToken::new();
        let server = runtime.block_on(ApiServer::start(options, stop.clone()))?;
        let world = Self { runtime, server, stop };
        for (path, object) in [
            ("/api/v1/namespaces/default/serviceaccounts", r#"{"metadata":{"name":"default"}}"#),
            ("/api/v1/namespaces", r#"{"metadata":{"name":"tenant"}}"#),
            (
                "/apis/rbac.authorization.k8s.io/v1/namespaces/tenant/roles",
                r#"{"metadata":{"name":"admin"},"rules":[{"apiGroups":[""],"resources":["secrets","configmaps"],
                "verbs":["get","list","create","update","patch"]},{"apiGroups":["rbac.authorization.k8s.io"],
                "resources":["roles","rolebindings"],"verbs":["get","create","update","patch"]}]}"#,
            ),
            (
                "/apis/rbac.authorization.k8s.io/v1/namespaces/tenant/rolebindings",
                r#"{"metadata":{"name":"admin"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"Role",
                "name":"admin"},"subjects":[{"apiGroup":"rbac.authorization.k8s.io","kind":"User","name":"tenant"}]}"#,
            ),
        ] {
            let answer = world.call(super::rows::post(path, object.as_bytes().to_vec()));
            anyhow::ensure!(answer.status == 201, "{path}: {} {}", answer.status, answer.beginning);
        }
        Ok(world)
    }

    /// Makes a request and reads the answer to its end.
    pub(crate) fn call(&self, request: Request) -> Answer {
        let built = http::Request::builder()
            .method(request.method)
            .uri(request.target)
            .header(CONTENT_TYPE, request.content_type)
            .header(ACCEPT, request.accept)
            .body(Full::new(Bytes::from(request.body)))
            .expect("rows make requests that can be sent");
        let service = self.server.client_service(request.user.info());
        self.runtime.block_on(async {
            let answer = service.oneshot(built).await.unwrap_or_else(|never| match never {});
            let status = answer.status().as_u16();
            let (mut length, mut beginning) = (0, Vec::new());
            let mut body = std::pin::pin!(answer.into_body());
            // Piece by piece: what is read is not kept, as nobody keeps it who sends it on.
            while let Some(Ok(frame)) = body.frame().await {
                let Ok(data) = frame.into_data() else { continue };
                length += data.len();
                if beginning.len() < 300 {
                    beginning.extend(data.iter().take(300));
                }
            }
            let beginning = String::from_utf8_lossy(&beginning).into_owned();
            Answer { status, length, beginning }
        })
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
