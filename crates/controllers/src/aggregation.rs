//! ClusterRoles that are made of others.
//!
//! # Flow
//! Any change of a ClusterRole puts the one key of the queue into it; all ClusterRoles are read, and every aggregated
//! one whose rules are not what its selectors gather is applied.
//! (`pkg/controller/clusterroleaggregation/clusterroleaggregation_controller.go`.)
//!
//! # Guarantees
//! The rules of an aggregated ClusterRole are those of the roles it selects, whoever edits them; if it selects none
//! they are empty. What an aggregated role gathers can itself be aggregated: changes travel on.
//!
//! # Caveats
//! A role with a selector that cannot be read is left as it is.

use crate::Error;
use crate::discovery::ResourceType;
use crate::live::{api, is_not_found, patcher, refusal};
use crate::monitor::{Event, Observer};
use crate::queue::{Backlog, Next, Queue, queue, work};
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use kube::api::{ListParams, Patch, PatchParams};
use kube::core::{ApiResource, Selector, SelectorExt as _};
use kube::{Api, Client};
use serde_json::json;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Who applies the rules, in `metadata.managedFields`.
const MANAGER: &str = "clusterrole-aggregation-controller";
/// How long to wait for further changes when there was one: a pass reads all ClusterRoles, and they often come in rows.
const GATHER: Duration = Duration::from_millis(20);

struct Listener(Queue<()>);

impl Observer for Listener {
    fn observe(&self, resource: &Arc<ResourceType>, event: &Event) {
        if resource.is("rbac.authorization.k8s.io", "clusterroles")
            && !matches!(event, Event::Init | Event::InitApply(_))
        {
            self.0.add_after((), GATHER);
        }
    }
}

/// The queue and what must observe the resources.
pub(crate) fn aggregation() -> (Backlog<()>, Box<dyn Observer>) {
    let (queue, backlog) = queue();
    (backlog, Box::new(Listener(queue)))
}

/// Aggregates until `stop`.
pub(crate) async fn run(client: Client, backlog: Backlog<()>, stop: CancellationToken) {
    // One worker: there is one key.
    work("clusterrole-aggregation", backlog, 1, stop, |()| reconcile(&client)).await;
}

/// The same rule with what is empty left out, so that rules can be compared.
fn normal(mut rule: PolicyRule) -> PolicyRule {
    let members =
        [&mut rule.api_groups, &mut rule.resources, &mut rule.resource_names, &mut rule.non_resource_urls];
    for member in members {
        member.take_if(|values| values.is_empty());
    }
    rule
}

fn rules(role: &ClusterRole) -> Vec<PolicyRule> {
    role.rules.iter().flatten().cloned().map(normal).collect()
}

/// The rules that `role` should have, if it is aggregated: for each of its selectors in turn those of the other roles
/// that it selects, by name, each rule once. `roles` are sorted by name.
fn gather(role: &ClusterRole, roles: &[ClusterRole]) -> Option<Vec<PolicyRule>> {
    let selectors = role.aggregation_rule.as_ref()?.cluster_role_selectors.iter().flatten();
    let mut gathered = Vec::new();
    // By their JSON, because rules cannot be hashed: a role may have as many rules as an object has room for.
    let mut seen = HashSet::new();
    for selector in selectors {
        let selector = Selector::try_from(selector.clone()).ok()?;
        for other in roles.iter().filter(|other| other.metadata.name != role.metadata.name) {
            let labels = other.metadata.labels.clone().unwrap_or_default();
            if !selector.matches(&labels) {
                continue;
            }
            for rule in rules(other) {
                if seen.insert(json!(rule).to_string()) {
                    gathered.push(rule);
                }
            }
        }
    }
    Some(gathered)
}

/// All ClusterRoles by name, so that the order of rules does not depend on that of the list.
async fn list(client: &Client) -> Result<Vec<ClusterRole>, Error> {
    let mut roles = Api::<ClusterRole>::all(client.clone()).list(&ListParams::default()).await?.items;
    roles.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    Ok(roles)
}

/// The aggregated roles whose rules are not what they should be, each with those that it should have.
fn outdated(roles: &[ClusterRole]) -> impl Iterator<Item = (&ClusterRole, Vec<PolicyRule>)> {
    roles
        .iter()
        .filter_map(|role| Some((role, gather(role, roles)?)))
        .filter(|(role, gathered)| *gathered != rules(role))
}

/// Whether every aggregated ClusterRole has the rules of the roles that it selects: until then `view`, `edit` and `admin` of a
/// new server allow nothing. Lists all ClusterRoles.
///
/// # Errors
/// They cannot be listed.
pub async fn roles_are_aggregated(client: &Client) -> Result<bool, Error> {
    Ok(outdated(&list(client).await?).next().is_none())
}

async fn reconcile(client: &Client) -> Result<Next, Error> {
    let roles = list(client).await?;
    let mut failed = None;
    for (role, gathered) in outdated(&roles) {
        // Compared before it is written: its own write comes back as a change, and would go round for ever.
        if let Err(error) = apply(client, role, gathered).await {
            // The others do not wait for this one.
            failed = Some(error);
        }
    }
    failed.map_or(Ok(Next::Wait), Err)
}

