//! The queue as a state machine, without I/O, clock and randomness.
//!
//! A key is at most at one place. It is *ready* (it waits for a worker) or *running*; it may be *delayed*, alone or
//! while it is running; and it is forgotten when it is nowhere and did not fail.

use crate::{Backoff, backoff::shortened};
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    hash::Hash,
    time::Duration,
};
use tokio::time::Instant;

/// What is known of a key that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// How often it failed in a row, this time included.
    pub failures: u32,
    /// After what time it is tried again, unless it is added before, or was while it ran: then it comes at once.
    pub delay: Duration,
}

/// The keys of a queue, and where each of them is. Whoever drives it takes keys with [`State::start`], and says with
/// [`State::succeeded`] or [`State::failed`] how the run ended.
///
/// ```
/// use fleetpass_workqueue::{Backoff, Retry, State};
/// use std::time::Duration;
///
/// let second = Duration::from_secs(1);
/// let mut state = State::new(Backoff::new(second, 60 * second));
/// let now = tokio::time::Instant::now();
/// state.add("robot");
/// assert_eq!(state.start(now), Some("robot"));
/// state.add("robot"); // it runs: kept for afterwards
/// assert_eq!(state.start(now), None);
/// state.succeeded(&"robot");
/// assert_eq!(state.start(now), Some("robot"));
/// assert_eq!(state.failed(&"robot", now, 0), Some(Retry { failures: 1, delay: second }));
/// assert_eq!(state.next_due(), Some(now + second));
/// ```
///
/// Operations take constant time, with a delay logarithmic time; [`State::hurry`] looks at all keys.
#[derive(Debug)]
pub struct State<K> {
    backoff: Backoff,
    entries: HashMap<K, Entry>,
    /// The keys whose place is [`Place::Ready`], in the order in which they became so.
    ready: VecDeque<K>,
    /// The keys whose entry has this wake-up.
    delayed: BTreeMap<WakeUp, K>,
    /// Makes every [`WakeUp`] another one; those of one moment come in the order in which they were asked for.
    last_number: u64,
}

/// When a delayed key becomes ready, and a number that no other wake-up has.
type WakeUp = (Instant, u64);

/// A key is forgotten when it would be as [`Entry::default`] has it.
#[derive(Debug, Default)]
struct Entry {
    place: Place,
    /// Never with [`Place::Ready`]: the run that is about to begin is the earlier one.
    wake_up: Option<WakeUp>,
    failures: u32,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Delayed, if it has a wake-up.
    #[default]
    Away,
    Ready,
    Running {
        /// It was added since the run began, or its time came.
        again: bool,
    },
}

/// Instants beyond this are as good as never, and can still be added to.
const NEVER: Duration = Duration::from_secs(30 * 366 * 24 * 3600);

impl<K: Clone + Eq + Hash> State<K> {
    /// An empty queue, whose failing keys wait as `backoff` says.
    pub fn new(backoff: Backoff) -> Self {
        Self {
            backoff,
            entries: HashMap::new(),
            ready: VecDeque::new(),
            delayed: BTreeMap::new(),
            last_number: 0,
        }
    }

    /// Adds `key`, to run as soon as a worker is free; if it is running, again after that run.
    pub fn add(&mut self, key: K) {
        let entry = self.entries.entry(key.clone()).or_default();
        // It runs before its time comes, so that time has no meaning any more; nor has a backoff.
        if let Some(wake_up) = entry.wake_up.take() {
            self.delayed.remove(&wake_up);
        }
        match &mut entry.place {
            Place::Ready => {}
            Place::Running { again } => *again = true,
            Place::Away => {
                entry.place = Place::Ready;
                self.ready.push_back(key);
            }
        }
    }

