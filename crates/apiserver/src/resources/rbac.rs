//! What Roles, ClusterRoles and their bindings share (`pkg/apis/rbac/validation/validation.go`,
//! `pkg/apis/rbac/v1/defaults.go`).

use super::printers;
use super::stored::{self, StoredKind};
use crate::strategy::{Column, Context, Resource, Strategy};
use fleetpass_apimachinery::field::{Error, ErrorList, Path};
use fleetpass_apimachinery::meta;
use fleetpass_apimachinery::status::Status;
use fleetpass_apimachinery::validation::{metadata, names, selectors};
use fleetpass_auth::authz::escalation;
use fleetpass_auth::authz::rbac::GROUP;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::sync::Arc;

/// What tells one of the four kinds from the others.
struct RbacKind {
    kind: &'static str,
    plural: &'static str,
    definition: &'static str,
    namespaced: bool,
}

const ROLE: RbacKind =
    RbacKind { kind: "Role", plural: "roles", definition: "io.k8s.api.rbac.v1.Role", namespaced: true };
const CLUSTER_ROLE: RbacKind = RbacKind {
    kind: "ClusterRole",
    plural: "clusterroles",
    definition: "io.k8s.api.rbac.v1.ClusterRole",
    namespaced: false,
};
const ROLE_BINDING: RbacKind = RbacKind {
    kind: "RoleBinding",
    plural: "rolebindings",
    definition: "io.k8s.api.rbac.v1.RoleBinding",
    namespaced: true,
};
const CLUSTER_ROLE_BINDING: RbacKind = RbacKind {
    kind: "ClusterRoleBinding",
    plural: "clusterrolebindings",
    definition: "io.k8s.api.rbac.v1.ClusterRoleBinding",
    namespaced: false,
};

/// The row of Roles (`namespaced`) or of ClusterRoles.
pub(super) fn roles(namespaced: bool) -> Resource {
    let kind = if namespaced { ROLE } else { CLUSTER_ROLE };
    let columns =
        vec![Column::name(), Column::new("Created At", "date", "", "When the object was created.", 0)];
    row(&kind, columns, Arc::new(Roles { plural: kind.plural, namespaced }))
}

/// The row of RoleBindings (`namespaced`) or of ClusterRoleBindings.
pub(super) fn bindings(namespaced: bool) -> Resource {
    let kind = if namespaced { ROLE_BINDING } else { CLUSTER_ROLE_BINDING };
    let columns = vec![
        Column::name(),
        Column::new("Role", "string", "", "The role that is granted.", 0),
        Column::age(),
        Column::new("Users", "string", "", "The users to whom the role is granted.", 1),
        Column::new("Groups", "string", "", "The groups to whom the role is granted.", 1),
        Column::new("ServiceAccounts", "string", "", "The service accounts to whom the role is granted.", 1),
    ];
    row(&kind, columns, Arc::new(Bindings { plural: kind.plural, namespaced }))
}

fn row(kind: &RbacKind, columns: Vec<Column>, strategy: Arc<dyn Strategy>) -> Resource {
    let kind = StoredKind {
        group: GROUP,
        version: "v1",
        kind: kind.kind,
        plural: kind.plural,
        definition: kind.definition,
        namespaced: kind.namespaced,
        short_names: &[],
        selectable_fields: &[],
        columns,
    };
    stored::resource(kind, strategy)
}

struct Roles {
    plural: &'static str,
    namespaced: bool,
}

impl Strategy for Roles {
    /// Groups × resources × verbs are compared with what the user may do.
    fn is_heavy(&self) -> bool {
        true
    }

    fn admit(&self, ctx: &Context<'_>, object: &mut Value, old: Option<&Value>) -> Result<(), Status> {
        // Nobody grants what they do not have themselves. This is admission and not validation: it depends on who
        // asks, and its refusal is 403.
        escalation::admit_role(&ctx.grantor(), self.plural, object, old)
    }

    fn validate(&self, _ctx: &Context<'_>, object: &Value) -> ErrorList {
        let rules = meta::list(object, &["rules"]).iter().enumerate();
        let field = Path::new("rules");
        let mut errors: ErrorList =
            rules.map(|(i, rule)| validate_rule(rule, self.namespaced, &field.index(i))).collect();
        if !self.namespaced {
            errors.append(validate_aggregation(object));
        }
        errors
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, old: &Value) -> ErrorList {
        let mut errors = metadata::validate(new, self.namespaced, &names::is_path_segment);
        errors.append(self.validate(ctx, new));
        errors.append(metadata::validate_update(new, old));
        errors
    }

