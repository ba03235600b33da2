//! Nobody may grant what they do not have (`pkg/registry/rbac/escalation_check.go`,
//! `pkg/registry/rbac/validation/rule.go`, `pkg/registry/rbac/*/policybased/storage.go`).
//!
//! A role may be written by members of `system:masters`, by those who have the verb `escalate` on it, and by
//! those who hold all its rules themselves. A binding may be written by members of `system:masters`, by those who
//! have the verb `bind` on its role, and by those who hold all rules of that role.

use super::coverage::{MAX_COMBINATIONS, combinations, uncovered};
use super::rbac::GROUP;
use super::rule::quote_list;
use super::{Attributes, Authorizer, PolicyRule, join_errors};
use fleetpass_apimachinery::Lister;
use fleetpass_apimachinery::field::{Error, Path, go_quote};
use fleetpass_apimachinery::meta;
use fleetpass_apimachinery::status::{GroupResource, Status};
use fleetpass_apimachinery::user::{SYSTEM_MASTERS, UserInfo};
use serde_json::Value;
use std::collections::BTreeSet;

/// How many of the missing rules a message lists.
const MAX_LINES: usize = 100;

/// Why somebody may not grant rules.
#[derive(Debug, PartialEq, Eq)]
enum Refusal {
    /// They do not hold them: the message.
    NotHeld(String),
    /// So many combinations cannot be checked.
    TooMany(usize),
}

impl Refusal {
    /// The status: 403, or 422 about `field` of `object`.
    fn status(self, resource: &str, object: &Value, field: &str) -> Status {
        match self {
            Self::NotHeld(why) => {
                Status::forbidden(GroupResource { group: GROUP, resource }, meta::name(object), why)
            }
            Self::TooMany(count) => {
                let detail = format!(
                    "{count} combinations of verb, API group, resource and name are too many to check against the rights of \
                     the user, which can be done for {MAX_COMBINATIONS}: use several roles"
                );
                let errors = [Error::forbidden(&Path::new(field), detail)].into();
                Status::invalid(GROUP, meta::text(object, &["kind"]), meta::name(object), &errors)
            }
        }
    }
}

/// Whether the user holds `rules` in the namespace (empty: at the cluster scope); if not, the message: the missing
/// rules, compact and sorted, one per line (`ConfirmNoEscalation`), of very many the first.
fn confirm_no_escalation(
    user: &UserInfo,
    namespace: &str,
    rules: &[PolicyRule],
    authorizer: &dyn Authorizer,
) -> Result<(), Refusal> {
    let count = combinations(rules);
    if count > MAX_COMBINATIONS {
        return Err(Refusal::TooMany(count));
    }
    // The rules may be incomplete, which can only refuse more: each of those that are known holds by itself.
    let owned = authorizer.rules_for(user, namespace);
    let missing = uncovered(&owned.rules, rules);
    if missing.is_empty() {
        return Ok(());
    }
    let lines: BTreeSet<String> = missing.iter().map(ToString::to_string).collect();
    let shown: Vec<&str> = lines.iter().take(MAX_LINES).map(String::as_str).collect();
    let mut message = format!(
        "user {} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
        go_quote(&user.name),
        quote_list(&user.groups),
        shown.join("\n"),
    );
    if lines.len() > shown.len() {
        message.push_str(&format!("\nand {} more", lines.len() - shown.len()));
    }
    if !owned.errors.is_empty() {
        message.push_str(&format!("; resolution errors: [{}]", join_errors(&owned.errors)));
    }
    Err(Refusal::NotHeld(message))
}

/// Who wants to write a role or a binding, where, and what is needed to check that they may.
#[derive(Clone, Copy)]
pub struct Grantor<'a> {
    /// Who asks (after impersonation).
    pub user: &'a UserInfo,
    /// The namespace of the request; empty for the cluster scope.
    pub namespace: &'a str,
    /// The name in the path; empty on create.
    pub name: &'a str,
    /// Where the role of a binding is looked up.
    pub lister: &'a dyn Lister,
    /// Says what the user may do.
    pub authorizer: &'a dyn Authorizer,
}

