//! The roles that are there from the beginning, and how they are kept up to date
//! (`plugin/pkg/auth/authorizer/rbac/bootstrappolicy`, `pkg/registry/rbac/reconciliation`).

use super::PolicyRule;
use super::coverage::uncovered;
use super::rbac::GROUP;
use fleetpass_apimachinery::meta;
use serde_json::{Map, Value};

/// The annotation by which an operator keeps a role or binding as it is: `"false"`.
const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

const DATA: &str = include_str!("../../data/rbac-bootstrap.json");

/// The bootstrap objects as `(resource, object)`: `clusterroles` first, then `clusterrolebindings`, complete but
/// for what the server sets. Aggregated roles come without rules, which are for their controller to gather.
pub fn objects() -> Vec<(&'static str, Value)> {
    let data: Value = serde_json::from_str(DATA).expect("the bootstrap data is JSON");
    let mut out = Vec::new();
    for (resource, kind) in [("clusterroles", "ClusterRole"), ("clusterrolebindings", "ClusterRoleBinding")] {
        for object in meta::list(&data, &[resource]) {
            let mut object = object.clone();
            let map = meta::as_map_mut(&mut object);
            map.insert("apiVersion".into(), format!("{GROUP}/v1").into());
            map.insert("kind".into(), kind.into());
            // `rules` has no `omitempty` in Go, so a role without any has `null`, in answers as in the store.
            if resource == "clusterroles" {
                map.entry("rules").or_insert(Value::Null);
            }
            out.push((resource, object));
        }
    }
    out
}

/// What must be written so that `existing` grants at least what `desired` grants; `None` if nothing. Rules,
/// subjects, selectors, labels and annotations that are missing are added, none are taken away, and an object whose
/// annotation `autoupdate` is `"false"` is left alone. An answer without `metadata.uid` is a new object: where `existing` is
/// there, it binds another role, and must be deleted first.
pub fn reconcile(existing: Option<&Value>, desired: &Value) -> Option<Value> {
    let Some(existing) = existing else { return Some(desired.clone()) };
    if meta::annotation(existing, AUTOUPDATE) == Some("false") {
        return None;
    }
    // The role of a binding cannot be updated, because that could grant more than whoever made the binding had in mind.
    if !meta::same(existing.get("roleRef"), desired.get("roleRef")) {
        return Some(desired.clone());
    }
    let mut merged = existing.clone();
    for member in ["labels", "annotations"] {
        merge_missing(meta::metadata_mut(&mut merged), desired, member);
    }
    // Only what the existing rules do not cover: an operator may have written them differently and granted the same.
    let owned = PolicyRule::of_role(existing);
    let rules = uncovered(&owned, &PolicyRule::of_role(desired)).iter().map(PolicyRule::to_json).collect();
    append(&mut merged, "rules", rules);
    let subjects = absent(existing, desired, &["subjects"]);
    append(&mut merged, "subjects", subjects);
    let map = meta::as_map_mut(&mut merged);
    if desired.get("aggregationRule").is_none() {
        map.remove("aggregationRule");
    } else {
        let selectors = absent(existing, desired, &["aggregationRule", "clusterRoleSelectors"]);
        if !selectors.is_empty() {
            let slot = map.entry("aggregationRule").or_insert(Value::Null);
            append(slot, "clusterRoleSelectors", selectors);
        }
    }
    (!meta::same(Some(&merged), Some(existing))).then_some(merged)
}

/// Adds the entries of `desired.metadata[member]` that `metadata[member]` does not have.
fn merge_missing(metadata: &mut Map<String, Value>, desired: &Value, member: &str) {
    let Some(wanted) = meta::map(desired, &["metadata", member]) else { return };
    let have = meta::child_mut(metadata, member);
    for (key, value) in wanted {
        have.entry(key).or_insert_with(|| value.clone());
    }
}

/// The elements of the list at `path` of `desired` that `existing` does not have.
fn absent(existing: &Value, desired: &Value, path: &[&str]) -> Vec<Value> {
    let have = meta::list(existing, path);
    meta::list(desired, path).iter().filter(|item| !have.contains(item)).cloned().collect()
}

