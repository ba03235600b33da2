//! How a client reaches a server: over one connection with HTTP/2, as client-go does.
//!
//! kube's own client speaks HTTP/1.1 and opens a connection, with a TLS handshake, for every watch and every request that is
//! under way. A hub with thousands of agents would hold several times as many connections, and an agent with many accounts
//! would spend most of its time on handshakes. A server that knows no HTTP/2 is spoken to as before (ALPN decides). All that
//! holds through a proxy, too: it carries the connection, and sees nothing of what is in it.

use crate::authn::{Credential, NoCredential, Origin, Plugin, Source};
use crate::proxy::{Proxy, Route, Via};
use fleetpass_api::clock::{self, SharedClock};
use futures::future::BoxFuture;
use http::header::AUTHORIZATION;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_timeout::TimeoutConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::retry::RetryPolicy;
use kube::client::{AuthError, Body, ClientBuilder, ConfigExt as _};
use kube::{Client, Config};
use parking_lot::Mutex;
use rustls::client::Resumption;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls_pki_types::ServerName;
use secrecy::ExposeSecret as _;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tower::retry::RetryLayer;
use tower::util::BoxCloneService;
use tower::{BoxError, Service, ServiceBuilder, ServiceExt as _};

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
    let namespace = config.default_namespace.clone();
    Ok(Way::new(config, proxy, clock::system())?.client(&namespace))
}

/// The way to a server, and who goes it. It can be replaced under the clients that use it.
#[derive(Clone)]
pub(crate) struct Way(Arc<Mutex<Stack>>);

/// Everything between a client and its server. Requests are sent by clones of it.
type Stack = BoxCloneService<Request<Body>, Response<Incoming>, BoxError>;

impl Way {
    /// Through this proxy or none, whatever the configuration says. Sends nothing, and calls no plugin.
    ///
    /// # Errors
    ///
    /// Certificates or keys are none, a plugin is not described as it has to be.
    pub(crate) fn new(mut config: Config, proxy: Option<Proxy>, clock: SharedClock) -> anyhow::Result<Self> {
        let source = changing_credential(&mut config, clock)?;
        let connections = Connections::new(&config, proxy)?;
        // As kube builds its own client (`kube-client/src/client/builder.rs`): its layers, in its order, without the one
        // that traces requests.
        let stack = ServiceBuilder::new()
            .layer(config.base_uri_layer())
            .option_layer(config.default_retry.then(|| RetryLayer::new(RetryPolicy::server_retry())))
            .option_layer(config.auth_layer()?)
            .layer(config.extra_headers_layer()?)
            .map_err(BoxError::from)
            .service(Authenticated { source, connections: Arc::new(connections) })
            .boxed_clone();
        Ok(Self(Arc::new(Mutex::new(stack))))
    }

    /// A client that goes this way, and the next one when this is replaced.
    pub(crate) fn client(&self, namespace: &str) -> Client {
        ClientBuilder::new(self.clone(), namespace).build()
    }

    /// From now on requests go the other way. Those under way, watches among them, end as they began.
    pub(crate) fn replace(&self, other: &Self) {
        let next = other.0.lock().clone();
        *self.0.lock() = next;
    }
}

impl Service<Request<Body>> for Way {
    type Response = Response<Incoming>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<Incoming>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let stack = self.0.lock().clone();
        Box::pin(stack.oneshot(request))
    }
}

/// Takes a credential that changes out of a configuration, so that kube does not use it by its own rules. What stays is a
/// token, a password or a certificate that is good as long as the kubeconfig is.
fn changing_credential(config: &mut Config, clock: SharedClock) -> anyhow::Result<Option<Arc<Source>>> {
    let user = &mut config.auth_info;
    if let Some(path) = user.token_file.take().filter(|path| !path.is_empty()) {
        // With both, the file counts as soon as it can be read (client-go, `tools/clientcmd/client_config.go`).
        let token = user.token.take().filter(|token| !token.expose_secret().is_empty());
        let fallback =
            token.map(|token| Credential::bearer(token.expose_secret())).transpose()?.map(Arc::new);
        return Ok(Some(Source::new(Origin::TokenFile { path: path.into(), fallback }, clock)));
    }
    let plugin = user.exec.take();
    // A plugin counts for those alone who have nothing else to show (client-go, `roundTripper.RoundTrip` of exec.go).
    let other = user.token.is_some() || user.username.is_some() || user.auth_provider.is_some();
    match plugin.filter(|_| !other) {
        Some(plugin) => Ok(Some(Source::new(Origin::Plugin(Box::new(Plugin::new(&plugin)?)), clock))),
        None => Ok(None),
    }
}

type Http = hyper_util::client::legacy::Client<TimeoutConnector<HttpsConnector<Route>>, Body>;

