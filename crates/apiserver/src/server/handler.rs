//! One request's way: who asks, may they, where does it go; and how a refusal is answered.

use super::body::{self, Body, BoxError, Content};
use super::context::RequestContext;
use super::listener::Peer;
use super::render;
use super::reply::{Failure, Reply};
use super::{Inner, compression, connection, documents, limits, nonresource, resource, warning};
use crate::alias::{self, Alias};
use crate::audit::event::{self, DECISION, Outcome, REASON};
use crate::audit::trail::Trail;
use bytes::Bytes;
use fleetpass_apimachinery::status::Status;
use fleetpass_apimachinery::user::UserInfo;
use fleetpass_apimachinery::{Query, RequestInfo};
use fleetpass_auth::authn::{AuthenticationRequest, Unauthenticated};
use fleetpass_auth::authz::{self, Attributes, impersonation};
use fleetpass_codec::negotiate::{self, MediaType, Output};
use futures::FutureExt;
use http::header::{ACCEPT, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WARNING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use jiff::Timestamp;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use tokio::time::Instant;
use tracing::field::Empty;
use tracing::{Instrument as _, Span};

const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");

/// The user of a request that comes from inside the process, without a socket.
#[derive(Debug, Clone)]
pub(crate) struct InProcess(pub Arc<UserInfo>);

/// What is kept of a request until it is answered, whatever becomes of it. It is not part of the future that answers,
/// which is dropped when its time is over: the log, the metrics and the audit log hear of such a request too.
struct InFlight<'a> {
    started: Instant,
    /// What debug lines of this request have in common.
    span: Span,
    measured: super::metrics::Measured<'a>,
    trail: Trail,
    /// Held until the answer may be sent.
    slot: Option<tokio::sync::OwnedSemaphorePermit>,
}

impl InFlight<'_> {
    /// What the request asks for, now that its path was understood.
    fn about(&mut self, info: &RequestInfo) {
        self.measured.about(info);
        self.trail.about(info);
        self.span.record("verb", info.verb.as_str());
        if self.span.is_disabled() || !info.is_resource {
            return;
        }
        let parts = [&info.group, &info.resource, &info.subresource];
        let resource: Vec<&str> =
            parts.iter().map(|part| part.as_str()).filter(|part| !part.is_empty()).collect();
        self.span.record("resource", resource.join("/"));
    }
}

/// The span of one request: by its `audit_id`, debug lines, audit events and the client's `Audit-Id` header can be brought
/// together. Nothing that a client sends but the shape of the path gets into it, so that no secret can.
fn span(id: &str) -> Span {
    tracing::debug_span!("request", audit_id = id, verb = Empty, resource = Empty)
}

/// Answers one request.
pub(super) async fn handle<B>(inner: &Arc<Inner>, request: Request<B>) -> Response<Body>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let started = Instant::now();
    let (parts, body) = request.into_parts();
    let head = parts.method == Method::HEAD;
    let accept = parts.headers.get(ACCEPT).and_then(|v| v.to_str().ok()).map(String::from);
    let id = event::requested_id(&parts.headers).unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
    let mut in_flight = InFlight {
        started,
        span: span(&id),
        measured: super::metrics::Measured::begin(&inner.metrics),
        trail: trail(inner, &parts, &id),
        slot: None,
    };
    // A watch is answered with its head at once, so the deadline is one for all requests.
    let span = in_flight.span.clone();
    let answer = answer(inner, parts, body, &mut in_flight).instrument(span);
    let answer = AssertUnwindSafe(answer).catch_unwind();
    let (result, panicked) = match tokio::time::timeout_at(started + inner.limits.timeout, answer).await {
        Ok(Ok(result)) => (result, false),
        // What a request breaks is its own answer; the next one finds the server as it was.
        Ok(Err(_)) => (Err(Status::internal("the server panicked; its log says where").into()), true),
        Err(_) => (Err(limits::too_late().into()), false),
    };
    let outcome = match &result {
        _ if panicked => Outcome::Panicked,
        Ok(reply) => Outcome::Code(reply.code),
        Err(failure) => Outcome::Refused(failure.status.clone()),
    };
    let mut reply = result.unwrap_or_else(|failure| refusal(&failure, accept.as_deref()));
    let InFlight { span, measured, mut trail, slot, .. } = in_flight;
    span.in_scope(|| tracing::debug!(code = reply.code, took = ?started.elapsed(), "answered"));
    measured.end(reply.code, started.elapsed());
    let streams = matches!(reply.body, Content::Stream(_));
    trail.answered(outcome, streams).await;
    drop(slot);
    if let Content::Stream(body) = reply.body {
        reply.body = Content::Stream(body::holding(body, trail));
    }
    response(reply, head, &id)
}

