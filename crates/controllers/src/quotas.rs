//! The status of ResourceQuotas: the limits in force, and how much of each there is.
//!
//! # Flow
//! A quota that changes, and one of whose objects one goes, comes into the queue. Each pass reads the quota; if its limits are not
//! in force yet, or something went, what it limits is counted anew, and limits and counts are written to its status.
//! (`pkg/controller/resourcequota/resource_quota_controller.go` in Kubernetes.)
//!
//! What comes is no business of this controller: the API server charges the quota for each object that it creates.
//!
//! # Guarantees
//! - A count is never less than what there is, so that a limit is kept. Objects are counted after the quota was read, and the count
//!   is written only if the quota has not changed since; each object that was created in between has changed it.
//! - What goes is free for others after [`GATHER`] and a pass.
//! - Whatever made a count wrong, it is right again after [`RESYNC`].
//!
//! # Caveats
//! - While the limits of a new quota, or new limits of an old one, are not in force, more can be created than they allow.
//! - Objects are counted by the server: it is asked for a page of one object, and how many follow. Only pods are looked at.
//! - What pods request of processors and memory is not counted.

use crate::Error;
use crate::discovery::{Discovered, ResourceType};
use crate::live::{api, is_conflict, is_not_found, list, writer};
use crate::monitor::{Event, Observer, Resources};
use crate::queue::{Backlog, Next, Queue, queue, work};
use fleetpass_api::clock::SharedClock;
use fleetpass_api::quota::{Measure, is_live_pod, is_scoped, measure, pod_fits, quantity};
use k8s_openapi::api::core::v1::{Pod, ResourceQuota};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::api::ListParams;
use kube::core::{ApiResource, DynamicObject};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long to wait for further changes when there was one: they often come in rows.
const GATHER: Duration = Duration::from_millis(50);
/// How often everything is counted anew (`--resource-quota-sync-period` of kube-controller-manager).
const RESYNC: Duration = Duration::from_secs(300);
/// How often a pass begins again because the quota was charged while it counted.
const ATTEMPTS: usize = 10;

/// A quota.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    namespace: String,
    name: String,
}

/// Group and plural name of a resource.
type Name = (String, String);

/// Which counts of a quota may be wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stale {
    /// Those of objects of these resources.
    Some(HashSet<Name>),
    /// Any.
    All,
}

impl Stale {
    fn none() -> Self {
        Self::Some(HashSet::new())
    }

    fn is_none(&self) -> bool {
        matches!(self, Self::Some(names) if names.is_empty())
    }

    fn has(&self, name: &Name) -> bool {
        match self {
            Self::Some(names) => names.contains(name),
            Self::All => true,
        }
    }

    fn add(&mut self, other: Self) {
        match (&mut *self, other) {
            (Self::All, _) => {}
            (_, Self::All) => *self = Self::All,
            (Self::Some(names), Self::Some(others)) => names.extend(others),
        }
    }
}

/// What is known of a quota.
#[derive(Debug)]
struct Known {
    /// The resources that it counts, as of the last pass; `None` before the first one.
    counts: Option<HashSet<Name>>,
    /// Of what something may have gone since it was counted.
    stale: Stale,
    /// When everything is counted anew although nothing seems to have gone; `None` before it was counted.
    due: Option<Instant>,
}

impl Known {
    /// One that was not counted yet.
    fn new() -> Self {
        Self { counts: None, stale: Stale::All, due: None }
    }

    fn counts(&self, resource: &Name) -> bool {
        // Before the first pass it could be anything.
        self.counts.as_ref().is_none_or(|counts| counts.contains(resource))
    }
}

/// The quotas by namespace and name, so that a deletion is of interest only where it is counted. A std mutex: it is held for one
/// operation of the maps, on the path of every deletion on the server.
#[derive(Debug, Clone, Default)]
struct Quotas(Arc<Mutex<HashMap<String, HashMap<String, Known>>>>);

impl Quotas {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, HashMap<String, Known>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that there is a quota; its first pass counts.
    fn seen(&self, key: &Key) {
        let mut all = self.lock();
        let quotas = all.entry(key.namespace.clone()).or_default();
        quotas.entry(key.name.clone()).or_insert_with(Known::new);
    }

    fn gone(&self, key: &Key) {
        let mut all = self.lock();
        if let Some(quotas) = all.get_mut(&key.namespace) {
            quotas.remove(&key.name);
            if quotas.is_empty() {
                all.remove(&key.namespace);
            }
        }
    }

