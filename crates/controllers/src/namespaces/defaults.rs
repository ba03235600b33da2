//! What every namespace has: the ServiceAccount `default` and the ConfigMap `kube-root-ca.crt`.
//!
//! # Flow
//! A namespace that appears, and an account or a ConfigMap of these names that changes or goes, put the namespace in
//! the queue; both objects are read and made or mended. (`pkg/controller/serviceaccount/serviceaccounts_controller.go`
//! and `pkg/controller/certificates/rootcacertpublisher/publisher.go` in Kubernetes.)
//!
//! # Guarantees
//! Both objects exist in every namespace that is not being deleted, and the ConfigMap holds exactly the CA bundle,
//! whoever edits it. An existing account is never changed.
//!
//! # Caveats
//! Without a CA bundle in the options no ConfigMap is made, and those that exist are left alone.

use crate::Error;
use crate::discovery::ResourceType;
use crate::live::{self, api, is_conflict, is_namespace_going, writer};
use crate::monitor::{Event, Observer};
use crate::queue::{Backlog, Next, Queue, queue, work};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use kube::core::{ApiResource, DynamicObject};
use kube::{Api, Client};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio_util::sync::CancellationToken;

/// The account of everything that names none.
const ACCOUNT: &str = "default";
/// The ConfigMap with the CA bundle.
const ROOT_CA: &str = "kube-root-ca.crt";
/// The annotation that says what the ConfigMap is for.
const DESCRIPTION: &str = "kubernetes.io/description";
/// What it says.
const PURPOSE: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal \
    endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across \
    distributions of Kubernetes clusters.";

/// What is to be looked at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    /// One namespace.
    Namespace(String),
    /// All of them: a deletion may have been missed.
    All,
}

struct Listener {
    queue: Queue<Key>,
    /// Whether accounts and ConfigMaps were listed before: the first lists miss nothing.
    listed: [AtomicBool; 2],
}

impl Observer for Listener {
    fn observe(&self, resource: &Arc<ResourceType>, event: &Event) {
        if resource.is("", "namespaces") {
            if let Event::Apply(object) | Event::InitApply(object) = event
                && object.metadata.deletion_timestamp.is_none()
                && let Some(name) = &object.metadata.name
            {
                self.queue.add(Key::Namespace(name.clone()));
            }
            return;
        }
        let (name, listed) = match resource.api.plural.as_str() {
            "serviceaccounts" if resource.api.group.is_empty() => (ACCOUNT, &self.listed[0]),
            "configmaps" if resource.api.group.is_empty() => (ROOT_CA, &self.listed[1]),
            _ => return,
        };
        match event {
            // Listed ones are looked at because their namespaces are listed too.
            Event::Init | Event::InitApply(_) => {}
            Event::InitDone => {
                if listed.swap(true, Ordering::Relaxed) {
                    self.queue.add(Key::All);
                }
            }
            Event::Apply(object) | Event::Delete(object) => {
                if object.metadata.name.as_deref() == Some(name)
                    && let Some(namespace) = &object.metadata.namespace
                {
                    self.queue.add(Key::Namespace(namespace.clone()));
                }
            }
        }
    }
}

/// Keeps the objects that each namespace has.
pub(crate) struct Defaults {
    client: Client,
    root_ca: Option<String>,
    queue: Queue<Key>,
}

/// The keeper for a CA bundle (PEM), its backlog, and what must observe the resources.
pub(crate) fn defaults(
    client: Client,
    root_ca: Option<String>,
) -> (Defaults, Backlog<Key>, Box<dyn Observer>) {
    let (queue, backlog) = queue();
    let listener = Listener { queue: queue.clone(), listed: Default::default() };
    (Defaults { client, root_ca, queue }, backlog, Box::new(listener))
}

/// Keeps them until `stop`.
pub(crate) async fn run(defaults: Defaults, backlog: Backlog<Key>, stop: CancellationToken) {
    // Several at once: installers create namespaces in a row, and nobody can run as `default` before it is there.
    work("namespace-defaults", backlog, 8, stop, |key| defaults.reconcile(key)).await;
}

impl Defaults {
    async fn reconcile(&self, key: Key) -> Result<Next, Error> {
        match key {
            Key::Namespace(namespace) => match self.keep(&namespace).await {
                // Nothing can be made there any more, and nothing needs to be.
                Err(Error::Kube(error)) if is_namespace_going(&error) => {}
                result => result?,
            },
            // Put into the queue one by one, so that one that fails does not hold up the others.
            Key::All => {
                for namespace in
                    live::list(&self.client, &ApiResource::erase::<Namespace>(&()), None, None).await?
                {
                    if namespace.deletion_timestamp.is_none() {
                        self.queue.add(Key::Namespace(namespace.name.unwrap_or_default()));
                    }
                }
            }
        }
        Ok(Next::Wait)
    }

