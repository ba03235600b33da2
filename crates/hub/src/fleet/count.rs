//! The fleet in numbers, for Prometheus.

use super::{Account, Fleet, Known};
use crate::availability::Standing;
use fleetpass_api::{account::Status, names};
use jiff::Timestamp;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{MetricType, gauge::ConstGauge, histogram::Histogram},
};
use std::{collections::BTreeSet, fmt, sync::Arc};

/// How it stands with an account's token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum TokenState {
    /// There is a good one.
    Valid,
    /// There is a good one, and its agent says that something is in the way of the next.
    Failing,
    /// There is one whose time is over.
    Expired,
    /// There is none.
    Missing,
}

impl TokenState {
    /// All of them.
    const ALL: [Self; 4] = [Self::Valid, Self::Failing, Self::Expired, Self::Missing];

    /// Its name in metrics.
    fn as_str(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Failing => "failing",
            Self::Expired => "expired",
            Self::Missing => "missing",
        }
    }
}

/// What is kept of an account's token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) expires: Option<Timestamp>,
    /// The agent does not say that all is well with the next one.
    trouble: bool,
}

impl Token {
    pub(super) fn of(status: Option<&Status>) -> Self {
        let reported = status.and_then(|status| status.condition(names::CONDITION_TOKEN_REPORTED));
        // The reason too: while the token is good, an agent that cannot renew it says True with another reason.
        let well = |condition: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition| {
            condition.status == "True" && condition.reason == names::REASON_TOKEN_REPORTED
        };
        Self {
            expires: status.and_then(|status| status.expiration_timestamp.as_ref()).map(|time| time.0),
            trouble: !reported.is_some_and(well),
        }
    }

    pub(super) fn state(self, now: Timestamp) -> TokenState {
        match self.expires {
            None => TokenState::Missing,
            // Before the trouble: an expired token is out of use, whatever its agent says.
            Some(expires) if expires <= now => TokenState::Expired,
            Some(_) if self.trouble => TokenState::Failing,
            Some(_) => TokenState::Valid,
        }
    }
}

/// How it stands with the agent of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AgentState {
    /// It renews its Lease.
    Available,
    /// It did.
    Gone,
    /// There is a Lease, and this process has not seen it for long enough.
    Unknown,
    /// There are accounts and no Lease: an agent of the upstream addon, or none.
    NoLease,
}

impl AgentState {
    const ALL: [Self; 4] = [Self::Available, Self::Gone, Self::Unknown, Self::NoLease];

    fn of(standing: Option<Standing>) -> Self {
        match standing {
            Some(Standing::Alive(_)) => Self::Available,
            Some(Standing::Gone(_)) => Self::Gone,
            Some(Standing::Unsure(_)) => Self::Unknown,
            None => Self::NoLease,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Available => "available",
            Self::Gone => "gone",
            Self::Unknown => "unknown",
            Self::NoLease => "no_lease",
        }
    }
}

/// The bounds of the histogram of what tokens have left: from a minute to a year.
const LEFT: [f64; 10] =
    [0.0, 60.0, 600.0, 3_600.0, 21_600.0, 86_400.0, 604_800.0, 2_592_000.0, 7_776_000.0, 31_536_000.0];

/// The fleet in numbers.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Count {
    pub(super) accounts: i64,
    pub(super) clusters: i64,
    pub(super) tokens: [i64; TokenState::ALL.len()],
    /// When the first token that is good now expires.
    pub(super) next_expiry: Option<Timestamp>,
    /// What each token has left, in seconds; nothing once it has expired.
    pub(super) left: Vec<f64>,
    /// Absent before the Leases were listed once.
    pub(super) agents: Option<[i64; AgentState::ALL.len()]>,
}

impl Count {
    /// Counted anew for each scrape, in one pass: tokens expire without an event that could move a counter. `None`
    /// before the accounts are known.
    pub(super) fn of(known: &Known, now: Timestamp) -> Option<Self> {
        let accounts = known.accounts.as_ref()?;
        let mut count = Self::default();
        let mut clusters = BTreeSet::new();
        for ((namespace, _), Account { token, .. }) in accounts {
            count.accounts += 1;
            clusters.insert(namespace.as_str());
            let state = token.state(now);
            count.tokens[state as usize] += 1;
            if matches!(state, TokenState::Valid | TokenState::Failing) {
                count.next_expiry = count.next_expiry.into_iter().chain(token.expires).min();
            }
            count.left.extend(token.expires.map(|at| at.duration_since(now).as_secs_f64().max(0.0)));
        }
        count.clusters = i64::try_from(clusters.len()).unwrap_or(i64::MAX);
        if known.has_leases {
            let mut agents = [0; AgentState::ALL.len()];
            // Of those too that have no accounts now: they are to be there for the next one.
            for cluster in
                clusters.into_iter().chain(known.leases.keys().map(String::as_str)).collect::<BTreeSet<_>>()
            {
                let standing = known.leases.get(cluster).map(|seen| seen.standing(now));
                agents[AgentState::of(standing) as usize] += 1;
            }
            count.agents = Some(agents);
        }
        Some(count)
    }
}

impl Collector for Shared {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        // No series instead of zeros: an alert on "no accounts" must not go off in a process that only waits.
        let Some(count) = self.0.count() else { return Ok(()) };
        let mut one = |name, help, value: i64| {
            let family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value).encode(family)
        };
        one("fleetpass_hub_accounts", "ManagedServiceAccounts", count.accounts)?;
        one("fleetpass_hub_clusters", "Namespaces with at least one ManagedServiceAccount", count.clusters)?;
        if let Some(next) = count.next_expiry {
            one(
                "fleetpass_hub_next_token_expiry_timestamp_seconds",
                "When the first of the good tokens expires, in seconds since 1970",
                next.as_second(),
            )?;
        }
        // No label for the cluster: thousands of clusters would be thousands of series. Each agent has its own.
        let states = TokenState::ALL.map(|state| (state.as_str(), count.tokens[state as usize]));
        by_state(&mut encoder, "fleetpass_hub_tokens", "Accounts by the state of their token", &states)?;
        if let Some(agents) = count.agents {
            let states = AgentState::ALL.map(|state| (state.as_str(), agents[state as usize]));
            by_state(&mut encoder, "fleetpass_hub_agents", "Clusters by the state of their agent", &states)?;
        }
        // Of what is now, like the gauges: it says nothing of the past, and goes down too.
        let left = Histogram::new(LEFT);
        count.left.iter().for_each(|seconds| left.observe(*seconds));
        let help = "How long the tokens of all accounts are good from now on; 0 for those that have expired";
        let name = "fleetpass_hub_token_seconds_to_expiry";
        left.encode(encoder.encode_descriptor(name, help, None, MetricType::Histogram)?)
    }
}

fn by_state(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    states: &[(&str, i64)],
) -> Result<(), fmt::Error> {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (state, value) in states {
        ConstGauge::new(*value).encode(family.encode_family(&[("state", *state)])?)?;
    }
    Ok(())
}

/// A fleet as a registry of metrics takes it.
#[derive(Debug)]
pub(crate) struct Shared(pub(crate) Arc<Fleet>);
