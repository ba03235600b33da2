//! Threads that work for flows in turn.

use super::flow::{Flow, FlowId};
use super::queue::{FairQueue, FlowLoad, Full};
use async_task::{FallibleTask, Runnable};
use parking_lot::{Condvar, Mutex};
use std::future::Future;
use std::num::NonZeroUsize;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::time::Instant;

/// The answer to come of a task; gives `None` if the pool has ended. Dropping it cancels the task: its future is dropped at its
/// next turn, or when the poll under way is over.
pub(crate) type Task<T> = FallibleTask<T>;

/// How much a pool lets in, and how its threads stand to others.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PoolLimits {
    /// Tasks in all.
    pub(crate) tasks: usize,
    /// Tasks of one flow.
    pub(crate) tasks_of_flow: usize,
    /// How many threads; `None`: as many as there are cores.
    pub(crate) threads: Option<NonZeroUsize>,
    /// Whether the threads give way to those of connections when all cores are busy.
    pub(crate) gives_way: bool,
}

/// Threads that poll tasks of flows in turn. They start with the first task and end when this
/// is dropped; what waits then is dropped.
pub(crate) struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    name: &'static str,
    limits: PoolLimits,
    /// Whose timers and the like tasks use. That of the server, not of the thread that happens to bring the first task, which
    /// may be a connection's.
    runtime: Option<Handle>,
    /// Held for moments only, never while a task is polled or dropped: dropping a task leaves the queue, which takes the lock.
    state: Mutex<State>,
    /// Notified for each item that is pushed, and when the pool closes.
    pushed: Condvar,
}

struct State {
    queue: FairQueue<Runnable>,
    started: bool,
    closed: bool,
}

/// A task could not be finished: the pool has ended, or the task panicked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the work was not finished: it panicked, or the server stops")]
pub(crate) struct Failed;

impl Pool {
    /// A pool whose threads are called `name`. Its tasks may use what the runtime has on which this is called.
    pub(crate) fn new(name: &'static str, limits: PoolLimits) -> Self {
        let queue = FairQueue::new(limits.tasks, limits.tasks_of_flow);
        let state = Mutex::new(State { queue, started: false, closed: false });
        let runtime = Handle::try_current().ok();
        Self { shared: Arc::new(Shared { name, limits, runtime, state, pushed: Condvar::new() }) }
    }

    /// A place for one task of a flow.
    ///
    /// # Errors
    /// [`Full`]: the flow, or the pool, has enough to do.
    pub(crate) fn admit(&self, flow: Flow<'_>) -> Result<Ticket, Full> {
        let mut state = self.shared.state.lock();
        state.queue.admit(flow)?;
        if !std::mem::replace(&mut state.started, true) {
            self.shared.start();
        }
        Ok(Ticket { shared: self.shared.clone(), flow: flow.id })
    }

    /// Does a job when its flow's turn comes. If this future is dropped before, the job is skipped: work for clients that have
    /// gone must not delay others.
    ///
    /// # Errors
    /// [`Failed`], also where the pool is full; a caller for whom that matters asks [`Pool::admit`].
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        flow: Flow<'_>,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Failed> {
        let ticket = self.admit(flow).map_err(|Full| Failed)?;
        let done = ticket.spawn(async move { std::panic::catch_unwind(AssertUnwindSafe(job)) });
        done.await.ok_or(Failed)?.map_err(|_| Failed)
    }

    /// What each flow has to do here now.
    pub(crate) fn loads(&self) -> Vec<FlowLoad> {
        self.shared.state.lock().queue.loads()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let waiting = {
            let mut state = self.shared.state.lock();
            state.closed = true;
            state.queue.drain()
        };
        self.shared.pushed.notify_all();
        // Outside the lock: it drops their futures, which leave the queue.
        drop(waiting);
    }
}

