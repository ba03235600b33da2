//! The hub-side controllers together, for a hub that has none of its own: any Kubernetes.

use crate::{
    Scope,
    fleet::{Fleet, Shared},
    orphans, renewals, ttl,
};
use fleetpass_api::{clock::SharedClock, features::FeatureGates};
use kube::Client;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{MetricType, counter::Counter, gauge::ConstGauge},
    registry::Registry,
};
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio_util::sync::CancellationToken;

/// The controllers and what they count. They work in terms: of several processes one does, the others wait.
pub struct Manager {
    clock: SharedClock,
    features: FeatureGates,
    collects: bool,
    fleet: Arc<Fleet>,
    expired: Counter,
    orphaned: Counter,
    renewed: Counter,
    leading: Arc<Leading>,
    registry: Registry,
}

impl fmt::Debug for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manager").field("features", &self.features).finish_non_exhaustive()
    }
}

impl Manager {
    /// Controllers that take part in the election `name`.
    pub fn new(name: &str, clock: SharedClock, features: FeatureGates) -> Self {
        let mut registry = Registry::default();
        let fleet = Arc::new(Fleet::new(clock.clone()));
        let leading = Arc::new(Leading { name: name.to_owned(), leads: AtomicBool::new(false) });
        let (expired, orphaned, renewed) = (Counter::default(), Counter::default(), Counter::default());
        registry.register(
            "fleetpass_hub_expired_accounts_deleted",
            "ManagedServiceAccounts that were deleted because their time was over",
            expired.clone(),
        );
        registry.register(
            "fleetpass_hub_orphaned_secrets_deleted",
            "Secrets that were deleted because their account was gone",
            orphaned.clone(),
        );
        registry.register(
            "fleetpass_hub_agent_renewals_approved",
            "CertificateSigningRequests that were approved because an agent renews its certificate",
            renewed.clone(),
        );
        registry.register_collector(Box::new(Shared(fleet.clone())));
        registry.register_collector(Box::new(leading.clone()));
        Self { clock, features, collects: true, fleet, expired, orphaned, renewed, leading, registry }
    }

    /// The same on a Fleetpass hub, whose garbage collector looks after Secrets whose account is gone.
    #[must_use]
    pub fn without_orphans(self) -> Self {
        Self { collects: false, ..self }
    }

    /// Works until `ends`. Whoever calls it leads: the fleet's metrics are served meanwhile.
    ///
    /// To be run to its end, not dropped: only then do the metrics say that this process no longer leads.
    pub async fn term(&self, client: Client, ends: CancellationToken) {
        self.leading.leads.store(true, Ordering::Relaxed);
        let orphans = async {
            if self.collects {
                orphans::run(client.clone(), Scope::All, self.orphaned.clone(), ends.clone()).await;
            }
        };
        // Without the feature, nothing watches for it, and the manager needs no right to delete accounts.
        let ttl = async {
            if self.features.ephemeral_identity {
                let clock = self.clock.clone();
                ttl::run(client.clone(), Scope::All, clock, self.expired.clone(), ends.clone()).await;
            }
        };
        let renewals = renewals::run(client.clone(), self.clock.clone(), self.renewed.clone(), ends.clone());
        tokio::join!(orphans, ttl, renewals, self.fleet.keep(client.clone(), ends.clone()));
        self.leading.leads.store(false, Ordering::Relaxed);
    }

    /// The metrics as OpenMetrics text.
    pub fn metrics(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)
            .expect("writing to a String does not fail");
        text
    }
}

/// Whether this process leads, by the name that it has in client-go (`tools/leaderelection/metrics.go`).
#[derive(Debug)]
struct Leading {
    name: String,
    /// For the metric alone; nothing is decided by it, so relaxed ordering is enough.
    leads: AtomicBool,
}

impl Collector for Leading {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut family = encoder.encode_descriptor(
            "leader_election_master_status",
            "Whether this process leads in the election of that name",
            None,
            MetricType::Gauge,
        )?;
        let gauge = ConstGauge::new(i64::from(self.leads.load(Ordering::Relaxed)));
        gauge.encode(family.encode_family(&[("name", self.name.as_str())])?)
    }
}
