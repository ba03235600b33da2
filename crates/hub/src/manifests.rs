//! The hub-side controllers on a Kubernetes: the kind that they look after, their rights, their Deployment.

use crate::{join, roles};
use fleetpass_api::{
    features::FeatureGates,
    names,
    workload::{self, Replicas, Workload},
};
use serde_json::{Value, json};

/// The name of everything that belongs to the manager: ServiceAccount, roles, bindings, Deployment, Lease.
pub const MANAGER: &str = "fleetpass-manager";
/// Where the manager lives unless told otherwise.
pub const DEFAULT_MANAGER_NAMESPACE: &str = "fleetpass";
/// How many managers run: one leads, the other takes over.
const REPLICAS: u32 = 2;

/// The manager (`fleetpass manager`) in pods of its hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manager<'a> {
    /// The namespace of the manager and of the Lease of its election.
    pub namespace: &'a str,
    /// The image that it runs from; without one there is no Deployment.
    pub image: Option<&'a str>,
    /// Its switches.
    pub features: FeatureGates,
}

impl Manager<'_> {
    /// What the manager needs, to be created in this order. It may
    ///
    /// - everywhere, ManagedServiceAccounts: list, watch, get, and delete if accounts have a time to live
    ///   ([`FeatureGates::ephemeral_identity`]); their status: patch; the agents' Leases: list, watch
    /// - everywhere, Secrets: list, watch, delete. It reads their metadata only, but a right to list is a right to
    ///   read: RBAC knows no smaller one
    /// - CertificateSigningRequests of the signer `kubernetes.io/kube-apiserver-client`: get, list, watch, approve; and
    ///   SubjectAccessReviews: create. It approves renewals only, but a right to approve is one to approve anything of that
    ///   signer
    /// - in its own namespace, the Lease of its election: list, watch, get, update; Leases: create
    pub fn manifests(&self) -> Vec<Value> {
        let mut account_verbs = vec!["get", "list", "watch"];
        if self.features.ephemeral_identity {
            account_verbs.push("delete");
        }
        let certificates = "certificates.k8s.io";
        let everywhere = json!([
            {"apiGroups": [names::GROUP], "resources": [names::PLURAL], "verbs": account_verbs},
            {"apiGroups": [names::GROUP], "resources": [format!("{}/status", names::PLURAL)], "verbs": ["patch"]},
            {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "resourceNames": [names::AGENT_LEASE],
             "verbs": ["list", "watch"]},
            {"apiGroups": [""], "resources": ["secrets"], "verbs": ["list", "watch", "delete"]},
            {"apiGroups": [certificates], "resources": ["certificatesigningrequests"],
             "verbs": ["get", "list", "watch"]},
            {"apiGroups": [certificates], "resources": ["certificatesigningrequests/approval"], "verbs": ["patch"]},
            {"apiGroups": [certificates], "resources": ["signers"],
             "resourceNames": ["kubernetes.io/kube-apiserver-client"], "verbs": ["approve"]},
            {"apiGroups": ["authorization.k8s.io"], "resources": ["subjectaccessreviews"], "verbs": ["create"]},
        ]);
        // RBAC cannot limit `create` to a name: an object that does not exist yet has none to compare.
        let here = json!([
            {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"]},
            {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "resourceNames": [MANAGER],
             "verbs": ["get", "list", "watch", "update"]},
        ]);
        let rbac = "rbac.authorization.k8s.io";
        let version = "rbac.authorization.k8s.io/v1";
        let local = json!({"name": MANAGER, "namespace": self.namespace});
        let global = json!({"name": MANAGER});
        let subjects = json!([{"kind": "ServiceAccount", "name": MANAGER, "namespace": self.namespace}]);
        let reference = |kind| json!({"apiGroup": rbac, "kind": kind, "name": MANAGER});
        let mut manifests = vec![
            workload::namespace(self.namespace),
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": local}),
            json!({"apiVersion": version, "kind": "ClusterRole", "metadata": global, "rules": everywhere}),
            json!({"apiVersion": version, "kind": "ClusterRoleBinding", "metadata": global,
                "roleRef": reference("ClusterRole"), "subjects": subjects}),
            json!({"apiVersion": version, "kind": "Role", "metadata": local, "rules": here}),
            json!({"apiVersion": version, "kind": "RoleBinding", "metadata": local,
                "roleRef": reference("Role"), "subjects": subjects}),
        ];
        manifests.extend(join::renewal_manifests());
        manifests.extend(roles::account_roles());
        manifests.extend(self.image.map(|image| self.deployment(image)));
        manifests
    }

    fn deployment(&self, image: &str) -> Value {
        let mut arguments = vec!["manager".to_owned()];
        // Only what differs from the defaults, so that the command line says what somebody decided.
        if self.features != FeatureGates::default() {
            arguments.push(format!("--feature-gates={}", self.features));
        }
        let workload = Workload {
            name: MANAGER,
            namespace: self.namespace,
            service_account: MANAGER,
            image,
            arguments,
            replicas: Replicas::Elected(REPLICAS),
            secret: None,
        };
        workload.deployment()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_managers_rights_are_what_it_does() {
        let mut manager = Manager { namespace: "here", image: None, features: FeatureGates::default() };
        let manifests = manager.manifests();
        for rule in manifests.iter().filter_map(|manifest| manifest["rules"].as_array()).flatten() {
            assert!(!rule.to_string().contains('*'), "{rule}");
        }
        let accounts = |manifests: &[Value]| manifests[2]["rules"][0]["verbs"].clone();
        assert_eq!(accounts(&manifests), json!(["get", "list", "watch"]));
        assert!(manifests.iter().all(|manifest| manifest["kind"] != "Deployment"));
        manager.features.ephemeral_identity = true;
        manager.image = Some("example.com/fleetpass:1");
        let manifests = manager.manifests();
        assert_eq!(accounts(&manifests), json!(["get", "list", "watch", "delete"]));
        let pod = &manifests[10]["spec"]["template"]["spec"];
        assert_eq!(pod["serviceAccountName"], manifests[1]["metadata"]["name"]);
        assert_eq!(
            pod["containers"][0]["args"].as_array().unwrap()[..2],
            [json!("manager"), json!("--feature-gates=EphemeralIdentity=true")]
        );
    }
}
