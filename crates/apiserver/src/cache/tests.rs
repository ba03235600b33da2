use super::*;

const PREFIX: &str = "/registry/things";

/// A cache that follows nothing: commits are applied by hand.
fn cache() -> Arc<Cache> {
    Arc::new(Cache {
        inner: RwLock::default(),
        revision: watch::Sender::new(0),
        subscribers: Vec::new(),
        following: AtomicBool::new(true),
    })
}

fn put(cache: &Cache, revision: Revision, name: &str) {
    let entry = Entry {
        key: format!("{PREFIX}/{name}").into(),
        value: r#"{"metadata":{}}"#.into(),
        create_revision: revision,
        mod_revision: revision,
    };
    cache.apply(&fleetpass_store::Event { revision, changes: vec![Change::Put(entry)] });
}

fn delete(cache: &Cache, revision: Revision, name: &str) {
    let key = format!("{PREFIX}/{name}").into();
    let change = Change::Delete { key, prev_create_revision: 0, prev_mod_revision: 0 };
    cache.apply(&fleetpass_store::Event { revision, changes: vec![change] });
}

fn shown(objects: &Objects) -> Vec<(String, Revision)> {
    objects.iter().map(|(key, object)| (key[PREFIX.len() + 1..].into(), object.revision)).collect()
}

/// What a resource was at each revision, beginning with 0.
fn history(cache: &Cache, revisions: Revision) -> Vec<Vec<(String, Revision)>> {
    let mut states = vec![Vec::new()];
    for revision in 1..=revisions {
        // Names come again, so objects are created, changed and deleted.
        let name = format!("{}", revision * 7 % 13);
        let there = cache.get(&format!("{PREFIX}/{name}")).is_some();
        if there && revision % 3 == 0 {
            delete(cache, revision, &name)
        } else {
            put(cache, revision, &name)
        }
        states.push(shown(&cache.snapshot(PREFIX).1));
    }
    states
}

#[test]
fn every_state_of_the_window_is_found_in_whatever_order_it_is_asked_for() {
    let cache = cache();
    let states = history(&cache, 200);
    for step in [1, 7, 113] {
        for n in 0..=200 {
            let revision = n * step % 201;
            let objects = cache.snapshot_at(PREFIX, revision).unwrap();
            assert_eq!(shown(&objects), states[revision as usize], "{revision}");
        }
    }
}

#[test]
fn the_pages_of_a_list_take_the_events_since_back_once() {
    let cache = cache();
    let states = history(&cache, 100);
    let first = cache.snapshot_at(PREFIX, 40).unwrap();
    put(&cache, 101, "new");
    put(&cache, 102, "newer");
    assert!(cache.snapshot_at(PREFIX, 40).unwrap().is_same(&first));
    // Nothing happened to this resource at the revisions between: they are one state.
    cache.apply(&fleetpass_store::Event { revision: 110, changes: Vec::new() });
    put(&cache, 120, "newest");
    let between = cache.snapshot_at(PREFIX, 110).unwrap();
    assert!(cache.snapshot_at(PREFIX, 102).unwrap().is_same(&between));
    assert!(cache.snapshot_at(PREFIX, 40).unwrap().is_same(&first));
    assert_eq!(shown(&first), states[40]);
}

#[test]
fn an_earlier_state_is_not_kept_for_longer_than_the_window() {
    let cache = cache();
    history(&cache, 10);
    let early = cache.snapshot_at(PREFIX, 5).unwrap();
    let (_, object) = early.iter().next().unwrap();
    let object = Arc::downgrade(object);
    drop(early);
    assert!(object.upgrade().is_some());
    (11..5_000).for_each(|revision| put(&cache, revision, &format!("{}", revision % 13)));
    assert_eq!(object.upgrade().map(|object| object.revision), None);
    assert!(matches!(cache.snapshot_at(PREFIX, 5), Err(CacheError::TooOld { asked: 5, .. })));
}

#[test]
fn keys_of_a_namespace_are_those_and_no_others() {
    let (first, end) = key_range(PREFIX, "a");
    for (key, inside) in [("a/x", true), ("a/", true), ("a", false), ("a-b/x", false), ("aa/x", false)] {
        let key = format!("{PREFIX}/{key}");
        assert_eq!((first.as_str()..end.as_str()).contains(&key.as_str()), inside, "{key}");
    }
}
