//! The deletion of what is in a namespace that is being deleted.
//!
//! # Flow
//! A namespace with a deletion timestamp comes into the queue after a grace period, in which every server of the
//! control plane notices that nothing may be created there any more. Each pass discovers the resources, deletes all
//! objects of each, pods first, counts what is left, and writes conditions into the namespace's status. When nothing
//! is left and nothing failed, `kubernetes` is taken out of `spec.finalizers` through the subresource `finalize`; the
//! server then removes the namespace. (`pkg/controller/namespace/deletion/namespaced_resources_deleter.go`.)
//!
//! # Guarantees
//! - The namespace is not released while a group version does not answer, an object is left, or a deletion failed.
//! - When an object goes that was left, the next pass follows at once: nothing polls.
//!
//! # Caveats
//! Objects that the server offers to list and delete but not to watch are looked at every [`UNWATCHED`].

use super::conditions::{Outcome, conditions};
use crate::Error;
use crate::discovery::{Discovered, ResourceType, discover};
use crate::live::{self, api, is_conflict, is_not_found, is_unsupported, patcher, writer};
use crate::monitor::{Event, Observer};
use crate::queue::{Backlog, Next, Queue, queue, work};
use fleetpass_api::clock::SharedClock;
use fleetpass_apimachinery::time::whole_seconds;
use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, Patch};
use kube::core::{ApiResource, DynamicObject};
use kube::{Api, Client};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The finalizer in `spec.finalizers` that this controller works for.
const KUBERNETES: &str = "kubernetes";
/// How often a namespace with content is looked at although nothing was seen to go.
const UNWATCHED: Duration = Duration::from_secs(30);
/// How long to wait for further deletions when one was seen.
const GATHER: Duration = Duration::from_millis(20);

/// How many objects are deleted at once where the server cannot delete all of a resource by itself.
const AT_ONCE: usize = 16;

/// The namespaces that have content left, so that the deletion of an object is of interest only there. A std mutex: it
/// is held for one operation of the set, on the path of every deletion on the server.
type Held = Arc<Mutex<HashSet<String>>>;

struct Listener {
    queue: Queue<String>,
    held: Held,
    grace: Duration,
}

impl Observer for Listener {
    fn observe(&self, resource: &Arc<ResourceType>, event: &Event) {
        match event {
            Event::Apply(object) | Event::InitApply(object) if resource.is("", "namespaces") => {
                if object.metadata.deletion_timestamp.is_some()
                    && let Some(name) = &object.metadata.name
                {
                    self.queue.add_after(name.clone(), self.grace);
                }
            }
            Event::Delete(object) => {
                if let Some(namespace) = &object.metadata.namespace
                    && self.held.lock().unwrap_or_else(PoisonError::into_inner).contains(namespace)
                {
                    self.queue.add_after(namespace.clone(), GATHER);
                }
            }
            _ => {}
        }
    }
}

/// Deletes content.
pub(crate) struct Deleter {
    client: Client,
    clock: SharedClock,
    held: Held,
}

/// The deleter, its backlog, and what must observe the resources. Namespaces are left alone for `grace` after their
/// deletion was asked for.
pub(crate) fn deleter(
    client: Client,
    clock: SharedClock,
    grace: Duration,
) -> (Deleter, Backlog<String>, Box<dyn Observer>) {
    let (queue, backlog) = queue();
    let held = Held::default();
    let listener = Listener { queue, held: held.clone(), grace };
    (Deleter { client, clock, held }, backlog, Box::new(listener))
}

/// Deletes until `stop`.
pub(crate) async fn run(deleter: Deleter, backlog: Backlog<String>, stop: CancellationToken) {
    work("namespace-content", backlog, 8, stop, |name| deleter.reconcile(name)).await;
}

/// What is to be done with a namespace.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// Nothing: it is not being deleted, or was released already.
    Nothing,
    /// Say that it is terminating, then look again.
    SetPhase,
    /// Delete its content.
    Empty,
}

fn step(namespace: &DynamicObject) -> Step {
    let finalizers = namespace.data.pointer("/spec/finalizers").and_then(Value::as_array);
    let ours =
        finalizers.is_some_and(|finalizers| finalizers.iter().any(|finalizer| finalizer == KUBERNETES));
    if namespace.metadata.deletion_timestamp.is_none() || !ours {
        Step::Nothing
    } else if namespace.data.pointer("/status/phase").and_then(Value::as_str) != Some("Terminating") {
        Step::SetPhase
    } else {
        Step::Empty
    }
}

