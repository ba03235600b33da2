//! The vocabulary of Fleetpass: typed objects, label and annotation keys, Go durations, clocks; no I/O.
//!
//! ```text
//!                     names ── labels, annotations, conditions, users
//!                       │
//!  CRD (JSON) ─► ManagedServiceAccount ◄─► JSON of the API        --feature-gates ─► FeatureGates
//!                       │
//!                       └─ spec.rotation.validity ─► GoDuration      Clock ─► Timestamp, passed on to the rules
//!
//!  Workload ─► Deployment: in which agent and manager run      name in a ResourceQuota ─► Measure: what it counts
//! ```
//!
//! Hub, agent, servers and commands agree on what is here, and it needs none of them. What is the upstream addon's
//! (open-cluster-management-io/managed-serviceaccount) has its names and texts, so that either side of a fleet can be
//! swapped for the other's.
//!
//! ```
//! use fleetpass_api::{GoDuration, ManagedServiceAccount, names};
//! use serde_json::json;
//!
//! // The namespace on the hub says which cluster the account is for.
//! let account = ManagedServiceAccount::new("cluster1", "robot");
//! let object = serde_json::to_value(&account)?;
//! assert_eq!(object["kind"], names::KIND);
//! assert_eq!(object["metadata"]["namespace"], "cluster1");
//! assert_eq!(object["spec"]["rotation"]["validity"], "8640h0m0s");
//!
//! // One account with nonsense in it can still be read; the error is in the words of Go.
//! let read: ManagedServiceAccount = serde_json::from_value(json!({"spec": {"rotation": {"validity": "2d"}}}))?;
//! assert_eq!(read.spec.rotation.validity().unwrap_err().to_string(), "time: unknown unit \"d\" in duration \"2d\"");
//! assert_eq!("1h30m".parse::<GoDuration>().map(GoDuration::as_secs), Ok(5400));
//! # Ok::<(), serde_json::Error>(())
//! ```
//!
//! # What it does not do
//! - It does not validate an account: a server does, by the schema in the CRD, and the agent says what it cannot use.
//! - It knows no client, no server and no store; of kube it needs only the traits of objects.
//! - It has no types for built-in kinds: those are k8s-openapi's.
//! - [`GoDuration`] is for text that Kubernetes reads or prints. Inside, time is `jiff`'s and `std`'s.

pub mod account;
pub mod clock;
pub mod definition;
pub mod duration;
pub mod exposition;
pub mod features;
pub mod names;
pub mod quota;
pub mod reasons;
pub mod workload;

pub use account::ManagedServiceAccount;
pub use duration::GoDuration;