async fn apply(client: &Client, role: &ClusterRole, rules: Vec<PolicyRule>) -> Result<(), Error> {
    let name = role.metadata.name.as_deref().unwrap_or_default();
    let roles = api(client, &ApiResource::erase::<ClusterRole>(&()), None);
    // Empty rules are told too: otherwise those that someone else wrote would stay.
    let applied = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": name}, "rules": rules});
    let params = PatchParams::apply(MANAGER).force();
    let result = match roles.patch(name, &params, &Patch::Apply(&applied)).await {
        // A server without server-side apply.
        Err(error) if refusal(&error).is_some_and(|status| status.code == 415) => {
            let patch =
                json!({"metadata": {"resourceVersion": role.metadata.resource_version}, "rules": rules});
            roles.patch(name, &patcher(), &Patch::Merge(&patch)).await
        }
        result => result,
    };
    match result {
        Err(error) if !is_not_found(&error) => Err(error.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mock::{Answer, server};
    use serde_json::Value;
    use std::sync::Mutex;

    fn role(name: &str, labels: Value, resources: &[&str]) -> Value {
        let rule = |resource: &&str| json!({"verbs": ["get"], "apiGroups": [""], "resources": [resource]});
        json!({"metadata": {"name": name, "labels": labels}, "rules": resources.iter().map(rule).collect::<Vec<_>>()})
    }

    fn aggregated(selectors: Value, resources: &[&str]) -> Value {
        let mut role = role("agg", json!({"to": "agg"}), resources);
        role["aggregationRule"] = json!({"clusterRoleSelectors": selectors});
        role
    }

    fn gathered(selectors: Value, roles: &[Value]) -> Option<Vec<String>> {
        let role = serde_json::from_value(aggregated(selectors, &["everything"])).unwrap();
        let roles: Vec<_> = roles.iter().map(|role| serde_json::from_value(role.clone()).unwrap()).collect();
        let rules = gather(&role, &roles)?;
        Some(rules.into_iter().flat_map(|rule| rule.resources.unwrap_or_default()).collect())
    }

    #[test]
    fn rules_come_by_selector_then_by_name_each_once_and_never_from_the_role_itself() {
        let roles = [
            aggregated(json!([]), &["everything"]),
            role("b", json!({"to": "agg"}), &["nodes", "pods"]),
            role("c", json!({"to": "agg"}), &["pods", "secrets"]),
            role("d", json!({"first": ""}), &["secrets"]),
            role("e", json!({"to": "other"}), &["events"]),
        ];
        let selectors = json!([{"matchExpressions": [{"key": "first", "operator": "Exists"}]}, {"matchLabels": {"to": "agg"}}]);
        assert_eq!(gathered(selectors, &roles).unwrap(), ["secrets", "nodes", "pods"]);
        assert_eq!(gathered(json!([]), &roles).unwrap(), [""; 0]);
        assert_eq!(
            gathered(json!([{"matchExpressions": [{"key": "a", "operator": "Within"}]}]), &roles),
            None
        );
    }

    /// With a search of all that was gathered for each rule this would take minutes.
    #[test]
    fn thousands_of_rules_are_gathered() {
        let names: Vec<String> = (0..10_000).map(|i| format!("r{i}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let roles =
            [role("b", json!({"to": "agg"}), &names), role("c", json!({"to": "agg"}), &names[5000..])];
        assert_eq!(gathered(json!([{"matchLabels": {"to": "agg"}}]), &roles).unwrap(), names);
    }

    #[tokio::test]
    async fn only_roles_that_differ_are_applied_with_force() {
        let writes: Arc<Mutex<Vec<(String, Value)>>> = Arc::default();
        let log = writes.clone();
        let mut right = aggregated(json!([{"matchLabels": {"to": "x"}}]), &["pods"]);
        right["metadata"]["name"] = json!("right");
        right["rules"][0]["resourceNames"] = json!([]);
        let roles = json!({"metadata": {}, "items": [
            role("part", json!({"to": "x"}), &["pods"]), right, aggregated(json!([]), &["edited"])]});
        let client = server(move |request| match request.method.as_str() {
            "GET" => Answer::ok(roles.clone()),
            _ => {
                log.lock()
                    .unwrap()
                    .push((format!("{}?{}", request.path, request.query), request.body.clone()));
                Answer::ok(request.body)
            }
        });
        assert!(!roles_are_aggregated(&client).await.unwrap());
        reconcile(&client).await.unwrap();
        let writes = writes.lock().unwrap();
        assert_eq!(writes.len(), 1);
        assert!(
            writes[0].0.contains("/clusterroles/agg?") && writes[0].0.contains("force=true"),
            "{}",
            writes[0].0
        );
        assert_eq!(writes[0].1["rules"], json!([]));
    }
}
