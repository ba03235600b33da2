//! Discovery documents: which groups, versions and resources there are, plain and aggregated.
//! (`k8s.io/apiserver/pkg/endpoints/discovery`). No I/O.

use crate::catalog::{Kinds, Row};
use crate::resources::customresources::compare_versions;
use base64::Engine;
use fleetpass_apimachinery::gvk::api_version;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// The order in which built-in groups are listed: that of their priorities in a real server
/// (`DefaultGenericAPIServicePriorities` in `pkg/controlplane/apiserver/aggregator.go`); custom groups follow by name. Clients
/// see it: of two groups that have `events`, kubectl takes the first.
const GROUP_ORDER: &[&str] = &[
    "",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "certificates.k8s.io",
    "rbac.authorization.k8s.io",
    "apiextensions.k8s.io",
    "coordination.k8s.io",
];

/// The groups of a table in discovery's order, each with its versions, the preferred one first.
fn groups(kinds: &Kinds) -> Vec<(String, Vec<String>)> {
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    for row in kinds.rows() {
        let name = &row.resource.group;
        let at = groups.iter().position(|(group, _)| group == name).unwrap_or_else(|| {
            groups.push((name.clone(), Vec::new()));
            groups.len() - 1
        });
        for version in &row.resource.versions {
            if !groups[at].1.contains(&version.name) {
                groups[at].1.push(version.name.clone());
            }
        }
    }
    // The first version is the preferred one: the most stable, then the highest.
    for (_, versions) in &mut groups {
        versions.sort_by(|a, b| compare_versions(b, a));
    }
    let rank = |name: &str| GROUP_ORDER.iter().position(|g| *g == name).unwrap_or(GROUP_ORDER.len());
    groups.sort_by(|(a, _), (b, _)| rank(a).cmp(&rank(b)).then_with(|| a.cmp(b)));
    groups
}

/// `/api`.
pub(crate) fn core_versions(server_address: &str) -> Value {
    json!({"kind": "APIVersions", "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": server_address}]})
}

