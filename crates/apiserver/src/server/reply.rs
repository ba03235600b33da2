//! Answers of handlers, before they are put on the wire.

use super::body::Content;
use bytes::Bytes;
use fleetpass_apimachinery::status::Status;
use http::header::RETRY_AFTER;
use http::{HeaderName, HeaderValue};

/// An answer before it is put on the wire.
pub(super) struct Reply {
    pub(super) code: u16,
    pub(super) content_type: &'static str,
    pub(super) body: Content,
    pub(super) warnings: Vec<String>,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
}

impl Reply {
    pub(super) fn new(code: u16, content_type: &'static str, bytes: impl Into<Bytes>) -> Self {
        Self {
            code,
            content_type,
            body: Content::Whole(bytes.into()),
            warnings: Vec::new(),
            headers: Vec::new(),
        }
    }

    pub(super) fn text(code: u16, text: impl Into<Bytes>) -> Self {
        let mut reply = Self::new(code, "text/plain; charset=utf-8", text);
        reply
            .headers
            .push((HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff")));
        reply
    }

    /// The plain 429 of a server that has enough to do.
    pub(super) fn too_many_requests() -> Self {
        let mut reply = Self::text(429, "Too many requests, please try again later.\n");
        reply.headers.push((RETRY_AFTER, HeaderValue::from_static("1")));
        reply
    }

    /// The plain 404 of a path that leads nowhere.
    pub(super) fn no_such_path() -> Self {
        Self::text(404, "404 page not found\n")
    }

    pub(super) fn warned(mut self, warnings: Vec<String>) -> Self {
        self.warnings = warnings;
        self
    }
}

/// Why a request failed, with the warnings that its answer carries nevertheless.
pub(super) struct Failure {
    pub(super) status: Status,
    pub(super) warnings: Vec<String>,
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self { status, warnings: Vec::new() }
    }
}
