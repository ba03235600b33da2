//! One connection over HTTP/1.1 or HTTP/2, with all its requests in one task.
//!
//! Most requests are answered faster than another thread could be woken for them, and answers that are ready at the same
//! time share a TLS record and a write to the socket ([`super::coalesce`]). So all requests of a connection are polled by the
//! connection's own task, on one thread. A request that may keep the thread busy calls [`offload`] and goes on in a task of
//! its own on the main runtime, so that the others on the connection do not wait for it.
//!
//! # Cancellation
//!
//! Whatever runs here may be dropped at any `.await`: hyper drops the future of a request when its client resets the stream
//! or goes away, and dropping an offloaded one aborts its task. Handlers must therefore be safe to drop at every await point;
//! a write that has been handed to the store may be carried out all the same, and the audit log hears of the request when its
//! trail is dropped ([`crate::audit`]).

use super::coalesce::Coalesced;
use futures::stream::{FuturesUnordered, StreamExt};
use hyper::rt::Executor;
use parking_lot::Mutex;
use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Handle;
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// What this thread is polling right now.
///
/// A thread-local, because [`offload`] is called deep inside a handler and has to reach the [`ResponseFuture`] that polls it,
/// and a future can be handed nothing from above but its waker. It is only ever set for the duration of one poll.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Nothing that belongs to a connection: another task, or a request that was offloaded already.
    Elsewhere,
    /// A request, in the task of its connection.
    Connection,
    /// The same, and it has called [`offload`] during this poll.
    Leaving,
}

thread_local! {
    static PLACE: Cell<Place> = const { Cell::new(Place::Elsewhere) };
}

/// Moves the rest of the request to a task of its own on the main runtime, if the connection's task polls it now. Elsewhere
/// (a request in process, or one that was moved already) it does nothing.
pub(super) async fn offload() {
    let mut asked = false;
    poll_fn(|_| {
        if asked || PLACE.get() != Place::Connection {
            return Poll::Ready(());
        }
        asked = true;
        PLACE.set(Place::Leaving);
        // `Pending` without registering the waker: `ResponseFuture::poll` sees `Leaving` and spawns the future, and a
        // spawned task is always polled at least once.
        Poll::Pending
    })
    .await;
}

/// The answer to one request: made in the connection's task at first, on the main runtime after [`offload`].
pub(super) enum ResponseFuture<F: Future> {
    /// Polled by the connection's task; the handle is that of the main runtime.
    Inline(Pin<Box<F>>, Handle),
    /// Polled by a task of its own. Aborted when this is dropped, so that a client who goes away ends an offloaded request
    /// as it ends any other.
    Spawned(AbortOnDropHandle<F::Output>),
    /// Neither: for a moment while it moves, and for good when the main runtime has shut down.
    Gone,
}

impl<F: Future> ResponseFuture<F> {
    /// Boxed, because hyper's future of a request has room for the larger of making the answer and sending its body, for as
    /// long as the body is sent; for a watch that is hours.
    pub(super) fn new(future: F, main: Handle) -> Self {
        Self::Inline(Box::pin(future), main)
    }
}

impl<F> Future for ResponseFuture<F>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        if let Self::Inline(future, _) = &mut *self {
            let (polled, leaves) = poll_in_place(future.as_mut(), cx);
            if polled.is_ready() || !leaves {
                return polled;
            }
            // The boxed future moves without being moved in memory: pinning holds.
            if let Self::Inline(future, main) = std::mem::replace(&mut *self, Self::Gone) {
                *self = Self::Spawned(AbortOnDropHandle::new(main.spawn(future)));
            }
        }
        let Self::Spawned(task) = &mut *self else { return Poll::Pending };
        match ready!(Pin::new(task).poll(cx)).map_err(JoinError::try_into_panic) {
            Ok(output) => Poll::Ready(output),
            // A panic has the same effect wherever it happens: it ends the connection that the request came on.
            Err(Ok(panic)) => std::panic::resume_unwind(panic),
            // Cancelled, and not by us: the main runtime is shutting down. There will be no answer, and the connection ends
            // with the runtime.
            Err(Err(_)) => {
                *self = Self::Gone;
                Poll::Pending
            }
        }
    }
}

/// Polls a future, and says whether it called [`offload`] meanwhile.
fn poll_in_place<F: Future>(future: Pin<&mut F>, cx: &mut Context<'_>) -> (Poll<F::Output>, bool) {
    /// Resets the thread-local on unwinding too: otherwise the next, unrelated future that this thread polls would be
    /// taken for a request of a connection.
    struct Reset;
    impl Drop for Reset {
        fn drop(&mut self) {
            PLACE.set(Place::Elsewhere);
        }
    }
    let _reset = Reset;
    PLACE.set(Place::Connection);
    let polled = future.poll(cx);
    (polled, PLACE.get() == Place::Leaving)
}

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
        self.0.lock().push(Box::pin(future));
    }
}

/// How many requests may end before the connection is polled again to write their answers. Until then their frames wait in
/// a buffer of the connection, which keeps the capacity that it once needed.
const MAX_ENDED_PER_POLL: usize = 4;

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
    poll_fn(|cx| {
        // Once only: `cancelled()` must not be polled after it is ready, and hyper needs to hear it once.
        if !closing && stopping.as_mut().poll(cx).is_ready() {
            closing = true;
            close(connection.as_mut());
        }
        // Requests and connection feed each other: a request that ends gives the connection frames to write, the connection
        // reads frames that start requests or wake them. So both are polled in turn until neither makes progress; only then is
        // what was written sent, in as few records as possible.
        loop {
            // `all` stops at the first poll that ends no request: each of them has been polled then, as far as it was woken.
            let ended = (0..MAX_ENDED_PER_POLL).all(|_| streams.poll_next_unpin(cx) == Poll::Ready(Some(())));
            let polled = connection.as_mut().poll(cx);
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
    use std::sync::mpsc;
    use std::time::Duration;
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
                let answered =
                    ResponseFuture::new(answer(request.uri().path().to_owned()), Handle::current());
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

    #[tokio::test(flavor = "multi_thread", worker_threads = 3)]
    async fn what_steps_aside_does_not_keep_the_others_waiting() {
        let (release, held) = mpsc::channel::<()>();
        let held = Arc::new(Mutex::new(held));
        let answer = move |path: String| {
            let held = held.clone();
            async move {
                if path == "/long" {
                    offload().await;
                    // Keeps the thread, as a long computation does.
                    held.lock().recv().unwrap();
                }
            }
        };
        let (client, _server) = connect(answer, CancellationToken::new()).await;
        let long = tokio::spawn(get(client.clone(), "/long"));
        for _ in 0..20 {
            assert_eq!(get(client.clone(), "/short").await, 200);
        }
        assert!(!long.is_finished());
        release.send(()).unwrap();
        assert_eq!(long.await.unwrap(), 200);
    }

    #[test]
    fn what_steps_aside_goes_on_in_the_main_runtime() {
        let main = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let own = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let here = || std::thread::current().id();
        let (before, after) = own.block_on(ResponseFuture::new(
            async move {
                let before = here();
                offload().await;
                (before, here())
            },
            main.handle().clone(),
        ));
        assert_eq!(before, here());
        assert_ne!(after, here());
    }

    #[tokio::test]
    async fn aside_of_no_connection_there_is_nothing_to_do() {
        tokio::time::timeout(Duration::from_secs(60), offload()).await.unwrap();
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
        // This thread polled it, and is not taken for the connection's any longer.
        tokio::time::timeout(Duration::from_secs(60), offload()).await.unwrap();
    }
}
