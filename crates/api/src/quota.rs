//! What the names in a ResourceQuota count. The API server, which charges a quota, and the controller, which counts anew, must
//! not differ in this, so the rules are here (`staging/src/k8s.io/apiserver/pkg/quota/v1/generic/evaluator.go`,
//! `pkg/quota/v1/evaluator/core`, `pkg/quota/v1/install/registry.go`).
//!
//! ```
//! use fleetpass_api::quota::{Measure, measure};
//!
//! let secrets = Some(Measure::Objects { group: "", plural: "secrets" });
//! assert_eq!(measure("count/secrets"), secrets);
//! assert_eq!(measure("secrets"), secrets); // the name from before there was `count/`
//! let widgets = Measure::Objects { group: "example.com", plural: "widgets" };
//! assert_eq!(measure("count/widgets.example.com"), Some(widgets));
//! ```

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

/// The resources that no quota counts: Events, and what is never stored (`ignoredResources`).
const IGNORED: [(&str, &str); 10] = [
    ("", "bindings"),
    ("", "componentstatuses"),
    ("", "events"),
    ("authentication.k8s.io", "selfsubjectreviews"),
    ("authentication.k8s.io", "tokenreviews"),
    ("authorization.k8s.io", "localsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectrulesreviews"),
    ("authorization.k8s.io", "subjectaccessreviews"),
    ("events.k8s.io", "events"),
];

/// What a name in a quota measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure<'a> {
    /// How many objects of a resource there are.
    Objects {
        /// The API group; empty for core.
        group: &'a str,
        /// The plural name.
        plural: &'a str,
    },
    /// How many pods there are that have not ended.
    Pods,
    /// Something else about the objects of a core resource, such as the storage that claims ask for.
    Other {
        /// The plural name.
        plural: &'static str,
    },
}

/// What `name`, from `spec.hard` of a quota, measures; `None` if that is not known.
pub fn measure(name: &str) -> Option<Measure<'_>> {
    if let Some(counted) = name.strip_prefix("count/") {
        // A plural name has no dots; the group is all that follows the first one.
        let (plural, group) = counted.split_once('.').unwrap_or((counted, ""));
        return (!is_ignored(group, plural)).then_some(Measure::Objects { group, plural });
    }
    Some(match name {
        "secrets"
        | "configmaps"
        | "resourcequotas"
        | "replicationcontrollers"
        | "services"
        | "persistentvolumeclaims" => Measure::Objects { group: "", plural: name },
        "pods" => Measure::Pods,
        "services.nodeports" | "services.loadbalancers" => Measure::Other { plural: "services" },
        "requests.storage" => Measure::Other { plural: "persistentvolumeclaims" },
        "cpu" | "memory" | "ephemeral-storage" => Measure::Other { plural: "pods" },
        _ if name.contains(".storageclass.storage.k8s.io/") => {
            Measure::Other { plural: "persistentvolumeclaims" }
        }
        _ if ["requests.", "limits.", "hugepages-"].iter().any(|prefix| name.starts_with(prefix)) => {
            Measure::Other { plural: "pods" }
        }
        _ => return None,
    })
}

/// Whether no quota counts objects of this resource.
pub fn is_ignored(group: &str, plural: &str) -> bool {
    IGNORED.contains(&(group, plural))
}

/// `count` as the canonical text of a quantity (`resource.NewQuantity(count, resource.DecimalSI)`).
pub fn quantity(count: u64) -> String {
    let mut number = count;
    for suffix in ["", "k", "M", "G", "T", "P"] {
        if number == 0 || !number.is_multiple_of(1000) {
            return format!("{number}{suffix}");
        }
        number /= 1000;
    }
    format!("{number}E")
}

