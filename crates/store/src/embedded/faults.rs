//! Power loss and failing disks.
//!
//! SIGKILL cannot show a missing fsync, because the kernel still has every write. Here redb works on
//! a simulated disk that separates what was written from what is durable. After every single I/O
//! operation of a workload, disks are imagined that a power loss could leave: of what was written
//! since the last sync, any part may be missing or torn. Each must open with everything that was
//! answered, and with nothing half done.
//!
//! The engine is driven step by step, without its thread and its timer, so that every run is the same.

use super::EmbeddedStore;
use super::engine::Engine;
use super::simulated::Simulated;
use super::source::Source;
use super::tables::{CommitFailed, Tables, Work};
use super::trouble::Pauses;
use super::writer::{Request, Shared};
use crate::contract::{Change, Entry, Event, EventStream, Health, Listing, Revision, Store, Txn};
use crate::error::{Cause, Error, OpenError, Result};
use crate::events::{Events, Window};
use crate::suite::disk::{Disk, Fault, Plan, Random};
use futures::{FutureExt, StreamExt};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;

/// A disk with an empty store.
fn initialised() -> Disk {
    let disk = Disk::new();
    Simulated::new(disk.clone()).initialise();
    disk
}

fn open(disk: &Disk) -> Tables {
    Simulated::new(disk.clone()).open().map_err(|e| e.to_string()).expect("the file opens and is sound")
}

/// Everything in the store that a power loss left.
fn recovered(image: Vec<u8>) -> Listing {
    open(&Disk::with(image)).list("").unwrap()
}

/// Group `n` of a workload: creations, updates and deletions of small and large values.
fn group(n: u64, random: &mut Random) -> Vec<Work> {
    let mut txns = Vec::new();
    for i in 0..1 + random.below(4) {
        let size = if random.below(4) == 0 { 20_000 } else { 50 } + random.below(50) as usize;
        let value = vec![(n + i) as u8; size];
        let txn = Txn::put(format!("/{}", random.below(12)), value.clone())
            .and(Txn::put(format!("/pair/{}", random.below(4)), value))
            .and(Txn::remove(format!("/pair/{}", 4 + random.below(2))));
        txns.push(Work::Commit(txn));
    }
    txns.push(Work::Commit(Txn::put(format!("/pair/{}", 4 + random.below(2)), "goes away")));
    txns
}

