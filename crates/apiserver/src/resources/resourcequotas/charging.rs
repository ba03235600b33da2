//! What a new object takes of the quotas of its namespace (`CheckRequest` in
//! `staging/src/k8s.io/apiserver/pkg/admission/plugin/resourcequota/controller.go`).

use fleetpass_api::quota::{Measure, is_live_pod, is_scoped, measure, pod_fits};
use fleetpass_apimachinery::meta;
use fleetpass_apimachinery::status::GroupResource;
use fleetpass_schema::quantity;
use jiff::Timestamp;
use serde_json::{Map, Value};

/// `status.used` of `quota` once `object`, which is about to be created, is in it; `None` if the quota does not count it.
///
/// What counts is `status.hard`, not `spec.hard`: a limit is in force when the controller has counted what there is.
///
/// # Errors
/// Why the object must not be created, in kube-apiserver's words: it is one too many, or it is not known how many there are.
pub(crate) fn charge(
    quota: &Value,
    gr: GroupResource<'_>,
    object: &Value,
    now: Timestamp,
) -> Result<Option<Map<String, Value>>, String> {
    let empty = Map::new();
    let hard = meta::map(quota, &["status", "hard"]).unwrap_or(&empty);
    let used = meta::map(quota, &["status", "used"]).unwrap_or(&empty);
    let mut names: Vec<&str> = hard.keys().map(String::as_str).filter(|name| measures(name, gr)).collect();
    if names.is_empty() || !is_in_scope(quota, gr, object) {
        return Ok(None);
    }
    names.sort_unstable();
    let name = meta::name(quota);
    if names.iter().any(|counted| !used.contains_key(*counted)) {
        return Err(format!("status unknown for quota: {name}, resources: {}", names.join(",")));
    }
    // A pod that has ended is still an object.
    names.retain(|name| measure(name) != Some(Measure::Pods) || is_live_pod(object, now));
    let mut charged = used.clone();
    let mut exceeded = Vec::new();
    for name in names {
        let text = |amounts: &Map<String, Value>| match amounts.get(name) {
            Some(Value::String(text)) => text.clone(),
            _ => String::new(),
        };
        let (limit, before) = (text(hard), text(used));
        let unreadable = |error| format!("quota {name} cannot be read: {error}");
        let after = quantity::sum(&before, "1").map_err(unreadable)?;
        if quantity::nanos(&after).map_err(unreadable)? > quantity::nanos(&limit).map_err(unreadable)? {
            exceeded.push((name, before, limit));
        }
        charged.insert(name.into(), after.into());
    }
    if exceeded.is_empty() {
        return Ok(Some(charged));
    }
    let list = |amount: fn(&(&str, String, String)) -> String| {
        exceeded.iter().map(|entry| format!("{}={}", entry.0, amount(entry))).collect::<Vec<_>>().join(",")
    };
    Err(format!(
        "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
        list(|_| "1".into()),
        list(|entry| entry.1.clone()),
        list(|entry| entry.2.clone()),
    ))
}

/// Whether an object of this resource adds to what is counted under `name`.
fn measures(name: &str, gr: GroupResource<'_>) -> bool {
    match measure(name) {
        Some(Measure::Objects { group, plural }) => (group, plural) == (gr.group, gr.resource),
        Some(Measure::Pods) => is_pods(gr),
        Some(Measure::Other { .. }) | None => false,
    }
}

fn is_in_scope(quota: &Value, gr: GroupResource<'_>, object: &Value) -> bool {
    let spec = &quota["spec"];
    !is_scoped(spec) || (is_pods(gr) && pod_fits(spec, object))
}