    /// `rules` is printed as `null` where there are none.
    fn canonicalize(&self, object: &mut Value) {
        if meta::list(object, &["rules"]).is_empty() {
            meta::as_map_mut(object).insert("rules".into(), Value::Null);
        }
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn validate_name(&self, name: &str, _prefix: bool) -> Vec<String> {
        names::is_path_segment(name, false)
    }

    fn cells(&self, object: &Value, _now: Timestamp) -> Vec<Value> {
        vec![printers::name(object), meta::text(object, &["metadata", "creationTimestamp"]).into()]
    }
}

/// The errors of a rule (`ValidatePolicyRule`).
fn validate_rule(rule: &Value, namespaced: bool, field: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let empty = |name: &str| meta::list(rule, &[name]).is_empty();
    if empty("verbs") {
        errors.push(Error::required(&field.child("verbs"), "verbs must contain at least one value"));
    }
    if let Some(urls) = rule.get("nonResourceURLs").filter(|_| !empty("nonResourceURLs")) {
        let field = field.child("nonResourceURLs");
        if namespaced {
            let detail = "namespaced rules cannot apply to non-resource URLs";
            errors.push(Error::invalid(&field, urls.clone(), detail));
        }
        if !empty("apiGroups") || !empty("resources") || !empty("resourceNames") {
            let detail = "rules cannot apply to both regular resources and non-resource URLs";
            errors.push(Error::invalid(&field, urls.clone(), detail));
        }
        // A rule for paths is judged no further: it has no resources.
        return errors;
    }
    if empty("apiGroups") {
        let detail = "resource rules must supply at least one api group";
        errors.push(Error::required(&field.child("apiGroups"), detail));
    }
    if empty("resources") {
        let detail = "resource rules must supply at least one resource";
        errors.push(Error::required(&field.child("resources"), detail));
    }
    errors
}

/// The errors of a ClusterRole's `aggregationRule`.
fn validate_aggregation(role: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    if meta::map(role, &["aggregationRule"]).is_none() {
        return errors;
    }
    let field = Path::new("aggregationRule.clusterRoleSelectors");
    let list = meta::list(role, &["aggregationRule", "clusterRoleSelectors"]);
    if list.is_empty() {
        let detail = "at least one clusterRoleSelector required if aggregationRule is non-nil";
        errors.push(Error::required(&field, detail));
    }
    for (i, selector) in list.iter().enumerate() {
        let field = field.index(i);
        let found = selectors::validate(selector, &field);
        let invalid = !found.is_empty();
        errors.append(found);
        if invalid {
            // Said once more for the selector as a whole, as Go does.
            errors.push(Error::invalid(&field, Value::Null, "invalid label selector."));
        }
    }
    errors
}

struct Bindings {
    plural: &'static str,
    namespaced: bool,
}

impl Strategy for Bindings {
    /// All rules of the role are compared with what the user may do.
    fn is_heavy(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        let object = meta::as_map_mut(object);
        let role_ref = meta::child_mut(object, "roleRef");
        if is_empty(role_ref.get("apiGroup")) {
            role_ref.insert("apiGroup".into(), GROUP.into());
        }
        let subjects = object.get_mut("subjects").and_then(Value::as_array_mut);
        for subject in subjects.into_iter().flatten().filter_map(Value::as_object_mut) {
            let named = matches!(subject.get("kind").and_then(Value::as_str), Some("User" | "Group"));
            if named && is_empty(subject.get("apiGroup")) {
                subject.insert("apiGroup".into(), GROUP.into());
            }
        }
    }

    fn admit(&self, ctx: &Context<'_>, object: &mut Value, old: Option<&Value>) -> Result<(), Status> {
        // As with roles, a binding grants what its role allows; the verb `bind` on the role is an exemption.
        escalation::admit_binding(&ctx.grantor(), self.plural, object, old)
    }

