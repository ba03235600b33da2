//! What a control plane is made of: what `hub` and `up` make of their arguments, and what starts from it.

use fleetpass_api::GoDuration;
use fleetpass_api::definition::LONGEST_VALIDITY;
use fleetpass_api::features::FeatureGates;
use fleetpass_apiserver::audit::Rotation;
use fleetpass_apiserver::{ConnectionLimits, RequestLimits};
use std::path::PathBuf;
use std::time::Duration;

/// What a control plane is made of.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Its name: of its certificate authority, and of the context in its kubeconfig.
    pub(crate) name: String,
    /// Its data directory.
    pub(crate) directory: PathBuf,
    /// What it is for.
    pub(crate) role: Role,
    /// Where its administrator's kubeconfig is written.
    pub(crate) kubeconfig: PathBuf,
    /// Certificate and key files, instead of a certificate of its own.
    pub(crate) certificate: Option<CertificateFiles>,
    /// Further authorities for client certificates.
    pub(crate) client_ca_file: Option<PathBuf>,
    /// Static bearer tokens.
    pub(crate) token_auth_file: Option<PathBuf>,
    /// Issuers of service-account tokens; at least one.
    pub(crate) issuers: Vec<String>,
    /// Audiences of the API; empty for the issuers.
    pub(crate) api_audiences: Vec<String>,
    /// The longest lifetime of a token.
    pub(crate) max_token_expiration: Option<Duration>,
    /// The key that signs tokens, instead of one of its own.
    pub(crate) signing_key_file: Option<PathBuf>,
    /// Further keys that verify tokens.
    pub(crate) key_files: Vec<PathBuf>,
    /// Where its objects are.
    pub(crate) storage: Storage,
    /// Whether Secrets are sealed in the store.
    pub(crate) encrypt_secrets: bool,
    /// The audit log, if one is kept.
    pub(crate) audit_log: Option<AuditLog>,
    /// How much it does at once, and for how long.
    pub(crate) limits: RequestLimits,
    /// How many connections it has at once.
    pub(crate) connections: ConnectionLimits,
}

/// Where the audit log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AuditLog {
    /// To standard output.
    Stdout,
    /// To a file.
    File(PathBuf, Rotation),
}

/// How a hub looks after ManagedServiceAccounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HubRole {
    pub(crate) features: FeatureGates,
    /// The longest `spec.rotation.validity` that it takes.
    pub(crate) max_validity: GoDuration,
}

impl Default for HubRole {
    fn default() -> Self {
        Self { features: FeatureGates::default(), max_validity: LONGEST_VALIDITY }
    }
}

/// What makes one control plane differ from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// It knows ManagedServiceAccounts and looks after them.
    Hub(HubRole),
    /// It is a managed cluster.
    Cluster,
}

/// Where the objects are.
#[derive(Debug, Clone)]
pub(crate) enum Storage {
    /// In the data directory.
    Embedded,
    /// On etcd, together with other replicas of the same hub.
    Etcd(EtcdServers),
}

/// An etcd cluster, as the flags `--etcd-*` name it. Its files are read when it is opened.
#[derive(Debug, Clone)]
pub(crate) struct EtcdServers {
    /// The URLs of its members.
    pub(crate) servers: Vec<String>,
    /// What all keys begin with.
    pub(crate) prefix: String,
    /// The authority of the members' certificates.
    pub(crate) ca_file: Option<PathBuf>,
    /// Our certificate, and its key.
    pub(crate) client_files: Option<(PathBuf, PathBuf)>,
    /// How often etcd is told to forget what is older; `None`: never.
    pub(crate) compaction_interval: Option<Duration>,
}

/// The files of a serving certificate that somebody else renews; read again when they change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CertificateFiles {
    /// The chain, leaf first.
    pub(crate) chain: PathBuf,
    /// The key.
    pub(crate) key: PathBuf,
}
