//! Events of definitions, and what follows from them.

use super::*;
use serde_json::json;

#[test]
fn a_crd_that_is_there_is_only_renewed_when_its_spec_differs() {
    let desired = json!({"metadata": {"name": "a"}, "spec": {"group": "g", "versions": [{"name": "v1"}]}});
    assert_eq!(updated_spec(None, &desired), Some(desired.clone()));
    let mut existing = desired.clone();
    existing["status"] = json!({"conditions": []});
    existing["metadata"]["uid"] = "u".into();
    let unchanged = updated_spec(Some(&existing), &desired);
    // Defaults that the strategy fills in are no difference once they are stored.
    let mut stored = unchanged.unwrap_or_else(|| existing.clone());
    if let Some(strategy) = crate::resources::customresourcedefinitions::resource().strategy() {
        strategy.default(&mut stored);
    }
    assert_eq!(updated_spec(Some(&stored), &desired), None);
    let mut other = desired.clone();
    other["spec"]["versions"] = json!([{"name": "v2"}]);
    let renewed = updated_spec(Some(&stored), &other).expect("another version");
    assert_eq!(renewed["metadata"]["uid"], "u");
    assert_eq!(renewed["spec"]["versions"][0]["name"], "v2");
}
use crate::cache::{Cache, Object, join_key};
use crate::catalog::{Catalog, Row};
use crate::resources;
use fleetpass_store::MemoryStore;
use fleetpass_store::{Revision, Store, Txn};

/// A definition as it is stored.
fn definition(plural: &str, group: &str, established: bool) -> Value {
    let kind = plural.to_uppercase();
    let names =
        json!({"plural": plural, "singular": plural, "kind": kind, "listKind": format!("{kind}List")});
    let mut definition = json!({
        "kind": "CustomResourceDefinition", "apiVersion": "apiextensions.k8s.io/v1",
        "metadata": {"name": format!("{plural}.{group}"), "uid": "u"},
        "spec": {"group": group, "scope": "Namespaced", "names": names, "versions": [
            {"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object",
                "x-kubernetes-validations": [{"rule": "true"}]}}}]}});
    if established {
        definition["status"] = json!({"acceptedNames": names, "storedVersions": ["v1"], "conditions": [
            {"type": "NamesAccepted", "status": "True"}, {"type": "Established", "status": "True"}]});
    }
    definition
}

fn object(definition: &Value, revision: Revision) -> Arc<Object> {
    let key = join_key(PREFIX, "", meta::name(definition));
    let text = crate::cache::encode_for_storage(definition);
    Arc::new(Object::new(key, revision, text).expect("an object"))
}

/// What the cache does with a write of a definition.
fn write(follower: &dyn Subscriber, definition: &Value, revision: Revision) {
    let object = object(definition, revision);
    follower.prepare(PREFIX, &object);
    follower.on_event(PREFIX, &Event::new(revision, EventKind::Modified, object, None));
}

fn delete(follower: &dyn Subscriber, definition: &Value, revision: Revision) {
    let object = object(definition, revision);
    follower.on_event(PREFIX, &Event::new(revision, EventKind::Deleted, object, None));
}

fn rows(definitions: &Definitions) -> Vec<Arc<Row>> {
    definitions.catalog.kinds().rows().cloned().collect()
}

