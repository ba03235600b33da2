//! Discovery documents: which groups, versions and resources there are, plain and aggregated.
//! (`k8s.io/apiserver/pkg/endpoints/discovery`). No I/O.
//!
//! Documents are made when somebody asks for them and kept with what they describe: those of a group with the group, which a
//! change of another group leaves as it is; those of all groups with the table.

use crate::cache;
use crate::catalog::{Group, Kinds, Row};
use crate::resources::customresources::compare_versions;
use base64::Engine;
use bytes::Bytes;
use fleetpass_apimachinery::gvk::api_version;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

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

/// A document with its JSON text: clients that do not read their answers share the bytes.
pub(crate) struct Document {
    pub(crate) value: Value,
    /// With a line break at the end.
    pub(crate) json: Bytes,
}

impl Document {
    /// A document of this value.
    pub(crate) fn new(value: Value) -> Arc<Self> {
        let mut json = cache::encode(&value);
        json.push(b'\n');
        Arc::new(Self { value, json: json.into() })
    }
}

/// The documents of one group, each made when somebody asks for it first. They belong to a group that does not change, so they
/// are never stale; with the next change of its kinds there is another group.
#[derive(Default)]
pub(crate) struct GroupDocuments {
    /// The versions, the preferred one first.
    versions: OnceLock<Vec<String>>,
    group: OnceLock<Arc<Document>>,
    /// The lists of resources, by version.
    resources: OnceLock<BTreeMap<String, OnceLock<Arc<Document>>>>,
    /// The group in the aggregated document, as JSON text.
    aggregated: OnceLock<Box<str>>,
}

/// The documents of all groups together. They are made of those of the groups.
#[derive(Default)]
pub(crate) struct Documents {
    groups: OnceLock<Arc<Document>>,
    /// The aggregated documents: core and others, `v2` and `v2beta1`.
    aggregated: [OnceLock<Bytes>; 4],
}

impl Group {
    /// The versions of its kinds, the preferred one first: the most stable, then the highest.
    fn versions(&self) -> &[String] {
        self.documents.versions.get_or_init(|| {
            let names: BTreeSet<&String> =
                self.rows().flat_map(|row| &row.resource.versions).map(|v| &v.name).collect();
            let mut versions: Vec<String> = names.into_iter().cloned().collect();
            versions.sort_by(|a, b| compare_versions(b, a));
            versions
        })
    }
}

/// The groups of a table in discovery's order.
fn groups(kinds: &Kinds) -> Vec<(&str, &Group)> {
    let mut groups: Vec<_> = kinds.groups().map(|(name, group)| (name, &**group)).collect();
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
pub(crate) fn group_list(kinds: &Kinds) -> Arc<Document> {
    let made = kinds.documents().groups.get_or_init(|| {
        let groups = groups(kinds).into_iter().filter(|(name, _)| !name.is_empty());
        let groups: Vec<Value> = groups.map(|(name, group)| group_members(name, group.versions())).collect();
        Document::new(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}))
    });
    Arc::clone(made)
}

/// `/apis/GROUP`; `None` if there is no such group.
pub(crate) fn group(kinds: &Kinds, name: &str) -> Option<Arc<Document>> {
    let group = kinds.find_group(name)?;
    let made = group.documents.group.get_or_init(|| {
        let mut out = group_members(name, group.versions());
        out["kind"] = "APIGroup".into();
        out["apiVersion"] = "v1".into();
        Document::new(out)
    });
    Some(Arc::clone(made))
}

fn group_members(name: &str, versions: &[String]) -> Value {
    let all: Vec<Value> = versions
        .iter()
        .map(|version| json!({"groupVersion": api_version(name, version), "version": version}))
        .collect();
    json!({"name": name, "preferredVersion": all.first(), "versions": all})
}

