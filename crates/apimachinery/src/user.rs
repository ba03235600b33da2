//! Who asks: the identity that authentication found (`k8s.io/apiserver/pkg/authentication/user`).

use std::collections::BTreeMap;

/// The user name of a request without credentials.
pub const ANONYMOUS: &str = "system:anonymous";
/// The group of requests without credentials.
pub const ALL_UNAUTHENTICATED: &str = "system:unauthenticated";
/// The group of all requests with good credentials.
pub const ALL_AUTHENTICATED: &str = "system:authenticated";
/// The group that may do everything.
pub const SYSTEM_MASTERS: &str = "system:masters";
/// The group of all service accounts.
pub const ALL_SERVICE_ACCOUNTS: &str = "system:serviceaccounts";

/// An authenticated (or anonymous) user.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UserInfo {
    /// The unique name among active users.
    pub name: String,
    /// An id that tells apart users who had one name after another; may be empty.
    pub uid: String,
    /// The groups, in the order in which they are reported.
    pub groups: Vec<String>,
    /// Further attributes, such as `authentication.kubernetes.io/credential-id`.
    // Ordered, as Go's JSON encoder orders the keys of a map.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl UserInfo {
    /// The user of requests without credentials.
    pub fn anonymous() -> Self {
        Self { name: ANONYMOUS.into(), groups: vec![ALL_UNAUTHENTICATED.into()], ..Self::default() }
    }
    /// Whether the user is a member of `group`.
    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }
    /// Namespace and name, where the user is a service account (`system:serviceaccount:NS:NAME`).
    pub fn service_account(&self) -> Option<(&str, &str)> {
        self.name.strip_prefix("system:serviceaccount:")?.split_once(':')
    }
    /// As `authentication/v1.UserInfo` prints it; empty members are left out.
    pub fn to_json(&self) -> serde_json::Value {
        let mut out = serde_json::Map::new();
        if !self.name.is_empty() {
            out.insert("username".into(), self.name.clone().into());
        }
        if !self.uid.is_empty() {
            out.insert("uid".into(), self.uid.clone().into());
        }
        if !self.groups.is_empty() {
            out.insert("groups".into(), self.groups.clone().into());
        }
        if !self.extra.is_empty() {
            out.insert("extra".into(), serde_json::json!(self.extra));
        }
        out.into()
    }
}
