//! The engine for one machine: a redb file and one writer with group commit.
//!
//! ```text
//! commit ──▶ bounded queue ──▶ writer thread: take all that wait
//!                                 │  one write transaction: judge and apply each
//!                                 │  one fsync
//!                                 ├─▶ events to the watchers, in order
//!                                 └─▶ answers
//! get, list ──▶ a read snapshot, beside the writer
//! ```
//!
//! A commit that was answered survives `kill -9` and power loss; one that was not answered happened
//! completely or not at all. After an I/O error the database is opened again, which tells what it holds ([`engine`]); while
//! the disk fails, commits are refused with the cause, and watchers keep what they have.

mod backend;
mod directory;
mod engine;
#[cfg(test)]
mod faults;
mod restart;
#[cfg(feature = "suite")]
mod simulated;
mod source;
mod tables;
mod trouble;
mod writer;

use crate::contract::{Entry, EventStream, Health, Listing, Revision, Store, Txn};
use crate::error::{Error, OpenError, Result};
use crate::events::{End, Events, Window};
use crate::migrate::Target;
use crate::sealing::{Codec, Encryption};
use crate::transaction;
use async_trait::async_trait;
use directory::Directory;
use parking_lot::Mutex;
pub use restart::WallClock;
use source::Source;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use tables::{Tables, Work};
use tokio::sync::{mpsc, oneshot};
use trouble::Pauses;
use writer::{Message, Request, Shared, Slot, Writer};

/// How to open an [`EmbeddedStore`].
pub struct EmbeddedOptions {
    /// The data directory; created (mode 0700) if it does not exist.
    pub directory: PathBuf,
    /// Which values are sealed at rest. `None` seals nothing and opens nothing that is sealed.
    pub encryption: Option<Encryption>,
    /// How many recent events are kept for the watchers.
    pub window: Window,
    /// What time it is. With it, the revision is raised each time that the store is opened, by more than can have been written
    /// since its last write: if what is opened is a backup that was put back, no revision is given out a second time. `None`:
    /// it goes on where it was.
    pub clock: Option<WallClock>,
}

/// Memory for pages of the file, in bytes. Little: what reads need is in the API server's own cache, and the system caches
/// the file too.
const CACHE_BYTES: usize = 8 << 20;

impl EmbeddedOptions {
    /// The defaults: no encryption, the default [`Window`], no clock.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        EmbeddedOptions {
            directory: directory.into(),
            encryption: None,
            window: Window::default(),
            clock: None,
        }
    }
}

/// A store in a file of this machine.
///
/// [`Store::close`] it before its directory is opened again: a store that is merely dropped lets go
/// of it a moment later, when its writer has finished.
pub struct EmbeddedStore {
    shared: Arc<Shared>,
    /// `None` once closed. Locked only to clone or to take the sender, never across an await.
    queue: Mutex<Option<mpsc::Sender<Message>>>,
    /// What closing has to wait for; an async mutex, because it is held while closing waits: whoever closes at the same
    /// time returns when the store is closed, and not before.
    running: tokio::sync::Mutex<Option<Running>>,
}

struct Running {
    thread: JoinHandle<()>,
    /// The lock of the directory is in here; let go after the database was closed.
    source: Arc<dyn Source>,
}

impl fmt::Debug for EmbeddedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedStore").finish_non_exhaustive()
    }
}

impl EmbeddedStore {
    /// Opens the store in a directory, which is created if need be. Reads the whole file once to
    /// check it.
    ///
    /// # Errors
    ///
    /// [`OpenError`]: the directory is in use, the file is damaged or of a newer version, or a key is
    /// missing. The data is left as it was.
    pub async fn open(options: EmbeddedOptions) -> Result<Self, OpenError> {
        let directory = options.directory.clone();
        match tokio::task::spawn_blocking(move || Self::open_blocking(options)).await {
            Ok(opened) => opened,
            Err(failed) => {
                Err(OpenError::Io { file: directory, action: "open", source: std::io::Error::other(failed) })
            }
        }
    }

    /// Whether there is a store in the directory.
    pub fn is_in(directory: &Path) -> bool {
        directory.join(directory::DATABASE).exists()
    }

    fn open_blocking(options: EmbeddedOptions) -> Result<Self, OpenError> {
        let (codec, clock) = (Codec(options.encryption), options.clock);
        let directory = Directory::lock(&options.directory, codec, clock.clone(), CACHE_BYTES)?;
        let mut tables = directory.open_or_create()?;
        if let Some(clock) = clock {
            tables = restart::leave_gap(tables, &directory, clock())?;
        }
        Self::start(Arc::new(directory), tables, options.window, Pauses::default())
    }

