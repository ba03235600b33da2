//! What is wrong with a quota (`ValidateResourceQuota` and its companions in `pkg/apis/core/validation/validation.go`; the names
//! are those of `pkg/apis/core/helper/helpers.go`).

use fleetpass_apimachinery::field::{Error, ErrorList, Path};
use fleetpass_apimachinery::meta;
use fleetpass_apimachinery::validation::names;
use fleetpass_schema::quantity;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// What a quota may limit under a name without a slash (`standardQuotaResources`).
const STANDARD: [&str; 19] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "persistentvolumeclaims",
    "configmaps",
    "services.nodeports",
    "services.loadbalancers",
];
/// How many limits a quota may have. kube-apiserver sets no bound, but every create in the namespace looks at all of them.
const MOST: usize = 500;
/// How many scopes, and how many bytes of text in them. There are seven scopes, and kube-apiserver sets no bound; but an error about
/// one prints them all, for each limit that it does not go with.
const MOST_SCOPES: usize = 20;
const MOST_SCOPE_BYTES: usize = 4096;
/// How many such errors are told.
const MOST_MISPLACED: usize = 100;
/// Of these, what is counted in whole numbers (`integerResources`).
const WHOLE: [&str; 9] = [
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];
/// What the scopes of pods other than `BestEffort` go with.
const OF_PODS: [&str; 7] =
    ["pods", "cpu", "memory", "limits.cpu", "limits.memory", "requests.cpu", "requests.memory"];
const SCOPES: [&str; 7] = [
    "Terminating",
    "NotTerminating",
    "BestEffort",
    "NotBestEffort",
    "PriorityClass",
    "CrossNamespacePodAffinity",
    "VolumeAttributesClass",
];
/// Scopes of which no quota has both.
const CONFLICTING: [[&str; 2]; 2] = [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]];
/// Scopes that are there or not, and have no values.
const WITHOUT_VALUES: [&str; 5] =
    ["BestEffort", "NotBestEffort", "Terminating", "NotTerminating", "CrossNamespacePodAffinity"];

/// The errors of `spec`.
pub(super) fn validate_spec(object: &Value) -> ErrorList {
    let path = Path::new("spec");
    let hard = meta::map(object, &["spec", "hard"]);
    let mut errors = validate_quantities(hard, &path.child("hard"));
    let large: ErrorList = [
        too_large(&object["spec"]["scopes"], &path.child("scopes")),
        too_large(
            &object["spec"]["scopeSelector"]["matchExpressions"],
            &path.child("scopeSelector.matchExpressions"),
        ),
    ]
    .into_iter()
    .flatten()
    .collect();
    // The rules below look at each scope with each limit.
    if !large.is_empty() || hard.is_some_and(|hard| hard.len() > MOST) {
        errors.append(large);
        return errors;
    }
    let limited: BTreeSet<&str> = hard.into_iter().flat_map(Map::keys).map(String::as_str).collect();
    validate_scopes(object, &limited, &path.child("scopes"), &mut errors);
    validate_selector(object, &limited, &path.child("scopeSelector.matchExpressions"), &mut errors);
    errors
}

/// The errors of `status`.
pub(super) fn validate_status(object: &Value) -> ErrorList {
    let path = Path::new("status");
    let mut errors = validate_quantities(meta::map(object, &["status", "hard"]), &path.child("hard"));
    errors.append(validate_quantities(meta::map(object, &["status", "used"]), &path.child("used")));
    errors
}

/// The scopes of a quota are for good: what it has counted would be wrong.
pub(super) fn validate_scopes_kept(new: &Value, old: &Value) -> ErrorList {
    let scopes = |object| -> BTreeSet<&str> {
        meta::list(object, &["spec", "scopes"]).iter().filter_map(Value::as_str).collect()
    };
    if scopes(new) == scopes(old) {
        return ErrorList::new();
    }
    let value = meta::at(new, &["spec", "scopes"]).cloned().unwrap_or_default();
    [Error::invalid(&Path::new("spec.scopes"), value, "field is immutable")].into()
}

/// The error of a list of scopes that is longer than any that makes sense.
fn too_large(scopes: &Value, path: &Path) -> Option<Error> {
    let count = scopes.as_array().map_or(0, Vec::len);
    if count > MOST_SCOPES {
        return Some(Error::too_many(path, count, MOST_SCOPES));
    }
    (text_bytes(scopes) > MOST_SCOPE_BYTES).then(|| Error::too_long(path, MOST_SCOPE_BYTES))
}

/// The bytes of all texts in a value, and one for each of its elements.
fn text_bytes(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len() + 1,
        Value::Array(elements) => elements.iter().map(text_bytes).sum::<usize>() + 1,
        Value::Object(members) => members.values().map(text_bytes).sum::<usize>() + 1,
        _ => 1,
    }
}

