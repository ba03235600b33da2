//! Acting as another user (`k8s.io/apiserver/pkg/endpoints/filters/impersonation`).
//!
//! Since Kubernetes 1.36 impersonation can be constrained: who may act as whom (`impersonate:MODE`), and for what
//! (`impersonate-on:MODE:VERB` on the requested resource). The modes tell nodes, service accounts and other users
//! apart; what none of them allows may still be allowed by the old verb `impersonate`, which is good for
//! everything.

use super::messages::forbidden;
use super::{Attributes, Authorizer};
use fleetpass_apimachinery::field::{self, Error, Path, go_quote};
use fleetpass_apimachinery::status::Status;
use fleetpass_apimachinery::user::{
    ALL_AUTHENTICATED, ALL_UNAUTHENTICATED, ANONYMOUS, SYSTEM_MASTERS, UserInfo,
};
use fleetpass_apimachinery::validation::names;
use http::{HeaderMap, HeaderName};
use parking_lot::Mutex;
use percent_encoding::percent_decode_str;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

const USER: &str = "impersonate-user";
const UID: &str = "impersonate-uid";
const GROUP: &str = "impersonate-group";
const EXTRA: &str = "impersonate-extra-";
/// The API group in which constrained impersonation names what may be impersonated.
const AUTHENTICATION: &str = "authentication.k8s.io";
/// The key in `extra` under which a pod's token carries its node.
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
/// The key in `extra` under which an authorizer sees the keys of the requester's `extra`, not their values.
const NODE_KEYS: &str = "authentication.kubernetes.io/associated-node-keys";
/// From this many groups or extra values on, a permission for all of them is looked for first: one decision instead of one
/// for each.
const WILDCARD_FROM: usize = 4;

/// A way in which one user may act as another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A pod's service account as the node that the pod runs on.
    AssociatedNode,
    /// Anyone as a node.
    ArbitraryNode,
    /// Anyone as a service account.
    ServiceAccount,
    /// Anyone as a user that is neither, with any groups, UID and extra.
    UserInfo,
    /// By the verb `impersonate`.
    Legacy,
}

impl Mode {
    /// In the order in which they are tried: from the narrowest right to the widest.
    const ALL: [Self; 5] =
        [Self::AssociatedNode, Self::ArbitraryNode, Self::ServiceAccount, Self::UserInfo, Self::Legacy];

    /// The verb that allows to act as someone; the audit log calls it the constraint.
    pub fn verb(self) -> &'static str {
        match self {
            Self::AssociatedNode => "impersonate:associated-node",
            Self::ArbitraryNode => "impersonate:arbitrary-node",
            Self::ServiceAccount => "impersonate:serviceaccount",
            Self::UserInfo => "impersonate:user-info",
            Self::Legacy => "impersonate",
        }
    }

    /// Whether the mode is one of constrained impersonation, and not the verb `impersonate`.
    pub fn constrained(self) -> bool {
        self != Self::Legacy
    }

    /// The verb on the requested resource that this mode asks for besides; none for the verb `impersonate`.
    fn verb_on(self, verb: &str) -> Option<String> {
        self.verb().strip_prefix("impersonate:").map(|mode| format!("impersonate-on:{mode}:{verb}"))
    }

    /// Whether the mode can be used to act as `wanted`.
    fn fits(self, wanted: &UserInfo, requester: &UserInfo) -> bool {
        // Nodes and service accounts have the groups that they always have, and cannot be given others.
        let only_name = wanted.uid.is_empty() && wanted.groups.is_empty() && wanted.extra.is_empty();
        let (node, account) = (node_name(&wanted.name), service_account(&wanted.name));
        match self {
            Self::AssociatedNode => only_name && node.is_some() && runs_on(requester, node),
            Self::ArbitraryNode => only_name && node.is_some(),
            Self::ServiceAccount => only_name && account.is_some(),
            Self::UserInfo => node.is_none() && account.is_none(),
            Self::Legacy => true,
        }
    }
}

/// Whom a request acts as, and why it may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Impersonated {
    /// The user that the rest of the request belongs to.
    pub user: UserInfo,
    /// The mode that allowed it.
    pub mode: Mode,
}

