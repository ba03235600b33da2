//! ClusterRoles that are made of others
//! (`pkg/controller/clusterroleaggregation/clusterroleaggregation_controller.go`).

use super::PolicyRule;
use fleetpass_apimachinery::meta;
use fleetpass_apimachinery::validation::selectors;
use serde_json::Value;

/// The rules that an aggregated ClusterRole should have: for each of its selectors in turn, the rules of the other
/// ClusterRoles that it selects, by name, each rule once. `None` for a role that is not aggregated, or whose
/// selectors are not valid: its rules are then left as they are.
pub fn aggregate<'a>(role: &Value, all: impl IntoIterator<Item = &'a Value>) -> Option<Vec<PolicyRule>> {
    meta::map(role, &["aggregationRule"])?;
    let mut others: Vec<&Value> =
        all.into_iter().filter(|other| meta::name(other) != meta::name(role)).collect();
    others.sort_by_key(|other| meta::name(other));
    let mut rules = Vec::new();
    for selector in meta::list(role, &["aggregationRule", "clusterRoleSelectors"]) {
        for other in &others {
            if !selectors::matches(selector, meta::map(other, &["metadata", "labels"]))? {
                continue;
            }
            for rule in PolicyRule::of_role(other) {
                if !rules.contains(&rule) {
                    rules.push(rule);
                }
            }
        }
    }
    Some(rules)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn part(name: &str, labels: Value, resources: &[&str]) -> Value {
        let rules: Vec<Value> = resources
            .iter()
            .map(|r| json!({"verbs": ["get"], "apiGroups": [""], "resources": [r]}))
            .collect();
        json!({"metadata": {"name": name, "labels": labels}, "rules": rules})
    }

    #[test]
    fn selectors_in_order_then_names_each_rule_once() {
        let role = json!({"metadata": {"name": "agg", "labels": {"agg": "x"}}, "rules": [{"verbs": ["*"]}],
            "aggregationRule": {"clusterRoleSelectors": [
                {"matchExpressions": [{"key": "first", "operator": "Exists"}]}, {"matchLabels": {"agg": "x"}}]}});
        let all = [
            role.clone(),
            part("c", json!({"agg": "x"}), &["pods", "secrets"]),
            part("b", json!({"agg": "x"}), &["nodes", "pods"]),
            part("d", json!({"first": ""}), &["secrets"]),
            part("e", json!({"agg": "other"}), &["events"]),
        ];
        let rules = aggregate(&role, &all).unwrap();
        let resources: Vec<&str> = rules.iter().map(|r| r.resources[0].as_str()).collect();
        assert_eq!(resources, ["secrets", "nodes", "pods"]);
        assert_eq!(aggregate(&all[1], &all), None);
        let invalid = json!({"aggregationRule": {"clusterRoleSelectors": [
            {"matchExpressions": [{"key": "a", "operator": "Within"}]}]}});
        assert_eq!(aggregate(&invalid, &all), None);
    }
}
