//! One connection over HTTP/1.1 or HTTP/2, with all its requests in one task.
//!
//! Most requests are answered faster than another thread could be woken for them, and answers that are ready at the same
//! time share a TLS record and a write to the socket ([`super::coalesce`]). So all requests of a connection are polled by the
//! connection's own task, on one thread. A request that may keep the thread busy calls [`super::offload::offload`] and goes on
//! in the pool for heavy work, so that the others on the connection do not wait for it.
//!
//! # Cancellation
//!
//! Whatever runs here may be dropped at any `.await`: hyper drops the future of a request when its client resets the stream
//! or goes away, and dropping an offloaded one cancels its task. Handlers must therefore be safe to drop at every await point;
//! a write that has been handed to the store may be carried out all the same, and the audit log hears of the request when its
//! trail is dropped ([`crate::audit`]).

use super::coalesce::Coalesced;
use super::expiry::{Expired, Expiry};
use futures::stream::{FuturesUnordered, StreamExt};
use hyper::rt::Executor;
use parking_lot::Mutex;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What hyper makes of one HTTP/2 request: it calls the service and writes the answer's frames.
type Stream = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The executor that hyper is given: instead of spawning the future of an HTTP/2 request it leaves it here, for [`drive`] to
/// poll in the connection's task.
///
/// The lock is never contended: hyper calls `execute` only while `drive` polls the connection, on the same thread. It is
/// there because hyper asks for an executor that is `Send` and `Clone`.
#[derive(Clone, Default)]
pub(super) struct StreamExecutor(Arc<Mutex<Vec<Stream>>>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for StreamExecutor {
    fn execute(&self, future: F) {
        let (mut future, mut expiry) = (Box::pin(future), Expiry::default());
        // The same whether it has ended or has to end: dropping it resets a stream that is not finished.
        self.0
            .lock()
            .push(Box::pin(poll_fn(move |cx| expiry.poll(cx, |cx| future.as_mut().poll(cx)).map(drop))));
    }
}

/// How many requests may end before the connection is polled again to write their answers. Until then their frames wait in
/// a buffer of the connection, which keeps the capacity that it once needed.
const MAX_ENDED_PER_POLL: usize = 4;

/// How long a connection may keep its thread before the others on it get their turn. Hundreds of requests may be under way on
/// one connection, and each that ends may let hyper read the next: without a bound, one client could hold the thread.
const TURN: Duration = Duration::from_millis(2);

/// Drives a connection of hyper and all its requests until it ends. What they write is sent once none of them can go on for
/// now. When `stop` is cancelled, `close` begins hyper's graceful shutdown: no new requests, those under way are answered.
///
/// # Errors
/// What ended the connection, as hyper has it.
pub(super) async fn drive<C, E, T>(
    mut connection: Pin<Box<C>>,
    close: impl Fn(Pin<&mut C>),
    arrivals: StreamExecutor,
    io: Coalesced<T>,
    stop: &CancellationToken,
) -> Result<(), E>
where
    C: Future<Output = Result<(), E>>,
    T: AsyncRead + AsyncWrite + Unpin,
{
    let mut streams = FuturesUnordered::new();
    let mut stopping = pin!(stop.cancelled());
    let mut closing = false;
    let mut expiry = Expiry::default();
    poll_fn(|cx| {
        // Once only: `cancelled()` must not be polled after it is ready, and hyper needs to hear it once.
        if !closing && stopping.as_mut().poll(cx).is_ready() {
            closing = true;
            close(connection.as_mut());
        }
        // Requests and connection feed each other: a request that ends gives the connection frames to write, the connection
        // reads frames that start requests or wake them. So both are polled in turn until neither makes progress; only then is
        // what was written sent, in as few records as possible.
        let began = Instant::now();
        loop {
            // `all` stops at the first poll that ends no request: each of them has been polled then, as far as it was woken.
            let ended = (0..MAX_ENDED_PER_POLL).all(|_| streams.poll_next_unpin(cx) == Poll::Ready(Some(())));
            let polled = match expiry.poll(cx, |cx| connection.as_mut().poll(cx)) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Ok(ended)) => Poll::Ready(ended),
                // Only over HTTP/1.1, where the connection itself polls the body. What is left is not sent: it is closed.
                Poll::Ready(Err(Expired)) => return Poll::Ready(Ok(())),
            };
            if polled.is_ready() {
                // Try once to send what is left, such as the GOAWAY of a connection that broke the protocol. A peer that
                // does not read is not waited for.
                let _ = io.poll_send(cx);
                return polled;
            }
            // Taken out in one go, so that the lock is not held while the futures are polled.
            let arrived = std::mem::take(&mut *arrivals.0.lock());
            if arrived.is_empty() && !ended {
                break;
            }
            streams.extend(arrived);
            if began.elapsed() > TURN {
                cx.waker().wake_by_ref();
                break;
            }
        }
        // If the socket takes only a part, or fails, the waker is registered and this task is polled again.
        let _ = io.poll_send(cx);
        Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use http::{Request, Response};
    use http_body_util::Full;
    use hyper::client::conn::http2::SendRequest;
    use hyper::server::conn::http2;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use std::convert::Infallible;
    use tokio::task::JoinHandle;

    type Client = SendRequest<Full<Bytes>>;

    /// A connection to a server that answers requests for a path with `answer`.
    async fn connect<F>(
        answer: impl Fn(String) -> F + Send + 'static,
        stop: CancellationToken,
    ) -> (Client, JoinHandle<Result<(), hyper::Error>>)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (here, there) = tokio::io::duplex(1 << 16);
        let server = tokio::spawn(async move {
            let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
                let answered = answer(request.uri().path().to_owned());
                async move {
                    answered.await;
                    Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
                }
            });
            let (arrivals, io) = (StreamExecutor::default(), Coalesced::new(there));
            let connection =
                http2::Builder::new(arrivals.clone()).serve_connection(TokioIo::new(io.clone()), service);
            drive(Box::pin(connection), http2::Connection::graceful_shutdown, arrivals, io, &stop).await
        });
        let (client, driver) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(here)).await.unwrap();
        tokio::spawn(driver);
        (client, server)
    }

    async fn get(mut client: Client, path: &str) -> u16 {
        let request = Request::get(format!("http://server{path}")).body(Full::default()).unwrap();
        client.send_request(request).await.unwrap().status().as_u16()
    }

    #[tokio::test]
    async fn a_connection_with_much_to_do_lets_others_on_its_thread() {
        let answer = |_| async {
            // Longer than a turn, as a clock that jumps would make it too.
            let began = Instant::now();
            while began.elapsed() <= TURN {}
        };
        let (client, _server) = connect(answer, CancellationToken::new()).await;
        let answered = Arc::new(Mutex::new(0));
        let requests = (0..40).map(|_| {
            let (client, answered) = (client.clone(), answered.clone());
            async move {
                assert_eq!(get(client, "/").await, 200);
                *answered.lock() += 1;
            }
        });
        let requests = tokio::spawn(futures::future::join_all(requests));
        // All on one thread: this task gets its turn while they are under way, though none of them ever waits.
        while *answered.lock() == 0 {
            tokio::task::yield_now().await;
        }
        assert!(*answered.lock() < 40);
        requests.await.unwrap();
    }

    #[tokio::test]
    async fn requests_under_way_are_answered_when_the_server_stops() {
        let stop = CancellationToken::new();
        let (arrived, mut arrival) = tokio::sync::mpsc::unbounded_channel();
        let (release, released) = tokio::sync::watch::channel(false);
        let answer = move |_| {
            let (arrived, mut released) = (arrived.clone(), released.clone());
            async move {
                arrived.send(()).unwrap();
                released.wait_for(|released| *released).await.unwrap();
            }
        };
        let (client, server) = connect(answer, stop.clone()).await;
        let requests = futures::future::join_all((0..5).map(|_| get(client.clone(), "/")));
        let requests = tokio::spawn(requests);
        for _ in 0..5 {
            arrival.recv().await.unwrap();
        }
        stop.cancel();
        release.send(true).unwrap();
        assert_eq!(requests.await.unwrap(), [200; 5]);
        // The client may be gone before the server has said its goodbye.
        let _ = server.await.unwrap();
    }

    #[tokio::test]
    async fn a_request_that_panics_ends_its_connection_only() {
        let answer = |path: String| async move { assert_ne!(path, "/bad", "on purpose") };
        let (client, server) = connect(answer, CancellationToken::new()).await;
        let mut bad = client.clone();
        let request = Request::get("http://server/bad").body(Full::default()).unwrap();
        assert!(bad.send_request(request).await.is_err());
        assert!(server.await.unwrap_err().is_panic());
    }
}