/// Finds out whom a request wants to act as, and whether `request.user`, who sent it, may. `Ok(None)`: it has no
/// impersonation headers. `first` is the mode by which this user's last impersonation was allowed (see
/// [`ModeCache`]); it is tried first.
///
/// # Errors
/// 400 for headers that name no user or are not UTF-8. 403, worded by the first mode that fits and refuses.
pub fn impersonate(
    headers: &HeaderMap,
    request: &Attributes<'_>,
    first: Option<Mode>,
    authorizer: &dyn Authorizer,
) -> Result<Option<Impersonated>, Status> {
    let Some(wanted) = wanted_user(headers)? else { return Ok(None) };
    let mut refusal = None;
    let others = Mode::ALL.into_iter().filter(|mode| Some(*mode) != first);
    for mode in first.into_iter().chain(others).filter(|mode| mode.fits(&wanted, &request.user)) {
        // The first refusal is the one that clients see: that of the mode they most likely meant.
        match (Check { mode, request, authorizer }).act_as(&wanted) {
            Ok(user) => return Ok(Some(Impersonated { user, mode })),
            Err(status) => refusal = refusal.or(Some(status)),
        }
    }
    // The last mode fits everyone, so there is a refusal here; without one it would still not be a yes.
    Err(refusal.unwrap_or_else(|| Status::internal("all impersonation modes failed")))
}

/// Takes all impersonation headers away, so that nothing that handles the request later acts on them.
pub fn remove_headers(headers: &mut HeaderMap) {
    let impersonates =
        |name: &&HeaderName| matches!(name.as_str(), USER | UID | GROUP) || name.as_str().starts_with(EXTRA);
    // Collected first, as the map cannot be changed while its keys are looked at. Mostly there are none, and nothing is copied.
    let names: Vec<HeaderName> = headers.keys().filter(impersonates).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

/// Whom the headers ask for, exactly as they say it.
fn wanted_user(headers: &HeaderMap) -> Result<Option<UserInfo>, Status> {
    let text = |value: &http::HeaderValue| {
        std::str::from_utf8(value.as_bytes())
            .map(str::to_owned)
            .map_err(|_| Status::bad_request("impersonation headers must be valid UTF-8"))
    };
    // Of a user or UID that is given more than once the first counts, as with Go's `Header.Get`.
    let one = |name| headers.get(name).map_or(Ok(String::new()), text);
    let mut wanted = UserInfo { name: one(USER)?, uid: one(UID)?, ..UserInfo::default() };
    wanted.groups = headers.get_all(GROUP).iter().map(text).collect::<Result<_, _>>()?;
    for (name, value) in headers {
        if let Some(key) = name.as_str().strip_prefix(EXTRA) {
            wanted.extra.entry(unescape(key)).or_default().push(text(value)?);
        }
    }
    if !wanted.name.is_empty() {
        return Ok(Some(wanted));
    }
    // Headers without a user are refused and not ignored: the client believes that it acts with fewer rights than its own.
    if wanted == UserInfo::default() {
        return Ok(None);
    }
    Err(Status::bad_request(format!("requested {} without impersonating a user name", go_syntax(&wanted))))
}

/// The key of an extra header: percent-decoded, or as it is where that does not work.
fn unescape(key: &str) -> String {
    // `percent_decode_str` leaves malformed escapes as they are, and decodes the good ones beside them; Go decodes all or none.
    let well_formed = key
        .split('%')
        .skip(1)
        .all(|rest| rest.as_bytes().get(..2).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)));
    let decoded = percent_decode_str(key).decode_utf8().ok().filter(|_| well_formed);
    decoded.map_or_else(|| key.to_owned(), Cow::into_owned)
}

/// A user as Go's `%#v` prints it.
fn go_syntax(user: &UserInfo) -> String {
    let strings = |list: &[String]| {
        let quoted: Vec<String> = list.iter().map(|s| go_quote(s)).collect();
        format!("[]string{{{}}}", quoted.join(", "))
    };
    let groups = if user.groups.is_empty() { "[]string(nil)".into() } else { strings(&user.groups) };
    let entries: Vec<String> =
        user.extra.iter().map(|(k, v)| format!("{}:{}", go_quote(k), strings(v))).collect();
    let extra = if entries.is_empty() { "(nil)".into() } else { format!("{{{}}}", entries.join(", ")) };
    format!(
        "&user.DefaultInfo{{Name:{}, UID:{}, Groups:{groups}, Extra:map[string][]string{extra}}}",
        go_quote(&user.name),
        go_quote(&user.uid)
    )
}

