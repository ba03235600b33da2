//! What the agent counts, in Prometheus' text format.

use crate::{
    calls::{CallError, CallErrorKind},
    claim::Claim,
    decide::Cause,
    health::{Health, Standing},
    side::{Side, state::Phase},
};
use fleetpass_api::clock::SharedClock;
use fleetpass_api::{names, reasons::REASONS};
use jiff::Timestamp;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _},
    metrics::{
        MetricType,
        counter::Counter,
        family::Family,
        gauge::ConstGauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};
use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CauseLabel {
    cause: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FailureLabels {
    side: &'static str,
    call: &'static str,
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

/// The agent's metrics. Cheap to share.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    refreshes: Family<CauseLabel, Counter>,
    /// By labels of a few fixed texts each: no account's name, or a broken fleet would make as many series as accounts.
    failures: Family<FailureLabels, Counter>,
    reconciles: Family<OutcomeLabel, Histogram>,
    refresh_failures: Family<ReasonLabel, Counter>,
    expiries: Arc<Scraped>,
}

/// What is read at the time of a scrape.
struct Scraped {
    /// When the token of each account expires. A std mutex: it is held for one operation of the map, or for the time of
    /// a scrape, and never across an `await`.
    expiries: Mutex<BTreeMap<String, Timestamp>>,
    /// What the status of each account says: the reason of `TokenReported`.
    accounts: Mutex<BTreeMap<String, &'static str>>,
    /// When the agent's own credential for hub and cluster ends, as far as that is known.
    credentials: Mutex<[Option<Timestamp>; 2]>,
    clock: SharedClock,
    health: Arc<Health>,
    claim: Arc<Claim>,
}

impl Scraped {
    /// The map is never left half changed, so a panic elsewhere while it was held does not spoil it.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Timestamp>> {
        self.expiries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Scraped {
    /// Accounts by state, and how long their tokens are good: a few series, however many accounts there are.
    fn encode_accounts(&self, encoder: &mut DescriptorEncoder<'_>, now: Timestamp) -> Result<(), fmt::Error> {
        let mut by_reason: BTreeMap<&str, i64> = BTreeMap::from([(names::REASON_TOKEN_REPORTED, 0)]);
        for reason in self.accounts.lock().unwrap_or_else(PoisonError::into_inner).values() {
            *by_reason.entry(reason).or_default() += 1;
        }
        let help = "Accounts by state, and by the reason of their condition TokenReported";
        let mut family =
            encoder.encode_descriptor("fleetpass_agent_accounts", help, None, MetricType::Gauge)?;
        for (reason, count) in by_reason {
            let state = if reason == names::REASON_TOKEN_REPORTED { "ready" } else { "failing" };
            ConstGauge::new(count).encode(family.encode_family(&[("state", state), ("reason", reason)])?)?;
        }
        // Of what is now, like the gauges: it says nothing of the past, and goes down too.
        let left = Histogram::new(LEFT);
        for expires_at in self.lock().values() {
            left.observe((expires_at.as_second() - now.as_second()).max(0) as f64);
        }
        let help = "How long the tokens of the accounts are good from now on; 0 for those that have expired";
        let name = "fleetpass_agent_token_remaining_seconds";
        left.encode(encoder.encode_descriptor(name, help, None, MetricType::Histogram)?)
    }
}

/// Bounds of how long tokens are good: a minute to a year.
const LEFT: [f64; 9] =
    [60.0, 600.0, 3_600.0, 21_600.0, 86_400.0, 604_800.0, 2_592_000.0, 7_776_000.0, 31_104_000.0];

/// A reason of ours as a label; what others wrote into the condition is one series.
fn label(reason: &str) -> &'static str {
    REASONS.iter().find(|known| known.reason == reason).map_or("other", |known| known.reason)
}

impl fmt::Debug for Scraped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scraped").finish_non_exhaustive()
    }
}

impl Collector for Scraped {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let now = self.clock.now();
        let mut family = encoder.encode_descriptor(
            "fleetpass_agent_token_seconds_to_expiry",
            "Seconds until the token of the account expires; negative once it has",
            None,
            MetricType::Gauge,
        )?;
        // Computed when it is asked for: no timer has to move a gauge every second.
        for (account, expires_at) in self.lock().iter() {
            let gauge = ConstGauge::new(expires_at.as_second() - now.as_second());
            gauge.encode(family.encode_family(&[("account", account.as_str())])?)?;
        }
        self.encode_accounts(&mut encoder, now)?;
        let mut family = encoder.encode_descriptor(
            "fleetpass_agent_side_up",
            "Whether the hub or the cluster does what the agent asks it for: 0 while it is away or refuses the agent",
            None,
            MetricType::Gauge,
        )?;
        for side in Side::ALL {
            let up = !matches!(self.health.standing(side).phase, Phase::Unreachable | Phase::Refused);
            ConstGauge::new(i64::from(up)).encode(family.encode_family(&[("side", side.as_str())])?)?;
        }
        let mut family = encoder.encode_descriptor(
            "fleetpass_agent_side_state",
            "How the side is and why, as labels of a series that is 1",
            None,
            MetricType::Gauge,
        )?;
        for side in Side::ALL {
            let Standing { phase, cause, .. } = self.health.standing(side);
            let labels = [("side", side.as_str()), ("state", phase.label()), ("cause", cause)];
            ConstGauge::new(1_i64).encode(family.encode_family(&labels)?)?;
        }
        let mut family = encoder.encode_descriptor(
            "fleetpass_agent_side_seconds_since_answer",
            "Seconds since the hub or the cluster answered anything; absent until it does",
            None,
            MetricType::Gauge,
        )?;
        for side in Side::ALL {
            let Some(silent_for) = self.health.standing(side).silent_for else { continue };
            let gauge = ConstGauge::new(silent_for.as_secs() as i64);
            gauge.encode(family.encode_family(&[("side", side.as_str())])?)?;
        }
        let family = encoder.encode_descriptor(
            "fleetpass_agent_cluster_name_in_use",
            "Whether another cluster works under the name of this one, so that this agent has stopped",
            None,
            MetricType::Gauge,
        )?;
        ConstGauge::new(i64::from(self.claim.is_in_use())).encode(family)?;
        let mut family = encoder.encode_descriptor(
            "fleetpass_agent_credential_seconds_to_expiry",
            "Seconds until the agent's own credential ends, a certificate or a token that says when; negative once it has",
            None,
            MetricType::Gauge,
        )?;
        let ends = *self.credentials.lock().unwrap_or_else(PoisonError::into_inner);
        for (side, ends) in [Side::Hub, Side::Cluster].into_iter().zip(ends) {
            let Some(ends) = ends else { continue };
            let gauge = ConstGauge::new(ends.as_second() - now.as_second());
            gauge.encode(family.encode_family(&[("side", side.as_str())])?)?;
        }
        Ok(())
    }
}

