//! The OpenAPI documents over HTTP.

use super::compression::accepts_gzip;
use super::context::RequestContext;
use super::reply::Reply;
use super::state::ServerState;
use crate::openapi;
use fleetpass_apimachinery::status::Status;
use http::Method;
use http::header::IF_NONE_MATCH;
use std::sync::Arc;

/// Whether the path is that of an OpenAPI document.
pub(super) fn is_path(path: &str) -> bool {
    matches!(path.trim_end_matches('/'), "/openapi/v2" | "/openapi/v3") || path.starts_with("/openapi/v3/")
}

/// Answers a request for a document. Building one takes many milliseconds, so it is done on a thread for blocking work.
pub(super) async fn serve(state: &Arc<ServerState>, context: &RequestContext) -> Result<Reply, Status> {
    if !matches!(context.method, Method::GET | Method::HEAD) {
        return Err(Status::method_not_allowed());
    }
    let owned = |text: Option<&str>| text.map(str::to_string);
    let path = context.info.path.clone();
    let hash = owned(context.query.get("hash"));
    let accept = owned(context.accept());
    let if_none_match = owned(context.header(IF_NONE_MATCH));
    let gzip = accepts_gzip(&context.headers);
    let state = Arc::clone(state);
    let answer = tokio::task::spawn_blocking(move || {
        let request = openapi::Request {
            path: &path,
            hash: hash.as_deref(),
            accept: accept.as_deref(),
            if_none_match: if_none_match.as_deref(),
            gzip,
        };
        openapi::serve(&request, &state.registry.catalog().kinds(), &state.openapi)
    });
    let (head, body) = answer.await.map_err(Status::internal)??.into_parts();
    let mut reply = Reply::new(head.status.as_u16(), "application/json", body);
    reply.headers.extend(head.headers.iter().map(|(name, value)| (name.clone(), value.clone())));
    Ok(reply)
}
