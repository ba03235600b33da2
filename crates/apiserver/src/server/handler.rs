//! One request's way: authentication, impersonation, authorization, limits, dispatch; and how a failure is answered.
//!
//! The order is that of kube-apiserver's handler chain (`DefaultBuildHandlerChain` in `k8s.io/apiserver/pkg/server/config.go`),
//! because clients see it: which of two faults is reported, and what the audit log says of a request that is refused.
//!
//! ```text
//! handle ── on the connection's thread: the deadline, the audit event, the head of the answer
//!   └─ answer ── there too, until it is known to be heavy; then in the pool, in the flow of its user
//! ```
//!
//! The deadline is kept by who does not do the work: however busy the pool is, the client is answered 504 in time.
//!
//! # What a dropped future leaves behind
//!
//! The future of [`handle`] is dropped when the client goes away, and that of [`answer`] also when the deadline passes; in the
//! pool that happens at its next await. Nothing in them needs to be finished: a commit that the store has accepted is carried
//! out without us, and whatever has to happen in any case is tied to a value that is dropped:
//! [`Measured`](super::metrics::Measured) counts down the requests under way, [`Trail`] leaves the audit event, the slot is given back.

use super::body::{self, Body, BoxError, Content};
use super::context::RequestContext;
use super::limits::Slot;
use super::listener::Peer;
use super::offload::Movable;
use super::render;
use super::reply::{Failure, Reply};
use super::state::ServerState;
use super::{compression, documents, limits, nonresource, offload, resource, warning};
use crate::alias::{self, Alias};
use crate::audit::event::{self, DECISION, Notes, Outcome, REASON};
use crate::audit::trail::Trail;
use crate::work::{Flow, Full};
use bytes::Bytes;
use fleetpass_apimachinery::status::Status;
use fleetpass_apimachinery::user::{ALL_UNAUTHENTICATED, UserInfo};
use fleetpass_apimachinery::{Query, RequestInfo};
use fleetpass_auth::authn::{AuthenticationRequest, Unauthenticated};
use fleetpass_auth::authz::{self, Attributes, impersonation};
use fleetpass_codec::negotiate::{self, MediaType, Output};
use futures::FutureExt;
use http::header::{ACCEPT, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WARNING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use jiff::Timestamp;
use parking_lot::Mutex;
use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use tokio::time::Instant;
use tracing::field::Empty;
use tracing::{Instrument as _, Span};

const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");

/// The user of a request that comes from inside the process, without a socket.
#[derive(Debug, Clone)]
pub(crate) struct InProcess(pub Arc<UserInfo>);

/// What is known of a request until it is answered, whatever becomes of it: shared by [`handle`] and the future of [`answer`].
/// The latter fills it in, and is dropped at the deadline, perhaps in the middle of it; the log, the metrics and the audit log
/// need to hear of such a request too.
///
/// The lock is hardly ever contended, and never held across an await: only when the deadline passes while the pool works do two
/// threads look at the same request.
type Shared = Arc<Mutex<InFlight>>;

struct InFlight {
    started: Instant,
    /// When the client has to have the head of its answer.
    deadline: Instant,
    /// The span of all debug lines of this request.
    span: Span,
    measured: super::metrics::Measured,
    trail: Trail,
}

/// What [`answer`] came to.
struct Answered {
    result: Result<Reply, Failure>,
    /// Of `--max-requests-inflight`. Held until the answer is made, not until it is sent: a slow reader or a watch must not use
    /// up what is meant to bound our work.
    slot: Option<Slot>,
}

impl InFlight {
    /// Notes what the request asks for (`RequestInfo`), as soon as its path has been parsed.
    fn resolved(&mut self, info: &RequestInfo) {
        self.measured.resolved(info);
        self.trail.resolved(info);
        self.span.record("verb", info.verb.as_str());
        // Joining the parts allocates; without debug logging nobody would read it.
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
pub(super) async fn handle<B>(state: &Arc<ServerState>, request: Request<B>) -> Response<Body>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let started = Instant::now();
    let (parts, body) = request.into_parts();
    let head = parts.method == Method::HEAD;
    let accept = parts.headers.get(ACCEPT).and_then(|v| v.to_str().ok()).map(String::from);
    let id = event::requested_id(&parts.headers).unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
    let span = span(&id);
    let in_flight = Arc::new(Mutex::new(InFlight {
        started,
        // One deadline for all verbs (`filters/request_deadline.go`): the future that it bounds ends when the head of the
        // answer is made. The stream of a watch is made after that, with an end of its own.
        deadline: started + state.limits.timeout,
        span: span.clone(),
        measured: super::metrics::Measured::begin(state.metrics.clone()),
        trail: trail(state, &parts, &id),
    }));
    let answer = answer(state.clone(), parts, body, in_flight.clone()).instrument(span.clone());
    let answered = in_time(Movable::new(AssertUnwindSafe(answer).catch_unwind()), &in_flight).await;
    let (result, panicked, slot) = match answered {
        Some(Ok(Answered { result, slot })) => (result, false, slot),
        // `WithPanicRecovery`: the panic costs this request its answer and nothing else. Objects change only by commits, which
        // a panic cannot halve, and a lock that it unwinds through is released, not poisoned.
        Some(Err(_)) => (Err(Status::internal("the server panicked; its log says where").into()), true, None),
        None => (Err(limits::timed_out().into()), false, None),
    };
    let result = match result {
        // In the form in which API Priority and Fairness refuses, which is no `Status`.
        Err(failure) if failure.status == limits::overloaded() => {
            Ok(Reply::too_many_requests().warned(failure.warnings))
        }
        result => result,
    };
    let outcome = match &result {
        _ if panicked => Outcome::Panicked,
        Ok(reply) => Outcome::Code(reply.code),
        Err(failure) => Outcome::Refused(failure.status.clone()),
    };
    let mut reply = result.unwrap_or_else(|failure| error_reply(&failure, accept.as_deref()));
    let took = started.elapsed();
    span.in_scope(|| tracing::debug!(code = reply.code, ?took, "answered"));
    let mut trail = {
        let mut in_flight = in_flight.lock();
        in_flight.measured.end(reply.code, took);
        std::mem::replace(&mut in_flight.trail, Trail::none())
    };
    let streams = !matches!(reply.body, Content::Whole(_));
    // The answer waits until its audit event is in the log's queue (blocking mode). The slot is held meanwhile: if the log is
    // slow, fewer requests are let in.
    trail.answered(outcome, streams).await;
    drop(slot);
    // A stream takes the trail along: its last event is due when the stream ends or is dropped.
    reply.body = match reply.body {
        Content::Stream(body) => Content::Stream(body::holding(body, trail)),
        Content::List(list) => Content::Stream(body::holding(list.into_body(), trail)),
        whole @ Content::Whole(_) => whole,
    };
    response(reply, head, &id)
}

/// The trail of a request for the audit log, if there is one.
fn trail(state: &ServerState, parts: &http::request::Parts, id: &str) -> Trail {
    let Some(log) = &state.audit else { return Trail::none() };
    let peer = parts.extensions.get::<Peer>().map(|peer| peer.address.ip());
    let now = state.registry.now();
    let context =
        event::AuditContext::new(id.to_owned(), &parts.method, &parts.uri, &parts.headers, peer, now);
    Trail::begin(log.clone(), state.registry.clock().clone(), context)
}

/// What a future gives, or `None` if the deadline of its request passes first. The deadline may be brought forward meanwhile.
async fn in_time<F: Future + Unpin>(mut future: F, in_flight: &Shared) -> Option<F::Output> {
    let mut deadline = pin!(tokio::time::sleep_until(in_flight.lock().deadline));
    poll_fn(|cx| {
        if let Poll::Ready(output) = Pin::new(&mut future).poll(cx) {
            return Poll::Ready(Some(output));
        }
        let due = in_flight.lock().deadline;
        if deadline.deadline() != due {
            deadline.as_mut().reset(due);
        }
        deadline.as_mut().poll(cx).map(|()| None)
    })
    .await
}

async fn answer<B>(
    state: Arc<ServerState>,
    parts: http::request::Parts,
    body: B,
    in_flight: Shared,
) -> Answered
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let mut slot = None;
    let result = step_by_step(&state, parts, body, &in_flight, &mut slot).await;
    Answered { result, slot }
}

/// From the head of a request to its answer. The order of the steps matters; each says why it stands where it does.
async fn step_by_step<B>(
    state: &Arc<ServerState>,
    parts: http::request::Parts,
    body: B,
    in_flight: &Shared,
    slot: &mut Option<Slot>,
) -> Result<Reply, Failure>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let now = state.registry.now();
    let query = Query::parse(parts.uri.query().unwrap_or_default());
    let mut body = Some(body);
    let mut known_body = None;
    let path = match alias::resolve(parts.method.as_str(), parts.uri.path()) {
        None => parts.uri.path().to_string(),
        Some(Alias::Path(path)) => path,
        Some(Alias::NamespaceInBody) => {
            // The namespace is in the body, so authorization has to wait until that is read. Strangers can be refused without:
            // they must not make us buffer and parse megabytes.
            let (user, warnings) = authenticate(state, &parts, now, &mut in_flight.lock().trail)?;
            if user.in_group(ALL_UNAUTHENTICATED) {
                let info = RequestInfo::parse(parts.method.as_str(), &alias::collection_of_all(), &query);
                in_flight.lock().resolved(&info);
                let notes = in_flight.lock().trail.notes();
                authorize(state, &attributes(&info, &user), &notes)
                    .map_err(|status| Failure { status, warnings })?;
            }
            let bytes = match body.take() {
                Some(body) => body::read(body).await?,
                None => Bytes::new(),
            };
            if bytes.len() > offload::HEAVY_BYTES {
                offload::step_aside(state, &user, bytes.len()).await?;
            }
            let path = resource::collection_of_alias(&bytes, &parts.headers)?;
            known_body = Some(bytes);
            path
        }
    };
    let info = RequestInfo::parse(parts.method.as_str(), &path, &query);
    in_flight.lock().resolved(&info);
    // A malformed `timeout` is refused even without credentials: `WithRequestDeadline` stands before authentication.
    if let Some(timeout) = limits::requested_timeout(&info, &query)? {
        let mut in_flight = in_flight.lock();
        in_flight.deadline = in_flight.deadline.min(in_flight.started + timeout);
    }
    let (user, warnings) = authenticate(state, &parts, now, &mut in_flight.lock().trail)?;
    // Warnings of authentication (an extra space in the header) go with every answer from here on, refusals too.
    let failed = |status: Status| Failure { status, warnings: warnings.clone() };
    // After authentication: whether somebody may impersonate is decided for the user who really asks. The user that comes out
    // is the one whom authorization, admission and handlers see.
    let user =
        impersonate(state, &parts.headers, &info, user, &mut in_flight.lock().trail).map_err(failed)?;
    let (method, headers, notes) = (parts.method, parts.headers, in_flight.lock().trail.notes());
    let deadline = in_flight.lock().deadline;
    let mut context = RequestContext { info, query, method, headers, user, now, deadline, notes };
    // Gone before any handler can see them, so that nothing acts on them twice.
    impersonation::remove_headers(&mut context.headers);
    authorize(state, &attributes(&context.info, &context.user), &context.notes).map_err(failed)?;
    // kube-apiserver has its limit before authorization. Here authorization is a look into memory that never waits, and who
    // may not do anything must not be able to occupy slots.
    let flow = Flow::of(&context.user);
    *slot = state.limits.acquire(&context.info, flow).map_err(|Full| {
        state.metrics.refused(flow);
        failed(limits::overloaded())
    })?;
    let user = context.user.clone();
    // Reading is lazy: a handler first checks verb, media types and whatever else it can tell from the head, and a body that
    // is refused is never read.
    let read = async move {
        let bytes = match (known_body, body) {
            (Some(bytes), _) => bytes,
            (None, Some(body)) => body::read(body).await?,
            (None, None) => Bytes::new(),
        };
        if bytes.len() > offload::HEAVY_BYTES {
            offload::step_aside(state, &user, bytes.len()).await?;
        }
        Ok(bytes)
    };
    let served = async {
        // Before the work begins, so that other requests on this connection go on meanwhile.
        if is_expensive(&context.info) {
            offload::step_aside(state, &context.user, 0).await?;
        }
        let mut reply = serve(state, &context, read).await?;
        compression::compress(&mut reply, &context.headers).await;
        Ok(reply)
    };
    with_warnings(warnings, served.await)
}