/// `/apis`.
pub(crate) fn group_list(kinds: &Kinds) -> Value {
    let groups: Vec<Value> =
        groups(kinds).iter().filter(|(name, _)| !name.is_empty()).map(|(n, v)| group_members(n, v)).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/GROUP`; `None` if there is no such group.
pub(crate) fn group(kinds: &Kinds, name: &str) -> Option<Value> {
    let groups = groups(kinds);
    let (name, versions) = groups.iter().find(|(group, _)| group == name)?;
    let mut out = group_members(name, versions);
    out["kind"] = "APIGroup".into();
    out["apiVersion"] = "v1".into();
    Some(out)
}

fn group_members(name: &str, versions: &[String]) -> Value {
    let all: Vec<Value> = versions
        .iter()
        .map(|version| json!({"groupVersion": api_version(name, version), "version": version}))
        .collect();
    json!({"name": name, "preferredVersion": all.first(), "versions": all})
}

/// `/api/v1` and `/apis/GROUP/VERSION`; `None` if nothing is served there.
pub(crate) fn resource_list(kinds: &Kinds, group: &str, version: &str) -> Option<Value> {
    let rows: Vec<_> = kinds.group(group).filter(|row| row.version(version).is_some()).collect();
    if rows.is_empty() {
        return None;
    }
    let resources: Vec<Value> = rows.iter().flat_map(|row| resources_of(row, version)).collect();
    let mut out = json!({"kind": "APIResourceList", "groupVersion": api_version(group, version), "resources": resources});
    // Real servers print the document of the core group without an `apiVersion`.
    if !group.is_empty() {
        out["apiVersion"] = "v1".into();
    }
    Some(out)
}

fn resources_of(row: &Arc<Row>, version: &str) -> Vec<Value> {
    let resource = &row.resource;
    let mut main = json!({"name": resource.plural, "singularName": resource.singular,
        "namespaced": resource.namespaced, "kind": resource.kind, "verbs": resource.verbs});
    if !resource.short_names.is_empty() {
        main["shortNames"] = resource.short_names.clone().into();
    }
    if !resource.categories.is_empty() {
        main["categories"] = resource.categories.clone().into();
    }
    if row.strategy().is_some() {
        // Hashed with the group in which the objects are stored: the two Event kinds have the same hash.
        let stored = if resource.view.is_some() { "" } else { resource.group.as_str() };
        main["storageVersionHash"] =
            storage_version_hash(stored, &resource.storage_version, &resource.kind).into();
    }
    let mut out = vec![main];
    let mut subresources: Vec<_> = resource.subresources.iter().filter(|s| s.is_in(version)).collect();
    subresources.sort_by_key(|s| s.name);
    for sub in subresources {
        let mut entry = json!({"name": format!("{}/{}", resource.plural, sub.name), "singularName": "",
            "namespaced": resource.namespaced, "kind": resource.kind, "verbs": sub.verbs});
        if let Some((group, version, kind)) = sub.body {
            entry["group"] = group.into();
            entry["version"] = version.into();
            entry["kind"] = kind.into();
        }
        out.push(entry);
    }
    out
}

/// A hash by which clients see that objects are stored in another version
/// (`discovery.StorageVersionHash`: the first 8 bytes of the SHA-256 of `group/version/kind`).
fn storage_version_hash(group: &str, version: &str, kind: &str) -> String {
    let digest =
        aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, format!("{group}/{version}/{kind}").as_bytes());
    base64::engine::general_purpose::STANDARD.encode(&digest.as_ref()[..8])
}

/// The aggregated discovery document (`apidiscovery.k8s.io/v2`) of `/api` (core) or of `/apis` (all others).
pub(crate) fn aggregated(kinds: &Kinds, core: bool) -> Value {
    let items: Vec<Value> = groups(kinds)
        .iter()
        .filter(|(name, _)| name.is_empty() == core)
        .map(|(name, versions)| {
            let mut metadata = Map::new();
            if !name.is_empty() {
                metadata.insert("name".into(), name.clone().into());
            }
            let versions: Vec<Value> = versions.iter().map(|v| aggregated_version(kinds, name, v)).collect();
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
}

fn aggregated_version(kinds: &Kinds, group: &str, version: &str) -> Value {
    let resources: Vec<Value> = kinds
        .group(group)
        .filter(|row| row.version(version).is_some())
        .map(|row| aggregated_resource(row, version))
        .collect();
    json!({"version": version, "resources": resources, "freshness": "Current"})
}

fn aggregated_resource(row: &Arc<Row>, version: &str) -> Value {
    let resource = &row.resource;
    // Built-in kinds print an empty group and version where they are those of the enclosing document.
    let own = if resource.custom { (resource.group.as_str(), version) } else { ("", "") };
    let mut out = json!({"resource": resource.plural, "singularResource": resource.singular,
        "responseKind": {"group": own.0, "version": own.1, "kind": resource.kind},
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" }, "verbs": resource.verbs});
    if !resource.short_names.is_empty() {
        out["shortNames"] = resource.short_names.clone().into();
    }
    if !resource.categories.is_empty() {
        out["categories"] = resource.categories.clone().into();
    }
    let mut subresources: Vec<_> = resource.subresources.iter().filter(|s| s.is_in(version)).collect();
    subresources.sort_by_key(|s| s.name);
    if !subresources.is_empty() {
        let entries: Vec<Value> = subresources
            .iter()
            .map(|sub| {
                let (group, version, kind) = sub.body.unwrap_or((own.0, own.1, &resource.kind));
                json!({"subresource": sub.name, "verbs": sub.verbs,
                    "responseKind": {"group": group, "version": version, "kind": kind}})
            })
            .collect();
        out["subresources"] = entries.into();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_by_stability() {
        let mut versions =
            vec!["foo10", "v1", "v10beta3", "v3beta1", "v12alpha1", "v10", "v11alpha2", "foo1", "v2", "v0"];
        versions.sort_by(|a, b| compare_versions(b, a));
        assert_eq!(
            versions,
            ["v10", "v2", "v1", "v10beta3", "v3beta1", "v12alpha1", "v11alpha2", "foo1", "foo10", "v0",]
        );
    }

    #[test]
    fn storage_version_hashes_are_those_of_a_real_server() {
        assert_eq!(storage_version_hash("", "v1", "Secret"), "S6u1pOWzb84=");
        assert_eq!(storage_version_hash("", "v1", "Namespace"), "Q3oi5N2YM8M=");
        assert_eq!(storage_version_hash("rbac.authorization.k8s.io", "v1", "Role"), "7FuwZcIIItM=");
    }
}
