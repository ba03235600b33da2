//! What there is to know about the fleet as a whole, for Prometheus: accounts, clusters, the state of their tokens.
//!
//! All of it is in the accounts and their status, so one watch of them suffices and no token is read. Of an account
//! only a few bytes are kept, whatever it carries.

use fleetpass_api::{ManagedServiceAccount, account::Status, clock::SharedClock, names};
use futures::StreamExt as _;
use jiff::Timestamp;
use kube::{
    Api, Client, ResourceExt as _,
    runtime::{WatchStreamExt as _, watcher},
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{MetricType, gauge::ConstGauge},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio_util::sync::CancellationToken;

/// How it stands with an account's token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum TokenState {
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

/// What is kept of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Token {
    expires: Option<Timestamp>,
    /// The agent does not say that all is well with the next one.
    trouble: bool,
}

impl Token {
    fn of(status: Option<&Status>) -> Self {
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

    fn state(self, now: Timestamp) -> TokenState {
        match self.expires {
            None => TokenState::Missing,
            // Before the trouble: an expired token is out of use, whatever its agent says.
            Some(expires) if expires <= now => TokenState::Expired,
            Some(_) if self.trouble => TokenState::Failing,
            Some(_) => TokenState::Valid,
        }
    }
}

/// Namespace and name.
type Key = (String, String);

/// The fleet as it is now: a collector of metrics. It has something to say only while it is [kept](Fleet::keep), so
/// that of several processes one speaks.
pub(crate) struct Fleet {
    clock: SharedClock,
    /// `None` before the accounts were listed once: half a fleet would look like one that lost the other half. A std
    /// mutex: it is held for one change of the map, or while a scrape counts, and never across an `await`.
    tokens: Mutex<Option<BTreeMap<Key, Token>>>,
}

impl fmt::Debug for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fleet").finish_non_exhaustive()
    }
}

impl Fleet {
    /// Nothing is known yet.
    pub(crate) fn new(clock: SharedClock) -> Self {
        Self { clock, tokens: Mutex::default() }
    }

    /// The map is never left half changed, so a panic elsewhere while it was held does not spoil it.
    fn lock(&self) -> MutexGuard<'_, Option<BTreeMap<Key, Token>>> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows the accounts of all namespaces until shut down; then nothing is known again: numbers that are no longer
    /// kept up to date would contradict those of the process that leads now.
    ///
    /// To be run to its end. When it is dropped before, what was known last stays and grows old.
    pub(crate) async fn keep(&self, client: Client, shutdown: CancellationToken) {
        let accounts = Api::<ManagedServiceAccount>::all(client);
        let mut events = std::pin::pin!(
            watcher(accounts, watcher::Config::default())
                .default_backoff()
                .take_until(shutdown.cancelled_owned())
        );
        // A list is taken over when it is complete, so that a scrape in between counts what was known before.
        let mut listed = BTreeMap::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => self.apply(event, &mut listed),
                Err(error) => tracing::warn!(%error, "the accounts cannot be watched; trying again"),
            }
        }
        *self.lock() = None;
    }

    /// Takes a watch event into account; `listed` is what a list under way has shown so far.
    fn apply(&self, event: watcher::Event<ManagedServiceAccount>, listed: &mut BTreeMap<Key, Token>) {
        let key =
            |account: &ManagedServiceAccount| (account.namespace().unwrap_or_default(), account.name_any());
        let token = |account: &ManagedServiceAccount| Token::of(account.status.as_ref());
        match event {
            watcher::Event::Init => listed.clear(),
            watcher::Event::InitApply(account) => {
                listed.insert(key(&account), token(&account));
            }
            watcher::Event::InitDone => *self.lock() = Some(std::mem::take(listed)),
            watcher::Event::Apply(account) => {
                if let Some(tokens) = &mut *self.lock() {
                    tokens.insert(key(&account), token(&account));
                }
            }
            watcher::Event::Delete(account) => {
                if let Some(tokens) = &mut *self.lock() {
                    tokens.remove(&key(&account));
                }
            }
        }
    }

    fn count(&self) -> Option<Count> {
        let now = self.clock.now();
        self.lock().as_ref().map(|tokens| Count::of(tokens, now))
    }
}

/// The fleet in numbers.
#[derive(Debug, Default, PartialEq, Eq)]
struct Count {
    accounts: i64,
    clusters: i64,
    tokens: [i64; TokenState::ALL.len()],
    /// When the first token that is good now expires.
    next_expiry: Option<Timestamp>,
}

