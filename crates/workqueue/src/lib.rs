//! A work queue for controllers: work by key, one run per key at a time, retries that back off.
//!
//! A controller learns that *something* happened to an object and then brings that object up to date, whatever it was
//! that happened. So what it queues is not the event but the object's name, and ten events are one piece of work. This
//! is the queue for that, with the guarantees of client-go's `util/workqueue` on which controllers rely.
//!
//! # The way of a key
//!
//! ```text
//!  add_after ──► delayed ──(its time comes)──► ready ──(a worker is free)──► running ──┬─► Next::Wait: forgotten
//!                   ▲                          ▲   ▲                                   │
//!                   │      add ────────────────┘   └── it was added while it ran ──────┤
//!                   └── Next::After(delay), or an error: backoff ──────────────────────┘
//! ```
//!
//! - [`State`] is this picture as a state machine: no I/O, no clock, no randomness. Times and jitter are passed in.
//! - [`queue()`] gives the two ends of a queue that runs: a [`Queue`], with which anyone adds keys, and a [`Backlog`],
//!   whose [`work`](Backlog::work) calls the reconciler, with tokio's clock.
//!
//! # Example
//!
//! ```
//! use fleetpass_workqueue::{Backoff, Next, Options, queue};
//! use std::{cell::RefCell, time::Duration};
//! use tokio_util::sync::CancellationToken;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! let (queue, backlog) = queue(Backoff::new(Duration::from_millis(50), Duration::from_secs(300)));
//! queue.add("flaky");
//! queue.add("flaky"); // merged with the first
//! queue.add_after("last", Duration::from_secs(1));
//!
//! let stop = CancellationToken::new();
//! let runs = RefCell::new(Vec::new());
//! let reconcile = |key| {
//!     let first = !runs.borrow().contains(&key);
//!     runs.borrow_mut().push(key);
//!     let stop = stop.clone();
//!     async move {
//!         match key {
//!             "flaky" if first => Err("not yet"), // comes again after 50 ms
//!             "last" => Ok(stop.cancel()),
//!             _ => Ok(()),
//!         }
//!         .map(|()| Next::Wait)
//!     }
//! };
//! backlog
//!     .work(Options::workers(2), stop.clone(), reconcile, |key, failure| {
//!         println!("{key} failed {} times, again in {:?}", failure.failures, failure.delay);
//!     })
//!     .await;
//! assert_eq!(*runs.borrow(), ["flaky", "flaky", "last"]);
//! # }
//! ```
//!
//! # Guarantees
//!
//! - **No addition is lost.** After every addition a run of that key begins, unless the queue is stopped first. A key
//!   that is added while it runs comes again afterwards, because that run may have looked before the change.
//! - **Additions are merged.** A key waits once, however often it is added, and takes the memory of one. Of several
//!   times at which it is to run the earliest counts, and the others are dropped.
//! - **One run per key at a time**, and never more than [`Options::workers`] in all.
//! - **Fair.** Keys that are ready run in the order in which they became ready. A key that is added without end runs
//!   at most once before each other key that waits.
//! - **Failures delay only their own key.** The delay doubles from [`Backoff::first`] to [`Backoff::last`], less what
//!   jitter takes off, and the first success forgets it. [`Queue::hurry`] retries all failed keys now: for when what
//!   they failed of is known to be over.
//! - **It stops when told.** After the cancellation no run begins; those under way have [`Options::grace`] to end.
//!
//! # Caveats
//!
//! - What waits is lost when the process ends. A controller has to rebuild it from the lists that begin its watches.
//! - A run that is dropped, because it took longer than [`Options::longest_run`] or because the grace is over, ends at
//!   any `await`. Reconcilers have to be repeatable anyway.
//! - An addition overtakes the backoff: a failed key that is added runs now. A reconciler whose own writes come back as
//!   additions has to tell them from news before it adds, or it never backs off (the agent does so).
//! - All runs are polled by the task that awaits [`Backlog::work`], and a panic in one passes through it. A reconciler
//!   that wants threads, or to survive a panic, spawns a task and awaits that.
//!
//! # What it deliberately does not do
//!
//! - No limit on the rate of all keys together, as client-go's `BucketRateLimiter` sets: workers bound the load, and
//!   the server has its own flow control.
//! - No priorities, and no way to take back an addition: a run that finds nothing to do is cheap.
//! - No objects. Keys are names; whoever needs the object reads it, or looks it up in a store, when the run begins.
//! - No log and no metrics: failures are handed to the caller, who knows what they are called.

mod backoff;
mod state;
mod work;

pub use backoff::Backoff;
pub use state::{Retry, State};
pub use work::{Backlog, Cause, Failure, Next, Options, Queue, queue};