#[test]
fn an_event_of_one_definition_changes_one_row_and_compiles_nothing() {
    let definitions = Definitions::new(Arc::new(Catalog::new(Vec::new())));
    let follower = definitions.subscriber();
    for index in 0..20 {
        write(&*follower, &definition(&format!("w{index:02}"), "example.com", true), index + 1);
    }
    let before = rows(&definitions);
    assert_eq!(before.len(), 20);
    // A label changes nothing that the row shows; a condition changes the row, but no schema; a schema changes one version.
    let mut changed = definition("w07", "example.com", true);
    changed["metadata"]["labels"] = json!({"a": "b"});
    write(&*follower, &changed, 21);
    assert!(rows(&definitions).iter().zip(&before).all(|(a, b)| Arc::ptr_eq(a, b)));
    changed["status"]["conditions"][0]["message"] = "m".into();
    write(&*follower, &changed, 22);
    changed["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["description"] = "d".into();
    write(&*follower, &changed, 23);
    let after = rows(&definitions);
    let same: Vec<bool> = after.iter().zip(&before).map(|(a, b)| Arc::ptr_eq(a, b)).collect();
    assert_eq!(same.iter().filter(|same| !**same).count(), 1);
    assert!(!same[7]);
    assert!(after.iter().all(|row| !row.resource.versions[0].schema.is_read()), "nobody has needed a schema");
    // Objects of before the change of the schema may have to be shown in another form.
    assert!(after[7].is_uniform(23) && !after[7].is_uniform(22) && after[8].is_uniform(9));
    delete(&*follower, &changed, 24);
    assert_eq!(rows(&definitions).len(), 19);
}

#[test]
fn a_definition_is_read_before_the_lock_is_taken() {
    let definitions = Definitions::new(Arc::new(Catalog::new(Vec::new())));
    let follower = definitions.subscriber();
    let object = object(&definition("widgets", "example.com", true), 7);
    follower.prepare(PREFIX, &object);
    let prepared = definitions.prepared.lock();
    assert!(prepared.front().is_some_and(|(_, known)| known.as_ref().is_ok_and(|known| known.row.is_some())));
    drop(prepared);
    assert!(rows(&definitions).is_empty(), "nobody sees it before its event");
    follower.on_event(PREFIX, &Event::new(7, EventKind::Added, object, None));
    assert_eq!(rows(&definitions).len(), 1);
    assert!(definitions.prepared.lock().is_empty());
}

#[test]
fn what_is_stored_and_no_definition_is_left_out() {
    let definitions = Definitions::new(Arc::new(Catalog::new(Vec::new())));
    let follower = definitions.subscriber();
    let mut broken = definition("widgets", "example.com", true);
    write(&*follower, &broken, 1);
    assert_eq!(rows(&definitions).len(), 1);
    broken["spec"]["versions"] = "none".into();
    write(&*follower, &broken, 2);
    assert!(rows(&definitions).is_empty());
    write(&*follower, &definition("widgets", "example.com", true), 3);
    assert_eq!(rows(&definitions).len(), 1);
}

#[test]
fn a_definition_never_takes_the_place_of_a_builtin_kind() {
    let builtin = vec![resources::roles::resource()];
    let definitions = Definitions::new(Arc::new(Catalog::new(builtin)));
    let follower = definitions.subscriber();
    let group = fleetpass_auth::authz::rbac::GROUP;
    let intruder = definition("roles", group, true);
    write(&*follower, &intruder, 1);
    delete(&*follower, &intruder, 2);
    let kinds = definitions.catalog.kinds();
    assert!(kinds.get(group, "roles").is_some_and(|row| !row.resource.custom));
}

#[test]
fn only_those_that_wait_for_a_name_are_looked_at_when_it_becomes_free() {
    let mut state = State::default();
    let known = |definition: &Value| {
        let text = definition.to_string();
        Some(Arc::new(Known::read(text.as_bytes(), 1, None).expect("a definition")))
    };
    let holder = definition("widgets", "example.com", true);
    let mut waiting = definition("gadgets", "example.com", false);
    waiting["spec"]["names"]["kind"] = "WIDGETS".into();
    let stranger = definition("things", "example.com", true);
    let mut elsewhere = waiting.clone();
    (elsewhere["metadata"]["name"], elsewhere["spec"]["group"]) =
        ("gadgets.other.com".into(), "other.com".into());
    for other in [&holder, &waiting, &stranger, &elsewhere] {
        let name = meta::name(other);
        assert_eq!(state.change(name, known(other)).into_iter().collect::<Vec<_>>(), [name]);
    }
    let due = |state: &mut State, name: &str, now| state.change(name, now).into_iter().collect::<Vec<_>>();
    // Nothing is let go of.
    assert_eq!(due(&mut state, "widgets.example.com", known(&holder)), ["widgets.example.com"]);
    assert_eq!(
        due(&mut state, "widgets.example.com", None),
        ["gadgets.example.com", "widgets.example.com"],
        "the kind is free"
    );
    // Once it has the name, it waits no more.
    waiting["status"] = json!({"conditions": [{"type": "NamesAccepted", "status": "True"}]});
    due(&mut state, "gadgets.example.com", known(&waiting));
    due(&mut state, "widgets.example.com", known(&holder));
    assert_eq!(due(&mut state, "widgets.example.com", None), ["widgets.example.com"]);
}

/// A registry over a store in memory that has these objects, and what follows its definitions.
async fn world(objects: &[(&str, &Value)]) -> (Arc<dyn Store>, Arc<Registry>, Arc<Definitions>) {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    for (key, object) in objects {
        store.commit(Txn::put(*key, crate::cache::encode_for_storage(object))).await.expect("written");
    }
    let catalog = Arc::new(Catalog::new(vec![resources::customresourcedefinitions::resource()]));
    let definitions = Definitions::new(catalog.clone());
    let stop = CancellationToken::new();
    let cache = Cache::start(store.clone(), vec![definitions.subscriber()], stop).await.expect("loaded");
    let authorizer = Arc::new(resources::testing::Allowed::default());
    let clock = fleetpass_api::clock::system();
    let registry = Arc::new(Registry::new(store.clone(), cache, catalog, authorizer, clock));
    (store, registry, definitions)
}

/// The definitions that are due, in order, until `last` is.
async fn due_until(definitions: &Definitions, last: &str) -> Vec<String> {
    let backlog = definitions.backlog.lock().take().expect("nobody has taken it");
    let (seen, stop) = (Mutex::new(Vec::new()), CancellationToken::new());
    let record = |name: String| {
        if name == last {
            stop.cancel();
        }
        seen.lock().push(name);
        async { Ok::<_, ()>(Next::Wait) }
    };
    backlog.work(Options::workers(1), stop.clone(), record, |_, _| {}).await;
    seen.into_inner()
}

#[tokio::test]
async fn a_deleted_definition_waits_for_its_objects_without_looking_at_them_again_and_again() {
    let mut deleted = definition("widgets", "example.com", true);
    deleted["metadata"]["deletionTimestamp"] = "2026-01-02T03:04:05Z".into();
    deleted["metadata"]["finalizers"] = json!([CLEANUP_FINALIZER]);
    let held = json!({"kind": "WIDGETS", "apiVersion": "example.com/v1", "metadata": {"name": "a", "namespace": "n",
        "uid": "v", "finalizers": ["example.com/wait"]}});
    let (of, widget) = (
        "/registry/apiextensions.k8s.io/customresourcedefinitions/widgets.example.com",
        "/registry/example.com/widgets/n/a",
    );
    let (store, registry, definitions) = world(&[(of, &deleted), (widget, &held)]).await;
    let name = "widgets.example.com";
    assert!(matches!(definitions.reconcile(&registry, name).await, Err(Pending::Held)));
    let marked = registry.cache().get(widget).expect("held").value();
    assert!(meta::is_being_deleted(&marked));
    // The object was asked to go. Looking again writes nothing, and asks no object.
    let revision = store.revision().await.expect("a revision");
    for _ in 0..3 {
        assert!(matches!(definitions.reconcile(&registry, name).await, Err(Pending::Held)));
    }
    assert_eq!(store.revision().await.expect("a revision"), revision);
    // One whose creation was under way is asked when it appears.
    let late = "/registry/example.com/widgets/n/b";
    let mut second = held.clone();
    (second["metadata"]["name"], second["metadata"]["finalizers"]) = ("b".into(), json!([]));
    let written =
        store.commit(Txn::put(late, crate::cache::encode_for_storage(&second))).await.expect("written");
    registry.cache().wait_for(written).await;
    assert!(matches!(definitions.reconcile(&registry, name).await, Err(Pending::Held)));
    assert!(registry.cache().get(late).is_none(), "it was deleted");
    // When the last one goes, the finalizer goes.
    let gone = store.commit(Txn::remove(widget)).await.expect("removed");
    registry.cache().wait_for(gone).await;
    assert!(definitions.reconcile(&registry, name).await.is_ok());
    assert!(registry.cache().get(of).is_none());
    assert_eq!(definitions.terminating_count.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn only_the_definition_whose_objects_go_is_woken() {
    let (first, second) =
        (definition("widgets", "example.com", true), definition("gadgets", "example.com", true));
    let prefix = "/registry/apiextensions.k8s.io/customresourcedefinitions";
    let of = |name: &str| format!("{prefix}/{name}.example.com");
    let (_, registry, definitions) = world(&[(&of("widgets"), &first), (&of("gadgets"), &second)]).await;
    definitions.await_objects("widgets.example.com", "/registry/example.com/widgets");
    // Objects of others, and changes of its own, wake nobody.
    definitions.on_object("/registry/example.com/gadgets", EventKind::Deleted);
    definitions.on_object("/registry/example.com/widgets", EventKind::Modified);
    definitions.due.add("first round".into());
    let mut loaded = due_until(&definitions, "first round").await;
    loaded.sort();
    assert_eq!(loaded, ["first round", "gadgets.example.com", "widgets.example.com"], "those of the load");
    let (due, backlog) = queue(BACKOFF);
    let mut definitions = Arc::into_inner(Definitions::new(registry.catalog().clone())).expect("ours alone");
    (definitions.due, definitions.backlog) = (due, Mutex::new(Some(backlog)));
    definitions.await_objects("widgets.example.com", "/registry/example.com/widgets");
    definitions.on_object("/registry/example.com/gadgets", EventKind::Deleted);
    definitions.on_object("/registry/example.com/widgets", EventKind::Deleted);
    definitions.due.add("end".into());
    assert_eq!(due_until(&definitions, "end").await, ["widgets.example.com", "end"]);
}
