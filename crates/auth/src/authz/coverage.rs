//! Do these rules allow all that those allow? (`Covers` and `CompactRules` in `k8s.io/component-helpers/auth/rbac/validation`.)
//!
//! A rule allows every combination of what it lists, so a body of some kilobytes can name billions. They are counted before
//! anything is done with them ([`combinations`]), and checked only up to [`MAX_COMBINATIONS`]. What is checked is not taken
//! apart: a rule of a user covers a *box* of the combinations of a wanted rule, so each pair of rules costs as many look-ups as
//! the wanted rule lists, and marks what it covers.

use super::PolicyRule;
use std::collections::{HashMap, HashSet};

/// How many combinations of verb, group, resource and name (or verb and path) are checked. The largest roles that ship with
/// Kubernetes have some hundred.
pub(super) const MAX_COMBINATIONS: usize = 10_000;

/// How many combinations the rules allow; saturates.
pub(super) fn combinations(rules: &[PolicyRule]) -> usize {
    let product = |lists: &[usize]| lists.iter().fold(1, |all: usize, len| all.saturating_mul(*len));
    rules.iter().fold(0, |all: usize, rule| {
        let verbs = rule.verbs.len();
        let names = rule.resource_names.len().max(1);
        let objects = product(&[rule.api_groups.len(), rule.resources.len(), verbs, names]);
        all.saturating_add(objects).saturating_add(product(&[rule.non_resource_urls.len(), verbs]))
    })
}

/// What `owned` lacks to allow all that `wanted` allows: rules of one resource and at most one name with the verbs that are
/// missing, and rules of one path and verb; empty if it lacks nothing. For at most [`MAX_COMBINATIONS`].
pub(super) fn uncovered(owned: &[PolicyRule], wanted: &[PolicyRule]) -> Vec<PolicyRule> {
    let owned: Vec<Held<'_>> = owned.iter().map(Held::of).collect();
    let mut missing = Missing::default();
    for rule in wanted {
        missing_objects(&owned, rule, &mut missing);
        missing_paths(&owned, rule, &mut missing);
    }
    missing.rules
}

/// A rule that the user holds, for look-ups.
struct Held<'a> {
    verbs: HashSet<&'a str>,
    groups: HashSet<&'a str>,
    resources: HashSet<&'a str>,
    /// `log` for `*/log`.
    subresources: HashSet<&'a str>,
    /// Empty: all names.
    names: HashSet<&'a str>,
    urls: Urls<'a>,
}

impl<'a> Held<'a> {
    fn of(rule: &'a PolicyRule) -> Self {
        let set = |list: &'a [String]| list.iter().map(String::as_str).collect();
        Self {
            verbs: set(&rule.verbs),
            groups: set(&rule.api_groups),
            resources: set(&rule.resources),
            subresources: rule.resources.iter().filter_map(|r| r.strip_prefix("*/")).collect(),
            names: set(&rule.resource_names),
            urls: Urls::of(&rule.non_resource_urls),
        }
    }

    /// A star in `wanted` is only covered by a star: whoever may do all that there is today may still not do what comes
    /// tomorrow.
    fn covers_resource(&self, wanted: &str) -> bool {
        self.resources.contains("*")
            || self.resources.contains(wanted)
            || wanted.split_once('/').is_some_and(|(_, sub)| self.subresources.contains(sub))
    }
}

fn listed(set: &HashSet<&str>, wanted: &str) -> bool {
    set.contains("*") || set.contains(wanted)
}

/// The places of those that the test accepts.
fn places(list: &[String], accepts: impl Fn(&str) -> bool) -> Vec<usize> {
    list.iter().enumerate().filter(|(_, item)| accepts(item)).map(|(at, _)| at).collect()
}

