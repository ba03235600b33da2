//! gzip for large answers (`k8s.io/apiserver/pkg/endpoints/handlers/responsewriters/writers.go`).

use super::body::Content;
use super::list::SMALL;
use super::reply::Reply;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderMap, HeaderValue, VARY};
use std::io::{self, Write as _};
use tokio::sync::{Semaphore, SemaphorePermit};

/// How many lists may be packed while they are sent. Each needs some 300 KB for it as long as its client takes to read, so
/// further ones are sent as they are.
static PACKED_LISTS: Semaphore = Semaphore::const_new(64);

/// Compresses an answer of more than [`SMALL`] bytes for a client that accepts gzip, on a thread for blocking work: it takes
/// milliseconds, and the connection's thread has other requests to serve. Lists are compressed while they are sent; watches not
/// at all, since each event must go out at once.
pub(super) async fn compress(reply: &mut Reply, request: &HeaderMap) {
    if let Content::List(list) = &mut reply.body {
        if accepts_gzip(request)
            && let Some(gzip) = Gzip::begin()
        {
            list.pack(gzip);
            is_packed(reply);
        }
        return;
    }
    let Content::Whole(bytes) = &reply.body else { return };
    let packed_already = reply.headers.iter().any(|(name, _)| name == CONTENT_ENCODING);
    if bytes.len() <= SMALL || packed_already || !accepts_gzip(request) {
        return;
    }
    let plain = bytes.clone();
    // Writing to memory cannot fail. If the thread does not answer (the runtime is shutting down), the plain answer is as good.
    let Ok(Ok(packed)) = tokio::task::spawn_blocking(move || gzip(&plain)).await else { return };
    reply.body = Content::Whole(packed);
    is_packed(reply);
}

fn is_packed(reply: &mut Reply) {
    reply.headers.push((CONTENT_ENCODING, HeaderValue::from_static("gzip")));
    reply.headers.push((VARY, HeaderValue::from_static("Accept-Encoding")));
}

/// Packs what comes in pieces.
pub(super) struct Gzip {
    encoder: GzEncoder<Vec<u8>>,
    _permit: SemaphorePermit<'static>,
}

impl Gzip {
    /// `None`: too many are at it.
    pub(super) fn begin() -> Option<Self> {
        let permit = PACKED_LISTS.try_acquire().ok()?;
        Some(Self { encoder: GzEncoder::new(Vec::new(), Compression::fast()), _permit: permit })
    }

    /// Packs a piece; gives what is packed so far, which may be nothing.
    pub(super) fn pack(&mut self, piece: &[u8]) -> io::Result<Bytes> {
        self.encoder.write_all(piece)?;
        Ok(std::mem::take(self.encoder.get_mut()).into())
    }

    /// What is left to be sent.
    pub(super) fn finish(self) -> io::Result<Bytes> {
        Ok(self.encoder.finish()?.into())
    }
}

fn gzip(plain: &[u8]) -> io::Result<Bytes> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 8), Compression::fast());
    encoder.write_all(plain)?;
    Ok(encoder.finish()?.into())
}

/// Whether a request allows gzip (RFC 9110, 12.5.3).
pub(super) fn accepts_gzip(request: &HeaderMap) -> bool {
    let clauses = request.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    clauses.flat_map(|value| value.split(',')).any(|clause| {
        let mut parts = clause.split(';').map(str::trim);
        let refused = |p: &str| p.strip_prefix("q=").is_some_and(|q| q.parse() == Ok(0.0));
        matches!(parts.next(), Some("gzip" | "*")) && !parts.any(refused)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    fn request(accept_encoding: &str) -> HeaderMap {
        HeaderMap::from_iter(HeaderValue::from_str(accept_encoding).map(|value| (ACCEPT_ENCODING, value)))
    }

    #[test]
    fn gzip_is_sent_to_those_who_take_it() {
        for (header, want) in [
            ("gzip", true),
            ("br, gzip;q=0.5", true),
            ("*", true),
            ("gzip;q=0", false),
            ("gzip; q=0.0", false),
            ("br", false),
            ("", false),
        ] {
            assert_eq!(accepts_gzip(&request(header)), want, "{header}");
        }
    }

    #[tokio::test]
    async fn only_large_answers_are_packed() {
        for (size, header, want) in
            [(SMALL, "gzip", false), (SMALL + 1, "gzip", true), (SMALL + 1, "identity", false)]
        {
            let plain = vec![b'x'; size];
            let mut reply = Reply::new(200, "application/json", plain.clone());
            compress(&mut reply, &request(header)).await;
            let Content::Whole(sent) = reply.body else { panic!("a whole answer") };
            let names: Vec<_> = reply.headers.iter().map(|(name, _)| name.as_str()).collect();
            if want {
                assert_eq!(names, ["content-encoding", "vary"]);
                let mut unpacked = Vec::new();
                flate2::read::GzDecoder::new(&sent[..]).read_to_end(&mut unpacked).expect("gzip");
                assert_eq!(unpacked, plain);
            } else {
                assert!(names.is_empty() && sent == plain, "{size} {header}");
            }
        }
    }
}
