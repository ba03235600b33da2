//! Role-based access control: who may do what, by roles and bindings
//! (`plugin/pkg/auth/authorizer/rbac/rbac.go`, `pkg/registry/rbac/validation/rule.go`).
//!
//! [`Index`] keeps the roles and bindings of the store in memory. Bindings are indexed by each user and group that they name,
//! so that a request looks only at the bindings of its own user: with one binding for each of thousands of clusters, a decision
//! costs as much as with ten. (kube-apiserver goes through all bindings of the cluster and of the namespace.)

use super::{Attributes, Authorizer, Decision, PolicyRule, UserRules, join_errors};
use fleetpass_apimachinery::field::go_quote;
use fleetpass_apimachinery::meta;
use fleetpass_apimachinery::user::UserInfo;
use parking_lot::RwLock;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::ControlFlow;
use std::ptr;

/// The API group of roles and bindings.
pub const GROUP: &str = "rbac.authorization.k8s.io";

/// The roles and bindings of a server, fed by its changes.
#[derive(Default)]
pub struct Index {
    /// By namespace; the empty one is the cluster. No scope is empty, so that deleted namespaces leave nothing behind.
    // Every request reads, and changes are rare, hence an `RwLock`. It is held for one decision, that is, for some lookups in
    // memory; a decision sees all of a change or nothing of it.
    scopes: RwLock<HashMap<String, Scope>>,
}

/// The roles and bindings of one namespace, or of the cluster.
#[derive(Default)]
struct Scope {
    roles: HashMap<String, Role>,
    bindings: HashMap<String, Binding>,
    /// User name (service accounts by their user name) to bindings. Invariant: a binding is here and in `by_group` under exactly
    /// the subjects that it has in `bindings`, and no map is empty.
    by_user: HashMap<String, Bindings>,
    by_group: HashMap<String, Bindings>,
}

/// The bindings that name one subject: by name, with the first position of the subject in each. The position is kept so that
/// nobody has to look for it: a binding may have thousands of subjects, and a user whom a review asks about thousands of
/// groups.
type Bindings = BTreeMap<String, usize>;

/// A Role or ClusterRole.
struct Role {
    rules: Vec<PolicyRule>,
    /// How many bytes its rules have, about.
    size: usize,
}

/// From this size on a role is looked at once for a decision, however many bindings give it to the user: each is a small object,
/// and together they could make every decision about the user cost their number times the size of the role. What a smaller role
/// costs is little beside the binding itself, and less than to remember it.
const LARGE_ROLE: usize = 1024;
/// How many bytes of rules a list of them repeats because several bindings give the same role, as kube-apiserver lists them. Roles
/// that are listed once are listed whatever their size.
const MAX_REPEATED: usize = 1024 * 1024;

/// A RoleBinding or ClusterRoleBinding.
struct Binding {
    role_kind: String,
    role_name: String,
    /// In the order of the binding: the first that applies is the one that a reason names.
    subjects: Vec<Subject>,
}

/// One of those whom a binding gives its role.
enum Subject {
    User(String),
    Group(String),
    /// `user` is its user name, which requests are compared with.
    ServiceAccount {
        namespace: String,
        name: String,
        user: String,
    },
}

impl Index {
    /// An index without any roles: it refuses everything.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes over a change: the object as it is now, or `None` if it is gone. `resource` is `roles`,
    /// `rolebindings`, `clusterroles` or `clusterrolebindings`; objects of other resources change nothing. `namespace` is empty
    /// for ClusterRoles and ClusterRoleBindings.
    pub fn apply(&self, resource: &str, namespace: &str, name: &str, object: Option<&Value>) {
        let mut scopes = self.scopes.write();
        let scope = scopes.entry(namespace.to_owned()).or_default();
        match resource {
            "roles" | "clusterroles" => scope.set_role(name, object),
            "rolebindings" | "clusterrolebindings" => scope.set_binding(namespace, name, object),
            _ => {}
        }
        // Also where nothing was there before and nothing was put: `entry` has made the scope.
        if scope.is_empty() {
            scopes.remove(namespace);
        }
    }

