//! Which resources a server has: the preferred version of each, found by aggregated discovery where the server has it
//! and by one request per group version where it does not.
//!
//! The choice of versions is that of `ServerPreferredResources` in `staging/src/k8s.io/client-go/discovery`.

use crate::Error;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{APIGroup, APIResourceList};
use kube::Client;
use kube::core::ApiResource;
use kube::core::discovery::v2::{ACCEPT_AGGREGATED_DISCOVERY_V2, APIGroupDiscovery};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A resource of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ResourceType {
    /// Its names.
    pub(crate) api: ApiResource,
    /// Whether its objects live in namespaces.
    pub(crate) namespaced: bool,
    verbs: BTreeSet<String>,
}

impl ResourceType {
    /// Whether the server offers all these verbs.
    pub(crate) fn can(&self, verbs: &[&str]) -> bool {
        verbs.iter().all(|verb| self.verbs.contains(*verb))
    }

    /// Whether this is the resource `plural` of `group`.
    pub(crate) fn is(&self, group: &str, plural: &str) -> bool {
        self.api.group == group && self.api.plural == plural
    }

    /// A resource for a test.
    #[cfg(test)]
    pub(crate) fn of(group: &str, kind: &str, plural: &str, namespaced: bool) -> Self {
        let version = kube::core::GroupVersionKind::gvk(group, "v1", kind);
        let verbs = ["delete", "deletecollection", "get", "list", "patch", "watch"];
        Self {
            api: ApiResource::from_gvk_with_plural(&version, plural),
            namespaced,
            verbs: verbs.map(String::from).into(),
        }
    }
}

/// What a server has, as far as it could be found out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Discovered {
    /// One entry for each resource of each group.
    pub(crate) resources: Vec<Arc<ResourceType>>,
    /// The group versions that did not answer, with the reason.
    pub(crate) failed: BTreeMap<String, String>,
}

impl Discovered {
    /// The resource whose objects have this group and kind.
    pub(crate) fn kind(&self, group: &str, kind: &str) -> Option<&Arc<ResourceType>> {
        self.resources.iter().find(|resource| resource.api.group == group && resource.api.kind == kind)
    }

    /// Why the picture is incomplete, in the words of client-go (`ErrGroupDiscoveryFailed`); none if it is complete.
    pub(crate) fn failure(&self) -> Option<String> {
        if self.failed.is_empty() {
            return None;
        }
        let failed: Vec<_> = self.failed.iter().map(|(version, why)| format!("{version}: {why}")).collect();
        Some(format!("unable to retrieve the complete list of server APIs: {}", failed.join(", ")))
    }
}

/// Asks the server for its resources. A group version that does not answer is told in [`Discovered::failed`].
///
/// # Errors
/// When the lists of groups themselves cannot be had.
pub(crate) async fn discover(client: &Client) -> Result<Discovered, Error> {
    let mut versions = Vec::new();
    for path in ["/api", "/apis"] {
        let document: Document = client.request(get(path, ACCEPT_AGGREGATED_DISCOVERY_V2)?).await?;
        // A server without aggregated discovery answers with what it has there: a list of groups, or of versions.
        if document.kind == "APIGroupDiscoveryList" {
            versions.extend(document.items.into_iter().flat_map(aggregated));
            continue;
        }
        let core = document.versions.into_iter().map(|version| (String::new(), version));
        let groups = document.groups.into_iter().flat_map(by_preference);
        for (group, version) in core.chain(groups) {
            let path =
                if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
            // One that does not answer says nothing about the others: an aggregated server may be down.
            let answer = client.request::<APIResourceList>(get(&path, "application/json")?).await;
            let resources = answer.map(|list| classic(&group, &version, list)).map_err(|error| match error {
                kube::Error::Api(status) => status.message,
                other => other.to_string(),
            });
            versions.push(Version { group, version, resources });
        }
    }
    Ok(prefer(versions))
}

fn get(path: &str, accept: &str) -> Result<http::Request<Vec<u8>>, Error> {
    let request = http::Request::get(path).header(http::header::ACCEPT, accept).body(Vec::new());
    Ok(request.map_err(kube::Error::HttpError)?)
}

/// Any of the documents at `/api` and `/apis`.
#[derive(Debug, Deserialize)]
struct Document {
    kind: String,
    #[serde(default)]
    items: Vec<APIGroupDiscovery>,
    #[serde(default)]
    groups: Vec<APIGroup>,
    #[serde(default)]
    versions: Vec<String>,
}

/// A group version and its resources, or why they are not known.
struct Version {
    group: String,
    version: String,
    resources: Result<Vec<ResourceType>, String>,
}

fn aggregated(group: APIGroupDiscovery) -> Vec<Version> {
    let name = group.metadata.and_then(|metadata| metadata.name).unwrap_or_default();
    let version = |version: kube::core::discovery::v2::APIVersionDiscovery| {
        let number = version.version.unwrap_or_default();
        // The server repeats what an aggregated server said before it stopped answering. It may be outdated.
        let resources = if version.freshness.as_deref() == Some("Stale") {
            Err(format!("stale GroupVersion discovery: {}", api_version(&name, &number)))
        } else {
            let resources = version.resources.into_iter();
            Ok(resources
                .filter_map(|resource| {
                    let kind = resource.response_kind?.kind?;
                    let scope = resource.scope? == "Namespaced";
                    Some(resource_type(&name, &number, kind, resource.resource?, scope, resource.verbs))
                })
                .collect())
        };
        Version { group: name.clone(), version: number, resources }
    };
    group.versions.into_iter().map(version).collect()
}