/// The connections to the server, and the certificate with which they were made.
struct Connections {
    route: Route,
    tls: rustls::ClientConfig,
    server_name: Option<ServerName<'static>>,
    /// Its time limits are meant.
    config: Config,
    current: Mutex<(Option<Arc<CertifiedKey>>, Http)>,
}

impl Connections {
    fn new(config: &Config, proxy: Option<Proxy>) -> anyhow::Result<Self> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        let tls = config.rustls_client_config()?;
        let route = match proxy {
            // The proxy has half of the time, so that it is named when it does not answer.
            Some(proxy) => {
                let patience = config.connect_timeout.map_or(PROXY_PATIENCE, |limit| limit / 2);
                Route::Via(Via::new(proxy, tcp, tls.clone(), patience))
            }
            None => Route::Direct(tcp),
        };
        let server_name = config.tls_server_name.clone().map(ServerName::try_from).transpose()?;
        let http = http(&route, tls.clone(), server_name.as_ref(), config);
        Ok(Self { route, tls, server_name, config: config.clone(), current: Mutex::new((None, http)) })
    }

    /// Those on which the server sees this certificate; none means the one of the kubeconfig, if it has one.
    fn with(&self, identity: Option<&Arc<CertifiedKey>>) -> Http {
        let mut current = self.current.lock();
        if current.0.as_ref().map(Arc::as_ptr) != identity.map(Arc::as_ptr) {
            let mut tls = self.tls.clone();
            if let Some(identity) = identity {
                tls.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(identity.clone()));
            }
            // Or the server would take up a session in which it saw the former certificate.
            tls.resumption = Resumption::default();
            *current = (identity.cloned(), http(&self.route, tls, self.server_name.as_ref(), &self.config));
        }
        current.1.clone()
    }
}

/// A client of hyper's. What differs from kube's is HTTP/2 with its pings, that small writes are not held back, and the
/// proxies.
fn http(
    route: &Route,
    tls: rustls::ClientConfig,
    server_name: Option<&ServerName<'static>>,
    config: &Config,
) -> Http {
    let mut tls = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
    if let Some(name) = server_name {
        tls = tls.with_server_name_resolver(FixedServerNameResolver::new(name.clone()));
    }
    let mut connector = TimeoutConnector::new(tls.enable_all_versions().wrap_connector(route.clone()));
    connector.set_connect_timeout(config.connect_timeout);
    connector.set_read_timeout(config.read_timeout);
    connector.set_write_timeout(config.write_timeout);
    connector.set_reset_reader_on_write(config.reset_reader_on_write);
    hyper_util::client::legacy::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .http2_keep_alive_interval(PING_AFTER)
        .http2_keep_alive_timeout(PING_TIMEOUT)
        // Watches on which nothing happens are the rule.
        .http2_keep_alive_while_idle(true)
        .build(connector)
}

/// Sends requests as somebody whose credential may change.
#[derive(Clone)]
struct Authenticated {
    source: Option<Arc<Source>>,
    connections: Arc<Connections>,
}

impl Authenticated {
    async fn send(self, mut request: Request<Body>) -> Result<Response<Incoming>, BoxError> {
        let Some(source) = self.source else {
            return Ok(self.connections.with(None).request(request).await?);
        };
        let credential = source.current().await.map_err(no_credential)?;
        let again = repeat(&request);
        let response = self.connections.of(&credential, &mut request).request(request).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        match (again, source.refused(&credential).await.map_err(no_credential)?) {
            (Some(mut again), Some(credential)) => {
                Ok(self.connections.of(&credential, &mut again).request(again).await?)
            }
            _ => Ok(response),
        }
    }
}

/// As kube's own clients say it, so that whoever sends requests can tell it from a server that is away.
fn no_credential(error: NoCredential) -> BoxError {
    kube::Error::Auth(AuthError::AuthExec(error.to_string())).into()
}

impl Connections {
    /// Those for a credential; the request gets what of it goes into its head.
    fn of(&self, credential: &Credential, request: &mut Request<Body>) -> Http {
        if let Some(header) = &credential.header {
            request.headers_mut().insert(AUTHORIZATION, header.clone());
        }
        self.with(credential.identity.as_ref())
    }
}

/// The same request once more, if its body is one that can be sent again.
fn repeat(request: &Request<Body>) -> Option<Request<Body>> {
    let mut again = Request::new(request.body().try_clone()?);
    *again.method_mut() = request.method().clone();
    *again.uri_mut() = request.uri().clone();
    *again.version_mut() = request.version();
    *again.headers_mut() = request.headers().clone();
    *again.extensions_mut() = request.extensions().clone();
    Some(again)
}

impl Service<Request<Body>> for Authenticated {
    type Response = Response<Incoming>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<Incoming>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.clone().send(request))
    }
}