    /// Shows `visit` each role of the user with its source, and each error, until it breaks: first what
    /// ClusterRoleBindings give, then what the RoleBindings of the namespace give; each by name (`VisitRulesFor`). A role that
    /// several bindings give is shown for each.
    // A visitor and not an iterator or a list, so that the rules are only borrowed while the lock is held and a decision copies
    // none of them. `visit` runs under the lock and must not wait for anything.
    fn visit(
        &self,
        user: &UserInfo,
        namespace: &str,
        mut visit: impl FnMut(Result<(Source<'_>, &Role), String>) -> ControlFlow<()>,
    ) {
        let scopes = self.scopes.read();
        let cluster = scopes.get("");
        let local = scopes.get(namespace).filter(|_| !namespace.is_empty());
        for (namespace, scope) in [("", cluster), (namespace, local)] {
            for (name, binding, subject) in scope.into_iter().flat_map(|scope| scope.bindings_of(user)) {
                // A RoleBinding may refer to a ClusterRole, a ClusterRoleBinding to no Role: those are in namespaces.
                let roles = match binding.role_kind.as_str() {
                    "Role" => local.filter(|_| !namespace.is_empty()),
                    "ClusterRole" => cluster,
                    other => {
                        let error = format!("unsupported role reference kind: {}", go_quote(other));
                        if visit(Err(error)).is_break() {
                            return;
                        }
                        continue;
                    }
                };
                let Some(role) = roles.and_then(|scope| scope.roles.get(&binding.role_name)) else {
                    if visit(Err(binding.role_not_found())).is_break() {
                        return;
                    }
                    continue;
                };
                if visit(Ok((Source { namespace, name, binding, subject }, role))).is_break() {
                    return;
                }
            }
        }
    }
}

impl Authorizer for Index {
    fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        let mut errors = Vec::new();
        let mut reason = None;
        // By address, which is the role's as long as the index is locked.
        let mut seen: HashSet<*const Role> = HashSet::new();
        self.visit(&attributes.user, attributes.namespace, |found| {
            match found {
                Ok((_, role)) if role.size >= LARGE_ROLE && !seen.insert(ptr::from_ref(role)) => {}
                Ok((source, role)) if role.rules.iter().any(|rule| rule.allows(attributes)) => {
                    reason = Some(source.reason());
                    return ControlFlow::Break(());
                }
                Ok(_) => {}
                Err(error) => errors.push(error),
            }
            ControlFlow::Continue(())
        });
        // Errors on the way to a rule that allows are not reported, as in Go: rights only ever add up, so a missing role cannot
        // make a yes wrong.
        match reason {
            Some(reason) => Decision::allow(reason),
            None if errors.is_empty() => Decision::refuse(""),
            None => Decision::refuse(format!("RBAC: {}", join_errors(&errors))),
        }
    }

    fn rules_for(&self, user: &UserInfo, namespace: &str) -> UserRules {
        let mut found = UserRules::default();
        let mut seen: HashSet<*const Role> = HashSet::new();
        let mut repeated = 0;
        self.visit(user, namespace, |item| {
            match item {
                Ok((_, role)) => {
                    let is_new = seen.insert(ptr::from_ref(role));
                    if !is_new {
                        repeated += role.size;
                    }
                    // Nothing is missing without a repetition, so the list is complete all the same.
                    if is_new || repeated <= MAX_REPEATED {
                        found.rules.extend_from_slice(&role.rules);
                    }
                }
                Err(error) => found.errors.push(error),
            }
            ControlFlow::Continue(())
        });
        found
    }
}

/// Where a rule comes from.
#[derive(Clone, Copy)]
struct Source<'a> {
    namespace: &'a str,
    name: &'a str,
    binding: &'a Binding,
    subject: &'a Subject,
}