/// Admits a Role or ClusterRole (`resource` is `roles` or `clusterroles`).
pub fn admit_role(
    grantor: &Grantor<'_>,
    resource: &str,
    new: &Value,
    old: Option<&Value>,
) -> Result<(), Status> {
    let escalate = Attributes::resource(grantor.user, "escalate", GROUP, resource);
    // The cheap checks first: what follows takes all rules of the user apart.
    if grantor.user.in_group(SYSTEM_MASTERS)
        || grantor.authorizer.authorize(&escalate.in_namespace(grantor.namespace).named(grantor.name)).allowed
        || old.is_some_and(|old| only_garbage_collector_fields_differ(new, old))
    {
        return Ok(());
    }
    confirm_no_escalation(grantor.user, grantor.namespace, &PolicyRule::of_role(new), grantor.authorizer)
        .map_err(|refusal| refusal.status(resource, new, "rules"))?;
    // An aggregated role gathers whatever comes, and cannot be narrowed: only those who have everything may.
    if aggregates(new) || old.is_some_and(aggregates) {
        confirm_no_escalation(grantor.user, grantor.namespace, &everything(), grantor.authorizer).map_err(
            |_| {
                let why = "must have cluster-admin privileges to use the aggregationRule";
                Status::forbidden(GroupResource { group: GROUP, resource }, meta::name(new), why)
            },
        )?;
    }
    Ok(())
}

/// Admits a RoleBinding or ClusterRoleBinding (`resource` is `rolebindings` or `clusterrolebindings`).
pub fn admit_binding(
    grantor: &Grantor<'_>,
    resource: &str,
    new: &Value,
    old: Option<&Value>,
) -> Result<(), Status> {
    if grantor.user.in_group(SYSTEM_MASTERS)
        || old.is_some_and(|old| only_garbage_collector_fields_differ(new, old))
    {
        return Ok(());
    }
    let role_ref = |key| meta::text(new, &["roleRef", key]);
    let (kind, name) = (role_ref("kind"), role_ref("name"));
    let (roles, namespace) = match kind {
        "ClusterRole" => ("clusterroles", ""),
        "Role" => ("roles", grantor.namespace),
        _ => {
            let why = format!("unsupported role reference kind: {}", go_quote(kind));
            return Err(Status::plain_error(why));
        }
    };
    // The group is the one that the reference gives, not `GROUP`: a reference to another group is for validation to refuse.
    let bind = Attributes::resource(grantor.user, "bind", role_ref("apiGroup"), roles);
    if grantor.authorizer.authorize(&bind.in_namespace(grantor.namespace).named(name)).allowed {
        return Ok(());
    }
    // Whoever may `bind` may do so before the role exists; others cannot, since nobody knows yet what it would grant.
    let Some(role) = grantor.lister.get(GROUP, roles, namespace, name) else {
        // kube-apiserver names the kind here, not the resource.
        let kind = kind.to_lowercase();
        return Err(Status::not_found(GroupResource { group: GROUP, resource: &kind }, name));
    };
    confirm_no_escalation(grantor.user, grantor.namespace, &PolicyRule::of_role(&role), grantor.authorizer)
        .map_err(|refusal| refusal.status(resource, new, "roleRef"))
}

/// Whether the role gathers the rules of others.
fn aggregates(role: &Value) -> bool {
    !meta::list(role, &["aggregationRule", "clusterRoleSelectors"]).is_empty()
}

/// The rules of `cluster-admin`.
fn everything() -> [PolicyRule; 2] {
    let star = || vec!["*".to_string()];
    [
        PolicyRule { verbs: star(), api_groups: star(), resources: star(), ..PolicyRule::default() },
        PolicyRule { verbs: star(), non_resource_urls: star(), ..PolicyRule::default() },
    ]
}

