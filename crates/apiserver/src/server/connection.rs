//! One connection over HTTP/1.1 or HTTP/2, with all its requests in one task.
//!
//! A request is mostly answered faster than another thread is woken for it, and answers that are ready at the same time
//! share a TLS record and a write to the socket ([`super::coalesce`]). So the streams of a connection run in its own task.
//! What may take long asks to be run apart ([`step_aside`]), so that the others on the connection do not wait for it.

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

/// Where the future stands that is being polled on this thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Not in the task of a connection.
    Elsewhere,
    /// In the task of a connection.
    Connection,
    /// There too, but it wants to leave.
    Leaving,
}

thread_local! {
    static PLACE: Cell<Place> = const { Cell::new(Place::Elsewhere) };
}

/// Has the rest of the request run in a task of its own, on the main runtime, if it runs in that of its connection.
pub(super) async fn step_aside() {
    let mut context = false;
    poll_fn(|_| {
        if context || PLACE.get() != Place::Connection {
            return Poll::Ready(());
        }
        context = true;
        PLACE.set(Place::Leaving);
        // Whoever polls sees to it that this is polled again, in another task.
        Poll::Pending
    })
    .await;
}

/// The answer to one request, made in the task of its connection until it wants to leave; then on the main runtime.
pub(super) enum Answer<F: Future> {
    Here(Pin<Box<F>>, Handle),
    Aside(AbortOnDropHandle<F::Output>),
    /// While it moves, and when the main runtime has ended.
    Nowhere,
}

impl<F: Future> Answer<F> {
    /// Boxed: an answer that is being streamed does not keep the room that making it took.
    pub(super) fn new(future: F, main: Handle) -> Self {
        Self::Here(Box::pin(future), main)
    }
}

impl<F> Future for Answer<F>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        if let Self::Here(future, _) = &mut *self {
            let (polled, leaves) = poll_in_place(future.as_mut(), cx);
            if polled.is_ready() || !leaves {
                return polled;
            }
            if let Self::Here(future, main) = std::mem::replace(&mut *self, Self::Nowhere) {
                *self = Self::Aside(AbortOnDropHandle::new(main.spawn(future)));
            }
        }
        let Self::Aside(task) = &mut *self else { return Poll::Pending };
        match ready!(Pin::new(task).poll(cx)).map_err(JoinError::try_into_panic) {
            Ok(output) => Poll::Ready(output),
            Err(Ok(panic)) => std::panic::resume_unwind(panic),
            // The main runtime is ending, and the connection with it.
            Err(Err(_)) => {
                *self = Self::Nowhere;
                Poll::Pending
            }
        }
    }
}

/// Polls a future, and says whether it wants to leave.
fn poll_in_place<F: Future>(future: Pin<&mut F>, cx: &mut Context<'_>) -> (Poll<F::Output>, bool) {
    /// Even if the future panics, the thread is elsewhere afterwards.
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

type Stream = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where hyper puts the futures of the requests that have come with HTTP/2.
#[derive(Clone, Default)]
pub(super) struct Arrivals(Arc<Mutex<Vec<Stream>>>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Arrivals {
    fn execute(&self, future: F) {
        self.0.lock().push(Box::pin(future));
    }
}

/// How many requests are answered before the connection takes their answers: it keeps the room for those that wait.
const AT_ONCE: usize = 4;

/// Drives a connection of hyper to its end, its requests with it, and sends what they have written when none of them has
/// more. `close` begins an orderly end, which `stop` calls for.
///
/// # Errors
/// What ended the connection, as hyper has it.
pub(super) async fn drive<C, E, T>(
    mut connection: Pin<Box<C>>,
    close: impl Fn(Pin<&mut C>),
    arrivals: Arrivals,
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
        if !closing && stopping.as_mut().poll(cx).is_ready() {
            closing = true;
            close(connection.as_mut());
        }
        loop {
            let ended = (0..AT_ONCE).all(|_| streams.poll_next_unpin(cx) == Poll::Ready(Some(())));
            let polled = connection.as_mut().poll(cx);
            if polled.is_ready() {
                // The last words of a connection that broke the protocol; a peer that does not read is not waited for.
                let _ = io.poll_send(cx);
                return polled;
            }
            let arrived = std::mem::take(&mut *arrivals.0.lock());
            if arrived.is_empty() && !ended {
                break;
            }
            streams.extend(arrived);
        }
        // The task is woken for what is left, and for what fails.
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
                let answered = Answer::new(answer(request.uri().path().to_owned()), Handle::current());
                async move {
                    answered.await;
                    Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
                }
            });
            let (arrivals, io) = (Arrivals::default(), Coalesced::new(there));
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
                    step_aside().await;
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
        let (before, after) = own.block_on(Answer::new(
            async move {
                let before = here();
                step_aside().await;
                (before, here())
            },
            main.handle().clone(),
        ));
        assert_eq!(before, here());
        assert_ne!(after, here());
    }

    #[tokio::test]
    async fn aside_of_no_connection_there_is_nothing_to_do() {
        tokio::time::timeout(Duration::from_secs(60), step_aside()).await.unwrap();
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
        tokio::time::timeout(Duration::from_secs(60), step_aside()).await.unwrap();
    }
}
