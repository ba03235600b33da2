//! Connections: accept, TLS handshake, HTTP/1.1 or HTTP/2, graceful shutdown.

use super::body::{self, Body, RequestBody};
use super::coalesce::Coalesced;
use super::connection::{self, StreamExecutor};
use super::connections::{Connections, Guest};
use super::reactors::Reactors;
use fleetpass_auth::authn::ClientCertificate;
use http::header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long a client may take for the TLS handshake, if nobody waits for its place.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Requests that may be under way on one HTTP/2 connection; kube-apiserver allows 250 too.
const STREAMS_PER_CONNECTION: u32 = 250;
/// The largest header block of a request over HTTP/2. Bearer tokens and group lists are large, but not that large.
const MAX_HEADER_BYTES: u32 = 64 * 1024;
/// How much a client may send on one stream, and on all of a connection, before we have read it: what h2 keeps of bodies that
/// wait. Enough for some megabytes in a second over a distance of 100 ms.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 512 * 1024;
/// How many bytes of an answer that is sent in pieces wait for one stream of HTTP/2, beside the piece that came last. Clients
/// choose the windows of flow control, so those bound nothing; and there are hundreds of streams on a connection.
const SEND_BUFFER: usize = 16 * 1024;
/// How long requests under way may take to end when the server stops.
const GRACE: Duration = Duration::from_secs(10);

/// The client at the other end of a connection.
#[derive(Clone)]
pub(super) struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// Its client certificate, verified against the client CAs.
    pub certificate: Option<Arc<ClientCertificate>>,
    guest: Arc<Guest>,
}

impl Peer {
    /// A request of it was authenticated as somebody: from now on its connection is not one of a stranger.
    pub(super) fn authenticated(&self) {
        self.guest.authenticated();
    }
}