/// The combinations of verb, group, resource and name of `rule` that no rule of `owned` covers.
fn missing_objects(owned: &[Held<'_>], rule: &PolicyRule, missing: &mut Missing) {
    let names = rule.resource_names.len().max(1);
    let [groups, resources, verbs] = [&rule.api_groups, &rule.resources, &rule.verbs].map(Vec::len);
    let at = |g: usize, r: usize, v: usize, n: usize| ((g * resources + r) * verbs + v) * names + n;
    let mut covered = vec![false; groups * resources * verbs * names];
    let mut left = covered.len();
    for held in owned {
        if left == 0 {
            return;
        }
        // A rule for certain names does not cover one for all names.
        if rule.resource_names.is_empty() && !held.names.is_empty() {
            continue;
        }
        let box_names = match rule.resource_names.as_slice() {
            [] => vec![0],
            names => places(names, |name| held.names.is_empty() || held.names.contains(name)),
        };
        let box_verbs = places(&rule.verbs, |verb| listed(&held.verbs, verb));
        let box_groups = places(&rule.api_groups, |group| listed(&held.groups, group));
        let box_resources = places(&rule.resources, |resource| held.covers_resource(resource));
        for &g in &box_groups {
            for &r in &box_resources {
                for &v in &box_verbs {
                    for &n in &box_names {
                        let seen = std::mem::replace(&mut covered[at(g, r, v, n)], true);
                        left -= usize::from(!seen);
                    }
                }
            }
        }
    }
    for (g, group) in rule.api_groups.iter().enumerate() {
        for (r, resource) in rule.resources.iter().enumerate() {
            for (v, verb) in rule.verbs.iter().enumerate() {
                for n in (0..names).filter(|n| !covered[at(g, r, v, *n)]) {
                    missing.object(group, resource, rule.resource_names.get(n), verb);
                }
            }
        }
    }
}

/// The combinations of verb and path of `rule` that no rule of `owned` covers.
fn missing_paths(owned: &[Held<'_>], rule: &PolicyRule, missing: &mut Missing) {
    let verbs = rule.verbs.len();
    let mut covered = vec![false; rule.non_resource_urls.len() * verbs];
    for held in owned.iter().filter(|held| held.names.is_empty() && !held.urls.is_empty()) {
        let box_verbs = places(&rule.verbs, |verb| listed(&held.verbs, verb));
        for u in places(&rule.non_resource_urls, |url| held.urls.cover(url)) {
            box_verbs.iter().for_each(|v| covered[u * verbs + v] = true);
        }
    }
    for (u, url) in rule.non_resource_urls.iter().enumerate() {
        for (_, verb) in rule.verbs.iter().enumerate().filter(|(v, _)| !covered[u * verbs + v]) {
            missing.path(url, verb);
        }
    }
}

/// The path patterns of a rule.
struct Urls<'a> {
    exact: HashSet<&'a str>,
    /// What stands before the stars, sorted; none begins with another one, so of those that are not greater than a path only
    /// the last can be its beginning.
    beginnings: Vec<&'a str>,
}

impl<'a> Urls<'a> {
    fn of(patterns: &'a [String]) -> Self {
        let mut all: Vec<&str> =
            patterns.iter().filter(|p| p.ends_with('*')).map(|p| p.trim_end_matches('*')).collect();
        all.sort_unstable();
        let mut beginnings: Vec<&str> = Vec::new();
        for beginning in all {
            if beginnings.last().is_none_or(|last| !beginning.starts_with(last)) {
                beginnings.push(beginning);
            }
        }
        Self { exact: patterns.iter().map(String::as_str).collect(), beginnings }
    }

    fn is_empty(&self) -> bool {
        self.exact.is_empty()
    }

    /// Whether a pattern matches the path, or the pattern that `path` is itself
    /// ([`url_matches`](super::rule::url_matches)).
    fn cover(&self, path: &str) -> bool {
        let after = self.beginnings.partition_point(|beginning| *beginning <= path);
        self.exact.contains(path) || (after > 0 && path.starts_with(self.beginnings[after - 1]))
    }
}

/// What is missing, joined while it is found: the verbs of one resource (and at most one name) are one rule.
#[derive(Default)]
struct Missing {
    rules: Vec<PolicyRule>,
    places: HashMap<(String, String, Option<String>), usize>,
}

impl Missing {
    fn object(&mut self, group: &str, resource: &str, name: Option<&String>, verb: &str) {
        let key = (group.to_string(), resource.to_string(), name.cloned());
        let rules = &mut self.rules;
        let place = *self.places.entry(key).or_insert_with(|| {
            rules.push(PolicyRule {
                api_groups: vec![group.into()],
                resources: vec![resource.into()],
                resource_names: name.cloned().into_iter().collect(),
                ..PolicyRule::default()
            });
            rules.len() - 1
        });
        rules[place].verbs.push(verb.into());
    }

    fn path(&mut self, url: &str, verb: &str) {
        self.rules.push(PolicyRule {
            verbs: vec![verb.into()],
            non_resource_urls: vec![url.into()],
            ..PolicyRule::default()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::rule::url_matches;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn rules(value: Value) -> Vec<PolicyRule> {
        PolicyRule::of_role(&json!({"rules": value}))
    }

    #[test]
    fn coverage() {
        let resource = |verbs: &[&str], groups: &[&str], resources: &[&str], names: &[&str]| {
            rules(
                json!([{"verbs": verbs, "apiGroups": groups, "resources": resources, "resourceNames": names}]),
            )
        };
        let urls = |verbs: &[&str], urls: &[&str]| rules(json!([{"verbs": verbs, "nonResourceURLs": urls}]));
        let split =
            [resource(&["get"], &[""], &["pods"], &[]), resource(&["list"], &[""], &["pods"], &[])].concat();
        for (owned, wanted, covered) in [
            (resource(&["*"], &["*"], &["*"], &[]), resource(&["get"], &["x"], &["y/z"], &["n"]), true),
            (split, resource(&["get", "list"], &[""], &["pods"], &[]), true),
            (resource(&["get"], &[""], &["pods"], &[]), resource(&["get"], &[""], &["pods/log"], &[]), false),
            (resource(&["get"], &[""], &["*/log"], &[]), resource(&["get"], &[""], &["pods/log"], &[]), true),
            (
                resource(&["get"], &[""], &["pods/log"], &[]),
                resource(&["get"], &[""], &["*/log"], &[]),
                false,
            ),
            (
                resource(&["get"], &[""], &["pods"], &["a", "b"]),
                resource(&["get"], &[""], &["pods"], &["a"]),
                true,
            ),
            (resource(&["get"], &[""], &["pods"], &["a"]), resource(&["get"], &[""], &["pods"], &[]), false),
            (resource(&["get"], &[""], &["pods"], &[]), resource(&["*"], &[""], &["pods"], &[]), false),
            (urls(&["get"], &["/apis/*"]), urls(&["get"], &["/apis/x", "/apis/x/*"]), true),
            (urls(&["get"], &["/apis"]), urls(&["get"], &["/apis/*"]), false),
            (resource(&["*"], &["*"], &["*"], &[]), urls(&["get"], &["/x"]), false),
        ] {
            assert_eq!(uncovered(&owned, &wanted).is_empty(), covered, "{owned:?} {wanted:?}");
        }
    }

    #[test]
    fn combinations_are_counted_without_overflow() {
        let many: Vec<String> = (0..70_000).map(|n| n.to_string()).collect();
        let rule = PolicyRule {
            verbs: many.clone(),
            api_groups: many.clone(),
            resources: many.clone(),
            resource_names: many.clone(),
            non_resource_urls: many,
        };
        assert_eq!(combinations(&[rule.clone(), rule]), usize::MAX);
        let small = rules(json!([
            {"verbs": ["a", "b"], "apiGroups": ["", "x"], "resources": ["p"], "resourceNames": ["n", "m", "o"]},
            {"verbs": ["a", "b"], "nonResourceURLs": ["/x"]},
            {"verbs": ["a"], "apiGroups": [], "resources": ["p"]},
        ]));
        assert_eq!(combinations(&small), 12 + 2);
    }

    /// One combination at a time, as Kubernetes compares them (`BreakdownRule`, `ruleCovers`).
    fn covers_one_by_one(owned: &[PolicyRule], wanted: &PolicyRule) -> bool {
        let has = |list: &[String], item: &str| list.iter().any(|i| i == item);
        let star_or = |list: &[String], item: &str| has(list, "*") || has(list, item);
        let object = |rule: &PolicyRule, verb: &str, group: &str, resource: &str, name: Option<&String>| {
            let all_of_kind =
                resource.split_once('/').is_some_and(|(_, sub)| has(&rule.resources, &format!("*/{sub}")));
            star_or(&rule.verbs, verb)
                && star_or(&rule.api_groups, group)
                && (star_or(&rule.resources, resource) || all_of_kind)
                && (rule.resource_names.is_empty()
                    || name.is_some_and(|name| has(&rule.resource_names, name)))
        };
        let path = |rule: &PolicyRule, verb: &str, url: &str| {
            star_or(&rule.verbs, verb)
                && rule.resource_names.is_empty()
                && rule.non_resource_urls.iter().any(|pattern| url_matches(pattern, url))
        };
        let names: Vec<Option<&String>> = match wanted.resource_names.as_slice() {
            [] => vec![None],
            names => names.iter().map(Some).collect(),
        };
        wanted.verbs.iter().all(|verb| {
            let objects = wanted.api_groups.iter().all(|group| {
                wanted.resources.iter().all(|resource| {
                    names
                        .iter()
                        .all(|name| owned.iter().any(|rule| object(rule, verb, group, resource, *name)))
                })
            });
            objects
                && wanted.non_resource_urls.iter().all(|url| owned.iter().any(|rule| path(rule, verb, url)))
        })
    }

    fn some_of(items: &'static [&'static str]) -> impl Strategy<Value = Vec<String>> {
        vec(prop::sample::select(items).prop_map(str::to_string), 0..3)
    }

    fn rule() -> impl Strategy<Value = PolicyRule> {
        let verbs = some_of(&["get", "list", "*"]);
        let groups = some_of(&["", "apps", "*"]);
        let resources = some_of(&["pods", "pods/log", "*/log", "*"]);
        let names = some_of(&["a", "b"]);
        let urls = some_of(&["/", "/a", "/a*", "/a/b*", "/a/*", "/b", "*"]);
        (verbs, groups, resources, names, urls).prop_map(
            |(verbs, api_groups, resources, resource_names, non_resource_urls)| PolicyRule {
                verbs,
                api_groups,
                resources,
                resource_names,
                non_resource_urls,
            },
        )
    }

    proptest! {
        #[test]
        fn boxes_cover_what_single_combinations_cover(owned in vec(rule(), 0..5), wanted in rule()) {
            let wanted = [wanted];
            let missing = uncovered(&owned, &wanted);
            prop_assert_eq!(missing.is_empty(), covers_one_by_one(&owned, &wanted[0]));
            // With what is missing it is covered, and each missing rule is missing.
            let both = [owned.clone(), missing.clone()].concat();
            prop_assert!(uncovered(&both, &wanted).is_empty());
            for rule in &missing {
                prop_assert!(!covers_one_by_one(&owned, rule));
            }
        }
    }
}