/// Appends to the list `member`; a member that is missing or no list is replaced, unless there is nothing to append.
fn append(object: &mut Value, member: &str, items: Vec<Value>) {
    if items.is_empty() {
        return;
    }
    let slot = meta::as_map_mut(object).entry(member).or_insert(Value::Null);
    match slot {
        Value::Array(list) => list.extend(items),
        other => *other = Value::Array(items),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The rules that an aggregated role gathers, once, from `roles`; `None` if it is not aggregated. All selectors in the data
    /// are `matchLabels`.
    fn gather(role: &Value, roles: &[Value]) -> Option<Vec<PolicyRule>> {
        meta::map(role, &["aggregationRule"])?;
        let mut rules = Vec::new();
        for selector in meta::list(role, &["aggregationRule", "clusterRoleSelectors"]) {
            let wanted = meta::map(selector, &["matchLabels"]).expect("a selector of labels");
            assert_eq!(selector.as_object().unwrap().len(), 1, "{selector}");
            let selects = |other: &&Value| wanted.iter().all(|(k, v)| other["metadata"]["labels"][k] == *v);
            for rule in roles.iter().filter(selects).flat_map(PolicyRule::of_role) {
                if !rules.contains(&rule) {
                    rules.push(rule);
                }
            }
        }
        Some(rules)
    }

    #[test]
    fn the_data_is_complete_and_agrees_with_itself() {
        let objects = objects();
        assert_eq!(objects.iter().filter(|(r, _)| *r == "clusterroles").count(), 13);
        let roles: Vec<&Value> =
            objects.iter().filter(|(r, _)| *r == "clusterroles").map(|(_, o)| o).collect();
        for (_, object) in objects.iter().filter(|(r, _)| *r == "clusterrolebindings") {
            let role = meta::text(object, &["roleRef", "name"]);
            assert!(roles.iter().any(|r| meta::name(r) == role), "{role}");
        }
        // `edit` gathers `view`, and `admin` gathers `edit`: aggregation takes more than one round.
        let mut roles: Vec<Value> = roles.into_iter().cloned().collect();
        for _ in 0..3 {
            for i in 0..roles.len() {
                if let Some(rules) = gather(&roles[i], &roles) {
                    roles[i]["rules"] = rules.iter().map(PolicyRule::to_json).collect();
                }
            }
        }
        let count = |name: &str| {
            let role = roles.iter().find(|r| meta::name(r) == name).unwrap();
            meta::list(role, &["rules"]).len()
        };
        assert_eq!((count("view"), count("edit"), count("admin"), count("cluster-admin")), (12, 27, 29, 2));
    }

    #[test]
    fn reconciliation_adds_and_never_takes_away() {
        for (_, object) in objects() {
            assert_eq!(reconcile(None, &object).as_ref(), Some(&object));
            assert_eq!(reconcile(Some(&object), &object), None);
        }
        let desired = json!({"metadata": {"name": "r", "labels": {"a": "1"}, "annotations": {AUTOUPDATE: "true"}},
            "rules": [{"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]}]});
        let mut existing = json!({"metadata": {"name": "r", "uid": "u", "labels": {"a": "2", "b": "3"}},
            "rules": [{"verbs": ["get", "delete"], "apiGroups": [""], "resources": ["pods"]}]});
        let merged = reconcile(Some(&existing), &desired).unwrap();
        assert_eq!(
            merged,
            json!({"metadata": {"name": "r", "uid": "u", "labels": {"a": "2", "b": "3"},
                "annotations": {AUTOUPDATE: "true"}},
                "rules": [{"verbs": ["get", "delete"], "apiGroups": [""], "resources": ["pods"]},
                    {"verbs": ["list"], "apiGroups": [""], "resources": ["pods"]}]})
        );
        assert_eq!(reconcile(Some(&merged), &desired), None);
        existing["metadata"]["annotations"] = json!({AUTOUPDATE: "false"});
        assert_eq!(reconcile(Some(&existing), &desired), None);
    }

    #[test]
    fn bindings_gain_subjects_and_are_replaced_for_another_role() {
        let binding = |role: &str, users: &[&str]| {
            let subjects: Vec<Value> = users.iter().map(|u| json!({"kind": "User", "name": u})).collect();
            json!({"metadata": {"name": "b", "uid": "u"}, "subjects": subjects,
                "roleRef": {"kind": "ClusterRole", "name": role}})
        };
        let mut desired = binding("r", &["x", "y"]);
        meta::metadata_mut(&mut desired).remove("uid");
        assert_eq!(
            reconcile(Some(&binding("r", &["z", "x"])), &desired),
            Some(binding("r", &["z", "x", "y"]))
        );
        assert_eq!(reconcile(Some(&binding("other", &["x", "y"])), &desired), Some(desired));
    }
}