/// `namespace` without this controller's finalizer.
fn released(mut namespace: DynamicObject) -> DynamicObject {
    if let Some(finalizers) = namespace.data.pointer_mut("/spec/finalizers").and_then(Value::as_array_mut) {
        finalizers.retain(|finalizer| finalizer != KUBERNETES);
    }
    namespace
}

/// Adds what is left of a resource to `outcome`.
fn count(resource: &ResourceType, namespace: &str, left: &[ObjectMeta], outcome: &mut Outcome) {
    if left.is_empty() {
        return;
    }
    let ApiResource { group, version, plural, .. } = &resource.api;
    outcome.remaining.insert(format!("{plural}.{group}"), left.len());
    let held: Vec<_> = left.iter().flat_map(|meta| meta.finalizers.iter().flatten()).collect();
    for finalizer in &held {
        *outcome.finalizers.entry((*finalizer).clone()).or_default() += 1;
    }
    let going = |meta: &ObjectMeta| meta.deletion_grace_period_seconds.is_some_and(|seconds| seconds > 0);
    if held.is_empty() && !left.iter().any(going) {
        // Nothing holds them, so they should be gone.
        let gvr = if group.is_empty() { format!("/{version}") } else { format!("{group}/{version}") };
        let gvr = format!("{gvr}, Resource={plural}");
        outcome
            .failures
            .push(format!("unexpected items still remain in namespace: {namespace} for gvr: {gvr}"));
    }
}

/// The resources whose objects are to be deleted: pods, and the others.
fn deletable(discovered: &Discovered) -> (Vec<&ResourceType>, Vec<&ResourceType>) {
    let resources = discovered.resources.iter().map(Arc::as_ref);
    resources
        .filter(|resource| resource.namespaced && resource.can(&["delete"]))
        .partition(|r| r.is("", "pods"))
}

impl Deleter {
    async fn reconcile(&self, name: String) -> Result<Next, Error> {
        let namespaces = api(&self.client, &ApiResource::erase::<Namespace>(&()), None);
        let Some(mut namespace) = namespaces.get_opt(&name).await? else {
            self.hold(&name, false);
            return Ok(Next::Wait);
        };
        // Before anything is deleted: once it is terminating, admission lets nobody create what would be missed.
        if step(&namespace) == Step::SetPhase {
            let patch = json!({"metadata": {"resourceVersion": namespace.metadata.resource_version},
                "status": {"phase": "Terminating"}});
            namespace = namespaces.patch_status(&name, &patcher(), &Patch::Merge(&patch)).await?;
        }
        if step(&namespace) != Step::Empty {
            self.hold(&name, false);
            return Ok(Next::Wait);
        }
        // Before the content is listed: from here on a deletion brings the namespace back into the queue, so none that
        // happens after the list is missed.
        self.hold(&name, true);
        let outcome = self.empty(&name).await;
        let complete = outcome.is_complete();
        // The status first, as upstream: after the release there is no namespace to write it to.
        let namespace = self.report(&namespaces, namespace, &outcome).await?;
        if complete {
            // A replacement at the version that was read: what somebody added to the finalizers meanwhile is not lost.
            match namespaces.replace_subresource("finalize", &name, &writer(), &released(namespace)).await {
                Err(error) if !is_not_found(&error) => return Err(error.into()),
                _ => self.hold(&name, false),
            }
            return Ok(Next::Wait);
        }
        match outcome.discovery.as_ref().or(outcome.failures.first()) {
            Some(failure) => Err(Error::Incomplete(failure.clone())),
            None => Ok(Next::After(UNWATCHED)),
        }
    }

