//! Authorization: *may this user do that?* Rules without I/O.

pub mod aggregation;
pub mod bootstrap;
pub mod escalation;
pub mod impersonation;
pub mod messages;
pub mod rbac;
pub mod rule;
pub mod union;

pub use rule::PolicyRule;

use fleetpass_apimachinery::user::UserInfo;
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

impl<'a> Attributes<'a> {
    /// A request for a resource, of any version, at the cluster scope, without a name.
    pub fn resource(user: &'a UserInfo, verb: &'a str, group: &'a str, resource: &'a str) -> Self {
        Self {
            user: Cow::Borrowed(user),
            verb,
            resource_request: true,
            group,
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

/// The answer of an authorizer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Decision {
    /// Whether the request may go on. Deny by default.
    pub allowed: bool,
    /// Why, as SubjectAccessReview prints it (`RBAC: allowed by …`); may be empty.
    pub reason: String,
    /// What went wrong while deciding, such as a webhook that did not answer; may be empty. A binding whose role
    /// is missing is no such error: it is the `reason` of a refusal.
    pub evaluation_error: String,
}

impl Decision {
    /// Yes, for this reason.
    pub fn allow(reason: impl Into<String>) -> Self {
        Self { allowed: true, reason: reason.into(), evaluation_error: String::new() }
    }
    /// No, for this reason (often empty).
    pub fn refuse(reason: impl Into<String>) -> Self {
        Self { allowed: false, reason: reason.into(), evaluation_error: String::new() }
    }
}

/// The rules that apply to a user.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UserRules {
    /// Each of them holds, even if the list is not complete: rules only ever add.
    pub rules: Vec<PolicyRule>,
    /// Whether there may be more that could not be listed.
    pub incomplete: bool,
    /// What went wrong, such as bindings whose role is missing.
    pub errors: Vec<String>,
}

/// Decides. The server cannot be built without one.
pub trait Authorizer: Send + Sync + 'static {
    /// May `attributes.user` do this? Looks only at memory; never blocks.
    fn authorize(&self, attributes: &Attributes<'_>) -> Decision;

    /// All rules that apply to a user in a namespace (empty: only those that hold at the cluster scope). An
    /// authorizer that does not work with rules keeps this answer, which says that nothing is known.
    fn rules_for(&self, _user: &UserInfo, _namespace: &str) -> UserRules {
        UserRules { incomplete: true, ..UserRules::default() }
    }
}

impl Authorizer for std::sync::Arc<dyn Authorizer> {
    fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        (**self).authorize(attributes)
    }
    fn rules_for(&self, user: &UserInfo, namespace: &str) -> UserRules {
        (**self).rules_for(user, namespace)
    }
}

/// Joins messages as `utilerrors.NewAggregate` does: duplicates are dropped, more than one stand in brackets.
pub fn join_errors(errors: &[String]) -> String {
    let mut seen: Vec<&str> = Vec::new();
    for error in errors {
        if !seen.contains(&error.as_str()) {
            seen.push(error);
        }
    }
    match seen.as_slice() {
        [] => String::new(),
        [one] => (*one).into(),
        many => format!("[{}]", many.join(", ")),
    }
}