impl Count {
    /// Counted anew for each scrape, in one pass: tokens expire without an event that could move a counter.
    fn of(tokens: &BTreeMap<Key, Token>, now: Timestamp) -> Self {
        let mut count = Self::default();
        let mut clusters = BTreeSet::new();
        for ((namespace, _), token) in tokens {
            count.accounts += 1;
            clusters.insert(namespace.as_str());
            let state = token.state(now);
            count.tokens[state as usize] += 1;
            if matches!(state, TokenState::Valid | TokenState::Failing) {
                count.next_expiry = count.next_expiry.into_iter().chain(token.expires).min();
            }
        }
        count.clusters = i64::try_from(clusters.len()).unwrap_or(i64::MAX);
        count
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
        let help = "Accounts by the state of their token";
        let mut family = encoder.encode_descriptor("fleetpass_hub_tokens", help, None, MetricType::Gauge)?;
        for state in TokenState::ALL {
            let gauge = ConstGauge::new(count.tokens[state as usize]);
            gauge.encode(family.encode_family(&[("state", state.as_str())])?)?;
        }
        Ok(())
    }
}

/// A fleet as a registry of metrics takes it.
#[derive(Debug)]
pub(crate) struct Shared(pub(crate) Arc<Fleet>);

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn status(expires: Option<i64>, reported: Option<(&str, &str)>) -> Status {
        let condition = |(status, reason): (&str, &str)| Condition {
            type_: names::CONDITION_TOKEN_REPORTED.into(),
            status: status.into(),
            reason: reason.into(),
            last_transition_time: Time(at(0)),
            message: String::new(),
            observed_generation: None,
        };
        Status {
            expiration_timestamp: expires.map(|second| Time(at(second))),
            conditions: reported.map(condition).into_iter().collect(),
            ..Status::default()
        }
    }

    #[test]
    fn the_state_of_a_token_is_read_from_the_status() {
        let well = Some(("True", names::REASON_TOKEN_REPORTED));
        let away = Some(("True", names::REASON_CLUSTER_UNREACHABLE));
        let blocked = Some(("False", names::REASON_NAME_CONFLICT));
        for (status, state) in [
            (None, TokenState::Missing),
            (Some(status(None, None)), TokenState::Missing),
            (Some(status(None, blocked)), TokenState::Missing),
            (Some(status(Some(11), well)), TokenState::Valid),
            (Some(status(Some(11), away)), TokenState::Failing),
            (Some(status(Some(11), blocked)), TokenState::Failing),
            (Some(status(Some(11), None)), TokenState::Failing),
            (Some(status(Some(10), well)), TokenState::Expired),
            (Some(status(Some(10), away)), TokenState::Expired),
        ] {
            assert_eq!(Token::of(status.as_ref()).state(at(10)), state, "{status:?}");
        }
    }

    #[test]
    fn accounts_are_counted_as_they_come_and_go() {
        let fleet = Fleet::new(fleetpass_api::clock::system());
        let mut listed = BTreeMap::new();
        let account = |cluster: &str, name: &str, expires| ManagedServiceAccount {
            status: Some(status(expires, Some(("True", names::REASON_TOKEN_REPORTED)))),
            ..ManagedServiceAccount::new(cluster, name)
        };
        let count = |fleet: &Fleet| fleet.lock().as_ref().map(|tokens| Count::of(tokens, at(10)));
        let mut happen = |event| fleet.apply(event, &mut listed);
        happen(watcher::Event::Init);
        happen(watcher::Event::InitApply(account("c1", "a", Some(30))));
        happen(watcher::Event::InitApply(account("c1", "b", Some(20))));
        assert_eq!(count(&fleet), None, "not all are known yet");
        happen(watcher::Event::InitDone);
        happen(watcher::Event::Apply(account("c2", "a", Some(5))));
        happen(watcher::Event::Apply(account("c2", "b", None)));
        let expected = Count { accounts: 4, clusters: 2, tokens: [2, 0, 1, 1], next_expiry: Some(at(20)) };
        assert_eq!(count(&fleet), Some(expected));
        happen(watcher::Event::Delete(account("c1", "b", None)));
        happen(watcher::Event::Delete(account("c2", "b", None)));
        let expected = Count { accounts: 2, clusters: 2, tokens: [1, 0, 1, 0], next_expiry: Some(at(30)) };
        assert_eq!(count(&fleet), Some(expected));
        // A new list replaces what was known.
        happen(watcher::Event::Init);
        happen(watcher::Event::InitApply(account("c3", "a", None)));
        happen(watcher::Event::InitDone);
        let expected = Count { accounts: 1, clusters: 1, tokens: [0, 0, 0, 1], next_expiry: None };
        assert_eq!(count(&fleet), Some(expected));
    }
}
