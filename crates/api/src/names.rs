//! The keys and names that hub, agent and users agree on.
//!
//! Those of the group `authentication.open-cluster-management.io` are the upstream addon's
//! (`pkg/common/constants.go` and `apis/authentication/v1beta1` of open-cluster-management-io/managed-serviceaccount),
//! so that either side can be swapped for the other's.

/// API group of ManagedServiceAccount.
pub const GROUP: &str = "authentication.open-cluster-management.io";
/// The stored version of ManagedServiceAccount.
pub const V1BETA1: &str = "v1beta1";
/// The deprecated, still served version of ManagedServiceAccount.
pub const V1ALPHA1: &str = "v1alpha1";
/// Kind of the account.
pub const KIND: &str = "ManagedServiceAccount";
/// Resource name of the account in URLs.
pub const PLURAL: &str = "managedserviceaccounts";

/// Name of the addon: also the name of the Lease that an agent renews.
pub const ADDON_NAME: &str = "managed-serviceaccount";
/// Name of the Lease by which agents of one cluster elect the one that works (`LeaderElectionID` in `cmd/agent/agent.go` upstream).
pub const AGENT_ELECTION_LEASE: &str = "managed-serviceaccount-addon-agent";
/// Name of the agent within the addon, as its client certificate carries it.
const AGENT_NAME: &str = "addon-agent";
/// Group of the addon's agents of all clusters, an organisation of their client certificates.
pub const ADDON_GROUP: &str = "system:open-cluster-management:addon:managed-serviceaccount";
/// Namespace of the agent, and of the ServiceAccounts that it keeps, on a managed cluster.
pub const DEFAULT_AGENT_NAMESPACE: &str = "open-cluster-management-agent-addon";

/// Label of every ServiceAccount and Secret that belongs to a ManagedServiceAccount. Without it an object
/// is somebody else's: never minted for, overwritten or deleted.
pub const LABEL_IS_MANAGED: &str = "authentication.open-cluster-management.io/is-managed-serviceaccount";
/// The one value of [`LABEL_IS_MANAGED`] that counts.
pub const LABEL_IS_MANAGED_VALUE: &str = "true";

// Everything below `fleetpass.io/` is ours: the upstream addon does not know it and has to work without it.

/// Annotation of a projected Secret: the request (lifetime, audiences) that its token answers, so that a
/// changed request is seen even where the cluster shortens lifetimes. Written by Fleetpass only.
pub const ANNOTATION_TOKEN_REQUEST: &str = "fleetpass.io/token-request";
/// Annotation of a ServiceAccount that an agent keeps: the name (`--cluster-name`) under which its cluster is known on
/// the hub of that agent. Two agents may share a namespace; each leaves the other's alone.
pub const ANNOTATION_CLUSTER_NAME: &str = "fleetpass.io/cluster-name";
/// Annotation of such a ServiceAccount: the hub, by the UID of its namespace [`NAMESPACE_OF_IDENTITY`]. Absent where
/// the agent may not read that.
pub const ANNOTATION_HUB: &str = "fleetpass.io/hub";
/// The namespace whose UID says which control plane this is: no user can delete it, so it lives as long as the
/// control plane.
pub const NAMESPACE_OF_IDENTITY: &str = "kube-system";
/// Name of the Lease in a cluster's namespace on the hub that the agent of that cluster renews while it works. Its
/// holder (`spec.holderIdentity`) names the cluster, its `spec.renewTime` is when the agent was last seen.
pub const AGENT_LEASE: &str = "fleetpass-agent";

/// Annotation of a projected Secret: when its token was issued, RFC 3339 in UTC, by the cluster's clock (`iat`). Written
/// together with the token. Secrets of the upstream addon's agent, and of agents before this annotation, lack it until
/// their token is renewed.
pub const ANNOTATION_TOKEN_ISSUED_AT: &str = "fleetpass.io/token-issued-at";
/// Annotation of a projected Secret: when its token expires (`exp`), like [`ANNOTATION_TOKEN_ISSUED_AT`].
pub const ANNOTATION_TOKEN_EXPIRES_AT: &str = "fleetpass.io/token-expires-at";

/// Key of the cluster's CA bundle (PEM) in a projected Secret; core/v1 `ServiceAccountRootCAKey`.
pub const SECRET_KEY_CA: &str = "ca.crt";
/// Key of the token in a projected Secret; core/v1 `ServiceAccountTokenKey`.
pub const SECRET_KEY_TOKEN: &str = "token";
/// Type of a projected Secret.
pub const SECRET_TYPE_OPAQUE: &str = "Opaque";
/// ConfigMap with the cluster's CA bundle (key `ca.crt`), kept in every namespace by kube-controller-manager.
pub const ROOT_CA_CONFIG_MAP: &str = "kube-root-ca.crt";

