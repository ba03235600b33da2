//! Power loss and failing disks.
//!
//! SIGKILL cannot show a missing fsync, because the kernel still has every write. Here redb works on
//! a simulated disk that separates what was written from what is durable. After every single I/O
//! operation of a workload, disks are imagined that a power loss could leave: of what was written
//! since the last sync, any part may be missing or torn. Each must open with everything that was
//! answered, and with nothing half done.

use super::tables::{self, CommitFailed, Tables};
use super::{EmbeddedStore, writer};
use crate::contract::{Listing, Store, Txn};
use crate::error::Error;
use crate::events::{Events, Window};
use crate::sealing::Codec;
use futures::StreamExt;
use parking_lot::Mutex;
use redb::StorageBackend;
use std::io;
use std::sync::Arc;

/// What a disk writes at once or not at all.
const SECTOR: usize = 512;

#[derive(Clone, Default)]
struct Disk(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// What reads see.
    live: Vec<u8>,
    /// What the last sync made certain.
    durable: Vec<u8>,
    /// What was done since then.
    pending: Vec<Pending>,
    random: Random,
    /// Whether each operation imagines what a power loss would leave.
    imagining: bool,
    images: Vec<Vec<u8>>,
    /// How many more operations succeed.
    fails_after: Option<u32>,
}

enum Pending {
    Write { offset: usize, data: Vec<u8> },
    Resize(usize),
}

/// Xorshift: not secret, only uneven, and the same in every run.
struct Random(u64);

impl Default for Random {
    fn default() -> Self {
        Random(0x9e37_79b9_7f4a_7c15)
    }
}

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Disk")
    }
}

