use super::*;
use crate::discovery::Discovered;
use crate::mock::{Answer, server};
use kube::runtime::watcher;
use std::collections::BTreeMap;

fn configmaps() -> Arc<ResourceType> {
    Arc::new(ResourceType::of("", "ConfigMap", "configmaps", true))
}

fn secrets() -> Arc<ResourceType> {
    Arc::new(ResourceType::of("", "Secret", "secrets", true))
}

fn object(name: &str, owner: Option<&str>) -> Value {
    let reference = |owner: &str| json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": owner, "uid": format!("uid-{owner}")}]);
    json!({"metadata": {"name": name, "namespace": "n", "uid": format!("uid-{name}"), "resourceVersion": "1",
        "ownerReferences": owner.map_or(json!([]), reference)}})
}

/// An object that is being deleted with the policy to orphan what depends on it.
fn orphaning(name: &str) -> Value {
    let mut object = object(name, None);
    object["metadata"]["finalizers"] = json!([ORPHAN]);
    object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    object
}

/// A server with objects of one kind, which notes what it is asked; a patch takes the owners or the finalizers away.
#[derive(Clone, Default)]
struct World {
    objects: Arc<Mutex<BTreeMap<String, Value>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl World {
    fn collector(&self) -> (Collector, Backlog<Work>, Box<dyn Observer>) {
        let world = self.clone();
        let client = server(move |request| {
            world.asked.lock().unwrap().push(format!("{} {}", request.method, request.path));
            let mut objects = world.objects.lock().unwrap();
            let name = request.path.rsplit('/').next().unwrap_or_default().to_owned();
            let Some(object) = objects.get_mut(&name) else { return Answer::not_found() };
            for member in ["ownerReferences", "finalizers"] {
                if let Some(value) = request.body.pointer(&format!("/metadata/{member}")) {
                    object["metadata"][member] = value.clone();
                }
            }
            let answer = Answer::ok(object.clone());
            let gone = object["metadata"]["deletionTimestamp"].is_string()
                && object["metadata"]["finalizers"] == json!([]);
            if gone || request.method == "DELETE" {
                objects.remove(&name);
            }
            answer
        });
        let resources = Resources::default();
        resources.set(Discovered {
            resources: vec![configmaps(), secrets()],
            failed: std::collections::BTreeMap::default(),
        });
        collector(client, resources)
    }

    fn add(&self, object: Value) {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        self.objects.lock().unwrap().insert(name, object);
    }

    fn asked(&self) -> Vec<String> {
        let mut asked = std::mem::take(&mut *self.asked.lock().unwrap());
        asked.sort_unstable();
        asked.iter().map(|line| line.replace("/api/v1/namespaces/n/", "")).collect()
    }
}

type Metadata = kube::core::PartialObjectMeta<DynamicObject>;

fn told(observer: &dyn Observer, event: fn(Metadata) -> Event, object: &Value) {
    observer.observe(&configmaps(), &event(serde_json::from_value(object.clone()).unwrap()));
}

fn listed(observer: &dyn Observer, resource: &Arc<ResourceType>) {
    observer.observe(resource, &watcher::Event::Init);
    observer.observe(resource, &watcher::Event::InitDone);
}

#[tokio::test]
async fn orphaning_costs_what_depends_on_the_owner() {
    let world = World::default();
    let (collector, _backlog, observer) = world.collector();
    let owner = Uid::of("uid-owner");
    let objects =
        [orphaning("owner"), object("a", Some("owner")), object("b", Some("owner")), object("c", None)];
    listed(&*observer, &configmaps());
    for object in &objects {
        world.add(object.clone());
        told(&*observer, watcher::Event::Apply, object);
    }
    // Secrets may depend on it, too.
    let early = collector.reconcile(Work::Orphan(owner)).await;
    assert!(matches!(early, Err(Error::Incomplete(_))), "{early:?}");
    assert_eq!(world.asked(), [] as [&str; 0]);
    listed(&*observer, &secrets());
    collector.reconcile(Work::Orphan(owner)).await.unwrap();
    assert_eq!(
        world.asked(),
        [
            "GET configmaps/a",
            "GET configmaps/b",
            "GET configmaps/owner",
            "PATCH configmaps/a",
            "PATCH configmaps/b",
            "PATCH configmaps/owner"
        ]
    );
    let objects = world.objects.lock().unwrap();
    assert_eq!(objects.keys().collect::<Vec<_>>(), ["a", "b", "c"]);
    assert!(objects.values().all(|object| object["metadata"]["ownerReferences"] == json!([])));
}

#[tokio::test]
async fn a_dependent_of_which_a_watch_tells_late_is_orphaned_all_the_same() {
    let world = World::default();
    let (collector, _backlog, observer) = world.collector();
    listed(&*observer, &configmaps());
    listed(&*observer, &secrets());
    let (owner, late) = (orphaning("owner"), object("late", Some("owner")));
    world.add(owner.clone());
    world.add(late.clone());
    told(&*observer, watcher::Event::Apply, &owner);
    collector.reconcile(Work::Orphan(Uid::of("uid-owner"))).await.unwrap();
    told(&*observer, watcher::Event::Delete, &owner);
    told(&*observer, watcher::Event::Apply, &late);
    collector.reconcile(Work::Check(Uid::of("uid-late"))).await.unwrap();
    assert_eq!(world.objects.lock().unwrap()["late"]["metadata"]["ownerReferences"], json!([]));
    // That of another owner that is gone is garbage.
    let garbage = object("garbage", Some("nobody"));
    world.add(garbage.clone());
    told(&*observer, watcher::Event::Apply, &garbage);
    collector.reconcile(Work::Check(Uid::of("uid-garbage"))).await.unwrap();
    assert_eq!(world.objects.lock().unwrap().keys().collect::<Vec<_>>(), ["late"]);
}
