//! A request's way from the thread of its connection to the pool for heavy work.
//!
//! Whether a request is heavy is found out on the way: by its verb, by the length of its body, by the size of the object that
//! it changes. So a handler begins where its connection is, and calls [`offload`] when it knows.

use super::limits;
use super::state::ServerState;
use crate::work::{Flow, Full, Pool, PoolLimits, Task, Ticket};
use fleetpass_apimachinery::status::Status;
use fleetpass_apimachinery::user::UserInfo;
use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::task::{Context, Poll};

/// A body or an object of more bytes is worked on in the pool. Below that, even decoding, defaulting, validating and encoding
/// take less than a millisecond, and waking another thread is not worth it.
pub(super) const HEAVY_BYTES: usize = 16 * 1024;

/// A body or an object of more bytes is worked on while no other such is: decoded, it may take a hundred times as much memory.
const LARGE_BYTES: usize = 256 * 1024;

/// Where requests that may keep a core busy are worked on.
pub(super) struct Pools {
    /// As many at once as there are cores.
    pub(super) heavy: Pool,
    /// Those with large bodies or objects, one after the other, so that they take the memory of one.
    pub(super) large: Pool,
}

impl Pools {
    pub(super) fn new() -> Self {
        // Each task may hold a body of 3 MiB, so the numbers bound memory as well.
        let heavy = PoolLimits { tasks: 1_024, tasks_of_flow: 64, threads: None, gives_way: true };
        let large = PoolLimits { threads: Some(NonZeroUsize::MIN), ..heavy };
        Self { heavy: Pool::new("heavy-work", heavy), large: Pool::new("large-work", large) }
    }
}

/// Moves the rest of a request of `user` to a pool for heavy work, unless it is in one already. `bytes` is the size of what will be
/// decoded, as far as it is known: of a body, or of an object.
///
/// # Errors
/// 429: the pool has enough to do for this user, or in all.
pub(super) async fn step_aside(state: &ServerState, user: &UserInfo, bytes: usize) -> Result<(), Status> {
    let flow = Flow::of(user);
    let pool = if bytes > LARGE_BYTES { &state.pools.large } else { &state.pools.heavy };
    offload(pool, flow).await.map_err(|Full| {
        state.metrics.refused(flow);
        limits::overloaded()
    })
}

thread_local! {
    /// Whether this thread is polling a [`Movable`] in place.
    ///
    /// A thread-local, because [`offload`] is called deep inside a handler and has to reach the [`Movable`] around it, and a
    /// future can be handed nothing from above but its waker. This and `LEAVING` are only ever set for the duration of one poll.
    static IN_PLACE: Cell<bool> = const { Cell::new(false) };
    /// What [`offload`] leaves for the [`Movable`]: a place in the pool that it is to go to.
    static LEAVING: Cell<Option<Ticket>> = const { Cell::new(None) };
}

/// Moves the rest of the request to a pool, unless it is there already.
///
/// # Errors
/// [`Full`]: the pool has enough to do for this flow. The request goes on where it is, and should be refused.
async fn offload(pool: &Pool, flow: Flow<'_>) -> Result<(), Full> {
    if !IN_PLACE.get() {
        return Ok(());
    }
    let mut ticket = Some(pool.admit(flow)?);
    poll_fn(|_| match ticket.take() {
        // `Pending` without registering the waker: `Movable::poll` sees the ticket and spawns the future, and a spawned task is
        // always polled at least once.
        Some(ticket) => {
            LEAVING.set(Some(ticket));
            Poll::Pending
        }
        None => Poll::Ready(()),
    })
    .await;
    Ok(())
}

/// A future that is polled where it is at first, and in a pool after [`offload`]. Dropping it ends it there too, at its next turn.
pub(super) enum Movable<F: Future> {
    InPlace(Pin<Box<F>>),
    Moved(Task<F::Output>),
    /// Neither: for a moment while it moves, and for good when the pool has ended with the server.
    Gone,
}

impl<F: Future> Movable<F> {
    pub(super) fn new(future: F) -> Self {
        Self::InPlace(Box::pin(future))
    }
}

