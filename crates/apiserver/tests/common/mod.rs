//! A server in memory, for tests that ask it in process.

use fleetpass_apiserver::audit::Log;
use fleetpass_apiserver::{ApiServer, ConnectionLimits, Options, RequestLimits};
use fleetpass_auth::authn::TokenFile;
use fleetpass_store::{MemoryStore, Store};
use fleetpass_token::claims::Lifetimes;
use fleetpass_token::key::{KeyKind, SigningKey};
use fleetpass_token::ring::KeyRing;
use secrecy::ExposeSecret as _;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// A server without CRDs, until it is stopped.
#[allow(dead_code, reason = "each program of tests uses one of the two")]
pub(crate) async fn server(stop: &CancellationToken) -> ApiServer {
    server_on(Arc::new(MemoryStore::default()), stop).await
}

/// The same on a store of the test's own.
pub(crate) async fn server_on(store: Arc<dyn Store>, stop: &CancellationToken) -> ApiServer {
    audited_server_on(store, None, stop).await
}

/// The same with an audit log.
pub(crate) async fn audited_server_on(
    store: Arc<dyn Store>,
    audit: Option<Log>,
    stop: &CancellationToken,
) -> ApiServer {
    let key = SigningKey::generate_pem(KeyKind::P256).expect("a key");
    let options = Options {
        store,
        clock: fleetpass_api::clock::system(),
        key_ring: KeyRing::from_pem(key.expose_secret().as_bytes(), &[] as &[&[u8]]).expect("a ring"),
        issuers: vec!["https://kubernetes.default.svc".into()],
        api_audiences: Vec::new(),
        lifetimes: Lifetimes::default(),
        token_users: TokenFile::parse("").expect("an empty file"),
        external_address: "127.0.0.1:6443".into(),
        jwks_uri: None,
        crds: Vec::new(),
        audit,
        limits: RequestLimits::default(),
        connections: ConnectionLimits::default(),
    };
    ApiServer::start(options, stop.clone()).await.expect("a server")
}
