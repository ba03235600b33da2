//! The engine on etcd has the properties of a store: on a single etcd and on a cluster of three members.

use anyhow::Result;
use async_trait::async_trait;
use fleetpass_store::suite::Harness;
use fleetpass_store::{
    Change, Encryption, Entry, Error, EtcdOptions, EtcdStore, Event, EventStream, Health, KeyRing, Listing,
    Op, Revision, Store, Txn, store_suite,
};
use fleetpass_testkit::rig::{Etcd, total};
use futures::{StreamExt as _, TryStreamExt as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

#[tokio::test(flavor = "multi_thread")]
async fn a_single_etcd_is_a_store() -> Result<()> {
    is_a_store("store, etcd", 1).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_of_three_is_a_store() -> Result<()> {
    is_a_store("store, 3 members of etcd", 3).await
}

async fn is_a_store(title: &str, members: usize) -> Result<()> {
    let etcd = Etcd::start(members).await?;
    let keys = tempfile::tempdir()?;
    let harness = {
        let (servers, keys) = (etcd.endpoints(), keys.path().join("keys"));
        let count = AtomicUsize::new(0);
        move || OnEtcd {
            servers: servers.clone(),
            prefix: format!("/suite/{}", count.fetch_add(1, Ordering::Relaxed)),
            keys: keys.clone(),
            base: tokio::sync::OnceCell::new(),
        }
    };
    let properties: u32 = store_suite!(in_order harness);
    total(title, &format!("{properties} properties"))
}

/// A store of its own on an etcd that other tests have used before; what lies under `/a` is sealed.
struct OnEtcd {
    servers: Vec<String>,
    prefix: String,
    keys: std::path::PathBuf,
    /// The revision of etcd when the store was opened first: the suite counts from there.
    base: tokio::sync::OnceCell<Revision>,
}

impl OnEtcd {
    async fn connect(&self) -> Result<Arc<dyn Store>> {
        let encryption =
            Encryption { keys: KeyRing::load_or_create(&self.keys)?, prefixes: vec!["/registry//a".into()] };
        let options = EtcdOptions {
            servers: self.servers.clone(),
            prefix: self.prefix.clone(),
            tls: None,
            encryption: Some(encryption),
            compaction_interval: None,
        };
        let store = EtcdStore::open(options).await?;
        let base = *self.base.get_or_try_init(|| store.revision()).await?;
        Ok(Arc::new(Counted { store, base }))
    }
}

#[async_trait]
impl Harness for OnEtcd {
    async fn open(&self) -> Arc<dyn Store> {
        self.connect().await.expect("the store opens")
    }

    async fn reopen(&self, store: Arc<dyn Store>) -> Arc<dyn Store> {
        store.close().await;
        self.open().await
    }

    async fn forget_events(&self, store: &dyn Store) {
        let base = self.base.get().expect("the store was opened");
        let revision = base + store.revision().await.expect("a revision");
        let compacted =
            tokio::process::Command::new(fleetpass_testkit::rig::program("etcdctl").expect("etcdctl"))
                .args(["--endpoints", &self.servers.join(","), "compact", &revision.to_string()])
                .output()
                .await
                .expect("etcdctl runs");
        assert!(compacted.status.success(), "{}", String::from_utf8_lossy(&compacted.stderr));
    }
}

/// The store as the suite looks at it: revisions count from when it was opened, any key goes, and events without
/// changes, which tell of other users' commits, are left out.
struct Counted {
    store: EtcdStore,
    base: Revision,
}

const ROOT: &str = "/registry/";

impl Counted {
    fn entry(&self, entry: Entry) -> Entry {
        Entry {
            key: self.key(&entry.key),
            value: entry.value,
            create_revision: entry.create_revision - self.base,
            mod_revision: entry.mod_revision - self.base,
        }
    }

    fn key(&self, key: &str) -> Arc<str> {
        key.strip_prefix(ROOT).expect("a key of the store").into()
    }

    fn inward(&self, key: &str) -> Arc<str> {
        if key.is_empty() { "".into() } else { format!("{ROOT}{key}").into() }
    }

    /// 0 stays 0: it says that a key is absent, or is unknown.
    fn later(&self, revision: Revision) -> Revision {
        if revision == 0 { 0 } else { revision + self.base }
    }

    fn event(&self, event: &Event) -> Event {
        let changes = event.changes.iter().map(|change| match change {
            Change::Put(entry) => Change::Put(self.entry(entry.clone())),
            Change::Delete { key, prev_create_revision, prev_mod_revision } => Change::Delete {
                key: self.key(key),
                prev_create_revision: prev_create_revision.saturating_sub(self.base),
                prev_mod_revision: prev_mod_revision.saturating_sub(self.base),
            },
        });
        Event { revision: event.revision - self.base, changes: changes.collect() }
    }

    fn error(&self, error: Error) -> Error {
        match error {
            Error::Conflict { key, current } => {
                Error::Conflict { key: self.key(&key), current: current.map(|entry| self.entry(entry)) }
            }
            Error::Compacted { requested, oldest } => {
                Error::Compacted { requested: requested - self.base, oldest: oldest - self.base }
            }
            other => other,
        }
    }
}

#[async_trait]
impl Store for Counted {
    async fn get(&self, key: &str) -> Result<Option<Entry>, Error> {
        Ok(self.store.get(&self.inward(key)).await?.map(|entry| self.entry(entry)))
    }

    async fn list(&self, prefix: &str) -> Result<Listing, Error> {
        let listing = self.store.list(&format!("{ROOT}{prefix}")).await?;
        let entries = listing.entries.into_iter().map(|entry| self.entry(entry)).collect();
        Ok(Listing { revision: listing.revision - self.base, entries })
    }

    async fn commit(&self, mut txn: Txn) -> Result<Revision, Error> {
        for compare in &mut txn.compares {
            compare.key = self.inward(&compare.key);
            compare.mod_revision = self.later(compare.mod_revision);
        }
        for op in &mut txn.ops {
            let (Op::Put { key, .. } | Op::Delete { key }) = op;
            *key = self.inward(key);
        }
        match self.store.commit(txn).await {
            Ok(revision) => Ok(revision - self.base),
            Err(error) => Err(self.error(error)),
        }
    }

    async fn revision(&self) -> Result<Revision, Error> {
        Ok(self.store.revision().await? - self.base)
    }

    async fn watch(&self, after: Revision) -> Result<EventStream, Error> {
        let events = self.store.watch(after + self.base).await.map_err(|error| self.error(error))?;
        let view = Counted { store: self.store.clone(), base: self.base };
        Ok(events
            .try_filter(|event| std::future::ready(!event.changes.is_empty()))
            .map(move |event| {
                event.map(|event| Arc::new(view.event(&event))).map_err(|error| view.error(error))
            })
            .boxed())
    }

    fn health(&self) -> Health {
        self.store.health()
    }

    async fn close(&self) {
        self.store.close().await;
    }
}
