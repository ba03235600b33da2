//! A request as RBAC names it: which verb on which resource.

use http::Method;
use std::fmt;

/// What is asked of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    /// The verb of RBAC.
    pub(crate) verb: &'static str,
    /// The resource of RBAC with its group: `serviceaccounts/token`, `leases.coordination.k8s.io`; a path that names none
    /// as it is.
    pub(crate) resource: String,
    /// The namespace.
    pub(crate) namespace: Option<String>,
    /// The object's name, if it is about one.
    pub(crate) object: Option<String>,
    /// Whether the agent does without if it is refused.
    optional: bool,
}

impl Call {
    /// The call that such a request is: the rules of kube-apiserver (`k8s.io/apiserver/pkg/endpoints/request/requestinfo.go`)
    /// as far as the agent's requests go.
    pub(crate) fn of(method: &Method, path: &str, query: Option<&str>) -> Self {
        let mut parts = path.trim_matches('/').split('/');
        let group = match parts.next() {
            Some("api") => Some(None),
            Some("apis") => parts.next().map(Some),
            _ => None,
        };
        let (Some(group), Some(_version)) = (group, parts.next()) else {
            return Self {
                verb: verb(method, true, query),
                resource: path.to_owned(),
                namespace: None,
                object: None,
                optional: false,
            };
        };
        let rest: Vec<&str> = parts.collect();
        let (namespace, rest) = match rest.as_slice() {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some(*namespace), rest),
            rest => (None, rest),
        };
        let object = rest.get(1).map(|name| (*name).to_owned());
        let mut resource = rest.first().copied().unwrap_or(path).to_owned();
        if let Some(group) = group {
            resource = format!("{resource}.{group}");
        }
        if let Some(subresource) = rest.get(2) {
            resource = format!("{resource}/{subresource}");
        }
        Self {
            verb: verb(method, object.is_some(), query),
            resource,
            namespace: namespace.map(str::to_owned),
            object,
            optional: false,
        }
    }

    /// The same, about this object: the name of one that is created is only in its body.
    pub(crate) fn about(mut self, object: &str) -> Self {
        self.object.get_or_insert_with(|| object.to_owned());
        self
    }

    /// The same, of which the agent can do without: a refusal is an answer.
    pub(crate) fn optional(mut self) -> Self {
        self.optional = true;
        self
    }

    /// Whether a refusal is an answer.
    pub(crate) fn is_optional(&self) -> bool {
        self.optional
    }

    /// Whether it is the same verb on the same resource, of whichever object.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        self.verb == other.verb && self.resource == other.resource && self.namespace == other.namespace
    }

    /// Whether what a server says about it may quote a token or a Secret: it may quote what it was sent.
    pub(crate) fn is_sensitive(&self) -> bool {
        match self.resource.as_str() {
            "secrets" => !matches!(self.verb, "list" | "watch"),
            "serviceaccounts/token" | "tokenreviews.authentication.k8s.io" => true,
            _ => false,
        }
    }
}

fn verb(method: &Method, named: bool, query: Option<&str>) -> &'static str {
    let watches = || {
        query.is_some_and(|query| {
            query.split('&').any(|pair| matches!(pair, "watch=true" | "watch=1" | "watch"))
        })
    };
    match *method {
        Method::GET | Method::HEAD if watches() => "watch",
        Method::GET | Method::HEAD if named => "get",
        Method::GET | Method::HEAD => "list",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE if named => "delete",
        Method::DELETE => "deletecollection",
        _ => "use",
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.resource)?;
        match &self.namespace {
            Some(namespace) => write!(f, " in namespace {namespace}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_called_as_rbac_does() {
        let rows = [
            (Method::GET, "/api/v1/namespaces/c1/secrets", None, "list secrets in namespace c1", None),
            (
                Method::GET,
                "/api/v1/namespaces/c1/secrets",
                Some("watch=true&resourceVersion=1"),
                "watch secrets in namespace c1",
                None,
            ),
            (Method::GET, "/api/v1/namespaces/c1/secrets/a", None, "get secrets in namespace c1", Some("a")),
            (
                Method::POST,
                "/api/v1/namespaces/n/serviceaccounts/a/token",
                None,
                "create serviceaccounts/token in namespace n",
                Some("a"),
            ),
            (
                Method::POST,
                "/apis/authentication.k8s.io/v1/tokenreviews",
                None,
                "create tokenreviews.authentication.k8s.io",
                None,
            ),
            (
                Method::PATCH,
                "/apis/x.io/v1beta1/namespaces/c1/managedserviceaccounts/a/status",
                None,
                "patch managedserviceaccounts.x.io/status in namespace c1",
                Some("a"),
            ),
            (
                Method::DELETE,
                "/api/v1/namespaces/c1/secrets/a",
                None,
                "delete secrets in namespace c1",
                Some("a"),
            ),
            (Method::GET, "/api/v1/namespaces/c1", None, "get namespaces", Some("c1")),
            (Method::GET, "/version", None, "get /version", None),
        ];
        for (method, path, query, text, object) in rows {
            let call = Call::of(&method, path, query);
            assert_eq!(call.to_string(), text);
            assert_eq!(call.object.as_deref(), object, "{text}");
        }
    }

    #[test]
    fn what_carries_tokens_is_sensitive() {
        let secret = Call::of(&Method::POST, "/api/v1/namespaces/c1/secrets", None);
        assert!(secret.is_sensitive());
        // Of a list only the metadata is asked for.
        assert!(!Call::of(&Method::GET, "/api/v1/namespaces/c1/secrets", None).is_sensitive());
        assert!(Call::of(&Method::POST, "/apis/authentication.k8s.io/v1/tokenreviews", None).is_sensitive());
        assert!(!Call::of(&Method::GET, "/api/v1/namespaces/n/serviceaccounts/a", None).is_sensitive());
    }
}