impl<F> Future for Movable<F>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        if let Self::InPlace(future) = &mut *self {
            let (polled, ticket) = poll_in_place(future.as_mut(), cx);
            let Some(ticket) = ticket.filter(|_| polled.is_pending()) else { return polled };
            // The boxed future moves without being moved in memory: pinning holds.
            if let Self::InPlace(future) = std::mem::replace(&mut *self, Self::Gone) {
                *self = Self::Moved(ticket.spawn(future));
            }
        }
        let Self::Moved(task) = &mut *self else { return Poll::Pending };
        match Pin::new(task).poll(cx) {
            Poll::Ready(Some(output)) => Poll::Ready(output),
            // The pool has ended because the server stops. There will be no answer, and the connection ends too.
            Poll::Ready(None) => {
                *self = Self::Gone;
                Poll::Pending
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

/// Polls a future, and says whether it called [`offload`] meanwhile.
fn poll_in_place<F: Future>(future: Pin<&mut F>, cx: &mut Context<'_>) -> (Poll<F::Output>, Option<Ticket>) {
    /// Resets the thread-locals on unwinding too: otherwise the next, unrelated future that this thread polls would be
    /// taken for one that can move. To what they were before, since a request may ask the server itself something in process.
    struct Reset(bool);
    impl Drop for Reset {
        fn drop(&mut self) {
            IN_PLACE.set(self.0);
            LEAVING.take();
        }
    }
    let _reset = Reset(IN_PLACE.replace(true));
    let polled = future.poll(cx);
    (polled, LEAVING.take())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn pool(tasks_of_flow: usize) -> Arc<Pool> {
        Arc::new(Pool::new("test", PoolLimits { tasks: 100, tasks_of_flow, threads: None, gives_way: false }))
    }

    async fn go_aside(pool: &Pool) -> Result<(), Full> {
        offload(pool, Flow::of(&UserInfo { name: "alice".into(), ..UserInfo::default() })).await
    }

    fn thread() -> std::thread::ThreadId {
        std::thread::current().id()
    }

    #[tokio::test]
    async fn what_steps_aside_goes_on_in_the_pool() {
        let pool = pool(10);
        let (before, after, still) = Movable::new({
            let pool = pool.clone();
            async move {
                let before = thread();
                go_aside(&pool).await.unwrap();
                let after = thread();
                // Once more changes nothing, and takes no second place.
                go_aside(&pool).await.unwrap();
                (before, after, pool.loads().iter().map(|load| load.running).sum::<usize>())
            }
        })
        .await;
        assert_eq!(before, thread());
        assert_ne!(after, before);
        assert_eq!(still, 1);
    }

    #[tokio::test]
    async fn aside_of_nothing_movable_there_is_nothing_to_do() {
        let pool = pool(0);
        assert_eq!(go_aside(&pool).await, Ok(()));
        // Nor after a movable future was polled on this thread, even if it panicked.
        let panics = Movable::new(async { panic!("on purpose") });
        let caught = futures::FutureExt::catch_unwind(std::panic::AssertUnwindSafe(panics)).await;
        assert!(caught.is_err());
        assert_eq!(go_aside(&pool).await, Ok(()));
    }

    #[tokio::test]
    async fn a_full_pool_is_no_place_to_go() {
        let pool = pool(0);
        let moved = Movable::new(async move { (go_aside(&pool).await, thread()) }).await;
        assert_eq!(moved, (Err(Full), thread()));
    }

    #[tokio::test]
    async fn dropped_here_it_ends_there() {
        let pool = pool(10);
        let (dropped, seen) = tokio::sync::oneshot::channel::<()>();
        let mut moved = Box::pin(Movable::new({
            let pool = pool.clone();
            async move {
                let _held = dropped;
                go_aside(&pool).await.unwrap();
                std::future::pending::<()>().await;
            }
        }));
        assert!(futures::poll!(&mut moved).is_pending());
        drop(moved);
        assert!(seen.await.is_err());
    }

    #[tokio::test]
    async fn a_panic_there_is_a_panic_here() {
        let pool = pool(10);
        let moved = Movable::new(async move {
            go_aside(&pool).await.unwrap();
            panic!("on purpose")
        });
        let caught = futures::FutureExt::catch_unwind(std::panic::AssertUnwindSafe(moved)).await;
        assert!(caught.is_err());
    }
}
