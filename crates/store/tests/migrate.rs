//! A store is copied completely or its copy is refused, whatever is in it and wherever the copy is interrupted.

use async_trait::async_trait;
use bytes::Bytes;
use fleetpass_store::migrate::{
    MARK, MigrateError, Options, Progress, Report, Target, Unfinished, migrate, refuse_unfinished,
};
use fleetpass_store::{
    EmbeddedOptions, EmbeddedStore, Encryption, Entry, Error, EventStream, Health, KeyRing, Listing,
    MemoryStore, Result, Revision, Store, Txn,
};
use futures::{FutureExt as _, StreamExt as _};
use proptest::collection::vec;
use proptest::prelude::*;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const RESUME: Options = Options { unfinished: Unfinished::Resume, quiet: Duration::ZERO };
const DISCARD: Options = Options { unfinished: Unfinished::Discard, quiet: Duration::ZERO };

async fn run(source: &dyn Store, target: &dyn Target, options: Options) -> Result<Report, MigrateError> {
    migrate(source, target, options, &mut |_| {}).await
}

/// Keys and values.
fn content(listing: &Listing) -> Vec<(Arc<str>, Bytes)> {
    listing.entries.iter().map(|entry| (entry.key.clone(), entry.value.clone())).collect()
}

/// The target has what the source has, later than anything that the source gave out, and is open for use.
async fn is_copied(source: &dyn Store, target: &dyn Store, report: &Report) {
    let (from, to) = (source.list("").await.unwrap(), target.list("").await.unwrap());
    assert_eq!(content(&from), content(&to));
    assert_eq!((report.entries, report.source), (from.entries.len(), from.revision));
    assert_eq!(report.target, to.revision);
    assert!(to.revision > from.revision, "{} > {}", to.revision, from.revision);
    for Entry { create_revision, mod_revision, .. } in &to.entries {
        assert!(from.revision < *create_revision && create_revision <= mod_revision);
    }
    refuse_unfinished(target).await.unwrap();
}

/// A store whose writes fail from some point on, done or not.
struct Failing<S> {
    store: S,
    writes: AtomicUsize,
    done: bool,
}

impl<S> Failing<S> {
    fn after(writes: usize, done: bool, store: S) -> Self {
        Self { store, writes: writes.into(), done }
    }

    /// Whether this write fails.
    fn fails(&self) -> bool {
        self.writes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_err()
    }

    fn works_again(&self) {
        self.writes.store(usize::MAX, Ordering::Relaxed);
    }
}

