//! How a client reaches a server: over one connection with HTTP/2, as client-go does.
//!
//! kube's own client speaks HTTP/1.1 and opens a connection, with a TLS handshake, for every watch and every request that is
//! under way. A hub with thousands of agents would hold several times as many connections, and an agent with many accounts
//! would spend most of its time on handshakes. A server that knows no HTTP/2 is spoken to as before (ALPN decides). All that
//! holds through a proxy, too: it carries the connection, and sees nothing of what is in it.

use crate::proxy::{Proxy, Route, Via};
use hyper_rustls::{FixedServerNameResolver, HttpsConnectorBuilder};
use hyper_timeout::TimeoutConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::retry::RetryPolicy;
use kube::client::{Body, ClientBuilder, ConfigExt as _};
use kube::{Client, Config};
use std::time::Duration;
use tower::retry::RetryLayer;
use tower::{BoxError, ServiceBuilder, ServiceExt as _};

/// A connection on which nothing came for so long is asked whether it is alive (client-go: `HTTP2_READ_IDLE_TIMEOUT_SECONDS`).
const PING_AFTER: Duration = Duration::from_secs(30);
/// How long it may take to answer (client-go: `HTTP2_PING_TIMEOUT_SECONDS`).
const PING_TIMEOUT: Duration = Duration::from_secs(15);

/// How long a proxy may take if the configuration sets no limit for connecting.
const PROXY_PATIENCE: Duration = Duration::from_secs(15);

/// A client for a configuration; its `proxy_url` is what a kubeconfig says.
///
/// # Errors
///
/// The configuration cannot be used: certificates or keys that are none, a proxy that is none.
pub fn connect(config: Config) -> anyhow::Result<Client> {
    let proxy = config.proxy_url.as_ref().map(|url| Proxy::of_kubeconfig(&url.to_string())).transpose()?;
    connect_through(config, proxy)
}

/// A client for a configuration, through this proxy or none, whatever the configuration says.
///
/// # Errors
///
/// Certificates or keys are none.
pub(crate) fn connect_through(config: Config, proxy: Option<Proxy>) -> anyhow::Result<Client> {
    // As kube builds its own client (`kube-client/src/client/builder.rs`): its layers, in its order, without the one that
    // traces requests. What differs is HTTP/2 with its pings, that small writes are not held back, and the proxies.
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    let trust = config.rustls_client_config()?;
    let route = match proxy {
        // The proxy has half of the time, so that it is named when it does not answer.
        Some(proxy) => {
            let patience = config.connect_timeout.map_or(PROXY_PATIENCE, |limit| limit / 2);
            Route::Via(Via::new(proxy, tcp, trust.clone(), patience))
        }
        None => Route::Direct(tcp),
    };
    let mut tls = HttpsConnectorBuilder::new().with_tls_config(trust).https_or_http();
    if let Some(name) = &config.tls_server_name {
        tls = tls.with_server_name_resolver(FixedServerNameResolver::new(name.clone().try_into()?));
    }
    let mut connector = TimeoutConnector::new(tls.enable_all_versions().wrap_connector(route));
    connector.set_connect_timeout(config.connect_timeout);
    connector.set_read_timeout(config.read_timeout);
    connector.set_write_timeout(config.write_timeout);
    connector.set_reset_reader_on_write(config.reset_reader_on_write);
    let http = hyper_util::client::legacy::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .http2_keep_alive_interval(PING_AFTER)
        .http2_keep_alive_timeout(PING_TIMEOUT)
        // Watches on which nothing happens are the rule.
        .http2_keep_alive_while_idle(true)
        .build::<_, Body>(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.default_retry.then(|| RetryLayer::new(RetryPolicy::server_retry())))
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(http)
        .boxed();
    Ok(ClientBuilder::new(service, config.default_namespace).build())
}