impl Source<'_> {
    /// Why a request is allowed, in Go's words; names come before namespaces there (`roleBindingDescriber`).
    fn reason(&self) -> String {
        let binding = if self.namespace.is_empty() {
            format!("ClusterRoleBinding {}", go_quote(self.name))
        } else {
            format!("RoleBinding {}", go_quote(&format!("{}/{}", self.name, self.namespace)))
        };
        let subject = match self.subject {
            Subject::User(name) => format!("User {}", go_quote(name)),
            Subject::Group(name) => format!("Group {}", go_quote(name)),
            Subject::ServiceAccount { namespace, name, .. } => {
                format!("ServiceAccount {}", go_quote(&format!("{name}/{namespace}")))
            }
        };
        let Binding { role_kind, role_name, .. } = self.binding;
        format!("RBAC: allowed by {binding} of {role_kind} {} to {subject}", go_quote(role_name))
    }
}

impl Scope {
    fn is_empty(&self) -> bool {
        self.roles.is_empty() && self.bindings.is_empty()
    }

    fn set_role(&mut self, name: &str, role: Option<&Value>) {
        match role {
            Some(role) => {
                let rules = PolicyRule::of_role(role);
                let size = rules.iter().map(PolicyRule::size).sum();
                self.roles.insert(name.to_owned(), Role { rules, size })
            }
            None => self.roles.remove(name),
        };
    }

    /// Puts, replaces or removes a binding, with its entries in the index.
    fn set_binding(&mut self, namespace: &str, name: &str, object: Option<&Value>) {
        // The entries of the old one go first, whatever comes: its subjects may be others.
        if let Some(old) = self.bindings.remove(name) {
            for subject in &old.subjects {
                let (map, key) = self.entry_of(subject);
                if let Some(names) = map.get_mut(key) {
                    names.remove(name);
                    if names.is_empty() {
                        map.remove(key);
                    }
                }
            }
        }
        let Some(object) = object else { return };
        let binding = Binding::from_json(object, namespace);
        for (position, subject) in binding.subjects.iter().enumerate() {
            let (map, key) = self.entry_of(subject);
            map.entry(key.to_owned()).or_default().entry(name.to_owned()).or_insert(position);
        }
        self.bindings.insert(name.to_owned(), binding);
    }

    /// Where a subject is indexed: the map and the key.
    fn entry_of<'s>(&mut self, subject: &'s Subject) -> (&mut HashMap<String, Bindings>, &'s str) {
        match subject {
            Subject::User(user) | Subject::ServiceAccount { user, .. } => (&mut self.by_user, user),
            Subject::Group(group) => (&mut self.by_group, group),
        }
    }

    /// The bindings that apply to a user, by name, each with its first subject that applies.
    fn bindings_of(&self, user: &UserInfo) -> impl Iterator<Item = (&str, &Binding, &Subject)> {
        let entries = self
            .by_user
            .get(&user.name)
            .into_iter()
            .chain(user.groups.iter().filter_map(|group| self.by_group.get(group)));
        // Sorted over all entries, so that the reason does not depend on through which group a binding was found; a binding may
        // be found more than once, and then the first of its subjects that applies counts.
        let mut found: Vec<(&str, usize)> =
            entries.flatten().map(|(name, position)| (name.as_str(), *position)).collect();
        found.sort_unstable();
        found.dedup_by_key(|(name, _)| *name);
        found.into_iter().filter_map(|(name, position)| {
            let binding = self.bindings.get(name)?;
            Some((name, binding, binding.subjects.get(position)?))
        })
    }
}

impl Binding {
    fn from_json(object: &Value, namespace: &str) -> Self {
        let subjects = meta::list(object, &["subjects"]).iter();
        Self {
            role_kind: meta::text(object, &["roleRef", "kind"]).into(),
            role_name: meta::text(object, &["roleRef", "name"]).into(),
            subjects: subjects.filter_map(|s| Subject::from_json(s, namespace)).collect(),
        }
    }

