//! Copies a store to another one, whatever the engines are.
//!
//! # Flow
//! ```text
//! read the source ─► see that nobody ─► mark the target ─► raise its revision ─► copy ─► compare ─► take the
//!                    writes to it       (it is empty)      above the source's            both       mark away
//! ```
//!
//! # Guarantees
//! - Every entry of the target, and so every `resourceVersion`, is greater than all that the source ever gave out: who
//!   watched the source is told to list anew and sees no revision go back, and who read an object there cannot mistake
//!   it for a later one here.
//! - A target that is not complete carries the [`MARK`]; a server [refuses](refuse_unfinished) it. What was interrupted
//!   goes on where it stopped, if the source still is what it was.
//! - The source is not changed.
//!
//! # Caveats
//! Nobody may write to the source meanwhile. What is written is noticed at the end, and makes the copy worthless. Both
//! listings are in memory at once, as they are in the memory of a server.

use crate::contract::{Compare, Entry, Listing, Op, Revision, Store, Txn};
use crate::error;
use async_trait::async_trait;
use aws_lc_rs::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The key in the target of a migration that is not finished. Its value says what is being copied.
pub const MARK: &str = "/registry/fleetpass.io/migration";

/// How much one transaction carries: etcd takes 128 operations and 1.5 MiB.
const BATCH_OPS: usize = 64;
const BATCH_BYTES: usize = 1 << 20;
/// How far the revision is raised between two words about it.
const RAISE_STEP: Revision = 20_000;

/// An engine that a copy can be made to.
#[async_trait]
pub trait Target: Store {
    /// Sees to it that the present revision is `revision` at least. No entry changes.
    ///
    /// # Errors
    ///
    /// As [`Store::commit`]; calling it again goes on.
    async fn raise(&self, revision: Revision) -> error::Result<()>;
}

/// What a migration is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// What to do about a target that an interrupted migration left.
    pub unfinished: Unfinished,
    /// For how long it is seen that nobody writes to the source, where no lock keeps others out.
    pub quiet: Duration,
}

/// What to do about a target that an interrupted migration left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfinished {
    /// Go on, if it was the same source in the same state.
    Resume,
    /// Delete what is there and begin anew, whatever the source was.
    Discard,
}

/// Where a migration is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// The source was read.
    Read {
        /// How many entries it has.
        entries: usize,
        /// Its revision.
        revision: Revision,
    },
    /// It is being seen that nobody writes to the source.
    Waiting,
    /// The target is marked; so many entries were there from an interrupted migration.
    Marked {
        /// How many entries are there already.
        present: usize,
    },
    /// The target's revision is being raised.
    Raising {
        /// What it is.
        now: Revision,
        /// What it has to be.
        to: Revision,
    },
    /// Entries are being copied.
    Copying {
        /// How many are there.
        done: usize,
        /// Of how many.
        of: usize,
    },
    /// All is there; it is being compared.
    Comparing,
}

/// What a migration has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// How many entries the stores have.
    pub entries: usize,
    /// The SHA-256 of all keys and values, in hexadecimal digits.
    pub digest: String,
    /// The source's revision.
    pub source: Revision,
    /// The target's revision.
    pub target: Revision,
}

/// Why a store was not copied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MigrateError {
    /// The source is itself an incomplete copy.
    #[error("the source is the target of a migration that was not finished")]
    SourceUnfinished,
    /// There is something in the target, and no mark.
    #[error("the target is not empty: it has {entries} entries, {key} among them")]
    NotEmpty {
        /// How many entries it has.
        entries: usize,
        /// One of them.
        key: Arc<str>,
    },
    /// The target holds a part of something else.
    #[error("the target holds a part of the migration of another source, or of this one before it changed")]
    OtherSource,
    /// The target's mark cannot be read.
    #[error("the target holds a part of a migration by another version")]
    OtherVersion,
    /// Somebody wrote to the target.
    #[error("the target has {key}, which the migration did not write")]
    Foreign {
        /// What is there.
        key: Arc<str>,
    },
    /// Somebody wrote to the source.
    #[error("the source changed while it was copied: a process uses it")]
    SourceChanged,
    /// The copy is not the same.
    #[error(
        "the copy is not the same: {source_entries} entries with SHA-256 {source_digest} in the source, \
        {target_entries} with {target_digest} in the target"
    )]
    Different {
        /// Number of entries in the source.
        source_entries: usize,
        /// Their digest.
        source_digest: String,
        /// Number of entries in the target.
        target_entries: usize,
        /// Their digest.
        target_digest: String,
    },
    /// The source failed.
    #[error("the source: {0}")]
    Source(#[source] error::Error),
    /// The target failed; called again, the migration goes on.
    #[error("the target: {0}")]
    Target(#[source] error::Error),
}

/// The value of the mark.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Mark {
    version: u32,
    source_revision: Revision,
    entries: usize,
    sha256: String,
}

