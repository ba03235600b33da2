//! What an audit event says (`k8s.io/apiserver/pkg/apis/audit/v1/types.go`, `pkg/audit/request.go`). No I/O, no clock.

use fleetpass_apimachinery::RequestInfo;
use fleetpass_apimachinery::status::Status;
use fleetpass_apimachinery::time::rfc3339_micro;
use fleetpass_apimachinery::user::UserInfo;
use http::{HeaderMap, Uri, header};
use jiff::Timestamp;
use parking_lot::Mutex;
use percent_encoding::percent_decode_str;
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// The annotation that says whether the request was allowed: `allow` or `forbid`.
pub(crate) const DECISION: &str = "authorization.k8s.io/decision";
/// The annotation that says why.
pub(crate) const REASON: &str = "authorization.k8s.io/reason";

/// The longest id that a client can give its request; what is longer is cut.
const MAX_ID: usize = 64;
/// The longest name of an object.
const MAX_NAME: usize = 253;
/// The longest user agent that is written out (`maxUserAgentLength`).
const MAX_USER_AGENT: usize = 1024;
/// What stands for the value of a query parameter that might be a secret.
const REDACTED: &str = "REDACTED";

/// The query parameters that the API knows. None of them carries a secret, so their values are written out; the value of
/// any other may be a token that a client put there by mistake.
const PARAMETERS: &[&str] = &[
    "allowWatchBookmarks",
    "continue",
    "dryRun",
    "exclude",
    "fieldManager",
    "fieldSelector",
    "fieldValidation",
    "force",
    "gracePeriodSeconds",
    "hash",
    "ignoreStoreReadErrorWithClusterBreakingPotential",
    "includeObject",
    "labelSelector",
    "limit",
    "orphanDependents",
    "pretty",
    "propagationPolicy",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "shardSelector",
    "timeout",
    "timeoutSeconds",
    "verbose",
    "watch",
];

/// The codes of failures whose message never quotes a body. (A body that cannot be decoded, validated or merged is refused with
/// 400, 422 or 500, and the message may contain the value of a Secret.) A list of what is safe, not of what is not: a code that
/// nobody has thought of is left out.
const WITHOUT_BODY: &[u16] = &[401, 403, 404, 405, 406, 409, 410, 413, 415, 429, 503, 504];

/// How far the request has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum Stage {
    /// The head of the answer is made; only for watches and for requests whose credentials are bad.
    ResponseStarted,
    /// The answer is made, or the watch is over.
    ResponseComplete,
    /// The server panicked.
    Panic,
}

/// How a request was answered.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outcome {
    /// With this code.
    Code(u16),
    /// With a refusal.
    Refused(Status),
    /// Not at all: its client went away first.
    ClosedEarly,
    /// Bad credentials; the text says of which kind they were.
    Unauthenticated(String),
    /// The server panicked.
    Panicked,
}

/// What handlers add to an event on the way. They share it with the request's trail, so each part has a lock, which is held for
/// one assignment.
#[derive(Debug, Default)]
pub struct Notes {
    annotations: Mutex<BTreeMap<String, String>>,
    object: Mutex<ObjectMeta>,
    deleted: Mutex<Option<Value>>,
}

#[derive(Debug, Default, Clone)]
struct ObjectMeta {
    namespace: String,
    name: String,
    uid: String,
    resource_version: String,
}

impl Notes {
    /// Adds an annotation. Never a secret: everything in an event is written out.
    pub(crate) fn annotate(&self, key: &str, value: impl Into<String>) {
        self.annotations.lock().insert(key.to_owned(), value.into());
    }

    /// Takes from the decoded body which object it is about; the path, where it says so too, counts more
    /// (`LogRequestObject`). The body was not checked yet: what is too long for a name is none.
    pub fn object(&self, body: &Value) {
        let text = |key: &str| {
            let text = body["metadata"][key].as_str().filter(|text| text.len() <= MAX_NAME);
            text.unwrap_or_default().to_owned()
        };
        *self.object.lock() = ObjectMeta {
            namespace: text("namespace"),
            name: text("name"),
            uid: text("uid"),
            resource_version: text("resourceVersion"),
        };
    }

    /// The answer is a `Status` that says what is gone (`LogResponseObject`).
    pub fn deleted(&self, status: &Value) {
        *self.deleted.lock() = status.get("details").cloned();
    }
}