fn validate_quantities(amounts: Option<&Map<String, Value>>, path: &Path) -> ErrorList {
    if let Some(amounts) = amounts.filter(|amounts| amounts.len() > MOST) {
        return [Error::too_many(path, amounts.len(), MOST)].into();
    }
    let mut errors = ErrorList::new();
    for (name, amount) in amounts.into_iter().flatten() {
        let field = path.key(name);
        let wrong = wrong_with_name(name);
        errors.extend(wrong.into_iter().map(|message| Error::invalid(&field, name.as_str(), message)));
        let amount = amount.as_str().unwrap_or_default();
        // Decoding has made sure that it is a quantity.
        let nanos = quantity::nanos(amount).unwrap_or_default();
        if nanos < 0 {
            errors.push(Error::invalid(&field, amount, "must be greater than or equal to 0"));
        }
        // Go compares thousandths, rounded up.
        let thousandths = nanos.div_euclid(1_000_000) + i128::from(nanos.rem_euclid(1_000_000) != 0);
        if is_whole(name) && thousandths % 1000 != 0 {
            errors.push(Error::invalid(&field, amount, "must be an integer"));
        }
    }
    errors
}

/// What is wrong with the name of something limited (`ValidateResourceQuotaResourceName`).
fn wrong_with_name(name: &str) -> Vec<String> {
    if is_long_count(name) {
        return Vec::new();
    }
    let wrong = names::is_qualified_name(name);
    if !wrong.is_empty() || name.contains('/') || is_standard(name) {
        return wrong;
    }
    let mut wrong = Vec::new();
    // The one standard name of a resource that is none for quotas.
    if name != "storage" {
        wrong.push("must be a standard resource type or fully qualified".to_string());
    }
    wrong.push("must be a standard resource for quota".to_string());
    wrong
}

/// Whether `name` is `count/` with a resource whose full name is longer than the 63 bytes of a qualified name, which
/// kube-apiserver refuses, so that no quota can bound such a kind there. ManagedServiceAccounts are one (64 bytes), and the kind
/// that tenants of a hub have most of: here the name of any CustomResourceDefinition will do.
fn is_long_count(name: &str) -> bool {
    name.strip_prefix("count/")
        .is_some_and(|counted| counted.len() > 63 && names::is_dns1123_subdomain(counted, false).is_empty())
}

fn is_standard(name: &str) -> bool {
    STANDARD.contains(&name) || name.starts_with("hugepages-") || name.starts_with("requests.hugepages-")
}

/// Whether fractions make no sense (`IsIntegerResourceName`): counts, and resources of others than Kubernetes (`example.com/gpu`).
fn is_whole(name: &str) -> bool {
    let native = !name.contains('/') || name.contains("kubernetes.io/");
    let extended = !native
        && !name.starts_with("requests.")
        && names::is_qualified_name(&format!("requests.{name}")).is_empty();
    WHOLE.contains(&name) || extended || is_long_count(name)
}

/// Whether something limited under `name` can be narrowed by `scope`.
fn goes_with(scope: &str, name: &str) -> bool {
    match scope {
        "Terminating"
        | "NotTerminating"
        | "NotBestEffort"
        | "PriorityClass"
        | "CrossNamespacePodAffinity" => OF_PODS.contains(&name),
        "BestEffort" => name == "pods",
        "VolumeAttributesClass" => ["persistentvolumeclaims", "requests.storage"].contains(&name),
        _ => true,
    }
}

fn validate_scopes(object: &Value, limited: &BTreeSet<&str>, path: &Path, errors: &mut ErrorList) {
    let listed = meta::list(object, &["spec", "scopes"]);
    let refuse = |detail: &str| Error::invalid(path, json!(listed), detail);
    let scopes: Vec<&str> = listed.iter().map(|scope| scope.as_str().unwrap_or_default()).collect();
    let mut left = MOST_MISPLACED;
    for scope in &scopes {
        if !SCOPES.contains(scope) {
            errors.push(refuse("unsupported scope"));
        }
        let misplaced = misplaced(scope, limited, &mut left);
        errors.extend((0..misplaced).map(|_| refuse("unsupported scope applied to resource")));
    }
    errors.extend(conflicts(&scopes).map(|()| refuse("conflicting scopes")));
}

/// How many of the limits `scope` does not go with, at most `left`, which goes down by as many.
fn misplaced(scope: &str, limited: &BTreeSet<&str>, left: &mut usize) -> usize {
    let wrong = limited.iter().filter(|name| is_standard(name) && !goes_with(scope, name));
    let count = wrong.take(*left).count();
    *left -= count;
    count
}

/// One for each pair of scopes that contradict each other.
fn conflicts(scopes: &[&str]) -> impl Iterator<Item = ()> {
    CONFLICTING.iter().filter(|pair| pair.iter().all(|scope| scopes.contains(scope))).map(|_| ())
}

