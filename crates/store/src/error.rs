//! What can go wrong, and whether trying again can help.

use crate::contract::{Entry, Revision};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The result of an operation of a store.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation of an open store did not succeed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// A compare of the transaction does not hold; nothing was changed.
    #[error("{key} is not at the revision that the transaction expects (now: {})",
        current.as_ref().map_or_else(|| "absent".to_owned(), |e| e.mod_revision.to_string()))]
    Conflict {
        /// The key of the first compare that does not hold.
        key: Arc<str>,
        /// What the key holds; `None` if it does not exist.
        current: Option<Entry>,
    },

    /// The transaction is malformed; nothing was changed. A mistake of the caller.
    #[error("malformed transaction: {reason}")]
    Invalid {
        /// What is wrong with it.
        reason: String,
    },

    /// The watch asks for events that the engine no longer has: list, then watch after the listing.
    #[error("events after revision {requested} are gone, the oldest start is {oldest}")]
    Compacted {
        /// The revision that the watch asked to start after.
        requested: Revision,
        /// The oldest revision that a watch can start after.
        oldest: Revision,
    },

    /// The watcher was too slow: events after the last one it got are gone. List and watch anew.
    #[error("the watcher fell behind: events after revision {delivered} are gone")]
    Lagged {
        /// Every event up to this revision was delivered.
        delivered: Revision,
    },

    /// The engine cannot answer now; nothing was changed.
    #[error("the store is unavailable: {reason}")]
    Unavailable {
        /// Why.
        reason: String,
    },

    /// The engine cannot write now, and goes on trying to; nothing was changed. Reads go on.
    #[error("the store cannot be written: {cause}")]
    Unwritable {
        /// What keeps it from writing.
        cause: Cause,
    },

    /// The commit may have happened or not: read before writing again.
    #[error("it is not known whether the commit happened: {reason}")]
    OutcomeUnknown {
        /// Why.
        reason: String,
    },

    /// The engine ended because of a mistake in it; this operation changed nothing.
    #[error("the store {} stopped and must be opened again: {problem}", file.display())]
    Stopped {
        /// The file that the engine was working on.
        file: PathBuf,
        /// What happened.
        problem: String,
    },

    /// What is stored cannot be read.
    #[error("{} is damaged: {problem}; {remedy}", file.display())]
    Corrupt {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        problem: String,
        /// What an operator can do.
        remedy: String,
    },

    /// The store is the target of a migration that was not finished: it may lack anything.
    #[error(
        "the store was not filled completely: run `fleetpass migrate` again, which goes on where it stopped"
    )]
    Unfinished,

    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

impl Error {
    /// Whether the same call, made again, may succeed although nobody intervened and the caller
    /// looked at nothing first.
    pub fn retry_can_help(&self) -> bool {
        // No wildcard: whoever adds an error has to decide.
        match self {
            Error::Unavailable { .. } => true,
            // Not by itself: somebody has to make room, or to look after the disk.
            Error::Unwritable { .. }
            | Error::Conflict { .. }
            | Error::Invalid { .. }
            | Error::Compacted { .. }
            | Error::Lagged { .. }
            | Error::OutcomeUnknown { .. }
            | Error::Stopped { .. }
            | Error::Corrupt { .. }
            | Error::Unfinished
            | Error::Closed => false,
        }
    }
}

/// What keeps an engine from writing. It names no path, so that clients may be told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// The file system, or what a quota leaves of it, is full.
    #[error("no space left on device")]
    NoSpace,
    /// The file system is mounted read-only, or became so after an error.
    #[error("read-only file system")]
    ReadOnly,
    /// The file is locked by another process.
    #[error("its file is in use by another process")]
    InUse,
    /// The file is not what it was when it was written last.
    #[error("its file is damaged")]
    Damaged,
    /// Anything else, as the operating system or the server of the engine says it.
    #[error("{0}")]
    Other(String),
}

impl Cause {
    /// What an operator can do about it: an imperative, without a full stop.
    pub fn remedy(&self) -> &'static str {
        match self {
            Cause::NoSpace => "make room on its file system",
            Cause::ReadOnly => "mount its file system for writing",
            Cause::InUse => "stop the other process",
            Cause::Damaged => "restore it from a backup",
            Cause::Other(_) => "see what the system's log says about its disk",
        }
    }
}

