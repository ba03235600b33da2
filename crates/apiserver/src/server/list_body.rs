//! A long list as the body of an answer: made while it is sent, as fast as its client reads.
//!
//! A piece is made when hyper asks for one, which it does when the connection has room for it: of a list that is not read there
//! is one piece in memory, beside a snapshot that it shares with the cache. What only copies stored text is made where it is
//! asked for, in microseconds; everything else in the pool for heavy work, one task for each piece. So a list takes its turn with
//! what others have to do, and has a place in the pool only while a piece of it is made.
//!
//! An answer that cannot be finished (an object without a form, the deadline) ends with an error, upon which hyper resets the
//! stream or closes the connection: the client must not take it for a whole list.

use super::body::{Body, BoxError};
use super::compression::Gzip;
use super::expiry;
use super::limits;
use super::list::{List, Step};
use crate::work::Full;
use bytes::Bytes;
use fleetpass_apimachinery::status::Status;
use http_body::Frame;
use http_body_util::BodyExt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep};

/// After how long a place is asked for again, where there was none for the next piece.
const FULL: Duration = Duration::from_millis(20);

/// A list after a step.
pub(super) type Stepped = (Box<Streamed>, Result<Step, BoxError>);
/// A step that takes long.
pub(super) type Job = Pin<Box<dyn Future<Output = Stepped> + Send>>;
/// What comes of it; `None`: nothing, because the server stops. Dropping it skips the step.
pub(super) type Task = Pin<Box<dyn Future<Output = Option<Stepped>> + Send>>;
/// Takes a step.
pub(super) type Place = Box<dyn FnOnce(Job) -> Task + Send>;
/// Asks for a place to take a step.
pub(super) type Admit = Arc<dyn Fn() -> Result<Place, Full> + Send + Sync>;

/// A list, and how it is packed.
pub(super) struct Streamed {
    list: List,
    gzip: Option<Gzip>,
    until: Instant,
    admit: Admit,
}

impl Streamed {
    /// A list that has to be sent until `until`, the deadline of the request. Steps that take long are taken where `admit` says.
    pub(super) fn new(list: List, until: Instant, admit: Admit) -> Box<Self> {
        Box::new(Self { list, gzip: None, until, admit })
    }

    /// Packs what is made from now on; to be called before anything is.
    pub(super) fn pack(&mut self, gzip: Gzip) {
        self.gzip = Some(gzip);
    }

    /// The body.
    pub(super) fn into_body(self: Box<Self>) -> Body {
        let body = ListBody {
            until: self.until,
            admit: self.admit.clone(),
            state: State::Resting(self),
            alive: Arc::new(()),
        };
        body.boxed_unsync()
    }

    /// Whether a step does not take long enough to make others wait.
    fn is_quick(&self) -> bool {
        self.gzip.is_none() && self.list.is_quick()
    }

    /// A step. A panic is an error of this list and not of the connection that it is sent on.
    fn step(&mut self) -> Result<Step, BoxError> {
        std::panic::catch_unwind(AssertUnwindSafe(|| self.try_step()))
            .unwrap_or_else(|_| Err("the server panicked; its log says where".into()))
    }

    fn try_step(&mut self) -> Result<Step, BoxError> {
        let step = self.list.step().map_err(|status| unfinished(&status))?;
        let Some(gzip) = &mut self.gzip else { return Ok(step) };
        let packed = match step {
            Step::Piece(piece) => gzip.pack(&piece)?,
            Step::Working => return Ok(Step::Working),
            Step::Done => match self.gzip.take() {
                Some(gzip) => gzip.finish()?,
                None => return Ok(Step::Done),
            },
        };
        Ok(if packed.is_empty() { Step::Working } else { Step::Piece(packed) })
    }
}

/// The error of an answer whose beginning is sent.
fn unfinished(status: &Status) -> BoxError {
    tracing::error!(reason = status.reason, message = status.message, "a list cannot be sent to its end");
    status.message.clone().into()
}