/// The trail of a request for the audit log, if there is one.
fn trail(inner: &Inner, parts: &http::request::Parts, id: &str) -> Trail {
    let Some(log) = &inner.audit else { return Trail::none() };
    let peer = parts.extensions.get::<Peer>().map(|peer| peer.address.ip());
    let now = inner.registry.now();
    let facts = event::Facts::new(id.to_owned(), &parts.method, &parts.uri, &parts.headers, peer, now);
    Trail::begin(log.clone(), inner.registry.clock().clone(), facts)
}

async fn answer<B>(
    inner: &Arc<Inner>,
    parts: http::request::Parts,
    body: B,
    in_flight: &mut InFlight<'_>,
) -> Result<Reply, Failure>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let now = inner.registry.now();
    let query = Query::parse(parts.uri.query().unwrap_or_default());
    let mut body = Some(body);
    let mut known_body = None;
    let path = match alias::resolve(parts.method.as_str(), parts.uri.path()) {
        None => parts.uri.path().to_string(),
        Some(Alias::Path(path)) => path,
        Some(Alias::NamespaceInBody) => {
            // Only who could be let in anyway makes the server read a body.
            authenticate(inner, &parts, now, &mut in_flight.trail)?;
            let bytes = match body.take() {
                Some(body) => body::read(body).await?,
                None => Bytes::new(),
            };
            let path = resource::collection_of_alias(&bytes, &parts.headers)?;
            known_body = Some(bytes);
            path
        }
    };
    let info = RequestInfo::parse(parts.method.as_str(), &path, &query);
    in_flight.about(&info);
    let patience = limits::timeout_asked(&info, &query)?;
    let (user, warnings) = authenticate(inner, &parts, now, &mut in_flight.trail)?;
    let failed = |status: Status| Failure { status, warnings: warnings.clone() };
    let user = impersonate(inner, &parts.headers, &info, user, &mut in_flight.trail).map_err(failed)?;
    let (method, headers, notes) = (parts.method, parts.headers, in_flight.trail.notes());
    let mut context = RequestContext { info, query, method, headers, user, now, notes };
    impersonation::remove_headers(&mut context.headers);
    authorize(inner, &context).map_err(failed)?;
    match inner.limits.enter(&context) {
        Ok(slot) => in_flight.slot = slot,
        Err(limits::Full) => return Ok(Reply::too_many_requests().warned(warnings)),
    }
    let read = async move {
        match (known_body, body) {
            (Some(bytes), _) => Ok(bytes),
            (None, Some(body)) => body::read(body).await,
            (None, None) => Ok(Bytes::new()),
        }
    };
    let served = async {
        if may_be_long(&context.info) {
            connection::step_aside().await;
        }
        let mut reply = serve(inner, &context, read).await?;
        compression::compress(&mut reply, &context.headers).await;
        Ok(reply)
    };
    let result = match patience {
        None => served.await,
        Some(patience) => tokio::time::timeout_at(in_flight.started + patience, served)
            .await
            .unwrap_or_else(|_| Err(limits::too_late().into())),
    };
    with_warnings(warnings, result)
}

/// Whether the answer may keep a core busy for long.
fn may_be_long(info: &RequestInfo) -> bool {
    matches!(info.verb.as_str(), "list" | "deletecollection") || documents::is_path(&info.path)
}

async fn serve(
    inner: &Arc<Inner>,
    context: &RequestContext,
    read: impl Future<Output = Result<Bytes, Status>> + Send,
) -> Result<Reply, Failure> {
    if context.info.is_resource {
        resource::serve(inner, context, read).await
    } else if documents::is_path(&context.info.path) {
        documents::serve(inner, context).await.map_err(Failure::from)
    } else {
        nonresource::serve(inner, context).map_err(Failure::from)
    }
}

/// The result with `warnings` before its own.
fn with_warnings(warnings: Vec<String>, result: Result<Reply, Failure>) -> Result<Reply, Failure> {
    match result {
        Ok(mut reply) => {
            reply.warnings.splice(0..0, warnings);
            Ok(reply)
        }
        Err(mut failure) => {
            failure.warnings.splice(0..0, warnings);
            Err(failure)
        }
    }
}

