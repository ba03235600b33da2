//! The worst requests that were found, each as large as a server reads (3 MiB) or as short as it takes.

use bytes::Bytes;
use serde_json::{Value, json};
use std::fmt::Write as _;

/// A request that costs a server much.
pub(super) struct Attack {
    /// What it is, for a table.
    pub(super) name: &'static str,
    pub(super) method: &'static str,
    /// With `{ns}` for the attacker's namespace, and `{n}` for a number that no other request has.
    pub(super) path: String,
    pub(super) content_type: &'static str,
    pub(super) accept: &'static str,
    /// As in `path`.
    pub(super) body: Bytes,
    /// Whether it is sent without credentials.
    pub(super) anonymous: bool,
    /// Whether the answer's body is not read, for a while.
    pub(super) unread: bool,
}

const JSON: &str = "application/json";
const MAX_BODY: usize = 3 * 1024 * 1024;
const CONFIG_MAP: &str = "/api/v1/namespaces/{ns}/configmaps/large";

impl Attack {
    fn new(
        name: &'static str,
        method: &'static str,
        path: &str,
        content_type: &'static str,
        body: Bytes,
    ) -> Self {
        Self {
            name,
            method,
            path: path.into(),
            content_type,
            accept: JSON,
            body,
            anonymous: false,
            unread: false,
        }
    }

    fn read(name: &'static str, path: &str, accept: &'static str) -> Self {
        Self { accept, ..Self::new(name, "GET", path, JSON, Bytes::new()) }
    }
}

/// All of them.
pub(super) fn all() -> Vec<Attack> {
    let maps = "/api/v1/namespaces/{ns}/configmaps";
    vec![
        Attack::new(
            "Role of 60 × 60 × 60",
            "POST",
            "/apis/rbac.authorization.k8s.io/v1/namespaces/{ns}/roles?dryRun=All",
            JSON,
            role(),
        ),
        Attack::new(
            "strategic patch, 150,000 finalizers",
            "PATCH",
            &format!("{CONFIG_MAP}?dryRun=All"),
            "application/strategic-merge-patch+json",
            finalizers(150_000),
        ),
        Attack::new(
            "JSON patch, 10,000 moves",
            "PATCH",
            &format!("{CONFIG_MAP}?dryRun=All"),
            "application/json-patch+json",
            moves(),
        ),
        Attack::new(
            "apply, 16,000 finalizers",
            "PATCH",
            &format!("{CONFIG_MAP}?dryRun=All&fieldManager=attacker&force=true"),
            "application/apply-patch+yaml",
            applied(16_000),
        ),
        Attack::new("YAML of 3 MiB", "POST", &format!("{maps}?dryRun=All"), "application/yaml", yaml()),
        Attack {
            anonymous: true,
            ..Attack::new(
                "YAML of 3 MiB, anonymous",
                "POST",
                "/apis/authentication.open-cluster-management.io/v1beta1/managedserviceaccounts",
                "application/yaml",
                yaml(),
            )
        },
        Attack::new("JSON of 3 MiB, many errors", "POST", &format!("{maps}?dryRun=All"), JSON, errors()),
        Attack::read(
            "list as metadata",
            maps,
            "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
        ),
        Attack::read("list as a Table", maps, "application/json;as=Table;g=meta.k8s.io;v=v1"),
        Attack::read("list as protobuf", maps, "application/vnd.kubernetes.protobuf"),
        Attack { unread: true, ..Attack::read("list, unread", maps, JSON) },
        Attack { unread: true, ..Attack::read("/openapi/v2, unread", "/openapi/v2", JSON) },
        Attack::new(
            "TokenReview of 2.7 MB",
            "POST",
            "/apis/authentication.k8s.io/v1/tokenreviews",
            JSON,
            review(),
        ),
        Attack::new(
            "CRD of 100 large patterns",
            "POST",
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions?dryRun=All",
            JSON,
            patterns(),
        ),
        Attack::new(
            "CRD of 2,000 rules",
            "POST",
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions?dryRun=All",
            JSON,
            rules(),
        ),
        Attack::new("object that grows", "PATCH", CONFIG_MAP, "application/merge-patch+json", growth()),
    ]
}