enum State {
    /// Nothing is made until the next piece is asked for.
    Resting(Box<Streamed>),
    /// There was no place to take a step.
    Waiting(Box<Streamed>, Pin<Box<Sleep>>),
    /// A step is taken in a task, which gives the list back.
    Working(Task),
    /// All of it is sent, or it has failed.
    Ended,
}

struct ListBody {
    state: State,
    until: Instant,
    admit: Admit,
    /// Tells whether this body is still there.
    alive: Arc<()>,
}

impl ListBody {
    fn has_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Result<Step, BoxError>> {
        if self.has_ended() {
            return Poll::Ready(Ok(Step::Done));
        }
        if Instant::now() >= self.until {
            self.state = State::Ended;
            return Poll::Ready(Err(limits::timed_out().message.into()));
        }
        expiry::send_until(self.until, &self.alive);
        loop {
            match std::mem::replace(&mut self.state, State::Ended) {
                State::Ended => return Poll::Ready(Ok(Step::Done)),
                State::Resting(mut list) if list.is_quick() => {
                    let step = list.step();
                    self.state = State::Resting(list);
                    return Poll::Ready(step);
                }
                State::Resting(list) => self.state = self.go_aside(list),
                State::Waiting(list, mut pause) => {
                    if pause.as_mut().poll(cx).is_pending() {
                        self.state = State::Waiting(list, pause);
                        return Poll::Pending;
                    }
                    self.state = self.go_aside(list);
                }
                State::Working(mut task) => match task.as_mut().poll(cx) {
                    Poll::Pending => {
                        self.state = State::Working(task);
                        return Poll::Pending;
                    }
                    Poll::Ready(Some((list, step))) => {
                        self.state = State::Resting(list);
                        return Poll::Ready(step);
                    }
                    Poll::Ready(None) => return Poll::Ready(Err("the server stops".into())),
                },
            }
        }
    }

    /// Lets the next step be taken elsewhere. An answer that has begun is not refused for want of a place: it waits for one.
    fn go_aside(&self, mut list: Box<Streamed>) -> State {
        match (self.admit)() {
            Ok(place) => State::Working(place(Box::pin(async move {
                let step = list.step();
                (list, step)
            }))),
            Err(Full) => State::Waiting(list, Box::pin(sleep(FULL))),
        }
    }
}

