//! What the agent sees of one account: the facts that [`crate::decide`] decides on.

use crate::{
    calls::CallError,
    token::{Fingerprint, Token},
};
use fleetpass_api::{ManagedServiceAccount, account::Status, names};
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};

/// Everything about one account, read live: no watch or cache is in between, so what the agent deletes was there, and
/// what it finds missing was missing, when the server answered.
#[derive(Debug, Clone, Default)]
pub(crate) struct Observed {
    /// The ManagedServiceAccount; `None` only when the hub said that it does not exist.
    pub(crate) account: Option<Account>,
    /// The ServiceAccount of that name on the cluster; `None` if the cluster said that it does not exist, or, where
    /// [`unseen`](Self::unseen) says so, nothing of it.
    pub(crate) service_account: Option<ServiceAccount>,
    /// Why nothing is known of the ServiceAccount.
    pub(crate) unseen: Option<Unseen>,
    /// The Secret of that name on the hub.
    pub(crate) secret: Option<Secret>,
    /// The cluster's CA bundle, PEM.
    pub(crate) ca: Vec<u8>,
    /// Which hub this is; `None` when the agent may not know.
    pub(crate) hub: Option<String>,
    /// The cluster does not let the agent change ServiceAccounts: those that carry no mark stay without.
    pub(crate) may_not_mark: bool,
    /// What the agent remembers.
    pub(crate) memory: Memory,
}

/// Why an object could not be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unseen {
    /// The server did not answer, or was not able to.
    Silent,
    /// It does not let the agent see.
    Refused,
}

/// What the agent remembers of one account between reconciles. Losing it costs one TokenReview.
#[derive(Debug, Clone, Default)]
pub(crate) struct Memory {
    /// A token that the cluster issued and that is not in the Secret yet: kept while the hub does not take it, so that
    /// no attempt costs another token.
    pub(crate) minted: Option<Minted>,
    /// What the agent wrote into the Secret last, and when.
    pub(crate) projected: Option<(Fingerprint, Timestamp)>,
    /// What the cluster said about a token last.
    pub(crate) review: Option<Review>,
    /// The UID of the account as it was read last.
    pub(crate) account: Option<String>,
    /// The UID of the account of this name that was deleted, if that is the last that the watch said.
    pub(crate) deleted: Option<String>,
    /// Why the last attempt failed, if it did.
    pub(crate) failed: Option<CallError>,
}

/// A token fresh from the cluster.
#[derive(Debug, Clone)]
pub(crate) struct Minted {
    /// The token.
    pub(crate) token: Token,
    /// The request that it answers, see [`crate::decide::TokenRequestSpec::record`].
    pub(crate) record: String,
    /// When it came, by the agent's clock.
    pub(crate) at: Timestamp,
}

/// What the cluster said about a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Review {
    /// Which token.
    pub(crate) token: Fingerprint,
    /// Whether it authenticates as the account's ServiceAccount.
    pub(crate) accepted: bool,
    /// When it was asked.
    pub(crate) at: Timestamp,
}

/// A ManagedServiceAccount, as far as it matters here.
#[derive(Debug, Clone, Default)]
pub(crate) struct Account {
    /// Its UID.
    pub(crate) uid: String,
    /// The version that was read.
    pub(crate) resource_version: String,
    /// Whether it is being deleted.
    pub(crate) terminating: bool,
    /// `spec.rotation.validity`, unchecked.
    pub(crate) validity: String,
    /// What was reported so far, with the conditions of others.
    pub(crate) status: Status,
}

/// A ServiceAccount on the cluster.
#[derive(Debug, Clone, Default)]
pub(crate) struct ServiceAccount {
    /// Its UID.
    pub(crate) uid: String,
    /// The version that was read.
    pub(crate) resource_version: String,
    /// Whether it carries our label.
    pub(crate) managed: bool,
    /// Whether it is being deleted.
    pub(crate) terminating: bool,
    /// Whose it is, as far as it says so.
    pub(crate) mark: Mark,
}

/// Whose a ServiceAccount is: which agent made it, or adopted it. Several agents may share a namespace of a cluster,
/// because the cluster has two names on its hub, or two hubs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The cluster's name on the hub. Without: made by the upstream addon's agent, or by a Fleetpass before there were
    /// marks.
    pub(crate) cluster: Option<String>,
    /// The hub. Without: its agent could not tell.
    pub(crate) hub: Option<String>,
}

impl Mark {
    fn of(metadata: &ObjectMeta) -> Self {
        let read = |key| metadata.annotations.as_ref()?.get(key).filter(|value| !value.is_empty()).cloned();
        Self { cluster: read(names::ANNOTATION_CLUSTER_NAME), hub: read(names::ANNOTATION_HUB) }
    }

    /// The annotations that say this.
    pub(crate) fn annotations(&self) -> serde_json::Value {
        let mut annotations = serde_json::Map::new();
        for (key, value) in
            [(names::ANNOTATION_CLUSTER_NAME, &self.cluster), (names::ANNOTATION_HUB, &self.hub)]
        {
            if let Some(value) = value {
                annotations.insert(key.to_owned(), value.clone().into());
            }
        }
        annotations.into()
    }

    /// Whether both can be of one agent: they differ in nothing that both say.
    pub(crate) fn agrees_with(&self, other: &Self) -> bool {
        let agree =
            |one: &Option<String>, other: &Option<String>| one.is_none() || other.is_none() || one == other;
        agree(&self.cluster, &other.cluster) && agree(&self.hub, &other.hub)
    }