/// What is known of a request so far (`AuditContext` in `k8s.io/apiserver/pkg/audit/context.go`); an event is made of it.
#[derive(Debug, Clone)]
pub(crate) struct AuditContext {
    /// The request's id.
    pub id: String,
    /// The lower-case method: the verb, where the path could not be understood.
    pub method: String,
    /// The path and query as they were sent, without what might be secret.
    pub uri: String,
    /// What it asks for.
    pub info: Option<RequestInfo>,
    /// Who sent it; `None` if the credentials are bad.
    pub user: Option<Arc<UserInfo>>,
    /// As whom, and the verb that allowed it if that was a constrained one.
    pub impersonated: Option<(Arc<UserInfo>, Option<&'static str>)>,
    /// Where it came from, the peer last. Only the peer can be trusted.
    pub sources: Vec<IpAddr>,
    /// What the client says that it is.
    pub user_agent: String,
    /// When it came.
    pub received: Timestamp,
    /// What handlers add.
    pub notes: Arc<Notes>,
}

impl AuditContext {
    /// What the head of a request says. `peer` is the address at the other end of the connection, if there is one.
    pub(crate) fn new(
        id: String,
        method: &http::Method,
        uri: &Uri,
        headers: &HeaderMap,
        peer: Option<IpAddr>,
        received: Timestamp,
    ) -> Self {
        Self {
            id,
            method: method.as_str().to_lowercase(),
            uri: redacted(uri),
            info: None,
            user: None,
            impersonated: None,
            sources: sources(headers, peer),
            user_agent: user_agent(headers),
            received,
            notes: Arc::default(),
        }
    }
}

/// The id that the client gave the request, if it is one that can be used: visible ASCII, cut to 64 characters.
pub(crate) fn requested_id(headers: &HeaderMap) -> Option<String> {
    // It is written into the log and into an answer header: no control characters, no line breaks.
    let text = headers.get("audit-id")?.to_str().ok()?;
    let id: String = text.chars().filter(char::is_ascii_graphic).take(MAX_ID).collect();
    (!id.is_empty()).then_some(id)
}

/// Path and query; the values of parameters that the API does not know are left out.
fn redacted(uri: &Uri) -> String {
    let mut out = uri.path().to_owned();
    for (i, pair) in uri.query().into_iter().flat_map(|query| query.split('&')).enumerate() {
        out.push(if i == 0 { '?' } else { '&' });
        let (key, value) = pair.split_once('=').map_or((pair, None), |(key, value)| (key, Some(value)));
        let known = percent_decode_str(key).decode_utf8().is_ok_and(|key| PARAMETERS.contains(&&*key));
        match value {
            // Without a `=` it may be a token that was pasted into the URL.
            None if !known && !key.is_empty() => out.push_str(REDACTED),
            None => out.push_str(key),
            Some(value) => {
                out.push_str(key);
                out.push('=');
                out.push_str(if known || value.is_empty() { value } else { REDACTED });
            }
        }
    }
    out
}

/// The addresses that the request came by: what proxies say, then the peer (`SourceIPs` in
/// `k8s.io/apimachinery/pkg/util/net/http.go`).
fn sources(headers: &HeaderMap, peer: Option<IpAddr>) -> Vec<IpAddr> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut out: Vec<IpAddr> =
        text("x-forwarded-for").split(',').filter_map(|part| part.trim().parse().ok()).collect();
    if let Ok(ip) = text("x-real-ip").parse()
        && !out.contains(&ip)
    {
        out.push(ip);
    }
    let peer = peer.map(|ip| ip.to_canonical());
    // A proxy may have appended itself already.
    if peer.is_some() && out.last() != peer.as_ref() {
        out.extend(peer);
    }
    out
}

fn user_agent(headers: &HeaderMap) -> String {
    let bytes = headers.get(header::USER_AGENT).map(http::HeaderValue::as_bytes).unwrap_or_default();
    match bytes.get(..MAX_USER_AGENT) {
        // Cut at a byte, as Go does; a character that is cut in half becomes a replacement character.
        Some(start) if bytes.len() > MAX_USER_AGENT => {
            format!("{}...TRUNCATED", String::from_utf8_lossy(start))
        }
        _ => String::from_utf8_lossy(bytes).into_owned(),
    }
}

/// Which kinds of credentials a refused request had (`getAuthMethods` in `endpoints/filters/authn_audit.go`).
pub(crate) fn attempted(headers: &HeaderMap, uri: &Uri, certificate: bool) -> String {
    let authorization = headers.get(header::AUTHORIZATION).map(http::HeaderValue::as_bytes);
    let scheme = |name: &[u8]| {
        authorization
            .and_then(|value| value.trim_ascii().split(|b| *b == b' ').next())
            .is_some_and(|scheme| scheme.eq_ignore_ascii_case(name))
    };
    let query = fleetpass_apimachinery::Query::parse(uri.query().unwrap_or_default());
    let methods: Vec<&str> = [
        ("basic", scheme(b"basic")),
        ("bearer", scheme(b"bearer")),
        ("access_token", query.get("access_token").is_some_and(|token| !token.trim().is_empty())),
        ("x509", certificate),
    ]
    .into_iter()
    .filter_map(|(name, used)| used.then_some(name))
    .collect();
    match methods.as_slice() {
        [] => "Authentication failed, no credentials provided".into(),
        methods => format!("Authentication failed, attempted: {}", methods.join(", ")),
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Event<'a> {
    kind: &'static str,
    api_version: &'static str,
    level: &'static str,
    #[serde(rename = "auditID")]
    audit_id: &'a str,
    stage: Stage,
    #[serde(rename = "requestURI")]
    request_uri: &'a str,
    verb: &'a str,
    user: User<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    impersonated_user: Option<User<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    authentication_metadata: Option<AuthenticationMetadata>,
    #[serde(rename = "sourceIPs", skip_serializing_if = "<[IpAddr]>::is_empty")]
    source_ips: &'a [IpAddr],
    #[serde(skip_serializing_if = "str::is_empty")]
    user_agent: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    object_ref: Option<ObjectReference<'a>>,
    response_status: ResponseStatus<'a>,
    request_received_timestamp: String,
    stage_timestamp: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
}

#[derive(Serialize)]
struct User<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    username: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    uid: &'a str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    groups: &'a [String],
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    extra: &'a BTreeMap<String, Vec<String>>,
}