/// One mode that is tried for one request.
struct Check<'a> {
    mode: Mode,
    request: &'a Attributes<'a>,
    authorizer: &'a dyn Authorizer,
}

impl Check<'_> {
    /// The user to go on with, if the mode allows it.
    fn act_as(&self, wanted: &UserInfo) -> Result<UserInfo, Status> {
        if let Some(verb) = self.mode.verb_on(self.request.verb) {
            self.authorize(Attributes { verb: &verb, ..self.request.clone() })?;
        }
        let mut user = wanted.clone();
        self.name(wanted, &mut user)?;
        if !wanted.uid.is_empty() {
            self.authorize(self.whom(AUTHENTICATION, "uids").named(&wanted.uid))?;
        }
        self.groups(&wanted.groups)?;
        self.extra(&wanted.extra)?;
        // Only after the checks, because nobody needs a right to these two groups. `system:unauthenticated` may be asked for;
        // such a user is not in `system:authenticated` as well.
        let group = if user.name == ANONYMOUS { ALL_UNAUTHENTICATED } else { ALL_AUTHENTICATED };
        if !user.in_group(group) && !user.in_group(ALL_UNAUTHENTICATED) {
            user.groups.push(group.into());
        }
        Ok(user)
    }

    /// Checks the name, and gives nodes and service accounts the groups that they always have.
    fn name(&self, wanted: &UserInfo, user: &mut UserInfo) -> Result<(), Status> {
        let group = self.name_group();
        if let Some(node) = node_name(&wanted.name).filter(|_| self.mode.constrained()) {
            user.groups = vec!["system:nodes".into()];
            return self.authorize(self.whom(group, "nodes").named(node));
        }
        if let Some((namespace, name)) = service_account(&wanted.name) {
            // By the verb `impersonate` an account may be given other groups instead.
            if wanted.groups.is_empty() {
                user.groups =
                    vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}")];
            }
            return self.authorize(self.whom(group, "serviceaccounts").in_namespace(namespace).named(name));
        }
        self.authorize(self.whom(group, "users").named(&wanted.name))
    }

    /// Checks the groups that were asked for.
    fn groups(&self, groups: &[String]) -> Result<(), Status> {
        let whom = || self.whom(self.name_group(), "groups");
        if self.mode.constrained() {
            if groups.iter().any(String::is_empty) {
                return Err(forbidden(&whom(), "impersonating the empty string group is not allowed"));
            }
            // That would be a way to all rights, whatever the constraint.
            if groups.iter().any(|g| g == SYSTEM_MASTERS) {
                let why = "impersonating the system:masters group is not allowed";
                return Err(forbidden(&whom().named(SYSTEM_MASTERS), why));
            }
            if groups.len() >= WILDCARD_FROM && self.authorize(whom().named("*")).is_ok() {
                return Ok(());
            }
        }
        groups.iter().try_for_each(|group| self.authorize(whom().named(group)))
    }

    /// Checks the extra fields that were asked for.
    fn extra(&self, extra: &BTreeMap<String, Vec<String>>) -> Result<(), Status> {
        let whom = || self.whom(AUTHENTICATION, "userextras");
        if self.mode.constrained() {
            validate_extra(extra).map_err(|why| forbidden(&whom(), &why))?;
            let values = extra.values().map(Vec::len).sum::<usize>();
            let many = extra.len() >= WILDCARD_FROM || values >= WILDCARD_FROM;
            if many && self.authorize(whom().of_subresource("*").named("*")).is_ok() {
                return Ok(());
            }
        }
        let mut values = extra.iter().flat_map(|(key, values)| values.iter().map(move |value| (key, value)));
        values.try_for_each(|(key, value)| self.authorize(whom().of_subresource(key).named(value)))
    }

    /// The API group of users, groups, service accounts and nodes: the verb `impersonate` has them in the core group.
    fn name_group(&self) -> &'static str {
        if self.mode.constrained() { AUTHENTICATION } else { "" }
    }

    /// The right to impersonate `resource`.
    fn whom(&self, group: &'static str, resource: &'static str) -> Attributes<'_> {
        Attributes::resource(&self.request.user, self.mode.verb(), group, resource).of_version("v1")
    }

    /// Asks the authorizer. Errors: the 403, with what the authorizer said.
    fn authorize(&self, mut attributes: Attributes<'_>) -> Result<(), Status> {
        if self.mode == Mode::AssociatedNode {
            // The right is to act as the node that one runs on, whichever it is. So the authorizer sees neither the node's name
            // nor the values in `extra` that tell it, only the keys; its decision is then the same for all nodes.
            let mut user = attributes.user.into_owned();
            let keys = std::mem::take(&mut user.extra).into_keys().collect();
            user.extra.insert(NODE_KEYS.into(), keys);
            attributes.user = Cow::Owned(user);
            if attributes.verb == self.mode.verb() {
                attributes.name = "*";
            }
        }
        let decision = self.authorizer.authorize(&attributes);
        if decision.allowed {
            return Ok(());
        }
        let (reason, error) = (decision.reason, decision.evaluation_error);
        let why = match (error.is_empty(), reason.is_empty()) {
            (true, _) => reason,
            (false, true) => error,
            (false, false) => format!("{error}: {reason}"),
        };
        Err(forbidden(&attributes, &why))
    }
}