    /// The quotas of `namespace`, or of all, that count objects of `resource`. Their counts of it are noted as stale.
    fn affected(&self, resource: &ResourceType, namespace: Option<&str>) -> Vec<Key> {
        let mut all = self.lock();
        // Before anything is copied: most namespaces have no quotas.
        if namespace.is_some_and(|namespace| !all.contains_key(namespace)) {
            return Vec::new();
        }
        let resource = (resource.api.group.clone(), resource.api.plural.clone());
        let mut found = Vec::new();
        let mut visit = |namespace: &str, quotas: &mut HashMap<String, Known>| {
            for (name, known) in quotas.iter_mut().filter(|(_, known)| known.counts(&resource)) {
                known.stale.add(Stale::Some(HashSet::from([resource.clone()])));
                found.push(Key { namespace: namespace.into(), name: name.clone() });
            }
        };
        match namespace {
            Some(namespace) => all.get_mut(namespace).into_iter().for_each(|quotas| visit(namespace, quotas)),
            None => all.iter_mut().for_each(|(namespace, quotas)| visit(namespace, quotas)),
        }
        found
    }

    /// Begins a pass at `now` over a quota that counts these resources: which of them it has to count. What goes from here on
    /// makes them stale anew.
    fn begin(&self, key: &Key, counts: HashSet<Name>, now: Instant) -> Stale {
        let mut all = self.lock();
        let quotas = all.entry(key.namespace.clone()).or_default();
        let known = quotas.entry(key.name.clone()).or_insert_with(Known::new);
        known.counts = Some(counts);
        let mut stale = std::mem::replace(&mut known.stale, Stale::none());
        if known.due.is_none_or(|due| due <= now) {
            stale = Stale::All;
        }
        if stale == Stale::All {
            known.due = Some(now + RESYNC);
        }
        stale
    }

    fn make_stale(&self, key: &Key) {
        if let Some(known) = self.lock().get_mut(&key.namespace).and_then(|quotas| quotas.get_mut(&key.name))
        {
            known.stale = Stale::All;
        }
    }
}

struct Listener {
    queue: Queue<Key>,
    quotas: Quotas,
}

impl Listener {
    fn recount(&self, resource: &ResourceType, namespace: Option<&str>) {
        for key in self.quotas.affected(resource, namespace) {
            self.queue.add_after(key, GATHER);
        }
    }
}

impl Observer for Listener {
    fn observe(&self, resource: &Arc<ResourceType>, event: &Event) {
        let is_quota = resource.is("", "resourcequotas");
        match event {
            Event::Apply(object) | Event::InitApply(object) if is_quota => {
                let key = key(&object.metadata);
                self.quotas.seen(&key);
                // Mostly it was charged. What has changed is not in the metadata, so it has to be read.
                self.queue.add_after(key, GATHER);
            }
            // How a pod ends is a change of it.
            Event::Apply(object) if resource.is("", "pods") => {
                self.recount(resource, object.metadata.namespace.as_deref());
            }
            Event::Delete(object) => {
                if is_quota {
                    self.quotas.gone(&key(&object.metadata));
                }
                // Cluster-scoped objects are in no quota.
                if let Some(namespace) = object.metadata.namespace.as_deref() {
                    self.recount(resource, Some(namespace));
                }
            }
            // Something may have gone while nobody watched; or the kind is new, and there is a quota for it already.
            Event::InitDone => self.recount(resource, None),
            _ => {}
        }
    }
}

fn key(meta: &ObjectMeta) -> Key {
    Key { namespace: meta.namespace.clone().unwrap_or_default(), name: meta.name.clone().unwrap_or_default() }
}

/// Counts.
pub(crate) struct Counter {
    client: Client,
    clock: SharedClock,
    resources: Resources,
    quotas: Quotas,
}

/// The counter, its backlog, and what must observe the resources.
pub(crate) fn counter(
    client: Client,
    clock: SharedClock,
    resources: Resources,
) -> (Counter, Backlog<Key>, Box<dyn Observer>) {
    let (queue, backlog) = queue();
    let quotas = Quotas::default();
    let listener = Listener { queue, quotas: quotas.clone() };
    (Counter { client, clock, resources, quotas }, backlog, Box::new(listener))
}

/// Counts until `stop`.
pub(crate) async fn run(counter: Counter, backlog: Backlog<Key>, stop: CancellationToken) {
    work("resource-quotas", backlog, 5, stop, |key| counter.reconcile(key)).await;
}