    fn hold(&self, name: &str, hold: bool) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if hold {
            held.insert(name.to_owned());
        } else {
            held.remove(name);
        }
    }

    /// Writes how it went into the status; gives the namespace as it is then.
    async fn report(
        &self,
        namespaces: &Api<DynamicObject>,
        mut namespace: DynamicObject,
        outcome: &Outcome,
    ) -> Result<DynamicObject, Error> {
        let name = namespace.metadata.name.clone().unwrap_or_default();
        let uid = namespace.metadata.uid.clone();
        loop {
            let before: Vec<NamespaceCondition> = match namespace.data.pointer("/status/conditions") {
                None | Some(Value::Null) => Vec::new(),
                Some(before) => serde_json::from_value(before.clone()).map_err(kube::Error::SerdeError)?,
            };
            let Some(after) = conditions(&before, outcome, whole_seconds(self.clock.now())) else {
                return Ok(namespace);
            };
            let patch = json!({"metadata": {"resourceVersion": namespace.metadata.resource_version},
                "status": {"conditions": after}});
            match namespaces.patch_status(&name, &patcher(), &Patch::Merge(&patch)).await {
                Ok(namespace) => return Ok(namespace),
                Err(error) if is_conflict(&error) => namespace = namespaces.get(&name).await?,
                Err(error) => return Err(error.into()),
            }
            // It went and was created anew meanwhile: what was found out is about the old one.
            if namespace.metadata.uid != uid {
                return Err(Error::Incomplete(
                    "the namespace was replaced by another one of its name".into(),
                ));
            }
        }
    }

    /// Deletes what is there and tells what is left.
    async fn empty(&self, namespace: &str) -> Outcome {
        let mut outcome = Outcome::default();
        let discovered = match discover(&self.client).await {
            Ok(discovered) => discovered,
            Err(error) => {
                outcome.discovery = Some(error.to_string());
                return outcome;
            }
        };
        outcome.discovery = discovered.failure().map(|why| {
            format!("Discovery failed for some groups, {} failing: {why}", discovered.failed.len())
        });
        // Pods first, as upstream (`OrderedNamespaceDeletion`): what guards them, such as a NetworkPolicy, must not go
        // before they do.
        let (pods, others) = deletable(&discovered);
        for resource in pods {
            self.delete(resource, namespace, &mut outcome).await;
        }
        if outcome.remaining.is_empty() && outcome.failures.is_empty() {
            for resource in others {
                self.delete(resource, namespace, &mut outcome).await;
            }
        }
        outcome
    }

    async fn delete(&self, resource: &ResourceType, namespace: &str, outcome: &mut Outcome) {
        match self.try_delete(resource, namespace).await {
            Ok(left) => count(resource, namespace, &left, outcome),
            Err(error) => outcome.failures.push(error.to_string()),
        }
    }

    /// Deletes the objects of a resource and gives those that are still there.
    async fn try_delete(&self, resource: &ResourceType, namespace: &str) -> Result<Vec<ObjectMeta>, Error> {
        // The list decides, not the answer to the deletion: finalizers may hold what was deleted.
        let all_at_once = resource.can(&["deletecollection"])
            && live::delete_all(&self.client, &resource.api, namespace).await?;
        if !resource.can(&["list"]) {
            return Ok(Vec::new());
        }
        if !all_at_once {
            let objects = api(&self.client, &resource.api, Some(namespace));
            let params = DeleteParams::background();
            let left = self.list(resource, namespace).await?;
            futures::stream::iter(left.iter().filter_map(|meta| meta.name.as_deref()).map(Ok))
                .try_for_each_concurrent(AT_ONCE, |name| live::delete(&objects, name, &params))
                .await?;
        }
        self.list(resource, namespace).await
    }

    async fn list(&self, resource: &ResourceType, namespace: &str) -> Result<Vec<ObjectMeta>, Error> {
        match live::list(&self.client, &resource.api, Some(namespace), None).await {
            // It is told in discovery but not served: a definition is just going. Nothing can be left of it.
            Err(Error::Kube(error)) if is_not_found(&error) || is_unsupported(&error) => Ok(Vec::new()),
            result => result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mock::{Answer, server};

    fn namespace(value: Value) -> DynamicObject {
        serde_json::from_value(value).unwrap()
    }

    fn terminating() -> Value {
        json!({"apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": "n", "uid": "u", "resourceVersion": "5", "deletionTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"finalizers": ["example.com/mine", "kubernetes"]}, "status": {"phase": "Terminating"}})
    }

    #[test]
    fn only_going_namespaces_that_wait_for_us_are_emptied() {
        assert_eq!(step(&namespace(terminating())), Step::Empty);
        let mut active = terminating();
        active["status"]["phase"] = json!("Active");
        assert_eq!(step(&namespace(active)), Step::SetPhase);
        assert_eq!(step(&released(namespace(terminating()))), Step::Nothing);
        let mut alive = terminating();
        alive["metadata"]["deletionTimestamp"] = Value::Null;
        assert_eq!(step(&namespace(alive)), Step::Nothing);
    }

    #[test]
    fn what_nothing_holds_and_is_still_there_is_a_failure() {
        let left = |value: Value| vec![serde_json::from_value::<ObjectMeta>(value).unwrap()];
        let secrets = ResourceType::of("", "Secret", "secrets", true);
        let mut outcome = Outcome::default();
        count(&secrets, "n", &left(json!({"finalizers": ["a.b/c"]})), &mut outcome);
        assert!(outcome.failures.is_empty() && outcome.finalizers["a.b/c"] == 1);
        count(&secrets, "n", &left(json!({"deletionGracePeriodSeconds": 30})), &mut outcome);
        assert!(outcome.failures.is_empty());
        count(&secrets, "n", &left(json!({})), &mut outcome);
        assert_eq!(
            outcome.failures,
            ["unexpected items still remain in namespace: n for gvr: /v1, Resource=secrets"]
        );
    }

    type Writes = Arc<Mutex<Vec<(String, Value)>>>;

    /// A server with one resource, `secrets`, of which the objects `left` cannot be deleted; it records the writes.
    fn server_with(left: Value) -> (Client, Writes) {
        let writes = Writes::default();
        let log = writes.clone();
        let client = server(move |request| match (request.method.as_str(), request.path.as_str()) {
            ("GET", "/api") => Answer::ok(json!({"kind": "APIVersions", "versions": ["v1"]})),
            ("GET", "/apis") => Answer::ok(json!({"kind": "APIGroupList", "groups": []})),
            ("GET", "/api/v1") => Answer::ok(json!({"groupVersion": "v1", "resources": [
                {"name": "secrets", "singularName": "", "namespaced": true, "kind": "Secret",
                    "verbs": ["delete", "deletecollection", "list"]}]})),
            ("GET", "/api/v1/namespaces/n") => Answer::ok(terminating()),
            ("GET", "/api/v1/namespaces/n/secrets") => {
                Answer::ok(json!({"kind": "PartialObjectMetadataList", "metadata": {}, "items": left}))
            }
            ("GET", _) => Answer::not_found(),
            (method, path) => {
                log.lock().unwrap().push((format!("{method} {path}"), request.body.clone()));
                let mut answer = terminating();
                answer["status"] = request.body["status"].clone();
                Answer::ok(answer)
            }
        });
        (client, writes)
    }

    #[tokio::test]
    async fn an_empty_namespace_is_released_through_finalize() {
        let (client, writes) = server_with(json!([]));
        let (deleter, _backlog, _) = deleter(client, fleetpass_api::clock::system(), Duration::ZERO);
        assert_eq!(deleter.reconcile("n".into()).await.unwrap(), Next::Wait);
        let writes = writes.lock().unwrap();
        let paths: Vec<_> = writes.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "DELETE /api/v1/namespaces/n/secrets",
                "PATCH /api/v1/namespaces/n/status",
                "PUT /api/v1/namespaces/n/finalize"
            ]
        );
        assert_eq!(writes[2].1["spec"]["finalizers"], json!(["example.com/mine"]));
        assert!(deleter.held.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_held_object_holds_the_namespace_until_it_is_seen_to_go() {
        let (client, writes) =
            server_with(json!([{"metadata": {"name": "s", "finalizers": ["example.com/hold"]}}]));
        let (deleter, _backlog, _) = deleter(client, fleetpass_api::clock::system(), Duration::ZERO);
        assert_eq!(deleter.reconcile("n".into()).await.unwrap(), Next::After(UNWATCHED));
        assert!(deleter.held.lock().unwrap().contains("n"));
        let writes = writes.lock().unwrap();
        assert!(!writes.iter().any(|(path, _)| path.ends_with("finalize")));
        assert_eq!(
            writes[1].1["status"]["conditions"][4]["message"],
            "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances"
        );
    }
}