/// Whether a pod counts as one of `pods` at `now`: it has not ended, nor is it overdue to be gone (`QuotaV1Pod`).
pub fn is_live_pod(pod: &Value, now: Timestamp) -> bool {
    if matches!(pod["status"]["phase"].as_str(), Some("Failed" | "Succeeded")) {
        return false;
    }
    let metadata = &pod["metadata"];
    let deleted = metadata["deletionTimestamp"].as_str().and_then(|text| text.parse::<Timestamp>().ok());
    let (Some(deleted), Some(grace)) = (deleted, metadata["deletionGracePeriodSeconds"].as_i64()) else {
        return true;
    };
    // The timestamp has the grace period in it already; Go adds it once more.
    deleted.checked_add(SignedDuration::from_secs(grace)).is_ok_and(|end| now <= end)
}

/// Whether a quota with this `spec` has scopes. Such a quota counts pods only: nothing else fits any scope.
pub fn is_scoped(spec: &Value) -> bool {
    let some = |list: &Value| list.as_array().is_some_and(|list| !list.is_empty());
    some(&spec["scopes"]) || some(&spec["scopeSelector"]["matchExpressions"])
}

/// Whether a pod fits all scopes of a quota with this `spec` (`podMatchesScopeFunc`).
pub fn pod_fits(spec: &Value, pod: &Value) -> bool {
    let listed = spec["scopes"].as_array().into_iter().flatten();
    let selected = spec["scopeSelector"]["matchExpressions"].as_array().into_iter().flatten();
    listed.map(|scope| (scope, "Exists", &Value::Null)).chain(selected.map(requirement)).all(
        |(scope, operator, values)| scope.as_str().is_some_and(|scope| fits(scope, operator, values, pod)),
    )
}

fn requirement(expression: &Value) -> (&Value, &str, &Value) {
    (&expression["scopeName"], expression["operator"].as_str().unwrap_or_default(), &expression["values"])
}

/// Only `PriorityClass` looks at the operator; validation allows nothing but `Exists` with the others.
fn fits(scope: &str, operator: &str, values: &Value, pod: &Value) -> bool {
    let spec = &pod["spec"];
    let ends = spec["activeDeadlineSeconds"].as_i64().is_some_and(|seconds| seconds >= 0);
    let best_effort = pod["status"]["qosClass"] == "BestEffort";
    match scope {
        "Terminating" => ends,
        "NotTerminating" => !ends,
        "BestEffort" => best_effort,
        "NotBestEffort" => !best_effort,
        "PriorityClass" => {
            let class = spec["priorityClassName"].as_str().unwrap_or_default();
            let listed = || values.as_array().is_some_and(|values| values.iter().any(|value| value == class));
            match operator {
                "Exists" => !class.is_empty(),
                "DoesNotExist" => class.is_empty(),
                "In" => !class.is_empty() && listed(),
                // As with labels: what has no class is in no list.
                "NotIn" => class.is_empty() || !listed(),
                _ => false,
            }
        }
        "CrossNamespacePodAffinity" => crosses_namespaces(&spec["affinity"]),
        _ => false,
    }
}