/// `/api/v1` and `/apis/GROUP/VERSION`; `None` if nothing is served there.
pub(crate) fn resource_list(kinds: &Kinds, group: &str, version: &str) -> Option<Arc<Document>> {
    let there = kinds.find_group(group)?;
    let by_version = there
        .documents
        .resources
        .get_or_init(|| there.versions().iter().map(|version| (version.clone(), OnceLock::new())).collect());
    let made = by_version.get(version)?.get_or_init(|| {
        let rows = there.rows().filter(|row| row.version(version).is_some());
        let resources: Vec<Value> = rows.flat_map(|row| resources_of(row, version)).collect();
        let mut out = json!({"kind": "APIResourceList", "groupVersion": api_version(group, version),
            "resources": resources});
        // Real servers print the document of the core group without an `apiVersion`.
        if !group.is_empty() {
            out["apiVersion"] = "v1".into();
        }
        Document::new(out)
    });
    Some(Arc::clone(made))
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

/// The aggregated discovery document (`apidiscovery.k8s.io`) of `/api` (core) or of `/apis` (all others) as JSON text, in the
/// version `v2` or `v2beta1`. The texts of groups that did not change since it was made last are used again.
pub(crate) fn aggregated(kinds: &Kinds, core: bool, beta: bool) -> Bytes {
    let made = kinds.documents().aggregated[usize::from(core) * 2 + usize::from(beta)].get_or_init(|| {
        let version = if beta { "v2beta1" } else { "v2" };
        let groups = groups(kinds).into_iter().filter(|(name, _)| name.is_empty() == core);
        let items: Vec<&str> = groups.map(|(name, group)| aggregated_group(name, group)).collect();
        let mut text = format!(
            r#"{{"kind":"APIGroupDiscoveryList","apiVersion":"apidiscovery.k8s.io/{version}","metadata":{{}},"items":[{}]}}"#,
            items.join(",")
        );
        text.push('\n');
        text.into()
    });
    made.clone()
}

fn aggregated_group<'a>(name: &str, group: &'a Group) -> &'a str {
    group.documents.aggregated.get_or_init(|| {
        let mut metadata = Map::new();
        if !name.is_empty() {
            metadata.insert("name".into(), name.into());
        }
        let versions: Vec<Value> = group.versions().iter().map(|v| aggregated_version(group, v)).collect();
        json!({"metadata": metadata, "versions": versions}).to_string().into()
    })
}

fn aggregated_version(group: &Group, version: &str) -> Value {
    let rows = group.rows().filter(|row| row.version(version).is_some());
    let resources: Vec<Value> = rows.map(|row| aggregated_resource(row, version)).collect();
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
    use crate::catalog::Catalog;
    use crate::resources::{configmaps, customresources, secrets};

    /// The row of a CRD in one group.
    fn widgets(group: &str, short_name: &str) -> Arc<Row> {
        let names = json!({"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList",
            "shortNames": [short_name]});
        let definition = json!({"spec": {"group": group, "scope": "Namespaced", "names": names, "versions": [
                {"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}]},
            "status": {"acceptedNames": names, "conditions": [{"type": "Established", "status": "True"}]}});
        Arc::new(Row::new(customresources::row(&definition).expect("served").expect("established")))
    }

    #[test]
    fn a_change_of_one_group_makes_the_documents_of_that_group_and_of_all_together_anew() {
        let catalog = Catalog::new(vec![secrets::resource(), configmaps::resource()]);
        for group in ["a.example.com", "b.example.com"] {
            catalog.put_custom(&widgets(group, "w"));
        }
        let before = catalog.kinds();
        let again = catalog.kinds();
        let list = |kinds: &Kinds, group: &str| resource_list(kinds, group, "v1").expect("served");
        assert!(Arc::ptr_eq(&list(&before, "b.example.com"), &list(&again, "b.example.com")));
        assert!(Arc::ptr_eq(&group_list(&before), &group_list(&again)));
        let texts = |kinds: &Kinds| {
            ["a.example.com", "b.example.com"]
                .map(|name| aggregated_group(name, kinds.find_group(name).expect("a group")).as_ptr())
        };
        let whole = aggregated(&before, false, false);
        assert_eq!(whole.as_ptr(), aggregated(&again, false, false).as_ptr());
        let [a, b] = texts(&before);
        catalog.put_custom(&widgets("a.example.com", "x"));
        let after = catalog.kinds();
        assert!(Arc::ptr_eq(&list(&before, "b.example.com"), &list(&after, "b.example.com")));
        assert!(!Arc::ptr_eq(&list(&before, "a.example.com"), &list(&after, "a.example.com")));
        let text = aggregated(&after, false, false);
        assert!(text != whole && std::str::from_utf8(&text).is_ok_and(|text| text.contains(r#"["x"]"#)));
        let [changed, unchanged] = texts(&after);
        assert!(changed != a && unchanged == b);
        // A group that is gone has no documents.
        catalog.remove_custom("a.example.com", "widgets");
        let kinds = catalog.kinds();
        assert!(
            group(&kinds, "a.example.com").is_none()
                && resource_list(&kinds, "a.example.com", "v1").is_none()
        );
        assert!(resource_list(&kinds, "b.example.com", "v2").is_none());
    }

    #[test]
    fn the_aggregated_document_is_what_the_encoder_of_objects_writes() {
        let catalog = Catalog::new(vec![secrets::resource()]);
        catalog.put_custom(&widgets("a.example.com", "w"));
        for (core, beta) in [(false, false), (true, false), (false, true), (true, true)] {
            let text = aggregated(&catalog.kinds(), core, beta);
            let value: Value = serde_json::from_slice(&text).expect("JSON");
            assert_eq!(Document::new(value).json, text);
        }
    }

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
