//! Paths and a media type of the ManagedServiceAccount document that no real server has.
//!
//! The API document of Red Hat's multicluster engine prints paths below `/kubernetes/apis`, the spelling
//! `/apis/multicluster.openshift.io/v1alpha1/ManagedServiceAccounts` for POST and
//! `/cluster.open-cluster-management.io/v1alpha1/namespaces/{namespace}/managedserviceaccounts/{name}` for GET and
//! DELETE, and sends bodies as `managedserviceaccount/yaml`. A client that follows it to the letter should work, so
//! each of these paths is mapped to the real one. A path that a real server has is never changed.

/// The media type that the document gives to YAML bodies.
pub const MEDIA_TYPE: &str = "managedserviceaccount/yaml";

/// The API group of ManagedServiceAccounts, whose document this is.
pub const GROUP: &str = "authentication.open-cluster-management.io";

const COLLECTION: &str = "/apis/multicluster.openshift.io/v1alpha1/ManagedServiceAccounts";
const ITEMS: &str = "/cluster.open-cluster-management.io/v1alpha1/namespaces/";
const RESOURCE: &str = "/managedserviceaccounts";
const REAL: &str = "/apis/authentication.open-cluster-management.io/v1alpha1";

/// Where an alias leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Alias {
    /// To this path.
    Path(String),
    /// To the collection of the namespace that the body names (POST without a namespace in the path): the path cannot be known
    /// before the body is read.
    NamespaceInBody,
}

/// What the path stands for; `None` for all paths that are no alias.
pub fn resolve(method: &str, path: &str) -> Option<Alias> {
    if let Some(rest) = path.strip_prefix("/kubernetes/apis/") {
        let real = format!("/apis/{rest}");
        return Some(resolve(method, &real).unwrap_or(Alias::Path(real)));
    }
    let path = path.trim_end_matches('/');
    if path == COLLECTION && method == "POST" {
        return Some(Alias::NamespaceInBody);
    }
    let rest = path.strip_prefix("/apis").unwrap_or(path).strip_prefix(ITEMS)?;
    let (namespace, rest) = rest.split_once('/')?;
    let name = rest.strip_prefix(&RESOURCE[1..])?;
    let item = name.is_empty() || (name.starts_with('/') && !name[1..].is_empty());
    item.then(|| Alias::Path(format!("{REAL}/namespaces/{namespace}{RESOURCE}{name}")))
}

/// The collection of all namespaces: what is asked for while the namespace is not known.
pub(crate) fn collection_of_all() -> String {
    format!("{REAL}{RESOURCE}")
}

/// The collection of a namespace.
pub fn collection(namespace: &str) -> String {
    format!("{REAL}/namespaces/{namespace}{RESOURCE}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_lead_to_real_paths() {
        let path = |p: &str| Some(Alias::Path(p.into()));
        let item =
            "/apis/authentication.open-cluster-management.io/v1alpha1/namespaces/c/managedserviceaccounts/a";
        for (method, alias, want) in [
            ("POST", COLLECTION, Some(Alias::NamespaceInBody)),
            (
                "POST",
                "/kubernetes/apis/multicluster.openshift.io/v1alpha1/ManagedServiceAccounts",
                Some(Alias::NamespaceInBody),
            ),
            ("GET", COLLECTION, None),
            (
                "GET",
                "/cluster.open-cluster-management.io/v1alpha1/namespaces/c/managedserviceaccounts/a",
                path(item),
            ),
            (
                "DELETE",
                "/kubernetes/apis/cluster.open-cluster-management.io/v1alpha1/namespaces/c/managedserviceaccounts/a",
                path(item),
            ),
            ("GET", "/kubernetes/apis/apps/v1", path("/apis/apps/v1")),
            ("GET", item, None),
            ("GET", "/api/v1/namespaces", None),
        ] {
            assert_eq!(resolve(method, alias), want, "{method} {alias}");
        }
    }
}