/// What constrained modes demand of extra fields. Errors: the first rule that is broken.
fn validate_extra(extra: &BTreeMap<String, Vec<String>>) -> Result<(), String> {
    for (key, values) in extra {
        if key.is_empty() {
            return Err("impersonating the empty string key in extra is not allowed".into());
        }
        let errors = domain_prefixed_path(key);
        if !errors.is_empty() {
            let errors = field::aggregate(&errors);
            return Err(format!("impersonating an invalid key in extra is not allowed: {errors}"));
        }
        if key.to_lowercase() != *key {
            return Err(format!(
                "impersonating a non-lowercase key in extra is not allowed: {}",
                go_quote(key)
            ));
        }
        if values.iter().any(String::is_empty) {
            return Err("impersonating the empty string value in extra is not allowed".into());
        }
    }
    Ok(())
}

/// What is wrong with a path such as `acme.io/foo` (`IsDomainPrefixedPath`).
fn domain_prefixed_path(key: &str) -> field::ErrorList {
    let field = Path::new("extra.key");
    let Some((host, path)) = key.split_once('/').filter(|(host, path)| !host.is_empty() && !path.is_empty())
    else {
        let detail = "must be a domain-prefixed path (such as \"acme.io/foo\")";
        return [Error::invalid(&field, key, detail)].into();
    };
    let bad_host = names::is_dns1123_subdomain(host, false).into_iter();
    let mut errors: field::ErrorList = bad_host.map(|m| Error::invalid(&field, host, m)).collect();
    if !path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&b)) {
        let detail = "Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')";
        errors.push(Error::invalid(&field, path, detail));
    }
    errors
}

/// Namespace and name in the user name of a service account.
fn service_account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    let valid = names::is_dns1123_label(namespace, false).is_empty()
        && names::is_dns1123_subdomain(name, false).is_empty();
    valid.then_some((namespace, name))
}

/// The node in the user name of a node.
fn node_name(user: &str) -> Option<&str> {
    user.strip_prefix("system:node:").filter(|name| names::is_dns1123_subdomain(name, false).is_empty())
}

/// Whether a user is the service account of a pod on this node.
fn runs_on(requester: &UserInfo, node: Option<&str>) -> bool {
    let nodes = requester.extra.get(NODE_NAME).map_or(&[] as &[String], Vec::as_slice);
    service_account(&requester.name).is_some()
        && nodes.len() == 1
        && nodes.first().map(String::as_str) == node
}

/// By which mode each user's last impersonation was allowed: whoever impersonates tends to do it in one way, and the
/// other ways need not be tried each time. Holds some ten thousand users, the recent ones. It only changes the order in which
/// modes are tried: every one of them is still authorized, so a stale entry allows nothing.
// One lock for all: it is taken only by requests that impersonate, and held for a lookup or an insert.
#[derive(Default)]
pub struct ModeCache(Mutex<Generations>);

/// When `young` is full it becomes `old`, and what had been old is forgotten.
#[derive(Default)]
struct Generations {
    young: HashMap<String, Mode>,
    old: HashMap<String, Mode>,
}

impl ModeCache {
    /// The users of one generation.
    const GENERATION: usize = 5_000;