impl<'a> From<&'a UserInfo> for User<'a> {
    fn from(user: &'a UserInfo) -> Self {
        Self { username: &user.name, uid: &user.uid, groups: &user.groups, extra: &user.extra }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AuthenticationMetadata {
    impersonation_constraint: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ObjectReference<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    resource: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    namespace: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    uid: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    api_group: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    api_version: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    resource_version: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    subresource: &'a str,
}

/// The members of `metav1.Status` that kube-apiserver writes out.
#[derive(Serialize, Default)]
struct ResponseStatus<'a> {
    metadata: Map<String, Value>,
    #[serde(skip_serializing_if = "str::is_empty")]
    status: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    message: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Value>,
    code: u16,
}

/// The event as a line of JSON. `at` is when the request came to this stage.
pub(crate) fn line(context: &AuditContext, stage: Stage, outcome: &Outcome, at: Timestamp) -> Vec<u8> {
    let (annotations, object) = (context.notes.annotations.lock(), context.notes.object.lock());
    let nobody = UserInfo::default();
    let constraint = context.impersonated.as_ref().and_then(|(_, constraint)| *constraint);
    let event = Event {
        kind: "Event",
        api_version: "audit.k8s.io/v1",
        level: "Metadata",
        audit_id: &context.id,
        stage,
        request_uri: &context.uri,
        // A request that was refused before its path was understood has its method for a verb.
        verb: context.info.as_ref().map_or(&context.method, |info| &info.verb),
        user: context.user.as_deref().unwrap_or(&nobody).into(),
        impersonated_user: context.impersonated.as_ref().map(|(user, _)| (&**user).into()),
        authentication_metadata: constraint
            .map(|impersonation_constraint| AuthenticationMetadata { impersonation_constraint }),
        source_ips: &context.sources,
        user_agent: &context.user_agent,
        object_ref: context
            .info
            .as_ref()
            .filter(|info| info.is_resource)
            .map(|info| object_reference(info, &object)),
        response_status: response_status(outcome, context.notes.deleted.lock().clone()),
        request_received_timestamp: rfc3339_micro(context.received),
        stage_timestamp: rfc3339_micro(at),
        annotations: &annotations,
    };
    // Serialising text, numbers and maps with text as keys cannot fail.
    let mut out = serde_json::to_vec(&event).unwrap_or_default();
    out.push(b'\n');
    out
}

fn object_reference<'a>(info: &'a RequestInfo, body: &'a ObjectMeta) -> ObjectReference<'a> {
    let or = |first: &'a str, second: &'a str| if first.is_empty() { second } else { first };
    ObjectReference {
        resource: &info.resource,
        namespace: or(&info.namespace, &body.namespace),
        name: or(&info.name, &body.name),
        uid: &body.uid,
        api_group: &info.group,
        api_version: &info.version,
        resource_version: &body.resource_version,
        subresource: &info.subresource,
    }
}

fn response_status(outcome: &Outcome, deleted: Option<Value>) -> ResponseStatus<'_> {
    let empty = ResponseStatus::default();
    match outcome {
        Outcome::Code(code) => ResponseStatus {
            status: if deleted.is_some() { "Success" } else { "" },
            details: deleted,
            code: *code,
            ..empty
        },
        Outcome::ClosedEarly => {
            ResponseStatus { status: "Success", message: "Connection closed early", code: 200, ..empty }
        }
        Outcome::Unauthenticated(message) => ResponseStatus { message, code: 401, ..empty },
        // The panic's own message stays out: it might quote an object.
        Outcome::Panicked => ResponseStatus {
            status: "Failure",
            message: "APIServer panic'd",
            reason: "InternalError",
            code: 500,
            ..empty
        },
        Outcome::Refused(status) => {
            // The message and the causes quote the body: both stay out of the log.
            let quotes = !WITHOUT_BODY.contains(&status.code);
            let mut details = status.details.as_ref().map(|details| details.to_json());
            if let Some(members) = details.as_mut().filter(|_| quotes).and_then(Value::as_object_mut) {
                members.remove("causes");
            }
            ResponseStatus {
                metadata: Map::new(),
                status: "Failure",
                message: if quotes { "" } else { &status.message },
                reason: status.reason,
                details,
                code: status.code,
            }
        }
    }
}

#[cfg(test)]
#[path = "event_tests.rs"]
mod tests;