    fn validate(&self, _ctx: &Context<'_>, object: &Value) -> ErrorList {
        let mut errors = self.validate_role_ref(object);
        let field = Path::new("subjects");
        for (i, subject) in meta::list(object, &["subjects"]).iter().enumerate() {
            errors.append(validate_subject(subject, self.namespaced, &field.index(i)));
        }
        errors
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, old: &Value) -> ErrorList {
        let mut errors = metadata::validate(new, self.namespaced, &names::is_path_segment);
        errors.append(self.validate(ctx, new));
        errors.append(metadata::validate_update(new, old));
        let role_ref = |object: &Value| {
            let part = |key| meta::text(object, &["roleRef", key]).to_owned();
            // Printed as Go prints its internal type, which has no JSON names.
            json!({"APIGroup": part("apiGroup"), "Kind": part("kind"), "Name": part("name")})
        };
        // The role never changes: whoever may edit a binding's subjects must not be able to exchange what they are
        // granted.
        if role_ref(new) != role_ref(old) {
            errors.push(Error::invalid(&Path::new("roleRef"), role_ref(new), "cannot change roleRef"));
        }
        errors
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn validate_name(&self, name: &str, _prefix: bool) -> Vec<String> {
        names::is_path_segment(name, false)
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let role = ["kind", "name"].map(|key| meta::text(object, &["roleRef", key])).join("/");
        let subjects = |kind: &str| {
            let list = meta::list(object, &["subjects"]).iter();
            let names = list.filter(|s| meta::text(s, &["kind"]) == kind).map(|subject| {
                let name = meta::text(subject, &["name"]);
                match kind {
                    "ServiceAccount" => format!("{}/{name}", meta::text(subject, &["namespace"])),
                    _ => name.to_owned(),
                }
            });
            names.collect::<Vec<_>>().join(", ").into()
        };
        let [users, groups, accounts] = ["User", "Group", "ServiceAccount"].map(subjects);
        vec![printers::name(object), role.into(), printers::age(object, now), users, groups, accounts]
    }
}

impl Bindings {
    fn validate_role_ref(&self, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let field = Path::new("roleRef");
        let part = |key| meta::text(object, &["roleRef", key]);
        if part("apiGroup") != GROUP {
            errors.push(Error::not_supported(&field.child("apiGroup"), part("apiGroup"), &[GROUP]));
        }
        let kinds: &[&str] = if self.namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
        if !kinds.contains(&part("kind")) {
            errors.push(Error::not_supported(&field.child("kind"), part("kind"), kinds));
        }
        let field = field.child("name");
        if part("name").is_empty() {
            errors.push(Error::required(&field, ""));
        }
        let bad_name = names::is_path_segment(part("name"), false).into_iter();
        errors.extend(bad_name.map(|m| Error::invalid(&field, part("name"), m)));
        errors
    }
}

/// The errors of a subject (`ValidateRoleBindingSubject`).
fn validate_subject(subject: &Value, namespaced: bool, field: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let part = |key| meta::text(subject, &[key]);
    let (name, group) = (part("name"), part("apiGroup"));
    if name.is_empty() {
        errors.push(Error::required(&field.child("name"), ""));
    }
    match part("kind") {
        "ServiceAccount" => {
            if !name.is_empty() {
                let bad_name = names::is_dns1123_subdomain(name, false).into_iter();
                errors.extend(bad_name.map(|m| Error::invalid(&field.child("name"), name, m)));
            }
            if !group.is_empty() {
                errors.push(Error::not_supported(&field.child("apiGroup"), group, &[""]));
            }
            // In a RoleBinding, an account without a namespace is one of the binding's own (`appliesToUser`).
            if !namespaced && part("namespace").is_empty() {
                errors.push(Error::required(&field.child("namespace"), ""));
            }
        }
        "User" | "Group" if group != GROUP => {
            errors.push(Error::not_supported(&field.child("apiGroup"), group, &[GROUP]));
        }
        "User" | "Group" => {}
        other => {
            let kinds = ["ServiceAccount", "User", "Group"];
            errors.push(Error::not_supported(&field.child("kind"), other, &kinds));
        }
    }
    errors
}

fn is_empty(text: Option<&Value>) -> bool {
    text.and_then(Value::as_str).unwrap_or_default().is_empty()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{World, texts};
    use super::*;

    fn role_errors(namespaced: bool, role: Value) -> Vec<String> {
        let world = World::default();
        texts(&Roles { plural: "roles", namespaced }.validate(&world.ctx("ns", ""), &role))
    }

    #[test]
    fn rules() {
        let verbs = "rules[0].verbs: Required value: verbs must contain at least one value";
        let groups = "rules[0].apiGroups: Required value: resource rules must supply at least one api group";
        let resources =
            "rules[0].resources: Required value: resource rules must supply at least one resource";
        let both = r#"rules[0].nonResourceURLs: Invalid value: ["/healthz"]: rules cannot apply to both regular resources and non-resource URLs"#;
        let namespaced = r#"rules[0].nonResourceURLs: Invalid value: ["/healthz"]: namespaced rules cannot apply to non-resource URLs"#;
        for (rule, in_namespace, in_cluster) in [
            (json!({"verbs": ["get"], "resources": ["pods"], "apiGroups": [""]}), vec![], vec![]),
            (json!({"resources": ["pods"], "apiGroups": [""]}), vec![verbs], vec![verbs]),
            (json!({"verbs": ["get"]}), vec![groups, resources], vec![groups, resources]),
            (json!({"verbs": ["get"], "nonResourceURLs": ["/healthz"]}), vec![namespaced], vec![]),
            (
                json!({"verbs": ["get"], "nonResourceURLs": ["/healthz"], "resourceNames": ["a"]}),
                vec![namespaced, both],
                vec![both],
            ),
        ] {
            assert_eq!(role_errors(true, json!({"rules": [rule.clone()]})), in_namespace);
            assert_eq!(role_errors(false, json!({"rules": [rule]})), in_cluster);
        }
    }

    #[test]
    fn aggregation() {
        let role = |selectors: Value| json!({"aggregationRule": {"clusterRoleSelectors": selectors}});
        let none = "aggregationRule.clusterRoleSelectors: Required value: at least one clusterRoleSelector required if aggregationRule is non-nil";
        assert_eq!(role_errors(false, role(json!([]))), [none]);
        assert_eq!(role_errors(false, role(json!([{"matchLabels": {"a": "b"}}]))), [""; 0]);
        let within = role(json!([{"matchExpressions": [{"key": "a", "operator": "Within"}]}]));
        assert_eq!(
            role_errors(false, within),
            [
                "aggregationRule.clusterRoleSelectors[0].matchExpressions[0].operator: Invalid value: \"Within\": not a valid selector operator",
                "aggregationRule.clusterRoleSelectors[0]: Invalid value: null: invalid label selector.",
            ]
        );
    }

    #[test]
    fn bindings_are_defaulted_and_checked() {
        let world = World::default();
        let strategy = Bindings { plural: "clusterrolebindings", namespaced: false };
        let mut binding = json!({"roleRef": {"kind": "Role", "name": "a/b"}, "subjects": [
            {"kind": "User", "name": "bob"}, {"kind": "ServiceAccount", "name": "Robot"}, {"kind": "Team", "name": ""},
            {"kind": "Group", "name": "g", "apiGroup": "x"},
        ]});
        strategy.default(&mut binding);
        assert_eq!(binding["roleRef"]["apiGroup"], GROUP);
        assert_eq!(binding["subjects"][0]["apiGroup"], GROUP);
        assert_eq!(binding["subjects"][1].get("apiGroup"), None);
        let found = texts(&strategy.validate(&world.ctx("", ""), &binding));
        assert_eq!(found[0], r#"roleRef.kind: Unsupported value: "Role": supported values: "ClusterRole""#);
        assert_eq!(found[1], r#"roleRef.name: Invalid value: "a/b": may not contain '/'"#);
        assert!(found[2].starts_with(r#"subjects[1].name: Invalid value: "Robot": a lowercase RFC 1123"#));
        assert_eq!(
            found[3..],
            [
                "subjects[1].namespace: Required value",
                "subjects[2].name: Required value",
                r#"subjects[2].kind: Unsupported value: "Team": supported values: "ServiceAccount", "User", "Group""#,
                r#"subjects[3].apiGroup: Unsupported value: "x": supported values: "rbac.authorization.k8s.io""#,
            ]
        );
    }

    #[test]
    fn the_role_of_a_binding_stays() {
        let world = World::default();
        let strategy = Bindings { plural: "rolebindings", namespaced: true };
        let binding = |role: &str| {
            json!({"metadata": {"name": "b", "namespace": "ns", "uid": "u", "resourceVersion": "1"},
                "roleRef": {"apiGroup": GROUP, "kind": "Role", "name": role}})
        };
        let ctx = world.ctx("ns", "b");
        assert_eq!(texts(&strategy.validate_update(&ctx, &binding("x"), &binding("x"))), [""; 0]);
        assert_eq!(
            texts(&strategy.validate_update(&ctx, &binding("y"), &binding("x"))),
            [
                r#"roleRef: Invalid value: {"APIGroup":"rbac.authorization.k8s.io","Kind":"Role","Name":"y"}: cannot change roleRef"#
            ]
        );
    }

    #[test]
    fn cells_of_bindings() {
        let binding = json!({"metadata": {"name": "b"}, "roleRef": {"kind": "Role", "name": "r"}, "subjects": [
            {"kind": "User", "name": "u"}, {"kind": "Group", "name": "g"}, {"kind": "User", "name": "v"},
            {"kind": "ServiceAccount", "name": "a", "namespace": "ns"}]});
        let cells = Bindings { plural: "rolebindings", namespaced: true }
            .cells(&binding, "2026-01-02T03:04:05Z".parse().unwrap());
        assert_eq!(cells, ["b", "Role/r", printers::UNKNOWN, "u, v", "g", "ns/a"]);
    }
}
