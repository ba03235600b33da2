//! Running a reconciler over all objects of one kind.

use futures::StreamExt as _;
use kube::{
    Api, Resource,
    runtime::{
        WatchStreamExt as _, applier,
        controller::{Action, Config, trigger_self},
        reflector, watcher,
    },
};
use serde::de::DeserializeOwned;
use std::{fmt::Debug, future::Future, sync::Arc};
use tokio_util::sync::CancellationToken;

/// Has `reconcile` look at each object when it changes and when its [`Action`] says so; after an error, when
/// `after_error` says so. Runs until shut down, without waiting for what is due later.
///
/// It is kube's controller, except that it keeps no labels, annotations and managed fields: of a whole fleet, they would
/// be most of the memory.
pub(crate) async fn control<K, C, F>(
    api: Api<K>,
    select: watcher::Config,
    reconcile: impl Fn(Arc<K>, Arc<C>) -> F,
    after_error: impl Fn(Arc<K>, &kube::Error, Arc<C>) -> Action,
    context: C,
    shutdown: CancellationToken,
) where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    F: Future<Output = Result<Action, kube::Error>> + Send + 'static,
    C: 'static,
{
    let (kept, writer) = reflector::store();
    let objects = watcher(api, select).default_backoff().modify(|object| {
        let metadata = object.meta_mut();
        (metadata.labels, metadata.annotations, metadata.managed_fields) = (None, None, None);
    });
    let changed = trigger_self(reflector(writer, objects).applied_objects(), ());
    let reconcile = move |object, context| Box::pin(reconcile(object, context));
    applier(reconcile, after_error, Arc::new(context), kept, changed, Config::default())
        // Not the controller's own way to end: that waits for what is queued for later, which may be hours away.
        .take_until(shutdown.cancelled_owned())
        .for_each(|_| std::future::ready(()))
        .await;
}
