//! What a cluster must grant its agent: nothing beyond the agent's own namespace, except asking whether a token is
//! good.

use fleetpass_api::names;
use serde_json::{Value, json};

/// Name of the roles and bindings, those of the upstream addon's agent.
const ROLE: &str = "open-cluster-management:managed-serviceaccount:addon-agent";

/// The namespace of the agent, and the rights in it for `subject` (an `rbac.authorization.k8s.io/v1` Subject:
/// `{"kind": "User", "name": …}` or `{"kind": "ServiceAccount", "name": …, "namespace": …}`), to be created in this
/// order:
///
/// - ServiceAccounts: get, list, watch, create, delete; `serviceaccounts/token`: create
/// - the Lease `managed-serviceaccount`: get, update, patch; Leases: create
/// - the ConfigMap `kube-root-ca.crt`: get
/// - cluster-wide, TokenReviews: create
pub fn spoke_manifests(namespace: &str, subject: &Value) -> Vec<Value> {
    let mut subject = subject.clone();
    if subject["kind"] != "ServiceAccount" {
        subject["apiGroup"] = json!("rbac.authorization.k8s.io");
    }
    let rbac = "rbac.authorization.k8s.io/v1";
    let reference = |kind: &str| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": ROLE});
    vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}),
        json!({
            "apiVersion": rbac, "kind": "Role", "metadata": {"name": ROLE, "namespace": namespace},
            "rules": [
                {"apiGroups": [""], "resources": ["serviceaccounts"],
                 "verbs": ["get", "list", "watch", "create", "delete"]},
                {"apiGroups": [""], "resources": ["serviceaccounts/token"], "verbs": ["create"]},
                {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"]},
                {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"],
                 "resourceNames": [names::ADDON_NAME], "verbs": ["get", "update", "patch"]},
                {"apiGroups": [""], "resources": ["configmaps"],
                 "resourceNames": [names::ROOT_CA_CONFIG_MAP], "verbs": ["get"]},
            ],
        }),
        json!({
            "apiVersion": rbac, "kind": "RoleBinding", "metadata": {"name": ROLE, "namespace": namespace},
            "roleRef": reference("Role"), "subjects": [subject],
        }),
        json!({
            "apiVersion": rbac, "kind": "ClusterRole", "metadata": {"name": ROLE},
            "rules": [
                {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]},
            ],
        }),
        json!({
            "apiVersion": rbac, "kind": "ClusterRoleBinding", "metadata": {"name": ROLE},
            "roleRef": reference("ClusterRole"), "subjects": [subject],
        }),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_no_write_to_other_objects() {
        let subject = json!({"kind": "User", "name": "agent"});
        let manifests = spoke_manifests("agents", &subject);
        assert_eq!(manifests[0]["kind"], "Namespace");
        for rule in manifests.iter().filter_map(|manifest| manifest["rules"].as_array()).flatten() {
            assert!(!rule.to_string().contains('*'), "{rule}");
            assert_ne!(rule["resources"], json!(["secrets"]));
        }
        assert_eq!(manifests[4]["subjects"][0]["apiGroup"], "rbac.authorization.k8s.io");
    }
}
