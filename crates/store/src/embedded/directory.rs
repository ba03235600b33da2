//! The data directory: its lock, and the creation of a new database file.
//!
//! ```text
//! LOCK             held by the process that has the directory; stays there, empty
//! store.redb       the data
//! store.redb.new   a database being created; has no data, removed at the next start
//! ```
//!
//! `store.redb` appears by a rename, after it was made complete and durable: there is no moment at
//! which a crash leaves a half-made one.

use super::tables::{self, Tables};
use crate::error::OpenError;
use crate::private_file;
use crate::sealing::Codec;
use redb::Database;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// The name of the database file.
pub(super) const DATABASE: &str = "store.redb";

/// A data directory that belongs to this process until it is dropped.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    /// The lock is the operating system's and ends with the process, however that ends.
    _lock: File,
}

impl Directory {
    /// Takes the directory, which is created if it does not exist.
    pub(super) fn lock(path: &Path) -> Result<Self, OpenError> {
        private_file::create_directory(path)?;
        let file = path.join("LOCK");
        let lock = private_file::open_or_create(&file).map_err(OpenError::io("open", &file))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenError::InUse { file }),
            Err(TryLockError::Error(source)) => return Err(OpenError::Io { file, action: "lock", source }),
        }
        Ok(Directory { path: path.to_owned(), _lock: lock })
    }

    /// Opens the database in the directory, or makes an empty one if there is none.
    pub(super) fn open(&self, codec: Codec, cache_bytes: usize) -> Result<Tables, OpenError> {
        let file = self.path.join(DATABASE);
        // A warning, not an error: an operator may have given the rights on purpose, to a backup program for example.
        match fs::metadata(&file) {
            Ok(metadata) => {
                if private_file::open_to_others(&metadata) {
                    tracing::warn!(file = %file.display(), "others than its owner have rights to the data");
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.create(&file)?,
            Err(source) => return Err(OpenError::Io { file, action: "inspect", source }),
        }
        let database = tables::open_database(&file, cache_bytes)?;
        Tables::open(database, file, codec)
    }

    fn create(&self, file: &Path) -> Result<(), OpenError> {
        // What an interrupted start left is removed: it has no data, and only the holder of the lock can have left it.
        let new = self.path.join("store.redb.new");
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(OpenError::Io { file: new, action: "remove", source: error });
            }
            _ => {}
        }
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
}
