//! What is in the database file, and how transactions change it. No threads, no queue.
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | `meta` | `format` | version of this layout: 1 |
//! | `meta` | `revision` | the store's revision |
//! | `meta` | `written` | when that was last raised, in seconds since 1970; not there where nobody said what time it was |
//! | `entries` | storage key | create revision, modification revision, value as [`sealing`](crate::sealing) lays it out |
//!
//! Whoever changes this layout raises [`FORMAT`]: older versions then refuse the file instead of
//! misreading it.

use super::backend::{Backend, Faults};
use super::restart::WallClock;
use crate::contract::{Change, Entry, Event, Listing, Revision, Txn};
use crate::error::{Cause, Error, OpenError, Result};
use crate::sealing::{Codec, SealError};
use crate::transaction::{self, Outcome, Revisions, State};
use bytes::Bytes;
use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, StorageBackend, Table, TableDefinition,
};
use std::collections::HashMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const ENTRIES: TableDefinition<'_, &str, Row> = TableDefinition::new("entries");

/// Create revision, modification revision, stored value.
type Row = (u64, u64, &'static [u8]);

const FORMAT: u64 = 1;
const FORMAT_ROW: &str = "format";
const REVISION_ROW: &str = "revision";
/// Older versions neither read nor write it, and need not: what comes of one that is old or missing is a larger gap.
const WRITTEN_ROW: &str = "written";

const RESTORE: &str = "restore it from a backup, or move it away to start with an empty store";

/// An open database whose layout was checked.
pub(super) struct Tables {
    database: Database,
    file: PathBuf,
    codec: Arc<Codec>,
    clock: Option<WallClock>,
    faults: Arc<Faults>,
}

/// Something to be written.
#[derive(Debug)]
pub(super) enum Work {
    /// A transaction, valid as [`transaction::validate`] has it.
    Commit(Txn),
    /// Make the revision this one at least.
    Raise(Revision),
}

/// What became of a group of works.
#[derive(Debug)]
pub(super) struct Group {
    /// An answer for each of them, in their order.
    pub(super) answers: Vec<Result<Revision>>,
    /// The events of those that changed something, in the order of their revisions.
    pub(super) events: Vec<Arc<Event>>,
    /// The store's revision after them.
    pub(super) revision: Revision,
}

/// Why nothing of a group can be answered; the database takes no more of them and has to be opened again.
#[derive(Debug)]
pub(super) struct CommitFailed {
    /// What happened.
    pub(super) cause: Cause,
    /// The group as it is if it has become durable all the same; `None` if it certainly has not.
    pub(super) unknown: Option<Group>,
}

/// Opens an existing database file after checking all of it: what the check finds damaged is
/// refused here, and not met by a reader later.
fn open_database(
    file: &Path,
    backend: Backend<impl StorageBackend>,
    cache_bytes: usize,
) -> Result<Database, OpenError> {
    // redb would make a new database of an empty file, and hide that all is lost.
    if backend.len().map_err(OpenError::io("inspect", file))? == 0 {
        return Err(corrupt(file, "it is empty".into()));
    }
    // Unwind safety is asserted: a builder is made for this call, and whatever panicked is dropped with it.
    let builder = builder(cache_bytes);
    // A damaged file may trip an assertion of redb; that is an answer about the file, not a mistake here.
    catch_unwind(AssertUnwindSafe(|| builder.create_with_backend(backend)))
        .map_err(|_| corrupt(file, "the database cannot be parsed".into()))?
        .map_err(|error| open_error(file, error.into()))
}

/// How redb is set up for this store.
pub(super) fn builder(cache_bytes: usize) -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(cache_bytes).set_check_integrity_on_open(true);
    builder
}

/// Makes the tables of an empty store.
pub(super) fn initialise(database: &Database) -> Result<(), redb::Error> {
    let write = database.begin_write()?;
    {
        write.open_table(ENTRIES)?;
        let mut meta = write.open_table(META)?;
        meta.insert(FORMAT_ROW, FORMAT)?;
        meta.insert(REVISION_ROW, 0)?;
    }
    Ok(write.commit()?)
}