impl From<&io::Error> for Cause {
    fn from(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Cause::NoSpace,
            io::ErrorKind::ReadOnlyFilesystem => Cause::ReadOnly,
            _ => Cause::Other(error.to_string()),
        }
    }
}

impl From<&OpenError> for Cause {
    fn from(error: &OpenError) -> Self {
        match error {
            OpenError::Io { source, .. } => source.into(),
            OpenError::InUse { .. } => Cause::InUse,
            OpenError::Newer { .. } | OpenError::Corrupt { .. } => Cause::Damaged,
            // Their texts name files and servers, which are the operator's business.
            OpenError::KeyFile { .. } | OpenError::MissingKey { .. } | OpenError::Etcd { .. } => {
                Cause::Other("it cannot be opened".into())
            }
        }
    }
}

/// Why a store or its key file could not be opened. What was there has not been changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process (or another store of this one) has the data directory.
    #[error("{} is locked: the data directory is in use by another process; stop it first", file.display())]
    InUse {
        /// The file whose lock is held.
        file: PathBuf,
    },

    /// The file was written by a newer version.
    #[error("{} has format {found}, this version reads up to {supported}; run the newer version, \
        or restore a backup from before the upgrade", file.display())]
    Newer {
        /// The file.
        file: PathBuf,
        /// Its format.
        found: u64,
        /// The newest format that this version knows.
        supported: u64,
    },

    /// The file is damaged, cut short, or not a store.
    #[error("{} is damaged: {problem}; {remedy}", file.display())]
    Corrupt {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        problem: String,
        /// What an operator can do.
        remedy: String,
    },

    /// The key file cannot be used.
    #[error("key file {}: {problem}; {remedy}", file.display())]
    KeyFile {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        problem: String,
        /// What an operator can do.
        remedy: String,
    },

    /// A stored value is sealed with a key that was not given.
    #[error("{} holds values sealed with the encryption key {key_id:?}, which the key file does not have; \
        put that key back behind the first one", file.display())]
    MissingKey {
        /// The file with the sealed value.
        file: PathBuf,
        /// The id of the key.
        key_id: String,
    },

    /// etcd cannot be used.
    #[error("etcd at {servers}: {problem}; {remedy}")]
    Etcd {
        /// The URLs of its members.
        servers: String,
        /// What is wrong.
        problem: String,
        /// What an operator can do.
        remedy: &'static str,
    },

    /// The operating system refused.
    #[error("cannot {action} {}: {source}{}", file.display(), advice(source))]
    Io {
        /// The file or directory.
        file: PathBuf,
        /// What was tried: a verb.
        action: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
}

/// The end of a message about an I/O error: what to do, where the error tells.
fn advice(error: &io::Error) -> String {
    match Cause::from(error) {
        cause @ (Cause::NoSpace | Cause::ReadOnly) => format!("; {}, and start again", cause.remedy()),
        _ => String::new(),
    }
}

impl OpenError {
    /// Whether opening again may succeed although nobody repaired anything.
    pub fn retry_can_help(&self) -> bool {
        match self {
            OpenError::InUse { .. } | OpenError::Etcd { .. } => true,
            OpenError::Io { source, .. } => matches!(
                source.kind(),
                io::ErrorKind::Interrupted
                    | io::ErrorKind::StorageFull
                    | io::ErrorKind::QuotaExceeded
                    | io::ErrorKind::ResourceBusy
            ),
            OpenError::Newer { .. }
            | OpenError::Corrupt { .. }
            | OpenError::KeyFile { .. }
            | OpenError::MissingKey { .. } => false,
        }
    }

    /// An I/O error's place: `what().map_err(OpenError::io("open", path))`.
    pub(crate) fn io(action: &'static str, file: &Path) -> impl FnOnce(io::Error) -> OpenError + use<> {
        let file = file.to_owned();
        move |source| OpenError::Io { file, action, source }
    }
}