    /// An empty cache.
    pub fn new() -> Self {
        Self::default()
    }
    /// The mode that worked last for a user, if that is still known.
    pub fn get(&self, user: &str) -> Option<Mode> {
        let generations = self.0.lock();
        generations.young.get(user).or_else(|| generations.old.get(user)).copied()
    }
    /// Remembers that a mode worked for a user.
    pub fn set(&self, user: &str, mode: Mode) {
        let mut generations = self.0.lock();
        if generations.young.len() >= Self::GENERATION && !generations.young.contains_key(user) {
            generations.old = std::mem::take(&mut generations.young);
        }
        generations.young.insert(user.to_owned(), mode);
    }
}

#[cfg(test)]
mod tests {
    use super::super::rbac::Index;
    use super::*;
    use serde_json::json;

    /// `limited` may be bob, the account `robot` and the node `n1`, to create reviews; `deputy` may impersonate
    /// in the old way; `boss` may do everything; `agent` may be the node that it runs on.
    fn index() -> Index {
        let index = Index::new();
        let rule = |verbs: &[&str], group: &str, resource: &str, names: &[&str]| json!({"verbs": verbs, "apiGroups": [group], "resources": [resource], "resourceNames": names});
        let on = "impersonate-on:";
        let on_reviews = |modes: &[&str]| {
            let verbs: Vec<String> = modes.iter().map(|mode| format!("{on}{mode}:create")).collect();
            json!({"verbs": verbs, "apiGroups": [AUTHENTICATION], "resources": ["selfsubjectreviews"]})
        };
        let extra = |verb: &str, key: &str, value: &str| {
            rule(&[verb], AUTHENTICATION, &format!("userextras/{key}"), &[value])
        };
        for (name, rules) in [
            (
                "limited",
                json!([
                    rule(&["impersonate:user-info"], AUTHENTICATION, "users", &["bob"]),
                    rule(&["impersonate:user-info"], AUTHENTICATION, "groups", &["*"]),
                    rule(&["impersonate:serviceaccount"], AUTHENTICATION, "serviceaccounts", &["robot"]),
                    rule(&["impersonate:arbitrary-node"], AUTHENTICATION, "nodes", &["n1"]),
                    on_reviews(&["user-info", "serviceaccount", "arbitrary-node"]),
                ]),
            ),
            (
                "deputy",
                json!([
                    rule(&["impersonate"], "", "users", &["bob"]),
                    rule(&["impersonate"], "", "groups", &["ops"]),
                    rule(&["impersonate"], AUTHENTICATION, "uids", &["1234"]),
                    extra("impersonate", "scopes", "view"),
                    rule(&["impersonate"], "", "serviceaccounts", &["robot"]),
                ]),
            ),
            ("boss", json!([rule(&["*"], "*", "*", &[])])),
            (
                "agent",
                json!([
                    rule(&["impersonate:associated-node"], AUTHENTICATION, "nodes", &["*"]),
                    on_reviews(&["associated-node"]),
                ]),
            ),
        ] {
            index.apply("clusterroles", "", name, Some(&json!({"rules": rules})));
            let binding = json!({"roleRef": {"kind": "ClusterRole", "name": name},
                "subjects": [{"kind": "ServiceAccount", "namespace": "ns", "name": name}]});
            index.apply("clusterrolebindings", "", name, Some(&binding));
        }
        index
    }

