//! Joining a cluster: its namespace on the hub, and an agent's rights there.

use crate::renewals;
use fleetpass_api::{features::FeatureGates, names, workload};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams},
    core::GroupVersionKind,
};
use serde_json::{Value, json};

/// Name of the role and its binding in a cluster's namespace.
const ROLE: &str = "open-cluster-management:managed-serviceaccount:addon-agent";
/// Name of the ClusterRole, and of its binding, with which agents renew their certificates.
const RENEWAL_ROLE: &str = "open-cluster-management:managed-serviceaccount:agent-renewal";
/// The ServiceAccount in a cluster's namespace, with the same rights, for an agent that authenticates with a token.
pub const AGENT_SERVICE_ACCOUNT: &str = "fleetpass-agent";

/// Why an object could not be put in place.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The manifest lacks what every manifest has.
    #[error("the manifest has no {0}")]
    Manifest(&'static str),
    /// The API server did not do it.
    #[error("{what}: {source}")]
    Api {
        /// Kind and name of the object.
        what: String,
        /// What it answered.
        source: Box<kube::Error>,
    },
}

/// Who the agent of a joined cluster is on the hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// Common name for the agent's client certificate.
    pub user: String,
    /// Organisations for the agent's client certificate; the rights are bound to the first.
    pub groups: Vec<String>,
}

/// The same outside of that namespace, for one cluster: rights that it keeps when the namespace is deleted.
fn cluster_role(cluster: &str) -> String {
    format!("{ROLE}:{cluster}")
}

/// What the hub needs for a cluster, to be created in this order. In the cluster's namespace its agent may:
///
/// - ManagedServiceAccounts: get, list, watch; their status: update, patch
/// - Secrets: get, list, watch, create, update, delete
/// - ManagedServiceAccounts: delete, if it is the one to delete those whose time is over
///   ([`FeatureGates::ephemeral_identity`])
/// - the Lease `fleetpass-agent`: get, update; Leases: create
/// - Events: create, patch
///
/// And outside of it, Namespaces: get that of the cluster, to see that it was deleted, and `kube-system`, whose UID says
/// which hub this is.
///
/// The first three are the upstream addon's rights (`deploy/bases/hub-clusterrole.yaml`) without those that no agent uses: of
/// its agent and ours, the one updates a status and the other patches it. Without the others, as under upstream's
/// roles, the agent works and says what it cannot guard against.
pub fn hub_manifests(cluster: &str, features: FeatureGates) -> Vec<Value> {
    let mut account_verbs = vec!["get", "list", "watch"];
    if features.ephemeral_identity {
        account_verbs.push("delete");
    }
    let rbac = "rbac.authorization.k8s.io";
    let version = "rbac.authorization.k8s.io/v1";
    // Two ways to authenticate: a client certificate with that group, or a token of the ServiceAccount.
    let subjects = json!([
        {"apiGroup": rbac, "kind": "Group", "name": names::agent_group(cluster)},
        {"kind": "ServiceAccount", "name": AGENT_SERVICE_ACCOUNT, "namespace": cluster},
    ]);
    let outside = cluster_role(cluster);
    vec![
        workload::namespace(cluster),
        json!({
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": AGENT_SERVICE_ACCOUNT, "namespace": cluster},
        }),
        json!({
            "apiVersion": version, "kind": "Role", "metadata": {"name": ROLE, "namespace": cluster},
            "rules": [
                {"apiGroups": [names::GROUP], "resources": [names::PLURAL], "verbs": account_verbs},
                {"apiGroups": [names::GROUP], "resources": [format!("{}/status", names::PLURAL)],
                 "verbs": ["update", "patch"]},
                {"apiGroups": [""], "resources": ["secrets"],
                 "verbs": ["get", "list", "watch", "create", "update", "delete"]},
                {"apiGroups": [""], "resources": ["events"], "verbs": ["create", "patch"]},
                // RBAC cannot limit `create` to a name: an object that does not exist yet has none to compare.
                {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"]},
                {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"],
                 "resourceNames": [names::AGENT_LEASE], "verbs": ["get", "update"]},
            ],
        }),
        json!({
            "apiVersion": version, "kind": "RoleBinding", "metadata": {"name": ROLE, "namespace": cluster},
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": ROLE},
            "subjects": subjects,
        }),
        json!({
            "apiVersion": version, "kind": "ClusterRole", "metadata": {"name": outside},
            "rules": [
                {"apiGroups": [""], "resources": ["namespaces"],
                 "resourceNames": [cluster, names::NAMESPACE_OF_IDENTITY], "verbs": ["get"]},
            ],
        }),
        json!({
            "apiVersion": version, "kind": "ClusterRoleBinding", "metadata": {"name": outside},
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": outside},
            "subjects": subjects,
        }),
    ]
}

/// The right of all agents to renew their certificates, once on a hub: to ask (`crate::renewals` approves), and to see
/// what became of it. By the group that is in every agent's certificate; those of other names can be bound beside it.
///
/// It does not end at the cluster's namespace, because CertificateSigningRequests are in none.
/// An agent can see others' requests by name. They hold nothing secret.
pub fn renewal_manifests() -> Vec<Value> {
    let rbac = "rbac.authorization.k8s.io";
    let version = "rbac.authorization.k8s.io/v1";
    let group = "certificates.k8s.io";
    let resource = "certificatesigningrequests";
    vec![
        json!({
            "apiVersion": version, "kind": "ClusterRole", "metadata": {"name": RENEWAL_ROLE},
            "rules": [
                {"apiGroups": [group], "resources": [resource], "verbs": ["create", "get"]},
                {"apiGroups": [group], "resources": [format!("{resource}/{}", renewals::SUBRESOURCE)],
                 "verbs": ["create"]},
            ],
        }),
        json!({
            "apiVersion": version, "kind": "ClusterRoleBinding", "metadata": {"name": RENEWAL_ROLE},
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": RENEWAL_ROLE},
            "subjects": [{"apiGroup": rbac, "kind": "Group", "name": names::ADDON_GROUP}],
        }),
    ]
}

/// Who the agent of this cluster is; the same whether or not the cluster has joined.
fn identity(cluster: &str) -> Joined {
    Joined {
        user: names::agent_user(cluster),
        groups: vec![names::agent_group(cluster), names::ADDON_GROUP.to_owned()],
    }
}

/// Puts in place what the hub needs for the cluster. Doing it again restores what was changed, and is otherwise
/// without effect. `client` must be allowed to grant the rights of [`hub_manifests`].
pub async fn join(client: &Client, cluster: &str) -> Result<Joined, Error> {
    ensure(client, &hub_manifests(cluster, FeatureGates::default())).await?;
    Ok(identity(cluster))
}

/// Annotation by which an operator keeps an object from being renewed (k8s.io/api, `rbac/v1`, `AutoUpdateAnnotationKey`).
const AUTO_UPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// Creates each object, or gives the one that is there the manifest's values (JSON merge patch: lists are replaced
/// whole, what the manifest does not name stays). One that an operator took over stays as it is: with the annotation
/// `rbac.authorization.kubernetes.io/autoupdate: "false"`, as for Kubernetes' own roles. Stops at the first that fails.
pub async fn ensure(client: &Client, manifests: &[Value]) -> Result<(), Error> {
    for manifest in manifests {
        let text = |value: &Value, what| value.as_str().map(str::to_owned).ok_or(Error::Manifest(what));
        // Missing members are errors of the caller's manifest, and are told before the server is asked.
        let api_version = text(&manifest["apiVersion"], "apiVersion")?;
        let kind = text(&manifest["kind"], "kind")?;
        let name = text(&manifest["metadata"]["name"], "metadata.name")?;
        // The core group has none in its `apiVersion`.
        let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
        // The plural is guessed from the kind, without discovery; that is right for all kinds that are put in place
        // here.
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &kind));
        let api: Api<DynamicObject> = match manifest["metadata"]["namespace"].as_str() {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
            None => Api::all_with(client.clone(), &resource),
        };
        let object: DynamicObject =
            serde_json::from_value(manifest.clone()).map_err(|_| Error::Manifest("readable metadata"))?;
        let result = match api.create(&PostParams::default(), &object).await {
            Err(kube::Error::Api(status)) if status.is_already_exists() => match api.get(&name).await {
                Ok(found) if is_taken_over(&found) => {
                    continue;
                }
                Ok(_) => api.patch(&name, &PatchParams::default(), &Patch::Merge(manifest)).await,
                Err(error) => Err(error),
            },
            result => result,
        };
        result.map_err(|source| Error::Api { what: format!("{kind} {name}"), source: Box::new(source) })?;
    }
    Ok(())
}