/// Whether affinity looks at pods of other namespaces (`usesCrossNamespacePodAffinity`).
fn crosses_namespaces(affinity: &Value) -> bool {
    let crosses = |term: &Value| {
        term["namespaces"].as_array().is_some_and(|names| !names.is_empty())
            || term.get("namespaceSelector").is_some_and(|selector| !selector.is_null())
    };
    ["podAffinity", "podAntiAffinity"].iter().map(|kind| &affinity[*kind]).any(|affinity| {
        let terms = |name: &str| affinity[name].as_array().into_iter().flatten();
        terms("requiredDuringSchedulingIgnoredDuringExecution").any(crosses)
            || terms("preferredDuringSchedulingIgnoredDuringExecution")
                .any(|weighted| crosses(&weighted["podAffinityTerm"]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_say_what_they_count() {
        let objects = |group, plural| Some(Measure::Objects { group, plural });
        let other = |plural| Some(Measure::Other { plural });
        let accounts = "count/managedserviceaccounts.authentication.open-cluster-management.io";
        for (name, wanted) in [
            ("count/secrets", objects("", "secrets")),
            ("secrets", objects("", "secrets")),
            ("configmaps", objects("", "configmaps")),
            ("resourcequotas", objects("", "resourcequotas")),
            ("count/leases.coordination.k8s.io", objects("coordination.k8s.io", "leases")),
            (accounts, objects("authentication.open-cluster-management.io", "managedserviceaccounts")),
            ("count/pods", objects("", "pods")),
            ("pods", Some(Measure::Pods)),
            // Nobody counts Events, under either of their names.
            ("count/events", None),
            ("count/events.events.k8s.io", None),
            ("count/tokenreviews.authentication.k8s.io", None),
            ("services.loadbalancers", other("services")),
            ("gold.storageclass.storage.k8s.io/requests.storage", other("persistentvolumeclaims")),
            ("requests.cpu", other("pods")),
            ("requests.example.com/gpu", other("pods")),
            ("leases", None),
            ("example.com/widgets", None),
        ] {
            assert_eq!(measure(name), wanted, "{name}");
        }
    }

    #[test]
    fn counts_are_printed_as_quantities() {
        for (count, text) in [
            (0, "0"),
            (7, "7"),
            (999, "999"),
            (1000, "1k"),
            (1500, "1500"),
            (12_000_000, "12M"),
            (u64::MAX, "18446744073709551615"),
            (3_000_000_000_000_000_000, "3E"),
        ] {
            assert_eq!(quantity(count), text);
        }
    }

    #[test]
    fn pods_that_have_ended_or_should_have_count_no_more() {
        let now: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        let going = |deleted: &str| {
            json!({"status": {"phase": "Running"},
                "metadata": {"deletionTimestamp": deleted, "deletionGracePeriodSeconds": 30}})
        };
        for (pod, live) in [
            (json!({}), true),
            (json!({"status": {"phase": "Pending"}}), true),
            (json!({"status": {"phase": "Unknown"}}), true),
            (json!({"status": {"phase": "Failed"}}), false),
            (json!({"status": {"phase": "Succeeded"}}), false),
            (going("2026-01-02T03:03:35Z"), true),
            (going("2026-01-02T03:03:34Z"), false),
        ] {
            assert_eq!(is_live_pod(&pod, now), live, "{pod}");
        }
    }

    #[test]
    fn pods_fit_all_scopes_or_do_not_count() {
        let plain = json!({"status": {"qosClass": "BestEffort"}, "spec": {}});
        let batch = json!({"status": {"qosClass": "Burstable"},
            "spec": {"activeDeadlineSeconds": 5, "priorityClassName": "high"}});
        let term = json!({"topologyKey": "k", "namespaces": ["other"]});
        let nosy = json!({"spec": {"affinity": {"podAntiAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "podAffinityTerm": term}]}}}});
        let class = |operator: &str, values: &[&str]| {
            let expression = json!({"scopeName": "PriorityClass", "operator": operator, "values": values});
            json!({"scopeSelector": {"matchExpressions": [expression]}})
        };
        for (spec, pods) in [
            (json!({}), [true, true, true]),
            (json!({"scopes": ["Terminating"]}), [false, true, false]),
            (json!({"scopes": ["NotTerminating"]}), [true, false, true]),
            (json!({"scopes": ["BestEffort"]}), [true, false, false]),
            (json!({"scopes": ["NotTerminating", "NotBestEffort"]}), [false, false, true]),
            (json!({"scopes": ["PriorityClass"]}), [false, true, false]),
            (json!({"scopes": ["CrossNamespacePodAffinity"]}), [false, false, true]),
            (json!({"scopes": ["VolumeAttributesClass"]}), [false, false, false]),
            (class("In", &["low", "high"]), [false, true, false]),
            (class("NotIn", &["high"]), [true, false, true]),
            (class("DoesNotExist", &[]), [true, false, true]),
        ] {
            assert_eq!([&plain, &batch, &nosy].map(|pod| pod_fits(&spec, pod)), pods, "{spec}");
            assert_eq!(is_scoped(&spec), spec != json!({}));
        }
    }
}
