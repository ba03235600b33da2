//! One watch of metadata for each resource of the server, shared by all controllers.
//!
//! # Flow
//! Discovery tells the resources that can be listed, watched and deleted; each gets a watch that asks for metadata
//! only. What the watches tell goes, in the order of each resource, to every [`Observer`]. Discovery runs again when a
//! CustomResourceDefinition or an APIService changes, and every [`REDISCOVER`] for what cannot be watched.
//!
//! # Guarantees
//! An observer sees every object of a resource at least once after the watch starts, then every change; a watch that
//! falls behind starts over with a complete list, framed by `Init` and `InitDone`, and what was deleted in between is
//! missing from it. Events are left out: they are many, own nothing, and have their own sweeper.
//!
//! # Caveats
//! Resources are observed independently: a change of one can be seen before an earlier change of another.

use crate::discovery::{Discovered, ResourceType, discover};
use fleetpass_workqueue::Backoff;
use futures::StreamExt;
use kube::core::{DynamicObject, PartialObjectMeta};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, RwLock};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// How often discovery runs although nothing seems to have changed.
const REDISCOVER: Duration = Duration::from_secs(600);
/// A new definition is announced before it is served: discovery runs at these delays after a change.
const AFTER_CHANGE: [Duration; 3] =
    [Duration::from_millis(30), Duration::from_millis(500), Duration::from_secs(5)];
/// When discovery that failed is tried again.
const AFTER_FAILURE: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));
/// How long discovery may take; changes wait meanwhile.
const PATIENCE: Duration = Duration::from_secs(15);
/// How many watch events may wait for the observers. More, and the watches wait, and with them, by flow control, the
/// server; nothing is dropped.
const WAITING: usize = 256;

/// What a watch tells: an object's metadata.
pub(crate) type Event = watcher::Event<PartialObjectMeta<DynamicObject>>;

/// Someone who wants to know of changes.
pub(crate) trait Observer: Send + Sync {
    /// Takes note of a change. Must not block: it adds keys to queues, no more.
    fn observe(&self, resource: &Arc<ResourceType>, event: &Event);

    /// A resource is no longer watched: it left discovery.
    fn forget(&self, _resource: &Arc<ResourceType>) {}
}

/// The resources of the server as last discovered; cheap to clone. The lock is held for the copy of a pointer, so a
/// reader keeps one picture for as long as it works with it, and the writer waits for nobody.
#[derive(Debug, Clone, Default)]
pub(crate) struct Resources(Arc<RwLock<Arc<Discovered>>>);

