//! `metav1.Status`: every refusal of the server, worded as `k8s.io/apimachinery/pkg/api/errors` words it.

use crate::field::{self, ErrorList, go_quote};
use serde_json::{Map, Value, json};
use std::fmt;

/// The group and plural name of a resource, as it is printed in messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupResource<'a> {
    /// The API group; empty for the core group.
    pub group: &'a str,
    /// The plural resource name; some errors put a kind here, as kube-apiserver does.
    pub resource: &'a str,
}

impl fmt::Display for GroupResource<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.group.is_empty() {
            f.write_str(self.resource)
        } else {
            write!(f, "{}.{}", self.resource, self.group)
        }
    }
}

/// One cause of a failure (`metav1.StatusCause`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cause {
    /// A machine-readable reason (`FieldValueInvalid`, `FieldManagerConflict`, …).
    pub reason: String,
    /// For people.
    pub message: String,
    /// The field it is about.
    pub field: String,
}

/// `metav1.StatusDetails`; empty members are not printed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Details {
    /// The name of the object.
    pub name: String,
    /// Its group.
    pub group: String,
    /// Its resource or kind.
    pub kind: String,
    /// Its UID.
    pub uid: String,
    /// What is wrong, one by one.
    pub causes: Vec<Cause>,
    /// After how many seconds to try again; 0 says nothing.
    pub retry_after_seconds: u32,
}

/// A refusal: an HTTP status with a `metav1.Status` body.
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    /// The HTTP status code.
    pub code: u16,
    /// The machine-readable reason; empty where kube-apiserver gives none.
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// About what.
    // Boxed, so that `Result<_, Status>`, which most functions of the server return, stays small.
    pub details: Option<Box<Details>>,
}

