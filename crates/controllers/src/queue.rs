//! Work queues: one key is worked on by one worker at a time, keys wait for nobody but themselves.
//!
//! # Guarantees
//! - A key added while it waits is merged with what waits; added while it is being worked on, it comes again
//!   afterwards. No addition is lost.
//! - A failing key comes again with a delay that doubles from [`FIRST_RETRY`] to [`LAST_RETRY`]; other keys do not
//!   notice. A success forgets the failures.
//! - One run lasts [`LONGEST_RUN`] at most, so that a server that never answers cannot take all workers away.
//!
//! # Caveats
//! Order between keys is not kept. What waits is lost when the process ends: every controller rebuilds its work from
//! the lists that start its watches.

use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use kube::runtime::scheduler::{ScheduleRequest, scheduler};
use std::collections::{HashMap, HashSet};
use std::fmt::{Debug, Display};
use std::future::Future;
use std::hash::Hash;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The delay after the first failure of a key.
pub(crate) const FIRST_RETRY: Duration = Duration::from_millis(50);
/// The longest delay between two attempts.
pub(crate) const LAST_RETRY: Duration = Duration::from_secs(300);
/// After this time a run counts as failed.
pub(crate) const LONGEST_RUN: Duration = Duration::from_secs(120);

/// What is to happen with a key after a successful run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing until something changes.
    Wait,
    /// It comes again after this time at the latest.
    After(Duration),
}

/// The side of a queue that adds keys; cheap to clone.
#[derive(Debug)]
pub(crate) struct Queue<K> {
    requests: mpsc::UnboundedSender<ScheduleRequest<K>>,
}

impl<K> Clone for Queue<K> {
    fn clone(&self) -> Self {
        Self { requests: self.requests.clone() }
    }
}

/// The side of a queue that is worked off, by [`work`].
#[derive(Debug)]
pub(crate) struct Backlog<K> {
    requests: mpsc::UnboundedReceiver<ScheduleRequest<K>>,
    again: Queue<K>,
}

/// A new queue.
pub(crate) fn queue<K>() -> (Queue<K>, Backlog<K>) {
    let (sender, requests) = mpsc::unbounded_channel();
    let queue = Queue { requests: sender };
    (queue.clone(), Backlog { requests, again: queue })
}

impl<K> Queue<K> {
    /// Adds `key`, to be worked on as soon as possible.
    pub(crate) fn add(&self, key: K) {
        self.add_after(key, Duration::ZERO);
    }

    /// Adds `key`, to be worked on after `delay` unless it is added earlier again.
    pub(crate) fn add_after(&self, key: K, delay: Duration) {
        // The receiver is gone only when the controller was stopped: then nobody waits for the key either.
        let _ = self.requests.send(ScheduleRequest { message: key, run_at: Instant::now() + delay });
    }
}

/// Works off `backlog` until `stop`, on `workers` keys at once; `name` is for the log. Runs under way when `stop`
/// comes are dropped: reconciliations are repeatable.
pub(crate) async fn work<K, E, Run>(
    name: &'static str,
    backlog: Backlog<K>,
    workers: usize,
    stop: CancellationToken,
    reconcile: impl Fn(K) -> Run,
) where
    K: Clone + Eq + Hash + Debug,
    E: Display,
    Run: Future<Output = Result<Next, E>>,
{
    let Backlog { requests, again } = backlog;
    let requests = futures::stream::unfold(requests, |mut requests| async move {
        requests.recv().await.map(|request| (request, requests))
    });
    let mut waiting = std::pin::pin!(scheduler(requests));
    let mut active = HashSet::new();
    let mut failures: HashMap<K, u32> = HashMap::new();
    let mut runs = FuturesUnordered::new();
    loop {
        let full = active.len() >= workers;
        let mut due = waiting.as_mut().hold_unless(|key| !full && !active.contains(key));
        tokio::select! {
            () = stop.cancelled() => return,
            Some((key, result)) = runs.next(), if !runs.is_empty() => {
                active.remove(&key);
                match result {
                    Ok(Ok(Next::Wait)) => {
                        failures.remove(&key);
                    }
                    Ok(Ok(Next::After(delay))) => {
                        failures.remove(&key);
                        again.add_after(key, delay);
                    }
                    Ok(Err(error)) => {
                        let failed = failures.entry(key.clone()).or_default();
                        let delay = retry_delay(*failed);
                        *failed = failed.saturating_add(1);
                        // One failure is often only someone else's write that came first.
                        if *failed == 1 {
                            tracing::debug!(controller = name, ?key, %error, "failed; will try again");
                        } else {
                            tracing::warn!(controller = name, ?key, %error, ?delay, "failed again; will try again");
                        }
                        again.add_after(key, delay);
                    }
                    Err(_) => {
                        tracing::warn!(controller = name, ?key, "took too long; will try again");
                        again.add_after(key, LAST_RETRY);
                    }
                }
            }
            Some(key) = due.next() => {
                active.insert(key.clone());
                runs.push(tokio::time::timeout(LONGEST_RUN, reconcile(key.clone())).map(move |result| (key, result)));
            }
        }
    }
}