/// Where the number of something is to be had.
#[derive(Debug, PartialEq, Eq)]
enum Source<'a> {
    /// It is this, whatever there is.
    Known(u64),
    /// The number of objects of a resource.
    Objects(&'a ResourceType),
    /// The number of pods within the scopes, or of those that have not ended.
    Pods { live: bool },
}

/// Where the number of what `name` measures is to be had; `None` if the server has nothing that it could mean, or if it is not
/// counted.
fn source<'a>(name: &str, scoped: bool, discovered: &'a Discovered) -> Option<Source<'a>> {
    let find = |group: &str, plural: &str| discovered.resources.iter().find(|r| r.is(group, plural));
    // No kind of core comes at run time: what is not there now, such as `services`, has no objects. Unless core did not answer.
    let is_core_known =
        !discovered.failed.contains_key("v1") && discovered.resources.iter().any(|r| r.api.group.is_empty());
    let none = is_core_known.then_some(Source::Known(0));
    match measure(name)? {
        Measure::Pods => Some(Source::Pods { live: true }),
        Measure::Objects { group: "", plural: "pods" } if scoped => Some(Source::Pods { live: false }),
        // Nothing but pods fits a scope.
        Measure::Objects { .. } if scoped => Some(Source::Known(0)),
        Measure::Objects { group, plural } => match find(group, plural) {
            Some(resource) => resource.namespaced.then_some(Source::Objects(resource)),
            None => none.filter(|_| group.is_empty()),
        },
        Measure::Other { plural } => none.filter(|_| find("", plural).is_none()),
    }
}

/// The resource whose objects `name` is about.
fn about(name: &str) -> Option<Name> {
    let (group, plural) = match measure(name)? {
        Measure::Objects { group, plural } => (group, plural),
        Measure::Pods => ("", "pods"),
        Measure::Other { plural } => ("", plural),
    };
    Some((group.to_owned(), plural.to_owned()))
}

/// The resources that the limits `hard` count.
fn counted(hard: &Value) -> HashSet<Name> {
    hard.as_object().into_iter().flat_map(Map::keys).filter_map(|name| about(name)).collect()
}

/// Whether the limits of `spec` are in force, and each that can be counted has a count.
fn is_in_force(quota: &Value, discovered: &Discovered) -> bool {
    let (spec, status) = (&quota["spec"], &quota["status"]);
    let scoped = is_scoped(spec);
    let mut names = spec["hard"].as_object().into_iter().flat_map(Map::keys);
    // A quota without limits has no `hard` in either.
    spec["hard"] == status["hard"]
        && names.all(|name| status["used"].get(name).is_some() || source(name, scoped, discovered).is_none())
}

/// The status that a quota should have after `counts`. What was not counted keeps what it had.
fn status(quota: &Value, counts: &BTreeMap<String, u64>) -> Value {
    let hard = quota["spec"]["hard"].as_object().cloned().unwrap_or_default();
    let before = quota["status"]["used"].as_object();
    let used: Map<String, Value> = hard
        .keys()
        .filter_map(|name| {
            let counted = counts.get(name).map(|count| quantity(*count).into());
            Some((name.clone(), counted.or_else(|| before?.get(name).cloned())?))
        })
        .collect();
    let mut status = Map::new();
    for (name, amounts) in [("hard", hard), ("used", used)] {
        if !amounts.is_empty() {
            status.insert(name.into(), amounts.into());
        }
    }
    status.into()
}

impl Counter {
    async fn reconcile(&self, key: Key) -> Result<Next, Error> {
        let result = self.update(&key).await;
        // What was to be counted still is.
        if result.is_err() {
            self.quotas.make_stale(&key);
        }
        result
    }

