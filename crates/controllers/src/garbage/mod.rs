//! Garbage collection by `metadata.ownerReferences`: objects go when their last owner is gone.
//!
//! # Flow
//! The metadata of every object passes through the [`graph`], which tells what should be looked at; for that the server
//! is asked again, and [`rules`] say what is to be done. Background deletion is what happens to the dependents of an
//! object that is gone; with the finalizer `foregroundDeletion` an object waits for those dependents that block it;
//! with `orphan` its dependents forget it first. (The behaviour of `pkg/controller/garbagecollector` in Kubernetes.)
//!
//! # Guarantees
//! - Nothing is deleted because of what a watch said or did not say: the object and each of its owners are read first,
//!   and the deletion has the object's UID and resource version as preconditions.
//! - An owner of a kind that the server does not know is never taken for gone.
//! - Nothing is decided before all resources were listed once, or [`FIRST_LISTS`] have passed.
//! - Dependents are orphaned as the graph knows them, once it knows all resources: that costs what they are, not what the server
//!   has. A dependent of which a watch tells only later is orphaned then, as long as this process remembers its owner.
//!
//! # Caveats
//! - An owner in another namespace does not exist; an object of the cluster that names an owner in a namespace is left
//!   alone. Both as Kubernetes has it.
//! - If the process ends right after it let an orphaning owner go, a dependent that no watch had told of yet is garbage for the
//!   next one. (In kube-controller-manager it is garbage in any case.)
//! - An owner of a resource that cannot be watched is looked at when its dependent changes, not when it goes.

pub(crate) mod graph;
pub(crate) mod rules;

use crate::Error;
use crate::discovery::ResourceType;
use crate::live::{self, api};
use crate::monitor::{Event, Observer, Resources, is_watched};
use crate::queue::{Backlog, Next, Queue, queue, work};
use futures::TryStreamExt as _;
use graph::{FOREGROUND, Graph, ORPHAN, Place, Uid, Work, group_of};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{DeleteParams, Preconditions, PropagationPolicy};
use kube::core::DynamicObject;
use kube::{Api, Client};
use rules::{OwnerState, Verdict, judge, owner_state};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// For how long the first lists of all resources are awaited.
const FIRST_LISTS: Duration = Duration::from_secs(30);
/// How many objects are looked at at once. (kube-controller-manager: `--concurrent-gc-syncs`, 20.)
const WORKERS: usize = 16;

/// The graph as the observer and the workers share it. A std mutex: it is held for one operation of the graph, never
/// across an `await`. The longest is the end of a list, which goes through all nodes once.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Graph>>);

impl Shared {
    /// A panic elsewhere may leave the graph incomplete. It is only ever asked where to look: what is deleted is
    /// decided on what the server says.
    fn lock(&self) -> MutexGuard<'_, Graph> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The half that listens.
struct Listener {
    graph: Shared,
    queue: Queue<Work>,
}

impl Observer for Listener {
    fn observe(&self, resource: &Arc<ResourceType>, event: &Event) {
        let mut graph = self.graph.lock();
        let work = match event {
            Event::Init => {
                graph.list_begins(resource);
                return;
            }
            Event::InitApply(object) => graph.exists(resource, &object.metadata, true),
            Event::InitDone => graph.list_ends(resource),
            Event::Apply(object) => graph.exists(resource, &object.metadata, false),
            Event::Delete(object) => graph.deleted(resource, &object.metadata),
        };
        // Before the queue's lock is taken: the two are never held together.
        drop(graph);
        work.into_iter().for_each(|work| self.queue.add(work));
    }

    fn forget(&self, resource: &Arc<ResourceType>) {
        let work = self.graph.lock().forget(resource);
        work.into_iter().for_each(|work| self.queue.add(work));
    }
}

/// The half that acts.
pub(crate) struct Collector {
    client: Client,
    resources: Resources,
    graph: Shared,
    queue: Queue<Work>,
}

/// The collector, its backlog, and what must observe the resources.
pub(crate) fn collector(
    client: Client,
    resources: Resources,
) -> (Collector, Backlog<Work>, Box<dyn Observer>) {
    let (queue, backlog) = queue();
    let graph = Shared::default();
    let listener = Listener { graph: graph.clone(), queue: queue.clone() };
    (Collector { client, resources, graph, queue }, backlog, Box::new(listener))
}

/// Collects until `stop`. `synced` tells when all resources were listed once.
pub(crate) async fn run(
    collector: Collector,
    backlog: Backlog<Work>,
    mut synced: watch::Receiver<bool>,
    stop: CancellationToken,
) {
    tokio::select! {
        () = stop.cancelled() => return,
        result = tokio::time::timeout(FIRST_LISTS, synced.wait_for(|synced| *synced)) => {
            if result.is_err() {
                tracing::warn!("not all resources could be listed; collecting garbage of the others");
            }
        }
    }
    work("garbage", backlog, WORKERS, stop, |work| collector.reconcile(work)).await;
}

impl Collector {
    async fn reconcile(&self, work: Work) -> Result<Next, Error> {
        match work {
            Work::Check(uid) => self.check(uid).await?,
            Work::Orphan(uid) => self.orphan(uid).await?,
        }
        Ok(Next::Wait)
    }