/// Whether the answer may keep a core busy for milliseconds: encoding a list of thousands of objects, building an OpenAPI
/// document. For all other verbs that depends on the sizes of bodies and objects.
fn is_expensive(info: &RequestInfo) -> bool {
    matches!(info.verb.as_str(), "list" | "deletecollection") || documents::is_path(&info.path)
}

async fn serve(
    state: &Arc<ServerState>,
    context: &RequestContext,
    read: impl Future<Output = Result<Bytes, Status>> + Send,
) -> Result<Reply, Failure> {
    if context.info.is_resource {
        resource::serve(state, context, read).await
    } else if documents::is_path(&context.info.path) {
        documents::serve(state, context).map_err(Failure::from)
    } else {
        nonresource::serve(state, context).map_err(Failure::from)
    }
}

/// The result with `warnings` in front of its own: clients see warnings in the order in which they came up.
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

/// The user who sends the request, and warnings about their credentials. No credentials at all make the anonymous user; bad
/// ones are refused, since a client that sends them does not want to be anonymous.
///
/// # Errors
/// 401. Why is in the debug log only: the answer must not help to guess.
fn authenticate(
    state: &ServerState,
    parts: &http::request::Parts,
    now: Timestamp,
    trail: &mut Trail,
) -> Result<(Arc<UserInfo>, Vec<String>), Failure> {
    // Only our own service can insert this extension; nothing that comes over a connection can.
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
        lister: &*state.registry,
    };
    let (user, warnings) = match state.authenticator.authenticate(&request) {
        Ok(found) => {
            if let Some(peer) = parts.extensions.get::<Peer>() {
                peer.authenticated();
            }
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

/// The request as an authorizer sees it (`endpoints/filters/authorization.go`, `GetAuthorizerAttributes`).
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

/// The user whom the `Impersonate-` headers name, if the authenticated one may act as them; without such headers the same user.
/// The mode that worked last for this user is tried first: which one it is depends on their RBAC rules and rarely changes.
///
/// # Errors
/// 403, or 400 for headers that contradict each other.
fn impersonate(
    state: &ServerState,
    headers: &HeaderMap,
    info: &RequestInfo,
    user: Arc<UserInfo>,
    trail: &mut Trail,
) -> Result<Arc<UserInfo>, Status> {
    let attributes = attributes(info, &user);
    let first = state.recent_impersonations.get(&user.name);
    let Some(found) = impersonation::impersonate(headers, &attributes, first, &*state.authorizer)? else {
        return Ok(user);
    };
    state.recent_impersonations.set(&user.name, found.mode);
    let (user, mode) = (Arc::new(found.user), found.mode);
    trail.impersonated(&user, mode.constrained().then(|| mode.verb()));
    Ok(user)
}

/// Asks the authorizer and annotates its decision for the audit log.
///
/// # Errors
/// 403; 500 if no authorizer allows it and one could not decide.
fn authorize(state: &ServerState, attributes: &Attributes<'_>, notes: &Notes) -> Result<(), Status> {
    let decision = state.authorizer.authorize(attributes);
    if decision.allowed {
        notes.annotate(DECISION, "allow");
        notes.annotate(REASON, decision.reason);
        return Ok(());
    }
    // Not allowed, but also not decided: a rule could not be read. As in `WithAuthorization`, that is our fault, not the
    // user's.
    if !decision.evaluation_error.is_empty() {
        notes.annotate(REASON, "internal error");
        return Err(Status::internal(decision.evaluation_error));
    }
    notes.annotate(DECISION, "forbid");
    notes.annotate(REASON, decision.reason.as_str());
    Err(authz::forbidden(attributes, &decision.reason))
}

/// A failure as a `Status`, in the encoding that the client accepts, or in JSON if it accepts none that we have: an error is
/// never answered with 406.
fn error_reply(failure: &Failure, accept: Option<&str>) -> Reply {
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

/// The HTTP response: status, headers and body of a reply. HEAD is answered as GET is, without the body.
fn response(reply: Reply, head: bool, id: &str) -> Response<Body> {
    let body = match reply.body {
        _ if head => body::full(Bytes::new()),
        Content::Whole(bytes) => body::full(bytes),
        Content::Stream(body) => body,
        Content::List(list) => list.into_body(),
    };
    let mut response = Response::new(body);
    *response.status_mut() =
        http::StatusCode::from_u16(reply.code).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(reply.content_type));
    if let Ok(mut id) = HeaderValue::from_str(id) {
        // Not a secret. "Sensitive" keeps it out of HPACK's dynamic table, where a value that never comes again would push out
        // those that do.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::metrics::{Measured, Metrics};
    use crate::work::{Pool, PoolLimits};
    use std::time::Duration;

    fn in_flight(timeout: Duration) -> Shared {
        let started = Instant::now();
        let measured = Measured::begin(Arc::new(Metrics::new(None)));
        let (span, trail) = (span("id"), Trail::none());
        Arc::new(Mutex::new(InFlight { started, deadline: started + timeout, span, measured, trail }))
    }

    #[tokio::test]
    async fn the_deadline_is_kept_though_the_pool_is_busy() {
        let pool = Pool::new(
            "test",
            PoolLimits { tasks: 1_000, tasks_of_flow: 1_000, threads: None, gives_way: true },
        );
        let user = UserInfo { name: "alice".into(), ..UserInfo::default() };
        // More than there are threads, which all wait for the channel's end.
        let (release, held) = std::sync::mpsc::channel::<()>();
        let held = Arc::new(Mutex::new(held));
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let busy: Vec<_> = (0..2 * threads)
            .map(|_| {
                let held = held.clone();
                pool.admit(Flow::of(&user)).unwrap().spawn(async move { held.lock().recv().is_err() })
            })
            .collect();
        let waits = pool.admit(Flow::of(&user)).unwrap().spawn(async { Some(1) });
        assert_eq!(in_time(waits, &in_flight(Duration::from_millis(5))).await, None);
        drop(release);
        assert!(futures::future::join_all(busy).await.into_iter().all(|done| done == Some(true)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_may_want_its_answer_earlier() {
        let shared = in_flight(Duration::from_secs(60));
        let began = Instant::now();
        let future = Box::pin(async {
            tokio::task::yield_now().await;
            shared.lock().deadline = began + Duration::from_secs(1);
            std::future::pending::<()>().await;
        });
        assert_eq!(in_time(future, &shared).await, None);
        // The clock stands still but for timers.
        assert_eq!(began.elapsed(), Duration::from_secs(1));
        assert_eq!(in_time(std::future::ready(1), &shared).await, Some(1));
    }
}
