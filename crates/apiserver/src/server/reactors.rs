//! Threads that serve connections, each its own.
//!
//! tokio's multi-threaded runtime wakes another worker whenever a task becomes ready, to be able to share the work. That costs
//! more than most of our requests. Here a connection stays on one thread for its life, on a single-threaded runtime of its own,
//! and what happens on it wakes no other thread.
//!
//! The price: connections are distributed when they come and never moved, so one busy connection uses one core, and whatever
//! blocks on such a thread stalls all its connections. Long work goes elsewhere ([`super::connection::offload`],
//! [`crate::signing`], `spawn_blocking`).

use std::io;
use tokio::runtime::{Builder, Handle};
use tokio_util::sync::{CancellationToken, DropGuard};

/// As many threads as there are cores, each with a runtime of its own. They end when this is dropped, and tasks that are still
/// on them are cancelled: the listener drops it only after its grace period.
pub(super) struct Reactors {
    handles: Vec<Handle>,
    /// The index of the handle that was given out last.
    next: usize,
    /// Cancels `stop` of all threads when dropped.
    _stop: DropGuard,
}

impl Reactors {
    /// Starts them. If that is not possible, connections share the threads of the current runtime with all else.
    pub(super) fn start() -> Self {
        let stop = CancellationToken::new();
        let count = std::thread::available_parallelism().map_or(1, usize::from);
        let started: io::Result<Vec<_>> = (0..count).map(|_| reactor(stop.clone())).collect();
        let handles = started.unwrap_or_else(|error| {
            tracing::warn!(%error, "connections get no threads of their own");
            vec![Handle::current()]
        });
        Self { handles, next: 0, _stop: stop.drop_guard() }
    }

    /// The runtime for the next connection: round robin. Which one has least to do is not known, and connections live long
    /// enough for it to even out.
    pub(super) fn next(&mut self) -> &Handle {
        self.next = (self.next + 1) % self.handles.len();
        &self.handles[self.next]
    }
}

fn reactor(stop: CancellationToken) -> io::Result<Handle> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    std::thread::Builder::new().name("connections".into()).spawn(move || {
        // `block_on` also polls the tasks that other threads spawn on this runtime.
        runtime.block_on(stop.cancelled());
        // Without waiting for blocking tasks (compression): nobody is left to take their answers.
        runtime.shutdown_background();
    })?;
    Ok(handle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_takes_its_turn_and_all_end_with_their_owner() {
        let mut reactors = Reactors::start();
        let count = reactors.handles.len();
        let mut threads = Vec::new();
        for _ in 0..2 * count {
            threads.push(reactors.next().spawn(async { std::thread::current().id() }).await.unwrap());
        }
        assert_eq!(threads[..count], threads[count..]);
        threads.truncate(count);
        threads.sort_by_key(|id| format!("{id:?}"));
        threads.dedup();
        assert_eq!(threads.len(), count);
        let forever = reactors.next().spawn(std::future::pending::<()>());
        drop(reactors);
        assert!(forever.await.unwrap_err().is_cancelled());
    }
}