impl Resources {
    /// What was discovered last.
    pub(crate) fn current(&self) -> Arc<Discovered> {
        self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Replaces what is known.
    pub(crate) fn set(&self, discovered: Discovered) {
        *self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::new(discovered);
    }
}

/// Whether the resource is watched: its objects can own and be owned.
pub(crate) fn is_watched(resource: &ResourceType) -> bool {
    let events =
        resource.api.plural == "events" && matches!(resource.api.group.as_str(), "" | "events.k8s.io");
    resource.can(&["delete", "list", "watch"]) && !events
}

/// Whether a change of these objects can change what the server has.
fn changes_discovery(resource: &ResourceType) -> bool {
    resource.is("apiextensions.k8s.io", "customresourcedefinitions")
        || resource.is("apiregistration.k8s.io", "apiservices")
}

/// A change of a resource on its way to the observers.
type Change = (Arc<ResourceType>, Event);

/// Watches until `stop`; `synced` becomes true when all resources known at the start were listed once.
pub(crate) async fn run(
    client: Client,
    resources: Resources,
    observers: Vec<Box<dyn Observer>>,
    synced: watch::Sender<bool>,
    stop: CancellationToken,
) {
    let (sender, mut changes) = mpsc::channel::<Change>(WAITING);
    let mut watches = Watches { client: client.clone(), sender, running: HashMap::new() };
    // The resources of the first discovery that were not listed yet; `None` before it. Those that are discovered later
    // do not count: `synced` is about the start.
    let mut unlisted: Option<HashSet<(String, String)>> = None;
    let mut due = Due::default();
    loop {
        // `Due::wait` and `recv` lose nothing when the other branch is taken. Discovery is a handler, not a branch: it
        // is awaited to its end, within PATIENCE, and events wait in the channel meanwhile.
        tokio::select! {
            () = stop.cancelled() => break,
            () = due.wait() => match tokio::time::timeout(PATIENCE, discover(&client)).await {
                Err(_) => {
                    tracing::warn!("discovery takes too long; will try again");
                    due.failed();
                }
                Ok(Err(error)) => {
                    tracing::warn!(%error, "discovery failed; will try again");
                    due.failed();
                }
                Ok(Ok(discovered)) => {
                    due.succeeded(discovered.failed.is_empty());
                    // The observers are told first. An event of an ended watch that waits in the channel comes after
                    // that; whoever acts on it asks the server first.
                    for gone in watches.follow(&discovered) {
                        unlisted.as_mut().map(|unlisted| unlisted.remove(&key(&gone)));
                        observers.iter().for_each(|observer| observer.forget(&gone));
                    }
                    unlisted.get_or_insert_with(|| watches.running.keys().cloned().collect());
                    resources.set(discovered);
                }
            },
            Some((resource, event)) = changes.recv() => {
                if changes_discovery(&resource) && matches!(event, Event::Apply(_) | Event::Delete(_) | Event::InitDone) {
                    due.changed();
                }
                observers.iter().for_each(|observer| observer.observe(&resource, &event));
                // After the observers have seen it: `synced` promises that they know all there was.
                if matches!(event, Event::InitDone) {
                    unlisted.as_mut().map(|unlisted| unlisted.remove(&key(&resource)));
                }
            }
        }
        if !*synced.borrow() && unlisted.as_ref().is_some_and(HashSet::is_empty) {
            tracing::debug!(resources = watches.running.len(), "all resources are listed");
            synced.send_replace(true);
        }
    }
}

fn key(resource: &ResourceType) -> (String, String) {
    (resource.api.group.clone(), resource.api.plural.clone())
}

/// The watches that run, by group and plural name.
struct Watches {
    client: Client,
    sender: mpsc::Sender<Change>,
    /// A watch ends when its guard is dropped, so what is not in this map does not run.
    running: HashMap<(String, String), (Arc<ResourceType>, tokio_util::sync::DropGuard)>,
}

impl Watches {
    /// Starts and ends watches until they are those of `discovered`; gives the resources that are no longer watched.
    /// A resource whose group version did not answer is kept.
    fn follow(&mut self, discovered: &Discovered) -> Vec<Arc<ResourceType>> {
        let wanted: HashMap<_, _> =
            discovered.resources.iter().filter(|r| is_watched(r)).map(|r| (key(r), r)).collect();
        let ended: Vec<_> = self
            .running
            .iter()
            .filter(|(key, (running, _))| match wanted.get(*key) {
                Some(wanted) => wanted.api != running.api || wanted.namespaced != running.namespaced,
                // Its group may be there and only not answer now; ending the watch would make its objects look deleted.
                None => !discovered.failed.contains_key(&running.api.api_version),
            })
            .map(|(key, _)| key.clone())
            .collect();
        let gone =
            ended.iter().filter_map(|key| self.running.remove(key)).map(|(resource, _)| resource).collect();
        for (key, resource) in wanted {
            if !self.running.contains_key(&key) {
                let guard = self.start(resource.clone());
                self.running.insert(key, (resource.clone(), guard));
            }
        }
        gone
    }