fn is_pods(gr: GroupResource<'_>) -> bool {
    (gr.group, gr.resource) == ("", "pods")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const SECRETS: GroupResource<'static> = GroupResource { group: "", resource: "secrets" };
    const PODS: GroupResource<'static> = GroupResource { group: "", resource: "pods" };

    fn quota(hard: Value, used: Value) -> Value {
        // `spec.hard` differs on purpose: it is not in force yet.
        json!({"metadata": {"name": "q"}, "spec": {"hard": {"count/secrets": "0"}},
            "status": {"hard": hard, "used": used}})
    }

    fn charged(quota: &Value, gr: GroupResource<'_>, object: &Value) -> Result<Option<Value>, String> {
        let now = "2026-01-02T03:04:05Z".parse().unwrap();
        charge(quota, gr, object, now).map(|used| used.map(Value::Object))
    }

    #[test]
    fn objects_are_charged_under_each_name_that_counts_them() {
        let both = quota(
            json!({"count/secrets": "5", "secrets": "1k", "configmaps": "0"}),
            json!({"count/secrets": "4", "secrets": "999", "configmaps": "3"}),
        );
        let after = json!({"count/secrets": "5", "secrets": "1k", "configmaps": "3"});
        assert_eq!(charged(&both, SECRETS, &json!({})), Ok(Some(after)));
        let leases = GroupResource { group: "coordination.k8s.io", resource: "leases" };
        assert_eq!(charged(&both, leases, &json!({})), Ok(None));
        // The same plural name in another group is another resource.
        let others = GroupResource { group: "example.com", resource: "secrets" };
        assert_eq!(charged(&both, others, &json!({})), Ok(None));
        assert_eq!(charged(&quota(json!({}), json!({})), SECRETS, &json!({})), Ok(None));
    }

    #[test]
    fn refusals_name_what_is_exceeded_and_nothing_else() {
        for (hard, used, wanted) in [
            (
                json!({"count/secrets": "5"}),
                json!({"count/secrets": "5"}),
                "exceeded quota: q, requested: count/secrets=1, used: count/secrets=5, limited: count/secrets=5",
            ),
            // Above the limit already: it was lowered.
            (
                json!({"secrets": "1", "count/secrets": "9", "configmaps": "0"}),
                json!({"secrets": "7", "count/secrets": "7", "configmaps": "3"}),
                "exceeded quota: q, requested: secrets=1, used: secrets=7, limited: secrets=1",
            ),
            (
                json!({"secrets": "0", "count/secrets": "0"}),
                json!({"secrets": "0", "count/secrets": "0"}),
                "exceeded quota: q, requested: count/secrets=1,secrets=1, used: count/secrets=0,secrets=0, \
                 limited: count/secrets=0,secrets=0",
            ),
            (
                json!({"secrets": "5", "count/secrets": "5", "configmaps": "5"}),
                json!({"secrets": "1"}),
                "status unknown for quota: q, resources: count/secrets,secrets",
            ),
        ] {
            assert_eq!(charged(&quota(hard, used), SECRETS, &json!({})), Err(wanted.into()));
        }
    }

    #[test]
    fn scopes_are_about_pods_and_pods_may_have_ended() {
        let mut pods =
            quota(json!({"pods": "1", "count/pods": "9"}), json!({"pods": "0", "count/pods": "0"}));
        let pod = json!({"status": {"phase": "Pending", "qosClass": "BestEffort"}});
        assert_eq!(charged(&pods, PODS, &pod), Ok(Some(json!({"pods": "1", "count/pods": "1"}))));
        let ended = json!({"status": {"phase": "Succeeded"}});
        assert_eq!(charged(&pods, PODS, &ended), Ok(Some(json!({"pods": "0", "count/pods": "1"}))));
        pods["spec"]["scopes"] = json!(["NotBestEffort"]);
        assert_eq!(charged(&pods, PODS, &pod), Ok(None));
        let mut secrets = quota(json!({"count/secrets": "0"}), json!({"count/secrets": "0"}));
        secrets["spec"]["scopes"] = json!(["NotBestEffort"]);
        assert_eq!(charged(&secrets, SECRETS, &json!({})), Ok(None));
    }
}
