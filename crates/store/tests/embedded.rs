//! The embedded engine has the properties of a store, and looks after its files.

use async_trait::async_trait;
use fleetpass_store::suite::Harness;
use fleetpass_store::{
    EmbeddedOptions, EmbeddedStore, Encryption, Error, KeyRing, OpenError, Store, Txn, WallClock, Window,
};
use futures::StreamExt;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tempfile::TempDir;

const WINDOW: Window = Window { events: 512, bytes: 1 << 20 };

/// A store in a temporary directory; everything under `/a` is sealed.
struct Embedded(TempDir);

impl Embedded {
    fn new() -> Self {
        Embedded(tempfile::tempdir().unwrap())
    }

    async fn start(&self) -> EmbeddedStore {
        let encryption = Encryption { keys: keys(self.0.path()), prefixes: vec!["/a".into()] };
        open(self.0.path(), Some(encryption)).await.expect("the store opens")
    }
}

#[async_trait]
impl Harness for Embedded {
    async fn open(&self) -> Arc<dyn Store> {
        Arc::new(self.start().await)
    }

    async fn reopen(&self, store: Arc<dyn Store>) -> Arc<dyn Store> {
        store.close().await;
        self.open().await
    }

    async fn forget_events(&self, store: &dyn Store) {
        let commits = (0..WINDOW.events).map(|_| store.commit(Txn::put("/filler", "")));
        for answer in futures::future::join_all(commits).await {
            answer.unwrap();
        }
    }
}

fleetpass_store::store_suite!(Embedded::new);

fn keys(dir: &Path) -> KeyRing {
    KeyRing::load_or_create(&dir.join("encryption.key")).expect_ok()
}

async fn open(dir: &Path, encryption: Option<Encryption>) -> Result<EmbeddedStore, OpenError> {
    let directory = dir.join("data");
    EmbeddedStore::open(EmbeddedOptions { encryption, window: WINDOW, ..EmbeddedOptions::new(directory) })
        .await
}

/// `Result::expect` for what cannot be printed.
trait ExpectOk<T> {
    fn expect_ok(self) -> T;
}

impl<T> ExpectOk<T> for Result<T, OpenError> {
    fn expect_ok(self) -> T {
        self.unwrap_or_else(|error| panic!("{error}"))
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn the_data_is_private_and_has_one_user() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let store = open(dir.path(), None).await.unwrap();
    assert_eq!(mode(&data), 0o700);
    for file in fs::read_dir(&data).unwrap() {
        assert_eq!(mode(&file.unwrap().path()), 0o600);
    }
    match open(dir.path(), None).await {
        Err(error @ OpenError::InUse { .. }) => {
            assert!(error.retry_can_help());
            assert!(error.to_string().contains("data/LOCK"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    store.close().await;
    open(dir.path(), None).await.unwrap().close().await;
}

#[tokio::test]
async fn a_backup_that_is_put_back_gives_out_no_revision_again() {
    let dir = tempfile::tempdir().unwrap();
    let (data, backup) = (dir.path().join("data"), dir.path().join("backup"));
    let now = Arc::new(AtomicU64::new(1_800_000_000));
    let open = || {
        let now = now.clone();
        let clock: WallClock = Arc::new(move || now.load(Ordering::Relaxed));
        EmbeddedStore::open(EmbeddedOptions { clock: Some(clock), ..EmbeddedOptions::new(&data) })
    };
    let store = open().await.unwrap();
    assert_eq!(
        store.commit(Txn::put("/k", "kept")).await.unwrap(),
        1,
        "nobody has seen one of an empty store"
    );
    store.close().await;
    fs::create_dir(&backup).unwrap();
    fs::copy(data.join("store.redb"), backup.join("store.redb")).unwrap();

    // An hour with much to write, all of which is lost.
    let store = open().await.unwrap();
    for n in 0..100 {
        store.commit(Txn::put(format!("/lost/{n}"), "")).await.unwrap();
    }
    now.fetch_add(3_600, Ordering::Relaxed);
    let lost = store.commit(Txn::put("/k", "lost")).await.unwrap() + 3_000_000;
    store.close().await;
    fs::copy(backup.join("store.redb"), data.join("store.redb")).unwrap();

    let store = open().await.unwrap();
    let listing = store.list("/").await.unwrap();
    assert!(listing.revision > lost, "{} after {lost}", listing.revision);
    assert_eq!((listing.entries.len(), &listing.entries[0].value[..]), (1, &b"kept"[..]));
    assert_eq!(store.commit(Txn::put("/k", "new")).await.unwrap(), listing.revision + 1);
    store.close().await;
}

#[tokio::test]
async fn a_creation_that_crashed_starts_again() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("store.redb.new"), "half").unwrap();
    let store = open(dir.path(), None).await.unwrap();
    store.commit(Txn::put("/k", "v")).await.unwrap();
    store.close().await;
    assert!(!data.join("store.redb.new").exists());
}

#[tokio::test]
async fn damaged_files_are_named_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), None).await.unwrap();
    for n in 0..200 {
        store.commit(Txn::put(format!("/{n}"), vec![b'x'; 500])).await.unwrap();
    }
    store.close().await;
    let file = dir.path().join("data/store.redb");
    let whole = fs::read(&file).unwrap();
    let altered = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 0xff;
        bytes
    };
    let in_a_value = whole.windows(400).position(|w| w == [b'x'; 400]).expect("a value is in the file");
    let cases = [
        ("empty", Vec::new()),
        ("text", b"this is not a database".to_vec()),
        ("zeros", vec![0; whole.len()]),
        ("cut in the header", whole[..100].to_vec()),
        ("cut in half", whole[..whole.len() / 2].to_vec()),
        ("magic number", altered(3)),
        ("a value", altered(in_a_value)),
    ];
    for (name, bytes) in cases {
        fs::write(&file, &bytes).unwrap();
        match open(dir.path(), None).await {
            Err(error @ OpenError::Corrupt { .. }) => {
                assert!(!error.retry_can_help());
                let text = error.to_string();
                assert!(
                    text.contains("data/store.redb is damaged") && text.contains("backup"),
                    "{name}: {text}"
                );
            }
            other => panic!("{name}: {other:?}"),
        }
        assert!(fs::read(&file).unwrap() == bytes, "{name}: the file was changed");
    }
    fs::write(&file, &whole).unwrap();
    let store = open(dir.path(), None).await.unwrap();
    assert_eq!(store.list("").await.unwrap().entries.len(), 200);
    store.close().await;
}

