//! Who is next: the accounts that something happened to, one reconcile at a time for each.
//!
//! `kube::runtime::Controller` reconciles objects that exist, and forgets those that went. The agent must act when
//! an account is *gone* (it may not set a finalizer: the upstream addon's agent has no right to change an account,
//! and ours runs with the same rights), so its unit of work is a name, not an object.
//!
//! News that a reconcile has already taken into account, among them the echo of its own writes, cause no work.
//! The queue is a state machine without I/O; times are passed in.

use crate::{decide::spread, health::Kind, observe::Memory};
use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;

/// An account's name.
pub(crate) type Name = Arc<str>;

/// What happened to an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// It is there, at this resourceVersion.
    At(String),
    /// It went, at this resourceVersion if that is known.
    Gone(Option<String>),
}

/// The objects that a reconcile left behind; `None` where there is none of ours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Versions {
    pub(crate) account: Option<String>,
    pub(crate) secret: Option<String>,
    pub(crate) service_account: Option<String>,
}

/// How a reconcile ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// All is as it should be; look again after `wait`.
    Settled { versions: Versions, wait: Option<Duration> },
    /// It did not work out: try again, later each time. `versions` as far as they are known.
    Failed { versions: Option<Versions> },
}

impl Versions {
    fn of(&self, kind: Kind) -> Option<&str> {
        match kind {
            Kind::Account => self.account.as_deref(),
            Kind::Secret => self.secret.as_deref(),
            Kind::ServiceAccount => self.service_account.as_deref(),
        }
    }

    fn is_empty(&self) -> bool {
        self.account.is_none() && self.secret.is_none() && self.service_account.is_none()
    }

    /// Whether the change was part of what the reconcile saw or did. Resource versions of one kind are compared
    /// as numbers, which Kubernetes has promised since 1.35 (KEP-5504); what is no number counts as news.
    fn cover(&self, kind: Kind, change: &Change) -> bool {
        let at_most = |version: &String, known: &str| match (version.parse::<u64>(), known.parse::<u64>()) {
            (Ok(version), Ok(known)) => version <= known,
            _ => false,
        };
        match (change, self.of(kind)) {
            (Change::At(version) | Change::Gone(Some(version)), Some(known)) => at_most(version, known),
            (Change::Gone(_), None) => true,
            (Change::At(_), None) | (Change::Gone(None), Some(_)) => false,
        }
    }
}

#[derive(Default)]
struct Entry {
    /// Taken out while a reconcile runs.
    memory: Option<Box<Memory>>,
    settled: Option<Versions>,
    news: HashMap<Kind, Change>,
    /// Look, whatever the news are.
    forced: bool,
    running: bool,
    ready: bool,
    failures: u32,
    due: Option<Instant>,
}

impl Entry {
    fn has_work(&self) -> bool {
        let fresh = |(kind, change): (&Kind, &Change)| {
            self.settled.as_ref().is_none_or(|settled| !settled.cover(*kind, change))
        };
        self.forced || self.news.iter().any(fresh)
    }
}

/// The work queue.
#[derive(Default)]
pub(crate) struct Queue {
    entries: HashMap<Name, Entry>,
    ready: VecDeque<Name>,
    due: BTreeSet<(Instant, Name)>,
}

/// The first and the longest wait after failures.
const BACKOFF_MILLIS: u64 = 200;
const BACKOFF_LIMIT_MILLIS: u64 = 30_000;

impl Queue {
    /// An object of that name changed.
    pub(crate) fn notify(&mut self, name: &Name, kind: Kind, change: Change) {
        let entry = self.entries.entry(name.clone()).or_default();
        entry.news.insert(kind, change);
        self.consider(name);
    }

    /// All objects of a kind were listed: those not in the list are gone.
    pub(crate) fn listed(&mut self, kind: Kind, names: &HashSet<Name>) {
        let missing: Vec<Name> = self.entries.keys().filter(|name| !names.contains(*name)).cloned().collect();
        for name in missing {
            self.notify(&name, kind, Change::Gone(None));
        }
    }

    /// Look at this account, whether or not something is known to have happened.
    pub(crate) fn force(&mut self, name: &Name) {
        if let Some(entry) = self.entries.get_mut(name) {
            entry.forced = true;
            self.consider(name);
        }
    }

    /// Look at every account.
    pub(crate) fn force_all(&mut self) {
        for name in self.entries.keys().cloned().collect::<Vec<_>>() {
            self.force(&name);
        }
    }

