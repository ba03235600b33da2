//! Accounts with a time to live end by the clock, also those that were there before the hub looked.

use anyhow::Result;
use fleetpass_api::clock::Clock;
use fleetpass_api::{ManagedServiceAccount, names};
use fleetpass_hub::{Counter, Scope, ttl};
use fleetpass_store::MemoryStore;
use fleetpass_testkit::cluster::Cluster;
use jiff::Timestamp;
use kube::api::{ListParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use tokio_util::sync::CancellationToken;

const START: i64 = 1_800_000_000_000;

/// A clock that stands still until it is set.
struct Set(AtomicI64);

impl Clock for Set {
    fn now(&self) -> Timestamp {
        Timestamp::from_millisecond(self.0.load(Ordering::SeqCst)).unwrap_or(Timestamp::MIN)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_end_to_the_second() -> Result<()> {
    let clock = Arc::new(Set(AtomicI64::new(START)));
    let set = |seconds: i64| clock.0.store(START + seconds * 1_000, Ordering::SeqCst);
    let hub = Cluster::start_with(Arc::new(MemoryStore::default()), clock.clone()).await?;
    let accounts: Api<ManagedServiceAccount> = Api::namespaced(hub.admin(), "default");
    let create = async |name: &str, seconds: Option<i64>| -> Result<()> {
        let mut account = json!({
            "apiVersion": format!("{}/{}", names::GROUP, names::V1BETA1), "kind": names::KIND,
            "metadata": {"name": name}, "spec": {"rotation": {}},
        });
        if let Some(seconds) = seconds {
            account["spec"]["ttlSecondsAfterCreation"] = seconds.into();
        }
        accounts.create(&PostParams::default(), &serde_json::from_value(account)?).await?;
        Ok(())
    };
    let left = async || -> Result<Vec<String>> {
        let all = accounts.list(&ListParams::default()).await?;
        Ok(all.items.iter().map(|account| account.name_any()).collect())
    };
    create("at-60", Some(60)).await?;
    create("at-100", Some(100)).await?;
    create("at-101", Some(101)).await?;
    create("never", None).await?;

    // The hub begins to look when two are over: one of them since a while, the other in this very second.
    set(100);
    let stop = CancellationToken::new();
    let deleted = Counter::default();
    let running =
        tokio::spawn(ttl::run(hub.admin(), Scope::All, clock.clone(), deleted.clone(), stop.clone()));
    Cluster::eventually("two are deleted", async || left().await.is_ok_and(|left| left.len() == 2)).await?;
    assert_eq!(left().await?, ["at-101", "never"]);

    // The clock is set: what was to wait a second by the machine's timers has waited long enough.
    set(4_000);
    Cluster::eventually("the third is deleted", async || left().await.is_ok_and(|left| left == ["never"]))
        .await?;
    create("late", Some(10)).await?;
    set(4_010);
    Cluster::eventually("the last is deleted", async || left().await.is_ok_and(|left| left == ["never"]))
        .await?;
    assert_eq!(deleted.get(), 4);
    stop.cancel();
    running.await?;
    Ok(())
}
