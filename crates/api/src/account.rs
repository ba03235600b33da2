//! ManagedServiceAccount, version v1beta1 (`apis/authentication/v1beta1/managedserviceaccount_types.go` upstream).

use crate::{
    duration::{GoDuration, ParseError},
    names,
};
use k8s_openapi::{
    NamespaceResourceScope,
    apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, Time},
};
use serde::{Deserialize, Serialize, Serializer, ser::SerializeStruct};
use std::borrow::Cow;

pub use crate::definition::CRD_JSON;

/// Lifetime that the CRD's default asks for: 360 days.
const DEFAULT_VALIDITY: &str = "8640h0m0s";

/// A wish for a fresh token of a ServiceAccount on the cluster whose namespace it lies in.
///
/// Reading is lenient where the CRD's schema is: a missing `spec` is the default one, and
/// `spec.rotation.validity` is kept as text, so that one account with nonsense in it never spoils a list.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct ManagedServiceAccount {
    /// Name, namespace (the cluster's), UID and so on.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What the user wants.
    #[serde(default)]
    pub spec: Spec,
    /// What the agent reported.
    #[serde(default)]
    pub status: Option<Status>,
}

/// What the user of a [`ManagedServiceAccount`] wants.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// How the token is renewed.
    #[serde(default)]
    pub rotation: Rotation,
    /// Seconds after which the hub deletes the account, counted from its creation. Needs the feature
    /// `EphemeralIdentity`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds_after_creation: Option<i32>,
}

/// How a token is renewed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rotation {
    /// Kept for old clients, without effect: every token is renewed before it expires (deprecated upstream).
    #[serde(default = "enabled")]
    pub enabled: bool,
    /// Lifetime to request, a Go duration; see [`Rotation::validity`].
    #[serde(default = "validity")]
    pub validity: String,
}

// What the CRD's schema says under `default`, for objects that no server has defaulted: those of tests, and those that
// are about to be created.
fn enabled() -> bool {
    true
}

fn validity() -> String {
    DEFAULT_VALIDITY.to_owned()
}

impl Default for Rotation {
    fn default() -> Self {
        Self { enabled: enabled(), validity: validity() }
    }
}

impl Rotation {
    /// The requested lifetime. Fails when the text is no Go duration (which a hub with our CRD refuses, and one with upstream's lets through).
    pub fn validity(&self) -> Result<GoDuration, ParseError> {
        self.validity.parse()
    }
}

/// What the agent reported about a [`ManagedServiceAccount`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// `SecretCreated`, `TokenReported`, and whatever others added. A fresh object has `null` here.
    #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// When the token expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiration_timestamp: Option<Time>,
    /// Where the token lies on the hub.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_secret_ref: Option<SecretRef>,
}

/// Go reads `null` as an empty list, and so does this.
fn null_is_empty<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<Condition>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl Status {
    /// The condition of that type, if it was reported.
    pub fn condition(&self, type_: &str) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.type_ == type_)
    }
}

/// Where a token lies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    /// Name of the Secret, in the account's own namespace.
    pub name: String,
    /// When the token in it was last renewed.
    pub last_refresh_timestamp: Time,
}

impl ManagedServiceAccount {
    /// An account with defaults; `name` within the namespace of `cluster`.
    pub fn new(cluster: &str, name: &str) -> Self {
        Self {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some(cluster.to_owned()),
                ..ObjectMeta::default()
            },
            ..Self::default()
        }
    }
}

// By hand, because apiVersion and kind are constants of the type and no fields of it; kube's clients need them in bodies.
impl Serialize for ManagedServiceAccount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct(names::KIND, 5)?;
        object.serialize_field("apiVersion", &<Self as kube_core::Resource>::api_version(&()))?;
        object.serialize_field("kind", names::KIND)?;
        object.serialize_field("metadata", &self.metadata)?;
        object.serialize_field("spec", &self.spec)?;
        // Left out rather than null: an account that is created has no status.
        match &self.status {
            Some(status) => object.serialize_field("status", status)?,
            None => object.skip_field("status")?,
        }
        object.end()
    }
}

impl kube_core::Resource for ManagedServiceAccount {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind(_: &()) -> Cow<'_, str> {
        names::KIND.into()
    }

    fn group(_: &()) -> Cow<'_, str> {
        names::GROUP.into()
    }

    fn version(_: &()) -> Cow<'_, str> {
        names::V1BETA1.into()
    }

    fn plural(_: &()) -> Cow<'_, str> {
        names::PLURAL.into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reads_what_the_schema_lets_through() {
        let bare: ManagedServiceAccount = serde_json::from_value(json!({"metadata": {"name": "a"}})).unwrap();
        assert_eq!(bare.spec.rotation.validity().unwrap().as_secs(), 8640 * 3600);

        let odd: ManagedServiceAccount = serde_json::from_value(json!({
            "metadata": {"name": "a"},
            "spec": {"rotation": {"validity": "for ever"}},
            "status": {"conditions": null},
        }))
        .unwrap();
        assert!(odd.spec.rotation.validity().is_err());
        assert_eq!(odd.status, Some(Status::default()));
    }

    #[test]
    fn carries_its_kind() {
        let value = serde_json::to_value(ManagedServiceAccount::new("cluster1", "robot")).unwrap();
        assert_eq!(
            value,
            json!({
                "apiVersion": "authentication.open-cluster-management.io/v1beta1",
                "kind": "ManagedServiceAccount",
                "metadata": {"name": "robot", "namespace": "cluster1"},
                "spec": {"rotation": {"enabled": true, "validity": "8640h0m0s"}},
            })
        );
    }
}