    fn ask(who: &str, headers: &[(&str, &str)], first: Option<Mode>) -> Result<Option<Impersonated>, String> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::try_from(format!("Impersonate-{name}")).unwrap(), value.parse().unwrap());
        }
        let mut user = UserInfo { name: format!("system:serviceaccount:ns:{who}"), ..UserInfo::default() };
        user.extra.insert(NODE_NAME.into(), vec!["n7".into()]);
        let request = Attributes::resource(&user, "create", AUTHENTICATION, "selfsubjectreviews");
        impersonate(&map, &request, first, &index())
            .map_err(|status| format!("{} {}", status.code, status.message))
    }

    fn groups(who: &str, headers: &[(&str, &str)], first: Option<Mode>) -> (Vec<String>, Mode) {
        let found = ask(who, headers, first).unwrap().unwrap();
        (found.user.groups, found.mode)
    }

    const ROBOT: (&str, &str) = ("User", "system:serviceaccount:ns:robot");

    #[test]
    fn who_may() {
        let authenticated = "system:authenticated";
        let robots = ["system:serviceaccounts", "system:serviceaccounts:ns", authenticated];
        let (bob, node) = (("User", "bob"), ("User", "system:node:n1"));
        for (who, headers, first, expected, mode) in [
            ("limited", vec![bob], None, vec![authenticated], Mode::UserInfo),
            ("limited", vec![ROBOT], None, robots.to_vec(), Mode::ServiceAccount),
            ("limited", vec![node], None, vec!["system:nodes", authenticated], Mode::ArbitraryNode),
            (
                "agent",
                vec![("User", "system:node:n7")],
                None,
                vec!["system:nodes", authenticated],
                Mode::AssociatedNode,
            ),
            ("deputy", vec![bob, ("Group", "ops")], None, vec!["ops", authenticated], Mode::Legacy),
            (
                "deputy",
                vec![bob, ("Uid", "1234"), ("Extra-Scopes", "view")],
                None,
                vec![authenticated],
                Mode::Legacy,
            ),
            ("deputy", vec![ROBOT], None, robots.to_vec(), Mode::Legacy),
            ("boss", vec![node], None, vec!["system:nodes", authenticated], Mode::ArbitraryNode),
            ("boss", vec![node, ("Group", "ops")], None, vec!["ops", authenticated], Mode::Legacy),
            // What worked last is tried first, and the old verb knows no groups of nodes.
            ("boss", vec![node], Some(Mode::Legacy), vec![authenticated], Mode::Legacy),
            ("boss", vec![("User", ANONYMOUS)], None, vec![ALL_UNAUTHENTICATED], Mode::UserInfo),
            (
                "boss",
                vec![bob, ("Group", ALL_UNAUTHENTICATED)],
                None,
                vec![ALL_UNAUTHENTICATED],
                Mode::UserInfo,
            ),
            (
                "boss",
                vec![bob, ("Group", SYSTEM_MASTERS)],
                None,
                vec![SYSTEM_MASTERS, authenticated],
                Mode::Legacy,
            ),
            (
                "limited",
                vec![bob, ("Group", "a"), ("Group", "b"), ("Group", "c"), ("Group", "d")],
                None,
                vec!["a", "b", "c", "d", authenticated],
                Mode::UserInfo,
            ),
        ] {
            let (found, by) = groups(who, &headers, first);
            assert_eq!(
                (found, by),
                (expected.into_iter().map(String::from).collect(), mode),
                "{who} {headers:?}"
            );
        }
        let found = ask(
            "boss",
            &[bob, ("Uid", "u"), ("Extra-acme.io%2Ffoo", "1"), ("Extra-acme.io%2ffoo", "2")],
            None,
        );
        let user = found.unwrap().unwrap().user;
        assert_eq!((user.name.as_str(), user.uid.as_str()), ("bob", "u"));
        assert_eq!(user.extra, BTreeMap::from([("acme.io/foo".into(), vec!["1".into(), "2".into()])]));
        assert_eq!(ask("nobody", &[], None), Ok(None));
    }

    #[test]
    fn refusals_are_worded_by_the_first_mode_that_fits() {
        let on = |mode: &str| {
            format!(
                r#"403 selfsubjectreviews.authentication.k8s.io is forbidden: User "system:serviceaccount:ns:nobody" cannot impersonate-on:{mode}:create resource "selfsubjectreviews" in API group "authentication.k8s.io" at the cluster scope"#
            )
        };
        let bob = ("User", "bob");
        for (headers, mode) in [
            (vec![bob], "user-info"),
            (vec![bob, ("Group", "ops")], "user-info"),
            (vec![ROBOT], "serviceaccount"),
            (vec![("User", "system:node:n1")], "arbitrary-node"),
            (vec![("User", "system:node:n7")], "associated-node"),
            (vec![("User", "system:anonymous")], "user-info"),
        ] {
            assert_eq!(ask("nobody", &headers, None), Err(on(mode)));
        }
        let text = |who: &str, verb: &str, what: &str, name: &str, group: &str, scope: &str| {
            let gr = if group.is_empty() { what.to_string() } else { format!("{what}.{group}") };
            format!(
                r#"403 {gr} "{name}" is forbidden: User "system:serviceaccount:ns:{who}" cannot {verb} resource "{what}" in API group "{group}" {scope}"#
            )
        };
        let cluster = "at the cluster scope";
        let robot =
            text("limited", "impersonate", "serviceaccounts", "robot", "", r#"in the namespace "ns""#);
        for (who, headers, first, message) in [
            ("limited", vec![ROBOT, ("Group", "ops")], None, robot),
            (
                "limited",
                vec![("User", "carol")],
                None,
                text("limited", "impersonate:user-info", "users", "carol", AUTHENTICATION, cluster),
            ),
            (
                "limited",
                vec![("User", "system:node:n2")],
                None,
                text("limited", "impersonate:arbitrary-node", "nodes", "n2", AUTHENTICATION, cluster),
            ),
            (
                "deputy",
                vec![("User", "carol")],
                Some(Mode::Legacy),
                text("deputy", "impersonate", "users", "carol", "", cluster),
            ),
            (
                "deputy",
                vec![bob, ("Group", "ops"), ("Group", "admins")],
                Some(Mode::Legacy),
                text("deputy", "impersonate", "groups", "admins", "", cluster),
            ),
            (
                "deputy",
                vec![bob, ("Extra-Color", "red")],
                Some(Mode::Legacy),
                text("deputy", "impersonate", "userextras", "red", AUTHENTICATION, cluster)
                    .replace("\"userextras\"", "\"userextras/color\""),
            ),
            (
                "limited",
                vec![bob, ("Group", SYSTEM_MASTERS)],
                None,
                text("limited", "impersonate:user-info", "groups", SYSTEM_MASTERS, AUTHENTICATION, cluster)
                    + ": impersonating the system:masters group is not allowed",
            ),
        ] {
            assert_eq!(ask(who, &headers, first), Err(message));
        }
    }

    #[test]
    fn headers_without_a_user() {
        assert_eq!(
            ask("boss", &[("Group", "ops")], None),
            Err(r#"400 requested &user.DefaultInfo{Name:"", UID:"", Groups:[]string{"ops"}, Extra:map[string][]string(nil)} without impersonating a user name"#.into())
        );
        assert_eq!(
            ask("boss", &[("Uid", "1"), ("Extra-b", "x"), ("Extra-A", "y"), ("Extra-a", "z")], None),
            Err(r#"400 requested &user.DefaultInfo{Name:"", UID:"1", Groups:[]string(nil), Extra:map[string][]string{"a":[]string{"y", "z"}, "b":[]string{"x"}}} without impersonating a user name"#.into())
        );
        let mut headers = HeaderMap::new();
        for name in
            ["impersonate-user", "impersonate-extra-a", "impersonate-group", "impersonate-uid", "accept"]
        {
            headers.append(name, "x".parse().unwrap());
        }
        remove_headers(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["accept"]);
    }

    #[test]
    fn extra_keys() {
        for (key, error) in [
            ("acme.io/foo", ""),
            ("acme.io/Foo", r#"impersonating a non-lowercase key in extra is not allowed: "acme.io/Foo""#),
            (
                "scopes",
                r#"impersonating an invalid key in extra is not allowed: extra.key: Invalid value: "scopes": must be a domain-prefixed path (such as "acme.io/foo")"#,
            ),
            ("", "impersonating the empty string key in extra is not allowed"),
        ] {
            let extra = BTreeMap::from([(key.to_string(), vec!["v".to_string()])]);
            assert_eq!(validate_extra(&extra).err().unwrap_or_default(), error);
        }
        for (raw, key) in [("a%2fb", "a/b"), ("a%2", "a%2"), ("%zz", "%zz"), ("%ff", "%ff"), ("a", "a")] {
            assert_eq!(unescape(raw), key);
        }
    }

    #[test]
    fn the_cache_is_bounded_and_keeps_the_recent() {
        let cache = ModeCache::new();
        for i in 0..3 * ModeCache::GENERATION {
            cache.set(&i.to_string(), Mode::Legacy);
        }
        let size = |generations: &Generations| generations.young.len() + generations.old.len();
        assert!(size(&cache.0.lock()) <= 2 * ModeCache::GENERATION);
        assert_eq!(cache.get("0"), None);
        assert_eq!(cache.get(&(3 * ModeCache::GENERATION - 1).to_string()), Some(Mode::Legacy));
    }
}