/// Whether nothing changes but what the garbage collector must be able to change without holding the role's
/// rights (`IsOnlyMutatingGCFields` in `pkg/registry/rbac/helpers.go`).
fn only_garbage_collector_fields_differ(new: &Value, old: &Value) -> bool {
    const FIELDS: [&str; 4] = ["ownerReferences", "finalizers", "selfLink", "managedFields"];
    let rest = |object: &Value| {
        let mut object = object.clone();
        let metadata = meta::metadata_mut(&mut object);
        FIELDS.iter().for_each(|field| {
            metadata.remove(*field);
        });
        object
    };
    meta::same(Some(&rest(new)), Some(&rest(old)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rules(value: Value) -> Vec<PolicyRule> {
        PolicyRule::of_role(&json!({"rules": value}))
    }

    #[test]
    fn the_message_lists_what_is_missing_sorted_one_per_line() {
        struct Few;
        impl Authorizer for Few {
            fn authorize(&self, _: &Attributes<'_>) -> crate::authz::Decision {
                crate::authz::Decision::refuse("")
            }
            fn rules_for(&self, _: &UserInfo, _: &str) -> crate::authz::UserRules {
                crate::authz::UserRules {
                    rules: rules(json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}])),
                    errors: vec!["role gone".into()],
                    incomplete: false,
                }
            }
        }
        let alice =
            UserInfo { name: "alice".into(), groups: vec!["a".into(), "b".into()], ..UserInfo::default() };
        let wanted = rules(json!([
            {"verbs": ["get", "list", "watch"], "apiGroups": ["", "apps"], "resources": ["pods"]},
            {"verbs": ["delete"], "apiGroups": [""], "resources": ["pods"]},
            {"verbs": ["get", "put"], "nonResourceURLs": ["/x"]},
            {"verbs": ["get", "list"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["n", "m"]},
        ]));
        let Err(Refusal::NotHeld(message)) = confirm_no_escalation(&alice, "ns", &wanted, &Few) else {
            panic!("the user lacks most of it");
        };
        assert_eq!(
            message,
            r#"user "alice" (groups=["a" "b"]) is attempting to grant RBAC permissions not currently held:
{APIGroups:[""], Resources:["pods"], Verbs:["list" "watch" "delete"]}
{APIGroups:[""], Resources:["secrets"], ResourceNames:["m"], Verbs:["get" "list"]}
{APIGroups:[""], Resources:["secrets"], ResourceNames:["n"], Verbs:["get" "list"]}
{APIGroups:["apps"], Resources:["pods"], Verbs:["get" "list" "watch"]}
{NonResourceURLs:["/x"], Verbs:["get"]}
{NonResourceURLs:["/x"], Verbs:["put"]}; resolution errors: [role gone]"#
        );
    }

    #[test]
    fn of_very_many_missing_rules_the_first_are_listed() {
        let names: Vec<String> = (0..150).map(|n| format!("r{n:03}")).collect();
        let wanted = rules(json!([{"verbs": ["get"], "apiGroups": [""], "resources": names}]));
        let index = super::super::rbac::Index::new();
        let refused = confirm_no_escalation(&UserInfo::default(), "ns", &wanted, &index).unwrap_err();
        let Refusal::NotHeld(message) = refused else { panic!("{refused:?}") };
        let lines: Vec<&str> = message.lines().collect();
        assert_eq!(lines.len(), 1 + MAX_LINES + 1);
        assert_eq!(lines[1], r#"{APIGroups:[""], Resources:["r000"], Verbs:["get"]}"#);
        assert_eq!(lines.last(), Some(&"and 50 more"));
    }

    #[test]
    fn more_combinations_than_can_be_checked_are_refused_unseen() {
        // Some kilobytes name a hundred million combinations.
        let list = |prefix: &str| (0..100).map(|n| format!("{prefix}{n}")).collect::<Vec<_>>();
        let role = json!({"kind": "Role", "metadata": {"name": "x"}, "rules": [{"verbs": list("v"),
            "apiGroups": list("g"), "resources": list("r"), "resourceNames": list("n")}]});
        let answer = told("carol", "", |grantor| admit_role(grantor, "roles", &role, None));
        assert_eq!(
            answer,
            Err((
                422,
                format!(
                    "Role.{GROUP} \"x\" is invalid: rules: Forbidden: 100000000 combinations of verb, API group, resource \
                     and name are too many to check against the rights of the user, which can be done for 10000: use \
                     several roles"
                )
            ))
        );
        assert_eq!(told("root", "", |grantor| admit_role(grantor, "roles", &role, None)), Ok(()));
    }

    /// `carol` may get pods, and has the verb of the name where a role or binding is called `escalate` or `bind`;
    /// `admin` holds everything, by rules.
    struct World(super::super::rbac::Index, Vec<(&'static str, Value)>);

    impl fleetpass_apimachinery::Lister for World {
        fn get(&self, _: &str, resource: &str, _: &str, name: &str) -> Option<std::sync::Arc<Value>> {
            let found = self.1.iter().find(|(r, o)| *r == resource && meta::name(o) == name);
            found.map(|(_, o)| std::sync::Arc::new(o.clone()))
        }
        fn list(&self, _: &str, _: &str, _: &str) -> Vec<std::sync::Arc<Value>> {
            Vec::new()
        }
    }

    fn role(name: &str, resource: &str) -> Value {
        json!({"metadata": {"name": name}, "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": [resource]}]})
    }

    fn world() -> World {
        let index = super::super::rbac::Index::new();
        let verb = |verb: &str| {
            json!({"verbs": [verb], "apiGroups": [GROUP], "resources": ["roles", "clusterroles"],
                "resourceNames": [verb]})
        };
        let pods = json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]});
        let all = everything().iter().map(PolicyRule::to_json).collect::<Vec<_>>();
        for (user, rules) in [("carol", json!([pods, verb("escalate"), verb("bind")])), ("admin", json!(all))]
        {
            index.apply("clusterroles", "", user, Some(&json!({"rules": rules})));
            let binding = json!({"roleRef": {"kind": "ClusterRole", "name": user},
                "subjects": [{"kind": "User", "name": user}]});
            index.apply("clusterrolebindings", "", user, Some(&binding));
        }
        World(index, vec![("roles", role("pods", "pods")), ("clusterroles", role("secrets", "secrets"))])
    }

    fn told(
        user: &str,
        name: &str,
        act: impl Fn(&Grantor<'_>) -> Result<(), Status>,
    ) -> Result<(), (u16, String)> {
        let world = world();
        let mut who = UserInfo { name: user.into(), ..UserInfo::default() };
        who.groups.extend((user == "root").then(|| SYSTEM_MASTERS.to_string()));
        let grantor = Grantor { user: &who, namespace: "ns", name, lister: &world, authorizer: &world.0 };
        act(&grantor).map_err(|status| (status.code, status.message))
    }

    const LACKS_SECRETS: &str = r#"user "carol" (groups=[]) is attempting to grant RBAC permissions not currently held:
{APIGroups:[""], Resources:["secrets"], Verbs:["get"]}"#;

    #[test]
    fn roles_one_may_write() {
        let refused =
            |name: &str, why: &str| Err((403, format!("roles.{GROUP} \"{name}\" is forbidden: {why}")));
        let secrets = role("x", "secrets");
        let labelled = json!({"metadata": {"name": "x", "labels": {"a": "b"}}, "rules": secrets["rules"]});
        let collected = json!({"metadata": {"name": "x", "finalizers": ["f"], "managedFields": [{}]},
            "rules": secrets["rules"]});
        let mut aggregated = role("x", "pods");
        aggregated["aggregationRule"] = json!({"clusterRoleSelectors": [{}]});
        let need_all = "must have cluster-admin privileges to use the aggregationRule";
        for (user, in_path, new, old, expected) in [
            ("carol", "", role("x", "pods"), None, Ok(())),
            ("carol", "", secrets.clone(), None, refused("x", LACKS_SECRETS)),
            ("carol", "x", secrets.clone(), None, refused("x", LACKS_SECRETS)),
            ("root", "", secrets.clone(), None, Ok(())),
            ("admin", "", secrets.clone(), None, Ok(())),
            // The verb is looked for under the name in the path, which a POST does not have.
            ("carol", "escalate", role("escalate", "secrets"), None, Ok(())),
            ("carol", "", role("escalate", "secrets"), None, refused("escalate", LACKS_SECRETS)),
            ("carol", "x", labelled, Some(&secrets), refused("x", LACKS_SECRETS)),
            ("carol", "x", collected, Some(&secrets), Ok(())),
            ("carol", "x", role("x", "pods"), Some(&secrets), Ok(())),
            ("carol", "", aggregated.clone(), None, refused("x", need_all)),
            ("carol", "x", role("x", "pods"), Some(&aggregated), refused("x", need_all)),
            ("admin", "", aggregated.clone(), None, Ok(())),
        ] {
            let answer = told(user, in_path, |grantor| admit_role(grantor, "roles", &new, old));
            assert_eq!(answer, expected, "{user} {new} {old:?}");
        }
    }

    #[test]
    fn roles_one_may_bind() {
        let binding = |kind: &str, name: &str| json!({"metadata": {"name": "b"}, "roleRef": {"apiGroup": GROUP, "kind": kind, "name": name}});
        let refused = Err((403, format!("rolebindings.{GROUP} \"b\" is forbidden: {LACKS_SECRETS}")));
        let missing = |kind: &str| Err((404, format!("{kind}.{GROUP} \"nope\" not found")));
        let other = Err((500, "unsupported role reference kind: \"Team\"".to_string()));
        for (user, new, expected) in [
            ("carol", binding("Role", "pods"), Ok(())),
            ("carol", binding("ClusterRole", "secrets"), refused),
            ("carol", binding("ClusterRole", "bind"), Ok(())),
            ("carol", binding("Role", "nope"), missing("role")),
            ("carol", binding("ClusterRole", "nope"), missing("clusterrole")),
            ("carol", binding("Team", "x"), other),
            ("admin", binding("ClusterRole", "secrets"), Ok(())),
            ("root", binding("Team", "nope"), Ok(())),
        ] {
            assert_eq!(
                told(user, "", |grantor| admit_binding(grantor, "rolebindings", &new, None)),
                expected,
                "{user} {new}"
            );
        }
    }
}