    /// Adds `key`, to run `delay` after `now`, unless it runs, or is to run, earlier.
    pub fn add_after(&mut self, key: K, delay: Duration, now: Instant) {
        if delay.is_zero() {
            return self.add(key);
        }
        // Instant panics on overflow, and delays come from reconcilers that compute them.
        let at = now + delay.min(NEVER);
        let entry = self.entries.entry(key.clone()).or_default();
        if matches!(entry.place, Place::Ready | Place::Running { again: true }) {
            return;
        }
        if let Some(earlier) = entry.wake_up {
            if earlier.0 <= at {
                return;
            }
            self.delayed.remove(&earlier);
        }
        // 64 bits do not run out: at a million delays a second they last half a million years.
        self.last_number += 1;
        let wake_up = (at, self.last_number);
        entry.wake_up = Some(wake_up);
        self.delayed.insert(wake_up, key);
    }

    /// Adds every key that failed and did not succeed since; first those that wait, by when their time would come.
    pub fn hurry(&mut self) {
        let failed = |key: &&K| self.entries.get(*key).is_some_and(|entry| entry.failures > 0);
        let running = |entry: &Entry| matches!(entry.place, Place::Running { .. });
        let running = self.entries.iter().filter(|(_, entry)| running(entry)).map(|(key, _)| key);
        // Collected first: adding takes keys out of `delayed`.
        let keys: Vec<K> = self.delayed.values().chain(running).filter(failed).cloned().collect();
        keys.into_iter().for_each(|key| self.add(key));
    }

    /// The next key to run; `None` if none is ready at `now`. It is running until it is said how that ended.
    pub fn start(&mut self, now: Instant) -> Option<K> {
        // Before a key is taken, so that those whose time has come stand in line behind what was ready before them.
        while let Some(wake_up) = self.delayed.first_entry().filter(|first| first.key().0 <= now) {
            let key = wake_up.remove();
            self.add(key);
        }
        let key = self.ready.pop_front()?;
        self.entries.entry(key.clone()).or_default().place = Place::Running { again: false };
        Some(key)
    }

    /// When [`State::start`] may have a key without one being added or a run ending.
    pub fn next_due(&self) -> Option<Instant> {
        self.delayed.first_key_value().map(|((at, _), _)| *at)
    }

    /// The run of `key` went well: its failures are forgotten. Nothing happens if it is not running.
    pub fn succeeded(&mut self, key: &K) {
        let Some(entry) = self.stopped(key) else { return };
        // Kept are only keys that are somewhere: the queue must not grow with every key that ever was.
        entry.failures = 0;
        if entry.place == Place::Away && entry.wake_up.is_none() {
            self.entries.remove(key);
        }
    }

    /// The run of `key` failed at `now`: it comes again after its backoff without `shorten` thousandths of it, a number
    /// that should differ between keys that fail together. `None`, and nothing happens, if it is not running.
    pub fn failed(&mut self, key: &K, now: Instant, shorten: u32) -> Option<Retry> {
        let earlier = self.entries.get(key)?.failures;
        self.retry(key, shortened(self.backoff.delay(earlier), shorten), now)
    }

    /// The run of `key` was given up at `now`, because it took too long. That is a failure, after which it waits for
    /// the longest delay: what does not answer for so long rarely does at once.
    pub(crate) fn ran_too_long(&mut self, key: &K, now: Instant) -> Option<Retry> {
        self.retry(key, self.backoff.last, now)
    }

    /// Whether no key is running, waiting, or known to have failed.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn retry(&mut self, key: &K, delay: Duration, now: Instant) -> Option<Retry> {
        let entry = self.stopped(key)?;
        entry.failures = entry.failures.saturating_add(1);
        let failures = entry.failures;
        self.add_after(key.clone(), delay, now);
        Some(Retry { failures, delay })
    }

    /// Takes `key` out of those that are running.
    fn stopped(&mut self, key: &K) -> Option<&mut Entry> {
        let entry = self.entries.get_mut(key)?;
        // A run that is reported twice, or was never started, must not disturb a key that waits.
        let Place::Running { again } = entry.place else { return None };
        entry.place = if again { Place::Ready } else { Place::Away };
        // At the end of the line: a key that is added all the time must not run before others that wait.
        if again {
            self.ready.push_back(key.clone());
        }
        Some(entry)
    }
}

#[cfg(test)]
mod tests;
