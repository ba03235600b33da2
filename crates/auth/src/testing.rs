//! Objects in memory and a hub's token machinery around them, for tests.

use crate::authn::{Authenticator, ServiceAccountConfig, ServiceAccounts, TokenFile};
use fleetpass_apimachinery::Lister;
use fleetpass_token::key::{KeyKind, SigningKey};
use fleetpass_token::ring::KeyRing;
use jiff::Timestamp;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The API server's audience and issuer.
pub const API: &str = "https://kubernetes.default.svc";
/// The present moment of these tests.
pub const NOW: &str = "2026-01-02T03:04:05.6Z";

/// [`NOW`].
pub fn now() -> Timestamp {
    NOW.parse().expect("a time")
}

/// Objects by resource, namespace and name; all in the core group.
#[derive(Default)]
pub struct Objects(BTreeMap<(String, String, String), Arc<Value>>);

impl Objects {
    /// Puts an object; its name and namespace are filled in.
    pub fn put(&mut self, resource: &str, namespace: &str, name: &str, mut object: Value) {
        object["metadata"]["name"] = name.into();
        object["metadata"]["namespace"] = namespace.into();
        self.0.insert((resource.into(), namespace.into(), name.into()), Arc::new(object));
    }
    /// Removes an object that has to be there.
    pub fn remove(&mut self, resource: &str, namespace: &str, name: &str) {
        self.0.remove(&(resource.into(), namespace.into(), name.into())).expect("the object is there");
    }
    /// The account `robot` in `ns`, and the Secret, Pods and Node that the tests bind tokens to.
    pub fn sample() -> Self {
        let mut objects = Self::default();
        let uid = |uid: &str| json!({"metadata": {"uid": uid}});
        objects.put("serviceaccounts", "ns", "robot", uid("u-robot"));
        objects.put("secrets", "ns", "s1", uid("u-s1"));
        objects.put("nodes", "", "n1", uid("u-n1"));
        let pod = |uid: &str, account: &str, node: Option<&str>| json!({"metadata": {"uid": uid}, "spec": {"serviceAccountName": account, "nodeName": node}});
        objects.put("pods", "ns", "p1", pod("u-p1", "robot", None));
        objects.put("pods", "ns", "p2", pod("u-p2", "other", None));
        objects.put("pods", "ns", "p3", pod("u-p3", "robot", Some("ghost")));
        objects.put("pods", "ns", "p4", pod("u-p4", "robot", Some("n1")));
        objects
    }
}

impl Lister for Objects {
    fn get(&self, group: &str, resource: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        assert_eq!(group, "");
        self.0.get(&(resource.into(), namespace.into(), name.into())).cloned()
    }
    fn list(&self, _: &str, _: &str, _: &str) -> Vec<Arc<Value>> {
        Vec::new()
    }
}

/// A ring with a fresh key.
pub fn ring(kind: KeyKind) -> KeyRing {
    let pem = SigningKey::generate_pem(kind).expect("a key");
    KeyRing::new(SigningKey::from_pem(pem.expose_secret().as_bytes()).expect("the key is read"))
}

/// The token machinery of a hub whose issuer and audience is [`API`].
pub fn accounts() -> Arc<ServiceAccounts> {
    let config = ServiceAccountConfig {
        issuers: vec![API.into()],
        api_audiences: vec![API.into()],
        lifetimes: Default::default(),
    };
    Arc::new(ServiceAccounts::new(config, ring(KeyKind::P256)).expect("a good configuration"))
}

/// Knows `alicetoken` and the tokens of `accounts`.
pub fn authenticator(accounts: &Arc<ServiceAccounts>) -> Arc<Authenticator> {
    let file = TokenFile::parse("alicetoken,alice,alice-uid,devs").expect("a good file");
    Arc::new(Authenticator::new(file, Some(accounts.clone()), vec![API.into()]))
}