#[test]
fn power_loss_at_any_moment_loses_nothing_answered() {
    let disk = initialised();
    let tables = open(&disk);
    let mut random = Random::default();
    let mut before = tables.list("").unwrap();
    disk.imagine();
    let mut lost = 0;
    for n in 0..24 {
        tables.commit(group(n, &mut random).iter()).unwrap();
        let during = disk.images();
        // The commit has been answered: whatever is still pending, this is what must be there.
        let after = tables.list("").unwrap();
        for _ in 0..4 {
            assert_eq!(recovered(disk.image()), after, "group {n} was answered");
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
    let disk = initialised();
    let tables = open(&disk);
    let mut random = Random::default();
    let first: Vec<Work> = (0..10).flat_map(|n| group(n, &mut random)).collect();
    tables.commit(first.iter()).unwrap();
    let before = tables.list("").unwrap();
    disk.imagine();
    tables.commit(group(10, &mut random).iter()).unwrap();
    let after = tables.list("").unwrap();
    for image in disk.images() {
        let second = Disk::with(image);
        second.imagine();
        let first = open(&second).list("").unwrap();
        for image in second.images() {
            let found = recovered(image);
            assert!(found == before || found == after);
            // What a reader may have seen after the first recovery stays.
            assert!(found == first, "a recovered store fell back");
        }
    }
}

#[test]
fn a_commit_that_fails_tells_the_truth() {
    let mut unknown = 0;
    for operations in 0.. {
        let disk = initialised();
        let tables = open(&disk);
        let mut random = Random::default();
        tables.commit(group(0, &mut random).iter()).unwrap();
        let before = tables.list("").unwrap();
        disk.fail(Some(Plan { after: operations, lasting: u32::MAX, fault: Fault::NoSpace }));
        let outcome = tables.commit(group(1, &mut random).iter());
        let listing = tables.list("");
        let again = tables.commit(group(2, &mut random).iter()).err();
        drop(tables);
        // The machine goes on: the file holds what was written.
        let found = recovered(disk.content());
        match outcome {
            Ok(_) => {
                assert_eq!(found, listing.unwrap(), "after {operations} operations");
                assert!(operations > 3 && unknown > 0, "no failure was met: {operations}, {unknown}");
                return;
            }
            Err(CommitFailed { cause, unknown: None }) => {
                assert_eq!(cause, Cause::NoSpace);
                assert_eq!(found, before, "after {operations} operations: nothing was changed");
            }
            Err(CommitFailed { cause, unknown: Some(group) }) => {
                assert_eq!(cause, Cause::NoSpace);
                assert!(found == before || found.revision == group.revision, "half of a group");
                unknown += 1;
            }
        }
        let again = again.expect("after a failure nothing is committed");
        assert_eq!((again.cause, again.unknown.is_some()), (Cause::NoSpace, false), "it says why once more");
    }
}

/// A store without its thread.
struct Rig {
    disk: Disk,
    shared: Arc<Shared>,
    engine: Engine,
    watch: EventStream,
    /// What the events so far make.
    state: BTreeMap<Arc<str>, Entry>,
    revision: Revision,
}

type Answer = oneshot::Receiver<Result<Revision>>;

impl Rig {
    fn new() -> Self {
        let disk = Disk::new();
        let source = Arc::new(Simulated::new(disk.clone()));
        source.initialise();
        let tables = source.open().map_err(|e| e.to_string()).unwrap();
        let shared = Arc::new(Shared::new(tables, Events::new(Window::default(), 0), 0));
        let watch = shared.events.watch(0).unwrap();
        let engine = Engine::new(shared.clone(), source, 0, Pauses::default());
        Rig { disk, shared, engine, watch, state: BTreeMap::new(), revision: 0 }
    }

    /// Has a group carried out; an answer for each of its transactions.
    fn commit(&mut self, txns: Vec<Txn>) -> Vec<Result<Revision>> {
        let (requests, answers): (Vec<Request>, Vec<Answer>) = txns
            .into_iter()
            .map(|txn| {
                let (answer, answered) = oneshot::channel();
                (Request { work: Work::Commit(txn), answer }, answered)
            })
            .unzip();
        self.engine.commit(requests);
        answers.into_iter().map(|mut answer| answer.try_recv().expect("everybody is answered")).collect()
    }

    fn put(&mut self, key: &str, size: usize) -> Result<Revision> {
        self.commit(vec![Txn::put(key, vec![b'x'; size])]).remove(0)
    }

    /// The events that have come since the last call.
    fn events(&mut self) -> Vec<Arc<Event>> {
        let mut events = Vec::new();
        while let Some(event) = self.watch.next().now_or_never() {
            let event = event.expect("the watch goes on").expect("and has no error");
            assert_eq!(event.revision, self.revision + 1, "none lost, none twice");
            self.revision = event.revision;
            apply(&mut self.state, &event);
            events.push(event);
        }
        assert_eq!(self.shared.revision(), self.revision, "the revision is that of the last event");
        events
    }

    fn listing(&self) -> Listing {
        Listing { revision: self.revision, entries: self.state.values().cloned().collect() }
    }

    fn list(&self) -> Result<Listing> {
        self.shared.with_tables(|tables| tables.list(""))
    }
}

fn apply(state: &mut BTreeMap<Arc<str>, Entry>, event: &Event) {
    for change in &event.changes {
        match change {
            Change::Put(entry) => drop(state.insert(entry.key.clone(), entry.clone())),
            Change::Delete { key, .. } => drop(state.remove(key)),
        }
    }
}

/// What became of the transactions of a random run, by the number that each has in its value.
#[derive(Default)]
struct Told {
    done: BTreeMap<u64, Revision>,
    refused: Vec<u64>,
    unknown: Vec<u64>,
    /// Those that watchers were told of, with the revision.
    seen: BTreeMap<u64, Revision>,
    next: u64,
}

impl Told {
    fn txn(&mut self, random: &mut Random) -> Txn {
        self.next += 1;
        let size = [8, 200, 3_000, 30_000][random.below(4) as usize];
        let mut value = vec![random.below(256) as u8; size];
        value[..8].copy_from_slice(&self.next.to_be_bytes());
        let txn = Txn::put(format!("/{}", random.below(20)), value);
        if random.below(3) == 0 { txn.and(Txn::remove(format!("/gone/{}", random.below(3)))) } else { txn }
    }

    fn commit(&mut self, rig: &mut Rig, random: &mut Random) {
        let first = self.next + 1;
        let txns = (0..1 + random.below(5)).map(|_| self.txn(random)).collect();
        for (number, answer) in (first..).zip(rig.commit(txns)) {
            match answer {
                Ok(revision) => drop(self.done.insert(number, revision)),
                Err(Error::Unwritable { .. }) => self.refused.push(number),
                Err(Error::OutcomeUnknown { .. }) => self.unknown.push(number),
                Err(other) => panic!("{other}"),
            }
        }
    }

    /// Takes in what watchers are told.
    fn watch(&mut self, rig: &mut Rig) {
        for event in rig.events() {
            let put = event.changes.iter().find_map(|change| match change {
                Change::Put(entry) => Some(entry.value[..8].try_into().unwrap()),
                Change::Delete { .. } => None,
            });
            let number = u64::from_be_bytes(put.expect("each transaction puts something"));
            assert!(self.seen.insert(number, event.revision).is_none(), "nothing happens twice");
        }
        for (number, revision) in &self.done {
            assert_eq!(self.seen.get(number), Some(revision), "what was acknowledged is published");
        }
        for refused in &self.refused {
            assert!(!self.seen.contains_key(refused), "what was refused never appears");
        }
    }

    /// A power loss now: all that was acknowledged is there, and nothing that was refused; of what is of unknown outcome, all
    /// or nothing.
    fn lose_power(&self, rig: &Rig) {
        let found = recovered(rig.disk.image());
        let known = rig.listing();
        if found == known {
            return;
        }
        assert!(found.revision > known.revision, "{} is lost", known.revision);
        let new = found.entries.iter().filter(|entry| entry.mod_revision > known.revision);
        for entry in new {
            let number = u64::from_be_bytes(entry.value[..8].try_into().unwrap());
            assert!(self.unknown.contains(&number), "{number} was never acknowledged");
        }
        let old = |listing: &Listing| {
            let old = listing.entries.iter().filter(|entry| entry.mod_revision <= known.revision).cloned();
            old.collect::<Vec<_>>()
        };
        let kept = old(&found);
        assert!(kept.iter().all(|entry| known.entries.contains(entry)), "an older state appeared");
    }
}

/// One random fault.
fn plan(random: &mut Random) -> Plan {
    let fault = [Fault::NoSpace, Fault::Io, Fault::ReadOnly][random.below(3) as usize];
    let lasting = [1, 2, 5, 40, u32::MAX][random.below(5) as usize];
    Plan { after: random.below(25) as u32, lasting, fault }
}

/// How many random runs there are. Each takes a tenth of a second without optimisation; hundreds passed when this was written.
const SEEDS: u64 = 12;

#[test]
fn whatever_fails_nothing_acknowledged_is_lost_and_nothing_else_appears() {
    let (mut failures, mut refused, mut unknown, mut happened) = (0, 0, 0, 0);
    for seed in 0..SEEDS {
        let mut random = Random::seeded(seed);
        let mut rig = Rig::new();
        let mut told = Told::default();
        for _ in 0..50 {
            match random.below(10) {
                0 => rig.disk.fail(Some(plan(&mut random))),
                1 => rig.disk.fail(None),
                2 => {
                    let room = random.below(3) * 20_000;
                    rig.disk.leave_room((random.below(2) == 0).then_some(room as usize));
                }
                3 => rig.engine.recover(),
                4 => {
                    // A reader may meet the fault first. It gets an error or what is true.
                    if let Ok(listing) = rig.list() {
                        assert_eq!(listing, rig.listing());
                    }
                    rig.engine.check();
                }
                _ => told.commit(&mut rig, &mut random),
            }
            told.watch(&mut rig);
            if random.below(4) == 0 {
                told.lose_power(&rig);
            }
        }
        rig.disk.fail(None);
        rig.disk.leave_room(None);
        rig.engine.recover();
        assert_eq!(rig.engine.recovers_at(), None, "all is well again");
        assert_eq!(rig.shared.health(), Health::Writable);
        told.commit(&mut rig, &mut random);
        told.watch(&mut rig);
        assert!(told.done.contains_key(&told.next), "and writes are carried out");
        assert_eq!(rig.list().unwrap(), rig.listing());
        assert_eq!(recovered(rig.disk.image()), rig.listing(), "durably");
        failures += rig.disk.failures();
        refused += told.refused.len();
        unknown += told.unknown.len();
        happened += told.unknown.iter().filter(|number| told.seen.contains_key(number)).count();
    }
    // Otherwise this showed nothing.
    assert!(failures > 50 && refused > 100 && unknown > 5, "{failures} {refused} {unknown}");
    assert!(happened > 0 && happened < unknown, "{happened} of {unknown} happened");
}

#[test]
fn a_full_disk_refuses_writes_until_there_is_room() {
    let mut rig = Rig::new();
    for n in 0..20 {
        rig.put(&format!("/small/{n}"), 100).unwrap();
    }
    rig.put("/large", 300_000).unwrap();
    rig.disk.leave_room(Some(40_000));
    // One group: the small one does not suffer from the large one.
    let answers = rig.commit(vec![Txn::put("/new", vec![0; 500_000]), Txn::put("/small/1", "new")]);
    assert!(matches!(&answers[0], Err(Error::Unwritable { cause: Cause::NoSpace })), "{answers:?}");
    assert!(answers[1].is_ok(), "{answers:?}");
    assert!(matches!(rig.shared.health(), Health::Unwritable { cause: Cause::NoSpace, .. }));
    let failures = rig.disk.failures();
    for _ in 0..10 {
        assert!(matches!(rig.put("/new", 500_000), Err(Error::Unwritable { .. })));
        assert!(matches!(rig.put("/small/2", 100), Err(Error::Unwritable { .. })));
    }
    assert_eq!(rig.disk.failures(), failures, "what cannot succeed is not tried for each client");
    rig.engine.recover();
    assert!(matches!(rig.shared.health(), Health::Unwritable { .. }), "there is no more room than before");
    rig.disk.leave_room(None);
    rig.engine.recover();
    assert_eq!(rig.shared.health(), Health::Writable);
    rig.put("/new", 500_000).unwrap();
    rig.events();
    assert_eq!(rig.list().unwrap(), rig.listing());
}

#[test]
fn a_disk_that_only_reads_refuses_at_once_and_says_why() {
    const REFUSED: &str = "the store cannot be written: ";
    // What an I/O error has left on the disk only the disk knows.
    const UNKNOWN: &str = "it is not known whether the commit happened: ";
    for (fault, cause, first) in [
        (Fault::ReadOnly, "read-only file system", REFUSED),
        (Fault::Io, "Input/output error (os error 5)", UNKNOWN),
    ] {
        let mut rig = Rig::new();
        rig.put("/k", 10).unwrap();
        rig.disk.fail(Some(Plan { after: 0, lasting: u32::MAX, fault }));
        let error = rig.put("/k", 10).unwrap_err().to_string();
        assert_eq!(error, format!("{first}{cause}"));
        let failures = rig.disk.failures();
        let error = rig.put("/k", 1).unwrap_err().to_string();
        assert_eq!(error, format!("{REFUSED}{cause}"));
        assert_eq!(rig.disk.failures(), failures);
        let Health::Unwritable { problem, .. } = rig.shared.health() else { panic!("{fault:?}") };
        assert!(problem.contains("simulated") && problem.contains(cause), "{problem}");
        assert_eq!(rig.events().len(), 1, "watchers have what there was, and go on");
        rig.engine.recover();
        assert!(rig.engine.recovers_at().is_some());
        rig.disk.fail(None);
        rig.engine.recover();
        assert_eq!(rig.put("/k", 10).unwrap(), 2);
    }
}

#[test]
fn a_reader_that_meets_an_error_has_the_database_opened_again() {
    let mut rig = Rig::new();
    // More than the database keeps in memory, so that reads reach the disk.
    for n in 0..12 {
        rig.put(&format!("/{n}"), 1 << 20).unwrap();
    }
    rig.events();
    rig.disk.fail(Some(Plan { after: 3, lasting: 1, fault: Fault::Io }));
    assert!(matches!(rig.list(), Err(Error::Unavailable { .. })));
    rig.engine.check();
    assert_eq!(rig.list().unwrap(), rig.listing());
    rig.engine.recover();
    assert_eq!(rig.shared.health(), Health::Writable);
}

#[test]
fn a_file_that_is_not_the_one_that_was_written_is_not_taken() {
    let mut other = Rig::new();
    other.put("/k", 10).unwrap();
    let old = other.disk.content();
    // At the revision that is expected, with something else.
    other.put("/other", 10).unwrap();
    let foreign = other.disk.content();
    let mut rig = Rig::new();
    rig.put("/k", 10).unwrap();
    rig.put("/k", 20).unwrap();
    let ours = rig.disk.content();
    for (content, why) in [(old, "at revision 1"), (foreign, "lacks what was written last")] {
        rig.disk.fail(Some(Plan { after: 0, lasting: 1, fault: Fault::ReadOnly }));
        rig.disk.replace(content);
        assert!(matches!(rig.put("/k", 10), Err(Error::Unwritable { .. })));
        rig.engine.recover();
        let Health::Unwritable { cause: Cause::Damaged, problem } = rig.shared.health() else { panic!() };
        assert!(problem.contains(why), "{problem}");
        assert!(matches!(rig.put("/k", 10), Err(Error::Unwritable { cause: Cause::Damaged })));
        rig.disk.replace(ours.clone());
        rig.engine.recover();
        assert_eq!(rig.shared.health(), Health::Writable);
    }
    assert_eq!(rig.put("/k", 30).unwrap(), 3);
}

/// Counts the lines of a log, by level.
#[derive(Clone, Default)]
struct Log(Arc<[AtomicUsize; 2]>);

impl tracing::Subscriber for Log {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().starts_with("fleetpass_store") && *metadata.level() <= tracing::Level::INFO
    }

    fn event(&self, event: &tracing::Event<'_>) {
        let is_info = *event.metadata().level() == tracing::Level::INFO;
        self.0[usize::from(is_info)].fetch_add(1, Ordering::Relaxed);
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[test]
fn each_change_is_logged_once() {
    let log = Log::default();
    let lines = || [0, 1].map(|i| log.0[i].load(Ordering::Relaxed));
    tracing::subscriber::with_default(log.clone(), || {
        let mut rig = Rig::new();
        for _ in 0..2 {
            // Another cause is a change, too.
            for fault in [Fault::ReadOnly, Fault::NoSpace] {
                let before = lines();
                rig.disk.fail(Some(Plan { after: 0, lasting: u32::MAX, fault }));
                for _ in 0..10 {
                    rig.put("/k", 1000).unwrap_err();
                    rig.engine.recover();
                }
                assert_eq!(lines()[0] - before[0], 1, "{fault:?}");
            }
            rig.disk.fail(None);
            rig.engine.recover();
            rig.put("/k", 1000).unwrap();
        }
    });
    assert_eq!(lines(), [4, 2]);
}

/// A disk on which the engine meets a mistake of its own.
struct Panicking(Simulated);

impl Source for Panicking {
    fn open(&self) -> std::result::Result<Tables, OpenError> {
        self.0.open()
    }

    fn find_room(&self, _: usize) -> std::result::Result<(), OpenError> {
        panic!("a test")
    }

    fn file(&self) -> &Path {
        self.0.file()
    }
}

#[tokio::test]
async fn everybody_is_told_when_the_writer_is_gone() {
    let source = Arc::new(Panicking(Simulated::new(initialised())));
    let disk = source.0.disk.clone();
    let tables = source.open().map_err(|e| e.to_string()).unwrap();
    let pauses = Pauses { first: Duration::from_millis(1), longest: Duration::from_millis(1) };
    let store = EmbeddedStore::start(source, tables, Window::default(), pauses).unwrap();
    store.commit(Txn::put("/k", "v")).await.unwrap();
    let mut watch = store.watch(0).await.unwrap();
    // Full, so that the database is opened again and room is looked for.
    disk.leave_room(Some(0));
    store.commit(Txn::put("/k", vec![0; 4 << 20])).await.unwrap_err();
    assert_eq!(watch.next().await.unwrap().unwrap().revision, 1);
    assert!(matches!(watch.next().await, Some(Err(Error::Stopped { .. }))));
    assert!(watch.next().await.is_none());
    assert!(matches!(store.health(), Health::Stopped { .. }));
    assert!(matches!(store.get("/k").await, Err(Error::Stopped { .. })));
    assert!(matches!(store.revision().await, Err(Error::Stopped { .. })));
    let error = store.commit(Txn::put("/k", "v")).await.unwrap_err();
    assert!(matches!(error, Error::Stopped { .. } | Error::OutcomeUnknown { .. }), "{error}");
    store.close().await;
}

#[tokio::test]
async fn a_store_comes_back_by_itself() {
    let disk = Disk::new();
    let store = Arc::new(EmbeddedStore::on_disk(&disk));
    store.commit(Txn::put("/k", "v")).await.unwrap();
    let mut watch = store.watch(0).await.unwrap();
    disk.fail(Some(Plan { after: 1, lasting: u32::MAX, fault: Fault::Io }));
    let commits: Vec<_> = (0..20)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move { store.commit(Txn::put(format!("/{n}"), "v")).await })
        })
        .collect();
    for commit in commits {
        let error = commit.await.unwrap().expect_err("the disk failed");
        assert!(!error.retry_can_help());
        assert!(matches!(error, Error::OutcomeUnknown { .. } | Error::Unwritable { .. }), "{error}");
    }
    assert_eq!(store.revision().await.unwrap(), 1);
    assert!(matches!(store.health(), Health::Unwritable { .. }));
    assert_eq!(watch.next().await.unwrap().unwrap().revision, 1);
    assert!(matches!(store.get("/k").await, Err(Error::Unavailable { .. })), "it cannot be read either");
    disk.fail(None);
    while store.health() != Health::Writable {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(store.get("/k").await.unwrap().unwrap().value, "v");
    let revision = store.commit(Txn::put("/k", "again")).await.unwrap();
    loop {
        let event = watch.next().await.expect("the watch goes on").expect("and has no error");
        if event.revision == revision {
            break;
        }
    }
    store.close().await;
    assert!(watch.next().await.is_none());
}
