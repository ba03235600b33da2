//! What there is to know about the fleet as a whole: accounts, their tokens, their agents. For Prometheus, and for the
//! condition [`AgentAvailable`](fleetpass_api::names::CONDITION_AGENT_AVAILABLE).
//!
//! ```text
//!   watch accounts ─┐                ┌─► count: metrics, at each scrape
//!   watch Leases ───┴─► what is known ┤
//!                          │          └─► by namespace: judge ─► patch the condition of the accounts that say otherwise
//!                          └─► queue of namespaces, one timer each
//! ```
//!
//! All of it is in the accounts, their status, and the agents' Leases, so two watches suffice and no token is read. Of an
//! account only a few bytes are kept, whatever it carries. A renewal of a Lease moves a time and costs nothing else: a
//! cluster is judged when an account of it changes, when its agent comes back, and when its Lease may have run out.

mod count;

pub(crate) use count::Shared;

use crate::availability::{Facts, Finding, Lease, Standing, judge, patch};
use count::Token;
use fleetpass_api::{ManagedServiceAccount, account::Status, clock::SharedClock, names};
use fleetpass_workqueue::{Backoff, Cause, Failure, Next, Options, Queue, queue};
use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::{api::coordination::v1, apimachinery::pkg::apis::meta::v1::Condition};
use kube::{
    Api, Client, ResourceExt as _,
    api::{Patch, PatchParams},
    runtime::{WatchStreamExt as _, watcher},
};
use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How many clusters are worked on at once. Each of a few small requests, and only when an agent comes or goes.
const WORKERS: usize = 16;
/// How long what failed waits.
const RETRY: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(300));

/// Namespace and name.
type Key = (String, String);

/// What is kept of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Account {
    token: Token,
    facts: Facts,
    /// Whether its status says that its agent is available, and a hash of all that it says about that.
    said: Option<(bool, u64)>,
}

impl Account {
    fn of(account: &ManagedServiceAccount) -> Self {
        let status = account.status.as_ref();
        let token = Token::of(status);
        let refreshed = status.and_then(|status| status.token_secret_ref.as_ref());
        let condition = status.and_then(|status| status.condition(names::CONDITION_AGENT_AVAILABLE));
        let said = |condition: &Condition| {
            let available = condition.status == "True";
            (available, digest(available, &condition.reason, &condition.message))
        };
        Self {
            token,
            facts: Facts {
                created: account.metadata.creation_timestamp.as_ref().map(|time| time.0),
                expires: token.expires,
                refreshed: refreshed.map(|secret| secret.last_refresh_timestamp.0),
            },
            said: condition.map(said),
        }
    }

    /// Whether its status has to be written to say so.
    fn lacks(&self, finding: &Finding) -> bool {
        let wanted = digest(finding.available, finding.reason, &finding.message);
        self.said != Some((finding.available, wanted))
    }
}

/// Only compared within this process.
fn digest(available: bool, reason: &str, message: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (available, reason, message).hash(&mut hasher);
    hasher.finish()
}

/// What is known of an agent's Lease.
#[derive(Debug, Clone)]
struct Seen {
    lease: Lease,
    version: Option<String>,
    /// Since when it is so, as this process saw it.
    since: Instant,
    /// This process saw it renewed.
    witnessed: bool,
}

impl Seen {
    fn standing(&self, now: Timestamp) -> Standing {
        self.lease.standing(self.since.elapsed(), self.witnessed, now)
    }
}

/// The fleet as it was seen.
#[derive(Debug, Default)]
struct Known {
    /// `None` before the accounts were listed once: half a fleet would look like one that lost the other half.
    accounts: Option<BTreeMap<Key, Account>>,
    leases: BTreeMap<String, Seen>,
    /// The Leases were listed once.
    has_leases: bool,
}

impl Known {
    /// Notes a Lease; true if the agent was not known to be at work.
    fn see(&mut self, namespace: String, lease: &v1::Lease, now: Timestamp) -> bool {
        let spec = lease.spec.as_ref();
        let renewed = spec.and_then(|spec| spec.renew_time.as_ref()).map(|time| time.0);
        let new = Lease::new(renewed, spec.and_then(|spec| spec.lease_duration_seconds));
        let version = lease.metadata.resource_version.clone();
        let known = self.leases.get(&namespace);
        if known.is_some_and(|known| known.version == version) {
            return false;
        }
        let was = known.map(|known| known.standing(now));
        // A change of the time is a renewal. Whatever else changed in it was not the agent's doing.
        let witnessed = known.is_some_and(|known| known.witnessed || known.lease.renewed != renewed);
        let since = match known {
            Some(known) if known.lease.renewed == renewed => known.since,
            _ => Instant::now(),
        };
        self.leases.insert(namespace, Seen { lease: new, version, since, witnessed });
        !matches!(was, Some(Standing::Alive(_)))
    }

