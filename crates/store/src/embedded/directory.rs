//! The data directory: its lock, the creation of a new database file, and opening what is there.
//!
//! ```text
//! LOCK             held by the process that has the directory; stays there, empty
//! store.redb       the data
//! store.redb.new   a database being created; has no data, removed at the next start
//! ```
//!
//! `store.redb` appears by a rename, after it was made complete and durable: there is no moment at
//! which a crash leaves a half-made one.

use super::backend::Faults;
use super::restart::WallClock;
use super::source::Source;
use super::tables::{self, Tables};
use crate::error::OpenError;
use crate::private_file;
use crate::sealing::Codec;
use parking_lot::Mutex;
use redb::Database;
use redb::backends::FileBackend;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The name of the database file.
pub(super) const DATABASE: &str = "store.redb";

/// A data directory that belongs to this process until it is dropped.
pub(super) struct Directory {
    path: PathBuf,
    database: PathBuf,
    /// The lock is the operating system's and ends with the process, however that ends. Replaced when the directory was
    /// mounted anew; a mutex for that alone, held for a moment by whoever opens the database.
    lock: Mutex<File>,
    codec: Arc<Codec>,
    clock: Option<WallClock>,
    cache_bytes: usize,
    faults: Arc<Faults>,
}

impl Directory {
    /// Takes the directory, which is created if it does not exist.
    pub(super) fn lock(
        path: &Path,
        codec: Codec,
        clock: Option<WallClock>,
        cache_bytes: usize,
    ) -> Result<Self, OpenError> {
        private_file::create_directory(path)?;
        let file = path.join("LOCK");
        let lock = private_file::open_or_create(&file).map_err(OpenError::io("open", &file))?;
        try_lock(&lock, file)?;
        Ok(Directory {
            path: path.to_owned(),
            database: path.join(DATABASE),
            lock: Mutex::new(lock),
            codec: Arc::new(codec),
            clock,
            cache_bytes,
            faults: Arc::default(),
        })
    }

    /// Opens the database in the directory, or makes an empty one if there is none.
    pub(super) fn open_or_create(&self) -> Result<Tables, OpenError> {
        let file = &self.database;
        // A warning, not an error: an operator may have given the rights on purpose, to a backup program for example.
        match fs::metadata(file) {
            Ok(metadata) => {
                if private_file::open_to_others(&metadata) {
                    tracing::warn!(file = %file.display(), "others than its owner have rights to the data");
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.create(file)?,
            Err(source) => return Err(OpenError::Io { file: file.clone(), action: "inspect", source }),
        }
        self.open_file()
    }

    fn open_file(&self) -> Result<Tables, OpenError> {
        let path = &self.database;
        let file = File::options().read(true).write(true).open(path).map_err(OpenError::io("open", path))?;
        let file = FileBackend::new(file).map_err(|error| tables::open_error(path, error.into()))?;
        let (codec, clock, faults) = (self.codec.clone(), self.clock.clone(), self.faults.clone());
        Tables::open(file, path.clone(), codec, clock, faults, self.cache_bytes)
    }

    fn create(&self, file: &Path) -> Result<(), OpenError> {
        // What an interrupted start left is removed: it has no data, and only the holder of the lock can have left it.
        let new = self.path.join("store.redb.new");
        remove_if_there(&new)?;
        drop(private_file::create_new(&new).map_err(OpenError::io("create", &new))?);
        let database = Database::create(&new).map_err(|error| tables::open_error(&new, error.into()))?;
        tables::initialise(&database)
            .and_then(|()| Ok(database.close()?))
            .map_err(|error| tables::open_error(&new, error))?;
        // Content first, then the name: after a power loss the name must not lead to a file whose content never arrived.
        File::open(&new).and_then(|file| file.sync_all()).map_err(OpenError::io("sync", &new))?;
        fs::rename(&new, file).map_err(OpenError::io("create", file))?;
        private_file::sync_directory(&self.path)
    }

    /// Sees that the lock is still held on the directory that the path leads to. It may have been unmounted and mounted
    /// again to repair its file system: then the held lock is one of a file system that is gone, and another process may
    /// have come before us.
    fn hold(&self) -> Result<(), OpenError> {
        let file = self.path.join("LOCK");
        let mut lock = self.lock.lock();
        let there = fs::metadata(&file).map_err(OpenError::io("inspect", &file))?;
        if lock.metadata().is_ok_and(|held| is_same(&held, &there)) {
            return Ok(());
        }
        // Not created: where there is none, this is not our directory.
        let new = File::options().read(true).write(true).open(&file).map_err(OpenError::io("open", &file))?;
        try_lock(&new, file)?;
        *lock = new;
        Ok(())
    }
}

impl Source for Directory {
    fn open(&self) -> Result<Tables, OpenError> {
        self.hold()?;
        self.open_file()
    }

    fn find_room(&self, bytes: usize) -> Result<(), OpenError> {
        let file = self.path.join("store.redb.room");
        remove_if_there(&file)?;
        let mut room = private_file::create_new(&file).map_err(OpenError::io("create", &file))?;
        // Without a name from here on, so that its room is free again however this process ends.
        remove_if_there(&file)?;
        fill(&mut room, bytes).and_then(|()| room.sync_all()).map_err(OpenError::io("write", &file))
    }

    fn file(&self) -> &Path {
        &self.database
    }
}

/// Writes so many bytes that no file system can compress.
fn fill(file: &mut File, bytes: usize) -> io::Result<()> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut block = Vec::with_capacity(64 << 10);
    let mut left = bytes;
    while left > 0 {
        block.clear();
        while block.len() < left.min(64 << 10) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            block.extend_from_slice(&state.to_le_bytes());
        }
        file.write_all(&block)?;
        left = left.saturating_sub(block.len());
    }
    Ok(())
}

