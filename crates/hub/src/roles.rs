//! What the roles `view`, `edit` and `admin` of a Kubernetes may do with ManagedServiceAccounts.

use fleetpass_api::names;
use serde_json::{Value, json};

/// The name of a role that is aggregated.
fn role(what: &str) -> String {
    format!("open-cluster-management:{}:accounts-{what}", names::ADDON_NAME)
}

/// ClusterRoles that Kubernetes adds to those for people, by their labels (`aggregationRule`): who may `view` a namespace may
/// see its accounts, who may `edit` or `admin` it may also make, change and delete them. The status is the agent's. They open
/// no Secret: tokens are read by those who may read Secrets anyway, which is not `view`.
pub fn account_roles() -> Vec<Value> {
    let read = ["get", "list", "watch"];
    let write = ["create", "update", "patch", "delete", "deletecollection"];
    let edit: Vec<&str> = read.into_iter().chain(write).collect();
    [("view", &read[..], &["view", "edit", "admin"][..]), ("edit", &edit, &["edit", "admin"])]
        .into_iter()
        .map(|(what, verbs, into)| {
            let labels: serde_json::Map<String, Value> = into
                .iter()
                .map(|role| (format!("rbac.authorization.k8s.io/aggregate-to-{role}"), "true".into()))
                .collect();
            json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
                "metadata": {"name": role(what), "labels": labels},
                "rules": [{"apiGroups": [names::GROUP], "resources": [names::PLURAL], "verbs": verbs}],
            })
        })
        .collect()
}