    /// A side answers again: whoever waits because of a failure need not.
    pub(crate) fn hurry(&mut self) {
        let failing = self.entries.iter().filter(|(_, entry)| entry.failures > 0);
        for name in failing.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            self.force(&name);
        }
    }

    /// The next account to reconcile, with its memory; it is running until [`Queue::finished`].
    pub(crate) fn pop(&mut self, now: Instant) -> Option<(Name, Box<Memory>)> {
        while let Some((at, name)) = self.due.first().cloned() {
            if at > now {
                break;
            }
            self.due.pop_first();
            if let Some(entry) = self.entries.get_mut(&name) {
                entry.due = None;
            }
            self.force(&name);
        }
        let name = self.ready.pop_front()?;
        let entry = self.entries.get_mut(&name)?;
        entry.ready = false;
        entry.running = true;
        entry.forced = false;
        entry.news.clear();
        if let Some(at) = entry.due.take() {
            self.due.remove(&(at, name.clone()));
        }
        let memory = entry.memory.take().unwrap_or_default();
        Some((name, memory))
    }

    /// A reconcile came back.
    pub(crate) fn finished(&mut self, name: &Name, memory: Box<Memory>, outcome: Outcome, now: Instant) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        entry.running = false;
        entry.memory = Some(memory);
        let wait = match outcome {
            Outcome::Settled { versions, wait } => {
                entry.failures = 0;
                entry.settled = Some(versions);
                wait
            }
            Outcome::Failed { versions } => {
                entry.settled = versions;
                entry.failures = entry.failures.saturating_add(1);
                Some(backoff(name, entry.failures))
            }
        };
        if entry.has_work() {
            self.consider(name);
            return;
        }
        entry.news.clear();
        if wait.is_none() && entry.settled.as_ref().is_some_and(Versions::is_empty) {
            self.entries.remove(name);
        } else if let Some(at) = wait.and_then(|wait| now.checked_add(wait)) {
            entry.due = Some(at);
            self.due.insert((at, name.clone()));
        }
    }

    /// When [`Queue::pop`] will have something without being told.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    fn consider(&mut self, name: &Name) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        if !entry.running && !entry.ready && entry.has_work() {
            entry.ready = true;
            self.ready.push_back(name.clone());
        }
    }
}

/// The wait after that many failures in a row: doubling, and less by up to a quarter so that accounts that failed
/// together do not come back together.
fn backoff(name: &str, failures: u32) -> Duration {
    let doubled = BACKOFF_MILLIS.saturating_mul(1 << failures.saturating_sub(1).min(16));
    let wait = doubled.min(BACKOFF_LIMIT_MILLIS);
    Duration::from_millis(wait - wait * spread(&[name, "backoff"], 250) / 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(account: u64, secret: u64, service_account: u64) -> Versions {
        let text = |version: u64| (version > 0).then(|| version.to_string());
        Versions { account: text(account), secret: text(secret), service_account: text(service_account) }
    }

    fn settled(versions: Versions) -> Outcome {
        Outcome::Settled { versions, wait: Some(Duration::from_secs(60)) }
    }

    fn start(queue: &mut Queue, name: &str, version: u64) -> (Name, Instant) {
        let name: Name = name.into();
        let now = Instant::now();
        queue.notify(&name, Kind::Account, Change::At(version.to_string()));
        assert_eq!(queue.pop(now).map(|(name, _)| name), Some(name.clone()));
        (name, now)
    }

    #[tokio::test(start_paused = true)]
    async fn an_echo_of_its_own_writes_is_no_news() {
        let mut queue = Queue::default();
        let (name, now) = start(&mut queue, "a", 5);
        queue.notify(&name, Kind::ServiceAccount, Change::At("3".into()));
        queue.notify(&name, Kind::Secret, Change::At("6".into()));
        assert!(queue.pop(now).is_none(), "one at a time");
        queue.finished(&name, Box::default(), settled(versions(7, 6, 3)), now);
        queue.notify(&name, Kind::Account, Change::At("7".into()));
        assert!(queue.pop(now).is_none());
        queue.notify(&name, Kind::Account, Change::At("8".into()));
        assert!(queue.pop(now).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn news_during_a_reconcile_are_kept() {
        let mut queue = Queue::default();
        let (name, now) = start(&mut queue, "a", 5);
        queue.notify(&name, Kind::Secret, Change::Gone(Some("9".into())));
        queue.finished(&name, Box::default(), settled(versions(7, 6, 3)), now);
        assert!(queue.pop(now).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_list_lacks_is_gone() {
        let mut queue = Queue::default();
        let (name, now) = start(&mut queue, "a", 5);
        queue.finished(&name, Box::default(), settled(versions(7, 6, 3)), now);
        queue.listed(Kind::Account, &HashSet::from([name.clone()]));
        assert!(queue.pop(now).is_none());
        queue.listed(Kind::Account, &HashSet::new());
        assert!(queue.pop(now).is_some());
        queue.finished(
            &name,
            Box::default(),
            Outcome::Settled { versions: versions(0, 0, 0), wait: None },
            now,
        );
        assert!(queue.entries.is_empty(), "an account that is gone is forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn waits_longer_after_each_failure_and_not_once_the_side_is_back() {
        let mut queue = Queue::default();
        let (name, mut now) = start(&mut queue, "a", 5);
        let mut last = Duration::ZERO;
        for _ in 0..20 {
            // The echo of the failure's own report must not shorten the wait.
            queue.notify(&name, Kind::Account, Change::At("6".into()));
            queue.finished(&name, Box::default(), Outcome::Failed { versions: Some(versions(6, 0, 0)) }, now);
            let at = queue.next_due().unwrap();
            let wait = at - now;
            assert!(wait >= last && wait <= Duration::from_millis(BACKOFF_LIMIT_MILLIS), "{wait:?}");
            assert!(queue.pop(now).is_none());
            (last, now) = (wait, at);
            assert!(queue.pop(now).is_some());
        }
        queue.finished(&name, Box::default(), Outcome::Failed { versions: None }, now);
        queue.hurry();
        assert!(queue.pop(now).is_some());
        assert_eq!(queue.next_due(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn looks_again_when_it_is_time() {
        let mut queue = Queue::default();
        let (name, now) = start(&mut queue, "a", 5);
        queue.finished(&name, Box::default(), settled(versions(7, 6, 3)), now);
        assert!(queue.pop(now + Duration::from_secs(59)).is_none());
        assert!(queue.pop(now + Duration::from_secs(60)).is_some());
    }
}
