//! The store: durable commits, beside what the disk allows and beside etcd.

use crate::pace::Pace;
use crate::report::{Section, round};
use anyhow::{Context as _, Result};
use bytes::Bytes;
use fleetpass_store::{EmbeddedOptions, EmbeddedStore, EtcdOptions, EtcdStore, Store, Txn};
use fleetpass_testkit::rig::Etcd;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

const WRITERS: [usize; 3] = [1, 8, 64];
/// What is written: a small object.
const VALUE: usize = 1_000;

/// Measures both engines on this machine's disk (the folder for temporary files has to be on it).
///
/// # Errors
///
/// An engine fails.
pub(crate) async fn measure(pace: &Pace) -> Result<Section> {
    let mut section = Section::new(
        "The store",
        "Commits that create a key with 1,000 bytes, each answered when it is on disk, by so many writers that each wait for \
         their answer. etcd has one member on the same disk and is asked with the hub's own client. The limit for one writer is \
         the disk's: a page of 4 KiB, written over and synced (`fdatasync`) again and again.",
        &["engine", "writers", "commits/s", "of the disk's syncs"],
    );
    let span = pace.span(5.0);
    let syncs = tokio::task::spawn_blocking(move || disk_syncs(span)).await??;
    section.row(["the disk".into(), 1.into(), syncs.into(), 1.0.into()]);
    let folder = tempfile::tempdir()?;
    let embedded = EmbeddedStore::open(EmbeddedOptions::new(folder.path().join("store"))).await?;
    let embedded: Arc<dyn Store> = Arc::new(embedded);
    let etcd = Etcd::start(1).await?;
    let on_etcd = EtcdStore::open(EtcdOptions {
        servers: etcd.endpoints(),
        prefix: "/registry".into(),
        tls: None,
        encryption: None,
        compaction_interval: None,
    })
    .await?;
    let on_etcd: Arc<dyn Store> = Arc::new(on_etcd);
    let mut with_64 = Vec::new();
    for (name, store) in [("embedded", &embedded), ("etcd", &on_etcd)] {
        for writers in WRITERS {
            let rate = commits(store, writers, span).await?;
            section.row([name.into(), writers.into(), rate.into(), (rate / syncs).into()]);
            if writers == 64 {
                with_64.push(rate);
            }
        }
    }
    embedded.close().await;
    on_etcd.close().await;
    if let [ours, theirs] = with_64[..] {
        section.how.push_str(&format!(
            " With 64 writers the embedded store commits {} × as often as etcd.",
            round(ours / theirs)
        ));
    }
    Ok(section)
}

/// How often the disk syncs a page in a second.
fn disk_syncs(span: Duration) -> Result<f64> {
    let mut file = tempfile::NamedTempFile::new()?;
    let page = [7; 4096];
    file.write_all(&page)?;
    file.as_file().sync_all()?;
    let began = std::time::Instant::now();
    let mut count = 0_u32;
    while began.elapsed() < span {
        std::os::unix::fs::FileExt::write_all_at(file.as_file(), &page, 0)?;
        file.as_file().sync_data()?;
        count += 1;
    }
    Ok(f64::from(count) / began.elapsed().as_secs_f64())
}

async fn commits(store: &Arc<dyn Store>, writers: usize, span: Duration) -> Result<f64> {
    let next = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let mut running = JoinSet::new();
    for writer in 0..writers {
        let (store, next) = (store.clone(), next.clone());
        running.spawn(async move {
            let value = Bytes::from(vec![b'v'; VALUE]);
            let mut count = 0_u64;
            while began.elapsed() < span {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let key = format!("/registry/configmaps/bench/{writers}-{writer}-{number}");
                store.commit(Txn::create(key, value.clone())).await?;
                count += 1;
            }
            anyhow::Ok(count)
        });
    }
    let mut count = 0;
    while let Some(ended) = running.join_next().await {
        count += ended.context("a writer panicked")??;
    }
    Ok(count as f64 / began.elapsed().as_secs_f64())
}