/// The delay after `failures` earlier failures in a row.
fn retry_delay(failures: u32) -> Duration {
    FIRST_RETRY.saturating_mul(1 << failures.min(20)).min(LAST_RETRY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::rc::Rc;

    #[test]
    fn retries_slow_down_to_a_limit() {
        assert_eq!(retry_delay(0), FIRST_RETRY);
        assert_eq!(retry_delay(1), FIRST_RETRY * 2);
        assert_eq!(retry_delay(40), LAST_RETRY);
        assert!((0..60).all(|n| retry_delay(n) <= retry_delay(n + 1)));
    }

    /// Runs a queue in which `bad` always fails, for ten virtual seconds, and gives the keys in the order of their runs.
    async fn runs_of(workers: usize) -> Vec<&'static str> {
        let (queue, backlog) = queue();
        let seen = Rc::new(RefCell::new(Vec::new()));
        queue.add("bad");
        queue.add("good");
        queue.add("good");
        queue.add_after("again", Duration::from_secs(1));
        let stop = CancellationToken::new();
        let record = seen.clone();
        let run = work("test", backlog, workers, stop.clone(), move |key| {
            let record = record.clone();
            async move {
                record.borrow_mut().push(key);
                match key {
                    "bad" => Err("broken"),
                    "again" => Ok(Next::After(Duration::from_secs(4))),
                    _ => Ok(Next::Wait),
                }
            }
        });
        let end = async {
            tokio::time::sleep(Duration::from_secs(10)).await;
            stop.cancel();
        };
        tokio::join!(run, end);
        Rc::into_inner(seen).unwrap().into_inner()
    }

    #[tokio::test(start_paused = true)]
    async fn keys_are_merged_repeated_and_backed_off() {
        let runs = runs_of(1).await;
        let count = |key| runs.iter().filter(|run| **run == key).count();
        assert_eq!(count("good"), 1);
        assert_eq!(count("again"), 3, "after 1, 5 and 9 seconds");
        assert_eq!(count("bad"), 8, "after 0, 50, 150, 350, 750, 1550, 3150 and 6350 ms");
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_is_never_worked_on_twice_at_once_but_comes_again() {
        let (queue, backlog) = queue();
        let busy = Rc::new(RefCell::new((0, 0)));
        queue.add(1);
        let stop = CancellationToken::new();
        let state = busy.clone();
        let run = work("test", backlog, 4, stop.clone(), move |_| {
            let state = state.clone();
            async move {
                state.borrow_mut().0 += 1;
                assert_eq!(state.borrow().0, 1);
                tokio::time::sleep(Duration::from_secs(1)).await;
                let mut state = state.borrow_mut();
                state.0 -= 1;
                state.1 += 1;
                Ok::<_, String>(Next::Wait)
            }
        });
        let end = async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            queue.add(1);
            queue.add(1);
            tokio::time::sleep(Duration::from_secs(5)).await;
            stop.cancel();
        };
        tokio::join!(run, end);
        assert_eq!(busy.borrow().1, 2);
    }
}