impl Status {
    /// A status without details.
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: None }
    }
    /// Adds the details that name one object.
    fn about(mut self, gr: GroupResource<'_>, name: &str) -> Self {
        self.details = Some(Box::new(Details {
            name: name.into(),
            group: gr.group.into(),
            kind: gr.resource.into(),
            ..Details::default()
        }));
        self
    }
    /// 404 `NotFound`.
    pub fn not_found(gr: GroupResource<'_>, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{gr} {} not found", go_quote(name))).about(gr, name)
    }
    /// 404 `NotFound` for a path that names no resource (`NewGenericServerResponse`).
    pub fn unknown_path() -> Self {
        let mut status = Self::new(404, "NotFound", "the server could not find the requested resource");
        // `NewGenericServerResponse` always has details, here empty ones: clients see `"details": {}`.
        status.details = Some(Box::default());
        status
    }
    /// 409 `AlreadyExists`.
    pub fn already_exists(gr: GroupResource<'_>, name: &str) -> Self {
        Self::new(409, "AlreadyExists", format!("{gr} {} already exists", go_quote(name))).about(gr, name)
    }
    /// 409 `Conflict`.
    pub fn conflict(gr: GroupResource<'_>, name: &str, why: impl fmt::Display) -> Self {
        let message = format!("Operation cannot be fulfilled on {gr} {}: {why}", go_quote(name));
        Self::new(409, "Conflict", message).about(gr, name)
    }
    /// 403 `Forbidden`; an empty name is left out of the message as kube-apiserver leaves it out.
    pub fn forbidden(gr: GroupResource<'_>, name: &str, why: impl fmt::Display) -> Self {
        let message = if gr.resource.is_empty() && name.is_empty() {
            format!("forbidden: {why}")
        } else if name.is_empty() {
            format!("{gr} is forbidden: {why}")
        } else {
            format!("{gr} {} is forbidden: {why}", go_quote(name))
        };
        Self::new(403, "Forbidden", message).about(gr, name)
    }
    /// 422 `Invalid`: the kind (not the resource), the name, and each field error as a cause, the first hundred at most.
    pub fn invalid(group: &str, kind: &str, name: &str, errors: &ErrorList) -> Self {
        let gk = GroupResource { group, resource: kind };
        let mut status = Self::new(
            422,
            "Invalid",
            format!("{gk} {} is invalid: {}", go_quote(name), field::aggregate(errors)),
        )
        .about(gk, name);
        if let Some(details) = &mut status.details {
            details.causes = errors
                .iter()
                .map(|e| Cause {
                    reason: e.kind.reason().into(),
                    message: e.body(),
                    field: e.field.to_string(),
                })
                .collect();
        }
        // Go's aggregate of no errors is nil, and then the message ends without a colon.
        if errors.is_empty() {
            status.message = format!("{gk} {} is invalid", go_quote(name));
        }
        status
    }
    /// 400 `BadRequest`.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }
    /// 401 `Unauthorized`.
    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }
    /// 405 `MethodNotAllowed`.
    pub fn method_not_allowed() -> Self {
        let mut status = Self::new(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        );
        status.details = Some(Box::default());
        status
    }
    /// 405 for a verb that a resource does not have (`NewMethodNotSupported`).
    pub fn method_not_supported(gr: GroupResource<'_>, action: &str) -> Self {
        Self::new(
            405,
            "MethodNotAllowed",
            format!("{action} is not supported on resources of kind {}", go_quote(&gr.to_string())),
        )
        .about(gr, "")
    }
    /// 406 `NotAcceptable`.
    pub fn not_acceptable(message: impl Into<String>) -> Self {
        Self::new(406, "NotAcceptable", message)
    }
    /// 415 `UnsupportedMediaType`.
    pub fn unsupported_media_type(message: impl Into<String>) -> Self {
        Self::new(415, "UnsupportedMediaType", message)
    }
    /// 413 `RequestEntityTooLarge`.
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(413, "RequestEntityTooLarge", message)
    }
    /// 410 `Expired`: a resource version or continue token that is too old.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }
    /// 504 `Timeout`.
    pub fn timeout(message: impl Into<String>) -> Self {
        Self::new(504, "Timeout", message)
    }
    /// 429 `TooManyRequests`, with how many seconds to wait (`NewTooManyRequests`).
    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        let mut status = Self::new(429, "TooManyRequests", message);
        let details = Details { retry_after_seconds, ..Details::default() };
        status.details = Some(Box::new(details));
        status
    }
    /// 500 `InternalError`: something in the server failed. Never put a secret in `why`.
    pub fn internal(why: impl fmt::Display) -> Self {
        let mut status = Self::new(500, "InternalError", format!("Internal error occurred: {why}"));
        status.details = Some(Box::new(Details {
            causes: vec![Cause { message: why.to_string(), ..Cause::default() }],
            ..Details::default()
        }));
        status
    }
    /// 500 without a reason: how kube-apiserver reports errors that carry no status of their own.
    pub fn plain_error(message: impl Into<String>) -> Self {
        Self::new(500, "", message)
    }
    /// The body of the answer: a `Status` of `v1`. Members that are empty are left out, but for `metadata`, which Go writes as
    /// an empty object because it is a struct without `omitempty`.
    pub fn to_json(&self) -> Value {
        let mut out = Map::new();
        out.insert("kind".into(), "Status".into());
        out.insert("apiVersion".into(), "v1".into());
        out.insert("metadata".into(), json!({}));
        out.insert("status".into(), "Failure".into());
        if !self.message.is_empty() {
            out.insert("message".into(), self.message.clone().into());
        }
        if !self.reason.is_empty() {
            out.insert("reason".into(), self.reason.into());
        }
        if let Some(details) = &self.details {
            out.insert("details".into(), details.to_json());
        }
        out.insert("code".into(), self.code.into());
        out.into()
    }
}

impl Details {
    /// The member `details` of a `Status`.
    pub fn to_json(&self) -> Value {
        let mut out = Map::new();
        for (key, text) in
            [("name", &self.name), ("group", &self.group), ("kind", &self.kind), ("uid", &self.uid)]
        {
            if !text.is_empty() {
                out.insert(key.into(), text.clone().into());
            }
        }
        if !self.causes.is_empty() {
            let causes = self.causes.iter().map(Cause::to_json).collect::<Vec<_>>();
            out.insert("causes".into(), causes.into());
        }
        if self.retry_after_seconds > 0 {
            out.insert("retryAfterSeconds".into(), self.retry_after_seconds.into());
        }
        out.into()
    }
}

impl Cause {
    fn to_json(&self) -> Value {
        let mut out = Map::new();
        for (key, text) in [("reason", &self.reason), ("message", &self.message), ("field", &self.field)] {
            if !text.is_empty() {
                out.insert(key.into(), text.clone().into());
            }
        }
        out.into()
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.code, self.reason, self.message)
    }
}

impl std::error::Error for Status {}