/// What redb says about `file`, for an operator.
pub(super) fn open_error(file: &Path, error: redb::Error) -> OpenError {
    match error {
        redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => {
            OpenError::InUse { file: file.to_owned() }
        }
        redb::Error::Io(source)
            if !matches!(source.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
        {
            OpenError::Io { file: file.to_owned(), action: "open", source }
        }
        redb::Error::PreviousIo => {
            OpenError::Io { file: file.to_owned(), action: "open", source: io::Error::other(error) }
        }
        other => corrupt(file, other.to_string()),
    }
}

/// That the file is not what it has to be.
pub(super) fn corrupt(file: &Path, problem: String) -> OpenError {
    OpenError::Corrupt { file: file.to_owned(), problem, remedy: RESTORE.to_owned() }
}

impl Tables {
    /// Opens the database in `storage`, which is what `file` names, and checks its layout, and that the key of every sealed
    /// value is there.
    pub(super) fn open(
        storage: impl StorageBackend,
        file: PathBuf,
        codec: Arc<Codec>,
        clock: Option<WallClock>,
        faults: Arc<Faults>,
        cache_bytes: usize,
    ) -> Result<Self, OpenError> {
        let backend = Backend::new(storage, faults.clone()).map_err(OpenError::io("write", &file))?;
        let database = open_database(&file, backend, cache_bytes)?;
        let tables = Tables { database, file, codec, clock, faults };
        tables.check()?;
        Ok(tables)
    }

    fn check(&self) -> Result<(), OpenError> {
        let file = &self.file;
        let failed = |error: redb::Error| open_error(file, error);
        let damaged = |problem: String| Err(corrupt(file, problem));
        let read = self.database.begin_read().map_err(|e| failed(e.into()))?;
        let meta = read.open_table(META).map_err(|e| failed(e.into()))?;
        let row = |name| meta.get(name).map(|row| row.map(|r| r.value())).map_err(|e| failed(e.into()));
        match row(FORMAT_ROW)? {
            Some(FORMAT) => {}
            Some(found) if found > FORMAT => {
                return Err(OpenError::Newer { file: file.clone(), found, supported: FORMAT });
            }
            other => return damaged(format!("its format is {other:?}")),
        }
        let Some(revision) = row(REVISION_ROW)? else {
            return damaged("it has no revision".into());
        };
        let entries = read.open_table(ENTRIES).map_err(|e| failed(e.into()))?;
        for entry in entries.range::<&str>(..).map_err(|e| failed(e.into()))? {
            let (key, row) = entry.map_err(|e| failed(e.into()))?;
            let (create, modified, stored) = row.value();
            if create == 0 || create > modified || modified > revision {
                return damaged(format!("{}: impossible revisions", key.value()));
            }
            // Only the layout, and whether the key is there. Values are not opened: decrypting all of them would delay
            // every start, and one that was altered is found when it is read.
            match self.codec.check(stored) {
                Ok(()) => {}
                Err(SealError::UnknownKey(key_id)) => {
                    return Err(OpenError::MissingKey { file: file.clone(), key_id });
                }
                Err(error) => return damaged(format!("{}: {error}", key.value())),
            }
        }
        Ok(())
    }

    pub(super) fn revision(&self) -> Result<Revision> {
        let read = || -> Result<_, redb::Error> {
            Ok(self.database.begin_read()?.open_table(META)?.get(REVISION_ROW)?.map(|row| row.value()))
        };
        read().map_err(|e| self.read_error(e))?.ok_or_else(|| self.damaged("it has no revision".into()))
    }

    /// When the revision was raised last, in seconds since 1970, if that is known.
    pub(super) fn written(&self) -> Result<Option<u64>> {
        let read = || -> Result<_, redb::Error> {
            Ok(self.database.begin_read()?.open_table(META)?.get(WRITTEN_ROW)?.map(|row| row.value()))
        };
        read().map_err(|e| self.read_error(e))
    }

    pub(super) fn get(&self, key: &str) -> Result<Option<Entry>> {
        let table = || -> Result<_, redb::Error> { Ok(self.database.begin_read()?.open_table(ENTRIES)?) };
        let table = table().map_err(|e| self.read_error(e))?;
        self.entry(&table, key)
    }

    pub(super) fn list(&self, prefix: &str) -> Result<Listing> {
        let failed = |error: redb::Error| self.read_error(error);
        // Entries and revision from one read transaction: they are of the same moment.
        let read = self.database.begin_read().map_err(|e| failed(e.into()))?;
        let meta = read.open_table(META).map_err(|e| failed(e.into()))?;
        let revision = meta.get(REVISION_ROW).map_err(|e| failed(e.into()))?.map(|row| row.value());
        let revision = revision.ok_or_else(|| self.damaged("it has no revision".into()))?;
        let table = read.open_table(ENTRIES).map_err(|e| failed(e.into()))?;
        let mut entries = Vec::new();
        for item in table.range(prefix..).map_err(|e| failed(e.into()))? {
            let (key, row) = item.map_err(|e| failed(e.into()))?;
            if !key.value().starts_with(prefix) {
                break;
            }
            entries.push(self.decode(key.value(), row.value())?);
        }
        Ok(Listing { revision, entries })
    }

    /// Carries out works one after the other, each on the state that the one before it left, and makes all of it durable
    /// at once. A conflict rejects only its own transaction. Nothing is answered before the whole group is durable, not even
    /// a conflict: what it saw may be a change of the same group.
    pub(super) fn commit<'a>(&self, group: impl Iterator<Item = &'a Work>) -> Result<Group, CommitFailed> {
        let before = |error: redb::Error| CommitFailed { cause: self.cause(&error), unknown: None };
        let write = self.database.begin_write().map_err(|e| before(e.into()))?;
        // An error on the way drops the transaction, which undoes it: nothing of the group was changed.
        let (done, changed) = self.apply(&write, group).map_err(before)?;
        if !changed {
            write.abort().map_err(|e| before(e.into()))?;
            return Ok(done);
        }
        // redb's default is a durable commit: it returns after the fsync. Whether one that failed is on the disk all the same
        // is known only after the file was opened again.
        self.faults.expect_commit();
        let cause = match catch_unwind(AssertUnwindSafe(|| write.commit())) {
            Ok(Ok(())) => return Ok(done),
            Ok(Err(error)) => self.cause(&error.into()),
            Err(_) => Cause::Other("the database panicked".into()),
        };
        Err(CommitFailed { cause, unknown: self.faults.may_have_committed().then_some(done) })
    }

    /// Makes a commit that changes nothing, to see whether one that does would be durable.
    pub(super) fn touch(&self) -> Result<(), Cause> {
        let touch = || -> Result<(), redb::Error> {
            let write = self.database.begin_write()?;
            {
                let mut meta = write.open_table(META)?;
                let revision = meta.get(REVISION_ROW)?.map(|row| row.value());
                meta.insert(REVISION_ROW, revision.ok_or_else(no_revision)?)?;
            }
            Ok(write.commit()?)
        };
        touch().map_err(|error| self.cause(&error))
    }

    fn apply<'a>(
        &self,
        write: &redb::WriteTransaction,
        group: impl Iterator<Item = &'a Work>,
    ) -> Result<(Group, bool), redb::Error> {
        let mut meta = write.open_table(META)?;
        let mut rows = Rows { table: write.open_table(ENTRIES)?, codec: &self.codec };
        let stored = meta.get(REVISION_ROW)?.map(|row| row.value()).ok_or_else(no_revision)?;
        let answers = Vec::with_capacity(group.size_hint().0);
        let mut done = Group { answers, events: Vec::new(), revision: stored };
        for work in group {
            let answer = match work {
                Work::Raise(to) => {
                    done.revision = done.revision.max(*to);
                    Ok(done.revision)
                }
                Work::Commit(txn) => match transaction::apply(&mut rows, txn, done.revision + 1)? {
                    Outcome::Applied(event) => {
                        done.revision = event.revision;
                        done.events.push(Arc::new(event));
                        Ok(done.revision)
                    }
                    Outcome::Unchanged => Ok(done.revision),
                    // An entry that cannot be read is answered to this caller only; the rest of the group goes on.
                    Outcome::Conflict(key) => self
                        .entry(&rows.table, &key)
                        .and_then(|current| Err(Error::Conflict { key, current })),
                },
            };
            done.answers.push(answer);
        }
        let changed = done.revision != stored;
        if changed {
            meta.insert(REVISION_ROW, done.revision)?;
            if let Some(clock) = &self.clock {
                meta.insert(WRITTEN_ROW, clock())?;
            }
        }
        Ok((done, changed))
    }

    /// Whether the database has what these events, in order, say of the keys that they are about.
    pub(super) fn agrees_with<'a>(&self, events: impl Iterator<Item = &'a Arc<Event>>) -> Result<bool> {
        let mut expected: HashMap<&str, Option<Revision>> = HashMap::new();
        for change in events.flat_map(|event| &event.changes) {
            let revision = match change {
                Change::Put(entry) => Some(entry.mod_revision),
                Change::Delete { .. } => None,
            };
            expected.insert(change.key(), revision);
        }
        let table = || -> Result<_, redb::Error> { Ok(self.database.begin_read()?.open_table(ENTRIES)?) };
        let table = table().map_err(|e| self.read_error(e))?;
        for (key, revision) in expected {
            let row = table.get(key).map_err(|e| self.read_error(e.into()))?;
            if row.map(|row| row.value().1) != revision {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn entry(&self, table: &impl ReadableTable<&'static str, Row>, key: &str) -> Result<Option<Entry>> {
        let row = table.get(key).map_err(|e| self.read_error(e.into()))?;
        row.map(|row| self.decode(key, row.value())).transpose()
    }

    fn decode(&self, key: &str, (create, modified, stored): (u64, u64, &[u8])) -> Result<Entry> {
        let value = self.codec.decode(key, stored);
        let value = value.map_err(|error| self.damaged(format!("{key}: {error}")))?;
        Ok(Entry { key: key.into(), value, create_revision: create, mod_revision: modified })
    }

    fn damaged(&self, problem: String) -> Error {
        Error::Corrupt { file: self.file.clone(), problem, remedy: RESTORE.to_owned() }
    }

    fn read_error(&self, error: redb::Error) -> Error {
        match error {
            redb::Error::Corrupted(problem) => self.damaged(problem),
            other => {
                Error::Unavailable { reason: format!("the database cannot be read: {}", self.cause(&other)) }
            }
        }
    }

    /// What is behind an error of redb.
    fn cause(&self, error: &redb::Error) -> Cause {
        match (error, self.faults.first()) {
            (redb::Error::Io(error), _) => error.into(),
            (redb::Error::Corrupted(_), _) => Cause::Damaged,
            // "A previous I/O error": the note says which.
            (_, Some(first)) => first,
            (other, None) => Cause::Other(other.to_string()),
        }
    }

    /// The I/O error that has made the database useless, if one has.
    pub(super) fn fault(&self) -> Option<Cause> {
        self.faults.first()
    }

    /// Closes the database, so that the next open finds nothing to recover.
    pub(super) fn close(self) -> Result<(), DatabaseError> {
        self.database.close()
    }
}

fn no_revision() -> redb::Error {
    redb::Error::Corrupted("no revision".into())
}

/// The entries inside a write transaction.
struct Rows<'a, 'txn> {
    table: Table<'txn, &'static str, Row>,
    codec: &'a Codec,
}

impl State for Rows<'_, '_> {
    type Error = redb::Error;

    fn revisions(&self, key: &str) -> Result<Option<Revisions>, redb::Error> {
        let row = self.table.get(key)?;
        Ok(row.map(|row| {
            let (create, modified, _) = row.value();
            Revisions { create, modified }
        }))
    }

    fn put(&mut self, key: &Arc<str>, value: &Bytes, revisions: Revisions) -> Result<(), redb::Error> {
        let stored = self.codec.encode(key, value);
        let stored = stored.map_err(|error| redb::Error::Io(io::Error::other(error)))?;
        self.table.insert(&**key, (revisions.create, revisions.modified, stored.as_slice()))?;
        Ok(())
    }

    fn remove(&mut self, key: &str) -> Result<(), redb::Error> {
        self.table.remove(key)?;
        Ok(())
    }
}