    async fn update(&self, key: &Key) -> Result<Next, Error> {
        let resource = ApiResource::erase::<ResourceQuota>(&());
        let quotas = api(&self.client, &resource, Some(&key.namespace));
        let mut stale = Stale::none();
        for _ in 0..ATTEMPTS {
            // Before counting: see the guarantees.
            let Some(mut quota) = quotas.get_opt(&key.name).await? else {
                self.quotas.gone(key);
                return Ok(Next::Wait);
            };
            stale.add(self.quotas.begin(key, counted(&quota.data["spec"]["hard"]), Instant::now()));
            let discovered = self.resources.current();
            let in_force = is_in_force(&quota.data, &discovered);
            if !in_force {
                stale = Stale::All;
            }
            if stale.is_none() {
                return Ok(Next::After(RESYNC));
            }
            let counts = self.count(key, &quota.data["spec"], &stale, &discovered).await?;
            let wanted = status(&quota.data, &counts);
            let present = &quota.data["status"];
            if *present == wanted || (present.is_null() && wanted == json!({})) {
                return Ok(Next::After(RESYNC));
            }
            quota.data["status"] = wanted;
            match quotas.replace_subresource("status", &key.name, &writer(), &quota).await {
                Ok(_) => {
                    // What was created between the count and this write was not charged for limits that were not in force.
                    // This write comes back as a change, and with it another pass.
                    if !in_force {
                        self.quotas.make_stale(key);
                    }
                    return Ok(Next::After(RESYNC));
                }
                Err(error) if is_conflict(&error) => {}
                Err(error) if is_not_found(&error) => return Ok(Next::Wait),
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::Incomplete(format!("quota {} is charged too often to be counted", key.name)))
    }

    /// How much there is of what `spec` limits, as far as the counts are `stale`.
    async fn count(
        &self,
        key: &Key,
        spec: &Value,
        stale: &Stale,
        discovered: &Discovered,
    ) -> Result<BTreeMap<String, u64>, Error> {
        let scoped = is_scoped(spec);
        let mut counts = BTreeMap::new();
        // Read once, however many names are about them.
        let mut pods: Option<Vec<Value>> = None;
        let names = spec["hard"].as_object().into_iter().flat_map(Map::keys);
        for name in names.filter(|name| about(name).is_some_and(|about| stale.has(&about))) {
            let count = match source(name, scoped, discovered) {
                None => continue,
                Some(Source::Known(count)) => count,
                Some(Source::Objects(resource)) => {
                    match self.objects(&resource.api, &key.namespace).await {
                        // The kind went a moment ago, with all its objects.
                        Err(Error::Kube(error)) if is_not_found(&error) => continue,
                        count => count?,
                    }
                }
                Some(Source::Pods { live }) => {
                    let pods = match &mut pods {
                        Some(pods) => pods,
                        none => none.insert(self.pods(&key.namespace).await?),
                    };
                    let now = self.clock.now();
                    let counts = |pod: &&Value| pod_fits(spec, pod) && (!live || is_live_pod(pod, now));
                    pods.iter().filter(counts).count() as u64
                }
            };
            counts.insert(name.clone(), count);
        }
        Ok(counts)
    }

    /// How many objects of a resource there are: one, and how many the server says follow it.
    async fn objects(&self, resource: &ApiResource, namespace: &str) -> Result<u64, Error> {
        let page = api(&self.client, resource, Some(namespace));
        let page = page.list_metadata(&ListParams::default().limit(1)).await?;
        let more = page.metadata.continue_.is_some_and(|token| !token.is_empty());
        let following = match page.metadata.remaining_item_count {
            Some(count) => u64::try_from(count).unwrap_or(0),
            None if !more => 0,
            // A server may leave it out.
            None => return Ok(list(&self.client, resource, Some(namespace), None).await?.len() as u64),
        };
        Ok(page.items.len() as u64 + following)
    }

    /// The pods of a namespace, as much of them as scopes look at.
    async fn pods(&self, namespace: &str) -> Result<Vec<Value>, Error> {
        let pods = api(&self.client, &ApiResource::erase::<Pod>(&()), Some(namespace));
        let mut params = ListParams::default().limit(500);
        let mut found = Vec::new();
        loop {
            let page = pods.list(&params).await?;
            found.extend(page.items.into_iter().map(looked_at));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                None => return Ok(found),
                token => params.continue_token = token,
            }
        }
    }
}

