//! What a cluster must grant its agent: nothing beyond the agent's own namespace, except asking whether a token is
//! good.

use fleetpass_api::{
    features::FeatureGates,
    names,
    workload::{self, Replicas, Workload},
};
use serde_json::{Value, json};

/// Name of the roles and bindings, those of the upstream addon's agent.
const ROLE: &str = "open-cluster-management:managed-serviceaccount:addon-agent";

/// Name of what belongs to the agent of this namespace and is in none. That of the usual namespace has the upstream addon's
/// names, whose place it takes; others have their own, so that installing or removing one agent leaves the others' rights.
fn cluster_wide(namespace: &str) -> String {
    match namespace {
        names::DEFAULT_AGENT_NAMESPACE => ROLE.to_owned(),
        _ => format!("{ROLE}:{namespace}"),
    }
}

/// The namespace of the agent, and the rights in it for `subject` (an `rbac.authorization.k8s.io/v1` Subject:
/// `{"kind": "User", "name": …}` or `{"kind": "ServiceAccount", "name": …, "namespace": …}`), to be created in this
/// order:
///
/// - ServiceAccounts: get, list, watch, create, patch (to mark those that it adopts), delete; `serviceaccounts/token`:
///   create
/// - the Leases `managed-serviceaccount` and `managed-serviceaccount-addon-agent`: get, update, patch; Leases: create
/// - the ConfigMap `kube-root-ca.crt`: get
/// - cluster-wide, TokenReviews: create; the namespace `kube-system`, whose UID says which cluster this is: get
pub fn spoke_manifests(namespace: &str, subject: &Value) -> Vec<Value> {
    let mut subject = subject.clone();
    // RBAC's validation wants the group for users and groups, and none for ServiceAccounts.
    if subject["kind"] != "ServiceAccount" {
        subject["apiGroup"] = json!("rbac.authorization.k8s.io");
    }
    let rbac = "rbac.authorization.k8s.io/v1";
    let global = cluster_wide(namespace);
    let reference =
        |kind: &str, name: &str| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name});
    vec![
        workload::namespace(namespace),
        json!({
            "apiVersion": rbac, "kind": "Role", "metadata": {"name": ROLE, "namespace": namespace},
            "rules": [
                {"apiGroups": [""], "resources": ["serviceaccounts"],
                 "verbs": ["get", "list", "watch", "create", "patch", "delete"]},
                {"apiGroups": [""], "resources": ["serviceaccounts/token"], "verbs": ["create"]},
                {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"]},
                {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"],
                 "resourceNames": [names::ADDON_NAME, names::AGENT_ELECTION_LEASE], "verbs": ["get", "update", "patch"]},
                {"apiGroups": [""], "resources": ["configmaps"],
                 "resourceNames": [names::ROOT_CA_CONFIG_MAP], "verbs": ["get"]},
            ],
        }),
        json!({
            "apiVersion": rbac, "kind": "RoleBinding", "metadata": {"name": ROLE, "namespace": namespace},
            "roleRef": reference("Role", ROLE), "subjects": [subject],
        }),
        json!({
            "apiVersion": rbac, "kind": "ClusterRole", "metadata": {"name": global},
            "rules": [
                {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]},
                {"apiGroups": [""], "resources": ["namespaces"],
                 "resourceNames": [names::NAMESPACE_OF_IDENTITY], "verbs": ["get"]},
            ],
        }),
        json!({
            "apiVersion": rbac, "kind": "ClusterRoleBinding", "metadata": {"name": global},
            "roleRef": reference("ClusterRole", &global), "subjects": [subject],
        }),
    ]
}

/// The ServiceAccount of an agent that runs in a pod of its cluster.
const SERVICE_ACCOUNT: &str = "managed-serviceaccount";
/// The Deployment of such an agent.
const DEPLOYMENT: &str = "fleetpass-agent";
/// Where its pod finds the kubeconfig of the hub.
const HUB_DIRECTORY: &str = "/etc/hub";

/// An agent in a pod of its cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InCluster<'a> {
    /// The name of the cluster: its namespace on the hub.
    pub cluster: &'a str,
    /// The namespace of the agent, and of the ServiceAccounts that it keeps.
    pub namespace: &'a str,
    /// The image that it runs from; without one there is no Deployment.
    pub image: Option<&'a str>,
    /// The Secret in that namespace whose key `kubeconfig` is the kubeconfig of the hub.
    pub hub_kubeconfig_secret: &'a str,
    /// Its switches.
    pub features: FeatureGates,
}