    async fn keep(&self, namespace: &str) -> Result<(), Error> {
        let accounts = api(&self.client, &ApiResource::erase::<ServiceAccount>(&()), Some(namespace));
        if live::metadata(&accounts, ACCOUNT).await?.is_none() {
            let account = json!({"apiVersion": "v1", "kind": "ServiceAccount",
                "metadata": {"name": ACCOUNT, "namespace": namespace}});
            create(&accounts, account).await?;
        }
        let Some(bundle) = &self.root_ca else { return Ok(()) };
        let maps = api(&self.client, &ApiResource::erase::<ConfigMap>(&()), Some(namespace));
        match maps.get_opt(ROOT_CA).await? {
            None => create(&maps, root_ca(namespace, bundle)).await,
            // A replacement at the version that was read. A conflict is an error, after which it is read again.
            Some(map) => match mended(map, bundle) {
                None => Ok(()),
                Some(map) => Ok(maps.replace(ROOT_CA, &writer(), &map).await.map(drop)?),
            },
        }
    }
}

/// Creates an object; that someone else was faster is no error.
async fn create(objects: &Api<DynamicObject>, object: Value) -> Result<(), Error> {
    let object = serde_json::from_value(object).map_err(kube::Error::SerdeError)?;
    match objects.create(&writer(), &object).await {
        Err(error) if !is_conflict(&error) && !already_exists(&error) => Err(error.into()),
        _ => Ok(()),
    }
}

fn already_exists(error: &kube::Error) -> bool {
    live::refusal(error).is_some_and(kube::core::Status::is_already_exists)
}

fn root_ca(namespace: &str, bundle: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"ca.crt": bundle},
        "metadata": {"name": ROOT_CA, "namespace": namespace, "annotations": {DESCRIPTION: PURPOSE}}})
}

/// The ConfigMap as it should be, if it is not.
fn mended(mut map: DynamicObject, bundle: &str) -> Option<DynamicObject> {
    let data = json!({"ca.crt": bundle});
    let described = map.metadata.annotations.iter().flatten().any(|(key, _)| key == DESCRIPTION);
    if map.data.get("data") == Some(&data) && described {
        return None;
    }
    map.data["data"] = data;
    map.metadata.annotations.get_or_insert_default().insert(DESCRIPTION.into(), PURPOSE.into());
    Some(map)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mock::{Answer, server};
    use std::sync::Mutex;

    fn map(value: Value) -> DynamicObject {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_right_bundle_is_left_alone_and_a_wrong_one_replaced() {
        assert!(mended(map(root_ca("ns", "PEM")), "PEM").is_none());
        let mut edited = map(root_ca("ns", "PEM"));
        edited.data["data"]["more"] = json!("x");
        edited.metadata.resource_version = Some("7".into());
        let mended_map = mended(edited, "PEM").unwrap();
        assert_eq!(mended_map.data["data"], json!({"ca.crt": "PEM"}));
        assert_eq!(mended_map.metadata.resource_version.as_deref(), Some("7"), "a later edit makes it fail");
        let mut undescribed = map(root_ca("ns", "PEM"));
        undescribed.metadata.annotations = Some([("mine".into(), "1".into())].into());
        assert_eq!(mended(undescribed, "PEM").unwrap().metadata.annotations.unwrap().len(), 2);
    }

    #[tokio::test]
    async fn a_namespace_gets_both_objects_and_a_going_one_none() {
        let made: Arc<Mutex<Vec<(String, Value)>>> = Arc::default();
        let log = made.clone();
        let client = server(move |request| match request.method.as_str() {
            "GET" => Answer::not_found(),
            _ if request.path.contains("/going/") => Answer::refusal(
                403,
                json!({"reason": "Forbidden", "details": {"causes": [{"reason": "NamespaceTerminating"}]}}),
            ),
            _ => {
                log.lock().unwrap().push((request.path.clone(), request.body.clone()));
                Answer::ok(request.body)
            }
        });
        let (keeper, _backlog, _) = defaults(client, Some("PEM".into()));
        keeper.reconcile(Key::Namespace("team".into())).await.unwrap();
        assert_eq!(keeper.reconcile(Key::Namespace("going".into())).await.unwrap(), Next::Wait);
        let made = made.lock().unwrap();
        let paths: Vec<_> = made.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(paths, ["/api/v1/namespaces/team/serviceaccounts", "/api/v1/namespaces/team/configmaps"]);
        assert_eq!(made[1].1["data"]["ca.crt"], "PEM");
    }
}
