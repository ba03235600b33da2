//! The properties that every engine must have, for the engines' own tests.
//!
//! An engine implements [`Harness`] and calls [`store_suite!`](crate::store_suite), which makes a
//! test of every property. Whatever an engine may do differently is a method of the harness; the
//! properties themselves know no engine.

pub mod disk;
mod harness;
mod model;
mod watching;

pub use harness::Harness;
pub use model::agrees_with_the_model;
pub use watching::{
    closing_ends_watches, compacted, concurrent_writers_and_watchers, watch_continues_a_listing,
    watch_from_the_past,
};

use crate::{Change, Entry, Error, Event, Revision, Store, Txn};
use harness::take;
use std::sync::Arc;

/// Makes a test of every property for the engine whose harness the given function makes:
/// `store_suite!(MyHarness::new);`
///
/// `store_suite!(in_order new)` instead calls one after another, in an async function on a runtime with several
/// threads, for engines that have something in common that is started once. It gives the number of properties.
#[macro_export]
macro_rules! store_suite {
    (in_order $new:expr) => {
        $crate::store_suite! { @properties in_order $new }
    };
    (@properties $how:tt $new:expr) => {
        $crate::store_suite! { @$how $new,
            revisions_count_commits, creates_updates_deletes, conflicts_change_nothing,
            transactions_are_atomic, what_changes_nothing_has_no_revision, malformed_transactions,
            lists_are_ordered_and_bounded, lists_are_consistent, counters_lose_no_increment,
            commits_outlive_reopening, closed_stores_say_so, watch_from_the_past,
            watch_continues_a_listing, concurrent_writers_and_watchers, compacted, closing_ends_watches }
    };
    (@each $new:expr, $($property:ident),*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $property() {
                $crate::suite::$property(&$new()).await;
            }
        )*

        #[test]
        fn agrees_with_the_model() {
            $crate::suite::agrees_with_the_model($new);
        }
    };
    (@in_order $new:expr, $($property:ident),*) => {{
        let new = $new;
        let mut properties = 1;
        $(
            println!("{}", stringify!($property));
            $crate::suite::$property(&new()).await;
            properties += 1;
        )*
        println!("agrees_with_the_model");
        tokio::task::block_in_place(|| $crate::suite::agrees_with_the_model(new));
        properties
    }};
    ($new:expr) => {
        $crate::store_suite! { @properties each $new }
    };
}

fn key_of(entry: &Entry) -> &str {
    &entry.key
}

/// Every commit gets the next revision; the first one is 1.
pub async fn revisions_count_commits(harness: &impl Harness) {
    let store = harness.open().await;
    assert_eq!(store.revision().await.unwrap(), 0);
    assert_eq!(store.list("").await.unwrap().revision, 0);
    for n in 1..=5 {
        assert_eq!(store.commit(Txn::put(format!("/k{}", n % 2), "v")).await.unwrap(), n);
        assert_eq!(store.revision().await.unwrap(), n);
        assert_eq!(store.list("/none").await.unwrap().revision, n);
    }
    store.close().await;
}

/// The life of a key: what it says about its revisions.
pub async fn creates_updates_deletes(harness: &impl Harness) {
    let store = harness.open().await;
    let entry = |value: &'static str, create_revision, mod_revision| {
        Some(Entry { key: "/k".into(), value: value.into(), create_revision, mod_revision })
    };
    assert_eq!(store.get("/k").await.unwrap(), None);
    store.commit(Txn::create("/k", "1")).await.unwrap();
    assert_eq!(store.get("/k").await.unwrap(), entry("1", 1, 1));
    store.commit(Txn::put("/other", "")).await.unwrap();
    store.commit(Txn::update("/k", "3", 1)).await.unwrap();
    assert_eq!(store.get("/k").await.unwrap(), entry("3", 1, 3));
    store.commit(Txn::delete("/k", 3)).await.unwrap();
    assert_eq!(store.get("/k").await.unwrap(), None);
    store.commit(Txn::create("/k", "")).await.unwrap();
    assert_eq!(store.get("/k").await.unwrap(), entry("", 5, 5), "a new life, and an empty value is one");
    store.close().await;
}