    fn objects(&self, place: &Place) -> Api<DynamicObject> {
        let namespace = place.resource.namespaced.then_some(place.namespace.as_str());
        api(&self.client, &place.resource.api, namespace)
    }

    /// The object as the server has it now; if it is gone the graph is told.
    async fn latest(&self, uid: Uid, place: &Place) -> Result<Option<ObjectMeta>, Error> {
        let latest = live::metadata(&self.objects(place), &place.name).await?;
        // Another object of that name is not the one that was looked for.
        let latest = latest.filter(|meta| meta.uid.as_deref().map(Uid::of) == Some(uid));
        if latest.is_none() {
            let work = self.graph.lock().removed(uid);
            work.into_iter().for_each(|work| self.queue.add(work));
        }
        Ok(latest)
    }

    async fn check(&self, uid: Uid) -> Result<(), Error> {
        let Some(view) = self.graph.lock().doubtful(uid) else { return Ok(()) };
        // Its own finalizers hold it; there is nothing to add to a deletion.
        if view.deleting && !view.foreground {
            return Ok(());
        }
        let Some(latest) = self.latest(uid, &view.place).await? else { return Ok(()) };
        if view.foreground {
            // Those that wait for their own dependents are under way. The others are looked at: they may not know yet
            // that their owner waits.
            for (dependent, waits) in &view.blocking {
                if !waits {
                    self.queue.add(Work::Check(*dependent));
                }
            }
            return if view.blocking.is_empty() {
                self.unfinalize(&view.place, &latest, FOREGROUND).await
            } else {
                Ok(())
            };
        }
        let references = latest.owner_references.clone().unwrap_or_default();
        let mut owners = Vec::with_capacity(references.len());
        // Each of them is read, even after one was found alive: the references to those that are gone are taken away.
        for reference in &references {
            match self.owner(&view.place, reference).await? {
                Some(state) => owners.push((reference, state)),
                None => {
                    tracing::debug!(
                        object = view.place.name,
                        "an object of the cluster names an owner in a namespace"
                    );
                    return Ok(());
                }
            }
        }
        match judge(&latest, &owners, view.has_dependents, view.dependent_waits) {
            Verdict::Keep => Ok(()),
            Verdict::Release(uids) => self.release(&view.place, &latest, &uids).await,
            Verdict::Delete(policy) => self.delete(&view.place, &latest, policy).await,
            Verdict::BreakCircle => {
                let unblocked: Vec<_> = references.iter().cloned().map(unblocking).collect();
                let patch = json!({"metadata": {"uid": latest.uid, "ownerReferences": unblocked}});
                live::merge(&self.objects(&view.place), &view.place.name, &patch).await?;
                // Its resource version has changed: only the UID can be a precondition now.
                let latest = ObjectMeta { resource_version: None, ..latest };
                self.delete(&view.place, &latest, PropagationPolicy::Foreground).await
            }
        }
    }

    /// What the server says about the owner; none if an object of the cluster names an owner in a namespace.
    async fn owner(&self, place: &Place, reference: &OwnerReference) -> Result<Option<OwnerState>, Error> {
        let resources = self.resources.current();
        let Some(resource) = resources.kind(group_of(&reference.api_version), &reference.kind) else {
            let kind = format!("{} {}", reference.api_version, reference.kind);
            // Never "gone": discovery may be incomplete, or the owner's group away. It is tried again.
            return Err(Error::UnknownKind(kind));
        };
        if resource.namespaced && place.namespace.is_empty() {
            return Ok(None);
        }
        let namespace = resource.namespaced.then_some(place.namespace.as_str());
        let found = live::metadata(&api(&self.client, &resource.api, namespace), &reference.name).await?;
        // After the read: the owner is let go only once this is known.
        let was_orphaned = self.graph.lock().was_orphaned(Uid::of(&reference.uid));
        Ok(Some(owner_state(reference, found.as_ref(), was_orphaned)))
    }