    fn start(
        source: Arc<dyn Source>,
        tables: Tables,
        window: Window,
        pauses: Pauses,
    ) -> Result<Self, OpenError> {
        let file = source.file();
        let revision = tables.revision().map_err(|error| tables::corrupt(file, error.to_string()))?;
        let events = Events::new(window, revision);
        let failed = OpenError::io("start a writer for", file);
        let writer = writer::start(source.clone(), tables, events, revision, pauses).map_err(failed)?;
        let Writer { shared, queue, thread } = writer;
        Ok(EmbeddedStore {
            shared,
            queue: Mutex::new(Some(queue)),
            running: tokio::sync::Mutex::new(Some(Running { thread, source })),
        })
    }

    /// Has the writer carry something out.
    async fn write(&self, work: Work) -> Result<Revision> {
        let queue = self.queue.lock().clone().ok_or(Error::Closed)?;
        // Whatever is in the queue is answered before the writer ends; only a panic leaves it without an answer.
        let (answer, answered) = oneshot::channel();
        if queue.send(Message::Request(Request { work, answer })).await.is_err() {
            // The writer is gone; it said why before it went.
            return Err(self.shared.events.check().err().unwrap_or(Error::Closed));
        }
        // Let go before waiting: closing waits for the writer, and the writer for the last sender.
        drop(queue);
        match answered.await {
            Ok(result) => result,
            Err(_) => Err(Error::OutcomeUnknown { reason: "the writer ended without an answer".into() }),
        }
    }

    /// Passes a reader's result on. If it is an error, the writer sees whether the database has to be opened again.
    fn checked<T>(&self, read: Result<T>) -> Result<T> {
        if let Err(Error::Unavailable { .. }) = &read
            && let Some(queue) = &*self.queue.lock()
        {
            // When the queue is full, the writer is about to use the database, and meets the error itself.
            let _ = queue.try_send(Message::Check);
        }
        read
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn get(&self, key: &str) -> Result<Option<Entry>> {
        // On the caller's thread: a few pages, mostly from the cache. Readers have a snapshot; they
        // do not wait for the writer's fsync.
        let entry = self.checked(self.shared.with_tables(|tables| tables.get(key)))?;
        if let Some(entry) = &entry {
            self.shared.raise_revision(entry.mod_revision);
        }
        Ok(entry)
    }

    async fn list(&self, prefix: &str) -> Result<Listing> {
        // Off the reactor: it may be the whole store, decryption included.
        let (shared, prefix) = (self.shared.clone(), prefix.to_owned());
        let list = move || {
            let listing = shared.with_tables(|tables| tables.list(&prefix))?;
            shared.raise_revision(listing.revision);
            Ok(listing)
        };
        match tokio::task::spawn_blocking(list).await {
            Ok(listing) => self.checked(listing),
            Err(failed) => Err(Error::Unavailable { reason: failed.to_string() }),
        }
    }

    async fn commit(&self, txn: Txn) -> Result<Revision> {
        transaction::validate(&txn)?;
        self.write(Work::Commit(txn)).await
    }

    async fn revision(&self) -> Result<Revision> {
        // From memory, so that it is known while the disk fails.
        self.shared.events.check()?;
        Ok(self.shared.revision())
    }

    async fn watch(&self, after: Revision) -> Result<EventStream> {
        self.shared.events.watch(after)
    }

    fn health(&self) -> Health {
        self.shared.health()
    }

    async fn close(&self) {
        // Without senders the writer answers what waits, and ends.
        drop(self.queue.lock().take());
        let mut running = self.running.lock().await;
        let Some(Running { thread, source }) = running.take() else { return };
        let shared = self.shared.clone();
        // Blocking, and not cancelled with its caller: once begun, the store is closed to the end.
        let finish = tokio::task::spawn_blocking(move || {
            if thread.join().is_err() {
                tracing::error!("the store's writer panicked");
            }
            shared.events.end(End::Closed);
            // Waits for readers that are at work; later ones find nothing and answer that the store is closed.
            if let Slot::Open(tables) = shared.replace(Slot::Closed)
                && let Err(error) = tables.close()
            {
                tracing::warn!(%error, "the store was not closed cleanly; it will be checked when opened");
            }
            // The lock last: whoever gets it finds a database that is closed.
            drop(source);
        });
        if let Err(error) = finish.await {
            tracing::error!(%error, "closing the store failed");
        }
    }
}

#[async_trait]
impl Target for EmbeddedStore {
    async fn raise(&self, revision: Revision) -> Result<()> {
        self.write(Work::Raise(revision)).await.map(|_| ())
    }
}