    fn start(&self, resource: Arc<ResourceType>) -> tokio_util::sync::DropGuard {
        let objects: Api<PartialObjectMeta<DynamicObject>> =
            Api::all_with(self.client.clone(), &resource.api);
        let sender = self.sender.clone();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        tokio::spawn(async move {
            let mut events = std::pin::pin!(watcher(objects, watcher::Config::default()).default_backoff());
            let forward = async {
                while let Some(event) = events.next().await {
                    match event {
                        Ok(event) => {
                            if sender.send((resource.clone(), slim(event))).await.is_err() {
                                return;
                            }
                        }
                        Err(error) => {
                            tracing::debug!(resource = resource.api.plural, %error, "watch interrupted");
                        }
                    }
                }
            };
            // Dropped at any point: a watch that is started anew begins with a list.
            tokio::select! {
                () = stopped.cancelled() => {}
                () = forward => {}
            }
        });
        stop.drop_guard()
    }
}

/// Drops what no observer looks at before the event waits in line.
fn slim(event: Event) -> Event {
    event.modify(|object| {
        object.metadata.managed_fields = None;
        // The annotations that observers read are short names; the long ones are copies of whole objects
        // (`kubectl.kubernetes.io/last-applied-configuration`).
        if let Some(annotations) = &mut object.metadata.annotations {
            annotations.retain(|_, value| value.len() <= 512);
        }
    })
}

/// When discovery is to run.
struct Due {
    /// The times at which it runs, in no order. There are never more than a handful: a change replaces those of the
    /// change before.
    planned: Vec<tokio::time::Instant>,
    failures: u32,
}

impl Default for Due {
    fn default() -> Self {
        Self { planned: vec![tokio::time::Instant::now()], failures: 0 }
    }
}

impl Due {
    /// Waits for the next planned time, and takes it off the plan. Cancel safety: dropped before, the plan is as it
    /// was.
    async fn wait(&mut self) {
        let next = self.planned.iter().min().copied();
        let next = next.unwrap_or_else(|| tokio::time::Instant::now() + REDISCOVER);
        tokio::time::sleep_until(next).await;
        self.planned.retain(|planned| *planned > next);
    }

    fn plan(&mut self, delay: Duration) {
        self.planned.push(tokio::time::Instant::now() + delay);
    }

    fn failed(&mut self) {
        self.plan(AFTER_FAILURE.delay(self.failures));
        self.failures = self.failures.saturating_add(1);
    }

    fn succeeded(&mut self, complete: bool) {
        self.failures = 0;
        // A version that did not answer, often an aggregated server that restarts, is asked again soon.
        if self.planned.is_empty() {
            self.plan(if complete { REDISCOVER } else { Duration::from_secs(30) });
        }
    }

    /// Something changed that may change what the server has: runs at each of [`AFTER_CHANGE`] from now.
    fn changed(&mut self) {
        // Definitions often change in rows: the runs after the change before are replaced, so that ten changes cost
        // three runs, not thirty.
        let now = tokio::time::Instant::now();
        self.planned.retain(|planned| *planned > now + AFTER_CHANGE[2]);
        AFTER_CHANGE.iter().for_each(|delay| self.plan(*delay));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(resources: &[ResourceType], failed: &[&str]) -> Discovered {
        Discovered {
            resources: resources.iter().cloned().map(Arc::new).collect(),
            failed: failed.iter().map(|version| ((*version).into(), "down".into())).collect(),
        }
    }

    #[tokio::test]
    async fn watches_follow_discovery_but_outlive_a_group_that_does_not_answer() {
        let client = crate::mock::server(|_| crate::mock::Answer::not_found());
        let (sender, _changes) = mpsc::channel(1);
        let mut watches = Watches { client, sender, running: HashMap::new() };
        let secrets = ResourceType::of("", "Secret", "secrets", true);
        let events = ResourceType::of("events.k8s.io", "Event", "events", true);
        let teams = ResourceType::of("example.com", "Team", "teams", true);
        assert!(watches.follow(&found(&[secrets.clone(), events, teams.clone()], &[])).is_empty());
        let mut running: Vec<_> = watches.running.keys().map(|(_, plural)| plural.as_str()).collect();
        running.sort_unstable();
        assert_eq!(running, ["secrets", "teams"]);
        assert!(watches.follow(&found(std::slice::from_ref(&secrets), &["example.com/v1"])).is_empty());
        let gone = watches.follow(&found(&[secrets], &[]));
        assert_eq!(gone.iter().map(|resource| resource.api.plural.as_str()).collect::<Vec<_>>(), ["teams"]);
    }

    #[tokio::test(start_paused = true)]
    async fn discovery_follows_a_change_until_what_is_announced_is_served() {
        let mut due = Due::default();
        due.wait().await;
        due.succeeded(true);
        let start = tokio::time::Instant::now();
        due.changed();
        due.changed();
        let mut passes = Vec::new();
        while passes.len() < 4 {
            due.wait().await;
            due.succeeded(true);
            passes.push(start.elapsed());
        }
        assert_eq!(passes[..3], AFTER_CHANGE);
        assert!(passes[3] >= REDISCOVER);
    }
}