    /// The message of the 404 that Go's lister gives, whose resource is the kind in lower case.
    fn role_not_found(&self) -> String {
        let kind = self.role_kind.to_lowercase();
        format!("{kind}.{GROUP} {} not found", go_quote(&self.role_name))
    }
}

impl Subject {
    /// A subject of a binding in `namespace` (empty for a ClusterRoleBinding), which is also where its service
    /// accounts live unless they say otherwise; `None` for one that can apply to nobody.
    fn from_json(subject: &Value, namespace: &str) -> Option<Self> {
        let name = meta::text(subject, &["name"]).to_owned();
        match meta::text(subject, &["kind"]) {
            "User" => Some(Self::User(name)),
            "Group" => Some(Self::Group(name)),
            "ServiceAccount" => {
                let own = meta::text(subject, &["namespace"]);
                let namespace = if own.is_empty() { namespace } else { own }.to_owned();
                let user = format!("system:serviceaccount:{namespace}:{name}");
                // In a ClusterRoleBinding there is no namespace to fall back on; `system:serviceaccount::NAME` is nobody.
                (!namespace.is_empty()).then_some(Self::ServiceAccount { namespace, name, user })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn user(name: &str, groups: &[&str]) -> UserInfo {
        let groups = groups.iter().map(ToString::to_string).collect();
        UserInfo { name: name.into(), groups, ..UserInfo::default() }
    }

    fn binding(kind: &str, role: &str, subjects: Value) -> Value {
        json!({"roleRef": {"apiGroup": GROUP, "kind": kind, "name": role}, "subjects": subjects})
    }

    fn index() -> Index {
        let index = Index::new();
        let reader = json!({"rules": [
            {"apiGroups": [""], "resources": ["pods", "pods/log"], "verbs": ["get", "list"]},
            {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["mine"], "verbs": ["get", "update"]},
            {"apiGroups": ["apps"], "resources": ["*"], "verbs": ["watch"]},
            {"apiGroups": [""], "resources": ["*/status"], "verbs": ["patch"]},
        ]});
        index.apply("roles", "ns", "reader", Some(&reader));
        let delegator = json!({"rules": [
            {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]}]});
        index.apply("clusterroles", "", "delegator", Some(&delegator));
        for (name, binding) in [
            ("reader", binding("Role", "reader", json!([{"kind": "User", "name": "bob"}]))),
            ("reader-group", binding("Role", "reader", json!([{"kind": "Group", "name": "team"}]))),
            ("reader-sa", binding("Role", "reader", json!([{"kind": "ServiceAccount", "name": "robot"}]))),
            ("viewer", binding("ClusterRole", "delegator", json!([{"kind": "User", "name": "carol"}]))),
            ("missing", binding("Role", "no-such-role", json!([{"kind": "User", "name": "dave"}]))),
        ] {
            index.apply("rolebindings", "ns", name, Some(&binding));
        }
        index
    }

    #[test]
    fn decisions_and_reasons() {
        let index = index();
        let by_bob = r#"RBAC: allowed by RoleBinding "reader/ns" of Role "reader" to User "bob""#;
        let bob = user("bob", &[]);
        let ask =
            |verb, group, resource| Attributes::resource(&bob, verb, group, resource).in_namespace("ns");
        for (request, reason) in [
            (ask("get", "", "pods"), by_bob),
            (ask("get", "", "pods").of_subresource("log").named("x"), by_bob),
            (ask("patch", "", "pods").of_subresource("status"), by_bob),
            (ask("watch", "apps", "deployments").of_subresource("scale"), by_bob),
            (ask("get", "", "secrets").named("mine"), by_bob),
            (ask("get", "", "secrets").named("other"), ""),
            (ask("get", "", "secrets"), ""),
            (ask("list", "", "secrets").named("mine"), ""),
            (ask("delete", "", "pods"), ""),
            (ask("get", "", "pods").of_subresource("exec"), ""),
            (ask("get", "apps", "pods"), ""),
            (ask("GET", "", "pods"), ""),
            (ask("*", "", "pods"), ""),
            (ask("get", "", "pods").in_namespace("default"), ""),
            (ask("get", "", "pods").in_namespace(""), ""),
        ] {
            let decision = index.authorize(&request);
            assert_eq!(decision.reason, reason, "{request:?}");
            assert_eq!(decision.allowed, !reason.is_empty(), "{request:?}");
        }
        for (who, verb, group, resource, allowed, reason) in [
            (
                user("eve", &["x", "team"]),
                "get",
                "",
                "pods",
                true,
                r#"RBAC: allowed by RoleBinding "reader-group/ns" of Role "reader" to Group "team""#,
            ),
            (
                user("system:serviceaccount:ns:robot", &[]),
                "list",
                "",
                "pods",
                true,
                r#"RBAC: allowed by RoleBinding "reader-sa/ns" of Role "reader" to ServiceAccount "robot/ns""#,
            ),
            (user("system:serviceaccount:default:robot", &[]), "list", "", "pods", false, ""),
            (
                user("carol", &[]),
                "create",
                "authentication.k8s.io",
                "tokenreviews",
                true,
                r#"RBAC: allowed by RoleBinding "viewer/ns" of ClusterRole "delegator" to User "carol""#,
            ),
            (
                user("dave", &[]),
                "get",
                "",
                "pods",
                false,
                r#"RBAC: role.rbac.authorization.k8s.io "no-such-role" not found"#,
            ),
            (user("Bob", &[]), "get", "", "pods", false, ""),
        ] {
            let decision =
                index.authorize(&Attributes::resource(&who, verb, group, resource).in_namespace("ns"));
            assert_eq!((decision.allowed, decision.reason.as_str()), (allowed, reason), "{who:?}");
            assert_eq!(decision.evaluation_error, "");
        }
    }

    /// A thousand small bindings of one large role: looked at or listed for each it would be gigabytes.
    #[test]
    fn a_large_role_counts_once_however_many_bindings_give_it() {
        let index = Index::new();
        let names: Vec<String> = (0..20_000).map(|i| format!("name-{i}")).collect();
        let rule =
            json!({"apiGroups": [""], "resources": ["pods"], "resourceNames": names, "verbs": ["get"]});
        index.apply("roles", "ns", "large", Some(&json!({"rules": [rule]})));
        let small = json!({"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]});
        index.apply("roles", "ns", "small", Some(&json!({"rules": [small]})));
        for i in 0..5000 {
            let role = if i % 2 == 0 { "large" } else { "small" };
            let subjects = json!([{"kind": "User", "name": "bob"}]);
            index.apply("rolebindings", "ns", &format!("b{i:04}"), Some(&binding("Role", role, subjects)));
        }
        let bob = user("bob", &[]);
        let rules = index.rules_for(&bob, "ns");
        assert!(!rules.incomplete);
        let large = rules.rules.iter().filter(|rule| rule.resource_names.len() == 20_000).count();
        // Once, and again as often as goes into what may be repeated.
        assert!((1..10).contains(&large), "{large}");
        assert!((1..2500).contains(&(rules.rules.len() - large)), "{}", rules.rules.len());
        let ask = |resource, name| {
            index
                .authorize(&Attributes::resource(&bob, "get", "", resource).in_namespace("ns").named(name))
                .reason
        };
        assert!(ask("pods", "name-19999").contains("RoleBinding \"b0000/ns\""));
        assert!(ask("secrets", "x").contains("RoleBinding \"b0001/ns\""));
        assert_eq!(ask("pods", "other"), "");
    }

    /// With a look at each group of the user for each subject of the binding this would take minutes.
    #[test]
    fn the_subject_that_applies_is_found_without_searching() {
        let index = Index::new();
        let names: Vec<String> = (0..50_000).map(|i| format!("group-{i}")).collect();
        let subjects: Vec<Value> = names
            .iter()
            .map(|name| json!({"kind": "Group", "name": name}))
            .chain([json!({"kind": "Group", "name": "team"}), json!({"kind": "Group", "name": "team"})])
            .collect();
        index.apply(
            "clusterroles",
            "",
            "all",
            Some(&json!({"rules": [
            {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]})),
        );
        index.apply("clusterrolebindings", "", "many", Some(&binding("ClusterRole", "all", subjects.into())));
        let groups: Vec<String> = (0..50_000).map(|i| format!("other-{i}")).chain(["team".into()]).collect();
        let user = UserInfo { name: "eve".into(), groups, ..UserInfo::default() };
        for _ in 0..10 {
            let decision = index.authorize(&Attributes::resource(&user, "get", "", "pods"));
            assert!(
                decision.reason.ends_with("of ClusterRole \"all\" to Group \"team\""),
                "{}",
                decision.reason
            );
        }
    }

    #[test]
    fn changes_take_effect_and_leave_nothing_behind() {
        let index = index();
        let bob = user("bob", &["team"]);
        let pods = Attributes::resource(&bob, "get", "", "pods").in_namespace("ns");
        index.apply("rolebindings", "ns", "reader", Some(&binding("Role", "reader", json!([]))));
        assert_eq!(
            index.authorize(&pods).reason,
            r#"RBAC: allowed by RoleBinding "reader-group/ns" of Role "reader" to Group "team""#
        );
        index.apply("roles", "ns", "reader", None);
        let refused = index.authorize(&pods);
        assert_eq!(refused.reason, r#"RBAC: role.rbac.authorization.k8s.io "reader" not found"#);
        for name in ["reader", "reader-group", "reader-sa", "viewer", "missing"] {
            index.apply("rolebindings", "ns", name, None);
        }
        index.apply("clusterroles", "", "delegator", None);
        assert!(index.scopes.read().is_empty());
    }

    #[test]
    fn rules_come_cluster_first_then_by_name_and_errors_are_told_once() {
        let index = index();
        let ask = json!({"rules": [{"apiGroups": ["a"], "resources": ["asks"], "verbs": ["create"]}]});
        index.apply("clusterroles", "", "ask", Some(&ask));
        let subjects = json!([{"kind": "Group", "name": "team"}, {"kind": "User", "name": "bob"}]);
        index.apply("clusterrolebindings", "", "zz", Some(&binding("ClusterRole", "ask", subjects.clone())));
        for name in ["gone1", "gone2"] {
            index.apply("rolebindings", "ns", name, Some(&binding("Role", "gone", subjects.clone())));
        }
        let found = index.rules_for(&user("bob", &["team"]), "ns");
        assert_eq!(found.rules[0].resources, ["asks"]);
        // Both the user's and the group's binding apply.
        assert_eq!(found.rules.len(), 1 + 4 + 4);
        assert!(!found.incomplete);
        assert_eq!(join_errors(&found.errors), r#"role.rbac.authorization.k8s.io "gone" not found"#);
        assert_eq!(index.rules_for(&user("bob", &[]), "").rules.len(), 1);
    }

    #[test]
    fn cluster_accounts_need_a_namespace_and_roles_do_not_cross_scopes() {
        let index = index();
        let subjects = json!([{"kind": "ServiceAccount", "name": "robot"}, {"kind": "User", "name": "zoe"}]);
        index.apply("clusterrolebindings", "", "b", Some(&binding("Role", "reader", subjects)));
        let zoe = user("zoe", &[]);
        let refused = index.authorize(&Attributes::resource(&zoe, "get", "", "pods").in_namespace("ns"));
        assert_eq!(refused.reason, r#"RBAC: role.rbac.authorization.k8s.io "reader" not found"#);
        let robot = user("system:serviceaccount::robot", &[]);
        assert!(index.rules_for(&robot, "").errors.is_empty());
    }
}
