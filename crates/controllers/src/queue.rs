//! The work queues of the controllers: how long each waits and runs, and what it logs. How a queue works is in
//! [`fleetpass_workqueue`].
//!
//! What waits is lost when the process ends: every controller rebuilds its work from the lists that start its watches.

pub(crate) use fleetpass_workqueue::{Backlog, Next, Queue};
use fleetpass_workqueue::{Backoff, Cause, Failure, Options};
use std::fmt::{Debug, Display};
use std::future::Future;
use std::hash::Hash;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long what failed waits before it is tried again, in queues and in sweeps.
pub(crate) const RETRY: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(300));
/// After this time a run counts as failed, so that a server that never answers cannot take all workers away.
const LONGEST_RUN: Duration = Duration::from_secs(120);

/// A new queue.
pub(crate) fn queue<K: Clone + Eq + Hash>() -> (Queue<K>, Backlog<K>) {
    fleetpass_workqueue::queue(RETRY)
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
    // No jitter, as in client-go: the workers bound how many keys that failed together come back together.
    let options = Options { longest_run: Some(LONGEST_RUN), ..Options::workers(workers) };
    let failed = |key: &K, failure: &Failure<E>| match &failure.cause {
        // One failure is often only someone else's write that came first.
        Cause::Error(error) if failure.failures == 1 => {
            tracing::debug!(controller = name, ?key, %error, "failed; will try again");
        }
        Cause::Error(error) => {
            let delay = failure.delay;
            tracing::warn!(controller = name, ?key, %error, ?delay, "failed again; will try again");
        }
        Cause::TookTooLong => {
            tracing::warn!(controller = name, ?key, "took too long; will try again");
        }
    };
    backlog.work(options, stop, reconcile, failed).await;
}