fn validate_selector(object: &Value, limited: &BTreeSet<&str>, path: &Path, errors: &mut ErrorList) {
    let expressions = meta::list(object, &["spec", "scopeSelector", "matchExpressions"]);
    let mut scopes = Vec::new();
    let mut left = MOST_MISPLACED;
    for expression in expressions {
        let scope = meta::text(expression, &["scopeName"]);
        if !SCOPES.contains(&scope) {
            errors.push(Error::invalid(&path.child("scopeName"), scope, "unsupported scope"));
        }
        let misplaced = misplaced(scope, limited, &mut left);
        errors.extend((0..misplaced).map(|_| {
            Error::invalid(path, as_go_prints(expressions), "unsupported scope applied to resource")
        }));
        validate_operator(expression, scope, path, errors);
        scopes.push(scope);
    }
    // Go prints the other list here, `spec.scopes`.
    let listed = meta::at(object, &["spec", "scopes"]).cloned().unwrap_or_default();
    errors.extend(conflicts(&scopes).map(|()| Error::invalid(path, listed.clone(), "conflicting scopes")));
}

fn validate_operator(expression: &Value, scope: &str, path: &Path, errors: &mut ErrorList) {
    let operator = meta::text(expression, &["operator"]);
    let values = meta::list(expression, &["values"]);
    if WITHOUT_VALUES.contains(&scope) && operator != "Exists" {
        let detail = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, \
             ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or \
             ResourceQuotaScopeCrossNamespacePodAffinity";
        errors.push(Error::invalid(&path.child("operator"), operator, detail));
    }
    match operator {
        "In" | "NotIn" if values.is_empty() => {
            let detail = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
            errors.push(Error::required(&path.child("values"), detail));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let detail = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
            errors.push(Error::invalid(&path.child("values"), json!(values), detail));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        _ => errors.push(Error::invalid(&path.child("operator"), operator, "not a valid selector operator")),
    }
}

/// A scope selector as Go prints it in an error: its internal type has no JSON names.
fn as_go_prints(expressions: &[Value]) -> Value {
    let expressions: Vec<Value> = expressions
        .iter()
        .map(|e| json!({"ScopeName": e["scopeName"], "Operator": e["operator"], "Values": e["values"]}))
        .collect();
    json!({"MatchExpressions": expressions})
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::texts;
    use super::*;

    fn spec_errors(spec: Value) -> Vec<String> {
        texts(&validate_spec(&json!({"spec": spec})))
    }

    #[test]
    fn names_and_amounts_are_those_of_quotas() {
        let accounts = "count/managedserviceaccounts.authentication.open-cluster-management.io";
        let good = json!({"secrets": "5", "count/secrets": "5", accounts: "0", "count/leases.coordination.k8s.io": "1k",
            "requests.cpu": "1500m", "example.com/gpu": "2", "requests.hugepages-2Mi": "4Mi"});
        assert_eq!(spec_errors(json!({"hard": good})), [""; 0]);
        for (name, amount, wanted) in [
            ("secrets", "-1", vec!["Invalid value: \"-1\": must be greater than or equal to 0"]),
            ("secrets", "1500m", vec!["Invalid value: \"1500m\": must be an integer"]),
            ("count/secrets", "500m", vec!["Invalid value: \"500m\": must be an integer"]),
            (accounts, "500m", vec!["Invalid value: \"500m\": must be an integer"]),
            ("example.com/gpu", "1u", vec!["Invalid value: \"1u\": must be an integer"]),
            (
                "leases",
                "1",
                vec![
                    "Invalid value: \"leases\": must be a standard resource type or fully qualified",
                    "Invalid value: \"leases\": must be a standard resource for quota",
                ],
            ),
            ("storage", "1", vec!["Invalid value: \"storage\": must be a standard resource for quota"]),
        ] {
            let wanted: Vec<String> =
                wanted.iter().map(|text| format!("spec.hard[{name}]: {text}")).collect();
            assert_eq!(spec_errors(json!({"hard": {name: amount}})), wanted);
            let status = json!({"status": {"used": {name: amount}}});
            let in_status: Vec<String> =
                wanted.iter().map(|text| text.replacen("spec.hard", "status.used", 1)).collect();
            assert_eq!(texts(&validate_status(&status)), in_status);
        }
        let many: Map<String, Value> =
            (0..=MOST).map(|i| (format!("count/c{i}.example.com"), "1".into())).collect();
        assert_eq!(
            spec_errors(json!({"hard": many})),
            ["spec.hard: Too many: 501: must have at most 500 items"]
        );
        // A name that is too long and no resource's.
        let long = format!("count/{}", "A".repeat(64));
        assert!(!spec_errors(json!({"hard": {long: "1"}})).is_empty());
    }

    #[test]
    fn scopes_have_to_fit_each_other_and_what_is_limited() {
        let misplaced = |scopes: &str| {
            format!("spec.scopes: Invalid value: {scopes}: unsupported scope applied to resource")
        };
        for (spec, wanted) in [
            (json!({"hard": {"pods": "1"}, "scopes": ["BestEffort", "Terminating"]}), vec![]),
            (json!({"hard": {"count/secrets": "1"}, "scopes": ["BestEffort"]}), vec![]),
            (
                json!({"hard": {"secrets": "1"}, "scopes": ["BestEffort"]}),
                vec![misplaced("[\"BestEffort\"]")],
            ),
            (
                json!({"hard": {"pods": "1"}, "scopes": ["Odd"]}),
                vec!["spec.scopes: Invalid value: [\"Odd\"]: unsupported scope".to_string()],
            ),
            (
                json!({"hard": {"pods": "1"}, "scopes": ["Terminating", "NotTerminating"]}),
                vec![
                    "spec.scopes: Invalid value: [\"Terminating\",\"NotTerminating\"]: conflicting scopes"
                        .into(),
                ],
            ),
        ] {
            assert_eq!(spec_errors(spec.clone()), wanted, "{spec}");
        }
    }

    #[test]
    fn selectors_of_scopes_are_checked_one_by_one() {
        let select = |scope: &str, operator: &str, values: &[&str]| {
            let expression = json!({"scopeName": scope, "operator": operator, "values": values});
            json!({"hard": {"pods": "1"}, "scopeSelector": {"matchExpressions": [expression]}})
        };
        let at = "spec.scopeSelector.matchExpressions";
        for (spec, wanted) in [
            (select("PriorityClass", "In", &["high"]), vec![]),
            (select("PriorityClass", "DoesNotExist", &[]), vec![]),
            (
                select("PriorityClass", "NotIn", &[]),
                vec![format!(
                    "{at}.values: Required value: must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"
                )],
            ),
            (
                select("PriorityClass", "Exists", &["a"]),
                vec![format!(
                    "{at}.values: Invalid value: [\"a\"]: must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector"
                )],
            ),
            (
                select("PriorityClass", "Gt", &["a"]),
                vec![format!("{at}.operator: Invalid value: \"Gt\": not a valid selector operator")],
            ),
            (
                select("Odd", "Exists", &[]),
                vec![format!("{at}.scopeName: Invalid value: \"Odd\": unsupported scope")],
            ),
            (
                select("Terminating", "DoesNotExist", &[]),
                vec![format!(
                    "{at}.operator: Invalid value: \"DoesNotExist\": must be 'Exists' when scope is any of \
                     ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, \
                     ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity"
                )],
            ),
        ] {
            assert_eq!(spec_errors(spec.clone()), wanted, "{spec}");
        }
    }

    /// What an error prints, times the scopes, times the limits, would be gigabytes of a body of kilobytes.
    #[test]
    fn errors_about_scopes_do_not_multiply() {
        let limits: Map<String, Value> =
            (0..MOST).map(|i| (format!("hugepages-{i}Ki"), "1".into())).collect();
        let size = |spec: Value| spec_errors(spec).iter().map(String::len).sum::<usize>();
        let words = |count: usize, bytes: usize| vec!["x".repeat(bytes); count];
        for (count, bytes) in [(20, 100), (21, 1), (10_000, 1), (1, 10_000), (20, 10_000)] {
            let mut scopes = words(count, bytes);
            scopes[0] = "Terminating".into();
            let selector: Vec<Value> = scopes
                .iter()
                .take(50)
                .map(|scope| json!({"scopeName": scope, "operator": "In", "values": words(20, bytes)}))
                .collect();
            assert!(size(json!({"hard": limits, "scopes": scopes})) < 1_000_000);
            assert!(
                size(json!({"hard": limits, "scopeSelector": {"matchExpressions": selector}})) < 1_000_000
            );
        }
        let long = vec!["BestEffort"; 21];
        assert_eq!(
            spec_errors(json!({"scopes": long})),
            ["spec.scopes: Too many: 21: must have at most 20 items"]
        );
        assert_eq!(
            spec_errors(json!({"scopes": ["x".repeat(5000)]})),
            ["spec.scopes: Too long: may not be more than 4096 bytes"]
        );
    }

    #[test]
    fn scopes_cannot_change_but_their_order_can() {
        let with = |scopes: Value| json!({"spec": {"scopes": scopes}});
        let old = with(json!(["Terminating", "BestEffort"]));
        assert!(validate_scopes_kept(&with(json!(["BestEffort", "Terminating"])), &old).is_empty());
        let errors = texts(&validate_scopes_kept(&json!({"spec": {}}), &old));
        assert_eq!(errors, ["spec.scopes: Invalid value: null: field is immutable"]);
    }
}
