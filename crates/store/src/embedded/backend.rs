//! What redb reads and writes through: the file, with a note of what went wrong on it.
//!
//! redb says only of the first I/O error what it was; everything after it is "a previous I/O error". The note keeps the
//! cause, and whether a sync failed, which decides how the file has to be opened again ([`rewrite`]).

use crate::error::Cause;
use parking_lot::Mutex;
use redb::{BackendError, StorageBackend};
use std::io;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What went wrong with the file of a store. Shared by all the databases that are opened in it, one after the other.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// The first error since the database was opened: redb answers every later operation with an error of its own.
    first: Mutex<Option<Cause>>,
    /// Whether the header may have been written since [`expect_commit`](Self::expect_commit): a commit cannot have happened
    /// without.
    header: AtomicBool,
    /// Whether a sync has failed that was not made good since. Written and read by whoever uses the database, one after the
    /// other; relaxed is enough.
    unsynced: AtomicBool,
}

impl Faults {
    /// The first error since [`forget`](Self::forget).
    pub(super) fn first(&self) -> Option<Cause> {
        self.first.lock().clone()
    }

    /// Another database is opened in the file.
    pub(super) fn forget(&self) {
        *self.first.lock() = None;
    }

    /// A commit begins.
    pub(super) fn expect_commit(&self) {
        self.header.store(false, Ordering::Relaxed);
    }

    /// Whether the commit that failed may be on the disk all the same.
    pub(super) fn may_have_committed(&self) -> bool {
        self.header.load(Ordering::Relaxed)
    }

    fn note<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result {
            self.first.lock().get_or_insert_with(|| error.into());
        }
        result
    }
}

/// The file of a database.
#[derive(Debug)]
pub(super) struct Backend<B> {
    file: B,
    faults: Arc<Faults>,
}

impl<B: StorageBackend> Backend<B> {
    /// Takes a file that no database is open in. If a sync of it failed before, what it says is made durable first.
    ///
    /// # Errors
    /// It cannot be made durable.
    pub(super) fn new(file: B, faults: Arc<Faults>) -> io::Result<Self> {
        faults.forget();
        let backend = Backend { file, faults };
        if backend.faults.unsynced.load(Ordering::Relaxed) {
            rewrite(&backend)?;
            backend.faults.unsynced.store(false, Ordering::Relaxed);
        }
        Ok(backend)
    }
}

/// What a commit has to write to take effect lies below this offset (redb, `docs/design.md`: the database header).
const HEADER: u64 = 512;

/// How much of a file is written over at a time, in bytes.
const CHUNK: usize = 1 << 20;

/// Writes every byte of the file over with itself, and syncs.
///
/// After a failed sync Linux holds what was not written for clean: a read shows it, and no later sync writes it. A database
/// that is opened then would answer for data that only memory has. What is written anew is dirty, so the sync that follows
/// says the truth about it. A power loss on the way leaves a part of what had been written before the failed sync, which
/// is what redb recovers from.
fn rewrite(file: &impl StorageBackend) -> io::Result<()> {
    let length = file.len()?;
    let mut buffer = vec![0; CHUNK];
    let mut offset = 0;
    while offset < length {
        let size = usize::try_from(length - offset).map_or(CHUNK, |rest| rest.min(CHUNK));
        file.read(offset, &mut buffer[..size])?;
        file.write(offset, &buffer[..size])?;
        offset += size as u64;
    }
    file.sync_data()
}

impl<B: StorageBackend> StorageBackend for Backend<B> {
    fn len(&self) -> io::Result<u64> {
        self.faults.note(self.file.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.faults.note(self.file.read(offset, out))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.faults.note(self.file.set_len(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        let synced = self.file.sync_data();
        if synced.is_err() {
            self.faults.unsynced.store(true, Ordering::Relaxed);
        }
        self.faults.note(synced)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let written = self.file.write(offset, data);
        // Of a write that failed a part may have arrived, but not on what cannot be written at all.
        let refused = written.as_ref().is_err_and(|error| Cause::from(error) == Cause::ReadOnly);
        if offset < HEADER && !refused {
            self.faults.header.store(true, Ordering::Relaxed);
        }
        self.faults.note(written)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    // The locks are redb's and pass through: they keep two databases of one process apart, the directory's lock processes.

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}
