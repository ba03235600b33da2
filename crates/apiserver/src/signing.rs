//! Threads that make slow signatures.
//!
//! An RSA signature keeps a core busy for up to a millisecond, which would stall all connections of the thread that makes it.
//! As many threads as there are cores take waiting signatures from one queue. Under load they never sleep, so nothing is spent
//! on waking them, and other requests stay quick, because the operating system shares the cores between these threads and those
//! of connections. (`spawn_blocking` would start hundreds of threads under the same load.)

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use tokio::sync::oneshot;

type Job = Box<dyn FnOnce() + Send>;

/// The threads; they start with the first job and end when this is dropped.
#[derive(Default)]
pub(crate) struct SigningThreads {
    /// Set with the first job: a server whose keys are elliptic curves needs no threads.
    queue: OnceLock<Sender<Job>>,
}

/// A thread could not be started, or the job panicked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signing thread failed")]
pub(crate) struct Failed;

impl SigningThreads {
    /// Runs a job on one of the threads. If this future is dropped before the job's turn comes, the job is skipped: signatures
    /// for clients that have gone must not delay those of others.
    ///
    /// # Errors
    /// [`Failed`].
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Failed> {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move || {
            if !reply.is_closed() {
                // An error means that the caller went away meanwhile.
                let _ = reply.send(job());
            }
        });
        self.queue.get_or_init(start).send(job).map_err(|_| Failed)?;
        answer.await.map_err(|_| Failed)
    }
}

fn start() -> Sender<Job> {
    let (queue, jobs) = channel();
    let jobs = Arc::new(Mutex::new(jobs));
    for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
        let jobs = jobs.clone();
        let started = std::thread::Builder::new().name("signing".into()).spawn(move || work(&jobs));
        if let Err(error) = started {
            tracing::error!(%error, "a thread for signatures cannot be started");
        }
    }
    queue
}

fn work(jobs: &Mutex<Receiver<Job>>) {
    loop {
        // std's receiver has one consumer, so the lock is held while waiting for a job: one thread waits for the queue, the
        // others wait for the lock. It is free again before the job runs.
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        // A job that panics drops its reply, which its caller sees as `Failed`; the thread goes on.
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn jobs_are_done_whatever_others_do() {
        let threads = SigningThreads::default();
        assert_eq!(threads.run(|| 1).await, Ok(1));
        let panics = threads.run(|| -> u8 { panic!("on purpose") });
        assert_eq!(panics.await, Err(Failed));
        let many = futures::future::join_all((0..500).map(|number| threads.run(move || number))).await;
        assert_eq!(many, (0..500).map(Ok).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn what_nobody_waits_for_is_not_done() {
        let threads = SigningThreads::default();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let (release, held) = std::sync::mpsc::channel::<()>();
        let held = Arc::new(Mutex::new(held));
        let busy = (0..cores).map(|_| {
            let held = held.clone();
            threads.run(move || held.lock().map(|held| held.recv()).is_ok())
        });
        let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let mark = done.clone();
        let mut given_up =
            Box::pin(threads.run(move || mark.store(true, std::sync::atomic::Ordering::SeqCst)));
        let mut busy = Box::pin(futures::future::join_all(busy));
        // Both are in the queue once they were polled.
        assert!(futures::poll!(&mut busy).is_pending() && futures::poll!(&mut given_up).is_pending());
        drop(given_up);
        (0..cores).for_each(|_| release.send(()).expect("the threads wait"));
        busy.await;
        assert_eq!(threads.run(|| ()).await, Ok(()));
        assert!(!done.load(std::sync::atomic::Ordering::SeqCst));
    }
}