impl Shared {
    /// Starts the threads.
    fn start(self: &Arc<Self>) {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let count = self.limits.threads.map_or_else(cores, NonZeroUsize::get);
        for _ in 0..count {
            let shared = self.clone();
            let started = std::thread::Builder::new().name(self.name.into()).spawn(move || {
                let _entered = shared.runtime.as_ref().map(Handle::enter);
                if shared.limits.gives_way {
                    give_way();
                }
                shared.work();
            });
            if let Err(error) = started {
                tracing::error!(%error, name = self.name, "a thread for heavy work cannot be started");
            }
        }
    }

    fn push(&self, flow: FlowId, item: Runnable) {
        let mut state = self.state.lock();
        if state.closed {
            // Dropped after the lock is released.
            drop(state);
            return drop(item);
        }
        state.queue.push(flow, item);
        drop(state);
        self.pushed.notify_one();
    }

    /// Polls what is next until the pool is closed.
    fn work(&self) {
        let mut state = self.state.lock();
        while !state.closed {
            let Some((flow, item)) = state.queue.pop() else {
                self.pushed.wait(&mut state);
                continue;
            };
            drop(state);
            let began = Instant::now();
            // A future that panics is dropped, and whoever waits for it is given the panic (`propagate_panic`).
            item.run();
            let took = began.elapsed();
            state = self.state.lock();
            state.queue.charge(flow, took);
        }
    }
}

/// Lowers the priority of the calling thread, so that threads of connections, which have little to do for each request, get a
/// core at once. Not to the lowest: tasks take locks, and must get on.
#[cfg(target_os = "linux")]
fn give_way() {
    // On Linux, and only there, a priority belongs to a thread.
    if let Err(error) = rustix::process::setpriority_process(Some(rustix::thread::gettid()), 5) {
        tracing::debug!(%error, "the priority of a thread cannot be lowered");
    }
}

#[cfg(not(target_os = "linux"))]
fn give_way() {}

/// A place in a pool, for one task of a flow; given back when the task has ended, or when this is dropped.
pub(crate) struct Ticket {
    shared: Arc<Shared>,
    flow: FlowId,
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ticket").field("flow", &self.flow).finish_non_exhaustive()
    }
}

impl Ticket {
    /// Lets the pool go on with a future. It begins even if nobody polls the task that this gives.
    pub(crate) fn spawn<F>(self, future: F) -> Task<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let (shared, flow) = (self.shared.clone(), self.flow);
        let (item, task) = async_task::Builder::new().propagate_panic(true).spawn(
            move |()| async move {
                let _ticket = self;
                future.await
            },
            move |item| shared.push(flow, item),
        );
        item.schedule();
        task.fallible()
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.shared.state.lock().queue.leave(self.flow);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleetpass_apimachinery::user::UserInfo;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc;

    fn user(name: &str) -> UserInfo {
        UserInfo { name: name.into(), ..UserInfo::default() }
    }

    fn pool(tasks_of_flow: usize) -> Pool {
        Pool::new("test", PoolLimits { tasks: 1_000, tasks_of_flow, threads: None, gives_way: true })
    }

    /// Keeps all threads of a pool busy until the sender is dropped.
    fn occupy(pool: &Pool) -> (mpsc::Sender<()>, Vec<Task<()>>) {
        let (release, held) = mpsc::channel::<()>();
        let held = Arc::new(Mutex::new(held));
        let count = std::thread::available_parallelism().map_or(1, usize::from);
        let (busy, is_busy) = mpsc::channel();
        let tasks = (0..count).map(|_| {
            let (held, busy) = (held.clone(), busy.clone());
            pool.admit(Flow::of(&user("occupier"))).unwrap().spawn(async move {
                busy.send(()).unwrap();
                // Fails when the sender is dropped, for one after the other.
                let _ = held.lock().recv();
            })
        });
        let tasks = tasks.collect();
        (0..count).for_each(|_| is_busy.recv().unwrap());
        (release, tasks)
    }