impl State {
    fn begin(&mut self) -> io::Result<()> {
        match &mut self.fails_after {
            Some(0) => Err(io::Error::from(io::ErrorKind::StorageFull)),
            Some(n) => {
                *n -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn imagine(&mut self) {
        if self.imagining {
            let image = self.image();
            self.images.push(image);
        }
    }

    /// A disk after a power loss: all pending operations are there, or none, or some, or parts.
    fn image(&mut self) -> Vec<u8> {
        let mut image = self.durable.clone();
        let mode = self.random.below(6);
        for pending in &self.pending {
            let mut survives = |chance| match mode {
                0 => false,
                1 => true,
                _ => self.random.below(4) < chance,
            };
            match pending {
                Pending::Resize(length) if survives(3) => image.resize(*length, 0),
                Pending::Resize(_) => {}
                Pending::Write { offset, data } => {
                    let whole = mode < 4 && survives(2);
                    for (i, sector) in data.chunks(SECTOR).enumerate() {
                        let start = offset + i * SECTOR;
                        let written = if mode < 4 { whole } else { survives(2) };
                        // Behind the end of a file whose growth was lost there is nothing.
                        if written && start < image.len() {
                            let end = image.len().min(start + sector.len());
                            image[start..end].copy_from_slice(&sector[..end - start]);
                        }
                    }
                }
            }
        }
        image
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().live.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.0.lock();
        let from = state.live.get(offset as usize..offset as usize + out.len());
        out.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.0.lock();
        state.begin()?;
        state.live.resize(len as usize, 0);
        state.pending.push(Pending::Resize(len as usize));
        state.imagine();
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.0.lock();
        state.begin()?;
        state.durable = state.live.clone();
        state.pending.clear();
        state.imagine();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.0.lock();
        state.begin()?;
        let offset = offset as usize;
        state.live[offset..offset + data.len()].copy_from_slice(data);
        state.pending.push(Pending::Write { offset, data: data.to_vec() });
        state.imagine();
        Ok(())
    }
}

impl Disk {
    /// A disk with this content, all of it durable.
    fn with(content: Vec<u8>) -> Self {
        let state = State { live: content.clone(), durable: content, ..State::default() };
        Disk(Arc::new(Mutex::new(state)))
    }

    /// A disk with an empty store.
    fn initialised() -> Self {
        let disk = Disk::default();
        let database = tables::builder(1 << 20).create_with_backend(disk.clone()).unwrap();
        tables::initialise(&database).unwrap();
        database.close().unwrap();
        disk
    }

    fn open(&self) -> Tables {
        let database = tables::builder(1 << 20).create_with_backend(self.clone()).expect("the file opens");
        Tables::open(database, "simulated".into(), Codec(None))
            .map_err(|e| e.to_string())
            .expect("it is sound")
    }

    /// What a power loss at each operation since the last call could have left.
    fn images(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.0.lock().images)
    }
}

/// Everything in the store that a power loss left.
fn recovered(image: Vec<u8>) -> Listing {
    Disk::with(image).open().list("").unwrap()
}

/// Group `n` of a workload: creations, updates and deletions of small and large values.
fn group(n: u64, random: &mut Random) -> Vec<Txn> {
    let mut txns = Vec::new();
    for i in 0..1 + random.below(4) {
        let size = if random.below(4) == 0 { 20_000 } else { 50 } + random.below(50) as usize;
        let value = vec![(n + i) as u8; size];
        let txn = Txn::put(format!("/{}", random.below(12)), value.clone())
            .and(Txn::put(format!("/pair/{}", random.below(4)), value))
            .and(Txn::remove(format!("/pair/{}", 4 + random.below(2))));
        txns.push(txn);
    }
    txns.push(Txn::put(format!("/pair/{}", 4 + random.below(2)), "goes away"));
    txns
}

#[test]
fn power_loss_at_any_moment_loses_nothing_answered() {
    let disk = Disk::initialised();
    let tables = disk.open();
    let mut random = Random::default();
    let mut before = tables.list("").unwrap();
    disk.0.lock().imagining = true;
    let mut lost = 0;
    for n in 0..24 {
        tables.commit(group(n, &mut random)).unwrap();
        let during = disk.images();
        // The commit has been answered: whatever is still pending, this is what must be there.
        let after = tables.list("").unwrap();
        for _ in 0..4 {
            let image = disk.0.lock().image();
            assert_eq!(recovered(image), after, "group {n} was answered");
        }
        for (i, image) in during.into_iter().enumerate() {
            let found = recovered(image);
            assert!(found == before || found == after, "group {n}, operation {i}: half of it");
            lost += usize::from(found == before);
        }
        before = after;
    }
    assert!(lost > 100, "the power losses hardly lost anything: {lost}");
}

#[test]
fn power_loss_during_recovery_is_recovered_from() {
    let disk = Disk::initialised();
    let tables = disk.open();
    let mut random = Random::default();
    tables.commit((0..10).flat_map(|n| group(n, &mut random)).collect()).unwrap();
    let before = tables.list("").unwrap();
    disk.0.lock().imagining = true;
    tables.commit(group(10, &mut random)).unwrap();
    let after = tables.list("").unwrap();
    for image in disk.images() {
        let second = Disk::with(image);
        second.0.lock().imagining = true;
        let first = second.open().list("").unwrap();
        for image in second.images() {
            let found = recovered(image);
            assert!(found == before || found == after);
            // What a reader may have seen after the first recovery stays.
            assert!(found == first, "a recovered store fell back");
        }
    }
}

#[test]
fn a_failing_disk_stops_the_store_and_tells_the_truth() {
    let mut unknown = 0;
    for operations in 0.. {
        let disk = Disk::initialised();
        let tables = disk.open();
        let mut random = Random::default();
        tables.commit(group(0, &mut random)).unwrap();
        let before = tables.list("").unwrap();
        disk.0.lock().fails_after = Some(operations);
        let outcome = tables.commit(group(1, &mut random));
        let listing = tables.list("");
        let again = tables.commit(group(2, &mut random)).err();
        drop(tables);
        // The machine goes on: the file holds what was written.
        let found = recovered(disk.0.lock().live.clone());
        match outcome {
            Ok(_) => {
                assert_eq!(found, listing.unwrap(), "after {operations} operations");
                assert!(operations > 3 && unknown > 0, "no failure was met: {operations}, {unknown}");
                return;
            }
            Err(CommitFailed { outcome_unknown: false, .. }) => {
                assert_eq!(found, before, "after {operations} operations: nothing was changed");
            }
            Err(CommitFailed { outcome_unknown: true, .. }) => {
                let fell_back = found == before;
                let revisions = found.revision - before.revision;
                assert!(fell_back || revisions as usize == group(1, &mut replay()).len(), "half of a group");
                unknown += 1;
            }
        }
        let again = again.expect("after a failure nothing is committed");
        assert!(!again.outcome_unknown);
    }
}

/// The random numbers after the first group.
fn replay() -> Random {
    let mut random = Random::default();
    group(0, &mut random);
    random
}

#[tokio::test]
async fn everybody_is_told_that_the_store_stopped() {
    let disk = Disk::initialised();
    let writer = writer::start(disk.open(), Events::new(Window::default(), 0)).unwrap();
    let store = Arc::new(EmbeddedStore::running(writer, None));
    store.commit(Txn::put("/k", "v")).await.unwrap();
    let mut watch = store.watch(0).await.unwrap();
    disk.0.lock().fails_after = Some(1);
    let commits: Vec<_> = (0..20)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move { store.commit(Txn::put(format!("/{n}"), "v")).await })
        })
        .collect();
    for commit in commits {
        let error = commit.await.unwrap().expect_err("the disk failed");
        assert!(!error.retry_can_help());
        assert!(matches!(error, Error::OutcomeUnknown { .. } | Error::Stopped { .. }), "{error}");
    }
    assert_eq!(watch.next().await.unwrap().unwrap().revision, 1);
    assert!(matches!(watch.next().await, Some(Err(Error::Stopped { .. }))));
    assert!(watch.next().await.is_none());
    assert!(matches!(store.get("/k").await, Err(Error::Stopped { .. })));
    assert!(matches!(store.list("").await, Err(Error::Stopped { .. })));
    assert!(matches!(store.revision().await, Err(Error::Stopped { .. })));
    assert!(matches!(store.commit(Txn::put("/k", "v")).await, Err(Error::Stopped { .. })));
    store.close().await;
}