    async fn delete(
        &self,
        place: &Place,
        latest: &ObjectMeta,
        policy: PropagationPolicy,
    ) -> Result<(), Error> {
        tracing::debug!(
            resource = place.resource.api.plural,
            place.namespace,
            place.name,
            ?policy,
            "deleting garbage"
        );
        // The version too: an object that got another owner since it was read fails here, and is looked at again.
        let preconditions =
            Preconditions { uid: latest.uid.clone(), resource_version: latest.resource_version.clone() };
        let params = DeleteParams {
            propagation_policy: Some(policy),
            preconditions: Some(preconditions),
            ..DeleteParams::default()
        };
        live::delete(&self.objects(place), &place.name, &params).await
    }

    /// Takes the references to owners with these UIDs away from an object.
    async fn release(&self, place: &Place, latest: &ObjectMeta, uids: &[String]) -> Result<(), Error> {
        let owners = latest.owner_references.iter().flatten();
        let leaving: HashSet<_> = uids.iter().collect();
        let kept: Vec<_> = owners.filter(|owner| !leaving.contains(&owner.uid)).collect();
        // A merge patch replaces the list whole, so it has to be the one that was read.
        let patch = guarded(latest, "ownerReferences", json!(kept));
        live::merge(&self.objects(place), &place.name, &patch).await.map(drop)
    }

    async fn unfinalize(&self, place: &Place, latest: &ObjectMeta, finalizer: &str) -> Result<(), Error> {
        let held = latest.finalizers.iter().flatten();
        let kept: Vec<_> = held.filter(|held| *held != finalizer).collect();
        if kept.len() == latest.finalizers.as_ref().map_or(0, Vec::len) {
            return Ok(());
        }
        let patch = guarded(latest, "finalizers", json!(kept));
        live::merge(&self.objects(place), &place.name, &patch).await.map(drop)
    }

    async fn orphan(&self, uid: Uid) -> Result<(), Error> {
        let resources = self.resources.current();
        let unlisted = {
            let graph = self.graph.lock();
            let mut watched = resources.resources.iter().filter(|resource| is_watched(resource));
            watched.find(|resource| !graph.is_listed(resource)).map(|resource| resource.api.plural.clone())
        };
        // Its objects would be deleted in a moment instead of being orphaned. The queue tries again.
        if let Some(plural) = unlisted {
            return Err(Error::Incomplete(format!("{plural} were not listed yet")));
        }
        let mut told = HashSet::new();
        loop {
            let Some((place, dependents)) = self.graph.lock().orphans(uid) else { return Ok(()) };
            // Those that the watches told of while the others were patched. What was patched stays in the graph until its own
            // watch tells.
            let dependents: Vec<_> =
                dependents.into_iter().filter(|(dependent, _)| told.insert(*dependent)).collect();
            if dependents.is_empty() {
                return self.let_go(uid, &place).await;
            }
            futures::stream::iter(dependents.iter().map(Ok))
                .try_for_each_concurrent(WORKERS, |(_, dependent)| self.forget_owner(dependent, uid))
                .await?;
        }
    }

    /// Takes the reference to `owner` away from an object.
    async fn forget_owner(&self, dependent: &Place, owner: Uid) -> Result<(), Error> {
        let Some(latest) = live::metadata(&self.objects(dependent), &dependent.name).await? else {
            return Ok(());
        };
        let references = latest.owner_references.iter().flatten();
        let uids = references.map(|reference| &reference.uid).filter(|named| Uid::of(named) == owner);
        let uids: Vec<_> = uids.cloned().collect();
        if uids.is_empty() {
            return Ok(());
        }
        self.release(dependent, &latest, &uids).await
    }

    /// Lets an owner go whose dependents have forgotten it. Last: a crash before this leaves the owner waiting, and the next
    /// start does what is left. The other way round, the dependents would be garbage.
    async fn let_go(&self, uid: Uid, place: &Place) -> Result<(), Error> {
        let Some(latest) = self.latest(uid, place).await? else { return Ok(()) };
        self.graph.lock().orphaned(uid);
        self.unfinalize(place, &latest, ORPHAN).await
    }
}

/// A merge patch of one member of metadata that fails if the object has changed since `latest`.
fn guarded(latest: &ObjectMeta, member: &str, value: Value) -> Value {
    let mut metadata = json!({"uid": latest.uid, "resourceVersion": latest.resource_version});
    metadata[member] = value;
    json!({"metadata": metadata})
}

fn unblocking(mut reference: OwnerReference) -> OwnerReference {
    reference.block_owner_deletion = reference.block_owner_deletion.map(|_| false);
    reference
}

#[cfg(test)]
mod tests;