    /// The accounts of a cluster, by name.
    fn of_cluster<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = (&'a str, &'a Account)> {
        let from = (namespace.to_owned(), String::new());
        let accounts = self.accounts.iter().flat_map(move |accounts| accounts.range(from.clone()..));
        accounts
            .take_while(move |((of, _), _)| of == namespace)
            .map(|((_, name), account)| (name.as_str(), account))
    }

    /// What has to be said of which accounts of a cluster, and when to look again; `None` before all is known.
    fn judge(&self, namespace: &str, now: Timestamp) -> Option<(Vec<(String, Finding)>, Duration)> {
        if !self.has_leases || self.accounts.is_none() {
            return None;
        }
        let accounts: Vec<_> = self.of_cluster(namespace).collect();
        if accounts.is_empty() {
            return None;
        }
        let standing = self.leases.get(namespace).map(|seen| seen.standing(now));
        let facts: Vec<Facts> = accounts.iter().map(|(_, account)| account.facts).collect();
        let (verdict, next) = judge(namespace, standing, &facts, now);
        let open = accounts.into_iter().filter_map(|(name, account)| {
            let finding = verdict.of(&account.facts, account.said.map(|(available, _)| available))?;
            account.lacks(&finding).then(|| (name.to_owned(), finding))
        });
        Some((open.collect(), next))
    }
}

/// The fleet as it is now: a collector of metrics. It has something to say only while it is [kept](Fleet::keep), so
/// that of several processes one speaks.
pub(crate) struct Fleet {
    clock: SharedClock,
    /// A std mutex: it is held for one change of a map, or while a scrape counts, and never across an `await`.
    known: Mutex<Known>,
    /// That conditions cannot be written was said.
    told: AtomicBool,
}

impl fmt::Debug for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fleet").finish_non_exhaustive()
    }
}

impl Fleet {
    /// Nothing is known yet.
    pub(crate) fn new(clock: SharedClock) -> Self {
        Self { clock, known: Mutex::default(), told: AtomicBool::new(false) }
    }

    /// The maps are never left half changed, so a panic elsewhere while they were held does not spoil them.
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows the accounts and agents of all namespaces, and says in the accounts whether their agent is available,
    /// until shut down; then nothing is known again: numbers that are no longer kept up to date would contradict those
    /// of the process that leads now.
    ///
    /// To be run to its end. When it is dropped before, what was known last stays and grows old.
    pub(crate) async fn keep(&self, client: Client, shutdown: CancellationToken) {
        let (queue, backlog) = queue(RETRY);
        let failed = |namespace: &Arc<str>, failure: &Failure<kube::Error>| {
            if let Cause::Error(error) = &failure.cause {
                self.complain(namespace, error);
            }
        };
        let reconcile = |namespace: Arc<str>| self.say(client.clone(), namespace);
        let work = backlog.work(Options::workers(WORKERS), shutdown, reconcile, failed);
        tokio::select! {
            _ = work => {}
            () = self.watch_accounts(&client, &queue) => {}
            () = self.watch_leases(&client, &queue) => {}
        }
        *self.lock() = Known::default();
    }

    fn count(&self) -> Option<count::Count> {
        let now = self.clock.now();
        count::Count::of(&self.lock(), now)
    }

    fn complain(&self, namespace: &str, error: &kube::Error) {
        let refused = matches!(error, kube::Error::Api(status) if status.is_forbidden());
        // Of the rights once, and not for each cluster.
        if !refused {
            tracing::debug!(namespace, %error, "cannot say whether the agent is available; trying again");
        } else if !self.told.swap(true, Ordering::Relaxed) {
            tracing::warn!(%error, "cannot say in accounts whether their agents are available");
        }
    }