#[tokio::test]
async fn files_of_a_newer_version_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), None).await.unwrap();
    store.commit(Txn::put("/k", "v")).await.unwrap();
    store.close().await;
    let file = dir.path().join("data/store.redb");
    let set_format = |format: u64| {
        let database = redb::Database::open(&file).unwrap();
        let write = database.begin_write().unwrap();
        let meta = redb::TableDefinition::<&str, u64>::new("meta");
        write.open_table(meta).unwrap().insert("format", format).unwrap();
        write.commit().unwrap();
    };
    set_format(2);
    match open(dir.path(), None).await {
        Err(error @ OpenError::Newer { found: 2, supported: 1, .. }) => {
            assert!(error.to_string().contains("data/store.redb has format 2"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    set_format(1);
    let store = open(dir.path(), None).await.unwrap();
    assert_eq!(store.get("/k").await.unwrap().unwrap().value, "v");
    store.close().await;
}

#[tokio::test]
async fn secrets_are_not_in_the_file_and_keys_rotate() {
    let dir = tempfile::tempdir().unwrap();
    let encryption = |prefixes: &[&str]| {
        Some(Encryption { keys: keys(dir.path()), prefixes: prefixes.iter().map(|p| (*p).into()).collect() })
    };
    let in_file = |text: &str| {
        let bytes = fs::read(dir.path().join("data/store.redb")).unwrap();
        bytes.windows(text.len()).any(|w| w == text.as_bytes())
    };
    let store = open(dir.path(), None).await.unwrap();
    store.commit(Txn::put("/secrets/before", "plainvalue")).await.unwrap();
    store.close().await;
    assert!(in_file("plainvalue"));

    let store = open(dir.path(), encryption(&["/secrets/"])).await.unwrap();
    assert_eq!(store.get("/secrets/before").await.unwrap().unwrap().value, "plainvalue");
    store.commit(Txn::put("/secrets/first", "sealedvalue")).await.unwrap();
    store.commit(Txn::put("/other/first", "othervalue")).await.unwrap();
    store.close().await;
    assert!(!in_file("sealedvalue") && in_file("othervalue"));

    let path = dir.path().join("encryption.key");
    let old = fs::read(&path).unwrap();
    let new_id = KeyRing::rotate(&path).expect_ok();
    let store = open(dir.path(), encryption(&["/secrets/"])).await.unwrap();
    assert_eq!(store.get("/secrets/first").await.unwrap().unwrap().value, "sealedvalue");
    store.commit(Txn::put("/secrets/second", "secondvalue")).await.unwrap();
    store.close().await;
    assert!(!in_file("secondvalue"));

    // Turned off: what is sealed still opens, what is new is plain.
    let store = open(dir.path(), encryption(&[])).await.unwrap();
    let values = store.list("/secrets/").await.unwrap().entries;
    let values: Vec<_> = values.iter().map(|e| &e.value[..]).collect();
    assert_eq!(values, [&b"plainvalue"[..], b"sealedvalue", b"secondvalue"]);
    store.close().await;

    // Without the key, the store says at once which one is missing.
    fs::write(&path, old).unwrap();
    for encryption in [encryption(&["/secrets/"]), None] {
        let expected = if encryption.is_some() { Some(new_id.as_str()) } else { None };
        match open(dir.path(), encryption).await {
            Err(OpenError::MissingKey { file, key_id }) => {
                assert!(file.ends_with("data/store.redb"));
                assert!(expected.is_none_or(|id| id == key_id));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_watcher_that_the_window_passed_ends_with_lagged() {
    let harness = Embedded::new();
    let store = harness.start().await;
    store.commit(Txn::put("/k", "")).await.unwrap();
    let mut watch = store.watch(0).await.unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap().revision, 1);
    harness.forget_events(&store).await;
    store.commit(Txn::put("/k", "")).await.unwrap();
    assert!(matches!(watch.next().await, Some(Err(Error::Lagged { delivered: 1 }))));
    assert!(watch.next().await.is_none());
    store.close().await;
}

#[tokio::test]
async fn commits_under_way_are_finished_by_close() {
    let harness = Embedded::new();
    let store = Arc::new(harness.start().await);
    let commits: Vec<_> = (0..50)
        .map(|n| {
            tokio::spawn({
                let store = store.clone();
                async move { store.commit(Txn::put(format!("/{n}"), "v")).await }
            })
        })
        .collect();
    tokio::task::yield_now().await;
    store.close().await;
    let mut answered = 0;
    for commit in commits {
        match commit.await.unwrap() {
            Ok(_) => answered += 1,
            Err(Error::Closed) => {}
            Err(other) => panic!("{other}"),
        }
    }
    let store = harness.start().await;
    assert_eq!(store.list("").await.unwrap().entries.len(), answered, "answered or not begun");
    assert_eq!(store.revision().await.unwrap(), answered as u64);
    store.close().await;
}