fn try_lock(lock: &File, file: PathBuf) -> Result<(), OpenError> {
    match lock.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse { file }),
        Err(TryLockError::Error(source)) => Err(OpenError::Io { file, action: "lock", source }),
    }
}

fn remove_if_there(file: &Path) -> Result<(), OpenError> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(OpenError::io("remove", file)(error)),
        _ => Ok(()),
    }
}

/// Whether both are of one file.
#[cfg(unix)]
fn is_same(one: &fs::Metadata, other: &fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// Elsewhere than on Unix a directory with an open file is not mounted anew.
#[cfg(not(unix))]
fn is_same(_: &fs::Metadata, _: &fs::Metadata) -> bool {
    true
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::contract::Txn;
    use crate::embedded::tables::Work;

    fn locked(path: &Path) -> Result<Directory, OpenError> {
        Directory::lock(path, Codec(None), None, 1 << 20)
    }

    fn put(tables: &Tables) {
        tables.commit([Work::Commit(Txn::put("/k", "v"))].iter()).unwrap();
    }

    #[test]
    fn room_is_looked_for_and_given_back() {
        let dir = tempfile::tempdir().unwrap();
        let directory = locked(dir.path()).map_err(|e| e.to_string()).unwrap();
        for bytes in [0, 1, 100_000, 1 << 20] {
            directory.find_room(bytes).unwrap();
        }
        let names: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["LOCK"]);
    }

    #[test]
    fn a_directory_that_was_mounted_anew_is_locked_anew() {
        let parent = tempfile::tempdir().unwrap();
        let (path, away) = (parent.path().join("data"), parent.path().join("away"));
        let directory = locked(&path).map_err(|e| e.to_string()).unwrap();
        let tables = directory.open_or_create().map_err(|e| e.to_string()).unwrap();
        put(&tables);
        drop(tables);
        fs::rename(&path, &away).unwrap();
        // Unmounted: nothing is made in its place.
        assert!(matches!(directory.open().map(|_| ()), Err(OpenError::Io { .. })));
        assert!(!path.exists());
        fs::create_dir(&path).unwrap();
        assert!(matches!(directory.open().map(|_| ()), Err(OpenError::Io { .. })));
        assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
        // Mounted again, and somebody else was faster.
        for name in ["LOCK", DATABASE] {
            fs::copy(away.join(name), path.join(name)).unwrap();
        }
        let other = locked(&path).map_err(|e| e.to_string()).unwrap();
        assert!(matches!(directory.open().map(|_| ()), Err(OpenError::InUse { .. })));
        drop(other);
        let tables = directory.open().map_err(|e| e.to_string()).unwrap();
        assert_eq!(tables.revision().unwrap(), 1);
        // From here on it is ours.
        assert!(matches!(locked(&path).map(|_| ()), Err(OpenError::InUse { .. })));
    }
}
