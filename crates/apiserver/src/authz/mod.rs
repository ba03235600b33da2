//! Authorization: *may this user do that?* Rules without I/O.

use crate::user::UserInfo;
use std::borrow::Cow;

/// What a request wants to do (`k8s.io/apiserver/pkg/authorization/authorizer.Attributes`).
#[derive(Debug, Clone)]
pub struct Attributes<'a> {
    /// Who asks.
    pub user: Cow<'a, UserInfo>,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`, or any other; the
    /// lower-case HTTP method for paths that are no resources.
    pub verb: &'a str,
    /// False for paths such as `/version`; then only `path` counts.
    pub resource_request: bool,
    /// The API group; empty for core.
    pub group: &'a str,
    /// The API version.
    pub version: &'a str,
    /// The plural resource name.
    pub resource: &'a str,
    /// The subresource, or empty.
    pub subresource: &'a str,
    /// The namespace, or empty.
    pub namespace: &'a str,
    /// The object's name, or empty.
    pub name: &'a str,
    /// The request path.
    pub path: &'a str,
}

/// The answer of an authorizer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Whether the request may go on. Deny by default.
    pub allowed: bool,
    /// Why, as SubjectAccessReview prints it (`RBAC: allowed by …`); may be empty.
    pub reason: String,
    /// What went wrong while deciding, such as a binding whose role is missing; may be empty.
    pub evaluation_error: String,
}

/// Decides. The server cannot be built without one.
pub trait Authorizer: Send + Sync + 'static {
    /// May `attributes.user` do this? Looks only at memory; never blocks.
    fn authorize(&self, attributes: &Attributes<'_>) -> Decision;
}

impl Authorizer for std::sync::Arc<dyn Authorizer> {
    fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        (**self).authorize(attributes)
    }
}
