//! Bodies: what is read with a limit, what is sent whole, what is streamed.

use super::connections::{Account, Charge};
use super::list_body::Streamed;
use bytes::{Bytes, BytesMut};
use fleetpass_apimachinery::status::Status;
use futures::{Stream, StreamExt};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::{Instant, Sleep};

/// Any error of a body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of an answer.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// What an answer says, before it is put on the wire.
pub(super) enum Content {
    /// All of it is there.
    Whole(Bytes),
    /// It goes on after the head was sent.
    Stream(Body),
    /// A list that is made while it is sent, which has not begun.
    List(Box<Streamed>),
}

/// The largest body that is read: 3 MiB, as kube-apiserver (`MaxRequestBodyBytes`).
pub(crate) const MAX_BODY: usize = 3 * 1024 * 1024;

/// A body that is sent whole.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A body that is sent as it comes.
pub fn stream(chunks: impl Stream<Item = Bytes> + Send + 'static) -> Body {
    StreamBody::new(chunks.map(|chunk| Ok(Frame::data(chunk)))).boxed_unsync()
}

/// The same body; `held` is dropped with it, when all of it has been sent or the client has gone.
pub(super) fn holding(body: Body, held: impl Send + Unpin + 'static) -> Body {
    Holding { body, _held: held }.boxed_unsync()
}

/// How much of a body that nobody wants is read away beside its answer, a refusal.
pub(super) const READ_AWAY_BYTES: usize = 32 * 1024 * 1024;
/// How long that may take.
pub(super) const READ_AWAY_TIME: Duration = Duration::from_secs(2);

/// A body up to this size is not accounted for.
pub(super) const SMALL: usize = 64 * 1024;
/// How long a body waits for room before the request is answered 429.
const ROOM_PATIENCE: Duration = Duration::from_secs(2);
/// How often is looked whether there is room, and whether a body comes fast enough.
const LOOK: Duration = Duration::from_millis(25);
/// How long a body may take at least, and how many bytes of it have to come in each second after that, while memory is scarce.
const SLOW: (Duration, usize) = (Duration::from_secs(5), 64 * 1024);

/// After how many seconds a request may be tried again for which there was no room.
const RETRY_AFTER: u32 = 1;

/// Why a body is not read any further: there is too much of others, or it comes too slowly while others wait.
#[derive(Debug, thiserror::Error)]
#[error("too many large requests are under way")]
struct NoRoom;

/// The body of a request that came over a connection. What is kept of it is accounted for; while there is no room it is not
/// read, so that flow control holds its client back.
///
/// If it is dropped before it was read to its end, the request was refused. Many clients take the answer only if nothing goes
/// wrong with what they still send, so that is read and thrown away, for a while: over HTTP/2 here, where the stream would be
/// reset otherwise (after the answer, with `NO_ERROR`, as RFC 9113, 8.1, has it; curl 7.88 drops the answer all the same); over
/// HTTP/1.1 by the listener, when the connection ends.
pub(super) struct RequestBody {
    /// `None` only while it is dropped.
    body: Option<Incoming>,
    /// Over HTTP/1.1: whether there is more of it. What is left unread stands in the way of the next request, so the connection
    /// has to be closed.
    unread: Option<Arc<AtomicBool>>,
    account: Arc<Account>,
    /// How much has been read.
    length: usize,
    /// There for a body that is not small.
    meter: Option<Box<Meter>>,
}

/// What is known of a body that is accounted for.
struct Meter {
    charge: Charge,
    began: Instant,
    /// When to look again. Boxed with all the rest, since few bodies are large.
    look: Pin<Box<Sleep>>,
    /// A piece for which there is no room yet, and since when.
    waiting: Option<(Bytes, Instant)>,
}

impl RequestBody {
    /// The body of a request over HTTP/1.1: `unread` is set now if there is one, and reset once it has been read.
    pub(super) fn http1(body: Incoming, account: Arc<Account>, unread: Arc<AtomicBool>) -> Self {
        unread.store(!body.is_end_stream(), Ordering::Relaxed);
        Self { body: Some(body), unread: Some(unread), account, length: 0, meter: None }
    }

    /// The body of a request over HTTP/2.
    pub(super) fn http2(body: Incoming, account: Arc<Account>) -> Self {
        Self { body: Some(body), unread: None, account, length: 0, meter: None }
    }

