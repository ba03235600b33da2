//! The server: requests in, answers out, over TLS or in process.

mod action;
pub mod body;
mod coalesce;
mod compression;
mod connection;
mod connections;
mod context;
mod documents;
mod expiry;
mod handler;
mod health;
mod limits;
mod list;
mod list_body;
mod listener;
mod metrics;
mod nonresource;
mod offload;
mod outliving;
mod reactors;
mod render;
mod reply;
mod resource;
mod resource_request;
mod scale;
mod start;
mod state;
mod streaming;
pub mod tls;
mod warning;

pub use connections::ConnectionLimits;
pub(crate) use handler::InProcess;
pub use limits::RequestLimits;
pub use start::{Options, StartError};

use body::{Body, BoxError};
use bytes::Bytes;
use fleetpass_apimachinery::user::UserInfo;
use fleetpass_auth::authn::ServiceAccounts;
use http::header::{HeaderValue, USER_AGENT};
use http::{Request, Response};
use rustls::ServerConfig;
use state::ServerState;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// A running API server; clones are handles to the same one.
#[derive(Clone)]
pub struct ApiServer {
    state: Arc<ServerState>,
}

impl std::fmt::Debug for ApiServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiServer")
            .field("external_address", &self.state.external_address)
            .finish_non_exhaustive()
    }
}

impl ApiServer {
    /// Loads the store, puts in place what every server has (roles, namespaces, CRDs), and is ready for requests.
    /// Stops what it does in the background when `stop` is cancelled.
    ///
    /// # Errors
    /// The store cannot be read or written, or a CRD of `options` is refused.
    pub async fn start(options: Options, stop: CancellationToken) -> Result<Self, StartError> {
        Ok(Self { state: Arc::new(start::start(options, stop).await?) })
    }

    /// Serves TLS connections until the server is stopped; then lets requests under way end. The limits of connections are for
    /// all listeners of the server together.
    pub async fn serve(&self, listener: TcpListener, tls: Arc<ServerConfig>) {
        let state = self.state.clone();
        let stop = state.stop.clone();
        let answer = move |request: Request<body::RequestBody>| {
            let state = state.clone();
            async move { handler::handle(&state, request).await }
        };
        listener::serve(listener, tls, answer, self.state.connections.clone(), stop).await;
    }

    /// `/metrics` shows this too, OpenMetrics text of what works beside the server in the same process. Once: a second call
    /// changes nothing.
    pub fn add_metrics(&self, text: impl Fn() -> String + Send + Sync + 'static) {
        self.state.metrics.add(Box::new(text));
    }

    /// `/readyz` fails, with this name, until [`ApiServer::has_come`] is called with it: for what has to happen once before
    /// clients should come.
    pub fn await_for_ready(&self, name: &'static str) {
        self.state.health.await_for_ready(name);
    }

    /// What `/readyz` waited for has come.
    pub fn has_come(&self, name: &'static str) {
        self.state.health.has_come(name);
    }

    /// A service that answers requests of `user` in process, without a socket: what a `kube::Client` runs over.
    pub fn client_service(&self, user: UserInfo) -> ClientService {
        ClientService { state: self.state.clone(), user: Some(Arc::new(user)) }
    }

    /// A service that answers requests in process as those of a connection without a client certificate are: by the credentials in
    /// their headers.
    pub fn service(&self) -> ClientService {
        ClientService { state: self.state.clone(), user: None }
    }

    /// The token machinery of service accounts, for the controller that fills token Secrets.
    pub fn accounts(&self) -> &Arc<ServiceAccounts> {
        &self.state.accounts
    }

    /// Waits until the audit log, if there is one, is written as far as it goes now.
    pub async fn flush_audit_log(&self) {
        if let Some(log) = &self.state.audit {
            log.flush().await;
        }
    }
}

/// Requests answered in process.
#[derive(Clone)]
pub struct ClientService {
    state: Arc<ServerState>,
    /// Who asks. `None`: whoever the credentials of a request say.
    user: Option<Arc<UserInfo>>,
}

impl<B> tower::Service<Request<B>> for ClientService
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Always ready: limits are applied per request, where the client can be told 429.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let state = self.state.clone();
        // Overwrites one that is there: a caller cannot choose another user than that of the service.
        match &self.user {
            Some(user) => request.extensions_mut().insert(InProcess(user.clone())),
            None => request.extensions_mut().remove::<InProcess>(),
        };
        // Field managers are named after the program that asks.
        let agent = HeaderValue::from_static(concat!("fleetpass/", env!("CARGO_PKG_VERSION")));
        request.headers_mut().entry(USER_AGENT).or_insert(agent);
        Box::pin(async move { Ok(handler::handle(&state, request).await) })
    }
}
