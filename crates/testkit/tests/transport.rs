//! The connections of agents and managers.

use fleetpass_cli::transport;
use fleetpass_testkit::clients;
use fleetpass_testkit::cluster::{ADMIN_TOKEN, Cluster};
use fleetpass_testkit::proxy::Proxy;
use futures::future::{join_all, try_join_all};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{Api, ListParams, WatchParams};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

async fn client(address: SocketAddr, ca_pem: &str) -> anyhow::Result<kube::Client> {
    transport::connect(clients::config(address, ca_pem, ADMIN_TOKEN).await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_and_requests_share_one_connection() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let proxy = Proxy::start(cluster.address).await?;
    let client = client(proxy.address, &cluster.ca_pem).await?;
    Api::<Namespace>::all(client.clone()).get("default").await?;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    let params = WatchParams::default();
    let watches = try_join_all((0..5).map(|_| maps.watch(&params, "0"))).await?;
    let lists = join_all((0..50).map(|_| async { maps.list(&ListParams::default()).await.is_ok() })).await;
    assert!(lists.into_iter().all(|listed| listed));
    drop(watches);
    assert_eq!(proxy.connections(), 1);
    Ok(())
}

/// Answers one request with HTTP/1.1, and knows nothing else.
async fn old_server() -> anyhow::Result<(SocketAddr, String)> {
    let keys = rcgen::KeyPair::generate()?;
    let certificate = rcgen::CertificateParams::new(vec!["127.0.0.1".into()])?.self_signed(&keys)?;
    let key = PrivateKeyDer::from_pem_slice(keys.serialize_pem().as_bytes())?;
    let chain = vec![CertificateDer::from(certificate.der().to_vec())];
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await?;
        let mut stream = tokio_rustls::TlsAcceptor::from(Arc::new(config)).accept(stream).await?;
        let mut asked = Vec::new();
        while !asked.ends_with(b"\r\n\r\n") {
            asked.push(stream.read_u8().await?);
        }
        let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "old"}}).to_string();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body.as_bytes()).await?;
        stream.shutdown().await
    });
    Ok((address, certificate.pem()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_http2_is_spoken_to_as_well() -> anyhow::Result<()> {
    let (address, ca_pem) = old_server().await?;
    let namespace = Api::<Namespace>::all(client(address, &ca_pem).await?).get("old").await?;
    assert_eq!(namespace.metadata.name.as_deref(), Some("old"));
    Ok(())
}