/// Condition: the Secret with the token exists on the hub.
pub const CONDITION_SECRET_CREATED: &str = "SecretCreated";
/// Condition: the Secret holds a token that the cluster accepts.
pub const CONDITION_TOKEN_REPORTED: &str = "TokenReported";
/// Condition: the token in the Secret is in the last tenth of its lifetime and could not be renewed yet, or has expired.
/// Absent from accounts to which that never happened. Set by Fleetpass only.
pub const CONDITION_TOKEN_EXPIRING: &str = "TokenExpiring";

/// Condition: somebody looks after the accounts of the cluster. Set by the hub: True once an agent was seen, absent before.
pub const CONDITION_AGENT_AVAILABLE: &str = "AgentAvailable";

// Reasons are part of what users see and scripts compare: they are added to, and not renamed.

/// Reason of `SecretCreated` when it is True.
pub const REASON_SECRET_CREATED: &str = "SecretCreated";
/// Reason of `SecretCreated` when there is no Secret yet.
pub const REASON_SECRET_MISSING: &str = "SecretMissing";
/// Reason of `TokenReported` when all is well.
pub const REASON_TOKEN_REPORTED: &str = "TokenReported";
/// Reason: a ServiceAccount or Secret of that name belongs to somebody else.
pub const REASON_NAME_CONFLICT: &str = "NameConflict";
/// Reason, of the agent and not of an account: another cluster works under the name of this one.
pub const REASON_CLUSTER_NAME_IN_USE: &str = "ClusterNameInUse";
/// Reason: `spec.rotation.validity` is no lifetime that a token can be requested with.
pub const REASON_INVALID_VALIDITY: &str = "InvalidValidity";
/// Reason: the ServiceAccount is being deleted and somebody's finalizer holds it.
pub const REASON_SERVICE_ACCOUNT_TERMINATING: &str = "ServiceAccountTerminating";
/// Reason: the Secret is being deleted and somebody's finalizer holds it, so that no other token gets into it.
pub const REASON_SECRET_TERMINATING: &str = "SecretTerminating";
/// Reason: the cluster did not answer.
pub const REASON_CLUSTER_UNREACHABLE: &str = "ClusterUnreachable";
/// Reason: the cluster answered with an error.
pub const REASON_CLUSTER_REFUSED: &str = "ClusterRefused";
/// Reason: the hub did not take the Secret.
pub const REASON_HUB_REFUSED: &str = "HubRefused";

/// Reason of `TokenExpiring` when it is False; when it is True, it has the reason of the failure.
pub const REASON_TOKEN_NOT_EXPIRING: &str = "TokenNotExpiring";

/// Reason of `AgentAvailable` when it is True.
pub const REASON_AGENT_SEEN: &str = "AgentSeen";
/// Reason of `AgentAvailable`: no agent has been seen in the account's namespace.
pub const REASON_NO_AGENT: &str = "NoAgent";
/// Reason of `AgentAvailable`: there was an agent, and it has not been seen for a while.
pub const REASON_AGENT_GONE: &str = "AgentGone";

/// Reason of the Event that an account got its token.
pub const EVENT_TOKEN_ISSUED: &str = "TokenIssued";
/// Reason of the Event that an account's token was renewed.
pub const EVENT_TOKEN_ROTATED: &str = "TokenRotated";

/// Group of all agents of the addon for one cluster, the organisation of their client certificates
/// (`agent.DefaultGroups` in open-cluster-management-io/addon-framework, `pkg/agent/inteface.go`).
pub fn agent_group(cluster: &str) -> String {
    format!("system:open-cluster-management:cluster:{cluster}:addon:{ADDON_NAME}")
}

/// User name of the agent of one cluster, the common name of its client certificate
/// (`agent.DefaultUser`, same file as [`agent_group`]).
pub fn agent_user(cluster: &str) -> String {
    format!("system:open-cluster-management:cluster:{cluster}:addon:{ADDON_NAME}:agent:{AGENT_NAME}")
}

/// User name of a ServiceAccount (`serviceaccount.MakeUsername` in k8s.io/apiserver, `pkg/authentication/serviceaccount/util.go`).
pub fn service_account_user(namespace: &str, name: &str) -> String {
    format!("system:serviceaccount:{namespace}:{name}")
}