impl Metrics {
    pub(crate) fn new(cluster: &str, clock: SharedClock, health: Arc<Health>, claim: Arc<Claim>) -> Self {
        // On all of them: a scraper of many agents would otherwise have to know which one it asks.
        let label = ("cluster".into(), cluster.to_owned().into());
        let mut registry = Registry::with_labels([label].into_iter());
        let refreshes = Family::default();
        let failures = Family::default();
        let refresh_failures = Family::default();
        let reconciles = Family::new_with_constructor(
            (|| Histogram::new(exponential_buckets(0.001, 2.0, 16))) as fn() -> Histogram,
        );
        let expiries = Arc::new(Scraped {
            expiries: Mutex::default(),
            accounts: Mutex::default(),
            credentials: Mutex::default(),
            clock,
            health,
            claim,
        });
        registry.register(
            "fleetpass_agent_token_refreshes",
            "Tokens that were requested and projected, by cause",
            refreshes.clone(),
        );
        registry.register(
            "fleetpass_agent_request_failures",
            "Requests that failed, by side, request and kind of failure",
            failures.clone(),
        );
        registry.register(
            "fleetpass_agent_reconcile_duration_seconds",
            "Time that bringing one account up to date took",
            reconciles.clone(),
        );
        registry.register(
            "fleetpass_agent_token_refresh_failures",
            "Attempts to bring an account up to date that failed, by the reason that its condition has",
            refresh_failures.clone(),
        );
        registry.register_collector(Box::new(expiries.clone()));
        Self { registry, refreshes, failures, reconciles, refresh_failures, expiries }
    }

    /// A token was requested and projected.
    pub(crate) fn refreshed(&self, cause: Cause) {
        self.refreshes.get_or_create(&CauseLabel { cause: cause.as_str() }).inc();
    }

    /// A request failed, and with it a reconcile.
    pub(crate) fn failed(&self, error: &CallError) {
        let kind = match error.kind {
            CallErrorKind::Unavailable(_) => "unavailable",
            CallErrorKind::Turned(_) => "refused",
            CallErrorKind::Conflict => "conflict",
            CallErrorKind::NotFound(_) => "not_found",
            CallErrorKind::Refused { .. } => "refused",
            CallErrorKind::Unusable(_) => "unusable",
        };
        let labels = FailureLabels { side: error.side.as_str(), call: error.call, kind };
        self.failures.get_or_create(&labels).inc();
    }

    /// What the account's status says now; `None` once it is gone, or as long as nothing is said.
    pub(crate) fn account(&self, name: &str, reason: Option<&str>) {
        let mut accounts = self.expiries.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        match reason.map(label) {
            None => drop(accounts.remove(name)),
            Some(reason) => match accounts.get_mut(name) {
                Some(known) => *known = reason,
                None => drop(accounts.insert(name.to_owned(), reason)),
            },
        }
    }

    /// An attempt failed, and that is what the account is told.
    pub(crate) fn refresh_failed(&self, reason: &str) {
        self.refresh_failures.get_or_create(&ReasonLabel { reason: label(reason) }).inc();
    }

    /// One reconcile ended after that time.
    pub(crate) fn reconciled(&self, took: Duration, good: bool) {
        let outcome = if good { "success" } else { "error" };
        self.reconciles.get_or_create(&OutcomeLabel { outcome }).observe(took.as_secs_f64());
    }

    /// The token of the account expires then; `None` when it has none, or is gone: then its series ends.
    pub(crate) fn expires(&self, account: &str, expires_at: Option<Timestamp>) {
        let mut expiries = self.expiries.lock();
        match expires_at {
            Some(at) => {
                expiries.insert(account.to_owned(), at);
            }
            None => {
                expiries.remove(account);
            }
        }
    }

    /// The agent's own credential for that side ends then; `None` if that is not known.
    pub(crate) fn credential_ends(&self, side: Side, ends: Option<Timestamp>) {
        self.expiries.credentials.lock().unwrap_or_else(PoisonError::into_inner)[side as usize] = ends;
    }

    /// Everything, as OpenMetrics text.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)
            .expect("writing to a String does not fail");
        text
    }
}