impl http_body::Body for ListBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let step = ready!(this.poll_step(cx));
        Poll::Ready(match step {
            Ok(Step::Piece(piece)) => Some(Ok(Frame::data(piece))),
            Ok(Step::Working) => {
                // Others have their turn before it goes on.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Ok(Step::Done) => {
                this.state = State::Ended;
                None
            }
            Err(error) => {
                this.state = State::Ended;
                Some(Err(error))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.has_ended()
    }
}

#[cfg(test)]
mod tests {
    use super::super::coalesce::Coalesced;
    use super::super::connection::{self, StreamExecutor};
    use super::super::list::PIECE;
    use super::super::list::tests::of_config_maps;
    use super::*;
    use fleetpass_codec::negotiate::{MediaType, MetaVersion, TargetKind};
    use http::{Request, Response};
    use http_body::Body as _;
    use http_body_util::Empty;
    use hyper::body::Incoming;
    use hyper::client::conn::http2::SendRequest;
    use hyper::server::conn::{http1, http2};
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use serde_json::{Value, json};
    use std::convert::Infallible;
    use std::io::Read as _;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
    use tokio_util::sync::CancellationToken;
    use tokio_util::task::AbortOnDropHandle;

    const DEADLINE: Duration = Duration::from_secs(60);
    const TABLE: Option<(TargetKind, MetaVersion)> = Some((TargetKind::Table, MetaVersion::V1));

    fn config_map(data: Value) -> Value {
        json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "a"}, "data": data})
    }

    /// Some 5 MB in JSON, and one of its objects is larger than a piece.
    fn long(media: MediaType, convert_to: Option<(TargetKind, MetaVersion)>) -> List {
        let small = config_map(json!({"a": "x".repeat(1000)}));
        let large = config_map(json!({"a": "x".repeat(3 * PIECE)}));
        let mut values = vec![small; 5000];
        values[7] = large;
        of_config_maps(media, convert_to, &values)
    }

    /// Takes steps in tasks of tokio, whose clock stands still meanwhile, and has no place for every third of them at first.
    fn admit() -> Admit {
        let asked = AtomicUsize::new(0);
        Arc::new(move || {
            if asked.fetch_add(1, Ordering::Relaxed).is_multiple_of(3) {
                return Err(Full);
            }
            Ok(Box::new(|job| {
                let task = AbortOnDropHandle::new(tokio::spawn(job));
                Box::pin(async move { task.await.ok() }) as Task
            }) as Place)
        })
    }

    fn body(list: List, gzip: bool) -> Body {
        let mut streamed = Streamed::new(list, Instant::now() + DEADLINE, admit());
        if gzip {
            streamed.pack(Gzip::begin().expect("a free one"));
        }
        streamed.into_body()
    }

    /// What the bodies of a server have done.
    #[derive(Default)]
    struct Counts {
        /// Bytes that were made.
        made: AtomicUsize,
        /// Bodies that are there.
        alive: AtomicUsize,
    }

    struct Counted(Body, Arc<Counts>);

    impl Drop for Counted {
        fn drop(&mut self) {
            self.1.alive.fetch_sub(1, Ordering::Relaxed);
        }
    }

    impl http_body::Body for Counted {
        type Data = Bytes;
        type Error = BoxError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            let polled = Pin::new(&mut self.0).poll_frame(cx);
            if let Poll::Ready(Some(Ok(frame))) = &polled {
                self.1.made.fetch_add(frame.data_ref().map_or(0, Bytes::len), Ordering::Relaxed);
            }
            polled
        }

        fn is_end_stream(&self) -> bool {
            self.0.is_end_stream()
        }
    }

    /// Serves a connection as the listener does, each request with the long list as a Table, or in JSON at `/json`.
    fn serve(io: DuplexStream, over_http2: bool) -> Arc<Counts> {
        let counts = Arc::new(Counts::default());
        let counted = counts.clone();
        tokio::spawn(async move {
            let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                let counts = counted.clone();
                async move {
                    let table = if request.uri().path() == "/json" { None } else { TABLE };
                    counts.alive.fetch_add(1, Ordering::Relaxed);
                    let body = Counted(body(long(MediaType::Json, table), false), counts);
                    Ok::<_, Infallible>(Response::new(body))
                }
            });
            let (arrivals, io, stop) =
                (StreamExecutor::default(), Coalesced::new(io), CancellationToken::new());
            let hyper_io = TokioIo::new(io.clone());
            if over_http2 {
                let connection = http2::Builder::new(arrivals.clone()).serve_connection(hyper_io, service);
                let close = http2::Connection::graceful_shutdown;
                let _ = connection::drive(Box::pin(connection), close, arrivals, io, &stop).await;
            } else {
                let connection = http1::Builder::new().serve_connection(hyper_io, service);
                let close = http1::Connection::graceful_shutdown;
                let _ = connection::drive(Box::pin(connection), close, arrivals, io, &stop).await;
            }
        });
        counts
    }

    async fn connect(io: DuplexStream) -> SendRequest<Empty<Bytes>> {
        let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        builder.initial_stream_window_size(1).initial_connection_window_size(1 << 30);
        let (client, driver) = builder.handshake(TokioIo::new(io)).await.unwrap();
        tokio::spawn(driver);
        client
    }

    fn get(path: &str) -> Request<Empty<Bytes>> {
        Request::get(format!("http://server{path}")).body(Empty::new()).unwrap()
    }

    /// Lets everything go on until nothing can: the clock of the test stands still as long as there is something to do.
    async fn settle() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_read_is_two_pieces_at_most_and_reset_at_the_deadline() {
        const STREAMS: usize = 20;
        let (here, there) = tokio::io::duplex(1 << 20);
        let counts = serve(there, true);
        let client = connect(here).await;
        let mut answers = Vec::new();
        for n in 0..STREAMS {
            let request = get(if n % 2 == 0 { "/json" } else { "/table" });
            answers.push(client.clone().send_request(request).await.unwrap().into_body());
        }
        settle().await;
        assert_eq!(counts.alive.load(Ordering::Relaxed), STREAMS);
        // One waits in the protocol's buffer, and hyper asks for another one before it knows whether there is room for it.
        let made = counts.made.load(Ordering::Relaxed);
        assert!(made <= STREAMS * 2 * (PIECE + PIECE / 8), "{made}");
        tokio::time::sleep(DEADLINE).await;
        assert_eq!(counts.alive.load(Ordering::Relaxed), 0);
        for answer in answers {
            let error = answer.collect().await.expect_err("not a whole list");
            assert!(error.to_string().contains("error reading a body"), "{error}");
        }
        // The connection goes on.
        assert_eq!(client.clone().send_request(get("/json")).await.unwrap().status(), 200);
    }

    #[tokio::test(start_paused = true)]
    async fn over_http1_the_connection_is_closed_without_an_end_of_the_list() {
        let (mut here, there) = tokio::io::duplex(1 << 10);
        let counts = serve(there, false);
        here.write_all(b"GET /table HTTP/1.1\r\nhost: server\r\n\r\n").await.unwrap();
        settle().await;
        assert_eq!(counts.alive.load(Ordering::Relaxed), 1);
        tokio::time::sleep(DEADLINE).await;
        assert_eq!(counts.alive.load(Ordering::Relaxed), 0);
        let mut read = Vec::new();
        here.read_to_end(&mut read).await.unwrap();
        assert!(read.starts_with(b"HTTP/1.1 200 OK\r\n") && !read.ends_with(b"\r\n0\r\n\r\n"));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_read_is_the_list_in_any_form_packed_or_not() {
        for (media, convert_to) in [
            (MediaType::Json, None),
            (MediaType::Json, TABLE),
            (MediaType::Yaml, None),
            (MediaType::Protobuf, Some((TargetKind::PartialObjectMetadataList, MetaVersion::V1))),
        ] {
            let mut list = long(media, convert_to);
            let mut expected = Vec::new();
            loop {
                match list.step().unwrap() {
                    Step::Piece(piece) => expected.extend(piece),
                    Step::Working => {}
                    Step::Done => break,
                }
            }
            let plain = body(long(media, convert_to), false).collect().await.unwrap().to_bytes();
            assert!(plain == expected, "{media:?} {convert_to:?}");
            let packed = body(long(media, convert_to), true).collect().await.unwrap().to_bytes();
            let mut unpacked = Vec::new();
            flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut unpacked).unwrap();
            assert!(unpacked == expected, "{media:?} {convert_to:?}, packed");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_finished_ends_with_an_error() {
        let broken = config_map(json!(7));
        let list = of_config_maps(MediaType::Protobuf, None, &[broken]);
        let error = body(list, false).collect().await.unwrap_err();
        assert!(error.to_string().contains("does not fit its protobuf field"), "{error}");
        let mut late = body(long(MediaType::Json, None), false);
        assert!(late.frame().await.unwrap().is_ok());
        tokio::time::sleep(DEADLINE).await;
        let error = late.frame().await.unwrap().unwrap_err();
        assert_eq!(error.to_string(), limits::timed_out().message);
        assert!(late.frame().await.is_none() && late.is_end_stream());
    }
}