const VERSION: u32 = 1;

/// Refuses a store that an interrupted migration left: it may lack anything.
///
/// # Errors
///
/// [`error::Error::Unfinished`], or the store cannot be read.
pub async fn refuse_unfinished(store: &dyn Store) -> error::Result<()> {
    match store.get(MARK).await? {
        None => Ok(()),
        Some(_) => Err(error::Error::Unfinished),
    }
}

/// Copies all entries of `source` to `target`, and tells `progress` where it is.
///
/// # Errors
///
/// [`MigrateError`]. The target keeps the [`MARK`] from the first change to the last.
pub async fn migrate(
    source: &dyn Store,
    target: &dyn Target,
    options: Options,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<Report, MigrateError> {
    let read = source.list("").await.map_err(MigrateError::Source)?;
    if read.entries.iter().any(|entry| &*entry.key == MARK) {
        return Err(MigrateError::SourceUnfinished);
    }
    progress(Progress::Read { entries: read.entries.len(), revision: read.revision });
    if !options.quiet.is_zero() {
        progress(Progress::Waiting);
        tokio::time::sleep(options.quiet).await;
        unchanged(source, &read).await?;
    }
    // Everything that follows can be interrupted: until the mark is taken away the target is refused by servers, and the
    // mark says whether what is there belongs to this source in this state.
    let wanted = Mark {
        version: VERSION,
        source_revision: read.revision,
        entries: read.entries.len(),
        sha256: digest(&read.entries),
    };
    let (mark, present) = prepare(&read, &wanted, target, options.unfinished).await?;
    progress(Progress::Marked { present: present.len() });
    // Before the first entry is written: each gets a revision that the source never gave out.
    raise(target, read.revision, progress).await?;
    copy(&read.entries, &present, target, mark, progress).await?;
    progress(Progress::Comparing);
    compare(&wanted, target).await?;
    unchanged(source, &read).await?;
    // Only if the mark is still ours: another process may have begun anew meanwhile.
    let revision = target.commit(Txn::delete(MARK, mark)).await.map_err(MigrateError::Target)?;
    Ok(Report { entries: wanted.entries, digest: wanted.sha256, source: read.revision, target: revision })
}

/// Marks the target; gives the mark's revision, and the entries that are there already.
async fn prepare(
    source: &Listing,
    wanted: &Mark,
    target: &dyn Target,
    unfinished: Unfinished,
) -> Result<(Revision, BTreeMap<Arc<str>, Entry>), MigrateError> {
    let found = target.list("").await.map_err(MigrateError::Target)?.entries;
    let (marks, present): (Vec<_>, Vec<_>) = found.into_iter().partition(|entry| &*entry.key == MARK);
    let mut present: BTreeMap<_, _> = present.into_iter().map(|entry| (entry.key.clone(), entry)).collect();
    let before = match (marks.first(), present.first_key_value()) {
        (None, None) => 0,
        (None, Some((key, _))) => {
            return Err(MigrateError::NotEmpty { entries: present.len(), key: key.clone() });
        }
        (Some(mark), _) if unfinished == Unfinished::Discard => {
            discard(&present, target, mark.mod_revision).await?;
            present.clear();
            mark.mod_revision
        }
        (Some(mark), _) => {
            let made: Mark = serde_json::from_slice(&mark.value).map_err(|_| MigrateError::OtherVersion)?;
            if made.version != VERSION {
                return Err(MigrateError::OtherVersion);
            }
            if made != *wanted {
                return Err(MigrateError::OtherSource);
            }
            of_source(source, &present)?;
            mark.mod_revision
        }
    };
    let value = serde_json::to_vec(wanted).expect("numbers and text always serialize");
    // Written anew when there is one: a process that still copies to this target fails at its next write.
    let mark = target.commit(Txn::update(MARK, value, before)).await.map_err(MigrateError::Target)?;
    Ok((mark, present))
}

/// Whether what is in the target came from the source. Linear: both are looked up in ordered maps.
fn of_source(source: &Listing, present: &BTreeMap<Arc<str>, Entry>) -> Result<(), MigrateError> {
    let values: BTreeMap<_, _> = source.entries.iter().map(|entry| (&entry.key, &entry.value)).collect();
    let foreign = present
        .values()
        .find(|entry| values.get(&entry.key) != Some(&&entry.value) || entry.mod_revision <= source.revision);
    foreign.map_or(Ok(()), |entry| Err(MigrateError::Foreign { key: entry.key.clone() }))
}

async fn discard(
    present: &BTreeMap<Arc<str>, Entry>,
    target: &dyn Target,
    mark: Revision,
) -> Result<(), MigrateError> {
    let keys: Vec<_> = present.keys().collect();
    // The mark stays until the end: interrupted here, the target still is a target.
    for batch in keys.chunks(BATCH_OPS) {
        let deletes = batch.iter().fold(marked(mark), |txn, key| txn.and(Txn::remove(Arc::clone(key))));
        target.commit(deletes).await.map_err(MigrateError::Target)?;
    }
    Ok(())
}

/// A transaction that fails if another process has taken the target over.
fn marked(mark: Revision) -> Txn {
    Txn { compares: vec![Compare { key: MARK.into(), mod_revision: mark }], ops: Vec::new() }
}

async fn raise(
    target: &dyn Target,
    to: Revision,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<(), MigrateError> {
    loop {
        let now = target.revision().await.map_err(MigrateError::Target)?;
        if now >= to {
            return Ok(());
        }
        progress(Progress::Raising { now, to });
        // In steps, so that the user sees that something happens: on etcd each revision is a write.
        target.raise(to.min(now.saturating_add(RAISE_STEP))).await.map_err(MigrateError::Target)?;
    }
}

async fn copy(
    entries: &[Entry],
    present: &BTreeMap<Arc<str>, Entry>,
    target: &dyn Target,
    mark: Revision,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<(), MigrateError> {
    let mut missing = entries.iter().filter(|entry| !present.contains_key(&entry.key)).peekable();
    let mut done = present.len();
    while missing.peek().is_some() {
        progress(Progress::Copying { done, of: entries.len() });
        let mut txn = marked(mark);
        let mut bytes = 0;
        while let Some(entry) = missing.next_if(|entry| {
            txn.ops.is_empty() || txn.ops.len() < BATCH_OPS && bytes + size(entry) <= BATCH_BYTES
        }) {
            bytes += size(entry);
            // A key that somebody else wrote meanwhile is a conflict, never written over.
            txn.compares.push(Compare { key: entry.key.clone(), mod_revision: 0 });
            txn.ops.push(Op::Put { key: entry.key.clone(), value: entry.value.clone() });
        }
        done += txn.ops.len();
        target.commit(txn).await.map_err(MigrateError::Target)?;
    }
    progress(Progress::Copying { done, of: entries.len() });
    Ok(())
}

fn size(entry: &Entry) -> usize {
    // Twice: a compare names the key, too.
    2 * entry.key.len() + entry.value.len()
}

/// Reads the target back.
async fn compare(wanted: &Mark, target: &dyn Target) -> Result<(), MigrateError> {
    let mut copied = target.list("").await.map_err(MigrateError::Target)?.entries;
    copied.retain(|entry| &*entry.key != MARK);
    let (entries, sha256) = (copied.len(), digest(&copied));
    if (entries, &sha256) != (wanted.entries, &wanted.sha256) {
        return Err(MigrateError::Different {
            source_entries: wanted.entries,
            source_digest: wanted.sha256.clone(),
            target_entries: entries,
            target_digest: sha256,
        });
    }
    // Who read an object of the source must not find an older revision here; the digest does not tell.
    match copied.iter().find(|entry| entry.create_revision <= wanted.source_revision) {
        Some(entry) => Err(MigrateError::Foreign { key: entry.key.clone() }),
        None => Ok(()),
    }
}

/// Whether the source still is what was read. Its revision alone does not tell: others may use the same etcd.
async fn unchanged(source: &dyn Store, read: &Listing) -> Result<(), MigrateError> {
    if source.revision().await.map_err(MigrateError::Source)? == read.revision {
        return Ok(());
    }
    let now = source.list("").await.map_err(MigrateError::Source)?.entries;
    if now == read.entries { Ok(()) } else { Err(MigrateError::SourceChanged) }
}

/// The SHA-256 of all keys and values; their lengths keep them apart.
fn digest(entries: &[Entry]) -> String {
    let mut context = Context::new(&SHA256);
    for entry in entries {
        for part in [entry.key.as_bytes(), &entry.value] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
    }
    context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
