//! The store on a simulated disk, for tests of what happens when disks fail.

use super::backend::Faults;
use super::source::Source;
use super::tables::{self, Tables};
use super::trouble::Pauses;
use super::{CACHE_BYTES, EmbeddedStore};
use crate::error::OpenError;
use crate::events::Window;
use crate::sealing::Codec;
use crate::suite::disk::Disk;
use redb::StorageBackend as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// What an operator is told: a simulated disk has no files.
const FILE: &str = "simulated";

/// A disk as the place of a database.
pub(super) struct Simulated {
    pub(super) disk: Disk,
    codec: Arc<Codec>,
    faults: Arc<Faults>,
}

impl Simulated {
    pub(super) fn new(disk: Disk) -> Self {
        Simulated { disk, codec: Arc::new(Codec(None)), faults: Arc::default() }
    }

    /// Puts an empty store on an empty disk.
    pub(super) fn initialise(&self) {
        let database = tables::builder(CACHE_BYTES).create_with_backend(self.disk.clone());
        let database = database.expect("an empty disk takes a database");
        tables::initialise(&database).and_then(|()| Ok(database.close()?)).expect("the disk is well");
    }
}

impl Source for Simulated {
    fn open(&self) -> Result<Tables, OpenError> {
        let (codec, faults) = (self.codec.clone(), self.faults.clone());
        Tables::open(self.disk.clone(), FILE.into(), codec, None, faults, CACHE_BYTES)
    }

    fn find_room(&self, bytes: usize) -> Result<(), OpenError> {
        self.disk.find_room(bytes).map_err(OpenError::io("write", self.file()))
    }

    fn file(&self) -> &Path {
        Path::new(FILE)
    }
}

impl EmbeddedStore {
    /// A store on a simulated disk: what is on it, or a new one. It tries to recover every few milliseconds.
    ///
    /// # Panics
    /// If the disk fails already.
    pub fn on_disk(disk: &Disk) -> Self {
        let source = Simulated::new(disk.clone());
        if disk.len().is_ok_and(|length| length == 0) {
            source.initialise();
        }
        let tables = source.open().expect("the store opens");
        let pauses = Pauses { first: Duration::from_millis(2), longest: Duration::from_millis(10) };
        Self::start(Arc::new(source), tables, Window::default(), pauses).expect("a thread")
    }
}
