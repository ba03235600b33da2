//! How tests reach a server over TLS.

use anyhow::Result;
use kube::config::KubeConfigOptions;
use serde_json::{Value, json};
use std::net::SocketAddr;

/// A kubeconfig for a server at a loopback address, whose authority's certificate is `ca_pem`, and the user of a bearer
/// token.
pub fn kubeconfig(address: SocketAddr, ca_pem: &str, token: &str) -> Value {
    use base64::Engine as _;
    let authority = base64::engine::general_purpose::STANDARD.encode(ca_pem);
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {
            "server": format!("https://{address}"), "certificate-authority-data": authority}}],
        "users": [{"name": "test", "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    })
}

/// [`kubeconfig`] as kube reads it.
///
/// # Errors
///
/// The authority is no certificate.
pub async fn config(address: SocketAddr, ca_pem: &str, token: &str) -> Result<kube::Config> {
    let kubeconfig = serde_json::from_value(kubeconfig(address, ca_pem, token))?;
    Ok(kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?)
}