/// What an attacker finds in the namespace: `count` ConfigMaps of a kilobyte each are put there, and this one.
pub(super) fn large_object() -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "large", "finalizers": ["bench/hold"]},
        "data": {"key": "value"}})
}

fn bytes(value: &Value) -> Bytes {
    value.to_string().into()
}

fn role() -> Bytes {
    let names = |prefix: &str| (0..60).map(|n| format!("{prefix}{n}")).collect::<Vec<_>>();
    bytes(&json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "many"},
        "rules": [{"apiGroups": names("g"), "resources": names("r"), "verbs": names("v")}]}))
}

fn finalizer_names(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("t/{n:x}")).collect()
}

fn finalizers(count: usize) -> Bytes {
    bytes(&json!({"metadata": {"finalizers": finalizer_names(count)}}))
}

fn applied(count: usize) -> Bytes {
    let mut object = large_object();
    object["metadata"]["finalizers"] = finalizer_names(count).into();
    bytes(&object)
}

/// A list of 100,000 members, and as many moves within it as a server takes.
fn moves() -> Bytes {
    let list: Vec<usize> = (0..100_000).collect();
    let mut operations = vec![
        json!({"op": "add", "path": "/metadata/annotations", "value": {}}),
        json!({"op": "add", "path": "/list", "value": list}),
    ];
    let last = json!({"op": "move", "from": "/list/99999", "path": "/list/0"});
    operations.extend(std::iter::repeat_n(last, 9_998));
    bytes(&operations.into())
}

fn yaml() -> Bytes {
    let mut text = String::from("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: yaml\n  annotations:\n");
    let mut number = 0;
    while text.len() < MAX_BODY - 64 {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "    k{number:x}: v");
        number += 1;
    }
    text.into()
}

fn errors() -> Bytes {
    let mut text =
        String::from(r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"json"},"data":{"#);
    let mut number = 0;
    while text.len() < MAX_BODY - 64 {
        let _ = write!(text, "\"!{number:x}\":\"\",");
        number += 1;
    }
    text.push_str("\"last\":\"\"}}");
    text.into()
}

fn review() -> Bytes {
    bytes(&json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
        "spec": {"token": format!("{{n}}.{}.{}", "a".repeat(2_700_000), "b".repeat(300))}}))
}

fn definition(name: &str, schema: &Value) -> Bytes {
    let plural = format!("{name}s");
    bytes(&json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.bench.example.com")},
        "spec": {"group": "bench.example.com", "scope": "Namespaced",
            "names": {"plural": plural, "singular": name, "kind": name},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]}}))
}

fn patterns() -> Bytes {
    let properties: serde_json::Map<_, _> = (0..100)
        .map(|n| {
            let pattern = format!(r"^(?:[\p{{L}}\p{{N}}]{{0,{}}}){{0,3}}$", 200 + n);
            (format!("f{n}"), json!({"type": "string", "pattern": pattern}))
        })
        .collect();
    definition("pattern", &json!({"type": "object", "properties": properties}))
}

fn rules() -> Bytes {
    let rules: Vec<_> =
        (0..2_000).map(|n| json!({"rule": format!("self.metadata.name.matches('^(a|b|c)*{n}$')")})).collect();
    definition("rule", &json!({"type": "object", "properties": {}, "x-kubernetes-validations": rules}))
}

/// Another member of 400 kB each time.
fn growth() -> Bytes {
    bytes(&json!({"metadata": {"annotations": {"bench.example.com/{n}": "x".repeat(100_000)}},
        "data": {"key-{n}": "x".repeat(400_000)}}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_requests_that_servers_read() {
        for attack in all() {
            assert!(attack.body.len() <= MAX_BODY, "{}: {}", attack.name, attack.body.len());
            assert!(attack.path.starts_with('/'), "{}", attack.name);
            if attack.content_type.ends_with("json") && !attack.body.is_empty() {
                assert!(serde_json::from_slice::<Value>(&attack.body).is_ok(), "{}", attack.name);
            }
        }
    }
}
