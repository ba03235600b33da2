//! Connections: accept, shake hands, serve HTTP/1.1 and HTTP/2, and let go of all in good order.

use super::body::Body;
use super::coalesce::Coalesced;
use super::connection::{self, Answer, Arrivals};
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
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long a client may take for the TLS handshake, and for the headers of a request.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Requests that may be under way on one HTTP/2 connection; kube-apiserver allows 250 too.
const STREAMS_PER_CONNECTION: u32 = 250;
/// The largest header block.
const MAX_HEADER_BYTES: u32 = 64 * 1024;
/// Open connections; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 20_000;
/// How long requests under way may take to end when the server stops.
const GRACE: Duration = Duration::from_secs(10);

/// Who is at the other end of a connection.
#[derive(Clone)]
pub(super) struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// Its client certificate, verified against the client CAs.
    pub certificate: Option<Arc<ClientCertificate>>,
}

/// Serves until `stop`, then lets requests under way end. `handle` answers one request; it finds the [`Peer`]
/// in the request's extensions. Connections have threads of their own; what takes long on them comes to the current runtime.
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
    let main = Handle::current();
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
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
        let main = main.clone();
        // The socket moves from this runtime to that of its thread.
        let stream = stream.into_std();
        let served = async move {
            let _slot = slot;
            match stream.and_then(TcpStream::from_std) {
                Ok(stream) => serve_connection(stream, address, acceptor, handle, stop, main).await,
                Err(error) => tracing::warn!(%address, %error, "cannot take a connection"),
            }
        };
        connections.spawn_on(served, reactors.next());
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(GRACE, connections.wait()).await.is_err() {
        tracing::warn!("some requests did not end in time; their connections are closed");
    }
}

/// The TLS handshake; `None` if there is none in time.
async fn shake_hands(
    stream: TcpStream,
    address: SocketAddr,
    acceptor: TlsAcceptor,
) -> Option<TlsStream<TcpStream>> {
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
    main: Handle,
) where
    F: Fn(Request<Incoming>) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Response<Body>> + Send + 'static,
{
    // Boxed, as all that a connection needs only for a while: thousands of idle ones keep little.
    let Some(tls) = Box::pin(shake_hands(stream, address, acceptor)).await else { return };
    let chain = tls.get_ref().1.peer_certificates();
    let certificate =
        chain.and_then(|chain| chain.first()).map(|leaf| Arc::new(ClientCertificate::new(leaf)));
    let peer = Peer { address, certificate };
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        let answer = Answer::new(handle(request), main.clone());
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let http2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
    let io = Coalesced::new(tls);
    let arrivals = Arrivals::default();
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

fn http2_settings(arrivals: Arrivals) -> http2::Builder<Arrivals> {
    let mut builder = http2::Builder::new(arrivals);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .max_header_list_size(MAX_HEADER_BYTES)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}