/// A compare that does not hold names its key and what the key holds, and nothing changes.
pub async fn conflicts_change_nothing(harness: &impl Harness) {
    let store = harness.open().await;
    store.commit(Txn::put("/k", "1")).await.unwrap();
    store.commit(Txn::put("/k", "2")).await.unwrap();
    let present = store.get("/k").await.unwrap();
    let before = store.list("").await.unwrap();
    let cases = [
        (Txn::create("/k", "x"), "/k", &present),
        (Txn::update("/k", "x", 1), "/k", &present),
        (Txn::update("/k", "x", 3), "/k", &present),
        (Txn::delete("/k", 1), "/k", &present),
        (Txn::update("/none", "x", 2), "/none", &None),
        (Txn::delete("/none", 2), "/none", &None),
        // The first compare that fails is named; those that hold do not help.
        (
            Txn::create("/new", "x").and(Txn::update("/none", "x", 9)).and(Txn::delete("/k", 1)),
            "/none",
            &None,
        ),
    ];
    for (txn, expected_key, expected) in cases {
        match store.commit(txn.clone()).await {
            Err(error @ Error::Conflict { .. }) => {
                assert!(!error.retry_can_help());
                let Error::Conflict { key, current } = error else { unreachable!() };
                assert_eq!((&*key, &current), (expected_key, expected), "{txn:?}");
            }
            other => panic!("{txn:?}: {other:?}"),
        }
        assert_eq!(store.list("").await.unwrap(), before, "{txn:?}");
    }
    // A compare needs no operation on its key, and judges the state before the transaction.
    let moved = Txn::create("/new", "x").and(Txn::delete("/k", 2));
    assert_eq!(store.commit(moved).await.unwrap(), 3);
    store.close().await;
}

/// The operations of a transaction happen together, at one revision, in one event.
pub async fn transactions_are_atomic(harness: &impl Harness) {
    let store = harness.open().await;
    let mut watch = store.watch(0).await.unwrap();
    store.commit(Txn::put("/old", "o")).await.unwrap();
    let txn = Txn::put("/b", "1").and(Txn::remove("/old")).and(Txn::remove("/none")).and(Txn::put("/a", "2"));
    assert_eq!(store.commit(txn).await.unwrap(), 2);
    let listing = store.list("").await.unwrap();
    assert_eq!(listing.entries.iter().map(key_of).collect::<Vec<_>>(), ["/a", "/b"]);
    assert!(listing.entries.iter().all(|e| (e.create_revision, e.mod_revision) == (2, 2)));
    let events = take(&mut watch, 2).await;
    let put = |key: &str| Change::Put(listing.entries.iter().find(|e| &*e.key == key).cloned().unwrap());
    let removed = Change::Delete { key: "/old".into(), prev_create_revision: 1, prev_mod_revision: 1 };
    assert_eq!(*events[1], Event { revision: 2, changes: vec![put("/b"), removed, put("/a")] });
    store.close().await;
}

/// Without a change there is no revision and no event, and the answer is the present revision.
pub async fn what_changes_nothing_has_no_revision(harness: &impl Harness) {
    let store = harness.open().await;
    let mut watch = store.watch(0).await.unwrap();
    store.commit(Txn::put("/k", "v")).await.unwrap();
    for txn in [
        Txn::default(),
        Txn::remove("/none"),
        Txn::delete("/none", 0),
        Txn::remove("/a").and(Txn::remove("/b")),
    ] {
        assert_eq!(store.commit(txn.clone()).await.unwrap(), 1, "{txn:?}");
    }
    assert_eq!(store.commit(Txn::put("/k", "v")).await.unwrap(), 2, "a put of the same value is a change");
    let revisions: Vec<_> = take(&mut watch, 2).await.iter().map(|e| e.revision).collect();
    assert_eq!(revisions, [1, 2]);
    store.close().await;
}

/// Empty keys and keys in two operations are refused.
pub async fn malformed_transactions(harness: &impl Harness) {
    let store = harness.open().await;
    for txn in [Txn::put("", "v"), Txn::delete("", 0), Txn::put("/k", "1").and(Txn::remove("/k"))] {
        let refused = store.commit(txn.clone()).await;
        assert!(matches!(refused, Err(Error::Invalid { .. })), "{txn:?}: {refused:?}");
    }
    assert_eq!(store.revision().await.unwrap(), 0);
    store.close().await;
}

/// A list has exactly the keys with the prefix, in the order of their bytes.
pub async fn lists_are_ordered_and_bounded(harness: &impl Harness) {
    let store = harness.open().await;
    let keys = ["/a", "/a/", "/a/1", "/a/10", "/a/2", "/a/é", "/a/\u{10ffff}", "/a0", "/b/1", "/é", "z"];
    for key in keys.iter().rev() {
        store.commit(Txn::put(*key, *key)).await.unwrap();
    }
    for prefix in ["", "/", "/a", "/a/", "/a/1", "/a/é", "/a/\u{10ffff}", "/b/", "/c", "z", "zz"] {
        let listing = store.list(prefix).await.unwrap();
        let expected: Vec<_> = keys.iter().copied().filter(|key| key.starts_with(prefix)).collect();
        assert_eq!(listing.entries.iter().map(key_of).collect::<Vec<_>>(), expected, "prefix {prefix:?}");
        assert!(listing.entries.iter().all(|e| e.value == e.key.as_bytes()));
    }
    store.close().await;
}