/// Serves until `stop`, then lets requests under way end, for at most [`GRACE`]. `handle` answers one request; it finds the
/// [`Peer`] in the request's extensions. Connections run on the threads of [`Reactors`]. Who is let in is decided by
/// `connections`.
pub(super) async fn serve<F, R>(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    handle: F,
    connections: Arc<Connections>,
    stop: CancellationToken,
) where
    F: Fn(Request<RequestBody>) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Response<Body>> + Send + 'static,
{
    let acceptor = TlsAcceptor::from(tls);
    let tasks = TaskTracker::new();
    let mut reactors = Reactors::start();
    loop {
        // Before `accept`: those who have to wait do so in the kernel's backlog, where they cost nothing. One of them is
        // accepted to know that there is one who waits: only then a slow handshake loses its place.
        let accepted = async {
            let accepted = listener.accept().await?;
            connections.wait_for_place().await;
            io::Result::Ok(accepted)
        };
        let (stream, address) = tokio::select! {
            accepted = accepted => match accepted {
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
        // One that is not let in is closed at once, so that its client knows, and tries again later.
        let Some(guest) = connections.arrive(address.ip(), &stop) else { continue };
        let (acceptor, handle) = (acceptor.clone(), handle.clone());
        // A tokio socket is registered with the runtime that accepted it. Unregister it here and register it with the
        // runtime of its thread, or each of its wake-ups would take a detour over this one.
        let stream = stream.into_std();
        let served = async move {
            match stream.and_then(TcpStream::from_std) {
                Ok(stream) => serve_connection(stream, address, acceptor, handle, guest).await,
                Err(error) => tracing::warn!(%address, %error, "cannot take a connection"),
            }
        };
        tasks.spawn_on(served, reactors.next());
    }
    // New clients are refused at once, instead of waiting for an answer that never comes.
    drop(listener);
    tasks.close();
    // Connections have seen `stop` themselves and are in their graceful shutdown; what is left after the grace period (a client
    // that does not read) is cancelled when `reactors` is dropped.
    if tokio::time::timeout(GRACE, tasks.wait()).await.is_err() {
        tracing::warn!("some requests did not end in time; their connections are closed");
    }
}

/// The TLS handshake; `None` if it fails, is not done in time, or has to give its place to another. Failures are logged at
/// debug level only: port scanners and load balancers cause them all the time.
async fn shake_hands(
    stream: TcpStream,
    address: SocketAddr,
    acceptor: TlsAcceptor,
    guest: &Guest,
) -> Option<TlsStream<TcpStream>> {
    // `Coalesced` decides when to send; Nagle's algorithm would only add its delay to that.
    let _ = stream.set_nodelay(true);
    let shaken = tokio::select! {
        // The handshake first: what its client has sent by now counts, even if we were too busy to read it in time.
        biased;
        shaken = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)) => shaken,
        () = guest.cut_off() => {
            tracing::debug!(%address, "TLS handshake given up: others wait for its place");
            return None;
        }
        () = guest.closing().cancelled() => return None,
    };
    guest.shaken_hands();
    match shaken {
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
    guest: Guest,
) where
    F: Fn(Request<RequestBody>) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Response<Body>> + Send + 'static,
{
    // Boxed, so that the state of the handshake is freed when it is done and is not part of this future, of which there are
    // thousands.
    let Some(tls) = Box::pin(shake_hands(stream, address, acceptor, &guest)).await else { return };
    // Verified by rustls during the handshake; here it is only parsed, once per connection instead of once per request.
    let chain = tls.get_ref().1.peer_certificates();
    let certificate =
        chain.and_then(|chain| chain.first()).map(|leaf| Arc::new(ClientCertificate::new(leaf)));
    if certificate.is_some() {
        guest.authenticated();
    }
    let http2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
    guest.activity().opened(guest.now(), !http2);
    let guest = Arc::new(guest);
    let peer = Peer { address, certificate, guest: guest.clone() };
    let answer = move |mut request: Request<RequestBody>| {
        request.extensions_mut().insert(peer.clone());
        let (handle, guest) = (handle.clone(), peer.guest.clone());
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        // Boxed, because hyper's future of a request has room for the larger of making the answer and sending its body, for as
        // long as the body is sent; for a watch that is hours.
        Box::pin(async move {
            // A client that does not read what it has asked for is not given more.
            if !guest.wait_for_reader().await {
                return reader_too_slow();
            }
            let answer = handle(request).await;
            guest.answered();
            match body::large(answer.body()) {
                None => answer,
                // What was written is never answered with a refusal.
                Some(length) if reads && !guest.answers().bears(length) => reader_too_slow(),
                Some(length) => answer.map(|body| body::accounted(body, length, guest.answers())),
            }
        })
    };
    let io = Coalesced::new(tls);
    let served = async {
        match http2 {
            true => serve_http2(io, answer, &guest).await,
            false => serve_http1(io, answer, &guest).await,
        }
    };
    tokio::select! {
        biased;
        ended = served => if let Err(error) = ended {
            tracing::debug!(%address, %error, "connection ended");
        },
        () = guest.watch_over() => tracing::debug!(%address, "connection cut off"),
    }
}

/// The answer to a client that does not read earlier ones. Plain, as the 429 of a server that has enough to do.
fn reader_too_slow() -> Response<Body> {
    let mut answer = Response::new(body::full("Too many requests, please try again later.\n"));
    *answer.status_mut() = StatusCode::TOO_MANY_REQUESTS;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    answer
}

/// Serves HTTP/2 until the connection ends.
async fn serve_http2<A, R>(
    io: Coalesced<TlsStream<TcpStream>>,
    answer: A,
    guest: &Arc<Guest>,
) -> hyper::Result<()>
where
    A: Fn(Request<RequestBody>) -> R + Send + 'static,
    R: Future<Output = Response<Body>> + Send + 'static,
{
    let account = guest.requests().clone();
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let answer = answer(request.map(|body| RequestBody::http2(body, account.clone())));
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let arrivals = StreamExecutor::default();
    let executor = Counting { inner: arrivals.clone(), guest: guest.clone() };
    let connection = http2_settings(executor).serve_connection(TokioIo::new(io.clone()), service);
    let close = http2::Connection::graceful_shutdown;
    connection::drive(Box::pin(connection), close, arrivals, io, guest.closing()).await
}

/// Serves HTTP/1.1 until the connection ends.
async fn serve_http1<A, R>(
    io: Coalesced<TlsStream<TcpStream>>,
    answer: A,
    guest: &Arc<Guest>,
) -> hyper::Result<()>
where
    A: Fn(Request<RequestBody>) -> R + Send + 'static,
    R: Future<Output = Response<Body>> + Send + 'static,
{
    // Whether the last request's body has been left unread.
    let unread = Arc::new(AtomicBool::new(false));
    let (noted, counted) = (unread.clone(), guest.clone());
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        // Until the answer's body has been sent: over HTTP/1.1 nothing else knows when that is.
        let under_way = UnderWay::begin(&counted);
        let last = asks_to_close(request.version(), request.headers());
        let answer =
            answer(request.map(|body| RequestBody::http1(body, counted.requests().clone(), noted.clone())));
        let (unread, guest) = (noted.clone(), counted.clone());
        async move {
            let mut answer = answer.await.map(|body| body::holding(body, under_way));
            // hyper closes the connection in these cases without saying so, and a client would send its next request into it.
            if last || unread.load(Ordering::Relaxed) || guest.closing().is_cancelled() {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let stream = TokioIo::new(Noticing { stream: io.clone(), guest: guest.clone() });
    let connection = http1_settings().serve_connection(stream, service);
    let close = http1::Connection::graceful_shutdown;
    let arrivals = StreamExecutor::default();
    let ended = connection::drive(Box::pin(connection), close, arrivals, io.clone(), guest.closing()).await;
    if unread.load(Ordering::Relaxed) {
        read_away(io).await;
    }
    ended
}

/// Whether the client wants the connection to be closed after this request: it says so, or speaks HTTP/1.0 and does not say the
/// contrary.
fn asks_to_close(version: Version, headers: &HeaderMap) -> bool {
    let says = |wanted: &str| {
        let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|option| option.trim().eq_ignore_ascii_case(wanted))
    };
    says("close") || (version == Version::HTTP_10 && !says("keep-alive"))
}

/// Reads what a client still sends after its answer, a refusal, and throws it away. Closing the socket at once would make the
/// kernel send a reset, on which clients throw away the answer that they have not read yet (Go waits for that reason, too:
/// `rstAvoidanceDelay` in `net/http/server.go`). Bounded in time and in bytes: whoever sends for longer gets the reset.
async fn read_away(mut io: Coalesced<TlsStream<TcpStream>>) {
    let mut buffer = vec![0; 16 * 1024];
    let mut left = body::READ_AWAY_BYTES;
    let reading = async {
        while let Ok(count @ 1..) = io.read(&mut buffer).await {
            left = left.saturating_sub(count);
            if left == 0 {
                break;
            }
        }
    };
    // An error or the end of the time is as good as the end.
    let _ = tokio::time::timeout(body::READ_AWAY_TIME, reading).await;
}

/// A request that is under way until this is dropped.
struct UnderWay(Arc<Guest>);

impl UnderWay {
    fn begin(guest: &Arc<Guest>) -> Self {
        guest.activity().began(|| guest.now());
        Self(guest.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.activity().ended(|| self.0.now());
    }
}

/// Counts the requests of an HTTP/2 connection: hyper spawns a future for each, which ends when the answer has been sent.
#[derive(Clone)]
struct Counting {
    inner: StreamExecutor,
    guest: Arc<Guest>,
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Counting {
    fn execute(&self, future: F) {
        let under_way = UnderWay::begin(&self.guest);
        self.inner.execute(async move {
            let _under_way = under_way;
            future.await;
        });
    }
}

/// Notices when bytes come, over HTTP/1.1: the time for the head of a request begins then.
struct Noticing<T> {
    stream: Coalesced<T>,
    guest: Arc<Guest>,
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for Noticing<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.guest.activity().received(|| self.guest.now());
        }
        read
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Noticing<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

fn http1_settings() -> http1::Builder {
    let mut builder = http1::Builder::new();
    // hyper's time for the head would run while a connection is idle as well; `Guest::watch_over` knows the difference.
    builder.timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(128 * 1024);
    builder
}

fn http2_settings<E: Clone>(executor: E) -> http2::Builder<E> {
    let mut builder = http2::Builder::new(executor);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .max_header_list_size(MAX_HEADER_BYTES)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_says_whether_it_has_more_to_ask() {
        for (version, connection, wanted) in [
            (Version::HTTP_11, None, false),
            (Version::HTTP_11, Some("keep-alive"), false),
            (Version::HTTP_11, Some("close"), true),
            (Version::HTTP_11, Some("TE, Close"), true),
            (Version::HTTP_11, Some("closed"), false),
            (Version::HTTP_10, None, true),
            (Version::HTTP_10, Some("Keep-Alive"), false),
            (Version::HTTP_10, Some("upgrade"), true),
        ] {
            let value = connection.map(HeaderValue::from_static);
            let headers = value.into_iter().map(|value| (CONNECTION, value)).collect();
            assert_eq!(asks_to_close(version, &headers), wanted, "{version:?} {connection:?}");
        }
    }
}
