//! An authorized request, as handlers see it.

use crate::audit::event::Notes;
use fleetpass_apimachinery::user::UserInfo;
use fleetpass_apimachinery::{Query, RequestInfo};
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderName, Method};
use jiff::Timestamp;
use std::sync::Arc;
use tokio::time::Instant;

/// A request whose user is known and that the user may make: what every handler is given.
pub(super) struct RequestContext {
    pub(super) info: RequestInfo,
    pub(super) query: Query,
    pub(super) method: Method,
    /// Without the `Impersonate-` headers, which have had their effect.
    pub(super) headers: HeaderMap,
    /// After impersonation.
    pub(super) user: Arc<UserInfo>,
    /// When the request came. All that is done for it uses this one moment.
    pub(super) now: Timestamp,
    /// Until when all of the answer has to be made, and a list sent.
    pub(super) deadline: Instant,
    /// What handlers add to the request's audit event.
    pub(super) notes: Arc<Notes>,
}

impl RequestContext {
    /// A header as text; what is no text is taken as absent.
    pub(super) fn header(&self, name: HeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub(super) fn accept(&self) -> Option<&str> {
        self.header(ACCEPT)
    }

    pub(super) fn content_type(&self) -> Option<&str> {
        self.header(CONTENT_TYPE)
    }

    pub(super) fn user_agent(&self) -> &str {
        self.header(USER_AGENT).unwrap_or_default()
    }
}
