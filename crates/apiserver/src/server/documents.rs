//! The OpenAPI documents over HTTP.

use super::compression::accepts_gzip;
use super::context::RequestContext;
use super::reply::Reply;
use super::state::ServerState;
use crate::openapi;
use fleetpass_apimachinery::status::Status;
use http::Method;
use http::header::IF_NONE_MATCH;

/// Whether the path is that of an OpenAPI document.
pub(super) fn is_path(path: &str) -> bool {
    matches!(path.trim_end_matches('/'), "/openapi/v2" | "/openapi/v3") || path.starts_with("/openapi/v3/")
}

/// Answers a request for a document. Building one takes many milliseconds; the caller is in the pool for heavy work.
///
/// # Errors
/// 405; 406 or 404 of the document.
pub(super) fn serve(state: &ServerState, context: &RequestContext) -> Result<Reply, Status> {
    if !matches!(context.method, Method::GET | Method::HEAD) {
        return Err(Status::method_not_allowed());
    }
    let request = openapi::Request {
        path: &context.info.path,
        hash: context.query.get("hash"),
        accept: context.accept(),
        if_none_match: context.header(IF_NONE_MATCH),
        gzip: accepts_gzip(&context.headers),
    };
    let answer = openapi::serve(&request, &state.registry.catalog().kinds(), &state.openapi)?;
    let (head, body) = answer.into_parts();
    let mut reply = Reply::new(head.status.as_u16(), "application/json", body);
    reply.headers.extend(head.headers.iter().map(|(name, value)| (name.clone(), value.clone())));
    Ok(reply)
}
