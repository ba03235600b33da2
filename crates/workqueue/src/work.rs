//! The queue as it runs: the state machine behind a lock, and the loop that drives it.

use crate::{Backoff, Retry, State};
use futures::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use std::{
    fmt,
    future::Future,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

/// What is to happen with a key after a run that went well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing until it is added.
    Wait,
    /// It comes again after this time at the latest.
    After(Duration),
}

/// A run that failed, as it is told to the caller of [`Backlog::work`].
#[derive(Debug)]
pub struct Failure<E> {
    /// Why.
    pub cause: Cause<E>,
    /// How often the key failed in a row, this time included.
    pub failures: u32,
    /// After what time it is tried again, unless it is added before.
    pub delay: Duration,
}

/// Why a run failed.
#[derive(Debug)]
pub enum Cause<E> {
    /// The reconciler said so.
    Error(E),
    /// It took longer than [`Options::longest_run`], and was dropped.
    TookTooLong,
}

/// How a backlog is worked off.
#[derive(Debug)]
pub struct Options<K> {
    /// How many keys may run at once. At least one.
    pub workers: usize,
    /// How many thousandths of its delay a key that failed is spared. Where many keys fail of the same cause it should
    /// differ between them, so that they do not all come back in the same moment. It may be random.
    pub jitter: fn(&K) -> u32,
    /// After this time a run is dropped and counts as failed; `None`: never.
    pub longest_run: Option<Duration>,
    /// How long runs under way may still take when the work is stopped. Zero: they are dropped.
    pub grace: Duration,
}

impl<K> Options<K> {
    /// So many workers; no jitter, no limit of a run's time, no grace.
    pub const fn workers(workers: usize) -> Self {
        Self { workers, jitter: |_| 0, longest_run: None, grace: Duration::ZERO }
    }
}

/// What the two ends of a queue share.
struct Shared<K> {
    /// `None` when nobody will work it off any more. A std mutex: it is held for single operations of the state, never
    /// across an `await`.
    state: Mutex<Option<State<K>>>,
    /// Woken when something was added. It keeps one wake-up for a loop that is not listening just then.
    added: Notify,
}

impl<K> Shared<K> {
    /// What `operation` does with the state, if the queue is still worked off.
    fn with<T>(&self, operation: impl FnOnce(&mut State<K>) -> T) -> Option<T> {
        // The operations keep the state whole; only the caller's `Hash` and `Eq` could panic in them.
        self.state.lock().unwrap_or_else(PoisonError::into_inner).as_mut().map(operation)
    }
}

/// The end of a queue at which keys are added; cheap to clone. Adding never waits, and does nothing once the
/// [`Backlog`] is gone.
pub struct Queue<K>(Arc<Shared<K>>);

/// The end of a queue that is worked off, once.
pub struct Backlog<K>(Arc<Shared<K>>);

/// A new queue, whose failing keys wait as `backoff` says.
pub fn queue<K: Clone + Eq + Hash>(backoff: Backoff) -> (Queue<K>, Backlog<K>) {
    let state = Mutex::new(Some(State::new(backoff)));
    let shared = Arc::new(Shared { state, added: Notify::new() });
    (Queue(shared.clone()), Backlog(shared))
}

impl<K> Clone for Queue<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K> fmt::Debug for Queue<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").finish_non_exhaustive()
    }
}

impl<K> fmt::Debug for Backlog<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backlog").finish_non_exhaustive()
    }
}

impl<K> Drop for Backlog<K> {
    fn drop(&mut self) {
        // Otherwise what is added by those who outlive the work would pile up.
        *self.0.state.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl<K: Clone + Eq + Hash> Queue<K> {
    /// Adds `key`, to run as soon as a worker is free; if it is running, again after that run.
    pub fn add(&self, key: K) {
        // The state first: a loop that is woken before would find nothing, and sleep again.
        self.0.with(|state| state.add(key));
        self.0.added.notify_one();
    }

    /// Adds `key`, to run after `delay`, unless it is to run earlier anyway.
    pub fn add_after(&self, key: K, delay: Duration) {
        self.0.with(|state| state.add_after(key, delay, Instant::now()));
        self.0.added.notify_one();
    }

    /// Retries all keys that failed now: what they failed of is over.
    pub fn hurry(&self) {
        self.0.with(State::hurry);
        self.0.added.notify_one();
    }
}

impl<K: Clone + Eq + Hash> Backlog<K> {
    /// Works off the queue until `stop`: calls `reconcile` for each key whose turn has come, and `failed` for each run
    /// that failed, before the key is tried again. Gives the number of runs that were dropped because they were still
    /// under way when [`Options::grace`] was over.
    ///
    /// Cancel safety: when the future is dropped, the runs under way are dropped too, and the queue with all that
    /// waits in it.
    pub async fn work<E, Run>(
        self,
        options: Options<K>,
        stop: CancellationToken,
        reconcile: impl Fn(K) -> Run,
        failed: impl Fn(&K, &Failure<E>),
    ) -> usize
    where
        Run: Future<Output = Result<Next, E>>,
    {
        // Polled here, not spawned: so a reconciler may borrow, and dropping this drops them.
        let mut runs = FuturesUnordered::new();
        loop {
            while runs.len() < options.workers
                && let Some(key) = self.0.with(|state| state.start(Instant::now())).flatten()
            {
                let run = within(options.longest_run, reconcile(key.clone()));
                runs.push(run.map(|result| (key, result)));
            }
            // With all workers busy, nothing can begin before a run ends.
            let idle = runs.len() < options.workers;
            let due = self.0.with(|state| state.next_due()).flatten().filter(|_| idle);
            tokio::select! {
                // In this order: nothing begins once it is stopped, and what ended makes room for what waits.
                biased;
                () = stop.cancelled() => break,
                Some((key, result)) = runs.next() => {
                    if let Some(failure) = self.ended(&key, result, &options) {
                        failed(&key, &failure);
                    }
                }
                () = self.0.added.notified() => {}
                () = sleep_until(due) => {}
            }
        }
        let all = async { while runs.next().await.is_some() {} };
        // Whether or not they made it: those that did not are counted.
        let _ = tokio::time::timeout(options.grace, all).await;
        runs.len()
    }

    /// Notes how a run of `key` ended; `result` is `None` if it took too long.
    fn ended<E>(&self, key: &K, result: Option<Result<Next, E>>, options: &Options<K>) -> Option<Failure<E>> {
        // One lock for the whole of it: between "succeeded" and "again after" nobody may see the key as forgotten.
        let now = Instant::now();
        let failure = |cause, retry: Retry| Failure { cause, failures: retry.failures, delay: retry.delay };
        let noted = self.0.with(|state| match result {
            Some(Ok(next)) => {
                state.succeeded(key);
                if let Next::After(delay) = next {
                    state.add_after(key.clone(), delay, now);
                }
                None
            }
            Some(Err(error)) => {
                let retry = state.failed(key, now, (options.jitter)(key))?;
                Some(failure(Cause::Error(error), retry))
            }
            None => Some(failure(Cause::TookTooLong, state.ran_too_long(key, now)?)),
        });
        noted.flatten()
    }
}

/// What `run` gives; `None` if it takes longer than `limit`.
async fn within<T>(limit: Option<Duration>, run: impl Future<Output = T>) -> Option<T> {
    match limit {
        Some(limit) => tokio::time::timeout(limit, run).await.ok(),
        None => Some(run.await),
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