    #[tokio::test]
    async fn jobs_are_done_whatever_others_do() {
        let (pool, alice) = (pool(1_000), user("alice"));
        let flow = Flow::of(&alice);
        assert_eq!(pool.run(flow, || 1).await, Ok(1));
        let panics = pool.run(flow, || -> u8 { panic!("on purpose") });
        assert_eq!(panics.await, Err(Failed));
        let many = futures::future::join_all((0..500).map(|number| pool.run(flow, move || number))).await;
        assert_eq!(many, (0..500).map(Ok).collect::<Vec<_>>());
        assert_eq!(pool.loads(), []);
    }

    #[tokio::test]
    async fn what_nobody_waits_for_is_not_done() {
        let (pool, alice) = (pool(1_000), user("alice"));
        let (release, busy) = occupy(&pool);
        let done = Arc::new(AtomicBool::new(false));
        let mark = done.clone();
        let mut given_up = Box::pin(pool.run(Flow::of(&alice), move || mark.store(true, Ordering::SeqCst)));
        // It is in the queue once it was polled.
        assert!(futures::poll!(&mut given_up).is_pending());
        drop(given_up);
        drop(release);
        futures::future::join_all(busy).await;
        assert_eq!(pool.run(Flow::of(&alice), || ()).await, Ok(()));
        assert!(!done.load(Ordering::SeqCst));
    }

    #[tokio::test]
    async fn flows_take_turns() {
        let pool = pool(1_000);
        let (release, busy) = occupy(&pool);
        let order = Arc::new(Mutex::new(Vec::new()));
        let task = |name: &'static str| {
            let order = order.clone();
            pool.admit(Flow::of(&user(name))).unwrap().spawn(async move { order.lock().push(name) })
        };
        let mut tasks: Vec<_> = (0..100).map(|_| task("flood")).collect();
        tasks.push(task("modest"));
        let loads = pool.loads();
        let flood = loads.iter().find(|load| &*load.name == "flood").unwrap();
        assert_eq!((flood.queued, flood.running), (100, 0));
        drop(release);
        futures::future::join_all(busy.into_iter().chain(tasks)).await;
        let place = order.lock().iter().position(|name| *name == "modest").unwrap();
        // Virtual time is counted in microseconds, and threads finish in any order: near the front is what matters.
        assert!(place < 50, "it came as number {place}");
    }

    #[tokio::test]
    async fn a_place_is_given_back_however_a_task_ends() {
        let (pool, alice) = (pool(1), user("alice"));
        let flow = Flow::of(&alice);
        assert_eq!(pool.run(flow, || ()).await, Ok(()));
        let held = pool.admit(flow).unwrap();
        assert_eq!(pool.admit(flow).unwrap_err(), Full);
        // Waits for ever, until it is cancelled.
        let task = held.spawn(std::future::pending::<()>());
        assert!(pool.admit(Flow::of(&user("bob"))).is_ok());
        assert_eq!(task.cancel().await, None);
        assert!(pool.admit(flow).is_ok());
    }

    #[tokio::test]
    async fn a_panic_reaches_who_waits() {
        let pool = pool(10);
        let task = pool.admit(Flow::of(&user("alice"))).unwrap().spawn(async { panic!("on purpose") });
        let caught = futures::FutureExt::catch_unwind(AssertUnwindSafe(task)).await;
        assert!(caught.is_err());
        assert_eq!(pool.run(Flow::of(&user("alice")), || 1).await, Ok(1));
    }

    #[tokio::test]
    async fn timers_of_the_runtime_work_in_tasks() {
        let pool = pool(10);
        let ticket = pool.admit(Flow::of(&user("alice"))).unwrap();
        let task = ticket.spawn(async {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            tokio::task::yield_now().await;
            1
        });
        assert_eq!(task.await, Some(1));
    }

    #[tokio::test]
    async fn a_pool_that_ends_answers_nobody_and_blocks_nobody() {
        let pool = pool(10);
        let (release, busy) = occupy(&pool);
        let waits = pool.admit(Flow::of(&user("alice"))).unwrap().spawn(async { 1 });
        drop(pool);
        assert_eq!(waits.await, None);
        drop((release, busy));
    }
}