/// Under a writer, a list never shows a part of a transaction, and shows all up to its revision.
pub async fn lists_are_consistent(harness: &impl Harness) {
    let store = harness.open().await;
    store.commit(Txn::put("/p/a", "").and(Txn::put("/p/b", ""))).await.unwrap();
    let writer = tokio::spawn({
        let store = store.clone();
        async move {
            for n in 0..200_u32 {
                let value = n.to_string();
                let txn = Txn::put("/p/a", value.clone()).and(Txn::put("/p/b", value));
                store.commit(txn).await.unwrap();
            }
        }
    });
    let mut last = 0;
    while !writer.is_finished() {
        let listing = store.list("/p/").await.unwrap();
        let [a, b] = listing.entries.as_slice() else { panic!("two entries: {listing:?}") };
        assert_eq!((&a.value, a.mod_revision), (&b.value, b.mod_revision));
        assert_eq!(a.mod_revision, listing.revision, "every commit writes both");
        assert!(listing.revision >= last, "time goes forward");
        last = listing.revision;
        assert!(store.revision().await.unwrap() >= last);
        assert!(store.get("/p/a").await.unwrap().expect("it exists").mod_revision >= last);
    }
    writer.await.unwrap();
    store.close().await;
}

/// Concurrent read-modify-write on one key loses nothing: a conflict's entry is what to go on from.
pub async fn counters_lose_no_increment(harness: &impl Harness) {
    const WRITERS: u64 = 8;
    const EACH: u64 = 25;
    let store = harness.open().await;
    let increment = |store: Arc<dyn Store>| async move {
        let mut present: Option<Entry> = None;
        for _ in 0..EACH {
            loop {
                let count = |e: &Entry| std::str::from_utf8(&e.value).unwrap().parse::<u64>().unwrap();
                let next = present.as_ref().map_or(0, count) + 1;
                let revision = present.as_ref().map_or(0, |e| e.mod_revision);
                match store.commit(Txn::update("/n", next.to_string(), revision)).await {
                    Ok(_) => break,
                    Err(Error::Conflict { current, .. }) => present = current,
                    Err(other) => panic!("{other}"),
                }
            }
        }
    };
    let writers: Vec<_> = (0..WRITERS).map(|_| tokio::spawn(increment(store.clone()))).collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let entry = store.get("/n").await.unwrap().unwrap();
    assert_eq!(entry.value, (WRITERS * EACH).to_string());
    assert_eq!(entry.mod_revision, WRITERS * EACH, "conflicts get no revision");
    store.close().await;
}

/// Reopening changes neither entries nor revisions, and the next commit goes on from there.
pub async fn commits_outlive_reopening(harness: &impl Harness) {
    let mut store = harness.open().await;
    let mut expected: Revision = 0;
    for round in 0..3 {
        for n in 0..10 {
            let txn = Txn::put(format!("/{round}/{n}"), vec![b'x'; n * 1000]).and(Txn::remove("/0/0"));
            let txn = if (round, n) == (0, 0) { Txn::put("/0/0", "soon removed") } else { txn };
            expected += 1;
            assert_eq!(store.commit(txn).await.unwrap(), expected);
        }
        let before = store.list("").await.unwrap();
        store = harness.reopen(store).await;
        assert_eq!(store.list("").await.unwrap(), before);
        assert_eq!(store.revision().await.unwrap(), expected);
        assert_eq!(store.get("/0/0").await.unwrap(), None);
    }
    store.close().await;
}

/// After closing, everything answers that; closing again is nothing.
pub async fn closed_stores_say_so(harness: &impl Harness) {
    let store = harness.open().await;
    store.commit(Txn::put("/k", "v")).await.unwrap();
    store.close().await;
    store.close().await;
    assert!(matches!(store.get("/k").await, Err(Error::Closed)));
    assert!(matches!(store.list("").await, Err(Error::Closed)));
    assert!(matches!(store.commit(Txn::put("/k", "v")).await, Err(Error::Closed)));
    assert!(matches!(store.revision().await, Err(Error::Closed)));
    assert!(matches!(store.watch(1).await, Err(Error::Closed)));
}
