//! Who asks, and may they? Authentication and authorization of an API server, as kube-apiserver does them: the same order
//! of checks, the same decisions, the same words.
//!
//! ```text
//!  TLS certificate ─┐
//!  Authorization ───┴─► authn::Authenticator ─► UserInfo            401 for bad credentials
//!                         │ certificate, token file,  │
//!                         │ service-account token     │             (no credentials: the caller decides
//!                         └─ Lister: live account,    │              whether that is system:anonymous)
//!                            Secret, Pod, Node        ▼
//!  Impersonate-* ─────────────► authz::impersonation ─► UserInfo    403 if it may not act as that user
//!                                                     │
//!  verb, resource, name ──► authz::Attributes ◄───────┘
//!                                  │
//!                                  ▼
//!  roles and bindings ──► rbac::Index ─► authz::Union ─► Decision   403, worded by authz::forbidden
//!  (the store's changes)                    │
//!                                           └─ rules_for ─► authz::escalation   403 for roles and bindings that
//!                                                                               grant more than their author has
//! ```
//!
//! Everything works in memory and without I/O, so all of it may run on the threads that serve connections. What changes (roles,
//! bindings, accounts) comes from the server's watch cache.
//!
//! # What it does not do
//!
//! - It does not shake hands: that a client holds its certificate's key and that the chain is trusted was checked by TLS.
//! - It does not issue tokens, and has no keys but those it is given (`fleetpass-token`).
//! - It decides nothing that was not asked: the server asks at the right moment, once for each request.
//! - Nothing fails open. There is no authorizer that allows by default, and a lookup that finds nothing is a refusal.
//! - No webhooks, no OIDC tokens of others, no ABAC and no node authorizer.
//!
//! # Example
//!
//! ```
//! use fleetpass_apimachinery::user::UserInfo;
//! use fleetpass_auth::authz::rbac::Index;
//! use fleetpass_auth::authz::{self, Attributes, Authorizer, Union};
//! use serde_json::json;
//! use std::sync::Arc;
//!
//! // The roles and bindings of a cluster, as they are in its store.
//! let index = Arc::new(Index::new());
//! let reader = json!({"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}]});
//! index.apply("clusterroles", "", "reader", Some(&reader));
//! let binding = json!({
//!     "roleRef": {"kind": "ClusterRole", "name": "reader"},
//!     "subjects": [{"kind": "User", "name": "alice"}],
//! });
//! index.apply("rolebindings", "shop", "readers", Some(&binding));
//!
//! // May alice do this?
//! let authorizer = Union::masters_and_rbac(index);
//! let alice = UserInfo { name: "alice".into(), ..UserInfo::default() };
//! let list = Attributes::resource(&alice, "list", "", "pods").in_namespace("shop");
//! let decision = authorizer.authorize(&list);
//! assert!(decision.allowed);
//! assert_eq!(
//!     decision.reason,
//!     r#"RBAC: allowed by RoleBinding "readers/shop" of ClusterRole "reader" to User "alice""#
//! );
//!
//! // Not in another namespace; this is what she is told.
//! let elsewhere = Attributes::resource(&alice, "list", "", "pods").in_namespace("bank");
//! let decision = authorizer.authorize(&elsewhere);
//! assert!(!decision.allowed);
//! assert_eq!(
//!     authz::forbidden(&elsewhere, &decision.reason).message,
//!     r#"pods is forbidden: User "alice" cannot list resource "pods" in API group "" in the namespace "bank""#
//! );
//! ```

pub mod authn;
pub mod authz;
// For the tests of this crate and of those above it; never part of a program (see `[features]` in Cargo.toml).
#[cfg(any(test, feature = "testing"))]
pub mod testing;
