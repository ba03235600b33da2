//! Work that is carried to its end although nobody waits for it any more.
//!
//! A request's future is dropped at its deadline and when its client goes away. A deletion of a whole collection should not
//! stay half done for that: a client that asks again would be told of a timeout again. So it goes on, but only one piece of
//! work of each user does at a time; of a user who leaves more behind, the rest ends where it is. (kube-apiserver's handlers
//! go on behind the answer too: `endpoints/handlers/finisher/finisher.go`.)

use crate::work::{Flow, Full, Pool, Task};
use fleetpass_apimachinery::user::UserInfo;
use parking_lot::Mutex;
use std::collections::HashSet;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span};

/// The users of whom a piece of work goes on. The lock is held for one operation of the set.
#[derive(Clone, Default)]
pub(super) struct Outliving(Arc<Mutex<HashSet<Box<str>>>>);

/// The place of a user who has none other; free again when it is dropped.
struct Place {
    users: Outliving,
    user: Box<str>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.users.0.lock().remove(&self.user);
    }
}

/// Waits for a task, and lets it go on when it is dropped.
struct Waiting<T>(Option<Task<T>>);

impl<T> Drop for Waiting<T> {
    fn drop(&mut self) {
        if let Some(task) = self.0.take() {
            task.detach();
        }
    }
}

impl Outliving {
    /// The result of `work`, which is done in the pool, in the flow of `user`. If the future that this returns is dropped before,
    /// `work` goes on until it is done or the server stops, unless work of the same user goes on already: then it is dropped
    /// where it waits for something.
    ///
    /// # Errors
    /// [`Full`]: the pool has enough to do for this user, or in all.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        pool: &Pool,
        user: &UserInfo,
        stop: &CancellationToken,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Full> {
        let left = CancellationToken::new();
        let _told = left.clone().drop_guard();
        let (users, name, stop) = (self.clone(), Box::<str>::from(user.name.as_str()), stop.clone());
        let task = async move {
            let mut work = pin!(work);
            tokio::select! {
                // In this order: what is done is done, even if the client left meanwhile.
                biased;
                result = &mut work => return Some(result),
                () = left.cancelled() => {}
            }
            let Some(_place) = users.enter(name) else {
                tracing::debug!("the client is gone; the work ends, because other work of the user goes on");
                return None;
            };
            tokio::select! {
                biased;
                result = work => Some(result),
                () = stop.cancelled() => None,
            }
        };
        let task = pool.admit(Flow::of(user))?.spawn(task.instrument(Span::current()));
        let mut waiting = Waiting(Some(task));
        let result = match &mut waiting.0 {
            // A panic of the work comes out here, where those of the request are caught.
            Some(task) => task.await,
            None => None,
        };
        match result {
            Some(Some(result)) => Ok(result),
            // The work ended without a result because this future was dropped, so nobody comes here; or the pool has ended because
            // the server stops, and there will be no answer.
            Some(None) | None => std::future::pending().await,
        }
    }

    fn enter(self, user: Box<str>) -> Option<Place> {
        if !self.0.lock().insert(user.clone()) {
            return None;
        }
        Some(Place { users: self, user })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::PoolLimits;
    use futures::FutureExt as _;
    use tokio::sync::oneshot;

    /// Work that waits for a sign, and tells that it is done; the other end hears when it is dropped, too.
    fn work() -> (impl Future<Output = ()> + Send + 'static, oneshot::Sender<()>, oneshot::Receiver<()>) {
        let (go, gone) = oneshot::channel();
        let (done, is_done) = oneshot::channel();
        let work = async move {
            let _ = gone.await;
            let _ = done.send(());
        };
        (work, go, is_done)
    }

    struct World {
        outliving: Outliving,
        pool: Pool,
        stop: CancellationToken,
    }

    fn world() -> World {
        let limits = PoolLimits { tasks: 10, tasks_of_flow: 10, threads: None, gives_way: false };
        World {
            outliving: Outliving::default(),
            pool: Pool::new("test", limits),
            stop: CancellationToken::new(),
        }
    }

    impl World {
        /// Begins work for `user` and leaves it.
        async fn abandon(&self, user: &str) -> (oneshot::Sender<()>, oneshot::Receiver<()>) {
            let (work, go, is_done) = work();
            let user = user_named(user);
            let mut run = Box::pin(self.outliving.run(&self.pool, &user, &self.stop, work));
            assert!(futures::poll!(&mut run).is_pending());
            (go, is_done)
        }

        /// Waits until work of so many users goes on.
        async fn going_on(&self, users: usize) {
            while self.outliving.0.lock().len() != users {
                tokio::task::yield_now().await;
            }
        }
    }

    fn user_named(name: &str) -> UserInfo {
        UserInfo { name: name.into(), ..UserInfo::default() }
    }

    #[tokio::test]
    async fn abandoned_work_is_carried_to_its_end() {
        let world = world();
        let (work, go, is_done) = work();
        go.send(()).unwrap();
        world.outliving.run(&world.pool, &user_named("ann"), &world.stop, work).await.unwrap();
        assert_eq!(is_done.await, Ok(()));
        let (go, is_done) = world.abandon("ann").await;
        go.send(()).unwrap();
        assert_eq!(is_done.await, Ok(()));
    }

    #[tokio::test]
    async fn one_piece_of_work_of_each_user_goes_on() {
        let world = world();
        let (go, is_done) = world.abandon("ann").await;
        world.going_on(1).await;
        let (_go, second) = world.abandon("ann").await;
        assert!(second.await.is_err(), "dropped");
        let (other, others) = world.abandon("bob").await;
        world.going_on(2).await;
        other.send(()).unwrap();
        assert_eq!(others.await, Ok(()));
        go.send(()).unwrap();
        assert_eq!(is_done.await, Ok(()));
        // The place is free again.
        world.going_on(0).await;
        let (go, is_done) = world.abandon("ann").await;
        go.send(()).unwrap();
        assert_eq!(is_done.await, Ok(()));
    }

    #[tokio::test]
    async fn a_server_that_stops_does_not_wait_for_it() {
        let world = world();
        let (_go, is_done) = world.abandon("ann").await;
        world.stop.cancel();
        assert!(is_done.await.is_err());
    }

    #[tokio::test]
    async fn a_panic_is_that_of_the_request() {
        let world = world();
        let user = user_named("ann");
        let run = world.outliving.run(&world.pool, &user, &world.stop, async { panic!("on purpose") });
        assert!(std::panic::AssertUnwindSafe(run).catch_unwind().await.is_err());
        world.going_on(0).await;
    }
}