/// A pod without what no rule looks at.
fn looked_at(pod: DynamicObject) -> Value {
    let spec = &pod.data["spec"];
    let metadata = pod.metadata;
    json!({
        "metadata": {"deletionTimestamp": metadata.deletion_timestamp,
            "deletionGracePeriodSeconds": metadata.deletion_grace_period_seconds},
        "spec": {"activeDeadlineSeconds": spec["activeDeadlineSeconds"],
            "priorityClassName": spec["priorityClassName"], "affinity": spec["affinity"]},
        "status": {"phase": pod.data["status"]["phase"], "qosClass": pod.data["status"]["qosClass"]},
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mock::{Answer, server};
    use std::sync::atomic::{AtomicU64, Ordering};

    fn discovered(failed: &[&str]) -> Discovered {
        let resources = [
            ResourceType::of("", "Namespace", "namespaces", false),
            ResourceType::of("", "Pod", "pods", true),
            ResourceType::of("", "Secret", "secrets", true),
            ResourceType::of("example.com", "Widget", "widgets", true),
        ];
        Discovered {
            resources: resources.into_iter().map(Arc::new).collect(),
            failed: failed.iter().map(|version| ((*version).into(), "down".into())).collect(),
        }
    }

    #[test]
    fn what_is_measured_has_a_source_or_is_left_out() {
        let all = discovered(&[]);
        let objects = |plural: &str| {
            let found = all.resources.iter().find(|resource| resource.api.plural == plural);
            Some(Source::Objects(found.unwrap()))
        };
        for (name, scoped, wanted) in [
            ("secrets", false, objects("secrets")),
            ("count/secrets", false, objects("secrets")),
            ("count/secrets", true, Some(Source::Known(0))),
            ("count/widgets.example.com", false, objects("widgets")),
            ("pods", false, Some(Source::Pods { live: true })),
            ("pods", true, Some(Source::Pods { live: true })),
            ("count/pods", false, objects("pods")),
            ("count/pods", true, Some(Source::Pods { live: false })),
            ("services", false, Some(Source::Known(0))),
            ("services.nodeports", false, Some(Source::Known(0))),
            // Not there yet, cluster-scoped, not counted.
            ("count/gadgets.example.com", false, None),
            ("count/namespaces", false, None),
            ("requests.cpu", false, None),
            ("count/events", false, None),
        ] {
            assert_eq!(source(name, scoped, &all), wanted, "{name}");
        }
        // A core that does not answer has not lost its services.
        assert_eq!(source("services", false, &discovered(&["v1"])), None);
        assert_eq!(source("services", false, &Discovered::default()), None);
    }

    #[test]
    fn the_status_has_the_limits_of_the_spec_and_keeps_what_was_not_counted() {
        let quota = json!({
            "spec": {"hard": {"secrets": "2k", "requests.cpu": "4", "count/gadgets.example.com": "1"}},
            "status": {"hard": {"secrets": "1", "configmaps": "3"},
                "used": {"secrets": "7", "configmaps": "2", "requests.cpu": "1"}},
        });
        let counts = BTreeMap::from([("secrets".to_owned(), 1000)]);
        let wanted = json!({"hard": quota["spec"]["hard"], "used": {"secrets": "1k", "requests.cpu": "1"}});
        assert_eq!(status(&quota, &counts), wanted);
        assert_eq!(status(&json!({"spec": {}}), &BTreeMap::new()), json!({}));

        let all = discovered(&[]);
        assert!(!is_in_force(&quota, &all));
        // What nobody can count is not waited for.
        let complete = json!({"spec": quota["spec"], "status": wanted});
        assert!(is_in_force(&complete, &all));
        let uncounted = json!({"spec": {"hard": {"secrets": "1"}}, "status": {"hard": {"secrets": "1"}}});
        assert!(!is_in_force(&uncounted, &all));
        assert!(is_in_force(&json!({"spec": {}, "status": {}}), &all));
    }

    #[test]
    fn only_quotas_that_count_what_went_are_counted_anew() {
        let secrets = ResourceType::of("", "Secret", "secrets", true);
        let pods = ResourceType::of("", "Pod", "pods", true);
        let quotas = Quotas::default();
        let key = |namespace: &str, name: &str| Key { namespace: namespace.into(), name: name.into() };
        let (one, two) = (key("a", "one"), key("b", "two"));
        quotas.seen(&one);
        quotas.seen(&two);
        let now = Instant::now();
        // Before the first pass anything is of interest.
        assert_eq!(quotas.affected(&pods, Some("a")), vec![one.clone()]);
        let begin = |now| quotas.begin(&one, counted(&json!({"secrets": "1", "configmaps": "1"})), now);
        assert_eq!(begin(now), Stale::All);
        assert_eq!(quotas.begin(&two, counted(&json!({"count/secrets": "1"})), now), Stale::All);
        assert!(quotas.affected(&pods, Some("a")).is_empty());
        assert!(quotas.affected(&secrets, Some("c")).is_empty());
        assert_eq!(quotas.affected(&secrets, None).len(), 2);
        assert_eq!(begin(now), Stale::Some(HashSet::from([(String::new(), "secrets".to_owned())])));
        // Nothing went since; but some time everything is counted.
        assert!(begin(now).is_none());
        assert_eq!(begin(now + RESYNC), Stale::All);
        quotas.gone(&one);
        assert!(quotas.affected(&secrets, Some("a")).is_empty());
    }

    /// A namespace with one quota and some secrets.
    struct World {
        secrets: AtomicU64,
        quota: Mutex<Value>,
        /// How often the quota is charged, by somebody else, while secrets are counted.
        charges: AtomicU64,
        lists: AtomicU64,
    }

    impl World {
        fn answer(&self, request: &crate::mock::Request) -> Answer {
            let mut quota = self.quota.lock().unwrap();
            match (request.method.as_str(), request.path.as_str()) {
                ("GET", "/api/v1/namespaces/ns/resourcequotas/q") => Answer::ok(quota.clone()),
                ("GET", "/api/v1/namespaces/ns/secrets") => {
                    assert!(request.query.contains("limit=1"), "{}", request.query);
                    self.lists.fetch_add(1, Ordering::Relaxed);
                    let count = self.secrets.load(Ordering::Relaxed);
                    if self.charges.load(Ordering::Relaxed) > 0 {
                        self.charges.fetch_sub(1, Ordering::Relaxed);
                        self.secrets.fetch_add(1, Ordering::Relaxed);
                        let version: u64 =
                            quota["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
                        quota["metadata"]["resourceVersion"] = (version + 1).to_string().into();
                    }
                    let items = if count > 0 { vec![json!({"metadata": {"name": "s"}})] } else { vec![] };
                    let mut list = json!({"kind": "PartialObjectMetadataList",
                        "apiVersion": "meta.k8s.io/v1", "metadata": {}, "items": items});
                    if count > 1 {
                        list["metadata"] = json!({"continue": "more", "remainingItemCount": count - 1});
                    }
                    Answer::ok(list)
                }
                ("PUT", "/api/v1/namespaces/ns/resourcequotas/q/status") => {
                    if request.body["metadata"]["resourceVersion"] != quota["metadata"]["resourceVersion"] {
                        return Answer::refusal(409, json!({"reason": "Conflict"}));
                    }
                    *quota = request.body.clone();
                    Answer::ok(quota.clone())
                }
                _ => Answer::not_found(),
            }
        }
    }

    fn world(secrets: u64) -> (Arc<World>, Counter) {
        let world = Arc::new(World {
            secrets: secrets.into(),
            quota: Mutex::new(json!({"apiVersion": "v1", "kind": "ResourceQuota",
                "metadata": {"name": "q", "namespace": "ns", "resourceVersion": "1"},
                "spec": {"hard": {"count/secrets": "5"}}, "status": {}})),
            charges: 0.into(),
            lists: 0.into(),
        });
        let answering = world.clone();
        let resources = Resources::default();
        resources.set(discovered(&[]));
        let client = server(move |request| answering.answer(&request));
        let (counter, _, _) = counter(client, fleetpass_api::clock::system(), resources);
        (world, counter)
    }

    #[tokio::test]
    async fn a_quota_is_counted_once_and_again_only_when_something_went() {
        let (world, counter) = world(3);
        let key = Key { namespace: "ns".into(), name: "q".into() };
        counter.reconcile(key.clone()).await.unwrap();
        let status = json!({"hard": {"count/secrets": "5"}, "used": {"count/secrets": "3"}});
        assert_eq!(world.quota.lock().unwrap()["status"], status);
        // Once more, for what was created before the limits were in force; then no more.
        for _ in 0..3 {
            counter.reconcile(key.clone()).await.unwrap();
        }
        assert_eq!(world.lists.load(Ordering::Relaxed), 2);
        world.secrets.store(0, Ordering::Relaxed);
        counter.quotas.affected(&ResourceType::of("", "Secret", "secrets", true), Some("ns"));
        counter.reconcile(key.clone()).await.unwrap();
        assert_eq!(world.quota.lock().unwrap()["status"]["used"]["count/secrets"], "0");
    }

    #[tokio::test]
    async fn what_is_charged_during_the_count_is_not_forgotten() {
        let (world, counter) = world(3);
        world.charges.store(2, Ordering::Relaxed);
        counter.reconcile(Key { namespace: "ns".into(), name: "q".into() }).await.unwrap();
        assert_eq!(world.quota.lock().unwrap()["status"]["used"]["count/secrets"], "5");
    }

    #[tokio::test]
    async fn a_quota_that_went_is_forgotten() {
        let (_world, counter) = world(0);
        let key = Key { namespace: "ns".into(), name: "other".into() };
        counter.quotas.seen(&key);
        assert!(matches!(counter.reconcile(key).await, Ok(Next::Wait)));
        assert!(counter.quotas.lock().is_empty());
    }
}
