//! Bodies: what is read with a limit, what is sent whole, what is streamed.

use bytes::{Bytes, BytesMut};
use fleetpass_apimachinery::status::Status;
use futures::{Stream, StreamExt};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::runtime::Handle;

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

/// The body of a request that came over a connection.
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
}

impl RequestBody {
    /// The body of a request over HTTP/1.1: `unread` is set now if there is one, and reset once it has been read.
    pub(super) fn http1(body: Incoming, unread: Arc<AtomicBool>) -> Self {
        unread.store(!body.is_end_stream(), Ordering::Relaxed);
        Self { body: Some(body), unread: Some(unread) }
    }

    /// The body of a request over HTTP/2.
    pub(super) fn http2(body: Incoming) -> Self {
        Self { body: Some(body), unread: None }
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Self { body: Some(body), unread } = &mut *self else { return Poll::Ready(None) };
        let polled = Pin::new(&mut *body).poll_frame(cx);
        if let Some(unread) = unread
            && (matches!(polled, Poll::Ready(None)) || body.is_end_stream())
        {
            unread.store(false, Ordering::Relaxed);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(http_body::Body::is_end_stream)
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
/// 413 for a larger one, 400 if the client stops sending it.
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
        let frame =
            frame.map_err(|e| Status::bad_request(format!("cannot read the request body: {}", e.into())))?;
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
