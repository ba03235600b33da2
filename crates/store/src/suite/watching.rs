//! Properties of watches.

use super::harness::{Harness, take};
use crate::{Change, Error, Revision, Store, Txn};
use futures::StreamExt;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A watch starts anywhere in the past, or in the future, and has exactly what comes after.
pub async fn watch_from_the_past(harness: &impl Harness) {
    let store = harness.open().await;
    for n in 1..=10_u64 {
        store.commit(Txn::put(format!("/{n}"), n.to_string())).await.unwrap();
    }
    let mut watches = Vec::new();
    for after in 0..=12 {
        watches.push((after, store.watch(after).await.unwrap()));
    }
    for n in 11..=14_u64 {
        store.commit(Txn::put(format!("/{n}"), n.to_string())).await.unwrap();
    }
    for (after, mut watch) in watches {
        let events = take(&mut watch, (14 - after) as usize).await;
        let revisions: Vec<_> = events.iter().map(|e| e.revision).collect();
        assert_eq!(revisions, (after + 1..=14).collect::<Vec<_>>(), "after {after}");
        for event in &events {
            let [Change::Put(entry)] = event.changes.as_slice() else { panic!("one put: {event:?}") };
            assert_eq!(entry.value, event.revision.to_string());
            assert_eq!((entry.create_revision, entry.mod_revision), (event.revision, event.revision));
        }
    }
    store.close().await;
}

/// List, then watch after the listing: the two together are the state, at any moment, under load.
pub async fn watch_continues_a_listing(harness: &impl Harness) {
    const LAST: Revision = 400;
    let store = harness.open().await;
    let writer = tokio::spawn({
        let store = store.clone();
        async move {
            for n in 1..=LAST {
                let key = format!("/{}", n % 7);
                // Some of the keys go away and come back. A deletion of nothing would be no commit.
                let exists = store.get(&key).await.unwrap().is_some();
                let txn = if n % 3 == 0 && exists { Txn::remove(key) } else { Txn::put(key, n.to_string()) };
                assert_eq!(store.commit(txn).await.unwrap(), n);
            }
        }
    });
    let follow = |store: Arc<dyn Store>| async move {
        let listing = store.list("").await.unwrap();
        let mut state: BTreeMap<_, _> = listing.entries.into_iter().map(|e| (e.key.clone(), e)).collect();
        let mut watch = store.watch(listing.revision).await.unwrap();
        for expected in listing.revision + 1..=LAST {
            let event = watch.next().await.expect("the watch goes on").expect("an event");
            assert_eq!(event.revision, expected, "none lost, none twice");
            for change in &event.changes {
                match change {
                    Change::Put(entry) => {
                        let before = state.insert(entry.key.clone(), entry.clone());
                        let created = before.map_or(entry.mod_revision, |e| e.create_revision);
                        assert_eq!(entry.create_revision, created);
                    }
                    Change::Delete { key, prev_create_revision, prev_mod_revision } => {
                        let before = state.remove(key).expect("what is deleted was there");
                        let known = (before.create_revision, before.mod_revision);
                        assert_eq!((*prev_create_revision, *prev_mod_revision), known);
                    }
                }
            }
        }
        assert_eq!(state.into_values().collect::<Vec<_>>(), store.list("").await.unwrap().entries);
    };
    let mut followers = Vec::new();
    while !writer.is_finished() && followers.len() < 20 {
        followers.push(tokio::spawn(follow(store.clone())));
        store.get("/0").await.unwrap();
        tokio::task::yield_now().await;
    }
    writer.await.unwrap();
    for follower in followers {
        follower.await.unwrap();
    }
    store.close().await;
}

/// Many writers, many watchers: each watcher sees every commit once, in one order, and what it sees
/// is what the writers were answered. An event is there when its commit is answered.
pub async fn concurrent_writers_and_watchers(harness: &impl Harness) {
    const WRITERS: usize = 8;
    const EACH: usize = 40;
    let store = harness.open().await;
    let watch = |store: Arc<dyn Store>| async move {
        let mut watch = store.watch(0).await.unwrap();
        let mut seen = BTreeMap::new();
        for event in take(&mut watch, WRITERS * EACH).await {
            let [Change::Put(entry)] = event.changes.as_slice() else { panic!("one put: {event:?}") };
            assert_eq!(event.revision, seen.len() as u64 + 1, "in order, none lost, none twice");
            seen.insert(event.revision, entry.value.clone());
        }
        seen
    };
    let watchers: Vec<_> = (0..4).map(|_| tokio::spawn(watch(store.clone()))).collect();
    let write = |store: Arc<dyn Store>, writer: usize| async move {
        let mut answered = Vec::new();
        for n in 0..EACH {
            let value = format!("{writer}.{n}");
            let revision = store.commit(Txn::put(format!("/{writer}"), value.clone())).await.unwrap();
            if n % 10 == 0 {
                let published = take(&mut store.watch(revision - 1).await.unwrap(), 1).await;
                assert_eq!(published[0].revision, revision);
            }
            answered.push((revision, value));
        }
        assert!(answered.is_sorted(), "a writer's own commits are in its order");
        answered
    };
    let writers: Vec<_> = (0..WRITERS).map(|w| tokio::spawn(write(store.clone(), w))).collect();
    let mut answered = BTreeMap::new();
    for writer in writers {
        answered.extend(writer.await.unwrap().into_iter().map(|(r, value)| (r, value.into())));
    }
    assert_eq!(answered.len(), WRITERS * EACH, "no revision was given twice");
    for watcher in watchers {
        assert_eq!(watcher.await.unwrap(), answered);
    }
    store.close().await;
}

/// A start that the engine cannot serve any more says from where it can; the present always works,
/// also right after opening.
pub async fn compacted(harness: &impl Harness) {
    let store = harness.open().await;
    for n in 0..5 {
        store.commit(Txn::put("/k", n.to_string())).await.unwrap();
    }
    harness.forget_events(&*store).await;
    let oldest = match store.watch(0).await.map(|_| ()) {
        Err(error @ Error::Compacted { requested: 0, oldest }) => {
            assert!(!error.retry_can_help());
            oldest
        }
        other => panic!("{other:?}"),
    };
    let revision = store.revision().await.unwrap();
    assert!((1..=revision).contains(&oldest));
    assert!(matches!(store.watch(oldest - 1).await.map(|_| ()), Err(Error::Compacted { .. })));
    let mut replayed = store.watch(oldest).await.unwrap();
    let events = take(&mut replayed, (revision - oldest) as usize).await;
    assert!(events.iter().map(|e| e.revision).eq(oldest + 1..=revision));

    let store = harness.reopen(store).await;
    let mut live = store.watch(revision).await.unwrap();
    store.commit(Txn::put("/k", "after")).await.unwrap();
    assert_eq!(take(&mut live, 1).await[0].revision, revision + 1);
    store.close().await;
}

/// Closing lets watchers have what was committed, then ends them without an error.
pub async fn closing_ends_watches(harness: &impl Harness) {
    let store = harness.open().await;
    let mut behind = store.watch(0).await.unwrap();
    let mut waiting = store.watch(0).await.unwrap();
    for n in 0..10 {
        store.commit(Txn::put("/k", n.to_string())).await.unwrap();
    }
    take(&mut waiting, 10).await;
    let waiting = tokio::spawn(async move { waiting.next().await.is_none() });
    store.close().await;
    assert!(waiting.await.unwrap());
    take(&mut behind, 10).await;
    assert!(behind.next().await.is_none());
}
