//! Where an API server is, as its clients know it.

use super::pki::write_private;
use crate::clients;
use crate::cluster::ADMIN_TOKEN;
use anyhow::Result;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

/// Where an API server is, and whom to trust there.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Its port on 127.0.0.1.
    pub port: u16,
    /// The certificate of its authority, PEM.
    pub ca_pem: String,
}

impl Endpoint {
    pub(super) fn new(port: u16, ca_pem: &str) -> Self {
        Self { port, ca_pem: ca_pem.into() }
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// A kubeconfig (JSON, which is YAML) for the user of a bearer token.
    pub fn kubeconfig(&self, token: &str) -> String {
        clients::kubeconfig(self.address(), &self.ca_pem, token).to_string()
    }

    /// Writes [`Endpoint::kubeconfig`] to a file.
    pub fn write_kubeconfig(&self, path: &Path, token: &str) -> Result<()> {
        write_private(path, &self.kubeconfig(token))
    }

    /// [`Endpoint::kubeconfig`] as kube reads it.
    pub async fn config(&self, token: &str) -> Result<kube::Config> {
        clients::config(self.address(), &self.ca_pem, token).await
    }

    /// A client for the user of a bearer token.
    pub async fn client(&self, token: &str) -> Result<kube::Client> {
        let mut config = self.config(token).await?;
        config.connect_timeout = Some(Duration::from_secs(5));
        // Every answer is seen: the client asks nothing again behind a test's back.
        config.default_retry = false;
        Ok(kube::Client::try_from(config)?)
    }

    /// A client for the administrator.
    pub async fn admin(&self) -> Result<kube::Client> {
        self.client(ADMIN_TOKEN).await
    }

    /// Whether `/readyz` says so.
    pub(super) async fn is_ready(&self) -> bool {
        self.has("/readyz").await
    }

    /// Whether the administrator gets something at a path.
    pub(super) async fn has(&self, path: &str) -> bool {
        let Ok(client) = self.admin().await else { return false };
        let Ok(request) = http::Request::get(path).body(Vec::new()) else { return false };
        let answer = tokio::time::timeout(Duration::from_secs(5), client.request_text(request)).await;
        matches!(answer, Ok(Ok(_)))
    }
}