    /// The next piece as it comes.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let polled = Pin::new(&mut *body).poll_frame(cx);
        if let Some(unread) = &self.unread
            && (matches!(polled, Poll::Ready(None)) || body.is_end_stream())
        {
            unread.store(false, Ordering::Relaxed);
        }
        polled.map_err(BoxError::from)
    }

    /// A piece that has come, if there is room for it. `Pending` while there is none.
    fn poll_room(
        &mut self,
        piece: Bytes,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let before = self.length;
        if before + piece.len() <= SMALL {
            self.length += piece.len();
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        let account = &self.account;
        let meter = self.meter.get_or_insert_with(|| {
            let began = Instant::now();
            let look = Box::pin(tokio::time::sleep(LOOK));
            Box::new(Meter { charge: account.charge(), began, look, waiting: None })
        });
        // What came before it was small has to be accounted for as well.
        let uncounted = if meter.charge.is_empty() { before } else { 0 };
        if meter.charge.grow(uncounted + piece.len()) {
            self.length += piece.len();
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        meter.waiting = Some((piece, Instant::now()));
        meter.look_again(cx);
        Poll::Pending
    }
}

impl Meter {
    /// Sees to it that the task is woken after [`LOOK`]. Looked at instead of being told: this is rare.
    fn look_again(&mut self, cx: &mut Context<'_>) {
        loop {
            self.look.as_mut().reset(Instant::now() + LOOK);
            // Registers the waker, unless so much time has passed in between.
            if self.look.as_mut().poll(cx).is_pending() {
                return;
            }
        }
    }

    /// Whether it comes so slowly that it may not go on while memory is scarce.
    fn is_slow(&self, length: usize) -> bool {
        let (grace, rate) = SLOW;
        let seconds = self.began.elapsed().saturating_sub(grace).as_secs();
        usize::try_from(seconds).is_ok_and(|seconds| length < seconds.saturating_mul(rate))
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if let Some((piece, since)) = this.meter.as_mut().and_then(|meter| meter.waiting.take()) {
            if since.elapsed() > ROOM_PATIENCE {
                return Poll::Ready(Some(Err(NoRoom.into())));
            }
            let polled = this.poll_room(piece, cx);
            if let Some((_, again)) = this.meter.as_mut().and_then(|meter| meter.waiting.as_mut()) {
                *again = since;
            }
            return polled;
        }
        let Poll::Ready(piece) = this.poll_piece(cx) else {
            // Nobody else would wake the task if nothing ever comes. A body that is small is not waited for in this way: the
            // request's own time ends it.
            if let Some(meter) = &mut this.meter {
                if this.account.is_tight() && meter.is_slow(this.length) {
                    return Poll::Ready(Some(Err(NoRoom.into())));
                }
                meter.look_again(cx);
            }
            return Poll::Pending;
        };
        match piece {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(piece) => this.poll_room(piece, cx),
                Err(trailers) => Poll::Ready(Some(Ok(trailers))),
            },
            other => Poll::Ready(other),
        }
    }

    fn is_end_stream(&self) -> bool {
        let waits = self.meter.as_ref().is_some_and(|meter| meter.waiting.is_some());
        !waits && self.body.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(http_body::Body::size_hint).unwrap_or_default()
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        let Some(body) = self.body.take() else { return };
        if self.unread.is_some() || body.is_end_stream() {
            return;
        }
        // Not beside a runtime that is gone: then the connection is, too.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(read_away(body));
        }
    }
}

/// Reads a body and throws it away. Holds one frame at a time; there are never more of these than streams.
async fn read_away(mut body: Incoming) {
    let mut left = READ_AWAY_BYTES;
    let reading = async {
        while let Some(Ok(frame)) = body.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            if left == 0 {
                return;
            }
        }
    };
    // An error or the end of the time is as good as the end: the stream is reset if there is more.
    let _ = tokio::time::timeout(READ_AWAY_TIME, reading).await;
}

/// The length of an answer's body that has to be accounted for. Of a stream nobody knows it: its pieces are made as they are read.
pub(super) fn large(body: &Body) -> Option<usize> {
    let length = usize::try_from(body.size_hint().exact()?).ok()?;
    (length > SMALL).then_some(length)
}

/// An answer's body, accounted for until its client has read it. What hyper keeps for a client that does not read
/// are the pieces of the body, so the account goes with each of them.
pub(super) fn accounted(body: Body, length: usize, account: &Arc<Account>) -> Body {
    Accounted { body, charge: Arc::new(account.charge_regardless(length)) }.boxed_unsync()
}

struct Accounted {
    body: Body,
    charge: Arc<Charge>,
}

/// A piece of an answer, and what keeps its bytes accounted for.
struct Piece(Bytes, #[expect(dead_code, reason = "held until the piece is dropped")] Arc<Charge>);

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl http_body::Body for Accounted {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = ready!(Pin::new(&mut self.body).poll_frame(cx));
        let charge = &self.charge;
        Poll::Ready(polled.map(|frame| {
            frame.map(|frame| frame.map_data(|data| Bytes::from_owner(Piece(data, charge.clone()))))
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

struct Holding<T> {
    body: Body,
    _held: T,
}

impl<T: Unpin> http_body::Body for Holding<T> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Reads a body of at most 3 MiB.
///
/// # Errors
/// 413 for a larger one, 400 if the client stops sending it, 429 if there is no room for it.
pub async fn read<B>(body: B) -> Result<Bytes, Status>
where
    B: http_body::Body<Data = Bytes> + Send,
    B::Error: Into<BoxError>,
{
    let too_large = || Status::too_large(format!("Request entity too large: limit is {MAX_BODY}"));
    // A `Content-Length` that is too large is refused without reading a byte.
    if body.size_hint().lower() > MAX_BODY as u64 {
        return Err(too_large());
    }
    let mut body = std::pin::pin!(body);
    let mut first: Option<Bytes> = None;
    let mut more = BytesMut::new();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| match error.into() {
            error if error.is::<NoRoom>() => Status::too_many_requests(error.to_string(), RETRY_AFTER),
            error => Status::bad_request(format!("cannot read the request body: {error}")),
        })?;
        let Ok(data) = frame.into_data() else { continue };
        // Checked before the data is kept, so that a chunked body is bounded as well.
        length += data.len();
        if length > MAX_BODY {
            return Err(too_large());
        }
        // Nearly all bodies come in one piece, which is then used as it is.
        match (&first, more.is_empty()) {
            (None, _) => first = Some(data),
            (Some(start), true) => {
                more.extend_from_slice(start);
                more.extend_from_slice(&data);
            }
            (Some(_), false) => more.extend_from_slice(&data),
        }
    }
    Ok(if more.is_empty() { first.unwrap_or_default() } else { more.freeze() })
}
