//! What a request wants to do, as authorization sees it.

use fleetpass_apimachinery::user::UserInfo;
use std::borrow::Cow;

/// What a request wants to do (`k8s.io/apiserver/pkg/authorization/authorizer.Attributes`).
#[derive(Debug, Clone)]
pub struct Attributes<'a> {
    /// Who asks.
    // Nearly always borrowed from the request; impersonation asks about a user that it has changed.
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

impl<'a> Attributes<'a> {
    /// A request for a resource, of any version, at the cluster scope, without a name.
    pub fn resource(user: &'a UserInfo, verb: &'a str, group: &'a str, resource: &'a str) -> Self {
        Self {
            user: Cow::Borrowed(user),
            verb,
            resource_request: true,
            group,
            // Rules have no versions, so a question that is not about one request is about all of them.
            version: "*",
            resource,
            subresource: "",
            namespace: "",
            name: "",
            path: "",
        }
    }
    /// A request for a path that is no resource; `verb` is the lower-case HTTP method.
    pub fn path(user: &'a UserInfo, verb: &'a str, path: &'a str) -> Self {
        Self { resource_request: false, version: "", path, ..Self::resource(user, verb, "", "") }
    }
    /// The same in a namespace; empty for the cluster scope.
    pub fn in_namespace(self, namespace: &'a str) -> Self {
        Self { namespace, ..self }
    }
    /// The same for one object; empty for all.
    pub fn named(self, name: &'a str) -> Self {
        Self { name, ..self }
    }
    /// The same for a subresource; empty for the resource itself.
    pub fn of_subresource(self, subresource: &'a str) -> Self {
        Self { subresource, ..self }
    }
    /// The same in one API version.
    pub fn of_version(self, version: &'a str) -> Self {
        Self { version, ..self }
    }
}