    async fn watch_accounts(&self, client: &Client, queue: &Queue<Arc<str>>) {
        let accounts = Api::<ManagedServiceAccount>::all(client.clone());
        let mut events = std::pin::pin!(watcher(accounts, watcher::Config::default()).default_backoff());
        // A list is taken over when it is complete, so that a scrape in between counts what was known before.
        let mut listed = BTreeMap::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => self.apply(event, &mut listed).into_iter().for_each(|key| queue.add(key)),
                Err(error) => tracing::warn!(%error, "the accounts cannot be watched; trying again"),
            }
        }
    }

    /// Takes a watch event into account; `listed` is what a list under way has shown so far. Gives the clusters that are
    /// to be judged.
    fn apply(
        &self,
        event: watcher::Event<ManagedServiceAccount>,
        listed: &mut BTreeMap<Key, Account>,
    ) -> Vec<Arc<str>> {
        let key =
            |account: &ManagedServiceAccount| (account.namespace().unwrap_or_default(), account.name_any());
        match event {
            watcher::Event::Init => listed.clear(),
            watcher::Event::InitApply(account) => {
                listed.insert(key(&account), Account::of(&account));
            }
            watcher::Event::InitDone => {
                let mut known = self.lock();
                known.accounts = Some(std::mem::take(listed));
                return clusters(&known);
            }
            watcher::Event::Apply(account) => {
                let (key, new) = (key(&account), Account::of(&account));
                let namespace: Arc<str> = key.0.as_str().into();
                if let Some(accounts) = &mut self.lock().accounts
                    && accounts.insert(key, new) != Some(new)
                {
                    return vec![namespace];
                }
            }
            watcher::Event::Delete(account) => {
                if let Some(accounts) = &mut self.lock().accounts {
                    accounts.remove(&key(&account));
                }
            }
        }
        Vec::new()
    }

    async fn watch_leases(&self, client: &Client, queue: &Queue<Arc<str>>) {
        let leases = Api::<v1::Lease>::all(client.clone());
        let select = watcher::Config::default().fields(&format!("metadata.name={}", names::AGENT_LEASE));
        let mut events = std::pin::pin!(watcher(leases, select).default_backoff());
        let mut listed = HashSet::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => self.see(event, &mut listed).into_iter().for_each(|key| queue.add(key)),
                Err(error) => tracing::warn!(%error, "the agents' Leases cannot be watched; trying again"),
            }
        }
    }

    /// Takes an event of a Lease into account, as [`Fleet::apply`] does with those of accounts.
    fn see(&self, event: watcher::Event<v1::Lease>, listed: &mut HashSet<String>) -> Vec<Arc<str>> {
        let now = self.clock.now();
        match event {
            watcher::Event::Init => listed.clear(),
            watcher::Event::InitApply(lease) | watcher::Event::Apply(lease) => {
                let namespace = lease.namespace().unwrap_or_default();
                listed.insert(namespace.clone());
                if self.lock().see(namespace.clone(), &lease, now) {
                    return vec![namespace.into()];
                }
            }
            watcher::Event::InitDone => {
                let listed = std::mem::take(listed);
                let mut known = self.lock();
                let used: HashSet<&str> = known
                    .accounts
                    .iter()
                    .flat_map(|accounts| accounts.keys())
                    .map(|(of, _)| of.as_str())
                    .collect();
                let unused: Vec<String> = known
                    .leases
                    .keys()
                    .filter(|of| !listed.contains(*of) && !used.contains(of.as_str()))
                    .cloned()
                    .collect();
                unused.iter().for_each(|of| drop(known.leases.remove(of)));
                known.has_leases = true;
                return clusters(&known);
            }
            // Kept, and it runs out: an agent that is there makes it again.
            watcher::Event::Delete(_) => {}
        }
        Vec::new()
    }

    /// Says in the accounts of a cluster what there is to say of its agent.
    async fn say(&self, client: Client, namespace: Arc<str>) -> Result<Next, kube::Error> {
        let now = self.clock.now();
        let judged = self.lock().judge(&namespace, now);
        let Some((open, next)) = judged else { return Ok(Next::Wait) };
        let accounts = Api::<ManagedServiceAccount>::namespaced(client, &namespace);
        for (name, finding) in open {
            // Read here and not kept: conditions are long, and changes of an agent's state are few.
            let Some(account) = accounts.get_opt(&name).await? else { continue };
            let conditions = account.status.as_ref().map(|status: &Status| status.conditions.as_slice());
            let version = account.metadata.resource_version.as_deref();
            let Some(wanted) = patch(version, conditions.unwrap_or_default(), &finding, now) else {
                continue;
            };
            match accounts.patch_status(&name, &PatchParams::default(), &Patch::Merge(&wanted)).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                // Most likely its agent, which is of more use: once more, a little later.
                Err(kube::Error::Api(status)) if status.code == 409 => {
                    return Ok(Next::After(Duration::from_secs(1)));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Next::After(next))
    }
}

/// All clusters with accounts.
fn clusters(known: &Known) -> Vec<Arc<str>> {
    let mut clusters: Vec<Arc<str>> = Vec::new();
    for (namespace, _) in known.accounts.iter().flat_map(|accounts| accounts.keys()) {
        if clusters.last().is_none_or(|last| **last != **namespace) {
            clusters.push(namespace.as_str().into());
        }
    }
    clusters
}

#[cfg(test)]
mod tests;
