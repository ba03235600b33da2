//! A control plane in a test: over memory, on a free loopback port, with users whose tokens are known.

use crate::clients;
use anyhow::{Context, Result};
use fleetpass_api::clock::{self, SharedClock};
use fleetpass_apimachinery::user::{SYSTEM_MASTERS, UserInfo};
use fleetpass_apiserver::tls::{ServingCertificate, server_config};
use fleetpass_apiserver::{ApiServer, ConnectionLimits, Options, RequestLimits};
use fleetpass_auth::authn::TokenFile;
use fleetpass_store::{MemoryStore, Store};
use fleetpass_token::claims::Lifetimes;
use fleetpass_token::key::{KeyKind, SigningKey};
use fleetpass_token::ring::KeyRing;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use secrecy::ExposeSecret as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// The token of the administrator (group `system:masters`).
pub const ADMIN_TOKEN: &str = "admintoken";

/// The users of a test cluster: an administrator and one without rights.
const TOKENS: &str = "admintoken,admin,admin,\"system:masters\"\nalicetoken,alice,alice-uid,\"devs\"\n";

/// A control plane that runs until it is dropped.
pub struct Cluster {
    /// The API server.
    pub server: ApiServer,
    /// Where it listens.
    pub address: SocketAddr,
    /// The certificate to trust, PEM.
    pub ca_pem: String,
    /// Where its objects are.
    pub store: Arc<dyn Store>,
    stop: CancellationToken,
}

impl Cluster {
    /// Starts one with the machine's clock and an ES256 key.
    pub async fn start() -> Result<Self> {
        Self::start_with(Arc::new(MemoryStore::default()), clock::system()).await
    }

    /// Starts one over a store.
    pub async fn start_with(store: Arc<dyn Store>, clock: SharedClock) -> Result<Self> {
        Self::start_tuned(store, clock, |_| {}).await
    }

    /// Starts one over a store, with the server's options changed by `tune`.
    pub async fn start_tuned(
        store: Arc<dyn Store>,
        clock: SharedClock,
        tune: impl FnOnce(&mut Options),
    ) -> Result<Self> {
        let (cluster, keys) = Self::serve(store, clock.clone(), tune).await?;
        let system = UserInfo {
            name: "system:kube-controller-manager".into(),
            groups: vec![SYSTEM_MASTERS.into()],
            ..UserInfo::default()
        };
        let mut controllers = fleetpass_controllers::Options::default();
        controllers.root_ca = Some(cluster.ca_pem.clone());
        let authority =
            fleetpass_controllers::CertificateAuthority::from_pem(&cluster.ca_pem, &keys.serialize_pem())?;
        controllers.client_authority = Some(Arc::new(authority));
        let running =
            fleetpass_controllers::run(cluster.client(system), controllers, clock, cluster.stop.clone());
        tokio::spawn(running);
        Ok(cluster)
    }

    /// Starts an API server without controllers: nothing happens to its objects but what its clients do.
    pub async fn bare(clock: SharedClock) -> Result<Self> {
        Ok(Self::serve(Arc::new(MemoryStore::default()), clock, |_| {}).await?.0)
    }

    /// A client without a socket.
    pub fn client(&self, user: UserInfo) -> kube::Client {
        kube::Client::new(self.server.client_service(user), "default")
    }

    /// A client to whom everything is allowed.
    pub fn admin(&self) -> kube::Client {
        let groups = vec![SYSTEM_MASTERS.into()];
        self.client(UserInfo { name: "admin".into(), groups, ..UserInfo::default() })
    }

    /// A client over a socket and TLS, for the user of a bearer token. `address` is [`Cluster::address`], or something
    /// between it and the client.
    pub async fn client_over_tls(&self, address: SocketAddr, token: &str) -> Result<kube::Client> {
        let config = clients::config(address, &self.ca_pem, token).await?;
        Ok(kube::Client::try_from(config)?)
    }

    async fn serve(
        store: Arc<dyn Store>,
        clock: SharedClock,
        tune: impl FnOnce(&mut Options),
    ) -> Result<(Self, KeyPair)> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let key = SigningKey::generate_pem(KeyKind::P256)?;
        let stop = CancellationToken::new();
        let mut options = Options {
            store: store.clone(),
            clock,
            key_ring: KeyRing::from_pem(key.expose_secret().as_bytes(), &[] as &[&[u8]])?,
            issuers: vec!["https://kubernetes.default.svc".into()],
            api_audiences: Vec::new(),
            lifetimes: Lifetimes::default(),
            token_users: TokenFile::parse(TOKENS)?,
            external_address: address.to_string(),
            jwks_uri: None,
            crds: vec![serde_json::from_str(fleetpass_api::account::CRD_JSON).context("our own CRD")?],
            audit: None,
            limits: RequestLimits::default(),
            connections: ConnectionLimits::default(),
        };
        tune(&mut options);
        let server = ApiServer::start(options, stop.clone()).await?;
        let keys = KeyPair::generate()?;
        let certificate =
            CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()])?.self_signed(&keys)?;
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(keys.serialize_der()));
        let serving = ServingCertificate::new(vec![certificate.der().clone()], private)?;
        let tls = server_config(serving, &[])?;
        let serve = server.clone();
        tokio::spawn(async move { serve.serve(listener, tls).await });
        Ok((Self { server, address, ca_pem: certificate.pem(), store, stop }, keys))
    }

    /// Waits until `condition` holds, up to ten seconds.
    pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) -> Result<()> {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        while !condition().await {
            anyhow::ensure!(tokio::time::Instant::now() < deadline, "not within ten seconds: {what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