impl InCluster<'_> {
    /// [`spoke_manifests`] for the agent's own ServiceAccount, with that ServiceAccount and its Deployment, and the right to
    /// renew the certificate in the Secret of the hub's kubeconfig: get, patch.
    pub fn manifests(&self) -> Vec<Value> {
        let metadata = json!({"name": SERVICE_ACCOUNT, "namespace": self.namespace});
        let subject = json!({"kind": "ServiceAccount", "name": SERVICE_ACCOUNT, "namespace": self.namespace});
        let mut manifests = spoke_manifests(self.namespace, &subject);
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata});
        manifests.insert(1, account);
        if let Some(rules) = manifests[2]["rules"].as_array_mut() {
            rules.push(json!({"apiGroups": [""], "resources": ["secrets"],
                "resourceNames": [self.hub_kubeconfig_secret], "verbs": ["get", "patch"]}));
        }
        manifests.extend(self.image.map(|image| self.deployment(image)));
        manifests
    }

    fn deployment(&self, image: &str) -> Value {
        let mut arguments = vec![
            "agent".to_owned(),
            format!("--cluster-name={}", self.cluster),
            format!("--kubeconfig={HUB_DIRECTORY}/kubeconfig"),
            // The files on the volume cannot be written; a renewed certificate goes to where they come from.
            format!("--hub-kubeconfig-secret={}", self.hub_kubeconfig_secret),
        ];
        if self.features != FeatureGates::default() {
            arguments.push(format!("--feature-gates={}", self.features));
        }
        let workload = Workload {
            name: DEPLOYMENT,
            namespace: self.namespace,
            service_account: SERVICE_ACCOUNT,
            image,
            arguments,
            // Without an election two would replace each other's tokens.
            replicas: Replicas::One,
            secret: Some((self.hub_kubeconfig_secret, HUB_DIRECTORY)),
        };
        workload.deployment()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_in_a_pod_has_its_own_account_and_a_deployment_only_with_an_image() {
        let mut agent = InCluster {
            cluster: "cluster1",
            namespace: "agents",
            image: None,
            hub_kubeconfig_secret: "hub",
            features: FeatureGates { ephemeral_identity: true },
        };
        let kinds = |manifests: &[Value]| -> Vec<String> {
            manifests.iter().map(|manifest| manifest["kind"].as_str().unwrap().to_owned()).collect()
        };
        let rights =
            ["Namespace", "ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"];
        assert_eq!(kinds(&agent.manifests()), rights);
        agent.image = Some("example.com/fleetpass:1");
        let manifests = agent.manifests();
        assert_eq!(kinds(&manifests)[..6], rights);
        let pod = &manifests[6]["spec"]["template"]["spec"];
        assert_eq!(pod["serviceAccountName"], manifests[1]["metadata"]["name"]);
        assert_eq!(manifests[3]["subjects"][0]["name"], manifests[1]["metadata"]["name"]);
        assert_eq!(pod["volumes"][0]["secret"]["secretName"], "hub");
        let arguments = pod["containers"][0]["args"].to_string();
        assert!(
            arguments.contains("--cluster-name=cluster1") && arguments.contains("EphemeralIdentity=true")
        );
        assert_eq!(manifests[6]["spec"]["replicas"], 1);
    }

    /// Applying or deleting what is printed for one namespace must not touch what another agent lives on.
    #[test]
    fn agents_of_two_namespaces_share_no_object() {
        let objects = |namespace: &str| -> Vec<String> {
            let subject = json!({"kind": "ServiceAccount", "name": SERVICE_ACCOUNT, "namespace": namespace});
            let manifests = spoke_manifests(namespace, &subject);
            let bindings = manifests.iter().filter(|manifest| manifest["roleRef"].is_object());
            for binding in bindings {
                let role = &binding["roleRef"];
                let own = |manifest: &&Value| {
                    manifest["kind"] == role["kind"] && manifest["metadata"]["name"] == role["name"]
                };
                assert!(manifests.iter().any(|manifest| own(&manifest)), "{binding}");
                assert_eq!(binding["subjects"], json!([subject]));
            }
            manifests.iter().map(|m| format!("{} {}", m["kind"], m["metadata"])).collect()
        };
        let all = [names::DEFAULT_AGENT_NAMESPACE, "a", "b"].map(objects);
        for (index, one) in all.iter().enumerate() {
            for other in &all[index + 1..] {
                assert!(one.iter().all(|object| !other.contains(object)), "{one:?} {other:?}");
            }
        }
        // Upstream's names, and those of earlier versions.
        assert!(all[0].contains(&format!("{} {}", json!("ClusterRoleBinding"), json!({"name": ROLE}))));
    }

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
