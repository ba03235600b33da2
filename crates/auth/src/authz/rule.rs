//! One rule of a role, and what it matches (`pkg/apis/rbac/v1/evaluation_helpers.go`).

use super::Attributes;
use fleetpass_apimachinery::field::go_quote;
use serde_json::{Map, Value};
use std::fmt;

/// A rule of a Role or ClusterRole (`rbac/v1.PolicyRule`): it allows every combination of what it lists.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PolicyRule {
    /// `*` or verbs.
    pub verbs: Vec<String>,
    /// `*` or groups; empty text is the core group.
    pub api_groups: Vec<String>,
    /// `*`, `pods`, `pods/log`, `*/scale`.
    pub resources: Vec<String>,
    /// Names; none means all.
    pub resource_names: Vec<String>,
    /// `*`, `/version`, `/apis/*`; only for requests that name no resource.
    pub non_resource_urls: Vec<String>,
}

impl PolicyRule {
    /// Reads a rule from its JSON form; whatever is not a list of strings counts as empty, and so allows nothing.
    pub fn from_json(value: &Value) -> Self {
        let list = |key: &str| {
            let items = value.get(key).and_then(Value::as_array).map_or(&[] as &[Value], Vec::as_slice);
            items.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect()
        };
        Self {
            verbs: list("verbs"),
            api_groups: list("apiGroups"),
            resources: list("resources"),
            resource_names: list("resourceNames"),
            non_resource_urls: list("nonResourceURLs"),
        }
    }

    /// The rules of a Role or ClusterRole.
    pub(crate) fn of_role(role: &Value) -> Vec<Self> {
        let rules = role.get("rules").and_then(Value::as_array);
        rules.map_or_else(Vec::new, |rules| rules.iter().map(Self::from_json).collect())
    }

    /// How many bytes the rule has, about: what it costs to look at it or to copy it.
    pub(crate) fn size(&self) -> usize {
        let lists =
            [&self.verbs, &self.api_groups, &self.resources, &self.resource_names, &self.non_resource_urls];
        lists.into_iter().flatten().map(|item| 8 + item.len()).sum()
    }

    /// The JSON form; empty lists are left out, except for verbs.
    pub fn to_json(&self) -> Value {
        let mut out = Map::new();
        for (key, list) in [
            ("apiGroups", &self.api_groups),
            ("resources", &self.resources),
            ("resourceNames", &self.resource_names),
            ("nonResourceURLs", &self.non_resource_urls),
        ] {
            if !list.is_empty() {
                out.insert(key.into(), list.clone().into());
            }
        }
        out.insert("verbs".into(), self.verbs.clone().into());
        out.into()
    }

    /// Whether the rule allows the request (`RuleAllows`). A list that is empty allows nothing, but for `resource_names`.
    pub(crate) fn allows(&self, request: &Attributes<'_>) -> bool {
        if !any(&self.verbs, |v| v == "*" || v == request.verb) {
            return false;
        }
        if !request.resource_request {
            return any(&self.non_resource_urls, |url| url_matches(url, request.path));
        }
        any(&self.api_groups, |g| g == "*" || g == request.group)
            && any(&self.resources, |r| resource_matches(r, request.resource, request.subresource))
            // A request without a name (a create, or a list of all) is not covered by a rule for certain names.
            && (self.resource_names.is_empty() || any(&self.resource_names, |n| n == request.name))
    }
}

/// As escalation messages print a rule: `{APIGroups:[""], Resources:["pods"], Verbs:["get" "list"]}`.
impl fmt::Display for PolicyRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            ("APIGroups", &self.api_groups),
            ("Resources", &self.resources),
            ("NonResourceURLs", &self.non_resource_urls),
            ("ResourceNames", &self.resource_names),
            ("Verbs", &self.verbs),
        ]
        .into_iter()
        .filter(|(_, list)| !list.is_empty())
        .map(|(name, list)| format!("{name}:{}", quote_list(list)));
        write!(f, "{{{}}}", parts.collect::<Vec<_>>().join(", "))
    }
}

/// A list of strings as Go's `%q` prints it: `["a" "b"]`.
pub(crate) fn quote_list(list: &[String]) -> String {
    format!("[{}]", list.iter().map(|s| go_quote(s)).collect::<Vec<_>>().join(" "))
}

/// Whether an item passes the test.
fn any(list: &[String], test: impl Fn(&str) -> bool) -> bool {
    list.iter().any(|item| test(item))
}

/// Whether the resource of a rule is the one of a request (`ResourceMatches`).
fn resource_matches(rule: &str, resource: &str, subresource: &str) -> bool {
    if rule == "*" {
        return true;
    }
    if subresource.is_empty() {
        return rule == resource;
    }
    // `pods/log` or `*/log`. Taken apart from its end without building a text: this runs for every rule of every request.
    // `pods/*` matches nothing, as in Go.
    rule.strip_suffix(subresource)
        .and_then(|rest| rest.strip_suffix('/'))
        .is_some_and(|parent| parent == resource || parent == "*")
}

/// Whether the path pattern of a rule covers a path; stars count only at its end.
pub(crate) fn url_matches(pattern: &str, path: &str) -> bool {
    // All stars at the end are cut off, as `strings.TrimRight` does; one in the middle stands for itself.
    pattern == path || (pattern.ends_with('*') && path.starts_with(pattern.trim_end_matches('*')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleetpass_apimachinery::user::UserInfo;
    use serde_json::json;

    #[test]
    fn resources_and_subresources() {
        let user = UserInfo::default();
        for (rule, resource, subresource, expected) in [
            ("*", "pods", "", true),
            ("*", "pods", "log", true),
            ("pods", "pods", "", true),
            ("pods", "pods", "log", false),
            ("pods/log", "pods", "log", true),
            ("pods/log", "pods", "", false),
            ("*/log", "pods", "log", true),
            ("*/log", "pods", "catalog", false),
            ("pods/*", "pods", "log", false),
            ("pods", "*", "", false),
        ] {
            let rule =
                PolicyRule::from_json(&json!({"verbs": ["get"], "apiGroups": [""], "resources": [rule]}));
            let request = Attributes::resource(&user, "get", "", resource).of_subresource(subresource);
            assert_eq!(rule.allows(&request), expected, "{rule} {resource}/{subresource}");
        }
    }

    #[test]
    fn paths() {
        let user = UserInfo::default();
        for (url, path, expected) in [
            ("*", "/anything", true),
            ("/healthz", "/healthz", true),
            ("/healthz", "/healthz/ping", false),
            ("/apis/*", "/apis/x/v1", true),
            ("/apis/*", "/apis", false),
            ("/a*b", "/axb", false),
        ] {
            let rule = PolicyRule::from_json(&json!({"verbs": ["get"], "nonResourceURLs": [url]}));
            assert_eq!(rule.allows(&Attributes::path(&user, "get", path)), expected, "{url} {path}");
            assert!(!rule.allows(&Attributes::path(&user, "post", path)));
            assert!(!rule.allows(&Attributes::resource(&user, "get", "", "pods")));
        }
    }
}
