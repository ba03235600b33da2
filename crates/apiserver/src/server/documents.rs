//! The OpenAPI documents over HTTP.

use super::Inner;
use super::handler::{Asked, Reply};
use crate::openapi;
use crate::status::Status;
use http::Method;
use http::header::{ACCEPT_ENCODING, IF_NONE_MATCH};
use std::sync::Arc;

/// Whether documents are asked for.
pub(super) fn is_path(path: &str) -> bool {
    matches!(path.trim_end_matches('/'), "/openapi/v2" | "/openapi/v3") || path.starts_with("/openapi/v3/")
}

/// Answers a request for a document. To build one takes a while, so that it is not done on the reactor.
pub(super) async fn serve(inner: &Arc<Inner>, asked: &Asked) -> Result<Reply, Status> {
    if !matches!(asked.method, Method::GET | Method::HEAD) {
        return Err(Status::method_not_allowed());
    }
    let owned = |text: Option<&str>| text.map(str::to_string);
    let path = asked.info.path.clone();
    let hash = owned(asked.query.get("hash"));
    let accept = owned(asked.accept());
    let if_none_match = owned(asked.header(IF_NONE_MATCH));
    let gzip = asked.header(ACCEPT_ENCODING).is_some_and(takes_gzip);
    let inner = Arc::clone(inner);
    let answer = tokio::task::spawn_blocking(move || {
        let request = openapi::Request {
            path: &path,
            hash: hash.as_deref(),
            accept: accept.as_deref(),
            if_none_match: if_none_match.as_deref(),
            gzip,
        };
        openapi::serve(&request, &inner.registry.catalog().table(), &inner.openapi)
    });
    let (head, body) = answer.await.map_err(Status::internal)??.into_parts();
    let mut reply = Reply::new(head.status.as_u16(), "application/json", body);
    reply.headers.extend(head.headers.iter().map(|(name, value)| (name.clone(), value.clone())));
    Ok(reply)
}

/// Whether `Accept-Encoding` allows gzip (RFC 9110, 12.5.3).
fn takes_gzip(header: &str) -> bool {
    header.split(',').any(|clause| {
        let mut parts = clause.split(';').map(str::trim);
        let refused = |p: &str| p.strip_prefix("q=").is_some_and(|q| q.parse() == Ok(0.0));
        matches!(parts.next(), Some("gzip" | "*")) && !parts.any(refused)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_sent_to_those_who_take_it() {
        for (header, want) in [
            ("gzip", true),
            ("br, gzip;q=0.5", true),
            ("*", true),
            ("gzip;q=0", false),
            ("br", false),
            ("", false),
        ] {
            assert_eq!(takes_gzip(header), want, "{header}");
        }
    }
}