#[async_trait]
impl<S: Store> Store for Failing<S> {
    async fn get(&self, key: &str) -> Result<Option<Entry>> {
        self.store.get(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Listing> {
        self.store.list(prefix).await
    }

    async fn commit(&self, txn: Txn) -> Result<Revision> {
        match (self.fails(), self.done) {
            (false, _) => self.store.commit(txn).await,
            (true, false) => Err(Error::Unavailable { reason: "a test".into() }),
            (true, true) => {
                self.store.commit(txn).await?;
                Err(Error::OutcomeUnknown { reason: "a test".into() })
            }
        }
    }

    async fn revision(&self) -> Result<Revision> {
        self.store.revision().await
    }

    async fn watch(&self, after: Revision) -> Result<EventStream> {
        self.store.watch(after).await
    }

    fn health(&self) -> Health {
        self.store.health()
    }

    async fn close(&self) {
        self.store.close().await;
    }
}

#[async_trait]
impl<S: Target> Target for Failing<S> {
    async fn raise(&self, revision: Revision) -> Result<()> {
        if self.fails() {
            return Err(Error::OutcomeUnknown { reason: "a test".into() });
        }
        self.store.raise(revision).await
    }
}

/// What happened to a source: puts and deletions, many to a few keys.
fn history() -> impl Strategy<Value = Vec<(u16, Option<Vec<u8>>)>> {
    vec((0..300_u16, proptest::option::weighted(0.8, vec(any::<u8>(), 0..2_000))), 0..400)
}

async fn source(history: &[(u16, Option<Vec<u8>>)]) -> MemoryStore {
    let store = MemoryStore::default();
    for (key, value) in history {
        let key = format!("/registry/secrets/ns/{key}");
        let txn = match value {
            Some(value) => Txn::put(key, value.clone()),
            None => Txn::remove(key),
        };
        store.commit(txn).await.unwrap();
    }
    store
}

fn blocking<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_interrupted_copy_is_refused_and_goes_on(history in history(), writes in 0..9_usize, done: bool) {
        blocking(async {
            let source = source(&history).await;
            let target = Failing::after(writes, done, MemoryStore::default());
            match run(&source, &target, RESUME).await {
                Ok(report) => is_copied(&source, &target, &report).await,
                Err(MigrateError::Target(_)) => {
                    let untouched = target.list("").await.unwrap().entries.is_empty();
                    let finished = content(&target.list("").await.unwrap()) == content(&source.list("").await.unwrap());
                    let refused = matches!(refuse_unfinished(&target).await, Err(Error::Unfinished));
                    assert!(refused || untouched || finished);
                    target.works_again();
                    match run(&source, &target, RESUME).await {
                        Ok(report) => is_copied(&source, &target, &report).await,
                        // Only the answer to the last write was lost.
                        Err(MigrateError::NotEmpty { .. }) => assert!(finished && !refused),
                        Err(error) => panic!("{error}"),
                    }
                }
                Err(error) => panic!("{error}"),
            }
        });
    }

    #[test]
    fn there_and_back_nothing_is_lost(history in history()) {
        blocking(async {
            let dir = tempfile::tempdir().unwrap();
            let source = source(&history).await;
            let there = embedded(dir.path(), "there").await;
            let report = run(&source, &there, RESUME).await.unwrap();
            is_copied(&source, &there, &report).await;
            there.close().await;
            let there = embedded(dir.path(), "there").await;
            let back = MemoryStore::default();
            let again = run(&there, &back, RESUME).await.unwrap();
            is_copied(&there, &back, &again).await;
            assert_eq!(report.digest, again.digest);
            there.close().await;
        });
    }
}

async fn embedded(directory: &Path, name: &str) -> EmbeddedStore {
    let mut options = EmbeddedOptions::new(directory.join(name));
    let keys = KeyRing::load_or_create(&directory.join("keys")).unwrap();
    options.encryption = Some(Encryption { keys, prefixes: vec!["/registry/secrets/".into()] });
    EmbeddedStore::open(options).await.unwrap()
}

/// A source of three batches.
async fn sample() -> MemoryStore {
    let store = MemoryStore::default();
    for number in 0..150 {
        store.commit(Txn::put(format!("/registry/configmaps/ns/{number}"), "value")).await.unwrap();
    }
    store
}

#[tokio::test]
async fn who_watched_the_source_is_told_to_list_anew() {
    let dir = tempfile::tempdir().unwrap();
    let source = sample().await;
    let seen = source.list("").await.unwrap().revision;
    let target = embedded(dir.path(), "store").await;
    run(&source, &target, RESUME).await.unwrap();
    target.close().await;
    let target = embedded(dir.path(), "store").await;
    for after in [0, 1, seen] {
        assert!(matches!(target.watch(after).await, Err(Error::Compacted { .. })), "after {after}");
    }
    let now = target.revision().await.unwrap();
    let mut events = target.watch(now).await.unwrap();
    let key = "/registry/configmaps/ns/0";
    let held = source.get(key).await.unwrap().unwrap().mod_revision;
    let stale = target.commit(Txn::update(key, "lost update", held)).await;
    assert!(matches!(stale, Err(Error::Conflict { .. })), "{stale:?}");
    let next = target.commit(Txn::put(key, "new")).await.unwrap();
    assert_eq!(events.next().await.unwrap().unwrap().revision, next);
    assert_eq!(next, now + 1);
    target.close().await;
}

#[tokio::test]
async fn nothing_is_written_over() {
    let source = sample().await;
    let target = MemoryStore::default();
    target.commit(Txn::put("/registry/configmaps/ns/0", "value")).await.unwrap();
    for options in [RESUME, DISCARD] {
        let error = run(&source, &target, options).await.unwrap_err();
        assert!(matches!(error, MigrateError::NotEmpty { entries: 1, .. }), "{error}");
    }
    assert_eq!(target.revision().await.unwrap(), 1, "nothing was changed");
}

#[tokio::test]
async fn a_part_of_something_else_is_not_completed() {
    let source = sample().await;
    // The mark, the revision, one batch.
    let target = Failing::after(3, false, MemoryStore::default());
    assert!(matches!(run(&source, &target, RESUME).await, Err(MigrateError::Target(_))));
    assert_eq!(target.list("").await.unwrap().entries.len(), 65);
    target.works_again();

    let unfinished = run(&target, &MemoryStore::default(), RESUME).await;
    assert!(matches!(unfinished, Err(MigrateError::SourceUnfinished)), "{unfinished:?}");

    source.commit(Txn::put("/registry/configmaps/ns/0", "changed")).await.unwrap();
    let changed = run(&source, &target, RESUME).await;
    assert!(matches!(changed, Err(MigrateError::OtherSource)), "{changed:?}");
    assert!(matches!(refuse_unfinished(&target).await, Err(Error::Unfinished)));

    let report = run(&source, &target, DISCARD).await.unwrap();
    is_copied(&source, &target, &report).await;
}

#[tokio::test]
async fn what_somebody_else_writes_to_the_target_is_found() {
    let source = sample().await;
    let target = Failing::after(3, false, MemoryStore::default());
    assert!(run(&source, &target, RESUME).await.is_err());
    target.works_again();
    target.commit(Txn::put("/registry/configmaps/other/0", "value")).await.unwrap();
    let foreign = run(&source, &target, RESUME).await;
    assert!(matches!(foreign, Err(MigrateError::Foreign { .. })), "{foreign:?}");
    target.commit(Txn::put(MARK, "{}")).await.unwrap();
    let other = run(&source, &target, RESUME).await;
    assert!(matches!(other, Err(MigrateError::OtherVersion)), "{other:?}");
}

#[tokio::test]
async fn what_somebody_writes_to_the_source_is_found() {
    let quiet = Options { quiet: Duration::from_millis(1), ..RESUME };
    for (options, moment) in [(quiet, Progress::Waiting), (RESUME, Progress::Comparing)] {
        let source = sample().await;
        let target = MemoryStore::default();
        let result = migrate(&source, &target, options, &mut |progress| {
            if progress == moment {
                let renewed = source.commit(Txn::put("/registry/leases/kube-system/hub", "renewed"));
                renewed.now_or_never().expect("nothing waits").unwrap();
            }
        })
        .await;
        assert!(matches!(result, Err(MigrateError::SourceChanged)), "{moment:?}: {result:?}");
        let refused = refuse_unfinished(&target).await.is_err();
        assert_eq!(
            refused,
            moment == Progress::Comparing,
            "what is seen before the copy leaves nothing behind"
        );
    }
}

#[tokio::test]
async fn other_users_of_the_same_revisions_do_no_harm() {
    let source = sample().await;
    let target = MemoryStore::default();
    let result = migrate(&source, &target, RESUME, &mut |progress| {
        if progress == Progress::Comparing {
            // As an etcd that others write to, too: the revision moves on, the entries stay.
            source.raise(1_000).now_or_never().expect("nothing waits").unwrap();
        }
    })
    .await;
    assert_eq!(result.unwrap().entries, 150);
}

#[tokio::test]
async fn a_second_copy_to_the_same_target_ends_the_first() {
    let source = sample().await;
    let target = MemoryStore::default();
    let mut second = None;
    let first = migrate(&source, &target, RESUME, &mut |progress| {
        if matches!(progress, Progress::Copying { done: 64, .. }) {
            // Between two batches of the first, from the beginning to the end.
            second = run(&source, &target, RESUME).now_or_never();
        }
    })
    .await;
    assert!(matches!(first, Err(MigrateError::Target(Error::Conflict { .. }))), "{first:?}");
    is_copied(&source, &target, &second.expect("nothing waits").unwrap()).await;
}
