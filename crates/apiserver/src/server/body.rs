//! Bodies: what is read with a limit, what is sent whole, what is streamed.

use bytes::{Bytes, BytesMut};
use fleetpass_apimachinery::status::Status;
use futures::{Stream, StreamExt};
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use std::pin::Pin;
use std::task::{Context, Poll};

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
