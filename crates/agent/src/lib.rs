//! ManagedServiceAccount on the cluster side: decide, request, project, rotate.
//!
//! For every ManagedServiceAccount in its cluster's namespace on the hub, the [`Agent`] keeps a ServiceAccount of
//! that name in its own namespace on the cluster, requests a token for it, and projects token and CA as a Secret of
//! that name on the hub. The rules are in [`decide`]; the rest fetches, calls them, and carries their answer out.
//!
//! ```text
//!   hub: watch accounts, Secrets ──┐                              ┌─► cluster: ServiceAccount, TokenRequest, TokenReview
//!   cluster: watch ServiceAccounts ┴► news ─► queue ─► reconcile ─┤
//!                                           (by name)  ▲   │      └─► hub: Secret, status
//!                                                      └ decide
//! ```
//!
//! Guarantees: one reconcile per account at a time, different accounts side by side; a failing account delays no
//! other; a side that is away costs nothing that was there. Caveats: the agent acts as long as it runs and may
//! reach both sides; a Secret without our label is seen only when an account's turn comes.

pub mod decide;
pub mod observe;
pub mod token;

mod ca;
mod calls;
#[cfg(test)]
mod fake;
mod health;
mod lease;
mod manifests;
mod metrics;
mod news;
mod reconcile;
mod report;
mod run;
mod serve;
mod watch;

pub use ca::CaSource;
pub use calls::{CallError, CallErrorKind, Side};
pub use health::Health;
pub use manifests::{InCluster, SERVICE_ACCOUNT, spoke_manifests};
pub use run::{Agent, Error, Handle, Options};
pub use serve::{Endpoint, Observed, serve};