fn is_taken_over(found: &DynamicObject) -> bool {
    let annotations = found.metadata.annotations.as_ref();
    annotations.and_then(|all| all.get(AUTO_UPDATE)).is_some_and(|value| value == "false")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rights_end_at_the_clusters_namespace() {
        let manifests = hub_manifests("cluster1", FeatureGates::default());
        assert_eq!(manifests[0]["metadata"]["name"], "cluster1");
        for manifest in &manifests[1..4] {
            assert_eq!(manifest["metadata"]["namespace"], "cluster1");
            assert!(!manifest["kind"].as_str().unwrap().starts_with("Cluster"));
        }
        // Beyond it, the agent may see that two namespaces are there.
        let outside = json!([{"apiGroups": [""], "resources": ["namespaces"],
            "resourceNames": ["cluster1", "kube-system"], "verbs": ["get"]}]);
        assert_eq!((manifests.len(), &manifests[4]["rules"]), (6, &outside));
        assert_ne!(manifests[4]["metadata"], hub_manifests("c2", FeatureGates::default())[4]["metadata"]);
        let rules = manifests[2]["rules"].as_array().unwrap();
        assert!(rules.iter().all(|rule| !rule.to_string().contains('*')));
        let accounts = &rules[0];
        assert_eq!(accounts["verbs"], json!(["get", "list", "watch"]), "an agent changes no account");
        let ephemeral = hub_manifests("cluster1", FeatureGates { ephemeral_identity: true });
        assert_eq!(ephemeral[2]["rules"][0]["verbs"], json!(["get", "list", "watch", "delete"]));
        assert_eq!(ephemeral[2]["rules"].as_array().unwrap()[1..], rules[1..]);
        assert_eq!(
            manifests[3]["subjects"][0]["name"],
            "system:open-cluster-management:cluster:cluster1:addon:managed-serviceaccount"
        );
    }
}
