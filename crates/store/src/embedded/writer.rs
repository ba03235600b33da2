//! The writer: one thread through which every commit goes.
//!
//! Commits wait in a bounded queue. The thread takes all that are waiting, makes them durable with
//! one fsync, publishes their events, and answers. The more callers there are, the larger the
//! groups: throughput grows with load, and a lone caller waits for nobody.
//!
//! What happens when the disk fails is in [`engine`](super::engine); this is the thread, and what it shares with others.

use super::engine::Engine;
use super::source::Source;
use super::tables::{Tables, Work};
use super::trouble::Pauses;
use crate::contract::{Health, Op, Revision};
use crate::error::{Cause, Error, Result};
use crate::events::{End, Events};
use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout_at;

/// How many commits can wait; the next one waits for a place, so a slow disk slows its writers and fills no memory.
const QUEUE: usize = 1024;
/// A group ends with the commit that reaches one of these: who commits a little must not wait long for who commits much.
const GROUP: usize = 512;
const GROUP_BYTES: usize = 8 << 20;

/// A work that waits for the writer.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) work: Work,
    pub(super) answer: oneshot::Sender<Result<Revision>>,
}

impl Request {
    /// Answers it.
    pub(super) fn reply(self, result: Result<Revision>) {
        // A caller who stopped waiting is fine; the commit stands.
        let _ = self.answer.send(result);
    }

    /// How many bytes it writes, roughly.
    pub(super) fn size(&self) -> usize {
        let op = |op: &Op| match op {
            Op::Put { key, value } => key.len() + value.len(),
            Op::Delete { key } => key.len(),
        };
        match &self.work {
            Work::Commit(txn) => txn.ops.iter().map(op).sum(),
            Work::Raise(_) => 0,
        }
    }
}

/// What the writer is told.
#[derive(Debug)]
pub(super) enum Message {
    /// Something to write.
    Request(Request),
    /// A reader met an error: see whether the database has to be opened again.
    Check,
}

/// The database as its users find it.
pub(super) enum Slot {
    Open(Tables),
    /// It failed, and is not open again yet.
    Down(Cause),
    Closed,
}

/// What the writer shares with the readers.
pub(super) struct Shared {
    /// Held for reading while the database is in use, so that whoever takes it away waits for its users; for writing only to
    /// put something else in place, never while a file is opened.
    slot: RwLock<Slot>,
    pub(super) events: Events,
    /// The last revision that anybody was told of. The writer raises it once its event is there; a reader that finds what the
    /// writer is about to publish raises it earlier, so that it is never behind what was read.
    revision: AtomicU64,
    /// Written by the writer alone; held to copy.
    health: Mutex<Health>,
}

impl Shared {
    pub(super) fn new(tables: Tables, events: Events, revision: Revision) -> Self {
        Shared {
            slot: RwLock::new(Slot::Open(tables)),
            events,
            revision: AtomicU64::new(revision),
            health: Mutex::new(Health::Writable),
        }
    }

    /// Uses the database, if it is open.
    pub(super) fn with_tables<T>(&self, read: impl FnOnce(&Tables) -> Result<T>) -> Result<T> {
        self.events.check()?;
        match &*self.slot.read() {
            Slot::Open(tables) => read(tables),
            Slot::Down(cause) => {
                Err(Error::Unavailable { reason: format!("it is being opened again: {cause}") })
            }
            Slot::Closed => Err(Error::Closed),
        }
    }

    /// The database, which stays in place as long as the guard lives.
    pub(super) fn slot(&self) -> RwLockReadGuard<'_, Slot> {
        self.slot.read()
    }

    /// Puts something in the place of the database, once nobody uses it, and gives what was there.
    pub(super) fn replace(&self, slot: Slot) -> Slot {
        std::mem::replace(&mut *self.slot.write(), slot)
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(&*self.slot.read(), Slot::Open(_))
    }

    pub(super) fn revision(&self) -> Revision {
        self.revision.load(Ordering::Acquire)
    }

    pub(super) fn raise_revision(&self, revision: Revision) {
        self.revision.fetch_max(revision, Ordering::AcqRel);
    }

    pub(super) fn health(&self) -> Health {
        self.health.lock().clone()
    }

    pub(super) fn set_health(&self, health: Health) {
        *self.health.lock() = health;
    }
}

/// Runs until all senders are gone and every waiting commit is answered.
fn run(mut engine: Engine, mut queue: mpsc::Receiver<Message>, timer: &tokio::runtime::Runtime) {
    // If a bug here panics, watchers and later callers are told that the store stopped.
    let _guard = StopOnPanic(engine.shared().clone(), engine.file().to_owned());
    loop {
        let message = match engine.recovers_at() {
            None => queue.blocking_recv(),
            // The runtime is for this timer alone: nothing else runs on it.
            Some(at) => match timer.block_on(async { timeout_at(at, queue.recv()).await }) {
                Ok(message) => message,
                Err(_) => {
                    engine.recover();
                    continue;
                }
            },
        };
        match message {
            None => return,
            Some(Message::Check) => engine.check(),
            Some(Message::Request(first)) => engine.commit(gather(first, &mut queue)),
        }
        // Also when there is always something to do.
        if engine.recovers_at().is_some_and(|at| at <= tokio::time::Instant::now()) {
            engine.recover();
        }
    }
}

/// The first request and those that wait behind it, up to the limits of a group.
fn gather(first: Request, queue: &mut mpsc::Receiver<Message>) -> Vec<Request> {
    let mut bytes = first.size();
    let mut group = vec![first];
    while group.len() < GROUP && bytes < GROUP_BYTES {
        match queue.try_recv() {
            Ok(Message::Request(request)) => {
                bytes += request.size();
                group.push(request);
            }
            // The commit of this group finds out by itself.
            Ok(Message::Check) => {}
            Err(_) => break,
        }
    }
    group
}

/// Ends the events if the writer panics: nobody waits for a thread that is gone.
struct StopOnPanic(Arc<Shared>, std::path::PathBuf);

impl Drop for StopOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let problem = "the writer panicked".to_owned();
            self.0.set_health(Health::Stopped { problem: problem.clone() });
            self.0.events.end(End::Stopped { file: self.1.clone(), problem });
        }
    }
}

/// Starts the thread over a database that was opened in `source`. `revision` is what the database has.
pub(super) fn start(
    source: Arc<dyn Source>,
    tables: Tables,
    events: Events,
    revision: Revision,
    pauses: Pauses,
) -> io::Result<Writer> {
    let shared = Arc::new(Shared::new(tables, events, revision));
    let engine = Engine::new(shared.clone(), source, revision, pauses);
    let (queue, receiver) = mpsc::channel(QUEUE);
    let timer = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let thread = std::thread::Builder::new()
        .name("store-writer".into())
        .spawn(move || run(engine, receiver, &timer))?;
    Ok(Writer { shared, queue, thread })
}

/// A running writer: a handle to the queue and to the shared state, for [`super::EmbeddedStore`].
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) queue: mpsc::Sender<Message>,
    pub(super) thread: std::thread::JoinHandle<()>,
}
