//! Where the database of a store is opened, at the start and again after its disk has failed.

use super::tables::Tables;
use crate::error::OpenError;
use std::path::Path;

/// The place of a database. It belongs to this process as long as this lives.
pub(super) trait Source: Send + Sync + 'static {
    /// Opens the database that is there, checks and repairs it. Never makes a new one. No other may be open in it.
    fn open(&self) -> Result<Tables, OpenError>;

    /// Fails if so many more bytes cannot be written beside the database now. Leaves nothing behind.
    fn find_room(&self, bytes: usize) -> Result<(), OpenError>;

    /// The file that an operator has to look at.
    fn file(&self) -> &Path;
}
