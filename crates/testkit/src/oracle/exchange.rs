//! One request on a connection of its own, as the recordings were made.

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The server that scenarios are replayed against.
pub struct Target {
    address: SocketAddr,
    tls: Arc<rustls::ClientConfig>,
    admin_token: String,
    pub(super) built_here: bool,
}

/// A request as it is sent.
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    /// In order; a name that differs in case is another header.
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Option<Vec<u8>>,
    pub(super) who: String,
    pub(super) watch: usize,
}

/// An answer as it was received; a body that is no JSON is a string.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Value,
}

impl Target {
    /// A server at a loopback address, its CA certificates (PEM), and the token of an administrator.
    pub fn new(address: SocketAddr, ca_pem: &str, admin_token: impl Into<String>) -> Result<Self> {
        use rustls::pki_types::pem::PemObject;
        let mut roots = rustls::RootCertStore::empty();
        for ca in rustls::pki_types::CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
            roots.add(ca.context("the CA is no certificate")?)?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { address, tls: Arc::new(tls), admin_token: admin_token.into(), built_here: false })
    }

    /// The same, for a kube-apiserver that was built otherwise than the recorded one: what depends on the build is
    /// not compared.
    #[must_use]
    pub fn built_here(self) -> Self {
        Self { built_here: true, ..self }
    }

    pub(super) async fn send(&self, request: &Request) -> Result<Answer> {
        tokio::time::timeout(Duration::from_secs(40), self.exchange(request))
            .await
            .context("no answer in 40 s")?
    }

    /// A connection of its own, on which nothing was said yet.
    pub async fn connect(&self) -> Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.address).await?;
        let name = ServerName::IpAddress(self.address.ip().into());
        Ok(TlsConnector::from(self.tls.clone()).connect(name, stream).await?)
    }

    async fn exchange(&self, request: &Request) -> Result<Answer> {
        let stream = self.connect().await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let response = sender.send_request(self.http_request(request)?).await?;
        let status = response.status().as_u16();
        let headers = response
            .headers()
            .iter()
            .map(|(k, v)| (k.as_str().to_string(), String::from_utf8_lossy(v.as_bytes()).into_owned()))
            .collect();
        let body = if request.watch > 0 && status == 200 {
            json!({"watchEvents": read_events(response.into_body(), request.watch).await?})
        } else {
            let bytes = response.into_body().collect().await?.to_bytes();
            serde_json::from_slice(&bytes)
                .unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into_owned().into())
        };
        connection.abort();
        Ok(Answer { status, headers, body })
    }

    fn http_request(&self, request: &Request) -> Result<http::Request<Full<Bytes>>> {
        let mut builder = http::Request::builder()
            .method(request.method.as_str())
            .uri(request.path.as_str())
            .header("host", self.address.to_string());
        for (name, value) in &request.headers {
            builder = builder.header(name.as_str(), value);
        }
        let token = match request.who.as_str() {
            "admin" => Some(self.admin_token.as_str()),
            who => who.strip_prefix("bearer:"),
        };
        if let Some(token) = token {
            builder = builder.header("authorization", format!("Bearer {token}"));
        }
        Ok(builder.body(Full::from(request.body.clone().unwrap_or_default()))?)
    }
}

/// Reads up to `most` watch events; fewer if the server ends the watch.
async fn read_events(mut body: hyper::body::Incoming, most: usize) -> Result<Vec<Value>> {
    let mut events = Vec::new();
    let mut buffer = Vec::new();
    while events.len() < most {
        let Some(frame) = body.frame().await else { break };
        let Ok(data) = frame?.into_data() else { continue };
        buffer.extend_from_slice(&data);
        while let Some(end) = buffer.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            if events.len() < most && !line.trim_ascii().is_empty() {
                events.push(serde_json::from_slice(&line)?);
            }
        }
    }
    Ok(events)
}
