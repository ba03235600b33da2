//! Running a reconciler over all objects of one kind.

use fleetpass_workqueue::{Backoff, Cause, Failure, Next, Options, queue};
use futures::{FutureExt as _, StreamExt as _};
use kube::{
    Api, Resource,
    runtime::{WatchStreamExt as _, reflector, reflector::ObjectRef, watcher},
};
use serde::de::DeserializeOwned;
use std::{fmt::Debug, future::Future, pin::pin, sync::Arc, time::Duration};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Has `reconcile` look at each object when it is seen first, when it changes, and when its [`Next`] says so; after an
/// error, which `failed` is told, after `retry`; and at all of them when `again` is notified. Runs until shut down, without waiting for what is due later. All
/// objects that are due run at once.
///
/// The watch fills a store, and a change puts a reference to the object into a work queue; what runs is given the
/// object as the store has it then, which may be newer than the change, and older than the server's. Labels,
/// annotations and managed fields are not kept: of a whole fleet, they would be most of the memory.
pub(crate) async fn control<K, F>(
    api: Api<K>,
    select: watcher::Config,
    retry: Duration,
    reconcile: impl Fn(Arc<K>) -> F,
    failed: impl Fn(&ObjectRef<K>, &kube::Error),
    again: &Notify,
    shutdown: CancellationToken,
) where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    F: Future<Output = Result<Next, kube::Error>>,
{
    let (kept, writer) = reflector::store();
    let (queue, backlog) = queue(Backoff::constant(retry));
    // Before the store sees it: `modify` comes first in the chain.
    let events = watcher(api, select).default_backoff().modify(|object| {
        let metadata = object.meta_mut();
        (metadata.labels, metadata.annotations, metadata.managed_fields) = (None, None, None);
    });
    let watch = async {
        let mut events = pin!(events.reflect(writer));
        let mut told = false;
        loop {
            // Both may be dropped where they are: a stream keeps its state, and a notification that nobody waits for is kept.
            let event = tokio::select! {
                event = events.next() => event,
                () = again.notified() => {
                    kept.state().iter().for_each(|object| queue.add(key(&**object)));
                    continue;
                }
            };
            let Some(event) = event else { return };
            match event {
                Ok(watcher::Event::Apply(object)) => queue.add(key(&object)),
                // The store takes over a list only when it is complete.
                Ok(watcher::Event::InitDone) => {
                    kept.state().iter().for_each(|object| queue.add(key(&**object)))
                }
                Ok(watcher::Event::Init | watcher::Event::InitApply(_) | watcher::Event::Delete(_)) => {}
                // A right that is missing does not come by itself, and without it nothing happens here. Said once.
                Err(error) if is_refusal(&error) && !std::mem::replace(&mut told, true) => {
                    tracing::warn!(kind = %K::kind(&()), %error, "may not be watched; trying again");
                }
                Err(error) => tracing::debug!(kind = %K::kind(&()), %error, "watch interrupted"),
            }
        }
    };
    let reconcile = |key: Arc<ObjectRef<K>>| match kept.get(&key) {
        Some(object) => reconcile(object).left_future(),
        // It was deleted while it waited.
        None => std::future::ready(Ok(Next::Wait)).right_future(),
    };
    let failed = |key: &Arc<ObjectRef<K>>, failure: &Failure<kube::Error>| {
        if let Cause::Error(error) = &failure.cause {
            failed(key, error);
        }
    };
    // What is due at once is few, and a deletion is one request: a limit would only make one slow object wait for
    // another.
    let work = backlog.work(Options::workers(usize::MAX), shutdown, reconcile, failed);
    // Both are dropped where they are. A reconcile is repeatable, and the next start begins with a list.
    tokio::select! {
        () = watch => {}
        _ = work => {}
    }
}

fn is_refusal(error: &watcher::Error) -> bool {
    let refused = |status: &kube::core::Status| status.code == 403;
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => refused(status),
        watcher::Error::WatchError(status) => refused(status),
        _ => false,
    }
}

/// What the queue holds of an object. Shared, because the queue needs it at several places at once; without the UID and
/// the version of the object, which would differ from one change to the next.
fn key<K: Resource<DynamicType = ()>>(object: &K) -> Arc<ObjectRef<K>> {
    let mut key = ObjectRef::from_obj(object);
    key.extra = Default::default();
    Arc::new(key)
}

#[cfg(test)]
mod tests;
