//! What all requests to one server share.

use super::connections::Connections;
use super::health::Health;
use super::limits::Limits;
use super::metrics::Metrics;
use super::offload::Pools;
use super::outliving::Outliving;
use crate::registry::Registry;
use crate::{audit, openapi};
use fleetpass_auth::authn::oidc::Oidc;
use fleetpass_auth::authn::{Authenticator, ServiceAccounts};
use fleetpass_auth::authz::Authorizer;
use fleetpass_auth::authz::impersonation::ModeCache;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// What all requests to one server share. Every part can be used by many requests at once.
pub(super) struct ServerState {
    pub(super) registry: Arc<Registry>,
    pub(super) authenticator: Arc<Authenticator>,
    pub(super) accounts: Arc<ServiceAccounts>,
    pub(super) authorizer: Arc<dyn Authorizer>,
    pub(super) recent_impersonations: ModeCache,
    pub(super) oidc: Option<Oidc>,
    pub(super) openapi: openapi::Cache,
    pub(super) health: Health,
    pub(super) limits: Limits,
    pub(super) connections: Arc<Connections>,
    /// Where requests that may keep a core busy are worked on.
    pub(super) pools: Pools,
    /// What goes on there although nobody waits for it.
    pub(super) outliving: Outliving,
    pub(super) metrics: Arc<Metrics>,
    pub(super) audit: Option<audit::Log>,
    pub(super) external_address: String,
    pub(super) stop: CancellationToken,
}
