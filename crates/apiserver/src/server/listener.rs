//! Connections: accept, TLS handshake, HTTP/1.1 or HTTP/2, graceful shutdown.

use super::body::Body;
use super::coalesce::Coalesced;
use super::connection::{self, StreamExecutor};
use super::reactors::Reactors;
use fleetpass_auth::authn::ClientCertificate;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long a client may take for the TLS handshake, and for the headers of a request.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Requests that may be under way on one HTTP/2 connection; kube-apiserver allows 250 too.
const STREAMS_PER_CONNECTION: u32 = 250;
/// The largest header block of a request over HTTP/2. Bearer tokens and group lists are large, but not that large.
const MAX_HEADER_BYTES: u32 = 64 * 1024;
/// Open connections. Beyond this we stop calling `accept`, and clients wait in the kernel's backlog: the process must not run
/// out of file descriptors, which the store needs too.
const MAX_CONNECTIONS: usize = 20_000;
/// How long requests under way may take to end when the server stops.
const GRACE: Duration = Duration::from_secs(10);

/// The client at the other end of a connection.
#[derive(Clone)]
pub(super) struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// Its client certificate, verified against the client CAs.
    pub certificate: Option<Arc<ClientCertificate>>,
}

/// Serves until `stop`, then lets requests under way end, for at most [`GRACE`]. `handle` answers one request; it finds the
/// [`Peer`] in the request's extensions. Connections run on the threads of [`Reactors`].
pub(super) async fn serve<F, R>(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    handle: F,
    stop: CancellationToken,
) where
    F: Fn(Request<Incoming>) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Response<Body>> + Send + 'static,
{
    let acceptor = TlsAcceptor::from(tls);
    let connections = TaskTracker::new();
    let mut reactors = Reactors::start();
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // Before `accept`, not after it: a connection that was accepted has to be served.
        let Ok(slot) = slots.clone().acquire_owned().await else { break };
        let (stream, address) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Mostly: out of file descriptors. Some will be free in a moment.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
            () = stop.cancelled() => break,
        };
        let (acceptor, handle, stop) = (acceptor.clone(), handle.clone(), stop.clone());
        // A tokio socket is registered with the runtime that accepted it. Unregister it here and register it with the
        // runtime of its thread, or each of its wake-ups would take a detour over this one.
        let stream = stream.into_std();
        let served = async move {
            // Freed when the connection ends, however it ends.
            let _slot = slot;
            match stream.and_then(TcpStream::from_std) {
                Ok(stream) => serve_connection(stream, address, acceptor, handle, stop).await,
                Err(error) => tracing::warn!(%address, %error, "cannot take a connection"),
            }
        };
        connections.spawn_on(served, reactors.next());
    }
    // New clients are refused at once, instead of waiting for an answer that never comes.
    drop(listener);
    connections.close();
    // Connections have seen `stop` themselves and are in their graceful shutdown; what is left after the grace period (a client
    // that does not read) is cancelled when `reactors` is dropped.
    if tokio::time::timeout(GRACE, connections.wait()).await.is_err() {
        tracing::warn!("some requests did not end in time; their connections are closed");
    }
}

/// The TLS handshake; `None` if it fails or is not done in time. Failures are logged at debug level only: port scanners and
/// load balancers cause them all the time.
async fn shake_hands(
    stream: TcpStream,
    address: SocketAddr,
    acceptor: TlsAcceptor,
) -> Option<TlsStream<TcpStream>> {
    // `Coalesced` decides when to send; Nagle's algorithm would only add its delay to that.
    let _ = stream.set_nodelay(true);
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(tls)) => Some(tls),
        Ok(Err(error)) => {
            tracing::debug!(%address, %error, "TLS handshake failed");
            None
        }
        Err(_) => {
            tracing::debug!(%address, "TLS handshake timed out");
            None
        }
    }
}

async fn serve_connection<F, R>(
    stream: TcpStream,
    address: SocketAddr,
    acceptor: TlsAcceptor,
    handle: F,
    stop: CancellationToken,
) where
    F: Fn(Request<Incoming>) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Response<Body>> + Send + 'static,
{
    // Boxed, so that the state of the handshake is freed when it is done and is not part of this future, of which there are
    // thousands.
    let Some(tls) = Box::pin(shake_hands(stream, address, acceptor)).await else { return };
    // Verified by rustls during the handshake; here it is only parsed, once per connection instead of once per request.
    let chain = tls.get_ref().1.peer_certificates();
    let certificate =
        chain.and_then(|chain| chain.first()).map(|leaf| Arc::new(ClientCertificate::new(leaf)));
    let peer = Peer { address, certificate };
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        // Boxed, because hyper's future of a request has room for the larger of making the answer and sending its body, for as
        // long as the body is sent; for a watch that is hours.
        let answer = Box::pin(handle(request));
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let http2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
    let io = Coalesced::new(tls);
    let arrivals = StreamExecutor::default();
    let ended = if http2 {
        let connection = http2_settings(arrivals.clone()).serve_connection(TokioIo::new(io.clone()), service);
        connection::drive(Box::pin(connection), http2::Connection::graceful_shutdown, arrivals, io, &stop)
            .await
    } else {
        let connection = http1_settings().serve_connection(TokioIo::new(io.clone()), service);
        connection::drive(Box::pin(connection), http1::Connection::graceful_shutdown, arrivals, io, &stop)
            .await
    };
    if let Err(error) = ended {
        tracing::debug!(%address, %error, "connection ended");
    }
}

fn http1_settings() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HANDSHAKE_TIMEOUT).max_buf_size(128 * 1024);
    builder
}

fn http2_settings(arrivals: StreamExecutor) -> http2::Builder<StreamExecutor> {
    let mut builder = http2::Builder::new(arrivals);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .max_header_list_size(MAX_HEADER_BYTES)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}