    /// Whether this says all that the other does, and nothing against it.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        let cover = |one: &Option<String>, other: &Option<String>| other.is_none() || one == other;
        cover(&self.cluster, &other.cluster) && cover(&self.hub, &other.hub)
    }
}

/// A Secret on the hub.
#[derive(Debug, Clone, Default)]
pub(crate) struct Secret {
    /// Its metadata: what a replacement keeps.
    pub(crate) metadata: ObjectMeta,
    /// Whether it carries our label and is of our type.
    pub(crate) managed: bool,
    /// Whether its data can no longer be changed: then only its deletion makes room for another token.
    pub(crate) immutable: bool,
    /// The token in it.
    pub(crate) token: Option<Token>,
    /// The CA bundle in it.
    pub(crate) ca: Option<Vec<u8>>,
    /// Whether it has keys other than ours. Those are taken out: consumers may mount the whole Secret.
    pub(crate) extra_keys: bool,
}

fn has_our_label(metadata: &ObjectMeta) -> bool {
    let label = metadata.labels.as_ref().and_then(|labels| labels.get(names::LABEL_IS_MANAGED));
    label.is_some_and(|value| value == names::LABEL_IS_MANAGED_VALUE)
}

/// Whether this reference names the ManagedServiceAccount `name`, in whatever version, whatever its UID.
pub(crate) fn refers_to(owner: &OwnerReference, name: &str) -> bool {
    // Without the version: references stay as they were written when the hub begins to serve another one.
    let group = owner.api_version.split_once('/').map(|(group, _)| group);
    owner.kind == names::KIND && owner.name == name && group == Some(names::GROUP)
}

impl From<ManagedServiceAccount> for Account {
    fn from(account: ManagedServiceAccount) -> Self {
        Self {
            terminating: account.metadata.deletion_timestamp.is_some(),
            uid: account.metadata.uid.unwrap_or_default(),
            resource_version: account.metadata.resource_version.unwrap_or_default(),
            validity: account.spec.rotation.validity,
            status: account.status.unwrap_or_default(),
        }
    }
}

impl From<v1::ServiceAccount> for ServiceAccount {
    fn from(account: v1::ServiceAccount) -> Self {
        Self {
            managed: has_our_label(&account.metadata),
            mark: Mark::of(&account.metadata),
            terminating: account.metadata.deletion_timestamp.is_some(),
            uid: account.metadata.uid.unwrap_or_default(),
            resource_version: account.metadata.resource_version.unwrap_or_default(),
        }
    }
}

impl From<v1::Secret> for Secret {
    fn from(secret: v1::Secret) -> Self {
        let mut data = secret.data.unwrap_or_default();
        let token = data.remove(names::SECRET_KEY_TOKEN).and_then(|bytes| String::from_utf8(bytes.0).ok());
        let ca = data.remove(names::SECRET_KEY_CA).map(|bytes| bytes.0);
        // The type cannot be changed after creation, and others (`kubernetes.io/tls`) have validation of their own.
        let opaque = secret.type_.as_deref() == Some(names::SECRET_TYPE_OPAQUE);
        Self {
            managed: has_our_label(&secret.metadata) && opaque,
            immutable: secret.immutable == Some(true),
            token: token.filter(|text| !text.is_empty()).map(Token::new),
            ca,
            // Ours were taken out above.
            extra_keys: !data.is_empty(),
            metadata: secret.metadata,
        }
    }
}

impl Secret {
    /// Its UID.
    pub(crate) fn uid(&self) -> &str {
        self.metadata.uid.as_deref().unwrap_or_default()
    }

    /// Whether it is being deleted.
    pub(crate) fn terminating(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    /// The request that its token answers, as recorded when it was projected.
    pub(crate) fn record(&self) -> Option<&str> {
        self.metadata.annotations.as_ref()?.get(names::ANNOTATION_TOKEN_REQUEST).map(String::as_str)
    }

    /// Whether its annotations tell of another token than the one in it, as where the upstream addon's agent replaced only
    /// the data. Annotations that are not there tell nothing wrong: a Secret of upstream's agent, or of one of ours before
    /// these annotations, gets them with the next write, so that an upgrade of many agents writes nothing.
    pub(crate) fn tells_other_times(&self) -> bool {
        let claims = self.token.as_ref().and_then(Token::claims);
        let (Some(claims), Some(present)) = (claims, &self.metadata.annotations) else { return false };
        claims.annotations().iter().any(|(key, value)| present.get(*key).is_some_and(|told| told != value))
    }

    fn owners(&self) -> &[OwnerReference] {
        self.metadata.owner_references.as_deref().unwrap_or_default()
    }

    /// Whether a ManagedServiceAccount of this name owns it, whichever.
    pub(crate) fn owned_by_name(&self, name: &str) -> bool {
        self.owners().iter().any(|owner| refers_to(owner, name))
    }

    /// Whether exactly this ManagedServiceAccount owns it, and no earlier one of its name.
    pub(crate) fn owned_by(&self, name: &str, uid: &str) -> bool {
        let mut ours = self.owners().iter().filter(|owner| refers_to(owner, name)).peekable();
        // All of them: beside a reference to an earlier account, the garbage collector would keep asking for one that
        // is gone.
        ours.peek().is_some() && ours.all(|owner| owner.uid == uid)
    }
}