/// The versions of a group, the preferred one first.
fn by_preference(group: APIGroup) -> Vec<(String, String)> {
    let preferred = group.preferred_version.map(|preferred| preferred.version);
    let mut versions: Vec<_> = group.versions.into_iter().map(|version| version.version).collect();
    versions.sort_by_key(|version| Some(version) != preferred.as_ref());
    versions.into_iter().map(|version| (group.name.clone(), version)).collect()
}

fn classic(group: &str, version: &str, list: APIResourceList) -> Vec<ResourceType> {
    // `pods/log` and the like are subresources: nothing that could be listed.
    let resources = list.resources.into_iter().filter(|resource| !resource.name.contains('/'));
    resources
        .map(|resource| {
            resource_type(group, version, resource.kind, resource.name, resource.namespaced, resource.verbs)
        })
        .collect()
}

fn resource_type(
    group: &str,
    version: &str,
    kind: String,
    plural: String,
    namespaced: bool,
    verbs: Vec<String>,
) -> ResourceType {
    let api_version = api_version(group, version);
    let api = ApiResource { group: group.into(), version: version.into(), api_version, kind, plural };
    ResourceType { api, namespaced, verbs: verbs.into_iter().collect() }
}

fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.into() } else { format!("{group}/{version}") }
}

/// Each resource once, in the first version that has it; versions come in the order of preference.
fn prefer(versions: Vec<Version>) -> Discovered {
    let mut found = Discovered::default();
    let mut seen = BTreeSet::new();
    for version in versions {
        match version.resources {
            Err(why) => {
                found.failed.insert(api_version(&version.group, &version.version), why);
            }
            Ok(resources) => {
                for resource in resources {
                    // By group and plural, whatever the version: each is one set of objects.
                    if seen.insert((resource.api.group.clone(), resource.api.plural.clone())) {
                        found.resources.push(Arc::new(resource));
                    }
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mock::{Answer, server};
    use serde_json::json;

    fn names(found: &Discovered) -> Vec<String> {
        let name = |r: &Arc<ResourceType>| format!("{} {} {}", r.api.api_version, r.api.plural, r.namespaced);
        found.resources.iter().map(name).collect()
    }

    #[tokio::test]
    async fn aggregated_documents_give_the_preferred_version_of_each_resource() {
        let resource = |name: &str, kind: &str| {
            json!({"resource": name, "scope": "Namespaced", "verbs": ["list"],
                "responseKind": {"group": "", "version": "", "kind": kind}})
        };
        let client = server(move |request| match request.path.as_str() {
            "/api" => Answer::ok(json!({"kind": "APIGroupDiscoveryList", "items": [
                {"metadata": {}, "versions": [{"version": "v1", "resources": [resource("secrets", "Secret")]}]}]})),
            "/apis" => Answer::ok(json!({"kind": "APIGroupDiscoveryList", "items": [
                {"metadata": {"name": "a.io"}, "versions": [
                    {"version": "v2", "resources": [resource("as", "A")]},
                    {"version": "v1", "resources": [resource("as", "A"), resource("bs", "B")]}]},
                {"metadata": {"name": "gone.io"}, "versions": [{"version": "v1", "freshness": "Stale"}]}]})),
            _ => Answer::not_found(),
        });
        let found = discover(&client).await.unwrap();
        assert_eq!(names(&found), ["v1 secrets true", "a.io/v2 as true", "a.io/v1 bs true"]);
        assert_eq!(
            found.failure().unwrap(),
            "unable to retrieve the complete list of server APIs: gone.io/v1: stale GroupVersion discovery: gone.io/v1"
        );
        assert!(found.kind("a.io", "B").unwrap().can(&["list"]));
        assert!(!found.kind("a.io", "B").unwrap().can(&["list", "watch"]));
    }

    #[tokio::test]
    async fn servers_without_aggregated_discovery_are_asked_version_by_version() {
        let client = server(|request| match request.path.as_str() {
            "/api" => Answer::ok(
                json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}),
            ),
            "/api/v1" => Answer::ok(json!({"kind": "APIResourceList", "groupVersion": "v1", "resources": [
                {"name": "namespaces", "singularName": "", "namespaced": false, "kind": "Namespace", "verbs": ["get"]},
                {"name": "namespaces/status", "singularName": "", "namespaced": false, "kind": "Namespace", "verbs": []}
            ]})),
            "/apis" => Answer::ok(json!({"kind": "APIGroupList", "groups": [{"name": "a.io",
                "preferredVersion": {"groupVersion": "a.io/v2", "version": "v2"},
                "versions": [{"groupVersion": "a.io/v1", "version": "v1"}, {"groupVersion": "a.io/v2", "version": "v2"}]
            }]})),
            "/apis/a.io/v2" => Answer::ok(json!({"groupVersion": "a.io/v2", "resources": [
                {"name": "as", "singularName": "a", "namespaced": true, "kind": "A", "verbs": ["get"]}]})),
            _ => Answer::not_found(),
        });
        let found = discover(&client).await.unwrap();
        assert_eq!(names(&found), ["v1 namespaces false", "a.io/v2 as true"]);
        assert_eq!(found.failed.keys().collect::<Vec<_>>(), ["a.io/v1"]);
    }
}