/// Who asks; without credentials anonymous. Bad credentials are refused.
fn authenticate(
    inner: &Inner,
    parts: &http::request::Parts,
    now: Timestamp,
    trail: &mut Trail,
) -> Result<(Arc<UserInfo>, Vec<String>), Failure> {
    if let Some(InProcess(user)) = parts.extensions.get::<InProcess>() {
        trail.user(user);
        return Ok((user.clone(), Vec::new()));
    }
    let certificate = parts.extensions.get::<Peer>().and_then(|peer| peer.certificate.as_deref());
    let request = AuthenticationRequest {
        authorization: parts.headers.get(AUTHORIZATION).map(HeaderValue::as_bytes),
        certificate,
        audiences: None,
        now,
        lister: &*inner.registry,
    };
    let (user, warnings) = match inner.authenticator.authenticate(&request) {
        Ok(found) => {
            let notes = trail.notes();
            found.annotations.into_iter().for_each(|(key, value)| notes.annotate(key, value));
            (found.user, found.warnings)
        }
        Err(Unauthenticated::NoCredentials { warnings }) => (UserInfo::anonymous(), warnings),
        Err(Unauthenticated::Invalid(why)) => {
            let address = parts.extensions.get::<Peer>().map(|peer| peer.address);
            tracing::debug!(?address, why, "authentication failed");
            trail.unauthenticated(|| event::attempted(&parts.headers, &parts.uri, certificate.is_some()));
            return Err(Status::unauthorized().into());
        }
    };
    let user = Arc::new(user);
    trail.user(&user);
    Ok((user, warnings))
}

fn attributes<'a>(info: &'a RequestInfo, user: &'a UserInfo) -> Attributes<'a> {
    if !info.is_resource {
        return Attributes::path(user, &info.verb, &info.path);
    }
    let mut attributes = Attributes::resource(user, &info.verb, &info.group, &info.resource)
        .in_namespace(&info.namespace)
        .named(&info.name)
        .of_subresource(&info.subresource)
        .of_version(&info.version);
    attributes.path = &info.path;
    attributes
}

fn impersonate(
    inner: &Inner,
    headers: &HeaderMap,
    info: &RequestInfo,
    user: Arc<UserInfo>,
    trail: &mut Trail,
) -> Result<Arc<UserInfo>, Status> {
    let attributes = attributes(info, &user);
    let first = inner.recent_impersonations.get(&user.name);
    let Some(found) = impersonation::impersonate(headers, &attributes, first, &*inner.authorizer)? else {
        return Ok(user);
    };
    inner.recent_impersonations.set(&user.name, found.mode);
    let (user, mode) = (Arc::new(found.user), found.mode);
    trail.impersonated(&user, mode.constrained().then(|| mode.verb()));
    Ok(user)
}

fn authorize(inner: &Inner, context: &RequestContext) -> Result<(), Status> {
    let attributes = attributes(&context.info, &context.user);
    let decision = inner.authorizer.authorize(&attributes);
    if decision.allowed {
        context.notes.annotate(DECISION, "allow");
        context.notes.annotate(REASON, decision.reason);
        return Ok(());
    }
    if !decision.evaluation_error.is_empty() {
        context.notes.annotate(REASON, "internal error");
        return Err(Status::internal(decision.evaluation_error));
    }
    context.notes.annotate(DECISION, "forbid");
    context.notes.annotate(REASON, decision.reason.as_str());
    Err(authz::forbidden(&attributes, &decision.reason))
}

/// A `Status` in the encoding that the client accepts.
fn refusal(failure: &Failure, accept: Option<&str>) -> Reply {
    let mut accepted = Output { media: negotiate::output_status(accept), convert_to: None, pretty: false };
    let status = &failure.status;
    let body = status.to_json();
    let bytes = render::encode(&body, accepted).unwrap_or_else(|_| {
        accepted.media = MediaType::Json;
        body.to_string().into()
    });
    let mut reply = Reply::new(status.code, accepted.media.as_str(), bytes).warned(failure.warnings.clone());
    if let Some(seconds) = status.details.as_ref().map(|d| d.retry_after_seconds).filter(|s| *s > 0) {
        reply.headers.push((RETRY_AFTER, seconds.into()));
    }
    reply
}

fn response(reply: Reply, head: bool, id: &str) -> Response<Body> {
    let body = match reply.body {
        _ if head => body::full(Bytes::new()),
        Content::Whole(bytes) => body::full(bytes),
        Content::Stream(body) => body,
    };
    let mut response = Response::new(body);
    *response.status_mut() =
        http::StatusCode::from_u16(reply.code).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(reply.content_type));
    if let Ok(mut id) = HeaderValue::from_str(id) {
        // No secret, but different each time: it is not worth a place in HTTP/2's table of known headers.
        id.set_sensitive(true);
        headers.insert(AUDIT_ID, id);
    }
    for value in warning::headers(reply.warnings) {
        headers.append(WARNING, value);
    }
    for (name, value) in reply.headers {
        headers.insert(name, value);
    }
    response
}
